//! What was observed: the planner's other input. Filled by the kernel room, read by nobody but the plan and the reports.

use super::guard::Guard;
use crate::model::{IfName, Mac, TableId, Vni};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// A network device as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Carries our mark ([`Kernel`](crate::kernel::Kernel) gives it to each device that it makes): ours to delete.
    pub ours: bool,
    /// As a bridge's port.
    pub port: PortFlags,
    /// Of a bridge: `fdb_max_learned` (Linux 6.7), 0 where there is no bound; `None` where the kernel does not know it.
    #[serde(default)]
    pub max_learned: Option<u32>,
}

/// A device whose name the kernel takes (net/core/dev.c `dev_valid_name`) and no [`IfName`] can be: nothing of ours can mean it, but it may be a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Odd {
    /// Its name as it can be shown.
    pub shown: String,
    /// Its index.
    pub index: u32,
    /// Its master's index.
    pub master: Option<u32>,
    /// `IFLA_LINK`: for a veth its peer's index.
    pub link: Option<u32>,
    /// As a bridge's port.
    pub port: PortFlags,
}

impl PortFlags {
    /// Nothing comes in through this port but from a MAC that the FDB says is behind it. A kernel that does not know `locked` (before 5.18) takes it and
    /// forgets it; the guard does as much.
    pub fn is_held(&self) -> bool {
        self.locked != Some(false) && self.learning != Some(true)
    }
}

/// The flags of a bridge port that decide whether EVPN works; `None` where the kernel does not know them or it is no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortFlags {
    /// `learning` (IFLA_BRPORT_LEARNING).
    pub learning: Option<bool>,
    /// `neigh_suppress` (IFLA_BRPORT_NEIGH_SUPPRESS, Linux 4.15).
    pub neigh_suppress: Option<bool>,
    /// `locked` (IFLA_BRPORT_LOCKED, Linux 5.18).
    #[serde(default)]
    pub locked: Option<bool>,
    /// `isolated` (IFLA_BRPORT_ISOLATED, Linux 4.18): passes nothing to other ports that are.
    #[serde(default)]
    pub isolated: Option<bool>,
}

/// The kinds that we decide on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkKind {
    /// A bridge.
    Bridge {
        /// VLAN-aware.
        vlan_filtering: bool,
        /// `vlan_default_pvid`; 0 where the kernel has no VLAN filtering.
        default_pvid: u16,
        /// STP runs on it, the kernel's or a daemon's.
        #[serde(default)]
        stp: bool,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// NTF_ROUTER: it routes IPv6.
    #[serde(default)]
    pub router: bool,
}

/// A bridge FDB entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a VXLAN device's own list says of a tunnel's other end. It may outlive its meaning: believe of a MAC only what the bridge's FDB says, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// The VXLAN device's index.
    pub port: u32,
    /// Whose frames go there; none for those that go to all.
    pub mac: Option<Mac>,
    /// The other end.
    pub vtep: IpAddr,
}

/// An address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The device's index.
    pub index: u32,
    /// Address with prefix length.
    pub net: IpNet,
    /// RT_SCOPE_UNIVERSE.
    pub global: bool,
    /// It has a lifetime: a router advertisement or a DHCP server gave it (IFA_F_PERMANENT is not set).
    #[serde(default)]
    pub lent: bool,
}

/// How the kernel would send a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The device's index.
    pub device: u32,
    /// The next hop; none where the destination is on the link.
    pub via: Option<IpAddr>,
    /// It is an address of this host.
    pub local: bool,
}

/// The kernel's objects at one time, for questions about many things at once: a list is read once, not once a network or guest.
#[derive(Debug, Default)]
pub struct World {
    links: HashMap<u32, Link>,
    names: HashMap<IfName, u32>,
    vnis: HashMap<Vni, Vec<u32>>,
    slaves: HashMap<u32, Vec<u32>>,
    odds: Vec<Odd>,
    addresses: HashMap<u32, Vec<Address>>,
    fdb: HashMap<(u32, Mac), Fdb>,
    neighs: HashMap<(u32, IpAddr), Neigh>,
    guards: HashMap<u32, Guard>,
    guards_laid: Option<bool>,
    secured: BTreeSet<IfName>,
}

