//! A host boots: the VTEP's address, FRR, libvirtd with what it starts by itself, config.toml's networks and the agent come in any order, and after the last of
//! them all is up, without a hand.

use std::time::Instant;

use crate::fabric::{Agent, Container, Fabric, Host, Nic, Vm, VmSpec, wait_until};
use crate::tenant::{
    Configured, GREEN, Network, RED, SOON, container_on, expect_advertised, expect_vni, known, knows, network_status,
};

const VM_MAC: &str = "52:54:00:03:82:d8";
const VM_IP: &str = "10.1.0.60";
const MAC: &str = "00:16:3e:00:00:38";
const IP: &str = "10.2.0.38";

/// What comes at boot, each by its letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Address,
    Frr,
    Libvirtd,
    Agent,
    /// evpn-networks.service, and after it lxc.service.
    Networks,
}
use Part::{Address, Agent as TheAgent, Frr, Libvirtd, Networks};

/// comp1 with network red and a VM that libvirt starts by itself, and green in config.toml; comp2 has both networks.
struct Scene {
    host: &'static Host,
    far: &'static Host,
    vm: Vm<'static>,
    _red: Network<'static>,
    _far: Configured<'static>,
}

impl Scene {
    fn of(fabric: &'static Fabric) -> Scene {
        let (host, far) = (fabric.comp1(), fabric.comp2());
        let red = Network::shipped(host, "red");
        host.ok(&["virsh", "--quiet", "net-autostart", "red"]);
        let nics = vec![Nic::Network { mac: VM_MAC, network: "red" }];
        let vm = Vm::define(host, &VmSpec { name: "red", nics, bare: true, ..VmSpec::default() });
        host.ok(&["virsh", "--quiet", "autostart", "red"]);
        red.stop();
        host.write("/etc/evpn-hook/config.toml", GREEN);
        Scene { host, far, vm, _red: red, _far: Configured::up(far, &[RED, GREEN]) }
    }

    /// Nothing of it is there; then this order.
    fn boots(&mut self, order: [Part; 5]) {
        let host = self.host;
        let since = Instant::now();
        let mut frr = Some(host.without_frr());
        host.stop_libvirtd("TERM");
        let mut down = Down { host, libvirtd: true };
        // Which say that this boot's autostart was done (libvirt's src/util/virdriver.c `virDriverShouldAutostart`).
        host.sh(&format!(
            "rm -f /run/libvirt/network/autostarted /run/libvirt/qemu/autostarted; ip address del {}/32 dev lo",
            host.address()
        ));
        let (mut agent, mut container) = (None, None);
        for part in order {
            match part {
                Address => give(host),
                Frr => drop(frr.take()),
                Libvirtd => {
                    down.libvirtd = false;
                    self.vm.boot_by(|| host.run_libvirtd());
                }
                TheAgent => agent = Some(Agent::start(host)),
                Networks => {
                    host.ok(&["evpn-hook", "network", "up", "--all"]);
                    container = Some(Container::start(host, "c1", &container_on("green", MAC, Some(IP))));
                }
            }
            if part == Libvirtd || part == Networks {
                let name = if part == Libvirtd { "red" } else { "green" };
                assert_ne!(
                    network_status(host, name)["state"],
                    "down",
                    "{order:?}: {name} is up, with or without its tunnels"
                );
            }
        }
        for name in ["red", "green"] {
            wait_until(&format!("{order:?}: {name} to be up"), SOON, || network_status(host, name)["state"] == "up");
        }
        expect_vni(host, "10", "L3", "red");
        expect_vni(host, "30", "L3", "green");
        expect_advertised(host, VM_MAC, &[VM_IP]);
        expect_advertised(host, MAC, &[IP]);
        wait_until(&format!("{order:?}: comp2 to know both guests"), SOON, || {
            knows(self.far, "red", "vxlan20", VM_MAC, &[VM_IP], "10.0.0.1")
                && knows(self.far, "green", "vxlan40", MAC, &[IP], "10.0.0.1")
        });
        for name in ["red-l2", "vxlan20", "green-l2", "vxlan40"] {
            let mtu = host.ok(&["cat", &format!("/sys/class/net/{name}/mtu")]);
            assert_eq!(mtu.trim(), "8950", "{order:?}: {name}");
        }
        eprintln!("lab: {order:?}: whole {} ms after its beginning", since.elapsed().as_millis());
        drop((agent, container));
        self.vm.destroy();
        host.sh("virsh --quiet net-destroy red; evpn-hook network down --all");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.host.run(&["sh", "-c", "evpn-hook network down --all; rm /etc/evpn-hook/config.toml"]);
    }
}

fn give(host: &Host) {
    host.ok(&["ip", "address", "replace", &format!("{}/32", host.address()), "dev", "lo"]);
}

/// What a scenario that fails leaves to the next.
struct Down<'a> {
    host: &'a Host,
    libvirtd: bool,
}

impl Drop for Down<'_> {
    fn drop(&mut self) {
        give(self.host);
        if self.libvirtd {
            self.host.run_libvirtd();
        }
    }
}

lab_test! {
    fn whatever_comes_last_at_boot_after_it_all_is_up(fabric) {
        let mut scene = Scene::of(fabric);
        // Each pair in both orders, and each part once the last.
        for order in [
            [Libvirtd, TheAgent, Networks, Frr, Address],
            [Address, Frr, Networks, TheAgent, Libvirtd],
            [Networks, Address, Libvirtd, TheAgent, Frr],
            [TheAgent, Frr, Address, Libvirtd, Networks],
            [Frr, Networks, Libvirtd, Address, TheAgent],
            [TheAgent, Networks, Libvirtd, Address, Frr],
        ] {
            scene.boots(order);
        }
    }
}

// Nobody runs all the time: what was there too early is completed by the next who looks.
lab_test! {
    fn without_an_agent_sync_completes_what_came_before_the_vteps_address(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _far = Configured::up(comp2, &[GREEN]);
        comp1.ok(&["ip", "address", "del", &format!("{}/32", comp1.address()), "dev", "lo"]);
        let _down = Down { host: comp1, libvirtd: false };
        let _green = Configured::up(comp1, &[GREEN]);
        let _container = Container::start(comp1, "c1", &container_on("green", MAC, Some(IP)));
        let status = network_status(comp1, "green");
        assert_eq!((&status["state"], &status["vtep"]), (&"degraded".into(), &serde_json::Value::Null), "{status}");
        assert!(status["problems"].to_string().contains("VTEP c0d1::1 is IPv6"), "not this one, which FRR 8.4 cannot use: {status}");
        // DHCP, gateway and neighbours are there: guests of this host have each other.
        comp1.sh("ip address show green-l2 | grep -q 10.2.0.1/24; ip -d link show green-l2 | grep -q 'master green'");
        give(comp1);
        comp1.ok(&["evpn-hook", "sync"]);
        expect_advertised(comp1, MAC, &[IP]);
        wait_until("comp2 to know the container", SOON, || known(comp2, "green", "vxlan40", MAC, &[IP], "10.0.0.1"));
        let router_id = comp1.show_text("bgpd", "show running-config");
        let green = router_id.split("router bgp 64512 vrf green").nth(1).expect("green's instance");
        assert!(green.lines().nth(1).is_some_and(|line| line.contains("bgp router-id 10.0.0.1")), "{green}");
    }
}
