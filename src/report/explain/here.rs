//! A guest of this host: from its NIC to the peers that were told of it. Pure.

use super::facts::{Frr, Here, Segment};
use super::{Finding, Links, mend, segment};
use crate::config::PortSecurity;
use crate::model::{GuestKind, Mac};
use crate::plan::Step;
use crate::plan::duplicate::Duplicate;
use crate::plan::guard::{Lets, guard};
use crate::plan::learn::unfit;
use crate::register::{Endpoint, Stage};
use crate::speaker::{ArpState, MacState, Peer};
use std::net::IpAddr;

/// The chain.
pub(super) fn links(s: &Segment, here: &Here) -> Links {
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
        let again = segment::read_again(&s.network.vni.device());
        links.add("bgp-route", mac, Finding::broken(format!("bgpd does not have VNI {}", s.network.vni), Some(again)));
    }
    for (ip, _) in &frr.announced {
        let object = ip.map_or(mac.to_string(), |ip| format!("{mac} {ip}"));
        links.add("bgp-route", object, route(s, frr, mac, *ip));
    }
    segment::peers(&mut links, s, frr, |peer| told(frr, peer));
    links
}

fn guest(s: &Segment, here: &Here) -> Finding {
    let e = here.endpoint;
    let Some(mac) = e.mac else {
        let hint = "a container's MAC is read at its start: start it again, or attach it by hand";
        return Finding::advice("its MAC is not known", hint);
    };
    let addresses: Vec<String> = e.ips.iter().map(|a| format!("{} ({})", a.ip, a.source)).collect();
    let addresses = if addresses.is_empty() { "no address known".to_owned() } else { addresses.join(", ") };
    if e.stage == Stage::Incoming {
        return Finding::Holds(format!(
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
        return Finding::Holds(format!("{mac}, {addresses}"));
    }
    let speaks: Vec<String> = speaks.iter().map(ToString::to_string).collect();
    let evidence = format!("it speaks as {}, and is registered as {addresses}", speaks.join(", "));
    if here.agent_runs {
        return Finding::advice(
            evidence,
            "evpn-agent learns what a guest says next: see its log for why it did not take this",
        );
    }
    if here.guest.kind == GuestKind::Manual {
        let ips = e.ips.iter().map(|a| a.ip.to_string()).chain(speaks);
        let ips: String = ips.map(|ip| format!(" --ip {ip}")).collect();
        let (network, name) = (mend::word(e.network.as_str()), mend::word(&here.guest.name));
        let attach = format!("evpn-hook attach {} --network {network} --mac {mac}{ips} --guest {name}", e.device);
        let hint = "leave out the addresses that the guest does not have any more";
        return Finding::Broken { evidence, mend: Some(attach), hint: Some(hint.into()) };
    }
    Finding::Broken {
        evidence,
        mend: Some("systemctl enable --now evpn-agent".into()),
        hint: Some(
            "the agent learns the address when the guest speaks; or declare it and start the guest again".into(),
        ),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn device(s: &Segment, here: &Here) -> Finding {
    let dev = &here.endpoint.device;
    let Some(link) = s.world.link(dev) else {
        let hint = "its guest has ended, or its hypervisor gave the NIC another device: 'evpn-hook sync' withdraws it where that is known";
        return Finding::Broken {
            evidence: "there is no such device".into(),
            mend: mend::sync(),
            hint: Some(hint.into()),
        };
    };
    let now = segment::device(s.world, dev);
    if !link.up {
        return Finding::broken(now, mend::sync());
    }
    if !link.carrier {
        let hint = "the guest's end of it is down, or nobody has it open";
        return Finding::advice(now, hint);
    }
    if let Some(mtu) = steps(here).find_map(|step| match step {
        Step::SetMtu { mtu, .. } => Some(*mtu),
        _ => None,
    }) {
        return Finding::broken(format!("{now}; {}'s is {mtu}", here.endpoint.bridge), mend::sync());
    }
    Finding::Holds(now)
}

fn steps<'a>(here: &'a Here) -> impl Iterator<Item = &'a Step> {
    here.mends.iter().flatten().map(|p| &p.step)
}

fn port(s: &Segment, here: &Here) -> Finding {
    let e = here.endpoint;
    let (Some(link), Some(bridge)) = (s.world.link(&e.device), s.world.link(&e.bridge)) else {
        return Finding::broken("not a port, for one of the two is not there", None);
    };
    match link.master {
        Some(master) if master == bridge.index => {
            let on = |flag: Option<bool>| flag.map_or("?", |on| if on { "on" } else { "off" });
            let flags = (on(link.port.learning), on(link.port.neigh_suppress));
            let now = format!("a port of {}, learning {}, neigh_suppress {}", e.bridge, flags.0, flags.1);
            if let Some(step) = steps(here).find(|step| matches!(step, Step::IsolateTunnel { .. })) {
                let what = format!("{now}; isolated on this host alone: guests of other hosts reach it without {step}");
                return Finding::broken(what, mend::sync());
            }
            if e.port_security == PortSecurity::Off {
                return Finding::Holds(now);
            }
            let now = format!("{now}, locked {}", on(link.port.locked));
            let lacks = |step: &&Step| matches!(step, Step::Guard { .. } | Step::LockPort { .. });
            match steps(here).find(lacks) {
                Some(step) => {
                    Finding::broken(format!("{now}; port security {} wants {step}", e.port_security), mend::sync())
                }
                None => Finding::Holds(format!("{now}, port security {}: {}", e.port_security, lets_in(e))),
            }
        }
        Some(other) => {
            let other = s.world.by_index(other).map_or(other.to_string(), |l| l.name.to_string());
            Finding::broken(format!("a port of {other}, not of {}", e.bridge), mend::sync())
        }
        None => Finding::broken(format!("on no bridge, expected {}", e.bridge), mend::sync()),
    }
}

/// As whom it may send.
fn lets_in(e: &Endpoint) -> String {
    let who =
        guard(e.port_security, e.mac, &e.ips).into_iter().filter(|l| !matches!(l, Lets::Guarded(_) | Lets::Names(_)));
    who.map(|lets| lets.to_string()).collect::<Vec<_>>().join(", ")
}

/// Another guest's claim to the same.
fn duplicate<'a>(here: &'a Here, ip: Option<IpAddr>) -> Option<&'a Duplicate> {
    here.duplicates.iter().find(|d| d.ip == ip)
}

