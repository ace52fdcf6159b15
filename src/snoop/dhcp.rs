//! DHCP (RFC 2131, options RFC 2132) and DHCPv6 (RFC 8415), as far as a message says whose an address is.
//!
//! By hand: five fields and four options of the one, two options of the other. dhcproto (0.15) was tried: no shorter, it brings 60 crates and
//! Unicode's tables for names in options that nobody here reads, refuses a whole message for one such option that is cut short, reads past the
//! end where a guest's `hlen` lies, and its DHCPv6 subtracts before it compares.

use super::Said;
use super::frame::{Ethernet, array, byte, checksum, half, word};
use super::xids::{Asked, Xid, Xids};
use crate::model::Mac;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
/// RFC 2131 §3: the first four bytes of the options.
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// RFC 2132 §9.6.
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;

/// Options: RFC 2132 §9.1, §9.2, §9.3 and §9.6; RFC 4039 §4.
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const RAPID_COMMIT: u8 = 80;

/// RFC 8415 §7.3.
const SOLICIT6: u8 = 1;
const REQUEST6: u8 = 3;
const RENEW6: u8 = 5;
const REBIND6: u8 = 6;
const REPLY6: u8 = 7;
const RELEASE6: u8 = 8;
const DECLINE6: u8 = 9;

/// RFC 8415 §21.4, §21.5, §21.6 and §21.14.
const IA_NA: u16 = 3;
const IA_TA: u16 = 4;
const IAADDR: u16 = 5;
const RAPID_COMMIT6: u16 = 14;
/// So many addresses of one message count; a frame has room for 54, and each would be work.
const MOST6: usize = 16;

// ===== DHCP =====

/// A guest's message to a server. One that a relay passes on names another's MAC and says nothing of this guest.
pub fn request(ethernet: Ethernet, message: &[u8], xids: &mut Xids) -> Option<Vec<Said>> {
    let guest = client(message, BOOTREQUEST).filter(|guest| *guest == ethernet.from)?;
    let xid = Xid::V4(word(message, 4)?);
    let own = Some(Ipv4Addr::from(word(message, 12)?)).filter(|ip| !ip.is_unspecified());
    let wanted = option(message, REQUESTED_ADDRESS).and_then(|value| array::<4>(value, 0)).map(Ipv4Addr::from);
    match kind(message)? {
        DISCOVER if option(message, RAPID_COMMIT).is_some() => xids.ask(xid, guest, Asked::AtOnce),
        // The option when it chooses or boots, ciaddr when it renews (RFC 2131 §4.3.2).
        REQUEST => xids.ask(xid, guest, Asked::For(wanted.or(own)?)),
        DECLINE => return Some(vec![Said::Released { mac: guest, ip: wanted?.into() }]),
        RELEASE => return Some(vec![Said::Released { mac: guest, ip: own?.into() }]),
        _ => {}
    }
    None
}

/// A server's message to the guest. It may be broadcast (RFC 2131 §4.1), so whom it means is chaddr.
pub fn reply(ethernet: Ethernet, message: &[u8], xids: &mut Xids) -> Option<Vec<Said>> {
    let mac = client(message, BOOTREPLY).filter(|guest| ethernet.broadcast || ethernet.to == Some(*guest))?;
    let given = Ipv4Addr::from(word(message, 16)?);
    let xid = Xid::V4(word(message, 4)?);
    let said = match (kind(message)?, xids.asked(xid, mac)?) {
        (ACK, Asked::For(asked)) if asked == given => leased(mac, given.into(), lease(message)?),
        (ACK, Asked::AtOnce) if option(message, RAPID_COMMIT).is_some() => leased(mac, given.into(), lease(message)?),
        (NAK, Asked::For(asked)) => Said::Released { mac, ip: asked.into() },
        _ => return None,
    };
    xids.answered(xid, mac);
    Some(vec![said])
}

/// chaddr, of an Ethernet client's message in this direction.
fn client(message: &[u8], direction: u8) -> Option<Mac> {
    let right = array(message, 0)? == [direction, 1, 6] && array(message, 236)? == MAGIC;
    Mac::from_bytes(&array::<6>(message, 28)?).filter(|_| right)
}

fn kind(message: &[u8]) -> Option<u8> {
    byte(option(message, MESSAGE_TYPE)?, 0)
}

fn lease(message: &[u8]) -> Option<u32> {
    word(option(message, LEASE_TIME)?, 0)
}

/// An option's value; where the message says so, also from the fields for the file's and the server's name (RFC 2131 §4.1).
fn option(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let options = message.get(240..)?;
    let overload = tlv(options, OVERLOAD).and_then(|value| byte(value, 0)).unwrap_or_default();
    tlv(options, wanted)
        .or_else(|| tlv(message.get(108..236)?, wanted).filter(|_| overload & 1 != 0))
        .or_else(|| tlv(message.get(44..108)?, wanted).filter(|_| overload & 2 != 0))
}

/// The first of this code. Long ones may come in pieces (RFC 3396), but ours are of four bytes at most.
fn tlv(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match byte(options, 0)? {
            0 => options = options.get(1..)?,
            255 => return None,
            code => {
                let end = 2 + usize::from(byte(options, 1)?);
                let value = options.get(2..end)?;
                if code == wanted {
                    return Some(value);
                }
                options = options.get(end..)?;
            }
        }
    }
}

