//! Addresses that guests were heard to have, once they are in a record: who yields to whom, and which go. What else is heard, and by whom, is the lab's.

use crate::agent::{Agent, until};
use crate::common::{json as list, sh};
use crate::host::{CONFIG, Host, neighbours, tap};
use crate::on_a_host;
use serde_json::{Value, json};
use std::fs;

const MAC: &str = "52:54:00:03:82:d8";
const OTHER: &str = "52:54:00:aa:00:01";
const DECLARED: &str = "10.1.0.60";
const LEARNED: &str = "10.1.0.61";

/// The record of a guest that was attached by hand.
fn record(guest: &str) -> String {
    format!("/run/evpn-hook/guests/manual-{guest}.json")
}

fn change(guest: &str, with: impl FnOnce(&mut Vec<Value>)) {
    let mut value: Value = serde_json::from_str(&fs::read_to_string(record(guest)).unwrap()).unwrap();
    with(value["endpoints"][0]["ips"].as_array_mut().unwrap());
    fs::write(record(guest), value.to_string()).unwrap();
}

/// A guest that was given one address and has learned another.
fn guest() -> Host {
    let host = Host::flat();
    tap("vnet0");
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", DECLARED]).ok();
    change("vnet0", |ips| ips.push(json!({"ip": LEARNED, "source": "neighbour"})));
    host.run(&["sync"]).ok();
    assert_eq!(neighbours(), neighbour(DECLARED, MAC) + &neighbour(LEARNED, MAC));
    host
}

fn neighbour(ip: &str, mac: &str) -> String {
    format!("neigh {ip} {mac} dev flat-l2\n")
}

fn addresses(host: &Host, device: &str) -> Vec<(String, String)> {
    let status = host.status();
    let endpoint = status["endpoints"].as_array().unwrap().iter().find(|e| e["device"] == device).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    endpoint["addresses"].as_array().unwrap().iter().map(|a| (text(&a["ip"]), text(&a["source"]))).collect()
}

fn own() -> (String, String) {
    (DECLARED.into(), "manual".into())
}

on_a_host!(what_has_moved_to_another_host_stays_there, {
    let host = guest();
    for ip in [DECLARED, LEARNED] {
        sh(&format!("ip neigh replace {ip} lladdr {OTHER} dev flat-l2 nud noarp extern_learn proto zebra"));
    }
    host.run(&["sync"]).tells(&["guest vnet0: 10.1.0.60 is also 52:54:00:aa:00:01's"]);
    assert!(neighbours().contains(&neighbour(DECLARED, MAC)), "what is declared is taken back: {}", neighbours());
    let left = sh(&format!("ip neigh show {LEARNED} dev flat-l2"));
    assert!(left.contains(OTHER) && left.contains("extern_learn"), "{left}");
    assert_eq!(addresses(&host, "vnet0"), [own()]);
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
    host.run(&["detach", "vnet0"]).ok();
    assert!(sh(&format!("ip neigh show {LEARNED} dev flat-l2")).contains(OTHER), "it was not the guest's to withdraw");
});

on_a_host!(what_is_lost_comes_back, {
    let host = guest();
    sh(&format!("ip neigh del {LEARNED} dev flat-l2"));
    host.run(&["sync"]).ok();
    assert_eq!(neighbours(), neighbour(DECLARED, MAC) + &neighbour(LEARNED, MAC));
});

on_a_host!(who_declares_an_address_has_it_before_who_learned_it, {
    let host = guest();
    fs::write("/run/config.toml", format!("on_duplicate = 'refuse'\n{CONFIG}")).unwrap();
    tap("vnet1");
    let attach = |ip| ["attach", "vnet1", "--network", "flat", "--mac", OTHER, "--ip", ip];
    host.refuses(&attach(DECLARED), 1, &["guest vnet1: 10.1.0.60 is also guest vnet0's"]);
    host.run(&attach(LEARNED)).ok();
    for _ in 0..2 {
        assert_eq!(neighbours(), neighbour(DECLARED, MAC) + &neighbour(LEARNED, OTHER));
        host.run(&["sync"]).ok();
    }
    assert_eq!(addresses(&host, "vnet0"), [own()]);
});

on_a_host!(what_a_lost_record_had_learned_is_found_in_the_kernel, {
    let host = guest();
    change("vnet0", |ips| ips.truncate(1));
    host.run(&["sync"]).ok();
    assert_eq!(neighbours(), neighbour(DECLARED, MAC) + &neighbour(LEARNED, MAC));
    assert_eq!(addresses(&host, "vnet0"), [own(), (LEARNED.into(), "fabric".into())]);
    assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
    // What cannot be its own is a ghost.
    sh(&format!("ip neigh add 192.0.2.7 lladdr {MAC} dev flat-l2 nud permanent proto 69"));
    host.run(&["sync"]).ok();
    assert!(!neighbours().contains("192.0.2.7"), "{}", neighbours());
});

// Linux itself makes them (RFC 8981, ip-sysctl.rst `use_tempaddr`), one after another, and tells nobody of those that it gives up.
on_a_host!(of_a_guests_privacy_addresses_the_last_ten_are_kept, {
    const STABLE: &str = "fd00:1::5054:ff:fe03:82d8";
    let host = Host::new(&CONFIG.replace("[\"10.1.0.1/24\"]", "[\"10.1.0.1/24\", \"fd00:1::1/64\"]"));
    host.run(&["network", "up", "flat"]).ok();
    tap("vnet0");
    sh(&format!("ip netns add guest && ip link set vnet0p address {MAC} netns guest && ip link set vnet0 up"));
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", DECLARED]).ok();
    let _agent = Agent::start();
    sh(
        "ip netns exec guest sh -c 'echo 2 >/proc/sys/net/ipv6/conf/vnet0p/use_tempaddr' && ip -n guest link set vnet0p up",
    );
    let knows = |ip: &str| neighbours().contains(&neighbour(ip, MAC));
    let made: Vec<String> = (0..12)
        .map(|_| {
            // The kernel's own go with the address that they were made for.
            sh(&format!("ip -n guest address flush dev vnet0p to {STABLE}"));
            sh(&format!("ip -n guest address add {STABLE}/64 dev vnet0p mngtmpaddr"));
            let of_guest = list("ip -n guest -j address show dev vnet0p temporary");
            let address = of_guest[0]["addr_info"][0]["local"].as_str().expect("a temporary address").to_owned();
            until(&address, || knows(&address));
            address
        })
        .collect();
    let stable = [DECLARED, STABLE, "fe80::5054:ff:fe03:82d8"];
    until("the stable ones", || stable.iter().all(|ip| knows(ip)));
    let mut kept: Vec<String> =
        stable.into_iter().chain(made[2..].iter().map(String::as_str)).map(|ip| neighbour(ip, MAC)).collect();
    kept.sort();
    assert_eq!(neighbours(), kept.concat(), "made in this order: {made:#?}");
});
