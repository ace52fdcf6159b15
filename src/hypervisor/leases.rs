//! What libvirt's dnsmasq gave to whom: BRIDGE.status, which libvirt's leaseshelper replaces at each change of a lease
//! (src/network/leaseshelper.c, src/util/virfile.c `virFileRewriteStr`).

use crate::model::{IfName, Mac, host_ip};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

/// Where they lie (bridge_driver.c `networkStateInitialize`, dnsmasqStateDir).
pub const LEASES: &str = "/var/lib/libvirt/dnsmasq";

/// The most that is read, in bytes: a lease takes some 200, and a /16 has 65,000.
const MAX_FILE: u64 = 16 << 20;

/// One lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Who has it.
    pub mac: Mac,
    /// What.
    pub ip: IpAddr,
    /// Until when, in seconds since 1970; `None` for ever.
    pub until: Option<u64>,
}

/// The leases on one bridge; `None` where there is no such list, or none that can be understood.
pub fn of(bridge: &IfName) -> Option<Vec<Lease>> {
    read(File::open(Path::new(LEASES).join(format!("{bridge}.status"))).ok()?)
}

fn read(file: impl Read) -> Option<Vec<Lease>> {
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).ok()?;
    parse(&text)
}

pub(crate) fn parse(text: &[u8]) -> Option<Vec<Lease>> {
    // Without any lease it is empty, and before the first one it is not there.
    if text.iter().all(u8::is_ascii_whitespace) {
        return Some(Vec::new());
    }
    let Value::Array(leases) = serde_json::from_slice(text).ok()? else { return None };
    Some(leases.iter().filter_map(lease).collect())
}

fn lease(lease: &Value) -> Option<Lease> {
    let mac = lease.get("mac-address")?.as_str()?.parse().ok()?;
    let ip = host_ip(lease.get("ip-address")?.as_str()?).ok()?;
    let until = lease.get("expiry-time").and_then(Value::as_u64).filter(|until| *until > 0);
    Some(Lease { mac, ip, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaseshelper_writes() {
        // Of libvirt 9.0.
        let text = br#"[
  {
    "ip-address": "10.1.0.38",
    "mac-address": "52:54:00:03:82:d8",
    "client-id": "01:52:54:00:03:82:d8",
    "expiry-time": 1700003600
  },
  {
    "iaid": "225944",
    "ip-address": "fd00:1::1c",
    "mac-address": "52:54:00:03:82:d9",
    "hostname": "c1",
    "client-id": "00:01:00:01:2c:ec:35:a1:52:54:00:03:82:d9",
    "server-duid": "00:01:00:01:2c:ec:35:00:52:54:00:00:00:01"
  },
  { "ip-address": "fd00:1::1d", "client-id": "without a MAC it is nobody's" },
  { "ip-address": "10.1.0.0.1", "mac-address": "52:54:00:03:82:d8" }
]"#;
        let lease = |mac: &str, ip: &str, until| Lease { mac: mac.parse().unwrap(), ip: ip.parse().unwrap(), until };
        let wanted = [
            lease("52:54:00:03:82:d8", "10.1.0.38", Some(1_700_003_600)),
            lease("52:54:00:03:82:d9", "fd00:1::1c", None),
        ];
        assert_eq!(parse(text).unwrap(), wanted);
    }

    #[test]
    fn a_list_without_end_says_nothing() {
        let lease = br#"{"ip-address":"10.1.0.38","mac-address":"52:54:00:03:82:d8"},"#;
        let endless = std::iter::repeat_n(lease, (MAX_FILE as usize >> 5) + 1).flatten().copied().collect::<Vec<u8>>();
        assert_eq!(read(b"[".chain(&endless[..])), None);
        assert_eq!(
            read(&b"[{\"ip-address\":\"10.1.0.38\",\"mac-address\":\"52:54:00:03:82:d8\"}]"[..]).unwrap().len(),
            1
        );
    }

    #[test]
    fn what_is_no_list_says_nothing_and_an_empty_one_that_there_are_none() {
        assert_eq!(parse(br#"[ { "ip-address": "10.1.0"#), None);
        assert_eq!(parse(b"{}"), None);
        assert_eq!(parse(b"[]"), Some(Vec::new()));
        assert_eq!(parse(b""), Some(Vec::new()));
    }
}
