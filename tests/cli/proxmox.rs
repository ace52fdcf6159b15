//! Proxmox VE's hookscript, called as Proxmox calls it: by a link in a storage's directory, with a number and a phase, and all else below /etc/pve.

use crate::agent::{Agent, until};
use crate::common::{ip_link, sh};
use crate::host::{BIN, Host, Run, fdb, finish, neighbours, snapshot, tap};
use crate::on_a_host;
use serde_json::json;
use std::process::Command;

const MAC: &str = "bc:24:11:2a:3b:4c";
const NET: &str = "virtio=BC:24:11:2A:3B:4C,bridge=flat-l2";

/// A node of a cluster with network flat, which has no VM yet.
fn node() -> Host {
    let host = Host::flat();
    sh(&format!(
        "mount -t tmpfs none /etc && mkdir -p /etc/evpn-hook /etc/pve/qemu-server /etc/pve/nodes/pve1/qemu-server /run/snippets &&
         cp /run/config.toml /etc/evpn-hook && ln -s {BIN} /run/snippets/evpn-hook"
    ));
    host
}

/// The VM's configuration, with net0 as it stands here.
fn configured(net0: &str) -> String {
    format!(
        "#VM%0Anet0%3A virtio=02:00:00:00:00:01,bridge=evil-l2\nboot: order=scsi0\ncipassword: sesame\nipconfig0: ip=10.1.0.60/24,gw=10.1.0.1,ip6=fd00:1::60/64
memory: 2048\nname: web\nnet0: {net0}\nnet1: e1000=BC:24:11:2A:3B:4D,bridge=vmbr0,firewall=1,tag=20\nscsi0: local-lvm:vm-100-disk-0,size=32G

[PENDING]\nnet0: virtio=BC:24:11:2A:3B:4C,bridge=other-l2

[before]\nname: old\nnet0: virtio=BC:24:11:2A:3B:4C,bridge=other-l2\nnet2: virtio=BC:24:11:2A:3B:4E,bridge=flat-l2\n"
    )
}

fn write(path: &str, text: impl AsRef<[u8]>) {
    std::fs::write(format!("/etc/pve/{path}/100.conf"), text).unwrap();
}

/// QEMU's script has run.
fn plug() {
    tap("tap100i0");
    sh("ip link set tap100i0 master flat-l2 mtu 1450 up");
}

fn call_with(words: [&str; 2], from: &str) -> Run {
    let mut command = Command::new("/run/snippets/evpn-hook");
    // Where a VM comes from no other node the variable is there, and empty.
    command.args(words).env("PVE_MIGRATED_FROM", from);
    let run = finish(command, b"");
    assert_eq!(run.stdout, "", "a hook writes nothing to stdout");
    run
}

fn call(phase: &str) -> Run {
    call_with(["100", phase], "")
}

/// A VM that runs, and is registered.
fn running() -> Host {
    let host = node();
    write("qemu-server", configured(NET));
    call("pre-start").ok();
    plug();
    call("post-start").ok();
    assert_eq!(fdb(), registered().0);
    host
}

fn registered() -> (String, String) {
    let neighbours = ["10.1.0.60", "fd00:1::60"].map(|ip| format!("neigh {ip} {MAC} dev flat-l2\n")).concat();
    (format!("fdb {MAC} dev tap100i0\n"), neighbours)
}

fn nothing() -> (String, String) {
    (String::new(), String::new())
}

fn state(host: &Host) -> String {
    host.status()["endpoints"][0]["state"].as_str().unwrap_or("none").to_owned()
}

