//! `doctor` on a fabric of three hosts: nothing on a healthy one, and of each fault that fault and no other, with a mend that heals it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fabric::{Fabric, Host, wait_until};
use crate::figures::keep;
use crate::tenant::{Configured, Network, RED, SOON, joined};

/// The one under test where what is installed cannot be run.
const BIN: &str = env!("CARGO_BIN_EXE_evpn-hook");
/// FRR reads the kernel anew, sessions come up again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A segment on a bridge that somebody else made without a MAC.
const FLAT: &str = "[[network]]\nname = 'flat'\nbridge = 'flat-l2'\nvni = 90\n";
const DUPLICATE: &str = "52:54:00:00:0d:0d";

/// What makes it well again.
enum Heal<'a> {
    /// The mend, run as printed.
    Printed,
    /// The same, and then what takes both back, the fault and the mend.
    Undone(&'a str),
    /// `doctor --fix`.
    Fix,
    /// Something on another host, or that takes a person.
    By(&'a Host, &'a str),
}

struct Fault<'a> {
    name: &'a str,
    at: &'a Host,
    breaks: &'a str,
    check: &'a str,
    heal: Heal<'a>,
}

/// A look, and its exit status held against it.
fn look(host: &Host) -> Value {
    let output = host.run(&[BIN, "--json", "doctor"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(output.code, if report["healthy"] == true { 0 } else { 3 }, "{output:?}");
    report
}

/// The findings of these severities, as `check object`.
fn told<'a>(report: &'a Value, severities: &[&str]) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().expect("findings").iter();
    findings.filter(|finding| severities.iter().any(|severity| finding["severity"] == *severity)).collect()
}

fn amiss(report: &Value) -> Vec<&Value> {
    told(report, &["problem", "warning"])
}

/// Looks until nothing is amiss any more; what is still then.
fn unhealthy(host: &Host) -> Option<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let report = look(host);
        let left = amiss(&report);
        if left.is_empty() {
            return None;
        }
        if Instant::now() > end {
            return Some(format!("{left:#?}"));
        }
    }
}

fn expect_healthy(host: &Host, after: &str) {
    if let Some(left) = unhealthy(host) {
        panic!("{} after {after}: {left}", host.name());
    }
}

/// What is printed, and what was not as it should be: one fault that is told wrongly must not hide the others.
struct Table(String, Vec<String>);

impl Drop for Table {
    /// Also of a scenario that failed.
    fn drop(&mut self) {
        keep("doctor.txt", &self.0);
    }
}

impl Table {
    fn add(&mut self, fault: &Fault, finding: &Value, healed: &str) {
        let text = |name: &str| finding[name].as_str().unwrap_or_default();
        let _ = writeln!(
            self.0,
            "{:<44} {:<22} {:<9} {}\n    {}: {}\n    mend: {}",
            fault.name,
            fault.check,
            healed,
            fault.at.name(),
            text("object"),
            text("evidence"),
            text("mend")
        );
    }
}

/// Breaks it, and expects that this and nothing else is named; then heals it.
fn try_one(table: &mut Table, fault: &Fault) {
    fault.at.sh(fault.breaks);
    let mut report = Value::Null;
    // What FRR or the fabric notices takes its time.
    wait_until(&format!("{}: {}", fault.name, fault.check), SOON, || {
        report = look(fault.at);
        amiss(&report).iter().any(|finding| finding["check"] == fault.check)
    });
    let others: Vec<_> = amiss(&report).into_iter().filter(|finding| finding["check"] != fault.check).collect();
    if !others.is_empty() {
        table.1.push(format!("{}: also {others:#?}", fault.name));
    }
    let findings = amiss(&report);
    let finding = findings.iter().find(|finding| finding["check"] == fault.check).expect("it was found");
    let healed = match &fault.heal {
        Heal::Printed | Heal::Undone(_) => {
            assert_eq!(finding["runnable"], true, "{finding:#}");
            // Of one fault it may have found more than one thing.
            let all = findings.iter().filter(|f| f["check"] == fault.check && f["runnable"] == true);
            let mends: BTreeSet<&str> = all.map(|f| f["mend"].as_str().expect("a mend")).collect();
            mends.into_iter().for_each(|mend| drop(fault.at.sh(mend)));
            "printed"
        }
        Heal::Fix => {
            assert_eq!(finding["safe"], true, "{finding:#}");
            let output = fault.at.run(&[BIN, "doctor", "--fix"]);
            assert!(output.code == 0 && output.stdout.contains(&format!("done: {}: ", fault.check)), "{output:?}");
            "--fix"
        }
        Heal::By(host, script) => {
            host.sh(script);
            "by hand"
        }
    };
    if let Some(left) = unhealthy(fault.at) {
        table.1.push(format!("{}: not healed: {left}", fault.name));
    }
    if let Heal::Undone(script) = fault.heal {
        fault.at.sh(script);
    }
    table.add(fault, finding, healed);
}

