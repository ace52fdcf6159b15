//! Asks kernel, register and speaker for what a chain is made of. A daemon that does not answer is a finding, not an error.

use super::facts::{Away, Frr as Said, Here, PeerSeen, Segment};
use super::find::{self, Asked, Stranger};
use super::{Chain, Explanation, away, here};
use crate::config::VtepSource;
use crate::engine::{Engine, EngineError, boot_seconds, host_lacks, mends};
use crate::model::{Guest, IfName, Mac};
use crate::plan::Refusal;
use crate::plan::seen::World;
use crate::register::{Endpoint, GuestRecord, NetworkRecord};
use crate::report::duplicates::{self, Claims};
use crate::report::settled::{self, Object};
use crate::speaker::{Dump, Frr, RoutePath, SpeakerError};
use std::net::IpAddr;

/// The guest of this name, device, MAC or address.
pub fn explain(engine: &mut Engine, text: &str) -> Result<Explanation, EngineError> {
    settled::settled(
        engine,
        |engine| look(engine, text),
        |found| {
            let broken = found.chains.iter().filter(|chain| chain.broken.is_some());
            let objects = broken
                .map(|chain| [Some(Object::Network(chain.network.clone())), chain.guest.clone().map(Object::Guest)]);
            objects.flatten().flatten().collect()
        },
    )
}

fn look(engine: &mut Engine, text: &str) -> Result<Explanation, EngineError> {
    let asked = Asked::of(text);
    let world = engine.whole_world()?;
    let records = engine.register.guests().into_iter().collect::<Result<Vec<_>, _>>()?;
    let networks = engine.register.networks().into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut chains = Vec::new();
    for (guest, endpoint) in find::here(&asked, &records)? {
        chains.push(chain_here(engine, &world, &records, &networks, guest, endpoint)?);
    }
    if chains.is_empty() {
        chains.push(chain_away(engine, &world, &networks, &asked)?);
    }
    Ok(Explanation { asked: text.to_owned(), healthy: chains.iter().all(|c| c.broken.is_none()), chains })
}

fn chain_here(
    engine: &mut Engine,
    world: &World,
    records: &[GuestRecord],
    networks: &[NetworkRecord],
    guest: &Guest,
    endpoint: &Endpoint,
) -> Result<Chain, EngineError> {
    let Some(record) = networks.iter().find(|r| r.network.bridge == endpoint.bridge) else {
        let what = format!(
            "{guest}: its network {0} is not up: 'virsh net-start {0}' or 'evpn-hook network up {0}'",
            endpoint.network
        );
        return Err(Refusal(what).into());
    };
    let mut frr = engine.frr()?;
    let mut segment = segment(engine, world, record, frr.as_mut())?;
    let mut duplicates = Vec::new();
    if let Some(mac) = endpoint.mac {
        let ips = endpoint.addresses();
        let mut dump = None;
        if let (Some(frr), Some(said)) = (&mut frr, &mut segment.frr) {
            // What fails here is told as a daemon that fell silent in between.
            match of_guest(frr, record, said, mac, &ips) {
                Ok(found) => dump = Some(found),
                Err(error) => said.silent = said.silent.take().or(Some(error.to_string())),
            }
        }
        duplicates = duplicates::of(world, dump.as_ref(), &Claims::of(records), guest, endpoint, boot_seconds());
    }
    let agent_runs = engine.register.agent_runs();
    let mends = mends(world, &guest.to_string(), endpoint);
    let links = here::links(&segment, &Here { guest, endpoint, mends, duplicates, agent_runs });
    Ok(Chain {
        place: "here",
        guest: Some(guest.clone()),
        network: endpoint.network.clone(),
        device: Some(endpoint.device.clone()),
        mac: endpoint.mac,
        ips: endpoint.addresses(),
        vtep: record.vtep,
        broken: links.broken,
        links: links.links,
    })
}

fn chain_away(
    engine: &mut Engine,
    world: &World,
    networks: &[NetworkRecord],
    asked: &Asked,
) -> Result<Chain, EngineError> {
    let mut frr = engine.frr()?;
    // A silent bgpd is told as a link of the chain.
    let mut received = match (asked, &mut frr) {
        (Asked::Ip(ip), Some(frr)) => frr.received(|_, its| its == Some(*ip)).unwrap_or_default(),
        (Asked::Mac(mac), Some(frr)) => frr.received(|its, _| its == *mac).unwrap_or_default(),
        _ => Vec::new(),
    };
    let Stranger { record, mac, ips } = find::away(asked, networks, world, &received)?;
    let mut segment = segment(engine, world, record, frr.as_mut())?;
    if let (Some(frr), Some(said), Some(mac)) = (&mut frr, &mut segment.frr, mac)
        && said.silent.is_none()
    {
        let asked = of_stranger(frr, record, said, mac, &ips);
        match asked {
            Ok(all) => received = all,
            Err(error) => said.silent = Some(error.to_string()),
        }
    }
    // Of the MAC, and of those addresses that were asked for.
    received.retain(|p| p.ip.is_none_or(|ip| ips.contains(&ip)));
    let vtep = vtep_of(&received);
    let kernel = engine.kernel()?;
    let mut away = Away { mac, ips: ips.clone(), ..Away::default() };
    if let (Some(mac), Some(vxlan)) = (mac, world.link(&record.network.vni.device())) {
        away.tunnel = kernel.vtep_of(vxlan.index, mac)?;
    }
    if let Some(vrf) = record.network.vrf.as_ref().filter(|v| v.vni.is_some()).and_then(|v| world.link(&v.name)) {
        for ip in &ips {
            away.routes.push((*ip, kernel.route_to(*ip, Some(vrf.index))?));
        }
    }
    if let Some(vtep) = vtep.or(away.tunnel) {
        away.underlay = Some((vtep, kernel.route_to(vtep, None)?));
    }
    if let Some(said) = &mut segment.frr {
        said.received = received;
    }
    let links = away::links(&segment, &away);
    Ok(Chain {
        place: "away",
        guest: None,
        network: record.network.name.clone(),
        device: None,
        mac,
        ips,
        vtep: vtep.or(away.tunnel),
        broken: links.broken,
        links: links.links,
    })
}

