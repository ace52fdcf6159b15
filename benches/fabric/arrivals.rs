//! When a guest's entries come and go, in its own host's kernel and in another's: their own netlink messages, read as they come.

use evpn_hook::model::Mac;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::Timespec;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// `RTNLGRP_NEIGH` and `_IPV4_ROUTE`, include/uapi/linux/rtnetlink.h.
const GROUPS: [u32; 2] = [3, 7];
const BACKLOG: usize = 8 << 20;
/// Far beyond what FRR takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is waited for, each at its place in the times.
pub const SIGNS: [&str; 4] = ["own FDB entry", "remote FDB entry", "neighbour", "host route"];
const OWN: usize = 0;
const FDB: usize = 1;
const NEIGHBOUR: usize = 2;
const ROUTE: usize = 3;

pub struct Arrivals {
    own: Socket,
    other: Socket,
    mac: Mac,
    ip: Ipv4Addr,
    /// What is there now, and since when.
    since: [Option<Instant>; SIGNS.len()],
}

impl Arrivals {
    /// Of this guest, in its host's network namespace and in the other's.
    pub fn listen(own: &File, other: &File, mac: Mac, ip: Ipv4Addr) -> Arrivals {
        Arrivals { own: listener(own), other: listener(other), mac, ip, since: [None; _] }
    }

    /// Waits until all of it is there; since when.
    pub fn all(&mut self) -> [Instant; SIGNS.len()] {
        self.until("to come", |since| since.iter().all(Option::is_some));
        self.since.map(Option::unwrap)
    }

    /// Waits until nothing is left.
    pub fn none(&mut self) {
        self.until("to go", |since| since.iter().all(Option::is_none));
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&[Option<Instant>]) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(&self.since) {
            let left = end.saturating_duration_since(Instant::now());
            let there: Vec<_> = SIGNS.iter().zip(self.since).filter(|(_, at)| at.is_some()).map(|(s, _)| s).collect();
            assert!(!left.is_zero(), "waited {PATIENCE:?} for {} {what}: there is {there:?}", self.mac);
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut both = [PollFd::new(&self.own, PollFlags::IN), PollFd::new(&self.other, PollFlags::IN)];
            poll(&mut both, Some(&left)).unwrap();
            self.read(true);
            self.read(false);
        }
    }

    fn read(&mut self, own: bool) {
        const MSG_DONTWAIT: i32 = 0x40;
        let mut buffer = Vec::with_capacity(32 << 10);
        loop {
            buffer.clear();
            match if own { &self.own } else { &self.other }.recv(&mut buffer, MSG_DONTWAIT) {
                Ok(_) => self.take(own, &buffer, Instant::now()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("netlink: {error}"),
            }
        }
    }

    /// The messages of one datagram.
    fn take(&mut self, own: bool, mut rest: &[u8], now: Instant) {
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).unwrap();
            rest = rest.get(message.header.length.next_multiple_of(4) as usize..).unwrap_or_default();
            let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
            let (sign, there) = match message {
                RouteNetlinkMessage::NewNeighbour(entry) => (self.entry(own, &entry), !is_failed(&entry)),
                RouteNetlinkMessage::DelNeighbour(entry) => (self.entry(own, &entry), false),
                RouteNetlinkMessage::NewRoute(route) => (self.route(own, &route), true),
                RouteNetlinkMessage::DelRoute(route) => (self.route(own, &route), false),
                _ => continue,
            };
            if let Some(sign) = sign {
                // What is there already and only changes keeps its time.
                self.since[sign] = there.then(|| self.since[sign].unwrap_or(now));
            }
        }
    }

    /// zebra writes both lists of a VXLAN port with one request: the bridge's, then the device's own, which names the other VTEP.
    fn entry(&self, own: bool, entry: &NeighbourMessage) -> Option<usize> {
        let is_mac = |a: &NeighbourAttribute| matches!(a, NeighbourAttribute::LinkLayerAddress(mac) if *mac == self.mac.octets());
        let is_ip = |a: &NeighbourAttribute| matches!(a, NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) if *ip == self.ip);
        let of_device = entry.header.flags.contains(NeighbourFlags::Own);
        match (entry.header.family, own) {
            (AddressFamily::Bridge, true) if !of_device => entry.attributes.iter().any(is_mac).then_some(OWN),
            (AddressFamily::Bridge, false) if of_device => entry.attributes.iter().any(is_mac).then_some(FDB),
            (AddressFamily::Inet, false) => entry.attributes.iter().any(is_ip).then_some(NEIGHBOUR),
            _ => None,
        }
    }

    fn route(&self, own: bool, route: &RouteMessage) -> Option<usize> {
        let is_ip =
            |a: &RouteAttribute| matches!(a, RouteAttribute::Destination(RouteAddress::Inet(ip)) if *ip == self.ip);
        (!own && route.header.destination_prefix_length == 32 && route.attributes.iter().any(is_ip)).then_some(ROUTE)
    }
}

fn is_failed(entry: &NeighbourMessage) -> bool {
    matches!(entry.header.state, NeighbourState::Failed | NeighbourState::Incomplete)
}

/// A thread of its own goes there; a socket stays where it was made.
fn listener(netns: &File) -> Socket {
    let open = || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BACKLOG).unwrap();
        socket.bind_auto().unwrap();
        GROUPS.iter().for_each(|group| socket.add_membership(*group).unwrap());
        socket
    };
    std::thread::scope(|scope| scope.spawn(open).join().unwrap())
}
