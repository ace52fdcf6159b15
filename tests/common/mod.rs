//! What the tests on a real kernel share: a namespace of their own, iproute2 to look with, and skips that are seen.
//!
//! What the running kernel lacks is told in a line `SKIP test: why`; with EVPN_LAB=1 (a kernel that has everything) it is a failure.
// The first is explained where it is done; the second, because libtest captures what println! prints and not what skip() must tell.
#![allow(clippy::explicit_write, clippy::print_stdout)]

use std::io::Write;
use std::process::Command;

const INSIDE: &str = "EVPN_TEST_INSIDE";

/// The command that runs one test of this binary again, behind a prefix such as `unshare -n --`.
pub fn again(name: &str, prefix: &[&str]) -> Command {
    let mut command = Command::new(prefix[0]);
    command.args(&prefix[1..]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE, name);
    command
}

/// Runs a test's body in namespaces of its own: the test binary runs itself once more under unshare(1).
pub fn isolated(name: &str, prefix: &[&str], body: impl FnOnce()) {
    if std::env::var(INSIDE).as_deref() == Ok(name) {
        return body();
    }
    if !rustix::process::geteuid().is_root() {
        return tell(&format!("SKIP {name}: not root"));
    }
    let output = again(name, prefix).output().expect("unshare(1) from util-linux");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| line.starts_with("SKIP")).for_each(tell);
    assert!(output.status.success() && text.contains("1 passed"), "in its namespace:\n{text}");
}

/// A test's name as libtest knows it: its module's path without the crate, and its own.
pub fn test_name(path: &str) -> &str {
    path.split_once("::").unwrap().1
}

/// Past libtest's capture, or a skipped test would look like a passed one.
fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

/// Says what this kernel cannot show. In the lab nothing may be missing.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var("EVPN_LAB").as_deref() != Ok("1"), "{test} must run in the lab: {why}");
    println!("\nSKIP {test}: {why}");
}

/// Runs a command line and returns its output; fails with its words.
pub fn sh(line: &str) -> String {
    let (ok, text) = try_sh(line);
    assert!(ok, "{line}: {text}");
    text
}

pub fn try_sh(line: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

/// The JSON of an iproute2 command.
pub fn json(line: &str) -> serde_json::Value {
    // A list that changed while it was read (NLM_F_DUMP_INTR) may lack what was there all the time.
    let whole = |text: &String| !text.contains("Dump was interrupted");
    let text = std::iter::repeat_with(|| sh(line)).take(100).find(whole).expect("a list that holds still");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

/// `ip -j -d link show DEV`, the one object of it.
pub fn ip_link(dev: &str) -> serde_json::Value {
    json(&format!("ip -j -d link show dev {dev}"))[0].clone()
}

pub fn has_vrf() -> bool {
    let has = try_sh("ip link add probe type vrf table 4242").0;
    has && try_sh("ip link del probe").0
}

pub fn has_vlan_filtering() -> bool {
    sh("ip link add probe type bridge");
    let has = !ip_link("probe")["linkinfo"]["info_data"]["vlan_default_pvid"].is_null();
    sh("ip link del probe");
    has
}
