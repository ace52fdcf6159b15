//! What the operator wants: the types, their cross-checks, and `/etc/evpn-hook/config.toml`. Pure but for reading that one file.

mod before;
mod change;
mod file;
mod once;

pub use before::Before;
pub use change::Change;
pub use file::{ConfigError, emptied, is_blank, load, parse, parse_all, text};

use crate::model::{BadValue, IfName, Mac, NetName, TableId, Vni, quoted};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
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
    /// May guests open BGP sessions to their gateway?
    pub tenant_bgp: bool,
    /// What a start comes to whose address or MAC another guest has.
    pub on_duplicate: OnDuplicate,
    /// Networks for hosts without libvirt, by name; VRFs resolved.
    pub networks: Vec<Network>,
    /// Who else than root may put containers on which networks.
    pub unprivileged: Vec<Unprivileged>,
    /// Which networks a guest's own metadata may name for it.
    pub allow_guest_networks: GuestNetworks,
    /// Where the agent tells its figures; nowhere where it is not set.
    pub metrics: Option<MetricsAt>,
}

/// `[agent] metrics`: on this host alone, for it tells of all tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAt {
    /// A port on loopback.
    Tcp(SocketAddr),
    /// A unix socket.
    Socket(PathBuf),
}

/// What to do where a guest starts with an address or MAC that another, live guest of the fabric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDuplicate {
    /// It does not start.
    Refuse,
    /// It starts, and the log names both. The default: a host that died has its routes until BGP notices, and its guests start elsewhere before.
    #[default]
    Warn,
}

/// `allow_guest_networks`: which networks the metadata of a domain may choose for a NIC that libvirt itself puts on none (type='ethernet').
/// Whoever may write a guest's metadata is often not whoever may say in whose network it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GuestNetworks {
    /// None: the default.
    #[default]
    None,
    /// Each that is up.
    All,
    /// These.
    Named(Vec<NetName>),
}

impl GuestNetworks {
    /// May a guest choose this one?
    pub fn has(&self, network: &NetName) -> bool {
        match self {
            GuestNetworks::None => false,
            GuestNetworks::All => true,
            GuestNetworks::Named(names) => names.contains(network),
        }
    }
}

/// `port_security`: what a guest may send on its own port of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortSecurity {
    /// Anything. The default.
    #[default]
    Off,
    /// Frames from its own MAC.
    Mac,
    /// And in them only its own addresses: as source of IPv4 and IPv6, in ARP and neighbour discovery; no DHCP server's words, no router's.
    MacIp,
}

impl std::str::FromStr for PortSecurity {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<PortSecurity, BadValue> {
        match text {
            "off" => Ok(PortSecurity::Off),
            "mac" => Ok(PortSecurity::Mac),
            "mac-ip" => Ok(PortSecurity::MacIp),
            other => Err(BadValue::new(format!("port_security {} is unknown: use off, mac or mac-ip", quoted(other)))),
        }
    }
}

impl std::fmt::Display for PortSecurity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            PortSecurity::Off => "off",
            PortSecurity::Mac => "mac",
            PortSecurity::MacIp => "mac-ip",
        })
    }
}

/// `[[unprivileged]]`: a user whose own containers may join these networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unprivileged {
    /// Who.
    pub user: User,
    /// config.toml's or libvirt's; not looked up before a container asks.
    pub networks: Vec<NetName>,
}

/// A user as the operator writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "write the user's name or number")]
pub enum User {
    /// The number.
    Id(u32),
    /// The name in /etc/passwd.
    Name(String),
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
    /// What configures it.
    pub vtysh: PathBuf,
}

impl Default for SpeakerConfig {
    fn default() -> SpeakerConfig {
        SpeakerConfig {
            kind: SpeakerKind::Frr,
            manage_vrfs: true,
            socket_dir: PathBuf::from("/run/frr"),
            vtysh: PathBuf::from("/usr/bin/vtysh"),
        }
    }
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
    /// What its guests may send; none where nobody said, which is `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_security: Option<PortSecurity>,
    /// True where the XML asks for `macTableManager='libvirt'`, which makes the bridge VLAN-aware.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vlan_aware: bool,
    /// STP runs on the bridge, because the metadata says so; else it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stp: bool,
    /// `<dhcp><host mac ip>`: addresses known before the guest asks for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<Mac, Vec<IpAddr>>,
    /// What advice is made of; none in a record of an earlier version.
    #[serde(default, deserialize_with = "if_understood", skip_serializing_if = "Option::is_none")]
    pub described: Option<Described>,
}

/// What a description says, or leaves out, that changes nothing of what we do: advice is made of it ([`crate::advice`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Described {
    /// How libvirt forwards.
    pub forward: Forward,
    /// libvirt starts the bridge with STP. To libvirt `stp='on'` and nothing are the same, and its hooks' XML always has `stp='on'` then.
    pub stp: bool,
    /// dnsmasq answers DHCPv4 clients by unicast.
    pub dhcp_unicast: bool,
    /// dnsmasq is to answer DNS.
    pub dns: bool,
    /// dnsmasq is to answer TFTP.
    pub tftp: bool,
    /// The bridge's MAC is this host's own, or looks so.
    pub own_mac: bool,
    /// Guests are told the MTU, or who wrote the description knows it.
    pub mtu_told: bool,
}

