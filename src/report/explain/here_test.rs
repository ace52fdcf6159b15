//! Each fault of a guest of this host, and the one link that it is told at.

use crate::checks::unheard::Unheard;
use crate::model::{Address, GuestKind, Source};
use crate::plan::duplicate::{Duplicate, Holder};
use crate::plan::seen::{LinkKind, PortFlags};
use crate::plan::{Refusal, Step};
use crate::register::Stage;
use crate::report::explain::fixture::{IP, MAC, RR, Scene, TAP, VXLAN, broken, ip, kinds, mac, neigh, path};
use crate::report::explain::{Chain, Explanation, State, text};
use crate::speaker::{ArpState, MacState, Peer};

#[test]
fn where_all_is_well_every_link_holds_in_order() {
    let links = [
        "guest",
        "device",
        "port",
        "bridge",
        "vxlan",
        "vtep",
        "vrf",
        "l3vni",
        "fdb",
        "neighbour",
        "frr",
        "zebra-vni",
        "zebra-mac",
        "zebra-neighbour",
        "bgp-route",
        "bgp-route",
        "peer",
    ];
    assert_eq!(kinds(&Scene::here().explained_here()), links);
}

#[test]
fn a_layer_2_network_has_neither_vrf_nor_l3vni_and_a_host_without_speaker_ends_at_the_kernel() {
    let mut scene = Scene::here();
    scene.network.vrf = None;
    scene.link("red-l2").master = None;
    scene.frr = None;
    let links = ["guest", "device", "port", "bridge", "vxlan", "vtep", "fdb", "neighbour"];
    assert_eq!(kinds(&scene.explained_here()), links);
}

#[test]
fn an_arriving_guest_is_not_looked_for_in_the_fabric() {
    let mut scene = Scene::here();
    scene.endpoint.stage = Stage::Incoming;
    (scene.fdb, scene.neighs) = (vec![], vec![]);
    assert_eq!(kinds(&scene.explained_here()).last(), Some(&"l3vni"));
}

type Fault = (&'static str, fn(&mut Scene), (&'static str, &'static str, &'static str));
const SYNC: &str = "evpn-hook sync";
const RESTART: &str = "systemctl restart frr && evpn-hook sync";

fn dev(text: &str) -> crate::model::IfName {
    text.parse().unwrap()
}

fn up(text: &str) -> Step {
    Step::SetUp { dev: dev(text), up: true }
}

fn master(text: &str, master: &str) -> Step {
    Step::SetMaster { dev: dev(text), master: Some(dev(master)) }
}

fn refused(scene: &mut Scene) {
    scene.plan = Err(Refusal("in the way".into()));
}

