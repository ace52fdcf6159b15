//! A ping at a steady pace from inside a container, on the clock of all transcripts.

use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Container, netns};

/// ICMP's and ICMPv6's echo request; code, checksum and identifier are the kernel's on a ping socket, then come two bytes of sequence number.
const ECHO4: u8 = 8;
const ECHO6: u8 = 128;

#[derive(Clone, Copy, Debug)]
pub struct Ping {
    pub sent: Instant,
    /// None: lost.
    pub rtt: Option<Duration>,
}

pub struct Pinger {
    pings: Arc<Mutex<Vec<Ping>>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pinger {
    /// One ping each `pace`, at most 65,536 of them.
    pub fn start(from: &Container, to: IpAddr, pace: Duration) -> Pinger {
        let namespace = from.netns();
        // A ping socket is for the groups of this range, none by default; /proc/sys/net shows the namespace of who opens it.
        netns::inside(&namespace, || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")).expect("sysctl");
        let (socket, echo) = (ping_socket(&namespace, to), if to.is_ipv4() { ECHO4 } else { ECHO6 });
        let (pings, end) = (Arc::<Mutex<Vec<Ping>>>::default(), Arc::new(AtomicBool::new(false)));
        let sender = {
            let (socket, pings, end) = (socket.try_clone().expect("socket"), pings.clone(), end.clone());
            std::thread::spawn(move || {
                let mut next = Instant::now();
                for sequence in 0..=u16::MAX {
                    if end.load(Ordering::Relaxed) {
                        break;
                    }
                    let [high, low] = sequence.to_be_bytes();
                    pings.lock().unwrap().push(Ping { sent: Instant::now(), rtt: None });
                    // What cannot be sent for want of a neighbour counts as lost.
                    let _ = socket.send(&[echo, 0, 0, 0, 0, 0, high, low]);
                    // Not faster to catch up: the pace is an upper bound.
                    next = (next + pace).max(Instant::now());
                    std::thread::sleep(next - Instant::now());
                }
            })
        };
        let receiver = {
            let (pings, end) = (pings.clone(), end.clone());
            std::thread::spawn(move || {
                let mut answer = [0; 64];
                while !end.load(Ordering::Relaxed) {
                    let Ok(8..) = socket.recv(&mut answer) else { continue };
                    let now = Instant::now();
                    let sequence = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
                    if let Some(ping) = pings.lock().unwrap().get_mut(sequence) {
                        ping.rtt.get_or_insert(now - ping.sent);
                    }
                }
            })
        };
        Pinger { pings, end, threads: vec![sender, receiver] }
    }

    pub fn pings(&self) -> Vec<Ping> {
        self.pings.lock().unwrap().clone()
    }

    /// How many were answered so far.
    pub fn answered(&self) -> usize {
        self.pings().iter().filter(|ping| ping.rtt.is_some()).count()
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// std knows no ICMP, but its UDP socket is any connected datagram socket.
fn ping_socket(namespace: &File, to: IpAddr) -> UdpSocket {
    let (family, protocol) =
        if to.is_ipv4() { (libc::AF_INET, libc::IPPROTO_ICMP) } else { (libc::AF_INET6, libc::IPPROTO_ICMPV6) };
    let socket = UdpSocket::from(netns::socket(namespace, family, libc::SOCK_DGRAM, protocol));
    socket.connect((to, 0)).expect("a route to the target");
    socket
}
