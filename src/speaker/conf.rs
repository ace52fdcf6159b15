//! frr.conf, as far as lines of ours stand in it. The file is the operator's: it is read for a hint and never written. Pure.

use super::render::BgpLine;
use super::running;
use super::whose::is_ours;
use crate::model::{IfName, Vni};
use std::net::Ipv4Addr;

/// A VRF's part of frr.conf that is ours to the line, as `write memory` leaves it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stanza {
    /// The VRF.
    pub vrf: IfName,
    /// The VNI that the file gives it.
    pub vni: Option<Vni>,
    /// The instance's AS.
    pub asn: u32,
}

/// All such parts of a frr.conf.
pub fn stanzas_in(text: &str) -> Vec<Stanza> {
    let running = running::parse(text);
    let found = running.instances.iter().filter_map(|instance| {
        let vrf: IfName = instance.vrf.as_deref()?.parse().ok()?;
        let id = |(_, line): &(String, String)| line.strip_prefix("bgp router-id ")?.parse::<Ipv4Addr>().ok();
        let ids: Vec<Ipv4Addr> = instance.lines.iter().filter_map(id).collect();
        let whole = BgpLine::ALL.iter().all(|line| instance.has(line.text().0, line.text().1));
        (whole && is_ours(instance, &running, &ids)).then(|| Stanza { vni: vni_of(text, &vrf), vrf, asn: instance.asn })
    });
    found.collect()
}

/// `vni N` below `vrf X`.
fn vni_of(text: &str, vrf: &IfName) -> Option<Vni> {
    let begins = |line: &&str| line.strip_prefix("vrf ").is_some_and(|name| name.trim() == vrf.as_str());
    let below = text.lines().skip_while(|line| !begins(line)).skip(1).take_while(|line| line.starts_with(' '));
    below.into_iter().find_map(|line| line.trim().strip_prefix("vni ")?.parse::<u32>().ok()?.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Vrf;
    use crate::speaker::stanzas;

    #[test]
    fn what_write_memory_left_is_found_and_what_the_operator_wrote_is_not() {
        let vrf = |name: &str, vni: u32| Vrf {
            name: name.parse().unwrap(),
            table: 10.try_into().unwrap(),
            vni: vni.try_into().ok(),
        };
        let host = "frr version 8.4.4\nrouter bgp 64512\n bgp router-id 10.0.0.1\n address-family l2vpn evpn\n  advertise-all-vni\n exit-address-family\nexit\n!\n";
        let ours = |name, vni| stanzas(&vrf(name, vni), Some(64512), Some([10, 0, 0, 1].into()));
        let text = format!("{host}{}{}", ours("red", 10), ours("green", 30));
        let stanza = |name: &str, vni: u32| Stanza { vrf: name.parse().unwrap(), vni: vni.try_into().ok(), asn: 64512 };
        assert_eq!(stanzas_in(&text), [stanza("red", 10), stanza("green", 30)]);
        let text = text
            .replace("router bgp 64512 vrf green\n", "router bgp 64512 vrf green\n neighbor 10.9.0.1 remote-as 1\n");
        assert_eq!(stanzas_in(&text), [stanza("red", 10)]);
        assert_eq!(stanzas_in(&text.replace("  advertise ipv6 unicast\n", "")), [], "a part of it");
        assert_eq!(
            stanzas_in(&text.replace("vrf red\n vni 10\nexit-vrf\n", "")),
            [Stanza { vni: None, ..stanza("red", 10) }]
        );
        assert_eq!(stanzas_in(host), []);
        assert_eq!(stanzas_in("router bgp 1 vrf ../../etc\n"), []);
    }
}
