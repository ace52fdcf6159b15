//! Which devices the routes of table main leave by.

use super::Kernel;
use super::error::{KernelError, is_unsupported};
use crate::plan::underlay::Ways;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// RTPROT_OPENR, RTPROT_NHRP and RTPROT_OPENFABRIC, for which the crate has no names (include/uapi/linux/rtnetlink.h, FRR's zebra/rt_netlink.h).
const LEARNED: [u8; 3] = [99, 191, 197];

impl Kernel {
    /// What table main says. The whole of it is read: not for a guest's hook.
    pub fn ways(&mut self, v6: bool) -> Result<Ways, KernelError> {
        self.told("routes of table main", |kernel| kernel.main_routes(v6))
    }

    /// The devices that packets to these addresses leave by.
    pub fn leave_by(&mut self, addresses: impl Iterator<Item = IpAddr>) -> Result<BTreeSet<u32>, KernelError> {
        let mut devices = BTreeSet::new();
        for address in addresses {
            devices.extend(self.route_to(address, None)?.filter(|route| !route.local).map(|route| route.device));
        }
        Ok(devices)
    }

    fn main_routes(&mut self, v6: bool) -> Result<Ways, KernelError> {
        let (family, whole) = if v6 { (AddressFamily::Inet6, 128) } else { (AddressFamily::Inet, 32) };
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        filter.attributes.push(RouteAttribute::Table(RouteHeader::RT_TABLE_MAIN.into()));
        let ways = RefCell::new(Ways::default());
        let keep = |message| -> Option<()> {
            let RouteNetlinkMessage::NewRoute(route) = message else { return None };
            if route.header.kind != RouteType::Unicast || route.header.table != RouteHeader::RT_TABLE_MAIN {
                return None;
            }
            let length = route.header.destination_prefix_length;
            let learned = is_learned(route.header.protocol);
            let mut ways = ways.borrow_mut();
            for device in devices(&route) {
                match (learned, length) {
                    (true, length) if length == whole => drop(ways.hosts.insert(device)),
                    (true, _) => drop(ways.learned.insert(device)),
                    (false, _) => {}
                }
                if length == 0 {
                    ways.default.insert(device);
                }
            }
            None
        };
        match self.socket.list(RouteNetlinkMessage::GetRoute(filter), keep) {
            Err(cause) if v6 && is_unsupported(&cause) => {}
            Err(cause) if cause.is(Errno::NOENT) => {}
            answer => drop(answer.map_err(|cause| KernelError::Read { what: "routes of table main".into(), cause })?),
        }
        Ok(ways.into_inner())
    }
}

fn is_learned(protocol: RouteProtocol) -> bool {
    match protocol {
        RouteProtocol::Zebra | RouteProtocol::Bird | RouteProtocol::Babel | RouteProtocol::Bgp => true,
        RouteProtocol::Isis | RouteProtocol::Ospf | RouteProtocol::Rip | RouteProtocol::Eigrp => true,
        other => LEARNED.contains(&other.into()),
    }
}

/// One, or all of a multipath route.
fn devices(route: &RouteMessage) -> Vec<u32> {
    let of = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(of).collect()
}
