//! FRR's own files: what a `write memory` left of ours in frr.conf, and whether bgpd is to run at all.

use super::{Facts, Finding, HostFacts};
use crate::speaker::{Stanza, stanzas_in};
use std::path::Path;

const CONF: &str = "/etc/frr/frr.conf";
const DAEMONS: &str = "/etc/frr/daemons";
/// Where the FRR is that these files are of.
const SOCKETS: [&str; 2] = ["/run/frr", "/var/run/frr"];

#[derive(Default)]
pub struct FrrFiles {
    stanzas: Vec<Stanza>,
    /// The file that starts FRR's daemons leaves bgpd out.
    pub bgpd_is_off: bool,
}

pub fn observe(host: &HostFacts) -> FrrFiles {
    // An FRR elsewhere has files elsewhere.
    let is_here = SOCKETS.iter().any(|dir| host.config.speaker.socket_dir == Path::new(dir));
    let text = |path: &str| if is_here { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    FrrFiles { stanzas: stanzas_in(&text(CONF)), bgpd_is_off: is_off(&text(DAEMONS)) }
}

/// Debian's file is read by a shell: the last one counts.
fn is_off(daemons: &str) -> bool {
    let value = daemons.lines().filter_map(|line| line.trim().strip_prefix("bgpd=")).next_back();
    value.is_some_and(|value| value.trim_matches(['"', '\'', ' ']) != "yes")
}

pub fn check(facts: &Facts) -> Vec<Finding> {
    let (host, seen) = (&facts.host, &facts.files);
    if !host.config.speaker.manage_vrfs {
        return Vec::new();
    }
    let is_up = |stanza: &&Stanza| {
        host.networks.iter().any(|record| record.network.vrf.as_ref().is_some_and(|vrf| vrf.name == stanza.vrf))
    };
    let left = seen.stanzas.iter().filter(|stanza| !is_up(stanza)).map(|Stanza { vrf, vni, asn }| {
        let vni = vni.map(|vni| format!("'vrf {vrf} / vni {vni}' and ")).unwrap_or_default();
        let lines = format!("{vni}'router bgp {asn} vrf {vrf}'");
        let evidence = format!(
            "holds lines of ours, {lines}, and no network of VRF {vrf} is up: 'write memory' writes them, and FRR has them again at its next start"
        );
        Finding::hint("frr-conf", CONF, evidence)
            .by(format!("take {lines} out of the file, unless the network is to come back"))
    });
    left.collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::facts;
    use super::*;

    #[test]
    fn lines_of_a_network_that_is_gone() {
        let stanza = |name: &str| Stanza { vrf: name.parse().unwrap(), vni: 10.try_into().ok(), asn: 64512 };
        let files = FrrFiles { stanzas: vec![stanza("red"), stanza("gone")], bgpd_is_off: false };
        let mut facts = Facts { files, ..facts() };
        let found = check(&facts);
        let told = "hint: frr-conf: /etc/frr/frr.conf: holds lines of ours, 'vrf gone / vni 10' and 'router bgp 64512 vrf gone', and no network of VRF gone is up: \
            'write memory' writes them, and FRR has them again at its next start; mend: take 'vrf gone / vni 10' and 'router bgp 64512 vrf gone' out of the file, \
            unless the network is to come back";
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [told]);
        facts.host.config.speaker.manage_vrfs = false;
        assert_eq!(check(&facts), [], "then they are the operator's");
    }

    #[test]
    fn daemons() {
        assert!(is_off("zebra=yes\nbgpd=no\nospfd=no\n") && is_off("bgpd=\"no\"\n"));
        assert!(!is_off("bgpd=yes\n") && !is_off("#bgpd=no\nbgpd=yes\nbgpd_options=no\n") && !is_off(""));
    }
}
