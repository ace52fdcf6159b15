//! An address that two guests say that they have, beside an agent: whose it is, and whose it stays.

use crate::agent::{Agent, until};
use crate::common::{sh, skip, try_sh};
use crate::dnsmasq::Dnsmasq;
use crate::forge::{self, Port, Who};
use crate::host::{Host, fdb, neighbours};
use crate::inmate::Inmate;
use crate::journal::{Journald, of};
use crate::on_a_host;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const A: &str = "52:54:00:00:00:0a";
const B: &str = "52:54:00:00:00:0b";

/// Long enough for three questions and their answers.
const MOMENT: Duration = Duration::from_millis(600);

/// It is that guest's all the time.
#[track_caller]
fn stays(guest: &Inmate, ip: &str, what: &str) {
    let end = Instant::now() + MOMENT;
    while Instant::now() < end {
        assert!(guest.owns(ip), "{what}\n{}", neighbours());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One more guest says that it has it, and is refused. Not one that was refused before: whoever that was is not looked at for a while.
fn claims(host: &Host, journald: &Journald, n: u8, ip: &str) -> Inmate {
    let name = format!("thief{n}");
    let thief = Inmate::attach(host, &name, &format!("52:54:00:00:01:{n:02x}"));
    thief.has(ip);
    until(&format!("{name} to be refused"), || {
        thief.speaks(ip);
        let entries = journald.heard().concat();
        entries.iter().any(|e| of(e, "GUEST") == name && of(e, "PRIORITY") == "4" && of(e, "MESSAGE").contains(ip))
    });
    thief
}

// agent.md 18: how much is logged is not the guest's choice.
on_a_host!(a_guest_that_changes_its_addresses_all_the_time_fills_no_log, {
    let host = Host::flat();
    let journald = Journald::listens();
    let _agent = Agent::start();
    let a = Inmate::attach(&host, "tapa", A);
    journald.heard();
    let mut entries = Vec::new();
    for last in 100..160 {
        let ip = format!("10.1.0.{last}");
        a.has(&ip);
        a.speaks(&ip);
        until(&ip, || a.owns(&ip));
        // Its socket holds ten.
        entries.extend(journald.heard().into_iter().flatten());
    }
    let about: Vec<&str> = entries.iter().filter(|e| of(e, "GUEST") == "tapa").map(|e| of(e, "MESSAGE")).collect();
    let learned = about.iter().filter(|message| message.contains("learned: ")).count();
    assert_eq!(learned, 16, "{about:#?}");
    assert!(about.len() < 60, "{about:#?}");
});

// agent.md 1.
on_a_host!(a_leased_address_is_taken_by_nobodys_word, {
    if !(try_sh("command -v dnsmasq").0 && try_sh("busybox udhcpc --help").0) {
        return skip("whose::a_leased_address_is_taken_by_nobodys_word", "no dnsmasq or no busybox with udhcpc");
    }
    let host = Host::flat();
    let journald = Journald::listens();
    let agent = Agent::start();
    let a = Inmate::attach(&host, "tapa", A);
    agent.listens_to(1);
    let script = "/run/udhcpc";
    sh(&format!("printf \"#!/bin/sh\\nip address replace \\$ip/24 dev \\$interface\\n\" >{script}; chmod +x {script}"));
    let _server = Dnsmasq::start(&[], "flat-l2", "10.1.0.50,10.1.0.50,1h", &["--leasefile-ro"]);
    a.sh(&format!("busybox udhcpc -n -q -i eth0 -s {script} >/dev/null 2>&1"));
    until("the lease", || a.owns("10.1.0.50"));
    for n in 1..=4 {
        let thief = claims(&host, &journald, n, "10.1.0.50");
        stays(&a, "10.1.0.50", &format!("claim {n} took it"));
        thief.has_no_more("10.1.0.50");
        a.speaks("10.1.0.50");
    }
    // Not even where it is silent: the lease is its own for as long as it lasts.
    a.sh("ip link set eth0 down");
    claims(&host, &journald, 5, "10.1.0.50");
    stays(&a, "10.1.0.50", "a word took it while A was silent");
});

on_a_host!(an_address_stays_with_the_guest_that_answers_for_it, {
    let host = Host::flat();
    let journald = Journald::listens();
    let _agent = Agent::start();
    let (a, b) = (Inmate::attach(&host, "tapa", A), Inmate::attach(&host, "tapb", B));
    a.has("10.1.0.60");
    a.speaks("10.1.0.60");
    until("A's address", || a.owns("10.1.0.60"));
    for n in 1..=3 {
        let other = claims(&host, &journald, n, "10.1.0.60");
        stays(&a, "10.1.0.60", "A answers for it");
        other.has_no_more("10.1.0.60");
    }
    b.has("10.1.0.60");
    b.speaks("10.1.0.60");
    stays(&a, "10.1.0.60", "A answers B for it");
    // A VIP that fails over, to one who was refused a moment ago (agent.md 17).
    a.has_no_more("10.1.0.60");
    until("B to have it", || {
        b.speaks("10.1.0.60");
        b.owns("10.1.0.60")
    });
    // Back again while B answers: it was A's first.
    a.has("10.1.0.60");
    a.speaks("10.1.0.60");
    until("A to have it again", || a.owns("10.1.0.60"));
    b.speaks("10.1.0.60");
    stays(&a, "10.1.0.60", "B had taken it");
});

on_a_host!(who_takes_an_address_again_and_again_is_slowed_and_nobody_else, {
    let host = Host::flat();
    let _agent = Agent::start();
    let (a, b) = (Inmate::attach(&host, "tapa", A), Inmate::attach(&host, "tapb", B));
    a.has("10.1.0.60");
    b.has("10.1.0.60");
    a.speaks("10.1.0.60");
    until("A's address", || a.owns("10.1.0.60"));
    for round in 1..=5 {
        a.sh("ip link set eth0 down");
        b.speaks("10.1.0.60");
        if round <= 4 {
            until("B to have it", || b.owns("10.1.0.60"));
        } else {
            stays(&a, "10.1.0.60", "B took it for the fifth time");
        }
        a.sh("ip link set eth0 up");
        a.speaks("10.1.0.60");
        until("A to have it again", || a.owns("10.1.0.60"));
    }
    let status = host.run(&["status", "--check"]);
    assert_eq!(status.status, 3, "{status:?}");
    assert!(status.stdout.contains("took 10.1.0.60 from others again and again: may not for 3 more min"), "{status:?}");
});

// field.md F05: behind a tunnel that suppresses neighbours nobody hears the new owner's own announcement.
on_a_host!(guests_are_told_that_an_address_moved_to_another_host, {
    let host = Host::flat();
    let a = Inmate::attach(&host, "tapa", A);
    a.has("10.1.0.60");
    let fabric = |ip: &str, last: u8| {
        sh(&format!("ip neigh replace {ip} lladdr 52:54:00:00:01:{last:02x} dev flat-l2 nud noarp extern_learn"));
    };
    // One before the agent came, and one after.
    fabric("10.1.0.70", 1);
    let _agent = Agent::start();
    fabric("10.1.0.71", 1);
    a.sh("echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip address add fd00:1::60/64 dev eth0 nodad");
    fabric("fd00:1::70", 1);
    for ip in ["10.1.0.70", "10.1.0.71", "fd00:1::70"] {
        a.sh(&format!("ip neigh replace {ip} lladdr 52:54:00:00:01:01 dev eth0 nud reachable router"));
        fabric(ip, 2);
        until(ip, || a.sh(&format!("ip neigh show {ip}")).contains("lladdr 52:54:00:00:01:02"));
    }
    assert!(!a.sh("ip neigh show fd00:1::70").contains("router"), "it said that it is none");
    sh("ip neigh replace fd00:1::70 lladdr 52:54:00:00:01:03 dev flat-l2 nud noarp extern_learn router");
    until("a router", || a.sh("ip neigh show fd00:1::70").contains("lladdr 52:54:00:00:01:03 router"));
});

on_a_host!(what_is_broadcast_makes_no_port_deaf, {
    let host = Host::flat();
    let _agent = Agent::start();
    let (a, b) = (Inmate::attach(&host, "tapa", A), Inmate::attach(&host, "tapb", B));
    b.has("10.1.0.61");
    b.speaks("10.1.0.61");
    // agent.md 2: anything at all, to DHCP's clients.
    b.inside(|| {
        let socket = UdpSocket::bind("10.1.0.61:67").unwrap();
        socket.set_broadcast(true).unwrap();
        (0..1000).for_each(|_| assert_eq!(socket.send_to(b"x", "10.1.0.255:68").unwrap(), 1));
    });
    let since = Instant::now();
    a.has("10.1.0.60");
    a.speaks("10.1.0.60");
    until("A to be heard", || a.owns("10.1.0.60"));
    // A port that is too loud is not heard for 5 s.
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
});

// A bridge answers for what is behind its tunnel with the flag of its own entry (net/bridge/br_arp_nd_proxy.c `br_nd_send`), and a host that is told that
// its router is none uses it no more (RFC 4861 §7.2.5).
on_a_host!(a_guest_that_routes_ipv6_is_told_as_a_router, {
    let host = Host::flat();
    let _agent = Agent::start();
    let (a, b) = (Inmate::attach(&host, "tapa", A), Inmate::attach(&host, "tapb", B));
    let local = "fe80::5054:ff:fe00:a";
    let entry = || sh(&format!("ip neigh show {local} dev flat-l2"));
    let advertise = || {
        let advertisement = forge::router_advertisement(Who::new(A, "10.1.0.60", local));
        a.inside(|| Port::open("eth0").send(&advertisement));
    };
    advertise();
    until("a router", || entry().contains(&format!("lladdr {A} router PERMANENT")));
    assert_eq!(host.status()["endpoints"][0]["problems"].to_string(), "[]");
    // It is remembered, whoever changes it.
    sh(&format!("ip neigh replace {local} lladdr {A} dev flat-l2 nud permanent proto 69"));
    assert!(!entry().contains("router"), "{}", entry());
    host.run(&["sync"]).ok();
    assert!(entry().contains("router"), "{}", entry());
    // What FRR puts there for another host's router, guests here are told so by their own bridge.
    let other = "52:54:00:00:01:01";
    for (ip, word) in [("fd00:1::70", "router"), ("fd00:1::71", "")] {
        sh(&format!("bridge fdb replace {other} dev vxlan20 master extern_learn"));
        sh(&format!("ip neigh replace {ip} lladdr {other} dev flat-l2 nud noarp extern_learn {word}"));
        b.sh("echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip address replace fd00:1::61/64 dev eth0 nodad");
        b.sh(&format!("ping -6 -c 1 -W 1 {ip} >/dev/null || true"));
        let told = b.sh(&format!("ip neigh show {ip} dev eth0"));
        assert!(told.contains(other) && told.contains("router") == (word == "router"), "{ip}: {told:?}");
    }
});

// keepalived's use_vmac, guests of a guest: they are bridged, and the port is one guest's all the same.
on_a_host!(what_another_mac_behind_a_port_says_is_not_its_guests, {
    let host = Host::flat();
    let _agent = Agent::start();
    let (a, b) = (Inmate::attach(&host, "tapa", A), Inmate::attach(&host, "tapb", B));
    let vmac = "00:00:5e:00:01:33";
    let (virtual_router, other) = (Who::new(vmac, "10.1.0.99", "fd00:1::99"), Who::new(B, "10.1.0.61", "fd00:1::61"));
    let frames = forge::fair(virtual_router, other);
    a.inside(|| {
        let port = Port::open("eth0");
        frames.iter().for_each(|frame| port.send(&frame.bytes));
    });
    // Behind them, on the same port and on another.
    for (guest, ip) in [(&a, "10.1.0.60"), (&b, "10.1.0.61")] {
        guest.has(ip);
        guest.speaks(ip);
        until(ip, || guest.owns(ip));
    }
    assert_eq!(neighbours(), format!("neigh 10.1.0.60 {A} dev flat-l2\nneigh 10.1.0.61 {B} dev flat-l2\n"));
    let learned = sh("bridge fdb show br flat-l2");
    let of = |dev: &str| {
        learned.lines().any(|line| line.starts_with(&format!("{vmac} dev {dev} ")) && !line.contains("static"))
    };
    assert!(of("tapa"), "the bridge knows it: {learned}");
    assert_eq!(host.status()["endpoints"][0]["problems"].to_string(), "[]");
});

// field.md F29: active-backup with one MAC. The kernel moves the entry with the frames; nobody has to, and nobody may move it back.
on_a_host!(a_guest_that_bonds_two_nics_is_followed, {
    let host = Host::flat();
    let _agent = Agent::start();
    let a = Inmate::attach(&host, "tapa", A);
    let pid = a.sleeper.0.id();
    sh(&format!("ip link add tapb type veth peer name eth1 address {B} netns {pid} && ip link set tapb up"));
    a.sh("echo 1 >/proc/sys/net/ipv6/conf/eth1/disable_ipv6; ip link set eth1 up");
    host.run(&["attach", "tapb", "--network", "flat", "--mac", B, "--guest", "tapa"]).ok();
    a.has("10.1.0.60");
    a.speaks("10.1.0.60");
    until("A's address", || a.owns("10.1.0.60"));
    let behind = |port: &str| fdb().contains(&format!("fdb {A} dev {port}\n"));
    let frame = forge::ending(Who::new(A, "10.1.0.60", "fd00:1::60"));
    for (inside, port) in [("eth1", "tapb"), ("eth0", "tapa"), ("eth1", "tapb")] {
        a.inside(|| Port::open(inside).send(&frame));
        until(port, || behind(port));
        let end = Instant::now() + MOMENT;
        while Instant::now() < end {
            assert!(behind(port) && a.owns("10.1.0.60"), "{}", fdb());
            std::thread::sleep(Duration::from_millis(5));
        }
        for endpoint in host.status()["endpoints"].as_array().unwrap() {
            assert_eq!(endpoint["problems"].to_string(), "[]");
        }
        assert_eq!(host.run(&["sync"]).ok().stdout, "nothing to do\n");
    }
    // Unplugged, it goes with the NIC whose it is, wherever it was heard last; and with the other it comes back.
    host.run(&["detach", "tapa"]).ok();
    assert_eq!(fdb(), format!("fdb {B} dev tapb\n"));
    assert_eq!(neighbours(), "");
});

// agent.md 17: nobody asks a guest to say again what was refused, and keepalived says it no more.
on_a_host!(a_refused_claim_is_judged_again, {
    let host = Host::flat();
    let _agent = Agent::start();
    let (a, b) = (Inmate::attach(&host, "tapa", A), Inmate::attach(&host, "tapb", B));
    a.has("10.1.0.60");
    a.speaks("10.1.0.60");
    until("A's address", || a.owns("10.1.0.60"));
    b.has("10.1.0.60");
    b.speaks("10.1.0.60");
    stays(&a, "10.1.0.60", "A answers for it");
    a.has_no_more("10.1.0.60");
    until("B to have what it claimed", || b.owns("10.1.0.60"));
    // Who claims it no more gets it no more.
    a.has("10.1.0.61");
    a.speaks("10.1.0.61");
    until("A's other address", || a.owns("10.1.0.61"));
    b.has("10.1.0.61");
    b.speaks("10.1.0.61");
    stays(&a, "10.1.0.61", "A answers for it");
    b.has_no_more("10.1.0.61");
    a.sh("ip link set eth0 down");
    stays(&a, "10.1.0.61", "B claims it no more");
});

/// As FRR puts it there for a guest behind another VTEP.
fn put_by_frr(ip: &str, mac: &str) {
    sh(&format!("ip neigh replace {ip} lladdr {mac} dev flat-l2 nud noarp extern_learn"));
}

const ELSEWHERE: &str = "52:54:00:00:01:01";

// Another host may not be able to ask the guest (its port is isolated), or asked it in a moment in which it was silent: its own host can.
on_a_host!(what_another_host_takes_is_asked_for_here_before_it_is_given_up, {
    let host = Host::flat();
    let _agent = Agent::start();
    let a = Inmate::attach(&host, "tapa", A);
    a.has("10.1.0.60");
    a.speaks("10.1.0.60");
    until("A's address", || a.owns("10.1.0.60"));
    let is_given_up = || !host.status()["endpoints"][0]["ips"].to_string().contains("10.1.0.60");
    put_by_frr("10.1.0.60", ELSEWHERE);
    until("A to have it back", || a.owns("10.1.0.60"));
    assert!(!is_given_up());
    // One that does not answer has lost it, and has it back as soon as it speaks.
    a.sh("ip link set eth0 down");
    put_by_frr("10.1.0.60", ELSEWHERE);
    until("A to give it up", is_given_up);
    a.sh("ip link set eth0 up");
    a.speaks("10.1.0.60");
    until("A to have it again", || a.owns("10.1.0.60"));
    // Not for ever: the other host may say the same.
    put_by_frr("10.1.0.60", ELSEWHERE);
    until("A to have it back", || a.owns("10.1.0.60"));
    put_by_frr("10.1.0.60", ELSEWHERE);
    until("an end", is_given_up);
});

// Whose question whether an address is free is open holds up nobody's claim.
on_a_host!(who_probes_keeps_nobody_from_an_address, {
    let host = Host::flat();
    let _agent = Agent::start();
    let (a, b) = (Inmate::attach(&host, "tapa", A), Inmate::attach(&host, "tapb", B));
    put_by_frr("10.1.0.60", ELSEWHERE);
    let frame = |mac, what| {
        let who = Who::new(mac, "10.1.0.60", "fd00:1::60");
        forge::fair(who, who).into_iter().find(|frame| frame.what == what).unwrap().bytes
    };
    let (probe, announcement) = (frame(B, "ARP probe"), frame(A, "gratuitous ARP"));
    let (over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let ends = Ends(&over);
        scope.spawn(|| {
            b.inside(|| {
                let port = Port::open("eth0");
                while !over.load(Ordering::Relaxed) {
                    port.send(&probe);
                    sent.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        });
        while sent.load(Ordering::Relaxed) < 5 {
            std::thread::yield_now();
        }
        // It says so once.
        a.inside(|| Port::open("eth0").send(&announcement));
        until("A's claim", || a.owns("10.1.0.60"));
        drop(ends);
    });
});

/// Ends what waits for it, though a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// Who tells the server that another gives its lease back does not free what that one still has.
on_a_host!(a_lease_that_its_server_forgets_stays_with_the_guest_that_answers, {
    let host = Host::flat();
    sh("mount -t tmpfs none /var/lib && mkdir -p /var/lib/libvirt/dnsmasq");
    let list = "/var/lib/libvirt/dnsmasq/flat-l2.status";
    let leased = format!("[{{\"ip-address\": \"10.1.0.50\", \"mac-address\": \"{A}\", \"expiry-time\": 4000000000}}]");
    let _agent = Agent::start();
    let (a, b) = (Inmate::attach(&host, "tapa", A), Inmate::attach(&host, "tapb", B));
    a.has("10.1.0.50");
    // The first look at a list takes nothing.
    std::fs::write(list, "[]").unwrap();
    std::fs::write(list, &leased).unwrap();
    until("the lease", || host.status().to_string().contains("\"lease\""));
    std::fs::write(list, "[]").unwrap();
    until("its own word", || host.status().to_string().contains("\"neighbour\""));
    assert!(a.owns("10.1.0.50"));
    b.has("10.1.0.50");
    b.speaks("10.1.0.50");
    stays(&a, "10.1.0.50", "B took what A answers for");
    // One that does not answer has it no longer.
    b.has_no_more("10.1.0.50");
    std::fs::write(list, &leased).unwrap();
    until("the lease", || host.status().to_string().contains("\"lease\""));
    a.sh("ip link set eth0 down");
    std::fs::write(list, "[]").unwrap();
    until("nothing", || !a.owns("10.1.0.50"));
});
