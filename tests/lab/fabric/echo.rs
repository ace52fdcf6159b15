//! One ping to each of many addresses at once from inside a namespace, without a process there.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::netns;

/// ICMP's and ICMPv6's echo request; the rest of the header is the kernel's on a ping socket.
const ECHO4: u8 = 8;
const ECHO6: u8 = 128;

/// Which of them answered. Each is asked once: what is lost is not made up for.
pub fn echo(netns: &File, addresses: &[IpAddr], patience: Duration) -> BTreeSet<IpAddr> {
    // A ping socket is for the groups of this range, none by default; /proc/sys/net shows the namespace of who opens it.
    netns::inside(netns, || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")).expect("sysctl");
    let sockets = [(libc::AF_INET, libc::IPPROTO_ICMP), (libc::AF_INET6, libc::IPPROTO_ICMPV6)]
        .map(|(family, protocol)| UdpSocket::from(netns::socket(netns, family, libc::SOCK_DGRAM, protocol)));
    for address in addresses {
        let (socket, kind) = if address.is_ipv4() { (&sockets[0], ECHO4) } else { (&sockets[1], ECHO6) };
        // What cannot be sent for want of a route counts as lost.
        let _ = socket.send_to(&[kind, 0, 0, 0, 0, 0, 0, 1], (*address, 0));
    }
    let mut answered = BTreeSet::new();
    let end = Instant::now() + patience;
    for (socket, is_v4) in sockets.iter().zip([true, false]) {
        let wanted = addresses.iter().filter(|address| address.is_ipv4() == is_v4).collect::<BTreeSet<_>>().len();
        let mut left = wanted;
        while left > 0 && Instant::now() < end {
            let Ok((_, from)) = socket.recv_from(&mut [0; 64]) else { continue };
            left -= usize::from(answered.insert(from.ip()));
        }
    }
    answered
}
