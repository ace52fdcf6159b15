//! Whoever asks whether an address is free hears of the guest of another host that has it (field.md F09): the kernel lets no such question through a
//! tunnel that suppresses neighbours, nor answers it.

use crate::agent::{Agent, until};
use crate::common::sh;
use crate::forge::{Port, Who, arp_body, ethernet};
use crate::host::Host;
use crate::inmate::Inmate;
use crate::on_a_host;
use std::net::Ipv4Addr;

const ASKS: &str = "52:54:00:00:00:0a";
const OWNER: &str = "52:54:00:00:01:01";

/// Another VTEP, on which one answers for these addresses.
fn another_host() {
    sh(&format!(
        "ip netns add far; ip link add uplink type veth peer name eth0 netns far; ip link set uplink up; ip -n far link set eth0 up
         ip address add 192.0.2.1/24 dev uplink; ip -n far address add 192.0.2.2/24 dev eth0
         ip -n far link set lo up; ip -n far address add 10.0.0.2/32 dev lo
         ip route add 10.0.0.2/32 via 192.0.2.2; ip -n far route add 10.0.0.1/32 via 192.0.2.1
         ip -n far link add br0 address {OWNER} type bridge; ip -n far link set br0 up
         ip -n far link add vxlan20 type vxlan id 20 local 10.0.0.2 dstport 4789 nolearning
         ip -n far link set vxlan20 master br0; ip -n far link set vxlan20 up
         ip netns exec far bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.0.1
         ip -n far address add 10.1.0.70/24 dev br0; ip -n far address add fd00:1::70/64 dev br0 nodad
         bridge fdb append {OWNER} dev vxlan20 dst 10.0.0.2; bridge fdb replace {OWNER} dev vxlan20 master extern_learn"
    ));
}

/// As FRR puts it there.
fn fabric_has(ip: &str) {
    sh(&format!("ip neigh replace {ip} lladdr {OWNER} dev flat-l2 nud noarp extern_learn"));
}

on_a_host!(who_asks_whether_an_address_is_free_hears_of_its_owner_on_another_host, {
    let host = Host::flat();
    another_host();
    // Some before the agent came, and some after.
    fabric_has("10.1.0.70");
    let agent = Agent::start();
    let guest = Inmate::attach(&host, "tapa", ASKS);
    agent.listens_to(1);
    fabric_has("fd00:1::70");
    // Whose guest is gone, and its entry not yet.
    fabric_has("10.1.0.71");
    fabric_has("fd00:1::71");

    // `arping -D` (RFC 5227 §2.1.1).
    let (asks, owner) = (Who::new(ASKS, "0.0.0.0", "::"), Who::new(OWNER, "10.1.0.70", "fd00:1::70"));
    let port = guest.inside(|| Port::open("eth0"));
    let probe = |ip: [u8; 4]| {
        let question = arp_body(1, asks.mac, Ipv4Addr::UNSPECIFIED, Ipv4Addr::from(ip));
        port.send(&ethernet([0xff; 6], asks.mac, 0x0806, &question));
    };
    for last in [71, 77, 70] {
        probe([10, 1, 0, last]);
    }
    let mut answer = arp_body(2, owner.mac, owner.v4, Ipv4Addr::UNSPECIFIED);
    answer[18..24].copy_from_slice(&asks.mac);
    let came = port.until(&ethernet(asks.mac, owner.mac, 0x0806, &answer));
    let answers = came.iter().filter(|frame| frame[12..14] == [8, 6] && frame[..6] == asks.mac);
    let of: Vec<&[u8]> = answers.map(|frame| &frame[28..32]).collect();
    assert_eq!(of, [[10, 1, 0, 70]], "of each of these addresses an answer came");

    // Duplicate address detection (RFC 4862 §5.4.4).
    guest.sh("echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; for last in 70 71; do ip address add fd00:1::$last/64 dev eth0; done");
    let shown = |ip: &str, word: &str| {
        let all = guest.sh("ip -6 address show dev eth0");
        all.lines().any(|line| line.contains(&format!("inet6 {ip}/")) && line.contains(word))
    };
    until("its kernel to see that it is another's", || shown("fd00:1::70", "dadfailed"));
    let settled = || shown("fd00:1::71", "") && !shown("fd00:1::71", "tentative");
    until("its kernel to be done with the other", settled);
    // Nobody was moved by a question.
    for ip in ["10.1.0.70", "fd00:1::70"] {
        let entry = sh(&format!("ip neigh show {ip} dev flat-l2"));
        assert!(entry.contains(OWNER) && entry.contains("extern_learn"), "{entry}");
    }
});
