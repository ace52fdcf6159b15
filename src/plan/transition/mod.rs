//! From what a guest's record says to what it shall say: (record before, wish, mode, what was seen)
//! → (claim, plan, record after, what to say).
//!
//! Pure. [`look`] says which questions are asked, and in which order; whoever answers them is its
//! [`Eyes`]: the kernel for one guest, or a look at everything that is there already.
//! [`transition`] decides from the answers. An empty plan, and a record that stays, mean that all
//! is as it should be.
//!
//! - `wish`: what its hypervisor says of a guest → what its record shall say
//! - `learn`: an address that was heard of: whose it is
//! - `part`: what goes is withdrawn, as much of it as can be

mod learn;
mod part;
mod wish;

pub use learn::{Claimed, Ground, Heard, learns};
pub use part::{Goes, Gone, Parting};
pub use wish::{Runs, Wish, is_announced, runs, starts};

use super::duplicate::{Duplicate, Holder, remembered};
use super::guard::{Guard, Lets, guard};
use super::guest::{Seen, Wanted, guarded, register, wire, withdraw};
use super::learn::{with, yields};
use super::record::{Endpoint, GuestRecord, Stage};
use super::seen::World;
use super::{Plan, Refusal, Step};
use crate::model::{Address, Guest, GuestKind, IfName, Mac, quoted};
use std::convert::Infallible;
use std::net::IpAddr;

/// How a guest comes to be what its record shall say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It starts: registered, and refused where something is in the way.
    Start,
    /// It comes from another host and is not here yet: only wired.
    Incoming,
    /// It runs here: registered, and put right where it is not.
    Mend,
}

/// The guest with this MAC answers for this address.
pub type Stands = (Mac, IpAddr);

/// What is to become of a guest.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    before: Option<&'a GuestRecord>,
    wish: GuestRecord,
    mode: Mode,
    /// The places in `wish.endpoints` of those that are looked at; the others stay as they are.
    looked: Vec<usize>,
    stands: Option<Stands>,
    hurried: bool,
}

/// What was seen of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestSeen {
    /// Of each NIC that is looked at.
    pub nics: Vec<NicSeen>,
    /// Of what the guest has no longer.
    pub left: Vec<Left>,
    /// The operator wants no start with what another guest has. Asked only where a NIC has such.
    pub refuses_duplicates: bool,
    /// Seconds since boot.
    pub now: u64,
}

/// What was seen of one NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicSeen {
    /// The device's index, where its port is to be guarded.
    pub index: Option<u32>,
    /// The addresses that its MAC has in the fabric, where it comes from another host.
    pub fabric: Vec<Address>,
    /// The port, its bridge and their entries.
    pub port: Seen,
    /// Another guest that lives and has this device, where the device may be shared.
    pub owner: Option<Guest>,
    /// What of it other guests have.
    pub duplicates: Vec<Duplicate>,
}

/// What a guest has no longer, and what is there of it. Its addresses may live on behind another
/// device: a container that died without a hook comes back with a new veth, and finds its own
/// neighbours on the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    endpoint: Endpoint,
    guard: Guard,
    enslave: bool,
    /// Its device has the same MAC as before, on the same bridge.
    same_mac: bool,
    /// No device of the guest has its MAC there any more.
    ends: bool,
    /// Its port is held for the same guest still.
    held: bool,
    seen: Seen,
}

/// Who answers what a [`look`] asks.
pub trait Eyes {
    /// Why there is no answer.
    type Error;
    /// The index of a device.
    fn index(&mut self, device: &IfName) -> Result<Option<u32>, Self::Error>;
    /// One port, its bridge and their entries.
    fn port(&mut self, want: &Wanted) -> Result<Seen, Self::Error>;
    /// The same of one that goes, with what tells the speaker of its end.
    fn going(&mut self, want: &Wanted) -> Result<Seen, Self::Error> {
        self.port(want)
    }
    /// The addresses that a MAC has in the fabric.
    fn fabric(&mut self, bridge: &IfName, mac: Mac) -> Result<Vec<Address>, Self::Error>;
    /// Another guest that lives and has this device.
    fn owner(&mut self, device: &IfName, but: &Guest) -> Option<Guest>;
    /// What of an endpoint other guests have.
    fn duplicates(&mut self, guest: &Guest, want: &Wanted, seen: &Seen) -> Result<Vec<Duplicate>, Self::Error>;
    /// Does the operator want no start with such?
    fn refuses_duplicates(&mut self) -> bool;
    /// Seconds since boot.
    fn now(&mut self) -> u64;
}

