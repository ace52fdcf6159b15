//! `make bench`: `sync` as a whole process on a host full of guests: when there is nothing to do, and when every entry is gone.
//!
//! Runs itself again in fresh network and mount namespaces: real bridges and taps, a status file of libvirt's for each guest, /run of its
//! own, nothing left behind. The guests are registered by the code that a `start` hook runs, only not in a process of its own each.

#[path = "../common/mod.rs"]
mod common;

use evpn_hook::engine::Engine;
use evpn_hook::event::{Event, GuestPhase, Nic};
use evpn_hook::journal::Journal;
use evpn_hook::model::{Address, Guest, GuestKind, Source};
use evpn_hook::register::Register;
use nix::sys::resource::{UsageWho, getrusage};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 5;
/// A bridge takes 1023 ports, of which the tunnel is one.
const PORTS: usize = 850;
const STATUS: &str = include_str!("../../tests/golden/status/vm1.xml");
const CONFIG: &str = "/run/config.toml";

fn main() {
    let hook = common::inside();
    must(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]));
    fs::create_dir_all("/run/libvirt/qemu").unwrap();
    must(Command::new("ip").args(["link", "set", "lo", "up"]));
    println!("medians of {ROUNDS} rounds; one NIC with one address a guest, {PORTS} guests a network at most");
    println!("{:>10} {:>24} {:>24} {:>12}", "endpoints", "nothing to do, ms", "all entries gone, ms", "max RSS, MB");
    let mut guests = Vec::new();
    for count in [1000, 10_000] {
        grow(&hook, &mut guests, count);
        let (mut warm, mut cold, mut memory) = (Vec::new(), Vec::new(), 0.0_f64);
        for _ in 0..ROUNDS {
            let run = sync(&hook);
            assert_eq!(run.said, "nothing to do\n");
            warm.push(run.wall);
            flush(&guests);
            let all = sync(&hook);
            assert_eq!(all.said, format!("mended in {} steps\n", 2 * count));
            cold.push(all.wall);
            memory = memory.max(run.memory).max(all.memory);
        }
        println!("{count:>10} {:>24.0} {:>24.0} {memory:>12.1}", median(warm), median(cold));
    }
}

struct Placed {
    tap: String,
    bridge: String,
    mac: String,
    ip: String,
}

/// Networks, taps, status files and registered guests up to this many.
fn grow(hook: &Path, guests: &mut Vec<Placed>, count: usize) {
    let mut config = "[vtep]\naddress = '10.0.0.1'\n[speaker]\nkind = 'none'\n".to_owned();
    for network in 0..count.div_ceil(PORTS) {
        let _ =
            writeln!(config, "[[network]]\nname = 'net{network}'\nbridge = 'net{network}-l2'\nvni = {}", 100 + network);
    }
    fs::write(CONFIG, config).unwrap();
    must(Command::new(hook).args(["--config", CONFIG, "network", "up", "--all"]));
    let from = guests.len();
    let mut taps = String::new();
    for number in from..count {
        let (network, [high, low]) = (number / PORTS, [number >> 8, number & 0xff]);
        let guest = Placed {
            tap: format!("tap{number}"),
            bridge: format!("net{network}-l2"),
            mac: format!("52:54:00:00:{high:02x}:{low:02x}"),
            ip: format!("10.1.{high}.{low}"),
        };
        let Placed { tap, bridge, .. } = &guest;
        let _ = writeln!(taps, "tuntap add dev {tap} mode tap\nlink set {tap} master {bridge} mtu 1450 up");
        guests.push(guest);
    }
    batch("ip", &taps);
    let mut engine = Engine::new((CONFIG.into(), true), Register::at(Path::new("/run/evpn-hook")), Journal::new(false));
    for (number, Placed { tap, bridge, mac, ip }) in guests.iter().enumerate().skip(from) {
        let (name, id) = (format!("vm{number}"), format!("a1aa250e-03e9-4b75-90b0-{number:012}"));
        let nic = Nic {
            device: Some(tap.parse().unwrap()),
            mac: Some(mac.parse().unwrap()),
            bridge: Some(bridge.parse().unwrap()),
            ips: vec![Address::new(ip.parse().unwrap(), Source::Metadata)],
            ..Nic::default()
        };
        let guest = Guest::new(GuestKind::Libvirt, &name, &id).unwrap();
        engine.handle(Event::Guest { phase: GuestPhase::Start, guest, nics: vec![nic] }).unwrap();
        fs::write(format!("/run/libvirt/qemu/{name}.xml"), status(&name, &id, tap, bridge, mac, ip)).unwrap();
    }
}

/// libvirt's own file of one domain, with its first NIC alone.
fn status(name: &str, id: &str, tap: &str, bridge: &str, mac: &str, ip: &str) -> String {
    let (head, interfaces) = STATUS.split_once("<interface type='network'>").unwrap();
    let (first, _) = interfaces.split_once("</interface>").unwrap();
    let (_, tail) = STATUS.rsplit_once("</interface>").unwrap();
    format!("{head}<interface type='network'>{first}</interface>{tail}")
        .replace("vm1", name)
        .replace("a1aa250e-03e9-4b75-90b0-3fe8ffbcca9d", id)
        .replace("vnet0", tap)
        .replace("red-l2", bridge)
        .replace("52:54:00:03:82:d8", mac)
        .replace("10.1.0.60", ip)
}

/// Takes every entry out, as nothing of ours would.
fn flush(guests: &[Placed]) {
    let (mut neighbours, mut fdb) = (String::new(), String::new());
    for Placed { tap, bridge, mac, ip } in guests {
        let _ = writeln!(neighbours, "neigh del {ip} dev {bridge}");
        let _ = writeln!(fdb, "fdb del {mac} dev {tap} master");
    }
    batch("ip", &neighbours);
    batch("bridge", &fdb);
}

fn batch(program: &str, lines: &str) {
    fs::write("/run/batch", lines).unwrap();
    must(Command::new(program).args(["-batch", "/run/batch"]));
}

fn must(command: &mut Command) {
    let done = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

struct Run {
    said: String,
    wall: f64,
    memory: f64,
}

/// One sync in milliseconds, from before fork to after wait, with its own highest resident memory in megabytes.
fn sync(hook: &Path) -> Run {
    let start = Instant::now();
    let out = fs::File::create("/run/said").unwrap();
    let mut command = Command::new(hook);
    let mut child =
        command.args(["--config", CONFIG, "sync"]).stdin(Stdio::null()).stdout(out).spawn().expect("starts");
    assert!(child.wait().unwrap().success(), "sync failed");
    let wall = start.elapsed().as_secs_f64() * 1e3;
    // The largest of all children, and no other comes near.
    let memory = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() as f64 / 1024.0;
    Run { said: fs::read_to_string("/run/said").unwrap(), wall, memory }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
