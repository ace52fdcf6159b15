//! A real zebra and bgpd in namespaces of their own.

use crate::poison::poisoned;
use evpn_hook::config::Vrf;
use evpn_hook::model::{Mac, Vni};
use evpn_hook::speaker::{Frr, Vty};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The first process of a PID namespace: when it ends, at the end of its input, the kernel ends the daemons with it.
const SCRIPT: &str = r#"
set -e
for dir in /run /var/log /var/tmp /etc/frr; do mount -t tmpfs none $dir; done
ip link set lo up
ip address add 10.0.0.1/32 dev lo
cat > /etc/frr/bgpd.conf
chmod 644 /etc/frr/bgpd.conf
chown frr:frr "$1"
# FRR 10's, first; its own sockets are in /run/frr whatever it is told.
mgmtd=; [ ! -e /usr/lib/frr/mgmtd ] || { mgmtd=mgmtd; install -d -o frr -g frr /run/frr; }
for daemon in $mgmtd zebra bgpd; do
    /usr/lib/frr/$daemon --vty_socket "$1" -z "$1/zserv.api" -i "$1/$daemon.pid" -f /etc/frr/$daemon.conf >"$1/$daemon.out" 2>&1 &
done
set +e
exec 3<"$1/lines"
while read -r line <&3; do eval "$line" >"$1/out" 2>&1; echo "$?"; done
"#;

pub const BGP: &str = "router bgp 64512\n bgp router-id 10.0.0.1\n address-family l2vpn evpn\n  advertise-all-vni\n exit-address-family\n";

/// Its router-id.
pub const ID: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 0, 0, 1));

/// A zebra and a bgpd.
pub struct Lab {
    pub dir: PathBuf,
    child: Child,
    lines: Option<std::fs::File>,
    done: BufReader<ChildStdout>,
}

/// Past libtest's capture, or a skipped test would look like a passed one; its thread has the test's name.
#[allow(clippy::explicit_write)] // eprintln! is what libtest captures
fn skip(why: &str) {
    let thread = std::thread::current();
    writeln!(std::io::stderr(), "SKIP {}: {why}", thread.name().unwrap_or("?")).unwrap();
}

impl Lab {
    pub fn start(name: &str, bgpd: &str) -> Option<Lab> {
        if !rustix::process::geteuid().is_root() || !Path::new("/usr/lib/frr/bgpd").exists() {
            skip("needs root and FRR");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("evpn-hook-speaker-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        assert!(Command::new("mkfifo").arg(dir.join("lines")).status().unwrap().success());
        let mut child = Command::new("unshare")
            .envs(poisoned())
            .args(["-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT, "sh"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut config: ChildStdin = child.stdin.take().unwrap();
        config.write_all(bgpd.as_bytes()).unwrap();
        drop(config);
        let done = BufReader::new(child.stdout.take().unwrap());
        let lines = std::fs::OpenOptions::new().write(true).open(dir.join("lines")).unwrap();
        let lab = Lab { dir, child, lines: Some(lines), done };
        for daemon in ["zebra", "bgpd"] {
            let until = Instant::now() + Duration::from_secs(30);
            while let Err(error) = Vty::connect(&lab.dir, daemon, Duration::from_secs(2)) {
                assert!(Instant::now() < until, "{error}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // Until bgpd has told it so, zebra is an EVPN speaker of none of its VXLANs.
        let until = Instant::now() + Duration::from_secs(30);
        while bgpd.contains("advertise-all-vni") && lab.zebra("show evpn").is_empty() {
            assert!(Instant::now() < until, "zebra has no EVPN");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(lab)
    }

    /// Runs a line inside; its status and output.
    pub fn run(&mut self, line: &str) -> (i32, String) {
        writeln!(self.lines.as_mut().unwrap(), "{line}").unwrap();
        let mut status = String::new();
        self.done.read_line(&mut status).unwrap();
        let out = std::fs::read_to_string(self.dir.join("out")).unwrap();
        (status.trim().parse().unwrap(), out)
    }

    pub fn must(&mut self, line: &str) {
        let (status, out) = self.run(line);
        assert_eq!(status, 0, "{line}: {out}");
    }

    pub fn has_vrf_devices(&mut self) -> bool {
        let has = self.run("ip link add probe type vrf table 99 && ip link del probe").0 == 0;
        if !has {
            skip("this kernel has no VRF");
        }
        has
    }

    pub fn vtysh(&mut self, lines: &[&str]) {
        let arguments: String = lines.iter().map(|line| format!(" -c '{line}'")).collect();
        let dir = self.dir.display().to_string();
        self.must(&format!("VTYSH_HISTFILE=/dev/null vtysh --vty_socket {dir} -c 'configure terminal'{arguments}"));
    }

    /// What zebra shows.
    pub fn zebra(&self, command: &str) -> String {
        let mut zebra = Vty::connect(&self.dir, "zebra", Duration::from_secs(5)).unwrap();
        zebra.show(command).unwrap()
    }

    pub fn frr(&self) -> Frr {
        Frr::with_deadlines(&self.dir, Duration::from_secs(5), Duration::from_secs(20))
    }

    /// An FRR without a vtysh: proves that nothing is configured.
    pub fn read_only(&self) -> Frr {
        self.frr().with_vtysh(Path::new("/nonexistent/vtysh"))
    }
}

/// Daemons that run no more though nobody has stopped them, with their own last words.
const DIED: &str = "for file in $dir/*.pid; do pid=$(cat $file); name=$(basename $file .pid); kill -0 $pid 2>/dev/null || \
    { echo \"lab: $name ($pid) died:\"; cat /var/tmp/frr/$name.$pid/crashlog $dir/$name.out; }; done";

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let dir = self.dir.display().to_string();
            eprintln!("{}", self.run(&format!("dir={dir}; {DIED}")).1);
        }
        drop(self.lines.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn vrf(name: &str, vni: u32) -> Vrf {
    Vrf { name: name.parse().unwrap(), table: vni.try_into().unwrap(), vni: Some(vni.try_into().unwrap()) }
}

pub fn vni(vni: u32) -> Vni {
    vni.try_into().unwrap()
}

pub fn guest() -> (Mac, IpAddr) {
    ("52:54:00:03:82:d8".parse().unwrap(), "10.1.0.60".parse().unwrap())
}
