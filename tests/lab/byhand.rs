//! The tenant "red" of the reference fabric built by hand, as an administrator without evpn-hook would: what the hook's
//! own scenarios are measured against.

use std::time::Duration;

use crate::fabric::{Container, Fabric, Host, Nic, Vm, VmSpec, wait_until};

const VM_MAC: &str = "52:54:00:03:82:d8";
const CONTAINER_MAC: &str = "00:16:3e:00:00:38";
const SOON: Duration = Duration::from_secs(20);

const NETWORK: &str = "<network><name>red</name><forward mode='open'/><bridge name='red-l2' stp='off' delay='0'/>
<mac address='00:00:00:11:11:10'/><dns enable='no'/>
<ip address='10.1.0.1' netmask='255.255.255.0'><dhcp><range start='10.1.0.10' end='10.1.0.100'/>
<host mac='52:54:00:03:82:d8' ip='10.1.0.60'/></dhcp></ip></network>";

/// Red on both hypervisors: comp1's bridge is a libvirt network's, comp2's is made here.
struct Red {
    comp1: &'static Host,
    comp2: &'static Host,
}

impl Red {
    fn up(fabric: &'static Fabric) -> Red {
        let red = Red { comp1: fabric.comp1(), comp2: fabric.comp2() };
        red.comp1.write("/run/red.xml", NETWORK);
        red.comp1.sh("virsh --quiet net-define /run/red.xml; virsh --quiet net-start red");
        red.comp2.sh("ip link add red-l2 address 00:00:00:11:11:10 type bridge stp_state 0
             ip address add 10.1.0.1/24 dev red-l2");
        for (number, host) in [(1, red.comp1), (2, red.comp2)] {
            host.sh(&format!(
                "ip link add red type vrf table 10
                 ip link set red up
                 for family in -4 -6; do
                     ip $family rule show pref 0 | grep -q . || continue
                     ip $family rule add pref 32765 table local; ip $family rule del pref 0
                 done
                 ip link set red-l2 type bridge vlan_default_pvid 0
                 ip link set red-l2 mtu 8950 addrgenmode none master red
                 # FRR 8.4 forgets the address of an interface that enters a VRF as young as this one: tell it again.
                 ip address replace 10.1.0.1/24 dev red-l2
                 ip link add red-l3 address 02:00:0a:00:00:0{number} mtu 8950 type bridge stp_state 0 vlan_default_pvid 0
                 ip link set red-l3 addrgenmode none master red
                 for segment in red-l2:20 red-l3:10; do
                     bridge=${{segment%:*}} vxlan=vxlan${{segment#*:}}
                     ip link add $vxlan mtu 8950 type vxlan id ${{segment#*:}} local 10.0.0.{number} dstport 4789 nolearning
                     ip link set $vxlan addrgenmode none master $bridge
                     bridge link set dev $vxlan learning off neigh_suppress on
                     ip link set $bridge up
                     ip link set $vxlan up
                 done
                 vtysh -c 'configure' -c 'vrf red' -c 'vni 10' -c 'exit-vrf' -c 'router bgp 64512 vrf red' \
                       -c 'address-family ipv4 unicast' -c 'redistribute connected' -c 'exit-address-family' \
                       -c 'address-family l2vpn evpn' -c 'advertise ipv4 unicast'"
            ));
        }
        for (host, peer) in [(red.comp1, "10.0.0.2"), (red.comp2, "10.0.0.1")] {
            wait_until("the peer's VTEP in red", SOON, || {
                host.show_text("zebra", "show evpn vni 20 json").contains(peer)
            });
        }
        red
    }

    /// What the hook will do for an endpoint.
    fn register(&self, host: &Host, device: &str, mac: &str, ip: &str) {
        host.sh(&format!(
            "bridge fdb replace {mac} dev {device} master static; ip neigh replace {ip} lladdr {mac} dev red-l2 nud permanent"
        ));
    }
}

impl Drop for Red {
    fn drop(&mut self) {
        self.comp1.run(&["sh", "-c", "virsh --quiet net-destroy red; virsh --quiet net-undefine red"]);
        for host in [self.comp1, self.comp2] {
            host.run(&["sh", "-c", "ip neigh flush dev red-l2 nud permanent; for link in vxlan20 vxlan10 red-l2 red-l3; do ip link del $link; done
                vtysh -c 'configure' -c 'no router bgp 64512 vrf red' -c 'vrf red' -c 'no vni 10'; ip link del red; vtysh -c 'configure' -c 'no vrf red'"]);
        }
    }
}

/// The host's end of the container's only NIC.
const CONTAINER_NIC: &str = "lxc.net.0.type = veth\nlxc.net.0.link = red-l2\nlxc.net.0.flags = up\nlxc.net.0.name = eth0\n\
    lxc.net.0.veth.pair = c1-red\nlxc.net.0.mtu = 8950\nlxc.net.0.hwaddr = 00:16:3e:00:00:38\n";

lab_test! {
    fn a_silent_vm_is_known_across_the_fabric(fabric) {
        let red = Red::up(fabric);
        let monitor = red.comp2.monitor();
        let mut vm = Vm::define(red.comp1, &VmSpec {
            name: "red",
            nics: vec![Nic::Network { mac: VM_MAC, network: "red" }],
            cmdline: "lab.ip0=10.1.0.60/24 lab.gw0=10.1.0.1 lab.silent",
            ..VmSpec::default()
        });
        vm.boot();
        red.register(red.comp1, "vnet0", VM_MAC, "10.1.0.60");

        monitor.wait(&[VM_MAC, "dev vxlan20", "extern_learn"], SOON);
        monitor.wait(&["10.1.0.60", "dev red-l2", VM_MAC, "extern_learn"], SOON);
        vm.wait_ready();

        let address = "lxc.net.0.ipv4.address = 10.1.0.38/24\nlxc.net.0.ipv4.gateway = 10.1.0.1\n";
        let container = Container::start(red.comp2, "c1", &format!("{CONTAINER_NIC}{address}"));
        red.register(red.comp2, "c1-red", CONTAINER_MAC, "10.1.0.38");
        wait_until("comp1's host route to the container", SOON, || {
            let routes = red.comp1.ok(&["ip", "route", "show", "vrf", "red"]);
            routes.lines().any(|route| route.starts_with("10.1.0.38 ") && route.contains("via 10.0.0.2 dev red-l3 proto bgp"))
        });
        assert!(red.comp1.show_text("zebra", "show ip route vrf red").contains("C>* 10.1.0.0/24"), "zebra knows the connected subnet");
        container.ok(&["ping", "-c", "2", "-W", "5", "10.1.0.60"]);
        let (code, output) = vm.exec("ping -c 2 -W 5 10.1.0.38");
        assert_eq!(code, 0, "{output}");
    }
}

lab_test! {
    fn a_container_gets_its_lease_from_the_other_hypervisor(fabric) {
        let red = Red::up(fabric);
        let container = Container::start(red.comp2, "c1", CONTAINER_NIC);
        let lease = container.ok(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "1", "-A", "1"]);
        assert!(lease.contains("lab-guest: lease eth0 10.1.0."), "{lease}");
        container.ok(&["ping", "-c", "1", "-W", "5", "10.1.0.1"]);
    }
}
