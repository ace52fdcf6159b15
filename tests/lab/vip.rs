//! An address that fails over between guests of two hosts by keepalived, and its clients: in the segment on both hosts and on a third, and behind the VRF.
//! And what a segment tells across hosts besides: that an address is another's.

use std::fmt::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::fabric::{Agent, Container, Host, Pinger, Wire, wait_until};
use crate::figures::keep;
use crate::forge::{Port, Who, router_advertisement};
use crate::tenant::{Configured, SOON, endpoint_status, joined};

/// From the new owner's first announcement to the first ping that is answered, for each client.
const FOLLOWS: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_millis(50);

const NETS: &str = "[[vrf]]\nname = 'ha'\ntable = 94\nvni = 94\n\
    [[network]]\nname = 'ha'\nbridge = 'ha-l2'\nvni = 95\nvrf = 'ha'\ngateway = ['10.11.0.1/24', 'fd00:95::1/64']\nmac = '00:00:00:11:11:95'\n\
    [[network]]\nname = 'far'\nbridge = 'far-l2'\nvni = 96\nvrf = 'ha'\ngateway = ['10.12.0.1/24', 'fd00:96::1/64']\nmac = '00:00:00:11:11:96'\n";
const VIP: [&str; 2] = ["10.11.0.100", "fd00:95::100"];

fn container<'a>(host: &'a Host, name: &str, net: &str, last: u8) -> Container<'a> {
    let (v4, v6) = if net == "ha" { ("10.11.0", "fd00:95") } else { ("10.12.0", "fd00:96") };
    let config = format!(
        "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\nlxc.net.0.link = {net}-l2\nlxc.net.0.flags = up\n\
         lxc.net.0.name = eth0\nlxc.net.0.hwaddr = {}\nlxc.net.0.ipv4.address = {v4}.{last}/24\nlxc.net.0.ipv6.address = {v6}::{last}/64\n\
         lxc.net.0.ipv4.gateway = {v4}.1\nlxc.net.0.ipv6.gateway = {v6}::1\n",
        mac(last)
    );
    Container::start(host, name, &config)
}

fn mac(last: u8) -> String {
    format!("00:16:3e:00:95:{last:02x}")
}

/// keepalived beside a container, in its network namespace; both families, each an instance of its own (RFC 5798 §5.2.9).
struct Keepalived<'a>(Child, &'a Host);

impl<'a> Keepalived<'a> {
    fn start(host: &'a Host, guest: &Container, name: &str, priority: u8) -> Keepalived<'a> {
        let instance = |family: &str, id: u8, vip: &str| {
            format!(
                "vrrp_instance {family} {{\n state BACKUP\n nopreempt\n interface eth0\n virtual_router_id {id}\n priority {priority}\n \
                 advert_int 1\n virtual_ipaddress {{\n {vip} dev eth0\n }}\n}}\n"
            )
        };
        let [v4, v6] = VIP;
        let text = format!(
            "global_defs {{\n}}\n{}{}",
            instance("four", 51, &format!("{v4}/24")),
            instance("six", 52, &format!("{v6}/64"))
        );
        let config = format!("/run/keepalived-{name}.conf");
        host.write(&config, &text);
        let netns = format!("--net=/proc/{}/ns/net", guest.pid().expect("the container runs"));
        let (pid, vrrp) = (format!("/run/keepalived-{name}.pid"), format!("/run/keepalived-{name}-vrrp.pid"));
        let argv = [
            "nsenter",
            &netns,
            "keepalived",
            "--dont-fork",
            "--vrrp",
            "--use-file",
            &config,
            "--pid",
            &pid,
            "--vrrp_pid",
            &vrrp,
        ];
        let child = host.command(&argv).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("keepalived starts");
        Keepalived(child, host)
    }

    /// As `systemctl stop` does it: it takes the address off, and says that it goes.
    fn stop(mut self) {
        self.1.ok(&["kill", "-TERM", &self.0.id().to_string()]);
        self.0.wait().expect("keepalived ends");
    }
}

impl Drop for Keepalived<'_> {
    fn drop(&mut self) {
        self.1.run(&["kill", "-TERM", &self.0.id().to_string()]);
        let _ = self.0.wait();
    }
}

fn has(guest: &Container, ip: &str) -> bool {
    guest.ok(&["ip", "address", "show", "dev", "eth0"]).contains(&format!("{ip}/"))
}

