//! The kernel's messages as the nouns of [`crate::plan::seen`].

use super::{ALIAS, PROTOCOL};
use crate::model::{IfName, Mac, TableId, Vni};
use crate::plan::seen::{Address, Fdb, Link, LinkKind, Neigh, PortFlags, Remote};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVrf,
    InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::RouteProtocol;
use std::net::IpAddr;

/// `NUD_NOARP` and `NUD_PERMANENT`, include/uapi/linux/neighbour.h: states are bits, and may come together.
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// A link; `None` for a name that the kernel takes but no [`IfName`] can be, so that no configuration can mean it.
pub(super) fn link(message: LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut name = None;
    let mut link = Link {
        name: "lo".parse().ok()?,
        index: message.header.index,
        master: None,
        link: None,
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        kind: LinkKind::Other(String::new()),
        addrgen_none: None,
        ours: false,
        port: PortFlags::default(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse::<IfName>().ok(),
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.link = (index != 0).then_some(index),
            LinkAttribute::Address(bytes) => link.mac = Mac::from_bytes(&bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.port = port_flags(&infos);
                link.kind = kind(infos);
            }
            LinkAttribute::IfAlias(alias) => link.ours = alias == ALIAS,
            LinkAttribute::AfSpecUnspec(specs) => link.addrgen_none = addrgen_none(&specs),
            _ => {}
        }
    }
    link.name = name?;
    Some(link)
}

fn kind(infos: Vec<LinkInfo>) -> LinkKind {
    let mut word = String::new();
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Other(text)) => word = text,
            LinkInfo::Kind(kind) => word = kind.to_string(),
            LinkInfo::Data(InfoData::Bridge(options)) => return bridge(&options),
            LinkInfo::Data(InfoData::Vxlan(options)) => return vxlan(&options),
            LinkInfo::Data(InfoData::Vrf(options)) => {
                let table = options.iter().find_map(|option| match option {
                    InfoVrf::TableId(id) => TableId::try_from(*id).ok(),
                    _ => None,
                });
                if let Some(table) = table {
                    return LinkKind::Vrf { table };
                }
            }
            _ => {}
        }
    }
    LinkKind::Other(word)
}

fn bridge(options: &[InfoBridge]) -> LinkKind {
    let (mut filtering, mut pvid) = (false, 0);
    for option in options {
        match option {
            InfoBridge::VlanFiltering(on) => filtering = *on,
            InfoBridge::VlanDefaultPvid(vid) => pvid = *vid,
            _ => {}
        }
    }
    LinkKind::Bridge { vlan_filtering: filtering, default_pvid: pvid }
}

fn vxlan(options: &[InfoVxlan]) -> LinkKind {
    let (mut id, mut from, mut udp, mut learns, mut external) = (None, None, 0, false, false);
    for option in options {
        match option {
            InfoVxlan::Id(value) => id = Vni::try_from(*value).ok(),
            InfoVxlan::Local(ip) => from = Some(IpAddr::V4(*ip)),
            InfoVxlan::Local6(ip) => from = Some(IpAddr::V6(*ip)),
            InfoVxlan::Port(value) => udp = *value,
            InfoVxlan::Learning(on) => learns = *on,
            InfoVxlan::CollectMetadata(on) => external = *on,
            _ => {}
        }
    }
    LinkKind::Vxlan { vni: id.filter(|_| !external), local: from, port: udp, learning: learns }
}

fn addrgen_none(specs: &[AfSpecUnspec]) -> Option<bool> {
    let inet6 = specs.iter().find_map(|spec| match spec {
        AfSpecUnspec::Inet6(attributes) => Some(attributes),
        _ => None,
    })?;
    inet6.iter().find_map(|attribute| match attribute {
        AfSpecInet6::AddrGenMode(mode) => Some(*mode == In6AddrGenMode::None),
        _ => None,
    })
}

fn port_flags(infos: &[LinkInfo]) -> PortFlags {
    let options = infos.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(options)) => Some(options),
        _ => None,
    });
    let mut flags = PortFlags::default();
    for option in options.into_iter().flatten() {
        match option {
            InfoBridgePort::Learning(on) => flags.learning = Some(*on),
            InfoBridgePort::NeighSupress(on) => flags.neigh_suppress = Some(*on),
            _ => {}
        }
    }
    flags
}

/// A neighbour; `None` for what the kernel keeps for itself (multicast and broadcast, NUD_NOARP and nobody's).
pub(super) fn neigh(message: NeighbourMessage) -> Option<Neigh> {
    let state = u16::from(message.header.state);
    let ext_learned = message.header.flags.contains(NeighbourFlags::ExtLearned);
    let (mut ip, mut mac, mut ours) = (None, None, false);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::from_bytes(&bytes),
            NeighbourAttribute::Protocol(number) => ours = number == RouteProtocol::Other(PROTOCOL),
            _ => {}
        }
    }
    if state & NUD_NOARP != 0 && !ext_learned && mac.is_none() {
        return None;
    }
    Some(Neigh { ip: ip?, mac, permanent: state & NUD_PERMANENT != 0, ext_learned, ours })
}

/// An FDB entry with its bridge's index and its VLAN (0 is none); `None` for a device's own (`self`) entries.
pub(super) fn fdb(message: NeighbourMessage) -> Option<(u32, Fdb, u16)> {
    let header = message.header;
    if header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let (mut mac, mut vlan, mut master) = (None, 0, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::from_bytes(&bytes),
            NeighbourAttribute::Vlan(vid) => vlan = vid,
            NeighbourAttribute::Controller(index) => master = Some(index),
            _ => {}
        }
    }
    let entry = Fdb {
        mac: mac?,
        port: header.ifindex,
        is_static: u16::from(header.state) & (NUD_NOARP | NUD_PERMANENT) != 0,
        ext_learned: header.flags.contains(NeighbourFlags::ExtLearned),
    };
    Some((master?, entry, vlan))
}

/// A VXLAN device's own entry: the tunnel's other end. The family is the bridge's, so the library leaves it as bytes.
pub(super) fn remote(message: NeighbourMessage) -> Option<IpAddr> {
    message.attributes.into_iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(v6)),
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        },
        _ => None,
    })
}

/// The same with its MAC, of a listing that has other entries, too. Flooding has the MAC 00:00:00:00:00:00; a group is nobody's tunnel end.
pub(super) fn remote_entry(message: NeighbourMessage) -> Option<Remote> {
    let header = &message.header;
    if !header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let port = header.ifindex;
    let bytes = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => Some(bytes.clone()),
        _ => None,
    })?;
    let mac = Mac::from_bytes(&bytes);
    if mac.is_none() && bytes != [0; 6] {
        return None;
    }
    let vtep = remote(message).filter(|vtep| !vtep.is_multicast() && !vtep.is_unspecified())?;
    Some(Remote { port, mac, vtep })
}

/// An address; `IFA_LOCAL` is the device's own where the two differ (a point-to-point peer is in `IFA_ADDRESS`).
pub(super) fn address(message: AddressMessage) -> Option<Address> {
    let (mut own, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => own = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            _ => {}
        }
    }
    let net = IpNet::new(own.or(other)?, message.header.prefix_len).ok()?;
    Some(Address { index: message.header.index, net, global: message.header.scope == AddressScope::Universe })
}
