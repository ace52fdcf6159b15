//! A tenant segment up and down.

use super::bridge::{self, Found, is_the_hosts, mtu_of, rp_filter_loose, set};
use super::rules::{self, Order, Rules};
use super::seen::{Link, LinkKind, PortFlags};
use super::{Hears, Plan, Planned, Refusal, Step, order, plain, with_undo};
use crate::config::{Before, Network, Origin, PortSecurity, Vrf};
use crate::model::{IfName, Mac, Vni};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What is observed before a network is planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The network's bridge.
    pub bridge: Option<Link>,
    /// Its addresses, the link-local ones left out.
    pub bridge_addresses: Vec<IpNet>,
    /// Its ports but for the VXLAN device: guests that still run.
    pub bridge_ports: Vec<IfName>,
    /// What an earlier run changed on it; none where none did, and `found` tells whether it may.
    pub before: Option<Before>,
    /// What somebody else's bridge is to the host, before it is taken over.
    pub found: Option<Found>,
    /// `net.ipv6.conf.<bridge>.accept_ra` is 0, or there is no IPv6.
    pub ignores_ra: bool,
    /// This host has no IPv6 at all (`ipv6.disable=1`).
    pub no_ipv6: bool,
    /// `net.ipv4.conf.<bridge>.arp_ignore` is 1 or 2: it answers for its own addresses only.
    pub arp_own: bool,
    /// What the host takes from the bridge.
    pub hears: Hears,
    /// Of the network's bridge and the VRF's those whose `rp_filter` is loose.
    pub loose: BTreeSet<IfName>,
    /// The settings of bridges that are there, below /proc/sys.
    pub settings: BTreeMap<String, String>,
    /// `net.ipv6.conf.<bridge>.disable_ipv6`, or `default`'s where the bridge is still to be made.
    pub bridge_ipv6_off: bool,
    /// The masters of the devices here by index, so that a refusal can name what is in the way.
    pub names: BTreeMap<u32, IfName>,
    /// The VXLAN devices with one of our names or VNIs: a VNI exists once in the kernel.
    pub vxlans: Vec<Link>,
    /// Devices that are called as our VXLAN devices will be, and are something else.
    pub strangers: Vec<IfName>,
    /// The VRFs on the wanted table: it belongs to one.
    pub vrfs: Vec<Link>,
    /// A route of others in the wanted table, in words; nobody looks where the VRF is there, or was.
    pub table_has: Option<String>,
    /// The device with the VRF's name, whatever it is.
    pub vrf: Option<Link>,
    /// Its slaves that are not ours.
    pub vrf_foreign_slaves: Vec<IfName>,
    /// The device with the L3VNI bridge's name.
    pub l3_bridge: Option<Link>,
    /// Host-wide settings.
    pub host: HostSeen,
    /// Of the devices above those that we made.
    pub made: BTreeSet<IfName>,
    /// The VRF's table has its unreachable default.
    pub unreachable: bool,
    /// The speaker must know the VRF before its table has a route ([`Step::AwaitVrf`]).
    pub vrf_before_routes: bool,
    /// Does the speaker hold the VRF's stanzas already?
    pub speaker_has_vrf: bool,
    /// The rules of port security are there, or nobody asks for them.
    pub guards_laid: bool,
    /// The bridge's ports that are no guest's are held, or nobody asks for it.
    pub bridge_guarded: bool,
}

/// Host-wide settings that a VRF needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSeen {
    /// `net.ipv4.ip_forward`
    pub forward4: bool,
    /// `net.ipv6.conf.all.forwarding`; `None` without IPv6.
    pub forward6: Option<bool>,
    /// The routing rules of each family.
    pub rules: Vec<Rules>,
    /// Devices that take router advertisements now and would stop once the host forwards (`accept_ra` is 1).
    pub accepts_ra: Vec<IfName>,
}

