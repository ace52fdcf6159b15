//! Before all is there: what starts without the VTEP's address is whole but for its tunnels, and completed when the address comes; and which devices say
//! what a tenant's packets may be long.

use crate::agent::{Agent, until};
use crate::common::{ip_link, sh};
use crate::host::{CONFIG, Host, Run, neighbours, snapshot, tap};
use crate::on_a_host;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, network};

const NO_VTEP: &str =
    "no VTEP address: lo has no global address: 'ip address add 10.0.0.1/32 dev lo', or set [vtep] address";

fn take_vtep() {
    sh("ip address del 10.0.0.1/32 dev lo");
}

fn give_vtep() {
    sh("ip address add 10.0.0.1/32 dev lo");
}

fn is_there(dev: &str) -> bool {
    snapshot().contains(&format!("link \"{dev}\""))
}

fn flat(host: &Host) -> serde_json::Value {
    host.status()["networks"][0].clone()
}

impl Run {
    /// Done, with a warning of one line.
    #[track_caller]
    fn warns(self, words: &str) {
        assert_eq!((self.status, self.stderr.lines().count()), (0, 1), "{self:?}");
        assert!(self.stderr.contains(words), "{self:?}");
    }
}

on_a_host!(a_network_without_a_vtep_address_is_up_but_for_its_tunnels, {
    let host = Host::new(CONFIG);
    take_vtep();
    host.run(&["network", "up", "flat"]).warns(&format!("network flat: {NO_VTEP}"));
    let now = snapshot();
    assert!(now.contains("address \"flat-l2\" \"10.1.0.1\" 24") && !now.contains("vxlan"), "{now}");
    assert_eq!(
        (flat(&host)["state"].clone(), flat(&host)["vtep"].clone()),
        ("degraded".into(), serde_json::Value::Null)
    );
    assert!(flat(&host)["problems"][0].as_str().unwrap().starts_with(NO_VTEP), "{}", flat(&host));
    assert_eq!(host.run(&["status", "--check"]).status, 3);
    let said = host.run(&["doctor"]);
    assert!(said.status == 3 && said.stdout.contains("problem: vtep-address: the VTEP: no VTEP address"), "{said:?}");
    tap("tap0");
    host.run(&["attach", "tap0", "--network", "flat", "--mac", "52:54:00:03:82:d8", "--ip", "10.1.0.60"]).ok();
    assert!(host.run(&["explain", "tap0"]).stdout.contains("no VTEP address"), "the link that is missing");
    // Nothing that could be done is left undone, and the state is told.
    let waiting = snapshot();
    let run = host.run(&["sync"]);
    assert!(run.status == 1 && run.stderr.contains(&format!("network flat: {NO_VTEP}")), "{run:?}");
    assert_eq!(snapshot(), waiting);
    give_vtep();
    host.run(&["sync"]).ok();
    assert_eq!((flat(&host)["state"].clone(), flat(&host)["vtep"].clone()), ("up".into(), "10.0.0.1".into()));
    assert_eq!(ip_link("vxlan20")["master"], "flat-l2");
    assert_eq!(neighbours(), "neigh 10.1.0.60 52:54:00:03:82:d8 dev flat-l2\n");
    let whole = snapshot();
    host.run(&["sync"]).ok();
    assert_eq!(snapshot(), whole, "once");
});

on_a_host!(libvirts_start_is_not_refused_for_want_of_a_vtep_address, {
    let host = Host::new(CONFIG);
    take_vtep();
    let xml = network("lab", "<evpn:network vni='40'/>", LAB);
    host.hook(&["network", "lab", "start", "begin", "-"], &xml).ok();
    sh(LIBVIRTS_BRIDGE);
    host.hook(&["network", "lab", "started", "begin", "-"], &xml).warns(&format!("network lab: {NO_VTEP}"));
    assert!(!is_there("vxlan40"));
    give_vtep();
    host.run(&["network", "up", "lab"]).ok();
    assert_eq!(ip_link("vxlan40")["master"], "lab-l2");
    sh("ip link del lab-l2");
    host.hook(&["network", "lab", "stopped", "end", "-"], &xml).ok();
    assert!(!is_there("vxlan40"));
});

on_a_host!(a_network_that_waits_for_its_vtep_goes_like_any_other, {
    let host = Host::new(CONFIG);
    take_vtep();
    let before = snapshot();
    host.run(&["network", "up", "flat"]).warns(NO_VTEP);
    host.run(&["network", "down", "flat"]).ok();
    assert_eq!(snapshot(), before);
});

