//! The kernel room against a real kernel, each test in a fresh network namespace (unshare(1), so: as root).
//!
//! Every step is cross-checked with iproute2, the other implementation: set by us and read by `ip -j`, and the reverse. What the
//! running kernel lacks is told in a line `SKIP test: why`; with EVPN_LAB=1 (a kernel that has everything) it is a failure.
// clippy.toml allows the first two in tests, and does not see that these helpers are; the third is explained where it is.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::explicit_write)]

mod entries;
mod links;
mod reading;
mod routing;

use evpn_hook::kernel::Kernel;
use evpn_hook::model::{IfName, Mac};
use evpn_hook::plan::Step;
use std::io::Write;
use std::process::Command;

/// Runs a test's body in a namespace of its own: the test binary runs itself once more under unshare(1).
macro_rules! netns {
    ($name:ident, $kernel:ident, $body:block) => {
        #[test]
        fn $name() {
            let name = concat!(module_path!(), "::", stringify!($name));
            let name = name.split_once("::").unwrap().1;
            crate::isolated(name, |$kernel: &mut evpn_hook::kernel::Kernel| $body);
        }
    };
}
pub(crate) use netns;

const INSIDE: &str = "EVPN_NETNS_TEST";

/// The command that runs one test of this binary again, in this process's namespace.
fn again(name: &str, prefix: &[&str]) -> Command {
    let mut command = Command::new(prefix[0]);
    command.args(&prefix[1..]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE, name);
    command
}

fn isolated(name: &str, body: impl FnOnce(&mut Kernel)) {
    if std::env::var(INSIDE).as_deref() == Ok(name) {
        body(&mut Kernel::open().unwrap());
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return tell(&format!("SKIP {name}: not root"));
    }
    let output = again(name, &["unshare", "-n", "--"]).output().expect("unshare(1) from util-linux");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| line.starts_with("SKIP")).for_each(tell);
    assert!(output.status.success() && text.contains("1 passed"), "in its namespace:\n{text}");
}

/// Past libtest's capture, or a skipped test would look like a passed one.
fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

/// Says what this kernel cannot show. In the lab nothing may be missing.
fn skip(test: &str, why: &str) {
    assert!(std::env::var("EVPN_LAB").as_deref() != Ok("1"), "{test} must run in the lab: {why}");
    println!("\nSKIP {test}: {why}");
}

/// Runs a command line and returns its output; fails with its words.
fn sh(line: &str) -> String {
    let (ok, text) = try_sh(line);
    assert!(ok, "{line}: {text}");
    text
}

fn try_sh(line: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

/// The JSON of an iproute2 command.
fn json(line: &str) -> serde_json::Value {
    let text = sh(line);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

/// `ip -j -d link show DEV`, the one object of it.
fn ip_link(dev: &str) -> serde_json::Value {
    json(&format!("ip -j -d link show dev {dev}"))[0].clone()
}

fn has_vrf() -> bool {
    let has = try_sh("ip link add probe type vrf table 4242").0;
    has && try_sh("ip link del probe").0
}

fn has_vlan_filtering() -> bool {
    sh("ip link add probe type bridge");
    let has = !ip_link("probe")["linkinfo"]["info_data"]["vlan_default_pvid"].is_null();
    sh("ip link del probe");
    has
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

fn add_bridge(text: &str, mtu: Option<u32>) -> Step {
    Step::AddBridge { name: name(text), mac: mac("00:00:00:11:11:10"), mtu }
}

fn add_vxlan(vni: u32, local: &str) -> Step {
    Step::AddVxlan { vni: vni.try_into().unwrap(), local: local.parse().unwrap(), port: 4789, mtu: None }
}

fn master(dev: &str, master: Option<&str>) -> Step {
    Step::SetMaster { dev: name(dev), master: master.map(name) }
}

fn index(kernel: &mut Kernel, dev: &str) -> u32 {
    kernel.link(&name(dev)).unwrap().unwrap().index
}
