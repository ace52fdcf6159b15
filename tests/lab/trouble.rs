//! FRR is frozen or its vtysh is out of its mind, and a hook is ended, while real guests start and stop: they do all the same, and `sync` puts right
//! what is missing. Rows of the table of faults that `make test` prints; the rest is in tests/cli/trouble.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::fabric::{Host, Nic, Traces, Vm, VmSpec, wait_until};
use crate::table::Table;
use crate::tenant::{Network, Red, SOON, endpoint_status, expect_advertised, known, network_status, remembers};

const MAC: &str = "52:54:00:03:82:d8";
const IP: &str = "10.1.0.60";

/// A hook's questions to a silent FRR, on a machine that is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Daemons that neither run nor end.
struct Frozen<'a>(&'a Host, &'static str);

impl<'a> Frozen<'a> {
    fn new(host: &'a Host, daemons: &'static str) -> Frozen<'a> {
        host.sh(&format!("for daemon in {daemons}; do kill -STOP $(cat /run/frr/$daemon.pid); done"));
        Frozen(host, daemons)
    }

    fn thaw(self) {}
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.sh(&format!("for daemon in {}; do kill -CONT $(cat /run/frr/$daemon.pid); done", self.1));
    }
}

fn red_vm(host: &Host) -> Vm<'_> {
    Vm::define(
        host,
        &VmSpec { name: "red", nics: vec![Nic::Network { mac: MAC, network: "red" }], ..VmSpec::default() },
    )
}

fn in_time(what: &str, act: impl FnOnce()) {
    let began = Instant::now();
    act();
    assert!(began.elapsed() < PATIENCE, "{what} took {:?}", began.elapsed());
    eprintln!("lab: {what}: {:.1} s", began.elapsed().as_secs_f64());
}

/// What `sync` came to, and that it leaves nothing to do.
fn healed(host: &Host, what: &str) -> &'static str {
    let sync = host.run(&["evpn-hook", "sync"]);
    assert_eq!((sync.code, &*sync.stderr), (0, ""), "{what}: {}", sync.stdout);
    assert_eq!(host.ok(&["evpn-hook", "sync"]), "nothing to do\n", "{what}");
    if sync.stdout == "nothing to do\n" { "nothing to heal" } else { "sync" }
}

lab_test! {
    fn a_guest_starts_and_stops_while_frr_is_frozen(fabric) {
        let mut table = Table::of("trouble::a_guest_starts_and_stops_while_frr_is_frozen");
        let red = Red::up(fabric);
        let vm = red_vm(red.comp1);
        for daemons in ["bgpd", "zebra bgpd"] {
            let frozen = Frozen::new(red.comp1, daemons);
            in_time(&format!("a start with {daemons} frozen"), || vm.start_paused());
            eprintln!("lab: of it the hook, in µs: {}", red.comp1.sh("grep -o '\"took\":[0-9]*' /run/evpn-hook/guests/*.json"));
            assert_eq!(endpoint_status(red.comp1, MAC)["state"], "registered", "{daemons}");
            frozen.thaw();
            let by = healed(red.comp1, daemons);
            wait_until("comp2 to know the guest", SOON, || known(red.comp2, "red", "vxlan20", MAC, &[IP], "10.0.0.1"));
            expect_advertised(red.comp1, MAC, &[IP]);
            table.add("frr-frozen", "virsh start", "runs", by);
            let frozen = Frozen::new(red.comp1, daemons);
            in_time(&format!("a stop with {daemons} frozen"), || vm.destroy());
            frozen.thaw();
            let by = healed(red.comp1, daemons);
            wait_until("comp2 to forget the guest", SOON, || !remembers(red.comp2, MAC));
            table.add("frr-frozen", "virsh destroy", "gone, withdrawn", by);
        }
    }
}

