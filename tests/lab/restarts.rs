//! What dies and comes back, with guests running on: afterwards all tables are as before, without a hand on it.

use std::time::{Duration, Instant};

use crate::fabric::{Agent, Container, Fabric, Host, Monitor, Nic, Vm, VmSpec, wait_until};
use crate::tenant::{Red, container_on, expect_advertised, knows};

const VM_MAC: &str = "52:54:00:03:82:d8";
const VM_IP: &str = "10.1.0.60";
const MAC: &str = "00:16:3e:00:00:38";
const IP: &str = "10.1.0.38";
const FAR_MAC: &str = "00:16:3e:00:00:39";
const FAR_IP: &str = "10.1.0.39";

/// For a fabric of slow machines: FRR's own timers are in it. The times that count are printed.
const BACK: Duration = Duration::from_secs(40);
/// The longest that an entry may be lost while FRR lives.
const LOST: Duration = Duration::from_secs(2);

/// All that a hypervisor holds of the tenant, in the kernel and in FRR.
#[derive(PartialEq, Eq)]
struct Tables(Vec<String>);

impl Tables {
    fn of(host: &Host) -> Tables {
        let kernel = host.sh("bridge fdb show br red-l2 | grep -E 'static|extern_learn|dst' || true
             ip neigh show dev red-l2 | grep -E 'PERMANENT|extern_learn' || true
             ip route show vrf red; ip -br -d link show | grep -E 'red|vxlan' | sed 's/UNKNOWN/UP/' | cut -d' ' -f1-12
             ip address show red-l2 | grep -o 'inet6* [^ ]*' || true; ip rule
             bridge -d link show dev vxlan20 | grep -o 'learning [a-z]* .*neigh_suppress [a-z]*' || true");
        // Numbers that count up, and FRR's nexthop ids, say nothing.
        let plain = |line: &str| {
            let words = line.split_whitespace();
            words.filter(|word| !word.starts_with("nhid") && word.parse::<u64>().is_err()).collect::<Vec<_>>().join(" ")
        };
        let mut lines: Vec<String> = kernel.lines().map(plain).collect();
        for daemon in ["zebra", "bgpd"] {
            let config = host.show_text(daemon, "show running-config");
            lines.extend(config.lines().filter(|line| *line != "!").map(|line| format!("{daemon}: {}", line.trim())));
        }
        let routes = host.show_text("bgpd", "show bgp l2vpn evpn");
        let routes = routes.lines().filter(|line| line.starts_with("*") && line.contains('['));
        lines.extend(routes.map(|line| format!("route {}", line.split_whitespace().last().unwrap_or_default())));
        // What the bridge overheard of a guest (its link-local address) comes and goes by itself.
        lines.retain(|line| !line.contains("fe80:"));
        lines.sort();
        lines.dedup();
        Tables(lines)
    }

    fn differences(&self, now: &Tables) -> String {
        let missing = |from: &Tables, of: &Tables, sign| {
            of.0.iter().filter(|l| !from.0.contains(l)).map(|l| format!("{sign} {l}\n")).collect::<String>()
        };
        missing(now, self, '-') + &missing(self, now, '+')
    }
}

/// Tenant red with a VM and a container on comp1, which has an agent, and a container on comp2.
/// The agent goes last: it has to see how the others end.
struct Scene {
    near: Container<'static>,
    _far: Container<'static>,
    _vm: Vm<'static>,
    red: Red,
    agent: Agent,
    before: [Tables; 2],
}

impl Scene {
    fn up(fabric: &'static Fabric) -> Scene {
        let red = Red::up(fabric);
        let agent = Agent::start(red.comp1);
        let vm = Vm::start(
            red.comp1,
            &VmSpec {
                name: "red",
                nics: vec![Nic::Network { mac: VM_MAC, network: "red" }],
                cmdline: "lab.ip0=10.1.0.60/24 lab.gw0=10.1.0.1 lab.silent",
                ..VmSpec::default()
            },
        );
        let near = Container::start(red.comp1, "near", &container_on("red", MAC, Some(IP)));
        let far = Container::start(red.comp2, "far", &container_on("red", FAR_MAC, Some(FAR_IP)));
        vm.wait_ready();
        expect_advertised(red.comp1, VM_MAC, &[VM_IP]);
        wait_until("both hypervisors to know all", BACK, || {
            Scene::far_knows(&red) && knows(red.comp1, "red", "vxlan20", FAR_MAC, &[FAR_IP], "10.0.0.2")
        });
        near.ok(&["ping", "-c", "1", "-W", "5", FAR_IP]);
        let before = [Tables::of(red.comp1), Tables::of(red.comp2)];
        Scene { near, _far: far, _vm: vm, red, agent, before }
    }

    fn far_knows(red: &Red) -> bool {
        [(VM_MAC, VM_IP), (MAC, IP)].iter().all(|(mac, ip)| knows(red.comp2, "red", "vxlan20", mac, &[ip], "10.0.0.1"))
    }

