//! The kernel's messages as the nouns of [`crate::plan::seen`].

use super::attributes::{attributes, half, text, word};
use super::{ALIAS, PROTOCOL};
use crate::model::{IfName, Mac, TableId, Vni, one_line};
use crate::plan::seen::{Address, Fdb, Link, LinkKind, Neigh, Odd, PortFlags, Remote};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::RouteProtocol;
use std::net::IpAddr;

/// `NUD_NOARP` and `NUD_PERMANENT`, include/uapi/linux/neighbour.h: states are bits, and may come together.
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// `IFF_UP` and `IFF_LOWER_UP`, include/uapi/linux/if.h.
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
/// `sizeof(struct ifinfomsg)`: family, padding, type, index, flags, change.
const IFINFOMSG: usize = 16;

/// `IFLA_*`, include/uapi/linux/if_link.h; below them those of their nests.
mod ifla {
    pub const ADDRESS: u16 = 1;
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINK: u16 = 5;
    pub const MASTER: u16 = 10;
    pub const LINKINFO: u16 = 18;
    pub const IFALIAS: u16 = 20;
    pub const AF_SPEC: u16 = 26;
    pub const LINK_NETNSID: u16 = 37;

    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const INFO_SLAVE_KIND: u16 = 4;
    pub const INFO_SLAVE_DATA: u16 = 5;

    pub const BR_STP_STATE: u16 = 5;
    pub const BR_FDB_MAX_LEARNED: u16 = 49;
    pub const BR_VLAN_FILTERING: u16 = 7;
    pub const BR_VLAN_DEFAULT_PVID: u16 = 39;

    pub const BRPORT_LEARNING: u16 = 8;
    pub const BRPORT_NEIGH_SUPPRESS: u16 = 32;
    pub const BRPORT_ISOLATED: u16 = 33;
    pub const BRPORT_LOCKED: u16 = 39;

    pub const VXLAN_ID: u16 = 1;
    pub const VXLAN_LOCAL: u16 = 4;
    pub const VXLAN_LEARNING: u16 = 7;
    pub const VXLAN_PORT: u16 = 15;
    pub const VXLAN_LOCAL6: u16 = 17;
    pub const VXLAN_COLLECT_METADATA: u16 = 25;

    pub const VRF_TABLE: u16 = 1;

    /// `AF_INET6` in IFLA_AF_SPEC, and what is in it.
    pub const INET6: u16 = 10;
    pub const INET6_ADDR_GEN_MODE: u16 = 8;
    pub const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
}

/// A link. `None` for a name that the kernel takes but no [`IfName`] can be, so that no configuration can mean it.
pub(super) fn link(body: &[u8]) -> Option<Link> {
    any_link(body)?.ok()
}

/// A link that no configuration can mean.
pub(super) fn odd(body: &[u8]) -> Option<Odd> {
    any_link(body)?.err()
}

/// A link, by hand and only as far as we decide on it: its message is some 1.5 KiB of which ten attributes matter, and a large host has 10,000.
pub(super) fn any_link(body: &[u8]) -> Option<Result<Link, Odd>> {
    let flags = word(body, 8)?;
    let (mut name, mut shown) = (None, String::new());
    let mut link = Link {
        name: "lo".parse().ok()?,
        index: word(body, 4)?,
        master: None,
        link: None,
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        kind: LinkKind::Other(String::new()),
        addrgen_none: None,
        ours: false,
        port: PortFlags::default(),
        max_learned: None,
    };
    for (kind, value) in attributes(body, IFINFOMSG) {
        match kind {
            ifla::IFNAME => {
                name = text(value).and_then(|name| name.parse::<IfName>().ok());
                if name.is_none() {
                    shown = one_line(String::from_utf8_lossy(value).trim_end_matches('\0'));
                }
            }
            ifla::MASTER => link.master = word(value, 0),
            ifla::LINK => link.link = word(value, 0).filter(|index| *index != 0),
            ifla::ADDRESS => link.mac = Mac::from_bytes(value),
            ifla::MTU => link.mtu = word(value, 0)?,
            ifla::LINKINFO => {
                link.port = port_flags(value);
                link.kind = link_kind(value);
                link.max_learned = max_learned(&link.kind, value);
            }
            ifla::IFALIAS => link.ours = text(value) == Some(ALIAS),
            ifla::AF_SPEC => link.addrgen_none = addrgen_none(value),
            _ => {}
        }
    }
    let Link { index, master, link: peer, port, .. } = link;
    Some(match name {
        Some(name) => Ok(Link { name, ..link }),
        None => Err(Odd { shown, index, master, link: peer, port }),
    })
}

/// The number of the namespace that a link's other end is in (`IFLA_LINK_NETNSID`); none where it is in this one.
pub(super) fn link_netns(body: &[u8]) -> Option<i32> {
    nested(body.get(IFINFOMSG..)?, ifla::LINK_NETNSID).and_then(|id| word(id, 0)).map(u32::cast_signed)
}

