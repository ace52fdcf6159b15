//! Tries it: what arrives without the rules and is lost with them, and what would let it through.

use super::least::{Bench, Least, least};
use super::mend::{self, Candidate, Change, Kept, Wanted, Zones};
use super::ruleset::{Ruleset, is_beginning};
use super::sandbox::{self, Sandbox};
use super::stage::{Case, DHCP, Stage, Tunnels, What};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Why something cannot be asked.
pub const ALWAYS: &str = "it does not arrive without them";
pub const NOWHERE: &str = "no device is known by which it would come";
pub const OWNER: &str = "a rule asks whose socket a packet is from, and VXLAN's is nobody's: a copy cannot send it so";

/// In a mend, where no other VTEP is known.
pub const BLANK: &str = "UNDERLAY";

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// What is lost.
    pub verdicts: Vec<Verdict>,
    /// What cannot be asked, and why.
    pub untried: Vec<(What, &'static str)>,
    /// At this end of this host's tunnels so many of so many other VTEPs were asked about, where those are not all.
    pub sampled: Vec<(SocketAddr, usize, usize)>,
    /// Why nobody knows what is lost with the rules that leave packets to a program.
    pub queues: Option<String>,
}

/// Why there is no mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No change that was tried helps.
    Tried,
    /// Time was over before all were tried.
    Hurried,
    /// Some guests' packets are lost and others' are not.
    Some,
    /// Rules name the guests whose packets are lost: an accept for all would open all of them.
    Named,
    /// firewalld has no rule for one device of a zone, and the bridge shares its zone.
    Zone,
    /// The rules ask for what only a real VRF has.
    Vrf,
    /// It is lost only where nobody listens to whom the rules leave it.
    Queue,
}

/// What came of one question.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub what: What,
    /// Whose packets are lost.
    pub lost: Vec<String>,
    /// Of so many.
    pub of: usize,
    /// Those are there indeed.
    pub known: bool,
    /// What lets it through, as was tried.
    pub mend: Option<String>,
    /// The other VTEPs' addresses in it are for the operator to fill in.
    pub blank: bool,
    pub why: Why,
    /// Where there is no mend: the rules that name it; none where there was no time to look.
    pub naming: Option<Vec<String>>,
}

pub fn attempt(
    stage: &Stage,
    tunnels: &[Tunnels],
    rules: &Ruleset,
    kept: &Kept,
    until: Instant,
) -> Result<Tried, String> {
    let sandbox = Sandbox::set(stage, until)?;
    let arrives = sandbox.fire(stage.cases.iter())?;
    let mut tried = Tried::default();
    let mut cases = Vec::new();
    let asks_for_owner = rules.asks_for_owner();
    for case in &stage.cases {
        let mut case = case.clone();
        case.shots.retain(|shot| arrives.contains(&shot.id));
        match &case.what {
            what if case.shots.is_empty() => tried.untried.push((what.clone(), ALWAYS)),
            what @ What::Tunnel { out: true, .. } if asks_for_owner => {
                tried.untried.push((what.clone(), OWNER));
            }
            _ => cases.push(case),
        }
    }
    for tunnels in tunnels {
        if tunnels.peers.is_empty() {
            tried.untried.push((What::Tunnel { own: tunnels.end(), out: false }, NOWHERE));
        }
        if tunnels.known && tunnels.peers.len() < tunnels.all.len() {
            tried.sampled.push((tunnels.end(), tunnels.peers.len(), tunnels.all.len()));
        }
    }
    // What is lost though every program lets everything through is lost by the rules.
    let open = rules.without_queues();
    sandbox.load(&open)?;
    let arrived = sandbox.fire(cases.iter())?;
    let (lost, rest): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| !case.lost(&arrived).is_empty());
    let only_with_vrf = [false, true].map(|v6| open.only_with_vrf(v6));
    let mut question =
        Question { sandbox: &sandbox, stage, tunnels, rules: &open, only_with_vrf, kept, until, clean: true };
    tried.verdicts.extend(lost.into_iter().map(|case| question.answer(case, &arrived)));
    let queues = rules.queues();
    if !queues.is_empty() {
        match beside(stage, &rest, rules, until) {
            Ok(arrived) => {
                let lost = rest.iter().filter(|case| !case.lost(&arrived).is_empty());
                tried.verdicts.extend(lost.map(|case| Verdict {
                    why: Why::Queue,
                    naming: Some(queues.clone()),
                    ..verdict(case, &arrived)
                }));
            }
            Err(why) => tried.queues = Some(why),
        }
    }
    Ok(tried)
}

