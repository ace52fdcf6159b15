//! A packet(7) socket on one port. The only file with unsafe code (tests/rooms.rs holds that): no crate makes a `sockaddr_ll` of an index
//! in safe code, and binding by name would listen on whatever bears that name by then.

use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// `ETH_P_ALL`, include/uapi/linux/if_ether.h: the one protocol that is also shown what leaves by the port (`dev_queue_xmit_nit`, net/core/dev.c).
const ETH_P_ALL: u16 = 3;
/// What may wait, in bytes; the kernel doubles it and counts its own structures too: 30 to 80 small frames.
const BACKLOG: usize = 32 * 1024;

/// Are there packet sockets, and may we have them?
pub fn check() -> io::Result<()> {
    unbound().map(drop)
}

pub fn unbound() -> io::Result<Socket> {
    Socket::new_raw(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)
}

/// Hears frames of one port, and only those that the filter lets in.
pub struct Packet {
    socket: Socket,
    index: u32,
}

impl Packet {
    /// Opened without a protocol it hears nothing; then comes the filter, and only then the port: not one frame gets in past the filter.
    pub fn open(index: u32, filter: &[SockFilter]) -> io::Result<Packet> {
        let socket = unbound()?;
        socket.set_recv_buffer_size(BACKLOG)?;
        let packet = Packet { socket, index };
        packet.filter(filter)?;
        packet.bind()?;
        Ok(packet)
    }

    /// Takes another filter's place at once.
    pub fn filter(&self, lines: &[SockFilter]) -> io::Result<()> {
        self.socket.attach_filter(lines)
    }

    /// Bound again where it is bound it changes nothing (`packet_do_bind`, net/packet/af_packet.c: `need_rehook`); ENODEV once the port is gone.
    pub fn bind(&self) -> io::Result<()> {
        self.socket.bind(&address(self.index)?)
    }

    /// Sends one frame out of the port; what is bound needs no address for it (`packet_snd`).
    pub fn send(&self, frame: &[u8]) -> rustix::io::Result<()> {
        send(&self.socket, frame, SendFlags::DONTWAIT).map(drop)
    }

    /// One frame as far as the buffer takes it; ENETDOWN once each time that the port goes down.
    pub fn recv<'a>(&self, buffer: &'a mut [u8]) -> rustix::io::Result<&'a [u8]> {
        let (length, _) = recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT)?;
        Ok(&buffer[..length])
    }
}

impl AsFd for Packet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// packet(7), "Address types": family, protocol and index are what bind(2) reads.
#[allow(unsafe_code)]
pub fn address(index: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the platform's sockaddr types, which is all that view_as asks; it fits, and zeros are valid for it.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = ETH_P_ALL.to_be();
    link.sll_ifindex = index;
    // SAFETY: the storage was just made a sockaddr_ll with its family AF_PACKET, and that is its length.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) })
}
