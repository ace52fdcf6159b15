//! The links that all guests of a network on this host share: bridge, VXLAN, VTEP, VRF, L3VNI, FRR, its sessions. Pure.

use super::facts::{RouteFacts, SegmentFacts};
use super::{Links, sync};
use crate::checks::unheard::Unheard;
use crate::checks::{Finding, Verdict, bridges, cure, speaker, underlay};
use crate::config::Origin;
use crate::model::{IfName, Vni};
use crate::plan::seen::{Link, LinkKind, World};
use crate::plan::{Plan, Refusal, Step};
use crate::speaker::Peer;
use std::net::IpAddr;

/// Bridge to L3VNI, as the engine's plan for the network finds them.
pub(super) fn kernel(links: &mut Links, s: &SegmentFacts) {
    let network = s.network;
    links.add("bridge", &network.bridge, bridge(s));
    let vxlan = network.vni.device();
    // Without a tunnel end there is none of what tunnels: first what is missing, and then what follows from it.
    let Some(ip) = s.vtep else {
        let why = s.lacks.no_tunnel.clone().unwrap_or_else(|| "this host has no VTEP address".to_owned());
        links.add("vtep", &s.vtep_device, Verdict::advice(why, "give this host its VTEP address"));
        return;
    };
    links.add("vxlan", &vxlan, planned(s, "vxlan").unwrap_or_else(|| Verdict::Holds(device(s.world, &vxlan))));
    links.add("vtep", ip, vtep(s, ip));
    let Some(vrf) = &network.vrf else { return };
    let inside = || format!("{}; {} is in it", device(s.world, &vrf.name), network.bridge);
    links.add("vrf", &vrf.name, planned(s, "vrf").unwrap_or_else(|| Verdict::Holds(inside())));
    if let Some(vni) = vrf.vni {
        links.add("l3vni", vni, l3vni(s, &vrf.name, vni));
    }
}

fn bridge(s: &SegmentFacts) -> Verdict {
    let network = s.network;
    let Some(bridge) = s.world.link(&network.bridge) else {
        let name = cure::word(network.name.as_str());
        let again = match network.origin {
            Origin::Config => format!("evpn-hook network up {name}"),
            _ => format!("virsh net-destroy {name}; virsh net-start {name}"),
        };
        return Verdict::broken("there is no such device", Some(again));
    };
    planned(s, "bridge").unwrap_or_else(|| {
        let addresses = s.world.addresses(bridge.index).filter(|a| a.global).map(|a| format!(", {}", a.net));
        Verdict::Holds(device(s.world, &network.bridge) + &addresses.collect::<String>())
    })
}

fn vtep(s: &SegmentFacts, ip: IpAddr) -> Verdict {
    if let Some(why) = &s.lacks.speaks_not {
        return Verdict::advice(why, "no other host can reach this tunnel end");
    }
    underlay::vtep(s.world, ip, &s.vtep_device)
}

fn l3vni(s: &SegmentFacts, vrf: &IfName, vni: Vni) -> Verdict {
    if let Some(broken) = planned(s, "l3vni") {
        return broken;
    }
    let device = device(s.world, &vni.device());
    let Some(frr) = s.frr.as_ref().filter(|frr| frr.speaker.speaks()) else { return Verdict::Holds(device) };
    match frr.speaker.l3vni(vrf, vni) {
        Verdict::Holds(said) => Verdict::Holds(format!("{device}; {said}")),
        Verdict::Fails(found) => Finding { evidence: format!("{}; {device}", found.evidence), ..found }.into(),
    }
}

// ----- the engine's plan, link by link -----

/// What the engine would do to this link, or what is in its way; none where it would do nothing.
fn planned(s: &SegmentFacts, link: &str) -> Option<Verdict> {
    match &s.lacks.plan {
        Ok(plan) => {
            let steps: Vec<&Step> = missing(s, plan).into_iter().filter(|step| place(s, step) == link).collect();
            let words: Vec<String> = steps.iter().map(|step| said(s.world, step)).collect();
            (!steps.is_empty()).then(|| Verdict::broken(words.join("; "), sync()))
        }
        Err(refusal) => in_the_way(s, refusal).filter(|(at, _)| *at == link).map(|(_, verdict)| verdict),
    }
}

