//! The host's routing rules and tables beside VRFs: what it had means what it meant, and no tenant's packet takes its routes.

use crate::common::{has_vrf, sh, skip, try_sh};
use crate::host::{CONFIG, Host, snapshot};
use crate::on_a_host;
use std::os::unix::process::ExitStatusExt;

/// A second tenant with the first one's subnet.
const BLUE: &str = r#"
[[vrf]]
name = "blue"
table = 11
vni = 11
[[network]]
name = "blue"
bridge = "blue-l2"
vni = 40
vrf = "blue"
gateway = ["10.3.0.1/24", "fd00:3::1/64"]
mac = "00:00:00:11:11:30"
"#;

/// An uplink with the underlay behind it, which answers.
const UPLINK: &str = "ip netns add far 2>&-; ip link add eth0 type veth peer name far netns far && ip link set eth0 up
    ip address add 192.0.2.1/24 dev eth0; ip -6 address add 2001:db8::1/64 dev eth0 nodad
    ip -n far link set far up; ip -n far link set lo up
    ip -n far address add 192.0.2.254/24 dev far; ip -n far -6 address add 2001:db8::fe/64 dev far nodad
    ip -n far route add default via 192.0.2.1; ip -n far -6 route add default via 2001:db8::1";

/// Rules of a host with two uplinks, of WireGuard's wg-quick, and of one who sends all to table main first.
const OPERATORS: &str = "ip route add default via 192.0.2.254; ip -6 route add default via 2001:db8::fe
    ip route add default via 192.0.2.254 dev eth0 table 100; ip -6 route add default via 2001:db8::fe dev eth0 table 100
    ip rule add pref 100 from 192.0.2.1 lookup 100; ip -6 rule add pref 100 from 2001:db8::1 lookup 100
    for ip in 'ip' 'ip -6'; do
        $ip rule add pref 101 iif eth0 lookup 100
        $ip rule add pref 110 not fwmark 0xca6c lookup 100
        $ip rule add pref 500 lookup main
    done
    ip rule add from 198.51.100.7 lookup 100";

/// A guest of a VRF in a namespace of its own, with this address and the tenant's gateway.
fn guest(name: &str, bridge: &str, host: u32) {
    sh(&format!(
        "ip netns add {name}; ip link add {name} type veth peer name eth0 netns {name} && ip link set {name} master {bridge} up
         ip -n {name} link set lo up; ip -n {name} link set eth0 up
         ip -n {name} address add 10.3.0.{host}/24 dev eth0; ip -n {name} -6 address add fd00:3::{host}/64 dev eth0 nodad
         ip -n {name} route add default via 10.3.0.1; ip -n {name} -6 route add default via fd00:3::1"
    ));
}

fn pings(from: &str, to: &str) -> bool {
    try_sh(&format!("{from} ping -c2 -i0.2 -W1 -q {to}")).0
}

fn own_addresses_answer(when: &str) {
    for address in ["192.0.2.1", "2001:db8::1", "10.0.0.1", "127.0.0.1", "::1"] {
        assert!(pings("", address), "{when}: the host's own {address}");
    }
    assert!(pings("", "-I 192.0.2.1 192.0.2.1"), "{when}: its own address from its own address");
    for address in ["192.0.2.1", "2001:db8::1", "10.0.0.1"] {
        assert!(pings("ip netns exec far", address), "{when}: {address} from outside");
    }
}

// hook.md 4, field F07.
on_a_host!(the_operators_rules_mean_what_they_meant, {
    if !has_vrf() {
        return skip("the_operators_rules_mean_what_they_meant", "this kernel has no VRF");
    }
    let host = Host::new(&format!("{CONFIG}{BLUE}"));
    sh("mount -t tmpfs none /run/netns 2>&- || mkdir -p /run/netns");
    sh(UPLINK);
    sh(OPERATORS);
    sh("ip link add probe type vrf table 4242 && ip link del probe"); // the kernel adds its l3mdev rule with the first VRF
    let rules = || sh("ip -d rule; ip -d -6 rule");
    let before = rules();
    own_addresses_answer("before");
    for network in ["routed", "blue"] {
        assert_eq!(host.run(&["network", "up", network]).status, 0);
        own_addresses_answer(network);
        assert_eq!(host.run(&["network", "up", network, "--dry-run"]).ok().stdout, "nothing to do\n");
    }
    guest("r1", "red-l2", 11);
    guest("b1", "blue-l2", 11);
    sh("ip rule add from 198.51.100.8 lookup 100; ip -6 rule add lookup main");
    for tenant in ["r1", "b1"] {
        let from = format!("ip netns exec {tenant}");
        assert!(pings(&from, "10.3.0.1") && pings(&from, "fd00:3::1"), "{tenant}: its gateway");
        for secret in ["192.0.2.1", "192.0.2.254", "10.0.0.1", "2001:db8::1", "2001:db8::fe"] {
            assert!(!pings(&from, secret), "{tenant} reaches {secret}");
        }
    }
    for (vrf, other) in [("red", "blue"), ("blue", "red")] {
        let own = format!("{vrf}-l2");
        for address in ["10.3.0.11", "fd00:3::11"] {
            let way = sh(&format!("ip route get {address} vrf {vrf}"));
            assert!(way.contains(&own) && !way.contains(other), "{way}");
        }
        assert!(
            pings(&format!("ip vrf exec {vrf}"), "10.3.0.11") || pings("", &format!("-I {vrf} 10.3.0.11")),
            "{vrf}"
        );
    }
    own_addresses_answer("with a rule without a preference");
    sh("ip rule del from 198.51.100.8; ip -6 rule del pref 0 lookup main");
    sh("ip link del r1; ip link del b1");
    for network in ["routed", "blue"] {
        assert_eq!(host.run(&["network", "down", network]).status, 0);
    }
    sh("mount -t tmpfs none /etc && mount -t tmpfs none /usr/share");
    assert_eq!(host.run(&["uninstall"]).status, 0);
    assert_eq!(rules(), before);
    own_addresses_answer("after");
});

