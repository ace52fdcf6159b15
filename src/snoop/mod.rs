//! Hears on a guest's own port (its tap or veth on the host) what tells of the guest's addresses: ARP, IPv6 neighbour discovery, DHCP and DHCPv6.
//!
//! One packet(7) socket a port, with a filter in the kernel that lets in nothing else, so data wakes nobody; all of them behind one epoll(7). It only
//! listens: it sends nothing, holds nothing back, and what it hears anybody could make up who may send on that port. Whether a guest may have what it
//! says that it has is the caller's to decide. What it does hold: a guest speaks for the MAC that its frame comes from, and a server is believed only
//! where this port asked.
//!
//! Listen again after a port was in another network namespace, and when one with a known index appears anew: that is when a socket may have lost its
//! port unheard.

mod announce;
mod ask;
mod dhcp;
mod filter;
pub(crate) mod frame;
mod loud;
mod packet;
mod probe;
pub(crate) mod xids;

#[cfg(test)]
mod frame_test;

pub use announce::{Announcer, Moved};
pub use ask::{Question, Whom, who_has};
pub use filter::everything;
pub use frame::checksum;
pub use packet::Packet;
pub use probe::{Asked, Probe};

use crate::model::Mac;
use filter::Answers;
use loud::Loudness;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockFilter;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use xids::Xids;

/// So many frames of a port are taken at once; the rest waits for the next call, behind the other ports.
const FRAMES: u32 = 64;
/// So many ports are looked at in one call.
const PORTS: usize = 64;

/// What a frame on a guest's port says of its addresses. Link-local ones are told like others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The sender uses this address: an ARP request, reply or announcement with a sender address; a neighbour advertisement; a neighbour or router
    /// solicitation with a source address.
    Has {
        /// Whose it is.
        mac: Mac,
        /// The address.
        ip: IpAddr,
    },
    /// The sender routes IPv6 by this address: a neighbour advertisement with the R flag (RFC 4861 §4.4), a router advertisement, which comes from the
    /// link-local one (§4.2). That it does so no more nobody has to be told: hosts forget a router by its advertisements.
    Routes {
        /// Whose it is.
        mac: Mac,
        /// The address.
        ip: IpAddr,
    },
    /// It asks whether anybody has it, and takes it if nobody answers: duplicate address detection (RFC 4862 §5.4.2).
    Wants {
        /// Who asks.
        mac: Mac,
        /// The address.
        ip: IpAddr,
    },
    /// It asks whether anybody has it, and says in an announcement that it takes it (RFC 5227 §2.1, §2.3); scanners ask likewise.
    Probes {
        /// Who asks.
        mac: Mac,
        /// The address.
        ip: IpAddr,
    },
    /// A server acknowledged the guest's own request: DHCPACK, or an address with a valid lifetime in a DHCPv6 Reply.
    Leased {
        /// The guest.
        mac: Mac,
        /// The address.
        ip: IpAddr,
        /// For so long; `None`: for ever.
        lifetime: Option<Duration>,
    },
    /// The guest gives it back (DHCPRELEASE, DHCPDECLINE, DHCPv6 Release and Decline), or the server takes it (DHCPNAK, a valid lifetime of 0).
    Released {
        /// The guest.
        mac: Mac,
        /// The address.
        ip: IpAddr,
    },
}

impl Said {
    /// The address that it is about.
    pub fn ip(&self) -> IpAddr {
        match *self {
            Said::Has { ip, .. }
            | Said::Routes { ip, .. }
            | Said::Wants { ip, .. }
            | Said::Probes { ip, .. }
            | Said::Leased { ip, .. }
            | Said::Released { ip, .. } => ip,
        }
    }

    /// Who says it, or to whom it is said.
    pub fn mac(&self) -> Mac {
        match *self {
            Said::Has { mac, .. }
            | Said::Routes { mac, .. }
            | Said::Wants { mac, .. }
            | Said::Probes { mac, .. }
            | Said::Leased { mac, .. }
            | Said::Released { mac, .. } => mac,
        }
    }
}

/// Something was said on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The port's index.
    pub index: u32,
    /// What.
    pub said: Said,
}

impl Heard {
    /// The address by which a router speaks, and its port.
    pub fn routes(&self) -> Option<(u32, IpAddr)> {
        match self.said {
            Said::Routes { ip, .. } => Some((self.index, ip)),
            _ => None,
        }
    }
}

