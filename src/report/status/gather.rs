//! Asks the register, the kernel and the speaker.

use super::{EndpointStatus, ForeignPort, NetworkStatus, Remote, Status};
use crate::advice;
use crate::checks::duplicates::{self, Claims};
use crate::checks::unheard::Unheard;
use crate::checks::{bridges, speaker};
use crate::config::{Network, PortSecurity};
use crate::engine::{Engine, EngineError, Entries, Known, Now, boot_seconds, differences, host_wants, lacks};
use crate::model::{Guest, Mac, NetName, Vni};
use crate::plan::foreign::Foreign;
use crate::plan::seen::{self, World};
use crate::register::{Endpoint, GuestRecord, NetworkRecord, Stage};
use crate::report::explain::MANY;
use crate::report::settled::{self, Object};
use crate::speaker::{Advertised, Frr, SpeakerError, Whole};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

/// Gathers it, and again where a hook was at work on what is amiss.
pub fn settled(engine: &mut Engine) -> Result<Status, EngineError> {
    settled::settled(engine, gather, |status| {
        let networks = status.networks.iter().filter(|n| !n.problems.is_empty());
        let endpoints = status.endpoints.iter().filter(|e| !e.problems.is_empty());
        let guests = endpoints.map(|e| Object::Guest(e.guest.clone()));
        networks.map(|n| Object::Network(n.name.clone())).chain(guests).collect()
    })
}

/// Gathers it.
pub fn gather(engine: &mut Engine) -> Result<Status, EngineError> {
    engine.begin_report();
    let mut frr = engine.frr()?;
    let now = Now::of(engine)?;
    let records = engine.register.guests().into_iter().collect::<Result<Vec<_>, _>>()?;
    let up = engine.register.networks().into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut heard = frr.as_mut().map(|frr| Heard::of(frr, &up, &records));
    let (world, tunnels) = match heard.as_ref().and_then(|heard| few_of_many(heard, &records)) {
        Some(entries) => few(engine, &up, &entries)?,
        None => (engine.whole_world()?, Tunnels::of(engine.kernel()?.remotes()?)),
    };
    let mut networks = Vec::new();
    for record in &up {
        let told = heard.as_mut().and_then(|heard| heard.of_network.remove(&record.network.vni));
        let whole = heard.as_ref().and_then(|heard| heard.whole.as_ref());
        let mut status = network(engine, &world, record, told, whole)?;
        let differences = differences(engine, record, now)?;
        if !differences.is_empty() && status.state == "up" {
            status.state = "degraded";
        }
        status.problems.extend(differences);
        let vteps = heard.as_ref().and_then(|heard| heard.vteps.get(&record.network.vni));
        status.remotes = tunnels.of_network(&world, &record.network, vteps);
        status.advice = advice::of(&record.network, world.link(&record.network.bridge), &record.made);
        networks.push(status);
    }
    for wanted in engine.config()?.networks.clone() {
        if !networks.iter().any(|n| n.name == wanted.name) {
            networks.push(NetworkStatus {
                problems: vec![format!("not up: 'evpn-hook network up {}'", wanted.name)],
                vtep: None,
                ..of(&wanted, "down")
            });
        }
    }
    let mut endpoints = Vec::new();
    foreign_ports(engine, &world, &records, &mut networks)?;
    let (claims, now) = (Claims::of(&records), boot_seconds());
    let by_name: HashMap<&NetName, &Network> = up.iter().map(|up| (&up.network.name, &up.network)).collect();
    for record in &records {
        for e in &record.endpoints {
            let network = by_name.get(&e.network).copied();
            let vtep_of = |mac| tunnels.vtep_of(&world, network?, mac);
            let others = duplicates::of(&world, vtep_of, &claims, &record.guest, e, now);
            let said = e.mac.zip(network).zip(heard.as_ref());
            let said = said.and_then(|((mac, n), heard)| heard.endpoints.get(&(n.vni, mac, e.addresses())));
            let mut status = endpoint(&world, &record.guest, e, said);
            status.problems.extend(others.iter().map(|other| format!("{other}: {}", other.mend())));
            endpoints.push(status);
        }
    }
    Ok(Status { networks, endpoints })
}

