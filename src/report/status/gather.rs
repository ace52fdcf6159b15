//! Asks the register, the kernel and the speaker.

use super::{EndpointStatus, NetworkStatus, Remote, Status};
use crate::advice;
use crate::config::Network;
use crate::engine::{Engine, EngineError, boot_seconds, differences, host_wants, lacks, vtep_now};
use crate::model::{Guest, NetName};
use crate::plan::seen::{self, World};
use crate::register::{Endpoint, NetworkRecord, Stage};
use crate::report::duplicates::{self, Claims};
use crate::report::settled::{self, Object};
use crate::speaker::{Dump, Frr, SpeakerError};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

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
    let mut frr = engine.frr()?;
    let world = engine.whole_world()?;
    let vtep = vtep_now(engine)?;
    let tunnels = Tunnels::of(engine.kernel()?.remotes()?);
    let mut networks = Vec::new();
    let mut dumps: Vec<(NetName, Option<Result<Dump, SpeakerError>>)> = Vec::new();
    for record in engine.register.networks() {
        let record = record?;
        // One dump a network instead of questions per endpoint: a host may have thousands.
        let vni = record.network.vni;
        dumps.push((record.network.name.clone(), frr.as_mut().map(|frr| frr.dump(vni))));
        let mut status = network(engine, &world, &record, frr.as_mut())?;
        let differences = differences(engine, &record, vtep)?;
        if !differences.is_empty() && status.state == "up" {
            status.state = "degraded";
        }
        status.problems.extend(differences);
        status.remotes = tunnels.of_network(&world, &record.network);
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
    let records = engine.register.guests().into_iter().collect::<Result<Vec<_>, _>>()?;
    let (claims, now) = (Claims::of(&records), boot_seconds());
    for record in &records {
        for e in &record.endpoints {
            let dump = dumps.iter().find(|(name, _)| *name == e.network).and_then(|(_, dump)| dump.as_ref());
            let said = dump.and_then(|dump| dump.as_ref().ok());
            let others = duplicates::of(&world, said, &claims, &record.guest, e, now);
            let mut status = endpoint(&world, &record.guest, e, dump);
            status.problems.extend(others.iter().map(|other| format!("{other}: {}", other.mend())));
            endpoints.push(status);
        }
    }
    Ok(Status { networks, endpoints })
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
    }
}

/// Where the VXLAN devices send to, by their index.
struct Tunnels(HashMap<u32, Vec<seen::Remote>>);

impl Tunnels {
    fn of(remotes: Vec<seen::Remote>) -> Tunnels {
        let mut tunnels = Tunnels(HashMap::new());
        for remote in remotes {
            tunnels.0.entry(remote.port).or_default().push(remote);
        }
        tunnels
    }

    /// The VTEPs that flooding goes to, and those that the bridge has MACs behind.
    fn of_network(&self, world: &World, network: &Network) -> Vec<Remote> {
        let (Some(bridge), Some(vxlan)) = (world.link(&network.bridge), world.link(&network.vni.device())) else {
            return Vec::new();
        };
        let is_there = |mac| world.fdb(bridge.index, mac).is_some_and(|f| f.ext_learned && f.port == vxlan.index);
        let mut macs: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for remote in self.0.get(&vxlan.index).into_iter().flatten() {
            match remote.mac {
                None => drop(macs.entry(remote.vtep).or_default()),
                Some(mac) if is_there(mac) => *macs.entry(remote.vtep).or_default() += 1,
                Some(_) => {}
            }
        }
        macs.into_iter().map(|(vtep, macs)| Remote { vtep, macs }).collect()
    }
}

fn network(
    engine: &mut Engine,
    world: &World,
    record: &NetworkRecord,
    frr: Option<&mut Frr>,
) -> Result<NetworkStatus, EngineError> {
    let (network, vtep) = (&record.network, record.vtep);
    let (there, mut problems) = host_wants(engine, world, record)?;
    // Of one without its tunnels FRR cannot know.
    match frr.filter(|_| vtep.is_some()).map(|f| f.vni(network.vni)) {
        Some(Ok(Some(_))) | None => {}
        Some(Ok(None)) => problems.push(format!(
            "FRR does not know VNI {}: is advertise-all-vni in 'address-family l2vpn evpn'?",
            network.vni
        )),
        Some(Err(error)) => problems.push(error.to_string()),
    }
    let state = match (there, problems.is_empty()) {
        (false, _) => "down",
        (true, false) => "degraded",
        (true, true) => "up",
    };
    Ok(NetworkStatus { vtep, problems, ..of(network, state) })
}

fn endpoint(
    world: &World,
    guest: &Guest,
    endpoint: &Endpoint,
    dump: Option<&Result<Dump, SpeakerError>>,
) -> EndpointStatus {
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
    let state = match (endpoint.stage, endpoint.mac, dump) {
        (Stage::Incoming, ..) => "incoming",
        _ if !held => "failed",
        // What a silent speaker is about stands at the network already.
        (_, Some(mac), Some(Ok(dump))) => match dump.advertised(mac, &endpoint.addresses()).problem() {
            None => "advertised",
            Some(problem) => {
                problems.push(problem);
                "registered"
            }
        },
        _ => "registered",
    };
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