fn fdb(s: &Segment, here: &Here, mac: Mac) -> Finding {
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

fn neighbour(s: &Segment, here: &Here, mac: Mac, ip: IpAddr) -> Finding {
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

fn entry_of(now: String, lacks: bool, here: &Here, other: Option<&Duplicate>, wanted: String) -> Finding {
    let refused = here.mends.as_ref().err().map(ToString::to_string);
    let also = other.map_or(String::new(), |d| format!("; {d}"));
    let hint = other.map(|d| d.mend().to_owned());
    match (lacks, other) {
        (false, None) => Finding::Holds(now),
        (false, Some(_)) => Finding::Broken { evidence: format!("{now}{also}"), mend: None, hint },
        (true, _) => {
            let mend = if refused.is_some() { None } else { mend::sync() };
            Finding::Broken { evidence: format!("{now}; {wanted}{also}"), mend, hint: hint.or(refused) }
        }
    }
}

// ----- FRR -----

fn zebra(links: &mut Links, here: &Here, frr: &Frr, mac: Mac, s: &Segment) {
    let Some(known) = &frr.known else { return };
    links.add("zebra-mac", mac, zebra_mac(s, here, &known.state, mac));
    for address in &known.ips {
        let ip = address.ip;
        let finding = match &address.state {
            ArpState::Active { mac: has } if *has == mac => {
                Finding::Holds(format!("zebra has it as local, active, {mac}"))
            }
            ArpState::Active { mac: has } | ArpState::Inactive { mac: has } if *has != mac => {
                Finding::broken(format!("zebra has it with {has}, not {mac}"), mend::sync())
            }
            ArpState::Active { .. } | ArpState::Inactive { .. } => {
                Finding::broken("zebra has it as inactive, and does not advertise it", mend::sync())
            }
            ArpState::Remote { mac, vtep } => {
                Finding::broken(format!("zebra has it behind VTEP {}, {mac}", or_another(*vtep)), mend::sync())
            }
            ArpState::Absent => Finding::broken("zebra does not know it", mend::sync()),
        };
        links.add("zebra-neighbour", ip, finding);
    }
}

fn zebra_mac(s: &Segment, here: &Here, state: &MacState, mac: Mac) -> Finding {
    let device = here.endpoint.device.as_str();
    match state {
        MacState::Local { duplicate: true, .. } => {
            let vni = s.network.vni;
            let clear = format!("vtysh -c 'clear evpn dup-addr vni {vni} mac {mac}'");
            Finding::Broken {
                evidence: "zebra has frozen it as a duplicate: it moved too often between two hosts".into(),
                mend: Some(clear),
                hint: Some("find the other guest first, or it freezes again".into()),
            }
        }
        MacState::Local { port, seq, sticky, .. } if port == device => {
            let sticky = if *sticky { ", sticky" } else { "" };
            Finding::Holds(format!("zebra has it as local on {port}, sequence {seq}{sticky}"))
        }
        MacState::Local { port, .. } => {
            Finding::broken(format!("zebra has it on {port}, not on {device}"), mend::sync())
        }
        MacState::Inactive { port } => Finding::broken(format!("zebra has it on {port} as aged"), mend::sync()),
        MacState::Remote { vtep } => {
            Finding::broken(format!("zebra has it behind VTEP {}", or_another(*vtep)), mend::sync())
        }
        MacState::Auto => Finding::broken("zebra has only its addresses", mend::sync()),
        MacState::Absent => Finding::broken("zebra does not know it", mend::sync()),
    }
}

fn or_another(vtep: Option<IpAddr>) -> String {
    vtep.map_or("(another)".to_owned(), |v| v.to_string())
}

/// Is it bgpd's own and best, and may it be routed?
fn route(s: &Segment, frr: &Frr, mac: Mac, ip: Option<IpAddr>) -> Finding {
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
        return Finding::broken(evidence, mend::sync());
    };
    let router = if path.routed { ", router MAC" } else { "" };
    let evidence = format!("RD {}, RT {}{router}, sequence {}", path.rd, path.targets.join(" "), path.seq);
    if !best {
        let evidence = [&[format!("bgpd has it, but not as best: {evidence}")][..], &others].concat().join("; ");
        return Finding::broken(evidence, mend::sync());
    }
    // A link-local address is never routed; to any other that is not, other hosts can only bridge.
    match s.network.vrf.as_ref().and_then(|v| v.vni).filter(|_| ip.is_some_and(|ip| !is_link_local(ip))) {
        Some(l3) if !path.routed => {
            let again = segment::read_again(&l3.device());
            Finding::broken(format!("bgpd announces it without L3VNI {l3}: {evidence}"), Some(again))
        }
        _ => Finding::Holds(format!("best, {evidence}")),
    }
}

/// Did this peer get all of it?
fn told(frr: &Frr, peer: &Peer) -> Finding {
    let held: Vec<_> = frr.announced.iter().filter(|(_, a)| a.path.is_some()).collect();
    if held.is_empty() {
        return Finding::broken("Established, and nothing of this guest to send", None);
    }
    let lacking: Vec<String> = held
        .into_iter()
        .filter(|(_, a)| !a.to.contains(&peer.name))
        .map(|(ip, _)| ip.map_or("the MAC".to_owned(), |ip| ip.to_string()))
        .collect();
    if lacking.is_empty() {
        return Finding::Holds(format!(
            "Established, all sent ({} routes sent, {} received)",
            peer.sent, peer.received
        ));
    }
    let evidence = format!("Established, but not told of {}", lacking.join(", "));
    let ours = format!("neighbor {} ", peer.name);
    let filters = ["route-map", "filter-list", "prefix-list"];
    let instance = frr.running.evpn();
    let line = instance.into_iter().flat_map(|i| &i.lines).map(|(family, line)| (family, line.as_str())).find(
        |(family, line)| {
            let rest = line.strip_prefix(&ours).unwrap_or_default();
            *family == "l2vpn evpn" && rest.ends_with(" out") && filters.iter().any(|f| rest.starts_with(f))
        },
    );
    match line {
        Some((_, line)) => {
            let unfilter = mend::evpn(&frr.running, &[format!("no {line}")]);
            Finding::broken(format!("{evidence}: '{line}' holds it back"), unfilter)
        }
        None => {
            let again = format!("vtysh -c 'clear bgp l2vpn evpn {} soft out'", peer.name);
            Finding::Broken {
                evidence,
                mend: Some(again),
                hint: Some("where that does not help, a filter of its peer group or a policy holds it back".into()),
            }
        }
    }
}

#[cfg(test)]
#[path = "here_test.rs"]
mod tests;