/// A record whose advice another version wrote is as good a record.
fn if_understood<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Described>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(from)?).ok())
}

/// What libvirt's `<forward mode=>` does to what is routed; ours never does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Nothing that is in the way: open, route, bridge.
    #[default]
    Open,
    /// Addresses are rewritten.
    Nat,
    /// It is rejected: there is no `<forward>`.
    Isolated,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            vtep: VtepConfig { source: VtepSource::Interface("lo".parse().expect("lo is a name")), port: 4789 },
            speaker: SpeakerConfig::default(),
            manage_host: true,
            tenant_bgp: false,
            on_duplicate: OnDuplicate::default(),
            networks: Vec::new(),
            unprivileged: Vec::new(),
            allow_guest_networks: GuestNetworks::None,
            metrics: None,
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
    /// What its guests may send.
    pub fn security(&self) -> PortSecurity {
        self.port_security.unwrap_or_default()
    }

    /// Where two descriptions of the same network (libvirt's XML and config.toml) disagree: `field: one and other`.
    /// What one of them leaves open (MAC, MTU, gateways, port security) is no disagreement.
    pub fn disagreement(&self, other: &Network) -> Option<String> {
        fn differ<T: PartialEq + std::fmt::Display>(field: &str, a: T, b: T) -> Option<String> {
            (a != b).then(|| format!("{field}: {a} and {b}"))
        }
        fn both<T: PartialEq + std::fmt::Display>(field: &str, a: Option<T>, b: Option<T>) -> Option<String> {
            differ(field, a?, b?)
        }
        fn gateways(network: &Network) -> Option<String> {
            let mut all = network.gateway.clone();
            all.sort();
            (!all.is_empty()).then(|| all.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", "))
        }
        let vrf = |n: &Network| n.vrf.as_ref().map_or("none".to_owned(), Vrf::to_string);
        differ("bridge", &self.bridge, &other.bridge)
            .or_else(|| differ("vni", self.vni, other.vni))
            .or_else(|| differ("vrf", vrf(self), vrf(other)))
            .or_else(|| both("mac", self.mac, other.mac))
            .or_else(|| both("mtu", self.mtu, other.mtu))
            .or_else(|| both("gateway", gateways(self), gateways(other)))
            .or_else(|| both("port_security", self.port_security, other.port_security))
    }

    /// What is wrong with this description taken as a whole, and the way out; each value alone is right already.
    pub fn problem(&self) -> Option<String> {
        let vrf = self.vrf.as_ref().and_then(|vrf| {
            let l3 = match vrf.l3_bridge() {
                Ok(l3) => l3,
                Err(e) => return Some(e.to_string()),
            };
            if vrf.vni == Some(self.vni) {
                return Some(format!("vni {} is both the network's and its VRF's: give the VRF another", self.vni));
            }
            let clash = vrf.name == self.bridge || l3.as_ref() == Some(&self.bridge);
            clash.then(|| {
                format!("the bridge's name {} is also that of a device of VRF {}: rename it", self.bridge, vrf.name)
            })
        });
        let clash = self.bridge == self.vni.device();
        let v6 = self.gateway.iter().find(|g| g.addr().is_ipv6());
        vrf.or_else(|| clash.then(|| format!("the bridge's name {} is its VXLAN device's: rename it", self.bridge)))
            .or_else(|| match (self.mtu?, v6) {
                (mtu, _) if !(68..=65535).contains(&mtu) => Some(format!("mtu {mtu} is out of range: use 68 to 65535")),
                (mtu, Some(v6)) if mtu < 1280 => {
                    Some(format!("mtu {mtu} is too small for the IPv6 gateway {v6}: use 1280 or more"))
                }
                _ => None,
            })
            .or_else(|| self.gateway.iter().find_map(gateway_problem))
    }
}

/// Why no bridge can have this address, and the way out.
fn gateway_problem(gateway: &IpNet) -> Option<String> {
    let host_bits = gateway.max_prefix_len() - gateway.prefix_len();
    let what = match crate::model::not_a_host(gateway.addr()) {
        Some(what) => what,
        None if gateway.prefix_len() == 0 => "the whole address space",
        // RFC 3021 and RFC 6164: links with one host bit have no network and broadcast address.
        None if host_bits < 2 => return None,
        None if gateway.addr() == gateway.network() => "its subnet's own address, not a host's",
        None if gateway.addr().is_ipv4() && gateway.addr() == gateway.broadcast() => "its subnet's broadcast address",
        None => return None,
    };
    Some(format!("gateway {gateway} is {what}: use the bridge's address, as 10.1.0.1/24"))
}

impl Vrf {
    /// The name of its L3VNI bridge; `None` for a VRF without an L3VNI, an error where the name is too long.
    pub fn l3_bridge(&self) -> Result<Option<IfName>, crate::model::BadValue> {
        self.vni.map(|_| self.name.l3_bridge()).transpose()
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            User::Id(id) => id.fmt(f),
            User::Name(name) => name.fmt(f),
        }
    }
}

impl std::fmt::Display for Vrf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (table {}", self.name, self.table)?;
        match self.vni {
            Some(vni) => write!(f, ", vni {vni})"),
            None => write!(f, ", no vni)"),
        }
    }
}
