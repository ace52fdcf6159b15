//! By which devices this host's tunnelled packets leave, and what those leave to tenants.
//!
//! Not by every device that has an address: a management NIC, a VPN or a container's veth carries no tunnel, and a host that has one must not give its
//! tenants another MTU than its neighbours do. The kernel's routes tell, as far as they are there.

use super::seen::{Address, Link, LinkKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The MTU in bytes where no device says another.
const FIRST_MTU: u32 = 1500;

/// What a tunnel adds to a tenant's packet, in bytes: outer IP, UDP, VXLAN, inner Ethernet (RFC 7348 §5). Without a VTEP yet it is taken to be of IPv4.
pub fn overhead(vtep: Option<IpAddr>) -> u32 {
    if vtep.is_none_or(|vtep| vtep.is_ipv4()) { 50 } else { 70 }
}

/// What the routes of table main say, each as the devices that they leave by, by index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    /// To single addresses, learned by a routing protocol: where the fabric routes to its hosts, other VTEPs are among them.
    pub hosts: BTreeSet<u32>,
    /// All others that a routing protocol learned: a fabric may tell its hosts no more than a default route.
    pub learned: BTreeSet<u32>,
    /// To the other ends of tunnels that are up.
    pub peers: BTreeSet<u32>,
    /// Default routes, whoever made them.
    pub default: BTreeSet<u32>,
}

/// The devices that tunnelled packets leave by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carriers {
    /// The devices.
    pub devices: Vec<Link>,
    /// A route to other VTEPs says so. Otherwise it is a guess, which holds until there is one.
    pub settled: bool,
}

impl Carriers {
    /// What they leave to tenants, in bytes.
    pub fn tenants_mtu(&self, vtep: Option<IpAddr>) -> u32 {
        self.devices.iter().map(|l| l.mtu).min().unwrap_or(FIRST_MTU).saturating_sub(overhead(vtep))
    }
}

/// The device that has the VTEP's address, unless that is a loopback; else those by which routes lead to other VTEPs; else, as a guess, those of the default
/// route; else all that could be.
pub fn carriers<'a>(
    vtep: Option<IpAddr>,
    links: impl Iterator<Item = &'a Link> + Clone,
    addresses: impl Iterator<Item = &'a Address> + Clone,
    ways: &Ways,
) -> Carriers {
    let owner = addresses.clone().filter(|a| Some(a.net.addr()) == vtep).map(|a| a.index).min();
    let own = links.clone().find(|l| Some(l.index) == owner);
    if let Some(device) = own.filter(|l| l.index != 1 && l.kind != LinkKind::Other("dummy".into())) {
        return Carriers { devices: vec![device.clone()], settled: true };
    }
    let of = |indexes: &BTreeSet<u32>| -> Vec<Link> {
        links.clone().filter(|l| carries(l) && indexes.contains(&l.index)).cloned().collect()
    };
    for (indexes, settled) in [(&ways.hosts, true), (&ways.learned, true), (&ways.peers, true), (&ways.default, false)]
    {
        let devices = of(indexes);
        if !devices.is_empty() {
            return Carriers { devices, settled };
        }
    }
    let addressed: BTreeSet<u32> = addresses.map(|a| a.index).collect();
    let devices = links.filter(|l| is_uplink(l) && addressed.contains(&l.index)).cloned().collect();
    Carriers { devices, settled: false }
}

/// May a route of table main that leads by this device carry a tunnel? Routes that leak out of a tenant's VRF do not, nor does what is a port of another
/// device, whose routes are that device's.
fn carries(link: &Link) -> bool {
    let tenants = link.ours || matches!(link.kind, LinkKind::Vrf { .. } | LinkKind::Vxlan { .. });
    link.index != 1 && link.up && link.master.is_none() && !tenants
}

/// Could tunnels leave by this device, where no route tells? One that is nobody's port, bridge or tap.
pub fn is_uplink(link: &Link) -> bool {
    let kind = match &link.kind {
        LinkKind::Other(kind) => !matches!(kind.as_str(), "tun" | "dummy" | "ifb" | "macvtap" | "macvlan"),
        _ => false,
    };
    kind && link.index != 1 && link.up && link.master.is_none()
}

#[cfg(test)]
#[path = "underlay_test.rs"]
mod tests;
