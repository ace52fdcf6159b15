//! Where FRR's sockets are, something else answers, or nothing.

use super::{EVENTS, Event, Scene, is_registered, plainly};
use crate::agent::{Agent, until};
use crate::common::sh;
use crate::faults::guests::lives;
use crate::host::{CONFIG, Host, tap};
use crate::on_a_host;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const NONE: &str = "kind = \"none\"";

/// What a daemon does with a connection, once it has been asked something.
type Serve = fn(UnixStream);

fn silent(stream: UnixStream) {
    std::thread::sleep(Duration::from_secs(60));
    drop(stream);
}

fn trickles(mut stream: UnixStream) {
    while stream.write_all(b" ").is_ok() {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The same answer to each question.
fn says(mut stream: UnixStream, words: &[u8]) {
    let mut chunk = [0; 4096];
    while stream.read(&mut chunk).is_ok_and(|length| length > 0) && stream.write_all(words).is_ok() {}
}

fn half_json(stream: UnixStream) {
    says(stream, b"{ \"numMacs\": 1, \"macs\": { \"52:54:00\0\0\0\0");
}

fn bytes(stream: UnixStream) {
    says(stream, b"\xff\xfe\x1b[31m\x80\x81{}]\"\0\0\0\0");
}

fn other_json(stream: UnixStream) {
    says(stream, b"[[], 7, null, {\"macs\": \"x\", \"paths\": -1, \"vrfs\": [[]]}]\0\0\0\0");
}

fn endless(mut stream: UnixStream) {
    while stream.write_all(&[b'{'; 1 << 16]).is_ok() {}
}

fn dies(stream: UnixStream) {
    drop(stream);
}

/// zebra's and bgpd's sockets, for as long as the test's process lives.
fn serve(serve: Serve) {
    std::fs::create_dir_all("/run/frr").unwrap();
    for daemon in ["zebra", "bgpd"] {
        let path = format!("/run/frr/{daemon}.vty");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
    }
}

fn speaker(kind: &str) {
    let kind = format!("kind = \"{kind}\"");
    std::fs::write("/run/config.toml", CONFIG.replace(NONE, &kind)).unwrap();
}

/// A guest's whole life beside such daemons; nothing of it takes longer than this.
fn a_guests_life(fault: &'static str, daemons: &[Serve], most: Duration) {
    let mut scene = Scene::new(fault, Host::flat());
    for daemon in daemons {
        serve(*daemon);
        for event in EVENTS {
            let run = |command| {
                let began = Instant::now();
                let run = plainly(command);
                assert!(began.elapsed() < most, "{event:?} took {:?}: {run:?}", began.elapsed());
                assert_eq!(run.status, 0, "{run:?}");
                run
            };
            scene.event(event, || speaker("frr"), run, || speaker("none"));
        }
        // Those who look at everything say what is wrong with it, and see to the kernel all the same.
        scene.begin(Event::Reconnect);
        speaker("frr");
        for words in [&["sync"][..], &["--json", "status"], &["doctor"], &["explain", "vm1"]] {
            let began = Instant::now();
            let run = scene.host.run(words);
            assert!([0, 1, 3].contains(&run.status), "{run:?}");
            assert!(began.elapsed() < 4 * most, "{words:?} took {:?}", began.elapsed());
        }
        assert!(is_registered());
        speaker("none");
        scene.heal(Event::Reconnect, "runs");
    }
    // The agent waits for it, and then goes on.
    scene.begin(Event::Reconnect);
    speaker("frr");
    let agent = Agent::start();
    assert!(is_registered());
    sh("ip neigh del 10.1.0.60 dev flat-l2");
    until("the neighbour again", is_registered);
    drop(agent);
    speaker("none");
    lives(super::RUNS);
    scene.table.add(fault, "an agent runs", "runs", "agent");
    scene.heal(Event::Reconnect, "runs");
}

on_a_host!(a_socket_that_never_replies, {
    a_guests_life("frr-silent", &[silent], Duration::from_secs(5));
});

on_a_host!(a_socket_that_replies_a_byte_a_second, {
    a_guests_life("frr-trickles", &[trickles], Duration::from_secs(5));
});

on_a_host!(a_socket_that_talks_nonsense, {
    let all: [Serve; 5] = [half_json, bytes, other_json, endless, dies];
    a_guests_life("frr-garbage", &all, Duration::from_secs(5));
});

/// A child that is ended whatever the test comes to.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

on_a_host!(who_waits_for_an_advertisement_may_be_ended, {
    let scene = Scene::new("signal", Host::flat());
    let mut scene = scene;
    serve(silent);
    speaker("frr");
    for signal in ["TERM", "INT", "HUP", "PIPE"] {
        tap("tap9");
        let mac = "52:54:00:00:00:09";
        let mut attach = scene.host.command(&["attach", "tap9", "--network", "flat", "--mac", mac, "--wait=60"]);
        let mut child = Ends(attach.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("tap9's entry", || crate::host::fdb().contains(mac));
        sh(&format!("kill -{signal} {}", child.0.id()));
        if signal != "PIPE" {
            assert!(!child.0.wait().unwrap().success());
        }
        drop(child);
        assert!(crate::host::fdb().contains(mac), "it is registered: only the wait was ended");
        scene.host.run(&["detach", "tap9"]).ok();
        sh("ip link del tap9");
        scene.table.add("signal", "attach --wait", "runs", "nothing to heal");
    }
});
