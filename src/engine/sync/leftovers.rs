//! What nobody wants any more: neighbours without a guest, VRFs without a network, devices with our mark that no record knows.

use super::{Look, Synced};
use crate::config::{PortSecurity, Vrf};
use crate::engine::guest::guard_of;
use crate::engine::look::{devices_of, devices_of_vrf};
use crate::engine::{Claimed, Engine, EngineError, by_hand};
use crate::event::Nic;
use crate::model::{Address, Guest, IfName, Source, Vni};
use crate::plan::guard::Guard;
use crate::plan::guest::guarded;
use crate::plan::learn::{unfit, with};
use crate::plan::seen::{LinkKind, Neigh, World};
use crate::plan::whose::Claim;
use crate::plan::{Plan, Planned, Step, plain};
use crate::register::{Endpoint, NetworkRecord, Stage, VrfRecord};
use crate::speaker::Added;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

/// What nobody wants any more.
struct Leftovers {
    ghosts: Plan,
    /// Devices that were attached by hand, of which the register was lost.
    lost: BTreeMap<IfName, Nic>,
    /// What guests had learned whose records were lost.
    learned: Vec<(Guest, IfName, IpAddr)>,
    devices: Plan,
    vrfs: Vec<VrfRecord>,
}

impl Leftovers {
    fn is_empty(&self) -> bool {
        self.ghosts.is_empty()
            && self.lost.is_empty()
            && self.learned.is_empty()
            && self.devices.is_empty()
            && self.vrfs.is_empty()
    }
}

