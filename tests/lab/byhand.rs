//! libvirt's qemu hook called without libvirt, where the call itself is the subject: 200 at once, and the order of a migration.

use std::fmt::Write;

use crate::fabric::{Fabric, Host, OtherFrr, Output, wait_until};
use crate::tenant::{Red, SOON, endpoint_status, network_status, remembers};

/// A domain of which only the XML exists, on a tap that libvirt would have made.
struct Domain {
    number: usize,
    tap: String,
    mac: String,
    ip: String,
}

impl Domain {
    fn new(number: usize) -> Domain {
        let (mac, ip) = (format!("52:54:00:bb:00:{number:02x}"), format!("10.1.0.{}", number + 10));
        Domain { number, tap: format!("burst{number}"), mac, ip }
    }

    fn xml(&self) -> String {
        let Domain { number, tap, mac, ip } = self;
        format!(
            "<domain type='qemu' id='{number}'><name>vm{number}</name><uuid>5e1f0000-0000-4000-8000-{number:012}</uuid>
<metadata><evpn:guest xmlns:evpn='urn:evpn-hook:1'><evpn:interface mac='{mac}'><evpn:ip address='{ip}'/></evpn:interface></evpn:guest></metadata>
<devices><interface type='network'><mac address='{mac}'/><source network='red' bridge='red-l2'/><target dev='{tap}'/></interface></devices></domain>"
        )
    }
}

/// Makes the taps, or deletes them, in one go.
fn taps(host: &Host, domains: &[Domain], make: bool) {
    let mut batch = String::new();
    for Domain { tap, .. } in domains {
        let _ = match make {
            true => writeln!(batch, "tuntap add dev {tap} mode tap\nlink set {tap} master red-l2 up"),
            false => writeln!(batch, "link del {tap}"),
        };
    }
    host.write("/run/taps", &batch);
    host.ok(&["ip", "-batch", "/run/taps"]);
}

/// Taps outlive a failed test otherwise.
struct Taps<'a>(&'a Host, &'a [Domain]);

impl Drop for Taps<'_> {
    fn drop(&mut self) {
        let names: Vec<&str> = self.1.iter().map(|domain| &*domain.tap).collect();
        self.0.run(&[
            "sh",
            "-c",
            &format!("for tap in {}; do [ ! -e /sys/class/net/$tap ] || ip link del $tap; done", names.join(" ")),
        ]);
    }
}

/// The same operation for all of them at once.
fn call_all(host: &Host, domains: &[Domain], operation: &str) {
    let calls: Vec<_> = domains
        .iter()
        .map(|domain| {
            host.start_with(
                &["evpn-hook", "qemu", &format!("vm{}", domain.number), operation, "begin", "-"],
                &domain.xml(),
            )
        })
        .collect();
    for output in calls.into_iter().map(|call| call.wait()) {
        expect_silent(&output);
    }
}

fn expect_silent(output: &Output) {
    assert_eq!((output.code, &*output.stdout, &*output.stderr), (0, "", ""), "{}", output.command);
}

