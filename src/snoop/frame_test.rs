//! Frames of each kind, then what hostile ones there are.

use super::Said;
use super::frame::{self, ARP, DHCP_CLIENT, DHCP_SERVER, DHCP6_CLIENT, DHCP6_SERVER, ICMPV6, IPV4, IPV6, UDP};
use super::xids::Xids;
use crate::model::Mac;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const GUEST: [u8; 6] = [0x52, 0x54, 0x00, 0x03, 0x82, 0xd8];
const OTHER: [u8; 6] = [0x52, 0x54, 0x00, 0x99, 0x99, 0x99];
const ALL: [u8; 6] = [0xff; 6];
const OWN: [u8; 4] = [10, 1, 0, 60];
const HOUR: u32 = 3600;

fn guest() -> Mac {
    Mac::from_bytes(&GUEST).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ip6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn has(text: &str) -> Vec<Said> {
    vec![Said::Has { mac: guest(), ip: ip(text) }]
}

fn wants(text: &str) -> Vec<Said> {
    vec![Said::Wants { mac: guest(), ip: ip(text) }]
}

fn released(text: &str) -> Vec<Said> {
    vec![Said::Released { mac: guest(), ip: ip(text) }]
}

fn leased(text: &str, seconds: u64) -> Vec<Said> {
    vec![Said::Leased { mac: guest(), ip: ip(text), lifetime: Some(Duration::from_secs(seconds)) }]
}

/// What a frame says to somebody who has heard nothing before.
fn read(frame: &[u8]) -> Vec<Said> {
    frame::read(frame, &mut Xids::default())
}

// ===== Frames =====

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &kind.to_be_bytes(), body].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn arp(operation: u8, sender: [u8; 6], own: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &sender, &own, &[0; 6], &target].concat();
    ethernet(ALL, GUEST, ARP, &body)
}

fn udp(port: u16, message: &[u8]) -> Vec<u8> {
    let length = (8 + message.len()) as u16;
    [&[0, 68][..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], message].concat()
}

fn ipv4(options: &[u8], datagram: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let length = ((header + datagram.len()) as u16).to_be_bytes();
    let first = 0x40 | (header / 4) as u8;
    let start = [first, 0, length[0], length[1], 0, 0, 0x40, 0, 64, UDP, 0, 0];
    [&start[..], &[0; 4], &[255; 4], options, datagram].concat()
}

fn ipv6(next: u8, hops: u8, source: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, hops][..], &ip6(source), &ip6(to), payload].concat()
}

fn nd(kind: u8, source: &str, target: Option<&str>, options: &[u8]) -> Vec<u8> {
    let target = target.map(|target| ip6(target).to_vec()).unwrap_or_default();
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target, options].concat();
    ethernet([0x33, 0x33, 0, 0, 0, 1], GUEST, IPV6, &ipv6(ICMPV6, 255, source, "ff02::1", &message))
}

fn link_layer(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

/// A DHCP message: direction, xid, ciaddr, yiaddr, options without their end.
fn bootp(direction: u8, xid: u32, own: [u8; 4], given: [u8; 4], options: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[direction, 1, 6, 0]);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message[12..16].copy_from_slice(&own);
    message[16..20].copy_from_slice(&given);
    message[28..34].copy_from_slice(&GUEST);
    [&message[..], &[99, 130, 83, 99], &options.concat(), &[255]].concat()
}

/// What the guest sends, by kind.
fn asks(kind: u8, xid: u32, own: [u8; 4], options: &[&[u8]]) -> Vec<u8> {
    let message = bootp(1, xid, own, [0; 4], &[&[&[53, 1, kind][..]], options].concat());
    ethernet(ALL, GUEST, IPV4, &ipv4(&[], &udp(DHCP_SERVER, &message)))
}

/// What a server sends to the guest, by kind.
fn answers(to: [u8; 6], kind: u8, xid: u32, given: [u8; 4], lease: u32, options: &[&[u8]]) -> Vec<u8> {
    let lease = [&[51, 4][..], &lease.to_be_bytes()].concat();
    let message = bootp(2, xid, [0; 4], given, &[&[&[53, 1, kind][..], &lease], options].concat());
    ethernet(to, OTHER, IPV4, &ipv4(&[], &udp(DHCP_CLIENT, &message)))
}

