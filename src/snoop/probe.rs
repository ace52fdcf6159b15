//! Does the guest that has an address still answer for it? One question, sent to that guest alone, before another guest gets its address.
//!
//! It comes from the MAC of whoever claims the address, and is sent by the packet socket out of the holder's own port, or out of the tunnel to another
//! VTEP: no bridge learns anything from it, and the answer finds its way back to this host, where the claimant hears it too, as on any segment
//! (RFC 5227 §2.1.1). Over IPv4 it has no sender address, so nobody's table changes.

use super::Said;
use super::filter;
use super::frame::{self, ARP, ICMPV6, IPV6, checksum};
use super::packet::Packet;
use super::xids::Xids;
use crate::model::Mac;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// So many frames are read at once; what is in the queue beyond that waits for the next call.
const FRAMES: u32 = 64;

/// Whom to ask, and where.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The holder's port, or the VXLAN device behind which it is.
    pub index: u32,
    /// Who claims the address.
    pub from: Mac,
    /// Who has it.
    pub to: Mac,
    /// The address.
    pub ip: IpAddr,
}

/// Hears what comes from there until it is dropped.
pub struct Probe {
    packet: Packet,
    asked: Asked,
}

impl Probe {
    /// Opens it; nothing is sent yet.
    pub fn open(asked: Asked) -> io::Result<Probe> {
        let packet = Packet::open(asked.index, &filter::answers_of(asked.to))?;
        Ok(Probe { packet, asked })
    }

    /// Whom it asks.
    pub fn of(&self) -> Mac {
        self.asked.to
    }

    /// Asks, once. ENODEV, ENXIO or ENETDOWN where its port is gone or down.
    pub fn ask(&self) -> io::Result<()> {
        Ok(self.packet.send(&question(&self.asked))?)
    }

    /// Has it answered? Never blocks.
    pub fn is_answered(&self) -> bool {
        let mut buffer = [0; 256];
        for _ in 0..FRAMES {
            let Ok(frame) = self.packet.recv(&mut buffer) else { return false };
            let said = frame::read(frame, &mut Xids::default());
            if said.contains(&Said::Has { mac: self.asked.to, ip: self.asked.ip }) {
                return true;
            }
        }
        false
    }
}

impl AsFd for Probe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.packet.as_fd()
    }
}

/// An ARP request (RFC 826) or a neighbour solicitation (RFC 4861 §4.3) that only the holder gets.
fn question(asked: &Asked) -> Vec<u8> {
    let (from, to) = (asked.from.octets(), asked.to.octets());
    match asked.ip {
        IpAddr::V4(ip) => {
            [&to[..], &from, &ARP.to_be_bytes(), &[0, 1, 8, 0, 6, 4, 0, 1], &from, &[0; 4 + 6], &ip.octets()].concat()
        }
        IpAddr::V6(ip) => {
            // One without a source is answered to all (RFC 4861 §7.2.4), and that answer leaves no host where neighbours are suppressed.
            let source = asked.from.link_local().octets();
            let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &ip.octets(), &[1, 1], &from].concat();
            let sum = checksum(&[&source, &ip.octets(), &[0, 0, 0, message.len() as u8, 0, 0, 0, ICMPV6], &message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let header = [0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, 255];
            [&to[..], &from, &IPV6.to_be_bytes(), &header, &source, &ip.octets(), &message].concat()
        }
    }
}
