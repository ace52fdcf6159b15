//! What FRR 8.4.4 printed, byte for byte, on two hosts of which the first has the guest.

use super::*;

macro_rules! golden {
    ($name:literal) => {
        json(include_str!(concat!("../../tests/golden/speaker/", $name))).unwrap()
    };
}

fn guest() -> Mac {
    "52:54:00:03:82:d8".parse().unwrap()
}

fn far() -> Option<IpAddr> {
    Some("10.0.0.1".parse().unwrap())
}

fn here() -> MacState {
    MacState::Local { port: "tap0".into(), seq: 0, sticky: false, duplicate: false }
}

#[test]
fn vnis() {
    let l2 = vni(&golden!("vni-l2.json")).unwrap();
    assert_eq!((l2.kind, l2.vrf.as_str(), l2.up), (VniKind::L2, "red", None));
    assert_eq!((l2.vxlan.as_deref(), l2.svi.as_deref(), l2.entries), (Some("vxlan20"), Some("red-l2"), 3));
    let l3 = vni(&golden!("vni-l3.json")).unwrap();
    assert_eq!((l3.kind, l3.vrf.as_str(), l3.up), (VniKind::L3, "red", Some(true)));
    assert_eq!((l3.vxlan.as_deref(), l3.svi.as_deref()), (Some("vxlan10"), Some("red-l3")));
    assert_eq!(vni(&golden!("vni-absent.json")), None);
}

#[test]
fn the_entries_of_all_vnis() {
    let text = r#"{"20":{"vni":20,"type":"L2","numMacs":3,"numArpNd":2},"10":{"vni":10,"type":"L3","numMacs":1,"numArpNd":1}}"#;
    assert_eq!(all_entries(&json(text).unwrap()), 7);
    assert_eq!(all_entries(&Value::Null), 0);
}

