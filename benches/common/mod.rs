//! What the benchmarks share: namespaces of their own, and the program under measure.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

const INSIDE: &str = "EVPN_BENCH_INSIDE";

/// Runs the benchmark itself again in fresh network and mount namespaces; returns only in there, with the release binary.
pub fn inside() -> PathBuf {
    if std::env::var_os(INSIDE).is_none() {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--"]).arg(std::env::current_exe().unwrap()).env(INSIDE, "1");
        panic!("unshare (util-linux): {}", command.exec());
    }
    std::env::var_os("EVPN_HOOK").map(PathBuf::from).expect("EVPN_HOOK names the release binary (make bench)")
}
