//! A bridge that is kept as its network says, taken over, refused, and given back.

use super::*;
use crate::config::Vrf;
use crate::plan::fixture::*;
use crate::plan::{network, shown};

fn flat(origin: Origin) -> Network {
    Network { vrf: None, gateway: vec![net("10.1.0.1/24")], ..red(origin) }
}

/// Somebody else's bridge, as it was made.
fn theirs() -> Seen {
    let kind = LinkKind::Bridge { vlan_filtering: false, default_pvid: 1, stp: false };
    let bridge =
        Link { mtu: 1500, mac: Some(mac("02:00:00:00:00:77")), addrgen_none: Some(false), ..link("red-l2", 7, kind) };
    let settings = [
        ("net/ipv6/conf/red-l2/accept_ra", "1"),
        ("net/ipv6/conf/red-l2/disable_ipv6", "1"),
        ("net/ipv4/conf/red-l2/arp_ignore", "0"),
        ("net/ipv4/conf/red-l2/rp_filter", "1"),
    ];
    let settings = settings.map(|(path, value)| (path.to_owned(), value.to_owned())).into();
    let host = whole().host;
    Seen {
        bridge: Some(bridge),
        bridge_ipv6_off: true,
        settings,
        host,
        found: Some(Found::default()),
        ..Seen::default()
    }
}

fn with(found: Found, addresses: &[&str]) -> Seen {
    Seen { found: Some(found), bridge_addresses: addresses.iter().map(|a| net(a)).collect(), ..theirs() }
}

#[track_caller]
fn refuses(network: &Network, seen: &Seen, words: &str) {
    let refusal = network::up(&want(network), seen).unwrap_err().to_string();
    assert_eq!(refusal, format!("network red: {words}: give the network a bridge of its own, by another name"));
}

#[test]
fn the_hosts_own_lan_is_no_tenants() {
    let of = |kind: &str| Found { ports: vec![link("p0", 20, LinkKind::Other(kind.to_owned()))], ..Found::default() };
    for network in [flat(Origin::Config), flat(Origin::LibvirtBridge), red(Origin::Config), red(Origin::LibvirtBridge)]
    {
        for (kind, word) in [("", "hardware"), ("bond", "bond"), ("vlan", "vlan"), ("macvlan", "macvlan")] {
            let words = format!(
                "bridge red-l2 has port p0 ({word}), which is no guest's: two hosts on that wire would be a loop through the tunnel"
            );
            refuses(&network, &with(of(kind), &[]), &words);
        }
        for kind in ["tun", "veth"] {
            network::up(&want(&network), &with(of(kind), &["10.1.0.1/24"])).unwrap();
        }
        let tunnel = Found { ports: vec![vxlan(20, 8, Some(7))], ..Found::default() };
        network::up(&want(&network), &with(tunnel, &[])).unwrap();
        let words = "bridge red-l2 has this host's own address 192.0.2.10/24, and guests would reach the host by it, or in a VRF nobody would";
        refuses(&network, &with(Found::default(), &["10.1.0.1/24", "192.0.2.10/24"]), words);
        let way_out = Found { has_default_route: true, ..Found::default() };
        refuses(&network, &with(way_out, &["10.1.0.1/24"]), "this host's default route leaves by bridge red-l2");
        // One that is up already, and got an address since.
        let up = Seen { found: None, before: Some(Before::default()), ..with(Found::default(), &["192.0.2.10/24"]) };
        network::up(&want(&network), &up).unwrap();
    }
    // In its VRF it is a tenant's already, whatever addresses it has there.
    let red = red(Origin::Config);
    let mut in_vrf = Seen { found: Some(Found::default()), ..whole() };
    in_vrf.made.clear();
    in_vrf.bridge_addresses.push(net("10.1.9.1/24"));
    network::up(&want(&red), &in_vrf).unwrap();
}

