//! A guest of this host: from its NIC to the peers that were told of it. Pure.

use super::facts::{GuestFacts, RouteFacts, SegmentFacts};
use super::{Links, segment, sync};
use crate::checks::{Finding, Verdict, cure, fabric};
use crate::config::PortSecurity;
use crate::model::{GuestKind, Mac};
use crate::plan::Step;
use crate::plan::duplicate::Duplicate;
use crate::plan::guard::{Lets, guard};
use crate::plan::learn::unfit;
use crate::register::{Endpoint, Stage};
use crate::speaker::{Advertised, MacState, Peer};
use std::net::IpAddr;

/// The chain.
pub(super) fn links(s: &SegmentFacts, here: &GuestFacts) -> Links {
    let mut links = Links::default();
    let endpoint = here.endpoint;
    links.add("guest", here.guest, guest(s, here));
    links.add("device", &endpoint.device, device(s, here));
    links.add("port", &endpoint.device, port(s, here));
    segment::kernel(&mut links, s);
    let (Some(mac), false) = (endpoint.mac, endpoint.stage == Stage::Incoming) else { return links };
    links.add("fdb", mac, fdb(s, here, mac));
    for ip in endpoint.addresses() {
        links.add("neighbour", ip, neighbour(s, here, mac, ip));
    }
    let spoke = segment::speaker(&mut links, s);
    let Some(frr) = &s.frr else { return links };
    if !spoke {
        let vni = s.network.vni;
        segment::unheard(
            &mut links,
            &[("zebra-vni", &vni), ("zebra-mac", &mac), ("bgp-route", &mac), ("peer", &"all")],
        );
        return links;
    }
    zebra(&mut links, here, frr, mac, s);
    if frr.targets.is_none() {
        let again = cure::read_again(s.network.vni);
        links.add("bgp-route", mac, Verdict::broken(format!("bgpd does not have VNI {}", s.network.vni), Some(again)));
    }
    for (ip, _) in &frr.announced {
        let object = ip.map_or(mac.to_string(), |ip| format!("{mac} {ip}"));
        links.add("bgp-route", object, route(s, frr, mac, *ip));
    }
    segment::peers(&mut links, s, frr, |peer| told(frr, peer));
    links
}

