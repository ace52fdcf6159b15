//! An endpoint wired, registered, withdrawn. The kernel recipe is frr-and-kernel's: enslave, static FDB entry, permanent neighbours.

use super::guard::{Guard, Lets};
use super::seen::{Fdb, Link, LinkKind, Neigh, World};
use super::{Plan, Planned, Refusal, Step, order, plain, with_undo};
use crate::model::{Address, IfName, Mac, Vni};
use std::net::IpAddr;

/// What is wanted of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Who is asking, for messages.
    pub guest: &'a str,
    /// The port.
    pub device: &'a IfName,
    /// The segment's bridge.
    pub bridge: &'a IfName,
    /// The network's name, for messages.
    pub network: &'a str,
    /// The guest's MAC; none wires only.
    pub mac: Option<Mac>,
    /// The guest's addresses.
    pub ips: &'a [Address],
    /// The guest's other ports on that bridge. The kernel moves a static entry to the port where its MAC is heard (net/bridge/br_fdb.c `br_fdb_update`), so
    /// a guest that bonds them is followed by that alone.
    pub beside: &'a [IfName],
    /// What the port lets in; empty where nothing holds it. What is taken back by [`withdraw`].
    pub guard: Guard,
    /// The index of the port that was guarded, for [`withdraw`]: a port that is gone still stands in the guard's sets.
    pub index: Option<u32>,
    /// Ours to enslave; otherwise libvirt or LXC has done it.
    pub enslave: bool,
    /// A repair: the port goes to its bridge whoever took it off, for its hypervisor says that it belongs there, or where nobody says, its
    /// record. A start refuses instead.
    pub mend: bool,
}

impl Wanted<'_> {
    fn has(&self, ip: IpAddr) -> bool {
        self.ips.iter().any(|a| a.ip == ip)
    }
}

/// What is observed of one port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The port.
    pub device: Option<Link>,
    /// The bridge.
    pub bridge: Option<Link>,
    /// The name of the port's present master, where it has one.
    pub master_name: Option<IfName>,
    /// The FDB's entry for the MAC.
    pub fdb: Option<Fdb>,
    /// Of the guest's other ports those that are on the bridge, by index.
    pub beside: Vec<(u32, IfName)>,
    /// The bridge's neighbour entries for the wanted addresses.
    pub neighs: Vec<Neigh>,
    /// What the port lets in, as far as it was asked for; empty where nothing holds it.
    pub guard: Guard,
    /// The bridge's VXLAN port, where the guest's port is isolated and that one is not.
    pub open_tunnel: Option<IfName>,
    /// All neighbours of the bridge, asked for by what goes: the kernel learned some of them from the guest itself.
    pub around: Vec<Neigh>,
}

impl Seen {
    /// Of one port, out of the whole.
    pub fn of(world: &World, want: &Wanted) -> Seen {
        let (device, bridge) = (world.link(want.device), world.link(want.bridge));
        let mut seen = Seen { device: device.cloned(), bridge: bridge.cloned(), ..Seen::default() };
        if let (Some(device), Some(bridge)) = (device, bridge) {
            let elsewhere = device.master.filter(|m| *m != bridge.index);
            seen.master_name = elsewhere.and_then(|m| world.by_index(m)).map(|l| l.name.clone());
        }
        if let (Some(bridge), Some(mac)) = (bridge, want.mac) {
            seen.fdb = world.fdb(bridge.index, mac).cloned();
            let beside = want.beside.iter().filter_map(|dev| world.link(dev));
            let on_it = beside.filter(|link| link.master == Some(bridge.index));
            seen.beside = on_it.map(|link| (link.index, link.name.clone())).collect();
            seen.neighs = want.ips.iter().filter_map(|a| world.neigh(bridge.index, a.ip)).cloned().collect();
        }
        if let (Some(device), Some(bridge)) = (device, bridge) {
            seen.open_tunnel = open_tunnel(device, bridge, world.slaves(bridge.index)).map(|link| link.name.clone());
        }
        seen.guard = device.and_then(|d| world.guard(d.index)).cloned().unwrap_or_default();
        seen
    }
}