/// Option 50.
fn wanted(ip: [u8; 4]) -> Vec<u8> {
    [&[50, 4][..], &ip].concat()
}

fn option6(code: u16, value: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn iaaddr(ip: &str, valid: u32) -> Vec<u8> {
    option6(5, &[&ip6(ip)[..], &[0; 4], &valid.to_be_bytes()].concat())
}

fn ia_na(addresses: &[Vec<u8>]) -> Vec<u8> {
    option6(3, &[&[0; 12][..], &addresses.concat()].concat())
}

fn ia_ta(addresses: &[Vec<u8>]) -> Vec<u8> {
    option6(4, &[&[0; 4][..], &addresses.concat()].concat())
}

fn dhcp6(to: [u8; 6], from: [u8; 6], port: u16, kind: u8, xid: u8, options: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0xab, 0xcd, xid][..], options].concat();
    ethernet(to, from, IPV6, &ipv6(UDP, 1, "fe80::1", "ff02::1:2", &udp(port, &message)))
}

fn asks6(kind: u8, xid: u8, options: &[u8]) -> Vec<u8> {
    dhcp6([0x33, 0x33, 0, 1, 0, 2], GUEST, DHCP6_SERVER, kind, xid, options)
}

fn answers6(xid: u8, options: &[u8]) -> Vec<u8> {
    dhcp6(GUEST, OTHER, DHCP6_CLIENT, 7, xid, options)
}

/// What must have been heard before, a frame, and what it says.
type Sample = (Vec<Vec<u8>>, Vec<u8>, Vec<Said>);

/// One of each kind that says something.
fn samples() -> Vec<Sample> {
    let request = asks(3, 7, [0; 4], &[&wanted(OWN)]);
    vec![
        (vec![], arp(1, GUEST, OWN, [10, 1, 0, 1]), has("10.1.0.60")),
        (vec![], arp(2, GUEST, OWN, [10, 1, 0, 1]), has("10.1.0.60")),
        (vec![], arp(1, GUEST, OWN, OWN), has("10.1.0.60")),
        (vec![], arp(1, GUEST, [0; 4], OWN), vec![Said::Probes { mac: guest(), ip: ip("10.1.0.60") }]),
        (vec![], nd(135, "fd00:1::60", Some("fd00:1::1"), &link_layer(1, GUEST)), has("fd00:1::60")),
        (vec![], nd(135, "::", Some("fd00:1::60"), &[14, 1, 1, 2, 3, 4, 5, 6]), wants("fd00:1::60")),
        (vec![], nd(136, "fe80::1", Some("fd00:1::60"), &link_layer(2, GUEST)), has("fd00:1::60")),
        (vec![], nd(136, "fd00:1::60", Some("fd00:1::60"), &[]), has("fd00:1::60")),
        (vec![], nd(133, "fe80::60", None, &link_layer(1, GUEST)), has("fe80::60")),
        (vec![request.clone()], answers(ALL, 5, 7, OWN, HOUR, &[]), leased("10.1.0.60", 3600)),
        (vec![request.clone()], answers(GUEST, 5, 7, OWN, HOUR, &[]), leased("10.1.0.60", 3600)),
        (vec![request], answers(ALL, 6, 7, [0; 4], 0, &[]), released("10.1.0.60")),
        (vec![asks(3, 7, OWN, &[])], answers(GUEST, 5, 7, OWN, HOUR, &[]), leased("10.1.0.60", 3600)),
        (vec![asks(1, 7, [0; 4], &[&[80, 0]])], answers(ALL, 5, 7, OWN, HOUR, &[&[80, 0]]), leased("10.1.0.60", 3600)),
        (vec![], asks(4, 8, [0; 4], &[&wanted(OWN)]), released("10.1.0.60")),
        (vec![], asks(7, 8, OWN, &[]), released("10.1.0.60")),
        (vec![asks6(3, 9, &[])], answers6(9, &ia_na(&[iaaddr("fd00:1::60", HOUR)])), leased("fd00:1::60", 3600)),
        (vec![asks6(5, 9, &[])], answers6(9, &ia_ta(&[iaaddr("fd00:1::60", HOUR)])), leased("fd00:1::60", 3600)),
        (vec![asks6(6, 9, &[])], answers6(9, &ia_na(&[iaaddr("fd00:1::60", 0)])), released("fd00:1::60")),
        (
            vec![asks6(1, 9, &option6(14, &[]))],
            answers6(9, &[option6(14, &[]), ia_na(&[iaaddr("fd00:1::60", HOUR)])].concat()),
            leased("fd00:1::60", 3600),
        ),
        (vec![], asks6(8, 9, &ia_na(&[iaaddr("fd00:1::60", 0)])), released("fd00:1::60")),
        (vec![], asks6(9, 9, &ia_na(&[iaaddr("fd00:1::60", 0)])), released("fd00:1::60")),
    ]
}

