//! FRR itself: whether it answers, what its configuration must have, and what it has of this host's networks and VRFs.

use super::unheard::Unheard;
use super::{Facts, Finding, HostFacts, Severity, Verdict, cure};
use crate::config::{Network, Vrf};
use crate::engine::{devices_of, devices_of_vrf};
use crate::model::{IfName, Vni};
use crate::plan::Step;
use crate::speaker::{Frr, Instance, Peer, Running, SpeakerError, VniInfo, VniKind, VrfInfo};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What FRR says of some networks.
#[derive(Default)]
pub(crate) struct SpeakerFacts {
    /// Why nothing of what follows is known, where it is not.
    pub(crate) unheard: Option<Unheard>,
    pub(crate) running: Running,
    /// Of those VNIs that zebra knows.
    pub(crate) vnis: BTreeMap<Vni, VniInfo>,
    /// Of the VRFs with an L3VNI.
    pub(crate) vrfs: BTreeMap<IfName, VrfInfo>,
    /// Its sessions for EVPN.
    pub(crate) peers: Vec<Peer>,
}

impl SpeakerFacts {
    pub(crate) fn ask<'a>(
        frr: &mut Frr,
        networks: impl IntoIterator<Item = &'a Network>,
    ) -> Result<SpeakerFacts, SpeakerError> {
        let mut said = SpeakerFacts { running: frr.running()?, peers: frr.evpn_peers()?, ..SpeakerFacts::default() };
        for network in networks {
            said.vnis.extend(frr.vni(network.vni)?.map(|info| (network.vni, info)));
            let vrf = network.vrf.as_ref().filter(|vrf| vrf.vni.is_some() && !said.vrfs.contains_key(&vrf.name));
            if let Some(vrf) = vrf {
                said.vrfs.insert(vrf.name.clone(), frr.vrf(&vrf.name)?);
            }
        }
        Ok(said)
    }

    /// Does it answer and hand this host's VNIs on? What else it says has a meaning only then.
    pub(crate) fn speaks(&self) -> bool {
        self.unheard.is_none() && self.running.advertises_all_vni()
    }

    /// The other VTEPs of the networks.
    pub(super) fn vteps(&self) -> impl Iterator<Item = IpAddr> {
        self.vnis.values().flat_map(|info| info.vteps.iter().copied())
    }

    /// Does it answer, and is it told to speak for this host?
    pub(crate) fn daemons(&self) -> Verdict {
        let silent = |check, why: &Unheard| Finding::problem(check, "FRR", why.to_string()).at("frr");
        match &self.unheard {
            Some(why @ Unheard::Silent(_)) => return silent("speaker-down", why).run(cure::RESTART).into(),
            Some(why @ Unheard::Untold(_)) => return silent("speaker-untold", why).by("ask again").into(),
            None => {}
        }
        let problem = |evidence: String| Finding::problem("advertise-all-vni", "bgpd", evidence).at("frr");
        let Some(evpn) = self.running.evpn() else {
            let words = "put 'router bgp AS' with its neighbours and 'address-family l2vpn evpn / advertise-all-vni' into frr.conf";
            return problem("bgpd has no 'router bgp': nothing is advertised".into()).by(words).into();
        };
        if !self.running.advertises_all_vni() {
            let evidence = format!("'{}' has no advertise-all-vni: nothing is advertised", evpn.line());
            return problem(evidence).cured(cure::evpn(evpn, &["advertise-all-vni".into()])).into();
        }
        Verdict::Holds(format!("both answer; AS {}, advertise-all-vni", evpn.asn))
    }

    /// Does zebra have the network as it is?
    pub(crate) fn vni(&self, network: &Network) -> Verdict {
        let vni = network.vni;
        let problem = |check, evidence: String| Finding::problem(check, &network.name, evidence).at("zebra-vni");
        let Some(info) = self.vnis.get(&vni) else {
            return problem("vni-unknown", unknown(vni)).run(cure::read_again(vni)).into();
        };
        if info.kind != VniKind::L2 {
            let evidence = format!("zebra has VNI {vni} as the L3VNI of VRF {}", info.vrf);
            let words = format!("take 'vni {vni}' below 'vrf {}' out of FRR's configuration", info.vrf);
            return problem("vni-vrf", evidence).by(words).into();
        }
        let wanted = network.vrf.as_ref().map_or("default", |vrf| vrf.name.as_str());
        if info.vrf != wanted && network.vrf.as_ref().is_none_or(|vrf| vrf.vni.is_some()) {
            let evidence = format!("zebra counts VNI {vni} to VRF {}, and the network is in {wanted}", info.vrf);
            return problem("vni-vrf", evidence).run(cure::read_again(vni)).into();
        }
        let svi = info.svi.as_deref().unwrap_or("none");
        if svi != network.bridge.as_str() {
            let evidence = format!("zebra has {svi} as VNI {vni}'s bridge, not {}", network.bridge);
            return problem("vni-bridge", evidence).run(cure::read_again(vni)).into();
        }
        Verdict::Holds(format!("zebra has it in VRF {}, bridge {svi}", info.vrf))
    }

    /// Do zebra and bgpd have the VRF's L3VNI?
    pub(crate) fn l3vni(&self, vrf: &IfName, vni: Vni) -> Verdict {
        let info = self.vrfs.get(vrf).cloned().unwrap_or_default();
        let problem = |evidence: String| Finding::problem("l3vni", vrf, evidence).at("l3vni");
        let by_hand = format!("put into frr.conf, too, what 'evpn-hook frr-config' prints for VRF {vrf}");
        if info.vni != vni.get() {
            let has = if info.vni == 0 { "no VNI".to_owned() } else { format!("VNI {}", info.vni) };
            let set = cure::configure(&[format!("vrf {vrf}"), format!("vni {vni}")]);
            let finding = problem(format!("FRR has {has} for VRF {vrf}, not {vni}: no symmetric routing"));
            return finding.cured(set).note(by_hand).into();
        }
        if !info.up {
            return problem(format!("zebra has L3VNI {vni} as down")).run(cure::read_again(vni)).into();
        }
        if info.bgp_vni != vni.get() {
            let evidence = format!("bgpd does not hold L3VNI {vni} (it has {})", info.bgp_vni);
            return problem(evidence).by(by_hand.replace("frr.conf, too,", "frr.conf and the running FRR")).into();
        }
        Verdict::Holds(format!("FRR has it for VRF {vrf}, up"))
    }

    /// Is there anybody to tell?
    pub(crate) fn nobody(&self) -> Option<Finding> {
        let evidence = "no neighbour is activated below 'address-family l2vpn evpn': nobody is told anything";
        let words = "put 'neighbor X activate' there, with the route reflectors or the other VTEPs";
        let finding = Finding::problem("bgp-session", "bgpd", evidence).at("peer").by(words);
        self.peers.is_empty().then_some(finding)
    }

    /// Why a session is not up.
    pub(crate) fn down(&self, peer: &Peer) -> Finding {
        let problem = |evidence: String| Finding::problem("bgp-session", &peer.name, evidence).at("peer");
        if peer.is_shut() {
            let evidence = format!("the EVPN session is shut down by configuration ({})", peer.state);
            return problem(evidence).cured(self.unshut(peer));
        }
        problem(format!("the EVPN session is not up ({})", peer.state)).by(format!(
            "see 'vtysh -c \"show bgp neighbors {}\"' for the last error; the other end's configuration counts as well",
            peer.name
        ))
    }

    /// Lets a session come up that is shut down.
    pub(crate) fn unshut(&self, peer: &Peer) -> Option<String> {
        cure::bgp(self.running.evpn()?, &[format!("no neighbor {} shutdown", peer.name)])
    }
}

