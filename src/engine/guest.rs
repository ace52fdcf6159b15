//! Guests: start, started, stopped; the same for VMs, containers and devices attached by hand.

use super::{Engine, EngineError};
use crate::config::{Network, PortSecurity};
use crate::event::{GuestPhase, Nic};
use crate::hypervisor;
use crate::input::libvirt_status::Life;
use crate::journal::Message;
use crate::kernel::Kernel;
use crate::model::{Address, Guest, GuestKind, IfName, Mac, Source, quoted};
use crate::plan::guard::{Guard, Lets, guard};
use crate::plan::guest::{self, Seen, Wanted, guarded, open_tunnel, register, wire, withdraw};
use crate::plan::learn::{unfit_declared, yields};
use crate::plan::seen::{Link, World};
use crate::plan::{Plan, Refusal, Step};
use crate::register::{Endpoint, GuestRecord, Hook, NetworkRecord, Stage};
use crate::tape;
use rustix::time::{ClockId, clock_gettime};
use std::borrow::Borrow;

/// How long after `qemu migrate` the `start` that belongs to it may come, in seconds: libvirt makes the guest's disks in between, and others' hooks run.
/// An offline migration calls `migrate` and never `start` (qemu_migration.c `VIR_MIGRATE_OFFLINE`), and a cold boot after it is taken for an arrival until
/// `started`, some 100 ms later; so for ever it does not count. What came later than this `started` finds out.
const INCOMING_MARK: u64 = 3600;

/// How an endpoint comes to be what its record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Its guest starts: registered, and refused where something is in the way.
    Start,
    /// Its guest comes from another host and is not here yet: only wired.
    Incoming,
    /// Its guest runs here: registered, and put right where it is not.
    Mend,
}

/// Has `qemu migrate` announced this guest just now, and nothing of it is here yet?
pub(super) fn is_announced(record: &GuestRecord) -> bool {
    record.held().next().is_none() && record.incoming_since.is_some_and(is_young)
}

fn is_young(since: u64) -> bool {
    boot_seconds().saturating_sub(since) < INCOMING_MARK
}

/// CLOCK_BOOTTIME, which no one sets and which does not stop in a suspend.
pub fn boot_seconds() -> u64 {
    let now = || u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).ok();
    tape::told("seconds since boot", now).unwrap_or_default()
}

/// The same in microseconds.
pub fn boot_micros() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap_or(0)
}

impl Engine {
    pub(super) fn guest(&mut self, phase: GuestPhase, guest: Guest, nics: Vec<Nic>) -> Result<(), EngineError> {
        self.journal.object.clone_from(&guest.name);
        match phase {
            GuestPhase::Prepare => Ok(()),
            GuestPhase::Incoming => self.mark_incoming(guest),
            GuestPhase::Start | GuestPhase::Reconnect => {
                let again = phase == GuestPhase::Reconnect;
                let nics = if again { self.allowed(&guest, nics)? } else { nics };
                let endpoints = match again {
                    true => self.endpoints_of_running(&guest, nics.clone())?,
                    false => self.endpoints(&guest, nics.clone())?,
                };
                self.start(guest, endpoints, again.then_some(&nics))
            }
            GuestPhase::Started { running } => self.started(&guest, running),
            GuestPhase::Stopped => self.stopped(&guest),
            GuestPhase::DeviceDown(device) => self.endpoint_gone(&guest, |e| e.device == device),
        }
    }

    /// Those of a running guest's NICs that are on their network by right. One that is not is left out and told of: the others must not go without
    /// what they need.
    pub(super) fn allowed(&mut self, guest: &Guest, nics: Vec<Nic>) -> Result<Vec<Nic>, EngineError> {
        let mut allowed = Vec::with_capacity(nics.len());
        for nic in nics {
            match self.chosen_in_vain(guest, &nic)? {
                Some(why) => self.journal.say(&Message::Warning(&why)),
                None => allowed.push(nic),
            }
        }
        Ok(allowed)
    }

    /// Why the guest's metadata may not put this NIC where it does. What is there already was allowed once.
    fn chosen_in_vain(&mut self, guest: &Guest, nic: &Nic) -> Result<Option<String>, EngineError> {
        let Some(network) = nic.network.as_ref().filter(|_| nic.chosen && nic.bridge.is_none()) else {
            return Ok(None);
        };
        let allows = self.config().map(|config| config.allow_guest_networks.has(network));
        if matches!(allows, Ok(true)) {
            return Ok(None);
        }
        let is_it = |e: &Endpoint| e.network == *network && e.mac == nic.mac && Some(&e.device) == nic.device.as_ref();
        if self.register.guest(guest)?.is_some_and(|record| record.endpoints.iter().any(is_it)) {
            return Ok(None);
        }
        allows?;
        Ok(Some(format!(
            "{guest}: its metadata chooses network {network} for MAC {}, which config.toml does not allow: add allow_guest_networks = [{:?}] at its top",
            nic.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            network.as_str()
        )))
    }

