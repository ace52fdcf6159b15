//! A host with one routed network and one guest, as it should be.

use super::{Facts, Finding, HostFacts, Severity};
use super::{
    bridges::BridgeFacts, fabric::FabricFacts, firewall::FirewallFacts, frr_files::FrrFiles, hooks::HookFacts,
};
use super::{host::KernelFacts, speaker::SpeakerFacts, underlay::UnderlayFacts};
use crate::config::{Config, Network, Origin, Vrf};
use crate::model::{Address, Guest, GuestKind, Source};
use crate::plan::fixture;
use crate::plan::seen::{Address as LinkAddress, Fdb, Link, LinkKind, Neigh, PortFlags, World};
use crate::register::{Endpoint, GuestRecord, NetworkRecord, Stage};
use crate::speaker::{Instance, Peer, Running, VniInfo, VniKind, VrfInfo};
use std::collections::{BTreeMap, BTreeSet};

pub const MAC: &str = "52:54:00:03:82:d8";
pub const GATEWAY: &str = "00:00:00:11:11:10";

/// The one finding: its check, how bad it is, and its mend.
#[track_caller]
pub fn only(found: &[Finding]) -> (&'static str, Severity, &str) {
    assert_eq!(found.len(), 1, "{found:#?}");
    (found[0].check, found[0].severity, &found[0].mend)
}

pub fn link(name: &str, index: u32, master: Option<u32>, kind: LinkKind) -> Link {
    Link { master, mtu: 8950, port: PortFlags::default(), ..fixture::link(name, index, kind) }
}

fn vxlan(vni: u32, index: u32, master: u32) -> Link {
    Link { mtu: 8950, ..fixture::vxlan(vni, index, Some(master)) }
}

/// red: VRF 2, L3 bridge 3 with vxlan10 4, bridge 5 with vxlan20 6 and tap 7; the underlay's device 8.
pub fn links() -> Vec<Link> {
    let bridge = || LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: false };
    let mut red = link("red-l2", 5, Some(2), bridge());
    red.mac = GATEWAY.parse().ok();
    let mut uplink = link("uplink", 8, None, LinkKind::Other(String::new()));
    (uplink.mtu, uplink.ours) = (9000, false);
    vec![
        link("lo", 1, None, LinkKind::Other(String::new())),
        link("red", 2, None, LinkKind::Vrf { table: 10.try_into().unwrap() }),
        link("red-l3", 3, Some(2), bridge()),
        vxlan(10, 4, 3),
        red,
        vxlan(20, 6, 5),
        link("tap0", 7, Some(5), LinkKind::Other("tun".into())),
        uplink,
    ]
}

pub fn world(links: Vec<Link>) -> World {
    let address = |index, net: &str| LinkAddress { index, net: net.parse().unwrap(), global: true, lent: false };
    let addresses = vec![address(1, "10.0.0.1/32"), address(5, "10.1.0.1/24"), address(8, "192.168.0.1/24")];
    let fdb = Fdb { mac: MAC.parse().unwrap(), port: 7, is_static: true, ext_learned: false };
    let ip = "10.1.0.60".parse().unwrap();
    let neigh = Neigh { ip, mac: MAC.parse().ok(), permanent: true, ext_learned: false, ours: true, router: false };
    World::new(links, addresses).with_entries(vec![(5, fdb)], vec![(5, neigh)])
}

pub fn network() -> Network {
    Network {
        name: "red".parse().unwrap(),
        origin: Origin::Config,
        bridge: "red-l2".parse().unwrap(),
        vni: 20.try_into().unwrap(),
        vrf: Some(Vrf { name: "red".parse().unwrap(), table: 10.try_into().unwrap(), vni: 10.try_into().ok() }),
        gateway: vec!["10.1.0.1/24".parse().unwrap()],
        mac: GATEWAY.parse().ok(),
        mtu: Some(8950),
        port_security: None,
        vlan_aware: false,
        stp: false,
        hosts: BTreeMap::new(),
        described: None,
    }
}

pub const RR: &str = "c0d1:ffff::201";

pub fn evpn_lines(lines: &[&str]) -> Vec<(String, String)> {
    lines.iter().map(|line| ("l2vpn evpn".to_owned(), (*line).to_owned())).collect()
}

impl SpeakerFacts {
    pub(crate) fn healthy() -> SpeakerFacts {
        let instance = |vrf: Option<&str>, text: &[&str]| Instance {
            asn: 64512,
            vrf: vrf.map(str::to_owned),
            lines: evpn_lines(text),
        };
        let info = VniInfo {
            kind: VniKind::L2,
            vrf: "red".into(),
            vxlan: Some("vxlan20".into()),
            svi: Some("red-l2".into()),
            up: None,
            entries: 4,
            vteps: BTreeSet::new(),
        };
        SpeakerFacts {
            unheard: None,
            running: Running {
                instances: vec![
                    instance(None, &[&format!("neighbor {RR} activate"), "advertise-all-vni"]),
                    instance(Some("red"), &["advertise ipv4 unicast"]),
                ],
            },
            vnis: [(20.try_into().unwrap(), info)].into(),
            vrfs: [("red".parse().unwrap(), VrfInfo { vni: 10, up: true, bgp: true, bgp_vni: 10 })].into(),
            peers: vec![Peer { name: RR.into(), state: "Established".into(), received: 4, sent: 5 }],
        }
    }
}

/// All that the checks go by.
pub fn facts() -> Facts {
    Facts {
        host: host(),
        kernel: KernelFacts::healthy(),
        underlay: UnderlayFacts::healthy(),
        firewall: FirewallFacts::healthy(),
        bridges: BridgeFacts::healthy(),
        speaker: Some(SpeakerFacts::healthy()),
        fabric: FabricFacts::healthy(),
        files: FrrFiles::default(),
        hooks: HookFacts::healthy(),
    }
}

pub fn record() -> NetworkRecord {
    NetworkRecord {
        network: network(),
        vtep: "10.0.0.1".parse().ok(),
        port: None,
        unsettled: false,
        made: BTreeSet::new(),
        before: None,
    }
}

pub fn endpoint() -> Endpoint {
    Endpoint {
        network: "red".parse().unwrap(),
        bridge: "red-l2".parse().unwrap(),
        device: "tap0".parse().unwrap(),
        mac: MAC.parse().ok(),
        ips: vec![Address::new("10.1.0.60".parse().unwrap(), Source::Manual)],
        enslaved: true,
        stage: Stage::Registered,
        port_security: crate::config::PortSecurity::Off,
        index: None,
        taken: Vec::new(),
        slowed: Vec::new(),
        beside: Vec::new(),
    }
}

pub fn host() -> HostFacts {
    let guest = Guest::new(GuestKind::Manual, "one", "one").unwrap();
    HostFacts {
        config: Config::default(),
        networks: vec![record()],
        guests: vec![GuestRecord { endpoints: vec![endpoint()], ..GuestRecord::new(guest) }],
        world: world(links()),
        unheard: None,
        drift: Vec::new(),
        troubles: Vec::new(),
    }
}