on_a_host!(a_vm_starts_and_stops, {
    let host = node();
    write("qemu-server", configured(NET));
    let before = snapshot();
    call("pre-start").ok();
    assert_eq!(snapshot(), before);
    plug();
    call("post-start").ok();
    assert_eq!((fdb(), neighbours()), registered());
    let endpoint = &host.status()["endpoints"][0];
    assert_eq!(endpoint["guest"], json!({ "kind": "proxmox", "name": "web", "id": "100" }));
    assert_eq!((&endpoint["state"], &endpoint["device"]), (&json!("registered"), &json!("tap100i0")));
    let whole = snapshot();
    for again in ["post-start", "pre-stop", "post-backup"] {
        call(again).ok();
        assert_eq!(snapshot(), whole, "{again}");
    }
    sh("ip link del tap100i0 && rm /etc/pve/qemu-server/100.conf");
    call("post-stop").ok();
    assert_eq!((fdb(), neighbours()), nothing());
    assert_eq!(snapshot(), before);
});

on_a_host!(a_nic_that_cannot_be_on_a_network_keeps_its_vm_from_starting, {
    node();
    for (more, why) in [
        (",tag=20", "vm web: its net0 asks for a VLAN (tag=)"),
        (",trunks=2;3", "or remove trunks="),
        (",firewall=1", "fwbr100i0, between the VM and the network's: set firewall=0"),
    ] {
        write("qemu-server", configured(&format!("{NET}{more}")));
        let before = snapshot();
        call("pre-start").says(1, &[why]);
        assert_eq!(snapshot(), before);
        // On a bridge that is not ours it is not ours to judge.
        write("qemu-server", configured(&format!("virtio=BC:24:11:2A:3B:4C,bridge=vmbr0{more}")));
        for phase in ["pre-start", "post-start", "post-stop"] {
            call(phase).ok();
        }
        assert_eq!(snapshot(), before);
    }
});

// It runs by then: Proxmox shows what the script says, and goes on.
on_a_host!(what_cannot_be_registered_runs_on_and_is_told, {
    let host = node();
    write("qemu-server", configured(NET));
    let unregistered = "VM 100 runs, but is not registered before 'evpn-hook 100 post-start'";
    call("post-start").says(1, &["vm web: device tap100i0 is not there", unregistered]);
    tap("tap100i0");
    sh("ip link add fwbr100i0 type bridge && ip link set tap100i0 master fwbr100i0 up");
    let before = snapshot();
    call("post-start").says(1, &["tap100i0 is already on fwbr100i0, not on flat-l2", unregistered]);
    write("qemu-server", configured(&format!("{NET},firewall=1")));
    call("post-start").says(1, &["fwbr100i0", "set firewall=0", unregistered]);
    assert_eq!(snapshot(), before);
    write("qemu-server", configured(NET));
    sh("ip link set tap100i0 master flat-l2");
    host.hook(&["proxmox", "100", "post-start"], "").ok();
    assert_eq!((fdb(), neighbours()), registered());
    // A second NIC has come by `qm set`, which calls nobody.
    tap("tap100i2");
    sh("ip link set tap100i2 master flat-l2 mtu 1450 up");
    write("qemu-server", format!("net2: virtio=BC:24:11:2A:3B:4E,bridge=flat-l2\n{}", configured(NET)));
    call("post-start").ok();
    assert_eq!(fdb(), registered().0 + "fdb bc:24:11:2a:3b:4e dev tap100i2\n");
});

on_a_host!(what_an_earlier_run_left_goes_before_the_next, {
    running();
    sh("ip link del tap100i0");
    assert_eq!((fdb(), neighbours()), (String::new(), registered().1));
    call("pre-start").ok();
    assert_eq!((fdb(), neighbours()), nothing());
});

