//! Neighbours are known before anybody asks for them, so no question crosses the fabric; and one that is not known is still found.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::net::IpAddr;
use std::time::Duration;

use crate::fabric::{Agent, Capture, Container, Host, echo, wait_until};
use crate::tenant::{Configured, SOON, joined, remembers};

const MANY: usize = 10;
/// Of each host's ten. The others are what a container is to the network, a namespace with a veth, and start ten times as fast.
const OF_LXC: usize = 2;

const VXLAN: &str = "vxlan80";
/// Without DHCP and router advertisements: what crosses is the guests' own.
const DUAL: &str = "[[vrf]]\nname = 'dual'\ntable = 70\nvni = 70\n[[network]]\nname = 'dual'\nbridge = 'dual-l2'\nvni = 80\n\
    vrf = 'dual'\ngateway = ['10.3.0.1/24', 'fd00:3::1/64']\nmac = '00:00:00:11:11:70'\n";

/// For an answer that comes, or does not.
const PATIENCE: Duration = Duration::from_secs(5);

struct Guest<'a> {
    host: &'a Host,
    name: String,
    mac: String,
    ips: [IpAddr; 2],
    /// Of LXC; else a namespace of this name.
    container: Option<Container<'a>>,
}

impl<'a> Guest<'a> {
    fn new(host: &'a Host, of: u8, number: usize) -> Guest<'a> {
        let last = format!("{of}{number:02}");
        Guest {
            host,
            name: format!("s{last}"),
            mac: format!("00:16:3e:00:{of:02x}:{number:02x}"),
            ips: [format!("10.3.0.{last}"), format!("fd00:3::{last}")].map(|ip| ip.parse().expect("an address")),
            container: None,
        }
    }

    fn netns(&self) -> File {
        match &self.container {
            Some(container) => container.netns(),
            None => File::open(self.host.path(&format!("/run/netns/{}", self.name))).expect("the guest's namespace"),
        }
    }

    fn start_lxc(&mut self) {
        let [v4, v6] = &self.ips;
        let config = format!(
            "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\nlxc.net.0.link = dual-l2\n\
             lxc.net.0.flags = up\nlxc.net.0.name = eth0\nlxc.net.0.hwaddr = {}\n\
             lxc.net.0.ipv4.address = {v4}/24\nlxc.net.0.ipv6.address = {v6}/64\n",
            self.mac
        );
        self.container = Some(Container::start(self.host, &self.name, &config));
    }
}

/// Namespaces outlive a failed test otherwise, and their veths go with them.
struct Guests<'a>(Vec<Guest<'a>>);

impl<'a> Guests<'a> {
    fn start(host: &'a Host, of: u8) -> Guests<'a> {
        let mut guests = Guests((0..MANY).map(|number| Guest::new(host, of, number)).collect());
        let (containers, namespaces) = guests.0.split_at_mut(OF_LXC);
        containers.iter_mut().for_each(Guest::start_lxc);
        let mut script = String::new();
        for Guest { name, mac, ips: [v4, v6], .. } in namespaces {
            // As LXC does it: addresses before the start, no address detection in the way of the first ping.
            let _ = write!(
                script,
                "
                ip netns add {name}
                ip link add {name} type veth peer name eth0 netns {name} address {mac}
                ip netns exec {name} sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
                    ip address add {v4}/24 dev eth0; ip address add {v6}/64 dev eth0; ip link set eth0 up'
                evpn-hook attach {name} --network dual --netns /run/netns/{name} --guest {name}"
            );
        }
        host.sh(&script);
        guests
    }
}

impl Drop for Guests<'_> {
    fn drop(&mut self) {
        for Guest { host, name, container, .. } in &self.0 {
            if container.is_none() {
                host.run(&["sh", "-c", &format!("evpn-hook detach --guest {name}; ip netns del {name}")]);
            }
        }
    }
}

/// Waits until this host has the ten of the other: MACs, and both addresses of each.
fn expect_known(host: &Host, guests: &Guests) {
    wait_until(&format!("all ten on {}", host.name()), SOON, || {
        let learned = |command: &[&str], needle: &str| {
            host.ok(command).lines().any(|line| line.contains(needle) && line.contains("extern_learn"))
        };
        guests.0.iter().all(|guest| {
            learned(&["bridge", "fdb", "show", "dev", VXLAN], &guest.mac)
                && guest
                    .ips
                    .iter()
                    .all(|ip| learned(&["ip", "neigh", "show", "to", &ip.to_string(), "dev", "dual-l2"], &guest.mac))
        })
    });
}

