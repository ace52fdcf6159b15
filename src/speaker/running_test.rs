//! bgpd's running configurations, as FRR 8.4.4 printed them.

use super::*;

const RED: &str = include_str!("../../tests/golden/speaker/bgpd-running-red.txt");
const OWN: &str = include_str!("../../tests/golden/speaker/bgpd-running-own.txt");
const VIEW: &str = include_str!("../../tests/golden/speaker/bgpd-running-view.txt");

#[test]
fn the_default_instance_and_a_vrf() {
    let running = parse(RED);
    assert_eq!(running.instances.len(), 2);
    assert_eq!(running.evpn().unwrap().asn, 64512);
    assert!(running.advertises_all_vni());
    let red = running.vrf("red").unwrap();
    assert_eq!(red.asn, 64512);
    assert_eq!(
        red.lines,
        [
            ("ipv4 unicast", "redistribute connected"),
            ("ipv6 unicast", "redistribute connected"),
            ("l2vpn evpn", "advertise ipv4 unicast"),
            ("l2vpn evpn", "advertise ipv6 unicast"),
        ]
        .map(|(family, line)| (family.to_owned(), line.to_owned()))
    );
    assert_eq!(running.vrf("re"), None);
}

#[test]
fn lines_with_more_behind_them() {
    let running = parse(OWN);
    let red = running.vrf("red").unwrap();
    assert!(red.has("ipv4 unicast", "redistribute connected"));
    assert!(!red.has("ipv6 unicast", "redistribute connected"));
    assert!(red.has("", "bgp router-id"));
    assert!(!red.has("", "bgp router"));
}

#[test]
fn views_are_no_vrfs() {
    let running = parse(VIEW);
    assert_eq!(running.vrf("vv"), None);
    assert_eq!(running.instances.len(), 1);
}

#[test]
fn dotted_numbers_and_evpn_in_a_vrf() {
    let running = parse(concat!(
        "router bgp 1.10 as-notation dot\nexit\n!\n",
        "router bgp 64999 vrf fabric as-notation plain\n !\n address-family l2vpn evpn\n  advertise-all-vni\n",
        "  vni 20\n   rd 1:1\n  exit-vni\n exit-address-family\nexit\n",
    ));
    assert_eq!(running.instances[0].asn, 65546);
    assert_eq!(running.evpn().unwrap().asn, 64999);
    assert_eq!(running.vrf("fabric").unwrap().lines.len(), 4);
}

#[test]
fn nothing_configured() {
    for text in
        ["", "frr version 8.4.4\n!\nhostname h1\n!\n", "router bgp\n", "router bgp many\n foo\n", "router bgp 1.2.3\n"]
    {
        let running = parse(text);
        assert_eq!(running.evpn(), None, "{text}");
        assert!(!running.advertises_all_vni());
    }
}

#[test]
fn what_is_configured_for_import() {
    let running = parse(concat!(
        "router bgp 64512\n !\n address-family l2vpn evpn\n  advertise-all-vni\n  vni 20\n   route-target import 64512:999\n",
        "   route-target export 1:1\n  exit-vni\n  vni 21\n   route-target both 1:21\n  exit-vni\n exit-address-family\nexit\n",
        "router bgp 64512 vrf red\n !\n address-family l2vpn evpn\n  advertise ipv4 unicast\n  route-target import 64512:10\n",
        " exit-address-family\nexit\n",
    ));
    let evpn = running.evpn().unwrap();
    assert_eq!(evpn.imports(Some(20)), ["64512:999"]);
    assert_eq!(evpn.imports(Some(21)), ["1:21"]);
    assert_eq!((evpn.imports(Some(22)), evpn.imports(None)), (vec![], vec![]));
    assert_eq!(running.vrf("red").unwrap().imports(None), ["64512:10"]);
    assert_eq!(running.vrf("red").unwrap().imports(Some(20)), [""; 0]);
}
