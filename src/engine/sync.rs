//! What should be against what is, for everything or for one object: what libvirt and LXC say runs, what the register says that we own, what
//! the kernel shows, and in the end what the speaker says.
//!
//! A look over all of it needs no lock and writes nothing; only where something is amiss is the object taken up by itself, with its lock and
//! a fresh look, by the same code that a hook runs. So hooks go on meanwhile, and a second sync finds nothing to do.

use super::guest::{How, endpoints_on, is_announced, is_incoming, lacks, observe, wanted};
use super::lxc::namespace_of;
use super::network::{devices_of, devices_of_vrf};
use super::{Engine, EngineError};
use crate::config::{Network, Origin, Vrf};
use crate::event::Nic;
use crate::hypervisor;
use crate::input::libvirt_status::{Domain, Life};
use crate::journal::Message;
use crate::model::{Guest, GuestKind, IfName, NetName, Vni};
use crate::plan::guest::tell;
use crate::plan::seen::{LinkKind, Neigh, World};
use crate::plan::{Plan, Planned, Step};
use crate::register::{Endpoint, GuestRecord, NetworkRecord, RegisterError, Stage, VrfRecord};
use crate::speaker::{Added, Frr, SpeakerError};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

/// How old a record must be before libvirt's silence about its object counts: it writes its status files after our hooks have run (qemu_process.c
/// `qemuProcessLaunch`, bridge_driver.c `networkStartNetwork`), within a second or two.
const GRACE: Duration = Duration::from_secs(60);

/// What a healthy FRR needs at most to advertise what the kernel got just now; its own floor is 60 ms.
const ADVERTISED: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// What a sync did and what it could not mend.
#[derive(Debug, Default)]
pub struct Synced {
    /// How many steps were taken.
    pub steps: usize,
    /// What is still wrong, each a line with the object's name and the way out.
    pub problems: Vec<String>,
}

impl Synced {
    fn keep<T>(&mut self, result: Result<T, EngineError>) -> Option<T> {
        result.map_err(|error| self.problems.push(error.to_string())).ok()
    }
}

/// What its hypervisor says of a guest.
enum Truth {
    /// It does not run here.
    Gone,
    /// It runs, or is on its way, with these NICs.
    Runs(Vec<Nic>, Life),
    /// Nothing: what the register says holds, for those devices that are there.
    Unknown,
}

/// What the hypervisors say, asked once.
struct Hypervisors {
    domains: Option<BTreeMap<String, Domain>>,
    /// Domains by name whose file says something that we do not understand: they run, and nothing is known of how.
    unread: HashSet<String>,
    /// `None` where nothing can be told.
    containers: Option<hypervisor::lxc::Containers>,
}

/// The host at one time.
struct Look {
    world: World,
    guests: Vec<GuestRecord>,
    networks: Vec<NetworkRecord>,
}

/// What nobody wants any more.
struct Leftovers {
    ghosts: Plan,
    /// Devices that were attached by hand, of which the register was lost.
    lost: BTreeMap<IfName, Nic>,
    devices: Plan,
    vrfs: Vec<VrfRecord>,
}

impl Leftovers {
    fn is_empty(&self) -> bool {
        self.ghosts.is_empty() && self.lost.is_empty() && self.devices.is_empty() && self.vrfs.is_empty()
    }
}

impl Engine {
    /// Networks, then guests, then ghosts, then what the speaker says of them. With `dry_run` nothing is done, and the plan is kept.
    pub fn sync(&mut self) -> Result<Synced, EngineError> {
        let (mut out, before) = (Synced::default(), self.walked);
        self.discard_corrupt(&mut out);
        if !self.dry_run {
            self.register.sweep()?;
        }
        // Where all is well one look is enough for all of it.
        let world = self.kernel()?.whole_world()?;
        self.sync_networks(None, &world, &mut out)?;
        let world = if self.walked == before { world } else { self.kernel()?.whole_world()? };
        let look = self.look(world, &mut out);
        let walked = self.walked;
        self.sync_guests(&look, &mut out)?;
        self.sync_leftovers(look, self.walked > walked, &mut out)?;
        let steps = self.walked - before;
        self.sync_speaker(steps > 0, &mut out)?;
        out.steps = self.walked - before;
        Ok(out)
    }

