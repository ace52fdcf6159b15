//! Hears when a table of nftables loses rules: `nft flush ruleset` takes out everybody's, and many a firewall begins with it.

use super::attributes::{attributes, text};
use super::error::{KernelError, NetlinkError};
use netlink_packet_core::NetlinkBuffer;
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// `NFNLGRP_NFTABLES`, include/uapi/linux/netfilter/nfnetlink.h.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, likewise: the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_DELTABLE`, `_DELCHAIN`, `_DELRULE`, `_DELSET`, include/uapi/linux/netfilter/nf_tables.h. The first attribute of each is the table's name.
const LOSSES: [u16; 4] = [2, 5, 8, 11];
const TABLE: u16 = 1;
/// `sizeof(struct nfgenmsg)`.
const NFGENMSG: usize = 4;
/// A ruleset that is loaded anew comes as one message a rule.
const BACKLOG: usize = 4 << 20;
const BUFFER: usize = 32 * 1024;
/// `MSG_DONTWAIT`, include/linux/socket.h.
const MSG_DONTWAIT: i32 = 0x40;

/// A socket that hears of every change of nftables from when it was opened. Opening it loads nf_tables into the kernel.
pub struct Tables {
    inner: netlink_sys::Socket,
    buffer: Vec<u8>,
}

impl Tables {
    /// Subscribes, in the calling thread's network namespace. Needs CAP_NET_ADMIN.
    pub fn open() -> Result<Tables, KernelError> {
        let open = || -> io::Result<netlink_sys::Socket> {
            let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
            if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BACKLOG).is_err() {
                rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BACKLOG)?;
            }
            socket.bind_auto()?;
            socket.add_membership(GROUP)?;
            Ok(socket)
        };
        let inner = open().map_err(|e| KernelError::Open(NetlinkError::Socket(e)))?;
        Ok(Tables { inner, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Reads what has come, and says whether this table lost anything but elements of its sets. True as well where more happened than could be kept.
    pub fn lost(&mut self, table: &str) -> Result<bool, KernelError> {
        let mut lost = false;
        loop {
            self.buffer.clear();
            match self.inner.recv_from(&mut self.buffer, MSG_DONTWAIT) {
                Ok((_, from)) if from.port_number() != 0 => {} // another process's, which only root can send
                Ok(_) => lost |= loses(&self.buffer, table),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(lost),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => lost = true,
                Err(e) => return Err(KernelError::Open(NetlinkError::Socket(e))),
            }
        }
    }
}

impl AsFd for Tables {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// What does not parse is a loss, too: nobody knows what it said.
pub(super) fn loses(mut rest: &[u8], table: &str) -> bool {
    while !rest.is_empty() {
        let Ok(packet) = NetlinkBuffer::new_checked(rest) else { return true };
        let kind = packet.message_type();
        if kind >> 8 == SUBSYSTEM && LOSSES.contains(&(kind & 0xff)) {
            let name = attributes(packet.payload(), NFGENMSG).find(|(kind, _)| *kind == TABLE);
            if name.and_then(|(_, name)| text(name)).is_none_or(|name| name == table) {
                return true;
            }
        }
        rest = rest.get((packet.length() as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, table: &str) -> Vec<u8> {
        let name = [table.as_bytes(), b"\0"].concat();
        let mut bytes = vec![0; 16 + NFGENMSG];
        bytes.extend((name.len() as u16 + 4).to_ne_bytes());
        bytes.extend(TABLE.to_ne_bytes());
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_what_this_table_loses_counts() {
        let subsystem = SUBSYSTEM << 8;
        let add = message(subsystem, "evpn-hook");
        let other = message(subsystem | 2, "filter");
        let del = message(subsystem | 2, "evpn-hook");
        let element = message(subsystem | 14, "evpn-hook");
        assert!(!loses(&[add.clone(), other.clone(), element].concat(), "evpn-hook"));
        assert!(loses(&[add, other, del.clone()].concat(), "evpn-hook"));
        assert!(loses(&del[..30], "evpn-hook"), "cut off");
    }
}
