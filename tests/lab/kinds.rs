//! Every kind of NIC that a guest can have.

use crate::fabric::{Container, Nic, Traces, Vm, VmSpec, wait_until};
use crate::tenant::{GREEN, Network, Red, SOON, expect_advertised, joined, knows, remembers};

lab_test! {
    /// One domain, three kinds: a tap that nobody enslaves, a bridge by name, a network of another tenant; addresses from its metadata.
    fn a_vm_has_nics_of_every_type(fabric) {
        const TAP: &str = "52:54:00:00:03:01";
        const BRIDGED: &str = "52:54:00:00:03:02";
        const GREEN_MAC: &str = "52:54:00:00:03:03";
        let red = Red::and(fabric, &[GREEN]);
        let _green = Network::shipped(red.comp1, "green");
        joined(fabric, 40);
        let vm = Vm::define(red.comp1, &VmSpec {
            name: "kinds",
            nics: vec![
                Nic::Ethernet { mac: TAP, tap: "tap-kinds" },
                Nic::Bridge { mac: BRIDGED, bridge: "red-l2" },
                Nic::Network { mac: GREEN_MAC, network: "green" },
            ],
            metadata: "<evpn:guest xmlns:evpn='urn:evpn-hook:1'>
                <evpn:interface mac='52:54:00:00:03:01' network='red'><evpn:ip address='10.1.0.71'/><evpn:ip address='fd00:1::71'/></evpn:interface>
                <evpn:interface mac='52:54:00:00:03:02'><evpn:ip address='10.1.0.72'/></evpn:interface>
                <evpn:interface mac='52:54:00:00:03:03'><evpn:ip address='10.2.0.73'/></evpn:interface></evpn:guest>",
            ..VmSpec::default()
        });
        vm.start_paused();
        assert!(red.comp1.ok(&["ip", "link", "show", "tap-kinds"]).contains("master red-l2 "));
        let nics: [(_, _, &[&str], _); 3] = [
            (TAP, "red", &["10.1.0.71", "fd00:1::71"], "vxlan20"),
            (BRIDGED, "red", &["10.1.0.72"], "vxlan20"),
            (GREEN_MAC, "green", &["10.2.0.73"], "vxlan40"),
        ];
        for (mac, tenant, ips, vxlan) in nics {
            wait_until(&format!("comp2 to know {mac}"), SOON, || knows(red.comp2, tenant, vxlan, mac, ips, "10.0.0.1"));
            expect_advertised(red.comp1, mac, ips);
        }
        vm.destroy();
        for (mac, ..) in nics {
            assert!(!remembers(red.comp1, mac), "{mac} is still on comp1");
            wait_until(&format!("comp2 to forget {mac}"), SOON, || !remembers(red.comp2, mac));
        }
    }
}

lab_test! {
    fn a_vm_on_a_network_of_libvirts_alone_is_left_alone(fabric) {
        let comp1 = fabric.comp1();
        let plain = "<network><name>plain</name><bridge name='virbr9'/><ip address='10.8.0.1' netmask='255.255.255.0'/></network>";
        let _plain = Network::start_xml(comp1, "plain", plain);
        let before = Traces::of(comp1);
        let vm = Vm::define(comp1, &VmSpec {
            name: "plain",
            nics: vec![Nic::Network { mac: "52:54:00:00:08:01", network: "plain" }],
            ..VmSpec::default()
        });
        vm.start_paused();
        assert_eq!(comp1.sh("find /run/evpn-hook ! -type d ! -name '*.lock' ! -name host.json"), "");
        assert_eq!(comp1.ok(&["ip", "neigh", "show", "nud", "permanent", "dev", "virbr9"]), "");
        let xml = comp1.ok(&["virsh", "dumpxml", "plain"]);
        for operation in ["prepare", "start", "started", "stopped", "release"] {
            let hook = comp1.run_with(&["evpn-hook", "qemu", "plain", operation, "begin", "-"], &xml);
            assert_eq!((hook.code, &*hook.stdout, &*hook.stderr), (0, "", ""), "{operation}");
        }
        drop(vm);
        before.assert_unchanged(comp1);
    }
}

