//! Who a guest is, and what of it may stop its start: names and metadata are judged where the guest is on a network of ours, and there alone.

use crate::common::{has_vrf, sh, skip};
use crate::forge::{Port, Who, ending};
use crate::host::{CONFIG, Host, fdb, neighbours, snapshot, tap};
use crate::on_a_host;
use crate::xml::{domain, guest, interface};

const MAC: &str = "52:54:00:03:82:d8";
const START: [&str; 5] = ["qemu", "vm1", "start", "begin", "-"];
const PREPARE: [&str; 5] = ["qemu", "vm1", "prepare", "begin", "-"];
const RECONNECT: [&str; 5] = ["qemu", "vm1", "reconnect", "begin", "-"];

/// A host with network `flat`, and a tap that libvirt has put on its bridge.
fn host() -> Host {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 mtu 1450 up");
    host
}

fn deep(levels: usize) -> String {
    format!("<x:a xmlns:x='urn:x'>{}{}</x:a>", "<x:b>".repeat(levels), "</x:b>".repeat(levels))
}

on_a_host!(a_guest_on_no_network_of_ours_is_called_what_it_likes, {
    let host = host();
    sh("ip link add virbr0 type bridge");
    let before = snapshot();
    let elsewhere = interface(MAC, "vnet9", "virbr0");
    for name in ["a&#9;b", "a\u{85}b", &"x".repeat(300), "../x"] {
        let xml = domain(1, "", &elsewhere).replace("vm1", name);
        for op in ["prepare", "start", "reconnect"] {
            host.hook(&["qemu", "vm1", op, "begin", "-"], &xml).ok();
        }
    }
    assert_eq!(snapshot(), before);
    // The same on one of ours.
    let xml = domain(1, "", &interface(MAC, "vnet0", "flat-l2")).replace("vm1", "a&#9;b");
    host.hook_refuses(&START, &xml, 1, &["vm a\\tb: guest name 'a\\tb' is", "not printable: rename it"]);
});

on_a_host!(others_metadata_may_be_as_deep_and_as_large_as_it_likes, {
    let host = host();
    let ours = interface(MAC, "vnet0", "flat-l2");
    host.hook(&START, domain(1, &(deep(1000) + &guest(MAC, None, &["10.1.0.60"])), &ours)).ok();
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
    // libvirt takes 4 MiB.
    let large = format!("<x:a xmlns:x='urn:x'>{}</x:a>", "x".repeat(4 << 20));
    host.hook(&["qemu", "vm2", "start", "begin", "-"], domain(2, &large, &interface(MAC, "vnet9", "virbr0"))).ok();
    // Where nobody can tell, nobody is refused, and it is said.
    let many: String = (0..300).map(|n| format!(" xmlns:n{n}='urn:{n}'")).collect();
    host.hook(&START, domain(2, &format!("<x:a xmlns:x='urn:x'{many}/>"), &ours)).says(0, &["namespaces"]);
});