/// What is wanted besides the network itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The network, its MTU resolved.
    pub network: &'a Network,
    /// This host's tunnel end; none while it has no address: then all is made but what has it in it, which comes with the address.
    pub vtep: Option<IpAddr>,
    /// UDP port of the tunnels.
    pub port: u16,
    /// The MTU of the VRF's L3VNI: that of the largest of its networks, for what is routed between two of those must not be lost.
    pub l3_mtu: Option<u32>,
    /// Put the VRF's stanzas into the speaker.
    pub manage_speaker: bool,
    /// May host-wide settings change?
    pub manage_host: bool,
    /// Guests may open BGP sessions to their gateway.
    pub tenant_bgp: bool,
}

/// The one MAC of all L3VNI bridges of this VTEP: peers that see two router MACs behind one VTEP address drop traffic
/// (<https://github.com/FRRouting/frr/issues/22577>). Locally administered, made from the VTEP's address so that it
/// survives reboots and differs between hosts.
pub fn router_mac(vtep: IpAddr) -> Mac {
    let [a, b, c, d] = match vtep {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let hash = v6.octets().iter().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
            hash.to_be_bytes()
        }
    };
    Mac::from_bytes(&[0x02, 0x45, a, b, c, d]).expect("0x02 is unicast and not zero")
}

/// The MAC of a bridge that is given none: made from the VNI, so that it is the same on every host, as the gateway's has to be, and there before the
/// VTEP's address is. Locally administered.
pub fn gateway_mac(vni: Vni) -> Mac {
    let [_, a, b, c] = vni.get().to_be_bytes();
    Mac::from_bytes(&[0x06, 0x45, 0, a, b, c]).expect("0x06 is unicast and not zero")
}

/// The smallest MTU of a device with IPv6 in bytes (RFC 8200 §5). On one with less the kernel has none (net/ipv6/addrconf.c `addrconf_notify`), and
/// nothing of it below /proc/sys/net/ipv6/conf.
pub const IPV6_MTU: u32 = 1280;

/// Brings a network up, or completes one that is half up; empty if nothing is missing.
pub fn up(want: &Wanted, seen: &Seen) -> Result<Plan, Refusal> {
    let network = want.network;
    // A tunnel that is there ends where it does, also while that address is away.
    let ends = |link: &Link| match link.kind {
        LinkKind::Vxlan { local, .. } => local,
        _ => None,
    };
    let want = &Wanted { vtep: want.vtep.or(tunnel(seen, network.vni).and_then(ends)), ..want.clone() };
    let mut plan = Plan::new();
    if network.origin == Origin::Libvirt && seen.bridge.is_none() {
        return Err(Refusal(format!(
            "network {0}: bridge {1} is not there: start the network with 'virsh net-start {0}'",
            network.name, network.bridge
        )));
    }
    precheck(network, seen)?;
    if network.security() != PortSecurity::Off && !seen.guards_laid {
        plan.push(plain(Step::LayGuards));
    }
    if network.security() != PortSecurity::Off && !seen.bridge_guarded {
        let guard = |on| Step::GuardBridge { bridge: network.bridge.clone(), on };
        plan.push(with_undo(guard(true), guard(false)));
    }
    finish(seen, &mut plan);
    if let Some(vrf) = &network.vrf {
        if want.manage_host {
            no_rule_is_in_the_way(network, &seen.host, !want.tenant_bgp)?;
            host(routes6(network), !want.tenant_bgp, &seen.host, &mut plan);
        }
        vrf_up(want, vrf, seen, &mut plan)?;
    }
    bridge::up(want, seen, &mut plan);
    let mut own = vec![network.bridge.clone()];
    if let Some(vtep) = want.vtep {
        let (vni, mtu, bridge) = (network.vni, network.mtu, &network.bridge);
        vxlan_up(want, &Tunnel { vtep, vni, mtu, bridge, on: seen.bridge.as_ref() }, seen, &mut plan)?;
        own.push(network.vni.device());
    }
    for dev in own {
        plan.extend(raised(dev, seen.vxlans.iter().chain(&seen.bridge), &plan));
    }
    Ok(order::lawful(plan))
}

