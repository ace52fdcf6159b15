//! The speaker room against the real FRR, in namespaces of its own. Skipped, with a word, where there is no FRR or no root.
//!
//! What needs VRF devices is skipped on kernels without them (`CONFIG_NET_VRF`); the rest of the configuration is accepted there, too, since FRR
//! takes a VRF that does not exist yet.

#![allow(clippy::unwrap_used)] // helpers outside #[test] functions are tests, too

mod agent;
mod devices;
#[path = "../common/golden.rs"]
mod golden;
mod lab;
#[path = "../common/poison.rs"]
mod poison;
mod slow;
mod told;

use evpn_hook::config::Vrf;
use evpn_hook::speaker::{Added, ArpState, BgpLine, Frr, MacState, SpeakerError, Vty};
use lab::{BGP, ID, Lab, guest, vni, vrf};
use std::time::{Duration, Instant};

#[test]
fn questions_about_nothing() {
    let Some(lab) = Lab::start("nothing", BGP) else { return };
    let mut frr = lab.frr();
    let (mac, ip) = guest();
    assert_eq!((frr.local_as().unwrap(), frr.router_id().unwrap()), (Some(64512), ID));
    assert!(frr.evpn().unwrap());
    assert_eq!(frr.vni(vni(20)).unwrap(), None);
    assert_eq!(frr.mac(vni(20), mac).unwrap(), MacState::Absent);
    assert_eq!(frr.arp(vni(20), ip).unwrap(), ArpState::Absent);
    assert_eq!(frr.arp(vni(20), "fd00:1::60".parse().unwrap()).unwrap(), ArpState::Absent);
    assert!(!frr.bgp_route(vni(20), mac, Some(ip)).unwrap());
    assert_eq!(frr.dump(vni(20)).unwrap(), Default::default());
    assert_eq!(frr.vrf(&"red".parse().unwrap()).unwrap(), Default::default());
    let problem = frr.advertised(vni(20), mac, &[ip]).unwrap().problem();
    assert_eq!(problem.as_deref(), Some("zebra does not know 52:54:00:03:82:d8"));
    let refused = Vty::new(&lab.dir, "zebra", Duration::from_secs(5)).show("show nonsense").unwrap_err();
    assert!(refused.to_string().contains("Unknown command: show nonsense"), "{refused}");
}

#[test]
fn in_and_out_and_nothing_twice() {
    let Some(lab) = Lab::start("inout", BGP) else { return };
    let (mut frr, red) = (lab.frr(), vrf("red", 10));
    let before = frr.running().unwrap();
    assert_eq!(frr.missing(&red).unwrap(), Added::whole(&red, ID));
    let added = frr.configure(&red).unwrap();
    assert_eq!(added, Added::whole(&red, ID));
    assert_eq!(frr.vrf(&red.name).unwrap().vni, 10);
    let lines = frr.running().unwrap().vrf("red").unwrap().lines.clone();
    assert_eq!((lines.len(), &lines[0]), (5, &(String::new(), "bgp router-id 10.0.0.1".to_owned())));
    assert_eq!(lab.read_only().configure(&red).unwrap(), Added::default());
    frr.unconfigure(&red, &added).unwrap();
    assert_eq!(frr.vrf(&red.name).unwrap(), Default::default());
    assert_eq!(frr.running().unwrap(), before);
    lab.read_only().unconfigure(&red, &added).unwrap();
    // A VRF without an L3VNI costs nothing.
    let plain = Vrf { vni: None, ..red };
    assert_eq!(lab.read_only().configure(&plain).unwrap(), Added::default());
    lab.read_only().unconfigure(&plain, &added).unwrap();
}

