//! Each law is broken by hand once: a checker that lets a bad plan pass checks nothing.

use super::*;
use crate::plan::fixture::name;
use crate::plan::plain;

fn master(dev: &str, master: Option<&str>) -> Step {
    Step::SetMaster { dev: name(dev), master: master.map(name) }
}

fn up(dev: &str) -> Step {
    Step::SetUp { dev: name(dev), up: true }
}

fn add_vxlan() -> Step {
    Step::AddVxlan { vni: 20.try_into().unwrap(), local: "10.0.0.1".parse().unwrap(), port: 4789, mtu: None }
}

fn vrf() -> crate::config::Vrf {
    crate::config::Vrf { name: name("red"), table: 10.try_into().unwrap(), vni: 10.try_into().ok() }
}

fn add_vrf_to_speaker() -> Step {
    Step::SpeakerAddVrf { vrf: vrf() }
}

fn del_vrf_from_speaker() -> Step {
    Step::SpeakerDelVrf { vrf: vrf() }
}

fn part_svi() -> Step {
    Step::PartSvi { bridge: name("red-l3"), vni: 10.try_into().unwrap() }
}

fn add_address() -> Step {
    Step::AddAddress { dev: name("red-l2"), address: "fd00::1/64".parse().unwrap() }
}

fn add_fdb() -> Step {
    Step::AddFdb { dev: name("vnet0"), mac: "52:54:00:03:82:d8".parse().unwrap() }
}

fn del_fdb() -> Step {
    Step::DelFdb { dev: name("vnet0"), mac: "52:54:00:03:82:d8".parse().unwrap() }
}

fn add_neigh() -> Step {
    let (ip, mac) = ("10.1.0.60".parse().unwrap(), "52:54:00:03:82:d8".parse().unwrap());
    Step::AddNeigh { bridge: name("red-l2"), ip, mac, router: false }
}

fn del_neigh() -> Step {
    Step::DelNeigh { bridge: name("red-l2"), ip: "10.1.0.60".parse().unwrap() }
}

fn del(dev: &str) -> Step {
    Step::DelLink { name: name(dev) }
}

/// Lawful as it stands, and broken in these words if its steps come in the reverse order.
#[track_caller]
fn law(words: &str, steps: &[Step]) {
    let plan: Plan = steps.iter().cloned().map(plain).collect();
    assert_eq!(broken_law(&plan), None);
    let reverse: Plan = plan.into_iter().rev().collect();
    assert_eq!(broken_law(&reverse), Some(words));
    assert!(std::panic::catch_unwind(|| lawful(reverse)).is_err(), "a debug build stops");
}

#[test]
fn every_law_is_seen_when_it_is_broken() {
    law(
        "a bridge enters its VRF before its VXLAN port exists",
        &[master("red-l2", Some("red")), master("vxlan20", Some("red-l2"))],
    );
    law("a device has its master before it is set up", &[master("vnet0", Some("red-l2")), up("vnet0")]);
    law("FRR knows the VRF's VNI before its VXLAN appears", &[add_vrf_to_speaker(), add_vxlan()]);
    for last in [del("vxlan10"), del("red-l3"), master("vxlan10", None)] {
        law("an L3VNI's bridge goes down while its VXLAN is up and a port of it", &[part_svi(), last]);
    }
    for last in [del("vxlan10"), del("red-l3")] {
        law("FRR forgets an L3VNI before its VXLAN and bridge are deleted", &[del_vrf_from_speaker(), last]);
    }
    law("FDB entry before neighbour", &[add_fdb(), add_neigh()]);
    for last in [del_fdb(), del("red-l2"), master("vnet0", None)] {
        law("neighbour is deleted before FDB entry, port and bridge", &[del_neigh(), last]);
    }
    for moved in [master("red-l2", Some("red")), master("red-l2", None)] {
        law("addresses are told after their bridge has moved", &[moved, add_address()]);
    }
}

#[test]
fn a_port_is_not_up_before_its_master() {
    let plan = |first: &str, then: &str| -> Plan {
        [master("vxlan20", Some("red-l2")), up(first), up(then)].into_iter().map(plain).collect()
    };
    assert_eq!(broken_law(&plan("red-l2", "vxlan20")), None);
    assert_eq!(broken_law(&plan("vxlan20", "red-l2")), Some("a master is set up before its port"));
}

#[test]
fn an_undo_keeps_it_as_well() {
    let late = [(up("red-l3"), part_svi()), (add_vxlan(), del("vxlan10"))];
    let plan = |steps: &[(Step, Step)]| -> Plan {
        steps.iter().cloned().map(|(step, undo)| crate::plan::with_undo(step, undo)).collect()
    };
    assert_eq!(broken_law(&plan(&late)), Some("an L3VNI's bridge goes down while its VXLAN is up and a port of it"));
    let [first, then] = late;
    assert_eq!(broken_law(&plan(&[then, first])), None);
}

#[test]
fn steps_between_do_not_hide_it() {
    let plan: Plan = [add_vxlan(), add_fdb(), add_address(), add_vrf_to_speaker()].into_iter().map(plain).collect();
    assert_eq!(broken_law(&plan), Some("FRR knows the VRF's VNI before its VXLAN appears"));
}

#[test]
fn what_is_about_different_things_is_no_breach() {
    let other = Step::AddFdb { dev: name("vnet1"), mac: "52:54:00:03:82:d9".parse().unwrap() };
    for steps in [
        vec![add_neigh(), other],
        vec![up("vnet1"), master("vnet0", Some("red-l2"))],
        vec![master("mine", None), del("mine")],
        vec![],
    ] {
        assert_eq!(broken_law(&steps.into_iter().map(plain).collect()), None);
    }
}
