//! What the rest of the fabric sends, and what FRR's lists tell: route targets that nobody here takes, MACs that moved too often.

use super::speaker::{SpeakerFacts, vrfs};
use super::unheard::Unheard;
use super::{Facts, Finding, HostFacts, cure, defects};
use crate::config::Vrf;
use crate::engine::{Engine, EngineError};
use crate::model::Vni;
use crate::speaker::{Frr, Instance, Received, SpeakerError, Version};
use std::collections::BTreeSet;
use std::fmt::Display;

#[derive(Default)]
pub(super) struct FabricFacts {
    version: Option<Version>,
    /// Why mgmtd is not there, where this FRR needs it.
    mgmtd: Option<String>,
    /// Other VTEPs' type-3 and type-5 routes.
    segments: BTreeSet<Received>,
    prefixes: BTreeSet<Received>,
    /// What duplicate address detection has marked: `mac` or `ip`, as `clear evpn dup-addr` has it, and which.
    duplicates: Vec<(Vni, &'static str, String)>,
    /// What could not be looked for, since it was not told: the check, of which network or VRF, and why.
    untold: Vec<(&'static str, String, Unheard)>,
}

impl FabricFacts {
    /// One that is busy or frozen is not missed.
    fn note_mgmtd(&mut self, answer: Result<(), SpeakerError>) {
        match answer.map_err(Unheard::from) {
            Ok(()) => {}
            Err(Unheard::Silent(why)) => self.mgmtd = Some(why),
            Err(why @ Unheard::Untold(_)) => self.untold.push(("mgmtd-down", "FRR".to_owned(), why)),
        }
    }
}

/// FRR is asked for all of it by one connection: what it says of this host first.
pub(super) fn observe(
    engine: &mut Engine,
    host: &HostFacts,
) -> Result<(Option<SpeakerFacts>, FabricFacts), EngineError> {
    let Some(mut frr) = engine.frr()? else { return Ok((None, FabricFacts::default())) };
    let said = match &host.unheard {
        Some(unheard) => Err(unheard.clone()),
        None => ask(&mut frr, host).map_err(Unheard::from),
    };
    let silent = |unheard| SpeakerFacts { unheard: Some(unheard), ..SpeakerFacts::default() };
    let (speaker, fabric) = said.unwrap_or_else(|unheard| (silent(unheard), FabricFacts::default()));
    Ok((Some(speaker), fabric))
}

fn ask(frr: &mut Frr, host: &HostFacts) -> Result<(SpeakerFacts, FabricFacts), SpeakerError> {
    let said = SpeakerFacts::ask(frr, host.networks.iter().map(|record| &record.network))?;
    let mut fabric = FabricFacts { version: frr.version()?, ..FabricFacts::default() };
    if fabric.version.is_some_and(|version| version >= Version::MGMTD) {
        fabric.note_mgmtd(frr.mgmtd());
    }
    lists(frr, host, &said, &mut fabric);
    Ok((said, fabric))
}

/// What only lists tell, after all else: a daemon answers nobody while it makes one.
fn lists(frr: &mut Frr, host: &HostFacts, said: &SpeakerFacts, fabric: &mut FabricFacts) {
    let networks = || host.networks.iter().map(|record| &record.network);
    for network in networks().filter(|network| said.vnis.contains_key(&network.vni)) {
        match frr.duplicates(network.vni) {
            Ok((macs, ips)) => {
                fabric.duplicates.extend(macs.into_iter().map(|mac| (network.vni, "mac", mac.to_string())));
                fabric.duplicates.extend(ips.into_iter().map(|ip| (network.vni, "ip", ip.to_string())));
            }
            Err(error) => fabric.untold.push(("duplicate-freeze", network.name.to_string(), error.into())),
        }
    }
    // Where nothing is configured bgpd takes all of the VNI's: there is nothing to look for.
    let evpn = said.running.evpn();
    let segment = networks().find(|n| evpn.is_some_and(|evpn| !evpn.imports(Some(n.vni.get())).is_empty()));
    let configured = |vrf: &&Vrf| said.running.vrf(vrf.name.as_str()).is_some_and(|own| !own.imports(None).is_empty());
    let vrf = networks().filter_map(|network| network.vrf.as_ref()).find(configured);
    for (kind, object, routes) in [
        ("multicast", segment.map(|network| network.name.to_string()), &mut fabric.segments),
        ("prefix", vrf.map(|vrf| vrf.name.to_string()), &mut fabric.prefixes),
    ] {
        let Some(object) = object else { continue };
        match frr.received_targets(kind) {
            Ok(received) => *routes = received,
            Err(error) => fabric.untold.push(("rt-import", object, error.into())),
        }
    }
}

/// A line for each check: the networks of one are alike.
fn untold(fabric: &FabricFacts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for check in fabric.untold.iter().map(|(check, ..)| *check).collect::<BTreeSet<_>>() {
        let mut of_check = fabric.untold.iter().filter(|(its, ..)| *its == check);
        let Some((_, object, why)) = of_check.next() else { continue };
        let object = match of_check.count() {
            0 => object.clone(),
            more => format!("{object} (and {more} more)"),
        };
        found.push(Finding::not_checked(check, object, why.to_string()));
    }
    found
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let (host, fabric) = (&facts.host, &facts.fabric);
    let Some(said) = facts.speaker.as_ref().filter(|said| said.unheard.is_none()) else { return Vec::new() };
    let mut found = defects::of(fabric.version);
    found.extend(untold(fabric));
    found.extend(mgmtd(fabric));
    let Some(evpn) = said.running.evpn().filter(|_| said.speaks()) else { return found };
    for network in host.networks.iter().map(|record| &record.network) {
        found.extend(not_imported(evpn, (network.vni, true), &network.name, &fabric.segments));
    }
    for (vrf, vni) in vrfs(host).into_iter().filter_map(|vrf| Some((vrf, vrf.vni?))) {
        let own = said.running.vrf(vrf.name.as_str());
        found.extend(own.and_then(|own| not_imported(own, (vni, false), &vrf.name, &fabric.prefixes)));
    }
    let marked = fabric.duplicates.iter();
    found.extend(marked.map(|(vni, word, value)| duplicate(Some(evpn), *vni, word, value)));
    found
}

/// What duplicate address detection has marked: a MAC (`mac`), or an address (`ip`).
pub(crate) fn duplicate(evpn: Option<&Instance>, vni: Vni, word: &str, value: &str) -> Finding {
    let evidence = "moved too often between VTEPs (duplicate address detection)";
    let finding = match evpn.is_some_and(|evpn| evpn.has("l2vpn evpn", "dup-addr-detection freeze")) {
        true => {
            let evidence = format!("{evidence}, and is frozen: its moves are not told any more");
            Finding::problem("duplicate-freeze", value, evidence)
        }
        false => Finding::warning("duplicate-freeze", value, evidence),
    };
    let command = format!("vtysh -c 'clear evpn dup-addr vni {vni} {word} {value}'");
    finding.at("zebra-mac").run(command).note("find the other guest first, or it is marked again")
}

/// From FRR 10.0 on `vrf X / vni N` is mgmtd's, which vtysh only names when it is refused.
fn mgmtd(fabric: &FabricFacts) -> Option<Finding> {
    let why = fabric.mgmtd.as_ref()?;
    let evidence = format!("{why}; without it FRR takes no 'vrf X / vni N': VRFs have no symmetric routing");
    Some(Finding::problem("mgmtd-down", "FRR", evidence).run(cure::RESTART))
}

/// Routes of this VNI, by their targets, that what is configured for import does not let in. bgpd's own import takes every AS with the VNI
/// (bgp_evpn.c `form_auto_rt`, and its lookup without the AS), so nothing is missed where nothing is configured.
fn not_imported(
    instance: &Instance,
    (vni, is_segment): (Vni, bool),
    object: impl Display,
    received: &BTreeSet<Received>,
) -> Option<Finding> {
    let segment = is_segment.then_some(vni);
    let configured = instance.imports(segment.map(Vni::get));
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
    Some(Finding::problem("rt-import", object, evidence).at("import").cured(cure::unimport(instance, segment)))
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::fixture::{evpn_lines as lines, facts, only};
    use super::*;
    use std::io::ErrorKind::NotFound;

    fn received(targets: &[&str]) -> BTreeSet<Received> {
        let targets = targets.iter().map(|t| (*t).to_owned()).collect();
        [Received { vtep: [10, 0, 0, 2].into(), targets }].into()
    }

    impl FabricFacts {
        /// FRR 10.5 has the fewest defects.
        pub(in crate::checks) fn healthy() -> FabricFacts {
            FabricFacts {
                version: Some(Version(10, 5)),
                segments: received(&["64512:20"]),
                prefixes: received(&["64512:10"]),
                ..FabricFacts::default()
            }
        }
    }

    /// What is worse than a hint.
    #[track_caller]
    fn finds(change: impl FnOnce(&mut SpeakerFacts, &mut FabricFacts)) -> Vec<Finding> {
        let mut facts = facts();
        change(facts.speaker.as_mut().unwrap(), &mut facts.fabric);
        check(&facts).into_iter().filter(|finding| finding.severity < Severity::Hint).collect()
    }

    #[test]
    fn a_list_that_is_not_told_is_no_verdict() {
        let why = || Unheard::Untold("bgpd did not answer 'show running-config' within 2000 ms".into());
        let lists = finds(|_, fabric| {
            fabric.untold = ["red", "blue"].map(|name| ("duplicate-freeze", name.to_owned(), why())).into();
        });
        assert_eq!(only(&lists), ("duplicate-freeze", Severity::NotChecked, ""));
        assert_eq!(lists[0].object, "red (and 1 more)");
    }

    #[test]
    fn versions() {
        assert_eq!(only(&finds(|_, fabric| fabric.version = Some(Version(8, 1)))).0, "frr-version");
        assert_eq!(only(&finds(|_, fabric| fabric.version = None)).1, Severity::NotChecked);
    }

    #[test]
    fn an_frr_10_without_mgmtd() {
        let found = finds(|_, fabric| fabric.mgmtd = Some("mgmtd is not running".into()));
        assert_eq!(only(&found), ("mgmtd-down", Severity::Problem, cure::RESTART));
        let (daemon, command) = ("mgmtd", "connect".to_owned());
        let gone = SpeakerError::NotRunning { daemon, path: "/run/frr/mgmtd.vty".into(), cause: NotFound.into() };
        assert_eq!(only(&finds(|_, fabric| fabric.note_mgmtd(Err(gone)))).0, "mgmtd-down");
        let busy = SpeakerError::Timeout { daemon, command, within: Frr::DEADLINE };
        let untold = finds(|_, fabric| fabric.note_mgmtd(Err(busy)));
        assert_eq!(only(&untold), ("mgmtd-down", Severity::NotChecked, ""), "nothing to restart");
    }

    #[test]
    fn route_targets_of_a_segment() {
        let with = |text: &[&str]| {
            let text = lines(text);
            finds(|said, _| said.running.instances[0].lines.extend(text))
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
        let found = finds(|said, _| said.running.instances[1].lines.extend(text));
        let command = "vtysh -c 'configure terminal' -c 'router bgp 64512 vrf red' -c 'address-family l2vpn evpn' -c 'no route-target import 1:1'";
        assert_eq!(only(&found), ("rt-import", Severity::Problem, command));
        let text = lines(&["route-target import 1:1"]);
        let nobody = finds(|said, fabric| {
            said.running.instances[1].lines.extend(text);
            fabric.prefixes = received(&["64512:77"]);
        });
        assert_eq!(nobody, [], "nobody sends it");
    }

    #[test]
    fn duplicates() {
        let marked = |fabric: &mut FabricFacts| {
            fabric.duplicates.push((20.try_into().unwrap(), "mac", "52:54:00:03:82:d8".into()));
        };
        let command = "vtysh -c 'clear evpn dup-addr vni 20 mac 52:54:00:03:82:d8'";
        assert_eq!(only(&finds(|_, fabric| marked(fabric))), ("duplicate-freeze", Severity::Warning, command));
        let frozen = finds(|said, fabric| {
            marked(fabric);
            said.running.instances[0].lines.extend(lines(&["dup-addr-detection freeze permanent"]));
        });
        assert_eq!(only(&frozen), ("duplicate-freeze", Severity::Problem, command));
    }
}
