//! Port security across the fabric: what a guest may not send reaches nobody and changes nobody's tables, and what it may goes on.

use std::collections::BTreeSet;

use crate::fabric::{Agent, Container, Fabric, Host, Nic, Probe, Vm, VmSpec, wait_until};
use crate::forge::{Frame, Port, Who, fair, forged, forged_macs, leaked};
use crate::tenant::{Network, SOON, endpoint_status, expect_advertised, joined, known, remembers};

const GATEWAY: [&str; 3] = ["00:00:00:11:11:70", "10.3.0.1", "fd00:3::1"];
const FORGER: [&str; 3] = ["00:16:3e:00:70:01", "10.3.0.111", "fd00:3::a1"];
const NEAR: [&str; 3] = ["00:16:3e:00:70:02", "10.3.0.112", "fd00:3::a2"];
const FAR: [&str; 3] = ["00:16:3e:00:70:03", "10.3.0.113", "fd00:3::a3"];

fn who([mac, v4, v6]: [&str; 3]) -> Who {
    Who::new(mac, v4, v6)
}

/// Tenant dual with `port_security='mac-ip'` on both hypervisors; comp1's dnsmasq gives addresses.
struct Dual {
    comp1: &'static Host,
    comp2: &'static Host,
    _networks: [Network<'static>; 2],
    _agents: [Agent; 2],
}

impl Dual {
    fn up(fabric: &'static Fabric) -> Dual {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let secured = |host: &Host, more: &str| {
            let file = "/usr/share/evpn-hook/libvirt-networks/dual.xml";
            host.sh(&format!("sed \"s/<evpn:network /&port_security='mac-ip' /; {more}\" {file}"))
        };
        let networks = [
            Network::start_xml(comp1, "dual", &secured(comp1, "")),
            Network::start_xml(comp2, "dual", &secured(comp2, "/^ *<dhcp>$/,/<\\/dhcp>/d")),
        ];
        joined(fabric, 80);
        Dual { comp1, comp2, _networks: networks, _agents: [Agent::start(comp1), Agent::start(comp2)] }
    }

