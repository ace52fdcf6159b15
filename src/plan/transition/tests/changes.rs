//! From one record to another.

use super::*;

/// On a network that holds its guests to their addresses.
fn secured(endpoint: Endpoint) -> Endpoint {
    Endpoint { port_security: PortSecurity::MacIp, index: Some(12), ..endpoint }
}

fn two() -> [Endpoint; 2] {
    [one(), nic("vnet1", B, &[ip("10.1.0.2")])]
}

fn ours(endpoint: Endpoint) -> Endpoint {
    Endpoint { enslaved: true, ..endpoint }
}

fn with_learned() -> Endpoint {
    nic("vnet0", A, &[ip("10.1.0.1"), learned("10.1.0.9")])
}

fn took(ip: Option<&str>) -> Endpoint {
    let taken = Taken { ip: ip.map(|ip| ip.parse().unwrap()), mac: mac(B), vtep: None, since: 5 };
    Endpoint { taken: vec![taken], ..one() }
}

fn other() -> Option<Guest> {
    Guest::new(GuestKind::Lxc, "c1", "c1").ok()
}

/// Both with its MAC and address.
fn bond() -> [Endpoint; 2] {
    [one(), nic("vnet1", A, &[ip("10.1.0.1")])]
}

/// vnet0's entry is there before its guest's hook.
fn entered(case: Case) -> Case {
    let entry = Fdb { mac: mac(A), port: 12, is_static: true, ext_learned: false };
    Case { fdb: vec![(7, entry)], ..case }
}

// ----- it starts -----

table! {
    a_new_guest: start(&[one()]) => "
        claim
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1
    ";
    without_addresses_its_mac_alone: start(&[nic("vnet0", A, &[])]) => "
        claim
        bridge fdb replace A dev vnet0 master static
        vnet0 registered
    ";
    whose_mac_is_not_known_yet_is_wired: start(&[Endpoint { mac: None, ..one() }]) => "
        claim
        vnet0 pending 10.1.0.1
    ";
    with_two_nics_each_knows_the_other: start(&two()) => "
        claim
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        bridge fdb replace B dev vnet1 master static
        ip neigh replace 10.1.0.2 lladdr B dev red
        vnet0 registered 10.1.0.1, beside vnet1
        vnet1 registered 10.1.0.2, beside vnet0
    ";
    whose_tap_nobody_else_enslaves: start(&[ours(one())]).on("vnet0", None) => "
        claim
        ip link set vnet0 master red
        wait until FRR has vnet0 on red
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1, ours to release
    ";
    whose_tap_a_script_has_enslaved_is_not_ours: start(&[ours(one())]) => "
        claim
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1
    ";
    whose_tap_is_on_no_bridge: start(&[one()]).on("vnet0", None)
        => "no: vm vm1: device vnet0 is on no bridge, expected red";
    whose_tap_is_on_another_bridge: start(&[ours(one())]).on("vnet0", Some(9)) => "
        no: vm vm1: device vnet0 is already on blue, not on red: 'ip link set vnet0 nomaster' first
    ";
    whose_tap_is_not_there: start(&[one()]).without("vnet0")
        => "no: vm vm1: device vnet0 is not there: name the guest's tap or veth on this host";
    whose_bridge_is_not_there: start(&[one()]).without("red")
        => "no: vm vm1: bridge red of network red is not there: bring the network up first";
    of_two_nics_one_that_cannot_be_refuses_both: start(&two()).without("vnet1")
        => "no: vm vm1: device vnet1 is not there: name the guest's tap or veth on this host";
    a_name_that_is_not_safe: {
        let mut case = start(&[one()]);
        case.wish.guest = Guest::new(GuestKind::Libvirt, "a;b", "id1").unwrap();
        case
    } => "
        no: vm a;b: its name has ';', which is not safe in a path, a shell or a terminal: rename it
    ";
    a_name_that_is_not_safe_and_known: {
        let mut case = mend(&[one()]).again(&[one()]);
        for record in case.before.iter_mut().chain([&mut case.wish]) {
            record.guest = Guest::new(GuestKind::Libvirt, "a;b", "id1").unwrap();
        }
        case
    } => "
        no claim
        vnet0 registered 10.1.0.1
    ";
    what_the_fabric_had_of_it_is_replaced: start(&[one()]).has(neigh("10.1.0.1", A, true)) => "
        claim
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1
    ";
}