/// Up, kept in a record, and down again.
fn there_and_back(network: &Network, seen: &Seen) -> (Before, String) {
    let plan = network::up(&want(network), seen).unwrap();
    let before = remember(&want(network), seen, &plan);
    // As the plan leaves it.
    let mut after = whole();
    after.bridge = seen.bridge.clone().map(|b| Link {
        mtu: 1450,
        mac: network.mac,
        addrgen_none: Some(true),
        kind: LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: false },
        master: network.vrf.as_ref().map(|_| 5),
        ..b
    });
    after.bridge_addresses = [seen.bridge_addresses.clone(), network.gateway.clone()].concat();
    after.bridge_addresses.dedup();
    after.settings =
        [("accept_ra", "6", "0"), ("disable_ipv6", "6", "0"), ("arp_ignore", "4", "1"), ("rp_filter", "4", "2")]
            .map(|(key, family, value)| (format!("net/ipv{family}/conf/red-l2/{key}"), value.to_owned()))
            .into();
    let back = shown(&given_back(network, &before, &after));
    (before, back)
}

#[test]
fn what_up_changed_down_puts_back() {
    let (before, back) = there_and_back(&red(Origin::Config), &theirs());
    assert_eq!(
        back,
        "ip address del 10.1.0.1/24 dev red-l2
ip address del fd00:1::1/64 dev red-l2
ip link set red-l2 nomaster
tc filter del dev red-l2 ingress prio 69
ip link set red-l2 address 02:00:00:00:00:77
ip link set red-l2 mtu 1500
ip link set red-l2 type bridge vlan_default_pvid 1
ip link set red-l2 addrgenmode eui64
sysctl -w net.ipv4.conf.red-l2.arp_ignore=0
sysctl -w net.ipv4.conf.red-l2.rp_filter=1
sysctl -w net.ipv6.conf.red-l2.accept_ra=1
sysctl -w net.ipv6.conf.red-l2.disable_ipv6=1
"
    );
    // In the register it is found again.
    let text = serde_json::to_string(&before).unwrap();
    assert_eq!(serde_json::from_str::<Before>(&text).unwrap(), before);
    assert_eq!(serde_json::to_string(&Before::default()).unwrap(), "{}");
}

// A bridge that has its MAC from its ports has none without them, and the kernel refuses it a VLAN then.
#[test]
fn its_vlan_is_put_back_while_it_has_a_port() {
    let network = Network { mac: None, ..flat(Origin::Config) };
    let seen = theirs();
    let plan = network::up(&want(&network), &seen).unwrap();
    let joins = plan.iter().find(|p| p.step.to_string() == "ip link set vxlan20 master red-l2").unwrap();
    let undo: Vec<String> = joins.undo.iter().map(ToString::to_string).collect();
    assert_eq!(undo, ["ip link set red-l2 type bridge vlan_default_pvid 1", "ip link set vxlan20 nomaster"]);
    let before = remember(&want(&network), &seen, &plan);
    let mut up = Seen { made: [name("vxlan20")].into(), vxlans: vec![vxlan(20, 8, Some(7))], ..theirs() };
    up.bridge.as_mut().unwrap().kind = LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: false };
    let made = up.made.clone();
    let ours = network::Ours { network: &network, made: &made, before: &before, last_in: None, l3_mtu: None };
    let plan = shown(&network::down(&ours, &up));
    assert!(plan.starts_with("ip link set red-l2 type bridge vlan_default_pvid 1\nip link del vxlan20\n"), "{plan}");
    // What a killed run left: refused for ever, it would never be given back.
    let bridge = up.bridge.as_mut().unwrap();
    bridge.mac = None;
    assert!(!shown(&given_back(&network, &before, &up)).contains("vlan_default_pvid"));
}