#[test]
fn macs_one_by_one() {
    assert_eq!(mac(&golden!("mac-local.json"), guest()), here());
    assert_eq!(mac(&golden!("mac-remote.json"), guest()), MacState::Remote { vtep: far() });
    assert_eq!(mac(&golden!("mac-auto.json"), "52:54:00:03:82:d9".parse().unwrap()), MacState::Auto);
    assert_eq!(mac(&golden!("mac-absent.json"), guest()), MacState::Absent);
    let aged = json(r#"{"52:54:00:03:82:d8":{"type":"local","intf":"tap0","localInactive":true}}"#).unwrap();
    assert_eq!(mac(&aged, guest()), MacState::Inactive { port: "tap0".into() });
}

#[test]
fn the_addresses_of_a_mac() {
    assert_eq!(addresses_of(&golden!("mac-remote.json"), guest()), [IpAddr::from([10, 1, 0, 60])]);
    assert_eq!(addresses_of(&golden!("mac-absent.json"), guest()), [] as [IpAddr; 0]);
    let none = json(r#"{"52:54:00:03:82:d8":{"type":"local","intf":"tap0","neighbors":"none"}}"#).unwrap();
    assert_eq!(addresses_of(&none, guest()), [] as [IpAddr; 0]);
}

#[test]
fn the_paths_to_one_mac_below_all_distinguishers() {
    let found = received(&golden!("rd-all-ip-remote.json"), |mac, _| mac == guest());
    assert_eq!(found.len(), 1, "{found:?}");
    let path = &found[0];
    assert_eq!((path.rd.as_str(), path.ip), ("10.0.0.1:2", Some(IpAddr::from([10, 1, 0, 60]))));
    assert_eq!((path.vtep, path.own, path.best, path.from.as_str()), (far(), false, true, "10.0.0.1"));
    assert_eq!(path.targets, ["64512:20"]);
    assert_eq!(received(&golden!("rd-all-absent.json"), |_, _| true), []);
}

#[test]
fn macs_in_bulk() {
    assert_eq!(macs(&golden!("macs.json")), BTreeMap::from([(guest(), here())]));
    assert_eq!(macs(&golden!("macs-remote.json")), BTreeMap::from([(guest(), MacState::Remote { vtep: far() })]));
    assert!(macs(&Value::Null).is_empty());
}

#[test]
fn addresses() {
    let other: Mac = "52:54:00:03:82:d9".parse().unwrap();
    assert_eq!(arp(&golden!("arp-active.json")), ArpState::Active { mac: guest() });
    assert_eq!(arp(&golden!("arp-inactive.json")), ArpState::Inactive { mac: other });
    assert_eq!(arp(&golden!("arp-remote.json")), ArpState::Remote { mac: guest(), vtep: far() });
    assert_eq!(arp(&golden!("arp-absent.json")), ArpState::Absent);
    let ips = [60, 61].map(|n| IpAddr::from([10, 1, 0, n]));
    let both =
        BTreeMap::from([(ips[0], ArpState::Active { mac: guest() }), (ips[1], ArpState::Inactive { mac: other })]);
    assert_eq!(arps(&golden!("arps.json")), both);
    assert_eq!(arps(&golden!("arps-remote.json"))[&ips[0]], ArpState::Remote { mac: guest(), vtep: far() });
}

#[test]
fn a_route_counts_only_if_it_is_our_own_and_best() {
    assert!(route(&golden!("route-mac-local.json")));
    assert!(route(&golden!("route-ip-local.json")));
    assert!(!route(&golden!("route-mac-remote.json")));
    assert!(!route(&golden!("route-absent.json")));
    let lost =
        json(r#"{"paths":[[{"valid":true,"sourced":true,"local":true}],[{"bestpath":{"overall":true}}]]}"#).unwrap();
    assert!(!route(&lost));
}

#[test]
fn routes_in_bulk() {
    let ip = Some(IpAddr::from([10, 1, 0, 60]));
    assert_eq!(routes(&golden!("routes.json")), BTreeSet::from([(guest(), None), (guest(), ip)]));
    assert!(routes(&golden!("routes-remote.json")).is_empty());
    let v6 = r#"{"[2]:[0]:[48]:[52:54:00:03:82:d8]:[128]:[fd00:1::60]":{"paths":[[{"bestpath":true,"peerId":"(unspec)"}]]}}"#;
    assert_eq!(routes(&json(v6).unwrap()), BTreeSet::from([(guest(), Some("fd00:1::60".parse().unwrap()))]));
}

/// As FRR 10.7.1 answers: addresses in one table, by address alone, and MACs in another.
#[test]
fn routes_in_two_tables() {
    let ip: IpAddr = "10.1.0.60".parse().unwrap();
    let own = r#""bestpath":true,"peerId":"(unspec)","mac":"52:54:00:03:82:d8""#;
    let far = r#""bestpath":true,"peerId":"c0d1:ffff::201","mac":"52:54:00:00:00:02""#;
    let ips = json(&format!(
        r#"{{"[2]:[0]:[48]:[00:00:00:00:00:00]:[32]:[10.1.0.60]":{{"paths":[[{{{own}}}]]}},
            "[2]:[0]:[48]:[00:00:00:00:00:00]:[32]:[10.1.0.61]":{{"paths":[[{{{far}}}]]}},"[3]:[0]:[128]:[c0d1::2]":{{}},"numPrefix":3}}"#
    ));
    let macs = json(&format!(r#"{{"[2]:[0]:[48]:[52:54:00:03:82:d8]":{{"paths":[[{{{own}}}]]}}}}"#)).unwrap();
    let ips = ips.unwrap();
    assert!(lacks_macs(&ips) && !lacks_macs(&macs) && !lacks_macs(&golden!("routes.json")));
    assert_eq!(routes(&ips), BTreeSet::from([(guest(), Some(ip))]));
    assert_eq!(routes(&macs), BTreeSet::from([(guest(), None)]));
    for (text, wanted) in [(r#"{"rd":"10.0.0.1:3"}"#, Some("10.0.0.1:3")), (r#"{"rd":"1 mac"}"#, None), ("{}", None)] {
        assert_eq!(distinguisher(&json(text).unwrap()), wanted, "{text}");
    }
}

#[test]
fn sessions_that_carry_evpn() {
    let list = peers(&golden!("evpn-summary.json"));
    let peer = Peer { name: "c0d1:ffff::201".into(), state: "Established".into(), received: 2, sent: 5 };
    assert_eq!(list, [peer]);
    assert!(list[0].is_up() && !list[0].is_shut());
    let shut = peers(&golden!("evpn-summary-shut.json"));
    assert!(shut[0].is_shut() && !shut[0].is_up(), "{shut:?}");
    assert!(peers(&Value::Null).is_empty());
}

#[test]
fn a_vnis_targets() {
    let list = || vec!["64512:20".to_owned()];
    let wanted = Targets { rd: Some("10.0.0.1:3".into()), import: list(), export: list() };
    assert_eq!(targets(&golden!("evpn-vni.json")), Some(wanted));
    // 8.4.4 answers "{}" and "{\n}" behind one another.
    let absent = include_str!("../../tests/golden/speaker/evpn-vni-absent.json");
    assert!(json(absent).is_err() && is_nothing(absent));
    assert_eq!(targets(&Value::Null), None);
}

/// As FRR 10.8 is going to answer: VNIs as strings, and the automatic target as it is compared. Made from bgp_evpn_vty.c `evpn_l2vni_fill_json`,
/// `display_rt_list` and, of a VRF, `evpn_l3vni_fill_json` at fbfc8222da (10.8.0-dev).
#[test]
fn a_vnis_targets_from_10_8_on() {
    let value = golden!("evpn-vni-master.json");
    let (import, export) = (vec!["*:20".to_owned()], vec!["64512:20".to_owned()]);
    assert_eq!(targets(&value), Some(Targets { rd: Some("10.0.0.1:3".into()), import, export }));
    assert_eq!(distinguisher(&value), Some("10.0.0.1:3"));
    let l3 = r#"{"vni":"N/A","type":"L3","inKernel":"False","rd":"10.0.0.1:2","originatorIp":"10.0.0.1","advertiseGatewayMacip":"Disabled",
        "advertiseSviMacIp":"Disabled","advertisePip":"Enabled","sysIP":"10.0.0.1","sysMac":"6a:c7:59:d6:15:c0","rmac":"6a:c7:59:d6:15:c0",
        "vniFilter":"none","importRts":["*:10","65000:9"],"exportRts":["64512:10"],"l2Vnis":[20]}"#;
    assert_eq!(targets(&json(l3).unwrap()).unwrap().import, ["*:10", "65000:9"]);
}

#[test]
fn an_own_route_and_who_got_it() {
    let mac: Mac = "00:16:3e:00:00:99".parse().unwrap();
    let ip = IpAddr::from([10, 1, 0, 99]);
    let rd = "10.0.0.1:3";
    let of_mac = announced(&golden!("rd-mac.json"), rd);
    let path = of_mac.path.unwrap();
    assert_eq!((path.mac, path.ip, path.own, path.best, path.vtep, path.seq), (mac, None, true, true, far(), 0));
    assert_eq!((path.targets, path.routed), (vec!["64512:20".to_owned()], false));
    assert_eq!(of_mac.to, ["c0d1:ffff::201"]);
    let of_ip = announced(&golden!("rd-ip.json"), rd);
    let path = of_ip.path.unwrap();
    assert_eq!((path.mac, path.ip, path.routed), (mac, Some(ip), true));
    assert_eq!(path.targets, ["64512:20", "64512:10"]);
    let held_back = announced(&golden!("rd-ip-held-back.json"), rd);
    assert!(held_back.path.is_some() && held_back.to.is_empty(), "a route map keeps it: {held_back:?}");
    assert_eq!(announced(&golden!("rd-absent.json"), rd), Announced::default());
}

#[test]
fn what_came_from_others() {
    let all = received(&golden!("macip-received.json"), |_, _| true);
    let seen: Vec<_> = all.iter().map(|p| (p.ip.map(|ip| ip.to_string()), p.routed, p.own, p.best)).collect();
    let ip = |text: &str| Some(text.to_owned());
    let wanted = [
        (None, false, false, true),
        (ip("fe80::216:3eff:fe00:99"), false, false, true),
        (ip("10.1.0.99"), true, false, true),
    ];
    assert_eq!(seen, wanted);
    assert!(all.iter().all(|p| p.rd == "10.0.0.1:3" && p.vtep == far() && p.from == "c0d1:ffff::201"), "{all:?}");
    let one = received(&golden!("macip-received.json"), |_, ip| ip == Some(IpAddr::from([10, 1, 0, 99])));
    assert_eq!(one.len(), 1);
    // As FRR 10 has addresses: by address alone, the MAC in the path; and a MAC that has moved.
    let moved = r#"{"10.0.0.2:2":{"rd":"10.0.0.2:2","[2]:[0]:[48]:[00:00:00:00:00:00]:[32]:[10.1.0.61]":{"paths":[[{"bestpath":true,
        "mac":"52:54:00:03:82:d8","peerId":"c0d1:ffff::201","extendedCommunity":{"string":"RT:64512:20 ET:8 MM:3"}}]]}},"numPrefix":1}"#;
    let moved = received(&json(moved).unwrap(), |_, _| true);
    assert_eq!((moved[0].mac, moved[0].ip, moved[0].seq), (guest(), "10.1.0.61".parse().ok(), 3));
}

