//! Many guests of one segment that get their addresses at the same moment, as after a host's boot, from a server that broadcasts what it answers.

use crate::agent::{Agent, until};
use crate::common::sh;
use crate::forge::{Port, Who, ethernet, fair, ipv4, udp};
use crate::host::{CONFIG, Host, neighbours, tap};
use crate::journal::{Journald, of};
use crate::on_a_host;
use std::cell::RefCell;
use std::net::Ipv4Addr;

/// 1,000 exchanges, of as many ports as are made quickly. A port may have as much of them in its queue as fits there (src/snoop/packet.rs).
const GUESTS: u32 = 50;
const EACH: u32 = 20;

const SERVER: &str = "00:00:00:11:11:10";
const REQUEST: u8 = 3;
const ACK: u8 = 5;

fn mac(guest: u32) -> String {
    format!("52:54:00:00:02:{guest:02x}")
}

/// Of the network's /20.
fn ip(guest: u32, nth: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 1, 0).to_bits() + guest * 32 + nth + 1)
}

/// A whole frame, broadcast (RFC 2131 §2, §4.1): with a client's address, and with an hour for it or the wish for it (RFC 2132 §9.1, §9.2).
fn dhcp(from: &Who, client: &Who, kind: u8) -> Vec<u8> {
    let is_answer = kind == ACK;
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[if is_answer { 2 } else { 1 }, 1, 6, 0]);
    message[4..8].copy_from_slice(&client.v4.octets());
    message[10] = 0x80;
    let option = if is_answer {
        message[16..20].copy_from_slice(&client.v4.octets());
        [51, 4, 0, 0, 14, 16]
    } else {
        let [a, b, c, d] = client.v4.octets();
        [50, 4, a, b, c, d]
    };
    message[28..34].copy_from_slice(&client.mac);
    let message = [&message[..], &[99, 130, 83, 99, 53, 1, kind], &option, &[255]].concat();
    let (ports, source) = if is_answer { ([67, 68], from.v4) } else { ([68, 67], Ipv4Addr::UNSPECIFIED) };
    let datagram = udp(ports[0], ports[1], &message);
    ethernet([0xff; 6], from.mac, 0x0800, &ipv4(source, Ipv4Addr::BROADCAST, &datagram))
}

// agent.md 2: what the server tells one of them comes to all of them.
on_a_host!(a_boot_storm_is_learned_whole, {
    let host = Host::new(&CONFIG.replace("10.1.0.1/24", "10.1.0.1/20"));
    host.run(&["network", "up", "flat"]).ok();
    sh("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6");
    let journald = Journald::listens();
    let warnings = RefCell::new(Vec::new());
    let listen = || {
        let entries = journald.heard().concat();
        warnings.borrow_mut().extend(entries.into_iter().filter(|entry| of(entry, "PRIORITY") < "5"));
    };
    let agent = Agent::start();
    let ports: Vec<Port> = (0..GUESTS)
        .map(|guest| {
            let tap_of = format!("boot{guest}");
            tap(&tap_of);
            host.run(&["attach", &tap_of, "--network", "flat", "--mac", &mac(guest)]).ok();
            agent.listens_to(guest as usize + 1);
            Port::open(&format!("{tap_of}p"))
        })
        .collect();
    listen();
    let (server, bridge) = (Who::new(SERVER, "10.1.0.1", "fd00:1::1"), Port::open("flat-l2"));
    let who = |guest: u32, nth: u32| Who::new(&mac(guest), &ip(guest, nth).to_string(), "fd00:1::1");
    for nth in 0..EACH {
        for (port, guest) in ports.iter().zip(0..) {
            let client = who(guest, nth);
            let request = dhcp(&client, &client, REQUEST);
            port.send(&request);
            bridge.until(&request);
            bridge.send(&dhcp(&server, &client, ACK));
        }
    }
    let known = || neighbours().lines().count();
    for part in (100..=1000).step_by(100) {
        until(&format!("{part} of them, not {}", known()), || {
            listen();
            known() >= part
        });
    }
    // None of them is deaf.
    for (port, guest) in ports.iter().zip(0..) {
        let own = who(guest, EACH);
        let announcement = fair(own, server).into_iter().find(|frame| frame.what == "gratuitous ARP").unwrap();
        port.send(&announcement.bytes);
    }
    let all = (GUESTS * (EACH + 1)) as usize;
    until("one more of each", || {
        listen();
        known() >= all
    });
    let of_guest = |guest| (0..=EACH).map(move |nth| format!("neigh {} {} dev flat-l2\n", ip(guest, nth), mac(guest)));
    let mut expected: Vec<String> = (0..GUESTS).flat_map(of_guest).collect();
    expected.sort();
    assert_eq!(neighbours(), expected.concat());
    assert_eq!(*warnings.borrow(), []);
});
