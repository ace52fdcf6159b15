//! What a guest finds when it looks for everything: a scan from inside each tenant's guest, as a hostile root would make it, against all addresses of
//! both hosts, of the underlay and of all guests. Nothing but its own tenant and its own gateway may answer, or so much as hear of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::fabric::{Container, Host, inside};
use crate::tenant::{Configured, GREEN, Network, RED, container_on, joined};

/// sshd, DNS, DHCP, BGP, FRR's vtys, DHCPv6, the agent's metrics and libvirtd are where a host listens; the last is nobody's.
const PORTS: [u16; 10] = [22, 53, 67, 179, 547, 2601, 2605, 9471, 16509, 40_001];
const CLOSED: u16 = 40_002;
/// How long an answer may take: what comes back at all comes within milliseconds, on a slow machine within some hundred.
const PATIENCE: Duration = Duration::from_secs(2);

/// A second network of red's VRF.
const RED2: &str = "[[network]]\nname = 'red2'\nbridge = 'red2-l2'\nvni = 22\nvrf = 'red'\ngateway = ['10.4.0.1/24', 'fd00:4::1/64']\nmac = '00:00:00:11:11:12'\n";
const RED2_XML: &str = "<network><name>red2</name><metadata>
<evpn:network xmlns:evpn='urn:evpn-hook:1' vni='22'><evpn:vrf name='red' table='10' vni='10'/></evpn:network></metadata>
<forward mode='open'/><bridge name='red2-l2' stp='off' delay='0'/><mac address='00:00:00:11:11:12'/><dns enable='no'/>
<ip address='10.4.0.1' netmask='255.255.255.0'/><ip family='ipv6' address='fd00:4::1' prefix='64'/></network>";
const DUAL: &str = "[[vrf]]\nname = 'dual'\ntable = 70\nvni = 70\n[[network]]\nname = 'dual'\nbridge = 'dual-l2'\nvni = 80\n\
    vrf = 'dual'\ngateway = ['10.3.0.1/24', 'fd00:3::1/64']\nmac = '00:00:00:11:11:70'\n";
const L2ONLY: &str = "[[network]]\nname = 'l2only'\nbridge = 'l2only'\nvni = 60\nmac = '00:00:00:11:11:60'\n";

/// A network namespace from which is scanned, and where somebody listens.
struct Place<'a> {
    name: &'static str,
    host: &'a Host,
    netns: File,
    /// What a command begins with that runs there.
    enter: Vec<String>,
}

impl<'a> Place<'a> {
    fn node(host: &'a Host, name: &'static str) -> Place<'a> {
        Place { name, host, netns: host.netns().try_clone().expect("a namespace"), enter: Vec::new() }
    }

    fn container(host: &'a Host, name: &'static str, container: &Container) -> Place<'a> {
        let pid = container.pid().expect("the container runs");
        let enter = ["nsenter", "--target", &pid.to_string(), "--net", "--"].map(str::to_owned).into();
        Place { name, host, netns: container.netns(), enter }
    }

    fn sh(&self, script: &str) -> String {
        let words: Vec<&str> = self.enter.iter().map(String::as_str).chain(["bash", "-euc", script]).collect();
        self.host.ok(&words)
    }

    /// Link-local addresses are on the one link that a guest has.
    fn socket_address(&self, ip: IpAddr, port: u16, link: u32) -> SocketAddr {
        match ip {
            IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast() => {
                SocketAddrV6::new(v6, port, 0, link).into()
            }
            _ => SocketAddr::new(ip, port),
        }
    }
}

/// What came of one try.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Answer {
    Open,
    /// Nobody listens, and somebody said so: the address itself is reached.
    Closed,
}

/// A guest, a host or a router that a guest may look for.
struct Target {
    ip: IpAddr,
    /// Whose it is, for the reader.
    what: String,
    /// The network whose guests have it on their link.
    network: Option<&'static str>,
    /// The tenant whose guests reach it.
    vrf: Option<&'static str>,
    /// It is an address of the host: its services are nobody's.
    gateway: bool,
}

#[derive(Default)]
struct Found {
    neighbours: BTreeSet<IpAddr>,
    pinged: BTreeSet<IpAddr>,
    tcp: BTreeMap<(IpAddr, u16), Answer>,
    udp: BTreeMap<(IpAddr, u16), Answer>,
}

