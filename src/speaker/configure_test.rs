//! The decisions; what FRR makes of them is in tests/speaker.rs.

use super::*;
use crate::speaker::running::parse;

fn red() -> Instance {
    parse(include_str!("../../tests/golden/speaker/bgpd-running-red.txt")).vrf("red").unwrap().clone()
}

#[test]
fn an_instance_with_only_our_lines_is_ours() {
    let lines = |lines: &[BgpLine]| Added { lines: lines.to_vec(), ..Added::default() };
    assert!(only(&red(), &lines(&BgpLine::ALL)));
    assert!(!only(&red(), &lines(&BgpLine::ALL[1..])));
    let own = parse(include_str!("../../tests/golden/speaker/bgpd-running-own.txt"));
    assert!(!only(own.vrf("red").unwrap(), &lines(&BgpLine::ALL)));
}

#[test]
fn our_router_id_is_ours_and_another_is_the_operators() {
    let (ours, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 11));
    let mut instance = red();
    instance.lines.insert(0, (String::new(), "bgp router-id 10.0.0.1".into()));
    let added = |router_id| Added { router_id, lines: BgpLine::ALL.to_vec(), ..Added::default() };
    assert!(only(&instance, &added(Some(ours))) && identified(&instance, ours));
    assert!(!only(&instance, &added(Some(other))) && !identified(&instance, other));
    assert!(!only(&instance, &added(None)));
    assert!(only(&red(), &added(Some(ours))) && !identified(&red(), ours));
}

#[test]
fn a_line_that_the_operator_made_longer_is_the_operators() {
    let own = parse(include_str!("../../tests/golden/speaker/bgpd-running-own.txt"));
    assert!(contains(&red(), BgpLine::Ipv4Connected));
    assert!(!contains(own.vrf("red").unwrap(), BgpLine::Ipv4Connected));
}

#[test]
fn what_failed_halfway_is_the_difference() {
    let router_id = Some(Ipv4Addr::new(10, 0, 0, 1));
    let all = Added { vni: true, bgp: true, router_id, lines: BgpLine::ALL.to_vec() };
    let still = Added { vni: false, bgp: true, router_id, lines: BgpLine::ALL.to_vec() };
    assert_eq!(without(&all, &still), Added { vni: true, ..Added::default() });
    let still = Added { lines: BgpLine::ALL[2..].to_vec(), ..Added::default() };
    assert_eq!(without(&all, &still), Added { lines: BgpLine::ALL[..2].to_vec(), ..all });
}

#[test]
fn an_l3vni_that_is_about_to_go_is_waited_for() {
    assert!(holds_l3vni("% Please unconfigure l3vni 10"));
    assert!(holds_l3vni("% L3VNI 10 is scheduled to be deleted. Please give it few secs and retry the command"));
    assert!(!holds_l3vni("% Can't find BGP instance"));
}
