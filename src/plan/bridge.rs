//! A network's bridge: made or taken over, kept as its network says, and given back as it was.

use super::network::{IPV6_MTU, Seen, Wanted, gateway_mac, leave_first, router_mac};
use super::seen::{Link, LinkKind};
use super::{Hears, Plan, Planned, Refusal, Step, plain, with_undo};
use crate::config::{Before, Network, Origin};
use crate::model::{IfName, Mac};
use ipnet::IpNet;
use std::collections::BTreeSet;

/// How many MACs a segment's bridge learns by itself. Who floods MACs takes the memory of every host of the fabric, for FRR makes a route of each. Registered
/// guests and other VTEPs' do not count (net/bridge/br_fdb.c `fdb_create`: `BR_FDB_ADDED_BY_USER`), so what does are MACs that guests bridge and nobody
/// registered. Beyond it a MAC is not learned, and frames to it are flooded. The number is what Junos has as its default for a bridge domain
/// (<https://www.juniper.net/documentation/en_US/release-independent/nce/topics/task/configuration/vpls-mac-address-limiting-solutions.html>).
pub const MAX_LEARNED: u32 = 5120;

/// What is asked of a bridge that somebody else made before a network comes up on it for the first time: may be the host lives by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its ports.
    pub ports: Vec<Link>,
    /// The host's default route leaves by it.
    pub has_default_route: bool,
}

/// Why a bridge that was there cannot be this network's; none where it can.
pub(super) fn is_the_hosts(network: &Network, seen: &Seen) -> Option<Refusal> {
    let found = seen.found.as_ref()?;
    let name = &network.bridge;
    let refuse = |why: String| {
        Some(Refusal(format!("network {}: {why}: give the network a bridge of its own, by another name", network.name)))
    };
    // A guest's port is a tap or a veth. By a wire, a bond or a VLAN the segment goes on, to other hosts of the network as well: a loop through the
    // tunnels, which do not speak STP.
    let is_guests = |l: &&Link| matches!(&l.kind, LinkKind::Other(kind) if matches!(kind.as_str(), "tun" | "veth"));
    let is_tunnel = |l: &&Link| matches!(l.kind, LinkKind::Vxlan { .. });
    if let Some(port) = found.ports.iter().find(|l| !is_guests(l) && !is_tunnel(l)) {
        let kind = match &port.kind {
            LinkKind::Other(kind) if !kind.is_empty() => kind,
            _ => "hardware",
        };
        return refuse(format!(
            "bridge {name} has port {} ({kind}), which is no guest's: two hosts on that wire would be a loop through the tunnel",
            port.name
        ));
    }
    // In its VRF it is not the host's way to anywhere.
    if in_vrf(seen) {
        return None;
    }
    if let Some(own) = seen.bridge_addresses.iter().find(|a| !network.gateway.contains(a)) {
        return refuse(format!(
            "bridge {name} has this host's own address {own}, and guests would reach the host by it, or in a VRF nobody would"
        ));
    }
    if found.has_default_route {
        return refuse(format!("this host's default route leaves by bridge {name}"));
    }
    None
}

fn in_vrf(seen: &Seen) -> bool {
    let master = seen.bridge.as_ref().and_then(|b| b.master);
    master.is_some() && master == seen.vrf.as_ref().map(|v| v.index)
}

