//! What libvirt, LXC and Proxmox VE say runs now, asked from outside their hooks: libvirt's status files, LXC's sockets, Proxmox'
//! configuration files.
//!
//! Neither library is linked. libvirt's files say what its events say, and say it also while libvirtd is down or restarting, when a guest
//! runs on and its entries still have to be kept; they are read without any of libvirt's locks.

pub mod leases;
pub mod libvirt;
pub mod lxc;
pub mod proxmox;