on_a_host!(a_vm_that_comes_from_another_node_is_registered_when_it_is_here, {
    let host = node();
    write("nodes/pve1/qemu-server", configured(NET));
    let before = snapshot();
    let from = |phase| call_with(["100", phase], "pve1");
    from("pre-start").ok();
    plug();
    from("post-start").ok();
    assert_eq!(((fdb(), neighbours()), state(&host).as_str()), (nothing(), "incoming"));
    // It failed.
    sh("ip link del tap100i0");
    from("post-stop").ok();
    assert_eq!(snapshot(), before);

    from("pre-start").ok();
    plug();
    from("post-start").ok();
    // The file goes first, then the VM is resumed, and QEMU announces its MAC; no agent runs.
    sh("mv /etc/pve/nodes/pve1/qemu-server/100.conf /etc/pve/qemu-server");
    sh(&format!("bridge fdb add {MAC} dev tap100i0 master dynamic"));
    until("the VM's entries", || (fdb(), neighbours()) == registered());
    until("its record", || state(&host) == "registered");
    sh("ip link del tap100i0");
    call("post-stop").ok();
    assert_eq!(snapshot(), before);
});

// From another cluster: its configuration is here, and the variable is not set.
on_a_host!(a_vm_that_is_locked_for_a_migration_is_on_its_way, {
    let host = node();
    write("qemu-server", format!("lock: migrate\n{}", configured(NET)));
    let agent = Agent::start();
    call("pre-start").ok();
    plug();
    call("post-start").ok();
    assert_eq!(((fdb(), neighbours()), state(&host).as_str()), (nothing(), "incoming"));
    write("qemu-server", configured(NET));
    sh(&format!("bridge fdb add {MAC} dev tap100i0 master dynamic"));
    until("the VM's entries", || (fdb(), neighbours()) == registered());
    // Whoever missed its arrival says so by hand.
    drop(agent);
    call("post-stop").ok();
    write("qemu-server", format!("lock: migrate\n{}", configured(NET)));
    call("post-start").ok();
    write("qemu-server", configured(NET));
    call("post-start").ok();
    assert_eq!(((fdb(), neighbours()), state(&host).as_str()), (registered(), "registered"));
    sh("ip link del tap100i0");
    call("post-stop").ok();
});

// No phase tells the source; the agent hears its tap go.
on_a_host!(a_vm_that_has_left_is_let_go_and_withdrawn_with_its_tap, {
    let host = running();
    let lose = || sh("ip neigh del 10.1.0.60 dev flat-l2");
    for (leave, back) in [
        ("sed -i '1i lock: migrate' /etc/pve/qemu-server/100.conf", "sed -i 1d /etc/pve/qemu-server/100.conf"),
        (
            "mv /etc/pve/qemu-server/100.conf /etc/pve/nodes/pve1",
            "mv /etc/pve/nodes/pve1/100.conf /etc/pve/qemu-server",
        ),
    ] {
        sh(leave);
        lose();
        assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n", "{leave}");
        sh(back);
        host.run(&["sync"]).ok();
        assert_eq!((fdb(), neighbours()), registered());
    }
    sh("mv /etc/pve/qemu-server/100.conf /etc/pve/nodes/pve1");
    let _agent = Agent::start();
    sh("ip link del tap100i0");
    until("nothing of it", || (fdb(), neighbours()) == nothing());
});

// `qm set 100 --net0 …` moves a tap, and calls nobody.
on_a_host!(a_tap_that_proxmox_moved_is_not_taken_back, {
    let host = running();
    sh("ip link set tap100i0 nomaster");
    host.run(&["sync"]).ok();
    assert_eq!((ip_link("tap100i0")["master"].clone(), (fdb(), neighbours())), (json!("flat-l2"), registered()));
    sh("ip link add fwbr100i0 type bridge && ip link set tap100i0 master fwbr100i0");
    // Not either where its network's bridge is made anew, and its guests are put back.
    sh("ip link del flat-l2");
    let up = host.run(&["network", "up", "flat"]);
    up.tells(&["vm web: device tap100i0 is already on fwbr100i0, not on flat-l2"]);
    assert_eq!(ip_link("tap100i0")["master"], "fwbr100i0");
    host.run(&["sync"]).ok();
    assert_eq!(ip_link("tap100i0")["master"], "fwbr100i0");
    assert_eq!(((fdb(), neighbours()), state(&host).as_str()), (nothing(), "none"));
});