/// The bridge as its network wants it.
pub(super) fn up(want: &Wanted, seen: &Seen, plan: &mut Plan) {
    let network = want.network;
    let name = &network.bridge;
    let has_ipv6 = has_ipv6(network, seen);
    match &seen.bridge {
        None => {
            let mac = network.mac.unwrap_or_else(|| gateway_mac(network.vni));
            plan.push(with_undo(
                Step::AddBridge { name: name.clone(), mac, mtu: network.mtu },
                Step::DelLink { name: name.clone() },
            ));
            if seen.bridge_ipv6_off && network.origin != Origin::Libvirt && has_ipv6 {
                plan.push(plain(sysctl("net/ipv6/conf", name, "disable_ipv6", "0")));
            }
            if network.stp {
                plan.push(plain(Step::SetStp { bridge: name.clone(), on: true }));
            }
        }
        Some(bridge) => is_there(want, bridge, seen, plan),
    }
    // A guest's router advertisement must not configure the host.
    let had_ipv6 = seen.bridge.as_ref().is_some_and(|bridge| bridge.mtu >= IPV6_MTU);
    if has_ipv6 && !(had_ipv6 && seen.ignores_ra) {
        plan.push(set(sysctl("net/ipv6/conf", name, "accept_ra", "0"), seen));
    }
    // Linux answers for every address of the VRF, or of the host, on each of its devices.
    if is_tenants(network, seen) && (seen.bridge.is_none() || !seen.arp_own) {
        plan.push(set(sysctl("net/ipv4/conf", name, "arp_ignore", "1"), seen));
    }
    let hears = hears(want, seen);
    if hears != seen.hears {
        let step = |hears| Step::Hear { dev: name.clone(), hears };
        plan.push(if seen.bridge.is_some() { with_undo(step(hears), step(seen.hears)) } else { plain(step(hears)) });
    }
    if let Some(vrf) = &network.vrf
        && !in_vrf(seen)
    {
        leave_first(network.vni, seen.bridge.as_ref(), seen, plan);
        let mut undo = vec![Step::SetMaster { dev: name.clone(), master: None }];
        undo.extend(addresses_back(name, seen));
        plan.push(Planned { step: Step::SetMaster { dev: name.clone(), master: Some(vrf.name.clone()) }, undo });
        plan.extend(addresses_back(name, seen).map(plain));
        plan.push(set(rp_filter_loose(name), seen));
    } else if network.vrf.is_some() && !seen.loose.contains(name) {
        plan.push(set(rp_filter_loose(name), seen));
    }
    addresses(network, seen, plan);
}

/// Will the bridge have IPv6? On a small MTU the kernel has none, and nothing that could be set.
fn has_ipv6(network: &Network, seen: &Seen) -> bool {
    !seen.no_ipv6 && network.mtu.is_none_or(|mtu| mtu >= IPV6_MTU)
}

/// What a bridge that is there already lacks.
fn is_there(want: &Wanted, bridge: &Link, seen: &Seen, plan: &mut Plan) {
    let network = want.network;
    let name = &network.bridge;
    if let LinkKind::Bridge { default_pvid: pvid @ 1.., .. } = bridge.kind {
        let back = Step::SetDefaultPvid { bridge: name.clone(), pvid };
        plan.push(with_undo(Step::ClearDefaultPvid { bridge: name.clone() }, back));
    }
    // Before its first port: one that joins a bridge with STP listens for 2 s and learns for 2 s before it forwards, and one that does
    // already goes on (net/bridge/br_stp_if.c `br_stp_stop`).
    if let LinkKind::Bridge { stp, .. } = bridge.kind
        && stp != network.stp
        && sets_stp(network, Some(bridge), &seen.made)
    {
        let step = |on| Step::SetStp { bridge: name.clone(), on };
        plan.push(with_undo(step(network.stp), step(stp)));
    }
    // A bound that somebody chose stays, be it higher or lower.
    if bridge.max_learned == Some(0) {
        let step = |most| Step::SetMaxLearned { bridge: name.clone(), most };
        plan.push(with_undo(step(MAX_LEARNED), step(0)));
    }
    if let Some(mtu) = network.mtu {
        plan.extend(mtu_of(bridge, mtu));
    }
    // One that somebody made has its MAC by chance where nobody asks for another; ours has the gateway's, or an earlier version's, which guests know.
    let earlier = want.vtep.map(router_mac);
    let ours = seen.made.contains(name) && (earlier.is_none() || bridge.mac != earlier);
    let mac = network.mac.or(ours.then(|| gateway_mac(network.vni)));
    if let (Some(mac), Some(was)) = (mac, bridge.mac)
        && mac != was
    {
        let step = |mac: Mac| Step::SetMac { dev: name.clone(), mac };
        plan.push(with_undo(step(mac), step(was)));
    }
    // libvirt switches IPv6 off on a bridge without an IPv6 address; the kernel then refuses a guest's IPv6
    // neighbour (net/ipv6/ndisc.c ndisc_allow_add). No address generation keeps the host itself off the segment.
    if seen.bridge_ipv6_off && has_ipv6(network, seen) {
        let no = Step::NoAddrGen { dev: name.clone() };
        plan.push(match bridge.addrgen_none {
            Some(false) => with_undo(no, Step::AddrGen { dev: name.clone() }),
            _ => plain(no),
        });
        plan.push(set(sysctl("net/ipv6/conf", name, "disable_ipv6", "0"), seen));
    }
}