    /// Which NICs are on networks of ours, with what is known of their addresses.
    pub(super) fn endpoints(&mut self, guest: &Guest, nics: Vec<Nic>) -> Result<Vec<Endpoint>, EngineError> {
        for nic in &nics {
            if let Some(why) = self.chosen_in_vain(guest, nic)? {
                return EngineError::refused(why);
            }
        }
        endpoints_on(guest, nics, |nic| self.network_of(nic), &mut EngineError::refused)
    }

    /// The same of a guest that runs: an address that cannot be its is left out and told of.
    pub(super) fn endpoints_of_running(&mut self, guest: &Guest, nics: Vec<Nic>) -> Result<Vec<Endpoint>, EngineError> {
        let mut left_out = Vec::new();
        let endpoints = endpoints_on(guest, nics, |nic| self.network_of(nic), &mut |why| {
            left_out.push(why);
            Ok(())
        })?;
        for why in left_out {
            self.journal.say(&Message::Warning(&why));
        }
        Ok(endpoints)
    }

    fn mark_incoming(&mut self, guest: Guest) -> Result<(), EngineError> {
        let _lock = self.register.lock_guest(&guest)?;
        let mut record = self.register.guest(&guest)?.unwrap_or(GuestRecord::new(guest));
        record.incoming_since = Some(boot_seconds());
        self.announced = true;
        Ok(self.register.put_guest(&record)?)
    }

    /// Those of a running guest's endpoints whose network is down just now: they are the guest's all the same, and registered when it is back.
    pub(super) fn waiting(
        &self,
        before: &GuestRecord,
        nics: &[Nic],
        fresh: &[Endpoint],
    ) -> Result<Vec<Endpoint>, EngineError> {
        let its = |e: &Endpoint| {
            let is_it =
                |n: &Nic| n.device.as_ref() == Some(&e.device) && n.bridge.as_ref().is_none_or(|b| *b == e.bridge);
            nics.iter().any(is_it) && !fresh.iter().any(|f| f.device == e.device)
        };
        let mut waiting = Vec::new();
        for endpoint in before.endpoints.iter().filter(|e| its(e)) {
            if self.register.network_of_bridge(&endpoint.bridge)?.is_none() {
                waiting.push(endpoint.clone());
            }
        }
        Ok(waiting)
    }

    /// Wires every endpoint, and registers it unless its guest still runs elsewhere. All or nothing. `running` are the NICs of a guest that ran before.
    pub(super) fn start(
        &mut self,
        guest: Guest,
        mut endpoints: Vec<Endpoint>,
        running: Option<&[Nic]>,
    ) -> Result<(), EngineError> {
        let again = running.is_some();
        // A guest on none of our networks leaves no trace, not even a lock.
        if endpoints.is_empty() && self.register.guest(&guest)?.is_none() {
            return Ok(());
        }
        let _lock = self.register.lock_guest(&guest)?;
        let before = self.register.guest(&guest)?;
        let waiting = match (&before, running) {
            (Some(before), Some(nics)) => self.waiting(before, nics, &endpoints)?,
            _ => Vec::new(),
        };
        if endpoints.is_empty() && !waiting.is_empty() {
            return Ok(());
        }
        let known = before.as_ref().is_some_and(|b| match b.incoming_since {
            Some(_) if again => b.endpoints.iter().any(|e| e.stage == Stage::Incoming),
            Some(since) => is_young(since),
            None => false,
        });
        let incoming = self.announced || known;
        let waits: Vec<IfName> = waiting.iter().map(|e| e.device.clone()).collect();
        endpoints.extend(waiting);
        for endpoint in &mut endpoints {
            let known = before.iter().flat_map(|b| &b.endpoints).find(|e| e.device == endpoint.device);
            endpoint.enslaved |= known.is_some_and(|k| k.enslaved);
            if let Some(known) = known.filter(|_| again) {
                endpoint.remember(known);
            }
        }
        let record = GuestRecord {
            // One that is too old to be believed is kept for `started`, which can ask libvirt.
            incoming_since: before.as_ref().and_then(|b| b.incoming_since).filter(|_| incoming || !again),
            endpoints,
            ..GuestRecord::new(guest)
        };
        if record.endpoints.is_empty() {
            return self.part(GuestRecord { incoming_since: None, ..before.unwrap_or(record) }, |_| true);
        }
        let how = match (incoming, again) {
            (true, _) => How::Incoming,
            (false, true) => How::Mend,
            (false, false) => How::Start,
        };
        let record = self.change(before, record, how, |e| !waits.contains(&e.device))?;
        // All that it has is another guest's.
        if record.endpoints.is_empty() {
            return self.part(record, |_| true);
        }
        self.tell(if incoming { "wired, not advertised before it arrives" } else { "registered" }, &record);
        Ok(())
    }

    /// Adds or replaces one endpoint of a guest and leaves the others alone (`attach`, LXC script.up).
    pub(super) fn add_endpoint(&mut self, guest: Guest, nic: Nic) -> Result<Option<Endpoint>, EngineError> {
        let Some(endpoint) = self.endpoints(&guest, vec![nic])?.pop() else { return Ok(None) };
        let device = endpoint.device.clone();
        let _lock = if self.dry_run { None } else { Some(self.register.lock_guest(&guest)?) };
        let before = self.register.guest(&guest)?;
        let mut record = before.clone().unwrap_or(GuestRecord::new(guest));
        record.endpoints.retain(|e| e.device != device);
        record.endpoints.push(endpoint);
        let mut record = self.change(before, record, How::Start, |e| e.device == device)?;
        Ok(record.endpoints.pop())
    }

