//! `make bench`: the qemu start hook as a whole process on this host's kernel, one NIC, against an exec of a static no-op
//! and a bash + iproute2 hook that does the same work; the three in turn, so that a machine that drifts drifts for all.
//!
//! Runs itself again in fresh network and mount namespaces: real bridge, VXLAN and tap, /run of its own, nothing left behind.

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 300;
const WARM_UP: usize = 20;
const XML: &str = include_str!("domain.xml");

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let hook = common::inside();
    let scratch = Path::new("/run/evpn-bench");
    must(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]));
    fs::create_dir_all(scratch).unwrap();
    prepare(&hook, scratch);
    let noop = noop(scratch);
    let bash = root.join("benches/hook/bash-hook");

    let words = ["vm1", "start", "begin", "-"];
    let stop = || run(Command::new(&hook).arg("qemu").args(["vm1", "stopped", "end", "-"]), XML);
    let mut times: [Vec<Sample>; 3] = Default::default();
    for round in 0..WARM_UP + ROUNDS {
        let samples = [
            run(&mut Command::new(&noop), XML),
            {
                let sample = run(Command::new(&hook).arg("qemu").args(words), XML);
                stop();
                sample
            },
            {
                let sample = run(Command::new(&bash).args(words), XML);
                must(Command::new("bridge").args(["fdb", "del", "52:54:00:03:82:d8", "dev", "vnet0", "master"]));
                must(Command::new("ip").args(["neigh", "del", "10.1.0.60", "dev", "red-l2"]));
                sample
            },
        ];
        if round >= WARM_UP {
            for (all, sample) in times.iter_mut().zip(samples) {
                all.push(sample);
            }
        }
    }
    println!("{ROUNDS} rounds, the three in turn; medians (minimum to 90th percentile)");
    println!("{:<28} {:>26} {:>12}", "", "wall µs", "CPU µs");
    let names = ["exec of a static no-op", "evpn-hook qemu … start", "bash + iproute2 hook"];
    let mut medians = Vec::new();
    for (name, samples) in names.iter().zip(&times) {
        let wall = sorted(samples.iter().map(|s| s.wall));
        let cpu = sorted(samples.iter().map(|s| s.cpu));
        let at = |v: &[f64], q: f64| v[((v.len() - 1) as f64 * q) as usize];
        println!(
            "{name:<28} {:>8.0} ({:.0} to {:.0}) {:>12.0}",
            at(&wall, 0.5),
            at(&wall, 0.0),
            at(&wall, 0.9),
            at(&cpu, 0.5)
        );
        medians.push((at(&wall, 0.5), at(&cpu, 0.5)));
    }
    println!(
        "evpn-hook / no-op: wall {:.2}, CPU {:.2}   (at most 3 wanted)",
        medians[1].0 / medians[0].0,
        medians[1].1 / medians[0].1
    );
    println!(
        "bash hook / evpn-hook: wall {:.1}, CPU {:.1}   (at least 5 wanted)",
        medians[2].0 / medians[1].0,
        medians[2].1 / medians[1].1
    );
}

struct Sample {
    wall: f64,
    cpu: f64,
}

/// A pure layer-2 network and one tap on it, as libvirt leaves them when it calls `start`.
fn prepare(hook: &Path, scratch: &Path) {
    let config = scratch.join("config.toml");
    fs::write(&config, "[vtep]\naddress = \"10.0.0.1\"\n[speaker]\nkind = \"none\"\n[[network]]\nname = \"red\"\nbridge = \"red-l2\"\nvni = 20\n").unwrap();
    must(Command::new("ip").args(["link", "set", "lo", "up"]));
    must(Command::new("ip").args(["address", "add", "10.0.0.1/32", "dev", "lo"]));
    must(Command::new(hook).arg("--config").arg(&config).args(["network", "up", "red"]));
    must(Command::new("ip").args(["tuntap", "add", "vnet0", "mode", "tap"]));
    must(Command::new("ip").args(["link", "set", "vnet0", "master", "red-l2", "mtu", "1450", "up"]));
}

/// The smallest program that there is: what any exec costs.
fn noop(scratch: &Path) -> PathBuf {
    let (source, program) = (scratch.join("noop.c"), scratch.join("noop"));
    fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    must(Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(&source));
    program
}

fn must(command: &mut Command) {
    let done = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// One run with this input, timed from before fork to after wait; CPU as the kernel accounts it to the dead child.
fn run(command: &mut Command, input: &str) -> Sample {
    let before = children_cpu();
    let start = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    // A program that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let status = child.wait().unwrap();
    let wall = start.elapsed();
    let cpu = children_cpu() - before;
    if !status.success() {
        let mut words = String::new();
        let _ = std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut words);
        panic!("{command:?}: {status}: {words}");
    }
    Sample { wall: wall.as_secs_f64() * 1e6, cpu: cpu.as_secs_f64() * 1e6 }
}

/// User and system time of all children so far: /proc/self/stat counts in ticks, so getrusage.
fn children_cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    let of = |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    of(usage.user_time()) + of(usage.system_time())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
