//! What a guest's plan is, word for word, and what is never touched.

use super::*;
use crate::model::Source;
use crate::plan::fixture::{link, mac, name};
use crate::plan::seen::PortFlags;
use crate::plan::shown;

const MAC: &str = "52:54:00:03:82:d8";

fn bridge() -> Link {
    let kind = LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: false };
    Link { mac: Some(mac("00:00:00:11:11:10")), ..link("red-l2", 7, kind) }
}

fn tap() -> Link {
    Link { master: Some(7), ..link("vnet0", 12, LinkKind::Other("tun".into())) }
}

fn fdb(port: u32, ext_learned: bool) -> Option<Fdb> {
    Some(Fdb { mac: mac(MAC), port, is_static: true, ext_learned })
}

fn neigh(ip: &str, lladdr: &str, ext_learned: bool) -> Neigh {
    Neigh {
        ip: ip.parse().unwrap(),
        mac: Some(mac(lladdr)),
        permanent: true,
        ext_learned,
        ours: !ext_learned,
        router: false,
    }
}

/// On its bridge, not registered.
fn wired() -> Seen {
    Seen { device: Some(tap()), bridge: Some(bridge()), ..Seen::default() }
}

/// Everything as it should be.
fn whole() -> Seen {
    let neighs = vec![neigh("10.1.0.60", MAC, false), neigh("fd00:1::60", MAC, false)];
    Seen { fdb: fdb(12, false), neighs, ..wired() }
}

/// Calls a planner with what is wanted of `vnet0`.
fn with<T>(enslave: bool, mac_of: Option<&str>, plan: impl FnOnce(&Wanted) -> T) -> T {
    let ips = ["10.1.0.60", "fd00:1::60"].map(|ip| Address::new(ip.parse().unwrap(), Source::Metadata));
    let (device, bridge) = (name("vnet0"), name("red-l2"));
    plan(&Wanted {
        mend: false,
        guest: "vm vm1",
        device: &device,
        bridge: &bridge,
        network: "red",
        mac: mac_of.map(mac),
        ips: &ips,
        beside: &[],
        guard: Guard::new(),
        index: None,
        enslave,
    })
}

#[track_caller]
fn registers(seen: &Seen, expected: &str) {
    assert_eq!(shown(&with(false, Some(MAC), |want| register(want, seen)).unwrap()), expected);
}

#[track_caller]
fn withdraws(seen: &Seen, expected: &str) {
    assert_eq!(shown(&with(false, Some(MAC), |want| withdraw(want, seen))), expected);
}

const FDB: &str = "bridge fdb replace 52:54:00:03:82:d8 dev vnet0 master static\n";
const NEIGH: &str = "ip neigh replace 10.1.0.60 lladdr 52:54:00:03:82:d8 dev red-l2 nud permanent\n";
const NEIGH6: &str = "ip neigh replace fd00:1::60 lladdr 52:54:00:03:82:d8 dev red-l2 nud permanent\n";

#[test]
fn a_new_guest_is_registered() {
    registers(&wired(), &format!("{FDB}{NEIGH}{NEIGH6}"));
    registers(&whole(), "");
}

#[test]
fn half_done_gets_what_is_missing() {
    let of = |change: &dyn Fn(&mut Seen)| {
        let mut seen = whole();
        change(&mut seen);
        seen
    };
    registers(&of(&|s| s.neighs.truncate(1)), NEIGH6);
    registers(&of(&|s| s.neighs[0].permanent = false), NEIGH);
    registers(&of(&|s| s.neighs[0].mac = Some(mac("52:54:00:00:00:99"))), NEIGH);
    registers(&of(&|s| s.fdb = None), FDB);
    registers(&of(&|s| s.fdb.as_mut().unwrap().is_static = false), FDB);
    // The kernel keeps that flag on an entry that came back from the VXLAN port to ours.
    registers(&of(&|s| s.fdb.as_mut().unwrap().ext_learned = true), "");
    registers(&of(&|s| s.device.as_mut().unwrap().up = false), "ip link set vnet0 up\n");
    registers(&of(&|s| s.device.as_mut().unwrap().mtu = 1500), "ip link set vnet0 mtu 1450\n");
}