    /// One network with its VRF and the speaker's part. One that is not up is left alone.
    pub fn sync_network(&mut self, name: &NetName) -> Result<Synced, EngineError> {
        let (mut out, before) = (Synced::default(), self.walked);
        let world = self.kernel()?.world()?;
        self.sync_networks(Some(name), &world, &mut out)?;
        out.steps = self.walked - before;
        Ok(out)
    }

    /// One guest: as its hypervisor says that it runs, registered or withdrawn. One that is on its way is left alone until it is here.
    pub fn sync_guest(&mut self, guest: &Guest) -> Result<Synced, EngineError> {
        let (mut out, before) = (Synced::default(), self.walked);
        let truth = match guest.kind {
            GuestKind::Libvirt => match hypervisor::libvirt::domain(&guest.name) {
                Some(Ok(domain)) if domain.guest.id == guest.id => Truth::Runs(domain.nics, domain.life),
                Some(Err(error)) => {
                    out.problems.push(error.to_string());
                    Truth::Unknown
                }
                // Renamed, or gone: the whole list knows.
                _ => self.truth(guest, &hypervisors(&mut out)),
            },
            GuestKind::Lxc => self.truth(guest, &hypervisors(&mut out)),
            GuestKind::Manual => Truth::Unknown,
        };
        let result = self.sync_one(guest, truth);
        out.keep(result);
        out.steps = self.walked - before;
        Ok(out)
    }

    /// The libvirt domain of this name, whose status file was written or removed.
    pub fn sync_domain(&mut self, name: &str) -> Result<Synced, EngineError> {
        let guest = match hypervisor::libvirt::domain(name) {
            Some(Ok(domain)) => Some(domain.guest),
            Some(Err(error)) => return Ok(Synced { steps: 0, problems: vec![error.to_string()] }),
            None => {
                let of_name = |r: &GuestRecord| r.guest.kind == GuestKind::Libvirt && r.guest.name == name;
                self.register.guests().into_iter().flatten().find(of_name).map(|r| r.guest)
            }
        };
        guest.map_or(Ok(Synced::default()), |guest| self.sync_guest(&guest))
    }

    // ----- the register -----

    /// What cannot be read is made anew from what runs.
    fn discard_corrupt(&mut self, out: &mut Synced) {
        let errors = self.register.networks().into_iter().filter_map(Result::err);
        for error in errors.chain(self.register.vrfs().into_iter().filter_map(Result::err)).collect::<Vec<_>>() {
            self.discard(&error, out);
        }
    }

    fn discard(&mut self, error: &RegisterError, out: &mut Synced) {
        match error {
            RegisterError::Corrupt { path, .. } if !self.dry_run => {
                self.journal.say(&Message::Warning(error));
                let removed = self.register.discard(path).map_err(EngineError::from);
                out.keep(removed);
            }
            _ => out.problems.push(error.to_string()),
        }
    }

    /// The records to what the kernel showed; they are read after it, for each entry there was claimed before it was made.
    fn look(&mut self, world: World, out: &mut Synced) -> Look {
        let mut guests = Vec::new();
        for record in self.register.guests() {
            match record {
                Ok(record) => guests.push(record),
                Err(error) => self.discard(&error, out),
            }
        }
        Look { world, guests, networks: self.register.networks().into_iter().flatten().collect() }
    }

    // ----- networks -----