on_a_host!(broken_metadata_of_ours_counts_on_a_network_of_ours, {
    let host = host();
    let broken = guest(MAC, None, &["10.1.0.600"]);
    let elsewhere = domain(1, &broken, &interface(MAC, "vnet9", "virbr0"));
    let before = snapshot();
    host.hook(&PREPARE, &elsewhere).ok();
    host.hook(&START, &elsewhere).tells(&["vm vm1: <evpn:ip>: address '10.1.0.600' does not parse"]);
    assert_eq!(snapshot(), before);
    let here = domain(1, &broken, &interface(MAC, "vnet0", "flat-l2"));
    host.hook_refuses(&START, &here, 1, &["vm vm1: <evpn:ip>: address '10.1.0.600' does not parse"]);
    // A tap of nobody's is meant for one of ours.
    let nic = format!("<interface type='ethernet'><mac address='{MAC}'/><target dev='vnet9'/></interface>");
    host.hook_refuses(&START, domain(1, &broken, &nic), 1, &["address '10.1.0.600' does not parse"]);
    // Of a guest that runs nothing is taken away for it.
    host.hook(&START, domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"))).ok();
    let whole = snapshot();
    host.hook(&RECONNECT, &here).says(0, &["address '10.1.0.600' does not parse"]);
    assert_eq!(snapshot(), whole);
});

// `virsh detach-interface --live`, or virt-clone: the metadata stays.
on_a_host!(a_guest_that_lost_a_nic_still_starts_migrates_and_is_restored, {
    let host = host();
    let metadata = guest("52:54:00:03:82:d9", None, &["10.1.0.61"]);
    let xml = domain(1, &metadata, &interface(MAC, "vnet0", "flat-l2"));
    for op in ["prepare", "migrate", "restore"] {
        host.hook(&["qemu", "vm1", op, "begin", "-"], &xml).ok();
    }
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], &xml).ok();
    host.hook(&START, &xml).tells(&[
        "vm vm1: its metadata names MAC 52:54:00:03:82:d9, which none of its interfaces has (virt-clone",
        "'virsh metadata vm1 urn:evpn-hook:1 --remove --config'",
    ]);
    assert_eq!(fdb(), format!("fdb {MAC} dev vnet0\n"));
});

on_a_host!(one_mac_on_two_networks_has_its_address_on_each, {
    let host = host();
    host.run(&["network", "up", "other"]).ok();
    tap("vnet1");
    sh("ip link set vnet1 master other-l2 up");
    let nic = |dev: &str, bridge: &str| {
        format!(
            "<interface type='bridge'><mac address='{MAC}'/><source bridge='{bridge}'/><target dev='{dev}'/></interface>"
        )
    };
    let nics = nic("vnet0", "flat-l2") + &nic("vnet1", "other-l2");
    let two = format!(
        "<evpn:guest xmlns:evpn='urn:evpn-hook:1'><evpn:interface mac='{MAC}' network='other'><evpn:ip address='10.9.0.60'/></evpn:interface>\
         <evpn:interface mac='{MAC}' network='flat'><evpn:ip address='10.1.0.60'/></evpn:interface></evpn:guest>"
    );
    host.hook(&START, domain(1, &two, &nics)).ok();
    let both = format!("neigh 10.1.0.60 {MAC} dev flat-l2\nneigh 10.9.0.60 {MAC} dev other-l2\n");
    assert_eq!(neighbours(), both);
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], domain(1, "", "")).ok();
    // Without a network it could be either's.
    let one = domain(1, &guest(MAC, None, &["10.1.0.60"]), &nics);
    host.hook_refuses(&START, one, 1, &["which of its interfaces with MAC", "add network='NAME'"]);
});

on_a_host!(a_device_or_a_vlan_that_cannot_be_is_refused_on_a_network_of_ours, {
    let host = host();
    sh("ip link set vnet0 name 'vm1~0'");
    let odd = |bridge: &str| domain(1, "", &interface(MAC, "vm1~0", bridge));
    host.hook_refuses(&START, odd("flat-l2"), 1, &["vm vm1: device name 'vm1~0' has a character", "<target dev=>"]);
    host.hook(&START, odd("virbr0")).ok();
    host.hook(&RECONNECT, odd("flat-l2")).tells(&["vm vm1: device name 'vm1~0' has a character"]);
    // Already at prepare, where libvirt names the network alone.
    let named = "<interface type='network'><mac address='52:54:00:03:82:d8'/><source network='flat'/><target dev='vm1~0'/></interface>";
    host.hook_refuses(&PREPARE, domain(1, "", named), 1, &["vm vm1: device name 'vm1~0'"]);
    host.hook(&PREPARE, domain(1, "", &named.replace("'flat'", "'default'"))).ok();
    sh("ip link set 'vm1~0' name vnet0");
    let tagged = |bridge: &str| {
        interface(MAC, "vnet0", bridge).replace("</interface>", "<vlan><tag id='42'/></vlan></interface>")
    };
    host.hook_refuses(&START, domain(1, "", &tagged("flat-l2")), 1, &["vm vm1: its interface asks for a VLAN"]);
    host.hook(&START, domain(1, "", &tagged("virbr0"))).ok();
});