/// What crossed in the meantime, in words, each once.
fn crossed(captures: &[Capture]) -> BTreeSet<String> {
    captures.iter().flat_map(Capture::neighbours).filter_map(|frame| frame.neighbour).collect()
}

fn expect_echo(guest: &Guest, ips: &[IpAddr]) {
    let answered = echo(&guest.netns(), ips, PATIENCE);
    let silent: Vec<_> = ips.iter().filter(|ip| !answered.contains(ip)).collect();
    assert!(silent.is_empty(), "{} has no answer of {silent:?}", guest.name);
}

lab_test! {
    /// 20 guests, 380 pairs, both families: no question and no answer goes through the tunnel. Then one that no host knows of.
    fn no_question_crosses_the_fabric_for_a_guest_that_is_registered(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let (_here, _there) = (Configured::up(comp1, &[DUAL]), Configured::up(comp2, &[DUAL]));
        joined(fabric, 80);
        let (here, there) = (Guests::start(comp1, 1), Guests::start(comp2, 2));
        expect_known(comp1, &there);
        expect_known(comp2, &here);

        // What the agents ask and announce is for the guests of their own hosts.
        let agents = [comp1, comp2].map(Agent::start);
        let captures = [comp1, comp2].map(|host| Capture::on(host, VXLAN));
        let all = || here.0.iter().chain(&there.0);
        for guest in all() {
            let others: Vec<IpAddr> = all().filter(|other| other.name != guest.name).flat_map(|other| other.ips).collect();
            expect_echo(guest, &others);
        }
        // The pings themselves did cross: there and back, from either side, in both families.
        for capture in &captures {
            wait_until("the captures to have every ping", SOON, || capture.frames().len() >= 2 * 2 * 2 * MANY * MANY);
        }
        assert_eq!(crossed(&captures), BTreeSet::new());

        // What a guest verifies later it asks the other itself (RFC 4861 §7.3.3): one frame to that one guest, flooded to nobody.
        let (seeker, found) = (&here.0[OF_LXC], &there.0[OF_LXC]);
        comp1.sh(&format!("ip netns exec {0} sh -c 'for family in 4 6; do cd /proc/sys/net/ipv$family/neigh/eth0
            echo 200 >base_reachable_time_ms; echo 0 >delay_first_probe_time; done'
            ip -n {0} neigh flush all", seeker.name));
        for ip in found.ips {
            wait_until(&format!("a probe for {ip}"), SOON, || {
                expect_echo(seeker, &[ip]);
                crossed(&captures).iter().any(|words| words.contains(&format!("who has {ip}")))
            });
        }
        let flooded: Vec<_> = crossed(&captures).into_iter().filter(|words| words.ends_with("to all")).collect();
        assert!(flooded.is_empty(), "{flooded:?}");
        drop((captures, agents));

        // By hand, and no agent runs: nobody knows it any more, and it is found as on any segment.
        let (lost, [v4, v6]) = (&there.0[MANY - 1], there.0[MANY - 1].ips);
        comp2.sh(&format!("ip neigh del {v4} dev dual-l2; ip neigh del {v6} dev dual-l2
            bridge fdb del {} dev {} master", lost.mac, lost.name));
        wait_until("comp1 to forget it", SOON, || !remembers(comp1, &lost.mac));
        let captures = [comp1, comp2].map(|host| Capture::on(host, VXLAN));
        for (seeker, far) in [(&there.0[OF_LXC], false), (&here.0[MANY - 1], true)] {
            seeker.host.sh(&format!("ip -n {} neigh flush all", seeker.name));
            expect_echo(seeker, &lost.ips);
            if far {
                for question in [format!("ARP who has {v4}"), format!("ND who has {v6}")] {
                    let asked = |words: &String| words.starts_with(&question) && words.ends_with("to all");
                    wait_until(&format!("'{question}' to be flooded"), SOON, || crossed(&captures).iter().any(asked));
                }
            }
        }
    }
}