fn guest(s: &SegmentFacts, here: &GuestFacts) -> Verdict {
    let e = here.endpoint;
    let Some(mac) = e.mac else {
        let hint = "a container's MAC is read at its start: start it again, or attach it by hand";
        return Verdict::advice("its MAC is not known", hint);
    };
    let addresses: Vec<String> = e.ips.iter().map(|a| format!("{} ({})", a.ip, a.source)).collect();
    let addresses = if addresses.is_empty() { "no address known".to_owned() } else { addresses.join(", ") };
    if e.stage == Stage::Incoming {
        return Verdict::Holds(format!(
            "on its way from another host: wired here, announced there; {mac}, {addresses}"
        ));
    }
    // The kernel's own entries: what the guest said of itself to the gateway.
    let bridge = s.world.link(&e.bridge).map(|l| l.index);
    let mut speaks: Vec<IpAddr> = s
        .world
        .neighs()
        .filter(|(index, n)| Some(*index) == bridge && n.mac == Some(mac) && !n.ours && !n.ext_learned && !n.permanent)
        .map(|(_, n)| n.ip)
        .filter(|ip| !e.ips.iter().any(|a| a.ip == *ip) && !is_link_local(*ip) && unfit(s.network, *ip).is_none())
        .collect();
    speaks.sort();
    if speaks.is_empty() {
        return Verdict::Holds(format!("{mac}, {addresses}"));
    }
    let speaks: Vec<String> = speaks.iter().map(ToString::to_string).collect();
    let evidence = format!("it speaks as {}, and is registered as {addresses}", speaks.join(", "));
    if here.agent_runs {
        let hint = "evpn-agent learns what a guest says next: see its log for why it did not take this";
        return Verdict::advice(evidence, hint);
    }
    if here.guest.kind == GuestKind::Manual {
        let ips = e.ips.iter().map(|a| a.ip.to_string()).chain(speaks);
        let ips: String = ips.map(|ip| format!(" --ip {ip}")).collect();
        let (network, name) = (cure::word(e.network.as_str()), cure::word(&here.guest.name));
        let attach = format!("evpn-hook attach {} --network {network} --mac {mac}{ips} --guest {name}", e.device);
        let hint = "leave out the addresses that the guest does not have any more";
        return Finding::of_link(evidence).run(attach).note(hint).into();
    }
    let hint = "the agent learns the address when the guest speaks; or declare it and start the guest again";
    Finding::of_link(evidence).run(cure::AGENT).note(hint).into()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn device(s: &SegmentFacts, here: &GuestFacts) -> Verdict {
    let dev = &here.endpoint.device;
    let Some(link) = s.world.link(dev) else {
        let hint = "its guest has ended, or its hypervisor gave the NIC another device: 'evpn-hook sync' withdraws it where that is known";
        return Finding::of_link("there is no such device").sync().note(hint).into();
    };
    let now = segment::device(s.world, dev);
    if !link.up {
        return Verdict::broken(now, sync());
    }
    if !link.carrier {
        let hint = "the guest's end of it is down, or nobody has it open";
        return Verdict::advice(now, hint);
    }
    if let Some(mtu) = steps(here).find_map(|step| match step {
        Step::SetMtu { mtu, .. } => Some(*mtu),
        _ => None,
    }) {
        return Verdict::broken(format!("{now}; {}'s is {mtu}", here.endpoint.bridge), sync());
    }
    Verdict::Holds(now)
}

fn steps<'a>(here: &'a GuestFacts) -> impl Iterator<Item = &'a Step> {
    here.mends.iter().flatten().map(|p| &p.step)
}

fn port(s: &SegmentFacts, here: &GuestFacts) -> Verdict {
    let e = here.endpoint;
    let (Some(link), Some(bridge)) = (s.world.link(&e.device), s.world.link(&e.bridge)) else {
        return Verdict::broken("not a port, for one of the two is not there", None);
    };
    match link.master {
        Some(master) if master == bridge.index => {
            let on = |flag: Option<bool>| flag.map_or("?", |on| if on { "on" } else { "off" });
            let flags = (on(link.port.learning), on(link.port.neigh_suppress));
            let now = format!("a port of {}, learning {}, neigh_suppress {}", e.bridge, flags.0, flags.1);
            if let Some(step) = steps(here).find(|step| matches!(step, Step::IsolateTunnel { .. })) {
                let what = format!("{now}; isolated on this host alone: guests of other hosts reach it without {step}");
                return Verdict::broken(what, sync());
            }
            if e.port_security == PortSecurity::Off {
                return Verdict::Holds(now);
            }
            let now = format!("{now}, locked {}", on(link.port.locked));
            let lacks = |step: &&Step| matches!(step, Step::Guard { .. } | Step::LockPort { .. });
            match steps(here).find(lacks) {
                Some(step) => Verdict::broken(format!("{now}; port security {} wants {step}", e.port_security), sync()),
                None => Verdict::Holds(format!("{now}, port security {}: {}", e.port_security, lets_in(e))),
            }
        }
        Some(other) => {
            let other = s.world.by_index(other).map_or(other.to_string(), |l| l.name.to_string());
            Verdict::broken(format!("a port of {other}, not of {}", e.bridge), sync())
        }
        None => Verdict::broken(format!("on no bridge, expected {}", e.bridge), sync()),
    }
}

/// As whom it may send.
fn lets_in(e: &Endpoint) -> String {
    let who =
        guard(e.port_security, e.mac, &e.ips).into_iter().filter(|l| !matches!(l, Lets::Guarded(_) | Lets::Names(_)));
    who.map(|lets| lets.to_string()).collect::<Vec<_>>().join(", ")
}