/// Each with what the engine plans where it plans, and with what follows from it.
const FAULTS: &[Fault] = &[
    (
        "its MAC is not known",
        |s| s.endpoint.mac = None,
        ("guest", "guest hand", "a container's MAC is read at its start: start it again, or attach it by hand"),
    ),
    (
        "it speaks with another address",
        |s| {
            let learned = neigh("10.1.0.77", MAC, false);
            s.neighs.push(crate::plan::seen::Neigh { ext_learned: false, ..learned });
        },
        (
            "guest",
            "guest hand",
            "evpn-hook attach tap0 --network red --mac 52:54:00:03:82:d8 --ip 10.1.0.60 --ip 10.1.0.77 --guest hand",
        ),
    ),
    (
        "a VM does, without an agent",
        |s| {
            s.guest.kind = GuestKind::Libvirt;
            s.neighs.push(crate::plan::seen::Neigh { ext_learned: false, ..neigh("10.1.0.77", MAC, false) });
        },
        ("guest", "vm hand", "systemctl enable --now evpn-agent"),
    ),
    ("the tap is gone", |s| s.links.retain(|l| l.index != TAP), ("device", "tap0", SYNC)),
    ("the tap is down", |s| s.link("tap0").up = false, ("device", "tap0", SYNC)),
    (
        "nobody has it open",
        |s| s.link("tap0").carrier = false,
        ("device", "tap0", "the guest's end of it is down, or nobody has it open"),
    ),
    ("its MTU is another", |s| s.link("tap0").mtu = 1500, ("device", "tap0", SYNC)),
    (
        "it is on another bridge",
        |s| {
            s.link("tap0").master = Some(3);
            s.fdb.clear();
        },
        ("port", "tap0", SYNC),
    ),
    (
        "it is on no bridge",
        |s| {
            s.link("tap0").master = None;
            s.fdb.clear();
        },
        ("port", "tap0", SYNC),
    ),
    (
        "the bridge is down",
        |s| {
            s.link("red-l2").up = false;
            s.plan = Ok(vec![up("red-l2")]);
            s.neighs.clear();
        },
        ("bridge", "red-l2", SYNC),
    ),
    (
        "the gateway's address is gone",
        |s| {
            s.addresses.pop();
            s.plan = Ok(vec![Step::AddAddress { dev: dev("red-l2"), address: "10.1.0.1/24".parse().unwrap() }]);
        },
        ("bridge", "red-l2", SYNC),
    ),
    (
        "the VXLAN is down",
        |s| {
            s.link("vxlan20").up = false;
            s.plan = Ok(vec![up("vxlan20")]);
            s.frr().speaker.vnis.clear();
        },
        ("vxlan", "vxlan20", SYNC),
    ),
    (
        "the VXLAN is off the bridge",
        |s| {
            s.link("vxlan20").master = None;
            s.plan = Ok(vec![master("vxlan20", "red-l2"), Step::SetVxlanPort { dev: dev("vxlan20") }]);
        },
        ("vxlan", "vxlan20", SYNC),
    ),
    (
        "the VXLAN learns",
        |s| {
            s.link("vxlan20").port =
                PortFlags { learning: Some(true), neigh_suppress: Some(false), ..PortFlags::default() };
            s.plan = Ok(vec![Step::SetVxlanPort { dev: dev("vxlan20") }]);
        },
        ("vxlan", "vxlan20", SYNC),
    ),
    (
        "the VXLAN has another VNI",
        |s| {
            s.link("vxlan20").kind = LinkKind::Vxlan {
                vni: 21.try_into().ok(),
                local: "10.0.0.1".parse().ok(),
                port: 4789,
                learning: false,
            };
            refused(s);
        },
        ("vxlan", "vxlan20", "ip link del vxlan20 && evpn-hook sync"),
    ),
    (
        "another device has the VNI",
        |s| {
            s.link("vxlan20").ours = false;
            s.link("vxlan20").name = dev("strange");
            refused(s);
        },
        (
            "vxlan",
            "vxlan20",
            "strange is not evpn-hook's: delete it if it is nobody's, or give one of the two another VNI",
        ),
    ),
    (
        "the VTEP's address is gone",
        |s| {
            s.addresses.remove(0);
        },
        ("vtep", "10.0.0.1", "ip address add 10.0.0.1/32 dev lo"),
    ),
    (
        "the VRF is gone",
        |s| {
            s.links.retain(|l| l.name.as_str() != "red");
            s.link("red-l2").master = None;
            s.link("red-l3").master = None;
            s.plan = Ok(vec![
                Step::AddVrf { name: dev("red"), table: 10.try_into().unwrap() },
                up("red"),
                Step::SetMaster { dev: dev("vxlan10"), master: None },
                master("red-l3", "red"),
                master("vxlan10", "red-l3"),
                Step::SetMaster { dev: dev("vxlan20"), master: None },
                master("red-l2", "red"),
                Step::AddAddress { dev: dev("red-l2"), address: "fd00:1::1/64".parse().unwrap() },
                master("vxlan20", "red-l2"),
            ]);
        },
        ("vrf", "red", SYNC),
    ),
    (
        "the bridge is out of its VRF",
        |s| {
            s.link("red-l2").master = None;
            s.plan = Ok(vec![
                Step::SetMaster { dev: dev("vxlan20"), master: None },
                master("red-l2", "red"),
                Step::AddAddress { dev: dev("red-l2"), address: "fd00:1::1/64".parse().unwrap() },
                Step::Sysctl { path: "net/ipv4/conf/red-l2/rp_filter".into(), value: "2".into() },
                master("vxlan20", "red-l2"),
                Step::SetVxlanPort { dev: dev("vxlan20") },
            ]);
        },
        ("vrf", "red", SYNC),
    ),
    (
        "the bridge is in another VRF",
        |s| {
            let mut other = s.link("red").clone();
            (other.name, other.index, other.kind) = (dev("blue"), 50, LinkKind::Vrf { table: 50.try_into().unwrap() });
            s.links.push(other);
            s.link("red-l2").master = Some(50);
            refused(s);
        },
        ("vrf", "red", "ip link set red-l2 nomaster && evpn-hook sync"),
    ),
    (
        "the VRF has another table",
        |s| {
            s.link("red").kind = LinkKind::Vrf { table: 99.try_into().unwrap() };
            refused(s);
        },
        ("vrf", "red", ""),
    ),
    (
        "the L3VNI's VXLAN is down",
        |s| {
            s.link("vxlan10").up = false;
            s.plan = Ok(vec![up("vxlan10")]);
            s.frr().speaker.vrfs.values_mut().next().unwrap().up = false;
        },
        ("l3vni", "10", SYNC),
    ),
    (
        "FRR lacks the L3VNI",
        |s| {
            let vrf = s.network.vrf.clone().unwrap();
            s.plan = Ok(vec![Step::SpeakerAddVrf { vrf }]);
            s.frr().speaker.vrfs.values_mut().next().unwrap().vni = 0;
        },
        ("l3vni", "10", SYNC),
    ),
    (
        "FRR lacks the L3VNI, and is the operator's",
        |s| s.frr().speaker.vrfs.values_mut().next().unwrap().vni = 0,
        ("l3vni", "10", "vtysh -c 'configure terminal' -c 'vrf red' -c 'vni 10'"),
    ),
    (
        "FRR has the L3VNI as down",
        |s| s.frr().speaker.vrfs.values_mut().next().unwrap().up = false,
        ("l3vni", "10", "ip link set vxlan10 down && ip link set vxlan10 up"),
    ),
    (
        "the FDB entry is gone",
        |s| {
            s.fdb.clear();
            s.frr().known.as_mut().unwrap().state = MacState::Auto;
        },
        ("fdb", MAC, SYNC),
    ),
    ("the FDB entry is a learned one", |s| s.fdb[0].is_static = false, ("fdb", MAC, SYNC)),
    (
        "another VTEP has its MAC",
        |s| {
            (s.fdb[0].port, s.fdb[0].is_static, s.fdb[0].ext_learned) = (VXLAN, false, true);
            s.duplicates = vec![Duplicate { ip: None, mac: mac(MAC), holder: Holder::Vtep("10.0.0.2".parse().ok()) }];
        },
        ("fdb", MAC, SYNC),
    ),
    ("the neighbour is gone", |s| s.neighs.clear(), ("neighbour", IP, SYNC)),
    (
        "the neighbour has another MAC",
        |s| s.neighs = vec![neigh(IP, "52:54:00:00:00:09", true)],
        ("neighbour", IP, SYNC),
    ),
    (
        "another guest has its address and lost it",
        |s| {
            s.duplicates =
                vec![Duplicate { ip: Some(ip(IP)), mac: mac("52:54:00:00:00:09"), holder: Holder::Vtep(None) }];
        },
        ("neighbour", IP, "give one of the two another address"),
    ),
    (
        "a daemon is dead",
        |s| {
            s.frr().speaker.unheard = Some(Unheard::Silent("bgpd is not running".into()));
            s.frr().speaker.vnis.clear();
        },
        ("frr", "zebra, bgpd", RESTART),
    ),
    (
        "bgpd has no instance",
        |s| s.frr().speaker.running.instances.clear(),
        (
            "frr",
            "zebra, bgpd",
            "put 'router bgp AS' with its neighbours and 'address-family l2vpn evpn / advertise-all-vni' into frr.conf",
        ),
    ),
    (
        "advertise-all-vni is off",
        |s| {
            s.frr().speaker.running.instances[0].lines.pop();
            s.frr().speaker.vnis.clear();
            s.frr().speaker.vrfs.values_mut().next().unwrap().up = false;
        },
        (
            "frr",
            "zebra, bgpd",
            "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'address-family l2vpn evpn' -c 'advertise-all-vni'",
        ),
    ),
    (
        "zebra does not know the VNI",
        |s| s.frr().speaker.vnis.clear(),
        ("zebra-vni", "20", "ip link set vxlan20 down && ip link set vxlan20 up"),
    ),
    (
        "zebra has the VNI in another VRF",
        |s| s.frr().speaker.vnis.values_mut().next().unwrap().vrf = "default".into(),
        ("zebra-vni", "20", "ip link set vxlan20 down && ip link set vxlan20 up"),
    ),
    (
        "zebra has no bridge for the VNI",
        |s| s.frr().speaker.vnis.values_mut().next().unwrap().svi = None,
        ("zebra-vni", "20", "ip link set vxlan20 down && ip link set vxlan20 up"),
    ),
    ("zebra missed the MAC", |s| s.frr().known.as_mut().unwrap().state = MacState::Absent, ("zebra-mac", MAC, SYNC)),
    (
        "zebra froze the MAC",
        |s| {
            s.frr().known.as_mut().unwrap().state =
                MacState::Local { port: "tap0".into(), seq: 9, sticky: false, duplicate: true };
        },
        ("zebra-mac", MAC, "vtysh -c 'clear evpn dup-addr vni 20 mac 52:54:00:03:82:d8'"),
    ),
    (
        "zebra has the address as inactive",
        |s| s.frr().known.as_mut().unwrap().ips[0].state = ArpState::Inactive { mac: mac(MAC) },
        ("zebra-neighbour", IP, SYNC),
    ),
    (
        "bgpd lacks the route",
        |s| s.frr().announced[1].1.path = None,
        ("bgp-route", "52:54:00:03:82:d8 10.1.0.60", SYNC),
    ),
    (
        "bgpd prefers another VTEP's",
        |s| {
            s.frr().known.as_mut().unwrap().route = false;
            s.frr().received = vec![path("10.0.0.2:2", false, None, "10.0.0.2")];
        },
        ("bgp-route", MAC, SYNC),
    ),
    (
        "its route has no L3VNI",
        |s| s.frr().announced[1].1.path.as_mut().unwrap().routed = false,
        ("bgp-route", "52:54:00:03:82:d8 10.1.0.60", "ip link set vxlan10 down && ip link set vxlan10 up"),
    ),
    (
        "there is no way to the peer",
        |s| {
            s.frr().no_way.push(RR.into());
            s.frr().speaker.peers[0].state = "Active".into();
            s.link("uplink").up = false;
            s.frr().underlay = vec![Peer { name: "uplink".into(), state: "Active".into(), received: 0, sent: 0 }];
        },
        ("underlay", RR, "ip link set uplink up"),
    ),
    (
        "the underlay's session is shut down",
        |s| {
            s.frr().no_way.push(RR.into());
            s.frr().underlay = vec![Peer { name: "uplink".into(), state: "Idle (Admin)".into(), received: 0, sent: 0 }];
        },
        ("underlay", RR, "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'no neighbor uplink shutdown'"),
    ),
    (
        "the session is shut down",
        |s| s.frr().speaker.peers[0].state = "Idle (Admin)".into(),
        ("peer", RR, "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'no neighbor c0d1:ffff::201 shutdown'"),
    ),
    (
        "the session does not come up",
        |s| s.frr().speaker.peers[0].state = "Active".into(),
        (
            "peer",
            RR,
            "see 'vtysh -c \"show bgp neighbors c0d1:ffff::201\"' for the last error; the other end's configuration counts as well",
        ),
    ),
    (
        "there is no peer",
        |s| s.frr().speaker.peers.clear(),
        ("peer", "none", "put 'neighbor X activate' there, with the route reflectors or the other VTEPs"),
    ),
    (
        "a route map holds it back",
        |s| {
            s.frr().announced[1].1.to.clear();
            s.configured("l2vpn evpn", &format!("neighbor {RR} route-map HIDE out"));
        },
        (
            "peer",
            RR,
            "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'address-family l2vpn evpn' -c 'no neighbor c0d1:ffff::201 route-map HIDE out'",
        ),
    ),
    (
        "the peer was not told",
        |s| s.frr().announced[0].1.to.clear(),
        ("peer", RR, "vtysh -c 'clear bgp l2vpn evpn c0d1:ffff::201 soft out'"),
    ),
];

