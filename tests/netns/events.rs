//! What the kernel tells of itself.

use crate::*;
use evpn_hook::kernel::{Event, Events};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

const GUEST: &str = "52:54:00:03:82:d8";

/// All that has come.
fn told(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.next().unwrap()).collect()
}

/// The guests' entries alone: the kernel tells of carriers when it comes to it, and the veths' ends speak IPv6 with MACs of their own.
fn entries(events: &mut Events) -> Vec<Event> {
    let guests = |e: &Event| match e {
        Event::Fdb { mac, .. } => mac.octets().starts_with(&[0x52, 0x54, 0x00]),
        Event::Neigh { .. } | Event::Lost => true,
        _ => false,
    };
    told(events).into_iter().filter(guests).collect()
}

/// A bridge with a port, and a subscription that begins when both are there.
fn segment(kernel: &mut Kernel) -> (Events, u32, u32) {
    kernel.apply(&add_bridge("br0", None)).unwrap();
    sh("ip link add v0 type veth peer name v1 && ip link set v0 master br0");
    sh("for d in v1 v0 br0; do ip link set $d up; done");
    (Events::open().unwrap(), index(kernel, "br0"), index(kernel, "v0"))
}

netns!(a_device_is_told_of_from_its_birth_to_its_end, kernel, {
    kernel.apply(&add_bridge("br0", None)).unwrap();
    let bridge = index(kernel, "br0");
    let mut events = Events::open().unwrap();
    assert_eq!(told(&mut events), []);
    sh("ip link add v0 type veth peer name v1");
    let v0 = index(kernel, "v0");
    let link = |name_: &str, master, up| Event::Link { index: v0, name: name(name_), master, up };
    assert!(told(&mut events).contains(&link("v0", None, false)));
    sh("ip link set v0 master br0 up");
    assert!(told(&mut events).contains(&link("v0", Some(bridge), true)));
    sh("ip link set v0 down && ip link set v0 name w0");
    let renamed = told(&mut events);
    let last = renamed.iter().rfind(|event| !matches!(event, Event::Setting { .. })); // its settings move with its name
    assert_eq!(last, Some(&link("w0", Some(bridge), false)));
    sh("bridge link set dev w0 neigh_suppress on");
    assert!(told(&mut events).contains(&Event::Port { index: v0 }));
    sh("ip link set w0 nomaster");
    let left = told(&mut events);
    assert!(left.contains(&link("w0", None, false)) && !left.contains(&Event::LinkGone { index: v0 }), "{left:?}");
    sh("ip link del w0");
    assert!(told(&mut events).contains(&Event::LinkGone { index: v0 }));
});

netns!(our_own_changes_are_told_too, kernel, {
    let (mut events, bridge, port) = segment(kernel);
    let guest = mac(GUEST);
    kernel.apply(&Step::AddFdb { dev: name("v0"), mac: guest }).unwrap();
    let entry = Event::Fdb { mac: guest, port, master: bridge, gone: false, is_static: true, ext_learned: false };
    assert_eq!(entries(&mut events), [entry]);
    let ip = "10.1.0.60".parse().unwrap();
    kernel.apply(&Step::AddNeigh { bridge: name("br0"), ip, mac: guest, router: false }).unwrap();
    let known = Event::Neigh {
        ip,
        mac: Some(guest),
        index: bridge,
        gone: false,
        permanent: true,
        ext_learned: false,
        router: false,
    };
    assert_eq!(entries(&mut events), [known]);
    kernel.apply(&Step::DelNeigh { bridge: name("br0"), ip }).unwrap();
    let lost = entries(&mut events);
    let is_loss = |e: &Event| matches!(e, Event::Neigh { ip: gone_ip, gone: true, .. } if *gone_ip == ip);
    assert!(!lost.is_empty() && lost.iter().all(is_loss), "{lost:?}");
    kernel.apply(&Step::DelFdb { dev: name("v0"), mac: guest }).unwrap();
    let lost = entries(&mut events);
    assert!(matches!(lost[..], [Event::Fdb { gone: true, port: from, .. }] if from == port), "{lost:?}");
});

netns!(another_vteps_claim_is_told_as_such, kernel, {
    let (mut events, bridge, port) = segment(kernel);
    kernel.apply(&add_vxlan(20, "10.0.0.1")).unwrap();
    sh("ip link set vxlan20 master br0");
    let vxlan = index(kernel, "vxlan20");
    kernel.apply(&Step::AddFdb { dev: name("v0"), mac: mac(GUEST) }).unwrap();
    entries(&mut events);
    // As zebra does it: the bridge's entry and, which is not told as one, the VXLAN device's own.
    sh(&format!("bridge fdb replace {GUEST} dev vxlan20 master extern_learn"));
    sh(&format!("bridge fdb replace {GUEST} dev vxlan20 self dst 10.0.0.2 extern_learn"));
    sh(&format!("ip neigh replace fd00:1::60 lladdr {GUEST} dev br0 nud noarp extern_learn proto zebra"));
    let claim = entries(&mut events);
    assert_eq!(claim.len(), 2, "{claim:?}");
    assert!(
        matches!(claim[0], Event::Fdb { port, master, gone: false, ext_learned: true, .. } if (port, master) == (vxlan, bridge))
    );
    assert!(matches!(claim[1], Event::Neigh { gone: false, permanent: false, ext_learned: true, .. }));
    assert_ne!(port, vxlan);
});

