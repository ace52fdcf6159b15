//! Containers in every shape that LXC gives them, and every way that they end.

use crate::fabric::{Agent, Container, Host, Output, Traces, wait_until};
use crate::tenant::{
    GREEN, Network, Red, SOON, container_on, endpoint_status, expect_advertised, joined, known, remembers,
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
    wait_until(&format!("comp1 to know {ip}"), SOON, || known(red.comp1, "red", "vxlan20", mac, &[ip], "10.0.0.2"));
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
                wait_until(&format!("comp1 to know {ip}"), SOON, || known(red.comp1, tenant, vxlan, mac, &[ip], "10.0.0.2"));
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
        // Where newuidmap is installed, LXC lets it write the mapping, which allows root what is root's by these.
        red.comp2.sh("for ids in /etc/subuid /etc/subgid; do echo root:100000:65536 >>$ids; done");
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
        red.comp2.sh("rm -r /var/lib/lxc/shifted; sed -i /^root/d /etc/subuid /etc/subgid");
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
        wait_until("its veth to go", SOON, || veths(red.comp2).is_empty());
        let fdb = red.comp2.ok(&["bridge", "fdb", "show"]);
        assert!(!fdb.contains(MAC), "{fdb}");
        // The neighbour is the bridge's own; without its MAC the fabric does not hear of it.
        assert!(red.comp2.ok(&["ip", "neigh", "show", "nud", "permanent"]).contains(IP));
        wait_until("comp1 to forget it", SOON, || !remembers(red.comp1, MAC));
        // The same container again finds its own traces.
        container.boot();
        expect_known(&red, MAC, IP);
        // Killed once more; now someone looks.
        let monitor = container.monitor_pid().expect("its monitor");
        red.comp2.ok(&["kill", "-9", &monitor.to_string()]);
        wait_until("its veth to go", SOON, || veths(red.comp2).is_empty());
        red.comp2.ok(&["evpn-hook", "sync"]);
        expect_forgotten(&red, MAC);
        assert_eq!(red.comp2.sh("find /run/evpn-hook/guests ! -type d"), "");
        // And the name is free.
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

/// A user who may have containers: ids of its own, a cgroup of its own, a veth on red's bridge by lxc-user-nic.
pub struct Alice<'a>(&'a Host);

impl<'a> Alice<'a> {
    fn on(host: &'a Host) -> Alice<'a> {
        host.sh(&Alice::made());
        Alice(host)
    }

    /// The script that makes her, where she is to be.
    pub fn made() -> String {
        let script = r#"
            echo alice:x:4201:4201::/home/alice:/bin/sh >>/etc/passwd
            echo alice:x:4201: >>/etc/group
            for ids in /etc/subuid /etc/subgid; do echo alice:200000:65536 >>$ids; done
            echo alice veth red-l2 2 >/etc/lxc/lxc-usernet
            mkdir -p /run/lxc /home/alice/.local/share/lxc/c1 /sys/fs/cgroup/alice
            cp -a ROOTFS /home/alice/rootfs
            chown -R 4201:4201 /home/alice
            chown -hR 200000:200000 /home/alice/rootfs
            cd /sys/fs/cgroup/alice && chown 4201:4201 . cgroup.procs cgroup.subtree_control cgroup.threads
        "#;
        script.replace("ROOTFS", &Container::rootfs())
    }

    /// A command of hers, in her cgroup.
    fn run(&self, command: &str) -> Output {
        self.0.run(&["sh", "-c", &Alice::says(command)])
    }

    /// The script by which she runs a command.
    pub fn says(command: &str) -> String {
        format!(
            "echo $$ >/sys/fs/cgroup/alice/cgroup.procs; cd /home/alice; exec setpriv --reuid 4201 --regid 4201 --clear-groups \
             env -i HOME=/home/alice USER=alice PATH=$PATH {command}"
        )
    }

    /// The configuration of her container c1 on red.
    pub fn container(mac: &str, ip: &str) -> String {
        format!(
            "{}lxc.uts.name = c1
lxc.idmap = u 0 200000 65536
lxc.idmap = g 0 200000 65536
lxc.rootfs.path = dir:/home/alice/rootfs
lxc.init.cmd = /bin/container-init
lxc.apparmor.profile = unconfined
lxc.mount.auto = proc:mixed sys:ro
",
            container_on("red", mac, Some(ip))
        )
    }

    /// The script by which she goes.
    pub fn gone() -> &'static str {
        "sed -i /^alice/d /etc/passwd /etc/group /etc/subuid /etc/subgid; rm -r /home/alice /etc/lxc/lxc-usernet;
            find /sys/fs/cgroup/alice -depth -type d -exec rmdir {} +"
    }
}

impl Drop for Alice<'_> {
    fn drop(&mut self) {
        self.run("lxc-stop --kill --name c1");
        self.0.run(&["sh", "-c", Alice::gone()]);
    }
}

lab_test! {
    fn a_users_container_is_registered_by_the_agent(fabric) {
        let red = Red::and(fabric, &["[[unprivileged]]\nuser = 'alice'\nnetworks = ['red']\n"]);
        let alice = Alice::on(red.comp2);
        red.comp2.write("/home/alice/.local/share/lxc/c1/config", &Alice::container(MAC, IP));
        let start = "lxc-start --name c1 --logfile /home/alice/log";
        let before = Traces::of(red.comp2);
        let refused = alice.run(start);
        assert_ne!(refused.code, 0, "without an agent: {refused:?}");
        wait_until("LXC to clean up", SOON, || Traces::of(red.comp2) == before);

        let agent = Agent::start(red.comp2);
        let started = alice.run(start);
        assert_eq!(started.code, 0, "{started:?}\n{}", red.comp2.run(&["cat", "/home/alice/log"]).stdout);
        expect_known(&red, MAC, IP);
        assert_eq!(endpoint_status(red.comp2, MAC)["guest"]["id"], "4201/c1");
        // Nor does anybody take it for root's, or for gone.
        red.comp2.ok(&["evpn-hook", "sync"]);
        assert_eq!(red.comp2.ok(&["ls", "/run/evpn-hook/guests"]), "lxc-4201%2fc1.json\nlxc-4201%2fc1.lock\n");
        expect_known(&red, MAC, IP);
        assert_eq!(alice.run("lxc-stop --kill --name c1").code, 0);
        expect_forgotten(&red, MAC);

        // Refused again once the entry is gone: config.toml is read at each knock.
        red.comp2.sh("sed -i '/unprivileged/,$d' /etc/evpn-hook/config.toml");
        assert_ne!(alice.run(start).code, 0);
        wait_until("LXC to clean up", SOON, || Traces::of(red.comp2) == before);
        agent.kill();
    }
}