fn after(before: &[Vec<u8>]) -> Xids {
    let mut xids = Xids::default();
    for frame in before {
        assert_eq!(frame::read(frame, &mut xids), []);
    }
    xids
}

#[test]
fn each_kind_is_understood() {
    for (at, (before, frame, said)) in samples().into_iter().enumerate() {
        assert_eq!(frame::read(&frame, &mut after(&before)), said, "sample {at}");
    }
}

/// A frame that ends early says nothing or, where only Ethernet's padding is missing, what it says anyway.
#[test]
fn a_cut_frame_says_nothing_else() {
    for (at, (before, frame, said)) in samples().into_iter().enumerate() {
        for length in 0..frame.len() {
            let heard = frame::read(&frame[..length], &mut after(&before));
            assert!(heard.is_empty() || (heard == said && length < 60), "sample {at} cut to {length}: {heard:?}");
        }
    }
}

/// The lengths inside lie: whatever they say, no more is read than there is.
#[test]
fn no_byte_makes_it_panic() {
    for (before, frame, _) in samples() {
        for at in 0..frame.len() {
            for value in [0, 1, 2, 4, 0x7f, 0x80, 0xff] {
                let mut frame = frame.clone();
                frame[at] = value;
                frame::read(&frame, &mut after(&before));
            }
        }
    }
}

/// xorshift64 (Marsaglia 2003): the same on each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }
}

#[test]
fn a_hundred_thousand_random_frames_are_survived() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut xids = Xids::default();
    let samples = samples();
    for round in 0..100_000 {
        // Half noise behind a plausible start, half good frames with some bytes changed: noise alone never gets past the first test.
        let frame = if round % 2 == 0 {
            let mut frame: Vec<u8> = (0..dice.roll(400)).map(|_| dice.roll(256) as u8).collect();
            let kind = [ARP, IPV4, IPV6][dice.roll(3)].to_be_bytes();
            frame.iter_mut().skip(12).zip(kind).for_each(|(byte, value)| *byte = value);
            frame
        } else {
            let mut frame = samples[dice.roll(samples.len())].1.clone();
            for _ in 0..=dice.roll(8) {
                let at = dice.roll(frame.len());
                frame[at] = dice.roll(256) as u8;
            }
            frame.truncate(frame.len() - dice.roll(2) * dice.roll(frame.len()));
            frame
        };
        for said in frame::read(&frame, &mut xids) {
            assert!(crate::model::not_a_host(said.ip()).is_none(), "{said:?}");
        }
    }
}

// ===== Whom to believe =====

