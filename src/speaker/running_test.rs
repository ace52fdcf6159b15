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

/// FRR 8.5 and newer writes `route-target import auto`, 10.8 `auto-route-target import add-always`, in a VNI's block, too (bgp_evpn_vty.c `write_vni_config`,
/// `bgp_config_write_evpn_info`).
#[test]
fn what_is_configured_beside_the_automatic_target() {
    let of = |lines: &str| {
        let vrf = format!("router bgp 1 vrf red\n address-family l2vpn evpn\n{lines} exit-address-family\nexit\n");
        let running = parse(&vrf);
        running.vrf("red").unwrap().imports(None).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for auto in ["route-target import auto", "auto-route-target import add-always"] {
        assert_eq!(of(&format!("  route-target import 64512:9\n  {auto}\n")), [""; 0], "{auto}");
    }
    for other in ["export add-always", "import add-if-no-manual", "import add-never", "import rfc8365-compatible"] {
        let lines = format!("  route-target import 64512:9\n  auto-route-target {other}\n");
        assert_eq!(of(&lines), ["64512:9"], "{other}");
    }
    let running = parse(concat!(
        "router bgp 64512\n address-family l2vpn evpn\n  advertise-all-vni\n  vni 20\n   route-target import *:9\n",
        "   auto-route-target import add-always\n  exit-vni\n  vni 21\n   route-target import *:9\n  exit-vni\n exit-address-family\nexit\n",
    ));
    let evpn = running.evpn().unwrap();
    assert_eq!((evpn.imports(Some(20)), evpn.imports(Some(21))), (vec![], vec!["*:9"]));
}
