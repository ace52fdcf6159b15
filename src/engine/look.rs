//! What of the host a network's plan depends on.

use super::{EngineError, host};
use crate::config::{Network, PortSecurity, Vrf};
use crate::guard;
use crate::kernel::{Kernel, sysctl};
use crate::model::{IfName, Vni};
use crate::plan::network::{IPV6_MTU, Seen};
use crate::plan::seen::{Link, LinkKind, World};
use std::collections::BTreeSet;

/// Whether somebody else's devices may have a network's VNIs, or its VRF's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clashes {
    /// It was looked for already.
    Known,
    /// It is looked for, where the network's own devices are not there yet: by lists of one kind, which grow with the host.
    Sought,
}

/// The host around one network: its devices with their masters, and its bridge's addresses. By single questions, for what a hook reads must not grow
/// with the host.
pub(super) fn around(kernel: &mut Kernel, network: &Network, clashes: Clashes) -> Result<World, EngineError> {
    look(kernel, network, clashes, &[])
}

/// The same with the ports of these of its devices: the kernel walks all of the host's devices for each, so only who takes one down asks.
pub(super) fn around_with_ports(kernel: &mut Kernel, network: &Network, of: &[&IfName]) -> Result<World, EngineError> {
    look(kernel, network, Clashes::Known, of)
}

fn look(kernel: &mut Kernel, network: &Network, clashes: Clashes, ports_of: &[&IfName]) -> Result<World, EngineError> {
    let mut links = Vec::new();
    for device in devices_of(network).into_iter().chain(network.vrf.iter().flat_map(devices_of_vrf)) {
        links.extend(kernel.link(&device)?);
    }
    let named = |links: &[Link], name: &IfName| links.iter().find(|l| l.name == *name).map(|l| l.index);
    let bridge = named(&links, &network.bridge);
    let vrf = network.vrf.as_ref().and_then(|vrf| named(&links, &vrf.name));
    let mut more = Vec::new();
    for master in ports_of.iter().filter_map(|name| named(&links, name)) {
        more.extend(kernel.ports_of(master)?);
    }
    if clashes == Clashes::Sought {
        let missing: Vec<Vni> = vnis_of(network).filter(|vni| named(&links, &vni.device()).is_none()).collect();
        if !missing.is_empty() {
            let others = kernel.links_of_kind("vxlan")?.into_iter();
            more.extend(
                others.filter(|l| matches!(l.kind, LinkKind::Vxlan { vni: Some(vni), .. } if missing.contains(&vni))),
            );
        }
        if let (Some(wanted), None) = (&network.vrf, vrf) {
            let others = kernel.links_of_kind("vrf")?.into_iter();
            more.extend(others.filter(|l| l.kind == LinkKind::Vrf { table: wanted.table }));
        }
    }
    let has = |links: &[Link], index: u32| links.iter().any(|l| l.index == index);
    for link in more {
        if !has(&links, link.index) {
            links.push(link);
        }
    }
    for master in links.iter().filter_map(|l| l.master).collect::<BTreeSet<_>>() {
        if !has(&links, master) {
            links.extend(kernel.link_by_index(master)?);
        }
    }
    let addresses = match bridge {
        Some(bridge) => kernel.addresses(Some(bridge))?,
        None => Vec::new(),
    };
    Ok(World::new(links, addresses))
}