/// What is wrong with a VNI that zebra does not know.
pub(crate) fn unknown(vni: Vni) -> String {
    format!("zebra does not know VNI {vni}")
}

/// What is wrong where `sync` would tell FRR of a VRF.
pub(crate) fn lacks_vrf(vrf: &Vrf) -> String {
    format!("FRR's configuration lacks what VRF {} needs", vrf.name)
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let host = &facts.host;
    let Some(said) = &facts.speaker else {
        return vec![Finding::not_checked("speaker", "the speaker", "[speaker] kind is none: nobody to ask")];
    };
    // Without it zebra knows no VNI and bgpd has no route: all of it would be told again.
    if let Some(finding) = said.daemons().found() {
        let off = matches!(said.unheard, Some(Unheard::Silent(_))) && facts.files.bgpd_is_off;
        let on = || format!("sed -i 's/^bgpd=.*/bgpd=yes/' /etc/frr/daemons && {}", cure::RESTART);
        return vec![if off { finding.run(on()) } else { finding }];
    }
    let mut found = sessions(said);
    found.extend(said.running.evpn().into_iter().flat_map(|evpn| svi_ip(host, evpn)));
    for network in host.networks.iter().map(|record| &record.network) {
        // What is not as it should be in the kernel comes first.
        if !is_touched(host, &devices_of(network)) {
            found.extend(said.vni(network).found());
        }
    }
    found.extend(vrfs(host).into_iter().filter_map(|vrf| l3vni(host, said, vrf)));
    found
}

