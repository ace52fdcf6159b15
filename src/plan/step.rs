//! The vocabulary between deciding and doing: one effect each, small enough that its undo is another step.

use super::guard::Lets;
use super::rules::Order;
use crate::config::Vrf;
use crate::model::{IfName, Mac, TableId, Vni};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// One effect on the kernel or the speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a VRF device on this table, down. `ip link add NAME type vrf table T`
    AddVrf {
        /// Its name.
        name: IfName,
        /// Its table.
        table: TableId,
    },
    /// Make a bridge, down: no STP, forward delay 0, `vlan_default_pvid 0`, `addrgenmode none`, fixed MAC, [`MAX_LEARNED`](super::bridge::MAX_LEARNED) where the kernel knows that.
    AddBridge {
        /// Its name.
        name: IfName,
        /// Its MAC: fixed, or a port's would be taken over (facts: LXC's `fe:` veths).
        mac: Mac,
        /// Bytes; none leaves the kernel's default.
        mtu: Option<u32>,
    },
    /// Make a VXLAN device, down: `nolearning`, `addrgenmode none`, no remote.
    AddVxlan {
        /// The VNI; the device's name follows from it.
        vni: Vni,
        /// This host's VTEP.
        local: IpAddr,
        /// UDP destination port.
        port: u16,
        /// Bytes; none leaves the kernel's default.
        mtu: Option<u32>,
    },
    /// Delete a device that we made.
    DelLink {
        /// Its name.
        name: IfName,
    },
    /// Enslave a device to a bridge or VRF, or with `None` release it.
    SetMaster {
        /// The device.
        dev: IfName,
        /// Its new master.
        master: Option<IfName>,
    },
    /// Administrative state.
    SetUp {
        /// The device.
        dev: IfName,
        /// Up or down.
        up: bool,
    },
    /// An L3VNI's bridge down, while its VXLAN is up and a port of it: zebra then forgets the bridge, which is about to be deleted.
    PartSvi {
        /// The bridge.
        bridge: IfName,
        /// Its L3VNI.
        vni: Vni,
    },
    /// MTU in bytes.
    SetMtu {
        /// The device.
        dev: IfName,
        /// Bytes.
        mtu: u32,
    },
    /// A bridge's MAC. The kernel flushes the neighbours of a device whose MAC changes, permanent ones as well (net/core/neighbour.c
    /// `neigh_changeaddr`).
    SetMac {
        /// The bridge.
        dev: IfName,
        /// Its new MAC.
        mac: Mac,
    },
    /// The flags of a bridge's VXLAN port: `learning off neigh_suppress on`.
    SetVxlanPort {
        /// The VXLAN device, already enslaved.
        dev: IfName,
    },
    /// `vlan_default_pvid 0` on a bridge that libvirt made: an FDB entry without VLAN must not get a copy in VLAN 1.
    ClearDefaultPvid {
        /// The bridge.
        bridge: IfName,
    },
    /// STP on a bridge: off as libvirt's default has it on, or on as its metadata wants it.
    SetStp {
        /// The bridge.
        bridge: IfName,
        /// On or off.
        on: bool,
    },
    /// How many MACs a bridge may learn; 0 is any number.
    SetMaxLearned {
        /// The bridge.
        bridge: IfName,
        /// So many.
        most: u32,
    },
    /// The reverse, for a bridge that had one before.
    SetDefaultPvid {
        /// The bridge.
        bridge: IfName,
        /// The VLAN of its new ports.
        pvid: u16,
    },
    /// Put our mark on a device that we made and were cut off at. `ip link set DEV alias evpn-hook`
    Mark {
        /// The device.
        dev: IfName,
    },
    /// `ip link set DEV addrgenmode none`.
    NoAddrGen {
        /// The device.
        dev: IfName,
    },
    /// `ip link set DEV addrgenmode eui64`, the kernel's default: for a bridge that had it before.
    AddrGen {
        /// The device.
        dev: IfName,
    },
    /// Put an address on a device (no duplicate address detection: it is an anycast gateway's).
    AddAddress {
        /// The device.
        dev: IfName,
        /// Address with prefix length.
        address: IpNet,
    },
    /// Take one off again.
    DelAddress {
        /// The device.
        dev: IfName,
        /// Address with prefix length.
        address: IpNet,
    },
    /// Write one file below /proc/sys; the path is relative to it and made from validated names only.
    Sysctl {
        /// `net/ipv4/ip_forward`
        path: String,
        /// The value to write.
        value: String,
    },
    /// The unreachable default routes (IPv4 and IPv6, metric 4278198272) that keep a VRF's misses out of the main table.
    AddUnreachable {
        /// The VRF's table.
        table: TableId,
    },
    /// Take them out again; a VRF's deletion leaves the routes of its table that have no device.
    DelUnreachable {
        /// The VRF's table.
        table: TableId,
    },
    /// Put the host's routing rules into this order, IPv4 and IPv6 (see [`rules`](super::rules)). The rule against BGP takes what bgpd answers to a VRF's
    /// guests: `router bgp … vrf X` makes it listen on port 179 there, for nobody.
    Rules {
        /// Which.
        order: Order,
    },
    /// What the host takes from this bridge. What goes from port to port is not asked.
    Hear {
        /// The bridge.
        dev: IfName,
        /// All, or less.
        hears: Hears,
    },
    /// Static FDB entry: NUD_NOARP, NTF_MASTER, no VLAN. `bridge fdb replace MAC dev DEV master static`
    AddFdb {
        /// The guest's port.
        dev: IfName,
        /// The guest's MAC.
        mac: Mac,
    },
    /// Delete it, if it still points to this port.
    DelFdb {
        /// The guest's port.
        dev: IfName,
        /// The guest's MAC.
        mac: Mac,
    },
    /// Permanent neighbour with our protocol number. `ip neigh replace IP lladdr MAC dev BRIDGE nud permanent`
    AddNeigh {
        /// The segment's bridge.
        bridge: IfName,
        /// The guest's address.
        ip: IpAddr,
        /// The guest's MAC.
        mac: Mac,
        /// An IPv6 router's (NTF_ROUTER). FRR tells other hosts (RFC 9047 §2), and each answers its guests so (net/bridge/br_arp_nd_proxy.c `br_nd_send`):
        /// one of whom they were told otherwise is their router no more (RFC 4861 §7.2.5).
        router: bool,
    },
    /// Delete it explicitly: zebra does not see it go with a device.
    DelNeigh {
        /// The segment's bridge.
        bridge: IfName,
        /// The guest's address.
        ip: IpAddr,
    },
    /// Delete and add an FDB entry that is right: says it again to a speaker that missed it (an identical `replace` is told to nobody).
    TellFdb {
        /// The guest's port.
        dev: IfName,
        /// The guest's MAC.
        mac: Mac,
    },
    /// The same for a neighbour, without ever leaving it out.
    TellNeigh {
        /// The segment's bridge.
        bridge: IfName,
        /// The guest's address.
        ip: IpAddr,
        /// The guest's MAC.
        mac: Mac,
        /// An IPv6 router's.
        router: bool,
    },
    /// Says to a speaker that missed it that no port of this host has a MAC any more: an entry of the VXLAN device's own, there for a moment. zebra of 9.1 to
    /// 10.4 hears of devices and of FDB entries in two threads; where a port's end, or its leaving the bridge, overtakes the end of its entry, it keeps the MAC
    /// as its own for ever (rt_netlink.c `netlink_macfdb_change`, "The interface should exist"). One that comes by the tunnel takes it from it
    /// (zebra_vxlan.c `zebra_vxlan_dp_network_mac_add`, "if remote mac delete the local entry").
    EndFdb {
        /// The segment's VXLAN device.
        vxlan: IfName,
        /// The MAC that went with its port.
        mac: Mac,
        /// Where its frames would go meanwhile: to this host itself.
        vtep: IpAddr,
    },
    /// Lay the rules of port security, which then hold for the ports that are named in their sets; what the sets say stays.
    LayGuards,
    /// Take them out again, whatever they say.
    LiftGuards,
    /// Hold all ports of a bridge that are no guest's, but for its tunnel's; or do not any more.
    GuardBridge {
        /// The segment's bridge.
        bridge: IfName,
        /// On or off.
        on: bool,
    },
    /// Change what a port lets in: first what it shall let in, then what it shall no more, at once.
    Guard {
        /// The guest's port.
        dev: IfName,
        /// Its index, by which it is meant: its name may be another guest's by now.
        index: u32,
        /// What it lets in from now on.
        more: Vec<Lets>,
        /// What it does not any more.
        less: Vec<Lets>,
    },
    /// A locked port drops frames whose sender the FDB does not know to be behind it (Linux 5.18, net/bridge/br_input.c `br_handle_frame_finish`); but
    /// from one to 01:80:c2:00:00:0x it would learn the sender all the same. `bridge link set dev DEV locked on learning off`
    LockPort {
        /// The guest's port.
        dev: IfName,
        /// On or off.
        locked: bool,
    },
    /// Isolates a VXLAN port: what comes from it reaches no isolated port, and theirs does not leave by it (Linux 4.18).
    /// `bridge link set dev DEV isolated on`
    IsolateTunnel {
        /// The VXLAN port.
        dev: IfName,
    },
    /// Wait until zebra knows a VRF's device, before its table gets its first route. FRR 9.1 to 10.3 hear of devices and of routes in two threads, give a
    /// table that no VRF owns to the default VRF, and free it with the VRF that comes later: zebra dies when that goes (FRR PR 16614).
    AwaitVrf {
        /// The VRF device.
        name: IfName,
    },
    /// Wait until zebra has a port on its bridge, before its first FDB entry. FRR 9.1 to 10.4 hear of devices and of FDB entries in two threads, and pass over the
    /// entry of a port of which they do not know that it is one, for ever (commit ab823e8cea; zebra/rt_netlink.c `netlink_macfdb_change`).
    AwaitPort {
        /// The guest's device.
        dev: IfName,
        /// Its bridge.
        bridge: IfName,
    },
    /// Wait until zebra knows that a VXLAN is gone, before it is told to forget its L3VNI. While EVPN is off zebra makes an L2VNI of an L3VNI whose
    /// VXLAN is there, does not hear of that VXLAN's end, and dies when it is told of the VNI again: 8.4.4, and by their sources 10.3 and 10.7.0 (`zebra_vxlan_handle_vni_transition`,
    /// `zebra_vxlan_if_del`).
    AwaitGone {
        /// The VXLAN device.
        dev: IfName,
    },
    /// The same for a port that belongs to nobody, by its index, for its name may be one that nothing of ours can mean; and what the bridge has learned from it
    /// is forgotten.
    HoldPort {
        /// Its name as it can be shown.
        name: String,
        /// Its index.
        index: u32,
        /// On or off.
        held: bool,
    },
    /// FRR: `vrf X / vni N` and `router bgp AS vrf X` with connected routes and type-5.
    SpeakerAddVrf {
        /// The routing domain.
        vrf: Vrf,
    },
    /// Take that out again.
    SpeakerDelVrf {
        /// The routing domain.
        vrf: Vrf,
    },
}