/// Another guest's claim to the same.
fn duplicate<'a>(here: &'a GuestFacts, ip: Option<IpAddr>) -> Option<&'a Duplicate> {
    here.duplicates.iter().find(|d| d.ip == ip)
}

fn fdb(s: &SegmentFacts, here: &GuestFacts, mac: Mac) -> Verdict {
    let e = here.endpoint;
    let bridge = s.world.link(&e.bridge).map(|l| l.index);
    let entry = bridge.and_then(|bridge| s.world.fdb(bridge, mac));
    let port = |index: u32| s.world.by_index(index).map_or(index.to_string(), |l| l.name.to_string());
    let now = entry.map_or(format!("{} has no entry", e.bridge), |f| {
        format!("on {}, {}", port(f.port), if f.is_static { "static" } else { "learned" })
    });
    let lacks = here.mends.is_err() || steps(here).any(|step| matches!(step, Step::AddFdb { .. }));
    entry_of(now, lacks, here, duplicate(here, None), format!("wanted static on {}", e.device))
}

fn neighbour(s: &SegmentFacts, here: &GuestFacts, mac: Mac, ip: IpAddr) -> Verdict {
    let e = here.endpoint;
    let entry = s.world.link(&e.bridge).and_then(|bridge| s.world.neigh(bridge.index, ip));
    let now = entry.map_or(format!("{} has no entry", e.bridge), |n| {
        let whose = if n.ext_learned {
            "of another VTEP"
        } else if n.permanent {
            "permanent"
        } else {
            "learned"
        };
        let mac = n.mac.map_or("without MAC".to_owned(), |mac| mac.to_string());
        format!("{mac} on {}, {whose}", e.bridge)
    });
    let lacks = here.mends.is_err() || steps(here).any(|step| matches!(step, Step::AddNeigh { ip: i, .. } if *i == ip));
    entry_of(now, lacks, here, duplicate(here, Some(ip)), format!("wanted {mac}, permanent"))
}

fn entry_of(now: String, lacks: bool, here: &GuestFacts, other: Option<&Duplicate>, wanted: String) -> Verdict {
    let refused = here.mends.as_ref().err().map(ToString::to_string);
    let also = other.map_or(String::new(), |d| format!("; {d}"));
    let hint = other.map_or("", Duplicate::mend).to_owned();
    match (lacks, other) {
        (false, None) => Verdict::Holds(now),
        (false, Some(_)) => Finding::of_link(format!("{now}{also}")).by(hint).into(),
        (true, _) => {
            let found = Finding::of_link(format!("{now}; {wanted}{also}"));
            match refused {
                Some(refused) => found.by(if hint.is_empty() { refused } else { hint }).into(),
                None => found.sync().note(hint).into(),
            }
        }
    }
}

// ----- FRR -----

fn zebra(links: &mut Links, here: &GuestFacts, frr: &RouteFacts, mac: Mac, s: &SegmentFacts) {
    let Some(known) = &frr.known else { return };
    links.add("zebra-mac", mac, zebra_mac(s, here, frr, known));
    for address in &known.ips {
        let verdict = match address.problem_in_zebra(mac) {
            Some(problem) => Verdict::broken(problem, sync()),
            None => Verdict::Holds(format!("zebra has it as local, active, {mac}")),
        };
        links.add("zebra-neighbour", address.ip, verdict);
    }
}

fn zebra_mac(s: &SegmentFacts, here: &GuestFacts, frr: &RouteFacts, known: &Advertised) -> Verdict {
    let device = here.endpoint.device.as_str();
    match &known.state {
        MacState::Local { duplicate: true, .. } => {
            fabric::duplicate(frr.speaker.running.evpn(), s.network.vni, "mac", &known.mac.to_string()).into()
        }
        MacState::Local { port, seq, sticky, .. } if port == device => {
            let sticky = if *sticky { ", sticky" } else { "" };
            Verdict::Holds(format!("zebra has it as local on {port}, sequence {seq}{sticky}"))
        }
        MacState::Local { port, .. } => Verdict::broken(format!("zebra has it on {port}, not on {device}"), sync()),
        _ => Verdict::broken(known.problem_in_zebra().unwrap_or_default(), sync()),
    }
}

