//! For every combination of what may be there and what may be wanted: the plan is lawful, carried out it leaves nothing to plan, and
//! undone from anywhere it leaves the host as it was. The kernel is played by `Model`, down to its flushing of IPv6 addresses.

use super::*;
use crate::plan::fixture::{bridge, fresh, name, red, vrf, vxlan, want, whole};

/// A host, seen and changed.
struct Model<'a> {
    network: &'a Network,
    seen: Seen,
    next: u32,
}

impl Model<'_> {
    fn links(&mut self) -> impl Iterator<Item = &mut Link> {
        let Seen { bridge, vxlans, vrf, l3_bridge, .. } = &mut self.seen;
        bridge.iter_mut().chain(vxlans).chain(vrf).chain(l3_bridge)
    }

    fn link(&mut self, dev: &IfName) -> &mut Link {
        let known = self.links().find(|l| l.name == *dev);
        known.unwrap_or_else(|| panic!("{dev} is changed before it is made"))
    }

    fn take(&mut self, step: &Step) {
        self.next += 1;
        let down = |link: Link| Some(Link { up: false, ..link });
        match step {
            Step::AddVrf { name, table } => {
                assert!(self.seen.vrf.is_none(), "{step}: it is there");
                self.seen.vrf = down(vrf(name.as_str(), self.next, table.get()));
            }
            Step::AddBridge { name, mtu, .. } => {
                let place = if *name == self.network.bridge { &mut self.seen.bridge } else { &mut self.seen.l3_bridge };
                assert!(place.is_none(), "{step}: it is there");
                self.seen.loose.remove(name);
                self.seen.ignores_ra &= *name != self.network.bridge;
                self.seen.arp_own &= *name != self.network.bridge;
                if *name == self.network.bridge {
                    self.seen.hears = Hears::All;
                }
                *place = down(Link { mtu: mtu.unwrap_or(1500), ..bridge(name.as_str(), self.next) });
            }
            Step::AddVxlan { vni, .. } => {
                assert!(self.seen.vxlans.iter().all(|l| l.name != vni.device()), "{step}: it is there");
                let link = Link { port: PortFlags::default(), ..vxlan(vni.get(), self.next, None) };
                self.seen.vxlans.extend(down(link));
            }
            Step::DelLink { name } => {
                let gone = self.links().find(|l| l.name == *name).map(|l| l.index);
                let Seen { bridge, vxlans, vrf, l3_bridge, .. } = &mut self.seen;
                for place in [bridge, vrf, l3_bridge] {
                    place.take_if(|l| l.name == *name);
                }
                vxlans.retain(|l| l.name != *name);
                if self.network.bridge == *name {
                    self.seen.bridge_addresses.clear();
                }
                self.links().filter(|l| l.master.is_some() && l.master == gone).for_each(|l| l.master = None);
            }
            Step::SetMaster { dev, master } => {
                let master = master.as_ref().map(|m| self.link(m).index);
                let link = self.link(dev);
                link.master = master;
                if matches!(link.kind, LinkKind::Vxlan { .. }) {
                    link.port = PortFlags::default();
                }
                if *dev == self.network.bridge {
                    self.seen.bridge_addresses.retain(|a| a.addr().is_ipv4());
                }
            }
            Step::SetUp { dev, up } => self.link(dev).up = *up,
            Step::PartSvi { bridge, .. } => self.link(bridge).up = false,
            Step::AwaitVrf { .. } => assert!(self.seen.vrf.is_some() && !self.seen.unreachable, "{step}: for nothing"),
            Step::AwaitGone { dev } => assert!(self.seen.vxlans.iter().all(|l| l.name != *dev), "{step}: for ever"),
            Step::SetMtu { dev, mtu } => self.link(dev).mtu = *mtu,
            Step::SetMac { dev, mac } => self.link(dev).mac = Some(*mac),
            Step::ClearDefaultPvid { bridge } => {
                let LinkKind::Bridge { default_pvid, .. } = &mut self.link(bridge).kind else { panic!("no bridge") };
                *default_pvid = 0;
            }
            Step::SetStp { bridge, on } => {
                let LinkKind::Bridge { stp, .. } = &mut self.link(bridge).kind else { panic!("no bridge") };
                *stp = *on;
            }
            Step::SetMaxLearned { bridge, most } => self.link(bridge).max_learned = Some(*most),
            Step::SetDefaultPvid { bridge, pvid } => {
                self.link(bridge).kind = LinkKind::Bridge { vlan_filtering: false, default_pvid: *pvid, stp: false };
            }
            Step::AddAddress { dev, address } => {
                let bridge = self.link(dev).name.clone();
                assert_eq!(bridge, self.network.bridge);
                if !self.seen.bridge_addresses.contains(address) {
                    self.seen.bridge_addresses.push(*address);
                }
            }
            Step::DelAddress { address, .. } => self.seen.bridge_addresses.retain(|a| a != address),
            Step::Sysctl { path, value } => match path.as_str() {
                "net/ipv4/ip_forward" => self.seen.host.forward4 = value == "1",
                "net/ipv6/conf/all/forwarding" => {
                    assert!(self.seen.host.accepts_ra.is_empty(), "an uplink would stop to take advertisements");
                    self.seen.host.forward6 = Some(value == "1");
                }
                path if path.ends_with("rp_filter") => {
                    self.seen.loose.extend(path.split('/').nth(3).map(name));
                }
                path if value == "0" && path.ends_with("accept_ra") => self.seen.ignores_ra = true,
                path if path.ends_with("arp_ignore") => self.seen.arp_own = value == "1",
                path if path.ends_with("disable_ipv6") => self.seen.bridge_ipv6_off = value == "1",
                path if value == "2" && path.ends_with("accept_ra") => {
                    self.seen.host.accepts_ra.retain(|dev| !path.contains(dev.as_str()));
                }
                _ => {}
            },
            Step::Rules { order } => self.seen.host.rules = vec![crate::plan::fixture::ruled(*order); 2],
            Step::Hear { dev, hears } => {
                assert_eq!(*dev, self.network.bridge);
                self.link(dev);
                self.seen.hears = *hears;
            }
            Step::SpeakerAddVrf { .. } => self.seen.speaker_has_vrf = true,
            Step::SpeakerDelVrf { .. } => self.seen.speaker_has_vrf = false,
            Step::SetVxlanPort { dev } => {
                let link = self.link(dev);
                assert!(link.master.is_some(), "{step}: it is no port");
                link.port = PortFlags { learning: Some(false), neigh_suppress: Some(true), ..PortFlags::default() };
            }
            Step::Mark { dev } => self.link(dev).ours = true,
            Step::NoAddrGen { dev } | Step::AddrGen { dev } => assert_eq!(self.link(dev).name, *dev),
            Step::AddUnreachable { .. } => self.seen.unreachable = true,
            Step::DelUnreachable { .. } => self.seen.unreachable = false,
            guests => panic!("{guests} is no network's step"),
        }
    }

    /// What an undo must bring back: devices, who is whose port, the bridge's MTU, the speaker. What is harmless (up, more addresses on a
    /// bridge that was there) is left out, and so are the host's settings, which the engine puts back.
    fn essence(&mut self) -> Vec<String> {
        let names: Vec<(u32, IfName)> = self.links().map(|l| (l.index, l.name.clone())).collect();
        let of = |index| names.iter().find(|(i, _)| Some(*i) == index).map(|(_, n)| n.to_string());
        let mut lines: Vec<String> = self.links().map(|l| format!("{} on {:?}", l.name, of(l.master))).collect();
        lines.extend(self.seen.bridge.as_ref().map(|b| format!("mtu {}", b.mtu)));
        lines.push(format!("speaker {}", self.seen.speaker_has_vrf));
        lines.sort();
        lines
    }
}