/// The way to another VTEP, which knows nobody: what goes there for all of the segment can be seen on its end.
fn underlay() -> Port {
    sh("ip link add uplink type veth peer name far; ip link set far up; ip link set uplink up; ip address add 192.0.2.1/24 dev uplink
        ip route add 10.0.0.2/32 via 192.0.2.2; ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev uplink nud permanent
        bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.0.2");
    Port::open("far")
}

/// What these guests send to all of their segment, each some times and in this order: who of them is heard behind the tunnel, if the last is.
fn leave(far: &Port, round: u8, guests: &[&str]) -> Vec<String> {
    // Ethernet, IPv4, UDP and VXLAN (RFC 7348 §5).
    const OUTER: usize = 14 + 20 + 8 + 8;
    let frame = |dev: &str| {
        let last = dev.as_bytes()[dev.len() - 1];
        ending(Who::new(&format!("52:54:00:03:{round:02x}:{last:02x}"), "10.1.0.99", "fd00:1::99"))
    };
    for dev in guests {
        let port = Port::open(&format!("{dev}p"));
        (0..8).for_each(|_| port.send(&frame(dev)));
    }
    let of = |dev: &str| frame(dev)[..12].to_vec();
    let is_of = |came: &[u8], dev: &str| came.get(OUTER..).is_some_and(|inner| inner.starts_with(&of(dev)));
    let came = far.until_one(|came| is_of(came, guests[guests.len() - 1]));
    let heard = |dev: &&&str| came.iter().any(|frame| is_of(frame, dev));
    guests.iter().filter(heard).map(|dev| (*dev).to_owned()).collect()
}

// A bridge's port has one flag for it, and a VXLAN port stands for all guests of all other hosts.
on_a_host!(what_is_isolated_is_isolated_from_other_hosts_too, {
    let host = host();
    let is_isolated = |dev: &str| sh(&format!("bridge -d link show dev {dev}")).contains("isolated on");
    let start = || {
        let port = "<port isolated='yes'/></interface>";
        let nic = interface(MAC, "vnet0", "flat-l2").replace("</interface>", port);
        host.hook(&START, domain(1, &guest(MAC, None, &["10.1.0.60"]), &nic)).ok();
    };
    let problems = || {
        let status = host.status();
        let endpoints = status["endpoints"].as_array().unwrap();
        endpoints.iter().find(|endpoint| endpoint["device"] == "vnet0").unwrap()["problems"].to_string()
    };
    tap("vnet1");
    host.run(&["attach", "vnet1", "--network", "flat", "--mac", "52:54:00:00:00:61", "--ip", "10.1.0.61"]).ok();
    let far = underlay();
    start();
    assert!(!is_isolated("vxlan20"), "libvirt has not isolated the port");
    assert_eq!(leave(&far, 1, &["vnet0", "vnet1"]), ["vnet0", "vnet1"]);
    // libvirt isolates a tap before it calls the hook.
    sh("bridge link set dev vnet0 isolated on");
    start();
    assert!(is_isolated("vxlan20") && is_isolated("vnet0"));
    assert_eq!(leave(&far, 2, &["vnet0", "vnet1"]), ["vnet1"]);
    assert_eq!(problems(), "[]");
    // Whoever takes it off.
    sh("bridge link set dev vxlan20 isolated off");
    assert_eq!(leave(&far, 3, &["vnet0", "vnet1"]), ["vnet0", "vnet1"]);
    let told = problems();
    assert!(told.contains("missing: bridge link set dev vxlan20 isolated on"), "{told}");
    let run = host.run(&["explain", "vm1"]);
    assert!(run.status == 3 && run.stdout.contains("isolated on this host alone"), "{run:?}");
    host.run(&["sync"]).ok();
    assert!(is_isolated("vxlan20"));
    assert_eq!(leave(&far, 4, &["vnet0", "vnet1"]), ["vnet1"]);
    assert_eq!(problems(), "[]");
});

on_a_host!(a_reconnect_while_its_network_is_down_forgets_nothing, {
    let host = host();
    let xml = domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"));
    host.hook(&START, &xml).ok();
    // As libvirt's net-destroy leaves it.
    sh("mv /run/evpn-hook/networks/flat-l2.json /run/flat.json; ip link set vnet0 nomaster");
    host.hook(&RECONNECT, &xml).ok();
    sh("mv /run/flat.json /run/evpn-hook/networks/flat-l2.json");
    host.hook(&RECONNECT, &xml).ok();
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
    assert!(snapshot().contains("link \"vnet0\" master \"flat-l2\""), "{}", snapshot());
});

on_a_host!(a_guest_is_detached_by_a_name_that_only_it_has, {
    let host = host();
    host.hook(&START, domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"))).ok();
    tap("vnet1");
    let mac = "52:54:00:00:00:02";
    host.run(&["attach", "vnet1", "--network", "flat", "--mac", mac, "--ip", "10.1.0.62", "--guest", "vm1"]).ok();
    host.refuses(&["detach", "--guest", "vm1"], 1, &["vm1: 2 guests are called so", "libvirt/vm1", "manual/vm1"]);
    host.run(&["detach", "--guest", "manual/vm1"]).ok();
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
    host.run(&["detach", "--guest", "vm1"]).ok();
    assert_eq!(neighbours(), "");
    host.refuses(&["detach", "--guest", "lxc/vm1"], 1, &["lxc/vm1: nothing of that name is attached"]);
});

on_a_host!(a_device_that_a_living_guest_has_is_not_taken_by_another_start, {
    let host = host();
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60", "--guest", "hand"]).ok();
    let before = snapshot();
    let xml = domain(1, "", &interface(MAC, "vnet0", "flat-l2"));
    host.hook(&START, &xml).tells(&["vm vm1: device vnet0 is guest hand's already, and stays guest hand's"]);
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], &xml).ok();
    assert_eq!(snapshot(), before);
});