/// Listens on all of [`PORTS`] by TCP and UDP, IPv4 and IPv6, and notes whom it hears.
struct Listeners {
    heard: Arc<Mutex<BTreeSet<(IpAddr, String)>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// What others have already, such as FRR's port 179.
    taken: Vec<String>,
}

impl Listeners {
    fn start(place: &Place) -> Listeners {
        let mut taken = Vec::new();
        let (mut tcp, mut udp): (Vec<TcpListener>, Vec<UdpSocket>) = (Vec::new(), Vec::new());
        inside(&place.netns, || {
            for port in PORTS {
                for any in ["0.0.0.0", "::"] {
                    let address = SocketAddr::new(any.parse().expect("an address"), port);
                    match listener(address, Type::STREAM).and_then(|socket| socket.listen(64).map(|()| socket)) {
                        Ok(socket) => tcp.push(socket.into()),
                        Err(error) if error.kind() == ErrorKind::AddrInUse => taken.push(format!("tcp {address}")),
                        Err(error) => panic!("{}: {address}: {error}", place.name),
                    }
                    match listener(address, Type::DGRAM) {
                        Ok(socket) => udp.push(socket.into()),
                        Err(error) if error.kind() == ErrorKind::AddrInUse => taken.push(format!("udp {address}")),
                        Err(error) => panic!("{}: {address}: {error}", place.name),
                    }
                }
            }
        });
        let (heard, end) = (Arc::<Mutex<BTreeSet<(IpAddr, String)>>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (heard, end) = (heard.clone(), end.clone());
            std::thread::spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let fds: Vec<BorrowedFd> = tcp.iter().map(AsFd::as_fd).chain(udp.iter().map(AsFd::as_fd)).collect();
                    ready(&fds, Duration::from_millis(100));
                    for listener in &tcp {
                        while let Ok((_, from)) = listener.accept() {
                            heard.lock().unwrap().insert((from.ip(), format!("tcp {}", port(listener.local_addr()))));
                        }
                    }
                    let mut bytes = [0; 600];
                    for socket in &udp {
                        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                            let mark = String::from_utf8_lossy(&bytes[..length]).into_owned();
                            let said = if mark.starts_with("scan ") { mark } else { format!("{length} bytes") };
                            let _ = socket.send_to(b"heard", from);
                            heard
                                .lock()
                                .unwrap()
                                .insert((from.ip(), format!("udp {}: {said}", port(socket.local_addr()))));
                        }
                    }
                }
            })
        };
        Listeners { heard, end, thread: Some(thread), taken }
    }

    fn take(&self) -> BTreeSet<(IpAddr, String)> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn listener(address: SocketAddr, kind: Type) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn port(address: std::io::Result<SocketAddr>) -> u16 {
    address.expect("a bound socket's address").port()
}

fn ready(fds: &[BorrowedFd], patience: Duration) {
    let mut polled: Vec<PollFd> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let patience = Timespec::try_from(patience).expect("a short time");
    poll(&mut polled, Some(&patience)).expect("poll");
}

/// Which of these answer a ping, all asked at once, and again after half the time.
fn pinged(place: &Place, targets: &[IpAddr], link: u32) -> BTreeSet<IpAddr> {
    let sockets = inside(&place.netns, || {
        [(Domain::IPV4, Protocol::ICMPV4), (Domain::IPV6, Protocol::ICMPV6)].map(|(domain, protocol)| {
            let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("a raw socket");
            socket.set_nonblocking(true).expect("a socket");
            UdpSocket::from(socket)
        })
    });
    let fds = sockets.each_ref().map(AsFd::as_fd);
    let mut found = BTreeSet::new();
    for _ in 0..2 {
        for ip in targets {
            let (socket, request) = match ip {
                // Type, code, checksum, identifier, sequence; of ICMPv6 the kernel makes the checksum.
                IpAddr::V4(_) => (&sockets[0], [8, 0, 0xf6, 0xfe, 1, 0, 0, 1]),
                IpAddr::V6(_) => (&sockets[1], [128, 0, 0, 0, 1, 0, 0, 1]),
            };
            // What the guest itself has no way to is silence.
            let _ = socket.send_to(&request, place.socket_address(*ip, 0, link));
        }
        let end = Instant::now() + PATIENCE / 2;
        while Instant::now() < end {
            ready(&fds, end.saturating_duration_since(Instant::now()));
            let mut bytes = [0; 600];
            for socket in &sockets {
                while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    // IPv4's header comes with it.
                    let reply = match from {
                        SocketAddr::V4(_) => (bytes[usize::from(bytes[0] & 15) * 4], 0),
                        SocketAddr::V6(_) => (bytes[0], 129),
                    };
                    if length >= 8 && reply.0 == reply.1 {
                        found.insert(from.ip());
                    }
                }
            }
        }
    }
    found
}