/// Every bit of `bits` is one thing that is there, or is as it should be.
fn host_of(bits: u32, network: &Network) -> Option<Seen> {
    let bit = |n: u32| bits >> n & 1 == 1;
    let (vrf_is, l3_is, bridge_is) = (bit(0), bit(1), bit(2));
    let has_l3 = network.vrf.as_ref().is_some_and(|v| v.vni.is_some());
    if (network.vrf.is_none() && vrf_is) || (!has_l3 && l3_is) || (network.origin == Origin::Libvirt && !bridge_is) {
        return None;
    }
    let (whole, fresh) = (whole(), fresh());
    let up = |link: Link| Link { up: bit(3), ..link };
    let port = if bit(9) { vxlan(10, 9, None).port } else { PortFlags::default() };
    let vxlan = |number, index, master| Link { port, ..vxlan(number, index, master) };
    let mut vxlans = Vec::new();
    if has_l3 && bit(4) {
        vxlans.push(up(vxlan(10, 9, (l3_is && bit(5)).then_some(6))));
    }
    if bit(6) {
        vxlans.push(up(vxlan(20, 8, (bridge_is && bit(5)).then_some(7))));
    }
    let master = (vrf_is && bit(7)).then_some(5);
    let bridge = whole.bridge.map(|b| {
        let kind = LinkKind::Bridge { vlan_filtering: false, default_pvid: u16::from(!bit(8)), stp: !bit(8) };
        up(Link { master, kind, mtu: if bit(8) { 1450 } else { 1500 }, max_learned: bit(8).then_some(0), ..b })
    });
    Some(Seen {
        bridge: bridge.filter(|_| bridge_is),
        bridge_addresses: if bridge_is && bit(9) { whole.bridge_addresses } else { Vec::new() },
        bridge_ipv6_off: bridge_is && !bit(8),
        vxlans,
        vrf: whole.vrf.map(up).filter(|_| vrf_is),
        l3_bridge: whole.l3_bridge.map(|l| up(Link { master, ..l })).filter(|_| l3_is),
        host: if bit(10) { whole.host } else { fresh.host },
        unreachable: vrf_is && bit(10),
        ignores_ra: bit(8),
        arp_own: bit(8),
        hears: if bridge_is && bit(9) { whole.hears } else { Hears::All },
        loose: if bit(9) { whole.loose } else { BTreeSet::new() },
        made: whole.made,
        speaker_has_vrf: bit(11),
        ..Seen::default()
    })
}