/// What arrives in a second copy, with these rules as they are.
fn beside(stage: &Stage, cases: &[&Case], rules: &Ruleset, until: Instant) -> Result<BTreeSet<u32>, String> {
    sandbox::inside(|| {
        let sandbox = Sandbox::set(stage, until)?;
        sandbox.load(rules)?;
        sandbox.fire(cases.iter().copied())
    })
}

fn verdict(case: &Case, arrived: &BTreeSet<u32>) -> Verdict {
    let mut lost: Vec<String> = case.lost(arrived).into_iter().map(|shot| shot.said.clone()).collect();
    lost.dedup();
    Verdict {
        what: case.what.clone(),
        lost,
        of: case.of(),
        known: case.known,
        mend: None,
        blank: false,
        why: Why::Tried,
        naming: None,
    }
}

/// What is lost in the copy that is loaded, and what there is to know of it.
struct Question<'a> {
    sandbox: &'a Sandbox,
    stage: &'a Stage,
    tunnels: &'a [Tunnels],
    rules: &'a Ruleset,
    /// [`Ruleset::only_with_vrf`] of IPv4, and of IPv6.
    only_with_vrf: [Vec<String>; 2],
    kept: &'a Kept,
    until: Instant,
    /// Every change that was tried is undone.
    clean: bool,
}

impl Question<'_> {
    fn answer(&mut self, case: &Case, arrived: &BTreeSet<u32>) -> Verdict {
        let mut verdict = verdict(case, arrived);
        let lost: Vec<&str> = verdict.lost.iter().map(String::as_str).collect();
        let (mut names, mut first): (Vec<&str>, Vec<String>) = (lost.clone(), Vec::new());
        let port;
        match &case.what {
            What::Tunnel { own, .. } => {
                port = own.port().to_string();
                names = vec![&port];
            }
            What::Bridged { bridge, .. } => names.push(bridge),
            What::Routed { vrf, out, v6, .. } => {
                names.extend([vrf.as_str(), out]);
                first.clone_from(&self.only_with_vrf[usize::from(*v6)]);
            }
            What::Dhcp { device, v6, .. } => {
                port = DHCP[usize::from(*v6)].0.to_string();
                names.extend([device.as_str(), &port]);
                if !self.stage.bridges.contains_key(device) {
                    first.clone_from(&self.only_with_vrf[usize::from(*v6)]);
                }
            }
        }
        let is_guests = !matches!(case.what, What::Tunnel { .. });
        let why = match () {
            () if !first.is_empty() => Why::Vrf,
            () if is_guests && lost.len() < verdict.of => Why::Some,
            () if !is_guests => Why::Tried,
            () => match self.rules.naming(&lost, self.until) {
                Some(rules) if rules.is_empty() => Why::Tried,
                Some(_) => Why::Named,
                None => Why::Hurried,
            },
        };
        let (mend, blank, why) = if why == Why::Tried { self.mend(case) } else { (None, false, why) };
        if mend.is_none() {
            verdict.naming = self.rules.naming(&names, self.until).map(|naming| {
                first.extend(naming.into_iter().filter(|rule| !first.contains(rule)).collect::<Vec<_>>());
                first
            });
        }
        Verdict { mend, blank, why, ..verdict }
    }

    fn mend(&mut self, case: &Case) -> (Option<String>, bool, Why) {
        if !self.clean || Instant::now() >= self.until {
            return (None, false, Why::Hurried);
        }
        let is_own = |tunnels: &&Tunnels| matches!(case.what, What::Tunnel { own, .. } if own == tunnels.end());
        let own = self.tunnels.iter().find(is_own);
        let (others, uplinks) = own.map(|own| (others(own), uplinks(own))).unwrap_or_default();
        let port = match &case.what {
            What::Dhcp { v6, .. } => DHCP[usize::from(*v6)].0,
            _ => own.map_or(0, |own| own.port),
        };
        let alone = self.is_alone(&case.what);
        let wanted = Wanted { what: &case.what, port, others: &others, uplinks: &uplinks, alone };
        let candidates = mend::candidates(&wanted, self.rules, self.kept);
        let mut bench =
            Copy { sandbox: self.sandbox, case, candidates: &candidates, undo: BTreeMap::new(), until: self.until };
        let Least { needed, hurried, clean } = least(&mut bench, candidates.len());
        self.clean = clean;
        let parts = needed.map(|needed| needed.into_iter().map(|n| &candidates[n]).collect::<Vec<_>>());
        let mut mend = parts.map(|parts| mend::command(&parts));
        let is_guess = own.is_some_and(|own| !own.known && shared(own).is_none());
        if let (Some(mend), true, [guess]) = (&mut mend, is_guess, &others[..]) {
            *mend = mend.replace(guess, BLANK);
        }
        let shares = match &case.what {
            What::Dhcp { device, v6, .. } => {
                Zones::of(self.rules, *v6).is_some_and(|zones| zones.own(device).is_none())
            }
            _ => false,
        };
        let why = match () {
            () if hurried => Why::Hurried,
            () if shares => Why::Zone,
            () => Why::Tried,
        };
        (mend, is_guess, why)
    }

    /// Does no rule name another bridge than this one, nor a port of another?
    fn is_alone(&self, what: &What) -> bool {
        let What::Bridged { bridge, .. } = what else { return false };
        let words = self.rules.all_words();
        let begins: Vec<&str> = words.iter().copied().filter(|word| word.ends_with(['+', '*'])).collect();
        let is_named =
            |name: &String| words.contains(name.as_str()) || begins.iter().any(|begin| is_beginning(begin, name));
        let others = self.stage.bridges.iter().filter(|(other, _)| *other != bridge);
        !others.flat_map(|(other, ports)| ports.iter().chain([other])).any(is_named)
    }
}

