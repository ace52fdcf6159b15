//! What the rest of the fabric says, as far as `doctor` judges it: sessions, VTEPs, route targets, duplicates.

use super::{Frr, SpeakerError, ask, show};
use crate::model::{Mac, Vni};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// An EVPN neighbour of bgpd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// As bgpd calls it: an address or an interface.
    pub peer: String,
    /// `Established`, or why not (RFC 4271 §8.2.2's state).
    pub state: String,
}

/// A route of another VTEP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    /// Its next hop.
    pub vtep: IpAddr,
    /// Its route targets, as `64512:20`.
    pub targets: BTreeSet<String>,
}

impl Frr {
    /// The other VTEPs of a segment, as zebra floods to them.
    pub fn vteps(&mut self, vni: Vni) -> Result<BTreeSet<IpAddr>, SpeakerError> {
        Ok(show::vteps(&ask(&mut self.zebra, &format!("show evpn vni {vni} json"))?))
    }

    /// bgpd's EVPN neighbours.
    pub fn sessions(&mut self) -> Result<Vec<Session>, SpeakerError> {
        Ok(show::sessions(&ask(&mut self.bgpd, "show bgp l2vpn evpn summary json")?))
    }

    /// What other VTEPs send of one route type, `multicast` (type 3) or `prefix` (type 5), without what is said twice. Of type 2 there may be 100,000, and bgpd
    /// does nothing else while it lists them.
    pub fn received(&mut self, kind: &str) -> Result<BTreeSet<Received>, SpeakerError> {
        Ok(show::received(&self.ask_more(&format!("show bgp l2vpn evpn route type {kind} json"))?))
    }

    /// The MACs and addresses of a segment that zebra's duplicate address detection has marked.
    pub fn duplicates(&mut self, vni: Vni) -> Result<(Vec<Mac>, Vec<IpAddr>), SpeakerError> {
        let macs = show::duplicate_macs(&ask(&mut self.zebra, &format!("show evpn mac vni {vni} json"))?);
        Ok((macs, show::duplicate_ips(&ask(&mut self.zebra, &format!("show evpn arp-cache vni {vni} json"))?)))
    }
}
