//! Does the host's firewall drop what the fabric needs: VXLAN from and to the other VTEPs, what a VRF forwards, guests' requests to the host's own DHCP server,
//! and, where br_netfilter shows them to it, frames between the ports of a bridge?
//!
//! Asked of the kernel, with packets: a copy of the rules is put into a network namespace of its own ([`sandbox`]), with devices by the names of the host's
//! own ([`stage`]), and packets like the real ones are sent there ([`frames`]), first without the rules, then with them. What is lost only with them the
//! rules drop. A mend ([`mend`]) is tried in the same place before it is told. What came of it is in [`tried`], and what is made of that in [`told`].
//! What such a copy does not show: tc, XDP, what a program decides that a rule hands packets to, what only a real VRF has, whose socket a packet is from, and
//! firewalls on the way.

mod frames;
mod least;
mod mend;
mod ruleset;
mod sandbox;
mod stage;
mod told;
mod tried;

pub use told::check;

use super::HostFacts;
use super::bridges::ranges;
use crate::engine::{Engine, EngineError};
use crate::kernel::sysctl;
use crate::plan::seen::{Link, LinkKind};
use crate::plan::underlay::Carriers;
use crate::register::{Endpoint, NetworkRecord};
use ipnet::IpNet;
use mend::Kept;
use ruleset::Ruleset;
use stage::{Guest, Stage, Tunnels, Uplink};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tried::Tried;

/// So many VTEPs are asked about.
const PEERS: usize = 32;
/// So many networks.
const NETWORKS: usize = 32;
/// So many guests of each.
const GUESTS: usize = 4;
/// For all of it.
const PATIENCE: Duration = Duration::from_secs(2);

const BRIDGE_NF: [&str; 3] = [
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-arptables",
];

pub struct FirewallFacts {
    /// Of [`BRIDGE_NF`] those that are on.
    bridge_nf: Vec<&'static str>,
    /// Why there may be rules that were not tried, nothing where all were.
    untold: Vec<String>,
    /// Why those that are known could not be tried.
    tried: Result<Tried, String>,
}

pub fn observe(
    engine: &mut Engine,
    host: &HostFacts,
    peers: &BTreeSet<IpAddr>,
    carriers: &Carriers,
) -> Result<FirewallFacts, EngineError> {
    let mut bridge_nf = Vec::new();
    for path in BRIDGE_NF {
        if sysctl(path)?.is_some_and(|value| value != "0") {
            bridge_nf.push(path);
        }
    }
    let mut seen = FirewallFacts { bridge_nf, untold: Vec::new(), tried: Ok(Tried::default()) };
    if host.networks.is_empty() {
        return Ok(seen);
    }
    let until = Instant::now() + PATIENCE;
    let rules = ruleset::observe(until);
    seen.untold.clone_from(&rules.untold);
    if rules.is_empty() {
        return Ok(seen);
    }
    let tunnels = tunnels(engine, host, peers, carriers)?;
    let stage = set(host, &tunnels, &seen.bridge_nf, &rules);
    seen.tried = sandbox::inside(|| tried::attempt(&stage, &tunnels, &rules, &kept(), until));
    Ok(seen)
}

/// Where the tunnels of this host end, with the other ends as far as they are known.
fn tunnels(
    engine: &mut Engine,
    host: &HostFacts,
    peers: &BTreeSet<IpAddr>,
    carriers: &Carriers,
) -> Result<Vec<Tunnels>, EngineError> {
    let mut peers = peers.clone();
    if peers.is_empty() {
        // Without a speaker that tells, those that entries lead to.
        peers = engine.kernel()?.remotes()?.into_iter().map(|remote| remote.vtep).collect();
        peers.retain(|peer| !peer.is_unspecified() && !peer.is_multicast());
    }
    let ends: BTreeSet<(IpAddr, u16)> = host
        .networks
        .iter()
        .filter_map(|record| Some((record.vtep?, record.port.unwrap_or(host.config.vtep.port))))
        .collect();
    let uplink = |link: &Link| Uplink {
        name: link.name.to_string(),
        port: matches!(link.kind, LinkKind::Bridge { .. }).then(|| {
            host.world.slaves(link.index).next().map_or(format!("evpn-up{}", link.index), |port| port.name.to_string())
        }),
        addresses: host.world.addresses(link.index).map(|address| address.net).collect(),
    };
    let mut found = Vec::new();
    for (own, port) in ends {
        let mut all: Vec<IpAddr> = peers.iter().copied().filter(|peer| peer.is_ipv4() == own.is_ipv4()).collect();
        let mut others = Vec::new();
        for peer in sample(&all) {
            let route = engine.kernel()?.route_to(peer, None)?.filter(|route| !route.local);
            let link = route.and_then(|route| host.world.by_index(route.device));
            others.extend(link.map(|link| (peer, uplink(link))));
        }
        let known = !others.is_empty();
        if !known {
            others.extend(carriers.devices.iter().map(|link| (next(own), uplink(link))));
            all = vec![next(own)];
        }
        found.push(Tunnels { own, port, peers: others, all, known });
    }
    Ok(found)
}