#[test]
fn each_fault_is_told_at_its_own_link_with_its_mend() {
    for (fault, cause, (link, object, mend)) in FAULTS {
        let mut scene = Scene::here();
        cause(&mut scene);
        let links = scene.explained_here();
        assert_eq!(broken(&links), (*link, (*object).to_owned(), (*mend).to_owned()), "{fault}: {links:#?}");
    }
}

#[test]
fn what_depends_on_a_broken_link_is_unknown_and_what_holds_all_the_same_is_ok() {
    let mut scene = Scene::here();
    scene.fdb.clear();
    scene.neighs.clear();
    scene.frr().known.as_mut().unwrap().state = MacState::Absent;
    let links = scene.explained_here();
    let state = |link: &str| links.iter().find(|l| l.link == link).unwrap().state;
    assert_eq!((state("fdb"), state("neighbour"), state("zebra-mac")), (State::Broken, State::Unknown, State::Unknown));
    assert_eq!((state("port"), state("frr")), (State::Ok, State::Ok));
    assert!(links.iter().filter(|l| l.state != State::Broken).all(|l| l.mend.is_none() && l.hint.is_none()));
}

#[test]
fn what_only_frr_could_tell_is_unknown_where_it_is_silent() {
    let mut scene = Scene::here();
    scene.frr().speaker.unheard = Some(Unheard::Silent("zebra did not answer".into()));
    let links = scene.explained_here();
    let unknown: Vec<_> = links.iter().filter(|l| l.state == State::Unknown).map(|l| l.link).collect();
    assert_eq!(unknown, ["zebra-vni", "zebra-mac", "bgp-route", "peer"]);
}

