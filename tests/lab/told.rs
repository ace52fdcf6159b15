//! FRR that is told otherwise while guests run: a reload from frr.conf, `no vni`, `write memory`. The tenant is routed between two hosts by its L3VNI.

use std::time::{Duration, Instant};

use crate::fabric::{Agent, Container, Fabric, Host, Pinger, wait_until};
use crate::tenant::{Configured, RED, SOON, container_on};

const MAC: &str = "00:16:3e:00:00:38";
const FAR_MAC: &str = "00:16:3e:00:00:39";
const FAR_IP: &str = "10.3.0.39";
/// Red's second segment, which is on comp2 alone.
const FAR: &str = "[[vrf]]\nname = 'red'\ntable = 10\nvni = 10\n[[network]]\nname = 'far'\nbridge = 'far-l2'\nvni = 21\n\
    vrf = 'red'\ngateway = ['10.3.0.1/24']\nmac = '00:00:00:11:11:13'\n";
const RELOAD: &str = "/usr/lib/frr/frr-reload.py --reload /etc/frr/frr.conf";
/// How long after it was taken out ours is back.
const BACK: Duration = Duration::from_secs(5);

struct Scene {
    comp1: &'static Host,
    near: Container<'static>,
    _far: Container<'static>,
    _configured: [Configured<'static>; 2],
    before: Vec<String>,
}

impl Scene {
    fn up(fabric: &'static Fabric) -> Scene {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let configured = [Configured::up(comp1, &[RED]), Configured::up(comp2, &[FAR])];
        let near = Container::start(comp1, "near", &container_on("red", MAC, Some("10.1.0.38")));
        let far = container_on("red", FAR_MAC, Some(FAR_IP)) + "lxc.net.0.link = far-l2\n";
        let far = Container::start(comp2, "far", &far);
        wait_until("a ping between the hosts", SOON, || near.run(&["ping", "-c", "1", "-W", "1", FAR_IP]).code == 0);
        // The ping went by the subnet's route.
        wait_until("the far guest's own route", SOON, || {
            comp1.ok(&["ip", "route", "show", "vrf", "red"]).contains(&format!("{FAR_IP} "))
        });
        let mut scene = Scene { comp1, near, _far: far, _configured: configured, before: Vec::new() };
        scene.before = scene.tables();
        scene
    }

    /// The tenant's routes, and what FRR's configuration says.
    fn tables(&self) -> Vec<String> {
        let routes =
            self.comp1.sh("ip route show vrf red; bridge fdb show br red-l3 | grep 02:45:0a:00:00:02 || true; ip rule");
        // FRR's nexthop ids count up.
        let plain = |line: &str| {
            let words = line.split_whitespace().filter(|word| word.parse::<u64>().is_err());
            words.collect::<Vec<_>>().join(" ")
        };
        let configured = self.comp1.running_config();
        // The fabric's frr.conf has none, so that a reload takes out what FRR took from the system.
        let configured = configured.lines().filter(|line| !line.starts_with("hostname ")).map(str::to_owned);
        routes.lines().map(plain).chain(configured).collect()
    }

    /// Asked again and again, and so not of mgmtd: with each connection that ends FRR 10.3's forgets what another one is about to commit, and zebra then has
    /// an L3VNI that the configuration has not (mgmt_fe_adapter.c `mgmt_fe_session_cfg_txn_cleanup`).
    fn configured(&self) -> bool {
        let has_vni = self.comp1.show_text("zebra", "show vrf vni").lines().any(|line| line.starts_with("red "));
        let config = self.comp1.show_text("bgpd", "show running-config");
        has_vni && ["router bgp 64512 vrf red", "  advertise ipv4 unicast"].iter().all(|line| config.contains(line))
    }

    /// How often the agent's vtysh has put something back, and ended.
    fn put_back(&self) -> usize {
        self.comp1.sh("cat /var/log/evpn-agent.log").matches("vtysh: add vrf red").count()
    }

    /// The same with a ping each 20 ms; prints how long it was not answered at most.
    fn during(&self, what: &str, change: impl FnOnce()) {
        let pinger = Pinger::start(&self.near, FAR_IP.parse().unwrap(), Duration::from_millis(20));
        wait_until("the pings", SOON, || pinger.answered() > 5);
        change();
        let end = Instant::now() + SOON;
        while self.tables() != self.before {
            assert!(Instant::now() < end, "{what}: {:#?}\nis not as before:\n{:#?}", self.tables(), self.before);
        }
        let since = Instant::now();
        let answered_since = || pinger.pings().iter().any(|ping| ping.rtt.is_some() && ping.sent > since);
        wait_until(&format!("a ping after {what}"), SOON, answered_since);
        let answered: Vec<Instant> = pinger.pings().iter().filter(|p| p.rtt.is_some()).map(|p| p.sent).collect();
        let longest = answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        eprintln!("lab: {what}: no ping was answered for {} ms at most", longest.as_millis());
    }

