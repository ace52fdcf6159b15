//! One address or MAC on two hosts.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fabric::{Agent, Container, Host, Line, Nic, Vm, VmSpec, wait_until};
use crate::tenant::{RED, Red, SOON, container_on, endpoint_status, expect_advertised, known, knows, remembers};

/// libvirt's network has this address for this MAC.
const VM_MAC: &str = "52:54:00:03:82:d8";
const IP: &str = "10.1.0.60";
const MAC: &str = "00:16:3e:00:00:38";

/// What each host tells of it.
const ON_COMP1: &str = "10.1.0.60 is also 00:16:3e:00:00:38's at VTEP 10.0.0.2: give one of the two another address";
const ON_COMP2: &str = "10.1.0.60 is also 52:54:00:03:82:d8's at VTEP 10.0.0.1: give one of the two another address";

/// An idle VM on comp1's red.
fn vm(host: &Host) -> Vm<'_> {
    let nics = vec![Nic::Network { mac: VM_MAC, network: "red" }];
    Vm::define(host, &VmSpec { name: "vm1", nics, bare: true, ..VmSpec::default() })
}

fn has_problem(host: &Host, mac: &str, problem: &str) -> bool {
    let status = endpoint_status(host, mac);
    status["problems"].as_array().is_some_and(|problems| problems.iter().any(|p| p == problem))
}

/// The policy, in a config.toml that says nothing else that it did not say before. Gone with the value, where there was none.
struct Policy<'a>(&'a Host, bool);

impl Policy<'_> {
    fn set<'a>(host: &'a Host, word: &str) -> Policy<'a> {
        let red = host.run(&["grep", "-q", "network", "/etc/evpn-hook/config.toml"]).code == 0;
        let rest = if red { RED } else { "" };
        host.write("/etc/evpn-hook/config.toml", &format!("on_duplicate = '{word}'\n{rest}"));
        Policy(host, !red)
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.run(&["rm", "-f", "/etc/evpn-hook/config.toml"]);
        } else {
            self.0.write("/etc/evpn-hook/config.toml", RED);
        }
    }
}

lab_test! {
    fn an_address_that_another_host_has_is_refused(fabric) {
        let red = Red::up(fabric);
        let _policies = [red.comp1, red.comp2].map(|host| Policy::set(host, "refuse"));
        let mut vm = vm(red.comp1);
        vm.boot();
        wait_until("comp2 to know the VM", SOON, || known(red.comp2, "red", "vxlan20", VM_MAC, &[IP], "10.0.0.1"));

        // LXC shows its hooks' words to nobody, but has them in its log: LXC 6 in one that it is started with, not in its configuration's.
        let container = Container::define(red.comp2, "c1", &container_on("red", MAC, Some(IP)));
        let before = Instant::now();
        let log = ["--logfile", "/run/c1.log", "--logpriority", "DEBUG"];
        assert_ne!(red.comp2.run(&[&["lxc-start", "--name", "c1"], &log[..]].concat()).code, 0);
        let log = red.comp2.ok(&["cat", "/run/c1.log"]);
        assert!(log.contains(&format!("c1: {ON_COMP2}")), "{log}");
        assert!(before.elapsed() >= Duration::from_secs(2), "{:?}", before.elapsed());
        assert!(!remembers(red.comp2, MAC));
        expect_advertised(red.comp1, VM_MAC, &[IP]);
        assert!(knows(red.comp2, "red", "vxlan20", VM_MAC, &[IP], "10.0.0.1"));

        // The other way round: libvirt shows why.
        vm.destroy();
        container.boot();
        expect_advertised(red.comp2, MAC, &[IP]);
        wait_until("comp1 to know the container", SOON, || known(red.comp1, "red", "vxlan20", MAC, &[IP], "10.0.0.2"));
        let start = red.comp1.run(&["virsh", "--quiet", "start", "vm1"]);
        assert!(start.code != 0 && start.stderr.contains(ON_COMP1), "{start:?}");
        assert!(!remembers(red.comp1, VM_MAC));
        // Stopped there and started here at once: what is on its way out is waited for.
        container.stop();
        vm.boot();
        expect_advertised(red.comp1, VM_MAC, &[IP]);
        assert!(endpoint_status(red.comp1, VM_MAC)["problems"].as_array().is_some_and(Vec::is_empty));
    }
}

