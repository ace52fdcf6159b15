//! What a network's plan is, word for word, for each state that a host may be in.

use super::*;
use crate::plan::fixture::*;
use crate::plan::rules::{Kind, Rule};
use crate::plan::shown;

#[track_caller]
fn plans(network: &Network, seen: &Seen, expected: &str) {
    assert_eq!(shown(&up(&want(network), seen).unwrap()), expected);
}

#[track_caller]
fn refuses(network: &Network, seen: &Seen, words: &str) {
    assert_eq!(up(&want(network), seen).unwrap_err().to_string(), words);
}

const HOST: &str = "sysctl -w net.ipv4.ip_forward=1
sysctl -w net.ipv6.conf.eth0.accept_ra=2
sysctl -w net.ipv6.conf.all.forwarding=1
ip rule (and ip -6), at preference 0: l3mdev iif lo ipproto tcp sport 179 prohibit; l3mdev; table local
";
const VRF: &str = "ip link add red type vrf table 10
ip route add unreachable default metric 4278198272 table 10 (and ip -6)
ip link set red up
vtysh: add vrf red vni 10, router bgp vrf red
ip link add red-l3 address 02:45:0a:00:00:01 type bridge stp_state 0 vlan_default_pvid 0
ip link set red-l3 master red
sysctl -w net.ipv4.conf.red-l3.rp_filter=2
ip link add vxlan10 type vxlan id 10 local 10.0.0.1 dstport 4789 nolearning
ip link set vxlan10 master red-l3
bridge link set dev vxlan10 learning off neigh_suppress on
ip link set red-l3 up
ip link set vxlan10 up
";
const VXLAN: &str = "ip link add vxlan20 type vxlan id 20 local 10.0.0.1 dstport 4789 nolearning
ip link set vxlan20 master red-l2
bridge link set dev vxlan20 learning off neigh_suppress on
";

#[test]
fn a_fresh_host_and_libvirts_bridge() {
    let expected = format!(
        "{HOST}{VRF}ip link set red-l2 type bridge vlan_default_pvid 0
ip link set red-l2 mtu 1450
ip link set red-l2 addrgenmode none
sysctl -w net.ipv6.conf.red-l2.disable_ipv6=0
sysctl -w net.ipv6.conf.red-l2.accept_ra=0
sysctl -w net.ipv4.conf.red-l2.arp_ignore=1
{TCP}ip link set red-l2 master red
ip address replace 10.1.0.1/24 dev red-l2 nodad
ip address replace fd00:1::1/64 dev red-l2 nodad
sysctl -w net.ipv4.conf.red-l2.rp_filter=2
{VXLAN}ip link set vxlan20 up
"
    );
    plans(&red(Origin::Libvirt), &libvirts(), &expected);
}

#[test]
fn a_fresh_host_and_no_bridge() {
    let expected = format!(
        "{HOST}{VRF}ip link add red-l2 address 00:00:00:11:11:10 type bridge stp_state 0 vlan_default_pvid 0
sysctl -w net.ipv6.conf.red-l2.accept_ra=0
sysctl -w net.ipv4.conf.red-l2.arp_ignore=1
{TCP}ip link set red-l2 master red
sysctl -w net.ipv4.conf.red-l2.rp_filter=2
ip address replace 10.1.0.1/24 dev red-l2 nodad
ip address replace fd00:1::1/64 dev red-l2 nodad
{VXLAN}ip link set red-l2 up
ip link set vxlan20 up
"
    );
    plans(&red(Origin::Config), &fresh(), &expected);
    plans(&red(Origin::LibvirtBridge), &fresh(), &expected);
    let text = "network red: bridge red-l2 is not there: start the network with 'virsh net-start red'";
    refuses(&red(Origin::Libvirt), &fresh(), text);
}

