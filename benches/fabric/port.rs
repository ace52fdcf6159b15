//! The guest's own end of its cable, to speak from.
#![allow(unsafe_code)] // a packet socket's address

use evpn_hook::kernel::Kernel;
use evpn_hook::model::Mac;
use std::io::Error;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub struct Port(OwnedFd);

impl Port {
    /// A packet socket on the device, which need not hear anything.
    pub fn open(device: &str) -> Port {
        let device = Kernel::open().unwrap().link(&device.parse().unwrap()).unwrap().unwrap();
        // SAFETY: the descriptor is nobody else's; all zeros is a valid sockaddr_ll, and it lives until bind returns.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "packet socket: {}", Error::last_os_error());
            let socket = OwnedFd::from_raw_fd(fd);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as libc::sa_family_t;
            address.sll_ifindex = device.index as i32;
            let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            let bound = libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length);
            assert_eq!(bound, 0, "bind: {}", Error::last_os_error());
            Port(socket)
        }
    }

    /// A gratuitous ARP (RFC 5227 §3): this MAC has this address.
    pub fn announce(&self, mac: Mac, ip: Ipv4Addr) {
        let (mac, ip) = (mac.octets(), ip.octets());
        let frame = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &ip, &[0; 6], &ip].concat();
        assert_eq!(rustix::io::write(&self.0, &frame).unwrap(), frame.len());
    }
}
