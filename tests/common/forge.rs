//! Frames that a guest may send, and those that it may not: what port security is tried with, on one host and across the fabric.

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, bind, recv, sendto};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, Protocol, SocketType, socket};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

type Mac = [u8; 6];

/// Whom a frame speaks for.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    pub mac: Mac,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Who {
    pub fn new(mac: &str, v4: &str, v6: &str) -> Who {
        let mac: evpn_hook::model::Mac = mac.parse().unwrap();
        Who { mac: mac.octets(), v4: v4.parse().unwrap(), v6: v6.parse().unwrap() }
    }

    /// RFC 4291 §2.5.1.
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac.map(u16::from);
        Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
    }
}

/// A frame and what it is.
pub struct Frame {
    pub what: &'static str,
    pub bytes: Vec<u8>,
}

const ALL: Mac = [0xff; 6];
const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub fn ethernet(to: Mac, from: Mac, kind: u16, body: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), body].concat()
}

pub fn arp_body(operation: u8, sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &sha, &spa.octets(), &[0; 6], &tpa.octets()].concat()
}

fn arp(from: Mac, operation: u8, sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    ethernet(ALL, from, 0x0806, &arp_body(operation, sha, spa, tpa))
}

fn sum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes = parts.concat();
    let mut sum: u32 = bytes.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

pub fn udp(from: u16, to: u16, message: &[u8]) -> Vec<u8> {
    let length = 8 + message.len() as u16;
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], message].concat()
}

pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, datagram: &[u8]) -> Vec<u8> {
    let length = (20 + datagram.len() as u16).to_be_bytes();
    let mut header =
        [&[0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 17, 0, 0][..], &from.octets(), &to.octets()].concat();
    let check = sum(&[&header]);
    header[10..12].copy_from_slice(&check);
    [header, datagram.to_vec()].concat()
}

/// A client's or server's message about `mac`.
fn dhcp(direction: u8, kind: u8, mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..8].copy_from_slice(&[direction, 1, 6, 0, 1, 2, 3, 4]);
    message[12..16].copy_from_slice(&ip.octets());
    message[28..34].copy_from_slice(&mac);
    [&message[..], &[99, 130, 83, 99, 53, 1, kind, 255]].concat()
}

fn ipv6(next: u8, from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, 255][..], &from.octets(), &to.octets(), payload].concat()
}

fn icmp6(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let length = (message.len() as u32).to_be_bytes();
    let check = sum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, 58], &message]);
    message[2..4].copy_from_slice(&check);
    message
}

fn all_nodes() -> Ipv6Addr {
    "ff02::1".parse().unwrap()
}

/// To all nodes, whatever it is: whoever hears it takes it.
fn nd(mac: Mac, from: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let to = all_nodes();
    ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd, &ipv6(58, from, to, &icmp6(from, to, message)))
}

fn solicitation(target: Ipv6Addr, option: Option<Mac>) -> Vec<u8> {
    let option = option.map(|mac| [&[1, 1][..], &mac].concat()).unwrap_or_default();
    [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &option].concat()
}

fn advertisement(target: Ipv6Addr, option: Option<Mac>) -> Vec<u8> {
    let option = option.map(|mac| [&[2, 1][..], &mac].concat()).unwrap_or_default();
    [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets(), &option].concat()
}

fn router(mac: Mac) -> Vec<u8> {
    let prefix = [&[3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0, 0xfd, 0x66][..], &[0; 14]].concat();
    [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &mac, &prefix].concat()
}

