//! The promise: the whole fabric knows a guest before its first instruction, and forgets it when it ends.

use std::time::{Duration, Instant};

use crate::fabric::{Container, Line, Monitor, Nic, Vm, VmSpec, wait_until};
use crate::tenant::{Red, SOON, container_on, endpoint_status, expect_advertised, knows, remembers};

const VM_MAC: &str = "52:54:00:03:82:d8";
const VM_IP: &str = "10.1.0.60";
const CONTAINER_MAC: &str = "00:16:3e:00:00:38";
const CONTAINER_IP: &str = "10.1.0.38";

/// How long after a guest's end the other hypervisor may still hold it.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// The three places where a remote hypervisor holds a guest, and the words of their netlink messages.
fn places<'a>(mac: &'a str, ip: &'a str, vtep: &'a str) -> [(&'static str, Vec<&'a str>); 3] {
    [
        ("FDB", vec![mac, "dev vxlan20", "extern_learn"]),
        ("neighbour", vec![ip, "dev red-l2", mac, "extern_learn"]),
        ("route", vec![ip, "via", vtep, "dev red-l3"]),
    ]
}

/// The first message about each place from the line `from` on; of its removal if so wanted.
fn messages(
    monitor: &Monitor,
    from: usize,
    mac: &str,
    ip: &str,
    vtep: &str,
    deleted: bool,
) -> Vec<(&'static str, Line)> {
    places(mac, ip, vtep)
        .into_iter()
        .map(|(place, mut parts)| {
            if deleted {
                parts = if place == "route" {
                    vec!["Deleted", ip, "dev red-l3"]
                } else {
                    vec!["Deleted", parts[0], parts[1]]
                };
            }
            (place, monitor.transcript().wait_from(from, &parts, SOON).1)
        })
        .collect()
}

lab_test! {
    fn the_fabric_knows_a_silent_vm_before_it_boots(fabric) {
        let red = Red::up(fabric);
        let (here, there) = (red.comp1.monitor(), red.comp2.monitor());
        let mut vm = Vm::define(red.comp1, &VmSpec {
            name: "red",
            nics: vec![Nic::Network { mac: VM_MAC, network: "red" }],
            cmdline: "lab.ip0=10.1.0.60/24 lab.gw0=10.1.0.1 lab.silent",
            ..VmSpec::default()
        });
        vm.boot();
        let first = vm.console().wait(&[""], SOON);
        for (place, line) in messages(&there, 0, VM_MAC, VM_IP, "10.0.0.1", false) {
            let lead = first.at.checked_duration_since(line.at);
            let lead = lead.unwrap_or_else(|| panic!("{place} came {:?} after the guest's first line", line.at - first.at));
            eprintln!("lab: VM's {place} known {} ms before its kernel's first line", lead.as_millis());
        }
        expect_advertised(red.comp1, VM_MAC, &[VM_IP]);
        assert!(knows(red.comp2, "red", "vxlan20", VM_MAC, &[VM_IP], "10.0.0.1"));

        vm.wait_ready();
        let container = Container::start(red.comp2, "c1", &container_on("red", CONTAINER_MAC, Some(CONTAINER_IP)));
        container.ok(&["ping", "-c", "2", "-W", "5", VM_IP]);
        let (code, output) = vm.exec(&format!("ping -c 2 -W 5 {CONTAINER_IP}"));
        assert_eq!(code, 0, "{output}");

        let (from_here, from_there) = (here.transcript().len(), there.transcript().len());
        vm.destroy();
        let returned = Instant::now();
        let death = here.transcript().wait_from(from_here, &["Deleted", "vnet"], SOON).1.at;
        for (place, line) in messages(&there, from_there, VM_MAC, VM_IP, "10.0.0.1", true) {
            let took = line.at.saturating_duration_since(death);
            eprintln!("lab: VM's {place} gone {} ms after its tap, {} ms after virsh destroy returned", took.as_millis(),
                line.at.saturating_duration_since(returned).as_millis());
            assert!(took < FORGOTTEN, "{place} stayed for {took:?}");
        }
        assert!(!remembers(red.comp2, VM_MAC) && !remembers(red.comp1, VM_MAC));
        assert_eq!(endpoint_status(red.comp1, VM_MAC), serde_json::Value::Null);
    }
}

lab_test! {
    fn the_fabric_knows_a_container_from_start_to_stop(fabric) {
        let red = Red::up(fabric);
        let there = red.comp1.monitor();
        let container = Container::define(red.comp2, "c1", &container_on("red", CONTAINER_MAC, Some(CONTAINER_IP)));
        let begun = Instant::now();
        container.boot();
        for (place, line) in messages(&there, 0, CONTAINER_MAC, CONTAINER_IP, "10.0.0.2", false) {
            eprintln!("lab: container's {place} known {} ms after lxc-start was called", (line.at - begun).as_millis());
        }
        expect_advertised(red.comp2, CONTAINER_MAC, &[CONTAINER_IP]);
        assert!(knows(red.comp1, "red", "vxlan20", CONTAINER_MAC, &[CONTAINER_IP], "10.0.0.2"));

        let from = there.transcript().len();
        container.stop();
        let returned = Instant::now();
        for (place, line) in messages(&there, from, CONTAINER_MAC, CONTAINER_IP, "10.0.0.2", true) {
            let took = line.at.saturating_duration_since(returned);
            eprintln!("lab: container's {place} gone {} ms after lxc-stop returned", took.as_millis());
            assert!(took < FORGOTTEN, "{place} stayed for {took:?}");
        }
        assert!(!remembers(red.comp1, CONTAINER_MAC) && !remembers(red.comp2, CONTAINER_MAC));
        wait_until("the endpoint to leave status", SOON, || endpoint_status(red.comp2, CONTAINER_MAC).is_null());
    }
}