// ----- it starts again, its end unheard of -----

table! {
    again_all_in_place: mend(&[one()]).again(&[one()]) => "
        no claim
        vnet0 registered 10.1.0.1
    ";
    again_with_another_address: mend(&[one()]).again(&[nic("vnet0", A, &[ip("10.1.0.3")])]) => "
        claim
        ip neigh del 10.1.0.1 dev red
        ip neigh replace 10.1.0.3 lladdr A dev red
        vnet0 registered 10.1.0.3
    ";
    again_with_one_address_more: mend(&[one()]).again(&[nic("vnet0", A, &[ip("10.1.0.1"), ip("10.1.0.3")])]) => "
        claim
        ip neigh replace 10.1.0.3 lladdr A dev red
        vnet0 registered 10.1.0.1 10.1.0.3
    ";
    again_with_another_mac: mend(&[one()]).again(&[nic("vnet0", B, &[ip("10.1.0.1")])]) => "
        claim -vnet0
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        bridge fdb replace B dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr B dev red
        vnet0 registered 10.1.0.1
    ";
    again_on_another_bridge: {
        let moved = Endpoint { bridge: name("blue"), ..one() };
        mend(&[one()]).again(&[moved]).on("vnet0", Some(9))
    } => "
        claim -vnet0
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev blue
        vnet0 registered 10.1.0.1
    ";
    again_with_another_device: mend(&[one()]).again(&[nic("vnet1", A, &[ip("10.1.0.1")])]) => "
        claim -vnet0
        bridge fdb del A dev vnet0 master
        bridge fdb replace A dev vnet1 master static
        vnet1 registered 10.1.0.1
    ";
    again_its_old_device_is_gone: mend(&[one()]).again(&[nic("vnet1", A, &[ip("10.1.0.1")])]).without("vnet0").without(A)
        => "
        claim -vnet0
        bridge fdb replace A dev vnet1 master static
        vnet1 registered 10.1.0.1
    ";
    again_with_one_nic_less: mend(&two()).again(&[one()]) => "
        claim -vnet1
        ip neigh del 10.1.0.2 dev red
        bridge fdb del B dev vnet1 master
        vnet0 registered 10.1.0.1
    ";
    again_what_we_enslaved_stays_ours: mend(&[ours(one())]).again(&[one()]) => "
        no claim
        vnet0 registered 10.1.0.1, ours to release
    ";
    again_what_we_enslaved_and_goes_is_released: mend(&[ours(one())]).again(&[nic("vnet1", B, &[])]) => "
        claim -vnet0
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        ip link set vnet0 nomaster
        bridge fdb replace B dev vnet1 master static
        vnet1 registered
    ";
    again_what_was_leaving_goes: {
        let mut case = mend(&[one()]).again(&[one()]).has(neigh("10.1.0.7", A, false));
        case.before.as_mut().unwrap().leaving = vec![nic("vnet9", A, &[ip("10.1.0.7")])];
        case
    } => "
        no claim
        ip neigh del 10.1.0.7 dev red
        vnet0 registered 10.1.0.1
    ";
    again_what_is_anothers_by_now_is_not_withdrawn: {
        mend(&[one()]).again(&[nic("vnet0", A, &[])]).has(neigh("10.1.0.1", B, true))
    } => "
        claim
        vnet0 registered
    ";
}

// ----- what other guests have -----

