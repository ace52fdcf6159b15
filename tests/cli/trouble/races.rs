//! Another tool makes or deletes the same, between our look and our step.

use super::{EVENTS, Scene};
use crate::common::{sh, try_sh};
use crate::faults::guests::xml;
use crate::faults::look::{Look, delete};
use crate::host::{CONFIG, Host, Run};
use crate::on_a_host;
use crate::table::Table;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

const LOG: &str = "/run/faults.log";
const XML: &str = "/run/stdin.xml";

/// The points of one run of this command on a guest's XML.
pub fn points(mut command: Command) -> Vec<String> {
    std::fs::write(XML, xml()).unwrap();
    command.stdin(File::open(XML).unwrap());
    points_of(command)
}

/// The same on what it has as stdin.
pub fn points_of(mut command: Command) -> Vec<String> {
    let _ = std::fs::remove_file(LOG);
    assert!(command.env("EVPN_HOOK_FAULT_LOG", LOG).status().unwrap().success());
    std::fs::read_to_string(LOG).unwrap().lines().map(str::to_owned).collect()
}

/// Runs the command, and this where it has come to that point.
fn meanwhile(at: usize, mut command: Command, act: &str) -> Run {
    command.env("EVPN_HOOK_FAULT", format!("stop {at}")).stdin(File::open(XML).unwrap());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (_, stopped) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(stopped.stopped(), "it did not come to point {at}");
    // It may be that there is nothing to make or delete.
    try_sh(act);
    kill_process(pid, Signal::CONT).unwrap();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Run { status: child.wait().unwrap().code().unwrap(), stdout, stderr }
}

/// What another tool may do there: the same as we are about to, or the reverse of what we have just done. A step is printed as the command that it is.
fn acts(point: &str) -> Vec<String> {
    let words: Vec<&str> = point.split(' ').collect();
    let mut acts = match words[..] {
        ["before", ref step @ ..] if ["ip", "bridge", "sysctl"].contains(&step[0]) => vec![step.join(" ")],
        ["after", "ip", "link", "add", dev, ..] => vec![format!("ip link del {dev}")],
        ["after", "ip", "link", "set", dev, "master", ..] => vec![format!("ip link set {dev} nomaster")],
        ["after", "ip", "link", "set", dev, "up"] => vec![format!("ip link set {dev} down")],
        ["after", "ip", "neigh", "replace", ip, "lladdr", _, "dev", dev, ..] => {
            vec![format!("ip neigh del {ip} dev {dev}")]
        }
        ["after", "bridge", "fdb", "replace", mac, "dev", dev, ..] => {
            vec![format!("bridge fdb del {mac} dev {dev} master")]
        }
        ["after", "ip", "address", "replace", address, "dev", dev, ..] => {
            vec![format!("ip address del {address} dev {dev}")]
        }
        _ => Vec::new(),
    };
    if words[0] == "before" {
        acts.extend(["ip link del vxlan20".to_owned(), "ip link del flat-l2".to_owned()]);
    }
    acts
}

on_a_host!(a_guest_and_another_tool, {
    let mut scene = Scene::new("race", Host::flat());
    scene.strict = false;
    for event in EVENTS {
        scene.begin(event);
        let points = points(scene.call(event));
        scene.heal(event, "runs");
        let of_guest = |point: &&(usize, String)| !point.1.contains("writing") || point.1.starts_with("before");
        let points: Vec<(usize, String)> = points.into_iter().enumerate().collect();
        for (at, point) in points.iter().filter(of_guest) {
            let mut acts = acts(point);
            acts.extend([
                "ip link del vnet0".to_owned(),
                "ip link set vnet0 master elsewhere".to_owned(),
                "ip neigh replace 10.1.0.60 lladdr 52:54:00:00:00:99 dev flat-l2 nud noarp extern_learn".to_owned(),
                "bridge fdb replace 52:54:00:03:82:d8 dev vxlan20 master extern_learn".to_owned(),
            ]);
            for act in acts {
                eprintln!("{event:?} {point}: {act}");
                let comes = || drop(sh("ip link add elsewhere type bridge"));
                let goes = || {
                    delete(&["elsewhere"]);
                    // What is not ours stays, and here it is not wanted.
                    try_sh(
                        "ip neigh show dev flat-l2 nud noarp | grep -q extern && ip neigh del 10.1.0.60 dev flat-l2",
                    );
                    try_sh("bridge fdb del 52:54:00:03:82:d8 dev vxlan20 master");
                    // The kernel keeps the mark on an entry that we take back; FRR advertises it all the same.
                    try_sh(
                        "bridge fdb show br flat-l2 | grep -q 'vnet0.*extern_learn' && bridge fdb del 52:54:00:03:82:d8 dev vnet0 master",
                    );
                };
                scene.event(event, comes, |command| meanwhile(at + 1, command, &act), goes);
            }
        }
    }
});

on_a_host!(a_network_and_another_tool, {
    let host = Host::new(CONFIG);
    let mut table = Table::of(&std::env::var("EVPN_TEST_INSIDE").unwrap());
    let without = Look::now();
    host.run(&["network", "up", "flat"]).ok();
    let with = Look::now();
    host.run(&["network", "down", "flat"]).ok();
    for verb in ["up", "down"] {
        let begin = || {
            sh("rm -rf /run/evpn-hook/hints");
            if verb == "down" {
                host.run(&["network", "up", "flat"]).ok();
            }
        };
        begin();
        let points = points(host.command(&["network", verb, "flat"]));
        host.run(&["sync"]).ok();
        if verb == "up" {
            host.run(&["network", "down", "flat"]).ok();
        }
        for (at, point) in points.iter().enumerate() {
            for act in acts(point) {
                eprintln!("network {verb}, {point}: {act}");
                begin();
                let run = meanwhile(at + 1, host.command(&["network", verb, "flat"]), &act);
                let guest = match (verb, run.status) {
                    ("up", 0) => "network runs",
                    ("up", _) => {
                        run.says(1, &[]);
                        "network refused"
                    }
                    (_, 0) => "network gone",
                    other => panic!("{other:?}: {run:?}"),
                };
                let sync = host.run(&["sync"]);
                let healed = match (guest, sync.status, sync.stdout.as_str()) {
                    (_, 0, "nothing to do\n") => "nothing to heal",
                    (_, 0, _) => "sync",
                    _ => panic!("{sync:?}"),
                };
                table.add("race", &format!("network {verb}"), guest, healed);
                let now = Look::now();
                if guest == "network runs" {
                    assert!(now == with, "{}", now.against(&with));
                    host.run(&["network", "down", "flat"]).ok();
                }
                // What the other made is the other's.
                delete(&["vxlan20", "flat-l2"]);
                let left = Look::now();
                assert!(left == without, "{}", left.against(&without));
            }
        }
    }
});