/// What is to be said of a transition, before its first step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// In the log.
    Note(String),
    /// To whoever started it as well.
    Warning(String),
}

/// The way from one record to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// What is written before the first step; none where the record before says it all already.
    pub claim: Option<GuestRecord>,
    /// The steps.
    pub plan: Plan,
    /// What the record says once all is done.
    pub after: GuestRecord,
    /// What is to be said before.
    pub tell: Vec<Tell>,
    /// The addresses that it gives up, for another has them now: said once all is done.
    pub gave_up: Vec<Address>,
}

/// There is no way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// What is to be said before.
    pub tell: Vec<Tell>,
    /// What is in the way of this NIC (its place among those that are looked at) may go by itself
    /// in a moment.
    pub may_go: Option<usize>,
}

impl<'a> Change<'a> {
    /// From the record before to this one; those of its endpoints are looked at that `which` names.
    pub fn new(
        before: Option<&'a GuestRecord>,
        mut wish: GuestRecord,
        mode: Mode,
        which: impl Fn(&Endpoint) -> bool,
    ) -> Change<'a> {
        wish.know_ports();
        let looked = (0..wish.endpoints.len()).filter(|at| which(&wish.endpoints[*at])).collect();
        Change { before, wish, mode, looked, stands: None, hurried: false }
    }

    /// It is not given up, though another VTEP has it.
    pub fn standing(self, stands: Option<Stands>) -> Change<'a> {
        Change { stands, ..self }
    }

    /// Nothing is waited for: who waits for this has others to see to.
    pub fn hurried(self, hurried: bool) -> Change<'a> {
        Change { hurried, ..self }
    }

    /// The record before.
    pub fn before(&self) -> Option<&'a GuestRecord> {
        self.before
    }

    /// Whose it is.
    pub fn guest(&self) -> &Guest {
        &self.wish.guest
    }

    /// Its guest starts or comes: a hook's doing, and not a repair.
    pub fn is_start(&self) -> bool {
        self.mode != Mode::Mend
    }

    /// The endpoints that are looked at, as they are wished for.
    pub fn nics(&self) -> impl Iterator<Item = &Endpoint> {
        self.looked.iter().map(|at| &self.wish.endpoints[*at])
    }

    /// All that the kernel may hold by the record before.
    fn held(&self) -> impl Iterator<Item = &'a Endpoint> + use<'a> {
        self.before.into_iter().flat_map(GuestRecord::held)
    }

    /// The same NIC in the record before.
    fn known(&self, device: &IfName) -> Option<&'a Endpoint> {
        self.before.into_iter().flat_map(|b| &b.endpoints).find(|e| e.device == *device)
    }

    /// Are its addresses sought in the fabric? When it is wired, and once more: by its arrival the
    /// source may have withdrawn them.
    fn adopts(&self, endpoint: &Endpoint) -> bool {
        let came = || self.known(&endpoint.device).is_some_and(|e| e.stage == Stage::Incoming);
        self.mode == Mode::Incoming || self.mode == Mode::Mend && came()
    }

    /// May whoever put a device's entry there be the one whose namespace this guest shares? A
    /// device that comes new with its guest has none.
    fn may_be_anothers(&self, endpoint: &Endpoint, port: &Seen) -> bool {
        let entered =
            |fdb: &super::seen::Fdb| fdb.is_static && port.device.as_ref().is_some_and(|d| d.index == fdb.port);
        let may_share = self.mode == Mode::Start || self.guest().kind == GuestKind::Lxc;
        may_share && !self.held().any(|e| e.device == endpoint.device) && port.fdb.as_ref().is_some_and(entered)
    }

    /// One that is wished for, with what is seen of it.
    fn endpoint(&self, at: usize, index: Option<u32>, fabric: &[Address]) -> Endpoint {
        let mut endpoint = self.wish.endpoints[at].clone();
        endpoint.index = index;
        for address in fabric {
            if let Some(ips) = endpoint.mac.and_then(|mac| with(&endpoint.ips, *address, mac, &[])) {
                endpoint.ips = ips;
            }
        }
        endpoint
    }

    /// Those of its addresses that it gives up, for another has them by now.
    fn lost(&self, endpoint: &Endpoint, port: &Seen) -> Vec<Address> {
        let (Mode::Mend, Some(mac), Some(known)) = (self.mode, endpoint.mac, self.known(&endpoint.device)) else {
            return Vec::new();
        };
        let stands = |a: &Address| self.stands == Some((mac, a.ip));
        let lost = |a: &&Address| !stands(a) && yields(a, &known.ips, &port.neighs, mac);
        endpoint.ips.iter().filter(lost).copied().collect()
    }

    /// Proxmox puts a tap elsewhere without a word (`qm set`), behind its firewall's bridge, too:
    /// it is not taken from there.
    fn mends(&self, port: &Seen) -> bool {
        self.mode == Mode::Mend && (self.guest().kind != GuestKind::Proxmox || port.master_name.is_none())
    }

    /// Looks again at what other guests have of this NIC.
    pub fn look_again<E: Eyes>(&self, nic: usize, seen: &mut NicSeen, eyes: &mut E) -> Result<(), E::Error> {
        let who = self.guest().to_string();
        let endpoint = self.endpoint(self.looked[nic], seen.index, &seen.fabric);
        let want = Wanted { mend: self.mode == Mode::Mend, ..Wanted::of(&who, &endpoint) };
        seen.port = eyes.port(&want)?;
        seen.duplicates = eyes.duplicates(self.guest(), &want, &seen.port)?;
        Ok(())
    }
}

