//! A bridge that was there before its network: it is used where that harms nobody, and is afterwards as it was.

use crate::common::{has_vrf, ip_link, sh, skip};
use crate::host::{CONFIG, Host, snapshot, tap};
use crate::on_a_host;
use crate::xml::network;
use evpn_hook::kernel::Kernel;
use evpn_hook::plan::bridge::MAX_LEARNED;

/// All of a bridge that a network changes.
fn all_of(bridge: &str) -> String {
    let link = ip_link(bridge);
    let info = &link["linkinfo"]["info_data"];
    let of = |family: &str, key: &str| sh(&format!("cat /proc/sys/net/{family}/conf/{bridge}/{key} 2>&-"));
    format!(
        "master {} mtu {} mac {} flags {} addrgen {} pvid {} stp {} learns {:?}\n{}{}{}{}{}{}",
        link["master"],
        link["mtu"],
        link["address"],
        link["flags"].as_array().unwrap().contains(&"UP".into()),
        link["inet6_addr_gen_mode"],
        info["vlan_default_pvid"],
        info["stp_state"],
        max_learned(bridge),
        sh(&format!("ip -o address show dev {bridge} scope global | sed 's/ valid_lft.*//;s/^[0-9]*//'")),
        of("ipv6", "accept_ra"),
        of("ipv6", "disable_ipv6"),
        of("ipv4", "arp_ignore"),
        of("ipv4", "rp_filter"),
        sh(&format!("tc filter show dev {bridge} ingress 2>&- || true")),
    )
}

/// ip(8) shows it from 6.7 on.
fn max_learned(bridge: &str) -> Option<u32> {
    Kernel::open().unwrap().link(&bridge.parse().unwrap()).unwrap().unwrap().max_learned
}

