//! An address or MAC that another, live guest has already: told, or refused, before anything is taken.

use super::guest::{How, boot_seconds, observe};
use super::{Engine, EngineError};
use crate::config::OnDuplicate;
use crate::journal::Message;
use crate::kernel::{Event, Events};
use crate::model::Guest;
use crate::plan::Refusal;
use crate::plan::duplicate::{By, Duplicate, Holder, Suspect, judge, suspects};
use crate::plan::guest::{Seen, Wanted};
use crate::plan::seen::LinkKind;
use crate::register::{Stage, Taken};
use std::time::{Duration, Instant};

/// How long a start waits for what another host is about to withdraw. FRR needs some 0.1 s from a guest's end to the other hosts' kernels; a host that
/// died has its routes for longer than anyone waits.
const MAY_GO: Duration = Duration::from_secs(2);

impl Engine {
    /// What this endpoint is about to take from other guests of the fabric, `known` being what it took before; `seen` is looked at anew
    /// where it waited. An error where the operator wants such a start refused.
    pub(super) fn taken(
        &mut self,
        guest: &Guest,
        want: &Wanted,
        seen: &mut Seen,
        how: How,
        known: &[Taken],
    ) -> Result<Vec<Taken>, EngineError> {
        // Who comes from another host has its MAC and addresses there until it is here.
        let mut found = if how == How::Incoming { Vec::new() } else { self.duplicates(guest, want, seen)? };
        // Of this host's own guests nobody has to guess whether they live; on a network that holds its guests to their addresses each has its own.
        let held = !want.guard.is_empty();
        let certain = |d: &Duplicate| held && matches!(d.holder, Holder::Here(_));
        if let (How::Start, Some(first)) = (how, found.iter().find(|d| certain(d))) {
            return Err(Refusal(format!("{}: {first}: {}", want.guest, first.mend())).into());
        }
        if how == How::Start && !found.is_empty() && self.on_duplicate() == OnDuplicate::Refuse {
            found = self.until_gone(guest, want, seen, found)?;
            if let Some(first) = found.first() {
                return Err(Refusal(format!("{}: {first}: {}", want.guest, first.mend())).into());
            }
        }
        if how == How::Mend {
            // A guest that moved here is behind the source's VTEP a moment longer: its MAC is no other's.
            found.retain(|d| d.ip.is_some() || known.iter().any(|k| k.ip.is_none()));
        }
        for new in found.iter().filter(|d| !known.iter().any(|k| (k.ip, k.mac) == (d.ip, d.mac))) {
            self.journal.say(&Message::Warning(&format!("{}: {new}: {}", want.guest, new.mend())));
        }
        Ok(remembered(known, &found, boot_seconds()))
    }

    /// A broken config.toml stops no guest.
    fn on_duplicate(&mut self) -> OnDuplicate {
        match self.config() {
            Ok(config) => config.on_duplicate,
            Err(error) => {
                self.journal.say(&Message::Warning(&error));
                OnDuplicate::default()
            }
        }
    }

    /// Looks again at each change until what is another host's has gone; returns what has not.
    fn until_gone(
        &mut self,
        guest: &Guest,
        want: &Wanted,
        seen: &mut Seen,
        mut found: Vec<Duplicate>,
    ) -> Result<Vec<Duplicate>, EngineError> {
        if !self.may_wait || self.dry_run || !found.iter().all(Duplicate::may_go) {
            return Ok(found);
        }
        let until = Instant::now() + MAY_GO;
        let mut events = Events::open()?;
        loop {
            *seen = observe(self.kernel()?, want)?;
            found = self.duplicates(guest, want, seen)?;
            if found.is_empty() {
                return Ok(found);
            }
            let mut changed = false;
            while !changed {
                if !events.wait(until)? {
                    return Ok(found);
                }
                while let Some(event) = events.next()? {
                    changed |= matches!(event, Event::Fdb { .. } | Event::Neigh { .. } | Event::Lost);
                }
            }
            if Instant::now() >= until {
                return Ok(found);
            }
        }
    }

    /// Further questions are asked only where something is in the way.
    fn duplicates(&mut self, guest: &Guest, want: &Wanted, seen: &Seen) -> Result<Vec<Duplicate>, EngineError> {
        let Some(bridge) = seen.bridge.as_ref().map(|b| b.index) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for suspect in suspects(want, seen) {
            let kernel = self.kernel()?;
            let ports = match (suspect.by, kernel.fdb(bridge, suspect.mac)?) {
                (By::Neighbour, _) => kernel.ports_of(bridge)?,
                (_, Some(entry)) => kernel.link_by_index(entry.port)?.into_iter().collect(),
                (_, None) => Vec::new(),
            };
            let tunnel = ports.into_iter().find(|port| matches!(port.kind, LinkKind::Vxlan { .. }));
            let vtep = match &tunnel {
                Some(tunnel) => kernel.vtep_of(tunnel.index, suspect.mac)?,
                None => None,
            };
            let owner = if tunnel.is_none() { self.owner(guest, want, suspect) } else { None };
            found.extend(judge(suspect, tunnel.is_some(), vtep, owner));
        }
        Ok(found)
    }

    /// The other guest of this host that is registered with it.
    fn owner(&self, guest: &Guest, want: &Wanted, suspect: Suspect) -> Option<String> {
        let others = self.register.guests().into_iter().flatten().filter(|r| !r.guest.is(guest));
        let mut has = others.filter(|r| {
            r.endpoints.iter().any(|e| {
                // What it only learned it gives up.
                let ip = suspect.ip.is_none_or(|ip| e.declared().any(|a| a.ip == ip));
                ip && e.bridge == *want.bridge && e.mac == Some(suspect.mac) && e.stage != Stage::Incoming
            })
        });
        has.next().map(|r| r.guest.to_string())
    }
}

/// What was taken before, and what is taken now in its place. What is on this host stands in its records.
fn remembered(known: &[Taken], found: &[Duplicate], now: u64) -> Vec<Taken> {
    let new = found.iter().filter_map(|d| match d.holder {
        Holder::Vtep(vtep) => Some(Taken { ip: d.ip, mac: d.mac, vtep, since: now }),
        Holder::Here(_) => None,
    });
    let mut taken: Vec<Taken> = new.collect();
    taken.extend(known.iter().filter(|k| !found.iter().any(|d| d.ip == k.ip)).cloned());
    taken
}
