//! Reading: each question is one request; what the kernel can filter, it filters.

use super::error::{KernelError, NetlinkError, is_gone, is_unsupported};
use super::{Kernel, decode};
use crate::model::{IfName, Mac};
use crate::plan::seen::{Address, Fdb, Link, LinkKind, Neigh, Odd, Remote, World};
use crate::tape;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

impl Kernel {
    /// A question whose answer may be on tape. What is inside another namespace is no part of a host's tape: who looks there keeps it.
    pub(super) fn told<T: Serialize + DeserializeOwned>(
        &mut self,
        question: impl Display,
        ask: impl FnOnce(&mut Kernel) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        if self.elsewhere { ask(self) } else { tape::asked(question, || ask(self)) }
    }

    /// The device of this name; `None` if there is none.
    pub fn link(&mut self, name: &IfName) -> Result<Option<Link>, KernelError> {
        self.told(format_args!("link {name}"), |kernel| {
            let found =
                kernel.link_by_name(name, decode::link).map_err(|cause| read(format_args!("link {name}"), cause))?;
            match &found {
                Some(link) => kernel.observed.insert(name.clone(), link.index),
                None => kernel.observed.remove(name),
            };
            Ok(found)
        })
    }

    /// The device with this index; `None` if there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, KernelError> {
        self.told(format_args!("link with index {index}"), |kernel| {
            kernel
                .get_link(by_index(index), decode::link)
                .map_err(|cause| read(format_args!("link with index {index}"), cause))
        })
    }

    /// The device with this index, where no name of ours can mean it.
    pub fn odd_by_index(&mut self, index: u32) -> Result<Option<Odd>, KernelError> {
        self.told(format_args!("device of an odd name with index {index}"), |kernel| {
            kernel
                .get_link(by_index(index), decode::odd)
                .map_err(|cause| read(format_args!("link with index {index}"), cause))
        })
    }

    /// Is this veth's other end in that network namespace? Indexes do not tell, for each namespace counts its own.
    pub fn peer_is_in(&mut self, veth: u32, netns: BorrowedFd<'_>) -> Result<bool, KernelError> {
        let failed = |cause| read(format_args!("namespace of the peer of index {veth}"), cause);
        let peers = self.get_link(by_index(veth), decode::link_netns).map_err(failed)?;
        let mut question = NsidMessage::default();
        question.attributes.push(NsidAttribute::Fd(netns.as_raw_fd().unsigned_abs()));
        let answer = self.socket.ask(RouteNetlinkMessage::GetNsId(question), 0).map_err(failed)?;
        let theirs = answer.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewNsId(message) => {
                message.attributes.into_iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) => Some(id),
                    _ => None,
                })
            }
            _ => None,
        });
        // -1 is a namespace that we have no number for (NETNSA_NSID_NOT_ASSIGNED).
        Ok(peers.is_some_and(|id| id >= 0) && peers == theirs)
    }

    /// All devices of one kind (`vxlan`, `vrf`, `bridge`).
    pub fn links_of_kind(&mut self, kind: &str) -> Result<Vec<Link>, KernelError> {
        let word = match kind {
            "vxlan" => InfoKind::Vxlan,
            "vrf" => InfoKind::Vrf,
            "bridge" => InfoKind::Bridge,
            other => InfoKind::Other(other.to_owned()),
        };
        let filter = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(word)]);
        let mut links = self.links(vec![filter], &format!("links of kind {kind}"))?;
        // The kernel drops the filter where the kind's module is not loaded (net/core/rtnetlink.c, `linkinfo_to_kind_ops`).
        links.retain(|link| match &link.kind {
            LinkKind::Bridge { .. } => kind == "bridge",
            LinkKind::Vxlan { .. } => kind == "vxlan",
            LinkKind::Vrf { .. } => kind == "vrf",
            LinkKind::Other(word) => word == kind,
        });
        Ok(links)
    }

    /// All devices.
    pub fn all_links(&mut self) -> Result<Vec<Link>, KernelError> {
        self.forget();
        self.told("all links", |kernel| kernel.links(Vec::new(), "all links"))
    }

    /// The devices whose master this is: a bridge's ports, a VRF's bridges.
    pub fn ports_of(&mut self, master: u32) -> Result<Vec<Link>, KernelError> {
        self.told(format_args!("ports of index {master}"), |kernel| {
            let mut links =
                kernel.links(vec![LinkAttribute::Controller(master)], &format!("ports of index {master}"))?;
            links.retain(|link| link.master == Some(master));
            Ok(links)
        })
    }

    /// The same with those that no name of ours can mean.
    pub fn all_ports_of(&mut self, master: u32) -> Result<(Vec<Link>, Vec<Odd>), KernelError> {
        let links = self.ports_of(master)?;
        let mut odds = std::mem::take(&mut self.odds);
        odds.retain(|odd| odd.master == Some(master));
        Ok((links, odds))
    }

    /// The addresses of one device, or of all. A device that is gone has none.
    pub fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>, KernelError> {
        self.told(format_args!("addresses of index {}", index.unwrap_or(0)), |kernel| {
            let mut message = AddressMessage::default();
            message.header.index = index.unwrap_or(0);
            let keep = |message| match message {
                RouteNetlinkMessage::NewAddress(message) => {
                    decode::address(message).filter(|address| index.is_none_or(|index| address.index == index))
                }
                _ => None,
            };
            match kernel.socket.list(RouteNetlinkMessage::GetAddress(message), keep) {
                Err(cause) if cause.errno().is_some_and(is_gone) => Ok(Vec::new()),
                answer => answer.map_err(|cause| read("addresses", cause)),
            }
        })
    }

    /// One neighbour of a bridge; `None` if there is none, or no such bridge.
    pub fn neigh(&mut self, bridge: u32, ip: IpAddr) -> Result<Option<Neigh>, KernelError> {
        self.told(format_args!("neighbour {ip} of index {bridge}"), |kernel| {
            let mut message = neigh_message(family(ip), bridge);
            message.attributes.push(NeighbourAttribute::Destination(ip.into()));
            let found = kernel.get_neigh(message).map_err(|cause| read(format_args!("neighbour {ip}"), cause))?;
            Ok(found.and_then(decode::neigh))
        })
    }

    /// All neighbours of a bridge, IPv4 and IPv6, but for the kernel's own multicast ones.
    pub fn neighs(&mut self, bridge: u32) -> Result<Vec<Neigh>, KernelError> {
        self.told(format_args!("neighbours of index {bridge}"), |kernel| {
            let mut message = NeighbourMessage::default();
            message.attributes.push(NeighbourAttribute::IfIndex(bridge));
            let keep = |m: NeighbourMessage| if m.header.ifindex == bridge { decode::neigh(m) } else { None };
            kernel.list_neighs(message, "neighbours", keep)
        })
    }

    /// Where this bridge sends frames to a MAC, outside of any VLAN; `None` if it does not know, or is gone.
    pub fn fdb(&mut self, bridge: u32, mac: Mac) -> Result<Option<Fdb>, KernelError> {
        self.told(format_args!("FDB entry {mac} of index {bridge}"), |kernel| {
            let mut message = neigh_message(AddressFamily::Bridge, 0);
            message.attributes.push(NeighbourAttribute::Controller(bridge));
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
            let found = match kernel.get_neigh(message) {
                // "Invalid master ifindex": here the kernel says EINVAL where it says ENODEV elsewhere.
                Err(cause) if cause.is(Errno::INVAL) && kernel.link_by_index(bridge)?.is_none() => None,
                answer => answer.map_err(|cause| read(format_args!("FDB entry {mac}"), cause))?,
            };
            let entry = found.and_then(decode::fdb).filter(|(of, ..)| *of == bridge);
            Ok(entry.map(|(_, entry, _)| entry))
        })
    }

    /// The VTEP that a VXLAN device sends a MAC's frames to; `None` if it does not know. An entry may outlive its meaning: believe it only
    /// where the bridge's FDB or neighbours say that the MAC is elsewhere.
    pub fn vtep_of(&mut self, vxlan: u32, mac: Mac) -> Result<Option<IpAddr>, KernelError> {
        self.told(format_args!("VTEP of {mac} on index {vxlan}"), |kernel| {
            let mut message = neigh_message(AddressFamily::Bridge, vxlan);
            message.header.flags = NeighbourFlags::Own;
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
            let found = kernel.get_neigh(message).map_err(|cause| read(format_args!("VTEP of {mac}"), cause))?;
            Ok(found.and_then(decode::remote))
        })
    }

    /// What all VXLAN devices of the host send where.
    pub fn remotes(&mut self) -> Result<Vec<Remote>, KernelError> {
        self.list_neighs(neigh_message(AddressFamily::Bridge, 0), "VXLAN devices' own lists", decode::remote_entry)
    }

    /// All devices and addresses.
    pub fn world(&mut self) -> Result<World, KernelError> {
        let links = self.all_links()?;
        let odds = std::mem::take(&mut self.odds);
        Ok(World::new(links, self.addresses(None)?).with_odds(odds))
    }

    /// The same with all FDB entries and neighbours of the host.
    pub fn whole_world(&mut self) -> Result<World, KernelError> {
        let world = self.world()?;
        Ok(world.with_entries(self.fdbs(None)?, self.all_neighs()?))
    }

    /// All unicast FDB entries of one bridge or of all, bridges' own MACs included, each with its bridge's index and once: an entry
    /// without VLAN before its copies in VLANs.
    pub fn fdbs(&mut self, bridge: Option<u32>) -> Result<Vec<(u32, Fdb)>, KernelError> {
        let mut message = neigh_message(AddressFamily::Bridge, 0);
        message.attributes.extend(bridge.map(NeighbourAttribute::Controller));
        let keep = |m| decode::fdb(m).filter(|(of, ..)| bridge.is_none_or(|bridge| *of == bridge));
        let mut entries = match self.list_neighs(message, "FDB", keep) {
            Err(error) if error.gone() => return Ok(Vec::new()),
            answer => answer?,
        };
        entries.sort_by_key(|(of, entry, vlan)| (*of, entry.mac, *vlan));
        entries.dedup_by_key(|(of, entry, _)| (*of, entry.mac));
        Ok(entries.into_iter().map(|(of, entry, _)| (of, entry)).collect())
    }

    /// All neighbours of the host but for the kernel's own, each with its device's index.
    fn all_neighs(&mut self) -> Result<Vec<(u32, Neigh)>, KernelError> {
        self.list_neighs(NeighbourMessage::default(), "neighbours", |m| Some((m.header.ifindex, decode::neigh(m)?)))
    }

    fn links(&mut self, filter: Vec<LinkAttribute>, what: &str) -> Result<Vec<Link>, KernelError> {
        let mut message = LinkMessage::default();
        message.attributes = filter;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let found = match self.socket.pick(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP, decode::any_link) {
            Err(cause) if cause.errno().is_some_and(is_gone) => Vec::new(),
            answer => answer.map_err(|cause| read(what, cause))?,
        };
        let mut links = Vec::with_capacity(found.len());
        self.odds.clear();
        for link in found {
            match link {
                Ok(link) => links.push(link),
                Err(odd) => self.odds.push(odd),
            }
        }
        Ok(links)
    }

    pub(super) fn link_by_name<T>(
        &mut self,
        name: &IfName,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        self.get_link(message, decode)
    }

    fn get_link<T>(
        &mut self,
        mut message: LinkMessage,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        // Counters are half of the answer and nobody here reads them.
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let found = present(self.socket.pick(RouteNetlinkMessage::GetLink(message), 0, decode))?;
        Ok(found.into_iter().next())
    }

    fn get_neigh(&mut self, message: NeighbourMessage) -> Result<Option<NeighbourMessage>, NetlinkError> {
        let found = match self.socket.ask(RouteNetlinkMessage::GetNeighbour(message), 0) {
            Err(cause) if is_unsupported(&cause) => Vec::new(), // no IPv6 here, so no IPv6 neighbour either
            answer => present(answer)?,
        };
        Ok(found.into_iter().find_map(neighbour))
    }

    fn list_neighs<T>(
        &mut self,
        message: NeighbourMessage,
        what: &str,
        keep: impl Fn(NeighbourMessage) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let found = self.socket.list(RouteNetlinkMessage::GetNeighbour(message), |m| keep(neighbour(m)?));
        found.map_err(|cause| read(what, cause))
    }
}

