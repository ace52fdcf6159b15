//! What is heard on a guest's port: the host's end of a veth pair, whose other end is in a namespace of its own, as a container's is.

use crate::dnsmasq::Dnsmasq;
use crate::*;
use evpn_hook::snoop::{Ears, Said, SnoopError};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrLike, sendto};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use rustix::time::Timespec;
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GUEST: &str = "52:54:00:03:82:d8";
const HOST: &str = "52:54:00:00:00:01";
const BROADCAST: [u8; 6] = [0xff; 6];
/// Long enough for what was sent before to have come.
const MOMENT: Duration = Duration::from_millis(150);

// ===== A guest =====

/// Ends the child when the test ends, however it ends.
struct Running(Child);

impl Running {
    fn new(command: &[&str]) -> Running {
        Running(
            Command::new(command[0]).args(&command[1..]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap(),
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server on the bridge that keeps its leases to itself.
fn dnsmasq(range: &str) -> Dnsmasq {
    Dnsmasq::start(&[], "br0", range, &["--leasefile-ro"])
}

/// A process that holds a namespace with `v1`; `v0` is the host's end, on `br0` with 10.1.0.1. IPv6 is silent until a test says otherwise.
struct Guest(Running);

impl Guest {
    fn new(kernel: &mut Kernel) -> (Guest, u32) {
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let guest = Guest(Running::new(&["unshare", "-n", "sleep", "600"]));
        while std::fs::read_link(guest.namespace()).is_ok_and(|now| now == own) {
            std::thread::sleep(Duration::from_millis(2));
        }
        sh("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6");
        guest.sh("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6");
        let pid = guest.0.0.id();
        sh(&format!("ip link add v0 type veth peer name v1 address {GUEST} netns {pid}"));
        sh(&format!("ip link add br0 address {HOST} type bridge && ip link set v0 master br0"));
        sh("ip address add 10.1.0.1/24 dev br0 && ip link set br0 up && ip link set v0 up");
        guest.sh("ip link set v1 up");
        (guest, index(kernel, "v0"))
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.0.0.id())
    }

    fn sh(&self, line: &str) -> String {
        sh(&format!("nsenter --net={} -- sh -c '{line}'", self.namespace()))
    }

    /// What is made in the guest's namespace stays there, wherever it is used.
    fn inside<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        inside::inside(&File::open(self.namespace()).unwrap(), make)
    }
}

/// Sends whole frames by one device.
pub(crate) struct Sender(OwnedFd, LinkAddr);

impl Sender {
    pub(crate) fn new(dev: &str) -> Sender {
        let link =
            |a: nix::ifaddrs::InterfaceAddress| Some(*a.address?.as_link_addr()?).filter(|_| a.interface_name == dev);
        let to = getifaddrs().unwrap().find_map(link).unwrap();
        assert_eq!(to.family(), Some(nix::sys::socket::AddressFamily::Packet));
        Sender(socket(AddressFamily::PACKET, SocketType::RAW, None).unwrap(), to)
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(sendto(self.0.as_raw_fd(), frame, &self.1, MsgFlags::empty()), Ok(frame.len()));
    }
}

// ===== Hearing =====

fn ready(ears: &Ears, wait: Duration) -> bool {
    let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
    let mut fds = [PollFd::from_borrowed_fd(ears.as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&wait)).unwrap() == 1
}

/// All that comes until it is quiet for a moment.
fn all(ears: &mut Ears) -> Vec<Said> {
    let mut heard = Vec::new();
    while ready(ears, MOMENT) {
        heard.extend(ears.hear().into_iter().map(|heard| heard.said));
    }
    heard
}

/// Hears until this was said.
fn until(ears: &mut Ears, said: Said) -> Vec<Said> {
    until_after(ears, said, || {})
}

/// The same, doing something again and again that leads to it.
fn until_after(ears: &mut Ears, said: Said, mut again: impl FnMut()) -> Vec<Said> {
    let (mut heard, end) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    while !heard.contains(&said) {
        assert!(Instant::now() < end, "{said:?} was not heard, but {heard:?}");
        again();
        // What it does may be heard as well: done again at once it would soon be too loud.
        let next = Instant::now() + MOMENT;
        while !heard.contains(&said) && ready(ears, next.saturating_duration_since(Instant::now())) {
            heard.extend(ears.hear().into_iter().map(|heard| heard.said));
        }
    }
    heard
}

fn ears(index: u32) -> Ears {
    let mut ears = Ears::open().unwrap();
    ears.listen(index, mac(GUEST)).unwrap();
    ears
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn has(text: &str) -> Said {
    Said::Has { mac: mac(GUEST), ip: ip(text) }
}

fn wants(text: &str) -> Said {
    Said::Wants { mac: mac(GUEST), ip: ip(text) }
}

fn released(text: &str) -> Said {
    Said::Released { mac: mac(GUEST), ip: ip(text) }
}

// ===== Frames =====

fn ethernet(to: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    [&to[..], &mac(GUEST).octets(), &kind.to_be_bytes(), body].concat()
}

fn arp_body(own: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac(GUEST).octets(), &own, &[0; 6], &[10, 1, 0, 1]].concat()
}

fn arp(own: [u8; 4]) -> Vec<u8> {
    ethernet(BROADCAST, 0x0806, &arp_body(own))
}

fn udp(port: u16, message: &[u8]) -> Vec<u8> {
    [&[0, 9][..], &port.to_be_bytes(), &(8 + message.len() as u16).to_be_bytes(), &[0, 0], message].concat()
}

/// With two words of options, which move the ports.
fn ipv4(fragment: u16, datagram: &[u8]) -> Vec<u8> {
    let length = (28 + datagram.len() as u16).to_be_bytes();
    let fragment = fragment.to_be_bytes();
    let start = [0x47, 0, length[0], length[1], 0, 0, fragment[0], fragment[1], 64, 17, 0, 0];
    [&start[..], &[0; 4], &[255; 4], &[1; 8], datagram].concat()
}

fn ipv6(next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let own = "fd00:1::60".parse::<Ipv6Addr>().unwrap().octets();
    [&[0x60, 0, 0, 0, length[0], length[1], next, hops][..], &own, &own, payload].concat()
}

/// RELEASE, REQUEST and ACK of 10.1.0.60.
fn dhcp(direction: u8, kind: u8) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..8].copy_from_slice(&[direction, 1, 6, 0, 1, 2, 3, 4]);
    message[12..16].copy_from_slice(&[10, 1, 0, 60]);
    message[16..20].copy_from_slice(&[10, 1, 0, 60]);
    message[28..34].copy_from_slice(&mac(GUEST).octets());
    [&message[..], &[99, 130, 83, 99, 53, 1, kind, 51, 4, 0, 0, 14, 16, 255]].concat()
}