#[test]
fn a_guest_speaks_for_the_mac_that_its_frame_comes_from() {
    assert_eq!(read(&arp(1, OTHER, OWN, [10, 1, 0, 1])), []);
    assert_eq!(read(&arp(1, OTHER, [0; 4], OWN)), []);
    assert_eq!(read(&nd(136, "fd00:1::60", Some("fd00:1::60"), &link_layer(2, OTHER))), []);
    assert_eq!(read(&nd(135, "fd00:1::60", Some("fd00:1::1"), &link_layer(1, OTHER))), []);
    assert_eq!(read(&nd(133, "fd00:1::60", None, &link_layer(1, OTHER))), []);
    // The first is its own, the second is not.
    let both = [link_layer(1, GUEST), link_layer(1, OTHER)].concat();
    assert_eq!(read(&nd(135, "fd00:1::60", Some("fd00:1::1"), &both)), []);
    // A DHCP relay's, and one that makes up another's release.
    for mut frame in [asks(3, 7, [0; 4], &[&wanted(OWN)]), asks(7, 7, OWN, &[])] {
        frame[6..12].copy_from_slice(&OTHER);
        let mut xids = Xids::default();
        assert_eq!(frame::read(&frame, &mut xids), []);
        assert_eq!(frame::read(&answers(ALL, 5, 7, OWN, HOUR, &[]), &mut xids), []);
    }
    // A source that is no host's MAC.
    let mut frame = arp(1, ALL, OWN, OWN);
    frame[6..12].copy_from_slice(&ALL);
    assert_eq!(read(&frame), []);
}

#[test]
fn a_server_is_believed_where_this_guest_asked_for_this_address() {
    let asked = [asks(3, 7, [0; 4], &[&wanted(OWN)])];
    let hear = |frame: Vec<u8>| frame::read(&frame, &mut after(&asked));
    assert_eq!(hear(answers(ALL, 5, 8, OWN, HOUR, &[])), [], "another transaction");
    assert_eq!(hear(answers(ALL, 5, 7, [10, 1, 0, 61], HOUR, &[])), [], "another address");
    assert_eq!(hear(answers(OTHER, 5, 7, OWN, HOUR, &[])), [], "to another");
    assert_eq!(hear(answers(ALL, 2, 7, OWN, HOUR, &[])), [], "an offer only");
    let mut frame = answers(ALL, 5, 7, OWN, HOUR, &[]);
    frame[14 + 20 + 8 + 28] ^= 2;
    assert_eq!(hear(frame), [], "another client's");
    assert_eq!(hear(answers(ALL, 5, 7, OWN, 0, &[])), released("10.1.0.60"));
    let for_ever = vec![Said::Leased { mac: guest(), ip: ip("10.1.0.60"), lifetime: None }];
    assert_eq!(hear(answers(ALL, 5, 7, OWN, u32::MAX, &[])), for_ever);
    // An answer at once to one that did not ask for it so; a server that does not do it.
    let plain = after(&[asks(1, 7, [0; 4], &[&wanted(OWN)])]);
    for (mut xids, frame) in [
        (plain, answers(ALL, 5, 7, OWN, HOUR, &[&[80, 0]])),
        (after(&[asks(1, 7, [0; 4], &[&[80, 0]])]), answers(ALL, 5, 7, OWN, HOUR, &[])),
        (after(&[asks6(1, 7, &[])]), answers6(7, &ia_na(&[iaaddr("fd00:1::60", HOUR)]))),
        (after(&[asks6(1, 7, &option6(14, &[]))]), answers6(7, &ia_na(&[iaaddr("fd00:1::60", HOUR)]))),
        (after(&[asks6(3, 7, &[])]), answers6(8, &ia_na(&[iaaddr("fd00:1::60", HOUR)]))),
        (after(&[asks6(11, 7, &[])]), answers6(7, &ia_na(&[iaaddr("fd00:1::60", HOUR)]))),
    ] {
        assert_eq!(frame::read(&frame, &mut xids), []);
    }
    let stranger = dhcp6(OTHER, OTHER, DHCP6_CLIENT, 7, 7, &ia_na(&[iaaddr("fd00:1::60", HOUR)]));
    assert_eq!(frame::read(&stranger, &mut after(&[asks6(3, 7, &[])])), []);
}

