//! Hosts with firewalls as people have them, by the programs that make their rules (real.rs) or by what those made (rulesets/): what `doctor` says of the rules
//! is what packets did, and its mend, run as printed, lets through what the fabric needs and nothing more.

mod misjudged;
mod real;
mod tenants;

use crate::common::sh;
use crate::host::{Host, Run, snapshot};
use crate::on_a_host;
use real::Firewall;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The other VTEP on the same link, and one of whom nobody knows.
const PEER: &str = "192.0.2.2";
const STRANGER: &str = "198.51.100.7";
const OWN: &str = "192.0.2.1";
/// For a packet that a firewall is to have dropped; what arrives is there in a tenth of a millisecond.
const LOST: Duration = Duration::from_millis(100);
/// For one that is to arrive, on a machine that has much else to do.
const COMES: Duration = Duration::from_secs(5);
const UDP: [u16; 6] = [53, 68, 500, 4788, 4790, 8472];
const TCP: [u16; 4] = [22, 179, 4789, 8080];

/// A layer-2 tenant whose other VTEP an entry leads to: no speaker is needed to know it.
fn host() -> Host {
    host_behind("eth0")
}

/// The same with its address on this device: the uplink `eth0`, or a bridge that has it as a port.
fn host_behind(device: &str) -> Host {
    sh("umount -l /sys && mount -t sysfs sysfs /sys");
    bridge_nf(false);
    sh(&format!(
        "ip link add eth0 type veth peer name far; ip link set eth0 up
         [ {device} = eth0 ] || {{ ip link add {device} type bridge; ip link set eth0 master {device}; ip link set {device} up; }}
         ip address add {OWN}/24 dev {device}; ip netns add peer; ip link set far netns peer; ip -n peer link set lo up; ip -n peer link set far up
         ip -n peer address add {PEER}/24 dev far; ip -n peer address add {STRANGER}/32 dev lo
         ip route add {STRANGER} via {PEER}"
    ));
    let host = Host::new(&format!(
        "[vtep]\naddress = '{OWN}'\n[speaker]\nkind = 'none'\n[[network]]\nname = 'flat'\nbridge = 'flat-l2'\nvni = 20\n\
         gateway = ['10.1.0.1/24']\nmac = '00:00:00:11:11:10'\nmtu = 1450\n"
    ));
    host.run(&["network", "up", "flat"]).ok();
    sh(&format!("bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst {PEER}"));
    for n in [1, 2] {
        sh(&format!(
            "ip netns add g{n}; ip link add vnet{n} type veth peer name eth0 netns g{n} address 52:54:00:00:00:0{n}
             ip -n g{n} address add 10.1.0.6{n}/24 dev eth0; ip -n g{n} link set eth0 up; ip link set vnet{n} up"
        ));
        let mac = format!("52:54:00:00:00:0{n}");
        host.run(&["attach", &format!("vnet{n}"), "--network", "flat", "--mac", &mac, "--ip", &format!("10.1.0.6{n}")])
            .ok();
    }
    host
}

/// Some kernels have br_netfilter built in, and it is on in a new namespace.
fn bridge_nf(on: bool) {
    let value = u8::from(on);
    let dir = "/proc/sys/net/bridge";
    sh(&format!("for file in {dir}/bridge-nf-call-*; do [ ! -e $file ] || echo 0 >$file; done"));
    sh(&format!("[ ! -e {dir}/bridge-nf-call-iptables ] || echo {value} >{dir}/bridge-nf-call-iptables"));
}

