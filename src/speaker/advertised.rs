//! The one question of `status` and `attach --wait`: does the speaker have this endpoint as local and active, and bgpd its routes as best?

use super::{ArpState, Daemon, Frr, MacState, SpeakerError, VniInfo, show};
use crate::model::{Mac, Vni};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two looks of [`Frr::wait_advertised`]. There is no event to wait for; FRR's own floor is 60 ms (bgpd holds its queue for 50).
const POLL: Duration = Duration::from_millis(5);

/// So many single questions cost no more than it matters, a few ms; the segment's size is not looked at for them.
const FEW: usize = 100;

/// The same of a host with many segments of few guests each, 100 ms and more.
const FEW_OF_ALL: usize = 2000;

/// A single question costs as much as so many entries of a list, or more: with FRR 8.4.4, 40,000 entries and a busy machine it took 0.07 to 0.5 ms, and an
/// entry 0.06 to 0.1 in bgpd's list and zebra's.
const ENTRIES_A_QUESTION: usize = 2;

/// One endpoint as FRR has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// The endpoint's MAC.
    pub mac: Mac,
    /// That MAC in zebra.
    pub state: MacState,
    /// bgpd has our MAC route as best.
    pub route: bool,
    /// Its addresses, in the order asked.
    pub ips: Vec<Address>,
}

/// One address of an endpoint as FRR has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// That address in zebra.
    pub state: ArpState,
    /// bgpd has our MAC+IP route as best.
    pub route: bool,
}

impl Advertised {
    /// Is all of it out?
    pub fn complete(&self) -> bool {
        self.problem().is_none()
    }

    /// The first link of zebra MAC → bgpd MAC → zebra address → bgpd address that is missing, in words; none if none is.
    pub fn problem(&self) -> Option<String> {
        let mac = self.mac;
        let no_route = || (!self.route).then(|| format!("bgpd has no route of its own for {mac}"));
        self.problem_in_zebra().or_else(no_route).or_else(|| self.ips.iter().find_map(|address| address.problem(mac)))
    }

    /// Why zebra does not hand the MAC to bgpd.
    pub fn problem_in_zebra(&self) -> Option<String> {
        let mac = self.mac;
        match &self.state {
            MacState::Local { .. } => None,
            MacState::Inactive { port } => {
                Some(format!("zebra has {mac} on {port} as aged: the FDB entry is not static"))
            }
            MacState::Remote { vtep: Some(vtep) } => Some(format!("zebra has {mac} behind VTEP {vtep}")),
            MacState::Remote { vtep: None } => Some(format!("zebra has {mac} behind another VTEP")),
            MacState::Auto => Some(format!("zebra has addresses of {mac} but not the MAC itself")),
            MacState::Absent => Some(format!("zebra does not know {mac}")),
        }
    }
}

impl Address {
    fn problem(&self, wanted: Mac) -> Option<String> {
        let no_route = || (!self.route).then(|| format!("bgpd has no route of its own for {wanted} with {}", self.ip));
        self.problem_in_zebra(wanted).or_else(no_route)
    }

    /// Why zebra does not hand the address to bgpd with this MAC.
    pub fn problem_in_zebra(&self, wanted: Mac) -> Option<String> {
        let ip = self.ip;
        match &self.state {
            ArpState::Active { mac } | ArpState::Inactive { mac } if *mac != wanted => {
                Some(format!("zebra has {ip} with {mac} and not {wanted}"))
            }
            ArpState::Active { .. } => None,
            ArpState::Inactive { .. } => Some(format!("zebra has {ip} but does not advertise it (inactive)")),
            ArpState::Remote { vtep: Some(vtep), .. } => Some(format!("zebra has {ip} behind VTEP {vtep}")),
            ArpState::Remote { vtep: None, .. } => Some(format!("zebra has {ip} behind another VTEP")),
            ArpState::Absent => Some(format!("zebra does not know {ip}")),
        }
    }
}

