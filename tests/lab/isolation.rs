//! Tenants do not reach each other, in any way, on one hypervisor or across; each reaches its own.

use crate::fabric::{Container, Host, Probe};
use crate::tenant::{BLUE, BLUE_XML, Configured, GREEN, Network, RED, Red, container_on, joined};

/// A guest, and all the addresses that it must reach out of `others`.
struct Guest<'a> {
    ip: &'a str,
    container: Container<'a>,
    peers: &'a [&'a str],
}

fn guest<'a>(host: &'a Host, name: &'a str, tenant: &str, ip: &'a str, peers: &'a [&'a str]) -> Guest<'a> {
    let number = name.bytes().fold(0, |sum, byte| (sum * 31 + u32::from(byte)) % 65_536);
    let mac = format!("00:16:3e:01:{:02x}:{:02x}", number / 256, number % 256);
    Guest { ip, container: Container::start(host, name, &container_on(tenant, &mac, Some(ip))), peers }
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
        let others = |ip: &str| -> Vec<&str> { guests.iter().map(|guest| guest.ip).filter(|other| *other != ip).collect() };
        for Guest { ip, container, peers } in &guests {
            assert_eq!(container.reaches(Probe::Ping, &others(ip)), *peers, "ping from {ip}");
            assert_eq!(container.reaches(Probe::Arp, &others(ip)), *peers, "ARP from {ip}");
        }
        // A guest that knows where the other tenant is still has no way there.
        for (Guest { ip, container, peers }, route) in guests.iter().zip([
            "10.2.0.0/24 via 10.1.0.1", "10.2.0.0/24 via 10.1.0.1", "10.1.0.0/24 via 10.2.0.1", "10.1.0.0/24 via 10.2.0.1",
        ]) {
            container.ok(&["sh", "-c", &format!("ip route add {route}")]);
            assert_eq!(container.reaches(Probe::Ping, &others(ip)), *peers, "ping from {ip} with route {route}");
        }
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
        for (tenant, Guest { container, peers, .. }) in ["red", "blue"].iter().zip(&seekers) {
            assert_eq!(container.reaches(Probe::Ping, &all), *peers, "ping from {tenant}'s 10.1.0.11");
            assert_eq!(container.reaches(Probe::Arp, &all), *peers, "ARP from {tenant}'s 10.1.0.11");
        }
    }
}