fn networks() -> Vec<Network> {
    let mut all = Vec::new();
    for origin in [Origin::Libvirt, Origin::LibvirtBridge, Origin::Config] {
        let whole = red(origin);
        let asymmetric = whole.vrf.clone().map(|v| Vrf { vni: None, ..v });
        all.push(Network { vrf: None, ..whole.clone() });
        all.push(Network { vrf: asymmetric, stp: true, ..whole.clone() });
        all.push(Network { mtu: None, mac: None, gateway: vec![], ..whole.clone() });
        all.push(whole);
    }
    all
}

/// Calls `check` with every network on every host that it may find; returns how many those were.
fn everywhere(check: impl Fn(&Network, &Seen)) -> usize {
    let mut count = 0;
    for network in networks() {
        for seen in (0..1 << 12).filter_map(|bits| host_of(bits, &network)) {
            check(&network, &seen);
            count += 1;
        }
    }
    count
}

#[test]
fn carried_out_a_plan_leaves_nothing_to_plan() {
    let count = everywhere(|network, seen| {
        for (manage_speaker, manage_host) in [(true, true), (false, true), (true, false)] {
            let want = Wanted { manage_speaker, manage_host, ..want(network) };
            let plan = up(&want, seen).unwrap(); // lawful() inside stops at a broken law
            let mut model = Model { network, seen: seen.clone(), next: 100 };
            plan.iter().for_each(|p| model.take(&p.step));
            assert_eq!(up(&want, &model.seen).unwrap(), [], "{seen:#?}\n{}", crate::plan::shown(&plan));
            let kept = |a: &IpNet| model.seen.bridge_addresses.contains(a);
            assert!(seen.bridge_addresses.iter().all(kept), "an address is lost: {}", crate::plan::shown(&plan));
        }
    });
    assert!(count > 10_000, "{count}");
}

#[test]
fn up_without_a_vtep_and_completed_with_it_is_up() {
    everywhere(|network, seen| {
        let mut model = Model { network, seen: seen.clone(), next: 100 };
        for vtep in [None, "10.0.0.1".parse().ok()] {
            let want = Wanted { vtep, ..want(network) };
            let plan = up(&want, &model.seen).unwrap(); // lawful() inside stops at a broken law
            plan.iter().for_each(|p| model.take(&p.step));
            assert_eq!(up(&want, &model.seen).unwrap(), [], "{seen:#?}\n{}", crate::plan::shown(&plan));
        }
    });
}

