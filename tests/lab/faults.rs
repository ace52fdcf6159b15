//! Killed and failed in the midst of its work, with FRR, libvirt and QEMU about: after `sync` the host is as it should be, FRR's configuration and
//! routes included, and the other host knows the guest. Without them each and every point is tried by tests/cli/faults.

use std::fmt::Write;
use std::path::PathBuf;

use crate::fabric::{Host, Nic, Output, Traces, Vm, VmSpec, wait_until};
use crate::tenant::{Configured, RED, Red, SOON, knows};

/// The one that can be told to die; what is installed cannot.
const BIN: &str = env!("CARGO_BIN_EXE_evpn-hook");
const LOG: &str = "/run/faults.log";
const KILLED: i32 = 128 + 9;
const MAC: &str = "52:54:00:03:82:d8";
const IP: &str = "10.1.0.60";

/// Runs a command with this variable set.
fn with(host: &Host, variable: &str, words: &[&str], stdin: &str) -> Output {
    host.run_with(&[&["env", variable, BIN], words].concat(), stdin)
}

/// The points of this command, run to its end.
fn points(host: &Host, words: &[&str], stdin: &str) -> Vec<String> {
    host.run(&["rm", "-f", LOG]);
    let done = with(host, &format!("EVPN_HOOK_FAULT_LOG={LOG}"), words, stdin);
    assert_eq!((done.code, &*done.stderr), (0, ""), "{}", done.command);
    host.ok(&["cat", LOG]).lines().map(str::to_owned).collect()
}

/// Each fault with its point: all about FRR, of the others every so manieth.
fn faults(points: &[String], every: usize) -> Vec<(String, String)> {
    let about_frr = |point: &str| point.contains("vtysh") || point.contains("vrfs/");
    let kills = points.iter().enumerate().filter(|(at, point)| about_frr(point) || at % every == 0);
    let steps =
        points.iter().filter(|p| p.starts_with("before ") && !p.contains(" writing ") && !p.contains(" removing "));
    let fails = steps.enumerate().filter(|(at, point)| about_frr(point) || at % every == 0);
    let kills = kills.map(|(at, point)| (format!("kill {}", at + 1), point.clone()));
    kills.chain(fails.map(|(at, point)| (format!("fail {}", at + 1), point.clone()))).collect()
}

/// Mends, and finds nothing more to mend.
fn sync(host: &Host, after: &str) {
    let done = host.run(&["evpn-hook", "sync"]);
    assert_eq!((done.code, &*done.stderr), (0, ""), "{after}: {}", done.stdout);
    assert_eq!(host.ok(&["evpn-hook", "sync"]), "nothing to do\n", "{after}");
}

/// The table of all points, kept with what the lab keeps.
struct Table(&'static str, String);

impl Table {
    fn add(&mut self, plan: &str, (fault, point): &(String, String), outcome: &str) {
        let _ = writeln!(self.1, "{plan:<44} {fault:<8} {outcome:<10} {point}");
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let out = PathBuf::from(std::env::var_os("EVPN_LAB_OUT").unwrap_or_else(|| "/tmp".into()));
        let _ = std::fs::write(out.join(format!("faults-{}.txt", self.0)), &self.1);
    }
}

lab_test! {
    fn a_tenant_that_was_broken_off_is_mended(fabric) {
        let mut table = Table("lab-tenant", String::new());
        let host = fabric.comp2();
        let _red = Configured::of(host, &[RED]);
        let (up, down) = (["network", "up", "red"], ["network", "down", "red"]);
        // The host's own settings are changed once and stay; FRR keeps the VRF's name.
        for words in [up, down] {
            points(host, &words, "");
        }
        let without = Traces::of(host);
        let ups = points(host, &up, "");
        let whole = Traces::of(host);
        let downs = points(host, &down, "");
        without.assert_unchanged(host);
        for (words, points, is_up) in [(up, ups, false), (down, downs, true)] {
            let plan = format!("fabric: {}", words.join(" "));
            for fault in faults(&points, 6) {
                let after = format!("{plan}, {} ({})", fault.0, fault.1);
                if is_up {
                    host.ok(&[&["evpn-hook"][..], &up].concat());
                }
                let done = with(host, &format!("EVPN_HOOK_FAULT={}", fault.0), &words, "");
                assert!(done.code == KILLED || fault.0.starts_with("fail"), "{after}: {done:?}");
                sync(host, &after);
                let there = host.run(&["test", "-e", "/run/evpn-hook/networks/red-l2.json"]).code == 0;
                if there {
                    host.ok(&["evpn-hook", "status", "--check"]);
                }
                if there { &whole } else { &without }.assert_unchanged(host);
                table.add(&plan, &fault, if there == is_up { "undone" } else { "completed" });
                if there {
                    host.ok(&[&["evpn-hook"][..], &down].concat());
                }
                without.assert_unchanged(host);
            }
        }
    }
}

lab_test! {
    fn a_running_guest_survives_hooks_that_were_broken_off(fabric) {
        let mut table = Table("lab-guest", String::new());
        let red = Red::up(fabric);
        let vm = Vm::define(red.comp1, &VmSpec {
            name: "red",
            nics: vec![Nic::Network { mac: MAC, network: "red" }],
            ..VmSpec::default()
        });
        vm.start_paused();
        red.comp1.ok(&["virsh", "--quiet", "resume", "red"]);
        let xml = red.comp1.ok(&["virsh", "dumpxml", "red"]);
        let known = |after: &str| wait_until(&format!("comp2 to know the guest {after}"), SOON, || {
            knows(red.comp2, "red", "vxlan20", MAC, &[IP], "10.0.0.1")
        });
        known("at first");
        let whole = Traces::of(red.comp1);
        for operation in ["stopped", "start", "reconnect"] {
            let words = ["qemu", "red", operation, "begin", "-"];
            let damage = || {
                if operation != "stopped" {
                    red.comp1.sh(&format!("ip neigh del {IP} dev red-l2; bridge fdb del {MAC} dev vnet$(ls /sys/class/net | sed -n s/^vnet//p) master"));
                }
            };
            damage();
            let points = points(red.comp1, &words, &xml);
            let plan = format!("fabric: qemu {operation}, guest runs");
            for fault in faults(&points, 1) {
                let after = format!("{plan}, {} ({})", fault.0, fault.1);
                sync(red.comp1, &after);
                damage();
                let done = with(red.comp1, &format!("EVPN_HOOK_FAULT={}", fault.0), &words, &xml);
                assert!(done.code == KILLED || fault.0.starts_with("fail"), "{after}: {done:?}");
                sync(red.comp1, &after);
                red.comp1.ok(&["evpn-hook", "status", "--check"]);
                whole.assert_unchanged(red.comp1);
                known(&after);
                table.add(&plan, &fault, "mended");
            }
        }
        red.comp1.ok(&["evpn-hook", "sync"]);
    }
}
