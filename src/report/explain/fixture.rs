//! A host where all is well, for the tests of this room to break.

use super::facts::{GuestFacts, RouteFacts, SegmentFacts, StrangerFacts};
use super::{Link as ChainLink, State, away, here};
use crate::checks::fixture::{self, links};
pub(super) use crate::checks::fixture::{MAC, RR, record};
use crate::checks::speaker::SpeakerFacts;
use crate::config::Network;
use crate::engine::{HostLacks, mends};
use crate::model::{Guest, GuestKind, Mac};
use crate::plan::duplicate::Duplicate;
use crate::plan::seen::{Address, Fdb, Link, Neigh, Route, World};
use crate::plan::{Planned, Refusal, Step};
use crate::register::Endpoint;
use crate::speaker::{Address as Spoken, Advertised, Announced, ArpState, MacState, RoutePath, Targets};
use std::net::IpAddr;

pub(super) const IP: &str = "10.1.0.60";
pub(super) const L3_BRIDGE: u32 = 3;
pub(super) const BRIDGE: u32 = 5;
pub(super) const VXLAN: u32 = 6;
pub(super) const TAP: u32 = 7;
const UPLINK: u32 = 8;

pub(super) fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What is observed, each part to be changed before it is explained.
pub(super) struct Scene {
    pub(super) network: Network,
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) fdb: Vec<Fdb>,
    pub(super) neighs: Vec<Neigh>,
    pub(super) plan: Result<Vec<Step>, Refusal>,
    pub(super) frr: Option<RouteFacts>,
    pub(super) guest: Guest,
    pub(super) endpoint: Endpoint,
    pub(super) duplicates: Vec<Duplicate>,
    pub(super) agent_runs: bool,
    pub(super) away: StrangerFacts,
}

pub(super) fn path(rd: &str, own: bool, ip: Option<IpAddr>, vtep: &str) -> RoutePath {
    RoutePath {
        rd: rd.into(),
        mac: mac(MAC),
        ip,
        own,
        best: true,
        vtep: vtep.parse().ok(),
        targets: [Some("64512:20"), ip.map(|_| "64512:10")].into_iter().flatten().map(str::to_owned).collect(),
        seq: 0,
        from: if own { "::".into() } else { RR.into() },
        routed: ip.is_some(),
    }
}

fn frr() -> RouteFacts {
    RouteFacts {
        speaker: SpeakerFacts::healthy(),
        targets: Some(Targets {
            rd: Some("10.0.0.1:2".into()),
            import: vec!["64512:20".into()],
            export: vec!["64512:20".into()],
        }),
        ..RouteFacts::default()
    }
}

impl Scene {
    fn new() -> Scene {
        let address = |index, net: &str| Address { index, net: net.parse().unwrap(), global: true, lent: false };
        Scene {
            network: record().network,
            links: links(),
            addresses: vec![address(1, "10.0.0.1/32"), address(BRIDGE, "10.1.0.1/24")],
            fdb: Vec::new(),
            neighs: Vec::new(),
            plan: Ok(Vec::new()),
            frr: Some(frr()),
            guest: Guest::new(GuestKind::Manual, "hand", "hand").unwrap(),
            endpoint: fixture::endpoint(),
            duplicates: Vec::new(),
            agent_runs: false,
            away: StrangerFacts::default(),
        }
    }

    /// A guest of this host.
    pub(super) fn here() -> Scene {
        let mut scene = Scene::new();
        scene.fdb = vec![Fdb { mac: mac(MAC), port: TAP, is_static: true, ext_learned: false }];
        scene.neighs = vec![neigh(IP, MAC, true)];
        let frr = scene.frr.as_mut().unwrap();
        frr.known = Some(Advertised {
            mac: mac(MAC),
            state: MacState::Local { port: "tap0".into(), seq: 0, sticky: false, duplicate: false },
            route: true,
            ips: vec![Spoken { ip: ip(IP), state: ArpState::Active { mac: mac(MAC) }, route: true }],
        });
        frr.announced = [None, Some(ip(IP))]
            .map(|ip| (ip, Announced { path: Some(path("10.0.0.1:2", true, ip, "10.0.0.1")), to: vec![RR.into()] }))
            .into();
        scene
    }

