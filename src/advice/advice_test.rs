use super::*;
use crate::config::{Described, Vrf};
use crate::plan::fixture::link;

/// A tenant of libvirt's with nothing to advise: red.xml as it is shipped.
fn red() -> Network {
    Network {
        name: "red".parse().unwrap(),
        origin: Origin::Libvirt,
        bridge: "red-l2".parse().unwrap(),
        vni: 20.try_into().unwrap(),
        vrf: Some(Vrf { name: "red".parse().unwrap(), table: 10.try_into().unwrap(), vni: 10.try_into().ok() }),
        gateway: vec!["10.1.0.1/24".parse().unwrap()],
        mac: "00:00:00:11:11:10".parse().ok(),
        mtu: Some(1450),
        port_security: None,
        vlan_aware: false,
        stp: false,
        hosts: Default::default(),
        described: Some(Described { mtu_told: true, ..Described::default() }),
    }
}

fn bridge(stp: bool, ours: bool) -> Link {
    Link { ours, ..link("red-l2", 7, LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp }) }
}

/// What is said of red after this change, in short: which row, whether it costs traffic, and its mend.
#[track_caller]
fn said(change: impl FnOnce(&mut Network)) -> Vec<(&'static str, bool, String)> {
    let mut network = red();
    change(&mut network);
    let all = of(&network, Some(&bridge(false, false)), &BTreeSet::new());
    let is_line = |advice: &Advice| !advice.to_string().contains('\n') && advice.to_string().len() < 400;
    assert!(all.iter().all(is_line), "{all:#?}");
    all.into_iter().map(|advice| (advice.check, advice.costs, advice.mend)).collect()
}

