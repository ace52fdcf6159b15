//! What goes wrong around evpn-hook: a full disk, a kernel without memory, other tools, a clock that jumps, an FRR that is not itself, signals.
//!
//! Each test puts a guest of libvirt's through a fault and lifts it: a start ends with the guest registered, or is refused with one line and nothing
//! done; what may not refuse exits 0; then `sync` leaves nothing amiss. What came of each is a row in the table that `make test` prints.

mod disk;
mod limits;
mod memory;
pub mod races;
mod signals;
mod speaker;
mod upgrade;
mod wall;

use crate::common::sh;
use crate::faults::guests::{a_tap, is_gone, lives, xml};
use crate::faults::look::Look;
use crate::faults::{MAC, leave_guest};
use crate::host::{Host, Run, fdb, finish, neighbours};
use crate::table::Table;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

const RUNS: &str = "state='running' reason='booted'";

/// A hook of libvirt's, at a guest that is on network flat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A cold boot; may be refused.
    Start,
    /// libvirtd came back, and an entry was lost meanwhile; libvirt would kill the guest if it failed.
    Reconnect,
    /// The guest ended.
    Stopped,
}

const EVENTS: [Event; 3] = [Event::Start, Event::Reconnect, Event::Stopped];

impl Event {
    fn word(self) -> &'static str {
        match self {
            Event::Start => "start",
            Event::Reconnect => "reconnect",
            Event::Stopped => "stopped",
        }
    }
}

/// The host, how it looks with the guest and without it, and the table.
struct Scene {
    host: Host,
    fault: &'static str,
    table: Table,
    with: Look,
    without: Look,
    /// Nobody else is at the same guest: a refused start leaves nothing at all.
    strict: bool,
}

impl Scene {
    /// Network flat is up, or what else makes the host.
    fn new(fault: &'static str, host: Host) -> Scene {
        let test = std::env::var("EVPN_TEST_INSIDE").unwrap();
        let table = Table::of(&test);
        let without = Look::now();
        let mut scene = Scene { host, fault, table, without: without.clone(), with: without, strict: true };
        scene.begin(Event::Reconnect);
        assert_eq!(scene.host.run(&["sync"]).status, 0);
        scene.with = Look::now();
        leave_guest(&scene.host);
        assert!(Look::now() == scene.without, "{}", Look::now().against(&scene.without));
        scene
    }

    fn call(&self, event: Event) -> Command {
        let mut command = self.host.command(&["qemu", "vm1", event.word(), "begin", "-"]);
        command.stdin(std::process::Stdio::piped());
        command
    }

    /// The host as it is before the hook.
    fn begin(&self, event: Event) {
        a_tap(&self.host);
        if event != Event::Start {
            finish(self.call(Event::Start), xml().as_bytes()).ok();
            lives(RUNS);
        }
        if event == Event::Reconnect {
            sh("ip neigh del 10.1.0.60 dev flat-l2");
        }
    }

    /// One event: the fault comes, `run` makes the call, the fault goes; then all is checked that is promised.
    fn event(&mut self, event: Event, comes: impl FnOnce(), run: impl FnOnce(Command) -> Run, goes: impl FnOnce()) {
        self.begin(event);
        let before = Look::now();
        comes();
        let run = run(self.call(event));
        let guest = self.judge(event, &run, &before);
        goes();
        self.heal(event, guest);
    }

    /// What the guest saw, and whether it may.
    fn judge(&self, event: Event, run: &Run, before: &Look) -> &'static str {
        assert_eq!(run.stdout, "", "{event:?}");
        match (event, run.status) {
            (Event::Start, 0) => {
                let whole = is_registered();
                assert!(whole || !self.strict, "{event:?}: {run:?}\n{}", Look::now().against(before));
                if whole { "runs" } else { "runs, entry lost again" }
            }
            (Event::Start, 1) => {
                run.says(1, &[]);
                let now = Look::now();
                assert!(
                    now == *before || !self.strict,
                    "refused, and it left something: {run:?}\n{}",
                    now.against(before)
                );
                "refused"
            }
            // A signal, or the loader's end: libvirt takes it for a refusal.
            (Event::Start, status) if status > 126 => "hook killed, refused",
            (Event::Reconnect, 0) if is_registered() => "runs",
            (Event::Reconnect, 0) => "runs, entry still lost",
            (Event::Stopped, 0) if fdb().is_empty() && neighbours().is_empty() => "gone, withdrawn",
            (Event::Stopped, 0) => "gone, entries left",
            (Event::Reconnect | Event::Stopped, status) if status > 126 => "hook killed",
            _ => panic!("{event:?}: {run:?}"),
        }
    }

    /// libvirt does its part, and `sync` puts right what is not.
    fn heal(&mut self, event: Event, guest: &str) {
        // Without its tap QEMU does not start, or ends.
        let has_tap = Path::new("/proc/sys/net/ipv4/conf/vnet0").exists();
        let runs = has_tap && (event == Event::Reconnect || guest.starts_with("runs"));
        if runs {
            lives(RUNS)
        } else {
            is_gone()
        }
        // An agent leaves it behind, whoever was there.
        let _ = std::fs::remove_file("/run/evpn-hook/agent.lock");
        let sync = self.host.run(&["sync"]);
        assert!(sync.status == 0, "{event:?}, {guest}: {sync:?}");
        let wanted = if runs { &self.with } else { &self.without };
        let now = Look::now();
        assert!(now == *wanted, "{event:?}, {guest}, sync: {sync:?}\n{}", now.against(wanted));
        let again = self.host.run(&["sync"]).ok();
        assert_eq!(again.stdout, "nothing to do\n", "{event:?}, {guest}");
        let healed = match sync.stdout.trim() {
            "nothing to do" => "nothing to heal",
            _ => "sync",
        };
        self.table.add(self.fault, &format!("qemu {}", event.word()), guest, healed);
        leave_guest(&self.host);
        let left = Look::now();
        assert!(left == self.without, "left behind: {}", left.against(&self.without));
    }
}

fn is_registered() -> bool {
    fdb() == format!("fdb {MAC} dev vnet0\n") && neighbours() == format!("neigh 10.1.0.60 {MAC} dev flat-l2\n")
}

/// The call with libvirt's XML on its stdin.
fn plainly(command: Command) -> Run {
    finish(command, xml().as_bytes())
}

/// A command behind another: strace(1), prlimit(1).
fn under(prefix: &[&str], command: &Command) -> Command {
    let mut all = Command::new(prefix[0]);
    all.args(&prefix[1..]).arg(command.get_program()).args(command.get_args());
    all.envs(command.get_envs().filter_map(|(key, value)| Some((key.to_owned(), OsString::from(value?)))));
    all.stdin(std::process::Stdio::piped());
    all
}

const TRACE: &str = "/run/strace";

/// The call while strace injects this at the n-th of these system calls; was there an n-th?
fn injected(calls: &str, what: &str, at: usize, command: &Command) -> (Run, bool) {
    let inject = format!("inject={calls}:{what}:when={at}");
    let run =
        plainly(under(&["strace", "-f", "-qq", "-o", TRACE, "-e", &format!("trace={calls}"), "-e", &inject], command));
    let trace = std::fs::read(TRACE).unwrap();
    let trace = String::from_utf8_lossy(&trace);
    (run, trace.contains("(INJECTED)") || trace.contains("--- SIG"))
}