/// Of these, in their order, as many as are asked about: all, or the lowest, the highest, and the others from as many subnets as there are.
fn sample(all: &[IpAddr]) -> Vec<IpAddr> {
    let [lowest, .., highest] = all else { return all.to_vec() };
    if all.len() <= PEERS {
        return all.to_vec();
    }
    let subnet = |ip: &IpAddr| IpNet::new(*ip, if ip.is_ipv4() { 24 } else { 64 }).map(|net| net.trunc()).ok();
    let mut firsts = all.to_vec();
    firsts.dedup_by_key(|ip| subnet(ip));
    let mut found = BTreeSet::from([*lowest, *highest]);
    for ip in spread(&firsts, PEERS - 2).chain(spread(all, PEERS)).chain(all.iter()) {
        if found.len() < PEERS {
            found.insert(*ip);
        }
    }
    found.into_iter().collect()
}

/// So many of them, from everywhere among them.
fn spread<T>(all: &[T], n: usize) -> impl Iterator<Item = &T> {
    let n = n.min(all.len());
    (0..n).map(move |i| &all[i * all.len() / n])
}

/// The address beside this one: whom a VTEP may be expected at.
fn next(own: IpAddr) -> IpAddr {
    match own {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) ^ 3).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) ^ 3).into()),
    }
}

/// What is asked of this host's rules.
fn set(host: &HostFacts, tunnels: &[Tunnels], bridge_nf: &[&str], rules: &Ruleset) -> Stage {
    let settings = BRIDGE_NF.map(|path| (path.to_owned(), u8::from(bridge_nf.contains(&path)).to_string()));
    let mut stage = Stage::new(settings.to_vec());
    for tunnels in tunnels.iter().filter(|tunnels| !tunnels.peers.is_empty()) {
        stage.tunnels(tunnels);
    }
    for (n, record) in host.networks.iter().enumerate().take(NETWORKS) {
        let network = &record.network;
        let (name, bridge) = (network.name.to_string(), network.bridge.to_string());
        let vxlan = network.vni.device().to_string();
        let ranges = ranges(&network.name);
        for v6 in [false, true] {
            let guests = guests(host, n, record, v6);
            if guests.is_empty() {
                continue;
            }
            if ranges.iter().any(|range| range.contains(':') == v6) {
                let vrf = network.vrf.as_ref().map(|vrf| vrf.name.as_str());
                let index = host.world.link(&network.bridge).map(|link| link.index);
                let addresses = index.into_iter().flat_map(|index| host.world.addresses(index));
                let addresses: Vec<IpNet> = addresses.map(|address| address.net).collect();
                stage.dhcp(&name, (&bridge, &addresses), vrf, &guests, v6);
            }
            if bridge_nf.contains(&BRIDGE_NF[usize::from(v6)]) {
                stage.bridged(&name, &bridge, &vxlan, &guests);
            }
            let is_routed = network.gateway.iter().any(|net| net.addr().is_ipv6() == v6);
            let Some(vrf) = network.vrf.as_ref().filter(|_| is_routed) else { continue };
            let inward: Vec<_> = guests.iter().map(|guest| (guest, guest.other, guest.ip)).collect();
            stage.routed(&name, vrf.name.as_str(), (&bridge, Some(&vxlan)), &inward);
            if let Some(l3) = vrf.l3_bridge().ok().flatten() {
                let outward: Vec<_> = guests.iter().map(|guest| (guest, guest.ip, guest.other)).collect();
                stage.routed(&name, vrf.name.as_str(), (l3.as_str(), None), &outward);
            }
        }
    }
    let is_bridge = |link: &&Link| matches!(link.kind, LinkKind::Bridge { .. });
    for link in host.world.links().filter(is_bridge) {
        let ports = host.world.slaves(link.index).map(|port| port.name.to_string());
        stage.bridges.insert(link.name.to_string(), ports.collect());
    }
    let words = rules.words();
    for link in host.world.links().filter(|link| words.contains(link.name.as_str())) {
        stage.bystander(link.name.as_str());
    }
    stage
}

