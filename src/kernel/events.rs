//! What changes in the kernel while it changes: the other half of `observe`, as rtnetlink(7)'s multicast groups tell it.
//!
//! Decoded by hand and only as far as we decide on it: a link's message is some 1.5 KiB of which three attributes matter, and a host that
//! boots sends thousands.

use super::attributes::{attributes, half, text, word};
use super::error::{KernelError, NetlinkError};
use crate::model::{IfName, Mac};
use netlink_packet_core::NetlinkBuffer;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use socket2::SockFilter;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// `RTNLGRP_LINK`, `_NEIGH`, `_TC`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`, `_IPV6_RULE`, `_IPV4_NETCONF`,
/// `_IPV6_NETCONF`, include/uapi/linux/rtnetlink.h. A bridge's FDB comes with the neighbours. Of routes only what [`filter`] lets in: a router has
/// millions, and nobody may be woken for them.
const GROUPS: [u32; 11] = [1, 3, 4, 5, 7, 8, 9, 11, 19, 24, 25];

/// `RTM_*`, likewise.
const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const NEWRULE: u16 = 32;
const DELRULE: u16 = 33;
const DELQDISC: u16 = 37;
const DELTFILTER: u16 = 45;
const NEWNETCONF: u16 = 80;

/// `RTN_UNREACHABLE`, `RTA_TABLE`, likewise; `NETCONFA_IFINDEX` and `_ALL`, include/uapi/linux/netconf.h.
const RTN_UNREACHABLE: u8 = 7;
const RTA_TABLE: u16 = 15;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_IFINDEX_ALL: u32 = -1_i32 as u32;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;

/// `NUD_*`, `NTF_*` and `NDA_*`, include/uapi/linux/neighbour.h.
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const NTF_EXT_LEARNED: u8 = 0x10;
const NTF_ROUTER: u8 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;

/// The kernel makes notifications of one page, or as long as the message is; without virtual functions none comes near.
const BUFFER: usize = 16 * 1024;
/// What may wait for us, in bytes: the kernel doubles it, and counts about 2 KiB for a link, 1 for an entry, so that 20,000 entries may go and come back
/// while nobody reads. It is a limit, not memory taken.
const BACKLOG: usize = 32 << 20;
/// `MSG_TRUNC` and `MSG_DONTWAIT`, include/linux/socket.h (the same on every architecture).
const MSG_TRUNC: i32 = 0x20;
const MSG_DONTWAIT: i32 = 0x40;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A device appeared or changed.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: IfName,
        /// Its master's index.
        master: Option<u32>,
        /// Administratively up (IFF_UP).
        up: bool,
    },
    /// The same of a device whose name nothing of ours can mean.
    Odd {
        /// Its index.
        index: u32,
        /// Its master's index.
        master: Option<u32>,
    },
    /// A device is gone.
    LinkGone {
        /// The index that it had.
        index: u32,
    },
    /// The options of a bridge or of a bridge's port changed (learning, neigh_suppress).
    Port {
        /// The device.
        index: u32,
    },
    /// A bridge's FDB entry came, changed or went.
    Fdb {
        /// The MAC.
        mac: Mac,
        /// The port's index.
        port: u32,
        /// The bridge's index.
        master: u32,
        /// It is gone from this port.
        gone: bool,
        /// NUD_NOARP or NUD_PERMANENT: does not age.
        is_static: bool,
        /// NTF_EXT_LEARNED.
        ext_learned: bool,
    },
    /// A neighbour came, changed or went.
    Neigh {
        /// The address.
        ip: IpAddr,
        /// Its MAC, where the kernel knows it.
        mac: Option<Mac>,
        /// The device's index.
        index: u32,
        /// It is gone, or is being asked for in vain.
        gone: bool,
        /// NUD_PERMANENT.
        permanent: bool,
        /// NTF_EXT_LEARNED: another VTEP's.
        ext_learned: bool,
        /// NTF_ROUTER: it routes IPv6.
        router: bool,
    },
    /// A device's address came or went.
    Address {
        /// The device's index.
        index: u32,
        /// It is gone.
        gone: bool,
    },
    /// A routing rule came or went.
    Rule,
    /// An unreachable route is gone.
    RouteGone {
        /// Out of this table.
        table: u32,
    },
    /// A device lost a filter, or the place where filters are.
    FilterGone {
        /// The device's index.
        index: u32,
    },
    /// A setting below net/ipv4/conf or net/ipv6/conf changed: forwarding, rp_filter and the like.
    Setting {
        /// The device's index; none where it is the host's.
        index: Option<u32>,
    },
    /// More happened than the socket could hold, or something that does not parse: all must be looked at again.
    Lost,
}

