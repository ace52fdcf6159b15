//! Faults: each plan is killed, and each of its steps fails, at each of its points in turn; then `sync`. Afterwards the host is as it should
//! be, or as it was before the command, and whatever is not evpn-hook's has not been touched.
//!
//! What was tried is told point by point in faults-*.txt, in $EVPN_LAB_OUT or target/test.

pub(crate) mod guests;
pub(crate) mod look;
mod networks;
mod repairs;
mod routed;

use crate::common::{ip_link, sh};
use crate::host::{Host, finish};
use look::{Look, delete};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

const LOG: &str = "/run/faults.log";
const KILLED: i32 = 128 + 9;

/// What a command does when one of its steps fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    /// All or nothing: it exits with this status and the host is as before.
    Undoes(i32),
    /// It goes on with the rest.
    GoesOn,
}

/// One call of the program: its words, libvirt's XML, LXC's environment.
#[derive(Default)]
struct Call {
    args: Vec<&'static str>,
    stdin: String,
    env: Vec<(&'static str, String)>,
}

fn call(words: &'static str) -> Call {
    Call { args: words.split(' ').collect(), ..Call::default() }
}

/// One plan.
#[derive(Clone, Copy)]
struct Plan<'a> {
    /// For the table.
    name: &'a str,
    /// Makes the host as it is before the command.
    before: &'a dyn Fn(&Host),
    command: &'a dyn Fn() -> Call,
    on_failure: OnFailure,
    /// What the world does meanwhile, whether the command lives or dies: libvirt's own part.
    world: &'a dyn Fn(),
    /// Takes everything down as a user or a hypervisor would.
    leave: &'a dyn Fn(&Host),
}

/// Where a plan that was broken off may end, and what is there without it.
struct Ends {
    undone: Look,
    done: Look,
    empty: Look,
}

/// All points of these plans on one host.
fn all(table: &str, host: &Host, plans: &[Plan]) {
    let mut rows = String::new();
    let (mut points, mut mended) = (0, 0);
    let mut wrong = String::new();
    for plan in plans {
        let bench = Bench { host, plan };
        let empty = Look::now();
        let names = bench.points();
        let ends = Ends { undone: bench.end(false, &empty), done: bench.end(true, &empty), empty };
        let steps: Vec<&String> = names.iter().filter(|name| name.starts_with("before ") && !is_state(name)).collect();
        let kills = names.iter().enumerate().map(|(at, name)| (format!("kill {}", at + 1), name));
        let fails = steps.into_iter().enumerate().map(|(at, name)| (format!("fail {}", at + 1), name));
        for (fault, point) in kills.chain(fails) {
            points += 1;
            let outcome = match bench.at(&fault, &ends) {
                Ok(outcome) => {
                    mended += 1;
                    eprintln!("{}, {fault} ({point}): {outcome}", plan.name);
                    outcome.to_owned()
                }
                Err(why) => {
                    // At once as well: what it left may end the test.
                    eprintln!("{}, {fault} ({point}):\n{why}", plan.name);
                    let _ = writeln!(wrong, "{}, {fault} ({point})", plan.name);
                    "NOT MENDED".to_owned()
                }
            };
            let _ = writeln!(rows, "{:<44} {fault:<8} {outcome:<10} {point}", plan.name);
        }
    }
    let dir = std::env::var_os("EVPN_LAB_OUT").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(format!("faults-{table}.txt")), &rows).unwrap();
    assert!(points > 0 && wrong.is_empty(), "faults: {points} points, {mended} mended\n{wrong}");
}

fn is_state(point: &str) -> bool {
    ["writing", "removing"].iter().any(|word| point.split(' ').nth(1) == Some(word))
}

struct Bench<'a> {
    host: &'a Host,
    plan: &'a Plan<'a>,
}

