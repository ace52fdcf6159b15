//! Guests whose DHCP server is the host itself, as libvirt starts one: where the host's firewall lets in only what it names, they get no lease.

use super::*;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

const ADDRESS: &str = "10.1.0.1";

/// libvirt's dnsmasq gives out addresses on this network.
fn serves(network: &str, range: &str) {
    let dir = "/var/lib/libvirt/dnsmasq";
    sh(&format!("[ -d {dir}/own ] || {{ mount -t tmpfs none /var/lib && mkdir -p {dir}/own; }}"));
    std::fs::write(format!("{dir}/{network}.conf"), format!("strict-order\nuser=libvirt-dnsmasq\n{range}\n")).unwrap();
}

fn within<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> T {
    crate::inside::inside(&File::open(format!("/run/netns/{netns}")).unwrap(), work)
}

/// A guest's, or the other VTEP's.
fn port(netns: &str) -> &str {
    if netns == "peer" { "far" } else { "eth0" }
}

fn index(device: &str) -> u32 {
    std::fs::read_to_string(format!("/sys/class/net/{device}/ifindex")).unwrap().trim().parse().unwrap()
}

/// A DHCP server's or client's socket, on this device alone.
fn dhcp(device: &str, address: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let address = SocketAddr::new(address.into(), port);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.bind_device(Some(device.as_bytes())).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.bind(&SockAddr::from(address)).unwrap();
    socket.set_read_timeout(Some(LOST)).unwrap();
    socket.into()
}

/// Does a guest's first request (RFC 2131 §4.1: from no address, to all) reach the server on this bridge?
fn asks(netns: &str, bridge: &str) -> bool {
    let server = dhcp(bridge, [0, 0, 0, 0], 67);
    within(netns, || dhcp(port(netns), [0, 0, 0, 0], 68).send_to(b"?", ("255.255.255.255", 67)).unwrap());
    server.recv(&mut [0; 9]).is_ok()
}

/// The same with DHCPv6 (RFC 8415 §7).
fn asks_v6(netns: &str, bridge: &str) -> bool {
    let servers = "ff02::1:2".parse().unwrap();
    let server = dhcp(bridge, Ipv6Addr::UNSPECIFIED, 547);
    server.join_multicast_v6(&servers, index(bridge)).unwrap();
    within(netns, || {
        let client = dhcp(port(netns), Ipv6Addr::UNSPECIFIED, 546);
        client.send_to(b"?", SocketAddrV6::new(servers, 547, 0, 0)).unwrap()
    });
    server.recv(&mut [0; 9]).is_ok()
}

/// What of this host a guest with an address reaches, and the other VTEP; and does a guest without one reach the server?
fn reached() -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for (netns, to) in [("g2", ADDRESS), ("peer", OWN)] {
        for port in [53, 67, 68, 69, 123, 547, 4790] {
            let socket = UdpSocket::bind((to, port)).unwrap();
            socket.set_read_timeout(Some(LOST)).unwrap();
            within(netns, || UdpSocket::bind(("0.0.0.0", 0)).unwrap().send_to(b"?", (to, port)).unwrap());
            open.extend(socket.recv(&mut [0; 9]).ok().map(|_| format!("udp {port} from {netns}")));
        }
        for port in [22, 53, 67, 8080] {
            let _listener = TcpListener::bind((to, port)).unwrap();
            let to = SocketAddr::new(to.parse().unwrap(), port);
            let connected = within(netns, || TcpStream::connect_timeout(&to, LOST).is_ok());
            open.extend(connected.then(|| format!("tcp {port} from {netns}")));
        }
    }
    open.extend(asks("g1", "flat-l2").then(|| "dhcp".to_owned()));
    open.extend(asks("peer", "eth0").then(|| "dhcp from the uplink".to_owned()));
    open
}

/// A guest of that network, with no address yet, and another that has one.
fn tenants() -> Host {
    let host = host();
    sh("ip -n g1 address flush dev eth0");
    serves("flat", "dhcp-range=10.1.0.100,10.1.0.199,255.255.255.0\ndhcp-no-override");
    host
}

fn of(host: &Host, network: &str) -> Vec<Value> {
    doctor(host).into_iter().filter(|finding| finding["object"] == network).collect()
}

