//! Which guest is meant: by its name, its device, its MAC or its address. Pure.

use crate::checks::unheard::Unheard;
use crate::model::{Guest, IfName, Mac, quoted};
use crate::plan::Refusal;
use crate::plan::seen::{LinkKind, World};
use crate::register::{Endpoint, GuestRecord, NetworkRecord};
use crate::speaker::RoutePath;
use std::net::IpAddr;

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Ip(IpAddr),
    Mac(Mac),
    Name(String),
}

impl Asked {
    pub(super) fn of(text: &str) -> Asked {
        if let Ok(ip) = text.parse() {
            Asked::Ip(ip)
        } else if let Ok(mac) = text.parse() {
            Asked::Mac(mac)
        } else {
            Asked::Name(text.to_owned())
        }
    }
}

/// A guest of another host, as far as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stranger<'a> {
    pub(super) record: &'a NetworkRecord,
    pub(super) mac: Option<Mac>,
    pub(super) ips: Vec<IpAddr>,
}

/// This host's NICs that are meant: all of one guest, or one. None where no guest of this host is.
pub(super) fn here<'a>(asked: &Asked, records: &'a [GuestRecord]) -> Result<Vec<(&'a Guest, &'a Endpoint)>, Refusal> {
    let is = |guest: &Guest, e: &Endpoint| match asked {
        Asked::Ip(ip) => e.ips.iter().any(|a| a.ip == *ip),
        Asked::Mac(mac) => e.mac == Some(*mac),
        Asked::Name(name) => guest.name == *name || guest.id == *name || e.device.as_str() == name,
    };
    let all = records.iter().flat_map(|r| r.endpoints.iter().map(move |e| (&r.guest, e)));
    let found: Vec<_> = all.filter(|(guest, e)| is(guest, e)).collect();
    let one_guest = found.iter().all(|(guest, _)| guest.is(found[0].0));
    if found.len() < 2 || one_guest && matches!(asked, Asked::Name(_)) {
        return Ok(found);
    }
    let names: Vec<String> = found.iter().map(|(guest, e)| format!("{guest} ({})", e.device)).collect();
    Err(Refusal(format!("{}: more than one has it: {}: name one by its device", words(asked), names.join(", "))))
}

/// The guest of another host that has this MAC or address: on the network whose kernel entries or routes know it, else where the address belongs. `unheard`
/// is why the routes are not told, where they are not.
pub(super) fn away<'a>(
    asked: &Asked,
    networks: &'a [NetworkRecord],
    world: &World,
    received: &[RoutePath],
    unheard: Option<&Unheard>,
) -> Result<Stranger<'a>, Refusal> {
    let Some(first) = networks.first() else {
        return Err(Refusal(format!(
            "{}: no network of evpn-hook's is up on this host: 'virsh net-start NAME' or 'evpn-hook network up NAME'",
            words(asked)
        )));
    };
    let strangers: Vec<Stranger> = match asked {
        Asked::Name(name) => return Err(Refusal(unknown_name(name, networks, world))),
        Asked::Ip(ip) => {
            if let Some(gateway) = networks.iter().find(|r| r.network.gateway.iter().any(|g| g.addr() == *ip)) {
                let name = &gateway.network.name;
                return Err(Refusal(format!(
                    "{ip} is the gateway of network {name}, and no guest's: see 'evpn-hook status'"
                )));
            }
            networks.iter().filter_map(|record| by_ip(record, *ip, world, received, networks)).collect()
        }
        Asked::Mac(mac) => {
            let known: Vec<_> = networks.iter().filter_map(|record| by_mac(record, *mac, world, received)).collect();
            let only = || Stranger { record: first, mac: Some(*mac), ips: Vec::new() };
            if known.is_empty() && networks.len() == 1 { vec![only()] } else { known }
        }
    };
    // What is known beats what could be.
    let known: Vec<&Stranger> = strangers.iter().filter(|s| s.mac.is_some()).collect();
    let best = if known.is_empty() { strangers.iter().collect() } else { known };
    match best[..] {
        [one] => Ok(one.clone()),
        [] if unheard.is_some() => {
            let why = unheard.map(Unheard::why).unwrap_or_default();
            let name = if matches!(asked, Asked::Ip(_)) { "; name its MAC" } else { "" };
            Err(Refusal(format!(
                "{}: no guest of this host has it, and whether another has is not told: {why}{name}",
                words(asked)
            )))
        }
        [] => Err(Refusal(format!(
            "{}: no guest of this host has it, nor any other that is known here: ask on the host where the guest runs, or see 'evpn-hook status'",
            words(asked)
        ))),
        _ => {
            let names: Vec<&str> = best.iter().map(|s| s.record.network.name.as_str()).collect();
            Err(Refusal(format!(
                "{}: it is on more than one network ({}): name the guest's MAC or device",
                words(asked),
                names.join(", ")
            )))
        }
    }
}

