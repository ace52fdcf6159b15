//! Every Ethernet frame to or from one MAC on any device of a node, also on those that appear later: a packet socket that is
//! bound to no device misses not even a new tap's first frame. Or every frame on one device.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evpn_hook::model::Mac;

use super::{Host, neighbour, netns, wait_until};

#[derive(Clone, Debug)]
pub struct Frame {
    pub at: Instant,
    pub device: String,
    /// To the MAC, else from it.
    pub to: bool,
    /// Out of the device (into a tap's guest), else in.
    pub out: bool,
    pub ethertype: u16,
    /// What it asks or answers, if it is ARP or neighbour discovery: "ARP who has 10.1.0.12, for 10.1.0.11".
    pub neighbour: Option<String>,
}

pub struct Capture {
    frames: Arc<Mutex<Vec<Frame>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    pub fn start(host: &Host, mac: &str) -> Capture {
        let mac: Mac = mac.parse().expect("a MAC");
        let socket = packet_socket(host);
        filter(&socket, mac);
        Capture::read(socket, Some(mac))
    }

    /// Every frame that goes into this device or comes out of it.
    pub fn on(host: &Host, device: &str) -> Capture {
        let socket = packet_socket(host);
        bind(&socket, device);
        Capture::read(socket, None)
    }

    fn read(socket: OwnedFd, mac: Option<Mac>) -> Capture {
        let (frames, end) = (Arc::<Mutex<Vec<Frame>>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (frames, end) = (frames.clone(), end.clone());
            std::thread::spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let Some(frame) = receive(&socket, mac) else { continue };
                    frames.lock().unwrap().push(frame);
                }
            })
        };
        Capture { frames, end, thread: Some(thread) }
    }

    pub fn frames(&self) -> Vec<Frame> {
        self.frames.lock().unwrap().clone()
    }

    /// Those of ARP and neighbour discovery: requests and answers.
    pub fn neighbours(&self) -> Vec<Frame> {
        self.frames().into_iter().filter(|frame| frame.neighbour.is_some()).collect()
    }

    /// Frames out of a tap into its guest.
    pub fn sent_to_guest(&self) -> Vec<Frame> {
        self.frames().into_iter().filter(|frame| frame.is_on_tap() && frame.to && frame.out).collect()
    }

    /// Frames that come out of the guest, or that QEMU sends in its name.
    pub fn sent_by_guest(&self) -> Vec<Frame> {
        self.frames().into_iter().filter(|frame| frame.is_on_tap() && !frame.to && !frame.out).collect()
    }

    /// The first frame from the guest.
    pub fn first_by_guest(&self, timeout: Duration) -> Frame {
        wait_until("a frame from the guest", timeout, || !self.sent_by_guest().is_empty());
        self.sent_by_guest().swap_remove(0)
    }
}

impl Frame {
    fn is_on_tap(&self) -> bool {
        self.device.starts_with("vnet")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn packet_socket(host: &Host) -> OwnedFd {
    let every_type = i32::from(u16::try_from(libc::ETH_P_ALL).expect("16 bits").to_be());
    netns::socket(host.netns(), libc::AF_PACKET, libc::SOCK_RAW, every_type)
}

/// To one device alone. What came before belongs to no one.
fn bind(socket: &OwnedFd, device: &str) {
    // SAFETY: all zeros is a valid sockaddr_ll, and it lives until bind returns.
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("16 bits");
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL).expect("16 bits").to_be();
        address.sll_ifindex = netns::device_index(socket, device);
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a small struct");
        libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length)
    };
    assert_eq!(bound, 0, "bind to {device}: {}", std::io::Error::last_os_error());
    let mut bytes = [0_u8; 1];
    // SAFETY: the kernel writes at most one byte.
    while unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT) } > 0 {}
}

/// In the kernel, so that a migration's own stream is not copied to us: accept if destination (bytes 0-5) or source (6-11) is
/// the MAC.
fn filter(socket: &OwnedFd, mac: Mac) {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let [a, b, c, d, e, f] = mac.octets();
    let (high, low) = (u16::from_be_bytes([a, b]).into(), u32::from_be_bytes([c, d, e, f]));
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(LOAD_WORD, 0, 0, 2),
        op(JUMP_EQUAL, 0, 2, low),
        op(LOAD_HALF, 0, 0, 0),
        op(JUMP_EQUAL, 4, 0, high),
        op(LOAD_WORD, 0, 0, 8),
        op(JUMP_EQUAL, 0, 3, low),
        op(LOAD_HALF, 0, 0, 6),
        op(JUMP_EQUAL, 0, 1, high),
        op(RETURN, 0, 0, 128),
        op(RETURN, 0, 0, 0),
    ];
    let length = u16::try_from(program.len()).expect("a short program");
    netns::set_option(socket, libc::SO_ATTACH_FILTER, &libc::sock_fprog { len: length, filter: program.as_mut_ptr() });
}

fn receive(socket: &OwnedFd, mac: Option<Mac>) -> Option<Frame> {
    let mut bytes = [0_u8; 128];
    // SAFETY: all zeros is a valid sockaddr_ll; the kernel fills both buffers within the lengths it is given.
    let (count, from) = unsafe {
        let mut from: libc::sockaddr_ll = std::mem::zeroed();
        let mut length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a small struct");
        let address = std::ptr::from_mut(&mut from).cast();
        let count = libc::recvfrom(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0, address, &mut length);
        (count, from)
    };
    let count = usize::try_from(count).ok().filter(|count| *count >= 14)?;
    Some(Frame {
        at: Instant::now(),
        device: netns::device_name(socket, from.sll_ifindex),
        to: mac.is_some_and(|mac| bytes[..6] == mac.octets()),
        out: from.sll_pkttype == libc::PACKET_OUTGOING,
        ethertype: u16::from_be_bytes([bytes[12], bytes[13]]),
        neighbour: neighbour::words(&bytes[..count]),
    })
}