on_a_host!(the_agent_completes_what_waits_for_the_vtep, {
    let host = Host::new(CONFIG);
    take_vtep();
    let agent = Agent::start();
    host.run(&["network", "up", "flat"]).warns(NO_VTEP);
    give_vtep();
    until("the tunnel, of an agent that was there", || is_there("vxlan20"));
    until("all of it", || flat(&host)["state"] == "up");
    host.run(&["network", "down", "flat"]).ok();
    drop(agent);
    take_vtep();
    host.run(&["network", "up", "flat"]).warns(NO_VTEP);
    let agent = Agent::start();
    give_vtep();
    until("the tunnel, of an agent that came after the network", || is_there("vxlan20"));
    host.run(&["network", "down", "flat"]).ok();
    drop(agent);
    take_vtep();
    host.run(&["network", "up", "flat"]).warns(NO_VTEP);
    give_vtep();
    let _agent = Agent::start();
    until("the tunnel, of an agent that came last", || is_there("vxlan20"));
});

// [vtep] interface may be a device that is made later; and config.toml may say later where tunnels end.
on_a_host!(the_vteps_device_may_come_later_and_so_may_config_toml, {
    let host = Host::new(&format!("[vtep]\ninterface = \"tunnels0\"\n{CONFIG}"));
    host.run(&["network", "up", "flat"]).warns("no VTEP address: tunnels0 has no global address");
    let _agent = Agent::start();
    sh(
        "ip link add tunnels0 type veth peer name far && ip link set tunnels0 up && ip address add 192.0.2.1/32 dev tunnels0",
    );
    until("the tunnel", || is_there("vxlan20"));
    assert_eq!(ip_link("vxlan20")["linkinfo"]["info_data"]["local"], "192.0.2.1");
    host.run(&["network", "down", "flat"]).ok();
    sh("ip link del tunnels0");
    host.run(&["network", "up", "flat"]).warns("no VTEP address");
    std::fs::write("/run/config.toml", format!("[vtep]\naddress = \"10.0.0.1\"\n{CONFIG}")).unwrap();
    until("the tunnel", || is_there("vxlan20"));
});

on_a_host!(a_vtep_that_loses_its_address_keeps_its_tunnels_and_another_one_is_refused, {
    let host = Host::flat();
    take_vtep();
    let before = snapshot();
    host.run(&["network", "up", "flat"]).ok();
    host.run(&["sync"]).ok();
    assert_eq!(snapshot(), before);
    sh("ip address add 10.0.0.9/32 dev lo");
    let parts =
        &["network flat: it is up with VNI 20 and VTEP 10.0.0.1, not VNI 20 and VTEP 10.0.0.9", "take it down first"];
    host.refuses(&["network", "up", "flat"], 1, parts);
});

on_a_host!(of_several_addresses_the_first_is_taken_and_that_is_said, {
    let host = Host::new(CONFIG);
    sh("ip address del 10.0.0.1/32 dev lo; ip address add 192.0.2.10/32 dev lo; ip address add 10.0.0.1/32 dev lo");
    let words =
        "VTEP 192.0.2.10 is the first of 192.0.2.10, 10.0.0.1: if another is this host's own, set [vtep] address";
    host.run(&["network", "up", "flat"]).warns(words);
    host.run(&["network", "up", "flat"]).ok();
    assert!(host.run(&["-v", "doctor"]).stdout.contains(words));
});

// Of a loopback's two addresses IPv6's may come first: it would be the VTEP for good.
on_a_host!(an_ipv6_address_that_frr_cannot_use_is_waited_over, {
    let config = CONFIG.replace("kind = \"none\"", "socket_dir = \"/run/nothing\"");
    assert_ne!(config, CONFIG);
    let host = Host::new(&config);
    take_vtep();
    sh("ip address add c0d1::1/128 dev lo");
    host.run(&["network", "up", "flat"]).warns("no VTEP address: c0d1::1 is IPv6");
    assert!(!is_there("vxlan20"));
    give_vtep();
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(ip_link("vxlan20")["linkinfo"]["info_data"]["local"], "10.0.0.1");
    // Where nobody is to be asked, and where it is asked for, it is taken.
    host.run(&["network", "down", "flat"]).ok();
    take_vtep();
    for config in [CONFIG.to_owned(), format!("[vtep]\naddress = \"c0d1::1\"\n{config}")] {
        std::fs::write("/run/config.toml", config).unwrap();
        host.run(&["network", "up", "flat"]).ok();
        assert_eq!(ip_link("vxlan20")["linkinfo"]["info_data"]["local6"], "c0d1::1");
        host.run(&["network", "down", "flat"]).ok();
    }
});

