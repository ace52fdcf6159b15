//! The filter that the kernel runs on each frame of a port, so that nothing but what tells of addresses wakes anybody: classic BPF
//! (Documentation/networking/filter.rst), which any kernel has and which needs no loader.
//!
//! It also holds the direction, so that nobody behind it has to ask: what only a guest may say is let in when it comes from the port
//! (`PACKET_HOST`, `_BROADCAST`, `_MULTICAST`, `_OTHERHOST`), what only a server may say when it goes to the port (`PACKET_OUTGOING`).
//!
//! A server may broadcast its answer to another guest, and anybody may send what looks like one to all ports of the segment at once: what is not for
//! this port's own MAC gets in nowhere.

use super::frame::{ARP, DHCP_CLIENT, DHCP_SERVER, DHCP6_CLIENT, DHCP6_SERVER, ICMPV6, IPV4, IPV6, UDP};
use super::xids::Xid;
use crate::model::Mac;
use socket2::SockFilter;

/// A longer frame is cut; no message that counts is as long.
pub const SNAP: usize = 1600;

/// `BPF_CLASS | BPF_SIZE | BPF_MODE`, include/uapi/linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// A word and a half word behind X.
const LOAD_WORD_X: u16 = 0x40;
const LOAD_HALF_X: u16 = 0x48;
/// X becomes 4 * (byte & 0xf): an IPv4 header's length.
const LOAD_X_IHL: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE` and `+ SKF_AD_VLAN_TAG_PRESENT`, include/uapi/linux/filter.h: what the kernel knows of a frame besides its bytes.
const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;
const VLAN_TAG_PRESENT: u32 = (-0x1000_i32 + 48) as u32;
/// include/uapi/linux/if_packet.h.
const PACKET_OUTGOING: u32 = 4;

/// Where a jump goes: forward only, to a line that bears the name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Next,
    Ip4,
    Ip6,
    Udp6,
    Answer4,
    Answer6,
    FromGuest,
    ToGuest,
    Accept,
    Refuse,
}

enum Line {
    Named(Way),
    Plain(u16, u32),
    Jump(u16, u32, Way, Way),
}

/// Where all filters end: what is to come from the port, and the two ways out.
const END: [Line; 7] = [
    Line::Named(Way::FromGuest),
    Line::Plain(LOAD_WORD, PACKET_TYPE),
    Line::Jump(JUMP_EQUAL, PACKET_OUTGOING, Way::Refuse, Way::Accept),
    Line::Named(Way::Accept),
    Line::Plain(RETURN, SNAP as u32),
    Line::Named(Way::Refuse),
    Line::Plain(RETURN, 0),
];

/// Goes on where there is this MAC, loaded by a word and a half word.
fn is_mac(mac: Mac, (load_word, load_half): (u16, u16), at: u32) -> [Line; 4] {
    let [a, b, c, d, e, f] = mac.octets();
    [
        Line::Plain(load_word, at),
        Line::Jump(JUMP_EQUAL, u32::from_be_bytes([a, b, c, d]), Way::Next, Way::Refuse),
        Line::Plain(load_half, at + 4),
        Line::Jump(JUMP_EQUAL, u16::from_be_bytes([e, f]).into(), Way::Next, Way::Refuse),
    ]
}

/// Which of a server's answers to this port's guest get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answers {
    /// All of them.
    All,
    /// Those in these transactions.
    In(Vec<Xid>),
}

/// Lets in ARP, neighbour discovery and DHCP, each in its direction.
pub fn addresses(guest: Mac, answers: &Answers) -> Vec<SockFilter> {
    use Line::{Jump, Named, Plain};
    use Way::{Accept, Answer4, Answer6, FromGuest, Ip4, Ip6, Next, Refuse, ToGuest, Udp6};
    let equal = |value: u16, yes, no| Jump(JUMP_EQUAL, value.into(), yes, no);
    let mut lines = vec![
        // A tagged frame is of another segment; the kernel has taken the tag out of its bytes (skb_vlan_untag, before any packet socket).
        Plain(LOAD_WORD, VLAN_TAG_PRESENT),
        Jump(JUMP_EQUAL, 0, Next, Refuse),
        Plain(LOAD_HALF, 12),
        equal(IPV4, Ip4, Next),
        equal(IPV6, Ip6, Next),
        equal(ARP, FromGuest, Refuse),
        // UDP, no fragment (neither MF nor an offset), and the destination port behind however many options.
        Named(Ip4),
        Plain(LOAD_BYTE, 14 + 9),
        equal(UDP.into(), Next, Refuse),
        Plain(LOAD_HALF, 14 + 6),
        Jump(JUMP_ANY_BIT, 0x3fff, Refuse, Next),
        Plain(LOAD_X_IHL, 14),
        Plain(LOAD_HALF_X, 14 + 2),
        equal(DHCP_SERVER, FromGuest, Next),
        equal(DHCP_CLIENT, Answer4, Refuse),
        // No extension header, so no fragment either: neighbour discovery and DHCPv6 carry none.
        Named(Ip6),
        Plain(LOAD_BYTE, 14 + 6),
        equal(UDP.into(), Udp6, Next),
        equal(ICMPV6.into(), Next, Refuse),
        Plain(LOAD_BYTE, 14 + 40),
        Jump(JUMP_EQUAL, 133, FromGuest, Next),
        Jump(JUMP_EQUAL, 134, FromGuest, Next),
        Jump(JUMP_EQUAL, 135, FromGuest, Next),
        Jump(JUMP_EQUAL, 136, FromGuest, Refuse),
        Named(Udp6),
        Plain(LOAD_HALF, 14 + 40 + 2),
        equal(DHCP6_SERVER, FromGuest, Next),
        equal(DHCP6_CLIENT, Answer6, Refuse),
    ];
    // chaddr and xid, behind the headers of IPv4 and UDP (RFC 2131 §2).
    lines.push(Named(Answer4));
    lines.extend(is_mac(guest, (LOAD_WORD_X, LOAD_HALF_X), 14 + 8 + 28));
    lines.push(Plain(LOAD_WORD_X, 14 + 8 + 4));
    let of = |answers: &Answers, kind: fn(&Xid) -> Option<u32>| match answers {
        Answers::All => vec![Jump(JUMP_EQUAL, 0, ToGuest, ToGuest)],
        Answers::In(xids) => {
            let known = xids.iter().filter_map(kind).map(|xid| Jump(JUMP_EQUAL, xid, ToGuest, Next));
            known.chain([Jump(JUMP_EQUAL, 0, Refuse, Refuse)]).collect()
        }
    };
    lines.extend(of(answers, |xid| matches!(xid, Xid::V4(_)).then(|| xid.number())));
    // The frame's destination, and the transaction behind the kind of message (RFC 8415 §8).
    lines.push(Named(Answer6));
    lines.extend(is_mac(guest, (LOAD_WORD, LOAD_HALF), 0));
    lines.extend([Plain(LOAD_WORD, 14 + 40 + 8), Plain(AND, 0xff_ffff)]);
    lines.extend(of(answers, |xid| matches!(xid, Xid::V6(_)).then(|| xid.number())));
    lines.extend([Named(ToGuest), Plain(LOAD_WORD, PACKET_TYPE), Jump(JUMP_EQUAL, PACKET_OUTGOING, Accept, Refuse)]);
    lines.extend(END);
    assemble(&lines)
}

/// Lets in what this guest says of its addresses, when it comes from there: answers to ARP and to neighbour solicitations. Nobody else's word takes their place
/// in the queue.
pub fn answers_of(guest: Mac) -> Vec<SockFilter> {
    use Line::{Jump, Named, Plain};
    use Way::{FromGuest, Ip6, Next, Refuse};
    let equal = |value: u16, yes, no| Jump(JUMP_EQUAL, value.into(), yes, no);
    let mut lines = vec![Plain(LOAD_WORD, VLAN_TAG_PRESENT), Jump(JUMP_EQUAL, 0, Next, Refuse)];
    lines.extend(is_mac(guest, (LOAD_WORD, LOAD_HALF), 6));
    lines.extend([
        Plain(LOAD_HALF, 12),
        equal(IPV6, Ip6, Next),
        equal(ARP, FromGuest, Refuse),
        Named(Ip6),
        Plain(LOAD_BYTE, 14 + 6),
        equal(ICMPV6.into(), Next, Refuse),
        Plain(LOAD_BYTE, 14 + 40),
        Jump(JUMP_EQUAL, 136, FromGuest, Refuse),
    ]);
    lines.extend(END);
    assemble(&lines)
}

/// Lets in nothing: for a port that is too loud, whose frames then cost no copy and no memory either.
pub fn nothing() -> Vec<SockFilter> {
    assemble(&[Line::Plain(RETURN, 0)])
}

/// Lets in what DHCP servers say that are behind the port.
pub fn servers() -> Vec<SockFilter> {
    use Line::{Jump, Plain};
    use Way::{Next, Refuse};
    let mut lines = vec![
        Plain(LOAD_HALF, 12),
        Jump(JUMP_EQUAL, IPV4.into(), Next, Refuse),
        Plain(LOAD_BYTE, 14 + 9),
        Jump(JUMP_EQUAL, UDP.into(), Next, Refuse),
        Plain(LOAD_HALF, 14 + 6),
        Jump(JUMP_ANY_BIT, 0x3fff, Refuse, Next),
        Plain(LOAD_X_IHL, 14),
        Plain(LOAD_HALF_X, 14),
        Jump(JUMP_EQUAL, DHCP_SERVER.into(), Next, Refuse),
    ];
    lines.extend(END);
    assemble(&lines)
}

/// Lets in all there is: for a port of one's own.
pub fn everything() -> Vec<SockFilter> {
    assemble(&[Line::Plain(RETURN, SNAP as u32)])
}

/// Names become distances. A name that is not below would be a distance of 0 and is caught by the tests of each way through.
fn assemble(lines: &[Line]) -> Vec<SockFilter> {
    let code = |lines: &[Line]| lines.iter().filter(|line| !matches!(line, Line::Named(_))).count();
    let distance = |at: usize, to: Way| match to {
        Way::Next => 0,
        to => {
            let below = lines[at + 1..].iter().position(|line| matches!(line, Line::Named(name) if *name == to));
            code(&lines[at + 1..at + 1 + below.unwrap_or_default()]) as u8
        }
    };
    let line = |(at, line): (usize, &Line)| match *line {
        Line::Named(_) => None,
        Line::Plain(code, value) => Some(SockFilter::new(code, 0, 0, value)),
        Line::Jump(code, value, yes, no) => Some(SockFilter::new(code, distance(at, yes), distance(at, no), value)),
    };
    lines.iter().enumerate().filter_map(line).collect()
}