/// The networks' VRFs, by name.
pub(super) fn vrfs(host: &HostFacts) -> Vec<&Vrf> {
    let mut vrfs: Vec<&Vrf> = host.networks.iter().filter_map(|record| record.network.vrf.as_ref()).collect();
    vrfs.sort_by(|a, b| a.name.cmp(&b.name));
    vrfs.dedup();
    vrfs
}

/// Would a sync change one of these devices?
fn is_touched(host: &HostFacts, devices: &[IfName]) -> bool {
    let names = |step: &Step| {
        let text = step.to_string();
        text.split_whitespace().any(|word| devices.iter().any(|dev| word == dev.as_str()))
    };
    host.drift.iter().any(names) || devices.iter().any(|dev| host.world.link(dev).is_none())
}

/// All hosts have the same gateway address and MAC: told as a host's own, each seems to take it from the others, and zebra aborts of it (FRR issues
/// 22061, 22883, 22884).
fn svi_ip(host: &HostFacts, evpn: &Instance) -> Vec<Finding> {
    let gateways = host.networks.iter().map(|record| &record.network).filter(|n| !n.gateway.is_empty());
    let Some(first) = gateways.map(|n| &n.name).next() else { return Vec::new() };
    let lines = ["advertise-svi-ip", "advertise-default-gw"].into_iter().filter(|line| evpn.has("l2vpn evpn", line));
    let found = lines.map(|line| {
        let evidence = format!(
            "advertises the gateway of network {first} as this host's own, and every host has the same: they take it from each other, and zebra of 10.6 and 10.7 aborts (FRR issue 22883)"
        );
        Finding::problem("svi-ip", line, evidence).cured(cure::evpn(evpn, &[format!("no {line}")]))
    });
    found.collect()
}

fn sessions(said: &SpeakerFacts) -> Vec<Finding> {
    let down: Vec<&Peer> = said.peers.iter().filter(|peer| !peer.is_up()).collect();
    let all = down.len() == said.peers.len();
    let told = down.into_iter().map(|peer| {
        let finding = said.down(peer);
        match all {
            true => Finding { evidence: finding.evidence + ", and there is no other", ..finding },
            false => Finding { severity: Severity::Warning, ..finding },
        }
    });
    said.nobody().into_iter().chain(told).collect()
}

