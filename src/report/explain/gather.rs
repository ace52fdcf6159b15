//! Asks kernel, register and speaker for what a chain is made of. A daemon that does not answer is a finding, not an error.

use super::facts::{GuestFacts, RouteFacts, SegmentFacts, StrangerFacts};
use super::find::{self, Asked, Stranger};
use super::{Chain, Explanation, away, entries, here};
use crate::checks::duplicates::{self, Claims};
use crate::checks::speaker::SpeakerFacts;
use crate::checks::underlay;
use crate::checks::unheard::{Speaker, Unheard};
use crate::engine::{Engine, EngineError, boot_seconds, host_lacks, mends};
use crate::model::{Guest, Mac};
use crate::plan::Refusal;
use crate::plan::seen::World;
use crate::register::{Endpoint, GuestRecord, NetworkRecord};
use crate::report::settled::{self, Object};
use crate::speaker::{Address, Advertised, Frr, RoutePath, SpeakerError};
use std::collections::{BTreeSet, HashMap};
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
    engine.begin_report();
    let asked = Asked::of(text);
    let records = engine.register.guests().into_iter().collect::<Result<Vec<_>, _>>()?;
    let networks = engine.register.networks().into_iter().collect::<Result<Vec<_>, _>>()?;
    let here = find::here(&asked, &records)?;
    let mut speaker = engine.frr()?.map(Speaker::of);
    let world = entries::world(engine, speaker.as_mut(), &asked, &here, &networks)?;
    let mut chains = Vec::new();
    for (guest, endpoint) in here {
        let Some(record) = networks.iter().find(|r| r.network.bridge == endpoint.bridge) else {
            let what = format!(
                "{guest}: its network {0} is not up: 'virsh net-start {0}' or 'evpn-hook network up {0}'",
                endpoint.network
            );
            return Err(Refusal(what).into());
        };
        let segment = segment(engine, speaker.as_mut(), &world, record)?;
        chains.push(chain_here(engine, speaker.as_mut(), segment, &records, record, (guest, endpoint))?);
    }
    if chains.is_empty() {
        chains.push(chain_away(engine, speaker.as_mut(), &world, &networks, &asked)?);
    }
    Ok(Explanation { asked: text.to_owned(), healthy: chains.iter().all(Chain::holds), chains })
}