impl World {
    /// From the kernel's lists.
    pub fn new(links: Vec<Link>, addresses: Vec<Address>) -> World {
        let mut world = World::default();
        for link in &links {
            world.names.insert(link.name.clone(), link.index);
            if let Some(master) = link.master {
                world.slaves.entry(master).or_default().push(link.index);
            }
            if let LinkKind::Vxlan { vni: Some(vni), .. } = link.kind {
                world.vnis.entry(vni).or_default().push(link.index);
            }
        }
        world.links = links.into_iter().map(|link| (link.index, link)).collect();
        for address in addresses {
            world.addresses.entry(address.index).or_default().push(address);
        }
        world
    }

    /// With the devices that no name of ours can mean.
    pub fn with_odds(self, odds: Vec<Odd>) -> World {
        World { odds, ..self }
    }

    /// Those of them whose master this is.
    pub fn odd_slaves(&self, master: u32) -> impl Iterator<Item = &Odd> {
        self.odds.iter().filter(move |odd| odd.master == Some(master))
    }

    /// With the entries of all bridges: each by its bridge's index.
    pub fn with_entries(self, fdb: Vec<(u32, Fdb)>, neighs: Vec<(u32, Neigh)>) -> World {
        World {
            fdb: fdb.into_iter().map(|(bridge, entry)| ((bridge, entry.mac), entry)).collect(),
            neighs: neighs.into_iter().map(|(bridge, entry)| ((bridge, entry.ip), entry)).collect(),
            ..self
        }
    }

    /// With what guests' ports let in; none where the rules of it are not laid.
    pub fn with_guards(self, guards: Option<HashMap<u32, Guard>>) -> World {
        World { guards_laid: Some(guards.is_some()), guards: guards.unwrap_or_default(), ..self }
    }

    /// With the bridges whose ports are held that are no guest's.
    pub fn with_secured(self, secured: BTreeSet<IfName>) -> World {
        World { secured, ..self }
    }

    /// Are those of this bridge held?
    pub fn is_secured(&self, bridge: &IfName) -> bool {
        self.secured.contains(bridge)
    }

    /// All such bridges.
    pub fn secured(&self) -> impl Iterator<Item = &IfName> {
        self.secured.iter()
    }

    /// Are the rules of port security there as they were laid? `None` where nobody asked.
    pub fn guards_laid(&self) -> Option<bool> {
        self.guards_laid
    }

    /// What the port with this index lets in; none where nothing holds it.
    pub fn guard(&self, port: u32) -> Option<&Guard> {
        self.guards.get(&port)
    }

    /// Every port that something holds, by its index; the port itself may be gone.
    pub fn guards(&self) -> impl Iterator<Item = (u32, &Guard)> {
        self.guards.iter().map(|(port, guard)| (*port, guard))
    }

    /// Every device.
    pub fn links(&self) -> impl Iterator<Item = &Link> + Clone {
        self.links.values()
    }

    /// The device of this name.
    pub fn link(&self, name: &IfName) -> Option<&Link> {
        self.names.get(name).and_then(|index| self.links.get(index))
    }

    /// The device with this index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The VXLAN devices with this VNI: one, or a mistake.
    pub fn vxlans(&self, vni: Vni) -> impl Iterator<Item = &Link> {
        self.vnis.get(&vni).into_iter().flatten().filter_map(|index| self.links.get(index))
    }

    /// The devices whose master this is.
    pub fn slaves(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.slaves.get(&master).into_iter().flatten().filter_map(|index| self.links.get(index))
    }

    /// The addresses of a device.
    pub fn addresses(&self, index: u32) -> impl Iterator<Item = &Address> + Clone {
        self.addresses.get(&index).into_iter().flatten()
    }

    /// Where a bridge sends frames to a MAC.
    pub fn fdb(&self, bridge: u32, mac: Mac) -> Option<&Fdb> {
        self.fdb.get(&(bridge, mac))
    }

    /// A neighbour of a bridge.
    pub fn neigh(&self, bridge: u32, ip: IpAddr) -> Option<&Neigh> {
        self.neighs.get(&(bridge, ip))
    }

    /// Every neighbour, with its device's index.
    pub fn neighs(&self) -> impl Iterator<Item = (u32, &Neigh)> {
        self.neighs.iter().map(|((index, _), neigh)| (*index, neigh))
    }
}