    /// From what a guest's record says to what it shall say: all of it, or it says and does what it did before.
    pub(super) fn change(
        &mut self,
        before: Option<GuestRecord>,
        mut record: GuestRecord,
        how: How,
        which: impl Fn(&Endpoint) -> bool,
    ) -> Result<GuestRecord, EngineError> {
        // One that is known is let be, whatever it is called: it runs.
        let result = match record.guest.hazard().filter(|_| how == How::Start && before.is_none()) {
            Some(c) => EngineError::refused(format!(
                "{}: its name has {}, which is not safe in a path, a shell or a terminal: rename it",
                record.guest,
                quoted(&c.to_string())
            )),
            None => self.carry_out(before.as_ref(), &mut record, how, which),
        };
        if let (Err(error), false) = (&result, self.dry_run) {
            let restored = match &before {
                Some(before) => self.register.put_guest(before),
                // Its lock goes with it: one that guards no record would stay for ever.
                None => self.register.remove_guest(&record.guest),
            };
            // Where nothing can be written, nothing was: that is told already.
            if let (Err(why), false) = (restored, matches!(error, EngineError::Register(_))) {
                self.journal.say(&Message::Warning(&why));
            }
        }
        result.map(|()| record)
    }

    /// observe → plan → claim → apply → settle, for those endpoints of a guest that are asked for.
    fn carry_out(
        &mut self,
        before: Option<&GuestRecord>,
        record: &mut GuestRecord,
        how: How,
        which: impl Fn(&Endpoint) -> bool,
    ) -> Result<(), EngineError> {
        let who = record.guest.to_string();
        let mut plan = Plan::new();
        let mut gave_up = Vec::new();
        record.know_ports();
        for endpoint in record.endpoints.iter_mut().filter(|e| which(e)) {
            endpoint.index = match endpoint.port_security {
                PortSecurity::Off => None,
                _ => self.kernel()?.link(&endpoint.device)?.map(|link| link.index),
            };
        }
        // What was claimed and no longer is goes first: a hook that never heard of the guest's end must not leave its ghosts.
        for old in before.iter().flat_map(|b| b.held()) {
            plan.extend(self.no_longer(&who, old, &record.endpoints)?);
        }
        let mut others: Vec<IfName> = Vec::new();
        let came = |device: &IfName| {
            before.iter().flat_map(|b| &b.endpoints).any(|e| e.device == *device && e.stage == Stage::Incoming)
        };
        for endpoint in record.endpoints.iter_mut().filter(|e| which(e)) {
            self.journal.is_on(&endpoint.device, endpoint.network.as_str());
            self.journal.is_on(&endpoint.bridge, endpoint.network.as_str());
            // When it is wired, and once more: by its arrival the source may have withdrawn them.
            if how == How::Incoming || how == How::Mend && came(&endpoint.device) {
                self.adopt(endpoint)?;
            }
            let mut mend = how == How::Mend;
            let mut seen = observe(self.kernel()?, &Wanted { mend, ..wanted(&who, endpoint) })?;
            // Proxmox puts a tap elsewhere without a word (`qm set`), behind its firewall's bridge, too: it is not taken from there.
            mend &= record.guest.kind != GuestKind::Proxmox || seen.master_name.is_none();
            let known = before.iter().flat_map(|b| b.held()).find(|e| e.device == endpoint.device);
            // A device that comes new with its guest has no entry: whoever put it there may be the one whose namespace this guest shares.
            let entered = |device: &Link| seen.fdb.as_ref().is_some_and(|f| f.is_static && f.port == device.index);
            let may_share = how == How::Start || record.guest.kind == GuestKind::Lxc;
            if known.is_none()
                && may_share
                && seen.device.as_ref().is_some_and(entered)
                && let Some(owner) = self.owner_of(&endpoint.device, &record.guest).filter(is_alive)
            {
                let what = format!("{who}: device {} is {owner}'s already, and stays {owner}'s", endpoint.device);
                match record.guest.kind {
                    GuestKind::Lxc => self.journal.say(&Message::Note(&what)),
                    _ => self.journal.say(&Message::Warning(&what)),
                }
                others.push(endpoint.device.clone());
                continue;
            }
            let known =
                known.filter(|_| before.is_some_and(|b| b.endpoints.iter().any(|e| e.device == endpoint.device)));
            if let (How::Mend, Some(mac), Some(known)) = (how, endpoint.mac, known) {
                let stands = |a: &Address| self.stands == Some((mac, a.ip));
                let (lost, ips): (Vec<Address>, _) =
                    endpoint.ips.iter().partition(|a| !stands(a) && yields(a, &known.ips, &seen.neighs, mac));
                endpoint.ips = ips;
                let freed = &guard(endpoint.port_security, endpoint.mac, &lost) - &guard_of(endpoint);
                let freed: Vec<Lets> = freed.into_iter().collect();
                plan.extend(endpoint.index.and_then(|index| guarded(&endpoint.device, index, Vec::new(), freed)));
                gave_up.extend(lost);
            }
            let want = Wanted { mend, ..wanted(&who, endpoint) };
            let steps = |seen: &Seen| if how == How::Incoming { wire(&want, seen) } else { register(&want, seen) };
            steps(&seen)?;
            let known = known.filter(|k| k.mac == endpoint.mac).map_or(&[][..], |k| &k.taken);
            let taken = self.taken(&record.guest, &want, &mut seen, how, known)?;
            let steps = steps(&seen)?;
            // Ours to release is only what we enslaved, now or for an earlier record: not a tap that libvirt or a script put there.
            let earlier = before.iter().flat_map(|b| &b.endpoints).any(|e| e.device == endpoint.device && e.enslaved);
            let now = want.enslave && steps.iter().any(|p| matches!(p.step, Step::SetMaster { .. }));
            endpoint.enslaved = now || earlier;
            endpoint.taken = taken;
            plan.extend(steps);
        }
        record.endpoints.retain(|e| !others.contains(&e.device));
        let waits = |p: &crate::plan::Planned| matches!(p.step, Step::AwaitPort { .. });
        // What cannot say where FRR is keeps no guest from its network.
        let mut frr = if plan.iter().any(waits) { self.frr().unwrap_or_default() } else { None };
        plan.retain(|p| frr.is_some() || !waits(p));
        if self.dry_run {
            self.planned.extend(plan);
            return Ok(());
        }
        if how == How::Incoming {
            record.endpoints.iter_mut().filter(|e| which(e)).for_each(|e| e.stage = Stage::Incoming);
        }
        // What goes is claimed as well: a run that is killed in between would leave what nobody knows.
        let goes = |old: &&Endpoint| !record.endpoints.iter().any(|new| is_same(new, old));
        record.leaving = before.iter().flat_map(|b| b.held()).filter(goes).cloned().collect();
        record.hook = before.and_then(|b| b.hook.clone());
        // Where only the kernel's part was lost, the record says it all already: then it can be mended where nothing can be written.
        let claimed = before.filter(|b| says_already(b, record)).unwrap_or(record).clone();
        if before != Some(&claimed) {
            for endpoint in record.endpoints.iter().filter(|e| which(e)) {
                self.register.mark_used(&endpoint.bridge)?;
            }
            self.register.put_guest(record)?;
        }
        self.walk(&plan, frr.as_mut(), None)?;
        record.leaving.clear();
        for endpoint in record.endpoints.iter_mut().filter(|e| which(e)) {
            endpoint.stage = match endpoint.mac {
                _ if how == How::Incoming => Stage::Incoming,
                Some(_) => Stage::Registered,
                None => Stage::Pending,
            };
        }
        // A call that found all in place leaves no trace.
        if let Some(began) = self.began.filter(|_| how != How::Mend && !plan.is_empty()) {
            let took = boot_micros().saturating_sub(began);
            record.hook = Some(Hook { by: self.journal.event.clone(), began, took });
        }
        // All is done, and the claim knows all that there is to withdraw: a guest that has what it needs is not refused for a full disk.
        if *record != claimed
            && let Err(error) = self.register.put_guest(record)
        {
            self.journal.say(&Message::Warning(&format!("{who}: all is done, but recorded as pending: {error}")));
        }
        if !gave_up.is_empty() {
            let gave_up: Vec<String> = gave_up.iter().map(|a| a.ip.to_string()).collect();
            let detail = format!(": {}", gave_up.join(" "));
            self.journal.say(&Message::Done {
                what: "gave up what is another's now",
                object: &record.guest.name,
                detail: &detail,
            });
        }
        Ok(())
    }

