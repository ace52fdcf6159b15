//! A report beside a hook that is at work: what is claimed and about to be done is no failure.

use crate::common::sh;
use crate::host::{CONFIG, Host, Run, tap};
use crate::on_a_host;
use crate::trouble::races::points;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MAC: &str = "52:54:00:03:82:d8";
const ATTACH: &[&str] = &["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60"];

/// The program has come to that point of its run, and waits there.
pub fn stopped_at(at: usize, mut command: Command) -> Child {
    command.env("EVPN_HOOK_FAULT", format!("stop {at}")).stdout(Stdio::null());
    let child = command.spawn().unwrap();
    let (_, stopped) = waitpid(Some(Pid::from_child(&child)), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(stopped.stopped(), "it did not come to point {at}");
    child
}

/// Waits until a process sleeps or has ended: all that a report asks is answered at once, so then it waits for somebody.
pub fn until_it_waits(child: &Child) {
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    };
    while !matches!(state(), 'S' | 'Z') {
        std::thread::yield_now();
    }
}

/// Runs a report while the hook stands at that point, and lets the hook go on once the report waits.
fn beside(host: &Host, at: usize, hook: &[&str], report: &[&str]) -> Run {
    let mut hook = stopped_at(at, host.command(hook));
    let report = host.command(report).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until_it_waits(&report);
    kill_process(Pid::from_child(&hook), Signal::CONT).unwrap();
    assert!(hook.wait().unwrap().success());
    let done = report.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { status: done.status.code().unwrap(), stdout: text(done.stdout), stderr: text(done.stderr) }
}

fn tenant() -> Host {
    let (flat, _) = CONFIG.split_once("[[network]]\nname = \"other\"").unwrap();
    Host::new(flat)
}

on_a_host!(a_guest_that_is_being_registered, {
    let host = tenant();
    host.run(&["network", "up", "flat"]).ok();
    tap("vnet0");
    // The first leaves a hint, which has points of its own.
    for command in [ATTACH, &["detach", "vnet0"]] {
        assert_eq!(host.run(command).status, 0);
    }
    let points = points(host.command(ATTACH));
    host.run(&["detach", "vnet0"]).ok();
    let claimed = |(_, point): &(usize, &String)| point.contains("bridge fdb") || point.contains("ip neigh");
    let points: Vec<_> = points.iter().enumerate().filter(claimed).collect();
    assert!(points.len() >= 3, "{points:?}");
    for (at, point) in points {
        for report in [&["status", "--check"][..], &["explain", "vnet0"]] {
            let run = beside(&host, at + 1, ATTACH, report);
            assert_eq!(run.status, 0, "{report:?} {point}: {run:?}");
            host.run(&["detach", "vnet0"]).ok();
        }
    }
});

on_a_host!(a_network_that_is_being_mended, {
    let host = tenant();
    let up = ["network", "up", "flat"];
    let points = points(host.command(&up));
    let broken = "ip address del 10.1.0.1/24 dev flat-l2; bridge link set dev vxlan20 learning on";
    let at = 1 + points.iter().position(|point| point.contains("before writing networks/")).unwrap();
    for report in ["status", "doctor"] {
        sh(broken);
        let run = beside(&host, at, &up, if report == "status" { &["status", "--check"] } else { &["doctor"] });
        assert_eq!(run.status, 0, "{report}: {run:?}");
    }
});

on_a_host!(a_network_that_was_never_up_is_told_of_at_once, {
    let host = Host::flat();
    let began = Instant::now();
    assert_eq!(host.run(&["status", "--check"]).status, 3, "two are not up");
    assert!(began.elapsed() < Duration::from_secs(5), "nobody is at work on them: {:?}", began.elapsed());
});

on_a_host!(what_is_missing_for_good_is_told_at_once_and_beside_a_hook_that_hangs, {
    let host = tenant();
    host.run(&["network", "up", "flat"]).ok();
    tap("vnet0");
    host.run(ATTACH).ok();
    sh(&format!("bridge fdb del {MAC} dev vnet0 master"));
    assert_eq!(host.run(&["status", "--check"]).status, 3);
    let mut hook = stopped_at(1, host.command(ATTACH));
    assert_eq!(host.run(&["status", "--check"]).status, 3);
    kill_process(Pid::from_child(&hook), Signal::CONT).unwrap();
    assert!(hook.wait().unwrap().success());
    assert_eq!(host.run(&["status", "--check"]).status, 0);
});
