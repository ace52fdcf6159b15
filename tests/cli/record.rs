//! A hook's call, kept and planned again: elsewhere, by somebody who is not root, with the same steps.

use crate::common::sh;
use crate::host::{BIN, CONFIG, Host, Run, finish, snapshot, tap};
use crate::on_a_host;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, domain, guest, interface, network};
use std::process::Command;

const MAC: &str = "52:54:00:03:82:d8";
const SWITCH: &str = "/run/evpn-hook/record";
const SECRETS: &str = "<graphics type='vnc' passwd='sesame1'/><disk type='network'><auth username='a'><secret type='ceph' uuid='sesame2'/></auth></disk>";

fn xml() -> String {
    let interfaces = interface(MAC, "vnet0", "flat-l2") + SECRETS;
    domain(1, &guest(MAC, None, &["10.1.0.60", "fd00:1::60"]), &interfaces)
        .replace("</devices>", "</devices><secret>sesame3</secret>")
}

/// Somewhere else: no device, no config.toml, no state, and none of root's capabilities.
fn replay(path: &str) -> Run {
    let mut command = Command::new("unshare");
    command.args(["-n", "-m", "--propagation", "private", "--", "sh", "-c"]);
    command.arg(
        "mount -t tmpfs report /mnt && cp -r \"$0\" /mnt/report && mount --bind /mnt /run && \
         exec setpriv --bounding-set=-all --inh-caps=-all \"$1\" replay /run/report",
    );
    command.args([path, BIN]);
    finish(command, b"")
}

/// The steps that `-v` told of.
fn steps(run: &Run) -> String {
    let step = |line: &str| Some(line.strip_prefix("evpn-hook: ")?.rsplit_once("  [")?.0.to_owned() + "\n");
    run.stderr.lines().filter_map(step).collect()
}

/// What a replay would do, of the only call that is kept.
#[track_caller]
fn planned(run: &Run) -> String {
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{run:?}");
    run.stdout.split_once(": would do\n").unwrap_or_else(|| panic!("{run:?}")).1.to_owned()
}

on_a_host!(what_a_guests_hook_did_is_planned_again_elsewhere, {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2");
    for (op, words) in [("start", "ip neigh replace fd00:1::60"), ("stopped", "ip neigh del fd00:1::60")] {
        sh(&format!("rm -rf {SWITCH} && mkdir -m 700 {SWITCH}"));
        let run = host.hook(&["-v", "qemu", "vm1", op, "begin", "-"], xml());
        assert_eq!(run.status, 0, "{run:?}");
        let kept = sh(&format!("cat {SWITCH}/*-qemu_vm1_{op}_begin_-.json"));
        assert!(!kept.contains("sesame") && kept.contains("10.1.0.60"), "{kept}");
        assert_eq!(sh(&format!("stat -c %a {SWITCH}/*")), "600\n");
        let before = snapshot();
        let again = replay(SWITCH);
        assert_eq!(planned(&again), steps(&run), "{kept}");
        assert!(planned(&again).contains(words), "{again:?}");
        assert!(again.stdout.contains(&format!("qemu vm1 {op} begin -\nthen, evpn-hook ")), "{again:?}");
        assert!(again.stdout.contains(" µs: done\n"), "{again:?}");
        assert_eq!(snapshot(), before, "a replay changes nothing");
    }
});