fn chain_here(
    engine: &mut Engine,
    speaker: Option<&mut Speaker>,
    mut segment: SegmentFacts,
    records: &[GuestRecord],
    record: &NetworkRecord,
    (guest, endpoint): (&Guest, &Endpoint),
) -> Result<Chain, EngineError> {
    let world = segment.world;
    let mut duplicates = Vec::new();
    if let Some(mac) = endpoint.mac {
        if let (Some(speaker), Some(said)) = (speaker, &mut segment.frr)
            && said.speaker.unheard.is_none()
        {
            said.speaker.unheard = speaker.ask(|frr| of_guest(frr, record, said, mac, &endpoint.addresses())).err();
        }
        let vteps = tunnels(engine, world, record, endpoint, mac)?;
        let vtep_of = |mac: Mac| vteps.get(&mac).copied();
        duplicates = duplicates::of(world, vtep_of, &Claims::of(records), guest, endpoint, boot_seconds());
    }
    let agent_runs = engine.register.agent_runs();
    let mends = mends(world, &guest.to_string(), endpoint);
    let links = here::links(&segment, &GuestFacts { guest, endpoint, mends, duplicates, agent_runs });
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
    mut speaker: Option<&mut Speaker>,
    world: &World,
    networks: &[NetworkRecord],
    asked: &Asked,
) -> Result<Chain, EngineError> {
    // A bgpd that does not tell is a link of the chain.
    let heard = match &mut speaker {
        Some(speaker) => speaker.ask(|frr| of_asked(frr, world, networks, asked)),
        None => Ok(Paths::default()),
    };
    let (Paths { found: mut received, unlisted }, unheard) = match heard {
        Ok(paths) => (paths, None),
        Err(unheard) => (Paths::default(), Some(unheard)),
    };
    let why = unheard.as_ref().or(unlisted.as_ref());
    let Stranger { record, mac, ips } = find::away(asked, networks, world, &received, why)?;
    let mut segment = segment(engine, speaker.as_deref_mut(), world, record)?;
    if let (Some(speaker), Some(said)) = (speaker, &mut segment.frr)
        && said.speaker.unheard.is_none()
    {
        said.speaker.unheard = unheard;
        if let (Some(mac), None) = (mac, &said.speaker.unheard) {
            match speaker.ask(|frr| of_stranger(frr, record, mac, &ips)) {
                Ok(known) => said.known = Some(known),
                Err(unheard) => said.speaker.unheard = Some(unheard),
            }
        }
    }
    // Of the MAC, and of those addresses that were asked for.
    received.retain(|p| p.ip.is_none_or(|ip| ips.contains(&ip)));
    let vtep = vtep_of(&received);
    let kernel = engine.kernel()?;
    let mut away = StrangerFacts { mac, ips: ips.clone(), ..StrangerFacts::default() };
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
        (said.received, said.unlisted) = (received, unlisted);
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

/// Where the segment's tunnel sends the frames of those MACs that have a say in this endpoint's duplicates.
fn tunnels(
    engine: &mut Engine,
    world: &World,
    record: &NetworkRecord,
    endpoint: &Endpoint,
    mac: Mac,
) -> Result<HashMap<Mac, IpAddr>, EngineError> {
    let (bridge, vxlan) = (world.link(&record.network.bridge), world.link(&record.network.vni.device()));
    let (Some(bridge), Some(vxlan)) = (bridge, vxlan) else { return Ok(HashMap::new()) };
    let winners = endpoint.ips.iter().filter_map(|a| world.neigh(bridge.index, a.ip)?.mac);
    let losers = endpoint.taken.iter().map(|taken| taken.mac);
    let mut vteps = HashMap::new();
    for mac in [mac].into_iter().chain(winners).chain(losers) {
        if let Some(vtep) = engine.kernel()?.vtep_of(vxlan.index, mac)? {
            vteps.insert(mac, vtep);
        }
    }
    Ok(vteps)
}

fn vtep_of(received: &[RoutePath]) -> Option<IpAddr> {
    received.iter().filter(|p| !p.own).max_by_key(|p| p.best).and_then(|p| p.vtep)
}

/// What all guests of the network share.
fn segment<'a>(
    engine: &mut Engine,
    mut speaker: Option<&mut Speaker>,
    world: &'a World,
    record: &'a NetworkRecord,
) -> Result<SegmentFacts<'a>, EngineError> {
    let vtep_device = underlay::vtep_device(engine.config()?, world);
    let is_routed = record.network.vrf.as_ref().is_some_and(|vrf| vrf.vni.is_some());
    let whole = speaker.as_deref_mut().filter(|_| is_routed).map(|speaker| speaker.ask(Frr::whole)).transpose();
    let (whole, unheard) = whole.map_or_else(|unheard| (None, Some(unheard)), |whole| (whole, None));
    let lacks = host_lacks(engine, world, record, whole.as_ref())?;
    let said = match speaker {
        None => None,
        Some(speaker) => {
            let mut said = RouteFacts::default();
            let asked = unheard.map_or_else(|| speaker.ask(|frr| of_network(frr, record, &mut said)), Err);
            said.speaker.unheard = asked.err();
            for peer in &said.speaker.peers {
                // An unnumbered one is on the link.
                let Ok(ip) = peer.name.parse::<IpAddr>() else { continue };
                if engine.kernel()?.route_to(ip, None)?.is_none() {
                    said.no_way.push(peer.name.clone());
                }
            }
            Some(said)
        }
    };
    Ok(SegmentFacts { network: &record.network, vtep: record.vtep, vtep_device, world, lacks, frr: said })
}

// ----- the speaker -----

fn of_network(frr: &mut Frr, record: &NetworkRecord, said: &mut RouteFacts) -> Result<(), SpeakerError> {
    said.speaker = SpeakerFacts::ask(frr, [&record.network])?;
    said.targets = frr.targets(record.network.vni)?;
    if let Some(vtep) = record.vtep {
        said.underlay = frr.underlay_peers(vtep)?.into_iter().filter(|p| !p.is_up()).collect();
    }
    Ok(())
}

