//! A migration's guest: neither libvirt nor Proxmox VE has a hook for the moment at which it runs here, so somebody has to watch for it.
//!
//! The agent does; where none runs, the target's hook leaves a process behind that waits for this one guest ([`wait`]).

use super::AgentError;
use super::due::{FRESH, FRESH_MOST};
use super::index::{Index, Look, Why};
use crate::engine::Engine;
use crate::hypervisor::libvirt::{self, DOMAINS};
use crate::input::libvirt_status::Life;
use crate::journal::Message;
use crate::kernel::Event;
use crate::model::{Guest, GuestKind};
use crate::register::{GuestRecord, Stage, guest_key};
use crate::senses::Senses;
use crate::senses::watch::{Place, Sign};
use std::time::Instant;

/// Does a guest that was on its way run here now? Either libvirt says so, or the bridge heard its MAC on its own tap: QEMU announces it (RARP) as
/// it resumes, and libvirt's `macTableManager` puts an entry there.
pub fn is_here(engine: &mut Engine, record: &GuestRecord) -> bool {
    if record.guest.kind == GuestKind::Libvirt && libvirt::life(&record.guest.name) == Some(Life::Here) {
        return true;
    }
    let Ok(kernel) = engine.kernel() else { return false };
    record.endpoints.iter().filter(|e| e.stage == Stage::Incoming).any(|e| {
        let (Some(mac), Ok(Some(bridge)), Ok(Some(device))) = (e.mac, kernel.link(&e.bridge), kernel.link(&e.device))
        else {
            return false;
        };
        matches!(kernel.fdb(bridge.index, mac), Ok(Some(entry)) if entry.port == device.index)
    })
}

/// Waits for the guest of this id, registers it the moment it runs here, and keeps its entries while FRR sorts out who has it. Ends early where
/// the migration fails: with the guest's record, or with its taps.
pub fn wait(engine: &mut Engine, kind: GuestKind, id: &str) -> Result<(), AgentError> {
    // Not the hook's session: libvirtd may stop, and its children with it.
    let _ = rustix::process::setsid();
    let Ok(guest) = Guest::new(kind, id, id) else { return Ok(()) };
    let key = guest_key(&guest);
    let places = vec![(Place::Guests, engine.register.guests_dir()), (Place::Domains, DOMAINS.into())];
    let mut one = One { senses: Senses::open(places)?, index: Index::default(), key };
    let Some(guest) = one.until_it_runs(engine)? else { return Ok(()) };
    engine.journal.object.clone_from(&guest.name);
    if !one.while_fresh(engine, &guest)? {
        return Ok(());
    }
    for (_, why) in engine.verify(std::slice::from_ref(&guest))?.unwrap_or_default() {
        engine.journal.say(&Message::NotAdvertised { guest: &guest.name, why: &why });
    }
    Ok(())
}

struct One {
    senses: Senses,
    index: Index,
    key: String,
}

impl One {
    /// `None` where it will not come, or where somebody else has registered it.
    fn until_it_runs(&mut self, engine: &mut Engine) -> Result<Option<Guest>, AgentError> {
        let mut look_closely = true;
        self.index.put_links(engine.kernel()?.all_links().map_err(AgentError::Kernel)?);
        loop {
            let Some(record) = self.record(engine)? else { return Ok(None) };
            if !self.index.is_incoming(&self.key) {
                return Ok(None);
            }
            if look_closely {
                if is_here(engine, &record) {
                    return Ok(engine.arrived(&record.guest)?.then_some(record.guest));
                }
                let kernel = engine.kernel()?;
                let gone = |e: &crate::register::Endpoint| matches!(kernel.link(&e.device), Ok(None));
                if record.endpoints.iter().all(gone) {
                    return Ok(None);
                }
            }
            self.senses.wait([], None)?;
            let (looks, signs) = self.take(engine)?;
            look_closely = !looks.is_empty() || signs;
        }
    }

    /// Puts back at once what is taken, until nothing was for some seconds. False where the guest is gone.
    fn while_fresh(&mut self, engine: &mut Engine, guest: &Guest) -> Result<bool, AgentError> {
        let arrived = Instant::now();
        let mut until = arrived + FRESH;
        while Instant::now() < until {
            if self.record(engine)?.is_none() {
                return Ok(false);
            }
            self.senses.wait([], Some(until))?;
            let (looks, _) = self.take(engine)?;
            // A device on another bridge was put there; who did it tells of it himself.
            let moved = looks.iter().any(|look| matches!(look, Look::Guest(_, Why::Moved)));
            if !moved && looks.iter().any(|look| !matches!(look, Look::Guest(_, Why::Arrived))) {
                engine.sync_guest(guest)?;
                until = (Instant::now() + FRESH).min(arrived + FRESH_MOST);
            }
        }
        Ok(true)
    }

    fn record(&mut self, engine: &mut Engine) -> Result<Option<GuestRecord>, AgentError> {
        let record = engine.register.guest_of_key(&self.key)?;
        self.index.put_guest(&self.key, record.as_ref());
        Ok(record)
    }

    /// What the events mean for this guest, and whether a file changed that tells of it.
    fn take(&mut self, engine: &mut Engine) -> Result<(Vec<Look>, bool), AgentError> {
        let (events, signs) = self.senses.take()?;
        let name = self.index.guest(&self.key).map(|guest| guest.name.clone()).unwrap_or_default();
        let mut looks = Vec::new();
        for event in &events {
            if *event == Event::Lost {
                self.index.put_links(engine.kernel()?.all_links().map_err(AgentError::Kernel)?);
            }
            looks.extend(self.index.react(event));
        }
        let ours = |sign: &Sign| match sign {
            Sign::File(Place::Guests, key) => *key == self.key,
            Sign::File(Place::Domains, file) => *file == name,
            _ => true,
        };
        Ok((looks, signs.iter().any(ours)))
    }
}