/// What of the host a network's plan depends on, out of the whole.
pub(super) fn observe(kernel: &mut Kernel, world: &World, network: &Network) -> Result<Seen, EngineError> {
    let bridge = world.link(&network.bridge);
    let own: Vec<IfName> = vnis_of(network).map(Vni::device).collect();
    // What a bridge that is still to be made will start with.
    let like = if bridge.is_some() { network.bridge.as_str() } else { "default" };
    let ipv6_off = sysctl(&format!("net/ipv6/conf/{like}/disable_ipv6"))?;
    let accept_ra = sysctl(&format!("net/ipv6/conf/{like}/accept_ra"))?;
    let ignores_ra = accept_ra.as_ref().is_none_or(|v| v == "0");
    // A bridge with a small MTU has none of its own (see `IPV6_MTU`).
    let no_ipv6 = accept_ra.is_none() && bridge.is_none_or(|bridge| bridge.mtu >= IPV6_MTU);
    let arp_ignore = sysctl(&format!("net/ipv4/conf/{like}/arp_ignore"))?;
    let is_vxlan = |l: &Link| matches!(l.kind, LinkKind::Vxlan { .. });
    let named = own.iter().filter_map(|dev| world.link(dev)).filter(|l| is_vxlan(l));
    let others = vnis_of(network).flat_map(|vni| world.vxlans(vni)).filter(|l| !own.contains(&l.name));
    let mut seen = Seen {
        bridge: bridge.cloned(),
        ignores_ra,
        no_ipv6,
        arp_own: arp_ignore.as_ref().is_none_or(|v| matches!(v.trim(), "1" | "2")),
        bridge_ipv6_off: ipv6_off.as_ref().is_some_and(|v| v.trim() == "1"),
        vxlans: named.chain(others).cloned().collect(),
        strangers: own.iter().filter(|dev| world.link(dev).is_some_and(|l| !is_vxlan(l))).cloned().collect(),
        ..Seen::default()
    };
    if let Some(bridge) = bridge {
        let was = [("accept_ra", accept_ra), ("disable_ipv6", ipv6_off)];
        let was = was.into_iter().filter_map(|(key, value)| Some((key, value?)));
        seen.settings.extend(was.map(|(key, value)| (format!("net/ipv6/conf/{}/{key}", bridge.name), value)));
        seen.settings.extend(arp_ignore.map(|value| (format!("net/ipv4/conf/{}/arp_ignore", bridge.name), value)));
        seen.hears = kernel.hears(bridge.index)?;
        let ports = world.slaves(bridge.index).map(|l| l.name.clone());
        seen.bridge_ports = ports.filter(|n| *n != network.vni.device()).collect();
        // A gateway may be link-local; other link-local addresses are the kernel's.
        let global = world.addresses(bridge.index).filter(|a| a.global || network.gateway.contains(&a.net));
        seen.bridge_addresses = global.map(|a| a.net).collect();
    }
    if let Some(vrf) = &network.vrf {
        observe_vrf(kernel, world, vrf, Some(&network.bridge), &mut seen)?;
        let wants6 = network.gateway.iter().any(|gateway| gateway.addr().is_ipv6());
        seen.host = host::observe(kernel, wants6)?;
    }
    // Where nobody can tell, laying them says why.
    let laid = || world.guards_laid().unwrap_or_else(|| guard::are_laid().unwrap_or(false));
    seen.guards_laid = network.security() == PortSecurity::Off || laid();
    let secured = || match world.guards_laid() {
        Some(_) => world.is_secured(&network.bridge),
        None => guard::is_secured(&network.bridge).unwrap_or(false),
    };
    seen.bridge_guarded = network.security() == PortSecurity::Off || secured();
    let masters = seen.bridge.iter().chain(&seen.vxlans).chain(&seen.l3_bridge).filter_map(|l| l.master);
    seen.names = masters.filter_map(|m| Some((m, world.by_index(m)?.name.clone()))).collect();
    Ok(seen)
}

/// The VRF's part of it; `bridge` is the network's own, which is no stranger in its VRF.
pub(super) fn observe_vrf(
    kernel: &mut Kernel,
    world: &World,
    vrf: &Vrf,
    bridge: Option<&IfName>,
    seen: &mut Seen,
) -> Result<(), EngineError> {
    seen.vrfs = world.links().filter(|l| l.kind == LinkKind::Vrf { table: vrf.table }).cloned().collect();
    seen.vrf = world.link(&vrf.name).cloned();
    let l3 = vrf.name.l3_bridge().ok();
    for dev in bridge.into_iter().chain(&l3).filter(|dev| world.link(dev).is_some()) {
        let path = format!("net/ipv4/conf/{dev}/rp_filter");
        if let Some(filter) = sysctl(&path)? {
            if filter == "2" {
                seen.loose.insert(dev.clone());
            }
            seen.settings.insert(path, filter);
        }
    }
    if let (Some(l3), Some(_)) = (&l3, vrf.vni) {
        seen.l3_bridge = world.link(l3).cloned();
    }
    if let Some(link) = &seen.vrf {
        let ours = |name: &IfName| Some(name) == bridge || l3.as_ref() == Some(name);
        let slaves = world.slaves(link.index).map(|l| l.name.clone());
        seen.vrf_foreign_slaves = slaves.filter(|n| !ours(n)).collect();
    }
    seen.unreachable = kernel.unreachable(vrf.table)?;
    if seen.vrf.is_none() {
        seen.table_has = kernel.route_of_others(vrf.table)?;
    }
    Ok(())
}

/// A network's VNIs: its own, and its VRF's.
fn vnis_of(network: &Network) -> impl Iterator<Item = Vni> {
    [Some(network.vni), network.vrf.as_ref().and_then(|vrf| vrf.vni)].into_iter().flatten()
}

/// The devices that a network, or a VRF, is made of.
pub fn devices_of(network: &Network) -> [IfName; 2] {
    [network.bridge.clone(), network.vni.device()]
}

/// See [`devices_of`].
pub fn devices_of_vrf(vrf: &Vrf) -> Vec<IfName> {
    let l3 = vrf.vni.and_then(|vni| Some([vrf.name.l3_bridge().ok()?, vni.device()]));
    std::iter::once(vrf.name.clone()).chain(l3.into_iter().flatten()).collect()
}