/// What a guest sends that does as it should.
pub fn fair(own: Who, peer: Who) -> Vec<Frame> {
    let frame = |what, bytes| Frame { what, bytes };
    let (mac, local) = (own.mac, own.link_local());
    let discover = ipv4(NOWHERE, Ipv4Addr::BROADCAST, &udp(68, 67, &dhcp(1, 1, mac, NOWHERE)));
    let renew = ipv4(own.v4, peer.v4, &udp(68, 67, &dhcp(1, 3, mac, own.v4)));
    let report = icmp6(local, "ff02::16".parse().unwrap(), &[143, 0, 0, 0, 0, 0, 0, 0]);
    let report = ipv6(0, local, "ff02::16".parse().unwrap(), &[&[58, 0, 5, 2, 0, 0, 1, 0][..], &report].concat());
    vec![
        frame("ARP request", arp(mac, 1, mac, own.v4, peer.v4)),
        frame("ARP reply", arp(mac, 2, mac, own.v4, peer.v4)),
        frame("gratuitous ARP", arp(mac, 1, mac, own.v4, own.v4)),
        frame("ARP probe", arp(mac, 1, mac, NOWHERE, own.v4)),
        frame("IPv4", ethernet(ALL, mac, 0x0800, &ipv4(own.v4, peer.v4, &udp(5000, 5000, b"fair")))),
        frame("DHCP discover", ethernet(ALL, mac, 0x0800, &discover)),
        frame("DHCP renewal", ethernet(ALL, mac, 0x0800, &renew)),
        frame("QEMU's RARP announcement", ethernet(ALL, mac, 0x8035, &arp_body(3, mac, NOWHERE, NOWHERE))),
        frame("IPv6", ethernet(ALL, mac, 0x86dd, &ipv6(17, own.v6, all_nodes(), &udp(5000, 5000, b"fair")))),
        frame("ping from its link-local address", nd(mac, local, &[128, 0, 0, 0, 0, 1, 0, 1])),
        frame("neighbour solicitation", nd(mac, own.v6, &solicitation(peer.v6, Some(mac)))),
        frame("neighbour advertisement", nd(mac, own.v6, &advertisement(own.v6, Some(mac)))),
        frame("advertisement without an option", nd(mac, own.v6, &advertisement(own.v6, None))),
        frame("duplicate address detection", nd(mac, Ipv6Addr::UNSPECIFIED, &solicitation(own.v6, None))),
        frame("router solicitation", nd(mac, local, &[&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &mac].concat())),
        frame("router solicitation from ::", nd(mac, Ipv6Addr::UNSPECIFIED, &[133, 0, 0, 0, 0, 0, 0, 0])),
        frame("MLD report", ethernet([0x33, 0x33, 0, 0, 0, 0x16], mac, 0x86dd, &report)),
    ]
}

/// What only somebody else may send: forged by its source MAC.
pub fn forged_macs(own: Who, peer: Who, gateway: Who) -> Vec<Frame> {
    let frame = |what, bytes| Frame { what, bytes };
    let lldp = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
    vec![
        frame("ARP from another's MAC", arp(peer.mac, 1, peer.mac, peer.v4, own.v4)),
        frame("ARP from the gateway's MAC", arp(gateway.mac, 2, gateway.mac, gateway.v4, own.v4)),
        frame("IPv4 from another's MAC", ethernet(ALL, peer.mac, 0x0800, &ipv4(own.v4, peer.v4, &udp(1, 1, b"x")))),
        frame("RARP from another's MAC", ethernet(ALL, peer.mac, 0x8035, &arp_body(3, peer.mac, NOWHERE, NOWHERE))),
        frame("LLDP from another's MAC", ethernet(lldp, peer.mac, 0x88cc, &[0; 50])),
        frame("LLDP from the gateway's MAC", ethernet(lldp, gateway.mac, 0x88cc, &[0; 50])),
        frame("BPDU from another's MAC", ethernet([0x01, 0x80, 0xc2, 0, 0, 0], peer.mac, 38, &[0x42; 38])),
        frame(
            "VLAN tag and another's MAC",
            ethernet(ALL, peer.mac, 0x8100, &[&[0, 0, 8, 6][..], &arp_body(1, peer.mac, peer.v4, own.v4)].concat()),
        ),
    ]
}

