//! Many at once: a host that boots starts all its guests, and stops them when it goes down.

use crate::common::sh;
use crate::host::{Host, fdb, neighbours};
use crate::on_a_host;
use crate::xml::{domain, guest, interface};
use std::fmt::Write;

const GUESTS: u32 = 200;

/// Runs one hook for each guest, all of them at the same time.
fn all(host: &Host, op: &str) {
    std::thread::scope(|scope| {
        let runs: Vec<_> = (1..=GUESTS)
            .map(|n| {
                let mac = format!("52:54:00:00:00:{n:02x}");
                let xml = domain(
                    n,
                    &guest(&mac, None, &[&format!("10.1.0.{n}")]),
                    &interface(&mac, &format!("vnet{n}"), "flat-l2"),
                );
                scope.spawn(move || host.hook(&["qemu", &format!("vm{n}"), op, "begin", "-"], xml))
            })
            .collect();
        for run in runs {
            run.join().unwrap().ok();
        }
    });
}

on_a_host!(two_hundred_guests_start_and_stop_at_once, {
    let host = Host::new(&crate::host::CONFIG.replace("10.1.0.1/24", "10.1.0.254/24"));
    host.run(&["network", "up", "flat"]).ok();
    let mut batch = String::new();
    for n in 1..=GUESTS {
        writeln!(batch, "link add vnet{n} mtu 1450 master flat-l2 up type veth peer name p{n}").unwrap();
    }
    std::fs::write("/run/batch", batch).unwrap();
    sh("ip -batch /run/batch");
    all(&host, "start");
    assert_eq!(fdb().lines().count(), 200);
    assert_eq!(neighbours().lines().count(), 200);
    let records = || sh("find /run/evpn-hook/guests -type f").lines().filter(|f| f.ends_with(".json")).count();
    assert_eq!(records(), 200);
    let status = host.status();
    let endpoints = status["endpoints"].as_array().unwrap();
    assert!(endpoints.len() == 200 && endpoints.iter().all(|e| e["state"] == "registered"));
    all(&host, "stopped");
    assert_eq!((fdb(), neighbours()), (String::new(), String::new()));
    assert_eq!(sh("find /run/evpn-hook/guests -type f"), "", "neither record nor lock stays");
});
