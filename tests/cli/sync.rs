//! `sync`: whatever was done to a host behind our back, afterwards it is as it should be, and nothing that is not ours was touched.

use crate::common::{json, sh};
use crate::host::{CONFIG, Host, fdb, finish, neighbours, snapshot, tap};
use crate::{on_a_host, xml};
use std::fs;
use std::process::Command;

const MAC: &str = "52:54:00:03:82:d8";

/// A guest attached by hand, beside things that are nobody's business.
fn attached() -> Host {
    let host = Host::flat();
    tap("vnet0");
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60", "--ip", "10.1.0.61"]);
    sh("ip neigh add 10.1.0.99 lladdr 52:54:00:00:00:99 dev flat-l2 nud permanent");
    sh("ip address add 192.0.2.1/32 dev flat-l2");
    sh("ip link add elsewhere address 02:00:00:00:00:77 type bridge && ip link set elsewhere up");
    tap("theirs");
    sh("ip link set theirs master flat-l2 up && bridge fdb add 52:54:00:00:00:98 dev theirs master static");
    host
}

#[track_caller]
fn mends(host: &Host, damage: &str, whole: &str) {
    sh(damage);
    assert_ne!(sorted(&snapshot()), sorted(whole), "{damage}: no damage");
    let damaged = snapshot();
    let planned = host.run(&["sync", "--dry-run"]).ok().stdout;
    assert_eq!(snapshot(), damaged, "{damage}: a dry run touched something");
    assert_ne!(planned, "nothing to do\n", "{damage}");
    host.run(&["sync"]).ok();
    assert_eq!(sorted(&snapshot()), sorted(whole), "{damage}, and then\n{planned}");
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n", "{damage}");
}

/// Devices that were made anew stand at another place, and a VXLAN device gets another MAC.
fn sorted(text: &str) -> Vec<String> {
    let without_mac = |line: &str| match line.split_once(" mac ") {
        Some((head, tail)) if head.starts_with("link \"vxlan20\"") => format!("{head}{}", &tail[19..]),
        _ => line.to_owned(),
    };
    let mut lines: Vec<String> = text.lines().map(without_mac).collect();
    lines.sort_unstable();
    lines
}

on_a_host!(drift_is_mended, {
    let host = attached();
    let whole = snapshot();
    for damage in [
        "ip neigh del 10.1.0.60 dev flat-l2",
        "ip neigh replace 10.1.0.60 lladdr 52:54:00:00:00:01 dev flat-l2 nud permanent",
        "bridge fdb del 52:54:00:03:82:d8 dev vnet0 master",
        "bridge fdb replace 52:54:00:03:82:d8 dev vxlan20 master extern_learn",
        "ip link set vnet0 nomaster",
        "ip link set vnet0 master elsewhere",
        "ip link set vnet0 down",
        "ip link set vnet0 mtu 1400",
        "ip link set vxlan20 down",
        "ip link set vxlan20 nomaster",
        "ip link del vxlan20",
        "ip link set flat-l2 mtu 1400",
        "ip address del 10.1.0.1/24 dev flat-l2",
    ] {
        mends(&host, damage, &whole);
    }
    // What the kernel shows elsewhere than in a snapshot.
    sh("bridge link set dev vxlan20 learning on neigh_suppress off; sysctl -qw net.ipv6.conf.flat-l2.accept_ra=1");
    host.run(&["sync"]).ok();
    let port = json("bridge -j -d link show dev vxlan20");
    assert_eq!((&port[0]["learning"], &port[0]["neigh_suppress"]), (&false.into(), &true.into()), "{port}");
    assert_eq!(sh("sysctl -n net.ipv6.conf.flat-l2.accept_ra"), "0\n");
    // A tunnel that ends elsewhere is made anew.
    sh(
        "ip link del vxlan20; ip link add vxlan20 type vxlan id 20 local 10.0.0.9 dstport 4790; ip link set vxlan20 master flat-l2 alias evpn-hook up",
    );
    host.run(&["sync"]).ok();
    let tunnel = &json("ip -j -d link show dev vxlan20")[0]["linkinfo"]["info_data"];
    assert_eq!((&tunnel["local"], &tunnel["port"]), (&"10.0.0.1".into(), &4789.into()), "{tunnel}");
});

on_a_host!(a_bridge_that_was_deleted_comes_back_with_its_guests, {
    let host = attached();
    sh("ip link del flat-l2");
    host.run(&["sync"]).ok();
    assert_eq!(fdb(), format!("fdb {MAC} dev vnet0\n"));
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\nneigh 10.1.0.61 {MAC} dev flat-l2\n"));
    assert_eq!(host.status()["endpoints"][0]["state"], "registered");
});

