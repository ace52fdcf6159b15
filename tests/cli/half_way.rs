//! A step fails after others have succeeded: what was done is undone, what was there stays.

use crate::common::{json, sh};
use crate::host::{CONFIG, Host, fdb, neighbours, snapshot, tap};
use crate::on_a_host;
use std::net::UdpSocket;

const MAC: &str = "52:54:00:03:82:d8";

on_a_host!(a_network_whose_tunnel_port_is_taken, {
    let host = Host::new(CONFIG);
    let _taken = UdpSocket::bind("0.0.0.0:4789").unwrap();
    let parts = &["ip link set vxlan20 up: Address already in use", "[vtep] port"];
    host.refuses(&["network", "up", "flat"], 1, parts);
});

on_a_host!(a_bridge_that_was_there_stays_as_it_was, {
    let host = Host::new(CONFIG);
    let _taken = UdpSocket::bind("0.0.0.0:4789").unwrap();
    sh("ip link add flat-l2 address 00:00:00:11:11:10 mtu 1400 type bridge && ip link set flat-l2 up");
    sh("ip address add 10.1.0.1/24 dev flat-l2");
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 up");
    host.refuses(&["network", "up", "flat"], 1, &["ip link set vxlan20 up: Address already in use"]);
});

on_a_host!(a_host_that_has_ipv6_off_by_default, {
    let host = Host::new(&CONFIG.replace("[\"10.1.0.1/24\"]", "[\"10.1.0.1/24\", \"fd00:1::1/64\"]"));
    sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    host.run(&["network", "up", "flat"]).ok();
    assert!(snapshot().contains("address \"flat-l2\" \"fd00:1::1\" 64"), "{}", snapshot());
});

on_a_host!(a_network_of_several_that_fails_does_not_touch_the_others, {
    let host = Host::new(CONFIG.split("[[network]]\nname = \"routed\"").next().unwrap());
    host.run(&["network", "up", "flat"]).ok();
    tap("vxlan21");
    host.refuses(&["network", "up", "--all"], 1, &["network other: device vxlan21 is there and is not a VXLAN device"]);
});

on_a_host!(an_attach_whose_second_address_is_refused, {
    let host = Host::flat();
    tap("vnet0");
    sh("sysctl -qw net.ipv6.conf.flat-l2.disable_ipv6=1");
    let attach = |ips: &[&'static str]| {
        let ips = ips.iter().flat_map(|ip| ["--ip", ip]);
        ["attach", "vnet0", "--network", "flat", "--mac", MAC].into_iter().chain(ips).collect::<Vec<_>>()
    };
    let parts =
        &["ip neigh replace fd00:1::60 lladdr 52:54:00:03:82:d8 dev flat-l2", "is IPv6 disabled on this device"];
    host.refuses(&attach(&["10.1.0.60", "fd00:1::60"]), 1, parts);
    // The same for a guest that is attached already: it keeps what it had.
    assert_eq!(host.run(&attach(&["10.1.0.60", "10.1.0.61"])).status, 0);
    host.refuses(&attach(&["10.1.0.61", "10.1.0.62", "fd00:1::60"]), 1, parts);
    let other_mac = ["attach", "vnet0", "--network", "flat", "--mac", "52:54:00:03:82:d9", "--ip", "fd00:1::60"];
    host.refuses(&other_mac, 1, &["ip neigh replace fd00:1::60 lladdr 52:54:00:03:82:d9"]);
    assert_eq!(fdb(), format!("fdb {MAC} dev vnet0\n"));
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\nneigh 10.1.0.61 {MAC} dev flat-l2\n"));
});

on_a_host!(a_neighbour_that_was_there_comes_back, {
    let host = Host::flat();
    tap("vnet0");
    sh("sysctl -qw net.ipv6.conf.flat-l2.disable_ipv6=1");
    sh("ip neigh add 10.1.0.60 lladdr 52:54:00:00:00:99 dev flat-l2 nud permanent");
    let args = ["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60", "--ip", "fd00:1::60"];
    host.refuses(&args, 1, &["ip neigh replace fd00:1::60"]);
    assert_eq!(neighbours(), "neigh 10.1.0.60 52:54:00:00:00:99 dev flat-l2\n");
});

// A run that was killed: what it had done is found and completed, and not taken for somebody else's.
on_a_host!(what_a_killed_run_left_is_completed, {
    let host = Host::flat();
    tap("vnet0");
    let whole = snapshot();
    for damage in [
        "ip link del vxlan20",
        "ip link set vxlan20 nomaster",
        "ip link set vxlan20 down",
        "ip link set flat-l2 down",
        "ip address del 10.1.0.1/24 dev flat-l2",
        "ip link set flat-l2 mtu 1400",
        "ip link del flat-l2",
        "ip link del vxlan20; ip link del flat-l2",
    ] {
        sh(damage);
        let status = host.status();
        assert_ne!(status["networks"][0]["state"], "up", "{damage}: {status}");
        assert_eq!(host.run(&["status", "--check"]).status, 3, "{damage}");
        host.run(&["network", "up", "flat"]).ok();
        assert_eq!(sorted(&snapshot()), sorted(&whole), "{damage}");
        assert_eq!(host.run(&["network", "up", "flat", "--dry-run"]).ok().stdout, "nothing to do\n", "{damage}");
    }
    let ports = json("bridge -j -d link show dev vxlan20");
    assert_eq!((&ports[0]["learning"], &ports[0]["neigh_suppress"]), (&false.into(), &true.into()), "{ports}");
});

/// Devices that were made anew stand at another place in the kernel's list.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("link \"vxlan20\"")).collect();
    lines.sort_unstable();
    lines
}