    /// Another guest that has this device.
    fn owner_of(&self, device: &IfName, but: &Guest) -> Option<Guest> {
        let mut guests = self.register.guests().into_iter().flatten();
        guests.find(|r| !r.guest.is(but) && r.held().any(|e| e.device == *device)).map(|r| r.guest)
    }

    /// What of an endpoint the guest does not want any more. Its addresses may live on behind another device: a container that
    /// died without a hook comes back with a new veth, and finds its own neighbours on the bridge.
    fn no_longer(&mut self, who: &str, old: &Endpoint, now: &[Endpoint]) -> Result<Plan, EngineError> {
        let heirs: Vec<&Endpoint> = now.iter().filter(|n| n.mac == old.mac && n.bridge == old.bridge).collect();
        let mut left = old.clone();
        left.ips.retain(|a| !heirs.iter().any(|n| n.ips.iter().any(|b| b.ip == a.ip)));
        let same_mac = heirs.iter().any(|n| n.device == old.device);
        let heir = now.iter().find(|n| n.device == old.device);
        let stays = heir.filter(|n| n.index == old.index).map(guard_of).unwrap_or_default();
        let guard: Guard = guard_of(old).difference(&stays).copied().collect();
        if same_mac && left.ips.is_empty() && guard.is_empty() {
            return Ok(Plan::new());
        }
        let enslave = old.enslaved && heir.is_none();
        let want = Wanted { enslave, guard, ..wanted(who, &left) };
        let mut seen = observe(self.kernel()?, &want)?;
        seen.fdb = seen.fdb.filter(|_| !same_mac);
        let mut plan = withdraw(&want, &seen);
        plan.retain(|p| !matches!(p.step, Step::LockPort { .. }) || stays.is_empty());
        if heirs.is_empty() {
            plan.extend(self.end(&want, seen)?);
        }
        Ok(plan)
    }

