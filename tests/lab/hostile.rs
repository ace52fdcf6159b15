//! A guest that tries to take its neighbour's addresses, on its own host and from another: how long is each of them not its owner's?
//!
//! A claim that was refused without a question is not judged again for 30 s (`DEAF`, src/agent/claims.rs): the thief beside the owner is judged about what
//! is declared or leased when it first tries and once more in each 30 s, so they try for longer than that. The one behind another VTEP, and what is only
//! spoken, are judged each second: the owner is asked.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::fabric::{Agent, Container, Fabric, Host, Monitor, wait_until};
use crate::figures::keep;
use crate::forge::{Port, Who, forged};
use crate::tenant::{Network, SOON, endpoint_status, joined};

/// So that each claim is judged more than once; `make soak` has them try for five minutes.
fn window() -> Duration {
    let seconds = std::env::var("EVPN_HOSTILE_SECONDS").ok().map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(45))
}

/// So many frames a second are below what makes a port too loud to be heard.
const PACE: Duration = Duration::from_millis(10);
/// So many frames a second each thief sends at least, all that it does besides included (11 were counted, most of the time goes for `ping`).
const AT_LEAST: u64 = 5;
/// One look of the agent, in a lab machine.
const LOOK: Duration = Duration::from_secs(1);

const GATEWAY: [&str; 3] = ["00:00:00:11:11:70", "10.3.0.1", "fd00:3::1"];
const DECLARED: [&str; 3] = ["00:16:3e:00:71:01", "10.3.0.131", "fd00:3::b1"];
const LEASED: &str = "00:16:3e:00:71:02";
const SPOKEN: [&str; 3] = ["00:16:3e:00:71:03", "10.3.0.133", "fd00:3::b3"];
const NEAR: [&str; 3] = ["00:16:3e:00:71:04", "10.3.0.134", "fd00:3::b4"];
const FAR: [&str; 3] = ["00:16:3e:00:71:05", "10.3.0.135", "fd00:3::b5"];

fn on(mac: &str) -> String {
    format!(
        "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\nlxc.net.0.link = dual-l2\n\
         lxc.net.0.flags = up\nlxc.net.0.name = eth0\nlxc.net.0.hwaddr = {mac}\n"
    )
}

fn declared<'a>(host: &'a Host, name: &str, [mac, v4, v6]: [&str; 3]) -> Container<'a> {
    let addresses = format!("lxc.net.0.ipv4.address = {v4}/24\nlxc.net.0.ipv6.address = {v6}/64\n");
    Container::start(host, name, &format!("{}{addresses}", on(mac)))
}

/// An address, and whose it is.
struct Owned {
    how: &'static str,
    mac: &'static str,
    ip: String,
}

/// An address was not its owner's, by what a host's kernel told.
#[derive(Default)]
struct Lost {
    times: usize,
    longest: Duration,
    whole: Duration,
}

impl Owned {
    fn lost(&self, monitor: &Monitor, from: usize, end: Instant) -> Lost {
        let entry = format!("{} dev dual-l2", self.ip);
        let (mut lost, mut since) = (Lost::default(), None);
        let lines = monitor.transcript().lines();
        let told = lines[from..].iter().filter(|line| line.text.contains(&entry));
        for (at, is_its) in told
            .map(|line| (line.at, line.text.contains(self.mac) && !line.text.contains("Deleted")))
            .chain([(end, true)])
        {
            match (since, is_its) {
                (None, false) => since = Some(at),
                (Some(begun), true) => {
                    let took = at.saturating_duration_since(begun);
                    lost.times += 1;
                    lost.whole += took;
                    lost.longest = lost.longest.max(took);
                    since = None;
                }
                _ => {}
            }
        }
        lost
    }
}

