//! A host of its own for one test, and the real program on it.

use crate::common::{json, sh};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The program under test.
pub const BIN: &str = env!("CARGO_BIN_EXE_evpn-hook");

/// A layer-2 tenant and nothing else: what every kernel can do.
pub const CONFIG: &str = r#"
[speaker]
kind = "none"
[[vrf]]
name = "red"
table = 10
vni = 10
[[network]]
name = "flat"
bridge = "flat-l2"
vni = 20
gateway = ["10.1.0.1/24"]
mac = "00:00:00:11:11:10"
mtu = 1450
[[network]]
name = "other"
bridge = "other-l2"
vni = 21
[[network]]
name = "routed"
bridge = "red-l2"
vni = 30
vrf = "red"
gateway = ["10.3.0.1/24", "fd00:3::1/64"]
mac = "00:00:00:11:11:30"
"#;

/// What one run of the program came to; its status is 128 + the signal where it was killed.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    #[track_caller]
    pub fn ok(self) -> Run {
        assert!(self.status == 0 && self.stderr.is_empty(), "{self:?}");
        self
    }

    /// Fails the test unless it was done with one warning that has all of these parts.
    #[track_caller]
    pub fn tells(&self, parts: &[&str]) {
        assert_eq!((self.status, self.stderr.lines().count()), (0, 1), "{self:?}");
        let warning = self.stderr.strip_prefix("evpn-hook: warning: ");
        assert!(warning.is_some_and(|w| parts.iter().all(|part| w.contains(part))), "{self:?}");
    }

    /// Fails the test unless it ended with this status and one line on stderr that has all of these parts, in this order.
    #[track_caller]
    pub fn says(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("evpn-hook: "), "one line of ours: {self:?}");
        let mut rest = lines[0];
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else { panic!("no {part:?} in {rest:?} of {self:?}") };
            rest = after;
        }
    }
}

/// config.toml's path in every test's own /run.
const PATH: &str = "/run/config.toml";

pub struct Host;

impl Host {
    /// A host with a VTEP address and this config.toml.
    pub fn new(config: &str) -> Host {
        sh("ip link set lo up && ip address replace 10.0.0.1/32 dev lo");
        std::fs::write(PATH, config).unwrap();
        Host
    }

    /// The host of [`CONFIG`] with network `flat` up.
    pub fn flat() -> Host {
        let host = Host::new(CONFIG);
        host.run(&["network", "up", "flat"]).ok();
        host
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BIN);
        command.args(["--config", PATH]).args(args).stdin(Stdio::null());
        // Trees in ASCII, whatever the machine speaks.
        command.env("LC_ALL", "C");
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        finish(self.command(args), b"")
    }

    /// A hypervisor's call, with the words that libvirt or LXC would use. What it must never do is checked each time: write to stdout.
    #[track_caller]
    pub fn hook(&self, args: &[&str], stdin: impl AsRef<[u8]>) -> Run {
        let run = finish(self.command(args), stdin.as_ref());
        assert_eq!(run.stdout, "", "a hook's stdout is libvirt's next XML");
        run
    }

    /// Runs what must be refused: this status, these words, and nothing of the host changed.
    #[track_caller]
    pub fn refuses(&self, args: &[&str], status: i32, parts: &[&str]) {
        let before = snapshot();
        self.run(args).says(status, parts);
        assert_eq!(snapshot(), before, "{args:?} left something");
    }

    /// The same for a hook's call.
    #[track_caller]
    pub fn hook_refuses(&self, args: &[&str], stdin: impl AsRef<[u8]>, status: i32, parts: &[&str]) {
        let before = snapshot();
        self.hook(args, stdin).says(status, parts);
        assert_eq!(snapshot(), before, "{args:?} left something");
    }

    /// Runs it with a bound on its address space. How long it took, and the most memory that was seen of it, in MB.
    pub fn bounded(&self, args: &[&str], env: &[(&str, String)], stdin: &[u8], mib: u64) -> (Run, Duration, f64) {
        let program = self.command(args);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {}; exec \"$@\"", mib << 10), "sh"]);
        command.arg(program.get_program()).args(program.get_args()).env("LC_ALL", "C");
        command.envs(env.iter().map(|(key, value)| (key, value)));
        let began = Instant::now();
        let (run, peak) = finish_watched(command, stdin, |pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            high.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        (run, began.elapsed(), peak as f64 / 1024.0)
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["--json", "status"]).ok().stdout).unwrap()
    }
}

