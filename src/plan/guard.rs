//! Port security: which senders a guest's port lets in, made from the same record that is advertised.

use crate::config::PortSecurity;
use crate::model::{Address, Mac, Source};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a port's guard says of it: each is an element of one of the guard's sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lets {
    /// The port is guarded, to this degree; what is not let through is dropped.
    Guarded(PortSecurity),
    /// Frames from this MAC.
    Mac(Mac),
    /// This MAC where a protocol names one: DHCP's client, a neighbour's link-layer address.
    Names(Mac),
    /// Packets from this address, and ARP that speaks for it.
    V4(Ipv4Addr),
    /// Packets from this address, and neighbour discovery that speaks for it.
    V6(Ipv6Addr),
}

/// What a port's guard says.
pub type Guard = BTreeSet<Lets>;

/// The guard of a guest's port; empty where there is none. Before its MAC is known nothing is let in.
pub fn guard(security: PortSecurity, mac: Option<Mac>, ips: &[Address]) -> Guard {
    let mac = match (security, mac) {
        (PortSecurity::Off, _) => return Guard::new(),
        (_, None) => return Guard::from([Lets::Guarded(security)]),
        (_, Some(mac)) => mac,
    };
    let mut lets = Guard::from([Lets::Guarded(security), Lets::Mac(mac)]);
    if security == PortSecurity::MacIp {
        lets.extend([Lets::Names(mac), Lets::V6(mac.link_local())]);
        lets.extend(ips.iter().filter(|a| is_granted(a, mac)).map(|a| match a.ip {
            IpAddr::V4(ip) => Lets::V4(ip),
            IpAddr::V6(ip) => Lets::V6(ip),
        }));
    }
    lets
}

/// Did somebody give the guest this address, and not only the guest itself? What it makes of its own MAC (RFC 4862) nobody else can have.
pub fn is_granted(address: &Address, mac: Mac) -> bool {
    address.source != Source::Neighbour || is_of(address.ip, mac)
}

/// Is it made of this MAC by stateless autoconfiguration, in whatever prefix?
fn is_of(ip: IpAddr, mac: Mac) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&ip.octets()[..8]);
    mac.in_prefix(prefix) == ip
}

impl fmt::Display for Lets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lets::Guarded(security) => security.fmt(f),
            Lets::Mac(mac) | Lets::Names(mac) => mac.fmt(f),
            Lets::V4(ip) => ip.fmt(f),
            Lets::V6(ip) => ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, source: Source) -> Address {
        Address::new(ip.parse().unwrap(), source)
    }

    #[test]
    fn what_nobody_gave_is_not_let_through() {
        let mac: Mac = "52:54:00:03:82:d8".parse().unwrap();
        let own = "fd00:1::5054:ff:fe03:82d8";
        let ips = [
            address("10.1.0.60", Source::DhcpHost),
            address("10.1.0.61", Source::Lease),
            address("10.1.0.62", Source::Neighbour),
            address("fd00:1::60", Source::Neighbour),
            address(own, Source::Neighbour),
        ];
        let shown =
            |security, mac| guard(security, mac, &ips).iter().map(|l| format!("{l:?}")).collect::<Vec<_>>().join(" ");
        assert_eq!(shown(PortSecurity::Off, Some(mac)), "");
        assert_eq!(shown(PortSecurity::Off, None), "");
        assert_eq!(shown(PortSecurity::MacIp, None), "Guarded(MacIp)");
        assert_eq!(shown(PortSecurity::Mac, Some(mac)), "Guarded(Mac) Mac(52:54:00:03:82:d8)");
        assert_eq!(
            shown(PortSecurity::MacIp, Some(mac)),
            format!(
                "Guarded(MacIp) Mac(52:54:00:03:82:d8) Names(52:54:00:03:82:d8) V4(10.1.0.60) V4(10.1.0.61) V6({own}) V6(fe80::5054:ff:fe03:82d8)"
            )
        );
    }
}