/// Two thieves, one beside the owners and one behind another VTEP. Gives for each address and host what was lost of it, and a table.
fn tried(fabric: &'static Fabric, security: &str) -> (Vec<(&'static str, Lost)>, String) {
    let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
    let secured = |host: &Host, more: &str| {
        let file = "/usr/share/evpn-hook/libvirt-networks/dual.xml";
        host.sh(&format!("sed \"s/<evpn:network /&port_security='{security}' /; {more}\" {file}"))
    };
    let _networks = [
        Network::start_xml(comp1, "dual", &secured(comp1, "")),
        Network::start_xml(comp2, "dual", &secured(comp2, "/^ *<dhcp>$/,/<\\/dhcp>/d")),
    ];
    joined(fabric, 80);
    let _agents = [comp1, comp2].map(Agent::start);
    let _first = declared(comp1, "declared", DECLARED);
    let second = Container::start(comp1, "leased", &on(LEASED));
    let third = Container::start(comp1, "spoken", &on(SPOKEN[0]));
    let thieves = [("near", declared(comp1, "near", NEAR), NEAR), ("far", declared(comp2, "far", FAR), FAR)];
    let lease = second.ok(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "1"]);
    let lease =
        lease.split_whitespace().find(|word| word.starts_with("10.3.0.")).expect("a lease").trim_end_matches(',');
    let mut owned = vec![
        Owned { how: "declared", mac: DECLARED[0], ip: DECLARED[1].into() },
        Owned { how: "declared", mac: DECLARED[0], ip: DECLARED[2].into() },
        Owned { how: "leased", mac: LEASED, ip: lease.into() },
    ];
    // With mac-ip nobody may use what nobody gave it.
    if security == "off" {
        for ip in &SPOKEN[1..] {
            let length = if ip.contains(':') { 64 } else { 24 };
            third.ok(&["ip", "address", "add", &format!("{ip}/{length}"), "dev", "eth0"]);
            owned.push(Owned { how: "spoken", mac: SPOKEN[0], ip: (*ip).into() });
        }
        third.ok(&["ping", "-c", "1", GATEWAY[1]]);
    }
    for Owned { how, mac, ip } in &owned {
        wait_until(&format!("what is {how}, {ip}, on both hosts"), SOON, || {
            let is_there = |host: &Host, flag: &str| {
                let entry = host.run(&["ip", "neigh", "show", "to", ip, "dev", "dual-l2"]).stdout;
                entry.contains(mac) && entry.contains(flag)
            };
            is_there(comp1, "PERMANENT") && is_there(comp2, "extern_learn")
        });
    }
    let monitors = [("their own host", comp1.monitor()), ("another", comp2.monitor())];
    let from = monitors.each_ref().map(|(_, monitor)| monitor.transcript().len());
    let (begun, end) = (Instant::now(), Instant::now() + window());
    let sent: [usize; 2] = std::thread::scope(|scope| {
        let owned = &owned;
        let tries = thieves.each_ref().map(|(_, thief, who)| scope.spawn(move || steals(thief, *who, owned, end)));
        tries.map(|thread| thread.join().expect("a thief"))
    });
    let took = begun.elapsed().as_secs();
    let mut table = format!(
        "port_security='{security}': two guests with {} and {} frames in {took} s against a neighbour's addresses\n\
         {:<10}{:<14}{:<16}{:>6}{:>11}{:>11}\n",
        sent[0], sent[1], "address", "", "as seen by", "times", "longest s", "in all s"
    );
    let mut all = Vec::new();
    for (Owned { how, ip, .. }, owned) in owned.iter().zip(&owned) {
        for ((place, monitor), from) in monitors.iter().zip(from) {
            let lost = owned.lost(monitor, from, Instant::now());
            let (longest, whole) = (lost.longest.as_secs_f64(), lost.whole.as_secs_f64());
            let _ = writeln!(table, "{how:<10}{ip:<14}{place:<16}{:>6}{longest:>11.3}{whole:>11.3}", lost.times);
            all.push((*how, lost));
        }
    }
    eprintln!("{table}");
    keep(&format!("hostile-{security}.txt"), &table);
    for (sent, (name, ..)) in sent.iter().zip(&thieves) {
        let least = window().as_secs() * AT_LEAST;
        assert!(*sent as u64 >= least, "{name} sent {sent} frames only, less than {least}");
    }
    // Whoever lived through it is still there.
    for Owned { mac, ip, .. } in &owned {
        wait_until(&format!("{ip} to be advertised"), SOON, || {
            let status = endpoint_status(comp1, mac);
            status["state"] == "advertised" && status["ips"].to_string().contains(&format!("\"{ip}\""))
        });
    }
    (all, table)
}

/// Tries everything in turn, and has the address itself half of the time; how many frames that were.
fn steals(thief: &Container, own: [&str; 3], owned: &[Owned], end: Instant) -> usize {
    let who = |[mac, v4, v6]: [&str; 3]| Who::new(mac, v4, v6);
    let port = thief.inside(|| Port::open("eth0"));
    let mut sent = 0;
    let mut has = false;
    while Instant::now() < end {
        has = !has;
        for Owned { mac, ip, .. } in owned {
            let (v4, v6) = if ip.contains(':') { (DECLARED[1], ip.as_str()) } else { (ip.as_str(), DECLARED[2]) };
            if has {
                let length = if ip.contains(':') { "/64" } else { "/24" };
                thief.run(&["ip", "address", "add", &format!("{ip}{length}"), "dev", "eth0"]);
                thief.run(&[
                    "ping",
                    "-c",
                    "1",
                    "-W",
                    "1",
                    "-I",
                    ip,
                    if ip.contains(':') { GATEWAY[2] } else { GATEWAY[1] },
                ]);
            }
            let (own, peer, gateway) = (who(own), who([mac, v4, v6]), who(GATEWAY));
            for frame in forged(own, peer, gateway) {
                port.send(&frame.bytes);
                sent += 1;
                std::thread::sleep(PACE);
            }
            if has {
                thief.run(&["ip", "address", "flush", "to", ip, "dev", "eth0"]);
            }
        }
    }
    sent
}

lab_test! {
    fn what_is_declared_or_leased_stays_its_owners(fabric) {
        let (all, table) = tried(fabric, "off");
        let longest = all.iter().filter(|(how, _)| *how != "spoken").map(|(_, lost)| lost.longest).max();
        assert!(longest.expect("some") <= LOOK, "{table}");
    }
}

lab_test! {
    fn where_ports_are_held_nothing_is_lost_at_all(fabric) {
        let (all, table) = tried(fabric, "mac-ip");
        assert!(all.iter().all(|(_, lost)| lost.times == 0), "{table}");
    }
}