// What a port lets in is said before the port joins its bridge, and taken back after it has left.
#[test]
fn a_held_port_lets_in_its_guest_alone() {
    let ips = [Address::new("10.1.0.60".parse().unwrap(), Source::Metadata)];
    let (device, bridge) = (name("vnet0"), name("red-l2"));
    let lets = crate::plan::guard::guard(crate::config::PortSecurity::MacIp, Some(mac(MAC)), &ips);
    let want = Wanted {
        mend: false,
        guest: "vm vm1",
        device: &device,
        bridge: &bridge,
        network: "red",
        mac: Some(mac(MAC)),
        ips: &ips,
        beside: &[],
        guard: lets.clone(),
        index: Some(12),
        enslave: true,
    };
    let names = "mac-ip, 52:54:00:03:82:d8, 52:54:00:03:82:d8, 10.1.0.60, fe80::5054:ff:fe03:82d8";
    let guard = format!("nft, table bridge evpn-hook: port vnet0, add {names}\n");
    let lock = "bridge link set dev vnet0 locked on learning off\n";
    let loose = Seen { device: Some(Link { master: None, ..tap() }), ..wired() };
    let enslave = "ip link set vnet0 master red-l2\n";
    let heard = "wait until FRR has vnet0 on red-l2\n";
    assert_eq!(shown(&register(&want, &loose).unwrap()), format!("{guard}{enslave}{heard}{FDB}{lock}{NEIGH}"));
    // Still elsewhere: what it will say must be heard, and nothing else.
    assert_eq!(shown(&wire(&want, &loose).unwrap()), format!("{guard}{enslave}"));
    let port = |locked, learning| PortFlags { locked, learning: Some(learning), ..PortFlags::default() };
    let held = |flags| {
        let device = Some(Link { port: flags, ..tap() });
        Seen {
            device,
            guard: lets.clone(),
            fdb: fdb(12, false),
            neighs: vec![neigh("10.1.0.60", MAC, false)],
            ..wired()
        }
    };
    for (flags, missing) in [
        (port(Some(true), false), ""),
        (port(None, false), ""),
        (port(Some(false), false), lock),
        (port(Some(true), true), lock),
        (port(None, true), lock),
    ] {
        assert_eq!(shown(&register(&want, &held(flags)).unwrap()), missing, "{flags:?}");
    }
    let mut more = held(port(Some(true), false));
    more.guard.insert(Lets::V4("10.1.0.99".parse().unwrap()));
    assert_eq!(shown(&register(&want, &more).unwrap()), "nft, table bridge evpn-hook: port vnet0, delete 10.1.0.99\n");
    let gone = format!("nft, table bridge evpn-hook: port vnet0, delete {names}\n");
    assert_eq!(
        shown(&withdraw(&want, &held(port(Some(true), false)))),
        format!(
            "ip neigh del 10.1.0.60 dev red-l2\nbridge fdb del {MAC} dev vnet0 master\nbridge link set dev vnet0 locked off learning on\nip link set vnet0 nomaster\n{gone}"
        )
    );
    // The tap is gone before its guest is.
    assert_eq!(shown(&withdraw(&want, &Seen { device: None, ..wired() })), gone);
}

// A guest that has just arrived: the speaker still holds its entries for the VTEP that it came from.
#[test]
fn what_the_speaker_learned_is_replaced() {
    let neighs = vec![neigh("10.1.0.60", MAC, true), neigh("fd00:1::60", MAC, true)];
    registers(&Seen { fdb: fdb(8, true), neighs, ..wired() }, &format!("{FDB}{NEIGH}{NEIGH6}"));
}