/// Tries every port of every target, by TCP or UDP, all at once.
fn knocked(place: &Place, kind: Type, targets: &[IpAddr], link: u32) -> BTreeMap<(IpAddr, u16), Answer> {
    let mut tries = Vec::new();
    inside(&place.netns, || {
        for (ip, port) in targets.iter().flat_map(|ip| PORTS.into_iter().chain([CLOSED]).map(|port| (*ip, port))) {
            let address = place.socket_address(ip, port, link);
            let protocol = (kind == Type::STREAM).then_some(Protocol::TCP);
            let socket = Socket::new(Domain::for_address(address), kind, protocol).expect("a socket");
            socket.set_nonblocking(true).expect("a socket");
            if kind == Type::DGRAM {
                socket.set_broadcast(true).expect("a socket");
            }
            // What the guest itself has no way to is silence.
            match socket.connect(&address.into()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
                Err(_) => continue,
            }
            if kind == Type::DGRAM {
                let _ = socket.send(format!("scan {} to {ip} {port}", place.name).as_bytes());
            }
            tries.push(((ip, port), socket));
        }
    });
    let mut found = BTreeMap::new();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && !tries.is_empty() {
        let wanted = if kind == Type::STREAM { PollFlags::OUT } else { PollFlags::IN };
        let mut polled: Vec<PollFd> = tries.iter().map(|(_, socket)| PollFd::new(socket, wanted)).collect();
        let patience = Timespec::try_from(end.saturating_duration_since(Instant::now())).expect("a short time");
        poll(&mut polled, Some(&patience)).expect("poll");
        let happened: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        let mut happened = happened.into_iter();
        tries.retain_mut(|(key, socket)| {
            if !happened.next().expect("one each") {
                return true;
            }
            let error = match kind {
                Type::STREAM => socket.take_error().expect("a socket"),
                _ => socket.read(&mut [0; 64]).err(),
            };
            match error {
                None => drop(found.insert(*key, Answer::Open)),
                Some(error) if error.kind() == ErrorKind::ConnectionRefused => drop(found.insert(*key, Answer::Closed)),
                // "No route to host" and the like: the gateway says that there is no way.
                Some(_) => {}
            }
            false
        });
    }
    found
}