fn load(file: &str) -> Firewall {
    let text = std::fs::read_to_string(format!("{}/tests/cli/rulesets/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let words = if file.ends_with(".nft") { vec!["nft", "-f", "-"] } else { vec!["iptables-restore"] };
    let mut child = Command::new(words[0]).args(&words[1..]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{file}");
    Firewall::Loaded
}

/// The rules of such a file, made.
fn file(name: &'static str) -> impl FnOnce() -> Option<Firewall> {
    move || Some(load(name))
}

/// In the other VTEP's namespace.
fn at_peer<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let netns = File::open("/run/netns/peer").unwrap();
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn received() -> u64 {
    std::fs::read_to_string("/sys/class/net/vxlan20/statistics/rx_packets").unwrap().trim().parse().unwrap()
}

/// Does the tunnel take a datagram from there? A broadcast of the tenant's.
fn tunnels(from: &str) -> bool {
    tunnels_to(from, OWN)
}

fn tunnels_to(from: &str, own: &str) -> bool {
    let before = received();
    let frame = [&[8, 0, 0, 0, 0, 0, 20, 0][..], &[0xff; 6], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0; 46]].concat();
    at_peer(|| UdpSocket::bind((from, 0)).unwrap().send_to(&frame, (own, 4789)).unwrap());
    let end = std::time::Instant::now() + LOST;
    while received() == before && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    received() > before
}

/// Which of the host's ports a stranger and the other VTEP reach, and who gets frames through its tunnel.
fn open() -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for from in [PEER, STRANGER] {
        for port in UDP {
            let socket = UdpSocket::bind((OWN, port)).unwrap();
            socket.set_read_timeout(Some(LOST)).unwrap();
            at_peer(|| UdpSocket::bind((from, 0)).unwrap().send_to(b"?", (OWN, port)).unwrap());
            open.extend(socket.recv(&mut [0; 9]).ok().map(|_| format!("udp {port} from {from}")));
        }
        open.extend(tunnels(from).then(|| format!("vxlan from {from}")));
    }
    for port in TCP {
        let _listener = TcpListener::bind((OWN, port)).unwrap();
        let to = SocketAddr::new(OWN.parse().unwrap(), port);
        let connected = at_peer(|| TcpStream::connect_timeout(&to, LOST).is_ok());
        open.extend(connected.then(|| format!("tcp {port}")));
    }
    open
}

fn doctor(host: &Host) -> Vec<Value> {
    let before = (snapshot(), rules());
    let Run { stdout, .. } = host.run(&["--json", "doctor"]);
    assert_eq!((snapshot(), rules()), before, "a look changed something");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.filter(|finding| finding["check"] == "firewall" && finding["severity"] != "hint").cloned().collect()
}

/// Without what packets that pass change.
fn rules() -> String {
    let text = sh("iptables-save; nft -s list ruleset");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" [").next().unwrap().to_owned() + "\n")
        .collect()
}

fn mend(finding: &Value) -> String {
    assert_eq!(
        (&finding["runnable"], &finding["severity"]),
        (&Value::Bool(true), &Value::from("problem")),
        "{finding:#}"
    );
    finding["mend"].as_str().unwrap().to_owned()
}

/// Runs a mend as it is printed. Only Proxmox' API is played, as pve-firewall's source has it: it wants a cluster file system, and Debian has no pvesh.
fn run(mend: &str) {
    let words: Vec<&str> = mend.split_whitespace().collect();
    let after = |word: &str| words.iter().position(|other| *other == word).map(|at| words[at + 1]);
    if words[0] != "pvesh" {
        sh(mend);
        return;
    }
    let source = after("--source").map(|source| format!("-s {source} ")).unwrap_or_default();
    let device = after("--iface").map(|device| format!("-i {device} ")).unwrap_or_default();
    let port = after("--dport").unwrap();
    sh(&format!("iptables -I PVEFW-HOST-IN 6 {source}{device}-p udp -m udp --dport {port} -j RETURN"));
}

