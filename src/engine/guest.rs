//! Guests: start, started, stopped; the same for VMs, containers and devices attached by hand.

use super::{Engine, EngineError, Outcome};
use crate::config::{Network, PortSecurity};
use crate::event::{GuestPhase, Nic};
use crate::hypervisor;
use crate::input::libvirt_status::Life;
use crate::journal::Message;
use crate::model::{Address, Guest, GuestKind, IfName, Mac, Source, quoted};
use crate::plan::guest::{Seen, Wanted, register, wire};
use crate::plan::learn::unfit_declared;
use crate::plan::seen::World;
use crate::plan::transition::{
    Change, Eyes, Goes, Gone, Mode, Parting, Refused, Tell, Transition, Wish, look, starts, transition,
};
use crate::plan::{Plan, Planned, Refusal, Step};
use crate::register::{Endpoint, GuestRecord, Hook, NetworkRecord, Stage};
use crate::tape;
use rustix::time::{ClockId, clock_gettime};
use std::borrow::Borrow;

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
    pub(super) fn guest(&mut self, phase: GuestPhase, guest: Guest, nics: Vec<Nic>) -> Result<Outcome, EngineError> {
        self.journal.object.clone_from(&guest.name);
        match phase {
            GuestPhase::Prepare => Ok(Outcome::default()),
            GuestPhase::Incoming => self.mark_incoming(guest).map(|()| Outcome::default()),
            GuestPhase::Start | GuestPhase::Reconnect => {
                let again = phase == GuestPhase::Reconnect;
                let nics = if again { self.allowed(&guest, nics)? } else { nics };
                let endpoints = match again {
                    true => self.endpoints_of_running(&guest, nics.clone())?,
                    false => self.endpoints(&guest, nics.clone())?,
                };
                self.start(guest, endpoints, again.then_some(&nics), false).map(Outcome::of)
            }
            GuestPhase::Started { running } => self.started(guest, running),
            GuestPhase::Stopped => self.stopped(&guest).map(Outcome::of),
            GuestPhase::DeviceDown(device) => self.endpoint_gone(&guest, |e| e.device == device).map(Outcome::of),
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

    /// Wires every endpoint, and registers it unless its guest still runs elsewhere. All or nothing. `running` are the NICs of a guest that ran before;
    /// with `hurried` nothing is waited for.
    pub(super) fn start(
        &mut self,
        guest: Guest,
        endpoints: Vec<Endpoint>,
        running: Option<&[Nic]>,
        hurried: bool,
    ) -> Result<Plan, EngineError> {
        // A guest on none of our networks leaves no trace, not even a lock.
        if endpoints.is_empty() && self.register.guest(&guest)?.is_none() {
            return Ok(Plan::new());
        }
        let _lock = self.register.lock_guest(&guest)?;
        let before = self.register.guest(&guest)?;
        let waiting = match (&before, running) {
            (Some(before), Some(nics)) => self.waiting(before, nics, &endpoints)?,
            _ => Vec::new(),
        };
        match starts(guest, before.as_ref(), endpoints, waiting, running.is_some(), boot_seconds()) {
            Wish::Nothing => Ok(Plan::new()),
            Wish::Parts(record) => self.part(Goes::of(record, |_| true)),
            Wish::Becomes(change) => {
                let (record, plan) = self.change(&change.hurried(hurried))?;
                // All that it has is another guest's.
                if record.endpoints.is_empty() {
                    return self.part(Goes::of(record, |_| true));
                }
                let what = match record.is_incoming() {
                    true => "wired, not advertised before it arrives",
                    false => "registered",
                };
                self.tell(what, &record);
                Ok(plan)
            }
        }
    }

    /// Adds or replaces one endpoint of a guest and leaves the others alone (`attach`, LXC script.up).
    pub(super) fn add_endpoint(&mut self, guest: Guest, nic: Nic) -> Result<Option<(Endpoint, Plan)>, EngineError> {
        let Some(endpoint) = self.endpoints(&guest, vec![nic])?.pop() else { return Ok(None) };
        let device = endpoint.device.clone();
        let _lock = if self.dry_run { None } else { Some(self.register.lock_guest(&guest)?) };
        let before = self.register.guest(&guest)?;
        let mut record = before.clone().unwrap_or(GuestRecord::new(guest));
        record.endpoints.retain(|e| e.device != device);
        record.endpoints.push(endpoint);
        let change = Change::new(before.as_ref(), record, Mode::Start, |e| e.device == device);
        let (mut record, plan) = self.change(&change)?;
        Ok(record.endpoints.pop().map(|endpoint| (endpoint, plan)))
    }

    /// From what a guest's record says to what it shall say: all of it, or it says and does what it did before. Returns what it says then, and what was done.
    /// Call with the guest's lock held.
    pub(super) fn change(&mut self, change: &Change) -> Result<(GuestRecord, Plan), EngineError> {
        let result = self.carry_out(change);
        if let (Err(error), false) = (&result, self.dry_run) {
            let restored = match change.before() {
                Some(before) => self.register.put_guest(before),
                // Its lock goes with it: one that guards no record would stay for ever.
                None => self.register.remove_guest(change.guest()),
            };
            // Where nothing can be written, nothing was: that is told already.
            if let (Err(why), false) = (restored, matches!(error, EngineError::Register(_))) {
                self.journal.say(&Message::Warning(&why));
            }
        }
        result
    }

    /// observe → plan → claim → apply → settle.
    fn carry_out(&mut self, change: &Change) -> Result<(GuestRecord, Plan), EngineError> {
        change.nics().for_each(|endpoint| self.name_devices_of(endpoint));
        let Transition { claim, mut plan, mut after, tell, gave_up } = self.way(change)?;
        self.say(&tell);
        let waits = |p: &Planned| matches!(p.step, Step::AwaitPort { .. });
        // What cannot say where FRR is keeps no guest from its network.
        let mut frr = if plan.iter().any(waits) { self.frr().unwrap_or_default() } else { None };
        plan.retain(|p| frr.is_some() || !waits(p));
        if self.dry_run {
            return Ok((after, plan));
        }
        if let Some(claim) = &claim {
            for endpoint in change.nics() {
                self.register.mark_used(&endpoint.bridge)?;
            }
            self.register.put_guest(claim)?;
        }
        self.walk(&plan, frr.as_mut(), None)?;
        // A call that found all in place leaves no trace.
        if let Some(began) = self.journal.began.filter(|_| change.is_start() && !plan.is_empty()) {
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let began = boot_micros().saturating_sub(took);
            after.hook = Some(Hook { by: self.journal.event.clone(), began, took });
        }
        // All is done, and the claim knows all that there is to withdraw: a guest that has what it needs is not refused for a full disk.
        if Some(&after) != claim.as_ref().or(change.before())
            && let Err(error) = self.register.put_guest(&after)
        {
            let what = format!("{}: all is done, but recorded as pending: {error}", change.guest());
            self.journal.say(&Message::Warning(&what));
        }
        if !gave_up.is_empty() {
            let gave_up: Vec<String> = gave_up.iter().map(|a| a.ip.to_string()).collect();
            let detail = format!(": {}", gave_up.join(" "));
            let what = "gave up what is another's now";
            self.journal.say(&Message::Done { what, object: &change.guest().name, detail: &detail });
        }
        Ok((after, plan))
    }

    /// The way there, from what is seen now. What another host is about to withdraw is waited for.
    fn way(&mut self, change: &Change) -> Result<Transition, EngineError> {
        let mut seen = look(change, self)?;
        let mut way = transition(change, &seen);
        while let Err(Refused { may_go: Some(nic), .. }) = way
            && !self.dry_run
        {
            let gone = self.until_gone(change, nic, &mut seen.nics[nic])?;
            way = transition(change, &seen);
            if !gone {
                break;
            }
        }
        way.map_err(|refused| {
            self.say(&refused.tell);
            refused.why.into()
        })
    }

    fn say(&mut self, tell: &[Tell]) {
        for tell in tell {
            match tell {
                Tell::Note(what) => self.journal.say(&Message::Note(what)),
                Tell::Warning(what) => self.journal.say(&Message::Warning(what)),
            }
        }
    }

    /// For the log: on which network a NIC's devices are.
    fn name_devices_of(&mut self, endpoint: &Endpoint) {
        self.journal.is_on(&endpoint.device, endpoint.network.as_str());
        self.journal.is_on(&endpoint.bridge, endpoint.network.as_str());
    }

    /// The chance to correct a wrong guess: a guest taken for an arrival that libvirt says runs here already is registered, and one that was
    /// registered and is still on its way is taken back. Any that is on its way has to be waited for, since no hook tells of its arrival.
    fn started(&mut self, guest: Guest, running: Option<bool>) -> Result<Outcome, EngineError> {
        let record = self.register.guest(&guest)?.filter(|record| record.incoming_since.is_some());
        let Some(record) = record else { return Ok(Outcome::default()) };
        let life = match running {
            Some(true) => Some(Life::Here),
            Some(false) => Some(Life::Moving),
            None => tape::told("libvirt: how the domain lives", || hypervisor::libvirt::life(&guest.name)),
        };
        let plan = match (life, record.is_incoming()) {
            (Some(Life::Here), true) => return Ok(Outcome::of(self.arrived(&guest)?.unwrap_or_default())),
            (Some(Life::Moving), false) => self.not_yet(&guest)?,
            (_, true) => Plan::new(),
            (_, false) => return Ok(Outcome::default()),
        };
        Ok(Outcome { plan, awaited: Some(guest) })
    }

    /// A guest that was registered runs elsewhere still: only wired, as one on its way.
    fn not_yet(&mut self, guest: &Guest) -> Result<Plan, EngineError> {
        self.with_guest(guest, |engine, record| {
            let since = Some(boot_seconds());
            let incoming = GuestRecord { incoming_since: since, hook: None, ..record.clone() };
            let mut plan = engine.part(Goes::of(GuestRecord { incoming_since: since, ..record }, |_| true))?;
            let before = engine.register.guest(guest)?;
            let (record, more) = engine.change(&Change::new(before.as_ref(), incoming, Mode::Incoming, |_| true))?;
            engine.tell("it has not arrived: wired, not advertised before", &record);
            plan.extend(more);
            Ok(plan)
        })
    }

    /// A guest that was on its way runs here now: registers it. None where it was not on its way (any more).
    pub fn arrived(&mut self, guest: &Guest) -> Result<Option<Plan>, EngineError> {
        self.journal.object.clone_from(&guest.name);
        self.with_guest(guest, |engine, record| {
            if !record.is_incoming() {
                return Ok(None);
            }
            let arrived = GuestRecord { incoming_since: None, ..record.clone() };
            let (record, plan) = engine.change(&Change::new(Some(&record), arrived, Mode::Mend, |_| true))?;
            engine.tell("arrived and registered", &record);
            Ok(Some(plan))
        })
    }

    /// Registers again who is on this bridge: it was made anew, or moved, or lets its guests send something else.
    pub(super) fn guests_again(&mut self, bridge: &IfName) -> Plan {
        let mut done = Plan::new();
        let on_it = |e: &Endpoint| e.bridge == *bridge && e.stage == Stage::Registered;
        let security = self.register.network_of_bridge(bridge).ok().flatten().map(|n| n.network.security());
        for record in self.register.guests().into_iter().flatten().filter(|r| r.endpoints.iter().any(on_it)) {
            let again = self.with_guest(&record.guest, |engine, before| {
                let mut record = before.clone();
                for endpoint in record.endpoints.iter_mut().filter(|e| on_it(e)) {
                    endpoint.port_security = security.unwrap_or(endpoint.port_security);
                }
                Ok(engine.change(&Change::new(Some(&before), record, Mode::Mend, on_it))?.1)
            });
            match again {
                Ok(plan) => done.extend(plan),
                Err(error) => self.journal.say(&Message::Warning(&error)),
            }
        }
        done
    }

    /// Withdraws all of a guest and forgets it.
    pub(super) fn stopped(&mut self, guest: &Guest) -> Result<Plan, EngineError> {
        self.with_guest(guest, |engine, record| {
            let plan = engine.part(Goes::of(GuestRecord { incoming_since: None, ..record.clone() }, |_| true))?;
            engine.tell("withdrawn", &record);
            Ok(plan)
        })
    }

    /// Withdraws the endpoints that match; the guest may live on.
    pub(super) fn endpoint_gone(
        &mut self,
        guest: &Guest,
        gone: impl Fn(&Endpoint) -> bool,
    ) -> Result<Plan, EngineError> {
        self.with_guest(guest, |engine, record| engine.part(Goes::of(record, gone)))
    }

    /// Does this under the guest's lock, with its record as it is then. A guest without a record leaves no trace, not even a lock.
    pub(super) fn with_guest<T: Default>(
        &mut self,
        guest: &Guest,
        work: impl FnOnce(&mut Engine, GuestRecord) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        if self.register.guest(guest)?.is_none() {
            return Ok(T::default());
        }
        let _lock = self.register.lock_guest(guest)?;
        match self.register.guest(guest)? {
            Some(record) => work(self, record),
            // The lock was made for a record that is gone.
            None => {
                self.register.remove_guest(guest)?;
                Ok(T::default())
            }
        }
    }

    /// A NIC that was unplugged has lost its device by now. Where that is on its bridge still, libvirt has only given the NIC another port, as it does for a
    /// mere change of the link's state: before 10.8 it deletes the new one again, since then the old one (qemu_hotplug.c `qemuDomainChangeNet`).
    pub(super) fn port_deleted(&mut self, owner: &Guest) -> Result<Plan, EngineError> {
        self.journal.object.clone_from(&owner.name);
        let mut gone = Vec::new();
        for endpoint in self.register.guest(owner)?.into_iter().flat_map(|record| record.endpoints) {
            let kernel = self.kernel()?;
            let master = kernel.link(&endpoint.device)?.and_then(|device| device.master);
            if master.is_none() || master != kernel.link(&endpoint.bridge)?.map(|bridge| bridge.index) {
                gone.push(endpoint.device);
            }
        }
        if gone.is_empty() { Ok(Plan::new()) } else { self.endpoint_gone(owner, |e| gone.contains(&e.device)) }
    }

    /// Withdraws those endpoints that go, and forgets them. What is refused is remembered for the next `sync`. Call with the guest's lock held.
    pub(super) fn part(&mut self, goes: Goes) -> Result<Plan, EngineError> {
        let mut seen = Vec::new();
        for endpoint in goes.leaving() {
            self.name_devices_of(endpoint);
            let port = self.going(&Wanted::of("", endpoint))?;
            let mut gone = Gone { port, ..Gone::default() };
            if gone.asks_network() {
                // A record that cannot be read, of which others tell, holds no withdrawal up.
                let network = self.register.network_of_bridge(&endpoint.bridge);
                let is_secured = |record: &NetworkRecord| record.network.security() != PortSecurity::Off;
                gone.secured = network.map_or(true, |record| record.as_ref().is_some_and(is_secured));
            }
            seen.push(gone);
        }
        let Parting { plan, after, left } = goes.plan(&seen);
        if self.dry_run {
            return Ok(plan);
        }
        if !self.walk_on(&plan, None, None).1 {
            self.register.put_guest(&left)?;
            let who = &left.guest;
            let why = format!("{who}: not all could be withdrawn: 'evpn-hook sync' tries it again");
            return Err(EngineError::Partly(Refusal(why)));
        }
        match after {
            Some(record) => self.register.put_guest(&record)?,
            None => self.register.remove_guest(&left.guest)?,
        }
        Ok(plan)
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
pub fn attach(engine: &mut Engine, guest: Guest, nic: Nic) -> Result<(Endpoint, Plan), EngineError> {
    engine.journal.object.clone_from(&guest.name);
    // A device belongs to one guest: another's claim on it would withdraw this one's routes when that guest stops.
    if let Some((device, owner)) = nic.device.as_ref().and_then(|d| Some((d, engine.owner_of(d, &guest)?))) {
        return EngineError::refused(format!("{device}: it is {owner}'s already: 'evpn-hook detach {device}' first"));
    }
    match engine.add_endpoint(guest, nic)? {
        Some(attached) => Ok(attached),
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
    let want = Wanted::of(who, endpoint);
    let seen = Seen::of(world, &want);
    if endpoint.stage == Stage::Incoming { wire(&want, &seen) } else { register(&want, &seen) }
}

/// What `sync` would do for a registered endpoint, which takes a port back to its bridge; nothing is asked anew.
pub fn mends(world: &World, who: &str, endpoint: &Endpoint) -> Result<Plan, Refusal> {
    let want = Wanted { mend: true, ..Wanted::of(who, endpoint) };
    let seen = Seen::of(world, &want);
    if endpoint.stage == Stage::Incoming { wire(&want, &seen) } else { register(&want, &seen) }
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