table! {
    an_address_of_the_fabric_is_taken_and_told: {
        let duplicates = vec![somewhere(Some("10.1.0.1"), B, vtep())];
        Case { duplicates, ..start(&[one()]).has(neigh("10.1.0.1", B, true)) }
    } => "
        claim
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1, took 10.1.0.1 from B at 10000
        warning: vm vm1: 10.1.0.1 is also B's at VTEP 10.0.0.9: give one of the two another address
    ";
    or_refused_where_the_operator_says_so: {
        let duplicates = vec![somewhere(Some("10.1.0.1"), B, vtep())];
        Case { duplicates, refuses: true, ..start(&[one()]) }
    } => "
        no: vm vm1: 10.1.0.1 is also B's at VTEP 10.0.0.9: give one of the two another address
        what is in the way of NIC 0 may go
    ";
    or_refused_at_once_where_others_wait: {
        let duplicates = vec![somewhere(Some("10.1.0.1"), B, vtep())];
        Case { duplicates, refuses: true, hurried: true, ..start(&[one()]) }
    } => "no: vm vm1: 10.1.0.1 is also B's at VTEP 10.0.0.9: give one of the two another address";
    what_is_on_this_host_does_not_go_by_itself: {
        let duplicates = vec![somewhere(None, A, vtep()), somewhere(Some("10.1.0.1"), B, Holder::Here("guest vm2".into()))];
        Case { duplicates, refuses: true, ..start(&[one()]) }
    } => "
        no: vm vm1: A is also at VTEP 10.0.0.9: give one of the two another MAC, unless it is the same guest and has ended there
    ";
    an_address_of_this_hosts_guest_is_told: {
        Case { duplicates: vec![somewhere(Some("10.1.0.1"), B, Holder::Here("guest vm2".into()))], ..start(&[one()]) }
    } => "
        claim
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1
        warning: vm vm1: 10.1.0.1 is also guest vm2's (B) on this host: give one of the two another address
    ";
    but_refused_where_each_is_held_to_its_own: {
        let duplicates = vec![somewhere(Some("10.1.0.1"), B, Holder::Here("guest vm2".into()))];
        Case { duplicates, ..start(&[secured(one())]) }
    } => "
        no: vm vm1: 10.1.0.1 is also guest vm2's (B) on this host: give one of the two another address
    ";
    what_it_took_before_is_not_told_again: {
        let duplicates = vec![somewhere(Some("10.1.0.1"), B, vtep())];
        Case { duplicates, ..mend(&[took(Some("10.1.0.1"))]).again(&[one()]) }
    } => "
        claim
        vnet0 registered 10.1.0.1, took 10.1.0.1 from B at 10000
    ";
    what_it_took_before_is_remembered: mend(&[took(Some("10.1.0.1"))]).again(&[one()]) => "
        no claim
        vnet0 registered 10.1.0.1, took 10.1.0.1 from B at 5
    ";
    what_it_took_with_another_mac_is_not: {
        mend(&[took(Some("10.1.0.1"))]).again(&[nic("vnet0", B, &[ip("10.1.0.1")])])
    } => "
        claim -vnet0
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        bridge fdb replace B dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr B dev red
        vnet0 registered 10.1.0.1
    ";
    a_mend_takes_an_address_back: {
        let case = mend(&[one()]).has(neigh("10.1.0.1", B, true));
        Case { duplicates: vec![somewhere(Some("10.1.0.1"), B, vtep())], ..case }
    } => "
        claim
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1, took 10.1.0.1 from B at 10000
        warning: vm vm1: 10.1.0.1 is also B's at VTEP 10.0.0.9: give one of the two another address
    ";
    a_mend_takes_its_mac_for_its_own: {
        Case { duplicates: vec![somewhere(None, A, vtep())], ..mend(&[one()]).without(A) }
    } => "
        no claim
        bridge fdb replace A dev vnet0 master static
        vnet0 registered 10.1.0.1
    ";
    unless_it_was_anothers_before: {
        Case { duplicates: vec![somewhere(None, A, vtep())], ..mend(&[took(None)]).without(A) }
    } => "
        claim
        bridge fdb replace A dev vnet0 master static
        vnet0 registered 10.1.0.1, took the MAC from A at 10000
        warning: vm vm1: A is also at VTEP 10.0.0.9: give one of the two another MAC, unless it is the same guest and has ended there
    ";
    a_device_that_is_anothers_stays_so: entered(Case { owner: other(), ..start(&two()) }) => "
        claim
        bridge fdb replace B dev vnet1 master static
        ip neigh replace 10.1.0.2 lladdr B dev red
        vnet1 registered 10.1.0.2, beside vnet0
        warning: vm vm1: device vnet0 is container c1's already, and stays container c1's
    ";
    in_a_shared_namespace_that_is_no_warning: entered(Case { owner: other(), ..start(&[one()]) }).of(GuestKind::Lxc)
        => "
        claim
        note: container vm1: device vnet0 is container c1's already, and stays container c1's
    ";
    an_entry_of_nobody_is_its_own: entered(start(&[one()])) => "
        claim
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1
    ";
}