#[test]
fn what_a_neighbour_was_comes_back() {
    let seen = Seen { neighs: vec![neigh("10.1.0.60", "52:54:00:00:00:99", false)], ..wired() };
    let plan = with(false, Some(MAC), |want| register(want, &seen)).unwrap();
    let undo: String = plan.iter().rev().flat_map(|p| &p.undo).map(|step| format!("{step}\n")).collect();
    assert_eq!(
        undo,
        format!(
            "ip neigh del fd00:1::60 dev red-l2
ip neigh replace 10.1.0.60 lladdr 52:54:00:00:00:99 dev red-l2 nud permanent
bridge fdb del {MAC} dev vnet0 master
"
        )
    );
}

#[test]
fn only_our_own_taps_are_enslaved() {
    let loose = Seen { device: Some(Link { master: None, up: false, mtu: 1500, ..tap() }), ..wired() };
    let plan = with(true, Some(MAC), |want| wire(want, &loose)).unwrap();
    assert_eq!(shown(&plan), "ip link set vnet0 master red-l2\nip link set vnet0 mtu 1450\nip link set vnet0 up\n");
    let undo: String = plan.iter().rev().flat_map(|p| &p.undo).map(|step| format!("{step}\n")).collect();
    assert_eq!(undo, "ip link set vnet0 down\nip link set vnet0 mtu 1500\nip link set vnet0 nomaster\n");
    let refusal = with(false, Some(MAC), |want| wire(want, &loose)).unwrap_err().to_string();
    assert_eq!(refusal, "vm vm1: device vnet0 is on no bridge, expected red-l2");
    // A container's MAC is not known when its veth comes up.
    assert_eq!(shown(&with(true, None, |want| register(want, &wired())).unwrap()), "");
}

#[test]
fn what_contradicts_is_refused() {
    let refuses = |change: &dyn Fn(&mut Seen), words: &str| {
        let mut seen = wired();
        change(&mut seen);
        let refusal = with(true, Some(MAC), |want| register(want, &seen)).unwrap_err();
        assert_eq!(refusal.to_string(), format!("vm vm1: {words}"));
    };
    refuses(&|s| s.device = None, "device vnet0 is not there: name the guest's tap or veth on this host");
    refuses(&|s| s.bridge = None, "bridge red-l2 of network red is not there: bring the network up first");
    let veth = || LinkKind::Other("veth".into());
    refuses(&|s| s.bridge.as_mut().unwrap().kind = veth(), "device red-l2 of network red is not a bridge");
    for kind in [
        bridge().kind,
        LinkKind::Vrf { table: 10.try_into().unwrap() },
        LinkKind::Vxlan { vni: None, local: None, port: 4789, learning: false },
    ] {
        let words = "device vnet0 cannot be a guest's: name its tap or veth";
        refuses(&|s| s.device.as_mut().unwrap().kind = kind.clone(), words);
    }
    refuses(&|s| s.device.as_mut().unwrap().index = 1, "device vnet0 cannot be a guest's: name its tap or veth");
    let elsewhere = "device vnet0 is already on virbr0, not on red-l2: 'ip link set vnet0 nomaster' first";
    refuses(
        &|s| {
            s.device.as_mut().unwrap().master = Some(99);
            s.master_name = Some(name("virbr0"));
        },
        elsewhere,
    );
    refuses(
        &|s| s.device.as_mut().unwrap().master = Some(99),
        "device vnet0 is already on another bridge, not on red-l2: 'ip link set vnet0 nomaster' first",
    );
    refuses(
        &|s| s.bridge.as_mut().unwrap().mac = Some(mac(MAC)),
        "MAC 52:54:00:03:82:d8 is the gateway's on red-l2: give the guest another",
    );
}

const DEL_NEIGHS: &str = "ip neigh del 10.1.0.60 dev red-l2\nip neigh del fd00:1::60 dev red-l2\n";
const DEL_FDB: &str = "bridge fdb del 52:54:00:03:82:d8 dev vnet0 master\n";