    fn sync_networks(&mut self, only: Option<&NetName>, world: &World, out: &mut Synced) -> Result<(), EngineError> {
        let config = self.config()?.clone();
        let mut frr = self.frr()?;
        let wanted = |name: &NetName| only.is_none_or(|only| only == name);
        let records: Vec<NetworkRecord> = self.register.networks().into_iter().flatten().collect();
        // One that does not answer is asked once, and not for each network.
        let routed = records.iter().any(|r| r.network.vrf.as_ref().is_some_and(|v| v.vni.is_some()));
        if let Some(Err(error)) = frr.as_mut().filter(|_| routed).map(Frr::evpn) {
            out.problems.push(error.to_string());
            frr = None;
        }
        let listed = hypervisor::libvirt::networks(&config);
        for record in records.iter().filter(|r| wanted(&r.network.name)) {
            let network = &record.network;
            if self.is_gone(record, is_listed(listed.as_deref(), &network.name), world) {
                // The loop may have spent seconds with FRR since the look.
                let (now, listed) = (self.kernel()?.world()?, hypervisor::libvirt::networks(&config));
                if self.is_gone(record, is_listed(listed.as_deref(), &network.name), &now) {
                    let down = self.network_stopped(&network.name);
                    out.keep(down);
                }
                continue;
            }
            let told = listed.iter().flatten().find(|(name, _)| *name == network.name);
            if let Some((_, Ok(Some(told)))) = told
                && told.hosts != network.hosts
                && !self.dry_run
            {
                let updated = self.network_updated(told);
                out.keep(updated);
            }
            let lacks = self.network_lacks(world, record, frr.as_mut());
            if out.keep(lacks) == Some(true) {
                let up = self.network_again(network.clone());
                if out.keep(up).is_some() && !self.dry_run {
                    self.speaker_problem(network, frr.as_mut(), out);
                }
            }
        }
        let unknown = |name: &NetName| wanted(name) && !records.iter().any(|r| r.network.name == *name);
        for (name, network) in listed.into_iter().flatten().filter(|(name, _)| unknown(name)) {
            match network {
                Ok(Some(network)) => {
                    let up = self.network_up(network);
                    out.keep(up);
                }
                Ok(None) => {}
                Err(error) => out.problems.push(format!("network {name}: {error}")),
            }
        }
        // One of config.toml's that was taken down stays down; one whose bridge carries our mark was up when the register was lost.
        for network in config.networks.iter().filter(|n| unknown(&n.name)) {
            if world.link(&network.bridge).is_some_and(|l| l.ours) {
                let up = self.network_up(network.clone());
                out.keep(up);
            }
        }
        Ok(())
    }

    /// A silent speaker stops no network; here it is a problem all the same.
    fn speaker_problem(&mut self, network: &Network, frr: Option<&mut Frr>, out: &mut Synced) {
        let managed = self.config().is_ok_and(|c| c.speaker.manage_vrfs);
        let (Some(frr), Some(vrf), true) = (frr, &network.vrf, managed) else { return };
        match frr.missing(vrf) {
            Ok(missing) if missing.is_empty() => {}
            Ok(_) => out.problems.push(format!("network {}: FRR did not take VRF {}", network.name, vrf.name)),
            Err(error) => out.problems.push(format!("network {}: {error}", network.name)),
        }
    }

    /// Is this network of libvirt's down, though no hook told us? `listed` is whether libvirt says that it is up; `None` where it says nothing.
    fn is_gone(&self, record: &NetworkRecord, listed: Option<bool>, world: &World) -> bool {
        let network = &record.network;
        let old = self.register.network_age(network).is_some_and(|age| age > GRACE);
        match network.origin {
            Origin::Config => false,
            Origin::Libvirt => listed == Some(false) && (old || world.link(&network.bridge).is_none()),
            Origin::LibvirtBridge => listed == Some(false) && old,
        }
    }

    // ----- guests -----

    fn sync_guests(&mut self, look: &Look, out: &mut Synced) -> Result<(), EngineError> {
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
        for (name, running) in containers.filter(|(_, running)| running.roots) {
            let lxcpath = &running.lxcpath;
            let known = records.iter().any(|r| r.guest.kind == GuestKind::Lxc && r.guest.id == *name);
            if !known && self.has_tenants() && hypervisor::lxc::has_our_hooks(lxcpath, name) {
                let done = self.sync_container(name, lxcpath);
                out.keep(done);
            }
        }
        Ok(())
    }

    /// Is there a network of ours that an unknown container could be on?
    fn has_tenants(&self) -> bool {
        !self.register.networks().is_empty()
    }

    fn sync_container(&mut self, name: &str, lxcpath: &str) -> Result<(), EngineError> {
        let Some(pid) = hypervisor::lxc::pid(lxcpath, name) else { return Ok(()) };
        let Ok(guest) = Guest::new(GuestKind::Lxc, name, name) else { return Ok(()) };
        let nics = self.container_nics(&namespace_of(pid)?)?;
        self.sync_one(&guest, Truth::Runs(nics, Life::Here))
    }

