//! What is written down of a guest: its NICs on our networks, what the kernel may hold of them, and
//! how far each has come. The register keeps it in /run/evpn-hook/guests; old records must be read
//! for ever.

use super::guard::{Guard, guard};
use crate::config::PortSecurity;
use crate::model::{Address, Guest, IfName, Mac, NetName, Source};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// How far an endpoint has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Wired, but its guest still runs elsewhere.
    Incoming,
    /// Claimed: steps are being taken, or were cut off.
    Pending,
    /// The kernel holds what the speaker needs.
    Registered,
}

/// One NIC of a guest on one of our networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: NetName,
    /// Its bridge.
    pub bridge: IfName,
    /// The guest's port.
    pub device: IfName,
    /// The guest's MAC; none before a container's is known.
    pub mac: Option<Mac>,
    /// The guest's addresses: the declared ones, then what was learned, as it came.
    pub ips: Vec<Address>,
    /// We enslaved the device (nobody else puts it back).
    pub enslaved: bool,
    /// How far it has come.
    pub stage: Stage,
    /// What of its frames its port lets in, as its network said when it was registered last.
    #[serde(default, skip_serializing_if = "is_off")]
    pub port_security: PortSecurity,
    /// The device's index, by which the kernel's rules know it; only where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// What another guest of the fabric had when this one took it. FRR shows the fabric's hosts one
    /// of the two, so that nobody else knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<Taken>,
    /// Addresses that it took from others so often that it may not for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slowed: Vec<Slowed>,
    /// The guest's other ports on the same bridge, none where port security holds them: where it
    /// bonds them its MAC may come by any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<IfName>,
}

fn is_off(security: &PortSecurity) -> bool {
    *security == PortSecurity::Off
}

/// What an endpoint took from a guest behind another VTEP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The address; none where it is the MAC itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The other's MAC.
    pub mac: Mac,
    /// The other's VTEP, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep: Option<IpAddr>,
    /// Seconds since boot (CLOCK_BOOTTIME) when it was taken last.
    pub since: u64,
}

/// An address that a guest may not take from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slowed {
    /// The address.
    pub ip: IpAddr,
    /// Until so many seconds since boot (CLOCK_BOOTTIME).
    pub until: u64,
}

impl Endpoint {
    /// What its port lets in; empty where nothing holds it.
    pub fn guard(&self) -> Guard {
        guard(self.port_security, self.mac, &self.ips)
    }

    /// Its addresses, whoever told them.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ips.iter().map(|a| a.ip).collect()
    }

    /// Those that whoever set it up declared.
    pub fn declared(&self) -> impl Iterator<Item = &Address> {
        self.ips.iter().filter(|a| !a.source.is_learned())
    }

    /// Takes over what an earlier look at the same NIC knows and this one does not repeat: what was
    /// learned, and where nothing is declared, what only the start or a hot-plug told. The
    /// network's `<dhcp><host>` is always at hand, so its silence counts.
    pub fn remember(&mut self, old: &Endpoint) {
        if (self.mac, &self.network) != (old.mac, &old.network) {
            return;
        }
        self.slowed.clone_from(&old.slowed);
        let routes = |ip| old.ips.iter().any(|a| a.ip == ip && a.router);
        self.ips.iter_mut().for_each(|a| a.router |= routes(a.ip));
        let silent = self.ips.is_empty();
        let kept = |a: &&Address| a.source.is_learned() || silent && a.source != Source::DhcpHost;
        let kept: Vec<Address> = old.ips.iter().filter(kept).copied().collect();
        for address in kept {
            if !self.ips.iter().any(|a| a.ip == address.ip) {
                self.ips.push(address);
            }
        }
    }
}

/// A guest with its endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// Who.
    pub guest: Guest,
    /// Seconds since boot (CLOCK_BOOTTIME) when `qemu migrate` announced that it comes from another
    /// host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming_since: Option<u64>,
    /// Its NICs.
    pub endpoints: Vec<Endpoint>,
    /// The hook that wrote this last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// What its NICs were, as long as the kernel may still hold something of it: being withdrawn,
    /// cut off in the midst of it, or refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<Endpoint>,
}

/// A hook's run, as far as it was when it wrote its guest's record for the last time. Nobody else
/// sees a hook: it is how the agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Which: `qemu start`.
    pub by: String,
    /// When it began, in µs since boot (CLOCK_BOOTTIME).
    pub began: u64,
    /// How long it took so far, in µs.
    pub took: u64,
}

impl GuestRecord {
    /// Notes of each NIC which other ports the guest has on its bridge.
    pub fn know_ports(&mut self) {
        let ports: Vec<(IfName, IfName)> =
            self.endpoints.iter().map(|e| (e.device.clone(), e.bridge.clone())).collect();
        for endpoint in &mut self.endpoints {
            let open = endpoint.port_security == PortSecurity::Off;
            let its =
                ports.iter().filter(|(dev, bridge)| open && *dev != endpoint.device && *bridge == endpoint.bridge);
            endpoint.beside = its.map(|(dev, _)| dev.clone()).collect();
        }
    }

    /// One without NICs.
    pub fn new(guest: Guest) -> GuestRecord {
        GuestRecord { guest, incoming_since: None, endpoints: Vec::new(), hook: None, leaving: Vec::new() }
    }

    /// Is it on its way to here?
    pub fn is_incoming(&self) -> bool {
        self.endpoints.iter().any(|e| e.stage == Stage::Incoming)
    }

    /// All that the kernel may hold of it.
    pub fn held(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().chain(&self.leaving)
    }
}
