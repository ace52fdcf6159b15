//! Networks with a VRF, from config.toml and from libvirt; these need a kernel that has VRFs.

use crate::common::{has_vrf, json, sh, skip};
use crate::host::{CONFIG, Host, snapshot};
use crate::on_a_host;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, network};

on_a_host!(a_vrf_comes_with_its_first_network_and_goes_with_its_last, {
    if !has_vrf() {
        return skip("a_vrf_comes_with_its_first_network_and_goes_with_its_last", "this kernel has no VRF");
    }
    let second = "[[network]]\nname = \"second\"\nbridge = \"red2-l2\"\nvni = 31\nvrf = \"red\"\n";
    let host = Host::new(&format!("{CONFIG}{second}"));
    let before = snapshot();
    host.run(&["network", "up", "routed", "--dry-run"]).ok();
    assert_eq!(snapshot(), before, "a dry run changes nothing");
    host.run(&["network", "up", "routed"]).status.eq(&0).then_some(()).unwrap();
    let up = snapshot();
    assert!(up.contains("link \"red-l2\" master \"red\"") && up.contains("link \"vxlan10\" master \"red-l3\""), "{up}");
    assert!(
        up.contains("address \"red-l2\" \"10.3.0.1\" 24") && up.contains("address \"red-l2\" \"fd00:3::1\" 64"),
        "{up}"
    );
    assert!(
        up.contains("ip_forward = 1") && up.contains("0:\tfrom all lookup [l3mdev-table]\n0:\tfrom all lookup local\n"),
        "{up}"
    );
    assert_eq!(host.run(&["network", "up", "routed", "--dry-run"]).ok().stdout, "nothing to do\n");
    assert_eq!(host.status()["networks"][0]["state"], "up");
    // One VRF, two descriptions: libvirt's networks know nothing of one another.
    let other =
        network("third", "<evpn:network vni='32'><evpn:vrf name='red' table='10' vni='11'/></evpn:network>", LAB);
    sh(LIBVIRTS_BRIDGE);
    host.hook_refuses(
        &["network", "third", "started", "begin", "-"],
        other,
        1,
        &["network third: VRF red (table 10, vni 10) is up already", "this one says red (table 10, vni 11)"],
    );
    sh("ip link del lab-l2");
    host.run(&["network", "up", "second"]).ok();
    host.run(&["network", "down", "routed"]).ok();
    assert!(json("ip -j link show type vrf")[0]["ifname"] == "red", "the second needs it still");
    host.run(&["network", "down", "second"]).ok();
    let after = snapshot();
    assert!(!after.contains("link \"red") && !after.contains("unreachable") && !after.contains("vxlan"), "{after}");
});

on_a_host!(a_foreign_slave_keeps_the_vrf, {
    if !has_vrf() {
        return skip("a_foreign_slave_keeps_the_vrf", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    assert_eq!(host.run(&["network", "up", "routed"]).status, 0);
    sh("ip link add mine type bridge && ip link set mine master red");
    assert_eq!(host.run(&["network", "down", "routed"]).status, 0);
    assert!(snapshot().contains("link \"mine\" master \"red\""));
});

on_a_host!(a_vrf_of_the_operators_stays, {
    if !has_vrf() {
        return skip("a_vrf_of_the_operators_stays", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    sh("ip link add red type vrf table 10");
    assert_eq!(host.run(&["network", "up", "routed"]).status, 0);
    assert_eq!(host.run(&["network", "down", "routed"]).status, 0);
    let after = snapshot();
    assert!(after.contains("link \"red\" master null") && !after.contains("red-l"), "{after}");
});

on_a_host!(a_routed_network_that_fails_half_way, {
    if !has_vrf() {
        return skip("a_routed_network_that_fails_half_way", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    let _taken = std::net::UdpSocket::bind("0.0.0.0:4789").unwrap();
    host.refuses(&["network", "up", "routed"], 1, &["ip link set vxlan10 up: Address already in use"]);
});

on_a_host!(uninstall_puts_the_host_back, {
    if !has_vrf() {
        return skip("uninstall_puts_the_host_back", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    let rules = || sh("ip -4 rule; ip -6 rule; sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding");
    sh("ip link add probe type vrf table 4242 && ip link del probe"); // the kernel adds its l3mdev rule with the first VRF
    let before = rules();
    assert_eq!(host.run(&["network", "up", "routed"]).status, 0);
    assert_ne!(rules(), before);
    assert_eq!(host.run(&["network", "down", "routed"]).status, 0);
    // The real root, which is not for a test to change: no link of evpn-hook's is there.
    sh("mount -t tmpfs none /etc && mount -t tmpfs none /usr/share");
    assert_eq!(host.run(&["uninstall"]).status, 0);
    assert_eq!(rules(), before);
});

// hook.md, smaller: docker, a kubelet, libvirt's own nat networks turn it on and tell nobody.
on_a_host!(uninstall_leaves_forwarding_to_who_counts_on_it_by_now, {
    if !has_vrf() {
        return skip("uninstall_leaves_forwarding_to_who_counts_on_it_by_now", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    sh("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    assert_eq!(host.run(&["network", "up", "routed"]).status, 0);
    sh("ip link add docker0 type bridge && ip link set docker0 up && ip address add 172.17.0.1/16 dev docker0");
    assert_eq!(host.run(&["network", "down", "routed"]).status, 0);
    sh("mount -t tmpfs none /etc && mount -t tmpfs none /usr/share");
    let run = host.run(&["uninstall"]);
    assert!(run.status == 0 && run.stderr.contains("net.ipv4.ip_forward is left on, for docker0"), "{run:?}");
    assert_eq!(sh("sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding"), "1\n1\n");
});