/// What only somebody else may send, from the guest's own MAC.
pub fn forged(own: Who, peer: Who, gateway: Who) -> Vec<Frame> {
    let frame = |what, bytes| Frame { what, bytes };
    let (mac, local) = (own.mac, own.link_local());
    let v4 = |from: Ipv4Addr, to: Ipv4Addr, datagram: &[u8]| ethernet(ALL, mac, 0x0800, &ipv4(from, to, datagram));
    let v6 = |next, from: Ipv6Addr, payload: &[u8]| {
        ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd, &ipv6(next, from, all_nodes(), payload))
    };
    let tagged =
        |kind: u16, body: &[u8]| ethernet(ALL, mac, 0x8100, &[&[0, 0][..], &kind.to_be_bytes(), body].concat());
    let stranger: Ipv4Addr = "192.0.2.1".parse().unwrap();
    let offer = dhcp(2, 2, peer.mac, peer.v4);
    let ra = icmp6(local, all_nodes(), &router(mac));
    let na = icmp6(local, all_nodes(), &advertisement(peer.v6, Some(mac)));
    let mut long = arp_body(1, mac, own.v4, peer.v4);
    long[4] = 8;
    vec![
        frame("ARP request as another", arp(mac, 1, mac, peer.v4, gateway.v4)),
        frame("ARP reply as another", arp(mac, 2, mac, peer.v4, gateway.v4)),
        frame("gratuitous ARP as another", arp(mac, 1, mac, peer.v4, peer.v4)),
        frame("gratuitous ARP as the gateway", arp(mac, 1, mac, gateway.v4, gateway.v4)),
        frame("ARP that names another's MAC", arp(mac, 2, peer.mac, own.v4, peer.v4)),
        frame("ARP probe of another's address", arp(mac, 1, mac, NOWHERE, peer.v4)),
        frame("ARP of strange lengths", ethernet(ALL, mac, 0x0806, &long)),
        frame("IPv4 as another", v4(peer.v4, gateway.v4, &udp(5000, 5000, b"x"))),
        frame("IPv4 as the gateway", v4(gateway.v4, peer.v4, &udp(5000, 5000, b"x"))),
        frame("IPv4 from outside", v4(stranger, peer.v4, &udp(5000, 5000, b"x"))),
        frame("IPv4 from nowhere", v4(NOWHERE, peer.v4, &udp(5000, 5000, b"x"))),
        frame(
            "IPv4 from nowhere to a DHCP server from another port",
            v4(NOWHERE, Ipv4Addr::BROADCAST, &udp(5000, 67, &dhcp(1, 1, mac, NOWHERE))),
        ),
        frame("priority-tagged ARP as another", tagged(0x0806, &arp_body(1, mac, peer.v4, gateway.v4))),
        frame("priority-tagged IPv4 as another", tagged(0x0800, &ipv4(peer.v4, gateway.v4, &udp(5000, 5000, b"x")))),
        frame("DHCP offer", v4(own.v4, Ipv4Addr::BROADCAST, &udp(67, 68, &offer))),
        frame("DHCP offer from another port", v4(own.v4, Ipv4Addr::BROADCAST, &udp(5000, 68, &offer))),
        frame("DHCP server to a relay", v4(own.v4, peer.v4, &udp(67, 67, &offer))),
        frame(
            "DHCP discover for another",
            v4(NOWHERE, Ipv4Addr::BROADCAST, &udp(68, 67, &dhcp(1, 1, peer.mac, NOWHERE))),
        ),
        frame("DHCP release for another", v4(own.v4, gateway.v4, &udp(68, 67, &dhcp(1, 7, peer.mac, peer.v4)))),
        frame("DHCP release of another's", v4(peer.v4, gateway.v4, &udp(68, 67, &dhcp(1, 7, mac, peer.v4)))),
        frame("DHCPv6 reply", v6(17, own.v6, &udp(547, 546, &[7, 1, 2, 3]))),
        frame("DHCPv6 reply from another port", v6(17, own.v6, &udp(5000, 546, &[7, 1, 2, 3]))),
        frame("IPv6 as another", v6(17, peer.v6, &udp(5000, 5000, b"x"))),
        frame("IPv6 as the gateway", v6(17, gateway.v6, &udp(5000, 5000, b"x"))),
        frame("IPv6 from another's link-local address", v6(17, peer.link_local(), &udp(5000, 5000, b"x"))),
        frame("neighbour advertisement of another's address", nd(mac, own.v6, &advertisement(peer.v6, Some(mac)))),
        frame(
            "neighbour advertisement of the gateway's address",
            nd(mac, local, &advertisement(gateway.v6, Some(mac))),
        ),
        frame("neighbour advertisement as another", nd(mac, peer.v6, &advertisement(peer.v6, Some(mac)))),
        frame(
            "neighbour advertisement that names another's MAC",
            nd(mac, own.v6, &advertisement(own.v6, Some(peer.mac))),
        ),
        frame(
            "neighbour advertisement behind another header",
            v6(60, local, &[&[58, 0, 1, 4, 0, 0, 0, 0][..], &na].concat()),
        ),
        frame("neighbour solicitation as another", nd(mac, peer.v6, &solicitation(gateway.v6, Some(mac)))),
        frame(
            "neighbour solicitation that names another's MAC",
            nd(mac, own.v6, &solicitation(gateway.v6, Some(peer.mac))),
        ),
        frame(
            "duplicate address detection of another's address",
            nd(mac, Ipv6Addr::UNSPECIFIED, &solicitation(peer.v6, None)),
        ),
        frame("router advertisement", nd(mac, local, &router(mac))),
        frame(
            "router advertisement behind another header",
            v6(60, local, &[&[58, 0, 1, 4, 0, 0, 0, 0][..], &ra].concat()),
        ),
        frame("router advertisement in a fragment", v6(44, local, &[&[58, 0, 0, 0, 0, 0, 0, 1][..], &ra].concat())),
        frame(
            "redirect",
            nd(mac, local, &[&[137, 0, 0, 0, 0, 0, 0, 0][..], &local.octets(), &peer.v6.octets()].concat()),
        ),
        frame("BPDU", ethernet([0x01, 0x80, 0xc2, 0, 0, 0], mac, 38, &[0x42; 38])),
        frame("a protocol that nobody knows", ethernet(ALL, mac, 0x88b5, b"x")),
    ]
}

