use super::*;

fn vrf(vni: Option<u32>) -> Vrf {
    Vrf { name: "red".parse().unwrap(), table: 10.try_into().unwrap(), vni: vni.map(|vni| vni.try_into().unwrap()) }
}

#[test]
fn the_stanzas() {
    let golden = include_str!("../../tests/golden/speaker/stanzas-red.conf");
    assert_eq!(stanzas(&vrf(Some(10)), Some(64512)), golden);
    let unknown = stanzas(&vrf(Some(10)), None);
    assert!(unknown.contains("router bgp AS vrf red\n") && unknown.contains("! replace AS"), "{unknown}");
}

#[test]
fn a_vrf_without_l3vni_needs_nothing() {
    let plain = vrf(None);
    assert!(stanzas(&plain, Some(64512)).lines().all(|line| line.starts_with('!')));
    assert!(Added::whole(&plain).is_empty());
    assert!(add(&plain, 64512, &Added::whole(&plain)).is_empty());
}

#[test]
fn only_what_is_missing_is_added() {
    let red = vrf(Some(10));
    let missing = Added { vni: false, bgp: false, lines: vec![BgpLine::AdvertiseIpv4] };
    let lines = [
        "router bgp 64512 vrf red",
        "address-family l2vpn evpn",
        "advertise ipv4 unicast",
        "exit-address-family",
        "exit",
    ];
    assert_eq!(add(&red, 64512, &missing), lines);
}

#[test]
fn the_whole_in_and_out() {
    let red = vrf(Some(10));
    let whole = Added::whole(&red);
    let lines = add(&red, 64512, &whole);
    assert_eq!(lines[..4], ["vrf red", "vni 10", "exit-vrf", "router bgp 64512 vrf red"]);
    assert_eq!(lines.len(), 3 + 1 + 3 + 3 + 4 + 1);
    assert_eq!(remove(&red, 64512, &whole), ["vrf red", "no vni 10", "exit-vrf", "no router bgp 64512 vrf red"]);
    let lines = remove(&red, 64512, &Added { bgp: false, ..whole });
    assert!(lines.contains(&"no advertise ipv6 unicast".to_owned()));
    assert!(!lines.iter().any(|line| line.starts_with("no router")));
}

#[test]
fn added_survives_being_written_down_and_adds_up() {
    let red = vrf(Some(10));
    let text = serde_json::to_string(&Added::whole(&red)).unwrap();
    assert_eq!(
        text,
        r#"{"vni":true,"bgp":true,"lines":["ipv4-connected","ipv6-connected","advertise-ipv4","advertise-ipv6"]}"#
    );
    assert_eq!(serde_json::from_str::<Added>(&text).unwrap(), Added::whole(&red));
    assert_eq!(serde_json::from_str::<Added>("{}").unwrap(), Added::default());
    let part = Added { lines: vec![BgpLine::AdvertiseIpv6, BgpLine::Ipv4Connected], ..Added::default() };
    assert_eq!(part.with(&Added::whole(&red)), Added::whole(&red));
}