/// A client's frame that boots with an address again (RFC 2131 §4.3.2, INIT-REBOOT) that no server can have given, one of 127.0.0.0/8: a server that is
/// authoritative says no at once, to all (§4.1), and keeps nothing of it; others say nothing.
pub fn again(from: Mac) -> Vec<u8> {
    let chaddr = from.octets();
    let mut message =
        [&[BOOTREQUEST, 1, 6, 0][..], &chaddr[2..], &[0, 0, 0x80, 0], &[0; 16], &chaddr, &[0; 10 + 64 + 128]].concat();
    message
        .extend([&MAGIC[..], &[MESSAGE_TYPE, 1, REQUEST, REQUESTED_ADDRESS, 4, 127, 0, 0, 1, 255], &[0; 50]].concat());
    let length = message.len() as u16 + 8;
    let mut header =
        [&[0x45, 0][..], &(length + 20).to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0], &[255; 4]].concat();
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    // Over IPv4 UDP may do without a checksum (RFC 768).
    let udp = [&[0, 68, 0, 67][..], &length.to_be_bytes(), &[0, 0]].concat();
    [&[0xff; 6][..], &chaddr, &[8, 0], &header, &udp, &message].concat()
}

/// The MAC that answers it in this frame, whatever the answer.
pub fn answered(frame: &[u8], from: Mac) -> Option<Mac> {
    let is_udp = half(frame, 12)? == 0x0800 && byte(frame, 23)? == 17;
    let udp = frame.get(14 + usize::from(byte(frame, 14)? & 0xf) * 4..)?;
    let is_servers = array(udp, 0)? == [0, 67, 0, 68];
    let mine = client(udp.get(8..)?, BOOTREPLY)? == from;
    (is_udp && is_servers && mine).then(|| Mac::from_bytes(frame.get(6..12)?)).flatten()
}

// ===== DHCPv6 =====

/// A guest's message to the servers.
pub fn request6(ethernet: Ethernet, message: &[u8], xids: &mut Xids) -> Option<Vec<Said>> {
    let (kind, xid) = header6(message)?;
    let mac = ethernet.from;
    match kind {
        SOLICIT6 if options6(message, 4).any(|(code, _)| code == RAPID_COMMIT6) => xids.ask(xid, mac, Asked::AtOnce),
        REQUEST6 | RENEW6 | REBIND6 => xids.ask(xid, mac, Asked::Any),
        RELEASE6 | DECLINE6 => {
            return Some(addresses6(message).map(|(ip, _)| Said::Released { mac, ip }).collect());
        }
        _ => {}
    }
    None
}

/// A server's answer. It goes to the guest alone (RFC 8415 §18.3.10), so the frame says to whom.
pub fn reply6(ethernet: Ethernet, message: &[u8], xids: &mut Xids) -> Option<Vec<Said>> {
    let (kind, xid) = header6(message)?;
    let mac = ethernet.to.filter(|_| kind == REPLY6)?;
    let rapid = options6(message, 4).any(|(code, _)| code == RAPID_COMMIT6);
    if xids.asked(xid, mac)? == Asked::AtOnce && !rapid {
        return None;
    }
    xids.answered(xid, mac);
    Some(addresses6(message).map(|(ip, valid)| leased(mac, ip, valid)).collect())
}

/// The kind of message and its transaction.
fn header6(message: &[u8]) -> Option<(u8, Xid)> {
    let first = word(message, 0)?;
    Some((byte(message, 0)?, Xid::V6(first & 0xff_ffff)))
}

/// The first addresses in its IA_NA and IA_TA, with their valid lifetimes. A delegated prefix (IA_PD) is no address.
fn addresses6(message: &[u8]) -> impl Iterator<Item = (IpAddr, u32)> {
    let inside = |(code, value)| match code {
        IA_NA => Some(options6(value, 12)),
        IA_TA => Some(options6(value, 4)),
        _ => None,
    };
    let address = |(code, value): (u16, &[u8])| {
        let ip: [u8; 16] = array(value, 0).filter(|_| code == IAADDR)?;
        Some((IpAddr::from(ip), word(value, 20)?))
    };
    options6(message, 4).filter_map(inside).flatten().filter_map(address).take(MOST6)
}

/// The options behind so many bytes; what is cut off ends them.
fn options6(bytes: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes.get(header..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (code, end) = (half(rest, 0)?, 4 + usize::from(half(rest, 2)?));
        let value = rest.get(4..end)?;
        rest = &rest[end..];
        Some((code, value))
    })
}

/// A lifetime on the wire: none is the end, all ones for ever (RFC 2131 §3.3, RFC 8415 §7.7).
fn leased(mac: Mac, ip: IpAddr, seconds: u32) -> Said {
    match seconds {
        0 => Said::Released { mac, ip },
        u32::MAX => Said::Leased { mac, ip, lifetime: None },
        seconds => Said::Leased { mac, ip, lifetime: Some(Duration::from_secs(seconds.into())) },
    }
}
