//! Networks beside each other on one hypervisor: in one VRF, or with the same addresses in two.

use crate::fabric::{Container, Traces, wait_until};
use crate::tenant::{BLUE_XML, Network, SOON, container_on, network_status};

const SECOND: &str = "<network><name>red2</name><metadata>
<evpn:network xmlns:evpn='urn:evpn-hook:1' vni='22'><evpn:vrf name='red' table='10' vni='10'/></evpn:network></metadata>
<forward mode='open'/><bridge name='red2-l2' stp='off' delay='0'/><mac address='00:00:00:11:11:12'/><dns enable='no'/>
<ip address='10.1.1.1' netmask='255.255.255.0'/></network>";

lab_test! {
    fn a_vrf_lives_as_long_as_a_network_is_in_it(fabric) {
        let comp1 = fabric.comp1();
        let before = Traces::of(comp1);
        let first = Network::shipped(comp1, "red");
        let second = Network::start_xml(comp1, "red2", SECOND);
        // zebra has an interface's address some ms before its route.
        let connected = |subnet: &str| comp1.show_text("zebra", "show ip route vrf red").contains(&format!("C>* {subnet}"));
        wait_until("both subnets in the VRF", SOON, || connected("10.1.0.0/24") && connected("10.1.1.0/24"));

        first.remove();
        wait_until("the second alone", SOON, || !connected("10.1.0.0/24") && connected("10.1.1.0/24"));
        let status = network_status(comp1, "red2");
        assert_eq!(status["state"], "up", "{status:#}");

        second.remove();
        before.assert_unchanged(comp1);
    }
}

lab_test! {
    fn two_tenants_have_the_same_subnet_on_one_hypervisor(fabric) {
        let comp1 = fabric.comp1();
        let _red = Network::shipped(comp1, "red");
        let _blue = Network::start_xml(comp1, "blue", BLUE_XML);
        for tenant in ["red", "blue"] {
            wait_until(&format!("{tenant}'s own subnet in its VRF"), SOON, || {
                let routes = comp1.show_text("zebra", &format!("show ip route vrf {tenant}"));
                routes.contains(&format!("C>* 10.1.0.0/24 is directly connected, {tenant}-l2"))
            });
        }
        comp1.ok(&["evpn-hook", "status", "--check"]);
        let blue = container_on("evpn-hook", "00:16:3e:00:00:51", None);
        let link = "lxc.net.0.type = veth\nlxc.net.0.link = blue-l2\nlxc.net.0.flags = up\nlxc.net.0.name = eth0\n";
        let container = Container::start(comp1, "blue", &format!("{link}{blue}"));
        let lease = container.ok(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "1", "-A", "1"]);
        let host: u8 = lease.trim().rsplit('.').next().and_then(|host| host.parse().ok()).unwrap_or_else(|| panic!("{lease}"));
        assert!((150..=200).contains(&host), "a lease of blue's range: {lease}");
    }
}
