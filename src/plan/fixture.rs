//! Hosts and networks that the tests of this room begin with, and the device that all rooms' do.

use super::Hears;
use super::network::{HostSeen, Seen, Wanted};
use super::rules::{KERNEL, Kind, Order, Rule, Rules, apply, changes};
use super::seen::{Link, LinkKind, PortFlags};
use crate::config::{Network, Origin, Vrf};
use crate::model::{IfName, Mac, Vni};
use ipnet::IpNet;

pub(super) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn vni(number: u32) -> Vni {
    number.try_into().unwrap()
}

pub(super) fn red(origin: Origin) -> Network {
    let vrf = Vrf { name: name("red"), table: 10.try_into().unwrap(), vni: Some(vni(10)) };
    Network {
        name: "red".parse().unwrap(),
        origin,
        bridge: name("red-l2"),
        vni: vni(20),
        vrf: Some(vrf),
        gateway: vec![net("10.1.0.1/24"), net("fd00:1::1/64")],
        mac: "00:00:00:11:11:10".parse().ok(),
        mtu: Some(1450),
        port_security: None,
        vlan_aware: false,
        stp: false,
        hosts: Default::default(),
        described: None,
    }
}

pub(super) fn want(network: &Network) -> Wanted<'_> {
    Wanted {
        network,
        vtep: "10.0.0.1".parse().ok(),
        port: 4789,
        l3_mtu: network.mtu,
        manage_speaker: true,
        manage_host: true,
        tenant_bgp: false,
    }
}

pub(crate) fn link(dev: &str, index: u32, kind: LinkKind) -> Link {
    let name = name(dev);
    Link {
        name,
        index,
        master: None,
        link: None,
        mac: None,
        mtu: 1450,
        up: true,
        carrier: true,
        kind,
        addrgen_none: None,
        ours: true,
        port: PortFlags { learning: Some(false), neigh_suppress: Some(true), ..PortFlags::default() },
        max_learned: None,
    }
}

pub(super) fn bridge(dev: &str, index: u32) -> Link {
    link(dev, index, LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: false })
}

pub(crate) fn vxlan(number: u32, index: u32, master: Option<u32>) -> Link {
    let kind = LinkKind::Vxlan { vni: Some(vni(number)), local: "10.0.0.1".parse().ok(), port: 4789, learning: false };
    Link { master, ..link(&format!("vxlan{number}"), index, kind) }
}

pub(super) fn vrf(dev: &str, index: u32, table: u32) -> Link {
    link(dev, index, LinkKind::Vrf { table: table.try_into().unwrap() })
}

/// The kernel's own rules, put into an order.
pub(crate) fn ruled(order: Order) -> Rules {
    let mut rules = vec![Rule { preference: 0, protocol: KERNEL, kind: Kind::Local }];
    changes(&rules.clone(), order).into_iter().for_each(|change| apply(&mut rules, change));
    rules
}

/// A host that has seen no VRF yet.
pub(super) fn fresh() -> Seen {
    let rules = vec![ruled(Order::Plain { moved: false }); 2];
    let host = HostSeen { forward6: Some(false), rules, accepts_ra: vec![name("eth0")], ..HostSeen::default() };
    Seen { host, ..Seen::default() }
}

/// libvirt's bridge as `started` finds it.
pub(super) fn libvirts() -> Seen {
    let kind = LinkKind::Bridge { vlan_filtering: false, default_pvid: 1, stp: false };
    let bridge = Link { mtu: 1500, ..link("red-l2", 7, kind) };
    Seen {
        bridge: Some(bridge),
        bridge_addresses: vec![net("10.1.0.1/24"), net("fd00:1::1/64")],
        bridge_ipv6_off: true,
        ..fresh()
    }
}

/// Everything as it should be.
pub(super) fn whole() -> Seen {
    let red = vrf("red", 5, 10);
    let mut seen = Seen {
        bridge: Some(Link { master: Some(5), ..bridge("red-l2", 7) }),
        bridge_addresses: vec![net("10.1.0.1/24"), net("fd00:1::1/64")],
        vxlans: vec![vxlan(10, 9, Some(6)), vxlan(20, 8, Some(7))],
        vrfs: vec![red.clone(), vrf("blue", 50, 11)],
        vrf: Some(red),
        l3_bridge: Some(Link { master: Some(5), ..bridge("red-l3", 6) }),
        host: HostSeen {
            forward4: true,
            forward6: Some(true),
            rules: vec![ruled(Order::VrfsFirst { bgp_closed: true }); 2],
            accepts_ra: vec![],
        },
        unreachable: true,
        ignores_ra: true,
        arp_own: true,
        hears: Hears::NoLinkLocalService,
        loose: ["red-l2", "red-l3"].map(name).into(),
        made: ["red-l2", "vxlan20", "red", "red-l3", "vxlan10"].map(name).into(),
        speaker_has_vrf: true,
        ..Seen::default()
    };
    let links = seen.bridge.iter().chain(&seen.l3_bridge).chain(&seen.vrfs).chain(&seen.vxlans);
    seen.names = links.map(|l| (l.index, l.name.clone())).collect();
    seen.names.insert(50, name("blue"));
    seen
}

pub(super) fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}
