//! The only room that knows netlink: reads what the kernel shows, and does one [`Step`](crate::plan::Step) at a time.
//!
//! - [`netlink`]: one request, its answer, the kernel's own words when it refuses.
//! - `observe`: links, addresses, neighbours, FDB entries, rules, as the nouns of [`crate::plan::seen`].
//! - `events`: what changes, as it changes: [`Events`].
//! - `nftables`: [`Tables`], which hears of losses there.
//! - `apply`: [`Kernel::apply`], with `entries` (address, FDB, neighbour), `routing` (routes, sysctl), `rules` and `hears` (what a bridge hands up to
//!   the host) beside it.
//!
//! Questions block on purpose: rtnetlink answers inside the `send` system call, so a runtime would only add start-up time to a hook.
//! A step acts on the device that was observed for it, by its index: the name `vnet0` may be another guest's tap by then. What was not observed
//! is asked for by name, with rtnetlink: netdevice(7)'s ioctls would have the kernel load a module of that name where there is no such device.

mod apply;
mod attributes;
mod decode;
mod entries;
mod error;
mod events;
mod hears;
pub mod netlink;
mod nft_tables;
mod nftables;
mod observe;
mod routing;
mod rules;
pub(crate) mod untrusted;
mod ways;

pub use error::{KernelError, NetlinkError};
pub use events::{Event, Events};
pub use nft_tables::{NftTable, nft_tables};
pub use nftables::Tables;
pub use observe::sysctl;

use crate::model::IfName;
use crate::plan::seen::Odd;
use netlink::Socket;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;

/// Our number in `NDA_PROTOCOL` of neighbours and `rtm_protocol` of routes (include/uapi/linux/rtnetlink.h: the kernel does not
/// interpret values from RTPROT_STATIC on). iproute2's and FRR's rt_protos files do not have 69: an entry with it is ours.
pub const PROTOCOL: u8 = 69;

/// `IFLA_IFALIAS` of the devices that evpn-hook makes, as `ip link` shows it: the mark by which they are known as ours to delete, also
/// when /run/evpn-hook is lost.
pub const ALIAS: &str = "evpn-hook";

/// The running kernel's network configuration, in one network namespace.
pub struct Kernel {
    socket: Socket,
    /// The indexes of devices that were asked for by name since the last look at all of them, and since the last step that may have changed them.
    observed: HashMap<IfName, u32>,
    /// What the last list of devices had that no name of ours can mean.
    odds: Vec<Odd>,
    /// Opened in another namespace than the process's: /proc/sys shows the process's, so no sysctl through this one.
    elsewhere: bool,
}

impl Kernel {
    /// The kernel as this process sees it. Needs no privilege; most steps do (CAP_NET_ADMIN).
    pub fn open() -> Result<Kernel, KernelError> {
        Ok(Kernel {
            socket: Socket::open().map_err(KernelError::Open)?,
            observed: HashMap::new(),
            odds: Vec::new(),
            elsewhere: false,
        })
    }

    /// The kernel as it is in another network namespace (`/proc/PID/ns/net`), for reading a container's MAC and addresses.
    /// Needs CAP_SYS_ADMIN. The process itself is back in its own namespace when this returns `Ok`; after
    /// [`KernelError::Stranded`] it is not, and must do nothing more.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Kernel, KernelError> {
        Ok(Kernel { socket: Socket::open_in(netns)?, observed: HashMap::new(), odds: Vec::new(), elsewhere: true })
    }

    /// An event is over: what the next one acts on is observed anew.
    pub fn forget(&mut self) {
        self.observed.clear();
    }

    /// How many entries of all listings so far were left out because the decoder did not know their shape; for `doctor`.
    pub fn undecoded(&self) -> usize {
        self.socket.undecoded()
    }
}