/// What contradicts: names taken by other things, VNIs and tables in use elsewhere.
pub fn precheck(network: &Network, seen: &Seen) -> Result<(), Refusal> {
    let refuse = |text: String| Err(Refusal(format!("network {}: {text}", network.name)));
    let vlan_aware = matches!(seen.bridge, Some(Link { kind: LinkKind::Bridge { vlan_filtering: true, .. }, .. }));
    if network.vlan_aware || vlan_aware {
        return refuse(format!(
            "bridge {} is VLAN-aware: take macTableManager='libvirt' out of the network's XML, or vlan_filtering off the bridge",
            network.bridge
        ));
    }
    match &seen.bridge {
        Some(Link { kind: LinkKind::Bridge { .. }, .. }) => {}
        Some(_) => {
            return refuse(format!("device {} is there and is not a bridge: use another bridge name", network.bridge));
        }
        None => {}
    }
    vni_is_free(network, network.vni, seen.bridge.as_ref().map(|b| b.index), &network.bridge, seen)?;
    if let Some(refusal) = is_the_hosts(network, seen) {
        return Err(refusal);
    }
    let Some(vrf) = &network.vrf else {
        return match seen.bridge.as_ref().and_then(|b| b.master) {
            Some(master) => refuse(format!(
                "bridge {} has a master already ({}) but the network names no VRF: name it, or 'ip link set {} nomaster'",
                network.bridge,
                name_of(master, seen),
                network.bridge
            )),
            None => Ok(()),
        };
    };
    match &seen.vrf {
        Some(Link { kind: LinkKind::Vrf { table }, .. }) if *table != vrf.table => {
            return refuse(format!(
                "VRF {} is there with table {table}, not {}: make the two agree",
                vrf.name, vrf.table
            ));
        }
        Some(Link { kind: LinkKind::Vrf { .. }, .. }) | None => {}
        Some(_) => return refuse(format!("device {} is there and is not a VRF: use another VRF name", vrf.name)),
    }
    for other in &seen.vrfs {
        if other.kind == (LinkKind::Vrf { table: vrf.table }) && other.name != vrf.name {
            return refuse(format!(
                "table {} is VRF {}'s already: give VRF {} another",
                vrf.table, other.name, vrf.name
            ));
        }
    }
    if let Some(route) = &seen.table_has {
        return refuse(format!(
            "routing table {} has a route that is not VRF {}'s: '{route}': give the VRF another table, or delete the route",
            vrf.table, vrf.name
        ));
    }
    if let (Some(bridge), vrf_link) = (&seen.bridge, &seen.vrf)
        && bridge.master.is_some()
        && bridge.master != vrf_link.as_ref().map(|v| v.index)
    {
        let master = bridge.master.map(|m| name_of(m, seen)).unwrap_or_default();
        return refuse(format!(
            "bridge {} is in {master} already, not in VRF {}: 'ip link set {} nomaster' or name that VRF",
            network.bridge, vrf.name, network.bridge
        ));
    }
    if let Some(vni) = vrf.vni {
        let l3_name = vrf.name.l3_bridge().map_err(|e| Refusal(e.to_string()))?;
        if vni == network.vni {
            return refuse(format!("VNI {vni} is both its own and VRF {}'s: they must differ", vrf.name));
        }
        if let Some(l3) = &seen.l3_bridge
            && !matches!(l3.kind, LinkKind::Bridge { .. })
        {
            return refuse(format!("device {l3_name} is there and is not a bridge: rename it, or the VRF"));
        }
        if let Some(master) = seen.l3_bridge.as_ref().and_then(|l3| l3.master)
            && Some(master) != seen.vrf.as_ref().map(|v| v.index)
        {
            return refuse(format!(
                "bridge {l3_name} is in {} already, not in VRF {}: 'ip link set {l3_name} nomaster' or rename the VRF",
                name_of(master, seen),
                vrf.name
            ));
        }
        vni_is_free(network, vni, seen.l3_bridge.as_ref().map(|b| b.index), &l3_name, seen)?;
    }
    Ok(())
}