    fn expect_back(&self, what: &str, change: impl FnOnce(&Host)) {
        self.during(what, || {
            let before = self.put_back();
            change(self.comp1);
            wait_until(&format!("{what} to take something out"), SOON, || !self.configured());
            let since = Instant::now();
            wait_until(&format!("the stanzas after {what}"), SOON, || self.configured());
            let took = since.elapsed();
            eprintln!("lab: {what}: FRR's configuration is whole again {} ms after", took.as_millis());
            assert!(took < BACK, "{what}: {took:?}");
            wait_until("the agent's vtysh to end", SOON, || self.put_back() > before);
        });
    }
}

// hook.md 2, agent.md 4, field F02; faults seen on a whole fabric, 2.
lab_test! {
    fn a_reload_takes_our_stanzas_and_the_agent_puts_them_back(fabric) {
        let scene = Scene::up(fabric);
        let comp1 = scene.comp1;
        let _agent = Agent::start(comp1);
        let typed = |what: &str, script: &str| scene.expect_back(what, |host| drop(host.sh(script)));
        typed("frr-reload.py beside the agent", RELOAD);
        typed("no vni 10", "vtysh -c 'configure terminal' -c 'vrf red' -c 'no vni 10'");
        scene.expect_back("no router bgp 64512 vrf red", |host| host.take_out_vrf("red", 10));
        // Of this the kernel hears nothing.
        let line = "vtysh -c 'configure terminal' -c 'router bgp 64512 vrf red' -c 'address-family l2vpn evpn' -c 'no advertise ipv4 unicast'";
        typed("no advertise ipv4 unicast", line);
        // A vtysh that stays open tells by what is lost in the kernel.
        let session = "{ printf 'configure terminal\\nvrf red\\nno vni 10\\n'; exec sleep 30; } 2>/dev/null | vtysh >/dev/null 2>&1 &";
        typed("no vni 10 in a vtysh that stays open", session);
        assert_eq!(comp1.run(&["evpn-hook", "status", "--check"]).code, 0);
    }
}

lab_test! {
    fn without_an_agent_sync_puts_back_what_a_reload_took(fabric) {
        let scene = Scene::up(fabric);
        let comp1 = scene.comp1;
        scene.during("frr-reload.py without an agent, and sync", || {
            comp1.sh(RELOAD);
            assert!(!scene.configured(), "the reload has nothing to take out");
            assert_eq!(comp1.run(&["evpn-hook", "status", "--check"]).code, 3);
            comp1.ok(&["evpn-hook", "sync"]);
            assert!(scene.configured());
        });
        assert_eq!(comp1.run(&["evpn-hook", "status", "--check"]).code, 0);
    }
}

// hook.md 18, field F24: `write memory`, a restart of FRR, and the network's end.
lab_test! {
    fn after_write_memory_and_a_restart_our_stanzas_still_go_with_the_network(fabric) {
        let comp1 = fabric.comp1();
        let conf = comp1.sh("cat /etc/frr/frr.conf");
        let before = comp1.show_text("bgpd", "show running-config");
        let red = Configured::up(comp1, &[RED]);
        comp1.sh("vtysh -c 'write memory'");
        comp1.without_frr().start();
        comp1.ok(&["evpn-hook", "sync"]);
        assert_eq!(comp1.sh("cat /run/evpn-hook/vrfs/red.json").matches("10.0.0.1").count(), 1, "nothing was missing");
        drop(red);
        let (after, whole) = (comp1.show_text("bgpd", "show running-config"), comp1.running_config());
        let held = comp1.show_text("bgpd", "show bgp vrfs");
        comp1.write("/etc/frr/frr.conf", &conf);
        comp1.sh("chown frr:frr /etc/frr/frr.conf");
        assert_eq!(after, before);
        assert!(!whole.contains("vni 10"), "{whole}");
        assert!(!held.contains("red") && !held.contains("Unknown"), "{held}");
        // And it comes back, with another L3VNI as well as with the same.
        let again = Configured::up(comp1, &[&RED.replace("vni = 10\n", "vni = 11\n")]);
        assert_eq!(comp1.run(&["evpn-hook", "status", "--check"]).code, 0);
        drop(again);
    }
}
