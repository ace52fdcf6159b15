//! Guests: as their hypervisors say that they run.

use super::{GRACE, Look, Synced};
use crate::engine::guest::{How, endpoints_on, is_announced, is_incoming, lacks};
use crate::engine::lxc::namespace_of;
use crate::engine::{Engine, EngineError, boot_micros};
use crate::event::Nic;
use crate::hypervisor;
use crate::hypervisor::lxc::{Containers, Running};
use crate::input::libvirt_status::{Domain, Life};
use crate::journal::Message;
use crate::model::{Guest, GuestKind, IfName};
use crate::plan::seen::World;
use crate::register::{Endpoint, GuestRecord, NetworkRecord, Stage};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// What its hypervisor says of a guest.
pub(super) enum Truth {
    /// It does not run here.
    Gone,
    /// It runs, or is on its way, with these NICs.
    Runs(Vec<Nic>, Life),
    /// Nothing: what the register says holds, for those devices that are there.
    Unknown,
}

/// What the hypervisors say, asked once.
pub(super) struct Hypervisors {
    domains: Option<BTreeMap<String, Domain>>,
    /// Domains by name whose file says something that we do not understand: they run, and nothing is known of how.
    unread: HashSet<String>,
    /// `None` where nothing can be told.
    containers: Option<Containers>,
}

impl Engine {
    pub(super) fn sync_guests(&mut self, look: &Look, out: &mut Synced) -> Result<(), EngineError> {
        let hypervisors = hypervisors(out);
        let Look { world, guests: records, networks } = look;
        let by_bridge: HashMap<&IfName, &NetworkRecord> = networks.iter().map(|n| (&n.network.bridge, n)).collect();
        for record in records {
            let truth = self.truth_in(record, world, &hypervisors);
            if !is_settled(record, &truth, world, &by_bridge) {
                let done = self.sync_one(&record.guest, truth);
                out.keep(done);
            }
        }
        let known: HashSet<(GuestKind, &str)> = records.iter().map(|r| (r.guest.kind, r.guest.id.as_str())).collect();
        for domain in hypervisors.domains.into_iter().flatten().map(|(_, domain)| domain) {
            if !known.contains(&(GuestKind::Libvirt, domain.guest.id.as_str())) {
                let done = self.sync_one(&domain.guest, Truth::Runs(domain.nics, domain.life));
                out.keep(done);
            }
        }
        // A user's joins through the door alone: what it may is not asked here.
        let containers = hypervisors.containers.iter().flat_map(|c| &c.by_id);
        let lxc = records.iter().map(|r| &r.guest).filter(|guest| guest.kind == GuestKind::Lxc);
        let is_known = |id: &str| known.contains(&(GuestKind::Lxc, id));
        let recorded = lxc.filter_map(|guest| hypervisors.containers.as_ref()?.find(guest, is_known));
        let recorded: HashSet<&str> = recorded.map(|(id, _)| id).collect();
        for (id, Running { name, lxcpath, .. }) in containers.filter(|(_, running)| running.roots) {
            if !recorded.contains(id.as_str()) && !networks.is_empty() && hypervisor::lxc::has_our_hooks(lxcpath, name)
            {
                let done = self.sync_container(name, id, lxcpath);
                out.keep(done);
            }
        }
        Ok(())
    }

    fn sync_container(&mut self, name: &str, id: &str, lxcpath: &str) -> Result<(), EngineError> {
        let Some(pid) = hypervisor::lxc::pid(lxcpath, name) else { return Ok(()) };
        let Ok(guest) = Guest::new(GuestKind::Lxc, name, id) else { return Ok(()) };
        let (nics, _) = self.container_nics(&namespace_of(pid)?)?;
        self.sync_one(&guest, Truth::Runs(nics, Life::Here))
    }

    pub(super) fn truth(&mut self, guest: &Guest, hypervisors: &Hypervisors) -> Truth {
        let record = self.register.guest(guest).ok().flatten();
        let record = record.unwrap_or(GuestRecord::new(guest.clone()));
        let mut there = Vec::new();
        for endpoint in &record.endpoints {
            let link = self.kernel().and_then(|kernel| Ok(kernel.link(&endpoint.device)?));
            there.extend(link.ok().flatten());
        }
        self.truth_in(&record, &World::new(there, Vec::new()), hypervisors)
    }