/// Another MTU, where a device has not this one.
pub(super) fn mtu_of(link: &Link, mtu: u32) -> Option<Planned> {
    let step = |mtu| Step::SetMtu { dev: link.name.clone(), mtu };
    (link.mtu != mtu).then(|| with_undo(step(mtu), step(link.mtu)))
}

/// Gateways that are not wanted any more go, of those that were put there; then what is missing comes.
///
/// libvirt has put its own there before we are called, and does not put them back when somebody takes them off, or a bridge that was set
/// down loses those of IPv6.
fn addresses(network: &Network, seen: &Seen, plan: &mut Plan) {
    let name = &network.bridge;
    let put = seen.before.iter().flat_map(|before| &before.addresses);
    let gone: Vec<IpNet> = put.filter(|a| !network.gateway.contains(a)).copied().collect();
    let add = |address: &IpNet| {
        let add = Step::AddAddress { dev: name.clone(), address: *address };
        let del = Step::DelAddress { dev: name.clone(), address: *address };
        if seen.bridge.is_some() { with_undo(add, del) } else { plain(add) }
    };
    // What comes into the subnet of one that goes would go with it. The others come first: a bridge that has lost its last IPv4 address has lost its
    // neighbours as well (net/ipv4/fib_frontend.c `fib_disable_ip`).
    let missing = network.gateway.iter().filter(|address| !seen.bridge_addresses.contains(address));
    let (after, before): (Vec<_>, Vec<_>) = missing.partition(|a| gone.iter().any(|g| g.trunc() == a.trunc()));
    plan.extend(before.into_iter().map(add));
    plan.extend(taken_off(name, &gone, seen));
    plan.extend(after.into_iter().map(add));
}

/// Takes these addresses off, as far as they are there. With the first address of an IPv4 subnet the kernel takes the others of it
/// (net/ipv4/devinet.c `__inet_del_ifa`, without promote_secondaries): those are put there again.
fn taken_off(name: &IfName, gone: &[IpNet], seen: &Seen) -> Plan {
    let there = |a: &&IpNet| seen.bridge_addresses.contains(a);
    let step = |address: IpNet| Step::AddAddress { dev: name.clone(), address };
    let del = |address: IpNet| Step::DelAddress { dev: name.clone(), address };
    let mut plan: Plan = gone.iter().filter(there).map(|a| with_undo(del(*a), step(*a))).collect();
    let went_along = |a: &&IpNet| {
        let same = |g: &IpNet| g.addr().is_ipv4() && g.trunc() == a.trunc() && seen.bridge_addresses.contains(g);
        !gone.contains(a) && gone.iter().any(same)
    };
    plan.extend(seen.bridge_addresses.iter().filter(went_along).map(|a| plain(step(*a))));
    plan
}

/// Is the bridge's STP ours to set? libvirt makes its bridge for this network alone, and anew each time; who made another may want it on.
pub fn sets_stp(network: &Network, bridge: Option<&Link>, made: &BTreeSet<IfName>) -> bool {
    network.origin == Origin::Libvirt || made.contains(&network.bridge) || bridge.is_none_or(|link| link.ours)
}

/// What the host has to do with a network's packets beside bridging them.
fn hears(want: &Wanted, seen: &Seen) -> Hears {
    let network = want.network;
    // What was put there and is to go is no wish any more.
    let put = |a: &IpNet| seen.before.as_ref().is_some_and(|before| before.addresses.contains(a));
    match &network.vrf {
        Some(_) if want.tenant_bgp => Hears::All,
        Some(_) => Hears::NoLinkLocalService,
        // An address makes the host one of them, by somebody's wish.
        None if network.gateway.is_empty() && seen.bridge_addresses.iter().all(put) && is_tenants(network, seen) => {
            Hears::Nothing
        }
        None => Hears::All,
    }
}

