//! The way between VTEPs: this host's tunnel end, and whether the tenants' packets fit through, tried with packets that may not be cut.

use super::{Facts, Finding, HostFacts, Verdict, cure};
use crate::config::{Config, VtepSource};
use crate::engine::{Engine, EngineError, TunnelEnd, tunnel_end_and_carriers};
use crate::exec;
use crate::model::IfName;
use crate::plan::seen::World;
use crate::plan::underlay::{Carriers, overhead};
use crate::register::NetworkRecord;
use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

/// IP and ICMP headers, in bytes: what ping adds to its size.
fn ping_header(vtep: IpAddr) -> u32 {
    if vtep.is_ipv4() { 28 } else { 48 }
}

/// So many VTEPs are tried, all at once.
const PEERS: usize = 32;
/// What a small packet carries, in bytes.
const SMALL: u32 = 8;
/// For all of it: who asked for the report waits.
const PATIENCE: Duration = Duration::from_millis(800);
/// A packet more in each of these, until one comes back: the first may be what makes a neighbour be looked for.
const AGAIN: &str = "0.2";

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A packet of the full size came back.
    Whole,
    /// Only a small one did; with the MTU that a router on the way told, if one did.
    Cut(Option<u32>),
    /// Not even a small one.
    Silent,
    /// Why it could not be tried.
    Untried(String),
}

pub struct UnderlayFacts {
    /// This host's tunnel end.
    end: TunnelEnd,
    /// The devices that tunnels leave by.
    carriers: Carriers,
    /// The other VTEPs, with the MTU that this host's own route to each has (no device, no VTEP, no route: none).
    peers: Vec<(IpAddr, Option<u32>)>,
    probes: Vec<(IpAddr, Answer)>,
}

impl UnderlayFacts {
    /// The devices that tunnels leave by.
    pub fn carriers(&self) -> &Carriers {
        &self.carriers
    }
}

pub fn observe(engine: &mut Engine, host: &HostFacts, peers: &BTreeSet<IpAddr>) -> Result<UnderlayFacts, EngineError> {
    let (end, carriers) = tunnel_end_and_carriers(engine)?;
    let Some(own) = own_vtep(host, &end) else {
        return Ok(UnderlayFacts { end, carriers, peers: Vec::new(), probes: Vec::new() });
    };
    let peers: Vec<_> =
        peers.iter().filter(|p| p.is_ipv4() == own.is_ipv4()).map(|p| (*p, route_mtu(own, *p))).collect();
    let need = largest(host).map(|mtu| mtu + overhead(Some(own)));
    // What this host itself cuts needs no probe to be known.
    let fits = |mtu: Option<u32>| need.is_some_and(|need| mtu.is_none_or(|mtu| mtu >= need));
    let probed: Vec<IpAddr> = peers.iter().filter(|(_, mtu)| fits(*mtu)).map(|(peer, _)| *peer).take(PEERS).collect();
    let probes = probes(&probed, need.unwrap_or(0), |peer, payload| ping(own, peer, payload));
    Ok(UnderlayFacts { end, carriers, peers, probes })
}

/// Was there an answer, and what did ping say?
type Echo = Result<(bool, String), String>;

/// A packet of this size (IP header and all) there and back, and beside it a small one: all at the same time, for one that is lost is known by its absence.
fn probes(peers: &[IpAddr], size: u32, ping: impl Fn(IpAddr, u32) -> Echo + Sync) -> Vec<(IpAddr, Answer)> {
    let ping = &ping;
    std::thread::scope(|scope| {
        let of = |peer: IpAddr| {
            let payloads = [size.saturating_sub(ping_header(peer)), SMALL];
            (peer, payloads.map(|payload| scope.spawn(move || ping(peer, payload))))
        };
        let threads: Vec<_> = peers.iter().map(|peer| of(*peer)).collect();
        let answer = |thread: std::thread::ScopedJoinHandle<'_, Echo>| {
            thread.join().unwrap_or_else(|_| Err("the probe's thread died".into()))
        };
        threads.into_iter().map(|(peer, [large, small])| (peer, verdict(answer(large), answer(small)))).collect()
    })
}

