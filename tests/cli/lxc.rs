//! What LXC calls: words that cannot be trusted, everything in the environment.

use crate::common::sh;
use crate::host::{Host, fdb, neighbours, snapshot, tap};
use crate::on_a_host;
use crate::xml::{self, LAB, LIBVIRTS_BRIDGE};
use serde_json::json;
use std::process::{Child, Command, Stdio};

pub fn call(host: &Host, network: Option<&str>, env: &[(&str, &str)]) -> crate::host::Run {
    let mut command = host.command(&["lxc"]);
    if let Some(network) = network {
        command.args(["--network", network]);
    }
    command.args(["c1", "net", "up", "veth"]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs([("LXC_NAME", "c1"), ("LXC_HOOK_VERSION", "1")]).envs(env.iter().copied());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.stdout.is_empty(), "a hook writes nothing to stdout");
    let stderr = String::from_utf8(output.stderr).unwrap();
    crate::host::Run { status: output.status.code().unwrap(), stdout: String::new(), stderr }
}

pub const UP: [(&str, &str); 4] =
    [("LXC_HOOK_SECTION", "net"), ("LXC_HOOK_TYPE", "up"), ("LXC_NET_TYPE", "veth"), ("LXC_NET_PEER", "vethc1")];

on_a_host!(a_veth_without_a_link_is_enslaved_and_released, {
    let host = Host::flat();
    tap("vethc1");
    call(&host, Some("flat"), &UP).ok();
    let seen = snapshot();
    assert!(seen.contains("link \"vethc1\" master \"flat-l2\""), "{seen}");
    assert_eq!(fdb(), "", "its MAC is not known yet");
    let end = |section, hook| {
        [("LXC_HOOK_SECTION", section), ("LXC_HOOK_TYPE", hook), ("LXC_NET_TYPE", "veth"), ("LXC_NET_PEER", "vethc1")]
    };
    call(&host, None, &end("net", "down")).ok();
    call(&host, None, &end("lxc", "stop")).ok();
    call(&host, None, &end("lxc", "post-stop")).ok();
    let after = snapshot();
    assert!(after.contains("link \"vethc1\" master null") && !after.contains("c1.json"), "{after}");
});

on_a_host!(a_start_may_be_refused_and_a_stop_not, {
    let host = Host::flat();
    let before = snapshot();
    call(&host, Some("nope"), &UP).says(1, &["container c1: network nope of device vethc1 is not up"]);
    call(&host, Some("flat"), &UP).says(1, &["container c1: device vethc1 is not there"]);
    call(&host, Some("flat"), &[&UP[..], &[("LXC_HOOK_VERSION", "0")]].concat()).says(1, &["set lxc.hook.version = 1"]);
    let odd = [&UP[..3], &[("LXC_NET_PEER", "../x")]].concat();
    call(&host, Some("flat"), &odd).says(1, &["LXC_NET_PEER: device name '../x'"]);
    let start = |pid| [("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", "start-host"), ("LXC_PID", pid)];
    call(&host, None, &start("4194999")).says(1, &["cannot open network namespace /proc/4194999/ns/net"]);
    call(&host, None, &start("x")).says(1, &["container c1: LXC_PID 'x' is no process id"]);
    let odd =
        [("LXC_HOOK_SECTION", "net"), ("LXC_HOOK_TYPE", "down"), ("LXC_NET_TYPE", "veth"), ("LXC_NET_PEER", "a/b")];
    call(&host, None, &odd).says(0, &["LXC_NET_PEER: device name 'a/b'"]);
    sh("mkdir -p /run/evpn-hook/guests && echo { >/run/evpn-hook/guests/lxc-c1.json");
    for hook in ["stop", "post-stop"] {
        call(&host, None, &[("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", hook)])
            .says(0, &["lxc-c1.json is corrupt ("]);
    }
    sh("rm -r /run/evpn-hook/guests");
    assert_eq!(snapshot(), before);
});

/// A process in a network namespace of its own, as LXC leaves a container's at start-host.
struct Inside(Child);

