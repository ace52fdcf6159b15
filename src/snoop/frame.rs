//! What one frame says of addresses. Pure, and every byte is asked for: a frame is whatever a guest likes to send.
//!
//! The filter has looked at directions: ARP, neighbour discovery and what goes to a DHCP server come from the guest, what goes to a DHCP client is
//! sent to the guest. Checksums are not looked at: a guest may leave them to the device (`VIRTIO_NET_F_CSUM`), and then they are not filled in here.

use super::Said;
use super::dhcp;
use super::xids::Xids;
use crate::model::{Mac, not_a_host};
use std::net::{Ipv4Addr, Ipv6Addr};

/// EtherTypes and protocol numbers (IANA), and DHCP's ports (RFC 2131 §4.1, RFC 8415 §7.2).
pub const ARP: u16 = 0x0806;
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const DHCP_SERVER: u16 = 67;
pub const DHCP_CLIENT: u16 = 68;
pub const DHCP6_CLIENT: u16 = 546;
pub const DHCP6_SERVER: u16 = 547;

/// RFC 4861 §4.1 to §4.4.
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// The R flag of a neighbour advertisement (RFC 4861 §4.4).
const ROUTER: u8 = 0x80;

/// Who sends to whom. The destination is `None` where it is no single guest's.
#[derive(Clone, Copy)]
pub struct Ethernet {
    pub from: Mac,
    pub to: Option<Mac>,
    pub broadcast: bool,
}

/// All that a frame says; nothing where anything in it is not as it should be.
pub fn read(frame: &[u8], xids: &mut Xids) -> Vec<Said> {
    let mut said = ethernet(frame, xids).unwrap_or_default();
    said.retain(|said| not_a_host(said.ip()).is_none());
    said
}

/// Is it a server's, by where the filter let it in for? What is cut short says nothing in the end.
pub fn is_answer(frame: &[u8]) -> bool {
    let port = match half(frame, 12) {
        Some(IPV4) => byte(frame, 14).and_then(|first| half(frame, 14 + usize::from(first & 0xf) * 4 + 2)),
        Some(IPV6) => half(frame, 14 + 40 + 2).filter(|_| byte(frame, 14 + 6) == Some(UDP)),
        _ => None,
    };
    matches!(port, Some(DHCP_CLIENT | DHCP6_CLIENT))
}

fn ethernet(frame: &[u8], xids: &mut Xids) -> Option<Vec<Said>> {
    let to: [u8; 6] = array(frame, 0)?;
    let from = Mac::from_bytes(&array::<6>(frame, 6)?)?;
    let ethernet = Ethernet { from, to: Mac::from_bytes(&to), broadcast: to == [0xff; 6] };
    let body = frame.get(14..)?;
    match half(frame, 12)? {
        ARP => arp(from, body).map(|said| vec![said]),
        IPV4 => ipv4(ethernet, body, xids),
        IPV6 => ipv6(ethernet, body, xids),
        _ => None,
    }
}

/// RFC 826, for Ethernet and IPv4. With a sender address it is the sender's, whatever it asks or answers. Without one it is a probe.
fn arp(from: Mac, body: &[u8]) -> Option<Said> {
    if array(body, 0)? != [0, 1, 8, 0, 6, 4] || array(body, 8)? != from.octets() {
        return None;
    }
    let (sender, target) = (Ipv4Addr::from(array::<4>(body, 14)?), Ipv4Addr::from(array::<4>(body, 24)?));
    match half(body, 6)? {
        1 if sender.is_unspecified() => Some(Said::Probes { mac: from, ip: target.into() }),
        1 | 2 => Some(Said::Has { mac: from, ip: sender.into() }),
        _ => None,
    }
}

fn ipv4(ethernet: Ethernet, body: &[u8], xids: &mut Xids) -> Option<Vec<Said>> {
    let first = byte(body, 0)?;
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header < 20 || byte(body, 9)? != UDP || half(body, 6)? & 0x3fff != 0 {
        return None;
    }
    let datagram = body.get(header..usize::from(half(body, 2)?))?;
    match udp(datagram)? {
        (DHCP_SERVER, message) => dhcp::request(ethernet, message, xids),
        (DHCP_CLIENT, message) => dhcp::reply(ethernet, message, xids),
        _ => None,
    }
}