fn verdict(large: Echo, small: Echo) -> Answer {
    match (large, small) {
        (Ok((true, _)), _) => Answer::Whole,
        (Err(why), _) | (_, Err(why)) => Answer::Untried(why),
        (Ok((false, words)), Ok((true, _))) => Answer::Cut(told_mtu(&words)),
        (Ok((false, _)), Ok((false, _))) => Answer::Silent,
    }
}

/// Where the tunnels end that are up; else where they would.
fn own_vtep(host: &HostFacts, end: &TunnelEnd) -> Option<IpAddr> {
    host.networks.iter().find_map(|record| record.vtep).or(end.known())
}

/// The largest packet of any tenant, in bytes.
fn largest(host: &HostFacts) -> Option<u32> {
    host.networks.iter().filter_map(|record| record.network.mtu).max()
}

/// The MTU of the route to a VTEP, as the kernel would use it: connect(2) of a UDP socket looks it up and sends nothing.
fn route_mtu(own: IpAddr, peer: IpAddr) -> Option<u32> {
    let socket = UdpSocket::bind((own, 0)).ok()?;
    socket.connect((peer, 9)).ok()?;
    let mtu = match peer {
        IpAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket),
        IpAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket),
    };
    mtu.ok()
}

/// Of iputils: not to be cut (`-M do`), until one comes back or an error (`-c 1` with `-w`, of ping(8)). With `-q` it would not say what a router told.
fn ping(own: IpAddr, peer: IpAddr, payload: u32) -> Echo {
    let mut command = Command::new("ping");
    command.args(["-n", "-c", "1", "-w", "1", "-i", AGAIN, "-M", "do", "-I"]).arg(own.to_string());
    command.arg("-s").arg(payload.to_string()).arg(peer.to_string());
    command.env("LC_ALL", "C");
    match exec::run(command, Instant::now() + PATIENCE) {
        Ok(Some(ended)) => match ended.status.code() {
            // 1 is no answer, 2 any other error (ping(8)); a packet that is too large for this host is an error, and one that is told.
            Some(0) => Ok((true, ended.output)),
            Some(1) => Ok((false, ended.output)),
            _ if told_mtu(&ended.output).is_some() => Ok((false, ended.output)),
            _ => Err(format!("ping: {}", ended.output.lines().next().unwrap_or("failed"))),
        },
        Ok(None) => Ok((false, String::new())),
        Err(error) => Err(format!("ping: {error}")),
    }
}