pub fn finish(command: Command, stdin: &[u8]) -> Run {
    finish_watched(command, stdin, |_| None).0
}

/// Looks at it again and again while it runs; the most that was seen.
fn finish_watched(
    mut command: Command,
    stdin: &[u8],
    look: impl Fn(u32) -> Option<u64> + Send + 'static,
) -> (Run, u64) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pid = child.id();
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        while let Some(now) = look(pid) {
            most = most.max(now);
        }
        most
    });
    let mut pipe = child.stdin.take().unwrap();
    let text = stdin.to_vec();
    // A program that has read enough closes the pipe: not an error of ours.
    let writer = std::thread::spawn(move || pipe.write_all(&text).map(drop).unwrap_or_default());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap());
    (Run { status, stdout: text(output.stdout), stderr: text(output.stderr) }, watch.join().unwrap())
}

/// A veth as a guest's tap: `dev` is the host's end, up or down as the hypervisor leaves it.
pub fn tap(dev: &str) {
    sh(&format!("ip link add {dev} type veth peer name {dev}p && ip link set {dev}p up"));
}

/// All that evpn-hook could have touched, without what changes by itself (states, timers, link-local addresses).
pub fn snapshot() -> String {
    let mut text = String::new();
    for link in array("ip -j link") {
        let up = link["flags"].as_array().unwrap().contains(&"UP".into());
        let [name, master, mac, mtu] = ["ifname", "master", "address", "mtu"].map(|key| &link[key]);
        writeln!(text, "link {name} master {master} mac {mac} mtu {mtu} up {up}").unwrap();
    }
    for link in array("ip -j address") {
        for address in link["addr_info"].as_array().unwrap().iter().filter(|a| a["scope"] == "global") {
            writeln!(text, "address {} {} {}", link["ifname"], address["local"], address["prefixlen"]).unwrap();
        }
    }
    text += &fdb();
    text += &neighbours();
    text += &sh("ip -4 rule; ip -6 rule; ip route show table 10 2>&-; ip -6 route show table 10 2>&- | sort");
    text += &sh(
        "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding; grep -rs --exclude-dir=hints . /run/evpn-hook | sed 's/,\"hook\":{[^}]*}//' | sort; find /run/evpn-hook ! -type d ! -path '*/hints/*' 2>/dev/null | sort",
    );
    text
}

/// The static FDB entries, one a line.
pub fn fdb() -> String {
    let fixed = |e: &Value| e["state"] == "static";
    array("bridge -j fdb show").iter().filter(|e| fixed(e)).fold(String::new(), |text, e| {
        format!("{text}fdb {} dev {}\n", e["mac"].as_str().unwrap(), e["ifname"].as_str().unwrap())
    })
}

/// The permanent neighbours, one a line.
pub fn neighbours() -> String {
    let mut lines: Vec<String> = array("ip -j neigh show nud permanent")
        .iter()
        .filter(|e| e["dev"] != "lo")
        .map(|e| format!("neigh {} {} dev {}\n", e["dst"], e["lladdr"], e["dev"]).replace('"', ""))
        .collect();
    lines.sort();
    lines.concat()
}

fn array(line: &str) -> Vec<Value> {
    match json(line) {
        Value::Array(values) => values,
        other => panic!("{line}: {other}"),
    }
}

/// A file of the repository.
pub fn repository(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}
