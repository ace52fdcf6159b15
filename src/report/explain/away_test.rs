//! Each fault on the way to a guest of another host, and the one link that it is told at.

use crate::checks::unheard::Unheard;
use crate::plan::Step;
use crate::plan::seen::{Fdb, Link, LinkKind, Route};
use crate::report::explain::State;
use crate::report::explain::fixture::{IP, MAC, RR, Scene, TAP, broken, ip, kinds, mac, neigh, path};
use crate::speaker::{ArpState, MacState, Peer};

const READ_AGAIN: &str = "ip link set vxlan20 down && ip link set vxlan20 up";

#[test]
fn where_all_is_well_every_link_holds_in_order() {
    let links = [
        "bridge",
        "vxlan",
        "vtep",
        "vrf",
        "l3vni",
        "frr",
        "zebra-vni",
        "peer",
        "bgp-route",
        "bgp-route",
        "import",
        "zebra-neighbour",
        "fdb",
        "neighbour",
        "vrf-route",
        "underlay",
    ];
    assert_eq!(kinds(&Scene::away().explained_away()), links);
}

#[test]
fn a_mac_without_addresses_is_no_fault() {
    let mut scene = Scene::away();
    scene.frr().received.truncate(1);
    scene.away.ips.clear();
    scene.away.routes.clear();
    scene.neighs.clear();
    assert!(!kinds(&scene.explained_away()).contains(&"neighbour"));
}

/// As `bgpd` has it where nobody announces the guest.
fn forgotten(scene: &mut Scene) {
    scene.frr().received.clear();
    scene.frr().known = None;
}

fn tap(scene: &mut Scene) {
    let tap = Link {
        name: "tap9".parse().unwrap(),
        index: TAP,
        kind: LinkKind::Other("tun".into()),
        ..scene.link("vxlan20").clone()
    };
    scene.links.push(tap);
}

type Fault = (&'static str, fn(&mut Scene), (&'static str, &'static str, &'static str));