/// The other VTEPs as a rule names them: the subnet that this host shares with them, where there is one; else the smallest prefix that has all of them, unless it
/// is a large one.
pub fn others(tunnels: &Tunnels) -> Vec<String> {
    if let Some(net) = shared(tunnels) {
        return vec![net.to_string()];
    }
    let all = |net: &IpNet| tunnels.all.iter().chain([&tunnels.own]).all(|ip| net.contains(ip));
    let least = if tunnels.own.is_ipv6() { 64 } else { 24 };
    let around = (least..=IpNet::from(tunnels.own).max_prefix_len()).rev();
    let around = around.filter_map(|length| IpNet::new(tunnels.own, length).ok()).find(all);
    match around {
        Some(net) => vec![net.trunc().to_string()],
        None => tunnels.all.iter().collect::<BTreeSet<&IpAddr>>().into_iter().map(IpAddr::to_string).collect(),
    }
}

/// The subnet of an uplink that has this VTEP and all others.
fn shared(tunnels: &Tunnels) -> Option<IpNet> {
    let all = |net: &IpNet| tunnels.all.iter().chain([&tunnels.own]).all(|ip| net.contains(ip));
    let is_one = |net: &&IpNet| net.prefix_len() < net.max_prefix_len() && all(net);
    tunnels.peers.iter().flat_map(|(_, uplink)| &uplink.addresses).find(is_one).map(IpNet::trunc)
}

fn uplinks(tunnels: &Tunnels) -> Vec<String> {
    let names: BTreeSet<String> = tunnels.peers.iter().map(|(_, uplink)| uplink.name.clone()).collect();
    names.into_iter().collect()
}

/// The copy, as a place where mends are tried.
struct Copy<'a> {
    sandbox: &'a Sandbox,
    case: &'a Case,
    candidates: &'a [Candidate],
    undo: BTreeMap<usize, Undo>,
    until: Instant,
}

enum Undo {
    Run(Vec<String>),
    On(&'static str),
}

impl Bench for Copy<'_> {
    fn apply(&mut self, n: usize) -> bool {
        match apply(self.sandbox, &self.candidates[n]) {
            Ok(undo) => self.undo.insert(n, undo).is_none(),
            Err(_) => false, // nor would it on the host
        }
    }

    fn undo(&mut self, n: usize) -> bool {
        match self.undo.remove(&n) {
            Some(Undo::Run(words)) => self.sandbox.change(&words).is_ok(),
            Some(Undo::On(path)) => self.sandbox.setting(path, "1"),
            None => true,
        }
    }

    fn through(&mut self) -> bool {
        self.sandbox.fire([self.case].into_iter()).is_ok_and(|arrived| self.case.lost(&arrived).is_empty())
    }

    fn late(&self) -> bool {
        Instant::now() >= self.until
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
            let off = sandbox.setting(path, "0");
            off.then_some(Undo::On(path)).ok_or_else(|| format!("{path} cannot be set"))
        }
    }
}