    fn truth_in(&mut self, record: &GuestRecord, world: &World, hypervisors: &Hypervisors) -> Truth {
        let guest = &record.guest;
        let there = |e: &Endpoint| world.link(&e.device).is_some();
        match guest.kind {
            GuestKind::Manual => Truth::Unknown,
            // One that leaves for another host keeps its taps for a while after it runs there.
            GuestKind::Proxmox if record.endpoints.iter().any(|e| there(e) && e.stage != Stage::Incoming) => {
                let leaves = hypervisor::proxmox::leaves(&guest.id);
                if leaves { Truth::Runs(Vec::new(), Life::Moving) } else { Truth::Unknown }
            }
            GuestKind::Proxmox => Truth::Unknown,
            GuestKind::Libvirt => match &hypervisors.domains {
                None => Truth::Unknown,
                Some(_) if hypervisors.unread.contains(&guest.name) => Truth::Unknown,
                Some(domains) => match domains.get(&guest.id) {
                    Some(domain) => Truth::Runs(domain.nics.clone(), domain.life),
                    // Its hooks write the record before libvirt writes its file.
                    None if self.is_young(record)
                        && (record.incoming_since.is_some() || record.endpoints.iter().any(there)) =>
                    {
                        Truth::Unknown
                    }
                    None => Truth::Gone,
                },
            },
            GuestKind::Lxc => match hypervisors.containers.as_ref().map(|c| (c.nameless, self.container(c, guest))) {
                None => Truth::Unknown,
                Some((true, None)) if record.endpoints.iter().any(there) => Truth::Unknown,
                Some((_, None)) => Truth::Gone,
                Some((_, Some(running))) if !running.roots || record.endpoints.iter().all(there) => Truth::Unknown,
                // It was started anew without us.
                Some((_, Some(running))) => {
                    let pid = hypervisor::lxc::pid(&running.lxcpath, &running.name);
                    let nics =
                        pid.and_then(|pid| self.container_nics(&namespace_of(pid).ok()?).ok()).map(|(nics, _)| nics);
                    nics.map_or(Truth::Unknown, |nics| Truth::Runs(nics, Life::Here))
                }
            },
        }
    }

    fn container<'a>(&self, containers: &'a Containers, guest: &Guest) -> Option<&'a Running> {
        let is_known = |id: &str| {
            let other = Guest { id: id.to_owned(), ..guest.clone() };
            !matches!(self.register.guest(&other), Ok(None))
        };
        containers.find(guest, is_known).map(|(_, running)| running)
    }

    /// Was its record written just now? By the clock that nobody sets, where a hook has noted it.
    fn is_young(&self, record: &GuestRecord) -> bool {
        let by_hook = record.hook.as_ref().map(|hook| Duration::from_micros(boot_micros().saturating_sub(hook.began)));
        by_hook.or_else(|| self.register.guest_age(&record.guest)).is_some_and(|age| age < GRACE)
    }

    /// One guest by itself, under its lock: registered as it runs, or withdrawn.
    pub(super) fn sync_one(&mut self, guest: &Guest, truth: Truth) -> Result<(), EngineError> {
        self.journal.object.clone_from(&guest.name);
        // What it has goes with it; where it never came, it is not to be registered for a moment.
        if matches!(truth, Truth::Runs(_, Life::Ending)) {
            return Ok(());
        }
        // A guest on none of our networks leaves no trace, not even a lock.
        let fresh = match &truth {
            Truth::Runs(nics, Life::Here | Life::Moving) => {
                let nics = self.allowed(guest, nics.clone())?;
                self.endpoints_of_running(guest, nics)?
            }
            _ => Vec::new(),
        };
        if fresh.is_empty() && self.register.guest(guest)?.is_none() {
            return Ok(());
        }
        let _lock = if self.dry_run { None } else { Some(self.register.lock_guest(guest)?) };
        let before = self.register.guest(guest)?;
        if !self.still(guest, &truth) {
            // It stopped or started meanwhile, and its hook has done what is to do.
            if before.is_none() && !self.dry_run {
                self.register.remove_guest(guest)?;
            }
            return Ok(());
        }
        if before.as_ref().is_some_and(is_announced) && !matches!(truth, Truth::Runs(_, Life::Here)) {
            return Ok(());
        }
        let incoming = before.as_ref().is_some_and(is_incoming);
        let old = || before.iter().flat_map(|b| &b.endpoints);
        let waiting = match (&truth, &before) {
            (Truth::Runs(nics, Life::Here), Some(before)) => self.waiting(before, nics, &fresh)?,
            _ => Vec::new(),
        };
        let (mut endpoints, how) = match truth {
            Truth::Gone | Truth::Runs(_, Life::Ended) => (Vec::new(), How::Mend),
            // It leaves for another host, or has arrived there: whose its routes are is settled between the two.
            Truth::Runs(_, Life::Moving) if before.is_some() && !incoming => return Ok(()),
            Truth::Runs(_, Life::Moving) => (fresh, How::Incoming),
            Truth::Runs(..) => (fresh, How::Mend),
            Truth::Unknown if incoming => (old().cloned().collect(), How::Incoming),
            Truth::Unknown => (old().cloned().collect(), How::Mend),
        };
        for endpoint in &mut endpoints {
            if let Some(old) = old().find(|o| o.device == endpoint.device) {
                endpoint.enslaved |= old.enslaved;
                endpoint.remember(old);
            }
        }
        let mut there = Vec::new();
        for endpoint in endpoints {
            let Some(device) = self.kernel()?.link(&endpoint.device)? else { continue };
            // Proxmox moves a tap without a word.
            if guest.kind == GuestKind::Proxmox
                && device.master.is_some()
                && device.master != self.kernel()?.link(&endpoint.bridge)?.map(|bridge| bridge.index)
            {
                continue;
            }
            there.push(endpoint);
        }
        if there.is_empty() && !waiting.is_empty() {
            return Ok(());
        }
        if there.is_empty() {
            match before {
                Some(_) if how == How::Incoming => return Ok(()),
                Some(before) => self.part(GuestRecord { incoming_since: None, ..before }, |_| true)?,
                None if self.dry_run => {}
                None => self.register.remove_guest(guest)?,
            }
            if !self.dry_run {
                self.journal.say(&Message::Done {
                    what: "withdrawn, it does not run here",
                    object: &guest.name,
                    detail: "",
                });
            }
            return Ok(());
        }
        let incoming_since = before.as_ref().and_then(|b| b.incoming_since).filter(|_| how == How::Incoming);
        let waits: HashSet<IfName> = waiting.iter().map(|e| e.device.clone()).collect();
        there.extend(waiting);
        let record = GuestRecord { incoming_since, endpoints: there, ..GuestRecord::new(guest.clone()) };
        let walked = self.walked;
        let record = self.change(before, record, how, |e| !waits.contains(&e.device))?;
        // All that it has is another guest's.
        if record.endpoints.is_empty() && !self.dry_run {
            return self.part(record, |_| true);
        }
        if self.walked > walked {
            self.tell("mended", &record);
        }
        Ok(())
    }

    /// Is it still so, now that no hook of this guest runs beside us?
    fn still(&self, guest: &Guest, truth: &Truth) -> bool {
        match (guest.kind, truth) {
            (_, Truth::Unknown) | (GuestKind::Manual | GuestKind::Proxmox, _) => true,
            (GuestKind::Libvirt, Truth::Runs(_, Life::Ended)) => {
                hypervisor::libvirt::life(&guest.name) == Some(Life::Ended)
            }
            (GuestKind::Libvirt, truth) => hypervisor::libvirt::runs(&guest.name) == matches!(truth, Truth::Runs(..)),
            (GuestKind::Lxc, truth) => match (truth, hypervisor::lxc::running()) {
                (_, None) => false,
                (Truth::Gone, Some(now)) => self.container(&now, guest).is_none(),
                (_, Some(now)) => self.container(&now, guest).is_some(),
            },
        }
    }
}