#[test]
fn layer_2_alone() {
    let network = Network { vrf: None, gateway: vec![], mac: None, ..red(Origin::Config) };
    let expected = format!(
        "ip link add red-l2 address 06:45:00:00:00:14 type bridge stp_state 0 vlan_default_pvid 0
sysctl -w net.ipv6.conf.red-l2.accept_ra=0
sysctl -w net.ipv4.conf.red-l2.arp_ignore=1
{DEAF}{VXLAN}ip link set red-l2 up
ip link set vxlan20 up
"
    );
    plans(&network, &fresh(), &expected);
}

const VTEPLESS_VRF: &str = "ip link add red type vrf table 10
ip route add unreachable default metric 4278198272 table 10 (and ip -6)
ip link set red up
";

/// At boot a loopback's address may come after libvirt, from FRR even: what needs it is made with it.
#[test]
fn without_a_vtep_all_is_made_but_the_tunnels_and_they_come_with_it() {
    let network = red(Origin::Config);
    let waiting = Wanted { vtep: None, ..want(&network) };
    let expected = format!(
        "{HOST}{VTEPLESS_VRF}ip link add red-l2 address 00:00:00:11:11:10 type bridge stp_state 0 vlan_default_pvid 0
sysctl -w net.ipv6.conf.red-l2.accept_ra=0
sysctl -w net.ipv4.conf.red-l2.arp_ignore=1
{TCP}ip link set red-l2 master red
sysctl -w net.ipv4.conf.red-l2.rp_filter=2
ip address replace 10.1.0.1/24 dev red-l2 nodad
ip address replace fd00:1::1/64 dev red-l2 nodad
ip link set red-l2 up
"
    );
    assert_eq!(shown(&up(&waiting, &fresh()).unwrap()), expected);
    let half = Seen { l3_bridge: None, vxlans: vec![], speaker_has_vrf: false, ..whole() };
    assert_eq!(up(&waiting, &half).unwrap(), [], "nothing more can be done");
    let l3 = VRF.strip_prefix(VTEPLESS_VRF).unwrap();
    plans(&network, &half, &format!("{l3}{VXLAN}ip link set vxlan20 up\n"));
    // It lost its address, and somebody took the bridge out of its VRF: the tunnel that is there is put back.
    let mut out = whole();
    out.bridge.as_mut().unwrap().master = None;
    assert_eq!(up(&waiting, &out), up(&want(&network), &out));
}

/// The kernel has no IPv6 on a device with less than 1280 bytes, and nothing of it below /proc/sys.
#[test]
fn where_there_is_no_ipv6_none_of_its_settings_are_written() {
    let accepts = |mtu, change: &dyn Fn(&mut Seen)| {
        let network = Network { vrf: None, gateway: vec![], mtu: Some(mtu), ..red(Origin::Config) };
        let mut seen = Seen { host: HostSeen::default(), ..whole() };
        seen.bridge.as_mut().unwrap().master = None;
        change(&mut seen);
        shown(&up(&want(&network), &seen).unwrap()).contains("accept_ra=0")
    };
    let new = |seen: &mut Seen| (seen.bridge, seen.vxlans) = (None, Vec::new());
    assert!(accepts(1280, &new) && !accepts(1279, &new));
    assert!(!accepts(1500, &|seen| (seen.bridge, seen.vxlans, seen.no_ipv6) = (None, vec![], true)), "ipv6.disable=1");
    assert!(!accepts(1200, &|seen| seen.ignores_ra = false), "it goes with the MTU");
    let small = |seen: &mut Seen| seen.bridge.as_mut().unwrap().mtu = 1200;
    assert!(accepts(1450, &small), "it comes with the MTU, and takes advertisements");
    assert!(!accepts(1200, &small));
}

/// libvirt looks whether it may turn on IPv6 forwarding before it tells us that it has.
#[test]
fn uplinks_keep_their_router_before_libvirt_starts_the_network() {
    let network = red(Origin::Libvirt);
    let host = fresh().host;
    assert_eq!(shown(&ahead(&network, true, &host)), "sysctl -w net.ipv6.conf.eth0.accept_ra=2\n");
    assert_eq!(ahead(&network, false, &host), [], "the operator's own");
    assert_eq!(ahead(&network, true, &HostSeen { forward6: Some(true), ..host.clone() }), [], "it forwards already");
    let v4 = Network { gateway: vec![net("10.1.0.1/24")], ..network.clone() };
    assert_eq!(ahead(&v4, true, &host), []);
    assert_eq!(ahead(&Network { vrf: None, ..network }, true, &host), [], "a setting for VRFs");
}

