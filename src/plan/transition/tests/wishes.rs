//! What its hypervisor says of a guest, and what is wished for.

use super::*;
use std::convert::Infallible;

const OLD: u64 = 1;

fn shown(wish: &Wish) -> String {
    match wish {
        Wish::Nothing => "nothing".to_owned(),
        Wish::Parts(record) => {
            let devices: Vec<&str> = record.held().map(|e| e.device.as_str()).collect();
            assert_eq!(record.incoming_since, None);
            format!("parts {}", devices.join(" ")).trim_end().to_owned()
        }
        Wish::Becomes(change) => {
            let looked: Vec<&str> = change.nics().map(|e| e.device.as_str()).collect();
            let all: Vec<String> = change.wish.endpoints.iter().map(told).collect();
            let since = change.wish.incoming_since.map(|since| format!(" since {since}")).unwrap_or_default();
            format!("{:?}{since}, looks at {}: {}", change.mode, looked.join(" "), all.join("; "))
        }
    }
}

fn incoming(since: Option<u64>, endpoints: &[Endpoint]) -> Option<GuestRecord> {
    let endpoints: Vec<Endpoint> = endpoints.iter().cloned().map(|e| at(Stage::Incoming, e)).collect();
    Some(GuestRecord { incoming_since: since, ..record(&endpoints) })
}

fn registered(endpoints: &[Endpoint]) -> Option<GuestRecord> {
    Some(record(&endpoints.iter().cloned().map(here).collect::<Vec<_>>()))
}

fn since(since: u64, record: Option<GuestRecord>) -> Option<GuestRecord> {
    record.map(|record| GuestRecord { incoming_since: Some(since), ..record })
}

fn two() -> [Endpoint; 2] {
    [one(), nic("vnet1", B, &[])]
}

fn with_learned() -> Endpoint {
    nic("vnet0", A, &[ip("10.1.0.1"), learned("10.1.0.9")])
}

fn started(before: &Option<GuestRecord>, endpoints: &[Endpoint], waiting: &[Endpoint], ran: bool) -> String {
    let guest = guest(GuestKind::Libvirt);
    shown(&starts(guest, before.as_ref(), endpoints.to_vec(), waiting.to_vec(), ran, NOW))
}

/// `gone` are the devices that are not there.
fn ran(before: &Option<GuestRecord>, says: Runs, fresh: &[Endpoint], waiting: &[Endpoint], gone: &str) -> String {
    let is_there = |e: &Endpoint| Ok::<_, Infallible>(!gone.contains(e.device.as_str()));
    let guest = guest(GuestKind::Libvirt);
    let Ok(wish) = runs(&guest, before.as_ref(), says, fresh.to_vec(), waiting.to_vec(), NOW, is_there);
    shown(&wish)
}

macro_rules! table {
    ($($name:ident: $case:expr => $expected:expr;)+) => {$(
        #[test]
        fn $name() {
            assert_eq!($case, $expected);
        }
    )+};
}

// ----- start, reconnect -----

table! {
    a_cold_boot: started(&None, &[one()], &[], false) => "Start, looks at vnet0: vnet0 pending 10.1.0.1";
    on_no_network_of_ours: started(&None, &[], &[], false) => "parts";
    on_none_any_more: started(&registered(&[one()]), &[], &[], false) => "parts vnet0";
    after_an_announcement_it_comes: started(&since(NOW, Some(record(&[]))), &[one()], &[], false)
        => "Incoming since 10000, looks at vnet0: vnet0 pending 10.1.0.1";
    after_an_old_one_it_boots_and_started_will_tell: started(&since(OLD, Some(record(&[]))), &[one()], &[], false)
        => "Start since 1, looks at vnet0: vnet0 pending 10.1.0.1";
    what_was_learned_is_not_a_new_boots: started(&registered(&[with_learned()]), &[one()], &[], false)
        => "Start, looks at vnet0: vnet0 pending 10.1.0.1";
    who_ran_keeps_what_it_learned: started(&registered(&[with_learned()]), &[one()], &[], true)
        => "Mend, looks at vnet0: vnet0 pending 10.1.0.1 10.1.0.9";
    who_ran_with_another_mac_does_not: {
        started(&registered(&[with_learned()]), &[nic("vnet0", B, &[ip("10.1.0.1")])], &[], true)
    } => "Mend, looks at vnet0: vnet0 pending 10.1.0.1";
    who_ran_and_is_on_its_way_still_is: started(&incoming(Some(OLD), &[one()]), &[one()], &[], true)
        => "Incoming since 1, looks at vnet0: vnet0 pending 10.1.0.1";
    who_ran_and_was_announced_once_runs: started(&since(NOW, registered(&[one()])), &[one()], &[], true)
        => "Mend, looks at vnet0: vnet0 pending 10.1.0.1";
    what_we_enslaved_is_remembered: {
        started(&registered(&[Endpoint { enslaved: true, ..one() }]), &[one()], &[], false)
    } => "Start, looks at vnet0: vnet0 pending 10.1.0.1, ours to release";
    whose_networks_are_all_down_waits: started(&registered(&[one()]), &[], &[here(one())], true) => "nothing";
    one_of_whose_networks_is_down_keeps_what_it_has_there: {
        started(&registered(&two()), &[one()], &[here(nic("vnet1", B, &[]))], true)
    } => "Mend, looks at vnet0: vnet0 pending 10.1.0.1, beside vnet1; vnet1 registered, beside vnet0";
}

// ----- sync -----

