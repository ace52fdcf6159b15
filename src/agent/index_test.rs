use super::*;
use crate::config::{Network, Origin, Vrf};
use crate::model::{Address, Source};
use crate::plan::fixture;
use crate::plan::seen::LinkKind;
use crate::register::Endpoint;

const VM1: &str = "libvirt-1";
const BRIDGE: u32 = 2;
const VXLAN: u32 = 3;
const TAP: u32 = 10;
const OTHER_TAP: u32 = 11;

fn mac() -> Mac {
    "52:54:00:03:82:d8".parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn declared(text: &str) -> Address {
    Address::new(ip(text), Source::Metadata)
}

fn link(index: u32, name: &str, master: Option<u32>) -> Link {
    Link { master, ..fixture::link(name, index, LinkKind::Other(String::new())) }
}

fn guest(stage: Stage) -> GuestRecord {
    GuestRecord {
        guest: Guest::new(GuestKind::Libvirt, "vm1", "1").unwrap(),
        incoming_since: None,
        endpoints: vec![Endpoint {
            taken: Vec::new(),
            slowed: Vec::new(),
            beside: Vec::new(),
            network: "red".parse().unwrap(),
            bridge: "red-l2".parse().unwrap(),
            device: "vnet0".parse().unwrap(),
            mac: Some(mac()),
            ips: vec![declared("10.1.0.60"), declared("fd00:1::60")],
            enslaved: false,
            stage,
            port_security: crate::config::PortSecurity::Off,
            index: None,
        }],
        hook: None,
        leaving: Vec::new(),
    }
}

fn network(vrf: bool) -> NetworkRecord {
    let network = Network {
        name: "red".parse().unwrap(),
        origin: Origin::Config,
        bridge: "red-l2".parse().unwrap(),
        vni: 20.try_into().unwrap(),
        vrf: vrf.then(|| Vrf {
            name: "red".parse().unwrap(),
            table: 10.try_into().unwrap(),
            vni: Some(10.try_into().unwrap()),
        }),
        gateway: Vec::new(),
        mac: None,
        mtu: None,
        port_security: None,
        vlan_aware: false,
        stp: false,
        hosts: BTreeMap::new(),
        described: None,
    };
    NetworkRecord {
        network,
        vtep: Some(ip("10.0.0.1")),
        port: None,
        unsettled: false,
        made: Default::default(),
        before: None,
    }
}

/// A network with its bridge and VXLAN device, a guest on its tap, and another's tap.
fn index(stage: Stage) -> Index {
    let mut index = Index::default();
    index.put_links(vec![
        link(BRIDGE, "red-l2", None),
        link(VXLAN, "vxlan20", Some(BRIDGE)),
        link(TAP, "vnet0", Some(BRIDGE)),
        link(OTHER_TAP, "vnet1", Some(BRIDGE)),
    ]);
    index.put_network("red-l2", Some(&network(true)));
    assert_eq!(index.put_guest(VM1, Some(&guest(stage))), Record::Changed);
    index
}

fn fdb(port: u32) -> Event {
    Event::Fdb { mac: mac(), port, master: BRIDGE, gone: false, is_static: true, ext_learned: false }
}

fn fdb_gone(port: u32) -> Event {
    Event::Fdb { mac: mac(), port, master: BRIDGE, gone: true, is_static: true, ext_learned: false }
}

fn claim(port: u32) -> Event {
    Event::Fdb { mac: mac(), port, master: BRIDGE, gone: false, is_static: false, ext_learned: true }
}

fn neigh(gone: bool, permanent: bool, ext_learned: bool) -> Event {
    Event::Neigh { ip: ip("10.1.0.60"), mac: Some(mac()), index: BRIDGE, gone, permanent, ext_learned, router: false }
}

fn vm1(why: Why) -> Vec<Look> {
    vec![Look::Guest(VM1.into(), why)]
}

fn red(why: Why) -> Vec<Look> {
    vec![Look::Network("red".parse().unwrap(), why)]
}

fn linked(index: u32, name: &str, master: Option<u32>, up: bool) -> Event {
    Event::Link { index, name: name.parse().unwrap(), master, up }
}

#[test]
fn what_is_as_it_should_be_is_no_reason_to_look() {
    let mut index = index(Stage::Registered);
    for event in [fdb(TAP), neigh(false, true, false), linked(TAP, "vnet0", Some(BRIDGE), true)] {
        assert_eq!(index.react(&event), [], "{event:?}");
    }
}

#[test]
fn a_lost_entry_is_a_reason() {
    let mut index = index(Stage::Registered);
    for event in [fdb_gone(TAP), fdb_gone(VXLAN), neigh(true, false, false), neigh(false, false, false)] {
        assert_eq!(index.react(&event), vm1(Why::Lost), "{event:?}");
    }
    let dynamic =
        Event::Fdb { mac: mac(), port: TAP, master: BRIDGE, gone: false, is_static: false, ext_learned: false };
    assert_eq!(index.react(&dynamic), vm1(Why::Lost), "it would age");
    let mine = Event::Neigh {
        ip: ip("fd00:1::60"),
        mac: Some("52:54:00:00:00:09".parse().unwrap()),
        index: BRIDGE,
        gone: false,
        permanent: true,
        ext_learned: false,
        router: false,
    };
    assert_eq!(index.react(&mine), vm1(Why::Lost), "somebody else's MAC");
    assert_eq!(index.react(&fdb(OTHER_TAP)), vm1(Why::Lost), "moved within the host");
}

#[test]
fn another_vteps_claim_is_told_from_a_loss() {
    let mut index = index(Stage::Registered);
    for event in [claim(VXLAN), fdb(VXLAN), neigh(false, false, true)] {
        assert_eq!(index.react(&event), vm1(Why::Taken), "{event:?}");
    }
}

#[test]
fn others_entries_are_nobodys_business() {
    let mut index = index(Stage::Registered);
    let other = "52:54:00:00:00:01".parse().unwrap();
    for event in [
        Event::Fdb { mac: other, port: TAP, master: BRIDGE, gone: true, is_static: true, ext_learned: false },
        Event::Fdb { mac: mac(), port: TAP, master: OTHER_TAP, gone: true, is_static: true, ext_learned: false },
        Event::Fdb { mac: mac(), port: TAP, master: 99, gone: true, is_static: true, ext_learned: false },
        Event::Neigh {
            ip: ip("10.1.0.61"),
            mac: None,
            index: BRIDGE,
            gone: true,
            permanent: false,
            ext_learned: false,
            router: false,
        },
        Event::Neigh {
            ip: ip("10.1.0.60"),
            mac: None,
            index: TAP,
            gone: true,
            permanent: false,
            ext_learned: false,
            router: false,
        },
        linked(50, "vnet7", Some(BRIDGE), true),
        Event::LinkGone { index: 50 },
        Event::LinkGone { index: 51 },
        Event::Address { index: TAP, gone: true },
        Event::Address { index: BRIDGE, gone: false },
    ] {
        assert_eq!(index.react(&event), [], "{event:?}");
    }
}

#[test]
fn a_guest_on_its_way_is_left_alone_until_its_own_tap_hears_it() {
    let mut index = index(Stage::Incoming);
    for event in [claim(VXLAN), fdb_gone(VXLAN), neigh(true, false, false), neigh(false, false, true)] {
        assert_eq!(index.react(&event), [], "{event:?}");
    }
    let heard = Event::Fdb { mac: mac(), port: TAP, master: BRIDGE, gone: false, is_static: false, ext_learned: false };
    assert_eq!(index.react(&heard), vm1(Why::Arrived));
    assert_eq!(index.react(&fdb(TAP)), vm1(Why::Arrived));
    assert_eq!(index.react(&claim(TAP)), vm1(Why::Arrived), "the speaker's flag stays on an entry that moves");
    assert_eq!(index.put_guest(VM1, Some(&guest(Stage::Registered))), Record::Arrived);
    assert_eq!(index.react(&claim(VXLAN)), vm1(Why::Taken));
}

#[test]
fn a_mac_on_another_port_of_its_own_guest_is_no_reason() {
    let mut index = index(Stage::Registered);
    assert_eq!(index.react(&fdb(OTHER_TAP)), vm1(Why::Lost), "somebody else's port");
    let mut bonded = guest(Stage::Registered);
    bonded.endpoints[0].beside = vec!["vnet1".parse().unwrap()];
    index.put_guest(VM1, Some(&bonded));
    assert_eq!(index.react(&fdb(OTHER_TAP)), []);
    assert_eq!(index.react(&fdb_gone(OTHER_TAP)), vm1(Why::Lost), "with the NIC that was active");
    let learned =
        Event::Fdb { mac: mac(), port: OTHER_TAP, master: BRIDGE, gone: false, is_static: false, ext_learned: false };
    assert_eq!(index.react(&learned), vm1(Why::Lost), "what ages is not what FRR is told");
    assert_eq!(index.react(&claim(VXLAN)), vm1(Why::Taken));
}

#[test]
fn a_tap_that_moves_goes_down_or_goes_away_is_a_reason() {
    let mut index = index(Stage::Registered);
    assert_eq!(index.react(&linked(TAP, "vnet0", Some(BRIDGE), false)), vm1(Why::Lost));
    assert_eq!(index.react(&linked(TAP, "vnet0", Some(BRIDGE), true)), vm1(Why::Lost));
    assert_eq!(index.react(&linked(TAP, "gone0", Some(BRIDGE), true)), vm1(Why::Lost), "renamed");
    assert_eq!(index.react(&linked(TAP, "vnet0", Some(BRIDGE), true)), vm1(Why::Lost), "and back");
    assert_eq!(index.react(&Event::LinkGone { index: TAP }), vm1(Why::Lost));
    assert_eq!(index.react(&Event::LinkGone { index: TAP }), []);
    assert_eq!(index.react(&linked(12, "vnet0", Some(BRIDGE), true)), vm1(Why::Lost), "another of that name");
    assert_eq!(index.react(&fdb(12)), [], "with another index");
}

#[test]
fn a_tap_on_another_bridge_is_told_from_one_that_is_broken() {
    let mut index = index(Stage::Registered);
    assert_eq!(index.react(&linked(20, "blue-l2", None, true)), []);
    // As libvirt does it: off the one, onto the other.
    assert_eq!(index.react(&linked(TAP, "vnet0", None, true)), vm1(Why::Moved));
    assert_eq!(index.react(&fdb_gone(TAP)), vm1(Why::Moved), "its entries go with it");
    assert_eq!(index.react(&linked(TAP, "vnet0", Some(20), true)), vm1(Why::Moved));
    assert_eq!(index.react(&linked(TAP, "vnet0", Some(20), false)), vm1(Why::Moved), "still there");
    assert_eq!(index.react(&linked(TAP, "vnet0", Some(99), false)), vm1(Why::Moved), "one that nobody knows");
    assert_eq!(index.react(&linked(TAP, "vnet0", Some(BRIDGE), false)), vm1(Why::Lost), "back again");
}

#[test]
fn a_networks_devices_are_its_bridge_vxlan_and_vrf() {
    let mut index = index(Stage::Registered);
    for (n, name) in ["red-l2", "vxlan20", "red", "red-l3", "vxlan10"].into_iter().enumerate() {
        let number = 100 + u32::try_from(n).unwrap();
        assert_eq!(index.react(&linked(number, name, None, false)), red(Why::Lost), "{name}");
        assert_eq!(index.react(&Event::Port { index: number }), red(Why::Lost), "{name}");
        assert_eq!(index.react(&Event::Address { index: number, gone: true }), red(Why::Lost), "{name}");
        assert_eq!(index.react(&Event::LinkGone { index: number }), red(Why::Gone), "{name}");
    }
    assert_eq!(index.react(&Event::Rule), [Look::Host], "once for the host, however many networks are routed");
    assert_eq!(index.react(&Event::Setting { index: None }), [Look::Host]);
    assert_eq!(index.react(&Event::RouteGone { table: 10 }), red(Why::Lost));
    assert_eq!(index.react(&Event::RouteGone { table: 254 }), [], "somebody else's");
    index.put_network("red-l2", Some(&network(false)));
    assert_eq!(index.react(&Event::Rule), [], "no VRF, no rule");
    assert_eq!(index.react(&linked(77, "vxlan10", None, false)), [], "nor an L3VNI");
    index.put_network("red-l2", None);
    assert_eq!(index.react(&linked(BRIDGE, "red-l2", None, false)), []);
    assert_eq!(index.networks().count(), 0);
}

#[test]
fn events_that_were_lost_mean_everything() {
    assert_eq!(index(Stage::Registered).react(&Event::Lost), [Look::Everything]);
}

#[test]
fn a_record_replaces_what_was_known() {
    let mut index = index(Stage::Registered);
    assert_eq!(index.put_guest(VM1, Some(&guest(Stage::Registered))), Record::Same);
    assert_eq!(
        index.put_guest(VM1, Some(&guest(Stage::Pending))),
        Record::Same,
        "claimed or settled is the hook's affair"
    );
    let mut other = guest(Stage::Registered);
    other.endpoints[0].ips = vec![declared("10.1.0.61")];
    assert_eq!(index.put_guest(VM1, Some(&other)), Record::Changed);
    assert_eq!(index.react(&neigh(true, false, false)), [], "not its address any more");
    assert_eq!(index.react(&fdb_gone(TAP)), vm1(Why::Lost));
    assert_eq!(index.domain("vm1").map(|k| &**k), Some(VM1));
    assert_eq!(index.put_guest(VM1, None), Record::Changed);
    assert_eq!(index.put_guest(VM1, None), Record::Same);
    assert_eq!(index.react(&fdb_gone(TAP)), []);
    assert!(index.by_mac.is_empty() && index.by_ip.is_empty() && index.by_device.is_empty());
}

#[test]
fn two_guests_with_one_mac_are_both_looked_at() {
    let mut index = index(Stage::Registered);
    index.put_guest("manual-x", Some(&guest(Stage::Registered)));
    assert_eq!(index.react(&fdb_gone(TAP)).len(), 2);
    index.put_guest(VM1, None);
    assert_eq!(index.react(&fdb_gone(TAP)), [Look::Guest("manual-x".into(), Why::Lost)]);
}

#[test]
fn an_address_that_was_only_learned_is_the_one_who_took_its() {
    let mut index = index(Stage::Registered);
    let mut record = guest(Stage::Registered);
    record.endpoints[0].ips[0].source = Source::Neighbour;
    index.put_guest(VM1, Some(&record));
    let taken = |by: Mac| Event::Neigh {
        index: BRIDGE,
        ip: ip("10.1.0.60"),
        mac: Some(by),
        gone: false,
        permanent: false,
        ext_learned: true,
        router: false,
    };
    let other: Mac = "52:54:00:00:00:99".parse().unwrap();
    assert_eq!(index.react(&taken(other)), vm1(Why::Lost), "given up at once");
    assert_eq!(index.react(&taken(mac())), vm1(Why::Taken), "it moved with its guest");
    index.put_guest(VM1, Some(&guest(Stage::Registered)));
    assert_eq!(index.react(&taken(other)), vm1(Why::Taken), "a declared one is questioned after a hold");
}

#[test]
fn who_has_an_address_by_whoever_told_most_surely() {
    let mut index = index(Stage::Registered);
    let ip = ip("10.1.0.60");
    let port = |index: &Index| index.port(TAP).unwrap();
    let holder = |index: &Index, asks: &Port| index.holder(asks, ip).map(|(holder, of)| (holder, of.mac));
    let stranger = Port { mac: "52:54:00:00:00:99".parse().unwrap(), key: "libvirt-other".into(), ..port(&index) };
    assert_eq!(holder(&index, &port(&index)), None, "itself");
    assert_eq!(holder(&index, &stranger), Some((Holder::Here(Source::Metadata), mac())));
    assert_eq!(holder(&index, &Port { key: VM1.into(), ..stranger.clone() }), Some((Holder::Itself, mac())));
    assert_eq!(holder(&index, &Port { bridge: "blue-l2".parse().unwrap(), ..stranger.clone() }), None);
    assert_eq!(index.learned_by(BRIDGE, ip), [], "declared");
    let mut record = guest(Stage::Registered);
    record.endpoints[0].ips[0].source = Source::Neighbour;
    index.put_guest(VM1, Some(&record));
    assert_eq!(holder(&index, &stranger), Some((Holder::Here(Source::Neighbour), mac())));
    assert_eq!(index.learned_by(BRIDGE, ip).len(), 1);
    index.put_guest(VM1, Some(&guest(Stage::Incoming)));
    assert_eq!(holder(&index, &stranger), None, "it still runs elsewhere");
}

#[test]
fn a_record_that_says_what_it_said_tunes_nobody() {
    let mut index = index(Stage::Registered);
    index.take_ports();
    index.put_guest(VM1, Some(&guest(Stage::Registered)));
    assert_eq!(index.take_ports(), None);
}

#[test]
fn the_ports_of_guests_that_are_here_are_listened_on() {
    let mut index = index(Stage::Registered);
    assert_eq!(index.take_ports(), Some([(TAP, mac())].into()));
    assert_eq!(index.take_ports(), None, "nothing changed");
    assert_eq!(index.port(TAP).map(|port| (port.mac, port.has(ip("10.1.0.60")))), Some((mac(), true)));
    assert_eq!(index.port(BRIDGE), None);
    assert_eq!(index.ports_of(&"red-l2".parse().unwrap(), mac()).len(), 1);
    assert_eq!(index.ports_of(&"blue-l2".parse().unwrap(), mac()), []);
    index.put_guest(VM1, Some(&guest(Stage::Incoming)));
    assert_eq!(index.take_ports(), Some([].into()), "it still runs elsewhere");
    index.put_guest(VM1, Some(&guest(Stage::Registered)));
    index.react(&Event::LinkGone { index: TAP });
    assert_eq!(index.take_ports(), Some([].into()));
}

#[test]
fn what_zebra_kept_on_the_l3vnis_bridge_goes_with_it() {
    const L3: u32 = 5;
    const L3_VXLAN: u32 = 6;
    let router: Mac = "6a:c7:59:d6:15:c0".parse().unwrap();
    let fdb = |gone| Event::Fdb { mac: router, port: L3_VXLAN, master: L3, gone, is_static: false, ext_learned: true };
    let neigh = |gone| Event::Neigh {
        ip: ip("10.0.0.2"),
        mac: Some(router),
        index: L3,
        gone,
        permanent: false,
        ext_learned: true,
        router: false,
    };
    let known = |vrf| {
        let mut index = index(Stage::Registered);
        index.put_links(vec![
            link(L3, "red-l3", None),
            link(L3_VXLAN, "vxlan10", Some(L3)),
            link(BRIDGE, "red-l2", None),
        ]);
        index.put_network("red-l2", Some(&network(vrf)));
        index
    };
    for (event, looks) in [(fdb(true), 1), (neigh(true), 1), (fdb(false), 0), (neigh(false), 0)] {
        assert_eq!(known(true).react(&event), vec![Look::Stanzas; looks], "{event:?}");
        assert_eq!(known(false).react(&event), [], "another's bridge: {event:?}");
    }
    let of_l2 =
        Event::Fdb { mac: router, port: VXLAN, master: BRIDGE, gone: true, is_static: false, ext_learned: true };
    assert_eq!(known(true).react(&of_l2), []);
}

#[test]
fn an_address_of_the_host_is_a_reason_for_a_network_that_waits_for_its_tunnel_end() {
    let mut index = index(Stage::Registered);
    index.put_links(vec![link(1, "lo", None), link(BRIDGE, "red-l2", None), link(TAP, "vnet0", Some(BRIDGE))]);
    let came = |index| Event::Address { index, gone: false };
    assert_eq!(index.react(&came(1)), [], "it waits for none");
    index.put_network("red-l2", Some(&NetworkRecord { vtep: None, ..network(true) }));
    assert_eq!(index.react(&came(1)), red(Why::Lost));
    assert_eq!(index.react(&came(99)), red(Why::Lost), "of a device that came just now");
    for own in [BRIDGE, TAP] {
        assert_eq!(index.react(&came(own)), [], "the kernel's own, of a tenant's device");
    }
}

#[test]
fn what_another_vtep_has_is_a_reason_for_a_network_whose_mtu_is_a_guess() {
    let mut index = index(Stage::Registered);
    let far = Event::Fdb {
        mac: "52:54:00:00:00:77".parse().unwrap(),
        port: VXLAN,
        master: BRIDGE,
        gone: false,
        is_static: false,
        ext_learned: true,
    };
    assert_eq!(index.react(&far), []);
    index.put_network("red-l2", Some(&NetworkRecord { unsettled: true, ..network(true) }));
    assert_eq!(index.react(&far), red(Why::Lost));
    assert_eq!(index.react(&far), [], "asked once, the routes say what they say");
}