#[test]
fn vrfs() {
    let up = vrf(&golden!("vrf-vni.json"), &golden!("bgp-vrfs.json"), "red");
    assert_eq!(up, VrfInfo { vni: 10, up: true, bgp: true, bgp_vni: 10 });
    let inactive = vrf(&golden!("vrf-vni-inactive.json"), &Value::Null, "red");
    assert_eq!(inactive, VrfInfo { vni: 10, up: false, bgp: false, bgp_vni: 0 });
    assert_eq!(vrf(&golden!("vrf-vni.json"), &golden!("bgp-vrfs.json"), "blue"), VrfInfo::default());
    assert_eq!(vrf_of(&golden!("vrf-vni.json"), 10.try_into().unwrap()), Some("red".into()));
    assert_eq!(vrf_of(&golden!("vrf-vni.json"), 11.try_into().unwrap()), None);
    // What a VRF device leaves behind when it goes before its configuration.
    assert!(!vrf(&Value::Null, &golden!("bgp-vrfs-ghost.json"), "red").bgp);
}

#[test]
fn router_ids() {
    let vrfs = golden!("bgp-vrfs.json");
    assert_eq!(router_id(&vrfs, None), Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(router_id(&vrfs, Some("red")), Some(Ipv4Addr::new(10, 1, 0, 1)));
    assert_eq!(router_id(&vrfs, Some("blue")), None);
    for none in [r#"{"routerId":"0.0.0.0"}"#, r#"{"routerId":"x"}"#, "{}", "7"] {
        assert_eq!(router_id(&json(&format!("{{\"vrfs\":{{\"default\":{none}}}}}")).unwrap(), None), None, "{none}");
    }
}

#[test]
fn answers_that_are_no_json() {
    for nothing in
        ["", "\n", "% VNI 20 doesn't exist\n", "% BGP instance not found\n", "No BGP process is configured\n"]
    {
        assert_eq!(json(nothing), Ok(Value::Null), "{nothing}");
    }
    for garbage in ["{", "hello", "{\"a\":1}}"] {
        assert!(json(garbage).is_err(), "{garbage}");
    }
}

#[test]
fn strange_shapes_are_nothing_and_no_panic() {
    for text in [
        "[]",
        "{\"macs\":3}",
        "{\"macs\":{\"x\":1},\"vrfs\":{\"red\":7},\"paths\":{\"a\":1}}",
        "{\"10.1.0.1\":null,\"[2]:[\":{}}",
    ] {
        let value = json(text).unwrap();
        assert_eq!(vni(&value), None);
        assert!(macs(&value).is_empty() && routes(&value).is_empty() && !route(&value));
        assert!(arps(&value).values().all(|state| *state == ArpState::Absent));
        let _ = vrf(&value, &value, "red");
        assert!(received(&value, |_, _| true).is_empty() && announced(&value, "1:1") == Announced::default());
        assert!(targets(&value).is_none() && peers(&value).is_empty());
        assert_eq!(router_id(&value, Some("red")), None);
    }
}

#[test]
fn an_interfaces_addresses() {
    let text = "Interface red-l2 is up, line protocol is up\n  vrf: red\n  HWaddr: 00:00:00:11:11:10\n  inet 10.1.0.1/24\n  \
                inet6 fd00:1::1/64\n  Interface Type Bridge\n";
    let known: Vec<String> = interface(text, "red").iter().map(ToString::to_string).collect();
    assert_eq!(known, ["10.1.0.1/24", "fd00:1::1/64"]);
    assert!(interface(text, "green").is_empty(), "still, or again, elsewhere");
    assert!(interface("% Can't find interface red-l2\n", "red").is_empty());
}

#[test]
fn versions_order_by_their_numbers() {
    for (text, wanted) in [
        (
            "FRRouting 8.4.4 (comp1) on Linux(6.1.0-42-amd64).\nCopyright 1996-2005 Kunihiro Ishiguro, et al.",
            Some(Version(8, 4)),
        ),
        ("FRRouting 10.7.1 (comp1) on Linux(6.1.0).\n", Some(Version(10, 7))),
        ("FRRouting 10.6-dev (x)", Some(Version(10, 6))),
        ("FRRouting unknown (x)", None),
        ("Quagga 1.2.4 (x)", None),
        ("", None),
    ] {
        assert_eq!(version(text), wanted, "{text}");
    }
    assert!(Version(8, 4) < Version::IPV6_VTEP && Version(10, 5) < Version::IPV6_VTEP);
    assert!(Version(10, 6) >= Version::IPV6_VTEP && Version(11, 0) >= Version::IPV6_VTEP);
}

#[test]
fn the_other_vteps_of_a_segment() {
    let two: IpAddr = "10.0.0.2".parse().unwrap();
    assert_eq!(vteps(&golden!("vni-l2.json")), [two].into());
    let later = json(r#"{"vni":20,"numRemoteVteps":1,"remoteVteps":[{"ip":"10.0.0.2","flood":"HER"}]}"#).unwrap();
    assert_eq!(vteps(&later), [two].into());
    assert!(vteps(&golden!("vni-absent.json")).is_empty());
}

#[test]
fn what_other_vteps_send() {
    let of = |targets: &str| -> BTreeSet<Received> {
        [Received { vtep: "10.0.0.1".parse().unwrap(), targets: [targets.to_owned()].into() }].into()
    };
    assert_eq!(received_targets(&golden!("routes-multicast.json")), of("64512:20"), "our own route is none of theirs");
    assert_eq!(received_targets(&golden!("routes-prefix.json")), of("64512:10"));
    assert!(received_targets(&golden!("route-absent.json")).is_empty() && received_targets(&Value::Null).is_empty());
}

#[test]
fn what_moved_too_often() {
    assert_eq!((duplicate_macs(&golden!("macs.json")), duplicate_ips(&golden!("arps.json"))), (vec![], vec![]));
    let marked = |text: &str| json(&text.replace("\"isDuplicate\":false", "\"isDuplicate\":true")).unwrap();
    assert_eq!(duplicate_macs(&marked(include_str!("../../tests/golden/speaker/macs.json"))), [guest()]);
    assert!(!duplicate_ips(&marked(include_str!("../../tests/golden/speaker/arps.json"))).is_empty());
}

#[test]
fn a_vrf_that_zebra_knows_has_an_id() {
    let text = "vrf blue inactive (configured)\nvrf red id 5 table 10\nvrf reddish id 6 table 11\n";
    assert!(has_vrf(text, "red") && has_vrf(text, "reddish"));
    assert!(!has_vrf(text, "blue") && !has_vrf(text, "re") && !has_vrf("", "red"));
}

#[test]
fn which_versions_mistake_a_table() {
    for (version, mistakes) in [((9, 0), false), ((9, 1), true), ((10, 3), true), ((10, 4), false)] {
        assert_eq!(Version(version.0, version.1).mistakes_tables(), mistakes, "{version:?}");
    }
}
