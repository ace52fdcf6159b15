//! Addresses, FDB entries, neighbours: the requests behind the steps.

use super::apply::Done;
use super::observe::{family, neigh_message};
use super::{Kernel, PROTOCOL};
use crate::fault;
use crate::model::Mac;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;

const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

impl Kernel {
    pub(super) fn add_address(&mut self, index: u32, address: IpNet) -> Done {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
        if address.addr().is_ipv6() {
            // Every host of the fabric has this address: detection would find a duplicate and take it away.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.change(RouteNetlinkMessage::NewAddress(message), REPLACE)
    }

    pub(super) fn del_address(&mut self, index: u32, address: IpNet) -> Done {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.attributes = vec![AddressAttribute::Local(address.addr())];
        self.change(RouteNetlinkMessage::DelAddress(message), 0)
    }

    /// NUD_NOARP is the kernel's word for `static`. Without NTF_MASTER the entry would go to the device's own filter list.
    pub(super) fn add_fdb(&mut self, port: u32, mac: Mac) -> Done {
        let mut message = fdb_message(port, mac);
        message.header.state = NeighbourState::Noarp;
        self.change(RouteNetlinkMessage::NewNeighbour(message), REPLACE)
    }

    /// The kernel compares the port before it deletes (net/bridge/br_fdb.c, `fdb_delete_by_addr_and_port`): ENOENT if the MAC
    /// moved on to another.
    pub(super) fn del_fdb(&mut self, port: u32, mac: Mac) -> Done {
        self.change(RouteNetlinkMessage::DelNeighbour(fdb_message(port, mac)), 0)
    }

    /// An entry of a VXLAN device's own, where there is none. zebra passes over one that is permanent, and takes EXT_LEARN for its own.
    pub(super) fn add_remote(&mut self, vxlan: u32, mac: Mac, vtep: IpAddr) -> Done {
        self.change(RouteNetlinkMessage::NewNeighbour(learned_remote(vxlan, mac, vtep)), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The same in the place of what is there.
    pub(super) fn put_remote(&mut self, vxlan: u32, mac: Mac, vtep: IpAddr) -> Done {
        self.change(RouteNetlinkMessage::NewNeighbour(learned_remote(vxlan, mac, vtep)), REPLACE)
    }

    /// This one alone: the kernel compares the VTEP (drivers/net/vxlan/vxlan_core.c `__vxlan_fdb_delete`).
    pub(super) fn del_remote(&mut self, vxlan: u32, mac: Mac, vtep: IpAddr) -> Done {
        self.change(RouteNetlinkMessage::DelNeighbour(remote_message(vxlan, mac, vtep)), 0)
    }

    pub(super) fn add_neigh(&mut self, bridge: u32, ip: IpAddr, mac: Mac, router: bool) -> Done {
        self.put_neigh(bridge, ip, mac, router, NeighbourState::Permanent)
    }

    /// An identical `replace` is told to nobody (net/core/neighbour.c `__neigh_update` notifies of changes alone), hence two.
    pub(super) fn tell_neigh(&mut self, bridge: u32, ip: IpAddr, mac: Mac, router: bool) -> Done {
        self.put_neigh(bridge, ip, mac, router, NeighbourState::Reachable)?;
        fault::point(format_args!("amid the telling of {ip}"));
        self.put_neigh(bridge, ip, mac, router, NeighbourState::Permanent)
    }

    fn put_neigh(&mut self, bridge: u32, ip: IpAddr, mac: Mac, router: bool, state: NeighbourState) -> Done {
        let mut message = neigh_message(family(ip), bridge);
        message.header.state = state;
        if router {
            message.header.flags = NeighbourFlags::Router;
        }
        message.attributes = vec![
            NeighbourAttribute::Destination(ip.into()),
            NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()),
            NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
        ];
        self.change(RouteNetlinkMessage::NewNeighbour(message), REPLACE)
    }

    pub(super) fn del_neigh(&mut self, bridge: u32, ip: IpAddr) -> Done {
        let mut message = neigh_message(family(ip), bridge);
        message.attributes = vec![NeighbourAttribute::Destination(ip.into())];
        self.change(RouteNetlinkMessage::DelNeighbour(message), 0)
    }
}

fn learned_remote(vxlan: u32, mac: Mac, vtep: IpAddr) -> NeighbourMessage {
    let mut message = remote_message(vxlan, mac, vtep);
    message.header.state = NeighbourState::Reachable;
    message
}

fn remote_message(vxlan: u32, mac: Mac, vtep: IpAddr) -> NeighbourMessage {
    let mut message = neigh_message(AddressFamily::Bridge, vxlan);
    message.header.flags = NeighbourFlags::Own;
    // The family is the bridge's, so the library knows an address as bytes alone.
    let vtep = match vtep {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()),
        NeighbourAttribute::Destination(NeighbourAddress::Other(vtep)),
    ];
    message
}

fn fdb_message(port: u32, mac: Mac) -> NeighbourMessage {
    let mut message = neigh_message(AddressFamily::Bridge, port);
    message.header.flags = NeighbourFlags::Controller;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec())];
    message
}
