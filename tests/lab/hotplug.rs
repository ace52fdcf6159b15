//! What changes of a running VM's NICs, for which libvirt calls no qemu hook: the agent sees to it.

use std::time::{Duration, Instant};

use crate::fabric::{Agent, Fabric, Host, Monitor, Nic, Vm, VmSpec, wait_until};
use crate::tenant::{
    Choosing, Configured, GREEN, Network, RED, SOON, expect_advertised, joined, known, knows, remembers,
};

/// How long after virsh has returned the other hypervisor may not know it yet.
const FOLLOWS: Duration = Duration::from_secs(1);

const MAC: &str = "52:54:00:03:82:d8";
const IP: &str = "10.1.0.60";

/// The NICs that come and go, each with its addresses on red and on green.
const NETWORK: &str = "52:54:00:0a:00:01";
const BRIDGE: &str = "52:54:00:0a:00:02";
const ETHERNET: &str = "52:54:00:0a:00:03";

const METADATA: &str = "<guest><interface mac='52:54:00:03:82:d8'><ip address='10.1.0.60'/></interface>\
<interface mac='52:54:00:0a:00:01'><ip address='10.1.0.81'/></interface>\
<interface mac='52:54:00:0a:00:02'><ip address='10.1.0.82'/></interface>\
<interface mac='52:54:00:0a:00:03' network='red'><ip address='10.1.0.83'/></interface></guest>";

struct Scene {
    vm: Vm<'static>,
    comp1: &'static Host,
    comp2: &'static Host,
    there: Monitor,
    _networks: [Network<'static>; 2],
    _configured: Configured<'static>,
    _agent: Agent,
}

impl Scene {
    fn up(fabric: &'static Fabric) -> Scene {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let networks = [Network::shipped(comp1, "red"), Network::shipped(comp1, "green")];
        let configured = Configured::up(comp2, &[RED, GREEN]);
        joined(fabric, 20);
        let agent = Agent::start(comp1);
        let vm = Vm::start(
            comp1,
            &VmSpec {
                name: "red",
                nics: vec![Nic::Network { mac: MAC, network: "red" }],
                cmdline: "lab.ip0=10.1.0.60/24 lab.gw0=10.1.0.1 lab.silent",
                ..VmSpec::default()
            },
        );
        vm.wait_ready();
        expect_advertised(comp1, MAC, &[IP]);
        let there = comp2.monitor();
        Scene { vm, comp1, comp2, there, _networks: networks, _configured: configured, _agent: agent }
    }

    /// Runs a virsh command; then the other hypervisor's kernel says so, of each place, in time.
    fn virsh(&self, argv: &[&str], places: &[&[&str]]) {
        let from = self.there.transcript().len();
        self.comp1.ok(&[&["virsh", "--quiet"], argv].concat());
        let returned = Instant::now();
        let mut last = Duration::ZERO;
        for place in places {
            let line = self.there.transcript().wait_from(from, place, SOON).1;
            last = last.max(line.at.saturating_duration_since(returned));
        }
        eprintln!("lab: virsh {}: comp2 followed {} ms after its return", argv.join(" "), last.as_millis());
        assert!(last < FOLLOWS, "virsh {}: {last:?}", argv.join(" "));
    }

    fn comes(&self, tenant: &str, vxlan: &str, l3: &str, mac: &str, ip: &str, argv: &[&str]) {
        let (bridge, vxlan_dev, l3) = (format!("dev {tenant}-l2"), format!("dev {vxlan}"), format!("dev {l3}"));
        self.virsh(
            argv,
            &[&[mac, &vxlan_dev, "extern_learn"], &[ip, &bridge, mac, "extern_learn"], &[ip, "10.0.0.1", &l3]],
        );
        assert!(knows(self.comp2, tenant, vxlan, mac, &[ip], "10.0.0.1"));
    }

    fn goes(&self, mac: &str, ip: &str, argv: &[&str]) {
        self.virsh(
            argv,
            &[&["Deleted", mac, "dev vxlan"], &["Deleted", ip, "dev red-l2"], &["Deleted", ip, "dev red-l3"]],
        );
        wait_until("both to forget it", SOON, || !remembers(self.comp2, mac) && !remembers(self.comp1, mac));
    }

