//! The host's routing rules: where VRFs, table local and everybody else's rules stand to one another.
//!
//! All of ours have preference 0, in the order in which they were added, and protocol `kernel`:
//!
//! ```text
//! 0: from all iif lo lookup [l3mdev-table] ipproto tcp sport 179 prohibit    guests get no answer from bgpd, unless config.toml lets them
//! 0: from all lookup [l3mdev-table]                                         a tenant's packet meets its VRF's table first
//! 0: from all lookup local                                                  the host's own addresses are answered next, as without us
//! ```
//!
//! - Table local keeps its preference: no rule of the operator's comes between it and the host's own addresses (multi-homing, WireGuard).
//! - A VRF's table ends with an unreachable default, so no tenant's packet gets as far as the operator's rules.
//! - `ip rule add` without a preference takes the second rule's minus one, or 0 where that is 0 (net/core/fib_rules.c `fib_default_rule_pref`), and
//!   among equals the newest comes last (`fib_nl_newrule`): it stands behind ours.
//! - systemd-networkd takes out each rule that is not its own and not `proto kernel` (networkd.conf(5), ManageForeignRoutingPolicyRules=).
//! - `ip rule flush` leaves preference 0.
//!
//! Where somebody moved table local (Cilium: to 100) it stays there, behind the VRFs all the same.

use serde::{Deserialize, Serialize};

/// `RTPROT_KERNEL`, include/uapi/linux/rtnetlink.h.
pub const KERNEL: u8 = 2;
/// `RTPROT_UNSPEC`: who says nothing.
pub const UNSPEC: u8 = 0;

/// Where earlier versions put table local, without a protocol.
pub const EARLIER_LOCAL: u32 = 32765;
/// Their rule against BGP, with protocol 69: the sign that it was they who moved table local.
pub const EARLIER_BGP: (u32, u8) = (999, 69);

/// A rule as far as its place among the others matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its preference.
    pub preference: u32,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// What it does.
    pub kind: Kind,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Takes bgpd's answers to guests.
    Bgp,
    /// Sends all that is a VRF's to the VRF's table.
    Vrfs,
    /// Sends everything to table local.
    Local,
    /// Sends to table local what an admin chose: the kernel takes it for [`Kind::Local`] when that is to be deleted. In words, as [`Kind::Other`].
    SomeLocal(String),
    /// Somebody's, in `ip rule`'s words.
    Other(String),
}

/// The rules of one family in the order in which they are asked.
pub type Rules = Vec<Rule>;

/// How they should stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the kernel made them: table local at 0, nothing of ours.
    Plain {
        /// An earlier version moved table local, and remembered it.
        moved: bool,
    },
    /// VRFs before table local.
    VrfsFirst {
        /// Guests get no answer from the host's bgpd.
        bgp_closed: bool,
    },
}

/// One change on the way to an order. What is added comes last of its preference, what is deleted is the first that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A rule of ours at preference 0.
    Add(Ours),
    /// The first such rule at preference 0.
    Del(Ours),
    /// An earlier version's rule for table local.
    DelEarlierLocal,
    /// An earlier version's rule against BGP.
    DelEarlierBgp,
}

/// The rules that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    /// See [`Kind::Bgp`].
    Bgp,
    /// See [`Kind::Vrfs`].
    Vrfs,
    /// See [`Kind::Local`].
    Local,
}

impl Rule {
    fn is(&self, ours: Ours) -> bool {
        let kind = match ours {
            Ours::Bgp => Kind::Bgp,
            Ours::Vrfs => Kind::Vrfs,
            Ours::Local => Kind::Local,
        };
        self.kind == kind && self.protocol == KERNEL
    }

    fn is_earlier_bgp(&self) -> bool {
        self.kind == Kind::Bgp && (self.preference, self.protocol) == EARLIER_BGP
    }

    fn is_earlier_local(&self) -> bool {
        self.kind == Kind::Local && (self.preference, self.protocol) == (EARLIER_LOCAL, UNSPEC)
    }

    fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::SomeLocal(text) | Kind::Other(text) => Some(text),
            _ => None,
        }
    }
}

