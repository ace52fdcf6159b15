//! What a start says of a description that works badly, and what it does about STP. The cases are those of operators' reports.

use crate::agent::{Agent, until};
use crate::common::{ip_link, json, sh};
use crate::host::{CONFIG, Host};
use crate::journal::{Journald, of};
use crate::on_a_host;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, network};
use evpn_hook::advice;
use evpn_hook::config::Config;
use evpn_hook::event::Event;
use evpn_hook::input::libvirt_network;
use serde_json::Value;
use std::time::{Duration, Instant};

/// LAB as libvirt prints it where nobody wrote anything of STP.
fn default_stp() -> String {
    LAB.replace("stp='off'", "stp='on'")
}

fn libvirts_bridge() {
    sh(&LIBVIRTS_BRIDGE.replace("type bridge", "type bridge stp_state 1"));
}

fn stp(bridge: &str) -> bool {
    ip_link(bridge)["linkinfo"]["info_data"]["stp_state"] == 1
}

/// A port's state once it has a carrier, which the kernel tells its bridge a moment later (net/core/link_watch.c).
fn port_state(dev: &str) -> String {
    let state = || json(&format!("bridge -j -d link show dev {dev}"))[0]["state"].as_str().unwrap().to_owned();
    let until = Instant::now() + Duration::from_secs(10);
    while state() == "disabled" && Instant::now() < until {}
    state()
}

