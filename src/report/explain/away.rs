//! A guest of another host: from what its VTEP announces to this kernel's entries. Pure.
//!
//! An entry of this host's own in its place comes first: FRR follows the kernel, so it is the cause of all that is wrong behind it.

use super::facts::{RouteFacts, SegmentFacts, StrangerFacts};
use super::{Links, segment};
use crate::checks::{Verdict, cure};
use crate::model::{IfName, Mac};
use crate::plan::seen::{Fdb, LinkKind, Neigh};
use crate::speaker::{ArpState, MacState, RoutePath};
use std::net::IpAddr;

/// The chain.
pub(super) fn links(s: &SegmentFacts, away: &StrangerFacts) -> Links {
    let mut links = Links::default();
    segment::kernel(&mut links, s);
    claims(&mut links, s, away);
    let spoke = segment::speaker(&mut links, s);
    let Some(frr) = &s.frr else {
        entries(&mut links, s, away);
        return links;
    };
    if !spoke {
        let object =
            away.mac.map(|mac| mac.to_string()).or(away.ips.first().map(ToString::to_string)).unwrap_or_default();
        let vni = s.network.vni;
        segment::unheard(
            &mut links,
            &[("zebra-vni", &vni), ("peer", &"all"), ("bgp-route", &object), ("import", &object)],
        );
        return links;
    }
    segment::peers(&mut links, s, frr, |peer| {
        Verdict::Holds(format!("Established, {} routes received", peer.received))
    });
    routes(&mut links, s, away, frr);
    let Some(mac) = away.mac else { return links };
    // What follows from a route is not known where the route is not.
    if frr.unlisted.is_some() && best(frr, mac).is_none() {
        return links;
    }
    let vtep = best(frr, mac).and_then(|p| p.vtep);
    links.add("import", mac, import(s, frr, mac));
    for address in frr.known.iter().flat_map(|k| &k.ips).filter(|a| announced(frr, mac, a.ip).is_some()) {
        links.add("zebra-neighbour", address.ip, zebra_neighbour(s, &address.state, mac));
    }
    links.add("fdb", mac, fdb(s, away, mac, vtep));
    for ip in away.ips.iter().filter(|ip| announced(frr, mac, **ip).is_some()) {
        links.add("neighbour", ip, neighbour(s, mac, *ip));
    }
    for (ip, route) in &away.routes {
        let Some(path) = announced(frr, mac, *ip).filter(|p| p.routed) else { continue };
        links.add("vrf-route", ip, vrf_route(s, path, route.as_ref()));
    }
    if let Some((vtep, route)) = &away.underlay {
        let finding = match route {
            Some(route) if route.local => Verdict::advice("an address of this host", "two hosts have one VTEP address"),
            Some(route) => Verdict::Holds(segment::way(s.world, route.via, route.device)),
            None => segment::no_way(s, frr),
        };
        links.add("underlay", vtep, finding);
    }
    links
}

/// The kernel's entries by themselves, where the speaker is one that we do not ask.
fn entries(links: &mut Links, s: &SegmentFacts, away: &StrangerFacts) {
    let none = |bridge: &IfName| {
        Verdict::advice(format!("{bridge} has no entry"), "ask the speaker whether another host announces it")
    };
    let bridge = &s.network.bridge;
    let index = s.world.link(bridge).map(|l| l.index);
    if let Some(mac) = away.mac {
        let known = index.is_some_and(|index| s.world.fdb(index, mac).is_some());
        links.add("fdb", mac, if known { fdb(s, away, mac, None) } else { none(bridge) });
    }
    for ip in &away.ips {
        let known = index.and_then(|index| s.world.neigh(index, *ip)).and_then(|n| n.mac);
        links.add("neighbour", ip, known.map_or_else(|| none(bridge), |mac| neighbour(s, mac, *ip)));
    }
}

/// The best path to the MAC, with or without an address.
fn best(frr: &RouteFacts, mac: Mac) -> Option<&RoutePath> {
    let mut paths = frr.received.iter().filter(|p| !p.own && p.mac == mac && p.best);
    paths.clone().find(|p| p.ip.is_none()).or_else(|| paths.next())
}

fn announced(frr: &RouteFacts, mac: Mac, ip: IpAddr) -> Option<&RoutePath> {
    frr.received.iter().find(|p| !p.own && p.best && p.mac == mac && p.ip == Some(ip))
}

/// Entries that this host holds as if the guest were its own.
fn claims(links: &mut Links, s: &SegmentFacts, away: &StrangerFacts) {
    let Some(bridge) = s.world.link(&s.network.bridge) else { return };
    if let Some(mac) = away.mac
        && let Some(entry) = s.world.fdb(bridge.index, mac)
        && let Some(port) = s.world.by_index(entry.port)
        && entry.is_static
        && !matches!(port.kind, LinkKind::Vxlan { .. })
    {
        let evidence = format!("static on {} of this host, no guest of which has it", port.name);
        let del = format!("bridge fdb del {mac} dev {} master", port.name);
        links.add("fdb", mac, Verdict::broken(evidence, Some(del)));
    }
    for ip in &away.ips {
        let Some(entry) = s.world.neigh(bridge.index, *ip).filter(|n| n.permanent && !n.ext_learned) else { continue };
        let mac = entry.mac.map_or("without MAC".to_owned(), |mac| mac.to_string());
        let ours = if entry.ours { ", evpn-hook's mark on it" } else { "" };
        let evidence = format!("{mac} on {}, permanent{ours}, though no guest of this host has it", bridge.name);
        // zebra forgot the remote entry for this one, and bgpd tells it again only with the whole VNI.
        let again = cure::read_again(s.network.vni);
        let del = format!("ip neigh del {ip} dev {} && {again}", bridge.name);
        links.add("neighbour", ip, Verdict::broken(evidence, Some(del)));
    }
}