#[test]
fn the_last_eight_transactions_are_remembered() {
    let all: Vec<_> = (0..9).map(|xid| asks(3, xid, [0; 4], &[&wanted(OWN)])).collect();
    let mut xids = after(&all);
    assert_eq!(frame::read(&answers(ALL, 5, 0, OWN, HOUR, &[]), &mut xids), []);
    assert_eq!(frame::read(&answers(ALL, 5, 1, OWN, HOUR, &[]), &mut xids), leased("10.1.0.60", 3600));
    assert_eq!(frame::read(&answers(ALL, 6, 1, OWN, HOUR, &[]), &mut xids), [], "it was told already");
    // One that asks the same again and again drives out no other; the last word holds.
    let same: Vec<_> = (0..20).map(|_| asks(3, 8, [0; 4], &[&wanted([10, 1, 0, 61])])).collect();
    same.iter().for_each(|frame| assert_eq!(frame::read(frame, &mut xids), []));
    assert_eq!(frame::read(&answers(ALL, 5, 2, OWN, HOUR, &[]), &mut xids), leased("10.1.0.60", 3600));
    assert_eq!(frame::read(&answers(ALL, 5, 8, OWN, HOUR, &[]), &mut xids), []);
    // DHCPv6 counts apart from DHCP, though the number be the same.
    assert_eq!(frame::read(&answers6(8, &ia_na(&[iaaddr("fd00:1::60", HOUR)])), &mut xids), []);
}

#[test]
fn an_answer_that_comes_late_is_nobodys() {
    let (asked, xids) = (Instant::now(), &mut Xids::default());
    assert_eq!(frame::read(&asks(3, 7, [0; 4], &[&wanted(OWN)]), xids.at(asked)), []);
    let answer = answers(ALL, 5, 7, OWN, HOUR, &[]);
    assert_eq!(frame::read(&answer, xids.at(asked + Duration::from_secs(61))), []);
    assert_eq!(frame::read(&asks(3, 7, [0; 4], &[&wanted(OWN)]), xids), []);
    assert_eq!(frame::read(&answer, xids.at(asked + Duration::from_secs(120))), leased("10.1.0.60", 3600));
}

#[test]
fn several_addresses_are_several_words() {
    let options = [
        ia_na(&[iaaddr("fd00:1::60", HOUR), iaaddr("fd00:1::61", 0), iaaddr("ff02::1", HOUR)]),
        option6(25, &[&[0; 12][..], &iaaddr("fd00:9::", HOUR)].concat()),
        ia_ta(&[iaaddr("fd00:1::62", HOUR)]),
    ];
    let heard = frame::read(&answers6(9, &options.concat()), &mut after(&[asks6(3, 9, &[])]));
    let expected = [leased("fd00:1::60", 3600), released("fd00:1::61"), leased("fd00:1::62", 3600)].concat();
    assert_eq!(heard, expected);
}

#[test]
fn options_may_lie_in_the_fields_for_names() {
    let mut message = bootp(2, 7, [0; 4], OWN, &[&[52, 1, 3]]);
    message[108..116].copy_from_slice(&[53, 1, 5, 255, 0, 0, 0, 0]);
    message[44..51].copy_from_slice(&[51, 4, 0, 0, 14, 16, 255]);
    let frame = |message: &[u8]| ethernet(ALL, OTHER, IPV4, &ipv4(&[], &udp(DHCP_CLIENT, message)));
    let asked = [asks(3, 7, [0; 4], &[&wanted(OWN)])];
    assert_eq!(frame::read(&frame(&message), &mut after(&asked)), leased("10.1.0.60", 3600));
    message[242] = 1; // one of the two only
    assert_eq!(frame::read(&frame(&message), &mut after(&asked)), []);
}

// ===== What does not count =====

#[test]
fn what_is_no_hosts_address_is_not_told() {
    for address in [[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]] {
        assert_eq!(read(&arp(2, GUEST, address, OWN)), [], "{address:?}");
        assert_eq!(read(&asks(7, 7, address, &[])), []);
    }
    for address in ["::", "::1", "ff02::1", "::ffff:10.1.0.60"] {
        assert_eq!(read(&nd(136, "fe80::1", Some(address), &[])), [], "{address}");
        assert_eq!(read(&nd(135, "::", Some(address), &[])), []);
        assert_eq!(read(&nd(133, address, None, &[])), []);
    }
}