    /// A guest of another.
    pub(super) fn away() -> Scene {
        let mut scene = Scene::new();
        scene.links.retain(|l| l.index != TAP);
        scene.fdb = vec![Fdb { mac: mac(MAC), port: VXLAN, is_static: false, ext_learned: true }];
        scene.neighs = vec![neigh(IP, MAC, false)];
        let route = |device| Some(Route { device, via: "10.0.0.2".parse().ok(), local: false });
        scene.away = StrangerFacts {
            mac: Some(mac(MAC)),
            ips: vec![ip(IP)],
            tunnel: Some(ip("10.0.0.2")),
            routes: vec![(ip(IP), route(L3_BRIDGE))],
            underlay: Some((ip("10.0.0.2"), route(UPLINK))),
        };
        let frr = scene.frr.as_mut().unwrap();
        let vtep = "10.0.0.2".parse().ok();
        frr.known = Some(Advertised {
            mac: mac(MAC),
            state: MacState::Remote { vtep },
            route: false,
            ips: vec![Spoken { ip: ip(IP), state: ArpState::Remote { mac: mac(MAC), vtep }, route: false }],
        });
        frr.received = [None, Some(ip(IP))].map(|ip| path("10.0.0.2:2", false, ip, "10.0.0.2")).into();
        scene
    }

    pub(super) fn link(&mut self, name: &str) -> &mut Link {
        self.links.iter_mut().find(|l| l.name.as_str() == name).unwrap()
    }

    pub(super) fn frr(&mut self) -> &mut RouteFacts {
        self.frr.as_mut().unwrap()
    }

    /// A line of bgpd's running configuration.
    pub(super) fn configured(&mut self, family: &str, line: &str) {
        let running = &mut self.frr().speaker.running;
        running.instances[0].lines.push((family.into(), line.into()));
    }

    fn world(&self) -> World {
        let on_bridge = |f: &Fdb| (BRIDGE, f.clone());
        World::new(self.links.clone(), self.addresses.clone()).with_entries(
            self.fdb.iter().map(on_bridge).collect(),
            self.neighs.iter().map(|n| (BRIDGE, n.clone())).collect(),
        )
    }

    fn explained(self, is_here: bool) -> Vec<ChainLink> {
        let world = self.world();
        let plain = |step: Step| Planned { step, undo: Vec::new() };
        let plan = self.plan.clone().map(|steps| steps.into_iter().map(plain).collect());
        let segment = SegmentFacts {
            network: &self.network,
            vtep: Some(ip("10.0.0.1")),
            vtep_device: "lo".parse().unwrap(),
            world: &world,
            lacks: HostLacks { there: true, plan, speaks_not: None, no_tunnel: None },
            frr: self.frr,
        };
        let links = if is_here {
            let mends = mends(&world, "guest hand", &self.endpoint);
            let (guest, endpoint, agent_runs) = (&self.guest, &self.endpoint, self.agent_runs);
            here::links(&segment, &GuestFacts { guest, endpoint, mends, duplicates: self.duplicates, agent_runs })
        } else {
            away::links(&segment, &self.away)
        };
        let broken = links.links.iter().position(|l| l.state == State::Broken);
        assert_eq!(broken, links.broken);
        assert!(links.links.iter().filter(|l| l.state == State::Broken).count() < 2, "one is the first");
        links.links
    }

    pub(super) fn explained_here(self) -> Vec<ChainLink> {
        self.explained(true)
    }

    pub(super) fn explained_away(self) -> Vec<ChainLink> {
        self.explained(false)
    }
}

pub(super) fn neigh(ip: &str, mac: &str, own: bool) -> Neigh {
    Neigh {
        ip: ip.parse().unwrap(),
        mac: mac.parse().ok(),
        permanent: own,
        ext_learned: !own,
        ours: own,
        router: false,
    }
}

/// The broken link, and what mends it.
pub(super) fn broken(links: &[ChainLink]) -> (&'static str, String, String) {
    let link = links.iter().find(|l| l.state == State::Broken);
    let link = link.unwrap_or_else(|| panic!("all of it holds: {links:#?}"));
    (link.link, link.object.clone(), link.mend.clone().or(link.hint.clone()).unwrap_or_default())
}

pub(super) fn kinds(links: &[ChainLink]) -> Vec<&'static str> {
    assert!(links.iter().all(|l| l.state == State::Ok), "{links:#?}");
    links.iter().map(|l| l.link).collect()
}
