//! Does the host's firewall drop what the fabric needs: VXLAN from and to the other VTEPs, what a VRF forwards, and, where br_netfilter shows them to it,
//! frames between the ports of a bridge?
//!
//! Asked of the kernel, with packets: a copy of the rules is put into a network namespace of its own ([`sandbox`]), with devices by the names of the host's
//! own ([`stage`]), and packets like the real ones are sent there ([`frames`]), first without the rules, then with them. What is lost only with them the
//! rules drop. A mend ([`mend`]) is tried in the same place before it is told. What such a copy does not show: tc, XDP, what a program decides that a rule
//! hands packets to, and firewalls on the way.

mod frames;
mod mend;
mod ruleset;
mod sandbox;
mod stage;
mod tables;

use super::{Base, Finding, Severity};
use crate::engine::{Engine, EngineError};
use crate::kernel::sysctl;
use crate::plan::seen::{Link, LinkKind};
use crate::plan::underlay::Carriers;
use ipnet::IpNet;
use mend::{Candidate, Change, Kept, Wanted};
use ruleset::Ruleset;
use sandbox::Sandbox;
use stage::{Case, Stage, Tunnels, Uplink, What};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// So many VTEPs are asked about.
const PEERS: usize = 32;
/// So many networks.
const NETWORKS: usize = 32;
/// For all of it.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many of the rules that name something are shown.
const RULES: usize = 4;

/// Why something cannot be asked.
const ALWAYS: &str = "it does not arrive without them";
const NOWHERE: &str = "no device is known by which it would come";

/// In a mend, where no other VTEP is known.
const BLANK: &str = "UNDERLAY";

const BRIDGE_NF: [&str; 3] = [
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-arptables",
];

pub struct Seen {
    /// Of [`BRIDGE_NF`] those that are on.
    bridge_nf: Vec<&'static str>,
    /// Why there may be rules that were not tried, nothing where all were.
    untold: Vec<String>,
    /// Why those that are known could not be tried.
    tried: Result<Tried, String>,
    /// A rule leaves packets to a program, which may let them through.
    hands_over: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tried {
    /// What is lost.
    verdicts: Vec<Verdict>,
    /// What cannot be asked, and why.
    untried: Vec<(What, &'static str)>,
}

/// What came of one question.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    what: What,
    /// VXLAN's.
    port: u16,
    /// By whom it is lost, where that is asked.
    lost: Vec<String>,
    of: usize,
    /// Those are other VTEPs indeed.
    known: bool,
    /// What lets it through, as was tried.
    mend: Option<String>,
    /// The other VTEPs' addresses in it are for the operator to fill in.
    blank: bool,
    /// Time was over before all changes were tried.
    hurried: bool,
    /// The rules that name it.
    naming: Vec<String>,
}

pub fn observe(
    engine: &mut Engine,
    base: &Base,
    peers: &BTreeSet<IpAddr>,
    carriers: &Carriers,
) -> Result<Seen, EngineError> {
    let mut bridge_nf = Vec::new();
    for path in BRIDGE_NF {
        if sysctl(path)?.is_some_and(|value| value != "0") {
            bridge_nf.push(path);
        }
    }
    let mut seen = Seen { bridge_nf, untold: Vec::new(), tried: Ok(Tried::default()), hands_over: false };
    if base.networks.is_empty() {
        return Ok(seen);
    }
    let until = Instant::now() + PATIENCE;
    let rules = ruleset::observe(until);
    seen.untold.clone_from(&rules.untold);
    if rules.is_empty() {
        return Ok(seen);
    }
    seen.hands_over = rules.hands_over();
    let tunnels = tunnels(engine, base, peers, carriers)?;
    let stage = set(base, &tunnels, &seen.bridge_nf, &rules);
    seen.tried = sandbox::inside(|| attempt(&stage, &tunnels, &rules, &kept(), until));
    Ok(seen)
}

/// Where the tunnels of this host end, with the other ends as far as they are known.
fn tunnels(
    engine: &mut Engine,
    base: &Base,
    peers: &BTreeSet<IpAddr>,
    carriers: &Carriers,
) -> Result<Vec<Tunnels>, EngineError> {
    let mut peers = peers.clone();
    if peers.is_empty() {
        // Without a speaker that tells, those that entries lead to.
        peers = engine.kernel()?.remotes()?.into_iter().map(|remote| remote.vtep).collect();
        peers.retain(|peer| !peer.is_unspecified() && !peer.is_multicast());
    }
    let ends: BTreeSet<(IpAddr, u16)> = base
        .networks
        .iter()
        .filter_map(|record| Some((record.vtep?, record.port.unwrap_or(base.config.vtep.port))))
        .collect();
    let uplink = |link: &Link| Uplink {
        name: link.name.to_string(),
        port: matches!(link.kind, LinkKind::Bridge { .. })
            .then(|| base.world.slaves(link.index).next().map_or("evpn-port".into(), |port| port.name.to_string())),
        addresses: base.world.addresses(link.index).map(|address| address.net).collect(),
    };
    let mut found = Vec::new();
    for (own, port) in ends {
        let mut others = Vec::new();
        for peer in peers.iter().filter(|peer| peer.is_ipv4() == own.is_ipv4()).take(PEERS) {
            let route = engine.kernel()?.route_to(*peer, None)?.filter(|route| !route.local);
            let link = route.and_then(|route| base.world.by_index(route.device));
            others.extend(link.map(|link| (*peer, uplink(link))));
        }
        let known = !others.is_empty();
        if !known {
            others.extend(carriers.devices.iter().map(|link| (next(own), uplink(link))));
        }
        found.push(Tunnels { own, port, peers: others, known });
    }
    Ok(found)
}

/// The address beside this one: whom a VTEP may be expected at.
fn next(own: IpAddr) -> IpAddr {
    match own {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) ^ 3).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) ^ 3).into()),
    }
}