impl Bench<'_> {
    /// Runs the command; gives its exit status, or 128 + the signal.
    fn command(&self, fault: Option<&str>) -> i32 {
        let Call { args, stdin, env } = (self.plan.command)();
        let mut command = self.host.command(&args);
        command.envs(env).stdin(Stdio::piped());
        match fault {
            Some(fault) => command.env("EVPN_HOOK_FAULT", fault),
            None => command.env("EVPN_HOOK_FAULT_LOG", LOG),
        };
        finish(command, stdin.as_bytes()).status
    }

    /// What goes before; hints are forgotten, or the first run would be the only one that makes them.
    fn begin(&self) {
        (self.plan.before)(self.host);
        sh("rm -rf /run/evpn-hook/hints");
    }

    /// The points of a run that nothing disturbs.
    fn points(&self) -> Vec<String> {
        self.begin();
        let _ = fs::remove_file(LOG);
        assert_eq!(self.command(None), 0, "{}", self.plan.name);
        (self.plan.world)();
        (self.plan.leave)(self.host);
        fs::read_to_string(LOG).unwrap().lines().map(str::to_owned).collect()
    }

    /// With the command or without it, as `sync` finds and leaves it.
    fn end(&self, done: bool, empty: &Look) -> Look {
        self.begin();
        if done {
            self.command(None);
        }
        (self.plan.world)();
        assert_eq!(self.host.run(&["sync"]).status, 0, "{}", self.plan.name);
        let whole = Look::now();
        (self.plan.leave)(self.host);
        let left = Look::now();
        assert!(left == *empty, "{}: not undisturbed, but\n{}", self.plan.name, left.against(empty));
        whole
    }

    /// One fault, and what became of it.
    fn at(&self, fault: &str, ends: &Ends) -> Result<&'static str, String> {
        self.begin();
        let may_undo = fault.starts_with("fail") && self.plan.on_failure != OnFailure::GoesOn;
        let before = may_undo.then(Look::now);
        let status = self.command(Some(fault));
        let mut wrong = String::new();
        let mut check = |fine: bool, why: &str, details: String| {
            if !fine {
                let _ = writeln!(wrong, "    {why}\n{details}");
            }
        };
        if fault.starts_with("kill") {
            check(status == KILLED, "it was not killed", status.to_string());
        }
        if let (Some(before), OnFailure::Undoes(wanted)) = (before, self.plan.on_failure) {
            let now = Look::now();
            check(status == wanted && now == before, "it did not undo", format!("{status}\n{}", now.against(&before)));
        }
        (self.plan.world)();
        let sync = self.host.run(&["sync"]);
        check(sync.status == 0, "sync complains", format!("{sync:?}"));
        let now = Look::now();
        let (done, undone) = (now == ends.done, now == ends.undone);
        let differs =
            || format!("{}\n    or, against what was\n{}", now.against(&ends.done), now.against(&ends.undone));
        check(done || undone, "it is neither done nor undone", differs());
        let again = self.host.run(&["sync"]);
        check(again.stdout == "nothing to do\n", "a second sync finds something to do", format!("{again:?}"));
        (self.plan.leave)(self.host);
        let left = Look::now();
        check(left == ends.empty, "something is left behind, or is missing", left.against(&ends.empty));
        match wrong.is_empty() {
            true => Ok(match (done, undone) {
                (true, true) => "mended",
                (true, false) => "completed",
                _ => "undone",
            }),
            false => {
                // The next point starts from nothing all the same.
                delete(OURS);
                sh("rm -rf /run/evpn-hook; ip route flush table 10; ip -6 route flush table 10 || true");
                (self.plan.leave)(self.host);
                Err(wrong)
            }
        }
    }
}

// ----- what the plans share -----

/// The devices of the networks.
const OURS: &[&str] =
    &["vxlan10", "vxlan20", "vxlan30", "vxlan31", "vxlan40", "flat-l2", "lab-l2", "red-l2", "red2-l2", "red-l3", "red"];

pub(crate) const MAC: &str = "52:54:00:03:82:d8";

