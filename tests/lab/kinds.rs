//! Every kind of NIC that a VM can have.

use crate::fabric::{Nic, Traces, Vm, VmSpec, wait_until};
use crate::tenant::{Choosing, GREEN, Network, Red, SOON, expect_advertised, joined, known, remembers};

lab_test! {
    /// One domain, three kinds: a tap that nobody enslaves, a bridge by name, a network of another tenant; addresses from its metadata.
    fn a_vm_has_nics_of_every_type(fabric) {
        const TAP: &str = "52:54:00:00:03:01";
        const BRIDGED: &str = "52:54:00:00:03:02";
        const GREEN_MAC: &str = "52:54:00:00:03:03";
        let red = Red::and(fabric, &[GREEN]);
        let _green = Network::shipped(red.comp1, "green");
        joined(fabric, 40);
        let _choosing = Choosing::on(red.comp1);
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
            wait_until(&format!("comp2 to know {mac}"), SOON, || known(red.comp2, tenant, vxlan, mac, ips, "10.0.0.1"));
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
        assert_eq!(comp1.sh("find /run/evpn-hook ! -type d ! -name '*.lock' ! -name host.json ! -path '*/hints/*'"), "");
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