on_a_host!(ghosts_go_and_strangers_stay, {
    let host = attached();
    sh("ip link del vnet0");
    sh("ip neigh add 10.1.0.70 lladdr 52:54:00:00:00:70 dev flat-l2 nud permanent proto 69");
    sh("ip neigh add 10.9.0.70 lladdr 52:54:00:00:00:71 dev elsewhere nud permanent proto 69");
    host.run(&["sync"]).ok();
    assert_eq!(neighbours(), "neigh 10.1.0.99 52:54:00:00:00:99 dev flat-l2\n");
    assert!(fdb().contains("52:54:00:00:00:98 dev theirs"));
    assert_eq!(host.status()["endpoints"], serde_json::json!([]));
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
});

on_a_host!(a_lost_or_corrupt_state_is_made_anew, {
    let host = attached();
    let (whole, status) = (snapshot(), host.status());
    for damage in [
        "rm -r /run/evpn-hook",
        "echo garbage >/run/evpn-hook/networks/flat-l2.json",
        "echo garbage | tee /run/evpn-hook/guests/*.json",
        "for file in /run/evpn-hook/*/*.json; do : >$file; done",
    ] {
        sh(damage);
        host.run(&["sync"]);
        assert_eq!(host.status(), status, "{damage}");
        let devices =
            |text: &str| sorted(text).into_iter().filter(|l| !l.contains("/run/evpn-hook")).collect::<Vec<_>>();
        assert_eq!(devices(&snapshot()), devices(&whole), "{damage}");
        assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n", "{damage}");
    }
    // It is still known what is ours to take down; who put a port on its bridge is not.
    host.run(&["detach", "vnet0"]).ok();
    sh("ip link del theirs; ip link set vnet0 nomaster");
    host.run(&["network", "down", "flat"]).ok();
    assert!(!snapshot().contains("flat-l2") && !snapshot().contains("vxlan20"), "{}", snapshot());
});

on_a_host!(what_others_made_is_used_and_stays, {
    let host = Host::new(CONFIG);
    sh("ip link add vxlan20 type vxlan id 20 local 10.0.0.1 dstport 4789 nolearning");
    host.run(&["network", "up", "flat"]).ok();
    host.run(&["sync"]).ok();
    host.run(&["network", "down", "flat"]).ok();
    assert!(snapshot().contains("link \"vxlan20\"") && !snapshot().contains("flat-l2"), "{}", snapshot());
});

on_a_host!(devices_of_ours_that_nobody_wants_go, {
    let host = Host::flat();
    sh("rm -r /run/evpn-hook; sed -i 's/flat/flop/' /run/config.toml");
    host.run(&["sync"]).ok();
    assert!(!snapshot().contains("flat-l2") && !snapshot().contains("vxlan20"), "{}", snapshot());
});

// ----- libvirt's status files, as libvirt 9.0 writes them -----

/// A domain that runs, as its status file has it; on `flat`, and its tap.
fn domain(state: &str) {
    let text = crate::host::repository("tests/golden/status/vm1.xml");
    let (head, interfaces) = text.split_once("<interface type='network'>").unwrap();
    let (first, _) = interfaces.split_once("</interface>").unwrap();
    let (_, tail) = text.rsplit_once("</interface>").unwrap();
    let text = format!("{head}<interface type='network'>{first}</interface>{tail}");
    let text = text.replace("red-l2", "flat-l2").replace("state='running' reason='booted'", state);
    fs::create_dir_all("/run/libvirt/qemu").unwrap();
    fs::write("/run/libvirt/qemu/vm1.xml", text).unwrap();
}

const RUNS: &str = "state='running' reason='booted'";
const MOVES: &str = "state='paused' reason='migration'";

fn with_domain(state: &str) -> Host {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 up");
    domain(state);
    host.run(&["sync"]).ok();
    host
}

fn state(host: &Host) -> serde_json::Value {
    host.status()["endpoints"][0]["state"].clone()
}

on_a_host!(a_domain_that_runs_is_registered_and_one_that_does_not_is_withdrawn, {
    let host = with_domain(RUNS);
    assert_eq!(state(&host), "registered");
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
    fs::remove_file("/run/libvirt/qemu/vm1.xml").unwrap();
    // Its hooks may have been the last to write, and libvirt not yet; but not when its tap is gone, too.
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
    sh("ip link del vnet0");
    host.run(&["sync"]).ok();
    assert_eq!((neighbours().as_str(), host.status()["endpoints"].to_string().as_str()), ("", "[]"));
    assert_eq!(sh("ls /run/evpn-hook/guests"), "");
});