impl Left {
    /// What of an endpoint a guest has no longer, `now` being what it has, with the index of each
    /// device; none where nothing of it goes.
    fn of(old: &Endpoint, now: &[(&Endpoint, Option<u32>)]) -> Option<Left> {
        let heirs = || now.iter().map(|(n, _)| n).filter(|n| n.mac == old.mac && n.bridge == old.bridge);
        let mut endpoint = old.clone();
        endpoint.ips.retain(|a| !heirs().any(|n| n.ips.iter().any(|b| b.ip == a.ip)));
        let same_mac = heirs().any(|n| n.device == old.device);
        let ends = heirs().next().is_none();
        if !ends {
            // Where its MAC is behind a port that stays, it stays there.
            endpoint.beside.clear();
        }
        let heir = now.iter().find(|(n, _)| n.device == old.device);
        let stays = heir.filter(|(_, index)| *index == old.index).map(|(n, _)| n.guard()).unwrap_or_default();
        let guard: Guard = old.guard().difference(&stays).copied().collect();
        if same_mac && endpoint.ips.is_empty() && guard.is_empty() {
            return None;
        }
        let enslave = old.enslaved && heir.is_none();
        Some(Left { endpoint, guard, enslave, same_mac, ends, held: !stays.is_empty(), seen: Seen::default() })
    }

    fn want<'b>(&'b self, who: &'b str) -> Wanted<'b> {
        Wanted { enslave: self.enslave, guard: self.guard.clone(), ..Wanted::of(who, &self.endpoint) }
    }

    fn plan(&self, who: &str) -> Plan {
        let mut plan = withdraw(&self.want(who), &self.seen);
        plan.retain(|p| !matches!(p.step, Step::LockPort { .. }) || !self.held);
        plan
    }
}

/// Asks what the transition depends on.
pub fn look<E: Eyes>(change: &Change, eyes: &mut E) -> Result<GuestSeen, E::Error> {
    let who = change.guest().to_string();
    let mut seen = GuestSeen::default();
    for endpoint in change.nics() {
        let index = if endpoint.guard().is_empty() { None } else { eyes.index(&endpoint.device)? };
        seen.nics.push(NicSeen { index, ..NicSeen::default() });
    }
    let mut now: Vec<(&Endpoint, Option<u32>)> = change.wish.endpoints.iter().map(|e| (e, e.index)).collect();
    for (at, nic) in change.looked.iter().zip(&seen.nics) {
        now[*at].1 = nic.index;
    }
    for mut left in change.held().filter_map(|old| Left::of(old, &now)) {
        let want = left.want(&who);
        left.seen = if left.ends { eyes.going(&want)? } else { eyes.port(&want)? };
        left.seen.fdb.take_if(|_| left.same_mac);
        seen.left.push(left);
    }
    for (at, nic) in change.looked.iter().zip(&mut seen.nics) {
        let wished = &change.wish.endpoints[*at];
        if let Some(mac) = wished.mac.filter(|_| change.adopts(wished)) {
            nic.fabric = eyes.fabric(&wished.bridge, mac)?;
        }
        let mut endpoint = change.endpoint(*at, nic.index, &nic.fabric);
        nic.port = eyes.port(&Wanted { mend: change.mode == Mode::Mend, ..Wanted::of(&who, &endpoint) })?;
        if change.may_be_anothers(&endpoint, &nic.port) {
            nic.owner = eyes.owner(&endpoint.device, change.guest());
        }
        // Who comes from another host has its MAC and addresses there until it is here.
        if change.mode != Mode::Incoming && nic.owner.is_none() {
            let lost = change.lost(&endpoint, &nic.port);
            endpoint.ips.retain(|a| !lost.contains(a));
            nic.duplicates = eyes.duplicates(change.guest(), &Wanted::of(&who, &endpoint), &nic.port)?;
        }
    }
    let any = seen.nics.iter().any(|nic| !nic.duplicates.is_empty());
    seen.refuses_duplicates = change.mode == Mode::Start && any && eyes.refuses_duplicates();
    seen.now = eyes.now();
    Ok(seen)
}