fn ipv6(ethernet: Ethernet, body: &[u8], xids: &mut Xids) -> Option<Vec<Said>> {
    if byte(body, 0)? >> 4 != 6 {
        return None;
    }
    let payload = body.get(40..)?.get(..usize::from(half(body, 4)?))?;
    let source: Ipv6Addr = array::<16>(body, 8)?.into();
    match byte(body, 6)? {
        // From a router away it would be less (RFC 4861 §7.1).
        ICMPV6 if byte(body, 7)? == 255 => discovery(ethernet.from, source, payload),
        UDP => match udp(payload)? {
            (DHCP6_SERVER, message) => dhcp::request6(ethernet, message, xids),
            (DHCP6_CLIENT, message) => dhcp::reply6(ethernet, message, xids),
            _ => None,
        },
        _ => None,
    }
}

/// The destination port and what was sent there.
fn udp(datagram: &[u8]) -> Option<(u16, &[u8])> {
    Some((half(datagram, 2)?, datagram.get(8..usize::from(half(datagram, 4)?))?))
}

/// RFC 4861 §6.1.1, §6.1.2, §7.1.1 and §7.1.2 say what is valid.
fn discovery(from: Mac, source: Ipv6Addr, message: &[u8]) -> Option<Vec<Said>> {
    if byte(message, 1)? != 0 {
        return None;
    }
    let has = |ip: Ipv6Addr| Some(vec![Said::Has { mac: from, ip: ip.into() }]);
    let routes =
        |ip: Ipv6Addr| Some(vec![Said::Has { mac: from, ip: ip.into() }, Said::Routes { mac: from, ip: ip.into() }]);
    let kind = byte(message, 0)?;
    match kind {
        ROUTER_SOLICITATION => {
            sent_by(from, SOURCE_LINK_LAYER_ADDRESS, message.get(8..)?)?;
            has(source) // unspecified where it has none yet, which is no host's
        }
        ROUTER_ADVERTISEMENT if source.is_unicast_link_local() => {
            sent_by(from, SOURCE_LINK_LAYER_ADDRESS, message.get(16..)?)?;
            routes(source)
        }
        NEIGHBOUR_SOLICITATION => {
            let named = sent_by(from, SOURCE_LINK_LAYER_ADDRESS, message.get(24..)?)?;
            let target: Ipv6Addr = array::<16>(message, 8)?.into();
            match source {
                Ipv6Addr::UNSPECIFIED if named => None,
                Ipv6Addr::UNSPECIFIED => Some(vec![Said::Wants { mac: from, ip: target.into() }]),
                source => has(source),
            }
        }
        NEIGHBOUR_ADVERTISEMENT => {
            sent_by(from, TARGET_LINK_LAYER_ADDRESS, message.get(24..)?)?;
            let target: Ipv6Addr = array::<16>(message, 8)?.into();
            if byte(message, 4)? & ROUTER != 0 { routes(target) } else { has(target) }
        }
        _ => None,
    }
}

/// Does an option name the sender's MAC? `None` where it names another's, or where the options do not fit.
fn sent_by(from: Mac, wanted: u8, mut options: &[u8]) -> Option<bool> {
    let mut named = false;
    while !options.is_empty() {
        let length = usize::from(byte(options, 1)?) * 8;
        let option = options.get(..length).filter(|option| !option.is_empty())?;
        if byte(option, 0)? == wanted {
            named = option.get(2..)? == from.octets();
            if !named {
                return None;
            }
        }
        options = &options[length..];
    }
    Some(named)
}

pub fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

pub fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// RFC 1071; each part is of even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let halves = parts.iter().flat_map(|part| part.chunks(2)).map(|half| u32::from(half[0]) << 8 | u32::from(half[1]));
    let sum: u32 = halves.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