/// A socket that hears of every change from when it was opened; look at the present state after opening it, never before.
pub struct Events {
    inner: netlink_sys::Socket,
    buffer: Vec<u8>,
    ready: VecDeque<Event>,
}

impl Events {
    /// Subscribes, in the calling thread's network namespace. Needs no privilege; without CAP_NET_ADMIN the backlog is net.core.rmem_max.
    pub fn open() -> Result<Events, KernelError> {
        let open = || -> io::Result<netlink_sys::Socket> {
            let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
            if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BACKLOG).is_err() {
                rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BACKLOG)?;
            }
            socket.bind_auto()?;
            socket2::SockRef::from(&socket).attach_filter(&filter())?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            Ok(socket)
        };
        let inner = open().map_err(|e| KernelError::Open(NetlinkError::Socket(e)))?;
        Ok(Events { inner, buffer: Vec::with_capacity(BUFFER), ready: VecDeque::new() })
    }

    /// Sleeps until something comes (true) or until then.
    pub fn wait(&self, until: Instant) -> Result<bool, KernelError> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.inner, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(KernelError::Open(NetlinkError::Socket(error.into()))),
        }
    }

    /// The next change; `None` if there is none now: poll(2) for reading. What we do not decide on is skipped.
    #[allow(clippy::should_implement_trait)] // an iterator that ends would be taken for one that is over
    pub fn next(&mut self) -> Result<Option<Event>, KernelError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            self.buffer.clear();
            match self.inner.recv_from(&mut self.buffer, MSG_DONTWAIT | MSG_TRUNC) {
                Ok((_, from)) if from.port_number() != 0 => {} // another process's, which only root can send
                Ok((length, _)) if length > self.buffer.len() => return Ok(Some(Event::Lost)),
                Ok(_) => parse(&self.buffer, &mut self.ready),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => return Ok(Some(Event::Lost)),
                Err(e) => return Err(KernelError::Open(NetlinkError::Socket(e))),
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// The messages of one datagram.
pub(super) fn parse(mut rest: &[u8], found: &mut VecDeque<Event>) {
    while !rest.is_empty() {
        let Ok(packet) = NetlinkBuffer::new_checked(rest) else {
            found.push_back(Event::Lost);
            return;
        };
        found.extend(event(packet.message_type(), packet.payload()));
        rest = rest.get((packet.length() as usize).next_multiple_of(4)..).unwrap_or_default();
    }
}

/// `None` for what nobody here decides on, and for what does not parse: the kernel speaks of a kind of entry that we do not know.
fn event(kind: u16, body: &[u8]) -> Option<Event> {
    match kind {
        NEWLINK | DELLINK => link(kind == DELLINK, body),
        NEWNEIGH | DELNEIGH if *body.first()? == AF_BRIDGE => fdb(kind == DELNEIGH, body),
        NEWNEIGH | DELNEIGH => neigh(kind == DELNEIGH, body),
        NEWADDR | DELADDR => Some(Event::Address { index: word(body, 4)?, gone: kind == DELADDR }),
        NEWRULE | DELRULE => Some(Event::Rule),
        DELROUTE => route_gone(body),
        DELQDISC | DELTFILTER => Some(Event::FilterGone { index: word(body, 4)? }),
        NEWNETCONF => setting(body),
        _ => None,
    }
}

/// `struct ifinfomsg`: family, padding, type, index, flags, change. With AF_BRIDGE it is a port's, and its deletion only that it left the bridge,
/// which the device itself tells too.
fn link(gone: bool, body: &[u8]) -> Option<Event> {
    let (family, index) = (*body.first()?, word(body, 4)?);
    match (family, gone) {
        (AF_UNSPEC, true) => return Some(Event::LinkGone { index }),
        (AF_BRIDGE, false) => return Some(Event::Port { index }),
        (AF_UNSPEC, false) => {}
        _ => return None,
    }
    let (mut name, mut master) = (None, None);
    for (kind, value) in attributes(body, 16) {
        match kind {
            IFLA_IFNAME => name = text(value).and_then(|name| name.parse().ok()),
            IFLA_MASTER => master = word(value, 0),
            _ => {}
        }
    }
    let up = word(body, 8)? & IFF_UP != 0;
    Some(match name {
        Some(name) => Event::Link { index, name, master, up },
        None => Event::Odd { index, master },
    })
}

/// `struct ndmsg`: family, padding, index, state, flags, type.
fn fdb(gone: bool, body: &[u8]) -> Option<Event> {
    let (port, state, flags) = (word(body, 4)?, half(body, 8)?, *body.get(10)?);
    if flags & NTF_SELF != 0 {
        return None; // a device's own list: a VXLAN's remotes
    }
    let (mut mac, mut master, mut vlan) = (None, None, 0);
    for (kind, value) in attributes(body, 12) {
        match kind {
            NDA_LLADDR => mac = Mac::from_bytes(value),
            NDA_MASTER => master = word(value, 0),
            NDA_VLAN => vlan = half(value, 0)?,
            _ => {}
        }
    }
    if gone && vlan != 0 {
        return None; // a copy of an entry that is still there, or whose own end is told besides
    }
    let (is_static, ext_learned) = (state & (NUD_NOARP | NUD_PERMANENT) != 0, flags & NTF_EXT_LEARNED != 0);
    Some(Event::Fdb { mac: mac?, port, master: master?, gone, is_static, ext_learned })
}

fn neigh(gone: bool, body: &[u8]) -> Option<Event> {
    let (index, state, flags) = (word(body, 4)?, half(body, 8)?, *body.get(10)?);
    let (mut ip, mut mac) = (None, None);
    for (kind, value) in attributes(body, 12) {
        match kind {
            NDA_DST if *body.first()? == AF_INET => ip = <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            NDA_DST if *body.first()? == AF_INET6 => ip = <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            NDA_LLADDR => mac = Mac::from_bytes(value),
            _ => {}
        }
    }
    let gone = gone || state & (NUD_INCOMPLETE | NUD_FAILED) != 0;
    let (permanent, ext_learned) = (state & NUD_PERMANENT != 0, flags & NTF_EXT_LEARNED != 0);
    let router = flags & NTF_ROUTER != 0;
    Some(Event::Neigh { ip: ip?, mac, index, gone, permanent, ext_learned, router })
}

/// `struct rtmsg`: family, lengths, tos, table, protocol, scope, type, flags. A table above 255 is an attribute alone.
fn route_gone(body: &[u8]) -> Option<Event> {
    let table = attributes(body, 12).find(|(kind, _)| *kind == RTA_TABLE).and_then(|(_, value)| word(value, 0));
    let table = table.unwrap_or((*body.get(4)?).into());
    (*body.get(7)? == RTN_UNREACHABLE).then_some(Event::RouteGone { table })
}

/// `struct netconfmsg`: the family, padded to four bytes.
fn setting(body: &[u8]) -> Option<Event> {
    let index =
        attributes(body, 4).find(|(kind, _)| *kind == NETCONFA_IFINDEX).and_then(|(_, value)| word(value, 0))?;
    match index.cast_signed() {
        1.. => Some(Event::Setting { index: Some(index) }),
        _ if index == NETCONFA_IFINDEX_ALL => Some(Event::Setting { index: None }),
        _ => None,
    }
}

/// Classic BPF (Documentation/networking/filter.rst), run on each message before it is queued (net/netlink/af_netlink.c `do_one_broadcast`): of
/// routes it lets in that an unreachable one is gone, and all that is not of routes.
fn filter() -> Vec<SockFilter> {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // A load turns network byte order into the host's; the type is in the host's already.
    let (new, gone) = (NEWROUTE.to_be().into(), DELROUTE.to_be().into());
    vec![
        SockFilter::new(LOAD_HALF, 0, 0, 4), // struct nlmsghdr: length, type
        SockFilter::new(IF_EQUAL, 3, 0, new),
        SockFilter::new(IF_EQUAL, 0, 3, gone),
        SockFilter::new(LOAD_BYTE, 0, 0, 16 + 7), // the route's type
        SockFilter::new(IF_EQUAL, 1, 0, RTN_UNREACHABLE.into()),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_parse_ends_nothing_but_itself() {
        for length in 0..24 {
            for kind in [NEWLINK, DELLINK, NEWADDR, NEWNEIGH, DELNEIGH, DELROUTE, DELQDISC, NEWNETCONF] {
                for family in [AF_UNSPEC, AF_INET, AF_BRIDGE] {
                    let mut body = vec![0xff; length];
                    body.iter_mut().take(1).for_each(|b| *b = family);
                    event(kind, &body);
                }
            }
        }
        let mut found = VecDeque::new();
        parse(&[9; 7], &mut found);
        assert_eq!(found, [Event::Lost]);
    }
}