/// The rules at preference 0 with what has to be known of them.
struct Zero<'a> {
    rules: Vec<&'a Rule>,
    /// A rule of others stands behind our rule for VRFs. To put that behind the other would be worse than whatever is wrong.
    pinned: bool,
    vrfs: Option<usize>,
    bgp: Option<usize>,
    local: Option<usize>,
}

impl<'a> Zero<'a> {
    fn of(all: &'a [Rule]) -> Zero<'a> {
        let rules: Vec<&Rule> = all.iter().filter(|rule| rule.preference == 0).collect();
        let first = |ours| rules.iter().position(|rule| rule.is(ours));
        let last = |ours| rules.iter().rposition(|rule| rule.is(ours));
        let other = rules.iter().rposition(|rule| rule.text().is_some());
        let pinned = matches!((first(Ours::Vrfs), other), (Some(vrfs), Some(other)) if vrfs < other);
        let vrfs = if pinned { first(Ours::Vrfs) } else { last(Ours::Vrfs) };
        let bgp = if pinned { first(Ours::Bgp) } else { last(Ours::Bgp) };
        let local = last(Ours::Local);
        Zero { pinned, vrfs, bgp, local, rules }
    }

    fn count(&self, wanted: impl Fn(&Rule) -> bool) -> usize {
        self.rules.iter().filter(|rule| wanted(rule)).count()
    }

    fn locals(&self) -> usize {
        self.count(|rule| rule.kind == Kind::Local)
    }

    /// More than one for table local, and the first can be deleted: neither is it an admin's own that the kernel would take for it, nor the one that
    /// is in its place.
    fn has_spare_local(&self) -> bool {
        let first = self.rules.iter().position(|rule| matches!(rule.kind, Kind::Local | Kind::SomeLocal(_)));
        let bare = first.is_some_and(|first| self.rules.get(first).is_some_and(|rule| rule.kind == Kind::Local));
        let misplaced = !self.pinned || first < self.vrfs;
        self.locals() > 1 && bare && misplaced
    }
}

/// What to do next; `None` where they stand as they should, or as well as they can beside a rule of others at preference 0. Between two changes there is
/// always a rule for table local, if there was one before.
pub fn next(rules: &[Rule], order: Order) -> Option<Change> {
    let zero = Zero::of(rules);
    let moved = match order {
        Order::Plain { moved } => moved,
        Order::VrfsFirst { .. } => false,
    } || rules.iter().any(Rule::is_earlier_bgp);
    let elsewhere =
        |rule: &Rule| rule.kind == Kind::Local && rule.preference > 0 && !(moved && rule.is_earlier_local());
    let local_is_elsewhere = zero.locals() == 0 && rules.iter().any(elsewhere);
    let change = match order {
        Order::Plain { .. } => {
            if zero.local.is_none() && !local_is_elsewhere {
                Some(Change::Add(Ours::Local))
            } else if zero.bgp.is_some() {
                Some(Change::Del(Ours::Bgp))
            } else if zero.vrfs.is_some() {
                Some(Change::Del(Ours::Vrfs))
            } else {
                zero.has_spare_local().then_some(Change::Del(Ours::Local))
            }
        }
        Order::VrfsFirst { bgp_closed } => vrfs_first(&zero, bgp_closed, local_is_elsewhere),
    };
    // The sign that table local was moved by us goes last.
    change
        .or_else(|| (moved && rules.iter().any(Rule::is_earlier_local)).then_some(Change::DelEarlierLocal))
        .or_else(|| rules.iter().any(Rule::is_earlier_bgp).then_some(Change::DelEarlierBgp))
}

fn vrfs_first(zero: &Zero, bgp_closed: bool, local_is_elsewhere: bool) -> Option<Change> {
    let behind_bgp = |vrfs: usize| !bgp_closed || zero.bgp.is_some_and(|bgp| bgp < vrfs);
    if bgp_closed && zero.bgp.is_none() && !zero.pinned {
        return Some(Change::Add(Ours::Bgp));
    }
    if !zero.vrfs.is_some_and(|vrfs| zero.pinned || behind_bgp(vrfs)) {
        return Some(Change::Add(Ours::Vrfs));
    }
    if !local_is_elsewhere && zero.local <= zero.vrfs {
        return Some(Change::Add(Ours::Local));
    }
    // From here on only what is there twice, or is not wanted.
    let bgp = zero.count(|rule| rule.is(Ours::Bgp));
    if bgp > usize::from(bgp_closed) && !(zero.pinned && bgp_closed) {
        return Some(Change::Del(Ours::Bgp));
    }
    if zero.count(|rule| rule.is(Ours::Vrfs)) > 1 && !zero.pinned {
        return Some(Change::Del(Ours::Vrfs));
    }
    zero.has_spare_local().then_some(Change::Del(Ours::Local))
}

/// A rule of others at preference 0 that is, or would be, asked before the VRFs or between them and table local.
pub fn in_the_way(rules: &[Rule], bgp_closed: bool) -> Option<&str> {
    let zero = Zero::of(rules);
    let first = zero.rules.iter().position(|rule| rule.text().is_some())?;
    let whole = zero.vrfs.is_some_and(|vrfs| {
        let bgp = !bgp_closed || zero.bgp.is_some_and(|bgp| bgp < vrfs);
        let local = zero.rules.iter().skip(vrfs).position(|rule| rule.kind == Kind::Local).map(|at| vrfs + at);
        bgp && vrfs < first && local.is_none_or(|local| local < first) && (local.is_some() || zero.locals() == 0)
    });
    if whole { None } else { zero.rules.get(first)?.text() }
}

/// The first rule of others that is asked before any for VRFs.
pub fn before_vrfs(rules: &[Rule]) -> Option<&str> {
    let vrfs = rules.iter().position(|rule| rule.kind == Kind::Vrfs)?;
    rules.iter().take(vrfs).find_map(Rule::text)
}

/// What the rules come to, whoever made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// There is a rule for table local.
    pub local: bool,
    /// VRFs are asked before table local.
    pub vrfs_first: bool,
    /// Guests get no answer from the host's bgpd.
    pub bgp_closed: bool,
}