/// What is nobody's business, beside the networks.
fn strangers() {
    sh("ip link add elsewhere address 02:00:00:00:00:77 type bridge && ip link set elsewhere up
        ip link add theirs0 address 02:00:00:00:00:78 type veth peer name theirs1 address 02:00:00:00:00:79
        ip link set theirs0 master elsewhere up && ip link set theirs1 up
        ip address add 192.0.2.1/24 dev elsewhere
        ip neigh add 192.0.2.9 lladdr 52:54:00:00:00:99 dev elsewhere nud permanent
        bridge fdb add 52:54:00:00:00:98 dev theirs0 master static
        ip route add 198.51.100.0/24 via 192.0.2.9 && ip route add 198.51.100.0/24 via 192.0.2.9 table 77
        ip rule add from 198.51.100.1 table 77 && ip -6 rule add from fd00:77::/64 table 77");
}

/// What is nobody's business, on a network's own bridge.
fn strangers_on(bridge: &str) {
    sh(&format!(
        "ip link add theirs address 02:00:00:00:00:7a type veth peer name theirsp address 02:00:00:00:00:7b
         ip link set theirs master {bridge} up && ip link set theirsp up
         ip neigh add 10.1.0.99 lladdr 52:54:00:00:00:97 dev {bridge} nud permanent
         bridge fdb add 52:54:00:00:00:96 dev theirs master static"
    ));
}

/// An operator's bridge of a network's name, in use. Without neighbours: the kernel flushes them where a bridge gets another MAC, enters a VRF, or loses
/// its last IPv4 address (net/ipv4/fib_frontend.c `fib_disable_ip`).
fn operators_bridge(bridge: &str, mac: &str) {
    sh(&format!("ip link add {bridge} address {mac} type bridge && ip link set {bridge} up"));
    strangers_on(bridge);
    sh(&format!("ip neigh del 10.1.0.99 dev {bridge}"));
    // After its ports, which a bridge follows until somebody says what it is to be.
    sh(&format!("ip link set {bridge} mtu 1400"));
}

/// Takes it away, as it was made: whatever a network was that was up on it.
fn leave_operators(bridge: &str, mac: &str) {
    let is_there = PathBuf::from("/proc/sys/net/ipv4/conf").join(bridge).exists();
    if is_there {
        let link = ip_link(bridge);
        assert_eq!([&link["mtu"], &link["address"], &link["master"]], [&1400.into(), &mac.into(), &Value::Null]);
        assert_eq!(sh(&format!("ip address show dev {bridge} scope global | grep -c inet || true")), "0\n");
        let conf = |family: &str, key: &str| sh(&format!("cat /proc/sys/net/{family}/conf/{bridge}/{key}"));
        assert_eq!(conf("ipv6", "accept_ra") + &conf("ipv4", "arp_ignore") + &conf("ipv4", "rp_filter"), "1\n0\n0\n");
    }
    delete(&[bridge, "theirs"]);
}

/// Its guest stays until the network is down: `network down` is for those without.
fn without_theirs() {
    sh("[ ! -e /proc/sys/net/ipv4/conf/theirs ] || ip link set theirs nomaster");
}

/// A guest's tap, its MAC always the same.
fn tap(dev: &str, state: &str) {
    sh(&format!(
        "ip link add {dev} address 02:00:00:00:00:01 type veth peer name {dev}p address 02:00:00:00:00:02
         ip link set {dev}p up && ip link set {dev} {state}"
    ));
}

fn ok(host: &Host, words: &str) {
    let run = host.run(&words.split(' ').collect::<Vec<_>>());
    assert!(run.status == 0 && run.stderr.is_empty(), "{words}: {run:?}");
}

fn there(record: &str) -> bool {
    PathBuf::from("/run/evpn-hook").join(record).exists()
}

/// Takes down whatever there is, each by whom it belongs to.
fn leave(host: &Host) {
    leave_guest(host);
    for name in ["flat", "second", "routed"] {
        if there(&format!("names/{name}")) {
            ok(host, &format!("network down {name}"));
        }
    }
}

/// The guest alone.
pub(crate) fn leave_guest(host: &Host) {
    if there("guests/manual-vnet0.json") {
        ok(host, "detach vnet0");
    }
    let stopped = ["qemu", "vm1", "stopped", "end", "-"];
    if let Ok(files) = fs::read_dir("/run/evpn-hook/guests")
        && files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libvirt-"))
    {
        let run = host.hook(&stopped, guests::xml());
        assert!(run.status == 0 && run.stderr.is_empty(), "{run:?}");
    }
    delete(&["vnet0"]);
    sh("rm -rf /run/libvirt");
}