/// A VNI may exist only as `vxlan<VNI>` on this bridge.
fn vni_is_free(
    network: &Network,
    vni: Vni,
    bridge: Option<u32>,
    bridge_name: &IfName,
    seen: &Seen,
) -> Result<(), Refusal> {
    if seen.strangers.contains(&vni.device()) {
        return Err(Refusal(format!(
            "network {}: device {} is there and is not a VXLAN device: rename it, or use another VNI",
            network.name,
            vni.device()
        )));
    }
    for device in &seen.vxlans {
        let same_vni = matches!(device.kind, LinkKind::Vxlan { vni: Some(v), .. } if v == vni);
        let same_name = device.name == vni.device();
        if !same_vni && !same_name {
            continue;
        }
        if same_vni && same_name && (device.master.is_none() || device.master == bridge) {
            continue;
        }
        let on = device.master.map_or("no bridge".to_owned(), |m| format!("bridge {}", name_of(m, seen)));
        return Err(Refusal(format!(
            "network {}: VNI {vni} is already used by {} on {on} and wanted as {} on {bridge_name}: use another VNI, or delete that device{}",
            network.name,
            device.name,
            vni.device(),
            // Another tool's of the same segment. Up, a device keeps its name before Linux 6.4 (net/core/dev.c `dev_change_name`).
            match same_vni && (device.master.is_none() || device.master == bridge) {
                true => format!(
                    ", or rename it: 'ip link set {0} down; ip link set {0} name {1} up'",
                    device.name,
                    vni.device()
                ),
                false => String::new(),
            }
        )));
    }
    Ok(())
}

fn name_of(index: u32, seen: &Seen) -> String {
    seen.names.get(&index).map_or(format!("the device with index {index}"), IfName::to_string)
}

fn tunnel(seen: &Seen, vni: Vni) -> Option<&Link> {
    seen.vxlans.iter().find(|l| l.name == vni.device())
}

/// IP forwarding and the routing rules, each only where it is not so yet.
pub fn host(wants6: bool, bgp_closed: bool, host: &HostSeen, plan: &mut Plan) {
    let set = |path: &str, value: &str| plain(Step::Sysctl { path: path.to_owned(), value: value.to_owned() });
    if !host.forward4 {
        plan.push(set("net/ipv4/ip_forward", "1"));
    }
    if wants6 && host.forward6 == Some(false) {
        plan.extend(uplinks_keep_ra(host));
        plan.push(set("net/ipv6/conf/all/forwarding", "1"));
    }
    // That FRR is open to guests is only its own `router bgp … vrf`'s doing.
    let order = Order::VrfsFirst { bgp_closed };
    if host.rules.iter().any(|rules| rules::next(rules, order).is_some()) {
        plan.push(plain(Step::Rules { order }));
    }
}

/// A rule of others that a tenant's packets would meet before their VRF, or the host's own before table local.
pub fn no_rule_is_in_the_way(network: &Network, host: &HostSeen, bgp_closed: bool) -> Result<(), Refusal> {
    match host.rules.iter().find_map(|rules| rules::in_the_way(rules, bgp_closed)) {
        None => Ok(()),
        Some(rule) => Err(Refusal(format!(
            "network {}: routing rule '{rule}' would be asked before the VRFs: add it again with 'preference 1' or more, and delete this one",
            network.name
        ))),
    }
}

/// What has to be done before libvirt starts the network: it turns IPv6 forwarding on by itself, and refuses where an uplink has a route by router
/// advertisements without accept_ra 2 (libvirt's src/util/virnetdevip.c `virNetDevIPCheckIPv6Forwarding`).
pub fn ahead(network: &Network, manage_host: bool, host: &HostSeen) -> Plan {
    match network.vrf.is_some() && routes6(network) && manage_host && host.forward6 == Some(false) {
        true => uplinks_keep_ra(host).collect(),
        false => Plan::new(),
    }
}