on_a_host!(what_nobody_should_have_written_is_one_line_and_changes_nothing, {
    node();
    let before = snapshot();
    let file = "/etc/pve/qemu-server/100.conf";
    for phase in ["pre-start", "post-start"] {
        let status = i32::from(phase == "post-start");
        let says =
            |what: &str| call(phase).says(status, &["vm 100: cannot read /etc/pve/qemu-server/100.conf (", what]);
        says("No such file");
        sh(&format!("mkdir {file}"));
        says("Is a directory");
        sh(&format!("rmdir {file} && ln -s 100.conf {file}"));
        says("symbolic links");
        sh(&format!("rm {file}; head -c 2000000 /dev/zero >{file}"));
        says("it has over 1 MiB");
        sh(&format!("rm {file}"));
    }
    let net = format!("net0: {NET}\n");
    for text in [
        String::new(),
        "\0".repeat(1 << 20),
        "net0: virtio=BC:24:11:2A:3B:4C,bridge=a\n".repeat(20_000),
        "[".repeat(1 << 19) + "\n",
        format!("[x]\n{net}"),
        format!("net0: {}bridge=../../x\n", "virtio=BC:24:11:2A:3B:4C,".repeat(10_000)),
    ] {
        write("qemu-server", text);
        for phase in ["pre-start", "post-start", "post-stop"] {
            call(phase).ok();
        }
    }
    write("qemu-server", format!("name: {}\n{net}", "a".repeat(1 << 19)));
    call("pre-start").says(1, &["vm aaa", "over 255 bytes, or not printable: rename it"]);
    write("qemu-server", format!("name: a;reboot\n{net}"));
    tap("tap100i0");
    sh("ip link set tap100i0 master flat-l2 mtu 1450 up");
    call("post-start").says(1, &["vm a;reboot: its name has ';'"]);
    sh("ip link del tap100i0");
    for vmid in ["0", "1000000000", "18446744073709551716"] {
        call_with([vmid, "post-start"], "").says(0, &["VMID '", "' is not 1 to 999999999"]);
    }
    for node in ["../../run", "a/b", "pve1\n"] {
        call_with(["100", "pre-start"], node).says(0, &["PVE_MIGRATED_FROM '", "' is no node"]);
    }
    call_with(["../100", "post-start"], "").says(2, &["'../100'"]);
    assert_eq!(snapshot(), before);
});

on_a_host!(a_call_is_kept_without_the_secrets_of_its_vm, {
    let host = node();
    write("qemu-server", configured(NET));
    plug();
    host.hook(&["--record", "/run/kept", "proxmox", "100", "post-start"], "").ok();
    let kept = sh("cat /run/kept/*-proxmox_100_post-start.json");
    assert!(
        kept.contains("ipconfig0: ip=10.1.0.60/24") && !kept.contains("sesame") && !kept.contains("scsi0"),
        "{kept}"
    );
    let again = host.run(&["replay", "/run/kept"]).ok().stdout;
    assert!(again.contains("would do\nbridge fdb replace bc:24:11:2a:3b:4c dev tap100i0 master static\n"), "{again}");
    // One that comes from another node is wired there, too, and no more.
    sh("mv /etc/pve/qemu-server/100.conf /etc/pve/nodes/pve1/qemu-server/101.conf");
    sh("ip link add tap101i0 type veth && ip link set tap101i0 master flat-l2 up");
    let mut command = host.command(&["--record", "/run/moves", "proxmox", "101", "post-start"]);
    command.env("PVE_MIGRATED_FROM", "pve1");
    finish(command, b"").ok();
    let moves = host.run(&["replay", "/run/moves"]).ok().stdout;
    assert!(moves.contains("would do\nip link set tap101i0 mtu 1450\n") && !moves.contains("fdb"), "{moves}");
    host.hook(&["proxmox", "101", "post-stop"], "").ok();
});