/// Why nobody listens.
#[derive(Debug, thiserror::Error)]
pub enum SnoopError {
    /// No epoll.
    #[error("open an epoll for the guests' ports: {0}")]
    Open(Errno),
    /// No packet sockets.
    #[error("open a packet socket: {cause}{}", hint(cause))]
    None {
        /// What the kernel says.
        cause: io::Error,
    },
    /// The port is gone: usual, when it goes as we come.
    #[error("listen on the port with index {0}: there is no such device any more")]
    Gone(u32),
    /// It is there, and yet cannot be listened on.
    #[error("listen on the port with index {index}: {cause}{}", hint(cause))]
    Port {
        /// The port's index.
        index: u32,
        /// What the kernel says.
        cause: io::Error,
    },
}

fn hint(cause: &io::Error) -> &'static str {
    match cause.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => ": it needs root, or CAP_NET_RAW",
        Some(Errno::MFILE) => ": raise the hard limit of open files (systemd: LimitNOFILE=)",
        Some(Errno::AFNOSUPPORT) => {
            ": the kernel must have packet sockets (modprobe af_packet), and systemd allow AF_PACKET"
        }
        _ => "",
    }
}

struct Port {
    packet: Packet,
    guest: Mac,
    xids: Xids,
    /// What the guest says.
    words: Loudness,
    /// What servers say to it, or who plays one: nothing that it could help.
    answers: Loudness,
    /// The same while only that is heard for which it has asked.
    asked_for: Loudness,
}

impl Port {
    fn filter(&self) -> Vec<SockFilter> {
        match (self.words.until(), self.answers.until(), self.asked_for.until()) {
            (Some(_), ..) => filter::nothing(),
            (None, None, _) => filter::addresses(self.guest, &Answers::All),
            (None, Some(_), None) => filter::addresses(self.guest, &Answers::In(self.xids.open())),
            (None, Some(_), Some(_)) => filter::addresses(self.guest, &Answers::In(Vec::new())),
        }
    }

    /// When what it is shut off from is heard again.
    fn until(&self) -> Option<Instant> {
        self.words.until().or(self.answers.until())
    }
}

/// All ports that are listened on.
pub struct Ears {
    epoll: OwnedFd,
    ports: BTreeMap<u32, Port>,
    too_loud: Vec<u32>,
    told_too_much: BTreeSet<u32>,
    buffer: Vec<u8>,
}

impl Ears {
    /// Listens on nothing yet. Raises this process's limit of open files as far as it may: the usual 1,024 would end it at about 1,000 guests.
    pub fn open() -> Result<Ears, SnoopError> {
        let limit = getrlimit(Resource::Nofile);
        // Where it fails, a port is refused at the limit, with the way out.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        packet::check().map_err(|cause| SnoopError::None { cause })?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(SnoopError::Open)?;
        let (ports, told_too_much) = (BTreeMap::new(), BTreeSet::new());
        Ok(Ears { epoll, ports, too_loud: Vec::new(), told_too_much, buffer: vec![0; filter::SNAP] })
    }