lab_test! {
    fn clients_everywhere_follow_a_vip(fabric, comp3) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let hosts = [comp1, comp2, comp3];
        let _configured = hosts.map(|host| Configured::up(host, &[NETS]));
        joined(fabric, 95);
        let _agents = hosts.map(Agent::start);
        let (a, b) = (container(comp1, "a", "ha", 10), container(comp2, "b", "ha", 11));
        let clients = [
            ("the old owner's host", container(comp1, "c1", "ha", 21)),
            ("the new owner's host", container(comp2, "c2", "ha", 22)),
            ("a third host", container(comp3, "c3", "ha", 23)),
            ("behind the VRF", container(comp3, "c4", "far", 24)),
        ];
        let first = Keepalived::start(comp1, &a, "a", 200);
        wait_until("a to be the master", SOON, || VIP.iter().all(|ip| has(&a, ip)));
        let _second = Keepalived::start(comp2, &b, "b", 100);
        for (place, client) in &clients {
            for ip in VIP {
                wait_until(&format!("{place} to reach {ip}"), SOON, || client.run(&["ping", "-c", "1", "-W", "1", ip]).code == 0);
            }
        }
        let device = endpoint_status(comp2, &mac(11))["device"].as_str().expect("a device").to_owned();
        let wire = Wire::tap(comp2, &device, &format!("(arp and arp[14:4] = 0x0a0b0064) or (icmp6 and ip6[40] = 136 and src host {})", VIP[1]));
        let pingers: Vec<_> = VIP
            .iter()
            .flat_map(|ip| clients.iter().map(move |(place, client)| (*ip, *place, client)))
            .map(|(ip, place, client)| (ip, place, Pinger::start(client, ip.parse().expect("an address"), PACE)))
            .collect();
        first.stop();
        wait_until("b to be the master", SOON, || VIP.iter().all(|ip| has(&b, ip)));
        let lines = wire.transcript();
        let announced = [["ARP", VIP[0]], ["neighbor advertisement", VIP[1]]].map(|words| lines.wait(&words, SOON).at);
        let mut table = format!("{:<24}{:<16}{:>8}\n", "client at", "address", "ms");
        let mut worst = Duration::ZERO;
        for (ip, place, pinger) in &pingers {
            let since = announced[usize::from(*ip == VIP[1])];
            let answered = || pinger.pings().into_iter().find(|ping| ping.sent > since && ping.rtt.is_some());
            wait_until(&format!("an answer of {ip} to {place}"), SOON, || answered().is_some());
            let took = answered().map_or(SOON, |ping| ping.sent - since);
            worst = worst.max(took);
            let _ = writeln!(table, "{place:<24}{ip:<16}{:>8}", took.as_millis());
        }
        drop(pingers);
        keep("vip.txt", &table);
        eprintln!("{table}");
        assert!(worst < FOLLOWS, "{table}");
        for host in hosts {
            host.ok(&["evpn-hook", "status", "--check"]);
        }
    }
}

lab_test! {
    // field.md F09: `arping -D` and duplicate address detection, for an address that is declared and for one that is only spoken.
    fn who_asks_whether_an_address_is_free_hears_of_its_owner_on_every_host(fabric, comp3) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let hosts = [comp1, comp2, comp3];
        let _configured = hosts.map(|host| Configured::up(host, &[NETS]));
        joined(fabric, 95);
        let _agents = hosts.map(Agent::start);
        let owner = container(comp1, "a", "ha", 10);
        let clients = [
            ("the owner's host", container(comp1, "c1", "ha", 21)),
            ("another host", container(comp2, "c2", "ha", 22)),
            ("a third host", container(comp3, "c3", "ha", 23)),
        ];
        for (ip, length) in VIP.iter().zip([24, 64]) {
            owner.ok(&["ip", "address", "add", &format!("{ip}/{length}"), "dev", "eth0"]);
        }
        owner.run(&["ping", "-c", "1", "-W", "1", "-I", VIP[0], "10.11.0.1"]);
        let owned = [VIP, ["10.11.0.10", "fd00:95::10"]];
        for host in [comp2, comp3] {
            for ip in owned.iter().flatten() {
                wait_until(&format!("{} to know {ip}", host.name()), SOON, || {
                    let entry = host.ok(&["ip", "neigh", "show", ip, "dev", "ha-l2"]);
                    entry.contains(&mac(10)) && entry.contains("extern_learn")
                });
            }
        }
        for (place, client) in &clients {
            for [v4, v6] in owned {
                let asked = client.run(&["arping", "-D", "-I", "eth0", "-c", "3", v4]);
                assert_eq!(asked.code, 1, "{place}: {v4}: {asked:?}");
                client.ok(&["ip", "address", "add", &format!("{v6}/64"), "dev", "eth0"]);
                wait_until(&format!("{place} to see that {v6} is another's"), SOON, || {
                    client.ok(&["ip", "address", "show", "dev", "eth0"]).lines().any(|line| line.contains(&format!("{v6}/")) && line.contains("dadfailed"))
                });
                client.ok(&["ip", "address", "del", &format!("{v6}/64"), "dev", "eth0"]);
            }
            // Nobody is told what is not so.
            let asked = client.run(&["arping", "-D", "-I", "eth0", "-c", "2", "10.11.0.77"]);
            assert_eq!(asked.code, 0, "{place}: {asked:?}");
        }
        for host in hosts {
            host.ok(&["evpn-hook", "status", "--check"]);
        }
    }
}

lab_test! {
    // RFC 9047: FRR carries the flag, and each host's bridge answers its guests with it. One who is told that its router is none uses it no more.
    fn an_ipv6_router_is_one_for_guests_of_other_hosts(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let hosts = [comp1, comp2];
        let _configured = hosts.map(|host| Configured::up(host, &[NETS]));
        joined(fabric, 95);
        let _agents = hosts.map(Agent::start);
        let (router, client) = (container(comp1, "a", "ha", 10), container(comp2, "c1", "ha", 21));
        let who = Who::new(&mac(10), "10.11.0.10", "fd00:95::10");
        let local = who.link_local().to_string();
        let entry = || comp2.ok(&["ip", "neigh", "show", &local, "dev", "ha-l2"]);
        wait_until("comp2 to know the guest", SOON, || entry().contains("extern_learn"));
        assert!(!entry().contains(" router "), "{}", entry());
        router.inside(|| Port::open("eth0")).send(&router_advertisement(who));
        wait_until("comp2 to know the router", SOON, || entry().contains(" router "));
        client.run(&["ping", "-c", "1", "-W", "1", "-I", "eth0", &local]);
        let netns = format!("--net=/proc/{}/ns/net", client.pid().expect("the container runs"));
        let told = comp2.ok(&["nsenter", &netns, "ip", "neigh", "show", &local, "dev", "eth0"]);
        assert!(told.contains(&mac(10)) && told.contains(" router "), "{told}");
        for host in hosts {
            host.ok(&["evpn-hook", "status", "--check"]);
        }
    }
}