    /// The chance to correct a wrong guess: a guest taken for an arrival that libvirt says runs here already is registered, and one that was
    /// registered and is still on its way is taken back. Any that is on its way has to be waited for, since no hook tells of its arrival.
    fn started(&mut self, guest: &Guest, running: Option<bool>) -> Result<(), EngineError> {
        let Some(record) = self.register.guest(guest)? else { return Ok(()) };
        if record.incoming_since.is_none() {
            return Ok(());
        }
        let life = match running {
            Some(true) => Some(Life::Here),
            Some(false) => Some(Life::Moving),
            None => tape::told("libvirt: how the domain lives", || hypervisor::libvirt::life(&guest.name)),
        };
        match (life, is_incoming(&record)) {
            (Some(Life::Here), true) => return self.arrived(guest).map(drop),
            (Some(Life::Moving), false) => self.not_yet(guest)?,
            (_, true) => {}
            (_, false) => return Ok(()),
        }
        self.awaited = Some(guest.clone());
        Ok(())
    }

    /// A guest that was registered runs elsewhere still: only wired, as one on its way.
    fn not_yet(&mut self, guest: &Guest) -> Result<(), EngineError> {
        let _lock = self.register.lock_guest(guest)?;
        let Some(record) = self.register.guest(guest)? else { return Ok(()) };
        let mut incoming = GuestRecord { incoming_since: Some(boot_seconds()), ..record.clone() };
        incoming.hook = None;
        self.part(GuestRecord { incoming_since: Some(boot_seconds()), ..record }, |_| true)?;
        let before = self.register.guest(guest)?;
        let record = self.change(before, incoming, How::Incoming, |_| true)?;
        self.tell("it has not arrived: wired, not advertised before", &record);
        Ok(())
    }

    /// A guest that was on its way runs here now: registers it. False where it was not on its way (any more).
    pub fn arrived(&mut self, guest: &Guest) -> Result<bool, EngineError> {
        self.journal.object.clone_from(&guest.name);
        let _lock = self.register.lock_guest(guest)?;
        let Some(record) = self.register.guest(guest)? else {
            // The lock was made for a record that is not there.
            self.register.remove_guest(guest)?;
            return Ok(false);
        };
        if !is_incoming(&record) {
            return Ok(false);
        }
        let arrived = GuestRecord { incoming_since: None, ..record.clone() };
        let record = self.change(Some(record), arrived, How::Mend, |_| true)?;
        self.tell("arrived and registered", &record);
        Ok(true)
    }

    /// Registers again who is on this bridge: it was made anew, or moved, or lets its guests send something else.
    pub(super) fn guests_again(&mut self, bridge: &IfName) {
        let on_it = |e: &Endpoint| e.bridge == *bridge && e.stage == Stage::Registered;
        let security = self.register.network_of_bridge(bridge).ok().flatten().map(|n| n.network.security());
        for record in self.register.guests().into_iter().flatten().filter(|r| r.endpoints.iter().any(on_it)) {
            let again = self.register.lock_guest(&record.guest).map_err(EngineError::from).and_then(|_lock| {
                let Some(before) = self.register.guest(&record.guest)? else { return Ok(()) };
                let mut record = before.clone();
                for endpoint in record.endpoints.iter_mut().filter(|e| on_it(e)) {
                    endpoint.port_security = security.unwrap_or(endpoint.port_security);
                }
                self.change(Some(before), record, How::Mend, on_it).map(drop)
            });
            if let Err(error) = again {
                self.journal.say(&Message::Warning(&error));
            }
        }
    }

    /// Withdraws all of a guest and forgets it.
    pub(super) fn stopped(&mut self, guest: &Guest) -> Result<(), EngineError> {
        if self.register.guest(guest)?.is_none() {
            return Ok(());
        }
        let _lock = self.register.lock_guest(guest)?;
        let Some(record) = self.register.guest(guest)? else { return Ok(()) };
        self.part(GuestRecord { incoming_since: None, ..record.clone() }, |_| true)?;
        self.tell("withdrawn", &record);
        Ok(())
    }

    /// Withdraws the endpoints that match; the guest may live on.
    pub(super) fn endpoint_gone(&mut self, guest: &Guest, gone: impl Fn(&Endpoint) -> bool) -> Result<(), EngineError> {
        if self.register.guest(guest)?.is_none() {
            return Ok(());
        }
        let _lock = self.register.lock_guest(guest)?;
        match self.register.guest(guest)? {
            Some(record) => self.part(record, gone),
            None => Ok(()),
        }
    }

