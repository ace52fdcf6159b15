//! With bridges and VXLAN devices, and where the kernel has them VRFs: the laws of order in `speaker`.

use crate::lab::{BGP, Lab, guest, vni, vrf};
use evpn_hook::config::Vrf;
use evpn_hook::speaker::{Added, ArpState, Frr, MacState, SpeakerError};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A segment with one guest, in a VRF if there is one.
fn segment(lab: &mut Lab, master: &str) {
    for line in [
        &format!(
            "ip link add red-l2 address 00:00:00:11:11:10 type bridge && ip link set red-l2 addrgenmode none {master}"
        ),
        "ip link add vxlan20 type vxlan id 20 local 10.0.0.1 dstport 4789 nolearning",
        "ip link set vxlan20 addrgenmode none master red-l2 && ip link set red-l2 up && ip link set vxlan20 up",
        "ip link add vnet0 type veth peer name guest && ip link set vnet0 master red-l2 up",
    ] {
        lab.must(line);
    }
}

const REGISTER: &str = "bridge fdb replace 52:54:00:03:82:d8 dev vnet0 master static && \
    ip neigh replace 10.1.0.60 lladdr 52:54:00:03:82:d8 dev red-l2 nud permanent";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn an_endpoint_comes_and_goes() {
    let Some(mut lab) = Lab::start("endpoint", BGP) else { return };
    let mut frr = lab.frr();
    let (mac, ip) = guest();
    segment(&mut lab, "");
    lab.must("ip neigh replace 10.1.0.60 lladdr 52:54:00:03:82:d8 dev red-l2 nud permanent");
    let until = soon();
    while frr.mac(vni(20), mac).unwrap() != MacState::Auto && Instant::now() < until {}
    let look = frr.advertised(vni(20), mac, &[ip]).unwrap();
    assert_eq!(look.problem().as_deref(), Some("zebra has addresses of 52:54:00:03:82:d8 but not the MAC itself"));
    assert_eq!(look.ips[0].state, ArpState::Inactive { mac });
    lab.must(REGISTER);
    let look = frr.wait_advertised(vni(20), mac, &[ip], soon()).unwrap();
    assert!(look.complete(), "{look:?}");
    assert!(matches!(&look.state, MacState::Local { port, sticky: false, .. } if port == "vnet0"));
    assert_eq!(frr.dump(vni(20)).unwrap().advertised(mac, &[ip]), look);
    let other: IpAddr = "10.1.0.61".parse().unwrap();
    let look = frr.wait_advertised(vni(20), mac, &[ip, other], Instant::now()).unwrap();
    assert_eq!(look.problem().as_deref(), Some("zebra does not know 10.1.0.61"));
    lab.must("ip neigh del 10.1.0.60 dev red-l2 && bridge fdb del 52:54:00:03:82:d8 dev vnet0 master");
    let until = soon();
    while frr.dump(vni(20)).unwrap() != Default::default() && Instant::now() < until {}
    assert_eq!(frr.dump(vni(20)).unwrap(), Default::default());
}

/// RFC 9047 §2: with the R flag of its entry, and without it again.
#[test]
fn an_ipv6_router_is_told_as_one() {
    let Some(mut lab) = Lab::start("router", BGP) else { return };
    segment(&mut lab, "");
    lab.must("bridge fdb replace 52:54:00:03:82:d8 dev vnet0 master static");
    let dir = lab.dir.display().to_string();
    let routes = format!("VTYSH_HISTFILE=/dev/null vtysh --vty_socket {dir} -c 'show bgp l2vpn evpn route type 2'");
    for word in ["", "router", ""] {
        let entry = "fd00:1::60 lladdr 52:54:00:03:82:d8 dev red-l2 nud permanent";
        lab.must(&format!("ip neigh replace {entry} {word}"));
        let until = soon();
        loop {
            let told = lab.run(&routes).1;
            if told.contains("[fd00:1::60]") && told.contains("ND:Router Flag") == (word == "router") {
                break;
            }
            assert!(Instant::now() < until, "{word:?}: {told}");
        }
    }
}

/// The VRF's devices, as the planner orders them.
fn devices(lab: &mut Lab) {
    lab.must("ip link add red type vrf table 10 && ip link set red up");
    lab.must("ip link add red-l3 type bridge && ip link set red-l3 addrgenmode none master red");
    lab.must("ip link add vxlan10 type vxlan id 10 local 10.0.0.1 dstport 4789 nolearning");
    lab.must("ip link set vxlan10 addrgenmode none master red-l3 && ip link set red-l3 up && ip link set vxlan10 up");
}

fn no_devices(lab: &mut Lab) {
    lab.must("ip link del red; ip link del vxlan10; ip link del red-l3");
}

fn up(frr: &mut Frr, red: &Vrf) {
    let until = soon();
    while frr.vrf(&red.name).unwrap().bgp_vni != 10 {
        assert!(Instant::now() < until, "{:?}", frr.vrf(&red.name));
    }
}

#[test]
fn with_devices_in_the_lawful_order() {
    let Some(mut lab) = Lab::start("lawful", BGP) else { return };
    if !lab.has_vrf_devices() {
        return;
    }
    let (mut frr, red) = (lab.frr(), vrf("red", 10));
    let (mac, ip) = guest();
    for first in [true, false, true, false] {
        let mut added = Added::default();
        if first {
            added = frr.configure(&red).unwrap();
        }
        devices(&mut lab);
        segment(&mut lab, "master red");
        lab.must(REGISTER);
        added = added.with(&frr.configure(&red).unwrap());
        up(&mut frr, &red);
        assert!(frr.vrf(&red.name).unwrap().up);
        assert_eq!(frr.vni(vni(20)).unwrap().unwrap().vrf, "red");
        assert!(frr.wait_advertised(vni(20), mac, &[ip], soon()).unwrap().complete());
        frr.unconfigure(&red, &added).unwrap();
        assert_eq!(frr.vrf(&red.name).unwrap(), Default::default());
        lab.must("ip link del vxlan20; ip link del red-l2; ip link del vnet0");
        no_devices(&mut lab);
    }
}

/// The law that is broken here: the VRF device goes first. It is a race inside FRR, so it may also go well.
#[test]
fn with_devices_gone_first_and_mended() {
    let Some(mut lab) = Lab::start("unlawful", BGP) else { return };
    if !lab.has_vrf_devices() {
        return;
    }
    let (mut frr, red) = (lab.frr(), vrf("red", 10));
    let mut stale = 0;
    for _ in 0..5 {
        let added = frr.configure(&red).unwrap();
        assert!(added.vni);
        devices(&mut lab);
        up(&mut frr, &red);
        no_devices(&mut lab);
        match frr.unconfigure(&red, &added) {
            Ok(()) => continue,
            Err(SpeakerError::Stale { vni: 10, .. }) => stale += 1,
            Err(error) => panic!("{error}"),
        }
        // As sync does: the device again, then the same order as always.
        lab.must("ip link add red type vrf table 10");
        frr.unconfigure(&red, &added).unwrap();
        assert_eq!(frr.vrf(&red.name).unwrap(), Default::default());
        lab.must("ip link del red");
    }
    eprintln!("{stale} of 5 had to be mended");
}
