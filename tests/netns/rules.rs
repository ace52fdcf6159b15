//! The host's routing rules, ours and others'. `ip -d rule` shows who made each.

use crate::*;
use evpn_hook::plan::rules::Order;

const CLOSED: Order = Order::VrfsFirst { bgp_closed: true };
const OPEN: Order = Order::VrfsFirst { bgp_closed: false };
const PLAIN: Order = Order::Plain { moved: false };

const OURS: &str = "0: from all iif lo lookup [l3mdev-table] ipproto tcp sport 179 prohibit proto kernel
0: from all lookup [l3mdev-table] proto kernel
0: from all lookup local proto kernel
";

fn rules(family: &str) -> String {
    let lines = sh(&format!("ip {family} -d rule"));
    // iproute2 has blanks and an "unicast" of its own where it wants them.
    lines
        .lines()
        .map(|line| line.replace("unicast", "").split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

fn both() -> [String; 2] {
    [rules("-4"), rules("-6")]
}

#[track_caller]
fn arrange(kernel: &mut Kernel, order: Order) {
    kernel.apply(&Step::Rules { order }).unwrap();
}

fn has_l3mdev(test: &str) -> bool {
    let has = try_sh("ip rule add pref 5 l3mdev protocol kernel && ip rule del pref 5").0;
    if !has {
        skip(test, "this kernel has no l3mdev rules");
    }
    has
}

netns!(ours_stand_before_all_and_go_without_a_trace, kernel, {
    if !has_l3mdev("ours_stand_before_all_and_go_without_a_trace") {
        return;
    }
    let first = both();
    for _ in 0..2 {
        arrange(kernel, CLOSED);
        for (now, first) in both().iter().zip(&first) {
            assert_eq!(*now, format!("{OURS}{}", first.split_once('\n').unwrap().1));
        }
    }
    let whole = both();
    arrange(kernel, OPEN);
    assert!(both().iter().all(|rules| !rules.contains("179") && rules.contains("[l3mdev-table]")));
    arrange(kernel, CLOSED);
    assert_eq!(both(), whole);
    sh("ip -6 rule del pref 0 ipproto tcp sport 179 && ip rule add pref 0 table local && ip rule flush");
    arrange(kernel, CLOSED);
    sh("ip rule add pref 32766 table main protocol kernel && ip rule add pref 32767 table default protocol kernel");
    assert_eq!(both(), whole, "what was taken, and what is there twice; and `ip rule flush` leaves preference 0");
    for _ in 0..2 {
        arrange(kernel, PLAIN);
        assert_eq!(both(), first);
    }
});

// hook.md 4, field F07: multi-homing, a VPN, and what comes later without a preference.
netns!(the_operators_rules_stand_behind_the_hosts_own_addresses_as_before, kernel, {
    if !has_l3mdev("the_operators_rules_stand_behind_the_hosts_own_addresses_as_before") {
        return;
    }
    sh("ip link set lo up; ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up");
    sh("ip address add 192.0.2.1/24 dev eth0; ip -6 address add 2001:db8::1/64 dev eth0 nodad");
    for (ip, far) in [("ip", "192.0.2.254"), ("ip -6", "2001:db8::fe")] {
        sh(&format!("{ip} route add default via {far} dev eth0 table 100"));
        let own = if ip == "ip" { "192.0.2.1" } else { "2001:db8::1" };
        sh(&format!("{ip} rule add pref 100 from {own} lookup 100; {ip} rule add pref 101 iif eth0 lookup 100"));
        sh(&format!("{ip} rule add pref 110 not fwmark 0x1 lookup 100; {ip} rule add pref 500 lookup main"));
        sh(&format!("{ip} rule add from 198.51.100.1 lookup 100 || {ip} rule add from 2001:db8:1::1 lookup 100"));
    }
    let first = both();
    let own = |when: &str| {
        for (ip, address) in [("ip", "192.0.2.1"), ("ip -6", "2001:db8::1")] {
            let way = sh(&format!("{ip} route get {address} from {address}"));
            assert!(way.starts_with("local "), "{when}: {way}");
        }
        sh("ping -c1 -W2 -q 192.0.2.1 && ping -c1 -W2 -q -I 192.0.2.1 192.0.2.1 && ping -6 -c1 -W2 -q 2001:db8::1");
        sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.ip_forward=1");
        let way = sh("ip route get 192.0.2.1 from 192.0.2.77 iif eth0");
        assert!(way.starts_with("local "), "{when}: {way}");
    };
    own("before");
    arrange(kernel, CLOSED);
    own("with VRFs");
    sh("ip rule add from 203.0.113.1 lookup 100; ip -6 rule add from 2001:db8:2::1 lookup 100");
    for rules in both() {
        let (ours, rest) = rules.split_at(OURS.len());
        assert_eq!(ours, OURS);
        assert!(rest.starts_with("0: from 2"), "one without a preference stands right behind: {rest}");
    }
    assert!(kernel.rules().unwrap().iter().all(|rules| evpn_hook::plan::rules::in_the_way(rules, true).is_none()));
    arrange(kernel, CLOSED);
    own("with one more");
    sh("ip rule del from 203.0.113.1; ip -6 rule del from 2001:db8:2::1");
    arrange(kernel, PLAIN);
    assert_eq!(both(), first);
    own("after");
});

netns!(what_an_earlier_version_left_is_taken_over, kernel, {
    if !has_l3mdev("what_an_earlier_version_left_is_taken_over") {
        return;
    }
    let first = both();
    for ip in ["ip", "ip -6"] {
        sh(&format!("{ip} rule add pref 32765 table local; {ip} rule del pref 0"));
        sh(&format!("{ip} rule add pref 999 l3mdev iif lo ipproto tcp sport 179 prohibit protocol 69"));
    }
    arrange(kernel, CLOSED);
    for (now, first) in both().iter().zip(&first) {
        assert_eq!(*now, format!("{OURS}{}", first.split_once('\n').unwrap().1));
    }
    arrange(kernel, PLAIN);
    assert_eq!(both(), first);
    // Its `uninstall` put table local back without a protocol, which systemd-networkd takes out.
    sh("ip rule add pref 0 table local; ip rule del pref 0 protocol kernel");
    arrange(kernel, CLOSED);
    assert!(rules("-4").starts_with(OURS), "{}", rules("-4"));
});

netns!(table_local_stays_where_others_put_it, kernel, {
    if !has_l3mdev("table_local_stays_where_others_put_it") {
        return;
    }
    sh("ip rule add pref 100 table local protocol kernel; ip rule del pref 0"); // Cilium
    sh("ip -6 rule add pref 32765 table local; ip -6 rule del pref 0"); // by hand, as vrf.rst has it
    let first = both();
    arrange(kernel, CLOSED);
    assert!(rules("-4").contains("\n100: from all lookup local proto kernel\n"));
    assert!(rules("-6").contains("\n32765: from all lookup local proto unspec\n"));
    assert!(both().iter().all(|rules| rules.matches("lookup local").count() == 1), "{:?}", both());
    arrange(kernel, PLAIN);
    assert_eq!(both(), first);
});

netns!(a_rule_is_named_in_ip_rules_own_words, kernel, {
    for (rule, words) in [
        ("pref 0 from 192.0.2.0/24 iif lo lookup 100", "0: from 192.0.2.0/24 iif lo lookup 100"),
        ("pref 7 not fwmark 0x1 lookup main", "7: not from all fwmark 0x1 lookup main"),
        ("pref 8 to 198.51.100.1 lookup local", "8: from all to 198.51.100.1/32 lookup local"),
        ("pref 9 from 192.0.2.9 prohibit", "9: from 192.0.2.9/32 prohibit"),
        (
            "pref 10 uidrange 1-2 ipproto udp dport 53 lookup 5",
            "10: from all uidrange 1-2 dport 53-53 ipproto 17 lookup 5",
        ),
    ] {
        sh(&format!("ip rule add {rule}"));
        let rules = kernel.rules().unwrap();
        let found = format!("{:?}", rules[0]);
        assert!(found.contains(&format!("({words:?})")), "{words}: {found}");
    }
});

// Each hook arranges by itself; a lock of the register's keeps them apart.
netns!(a_run_that_was_killed_is_finished, kernel, {
    if !has_l3mdev("a_run_that_was_killed_is_finished") {
        return;
    }
    let first = both();
    let steps = [
        "ip rule add pref 0 l3mdev iif lo ipproto tcp sport 179 prohibit protocol kernel",
        "ip rule add pref 0 l3mdev protocol kernel",
        "ip rule add pref 0 table local", // iproute2 adds none twice
        "ip rule del pref 0 table local protocol kernel",
    ];
    arrange(kernel, CLOSED);
    let whole = both();
    for end in 0..=steps.len() {
        for order in [CLOSED, PLAIN] {
            arrange(kernel, PLAIN);
            steps[..end].iter().for_each(|step| drop(sh(step)));
            arrange(kernel, order);
            assert_eq!(both(), if order == PLAIN { first.clone() } else { whole.clone() }, "after {end} steps");
        }
    }
});