// ----- all of config.toml at boot -----

on_a_host!(all_networks_at_boot_once_more_is_nothing_and_one_that_fails_keeps_no_other, {
    let flat = CONFIG.split("[[network]]\nname = \"routed\"").next().unwrap();
    let host = Host::new(flat);
    sh("ip link add flat-l2 type veth peer name far");
    let run = host.run(&["network", "up", "--all"]);
    assert_eq!((run.status, run.stderr.lines().count()), (1, 1), "{run:?}");
    assert!(run.stderr.contains("network flat: device flat-l2 is there and is not a bridge"), "{run:?}");
    assert!(is_there("vxlan21"), "{}", snapshot());
    host.run(&["network", "down", "other"]).ok();
    sh("ip link add other-l2 type veth peer name far2");
    let run = host.run(&["network", "up", "--all"]);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(run.status == 1 && lines.len() == 2, "a line for each: {run:?}");
    assert!(lines[1].starts_with("evpn-hook: network other: device other-l2 is there"), "{run:?}");
    sh("ip link del flat-l2; ip link del other-l2");
    host.run(&["network", "up", "--all"]).ok();
    let up = snapshot();
    let run = host.run(&["network", "up", "--all"]).ok();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str(), snapshot()), ("", "", up));
});

// ----- IPv6 -----

on_a_host!(a_small_mtu_and_a_host_without_ipv6_are_no_reason_not_to_start, {
    let host = Host::new(&CONFIG.replace("mtu = 1450", "mtu = 1200"));
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(host.run(&["status", "--check"]).status, 3, "the others are not up");
    assert_eq!(flat(&host)["state"], "up");
    assert_eq!(ip_link("flat-l2")["mtu"], 1200);
    // As ipv6.disable=1 leaves it.
    sh("mount -t tmpfs none /proc/sys/net/ipv6");
    host.run(&["network", "up", "other"]).ok();
    assert_eq!(host.status()["networks"][1]["state"], "up");
});

on_a_host!(a_small_mtu_on_a_host_that_has_ipv6_off_by_default, {
    let host = Host::new(&CONFIG.replace("mtu = 1450", "mtu = 1200"));
    sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(flat(&host)["state"], "up");
    // On a bridge that was there it fails at the same place, and leaves the setting as it was.
    host.run(&["network", "down", "flat"]).ok();
    sh("ip link add flat-l2 address 00:00:00:11:11:10 type bridge && ip link set flat-l2 up");
    host.run(&["network", "up", "flat"]).ok();
    host.run(&["network", "down", "flat"]).ok();
    assert_eq!(sh("cat /proc/sys/net/ipv6/conf/flat-l2/disable_ipv6").trim(), "1");
});

// libvirt looks for accept_ra 2 between `start` and `started`, and turns forwarding on there.
on_a_host!(an_uplink_that_lives_on_router_advertisements_is_seen_to_before_libvirt_looks, {
    let host = Host::new(CONFIG);
    sh("ip link add eth0 type veth peer name far; ip link set eth0 up");
    let accept = || sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").trim().to_owned();
    assert_eq!(accept(), "1");
    let dual = "<bridge name='dual-l2'/><ip family='ipv6' address='fd00:7::1' prefix='64'/>";
    let xml =
        network("dual", "<evpn:network vni='70'><evpn:vrf name='dual' table='17' vni='17'/></evpn:network>", dual);
    host.hook(&["network", "dual", "start", "begin", "-"], &xml).ok();
    assert_eq!(accept(), "2");
    assert!(sh("cat /run/evpn-hook/host.json").contains("\"net/ipv6/conf/eth0/accept_ra\":\"1\""));
    host.run(&["uninstall"]).ok();
    assert_eq!(accept(), "1", "a setting of the host's, which goes back with evpn-hook");
});