    fn truth(&mut self, guest: &Guest, hypervisors: &Hypervisors) -> Truth {
        let world = self.kernel().and_then(|kernel| Ok(kernel.world()?)).unwrap_or_default();
        let record = self.register.guest(guest).ok().flatten();
        let record = record.unwrap_or(GuestRecord::new(guest.clone()));
        self.truth_in(&record, &world, hypervisors)
    }

    fn truth_in(&mut self, record: &GuestRecord, world: &World, hypervisors: &Hypervisors) -> Truth {
        let guest = &record.guest;
        let there = |e: &Endpoint| world.link(&e.device).is_some();
        match guest.kind {
            GuestKind::Manual => Truth::Unknown,
            GuestKind::Libvirt => match &hypervisors.domains {
                None => Truth::Unknown,
                Some(_) if hypervisors.unread.contains(&guest.name) => Truth::Unknown,
                Some(domains) => match domains.get(&guest.id) {
                    Some(domain) => Truth::Runs(domain.nics.clone(), domain.life),
                    // Its hooks write the record before libvirt writes its file.
                    None if self.register.guest_age(guest).is_some_and(|age| age < GRACE)
                        && (record.incoming_since.is_some() || record.endpoints.iter().any(there)) =>
                    {
                        Truth::Unknown
                    }
                    None => Truth::Gone,
                },
            },
            GuestKind::Lxc => match hypervisors.containers.as_ref().map(|c| (c.nameless, c.by_id.get(&guest.id))) {
                None => Truth::Unknown,
                Some((true, None)) if record.endpoints.iter().any(there) => Truth::Unknown,
                Some((_, None)) => Truth::Gone,
                Some((_, Some(running))) if !running.roots || record.endpoints.iter().all(there) => Truth::Unknown,
                // It was started anew without us.
                Some((_, Some(running))) => {
                    let pid = hypervisor::lxc::pid(&running.lxcpath, &guest.name);
                    let nics = pid.and_then(|pid| self.container_nics(&namespace_of(pid).ok()?).ok());
                    nics.map_or(Truth::Unknown, |nics| Truth::Runs(nics, Life::Here))
                }
            },
        }
    }

    /// One guest by itself, under its lock: registered as it runs, or withdrawn.
    fn sync_one(&mut self, guest: &Guest, truth: Truth) -> Result<(), EngineError> {
        self.journal.object.clone_from(&guest.name);
        // A guest on none of our networks leaves no trace, not even a lock.
        let fresh = match &truth {
            Truth::Runs(nics, Life::Here | Life::Moving) => self.endpoints(guest, nics.clone())?,
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
        // On a network that is down just now: it is the guest's all the same, and registered when the network is back.
        let mut waiting = Vec::new();
        if let Truth::Runs(nics, Life::Here) = &truth {
            let its = |e: &Endpoint| {
                let is_it =
                    |n: &Nic| n.device.as_ref() == Some(&e.device) && n.bridge.as_ref().is_none_or(|b| *b == e.bridge);
                nics.iter().any(is_it) && !fresh.iter().any(|f| f.device == e.device)
            };
            for endpoint in old().filter(|e| its(e)) {
                if self.register.network_of_bridge(&endpoint.bridge)?.is_none() {
                    waiting.push(endpoint.clone());
                }
            }
        }
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
                // What only the start, a hot-plug or the fabric told us nobody repeats.
                if endpoint.ips.is_empty() && (old.mac, &old.network) == (endpoint.mac, &endpoint.network) {
                    endpoint.ips.clone_from(&old.ips);
                }
            }
        }
        let mut there = Vec::new();
        for endpoint in endpoints {
            if self.kernel()?.link(&endpoint.device)?.is_some() {
                there.push(endpoint);
            }
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
        if self.walked > walked {
            self.tell("mended", &record);
        }
        Ok(())
    }