/// All of a VNI at once, for `status` over thousands of endpoints: three or four questions instead of two per endpoint and two per address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dump {
    /// zebra's MACs. AUTO ones are not listed by FRR and look absent here.
    pub macs: BTreeMap<Mac, MacState>,
    /// zebra's neighbours.
    pub arps: BTreeMap<IpAddr, ArpState>,
    /// bgpd's type-2 routes that are our own and best.
    pub routes: BTreeSet<(Mac, Option<IpAddr>)>,
}

impl Dump {
    /// One endpoint out of it.
    pub fn advertised(&self, mac: Mac, ips: &[IpAddr]) -> Advertised {
        let address = |ip: &IpAddr| Address {
            ip: *ip,
            state: self.arps.get(ip).cloned().unwrap_or(ArpState::Absent),
            route: self.routes.contains(&(mac, Some(*ip))),
        };
        Advertised {
            mac,
            state: self.macs.get(&mac).cloned().unwrap_or(MacState::Absent),
            route: self.routes.contains(&(mac, None)),
            ips: ips.iter().map(address).collect(),
        }
    }
}

impl Frr {
    /// One endpoint, asked for by itself.
    pub fn advertised(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr]) -> Result<Advertised, SpeakerError> {
        let state = self.mac(vni, mac)?;
        let route = self.bgp_route(vni, mac, None)?;
        let address = |ip: &IpAddr| {
            Ok(Address { ip: *ip, state: self.arp(vni, *ip)?, route: self.bgp_route(vni, mac, Some(*ip))? })
        };
        let ips = ips.iter().map(address).collect::<Result<_, SpeakerError>>()?;
        Ok(Advertised { mac, state, route, ips })
    }

    /// Looks until all of it is out or the time is up; returns the last look. A daemon that is away may come back until then.
    pub fn wait_advertised(
        &mut self,
        vni: Vni,
        mac: Mac,
        ips: &[IpAddr],
        until: Instant,
    ) -> Result<Advertised, SpeakerError> {
        loop {
            let look = self.advertised(vni, mac, ips);
            let done = match &look {
                Ok(look) => look.complete(),
                Err(error) => !error.is_absence(),
            };
            if done || Instant::now() >= until {
                return look;
            }
            std::thread::sleep(POLL);
        }
    }

    /// All of a VNI.
    pub fn dump(&mut self, vni: Vni) -> Result<Dump, SpeakerError> {
        let all = self.list(Daemon::Bgpd, &format!("show bgp l2vpn evpn route vni {vni} json"))?;
        let mut routes = show::routes(&all);
        // FRR 8.4 does not know this question, and needs none.
        if show::lacks_macs(&all) {
            routes.extend(show::routes(&self.list_more(&format!("show bgp vni {vni} type 2 mac json"))?));
        }
        Ok(Dump {
            macs: show::macs(&self.list(Daemon::Zebra, &format!("show evpn mac vni {vni} json"))?),
            arps: show::arps(&self.list(Daemon::Zebra, &format!("show evpn arp-cache vni {vni} json"))?),
            routes,
        })
    }

    /// Several endpoints of a segment, in the order asked: by single questions, or by a list of the segment where that is cheaper.
    pub fn advertised_all(&mut self, vni: Vni, wanted: &[(Mac, Vec<IpAddr>)]) -> Result<Vec<Advertised>, SpeakerError> {
        let questions: usize = wanted.iter().map(|(_, ips)| 2 + 2 * ips.len()).sum();
        let is_cheaper = |info: VniInfo| info.entries < ENTRIES_A_QUESTION * questions;
        if (questions > FEW || self.singles > FEW_OF_ALL) && self.vni(vni)?.is_none_or(is_cheaper) {
            let dump = self.dump(vni)?;
            return Ok(wanted.iter().map(|(mac, ips)| dump.advertised(*mac, ips)).collect());
        }
        self.singles += questions;
        wanted.iter().map(|(mac, ips)| self.advertised(vni, *mac, ips)).collect()
    }
}
