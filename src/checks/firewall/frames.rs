//! The packets that are sent to see what becomes of them; pure.

use crate::snoop::checksum;
use std::net::IpAddr;

pub type Mac = [u8; 6];

/// `ETH_P_IP`, `ETH_P_IPV6`, and IEEE Std 802's first type for local experiments (include/uapi/linux/if_ether.h).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const FENCE: u16 = 0x88b5;
/// Protocol numbers (IANA).
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where they come from: a port that VXLAN may send from (RFC 7348 §5), and that no service has.
const FROM: u16 = 49_321;

/// By which a packet is known again; of even length, for the checksums.
const MARK: &[u8; 16] = b"evpn-hook doctor";

/// The VXLAN header (RFC 7348 §5) of the one VNI that nobody can have, 2^24 - 1.
const VXLAN: &[u8; 8] = &[8, 0, 0, 0, 0xff, 0xff, 0xff, 0];

/// The first packet of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A datagram of VXLAN's to this port.
    Vxlan(u16),
    /// A connection to this port.
    Tcp(u16),
    /// A datagram to this port.
    Udp(u16),
    /// A client's datagram to DHCP servers (RFC 2131 §4.1, RFC 8415 §7.2).
    Dhcp { client: u16, server: u16 },
}

/// What [`found`] looks for.
pub fn mark(id: u32) -> Vec<u8> {
    [&MARK[..], &id.to_be_bytes()].concat()
}

/// The number of the packet that this frame is. An ICMP error quotes the packet that it is about (RFC 792, RFC 4443 §3), mark and all, and is not its arrival: the
/// mark counts only where a packet of ours has it.
pub fn found(frame: &[u8]) -> Option<u32> {
    let kind = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let (protocol, body) = match kind {
        FENCE => return marked(frame.get(14..)?),
        IPV4 if frame.get(14) == Some(&0x45) => (frame.get(23)?, frame.get(34..)?),
        IPV6 => (frame.get(20)?, frame.get(54..)?),
        _ => return None,
    };
    match *protocol {
        UDP => said(body.get(8..)?),
        TCP => marked(body.get(20..)?),
        _ => None,
    }
}

/// The same of a datagram's payload.
pub fn said(payload: &[u8]) -> Option<u32> {
    marked(payload).or_else(|| marked(payload.strip_prefix(VXLAN)?))
}

fn marked(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.strip_prefix(MARK)?.get(..4)?.try_into().ok()?))
}

/// A VXLAN datagram's payload.
pub fn vxlan(id: u32) -> Vec<u8> {
    [&VXLAN[..], &mark(id)].concat()
}

/// A frame that no IP rule looks at: where it has come through, what was sent before it has as well.
pub fn fence(to: Mac, from: Mac, id: u32) -> Vec<u8> {
    [&to[..], &from, &FENCE.to_be_bytes(), &mark(id)].concat()
}

/// An Ethernet frame with this packet.
pub fn frame((to, from): (Mac, Mac), (source, target): (IpAddr, IpAddr), kind: Kind, id: u32) -> Vec<u8> {
    let (protocol, mut body, sum_at) = match kind {
        Kind::Vxlan(port) => (UDP, udp(FROM, port, &vxlan(id)), 6),
        Kind::Udp(port) => (UDP, udp(FROM, port, &mark(id)), 6),
        Kind::Dhcp { client, server } => (UDP, udp(client, server, &mark(id)), 6),
        Kind::Tcp(port) => (TCP, syn(port, &mark(id)), 16),
    };
    let length = body.len() as u16;
    let sum = match (source, target) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            checksum(&[&a.octets(), &b.octets(), &[0, protocol], &length.to_be_bytes(), &body])
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            checksum(&[&a.octets(), &b.octets(), &[0, 0], &length.to_be_bytes(), &[0, 0, 0, protocol], &body])
        }
        _ => 0,
    };
    body[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let (kind, header) = match (source, target) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mut header = [
                &[0x45, 0][..],
                &(length + 20).to_be_bytes(),
                &[0, 0, 0, 0, 64, protocol, 0, 0],
                &a.octets(),
                &b.octets(),
            ]
            .concat();
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (IPV4, header)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (IPV6, [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[protocol, 64], &a.octets(), &b.octets()].concat())
        }
        // Nobody asks for one of two families.
        _ => return Vec::new(),
    };
    [&to[..], &from, &kind.to_be_bytes(), &header, &body].concat()
}

/// RFC 768, its checksum to be filled in.
fn udp(from: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16 + 8;
    [&from.to_be_bytes()[..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

/// RFC 9293 §3.1: a SYN, its checksum to be filled in.
fn syn(port: u16, payload: &[u8]) -> Vec<u8> {
    let rest = [0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xfa, 0xf0, 0, 0, 0, 0];
    [&FROM.to_be_bytes()[..], &port.to_be_bytes(), &rest, payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_packet_is_known_again_and_its_sums_are_right() {
        for (ips, header) in [(["10.0.0.2", "10.0.0.1"], 20), (["c0d1::2", "c0d1::1"], 40)] {
            let ips: (IpAddr, IpAddr) = (ips[0].parse().unwrap(), ips[1].parse().unwrap());
            for kind in [Kind::Vxlan(4789), Kind::Udp(9), Kind::Tcp(22), Kind::Dhcp { client: 68, server: 67 }] {
                let frame = frame(MACS, ips, kind, 0x0102_0304);
                assert_eq!(found(&frame), Some(0x0102_0304), "{kind:?}");
                if ips.0.is_ipv4() {
                    assert_eq!(checksum(&[&frame[14..34]]), 0, "a sum over what has its own sum in it is 0 (RFC 1071)");
                    assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14);
                } else {
                    assert_eq!(usize::from(u16::from_be_bytes([frame[18], frame[19]])), frame.len() - 14 - header);
                }
            }
        }
        assert_eq!(found(&fence(MACS.0, MACS.1, 7)), Some(7));
        assert_eq!((said(&vxlan(7)), said(&mark(8))), (Some(7), Some(8)));
        assert_eq!(found(b"evpn-hook doctor"), None);
        assert_eq!(found(b"something else"), None);
    }

    #[test]
    fn an_error_about_a_packet_is_not_the_packet() {
        for (ips, header, protocol) in [(["10.0.0.2", "10.0.0.1"], 20, 1), (["c0d1::2", "c0d1::1"], 40, 58)] {
            let ips: (IpAddr, IpAddr) = (ips[0].parse().unwrap(), ips[1].parse().unwrap());
            let about = frame(MACS, ips, Kind::Udp(9), 7);
            let mut error = frame(MACS, (ips.1, ips.0), Kind::Udp(9), 8)[..14 + header].to_vec();
            error[if header == 20 { 23 } else { 20 }] = protocol;
            error.extend([3, 10, 0, 0, 0, 0, 0, 0]);
            error.extend(&about[14..]);
            assert_eq!(found(&error), None);
        }
    }
}
