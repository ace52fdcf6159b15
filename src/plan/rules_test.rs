//! Every list that can be met, taken to each order change by change; a run may be killed, and another begin, between any two.

use super::*;

const BGP: Rule = Rule { preference: 0, protocol: KERNEL, kind: Kind::Bgp };
const VRFS: Rule = Rule { preference: 0, protocol: KERNEL, kind: Kind::Vrfs };
const LOCAL: Rule = Rule { preference: 0, protocol: KERNEL, kind: Kind::Local };
/// `ip rule add pref 0 table local`, as iproute2 sends it.
const BY_HAND: Rule = Rule { protocol: UNSPEC, ..LOCAL };
const CILIUMS: Rule = Rule { preference: 100, ..LOCAL };
const EARLIER: [Rule; 2] = [
    Rule { preference: 999, protocol: 69, kind: Kind::Bgp },
    Rule { preference: 32765, protocol: UNSPEC, kind: Kind::Local },
];
const CLOSED: Order = Order::VrfsFirst { bgp_closed: true };
const OPEN: Order = Order::VrfsFirst { bgp_closed: false };
const PLAIN: Order = Order::Plain { moved: false };

fn other(preference: u32) -> Rule {
    Rule { preference, protocol: UNSPEC, kind: Kind::Other(format!("{preference}: from 192.0.2.1 lookup 100")) }
}

fn some_local() -> Rule {
    Rule { kind: Kind::SomeLocal("0: fwmark 0x7 lookup local".into()), ..BY_HAND }
}

/// A host as the kernel makes it, with one rule of the operator's.
fn host() -> Rules {
    vec![LOCAL, other(100), Rule { preference: 1000, ..VRFS }]
}

#[track_caller]
fn ends(mut rules: Rules, order: Order) -> Rules {
    for _ in 0..32 {
        let Some(change) = next(&rules, order) else { return rules };
        let local = rules.iter().any(|rule| rule.kind == Kind::Local);
        apply(&mut rules, change);
        assert!(!local || rules.iter().any(|rule| rule.kind == Kind::Local), "without table local: {rules:?}");
    }
    panic!("no end: {rules:?}");
}

#[test]
fn the_host_and_its_vrfs() {
    let whole = [vec![BGP, VRFS, LOCAL], host()[1..].to_vec()].concat();
    assert_eq!(ends(host(), CLOSED), whole);
    assert_eq!(ends(whole.clone(), CLOSED), whole);
    assert_eq!(ends(whole.clone(), PLAIN), host());
    let open = ends(whole.clone(), OPEN);
    assert_eq!(open, [vec![VRFS, LOCAL], host()[1..].to_vec()].concat());
    assert_eq!(ends(open, CLOSED), whole);
}

#[test]
fn table_local_stays_where_somebody_moved_it() {
    let host = vec![CILIUMS, Rule { preference: 1000, ..VRFS }];
    let whole = [vec![BGP, VRFS], host.clone()].concat();
    assert_eq!(ends(host.clone(), CLOSED), whole);
    assert_eq!(ends(whole, PLAIN), host);
    let by_hand = vec![other(100), EARLIER[1].clone()];
    let whole = [vec![BGP, VRFS], by_hand.clone()].concat();
    assert_eq!(ends(by_hand.clone(), CLOSED), whole, "at our earlier place, without the sign that it was us");
    assert_eq!(ends(whole, PLAIN), by_hand);
}

#[test]
fn what_an_earlier_version_made_is_taken_over() {
    let earlier = [vec![other(100)], EARLIER.to_vec()].concat();
    assert_eq!(ends(earlier.clone(), CLOSED), [BGP, VRFS, LOCAL, other(100)]);
    assert_eq!(ends(earlier.clone(), OPEN), [VRFS, LOCAL, other(100)]);
    assert_eq!(ends(earlier.clone(), PLAIN), [LOCAL, other(100)]);
    // Where guests may reach bgpd there was no rule that would be a sign; the register remembers.
    assert_eq!(ends(vec![EARLIER[1].clone()], Order::Plain { moved: true }), [LOCAL]);
}

#[test]
fn what_somebody_took_comes_back() {
    let whole = [BGP, VRFS, LOCAL];
    for bits in 0..8 {
        let left =
            whole.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, rule)| rule.clone()).collect();
        assert_eq!(ends(left, CLOSED), whole);
    }
}