/// What a router says of itself, from its link-local address.
pub fn router_advertisement(own: Who) -> Vec<u8> {
    nd(own.mac, own.link_local(), &router(own.mac))
}

/// A device's own way in and out, whole frames.
pub struct Port(OwnedFd, LinkAddr);

impl Port {
    /// Of the calling thread's network namespace.
    pub fn open(dev: &str) -> Port {
        let link =
            |a: nix::ifaddrs::InterfaceAddress| Some(*a.address?.as_link_addr()?).filter(|_| a.interface_name == dev);
        let at = getifaddrs().unwrap().find_map(link).unwrap_or_else(|| panic!("no device {dev}"));
        // ETH_P_ALL
        let all = Protocol::from_raw(u32::from(3u16.to_be()).try_into().unwrap());
        let socket = socket(AddressFamily::PACKET, SocketType::RAW, Some(all)).unwrap();
        bind(socket.as_raw_fd(), &at).unwrap();
        Port(socket, at)
    }

    pub fn send(&self, frame: &[u8]) {
        assert_eq!(sendto(self.0.as_raw_fd(), frame, &self.1, MsgFlags::empty()), Ok(frame.len()));
    }

    /// All that comes until this frame has come.
    pub fn until(&self, last: &[u8]) -> Vec<Vec<u8>> {
        self.until_one(|frame| frame.starts_with(last))
    }

    /// The same for the first that is such a one.
    pub fn until_one(&self, is_it: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let (mut came, end) = (Vec::<Vec<u8>>::new(), Instant::now() + Duration::from_secs(20));
        while !came.last().is_some_and(|frame| is_it(frame)) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the frame that ends it did not come, but {} others", came.len());
            let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&wait)).unwrap();
            let mut buffer = [0; 2048];
            if let Ok(length) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                came.push(buffer[..length].to_vec());
            }
        }
        came
    }
}

/// A frame that is let through everywhere, and comes once.
pub fn ending(own: Who) -> Vec<u8> {
    let stamp = Instant::now().elapsed().as_nanos().to_be_bytes();
    ethernet(ALL, own.mac, 0x0800, &ipv4(own.v4, Ipv4Addr::BROADCAST, &udp(5001, 5001, &stamp)))
}

/// Sends these, and a last one that is let through everywhere; what of them came to each of these ports.
pub fn leaked<'a>(from: &Port, frames: &'a [Frame], own: Who, to: &[(&str, &Port)]) -> Vec<(String, &'a str)> {
    frames.iter().for_each(|frame| from.send(&frame.bytes));
    let last = ending(own);
    from.send(&last);
    let mut leaked = Vec::new();
    for (name, port) in to {
        let came = port.until(&last);
        // The kernel may take a VLAN tag off, and put the rest where it was.
        let is_it = |frame: &Frame, came: &Vec<u8>| {
            came.starts_with(&frame.bytes)
                || frame.bytes[12..14] == [0x81, 0]
                    && came.starts_with(&[&frame.bytes[..12], &frame.bytes[16..]].concat())
        };
        leaked.extend(frames.iter().filter(|f| came.iter().any(|c| is_it(f, c))).map(|f| ((*name).to_owned(), f.what)));
    }
    leaked
}
