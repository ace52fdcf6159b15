//! Addresses that go from one guest to another: by announcement, as keepalived's do, and by another lease.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::fabric::{Agent, Container, Fabric, Host, Monitor, Transcript, Wire, wait_until};
use crate::tenant::{Configured, SOON, endpoint_status, joined};

/// How long the fabric may take.
const FOLLOWS: Duration = Duration::from_secs(1);

const PAIR: &str = "[[vrf]]\nname = 'pair'\ntable = 92\nvni = 92\n[[network]]\nname = 'pair'\nbridge = 'pair-l2'\nvni = 93\nvrf = 'pair'\n\
    gateway = ['10.9.0.1/24', 'fd00:92::1/64']\nmac = '00:00:00:11:11:92'\n";

const A: &str = "00:16:3e:00:00:0a";
const B: &str = "00:16:3e:00:00:0b";
const C: &str = "00:16:3e:00:00:0c";

struct Pair {
    comp1: &'static Host,
    comp2: &'static Host,
    _configured: [Configured<'static>; 2],
    monitors: [Monitor; 2],
    _agents: [Agent; 2],
}

impl Pair {
    fn up(fabric: &'static Fabric) -> Pair {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let configured = [comp1, comp2].map(|host| Configured::up(host, &[PAIR]));
        joined(fabric, 93);
        let monitors = [comp1.monitor(), comp2.monitor()];
        Pair { comp1, comp2, _configured: configured, monitors, _agents: [Agent::start(comp1), Agent::start(comp2)] }
    }

    fn other(&self, host: &Host) -> &'static Host {
        if host.name() == self.comp1.name() { self.comp2 } else { self.comp1 }
    }

    /// Waits until the fabric says that this guest of this host has the address, and nobody else; gives how long the other host's kernel took.
    fn follows(&self, since: Instant, from: [usize; 2], host: &Host, mac: &str, ip: &str) -> Duration {
        let (own, vtep) = if host.name() == "comp1" { (0, "10.0.0.1") } else { (1, "10.0.0.2") };
        let there = |parts: &[&str]| self.monitors[1 - own].transcript().wait_from(from[1 - own], parts, SOON).1.at;
        let here =
            self.monitors[own].transcript().wait_from(from[own], &[ip, "dev pair-l2", mac, "PERMANENT"], SOON).1.at;
        let neighbour = there(&[ip, "dev pair-l2", mac, "extern_learn"]);
        // Where another guest of the same host had it, the host's own route says all that there is to say.
        let routes =
            self.other(host).ok(&["ip", if ip.contains(':') { "-6" } else { "-4" }, "route", "show", "vrf", "pair"]);
        let known = routes.lines().any(|line| line.starts_with(&format!("{ip} ")) && line.contains(vtep));
        let route = if known { neighbour } else { there(&[ip, vtep]) };
        here.max(neighbour).max(route).saturating_duration_since(since)
    }

    fn now(&self) -> [usize; 2] {
        self.monitors.each_ref().map(|monitor| monitor.transcript().len())
    }

    fn lacks(&self, host: &Host, mac: &str, ip: &str) {
        wait_until(&format!("{mac} to be without {ip}"), SOON, || {
            let ips = endpoint_status(host, mac)["ips"].clone();
            !ips.as_array().expect("addresses").iter().any(|has| has == ip)
        });
    }
}

fn config(mac: &str, ip: &str) -> String {
    format!(
        "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\nlxc.net.0.link = pair-l2\n\
         lxc.net.0.flags = up\nlxc.net.0.name = eth0\nlxc.net.0.hwaddr = {mac}\nlxc.net.0.ipv4.address = {ip}/24\n"
    )
}