impl Seen {
    /// Which of the guest's ports its MAC is behind; none where it is somebody else's.
    fn mac_is_behind<'a>(&'a self, want: &Wanted<'a>) -> Option<&'a IfName> {
        let (device, fdb) = (self.device.as_ref()?, self.fdb.as_ref()?);
        if fdb.port == device.index {
            return Some(want.device);
        }
        self.beside.iter().find(|(index, _)| *index == fdb.port).map(|(_, name)| name)
    }
}

/// Puts the port on the bridge, before anyone may hear of the guest, which is on its way to here. It is heard by what it says on its own port: what locked
/// that as nobody's must not keep the bridge from learning it. Its guard holds it all the same.
pub fn wire(want: &Wanted, seen: &Seen) -> Result<Plan, Refusal> {
    let mut plan = wired(want, seen)?;
    let deaf = |d: &Link| on_bridge(d, seen) && d.port.locked == Some(true);
    if !want.guard.is_empty() && seen.device.as_ref().is_some_and(deaf) {
        let lock = |locked| Step::LockPort { dev: want.device.clone(), locked };
        plan.push(with_undo(lock(false), lock(true)));
    }
    Ok(plan)
}

fn wired(want: &Wanted, seen: &Seen) -> Result<Plan, Refusal> {
    let refuse = |text: String| Err(Refusal(format!("{}: {text}", want.guest)));
    let Some(device) = &seen.device else {
        return refuse(format!("device {} is not there: name the guest's tap or veth on this host", want.device));
    };
    let Some(bridge) = &seen.bridge else {
        return refuse(format!(
            "bridge {} of network {} is not there: bring the network up first",
            want.bridge, want.network
        ));
    };
    if !matches!(bridge.kind, LinkKind::Bridge { .. }) {
        return refuse(format!("device {} of network {} is not a bridge", want.bridge, want.network));
    }
    if matches!(device.kind, LinkKind::Bridge { .. } | LinkKind::Vxlan { .. } | LinkKind::Vrf { .. })
        || device.index == 1
    {
        return refuse(format!("device {} cannot be a guest's: name its tap or veth", want.device));
    }
    // Held before it is on the bridge: nothing that it must not send gets through in between.
    let mut plan: Plan = held(want, seen).into_iter().collect();
    match device.master {
        Some(master) if master == bridge.index => {}
        None if want.enslave || want.mend => plan.push(with_undo(
            Step::SetMaster { dev: want.device.clone(), master: Some(want.bridge.clone()) },
            Step::SetMaster { dev: want.device.clone(), master: None },
        )),
        None => return refuse(format!("device {} is on no bridge, expected {}", want.device, want.bridge)),
        Some(_) if want.mend => plan.push(with_undo(
            Step::SetMaster { dev: want.device.clone(), master: Some(want.bridge.clone()) },
            Step::SetMaster { dev: want.device.clone(), master: seen.master_name.clone() },
        )),
        Some(_) => {
            let on = seen.master_name.as_ref().map_or("another bridge".to_owned(), |m| m.to_string());
            return refuse(format!(
                "device {} is already on {on}, not on {}: 'ip link set {} nomaster' first",
                want.device, want.bridge, want.device
            ));
        }
    }
    // Only with it: each host's bridge keeps those ports of its own apart that are isolated, and its VXLAN port stands for the guests of all other hosts. It
    // stays so: to ports that are not isolated it is nothing (net/bridge/br_private.h `br_skb_isolated`).
    if let Some(dev) = &seen.open_tunnel {
        plan.push(plain(Step::IsolateTunnel { dev: dev.clone() }));
    }
    if device.mtu != bridge.mtu {
        plan.push(with_undo(
            Step::SetMtu { dev: want.device.clone(), mtu: bridge.mtu },
            Step::SetMtu { dev: want.device.clone(), mtu: device.mtu },
        ));
    }
    if !device.up {
        plan.push(with_undo(
            Step::SetUp { dev: want.device.clone(), up: true },
            Step::SetUp { dev: want.device.clone(), up: false },
        ));
    }
    Ok(plan)
}

/// What its guard lacks, or says too much.
fn held(want: &Wanted, seen: &Seen) -> Option<Planned> {
    let list = |of: &Guard, but: &Guard| of.difference(but).copied().collect::<Vec<Lets>>();
    let index = seen.device.as_ref()?.index;
    guarded(want.device, index, list(&want.guard, &seen.guard), list(&seen.guard, &want.guard))
}

