//! One tenant network: `virsh net-start` is all it takes, and `virsh net-destroy` leaves nothing of it.

use std::time::Instant;

use crate::fabric::{Container, Fabric, Host, Nic, Traces, Vm, VmSpec, wait_until};
use crate::tenant::{
    Configured, Network, RED, SOON, container_on, expect_vni, joined, network_status, shipped_xml, vni,
};

const MAC: &str = "00:16:3e:00:00:38";
const LEASE: &[&str] = &["udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "1", "-A", "1"];

fn expect_up(host: &Host, network: &str) {
    let status = network_status(host, network);
    assert_eq!(status["state"], "up", "{status:#}");
}

fn expect_type5(host: &Host, prefix: &str, vtep: &str) {
    wait_until(&format!("{prefix} of {vtep}"), SOON, || {
        let routes = host.show_text("bgpd", "show bgp l2vpn evpn route type prefix");
        routes.split_once(prefix).is_some_and(|(_, path)| path.lines().nth(1).is_some_and(|line| line.contains(vtep)))
    });
}

/// What `status` advises for a network.
fn advice(host: &Host, network: &str) -> Vec<String> {
    let status = network_status(host, network);
    let advice = status["advice"].as_array().expect("advice").iter();
    advice.map(|advice| advice["check"].as_str().unwrap().to_owned()).collect()
}

/// Each hypervisor has both hypervisors' routes to the prefix. The reflector passes on both only if each has a distinguisher of its own.
fn expect_type5_of_both(fabric: &Fabric, prefix: &str) {
    for host in [fabric.comp1(), fabric.comp2()] {
        wait_until(&format!("{prefix} of both on {}", host.name()), SOON, || {
            let routes = host.show("bgpd", "show bgp l2vpn evpn route type prefix json");
            let all = routes.as_object().into_iter().flatten();
            let of: Vec<_> = all.filter(|(_, routes)| routes.get(prefix).is_some()).map(|(rd, _)| rd).collect();
            of.len() == 2 && of[0].starts_with("10.0.0.1:") && of[1].starts_with("10.0.0.2:")
        });
    }
}

lab_test! {
    fn net_start_makes_the_tenant_and_net_destroy_unmakes_it(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let red = Network::shipped(comp1, "red");
        red.stop();
        let stopped = Traces::of(comp1);
        red.start();

        assert!(comp1.ok(&["ip", "-d", "link", "show", "red-l2"]).contains("master red "));
        assert!(comp1.ok(&["ip", "-d", "link", "show", "vxlan20"]).contains("master red-l2"));
        expect_vni(comp1, "20", "L2", "red");
        expect_vni(comp1, "10", "L3", "red");
        assert!(comp1.ok(&["ip", "address", "show", "red-l2"]).contains("inet 10.1.0.1/24 "));
        assert!(comp1.show_text("zebra", "show ip route vrf red").contains("C>* 10.1.0.0/24"));
        expect_up(comp1, "red");
        expect_type5(comp2, "[5]:[0]:[24]:[10.1.0.0]", "10.0.0.1");

        {
            let _red = Configured::up(comp2, &[RED]);
            joined(fabric, 20);
            expect_type5_of_both(fabric, "[5]:[0]:[24]:[10.1.0.0]");
            let container = Container::start(comp2, "c1", &container_on("red", MAC, None));
            let lease = container.ok(LEASE);
            assert!(lease.contains("lab-guest: lease eth0 10.1.0."), "{lease}");
            container.ok(&["ping", "-c", "1", "-W", "5", "10.1.0.1"]);
        }

        red.stop();
        stopped.assert_unchanged(comp1);
        assert_eq!(vni(comp1, "20"), None);
    }
}

lab_test! {
    fn both_addresses_of_a_dual_stack_tenant_stay(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _dual = Network::shipped(comp1, "dual");
        let addresses = comp1.ok(&["ip", "address", "show", "dual-l2"]);
        assert!(addresses.contains("inet 10.3.0.1/24 ") && addresses.contains("inet6 fd00:3::1/64 "), "{addresses}");
        assert!(comp1.show_text("zebra", "show ip route vrf dual").contains("C>* 10.3.0.0/24"));
        assert!(comp1.show_text("zebra", "show ipv6 route vrf dual").contains("C>* fd00:3::/64"));
        expect_type5(comp2, "[5]:[0]:[24]:[10.3.0.0]", "10.0.0.1");
        expect_type5(comp2, "[5]:[0]:[64]:[fd00:3::]", "10.0.0.1");

        let _peer = Network::without_dhcp(comp2, "dual");
        joined(fabric, 80);
        let nic = "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\nlxc.net.0.link = dual-l2\n\
            lxc.net.0.flags = up\nlxc.net.0.name = eth0\nlxc.net.0.ipv6.address = fd00:3::38/64\n";
        let container = Container::start(comp2, "c1", nic);
        let lease = container.ok(LEASE);
        assert!(lease.contains("lab-guest: lease eth0 10.3.0."), "{lease}");
        wait_until("the route to the container's IPv6 address", SOON, || {
            comp1.ok(&["ip", "-6", "route", "show", "vrf", "dual"]).contains("fd00:3::38 ")
        });
        expect_up(comp1, "dual");
        expect_up(comp2, "dual");
    }
}

lab_test! {
    fn a_network_starts_and_stops_again_and_again(fabric) {
        let comp1 = fabric.comp1();
        let red = Network::shipped(comp1, "red");
        red.stop();
        let stopped = Traces::of(comp1);
        for _ in 0..2 {
            red.start();
            expect_up(comp1, "red");
            red.stop();
            stopped.assert_unchanged(comp1);
        }
        let again = comp1.run(&["virsh", "net-destroy", "red"]);
        assert!(again.code != 0 && again.stderr.contains("not active"), "{again:?}");
        stopped.assert_unchanged(comp1);
    }
}

lab_test! {
    fn every_forward_mode_of_libvirts_is_bound(fabric) {
        let comp1 = fabric.comp1();
        let ip = "<ip address='10.9.0.1' netmask='255.255.255.0'/>";
        let modes = [
            ("open", "<forward mode='open'/>", ip),
            ("route", "<forward mode='route'/>", ip),
            ("nat", "<forward mode='nat'/>", ip),
            ("none", "", ip),
            ("bridge", "<forward mode='bridge'/>", ""),
        ];
        let before = Traces::of(comp1);
        for (mode, forward, ip) in modes {
            let network = Network::start_xml(comp1, "modes", &format!(
                "<network><name>modes</name><metadata><evpn:network xmlns:evpn='urn:evpn-hook:1' vni='91'>
                <evpn:vrf name='modes' table='90' vni='90'/></evpn:network></metadata>{forward}<bridge name='modes-l2'/>{ip}</network>"
            ));
            let bridge = comp1.ok(&["ip", "-d", "link", "show", "modes-l2"]);
            assert!(bridge.contains("master modes "), "{mode}: {bridge}");
            expect_vni(comp1, "91", "L2", "modes");
            expect_up(comp1, "modes");
            let works = ["open", "route", "bridge"].contains(&mode);
            assert_eq!(advice(comp1, "modes").iter().any(|check| check == "forward-mode"), !works, "F04: {mode}");
            network.remove();
            before.assert_unchanged(comp1);
        }
    }
}

lab_test! {
    fn a_tenant_of_layer_2_has_no_vrf(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _here = Network::shipped(comp1, "l2only");
        let _there = Configured::up(comp2, &["[[network]]\nname = 'l2only'\nbridge = 'l2only'\nvni = 60\n"]);
        joined(fabric, 60);
        expect_vni(comp1, "60", "L2", "default");
        for host in [comp1, comp2] {
            assert_eq!(host.ok(&["ip", "link", "show", "type", "vrf"]), "");
            expect_up(host, "l2only");
        }
        let nic = |ip| format!("lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\nlxc.net.0.link = l2only\n\
            lxc.net.0.flags = up\nlxc.net.0.name = eth0\nlxc.net.0.ipv4.address = {ip}/24\n");
        let _far = Container::start(comp2, "c2", &nic("192.0.2.2"));
        Container::start(comp1, "c1", &nic("192.0.2.1")).ok(&["ping", "-c", "3", "-W", "5", "192.0.2.2"]);
    }
}

lab_test! {
    /// libvirt's default: `<bridge>` says nothing of STP, so libvirt turns it on, and a new port forwards after 4 s.
    fn f06_a_guest_on_libvirts_default_bridge_is_reached_at_once(fabric) {
        let comp1 = fabric.comp1();
        let plain = shipped_xml(comp1, "red").replace("<bridge name='red-l2' stp='off' delay='0'/>", "<bridge name='red-l2'/>");
        let red = Network::start_xml(comp1, "red", &plain);
        let stp = || comp1.ok(&["cat", "/sys/class/net/red-l2/bridge/stp_state"]).trim().to_owned();
        assert_eq!(stp(), "0");
        let state = |port: &str| comp1.json(&["bridge", "-j", "-d", "link", "show", "dev", port])[0]["state"].clone();
        assert_eq!(state("vxlan20"), "forwarding");
        assert_eq!(advice(comp1, "red"), ["stp"]);
        let began = Instant::now();
        let container = Container::start(comp1, "c1", &container_on("red", MAC, Some("10.1.0.38")));
        let started = began.elapsed();
        container.ok(&["ping", "-c", "1", "-W", "1", "10.1.0.1"]);
        let inside = container.ok(&["ip", "link", "show", "eth0"]);
        assert!(inside.contains("mtu 1450"), "LXC gives both ends of a veth with a link the bridge's: {inside}");
        eprintln!("lab: with libvirt's default STP: guest started in {} ms, answered {} ms later", started.as_millis(), (began.elapsed() - started).as_millis());
        drop(container);
        // It stays off when libvirt has been restarted, and is off again after the network has.
        red.stop();
        red.start();
        assert_eq!(stp(), "0");
        expect_up(comp1, "red");
    }
}

lab_test! {
    /// What `<mtu>` in the shipped files is for: without it, libvirt has nothing to tell by DHCP.
    fn libvirt_tells_guests_the_mtu_that_its_xml_has(fabric) {
        let comp1 = fabric.comp1();
        let told = || comp1.ok(&["cat", "/var/lib/libvirt/dnsmasq/red.conf"]).lines().any(|line| line == "dhcp-option=option:mtu,1450");
        let xml = shipped_xml(comp1, "red");
        let red = Network::start_xml(comp1, "red", &xml);
        assert!(told() && advice(comp1, "red").is_empty());
        // A VM that does not ask by DHCP is told by its own XML alone, which libvirt does not fill from the network's.
        let mut vm = Vm::define(comp1, &VmSpec {
            name: "sized",
            nics: vec![Nic::Network { mac: "52:54:00:03:82:d8", network: "red" }],
            cmdline: "lab.ip0=10.1.0.60/24 lab.gw0=10.1.0.1",
            ..VmSpec::default()
        });
        comp1.sh("virsh dumpxml sized | sed \"s|<model type='virtio'/>|&<mtu size='1450'/>|\" >/run/sized-mtu.xml && virsh --quiet define /run/sized-mtu.xml");
        vm.boot();
        vm.wait_ready();
        let (_, mtu) = vm.exec("cat /sys/class/net/eth0/mtu");
        assert!(mtu.lines().any(|line| line.ends_with(" 1450") || line == "1450"), "{mtu}");
        drop(vm);
        red.remove();
        // As on an underlay of 1500 bytes.
        comp1.write("/etc/evpn-hook/config.toml", "[[vrf]]\nname = 'red'\ntable = 10\nvni = 10\n[[network]]\nname = 'red'\nbridge = 'red-l2'\nvni = 20\nvrf = 'red'\nmtu = 1450\n");
        let red = Network::start_xml(comp1, "red", &xml.replace("<mtu size='1450'/>", ""));
        let (told, advice) = (told(), advice(comp1, "red"));
        red.remove();
        comp1.ok(&["rm", "/etc/evpn-hook/config.toml"]);
        assert!(!told && advice == ["mtu-not-told"], "{advice:?}");
    }
}