#[test]
fn further_questions_are_asked_only_where_they_matter() {
    let asked = |case: Case| {
        case.comes_to();
        case.asked.borrow().join(" ")
    };
    assert_eq!(asked(start(&[one()])), "", "a cold boot");
    assert_eq!(asked(entered(start(&[one()]))), "owner");
    assert_eq!(asked(entered(Case { mode: Mode::Mend, ..start(&[one()]) })), "", "a VM that runs has its device");
    assert_eq!(asked(entered(Case { mode: Mode::Mend, ..start(&[one()]) }).of(GuestKind::Lxc)), "owner");
    assert_eq!(asked(mend(&[one()]).again(&[one()])), "", "its own entry");
    assert_eq!(asked(comes(&[one()])), "fabric");
    assert_eq!(asked(arrives(&[one()])), "fabric");
    assert_eq!(asked(mend(&[one()])), "");
    let duplicates = vec![somewhere(None, A, vtep())];
    assert_eq!(asked(Case { duplicates: duplicates.clone(), ..start(&[one()]) }), "policy");
    assert_eq!(asked(Case { duplicates: duplicates.clone(), ..mend(&[one()]) }), "", "who runs is not refused");
    assert_eq!(asked(Case { duplicates, ..comes(&[one()]) }), "fabric", "it has them until it is here");
}

// ----- it comes from another host -----

table! {
    who_comes_is_wired_alone: comes(&[one()]) => "
        claim
        vnet0 incoming 10.1.0.1
    ";
    with_what_the_fabric_has_of_it: {
        let fabric = ["10.1.0.1", "10.1.0.5"].map(|ip| Address::new(ip.parse().unwrap(), Source::Fabric)).to_vec();
        Case { fabric, ..comes(&[one()]) }
    } => "
        claim
        vnet0 incoming 10.1.0.1 10.1.0.5
    ";
    whose_mac_and_addresses_are_still_elsewhere_is_no_duplicate: {
        Case { duplicates: vec![somewhere(None, A, vtep())], refuses: true, ..comes(&[one()]) }
    } => "
        claim
        vnet0 incoming 10.1.0.1
    ";
    who_comes_to_a_port_that_was_nobodys_is_heard: {
        let mut case = comes(&[secured(one())]);
        case.links[3].port.locked = Some(true);
        case
    } => "
        claim
        nft, table bridge evpn-hook: port vnet0, add mac-ip, A, A, 10.1.0.1, fe80::5054:ff:fe00:a
        bridge link set dev vnet0 locked off learning on
        vnet0 incoming 10.1.0.1, guarded as 12
    ";
    who_arrives_is_registered: arrives(&[one()]).has(neigh("10.1.0.1", A, true)) => "
        claim
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1
    ";
    and_what_the_fabric_has_is_asked_once_more: {
        Case { fabric: vec![Address::new("10.1.0.5".parse().unwrap(), Source::Fabric)], ..arrives(&[one()]) }
    } => "
        claim
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        ip neigh replace 10.1.0.5 lladdr A dev red
        vnet0 registered 10.1.0.1 10.1.0.5
    ";
    who_runs_already_has_what_it_has: {
        Case { fabric: vec![Address::new("10.1.0.5".parse().unwrap(), Source::Fabric)], ..mend(&[one()]) }
    } => "
        no claim
        vnet0 registered 10.1.0.1
    ";
}

// ----- it runs -----

