//! What is set up to try the rules, and what is sent: devices by the names of the host's own, for rules name them, and packets from and to the addresses
//! that the real ones have; pure.
//!
//! A VRF is played by a device of its name: what is forwarded in one has the VRF as the device it came in by, and the bridge as the one it leaves by
//! (drivers/net/vrf.c `vrf_ip_rcv`, net/ipv4/ip_forward.c), and rules know devices by their names.

use super::frames::{Kind, Mac, frame, vxlan};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A firewall that lets any of them through is one that means to choose. No ping among them: ufw and firewalld let those through when they are closed.
const TRIED: [Kind; 3] = [Kind::Tcp(22), Kind::Tcp(443), Kind::Udp(4000)];

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// VXLAN from, or to, the other VTEPs, where this host's end is there.
    Tunnel { own: SocketAddr, out: bool },
    /// Frames between ports of this network's bridge.
    Bridged { network: String, bridge: String, v6: bool },
    /// What a VRF forwards to this bridge.
    Routed { network: String, vrf: String, out: String, v6: bool },
    /// Guests' requests to the DHCP server of this host. They come in by this device: the bridge, or the VRF that it is in.
    Dhcp { network: String, device: String, v6: bool },
}

impl What {
    pub fn is_v6(&self) -> bool {
        match self {
            What::Tunnel { own, .. } => own.is_ipv6(),
            What::Bridged { v6, .. } | What::Routed { v6, .. } | What::Dhcp { v6, .. } => *v6,
        }
    }
}

/// Where a packet starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Into the device of this number.
    Far(usize),
    /// At this host: the shot is the datagram's payload.
    Socket { from: IpAddr, to: SocketAddr },
}

/// Where it is to arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Out of the device of this number.
    Far(usize),
    /// At this host.
    Socket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// Whose it is, for people: `10.0.0.2`, another VTEP; `tap0`, a guest's port; `10.1.0.60`, a guest. It is lost where none of its packets arrives.
    pub said: String,
    pub from: From,
    pub to: To,
    pub frame: Vec<u8>,
    pub id: u32,
}

/// One question, and the packets that answer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub what: What,
    pub shots: Vec<Shot>,
    /// Those whom they are from or to are there indeed.
    pub known: bool,
}

#[derive(Debug, Default)]
pub struct Stage {
    /// Lines for `ip -batch`.
    pub script: String,
    /// Each is a veth whose other end is [`Stage::far`].
    pub devices: Vec<String>,
    /// Below /proc/sys, before there is a device.
    pub first: Vec<(String, String)>,
    /// Below /proc/sys, afterwards.
    pub then: Vec<(String, String)>,
    /// Where this host hears VXLAN, and DHCP.
    pub listen: Vec<SocketAddr>,
    /// Devices by which it hears what is for all DHCPv6 servers.
    pub groups: Vec<String>,
    pub cases: Vec<Case>,
    /// The bridges of the host, with their ports.
    pub bridges: BTreeMap<String, Vec<String>>,
    made: HashMap<String, Option<usize>>,
    shots: u32,
}

/// A device by which other VTEPs' packets come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    pub name: String,
    /// Where it is a bridge: the port by which they come.
    pub port: Option<String>,
    pub addresses: Vec<IpNet>,
}

/// This host's end of its tunnels, and the other ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnels {
    pub own: IpAddr,
    pub port: u16,
    /// Those that are asked about, each by the device that the route to it leaves by.
    pub peers: Vec<(IpAddr, Uplink)>,
    /// All of them.
    pub all: Vec<IpAddr>,
    /// They are other VTEPs indeed.
    pub known: bool,
}

impl Tunnels {
    pub fn end(&self) -> SocketAddr {
        (self.own, self.port).into()
    }
}

/// A guest's port and, of the same guest, its MAC and its address, for a rule may want them together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    pub device: String,
    /// As far as it is known.
    pub mac: Option<Mac>,
    pub ip: IpAddr,
    /// An address of the same subnet that no guest of this host has.
    pub other: IpAddr,
}

pub fn near_mac(n: usize) -> Mac {
    [2, 0, 0, 1, (n >> 8) as u8, n as u8]
}

