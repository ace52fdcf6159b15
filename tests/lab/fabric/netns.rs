//! Sockets of the test's own in a node's or a container's network namespace: without a process there, they lose no time to it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

#[path = "../../common/inside.rs"]
mod entered;

pub use entered::inside;

/// A socket whose reads give up after a while, so that its reader sees when it is to end.
pub fn socket(netns: &File, domain: i32, kind: i32, protocol: i32) -> OwnedFd {
    // SAFETY: socket takes no pointer; the descriptor that it returns is nobody else's.
    let socket = inside(netns, || unsafe {
        let fd = libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol);
        assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    });
    let patience = Duration::from_millis(100);
    let patience = libc::timeval { tv_sec: 0, tv_usec: patience.subsec_micros().into() };
    set_option(&socket, libc::SO_RCVTIMEO, &patience);
    socket
}

/// A socket option of level SOL_SOCKET.
pub fn set_option<T>(socket: &OwnedFd, option: i32, value: &T) {
    let length = u32::try_from(size_of::<T>()).expect("a small value");
    // SAFETY: the kernel reads `length` bytes of a value that lives until it returns.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), length)
    };
    assert_eq!(set, 0, "setsockopt {option}: {}", io::Error::last_os_error());
}

/// A device's name in the socket's namespace; its number if it is gone already.
pub fn device_name(socket: &OwnedFd, index: i32) -> String {
    // SAFETY: all zeros is a valid ifreq, whose name the kernel fills and ends with a NUL.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_ifru.ifru_ifindex = index;
        match libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFNAME, &mut request) {
            0 => CStr::from_ptr(request.ifr_name.as_ptr()).to_string_lossy().into_owned(),
            _ => format!("{index}: {}", io::Error::last_os_error()),
        }
    }
}

/// Its number in the socket's namespace.
pub fn device_index(socket: &OwnedFd, name: &str) -> i32 {
    // SAFETY: all zeros is a valid ifreq; the name is shorter than its field, so a NUL follows it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        assert!(name.len() < request.ifr_name.len(), "{name} is no device's name");
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let found = libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX, &mut request);
        assert_eq!(found, 0, "{name}: {}", io::Error::last_os_error());
        request.ifr_ifru.ifru_ifindex
    }
}