table! {
    all_is_well: mend(&[one()]) => "
        no claim
        vnet0 registered 10.1.0.1
    ";
    a_lost_neighbour: mend(&[one()]).without("10.1.0.1") => "
        no claim
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1
    ";
    a_lost_mac: mend(&[one()]).without(A) => "
        no claim
        bridge fdb replace A dev vnet0 master static
        vnet0 registered 10.1.0.1
    ";
    a_port_that_somebody_took_off: mend(&[one()]).on("vnet0", None) => "
        no claim
        ip link set vnet0 master red
        vnet0 registered 10.1.0.1
    ";
    a_port_that_somebody_put_elsewhere: mend(&[one()]).on("vnet0", Some(9)) => "
        no claim
        ip link set vnet0 master red
        vnet0 registered 10.1.0.1
    ";
    what_proxmox_put_elsewhere_stays_there: mend(&[one()]).of(GuestKind::Proxmox).on("vnet0", Some(9)) => "
        no: vm vm1: device vnet0 is already on blue, not on red: 'ip link set vnet0 nomaster' first
    ";
    what_is_on_no_bridge_is_proxmoxs_no_more: mend(&[one()]).of(GuestKind::Proxmox).on("vnet0", None) => "
        no claim
        ip link set vnet0 master red
        vnet0 registered 10.1.0.1
    ";
    a_run_that_was_killed: {
        let case = mend(&[one()]).without("10.1.0.1");
        Case { before: Some(record(&[one()])), wish: record(&[one()]), ..case }
    } => "
        no claim
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1
    ";
    a_learned_address_that_is_anothers_by_now: mend(&[with_learned()]).has(neigh("10.1.0.9", B, true)) => "
        claim
        vnet0 registered 10.1.0.1
        gave up 10.1.0.9
    ";
    or_that_the_operator_gave_away: {
        mend(&[with_learned()]).has(Neigh { ours: false, ..neigh("10.1.0.9", B, false) })
    } => "
        claim
        vnet0 registered 10.1.0.1
        gave up 10.1.0.9
    ";
    a_declared_address_is_fought_for: mend(&[one()]).has(neigh("10.1.0.1", B, true)) => "
        no claim
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1
    ";
    a_learned_address_that_it_answers_for: {
        let stands = Some((mac(A), "10.1.0.9".parse().unwrap()));
        Case { stands, ..mend(&[with_learned()]).has(neigh("10.1.0.9", B, true)) }
    } => "
        no claim
        ip neigh replace 10.1.0.9 lladdr A dev red
        vnet0 registered 10.1.0.1 10.1.0.9
    ";
    another_that_it_does_not_answer_for: {
        let stands = Some((mac(A), "10.1.0.8".parse().unwrap()));
        Case { stands, ..mend(&[with_learned()]).has(neigh("10.1.0.9", B, true)) }
    } => "
        claim
        vnet0 registered 10.1.0.1
        gave up 10.1.0.9
    ";
    an_address_that_was_heard_just_now_is_taken: {
        mend(&[one()]).wishes(&[here(with_learned())]).has(neigh("10.1.0.9", B, true))
    } => "
        claim
        ip neigh replace 10.1.0.9 lladdr A dev red
        vnet0 registered 10.1.0.1 10.1.0.9
    ";
    what_only_the_kernel_remembers_is_nobodys: {
        mend(&[with_learned()]).has(Neigh { permanent: false, ours: false, ..neigh("10.1.0.9", B, false) })
    } => "
        no claim
        ip neigh replace 10.1.0.9 lladdr A dev red
        vnet0 registered 10.1.0.1 10.1.0.9
    ";
    an_address_that_it_has_no_longer: {
        Case { looked: Some("none"), ..mend(&[with_learned()]).wishes(&[here(one())]) }
    } => "
        claim
        ip neigh del 10.1.0.9 dev red
        vnet0 registered 10.1.0.1
    ";
    of_a_bond_one_nic_goes: mend(&bond()).wishes(&[here(bond()[1].clone())]) => "
        claim -vnet0
        vnet1 registered 10.1.0.1
    ";
    of_a_bond_the_nic_goes_that_has_the_mac: {
        let mut case = mend(&bond()).wishes(&[here(bond()[1].clone())]);
        case.fdb.truncate(1);
        case
    } => "
        claim -vnet0
        bridge fdb del A dev vnet0 master
        bridge fdb replace A dev vnet1 master static
        vnet1 registered 10.1.0.1
    ";
    it_shows_to_be_a_router: {
        let router = Address { router: true, ..ip("fd00::1") };
        mend(&[nic("vnet0", A, &[ip("fd00::1")])]).wishes(&[here(nic("vnet0", A, &[router]))])
    } => "
        claim
        ip neigh replace fd00::1 lladdr A dev red router
        vnet0 registered fd00::1
    ";
    what_waits_for_its_network_stays: {
        Case { looked: Some("vnet0"), ..mend(&two()).without("vnet1").without("10.1.0.1") }
    } => "
        no claim
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1, beside vnet1
        vnet1 registered 10.1.0.2, beside vnet0
    ";
    a_nic_more: mend(&[one()]).wishes(&[here(one()), nic("vnet1", B, &[])]) => "
        claim
        bridge fdb replace B dev vnet1 master static
        vnet0 registered 10.1.0.1, beside vnet1
        vnet1 registered, beside vnet0
    ";
    a_bond_whose_mac_moved_is_held: {
        let mut case = mend(&[one(), nic("vnet1", A, &[])]);
        case.fdb[0].1.port = 13;
        case
    } => "
        no claim
        vnet0 registered 10.1.0.1, beside vnet1
        vnet1 registered, beside vnet0
    ";
}