/// A DHCPv6 message about fd00:1::60 with a valid lifetime of an hour.
fn dhcp6(kind: u8) -> Vec<u8> {
    let own = "fd00:1::60".parse::<Ipv6Addr>().unwrap().octets();
    let address = [&[0, 5, 0, 24][..], &own, &[0, 0, 14, 16, 0, 0, 14, 16]].concat();
    [&[kind, 1, 2, 3, 0, 3, 0, 40][..], &[0; 12], &address].concat()
}

/// Where it begins in a frame of [`ipv4`], which has options in its header.
const BOOTP: usize = 14 + 28 + 8;
const RELEASE: u8 = 7;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

// ===== Tests =====

netns!(what_a_guests_kernel_says_is_heard, kernel, {
    let (guest, index) = Guest::new(kernel);
    let mut ears = ears(index);
    guest.sh("ip address add 10.1.0.60/24 dev v1 && ping -c 1 -W 1 10.1.0.1");
    assert!(all(&mut ears).contains(&has("10.1.0.60")));
    // The host's own questions go the other way, and are none of the guest's words; its answer is.
    sh("ip neigh flush dev br0 && ping -c 1 -W 1 10.1.0.60");
    assert_eq!(all(&mut ears), [has("10.1.0.60")]);
    // Duplicate address detection, then the solicitation of routers from the link-local address, which is tested likewise.
    guest.sh("echo 0 >/proc/sys/net/ipv6/conf/v1/disable_ipv6; ip address add fd00:1::60/64 dev v1");
    let heard = until(&mut ears, has("fe80::5054:ff:fe03:82d8"));
    assert!(heard.contains(&wants("fd00:1::60")) && heard.contains(&wants("fe80::5054:ff:fe03:82d8")), "{heard:?}");
    sh("echo 0 >/proc/sys/net/ipv6/conf/br0/disable_ipv6; ip address add fd00:1::1/64 dev br0 nodad");
    try_sh("ping -c 3 -W 1 fd00:1::60"); // the first may be lost to the bridge's own link-local address, which is tested yet
    until(&mut ears, has("fd00:1::60"));
});