#[test]
fn what_the_operator_has_stays() {
    let Some(mut lab) = Lab::start("operator", BGP) else { return };
    let (mut frr, red) = (lab.frr(), vrf("red", 10));
    lab.vtysh(&[
        "vrf red",
        "vni 10",
        "exit-vrf",
        "router bgp 65001 vrf red",
        "bgp router-id 1.2.3.4",
        "address-family ipv4 unicast",
        "redistribute connected route-map MINE",
    ]);
    let before = frr.running().unwrap();
    let added = frr.configure(&red).unwrap();
    assert_eq!(added, Added { lines: BgpLine::ALL[1..].to_vec(), ..Added::default() });
    assert_eq!(frr.running().unwrap().vrf("red").unwrap().asn, 65001);
    frr.unconfigure(&red, &added).unwrap();
    assert_eq!(frr.running().unwrap(), before);
    assert_eq!(frr.vrf(&red.name).unwrap().vni, 10);

    // An instance of ours that the operator put something into.
    let (green, ours) = (vrf("green", 30), frr.configure(&vrf("green", 30)).unwrap());
    assert_eq!((ours.bgp, ours.router_id), (true, ID));
    lab.vtysh(&["router bgp 64512 vrf green", "address-family ipv4 unicast", "redistribute static"]);
    frr.unconfigure(&green, &ours).unwrap();
    let left = frr.running().unwrap().vrf("green").unwrap().clone();
    assert_eq!(left.lines, [("ipv4 unicast".to_owned(), "redistribute static".to_owned())]);
    assert_eq!(frr.vrf(&green.name).unwrap().vni, 0);

    // A router-id of the operator's in place of ours.
    let (blue, ours) = (vrf("blue", 50), frr.configure(&vrf("blue", 50)).unwrap());
    lab.vtysh(&["router bgp 64512 vrf blue", "bgp router-id 1.2.3.4"]);
    assert_eq!(lab.read_only().configure(&blue).unwrap(), Added::default());
    frr.unconfigure(&blue, &ours).unwrap();
    let left = frr.running().unwrap().vrf("blue").unwrap().clone();
    assert_eq!(left.lines, [(String::new(), "bgp router-id 1.2.3.4".to_owned())]);
}

#[test]
fn disagreement_is_said_and_nothing_is_changed() {
    let Some(mut lab) = Lab::start("conflict", BGP) else { return };
    lab.vtysh(&["vrf red", "vni 11", "exit-vrf", "vrf blue", "vni 12"]);
    let mut frr = lab.read_only();
    for (wanted, words) in [(vrf("red", 10), "vrf red has vni 11"), (vrf("green", 12), "vni 12 belongs to vrf blue")] {
        let error = frr.configure(&wanted).unwrap_err();
        assert!(matches!(error, SpeakerError::Conflict { .. }) && error.to_string().contains(words), "{error}");
    }
}

#[test]
fn two_at_once() {
    let Some(lab) = Lab::start("two", BGP) else { return };
    std::thread::scope(|scope| {
        for (name, vni) in [("red", 10), ("green", 30), ("blue", 50)] {
            let lab = &lab;
            scope.spawn(move || {
                let (mut frr, vrf) = (lab.frr(), vrf(name, vni));
                for _ in 0..3 {
                    let added = frr.configure(&vrf).unwrap();
                    assert_eq!(added, Added::whole(&vrf, ID));
                    frr.unconfigure(&vrf, &added).unwrap();
                }
            });
        }
    });
}

#[test]
fn no_bgp_and_no_bgpd() {
    let Some(mut lab) = Lab::start("nobgp", "hostname nobody\n") else { return };
    let (mut frr, red) = (lab.frr(), vrf("red", 10));
    assert_eq!((frr.local_as().unwrap(), frr.router_id().unwrap()), (None, None));
    assert!(matches!(frr.configure(&red), Err(SpeakerError::NoBgp)));
    lab.vtysh(&["vrf red", "vni 10"]);
    lab.must(&format!("kill -KILL $(cat {}/bgpd.pid)", lab.dir.display()));
    let until = Instant::now() + Duration::from_secs(10);
    while frr.running().is_ok() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let error = frr.configure(&red).unwrap_err();
    assert!(matches!(error, SpeakerError::NotRunning { daemon: "bgpd", .. }), "{error}");
    // Field F30: somebody may have put `router bgp` into frr.conf and left bgpd=no.
    assert!(error.to_string().contains("with bgpd=yes in /etc/frr/daemons"), "{error}");
    // zebra's part can still be taken out.
    frr.unconfigure(&red, &Added::whole(&red, ID)).unwrap();
    assert_eq!(frr.vrf(&red.name).unwrap().vni, 0);
}

#[test]
fn a_frozen_daemon_costs_its_deadline_and_no_more() {
    let Some(mut lab) = Lab::start("frozen", BGP) else { return };
    let red = vrf("red", 10);
    let short = Duration::from_millis(300);
    let mut frr = Frr::with_deadlines(&lab.dir, short, short);
    frr.running().unwrap();
    for daemon in ["bgpd", "zebra"] {
        lab.must(&format!("kill -STOP $(cat {}/{daemon}.pid)", lab.dir.display()));
        let begun = Instant::now();
        let error = frr.configure(&red).unwrap_err();
        assert!(matches!(&error, SpeakerError::Timeout { daemon: d, .. } if *d == daemon), "{error}");
        assert!(error.is_absence() && begun.elapsed() < short * 6, "{:?}", begun.elapsed());
        lab.must(&format!("kill -CONT $(cat {}/{daemon}.pid)", lab.dir.display()));
        let until = Instant::now() + Duration::from_secs(10);
        while frr.running().is_err() && Instant::now() < until {}
    }
    assert!(!lab.frr().configure(&red).unwrap().is_empty());
}