/// Guests of a network to ask for: of those that have an address of this family; where none is known to, each with one of the network's subnet. Where there is no
/// guest, one by a name that nobody has.
fn guests(host: &HostFacts, n: usize, record: &NetworkRecord, v6: bool) -> Vec<Guest> {
    let network = &record.network;
    let all = || host.guests.iter().flat_map(|guest| &guest.endpoints);
    let ours: Vec<&Endpoint> = all().filter(|endpoint| endpoint.network == network.name).collect();
    let gateway = network.gateway.iter().find(|net| net.addr().is_ipv6() == v6).copied();
    let of = |endpoint: &Endpoint| endpoint.ips.iter().map(|address| address.ip).find(|ip| ip.is_ipv6() == v6);
    let holders: Vec<(&Endpoint, IpAddr)> =
        ours.iter().filter_map(|endpoint| Some((*endpoint, of(endpoint)?))).collect();
    let held: BTreeSet<IpAddr> = ours.iter().flat_map(|endpoint| &endpoint.ips).map(|address| address.ip).collect();
    let guest = |endpoint: &Endpoint, ip: Option<IpAddr>| {
        let (ip, other) = addresses(gateway, ip, &held, v6, network.gateway.is_empty())?;
        let mac = endpoint.mac.map(crate::model::Mac::octets);
        Some(Guest { device: endpoint.device.to_string(), mac, ip, other })
    };
    if !holders.is_empty() {
        return spread(&holders, GUESTS).filter_map(|(endpoint, ip)| guest(endpoint, Some(*ip))).collect();
    }
    if !ours.is_empty() {
        return spread(&ours, GUESTS).filter_map(|endpoint| guest(endpoint, None)).collect();
    }
    let is_taken = |name: &String| {
        host.world.links().any(|link| link.name.as_str() == name) || all().any(|e| e.device.as_str() == name)
    };
    let name = (n..).step_by(NETWORKS).map(|n| format!("evpn-guest{n}")).find(|name| !is_taken(name));
    let ips = addresses(gateway, None, &held, v6, network.gateway.is_empty());
    let nobody = name.zip(ips).map(|(device, (ip, other))| Guest { device, mac: None, ip, other });
    nobody.into_iter().collect()
}

/// Two of a network's addresses: a guest's, or one of its subnet, and one beside it that nobody has; where nobody says which it has, of RFC 5737 and RFC 3849.
fn addresses(
    gateway: Option<IpNet>,
    own: Option<IpAddr>,
    held: &BTreeSet<IpAddr>,
    v6: bool,
    untold: bool,
) -> Option<(IpAddr, IpAddr)> {
    let is_free = |ip: &IpAddr| {
        let of_net = |net: IpNet| [net.addr(), net.network(), net.broadcast()].contains(ip);
        !gateway.is_some_and(of_net) && !held.contains(ip)
    };
    let free = |ip: IpAddr| (1..=u8::MAX).map(|n| beside(ip, n)).find(is_free);
    let one = own.or_else(|| free(gateway?.addr()));
    let examples = if v6 { "2001:db8::2" } else { "192.0.2.2" };
    let one = one.or_else(|| untold.then(|| examples.parse().ok()).flatten())?;
    Some((one, free(one)?))
}

fn beside(ip: IpAddr, n: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) ^ u32::from(n)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) ^ u128::from(n)).into()),
    }
}

fn kept() -> Kept {
    let read = |path: &'static str| {
        let text = std::fs::read(path).ok()?;
        Some((path, String::from_utf8_lossy(&text).into_owned()))
    };
    Kept(mend::KEPT.into_iter().flatten().filter_map(read).collect())
}

#[cfg(test)]
mod tests;