    /// Listens on this port of this guest's NIC from now on, in the calling thread's network namespace, whether the port is up or not. Where it does
    /// already, nothing changes.
    pub fn listen(&mut self, index: u32, guest: Mac) -> Result<(), SnoopError> {
        if self.ports.get(&index).is_some_and(|port| port.guest != guest) {
            self.forget(index);
        }
        let listened = match self.ports.get(&index) {
            Some(port) => port.packet.bind(),
            None => self.add(index, guest),
        };
        listened.map_err(|cause| {
            self.forget(index);
            match cause.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NODEV) => SnoopError::Gone(index),
                _ => SnoopError::Port { index, cause },
            }
        })
    }

    fn add(&mut self, index: u32, guest: Mac) -> io::Result<()> {
        let packet = Packet::open(index, &filter::addresses(guest, &Answers::All))?;
        epoll::add(&self.epoll, &packet, EventData::new_u64(index.into()), EventFlags::IN)?;
        let [words, answers, asked_for] = [(); 3].map(|()| Loudness::new(Instant::now()));
        self.ports.insert(index, Port { packet, guest, xids: Xids::default(), words, answers, asked_for });
        Ok(())
    }

    /// Listens on this port no more. epoll(7) forgets a socket that is closed.
    pub fn forget(&mut self, index: u32) {
        self.ports.remove(&index);
    }

    /// The ports that are listened on, also those that are ignored for a while: the index, and its guest's MAC.
    pub fn ports(&self) -> impl Iterator<Item = (u32, Mac)> {
        self.ports.iter().map(|(index, port)| (*index, port.guest))
    }

    /// What has come. Never blocks, and is bounded: where more is there, the epoll stays readable.
    pub fn hear(&mut self) -> Vec<Heard> {
        self.hear_at(Instant::now())
    }

    fn hear_at(&mut self, now: Instant) -> Vec<Heard> {
        self.wake(now);
        let mut ready = Vec::with_capacity(PORTS);
        let none = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        // Only EINTR can come here, and then what is there is there in the next call.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&none));
        let mut heard = Vec::new();
        for event in ready {
            let Ok(index) = u32::try_from(event.data.u64()) else { continue };
            self.take(index, now, &mut heard);
        }
        heard
    }

    /// One port's turn.
    fn take(&mut self, index: u32, now: Instant, heard: &mut Vec<Heard>) {
        let Some(port) = self.ports.get_mut(&index) else { return };
        let (mut frames, mut words, mut answers) = (0, 0, 0);
        let open = port.xids.at(now).open();
        while frames < FRAMES {
            match port.packet.recv(&mut self.buffer) {
                Ok(frame) => {
                    frames += 1;
                    let said = frame::read(frame, port.xids.at(now));
                    // One message may speak of many addresses.
                    let many = u32::try_from(said.len()).unwrap_or(u32::MAX).max(1);
                    *(if frame::is_answer(frame) { &mut answers } else { &mut words }) += many;
                    heard.extend(said.into_iter().map(|said| Heard { index, said }));
                }
                Err(Errno::INTR) => {}
                // Down or gone (`packet_notifier`, net/packet/af_packet.c). Binding tells which, and binds to what has come again under this index.
                Err(Errno::NETDOWN) if port.packet.bind().is_ok() => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return self.forget(index),
            }
        }
        if port.words.add(words, now) {
            return self.ignore(index);
        }
        let shut = port.answers.until().is_some();
        let too_many = if shut { &mut port.asked_for } else { &mut port.answers }.add(answers, now);
        let asks = shut && port.xids.open() != open;
        if asks || too_many && shut {
            // What it asks for now may be answered before the filter knows of it.
            self.told_too_much.insert(index);
        }
        if (asks || too_many) && port.packet.filter(&port.filter()).is_err() {
            self.forget(index);
        }
    }

    /// Ports that were heard again and again and are ignored since the last call of this, each told once: for the log.
    pub fn too_loud(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.too_loud)
    }

    /// Ports that were told so much in their guest's name that an answer to it may have been missed, since the last call of this.
    pub fn told_too_much(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.told_too_much)
    }

    /// When the next port is heard whole again, if any is not: call [`Ears::hear`] then.
    pub fn wakes(&self) -> Option<Instant> {
        self.ports.values().filter_map(Port::until).min()
    }

    /// The kernel throws its frames away from now on, and we those that it kept.
    fn ignore(&mut self, index: u32) {
        let Some(port) = self.ports.get(&index) else { return };
        let quiet = port.packet.filter(&filter::nothing()).and_then(|()| Ok(epoll::delete(&self.epoll, &port.packet)?));
        if quiet.is_err() {
            return self.forget(index);
        }
        self.too_loud.push(index);
        drain(port, &mut self.buffer);
    }

    /// Those whose time has come are heard again.
    fn wake(&mut self, now: Instant) {
        let due = |port: &Port| port.until().is_some_and(|until| until <= now);
        let due: Vec<u32> = self.ports.iter().filter(|(_, port)| due(port)).map(|(index, _)| *index).collect();
        for index in due {
            let Some(port) = self.ports.get_mut(&index) else { continue };
            let was_shut = port.words.until().is_some();
            if was_shut {
                drain(port, &mut self.buffer);
            }
            for loudness in [&mut port.words, &mut port.answers, &mut port.asked_for] {
                *loudness = Loudness::new(now);
            }
            // Bound again: the port may be gone meanwhile, which it told nobody.
            let again = port.packet.bind().and_then(|()| port.packet.filter(&port.filter()));
            let data = EventData::new_u64(index.into());
            let add =
                |()| if was_shut { Ok(epoll::add(&self.epoll, &port.packet, data, EventFlags::IN)?) } else { Ok(()) };
            if again.and_then(add).is_err() {
                self.forget(index);
            }
        }
    }
}

impl AsFd for Ears {
    /// Readable when something is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Empties a port's queue: no more gets in, so it ends; the bound is for a kernel that sees it otherwise.
fn drain(port: &Port, buffer: &mut [u8]) {
    for _ in 0..4096 {
        if port.packet.recv(buffer) == Err(Errno::AGAIN) {
            return;
        }
    }
}