    fn container(host: &'static Host, name: &str, [mac, v4, v6]: [&str; 3]) -> Container<'static> {
        Container::start(
            host,
            name,
            &format!("{}lxc.net.0.ipv4.address = {v4}/24\nlxc.net.0.ipv6.address = {v6}/64\n", on(mac)),
        )
    }

    /// What both hosts hold of who is where, but for what only the kernels themselves remember for a while.
    fn tables(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for host in [self.comp1, self.comp2] {
            let text = host.ok(&["bridge", "fdb", "show"]) + &host.ok(&["ip", "neigh", "show"]);
            let lasting = |line: &&str| line.contains("dual-l2") || line.contains("vxlan80");
            all.extend(text.lines().filter(lasting).map(|line| {
                // STALE, REACHABLE and the like change by themselves.
                let states = ["STALE", "REACHABLE", "DELAY", "PROBE", "router", "used"];
                let words = line.split_whitespace().filter(|word| !states.contains(word));
                format!("{}: {}", host.name(), words.collect::<Vec<_>>().join(" "))
            }));
        }
        all
    }
}

fn on(mac: &str) -> String {
    format!(
        "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\nlxc.net.0.link = dual-l2\n\
         lxc.net.0.flags = up\nlxc.net.0.name = eth0\nlxc.net.0.hwaddr = {mac}\n"
    )
}

fn eth0(container: &Container) -> Port {
    container.inside(|| Port::open("eth0"))
}

fn guarded(host: &Host, mac: &str) -> bool {
    host.run(&["nft", "list", "set", "bridge", "evpn-hook", "macs"]).stdout.contains(mac)
}

fn locked(host: &Host, mac: &str) -> bool {
    let device = endpoint_status(host, mac)["device"].as_str().expect("a device").to_owned();
    host.ok(&["bridge", "-d", "link", "show", "dev", &device]).contains("locked on")
}

lab_test! {
    fn nothing_forged_leaves_its_port(fabric) {
        let dual = Dual::up(fabric);
        let forger = Dual::container(dual.comp1, "forger", FORGER);
        let near = Dual::container(dual.comp1, "near", NEAR);
        let far = Dual::container(dual.comp2, "far", FAR);
        for (host, [mac, v4, v6]) in [(dual.comp1, FORGER), (dual.comp1, NEAR), (dual.comp2, FAR)] {
            expect_advertised(host, mac, &[v4, v6]);
        }
        for (host, vtep, [mac, v4, v6]) in [(dual.comp2, "10.0.0.1", FORGER), (dual.comp1, "10.0.0.2", FAR)] {
            wait_until(&format!("{mac} at {}", host.name()), SOON, || known(host, "dual", "vxlan80", mac, &[v4, v6], vtep));
        }
        let reach = |guest: &Container| guest.reaches(Probe::Ping, &[GATEWAY[1], FORGER[1], NEAR[1], FAR[1]]).len();
        assert_eq!([&forger, &near, &far].map(reach), [4; 3], "each reaches all, itself included");

        let (from, bridges) = (eth0(&forger), [dual.comp1, dual.comp2].map(|host| host.inside(|| Port::open("dual-l2"))));
        let (at_near, at_far) = (eth0(&near), eth0(&far));
        let ports: [(&str, &Port); 4] =
            [("near", &at_near), ("far", &at_far), ("comp1", &bridges[0]), ("comp2", &bridges[1])];
        let before = dual.tables();
        let mut tried = 0;
        for victim in [NEAR, FAR] {
            for frames in [forged_macs, forged].map(|forge| forge(who(FORGER), who(victim), who(GATEWAY))) {
                tried += frames.len();
                assert_eq!(leaked(&from, &frames, who(FORGER), &ports), []);
            }
        }
        assert_eq!(dual.tables(), before, "no host's FDB or neighbours say anything else");
        println!("port security: {tried} forged frames, none left its port, to 2 guests and 2 hosts");
        // What is fair comes through, on this host all of it; the tunnel's port answers ARP and ND itself.
        let whats = |frames: &[Frame]| frames.iter().map(|frame| frame.what).collect::<BTreeSet<_>>();
        let frames = fair(who(FORGER), who(NEAR));
        let came = leaked(&from, &frames, who(FORGER), &ports);
        let at = |name: &str| came.iter().filter(|(at, _)| at == name).map(|(_, what)| *what).collect::<BTreeSet<_>>();
        assert_eq!(at("near"), whats(&frames));
        for what in ["IPv4", "IPv6", "DHCP discover", "QEMU's RARP announcement"] {
            assert!(at("far").contains(what), "{what} is not in {:?}", at("far"));
        }
        assert_eq!([&forger, &near, &far].map(reach), [4; 3]);
        // Nor has the agent believed anything.
        for (host, [mac, v4, v6]) in [(dual.comp1, FORGER), (dual.comp1, NEAR), (dual.comp2, FAR)] {
            expect_advertised(host, mac, &[v4, v6]);
        }

        // Somebody takes all rules out, as a firewall does when it is started anew.
        dual.comp1.ok(&["nft", "flush", "ruleset"]);
        wait_until("the agent to lay them anew", SOON, || guarded(dual.comp1, FORGER[0]) && guarded(dual.comp1, NEAR[0]));
        dual.comp1.ok(&["evpn-hook", "status", "--check"]);
        let frames = forged(who(FORGER), who(FAR), who(GATEWAY));
        assert_eq!(leaked(&from, &frames, who(FORGER), &ports), []);
        drop(forger);
        assert!(!guarded(dual.comp1, FORGER[0]) && guarded(dual.comp1, NEAR[0]));
        wait_until("comp2 to forget", SOON, || !remembers(dual.comp2, FORGER[0]));
    }
}

lab_test! {
    fn a_guest_that_does_as_it_should_goes_on(fabric) {
        const VM: [&str; 3] = ["52:54:00:00:70:04", "10.3.0.114", "fd00:3::a4"];
        const CLIENT: &str = "00:16:3e:00:70:05";
        let dual = Dual::up(fabric);
        let far = Dual::container(dual.comp2, "far", FAR);
        // DHCP: nothing is known of it before, and it may send nothing but what asks for an address.
        let client = Container::start(dual.comp1, "client", &on(CLIENT));
        assert!(guarded(dual.comp1, CLIENT));
        client.ok(&["ip", "address", "add", "10.3.0.120/24", "dev", "eth0"]);
        assert_eq!(client.reaches(Probe::Ping, &[GATEWAY[1], FAR[1]]), [""; 0], "an address that nobody gave it");
        client.ok(&["ip", "address", "del", "10.3.0.120/24", "dev", "eth0"]);
        let lease = client.ok(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "1"]);
        let given = lease.split_whitespace().find(|word| word.starts_with("10.3.0.")).expect("a lease");
        let given = given.trim_end_matches(',');
        wait_until("the lease to be let through", SOON, || client.reaches(Probe::Ping, &[GATEWAY[1], FAR[1]]).len() == 2);
        expect_advertised(dual.comp1, CLIENT, &[given]);

        let mut vm = Vm::start(dual.comp1, &VmSpec {
            name: "mover",
            nics: vec![Nic::Network { mac: VM[0], network: "dual" }],
            cmdline: "lab.ip0=10.3.0.114/24 lab.gw0=10.3.0.1 lab.ip6_0=fd00:3::a4/64",
            metadata: &format!(
                "<evpn:guest xmlns:evpn='urn:evpn-hook:1'><evpn:interface mac='{}'><evpn:ip address='{}'/><evpn:ip address='{}'/></evpn:interface></evpn:guest>",
                VM[0], VM[1], VM[2]
            ),
            ..VmSpec::default()
        });
        vm.wait_ready();
        let forge = format!("ip address add 10.3.0.121/24 dev eth0; ping -c 2 -W 1 -I 10.3.0.121 {}; ip address del 10.3.0.121/24 dev eth0", FAR[1]);
        let does_as_it_should = |vm: &mut Vm| {
            let (host, other) = (vm.host(), if vm.host().name() == "comp1" { dual.comp2 } else { dual.comp1 });
            // Its link-local address is learned at some moment of its own.
            wait_until("status to find nothing", SOON, || host.run(&["evpn-hook", "status", "--check"]).code == 0);
            expect_advertised(host, VM[0], &[VM[1], VM[2]]);
            assert!(guarded(host, VM[0]) && locked(host, VM[0]), "on {}", host.name());
            assert!(!guarded(other, VM[0]), "on {}", other.name());
            let (code, output) = vm.exec(&format!("ping -c 3 -W 2 {} && ping -c 3 -W 2 {} && ping6 -c 3 -W 2 {}", GATEWAY[1], FAR[1], FAR[2]));
            assert_eq!(code, 0, "{output}");
            let (_, output) = vm.exec(&forge);
            assert!(output.contains("100% packet loss"), "{output}");
        };
        does_as_it_should(&mut vm);
        // libvirt puts its ports right when it comes back.
        dual.comp1.restart_libvirtd("TERM");
        does_as_it_should(&mut vm);
        vm.migrate(dual.comp2);
        wait_until("comp1 to see it at comp2", SOON, || known(dual.comp1, "dual", "vxlan80", VM[0], &[VM[1], VM[2]], "10.0.0.2"));
        does_as_it_should(&mut vm);
        assert_eq!(far.reaches(Probe::Ping, &[VM[1]]), [VM[1]]);
        vm.migrate(dual.comp1);
        wait_until("comp2 to see it at comp1", SOON, || known(dual.comp2, "dual", "vxlan80", VM[0], &[VM[1], VM[2]], "10.0.0.1"));
        does_as_it_should(&mut vm);
        vm.destroy();
        assert!(!guarded(dual.comp1, VM[0]));
        assert_eq!(client.reaches(Probe::Ping, &[GATEWAY[1], FAR[1]]).len(), 2, "no other guest was touched");
    }
}