#[test]
fn the_end_of_a_mac_is_said_again() {
    let said = |seen: &Seen| {
        shown(&with(false, Some(MAC), |want| end(want, seen, "20".parse().unwrap(), "10.0.0.1".parse().unwrap())))
    };
    let entry = format!("{MAC} dev vxlan20 dst 10.0.0.1 self");
    let again = format!("bridge fdb replace {entry} dynamic; bridge fdb del {entry}\n");
    let gone = Seen { device: None, fdb: None, ..whole() };
    for seen in [&gone, &whole(), &wired()] {
        assert_eq!(said(seen), again, "{seen:?}");
    }
    let learned = |ip: &str| Neigh {
        ip: ip.parse().unwrap(),
        mac: Some(mac(MAC)),
        permanent: false,
        ext_learned: false,
        ours: false,
        router: false,
    };
    let around = vec![
        learned("fe80::5054:ff:fe03:82d8"),
        Neigh { mac: Some(mac("52:54:00:00:00:99")), ..learned("10.1.0.99") },
        Neigh { ext_learned: true, ..learned("10.1.0.98") },
        Neigh { permanent: true, ..learned("10.1.0.97") },
        Neigh { mac: None, ..learned("10.1.0.96") },
    ];
    let forgets = "ip neigh del fe80::5054:ff:fe03:82d8 dev red-l2\n";
    assert_eq!(said(&Seen { around: around.clone(), ..gone }), format!("{forgets}{again}"));
    let of_another_vtep = Seen { device: None, fdb: fdb(9, true), around, ..whole() };
    for seen in [of_another_vtep, Seen::default()] {
        assert_eq!(said(&seen), "", "{seen:?}");
    }
}

#[test]
fn a_guest_is_withdrawn() {
    withdraws(&whole(), &format!("{DEL_NEIGHS}{DEL_FDB}"));
    withdraws(&wired(), "");
    withdraws(&Seen::default(), "");
    withdraws(&Seen { device: None, ..whole() }, DEL_NEIGHS);
    let ours = with(true, Some(MAC), |want| withdraw(want, &whole()));
    assert_eq!(shown(&ours), format!("{DEL_NEIGHS}{DEL_FDB}ip link set vnet0 nomaster\n"));
    assert_eq!(shown(&with(true, None, |want| withdraw(want, &wired()))), "ip link set vnet0 nomaster\n");
    let moved = Seen { device: Some(Link { master: Some(99), ..tap() }), ..wired() };
    assert_eq!(shown(&with(true, None, |want| withdraw(want, &moved))), "", "somebody has put it elsewhere");
}

#[test]
fn a_mac_is_behind_any_of_its_guests_ports() {
    let beside = [name("vnet1")];
    let with_two = |seen: &Seen, plan: &dyn Fn(&Wanted, &Seen) -> Plan| {
        let two = Seen { beside: vec![(13, name("vnet1"))], ..seen.clone() };
        with(false, Some(MAC), |want| shown(&plan(&Wanted { beside: &beside, ..want.clone() }, &two)))
    };
    let register = |want: &Wanted, seen: &Seen| register(want, seen).unwrap();
    let moved = Seen { fdb: fdb(13, false), ..whole() };
    assert_eq!(with_two(&moved, &register), "", "a bond's other NIC is active");
    assert_eq!(with_two(&Seen { fdb: fdb(14, false), ..whole() }, &register), FDB, "somebody else's");
    let aged = Fdb { is_static: false, ..fdb(13, false).unwrap() };
    assert_eq!(with_two(&Seen { fdb: Some(aged), ..whole() }, &register), FDB);
    let other = DEL_FDB.replace("vnet0", "vnet1");
    assert_eq!(with_two(&moved, &withdraw), format!("{DEL_NEIGHS}{other}"), "nothing of it stays behind");
    assert!(with_two(&moved, &tell).contains("dev vnet1"));
}