    /// Is it still so, now that no hook of this guest runs beside us?
    fn still(&self, guest: &Guest, truth: &Truth) -> bool {
        match (guest.kind, truth) {
            (_, Truth::Unknown) | (GuestKind::Manual, _) => true,
            (GuestKind::Libvirt, truth) => match (truth, hypervisor::libvirt::domain(&guest.name)) {
                (Truth::Runs(_, Life::Ended), Some(Ok(now))) => now.life == Life::Ended,
                (Truth::Runs(..), now) => now.is_some(),
                (_, now) => now.is_none(),
            },
            (GuestKind::Lxc, truth) => match (truth, hypervisor::lxc::running()) {
                (_, None) => false,
                (Truth::Gone, Some(now)) => !now.by_id.contains_key(&guest.id),
                (_, Some(now)) => now.by_id.contains_key(&guest.id),
            },
        }
    }

    // ----- what nobody wants any more -----

    /// Our neighbours without a guest, VRFs of ours without a network, devices with our mark that no record knows.
    fn sync_leftovers(&mut self, mut look: Look, stale: bool, out: &mut Synced) -> Result<(), EngineError> {
        let mut left = self.leftovers(&look, out)?;
        if left.is_empty() && !stale {
            return Ok(());
        }
        // What has come or gone since then is no leftover.
        let world = self.kernel()?.whole_world()?;
        look = self.look(world, out);
        left = self.leftovers(&look, out)?;
        self.do_most(left.ghosts);
        for (device, nic) in left.lost {
            let Ok(guest) = super::by_hand(device.as_str()) else { continue };
            let added = self.add_endpoint(guest, nic);
            out.keep(added);
        }
        self.do_most(left.devices);
        for record in left.vrfs {
            let _lock = if self.dry_run { None } else { Some(self.register.lock_vrf(&record.vrf.name)?) };
            let in_it = |n: &NetworkRecord| n.network.vrf.as_ref().is_some_and(|v| v.name == record.vrf.name);
            if self.register.networks().iter().flatten().any(in_it) {
                continue; // one has started meanwhile
            }
            let down = self.vrf_down(&look.world, &record);
            out.keep(down);
        }
        Ok(())
    }

    fn leftovers(&mut self, look: &Look, out: &Synced) -> Result<Leftovers, EngineError> {
        let troubled = !out.problems.is_empty();
        let (ghosts, found) = ghosts(look, troubled);
        let Look { world, networks, .. } = look;
        // What could not be read or made anew is wanted all the same.
        if troubled {
            return Ok(Leftovers { ghosts, lost: found, devices: Plan::new(), vrfs: Vec::new() });
        }
        let used = |name: &IfName| networks.iter().any(|n| n.network.vrf.as_ref().is_some_and(|v| v.name == *name));
        let mut vrfs: Vec<VrfRecord> =
            self.register.vrfs().into_iter().flatten().filter(|r| !used(&r.vrf.name)).collect();
        for link in world.links().filter(|l| l.ours && !used(&l.name)) {
            if let LinkKind::Vrf { table } = link.kind
                && !vrfs.iter().any(|r| r.vrf.name == link.name)
            {
                let vrf = Vrf { name: link.name.clone(), table, vni: l3vni(world, &link.name) };
                let managed = self.config()?.speaker.manage_vrfs;
                let frr = self.frr()?.filter(|_| managed);
                let speaker = frr.map(|mut frr| Added::whole(&vrf, frr.router_id().ok().flatten()));
                let made = devices_of_vrf(&vrf).into_iter().filter(|dev| world.link(dev).is_some_and(|l| l.ours));
                vrfs.push(VrfRecord { made: made.collect(), speaker, vrf });
            }
        }
        let wanted: HashSet<IfName> = networks.iter().flat_map(|n| devices_of(&n.network)).collect();
        let of_vrfs = networks.iter().filter_map(|n| n.network.vrf.as_ref()).chain(vrfs.iter().map(|r| &r.vrf));
        let of_vrfs: HashSet<IfName> = of_vrfs.flat_map(devices_of_vrf).collect();
        let mut lost: Vec<_> =
            world.links().filter(|l| l.ours && !wanted.contains(&l.name) && !of_vrfs.contains(&l.name)).collect();
        // Tunnels before bridges; a bridge that carries somebody's ports stays with them.
        lost.sort_by_key(|l| (!matches!(l.kind, LinkKind::Vxlan { .. }), l.name.clone()));
        let ports = |index: u32| world.slaves(index).any(|port| !port.ours);
        lost.retain(|l| !ports(l.index));
        let del = |name: &IfName| Planned { step: Step::DelLink { name: name.clone() }, undo: Vec::new() };
        let devices = lost.into_iter().map(|l| del(&l.name)).collect();
        Ok(Leftovers { ghosts, lost: found, devices, vrfs })
    }

