//! What an agent costs that watches all these guests, and how soon it puts back what somebody deletes.

use crate::common::crowd::{CONFIG, Crowd, Look, until};
use crate::common::figures::{Table, median, quantile};
use evpn_hook::kernel::{Events, Kernel};
use evpn_hook::plan::Step;
use std::collections::HashSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const IDLE: Duration = Duration::from_secs(10);
const ROUNDS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(120);

pub fn table() -> Table {
    let head = [
        "guests",
        "ready, ms",
        "RSS, MB",
        "CPU idle",
        "wake-ups",
        "one deleted is back, ms",
        "all are back, ms",
        "CPU for it, ms",
        "messages lost",
        "RSS at most, MB",
    ];
    let mut table = Table::new("The agent", &head);
    table.note(format!(
        "Ready: from its start to a look at everything. CPU (µs) and wake-ups in {} s in which nobody does anything (in brackets the kernel's own events in them, of which it hears). One: a neighbour, median of {ROUNDS} (10th to 90th percentile). All: every FDB entry and neighbour deleted by `bridge` and `ip -batch`, from their start on (in brackets how long they took). Lost: what the kernel counts as dropped for its sockets.",
        IDLE.as_secs()
    ));
    table
}

/// A row of it.
pub fn measure(hook: &Path, crowd: &Crowd, table: &mut Table) {
    let agent = Agent::start(hook);
    agent.rest();
    let rss = agent.status("VmRSS");
    let mut events = Events::open().unwrap();
    let before = (agent.cpu(), agent.status("voluntary_ctxt_switches"));
    std::thread::sleep(IDLE);
    let idle = (agent.cpu() - before.0, agent.status("voluntary_ctxt_switches") - before.1);
    let mut heard = 0;
    while events.next().unwrap().is_some() {
        heard += 1;
    }

    let mut kernel = Kernel::open().unwrap();
    let mut look = Look::new();
    let one: Vec<f64> = crowd
        .guests
        .iter()
        .take(ROUNDS)
        .map(|guest| {
            let mut events = Events::open().unwrap();
            let step = Step::DelNeigh { bridge: guest.bridge.clone(), ip: guest.ip.into() };
            let start = Instant::now();
            kernel.apply(&step).unwrap();
            until(&mut events, "a deleted neighbour is back", || look.is_there(guest));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();

    agent.rest();
    let cpu = agent.cpu();
    let mut events = Events::open().unwrap();
    let start = Instant::now();
    crowd.flush();
    let flushed = start.elapsed();
    // Whoever is back stays so: each is asked for once more than it is missing.
    let mut back = 0;
    until(&mut events, "all deleted entries are back", || {
        back += crowd.guests[back..].iter().take_while(|guest| look.is_there(guest)).count();
        back == crowd.guests.len()
    });
    let all = start.elapsed();
    agent.rest();
    assert!(crowd.guests.iter().all(|guest| look.is_there(guest)), "what was back is gone again");
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    table.row(&[
        format!("{} on {}", crowd.guests.len(), crowd.networks()),
        format!("{:.0}", millis(agent.ready)),
        format!("{:.1}", rss as f64 / 1024.0),
        format!("{:.0}", idle.0 as f64 / 1e3),
        format!("{} ({heard})", idle.1),
        format!("{:.1} ({:.1} to {:.1})", median(&one), quantile(&one, 0.1), quantile(&one, 0.9)),
        format!("{:.0} ({:.0})", millis(all), millis(flushed)),
        format!("{:.0}", (agent.cpu() - cpu) as f64 / 1e6),
        agent.lost().to_string(),
        format!("{:.1}", agent.status("VmHWM") as f64 / 1024.0),
    ]);
}

struct Agent {
    child: Child,
    ready: Duration,
}

impl Agent {
    fn start(hook: &Path) -> Agent {
        let _ = fs::remove_file("/run/notify");
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

    /// A number out of /proc/PID/status; memory in KiB.
    fn status(&self, key: &str) -> u64 {
        let text = self.file("status");
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Nanoseconds on a processor; it has one thread.
    fn cpu(&self) -> u64 {
        self.file("schedstat").split(' ').next().unwrap().parse().unwrap()
    }

    /// Returns after a second and a half in which it did nothing: its longest pause in anything that it does is one second.
    fn rest(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let before = self.cpu();
            std::thread::sleep(Duration::from_millis(1500));
            if self.cpu() == before {
                return;
            }
            assert!(Instant::now() < end, "the agent finds no rest");
        }
    }

    /// Netlink messages that found no room in its sockets.
    fn lost(&self) -> u64 {
        let links = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten();
        let inode = |link: fs::DirEntry| {
            let target = fs::read_link(link.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        };
        let sockets: HashSet<String> = links.filter_map(inode).collect();
        // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        let table = self.file("net/netlink");
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| sockets.contains(row[9])).map(|row| row[8].parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