    /// A NIC that was unplugged has lost its device by now. Where that is on its bridge still, libvirt has only given the NIC another port, as it does for a
    /// mere change of the link's state: before 10.8 it deletes the new one again, since then the old one (qemu_hotplug.c `qemuDomainChangeNet`).
    pub(super) fn port_deleted(&mut self, owner: &Guest) -> Result<(), EngineError> {
        self.journal.object.clone_from(&owner.name);
        let mut gone = Vec::new();
        for endpoint in self.register.guest(owner)?.into_iter().flat_map(|record| record.endpoints) {
            let kernel = self.kernel()?;
            let master = kernel.link(&endpoint.device)?.and_then(|device| device.master);
            if master.is_none() || master != kernel.link(&endpoint.bridge)?.map(|bridge| bridge.index) {
                gone.push(endpoint.device);
            }
        }
        if gone.is_empty() { Ok(()) } else { self.endpoint_gone(owner, |e| gone.contains(&e.device)) }
    }

    /// Withdraws those endpoints that go, and forgets them; all of a guest, and it is forgotten. What is refused is remembered for the next
    /// `sync`. Call with the guest's lock held.
    pub(super) fn part(
        &mut self,
        mut record: GuestRecord,
        goes: impl Fn(&Endpoint) -> bool,
    ) -> Result<(), EngineError> {
        let who = record.guest.to_string();
        let (go, stay) = record.endpoints.drain(..).partition(goes);
        record.endpoints = stay;
        record.know_ports();
        record.leaving.extend::<Vec<_>>(go);
        let mut plan = Plan::new();
        for endpoint in &record.leaving {
            self.journal.is_on(&endpoint.device, endpoint.network.as_str());
            self.journal.is_on(&endpoint.bridge, endpoint.network.as_str());
            let want = wanted(&who, endpoint);
            let seen = observe(self.kernel()?, &want)?;
            let mut steps = withdraw(&want, &seen);
            let unlocks = |p: &crate::plan::Planned| matches!(p.step, Step::LockPort { locked: false, .. });
            // Left on the bridge it is nobody's, and held as such.
            if steps.iter().any(unlocks) && self.is_secured(&endpoint.bridge)? {
                steps.retain(|planned| !unlocks(planned));
            }
            plan.extend(steps);
            plan.extend(self.end(&want, seen)?);
        }
        if self.dry_run {
            self.planned.extend(plan);
            return Ok(());
        }
        if let (_, true) = self.walk_on(&plan, None, None) {
            record.leaving.clear();
        }
        if record.held().next().is_none() && record.incoming_since.is_none() {
            return Ok(self.register.remove_guest(&record.guest)?);
        }
        self.register.put_guest(&record)?;
        match record.leaving.is_empty() {
            true => Ok(()),
            false => {
                EngineError::refused(format!("{who}: not all could be withdrawn: 'evpn-hook sync' tries it again"))
            }
        }
    }

    /// What makes sure that the speaker does not miss the end of what is withdrawn.
    fn end(&mut self, want: &Wanted, mut seen: Seen) -> Result<Plan, EngineError> {
        let Some(bridge) = &seen.bridge else { return Ok(Plan::new()) };
        seen.around = self.kernel()?.neighs(bridge.index)?;
        // A record that cannot be read, of which others tell, holds no withdrawal up.
        let network = self.register.network_of_bridge(want.bridge).ok().flatten();
        let tunnel = network.and_then(|record| Some((record.network.vni, record.vtep?)));
        Ok(tunnel.map(|(vni, vtep)| guest::end(want, &seen, vni, vtep)).unwrap_or_default())
    }

    fn is_secured(&self, bridge: &IfName) -> Result<bool, EngineError> {
        let record = self.register.network_of_bridge(bridge)?;
        Ok(record.is_some_and(|record| record.network.security() != PortSecurity::Off))
    }

    pub(super) fn tell(&mut self, what: &str, record: &GuestRecord) {
        let mut detail = String::new();
        for e in &record.endpoints {
            let mac = e.mac.map(|m| m.to_string()).unwrap_or_default();
            let ips: Vec<String> = e.ips.iter().map(|a| a.ip.to_string()).collect();
            detail += &format!(", {} on {} {mac} {}", e.device, e.network, ips.join(" "));
        }
        self.journal.say(&Message::Done { what, object: &record.guest.name, detail: &detail });
    }
}

/// `attach`: registers one device for a guest.
pub fn attach(engine: &mut Engine, guest: Guest, nic: Nic) -> Result<Endpoint, EngineError> {
    engine.journal.object.clone_from(&guest.name);
    // A device belongs to one guest: another's claim on it would withdraw this one's routes when that guest stops.
    if let Some((device, owner)) = nic.device.as_ref().and_then(|d| Some((d, engine.owner_of(d, &guest)?))) {
        return EngineError::refused(format!("{device}: it is {owner}'s already: 'evpn-hook detach {device}' first"));
    }
    match engine.add_endpoint(guest, nic)? {
        Some(endpoint) => Ok(endpoint),
        None => EngineError::refused("the network is not one of evpn-hook's"),
    }
}

