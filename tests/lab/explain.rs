//! `explain`: on a fabric of three hosts where all is well it says so of a guest, on its own host and on the others; then each link is broken by a
//! real command, `explain` names that one, and what it gives as the mend is run as it stands.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fabric::{Container, FRR_START, Host, OtherFrr, wait_until};
use crate::figures::keep;
use crate::tenant::{Configured, RED, Red, SOON, container_on, expect_advertised, remembered, remembers};

const MAC: &str = "00:16:3e:00:00:99";
const IP: &str = "10.1.0.99";
/// A container of the second host, which pings the guest.
const FAR_MAC: &str = "00:16:3e:00:00:88";
const FAR_IP: &str = "10.1.0.88";
/// BGP's own timers, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A guest by hand: a namespace on a veth.
struct Hand<'a>(&'a Host);

impl<'a> Hand<'a> {
    fn attach(host: &'a Host) -> Hand<'a> {
        host.sh(&format!(
            "ip netns add c9; ip link add c9 type veth peer name eth0 netns c9; ip -n c9 link set eth0 address {MAC} up
             ip -n c9 address add {IP}/24 dev eth0; evpn-hook attach c9 --network red --netns /run/netns/c9 --guest hand --wait"
        ));
        Hand(host)
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.0.run(&["sh", "-c", "evpn-hook detach --guest hand; ip link del c9; ip netns del c9"]);
    }
}

/// What `systemctl restart frr` does, on nodes without an init.
struct Init<'a>(&'a Host);

const SYSTEMCTL: &str = "/usr/local/sbin/systemctl";

impl<'a> Init<'a> {
    fn on(host: &'a Host) -> Init<'a> {
        host.write(
            SYSTEMCTL,
            &format!("#!/bin/sh\n[ \"$*\" = 'restart frr' ] || exit 1\n\
             for daemon in bgpd zebra; do pid=$(cat /run/frr/$daemon.pid); kill $pid 2>/dev/null && tail --pid=$pid -f /dev/null; done\n\
             sh {FRR_START} zebra bgpd\n"),
        );
        host.ok(&["chmod", "755", SYSTEMCTL]);
        Init(host)
    }
}

impl Drop for Init<'_> {
    fn drop(&mut self) {
        self.0.run(&["rm", "-f", SYSTEMCTL]);
    }
}

/// What `explain --json` says of the one chain; its exit status must agree.
fn explain(host: &Host, what: &str) -> Value {
    let output = host.run(&["evpn-hook", "--json", "explain", what]);
    let said: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let healthy = said["healthy"].as_bool().expect("healthy");
    assert_eq!(output.code, if healthy { 0 } else { 3 }, "{output:?}");
    assert_eq!(healthy, said["chains"][0]["broken"].is_null());
    said["chains"][0].clone()
}

