//! A guest that says nothing is known, and stays known, for as long as it runs.

use std::net::IpAddr;
use std::time::Duration;

use crate::fabric::{Capture, Container, Host, Nic, Vm, VmSpec, echo, wait_until};
use crate::tenant::{Red, SOON, container_on, knows};

const MAC: &str = "52:54:00:03:82:d8";
const IP: &str = "10.1.0.60";

const SILENCE: Duration = Duration::from_secs(30 * 60);

/// What forgets a silent guest: its period by default, and here. As many periods pass as in [`SILENCE`].
const AGEING: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(1));
const REACHABLE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(500));
const STALE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1));

/// The longest that any of them needs for it: 6 times the bridge's ageing, 60 times a neighbour's reachability, 30 times its staleness.
fn as_long_as_silence() -> Duration {
    let needed = |(default, here): (Duration, Duration)| here.mul_f64(SILENCE.as_secs_f64() / default.as_secs_f64());
    [AGEING, REACHABLE, STALE].map(needed).into_iter().max().expect("three")
}

/// How long after a guest's end the other hypervisor may still hold it.
const FORGOTTEN: Duration = Duration::from_secs(2);

fn neighbours_forget(device: &str) -> String {
    format!(
        "cd /proc/sys/net/ipv4/neigh/{device}; echo {} >base_reachable_time_ms; echo {} >gc_stale_time; ",
        REACHABLE.1.as_millis(),
        STALE.1.as_secs()
    )
}

/// Below 128 neighbours the kernel forgets none (gc_thresh1), so that goes as well. These are the whole machine's, and only where its
/// first network namespace is ours. How often the kernel looks is half the table's base_reachable_time; gc_interval is there for
/// completeness, since nothing in Linux 6.1 acts on it (net/core/neighbour.c `neigh_periodic_work`).
struct Forgetful(Vec<(&'static str, String)>);

impl Forgetful {
    fn machine() -> Forgetful {
        let settings = [("gc_thresh1", "0"), ("gc_interval", "1"), ("base_reachable_time_ms", "500")];
        let paths =
            settings.map(|(key, value)| (["/proc/sys/net/ipv4/neigh/default/", key].concat().leak() as &str, value));
        let there = paths.into_iter().filter_map(|(path, value)| {
            let before = std::fs::read_to_string(path).ok()?;
            std::fs::write(path, value).expect("a sysctl");
            Some((path, before))
        });
        Forgetful(there.collect())
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        for (path, before) in &self.0 {
            let _ = std::fs::write(path, before);
        }
    }
}

fn bridge_forgets(host: &Host) {
    host.sh(&format!(
        "ip link set red-l2 type bridge ageing_time {}; {}",
        AGEING.1.as_millis() / 10,
        neighbours_forget("red-l2")
    ));
}

lab_test! {
    fn a_silent_guest_answers_the_first_ping_and_the_first_after_half_an_hour(fabric) {
        let red = Red::up(fabric);
        let frames = Capture::start(red.comp1, MAC);
        let there = red.comp2.monitor();
        let mut vm = Vm::define(red.comp1, &VmSpec {
            name: "silent",
            nics: vec![Nic::Network { mac: MAC, network: "red" }],
            cmdline: "lab.ip0=10.1.0.60/24 lab.silent",
            ..VmSpec::default()
        });
        vm.boot();
        let container = Container::start(red.comp2, "c1", &container_on("red", "00:16:3e:00:00:38", Some("10.1.0.38")));
        vm.wait_ready();
        let known = || knows(red.comp2, "red", "vxlan20", MAC, &[IP], "10.0.0.1");
        wait_until("comp2 to know it", SOON, known);
        assert!(frames.sent_by_guest().is_empty(), "it was not silent: {:?}", frames.sent_by_guest());

        let (netns, ip): (_, IpAddr) = (container.netns(), IP.parse().expect("an address"));
        let one_ping = || echo(&netns, &[ip], Duration::from_secs(2)).contains(&ip);
        assert!(one_ping(), "the first ping was lost");

        // A stranger beside it shows that what is unregistered is forgotten meanwhile.
        let _forgetful = Forgetful::machine();
        red.comp1.sh("ip link add stranger type veth peer name stranger-far; ip link set stranger master red-l2 up; ip link set stranger-far up
            bridge fdb add 02:00:00:00:00:01 dev stranger master dynamic
            ip neigh add 10.1.0.99 lladdr 02:00:00:00:00:01 dev red-l2 nud stale");
        let _stranger = Stranger(red.comp1);
        for host in [red.comp1, red.comp2] {
            bridge_forgets(host);
        }
        container.ok(&["true"]);
        let pid = container.pid().expect("it runs").to_string();
        red.comp2.ok(&["nsenter", "--target", &pid, "--net", "sh", "-c", &neighbours_forget("eth0")]);
        let from = there.transcript().len();
        let said = frames.sent_by_guest().len();
        // Nothing happens and nothing is to happen: the time itself is what is tried.
        std::thread::sleep(as_long_as_silence());
        let stranger = red.comp1.sh("bridge fdb show dev stranger dynamic; ip neigh show to 10.1.0.99 dev red-l2");
        assert_eq!(stranger.replace('\n', ""), "", "what nobody registered was not forgotten: the settings did nothing");
        assert!(known());
        // The guest's own look at the one that pinged it, seconds after the first ping, is all that it said.
        let later: Vec<_> = frames.sent_by_guest().split_off(said).into_iter().filter(|frame| frame.neighbour.is_none()).collect();
        assert!(later.is_empty(), "it was not silent: {later:?}");
        assert!(one_ping(), "the first ping after {} s, as many periods as in {} minutes, was lost",
            as_long_as_silence().as_secs(), SILENCE.as_secs() / 60);
        let gone: Vec<String> = there.transcript().lines().split_off(from).into_iter().map(|line| line.text)
            .filter(|line| line.contains("Deleted") && (line.contains(MAC) || line.contains(&format!("{IP} ")))).collect();
        assert!(gone.is_empty(), "comp2 was without it for a while: {gone:?}");

        let (here, from) = (red.comp1.monitor(), there.transcript().len());
        vm.destroy();
        let end = here.wait(&["Deleted", "vnet"], SOON).at;
        for parts in [&["Deleted", MAC, "dev vxlan20"][..], &["Deleted", IP, "dev red-l2"], &["Deleted", IP, "dev red-l3"]] {
            let gone = there.transcript().wait_from(from, parts, SOON).1.at;
            let took = gone.saturating_duration_since(end);
            eprintln!("lab: {parts:?} {} ms after the guest's tap", took.as_millis());
            assert!(took < FORGOTTEN, "{parts:?} {took:?} after the guest's end");
        }
    }
}

struct Stranger<'a>(&'a Host);

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        self.0.run(&["ip", "link", "del", "stranger"]);
        self.0.run(&["ip", "neigh", "del", "10.1.0.99", "dev", "red-l2"]);
    }
}