/// A hypervisor puts a guest's port on its bridge before it calls the hook that records it: no reason to wake somebody.
const SETTLE: Duration = Duration::from_millis(300);

/// What is on the networks' bridges and no guest's. It is a problem where nobody may send what is not the sender's own.
fn foreign_ports(
    engine: &mut Engine,
    world: &World,
    guests: &[GuestRecord],
    networks: &mut [NetworkStatus],
) -> Result<(), EngineError> {
    let up: Vec<Network> = engine.register.networks().into_iter().flatten().map(|record| record.network).collect();
    let find = |world: &World, guests: &[GuestRecord]| -> Vec<Vec<Foreign>> {
        let known = Known::of(guests);
        up.iter().map(|network| known.foreign(world, network)).collect()
    };
    let is_held = |network: &Network| network.security() != PortSecurity::Off;
    let mut found = find(world, guests);
    if up.iter().zip(&found).any(|(network, ports)| is_held(network) && !ports.is_empty()) {
        std::thread::sleep(SETTLE);
        let world = engine.kernel()?.world()?;
        let guests: Vec<GuestRecord> = engine.register.guests().into_iter().flatten().collect();
        let before = std::mem::replace(&mut found, find(&world, &guests));
        for (ports, before) in found.iter_mut().zip(before) {
            ports.retain(|port| before.iter().any(|b| b.index == port.index));
        }
    }
    for (network, ports) in up.iter().zip(found) {
        let Some(status) = networks.iter_mut().find(|n| n.name == network.name) else { continue };
        if is_held(network) {
            status.problems.extend(ports.iter().map(|port| bridges::foreign(network, port).line()));
            if !ports.is_empty() && status.state == "up" {
                status.state = "degraded";
            }
        }
        let port = |port: Foreign| ForeignPort { device: port.name, held: port.held };
        status.foreign_ports = ports.into_iter().map(port).collect();
    }
    Ok(())
}

fn of(network: &Network, state: &'static str) -> NetworkStatus {
    NetworkStatus {
        name: network.name.clone(),
        bridge: network.bridge.clone(),
        vni: network.vni,
        vrf: network.vrf.clone(),
        vtep: None,
        port_security: network.security(),
        state,
        problems: Vec::new(),
        advice: Vec::new(),
        remotes: Vec::new(),
        foreign_ports: Vec::new(),
    }
}

/// Where the VXLAN devices send to.
struct Tunnels {
    /// By the device's index.
    remotes: HashMap<u32, Vec<seen::Remote>>,
    /// All of it was read.
    counted: bool,
}

impl Tunnels {
    fn of(remotes: Vec<seen::Remote>) -> Tunnels {
        let mut tunnels = Tunnels { remotes: HashMap::new(), counted: true };
        for remote in remotes {
            tunnels.remotes.entry(remote.port).or_default().push(remote);
        }
        tunnels
    }

    /// Where the network's tunnel sends a MAC's frames.
    fn vtep_of(&self, world: &World, network: &Network, mac: Mac) -> Option<IpAddr> {
        let vxlan = world.link(&network.vni.device())?;
        self.remotes.get(&vxlan.index)?.iter().find(|remote| remote.mac == Some(mac)).map(|remote| remote.vtep)
    }

    /// The VTEPs that flooding goes to, and those that the bridge has MACs behind; by what zebra says where the kernel's lists were not read.
    fn of_network(&self, world: &World, network: &Network, zebra: Option<&BTreeSet<IpAddr>>) -> Vec<Remote> {
        if !self.counted {
            return zebra.into_iter().flatten().map(|vtep| Remote { vtep: *vtep, macs: None }).collect();
        }
        let (Some(bridge), Some(vxlan)) = (world.link(&network.bridge), world.link(&network.vni.device())) else {
            return Vec::new();
        };
        let is_there = |mac| world.fdb(bridge.index, mac).is_some_and(|f| f.ext_learned && f.port == vxlan.index);
        let mut macs: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for remote in self.remotes.get(&vxlan.index).into_iter().flatten() {
            match remote.mac {
                None => drop(macs.entry(remote.vtep).or_default()),
                Some(mac) if is_there(mac) => *macs.entry(remote.vtep).or_default() += 1,
                Some(_) => {}
            }
        }
        macs.into_iter().map(|(vtep, macs)| Remote { vtep, macs: Some(macs) }).collect()
    }
}