const TCP: &str = "tc filter on red-l2 ingress prio 69: to fe80::/10 UDP and ICMPv6 alone\n";
const DEAF: &str =
    "tc qdisc add dev red-l2 clsact; tc filter add dev red-l2 ingress prio 69 bpf da bytecode '1,6 0 0 2'\n";

/// The host takes part in a network of its own wish: with an address there, or on a bridge that it had before.
#[test]
fn whose_bridge_the_host_does_not_hear() {
    let flat = |origin| Network { vrf: None, gateway: vec![], ..red(origin) };
    let here = |bridge_addresses: &[&str], deaf, ours: bool| {
        let hears = if deaf { Hears::Nothing } else { Hears::All };
        let mut seen = Seen { bridge_addresses: bridge_addresses.iter().map(|a| net(a)).collect(), hears, ..whole() };
        seen.bridge.as_mut().unwrap().master = None;
        if !ours {
            seen.made.remove(&name("red-l2"));
        }
        seen
    };
    let hears = "tc filter del dev red-l2 ingress prio 69\n";
    plans(&flat(Origin::Config), &here(&[], false, true), DEAF);
    plans(&flat(Origin::Config), &here(&[], true, true), "");
    plans(&flat(Origin::Libvirt), &here(&[], false, false), DEAF);
    for origin in [Origin::Config, Origin::LibvirtBridge] {
        let mut seen = here(&[], false, false);
        seen.arp_own = false;
        plans(&flat(origin), &seen, "");
    }
    plans(&flat(Origin::Config), &here(&["10.9.0.5/24"], true, true), hears);
    plans(&flat(Origin::Config), &here(&["10.9.0.5/24"], false, true), "");
    let gateway = Network { gateway: vec![net("10.9.0.1/24")], ..flat(Origin::Config) };
    plans(&gateway, &here(&["10.9.0.1/24"], true, true), hears);
}

#[test]
fn guests_reach_the_hosts_bgp_only_where_it_is_wanted() {
    let network = red(Origin::Config);
    let open = Wanted { tenant_bgp: true, ..want(&network) };
    let bgp = "l3mdev iif lo ipproto tcp sport 179 prohibit; ";
    let rule = |bgp| format!("ip rule (and ip -6), at preference 0: {bgp}l3mdev; table local\n");
    let heard = rule("") + "tc filter del dev red-l2 ingress prio 69\n";
    assert_eq!(shown(&up(&open, &whole()).unwrap()), heard);
    let rules = vec![ruled(Order::VrfsFirst { bgp_closed: false }); 2];
    let opened = Seen { host: HostSeen { rules, ..whole().host }, hears: Hears::All, ..whole() };
    assert_eq!(shown(&up(&open, &opened).unwrap()), "");
    assert_eq!(shown(&up(&want(&network), &opened).unwrap()), rule(bgp) + TCP);
    let not_ours = Wanted { manage_host: false, ..want(&network) };
    assert_eq!(shown(&up(&not_ours, &opened).unwrap()), TCP);
}

#[test]
fn what_the_operator_keeps_to_himself() {
    let network = red(Origin::Config);
    let not = Wanted { manage_host: false, manage_speaker: false, ..want(&network) };
    let text = shown(&up(&not, &fresh()).unwrap());
    assert!(text.starts_with("ip link add red type vrf") && !text.contains("router bgp"), "{text}");
    let ipv4 = Network { gateway: vec![net("10.1.0.1/24")], ..network };
    let text = shown(&up(&want(&ipv4), &fresh()).unwrap());
    assert!(text.contains("ip_forward") && !text.contains("forwarding") && !text.contains("accept_ra=2"), "{text}");
    let text =
        shown(&up(&want(&ipv4), &Seen { host: HostSeen { forward6: None, ..fresh().host }, ..fresh() }).unwrap());
    assert!(!text.contains("forwarding"), "{text}");
}