/// A guest: a namespace behind a veth.
fn guest(host: &Host, last: u8) {
    host.sh(&format!(
        "ip netns add g{last}; ip link add g{last} type veth peer name eth0 netns g{last} address 00:16:3e:00:0d:{last:02x}
         ip -n g{last} address add 10.1.0.{last}/24 dev eth0; ip -n g{last} link set eth0 up
         evpn-hook attach g{last} --network red --netns /run/netns/g{last} --wait"
    ));
}

fn guest_gone(host: &Host, last: u8) {
    host.sh(&format!("evpn-hook detach g{last}; ip netns del g{last}"));
}

fn in_bgp(lines: &[&str]) -> String {
    lines.iter().fold("vtysh -c 'configure terminal'".to_owned(), |text, line| format!("{text} -c '{line}'"))
}

const EVPN: [&str; 2] = ["router bgp 64512", "address-family l2vpn evpn"];

fn faults<'a>(fabric: &'a Fabric, comp3: &'a Host) -> Vec<Fault<'a>> {
    let (spine1, comp2) = (fabric.spine1(), fabric.comp2());
    let leak = |text: String| -> &'a str { Box::leak(text.into_boxed_str()) };
    let fault = |name, breaks, check, heal| Fault { name, at: comp2, breaks, check, heal };
    let qemu = "/etc/libvirt/hooks/qemu.d/50-evpn-hook";
    let evpn = |more: &[&str]| leak(in_bgp(&[&EVPN[..], more].concat()));
    let flat = Fault { at: comp3, ..fault("a bridge takes its ports' MACs", ":", "bridge-mac", Heal::Printed) };
    let mut all = vec![
        fault("the uplink's MTU is too small", "ip link set spine1 mtu 1500", "underlay-mtu", Heal::Printed),
        Fault {
            heal: Heal::By(spine1, "ip link set comp2 mtu 9000"),
            ..fault("the MTU on the way is too small", ":", "path-mtu", Heal::Printed)
        },
        fault("the VTEP's address is gone", "ip address del 10.0.0.2/32 dev lo", "vtep-address", Heal::Printed),
        fault("rp_filter is strict", "sysctl -qw net.ipv4.conf.red-l2.rp_filter=1", "rp-filter", Heal::Printed),
        fault(
            "table local is asked first",
            "ip rule del pref 0 l3mdev; ip rule del pref 0 l3mdev; ip rule add pref 0 l3mdev iif lo ipproto tcp sport 179 prohibit protocol kernel",
            "ip-rule",
            Heal::Fix,
        ),
        fault("the host does not forward", "sysctl -qw net.ipv4.ip_forward=0", "forwarding", Heal::Fix),
        fault("the gateway does not forward", "sysctl -qw net.ipv4.conf.red-l2.forwarding=0", "forwarding", Heal::Fix),
        fault(
            "guests reach bgpd",
            "ip rule del pref 0 ipproto tcp sport 179; ip -6 rule del pref 0 ipproto tcp sport 179",
            "tenant-bgp",
            Heal::Fix,
        ),
        fault("guests reach it by link-local", "tc filter del dev red-l2 ingress prio 69", "tenant-bgp", Heal::Fix),
        fault(
            "the gateway answers for others",
            "sysctl -qw net.ipv4.conf.red-l2.arp_ignore=0",
            "arp-ignore",
            Heal::Fix,
        ),
        fault("services answer tenants", "sysctl -qw net.ipv4.udp_l3mdev_accept=1", "l3mdev-accept", Heal::Printed),
        fault("the firewall drops VXLAN", "iptables -I INPUT -p udp --dport 4789 -j DROP", "firewall", Heal::Printed),
        fault(
            "the firewall forwards nothing",
            "iptables -S FORWARD >/run/forward && iptables -P FORWARD DROP",
            "firewall",
            // The least that lets the VRF's packets through, and so nothing else is left.
            Heal::Undone(
                "iptables -P FORWARD ACCEPT && for out in red-l2 red-l3; do iptables -D FORWARD -i red -o $out -j ACCEPT || exit; done && \
                 iptables -S FORWARD | diff /run/forward -",
            ),
        ),
        fault("the VXLAN port learns", "bridge link set dev vxlan20 learning on", "vxlan-learning", Heal::Fix),
        fault(
            "the VXLAN port suppresses nothing",
            "bridge link set dev vxlan20 neigh_suppress off",
            "vxlan-neigh-suppress",
            Heal::Printed,
        ),
        fault("the VXLAN port is isolated", "bridge link set dev vxlan20 isolated on", "vxlan-isolated", Heal::Printed),
        fault("the VXLAN device is down", "ip link set vxlan20 down", "drift", Heal::Fix),
        fault(
            "the bridge has another MAC",
            "ip link set red-l2 address 00:00:00:11:11:99",
            "bridge-mac",
            Heal::Printed,
        ),
        fault(
            "the L3VNI's bridge has another MAC",
            "ip link set red-l3 address 02:00:00:11:11:99",
            "bridge-mac",
            Heal::Printed,
        ),
        fault("ports get a VLAN", "ip link set red-l2 type bridge vlan_default_pvid 1", "default-pvid", Heal::Fix),
        fault(
            "a neighbour without a guest",
            "ip neigh add 10.1.0.99 lladdr 52:54:00:00:00:99 dev red-l2 nud permanent protocol 69",
            "ghost",
            Heal::Fix,
        ),
        fault("FRR advertises no VNI", evpn(&["no advertise-all-vni"]), "advertise-all-vni", Heal::Printed),
        fault("FRR has no L3VNI", leak(in_bgp(&["vrf red", "no vni 10"])), "l3vni", Heal::Printed),
        fault(
            "the segment imports another route target",
            evpn(&["vni 20", "route-target import 64512:999"]),
            "rt-import",
            Heal::Printed,
        ),
        fault(
            "the VRF imports another route target",
            leak(in_bgp(&["router bgp 64512 vrf red", EVPN[1], "route-target import 64512:999"])),
            "rt-import",
            Heal::Printed,
        ),
        fault(
            "the EVPN session is down",
            leak(in_bgp(&[EVPN[0], "neighbor c0d1:ffff::201 shutdown"])),
            "bgp-session",
            Heal::By(comp2, leak(in_bgp(&[EVPN[0], "no neighbor c0d1:ffff::201 shutdown"]))),
        ),
        fault("the hooks cannot be run", "chmod 644 /usr/bin/evpn-hook", "hook-not-executable", Heal::Printed),
        fault(
            "a hook is a copy",
            leak(format!("rm {qemu}; cp /usr/bin/evpn-hook {qemu}")),
            "hook-copied",
            Heal::Printed,
        ),
        fault("a hook is missing", leak(format!("rm {qemu}")), "hook-missing", Heal::Printed),
        fault("a hook points elsewhere", leak(format!("ln -sf /bin/true {qemu}")), "hook-elsewhere", Heal::Printed),
        fault(
            "the bridge is VLAN-aware",
            "ip link set red-l2 type bridge vlan_filtering 1",
            "vlan-aware",
            Heal::Printed,
        ),
    ];
    all.insert(0, flat);
    all
}