/// The way from the record before to the one that is wished for. What was claimed and no longer is
/// goes first: a hook that never heard of the guest's end must not leave its ghosts.
pub fn transition(change: &Change, seen: &GuestSeen) -> Result<Transition, Refused> {
    let Change { before, mode, .. } = *change;
    let mut tell = Vec::new();
    // One that is known is let be, whatever it is called: it runs.
    if let Some(c) = change.guest().hazard().filter(|_| mode == Mode::Start && before.is_none()) {
        let why = Refusal(format!(
            "{}: its name has {}, which is not safe in a path, a shell or a terminal: rename it",
            change.guest(),
            quoted(&c.to_string())
        ));
        return Err(Refused { why, tell, may_go: None });
    }
    let who = change.guest().to_string();
    let mut after = change.wish.clone();
    let mut plan: Plan = seen.left.iter().flat_map(|left| left.plan(&who)).collect();
    let (mut gave_up, mut others) = (Vec::new(), Vec::new());
    for (place, (at, nic)) in change.looked.iter().zip(&seen.nics).enumerate() {
        let endpoint = &mut after.endpoints[*at];
        *endpoint = change.endpoint(*at, nic.index, &nic.fabric);
        if let Some(owner) = &nic.owner {
            let what = format!("{who}: device {} is {owner}'s already, and stays {owner}'s", endpoint.device);
            tell.push(if change.guest().kind == GuestKind::Lxc { Tell::Note(what) } else { Tell::Warning(what) });
            others.push(endpoint.device.clone());
            continue;
        }
        let lost = change.lost(endpoint, &nic.port);
        endpoint.ips.retain(|a| !lost.contains(a));
        let freed = &guard(endpoint.port_security, endpoint.mac, &lost) - &endpoint.guard();
        // Of what the port is seen to let in the plan takes back what is too much.
        let freed: Vec<Lets> = freed.into_iter().filter(|lets| !nic.port.guard.contains(lets)).collect();
        plan.extend(endpoint.index.and_then(|index| guarded(&endpoint.device, index, Vec::new(), freed)));
        gave_up.extend(lost);
        let want = Wanted { mend: change.mends(&nic.port), ..Wanted::of(&who, endpoint) };
        let steps = if mode == Mode::Incoming { wire(&want, &nic.port) } else { register(&want, &nic.port) };
        let steps = match steps {
            Ok(steps) => steps,
            Err(why) => return Err(Refused { why, tell, may_go: None }),
        };
        if let Some((first, may_go)) = refused(change, seen, nic, &want) {
            let why = Refusal(format!("{who}: {first}: {}", first.mend()));
            return Err(Refused { why, tell, may_go: Some(place).filter(|_| may_go && !change.hurried) });
        }
        let enslaves = want.enslave && steps.iter().any(|p| matches!(p.step, Step::SetMaster { .. }));
        let known = change.known(&endpoint.device);
        let took = known.filter(|k| k.mac == endpoint.mac).map_or(&[][..], |k| &k.taken);
        // A guest that moved here is behind the source's VTEP a moment longer: its MAC is no
        // other's.
        let counts = |d: &&Duplicate| mode != Mode::Mend || d.ip.is_some() || took.iter().any(|k| k.ip.is_none());
        let found: Vec<Duplicate> = nic.duplicates.iter().filter(counts).cloned().collect();
        for new in found.iter().filter(|d| !took.iter().any(|k| (k.ip, k.mac) == (d.ip, d.mac))) {
            tell.push(Tell::Warning(format!("{who}: {new}: {}", new.mend())));
        }
        endpoint.taken = remembered(took, &found, seen.now);
        // Ours to release is only what we enslaved, now or for an earlier record: not a tap that
        // libvirt or a script put there.
        endpoint.enslaved = enslaves || known.is_some_and(|k| k.enslaved);
        if mode == Mode::Incoming {
            endpoint.stage = Stage::Incoming;
        }
        plan.extend(steps);
    }
    after.endpoints.retain(|e| !others.contains(&e.device));
    let looked: Vec<&IfName> = change.nics().map(|e| &e.device).collect();
    // What goes is claimed as well: a run that is killed in between would leave what nobody knows.
    let goes = |old: &&Endpoint| !after.endpoints.iter().any(|new| is_same(new, old));
    after.leaving = change.held().filter(goes).cloned().collect();
    after.hook = before.and_then(|b| b.hook.clone());
    // Where only the kernel's part was lost, the record says it all already: then it can be mended
    // where nothing can be written.
    let claim = if before.is_some_and(|b| says_already(b, &after)) { None } else { Some(after.clone()) };
    after.leaving.clear();
    for endpoint in after.endpoints.iter_mut().filter(|e| looked.contains(&&e.device)) {
        endpoint.stage = match endpoint.mac {
            _ if mode == Mode::Incoming => Stage::Incoming,
            Some(_) => Stage::Registered,
            None => Stage::Pending,
        };
    }
    Ok(Transition { claim, plan, after, tell, gave_up })
}

