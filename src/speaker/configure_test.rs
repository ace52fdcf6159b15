//! The decisions; what FRR makes of them is in tests/speaker.rs.

use super::*;
use crate::speaker::running::parse;

fn red() -> Instance {
    parse(include_str!("../../tests/golden/speaker/bgpd-running-red.txt")).vrf("red").unwrap().clone()
}

#[test]
fn an_instance_with_only_our_lines_is_ours() {
    assert!(only(&red(), &BgpLine::ALL));
    assert!(!only(&red(), &BgpLine::ALL[1..]));
    let own = parse(include_str!("../../tests/golden/speaker/bgpd-running-own.txt"));
    assert!(!only(own.vrf("red").unwrap(), &BgpLine::ALL));
}

#[test]
fn a_line_that_the_operator_made_longer_is_the_operators() {
    let own = parse(include_str!("../../tests/golden/speaker/bgpd-running-own.txt"));
    assert!(contains(&red(), BgpLine::Ipv4Connected));
    assert!(!contains(own.vrf("red").unwrap(), BgpLine::Ipv4Connected));
}

#[test]
fn what_failed_halfway_is_the_difference() {
    let all = Added { vni: true, bgp: true, lines: BgpLine::ALL.to_vec() };
    let still = Added { vni: false, bgp: true, lines: BgpLine::ALL[2..].to_vec() };
    let went = Added { vni: true, bgp: false, lines: BgpLine::ALL[..2].to_vec() };
    assert_eq!(without(&all, &still), went);
}
