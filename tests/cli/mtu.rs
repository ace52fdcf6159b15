//! A container's own end of a veth has no larger MTU than its network: what is larger the bridge drops, and tells nobody.

use crate::common::{ip_link, json, sh};
use crate::host::Host;
use crate::on_a_host;

const MAC: &str = "00:16:3e:00:00:39";

/// A process in a network namespace of its own, with one end of a veth.
fn a_namespace(veth: &str) -> crate::guests::Sleeper {
    let sleeper = crate::guests::Sleeper::start();
    let pid = sleeper.0.id();
    sh(&format!("ip link add {veth} type veth peer name eth0 address {MAC} netns {pid}"));
    sleeper
}

fn inner_mtu(pid: u32) -> u64 {
    json(&format!("nsenter -t {pid} -n ip -j link show dev eth0"))[0]["mtu"].as_u64().unwrap()
}

on_a_host!(a_container_by_hand_is_told_the_mtu_and_only_less, {
    let host = Host::flat();
    let sleeper = a_namespace("c1");
    let pid = sleeper.0.id();
    let place = pid.to_string();
    let attach = ["attach", "c1", "--network", "flat", "--netns", &place];
    let plan = host.run(&[&attach[..], &["--dry-run"]].concat()).ok().stdout;
    let command = format!("nsenter --net=/proc/{pid}/ns/net ip link set eth0 mtu 1450\n");
    assert!(plan.ends_with(&command), "{plan}");
    assert_eq!(inner_mtu(pid), 1500, "a dry run changes nothing");
    host.run(&attach).ok();
    assert_eq!(inner_mtu(pid), 1450);
    host.run(&["detach", "c1"]).ok();
    sh(&format!("nsenter -t {pid} -n ip link set eth0 mtu 1400"));
    host.run(&attach).ok();
    assert_eq!(inner_mtu(pid), 1400, "somebody wanted it small");
});

on_a_host!(a_container_that_lxc_gave_no_link_is_told_the_mtu, {
    let host = Host::flat();
    let sleeper = a_namespace("vethc1");
    let pid = sleeper.0.id();
    crate::lxc::call(&host, Some("flat"), &crate::lxc::UP).ok();
    assert_eq!(ip_link("vethc1")["mtu"], 1450);
    let id = pid.to_string();
    let start = [("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", "start-host"), ("LXC_PID", &*id)];
    crate::lxc::call(&host, None, &start).ok();
    assert_eq!(inner_mtu(pid), 1450);
});

on_a_host!(a_container_on_a_bridge_of_others_keeps_its_mtu, {
    let host = Host::flat();
    let sleeper = a_namespace("vethc1");
    let pid = sleeper.0.id();
    sh("ip link add br0 mtu 1300 type bridge && ip link set vethc1 mtu 1300 master br0 up && ip link set br0 mtu 1300");
    let id = pid.to_string();
    let start = [("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", "start-host"), ("LXC_PID", &*id)];
    crate::lxc::call(&host, None, &start).ok();
    assert_eq!((inner_mtu(pid), ip_link("br0")["mtu"].as_u64()), (1500, Some(1300)));
});