#[test]
fn what_it_may_learn_is_bounded_where_nobody_did() {
    let network = red(Origin::Config);
    let with = |most| {
        let mut seen = theirs();
        seen.bridge.as_mut().unwrap().max_learned = most;
        seen
    };
    for (most, bounded) in [(Some(0), true), (Some(100), false), (Some(100_000), false), (None, false)] {
        let seen = with(most);
        let plan = network::up(&want(&network), &seen).unwrap();
        let undo: Vec<_> =
            plan.iter().filter(|p| matches!(p.step, Step::SetMaxLearned { .. })).map(shown_undo).collect();
        let wanted = "ip link set red-l2 type bridge fdb_max_learned 5120, else ip link set red-l2 type bridge fdb_max_learned 0";
        assert_eq!(undo, [wanted][..usize::from(bounded)], "{most:?}");
        let before = remember(&want(&network), &seen, &plan);
        assert_eq!(before.unbounded, bounded);
        let back = |now| shown(&given_back(&network, &before, &with(now))).contains("fdb_max_learned 0\n");
        assert_eq!((back(Some(MAX_LEARNED)), back(Some(0)), back(Some(7))), (bounded, false, false), "{most:?}");
    }
    // One of ours is no memory of somebody's.
    let ours = Seen { made: [name("red-l2")].into(), ..with(Some(0)) };
    let plan = network::up(&want(&network), &ours).unwrap();
    assert!(shown(&plan).contains("fdb_max_learned 5120") && !remember(&want(&network), &ours, &plan).unbounded);
}

fn shown_undo(planned: &Planned) -> String {
    let undo: Vec<String> = planned.undo.iter().map(ToString::to_string).collect();
    format!("{}, else {}", planned.step, undo.join(", "))
}

#[test]
fn what_was_so_before_stays() {
    let network = red(Origin::Config);
    let (before, back) = there_and_back(&network, &with(Found::default(), &["10.1.0.1/24"]));
    assert_eq!(before.addresses, [net("fd00:1::1/64")].into());
    assert!(back.starts_with("ip address del fd00:1::1/64 dev red-l2\nip link set red-l2 nomaster\nip address replace 10.1.0.1/24 dev red-l2 nodad\n"), "{back}");
    // In a VRF that an operator made.
    let mut seen = Seen { found: Some(Found::default()), ..whole() };
    seen.made.clear();
    assert_eq!(there_and_back(&network, &seen).0, Before::default());
    // libvirt takes its own addresses off its own bridge.
    let libvirts = red(Origin::Libvirt);
    let seen = Seen { bridge_addresses: vec![], before: Some(Before::default()), ..whole() };
    let plan = network::up(&want(&libvirts), &seen).unwrap();
    assert!(
        shown(&plan).contains("ip address replace 10.1.0.1/24")
            && remember(&want(&libvirts), &seen, &plan) == Before::default()
    );
}

#[test]
fn the_first_memory_wins() {
    let first = Before { mtu: Some(1500), mac: Some(mac("02:00:00:00:00:77")), ..Before::default() };
    let mut seen = Seen { before: Some(first.clone()), made: Default::default(), ..whole() };
    seen.bridge.as_mut().unwrap().mac = Some(mac("00:00:00:11:11:10"));
    let network = Network { mtu: Some(8950), mac: Some(mac("00:00:00:11:11:99")), ..red(Origin::Config) };
    let plan = network::up(&Wanted { l3_mtu: Some(1450), ..want(&network) }, &seen);
    // Its VXLANs are nobody's of ours here, and fit all the same.
    let plan = plan.unwrap();
    assert_eq!(
        shown(&plan),
        "ip link set red-l2 mtu 8950\nip link set red-l2 address 00:00:00:11:11:99\nip link set vxlan20 mtu 8950\n"
    );
    assert_eq!(remember(&want(&network), &seen, &plan), first);
}

#[test]
fn a_lost_register_knows_that_it_put_it_there() {
    let network = red(Origin::Config);
    let mut seen = whole();
    seen.made.remove(&name("red-l2"));
    assert!(remember(&want(&network), &seen, &Plan::new()).entered);
    seen.made.remove(&name("red"));
    assert!(!remember(&want(&network), &seen, &Plan::new()).entered, "in a VRF of the operator's");
}

