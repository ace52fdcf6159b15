//! What FRR has of all VRFs, asked once for as many as there are.

use super::render::{Added, BgpLine};
use super::running::{Instance, Running};
use super::whose::is_ours;
use super::{Frr, SpeakerError, VrfLists, show};
use crate::config::Vrf;
use std::net::Ipv4Addr;

/// Both daemons' answers.
#[derive(Debug)]
pub struct Whole {
    running: Running,
    lists: VrfLists,
}

impl Frr {
    /// What FRR has now: three questions, however many VRFs there are.
    pub fn whole(&mut self) -> Result<Whole, SpeakerError> {
        Ok(Whole { running: self.running()?, lists: self.vrf_lists()? })
    }
}

impl Whole {
    /// The stanza that holds this VRF's name with another VNI, or its VNI for another VRF, where it is ours to the line: what a network that is gone
    /// left in frr.conf by a `write memory`. Whether it still serves somebody the caller must know.
    pub fn in_the_way(&self, vrf: &Vrf) -> Option<Vrf> {
        let Whole { running, lists: VrfLists { zebra, bgpd } } = self;
        let own = show::vrf(zebra, bgpd, vrf.name.as_str()).vni;
        let (name, vni) = match vrf.vni? {
            vni if own == 0 || own == vni.get() => (show::vrf_of(zebra, vni)?.parse().ok()?, vni),
            _ => (vrf.name.clone(), own.try_into().ok()?),
        };
        let holder = Vrf { name, vni: Some(vni), ..vrf.clone() };
        let instance = running.vrf(holder.name.as_str())?;
        let id = running.evpn().and_then(|evpn| show::router_id(bgpd, evpn.vrf.as_deref()));
        let ids: Vec<Ipv4Addr> = id.into_iter().collect();
        let whole = BgpLine::ALL.iter().all(|line| instance.has(line.text().0, line.text().1));
        (whole && is_ours(instance, running, &ids)).then_some(holder)
    }

    /// What it lacks of this VRF; see [`Frr::missing`].
    pub fn missing(&self, vrf: &Vrf) -> Result<Added, SpeakerError> {
        Ok(self.lacks(vrf)?.0)
    }

    /// The same, and the AS to put it under.
    pub(super) fn lacks(&self, vrf: &Vrf) -> Result<(Added, u32), SpeakerError> {
        let Some(vni) = vrf.vni else {
            return Ok((Added::default(), 0));
        };
        let Whole { running, lists: VrfLists { zebra, bgpd } } = self;
        let instance = running.vrf(vrf.name.as_str());
        let evpn = running.evpn();
        let asn = instance.or(evpn).ok_or(SpeakerError::NoBgp)?.asn;
        let info = show::vrf(zebra, bgpd, vrf.name.as_str());
        let conflict =
            |found: String| Err(SpeakerError::Conflict { found, wanted: format!("vni {vni} in vrf {}", vrf.name) });
        if info.vni != 0 && info.vni != vni.get() {
            return conflict(format!("vrf {} has vni {}", vrf.name, info.vni));
        }
        if let Some(other) = show::vrf_of(zebra, vni).filter(|other| other != vrf.name.as_str()) {
            return conflict(format!("vni {vni} belongs to vrf {other}"));
        }
        let missing = |line: &BgpLine| {
            let (family, text) = line.text();
            !instance.is_some_and(|instance| instance.has(family, text))
        };
        let lines = BgpLine::ALL.into_iter().filter(missing).collect();
        // One of the operator's has a router-id already, theirs or bgpd's choice: a new one would give all its routes a new name. What is only
        // ours and has none was left so (law 5 of the room).
        let own = |evpn: &Instance| show::router_id(bgpd, evpn.vrf.as_deref());
        let lacks_id = instance.is_none_or(|i| !i.has("", "bgp router-id") && is_ours(i, running, &[]));
        let router_id = evpn.filter(|_| lacks_id).and_then(own);
        Ok((Added { vni: info.vni == 0, bgp: instance.is_none(), router_id, lines }, asn))
    }
}
