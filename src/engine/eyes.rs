//! What of the host a guest's transition depends on: the kernel's answers, and what the register
//! knows of other guests.

use super::guest::boot_seconds;
use super::{Engine, EngineError};
use crate::config::OnDuplicate;
use crate::hypervisor;
use crate::journal::Message;
use crate::kernel::{Event, Events, Kernel};
use crate::model::{Address, Guest, GuestKind, IfName, Mac};
use crate::plan::duplicate::{By, Duplicate, Suspect, judge, suspects};
use crate::plan::guest::{Seen, Wanted, open_tunnel};
use crate::plan::learn::of_fabric;
use crate::plan::seen::LinkKind;
use crate::plan::transition::{Change, Eyes, NicSeen};
use crate::register::Stage;
use crate::tape;
use std::time::{Duration, Instant};

/// How long a start waits for what another host is about to withdraw. FRR needs some 0.1 s from a
/// guest's end to the other hosts' kernels; a host that died has its routes for longer than anyone
/// waits.
const MAY_GO: Duration = Duration::from_secs(2);

impl Eyes for Engine {
    type Error = EngineError;

    fn index(&mut self, device: &IfName) -> Result<Option<u32>, EngineError> {
        Ok(self.kernel()?.link(device)?.map(|link| link.index))
    }

    fn port(&mut self, want: &Wanted) -> Result<Seen, EngineError> {
        observe(self.kernel()?, want)
    }

    fn going(&mut self, want: &Wanted) -> Result<Seen, EngineError> {
        let mut seen = self.port(want)?;
        if let Some(bridge) = &seen.bridge {
            seen.around = self.kernel()?.neighs(bridge.index)?;
            // A record that cannot be read, of which others tell, holds no withdrawal up.
            let network = self.register.network_of_bridge(want.bridge).ok().flatten();
            seen.tunnel = network.and_then(|record| Some((record.network.vni, record.vtep?)));
        }
        Ok(seen)
    }

    fn fabric(&mut self, bridge: &IfName, mac: Mac) -> Result<Vec<Address>, EngineError> {
        let Some(network) = self.register.network_of_bridge(bridge)? else { return Ok(Vec::new()) };
        let kernel = self.kernel()?;
        let Some(bridge) = kernel.link(bridge)? else { return Ok(Vec::new()) };
        Ok(of_fabric(&network.network, mac, kernel.neighs(bridge.index)?))
    }

    fn owner(&mut self, device: &IfName, but: &Guest) -> Option<Guest> {
        self.owner_of(device, but).filter(is_alive)
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
            let owner = if tunnel.is_none() { self.owner_of_entry(guest, want, suspect) } else { None };
            found.extend(judge(suspect, tunnel.is_some(), vtep, owner));
        }
        Ok(found)
    }

    /// A broken config.toml stops no guest.
    fn refuses_duplicates(&mut self) -> bool {
        match self.config() {
            Ok(config) => config.on_duplicate == OnDuplicate::Refuse,
            Err(error) => {
                self.journal.say(&Message::Warning(&error));
                OnDuplicate::default() == OnDuplicate::Refuse
            }
        }
    }

    fn now(&mut self) -> u64 {
        boot_seconds()
    }
}

impl Engine {
    /// Looks again at each change until what is another host's of this NIC has gone. False where it
    /// has not in time.
    pub(super) fn until_gone(&mut self, change: &Change, nic: usize, seen: &mut NicSeen) -> Result<bool, EngineError> {
        let until = Instant::now() + MAY_GO;
        let mut events = Events::open()?;
        loop {
            change.look_again(nic, seen, self)?;
            if seen.duplicates.is_empty() {
                return Ok(true);
            }
            let mut changed = false;
            while !changed {
                if !events.wait(until)? {
                    return Ok(false);
                }
                while let Some(event) = events.next()? {
                    changed |= matches!(event, Event::Fdb { .. } | Event::Neigh { .. } | Event::Lost);
                }
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    /// Another guest that has this device.
    pub(super) fn owner_of(&self, device: &IfName, but: &Guest) -> Option<Guest> {
        let mut guests = self.register.guests().into_iter().flatten();
        guests.find(|r| !r.guest.is(but) && r.held().any(|e| e.device == *device)).map(|r| r.guest)
    }

    /// The other guest of this host that is registered with such an entry.
    fn owner_of_entry(&self, guest: &Guest, want: &Wanted, suspect: Suspect) -> Option<String> {
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

/// May this guest run? Of a domain libvirt says it; a container's devices are gone with it.
fn is_alive(guest: &Guest) -> bool {
    let runs = || Some(hypervisor::libvirt::runs(&guest.name));
    guest.kind != GuestKind::Libvirt || tape::told("libvirt: does the owner run", runs) != Some(false)
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
