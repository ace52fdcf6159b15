//! A bridge's word of a new FDB entry, straight from the kernel.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use evpn_hook::model::Mac;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::NeighbourAttribute;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Host, netns};

pub struct FdbEvents(OwnedFd);

impl FdbEvents {
    pub fn listen(host: &Host) -> FdbEvents {
        let socket = netns::socket(host.netns(), libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
        // SAFETY: all zeros is a valid sockaddr_nl, and it lives until bind returns.
        let bound = unsafe {
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = u16::try_from(libc::AF_NETLINK).expect("16 bits");
            address.nl_groups = u32::try_from(libc::RTMGRP_NEIGH).expect("a bit");
            let length = u32::try_from(size_of::<libc::sockaddr_nl>()).expect("a small struct");
            libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length)
        };
        assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
        FdbEvents(socket)
    }

    /// The device on which the MAC appears, of those whose name begins so.
    pub fn wait(&self, mac: Mac, devices: &str, timeout: Duration) -> String {
        let end = Instant::now() + timeout;
        let mut buffer = [0; 8192];
        while Instant::now() < end {
            // SAFETY: the kernel writes at most the buffer's length.
            let count = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let Ok(count) = usize::try_from(count) else { continue };
            if let Some(device) = learned_on(&buffer[..count], mac) {
                let device = netns::device_name(&self.0, device);
                if device.starts_with(devices) {
                    return device;
                }
            }
        }
        panic!("waited {timeout:?} in vain for {mac} on a device {devices}*");
    }
}

/// An announcement is one message a datagram.
fn learned_on(bytes: &[u8], mac: Mac) -> Option<i32> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).ok()?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) = message.payload else { return None };
    let is_it = |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::LinkLayerAddress(address) if *address == mac.octets());
    (entry.header.family == AddressFamily::Bridge && entry.attributes.iter().any(is_it))
        .then(|| i32::try_from(entry.header.ifindex).ok())?
}