/// An FRR that is busy, with a fabric's worth of routes for one, is not broken.
#[test]
fn what_frr_does_not_tell_is_no_verdict_and_restarts_nothing() {
    let mut scene = Scene::here();
    scene.frr().speaker.unheard = Some(Unheard::Untold("bgpd did not answer".into()));
    let links = scene.explained_here();
    let unknown: Vec<_> = links.iter().filter(|l| l.state != State::Ok).map(|l| (l.link, l.state)).collect();
    let wanted = ["frr", "zebra-vni", "zebra-mac", "bgp-route", "peer"].map(|link| (link, State::Unknown));
    assert_eq!(unknown, wanted);
    assert!(links.iter().all(|l| l.mend.is_none()), "{links:#?}");
    let frr = links.iter().find(|l| l.link == "frr").unwrap();
    assert_eq!(frr.evidence, "not told: bgpd did not answer");
    let chain = Chain {
        place: "here",
        guest: None,
        network: "red".parse().unwrap(),
        device: None,
        mac: None,
        ips: Vec::new(),
        vtep: None,
        broken: None,
        links,
    };
    assert!(!chain.holds());
    let told = text(&Explanation { asked: "hand".into(), healthy: false, chains: vec![chain] });
    assert!(told.ends_with("\nno broken link was found, and 5 could not be told: ask again\n"), "{told}");
}

#[test]
fn what_a_guest_says_is_no_fault_where_it_is_registered_or_its_own_affair() {
    let mut scene = Scene::here();
    scene.endpoint.ips.push(Address::new(ip("fd00:1::60"), Source::Neighbour));
    scene.neighs.extend([neigh("fd00:1::60", MAC, true)]);
    for learned in ["fe80::5054:ff:fe03:82d8", "169.254.3.4", "192.0.2.7"] {
        scene.neighs.push(crate::plan::seen::Neigh { ext_learned: false, ..neigh(learned, MAC, false) });
    }
    scene.frr = None;
    kinds(&scene.explained_here());
}

#[test]
fn foreign_text_stays_on_its_line() {
    let mut scene = Scene::here();
    scene.frr().speaker.unheard = Some(Unheard::Silent("zebra said\n\x1b[31m".into()));
    assert!(scene.explained_here().iter().all(|l| !l.evidence.contains(['\n', '\x1b'])));
}