/// What status says of a network: the advice's checks, and its problems.
fn told(host: &Host, name: &str) -> (Vec<String>, Vec<String>) {
    let status = host.status();
    let network = status["networks"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap();
    let texts = |of: &Value, key: fn(&Value) -> &Value| {
        of.as_array().unwrap().iter().map(|one| key(one).as_str().unwrap().to_owned()).collect()
    };
    (texts(&network["advice"], |advice| &advice["check"]), texts(&network["problems"], |problem| problem))
}

on_a_host!(f06_libvirts_default_stp_is_off_before_the_first_port, {
    let host = Host::new("[speaker]\nkind = 'none'\n");
    libvirts_bridge();
    let xml = network("lab", "<evpn:network vni='40'/>", &default_stp());
    host.hook(&["network", "lab", "started", "begin", "-"], &xml).ok();
    assert!(!stp("lab-l2"));
    assert_eq!(port_state("vxlan40"), "forwarding");
    // A guest's tap, which libvirt puts there: it hears and is heard at once.
    sh("ip link add vnet0 type veth peer name guest && ip link set guest up && ip link set vnet0 up master lab-l2");
    assert_eq!(port_state("vnet0"), "forwarding");
    assert_eq!(told(&host, "lab"), (vec!["stp".to_owned()], vec![]));
    host.run(&["status", "--check"]).ok();

    // Somebody turns it on: a problem, and `sync` mends it, or the agent.
    let on = || sh("ip link set lab-l2 type bridge stp_state 1");
    on();
    let mend = "ip link set lab-l2 type bridge stp_state 0";
    assert_eq!(told(&host, "lab").1, [format!("missing: {mend}")]);
    assert_eq!(host.run(&["status", "--check"]).status, 3);
    let doctor = host.run(&["doctor"]);
    assert!(doctor.status == 3 && doctor.stdout.contains("problem: stp: lab-l2: runs STP: "), "{doctor:?}");
    assert_eq!(host.run(&["sync"]).ok().stdout, "mended in 1 step\n");
    assert!(!stp("lab-l2"));
    let _agent = Agent::start();
    on();
    until("the agent to turn it off", || !stp("lab-l2"));
});

on_a_host!(f06_stp_is_on_where_the_metadata_wants_it, {
    let host = Host::new("[speaker]\nkind = 'none'\n");
    libvirts_bridge();
    let xml = network("lab", "<evpn:network vni='40' stp='on'/>", &default_stp());
    host.hook(&["network", "lab", "started", "begin", "-"], &xml).ok();
    assert!(stp("lab-l2"));
    assert_eq!(told(&host, "lab"), (vec!["stp".to_owned()], vec![]));
    sh("ip link set lab-l2 type bridge stp_state 0");
    host.run(&["sync"]).ok();
    assert!(stp("lab-l2"));
    let odd = network("lab", "<evpn:network vni='40' stp='yes'/>", LAB);
    let parts = &["network lab: <evpn:network>: stp 'yes' is unknown: use on or off"];
    host.hook_refuses(&["network", "lab", "start", "begin", "-"], odd, 1, parts);
});

on_a_host!(f06_a_start_that_fails_puts_stp_back, {
    let host = Host::new("[speaker]\nkind = 'none'\n");
    libvirts_bridge();
    let xml = network("lab", "<evpn:network vni='40'/>", &default_stp());
    let mut command = host.command(&["network", "lab", "started", "begin", "-"]);
    command.env("EVPN_HOOK_FAULT", "fail 4");
    let before = crate::host::snapshot();
    let run = crate::host::finish(command, xml.as_bytes());
    assert!(run.status == 1 && run.stderr.contains("injected fault"), "{run:?}");
    assert!(stp("lab-l2"));
    assert_eq!(crate::host::snapshot(), before);
});

on_a_host!(f06_a_bridge_that_was_there_before_keeps_its_stp, {
    let host = Host::new(CONFIG);
    sh("ip link add flat-l2 address 00:00:00:11:11:10 type bridge stp_state 1");
    host.run(&["network", "up", "flat"]).ok();
    assert!(stp("flat-l2"));
    assert_eq!(told(&host, "flat"), (vec!["stp".to_owned()], vec![]));
    host.run(&["network", "down", "flat"]).ok();
    assert!(stp("flat-l2"));
});

on_a_host!(a_start_says_all_advice_a_line_each_and_never_refuses, {
    let host = Host::new("[speaker]\nkind = 'none'\n");
    libvirts_bridge();
    let plain = "<forward mode='nat'/><bridge name='lab-l2' stp='on' delay='0'/><mac address='52:54:00:26:b6:08'/>
        <ip address='10.1.0.1' netmask='255.255.255.0'><dhcp><range start='10.1.0.10' end='10.1.0.20'/></dhcp></ip>";
    let xml = network("lab", "<evpn:network vni='40'/>", plain);
    let journald = Journald::listens();
    let checks = ["stp", "dhcp-broadcast", "anycast-mac", "mtu-not-told"];
    let heard = || {
        let entries: Vec<_> = journald.heard().into_iter().flatten().collect();
        let advice = entries.iter().filter(|entry| of(entry, "MESSAGE").starts_with("advice: "));
        let told = advice
            .map(|entry| (of(entry, "MESSAGE").split(": ").nth(2).unwrap().to_owned(), of(entry, "PRIORITY") == "5"));
        told.collect::<Vec<_>>()
    };
    let wanted: Vec<(String, bool)> = checks.iter().map(|check| ((*check).to_owned(), true)).collect();
    host.hook(&["network", "lab", "start", "begin", "-"], &xml).ok();
    assert_eq!(heard(), [], "it has not started yet");
    host.hook(&["network", "lab", "started", "begin", "-"], &xml).ok();
    assert_eq!(heard(), wanted);
    host.run(&["network", "up", "lab"]).ok();
    assert_eq!(heard(), wanted, "whoever asks for it again hears it again");
    host.run(&["sync"]).ok();
    host.hook(&["network", "lab", "port-created", "begin", "-"], &xml).ok();
    assert_eq!(heard(), [], "nobody waits for these");
    let shown = host.run(&["-v", "network", "up", "lab"]);
    let lines: Vec<&str> =
        shown.stderr.lines().filter(|line| line.starts_with("evpn-hook: advice: network lab: ")).collect();
    assert_eq!(lines.len(), checks.len(), "{shown:?}");
    assert!(lines.iter().all(|line| line.contains("; mend: ")), "{lines:#?}");
    // Nobody is paged for it, and it is there for who looks.
    assert_eq!(told(&host, "lab"), (checks.map(str::to_owned).to_vec(), vec![]));
    let tree = host.run(&["status", "--check"]).ok().stdout;
    assert!(
        tree.contains("~ advice: stp, dhcp-broadcast, anycast-mac, mtu-not-told ('evpn-hook doctor -v')"),
        "{tree}"
    );
    let doctor: Value = serde_json::from_str(&host.run(&["--json", "doctor"]).stdout).unwrap();
    let findings = doctor["findings"].as_array().unwrap();
    for (check, severity) in checks.iter().zip(["hint", "warning", "hint", "warning"]) {
        let found: Vec<_> = findings.iter().filter(|f| f["check"] == *check && f["object"] == "lab").collect();
        assert!(found.len() == 1 && found[0]["severity"] == severity, "{check}: {found:#?}");
    }
});

#[test]
fn what_is_shipped_needs_no_advice_on_the_underlay_that_it_is_written_for() {
    let mut read = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/libvirt-networks")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let xml = format!("<hookData>{}</hookData>", std::fs::read_to_string(&path).unwrap());
        let event = libvirt_network::read(&[&name, "started", "begin", "-"], xml.as_bytes(), &Config::default());
        let Ok(Some(Event::Network { network, .. })) = event else { panic!("{name}: {event:?}") };
        assert_eq!(network.mtu, Some(1450), "{name}");
        assert_eq!(advice::of(&network, None, &Default::default()), [], "{name}");
        read += 1;
    }
    assert_eq!(read, 5);
}