/// The steps without those that only follow from another: a bridge that enters its VRF lets its VXLAN go for that long, and has its addresses and
/// settings put back; a device that is not there is made, and all else of it comes with that.
fn missing<'a>(s: &SegmentFacts, plan: &'a Plan) -> Vec<&'a Step> {
    let vrf = s.network.vrf.as_ref().map(|v| &v.name);
    let bridge = &s.network.bridge;
    let enters = plan.iter().any(|p| match &p.step {
        Step::SetMaster { dev, master } => dev == bridge && master.is_some() && master.as_ref() == vrf,
        _ => false,
    });
    let follows = |step: &Step| match step {
        Step::SetMaster { master: None, .. } | Step::AwaitVrf { .. } => true,
        Step::SetMaster { dev, master: Some(master) } => {
            let (dev, master) = (s.world.link(dev), s.world.link(master));
            dev.is_none_or(|dev| master.is_some_and(|master| dev.master == Some(master.index)))
        }
        Step::AddAddress { dev, address } => {
            let has = |l: &Link| s.world.addresses(l.index).any(|a| a.net == *address);
            enters || s.world.link(dev).is_none_or(has)
        }
        Step::Sysctl { path, .. } => enters && path.split('/').nth(3) == Some(bridge.as_str()),
        Step::SetVxlanPort { dev } => s.world.link(dev).is_none_or(|l| l.master.is_none() || flags_hold(l)),
        Step::SetUp { dev, .. } => s.world.link(dev).is_none(),
        _ => false,
    };
    plan.iter().map(|p| &p.step).filter(|step| !follows(step)).collect()
}

fn flags_hold(port: &Link) -> bool {
    (port.port.learning, port.port.neigh_suppress) == (Some(false), Some(true))
}

/// Which link a step is about.
fn place(s: &SegmentFacts, step: &Step) -> &'static str {
    let network = s.network;
    let vrf = network.vrf.as_ref();
    let l3 = vrf.and_then(|v| v.l3_bridge().ok().flatten());
    let of = |dev: &str| {
        if dev == network.bridge.as_str() {
            "bridge"
        } else if dev == network.vni.device().as_str() {
            "vxlan"
        } else if l3.as_ref().is_some_and(|l3| dev == l3.as_str())
            || vrf.and_then(|v| v.vni).is_some_and(|vni| dev == vni.device().as_str())
        {
            "l3vni"
        } else {
            "vrf"
        }
    };
    match step {
        Step::SetMaster { dev, .. } if *dev == network.bridge => "vrf",
        Step::SpeakerAddVrf { .. } => "l3vni",
        // net/ipv4/conf/red-l2/rp_filter; the host's own are there for VRFs.
        Step::Sysctl { path, .. } => path.split('/').nth(3).map_or("vrf", of),
        _ => step.device().map_or("vrf", |dev| of(dev.as_str())),
    }
}

/// What a step says is not so.
fn said(world: &World, step: &Step) -> String {
    let now = |dev: &IfName| device(world, dev);
    match step {
        Step::SetUp { dev, .. } => format!("{dev} is down"),
        Step::SetMaster { dev, master: Some(master) } => format!("{dev} is not in {master}: {}", now(dev)),
        Step::AddVrf { name, .. } | Step::AddBridge { name, .. } => format!("{name} is not there"),
        Step::AddVxlan { vni, .. } => format!("{} is not there as wanted ('{step}')", vni.device()),
        Step::AddAddress { dev, address } => format!("{dev} has lost its address {address}"),
        Step::SpeakerAddVrf { vrf } => speaker::lacks_vrf(vrf),
        step => match &bridges::of_step(world, step)[..] {
            [] => format!("missing: {step}"),
            found => found.iter().map(|f| format!("{}: {}", f.object, f.evidence)).collect::<Vec<_>>().join("; "),
        },
    }
}