    fn file(&self, name: &str, xml: &str) -> String {
        let path = format!("/run/{name}.xml");
        self.comp1.write(&path, xml);
        path
    }
}

lab_test! {
    fn nics_come_go_and_move(fabric) {
        let scene = Scene::up(fabric);
        let _choosing = Choosing::on(scene.comp1);
        scene.comp1.ok(&["virsh", "--quiet", "metadata", "red", "--live", "--uri", "urn:evpn-hook:1", "--key", "evpn", "--set", METADATA]);
        let interface = |kind: &str, mac: &str, inner: &str| {
            format!("<interface type='{kind}'><mac address='{mac}'/>{inner}<model type='virtio'/><rom enabled='no'/></interface>")
        };
        let network = scene.file("network", &interface("network", NETWORK, "<source network='red'/>"));
        let bridge = scene.file("bridge", &interface("bridge", BRIDGE, "<source bridge='red-l2'/>"));
        let ethernet = scene.file("ethernet", &interface("ethernet", ETHERNET, "<target dev='tap-e'/>"));
        let nics = [(NETWORK, "10.1.0.81", &network), (BRIDGE, "10.1.0.82", &bridge), (ETHERNET, "10.1.0.83", &ethernet)];
        for (mac, ip, file) in &nics {
            scene.comes("red", "vxlan20", "red-l3", mac, ip, &["attach-device", "red", file, "--live"]);
        }
        // What the guest itself says, and what only the link does, is nobody's business here.
        let from = scene.there.transcript().len();
        for argv in [&["domif-setlink", "red", MAC, "down"][..], &["domif-setlink", "red", MAC, "up"], &["suspend", "red"], &["resume", "red"]] {
            scene.comp1.ok(&[&["virsh", "--quiet"], argv].concat());
            assert!(knows(scene.comp2, "red", "vxlan20", MAC, &[IP], "10.0.0.1"), "{argv:?}");
            expect_advertised(scene.comp1, MAC, &[IP]);
        }
        let lost: Vec<_> = scene.there.transcript().lines()[from..].iter().filter(|l| l.text.contains("Deleted")).cloned().collect();
        assert!(lost.is_empty(), "{lost:?}");
        // While it is suspended an entry is lost: it is there again when it is resumed, and before.
        scene.comp1.ok(&["virsh", "--quiet", "suspend", "red"]);
        scene.comp1.ok(&["ip", "neigh", "del", IP, "dev", "red-l2"]);
        scene.comp1.ok(&["virsh", "--quiet", "resume", "red"]);
        wait_until("comp2 to know it again", SOON, || known(scene.comp2, "red", "vxlan20", MAC, &[IP], "10.0.0.1"));

        for (mac, ip, file) in &nics {
            scene.goes(mac, ip, &["detach-device", "red", file, "--live"]);
        }
    }
}

lab_test! {
    fn a_nic_moves_to_another_network(fabric) {
        let scene = Scene::up(fabric);
        let metadata = format!("<guest><interface mac='{MAC}'><ip address='10.2.0.60'/></interface></guest>");
        scene.comp1.ok(&["virsh", "--quiet", "metadata", "red", "--live", "--uri", "urn:evpn-hook:1", "--key", "evpn", "--set", &metadata]);
        let file = scene.file("green", &format!("<interface type='network'><mac address='{MAC}'/><source network='green'/><model type='virtio'/><rom enabled='no'/></interface>"));
        scene.comes("green", "vxlan40", "green-l3", MAC, "10.2.0.60", &["update-device", "red", &file, "--live"]);
        wait_until("comp2's red to forget it", SOON, || {
            !scene.comp2.sh("bridge fdb show dev vxlan20; ip neigh show dev red-l2").contains(MAC)
        });
        assert!(!scene.comp1.ok(&["ip", "neigh", "show", "dev", "red-l2"]).contains(MAC));
        scene.comp1.ok(&["evpn-hook", "status", "--check"]);
        scene.vm.destroy();
        wait_until("both to forget it", SOON, || !remembers(scene.comp2, MAC) && !remembers(scene.comp1, MAC));
    }
}