/// "message too long, mtu=1500", "Frag needed and DF set (mtu = 1500)", "Packet too big: mtu=1500".
fn told_mtu(words: &str) -> Option<u32> {
    let (_, rest) = words.rsplit_once("mtu")?;
    let digits: String = rest.trim_start_matches([' ', '=']).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

pub fn check(facts: &Facts) -> Vec<Finding> {
    let (host, seen) = (&facts.host, &facts.underlay);
    let found = address(host, seen);
    // Without its address nothing can be tried.
    if !found.is_empty() {
        return found;
    }
    let chosen = seen.end.chosen().map(|what| Finding::hint("vtep-address", "the VTEP", what));
    chosen.into_iter().chain(mtu(host, seen)).collect()
}

/// Has this host the address at which its tunnels end?
pub(crate) fn vtep(world: &World, ip: IpAddr, device: &IfName) -> Verdict {
    let mut links = world.links();
    if let Some(owner) = links.find(|link| world.addresses(link.index).any(|address| address.net.addr() == ip)) {
        return Verdict::Holds(format!("an address of {}", owner.name));
    }
    let evidence = "no device of this host has it: what other hosts send here is dropped";
    Finding::problem("vtep-address", ip, evidence).at("vtep").run(cure::add_vtep(ip, device)).into()
}

/// The device that is to have it.
pub(crate) fn vtep_device(config: &Config, world: &World) -> IfName {
    match &config.vtep.source {
        VtepSource::Interface(name) => name.clone(),
        VtepSource::Address(_) => world.by_index(1).map_or("lo".parse().expect("a name"), |link| link.name.clone()),
    }
}

fn address<'a>(host: &'a HostFacts, seen: &UnderlayFacts) -> Vec<Finding> {
    let device = vtep_device(&host.config, &host.world);
    let vteps: BTreeSet<IpAddr> = host.networks.iter().filter_map(|record| record.vtep).collect();
    let gone: Vec<Finding> = vteps.into_iter().filter_map(|ip| vtep(&host.world, ip, &device).found()).collect();
    if !gone.is_empty() {
        return gone;
    }
    match &seen.end.address {
        Err(why) => {
            vec![Finding::problem("vtep-address", "the VTEP", why.clone()).by("give the host one VTEP address")]
        }
        Ok(ip) if self::vtep(&host.world, *ip, &device).found().is_some() => {
            let evidence = "config.toml says that it is this host's VTEP, and no device has it";
            vec![Finding::problem("vtep-address", ip, evidence).run(cure::add_vtep(*ip, &device))]
        }
        Ok(vtep) => {
            let other = |record: &'a NetworkRecord| Some((record, record.vtep.filter(|its| its != vtep)?));
            let told = host.networks.iter().filter_map(other).map(|(record, its)| {
                let evidence = format!("its tunnel ends at {its}, and this host's VTEP is {vtep} now");
                Finding::problem("vtep-address", &record.network.name, evidence)
                    .by("take the network down and up again, or set [vtep] address in config.toml to what it was")
            });
            told.collect()
        }
    }
}