/// `detach`: withdraws one device, or all of the one guest that is called so.
pub fn detach(engine: &mut Engine, device: Option<&IfName>, name: Option<&str>) -> Result<(), EngineError> {
    engine.register.writable()?;
    let records = engine.register.guests().into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut found = false;
    if let Some(name) = name {
        let named: Vec<&Guest> = records.iter().map(|r| &r.guest).filter(|guest| guest.is_called(name)).collect();
        if let [one, _, ..] = named[..] {
            let full: Vec<String> = named.iter().map(|guest| guest.full_name()).collect();
            let count = full.len();
            let what =
                format!("{name}: {count} guests are called so: name one, as --guest {}", quoted(&one.full_name()));
            return EngineError::refused(format!("{what} (of {})", full.join(", ")));
        }
        for guest in named {
            engine.stopped(guest)?;
            found = true;
        }
    }
    for record in records.iter().filter(|_| name.is_none()) {
        if let Some(device) = device.filter(|device| record.held().any(|e| e.device == **device)) {
            engine.endpoint_gone(&record.guest, |e| e.device == *device)?;
            found = true;
        }
    }
    if found {
        return Ok(());
    }
    let what = name.map(str::to_owned).or(device.map(ToString::to_string)).unwrap_or_default();
    Err(Refusal(format!("{what}: nothing of that name is attached: see 'evpn-hook status'")).into())
}

/// What an endpoint lacks, or why it cannot be; nothing is asked anew.
pub fn lacks(world: &World, who: &str, endpoint: &Endpoint) -> Result<Plan, Refusal> {
    let want = wanted(who, endpoint);
    let seen = Seen::of(world, &want);
    if endpoint.stage == Stage::Incoming { wire(&want, &seen) } else { register(&want, &seen) }
}

/// What `sync` would do for a registered endpoint, which takes a port back to its bridge; nothing is asked anew.
pub fn mends(world: &World, who: &str, endpoint: &Endpoint) -> Result<Plan, Refusal> {
    let want = Wanted { mend: true, ..wanted(who, endpoint) };
    let seen = Seen::of(world, &want);
    if endpoint.stage == Stage::Incoming { wire(&want, &seen) } else { register(&want, &seen) }
}

/// Does the one record say all that the other does, but for how far its endpoints have come?
fn says_already(before: &GuestRecord, record: &GuestRecord) -> bool {
    let come = |e: &Endpoint| before.endpoints.iter().find(|b| b.device == e.device).map_or(e.stage, |b| b.stage);
    let as_far = |e: &Endpoint| Endpoint { stage: come(e), ..e.clone() };
    *before == GuestRecord { endpoints: record.endpoints.iter().map(as_far).collect(), ..record.clone() }
}

/// May this guest run? Of a domain libvirt says it; a container's devices are gone with it.
fn is_alive(guest: &Guest) -> bool {
    let runs = || Some(hypervisor::libvirt::runs(&guest.name));
    guest.kind != GuestKind::Libvirt || tape::told("libvirt: does the owner run", runs) != Some(false)
}

/// Is the one the other's successor on the same device, with its MAC? On another bridge nothing of it is the same.
fn is_same(new: &Endpoint, old: &Endpoint) -> bool {
    (&new.device, new.mac, &new.bridge) == (&old.device, old.mac, &old.bridge)
}

/// Is this guest on its way to here?
pub(super) fn is_incoming(record: &GuestRecord) -> bool {
    record.endpoints.iter().any(|e| e.stage == Stage::Incoming)
}

/// Those of these NICs that are on networks of ours, as `find` knows them. `unfit` is told of addresses that cannot be theirs, which are left out where
/// that is no error.
pub(super) fn endpoints_on<R: Borrow<NetworkRecord>>(
    guest: &Guest,
    nics: Vec<Nic>,
    find: impl Fn(&Nic) -> Result<Option<R>, EngineError>,
    unfit: &mut dyn FnMut(String) -> Result<(), EngineError>,
) -> Result<Vec<Endpoint>, EngineError> {
    let mut endpoints = Vec::new();
    for nic in nics {
        let Some(device) = nic.device.clone() else { continue };
        let record = match (find(&nic)?, &nic.network) {
            (None, Some(name)) if nic.bridge.is_none() && nic.enslave => {
                return EngineError::refused(format!(
                    "{guest}: network {name} of device {device} is not up: 'virsh net-start {name}' or 'evpn-hook network up {name}' first"
                ));
            }
            (record, _) => record,
        };
        let Some(record) = record else { continue };
        let network = &record.borrow().network;
        if let Some(other) = nic.network.as_ref().filter(|name| nic.chosen && **name != network.name) {
            return EngineError::refused(format!(
                "{guest}: its metadata puts device {device} on network {other}, its bridge {} is network {}'s: make them say the same, or remove network=",
                network.bridge, network.name
            ));
        }
        if nic.mac.is_none() && guest.kind == GuestKind::Libvirt {
            return EngineError::refused(format!(
                "{guest}: device {device} on network {} has no MAC that one guest could have (multicast, zero, or not one): give it another",
                network.name
            ));
        }
        if let Some(mac) = nic.mac.filter(|mac| network.mac == Some(*mac)) {
            return EngineError::refused(format!(
                "{guest}: MAC {mac} is the gateway's on {}: give the guest another",
                network.bridge
            ));
        }
        let mut ips = nic.ips;
        // Its MAC is on several networks, each with what is declared there.
        if let Some((_, declared)) = nic.by_network.into_iter().find(|(name, _)| *name == network.name) {
            ips = declared;
        }
        if let (true, Some(mac)) = (ips.is_empty() || nic.lent, nic.mac) {
            let kept = by_dhcp_host(network, mac).into_iter().filter(|kept| !ips.iter().any(|a| a.ip == kept.ip));
            ips.extend(kept.collect::<Vec<_>>());
        }
        if let Some(gateway) = network.gateway.iter().find(|g| ips.iter().any(|a| a.ip == g.addr())) {
            return EngineError::refused(format!(
                "{guest}: address {} of device {device} is network {}'s gateway: give the guest another",
                gateway.addr(),
                network.name
            ));
        }
        let mut fit = Vec::with_capacity(ips.len());
        for address in ips {
            match unfit_declared(network, address.ip) {
                None => fit.push(address),
                // What a router advertised nobody has declared.
                Some(_) if nic.lent => {}
                Some(why) => {
                    let ip = address.ip;
                    unfit(format!("{guest}: address {ip} of device {device} is {why}: {}", another(network)))?;
                }
            }
        }
        endpoints.push(Endpoint {
            network: network.name.clone(),
            bridge: network.bridge.clone(),
            device,
            mac: nic.mac,
            ips: fit,
            enslaved: nic.enslave,
            stage: Stage::Pending,
            port_security: network.security(),
            index: None,
            taken: Vec::new(),
            slowed: Vec::new(),
            beside: Vec::new(),
        });
    }
    Ok(endpoints)
}