// What is declared is judged as what is heard.
on_a_host!(an_address_that_no_guest_of_the_network_can_have_is_refused, {
    let host = host();
    let of = |ips: &[&str]| domain(1, &guest(MAC, None, ips), &interface(MAC, "vnet0", "flat-l2"));
    let why = ["vm vm1: address 10.1.0.255 of device vnet0 is its subnet's own or broadcast address", "10.1.0.0/24"];
    host.hook_refuses(&START, of(&["10.1.0.60", "10.1.0.255"]), 1, &why);
    tap("vnet1");
    let attach = ["attach", "vnet1", "--network", "flat", "--mac", "52:54:00:00:00:02", "--ip", "10.1.0.0"];
    host.refuses(&attach, 1, &["guest vnet1: address 10.1.0.0 of device vnet1 is its subnet's own"]);
    // One that runs keeps what can be its.
    host.hook(&RECONNECT, of(&["10.1.0.60", "10.1.0.255"])).tells(&why);
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
});

// The VRF has no way to it here, and would draw the tenant's traffic for it from all hosts.
on_a_host!(in_a_vrf_an_address_outside_of_all_subnets_is_refused, {
    if !has_vrf() {
        return skip("in_a_vrf_an_address_outside_of_all_subnets_is_refused", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    host.run(&["network", "up", "routed"]).ok();
    tap("vnet0");
    sh("ip link set vnet0 master red-l2 up");
    let of = |ips: &[&str]| domain(1, &guest(MAC, None, ips), &interface(MAC, "vnet0", "red-l2"));
    let why = ["vm vm1: address 203.0.113.5 of device vnet0 is in none of the network's subnets", "10.3.0.0/24"];
    host.hook_refuses(&START, of(&["10.3.0.60", "203.0.113.5"]), 1, &why);
    host.hook(&RECONNECT, of(&["10.3.0.60", "203.0.113.5"])).tells(&why);
    assert_eq!(neighbours(), format!("neigh 10.3.0.60 {MAC} dev red-l2\n"));
});