on_a_host!(a_rule_that_would_stand_before_the_vrfs_is_named, {
    if !has_vrf() {
        return skip("a_rule_that_would_stand_before_the_vrfs_is_named", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    sh("ip -6 rule add pref 0 from 2001:db8::/32 lookup main");
    let words = "routing rule '0: from 2001:db8::/32 lookup main' would be asked before the VRFs: add it again with 'preference 1' or more";
    host.refuses(&["network", "up", "routed"], 1, &["network routed: ", words]);
    sh("ip -6 rule add pref 1 from 2001:db8::/32 lookup main; ip -6 rule del pref 0 from 2001:db8::/32");
    assert_eq!(host.run(&["network", "up", "routed"]).status, 0);
    // What comes later without a preference stands behind ours; once ours are gone it is in their way.
    sh("ip rule add from 198.51.100.8 lookup main");
    assert_eq!(host.run(&["network", "up", "routed", "--dry-run"]).ok().stdout, "nothing to do\n");
    sh("ip rule del pref 0 table local");
    host.run(&["sync"]);
    assert!(sh("ip rule").contains("0:\tfrom all lookup local"), "what is vital comes back all the same");
    let status = host.run(&["status", "--check"]);
    assert!(status.status == 3 && status.stdout.contains("0: from 198.51.100.8"), "{status:?}");
});

// hook.md 11: 10, 20 and 100 are everybody's numbers.
on_a_host!(a_table_with_routes_of_others_is_not_taken, {
    if !has_vrf() {
        return skip("a_table_with_routes_of_others_is_not_taken", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    sh("mount -t tmpfs none /run/netns 2>&- || mkdir -p /run/netns");
    sh(UPLINK);
    let refused = |route: &str| {
        let words =
            format!("routing table 10 has a route that is not VRF red's: '{route}': give the VRF another table");
        host.refuses(&["network", "up", "routed"], 1, &["network routed: ", &words]);
    };
    sh("ip route add default via 192.0.2.254 table 10");
    refused("default via 192.0.2.254 dev eth0");
    sh("ip route flush table 10; ip -6 route add blackhole 2001:db8:7::/48 table 10");
    refused("blackhole 2001:db8:7::/48");
    sh("ip -6 route flush table 10; ip route add unreachable default metric 4278198272 table 10 proto 69");
    assert_eq!(host.run(&["network", "up", "routed"]).status, 0, "what an earlier run left is ours");
    // What the tenant has by then is the tenant's.
    sh("ip route add 198.51.100.0/24 dev red-l2 table 10");
    assert_eq!(host.run(&["network", "up", "routed", "--dry-run"]).ok().stdout, "nothing to do\n");
    sh("ip route add blackhole 203.0.113.0/24 table 10; ip link del red");
    assert_eq!(host.run(&["sync"]).status, 0);
    assert!(snapshot().contains("link \"red-l2\" master \"red\""));
});

on_a_host!(two_first_vrfs_at_once, {
    if !has_vrf() {
        return skip("two_first_vrfs_at_once", "this kernel has no VRF");
    }
    let host = Host::new(&format!("{CONFIG}{BLUE}"));
    let rules = || [sh("ip -d rule"), sh("ip -d -6 rule")];
    for _ in 0..5 {
        let both = ["routed", "blue"].map(|network| host.command(&["network", "up", network]).spawn().unwrap());
        for mut child in both {
            assert!(child.wait().unwrap().success());
        }
        for rules in rules() {
            let zero = rules.lines().filter(|line| line.starts_with("0:")).count();
            assert_eq!((zero, rules.matches("lookup local").count()), (3, 1), "{rules}");
        }
        for network in ["routed", "blue"] {
            assert_eq!(host.run(&["network", "down", network]).status, 0);
        }
        sh("evict() { while ip $1 rule del pref 0 l3mdev; do :; done 2>&-; }; evict -4; evict -6");
    }
});

// Killed after each single change of a rule: table local was always there, and the next run finishes.
#[cfg(debug_assertions)]
on_a_host!(killed_amid_the_rules, {
    if !has_vrf() {
        return skip("killed_amid_the_rules", "this kernel has no VRF");
    }
    const LOG: &str = "/run/points";
    let host = Host::new(CONFIG);
    let up = |key: &str, value: &str| host.command(&["network", "up", "routed"]).env(key, value).status().unwrap();
    let clear = || {
        assert_eq!(host.run(&["network", "down", "routed"]).status, 0);
        sh("evict() { while ip $1 rule del pref 0 l3mdev; do :; done 2>&-; }; evict -4; evict -6");
    };
    assert!(up("EVPN_HOOK_FAULT_LOG", LOG).success());
    let whole = sh("ip -d rule; ip -d -6 rule");
    let log = std::fs::read_to_string(LOG).unwrap();
    let points: Vec<usize> =
        log.lines().enumerate().filter(|(_, what)| what.starts_with("amid the rules")).map(|(at, _)| at + 1).collect();
    assert_eq!(points.len(), 8, "{log}");
    for at in points {
        clear();
        assert_eq!(up("EVPN_HOOK_FAULT", &format!("kill {at}")).signal(), Some(9), "{at}");
        for ip in ["ip", "ip -6"] {
            assert!(sh(&format!("{ip} rule")).contains("0:\tfrom all lookup local"), "{at}");
        }
        assert_eq!(host.run(&["network", "up", "routed"]).status, 0);
        assert_eq!(sh("ip -d rule; ip -d -6 rule"), whole, "{at}");
    }
});
