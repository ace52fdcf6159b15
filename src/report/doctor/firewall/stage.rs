//! What is set up to try the rules, and what is sent: devices by the names of the host's own, for rules name them, and packets from and to the addresses
//! that the real ones have; pure.
//!
//! A VRF is played by a device of its name: what is forwarded in one has the VRF as the device it came in by, and the bridge as the one it leaves by
//! (drivers/net/vrf.c `vrf_ip_rcv`, net/ipv4/ip_forward.c), and rules know devices by their names.

use super::frames::{Kind, Mac, frame, vxlan};
use ipnet::IpNet;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// A firewall that lets any of them through is one that means to choose. No ping among them: ufw and firewalld let those through when they are closed.
const TRIED: [Kind; 3] = [Kind::Tcp(22), Kind::Tcp(443), Kind::Udp(4000)];

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// VXLAN from, or to, the other VTEPs.
    Tunnel { v6: bool, out: bool },
    /// Frames between ports of this network's bridge.
    Bridged { network: String, bridge: String, v6: bool },
    /// What a VRF forwards to this bridge.
    Routed { network: String, vrf: String, out: String, v6: bool },
}

impl What {
    pub fn is_v6(&self) -> bool {
        match self {
            What::Tunnel { v6, .. } | What::Bridged { v6, .. } | What::Routed { v6, .. } => *v6,
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
    /// `10.0.0.2`, for people.
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
    /// Each packet counts; otherwise only that none arrives.
    pub each: bool,
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
    /// Where this host hears VXLAN.
    pub listen: Vec<SocketAddr>,
    pub cases: Vec<Case>,
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
    /// Each by the device that the route to it leaves by.
    pub peers: Vec<(IpAddr, Uplink)>,
    /// They are other VTEPs indeed.
    pub known: bool,
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
            self.cases.push(Case { what: What::Tunnel { v6, out }, shots, each: tunnels.known });
        }
    }

    /// Frames between these two ports of a bridge, both ways.
    pub fn bridged(&mut self, network: &str, bridge: &str, ports: [&str; 2], ips: (IpAddr, IpAddr)) {
        let n = self.bridge(bridge, &ports);
        let mut shots = Vec::new();
        for (from, to, ips) in [(n[0], n[1], ips), (n[1], n[0], (ips.1, ips.0))] {
            let macs = (far_mac(to), far_mac(from));
            for kind in TRIED {
                shots.push(self.shot("", From::Far(from), To::Far(to), |id| frame(macs, ips, kind, id)));
            }
        }
        let what = What::Bridged { network: network.into(), bridge: bridge.into(), v6: ips.0.is_ipv6() };
        self.cases.push(Case { what, shots, each: false });
    }

    /// What a VRF forwards to a bridge, out of this port of it (none: it has no port here, and is a device itself).
    pub fn routed(&mut self, network: &str, vrf: &str, (out, port): (&str, Option<&str>), ips: (IpAddr, IpAddr)) {
        let from = self.device(vrf);
        let to = match port {
            Some(port) => self.bridge(out, &[port])[0],
            None => self.device(out),
        };
        let (v6, target) = (ips.1.is_ipv6(), ips.1);
        self.line(format_args!("route replace {target} dev {out}"));
        self.line(format_args!("neigh replace {target} lladdr {} dev {out} nud permanent", shown(far_mac(to))));
        let macs = (near_mac(from), far_mac(from));
        let shots =
            TRIED.map(|kind| self.shot("", From::Far(from), To::Far(to), |id| frame(macs, ips, kind, id))).to_vec();
        let what = What::Routed { network: network.into(), vrf: vrf.into(), out: out.into(), v6 };
        self.cases.push(Case { what, shots, each: false });
    }
}

impl Case {
    /// Of what was sent, what did not arrive, where that says something.
    pub fn lost(&self, arrived: &std::collections::BTreeSet<u32>) -> Vec<&Shot> {
        let lost: Vec<&Shot> = self.shots.iter().filter(|shot| !arrived.contains(&shot.id)).collect();
        if self.each || lost.len() == self.shots.len() { lost } else { Vec::new() }
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
        stage.tunnels(&Tunnels { own: "10.0.0.1".parse().unwrap(), port: 4789, peers, known: true });
        let ips = ("10.1.0.2".parse().unwrap(), "10.1.0.3".parse().unwrap());
        stage.bridged("red", "red-l2", ["tap0", "vxlan20"], ips);
        stage.routed("red", "red", ("red-l2", Some("vxlan20")), ips);
        stage.bystander("eth0");
        stage.bystander("docker0");
        assert_eq!(stage.devices, ["eth0", "tap0", "vxlan20", "red"]);
        assert_eq!(stage.script.matches("link add dev eth0 ").count(), 1);
        assert_eq!(stage.script.matches("link add dev red-l2 type bridge").count(), 1);
        assert!(stage.script.contains("link add dev docker0 type bridge"), "{}", stage.script);
        let mut ids: Vec<u32> = stage.cases.iter().flat_map(|case| &case.shots).map(|shot| shot.id).collect();
        assert_eq!(ids.len(), 2 + 2 + 6 + 3);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids, (1..=13).collect::<Vec<_>>());
        let (tunnel, bridged) = (&stage.cases[0], &stage.cases[2]);
        assert_eq!(tunnel.lost(&[1].into()).len(), 1, "each VTEP counts");
        assert_eq!(bridged.lost(&[5].into()).len(), 0, "a firewall that chooses is none that drops");
        assert_eq!(bridged.lost(&[].into()).len(), 6);
    }
}
