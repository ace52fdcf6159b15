//! What was gathered of one NIC, or of one guest of another host.

use crate::checks::speaker::SpeakerFacts;
use crate::checks::unheard::Unheard;
use crate::config::Network;
use crate::engine::HostLacks;
use crate::model::{Guest, IfName, Mac};
use crate::plan::duplicate::Duplicate;
use crate::plan::seen::{Route, World};
use crate::plan::{Plan, Refusal};
use crate::register::Endpoint;
use crate::speaker::{Advertised, Announced, Peer, RoutePath, Targets};
use std::net::IpAddr;

/// A network on this host: what every guest on it depends on.
pub(super) struct SegmentFacts<'a> {
    pub(super) network: &'a Network,
    /// This host's tunnel end, and the device that should have the address.
    pub(super) vtep: Option<IpAddr>,
    pub(super) vtep_device: IfName,
    pub(super) world: &'a World,
    pub(super) lacks: HostLacks,
    /// None where no speaker is configured.
    pub(super) frr: Option<RouteFacts>,
}

/// A guest of this host.
pub(super) struct GuestFacts<'a> {
    pub(super) guest: &'a Guest,
    pub(super) endpoint: &'a Endpoint,
    /// What `sync` would do for it.
    pub(super) mends: Result<Plan, Refusal>,
    pub(super) duplicates: Vec<Duplicate>,
    pub(super) agent_runs: bool,
}

/// A guest of another host.
#[derive(Default)]
pub(super) struct StrangerFacts {
    pub(super) mac: Option<Mac>,
    pub(super) ips: Vec<IpAddr>,
    /// The kernel's entry of the VXLAN device: the tunnel's other end.
    pub(super) tunnel: Option<IpAddr>,
    /// How the VRF routes to each address.
    pub(super) routes: Vec<(IpAddr, Option<Route>)>,
    /// How the host gets to the VTEP that has it; `None` where no VTEP is known.
    pub(super) underlay: Option<(IpAddr, Option<Route>)>,
}

/// What FRR says of the network, and of the guest's routes.
#[derive(Default)]
pub(super) struct RouteFacts {
    pub(super) speaker: SpeakerFacts,
    pub(super) targets: Option<Targets>,
    /// The peers to whose addresses the kernel has no way.
    pub(super) no_way: Vec<String>,
    /// The underlay's sessions that are not up.
    pub(super) underlay: Vec<Peer>,
    /// The guest in zebra and bgpd.
    pub(super) known: Option<Advertised>,
    /// Its own routes in bgpd's table: of the MAC, and of each address.
    pub(super) announced: Vec<(Option<IpAddr>, Announced)>,
    /// What other VTEPs announce of it.
    pub(super) received: Vec<RoutePath>,
    /// Why it is not known whether they announce the address that was asked for, where no route of its MAC says so and bgpd did not list all.
    pub(super) unlisted: Option<Unheard>,
}