/// How a guest asks for everything: with each address on its link, as one that is curious, then with its host as the way to everything, as one that has
/// read the bridge's MAC off the wire.
fn look_on_link(place: &Place) {
    place.sh("for family in -4 -6; do
             ip $family rule add pref 10 lookup 77
             ip $family route replace default dev eth0 table 77
         done");
}

fn look_by_host(place: &Place, bridge: &str) {
    let mac = place.host.sh(&format!("cat /sys/class/net/{bridge}/address"));
    place.sh(&format!(
        "printf 'neigh replace 169.254.77.1 lladdr {mac} dev eth0 nud permanent
             route replace default via 169.254.77.1 dev eth0 onlink table 77
             rule add pref 9 lookup main suppress_prefixlength 0\n' | ip -batch -
         printf 'neigh replace fe80::7777 lladdr {mac} dev eth0 nud permanent
             route replace default via fe80::7777 dev eth0 table 77
             rule add pref 9 lookup main suppress_prefixlength 0\n' | ip -6 -batch -",
        mac = mac.trim()
    ));
}

/// The addresses that have a MAC on the guest's link.
fn neighbours(place: &Place) -> BTreeSet<IpAddr> {
    let known = place.sh("ip neigh show dev eth0 | grep lladdr | grep -v PERMANENT || true");
    known.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

struct Guest<'a> {
    place: Place<'a>,
    /// The bridge that it is on, of the same name everywhere.
    bridge: &'static str,
    network: &'static str,
    vrf: &'static str,
    /// Those that others may look for, and all.
    ips: Vec<IpAddr>,
    all_ips: Vec<IpAddr>,
    /// Its NIC's index.
    link: u32,
    _container: Container<'a>,
}

fn guest<'a>(
    host: &'a Host,
    name: &'static str,
    network: &'static str,
    vrf: &'static str,
    number: u8,
    ips: &[&str],
) -> Guest<'a> {
    let bridge = match network {
        "l2only" => "l2only",
        "dual" => "dual-l2",
        "red2" => "red2-l2",
        "green" => "green-l2",
        _ => "red-l2",
    };
    host.sh(&format!(
        "cd /usr/share/evpn-hook/lxc; [ -e {network}.conf ] || sed 's/red-l2/{bridge}/g' red.conf >{network}.conf"
    ));
    let container = Container::start(host, name, &container_on(network, &format!("00:16:3e:05:00:{number:02x}"), None));
    let place = Place::container(host, name, &container);
    for ip in ips {
        place.sh(&format!("ip address add {ip} dev eth0 $(case {ip} in *:*) echo nodad;; esac)"));
    }
    // Also one without IPv6 of its own gives itself an address to ask from.
    place.sh(&format!("ip -6 address add fd00:66::{number}/128 dev eth0 nodad"));
    if let Some(gateway) = ips.first().and_then(|ip| ip.strip_suffix(".111/24").or(ip.strip_suffix(".112/24")))
        && network != "l2only"
    {
        place.sh(&format!("ip route add default via {gateway}.1"));
    }
    let link = place.sh("cat /sys/class/net/eth0/ifindex 2>/dev/null || ip -o link show eth0 | cut -d: -f1");
    let all = place.sh("ip -o address show dev eth0 | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1");
    let all_ips = all.lines().map(|ip| ip.parse().expect("an address")).collect();
    let own = ips.iter().map(|ip| ip.split('/').next().expect("an address").parse().expect("an address"));
    Guest {
        ips: own.collect(),
        all_ips,
        bridge,
        network,
        vrf,
        link: link.trim().parse().expect("an index"),
        place,
        _container: container,
    }
}

impl Guest<'_> {
    /// Is this one of its addresses, its link-local one included?
    fn has(&self, ip: IpAddr) -> bool {
        self.all_ips.contains(&ip)
    }

    fn others(&self, targets: &[Target]) -> Vec<IpAddr> {
        targets.iter().map(|target| target.ip).filter(|ip| !self.ips.contains(ip)).collect()
    }

    /// First with every address on its link: who says to have it, and answers there.
    fn scan_link(&self, targets: &[Target]) -> Found {
        let others = self.others(targets);
        look_on_link(&self.place);
        let pinged = pinged(&self.place, &others, self.link);
        let neighbours = neighbours(&self.place).into_iter().filter(|ip| others.contains(ip)).collect();
        Found { neighbours, pinged, ..Found::default() }
    }

    /// Then with all by its host.
    fn scan_beyond(&self, targets: &[Target]) -> Found {
        let others = self.others(targets);
        let everybody = ["255.255.255.255", "224.0.0.1", "ff02::1"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
        let all: Vec<IpAddr> = others.iter().chain(&everybody).copied().collect();
        std::thread::scope(|scope| {
            let tcp = scope.spawn(|| knocked(&self.place, Type::STREAM, &others, self.link));
            let udp = scope.spawn(|| knocked(&self.place, Type::DGRAM, &all, self.link));
            let pinged = pinged(&self.place, &others, self.link);
            let (tcp, udp) = (tcp.join().expect("a scan"), udp.join().expect("a scan"));
            Found { pinged, tcp, udp, ..Found::default() }
        })
    }

    /// Does anybody give it a lease? Its address stays as it is. dnsmasq pings an address for three seconds before it offers it.
    fn gets_a_lease(&self) -> bool {
        let ask = "exec lxc-attach --clear-env --name $0 -- udhcpc -i eth0 -n -q -f -t 5 -T 2 -s /bin/true";
        self.place.host.run(&["sh", "-c", ask, self.place.name]).code == 0
    }
}