#[test]
fn discovery_from_afar_or_askew_is_refused() {
    let message = [&[136, 0, 0, 0, 0, 0, 0, 0][..], &ip6("fd00:1::60")].concat();
    let frame =
        |hops, message: &[u8]| ethernet(ALL, GUEST, IPV6, &ipv6(ICMPV6, hops, "fd00:1::60", "ff02::1", message));
    assert_eq!(read(&frame(255, &message)), has("fd00:1::60"));
    assert_eq!(read(&frame(254, &message)), [], "a router was between");
    assert_eq!(read(&frame(255, &message[..23])), [], "too short");
    let coded = [&[136, 1][..], &message[2..]].concat();
    assert_eq!(read(&frame(255, &coded)), [], "code");
    for options in [&[2, 0][..], &[2], &[2, 2, 0, 0, 0, 0, 0, 0], &[2, 1, 0]] {
        assert_eq!(read(&frame(255, &[&message, options].concat())), [], "{options:?}");
    }
    // Without an address of its own it names no MAC (RFC 4861 §7.1.1).
    assert_eq!(read(&nd(135, "::", Some("fd00:1::60"), &link_layer(1, GUEST))), []);
    // Another kind: a redirect.
    assert_eq!(read(&nd(137, "fe80::1", Some("fd00:1::60"), &[])), []);
}

#[test]
fn who_routes_ipv6_says_so() {
    let routes = |text: &str| [has(text), vec![Said::Routes { mac: guest(), ip: ip(text) }]].concat();
    let mut advertised = nd(136, "fd00:1::60", Some("fd00:1::60"), &link_layer(2, GUEST));
    let flags = 14 + 40 + 4;
    advertised[flags] = 0xa0;
    assert_eq!(read(&advertised), routes("fd00:1::60"));
    advertised[flags] = 0x60;
    assert_eq!(read(&advertised), has("fd00:1::60"), "solicited and override are other flags");
    // Two times of 4 bytes stand before a router's options.
    let router = |source: &str, options: &[u8]| nd(134, source, None, &[&[0; 8][..], options].concat());
    assert_eq!(read(&router("fe80::60", &link_layer(1, GUEST))), routes("fe80::60"));
    assert_eq!(read(&router("fe80::60", &[])), routes("fe80::60"));
    assert_eq!(read(&router("fe80::60", &link_layer(1, OTHER))), [], "another's");
    assert_eq!(read(&router("fd00:1::60", &[])), [], "RFC 4861 §6.1.2");
    assert_eq!(read(&nd(134, "fe80::60", None, &[0; 4])), [], "too short");
}

#[test]
fn fragments_and_tags_are_refused_here_too() {
    let release = udp(DHCP_SERVER, &bootp(1, 7, OWN, [0; 4], &[&[53, 1, 7]]));
    let body = ipv4(&[], &release);
    assert_eq!(read(&ethernet(ALL, GUEST, IPV4, &body)), released("10.1.0.60"));
    assert_eq!(read(&ethernet(ALL, GUEST, IPV4, &ipv4(&[1; 8], &release))), released("10.1.0.60"), "options");
    for (at, value) in [(6, 0x20), (7, 1), (0, 0x44), (0, 0x65), (9, 6)] {
        let mut body = body.clone();
        body[at] = value;
        assert_eq!(read(&ethernet(ALL, GUEST, IPV4, &body)), [], "byte {at}");
    }
    let tagged = [&[0, 20, 8, 0][..], &body].concat();
    assert_eq!(read(&ethernet(ALL, GUEST, 0x8100, &tagged)), []);
    let fragment = [&[UDP, 0, 0, 1, 0, 0, 0, 1][..], &release].concat();
    assert_eq!(read(&ethernet(ALL, GUEST, IPV6, &ipv6(44, 64, "fe80::1", "ff02::1:2", &fragment))), []);
}

#[test]
fn other_arp_is_refused() {
    for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3), (7, 0)] {
        let mut frame = arp(1, GUEST, OWN, OWN);
        frame[14 + at] = value;
        assert_eq!(read(&frame), [], "byte {at}");
    }
    assert_eq!(read(&arp(2, GUEST, [0; 4], OWN)), [], "an answer of nobody");
    assert_eq!(read(&arp(1, GUEST, [0; 4], [0; 4])), [], "a question about nothing");
}
