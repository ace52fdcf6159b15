//! What `explain` and `doctor` ask of the rest of the fabric: sessions, VTEPs, route targets, a route with who got it, what came from others, duplicates.

use super::show::{self, Announced, Path, Peer, Targets};
use super::{Daemon, Frr, SpeakerError};
use crate::model::{Mac, Vni};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A route of another VTEP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    /// Its next hop.
    pub vtep: IpAddr,
    /// Its route targets, as `64512:20`.
    pub targets: BTreeSet<String>,
}

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

    /// The paths that bgpd has to this MAC, with and without each of these addresses, whatever it does with them. A look below each distinguisher, and no list
    /// (bgp_evpn_vty.c `evpn_show_route_rd_all_macip`, from FRR 8.4 on).
    pub fn received(&mut self, mac: Mac, ips: &[IpAddr]) -> Result<Vec<Path>, SpeakerError> {
        let mut found = Vec::new();
        for ip in [None].into_iter().chain(ips.iter().copied().map(Some)) {
            let of = ip.map_or_else(String::new, |ip| format!(" ip {ip}"));
            let answer = self.ask_more(&format!("show bgp l2vpn evpn route rd all mac {mac}{of} json"))?;
            found.extend(show::received(&answer, |its, _| its == mac));
        }
        Ok(found)
    }

    /// The paths to an address whose MAC nobody knows: all type-2 routes of the fabric are listed for it.
    pub fn received_of_address(&mut self, ip: IpAddr) -> Result<Vec<Path>, SpeakerError> {
        let answer = self.list(Daemon::Bgpd, "show bgp l2vpn evpn route type macip json")?;
        Ok(show::received(&answer, |_, its| its == Some(ip)))
    }

    /// What other VTEPs send of one route type, `multicast` (type 3) or `prefix` (type 5), without what is said twice. Of type 2 there may be 100,000, and bgpd
    /// does nothing else while it lists them.
    pub fn received_targets(&mut self, kind: &str) -> Result<BTreeSet<Received>, SpeakerError> {
        Ok(show::received_targets(&self.list_more(&format!("show bgp l2vpn evpn route type {kind} json"))?))
    }

    /// The MACs and addresses of a segment that zebra's duplicate address detection has marked.
    pub fn duplicates(&mut self, vni: Vni) -> Result<(Vec<Mac>, Vec<IpAddr>), SpeakerError> {
        let macs = self.list(Daemon::Zebra, &format!("show evpn mac vni {vni} duplicate json"))?;
        let ips = self.list(Daemon::Zebra, &format!("show evpn arp-cache vni {vni} duplicate json"))?;
        Ok((show::duplicate_macs(&macs), show::duplicate_ips(&ips)))
    }
}