fn vtep_of(received: &[RoutePath]) -> Option<IpAddr> {
    received.iter().filter(|p| !p.own).max_by_key(|p| p.best).and_then(|p| p.vtep)
}

/// What all guests of the network share.
fn segment<'a>(
    engine: &mut Engine,
    world: &'a World,
    record: &'a NetworkRecord,
    frr: Option<&mut Frr>,
) -> Result<Segment<'a>, EngineError> {
    let vtep_device = match &engine.config()?.vtep.source {
        VtepSource::Interface(name) => name.clone(),
        VtepSource::Address(_) => loopback(world),
    };
    let lacks = host_lacks(engine, world, record)?;
    let said = match frr {
        None => None,
        Some(frr) => {
            let mut said = Said::default();
            if let Err(error) = of_network(frr, record, &mut said) {
                said.silent = Some(error.to_string());
            }
            for seen in &mut said.peers {
                if let Ok(ip) = seen.peer.name.parse::<IpAddr>() {
                    seen.reachable = Some(engine.kernel()?.route_to(ip, None)?.is_some());
                }
            }
            Some(said)
        }
    };
    Ok(Segment { network: &record.network, vtep: record.vtep, vtep_device, world, lacks, frr: said })
}

fn loopback(world: &World) -> IfName {
    let first = world.by_index(1).map(|l| l.name.clone());
    first.unwrap_or_else(|| "lo".parse().expect("lo is a name"))
}

// ----- the speaker -----

fn of_network(frr: &mut Frr, record: &NetworkRecord, said: &mut Said) -> Result<(), SpeakerError> {
    // bgpd first: where it is gone zebra forgets the VNIs, and that would be told as zebra's fault.
    said.running = frr.running()?;
    let network = &record.network;
    said.vni = frr.vni(network.vni)?;
    if let Some(vrf) = &network.vrf {
        said.vrf = frr.vrf(&vrf.name)?;
    }
    said.targets = frr.targets(network.vni)?;
    said.peers = frr.evpn_peers()?.into_iter().map(|peer| PeerSeen { peer, reachable: None }).collect();
    if let Some(vtep) = record.vtep {
        said.underlay = frr.underlay_peers(vtep)?.into_iter().filter(|p| !p.is_up()).collect();
    }
    Ok(())
}

/// The guest's own routes; returns all of the VNI, which tells of duplicates.
fn of_guest(
    frr: &mut Frr,
    record: &NetworkRecord,
    said: &mut Said,
    mac: Mac,
    ips: &[IpAddr],
) -> Result<Dump, SpeakerError> {
    let dump = frr.dump(record.network.vni)?;
    let mut known = dump.advertised(mac, ips);
    // A list has no MAC that zebra knows from a neighbour alone.
    known.state = frr.mac(record.network.vni, mac)?;
    said.known = Some(known);
    if let Some(rd) = said.targets.as_ref().and_then(|t| t.rd.clone()) {
        for ip in [None].into_iter().chain(ips.iter().copied().map(Some)) {
            said.announced.push((ip, frr.announced(&rd, mac, ip)?));
        }
    }
    // The whole table is only asked for where another VTEP may have won.
    if said.known.as_ref().is_some_and(|k| !k.route || k.ips.iter().any(|a| !a.route)) {
        said.received = frr.received(|its, _| its == mac)?;
    }
    Ok(dump)
}

/// What is known of another host's guest; returns all paths to its MAC.
fn of_stranger(
    frr: &mut Frr,
    record: &NetworkRecord,
    said: &mut Said,
    mac: Mac,
    ips: &[IpAddr],
) -> Result<Vec<RoutePath>, SpeakerError> {
    let vni = record.network.vni;
    let mut known = frr.dump(vni)?.advertised(mac, ips);
    known.state = frr.mac(vni, mac)?;
    said.known = Some(known);
    frr.received(|its, _| its == mac)
}