/// Of whoever is behind the other end; of no device.
pub fn far_mac(n: usize) -> Mac {
    [2, 0, 0, 2, (n >> 8) as u8, n as u8]
}

fn shown(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Stage {
    /// A stage for a host with these settings of br_netfilter.
    pub fn new(settings: Vec<(String, String)>) -> Stage {
        let off = |path: &str| (format!("net/ipv4/conf/{path}/rp_filter"), "0".to_owned());
        let mut then = settings;
        then.push(("net/ipv4/ip_forward".into(), "1".into()));
        then.push(("net/ipv6/conf/all/forwarding".into(), "1".into()));
        // Where packets of a VRF would come from no table here knows.
        let first = vec![off("all"), off("default")];
        Stage { script: "link set lo up\n".into(), first, then, ..Stage::default() }
    }

    /// The other end of a device.
    pub fn far(n: usize) -> String {
        format!("evpn-probe{n}")
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.script, "{line}");
    }

    fn device(&mut self, name: &str) -> usize {
        if let Some(Some(n)) = self.made.get(name) {
            return *n;
        }
        let (n, far) = (self.devices.len(), Stage::far(self.devices.len()));
        // The other end has another MAC than packets are sent to: its IP, which is this namespace's as well, takes none of them, and sends none round.
        self.line(format_args!("link add dev {name} address {} type veth peer name {far}", shown(near_mac(n))));
        self.line(format_args!("link set {name} up\nlink set {far} up"));
        self.devices.push(name.to_owned());
        self.made.insert(name.to_owned(), Some(n));
        n
    }

    /// It has its first port's MAC, so that a frame to either is for this host.
    fn bridge(&mut self, name: &str, ports: &[&str]) -> Vec<usize> {
        let fresh = self.made.insert(name.to_owned(), None).is_none();
        if fresh {
            self.line(format_args!("link add dev {name} type bridge\nlink set {name} up"));
        }
        let numbers: Vec<usize> = ports.iter().map(|port| self.device(port)).collect();
        for (port, number) in ports.iter().zip(&numbers) {
            self.line(format_args!("link set {port} master {name}"));
            if fresh && number == &numbers[0] {
                self.line(format_args!("link set {name} address {}", shown(near_mac(*number))));
            }
        }
        numbers
    }

    /// A device that rules name and packets do not meet: nft asks for it by its index.
    pub fn bystander(&mut self, name: &str) {
        if name != "lo" && !self.made.contains_key(name) {
            self.made.insert(name.to_owned(), None);
            self.line(format_args!("link add dev {name} type bridge"));
        }
    }

    fn shot(&mut self, said: impl Into<String>, from: From, to: To, make: impl FnOnce(u32) -> Vec<u8>) -> Shot {
        self.shots += 1;
        Shot { said: said.into(), from, to, frame: make(self.shots), id: self.shots }
    }

    /// VXLAN, both ways.
    pub fn tunnels(&mut self, tunnels: &Tunnels) {
        let (own, v6) = (tunnels.own, tunnels.own.is_ipv6());
        let length = if v6 { 128 } else { 32 };
        let nodad = if v6 { " nodad" } else { "" };
        self.line(format_args!("address add {own}/{length} dev lo{nodad}"));
        self.listen.push((own, tunnels.port).into());
        let (mut inward, mut outward) = (Vec::new(), Vec::new());
        for (peer, uplink) in &tunnels.peers {
            let n = match &uplink.port {
                Some(port) => self.bridge(&uplink.name, &[port])[0],
                None => self.device(&uplink.name),
            };
            let dev = &uplink.name;
            for address in uplink.addresses.iter().filter(|address| address.addr().is_ipv6() == v6) {
                self.line(format_args!("address add {address} dev {dev}{nodad}"));
            }
            self.line(format_args!("route append {peer}/{length} dev {dev}"));
            self.line(format_args!("neigh replace {peer} lladdr {} dev {dev} nud permanent", shown(far_mac(n))));
            let (said, macs) = (peer.to_string(), (near_mac(n), far_mac(n)));
            let kind = Kind::Vxlan(tunnels.port);
            let arrives = self.shot(said.clone(), From::Far(n), To::Socket, |id| frame(macs, (*peer, own), kind, id));
            inward.push(arrives);
            let from = From::Socket { from: own, to: (*peer, tunnels.port).into() };
            outward.push(self.shot(said, from, To::Far(n), vxlan));
        }
        for (shots, out) in [(inward, false), (outward, true)] {
            self.cases.push(Case { what: What::Tunnel { own: tunnels.end(), out }, shots, known: tunnels.known });
        }
    }

    /// Frames between each of these guests of one bridge, and of one family, and its VXLAN port, both ways.
    pub fn bridged(&mut self, network: &str, bridge: &str, vxlan: &str, guests: &[Guest]) {
        let ports: Vec<&str> = guests.iter().map(|guest| guest.device.as_str()).chain([vxlan]).collect();
        let numbers = self.bridge(bridge, &ports);
        let tunnel = numbers[guests.len()];
        let mut shots = Vec::new();
        for (guest, n) in guests.iter().zip(numbers) {
            let (mac, ips) = (guest.mac.unwrap_or(far_mac(n)), (guest.ip, guest.other));
            for kind in TRIED {
                let out = (far_mac(tunnel), mac);
                let back = (mac, far_mac(tunnel));
                let (from, to) = (From::Far(n), To::Far(tunnel));
                shots.push(self.shot(&guest.device, from, to, |id| frame(out, ips, kind, id)));
                let (from, to) = (From::Far(tunnel), To::Far(n));
                shots.push(self.shot(&guest.device, from, to, |id| frame(back, (ips.1, ips.0), kind, id)));
            }
        }
        let v6 = guests.iter().any(|guest| guest.ip.is_ipv6());
        let what = What::Bridged { network: network.into(), bridge: bridge.into(), v6 };
        self.cases.push(Case { what, shots, known: true });
    }

    /// What a VRF forwards to a bridge, out of this port of it (none: it has no port here, and is a device itself): for each guest from the first of these addresses
    /// to the second.
    pub fn routed(
        &mut self,
        network: &str,
        vrf: &str,
        (out, port): (&str, Option<&str>),
        ips: &[(&Guest, IpAddr, IpAddr)],
    ) {
        let from = self.device(vrf);
        let to = match port {
            Some(port) => self.bridge(out, &[port])[0],
            None => self.device(out),
        };
        let macs = (near_mac(from), far_mac(from));
        let (mut shots, mut v6) = (Vec::new(), false);
        for (guest, source, target) in ips {
            v6 = target.is_ipv6();
            self.line(format_args!("route replace {target} dev {out}"));
            self.line(format_args!("neigh replace {target} lladdr {} dev {out} nud permanent", shown(far_mac(to))));
            for kind in TRIED {
                let make = |id| frame(macs, (*source, *target), kind, id);
                shots.push(self.shot(guest.ip.to_string(), From::Far(from), To::Far(to), make));
            }
        }
        let what = What::Routed { network: network.into(), vrf: vrf.into(), out: out.into(), v6 };
        self.cases.push(Case { what, shots, known: true });
    }

    /// Guests' requests for an address: from each of these ports of a bridge that has these addresses, or by the VRF that it is in.
    pub fn dhcp(
        &mut self,
        network: &str,
        (bridge, addresses): (&str, &[IpNet]),
        vrf: Option<&str>,
        guests: &[Guest],
        v6: bool,
    ) {
        let (server, client) = DHCP[usize::from(v6)];
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let listen = (any, server).into();
        if !self.listen.contains(&listen) {
            self.listen.push(listen);
        }
        let ports: Vec<&str> = guests.iter().map(|guest| guest.device.as_str()).collect();
        let entries = match vrf {
            Some(vrf) => vec![self.device(vrf); guests.len()],
            None => {
                let numbers = self.bridge(bridge, &ports);
                // And no other link-local one: rules ask for the way back.
                self.line(format_args!("link set {bridge} addrgenmode none\naddress flush dev {bridge}"));
                for address in addresses {
                    let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
                    self.line(format_args!("address add {address} dev {bridge}{nodad}"));
                }
                numbers
            }
        };
        let device = vrf.unwrap_or(bridge);
        self.groups.extend(v6.then(|| device.to_owned()));
        let mut shots = Vec::new();
        for (guest, n) in guests.iter().zip(entries) {
            let mac = guest.mac.unwrap_or(far_mac(n));
            let (to, ips): (Mac, (IpAddr, IpAddr)) = if v6 {
                let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n as u16 + 2);
                (SERVERS_MAC, (own.into(), SERVERS.into()))
            } else {
                ([0xff; 6], (any, Ipv4Addr::BROADCAST.into()))
            };
            let make = |id| frame((to, mac), ips, Kind::Dhcp { client, server }, id);
            shots.push(self.shot(&guest.device, From::Far(n), To::Socket, make));
        }
        let what = What::Dhcp { network: network.into(), device: device.into(), v6 };
        self.cases.push(Case { what, shots, known: true });
    }
}

