//! What should be against what is, for everything or for one object: what libvirt and LXC say runs, what the register says that we own, what
//! the kernel shows, and in the end what the speaker says.
//!
//! A look over all of it needs no lock and writes nothing; only where something is amiss is the object taken up by itself, with its lock and
//! a fresh look, by the same code that a hook runs. So hooks go on meanwhile, and a second sync finds nothing to do.
//!
//! - `networks`, `guests`: what is wanted and is not so is put right
//! - `leftovers`: what nobody wants goes
//! - `speaker`: what the kernel holds and the speaker missed is said again

mod guests;
mod leftovers;
mod networks;
mod speaker;

use super::host::look_at_underlay;
use super::look::{Clashes, around};
use super::{Engine, EngineError};
use crate::hypervisor;
use crate::journal::Message;
use crate::model::{Guest, GuestKind, NetName};
use crate::plan::Plan;
use crate::plan::seen::World;
use crate::register::{GuestRecord, NetworkRecord, RegisterError};
use guests::{Truth, hypervisors};
use std::collections::HashSet;
use std::time::Duration;

/// How old a record must be before libvirt's silence about its object counts: it writes its status files after our hooks have run (qemu_process.c
/// `qemuProcessLaunch`, bridge_driver.c `networkStartNetwork`), within a second or two.
const GRACE: Duration = Duration::from_secs(60);

/// What a sync did and what it could not mend.
#[derive(Debug, Default)]
pub struct Synced {
    /// How many steps were taken.
    pub steps: usize,
    /// What is still wrong, each a line with the object's name and the way out.
    pub problems: Vec<String>,
    /// Among them: config.toml could not be read. What it said before held, where anybody had read it.
    pub misconfigured: bool,
    /// Problems that leave no doubt of what is wanted: what is left over can be told from it all the same.
    clear: Vec<String>,
}

impl Synced {
    fn keep<T>(&mut self, result: Result<T, EngineError>) -> Option<T> {
        result.map_err(|error| self.tell(&error)).ok()
    }

    fn done(mut self, steps: usize) -> Synced {
        self.problems.append(&mut self.clear);
        self.steps = steps;
        self
    }