#[track_caller]
fn only(said: &[(&'static str, bool, String)]) -> (&'static str, bool, String) {
    assert_eq!(said.len(), 1, "{said:#?}");
    said[0].clone()
}

fn described(network: &mut Network) -> &mut Described {
    network.described.get_or_insert_default()
}

#[test]
fn what_is_shipped_needs_none() {
    assert_eq!(said(|_| {}), []);
    assert_eq!(said(|n| n.described = None), [], "a record of an earlier version says nothing of it");
}

#[test]
fn f04_nat_and_isolated_in_a_vrf() {
    for mode in [Forward::Nat, Forward::Isolated] {
        let (check, costs, mend) = only(&said(|n| described(n).forward = mode));
        assert_eq!((check, costs), ("forward-mode", true));
        assert!(mend.starts_with("use <forward mode='open'/>"), "{mend}");
        assert_eq!(
            said(|n| (n.vrf, described(n).forward) = (None, mode)),
            [],
            "libvirt's own routing is not in the way"
        );
        assert_eq!(said(|n| (n.gateway, described(n).forward) = (vec![], mode)), [], "nothing is routed");
    }
}

#[test]
fn f06_stp_left_at_libvirts_default() {
    let (check, costs, mend) = only(&said(|n| described(n).stp = true));
    assert_eq!((check, costs), ("stp", false), "it is turned off");
    assert!(mend.contains("<bridge name='red-l2' stp='off' delay='0'/>") && mend.contains("stp='on'"), "{mend}");
    let (check, costs, mend) = only(&said(|n| (n.stp, described(n).stp) = (true, true)));
    assert_eq!((check, costs), ("stp", false), "somebody wants it");
    assert!(mend.starts_with("take stp='on' out of <evpn:network>"), "{mend}");
}

#[test]
fn f06_a_bridge_that_was_there_before_keeps_its_stp() {
    let theirs = Network { origin: Origin::LibvirtBridge, ..red() };
    let all = |network: &Network, bridge: &Link, made: &[&str]| {
        let made = made.iter().map(|name| name.parse().unwrap()).collect();
        of(network, Some(bridge), &made)
    };
    let advice = all(&theirs, &bridge(true, false), &[]);
    assert_eq!((advice.len(), advice[0].check, advice[0].costs), (1, "stp", true), "{advice:#?}");
    assert!(advice[0].mend.starts_with("ip link set red-l2 type bridge stp_state 0"), "{advice:#?}");
    assert_eq!(all(&theirs, &bridge(false, false), &[]), []);
    let wants = Network { stp: true, ..theirs.clone() };
    let advice = all(&wants, &bridge(false, false), &[]);
    assert!(
        advice.len() == 1 && advice[0].mend.starts_with("ip link set red-l2 type bridge stp_state 1"),
        "{advice:#?}"
    );
    let advice = all(&wants, &bridge(true, false), &[]);
    assert!(advice.len() == 1 && advice[0].mend.starts_with("take stp='on' out"), "{advice:#?}");
    assert_eq!(all(&theirs, &bridge(true, false), &["red-l2"]), [], "ours is put right: a problem, not advice");
    assert_eq!(all(&theirs, &bridge(true, true), &[]), [], "by its mark");
    assert_eq!(all(&red(), &bridge(true, false), &[]), [], "libvirt's is for this network alone");
}

#[test]
fn f31_dhcp_without_dhcp_broadcast() {
    for vrf in [red().vrf, None] {
        let (check, costs, mend) = only(&said(|n| (n.vrf, described(n).dhcp_unicast) = (vrf, true)));
        assert_eq!((check, costs), ("dhcp-broadcast", true));
        assert!(mend.contains("<dnsmasq:option value='dhcp-broadcast'/>"), "{mend}");
    }
}

#[test]
fn dnsmasqs_services_cannot_work_in_a_vrf() {
    for (dns, tftp, start) in [
        (true, false, "use <dns enable='no'/>, and name"),
        (false, true, "take <tftp> out, and name"),
        (true, true, "use <dns enable='no'/>, and take <tftp> out, and name"),
    ] {
        let change = |n: &mut Network| (described(n).dns, described(n).tftp) = (dns, tftp);
        let (check, costs, mend) = only(&said(change));
        assert_eq!((check, costs), ("libvirt-services", true));
        assert!(mend.starts_with(start), "{mend}");
        assert_eq!(said(|n| (n.vrf = None, change(n)).1), [], "outside a VRF they work");
        assert_eq!(said(|n| (n.gateway = vec![], change(n)).1), [], "without an address there is no dnsmasq");
    }
}

#[test]
fn f37_no_mac_of_the_gateway() {
    let made_up = |n: &mut Network| (n.mac, described(n).own_mac) = ("52:54:00:26:b6:08".parse().ok(), true);
    let (check, costs, mend) = only(&said(made_up));
    assert_eq!((check, costs), ("anycast-mac", false), "it may be the same everywhere");
    assert!(mend.starts_with("use <mac address='02:00:00:00:00:14'/>"), "{mend}");
    assert_eq!(said(|n| (made_up(n), n.gateway = vec![]).1), [], "no gateway, no MAC that matters");
    for origin in [Origin::Config, Origin::LibvirtBridge] {
        let without = |n: &mut Network| (n.origin, n.mac, described(n).own_mac) = (origin, None, true);
        let mut network = red();
        without(&mut network);
        let ours = ["red-l2".parse().unwrap()].into();
        assert_eq!(of(&network, Some(&bridge(false, true)), &ours), [], "ours is made from the VNI");
        assert_eq!(of(&network, None, &BTreeSet::new()), [], "it will be ours");
        let advice = of(&network, Some(&bridge(false, false)), &BTreeSet::new());
        assert_eq!((advice.len(), advice[0].check, advice[0].costs), (1, "anycast-mac", true), "{advice:#?}");
        assert!(advice[0].mend.starts_with("mac = \"02:00:00:00:00:14\""), "{advice:#?}");
    }
}

#[test]
fn an_mtu_below_1500_that_guests_are_not_told() {
    let untold = |n: &mut Network| described(n).mtu_told = false;
    let (check, costs, mend) = only(&said(untold));
    assert_eq!((check, costs), ("mtu-not-told", true));
    assert!(mend.starts_with("use <mtu size='1450'/>"), "{mend}");
    let (_, _, mend) = only(&said(|n| (untold(n), n.origin = Origin::Config).1));
    assert!(mend.ends_with("mtu = 1450 in config.toml"), "{mend}");
    for mtu in [1500, 8950] {
        assert_eq!(said(|n| (untold(n), n.mtu = Some(mtu)).1), [], "it is no less than guests begin with");
    }
}

#[test]
fn rows_are_told_in_one_order() {
    let all = said(|n| {
        n.mac = "52:54:00:00:00:01".parse().ok();
        n.described = Some(Described {
            forward: Forward::Nat,
            stp: true,
            dhcp_unicast: true,
            dns: true,
            tftp: false,
            own_mac: true,
            mtu_told: false,
        });
    });
    let checks: Vec<&str> = all.iter().map(|(check, ..)| *check).collect();
    assert_eq!(checks, ROWS.iter().map(|(check, _)| *check).collect::<Vec<_>>());
}
