//! An address that a guest shows to have: may it be taken for its own, and from whom? And it stays its own only until the kernel says that
//! another has it: what was only learned is never fought for.

use super::seen::Neigh;
use super::whose::Holder;
use crate::config::Network;
use crate::model::{Address, Mac, Source, not_a_host};
use std::fmt;
use std::net::IpAddr;

/// The most addresses of one NIC that are learned: each is an entry in every hypervisor of the fabric.
pub const MOST: usize = 64;
/// The most of one /64 that a guest has made up itself. One with privacy addresses makes a new one a day and at each reconnect, and has some eight that
/// are valid (RFC 8981 §3.4, ip-sysctl.rst `temp_valid_lft`); it tells nobody of those that it gives up.
pub const MOST_MADE: usize = 10;

/// Why an address cannot be a guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// No host's, for what it is.
    NoHosts(&'static str),
    /// The gateway's own.
    Gateways,
    /// Outside of all the network's subnets.
    Outside,
    /// Its subnet's own, or its broadcast address.
    Special,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::NoHosts(what) => what,
            Unfit::Gateways => "the gateway's",
            Unfit::Outside => "in none of the network's subnets",
            Unfit::Special => "its subnet's own or broadcast address",
        })
    }
}

/// Why an address that somebody has declared cannot be a guest's on this network; `None` where it can.
///
/// The same as of one that was only heard of, but for those outside of all subnets where the network routes none of their family: nobody else of the
/// tenant has them by that, and in their own segment they are reached.
pub fn unfit_declared(network: &Network, ip: IpAddr) -> Option<Unfit> {
    let routes = network.vrf.is_some() && network.gateway.iter().any(|g| g.addr().is_ipv4() == ip.is_ipv4());
    unfit(network, ip).filter(|why| routes || *why != Unfit::Outside)
}

/// Why an address cannot be a guest's on this network; `None` where it can.
///
/// In a VRF each address becomes a host route of the whole tenant, so only those of the network's own subnets are taken there: a guest could
/// otherwise draw the traffic of any other network to itself. And the VRF here has a way to its guests by their subnets alone: what came for
/// others would be dropped.
pub fn unfit(network: &Network, ip: IpAddr) -> Option<Unfit> {
    if let Some(what) = not_a_host(ip) {
        return Some(Unfit::NoHosts(what));
    }
    let mut nets = network.gateway.iter().filter(|g| g.addr().is_ipv4() == ip.is_ipv4()).peekable();
    if network.gateway.iter().any(|g| g.addr() == ip) {
        return Some(Unfit::Gateways);
    }
    if matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return None;
    }
    let bound = network.vrf.is_some() || nets.peek().is_some();
    let Some(net) = nets.find(|net| net.contains(&ip)) else {
        return bound.then_some(Unfit::Outside);
    };
    let roomy = net.max_prefix_len() - net.prefix_len() > 1;
    let special = ip == net.network() || ip.is_ipv4() && ip == net.broadcast();
    (roomy && special).then_some(Unfit::Special)
}

/// Who else has it, by the bridge's neighbour entry.
pub fn other_holder(neigh: Option<&Neigh>, mac: Mac) -> Option<Holder> {
    let neigh = neigh.filter(|n| n.mac.is_some_and(|of| of != mac))?;
    match neigh {
        Neigh { ext_learned: true, .. } => Some(Holder::Vtep),
        // Also where dnsmasq has made it a learned one (`was_ours` in plan/guest.rs). Of whose record it is the entry does not tell.
        Neigh { ours: true, .. } => Some(Holder::Here(Source::Fabric)),
        Neigh { permanent: true, .. } => Some(Holder::Operator),
        // Only the kernel's own memory of who had it last.
        _ => None,
    }
}

/// Is it another's by now? Only what was learned before: an address that was heard of just now is on its way from whoever has it.
pub fn yields(address: &Address, before: &[Address], neighs: &[Neigh], mac: Mac) -> bool {
    address.source.is_learned()
        && before.iter().any(|b| b.ip == address.ip)
        && other_holder(neighs.iter().find(|n| n.ip == address.ip), mac).is_some()
}

/// What an endpoint's addresses are with this one; `None` where nothing changes. Where there are too many the one goes that was not heard for longest:
/// `heard` are those that were heard of late, the latest last; before them go those that it lacks, the oldest first.
pub fn with(ips: &[Address], new: Address, mac: Mac, heard: &[IpAddr]) -> Option<Vec<Address>> {
    let mut ips = ips.to_vec();
    if let Some(known) = ips.iter_mut().find(|a| a.ip == new.ip) {
        // A lease is renewed, and says more than that the guest was heard.
        let better = known.source.is_learned() && new.source <= known.source && !is_same(known, &new);
        *known = Address { router: known.router || new.router, ..new };
        return better.then_some(ips);
    }
    let made = |a: &Address| a.source > Source::Lease && is_made_up(a.ip, mac) && is_beside(a.ip, new.ip);
    let crowded = is_made_up(new.ip, mac) && ips.iter().filter(|a| made(a)).count() >= MOST_MADE;
    if crowded || ips.iter().filter(|a| a.source.is_learned()).count() >= MOST {
        // None that a server gave: a guest would show it again if it still had it.
        let may_go = |a: &Address| if crowded { made(a) } else { a.source > Source::Lease };
        let last = |a: &Address| heard.iter().position(|ip| *ip == a.ip).map_or(0, |at| at + 1);
        let (oldest, _) = ips.iter().enumerate().filter(|(_, a)| may_go(a)).min_by_key(|(_, a)| last(a))?;
        ips.remove(oldest);
    }
    ips.push(new);
    Some(ips)
}

/// An IPv6 address that is not made of the MAC, and not link-local.
fn is_made_up(ip: IpAddr, mac: Mac) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    let [a, b, c, d, e, f, g, h, ..] = ip.octets();
    !ip.is_unicast_link_local() && ip != mac.in_prefix([a, b, c, d, e, f, g, h])
}

/// Of the same /64.
fn is_beside(one: IpAddr, other: IpAddr) -> bool {
    matches!((one, other), (IpAddr::V6(one), IpAddr::V6(other)) if one.octets()[..8] == other.octets()[..8])
}

/// Two ways to tell the end of a lease differ by the rounding of two clocks.
fn is_same(known: &Address, new: &Address) -> bool {
    let near = match (known.until, new.until) {
        (Some(known), Some(new)) => known.abs_diff(new) <= 2,
        (known, new) => known == new,
    };
    known.source == new.source && near && known.router >= new.router
}

#[cfg(test)]
#[path = "learn_test.rs"]
mod test;