fn routes6(network: &Network) -> bool {
    network.gateway.iter().any(|gateway| matches!(gateway, IpNet::V6(_)))
}

/// Forwarding makes accept_ra=1 mean "no" (Documentation/networking/ip-sysctl.rst); 2 keeps an uplink that lives on router advertisements alive.
fn uplinks_keep_ra(host: &HostSeen) -> impl Iterator<Item = Planned> {
    let path = |dev: &IfName| format!("net/ipv6/conf/{dev}/accept_ra");
    host.accepts_ra.iter().map(move |dev| plain(Step::Sysctl { path: path(dev), value: "2".to_owned() }))
}

fn vrf_up(want: &Wanted, vrf: &Vrf, seen: &Seen, plan: &mut Plan) -> Result<(), Refusal> {
    if seen.vrf.is_none() {
        plan.push(with_undo(
            Step::AddVrf { name: vrf.name.clone(), table: vrf.table },
            Step::DelLink { name: vrf.name.clone() },
        ));
    }
    if !seen.unreachable {
        if seen.vrf_before_routes {
            plan.push(plain(Step::AwaitVrf { name: vrf.name.clone() }));
        }
        plan.push(with_undo(Step::AddUnreachable { table: vrf.table }, Step::DelUnreachable { table: vrf.table }));
    }
    plan.extend(raised(vrf.name.clone(), &seen.vrf, plan));
    // The L3VNI's bridge has the VTEP's own MAC. And FRR takes its router-id from the loopback's address: asked before that is there, it would be
    // another host's or none.
    let (Some(vni), Some(vtep)) = (vrf.vni, want.vtep) else { return Ok(()) };
    if want.manage_speaker && !seen.speaker_has_vrf {
        plan.push(with_undo(Step::SpeakerAddVrf { vrf: vrf.clone() }, Step::SpeakerDelVrf { vrf: vrf.clone() }));
    }
    let bridge = vrf.name.l3_bridge().map_err(|e| Refusal(e.to_string()))?;
    let entered = seen.l3_bridge.as_ref().zip(seen.vrf.as_ref()).is_some_and(|(l, v)| l.master == Some(v.index));
    if seen.l3_bridge.is_none() {
        plan.push(with_undo(
            Step::AddBridge { name: bridge.clone(), mac: router_mac(vtep), mtu: want.l3_mtu },
            Step::DelLink { name: bridge.clone() },
        ));
    }
    if let (Some(link), Some(mtu)) = (&seen.l3_bridge, want.l3_mtu) {
        plan.extend(mtu_of(link, mtu));
    }
    if !entered {
        leave_first(vni, seen.l3_bridge.as_ref(), seen, plan);
        plan.push(enslaved(&bridge, &vrf.name));
    }
    if !(entered && seen.loose.contains(&bridge)) {
        plan.push(set(rp_filter_loose(&bridge), seen));
    }
    let tunnel = Tunnel { vtep, vni, mtu: want.l3_mtu, bridge: &bridge, on: seen.l3_bridge.as_ref() };
    vxlan_up(want, &tunnel, seen, plan)?;
    for dev in [bridge.clone(), vni.device()] {
        let mut planned = raised(dev, seen.vxlans.iter().chain(&seen.l3_bridge), plan);
        // An undo that deletes the bridge has zebra forget it before that, as `vrf_down` does, and for that the VXLAN stays up.
        if let (Some(planned), None) = (&mut planned, &seen.l3_bridge) {
            let is_bridge = matches!(&planned.step, Step::SetUp { dev, .. } if *dev == bridge);
            planned.undo = is_bridge.then(|| Step::PartSvi { bridge: bridge.clone(), vni }).into_iter().collect();
        }
        plan.extend(planned);
    }
    Ok(())
}