/// The same for all families.
pub fn effect(families: &[Rules]) -> Effect {
    let of = |rules: &Rules| {
        let at = |kind: Kind| rules.iter().position(|rule| rule.kind == kind);
        let (bgp, vrfs, local) = (at(Kind::Bgp), at(Kind::Vrfs), at(Kind::Local));
        let before =
            |one: Option<usize>, other: Option<usize>| one.is_some_and(|one| other.is_none_or(|other| one < other));
        Effect { local: local.is_some(), vrfs_first: before(vrfs, local), bgp_closed: before(bgp, vrfs) }
    };
    families.iter().map(of).fold(Effect { local: true, vrfs_first: true, bgp_closed: true }, |all, one| Effect {
        local: all.local && one.local,
        vrfs_first: all.vrfs_first && one.vrfs_first,
        bgp_closed: all.bgp_closed && one.bgp_closed,
    })
}

/// The changes from these rules to that order, in turn; an end is put to what would not come to one.
pub fn changes(rules: &[Rule], order: Order) -> Vec<Change> {
    let (mut rules, mut changes) = (rules.to_vec(), Vec::new());
    while let Some(change) = next(&rules, order).filter(|_| changes.len() < 64) {
        apply(&mut rules, change);
        changes.push(change);
    }
    changes
}

/// What the kernel makes of a change (net/core/fib_rules.c `fib_nl_newrule`, `rule_find`).
pub fn apply(rules: &mut Rules, change: Change) {
    let ours = |ours: Ours| match ours {
        Ours::Bgp => Kind::Bgp,
        Ours::Vrfs => Kind::Vrfs,
        Ours::Local => Kind::Local,
    };
    let found = match change {
        Change::Add(what) => {
            let behind = rules.iter().position(|rule| rule.preference > 0).unwrap_or(rules.len());
            return rules.insert(behind, Rule { preference: 0, protocol: KERNEL, kind: ours(what) });
        }
        Change::Del(Ours::Local) => {
            rules.iter().position(|rule| rule.preference == 0 && matches!(rule.kind, Kind::Local | Kind::SomeLocal(_)))
        }
        Change::Del(what) => rules.iter().position(|rule| rule.preference == 0 && rule.is(what)),
        Change::DelEarlierLocal => rules.iter().position(Rule::is_earlier_local),
        Change::DelEarlierBgp => rules.iter().position(Rule::is_earlier_bgp),
    };
    if let Some(at) = found {
        rules.remove(at);
    }
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
