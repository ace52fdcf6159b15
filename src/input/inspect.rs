//! What a hook would read of libvirt's XML, as it stands there: for people, and for the comparison with libvirt's own reading.
//!
//! The hooks' own walks fill these; what they have no use for (a direct interface, a network that is not ours) is here, too.

use super::{InputError, libvirt_network, libvirt_qemu};
use crate::config::Vrf;
use crate::model::{Mac, NetName, Vni};
use ipnet::IpNet;
use serde::Serialize;
use std::net::IpAddr;

/// A `<domain>`. The fields up to `interfaces` and those of an interface are what others build on: more may follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// `<name>`
    pub name: Option<String>,
    /// `<uuid>`
    pub uuid: Option<String>,
    /// All of them, of whatever type, in their order.
    pub interfaces: Vec<Interface>,
    /// Our own metadata.
    pub metadata: Vec<Hint>,
}

/// An `<interface>`; of a network's `<forward>` only type (the forward mode) and target are there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// `type=`
    #[serde(rename = "type")]
    pub kind: String,
    /// `<mac address=>`
    pub mac: Option<String>,
    /// `<source network=>`
    pub network: Option<String>,
    /// `<source bridge=>`; in a status file that of `<actual>`.
    pub bridge: Option<String>,
    /// `<source portgroup=>`
    pub portgroup: Option<String>,
    /// `<target dev=>`
    pub target: Option<String>,
}

/// An `<evpn:interface>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// Which interface it means.
    pub mac: Mac,
    /// Its network, where the interface names none.
    pub network: Option<NetName>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// A `<network>`. Likewise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    /// `<name>`
    pub name: Option<String>,
    /// `<uuid>`
    pub uuid: Option<String>,
    /// The host's devices that it forwards to: `<forward dev=>`, or the `<interface dev=>` in it.
    pub interfaces: Vec<Interface>,
    /// `<forward mode=>`; none of an isolated network.
    pub forward: Option<String>,
    /// `<bridge name=>`
    pub bridge: Option<String>,
    /// `<mac address=>`
    pub mac: Option<String>,
    /// `<mtu size=>`
    pub mtu: Option<u32>,
    /// The bridge's addresses.
    pub gateway: Vec<IpNet>,
    /// Our own metadata; without it, the network is not ours unless config.toml describes it.
    pub metadata: Option<Metadata>,
}

/// An `<evpn:network>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// `vni=`
    pub vni: Vni,
    /// `<evpn:vrf>`
    pub vrf: Option<Vrf>,
}

/// Reads a domain's XML, live, inactive or a status file.
pub fn domain(xml: &[u8]) -> Result<Domain, InputError> {
    libvirt_qemu::inspect(xml).map_err(|why| InputError::new(&why, true))
}

/// Reads a network's XML, or what its hook is given.
pub fn network(xml: &[u8]) -> Result<Network, InputError> {
    libvirt_network::inspect(xml).map_err(|why| InputError::new(&why, true))
}