/// Five moves are what FRR allows in 180 s; here two, and then it tells no more of them.
fn duplicate(table: &mut Table, fabric: &Fabric) {
    let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
    let detect = |no: &str| {
        let lines =
            [&EVPN[..], &["dup-addr-detection max-moves 2 time 120", "dup-addr-detection freeze permanent"]].concat();
        let lines: Vec<String> = lines
            .iter()
            .map(|line| if line.starts_with("dup") { format!("{no}{line}") } else { (*line).to_owned() })
            .collect();
        in_bgp(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    comp2.sh(&detect(""));
    for host in [comp1, comp2] {
        host.sh("ip link add dup type veth peer name dupp; ip link set dup master red-l2; ip link set dup up; ip link set dupp up");
    }
    let is_marked =
        || comp2.show("zebra", &format!("show evpn mac vni 20 mac {DUPLICATE} json"))[DUPLICATE]["isDuplicate"] == true;
    let has_it_there = |host: &Host| host.ok(&["bridge", "fdb", "show", "dev", "vxlan20"]).contains(DUPLICATE);
    for turn in 0..8 {
        if is_marked() {
            break;
        }
        let (here, there) = if turn % 2 == 0 { (comp2, comp1) } else { (comp1, comp2) };
        here.sh(&format!("bridge fdb replace {DUPLICATE} dev dup master static"));
        wait_until("the other host to know where it went, or zebra to mark it", SOON, || {
            has_it_there(there) || is_marked()
        });
    }
    let fault = Fault {
        name: "a MAC moved too often and is frozen",
        at: comp2,
        breaks: ":",
        check: "duplicate-freeze",
        heal: Heal::Printed,
    };
    try_one(table, &fault);
    for host in [comp1, comp2] {
        host.sh("ip link del dup");
    }
    comp2.sh(&detect("no "));
}

lab_test! {
    fn each_fault_is_named_and_its_mend_heals_it(fabric, comp3) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        comp3.sh("ip link add flat-l2 type bridge");
        let _red = Network::shipped(comp1, "red");
        let _there = Configured::up(comp2, &[RED]);
        let third = Configured::up(comp3, &[RED, FLAT]);
        joined(fabric, 20);
        guest(comp1, 61);
        guest(comp2, 62);

        let mut table = Table(String::new(), Vec::new());
        let mut faults = faults(fabric, comp3);
        try_one(&mut table, &faults.remove(0));
        for host in [comp1, comp2, comp3] {
            expect_healthy(host, "everything came up");
            let text = host.ok(&[BIN, "doctor"]);
            assert!(text.lines().last().is_some_and(|line| line.starts_with("healthy: ")), "{text}");
            let _ = writeln!(table.0, "{}: {}", host.name(), text.trim_end().replace('\n', "\n    "));
        }
        for fault in &faults {
            if fault.check == "path-mtu" {
                fabric.spine1().sh("ip link set comp2 mtu 1500");
            }
            try_one(&mut table, fault);
            if fault.name.starts_with("the segment imports") {
                // What is left of it is an empty block.
                comp2.sh(&in_bgp(&[EVPN[0], EVPN[1], "no vni 20"]));
            }
        }

        // Of two hosts that differ each says what it sees.
        comp3.sh("ip link set red-l2 address 00:00:00:11:11:99");
        assert_eq!(amiss(&look(comp3)).iter().map(|finding| &finding["check"]).collect::<Vec<_>>(), ["bridge-mac"]);
        let unequal = Fault {
            name: "another host's gateway has another MAC",
            at: comp2,
            breaks: ":",
            check: "gateway-mac",
            heal: Heal::By(comp3, "ip link set red-l2 address 00:00:00:11:11:10"),
        };
        try_one(&mut table, &unequal);

        duplicate(&mut table, fabric);

        let stopped = comp2.without_daemons("TERM", &["bgpd"]);
        let report = look(comp2);
        assert_eq!(amiss(&report).iter().map(|finding| &finding["check"]).collect::<Vec<_>>(), ["speaker-down"], "{report:#}");
        stopped.start();
        // It read its file, and what is the tenants' stands in no file; no agent runs that would put it back.
        let forgot = Fault {
            name: "bgpd was restarted and has no VRF",
            at: comp2,
            breaks: ":",
            check: "l3vni",
            heal: Heal::Fix,
        };
        try_one(&mut table, &forgot);

        for host in [comp1, comp2, comp3] {
            expect_healthy(host, "all of it");
        }
        println!("{}", table.0);
        assert_eq!(table.1, [""; 0]);
        guest_gone(comp1, 61);
        guest_gone(comp2, 62);
        drop(third);
        comp3.sh("ip link del flat-l2");
    }
}
