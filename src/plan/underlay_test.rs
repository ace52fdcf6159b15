//! Hosts as people cable them, and the MTU that their tenants get.

use super::*;
use crate::plan::fixture::link;

fn nic(name: &str, index: u32, kind: &str, mtu: u32) -> Link {
    Link { mtu, ours: false, ..link(name, index, LinkKind::Other(kind.into())) }
}

fn address(index: u32, net: &str) -> Address {
    Address { index, net: net.parse().unwrap(), global: !net.starts_with("fe80"), lent: false }
}

/// VTEP on lo, a management NIC of 1500 and two NICs of 9216 into the fabric, which have link-local addresses alone (BGP unnumbered); WireGuard,
/// Cilium's veth, and a veth of a routed container.
fn host() -> (Vec<Link>, Vec<Address>) {
    let links = vec![
        nic("lo", 1, "", 65536),
        nic("mgmt", 2, "", 1500),
        nic("eth1", 3, "", 9216),
        nic("eth2", 4, "", 9216),
        nic("wg0", 5, "wireguard", 1420),
        nic("cilium_host", 6, "veth", 1500),
        nic("vethc1", 7, "veth", 1300),
    ];
    let nets = ["10.20.0.5/24", "fe80::1/64", "fe80::2/64", "10.99.0.1/24", "10.0.5.1/32", "fe80::3/64"];
    let mut addresses = vec![address(1, "10.0.0.1/32")];
    addresses.extend(nets.iter().zip(2..).map(|(net, index)| address(index, net)));
    (links, addresses)
}

#[track_caller]
fn carry(ways: Ways, expected: &[&str], settled: bool, mtu: u32) {
    let (links, addresses) = host();
    let vtep = "10.0.0.1".parse().ok();
    let found = carriers(vtep, links.iter(), addresses.iter(), &ways);
    let names: Vec<&str> = found.devices.iter().map(|l| l.name.as_str()).collect();
    assert_eq!((names.as_slice(), found.settled, found.tenants_mtu(vtep)), (expected, settled, mtu));
}

#[test]
fn tunnels_leave_by_the_devices_of_routes_that_bgp_learned() {
    let default = [2].into();
    carry(Ways { hosts: [3, 4].into(), default, ..Ways::default() }, &["eth1", "eth2"], true, 9166);
}

#[test]
fn a_fabric_that_tells_a_default_route_alone_is_told_by_it() {
    carry(Ways { learned: [3].into(), default: [2, 3].into(), ..Ways::default() }, &["eth1"], true, 9166);
}

#[test]
fn static_routes_count_once_another_vtep_is_known() {
    carry(Ways { peers: [4].into(), default: [2].into(), ..Ways::default() }, &["eth2"], true, 9166);
}

#[test]
fn before_any_route_to_another_vtep_it_is_a_guess() {
    carry(Ways { default: [2].into(), ..Ways::default() }, &["mgmt"], false, 1450);
    carry(Ways::default(), &["mgmt", "eth1", "eth2", "wg0", "cilium_host", "vethc1"], false, 1250);
}

#[test]
fn routes_leaked_out_of_a_tenants_vrf_carry_no_tunnel() {
    let (mut links, addresses) = host();
    links.push(Link { ours: true, ..link("red", 20, LinkKind::Vrf { table: 10.try_into().unwrap() }) });
    links.push(Link { ours: false, master: Some(20), ..nic("red-l2", 21, "bridge", 9166) });
    let ways = Ways { hosts: [3, 20, 21].into(), ..Ways::default() };
    let found = carriers("10.0.0.1".parse().ok(), links.iter(), addresses.iter(), &ways);
    assert_eq!(found.devices.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["eth1"]);
}

#[test]
fn the_vteps_own_device_carries_alone_unless_it_is_a_loopback() {
    let (links, mut addresses) = host();
    addresses[0] = address(2, "10.20.0.9/24");
    let ways = Ways { hosts: [3].into(), ..Ways::default() };
    let found = carriers("10.20.0.9".parse().ok(), links.iter(), addresses.iter(), &ways);
    assert_eq!((found.devices[0].name.as_str(), found.devices.len(), found.settled), ("mgmt", 1, true));
}

#[test]
fn without_a_vtep_the_tunnels_are_taken_to_be_of_ipv4() {
    let (links, addresses) = host();
    let ways = Ways { hosts: [3].into(), ..Ways::default() };
    assert_eq!(carriers(None, links.iter(), addresses.iter(), &ways).tenants_mtu(None), 9166);
    let wide = Carriers { devices: links[2..3].to_vec(), settled: true };
    assert_eq!(wide.tenants_mtu("fd00::1".parse().ok()), 9146);
}
