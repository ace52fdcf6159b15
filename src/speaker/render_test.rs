use super::*;

const ID: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 0, 0, 1));

fn vrf(vni: Option<u32>) -> Vrf {
    Vrf { name: "red".parse().unwrap(), table: 10.try_into().unwrap(), vni: vni.map(|vni| vni.try_into().unwrap()) }
}

#[test]
fn the_stanzas() {
    let golden = include_str!("../../tests/golden/speaker/stanzas-red.conf");
    assert_eq!(stanzas(&vrf(Some(10)), Some(64512), ID), golden);
    let unknown = stanzas(&vrf(Some(10)), None, None);
    assert!(unknown.contains("router bgp AS vrf red\n") && unknown.contains("! replace AS"), "{unknown}");
    assert!(!unknown.contains("router-id"), "{unknown}");
}

#[test]
fn a_vrf_without_l3vni_needs_nothing() {
    let plain = vrf(None);
    assert!(stanzas(&plain, Some(64512), ID).lines().all(|line| line.starts_with('!')));
    assert!(Added::whole(&plain, ID).is_empty());
    assert!(add(&plain, 64512, &Added::whole(&plain, ID)).is_empty());
}

#[test]
fn only_what_is_missing_is_added() {
    let red = vrf(Some(10));
    let missing = Added { lines: vec![BgpLine::AdvertiseIpv4], ..Added::default() };
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
    let whole = Added::whole(&red, ID);
    let lines = add(&red, 64512, &whole);
    assert_eq!(lines[..5], ["vrf red", "vni 10", "exit-vrf", "router bgp 64512 vrf red", "bgp router-id 10.0.0.1"]);
    assert_eq!(lines.len(), 3 + 2 + 3 + 3 + 4 + 1);
    assert_eq!(remove(&red, 64512, &whole), ["vrf red", "no vni 10", "exit-vrf", "no router bgp 64512 vrf red"]);
    let lines = remove(&red, 64512, &Added { bgp: false, ..whole });
    assert_eq!(lines[3..5], ["router bgp 64512 vrf red", "no bgp router-id 10.0.0.1"]);
    assert!(lines.contains(&"no advertise ipv6 unicast".to_owned()));
    assert!(!lines.iter().any(|line| line.starts_with("no router")));
}

#[test]
fn added_survives_being_written_down_and_adds_up() {
    let whole = Added::whole(&vrf(Some(10)), ID);
    let text = serde_json::to_string(&whole).unwrap();
    assert_eq!(
        text,
        r#"{"vni":true,"bgp":true,"router_id":"10.0.0.1","lines":["ipv4-connected","ipv6-connected","advertise-ipv4","advertise-ipv6"]}"#
    );
    assert_eq!(serde_json::from_str::<Added>(&text).unwrap(), whole);
    assert_eq!(serde_json::from_str::<Added>("{}").unwrap(), Added::default());
    let part = Added { lines: vec![BgpLine::AdvertiseIpv6, BgpLine::Ipv4Connected], ..Added::default() };
    assert_eq!(part.clone().with(&whole), whole);
    assert_eq!(whole.clone().with(&part), whole);
}

#[test]
fn what_is_in_one_and_not_in_the_other() {
    let all = Added::whole(&vrf(Some(10)), ID);
    let still = Added { vni: false, ..all.clone() };
    assert_eq!(all.without(&still), Added { vni: true, ..Added::default() });
    let still = Added { lines: BgpLine::ALL[2..].to_vec(), ..Added::default() };
    assert_eq!(all.without(&still), Added { lines: BgpLine::ALL[..2].to_vec(), ..all.clone() });
    assert_eq!(all.without(&Added::default()), all);
}

#[test]
fn a_router_id_that_is_put_back() {
    let (red, back) = (vrf(Some(10)), Added { router_id: ID, ..Added::default() });
    assert_eq!(add(&red, 64512, &back), ["router bgp 64512 vrf red", "bgp router-id 10.0.0.1", "exit"]);
    assert_eq!(back.clone().with(&Added::whole(&red, None)), Added::whole(&red, ID), "it is ours, too");
}

#[test]
fn what_an_older_version_wrote_down_has_no_router_id() {
    let red = vrf(Some(10));
    let text =
        r#"{"vni":true,"bgp":true,"lines":["ipv4-connected","ipv6-connected","advertise-ipv4","advertise-ipv6"]}"#;
    assert_eq!(serde_json::from_str::<Added>(text).unwrap(), Added::whole(&red, None));
    assert_eq!(serde_json::to_string(&Added::whole(&red, None)).unwrap(), text);
}

#[test]
fn an_instance_made_anew_has_the_router_id_of_today() {
    let red = vrf(Some(10));
    let today = Added::whole(&red, Some(Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!(today.clone().with(&Added::whole(&red, ID)), today);
    let none = Added::whole(&red, None);
    assert_eq!(none.clone().with(&today), none);
}