/// What is asked of this host's rules.
fn set(base: &Base, tunnels: &[Tunnels], bridge_nf: &[&str], rules: &Ruleset) -> Stage {
    let settings = BRIDGE_NF.map(|path| (path.to_owned(), u8::from(bridge_nf.contains(&path)).to_string()));
    let mut stage = Stage::new(settings.to_vec());
    for tunnels in tunnels.iter().filter(|tunnels| !tunnels.peers.is_empty()) {
        stage.tunnels(tunnels);
    }
    for record in base.networks.iter().take(NETWORKS) {
        let network = &record.network;
        let (name, bridge) = (network.name.to_string(), network.bridge.to_string());
        let endpoints = || base.guests.iter().flat_map(|guest| &guest.endpoints).filter(|e| e.network == network.name);
        let guest = endpoints().next().map_or("vnet0".to_owned(), |endpoint| endpoint.device.to_string());
        let vxlan = network.vni.device().to_string();
        for v6 in [false, true] {
            let gateway = network.gateway.iter().find(|net| net.addr().is_ipv6() == v6);
            let held = endpoints().flat_map(|e| &e.ips).map(|address| address.ip).find(|ip| ip.is_ipv6() == v6);
            let Some(ips) = addresses(gateway.copied(), held, v6, network.gateway.is_empty()) else { continue };
            if bridge_nf.contains(&BRIDGE_NF[usize::from(v6)]) {
                stage.bridged(&name, &bridge, [&guest, &vxlan], ips);
            }
            let (Some(vrf), Some(_)) = (&network.vrf, gateway) else { continue };
            stage.routed(&name, vrf.name.as_str(), (&bridge, Some(&vxlan)), (ips.1, ips.0));
            if let Some(l3) = vrf.l3_bridge().ok().flatten() {
                stage.routed(&name, vrf.name.as_str(), (l3.as_str(), None), ips);
            }
        }
    }
    let words = rules.words();
    for link in base.world.links().filter(|link| words.contains(link.name.as_str())) {
        stage.bystander(link.name.as_str());
    }
    stage
}