/// Where DHCP servers are asked, by clients at which port: IPv4's, and IPv6's (RFC 2131 §4.1, RFC 8415 §7).
pub const DHCP: [(u16, u16); 2] = [(67, 68), (547, 546)];
/// All_DHCP_Relay_Agents_and_Servers, and whom its frames are to (RFC 8415 §7.1, RFC 2464 §7).
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const SERVERS_MAC: Mac = [0x33, 0x33, 0, 1, 0, 2];

impl Case {
    /// The packets of those of whose packets none arrived.
    pub fn lost(&self, arrived: &BTreeSet<u32>) -> Vec<&Shot> {
        let came: BTreeSet<&str> =
            self.shots.iter().filter(|shot| arrived.contains(&shot.id)).map(|shot| shot.said.as_str()).collect();
        self.shots.iter().filter(|shot| !came.contains(shot.said.as_str())).collect()
    }

    /// How many they are whose packets are sent.
    pub fn of(&self) -> usize {
        self.shots.iter().map(|shot| shot.said.as_str()).collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_made_once_and_each_packet_counts_once() {
        let mut stage = Stage::new(Vec::new());
        let uplink = Uplink { name: "eth0".into(), port: None, addresses: vec!["192.0.2.1/24".parse().unwrap()] };
        let peers = ["192.0.2.2", "192.0.2.3"].map(|peer| (peer.parse().unwrap(), uplink.clone())).to_vec();
        let all = peers.iter().map(|(peer, _)| *peer).collect();
        stage.tunnels(&Tunnels { own: "10.0.0.1".parse().unwrap(), port: 4789, peers, all, known: true });
        let guest = |device: &str, ip: &str| {
            let mac = Some([0x52, 0x54, 0, 0, 0, 1]);
            Guest { device: device.into(), mac, ip: ip.parse().unwrap(), other: "10.1.0.3".parse().unwrap() }
        };
        let guests = [guest("tap0", "10.1.0.2"), guest("tap1", "10.1.0.4")];
        stage.bridged("red", "red-l2", "vxlan20", &guests);
        stage.routed("red", "red", ("red-l2", Some("vxlan20")), &[(&guests[0], guests[0].other, guests[0].ip)]);
        stage.bystander("eth0");
        stage.bystander("docker0");
        assert_eq!(stage.devices, ["eth0", "tap0", "tap1", "vxlan20", "red"]);
        assert_eq!(stage.script.matches("link add dev eth0 ").count(), 1);
        assert_eq!(stage.script.matches("link add dev red-l2 type bridge").count(), 1);
        assert!(stage.script.contains("link add dev docker0 type bridge"), "{}", stage.script);
        let mut ids: Vec<u32> = stage.cases.iter().flat_map(|case| &case.shots).map(|shot| shot.id).collect();
        assert_eq!(ids.len(), 2 + 2 + 12 + 3);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids, (1..=19).collect::<Vec<_>>());
        let (tunnel, bridged) = (&stage.cases[0], &stage.cases[2]);
        assert_eq!(tunnel.lost(&[1].into()).len(), 1, "each VTEP counts");
        assert_eq!(bridged.lost(&[5, 11].into()).len(), 0, "a firewall that chooses is none that drops");
        assert_eq!((bridged.of(), bridged.lost(&[].into()).len()), (2, 12));
        let lost: Vec<&str> = bridged.lost(&[5].into()).into_iter().map(|shot| shot.said.as_str()).collect();
        assert_eq!(lost, ["tap1"; 6], "one guest's filter is not its network's");
    }
}