fn by_ip<'a>(
    record: &'a NetworkRecord,
    ip: IpAddr,
    world: &World,
    received: &[RoutePath],
    networks: &[NetworkRecord],
) -> Option<Stranger<'a>> {
    let network = &record.network;
    let entry = world.link(&network.bridge).and_then(|l| world.neigh(l.index, ip));
    let subnet = network.gateway.iter().any(|g| g.contains(&ip));
    // An entry that this host has by mistake has the wrong MAC: what is announced comes first.
    let may_be = |p: &RoutePath| suits(record, p) || subnet && !networks.iter().any(|other| suits(other, p));
    let route = received.iter().filter(|p| p.ip == Some(ip) && !p.own && may_be(p)).max_by_key(|p| p.best);
    let mac = route.map(|p| p.mac).or(entry.and_then(|n| n.mac));
    (mac.is_some() || subnet).then(|| Stranger { record, mac, ips: vec![ip] })
}

fn by_mac<'a>(record: &'a NetworkRecord, mac: Mac, world: &World, received: &[RoutePath]) -> Option<Stranger<'a>> {
    let bridge = world.link(&record.network.bridge).map(|l| l.index);
    let in_fdb = bridge.is_some_and(|bridge| world.fdb(bridge, mac).is_some());
    let neighs = world.neighs().filter(|(index, n)| Some(*index) == bridge && n.mac == Some(mac));
    let mut ips: Vec<IpAddr> = neighs.map(|(_, n)| n.ip).collect();
    let routes: Vec<&RoutePath> = received.iter().filter(|p| p.mac == mac && !p.own && suits(record, p)).collect();
    ips.extend(routes.iter().filter_map(|p| p.ip));
    ips.sort();
    ips.dedup();
    (in_fdb || !ips.is_empty() || !routes.is_empty()).then_some(Stranger { record, mac: Some(mac), ips })
}

/// Is this route for that network? Its targets end in the VNI, unless somebody chose others.
fn suits(record: &NetworkRecord, path: &RoutePath) -> bool {
    let vni = format!(":{}", record.network.vni);
    path.targets.iter().any(|target| target.ends_with(&vni))
}

fn unknown_name(name: &str, networks: &[NetworkRecord], world: &World) -> String {
    let device = name.parse::<IfName>().ok().and_then(|name| world.link(&name));
    let on = |index: u32| networks.iter().find(|r| world.link(&r.network.bridge).is_some_and(|b| b.index == index));
    match device {
        Some(link) if matches!(link.kind, LinkKind::Other(_)) && link.index != 1 => {
            let network = link
                .master
                .and_then(on)
                .map_or("NET".to_owned(), |r| crate::checks::cure::word(r.network.name.as_str()));
            format!(
                "{name} is a device, but no guest's that evpn-hook knows: 'evpn-hook attach {name} --network {network} --mac MAC --ip IP' makes it one"
            )
        }
        Some(_) => format!("{name} is a device, but no guest's: name a guest, or see 'evpn-hook status'"),
        None => format!(
            "{}: no guest, device, MAC or address of this host: see 'evpn-hook status'; for a guest of another host name its MAC or address",
            quoted(name)
        ),
    }
}

fn words(asked: &Asked) -> String {
    match asked {
        Asked::Ip(ip) => ip.to_string(),
        Asked::Mac(mac) => mac.to_string(),
        Asked::Name(name) => quoted(name),
    }
}

#[cfg(test)]
#[path = "find_test.rs"]
mod tests;
