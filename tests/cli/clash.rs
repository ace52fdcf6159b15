//! What is there contradicts what is wanted: refused before the first change.

use crate::common::{has_vlan_filtering, has_vrf, sh, skip};
use crate::host::{CONFIG, Host, snapshot, tap};
use crate::on_a_host;

const MAC: &str = "52:54:00:03:82:d8";

fn attach<'a>(dev: &'a str, mac: &'a str, ip: &'a str) -> [&'a str; 8] {
    ["attach", dev, "--network", "flat", "--mac", mac, "--ip", ip]
}

on_a_host!(a_device_that_is_not_there, {
    let host = Host::flat();
    let parts = &["guest vnet9: device vnet9 is not there: name the guest's tap or veth on this host"];
    host.refuses(&attach("vnet9", MAC, "10.1.0.60"), 1, parts);
});

on_a_host!(a_device_on_another_bridge, {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link add virbr0 type bridge && ip link set vnet0 master virbr0");
    let parts = &["device vnet0 is already on virbr0, not on flat-l2: 'ip link set vnet0 nomaster' first"];
    host.refuses(&attach("vnet0", MAC, "10.1.0.60"), 1, parts);
});

on_a_host!(a_device_that_no_guest_has, {
    let host = Host::flat();
    for dev in ["lo", "flat-l2", "vxlan20"] {
        let parts = &[&*format!("device {dev} cannot be a guest's: name its tap or veth")];
        host.refuses(&attach(dev, MAC, "10.1.0.60"), 1, parts);
    }
});

on_a_host!(a_device_that_another_guest_has, {
    let host = Host::flat();
    tap("vnet0");
    assert_eq!(host.run(&attach("vnet0", MAC, "10.1.0.60")).status, 0);
    let parts = &["vnet0: it is guest vnet0's already: 'evpn-hook detach vnet0' first"];
    host.refuses(&[&attach("vnet0", MAC, "10.1.0.61")[..], &["--guest", "vm2"]].concat(), 1, parts);
});

on_a_host!(the_gateways_own_addresses, {
    let host = Host::flat();
    tap("vnet0");
    let parts = &["MAC 00:00:00:11:11:10 is the gateway's on flat-l2: give the guest another"];
    host.refuses(&attach("vnet0", "00:00:00:11:11:10", "10.1.0.60"), 1, parts);
    let parts = &["address 10.1.0.1 of device vnet0 is network flat's gateway: give the guest another"];
    host.refuses(&attach("vnet0", MAC, "10.1.0.1"), 1, parts);
});

on_a_host!(a_bridge_that_has_gone, {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link del flat-l2");
    let parts = &["bridge flat-l2 of network flat is not there: bring the network up first"];
    host.refuses(&attach("vnet0", MAC, "10.1.0.60"), 1, parts);
});

on_a_host!(a_vni_that_another_bridge_has, {
    let host = Host::new(CONFIG);
    sh("ip link add br-mine type bridge && ip link add tunnel type vxlan id 20 dstport 4789 local 10.0.0.1");
    sh("ip link set tunnel master br-mine");
    let parts = &[
        "network flat: VNI 20 is already used by tunnel on bridge br-mine",
        " and wanted as vxlan20 on flat-l2: use another VNI, or delete",
    ];
    host.refuses(&["network", "up", "flat"], 1, parts);
    sh("ip link set tunnel nomaster");
    host.refuses(
        &["network", "up", "flat"],
        1,
        &["VNI 20 is already used by tunnel on no bridge and wanted as vxlan20 on flat-l2"],
    );
    sh("ip link set tunnel name vxlan20 && ip link set vxlan20 master br-mine");
    host.refuses(&["network", "up", "flat"], 1, &["VNI 20 is already used by vxlan20 on ", " on flat-l2"]);
});

on_a_host!(names_that_other_devices_have, {
    let host = Host::new(CONFIG);
    tap("vxlan20");
    let parts = &["network flat: device vxlan20 is there and is not a VXLAN device: rename it, or use another VNI"];
    host.refuses(&["network", "up", "flat"], 1, parts);
    sh("ip link del vxlan20 && ip link add flat-l2 type veth peer name vxlan21");
    let parts = &["network flat: device flat-l2 is there and is not a bridge: use another bridge name"];
    host.refuses(&["network", "up", "flat"], 1, parts);
});

on_a_host!(a_bridge_with_a_master_but_no_vrf, {
    if !has_vrf() {
        return skip("a_bridge_with_a_master_but_no_vrf", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    sh("ip link add mine type vrf table 77 && ip link add flat-l2 type bridge && ip link set flat-l2 master mine");
    let parts = &["bridge flat-l2 has a master already (", "names no VRF: name it, or 'ip link set flat-l2 nomaster'"];
    host.refuses(&["network", "up", "flat"], 1, parts);
});

on_a_host!(a_table_name_or_vni_that_another_vrf_has, {
    if !has_vrf() {
        return skip("a_table_name_or_vni_that_another_vrf_has", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    let up = ["network", "up", "routed"];
    sh("ip link add mine type vrf table 10");
    host.refuses(&up, 1, &["network routed: table 10 is VRF mine's already: give VRF red another"]);
    sh("ip link del mine && ip link add red type vrf table 11");
    host.refuses(&up, 1, &["VRF red is there with table 11, not 10: make the two agree"]);
    sh("ip link del red");
    tap("red");
    host.refuses(&up, 1, &["device red is there and is not a VRF: use another VRF name"]);
    sh("ip link del red");
    tap("red-l3");
    host.refuses(&up, 1, &["device red-l3 is there and is not a bridge: rename it, or the VRF"]);
    sh("ip link del red-l3 && ip link add br9 type bridge && ip link add vxlan10 type vxlan id 10 dstport 4789");
    sh("ip link set vxlan10 master br9");
    host.refuses(&up, 1, &["network routed: VNI 10 is already used by vxlan10 on ", " on red-l3"]);
});

on_a_host!(a_bridge_that_is_vlan_aware, {
    if !has_vlan_filtering() {
        return skip("a_bridge_that_is_vlan_aware", "this kernel has no bridge VLAN filtering");
    }
    let host = Host::new(CONFIG);
    sh("ip link add flat-l2 type bridge vlan_filtering 1");
    let parts = &["bridge flat-l2 is VLAN-aware: take macTableManager='libvirt' out", "vlan_filtering off the bridge"];
    host.refuses(&["network", "up", "flat"], 1, parts);
});

on_a_host!(a_bridge_or_name_of_another_network, {
    let host = Host::flat();
    std::fs::write("/run/config.toml", CONFIG.replace("\"flat\"", "\"new\"")).unwrap();
    let parts = &["network new: bridge flat-l2 is network flat's already: use another bridge name"];
    host.refuses(&["network", "up", "new"], 1, parts);
    std::fs::write("/run/config.toml", CONFIG.replace("flat-l2", "flat-x")).unwrap();
    let parts = &["network flat: it is up on bridge flat-l2: take it down before it moves to flat-x"];
    host.refuses(&["network", "up", "flat"], 1, parts);
});

on_a_host!(a_network_with_guests_stays_up, {
    let host = Host::flat();
    tap("vnet0");
    assert_eq!(host.run(&attach("vnet0", MAC, "10.1.0.60")).status, 0);
    host.refuses(&["network", "down", "flat"], 1, &["network flat still has guest vnet0: stop or detach first"]);
    assert!(snapshot().contains("neigh 10.1.0.60"));
});
