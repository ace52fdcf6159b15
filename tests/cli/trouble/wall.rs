//! The clock on the wall is set by years. For this the machine must be the test's own: in the lab.

use super::{EVENTS, Event, RUNS, Scene, is_registered, plainly};
use crate::agent::{Agent, until};
use crate::common::{sh, skip};
use crate::faults::guests::{a_tap, lives};
use crate::host::{Host, neighbours};
use crate::on_a_host;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const YEAR: i64 = 365 * 86_400;

/// So many seconds later, or earlier.
fn jump(seconds: i64) {
    sh(&format!("date -s @{}", now() + seconds));
}

fn not_ours(test: &str) -> bool {
    let ours = std::env::var("EVPN_LAB").as_deref() == Ok("1");
    if !ours {
        skip(test, "this kernel has no clock of the test's own");
    }
    !ours
}

on_a_host!(hooks_and_sync_when_the_clock_is_set, {
    if not_ours("trouble::wall::hooks_and_sync_when_the_clock_is_set") {
        return;
    }
    let mut scene = Scene::new("clock", Host::flat());
    for years in [-20, 20, 0] {
        for event in EVENTS {
            scene.event(event, || jump(years * YEAR), |command| plainly(command).ok(), || jump(-years * YEAR));
        }
    }
    // Its hook has registered it, and libvirt has not written its file yet: that it does not know the guest says nothing so soon, whatever the clock says.
    for years in [-20, 20] {
        a_tap(&scene.host);
        std::fs::create_dir_all("/run/libvirt/qemu").unwrap();
        let _ = std::fs::remove_file("/run/libvirt/qemu/vm1.xml");
        plainly(scene.call(Event::Start)).ok();
        jump(years * YEAR);
        assert_eq!(scene.host.run(&["sync"]).ok().stdout, "nothing to do\n", "{years} years");
        assert!(is_registered());
        jump(-years * YEAR);
        scene.heal(Event::Start, "runs");
    }
});

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// dnsmasq's list, as libvirt's leaseshelper writes it: who has what until when, by the clock on the wall.
fn leases(all: &[(&str, i64)]) {
    let mac = crate::faults::MAC;
    let all = all.iter().map(|(ip, until)| json!({"ip-address": ip, "mac-address": mac, "expiry-time": until}));
    std::fs::write("/var/lib/libvirt/dnsmasq/new", all.collect::<Value>().to_string()).unwrap();
    std::fs::rename("/var/lib/libvirt/dnsmasq/new", "/var/lib/libvirt/dnsmasq/flat-l2.status").unwrap();
}

fn has(ip: &str) -> bool {
    neighbours().contains(&format!("neigh {ip} {}", crate::faults::MAC))
}

// dnsmasq's list speaks of the wall's clock. What was promised is a duration.
on_a_host!(leases_when_the_clock_is_set, {
    if not_ours("trouble::wall::leases_when_the_clock_is_set") {
        return;
    }
    sh("mkdir -p /var/lib/libvirt/dnsmasq && mount -t tmpfs leases /var/lib/libvirt/dnsmasq");
    let mut scene = Scene::new("clock", Host::flat());
    a_tap(&scene.host);
    plainly(scene.call(Event::Start)).ok();
    lives(RUNS);
    let agent = Agent::start();
    for (years, ip, next) in [(20, "10.1.0.70", "10.1.0.80"), (-20, "10.1.0.71", "10.1.0.81")] {
        let first = (ip, now() + 3600);
        leases(&[first]);
        until("the leased address", || has(ip));
        jump(years * YEAR);
        // By the next one it has looked at the list again.
        leases(&[first, (next, now() + 3600)]);
        until("the next address", || has(next));
        assert!(has(ip), "{ip} was given up because the clock was set");
        jump(-years * YEAR);
    }
    // One that ends, ends by its duration, though the clock was set back.
    leases(&[("10.1.0.73", now() + 1)]);
    until("the leased address", || has("10.1.0.73"));
    jump(-20 * YEAR);
    until("the end of the lease", || !has("10.1.0.73"));
    jump(20 * YEAR);
    drop(agent);
    scene.table.add("clock", "an agent and leases", "runs", "nothing to heal");
    std::fs::remove_file("/var/lib/libvirt/dnsmasq/flat-l2.status").unwrap();
    crate::faults::leave_guest(&scene.host);
});