    fn do_most(&mut self, plan: Plan) {
        if self.dry_run {
            self.planned.extend(plan);
        } else {
            self.walk_on(&plan, None, None);
        }
    }

    // ----- the speaker -----

    /// Asks the speaker whether it advertises these guests, and tells the kernel's entries again where it does not though they are right
    /// (FRR versions that drop events). Returns those that were not advertised, with why; none where the speaker is silent or missing.
    pub fn verify(&mut self, guests: &[Guest]) -> Result<Vec<(Guest, String)>, EngineError> {
        let mut records = Vec::new();
        for guest in guests {
            records.extend(self.register.guest(guest)?);
        }
        let Some(mut frr) = self.frr()? else { return Ok(Vec::new()) };
        let Ok(missed) = self.missed(&mut frr, &records) else { return Ok(Vec::new()) };
        for (guest, endpoint, _) in &missed {
            self.tell_again(guest, endpoint)?;
        }
        Ok(missed.into_iter().map(|(guest, _, why)| (guest, why)).collect())
    }

    /// All guests; what was changed just now gets its time.
    fn sync_speaker(&mut self, changed: bool, out: &mut Synced) -> Result<(), EngineError> {
        let Some(mut frr) = self.frr()? else { return Ok(()) };
        let records: Vec<GuestRecord> = self.register.guests().into_iter().flatten().collect();
        if records.is_empty() || self.register.networks().is_empty() {
            return Ok(());
        }
        let mut missed = self.missed_after(&mut frr, &records, changed);
        if let Ok(missed) = &mut missed
            && !missed.is_empty()
        {
            for (guest, endpoint, _) in missed.iter() {
                self.tell_again(guest, endpoint)?;
            }
            if !self.dry_run {
                *missed = self.missed_after(&mut frr, &records, true).unwrap_or_default();
            }
        }
        match missed {
            Ok(missed) => {
                out.problems.extend(missed.iter().map(|(guest, e, why)| format!("{guest}: {}: {why}", e.device)))
            }
            Err(error) => out.problems.push(error.to_string()),
        }
        Ok(())
    }

    fn missed_after(
        &mut self,
        frr: &mut Frr,
        records: &[GuestRecord],
        wait: bool,
    ) -> Result<Vec<Missed>, SpeakerError> {
        let until = Instant::now() + if wait { ADVERTISED } else { Duration::ZERO };
        loop {
            let missed = self.missed(frr, records)?;
            if missed.is_empty() || Instant::now() >= until || self.dry_run {
                return Ok(missed);
            }
            std::thread::sleep(POLL);
        }
    }

    /// The registered endpoints that the speaker does not advertise: one dump a network, not questions an endpoint.
    fn missed(&mut self, frr: &mut Frr, records: &[GuestRecord]) -> Result<Vec<Missed>, SpeakerError> {
        let registered = |e: &&Endpoint| e.stage == Stage::Registered;
        let mut dumps = BTreeMap::new();
        let mut missed = Vec::new();
        for record in records {
            for endpoint in record.endpoints.iter().filter(registered) {
                let Some(mac) = endpoint.mac else { continue };
                let dump = match dumps.get(&endpoint.bridge) {
                    Some(dump) => dump,
                    None => {
                        let Ok(Some(network)) = self.register.network_of_bridge(&endpoint.bridge) else { continue };
                        dumps.entry(endpoint.bridge.clone()).or_insert(frr.dump(network.network.vni)?)
                    }
                };
                if let Some(why) = dump.advertised(mac, &endpoint.ips).problem() {
                    missed.push((record.guest.clone(), endpoint.clone(), why));
                }
            }
        }
        Ok(missed)
    }