#[test]
fn a_vrf_without_an_l3vni() {
    let mut network = red(Origin::Config);
    network.vrf.as_mut().unwrap().vni = None;
    let text = shown(&up(&want(&network), &fresh()).unwrap());
    assert!(
        !text.contains("router bgp") && !text.contains("red-l3") && text.contains("ip link set red-l2 master red"),
        "{text}"
    );
}

#[test]
fn everything_is_there() {
    for origin in [Origin::Libvirt, Origin::LibvirtBridge, Origin::Config] {
        plans(&red(origin), &whole(), "");
    }
}

#[test]
fn half_done_states_get_what_is_missing() {
    let red = red(Origin::Config);
    let plans = |change: &dyn Fn(&mut Seen), expected: &str| {
        let mut seen = whole();
        change(&mut seen);
        plans(&red, &seen, expected);
    };
    plans(&|s| s.vrf.as_mut().unwrap().up = false, "ip link set red up\n");
    plans(&|s| s.bridge.as_mut().unwrap().up = false, "ip link set red-l2 up\n");
    plans(&|s| s.l3_bridge.as_mut().unwrap().up = false, "ip link set red-l3 up\n");
    plans(&|s| s.vxlans[0].up = false, "ip link set vxlan10 up\n");
    plans(&|s| s.vxlans[1].up = false, "ip link set vxlan20 up\n");
    let before_routes = |s: &mut Seen| (s.unreachable, s.vrf_before_routes) = (false, true);
    plans(
        &before_routes,
        "wait until FRR knows VRF red\nip route add unreachable default metric 4278198272 table 10 (and ip -6)\n",
    );
    plans(&|s| s.vrf_before_routes = true, "");
    plans(&|s| s.speaker_has_vrf = false, "vtysh: add vrf red vni 10, router bgp vrf red\n");
    plans(&|s| s.host.forward4 = false, "sysctl -w net.ipv4.ip_forward=1\n");
    plans(&|s| _ = s.host.rules[1].remove(1), &format!("{}\n", HOST.lines().last().unwrap()));
    plans(&|s| s.bridge.as_mut().unwrap().mtu = 1500, "ip link set red-l2 mtu 1450\n");
    plans(&|s| s.bridge_addresses.truncate(1), "ip address replace fd00:1::1/64 dev red-l2 nodad\n");
    plans(
        &|s| s.l3_bridge.as_mut().unwrap().master = None,
        "ip link set vxlan10 nomaster
ip link set red-l3 master red
sysctl -w net.ipv4.conf.red-l3.rp_filter=2
ip link set vxlan10 master red-l3
bridge link set dev vxlan10 learning off neigh_suppress on
",
    );
    plans(&|s| s.unreachable = false, "ip route add unreachable default metric 4278198272 table 10 (and ip -6)\n");
    plans(&|s| s.arp_own = false, "sysctl -w net.ipv4.conf.red-l2.arp_ignore=1\n");
    plans(&|s| s.ignores_ra = false, "sysctl -w net.ipv6.conf.red-l2.accept_ra=0\n");
    plans(
        &|s| s.loose.clear(),
        "sysctl -w net.ipv4.conf.red-l3.rp_filter=2\nsysctl -w net.ipv4.conf.red-l2.rp_filter=2\n",
    );
    let port = "bridge link set dev vxlan20 learning off neigh_suppress on\n";
    plans(&|s| s.vxlans[1].port.learning = Some(true), port);
    // Another tunnel end than ours cannot be told to a device that is there.
    let kind = |s: &mut Seen| {
        s.vxlans[1].kind = LinkKind::Vxlan { vni: Some(vni(20)), local: None, port: 4789, learning: false };
    };
    plans(&kind, &format!("ip link del vxlan20\n{VXLAN}ip link set vxlan20 up\n"));
    // A run that was killed while it made a bridge.
    let half = |s: &mut Seen| s.bridge.iter_mut().for_each(|b| (b.ours, b.addrgen_none) = (false, Some(false)));
    plans(&half, "ip link set red-l2 alias evpn-hook\nip link set red-l2 addrgenmode none\n");
    // A run that was killed between making a VXLAN device and enslaving it.
    plans(
        &|s| s.vxlans[0].master = None,
        "ip link set vxlan10 master red-l3\nbridge link set dev vxlan10 learning off neigh_suppress on\n",
    );
    plans(
        &|s| s.vxlans[1] = Link { up: false, ..vxlan(20, 8, None) },
        "ip link set vxlan20 master red-l2
bridge link set dev vxlan20 learning off neigh_suppress on
ip link set vxlan20 up
",
    );
    plans(&|s| s.vxlans.truncate(1), &format!("{VXLAN}ip link set vxlan20 up\n"));
}

