//! FRR is away: networks and guests start all the same, and are complete once it is back.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use crate::fabric::{Agent, Container, Host, Traces, wait_until};
use crate::tenant::{
    Configured, Network, RED, Red, SOON, container_on, endpoint_status, expect_advertised, expect_vni, known,
    network_status,
};

/// What the hooks send to journald, in its place.
struct Journal(UnixDatagram);

impl Journal {
    fn of(host: &Host) -> Journal {
        host.sh("mkdir -p /run/systemd/journal; rm -f /run/systemd/journal/socket");
        let socket = UnixDatagram::bind(host.path("/run/systemd/journal/socket")).expect("journald's socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        Journal(socket)
    }

    fn wait(&self, parts: &[&str]) {
        // A call's steps and what came of them are one datagram.
        let mut buffer = vec![0; 1 << 17];
        let mut said = Vec::new();
        while let Ok(count) = self.0.recv(&mut buffer) {
            let entry = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if parts.iter().all(|part| entry.contains(part)) {
                return;
            }
            said.push(entry);
        }
        panic!("no entry with {parts:?} in the journal, only:\n{}", said.join("\n"));
    }
}

/// What an agent tells Prometheus, at a socket that config.toml names as long as this lives.
struct Figures<'a>(&'a Host);

impl Figures<'_> {
    fn of(host: &Host) -> Figures<'_> {
        host.write("/etc/evpn-hook/config.toml", "[agent]\nmetrics = \"/run/metrics.sock\"\n");
        Figures(host)
    }

    fn text(&self) -> String {
        let mut stream = UnixStream::connect(self.0.path("/run/metrics.sock")).expect("the agent's socket");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("a question");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn find(&self, sample: &str) -> Option<f64> {
        self.text().lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    fn get(&self, sample: &str) -> f64 {
        self.find(sample).unwrap_or_else(|| panic!("no {sample} in {}", self.text()))
    }

    fn wait(&self, sample: &str, value: f64) {
        wait_until(&format!("{sample} {value}"), SOON, || self.find(sample) == Some(value));
    }

    fn keep(&self) {
        eprintln!("lab: what Prometheus is told:\n{}", self.text());
    }
}

impl Drop for Figures<'_> {
    fn drop(&mut self) {
        self.0.run(&["rm", "-f", "/etc/evpn-hook/config.toml"]);
    }
}

lab_test! {
    fn a_network_starts_without_frr_and_is_completed_later(fabric) {
        let comp1 = fabric.comp1();
        let before = Traces::of(comp1);
        let journal = Journal::of(comp1);
        let frr = comp1.without_frr();
        let red = Network::shipped(comp1, "red");
        assert!(red.is_active());
        journal.wait(&["PRIORITY=4", "GUEST=red", "FRR"]);
        assert_eq!(network_status(comp1, "red")["state"], "degraded");
        assert_eq!(comp1.run(&["evpn-hook", "status", "--check"]).code, 3);

        frr.start();
        comp1.ok(&["evpn-hook", "network", "up", "red"]);
        wait_until("red to be up", SOON, || network_status(comp1, "red")["state"] == "up");
        expect_vni(comp1, "20", "L2", "red");
        expect_vni(comp1, "10", "L3", "red");
        assert!(comp1.show_text("bgpd", "show running-config").contains("router bgp 64512 vrf red"));
        wait_until("red's subnet in zebra", SOON, || {
            comp1.show_text("zebra", "show ip route vrf red").contains("C>* 10.1.0.0/24")
        });
        red.remove();
        before.assert_unchanged(comp1);
    }
}

lab_test! {
    fn a_guest_starts_without_frr_and_is_advertised_later(fabric) {
        const MAC: &str = "00:16:3e:00:00:38";
        let red = Red::up(fabric);
        let frr = red.comp1.without_frr();
        let _container = Container::start(red.comp1, "c1", &container_on("red", MAC, Some("10.1.0.38")));
        assert_eq!(endpoint_status(red.comp1, MAC)["state"], "registered");
        frr.start();
        // The stanzas went with FRR's memory, the kernel's entries did not.
        red.comp1.ok(&["evpn-hook", "sync"]);
        wait_until("comp2 to know the container", SOON, || known(red.comp2, "red", "vxlan20", MAC, &["10.1.0.38"], "10.0.0.1"));
        expect_advertised(red.comp1, MAC, &["10.1.0.38"]);
    }
}

// As at boot: libvirt's networks autostart, and FRR comes when it comes.
lab_test! {
    fn what_started_before_frr_is_complete_once_it_runs(fabric) {
        const MAC: &str = "00:16:3e:00:00:38";
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _far = Configured::up(comp2, &[RED]);
        let figures = Figures::of(comp1);
        let _agent = Agent::start(comp1);
        let frr = comp1.without_frr();
        let _red = Network::shipped(comp1, "red");
        let _container = Container::start(comp1, "c1", &container_on("red", MAC, Some("10.1.0.38")));
        figures.wait("evpn_endpoints{network=\"red\",state=\"registered\"}", 1.0);
        assert_eq!(figures.get("evpn_speaker_up{daemon=\"bgpd\"}"), 0.0);
        assert_eq!(figures.get("evpn_hook_duration_seconds_count{hook=\"lxc start-host\"}"), 1.0);
        frr.start();
        let since = Instant::now();
        wait_until("comp2 to know the container", SOON, || known(comp2, "red", "vxlan20", MAC, &["10.1.0.38"], "10.0.0.1"));
        eprintln!("lab: what started before FRR is known {} ms after its session was up", since.elapsed().as_millis());
        wait_until("red to be up", SOON, || network_status(comp1, "red")["state"] == "up");
        expect_vni(comp1, "10", "L3", "red");
        expect_advertised(comp1, MAC, &["10.1.0.38"]);

        // What Prometheus is told of it, and of a guest that starts with FRR there.
        let red = |state: &str| format!("evpn_endpoints{{network=\"red\",state=\"{state}\"}}");
        figures.wait(&red("advertised"), 1.0);
        figures.wait("evpn_speaker_has_all", 1.0);
        assert_eq!(figures.get("evpn_speaker_up{daemon=\"bgpd\"}"), 1.0);
        assert!(figures.get("evpn_speaker_comebacks_total") >= 1.0);
        let (bucket, count) = ("evpn_hook_to_advertised_seconds_bucket{le=\"1\"}", "evpn_hook_to_advertised_seconds_count");
        let before = [bucket, count].map(|sample| figures.get(sample));
        let second = Container::start(comp1, "c2", &container_on("red", "00:16:3e:00:00:39", Some("10.1.0.39")));
        figures.wait(&red("advertised"), 2.0);
        let after = [bucket, count].map(|sample| figures.get(sample));
        assert_eq!(after, before.map(|n| n + 1.0), "one guest more, advertised within a second of its hook's start");
        assert_eq!(figures.get("evpn_hook_duration_seconds_count{hook=\"lxc start-host\"}"), 2.0);
        assert_eq!(figures.get("evpn_agent_ports"), 2.0);
        figures.keep();
        drop(second);
        figures.wait(&red("advertised"), 1.0);
        assert_eq!(figures.get("evpn_guests"), 1.0);
    }
}
