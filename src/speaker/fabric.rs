//! What `explain` asks of bgpd: the sessions, a VNI's route targets, a route with who got it, and what came from others.

use super::show::{self, Announced, Path, Peer, Targets};
use super::{Frr, SpeakerError, ask};
use crate::model::{Mac, Vni};
use std::net::IpAddr;

impl Frr {
    /// The sessions that carry EVPN routes.
    pub fn evpn_peers(&mut self) -> Result<Vec<Peer>, SpeakerError> {
        Ok(show::peers(&self.ask_more("show bgp l2vpn evpn summary json")?))
    }

    /// The sessions that carry the underlay's routes, where bgpd speaks there: IPv4's or IPv6's.
    pub fn underlay_peers(&mut self, ip: IpAddr) -> Result<Vec<Peer>, SpeakerError> {
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        Ok(show::peers(&self.ask_more(&format!("show bgp {family} unicast summary json"))?))
    }

    /// A VNI's route distinguisher and targets; none of one that bgpd does not have.
    pub fn targets(&mut self, vni: Vni) -> Result<Option<Targets>, SpeakerError> {
        Ok(show::targets(&self.ask_more(&format!("show bgp l2vpn evpn vni {vni} json"))?))
    }

    /// A route of our own, by its VNI's distinguisher as [`Frr::targets`] tells it.
    pub fn announced(&mut self, rd: &str, mac: Mac, ip: Option<IpAddr>) -> Result<Announced, SpeakerError> {
        let of = ip.map_or_else(String::new, |ip| format!(" ip {ip}"));
        let answer = self.ask_more(&format!("show bgp l2vpn evpn route rd {rd} mac {mac}{of} json"))?;
        Ok(show::announced(&answer, rd))
    }

    /// The paths that bgpd has to this MAC or address, whatever it does with them. Reads the whole table: for a person's question.
    pub fn received(&mut self, wanted: impl Fn(Mac, Option<IpAddr>) -> bool) -> Result<Vec<Path>, SpeakerError> {
        let answer = ask(&mut self.bgpd, "show bgp l2vpn evpn route type macip json")?;
        Ok(show::received(&answer, wanted))
    }
}
