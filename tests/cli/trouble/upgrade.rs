//! Two versions at once: state of an older and of a newer one, and a program that is replaced while a hook of it runs.

use super::races::points;
use super::{EVENTS, Event, RUNS, Scene, is_registered, plainly};
use crate::agent::{Agent, until};
use crate::common::sh;
use crate::faults::guests::{a_tap, lives, xml};
use crate::host::{BIN, Host};
use crate::on_a_host;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const NEW: &str = "of_a_newer_version";

/// All records, but for the hints, which are no state.
fn records() -> Vec<PathBuf> {
    let files = sh("find /run/evpn-hook -name '*.json' ! -path '*/hints/*'");
    files.lines().map(PathBuf::from).collect()
}

fn read(path: &PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Every object in it gets a field that nobody here knows.
fn with_more(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(with_more);
            fields.insert(NEW.to_owned(), json!({"since": 9, "list": [1, {"a": null}]}));
        }
        Value::Array(values) => values.iter_mut().for_each(with_more),
        _ => {}
    }
}

fn with_less(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove(NEW);
            fields.values_mut().for_each(with_less);
        }
        Value::Array(values) => values.iter_mut().for_each(with_less),
        _ => {}
    }
}

fn scene_status() -> Value {
    Host.status()
}

/// Each place in it, as a JSON pointer.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    let mut each = |key: String, value: &Value| {
        let place = format!("{at}/{key}");
        places(value, &place, out);
        out.push(place);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| each(key.clone(), value)),
        Value::Array(values) => values.iter().enumerate().for_each(|(at, value)| each(at.to_string(), value)),
        _ => {}
    }
}

/// What a network may have or not: without it the record is as good. Of what only advice is made of that is true whatever it says.
fn optional(place: &str) -> bool {
    // What was put on a bridge that is ours goes with the bridge.
    let also = ["/network/described", "/network/gateway", "/before"];
    ["/network/mac", "/network/mtu", "/network/vrf", "/port"].contains(&place)
        || also.iter().any(|also| place.starts_with(also))
}

fn without(value: &mut Value, place: &str) {
    let (parent, key) = place.rsplit_once('/').unwrap();
    match value.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.remove(key)),
        Some(Value::Array(values)) => drop(values.remove(key.parse().unwrap())),
        _ => panic!("{place}"),
    }
}

on_a_host!(what_a_newer_version_wrote, {
    let mut scene = Scene::new("upgrade", Host::flat());
    let change = |how: fn(&mut Value)| {
        for path in records() {
            let mut value = read(&path);
            how(&mut value);
            fs::write(&path, value.to_string()).unwrap();
        }
    };
    for event in EVENTS {
        let run = |command| {
            let run = plainly(command).ok();
            let status = scene_status();
            assert_eq!(status["networks"][0]["state"], "up", "{status}");
            run
        };
        // What a look compares is what this version writes.
        scene.event(event, || change(with_more), run, || change(with_less));
    }
});

// One field after the other is missing, or says what nobody here knows: a hook uses it, or says so and leaves all as it is; `sync` makes it anew.
on_a_host!(what_another_version_wrote_otherwise, {
    let mut scene = Scene::new("upgrade", Host::flat());
    scene.begin(Event::Reconnect);
    let mut cases = Vec::new();
    for path in records() {
        let mut all = Vec::new();
        places(&read(&path), "", &mut all);
        cases.extend(all.into_iter().filter(|place| !optional(place)).map(|place| (path.clone(), place)));
    }
    scene.heal(Event::Reconnect, "runs");
    assert!(cases.len() > 20, "{cases:?}");
    scene.strict = false;
    for (number, (path, place)) in cases.iter().enumerate() {
        let event = EVENTS[number % 3];
        let other = number % 2 == 1;
        let change = || {
            if !path.exists() {
                return;
            }
            let mut value = read(path);
            if other {
                if let Some(here) = value.pointer_mut(place) {
                    *here = json!("of-a-newer-version");
                }
            } else if value.pointer(place).is_some() {
                without(&mut value, place);
            }
            eprintln!("{event:?} {} {place} {}", path.display(), if other { "otherwise" } else { "missing" });
            fs::write(path, value.to_string()).unwrap();
        };
        // A network that is lost comes back with its bridge's mark.
        scene.event(event, change, plainly, || ());
    }
});

on_a_host!(the_program_is_replaced_while_a_hook_runs, {
    let mut scene = Scene::new("upgrade", Host::flat());
    fs::create_dir("/run/bin").unwrap();
    let install = || {
        fs::copy(BIN, "/run/bin/new").unwrap();
        fs::rename("/run/bin/new", "/run/bin/evpn-hook").unwrap();
    };
    fs::write("/run/stdin.xml", xml()).unwrap();
    for event in EVENTS {
        scene.begin(event);
        let points = points(scene.call(event)).len();
        scene.heal(event, "runs");
        for at in 1..=points {
            install();
            let run = |command: Command| {
                let mut old = Command::new("/run/bin/evpn-hook");
                old.args(command.get_args()).env("EVPN_HOOK_FAULT", format!("stop {at}"));
                old.stdin(File::open("/run/stdin.xml").unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let child = old.spawn().unwrap();
                let pid = Pid::from_child(&child);
                let (_, stopped) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
                assert!(stopped.stopped());
                // dpkg's way; and the new one is at work at once, on another guest.
                install();
                let new = Command::new("/run/bin/evpn-hook")
                    .args(["--config", "/run/config.toml", "sync", "--dry-run"])
                    .output()
                    .unwrap();
                assert!(new.status.success(), "{new:?}");
                kill_process(pid, Signal::CONT).unwrap();
                let output = child.wait_with_output().unwrap();
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                crate::host::Run {
                    status: output.status.code().unwrap(),
                    stdout: text(output.stdout),
                    stderr: text(output.stderr),
                }
                .ok()
            };
            scene.event(event, || (), run, || ());
        }
    }
});

// A hook of another version writes while this one's agent runs.
on_a_host!(an_agent_and_what_a_newer_hook_writes, {
    let mut scene = Scene::new("upgrade", Host::flat());
    let agent = Agent::start();
    a_tap(&scene.host);
    lives(RUNS);
    plainly(scene.call(Event::Start)).ok();
    for path in records().into_iter().filter(|path| path.starts_with("/run/evpn-hook/guests")) {
        let mut value = read(&path);
        with_more(&mut value);
        fs::write("/run/evpn-hook/guests/new", value.to_string()).unwrap();
        fs::rename("/run/evpn-hook/guests/new", path).unwrap();
    }
    sh("ip neigh del 10.1.0.60 dev flat-l2");
    until("the neighbour again", is_registered);
    drop(agent);
    for path in records() {
        let mut value = read(&path);
        with_less(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }
    scene.table.add("upgrade", "an agent runs", "runs", "agent");
    scene.heal(Event::Reconnect, "runs");
});
