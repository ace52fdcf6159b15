//! What its hypervisor says of a guest → what its record shall say.

use super::{Change, Mode};
use crate::model::{Guest, IfName};
use crate::plan::record::{Endpoint, GuestRecord};

/// How long after `qemu migrate` the `start` that belongs to it may come, in seconds: libvirt makes the guest's disks in between, and others' hooks run.
/// An offline migration calls `migrate` and never `start` (qemu_migration.c `VIR_MIGRATE_OFFLINE`), and a cold boot after it is taken for an arrival until
/// `started`, some 100 ms later; so for ever it does not count. What came later than this `started` finds out.
const INCOMING_MARK: u64 = 3600;

/// What is wished for.
#[derive(Debug, Clone)]
pub enum Wish<'a> {
    /// It is somebody else's turn, or nothing is known.
    Nothing,
    /// All of it goes.
    Parts(GuestRecord),
    /// This.
    Becomes(Change<'a>),
}

/// What its hypervisor says of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// It does not run here.
    Gone,
    /// It runs here.
    Here,
    /// It is on its way to here or from here.
    Moving,
    /// It is about to end: what it has goes with it, and where it never came it gets nothing for that moment.
    Ending,
    /// Nothing: what its record says holds, for those devices that are there.
    Unknown,
}

/// Has `qemu migrate` announced this guest just now, and nothing of it is here yet?
pub fn is_announced(record: &GuestRecord, now: u64) -> bool {
    record.held().next().is_none() && record.incoming_since.is_some_and(|since| is_young(since, now))
}

fn is_young(since: u64, now: u64) -> bool {
    now.saturating_sub(since) < INCOMING_MARK
}

/// A guest starts, or with `ran` ran before and is told of again. `waiting` are those of its
/// endpoints whose network is down; `now` is in seconds since boot.
pub fn starts<'a>(
    guest: Guest,
    before: Option<&'a GuestRecord>,
    mut endpoints: Vec<Endpoint>,
    waiting: Vec<Endpoint>,
    ran: bool,
    now: u64,
) -> Wish<'a> {
    if endpoints.is_empty() && !waiting.is_empty() {
        return Wish::Nothing;
    }
    let incoming = before.is_some_and(|b| match b.incoming_since {
        Some(_) if ran => b.is_incoming(),
        Some(since) => is_young(since, now),
        None => false,
    });
    let waits: Vec<IfName> = waiting.iter().map(|e| e.device.clone()).collect();
    endpoints.extend(waiting);
    for endpoint in &mut endpoints {
        let known = before.iter().flat_map(|b| &b.endpoints).find(|e| e.device == endpoint.device);
        endpoint.enslaved |= known.is_some_and(|k| k.enslaved);
        if let Some(known) = known.filter(|_| ran) {
            endpoint.remember(known);
        }
    }
    if endpoints.is_empty() {
        return parts(guest, before);
    }
    // One that is too old to be believed is kept for `started`, which can ask libvirt.
    let incoming_since = before.and_then(|b| b.incoming_since).filter(|_| incoming || !ran);
    let mode = match (incoming, ran) {
        (true, _) => Mode::Incoming,
        (false, true) => Mode::Mend,
        (false, false) => Mode::Start,
    };
    let record = GuestRecord { incoming_since, endpoints, ..GuestRecord::new(guest) };
    Wish::Becomes(Change::new(before, record, mode, |e| !waits.contains(&e.device)))
}

/// A guest as its hypervisor says that it runs: `fresh` are its endpoints by that, `waiting` those
/// whose network is down. `is_there` says whether an endpoint's device is where it may be
/// registered.
pub fn runs<'a, E>(
    guest: &Guest,
    before: Option<&'a GuestRecord>,
    runs: Runs,
    fresh: Vec<Endpoint>,
    waiting: Vec<Endpoint>,
    now: u64,
    mut is_there: impl FnMut(&Endpoint) -> Result<bool, E>,
) -> Result<Wish<'a>, E> {
    let incoming = before.is_some_and(GuestRecord::is_incoming);
    let old = || before.into_iter().flat_map(|b| &b.endpoints);
    let (endpoints, mode) = match runs {
        Runs::Ending => return Ok(Wish::Nothing),
        _ if runs != Runs::Here && before.is_some_and(|b| is_announced(b, now)) => return Ok(Wish::Nothing),
        Runs::Gone => (Vec::new(), Mode::Mend),
        // It leaves for another host, or has arrived there: whose its routes are is settled between
        // the two.
        Runs::Moving if before.is_some() && !incoming => return Ok(Wish::Nothing),
        Runs::Moving => (fresh, Mode::Incoming),
        Runs::Here => (fresh, Mode::Mend),
        Runs::Unknown if incoming => (old().cloned().collect(), Mode::Incoming),
        Runs::Unknown => (old().cloned().collect(), Mode::Mend),
    };
    let mut there = Vec::new();
    for mut endpoint in endpoints {
        if let Some(old) = old().find(|o| o.device == endpoint.device) {
            endpoint.enslaved |= old.enslaved;
            endpoint.remember(old);
        }
        if is_there(&endpoint)? {
            there.push(endpoint);
        }
    }
    if there.is_empty() {
        let stays = !waiting.is_empty() || before.is_some() && mode == Mode::Incoming;
        return Ok(if stays { Wish::Nothing } else { parts(guest.clone(), before) });
    }
    let incoming_since = before.and_then(|b| b.incoming_since).filter(|_| mode == Mode::Incoming);
    let waits: Vec<IfName> = waiting.iter().map(|e| e.device.clone()).collect();
    there.extend(waiting);
    let record = GuestRecord { incoming_since, endpoints: there, ..GuestRecord::new(guest.clone()) };
    Ok(Wish::Becomes(Change::new(before, record, mode, |e| !waits.contains(&e.device))))
}

fn parts<'a>(guest: Guest, before: Option<&GuestRecord>) -> Wish<'a> {
    let record = before.cloned().unwrap_or_else(|| GuestRecord::new(guest));
    Wish::Parts(GuestRecord { incoming_since: None, ..record })
}