    /// Once: without config.toml many things fail alike.
    fn tell(&mut self, problem: &impl ToString) {
        let problem = problem.to_string();
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// The host at one time.
struct Look {
    world: World,
    guests: Vec<GuestRecord>,
    networks: Vec<NetworkRecord>,
}

impl Engine {
    /// Networks, then guests, then ghosts, then what the speaker says of them. With `dry_run` nothing is done, and the plan is kept.
    pub fn sync(&mut self) -> Result<Synced, EngineError> {
        let (mut out, before) = (Synced::default(), self.walked);
        self.configured(&mut out);
        let networks = self.readable(&mut out);
        // A state that cannot be written is a problem, and no reason to leave the kernel as it is.
        if !self.dry_run {
            let swept = self.register.sweep(&networks).map_err(EngineError::from);
            out.keep(swept);
        }
        // Where all is well one look is enough for all of it.
        let world = self.whole_world()?;
        if !self.dry_run {
            let noted = look_at_underlay(self, &world);
            out.keep(noted);
        }
        let synced = self.sync_networks(None, &networks, &world, &mut out);
        out.keep(synced);
        let world = if self.walked == before { world } else { self.whole_world()? };
        let look = self.look(world, &mut out);
        if !self.dry_run {
            // A lost register, or an older version's.
            for bridge in look.guests.iter().flat_map(|r| r.held()).map(|e| &e.bridge).collect::<HashSet<_>>() {
                let noted = self.register.mark_used(bridge).map_err(EngineError::from);
                out.keep(noted);
            }
        }
        let walked = self.walked;
        self.sync_guests(&look, &mut out)?;
        self.hold_ports(&look.world, look.networks.iter().map(|n| &n.network))?;
        let look = self.sync_leftovers(look, self.walked > walked, &mut out)?;
        let told = self.sync_speaker(look.filter(|_| self.walked == before), &mut out);
        out.keep(told);
        Ok(out.done(self.walked - before))
    }

    /// What a sync would do now, and what it could not mend; nothing is done, and the speaker is not asked what it advertises (`doctor`). Where it is known
    /// why that does not answer, that is what could not be mended.
    pub fn drift(&mut self, speaker_silent: Option<String>) -> Result<(Plan, Vec<String>), EngineError> {
        let before = std::mem::replace(&mut self.dry_run, true);
        let planned = std::mem::take(&mut self.planned);
        self.speaker_silent = speaker_silent;
        let result = self.would_sync();
        (self.dry_run, self.speaker_silent) = (before, None);
        let steps = std::mem::replace(&mut self.planned, planned);
        Ok((steps, result?.problems))
    }

    fn would_sync(&mut self) -> Result<Synced, EngineError> {
        let mut out = Synced::default();
        self.configured(&mut out);
        let networks = self.readable(&mut out);
        let world = self.whole_world()?;
        let synced = self.sync_networks(None, &networks, &world, &mut out);
        out.keep(synced);
        let look = self.look(world, &mut out);
        self.sync_guests(&look, &mut out)?;
        self.hold_ports(&look.world, look.networks.iter().map(|n| &n.network))?;
        self.sync_leftovers(look, false, &mut out)?;
        Ok(out.done(0))
    }

    /// A config.toml that is broken, or being written, is a problem, and changes nothing else.
    fn configured(&mut self, out: &mut Synced) {
        match self.config_that_holds() {
            Ok(None) => self.note_config(),
            Ok(Some(error)) => {
                out.misconfigured = true;
                out.clear.push(error.to_string());
            }
            Err(error) => {
                out.misconfigured |= matches!(error, EngineError::Config(_));
                out.tell(&error);
            }
        }
    }

    /// One network with its VRF and the speaker's part. One that is not up is left alone.
    pub fn sync_network(&mut self, name: &NetName) -> Result<Synced, EngineError> {
        let (mut out, before) = (Synced::default(), self.walked);
        let record = self.register.network(name).map_err(EngineError::from);
        let records: Vec<NetworkRecord> = out.keep(record).flatten().into_iter().collect();
        let world = match records.first() {
            Some(record) => around(self.kernel()?, &record.network, Clashes::Sought)?,
            None => self.kernel()?.world()?,
        };
        self.sync_networks(Some(name), &records, &world, &mut out)?;
        Ok(out.done(self.walked - before))
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
            GuestKind::Lxc | GuestKind::Proxmox => self.truth(guest, &hypervisors(&mut out)),
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
            Some(Err(error)) => return Ok(Synced { problems: vec![error.to_string()], ..Synced::default() }),
            None => {
                let of_name = |r: &GuestRecord| r.guest.kind == GuestKind::Libvirt && r.guest.name == name;
                self.register.guests().into_iter().flatten().find(of_name).map(|r| r.guest)
            }
        };
        guest.map_or(Ok(Synced::default()), |guest| self.sync_guest(&guest))
    }

    // ----- the register -----

    /// The networks' records. What cannot be read, of VRFs as well, is made anew from what runs.
    fn readable(&mut self, out: &mut Synced) -> Vec<NetworkRecord> {
        let mut networks = Vec::new();
        for record in self.register.networks() {
            match record {
                Ok(record) => networks.push(record),
                Err(error) => self.discard(&error, out),
            }
        }
        for error in self.register.vrfs().into_iter().filter_map(Result::err) {
            self.discard(&error, out);
        }
        networks
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

    pub(super) fn do_most(&mut self, plan: Plan) {
        if plan.is_empty() {
            return;
        }
        if self.dry_run {
            self.planned.extend(plan);
        } else {
            self.walk_on(&plan, None, None);
        }
    }
}
