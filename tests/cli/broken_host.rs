//! The host itself is in the way: no privilege, no VRF, a state directory that cannot be written or read.

use crate::common::{has_vrf, sh, skip};
use crate::host::{BIN, Host, Run, snapshot, tap};
use crate::on_a_host;
use std::process::Command;

const MAC: &str = "52:54:00:03:82:d8";
const ATTACH: [&str; 8] = ["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60"];

/// The program with these words, behind `setpriv` with these.
fn unprivileged(setpriv: &[&str], args: &[&str]) -> Run {
    let output =
        Command::new("setpriv").args(setpriv).args([BIN, "--config", "/run/config.toml"]).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { status: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

on_a_host!(nobody_may_change_nothing, {
    let _host = Host::flat();
    tap("vnet0");
    let before = snapshot();
    // The binary lies where the builder put it, perhaps below a directory that only root enters: read and search it may.
    let nobody: Vec<&str> = "--reuid 65534 --regid 65534 --clear-groups --inh-caps=-all".split(' ').collect();
    let seen = unprivileged(&nobody, &["--version"]);
    if seen.status == 0 {
        for args in [&ATTACH[..], &["network", "up", "flat"], &["network", "down", "flat"], &["detach", "vnet0"]] {
            unprivileged(&nobody, args).says(1, &["/run/evpn-hook", "Permission denied", "run as root"]);
        }
        unprivileged(&nobody, &["network", "up", "other"]).says(1, &["Permission denied", "run as root"]);
    } else {
        skip("nobody_may_change_nothing", "user nobody cannot reach the program");
    }
    // Root without capabilities, as in a confined hook: the state can be written, the kernel not be changed.
    let powerless = ["--bounding-set=-all", "--inh-caps=-all"];
    let parts = &["ip link set vnet0 master flat-l2: Operation not permitted", "run as root"];
    unprivileged(&powerless, &ATTACH).says(1, parts);
    let parts = &["ip link add other-l2", "Operation not permitted", "run as root"];
    unprivileged(&powerless, &["network", "up", "other"]).says(1, parts);
    assert_eq!(snapshot(), before);
});

on_a_host!(a_kernel_without_vrf, {
    let host = Host::new(crate::host::CONFIG);
    if has_vrf() {
        // Not skip(): the lab's kernel has VRFs, and there this is what must be missing.
        println!("\nSKIP a_kernel_without_vrf: this kernel has VRFs");
        return;
    }
    let parts = &[
        "ip link add red type vrf table 10: Operation not supported",
        "this kernel has no VRF (CONFIG_NET_VRF, module vrf)",
    ];
    host.refuses(&["network", "up", "routed"], 1, parts);
    host.refuses(&["network", "up", "routed"], 1, parts);
});

on_a_host!(a_state_directory_that_is_read_only, {
    let host = Host::flat();
    tap("vnet0");
    sh("mount --bind /run/evpn-hook /run/evpn-hook && mount -o remount,bind,ro /run/evpn-hook");
    let parts =
        &["/run/evpn-hook/guests", "Read-only file system", "check that the directory is writable and not full"];
    host.refuses(&ATTACH, 1, parts);
    host.refuses(&["network", "up", "other"], 1, &["/run/evpn-hook/networks/other-l2.lock", "Read-only file system"]);
    // Of one that is up nothing is to be written.
    host.run(&["network", "up", "flat"]).ok();
    host.refuses(&["network", "down", "flat"], 1, &["cannot write to /run/evpn-hook: Read-only file system"]);
});

on_a_host!(a_state_directory_that_is_full, {
    let host = Host::new(crate::host::CONFIG);
    std::fs::create_dir("/run/evpn-hook").unwrap();
    sh("mount -t tmpfs -o nr_inodes=6 full /run/evpn-hook && mkdir -p /run/evpn-hook/names /run/evpn-hook/networks");
    sh("touch /run/evpn-hook/1 /run/evpn-hook/2 /run/evpn-hook/3");
    host.refuses(&["network", "up", "flat"], 1, &["No space left on device", "not full"]);
});

on_a_host!(a_state_directory_that_is_a_file, {
    let host = Host::new(crate::host::CONFIG);
    std::fs::write("/run/evpn-hook", "").unwrap();
    host.refuses(&["network", "up", "flat"], 1, &["/run/evpn-hook/", "Not a directory"]);
});

on_a_host!(state_files_that_are_corrupt, {
    let host = Host::flat();
    tap("vnet0");
    let run = host.run(&ATTACH);
    assert_eq!(run.status, 0, "{run:?}");
    let guest = "/run/evpn-hook/guests/manual-vnet0.json";
    let network = "/run/evpn-hook/networks/flat-l2.json";
    for rubbish in ["", "{", "[]", "{\"guest\":7}", "\0\u{1}\u{2}"] {
        let whole = std::fs::read(guest).unwrap();
        std::fs::write(guest, rubbish).unwrap();
        let parts = &[guest, "is corrupt (", "'evpn-hook sync' makes it anew"];
        host.refuses(&ATTACH, 1, parts);
        host.refuses(&["detach", "vnet0"], 1, parts);
        host.refuses(&["status"], 1, parts);
        std::fs::write(guest, whole).unwrap();

        let whole = std::fs::read(network).unwrap();
        std::fs::write(network, rubbish).unwrap();
        let parts = &[network, "is corrupt (", "'evpn-hook sync' makes it anew"];
        host.refuses(&["status"], 1, parts);
        host.refuses(&["network", "up", "flat"], 1, parts);
        for args in [&ATTACH[..], &["network", "down", "flat"]] {
            host.refuses(args, 1, &["is corrupt (", "'evpn-hook sync' makes it anew"]);
        }
        std::fs::write(network, whole).unwrap();
    }
    // As the message says: removed, and up again.
    std::fs::write(network, "{").unwrap();
    std::fs::remove_file(network).unwrap();
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(host.status()["networks"][0]["state"], "up");
});