fn mtu(host: &HostFacts, seen: &UnderlayFacts) -> Vec<Finding> {
    let (Some(own), Some(largest)) = (own_vtep(host, &seen.end), largest(host)) else { return Vec::new() };
    let (over, need) = (overhead(Some(own)), largest + overhead(Some(own)));
    let names: Vec<&str> =
        host.networks.iter().filter(|r| r.network.mtu == Some(largest)).map(|r| r.network.name.as_str()).collect();
    let packets = format!("packets of {largest} bytes ({}) are {need} bytes in the underlay", names.join(", "));
    // The kernel's own routes know best; without another VTEP yet, the devices that are known to carry tunnels. A guess is no ground for a finding: it may
    // be a management NIC.
    let routes = seen.peers.iter().filter_map(|(_, mtu)| *mtu).min();
    let known = seen.carriers.devices.iter().map(|link| link.mtu).min().filter(|_| seen.carriers.settled);
    let mut found = Vec::new();
    if routes.or(known).is_none() {
        let evidence = "no route to another VTEP tells yet by which devices the tunnels leave";
        found.push(Finding::not_checked("underlay-mtu", "the underlay", evidence));
    }
    if let Some(least) = routes.or(known).filter(|least| *least < need) {
        let carriers = seen.carriers.devices.iter().filter(|link| link.mtu == least);
        let mut uplinks: Vec<String> = carriers.map(|link| link.name.to_string()).collect();
        uplinks.sort();
        let fits = least.saturating_sub(over);
        let raise = uplinks.iter().map(|dev| format!("ip link set {dev} mtu {need}")).collect::<Vec<_>>().join("; ");
        let problem = |object: &str, evidence: String| Finding::problem("underlay-mtu", object, evidence);
        found.push(match uplinks.is_empty() {
            true => problem("the underlay", format!("{packets}, and a route to a VTEP carries {least}"))
                .by(format!("raise the MTU of the way to {need}, or set <mtu size='{fits}'/> in the network")),
            false => problem(&uplinks.join(", "), format!("{packets}, and it carries {least}")).run(raise),
        });
    }
    for (peer, answer) in &seen.probes {
        let by = format!(
            "raise the MTU of the way to {peer} to {need}, or set <mtu size='…'/> in the network to what it carries less {over}"
        );
        match answer {
            Answer::Whole => {}
            Answer::Cut(mtu) => {
                let lost = || "are lost on the way; small ones come back".to_owned();
                let why = mtu.map_or_else(lost, |mtu| format!("a router on the way carries {mtu}"));
                found.push(Finding::problem("path-mtu", peer, format!("{packets}, and {why}")).by(by));
            }
            Answer::Silent => found.push(Finding::not_checked("path-mtu", peer, "this VTEP answers no ping from ours")),
            Answer::Untried(why) => found.push(Finding::not_checked("path-mtu", peer, why.clone())),
        }
    }
    if seen.peers.len() > PEERS {
        let evidence = format!("{PEERS} of {} VTEPs were tried", seen.peers.len());
        found.push(Finding::hint("path-mtu", "the underlay", evidence));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::fixture::{facts, links, only};
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    impl UnderlayFacts {
        pub(in crate::checks) fn healthy() -> UnderlayFacts {
            UnderlayFacts {
                end: end(Ok(ip(1))),
                carriers: carried_by(9000, true),
                peers: vec![(ip(2), Some(9000))],
                probes: vec![(ip(2), Answer::Whole)],
            }
        }
    }

    fn end(address: Result<IpAddr, String>) -> TunnelEnd {
        TunnelEnd { among: address.clone().into_iter().collect(), address }
    }

    fn carried_by(mtu: u32, settled: bool) -> Carriers {
        let uplink = links().pop().unwrap();
        Carriers { devices: vec![crate::plan::seen::Link { mtu, ..uplink }], settled }
    }

    #[track_caller]
    fn finds(change: impl FnOnce(&mut HostFacts, &mut UnderlayFacts)) -> Vec<Finding> {
        let mut facts = facts();
        change(&mut facts.host, &mut facts.underlay);
        check(&facts)
    }

    #[test]
    fn a_way_that_carries_it() {
        assert_eq!(finds(|_, _| {}), []);
        let wider = finds(|_, seen| seen.peers[0].1 = Some(9216));
        assert_eq!(wider, []);
    }

    #[test]
    fn this_hosts_own_device_is_too_narrow() {
        let found = finds(|_, seen| {
            seen.carriers = carried_by(1500, true);
            (seen.peers, seen.probes) = (vec![(ip(2), Some(1500))], Vec::new());
        });
        assert_eq!(only(&found), ("underlay-mtu", Severity::Problem, "ip link set uplink mtu 9000"));
        let alone = |settled| {
            finds(|_, seen| {
                seen.carriers = carried_by(1500, settled);
                (seen.peers, seen.probes) = (Vec::new(), Vec::new());
            })
        };
        assert_eq!(only(&alone(true)).1, Severity::Problem, "also before there is another VTEP");
        // It may be the management's, which nobody should widen.
        assert_eq!(only(&alone(false)).1, Severity::NotChecked, "a guess");
        let learned = finds(|_, seen| seen.peers[0].1 = Some(1400));
        assert!(!learned[0].runnable && learned[0].mend.contains("<mtu size='1350'/>"), "{learned:?}");
    }

    #[test]
    fn the_way_is_too_narrow() {
        let probed = |answer: Answer| finds(|_, seen| seen.probes[0].1 = answer);
        let lost = probed(Answer::Cut(None));
        assert_eq!((only(&lost).0, only(&lost).1), ("path-mtu", Severity::Problem));
        assert!(lost[0].evidence.contains("packets of 8950 bytes (red) are 9000 bytes in the underlay"), "{lost:?}");
        assert!(probed(Answer::Cut(Some(1500)))[0].evidence.ends_with("a router on the way carries 1500"));
        assert_eq!(only(&probed(Answer::Silent)).1, Severity::NotChecked);
        assert_eq!(only(&probed(Answer::Untried("ping: No such file".into()))).1, Severity::NotChecked);
    }

    #[test]
    fn an_ipv6_tunnel_takes_20_bytes_more() {
        let six: IpAddr = "c0d1::1".parse().unwrap();
        let found = finds(|host, seen| {
            host.networks[0].vtep = Some(six);
            let links = links();
            host.world = World::new(
                links,
                vec![crate::plan::seen::Address {
                    index: 1,
                    net: "c0d1::1/128".parse().unwrap(),
                    global: true,
                    lent: false,
                }],
            );
            *seen = UnderlayFacts {
                end: end(Ok(six)),
                carriers: carried_by(9000, true),
                peers: vec![("c0d1::2".parse().unwrap(), Some(9000))],
                probes: Vec::new(),
            };
        });
        assert_eq!(only(&found).2, "ip link set uplink mtu 9020");
    }
    use crate::plan::seen::World;

    #[test]
    fn the_vteps_address() {
        let gone = finds(|host, _| host.world = World::new(links(), Vec::new()));
        assert_eq!(only(&gone), ("vtep-address", Severity::Problem, "ip address add 10.0.0.1/32 dev lo"));
        let moved = finds(|host, seen| {
            seen.end = end(Ok(ip(9)));
            let mut addresses: Vec<_> = host.world.addresses(1).copied().collect();
            addresses.push(crate::plan::seen::Address { net: "10.0.0.9/32".parse().unwrap(), ..addresses[0] });
            host.world = World::new(links(), addresses);
        });
        assert_eq!(only(&moved).0, "vtep-address");
        assert!(moved[0].evidence.contains("ends at 10.0.0.1, and this host's VTEP is 10.0.0.9 now"));
        let none = finds(|host, seen| {
            host.networks.clear();
            seen.end = end(Err("no VTEP address: lo has no global address".into()));
        });
        assert_eq!(only(&none).0, "vtep-address");
        let wrong = finds(|host, seen| {
            host.networks.clear();
            seen.end = end(Ok(ip(9)));
        });
        assert_eq!(only(&wrong).2, "ip address add 10.0.0.9/32 dev lo");
        let chosen = finds(|_, seen| seen.end.among = vec![ip(1), ip(9)]);
        assert_eq!(only(&chosen).1, Severity::Hint);
        let text =
            "VTEP 10.0.0.1 is the first of 10.0.0.1, 10.0.0.9: if another is this host's own, set [vtep] address";
        assert!(chosen[0].evidence.starts_with(text), "{chosen:?}");
    }

    /// One after the other they would take as long as there are silent ones.
    #[test]
    fn all_probes_run_at_the_same_time() {
        let peers = [ip(2), ip(3), ip(4), ip(5)];
        let (running, more) = (std::sync::Mutex::new(0), std::sync::Condvar::new());
        let found = probes(&peers, 9000, |peer, payload| {
            let mut count = running.lock().unwrap();
            *count += 1;
            more.notify_all();
            let long = Duration::from_secs(20);
            let (count, late) = more.wait_timeout_while(count, long, |count| *count < 2 * peers.len()).unwrap();
            assert!(!late.timed_out(), "{count} of them");
            match (peer, payload) {
                (_, 8972) if peer == ip(2) => Ok((true, String::new())),
                (_, SMALL) if peer == ip(2) || peer == ip(3) => Ok((true, String::new())),
                (_, 8972) if peer == ip(3) => Ok((false, "Frag needed and DF set (mtu = 1400)".into())),
                _ if peer == ip(4) => Ok((false, String::new())),
                _ => Err("ping: No such file".into()),
            }
        });
        let wanted =
            [Answer::Whole, Answer::Cut(Some(1400)), Answer::Silent, Answer::Untried("ping: No such file".into())];
        assert_eq!(found, peers.into_iter().zip(wanted).collect::<Vec<_>>());
    }

    #[test]
    fn what_ping_says() {
        assert_eq!(told_mtu("ping: local error: message too long, mtu=1500"), Some(1500));
        assert_eq!(told_mtu("From 10.0.0.9 icmp_seq=1 Frag needed and DF set (mtu = 1400)"), Some(1400));
        assert_eq!(told_mtu("1 packets transmitted, 0 received"), None);
    }
}