    fn tell_again(&mut self, guest: &Guest, endpoint: &Endpoint) -> Result<(), EngineError> {
        let who = guest.to_string();
        let want = wanted(&who, endpoint);
        let seen = observe(self.kernel()?, &want)?;
        self.journal.object.clone_from(&guest.name);
        self.do_most(tell(&want, &seen));
        Ok(())
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
        _ if !record.leaving.is_empty() => return false,
        Truth::Gone | Truth::Runs(_, Life::Ended) => return false,
        Truth::Runs(_, Life::Moving) if !is_incoming(record) => return true,
        Truth::Runs(_, life) if is_incoming(record) != (*life == Life::Moving) => return false,
        Truth::Unknown => return record.endpoints.iter().all(whole),
        Truth::Runs(nics, _) => nics,
    };
    let same = |new: &Endpoint, old: &Endpoint| {
        let ips = new.ips.is_empty() || new.ips == old.ips;
        ips && (&new.device, &new.bridge, &new.network, new.mac) == (&old.device, &old.bridge, &old.network, old.mac)
    };
    let find = |nic: &Nic| match (&nic.bridge, &nic.network) {
        (Some(bridge), _) => networks.get(bridge).copied().cloned(),
        (None, Some(name)) => networks.values().find(|n| n.network.name == *name).copied().cloned(),
        (None, None) => None,
    };
    let Ok(endpoints) = endpoints_on(&record.guest, nics.clone(), |nic| Ok(find(nic))) else { return false };
    endpoints.len() == record.endpoints.len()
        && endpoints.iter().all(|new| record.endpoints.iter().any(|old| same(new, old)))
        && record.endpoints.iter().all(whole)
}

/// Our neighbours that no record claims: their guest has gone, or the register was lost and they are a device's that was attached by hand,
/// of which nobody else knows. That one is to be recorded again from what the kernel holds of it.
fn ghosts(look: &Look, troubled: bool) -> (Plan, BTreeMap<IfName, Nic>) {
    let world = &look.world;
    let mut ghosts: Vec<(u32, &Neigh)> = world.neighs().filter(|(_, n)| n.ours && !n.ext_learned).collect();
    ghosts.sort_by_key(|(index, n)| (*index, n.ip));
    let (mut claimed, mut devices) = (HashSet::new(), HashSet::new());
    for endpoint in look.guests.iter().flat_map(|record| &record.endpoints) {
        claimed.extend(endpoint.ips.iter().map(|ip| (&endpoint.bridge, *ip)));
        devices.insert(&endpoint.device);
    }
    let mut lost = BTreeMap::<IfName, Nic>::new();
    let mut plan = Plan::new();
    for (index, neigh) in ghosts {
        let Some(bridge) = world.by_index(index).map(|l| &l.name) else { continue };
        if claimed.contains(&(bridge, neigh.ip)) {
            continue;
        }
        let fdb = neigh.mac.and_then(|mac| world.fdb(index, mac)).filter(|fdb| fdb.is_static);
        let port = fdb.and_then(|fdb| world.by_index(fdb.port)).filter(|port| port.index != index && !port.ours);
        match port.filter(|port| !devices.contains(&port.name)) {
            Some(port) if look.networks.iter().any(|n| n.network.bridge == *bridge) => {
                let nic = lost.entry(port.name.clone()).or_insert_with(|| Nic {
                    device: Some(port.name.clone()),
                    bridge: Some(bridge.clone()),
                    mac: neigh.mac,
                    ..Nic::default()
                });
                nic.ips.push(neigh.ip);
            }
            // Its network is to come up and could not: whose it is can be told the next time.
            Some(_) if troubled => {}
            _ => {
                let step = Step::DelNeigh { bridge: bridge.clone(), ip: neigh.ip };
                plan.push(Planned { step, undo: Vec::new() });
            }
        }
    }
    (plan, lost)
}

type Missed = (Guest, Endpoint, String);

/// Does libvirt say that this network is up? `None` where it says nothing.
fn is_listed(listed: Option<&[hypervisor::libvirt::Listed]>, name: &NetName) -> Option<bool> {
    listed.map(|listed| listed.iter().any(|(other, _)| other == name))
}

fn hypervisors(out: &mut Synced) -> Hypervisors {
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

/// The L3VNI of a VRF, by the tunnel that is on its bridge.
fn l3vni(world: &World, vrf: &IfName) -> Option<Vni> {
    let bridge = world.link(&vrf.l3_bridge().ok()?)?;
    world.slaves(bridge.index).find_map(|link| match link.kind {
        LinkKind::Vxlan { vni, .. } => vni,
        _ => None,
    })
}