/// The verdict on VXLAN is what the packets did, and the mend, which starts so, opens for the other VTEPs and for nothing else, also when the rules are made anew.
fn closed(start: impl FnOnce() -> Option<Firewall>, words: &str) {
    let host = host();
    assert_eq!(doctor(&host), [] as [Value; 0], "no rules yet");
    let Some(firewall) = start() else { return };
    let before = open();
    assert!(!before.contains(&format!("vxlan from {PEER}")), "{before:?}");
    let found = doctor(&host);
    assert_eq!(found.len(), 1, "{found:#?}");
    let mend = mend(&found[0]);
    assert!(mend.starts_with(words), "{mend}");
    assert!(!mend.contains(" -D ") && !mend.contains("delete"), "{mend}");
    firewall.run(&mend);
    for what in [&mend, "the rules made anew"] {
        let after = open();
        let more: Vec<&String> = after.symmetric_difference(&before).collect();
        assert_eq!(more, [&format!("vxlan from {PEER}")], "{what}");
        assert_eq!(doctor(&host), [] as [Value; 0], "{what}");
        if !firewall.reload() {
            break;
        }
    }
}

/// VXLAN comes through, and so it is told.
fn is_open(file: &str) {
    let host = host();
    load(file);
    assert!(tunnels(PEER), "{file}");
    assert_eq!(doctor(&host), [] as [Value; 0]);
}

/// Does a tenant's packet from guest to guest arrive? One that is to arrive is waited for.
fn guests_talk(wait: Duration) -> bool {
    let (listen, send) = (["g2", "10.1.0.62"], ["g1", "10.1.0.61"]);
    let within = |netns: &str, work: &(dyn Fn() -> bool + Sync)| {
        let path = format!("/run/netns/{netns}");
        std::thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(File::open(path).unwrap().as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            };
            scope.spawn(inside).join().unwrap()
        })
    };
    let socket = std::sync::OnceLock::new();
    within(listen[0], &|| socket.set(UdpSocket::bind((listen[1], 4000)).unwrap()).is_ok());
    let socket = socket.get().unwrap();
    socket.set_read_timeout(Some(wait)).unwrap();
    within(send[0], &|| UdpSocket::bind((send[1], 0)).unwrap().send_to(b"?", (listen[1], 4000)).is_ok());
    socket.recv(&mut [0; 9]).is_ok()
}