lab_test! {
    fn a_network_starts_and_stops_while_frr_is_frozen(fabric) {
        let mut table = Table::of("trouble::a_network_starts_and_stops_while_frr_is_frozen");
        let host = fabric.comp1();
        let without = Traces::of(host);
        for daemons in ["zebra", "bgpd"] {
            let frozen = Frozen::new(host, daemons);
            let mut red = None;
            in_time(&format!("a network's start with {daemons} frozen"), || red = Some(Network::shipped(host, "red")));
            assert!(red.as_ref().is_some_and(Network::is_active));
            frozen.thaw();
            let by = healed(host, daemons);
            wait_until("red to be up", SOON, || network_status(host, "red")["state"] == "up");
            table.add("frr-frozen", "virsh net-start", "network runs", by);
            let frozen = Frozen::new(host, daemons);
            in_time(&format!("a network's end with {daemons} frozen"), || drop(red));
            frozen.thaw();
            let by = healed(host, daemons);
            without.assert_unchanged(host);
            table.add("frr-frozen", "virsh net-destroy", "network gone", by);
        }
    }
}

/// Another program where vtysh is.
struct NotVtysh<'a>(&'a Host);

impl<'a> NotVtysh<'a> {
    fn new(host: &'a Host, body: &str) -> NotVtysh<'a> {
        host.write("/run/not-vtysh", &format!("#!/bin/sh\n{body}\n"));
        host.sh("chmod 755 /run/not-vtysh; mount --bind /run/not-vtysh /usr/bin/vtysh");
        NotVtysh(host)
    }

    fn end(self) {}
}

impl Drop for NotVtysh<'_> {
    fn drop(&mut self) {
        // One that hangs is still at it for a moment.
        self.0.sh("umount -l /usr/bin/vtysh");
    }
}

lab_test! {
    fn a_network_starts_and_stops_whatever_vtysh_does(fabric) {
        let mut table = Table::of("trouble::a_network_starts_and_stops_whatever_vtysh_does");
        let host = fabric.comp1();
        let without = Traces::of(host);
        for body in ["exec sleep 100", "exec yes", "echo '% Unknown command'; exit 1"] {
            let other = NotVtysh::new(host, body);
            let mut red = None;
            in_time(&format!("a network's start with '{body}' for vtysh"), || red = Some(Network::shipped(host, "red")));
            assert!(red.as_ref().is_some_and(Network::is_active), "{body}");
            other.end();
            let by = healed(host, body);
            wait_until("red to be up", SOON, || network_status(host, "red")["state"] == "up");
            table.add("vtysh-hangs", "virsh net-start", "network runs", by);
            let other = NotVtysh::new(host, body);
            in_time(&format!("a network's end with '{body}' for vtysh"), || drop(red));
            other.end();
            let by = healed(host, body);
            without.assert_unchanged(host);
            table.add("vtysh-hangs", "virsh net-destroy", "network gone", by);
        }
    }
}

lab_test! {
    fn a_hook_is_ended_during_virsh_start(fabric) {
        let mut table = Table::of("trouble::a_hook_is_ended_during_virsh_start");
        let red = Red::up(fabric);
        let vm = red_vm(red.comp1);
        let uuid = red.comp1.ok(&["virsh", "domuuid", "red"]);
        let lock = format!("/run/evpn-hook/guests/libvirt-{}.lock", uuid.trim());
        let without = Traces::of(red.comp1);
        for signal in ["TERM", "INT", "HUP"] {
            // Its hook waits for the lock, where it is found.
            let held = File::create(red.comp1.path(&lock)).expect("the guest's lock");
            flock(&held, FlockOperation::LockExclusive).expect("the guest's lock");
            let start = red.comp1.start_with(&["virsh", "--quiet", "start", "--paused", "red"], "");
            let mut pid = String::new();
            wait_until("the hook to wait", Duration::from_secs(120), || {
                pid = red.comp1.run(&["pgrep", "-f", "^[^ ]*/hooks/[^ ]* red start begin -$"]).stdout.trim().to_owned();
                !pid.is_empty()
            });
            red.comp1.ok(&["kill", &format!("-{signal}"), &pid]);
            let start = start.wait();
            assert!(start.code != 0 && start.stderr.contains("hook"), "{start:?}");
            drop(held);
            let by = healed(red.comp1, signal);
            without.assert_unchanged(red.comp1);
            table.add("signal", "virsh start", "refused", by);
        }
        vm.start_paused();
        wait_until("comp2 to know the guest", SOON, || known(red.comp2, "red", "vxlan20", MAC, &[IP], "10.0.0.1"));
    }
}