lab_test! {
    fn an_address_moves_with_its_announcement(fabric) {
        let pair = Pair::up(fabric);
        let a = Container::start(pair.comp1, "a", &config(A, "10.9.0.10"));
        let b = Container::start(pair.comp1, "b", &config(B, "10.9.0.11"));
        let c = Container::start(pair.comp2, "c", &config(C, "10.9.0.12"));
        for ip in ["10.9.0.99", "fd00:92::99"] {
            // First nobody's, then to a guest of the same host, of the other one, and back.
            let path = [(&a, pair.comp1, A), (&b, pair.comp1, B), (&c, pair.comp2, C), (&a, pair.comp1, A)];
            let mut loser: Option<(&Host, &str)> = None;
            for (guest, host, mac) in path {
                let (since, from) = (Instant::now(), pair.now());
                guest.announce(mac, ip);
                let took = pair.follows(since, from, host, mac, ip);
                eprintln!("lab: {ip} is {mac}'s on {} after {} ms", host.name(), took.as_millis());
                assert!(took < FOLLOWS, "{ip} to {mac}: {took:?}");
                if let Some((host, mac)) = loser.replace((host, mac)) {
                    pair.lacks(host, mac, ip);
                }
            }
        }
        // What is declared is not taken: the spoof is told, and nothing changes.
        b.announce(B, "10.9.0.10");
        wait_until("the refusal in the log", SOON, || {
            pair.comp1.ok(&["cat", "/var/log/evpn-agent.log"]).contains("10.9.0.10 is container a's")
        });
        let theirs = pair.comp2.ok(&["ip", "neigh", "show", "dev", "pair-l2"]);
        assert!(theirs.contains(&format!("10.9.0.10 lladdr {A} extern_learn")), "{theirs}");
        // Nor is the gateway's, nor what is in no subnet.
        for ip in ["10.9.0.1", "8.8.8.8"] {
            b.announce(B, ip);
            wait_until("the refusal in the log", SOON, || {
                pair.comp1.ok(&["cat", "/var/log/evpn-agent.log"]).contains(&format!("is not learned: {ip} is "))
            });
        }
        pair.lacks(pair.comp1, B, "10.9.0.1");
        pair.comp1.ok(&["evpn-hook", "status", "--check"]);
        pair.comp2.ok(&["evpn-hook", "status", "--check"]);
    }
}

/// A program in a container's network namespace, for as long as the value lives.
struct Inside {
    child: Child,
    said: Transcript,
}

impl Inside {
    fn start(container: &Container, host: &Host, argv: &[&str]) -> Inside {
        let netns = format!("--net=/proc/{}/ns/net", container.pid().expect("the container runs"));
        let mut command = host.command(&[&["nsenter", &netns], argv].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("nsenter starts");
        let said = Transcript::default();
        said.record(child.stderr.take().expect("stderr is piped"));
        Inside { child, said }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A DHCP server that is none of libvirt's.
fn server(container: &Container, host: &Host, mac: &str) -> Inside {
    let reserved = format!("--dhcp-host={mac},10.9.0.50,infinite");
    Inside::start(
        container,
        host,
        &[
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=eth0",
            "--dhcp-range=10.9.0.50,static",
            "--leasefile-ro",
            "--user=root",
            "--pid-file",
            &reserved,
        ],
    )
}

lab_test! {
    /// Its server is a guest elsewhere in the fabric, forgets everything, and gives the address to another.
    fn an_address_moves_with_its_lease(fabric) {
        let pair = Pair::up(fabric);
        let a = Container::start(pair.comp1, "a", &config(A, "10.9.0.10"));
        let c = Container::start(pair.comp2, "c", &config(C, "10.9.0.12"));
        let b = Container::start(pair.comp2, "b", &config(B, "10.9.0.11"));
        let ask = ["udhcpc", "-i", "eth0", "-n", "-q", "-t", "20", "-T", "1", "-A", "1", "-s", "/bin/true"];
        for (client, host, mac) in [(&a, pair.comp1, A), (&c, pair.comp2, C)] {
            let _server = server(&b, pair.comp2, mac);
            let device = endpoint_status(host, mac)["device"].as_str().expect("a device").to_owned();
            let wire = Wire::tap(host, &device, "port 67 or port 68");
            let from = pair.now();
            client.ok(&ask);
            let took = pair.follows(wire.last(0, &["BOOTP/DHCP, Reply"]), from, host, mac, "10.9.0.50");
            eprintln!("lab: the lease is {mac}'s on {} after {} ms", host.name(), took.as_millis());
            assert!(took < FOLLOWS, "the lease to {mac}: {took:?}");
        }
        pair.lacks(pair.comp1, A, "10.9.0.50");
        // It gives it back, by an address that it has for that.
        c.ok(&["ip", "address", "add", "10.9.0.50/24", "dev", "eth0"]);
        let _server = server(&b, pair.comp2, C);
        let client = Inside::start(&c, pair.comp2, &["busybox", "udhcpc", "-f", "-i", "eth0", "-s", "/bin/true", "-T", "1", "-A", "1"]);
        client.said.wait(&["lease of 10.9.0.50 obtained"], SOON);
        pair.comp2.ok(&["kill", "-USR2", &client.child.id().to_string()]);
        pair.lacks(pair.comp2, C, "10.9.0.50");
        wait_until("comp1 to forget it", SOON, || !pair.comp1.ok(&["ip", "neigh", "show", "dev", "pair-l2"]).contains("10.9.0.50 "));
        pair.comp2.ok(&["evpn-hook", "status", "--check"]);
    }
}
