//! Routes.

use crate::*;
use evpn_hook::plan::seen::Route;

netns!(a_vrfs_misses_do_not_reach_the_main_table, kernel, {
    let table = 10.try_into().unwrap();
    assert!(!kernel.unreachable(table).unwrap());
    for _ in 0..2 {
        kernel.apply(&Step::AddUnreachable { table }).unwrap();
        assert!(kernel.unreachable(table).unwrap());
    }
    for family in ["-4", "-6"] {
        let seen = json(&format!("ip {family} -j route show table 10"));
        assert_eq!(seen.as_array().unwrap().len(), 1, "{seen}");
        assert_eq!((&seen[0]["type"], &seen[0]["dst"]), (&"unreachable".into(), &"default".into()), "{seen}");
        assert_eq!(seen[0]["metric"], 4_278_198_272u32);
    }
    // systemd-networkd leaves it.
    for family in ["-4", "-6"] {
        let seen = json(&format!("ip {family} -j route show table 10 proto kernel"));
        assert_eq!(seen.as_array().unwrap().len(), 1, "{seen}");
    }
    kernel.apply(&Step::DelUnreachable { table }).unwrap();
    assert!(!kernel.unreachable(table).unwrap());
    // An earlier version's goes as well.
    sh(
        "ip route add unreachable default metric 4278198272 table 10 proto 69 && ip -6 route add unreachable default metric 4278198272 table 10 proto 69",
    );
    kernel.apply(&Step::DelUnreachable { table }).unwrap();
    assert!(!kernel.unreachable(table).unwrap());
    sh("ip route add unreachable 10.0.0.0/8 table 11");
    assert!(!kernel.unreachable(11.try_into().unwrap()).unwrap());
});

netns!(a_vrf_table_is_unreachable_but_for_its_own, kernel, {
    if !has_vrf() {
        return skip("a_vrf_table_is_unreachable_but_for_its_own", "this kernel has no VRF");
    }
    let table = 10.try_into().unwrap();
    kernel.apply(&Step::AddVrf { name: name("red"), table }).unwrap();
    kernel.apply(&Step::AddUnreachable { table }).unwrap();
    kernel.apply(&Step::SetUp { dev: name("red"), up: true }).unwrap();
    sh("ip link set lo up");
    // EHOSTUNREACH is the route's own answer; without it the main table would be asked, and say ENETUNREACH here.
    let (ok, text) = try_sh("ip route get vrf red 192.0.2.1");
    assert!(!ok && text.contains("No route to host"), "{text}");
});

netns!(the_way_to_an_address_is_the_kernels, kernel, {
    sh(
        "ip link set lo up && ip address add 10.0.0.1/32 dev lo && ip link add up0 type veth peer name up0p && ip link set up0p up",
    );
    sh("ip link set up0 up && ip address add 192.0.2.1/24 dev up0 && ip route add 10.0.0.2/32 via 192.0.2.2");
    sh("ip -6 address add 2001:db8::1/64 dev up0 nodad && ip route add 10.0.0.3/32 via inet6 2001:db8::2 dev up0");
    sh("ip route add unreachable 10.0.0.4/32 && ip -6 route add unreachable 2001:db8:4::/48");
    let up0 = u32::try_from(ip_link("up0")["ifindex"].as_u64().unwrap()).unwrap();
    let mut way = |ip: &str| kernel.route_to(ip.parse().unwrap(), None).unwrap();
    let via = |via: &str| Some(Route { device: up0, via: Some(via.parse().unwrap()), local: false });
    assert_eq!(way("10.0.0.2"), via("192.0.2.2"));
    assert_eq!(way("10.0.0.3"), via("2001:db8::2"));
    assert_eq!(way("192.0.2.9"), Some(Route { device: up0, via: None, local: false }));
    assert_eq!(way("2001:db8::9"), Some(Route { device: up0, via: None, local: false }));
    assert!(way("10.0.0.1").is_some_and(|route| route.local));
    for nowhere in ["10.0.0.4", "10.0.0.5", "2001:db8:4::1", "2001:db8:5::1"] {
        assert_eq!(way(nowhere), None, "{nowhere}");
    }
});

netns!(by_which_device_the_default_route_leaves, kernel, {
    sh("ip link set lo up && ip link add up0 type veth peer name up0p && ip link set up0p up && ip link set up0 up");
    let up0 = u32::try_from(ip_link("up0")["ifindex"].as_u64().unwrap()).unwrap();
    sh("ip address add 192.0.2.1/24 dev up0 && ip route add 10.0.0.0/8 via 192.0.2.2");
    assert!(!kernel.has_default_route(up0).unwrap());
    for (family, via) in [("-4", "192.0.2.254"), ("-6", "fe80::1")] {
        sh(&format!("ip {family} route add default via {via} dev up0"));
        assert!(kernel.has_default_route(up0).unwrap(), "{family}");
        assert!(!kernel.has_default_route(1).unwrap(), "{family}");
        sh(&format!("ip {family} route del default"));
    }
});