fn or_another(vtep: Option<IpAddr>) -> String {
    vtep.map_or("(another)".to_owned(), |v| v.to_string())
}

/// Is it bgpd's own and best, and may it be routed?
fn route(s: &SegmentFacts, frr: &RouteFacts, mac: Mac, ip: Option<IpAddr>) -> Verdict {
    let announced = frr.announced.iter().find(|(of, _)| *of == ip).map(|(_, a)| a);
    let best = frr.known.as_ref().is_some_and(|k| match ip {
        None => k.route,
        Some(ip) => k.ips.iter().any(|a| a.ip == ip && a.route),
    });
    let others: Vec<String> = frr
        .received
        .iter()
        .filter(|p| !p.own && p.mac == mac && p.ip == ip && p.best)
        .map(|p| format!("VTEP {} announces it with sequence {}", or_another(p.vtep), p.seq))
        .collect();
    let Some(path) = announced.and_then(|a| a.path.as_ref()) else {
        let evidence = [&["bgpd has no route of its own".to_owned()][..], &others].concat().join("; ");
        return Verdict::broken(evidence, sync());
    };
    let router = if path.routed { ", router MAC" } else { "" };
    let evidence = format!("RD {}, RT {}{router}, sequence {}", path.rd, path.targets.join(" "), path.seq);
    if !best {
        let evidence = [&[format!("bgpd has it, but not as best: {evidence}")][..], &others].concat().join("; ");
        return Verdict::broken(evidence, sync());
    }
    // A link-local address is never routed; to any other that is not, other hosts can only bridge.
    match s.network.vrf.as_ref().and_then(|v| v.vni).filter(|_| ip.is_some_and(|ip| !is_link_local(ip))) {
        Some(l3) if !path.routed => {
            let again = cure::read_again(l3);
            Verdict::broken(format!("bgpd announces it without L3VNI {l3}: {evidence}"), Some(again))
        }
        _ => Verdict::Holds(format!("best, {evidence}")),
    }
}

/// Did this peer get all of it?
fn told(frr: &RouteFacts, peer: &Peer) -> Verdict {
    let held: Vec<_> = frr.announced.iter().filter(|(_, a)| a.path.is_some()).collect();
    if held.is_empty() {
        return Verdict::broken("Established, and nothing of this guest to send", None);
    }
    let lacking: Vec<String> = held
        .into_iter()
        .filter(|(_, a)| !a.to.contains(&peer.name))
        .map(|(ip, _)| ip.map_or("the MAC".to_owned(), |ip| ip.to_string()))
        .collect();
    if lacking.is_empty() {
        return Verdict::Holds(format!(
            "Established, all sent ({} routes sent, {} received)",
            peer.sent, peer.received
        ));
    }
    let evidence = format!("Established, but not told of {}", lacking.join(", "));
    let ours = format!("neighbor {} ", peer.name);
    let filters = ["route-map", "filter-list", "prefix-list"];
    let instance = frr.speaker.running.evpn();
    let line = instance.into_iter().flat_map(|i| &i.lines).map(|(family, line)| (family, line.as_str())).find(
        |(family, line)| {
            let rest = line.strip_prefix(&ours).unwrap_or_default();
            *family == "l2vpn evpn" && rest.ends_with(" out") && filters.iter().any(|f| rest.starts_with(f))
        },
    );
    match line {
        Some((_, line)) => {
            let unfilter = instance.and_then(|evpn| cure::evpn(evpn, &[format!("no {line}")]));
            Verdict::broken(format!("{evidence}: '{line}' holds it back"), unfilter)
        }
        None => {
            let again = format!("vtysh -c 'clear bgp l2vpn evpn {} soft out'", peer.name);
            let hint = "where that does not help, a filter of its peer group or a policy holds it back";
            Finding::of_link(evidence).run(again).note(hint).into()
        }
    }
}

#[cfg(test)]
#[path = "here_test.rs"]
mod tests;
