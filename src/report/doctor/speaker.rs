//! FRR: whether it answers, its version's known defects, what its configuration must have, and what the rest of the fabric sends.

use super::{Base, Finding, defects, frr_files};
use crate::config::Vrf;
use crate::engine::{Engine, EngineError};
use crate::model::{IfName, Vni};
use crate::plan::Step;
use crate::report::explain::read_again;
use crate::report::unheard::{self, Unheard};
use crate::speaker::{Frr, Instance, Peer, Received, Running, SpeakerError, Version, VniInfo, VrfInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a FRR that answers said.
#[derive(Default)]
struct Said {
    version: Option<Version>,
    /// Why mgmtd is not there, where this FRR needs it.
    mgmtd: Option<String>,
    running: Running,
    vnis: BTreeMap<Vni, Option<VniInfo>>,
    vrfs: BTreeMap<IfName, VrfInfo>,
    vteps: BTreeSet<IpAddr>,
    sessions: Vec<Peer>,
    /// Other VTEPs' type-3 and type-5 routes.
    segments: BTreeSet<Received>,
    prefixes: BTreeSet<Received>,
    /// What duplicate address detection has marked.
    duplicates: Vec<(Vni, Duplicate)>,
    /// What could not be looked for, since it was not told: the check, of which network or VRF, and why.
    untold: Vec<(&'static str, String, Unheard)>,
}

impl Said {
    /// One that is busy or frozen is not missed.
    fn note_mgmtd(&mut self, answer: Result<(), SpeakerError>) {
        match answer.map_err(Unheard::from) {
            Ok(()) => {}
            Err(Unheard::Silent(why)) => self.mgmtd = Some(why),
            Err(why @ Unheard::Untold(_)) => self.untold.push(("mgmtd-down", "FRR".to_owned(), why)),
        }
    }
}

#[derive(Debug, Clone)]
struct Duplicate {
    /// `mac` or `ip`, as `clear evpn dup-addr` has it.
    word: &'static str,
    value: String,
}

enum Answer {
    /// The configuration names none.
    None,
    /// Why nothing is known of it; and whether bgpd is never started.
    Unheard(Unheard, bool),
    Said(Box<Said>),
}

pub struct Seen(Answer);

impl Seen {
    /// The other VTEPs of the segments that are here.
    pub fn vteps(&self) -> BTreeSet<IpAddr> {
        match &self.0 {
            Answer::Said(said) => said.vteps.clone(),
            _ => BTreeSet::new(),
        }
    }

    /// What is told here of a speaker that does not answer, for those who came by the same.
    pub fn silence(&self) -> Vec<String> {
        match &self.0 {
            Answer::Unheard(unheard, _) => vec![unheard.why().to_owned()],
            _ => Vec::new(),
        }
    }
}

pub fn observe(engine: &mut Engine, base: &Base, files: &frr_files::Seen) -> Result<Seen, EngineError> {
    let Some(mut frr) = engine.frr()? else { return Ok(Seen(Answer::None)) };
    let said = base.unheard.clone().map_or_else(|| ask(&mut frr, base), Err);
    Ok(Seen(match said {
        Ok(said) => Answer::Said(Box::new(said)),
        Err(unheard) => Answer::Unheard(unheard, files.bgpd_is_off),
    }))
}

fn ask(frr: &mut Frr, base: &Base) -> Result<Said, Unheard> {
    let mut said =
        Said { running: frr.running()?, version: frr.version()?, sessions: frr.evpn_peers()?, ..Said::default() };
    if said.version.is_some_and(|version| version >= Version::MGMTD) {
        said.note_mgmtd(frr.mgmtd());
    }
    if base.networks.is_empty() {
        return Ok(said);
    }
    for network in base.networks.iter().map(|record| &record.network) {
        let info = frr.vni(network.vni)?;
        said.vteps.extend(info.iter().flat_map(|info| &info.vteps));
        said.vnis.insert(network.vni, info);
        if let Some(vrf) = network.vrf.as_ref().filter(|vrf| vrf.vni.is_some() && !said.vrfs.contains_key(&vrf.name)) {
            said.vrfs.insert(vrf.name.clone(), frr.vrf(&vrf.name)?);
        }
    }
    lists(frr, base, &mut said);
    Ok(said)
}

/// What only lists tell, after all else: a daemon answers nobody while it makes one.
fn lists(frr: &mut Frr, base: &Base, said: &mut Said) {
    let networks = || base.networks.iter().map(|record| &record.network);
    for network in networks().filter(|network| said.vnis.get(&network.vni).is_some_and(Option::is_some)) {
        match frr.duplicates(network.vni) {
            Ok((macs, ips)) => {
                let macs = macs.into_iter().map(|mac| Duplicate { word: "mac", value: mac.to_string() });
                let ips = ips.into_iter().map(|ip| Duplicate { word: "ip", value: ip.to_string() });
                said.duplicates.extend(macs.chain(ips).map(|duplicate| (network.vni, duplicate)));
            }
            Err(error) => said.untold.push(("duplicate-freeze", network.name.to_string(), error.into())),
        }
    }
    // Where nothing is configured bgpd takes all of the VNI's: there is nothing to look for.
    let evpn = said.running.evpn();
    let segment = networks().find(|n| evpn.is_some_and(|evpn| !evpn.imports(Some(n.vni.get())).is_empty()));
    let configured = |vrf: &&Vrf| said.running.vrf(vrf.name.as_str()).is_some_and(|own| !own.imports(None).is_empty());
    let vrf = networks().filter_map(|network| network.vrf.as_ref()).find(configured);
    for (kind, object, routes) in [
        ("multicast", segment.map(|network| network.name.to_string()), &mut said.segments),
        ("prefix", vrf.map(|vrf| vrf.name.to_string()), &mut said.prefixes),
    ] {
        let Some(object) = object else { continue };
        match frr.received_targets(kind) {
            Ok(received) => *routes = received,
            Err(error) => said.untold.push(("rt-import", object, error.into())),
        }
    }
}

/// A line for each check: the networks of one are alike.
fn untold(said: &Said) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for check in said.untold.iter().map(|(check, ..)| *check).collect::<BTreeSet<_>>() {
        let mut of_check = said.untold.iter().filter(|(its, ..)| *its == check);
        let Some((_, object, why)) = of_check.next() else { continue };
        let object = match of_check.count() {
            0 => object.clone(),
            more => format!("{object} (and {more} more)"),
        };
        found.push(Finding::not_checked(check, object, why.to_string()));
    }
    found
}

pub fn judge(base: &Base, seen: &Seen) -> Vec<Finding> {
    match &seen.0 {
        Answer::None => vec![Finding::not_checked("speaker", "the speaker", "[speaker] kind is none: nobody to ask")],
        Answer::Unheard(why @ Unheard::Silent(_), bgpd_is_off) => {
            let down = Finding::problem("speaker-down", "FRR", why.to_string());
            vec![match bgpd_is_off {
                true => down.run(format!("sed -i 's/^bgpd=.*/bgpd=yes/' /etc/frr/daemons && {}", unheard::RESTART)),
                false => down.run(unheard::RESTART),
            }]
        }
        Answer::Unheard(why @ Unheard::Untold(_), _) => {
            vec![Finding::problem("speaker-untold", "FRR", why.to_string()).by("ask again")]
        }
        Answer::Said(said) => of_frr(base, said),
    }
}

fn of_frr(base: &Base, said: &Said) -> Vec<Finding> {
    let mut found = defects::of(said.version);
    found.extend(untold(said));
    found.extend(mgmtd(said));
    let Some(evpn) = said.running.evpn() else {
        let evidence = "bgpd has no 'router bgp': nothing is advertised";
        found.push(Finding::problem("advertise-all-vni", "bgpd", evidence).by(
            "put 'router bgp AS' with its neighbours and 'address-family l2vpn evpn / advertise-all-vni' into frr.conf",
        ));
        return found;
    };
    let instance = match &evpn.vrf {
        Some(vrf) => format!("router bgp {} vrf {vrf}", evpn.asn),
        None => format!("router bgp {}", evpn.asn),
    };
    let in_evpn = |line: &str| vtysh(&[&instance, "address-family l2vpn evpn", line]);
    // Without it zebra knows no VNI and bgpd has no route: all of it would be told again.
    if !said.running.advertises_all_vni() {
        let evidence = format!("'{instance}' has no advertise-all-vni: nothing is advertised");
        found.push(Finding::problem("advertise-all-vni", "bgpd", evidence).run(in_evpn("advertise-all-vni")));
        return found;
    }
    found.extend(sessions(said));
    found.extend(svi_ip(base, evpn, in_evpn));
    for network in base.networks.iter().map(|record| &record.network) {
        // What is not as it should be in the kernel comes first.
        let devices = [network.bridge.clone(), network.vni.device()];
        if !is_touched(base, &devices) {
            match said.vnis.get(&network.vni) {
                Some(Some(info)) => {
                    let wanted = network.vrf.as_ref().map_or("default", |vrf| vrf.name.as_str());
                    if info.vrf != wanted && network.vrf.as_ref().is_none_or(|vrf| vrf.vni.is_some()) {
                        let evidence = format!(
                            "zebra counts VNI {} to VRF {}, and the network is in {wanted}",
                            network.vni, info.vrf
                        );
                        found.push(
                            Finding::problem("vni-vrf", &network.name, evidence).run(read_again(&network.vni.device())),
                        );
                    }
                }
                Some(None) => {
                    let evidence =
                        format!("zebra does not know VNI {}, though {} is there", network.vni, network.vni.device());
                    found.push(
                        Finding::problem("vni-unknown", &network.name, evidence).run(read_again(&network.vni.device())),
                    );
                }
                None => {}
            }
        }
        let configured = evpn.imports(Some(network.vni.get()));
        let block = |target: &str| {
            vtysh(&[
                &instance,
                "address-family l2vpn evpn",
                &format!("vni {}", network.vni),
                &format!("no route-target import {target}"),
            ])
        };
        found.extend(not_imported(network.vni, network.name.as_str(), &configured, &said.segments, block));
    }
    let mut vrfs: Vec<&Vrf> = base.networks.iter().filter_map(|record| record.network.vrf.as_ref()).collect();
    vrfs.sort_by(|a, b| a.name.cmp(&b.name));
    vrfs.dedup();
    for vrf in vrfs {
        found.extend(l3vni(base, said, vrf));
        let Some((vni, own)) = vrf.vni.zip(said.running.vrf(vrf.name.as_str())) else { continue };
        let block = |target: &str| {
            vtysh(&[
                &format!("router bgp {} vrf {}", own.asn, vrf.name),
                "address-family l2vpn evpn",
                &format!("no route-target import {target}"),
            ])
        };
        found.extend(not_imported(vni, vrf.name.as_str(), &own.imports(None), &said.prefixes, block));
    }
    let frozen = evpn.has("l2vpn evpn", "dup-addr-detection freeze");
    for (vni, Duplicate { word, value }) in &said.duplicates {
        let evidence = "moved too often between VTEPs (duplicate address detection)";
        let finding = match frozen {
            true => Finding::problem(
                "duplicate-freeze",
                value,
                format!("{evidence}, and is frozen: its moves are not told any more"),
            ),
            false => Finding::warning("duplicate-freeze", value, evidence),
        };
        found.push(finding.run(format!("vtysh -c 'clear evpn dup-addr vni {vni} {word} {value}'")));
    }
    found
}

/// A vtysh call that configures; the words are FRR's own or validated ones.
fn vtysh(lines: &[&str]) -> String {
    lines.iter().fold("vtysh -c 'configure terminal'".to_owned(), |text, line| format!("{text} -c '{line}'"))
}

/// Would a sync change one of these devices?
fn is_touched(base: &Base, devices: &[IfName]) -> bool {
    let names = |step: &Step| {
        let text = step.to_string();
        text.split_whitespace().any(|word| devices.iter().any(|dev| word == dev.as_str()))
    };
    base.drift.iter().any(names) || devices.iter().any(|dev| base.world.link(dev).is_none())
}

/// From FRR 10.0 on `vrf X / vni N` is mgmtd's, which vtysh only names when it is refused.
fn mgmtd(said: &Said) -> Option<Finding> {
    let why = said.mgmtd.as_ref()?;
    let evidence = format!("{why}; without it FRR takes no 'vrf X / vni N': VRFs have no symmetric routing");
    Some(Finding::problem("mgmtd-down", "FRR", evidence).run(unheard::RESTART))
}

/// All hosts have the same gateway address and MAC: told as a host's own, each seems to take it from the others, and zebra aborts of it (FRR issues
/// 22061, 22883, 22884).
fn svi_ip(base: &Base, evpn: &Instance, in_evpn: impl Fn(&str) -> String) -> Vec<Finding> {
    let gateways = base.networks.iter().map(|record| &record.network).filter(|n| !n.gateway.is_empty());
    let Some(first) = gateways.map(|n| &n.name).next() else { return Vec::new() };
    let lines = ["advertise-svi-ip", "advertise-default-gw"].into_iter().filter(|line| evpn.has("l2vpn evpn", line));
    let found = lines.map(|line| {
        let evidence = format!(
            "advertises the gateway of network {first} as this host's own, and every host has the same: they take it from each other, and zebra of 10.6 and 10.7 aborts (FRR issue 22883)"
        );
        Finding::problem("svi-ip", line, evidence).run(in_evpn(&format!("no {line}")))
    });
    found.collect()
}

fn sessions(said: &Said) -> Vec<Finding> {
    let down: Vec<&Peer> = said.sessions.iter().filter(|peer| !peer.is_up()).collect();
    if said.sessions.is_empty() {
        let evidence = "no neighbour is activated below 'address-family l2vpn evpn': nobody is told anything";
        return vec![
            Finding::problem("bgp-session", "bgpd", evidence)
                .by("put 'neighbor X activate' there, with the route reflectors or the other VTEPs"),
        ];
    }
    let all = down.len() == said.sessions.len();
    let told = down.into_iter().map(|session| {
        let evidence = format!("the EVPN session is not up ({})", session.state);
        let finding = match all {
            true => Finding::problem("bgp-session", &session.name, evidence + ", and there is no other"),
            false => Finding::warning("bgp-session", &session.name, evidence),
        };
        finding.by(format!("see 'vtysh -c \"show bgp neighbors {}\"' for the last error", session.name))
    });
    told.collect()
}

fn l3vni(base: &Base, said: &Said, vrf: &Vrf) -> Option<Finding> {
    let (vni, info) = vrf.vni.zip(said.vrfs.get(&vrf.name))?;
    let planned =
        base.drift.iter().any(|step| matches!(step, Step::SpeakerAddVrf { vrf: other } if other.name == vrf.name));
    let by_hand =
        format!("put into frr.conf and the running FRR what 'evpn-hook frr-config' prints for VRF {}", vrf.name);
    let problem = |evidence: String| Finding::problem("l3vni", &vrf.name, evidence);
    if info.vni != vni.get() || planned {
        let evidence = match info.vni == vni.get() {
            true => format!("'router bgp AS vrf {}' or a line of it is missing", vrf.name),
            false => format!("FRR does not have 'vni {vni}' below 'vrf {}': no symmetric routing", vrf.name),
        };
        return Some(if planned { problem(evidence).sync() } else { problem(evidence).by(by_hand) });
    }
    let l3 = vrf.l3_bridge().ok().flatten();
    let devices: Vec<IfName> = [Some(vrf.name.clone()), l3, Some(vni.device())].into_iter().flatten().collect();
    if is_touched(base, &devices) {
        return None;
    }
    if !info.up {
        return Some(
            problem(format!("zebra has L3VNI {vni} as down, though its devices are up")).run(read_again(&vni.device())),
        );
    }
    (info.bgp_vni != vni.get())
        .then(|| problem(format!("bgpd does not hold L3VNI {vni} (it has {})", info.bgp_vni)).by(by_hand))
}

/// Routes of this VNI, by their targets, that what is configured for import does not let in. bgpd's own import takes every AS with the VNI
/// (bgp_evpn.c `form_auto_rt`, and its lookup without the AS), so nothing is missed where nothing is configured.
fn not_imported(
    vni: Vni,
    object: &str,
    configured: &[&str],
    received: &BTreeSet<Received>,
    block: impl Fn(&str) -> String,
) -> Option<Finding> {
    if configured.is_empty() {
        return None;
    }
    // The last 24 bits: the others are a domain where targets are made by RFC 8365 §5.1.2.1.
    let is_of_vni = |target: &str| {
        let number = target.rsplit(':').next().and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number & 0xff_ffff == u64::from(vni.get()))
    };
    let takes = |target: &str| {
        configured.iter().any(|wanted| match wanted.strip_prefix("*:") {
            Some(number) => target.rsplit(':').next() == Some(number),
            None => *wanted == target,
        })
    };
    let lost =
        received.iter().filter(|r| r.targets.iter().any(|t| is_of_vni(t)) && !r.targets.iter().any(|t| takes(t)));
    let lost: Vec<&Received> = lost.collect();
    let first = lost.first()?;
    let targets: Vec<&str> = first.targets.iter().map(String::as_str).filter(|target| is_of_vni(target)).collect();
    let others = match lost.iter().map(|r| r.vtep).collect::<BTreeSet<_>>().len() {
        1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    let evidence = format!(
        "VTEP {}{others} sends VNI {vni} with route target {}, and only {} is imported",
        first.vtep,
        targets.join(", "),
        configured.join(", ")
    );
    // Each by itself: vtysh stops at the first that is refused.
    let commands: Vec<String> = configured.iter().map(|target| block(target)).collect();
    Some(Finding::problem("rt-import", object, evidence).run(commands.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{base, links, world};
    use super::super::{Fix, Severity};
    use super::*;
    use crate::speaker::VniKind;
    use std::io::ErrorKind::NotFound;

    fn vni(number: u32) -> Vni {
        number.try_into().unwrap()
    }

    fn received(targets: &[&str]) -> BTreeSet<Received> {
        let targets = targets.iter().map(|t| (*t).to_owned()).collect();
        [Received { vtep: [10, 0, 0, 2].into(), targets }].into()
    }

    fn lines(lines: &[&str]) -> Vec<(String, String)> {
        lines.iter().map(|line| ("l2vpn evpn".to_owned(), (*line).to_owned())).collect()
    }

    /// FRR 10.5 has the fewest defects.
    fn said() -> Said {
        let instance =
            |vrf: Option<&str>, text: &[&str]| Instance { asn: 64512, vrf: vrf.map(str::to_owned), lines: lines(text) };
        let instances = vec![
            instance(None, &["neighbor 10.0.0.9 activate", "advertise-all-vni"]),
            instance(Some("red"), &["advertise ipv4 unicast"]),
        ];
        let info = VniInfo {
            kind: VniKind::L2,
            vrf: "red".into(),
            vxlan: None,
            svi: None,
            up: None,
            entries: 2,
            vteps: BTreeSet::new(),
        };
        Said {
            version: Some(Version(10, 5)),
            mgmtd: None,
            running: Running { instances },
            vnis: [(vni(20), Some(info))].into(),
            vrfs: [("red".parse().unwrap(), VrfInfo { vni: 10, up: true, bgp: true, bgp_vni: 10 })].into(),
            vteps: BTreeSet::new(),
            sessions: vec![Peer { name: "10.0.0.9".into(), state: "Established".into(), received: 4, sent: 4 }],
            segments: received(&["64512:20"]),
            prefixes: received(&["64512:10"]),
            duplicates: Vec::new(),
            untold: Vec::new(),
        }
    }

    /// What is worse than a hint.
    #[track_caller]
    fn finds(change: impl FnOnce(&mut Base, &mut Said)) -> Vec<Finding> {
        let (mut base, mut said) = (base(), said());
        change(&mut base, &mut said);
        let found = judge(&base, &Seen(Answer::Said(Box::new(said))));
        found.into_iter().filter(|finding| finding.severity < Severity::Hint).collect()
    }

    #[track_caller]
    fn only(found: &[Finding]) -> (&'static str, Severity, &str) {
        assert_eq!(found.len(), 1, "{found:#?}");
        (found[0].check, found[0].severity, &found[0].mend)
    }

    #[test]
    fn an_frr_as_it_should_be() {
        assert_eq!(finds(|_, _| {}), []);
    }

    #[test]
    fn nobody_answers() {
        let seen = Seen(Answer::Unheard(Unheard::Silent("zebra is not running".into()), false));
        assert_eq!(only(&judge(&base(), &seen)), ("speaker-down", Severity::Problem, unheard::RESTART));
        let off = Seen(Answer::Unheard(Unheard::Silent("bgpd is not running".into()), true));
        let command = "sed -i 's/^bgpd=.*/bgpd=yes/' /etc/frr/daemons && systemctl restart frr && evpn-hook sync";
        assert_eq!(only(&judge(&base(), &off)), ("speaker-down", Severity::Problem, command));
        assert_eq!(seen.silence(), ["zebra is not running"]);
        assert_eq!(only(&judge(&base(), &Seen(Answer::None))).1, Severity::NotChecked);
    }

    #[test]
    fn what_is_not_told_is_no_verdict_and_restarts_nothing() {
        let why = || Unheard::Untold("bgpd did not answer 'show running-config' within 2000 ms".into());
        let found = judge(&base(), &Seen(Answer::Unheard(why(), true)));
        assert_eq!(only(&found), ("speaker-untold", Severity::Problem, "ask again"));
        assert_eq!(found[0].evidence, "not told: bgpd did not answer 'show running-config' within 2000 ms");
        let lists = finds(|_, said| {
            said.untold = ["red", "blue"].map(|name| ("duplicate-freeze", name.to_owned(), why())).into();
        });
        assert_eq!(only(&lists), ("duplicate-freeze", Severity::NotChecked, ""));
        assert_eq!(lists[0].object, "red (and 1 more)");
    }

    #[test]
    fn versions() {
        assert_eq!(only(&finds(|_, said| said.version = Some(Version(8, 1)))).0, "frr-version");
        assert_eq!(only(&finds(|_, said| said.version = None)).1, Severity::NotChecked);
    }

    #[test]
    fn an_frr_10_without_mgmtd() {
        let found = finds(|_, said| said.mgmtd = Some("mgmtd is not running".into()));
        assert_eq!(only(&found), ("mgmtd-down", Severity::Problem, unheard::RESTART));
        let (daemon, command) = ("mgmtd", "connect".to_owned());
        let gone = SpeakerError::NotRunning { daemon, path: "/run/frr/mgmtd.vty".into(), cause: NotFound.into() };
        assert_eq!(only(&finds(|_, said| said.note_mgmtd(Err(gone)))).0, "mgmtd-down");
        let busy = SpeakerError::Timeout { daemon, command, within: Frr::DEADLINE };
        let untold = finds(|_, said| said.note_mgmtd(Err(busy)));
        assert_eq!(only(&untold), ("mgmtd-down", Severity::NotChecked, ""), "nothing to restart");
    }

    #[test]
    fn an_anycast_gateway_that_is_told_as_the_hosts_own() {
        let with = |line: &str| {
            let lines = lines(&[line]);
            finds(|base, said| {
                base.networks[0].network.gateway = vec!["10.1.0.1/24".parse().unwrap()];
                said.running.instances[0].lines.extend(lines);
            })
        };
        let command = "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'address-family l2vpn evpn' -c 'no advertise-svi-ip'";
        assert_eq!(only(&with("advertise-svi-ip")), ("svi-ip", Severity::Problem, command));
        assert_eq!(only(&with("advertise-default-gw")).0, "svi-ip");
        assert_eq!(with("advertise-pip"), []);
        let without = finds(|base, said| {
            base.networks[0].network.gateway.clear();
            said.running.instances[0].lines.extend(lines(&["advertise-svi-ip"]));
        });
        assert_eq!(without, [], "no gateway of ours");
    }

    #[test]
    fn advertise_all_vni() {
        let found = finds(|_, said| {
            said.running.instances[0].lines.pop();
            said.vnis.insert(vni(20), None);
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
        assert_eq!(only(&finds(|_, said| said.sessions.push(down.clone()))).1, Severity::Warning);
        assert_eq!(only(&finds(|_, said| said.sessions = vec![down])).1, Severity::Problem);
        assert_eq!(only(&finds(|_, said| said.sessions.clear())).0, "bgp-session");
    }

    #[test]
    fn zebra_and_the_segment() {
        assert_eq!(only(&finds(|_, said| drop(said.vnis.insert(vni(20), None)))).0, "vni-unknown");
        let other = finds(|_, said| {
            if let Some(Some(info)) = said.vnis.get_mut(&vni(20)) {
                info.vrf = "default".into();
            }
        });
        assert_eq!(only(&other).0, "vni-vrf");
        let drifted = finds(|base, said| {
            said.vnis.insert(vni(20), None);
            base.drift.push(Step::SetUp { dev: "vxlan20".parse().unwrap(), up: true });
        });
        assert_eq!(drifted, [], "the kernel's part comes first");
        let missing = finds(|base, said| {
            said.vnis.insert(vni(20), None);
            base.world = world(links().into_iter().filter(|link| link.name.as_str() != "vxlan20").collect());
        });
        assert_eq!(missing, []);
    }

    #[test]
    fn the_l3vni() {
        let vrf = || super::super::fixture::network().vrf.unwrap();
        let change = |said: &mut Said, change: fn(&mut VrfInfo)| change(said.vrfs.get_mut(&vrf().name).unwrap());
        let planned = finds(|base, said| {
            base.drift.push(Step::SpeakerAddVrf { vrf: vrf() });
            change(said, |info| (info.vni, info.up, info.bgp_vni) = (0, false, 0));
        });
        assert_eq!(
            (only(&planned), &planned[0].fix),
            (("l3vni", Severity::Problem, "evpn-hook sync"), &Some(Fix::Sync))
        );
        let unmanaged = finds(|_, said| change(said, |info| info.vni = 0));
        assert!(unmanaged[0].mend.contains("frr-config") && unmanaged[0].fix.is_none(), "{unmanaged:?}");
        assert_eq!(only(&finds(|_, said| change(said, |info| info.up = false))).0, "l3vni");
        assert_eq!(only(&finds(|_, said| change(said, |info| info.bgp_vni = 0))).0, "l3vni");
        let down = finds(|base, said| {
            change(said, |info| info.up = false);
            base.drift.push(Step::SetUp { dev: "vxlan10".parse().unwrap(), up: true });
        });
        assert_eq!(down, [], "the kernel's part comes first");
    }

    #[test]
    fn route_targets_of_a_segment() {
        let with = |text: &[&str]| {
            let text = lines(text);
            finds(|_, said| said.running.instances[0].lines.extend(text))
        };
        let block = ["vni 20", "route-target import 64512:999", "exit-vni"];
        let command = "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'address-family l2vpn evpn' -c 'vni 20' -c 'no route-target import 64512:999'";
        let found = with(&block);
        assert_eq!(only(&found), ("rt-import", Severity::Problem, command));
        let told = "VTEP 10.0.0.2 sends VNI 20 with route target 64512:20, and only 64512:999 is imported";
        assert_eq!(found[0].evidence, told);
        assert_eq!(with(&["vni 20", "route-target import 64512:999", "route-target import 64512:20", "exit-vni"]), []);
        assert_eq!(with(&["vni 20", "route-target import *:20", "exit-vni"]), []);
        assert_eq!(with(&["vni 21", "route-target import 64512:999", "exit-vni"]), [], "another's");
    }

    #[test]
    fn route_targets_of_a_vrf() {
        let text = lines(&["route-target import 1:1"]);
        let found = finds(|_, said| said.running.instances[1].lines.extend(text));
        let command = "vtysh -c 'configure terminal' -c 'router bgp 64512 vrf red' -c 'address-family l2vpn evpn' -c 'no route-target import 1:1'";
        assert_eq!(only(&found), ("rt-import", Severity::Problem, command));
        let text = lines(&["route-target import 1:1"]);
        let nobody = finds(|_, said| {
            said.running.instances[1].lines.extend(text);
            said.prefixes = received(&["64512:77"]);
        });
        assert_eq!(nobody, [], "nobody sends it");
    }

    #[test]
    fn duplicates() {
        let marked = |said: &mut Said| {
            said.duplicates.push((vni(20), Duplicate { word: "mac", value: "52:54:00:03:82:d8".into() }))
        };
        let command = "vtysh -c 'clear evpn dup-addr vni 20 mac 52:54:00:03:82:d8'";
        assert_eq!(only(&finds(|_, said| marked(said))), ("duplicate-freeze", Severity::Warning, command));
        let frozen = finds(|_, said| {
            marked(said);
            said.running.instances[0].lines.extend(lines(&["dup-addr-detection freeze permanent"]));
        });
        assert_eq!(only(&frozen), ("duplicate-freeze", Severity::Problem, command));
    }
}