/// So many entries are asked for one by one at most.
const FEW: usize = 300;

/// What the guests need of the kernel's entries, where these are few of many; none where all are read.
fn few_of_many(heard: &Heard, guests: &[GuestRecord]) -> Option<Vec<Entries>> {
    let endpoints = || guests.iter().flat_map(|guest| &guest.endpoints);
    let wanted: usize = endpoints().map(|e| 1 + e.ips.len()).sum();
    // What was taken from others is told by what else these have.
    if !heard.counted || heard.entries < MANY || wanted > FEW || endpoints().any(|e| !e.taken.is_empty()) {
        return None;
    }
    let entries = |e: &Endpoint| Entries { bridge: e.bridge.clone(), macs: Vec::from_iter(e.mac), ips: e.addresses() };
    Some(endpoints().map(entries).collect())
}

/// These entries, and where the tunnels send what of them is behind one.
fn few(engine: &mut Engine, networks: &[NetworkRecord], entries: &[Entries]) -> Result<(World, Tunnels), EngineError> {
    let world = engine.world_with(entries)?;
    let mut remotes = Vec::new();
    for NetworkRecord { network, .. } in networks {
        let (Some(bridge), Some(vxlan)) = (world.link(&network.bridge), world.link(&network.vni.device())) else {
            continue;
        };
        let of_bridge = entries.iter().filter(|entries| entries.bridge == network.bridge);
        let macs: BTreeSet<Mac> = of_bridge
            .flat_map(|Entries { macs, ips, .. }| {
                let learned = |mac: &&Mac| world.fdb(bridge.index, **mac).is_some_and(|f| f.ext_learned);
                let winner = |ip: &IpAddr| world.neigh(bridge.index, *ip).filter(|n| n.ext_learned)?.mac;
                macs.iter().filter(learned).copied().chain(ips.iter().filter_map(winner)).collect::<Vec<_>>()
            })
            .collect();
        for mac in macs {
            let vtep = engine.kernel()?.vtep_of(vxlan.index, mac)?;
            remotes.extend(vtep.map(|vtep| seen::Remote { port: vxlan.index, mac: Some(mac), vtep }));
        }
    }
    Ok((world, Tunnels { counted: false, ..Tunnels::of(remotes) }))
}

/// What FRR says of all networks and of the guests on them.
#[derive(Default)]
struct Heard {
    /// How many MACs and addresses zebra has in all of them, and the other VTEPs of each.
    entries: usize,
    vteps: HashMap<Vni, BTreeSet<IpAddr>>,
    /// zebra told both of every network, whatever else was not told.
    counted: bool,
    /// What FRR has of all VRFs, where one has an L3VNI.
    whole: Option<Whole>,
    /// What is wrong with each, in words; none where nothing is.
    of_network: HashMap<Vni, Option<String>>,
    /// By segment, MAC and addresses: two guests may have one MAC.
    endpoints: HashMap<(Vni, Mac, Vec<IpAddr>), Advertised>,
}