netns!(a_real_dhcp_client_and_server_are_understood, kernel, {
    const NAME: &str = "snoop::a_real_dhcp_client_and_server_are_understood";
    if !(try_sh("command -v dnsmasq").0 && try_sh("busybox udhcpc --help").0) {
        return skip(NAME, "no dnsmasq or no busybox with udhcpc");
    }
    let (guest, index) = Guest::new(kernel);
    let mut ears = ears(index);
    let script = std::env::temp_dir().join(format!("evpn-snoop-{}", std::process::id()));
    let script = script.to_str().unwrap();
    sh(&format!("echo '#!/bin/sh\nip address replace $ip/24 dev $interface' >{script} && chmod +x {script}"));
    let _server = dnsmasq("10.1.0.60,10.1.0.60,1h");
    let inside = format!("--net={}", guest.namespace());
    let client = ["nsenter", &inside, "--", "busybox", "udhcpc", "-f", "-R", "-i", "v1", "-s", script];
    let client = Running::new(&client);
    let hour = Some(Duration::from_secs(3600));
    until(&mut ears, Said::Leased { mac: mac(GUEST), ip: ip("10.1.0.60"), lifetime: hour });
    // What we heard on the wire the client may not have read yet, and then it would end without a release.
    while !guest.sh("ip address show dev v1").contains("10.1.0.60") {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::remove_file(script).unwrap();
    // Once in some hundred runs it ends at SIGTERM without a release, or is in its released state without one, where only USR1 has it ask for a lease again
    // (busybox' dhcpc.c): so it is told the one and the other in turn.
    let mut turns = [Signal::USR2, Signal::USR1].into_iter().cycle();
    until_after(&mut ears, released("10.1.0.60"), || {
        kill_process(Pid::from_child(&client.0), turns.next().unwrap()).unwrap();
    });
});

netns!(a_real_dhcpv6_server_is_understood, kernel, {
    if !try_sh("command -v dnsmasq").0 {
        return skip("snoop::a_real_dhcpv6_server_is_understood", "no dnsmasq");
    }
    let (guest, index) = Guest::new(kernel);
    let mut ears = ears(index);
    // A server that starts while an address of its own is yet tested ends at once.
    sh(
        "cd /proc/sys/net/ipv6/conf/br0 && echo 0 >accept_dad && echo 0 >disable_ipv6 && ip address add fd00:1::1/64 dev br0 nodad",
    );
    guest.sh("echo 0 >/proc/sys/net/ipv6/conf/v1/disable_ipv6");
    until(&mut ears, has("fe80::5054:ff:fe03:82d8"));
    let _server = dnsmasq("fd00:1::60,fd00:1::60,64,1h");
    // Solicit with a client's name, rapid commit and an IA_NA without an address in it (RFC 8415 §21).
    let name = [&[0, 1, 0, 10, 0, 3, 0, 1][..], &mac(GUEST).octets()].concat();
    let solicit = [&[1, 7, 8, 9][..], &name, &[0, 14, 0, 0, 0, 3, 0, 12, 0, 0, 0, 1], &[0; 8]].concat();
    let client = guest.inside(|| UdpSocket::bind("[::]:546").unwrap());
    let scope = guest.inside(|| Sender::new("v1").1.ifindex());
    let all = SocketAddrV6::new("ff02::1:2".parse().unwrap(), 547, 0, scope as u32);
    let said = Said::Leased { mac: mac(GUEST), ip: ip("fd00:1::60"), lifetime: Some(Duration::from_secs(3600)) };
    // Until the server is up.
    until_after(&mut ears, said, || assert_eq!(client.send_to(&solicit, all).unwrap(), solicit.len()));
});

netns!(each_message_counts_in_its_direction_only, kernel, {
    let (guest, index) = Guest::new(kernel);
    let mut ears = ears(index);
    let (from, to) = (guest.inside(|| Sender::new("v1")), Sender::new("v0"));
    let to_guest = mac(GUEST).octets();
    let advertisement = [&[136, 0, 0, 0, 0, 0, 0, 0][..], &"fd00:1::60".parse::<Ipv6Addr>().unwrap().octets()].concat();
    let guests = [
        (arp([10, 1, 0, 60]), has("10.1.0.60")),
        (ethernet(BROADCAST, 0x86dd, &ipv6(58, 255, &advertisement)), has("fd00:1::60")),
        (ethernet(BROADCAST, 0x0800, &ipv4(0x4000, &udp(67, &dhcp(1, RELEASE)))), released("10.1.0.60")),
        (ethernet(BROADCAST, 0x86dd, &ipv6(17, 1, &udp(547, &dhcp6(8)))), released("fd00:1::60")),
    ];
    for (frame, said) in &guests {
        from.send(frame);
        assert_eq!(all(&mut ears), [*said]);
        to.send(frame);
        assert!(!ready(&ears, MOMENT), "towards the guest nobody is woken");
        // The same in a VLAN: the kernel takes the tag off before anybody sees the frame.
        let tagged = [&frame[..12], &[0x81, 0, 0, 20], &frame[12..]].concat();
        from.send(&tagged);
        assert!(!ready(&ears, MOMENT), "tagged");
    }
    let hour = Some(Duration::from_secs(3600));
    let servers = [
        (0x0800, ipv4(0, &udp(67, &dhcp(1, REQUEST))), ipv4(0, &udp(68, &dhcp(2, ACK))), "10.1.0.60"),
        (0x86dd, ipv6(17, 1, &udp(547, &dhcp6(3))), ipv6(17, 1, &udp(546, &dhcp6(7))), "fd00:1::60"),
    ];
    for (kind, request, answer, given) in servers {
        to.send(&ethernet(to_guest, kind, &answer));
        assert_eq!(all(&mut ears), [], "nobody asked");
        from.send(&ethernet(BROADCAST, kind, &request));
        from.send(&ethernet(to_guest, kind, &answer));
        assert_eq!(all(&mut ears), [], "a guest is no server");
        to.send(&ethernet(to_guest, kind, &answer));
        assert_eq!(all(&mut ears), [Said::Leased { mac: mac(GUEST), ip: ip(given), lifetime: hour }]);
    }
});

netns!(data_wakes_nobody, kernel, {
    let (guest, index) = Guest::new(kernel);
    guest.sh("ip address add 10.1.0.60/24 dev v1");
    guest.sh(&format!("ip neigh replace 10.1.0.1 lladdr {HOST} dev v1"));
    sh(&format!("ip neigh replace 10.1.0.60 lladdr {GUEST} dev br0"));
    let mut ears = ears(index);
    let inside = guest.inside(|| UdpSocket::bind("10.1.0.60:7000").unwrap());
    let outside = UdpSocket::bind("10.1.0.1:7000").unwrap();
    for _ in 0..1000 {
        inside.send_to(b"data", "10.1.0.1:7000").unwrap();
        outside.send_to(b"data", "10.1.0.60:7000").unwrap();
    }
    let from = guest.inside(|| Sender::new("v1"));
    // Near misses: a fragment, another port, another kind of ICMPv6, another EtherType, an extension header.
    let release = udp(67, &dhcp(1, RELEASE));
    from.send(&ethernet(BROADCAST, 0x0800, &ipv4(0x2000, &release)));
    from.send(&ethernet(BROADCAST, 0x0800, &ipv4(0x0001, &release)));
    from.send(&ethernet(BROADCAST, 0x0800, &ipv4(0, &udp(69, &dhcp(1, RELEASE)))));
    from.send(&ethernet(BROADCAST, 0x86dd, &ipv6(58, 255, &[128, 0, 0, 0, 0, 0, 0, 0])));
    from.send(&ethernet(BROADCAST, 0x86dd, &ipv6(0, 255, &[58, 0, 0, 0, 0, 0, 0, 0, 136, 0, 0, 0])));
    from.send(&ethernet(BROADCAST, 0x88cc, &arp_body([10, 1, 0, 60])));
    from.send(&ethernet(BROADCAST, 0x0800, &[0x45]));
    assert!(!ready(&ears, MOMENT));
    from.send(&arp([10, 1, 0, 60]));
    assert_eq!(all(&mut ears), [has("10.1.0.60")]);
});

netns!(a_flood_costs_a_bounded_time_and_ends_nothing, kernel, {
    let (guest, index) = Guest::new(kernel);
    let mut ears = ears(index);
    let from = guest.inside(|| Sender::new("v1"));
    let mut heard = 0;
    for round in 0..10_000_u32 {
        let [_, _, high, low] = round.to_be_bytes();
        from.send(&arp([10, 2, high, low]));
        if round % 100 == 0 {
            let now = ears.hear().len();
            assert!(now <= 64);
            heard += now;
        }
    }
    assert!((200..=320).contains(&heard), "{heard}");
    assert_eq!(ears.too_loud(), [index]);
    assert_eq!((ears.too_loud(), ears.ports().map(|(index, _)| index).collect::<Vec<_>>()), (vec![], vec![index]));
    assert!(!ready(&ears, MOMENT) && ears.hear().is_empty());
    let wakes = ears.wakes().unwrap();
    assert!(wakes <= Instant::now() + Duration::from_secs(5));
    std::thread::sleep(wakes.saturating_duration_since(Instant::now()));
    // What came meanwhile is not told afterwards.
    assert_eq!((ears.hear(), ears.wakes()), (vec![], None));
    from.send(&arp([10, 1, 0, 60]));
    assert_eq!(all(&mut ears), [has("10.1.0.60")]);
});

// agent.md 2: the segment's broadcasts come out of every port, whoever sends them.
netns!(what_comes_to_a_guest_makes_nobody_deaf_to_it, kernel, {
    let (guest, index) = Guest::new(kernel);
    let mut ears = ears(index);
    let (from, to) = (guest.inside(|| Sender::new("v1")), Sender::new("v0"));
    let hour = Some(Duration::from_secs(3600));
    let leased = Said::Leased { mac: mac(GUEST), ip: ip("10.1.0.60"), lifetime: hour };
    let request = ethernet(BROADCAST, 0x0800, &ipv4(0, &udp(67, &dhcp(1, REQUEST))));
    let answer = ethernet(BROADCAST, 0x0800, &ipv4(0, &udp(68, &dhcp(2, ACK))));
    // Another client's answers, and what is no message at all, wake nobody.
    let mut others = answer.clone();
    others[BOOTP + 28] ^= 2;
    for frame in [others, ethernet(BROADCAST, 0x0800, &ipv4(0, &udp(68, b"x")))] {
        (0..1000).for_each(|_| to.send(&frame));
        assert!(!ready(&ears, MOMENT), "{frame:x?}");
    }
    let six = ipv6(17, 1, &udp(546, &dhcp6(7)));
    (0..1000).for_each(|_| to.send(&ethernet(BROADCAST, 0x86dd, &six)));
    assert!(!ready(&ears, MOMENT));

    let flood = |ears: &mut Ears, frame: &[u8]| {
        for round in 0..2000 {
            to.send(frame);
            if round % 50 == 0 {
                assert_eq!(ears.hear(), []);
            }
        }
    };
    // In its name: what it says and asks for is heard all the same.
    let mut forged = answer.clone();
    forged[BOOTP + 4] ^= 1;
    flood(&mut ears, &forged);
    assert!(!ready(&ears, MOMENT), "the kernel throws them away");
    from.send(&arp([10, 1, 0, 60]));
    assert_eq!(all(&mut ears), [has("10.1.0.60")]);
    assert!(ears.told_too_much().is_empty(), "it has asked for nothing");
    from.send(&request);
    assert_eq!(all(&mut ears), []);
    flood(&mut ears, &forged);
    to.send(&answer);
    assert_eq!(all(&mut ears), [leased]);
    assert_eq!(Vec::from_iter(ears.told_too_much()), [index]);
    // By one who has seen what it asked: then no answer is heard for a while, and what the guest says is.
    from.send(&request);
    assert_eq!(all(&mut ears), []);
    let mut forged = answer.clone();
    forged[BOOTP + 16] ^= 1;
    flood(&mut ears, &forged);
    assert!(!ready(&ears, MOMENT));
    from.send(&arp([10, 1, 0, 61]));
    assert_eq!(all(&mut ears), [has("10.1.0.61")]);
    assert_eq!((ears.too_loud(), Vec::from_iter(ears.told_too_much())), (vec![], vec![index]));
    let wakes = ears.wakes().unwrap();
    std::thread::sleep(wakes.saturating_duration_since(Instant::now()));
    assert_eq!((ears.hear(), ears.wakes()), (vec![], None));
    from.send(&request);
    assert_eq!(all(&mut ears), []);
    to.send(&answer);
    assert_eq!(all(&mut ears), [leased]);
});

netns!(a_port_that_goes_down_is_heard_again_and_one_that_goes_is_forgotten, kernel, {
    let (guest, index) = Guest::new(kernel);
    let from = guest.inside(|| Sender::new("v1"));
    sh("ip link set v0 down");
    let mut ears = ears(index);
    for _ in 0..3 {
        assert_eq!(all(&mut ears), []);
        assert!(!ready(&ears, MOMENT), "the port's end is told once");
        assert_eq!(ears.ports().map(|(index, _)| index).collect::<Vec<_>>(), [index]);
        sh("ip link set v0 up");
        ears.listen(index, mac(GUEST)).unwrap(); // changes nothing
        from.send(&arp([10, 1, 0, 60]));
        assert_eq!(all(&mut ears), [has("10.1.0.60")]);
        sh("ip link set v0 down");
    }
    // Gone while it was down, which no socket is told.
    sh("ip link del v0");
    assert_eq!(all(&mut ears), []);
    assert!(matches!(ears.listen(index, mac(GUEST)), Err(SnoopError::Gone(gone)) if gone == index));
    assert_eq!(ears.ports().count(), 0);
    // Gone while it was up.
    sh("ip link add w0 up type veth peer name w1");
    let index = crate::index(kernel, "w0");
    ears.listen(index, mac(GUEST)).unwrap();
    all(&mut ears);
    sh("ip link del w0");
    assert_eq!((all(&mut ears), ears.ports().count()), (vec![], 0));
});

netns!(a_port_that_comes_back_under_its_index_is_heard_again, kernel, {
    let (guest, index) = Guest::new(kernel);
    let mut ears = ears(index);
    sh("ip link del v0");
    let pid = guest.0.0.id();
    sh(&format!("ip link add v0 index {index} up type veth peer name v1 address {GUEST} netns {pid}"));
    guest.sh("ip link set v1 up");
    assert_eq!((all(&mut ears), ears.ports().count()), (vec![], 1));
    guest.inside(|| Sender::new("v1")).send(&arp([10, 1, 0, 60]));
    assert_eq!(all(&mut ears), [has("10.1.0.60")]);
});

netns!(a_thousand_guests_are_not_stopped_by_the_usual_limit_of_open_files, kernel, {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
    let lines: String = (0..100).map(|n| format!("link add b{n} type bridge\n")).collect();
    sh(&format!("printf '{lines}' | ip -batch -"));
    let mut ears = Ears::open().unwrap();
    assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    let first = index(kernel, "b0");
    for index in first..first + 100 {
        ears.listen(index, mac(GUEST)).unwrap();
        ears.listen(index, mac(GUEST)).unwrap();
    }
    assert_eq!(ears.ports().count(), 100);
    ears.forget(first);
    ears.forget(first);
    assert_eq!(ears.ports().count(), 99);
    assert!(matches!(ears.listen(9999, mac(GUEST)), Err(SnoopError::Gone(9999))));
    assert!(matches!(ears.listen(u32::MAX, mac(GUEST)), Err(SnoopError::Gone(u32::MAX))));
});