/// A bridge enters its VRF before its VXLAN is a port of it: one that is (somebody took the bridge out of its VRF) leaves it for that long.
pub(super) fn leave_first(vni: Vni, bridge: Option<&Link>, seen: &Seen, plan: &mut Plan) {
    if let Some(bridge) = bridge
        && tunnel(seen, vni).is_some_and(|l| l.master == Some(bridge.index))
    {
        plan.push(with_undo(
            Step::SetMaster { dev: vni.device(), master: None },
            Step::SetMaster { dev: vni.device(), master: Some(bridge.name.clone()) },
        ));
    }
}

/// A VXLAN device as it is wanted, and the bridge that it is a port of.
struct Tunnel<'a> {
    vtep: IpAddr,
    vni: Vni,
    mtu: Option<u32>,
    bridge: &'a IfName,
    /// That bridge, where it is there.
    on: Option<&'a Link>,
}

/// Each of its steps where it is missing: a run may have been killed between any two of them.
fn vxlan_up(want: &Wanted, wanted: &Tunnel, seen: &Seen, plan: &mut Plan) -> Result<(), Refusal> {
    let Tunnel { vtep, vni, mtu, bridge, on } = *wanted;
    let dev = vni.device();
    let add = with_undo(Step::AddVxlan { vni, local: vtep, port: want.port, mtu }, Step::DelLink { name: dev.clone() });
    let left = |plan: &Plan| plan.iter().any(|p| p.step == Step::SetMaster { dev: dev.clone(), master: None });
    let port = match tunnel(seen, vni) {
        None => {
            plan.push(add);
            None
        }
        Some(link) if !tunnels_as_wanted(want, vtep, link) && !seen.made.contains(&dev) => {
            return Err(Refusal(format!(
                "network {}: {dev} is there, not made by evpn-hook, and not as wanted (local {}, dstport {}, nolearning): delete it, or use another VNI",
                want.network.name, vtep, want.port
            )));
        }
        Some(link) if !tunnels_as_wanted(want, vtep, link) => {
            plan.push(plain(Step::DelLink { name: dev.clone() }));
            plan.push(add);
            None
        }
        Some(link) => {
            plan.extend(mtu.and_then(|mtu| mtu_of(link, mtu)));
            Some(link).filter(|l| l.master.is_some() && l.master == on.map(|b| b.index) && !left(plan))
        }
    };
    if port.is_none() {
        let mut joins = enslaved(&dev, bridge);
        // As in `down`: before the bridge's only port goes.
        if let Some(Link { kind: LinkKind::Bridge { default_pvid: pvid @ 1.., .. }, .. }) = on
            && *bridge == want.network.bridge
        {
            joins.undo.insert(0, Step::SetDefaultPvid { bridge: bridge.clone(), pvid: *pvid });
        }
        plan.push(joins);
    }
    let flags = PortFlags { learning: Some(false), neigh_suppress: Some(true), ..PortFlags::default() };
    if !port.is_some_and(|l| PortFlags { locked: None, isolated: None, ..l.port } == flags) {
        plan.push(plain(Step::SetVxlanPort { dev }));
    }
    Ok(())
}

/// The tunnel end, the UDP port, and no learning from the data plane: what a device cannot all be told later.
fn tunnels_as_wanted(want: &Wanted, vtep: IpAddr, link: &Link) -> bool {
    matches!(link.kind, LinkKind::Vxlan { local: Some(local), port, learning: false, .. }
        if (local, port) == (vtep, want.port))
}

fn enslaved(dev: &IfName, master: &IfName) -> Planned {
    let step = |master| Step::SetMaster { dev: dev.clone(), master };
    with_undo(step(Some(master.clone())), step(None))
}

/// A run that was killed while it made a device left it without our mark, and without what only a second message tells it.
fn finish(seen: &Seen, plan: &mut Plan) {
    let links = seen.vrf.iter().chain(&seen.l3_bridge).chain(&seen.bridge).chain(&seen.vxlans);
    for link in links.filter(|l| !l.ours && seen.made.contains(&l.name)) {
        plan.push(plain(Step::Mark { dev: link.name.clone() }));
        if link.addrgen_none == Some(false) && !matches!(link.kind, LinkKind::Vrf { .. }) {
            plan.push(plain(Step::NoAddrGen { dev: link.name.clone() }));
        }
    }
}

