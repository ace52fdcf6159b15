//! What a frame of ARP or neighbour discovery says.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Nothing of any other frame.
pub fn words(frame: &[u8]) -> Option<String> {
    let ethertype = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let packet = frame.get(14..)?;
    let way = if frame[0] & 1 == 1 { "to all" } else { "to one" };
    let said = match i32::from(ethertype) {
        libc::ETH_P_ARP => arp(packet)?,
        libc::ETH_P_IPV6 => discovery(packet)?,
        _ => return None,
    };
    Some(format!("{said}, {way}"))
}

/// RFC 826, of Ethernet and IPv4: the operation at byte 6, then the sender's MAC and address, then the target's.
fn arp(packet: &[u8]) -> Option<String> {
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let (sender, target) = (address(14)?, address(24)?);
    Some(match packet[7] {
        1 => format!("ARP who has {target}, for {sender}"),
        _ => format!("ARP {sender} is here, for {target}"),
    })
}

/// RFC 4861 §4.3 and §4.4: solicitations are type 135, advertisements 136; the target is at byte 8 of ICMPv6.
fn discovery(packet: &[u8]) -> Option<String> {
    const ICMPV6: u8 = 58;
    if *packet.get(6)? != ICMPV6 {
        return None;
    }
    let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
    let (source, target) = (address(8)?, address(48)?);
    match packet.get(40)? {
        135 => Some(format!("ND who has {target}, for {source}")),
        136 => Some(format!("ND {target} is here, from {source}")),
        _ => None,
    }
}