/// The verdict is what the request did, and the mend, which starts so, lets it in and nothing else, also when the rules are made anew.
fn deaf(start: impl FnOnce() -> Option<Firewall>, words: &str) {
    let host = tenants();
    let Some(firewall) = start() else { return };
    let before = reached();
    assert!(!before.contains("dhcp"), "{before:?}");
    let found = of(&host, "flat");
    assert_eq!(found.len(), 1, "{:#?}", doctor(&host));
    let evidence = found[0]["evidence"].as_str().unwrap();
    assert!(evidence.starts_with("drops its guests' DHCP requests before they reach this host's UDP 67"), "{evidence}");
    let mend = mend(&found[0]);
    assert!(mend.starts_with(words), "{mend}");
    firewall.run(&mend);
    for what in [&mend, "the rules made anew"] {
        let after = reached();
        let more: Vec<&String> = after.symmetric_difference(&before).collect();
        assert_eq!(more, ["dhcp", "udp 67 from g2"], "{what}");
        assert_eq!(of(&host, "flat"), [] as [Value; 0], "{what}");
        if !firewall.reload() {
            break;
        }
    }
}

on_a_host!(rhels_iptables, {
    deaf(file("rhel.iptables"), "iptables -I INPUT -i flat-l2 -p udp --dport 67 -j ACCEPT");
});
on_a_host!(an_nftables_conf, {
    deaf(file("policy-drop.nft"), "nft 'insert rule inet filter input iifname \"flat-l2\" udp dport 67 accept'");
});
on_a_host!(ufw, {
    deaf(|| real::ufw("bookworm", "tenants::ufw"), "ufw allow in on flat-l2 to any port 67 proto udp");
});
on_a_host!(ufw_of_trixie, {
    deaf(|| real::ufw("trixie", "tenants::ufw_of_trixie"), "ufw allow in on flat-l2 to any port 67 proto udp");
});
on_a_host!(proxmox, { deaf(file("proxmox.iptables"), "pvesh create /nodes/$(hostname)/firewall/rules ") });

const OWN_ZONE: &str = "firewall-cmd --permanent --new-zone=guests && firewall-cmd --permanent --zone=guests --add-interface=flat-l2 && \
    firewall-cmd --reload";
const SERVICE: &str =
    "firewall-cmd --zone=guests --add-service=dhcp && firewall-cmd --permanent --zone=guests --add-service=dhcp";

fn in_a_zone_of_its_own(suite: &str, test: &str) -> Option<Firewall> {
    let firewalld = real::firewalld(suite, test)?;
    firewalld.run(OWN_ZONE);
    Some(firewalld)
}

on_a_host!(firewalld, { deaf(|| in_a_zone_of_its_own("bookworm", "tenants::firewalld"), SERVICE) });
on_a_host!(firewalld_of_trixie, { deaf(|| in_a_zone_of_its_own("trixie", "tenants::firewalld_of_trixie"), SERVICE) });

// firewalld has no rule for one device: a service that is let into the zone would be everybody's who is in it, the uplink's, too.
on_a_host!(firewalld_and_a_zone_of_many, {
    let host = tenants();
    let Some(firewalld) = real::firewalld("bookworm", "tenants::firewalld_and_a_zone_of_many") else { return };
    assert!(!asks("g1", "flat-l2"));
    let found = of(&host, "flat");
    assert_eq!((found.len(), &found[0]["runnable"]), (1, &Value::Bool(false)), "{found:#?}");
    assert_eq!(found[0]["severity"], "problem", "{found:#?}");
    let words = found[0]["mend"].as_str().unwrap();
    assert!(words.contains("give flat-l2 one of its own that has the service"), "{words}");
    // As it says.
    firewalld.run(&format!("{OWN_ZONE} && {SERVICE}"));
    assert!(asks("g1", "flat-l2") && !asks("peer", "eth0"));
    assert_eq!(of(&host, "flat"), [] as [Value; 0]);
});

// A host that gives out no addresses there is asked for none.
on_a_host!(where_no_server_is_nobody_asks, {
    let host = tenants();
    load("policy-drop.nft");
    assert_eq!(of(&host, "flat").len(), 1);
    std::fs::remove_file("/var/lib/libvirt/dnsmasq/flat.conf").unwrap();
    assert_eq!(of(&host, "flat"), [] as [Value; 0]);
});

const RANGE: &str = "dhcp-range=fd00:6::100,fd00:6::1ff,64";

