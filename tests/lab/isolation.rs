//! Tenants do not reach each other, in any way, on one hypervisor or across; each reaches its own.

use crate::fabric::{Container, Host, Probe};
use crate::tenant::{BLUE, BLUE_XML, Configured, GREEN, Network, RED, Red, container_on, joined};

/// A guest, and all the addresses that it must reach out of `others`.
struct Guest<'a> {
    name: &'a str,
    ip: &'a str,
    container: Container<'a>,
    peers: &'a [&'a str],
}

fn guest<'a>(host: &'a Host, name: &'a str, tenant: &str, ip: &'a str, peers: &'a [&'a str]) -> Guest<'a> {
    let number = name.bytes().fold(0, |sum, byte| (sum * 31 + u32::from(byte)) % 65_536);
    let mac = format!("00:16:3e:01:{:02x}:{:02x}", number / 256, number % 256);
    Guest { name, ip, container: Container::start(host, name, &container_on(tenant, &mac, Some(ip))), peers }
}

/// Every guest reaches its own peers out of `all`, and nobody else; they try at the same time.
fn expect_reach(guests: &[Guest], how: Probe, all: &[&str]) {
    std::thread::scope(|scope| {
        let tries: Vec<_> = guests
            .iter()
            .map(|guest| {
                let others: Vec<&str> = all.iter().copied().filter(|ip| *ip != guest.ip).collect();
                scope.spawn(move || guest.container.reaches(how, &others))
            })
            .collect();
        for (guest, reached) in guests.iter().zip(tries) {
            let reached = reached.join().expect("a probe");
            assert_eq!(reached, guest.peers, "{how:?} from {} ({})", guest.name, guest.ip);
        }
    });
}

lab_test! {
    fn red_and_green_do_not_reach_each_other(fabric) {
        let red = Red::and(fabric, &[GREEN]);
        let _green = Network::shipped(red.comp1, "green");
        joined(fabric, 40);
        let guests = [
            guest(red.comp1, "r1", "red", "10.1.0.11", &["10.1.0.12"]),
            guest(red.comp2, "r2", "red", "10.1.0.12", &["10.1.0.11"]),
            guest(red.comp1, "g1", "green", "10.2.0.21", &["10.2.0.22"]),
            guest(red.comp2, "g2", "green", "10.2.0.22", &["10.2.0.21"]),
        ];
        let all: Vec<&str> = guests.iter().map(|guest| guest.ip).collect();
        expect_reach(&guests, Probe::Ping, &all);
        expect_reach(&guests, Probe::Arp, &all);
        // A guest that knows where the other tenant is still has no way there.
        for (guest, route) in guests.iter().zip([
            "10.2.0.0/24 via 10.1.0.1", "10.2.0.0/24 via 10.1.0.1", "10.1.0.0/24 via 10.2.0.1", "10.1.0.0/24 via 10.2.0.1",
        ]) {
            guest.container.ok(&["sh", "-c", &format!("ip route add {route}")]);
        }
        expect_reach(&guests, Probe::Ping, &all);
    }
}

lab_test! {
    fn tenants_with_equal_subnets_do_not_reach_each_other(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _red = Network::shipped(comp1, "red");
        let _blue = Network::start_xml(comp1, "blue", BLUE_XML);
        let _there = Configured::up(comp2, &[RED, BLUE]);
        joined(fabric, 20);
        joined(fabric, 51);
        comp1.write("/usr/share/evpn-hook/lxc/blue.conf", &comp1.ok(&["sed", "s/red/blue/g", "/usr/share/evpn-hook/lxc/red.conf"]));
        comp2.write("/usr/share/evpn-hook/lxc/blue.conf", &comp2.ok(&["sed", "s/red/blue/g", "/usr/share/evpn-hook/lxc/red.conf"]));
        // .11 is in both; the others are in one each, so an answer tells from which.
        let _guests = [
            guest(comp1, "r2", "red", "10.1.0.12", &[]),
            guest(comp2, "r3", "red", "10.1.0.13", &[]),
            guest(comp2, "b4", "blue", "10.1.0.14", &[]),
        ];
        let all = ["10.1.0.12", "10.1.0.13", "10.1.0.14"];
        let seekers = [
            guest(comp1, "r1", "red", "10.1.0.11", &["10.1.0.12", "10.1.0.13"]),
            guest(comp1, "b1", "blue", "10.1.0.11", &["10.1.0.14"]),
        ];
        expect_reach(&seekers, Probe::Ping, &all);
        expect_reach(&seekers, Probe::Arp, &all);
    }
}
