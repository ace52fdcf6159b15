//! ufw and firewalld themselves, of a Debian suite as tests/lab/firewalls.sh has unpacked it: run by chroot in the test's own namespaces, which is where their
//! rules, their configuration and their daemon are.

use super::*;
use std::io::BufRead as _;
use std::process::Child;

/// Ends with this, and with whatever it started: it is the first process of a namespace.
pub struct Bus(Child);

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who keeps the rules of this host.
pub enum Firewall {
    /// Nobody: they were loaded.
    Loaded,
    Ufw(Root),
    Firewalld(Root, #[expect(dead_code, reason = "it ends with this")] Bus),
}

impl Firewall {
    /// Runs this line where its programs are.
    pub fn run(&self, line: &str) {
        match self {
            Firewall::Loaded => super::run(line),
            Firewall::Ufw(root) | Firewall::Firewalld(root, _) => drop(root.run(line)),
        }
    }

    /// Has the rules made anew from what is kept, as a boot does, where somebody keeps them.
    pub fn reload(&self) -> bool {
        let (root, line) = match self {
            Firewall::Loaded => return false,
            Firewall::Ufw(root) => (root, "ufw reload"),
            Firewall::Firewalld(root, _) => (root, "firewall-cmd --reload"),
        };
        root.run(line);
        true
    }
}

/// Where the programs are.
pub struct Root(String);

impl Root {
    fn run(&self, line: &str) -> String {
        let output = Command::new("chroot").args([&self.0, "sh", "-c", line]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {text}");
        text.into_owned()
    }
}

/// The root of a suite's programs, with what they write in this test's own memory; none where it was never unpacked.
fn root(suite: &str, test: &str) -> Option<Root> {
    let there = format!("{}/target/lab/firewalls-{suite}", env!("CARGO_MANIFEST_DIR"));
    if !std::path::Path::new(&there).join(".unpacked").exists() {
        crate::common::skip(&format!("firewall::{test}"), &format!("tests/lab/firewalls.sh {suite} was not run"));
        return None;
    }
    let root = there + "/root";
    sh(&format!(
        "for dir in dev proc run sys; do mount --rbind /$dir {root}/$dir; done
         for dir in tmp var/log; do mount -t tmpfs none {root}/$dir; done
         mkdir /run/etc; cp -a {root}/etc/. /run/etc; mount --bind /run/etc {root}/etc"
    ));
    Some(Root(root))
}

/// What that suite's nft says of these rules.
pub fn nft(suite: &str, test: &str, rules: &str) -> Option<String> {
    let root = root(suite, test)?;
    std::fs::write("/run/rules.nft", rules).unwrap();
    Some(root.run("nft --check --file /run/rules.nft 2>&1 || true"))
}

/// As it is shipped, with what everybody adds first.
pub fn ufw(suite: &str, test: &str) -> Option<Firewall> {
    let root = root(suite, test)?;
    root.run("ufw allow 22/tcp && ufw --force enable");
    Some(Firewall::Ufw(root))
}

/// The system's bus lets everybody do everything, and starts firewalld for the first that asks: who asks waits for it.
const BUS: &str = r#"<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<servicedir>/run/dbus/services</servicedir><policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>"#;
const SERVICE: &str = "[D-BUS Service]\nName=org.fedoraproject.FirewallD1\nExec=/usr/sbin/firewalld --nofork\n";

/// As it is shipped: eth0 is in no zone, which is the default zone, public.
pub fn firewalld(suite: &str, test: &str) -> Option<Firewall> {
    let root = root(suite, test)?;
    std::fs::create_dir_all("/run/dbus/services").unwrap();
    std::fs::write("/run/dbus/bus.conf", BUS).unwrap();
    std::fs::write("/run/dbus/services/firewalld.service", SERVICE).unwrap();
    let argv = ["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "chroot", &root.0];
    let mut command = Command::new("setpriv");
    command.args(argv).args(["dbus-daemon", "--nofork", "--config-file=/run/dbus/bus.conf", "--print-address"]);
    let mut bus = Bus(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut address = String::new();
    // Left open, for firewalld says things there.
    std::io::BufReader::new(bus.0.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
    assert!(address.starts_with("unix:"), "{address:?}");
    assert_eq!(root.run("firewall-cmd --state").trim(), "running");
    Some(Firewall::Firewalld(root, bus))
}