/// Is the bridge there for this tenant alone? One that an administrator made may be the host's own way to its network.
fn is_tenants(network: &Network, seen: &Seen) -> bool {
    network.vrf.is_some()
        || network.origin == Origin::Libvirt
        || seen.bridge.is_none()
        || seen.made.contains(&network.bridge)
}

/// The kernel flushes a bridge's IPv6 addresses when its VRF changes; FRR 8.4 forgets the IPv4 ones of an interface that enters a VRF as
/// young as ours. Telling both again mends both.
fn addresses_back<'a>(bridge: &'a IfName, seen: &'a Seen) -> impl Iterator<Item = Step> + 'a {
    seen.bridge_addresses.iter().map(|address| Step::AddAddress { dev: bridge.clone(), address: *address })
}

/// What this plan changes on the bridge, added to what earlier ones did: of each setting the first memory wins. Call before the plan is walked.
pub fn remember(want: &Wanted, seen: &Seen, plan: &Plan) -> Before {
    let network = want.network;
    let name = &network.bridge;
    let mut before = seen.before.clone().unwrap_or_default();
    let theirs = seen.bridge.as_ref().filter(|_| !seen.made.contains(name));
    // A lost register. Our own bridge is in its VRF by us, and what it has of its gateways we put there; another is in our VRF by us where our VXLAN
    // is on it.
    if seen.before.is_none() && theirs.is_some() {
        let vxlan = |l: &Link| l.ours && l.name == network.vni.device() && l.master.is_some();
        let made_vrf = network.vrf.as_ref().is_some_and(|vrf| seen.made.contains(&vrf.name));
        before.entered = in_vrf(seen) && made_vrf && seen.vxlans.iter().any(vxlan);
    } else if seen.before.is_none() {
        before.entered = in_vrf(seen);
        let gateways = seen.bridge_addresses.iter().filter(|a| network.gateway.contains(a));
        before.addresses.extend(gateways.filter(|_| network.origin != Origin::Libvirt));
    }
    for Planned { step, .. } in plan {
        match (step, theirs) {
            (Step::SetMaster { dev, master: Some(_) }, _) if dev == name => before.entered = true,
            // libvirt's own it takes off itself.
            (Step::AddAddress { dev, address }, _)
                if dev == name && network.origin != Origin::Libvirt && !seen.bridge_addresses.contains(address) =>
            {
                before.addresses.insert(*address);
            }
            (Step::SetMtu { dev, mtu }, Some(was)) if dev == name => {
                before.mtu.get_or_insert(was.mtu);
                // The kernel drops all that was set of its IPv6, and begins anew when the MTU is back.
                let lost = seen.settings.iter().filter(|(path, _)| *mtu < IPV6_MTU && is_ipv6_of(path, name));
                for (path, was) in lost {
                    before.settings.entry(path.clone()).or_insert_with(|| was.clone());
                }
            }
            (Step::SetMac { dev, .. }, Some(was)) if dev == name => before.mac = before.mac.or(was.mac),
            (Step::ClearDefaultPvid { bridge }, Some(was)) if bridge == name => {
                if let LinkKind::Bridge { default_pvid, .. } = was.kind {
                    before.default_pvid.get_or_insert(default_pvid);
                }
            }
            (Step::SetMaxLearned { bridge, .. }, Some(_)) if bridge == name => before.unbounded = true,
            (Step::NoAddrGen { dev }, Some(was)) if dev == name => before.addrgen |= was.addrgen_none == Some(false),
            (Step::SetUp { dev, up: true }, Some(_)) if dev == name => before.down = true,
            (Step::Sysctl { path, .. }, Some(_)) => {
                if let Some(was) = seen.settings.get(path).filter(|_| is_of(path, name)) {
                    before.settings.entry(path.clone()).or_insert_with(|| was.clone());
                }
            }
            _ => {}
        }
    }
    before
}

fn is_ipv6_of(path: &str, bridge: &IfName) -> bool {
    path.starts_with("net/ipv6/") && is_of(path, bridge)
}