/// Two of a network's addresses: of its subnet, of a guest; where nobody says which it has, of RFC 5737 and RFC 3849.
fn addresses(gateway: Option<IpNet>, held: Option<IpAddr>, v6: bool, untold: bool) -> Option<(IpAddr, IpAddr)> {
    let one = held.or_else(|| gateway.map(|gateway| beside(gateway.addr(), 1)));
    let examples = if v6 { "2001:db8::2" } else { "192.0.2.2" };
    let one = one.or_else(|| untold.then(|| examples.parse().ok()).flatten())?;
    let other = (1..).map(|n| beside(one, n)).find(|ip| gateway.is_none_or(|gateway| gateway.addr() != *ip))?;
    Some((one, other))
}

fn beside(ip: IpAddr, n: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) ^ u32::from(n)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) ^ u128::from(n)).into()),
    }
}

fn kept() -> Kept {
    let read = |path: &'static str| {
        let text = std::fs::read(path).ok()?;
        Some((path, String::from_utf8_lossy(&text).into_owned()))
    };
    Kept(mend::KEPT.into_iter().flatten().filter_map(read).collect())
}

/// Tries it: what arrives without the rules and is lost with them, and what would let it through.
fn attempt(stage: &Stage, tunnels: &[Tunnels], rules: &Ruleset, kept: &Kept, until: Instant) -> Result<Tried, String> {
    let sandbox = Sandbox::set(stage, until)?;
    let arrives = sandbox.fire(stage.cases.iter())?;
    let askable = |case: &Case| {
        let mut case = case.clone();
        case.shots.retain(|shot| arrives.contains(&shot.id));
        (!case.shots.is_empty()).then_some(case)
    };
    let cases: Vec<Case> = stage.cases.iter().filter_map(askable).collect();
    let is_asked = |case: &&Case| cases.iter().any(|asked| asked.what == case.what);
    let lost = stage.cases.iter().filter(|case| !is_asked(case)).map(|case| (case.what.clone(), ALWAYS));
    let unsent = tunnels.iter().filter(|tunnels| tunnels.peers.is_empty());
    let unsent = unsent.map(|tunnels| (What::Tunnel { v6: tunnels.own.is_ipv6(), out: false }, NOWHERE));
    let untried = lost.chain(unsent).collect();
    sandbox.load(rules)?;
    let arrived = sandbox.fire(cases.iter())?;
    let mut verdicts = Vec::new();
    for case in cases.iter().filter(|case| !case.lost(&arrived).is_empty()) {
        let own = tunnels.iter().find(|tunnels| tunnels.own.is_ipv6() == case.what.is_v6());
        let (others, uplinks) = own.map(|own| (others(own), uplinks(own))).unwrap_or_default();
        let port = own.map_or(0, |own| own.port);
        let wanted = Wanted { what: &case.what, port, others: &others, uplinks: &uplinks };
        let names = match &case.what {
            What::Tunnel { .. } => vec![port.to_string()],
            What::Bridged { bridge, .. } => vec![bridge.clone()],
            What::Routed { vrf, out, .. } => vec![vrf.clone(), out.clone()],
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut lost: Vec<String> = case.lost(&arrived).into_iter().map(|shot| shot.said.clone()).collect();
        lost.dedup();
        let mut mend = least(&sandbox, case, &mend::candidates(&wanted, rules, kept));
        let is_guess = own.is_some_and(|own| !own.known && shared(own).is_none());
        let blank = is_guess && matches!(case.what, What::Tunnel { .. });
        if let (Some(mend), true, [guess]) = (&mut mend, blank, &others[..]) {
            *mend = mend.replace(guess, BLANK);
        }
        verdicts.push(Verdict {
            mend,
            blank,
            hurried: Instant::now() >= until,
            naming: rules.naming(&names),
            what: case.what.clone(),
            port,
            lost,
            of: case.shots.len(),
            known: case.each,
        });
    }
    Ok(Tried { verdicts, untried })
}

/// The other VTEPs as a rule names them: the subnet that this host shares with them, where there is one; else the smallest prefix that has all of them, unless it
/// is a large one.
fn others(tunnels: &Tunnels) -> Vec<String> {
    let peers = || tunnels.peers.iter().map(|(peer, _)| *peer);
    if let Some(net) = shared(tunnels) {
        return vec![net.to_string()];
    }
    let all = |net: &IpNet| peers().chain([tunnels.own]).all(|ip| net.contains(&ip));
    let least = if tunnels.own.is_ipv6() { 64 } else { 24 };
    let around = (least..=IpNet::from(tunnels.own).max_prefix_len()).rev();
    let around = around.filter_map(|length| IpNet::new(tunnels.own, length).ok()).find(all);
    match around {
        Some(net) => vec![net.trunc().to_string()],
        None => peers().collect::<BTreeSet<_>>().into_iter().map(|peer| peer.to_string()).collect(),
    }
}

/// The subnet of an uplink that has this VTEP and all others.
fn shared(tunnels: &Tunnels) -> Option<IpNet> {
    let all =
        |net: &IpNet| tunnels.peers.iter().map(|(peer, _)| *peer).chain([tunnels.own]).all(|ip| net.contains(&ip));
    let is_one = |net: &&IpNet| net.prefix_len() < net.max_prefix_len() && all(net);
    tunnels.peers.iter().flat_map(|(_, uplink)| &uplink.addresses).find(is_one).map(IpNet::trunc)
}

fn uplinks(tunnels: &Tunnels) -> Vec<String> {
    let names: BTreeSet<String> = tunnels.peers.iter().map(|(_, uplink)| uplink.name.clone()).collect();
    names.into_iter().collect()
}

/// Of the candidates the fewest that let all of it through: one after the other is added until nothing is lost, then each is left out that is not missed.
/// The copy is afterwards as it was.
fn least(sandbox: &Sandbox, case: &Case, candidates: &[Candidate]) -> Option<String> {
    let is_through = || sandbox.fire([case].into_iter()).is_ok_and(|arrived| case.lost(&arrived).is_empty());
    let mut done: BTreeMap<usize, Undo> = BTreeMap::new();
    let mut through = false;
    for (n, candidate) in candidates.iter().enumerate() {
        let Ok(undo) = apply(sandbox, candidate) else { continue };
        done.insert(n, undo);
        through = is_through();
        if through {
            break;
        }
    }
    if through {
        for n in done.keys().copied().rev().skip(1).collect::<Vec<_>>() {
            let Some(undo) = done.remove(&n) else { continue };
            undo.run(sandbox);
            if !is_through()
                && let Ok(undo) = apply(sandbox, &candidates[n])
            {
                done.insert(n, undo);
            }
        }
    }
    let needed: Vec<&Candidate> = done.keys().map(|n| &candidates[*n]).collect();
    let mend = through.then(|| mend::command(&needed));
    done.into_values().for_each(|undo| undo.run(sandbox));
    mend
}

enum Undo {
    Run(Vec<String>),
    On(&'static str),
}

impl Undo {
    fn run(self, sandbox: &Sandbox) {
        match self {
            // What cannot be taken out of the copy could only make its neighbours look better, and is tried no second time.
            Undo::Run(words) => drop(sandbox.change(&words)),
            Undo::On(path) => sandbox.setting(path, "1"),
        }
    }
}

fn apply(sandbox: &Sandbox, candidate: &Candidate) -> Result<Undo, String> {
    match &candidate.change {
        Change::Iptables(words) => {
            sandbox.change(words)?;
            let back = |word: &String| if word == "-I" || word == "-A" { "-D".into() } else { word.clone() };
            Ok(Undo::Run(words.iter().map(back).collect()))
        }
        Change::Nft { place, rule } => {
            // In a chain of its own, which is emptied by its name: to learn a rule's handle nft lists the table, and its sets with it.
            let (table, chain) = place.rsplit_once(' ').ok_or("no chain")?;
            let own = format!("{table} evpn-{chain}");
            let words = format!("add chain {own}; insert rule {place} jump evpn-{chain}; add rule {own} {rule}");
            sandbox.change(&["nft".to_owned(), words])?;
            Ok(Undo::Run(vec!["nft".to_owned(), format!("flush chain {own}")]))
        }
        Change::Off(path) => {
            sandbox.setting(path, "0");
            Ok(Undo::On(path))
        }
    }
}

pub fn judge(base: &Base, seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    if !seen.untold.is_empty() {
        let evidence = format!("not all of its rules are known, and those were not tried: {}", seen.untold.join("; "));
        found.push(Finding::not_checked("firewall", "the host", evidence));
    }
    let (verdicts, untried) = match &seen.tried {
        Ok(tried) => (&tried.verdicts[..], &tried.untried[..]),
        Err(why) => {
            found.push(Finding::not_checked("firewall", "the host", format!("its rules could not be tried: {why}")));
            Default::default()
        }
    };
    for (what, why) in untried {
        let (object, question) = asked(what, base.config.vtep.port);
        let evidence = format!("whether the rules drop {question} could not be tried: {why}");
        found.push(Finding::not_checked("firewall", object, evidence));
    }
    found.extend(verdicts.iter().map(|verdict| told(verdict, seen.hands_over)));
    if base.networks.len() > NETWORKS {
        let evidence = format!("{NETWORKS} of {} networks were tried", base.networks.len());
        found.push(Finding::hint("firewall", "the host", evidence));
    }
    let is_told = verdicts.iter().any(|verdict| matches!(verdict.what, What::Bridged { .. }));
    if !seen.bridge_nf.is_empty() && !base.networks.is_empty() && !is_told {
        let names: Vec<&str> = seen.bridge_nf.iter().map(|path| path.rsplit('/').next().unwrap_or_default()).collect();
        let evidence =
            format!("{} on: frames between guests of one bridge go through the host's firewall", names.join(", "));
        let commands: Vec<String> = seen.bridge_nf.iter().map(|path| super::sysctl_command(path, "0")).collect();
        found.push(Finding::warning("bridge-nf-call", "br_netfilter", evidence).run(commands.join("; ")));
    }
    found
}

/// On what, and what is asked.
fn asked(what: &What, port: u16) -> (String, String) {
    match what {
        What::Tunnel { out, .. } => (format!("UDP {port}"), format!("VXLAN {}", if *out { "to" } else { "from" })),
        What::Bridged { network, .. } => (network.clone(), "the frames between its guests".into()),
        What::Routed { network, vrf, out, .. } => (network.clone(), format!("what VRF {vrf} forwards to {out}")),
    }
}

fn told(verdict: &Verdict, hands_over: bool) -> Finding {
    const HOW: &str = "tried in a copy of this host's rules";
    let (object, question) = asked(&verdict.what, verdict.port);
    let more = match &verdict.what {
        What::Tunnel { .. } => {
            let rest = if verdict.lost.len() == verdict.of { "" } else { ", and not that of others" };
            let whom = match &verdict.lost[..] {
                [first, ..] if !verdict.known => format!("other VTEPs (none is known yet: as if {first} were one)"),
                many if many.len() > 4 => format!("{} VTEPs, {} among them", many.len(), many[0]),
                few => few.join(", "),
            };
            format!(" {whom}{rest} ({HOW})")
        }
        What::Bridged { v6, .. } => {
            let setting = BRIDGE_NF[usize::from(*v6)].rsplit('/').next().unwrap_or_default();
            format!(": {setting} shows them to the firewall ({HOW}: TCP and UDP)")
        }
        What::Routed { .. } => format!(" ({HOW}: TCP and UDP)"),
    };
    let evidence = format!("drops {question}{more}");
    let certain = !hands_over && (verdict.known || !matches!(verdict.what, What::Tunnel { .. }));
    let severity = if certain { Severity::Problem } else { Severity::Warning };
    let unsure = if hands_over { "; a rule leaves packets to a program, which may let them through" } else { "" };
    let finding = Finding::new(severity, "firewall", object, format!("{evidence}{unsure}"));
    let tried =
        if verdict.hurried { "there was no time to try a change" } else { "no change that was tried lets it through" };
    match (&verdict.mend, &verdict.naming[..]) {
        (Some(mend), _) if verdict.blank => finding.by(format!("with the other VTEPs' addresses for {BLANK}: {mend}")),
        (Some(mend), _) => finding.run(mend),
        (None, []) => finding.by(format!("judge yourself: no rule names it, and {tried}")),
        (None, naming) => {
            let shown = naming[..naming.len().min(RULES)].join(" | ");
            finding.by(format!("judge yourself: {tried}; these of {} rules name it: {shown}", naming.len()))
        }
    }
}

#[cfg(test)]
mod tests;
