//! Containers in every shape that LXC gives them, and every way that they end.

use crate::fabric::{Container, Host, Traces, wait_until};
use crate::tenant::{
    GREEN, Network, Red, SOON, container_on, endpoint_status, expect_advertised, joined, knows, remembers,
};

const MAC: &str = "00:16:3e:00:00:39";
const IP: &str = "10.1.0.39";

/// A NIC of red's without a link: evpn-hook puts it on the bridge.
const UNLINKED: &str = "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\n\
    lxc.net.0.script.up = /usr/bin/evpn-hook lxc --network red\nlxc.net.0.flags = up\nlxc.net.0.name = eth0\n\
    lxc.net.0.hwaddr = 00:16:3e:00:00:39\nlxc.net.0.ipv4.address = 10.1.0.39/24\n";

/// The host's ends of all containers' veths.
fn veths(host: &Host) -> Vec<String> {
    host.sh("for device in /sys/class/net/veth*; do [ ! -e $device ] || basename $device; done")
        .lines()
        .map(str::to_owned)
        .collect()
}

fn expect_forgotten(red: &Red, mac: &str) {
    assert!(!remembers(red.comp2, mac), "{mac} is still on comp2");
    wait_until(&format!("comp1 to forget {mac}"), SOON, || !remembers(red.comp1, mac));
}

fn expect_known(red: &Red, mac: &str, ip: &str) {
    wait_until(&format!("comp1 to know {ip}"), SOON, || knows(red.comp1, "red", "vxlan20", mac, &[ip], "10.0.0.2"));
    expect_advertised(red.comp2, mac, &[ip]);
}

