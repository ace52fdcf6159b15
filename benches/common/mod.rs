//! What the benchmarks share: namespaces of their own, the program under measure, and one way to run, to sum up and to show.
// Each benchmark is a program of its own and uses its part of this.
#![allow(dead_code)]
#![allow(unsafe_code)] // system calls that no crate has

pub mod count;
pub mod crowd;
pub mod figures;
pub mod journald;
pub mod machine;
pub mod plot;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const INSIDE: &str = "EVPN_BENCH_INSIDE";

/// Runs the benchmark itself again in fresh namespaces with a /run of its own; returns only in there, with the release binary. However it ends, all that
/// it has started ends with the PID namespace. The shell is that one's first process, which would not hear of Ctrl-C.
pub fn inside() -> PathBuf {
    if !is_inside() {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1");
        panic!("unshare (util-linux): {}", command.exec());
    }
    prepare();
    let hook = std::env::var_os("EVPN_HOOK").expect("EVPN_HOOK names the release binary (make bench)");
    Path::new(&hook).canonicalize().expect("EVPN_HOOK")
}

/// Is this the run inside?
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Does this kernel have VRF devices?
pub fn has_vrf() -> bool {
    let probe = "ip link add probe type vrf table 99";
    Command::new("unshare").args(["--net", "sh", "-c", probe]).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Runs the benchmark in the lab's second kernel, which has VRFs and takes many times as long for the start of any process; what it leaves there is
/// taken to where all results are.
pub fn in_the_lab(lab: &str, seconds: u32, results: &[&str]) {
    let done = Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .arg(project().join("tests/lab/run"))
        .args(["--name", lab, "--timeout", &seconds.to_string(), "--"])
        .arg(std::env::current_exe().unwrap())
        .status();
    assert!(done.expect("tests/lab/run").success(), "the lab machine (above)");
    for name in results {
        figures::keep(name, &std::fs::read_to_string(project().join(format!("target/lab/out-{lab}/{name}"))).unwrap());
    }
}

/// Is this the run in there?
pub fn is_in_the_lab() -> bool {
    std::env::var_os("EVPN_LAB").is_some()
}

fn prepare() {
    sh("mount -t tmpfs tmpfs /run && ip link set lo up && ip address add 10.0.0.1/32 dev lo");
}

/// Gives this thread, and what it starts, network and mount namespaces of their own as [`inside`] does.
pub fn own_namespaces() {
    // SAFETY: it takes no pointer, and changes nothing but where this thread is.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
    assert_eq!(done, 0, "unshare: {}", std::io::Error::last_os_error());
    prepare();
}

pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A shell's line, which must succeed; its output.
pub fn sh(line: &str) -> String {
    must(Command::new("sh").args(["-c", line]))
}

/// A command that must succeed; its output.
pub fn must(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// The lines of a batch for `ip` or `bridge`.
pub fn batch(program: &str, lines: &str) {
    std::fs::write("/run/batch", lines).unwrap();
    must(Command::new(program).args(["-batch", "/run/batch"]));
}