fn is_of(path: &str, bridge: &IfName) -> bool {
    path.split('/').nth(3) == Some(bridge.as_str())
}

/// Gives a bridge back that stays: without what was put on it, and as it was.
pub fn given_back(network: &Network, before: &Before, seen: &Seen) -> Plan {
    let name = &network.bridge;
    let mut plan = Plan::new();
    let Some(bridge) = seen.bridge.as_ref().filter(|l| l.name == *name) else { return plan };
    // Off before it leaves its VRF: the host's own table must not see a tenant's gateway.
    let gone: Vec<IpNet> = before.addresses.iter().copied().collect();
    plan.extend(taken_off(name, &gone, seen).into_iter().map(|planned| plain(planned.step)));
    if before.entered && bridge.master.is_some() && network.vrf.is_some() {
        plan.push(plain(Step::SetMaster { dev: name.clone(), master: None }));
        let kept = seen.bridge_addresses.iter().filter(|a| !gone.contains(a));
        plan.extend(kept.map(|a| plain(Step::AddAddress { dev: name.clone(), address: *a })));
    }
    if seen.hears != Hears::All {
        plan.push(plain(Step::Hear { dev: name.clone(), hears: Hears::All }));
    }
    if let Some(mac) = before.mac.filter(|mac| bridge.mac != Some(*mac)) {
        plan.push(plain(Step::SetMac { dev: name.clone(), mac }));
    }
    plan.extend(before.mtu.and_then(|mtu| mtu_of(bridge, mtu)).map(|planned| plain(planned.step)));
    // A bridge that got its MAC from its ports has none without them, and then the kernel takes no VLAN on it (net/bridge/br_fdb.c `fdb_add_local`).
    if let (Some(was), LinkKind::Bridge { default_pvid, .. }) = (before.default_pvid, &bridge.kind)
        && was != *default_pvid
        && bridge.mac.is_some()
    {
        plan.push(plain(Step::SetDefaultPvid { bridge: name.clone(), pvid: was }));
    }
    if before.unbounded && bridge.max_learned == Some(MAX_LEARNED) {
        plan.push(plain(Step::SetMaxLearned { bridge: name.clone(), most: 0 }));
    }
    if before.addrgen && bridge.addrgen_none == Some(true) {
        plan.push(plain(Step::AddrGen { dev: name.clone() }));
    }
    let comes_back = bridge.mtu < IPV6_MTU && before.mtu.is_some_and(|mtu| mtu >= IPV6_MTU);
    let other = |(path, was): &(&String, &String)| match seen.settings.get(*path) {
        Some(now) => now != *was,
        None => comes_back && is_ipv6_of(path, name),
    };
    let back = |(path, was): (&String, &String)| plain(Step::Sysctl { path: path.clone(), value: was.clone() });
    plan.extend(before.settings.iter().filter(other).map(back));
    if before.down && bridge.up {
        plan.push(plain(Step::SetUp { dev: name.clone(), up: false }));
    }
    plan
}

/// 2 is loose: asymmetric paths through a VRF must not be dropped, and the larger of `all` and the device's own counts
/// (net/ipv4/fib_frontend.c `IN_DEV_RPFILTER`), so 0 would leave a strict host-wide setting in force.
pub(super) fn rp_filter_loose(dev: &IfName) -> Step {
    sysctl("net/ipv4/conf", dev, "rp_filter", "2")
}

fn sysctl(room: &str, dev: &IfName, key: &str, value: &str) -> Step {
    Step::Sysctl { path: format!("{room}/{dev}/{key}"), value: value.to_owned() }
}

/// A setting of a device; one that was there gets its own back.
pub(super) fn set(step: Step, seen: &Seen) -> Planned {
    let was = match &step {
        Step::Sysctl { path, .. } => seen.settings.get_key_value(path),
        _ => None,
    };
    match was {
        Some((path, value)) => with_undo(step, Step::Sysctl { path: path.clone(), value: value.clone() }),
        None => plain(step),
    }
}

#[cfg(test)]
#[path = "bridge_test.rs"]
mod tests;