on_a_host!(a_domain_that_is_on_its_way_is_only_wired, {
    let host = with_domain(MOVES);
    assert_eq!((state(&host), neighbours().as_str()), ("incoming".into(), ""));
    domain("state='running' reason='migrated'");
    host.run(&["sync"]).ok();
    assert_eq!((state(&host), neighbours()), ("registered".into(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n")));
    // It leaves: what the speaker puts in the place of its entries stays.
    domain(MOVES);
    sh("bridge fdb replace 52:54:00:03:82:d8 dev vxlan20 master extern_learn; ip neigh del 10.1.0.60 dev flat-l2");
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
    // It did not leave after all.
    domain(RUNS);
    host.run(&["sync"]).ok();
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
});

on_a_host!(a_nic_that_changes_its_network, {
    let host = with_domain(RUNS);
    host.run(&["network", "up", "other"]).ok();
    sh("ip link set vnet0 master other-l2; sed -i 's/flat-l2/other-l2/' /run/libvirt/qemu/vm1.xml");
    host.run(&["sync"]).ok();
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev other-l2\n"));
    assert_eq!((fdb(), state(&host)), (format!("fdb {MAC} dev vnet0\n"), "registered".into()));
});

on_a_host!(a_status_file_that_says_nothing_withdraws_nothing, {
    let host = with_domain(RUNS);
    let whole = neighbours();
    let file = fs::read_to_string("/run/libvirt/qemu/vm1.xml").unwrap();
    let new = file.replace(RUNS, "state='hibernating'");
    for text in ["", "<domstatus", "<domain/>", &new] {
        fs::write("/run/libvirt/qemu/vm1.xml", text).unwrap();
        let run = host.run(&["sync"]);
        assert_eq!(neighbours(), whole, "{run:?}");
    }
});

on_a_host!(a_guest_outlives_its_network, {
    let host = with_domain(RUNS);
    sh("ip link del vxlan20; ip link del flat-l2; rm /run/evpn-hook/networks/* /run/evpn-hook/names/*");
    host.run(&["sync"]).ok();
    assert_eq!(host.status()["endpoints"][0]["device"], "vnet0", "it runs, and its network may come back");
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(
        (fdb(), neighbours()),
        (format!("fdb {MAC} dev vnet0\n"), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"))
    );
    assert_eq!(state(&host), "registered");
});

on_a_host!(what_cannot_be_made_anew_is_not_taken_down, {
    let host = attached();
    let whole = snapshot();
    sh("ip address del 10.0.0.1/32 dev lo; echo garbage >/run/evpn-hook/networks/flat-l2.json");
    let run = host.run(&["sync"]);
    assert!(run.status == 1 && run.stderr.contains("no VTEP address"), "{run:?}");
    assert!(snapshot().contains("link \"vxlan20\" master \"flat-l2\""), "{}", snapshot());
    assert_eq!(
        neighbours(),
        whole.lines().filter(|l| l.starts_with("neigh")).map(|l| format!("{l}\n")).collect::<String>()
    );
    sh("ip address add 10.0.0.1/32 dev lo");
    host.run(&["sync"]);
    assert_eq!(sorted(&snapshot()), sorted(&whole));
});

on_a_host!(a_link_local_gateway_is_seen_to_be_there, {
    let host = Host::new(&CONFIG.replace("[\"10.1.0.1/24\"]", "[\"10.1.0.1/24\", \"fe80::1/64\"]"));
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(host.run(&["network", "up", "flat", "--dry-run"]).ok().stdout, "nothing to do\n");
});

on_a_host!(a_guest_that_is_announced_stays_so, {
    let host = Host::flat();
    let xml = xml::domain(1, &xml::guest(MAC, None, &["10.1.0.60"]), &xml::interface(MAC, "vnet0", "flat-l2"));
    host.hook(&["qemu", "vm1", "migrate", "begin", "-"], &xml).ok();
    fs::create_dir_all("/run/libvirt/qemu").unwrap();
    host.run(&["sync"]).ok();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 up");
    host.hook(&["qemu", "vm1", "start", "begin", "-"], &xml).ok();
    assert_eq!((state(&host), neighbours().as_str()), ("incoming".into(), ""));
});

// An offline migration calls `migrate` and no more. What starts an hour after it starts here, cold; if it was an arrival all the same, `started` finds out.
on_a_host!(an_announcement_counts_for_an_hour, {
    let host = Host::flat();
    let xml = xml::domain(1, &xml::guest(MAC, None, &["10.1.0.60"]), &xml::interface(MAC, "vnet0", "flat-l2"));
    let announce = |seconds_ago: u32| {
        host.hook(&["qemu", "vm1", "migrate", "begin", "-"], &xml).ok();
        // The same boot, later (time_namespaces(7)).
        let start = host.command(&["qemu", "vm1", "start", "begin", "-"]);
        let mut later = Command::new("unshare");
        later.args(["--time", "--boottime", &seconds_ago.to_string()]).arg(start.get_program()).args(start.get_args());
        finish(later, xml.as_bytes()).ok();
    };
    fs::create_dir_all("/run/libvirt/qemu").unwrap();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 up");
    let registered = format!("neigh 10.1.0.60 {MAC} dev flat-l2\n");
    announce(3500);
    assert_eq!((state(&host), neighbours().as_str()), ("incoming".into(), ""));
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], &xml).ok();
    announce(3700);
    assert_eq!((state(&host), neighbours().as_str()), ("registered".into(), registered.as_str()));
    domain(MOVES);
    host.hook(&["qemu", "vm1", "started", "begin", "-"], &xml).ok();
    assert_eq!((state(&host), neighbours().as_str()), ("incoming".into(), ""));
    domain(RUNS);
    host.run(&["sync"]).ok();
    assert_eq!((state(&host), neighbours().as_str()), ("registered".into(), registered.as_str()));
});
