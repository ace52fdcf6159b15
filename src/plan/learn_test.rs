use super::*;
use crate::config::{Origin, Vrf};
use std::collections::BTreeMap;

fn network(gateway: &[&str], routed: bool) -> Network {
    let vrf = Vrf { name: "red".parse().unwrap(), table: 10.try_into().unwrap(), vni: None };
    Network {
        name: "red".parse().unwrap(),
        origin: Origin::Config,
        bridge: "red-l2".parse().unwrap(),
        vni: 20.try_into().unwrap(),
        vrf: routed.then_some(vrf),
        gateway: gateway.iter().map(|g| g.parse().unwrap()).collect(),
        mac: None,
        mtu: None,
        port_security: None,
        vlan_aware: false,
        stp: false,
        hosts: BTreeMap::new(),
        described: None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn learned(text: &str) -> Address {
    Address::new(ip(text), Source::Neighbour)
}

#[test]
fn in_a_vrf_only_what_is_in_the_networks_subnets() {
    let red = network(&["10.1.0.1/24", "10.1.1.1/24", "fd00:1::1/64"], true);
    for fine in ["10.1.0.60", "10.1.1.254", "fd00:1::60", "fe80::5054:ff:fe03:82d8"] {
        assert_eq!(unfit(&red, ip(fine)), None, "{fine}");
    }
    for (bad, why) in [
        ("10.1.0.1", "the gateway's"),
        ("fd00:1::1", "the gateway's"),
        ("10.1.0.0", "its subnet's own or broadcast address"),
        ("10.1.0.255", "its subnet's own or broadcast address"),
        ("10.2.0.60", "in none of the network's subnets"),
        ("8.8.8.8", "in none of the network's subnets"),
        ("fd00:2::60", "in none of the network's subnets"),
        ("224.0.0.1", "multicast"),
        ("0.0.0.0", "the unspecified address"),
        ("::1", "a loopback address"),
    ] {
        assert_eq!(unfit(&red, ip(bad)).map(|why| why.to_string()).as_deref(), Some(why), "{bad}");
    }
    let v6_only = network(&["fd00:1::1/64"], true);
    assert_eq!(unfit(&v6_only, ip("10.1.0.60")), Some(Unfit::Outside));
}

#[test]
fn what_is_declared_is_judged_as_what_is_heard() {
    let red = network(&["10.1.0.1/24"], true);
    for (text, why) in [
        ("10.1.0.60", None),
        ("10.1.0.1", Some(Unfit::Gateways)),
        ("10.1.0.255", Some(Unfit::Special)),
        ("203.0.113.5", Some(Unfit::Outside)),
        ("169.254.0.1", Some(Unfit::Outside)),
        ("fe80::1", None),
        // Nothing of that family is routed there.
        ("fd00:1::60", None),
    ] {
        assert_eq!(unfit_declared(&red, ip(text)), why, "{text}");
    }
    let flat = network(&["10.1.0.1/24"], false);
    assert_eq!(unfit_declared(&flat, ip("203.0.113.5")), None, "no VRF draws traffic for it");
    assert_eq!(unfit_declared(&flat, ip("10.1.0.0")), Some(Unfit::Special));
    assert_eq!(unfit_declared(&network(&[], true), ip("203.0.113.5")), None, "nothing is routed");
}

#[test]
fn on_layer_2_alone_the_subnets_count_only_where_they_are_known() {
    assert_eq!(unfit(&network(&[], false), ip("192.0.2.7")), None);
    let half = network(&["10.1.0.1/24"], false);
    assert_eq!(unfit(&half, ip("192.0.2.7")), Some(Unfit::Outside));
    assert_eq!(unfit(&half, ip("2001:db8::7")), None);
    assert_eq!(unfit(&network(&["10.1.0.0/31"], true), ip("10.1.0.1")), None, "RFC 3021");
}

#[test]
fn who_else_has_it() {
    let (own, other): (Mac, Mac) = ("52:54:00:00:00:01".parse().unwrap(), "52:54:00:00:00:02".parse().unwrap());
    let neigh = |mac, permanent, ext_learned| Neigh {
        ip: ip("10.1.0.60"),
        mac: Some(mac),
        permanent,
        ext_learned,
        ours: false,
        router: false,
    };
    assert_eq!(other_holder(None, own), None);
    assert_eq!(other_holder(Some(&neigh(own, false, true)), own), None, "itself, where it came from");
    assert_eq!(other_holder(Some(&neigh(other, false, true)), own), Some(Holder::Vtep));
    assert_eq!(other_holder(Some(&neigh(other, true, false)), own), Some(Holder::Operator));
    assert_eq!(other_holder(Some(&neigh(other, false, false)), own), None, "the kernel's memory");
    for permanent in [true, false] {
        let ours = Neigh { ours: true, ..neigh(other, permanent, false) };
        assert_eq!(
            other_holder(Some(&ours), own),
            Some(Holder::Here(Source::Fabric)),
            "also where dnsmasq has touched it"
        );
    }
}

#[test]
fn only_what_was_learned_before_yields() {
    let (own, other): (Mac, Mac) = ("52:54:00:00:00:01".parse().unwrap(), "52:54:00:00:00:02".parse().unwrap());
    let of = |mac| {
        [Neigh { ip: ip("10.1.0.60"), mac: Some(mac), permanent: false, ext_learned: true, ours: false, router: false }]
    };
    let before = [learned("10.1.0.60")];
    assert!(yields(&before[0], &before, &of(other), own));
    assert!(!yields(&before[0], &before, &of(own), own), "its own, on its way from elsewhere");
    assert!(!yields(&before[0], &before, &[], own), "lost, not taken");
    assert!(!yields(&before[0], &[], &of(other), own), "it is being taken just now");
    let declared = [Address::new(ip("10.1.0.60"), Source::Metadata)];
    assert!(!yields(&declared[0], &declared, &of(other), own));
}

#[test]
fn what_is_declared_stays_and_what_is_learned_comes_on_top() {
    let declared = Address::new(ip("10.1.0.60"), Source::Metadata);
    assert_eq!(with(&[declared], learned("10.1.0.60"), own(), &[]), None);
    assert_eq!(with(&[declared], learned("10.1.0.61"), own(), &[]), Some(vec![declared, learned("10.1.0.61")]));
    let lease = Address { until: Some(100), ..Address::new(ip("10.1.0.61"), Source::Lease) };
    let renewed = Address { until: Some(200), ..lease };
    assert_eq!(
        with(&[learned("10.1.0.61")], lease, own(), &[]),
        Some(vec![lease]),
        "who gave it says more than who was heard"
    );
    assert_eq!(with(&[lease], learned("10.1.0.61"), own(), &[]), None);
    assert_eq!(with(&[lease], renewed, own(), &[]), Some(vec![renewed]));
    assert_eq!(with(&[renewed], renewed, own(), &[]), None);
    assert_eq!(
        with(&[renewed], Address { until: Some(201), ..lease }, own(), &[]),
        None,
        "the same, rounded otherwise"
    );
    assert_eq!(
        with(&[Address { until: None, ..lease }], lease, own(), &[]),
        Some(vec![lease]),
        "its end is known again"
    );
}

fn own() -> Mac {
    "52:54:00:00:00:01".parse().unwrap()
}

#[test]
fn privacy_addresses_of_long_ago_go() {
    let number = |n: usize| learned(&format!("fd00:1::{n:x}"));
    let of_mac = learned("fd00:1::5054:ff:fe00:1");
    let kept = [of_mac, learned("fe80::1"), Address::new(ip("fd00:1::ffff"), Source::Lease), learned("fd00:2::1")];
    let full: Vec<Address> = kept.into_iter().chain((1..=MOST_MADE).map(number)).collect();
    // The first is a server's own, which it uses all the time; the second was heard once, and others never.
    let heard = [number(2).ip, number(1).ip];
    let more = with(&full, number(99), own(), &heard).unwrap();
    assert_eq!(more.len(), full.len());
    let gone: Vec<_> = full.iter().filter(|a| !more.contains(a)).collect();
    assert_eq!(gone, [&number(3)]);
    let all: Vec<IpAddr> = (3..=MOST_MADE).chain([2, 1]).map(|n| number(n).ip).collect();
    assert!(!with(&full, number(99), own(), &all).unwrap().contains(&number(3)), "the one that was heard first");
    for other in ["fd00:2::2", "10.1.0.60", "fe80::2"] {
        assert_eq!(
            with(&full, learned(other), own(), &heard).unwrap().len(),
            full.len() + 1,
            "{other} crowds out none"
        );
    }
    let few: Vec<Address> = (1..=MOST_MADE).map(number).collect();
    assert_eq!(with(&few, of_mac, own(), &[]).unwrap().len(), few.len() + 1, "made of its MAC it is one for ever");
}

#[test]
fn too_many_push_out_the_oldest_that_nobody_gave() {
    let number = |n: usize| learned(&format!("fd00:1::{n:x}"));
    let lease = Address::new(ip("fd00:1::ffff"), Source::Lease);
    let mut full = vec![lease];
    full.extend((1..MOST).map(number));
    let more = with(&full, number(MOST), own(), &[]).unwrap();
    assert_eq!(more.len(), MOST);
    assert!(more.contains(&lease) && more.contains(&number(2)) && !more.contains(&number(1)), "{more:?}");
    let leases: Vec<_> = (0..MOST).map(|n| Address { source: Source::Lease, ..number(n + 1) }).collect();
    assert_eq!(with(&leases, number(MOST + 1), own(), &[]), None);
}