/// What other VTEPs announce; where none does, what the kernel holds is left over.
fn routes(links: &mut Links, s: &SegmentFacts, away: &StrangerFacts, frr: &RouteFacts) {
    let mut paths: Vec<&RoutePath> = frr.received.iter().filter(|p| !p.own && p.best).collect();
    paths.sort_by_key(|p| (p.mac, p.ip));
    for path in &paths {
        let object = path.ip.map_or(path.mac.to_string(), |ip| format!("{} {ip}", path.mac));
        let vtep = path.vtep.map_or("another".to_owned(), |v| v.to_string());
        let evidence = format!(
            "VTEP {vtep}, from {}, RD {}, RT {}, sequence {}",
            path.from,
            path.rd,
            path.targets.join(" "),
            path.seq
        );
        links.add("bgp-route", object, Verdict::Holds(evidence));
    }
    if let Some(why) = &frr.unlisted {
        // Its MAC's routes do not have it. Another's may: what the kernel has is not left over then.
        for ip in away.ips.iter().filter(|ip| paths.iter().all(|p| p.ip != Some(**ip))) {
            links.add("bgp-route", ip, Verdict::untold(why.to_string()));
        }
        return;
    }
    if !paths.is_empty() {
        return;
    }
    let object = away.mac.map(|mac| mac.to_string()).or(away.ips.first().map(ToString::to_string)).unwrap_or_default();
    let stale = leftovers(s, away);
    let left = "no other host announces it, and the kernel has entries for it still: a killed FRR left them";
    let elsewhere = "run 'evpn-hook explain' on the host where the guest runs: there the chain begins";
    let verdict = match stale.is_empty() {
        true => Verdict::advice("no other host announces it", elsewhere),
        false => Verdict::broken(left, Some(stale.join("; "))),
    };
    links.add("bgp-route", object, verdict);
}

/// The speaker's entries that nobody stands behind, as the commands that delete them.
fn leftovers(s: &SegmentFacts, away: &StrangerFacts) -> Vec<String> {
    let Some(bridge) = s.world.link(&s.network.bridge) else { return Vec::new() };
    let neigh = |ip: &IpAddr| s.world.neigh(bridge.index, *ip).filter(|n: &&Neigh| n.ext_learned).map(|_| *ip);
    let mut commands: Vec<String> =
        away.ips.iter().filter_map(neigh).map(|ip| format!("ip neigh del {ip} dev {}", bridge.name)).collect();
    let vxlan = s.network.vni.device();
    let learned = |f: &&Fdb| f.ext_learned && s.world.link(&vxlan).is_some_and(|v| v.index == f.port);
    if let Some(mac) = away.mac {
        if s.world.fdb(bridge.index, mac).filter(learned).is_some() {
            commands.push(format!("bridge fdb del {mac} dev {vxlan} master"));
        }
        if let Some(vtep) = away.tunnel.filter(|_| !commands.is_empty()) {
            commands.push(format!("bridge fdb del {mac} dev {vxlan} dst {vtep} self"));
        }
    }
    commands
}

/// Does zebra have the MAC? Only a route whose targets the VNI takes reaches it.
fn import(s: &SegmentFacts, frr: &RouteFacts, mac: Mac) -> Verdict {
    match frr.known.as_ref().map(|k| &k.state) {
        Some(MacState::Remote { vtep }) => {
            let vtep = vtep.map_or("another".to_owned(), |v| v.to_string());
            return Verdict::Holds(format!("zebra has it behind VTEP {vtep}"));
        }
        Some(MacState::Local { port, .. } | MacState::Inactive { port }) => {
            return Verdict::broken(format!("zebra has it as this host's own, on {port}"), None);
        }
        _ => {}
    }
    let vni = s.network.vni;
    let targets = frr.targets.clone().unwrap_or_default();
    let path = best(frr, mac);
    let evpn = frr.speaker.running.evpn();
    let is_configured = evpn.is_some_and(|evpn| !evpn.imports(Some(vni.get())).is_empty());
    let fits = path.is_some_and(|p| p.targets.iter().any(|t| takes(&targets.import, is_configured, t)));
    if path.is_none() {
        return Verdict::broken("zebra does not have it", None);
    }
    if fits {
        return Verdict::broken("zebra does not have it, though bgpd has its route", Some(cure::read_again(vni)));
    }
    let has = path.map(|p| p.targets.join(" ")).unwrap_or_default();
    let evidence = format!("its route has RT {has}, and VNI {vni} takes {}", targets.import.join(" "));
    if !is_configured {
        let hint = format!(
            "let the VTEP that announces it export a target of these, or 'route-target import' its own below 'vni {vni}'"
        );
        return Verdict::advice(evidence, hint);
    }
    Verdict::broken(evidence, evpn.and_then(|evpn| cure::unimport(evpn, Some(vni))))
}

