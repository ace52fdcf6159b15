//! Who else answers on a segment, for an address or as a DHCP server: one question out of the tunnel's port, and what comes back by it. Sent only because
//! a person asked (`doctor`).
//!
//! A probe has no sender address (RFC 5227 §2.1.1), so nobody's neighbour table changes; its owners answer it all the same (net/ipv4/arp.c `arp_process`,
//! "Special case: IPv4 duplicate address detection packet"). Sent by the VXLAN device itself it goes to the other VTEPs and not to this host's bridge,
//! and the answers, which go to a MAC that no bridge knows, come back by the same device. A DHCP server is asked for what it can only refuse ([`dhcp::again`]):
//! it keeps nothing of it.

use super::dhcp;
use super::filter::{self, Answers};
use super::frame::{self, ARP};
use super::packet::Packet;
use crate::model::Mac;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// What to ask, and where.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The VXLAN device.
    pub index: u32,
    /// Who asks: a MAC that is on no bridge.
    pub from: Mac,
    /// Who is meant.
    pub whom: Whom,
}

/// Who is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The owners of this address.
    Owner(Ipv4Addr),
    /// DHCP servers that know all about their segment (`authoritative`, as libvirt's dnsmasq is).
    DhcpServer,
}

/// Asks all at once and listens for so long; each MAC that answered, with the question's place in the list.
pub fn who_has(questions: &[Question], wait: Duration) -> io::Result<Vec<(usize, Mac)>> {
    let open = |q: &Question| {
        let filter = match q.whom {
            Whom::Owner(_) => filter::addresses(q.from, &Answers::All),
            Whom::DhcpServer => filter::servers(),
        };
        Packet::open(q.index, &filter)
    };
    let ports = questions.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    for (port, question) in ports.iter().zip(questions) {
        port.send(&match question.whom {
            Whom::Owner(ip) => probe(question.from, ip),
            Whom::DhcpServer => dhcp::again(question.from),
        })?;
    }
    let (until, mut found) = (Instant::now() + wait, Vec::new());
    let mut buffer = [0; 1024];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || ports.is_empty() {
            return Ok(found);
        }
        let mut fds: Vec<PollFd> = ports.iter().map(|port| PollFd::new(port, PollFlags::IN)).collect();
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (at, port) in ports.iter().enumerate().filter(|(at, _)| ready[*at]) {
            // One frame a turn: however loud a segment is, the time is what ends it.
            let Ok(frame) = port.recv(&mut buffer) else { continue };
            let mac = match questions[at].whom {
                Whom::Owner(ip) => owner(frame, ip),
                Whom::DhcpServer => dhcp::answered(frame, questions[at].from),
            };
            found.extend(mac.map(|mac| (at, mac)).filter(|answer| !found.contains(answer)));
        }
    }
}

/// RFC 826 and RFC 5227: who has this address, asked by nobody.
fn probe(from: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let from = from.octets();
    let mut frame = vec![0xff; 6];
    frame.extend(from);
    frame.extend(ARP.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(from);
    frame.extend([0; 4 + 6]);
    frame.extend(ip.octets());
    frame
}

/// Who says in this frame that it has the address.
fn owner(frame: &[u8], ip: Ipv4Addr) -> Option<Mac> {
    let is_arp = frame::half(frame, 12)? == ARP && frame::array(frame, 14)? == [0, 1, 8, 0, 6, 4];
    let is_sender = frame::array::<4>(frame, 28)? == ip.octets();
    (is_arp && is_sender).then(|| Mac::from_bytes(&frame[22..28])).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::frame::checksum;
    use super::*;

    #[test]
    fn a_probe_says_nothing_of_who_asks_and_an_answer_says_who_has_it() {
        let (from, ip) = ("02:45:0a:00:00:01".parse().unwrap(), Ipv4Addr::new(10, 1, 0, 1));
        let mut frame = probe(from, ip);
        assert_eq!(frame.len(), 42);
        assert_eq!(owner(&frame, ip), None, "the question is no answer");
        let gateway: Mac = "00:00:00:11:11:10".parse().unwrap();
        frame[20..22].copy_from_slice(&[0, 2]);
        frame[22..28].copy_from_slice(&gateway.octets());
        frame[28..32].copy_from_slice(&ip.octets());
        assert_eq!(owner(&frame, ip), Some(gateway));
        assert_eq!(owner(&frame, Ipv4Addr::new(10, 1, 0, 2)), None);
        for cut in 0..32 {
            assert_eq!(owner(&frame[..cut], ip), None, "{cut} bytes");
        }
    }

    #[test]
    fn a_server_is_known_by_its_answer_to_who_asked() {
        let from: Mac = "02:45:0a:00:00:01".parse().unwrap();
        let mut frame = dhcp::again(from);
        assert!(frame.len() >= 14 + 20 + 8 + 300, "BOOTP's least (RFC 1542 section 2.1): {}", frame.len());
        assert_eq!(checksum(&[&frame[14..34]]), 0);
        assert_eq!(dhcp::answered(&frame, from), None, "the question is no answer");
        let server: Mac = "00:00:00:11:11:10".parse().unwrap();
        frame[6..12].copy_from_slice(&server.octets());
        (frame[35], frame[37], frame[42]) = (67, 68, 2);
        assert_eq!(dhcp::answered(&frame, from), Some(server));
        assert_eq!(dhcp::answered(&frame, server), None, "somebody else asked");
        for cut in 0..280 {
            assert_eq!(dhcp::answered(&frame[..cut], from), None, "{cut} bytes");
        }
    }
}