impl Heard {
    fn of(frr: &mut Frr, networks: &[NetworkRecord], guests: &[GuestRecord]) -> Heard {
        let mut heard = Heard { counted: true, ..Heard::default() };
        // Of one that does not answer more is not asked.
        let mut unheard = Unheard::before(frr).err();
        let has_l3vni = |record: &NetworkRecord| record.network.vrf.as_ref().is_some_and(|vrf| vrf.vni.is_some());
        if unheard.is_none() && networks.iter().any(has_l3vni) {
            match frr.whole() {
                Ok(whole) => heard.whole = Some(whole),
                Err(error) => unheard = Some(error.into()),
            }
        }
        let mut wanted: HashMap<&NetName, Vec<(Mac, Vec<IpAddr>)>> = HashMap::new();
        for e in guests.iter().flat_map(|guest| &guest.endpoints).filter(|e| e.stage != Stage::Incoming) {
            if let Some(mac) = e.mac {
                wanted.entry(&e.network).or_default().push((mac, e.addresses()));
            }
        }
        // Lists come last: bgpd, while it makes one, answers nobody.
        let mut networks: Vec<&NetworkRecord> = networks.iter().collect();
        networks.sort_by_key(|record| wanted.get(&record.network.name).map_or(0, Vec::len));
        for NetworkRecord { network, vtep, .. } in networks {
            let mut problem = None;
            heard.counted &= unheard.is_none();
            if unheard.is_none() {
                let wanted = wanted.get(&network.name).map_or(&[][..], Vec::as_slice);
                match heard.ask(frr, network, wanted) {
                    // Of one without its tunnels FRR cannot know.
                    Ok(is_known) if is_known || vtep.is_none() => {}
                    Ok(_) => {
                        problem = Some(format!(
                            "{}: is advertise-all-vni in 'address-family l2vpn evpn'?",
                            speaker::unknown(network.vni)
                        ));
                    }
                    Err(error @ (SpeakerError::TooLarge { .. } | SpeakerError::NotAsked { .. })) => {
                        problem = Some(Unheard::from(error).to_string());
                    }
                    Err(error) => unheard = Some(error.into()),
                }
            }
            heard.of_network.insert(network.vni, problem.or(unheard.as_ref().map(Unheard::to_string)));
        }
        heard
    }

    /// Does zebra know the VNI? Its guests are asked for, too.
    fn ask(&mut self, frr: &mut Frr, network: &Network, wanted: &[(Mac, Vec<IpAddr>)]) -> Result<bool, SpeakerError> {
        let info = frr.vni(network.vni).inspect_err(|_| self.counted = false)?;
        let is_known = info.is_some();
        self.entries += info.as_ref().map_or(0, |info| info.entries);
        self.vteps.extend(info.map(|info| (network.vni, info.vteps)));
        let said = frr.advertised_all(network.vni, wanted)?;
        let key = |said: &Advertised| (network.vni, said.mac, said.ips.iter().map(|address| address.ip).collect());
        self.endpoints.extend(said.into_iter().map(|said| (key(&said), said)));
        Ok(is_known)
    }
}

fn network(
    engine: &mut Engine,
    world: &World,
    record: &NetworkRecord,
    told: Option<Option<String>>,
    whole: Option<&Whole>,
) -> Result<NetworkStatus, EngineError> {
    let (network, vtep) = (&record.network, record.vtep);
    let (there, mut problems) = host_wants(engine, world, record, whole)?;
    problems.extend(told.flatten());
    let state = match (there, problems.is_empty()) {
        (false, _) => "down",
        (true, false) => "degraded",
        (true, true) => "up",
    };
    Ok(NetworkStatus { vtep, problems, ..of(network, state) })
}

fn endpoint(world: &World, guest: &Guest, endpoint: &Endpoint, said: Option<&Advertised>) -> EndpointStatus {
    let mut problems = Vec::new();
    let held = match lacks(world, &guest.to_string(), endpoint) {
        Ok(missing) => {
            problems.extend(missing.iter().map(|p| format!("missing: {}", p.step)));
            missing.is_empty()
        }
        Err(refusal) => {
            problems.push(refusal.to_string());
            false
        }
    };
    let state = match (endpoint.stage, said) {
        (Stage::Incoming, _) => "incoming",
        _ if !held => "failed",
        // Why nothing was said stands at the network.
        (_, Some(said)) => match said.problem() {
            None => "advertised",
            Some(problem) => {
                problems.push(problem);
                "registered"
            }
        },
        _ => "registered",
    };
    let now = boot_seconds();
    problems.extend(endpoint.slowed.iter().filter(|slowed| slowed.until > now).map(|slowed| {
        let minutes = (slowed.until - now).div_ceil(60);
        format!("took {} from others again and again: may not for {minutes} more min", slowed.ip)
    }));
    EndpointStatus {
        guest: guest.clone(),
        network: endpoint.network.clone(),
        device: endpoint.device.clone(),
        mac: endpoint.mac,
        ips: endpoint.addresses(),
        addresses: endpoint.ips.clone(),
        state,
        problems,
    }
}
