//! Guests that work: by hand, by libvirt, and those that are none of ours.

use crate::common::sh;
use crate::host::{CONFIG, Host, fdb, neighbours, repository, snapshot, tap};
use crate::on_a_host;
use crate::xml::{domain, guest, interface};
use serde_json::json as value;
use std::process::{Child, Command};

const MAC: &str = "52:54:00:03:82:d8";

on_a_host!(attached_by_hand_and_detached, {
    let host = Host::flat();
    tap("vnet0");
    let before = snapshot();
    let ips = ["--ip", "10.1.0.60", "--ip", "10.1.0.61", "--ip", "fd00:1::60"];
    let args = [&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--guest", "vm1"], &ips[..]].concat();
    let plan = host.run(&[&args[..], &["--dry-run"]].concat()).ok().stdout;
    assert_eq!(
        plan,
        format!(
            "ip link set vnet0 master flat-l2
ip link set vnet0 mtu 1450
ip link set vnet0 up
bridge fdb replace {MAC} dev vnet0 master static
ip neigh replace 10.1.0.60 lladdr {MAC} dev flat-l2 nud permanent
ip neigh replace 10.1.0.61 lladdr {MAC} dev flat-l2 nud permanent
ip neigh replace fd00:1::60 lladdr {MAC} dev flat-l2 nud permanent
"
        )
    );
    assert_eq!(snapshot(), before, "a dry run changes nothing");
    let run = host.run(&args).ok();
    assert!(run.stdout.starts_with("registered in ") && run.stdout.ends_with(" ms\n"), "{run:?}");
    let endpoints = value!([{
        "guest": {"kind": "manual", "name": "vm1", "id": "vm1"}, "network": "flat", "device": "vnet0", "mac": MAC,
        "ips": ["10.1.0.60", "10.1.0.61", "fd00:1::60"],
        "addresses": [
            { "ip": "10.1.0.60", "source": "manual" },
            { "ip": "10.1.0.61", "source": "manual" },
            { "ip": "fd00:1::60", "source": "manual" },
        ],
        "state": "registered", "problems": [],
    }]);
    assert_eq!(host.status()["endpoints"], endpoints);
    assert_eq!(fdb(), format!("fdb {MAC} dev vnet0\n"));
    assert_eq!(
        neighbours(),
        ["10.1.0.60", "10.1.0.61", "fd00:1::60"].map(|ip| format!("neigh {ip} {MAC} dev flat-l2\n")).concat()
    );
    let whole = snapshot();
    host.run(&args).ok();
    assert_eq!(snapshot(), whole, "attached again is nothing");
    // Drift is seen, and mended by attaching again.
    sh("ip neigh del 10.1.0.61 dev flat-l2");
    let seen = host.status();
    assert_eq!(seen["endpoints"][0]["state"], "failed", "{seen}");
    let missing = format!("missing: ip neigh replace 10.1.0.61 lladdr {MAC} dev flat-l2 nud permanent");
    assert_eq!(seen["endpoints"][0]["problems"], value!([missing]));
    host.run(&args).ok();
    assert_eq!(snapshot(), whole);
    host.run(&["detach", "--guest", "vm1"]).ok();
    assert_eq!((fdb(), neighbours()), (String::new(), String::new()));
    assert_eq!(host.status()["endpoints"], value!([]));
    assert!(!snapshot().contains("link \"vnet0\" master \"flat-l2\""));
});

on_a_host!(a_port_that_others_enslaved_stays_on_its_bridge, {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 mtu 1450 up");
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60"]).ok();
    host.run(&["detach", "vnet0"]).ok();
    assert_eq!((fdb(), neighbours()), (String::new(), String::new()));
    assert!(snapshot().contains("link \"vnet0\" master \"flat-l2\""), "{}", snapshot());
});

on_a_host!(attached_again_with_other_addresses, {
    let host = Host::flat();
    tap("vnet0");
    let attach = |mac, ip| host.run(&["attach", "vnet0", "--network", "flat", "--mac", mac, "--ip", ip]).ok();
    attach(MAC, "10.1.0.60");
    attach(MAC, "10.1.0.61");
    assert_eq!(neighbours(), format!("neigh 10.1.0.61 {MAC} dev flat-l2\n"));
    attach("52:54:00:03:82:d9", "10.1.0.61");
    assert_eq!(neighbours(), "neigh 10.1.0.61 52:54:00:03:82:d9 dev flat-l2\n");
    assert_eq!(fdb(), "fdb 52:54:00:03:82:d9 dev vnet0\n");
    host.run(&["detach", "vnet0"]).ok();
    assert_eq!((fdb(), neighbours()), (String::new(), String::new()));
});

on_a_host!(a_second_start_without_a_stop_between_leaves_no_ghost, {
    let host = Host::flat();
    for (dev, ip) in [("vnet0", "10.1.0.60"), ("vnet1", "10.1.0.61")] {
        tap(dev);
        sh(&format!("ip link set {dev} master flat-l2 mtu 1450 up"));
        let xml = domain(1, &guest(MAC, None, &[ip]), &interface(MAC, dev, "flat-l2"));
        host.hook(&["qemu", "vm1", "start", "begin", "-"], xml).ok();
        // As after a crash of the host's libvirtd together with QEMU: nobody said that the guest stopped.
        assert_eq!(neighbours(), format!("neigh {ip} {MAC} dev flat-l2\n"));
        assert_eq!(fdb(), format!("fdb {MAC} dev {dev}\n"));
    }
    let elsewhere = domain(1, "", &interface(MAC, "vnet1", "virbr0"));
    host.hook(&["qemu", "vm1", "start", "begin", "-"], elsewhere).ok();
    assert_eq!((fdb(), neighbours()), (String::new(), String::new()));
    assert_eq!(host.status()["endpoints"], value!([]));
});

on_a_host!(only_what_is_still_ours_is_withdrawn, {
    let host = Host::flat();
    tap("vnet0");
    tap("vnet1");
    sh("ip link set vnet1 master flat-l2 up");
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60", "--ip", "10.1.0.61"]).ok();
    // The MAC has moved to another port, one address to another MAC.
    sh(&format!("bridge fdb replace {MAC} dev vnet1 master static"));
    sh("ip neigh replace 10.1.0.61 lladdr 52:54:00:00:00:99 dev flat-l2 nud permanent");
    host.run(&["detach", "vnet0"]).ok();
    assert_eq!(fdb(), format!("fdb {MAC} dev vnet1\n"));
    assert_eq!(neighbours(), "neigh 10.1.0.61 52:54:00:00:00:99 dev flat-l2\n");
});

/// A process with a network namespace of its own, until it is dropped.
pub struct Sleeper(pub Child);

impl Sleeper {
    pub fn start() -> Sleeper {
        let sleeper = Sleeper(Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap());
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let there = format!("/proc/{}/ns/net", sleeper.0.id());
        while std::fs::read_link(&there).unwrap() == ours {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        sleeper
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

on_a_host!(a_container_is_read_in_its_own_namespace, {
    let host = Host::flat();
    let sleeper = Sleeper::start();
    let pid = sleeper.0.id().to_string();
    sh(&format!("ip link add c1 type veth peer name eth0 address {MAC} netns {pid}"));
    let inside = |line: &str| sh(&format!("nsenter -t {pid} -n sh -c '{line}'"));
    inside("ip link set lo up; ip address add 10.1.0.70/24 dev eth0; ip address add fd00:1::70/64 dev eth0 nodad");
    for place in [pid.clone(), format!("/proc/{pid}/ns/net")] {
        host.run(&["attach", "c1", "--network", "flat", "--netns", &place]).ok();
        assert_eq!(
            neighbours(),
            ["10.1.0.70", "fd00:1::70"].map(|ip| format!("neigh {ip} {MAC} dev flat-l2\n")).concat()
        );
        assert_eq!(fdb(), format!("fdb {MAC} dev c1\n"));
        host.run(&["detach", "c1"]).ok();
    }
    host.run(&["attach", "c1", "--network", "flat", "--netns", &pid, "--ifname", "eth0"]).ok();
    host.run(&["detach", "c1"]).ok();
    fn attach<'a>(dev: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["attach", dev, "--network", "flat", "--netns"], more].concat()
    }
    let parts = &["no eth9 in network namespace /proc/", "name the device with --ifname"];
    host.refuses(&attach("c1", &[&pid, "--ifname", "eth9"]), 1, parts);
    tap("vnet0");
    host.refuses(&attach("vnet0", &[&pid]), 1, &["no peer of vnet0 in network namespace /proc/"]);
    host.refuses(&attach("c9", &[&pid]), 1, &["device c9 is not there: name the veth's end on this host"]);
    let parts = &["cannot open network namespace /run/netns/nope: No such file", "is its process alive?"];
    host.refuses(&attach("c1", &["/run/netns/nope"]), 1, parts);
    host.refuses(&attach("c1", &["4194999"]), 1, &["/proc/4194999/ns/net", "is its process alive?"]);
    host.refuses(
        &attach("c1", &["/run/config.toml"]),
        1,
        &["/run/config.toml: enter the network namespace: Invalid argument"],
    );
});

on_a_host!(a_domain_as_libvirt_shows_it, {
    // tests/golden/input has what libvirt 9.0 gives, verbatim; its second and third NIC are on a network of ours.
    let config = CONFIG.replace("other-l2", "br-blue");
    let host = Host::new(&config);
    host.run(&["network", "up", "other"]).ok();
    let xml = |op: &str| repository(&format!("tests/golden/input/sample-qemu-{op}/stdin.xml"));
    for dev in ["vnet0", "tap-vm1-blue", "vnet1", "vnet2"] {
        sh(&format!("ip link add {dev} type veth peer name x-{}", dev.replace("tap-", "")));
    }
    sh("ip link add virbr-red type bridge && ip link set vnet0 master virbr-red");
    sh("ip link set tap-vm1-blue master br-blue up && ip link set vnet1 master br-blue up");
    for op in ["prepare", "start", "started"] {
        host.hook(&["qemu", "vm1", op, "begin", "-"], xml(op)).ok();
    }
    assert_eq!(fdb(), "fdb 52:54:00:aa:00:02 dev tap-vm1-blue\nfdb 52:54:00:aa:00:03 dev vnet1\n");
    assert_eq!(neighbours(), "", "no address is known: the MAC alone");
    let endpoint = &host.status()["endpoints"][0];
    assert_eq!(
        endpoint["guest"],
        value!({"kind": "libvirt", "name": "vm1", "id": "11111111-2222-3333-4444-555555555501"})
    );
    assert_eq!((&endpoint["state"], &endpoint["ips"]), (&"registered".into(), &value!([])));
    host.hook(&["qemu", "vm1", "reconnect", "begin", "-"], xml("reconnect")).ok();
    for op in ["stopped", "release"] {
        host.hook(&["qemu", "vm1", op, "end", "-"], xml(op)).ok();
        assert_eq!(fdb(), "", "{op}");
    }
    assert_eq!(host.status()["endpoints"], value!([]));
});

on_a_host!(two_nics_and_one_is_bad, {
    let host = Host::new(&format!("allow_guest_networks = true\n{CONFIG}"));
    host.run(&["network", "up", "flat"]).ok();
    host.run(&["network", "up", "other"]).ok();
    let macs = [MAC, "52:54:00:03:82:d9"];
    for dev in ["vnet0", "vnet1"] {
        tap(dev);
    }
    sh("ip link set vnet0 master flat-l2");
    let nic = interface(macs[0], "vnet0", "flat-l2");
    let ethernet = format!("<interface type='ethernet'><mac address='{}'/><target dev='vnet1'/></interface>", macs[1]);
    let metadata = |network| {
        guest(macs[0], None, &["10.1.0.60"]).replace("</evpn:guest>", "")
            + guest(macs[1], Some(network), &["10.2.0.60", "fd00:2::60"]).split_once('>').unwrap().1
    };
    let start = ["qemu", "vm1", "start", "begin", "-"];
    let xml = |network| domain(1, &metadata(network), &format!("{nic}{ethernet}"));
    // The second is refused while the plan is made …
    host.hook_refuses(&start, xml("nope"), 1, &["vm vm1: network nope of device vnet1 is not up"]);
    // … or by the kernel, when the first is registered already: that is undone.
    sh("sysctl -qw net.ipv6.conf.other-l2.disable_ipv6=1");
    host.hook_refuses(&start, xml("other"), 1, &["ip neigh replace fd00:2::60 lladdr 52:54:00:03:82:d9 dev other-l2"]);
    sh("sysctl -qw net.ipv6.conf.other-l2.disable_ipv6=0");
    host.hook(&start, xml("other")).ok();
    assert_eq!(fdb().lines().count(), 2);
    assert_eq!(neighbours().lines().count(), 3);
    // The tap that libvirt does not enslave is ours to release; libvirt's stays.
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], xml("other")).ok();
    let after = snapshot();
    assert!(
        after.contains("link \"vnet0\" master \"flat-l2\"") && after.contains("link \"vnet1\" master null"),
        "{after}"
    );
});

on_a_host!(guests_that_are_none_of_ours, {
    let host = Host::flat();
    sh("ip link add virbr0 type bridge");
    tap("vnet0");
    sh("ip link set vnet0 master virbr0 up");
    let before = snapshot();
    let xml = domain(1, "", &interface(MAC, "vnet0", "virbr0"));
    for op in ["prepare", "start", "started", "reconnect", "stopped", "release"] {
        host.hook(&["qemu", "vm1", op, "begin", "-"], &xml).ok();
    }
    assert_eq!(snapshot(), before);
});

on_a_host!(a_nic_that_was_unplugged, {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 up");
    let xml = domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"));
    host.hook(&["qemu", "vm1", "start", "begin", "-"], &xml).ok();
    let port = "<hookData><network><name>x</name></network><networkport><uuid>a675cc40-b1e9-40b4-895b-a6790239f68e</uuid><owner><name>vm1</name>\
                <uuid>11111111-2222-3333-4444-000000000001</uuid></owner></networkport></hookData>";
    let deleted = ["network", "x", "port-deleted", "begin", "-"];
    // For a mere change of the link's state libvirt makes a second port. Before 10.8 it deletes that one again, since then the first.
    host.hook(&deleted, port).ok();
    assert!(snapshot().contains("neigh 10.1.0.60"));
    // It moved to another bridge, or QEMU has closed its tap.
    sh("ip link set vnet0 nomaster");
    host.hook(&deleted, port).ok();
    assert_eq!((fdb(), neighbours()), (String::new(), String::new()));
});