#[test]
fn a_network_that_is_up_takes_over() {
    let plans = |network: &Network, change: &dyn Fn(&mut Seen), expected: &str| {
        let addresses = [net("10.1.0.1/24"), net("fd00:1::1/64")].into();
        let mut seen = Seen { before: Some(Before { entered: true, addresses, ..Before::default() }), ..whole() };
        seen.bridge.as_mut().unwrap().mac = network.mac;
        change(&mut seen);
        assert_eq!(shown(&network::up(&want(network), &seen).unwrap()), expected);
    };
    let red = red(Origin::Config);
    plans(&red, &|_| {}, "");
    plans(
        &Network { mtu: Some(8950), ..red.clone() },
        &|_| {},
        "ip link set red-l3 mtu 8950\nip link set vxlan10 mtu 8950\nip link set red-l2 mtu 8950\nip link set vxlan20 mtu 8950\n",
    );
    let other = |seen: &mut Seen| seen.bridge.as_mut().unwrap().mac = Some(mac("00:00:00:11:11:99"));
    plans(&red, &other, "ip link set red-l2 address 00:00:00:11:11:10\n");
    plans(&Network { mac: None, ..red.clone() }, &other, "ip link set red-l2 address 06:45:00:00:00:14\n");
    let not_made = |seen: &mut Seen| {
        other(seen);
        seen.made.remove(&name("red-l2"));
    };
    plans(&Network { mac: None, ..red.clone() }, &not_made, "");
    // Those that were put there go; others stay, also those that the kernel takes along.
    plans(
        &Network { gateway: vec![net("10.1.0.254/24")], ..red.clone() },
        &|s| s.bridge_addresses.extend([net("10.1.0.7/24"), net("192.0.2.1/32")]),
        "ip address del 10.1.0.1/24 dev red-l2
ip address del fd00:1::1/64 dev red-l2
ip address replace 10.1.0.7/24 dev red-l2 nodad
ip address replace 10.1.0.254/24 dev red-l2 nodad
",
    );
    let theirs = |s: &mut Seen| s.before.as_mut().unwrap().addresses.clear();
    plans(&Network { gateway: vec![], ..red }, &theirs, "");
    // The last gateway of a network without VRF is no wish to hear it any more.
    let silent = Network { gateway: vec![], ..flat(Origin::Config) };
    let hears = |s: &mut Seen| {
        (s.bridge.as_mut().unwrap().master, s.hears) = (None, Hears::All);
        s.bridge_addresses.truncate(1);
    };
    let deaf = "tc qdisc add dev red-l2 clsact; tc filter add dev red-l2 ingress prio 69 bpf da bytecode '1,6 0 0 2'\n";
    plans(&silent, &hears, &format!("{deaf}ip address del 10.1.0.1/24 dev red-l2\n"));
}

#[test]
fn a_vrf_without_l3vni_has_no_pair_to_be_as_large() {
    let mut network = red(Origin::Config);
    network.vrf = network.vrf.map(|vrf| Vrf { vni: None, ..vrf });
    network.mtu = Some(8950);
    let plan = shown(&network::up(&want(&network), &whole()).unwrap());
    assert_eq!(plan, "ip link set red-l2 mtu 8950\nip link set vxlan20 mtu 8950\n");
}

// net.ipv6.conf.default.disable_ipv6=1, or libvirt's own way with a bridge that has no IPv6 address.
#[test]
fn on_a_small_mtu_there_is_no_ipv6_to_turn_on() {
    let network = Network { mtu: Some(1200), ..flat(Origin::Config) };
    for seen in [theirs(), Seen { bridge: None, found: None, ..theirs() }] {
        let plan = shown(&network::up(&want(&network), &seen).unwrap());
        assert!(!plan.contains("ipv6") && !plan.contains("addrgenmode"), "{plan}");
    }
}