/// Changes what a port lets in; none where nothing changes.
pub fn guarded(dev: &IfName, index: u32, more: Vec<Lets>, less: Vec<Lets>) -> Option<Planned> {
    let step = |more, less| Step::Guard { dev: dev.clone(), index, more, less };
    (!more.is_empty() || !less.is_empty()).then(|| with_undo(step(more.clone(), less.clone()), step(less, more)))
}

/// Makes the kernel hold what the speaker advertises: first wired, then the FDB entry, then each address.
pub fn register(want: &Wanted, seen: &Seen) -> Result<Plan, Refusal> {
    let mut plan = wired(want, seen)?;
    let Some(mac) = want.mac else { return Ok(plan) };
    if let Some(bridge) = &seen.bridge
        && bridge.mac == Some(mac)
    {
        return Err(Refusal(format!(
            "{}: MAC {mac} is the gateway's on {}: give the guest another",
            want.guest, want.bridge
        )));
    }
    // NTF_EXT_LEARNED says nothing here: the kernel leaves it on an entry that we took back from the VXLAN port
    // (net/bridge/br_fdb.c fdb_add_entry), and zebra looks at the port.
    let held = seen.mac_is_behind(want).is_some() && seen.fdb.as_ref().is_some_and(|f| f.is_static);
    if !held {
        if plan.iter().any(|p| matches!(p.step, Step::SetMaster { .. })) {
            plan.push(plain(Step::AwaitPort { dev: want.device.clone(), bridge: want.bridge.clone() }));
        }
        plan.push(with_undo(
            Step::AddFdb { dev: want.device.clone(), mac },
            Step::DelFdb { dev: want.device.clone(), mac },
        ));
    }
    // Not before its MAC is known to be behind it: what the guest says to announce its arrival must be heard. A kernel that does not know `locked`
    // takes it and forgets it; the guard does as much.
    let open = |d: &Link| !on_bridge(d, seen) || !d.port.is_held();
    if !want.guard.is_empty() && seen.device.as_ref().is_some_and(open) {
        let lock = |locked| Step::LockPort { dev: want.device.clone(), locked };
        plan.push(with_undo(lock(true), lock(false)));
    }
    for Address { ip, router, .. } in want.ips {
        let held = |n: &&Neigh| n.ip == *ip && n.permanent && !n.ext_learned;
        let before = seen.neighs.iter().find(held).and_then(|n| Some((n.mac?, n.router)));
        if before != Some((mac, *router)) {
            let add = |mac, router| Step::AddNeigh { bridge: want.bridge.clone(), ip: *ip, mac, router };
            let undo = match before {
                Some((mac, router)) => add(mac, router),
                None => Step::DelNeigh { bridge: want.bridge.clone(), ip: *ip },
            };
            plan.push(with_undo(add(mac, *router), undo));
        }
    }
    Ok(order::lawful(plan))
}

/// Takes back what is still this guest's: never an entry that another VTEP or guest owns by now. Its undo is for an endpoint
/// that changes: what it had comes back where what it was to have is refused.
/// Neighbours go first, while MAC and port may still be there (see `order`).
pub fn withdraw(want: &Wanted, seen: &Seen) -> Plan {
    let mut plan = Plan::new();
    let Some(mac) = want.mac else { return release(want, seen, plan) };
    for neigh in &seen.neighs {
        if want.has(neigh.ip) && (is_local(neigh, mac) || was_ours(neigh, mac)) {
            let bridge = want.bridge.clone();
            plan.push(with_undo(
                Step::DelNeigh { bridge: bridge.clone(), ip: neigh.ip },
                Step::AddNeigh { bridge, ip: neigh.ip, mac, router: neigh.router },
            ));
        }
    }
    if let Some(dev) = seen.mac_is_behind(want) {
        plan.push(with_undo(Step::DelFdb { dev: dev.clone(), mac }, Step::AddFdb { dev: dev.clone(), mac }));
    }
    release(want, seen, plan)
}