/// The ways out for an address that cannot be a guest's there.
fn another(network: &Network) -> String {
    let subnets: Vec<String> = network.gateway.iter().map(|gateway| gateway.trunc().to_string()).collect();
    format!("give it one of network {}'s ({}), or that network a gateway for it", network.name, subnets.join(", "))
}

/// What the network's `<dhcp><host>` says of a MAC. An address that no guest can have is libvirt's affair.
pub(super) fn by_dhcp_host(network: &Network, mac: Mac) -> Vec<Address> {
    let kept = network.hosts.get(&mac).into_iter().flatten().filter(|ip| unfit_declared(network, **ip).is_none());
    kept.map(|ip| Address::new(*ip, Source::DhcpHost)).collect()
}

/// A guest by hand.
pub fn by_hand(name: &str) -> Result<Guest, crate::model::BadValue> {
    Guest::new(GuestKind::Manual, name, name)
}

/// What an endpoint's port lets in.
pub(super) fn guard_of(endpoint: &Endpoint) -> Guard {
    guard(endpoint.port_security, endpoint.mac, &endpoint.ips)
}

pub(super) fn wanted<'a>(who: &'a str, endpoint: &'a Endpoint) -> Wanted<'a> {
    Wanted {
        guest: who,
        device: &endpoint.device,
        bridge: &endpoint.bridge,
        network: endpoint.network.as_str(),
        mac: endpoint.mac,
        ips: &endpoint.ips,
        beside: &endpoint.beside,
        guard: guard_of(endpoint),
        index: endpoint.index,
        enslave: endpoint.enslaved,
        mend: false,
    }
}

/// Single questions, never a list: what a guest's hook reads does not grow with the host.
pub(super) fn observe(kernel: &mut Kernel, want: &Wanted) -> Result<Seen, EngineError> {
    let mut seen = Seen { device: kernel.link(want.device)?, bridge: kernel.link(want.bridge)?, ..Seen::default() };
    if let (Some(device), Some(bridge)) = (&seen.device, &seen.bridge)
        && let Some(master) = device.master.filter(|m| *m != bridge.index)
    {
        seen.master_name = kernel.link_by_index(master)?.map(|l| l.name);
    }
    if let (Some(device), Some(bridge)) = (&seen.device, &seen.bridge)
        && device.port.isolated == Some(true)
    {
        let tunnels = kernel.links_of_kind("vxlan")?;
        seen.open_tunnel = open_tunnel(device, bridge, tunnels.iter()).map(|link| link.name.clone());
    }
    if let (Some(bridge), Some(mac)) = (&seen.bridge, want.mac) {
        seen.fdb = kernel.fdb(bridge.index, mac)?;
        let elsewhere = seen.fdb.as_ref().is_some_and(|f| seen.device.as_ref().is_none_or(|d| d.index != f.port));
        for dev in want.beside.iter().filter(|_| elsewhere) {
            let on_it = kernel.link(dev)?.filter(|link| link.master == Some(bridge.index));
            seen.beside.extend(on_it.map(|link| (link.index, link.name)));
        }
        for address in want.ips {
            seen.neighs.extend(kernel.neigh(bridge.index, address.ip)?);
        }
    }
    // A port that comes new with its guest has none: its index was nobody's before.
    if let Some(device) = seen.device.as_ref().filter(|_| want.mend && !want.guard.is_empty())
        && crate::guard::lets(device.index, &want.guard)?
    {
        seen.guard.clone_from(&want.guard);
    }
    Ok(seen)
}