impl Inside {
    /// With a veth whose host end is on flat's bridge.
    fn new(veth: &str, mac: &str, ip: &str) -> Inside {
        let mut command = Command::new("unshare");
        let child = command.args(["-n", "sh", "-c", "echo; exec sleep 60"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut inside = Inside(child);
        std::io::Read::read_exact(inside.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let pid = inside.0.id();
        sh(&format!(
            "ip link add {veth} type veth peer name eth0 netns {pid} && ip link set {veth} master flat-l2 up &&
             nsenter -t {pid} -n sh -c 'ip link set eth0 address {mac} up && ip address add {ip}/24 dev eth0'"
        ));
        inside
    }

    fn start(&self, host: &Host) {
        self.starts(host, &[]).ok();
    }

    fn starts(&self, host: &Host, env: &[(&str, &str)]) -> crate::host::Run {
        let pid = self.0.id().to_string();
        let start = [("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", "start-host"), ("LXC_PID", &*pid)];
        call(host, None, &[&start[..], env].concat())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

// Its own address by a router advertisement may come before LXC tells of the start, and is not all that it will have.
on_a_host!(what_a_network_lends_a_container_hides_no_dhcp_host, {
    let host = Host::flat();
    sh(LIBVIRTS_BRIDGE);
    let description = "<evpn:network vni='40'/>";
    host.hook(&["network", "lab", "started", "begin", "-"], xml::network("lab", description, LAB)).ok();
    let mac = "52:54:00:03:82:d8";
    let inside = Inside::new("vethc1", mac, "10.1.0.38");
    sh("ip link set vethc1 master lab-l2");
    let neighbour = |ip: &str| format!("neigh {ip} {mac} dev lab-l2\n");
    inside.start(&host);
    assert_eq!(neighbours(), neighbour("10.1.0.38"), "a static address is its owner's word");
    let pid = inside.0.id();
    sh(&format!("nsenter -t {pid} -n ip address change 10.1.0.38/24 dev eth0 valid_lft 3600 preferred_lft 3600"));
    inside.start(&host);
    assert_eq!(neighbours(), neighbour("10.1.0.38") + &neighbour("10.1.0.60"));
});

// Killed monitors call no hook: the veth goes, the neighbour and the record stay.
on_a_host!(a_container_that_died_without_a_hook_comes_back, {
    let host = Host::flat();
    let (mac, ip) = ("00:16:3e:00:00:39", "10.1.0.39");
    Inside::new("vethold", mac, ip).start(&host);
    sh("ip link show vethold >/dev/null 2>&1 && ip link del vethold || true");
    let known = format!("neigh {ip} {mac} dev flat-l2\n");
    assert_eq!((fdb(), neighbours()), (String::new(), known.clone()));
    let again = Inside::new("vethnew", mac, ip);
    again.start(&host);
    assert_eq!((fdb(), neighbours()), (format!("fdb {mac} dev vethnew\n"), known));
    // With another address, the old one is a ghost.
    sh("ip link del vethnew");
    drop(again);
    let last = Inside::new("vethlast", mac, "10.1.0.40");
    last.start(&host);
    assert_eq!(neighbours(), format!("neigh 10.1.0.40 {mac} dev flat-l2\n"));
});

fn stop(host: &Host, env: &[(&str, &str)]) {
    for hook in ["stop", "post-stop"] {
        call(host, None, &[&[("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", hook)], env].concat()).ok();
    }
}

// `lxc-start web` and `lxc-start -P /srv/lxc web`.
on_a_host!(two_containers_of_one_name_in_two_directories_are_two, {
    let host = Host::flat();
    let ours = [("LXC_NAME", "web"), ("LXC_CONFIG_FILE", "/var/lib/lxc/web/config")];
    let theirs = [("LXC_NAME", "web"), ("LXC_CONFIG_FILE", "/srv/lxc/web/config")];
    let (mac1, mac2) = ("00:16:3e:00:00:51", "00:16:3e:00:00:52");
    let one = Inside::new("vethone", mac1, "10.1.0.51");
    let two = Inside::new("vethtwo", mac2, "10.1.0.52");
    one.starts(&host, &ours).ok();
    two.starts(&host, &theirs).ok();
    let first = format!("neigh 10.1.0.51 {mac1} dev flat-l2\n");
    assert_eq!(neighbours(), format!("{first}neigh 10.1.0.52 {mac2} dev flat-l2\n"));
    let ids: Vec<_> = host.status()["endpoints"].as_array().unwrap().iter().map(|e| e["guest"].clone()).collect();
    assert_eq!(
        ids,
        [("web", "/srv/lxc/web"), ("web", "web")].map(|(name, id)| json!({ "kind": "lxc", "name": name, "id": id }))
    );
    stop(&host, &theirs);
    assert_eq!((fdb(), neighbours()), (format!("fdb {mac1} dev vethone\n"), first));
    stop(&host, &ours);
    assert_eq!((fdb(), neighbours()), (String::new(), String::new()));
});

// `lxc.namespace.share.net = c1`: LXC calls c2's hooks with c1's namespace.
on_a_host!(a_container_that_shares_anothers_namespace_takes_nothing_of_it, {
    let host = Host::flat();
    let mac = "00:16:3e:00:00:53";
    let one = Inside::new("vethone", mac, "10.1.0.53");
    one.start(&host);
    let before = snapshot();
    let second = [("LXC_NAME", "c2")];
    one.starts(&host, &second).ok();
    assert_eq!(snapshot(), before, "it is c1's");
    stop(&host, &second);
    assert_eq!(snapshot(), before);
    // Its own start again is no other's.
    one.start(&host);
    assert_eq!(snapshot(), before);
    stop(&host, &[]);
    assert_eq!((fdb(), neighbours()), (String::new(), String::new()));
});

// The kernel takes more names than evpn-hook does.
on_a_host!(a_host_end_of_an_odd_name_is_refused_on_a_bridge_of_ours_and_there_alone, {
    let host = Host::flat();
    let inside = Inside::new("vethok", "00:16:3e:00:00:54", "10.1.0.54");
    sh("ip link set vethok name 'c~1'");
    let before = snapshot();
    inside
        .starts(&host, &[])
        .says(1, &["container c1: its device on this host is called 'c~1'", "lxc.net.N.veth.pair"]);
    assert_eq!(snapshot(), before);
    sh("ip link add br9 type bridge && ip link set 'c~1' master br9");
    inside.starts(&host, &[]).ok();
    inside.starts(&host, &[("LXC_NAME", "a\nb")]).ok();
    sh("ip link set 'c~1' name vethok && ip link set vethok master flat-l2");
    inside.starts(&host, &[("LXC_NAME", "a\nb")]).says(1, &["not printable: rename it"]);
});