/// The guest's own routes.
fn of_guest(
    frr: &mut Frr,
    record: &NetworkRecord,
    said: &mut RouteFacts,
    mac: Mac,
    ips: &[IpAddr],
) -> Result<(), SpeakerError> {
    let known = frr.advertised(record.network.vni, mac, ips)?;
    // Where it is not its own, another VTEP may have won.
    let is_own = known.route && known.ips.iter().all(|a| a.route);
    said.known = Some(known);
    if let Some(rd) = said.targets.as_ref().and_then(|t| t.rd.clone()) {
        for ip in [None].into_iter().chain(ips.iter().copied().map(Some)) {
            said.announced.push((ip, frr.announced(&rd, mac, ip)?));
        }
    }
    if !is_own {
        said.received = frr.received(mac, ips)?;
    }
    Ok(())
}

/// So many routes bgpd may list for an address whose MAC nobody here knows: it does nothing else meanwhile, some 20 ms for a thousand.
const LISTED: u32 = 20_000;

/// The paths to what was asked for.
#[derive(Default)]
struct Paths {
    found: Vec<RoutePath>,
    /// Why there may be more, for an address of which nothing was found.
    unlisted: Option<Unheard>,
}

/// The paths to the MAC or address that was asked for, and to what belongs to it.
fn of_asked(frr: &mut Frr, world: &World, networks: &[NetworkRecord], asked: &Asked) -> Result<Paths, Unheard> {
    if networks.is_empty() {
        return Ok(Paths::default());
    }
    let vnis = networks.iter().map(|record| record.network.vni);
    let bridges: Vec<u32> = networks.iter().filter_map(|r| world.link(&r.network.bridge)).map(|l| l.index).collect();
    match asked {
        Asked::Name(_) => Ok(Paths::default()),
        Asked::Mac(mac) => {
            let mut ips = BTreeSet::new();
            for vni in vnis {
                ips.extend(frr.mac_with_addresses(vni, *mac)?.1);
            }
            Ok(Paths { found: frr.received(*mac, &Vec::from_iter(ips))?, unlisted: None })
        }
        Asked::Ip(ip) => {
            let mut macs: BTreeSet<Mac> = bridges.iter().filter_map(|bridge| world.neigh(*bridge, *ip)?.mac).collect();
            for vni in vnis {
                macs.extend(frr.arp(vni, *ip)?.mac());
            }
            let mut found = Vec::new();
            for mac in &macs {
                found.extend(frr.received(*mac, &[*ip])?);
            }
            if found.iter().any(|path| path.ip == Some(*ip)) {
                return Ok(Paths { found, unlisted: None });
            }
            // Whoever has it is announced with another MAC, or not taken in here.
            let routes: u32 = frr.evpn_peers()?.iter().map(|peer| peer.received).sum();
            let listed = match routes {
                0..=LISTED => frr.received_of_address(*ip).map_err(Unheard::from),
                _ => Err(Unheard::Untold(format!(
                    "bgpd has {routes} routes, and is not asked for all of them to find one address"
                ))),
            };
            let unlisted = match listed {
                Ok(listed) => {
                    found.extend(listed);
                    None
                }
                Err(unheard @ Unheard::Silent(_)) => return Err(unheard),
                Err(unheard @ Unheard::Untold(_)) => Some(unheard),
            };
            Ok(Paths { found, unlisted })
        }
    }
}

/// What zebra has of another host's guest.
fn of_stranger(frr: &mut Frr, record: &NetworkRecord, mac: Mac, ips: &[IpAddr]) -> Result<Advertised, SpeakerError> {
    let vni = record.network.vni;
    let state = frr.mac(vni, mac)?;
    let mut known = Advertised { mac, state, route: false, ips: Vec::new() };
    for ip in ips {
        known.ips.push(Address { ip: *ip, state: frr.arp(vni, *ip)?, route: false });
    }
    Ok(known)
}