impl Engine {
    /// Our neighbours without a guest, VRFs of ours without a network, devices with our mark that no record knows. Gives the look back where it still
    /// holds.
    pub(super) fn sync_leftovers(
        &mut self,
        look: Look,
        stale: bool,
        out: &mut Synced,
    ) -> Result<Option<Look>, EngineError> {
        if self.leftovers(&look, out)?.is_empty() && !stale {
            return Ok(Some(look));
        }
        // Two worlds at once would be the most that sync ever holds.
        drop(look);
        // What has come or gone since then is no leftover.
        let world = self.whole_world()?;
        let look = self.look(world, out);
        let left = self.leftovers(&look, out)?;
        self.do_most(left.ghosts);
        for (device, nic) in left.lost {
            let Ok(guest) = by_hand(device.as_str()) else { continue };
            let added = self.add_endpoint(guest, nic);
            out.keep(added);
        }
        let learned = if self.dry_run { Vec::new() } else { left.learned };
        for (guest, device, ip) in learned {
            let again = self.learn(&guest, &device, Address::new(ip, Source::Fabric), Claimed::new(Claim::Asks));
            out.keep(again.map(drop));
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
        Ok(None)
    }

    fn leftovers(&mut self, look: &Look, out: &Synced) -> Result<Leftovers, EngineError> {
        let troubled = !out.problems.is_empty();
        let left = ghosts(look, troubled);
        let Look { world, networks, .. } = look;
        // What could not be read or made anew is wanted all the same.
        if troubled {
            return Ok(left);
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
                let mut frr = self.frr()?.filter(|_| managed);
                let speaker = frr.as_mut().map(|frr| Added::whole(&vrf, frr.router_id().ok().flatten()));
                let socket_dir = frr.map(|frr| frr.dir().to_owned());
                let made = devices_of_vrf(&vrf).into_iter().filter(|dev| world.link(dev).is_some_and(|l| l.ours));
                vrfs.push(VrfRecord {
                    made: made.collect(),
                    speaker,
                    socket_dir,
                    vrf,
                    unreachable: false,
                    mtus: BTreeMap::new(),
                });
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
        // zebra forgets an L3VNI's bridge that goes down before its tunnel goes (plan/order.rs).
        let bridges = lost.iter().filter(|l| l.up && matches!(l.kind, LinkKind::Bridge { .. }));
        let down = |name: &IfName| Planned { step: Step::SetUp { dev: name.clone(), up: false }, undo: Vec::new() };
        let mut devices: Plan = bridges.map(|l| down(&l.name)).collect();
        devices.extend(lost.iter().map(|l| del(&l.name)));
        Ok(Leftovers { devices, vrfs, ..left })
    }
}

/// Our neighbours that no record claims: their guest has gone, or the register was lost and they are a device's that was attached by hand,
/// of which nobody else knows. That one is to be recorded again from what the kernel holds of it, and likewise what a guest had learned before
/// its record was lost and made anew by what its hypervisor says.
fn ghosts(look: &Look, troubled: bool) -> Leftovers {
    let world = &look.world;
    let mut ghosts: Vec<(u32, &Neigh)> = world.neighs().filter(|(_, n)| n.ours && !n.ext_learned).collect();
    ghosts.sort_by_key(|(index, n)| (*index, n.ip));
    let (mut claimed, mut devices) = (HashSet::new(), HashSet::new());
    for endpoint in look.guests.iter().flat_map(|record| &record.endpoints) {
        claimed.extend(endpoint.ips.iter().map(|a| (&endpoint.bridge, a.ip)));
        devices.insert(&endpoint.device);
    }
    let (mut lost, mut learned) = (BTreeMap::<IfName, Nic>::new(), Vec::new());
    let mut plan = Plan::new();
    for (index, neigh) in ghosts {
        let Some(bridge) = world.by_index(index).map(|l| &l.name) else { continue };
        if claimed.contains(&(bridge, neigh.ip)) {
            continue;
        }
        let fdb = neigh.mac.and_then(|mac| world.fdb(index, mac)).filter(|fdb| fdb.is_static);
        let port = fdb.and_then(|fdb| world.by_index(fdb.port)).filter(|port| port.index != index && !port.ours);
        let is_its = |e: &&Endpoint| {
            port.is_some_and(|port| port.name == e.device)
                && (&e.bridge, e.mac, e.stage) == (bridge, neigh.mac, Stage::Registered)
        };
        let whole = look.guests.iter().filter(|record| record.leaving.is_empty());
        let owner = whole.into_iter().find_map(|r| Some((&r.guest, r.endpoints.iter().find(is_its)?)));
        if let Some((guest, endpoint)) = owner.filter(|(_, e)| fits(look, e, neigh.ip)) {
            learned.push((guest.clone(), endpoint.device.clone(), neigh.ip));
            continue;
        }
        match port.filter(|port| !devices.contains(&port.name)) {
            Some(port) if look.networks.iter().any(|n| n.network.bridge == *bridge) => {
                let nic = lost.entry(port.name.clone()).or_insert_with(|| Nic {
                    device: Some(port.name.clone()),
                    bridge: Some(bridge.clone()),
                    mac: neigh.mac,
                    ..Nic::default()
                });
                nic.ips.push(Address::new(neigh.ip, Source::Manual));
            }
            // Its network is to come up and could not: whose it is can be told the next time.
            Some(_) if troubled => {}
            _ => {
                let step = Step::DelNeigh { bridge: bridge.clone(), ip: neigh.ip };
                plan.push(Planned { step, undo: Vec::new() });
            }
        }
    }
    if !troubled {
        plan.extend(unheld(look));
    }
    Leftovers { ghosts: plan, lost, learned, devices: Plan::new(), vrfs: Vec::new() }
}

/// What the guards let in and no record knows of: most often what they say of ports that are gone.
fn unheld(look: &Look) -> Vec<Planned> {
    let mut known = HashMap::<u32, Guard>::new();
    for endpoint in look.guests.iter().flat_map(|record| record.held()) {
        if let Some(index) = endpoint.index {
            known.entry(index).or_default().extend(guard_of(endpoint));
        }
    }
    let unknown = |(port, guard): (u32, &Guard)| (port, guard - known.get(&port).unwrap_or(&Guard::new()));
    let mut unheld: Vec<(u32, Guard)> = look.world.guards().map(unknown).collect();
    unheld.sort_by_key(|(port, _)| *port);
    let steps = unheld.into_iter().filter_map(|(port, guard)| {
        let name = look.world.by_index(port).map(|link| link.name.clone());
        let dev = name.or_else(|| format!("if{port}").parse().ok())?;
        guarded(&dev, port, Vec::new(), guard.into_iter().collect())
    });
    let is_held = |bridge: &IfName| {
        look.networks.iter().any(|n| n.network.bridge == *bridge && n.network.security() != PortSecurity::Off)
    };
    let bridges = look.world.secured().filter(|bridge| !is_held(bridge));
    let off = |bridge: &IfName| plain(Step::GuardBridge { bridge: bridge.clone(), on: false });
    steps.chain(bridges.map(off)).collect()
}

/// May this guest have learned it?
fn fits(look: &Look, endpoint: &Endpoint, ip: IpAddr) -> bool {
    let network = look.networks.iter().find(|n| n.network.bridge == endpoint.bridge);
    let more = |mac| with(&endpoint.ips, Address::new(ip, Source::Fabric), mac, &[]).is_some();
    network.is_some_and(|n| unfit(&n.network, ip).is_none()) && endpoint.mac.is_some_and(more)
}

/// The L3VNI of a VRF, by the tunnel that is on its bridge.
fn l3vni(world: &World, vrf: &IfName) -> Option<Vni> {
    let bridge = world.link(&vrf.l3_bridge().ok()?)?;
    world.slaves(bridge.index).find_map(|link| match link.kind {
        LinkKind::Vxlan { vni, .. } => vni,
        _ => None,
    })
}
