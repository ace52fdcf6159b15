//! A tenant segment up and down.

use super::seen::{Link, LinkKind, PortFlags};
use super::{Hears, Plan, Planned, Refusal, Step, order, plain, with_undo};
use crate::config::{Network, Origin, PortSecurity, Vrf};
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
    /// `net.ipv6.conf.<bridge>.accept_ra` is 0, or there is no IPv6.
    pub ignores_ra: bool,
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
    /// The rule for table local stands behind the l3mdev rule.
    pub local_rule_last: bool,
    /// Guests get no answer from the host's BGP daemon ([`Step::TenantBgp`]).
    pub bgp_closed: bool,
    /// Devices that take router advertisements now and would stop once the host forwards (`accept_ra` is 1).
    pub accepts_ra: Vec<IfName>,
}

/// What is wanted besides the network itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The network, its MTU resolved.
    pub network: &'a Network,
    /// This host's tunnel end.
    pub vtep: IpAddr,
    /// UDP port of the tunnels.
    pub port: u16,
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

/// Brings a network up, or completes one that is half up; empty if nothing is missing.
pub fn up(want: &Wanted, seen: &Seen) -> Result<Plan, Refusal> {
    let network = want.network;
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
            host(want, &seen.host, &mut plan);
        }
        vrf_up(want, vrf, seen, &mut plan)?;
    }
    bridge_up(want, seen, &mut plan)?;
    vxlan_up(want, network.vni, &network.bridge, seen.bridge.as_ref(), seen, &mut plan)?;
    for dev in [network.bridge.clone(), network.vni.device()] {
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
            "network {}: VNI {vni} is already used by {} on {on} and wanted as {} on {bridge_name}: use another VNI, or delete that device",
            network.name,
            device.name,
            vni.device()
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

/// IP forwarding and the local rule, each only where it is not so yet.
fn host(want: &Wanted, host: &HostSeen, plan: &mut Plan) {
    let set = |path: &str, value: &str| plain(Step::Sysctl { path: path.to_owned(), value: value.to_owned() });
    if !host.forward4 {
        plan.push(set("net/ipv4/ip_forward", "1"));
    }
    let wants6 = want.network.gateway.iter().any(|g| matches!(g, IpNet::V6(_)));
    if wants6 && host.forward6 == Some(false) {
        // Forwarding makes accept_ra=1 mean "no" (Documentation/networking/ip-sysctl.rst); 2 keeps an uplink that lives on
        // router advertisements alive.
        for dev in &host.accepts_ra {
            plan.push(set(&format!("net/ipv6/conf/{dev}/accept_ra"), "2"));
        }
        plan.push(set("net/ipv6/conf/all/forwarding", "1"));
    }
    if !host.local_rule_last {
        plan.push(plain(Step::LocalRuleLast { last: true }));
    }
    // Which only FRR's own `router bgp … vrf` makes it open.
    if host.bgp_closed == want.tenant_bgp {
        plan.push(plain(Step::TenantBgp { closed: !want.tenant_bgp }));
    }
}

fn vrf_up(want: &Wanted, vrf: &Vrf, seen: &Seen, plan: &mut Plan) -> Result<(), Refusal> {
    if seen.vrf.is_none() {
        plan.push(with_undo(
            Step::AddVrf { name: vrf.name.clone(), table: vrf.table },
            Step::DelLink { name: vrf.name.clone() },
        ));
    }
    if !seen.unreachable {
        plan.push(with_undo(Step::AddUnreachable { table: vrf.table }, Step::DelUnreachable { table: vrf.table }));
    }
    plan.extend(raised(vrf.name.clone(), &seen.vrf, plan));
    let Some(vni) = vrf.vni else { return Ok(()) };
    if want.manage_speaker && !seen.speaker_has_vrf {
        plan.push(with_undo(Step::SpeakerAddVrf { vrf: vrf.clone() }, Step::SpeakerDelVrf { vrf: vrf.clone() }));
    }
    let bridge = vrf.name.l3_bridge().map_err(|e| Refusal(e.to_string()))?;
    let entered = seen.l3_bridge.as_ref().zip(seen.vrf.as_ref()).is_some_and(|(l, v)| l.master == Some(v.index));
    if seen.l3_bridge.is_none() {
        plan.push(with_undo(
            Step::AddBridge { name: bridge.clone(), mac: router_mac(want.vtep), mtu: want.network.mtu },
            Step::DelLink { name: bridge.clone() },
        ));
    }
    if !entered {
        leave_first(vni, seen.l3_bridge.as_ref(), seen, plan);
        plan.push(enslaved(&bridge, &vrf.name));
    }
    if !(entered && seen.loose.contains(&bridge)) {
        plan.push(set(rp_filter_loose(&bridge), seen));
    }
    vxlan_up(want, vni, &bridge, seen.l3_bridge.as_ref(), seen, plan)?;
    for dev in [bridge, vni.device()] {
        plan.extend(raised(dev, seen.vxlans.iter().chain(&seen.l3_bridge), plan));
    }
    Ok(())
}

fn bridge_up(want: &Wanted, seen: &Seen, plan: &mut Plan) -> Result<(), Refusal> {
    let network = want.network;
    let name = &network.bridge;
    let in_vrf = |bridge: &Link| bridge.master.is_some() && bridge.master == seen.vrf.as_ref().map(|v| v.index);
    match &seen.bridge {
        None => {
            let mac = network.mac.unwrap_or_else(|| router_mac(want.vtep));
            plan.push(with_undo(
                Step::AddBridge { name: name.clone(), mac, mtu: network.mtu },
                Step::DelLink { name: name.clone() },
            ));
            if seen.bridge_ipv6_off && network.origin != Origin::Libvirt {
                plan.push(plain(sysctl("net/ipv6/conf", name, "disable_ipv6", "0")));
            }
        }
        Some(bridge) => {
            if matches!(bridge.kind, LinkKind::Bridge { default_pvid: 1.., .. }) {
                plan.push(plain(Step::ClearDefaultPvid { bridge: name.clone() }));
            }
            if let Some(mtu) = network.mtu
                && bridge.mtu != mtu
            {
                plan.push(with_undo(
                    Step::SetMtu { dev: name.clone(), mtu },
                    Step::SetMtu { dev: name.clone(), mtu: bridge.mtu },
                ));
            }
            // libvirt switches IPv6 off on a bridge without an IPv6 address; the kernel then refuses a guest's IPv6
            // neighbour (net/ipv6/ndisc.c ndisc_allow_add). No address generation keeps the host itself off the segment.
            if seen.bridge_ipv6_off {
                plan.push(plain(Step::NoAddrGen { dev: name.clone() }));
                plan.push(set(sysctl("net/ipv6/conf", name, "disable_ipv6", "0"), seen));
            }
        }
    }
    // A guest's router advertisement must not configure the host.
    if seen.bridge.is_none() || !seen.ignores_ra {
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
        && !seen.bridge.as_ref().is_some_and(in_vrf)
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
    // libvirt has put its own there before we are called, and does not put them back when somebody takes them off, or a bridge that was set
    // down loses those of IPv6.
    for address in network.gateway.iter().filter(|address| !seen.bridge_addresses.contains(address)) {
        let add = Step::AddAddress { dev: name.clone(), address: *address };
        let del = Step::DelAddress { dev: name.clone(), address: *address };
        plan.push(if seen.bridge.is_some() { with_undo(add, del) } else { plain(add) });
    }
    Ok(())
}

/// What the host has to do with a network's packets beside bridging them.
fn hears(want: &Wanted, seen: &Seen) -> Hears {
    let network = want.network;
    match &network.vrf {
        Some(_) if want.tenant_bgp => Hears::All,
        Some(_) => Hears::NoLinkLocalService,
        // An address makes the host one of them, by somebody's wish.
        None if network.gateway.is_empty() && seen.bridge_addresses.is_empty() && is_tenants(network, seen) => {
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

/// A bridge enters its VRF before its VXLAN is a port of it: one that is (somebody took the bridge out of its VRF) leaves it for that long.
fn leave_first(vni: Vni, bridge: Option<&Link>, seen: &Seen, plan: &mut Plan) {
    if let Some(bridge) = bridge
        && tunnel(seen, vni).is_some_and(|l| l.master == Some(bridge.index))
    {
        plan.push(with_undo(
            Step::SetMaster { dev: vni.device(), master: None },
            Step::SetMaster { dev: vni.device(), master: Some(bridge.name.clone()) },
        ));
    }
}

/// Each of its steps where it is missing: a run may have been killed between any two of them.
fn vxlan_up(
    want: &Wanted,
    vni: Vni,
    bridge: &IfName,
    seen_bridge: Option<&Link>,
    seen: &Seen,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let dev = vni.device();
    let add = with_undo(
        Step::AddVxlan { vni, local: want.vtep, port: want.port, mtu: want.network.mtu },
        Step::DelLink { name: dev.clone() },
    );
    let left = |plan: &Plan| plan.iter().any(|p| p.step == Step::SetMaster { dev: dev.clone(), master: None });
    let port = match tunnel(seen, vni) {
        None => {
            plan.push(add);
            None
        }
        Some(link) if !tunnels_as_wanted(want, link) && !seen.made.contains(&dev) => {
            return Err(Refusal(format!(
                "network {}: {dev} is there, not made by evpn-hook, and not as wanted (local {}, dstport {}, nolearning): delete it, or use another VNI",
                want.network.name, want.vtep, want.port
            )));
        }
        Some(link) if !tunnels_as_wanted(want, link) => {
            plan.push(plain(Step::DelLink { name: dev.clone() }));
            plan.push(add);
            None
        }
        Some(link) => {
            Some(link).filter(|l| l.master.is_some() && l.master == seen_bridge.map(|b| b.index) && !left(plan))
        }
    };
    if port.is_none() {
        plan.push(enslaved(&dev, bridge));
    }
    let flags = PortFlags { learning: Some(false), neigh_suppress: Some(true), locked: None };
    if !port.is_some_and(|l| PortFlags { locked: None, ..l.port } == flags) {
        plan.push(plain(Step::SetVxlanPort { dev }));
    }
    Ok(())
}

/// The tunnel end, the UDP port, and no learning from the data plane: what a device cannot all be told later.
fn tunnels_as_wanted(want: &Wanted, link: &Link) -> bool {
    matches!(link.kind, LinkKind::Vxlan { local: Some(local), port, learning: false, .. }
        if (local, port) == (want.vtep, want.port))
}

fn enslaved(dev: &IfName, master: &IfName) -> Planned {
    let step = |master| Step::SetMaster { dev: dev.clone(), master };
    with_undo(step(Some(master.clone())), step(None))
}

/// 2 is loose: asymmetric paths through a VRF must not be dropped, and the larger of `all` and the device's own counts
/// (net/ipv4/fib_frontend.c `IN_DEV_RPFILTER`), so 0 would leave a strict host-wide setting in force.
fn rp_filter_loose(dev: &IfName) -> Step {
    sysctl("net/ipv4/conf", dev, "rp_filter", "2")
}

fn sysctl(room: &str, dev: &IfName, key: &str, value: &str) -> Step {
    Step::Sysctl { path: format!("{room}/{dev}/{key}"), value: value.to_owned() }
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

/// A setting of a device; one that was there gets its own back.
fn set(step: Step, seen: &Seen) -> Planned {
    let was = match &step {
        Step::Sysctl { path, .. } => seen.settings.get_key_value(path),
        _ => None,
    };
    match was {
        Some((path, value)) => with_undo(step, Step::Sysctl { path: path.clone(), value: value.clone() }),
        None => plain(step),
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
}

/// What of a network is ours to take down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours<'a> {
    /// The network as recorded.
    pub network: &'a Network,
    /// Of its devices those that we made.
    pub made: &'a BTreeSet<IfName>,
    /// Its VRF, where it is the last of ours in it.
    pub last_in: Option<OurVrf<'a>>,
}

/// Takes a network down, in an order that leaves no neighbour of it advertised; whatever is gone already is skipped, and what others
/// made is left.
pub fn down(ours: &Ours, seen: &Seen) -> Plan {
    let network = ours.network;
    let mut plan = Plan::new();
    let there = seen.bridge.as_ref().is_some_and(|l| l.name == network.bridge);
    if tunnel(seen, network.vni).is_some() && ours.made.contains(&network.vni.device()) {
        plan.push(plain(Step::DelLink { name: network.vni.device() }));
    }
    if there {
        // With mode='bridge' libvirt leaves running guests on a stopped network's bridge: they keep each other.
        if ours.made.contains(&network.bridge) && seen.bridge_ports.is_empty() {
            plan.push(plain(Step::DelLink { name: network.bridge.clone() }));
        } else if seen.bridge.as_ref().is_some_and(|b| b.master.is_some()) && network.vrf.is_some() {
            plan.push(plain(Step::SetMaster { dev: network.bridge.clone(), master: None }));
            plan.extend(addresses_back(&network.bridge, seen).map(plain));
        }
    }
    plan.extend(ours.last_in.iter().flat_map(|vrf| vrf_down(vrf, seen)));
    order::lawful(plan)
}

/// Takes a VRF down that none of our networks is in any more.
pub fn vrf_down(ours: &OurVrf, seen: &Seen) -> Plan {
    let OurVrf { vrf, made, speaker_has_ours } = ours;
    let mut plan = Plan::new();
    if let (Some(vni), Ok(l3)) = (vrf.vni, vrf.name.l3_bridge()) {
        if tunnel(seen, vni).is_some() && made.contains(&vni.device()) {
            plan.push(plain(Step::DelLink { name: vni.device() }));
        }
        if seen.l3_bridge.as_ref().is_some_and(|l| l.name == l3) && made.contains(&l3) {
            plan.push(plain(Step::DelLink { name: l3 }));
        }
    }
    if *speaker_has_ours {
        plan.push(plain(Step::SpeakerDelVrf { vrf: (*vrf).clone() }));
    }
    if made.contains(&vrf.name) && seen.vrf.is_some() && seen.vrf_foreign_slaves.is_empty() {
        plan.push(plain(Step::DelUnreachable { table: vrf.table }));
        plan.push(plain(Step::DelLink { name: vrf.name.clone() }));
    } else if made.contains(&vrf.name) && seen.vrf.is_none() && seen.vrfs.is_empty() && seen.unreachable {
        // They outlive their VRF where they were refused to go.
        plan.push(plain(Step::DelUnreachable { table: vrf.table }));
    }
    plan
}

#[cfg(test)]
#[path = "network_test.rs"]
mod tests;

#[cfg(test)]
#[path = "law_test.rs"]
mod law_tests;
