//! `evpn-hook status`: what is wanted, what the kernel has, what the speaker says.
//!
//! - [`gather`] asks; what it found is a [`Status`], and all else is made of that alone.
//! - [`tree`]: for a terminal. [`svg`]: for a wiki page. Both are pure; [`terminal`] and [`save`] are their effects.
//! - [`watch`]: the tree anew whenever something changes.

mod gather;
pub mod save;
pub mod svg;
pub mod terminal;
pub mod tree;
pub mod watch;

pub use gather::{gather, settled};

use crate::advice::Advice;
use crate::config::{PortSecurity, Vrf};
use crate::model::{Address, Guest, IfName, Mac, NetName, Vni};
use serde::Serialize;
use std::net::IpAddr;

/// The whole report; its JSON is stable: fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Tenant networks of this host.
    pub networks: Vec<NetworkStatus>,
    /// Guests' NICs on them.
    pub endpoints: Vec<EndpointStatus>,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: NetName,
    /// Its bridge.
    pub bridge: IfName,
    /// Its L2VNI.
    pub vni: Vni,
    /// Its routing domain.
    pub vrf: Option<Vrf>,
    /// This host's tunnel end.
    pub vtep: Option<IpAddr>,
    /// What its guests may send: `off`, `mac` or `mac-ip`.
    pub port_security: PortSecurity,
    /// `up`, `degraded` or `down`.
    pub state: &'static str,
    /// What is missing, in words.
    pub problems: Vec<String>,
    /// What of its description works badly, and the mend; no problem by itself.
    pub advice: Vec<Advice>,
    /// The other hosts that have it, as this one's kernel sends to them; by address.
    pub remotes: Vec<Remote>,
    /// Ports on its bridge that belong to no guest, by name; left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub foreign_ports: Vec<ForeignPort>,
}

/// A port that no hook told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForeignPort {
    /// Its name as it can be shown.
    pub device: String,
    /// Nothing comes in through it, as the network's port security wants.
    pub held: bool,
}

/// Another host's tunnel end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Remote {
    /// Its address.
    pub vtep: IpAddr,
    /// How many MACs of the network are behind it; none (null) where they were not counted: the host's networks have too many to read.
    pub macs: Option<usize>,
}

/// How many MACs there are, in words; `none` where there are none.
fn macs(number: Option<usize>, none: &str) -> String {
    match number {
        None => "MACs".into(),
        Some(0) => none.into(),
        Some(number) => count(number, "MAC"),
    }
}

/// One NIC of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointStatus {
    /// Whose.
    pub guest: Guest,
    /// Which network.
    pub network: NetName,
    /// The port.
    pub device: IfName,
    /// The guest's MAC.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The same with who told each.
    pub addresses: Vec<Address>,
    /// `incoming`, `registered`, `advertised` or `failed`.
    pub state: &'static str,
    /// What is missing, in words.
    pub problems: Vec<String>,
}

/// Networks that share a VRF, or have none.
pub struct Tenant<'a> {
    /// The VRF.
    pub vrf: Option<&'a Vrf>,
    /// Its networks, by name.
    pub networks: Vec<&'a NetworkStatus>,
}

impl Status {
    /// Is anything not as it should be?
    pub fn has_problems(&self) -> bool {
        self.networks.iter().any(|n| !n.problems.is_empty()) || self.endpoints.iter().any(|e| !e.problems.is_empty())
    }

    /// The networks by VRF, by name; those without one come last.
    pub fn tenants(&self) -> Vec<Tenant<'_>> {
        let mut networks: Vec<&NetworkStatus> = self.networks.iter().collect();
        let vrf = |n: &NetworkStatus| n.vrf.as_ref().map(|v| (v.name.clone(), v.table, v.vni));
        networks.sort_by_key(|n| (n.vrf.is_none(), vrf(n), n.name.clone()));
        let groups = networks.chunk_by(|a, b| a.vrf == b.vrf);
        groups.map(|group| Tenant { vrf: group[0].vrf.as_ref(), networks: group.to_vec() }).collect()
    }

    /// A network's endpoints, by their guests' names.
    pub fn endpoints_of(&self, network: &NetName) -> Vec<&EndpointStatus> {
        let mut endpoints: Vec<&EndpointStatus> = self.endpoints.iter().filter(|e| e.network == *network).collect();
        endpoints.sort_by(|a, b| (&a.guest.name, &a.guest.id, &a.device).cmp(&(&b.guest.name, &b.guest.id, &b.device)));
        endpoints
    }

    /// Networks that only endpoints know of, by name.
    pub fn gone(&self) -> Vec<&NetName> {
        let known = |name: &NetName| self.networks.iter().any(|n| n.name == *name);
        let mut gone: Vec<&NetName> = self.endpoints.iter().map(|e| &e.network).filter(|name| !known(name)).collect();
        gone.sort();
        gone.dedup();
        gone
    }
}

/// What a state asks of whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    Good,
    /// On its way.
    Moving,
    /// It works, but not all of it.
    Doubtful,
    /// It does not work.
    Bad,
}

impl Mood {
    fn of(state: &str, problems: &[String]) -> Mood {
        match state {
            "failed" | "down" | "gone" => Mood::Bad,
            _ if !problems.is_empty() => Mood::Doubtful,
            "up" | "advertised" => Mood::Good,
            _ => Mood::Moving,
        }
    }
}

/// Names are other people's: what would change how the text around them is shown (controls, marks of direction, separators of lines, what has no
/// width) or stand in no XML is shown as one sign of its own. See CVE-2021-42574.
fn harmless(text: &str) -> String {
    let hurts = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}')
    };
    text.chars().map(|c| if hurts(c) { '\u{fffd}' } else { c }).collect()
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