on_a_host!(so_is_what_a_networks_hook_did_and_what_was_refused, {
    let host = Host::new(CONFIG);
    sh(LIBVIRTS_BRIDGE);
    let xml = network("lab", "<evpn:network vni='77'/>", LAB);
    let run = host.hook(&["-v", "--record", "/run/one", "network", "lab", "started", "begin", "-"], &xml);
    assert_eq!(run.status, 0, "{run:?}");
    let again = replay("/run/one");
    assert_eq!(planned(&again), steps(&run));
    assert!(planned(&again).contains("ip link add vxlan77 type vxlan id 77 local 10.0.0.1"), "{again:?}");
    // On a bridge that is not there.
    let wrong = domain(
        2,
        &guest(MAC, Some("flat"), &[]),
        &format!("<interface type='ethernet'><mac address='{MAC}'/><target dev='vnet9'/></interface>"),
    );
    let run = host.hook(&["--record", "/run/two", "qemu", "vm2", "start", "begin", "-"], wrong);
    assert_eq!(run.status, 1, "{run:?}");
    let again = replay("/run/two");
    let why = run.stderr.strip_prefix("evpn-hook: ").unwrap();
    assert!(again.stdout.contains(&format!(" µs: failed: {why}now, evpn-hook ")), "{again:?}");
    assert!(again.stdout.ends_with(&format!(": fails: {why}")), "{again:?}");
});

on_a_host!(so_is_what_lxc_called, {
    let host = Host::flat();
    tap("vethc1");
    sh(&format!("mkdir -m 700 {SWITCH}"));
    let mut command = host.command(&["-v", "lxc", "--network", "flat", "c1", "net", "up", "veth"]);
    command.env_clear().envs([
        ("LXC_NAME", "c1"),
        ("LXC_HOOK_VERSION", "1"),
        ("LXC_HOOK_SECTION", "net"),
        ("LXC_HOOK_TYPE", "up"),
    ]);
    command.envs([("LXC_NET_TYPE", "veth"), ("LXC_NET_PEER", "vethc1"), ("TOKEN", "sesame")]);
    let run = finish(command, b"");
    assert_eq!(run.status, 0, "{run:?}");
    let kept = sh(&format!("cat {SWITCH}/*"));
    assert!(kept.contains("environment LXC_NET_PEER") && !kept.contains("sesame"), "{kept}");
    let again = replay(SWITCH);
    assert_eq!(planned(&again), steps(&run));
    assert!(planned(&again).contains("ip link set vethc1 master flat-l2"));
});

on_a_host!(no_place_to_keep_it_stops_no_guest, {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2");
    let both = |switch: &str, why: &str| {
        sh(&format!("rm -rf {SWITCH}; {switch}"));
        host.hook(&["qemu", "vm1", "start", "begin", "-"], xml()).tells(&["nothing is recorded", SWITCH, why]);
        assert_eq!(host.status()["endpoints"][0]["state"], "registered");
        host.hook(&["qemu", "vm1", "stopped", "end", "-"], xml()).tells(&[why]);
        assert_eq!(host.status()["endpoints"], serde_json::json!([]));
    };
    sh("mkdir -m 700 /run/elsewhere && mkdir -m 777 /run/open");
    both("ln -s /run/elsewhere /run/evpn-hook/record", "symlink");
    both("mkdir -m 755 /run/evpn-hook/record", "chmod 700");
    both("touch /run/evpn-hook/record", "no directory");
    assert_eq!(sh("find /run/elsewhere -type f"), "");
    // Room for nothing.
    sh(&format!(
        "rm -rf {SWITCH}; mkdir -m 700 {SWITCH} && mount -t tmpfs -o size=4k,mode=700 full {SWITCH} && head -c 4096 /dev/zero >{SWITCH}/full"
    ));
    host.hook(&["qemu", "vm1", "start", "begin", "-"], xml()).tells(&["not recorded", "No space left on device"]);
    assert_eq!(host.status()["endpoints"][0]["state"], "registered");
    assert_eq!(sh(&format!("ls -A {SWITCH}")), "full\n");
    sh(&format!("umount {SWITCH} && rmdir {SWITCH}"));
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], xml()).ok();
});

on_a_host!(a_report_that_is_none_is_told_so, {
    let host = Host::new(CONFIG);
    sh("mkdir /run/empty && echo '{' >/run/half.json");
    for (path, why) in
        [("/run/nowhere", "No such file"), ("/run/empty", "no recorded call"), ("/run/half.json", "EOF while parsing")]
    {
        host.run(&["replay", path]).says(1, &[path, why, "give a file or directory that --record wrote"]);
    }
});