    /// Waits until both hypervisors are as they were; says how long that took from `since`.
    fn expect_back(&self, what: &str, since: Instant) {
        let hosts = [self.red.comp1, self.red.comp2];
        wait_until(&format!("the entries of comp1's guests on comp2 after {what}"), BACK, || {
            Scene::far_knows(&self.red)
        });
        eprintln!("lab: {what}: comp2 has all entries {} ms after", since.elapsed().as_millis());
        let end = Instant::now() + BACK;
        for (host, before) in hosts.iter().zip(&self.before) {
            loop {
                let differences = before.differences(&Tables::of(host));
                if differences.is_empty() {
                    break;
                }
                assert!(Instant::now() < end, "{what}: {} is not as it was:\n{differences}", host.name());
            }
        }
        eprintln!("lab: {what}: all tables as before {} ms after", since.elapsed().as_millis());
        self.near.ok(&["ping", "-c", "1", "-W", "5", FAR_IP]);
        self.near.ok(&["ping", "-c", "1", "-W", "5", VM_IP]);
    }
}

/// How long the other hypervisor was without one of the entries of comp1's guests, at most: what it says of each deletion and of the next
/// coming of the same.
fn outage(monitor: &Monitor, from: usize) -> Duration {
    let lines = &monitor.transcript().lines()[from..];
    let places = [(VM_MAC, VM_IP), (MAC, IP)]
        .into_iter()
        .flat_map(|(mac, ip)| [vec![mac, "dev vxlan20"], vec![ip, "dev red-l2"], vec![ip, "dev red-l3"]]);
    let mut longest = Duration::ZERO;
    for place in places {
        let mut gone = None;
        for line in lines.iter().filter(|line| place.iter().all(|part| line.text.contains(part))) {
            match (line.text.contains("Deleted"), gone) {
                (true, _) => gone = Some(line.at),
                (false, Some(at)) => {
                    longest = longest.max(line.at - at);
                    gone = None;
                }
                (false, None) => {}
            }
        }
    }
    longest
}

lab_test! {
    fn frr_dies_and_comes_back(fabric) {
        let scene = Scene::up(fabric);
        let comp1 = scene.red.comp1;
        for (what, signal, daemons) in [
            ("kill -9 zebra", "KILL", &["zebra"][..]),
            ("kill -9 bgpd", "KILL", &["bgpd"]),
            ("kill -9 zebra and bgpd", "KILL", &["zebra", "bgpd"]),
            ("a restart of FRR", "TERM", &["zebra", "bgpd"]),
        ] {
            comp1.without_daemons(signal, daemons).start();
            scene.expect_back(what, Instant::now());
        }
    }
}

lab_test! {
    fn libvirtd_and_the_agent_die_and_come_back(fabric) {
        let mut scene = Scene::up(fabric);
        let comp1 = scene.red.comp1;
        let pid = comp1.ok(&["cat", "/run/libvirt/qemu/red.pid"]);
        let there = scene.red.comp2.monitor();
        for signal in ["KILL", "TERM"] {
            comp1.restart_libvirtd(signal);
            scene.expect_back(&format!("kill -{signal} libvirtd"), Instant::now());
            assert_eq!(comp1.ok(&["cat", "/run/libvirt/qemu/red.pid"]), pid, "the VM runs on");
        }
        let lost = |text: &str| text.contains("Deleted") && [VM_MAC, VM_IP, MAC, IP].iter().any(|part| text.contains(part));
        let lost: Vec<_> = there.transcript().lines().into_iter().filter(|line| lost(&line.text)).collect();
        assert!(lost.is_empty(), "nothing was ever lost: {lost:?}");

        // Without its agent the host drifts; with it again it is mended.
        scene.agent.kill();
        comp1.sh("ip neigh del 10.1.0.60 dev red-l2; bridge fdb del 00:16:3e:00:00:38 dev $(bridge fdb | sed -n 's/^00:16:3e:00:00:38 dev \\(veth[^ ]*\\) .*/\\1/p' | head -n1) master
            vtysh -c 'conf t' -c 'vrf red' -c 'no vni 10'");
        wait_until("comp2 to lose them", BACK, || !Scene::far_knows(&scene.red));
        let since = Instant::now();
        scene.agent = Agent::start(comp1);
        scene.expect_back("a new agent", since);

        // With the agent what is taken away comes back at once.
        for damage in [
            "ip neigh del 10.1.0.60 dev red-l2",
            "ip link set vxlan20 down",
            "ip link del vxlan20",
            "ip link set red-l2 nomaster",
            "bridge link set dev vxlan20 learning on neigh_suppress off",
            "ip address del 10.1.0.1/24 dev red-l2",
        ] {
            let from = there.transcript().len();
            let since = Instant::now();
            comp1.sh(damage);
            scene.expect_back(damage, since);
            let outage = outage(&there, from);
            eprintln!("lab: {damage}: comp2 was without an entry for {} ms", outage.as_millis());
            assert!(outage < LOST, "{damage}: an entry was lost for {outage:?}");
        }
    }
}

lab_test! {
    fn a_host_stops_and_returns(fabric) {
        let scene = Scene::up(fabric);
        let comp1 = scene.red.comp1;
        // As `systemctl restart networking` and a cable that was out: every device goes down; the underlay's configuration comes back
        // by whoever keeps it, the tenants' devices by nobody but us.
        comp1.sh("ip -6 address show dev lo scope global | sed -n 's/.*inet6 \\([^ ]*\\) .*/\\1/p' >/run/lo6
            for device in /sys/class/net/*; do ip link set ${device##*/} down; done");
        wait_until("comp2 to lose comp1", BACK, || !Scene::far_knows(&scene.red));
        let since = Instant::now();
        comp1.sh("ip link set lo up; for address in $(cat /run/lo6); do ip address replace $address dev lo; done; ip link set spine1 up");
        scene.expect_back("all devices down and the underlay up again", since);
    }
}