#[test]
fn what_contradicts_is_refused() {
    let red = red(Origin::Config);
    let refuses = |change: &dyn Fn(&mut Seen), words: &str| {
        let mut seen = whole();
        change(&mut seen);
        refuses(&red, &seen, &format!("network red: {words}"));
    };
    let other = |dev: &str| Some(link(dev, 90, LinkKind::Other("veth".into())));
    let aware = "bridge red-l2 is VLAN-aware: take macTableManager='libvirt' out of the network's XML, or vlan_filtering off the bridge";
    refuses(
        &|s| s.bridge.as_mut().unwrap().kind = LinkKind::Bridge { vlan_filtering: true, default_pvid: 1, stp: false },
        aware,
    );
    refuses(&|s| s.bridge = other("red-l2"), "device red-l2 is there and is not a bridge: use another bridge name");
    refuses(&|s| s.vrf = other("red"), "device red is there and is not a VRF: use another VRF name");
    refuses(&|s| s.vrf = Some(vrf("red", 5, 12)), "VRF red is there with table 12, not 10: make the two agree");
    refuses(&|s| s.vrfs.push(vrf("mine", 51, 10)), "table 10 is VRF mine's already: give VRF red another");
    refuses(
        &|s| s.table_has = Some("default via 192.0.2.254 dev eth1".into()),
        "routing table 10 has a route that is not VRF red's: 'default via 192.0.2.254 dev eth1': give the VRF another table, or delete the route",
    );
    refuses(
        &|s| {
            s.host.rules[1]
                .insert(0, Rule { preference: 0, protocol: 0, kind: Kind::Other("0: from all lookup 7".into()) })
        },
        "routing rule '0: from all lookup 7' would be asked before the VRFs: add it again with 'preference 1' or more, and delete this one",
    );
    refuses(&|s| s.l3_bridge = other("red-l3"), "device red-l3 is there and is not a bridge: rename it, or the VRF");
    refuses(
        &|s| s.bridge.as_mut().unwrap().master = Some(50),
        "bridge red-l2 is in blue already, not in VRF red: 'ip link set red-l2 nomaster' or name that VRF",
    );
    refuses(
        &|s| s.l3_bridge.as_mut().unwrap().master = Some(50),
        "bridge red-l3 is in blue already, not in VRF red: 'ip link set red-l3 nomaster' or rename the VRF",
    );
    refuses(
        &|s| s.vxlans[1].master = Some(99),
        "VNI 20 is already used by vxlan20 on bridge the device with index 99 and wanted as vxlan20 on red-l2: use another VNI, or delete that device",
    );
    refuses(
        &|s| s.vxlans[1].name = name("mine"),
        "VNI 20 is already used by mine on bridge red-l2 and wanted as vxlan20 on red-l2: use another VNI, or delete that device, or rename it: 'ip link set mine down; ip link set mine name vxlan20 up'",
    );
    refuses(
        &|s| s.vxlans[0].master = None.or(Some(7)),
        "VNI 10 is already used by vxlan10 on bridge red-l2 and wanted as vxlan10 on red-l3: use another VNI, or delete that device",
    );
    let foreign = |s: &mut Seen| {
        s.made.clear();
        s.vxlans[1].kind = LinkKind::Vxlan { vni: Some(vni(20)), local: None, port: 4789, learning: false };
    };
    refuses(
        &foreign,
        "vxlan20 is there, not made by evpn-hook, and not as wanted (local 10.0.0.1, dstport 4789, nolearning): delete it, or use another VNI",
    );
    for dev in ["vxlan10", "vxlan20"] {
        let words = format!("device {dev} is there and is not a VXLAN device: rename it, or use another VNI");
        refuses(&|s| s.strangers = vec![name(dev)], &words);
    }
}