lab_test! {
    /// Its first NIC has no link (evpn-hook enslaves it), its second has one.
    fn a_container_has_two_nics_and_reboots(fabric) {
        let red = Red::and(fabric, &[GREEN]);
        let _green = Network::without_dhcp(red.comp1, "green");
        joined(fabric, 40);
        let container = Container::start(red.comp2, "c2", "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf
lxc.net.0.type = veth
lxc.net.0.script.up = /usr/bin/evpn-hook lxc --network red
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.hwaddr = 00:16:3e:00:02:01
lxc.net.0.ipv4.address = 10.1.0.81/24
lxc.net.1.type = veth
lxc.net.1.link = green-l2
lxc.net.1.flags = up
lxc.net.1.name = eth1
lxc.net.1.hwaddr = 00:16:3e:00:02:02
lxc.net.1.ipv4.address = 10.2.0.82/24
");
        let expect_known = || {
            for (mac, tenant, vxlan, ip) in [("00:16:3e:00:02:01", "red", "vxlan20", "10.1.0.81"), ("00:16:3e:00:02:02", "green", "vxlan40", "10.2.0.82")] {
                wait_until(&format!("comp1 to know {ip}"), SOON, || knows(red.comp1, tenant, vxlan, mac, &[ip], "10.0.0.2"));
                expect_advertised(red.comp2, mac, &[ip]);
            }
        };
        expect_known();
        container.ok(&["ping", "-c", "1", "-W", "5", "10.1.0.1"]);
        container.ok(&["ping", "-c", "1", "-W", "5", "10.2.0.1"]);

        let before = container.pid();
        container.run(&["reboot", "-f"]);
        wait_until("the container's new init", SOON, || container.pid().is_some_and(|pid| Some(pid) != before));
        expect_known();

        container.stop();
        for mac in ["00:16:3e:00:02:01", "00:16:3e:00:02:02"] {
            assert!(!remembers(red.comp2, mac), "{mac} is still on comp2");
            wait_until(&format!("comp1 to forget {mac}"), SOON, || !remembers(red.comp1, mac));
        }
    }
}

lab_test! {
    fn a_container_that_fails_to_start_leaves_nothing(fabric) {
        const MAC: &str = "00:16:3e:00:00:39";
        let red = Red::up(fabric);
        let before = Traces::of(red.comp2);
        let nic = "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\n\
            lxc.net.0.script.up = /usr/bin/evpn-hook lxc --network red\nlxc.net.0.flags = up\n\
            lxc.net.0.hwaddr = 00:16:3e:00:00:39\nlxc.net.0.ipv4.address = 10.1.0.39/24\n";
        // The first fails before it is registered, with its veth on the bridge; the second after.
        for (failure, registered) in [("lxc.hook.start = /bin/false", false), ("lxc.init.cmd = /bin/nothing", true)] {
            let monitor = red.comp2.monitor();
            let _container = Container::define(red.comp2, "c3", &format!("{nic}{failure}"));
            let start = red.comp2.run(&["lxc-start", "--name", "c3"]);
            assert_ne!(start.code, 0, "{failure}: {start:?}");
            monitor.wait(&["Deleted", "veth"], SOON);
            wait_until("LXC to clean up", SOON, || Traces::of(red.comp2) == before);
            let was_registered = monitor.transcript().lines().iter().any(|line| line.text.contains("10.1.0.39 "));
            assert_eq!(was_registered, registered, "{failure}");
            assert!(!remembers(red.comp2, MAC), "{failure}");
            wait_until("comp1 to forget it", SOON, || !remembers(red.comp1, MAC));
        }
    }
}
