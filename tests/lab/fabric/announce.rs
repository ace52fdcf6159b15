//! What keepalived says when it takes an address over: a gratuitous ARP, an unsolicited neighbour advertisement.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;

use evpn_hook::model::Mac;

use super::{Container, netns};

impl Container<'_> {
    /// Says from its eth0 that this MAC has this address (RFC 5227 §3, RFC 4861 §7.2.6).
    pub fn announce(&self, mac: &str, ip: &str) {
        let (mac, ip): (Mac, IpAddr) = (mac.parse().expect("a MAC"), ip.parse().expect("an address"));
        let frame = match ip {
            IpAddr::V4(ip) => {
                let (mac, ip) = (mac.octets(), ip.octets());
                [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &ip, &[0; 6], &ip].concat()
            }
            IpAddr::V6(ip) => advertisement(mac, ip),
        };
        let netns = self.netns();
        let socket = netns::socket(&netns, libc::AF_PACKET, libc::SOCK_RAW, 0);
        // SAFETY: the name is a C string that lives until it returns.
        let index = netns::inside(&netns, || unsafe { libc::if_nametoindex(c"eth0".as_ptr()) });
        // SAFETY: all zeros is a valid sockaddr_ll; the kernel reads both buffers within the lengths it is given.
        let sent = unsafe {
            let mut to: libc::sockaddr_ll = std::mem::zeroed();
            to.sll_family = u16::try_from(libc::AF_PACKET).expect("16 bits");
            to.sll_ifindex = i32::try_from(index).expect("an index");
            let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a small struct");
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                std::ptr::from_ref(&to).cast(),
                length,
            )
        };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "sendto: {}", io::Error::last_os_error());
    }
}

fn advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    // Override, and the target's link-layer address.
    let mut message = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &ip.octets(), &[2, 1], &mac.octets()].concat();
    let pseudo = [&ip.octets()[..], &all_nodes, &[0, 0, 0, 32, 0, 0, 0, 58], &message].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded");
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &ip.octets(), &all_nodes].concat();
    [&[0x33, 0x33, 0, 0, 0, 1][..], &mac.octets(), &[0x86, 0xdd], &header, &message].concat()
}