/// What of a tenant's packets a bridge hands up to the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hears {
    /// Everything, as the kernel makes it.
    #[default]
    All,
    /// To link-local addresses only ICMPv6 and UDP: a routed tenant's, for replies over its link ask no routing rule ([`Step::TenantBgp`]).
    NoLinkLocalService,
    /// Nothing: a pure layer-2 tenant's, whose packets to the bridge's own MAC would be routed with the host's table, and whose broadcasts would reach
    /// its services.
    Nothing,
}

impl Step {
    /// What it does, in one word that stays the same: for the log's field STEP.
    pub fn word(&self) -> &'static str {
        match self {
            Step::AddVrf { .. } => "add-vrf",
            Step::AddBridge { .. } => "add-bridge",
            Step::AddVxlan { .. } => "add-vxlan",
            Step::DelLink { .. } => "del-link",
            Step::SetMaster { .. } => "set-master",
            Step::SetUp { .. } => "set-up",
            Step::PartSvi { .. } => "part-svi",
            Step::SetMtu { .. } => "set-mtu",
            Step::SetMac { .. } => "set-mac",
            Step::SetVxlanPort { .. } => "set-vxlan-port",
            Step::ClearDefaultPvid { .. } => "clear-default-pvid",
            Step::SetStp { .. } => "set-stp",
            Step::SetMaxLearned { .. } => "set-max-learned",
            Step::SetDefaultPvid { .. } => "set-default-pvid",
            Step::Mark { .. } => "mark",
            Step::NoAddrGen { .. } => "no-addrgen",
            Step::AddrGen { .. } => "addrgen",
            Step::AddAddress { .. } => "add-address",
            Step::DelAddress { .. } => "del-address",
            Step::Sysctl { .. } => "sysctl",
            Step::AddUnreachable { .. } => "add-unreachable",
            Step::DelUnreachable { .. } => "del-unreachable",
            Step::Rules { .. } => "rules",
            Step::Hear { .. } => "hear",
            Step::AddFdb { .. } => "add-fdb",
            Step::DelFdb { .. } => "del-fdb",
            Step::AddNeigh { .. } => "add-neighbour",
            Step::DelNeigh { .. } => "del-neighbour",
            Step::TellFdb { .. } => "tell-fdb",
            Step::EndFdb { .. } => "end-fdb",
            Step::TellNeigh { .. } => "tell-neighbour",
            Step::LayGuards => "lay-guards",
            Step::LiftGuards => "lift-guards",
            Step::GuardBridge { .. } => "guard-bridge",
            Step::Guard { .. } => "guard",
            Step::LockPort { .. } => "lock-port",
            Step::IsolateTunnel { .. } => "isolate-tunnel",
            Step::AwaitVrf { .. } => "await-vrf",
            Step::AwaitPort { .. } => "await-port",
            Step::AwaitGone { .. } => "await-gone",
            Step::HoldPort { .. } => "hold-port",
            Step::SpeakerAddVrf { .. } => "speaker-add-vrf",
            Step::SpeakerDelVrf { .. } => "speaker-del-vrf",
        }
    }

    /// The device that it is done to; none where it is the host's or the speaker's.
    pub fn device(&self) -> Option<IfName> {
        match self {
            Step::AddVrf { name: dev, .. }
            | Step::AddBridge { name: dev, .. }
            | Step::DelLink { name: dev }
            | Step::SetMaster { dev, .. }
            | Step::SetUp { dev, .. }
            | Step::PartSvi { bridge: dev, .. }
            | Step::SetMtu { dev, .. }
            | Step::SetMac { dev, .. }
            | Step::SetVxlanPort { dev }
            | Step::ClearDefaultPvid { bridge: dev }
            | Step::SetStp { bridge: dev, .. }
            | Step::SetMaxLearned { bridge: dev, .. }
            | Step::SetDefaultPvid { bridge: dev, .. }
            | Step::Mark { dev }
            | Step::NoAddrGen { dev }
            | Step::AddrGen { dev }
            | Step::Hear { dev, .. }
            | Step::AddAddress { dev, .. }
            | Step::DelAddress { dev, .. }
            | Step::AddFdb { dev, .. }
            | Step::DelFdb { dev, .. }
            | Step::AddNeigh { bridge: dev, .. }
            | Step::DelNeigh { bridge: dev, .. }
            | Step::GuardBridge { bridge: dev, .. }
            | Step::TellFdb { dev, .. }
            | Step::EndFdb { vxlan: dev, .. }
            | Step::Guard { dev, .. }
            | Step::LockPort { dev, .. }
            | Step::IsolateTunnel { dev }
            | Step::AwaitPort { dev, .. }
            | Step::TellNeigh { bridge: dev, .. } => Some(dev.clone()),
            Step::AddVxlan { vni, .. } => Some(vni.device()),
            Step::HoldPort { name, .. } => name.parse().ok(),
            Step::Sysctl { .. }
            | Step::AddUnreachable { .. }
            | Step::DelUnreachable { .. }
            | Step::Rules { .. }
            | Step::LayGuards
            | Step::LiftGuards
            | Step::AwaitVrf { .. }
            | Step::AwaitGone { .. }
            | Step::SpeakerAddVrf { .. }
            | Step::SpeakerDelVrf { .. } => None,
        }
    }
}