/// Behind [`withdraw`]: says the end of a MAC again to a speaker that may have missed it, for its port is gone, or goes. Not of one that is somebody else's
/// by now.
///
/// The addresses that the kernel learned of it go first: zebra would keep them active, and bgpd would announce them, where the end comes by the tunnel
/// (zebra_vxlan.c `zebra_vxlan_check_del_local_mac` leaves a MAC's neighbours as they are).
pub fn end(want: &Wanted, seen: &Seen, vni: Vni, vtep: IpAddr) -> Plan {
    let (Some(mac), Some(_)) = (want.mac, &seen.bridge) else { return Plan::new() };
    if seen.fdb.is_some() && seen.mac_is_behind(want).is_none() {
        return Plan::new();
    }
    let learned = |n: &&Neigh| n.mac == Some(mac) && !n.permanent && !n.ext_learned && !n.ours;
    let forget = |n: &Neigh| plain(Step::DelNeigh { bridge: want.bridge.clone(), ip: n.ip });
    let mut plan: Plan = seen.around.iter().filter(learned).map(forget).collect();
    plan.push(plain(Step::EndFdb { vxlan: vni.device(), mac, vtep }));
    plan
}

/// Says again to the speaker what the kernel holds as it should: for a speaker that missed it.
pub fn tell(want: &Wanted, seen: &Seen) -> Plan {
    let Some(mac) = want.mac.filter(|_| seen.device.is_some()) else { return Plan::new() };
    let mut plan = Plan::new();
    if let Some(dev) = seen.mac_is_behind(want) {
        plan.push(plain(Step::TellFdb { dev: dev.clone(), mac }));
    }
    for neigh in seen.neighs.iter().filter(|n| want.has(n.ip) && is_local(n, mac)) {
        plan.push(plain(Step::TellNeigh { bridge: want.bridge.clone(), ip: neigh.ip, mac, router: neigh.router }));
    }
    plan
}

/// Of these ports of a bridge the VXLAN, where a guest's port is isolated and that one is not: guests of other hosts reach it all the same.
pub fn open_tunnel<'a>(device: &Link, bridge: &Link, mut ports: impl Iterator<Item = &'a Link>) -> Option<&'a Link> {
    if device.port.isolated != Some(true) || device.master != Some(bridge.index) {
        return None;
    }
    ports.find(|link| {
        matches!(link.kind, LinkKind::Vxlan { .. })
            && link.master == Some(bridge.index)
            && link.port.isolated != Some(true)
    })
}

fn on_bridge(device: &Link, seen: &Seen) -> bool {
    seen.bridge.as_ref().is_some_and(|bridge| device.master == Some(bridge.index))
}

fn release(want: &Wanted, seen: &Seen, mut plan: Plan) -> Plan {
    let lets_go = want.guard.iter().any(|lets| matches!(lets, Lets::Guarded(_)));
    let locked = |d: &Link| d.port.locked == Some(true) || d.port.learning == Some(false);
    if lets_go && seen.device.as_ref().is_some_and(|d| on_bridge(d, seen) && locked(d)) {
        let lock = |locked| Step::LockPort { dev: want.device.clone(), locked };
        plan.push(with_undo(lock(false), lock(true)));
    }
    let ours = want.enslave && seen.device.as_ref().is_some_and(|d| on_bridge(d, seen));
    if ours {
        plan.push(plain(Step::SetMaster { dev: want.device.clone(), master: None }));
    }
    let index = want.index.or(seen.device.as_ref().map(|d| d.index));
    plan.extend(index.and_then(|i| guarded(want.device, i, Vec::new(), want.guard.iter().copied().collect())));
    order::lawful(plan)
}

/// A permanent entry of this MAC that the speaker did not put there for another VTEP.
fn is_local(neigh: &Neigh, mac: Mac) -> bool {
    neigh.permanent && !neigh.ext_learned && neigh.mac == Some(mac)
}

/// Ours, but no longer permanent: dnsmasq answers a client that has no address yet by SIOCSARP, which the kernel takes for an
/// administrator's word and makes the entry a learned one (net/ipv4/arp.c `arp_req_set`); our mark stays on it. Left behind, it
/// would keep the guest's MAC+IP route alive.
fn was_ours(neigh: &Neigh, mac: Mac) -> bool {
    neigh.ours && !neigh.ext_learned && neigh.mac == Some(mac)
}

#[cfg(test)]
#[path = "guest_test.rs"]
mod tests;