#[test]
fn undone_from_anywhere_a_plan_leaves_what_was_there() {
    everywhere(|network, seen| {
        let plan = up(&want(network), seen).unwrap();
        let mut model = Model { network, seen: seen.clone(), next: 100 };
        let before = model.essence();
        for end in 0..=plan.len() {
            let mut model = Model { network, seen: seen.clone(), next: 100 };
            plan[..end].iter().for_each(|p| model.take(&p.step));
            plan[..end].iter().rev().flat_map(|p| &p.undo).for_each(|step| model.take(step));
            assert_eq!(model.essence(), before, "after {end} steps of\n{}", crate::plan::shown(&plan));
            let kept = |a: &IpNet| model.seen.bridge_addresses.contains(a);
            assert!(seen.bridge_addresses.iter().all(kept), "an address is lost: {}", crate::plan::shown(&plan));
        }
    });
}

/// Of the bridge's addresses those that we put there: one, or none.
fn put(one: bool) -> BTreeSet<IpNet> {
    whole().bridge_addresses.into_iter().take(usize::from(one)).collect()
}

fn vrf_of(network: &Network) -> Vrf {
    network.vrf.clone().or(red(Origin::Config).vrf).unwrap()
}

#[test]
fn up_and_down_leave_what_was_there() {
    let none = Seen { host: fresh().host, ..Seen::default() };
    for network in networks().into_iter().filter(|n| n.origin != Origin::Libvirt) {
        let mut model = Model { network: &network, seen: none.clone(), next: 100 };
        let before = model.essence();
        up(&want(&network), &none).unwrap().iter().for_each(|p| model.take(&p.step));
        let made = whole().made;
        let last_in = network.vrf.as_ref().map(|vrf| OurVrf {
            vrf,
            made: &made,
            speaker_has_ours: true,
            deaf: false,
            unreachable: true,
        });
        let ours = Ours { network: &network, made: &made, before: &Before::default(), last_in, l3_mtu: None };
        down(&ours, &model.seen).iter().for_each(|p| model.take(&p.step));
        assert_eq!(model.essence(), before);
    }
    let count = everywhere(|network, seen| {
        for bits in 0..32_u32 {
            let bit = |n: u32| bits >> n & 1 == 1;
            let (made_bridge, made_vrf) = (bit(0), bit(2));
            let last_in_vrf = bit(1) && network.vrf.is_some();
            let mut made = whole().made;
            made.retain(|dev| match dev.as_str() {
                "red-l2" => made_bridge,
                "red" => made_vrf,
                _ => true,
            });
            let vrf = OurVrf {
                vrf: &vrf_of(network),
                made: &made,
                speaker_has_ours: bit(3),
                deaf: bit(4),
                unreachable: bit(1),
            };
            // Of the bridge: whether the speaker has ours, or the VRF goes, is nothing to it.
            let before = Before { entered: bit(3), addresses: put(bit(1)), ..Before::default() };
            let last_in = last_in_vrf.then_some(vrf);
            let ours = Ours { network, made: &made, before: &before, last_in, l3_mtu: None };
            let foreign = Seen { vrf_foreign_slaves: vec![name("mine")], ..seen.clone() };
            for seen in [seen, &foreign] {
                let plan = down(&ours, seen); // lawful() inside stops at a broken law
                let mut model = Model { network, seen: seen.clone(), next: 100 };
                plan.iter().for_each(|p| model.take(&p.step));
                assert!(
                    made_bridge || model.seen.bridge.is_some() == seen.bridge.is_some(),
                    "a bridge that is not ours went"
                );
                assert!((made_vrf && last_in_vrf) || model.seen.vrf.is_some() == seen.vrf.is_some(), "so did a VRF");
                let theirs = |a: &&IpNet| !before.addresses.contains(a);
                let kept = |a: &IpNet| model.seen.bridge_addresses.contains(a);
                assert!(made_bridge || seen.bridge_addresses.iter().filter(theirs).all(kept), "an address went");
                let master = |seen: &Seen| seen.bridge.as_ref().and_then(|b| b.master);
                let in_vrf = master(&model.seen).is_some() || model.seen.vrf.is_none();
                assert!(
                    made_bridge || before.entered || master(seen).is_none() || in_vrf,
                    "it left a VRF that it was in"
                );
            }
        }
    });
    assert!(count > 10_000, "{count}");
}