fn deaf_to_dhcpv6(start: impl FnOnce() -> Option<Firewall>, words: &str) -> Option<(Host, Firewall)> {
    let host = host();
    let config = std::fs::read_to_string("/run/config.toml").unwrap();
    let six = "[[network]]\nname = 'six'\nbridge = 'six-l2'\nvni = 21\ngateway = ['fd00:6::1/64']\nmtu = 1450\n";
    std::fs::write("/run/config.toml", config + six).unwrap();
    host.run(&["network", "up", "six"]);
    sh("ip netns add g6; ip link add vnet6 type veth peer name eth0 netns g6
        ip netns exec g6 sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.disable_ipv6=0
        ip -n g6 link set eth0 up; ip link set vnet6 master six-l2 up
        ip -n g6 address add fe80::6/64 dev eth0 nodad; ip -n peer address add fe80::2/64 dev far nodad
        ip address add fe80::1/64 dev six-l2 nodad");
    serves("six", RANGE);
    assert!(asks_v6("g6", "six-l2"));
    let firewall = start()?;
    assert!(!asks_v6("g6", "six-l2"));
    // One that advertises a prefix alone is asked for no address.
    serves("six", "dhcp-range=fd00:6::1,ra-only");
    assert_eq!(of(&host, "six"), [] as [Value; 0]);
    serves("six", RANGE);
    let found = of(&host, "six");
    assert_eq!(found.len(), 1, "{found:#?}");
    let mend = mend(&found[0]);
    assert!(mend.starts_with(words), "{mend}");
    firewall.run(&mend);
    assert!(asks_v6("g6", "six-l2"), "{}", rules());
    assert!(!asks_v6("peer", "eth0"));
    assert_eq!(of(&host, "six"), [] as [Value; 0]);
    Some((host, firewall))
}

on_a_host!(dhcpv6_behind_an_nftables_conf, {
    deaf_to_dhcpv6(
        file("policy-drop.nft"),
        "nft 'insert rule inet filter input iifname \"six-l2\" udp dport 547 accept'",
    );
});
// Which drops, beside, what no route leads back to by the same device: without a link-local address there is none.
on_a_host!(dhcpv6_behind_firewalld, {
    let start = || {
        let firewalld = real::firewalld("bookworm", "tenants::dhcpv6_behind_firewalld")?;
        firewalld.run(&OWN_ZONE.replace("flat-l2", "six-l2"));
        Some(firewalld)
    };
    let Some((host, _firewalld)) = deaf_to_dhcpv6(start, &SERVICE.replace("=dhcp", "=dhcpv6")) else { return };
    sh("ip address del fe80::1/64 dev six-l2");
    assert!(!asks_v6("g6", "six-l2"));
    let found = of(&host, "six");
    assert_eq!((found.len(), &found[0]["runnable"]), (1, &Value::Bool(false)), "{found:#?}");
});

// In a VRF what reaches the host has come in by the VRF's device. By the old iptables, which every kernel with a VRF has.
on_a_host!(a_network_in_a_vrf, {
    let name = "a_network_in_a_vrf";
    if !crate::common::has_vrf() {
        return crate::common::skip(name, "this kernel has no VRF");
    }
    let host = Host::new(crate::host::CONFIG);
    host.run(&["network", "up", "routed"]);
    sh(
        "ip netns add g1; ip link add vnet1 type veth peer name eth0 netns g1; ip -n g1 link set eth0 up; ip link set vnet1 up",
    );
    host.run(&["attach", "vnet1", "--network", "routed", "--mac", "52:54:00:00:00:01"]);
    sh("ip link set vnet1 master red-l2; bridge link set dev vnet1 learning on locked off || true");
    serves("routed", "dhcp-range=10.3.0.100,10.3.0.199,255.255.255.0");
    assert!(asks("g1", "red-l2"), "no rules yet");
    sh("iptables-legacy -P INPUT DROP");
    assert!(!asks("g1", "red-l2"));
    let of_routed = || of(&host, "routed");
    let found = of_routed();
    assert_eq!(found.len(), 1, "{found:#?}");
    let mend = mend(&found[0]);
    assert!(mend.starts_with("iptables-legacy -I INPUT -i red -p udp --dport 67 -j ACCEPT"), "{mend}");
    run(&mend);
    assert!(asks("g1", "red-l2"));
    assert_eq!(of_routed(), [] as [Value; 0]);
});