/// Does a VNI with these targets take a route that has this one? What nobody configured counts for every AS (bgp_evpn.c `map_vni_to_rt`,
/// `mask_ecom_global_admin`), which FRR 10.8 shows as `*:20`.
fn takes(import: &[String], configured: bool, target: &str) -> bool {
    let number = |target: &str| target.rsplit(':').next().map(str::to_owned);
    let any_as = |wanted: &String| !configured || wanted.starts_with("*:");
    import.iter().any(|wanted| wanted == target || any_as(wanted) && number(wanted) == number(target))
}

fn zebra_neighbour(s: &SegmentFacts, state: &ArpState, mac: Mac) -> Verdict {
    let again = || Some(cure::read_again(s.network.vni));
    match state {
        ArpState::Remote { mac: has, .. } if *has == mac => Verdict::Holds(format!("zebra has it as remote, {mac}")),
        ArpState::Remote { mac: has, .. } => Verdict::broken(format!("zebra has it with {has}, not {mac}"), again()),
        ArpState::Active { mac: has } | ArpState::Inactive { mac: has } => {
            Verdict::broken(format!("zebra has it as this host's own, with {has}"), again())
        }
        ArpState::Absent => Verdict::broken("zebra does not have it, though bgpd has its route", again()),
    }
}

fn fdb(s: &SegmentFacts, away: &StrangerFacts, mac: Mac, vtep: Option<IpAddr>) -> Verdict {
    let vxlan = s.network.vni.device();
    let again = || Some(cure::read_again(s.network.vni));
    let bridge = s.world.link(&s.network.bridge).map(|l| l.index);
    let Some(entry) = bridge.and_then(|bridge| s.world.fdb(bridge, mac)) else {
        return Verdict::broken(format!("{} has no entry", s.network.bridge), again());
    };
    let port = s.world.by_index(entry.port).map_or(entry.port.to_string(), |l| l.name.to_string());
    if port != vxlan.as_str() {
        let del = format!("bridge fdb del {mac} dev {} master", cure::word(&port));
        let how = if entry.is_static { "static" } else { "learned" };
        return Verdict::broken(format!("{how} on {port}, expected on {vxlan}"), Some(del));
    }
    match (away.tunnel, vtep) {
        (Some(tunnel), Some(vtep)) if tunnel != vtep => {
            Verdict::broken(format!("{vxlan} sends it to {tunnel}, and {vtep} has it"), again())
        }
        (None, _) => Verdict::broken(format!("on {vxlan}, which has no VTEP for it"), again()),
        (Some(tunnel), _) => Verdict::Holds(format!("on {vxlan}, to {tunnel}")),
    }
}

fn neighbour(s: &SegmentFacts, mac: Mac, ip: IpAddr) -> Verdict {
    let again = || Some(cure::read_again(s.network.vni));
    let bridge = &s.network.bridge;
    let entry = s.world.link(bridge).and_then(|l| s.world.neigh(l.index, ip));
    match entry {
        Some(Neigh { mac: Some(has), ext_learned: true, .. }) if *has == mac => {
            Verdict::Holds(format!("{mac} on {bridge}, of FRR"))
        }
        Some(Neigh { mac: Some(has), .. }) if *has == mac => {
            Verdict::broken(format!("{mac} on {bridge}, learned and not FRR's"), again())
        }
        Some(Neigh { mac: Some(has), .. }) => Verdict::broken(format!("{has} on {bridge}, expected {mac}"), again()),
        _ => Verdict::broken(format!("{bridge} has no entry"), again()),
    }
}

fn vrf_route(s: &SegmentFacts, path: &RoutePath, route: Option<&crate::plan::seen::Route>) -> Verdict {
    let Some(vrf) = &s.network.vrf else { return Verdict::Holds("layer 2 only".into()) };
    let l3 = vrf.l3_bridge().ok().flatten().and_then(|l3| s.world.link(&l3));
    let way = route.map(|route| segment::way(s.world, route.via, route.device));
    let evidence = match way {
        Some(way) if route.map(|route| route.device) == l3.map(|l3| l3.index) => return Verdict::Holds(way),
        Some(way) => {
            let expected = l3.map_or("the L3VNI", |l3| l3.name.as_str());
            format!("VRF {} sends it {way}, expected dev {expected}", vrf.name)
        }
        None => format!("VRF {} has no route to it", vrf.name),
    };
    let (targets, vrf) = (path.targets.join(" "), &vrf.name);
    let hint = format!(
        "the VRF's 'route-target import' must take one of {targets}: see 'show bgp vrf {vrf} ipv4 unicast' in vtysh"
    );
    Verdict::advice(evidence, hint)
}

#[cfg(test)]
#[path = "away_test.rs"]
mod tests;