#[track_caller]
fn is_as_before(host: &Host, name: &str, bridge: &str) {
    let (all, before) = (all_of(bridge), snapshot());
    host.run(&["network", "up", name]);
    assert!(host.status().to_string().contains("\"up\""), "{}", host.status());
    assert_eq!(host.run(&["network", "up", name, "--dry-run"]).ok().stdout, "nothing to do\n");
    assert_ne!(snapshot(), before);
    if let Some(most) = max_learned(bridge) {
        assert_eq!(most, MAX_LEARNED);
    }
    host.run(&["network", "down", name]).ok();
    assert_eq!(all_of(bridge), all);
    let without_rules = |text: String| {
        text.lines().filter(|l| l.starts_with("link") || l.starts_with("addr")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_rules(snapshot()), without_rules(before));
}

on_a_host!(it_keeps_its_mtu_mac_addresses_and_sysctls, {
    let host = Host::new(&CONFIG.replace("[\"10.1.0.1/24\"]", "[\"10.1.0.1/24\", \"fd00:1::1/64\"]"));
    sh(
        "ip link add flat-l2 address 02:00:00:00:00:77 mtu 1500 type bridge && sysctl -qw net.ipv4.conf.flat-l2.arp_ignore=0",
    );
    is_as_before(&host, "flat", "flat-l2");
    sh("sysctl -qw net.ipv6.conf.flat-l2.accept_ra=2; ip link set flat-l2 up");
    is_as_before(&host, "flat", "flat-l2");
    sh("ip address add 10.1.0.1/24 dev flat-l2");
    is_as_before(&host, "flat", "flat-l2");
    sh("sysctl -qw net.ipv6.conf.flat-l2.disable_ipv6=1");
    is_as_before(&host, "flat", "flat-l2");
});

on_a_host!(what_a_later_change_made_of_it_is_put_back_too, {
    let host = Host::new(CONFIG);
    sh("ip link add flat-l2 address 00:00:00:11:11:10 mtu 1450 type bridge && ip link set flat-l2 up");
    let all = all_of("flat-l2");
    host.run(&["network", "up", "flat"]).ok();
    let text =
        CONFIG.replace("mtu = 1450", "mtu = 1400").replace("10.1.0.1/24", "10.9.0.1/24").replace("11:10", "11:99");
    std::fs::write("/run/config.toml", text).unwrap();
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(ip_link("flat-l2")["mtu"], 1400);
    host.run(&["network", "down", "flat"]).ok();
    assert_eq!(all_of("flat-l2"), all);
});

on_a_host!(on_a_small_mtu_it_keeps_its_settings_of_ipv6, {
    let host = Host::new(&CONFIG.replace("mtu = 1450", "mtu = 1200"));
    sh("ip link add flat-l2 address 02:00:00:00:00:77 type bridge && ip link set flat-l2 up");
    for setting in ["accept_ra=2", "disable_ipv6=1"] {
        sh(&format!("sysctl -qw net.ipv6.conf.flat-l2.{setting}"));
        is_as_before(&host, "flat", "flat-l2");
    }
});

// Nobody gave it a MAC, so without ports it has none. On a kernel with VLANs on bridges.
on_a_host!(a_plain_one_goes_back_with_its_vlan, {
    let host = Host::new(CONFIG);
    sh("ip link add other-l2 type bridge");
    let pvid = || ip_link("other-l2")["linkinfo"]["info_data"]["vlan_default_pvid"].clone();
    let before = pvid();
    for _ in 0..2 {
        host.run(&["network", "up", "other"]);
        host.run(&["network", "down", "other"]).ok();
        assert_eq!(pvid(), before);
        assert_eq!(sh("ls /run/evpn-hook/networks").trim(), "");
    }
});

on_a_host!(one_with_the_hosts_own_address_is_refused, {
    let host = Host::new(CONFIG);
    sh("ip link add flat-l2 type bridge && ip link set flat-l2 up && ip address add 192.0.2.10/24 dev flat-l2");
    let parts = &["network flat: bridge flat-l2 has this host's own address 192.0.2.10/24", "a bridge of its own"];
    host.refuses(&["network", "up", "flat"], 1, parts);
    // A network of libvirt's that names it.
    let xml = network("lan", "<evpn:network vni='20'/>", "<forward mode='bridge'/><bridge name='flat-l2'/>");
    let parts = &["network lan: bridge flat-l2 has this host's own address 192.0.2.10/24"];
    host.hook_refuses(&["network", "lan", "start", "begin", "-"], &xml, 1, parts);
    sh("ip address flush dev flat-l2 && ip address add fd00:9::10/64 dev flat-l2 nodad");
    host.refuses(&["network", "up", "flat"], 1, &["has this host's own address fd00:9::10/64"]);
});

on_a_host!(one_with_the_hosts_default_route_is_refused, {
    let host = Host::new(CONFIG);
    sh("ip link add flat-l2 type bridge && ip link set flat-l2 up && ip route add default dev flat-l2");
    let parts = &["network flat: this host's default route leaves by bridge flat-l2", "a bridge of its own"];
    host.refuses(&["network", "up", "flat"], 1, parts);
    sh("ip route del default && ip -6 route add default via fe80::1 dev flat-l2");
    host.refuses(&["network", "up", "flat"], 1, parts);
});

on_a_host!(one_with_a_physical_port_is_refused, {
    let host = Host::new(CONFIG);
    sh("ip link add flat-l2 type bridge && ip link set flat-l2 up && ip link add eth0 type ifb");
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 && ip link set eth0 master flat-l2");
    let parts = &["network flat: bridge flat-l2 has port eth0 (ifb)", "a loop", "a bridge of its own"];
    host.refuses(&["network", "up", "flat"], 1, parts);
    sh("ip link set eth0 nomaster");
    host.run(&["network", "up", "flat"]).ok();
});

// NetworkManager, ifreload and the like take ports off a bridge, or make it anew.
on_a_host!(one_that_somebody_makes_anew_comes_back, {
    let host = Host::new(CONFIG);
    let make = "ip link add flat-l2 address 00:00:00:11:11:10 mtu 1500 type bridge && ip link set flat-l2 up";
    sh(make);
    host.run(&["network", "up", "flat"]).ok();
    tap("vnet0");
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", "52:54:00:03:82:d8", "--ip", "10.1.0.60"]);
    for damage in ["ip link set vnet0 nomaster; ip link set vxlan20 nomaster", &format!("ip link del flat-l2; {make}")]
    {
        sh(damage);
        host.run(&["sync"]).ok();
        assert_eq!(host.status()["networks"][0]["state"], "up", "{damage}");
        assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n", "{damage}");
    }
    host.run(&["detach", "vnet0"]).ok();
    host.run(&["network", "down", "flat"]).ok();
    assert_eq!(ip_link("flat-l2")["mtu"], 1500);
});

// ----- in a VRF -----

on_a_host!(it_leaves_the_vrf_without_the_gateway, {
    if !has_vrf() {
        return skip("it_leaves_the_vrf_without_the_gateway", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    sh("ip link add red-l2 address 02:00:00:00:00:77 mtu 1500 type bridge && ip link set red-l2 up");
    is_as_before(&host, "routed", "red-l2");
});

on_a_host!(it_stays_in_the_operators_vrf, {
    if !has_vrf() {
        return skip("it_stays_in_the_operators_vrf", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    sh("ip link add red type vrf table 10 && ip link set red up");
    sh("ip link add red-l2 address 00:00:00:11:11:30 type bridge && ip link set red-l2 master red up");
    sh(
        "ip address add 10.3.0.1/24 dev red-l2 && ip address add fd00:3::1/64 dev red-l2 nodad && ip address add 10.3.1.1/24 dev red-l2",
    );
    is_as_before(&host, "routed", "red-l2");
    assert_eq!(ip_link("red-l2")["master"], "red");
});

on_a_host!(the_hosts_own_lan_is_kept_out_of_a_vrf, {
    if !has_vrf() {
        return skip("the_hosts_own_lan_is_kept_out_of_a_vrf", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    sh("ip link add red-l2 type bridge && ip link set red-l2 up && ip address add 192.0.2.10/24 dev red-l2");
    let parts = &["network routed: bridge red-l2 has this host's own address 192.0.2.10/24"];
    host.refuses(&["network", "up", "routed"], 1, parts);
});

on_a_host!(the_operators_vrf_is_as_before, {
    if !has_vrf() {
        return skip("the_operators_vrf_is_as_before", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    let table = || sh("ip route show table 10; ip -6 route show table 10 | grep -v fe80 || true");
    let own = "ip route add unreachable default metric 4278198272 table 10; ip -6 route add unreachable default metric 4278198272 table 10";
    for own in ["", own] {
        sh(&format!("ip link add red type vrf table 10 && ip link set red up; {own}"));
        let before = table();
        host.run(&["network", "up", "routed"]).ok();
        assert!(table().contains("unreachable default"));
        host.run(&["network", "down", "routed"]).ok();
        assert_eq!(table(), before);
        sh("ip link del red");
    }
});