lab_test! {
    fn an_address_that_another_host_has_is_taken_and_shown_on_both(fabric) {
        let red = Red::up(fabric);
        let mut vm = vm(red.comp1);
        vm.boot();
        wait_until("comp2 to know the VM", SOON, || known(red.comp2, "red", "vxlan20", VM_MAC, &[IP], "10.0.0.1"));
        let container = Container::start(red.comp2, "c1", &container_on("red", MAC, Some(IP)));
        for (host, mac, problem) in [(red.comp1, VM_MAC, ON_COMP1), (red.comp2, MAC, ON_COMP2)] {
            wait_until(problem, SOON, || has_problem(host, mac, problem));
            assert_eq!(host.run(&["evpn-hook", "status", "--check"]).code, 3);
        }
        assert_eq!(endpoint_status(red.comp2, MAC)["state"], "advertised", "the second has it");

        // The first takes it back: both still know.
        red.comp1.ok(&["evpn-hook", "sync"]);
        wait_until("comp1 to advertise it", SOON, || endpoint_status(red.comp1, VM_MAC)["state"] == "advertised");
        wait_until("comp2 to lose it", SOON, || endpoint_status(red.comp2, MAC)["state"] == "failed");
        assert!(has_problem(red.comp1, VM_MAC, ON_COMP1) && has_problem(red.comp2, MAC, ON_COMP2));

        // One goes, the other is whole again.
        container.stop();
        wait_until("comp1 to forget the container", SOON, || !remembers(red.comp1, MAC));
        expect_advertised(red.comp1, VM_MAC, &[IP]);
        assert_eq!(endpoint_status(red.comp1, VM_MAC)["problems"], serde_json::json!([]));
    }
}

/// For how long two hosts fight; `make soak` has them do so for long enough to see what FRR's limit is held for.
fn fight() -> Duration {
    let seconds = std::env::var("EVPN_DUPLICATE_SECONDS").ok().map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(20))
}

/// FRR calls an address a duplicate after 5 moves within 180 s, whoever moves it (RFC 7432 §15.1); the agents stay below that after five minutes
/// (docs/architecture.md, src/agent/due.rs).
const LIMIT: usize = 5;
const WITHIN: Duration = Duration::from_secs(180);
const CALM: Duration = Duration::from_secs(300);
/// How far apart FRR tells two hosts of it.
const JITTER: Duration = Duration::from_secs(1);

/// By what both hosts were told, each of what the other did: when whose it became. What is told twice is no move.
fn moves(told: [Vec<Instant>; 2]) -> Vec<(Instant, usize)> {
    let of_both = told.into_iter().enumerate().flat_map(|(of, times)| times.into_iter().map(move |at| (at, of)));
    let mut moves: Vec<(Instant, usize)> = of_both.collect();
    moves.sort();
    moves.dedup_by_key(|(_, of)| *of);
    moves
}

