//! FRR is away: networks and guests start all the same, and are complete once it is back.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::fabric::{Agent, Container, Host, Traces, wait_until};
use crate::tenant::{
    Configured, Network, RED, Red, SOON, container_on, endpoint_status, expect_advertised, expect_vni, knows,
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
        let mut buffer = [0; 4096];
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
        wait_until("comp2 to know the container", SOON, || knows(red.comp2, "red", "vxlan20", MAC, &["10.1.0.38"], "10.0.0.1"));
        expect_advertised(red.comp1, MAC, &["10.1.0.38"]);
    }
}

// As at boot: libvirt's networks autostart, and FRR comes when it comes.
lab_test! {
    fn what_started_before_frr_is_complete_once_it_runs(fabric) {
        const MAC: &str = "00:16:3e:00:00:38";
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _far = Configured::up(comp2, &[RED]);
        let _agent = Agent::start(comp1);
        let frr = comp1.without_frr();
        let _red = Network::shipped(comp1, "red");
        let _container = Container::start(comp1, "c1", &container_on("red", MAC, Some("10.1.0.38")));
        frr.start();
        let since = Instant::now();
        wait_until("comp2 to know the container", SOON, || knows(comp2, "red", "vxlan20", MAC, &["10.1.0.38"], "10.0.0.1"));
        eprintln!("lab: what started before FRR is known {} ms after its session was up", since.elapsed().as_millis());
        wait_until("red to be up", SOON, || network_status(comp1, "red")["state"] == "up");
        expect_vni(comp1, "10", "L3", "red");
        expect_advertised(comp1, MAC, &["10.1.0.38"]);
    }
}