table! {
    who_is_gone: ran(&registered(&[one()]), Runs::Gone, &[], &[], "") => "parts vnet0";
    who_was_announced_is_left_alone: ran(&since(NOW, Some(record(&[]))), Runs::Gone, &[], &[], "") => "nothing";
    who_was_announced_long_ago_is_not: ran(&since(OLD, Some(record(&[]))), Runs::Gone, &[], &[], "") => "parts";
    who_was_announced_and_runs: ran(&since(NOW, Some(record(&[]))), Runs::Here, &[one()], &[], "")
        => "Mend, looks at vnet0: vnet0 pending 10.1.0.1";
    who_runs_unknown_to_us: ran(&None, Runs::Here, &[one()], &[], "")
        => "Mend, looks at vnet0: vnet0 pending 10.1.0.1";
    who_runs_on_none_of_our_networks: ran(&registered(&[one()]), Runs::Here, &[], &[], "") => "parts vnet0";
    who_runs_keeps_what_it_has_learned: ran(&registered(&[with_learned()]), Runs::Here, &[one()], &[], "")
        => "Mend, looks at vnet0: vnet0 pending 10.1.0.1 10.1.0.9";
    who_runs_without_one_of_its_taps: ran(&registered(&two()), Runs::Here, &two(), &[], "vnet1")
        => "Mend, looks at vnet0: vnet0 pending 10.1.0.1";
    who_runs_while_its_network_is_down: ran(&registered(&[one()]), Runs::Here, &[], &[here(one())], "") => "nothing";
    who_comes_unknown_to_us: ran(&None, Runs::Moving, &[one()], &[], "")
        => "Incoming, looks at vnet0: vnet0 pending 10.1.0.1";
    who_comes_is_still_coming: ran(&incoming(Some(7), &[one()]), Runs::Moving, &[one()], &[], "")
        => "Incoming since 7, looks at vnet0: vnet0 pending 10.1.0.1";
    who_ends_is_left_alone: ran(&registered(&[one()]), Runs::Ending, &[], &[], "") => "nothing";
    who_ends_before_it_came_gets_nothing: ran(&incoming(Some(7), &[one()]), Runs::Ending, &[], &[], "") => "nothing";
    who_leaves_is_left_alone: ran(&registered(&[one()]), Runs::Moving, &[one()], &[], "") => "nothing";
    who_came_and_runs: ran(&incoming(Some(7), &[one()]), Runs::Here, &[one()], &[], "")
        => "Mend, looks at vnet0: vnet0 pending 10.1.0.1";
    of_whom_nothing_is_known_what_its_record_says: ran(&registered(&two()), Runs::Unknown, &[], &[], "")
        => "Mend, looks at vnet0 vnet1: vnet0 registered 10.1.0.1, beside vnet1; vnet1 registered, beside vnet0";
    and_that_is_there: ran(&registered(&two()), Runs::Unknown, &[], &[], "vnet0")
        => "Mend, looks at vnet1: vnet1 registered";
    or_none_of_it: ran(&registered(&two()), Runs::Unknown, &[], &[], "vnet0 vnet1") => "parts vnet0 vnet1";
    of_whom_nothing_is_known_and_who_comes: ran(&incoming(Some(7), &[one()]), Runs::Unknown, &[], &[], "")
        => "Incoming since 7, looks at vnet0: vnet0 incoming 10.1.0.1";
    whose_taps_are_not_there_yet_is_waited_for: ran(&incoming(Some(7), &[one()]), Runs::Unknown, &[], &[], "vnet0")
        => "nothing";
}

// ----- is all so already? -----

fn so(case: &Case) -> bool {
    is_so(&case.change(), &case.world())
}

#[test]
fn all_is_so() {
    assert!(so(&mend(&[one()])));
    assert!(so(&mend(&[with_learned()])));
    let secured = Endpoint { port_security: PortSecurity::Mac, index: Some(12), ..one() };
    assert!(so(&mend(&[secured])));
    let mut told_otherwise = mend(&[one()]);
    told_otherwise.wish.endpoints[0].ips[0].source = Source::Nwfilter;
    told_otherwise.before.as_mut().unwrap().incoming_since = Some(OLD);
    assert!(so(&told_otherwise), "who told an address, and when it was announced, is no reason to do anything");
    let wired = record(&[at(Stage::Incoming, one())]);
    assert!(so(&Case { mode: Mode::Incoming, before: Some(wired.clone()), wish: wired, ..start(&[]) }));
}

#[test]
fn all_is_not_so() {
    let not = |what: &str, case: Case| assert!(!so(&case), "{what}");
    not("no record", Case { before: None, ..mend(&[one()]) });
    not("a neighbour", mend(&[one()]).without("10.1.0.1"));
    not("a MAC", mend(&[one()]).without(A));
    not("a device", mend(&[one()]).without("vnet0"));
    not("its bridge", mend(&[one()]).on("vnet0", Some(9)));
    not("another address", mend(&[one()]).wishes(&[here(nic("vnet0", A, &[ip("10.1.0.2")]))]));
    not("one address less", mend(&[with_learned()]).wishes(&[here(one())]));
    not("another NIC", mend(&[one()]).wishes(&[here(one()), here(nic("vnet1", B, &[]))]));
    not("pending", Case { before: Some(record(&[one()])), ..mend(&[one()]) });
    not("on its way, and here", Case { before: incoming(None, &[one()]), ..mend(&[one()]) });
    not("what another has", mend(&[with_learned()]).has(neigh("10.1.0.9", B, true)));
    let mut leaving = mend(&[one()]);
    leaving.before.as_mut().unwrap().leaving = vec![nic("vnet9", B, &[])];
    not("what was leaving", leaving);
    let secured = Endpoint { port_security: PortSecurity::Mac, ..one() };
    not("what holds it", mend(&[one()]).wishes(&[here(secured)]));
}