/// Is this guest as it should be? Nothing is asked, locked or written.
fn is_settled(record: &GuestRecord, truth: &Truth, world: &World, networks: &HashMap<&IfName, &NetworkRecord>) -> bool {
    let who = record.guest.to_string();
    let whole = |e: &Endpoint| {
        world.link(&e.device).is_some()
            && (e.stage != Stage::Pending || e.mac.is_none())
            && lacks(world, &who, e).is_ok_and(|plan| plan.is_empty())
    };
    let nics = match truth {
        Truth::Runs(_, Life::Here) if is_announced(record) => return false,
        _ if is_announced(record) => return true,
        Truth::Runs(_, Life::Ending) => return true,
        _ if !record.leaving.is_empty() => return false,
        Truth::Gone | Truth::Runs(_, Life::Ended) => return false,
        Truth::Runs(_, Life::Moving) if !is_incoming(record) => return true,
        Truth::Runs(_, life) if is_incoming(record) != (*life == Life::Moving) => return false,
        Truth::Unknown => return record.endpoints.iter().all(whole),
        Truth::Runs(nics, _) => nics,
    };
    let same = |new: &Endpoint, old: &Endpoint| {
        let mut now = new.clone();
        now.remember(old);
        now.addresses() == old.addresses()
            && (&new.device, &new.bridge, &new.network, new.mac) == (&old.device, &old.bridge, &old.network, old.mac)
            && new.port_security == old.port_security
    };
    let find = |nic: &Nic| match (&nic.bridge, &nic.network) {
        (Some(bridge), _) => networks.get(bridge).copied(),
        (None, Some(name)) => networks.values().find(|n| n.network.name == *name).copied(),
        (None, None) => None,
    };
    let endpoints = endpoints_on(&record.guest, nics.clone(), |nic| Ok(find(nic)), &mut |_| Ok(()));
    let Ok(endpoints) = endpoints else { return false };
    endpoints.len() == record.endpoints.len()
        && endpoints.iter().all(|new| record.endpoints.iter().any(|old| same(new, old)))
        && record.endpoints.iter().all(whole)
}

pub(super) fn hypervisors(out: &mut Synced) -> Hypervisors {
    let mut unread = HashSet::new();
    let domains = hypervisor::libvirt::domains().map(|found| {
        let mut domains = BTreeMap::new();
        for (name, domain) in found {
            match domain {
                Ok(domain) => drop(domains.insert(domain.guest.id.clone(), domain)),
                Err(error) => {
                    out.problems.push(error.to_string());
                    unread.insert(name);
                }
            }
        }
        domains
    });
    Hypervisors { domains, unread, containers: hypervisor::lxc::running() }
}