/// With br_netfilter on: frames between guests are lost, the mend, which starts so, lets them through, and the host forwards no more than it did.
fn bridged(start: impl FnOnce() -> Option<Firewall>, words: &str) {
    let host = host();
    let Some(firewall) = start() else { return };
    bridge_nf(true);
    if !std::path::Path::new("/proc/sys/net/bridge").exists() {
        return crate::common::skip("bridged frames", "this kernel has no br_netfilter");
    }
    // A peer that would have the host forward to another network of its own.
    sh("ip netns add lan; ip link add lan0 type veth peer name eth0 netns lan; ip address add 10.9.0.1/24 dev lan0
        ip link set lan0 up; ip -n lan address add 10.9.0.2/24 dev eth0; ip -n lan link set eth0 up
        ip -n lan route add default via 10.9.0.1; ip -n peer route add 10.9.0.0/24 via 192.0.2.1; sysctl -qw net.ipv4.ip_forward=1");
    let forwards = || {
        let socket = std::thread::scope(|scope| {
            let listen = || {
                let netns = File::open("/run/netns/lan").unwrap();
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                UdpSocket::bind(("10.9.0.2", 4000)).unwrap()
            };
            scope.spawn(listen).join().unwrap()
        });
        socket.set_read_timeout(Some(LOST)).unwrap();
        at_peer(|| UdpSocket::bind((PEER, 0)).unwrap().send_to(b"?", ("10.9.0.2", 4000)).unwrap());
        socket.recv(&mut [0; 9]).is_ok()
    };
    let forwarded = forwards();
    assert!(!guests_talk(LOST), "{words}");
    let found = doctor(&host);
    let of_guests: Vec<&Value> = found.iter().filter(|finding| finding["object"] == "flat").collect();
    assert_eq!(of_guests.len(), 1, "{found:#?}");
    let mend = mend(of_guests[0]);
    assert!(mend.starts_with(words), "{mend}");
    firewall.run(&mend);
    assert!(guests_talk(COMES), "{mend}");
    assert_eq!(forwards(), forwarded, "{mend}");
    assert!(doctor(&host).iter().all(|finding| finding["object"] != "flat"));
}

const FIREWALL_CMD: &str =
    "firewall-cmd --zone=public --add-rich-rule='rule family=\"ipv4\" source address=\"192.0.2.0/24\" ";
const UFW: &str = "ufw allow proto udp from 192.0.2.0/24 to any port 4789";

on_a_host!(rhels_iptables, {
    closed(file("rhel.iptables"), "iptables -I INPUT -p udp -s 192.0.2.0/24 --dport 4789 -j ACCEPT")
});
on_a_host!(firewalld, { closed(|| real::firewalld("bookworm", "firewalld"), FIREWALL_CMD) });
on_a_host!(firewalld_of_trixie, { closed(|| real::firewalld("trixie", "firewalld_of_trixie"), FIREWALL_CMD) });
on_a_host!(ufw, { closed(|| real::ufw("bookworm", "ufw"), UFW) });
on_a_host!(ufw_of_trixie, { closed(|| real::ufw("trixie", "ufw_of_trixie"), UFW) });
on_a_host!(proxmox, { closed(file("proxmox.iptables"), "pvesh create /nodes/$(hostname)/firewall/rules ") });
on_a_host!(an_nftables_conf, {
    closed(file("policy-drop.nft"), "nft 'insert rule inet filter input ip saddr 192.0.2.0/24 udp dport 4789 accept'");
});
on_a_host!(docker, { is_open("docker.iptables") });
on_a_host!(kubeadm, { is_open("kubeadm.iptables") });
on_a_host!(libvirts_nat_network, { is_open("libvirt.iptables") });

const BRIDGED: &str = "-i flat-l2 -o flat-l2 -m physdev --physdev-is-bridged -j ACCEPT";

on_a_host!(guests_behind_docker, { bridged(file("docker.iptables"), &format!("iptables -I DOCKER-USER {BRIDGED}")) });
on_a_host!(guests_behind_ufw, {
    bridged(|| real::ufw("bookworm", "guests_behind_ufw"), "ufw route allow in on flat-l2 out on flat-l2")
});
on_a_host!(guests_behind_rhels_iptables, {
    bridged(file("rhel.iptables"), &format!("iptables -I FORWARD {BRIDGED}"));
});
on_a_host!(guests_behind_an_nftables_conf, {
    bridged(
        file("policy-drop.nft"),
        "nft 'insert rule inet filter forward iifname \"flat-l2\" oifname \"flat-l2\" accept'",
    );
});
// firewalld would take a rule out of its table again.
on_a_host!(guests_behind_firewalld, {
    bridged(
        || real::firewalld("bookworm", "guests_behind_firewalld"),
        "sysctl -w net.bridge.bridge-nf-call-iptables=0",
    );
});
on_a_host!(guests_behind_what_chooses, {
    let host = host();
    bridge_nf(true);
    for (file, rule) in [
        ("kubeadm.iptables", ":"),
        ("proxmox.iptables", ":"),
        ("rhel.iptables", "iptables -I FORWARD -p udp -m physdev --physdev-is-bridged -j ACCEPT"),
    ] {
        load(file);
        sh(rule);
        assert!(guests_talk(COMES), "{file}");
        assert!(doctor(&host).iter().all(|finding| finding["object"] != "flat"), "{file}");
    }
});

// What goes out, and what others may still send.
on_a_host!(what_is_dropped_on_its_way_out_or_from_some, {
    let host = host();
    sh("iptables -A OUTPUT -p udp --dport 4789 -j DROP");
    let found = doctor(&host);
    assert_eq!(found.len(), 1, "{found:#?}");
    let mend = mend(&found[0]);
    assert!(mend.starts_with("iptables -I OUTPUT -p udp -d 192.0.2.0/24 --dport 4789 -j ACCEPT"), "{mend}");
    run(&mend);
    assert_eq!(doctor(&host), [] as [Value; 0]);
    sh("iptables -F; ip route add 10.0.0.9/32 via 192.0.2.2; bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.0.9
        iptables -t raw -A PREROUTING -s 10.0.0.9 -p udp -j DROP");
    let found = doctor(&host);
    assert!(found[0]["evidence"].as_str().unwrap().contains("from 10.0.0.9, and not that of others"), "{found:#?}");
    let mend = self::mend(&found[0]);
    assert!(mend.starts_with("iptables -t raw -I PREROUTING -p udp -s 10.0.0.9,192.0.2.2 --dport 4789 "), "{mend}");
    run(&mend);
    assert_eq!(doctor(&host), [] as [Value; 0]);
});

// Two firewalls at once: what is printed is all that is needed.
on_a_host!(two_firewalls, {
    let host = host();
    load("rhel.iptables");
    load("policy-drop.nft");
    let found = doctor(&host);
    let mend = mend(&found[0]);
    assert!(mend.contains("iptables -I INPUT ") && mend.contains(" && nft 'insert rule inet filter input "), "{mend}");
    run(&mend);
    assert!(tunnels(PEER));
    assert_eq!(doctor(&host), [] as [Value; 0]);
});

// Proxmox' vmbr0, and every other host whose uplink is a port of a bridge.
on_a_host!(an_uplink_in_a_bridge, {
    let host = host_behind("vmbr0");
    bridge_nf(true);
    assert!(tunnels(PEER));
    sh("iptables -A INPUT -i vmbr0 -m physdev --physdev-in eth0 -p udp -j DROP");
    assert!(!tunnels(PEER));
    let found = doctor(&host);
    assert_eq!(found.len(), 1, "{found:#?}");
    run(&mend(&found[0]));
    assert!(tunnels(PEER));
    assert_eq!(doctor(&host), [] as [Value; 0]);
});

/// A VTEP with an IPv6 address, and another on the same link.
fn host_with_ipv6() -> Host {
    sh("umount -l /sys && mount -t sysfs sysfs /sys; ip link set lo up");
    bridge_nf(false);
    sh("ip link add eth0 type veth peer name far; ip netns add peer; ip link set far netns peer; ip link set eth0 up
        ip address add 2001:db8:1::1/64 dev eth0 nodad; ip -n peer link set far up; ip -n peer address add 2001:db8:1::2/64 dev far nodad");
    let host = Host::new(
        "[vtep]\naddress = '2001:db8:1::1'\n[speaker]\nkind = 'none'\n[[network]]\nname = 'flat'\nbridge = 'flat-l2'\nvni = 20\nmtu = 1430\n",
    );
    host.run(&["network", "up", "flat"]).ok();
    sh("bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 2001:db8:1::2");
    host
}

on_a_host!(a_vtep_with_an_ipv6_address, {
    let host = host_with_ipv6();
    assert!(tunnels_to("2001:db8:1::2", "2001:db8:1::1"));
    sh("ip6tables -A INPUT -p ipv6-icmp -j ACCEPT; ip6tables -P INPUT DROP; iptables -P INPUT DROP");
    assert!(!tunnels_to("2001:db8:1::2", "2001:db8:1::1"));
    let found = doctor(&host);
    assert_eq!(found.len(), 1, "{found:#?}");
    let mend = mend(&found[0]);
    assert!(mend.starts_with("ip6tables -I INPUT -p udp -s 2001:db8:1::/64 --dport 4789 -j ACCEPT"), "{mend}");
    run(&mend);
    assert!(tunnels_to("2001:db8:1::2", "2001:db8:1::1"));
    assert_eq!(doctor(&host), [] as [Value; 0]);
});

/// The processes that are left of this test's own, each with the network namespace that it holds: nobody else is in this test's mount namespace.
fn processes() -> BTreeSet<(String, String)> {
    let of = |pid: &str, what: &str| std::fs::read_link(format!("/proc/{pid}/ns/{what}")).ok();
    let ours = of("self", "mnt");
    let pids = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pids = pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && of(pid, "mnt") == ours);
    pids.filter_map(|pid| Some((of(&pid, "net")?.to_str()?.to_owned(), pid))).map(|(net, pid)| (pid, net)).collect()
}

// Its namespace goes with it, and with the programs that it had started there, which end by themselves.
on_a_host!(a_look_that_is_killed_leaves_nothing, {
    let host = host();
    load("rhel.iptables");
    let before = (snapshot(), rules());
    let started = processes();
    for wait in [5, 40, 80, 160, 320] {
        let mut child = host.command(&["doctor"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((snapshot(), rules()), before, "after {wait} ms");
        let end = std::time::Instant::now() + COMES;
        while processes() != started {
            assert!(std::time::Instant::now() < end, "after {wait} ms: {:?}, not {started:?}", processes());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(doctor(&host).len(), 1);
});

// Nobody knows another VTEP: that may be right.
on_a_host!(a_host_that_is_the_first, {
    let host = host();
    sh("bridge fdb del 00:00:00:00:00:00 dev vxlan20 dst 192.0.2.2");
    load("rhel.iptables");
    let found = doctor(&host);
    assert_eq!((found.len(), &found[0]["severity"]), (1, &Value::from("warning")), "{found:#?}");
    let mend = found[0]["mend"].as_str().unwrap();
    assert!(mend.starts_with("iptables -I INPUT -p udp -s 192.0.2.0/24 --dport 4789 -j ACCEPT"), "{mend}");
});

// The examples in its place are the underlay's own: no packet may go round.
on_a_host!(a_network_of_which_nobody_tells_an_address, {
    sh("umount -l /sys && mount -t sysfs sysfs /sys; ip link set lo up");
    sh("ip link add eth0 type veth peer name far; ip netns add peer; ip link set far netns peer; ip link set eth0 up
        ip address add 192.0.2.1/24 dev eth0; ip -n peer link set far up; ip -n peer address add 192.0.2.2/24 dev far");
    let host = Host::new(
        "[vtep]\naddress = '192.0.2.1'\n[speaker]\nkind = 'none'\n[[network]]\nname = 'flat'\nbridge = 'flat-l2'\nvni = 20\nmtu = 1450\n",
    );
    host.run(&["network", "up", "flat"]).ok();
    sh("bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 192.0.2.2");
    bridge_nf(true);
    if !std::path::Path::new("/proc/sys/net/bridge").exists() {
        return crate::common::skip("bridged frames", "this kernel has no br_netfilter");
    }
    sh("iptables -P FORWARD DROP");
    let found = doctor(&host);
    assert_eq!((found.len(), &found[0]["object"]), (1, &Value::from("flat")), "{found:#?}");
    run(&mend(&found[0]));
    assert_eq!(doctor(&host), [] as [Value; 0]);
});

/// Of what a kernel may lack nft says so; all else is a word that it does not know, or takes for another.
fn takes_port_security(suite: &str, test: &str) {
    let Some(said) = real::nft(suite, test, include_str!("../../src/guard/rules.nft")) else { return };
    let lacks = |line: &str| !line.contains("Error") || line.ends_with("Operation not supported");
    assert!(said.lines().all(lacks), "{suite}: {said}");
}

on_a_host!(port_security_is_taken_by_bookworms_nft, {
    takes_port_security("bookworm", "port_security_is_taken_by_bookworms_nft");
});

// `vxlan` is a word of nft's own from 1.0.7 on.
on_a_host!(port_security_is_taken_by_trixies_nft, {
    takes_port_security("trixie", "port_security_is_taken_by_trixies_nft");
});