/// What another guest has so that this one may not start, and whether that may go in a moment.
fn refused<'b>(change: &Change, seen: &GuestSeen, nic: &'b NicSeen, want: &Wanted) -> Option<(&'b Duplicate, bool)> {
    if change.mode != Mode::Start {
        return None;
    }
    let found = &nic.duplicates;
    // Of this host's own guests nobody has to guess whether they live; on a network that holds its
    // guests to their addresses each has its own.
    let certain = |d: &&Duplicate| !want.guard.is_empty() && matches!(d.holder, Holder::Here(_));
    if let Some(first) = found.iter().find(certain) {
        return Some((first, false));
    }
    let may_go = found.iter().all(Duplicate::may_go);
    found.first().filter(|_| seen.refuses_duplicates).map(|first| (first, may_go))
}

/// Is all so already, by a look at everything? Nobody is asked: what only further questions would
/// tell is asked where something is amiss.
pub fn is_so(change: &Change, world: &World) -> bool {
    let Ok(seen) = look(change, &mut Whole(world));
    let way = transition(change, &seen);
    change.before.zip(way.ok()).is_some_and(|(before, way)| way.is_settled(before))
}

/// A look at everything that is there.
struct Whole<'a>(&'a World);

impl Eyes for Whole<'_> {
    type Error = Infallible;

    fn index(&mut self, device: &IfName) -> Result<Option<u32>, Infallible> {
        Ok(self.0.link(device).map(|link| link.index))
    }
    fn port(&mut self, want: &Wanted) -> Result<Seen, Infallible> {
        Ok(Seen::of(self.0, want))
    }
    fn fabric(&mut self, _: &IfName, _: Mac) -> Result<Vec<Address>, Infallible> {
        Ok(Vec::new())
    }
    fn owner(&mut self, _: &IfName, _: &Guest) -> Option<Guest> {
        None
    }
    fn duplicates(&mut self, _: &Guest, _: &Wanted, _: &Seen) -> Result<Vec<Duplicate>, Infallible> {
        Ok(Vec::new())
    }
    fn refuses_duplicates(&mut self) -> bool {
        false
    }
    fn now(&mut self) -> u64 {
        0
    }
}

impl Transition {
    /// Is all as it should be already? Who told an address, since when it is incoming, and by which
    /// hook is no reason to do anything.
    fn is_settled(&self, before: &GuestRecord) -> bool {
        let same = |new: &Endpoint| {
            let is_it = |old: &&Endpoint| is_same(new, old) && new.network == old.network && new.stage == old.stage;
            let old = before.endpoints.iter().find(is_it);
            old.is_some_and(|old| new.addresses() == old.addresses() && new.port_security == old.port_security)
        };
        self.plan.is_empty()
            && before.leaving.is_empty()
            && self.after.endpoints.len() == before.endpoints.len()
            && self.after.endpoints.iter().all(same)
    }
}

/// Is the one the other's successor on the same device, with its MAC? On another bridge nothing of
/// it is the same.
fn is_same(new: &Endpoint, old: &Endpoint) -> bool {
    (&new.device, new.mac, &new.bridge) == (&old.device, old.mac, &old.bridge)
}

/// Does the one record say all that the other does, but for how far its endpoints have come?
fn says_already(before: &GuestRecord, record: &GuestRecord) -> bool {
    let come = |e: &Endpoint| before.endpoints.iter().find(|b| b.device == e.device).map_or(e.stage, |b| b.stage);
    let as_far = |e: &Endpoint| Endpoint { stage: come(e), ..e.clone() };
    *before == GuestRecord { endpoints: record.endpoints.iter().map(as_far).collect(), ..record.clone() }
}

#[cfg(test)]
mod tests;
