//! What goes is withdrawn.

use super::*;

/// What of a guest's endpoints goes, and what its record says then.
fn parts(case: &Case, goes: &str, secured: bool) -> String {
    let goes = Goes::of(case.before.clone().unwrap(), |e| goes.contains(e.device.as_str()));
    let world = case.world();
    let gone = |endpoint: &Endpoint| {
        let tunnel = Some((20.try_into().unwrap(), "10.0.0.1".parse().unwrap()));
        let port = Seen { tunnel, ..Seen::of(&world, &Wanted::of("", endpoint)) };
        let gone = Gone { port, ..Gone::default() };
        Gone { secured: secured && gone.asks_network(), ..gone }
    };
    let seen: Vec<Gone> = goes.leaving().iter().map(gone).collect();
    let Parting { plan, after, left } = goes.plan(&seen);
    let mut lines: Vec<String> = plan.iter().map(|p| p.step.to_string()).collect();
    match &after {
        Some(record) => lines.extend(record.endpoints.iter().map(told)),
        None => lines.push("forgotten".to_owned()),
    }
    let leaving: Vec<&str> = left.leaving.iter().map(|e| e.device.as_str()).collect();
    lines.push(format!("or leaving: {}", leaving.join(" ")));
    short(&lines.join("\n"))
}

fn secured() -> Endpoint {
    Endpoint { port_security: PortSecurity::Mac, index: Some(12), ..one() }
}

fn two() -> Case {
    mend(&[one(), nic("vnet1", B, &[ip("10.1.0.2")])])
}

macro_rules! table {
    ($($name:ident: $case:expr, $goes:literal, $secured:literal => $expected:expr;)+) => {$(
        #[test]
        fn $name() {
            let expected: Vec<&str> = $expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            assert_eq!(parts(&$case, $goes, $secured), expected.join("\n"));
        }
    )+};
}

table! {
    who_ends_is_forgotten: two(), "vnet0 vnet1", false => "
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        ip neigh del 10.1.0.2 dev red
        bridge fdb del B dev vnet1 master
        bridge fdb replace B dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del B dev vxlan20 dst 10.0.0.1 self
        forgotten
        or leaving: vnet0 vnet1
    ";
    who_loses_a_nic_is_not: two(), "vnet0", false => "
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        vnet1 registered 10.1.0.2
        or leaving: vnet0
    ";
    whose_tap_went_first_is_told_the_end: mend(&[one()]).without("vnet0").without(A), "vnet0", false => "
        ip neigh del 10.1.0.1 dev red
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        forgotten
        or leaving: vnet0
    ";
    unless_its_mac_is_elsewhere_by_now: {
        let mut case = mend(&[one()]).without("vnet0");
        case.fdb[0].1.port = 8;
        case
    }, "vnet0", false => "
        ip neigh del 10.1.0.1 dev red
        forgotten
        or leaving: vnet0
    ";
    what_another_has_by_now_is_left: mend(&[one()]).has(neigh("10.1.0.1", B, true)), "vnet0", false => "
        bridge fdb del A dev vnet0 master
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        forgotten
        or leaving: vnet0
    ";
    what_dnsmasq_has_changed_goes: {
        mend(&[one()]).has(Neigh { permanent: false, ..neigh("10.1.0.1", A, false) })
    }, "vnet0", false => "
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        forgotten
        or leaving: vnet0
    ";
    what_we_enslaved_is_released: mend(&[Endpoint { enslaved: true, ..one() }]), "vnet0", false => "
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        ip link set vnet0 nomaster
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        forgotten
        or leaving: vnet0
    ";
    what_is_left_on_a_network_that_holds_its_ports_stays_held: mend(&[secured()]), "vnet0", true => "
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        nft, table bridge evpn-hook: port vnet0, delete mac, A
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        forgotten
        or leaving: vnet0
    ";
    what_is_left_on_another_is_let_go: mend(&[secured()]), "vnet0", false => "
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        bridge link set dev vnet0 locked off learning on
        nft, table bridge evpn-hook: port vnet0, delete mac, A
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        forgotten
        or leaving: vnet0
    ";
    what_was_refused_before_is_tried_again: {
        let mut case = two();
        let record = case.before.as_mut().unwrap();
        record.leaving.push(record.endpoints.remove(0));
        case
    }, "", false => "
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        vnet1 registered 10.1.0.2
        or leaving: vnet0
    ";
    who_is_announced_stays_announced: {
        let mut case = mend(&[one()]);
        case.before.as_mut().unwrap().incoming_since = Some(NOW);
        case
    }, "vnet0", false => "
        ip neigh del 10.1.0.1 dev red
        bridge fdb del A dev vnet0 master
        bridge fdb replace A dev vxlan20 dst 10.0.0.1 self dynamic; bridge fdb del A dev vxlan20 dst 10.0.0.1 self
        or leaving: vnet0
    ";
}