/// The same by all guests at once.
fn each<T: Send>(guests: &[Guest], one: impl Fn(&Guest) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let all: Vec<_> = guests.iter().map(|guest| scope.spawn(|| one(guest))).collect();
        all.into_iter().map(|one| one.join().expect("a guest")).collect()
    })
}

/// A gateway, guest or host that may be looked for.
fn target(ip: &str, what: &str, network: Option<&'static str>, vrf: Option<&'static str>, gateway: bool) -> Target {
    let ip = ip.split('/').next().expect("an address").parse().expect("an address");
    Target { ip, what: what.to_owned(), network, vrf, gateway }
}

/// Every address of a host that is nobody's gateway: of its loopback, its underlay, its bridges.
fn addresses(host: &Host, known: &[Target]) -> Vec<Target> {
    let lines = host.sh("ip -o address show | tr -s ' '");
    let words = lines.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut found: Vec<Target> = Vec::new();
    for words in words {
        let (device, ip) = (words[1], words[3].split('/').next().expect("an address"));
        let ip: IpAddr = ip.parse().expect("an address");
        if ip.is_loopback() || known.iter().chain(&found).any(|target| target.ip == ip) {
            continue;
        }
        // A bridge's link-local address is its own network's gateway for IPv6, and that of all hosts: its MAC is the same everywhere.
        let network = [("red-l2", "red"), ("red2-l2", "red2"), ("dual-l2", "dual"), ("green-l2", "green")]
            .into_iter()
            .find(|(bridge, _)| *bridge == device)
            .map(|(_, network)| network);
        found.push(Target { ip, what: format!("{} {device}", host.name()), network, vrf: None, gateway: true });
    }
    found
}

/// What of all that was found should not have been.
fn too_much(guest: &Guest, targets: &[Target], found: &Found) -> Vec<String> {
    let of = |ip: &IpAddr| targets.iter().find(|target| target.ip == *ip);
    let who =
        |ip: &IpAddr| format!("{}: {ip} ({})", guest.place.name, of(ip).map_or("everybody", |target| &target.what));
    let near = |ip: &IpAddr| of(ip).is_some_and(|target| target.network == Some(guest.network));
    let own = |ip: &IpAddr| near(ip) || of(ip).is_some_and(|target| target.vrf == Some(guest.vrf));
    let is_gateway = |ip: &IpAddr| of(ip).is_some_and(|target| target.gateway);
    let mut wrong: Vec<String> = Vec::new();
    wrong.extend(found.neighbours.iter().filter(|ip| !near(ip)).map(|ip| format!("{} has a MAC on its link", who(ip))));
    wrong.extend(found.pinged.iter().filter(|ip| !own(ip)).map(|ip| format!("{} answers a ping", who(ip))));
    for (kind, answers) in [("tcp", &found.tcp), ("udp", &found.udp)] {
        for ((ip, port), answer) in answers {
            let everybody = ip.is_multicast() || *ip == IpAddr::V4(Ipv4Addr::BROADCAST);
            if !everybody && (!own(ip) || is_gateway(ip) && *answer == Answer::Open) {
                wrong.push(format!("{} answers {kind} {port}: {answer:?}", who(ip)));
            }
        }
    }
    wrong
}

/// What should have been found, and was not: a scanner that finds nothing is broken.
fn too_little(guest: &Guest, targets: &[Target], found: &Found) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |there: bool, what: String| {
        if !there {
            wrong.push(format!("{}: not found: {what}", guest.place.name))
        }
    };
    for target in targets.iter().filter(|target| !guest.ips.contains(&target.ip) && !target.ip.is_ipv6()) {
        let (ip, what) = (target.ip, &target.what);
        if target.network == Some(guest.network) {
            expect(found.neighbours.contains(&ip), format!("{what}'s MAC"));
        }
        if target.vrf != Some(guest.vrf) {
            continue;
        }
        expect(found.pinged.contains(&ip), format!("{what}'s ping"));
        expect(found.tcp.get(&(ip, CLOSED)) == Some(&Answer::Closed), format!("{what}'s closed port"));
        for port in PORTS.iter().filter(|_| !target.gateway) {
            expect(found.tcp.get(&(ip, *port)) == Some(&Answer::Open), format!("{what}'s tcp {port}"));
            expect(found.udp.get(&(ip, *port)) == Some(&Answer::Open), format!("{what}'s udp {port}"));
        }
    }
    wrong
}