lab_test! {
    /// Each agent takes back what is its guest's, ever more seldom.
    fn two_agents_do_not_fight_for_ever_over_a_duplicate(fabric) {
        let red = Red::up(fabric);
        let agents = [red.comp1, red.comp2].map(Agent::start);
        let mut vm = vm(red.comp1);
        vm.boot();
        wait_until("comp2 to know the VM", SOON, || known(red.comp2, "red", "vxlan20", VM_MAC, &[IP], "10.0.0.1"));
        let monitors = [red.comp1, red.comp2].map(Host::monitor);
        let begun = Instant::now();
        let container = Container::start(red.comp2, "c1", &container_on("red", MAC, Some(IP)));
        let shown = |host: &Host, mac: &str, problem: &str| {
            wait_until(problem, SOON, || has_problem(host, mac, problem));
        };
        // Each host is told by FRR whenever the other takes it.
        let told = |at: usize, mac: &str| -> Vec<Instant> {
            let lines = monitors[at].transcript().lines();
            let taken = |line: &&Line| line.text.contains("10.1.0.60 ") && line.text.contains(mac) && line.text.contains("extern_learn");
            lines.iter().filter(taken).map(|line| line.at).collect()
        };
        while begun.elapsed() < fight() {
            shown(red.comp1, VM_MAC, ON_COMP1);
            shown(red.comp2, MAC, ON_COMP2);
            std::thread::sleep(Duration::from_secs(5));
        }
        let counts = [told(1, VM_MAC), told(0, MAC)];
        let [first, second] = counts.each_ref().map(Vec::len);
        let moves = moves(counts);
        let seconds: Vec<_> = moves.iter().map(|(at, of)| (at.saturating_duration_since(begun).as_millis() as f64 / 1000.0, of + 1)).collect();
        eprintln!("lab: in {} s it moved {} times (at s, to): {seconds:?}", begun.elapsed().as_secs(), moves.len());
        let marked = red.comp1.show("zebra", "show evpn arp-cache vni 20 duplicate json");
        eprintln!("lab: zebra calls duplicates, of the first minutes: {marked}");
        assert!(first >= 1 && second >= 1, "{first} and {second} moves");
        // 1, 2, 4 … 180 s after its own last one at the earliest. The container's first was its start.
        for (of, skipped) in [(0, 0), (1, 1)] {
            let own: Vec<Instant> = moves.iter().filter(|(_, by)| *by == of).map(|(at, _)| *at).skip(skipped).collect();
            for (pair, pause) in own.windows(2).zip((0..8).map(|n| Duration::from_secs(1 << n)).chain(std::iter::repeat(WITHIN))) {
                assert!(pair[1] - pair[0] + JITTER >= pause, "sooner than after {pause:?}: {seconds:?}");
            }
        }
        let early = moves.iter().filter(|(at, _)| *at < begun + Duration::from_secs(20)).count();
        assert!(early <= 11, "that is 1, 3, 5, 9 and 17 s after the start for one, and 0, 2, 4, 6, 10 and 18 s for the other: {seconds:?}");
        let calm: Vec<Instant> = moves.iter().map(|(at, _)| *at).filter(|at| *at > begun + CALM).collect();
        for some in calm.windows(LIMIT) {
            assert!(some[LIMIT - 1] - some[0] > WITHIN, "{LIMIT} moves within {WITHIN:?}: {seconds:?}");
        }
        let log = red.comp1.ok(&["cat", "/var/log/evpn-agent.log"]);
        assert_eq!(log.matches(ON_COMP1).count(), 1, "{log}");

        container.stop();
        let last_pause = if fight() > CALM { WITHIN } else { Duration::ZERO };
        wait_until("the survivor to be advertised again", Duration::from_secs(60) + last_pause, || {
            let status: Value = endpoint_status(red.comp1, VM_MAC);
            status["state"] == "advertised" && status["problems"] == serde_json::json!([])
        });
        wait_until("comp2 to know the VM", SOON, || known(red.comp2, "red", "vxlan20", VM_MAC, &[IP], "10.0.0.1"));
        drop(agents);
    }
}

lab_test! {
    /// The second one's end of it is silent until its hook has looked, which only a VM's is: a container's link speaks at once, and FRR then moves
    /// the MAC before anybody can say no.
    fn a_mac_that_another_host_has_is_refused_or_shown_on_both(fabric) {
        let red = Red::up(fabric);
        let policy = Policy::set(red.comp1, "refuse");
        let container = Container::start(red.comp2, "c1", &container_on("red", VM_MAC, Some(IP)));
        wait_until("comp1 to know it", SOON, || known(red.comp1, "red", "vxlan20", VM_MAC, &[IP], "10.0.0.2"));
        // With a word of its own it would take the MAC back.
        container.ok(&["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6"]);
        let text = |vtep: &str| {
            format!("{VM_MAC} is also at VTEP {vtep}: give one of the two another MAC, unless it is the same guest and has ended there")
        };
        let mut vm = vm(red.comp1);
        let start = red.comp1.run(&["virsh", "--quiet", "start", "vm1"]);
        assert!(start.code != 0 && start.stderr.contains(&text("10.0.0.2")), "{start:?}");
        expect_advertised(red.comp2, VM_MAC, &[IP]);

        drop(policy);
        vm.boot();
        assert!(has_problem(red.comp1, VM_MAC, &text("10.0.0.2")), "{:#}", endpoint_status(red.comp1, VM_MAC));
        wait_until("comp2 to show it", SOON, || has_problem(red.comp2, VM_MAC, &text("10.0.0.1")));
        vm.destroy();
        red.comp2.ok(&["evpn-hook", "sync"]);
        expect_advertised(red.comp2, VM_MAC, &[IP]);

        // Stopped there and started here at once is no duplicate.
        wait_until("comp1 to know it", SOON, || known(red.comp1, "red", "vxlan20", VM_MAC, &[IP], "10.0.0.2"));
        let _policy = Policy::set(red.comp1, "refuse");
        container.stop();
        vm.boot();
        expect_advertised(red.comp1, VM_MAC, &[IP]);
    }
}