/// Reads one file below /proc/sys (at most 4 KiB, trimmed); `None` if this kernel does not have it.
pub fn sysctl(path: &str) -> Result<Option<String>, KernelError> {
    tape::asked(format_args!("sysctl {path}"), || read_sysctl(path))
}

fn read_sysctl(path: &str) -> Result<Option<String>, KernelError> {
    let failed = |cause| KernelError::Sysctl { what: format!("read /proc/sys/{path}"), cause };
    let file = match File::open(super::routing::sysctl_file(path).map_err(failed)?) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text.trim().to_owned()))
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub(super) fn neigh_message(family: AddressFamily, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = index;
    message
}

fn neighbour(message: RouteNetlinkMessage) -> Option<NeighbourMessage> {
    match message {
        RouteNetlinkMessage::NewNeighbour(message) => Some(message),
        _ => None,
    }
}

fn by_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// "There is none" is an answer.
fn present<T>(answer: Result<Vec<T>, NetlinkError>) -> Result<Vec<T>, NetlinkError> {
    match answer {
        Err(cause) if cause.errno().is_some_and(is_gone) => Ok(Vec::new()),
        answer => answer,
    }
}

fn read(what: impl ToString, cause: NetlinkError) -> KernelError {
    KernelError::Read { what: what.to_string(), cause }
}