/// How many lines of a command's output have all these words.
fn count(host: &Host, argv: &[&str], parts: &[&str]) -> usize {
    host.ok(argv).lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

fn start_and_stop_at_once(fabric: &'static Fabric) {
    const MANY: usize = 200;
    let red = Red::up(fabric);
    let domains: Vec<_> = (1..=MANY).map(Domain::new).collect();
    let _taps = Taps(red.comp1, &domains);
    taps(red.comp1, &domains, true);
    let begun = std::time::Instant::now();
    call_all(red.comp1, &domains, "start");
    eprintln!("lab: {MANY} starts at once took {} ms", begun.elapsed().as_millis());
    assert_eq!(count(red.comp1, &["bridge", "fdb", "show", "br", "red-l2"], &["52:54:00:bb:", "static"]), MANY);
    assert_eq!(
        count(red.comp1, &["ip", "neigh", "show", "dev", "red-l2", "nud", "permanent"], &["52:54:00:bb:"]),
        MANY
    );
    // Each also has an address that nobody declared: the host's kernel learned it as they talked.
    let learned: Vec<_> = domains
        .iter()
        .map(|d| format!("neigh replace 10.1.2.{} lladdr {} dev red-l2 nud stale\n", d.number, d.mac))
        .collect();
    red.comp1.write("/run/learned", &learned.concat());
    red.comp1.ok(&["ip", "-batch", "/run/learned"]);

    let fdb = || {
        count(
            red.comp2,
            &["bridge", "fdb", "show", "dev", "vxlan20"],
            &["52:54:00:bb:", "dst 10.0.0.1", "extern_learn"],
        )
    };
    let neighbours = || count(red.comp2, &["ip", "neigh", "show", "dev", "red-l2"], &["52:54:00:bb:", "extern_learn"]);
    wait_until("comp2 to know them all", SOON, || (fdb(), neighbours()) == (MANY, 2 * MANY));
    eprintln!("lab: the other hypervisor knew them all {} ms after the first call", begun.elapsed().as_millis());
    wait_until("status to call them all advertised", SOON, || {
        let status = red.comp1.json(&["evpn-hook", "--json", "status"]);
        let endpoints = status["endpoints"].as_array().expect("endpoints");
        endpoints.iter().filter(|endpoint| endpoint["state"] == "advertised").count() == MANY
    });
    let elsewhere = |macs: usize| {
        network_status(red.comp2, "red")["remotes"] == serde_json::json!([{ "vtep": "10.0.0.1", "macs": macs }])
    };
    wait_until("the other hypervisor's status to count them", SOON, || elsewhere(MANY));

    // As QEMU's death does it: the taps are gone before the hook is called.
    taps(red.comp1, &domains, false);
    let begun = std::time::Instant::now();
    call_all(red.comp1, &domains, "stopped");
    eprintln!("lab: {MANY} stops at once took {} ms", begun.elapsed().as_millis());
    assert!(!remembers(red.comp1, "52:54:00:bb:"));
    assert_eq!(red.comp1.sh("find /run/evpn-hook/guests ! -type d ! -name '*.lock'"), "");
    wait_until("comp2 to forget them all", SOON, || !remembers(red.comp2, "52:54:00:bb:"));
    assert!(elsewhere(0), "{:#}", network_status(red.comp2, "red"));
}

lab_test! {
    fn two_hundred_guests_start_at_once(fabric) {
        start_and_stop_at_once(fabric);
    }
}

lab_test! {
    /// It hears of devices and of FDB entries in two threads, and forgets no MAC whose port is gone first.
    fn two_hundred_guests_start_at_once_beside_frr_of_trixie(fabric) {
        let _frr = OtherFrr::of(fabric, "trixie");
        start_and_stop_at_once(fabric);
    }
}

/// Each on a tap that is on no bridge before: where FRR hears of ports and of FDB entries in two threads, it must not pass over an entry.
fn attach_one_after_another(fabric: &'static Fabric) {
    const MANY: usize = 200;
    let red = Red::up(fabric);
    let domains: Vec<_> = (1..=MANY).map(Domain::new).collect();
    let _taps = Taps(red.comp1, &domains);
    for Domain { tap, mac, ip, .. } in &domains {
        red.comp1.ok(&["ip", "tuntap", "add", "dev", tap, "mode", "tap"]);
        red.comp1.ok(&["evpn-hook", "attach", tap, "--network", "red", "--mac", mac, "--ip", ip]);
    }
    let known = || {
        let entries = red.comp2.sh("bridge fdb show dev vxlan20; ip neigh show dev red-l2");
        let lost = |d: &&Domain| {
            entries.lines().filter(|line| line.contains(&d.mac) && line.contains("extern_learn")).count() < 3
        };
        let lost: Vec<_> = domains.iter().filter(lost).map(|d| &d.ip).collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("{} of {MANY} lost: {lost:?}", lost.len())) }
    };
    wait_until("comp2 to know them all", SOON, known);
    for Domain { tap, .. } in &domains {
        red.comp1.ok(&["evpn-hook", "detach", tap]);
    }
    wait_until("comp2 to forget them all", SOON, || !remembers(red.comp2, "52:54:00:bb:"));
}

lab_test! {
    fn two_hundred_are_attached_one_after_another(fabric) {
        attach_one_after_another(fabric);
    }
}

lab_test! {
    fn two_hundred_are_attached_one_after_another_beside_frr_of_trixie(fabric) {
        let _frr = OtherFrr::of(fabric, "trixie");
        attach_one_after_another(fabric);
    }
}

lab_test! {
    fn an_arriving_guest_is_wired_and_not_advertised(fabric) {
        let red = Red::up(fabric);
        let domains = [Domain::new(7)];
        let Domain { tap, mac, .. } = &domains[0];
        let call = |operation| {
            expect_silent(&red.comp1.run_with(&["evpn-hook", "qemu", "vm7", operation, "begin", "-"], &domains[0].xml()));
        };
        let _taps = Taps(red.comp1, &domains);
        call("migrate");
        call("prepare");
        taps(red.comp1, &domains, true);
        red.comp1.ok(&["ip", "link", "set", tap, "mtu", "1500"]);
        call("start");
        call("started");
        let mtu = |device: &str| red.comp1.ok(&["cat", &format!("/sys/class/net/{device}/mtu")]);
        assert_eq!(mtu(tap), mtu("red-l2"), "wired");
        assert_eq!(endpoint_status(red.comp1, mac)["state"], "incoming");
        assert!(!remembers(red.comp1, mac), "nothing that FRR would advertise");

        call("stopped");
        call("release");
        assert_eq!(red.comp1.sh("find /run/evpn-hook/guests ! -type d ! -name '*.lock'"), "");

        // The mark went with it: the next start is a cold boot.
        call("prepare");
        call("start");
        assert_eq!(count(red.comp1, &["bridge", "fdb", "show", "dev", tap], &[mac, "static"]), 1);
        call("stopped");
        assert!(!remembers(red.comp1, mac));
    }
}