fn router_word(router: bool) -> &'static str {
    if router { " router" } else { "" }
}

impl fmt::Display for Step {
    /// The step as the command that a person would type for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::AddVrf { name, table } => write!(f, "ip link add {name} type vrf table {table}"),
            Step::AddBridge { name, mac, .. } => {
                write!(f, "ip link add {name} address {mac} type bridge stp_state 0 vlan_default_pvid 0")
            }
            Step::AddVxlan { vni, local, port, .. } => {
                write!(f, "ip link add {} type vxlan id {vni} local {local} dstport {port} nolearning", vni.device())
            }
            Step::DelLink { name } => write!(f, "ip link del {name}"),
            Step::SetMaster { dev, master: Some(master) } => write!(f, "ip link set {dev} master {master}"),
            Step::SetMaster { dev, master: None } => write!(f, "ip link set {dev} nomaster"),
            Step::SetUp { dev, up } => write!(f, "ip link set {dev} {}", if *up { "up" } else { "down" }),
            Step::PartSvi { bridge, .. } => write!(f, "ip link set {bridge} down"),
            Step::SetMtu { dev, mtu } => write!(f, "ip link set {dev} mtu {mtu}"),
            Step::SetMac { dev, mac } => write!(f, "ip link set {dev} address {mac}"),
            Step::SetVxlanPort { dev } => write!(f, "bridge link set dev {dev} learning off neigh_suppress on"),
            Step::ClearDefaultPvid { bridge } => write!(f, "ip link set {bridge} type bridge vlan_default_pvid 0"),
            Step::SetStp { bridge, on } => write!(f, "ip link set {bridge} type bridge stp_state {}", u8::from(*on)),
            Step::SetMaxLearned { bridge, most } => {
                write!(f, "ip link set {bridge} type bridge fdb_max_learned {most}")
            }
            Step::SetDefaultPvid { bridge, pvid } => {
                write!(f, "ip link set {bridge} type bridge vlan_default_pvid {pvid}")
            }
            Step::Mark { dev } => write!(f, "ip link set {dev} alias evpn-hook"),
            Step::NoAddrGen { dev } => write!(f, "ip link set {dev} addrgenmode none"),
            Step::AddrGen { dev } => write!(f, "ip link set {dev} addrgenmode eui64"),
            Step::AddAddress { dev, address } => write!(f, "ip address replace {address} dev {dev} nodad"),
            Step::DelAddress { dev, address } => write!(f, "ip address del {address} dev {dev}"),
            Step::Sysctl { path, value } => write!(f, "sysctl -w {}={value}", sysctl_words(path)),
            Step::AddUnreachable { table } => {
                write!(f, "ip route add unreachable default metric 4278198272 table {table} (and ip -6)")
            }
            Step::DelUnreachable { table } => {
                write!(f, "ip route del unreachable default metric 4278198272 table {table} (and ip -6)")
            }
            Step::Rules { order: Order::VrfsFirst { bgp_closed } } => {
                let bgp = if *bgp_closed { "l3mdev iif lo ipproto tcp sport 179 prohibit; " } else { "" };
                write!(f, "ip rule (and ip -6), at preference 0: {bgp}l3mdev; table local")
            }
            Step::Rules { order: Order::Plain { .. } } => {
                f.write_str("ip rule (and ip -6), at preference 0: table local alone")
            }
            Step::Hear { dev, hears: Hears::Nothing } => {
                write!(
                    f,
                    "tc qdisc add dev {dev} clsact; tc filter add dev {dev} ingress prio 69 bpf da bytecode '1,6 0 0 2'"
                )
            }
            Step::Hear { dev, hears: Hears::NoLinkLocalService } => {
                write!(f, "tc filter on {dev} ingress prio 69: to fe80::/10 UDP and ICMPv6 alone")
            }
            Step::Hear { dev, hears: Hears::All } => write!(f, "tc filter del dev {dev} ingress prio 69"),
            Step::AddFdb { dev, mac } => write!(f, "bridge fdb replace {mac} dev {dev} master static"),
            Step::DelFdb { dev, mac } => write!(f, "bridge fdb del {mac} dev {dev} master"),
            Step::AddNeigh { bridge, ip, mac, router } => {
                write!(f, "ip neigh replace {ip} lladdr {mac} dev {bridge} nud permanent{}", router_word(*router))
            }
            Step::DelNeigh { bridge, ip } => write!(f, "ip neigh del {ip} dev {bridge}"),
            Step::TellFdb { dev, mac } => {
                write!(f, "bridge fdb del {mac} dev {dev} master; bridge fdb replace {mac} dev {dev} master static")
            }
            Step::EndFdb { vxlan, mac, vtep } => {
                let entry = format!("{mac} dev {vxlan} dst {vtep} self");
                write!(f, "bridge fdb replace {entry} dynamic; bridge fdb del {entry}")
            }
            Step::TellNeigh { bridge, ip, mac, router } => {
                let entry = format!("ip neigh replace {ip} lladdr {mac} dev {bridge}{} nud", router_word(*router));
                write!(f, "{entry} reachable; {entry} permanent")
            }
            Step::LayGuards => f.write_str("nft add table bridge evpn-hook (with the rules of port security)"),
            Step::LiftGuards => f.write_str("nft delete table bridge evpn-hook"),
            Step::GuardBridge { bridge, on } => {
                let what = if *on { "add" } else { "delete" };
                write!(f, "nft {what} element bridge evpn-hook bridges {{ \"{bridge}\" }}")
            }
            Step::Guard { dev, more, less, .. } => {
                let list = |lets: &[Lets]| lets.iter().map(Lets::to_string).collect::<Vec<_>>().join(", ");
                write!(f, "nft, table bridge evpn-hook: port {dev}")?;
                if !more.is_empty() {
                    write!(f, ", add {}", list(more))?;
                }
                if !less.is_empty() {
                    write!(f, ", delete {}", list(less))?;
                }
                Ok(())
            }
            Step::HoldPort { name, held, .. } => {
                let (locked, learning) = if *held { ("on", "off") } else { ("off", "on") };
                write!(f, "bridge link set dev {name} locked {locked} learning {learning}")
            }
            Step::LockPort { dev, locked } => {
                let (locked, learning) = if *locked { ("on", "off") } else { ("off", "on") };
                write!(f, "bridge link set dev {dev} locked {locked} learning {learning}")
            }
            Step::IsolateTunnel { dev } => write!(f, "bridge link set dev {dev} isolated on"),
            Step::AwaitVrf { name } => write!(f, "wait until FRR knows VRF {name}"),
            Step::AwaitPort { dev, bridge } => write!(f, "wait until FRR has {dev} on {bridge}"),
            Step::AwaitGone { dev } => write!(f, "wait until FRR knows that {dev} is gone"),
            Step::SpeakerAddVrf { vrf } => {
                write!(f, "vtysh: add vrf {} vni {}, router bgp vrf {}", vrf.name, Opt(vrf.vni), vrf.name)
            }
            Step::SpeakerDelVrf { vrf } => {
                write!(f, "vtysh: remove vrf {} vni {}, router bgp vrf {}", vrf.name, Opt(vrf.vni), vrf.name)
            }
        }
    }
}

/// As sysctl(8) takes it: with dots, or with slashes where a device's name has a dot.
fn sysctl_words(path: &str) -> String {
    if path.contains('.') { path.to_owned() } else { path.replace('/', ".") }
}

struct Opt(Option<Vni>);

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(vni) => vni.fmt(f),
            None => f.write_str("none"),
        }
    }
}
