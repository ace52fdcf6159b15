//! Tells the guests of this host that an address has moved to another MAC elsewhere, as its new owner would if its word came this far: on a segment whose
//! tunnel suppresses neighbours the kernel floods neither a gratuitous ARP nor an unsolicited neighbour advertisement to other hosts
//! (`br_do_proxy_suppress_arp`, `br_do_suppress_nd`, net/bridge/br_arp_nd_proxy.c). Sent by the bridge itself it goes to its guests, and for the same reason
//! not into the tunnel.

use super::frame::{ARP, ICMPV6, IPV6, checksum};
use super::packet;
use crate::model::Mac;
use socket2::Socket;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 4861 §4.4.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The address.
    pub ip: IpAddr,
    /// Its owner.
    pub mac: Mac,
    /// Is it an IPv6 router? A host that was told otherwise would use it as one no more.
    pub router: bool,
}

/// Sends by any device; hears nothing.
pub struct Announcer(Socket);

impl Announcer {
    /// Needs root, or CAP_NET_RAW.
    pub fn open() -> io::Result<Announcer> {
        packet::unbound().map(Announcer)
    }

    /// Tells all who are on this device.
    pub fn tell(&self, index: u32, moved: &Moved) -> io::Result<()> {
        self.0.send_to(&announcement(moved), &packet::address(index)?).map(drop)
    }
}

/// RFC 5227 §2.3: an ARP announcement; RFC 4861 §7.2.6: an unsolicited neighbour advertisement.
fn announcement(moved: &Moved) -> Vec<u8> {
    let mac = moved.mac.octets();
    match moved.ip {
        IpAddr::V4(ip) => {
            let head = [0, 1, 8, 0, 6, 4, 0, 1];
            [&[0xff; 6][..], &mac, &ARP.to_be_bytes(), &head, &mac, &ip.octets(), &[0; 6], &ip.octets()].concat()
        }
        IpAddr::V6(ip) => {
            let flags = if moved.router { OVERRIDE | ROUTER } else { OVERRIDE };
            let (ip, all) = (ip.octets(), ALL_NODES.octets());
            let mut message = [&[136, 0, 0, 0, flags, 0, 0, 0][..], &ip, &[2, 1], &mac].concat();
            let sum = checksum(&[&ip, &all, &[0, 0, 0, message.len() as u8, 0, 0, 0, ICMPV6], &message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let header = [0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, 255];
            [&[0x33, 0x33, 0, 0, 0, 1][..], &mac, &IPV6.to_be_bytes(), &header, &ip, &all, &message].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snoop::Said;
    use crate::snoop::frame;
    use crate::snoop::xids::Xids;

    #[test]
    fn an_announcement_says_who_has_it() {
        let mac: Mac = "52:54:00:03:82:d8".parse().unwrap();
        for (ip, length) in [("10.1.0.60", 42), ("fd00:1::60", 86)] {
            let moved = Moved { ip: ip.parse().unwrap(), mac, router: false };
            let frame = announcement(&moved);
            assert_eq!(frame.len(), length);
            assert_eq!(frame::read(&frame, &mut Xids::default()), [Said::Has { mac, ip: moved.ip }]);
        }
        let router = announcement(&Moved { ip: "fd00:1::60".parse().unwrap(), mac, router: true });
        assert_eq!(router[14 + 40 + 4], 0xa0);
    }
}