/// Why the engine refuses to plan, by what is there: the link, and the command that clears the way. What is not evpn-hook's and not in its place
/// is nobody's to delete on a guess.
fn in_the_way(s: &SegmentFacts, refusal: &Refusal) -> Option<(&'static str, Verdict)> {
    let (network, world) = (s.network, s.world);
    let vrf = network.vrf.as_ref();
    let l3 = vrf.and_then(|v| v.l3_bridge().ok().flatten());
    let vnis = [("vxlan", Some(network.vni), Some(&network.bridge)), ("l3vni", vrf.and_then(|v| v.vni), l3.as_ref())];
    for (link, vni, bridge) in vnis.into_iter().filter_map(|(link, vni, bridge)| Some((link, vni?, bridge))) {
        let bridge = bridge.and_then(|name| world.link(name)).map(|l| l.index);
        let wrong = |l: &&Link| match &l.kind {
            LinkKind::Vxlan { vni: has, local, learning, .. } => {
                let right = l.name == vni.device() && *has == Some(vni);
                let placed = l.master.is_none() || l.master == bridge;
                (l.name == vni.device() || *has == Some(vni)) && !(right && placed && *local == s.vtep && !learning)
            }
            _ => l.name == vni.device(),
        };
        let Some(other) = world.links().find(wrong) else { continue };
        let evidence = format!("{}: {}; {refusal}", other.name, device(world, &other.name));
        let is_its = other.ours || other.name == vni.device() && matches!(other.kind, LinkKind::Vxlan { .. });
        let name = &other.name;
        let hint =
            format!("{name} is not evpn-hook's: delete it if it is nobody's, or give one of the two another VNI");
        let verdict = match is_its {
            true => Verdict::broken(evidence, Some(format!("ip link del {name} && evpn-hook sync"))),
            false => Verdict::advice(evidence, hint),
        };
        return Some((link, verdict));
    }
    for (link, dev) in [("vrf", Some(&network.bridge)), ("l3vni", l3.as_ref())] {
        let Some(dev) = dev.and_then(|dev| world.link(dev)) else { continue };
        let master = dev.master.and_then(|m| world.by_index(m)).map(|m| &m.name);
        if master.is_some() && master != vrf.map(|v| &v.name) {
            let free = format!("ip link set {} nomaster && evpn-hook sync", dev.name);
            return Some((link, Verdict::broken(refusal.to_string(), Some(free))));
        }
    }
    let vrf_is_other = vrf.is_some_and(|v| {
        world.link(&v.name).is_some_and(|l| l.kind != LinkKind::Vrf { table: v.table })
            || world.links().any(|l| l.kind == LinkKind::Vrf { table: v.table } && l.name != v.name)
    });
    Some((if vrf_is_other { "vrf" } else { "bridge" }, Verdict::broken(refusal.to_string(), None)))
}

/// A device in a few words.
pub(super) fn device(world: &World, name: &IfName) -> String {
    let Some(link) = world.link(name) else { return "not there".into() };
    let mut words = vec![if link.up { "up" } else { "down" }.to_owned()];
    if let Some(master) = link.master {
        words.push(format!("in {}", world.by_index(master).map_or(master.to_string(), |m| m.name.to_string())));
    }
    match &link.kind {
        LinkKind::Vxlan { vni, local, port, .. } => {
            let or = |text: Option<String>| text.unwrap_or_else(|| "none".into());
            let on = |flag: Option<bool>| flag.map_or("?", |on| if on { "on" } else { "off" });
            words.push(format!("VNI {}", or(vni.map(|v| v.to_string()))));
            words.push(format!("local {} dstport {port}", or(local.map(|l| l.to_string()))));
            if link.master.is_some() {
                words.push(format!("learning {}", on(link.port.learning)));
                words.push(format!("neigh_suppress {}", on(link.port.neigh_suppress)));
            }
        }
        LinkKind::Vrf { table } => words.push(format!("table {table}")),
        LinkKind::Bridge { .. } => words.extend(link.mac.map(|mac| mac.to_string())),
        LinkKind::Other(kind) => {
            words.extend((!kind.is_empty()).then(|| kind.clone()));
            words.push(if link.carrier { "carrier" } else { "no carrier" }.into());
        }
    }
    if !matches!(link.kind, LinkKind::Vrf { .. }) {
        words.push(format!("MTU {}", link.mtu));
    }
    words.join(", ")
}

