//! What the operator wants: the types, their cross-checks, and `/etc/evpn-hook/config.toml`. Pure but for reading that one file.

mod file;

pub use file::{ConfigError, load, parse};

use crate::model::{IfName, Mac, NetName, TableId, Vni};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// The whole of config.toml, with defaults for all that it leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This host's tunnel end.
    pub vtep: VtepConfig,
    /// Who advertises the routes.
    pub speaker: SpeakerConfig,
    /// May we change host-wide settings (IP forwarding, the local routing rule) when a VRF needs them?
    pub manage_host: bool,
    /// Networks for hosts without libvirt, by name; VRFs resolved.
    pub networks: Vec<Network>,
}

/// `[vtep]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VtepConfig {
    /// Where the address comes from.
    pub source: VtepSource,
    /// UDP port of the tunnels (IANA: 4789).
    pub port: u16,
}

/// Where the VTEP's address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VtepSource {
    /// Given as it is.
    Address(IpAddr),
    /// The first global address of this device (default: `lo`).
    Interface(IfName),
}

/// `[speaker]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// `frr` or `none`.
    pub kind: SpeakerKind,
    /// Put each VRF's stanzas into the running FRR.
    pub manage_vrfs: bool,
    /// The directory of FRR's vty sockets.
    pub socket_dir: PathBuf,
}

/// Which EVPN speaker reads the kernel's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeakerKind {
    /// FRRouting, 8.4 or newer.
    Frr,
    /// None that we talk to: only the kernel is set up.
    None,
}

/// A tenant's routing domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vrf {
    /// The VRF device's name, and FRR's.
    pub name: IfName,
    /// Its routing table.
    pub table: TableId,
    /// The L3VNI for symmetric routing; none means no routing between VTEPs.
    pub vni: Option<Vni>,
}

/// How a network comes by its bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// libvirt makes and deletes the bridge (forward open, route, nat, none).
    Libvirt,
    /// libvirt uses a bridge that it does not make (forward mode='bridge'): we make it.
    LibvirtBridge,
    /// config.toml: we make it.
    Config,
}

/// One tenant layer-2 segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// What `virsh net-list` or config.toml calls it.
    pub name: NetName,
    /// Who makes its bridge.
    pub origin: Origin,
    /// The bridge that is the segment on this host.
    pub bridge: IfName,
    /// The L2VNI.
    pub vni: Vni,
    /// The routing domain; none is a pure layer-2 tenant.
    pub vrf: Option<Vrf>,
    /// Gateway addresses of the bridge. libvirt sets its own; for the other origins we do.
    pub gateway: Vec<IpNet>,
    /// The bridge's fixed MAC (the anycast gateway's); libvirt always gives one.
    pub mac: Option<Mac>,
    /// MTU in bytes of bridge, VXLAN and ports; none means: what the underlay leaves.
    pub mtu: Option<u32>,
    /// True where the XML asks for `macTableManager='libvirt'`, which makes the bridge VLAN-aware.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vlan_aware: bool,
    /// `<dhcp><host mac ip>`: addresses known before the guest asks for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<Mac, Vec<IpAddr>>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            vtep: VtepConfig { source: VtepSource::Interface("lo".parse().expect("lo is a name")), port: 4789 },
            speaker: SpeakerConfig {
                kind: SpeakerKind::Frr,
                manage_vrfs: true,
                socket_dir: PathBuf::from("/run/frr"),
            },
            manage_host: true,
            networks: Vec::new(),
        }
    }
}

impl Config {
    /// The configured network of this name.
    pub fn network(&self, name: &NetName) -> Option<&Network> {
        self.networks.iter().find(|n| n.name == *name)
    }
}

impl Network {
    /// Where two descriptions of the same network (libvirt's XML and config.toml) disagree: `field: one, other`.
    /// What one of them leaves open (MAC, MTU, gateways) is no disagreement.
    pub fn disagreement(&self, other: &Network) -> Option<String> {
        fn differ<T: PartialEq + std::fmt::Debug>(field: &str, a: &T, b: &T) -> Option<String> {
            (a != b).then(|| format!("{field}: {a:?} and {b:?}"))
        }
        fn both<T: PartialEq + std::fmt::Debug>(field: &str, a: &Option<T>, b: &Option<T>) -> Option<String> {
            match (a, b) {
                (Some(a), Some(b)) => differ(field, a, b),
                _ => None,
            }
        }
        let vrf = |n: &Network| n.vrf.as_ref().map(|v| (v.name.to_string(), v.table.get(), v.vni.map(Vni::get)));
        differ("bridge", &self.bridge.as_str(), &other.bridge.as_str())
            .or_else(|| differ("vni", &self.vni.get(), &other.vni.get()))
            .or_else(|| differ("vrf (name, table, vni)", &vrf(self), &vrf(other)))
            .or_else(|| both("mac", &self.mac, &other.mac))
            .or_else(|| both("mtu", &self.mtu, &other.mtu))
    }
}