const FAULTS: &[Fault] = &[
    (
        "the VXLAN is down here",
        |s| {
            s.link("vxlan20").up = false;
            s.plan = Ok(vec![Step::SetUp { dev: "vxlan20".parse().unwrap(), up: true }]);
            s.frr().speaker.vnis.clear();
            s.fdb.clear();
        },
        ("vxlan", "vxlan20", "evpn-hook sync"),
    ),
    (
        "the MAC is static on a port of this host",
        |s| {
            tap(s);
            s.fdb = vec![Fdb { mac: mac(MAC), port: TAP, is_static: true, ext_learned: true }];
            s.frr().known.as_mut().unwrap().state =
                MacState::Local { port: "tap9".into(), seq: 1, sticky: false, duplicate: false };
            s.frr().received = vec![path("10.0.0.1:2", true, None, "10.0.0.1")];
        },
        ("fdb", MAC, "bridge fdb del 52:54:00:03:82:d8 dev tap9 master"),
    ),
    (
        "a ghost of this host has the address",
        |s| s.neighs = vec![neigh(IP, "52:54:00:00:00:09", true)],
        ("neighbour", IP, "ip neigh del 10.1.0.60 dev red-l2 && ip link set vxlan20 down && ip link set vxlan20 up"),
    ),
    (
        "bgpd is dead",
        |s| {
            s.frr().speaker.unheard = Some(Unheard::Silent("bgpd is not running".into()));
            forgotten(s);
        },
        ("frr", "zebra, bgpd", "systemctl restart frr && evpn-hook sync"),
    ),
    (
        "the session is shut down",
        |s| {
            s.frr().speaker.peers[0].state = "Idle (Admin)".into();
            forgotten(s);
        },
        ("peer", RR, "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'no neighbor c0d1:ffff::201 shutdown'"),
    ),
    (
        "the underlay is down",
        |s| {
            s.frr().no_way.push(RR.into());
            s.frr().underlay = vec![Peer { name: "uplink".into(), state: "Idle (Admin)".into(), received: 0, sent: 0 }];
            s.away.underlay = Some((ip("10.0.0.2"), None));
        },
        ("underlay", RR, "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'no neighbor uplink shutdown'"),
    ),
    (
        "there is no way to its VTEP alone",
        |s| s.away.underlay = Some((ip("10.0.0.2"), None)),
        (
            "underlay",
            "10.0.0.2",
            "bring the underlay up: 'ip route get ADDRESS' and 'show bgp summary' in vtysh say how far it is",
        ),
    ),
    (
        "nobody announces it",
        |s| {
            forgotten(s);
            s.fdb.clear();
            s.neighs.clear();
        },
        ("bgp-route", MAC, "run 'evpn-hook explain' on the host where the guest runs: there the chain begins"),
    ),
    (
        "a killed FRR left its entries",
        |s| forgotten(s),
        (
            "bgp-route",
            MAC,
            "ip neigh del 10.1.0.60 dev red-l2; bridge fdb del 52:54:00:03:82:d8 dev vxlan20 master; bridge fdb del 52:54:00:03:82:d8 dev vxlan20 dst 10.0.0.2 self",
        ),
    ),
    (
        "the VNI takes other targets by configuration",
        |s| {
            s.frr().targets.as_mut().unwrap().import = vec!["65000:9".into()];
            s.frr().known.as_mut().unwrap().state = MacState::Absent;
            for line in ["vni 20", "route-target import 65000:9", "exit-vni", "vni 21", "route-target import 65000:8"] {
                s.configured("l2vpn evpn", line);
            }
        },
        (
            "import",
            MAC,
            "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'address-family l2vpn evpn' -c 'vni 20' -c 'no route-target import 65000:9'",
        ),
    ),
    (
        "its VTEP is of another AS, which counts for nothing where no target is configured",
        |s| {
            s.frr().known.as_mut().unwrap().state = MacState::Absent;
            s.frr().received.iter_mut().for_each(|p| p.targets = vec!["65000:20".into()]);
        },
        ("import", MAC, READ_AGAIN),
    ),
    (
        "FRR 10.8 takes every AS beside a configured target",
        |s| {
            s.frr().known.as_mut().unwrap().state = MacState::Absent;
            s.frr().received.iter_mut().for_each(|p| p.targets = vec!["65000:20".into()]);
            s.frr().targets.as_mut().unwrap().import = vec!["*:20".into(), "65000:9".into()];
            for line in ["vni 20", "route-target import 65000:9", "auto-route-target import add-always", "exit-vni"] {
                s.configured("l2vpn evpn", line);
            }
        },
        ("import", MAC, READ_AGAIN),
    ),
    (
        "its VTEP gives other targets",
        |s| {
            s.frr().received.iter_mut().for_each(|p| p.targets = vec!["65000:9".into()]);
            s.frr().known.as_mut().unwrap().state = MacState::Absent;
        },
        (
            "import",
            MAC,
            "let the VTEP that announces it export a target of these, or 'route-target import' its own below 'vni 20'",
        ),
    ),
    ("zebra lacks the MAC", |s| s.frr().known.as_mut().unwrap().state = MacState::Absent, ("import", MAC, READ_AGAIN)),
    (
        "zebra lacks the address",
        |s| s.frr().known.as_mut().unwrap().ips[0].state = ArpState::Absent,
        ("zebra-neighbour", IP, READ_AGAIN),
    ),
    ("the kernel lacks the MAC", |s| s.fdb.clear(), ("fdb", MAC, READ_AGAIN)),
    (
        "the kernel learned the MAC elsewhere",
        |s| {
            tap(s);
            s.fdb = vec![Fdb { mac: mac(MAC), port: TAP, is_static: false, ext_learned: false }];
        },
        ("fdb", MAC, "bridge fdb del 52:54:00:03:82:d8 dev tap9 master"),
    ),
    ("the tunnel leads to another VTEP", |s| s.away.tunnel = Some(ip("10.0.0.3")), ("fdb", MAC, READ_AGAIN)),
    ("the kernel lacks the neighbour", |s| s.neighs.clear(), ("neighbour", IP, READ_AGAIN)),
    (
        "the neighbour has another MAC",
        |s| s.neighs = vec![neigh(IP, "52:54:00:00:00:09", false)],
        ("neighbour", IP, READ_AGAIN),
    ),
    (
        "the VRF routes it elsewhere",
        |s| s.away.routes = vec![(ip(IP), Some(Route { device: 5, via: None, local: false }))],
        (
            "vrf-route",
            IP,
            "the VRF's 'route-target import' must take one of 64512:20 64512:10: see 'show bgp vrf red ipv4 unicast' in vtysh",
        ),
    ),
];

#[test]
fn each_fault_is_told_at_its_own_link_with_its_mend() {
    for (fault, cause, (link, object, mend)) in FAULTS {
        let mut scene = Scene::away();
        cause(&mut scene);
        let links = scene.explained_away();
        assert_eq!(broken(&links), (*link, (*object).to_owned(), (*mend).to_owned()), "{fault}: {links:#?}");
    }
}

/// The list of all routes, which alone tells of an address that is announced with a MAC that nobody here knows.
#[test]
fn an_address_whose_list_is_not_told_is_no_verdict() {
    let untold = |change: fn(&mut Scene)| {
        let mut scene = Scene::away();
        scene.frr().unlisted = Some(Unheard::Untold("bgpd did not answer".into()));
        change(&mut scene);
        let links = scene.explained_away();
        assert!(links.iter().all(|l| l.mend.is_none() && l.state != State::Broken), "{links:#?}");
        let of_route = links.iter().find(|l| l.link == "bgp-route" && l.state == State::Unknown).unwrap();
        assert_eq!((&*of_route.object, &*of_route.evidence), (IP, "not told: bgpd did not answer"));
        links
    };
    // Its MAC alone is announced.
    untold(|s| s.frr().received.truncate(1));
    // Nothing of it is, as where a killed FRR left it: the kernel's entries may be those of another MAC's route.
    untold(forgotten);
}