netns!(addresses_and_rules_are_told, kernel, {
    let (mut events, bridge, _) = segment(kernel);
    sh("ip address add 10.1.0.1/24 dev br0");
    sh("ip address add fd00:1::1/64 dev br0 nodad");
    let mut came = told(&mut events);
    came.retain(|e| matches!(e, Event::Address { .. }));
    came.dedup();
    assert_eq!(came, [Event::Address { index: bridge, gone: false }]);
    sh("ip address del 10.1.0.1/24 dev br0");
    assert!(told(&mut events).contains(&Event::Address { index: bridge, gone: true }));
    sh("ip rule add pref 7 table main && ip -6 rule add pref 7 table main");
    assert_eq!(told(&mut events).iter().filter(|e| **e == Event::Rule).count(), 2);
});

// agent.md 5: what keeps tenants apart. Of routes only that an unreachable one is gone: a router has a million of the others.
netns!(filters_settings_and_unreachable_routes_are_told_and_no_other_routes, kernel, {
    let (mut events, bridge, _) = segment(kernel);
    sh(
        "ip link set lo up; ip route add unreachable default metric 4278198272 table 10; ip -6 route add unreachable default table 1000",
    );
    sh(
        "for n in $(seq 250); do echo route add 198.51.100.$n/32 dev br0; done | ip -batch -; ip route add blackhole 203.0.113.0/24",
    );
    sh("ip route flush root 198.51.100.0/24; ip route del blackhole 203.0.113.0/24");
    sleep_out(&mut events);
    assert_eq!(told(&mut events), []);
    sh("ip route add 198.51.100.1/32 dev br0; ip route del 198.51.100.1/32; ip route add unreachable 203.0.113.0/24");
    assert_eq!(told(&mut events), [], "neither what comes nor what is no unreachable route");
    sh("ip route del unreachable default table 10; ip -6 route del unreachable default table 1000");
    assert_eq!(told(&mut events), [Event::RouteGone { table: 10 }, Event::RouteGone { table: 1000 }]);
    sh("sysctl -qw net.ipv4.conf.br0.rp_filter=2");
    assert_eq!(told(&mut events), [Event::Setting { index: Some(bridge) }]);
    let forwards = sh("cat /proc/sys/net/ipv4/ip_forward") == "1\n";
    sh(&format!("sysctl -qw net.ipv4.ip_forward={}", u8::from(!forwards)));
    assert!(told(&mut events).contains(&Event::Setting { index: None }));
    kernel.apply(&Step::Hear { dev: name("br0"), hears: Hears::Nothing }).unwrap();
    sleep_out(&mut events);
    sh("tc qdisc del dev br0 clsact");
    let gone = told(&mut events);
    assert!(!gone.is_empty() && gone.iter().all(|event| *event == Event::FilterGone { index: bridge }), "{gone:?}");
});

/// Takes what has come so far.
fn sleep_out(events: &mut Events) {
    drop(told(events));
}

netns!(a_burst_of_thousands_fits_and_what_does_not_fit_is_said, kernel, {
    let (mut events, bridge, _) = segment(kernel);
    let batch = |from: u32, to: u32| {
        let line = |n: u32| {
            format!(
                "fdb replace 52:54:00:{:02x}:{:02x}:{:02x} dev v0 master static\n",
                n >> 16,
                (n >> 8) & 255,
                n & 255
            )
        };
        let mut batch = Command::new("bridge").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        batch.stdin.take().unwrap().write_all((from..to).map(line).collect::<String>().as_bytes()).unwrap();
        assert!(batch.wait().unwrap().success());
    };
    batch(0, 5000);
    let all = entries(&mut events);
    assert_eq!(all.len(), 5000);
    assert!(all.iter().all(|e| matches!(e, Event::Fdb { master, gone: false, .. } if *master == bridge)));
    batch(5000, 45000);
    assert_eq!(entries(&mut events).len(), 40000, "10,000 guests' FDB entries and neighbours, gone and back");
    batch(45000, 145_000);
    let rest = entries(&mut events);
    assert!(rest.contains(&Event::Lost) && rest.len() < 100_000, "{}", rest.len());
    // It goes on behind the gap.
    batch(145_000, 145_010);
    assert_eq!(entries(&mut events).len(), 10);
});

netns!(the_wait_for_a_change_is_a_poll, kernel, {
    let (mut events, _, _) = segment(kernel);
    let ready = |events: &Events, nanos| {
        let mut fds = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: nanos })).unwrap() == 1
    };
    // Until the kernel has told of the carriers.
    while ready(&events, 999_999_999) {
        told(&mut events);
    }
    sh("ip link set v1 down");
    assert!(ready(&events, 999_999_999));
    assert!(!told(&mut events).is_empty());
});