/// Up, where it is not among these, is made anew, or is down.
fn raised<'a>(dev: IfName, seen: impl IntoIterator<Item = &'a Link>, plan: &Plan) -> Option<Planned> {
    let up = |up| Step::SetUp { dev: dev.clone(), up };
    let anew = plan.iter().any(|p| p.step == Step::DelLink { name: dev.clone() });
    match seen.into_iter().find(|l| l.name == dev).filter(|_| !anew) {
        None => Some(plain(up(true))),
        Some(Link { up: false, .. }) => Some(with_undo(up(true), up(false))),
        Some(_) => None,
    }
}

/// What of a VRF is ours to take down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurVrf<'a> {
    /// The VRF as recorded.
    pub vrf: &'a Vrf,
    /// Of its devices those that we made.
    pub made: &'a BTreeSet<IfName>,
    /// The speaker took its stanzas from us.
    pub speaker_has_ours: bool,
    /// The speaker does not hear of VXLANs that go ([`Step::AwaitGone`]).
    pub deaf: bool,
    /// Its unreachable defaults are ours, though the VRF is not.
    pub unreachable: bool,
}

/// What of a network is ours to take down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours<'a> {
    /// The network as recorded.
    pub network: &'a Network,
    /// Of its devices those that we made.
    pub made: &'a BTreeSet<IfName>,
    /// What was changed on its bridge, where that stays.
    pub before: &'a Before,
    /// Its VRF, where it is the last of ours in it.
    pub last_in: Option<OurVrf<'a>>,
    /// The MTU of the VRF's L3VNI without it, where others of ours stay in it.
    pub l3_mtu: Option<u32>,
}

/// Takes a network down, in an order that leaves no neighbour of it advertised; whatever is gone already is skipped, and what others
/// made is left.
pub fn down(ours: &Ours, seen: &Seen) -> Plan {
    let network = ours.network;
    let mut plan = Plan::new();
    let there = seen.bridge.as_ref().is_some_and(|l| l.name == network.bridge);
    // With mode='bridge' libvirt leaves running guests on a stopped network's bridge: they keep each other.
    let goes = there && ours.made.contains(&network.bridge) && seen.bridge_ports.is_empty();
    let stays = if there && !goes { bridge::given_back(network, ours.before, seen) } else { Plan::new() };
    // While it has a port: without one its MAC may be none, and then the kernel takes no VLAN on it.
    let (vlan, stays): (Plan, Plan) = stays.into_iter().partition(|p| matches!(p.step, Step::SetDefaultPvid { .. }));
    plan.extend(vlan);
    if tunnel(seen, network.vni).is_some() && ours.made.contains(&network.vni.device()) {
        plan.push(plain(Step::DelLink { name: network.vni.device() }));
    }
    if goes {
        plan.push(plain(Step::DelLink { name: network.bridge.clone() }));
    }
    plan.extend(stays);
    if let (Some(mtu), Some(vni)) = (ours.l3_mtu, network.vrf.as_ref().and_then(|vrf| vrf.vni)) {
        let pair = seen.l3_bridge.iter().chain(tunnel(seen, vni));
        plan.extend(pair.filter_map(|link| mtu_of(link, mtu)).map(|planned| plain(planned.step)));
    }
    plan.extend(ours.last_in.iter().flat_map(|vrf| vrf_down(vrf, seen)));
    order::lawful(plan)
}