/// One cell of the matrix: n a neighbour, p a ping, t and u how many ports are open by TCP and UDP, r that a closed one says so.
fn cell(guest: &Guest, ip: IpAddr, found: &Found) -> String {
    if guest.ips.contains(&ip) {
        return "self".to_owned();
    }
    let count = |answers: &BTreeMap<(IpAddr, u16), Answer>, answer| {
        answers.iter().filter(|((of, _), found)| *of == ip && **found == answer).count()
    };
    let mut cell = String::new();
    cell += if found.neighbours.contains(&ip) { "n" } else { "" };
    cell += if found.pinged.contains(&ip) { "p" } else { "" };
    for (letter, answers) in [("t", &found.tcp), ("u", &found.udp)] {
        match count(answers, Answer::Open) {
            0 => {}
            open => cell += &format!(" {letter}{open}"),
        }
    }
    if count(&found.tcp, Answer::Closed) > 0 {
        cell += " r";
    }
    if cell.is_empty() { "-".to_owned() } else { cell }
}

lab_test! {
    fn a_guest_finds_its_own_tenant_and_its_gateway_and_nothing_else(fabric) {
        let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
        let (_, most) = nix::sys::resource::getrlimit(limit).expect("a limit");
        nix::sys::resource::setrlimit(limit, 16_384, most.max(16_384)).expect("a limit");
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _libvirts = [
            Network::shipped(comp1, "red"), Network::start_xml(comp1, "red2", RED2_XML), Network::shipped(comp1, "green"),
            Network::shipped(comp1, "dual"), Network::shipped(comp1, "l2only"),
        ];
        let _configured = Configured::up(comp2, &[RED, RED2, GREEN, DUAL, L2ONLY]);
        for vni in [20, 22, 40, 80, 60] {
            joined(fabric, vni);
        }
        let guests = [
            guest(comp1, "r1", "red", "red", 1, &["10.1.0.111/24"]),
            guest(comp2, "r2", "red", "red", 2, &["10.1.0.112/24"]),
            guest(comp1, "x1", "red2", "red", 3, &["10.4.0.111/24", "fd00:4::111/64"]),
            guest(comp1, "g1", "green", "green", 4, &["10.2.0.111/24"]),
            guest(comp1, "d1", "dual", "dual", 5, &["10.3.0.111/24", "fd00:3::111/64"]),
            guest(comp1, "l1", "l2only", "l2only", 6, &["10.60.0.111/24", "fd00:60::111/64"]),
            guest(comp2, "l2", "l2only", "l2only", 7, &["10.60.0.112/24", "fd00:60::112/64"]),
        ];
        let mut targets = vec![
            target("10.1.0.1", "gateway of red", Some("red"), Some("red"), true),
            target("10.4.0.1", "gateway of red2", Some("red2"), Some("red"), true),
            target("fd00:4::1", "gateway of red2", Some("red2"), Some("red"), true),
            target("10.2.0.1", "gateway of green", Some("green"), Some("green"), true),
            target("10.3.0.1", "gateway of dual", Some("dual"), Some("dual"), true),
            target("fd00:3::1", "gateway of dual", Some("dual"), Some("dual"), true),
        ];
        for guest in &guests {
            targets.extend(guest.ips.iter().map(|ip| {
                target(&ip.to_string(), &format!("guest {} of {}", guest.place.name, guest.network), Some(guest.network), Some(guest.vrf), false)
            }));
        }
        for host in [comp1, comp2, fabric.spine1()] {
            let more = addresses(host, &targets);
            targets.extend(more);
        }

        let hosts = [Place::node(comp1, "comp1"), Place::node(comp2, "comp2"), Place::node(fabric.spine1(), "spine1")];
        let places: Vec<&Place> = hosts.iter().chain(guests.iter().map(|guest| &guest.place)).collect();
        let listeners: Vec<(&Place, Listeners)> = places.iter().map(|place| (*place, Listeners::start(place))).collect();
        for (place, listeners) in &listeners {
            if !listeners.taken.is_empty() {
                eprintln!("{}: in use before: {}", place.name, listeners.taken.join(", "));
            }
        }

        // The same scanner from where all is to be found: each host by itself.
        let mut wrong = Vec::new();
        for (place, ip) in [(&hosts[0], "10.0.0.1"), (&hosts[1], "10.0.0.2"), (&hosts[0], "c0d1::1"), (&hosts[1], "10.1.0.1")] {
            let ip: IpAddr = ip.parse().expect("an address");
            let inside_vrf = ip == IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
            for kind in [Type::STREAM, Type::DGRAM] {
                let found = knocked(place, kind, &[ip], 0);
                let word = if kind == Type::STREAM { "tcp" } else { "udp" };
                let any = if ip.is_ipv4() { "0.0.0.0:" } else { "[::]:" };
                let others = &listeners.iter().find(|(of, _)| of.name == place.name).expect("its listeners").1.taken;
                let mut own = PORTS.iter().filter(|port| !others.contains(&format!("{word} {any}{port}")));
                let complete = own.all(|port| found.get(&(ip, *port)) == Some(&Answer::Open));
                // A tenant's gateway is no address of the host's own table.
                let expected = match inside_vrf {
                    true => found.is_empty(),
                    false => complete && found.get(&(ip, CLOSED)) == Some(&Answer::Closed),
                };
                if !expected {
                    wrong.push(format!("{} on itself, {ip}: {found:?}", place.name));
                }
            }
        }
        for (_, listeners) in &listeners {
            listeners.take();
        }

        let by_link = each(&guests, |guest| guest.scan_link(&targets));
        // An answer takes its way by the routes of who gives it.
        for guest in &guests {
            look_by_host(&guest.place, guest.bridge);
        }
        let mut found = each(&guests, |guest| guest.scan_beyond(&targets));
        for (found, by_link) in found.iter_mut().zip(by_link) {
            found.neighbours = by_link.neighbours;
            found.pinged.extend(by_link.pinged);
        }
        let columns: Vec<(&Guest, Found)> = guests.iter().zip(found).collect();
        for (guest, found) in &columns {
            wrong.extend(too_much(guest, &targets, found));
            wrong.extend(too_little(guest, &targets, found));
        }
        // What came without an answer.
        for (place, listeners) in &listeners {
            let here = guests.iter().find(|guest| guest.place.name == place.name);
            for (from, what) in listeners.take() {
                let fellow = guests.iter().find(|guest| guest.has(from)).is_some_and(|from| here.is_some_and(|here| here.vrf == from.vrf));
                if !fellow {
                    wrong.push(format!("{} hears from {from}: {what}", place.name));
                }
            }
        }

        // DHCP is what is left: by the tenant's dnsmasq, over the segment too, and by nobody where there is none.
        let leases = each(&guests, |guest| guest.gets_a_lease());
        for (guest, answered) in guests.iter().zip(&leases) {
            if *answered != ["red", "green", "dual"].contains(&guest.network) {
                wrong.push(format!("{}: DHCP answered: {answered}", guest.place.name));
            }
        }
        let leases = leases.into_iter().map(|answered| if answered { "yes" } else { "-" });

        let mut table = vec![format!("{:32} {:26}", "address", "of")];
        table[0] += &columns.iter().map(|(guest, _)| format!(" {:11}", format!("{} {}", guest.place.name, guest.network))).collect::<String>();
        for target in &targets {
            let cells: String = columns.iter().map(|(guest, found)| format!(" {:11}", cell(guest, target.ip, found))).collect();
            table.push(format!("{:32} {:26}{cells}", target.ip.to_string(), target.what));
        }
        table.push(format!("{:32} {:26}{}", "DHCP", "", leases.map(|lease| format!(" {lease:11}")).collect::<String>()));
        table.push("n: has a MAC on the guest's link; p: answers a ping; tN, uN: N of 10 TCP, UDP ports open; r: says that a port is closed".to_owned());
        let table = table.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n");
        eprintln!("{table}");
        crate::figures::keep("scan.txt", &table);
        assert!(wrong.is_empty(), "{}\n", wrong.join("\n"));
    }
}