/// Every list of up to four rules at preference 0, with each end that a list may have.
#[test]
fn every_list_comes_to_an_end_and_never_without_table_local() {
    let kinds = [BGP, VRFS, LOCAL, BY_HAND, other(0), some_local()];
    let tails = [vec![], vec![CILIUMS], EARLIER.to_vec(), vec![EARLIER[1].clone()]];
    let mut lists: Vec<Rules> = vec![vec![]];
    for length in 0..4 {
        let longer = |list: &Rules| kinds.each_ref().map(|kind| [&list[..], std::slice::from_ref(kind)].concat());
        let longest = lists.iter().filter(|list| list.len() == length);
        let longer: Vec<Rules> = longest.flat_map(longer).collect();
        lists.extend(longer);
    }
    for list in lists {
        for tail in &tails {
            let rules = [list.clone(), tail.clone()].concat();
            for order in [CLOSED, OPEN, PLAIN] {
                let end = ends(rules.clone(), order);
                let others =
                    |rules: &Rules| rules.iter().filter(|rule| rule.text().is_some()).cloned().collect::<Rules>();
                assert_eq!(others(&end), others(&rules), "others' rules are left alone");
                let Order::VrfsFirst { bgp_closed } = order else { continue };
                assert!(effect(std::slice::from_ref(&end)).local);
                if in_the_way(&end, bgp_closed).is_none() {
                    let zero: Rules =
                        end.iter().filter(|rule| rule.preference == 0 && rule.text().is_none()).cloned().collect();
                    let local = !tail.contains(&CILIUMS) && *tail != [EARLIER[1].clone()]
                        || list.iter().any(|rule| rule.kind == Kind::Local);
                    let whole = [(bgp_closed, BGP), (true, VRFS), (local, LOCAL)];
                    let whole: Rules = whole.into_iter().filter(|(is, _)| *is).map(|(_, rule)| rule).collect();
                    // Before a rule of others nothing is deleted any more, nor whoever's rule for table local replaced.
                    let kinds = |rules: &[Rule]| {
                        let mut kinds: Vec<Kind> = rules.iter().map(|rule| rule.kind.clone()).collect();
                        kinds.dedup();
                        kinds
                    };
                    assert!(kinds(&zero).starts_with(&kinds(&whole)), "{rules:?} → {end:?}");
                    assert!(zero == whole || !others(&rules).is_empty(), "{rules:?} → {end:?}");
                    assert!(effect(std::slice::from_ref(&end)).vrfs_first);
                }
                if others(&rules).is_empty() {
                    assert_eq!(in_the_way(&end, bgp_closed), None);
                }
            }
        }
    }
}

#[test]
fn a_rule_of_others_at_preference_0_is_named() {
    let text = "0: from 192.0.2.1 lookup 100";
    assert_eq!(in_the_way(&[LOCAL, other(0)], true), Some(text), "it would stand before the VRFs");
    assert_eq!(in_the_way(&[BGP, VRFS, LOCAL, other(0)], true), None, "added without a preference it stands behind");
    assert_eq!(in_the_way(&[BGP, VRFS, other(0), LOCAL], true), Some(text));
    assert_eq!(in_the_way(&[BGP, other(0), VRFS, LOCAL], true), Some(text));
    assert_eq!(in_the_way(&[VRFS, LOCAL, other(0)], true), Some(text), "the rule against BGP cannot be put before it");
    assert_eq!(in_the_way(&[VRFS, LOCAL, other(0)], false), None);
    assert_eq!(in_the_way(&host(), true), None);
}

/// The VRFs' rule is not put behind a rule that it stands before.
#[test]
fn beside_a_rule_of_others_only_what_is_vital_comes_back() {
    assert_eq!(ends(vec![BGP, VRFS, other(0)], CLOSED), [BGP, VRFS, other(0), LOCAL]);
    assert_eq!(ends(vec![VRFS, LOCAL, other(0)], CLOSED), [VRFS, LOCAL, other(0)]);
    assert_eq!(ends(vec![LOCAL, other(0)], CLOSED), [other(0), BGP, VRFS, LOCAL]);
}

#[test]
fn what_the_rules_come_to() {
    let of = |rules: &[Rule]| effect(&[rules.to_vec()]);
    let by_hand = [EARLIER[0].clone(), Rule { preference: 1000, ..VRFS }, EARLIER[1].clone()];
    assert_eq!(of(&by_hand), Effect { local: true, vrfs_first: true, bgp_closed: true });
    assert_eq!(of(&host()), Effect { local: true, vrfs_first: false, bgp_closed: false });
    assert!(!of(&[BGP, VRFS]).local);
    assert!(!effect(&[by_hand.to_vec(), host()]).vrfs_first, "in one family is not in both");
}