// ----- FRR -----

/// FRR's daemons and the VNI in zebra; false where nothing else that FRR says has a meaning.
pub(super) fn speaker(links: &mut Links, s: &SegmentFacts) -> bool {
    let Some(frr) = &s.frr else { return false };
    let daemons = match &frr.speaker.unheard {
        Some(why @ Unheard::Untold(_)) => Verdict::untold(why.to_string()),
        _ => frr.speaker.daemons(),
    };
    links.add("frr", "zebra, bgpd", daemons);
    if !frr.speaker.speaks() {
        return false;
    }
    links.add("zebra-vni", s.network.vni, frr.speaker.vni(s.network));
    true
}

/// What only an FRR that speaks could tell.
pub(super) fn unheard(links: &mut Links, of: &[(&'static str, &dyn ToString)]) {
    let untold = || Verdict::untold("not known: FRR does not answer, or does not speak for this host");
    of.iter().for_each(|(link, object)| links.add(link, object.to_string(), untold()));
}

/// Each BGP session, and before it the way to its peer where there is none. `told` is what is known of this guest's routes there.
pub(super) fn peers(links: &mut Links, s: &SegmentFacts, frr: &RouteFacts, told: impl Fn(&Peer) -> Verdict) {
    if let Some(nobody) = frr.speaker.nobody() {
        links.add("peer", "none", nobody);
    }
    for peer in &frr.speaker.peers {
        if frr.no_way.contains(&peer.name) && !peer.is_shut() {
            links.add("underlay", &peer.name, no_way(s, frr));
        }
        links.add("peer", &peer.name, if peer.is_up() { told(peer) } else { frr.speaker.down(peer).into() });
    }
}

/// The kernel has no way to a peer or VTEP.
pub(super) fn no_way(s: &SegmentFacts, frr: &RouteFacts) -> Verdict {
    let shut = frr.underlay.iter().find(|p| p.is_shut());
    let down = frr.underlay.iter().find_map(|p| {
        let name: IfName = p.name.parse().ok()?;
        s.world.link(&name).filter(|l| !l.up).map(|_| name)
    });
    if let Some(dev) = down {
        return Verdict::broken(format!("no route to it: {dev} is down"), Some(format!("ip link set {dev} up")));
    }
    if let Some(peer) = shut {
        let unshut = frr.speaker.unshut(peer);
        let evidence = format!("no route to it: the underlay's session to {} is shut down", peer.name);
        return Verdict::broken(evidence, unshut);
    }
    let sessions: Vec<String> = frr.underlay.iter().map(|p| format!("{} {}", p.name, p.state)).collect();
    let evidence = match sessions.is_empty() {
        true => "no route to it".to_owned(),
        false => format!("no route to it; underlay sessions: {}", sessions.join(", ")),
    };
    let hint = "bring the underlay up: 'ip route get ADDRESS' and 'show bgp summary' in vtysh say how far it is";
    Verdict::advice(evidence, hint)
}

/// An address as a kernel route shows it.
pub(super) fn way(world: &World, via: Option<IpAddr>, device: u32) -> String {
    let dev = world.by_index(device).map_or(device.to_string(), |l| l.name.to_string());
    via.map_or(format!("dev {dev}"), |via| format!("via {via} dev {dev}"))
}
