//! What was observed: the planner's other input. Filled by the kernel room, read by nobody but the plan and the reports.

use crate::model::{IfName, Mac, TableId, Vni};
use ipnet::IpNet;
use std::net::IpAddr;

/// A network device as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: IfName,
    /// Its index.
    pub index: u32,
    /// Its master's index.
    pub master: Option<u32>,
    /// `IFLA_LINK`: for a veth its peer's index, perhaps in another namespace.
    pub link: Option<u32>,
    /// Its MAC, if it has one that a guest could have.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Has a carrier (IFF_LOWER_UP).
    pub carrier: bool,
    /// What it is.
    pub kind: LinkKind,
    /// IPv6 address generation is off (`addrgenmode none`); `None` where the kernel did not say.
    pub addrgen_none: Option<bool>,
}

/// The kinds that we decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge {
        /// VLAN-aware.
        vlan_filtering: bool,
        /// `vlan_default_pvid`; 0 where the kernel has no VLAN filtering.
        default_pvid: u16,
    },
    /// A VXLAN device.
    Vxlan {
        /// Its VNI; `None` for an external (collect metadata) one.
        vni: Option<Vni>,
        /// `local`
        local: Option<IpAddr>,
        /// UDP destination port.
        port: u16,
        /// Learns remote MACs from the data plane.
        learning: bool,
    },
    /// A VRF.
    Vrf {
        /// Its table.
        table: TableId,
    },
    /// Anything else: the kernel's word for it (`tun`, `veth`), empty for hardware.
    Other(String),
}

/// A neighbour entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neigh {
    /// The address.
    pub ip: IpAddr,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// NUD_PERMANENT.
    pub permanent: bool,
    /// NTF_EXT_LEARNED: another VTEP's, put there by the speaker.
    pub ext_learned: bool,
    /// NDA_PROTOCOL is ours.
    pub ours: bool,
}

/// A bridge FDB entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fdb {
    /// The MAC.
    pub mac: Mac,
    /// The port's index.
    pub port: u32,
    /// NUD_NOARP or NUD_PERMANENT: does not age.
    pub is_static: bool,
    /// NTF_EXT_LEARNED.
    pub ext_learned: bool,
}

/// An address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The device's index.
    pub index: u32,
    /// Address with prefix length.
    pub net: IpNet,
    /// RT_SCOPE_UNIVERSE.
    pub global: bool,
}