fn l3vni(host: &HostFacts, said: &SpeakerFacts, vrf: &Vrf) -> Option<Finding> {
    let vni = vrf.vni?;
    let found = said.l3vni(&vrf.name, vni).found();
    let has = said.vrfs.get(&vrf.name).is_some_and(|info| info.vni == vni.get());
    if host.drift.iter().any(|step| matches!(step, Step::SpeakerAddVrf { vrf: other } if other.name == vrf.name)) {
        let lacks = || Finding::problem("l3vni", &vrf.name, lacks_vrf(vrf)).at("l3vni");
        return Some(Finding { note: String::new(), ..found.filter(|_| !has).unwrap_or_else(lacks).sync() });
    }
    // What is down in the kernel is down in FRR.
    found.filter(|_| !has || !is_touched(host, &devices_of_vrf(vrf)))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{evpn_lines as lines, facts, links, network, only, world};
    use super::super::{Fix, Severity};
    use super::*;

    /// What is worse than a hint.
    #[track_caller]
    fn finds(change: impl FnOnce(&mut HostFacts, &mut SpeakerFacts)) -> Vec<Finding> {
        let mut facts = facts();
        change(&mut facts.host, facts.speaker.as_mut().unwrap());
        check(&facts)
    }

    #[test]
    fn an_frr_as_it_should_be() {
        assert_eq!(finds(|_, _| {}), []);
    }

    #[test]
    fn nobody_answers() {
        let unheard = |why: Unheard, bgpd_is_off: bool| {
            let mut facts = facts();
            facts.speaker = Some(SpeakerFacts { unheard: Some(why), ..SpeakerFacts::default() });
            facts.files.bgpd_is_off = bgpd_is_off;
            check(&facts)
        };
        let dead = || Unheard::Silent("bgpd is not running".into());
        assert_eq!(only(&unheard(dead(), false)), ("speaker-down", Severity::Problem, cure::RESTART));
        let command = "sed -i 's/^bgpd=.*/bgpd=yes/' /etc/frr/daemons && systemctl restart frr && evpn-hook sync";
        assert_eq!(only(&unheard(dead(), true)), ("speaker-down", Severity::Problem, command));
        // What is not told is no verdict and restarts nothing.
        let busy = unheard(Unheard::Untold("bgpd did not answer 'show version' within 2000 ms".into()), true);
        assert_eq!(only(&busy), ("speaker-untold", Severity::Problem, "ask again"));
        assert_eq!(busy[0].evidence, "not told: bgpd did not answer 'show version' within 2000 ms");
        assert_eq!(only(&check(&Facts { speaker: None, ..facts() })).1, Severity::NotChecked);
    }

    #[test]
    fn an_anycast_gateway_that_is_told_as_the_hosts_own() {
        let with = |line: &str| {
            let lines = lines(&[line]);
            finds(|host, said| {
                host.networks[0].network.gateway = vec!["10.1.0.1/24".parse().unwrap()];
                said.running.instances[0].lines.extend(lines);
            })
        };
        let command = "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'address-family l2vpn evpn' -c 'no advertise-svi-ip'";
        assert_eq!(only(&with("advertise-svi-ip")), ("svi-ip", Severity::Problem, command));
        assert_eq!(only(&with("advertise-default-gw")).0, "svi-ip");
        assert_eq!(with("advertise-pip"), []);
        let without = finds(|host, said| {
            host.networks[0].network.gateway.clear();
            said.running.instances[0].lines.extend(lines(&["advertise-svi-ip"]));
        });
        assert_eq!(without, [], "no gateway of ours");
    }

    #[test]
    fn advertise_all_vni() {
        let found = finds(|_, said| {
            said.running.instances[0].lines.pop();
            said.vnis.clear();
        });
        let command =
            "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'address-family l2vpn evpn' -c 'advertise-all-vni'";
        assert_eq!(only(&found), ("advertise-all-vni", Severity::Problem, command));
        let none = finds(|_, said| said.running.instances.clear());
        assert_eq!((only(&none).0, none[0].runnable), ("advertise-all-vni", false));
    }

    #[test]
    fn sessions_of_evpn() {
        let down = Peer { name: "10.0.0.8".into(), state: "Active".into(), received: 0, sent: 0 };
        assert_eq!(only(&finds(|_, said| said.peers.push(down.clone()))).1, Severity::Warning);
        assert_eq!(only(&finds(|_, said| said.peers = vec![down])).1, Severity::Problem);
        assert_eq!(only(&finds(|_, said| said.peers.clear())).0, "bgp-session");
    }

    #[test]
    fn zebra_and_the_segment() {
        assert_eq!(only(&finds(|_, said| said.vnis.clear())).0, "vni-unknown");
        let other = finds(|_, said| {
            said.vnis.values_mut().for_each(|info| info.vrf = "default".into());
        });
        assert_eq!(only(&other).0, "vni-vrf");
        let drifted = finds(|host, said| {
            said.vnis.clear();
            host.drift.push(Step::SetUp { dev: "vxlan20".parse().unwrap(), up: true });
        });
        assert_eq!(drifted, [], "the kernel's part comes first");
        let missing = finds(|host, said| {
            said.vnis.clear();
            host.world = world(links().into_iter().filter(|link| link.name.as_str() != "vxlan20").collect());
        });
        assert_eq!(missing, []);
    }

    #[test]
    fn the_l3vni() {
        let vrf = || network().vrf.unwrap();
        let change =
            |said: &mut SpeakerFacts, change: fn(&mut VrfInfo)| change(said.vrfs.get_mut(&vrf().name).unwrap());
        let planned = finds(|host, said| {
            host.drift.push(Step::SpeakerAddVrf { vrf: vrf() });
            change(said, |info| (info.vni, info.up, info.bgp_vni) = (0, false, 0));
        });
        assert_eq!(
            (only(&planned), &planned[0].fix),
            (("l3vni", Severity::Problem, "evpn-hook sync"), &Some(Fix::Sync))
        );
        let unmanaged = finds(|_, said| change(said, |info| info.vni = 0));
        assert_eq!(only(&unmanaged).2, "vtysh -c 'configure terminal' -c 'vrf red' -c 'vni 10'");
        assert!(unmanaged[0].note.contains("frr-config") && unmanaged[0].fix.is_none(), "{unmanaged:?}");
        assert_eq!(only(&finds(|_, said| change(said, |info| info.up = false))).0, "l3vni");
        assert_eq!(only(&finds(|_, said| change(said, |info| info.bgp_vni = 0))).0, "l3vni");
        let down = finds(|host, said| {
            change(said, |info| info.up = false);
            host.drift.push(Step::SetUp { dev: "vxlan10".parse().unwrap(), up: true });
        });
        assert_eq!(down, [], "the kernel's part comes first");
    }
}