// ----- its port is held -----

table! {
    a_new_guest_whose_port_is_held: start(&[secured(one())]) => "
        claim
        nft, table bridge evpn-hook: port vnet0, add mac-ip, A, A, 10.1.0.1, fe80::5054:ff:fe00:a
        bridge fdb replace A dev vnet0 master static
        ip neigh replace 10.1.0.1 lladdr A dev red
        vnet0 registered 10.1.0.1, guarded as 12
    ";
    all_is_well_with_a_port_that_is_held: mend(&[secured(one())]) => "
        no claim
        vnet0 registered 10.1.0.1, guarded as 12
    ";
    a_guard_that_somebody_deleted: {
        Case { guards: HashMap::new(), ..mend(&[secured(one())]) }
    } => "
        no claim
        nft, table bridge evpn-hook: port vnet0, add mac-ip, A, A, 10.1.0.1, fe80::5054:ff:fe00:a
        vnet0 registered 10.1.0.1, guarded as 12
    ";
    a_tap_that_was_made_anew_under_its_name: {
        let mut case = mend(&[secured(one())]).without(A);
        case.links[3].index = 22;
        case.links[3].port.locked = Some(false);
        case.links[3].port.learning = Some(true);
        case
    } => "
        claim
        nft, table bridge evpn-hook: port vnet0, delete mac-ip, A, A, 10.1.0.1, fe80::5054:ff:fe00:a
        nft, table bridge evpn-hook: port vnet0, add mac-ip, A, A, 10.1.0.1, fe80::5054:ff:fe00:a
        bridge fdb replace A dev vnet0 master static
        bridge link set dev vnet0 locked on learning off
        vnet0 registered 10.1.0.1, guarded as 22
    ";
    its_network_holds_it_no_longer: mend(&[secured(one())]).wishes(&[here(one())]) => "
        claim
        bridge link set dev vnet0 locked off learning on
        nft, table bridge evpn-hook: port vnet0, delete mac-ip, A, A, 10.1.0.1, fe80::5054:ff:fe00:a
        vnet0 registered 10.1.0.1
    ";
    its_network_holds_it_from_now_on: mend(&[one()]).wishes(&[here(secured(one()))]) => "
        claim
        nft, table bridge evpn-hook: port vnet0, add mac-ip, A, A, 10.1.0.1, fe80::5054:ff:fe00:a
        vnet0 registered 10.1.0.1, guarded as 12
    ";
    what_it_gives_up_it_may_not_send: {
        let leased = Address::new("10.1.0.9".parse().unwrap(), Source::Lease);
        mend(&[secured(nic("vnet0", A, &[ip("10.1.0.1"), leased]))]).has(neigh("10.1.0.9", B, true))
    } => "
        claim
        nft, table bridge evpn-hook: port vnet0, delete 10.1.0.9
        vnet0 registered 10.1.0.1, guarded as 12
        gave up 10.1.0.9
    ";
    a_tap_that_is_gone_is_let_go_of: mend(&[secured(one())]).again(&[nic("vnet1", B, &[])]).without("vnet0").without(A)
        => "
        claim -vnet0
        ip neigh del 10.1.0.1 dev red
        nft, table bridge evpn-hook: port vnet0, delete mac-ip, A, A, 10.1.0.1, fe80::5054:ff:fe00:a
        bridge fdb replace B dev vnet1 master static
        vnet1 registered
    ";
}

#[test]
fn what_the_hook_wrote_stays_until_the_next_one() {
    let hook = Hook { by: "qemu start".to_owned(), began: 1, took: 2 };
    let mut case = mend(&[one()]);
    case.before.as_mut().unwrap().hook = Some(hook.clone());
    let change = case.change();
    let Ok(seen) = look(&change, &mut &case);
    assert_eq!(transition(&change, &seen).unwrap().after.hook, Some(hook));
}
