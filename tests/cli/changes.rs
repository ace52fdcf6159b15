//! What is changed of a network while it is up: each field of its description is applied whole, or refused with the way out, and until it is
//! applied `status --check` says so.

use crate::common::{has_vrf, ip_link, json, sh, skip};
use crate::host::{CONFIG, Host, neighbours, snapshot, tap};
use crate::on_a_host;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, network};
use std::fs;

const MAC: &str = "52:54:00:03:82:d8";

/// With a guest, whose port follows.
fn with_guest() -> Host {
    let host = Host::flat();
    tap("vnet0");
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60"]);
    host
}

fn describe(changes: &[(&str, &str)]) {
    let text = changes.iter().fold(CONFIG.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replacen(old, new, 1)
    });
    fs::write("/run/config.toml", text).unwrap();
}

/// Told by `status` and `sync` and not done; then `network up` does it, and nothing is left to say or to do.
#[track_caller]
fn is_told_then_applied(host: &Host, name: &str, words: &[&str]) {
    let before = snapshot();
    let status = host.status();
    let told = |text: &str| words.iter().all(|word| text.contains(word));
    let of_it = status["networks"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap();
    assert_eq!(of_it["state"], "degraded", "{status}");
    let apply = format!("'evpn-hook network up {name}' applies it");
    assert!(told(&of_it["problems"].to_string()) && of_it["problems"].to_string().contains(&apply), "{status}");
    let sync = host.run(&["sync"]);
    assert!(sync.status == 1 && told(&sync.stderr) && sync.stderr.contains(&apply), "{sync:?}");
    assert_eq!(snapshot(), before, "what is written in a file changes nothing by itself");
    host.run(&["network", "up", name]).ok();
    let problems = host.status()["networks"].as_array().unwrap().iter().find(|n| n["name"] == name).cloned();
    assert_eq!(problems.unwrap()["problems"], serde_json::json!([]));
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
    assert_eq!(host.run(&["network", "up", name, "--dry-run"]).ok().stdout, "nothing to do\n");
}

/// Refused as it is, told by `status`, and done once it was taken down.
#[track_caller]
fn is_refused_while_up(host: &Host, name: &str, words: &[&str]) {
    assert_eq!(host.run(&["status", "--check"]).status, 3);
    let way_out = format!("'evpn-hook network down {name}'");
    let parts = [words, &["take it", "down", &way_out]].concat();
    host.refuses(&["network", "up", name], 1, &parts);
    let status = host.status().to_string();
    assert!(status.contains(&way_out), "{status}");
    host.run(&["network", "down", name]).ok();
    host.run(&["network", "up", name]).ok();
}

fn mtus(devices: &[&str]) -> Vec<u64> {
    devices.iter().map(|dev| ip_link(dev)["mtu"].as_u64().unwrap()).collect()
}

fn addresses(dev: &str) -> Vec<String> {
    let told = json(&format!("ip -j address show dev {dev}"));
    let global = told[0]["addr_info"].as_array().unwrap().iter().filter(|a| a["scope"] == "global");
    let mut found: Vec<String> =
        global.map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"])).collect();
    found.sort();
    found
}

on_a_host!(an_mtu_with_the_vxlans_and_the_ports, {
    let host = with_guest();
    describe(&[("mtu = 1450", "mtu = 8950")]);
    is_told_then_applied(&host, "flat", &["config.toml says mtu 8950", "up with 1450"]);
    assert_eq!(mtus(&["flat-l2", "vxlan20", "vnet0"]), [8950, 8950, 8950]);
    describe(&[("mtu = 1450", "mtu = 1300")]);
    is_told_then_applied(&host, "flat", &["mtu 1300"]);
    assert_eq!(mtus(&["flat-l2", "vxlan20", "vnet0"]), [1300, 1300, 1300]);
});

// `network up --all` after another underlay.
on_a_host!(an_mtu_that_the_underlay_changed, {
    let host = Host::new(CONFIG);
    sh(
        "ip link add eth0 mtu 1500 type veth peer name fabric && ip address add 192.0.2.1/31 dev eth0 && ip link set eth0 up",
    );
    host.run(&["network", "up", "other"]).ok();
    sh("ip link set eth0 mtu 9000");
    host.run(&["network", "up", "other"]).ok();
    assert_eq!(mtus(&["other-l2", "vxlan21"]), [8950, 8950]);
    // As soon as routes say that tunnels leave by it, it is no guess, and what differs is told.
    sh("ip route add 10.0.0.2 via 192.0.2.0 proto bgp");
    host.run(&["sync"]).ok();
    host.run(&["network", "down", "other"]).ok();
    host.run(&["network", "up", "other"]).ok();
    sh("ip link set eth0 mtu 4000");
    is_told_then_applied(&host, "other", &["the underlay leaves no more than mtu 3950", "up with 8950"]);
    assert_eq!(mtus(&["other-l2", "vxlan21"]), [3950, 3950]);
});

on_a_host!(an_mtu_that_config_toml_gives_no_more, {
    let host = Host::flat();
    sh(
        "ip link add eth0 mtu 9000 type veth peer name fabric && ip address add 192.0.2.1/31 dev eth0 && ip link set eth0 up
         ip route add 10.0.0.2 via 192.0.2.0 proto bgp",
    );
    host.run(&["network", "up", "other"]).ok();
    describe(&[("mtu = 1450\n", "")]);
    is_told_then_applied(&host, "flat", &["the underlay leaves mtu 8950", "up with 1450"]);
    assert_eq!(mtus(&["flat-l2", "vxlan20"]), [8950, 8950]);
});

on_a_host!(a_vxlans_mtu_that_somebody_changed, {
    let host = Host::flat();
    sh("ip link set vxlan20 mtu 1400");
    assert_eq!(host.run(&["status", "--check"]).status, 3);
    host.run(&["sync"]).ok();
    assert_eq!(mtus(&["flat-l2", "vxlan20"]), [1450, 1450]);
});

on_a_host!(a_gateway_that_goes_and_one_that_comes, {
    let host = with_guest();
    // An operator's own address stays, in the same subnet as well: the kernel takes secondary ones along with their first.
    sh("ip address add 10.1.0.7/24 dev flat-l2; ip address add 192.0.2.1/32 dev flat-l2");
    describe(&[("10.1.0.1/24", "10.9.0.1/24")]);
    is_told_then_applied(&host, "flat", &["config.toml says gateway 10.9.0.1/24", "up with 10.1.0.1/24"]);
    assert_eq!(addresses("flat-l2"), ["10.1.0.7/24", "10.9.0.1/24", "192.0.2.1/32"]);
    describe(&[("10.1.0.1/24", "10.9.0.254/24")]);
    is_told_then_applied(&host, "flat", &["gateway 10.9.0.254/24"]);
    assert_eq!(addresses("flat-l2"), ["10.1.0.7/24", "10.9.0.254/24", "192.0.2.1/32"]);
    describe(&[("gateway = [\"10.1.0.1/24\"]\n", "")]);
    is_told_then_applied(&host, "flat", &["gateway none"]);
    assert_eq!(addresses("flat-l2"), ["10.1.0.7/24", "192.0.2.1/32"]);
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
});

// With its last IPv4 address a device loses its neighbours, permanent ones as well.
on_a_host!(the_only_gateway, {
    let host = with_guest();
    for gateway in ["10.9.0.1/24", "10.9.0.254/24"] {
        describe(&[("10.1.0.1/24", gateway)]);
        is_told_then_applied(&host, "flat", &[gateway]);
        assert_eq!(addresses("flat-l2"), [gateway]);
        assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
    }
    describe(&[("gateway = [\"10.1.0.1/24\"]\n", "")]);
    is_told_then_applied(&host, "flat", &["gateway none"]);
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
});

on_a_host!(a_gateways_mac, {
    let host = with_guest();
    describe(&[("00:00:00:11:11:10", "00:00:00:11:11:99")]);
    is_told_then_applied(&host, "flat", &["config.toml says mac 00:00:00:11:11:99", "up with 00:00:00:11:11:10"]);
    assert_eq!(ip_link("flat-l2")["address"], "00:00:00:11:11:99");
    // The kernel flushes a device's neighbours with its MAC, permanent ones as well.
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
    sh("ip link set flat-l2 address 00:00:00:11:11:98");
    assert_eq!(host.run(&["status", "--check"]).status, 3);
    host.run(&["sync"]).ok();
    assert_eq!(ip_link("flat-l2")["address"], "00:00:00:11:11:99");
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
    describe(&[("mac = \"00:00:00:11:11:10\"\n", "")]);
    is_told_then_applied(&host, "flat", &["mac"]);
    assert_eq!(ip_link("flat-l2")["address"], "06:45:00:00:00:14");
});

on_a_host!(a_vni, {
    let host = Host::flat();
    describe(&[("vni = 20", "vni = 25")]);
    is_refused_while_up(&host, "flat", &["network flat: it is up with VNI 20", "not VNI 25"]);
    assert!(!snapshot().contains("vxlan20") && snapshot().contains("vxlan25"), "{}", snapshot());
});

on_a_host!(a_bridges_name, {
    let host = Host::flat();
    describe(&[("flat-l2", "flat-br")]);
    is_refused_while_up(&host, "flat", &["network flat: it is up on bridge flat-l2"]);
    assert!(!snapshot().contains("flat-l2"), "{}", snapshot());
});

on_a_host!(the_vteps_address, {
    let host = Host::flat();
    sh("ip address add 10.0.0.9/32 dev lo");
    fs::write("/run/config.toml", format!("[vtep]\naddress = \"10.0.0.9\"\n{CONFIG}")).unwrap();
    is_refused_while_up(&host, "flat", &["network flat: it is up with VNI 20 and VTEP 10.0.0.1", "VTEP 10.0.0.9"]);
});

// Another port is another device, and to be on it before the rest of the fabric is to be cut off.
on_a_host!(the_tunnels_port, {
    let host = with_guest();
    let up = snapshot();
    let index = || ip_link("vxlan20")["ifindex"].clone();
    let first = index();
    fs::write("/run/config.toml", format!("[vtep]\nport = 8472\n{CONFIG}")).unwrap();
    let sync = host.run(&["sync"]);
    let words = "network flat: config.toml says [vtep] port 8472, and it is up with 4789: it takes that over when it comes up anew";
    assert!(sync.status == 1 && sync.stderr.contains(words), "{sync:?}");
    assert_eq!((snapshot(), index()), (up, first.clone()));
    // What is lost meanwhile comes back as it was.
    sh("ip link del vxlan20");
    host.run(&["sync"]);
    assert_eq!(ip_link("vxlan20")["linkinfo"]["info_data"]["port"], 4789);
    host.run(&["detach", "vnet0"]).ok();
    sh("ip link set vnet0 nomaster");
    is_refused_while_up(&host, "flat", &["network flat: it is up with UDP port 4789, not 8472"]);
    assert_eq!(ip_link("vxlan20")["linkinfo"]["info_data"]["port"], 8472);
    host.run(&["sync"]).ok();
});

// What is lost of a network is mended, whatever address the host has by now.
on_a_host!(a_loss_while_the_vteps_address_is_another, {
    let host = Host::flat();
    sh("ip address add 10.0.0.9/32 dev lo");
    fs::write("/run/config.toml", format!("[vtep]\naddress = \"10.0.0.9\"\n{CONFIG}")).unwrap();
    sh("ip link del vxlan20");
    let sync = host.run(&["sync"]);
    assert!(sync.stderr.contains("VTEP is 10.0.0.9, and it is up with 10.0.0.1"), "{sync:?}");
    assert_eq!(ip_link("vxlan20")["linkinfo"]["info_data"]["local"], "10.0.0.1");
});

on_a_host!(a_network_that_config_toml_does_not_describe_any_more, {
    let host = Host::flat();
    let up = snapshot();
    fs::write("/run/config.toml", "[speaker]\nkind = \"none\"\n").unwrap();
    assert_eq!(host.run(&["status", "--check"]).status, 3);
    let problem = host.status()["networks"][0]["problems"].to_string();
    assert!(problem.contains("config.toml does not describe it any more"), "{problem}");
    host.run(&["sync"]);
    assert_eq!(snapshot(), up, "and nothing that runs is changed for it");
    host.refuses(
        &["network", "up", "flat"],
        1,
        &["network flat: config.toml does not describe it any more", "down flat"],
    );
    // It has got another name.
    describe(&[("name = \"flat\"", "name = \"lawn\"")]);
    let parts = &["network lawn: bridge flat-l2 is network flat's already", "'evpn-hook network down flat'"];
    host.refuses(&["network", "up", "lawn"], 1, parts);
});

on_a_host!(port_security_of_config_toml, {
    let host = with_guest();
    describe(&[("mtu = 1450", "mtu = 1450\nport_security = \"mac\"")]);
    is_told_then_applied(&host, "flat", &["config.toml says port_security mac", "up with off"]);
    assert!(sh("nft list table bridge evpn-hook").contains(MAC));
    describe(&[]);
    is_told_then_applied(&host, "flat", &["config.toml says port_security off", "up with mac"]);
    assert!(!sh("nft list ruleset").contains(MAC));
});

// ----- libvirt's -----

fn lab(metadata: &str) -> String {
    network("lab", metadata, LAB)
}

/// As libvirt rewrites it at `virsh net-metadata`, of which no hook is told.
fn status_file(metadata: &str) {
    fs::create_dir_all("/run/libvirt/network").unwrap();
    fs::write("/run/libvirt/network/lab.xml", lab(metadata).replace("hookData", "networkstatus")).unwrap();
}

fn libvirts() -> Host {
    let host = Host::new("[speaker]\nkind = \"none\"\n");
    sh(LIBVIRTS_BRIDGE);
    host.hook(&["network", "lab", "started", "begin", "-"], lab("<evpn:network vni='40'/>")).ok();
    status_file("<evpn:network vni='40'/>");
    host.run(&["status", "--check"]).ok();
    host
}

on_a_host!(net_metadata_that_changes_port_security_is_followed, {
    let host = libvirts();
    tap("vnet0");
    sh("ip link set vnet0 master lab-l2 up");
    let domain = crate::xml::domain(1, "", &crate::xml::interface(MAC, "vnet0", "lab-l2"));
    host.hook(&["qemu", "vm1", "start", "begin", "-"], domain).ok();
    status_file("<evpn:network vni='40' port_security='mac'/>");
    assert_eq!(host.run(&["status", "--check"]).status, 3);
    host.run(&["sync"]).ok();
    host.run(&["status", "--check"]).ok();
    assert!(sh("nft list table bridge evpn-hook").contains(MAC));
    // What is left out is no wish to lift it.
    status_file("<evpn:network vni='40'/>");
    host.run(&["sync"]).ok();
    assert!(sh("nft list table bridge evpn-hook").contains(MAC));
    status_file("<evpn:network vni='40' port_security='off'/>");
    host.run(&["sync"]).ok();
    assert!(!sh("nft list ruleset").contains(MAC));
    host.run(&["status", "--check"]).ok();
});

on_a_host!(net_metadata_that_changes_stp_is_told_then_applied, {
    let host = libvirts();
    let stp = || ip_link("lab-l2")["linkinfo"]["info_data"]["stp_state"].clone();
    for (word, state) in [("on", 1), ("off", 0)] {
        status_file(&format!("<evpn:network vni='40' stp='{word}'/>"));
        is_told_then_applied(&host, "lab", &[&format!("libvirt says stp {word}, and it is up with")]);
        assert_eq!(stp(), state);
    }
});

on_a_host!(net_metadata_that_changes_more_is_told, {
    let host = libvirts();
    let up = snapshot();
    for (metadata, words) in [
        ("<evpn:network vni='41'/>", "libvirt says vni 41, and it is up with 40"),
        (
            "<evpn:network vni='40'><evpn:vrf name='red' table='10' vni='10'/></evpn:network>",
            "libvirt says vrf red (table 10, vni 10), and it is up with none",
        ),
    ] {
        status_file(metadata);
        assert_eq!(host.run(&["status", "--check"]).status, 3);
        let problem = host.status()["networks"][0]["problems"].to_string();
        let way_out = "'virsh net-destroy lab' and 'virsh net-start lab'";
        assert!(problem.contains(words) && problem.contains(way_out), "{problem}");
        let sync = host.run(&["sync"]);
        assert!(sync.status == 1 && sync.stderr.contains(words) && sync.stderr.contains(way_out), "{sync:?}");
        assert_eq!(snapshot(), up);
        host.refuses(&["network", "up", "lab"], 1, &["network lab: it is up", "take it", "down first"]);
    }
    status_file("");
    let sync = host.run(&["sync"]);
    assert!(
        sync.stderr.contains("network lab: neither libvirt's XML nor config.toml makes it evpn-hook's any more"),
        "{sync:?}"
    );
    assert_eq!(snapshot(), up);
    status_file("<evpn:network vni='40'><evpn:vfr/></evpn:network>");
    let sync = host.run(&["sync"]);
    assert!(sync.status == 1 && sync.stderr.starts_with("evpn-hook: network lab: <evpn:vfr>"), "{sync:?}");
    assert_eq!(snapshot(), up);
    status_file("<evpn:network vni='40'/>");
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
});

// ----- in a VRF -----

on_a_host!(the_l3vnis_mtu_is_that_of_the_vrfs_largest_network, {
    if !has_vrf() {
        return skip("the_l3vnis_mtu_is_that_of_the_vrfs_largest_network", "this kernel has no VRF");
    }
    let second = "[[network]]\nname = \"second\"\nbridge = \"red2-l2\"\nvni = 31\nvrf = \"red\"\nmtu = 8950\n";
    let host = Host::new(&format!("{CONFIG}{second}"));
    let l3 = || mtus(&["red-l3", "vxlan10"]);
    assert_eq!(host.run(&["network", "up", "routed"]).status, 0);
    assert_eq!(l3(), [1450, 1450]);
    host.run(&["network", "up", "second"]).ok();
    assert_eq!(l3(), [8950, 8950]);
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
    fs::write("/run/config.toml", format!("{CONFIG}{}", second.replace("8950", "4000"))).unwrap();
    is_told_then_applied(&host, "second", &["mtu 4000"]);
    assert_eq!((l3(), mtus(&["red2-l2", "vxlan31", "red-l2"])), (vec![4000, 4000], vec![4000, 4000, 1450]));
    host.run(&["network", "down", "second"]).ok();
    assert_eq!(l3(), [1450, 1450]);
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
});

on_a_host!(a_vrf_of_a_running_network, {
    if !has_vrf() {
        return skip("a_vrf_of_a_running_network", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    assert_eq!(host.run(&["network", "up", "routed"]).status, 0);
    let words = "network routed: it is up in VRF red (table 10, vni 10), not in";
    describe(&[("table = 10\nvni = 10", "table = 12\nvni = 10")]);
    is_refused_while_up(&host, "routed", &[words, "red (table 12, vni 10)"]);
    describe(&[("table = 10\nvni = 10", "table = 12")]);
    let words = "network routed: it is up in VRF red (table 12, vni 10), not in";
    is_refused_while_up(&host, "routed", &[words, "red (table 12, no vni)"]);
    describe(&[("vni = 30\nvrf = \"red\"", "vni = 30")]);
    is_refused_while_up(&host, "routed", &["network routed: it is up in VRF red (table 12, no vni), not without"]);
    describe(&[("table = 10\nvni = 10", "table = 12")]);
    is_refused_while_up(&host, "routed", &["network routed: it is up without a VRF, not in red (table 12, no vni)"]);
});

// Its L3VNI is all its networks'; it and their router MAC would be in two places.
on_a_host!(the_vteps_address_of_one_network_of_a_vrf, {
    if !has_vrf() {
        return skip("the_vteps_address_of_one_network_of_a_vrf", "this kernel has no VRF");
    }
    let second = "[[network]]\nname = \"second\"\nbridge = \"red2-l2\"\nvni = 31\nvrf = \"red\"\nmtu = 1450\n";
    let host = Host::new(&format!("{CONFIG}{second}"));
    for name in ["routed", "second"] {
        assert_eq!(host.run(&["network", "up", name]).status, 0);
    }
    sh("ip address add 10.0.0.9/32 dev lo");
    for (change, is, wanted) in [
        ("address = \"10.0.0.9\"", "VTEP 10.0.0.1 and port 4789", "not 10.0.0.9 and 4789"),
        ("address = \"10.0.0.1\"\nport = 8472", "VTEP 10.0.0.1 and port 4789", "not 10.0.0.1 and 8472"),
    ] {
        fs::write("/run/config.toml", format!("[vtep]\n{change}\n{CONFIG}{second}")).unwrap();
        host.run(&["network", "down", "second"]).ok();
        let parts = &["network second: VRF red is up with", is, wanted, "(routed: ", "'evpn-hook network down routed'"];
        host.refuses(&["network", "up", "second"], 1, parts);
        fs::write("/run/config.toml", format!("{CONFIG}{second}")).unwrap();
        assert_eq!(host.run(&["network", "up", "second"]).status, 0);
    }
    fs::write("/run/config.toml", format!("[vtep]\naddress = \"10.0.0.9\"\n{CONFIG}{second}")).unwrap();
    for way in ["down", "up"] {
        for name in ["second", "routed"] {
            assert_eq!(host.run(&["network", way, name]).status, 0);
        }
    }
    assert_eq!(ip_link("vxlan10")["linkinfo"]["info_data"]["local"], "10.0.0.9");
    assert_eq!(ip_link("red-l3")["address"], "02:45:0a:00:00:09");
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
});
