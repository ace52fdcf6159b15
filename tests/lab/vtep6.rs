//! Tunnels over IPv6: with an FRR that has IPv6 VTEPs (Debian sid's), and refused with one that has none (this Debian's).

use crate::fabric::{Capture, Container, Fabric, Host, Nic, OtherFrr, Traces, Vm, VmSpec, wait_until};
use crate::tenant::{
    Configured, Network, RED, SOON, container_on, expect_advertised, knows, network_status, remembers,
};

const VM_MAC: &str = "52:54:00:03:82:d8";
const VM_IP: &str = "10.1.0.60";
const CONTAINER_MAC: &str = "00:16:3e:00:00:38";
const CONTAINER_IP: &str = "10.1.0.38";

fn vtep(number: u8) -> String {
    format!("[vtep]\naddress = 'c0d1::{number}'\n")
}

/// A config.toml that says where the tunnels end, and nothing of networks.
struct Vtep<'a>(&'a Host);

impl<'a> Vtep<'a> {
    fn set(host: &'a Host, number: u8) -> Vtep<'a> {
        host.write("/etc/evpn-hook/config.toml", &vtep(number));
        Vtep(host)
    }
}

impl Drop for Vtep<'_> {
    fn drop(&mut self) {
        self.0.run(&["rm", "/etc/evpn-hook/config.toml"]);
    }
}

/// Each floods the segment to the other's IPv6 address.
fn joined(fabric: &Fabric) {
    for (host, peer) in [(fabric.comp1(), "c0d1::2"), (fabric.comp2(), "c0d1::1")] {
        wait_until(&format!("{peer} in VNI 20 of {}", host.name()), SOON, || {
            host.show_text("zebra", "show evpn vni 20 json").contains(peer)
        });
    }
}

fn mtu(host: &Host, device: &str) -> String {
    host.ok(&["cat", &format!("/sys/class/net/{device}/mtu")]).trim().to_owned()
}

lab_test! {
    /// FRR 8.4 takes the VXLAN device and announces its router-id as the routes' next hop, an IPv4 address where no tunnel ends: seen where
    /// evpn-hook was told not to ask.
    fn an_frr_without_ipv6_vteps_is_not_given_one(fabric) {
        let comp1 = fabric.comp1();
        let _vtep = Vtep::set(comp1, 1);
        let before = Traces::of(comp1);
        comp1.ok(&["virsh", "--quiet", "net-define", "/usr/share/evpn-hook/libvirt-networks/red.xml"]);
        let start = comp1.run(&["virsh", "net-start", "red"]);
        comp1.ok(&["virsh", "--quiet", "net-undefine", "red"]);
        let frr = comp1.sh("/usr/lib/frr/zebra --version | sed -n 's/^zebra version \\([0-9]*\\.[0-9]*\\).*/\\1/p'");
        let said = format!(
            "network red: VTEP c0d1::1 is IPv6, and FRR {} would announce routes that lead to no VTEP: give this host an IPv4 VTEP",
            frr.trim()
        );
        assert!(start.code != 0 && start.stderr.contains(&said), "{start:?}");
        before.assert_unchanged(comp1);

        comp1.write("/etc/evpn-hook/config.toml", &[&vtep(1), RED].concat());
        let up = comp1.run(&["evpn-hook", "network", "up", "red"]);
        assert!(up.code == 1 && up.stderr.contains(&said) && up.stderr.contains("FRR 10.6 or newer"), "{up:?}");
        before.assert_unchanged(comp1);

        let _unasked = Configured::up(comp1, &[&vtep(1), "[speaker]\nkind = 'none'\n", RED]);
        assert!(comp1.ok(&["ip", "-d", "link", "show", "vxlan20"]).contains("local c0d1::1 "));
        let route = "[3]:[0]:[32]:[10.0.0.1]";
        wait_until("FRR to announce the segment", SOON, || {
            let routes = comp1.show_text("bgpd", "show bgp l2vpn evpn route vni 20 type multicast");
            routes.contains(route) && !routes.contains("c0d1::1")
        });
    }
}

lab_test! {
    /// The demo's scenario over IPv6: a VM by libvirt, a container from config.toml.
    fn a_tenant_spans_two_hosts_over_ipv6(fabric) {
        let _frr = OtherFrr::of(fabric, "sid");
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _vtep = Vtep::set(comp1, 1);
        let network = Network::shipped_with_mtu(comp1, "red", 9000 - 70);
        let configured = Configured::up(comp2, &[&vtep(2), RED]);
        joined(fabric);
        for host in [comp1, comp2] {
            for device in ["red-l2", "vxlan20", "vxlan10"] {
                assert_eq!(mtu(host, device), (9000 - 70).to_string(), "{device} of {}", host.name());
            }
            let status = network_status(host, "red");
            assert_eq!(status["state"], "up", "{status:#}");
        }

        let there = comp2.monitor();
        let mut vm = Vm::start(comp1, &VmSpec {
            name: "red",
            nics: vec![Nic::Network { mac: VM_MAC, network: "red" }],
            cmdline: "lab.ip0=10.1.0.60/24 lab.gw0=10.1.0.1 lab.silent",
            ..VmSpec::default()
        });
        let first = vm.console().wait(&[""], SOON).at;
        let places: [&[&str]; 3] = [&[VM_MAC, "dev vxlan20", "extern_learn"], &[VM_IP, "dev red-l2", VM_MAC], &[VM_IP, "dev red-l3"]];
        for place in places {
            let line = there.wait(place, SOON);
            assert!(line.at < first, "{place:?} came {:?} after the guest's first line", line.at - first);
        }
        assert!(knows(comp2, "red", "vxlan20", VM_MAC, &[VM_IP], "c0d1::1"));
        expect_advertised(comp1, VM_MAC, &[VM_IP]);

        let container = Container::start(comp2, "c1", &container_on("red", CONTAINER_MAC, Some(CONTAINER_IP)));
        wait_until("comp1 to know the container", SOON, || {
            knows(comp1, "red", "vxlan20", CONTAINER_MAC, &[CONTAINER_IP], "c0d1::2")
        });
        expect_advertised(comp2, CONTAINER_MAC, &[CONTAINER_IP]);
        let frames = Capture::start(comp1, VM_MAC);
        vm.wait_ready();
        assert!(frames.sent_by_guest().is_empty(), "the VM was not silent");
        container.ok(&["ping", "-c", "1", "-W", "5", VM_IP]);
        let (code, output) = vm.exec(&format!("ping -c 2 -W 5 {CONTAINER_IP}"));
        assert_eq!(code, 0, "{output}");
        // The largest packet that fits: its IP and ICMP headers are 28 bytes.
        container.ok(&["ping", "-c", "1", "-W", "5", "-s", &(9000 - 70 - 28).to_string(), "10.1.0.1"]);

        vm.destroy();
        wait_until("comp2 to forget the VM", SOON, || !remembers(comp2, VM_MAC));
        container.stop();
        wait_until("comp1 to forget the container", SOON, || !remembers(comp1, CONTAINER_MAC));
        network.remove();
        drop(configured);
        for host in [comp1, comp2] {
            // FRR 10 keeps an empty `vrf red`, as 8.4 keeps a name in `show vrf`.
            let config = host.vtysh("show running-config");
            assert!(!config.contains("vni 10") && !config.contains("router bgp 64512 vrf red"), "{config}");
        }
    }
}