/// The first broken link, if there is one.
fn broken(chain: &Value) -> Option<&Value> {
    Some(&chain["links"][usize::try_from(chain["broken"].as_u64()?).expect("a small number")])
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_healthy(host: &Host, what: &str) -> bool {
    broken(&explain(host, what)).is_none()
}

fn until_healthy(host: &Host, what: &str, after: &str) {
    wait_until(&format!("{what} to be whole on {} {after}", host.name()), PATIENCE, || is_healthy(host, what));
}

/// What it is all about.
fn reaches(far: &Container<'_>, after: &str) {
    wait_until(&format!("the container to reach the guest after '{after}'"), PATIENCE, || {
        far.run(&["ping", "-c", "1", "-W", "1", IP]).code == 0
    });
}

/// The faults as they were told and healed. What is told or healed otherwise than it should be is kept to the end, so that one run shows all.
#[derive(Default)]
struct Table {
    text: String,
    count: usize,
    wrong: Vec<String>,
}

impl Table {
    /// Breaks one link, has it named, and runs what is given as its mend.
    fn broken_and_mended(&mut self, host: &Host, what: &str, fault: &str, breaks: &str, link: &str) {
        let Some(found) = self.broken(host, what, fault, breaks, link) else { return };
        let mend = words(&found["mend"]);
        let begun = Instant::now();
        let done = host.run(&["bash", "-c", &format!("PATH=/usr/local/sbin:$PATH; {mend}")]);
        eprintln!("lab: {mend}: {} {}{}", done.code, done.stdout, done.stderr);
        while !is_healthy(host, what) {
            if begun.elapsed() > PATIENCE {
                self.wrong.push(format!("{fault}: not mended by '{mend}' ({done:?}): {:#}", explain(host, what)));
                host.run(&["evpn-hook", "sync"]);
                return;
            }
        }
        self.add(host, fault, &found, begun.elapsed());
    }

    /// `explain` must say that all is well until it names the link that is meant.
    fn broken(&mut self, host: &Host, what: &str, fault: &str, breaks: &str, link: &str) -> Option<Value> {
        eprintln!("lab: {fault} ({})", host.name());
        host.sh(breaks);
        let end = Instant::now() + PATIENCE;
        let chain = loop {
            let chain = explain(host, what);
            if !chain["broken"].is_null() {
                break chain;
            }
            if Instant::now() > end {
                self.wrong.push(format!("{fault}: not told"));
                return None;
            }
        };
        let found = broken(&chain).cloned().unwrap_or_default();
        if found["link"] != link || found["mend"].is_null() {
            self.wrong.push(format!("{fault}: told at another link than {link}, or without a mend: {chain:#}"));
        }
        let text = host.run(&["evpn-hook", "explain", what]);
        assert!(text.code == 3 && text.stdout.contains("BROKEN"), "{text:?}");
        eprintln!("{}", text.stdout);
        Some(found)
    }

    fn add(&mut self, host: &Host, fault: &str, found: &Value, took: Duration) {
        let link = format!("{} {}", words(&found["link"]), words(&found["object"]));
        let (host, took, mend) = (host.name(), took.as_millis(), words(&found["mend"]));
        let _ = writeln!(self.text, "{fault:<46} {host:<5} {link:<34} {took:>6}  {mend}");
        self.count += 1;
    }
}

/// What is wrong on the guest's own host: the fault, the command that makes it, the link, and what clears up behind it.
const AT_HOME: &[(&str, &str, &str, &str)] = &[
    (
        "port on another bridge",
        "ip link add other type bridge; ip link set c9 master other",
        "port",
        "ip link del other",
    ),
    ("port on no bridge", "ip link set c9 nomaster", "port", ""),
    ("port down", "ip link set c9 down", "device", ""),
    ("port with another MTU", "ip link set c9 mtu 1400", "device", ""),
    ("FDB entry gone", "bridge fdb del 00:16:3e:00:00:99 dev c9 master", "fdb", ""),
    ("neighbour gone", "ip neigh del 10.1.0.99 dev red-l2", "neighbour", ""),
    (
        "neighbour of another MAC",
        "ip neigh replace 10.1.0.99 lladdr 00:16:3e:00:00:98 dev red-l2 nud permanent",
        "neighbour",
        "",
    ),
    ("VXLAN down", "ip link set vxlan20 down", "vxlan", ""),
    ("VXLAN off the bridge", "ip link set vxlan20 nomaster", "vxlan", ""),
    (
        "VXLAN with another VNI",
        "ip link del vxlan20; ip link add vxlan20 type vxlan id 21 local 10.0.0.1 dstport 4789 nolearning; ip link set vxlan20 master red-l2 up",
        "vxlan",
        "",
    ),
    ("VXLAN port learns, does not suppress", "bridge link set dev vxlan20 learning on neigh_suppress off", "vxlan", ""),
    ("bridge down", "ip link set red-l2 down", "bridge", ""),
    ("gateway's address gone", "ip address del 10.1.0.1/24 dev red-l2", "bridge", ""),
    ("VLAN 1 on the bridge", "ip link set red-l2 type bridge vlan_default_pvid 1", "bridge", ""),
    ("strict rp_filter on the bridge", "sysctl -qw net.ipv4.conf.red-l2.rp_filter=1", "bridge", ""),
    ("bridge out of its VRF", "ip link set red-l2 nomaster", "vrf", ""),
    ("VRF gone", "ip link del red", "vrf", ""),
    ("VRF down", "ip link set red down", "vrf", ""),
    ("unreachable default of the VRF gone", "ip route del unreachable default metric 4278198272 table 10", "vrf", ""),
    ("local rule before the VRFs'", "ip rule del pref 0 l3mdev; ip rule del pref 0 l3mdev", "vrf", ""),
    ("forwarding off", "sysctl -qw net.ipv4.ip_forward=0", "vrf", ""),
    ("L3VNI missing in FRR", "vtysh -c 'configure terminal' -c 'vrf red' -c 'no vni 10'", "l3vni", ""),
    ("L3VNI's VXLAN down", "ip link set vxlan10 down", "l3vni", ""),
    ("L3VNI's bridge down", "ip link set red-l3 down", "l3vni", ""),
    ("VTEP's address gone", "ip address del 10.0.0.1/32 dev lo", "vtep", ""),
    (
        "advertise-all-vni off",
        "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'address-family l2vpn evpn' -c 'no advertise-all-vni'",
        "frr",
        "",
    ),
    ("bgpd dead", "kill -KILL $(cat /run/frr/bgpd.pid)", "frr", ""),
    ("zebra dead", "kill -KILL $(cat /run/frr/zebra.pid)", "frr", ""),
    (
        "session shut down",
        "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'neighbor c0d1:ffff::201 shutdown'",
        "peer",
        "",
    ),
    (
        "route held back by a route map",
        "vtysh -c 'configure terminal' -c 'route-map HIDE deny 10' -c 'exit' -c 'router bgp 64512' -c 'address-family l2vpn evpn' \
         -c 'neighbor c0d1:ffff::201 route-map HIDE out'",
        "peer",
        "vtysh -c 'configure terminal' -c 'no route-map HIDE'",
    ),
    (
        "underlay's session shut down",
        "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'neighbor spine1 shutdown'",
        "underlay",
        "",
    ),
    (
        "guest has another address",
        "ip -n c9 address flush dev eth0 scope global; ip -n c9 address add 10.1.0.97/24 dev eth0; ip netns exec c9 ping -c 1 -W 2 10.1.0.1 >/dev/null",
        "guest",
        "ip -n c9 address flush dev eth0 scope global; ip -n c9 address add 10.1.0.99/24 dev eth0
         evpn-hook attach c9 --network red --mac 00:16:3e:00:00:99 --ip 10.1.0.99 --guest hand --wait",
    ),
];

/// The same on another host, asked there for the guest's address.
const ABROAD: &[(&str, &str, &str)] = &[
    ("VXLAN down on another host", "ip link set vxlan20 down", "vxlan"),
    (
        "route target filtered on another host",
        "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'address-family l2vpn evpn' -c 'vni 20' -c 'route-target import 65000:9'",
        "import",
    ),
    (
        "ghost neighbour on another host",
        "ip neigh replace 10.1.0.99 lladdr 00:16:3e:00:00:98 dev red-l2 nud permanent",
        "neighbour",
    ),
    (
        "session shut down on another host",
        "vtysh -c 'configure terminal' -c 'router bgp 64512' -c 'neighbor c0d1:ffff::201 shutdown'",
        "peer",
    ),
    ("bgpd dead on another host", "kill -KILL $(cat /run/frr/bgpd.pid)", "frr"),
    ("underlay's link down on another host", "ip link set spine1 down", "underlay"),
];

lab_test! {
    fn each_broken_link_is_named_and_mended(fabric, comp3) {
        let red = Red::up(fabric);
        let _comp3 = Configured::up(comp3, &[RED]);
        let (comp1, comp2) = (red.comp1, red.comp2);
        let _inits = [comp1, comp2].map(Init::on);
        let hand = Hand::attach(comp1);
        let far = Container::start(comp2, "far", &container_on("red", FAR_MAC, Some(FAR_IP)));
        expect_advertised(comp2, FAR_MAC, &[FAR_IP]);

        // No false alarm, by any of its names, on any host.
        for what in ["hand", "c9", MAC, IP] {
            until_healthy(comp1, what, "at first");
            assert_eq!(explain(comp1, what)["place"], "here");
        }
        for host in [comp2, comp3] {
            for what in [MAC, IP] {
                until_healthy(host, what, "at first");
                let chain = explain(host, what);
                assert_eq!((words(&chain["place"]), words(&chain["vtep"])), ("away", "10.0.0.1"), "{chain:#}");
            }
        }
        until_healthy(comp2, "far", "at first");
        for host in [comp1, comp3] {
            until_healthy(host, FAR_IP, "at first");
        }
        reaches(&far, "the start");
        for host in [comp1, comp2] {
            eprintln!("{}", host.ok(&["evpn-hook", "explain", IP]));
        }
        eprintln!("JSON{}", comp2.ok(&["evpn-hook", "--json", "explain", IP]));
        for (what, said) in [
            ("nobody", "'nobody': no guest, device, MAC or address of this host"),
            ("vxlan20", "vxlan20 is a device, but no guest's"),
            ("10.1.0.1", "10.1.0.1 is the gateway of network red"),
            ("192.0.2.1", "192.0.2.1: no guest of this host has it"),
        ] {
            let output = comp2.run(&["evpn-hook", "explain", what]);
            assert!(output.code == 1 && output.stdout.is_empty() && output.stderr.contains(said), "{output:?}");
            assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        }

        let mut table = Table::default();
        for (fault, breaks, link, after) in AT_HOME {
            table.broken_and_mended(comp1, "hand", fault, breaks, link);
            if !after.is_empty() {
                comp1.sh(after);
                until_healthy(comp1, "hand", "once cleared up");
            }
            reaches(&far, fault);
        }
        until_healthy(comp2, IP, "after the faults of its own host");
        for (fault, breaks, link) in ABROAD {
            table.broken_and_mended(comp2, IP, fault, breaks, link);
            reaches(&far, fault);
        }
        taken_by_another_host(&mut table, comp1, comp2);
        reaches(&far, "its MAC was taken");
        left_by_a_killed_frr(&mut table, comp1, comp2, hand);
        died_without_a_hook(&mut table, comp1, comp2);
        let Table { text, count, wrong } = table;
        let head = format!("{:<46} {:<5} {:<34} {:>6}  mend\n", "fault", "host", "first broken link", "ms");
        keep("explain.txt", &format!("{head}{text}{count} faults, each named as the first broken link and mended by the command as printed\n"));
        eprintln!("{head}{text}");
        assert!(wrong.is_empty(), "{} faults told or mended otherwise than they should be:\n{}", wrong.len(), wrong.join("\n"));
    }
}

lab_test! {
    /// FRR 10 answers some questions in other shapes.
    fn the_same_is_told_of_the_fabric_with_frr_of_sid(fabric) {
        let _frr = OtherFrr::of(fabric, "sid");
        let red = Red::up(fabric);
        let (comp1, comp2) = (red.comp1, red.comp2);
        let _hand = Hand::attach(comp1);
        until_healthy(comp1, "hand", "at first");
        for what in [MAC, IP] {
            until_healthy(comp2, what, "at first");
            assert_eq!(words(&explain(comp2, what)["vtep"]), "10.0.0.1");
        }
        let mut table = Table::default();
        let named = ["FDB entry gone", "L3VNI missing in FRR", "advertise-all-vni off", "session shut down", "route held back by a route map"];
        for (fault, breaks, link, after) in AT_HOME.iter().filter(|(fault, ..)| named.contains(fault)) {
            table.broken_and_mended(comp1, "hand", fault, breaks, link);
            if !after.is_empty() {
                comp1.sh(after);
            }
        }
        until_healthy(comp2, IP, "after the faults of its own host");
        let named = ["route target filtered on another host", "session shut down on another host"];
        for (fault, breaks, link) in ABROAD.iter().filter(|(fault, ..)| named.contains(fault)) {
            table.broken_and_mended(comp2, IP, fault, breaks, link);
        }
        eprintln!("{}", table.text);
        assert!(table.wrong.is_empty(), "{}", table.wrong.join("\n"));
        assert_eq!(table.count, 7);
    }
}

/// Another host claims the MAC: it is told there, at the entry that does it; and at home, where the guest lost its own. The guest is silent
/// meanwhile: one frame would give it back (`br_fdb_update`, net/bridge/br_fdb.c), and its kernel sends one some 5 s after each ping, to see whether
/// its peer is still there.
fn taken_by_another_host(table: &mut Table, home: &Host, other: &Host) {
    let fault = "MAC taken by a static entry of another host";
    home.sh("ip -n c9 link set eth0 arp off; ip netns exec c9 sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
    let breaks = format!(
        "ip link add d9 type veth peer name d9p; ip link set d9p up; ip link set d9 master red-l2 up
         bridge fdb replace {MAC} dev d9 master static"
    );
    let Some(found) = table.broken(other, MAC, fault, &breaks, "fdb") else { return };
    let lost = |line: &str| line.starts_with(MAC) && line.contains("vxlan20");
    wait_until("the MAC to move", SOON, || home.ok(&["bridge", "fdb", "show", "br", "red-l2"]).lines().any(lost));
    let begun = Instant::now();
    other.ok(&["bash", "-c", words(&found["mend"])]);
    table.broken_and_mended(home, "hand", "the same at the host that lost it", "true", "fdb");
    until_healthy(other, MAC, "once both are mended");
    table.add(other, fault, &found, begun.elapsed());
    other.ok(&["ip", "link", "del", "d9"]);
    home.sh("ip -n c9 link set eth0 arp on; ip netns exec c9 sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0");
}

/// A host's FRR is killed, and the guest ends while it is away: its entries stay in the kernel.
fn left_by_a_killed_frr(table: &mut Table, home: &Host, other: &Host, hand: Hand<'_>) {
    let fault = "stale entries of a killed FRR";
    let killed = other.without_daemons("KILL", &["zebra", "bgpd"]);
    drop(hand);
    killed.start();
    other.ok(&["evpn-hook", "sync"]);
    let session = |chain: &Value| broken(chain).is_some_and(|found| found["link"] == "peer");
    wait_until("the killed FRR's session", PATIENCE, || !session(&explain(other, IP)));
    let Some(found) = table.broken(other, IP, fault, "true", "bgp-route") else { return };
    let mend = words(&found["mend"]);
    let begun = Instant::now();
    other.sh(mend);
    let left = other.sh("bridge fdb show br red-l2; ip neigh show dev red-l2");
    assert!(!left.lines().any(|line| line.contains(MAC) && line.contains(IP)), "{mend}: {left}");
    assert!(!left.lines().any(|line| line.starts_with(MAC)), "{mend}: {left}");
    // Of its link-local address, which the killed FRR left as well, nobody asked.
    other.sh(&format!(
        "for ip in $(ip neigh show dev red-l2 | sed -n 's/ .*{MAC}.*//p'); do ip neigh del $ip dev red-l2; done"
    ));
    let _hand = Hand::attach(home);
    until_healthy(other, IP, "once the guest runs again");
    table.add(other, fault, &found, begun.elapsed());
}

/// A guest's device goes with it, and nobody says so: its neighbour would stay a ghost.
fn died_without_a_hook(table: &mut Table, home: &Host, other: &Host) {
    let _hand = Hand::attach(home);
    let fault = "guest died without a hook";
    let Some(found) = table.broken(home, "hand", fault, "ip link del c9", "device") else { return };
    let begun = Instant::now();
    let said = home.ok(&["bash", "-c", words(&found["mend"])]);
    assert_eq!(remembered(home, MAC), [""; 0], "after {said:?}");
    wait_until("the other host to forget it", SOON, || !remembers(other, MAC));
    table.add(home, fault, &found, begun.elapsed());
    let gone = home.run(&["evpn-hook", "explain", "hand"]);
    assert!(gone.code == 1 && gone.stderr.contains("no guest"), "{gone:?}");
}