/// What zebra has of VRF red's L3VNI (zebra_vxlan.c, zebra_vxlan_if.c, 8.4.4 to 10.7.0).
struct Zebra {
    /// `vrf red / vni 10`
    knows: bool,
    /// `zl3vni->svi_if`
    svi: bool,
    /// Is EVPN off?
    deaf: bool,
}

impl Zebra {
    fn hear(&mut self, model: &mut Model, step: &Step) {
        let of_l3vni = |model: &Model| {
            let vxlan = model.seen.vxlans.iter().find(|l| l.name.as_str() == "vxlan10");
            let bridge = model.seen.l3_bridge.as_ref();
            let joined = vxlan.zip(bridge).is_some_and(|(v, b)| v.master == Some(b.index));
            (joined, joined && vxlan.is_some_and(|v| v.up), bridge.is_some_and(|b| b.up))
        };
        let (_, found, was_up) = of_l3vni(model);
        if matches!(step, Step::DelLink { name } if name.as_str() == "red-l3") {
            assert!(!(self.knows && self.svi), "zebra keeps a pointer to red-l3");
        }
        model.take(step);
        let (joined, found_now, _) = of_l3vni(model);
        match step {
            Step::PartSvi { bridge: dev, .. } | Step::SetUp { dev, up: false } if dev.as_str() == "red-l3" => {
                self.svi &= !(found && was_up);
            }
            Step::SetUp { dev, up: true } if dev.as_str() == "red-l3" => self.svi |= found_now,
            Step::SetUp { dev, up: true } if dev.as_str() == "vxlan10" => self.svi = joined,
            Step::AddVxlan { vni, .. } if vni.get() == 10 => self.svi = false,
            Step::SpeakerAddVrf { .. } => *self = Zebra { knows: true, svi: joined, ..*self },
            Step::SpeakerDelVrf { .. } => {
                let there = model.seen.vxlans.iter().any(|l| l.name.as_str() == "vxlan10");
                assert!(!(self.deaf && there), "zebra makes an L2VNI of vxlan10 that it never lets go");
                self.knows = false;
            }
            _ => {}
        }
    }
}

/// Whether FRR's stanza is ours or in the operator's frr.conf, also where a run was killed or somebody's hand was at the devices.
#[test]
fn zebra_keeps_no_pointer_to_a_bridge_that_is_gone() {
    let made = whole().made;
    let count = everywhere(|network, seen| {
        let has_l3 = network.vrf.as_ref().is_some_and(|v| v.vni.is_some());
        for managed in [true, false].into_iter().filter(|_| has_l3) {
            let model = || Model { network, seen: seen.clone(), next: 100 };
            let svi = seen.l3_bridge.is_some();
            let want = Wanted { manage_speaker: managed, ..want(network) };
            let plan = up(&want, seen).unwrap();
            for end in 0..=plan.len() {
                let (mut model, mut zebra) =
                    (model(), Zebra { knows: !managed || seen.speaker_has_vrf, svi, deaf: false });
                plan[..end].iter().for_each(|p| zebra.hear(&mut model, &p.step));
                plan[..end].iter().rev().flat_map(|p| &p.undo).for_each(|step| zebra.hear(&mut model, step));
            }
            // A stranger who deleted the tunnel has left zebra nothing to find its bridge by: FRR's own (PR 22858).
            let vxlan_is = seen.vxlans.iter().any(|l| l.name.as_str() == "vxlan10");
            for deaf in [false, true].into_iter().filter(|_| managed || vxlan_is) {
                let (mut model, mut zebra) = (model(), Zebra { knows: true, svi, deaf });
                let ours =
                    OurVrf { vrf: &vrf_of(network), made: &made, speaker_has_ours: managed, deaf, unreachable: true };
                vrf_down(&ours, seen).iter().for_each(|p| zebra.hear(&mut model, &p.step));
            }
        }
    });
    assert!(count > 10_000, "{count}");
}
