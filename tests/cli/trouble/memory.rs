//! The kernel has no memory for an answer, tells more than fits, or changes while it is read.

use super::{EVENTS, Event, RUNS, Scene, injected, is_registered, plainly, under};
use crate::agent::{Agent, until};
use crate::common::sh;
use crate::faults::guests::{a_tap, lives};
use crate::host::Host;
use crate::on_a_host;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

// Once at each call: it is asked again.
on_a_host!(no_memory_for_a_moment, {
    let mut scene = Scene::new("netlink-memory", Host::flat());
    for call in ["recvfrom", "sendto"] {
        for event in EVENTS {
            for at in 1.. {
                let mut hit = false;
                let run = |command| {
                    let (run, injected) = injected(call, "error=ENOBUFS", at, &command);
                    hit = injected;
                    run.ok()
                };
                scene.event(event, || {}, run, || {});
                if !hit {
                    break;
                }
            }
        }
    }
});

// From some call on, and it stays so.
on_a_host!(no_memory_for_long, {
    let mut scene = Scene::new("netlink-memory", Host::flat());
    for event in EVENTS {
        for from in [1, 2, 4, 6, 8, 10] {
            let run = |command| {
                let inject = format!("inject=recvfrom:error=ENOBUFS:when={from}+");
                plainly(under(&["strace", "-qq", "-o", "/dev/null", "-e", "trace=recvfrom", "-e", &inject], &command))
            };
            scene.event(event, || {}, run, || {});
        }
    }
});

on_a_host!(more_happens_than_the_agent_can_hold, {
    let mut scene = Scene::new("events-lost", Host::flat());
    a_tap(&scene.host);
    plainly(scene.call(Event::Start)).ok();
    lives(RUNS);
    let agent = Agent::start();
    sh("ip link add busy type bridge && ip link set busy up");
    agent.signal("STOP");
    // The socket holds some 40,000 of these; the last word, about the guest, is lost.
    let mut batch = String::new();
    for number in 0..60_000 {
        let mac = format!("02:10:{:02x}:{:02x}:00:01", number >> 8, number & 0xff);
        batch += &format!("fdb add {mac} dev busy self\nfdb del {mac} dev busy self\n");
    }
    run_batch("bridge", &batch);
    sh("ip neigh del 10.1.0.60 dev flat-l2");
    agent.signal("CONT");
    until("the neighbour again", is_registered);
    drop(agent);
    sh("ip link del busy");
    scene.table.add("events-lost", "a guest runs", "runs", "agent");
    scene.heal(Event::Reconnect, "runs");
});

fn run_batch(program: &str, text: &str) {
    let mut child = Command::new(program).args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Addresses come and go as fast as the kernel lets them, until it is dropped.
struct Churn(Child);

impl Churn {
    /// As a drop, and nothing of it is left.
    fn stop(self) {}

    fn start() -> Churn {
        let lines: String = (0..500)
            .map(|n| {
                format!("address add 10.99.{n}.1/32 dev churn\naddress del 10.99.{n}.1/32 dev churn\n", n = n % 250)
            })
            .collect();
        std::fs::write("/run/churn", lines).unwrap();
        Churn(
            Command::new("sh").args(["-c", "while [ ! -e /run/calm ]; do ip -batch /run/churn; done"]).spawn().unwrap(),
        )
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        // At the end of a batch nothing of it is left.
        std::fs::write("/run/calm", "").unwrap();
        self.0.wait().unwrap();
        std::fs::remove_file("/run/calm").unwrap();
    }
}

on_a_host!(what_is_listed_changes_all_the_time, {
    sh("ip link add churn type bridge && ip link set churn up");
    let addresses = (0..8000).map(|n| format!("address add 10.98.{}.{}/32 dev churn\n", n >> 8, n & 0xff));
    run_batch("ip", &addresses.collect::<String>());
    let mut scene = Scene::new("dump-interrupted", Host::flat());
    // A guest's hooks ask single questions, which nothing interrupts.
    for event in EVENTS {
        let churn = std::cell::Cell::new(None);
        let goes = || churn.take().map(Churn::stop).unwrap();
        scene.event(event, || churn.set(Some(Churn::start())), |command| plainly(command).ok(), goes);
    }
    // A look at everything needs a list that is whole; where there is none it is refused, and nothing done by half.
    scene.begin(Event::Reconnect);
    let churn = Churn::start();
    let (began, mut refused) = (Instant::now(), 0);
    while refused < 3 && began.elapsed() < Duration::from_secs(60) {
        let sync = scene.host.run(&["sync"]);
        match sync.status {
            0 => sh("ip neigh del 10.1.0.60 dev flat-l2"),
            _ => {
                sync.says(1, &["read ", "changed while it was read", "try again"]);
                refused += 1;
                String::new()
            }
        };
    }
    churn.stop();
    assert!(refused > 0, "no list was interrupted so often that it was given up");
    scene.table.add("dump-interrupted", "sync", "runs", "the next sync");
    scene.heal(Event::Reconnect, "runs");
    scene.host.run(&["network", "down", "flat"]).ok();
    sh("rm -rf /run/evpn-hook/hints");
    let churn = Churn::start();
    let (mut guest, mut healed) = ("network runs", "nothing to heal");
    for _ in 0..10 {
        let up = scene.host.run(&["network", "up", "flat"]);
        if up.status != 0 {
            up.says(1, &["changed while it was read", "try again"]);
            (guest, healed) = ("network refused", "the next try");
        }
        sh("rm -rf /run/evpn-hook/hints");
    }
    churn.stop();
    scene.host.run(&["network", "up", "flat"]).ok();
    scene.table.add("dump-interrupted", "network up", guest, healed);
});