on_a_host!(a_bridge_is_an_uplink_where_the_host_leaves_by_it, {
    let host = Host::new(CONFIG);
    sh("ip link add br0 type bridge; ip link add docker0 type bridge; ip link set br0 up; ip link set docker0 up
        ip link add eth0 type veth peer name far; ip link set eth0 master br0 up; ip link set far up
        ip -6 route add default via fe80::1 dev br0 proto ra");
    let accept = |dev: &str| sh(&format!("cat /proc/sys/net/ipv6/conf/{dev}/accept_ra")).trim().to_owned();
    assert_eq!(["br0", "docker0", "eth0"].map(accept), ["1", "1", "1"]);
    let dual = "<bridge name='dual-l2'/><ip family='ipv6' address='fd00:7::1' prefix='64'/>";
    let xml =
        network("dual", "<evpn:network vni='70'><evpn:vrf name='dual' table='17' vni='17'/></evpn:network>", dual);
    host.hook(&["network", "dual", "start", "begin", "-"], &xml).ok();
    assert_eq!(["br0", "docker0", "eth0"].map(accept), ["2", "1", "1"], "containers configure no host");
    host.run(&["uninstall"]).ok();
    assert_eq!(accept("br0"), "1");
});

// ----- the underlay's MTU -----

fn nic(name: &str, mtu: u32, address: &str) {
    sh(&format!(
        "ip link add {name} mtu {mtu} type veth peer name {name}p; ip link set {name} up; ip link set {name}p up; ip address add {address} dev {name}"
    ));
}

/// A management NIC of 1500 with the default route, and one of 9000 into the fabric.
fn with_management() -> Host {
    let host = Host::new(CONFIG);
    nic("mgmt", 1500, "10.20.0.5/24");
    nic("fab", 9000, "172.16.0.1/31");
    sh("ip route add default via 10.20.0.1 dev mgmt");
    host
}

const LEARNED: &str = "ip route add 10.0.0.2/32 via 172.16.0.0 dev fab proto bgp";

on_a_host!(a_management_nic_does_not_narrow_the_tenants, {
    let host = with_management();
    nic("wg0", 1420, "10.99.0.1/24");
    sh(LEARNED);
    let anew = || {
        host.run(&["network", "up", "other"]).ok();
        let mtus = (ip_link("other-l2")["mtu"].clone(), ip_link("vxlan21")["mtu"].clone());
        host.run(&["network", "down", "other"]).ok();
        mtus
    };
    assert_eq!(anew(), (8950.into(), 8950.into()));
    // Known for good: other VTEPs may be away for a while.
    sh("ip route del 10.0.0.2/32");
    host.run(&["sync"]).ok();
    assert_eq!(anew(), (8950.into(), 8950.into()));
});

on_a_host!(an_mtu_that_was_a_guess_is_settled_by_the_first_route_to_another_vtep, {
    let host = with_management();
    host.run(&["network", "up", "other"]).ok();
    assert_eq!(ip_link("other-l2")["mtu"], 1450, "a guess: the default route's device");
    host.run(&["sync"]).ok();
    assert_eq!(ip_link("other-l2")["mtu"], 1450, "which holds until a route tells");
    sh(LEARNED);
    host.run(&["sync"]).ok();
    assert_eq!(ip_link("other-l2")["mtu"], 8950);
    let settled = snapshot();
    host.run(&["sync"]).ok();
    assert_eq!(snapshot(), settled);
});

on_a_host!(the_agent_settles_it_when_it_hears_of_another_vteps_guest, {
    let host = with_management();
    host.run(&["network", "up", "other"]).ok();
    let _agent = Agent::start();
    // A fabric of static routes: none is learned, and the tunnel's other end tells.
    sh("ip route add 10.0.0.2/32 via 172.16.0.0 dev fab");
    sh("bridge fdb append 00:00:00:00:00:00 dev vxlan21 dst 10.0.0.2 self permanent");
    sh(
        "bridge fdb add 52:54:00:00:00:77 dev vxlan21 dst 10.0.0.2 self permanent; bridge fdb add 52:54:00:00:00:77 dev vxlan21 master extern_learn",
    );
    until("the MTU", || ip_link("other-l2")["mtu"] == 8950);
});

on_a_host!(doctor_blames_no_device_that_carries_no_tunnel, {
    let host = with_management();
    std::fs::write("/run/config.toml", CONFIG.replace("mtu = 1450", "mtu = 8950")).unwrap();
    host.run(&["network", "up", "flat"]).ok();
    let said = host.run(&["doctor"]).stdout;
    assert!(!said.contains("ip link set mgmt mtu"), "{said}");
    sh(&LEARNED.replace("fab", "mgmt").replace("172.16.0.0", "10.20.0.2"));
    let said = host.run(&["doctor"]).stdout;
    assert!(said.contains("ip link set mgmt mtu 9000"), "by which they leave: {said}");
});