fn nested(nest: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(nest, 0).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn is_on(value: &[u8]) -> bool {
    value.first().is_some_and(|on| *on != 0)
}

fn link_kind(info: &[u8]) -> LinkKind {
    let word_of = nested(info, ifla::INFO_KIND).and_then(text).unwrap_or_default();
    let data = nested(info, ifla::INFO_DATA).unwrap_or_default();
    match word_of {
        "bridge" => bridge(data),
        "vxlan" => vxlan(data),
        "vrf" => match nested(data, ifla::VRF_TABLE).and_then(|id| TableId::try_from(word(id, 0)?).ok()) {
            Some(table) => LinkKind::Vrf { table },
            None => LinkKind::Other(word_of.to_owned()),
        },
        other => LinkKind::Other(other.to_owned()),
    }
}

fn bridge(data: &[u8]) -> LinkKind {
    let (mut vlan_filtering, mut default_pvid, mut stp) = (false, 0, false);
    for (kind, value) in attributes(data, 0) {
        match kind {
            // BR_NO_STP, BR_KERNEL_STP or BR_USER_STP, net/bridge/br_private.h.
            ifla::BR_STP_STATE => stp = word(value, 0).is_some_and(|state| state != 0),
            ifla::BR_VLAN_FILTERING => vlan_filtering = is_on(value),
            ifla::BR_VLAN_DEFAULT_PVID => default_pvid = half(value, 0).unwrap_or(0),
            _ => {}
        }
    }
    LinkKind::Bridge { vlan_filtering, default_pvid, stp }
}

fn max_learned(kind: &LinkKind, info: &[u8]) -> Option<u32> {
    let of_bridge = nested(info, ifla::INFO_DATA).filter(|_| matches!(kind, LinkKind::Bridge { .. }));
    word(nested(of_bridge?, ifla::BR_FDB_MAX_LEARNED)?, 0)
}

fn vxlan(data: &[u8]) -> LinkKind {
    let (mut id, mut from, mut udp, mut learns, mut external) = (None, None, 0, false, false);
    for (kind, value) in attributes(data, 0) {
        match kind {
            ifla::VXLAN_ID => id = word(value, 0).and_then(|id| Vni::try_from(id).ok()),
            ifla::VXLAN_LOCAL => from = <[u8; 4]>::try_from(value).ok().map(IpAddr::from).or(from),
            ifla::VXLAN_LOCAL6 => from = <[u8; 16]>::try_from(value).ok().map(IpAddr::from).or(from),
            ifla::VXLAN_PORT => udp = half(value, 0).map_or(0, u16::from_be),
            ifla::VXLAN_LEARNING => learns = is_on(value),
            ifla::VXLAN_COLLECT_METADATA => external = is_on(value),
            _ => {}
        }
    }
    LinkKind::Vxlan { vni: id.filter(|_| !external), local: from, port: udp, learning: learns }
}

fn addrgen_none(specs: &[u8]) -> Option<bool> {
    let mode = nested(nested(specs, ifla::INET6)?, ifla::INET6_ADDR_GEN_MODE)?;
    Some(*mode.first()? == ifla::IN6_ADDR_GEN_MODE_NONE)
}

fn port_flags(info: &[u8]) -> PortFlags {
    let mut flags = PortFlags::default();
    if nested(info, ifla::INFO_SLAVE_KIND).and_then(text) != Some("bridge") {
        return flags;
    }
    for (kind, value) in attributes(nested(info, ifla::INFO_SLAVE_DATA).unwrap_or_default(), 0) {
        match kind {
            ifla::BRPORT_LEARNING => flags.learning = Some(is_on(value)),
            ifla::BRPORT_NEIGH_SUPPRESS => flags.neigh_suppress = Some(is_on(value)),
            ifla::BRPORT_ISOLATED => flags.isolated = Some(is_on(value)),
            ifla::BRPORT_LOCKED => flags.locked = Some(is_on(value)),
            _ => {}
        }
    }
    flags
}

/// A neighbour; `None` for what the kernel keeps for itself (multicast and broadcast, NUD_NOARP and nobody's).
pub(super) fn neigh(message: NeighbourMessage) -> Option<Neigh> {
    let state = u16::from(message.header.state);
    let flags = message.header.flags;
    let (ext_learned, router) = (flags.contains(NeighbourFlags::ExtLearned), flags.contains(NeighbourFlags::Router));
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
    Some(Neigh { ip: ip?, mac, permanent: state & NUD_PERMANENT != 0, ext_learned, ours, router })
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
    let header = &message.header;
    let lent = !header.flags.contains(AddressHeaderFlags::Permanent);
    Some(Address { index: header.index, net, global: header.scope == AddressScope::Universe, lent })
}
