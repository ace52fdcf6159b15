//! An address or MAC that another guest has already. The fabric's part is played by entries as FRR would make them.

use crate::common::sh;
use crate::host::{CONFIG, Host, neighbours, tap};
use crate::on_a_host;
use std::time::{Duration, Instant};

const MAC: &str = "52:54:00:03:82:d8";
const OTHER: &str = "52:54:00:aa:00:01";

fn attach<'a>(dev: &'a str, mac: &'a str, ip: &'a str) -> [&'a str; 8] {
    ["attach", dev, "--network", "flat", "--mac", mac, "--ip", ip]
}

/// A host whose network is up, that refuses.
fn refusing() -> Host {
    let host = Host::flat();
    std::fs::write("/run/config.toml", format!("on_duplicate = 'refuse'\n{CONFIG}")).unwrap();
    host
}

/// As zebra puts another VTEP's guest into the kernel.
fn elsewhere(mac: &str, ip: &str) {
    sh(&format!(
        "bridge fdb replace {mac} dev vxlan20 master extern_learn; bridge fdb replace {mac} dev vxlan20 self dst 10.0.0.9 extern_learn
         ip neigh replace {ip} lladdr {mac} dev flat-l2 nud noarp extern_learn proto zebra"
    ));
}

/// As it takes it back.
fn gone(mac: &str, ip: &str) -> String {
    format!(
        "ip neigh del {ip} dev flat-l2; bridge fdb del {mac} dev vxlan20 master; bridge fdb del {mac} dev vxlan20 self"
    )
}

fn problems(host: &Host) -> Vec<String> {
    let problems = |e: &serde_json::Value| serde_json::from_value::<Vec<String>>(e["problems"].clone()).unwrap();
    host.status()["endpoints"].as_array().unwrap().iter().flat_map(problems).collect()
}

on_a_host!(an_address_of_another_vteps_guest_is_refused, {
    let host = refusing();
    tap("vnet0");
    elsewhere(OTHER, "10.1.0.60");
    let parts =
        &["guest vnet0: 10.1.0.60 is also 52:54:00:aa:00:01's at VTEP 10.0.0.9: give one of the two another address"];
    let start = Instant::now();
    host.refuses(&attach("vnet0", MAC, "10.1.0.60"), 1, parts);
    assert!(start.elapsed() >= Duration::from_secs(2), "it may go in a moment");
    let start = Instant::now();
    host.refuses(&[&attach("vnet0", MAC, "10.1.0.60")[..], &["--dry-run"]].concat(), 1, parts);
    assert!(start.elapsed() < Duration::from_secs(1), "a dry run waits for nobody");
    host.run(&attach("vnet0", MAC, "10.1.0.61")).ok();
});

on_a_host!(what_goes_in_time_is_no_duplicate, {
    let host = refusing();
    tap("vnet0");
    elsewhere(OTHER, "10.1.0.60");
    elsewhere(MAC, "10.1.0.99");
    let script = format!("sleep 0.3; {}; sleep 0.2; {}", gone(OTHER, "10.1.0.60"), gone(MAC, "10.1.0.99"));
    let other = std::thread::spawn(move || sh(&script));
    let start = Instant::now();
    host.run(&attach("vnet0", MAC, "10.1.0.60")).ok();
    assert!(start.elapsed() < Duration::from_millis(1900), "{:?}", start.elapsed());
    other.join().unwrap();
    assert_eq!(problems(&host), [""; 0]);
});

on_a_host!(an_address_of_another_vteps_guest_is_taken_with_a_warning, {
    let host = Host::flat();
    tap("vnet0");
    elsewhere(OTHER, "10.1.0.60");
    let words =
        "guest vnet0: 10.1.0.60 is also 52:54:00:aa:00:01's at VTEP 10.0.0.9: give one of the two another address";
    host.run(&attach("vnet0", MAC, "10.1.0.60")).tells(&[words]);
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {MAC} dev flat-l2\n"));
    assert_eq!(problems(&host), [words.strip_prefix("guest vnet0: ").unwrap()]);
    // It stays known, whoever attaches it again.
    host.run(&attach("vnet0", MAC, "10.1.0.60")).ok();
    assert_eq!(problems(&host).len(), 1);
    // The other takes it back: known by its entry, and mended without a second warning.
    elsewhere(OTHER, "10.1.0.60");
    assert_eq!(problems(&host).len(), 2, "the missing neighbour, and why: {:?}", problems(&host));
    host.run(&["sync"]).ok();
    assert_eq!(problems(&host).len(), 1);
    sh(&format!("bridge fdb del {OTHER} dev vxlan20 master"));
    assert_eq!(problems(&host), [""; 0], "the other has gone");
});

on_a_host!(a_mac_that_runs_behind_another_vtep, {
    let host = refusing();
    tap("vnet0");
    elsewhere(MAC, "10.1.0.60");
    let parts = &["guest vnet0: 52:54:00:03:82:d8 is also at VTEP 10.0.0.9: give one of the two another MAC, unless"];
    host.refuses(&attach("vnet0", MAC, "10.1.0.60"), 1, parts);
    std::fs::write("/run/config.toml", CONFIG).unwrap();
    host.run(&attach("vnet0", MAC, "10.1.0.60")).tells(parts);
    assert_eq!(problems(&host).len(), 1);
    sh(&gone(MAC, "10.1.0.60"));
});

on_a_host!(what_another_guest_of_this_host_has, {
    let host = refusing();
    tap("vnet0");
    tap("vnet1");
    host.run(&attach("vnet0", OTHER, "10.1.0.60")).ok();
    let start = Instant::now();
    let parts = &["guest vnet1: 10.1.0.60 is also guest vnet0's (52:54:00:aa:00:01) on this host: give one of the two"];
    host.refuses(&attach("vnet1", MAC, "10.1.0.60"), 1, parts);
    let parts = &["guest vnet1: 52:54:00:aa:00:01 is also guest vnet0's on this host: give one of the two another MAC"];
    host.refuses(&attach("vnet1", OTHER, "10.1.0.61"), 1, parts);
    assert!(start.elapsed() < Duration::from_secs(2), "nobody is about to withdraw it");
    std::fs::write("/run/config.toml", CONFIG).unwrap();
    host.run(&attach("vnet1", MAC, "10.1.0.60")).tells(&["10.1.0.60 is also guest vnet0's"]);
    let text = problems(&host).join("\n");
    assert!(
        text.contains("is also guest vnet0's (52:54:00:aa:00:01)") && text.contains("is also guest vnet1's"),
        "{text}"
    );
});

on_a_host!(what_the_kernel_learned_or_nobody_owns_is_in_nobodys_way, {
    let host = refusing();
    tap("vnet0");
    sh(&format!("ip neigh replace 10.1.0.60 lladdr {OTHER} dev flat-l2 nud stale"));
    sh(&format!("ip neigh replace 10.1.0.61 lladdr {OTHER} dev flat-l2 nud permanent"));
    host.run(&attach("vnet0", MAC, "10.1.0.60")).ok();
    host.run(&attach("vnet0", MAC, "10.1.0.61")).ok();
});
