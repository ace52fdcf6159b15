//! `make bench`: what an agent costs that watches 1,000 guests, and how soon it puts back what somebody deletes.
//!
//! Runs itself again in fresh network and mount namespaces: real bridge, VXLAN and ports, /run of its own, nothing left behind. Figures, no verdict:
//! they depend on the machine and on what else runs on it.

#[path = "../common/mod.rs"]
mod common;

use evpn_hook::kernel::{Event, Events, Kernel};
use evpn_hook::model::Mac;
use evpn_hook::plan::Step;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GUESTS: u32 = 1000;
const IDLE: Duration = Duration::from_secs(10);
const ROUNDS: u32 = 50;
const CONFIG: &str = "/run/config.toml";

fn main() {
    let hook = common::inside();
    sh("mount -t tmpfs tmpfs /run && ip link set lo up && ip address add 10.0.0.1/32 dev lo");
    fs::write(
        CONFIG,
        "[speaker]\nkind = \"none\"\n[[network]]\nname = \"red\"\nbridge = \"red-l2\"\nvni = 20\nmtu = 1450\n",
    )
    .unwrap();
    run(&hook, &["network", "up", "red"]);
    let links: String = (0..GUESTS).map(|n| format!("link add port{n} type veth peer name peer{n}\n")).collect();
    fs::write("/run/links", links).unwrap();
    sh("ip -batch /run/links");
    let start = Instant::now();
    for n in 0..GUESTS {
        run(&hook, &["attach", &format!("port{n}"), "--network", "red", "--mac", &mac(n).to_string(), "--ip", &ip(n)]);
    }
    println!("{GUESTS} guests attached one after the other: {:.1} s", start.elapsed().as_secs_f64());

    let agent = Agent::start(&hook);
    println!("{:<44} {:>10.0} ms", "from its start to a look at everything", agent.ready.as_secs_f64() * 1e3);
    agent.rest();
    println!("{:<44} {:>10} KiB (at most {} so far)", "resident memory", agent.status("VmRSS"), agent.status("VmHWM"));
    let before = (agent.cpu(), agent.status("voluntary_ctxt_switches"));
    std::thread::sleep(IDLE);
    println!(
        "{:<44} {:>10.3} ms",
        format!("CPU time over {} idle s", IDLE.as_secs()),
        (agent.cpu() - before.0) as f64 / 1e6
    );
    println!("{:<44} {:>10}", "wake-ups in them", agent.status("voluntary_ctxt_switches") - before.1);

    let mut kernel = Kernel::open().unwrap();
    let bridge = kernel.link(&"red-l2".parse().unwrap()).unwrap().unwrap().index;
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|n| {
            let mut events = Events::open().unwrap();
            let ip = ip(n).parse().unwrap();
            let start = Instant::now();
            kernel.apply(&Step::DelNeigh { bridge: "red-l2".parse().unwrap(), ip }).unwrap();
            until(&mut events, || kernel.neigh(bridge, ip).unwrap().is_some_and(|n| n.permanent));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    println!("{:<44} {:>10.1} ms ({:.1} to {:.1})", "a deleted neighbour is back, median", at(0.5), at(0.0), at(0.9));

    // Not within the second in which all was looked at already.
    std::thread::sleep(Duration::from_secs(61));
    let entries: String = (0..GUESTS).map(|n| format!("fdb del {} dev port{n} master\n", mac(n))).collect();
    fs::write("/run/entries", entries).unwrap();
    let mut events = Events::open().unwrap();
    let start = Instant::now();
    sh("bridge -batch /run/entries");
    until(&mut events, || (0..GUESTS).rev().all(|n| kernel.fdb(bridge, mac(n)).unwrap().is_some()));
    println!(
        "{:<44} {:>10.0} ms",
        format!("{GUESTS} deleted FDB entries are back"),
        start.elapsed().as_secs_f64() * 1e3
    );
    agent.rest();
    println!(
        "{:<44} {:>10} KiB (at most {} so far)",
        "resident memory then",
        agent.status("VmRSS"),
        agent.status("VmHWM")
    );
}

struct Agent {
    child: Child,
    ready: Duration,
}

impl Agent {
    fn start(hook: &Path) -> Agent {
        let notify = UnixDatagram::bind("/run/notify").unwrap();
        let start = Instant::now();
        let child = Command::new(hook.with_file_name("evpn-agent"))
            .args(["--config", CONFIG])
            .env("NOTIFY_SOCKET", "/run/notify")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut word = [0; 64];
        let length = notify.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"READY=1");
        let length = notify.recv(&mut word).unwrap();
        assert!(word[..length].starts_with(b"STATUS="));
        Agent { child, ready: start.elapsed() }
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }

    fn status(&self, key: &str) -> u64 {
        let text = self.file("status");
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Nanoseconds on a processor.
    fn cpu(&self) -> u64 {
        self.file("schedstat").split(' ').next().unwrap().parse().unwrap()
    }

    /// Returns after a second in which it did nothing.
    fn rest(&self) {
        loop {
            let before = self.status("voluntary_ctxt_switches");
            std::thread::sleep(Duration::from_secs(1));
            if self.status("voluntary_ctxt_switches") == before {
                return;
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(events: &mut Events, mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        let mut fds = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        while !matches!(events.next().unwrap(), None | Some(Event::Lost)) {}
    }
}

fn mac(n: u32) -> Mac {
    format!("52:54:00:00:{:02x}:{:02x}", n >> 8, n & 255).parse().unwrap()
}

fn ip(n: u32) -> String {
    format!("10.1.{}.{}", n / 250, n % 250 + 1)
}

fn run(hook: &Path, args: &[&str]) {
    let done = Command::new(hook).args(["--config", CONFIG]).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn sh(line: &str) {
    let done = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
}