#[test]
fn who_routes_ipv6_is_told_as_a_router() {
    let ips = [Address { router: true, ..Address::new("fd00:1::60".parse().unwrap(), Source::Metadata) }];
    let replace = "ip neigh replace fd00:1::60 lladdr 52:54:00:03:82:d8 dev red-l2 nud permanent";
    let of = |router| {
        let mut seen = whole();
        seen.neighs[1].router = router;
        with(false, Some(MAC), |want| register(&Wanted { ips: &ips, ..want.clone() }, &seen)).unwrap()
    };
    let plan = of(false);
    assert_eq!(shown(&plan), format!("{replace} router\n"));
    assert_eq!(plan[0].undo.iter().map(|step| step.to_string()).collect::<Vec<_>>(), [replace]);
    assert_eq!(shown(&of(true)), "");
    let tells = with(false, Some(MAC), |want| {
        tell(&Wanted { ips: &ips, ..want.clone() }, &{
            let mut seen = whole();
            seen.neighs[1].router = true;
            seen
        })
    });
    assert!(shown(&tells).contains("dev red-l2 router nud reachable"), "{}", shown(&tells));
}

#[test]
fn what_others_have_by_now_stays() {
    // Another VTEP's, told by the speaker.
    let neighs = vec![neigh("10.1.0.60", MAC, true), neigh("fd00:1::60", MAC, true)];
    withdraws(&Seen { fdb: fdb(8, true), neighs, ..wired() }, "");
    withdraws(&Seen { fdb: fdb(12, true), ..whole() }, &format!("{DEL_NEIGHS}{DEL_FDB}"));
    // Another port's.
    withdraws(&Seen { fdb: fdb(13, false), ..whole() }, DEL_NEIGHS);
    // Another guest's address.
    let neighs = vec![neigh("10.1.0.60", "52:54:00:00:00:99", false)];
    withdraws(&Seen { neighs, ..whole() }, DEL_FDB);
    // An address that was not ours to begin with, and one that is merely learned.
    let learned = Neigh { permanent: false, ours: false, ..neigh("10.1.0.60", MAC, false) };
    withdraws(&Seen { neighs: vec![neigh("10.1.0.99", MAC, false), learned], ..whole() }, DEL_FDB);
}

#[test]
fn withdraw_takes_what_dhcp_made_of_our_neighbour_and_nothing_of_others() {
    let (device, bridge) = ("vnet0".parse().unwrap(), "red-l2".parse().unwrap());
    let mac: Mac = "52:54:00:03:82:d8".parse().unwrap();
    let ip: IpAddr = "10.1.0.60".parse().unwrap();
    let want = Wanted {
        mend: false,
        guest: "vm red",
        device: &device,
        bridge: &bridge,
        network: "red",
        mac: Some(mac),
        ips: &[Address::new(ip, Source::Metadata)],
        beside: &[],
        guard: Guard::new(),
        index: None,
        enslave: false,
    };
    let taken = |permanent, ours, ext_learned, owner: &str| {
        let neigh = Neigh { ip, mac: Some(owner.parse().unwrap()), permanent, ext_learned, ours, router: false };
        !withdraw(&want, &Seen { neighs: vec![neigh], ..Seen::default() }).is_empty()
    };
    assert!(taken(true, true, false, "52:54:00:03:82:d8"), "as we put it there");
    assert!(taken(false, true, false, "52:54:00:03:82:d8"), "after dnsmasq's SIOCSARP");
    assert!(!taken(false, false, false, "52:54:00:03:82:d8"), "learned by the kernel");
    assert!(!taken(false, true, true, "52:54:00:03:82:d8"), "another VTEP's by now");
    assert!(!taken(false, true, false, "52:54:00:03:82:d9"), "another guest's by now");
}
