//! Which addresses and MACs two live guests have, as far as this host can tell. Pure.
//!
//! The loser sees the winner's entries in place of its own. The winner sees nothing, since FRR has withdrawn the loser's routes: it goes by
//! what it took, as long as the fabric still has the loser's MAC (whose route FRR leaves alone).

use crate::model::{Guest, IfName, Mac};
use crate::plan::duplicate::{Duplicate, Holder};
use crate::plan::seen::{LinkKind, World};
use crate::register::{Endpoint, GuestRecord, Stage, Taken};
use std::collections::HashMap;
use std::net::IpAddr;

/// A MAC that is taken leaves no trace of its former owner. It is told of for so many seconds: until then a live one has taken it back, by
/// the agent after one, or by speaking.
const FRESH: u64 = 60;

/// Who of this host has what, by bridge.
#[derive(Debug, Default)]
pub struct Claims<'a> {
    ips: HashMap<(&'a IfName, IpAddr), Vec<(&'a Guest, Mac)>>,
    macs: HashMap<(&'a IfName, Mac), Vec<(&'a Guest, Mac)>>,
}

impl<'a> Claims<'a> {
    /// Of all records.
    pub fn of(records: &'a [GuestRecord]) -> Claims<'a> {
        let mut claims = Claims::default();
        for (guest, endpoint) in records.iter().flat_map(|r| r.endpoints.iter().map(|e| (&r.guest, e))) {
            let Some(mac) = endpoint.mac.filter(|_| endpoint.stage != Stage::Incoming) else { continue };
            claims.macs.entry((&endpoint.bridge, mac)).or_default().push((guest, mac));
            for address in &endpoint.ips {
                claims.ips.entry((&endpoint.bridge, address.ip)).or_default().push((guest, mac));
            }
        }
        claims
    }
}

/// What of this endpoint others have, too; `vtep_of` says where the segment's tunnel sends a MAC's frames, `now` is in seconds since boot.
pub fn of(
    world: &World,
    vtep_of: impl Fn(Mac) -> Option<IpAddr>,
    claims: &Claims,
    guest: &Guest,
    endpoint: &Endpoint,
    now: u64,
) -> Vec<Duplicate> {
    let (Some(own), Some(bridge)) = (endpoint.mac, world.link(&endpoint.bridge)) else { return Vec::new() };
    if endpoint.stage == Stage::Incoming {
        return Vec::new();
    }
    let remote = |mac: Mac, known: Option<IpAddr>| Holder::Vtep(vtep_of(mac).or(known));
    let here = |others: Option<&Vec<(&Guest, Mac)>>| {
        let other = others.into_iter().flatten().find(|(other, _)| !other.is(guest));
        other.map(|(other, mac)| (Holder::Here(other.to_string()), *mac))
    };
    let taken = |ip: Option<IpAddr>| endpoint.taken.iter().find(|t| t.ip == ip);

    let mac_holder = if is_behind_tunnel(world, bridge.index, own) {
        Some(remote(own, None))
    } else if let Some(fresh) = taken(None).filter(|t| now.saturating_sub(t.since) < FRESH) {
        Some(Holder::Vtep(fresh.vtep))
    } else {
        here(claims.macs.get(&(&endpoint.bridge, own))).map(|(holder, _)| holder)
    };
    let mut found: Vec<Duplicate> =
        mac_holder.map(|holder| Duplicate { ip: None, mac: own, holder }).into_iter().collect();
    for ip in endpoint.ips.iter().map(|a| a.ip) {
        let winner = world.neigh(bridge.index, ip).filter(|n| n.ext_learned).and_then(|n| n.mac);
        let other = if let Some(mac) = winner.filter(|mac| *mac != own) {
            Some((remote(mac, None), mac))
        } else if let Some(loser) = taken(Some(ip)).filter(|t| still_has(world, bridge.index, t)) {
            Some((remote(loser.mac, loser.vtep), loser.mac))
        } else {
            here(claims.ips.get(&(&endpoint.bridge, ip)))
        };
        found.extend(other.map(|(holder, mac)| Duplicate { ip: Some(ip), mac, holder }));
    }
    found
}

/// Is whoever lost this address still behind another VTEP, and without an address in its place?
fn still_has(world: &World, bridge: u32, taken: &Taken) -> bool {
    let Some(ip) = taken.ip else { return false };
    let another = |(index, n): (u32, &crate::plan::seen::Neigh)| {
        index == bridge && n.ext_learned && n.mac == Some(taken.mac) && n.ip != ip && n.ip.is_ipv4() == ip.is_ipv4()
    };
    is_behind_tunnel(world, bridge, taken.mac) && !world.neighs().any(another)
}

fn is_behind_tunnel(world: &World, bridge: u32, mac: Mac) -> bool {
    let entry = world.fdb(bridge, mac).filter(|f| f.ext_learned);
    let port = entry.and_then(|f| world.by_index(f.port));
    port.is_some_and(|port| matches!(port.kind, LinkKind::Vxlan { .. }))
}

#[cfg(test)]
#[path = "duplicates_test.rs"]
mod tests;