#[test]
fn what_contradicts_without_a_vrf() {
    let flat = Network { vrf: None, ..red(Origin::Config) };
    refuses(
        &flat,
        &whole(),
        "network red: bridge red-l2 has a master already (red) but the network names no VRF: name it, or 'ip link set red-l2 nomaster'",
    );
    let aware = Network { vlan_aware: true, ..flat };
    assert!(
        precheck(&aware, &fresh()).unwrap_err().to_string().starts_with("network red: bridge red-l2 is VLAN-aware")
    );
    let mut twice = red(Origin::Config);
    twice.vni = vni(10);
    assert_eq!(
        precheck(&twice, &fresh()).unwrap_err().to_string(),
        "network red: VNI 10 is both its own and VRF red's: they must differ"
    );
}

const DOWN_L3: &str = "ip link set red-l3 down
ip link set vxlan10 nomaster
vtysh: remove vrf red vni 10, router bgp vrf red
ip link del vxlan10
ip link del red-l3
";
const DOWN_VRF: &str = "ip route del unreachable default metric 4278198272 table 10 (and ip -6)\nip link del red\n";

#[test]
fn down_takes_what_is_ours() {
    let network = red(Origin::Config);
    let vrf = network.vrf.as_ref().unwrap();
    let (all, none) = (whole().made, BTreeSet::new());
    let but = |dev: &str| all.iter().filter(|n| n.as_str() != dev).cloned().collect::<BTreeSet<_>>();
    let last = |made, speaker_has_ours| Some(OurVrf { vrf, made, speaker_has_ours, deaf: false, unreachable: false });
    let (no_vrf, l2) = (but("red"), but("red-l2"));
    let (put, nothing) = (Before { entered: true, ..Before::default() }, Before::default());
    let ours = Ours { network: &network, made: &all, before: &put, last_in: last(&all, true), l3_mtu: None };
    let plans = |ours: &Ours, seen: &Seen, expected: &str| assert_eq!(shown(&down(ours, seen)), expected);
    let made = "ip link del vxlan20\nip link del red-l2\n";
    plans(&ours, &whole(), &format!("{made}{DOWN_L3}{DOWN_VRF}"));
    plans(&Ours { last_in: None, ..ours.clone() }, &whole(), made);
    plans(&Ours { last_in: last(&no_vrf, true), ..ours.clone() }, &whole(), &format!("{made}{DOWN_L3}"));
    let foreign = Seen { vrf_foreign_slaves: vec![name("mine")], ..whole() };
    plans(&ours, &foreign, &format!("{made}{DOWN_L3}"));
    let quiet = Ours { last_in: last(&all, false), ..ours.clone() };
    plans(
        &quiet,
        &whole(),
        &format!("{made}ip link set red-l3 down\nip link del vxlan10\nip link del red-l3\n{DOWN_VRF}"),
    );
    // libvirt's bridge leaves the VRF with its addresses; libvirt deletes it.
    let moved = "ip link set red-l2 nomaster
ip address replace 10.1.0.1/24 dev red-l2 nodad
ip address replace fd00:1::1/64 dev red-l2 nodad
";
    let heard = "tc filter del dev red-l2 ingress prio 69\n";
    plans(
        &Ours { made: &l2, ..ours.clone() },
        &whole(),
        &format!("ip link del vxlan20\n{moved}{heard}{DOWN_L3}{DOWN_VRF}"),
    );
    // What a script made stays, where it was.
    let script = Ours { made: &none, before: &nothing, last_in: last(&none, false), ..ours.clone() };
    let heard = Seen { hears: Hears::All, ..whole() };
    plans(&script, &heard, "");
    plans(&Ours { before: &put, ..script }, &heard, moved);
    // What routes between the others is as large as the largest of those.
    let smaller = "ip link set red-l3 mtu 1400\nip link set vxlan10 mtu 1400\n";
    plans(&Ours { last_in: None, l3_mtu: Some(1400), ..ours.clone() }, &whole(), &format!("{made}{smaller}"));
    // What has gone is skipped.
    plans(&ours, &Seen::default(), "vtysh: remove vrf red vni 10, router bgp vrf red\n");
    let gone = Seen { bridge: None, vxlans: vec![vxlan(10, 9, Some(6))], ..whole() };
    plans(&ours, &gone, &format!("{DOWN_L3}{DOWN_VRF}"));
    let flat = Network { vrf: None, ..network.clone() };
    plans(&Ours { network: &flat, last_in: None, ..ours }, &whole(), made);
}

