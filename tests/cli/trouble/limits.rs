//! A process that is given next to nothing: file descriptors, memory, streams.

use super::{EVENTS, Event, Scene, plainly, under};
use crate::faults::guests::{a_tap, xml};
use crate::host::Host;
use crate::on_a_host;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

on_a_host!(next_to_no_file_descriptors, {
    let mut scene = Scene::new("limits", Host::flat());
    // A lock may be left, which the next sync takes away.
    scene.strict = false;
    for event in EVENTS {
        // The program's loader needs one besides the three.
        for limit in 4..9 {
            let limit = format!("--nofile={limit}:{limit}");
            scene.event(event, || {}, |command| plainly(under(&["prlimit", &limit], &command)), || {});
        }
    }
});

on_a_host!(next_to_no_memory, {
    let mut scene = Scene::new("limits", Host::flat());
    for event in EVENTS {
        for mib in (4..24).step_by(2) {
            let limit = format!("--as={}", mib << 20);
            scene.event(event, || {}, |command| plainly(under(&["prlimit", &limit], &command)), || {});
        }
    }
});

on_a_host!(closed_streams, {
    let mut scene = Scene::new("streams", Host::flat());
    for event in EVENTS {
        for closing in ["1>&-", "2>&-", "1>&- 2>&-"] {
            let run = |command: Command| {
                let line = format!("exec \"$@\" {closing}");
                plainly(under(&["sh", "-c", &line, "sh"], &command)).ok()
            };
            scene.event(event, || {}, run, || {});
        }
        let run = |command: Command| plainly(under(&["sh", "-c", "exec \"$@\" 0<&-", "sh"], &command));
        scene.event(event, || {}, run, || {});
        // Who would read stderr went.
        let run = |mut command: Command| {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut child = command.stdin(Stdio::piped()).stderr(writer).spawn().unwrap();
            child.stdin.take().unwrap().write_all(xml().as_bytes()).unwrap();
            let status = child.wait().unwrap().code().unwrap();
            crate::host::Run { status, stdout: String::new(), stderr: String::new() }
        };
        scene.event(event, || {}, run, || {});
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = scene.host.command(&["status"]).stdout(writer).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1), "told, no panic");
});

/// The call with this on its stdin, which stays open.
fn without_end(mut command: Command, text: &str) -> crate::host::Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let status = child.wait().unwrap().code().unwrap();
    drop(stdin);
    crate::host::Run { status, stdout, stderr }
}

on_a_host!(stdin_that_never_ends, {
    let mut scene = Scene::new("streams", Host::flat());
    let began = Instant::now();
    // What has come is all; side by side, for each waits as long as it may.
    a_tap(&scene.host);
    let calls = [
        (Event::Start, "vm1", xml()),
        (Event::Reconnect, "vm2", String::new()),
        (Event::Stopped, "vm3", xml()[..40].to_owned()),
    ];
    let runs: Vec<_> = calls
        .map(|(event, name, text)| {
            let command = scene.host.command(&["qemu", name, event.word(), "begin", "-"]);
            std::thread::spawn(move || without_end(command, &text))
        })
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let took = began.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(runs.iter().map(|run| run.status).collect::<Vec<_>>(), [0, 0, 0], "{runs:?}");
    assert!(super::is_registered(), "{runs:?}");
    scene.heal(Event::Start, "runs");
});