/// Takes a VRF down that none of our networks is in any more.
pub fn vrf_down(ours: &OurVrf, seen: &Seen) -> Plan {
    let OurVrf { vrf, made, speaker_has_ours, deaf, unreachable } = ours;
    let mut plan = Plan::new();
    let ours = |link: &&Link| made.contains(&link.name);
    let vxlan = vrf.vni.and_then(|vni| tunnel(seen, vni)).filter(ours);
    let bridge = seen.l3_bridge.as_ref().filter(ours);
    if let (Some(vni), Some(bridge)) = (vrf.vni, bridge) {
        plan.extend(svi_parted(vni, bridge, tunnel(seen, vni), vxlan.is_some()).into_iter().map(plain));
    }
    let late = vxlan.filter(|_| *speaker_has_ours && *deaf);
    if let Some(vxlan) = late {
        plan.push(plain(Step::DelLink { name: vxlan.name.clone() }));
        plan.push(plain(Step::AwaitGone { dev: vxlan.name.clone() }));
        plan.push(plain(Step::SpeakerDelVrf { vrf: (*vrf).clone() }));
    } else if *speaker_has_ours {
        // zebra would make an L2VNI of an L3VNI that it is told to forget, and bgpd would take in all that others send to that VNI; but not for a
        // VXLAN on no bridge (zebra_vxlan.c `zebra_vxlan_handle_vni_transition`).
        if let Some(vxlan) = vxlan
            && vxlan.master.is_some()
            && !plan.iter().any(|p| matches!(&p.step, Step::SetMaster { dev, .. } if *dev == vxlan.name))
        {
            plan.push(plain(Step::SetMaster { dev: vxlan.name.clone(), master: None }));
        }
        plan.push(plain(Step::SpeakerDelVrf { vrf: (*vrf).clone() }));
    }
    for link in vxlan.filter(|_| late.is_none()).into_iter().chain(bridge) {
        plan.push(plain(Step::DelLink { name: link.name.clone() }));
    }
    if made.contains(&vrf.name) && seen.vrf.is_some() && seen.vrf_foreign_slaves.is_empty() {
        plan.push(plain(Step::DelUnreachable { table: vrf.table }));
        plan.push(plain(Step::DelLink { name: vrf.name.clone() }));
    } else if made.contains(&vrf.name) && seen.vrf.is_none() && seen.vrfs.is_empty() && seen.unreachable {
        // They outlive their VRF where they were refused to go.
        plan.push(plain(Step::DelUnreachable { table: vrf.table }));
    } else if !made.contains(&vrf.name) && *unreachable && seen.unreachable {
        // What an operator's VRF has no route for goes where it went before.
        plan.push(plain(Step::DelUnreachable { table: vrf.table }));
    }
    plan
}

/// What has zebra forget the bridge of an L3VNI. It lets go of the pointer when the bridge goes down, and finds the L3VNI by the VXLAN that is up and
/// a port of it (zebra_vxlan.c `zebra_vxlan_svi_down`, `zl3vni_from_svi`); a bridge that is deleted later or otherwise stays in `zl3vni->svi_if`, and
/// the next route that goes uses it (`zl3vni_nh_uninstall`). Where it is not so, a VXLAN that comes up on no bridge does the same
/// (`zebra_vxlan_if_up`).
fn svi_parted(vni: Vni, bridge: &Link, vxlan: Option<&Link>, ours: bool) -> Vec<Step> {
    let Some(vxlan) = vxlan else { return Vec::new() };
    let dev = || vxlan.name.clone();
    if bridge.up && vxlan.up && vxlan.master == Some(bridge.index) {
        return vec![Step::PartSvi { bridge: bridge.name.clone(), vni }];
    }
    if !ours {
        return Vec::new();
    }
    let mut steps = Vec::new();
    if vxlan.master.is_some() {
        steps.push(Step::SetMaster { dev: dev(), master: None });
    }
    if vxlan.up {
        steps.push(Step::SetUp { dev: dev(), up: false });
    }
    steps.push(Step::SetUp { dev: dev(), up: true });
    steps
}

#[cfg(test)]
#[path = "network_test.rs"]
mod tests;

#[cfg(test)]
#[path = "law_test.rs"]
mod law_tests;