lab_test! {
    /// Its first NIC has no link (evpn-hook enslaves it), its second has one.
    fn a_container_has_two_nics_and_reboots(fabric) {
        let red = Red::and(fabric, &[GREEN]);
        let _green = Network::without_dhcp(red.comp1, "green");
        joined(fabric, 40);
        let container = Container::start(red.comp2, "c2", &format!("{UNLINKED}
lxc.net.1.type = veth
lxc.net.1.link = green-l2
lxc.net.1.flags = up
lxc.net.1.name = eth1
lxc.net.1.hwaddr = 00:16:3e:00:02:02
lxc.net.1.ipv4.address = 10.2.0.82/24
"));
        let expect_both = || {
            for (mac, tenant, vxlan, ip) in [(MAC, "red", "vxlan20", IP), ("00:16:3e:00:02:02", "green", "vxlan40", "10.2.0.82")] {
                wait_until(&format!("comp1 to know {ip}"), SOON, || knows(red.comp1, tenant, vxlan, mac, &[ip], "10.0.0.2"));
                expect_advertised(red.comp2, mac, &[ip]);
            }
        };
        expect_both();
        container.ok(&["ping", "-c", "1", "-W", "5", "10.1.0.1"]);
        container.ok(&["ping", "-c", "1", "-W", "5", "10.2.0.1"]);

        let (before, old) = (container.pid(), veths(red.comp2));
        container.run(&["reboot", "-f"]);
        wait_until("the container's new init", SOON, || container.pid().is_some_and(|pid| Some(pid) != before));
        expect_both();
        container.ok(&["ping", "-c", "1", "-W", "5", "10.1.0.1"]);
        let new = veths(red.comp2);
        assert!(new.len() == 2 && old.len() == 2 && !old.iter().any(|device| new.contains(device)), "{old:?}, then {new:?}");
        let fdb = red.comp2.ok(&["bridge", "fdb", "show"]);
        assert!(!old.iter().any(|device| fdb.contains(device)), "{old:?} in\n{fdb}");
        assert_eq!(fdb.lines().filter(|line| line.contains(MAC)).count(), 1, "{fdb}");

        container.stop();
        for mac in [MAC, "00:16:3e:00:02:02"] {
            expect_forgotten(&red, mac);
        }
    }
}

lab_test! {
    fn a_container_that_fails_to_start_leaves_nothing(fabric) {
        let red = Red::up(fabric);
        let before = Traces::of(red.comp2);
        // All but the last fail before start-host, with the veth on the bridge or not there yet.
        for (failure, has_veth, registered) in [
            ("lxc.hook.pre-start = /bin/false", false, false),
            ("lxc.hook.pre-mount = /bin/false", true, false),
            ("lxc.hook.mount = /bin/false", true, false),
            ("lxc.rootfs.path = dir:/nowhere", false, false),
            ("lxc.hook.start = /bin/false", true, false),
            ("lxc.init.cmd = /bin/nothing", true, true),
        ] {
            let monitor = red.comp2.monitor();
            let _container = Container::define(red.comp2, "c3", &format!("{UNLINKED}{failure}"));
            let start = red.comp2.run(&["lxc-start", "--name", "c3"]);
            assert_ne!(start.code, 0, "{failure}: {start:?}");
            if has_veth {
                monitor.wait(&["Deleted", "veth"], SOON);
            }
            wait_until(&format!("LXC to clean up after {failure}"), SOON, || Traces::of(red.comp2) == before);
            let lines = monitor.transcript().lines();
            let seen = |part: &str| lines.iter().any(|line| line.text.contains(part));
            assert_eq!((seen("veth"), seen("10.1.0.39 ")), (has_veth, registered), "{failure}");
            expect_forgotten(&red, MAC);
        }
    }
}

lab_test! {
    fn a_frozen_container_stays_known_until_it_is_stopped(fabric) {
        let red = Red::up(fabric);
        let there = red.comp1.monitor();
        let container = Container::start(red.comp2, "c1", &container_on("red", MAC, Some(IP)));
        expect_known(&red, MAC, IP);
        let from = there.transcript().len();
        red.comp2.ok(&["lxc-freeze", "--name", "c1"]);
        assert_eq!(container.state(), "FROZEN");
        // Another one comes and goes meanwhile: what was withdrawn would have arrived before that.
        let other = Container::start(red.comp2, "c2", &container_on("red", "00:16:3e:00:00:40", Some("10.1.0.40")));
        expect_known(&red, "00:16:3e:00:00:40", "10.1.0.40");
        assert_eq!(container.state(), "FROZEN");
        expect_advertised(red.comp2, MAC, &[IP]);
        red.comp2.ok(&["lxc-unfreeze", "--name", "c1"]);
        container.ok(&["ping", "-c", "1", "-W", "5", "10.1.0.1"]);
        other.stop();
        expect_forgotten(&red, "00:16:3e:00:00:40");
        let lost: Vec<String> = there.transcript().lines().into_iter().skip(from).map(|line| line.text)
            .filter(|line| line.contains("Deleted") && (line.contains(MAC) || line.contains("10.1.0.39 "))).collect();
        assert!(lost.is_empty(), "{lost:#?}");

        red.comp2.ok(&["lxc-freeze", "--name", "c1"]);
        container.stop();
        expect_forgotten(&red, MAC);
        assert!(endpoint_status(red.comp2, MAC).is_null());
    }
}

lab_test! {
    /// LXC makes another MAC of it each time that it reads the configuration.
    fn a_mac_template_is_advertised_as_it_is_inside(fabric) {
        let red = Red::up(fabric);
        let container = Container::start(red.comp2, "c1", &container_on("red", "00:16:3e:xx:xx:xx", Some(IP)));
        let mac = container.ok(&["cat", "/sys/class/net/eth0/address"]).trim().to_owned();
        assert!(mac.starts_with("00:16:3e:"), "{mac}");
        expect_known(&red, &mac, IP);
        container.stop();
        expect_forgotten(&red, &mac);
    }
}

lab_test! {
    /// Root's own, with another user's ids inside: its hooks run as root, its namespace is opened from outside.
    fn a_container_with_shifted_ids_is_registered(fabric) {
        let red = Red::up(fabric);
        let shifted = format!("cp -a {} /var/lib/lxc/shifted && chown -hR 100000:100000 /var/lib/lxc/shifted", Container::rootfs());
        red.comp2.sh(&shifted);
        let config = container_on("red", MAC, Some(IP)) + "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n\
            lxc.rootfs.path = dir:/var/lib/lxc/shifted\n";
        let container = Container::start(red.comp2, "c1", &config);
        let init = container.pid().expect("its init");
        let owner = red.comp2.ok(&["stat", "-c", "%u", &format!("/proc/{init}")]);
        assert_eq!(owner, "100000\n");
        expect_known(&red, MAC, IP);
        container.ok(&["ping", "-c", "1", "-W", "5", "10.1.0.1"]);
        container.stop();
        expect_forgotten(&red, MAC);
        red.comp2.ok(&["rm", "-r", "/var/lib/lxc/shifted"]);
    }
}

lab_test! {
    /// No hook runs then. The kernel takes back what hung on the veth; the rest waits for someone who looks.
    fn a_container_whose_monitor_is_killed_leaves_its_veth_to_the_kernel(fabric) {
        let red = Red::up(fabric);
        let here = red.comp2.monitor();
        let container = Container::start(red.comp2, "c1", &container_on("red", MAC, Some(IP)));
        expect_known(&red, MAC, IP);
        let monitor = container.monitor_pid().expect("its monitor");
        red.comp2.ok(&["kill", "-9", &monitor.to_string()]);
        here.wait(&["Deleted", "veth"], SOON);
        assert!(veths(red.comp2).is_empty());
        let fdb = red.comp2.ok(&["bridge", "fdb", "show"]);
        assert!(!fdb.contains(MAC), "{fdb}");
        // The neighbour is the bridge's own; without its MAC the fabric does not hear of it.
        assert!(red.comp2.ok(&["ip", "neigh", "show", "nud", "permanent"]).contains(IP));
        wait_until("comp1 to forget it", SOON, || !remembers(red.comp1, MAC));
        // The same container again finds its own traces.
        container.boot();
        expect_known(&red, MAC, IP);
        container.stop();
        expect_forgotten(&red, MAC);
    }
}

lab_test! {
    fn two_containers_start_and_stop_at_once(fabric) {
        let red = Red::up(fabric);
        let guests = [("c1", "00:16:3e:00:00:41", "10.1.0.41"), ("c2", "00:16:3e:00:00:42", "10.1.0.42")];
        let containers = guests.map(|(name, mac, ip)| Container::define(red.comp2, name, &container_on("red", mac, Some(ip))));
        std::thread::scope(|scope| {
            for container in &containers {
                scope.spawn(|| container.boot());
            }
        });
        for (_, mac, ip) in guests {
            expect_known(&red, mac, ip);
        }
        std::thread::scope(|scope| {
            for container in &containers {
                scope.spawn(|| container.stop());
            }
        });
        for (_, mac, _) in guests {
            expect_forgotten(&red, mac);
        }
    }
}