#[test]
fn the_router_mac_is_the_vteps_own() {
    let mac = |vtep: &str| router_mac(vtep.parse().unwrap()).to_string();
    assert_eq!(mac("10.0.0.1"), "02:45:0a:00:00:01");
    assert_eq!(mac("fd00::1"), mac("fd00:0::1"));
    assert_ne!(mac("fd00::1"), mac("fd00::2"));
}

#[test]
fn f06_stp_is_off_unless_the_metadata_wants_it() {
    let (on, off) = ("ip link set red-l2 type bridge stp_state 1\n", "ip link set red-l2 type bridge stp_state 0\n");
    let runs = |stp| {
        let mut seen = whole();
        seen.bridge.as_mut().unwrap().kind = LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp };
        seen
    };
    let wants = |origin| Network { stp: true, ..red(origin) };
    for origin in [Origin::Libvirt, Origin::LibvirtBridge, Origin::Config] {
        plans(&red(origin), &runs(true), off);
        plans(&red(origin), &runs(false), "");
        plans(&wants(origin), &runs(true), "");
        plans(&wants(origin), &runs(false), on);
    }
    // Before its first port, and put back where the start fails.
    let mut fresh = libvirts();
    fresh.bridge.as_mut().unwrap().kind = LinkKind::Bridge { vlan_filtering: false, default_pvid: 1, stp: true };
    let plan = up(&want(&red(Origin::Libvirt)), &fresh).unwrap();
    let at = |words: &str| plan.iter().position(|p| p.step.to_string().starts_with(words)).expect(words);
    let stp = at("ip link set red-l2 type bridge stp_state 0");
    assert!(stp < at("ip link set vxlan20 master red-l2"), "{}", shown(&plan));
    assert_eq!(plan[stp].undo, [Step::SetStp { bridge: name("red-l2"), on: true }]);
    // A bridge of ours starts without.
    let plan = shown(&up(&want(&wants(Origin::Config)), &super::super::fixture::fresh()).unwrap());
    assert!(plan.contains(&format!("type bridge stp_state 0 vlan_default_pvid 0\n{on}")), "{plan}");
}

#[test]
fn f06_a_bridge_that_somebody_else_made_keeps_its_stp() {
    for stp in [true, false] {
        let mut theirs = whole();
        theirs.made.remove(&name("red-l2"));
        let bridge = theirs.bridge.as_mut().unwrap();
        (bridge.ours, bridge.kind) = (false, LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp });
        for wanted in [true, false] {
            plans(&Network { stp: wanted, ..red(Origin::Config) }, &theirs, "");
            plans(&Network { stp: wanted, ..red(Origin::LibvirtBridge) }, &theirs, "");
        }
    }
}

#[test]
fn a_bridge_that_is_given_no_mac_has_the_same_on_every_host() {
    assert_eq!(gateway_mac(vni(20)).to_string(), "06:45:00:00:00:14");
    assert_eq!(gateway_mac(vni(0xff_ffff)).to_string(), "06:45:00:ff:ff:ff");
}
