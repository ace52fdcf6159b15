//! Ended by a signal at any system call: hooks, `sync`, the agent.

use super::{EVENTS, Event, RUNS, Scene, injected, is_registered};
use crate::agent::agent;
use crate::common::try_sh;
use crate::faults::guests::lives;
use crate::host::{Host, finish};
use crate::on_a_host;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

const SIGNALS: [&str; 3] = ["SIGTERM", "SIGINT", "SIGHUP"];

on_a_host!(at_any_system_call, {
    let mut scene = Scene::new("signal", Host::flat());
    for event in EVENTS {
        // The first calls are the loader's.
        for at in 30.. {
            let mut hit = false;
            let run = |command| {
                let (run, injected) = injected("all", &format!("signal={}", SIGNALS[at % 3]), at, &command);
                hit = injected;
                run
            };
            scene.event(event, || {}, run, || {});
            if !hit {
                break;
            }
        }
    }
});

on_a_host!(sync_at_any_system_call, {
    let mut scene = Scene::new("signal", Host::flat());
    for at in (41..).step_by(3) {
        scene.begin(Event::Reconnect);
        let sync = scene.host.command(&["sync"]);
        let (_, hit) = injected("all", &format!("signal={}", SIGNALS[at % 3]), at, &sync);
        scene.heal(Event::Reconnect, "runs");
        if !hit {
            break;
        }
    }
});

on_a_host!(the_agent_at_any_system_call, {
    let mut scene = Scene::new("agent-ends", Host::flat());
    for at in (41..).step_by(5) {
        scene.begin(Event::Reconnect);
        let signal = [SIGNALS[0], SIGNALS[1], SIGNALS[2], "SIGKILL"][at % 4];
        let inject = format!("inject=all:signal={signal}:when={at}");
        let mut command =
            super::under(&["strace", "-qq", "-o", super::TRACE, "-e", "trace=all", "-e", &inject], &agent(&[]));
        let _ = std::fs::remove_file("/run/notify");
        let notify = UnixDatagram::bind("/run/notify").unwrap();
        notify.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut child =
            command.env("NOTIFY_SOCKET", "/run/notify").stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut word = [0; 256];
        let looked = loop {
            if notify.recv(&mut word).is_ok_and(|length| word[..length].starts_with(b"STATUS=")) {
                break true;
            }
            if child.try_wait().unwrap().is_some() {
                break false;
            }
        };
        // Without strace it would live on: strace ends with it.
        try_sh(&format!("pkill -KILL -P {}", child.id()));
        child.wait().unwrap();
        assert!(!looked || is_registered(), "it has looked at everything");
        let next = finish(agent(&["--nonsense"]), b"");
        assert_eq!(next.status, 2);
        lives(RUNS);
        scene.heal(Event::Reconnect, "runs");
        if looked {
            break;
        }
    }
});
