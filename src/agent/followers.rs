//! What the guests of this host have to be told: that an address has moved to another MAC behind another VTEP, of which they hear nothing themselves.

use super::daemon::Agent;
use crate::journal::Message;
use crate::kernel::Event;
use crate::model::Mac;
use crate::plan::seen::Neigh;
use crate::snoop::Moved;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many addresses of one segment are remembered, those that are gone as well: who takes one next is told. Beyond that it begins anew.
const MOST: usize = 131_072;
/// So many moves are told a second, over all segments; the rest waits, and of so many.
const TOLD: usize = 256;
const WAITING: usize = 16_384;

/// Who has each address, by what the kernel told last.
#[derive(Debug, Default)]
pub struct Holders {
    /// By the bridge's index.
    of: HashMap<u32, HashMap<IpAddr, Holder>>,
    to_tell: VecDeque<(u32, Moved)>,
    since: Option<Instant>,
    told: usize,
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The MAC behind it.
    pub mac: Mac,
    /// Does it route IPv6 by it?
    pub router: bool,
}

impl Holders {
    /// Notes who has it. Has it moved to another VTEP's guest, that is to be told.
    pub fn heard(&mut self, event: &Event) {
        match *event {
            Event::Neigh { index, ip, mac: Some(mac), gone: false, permanent, ext_learned, router }
                if permanent || ext_learned =>
            {
                self.note(index, ip, Holder { mac, router }, ext_learned);
            }
            Event::LinkGone { index } => {
                self.of.remove(&index);
            }
            _ => {}
        }
    }

    fn note(&mut self, bridge: u32, ip: IpAddr, holder: Holder, ext_learned: bool) {
        let of = self.of.entry(bridge).or_default();
        if of.len() >= MOST && !of.contains_key(&ip) {
            of.clear();
        }
        let Some(before) = of.insert(ip, holder) else { return };
        // One that was told as no router is used as one no more (RFC 4861 §7.2.5); as one again it must be told, too.
        let moved = before.mac != holder.mac || holder.router && !before.router;
        if ext_learned && moved && self.to_tell.len() < WAITING {
            self.to_tell.push_back((bridge, Moved { ip, mac: holder.mac, router: holder.router }));
        }
    }

    /// Who has it there.
    pub fn of(&self, bridge: u32, ip: IpAddr) -> Option<Holder> {
        self.of.get(&bridge)?.get(&ip).copied()
    }

    /// All who have an address on this bridge; what has moved since they were known is to be told.
    pub fn put(&mut self, index: u32, neighs: &[Neigh]) {
        for neigh in neighs.iter().filter(|n| n.permanent || n.ext_learned) {
            if let Some(mac) = neigh.mac {
                self.note(index, neigh.ip, Holder { mac, router: neigh.router }, neigh.ext_learned);
            }
        }
    }

    /// What is to be told now.
    pub fn moved(&mut self, now: Instant) -> Vec<(u32, Moved)> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.told) = (Some(now), 0);
        }
        let many = self.to_tell.len().min(TOLD - self.told);
        self.told += many;
        self.to_tell.drain(..many).collect()
    }

    /// When more is to be told.
    pub fn next(&self) -> Option<Instant> {
        self.since.filter(|_| !self.to_tell.is_empty()).map(|since| since + Duration::from_secs(1))
    }
}

impl Agent {
    /// Who has an address now: what happened before was not heard.
    pub(super) fn read_holders(&mut self) {
        for bridge in self.index.segments() {
            match self.engine.kernel().and_then(|kernel| Ok(kernel.neighs(bridge)?)) {
                Ok(neighs) => self.holders.put(bridge, &neighs),
                Err(error) => self.engine.journal.say(&Message::Warning(&error)),
            }
        }
    }

    /// Tells the guests of a segment who has an address now.
    pub(super) fn announce(&mut self) {
        for (bridge, moved) in self.holders.moved(Instant::now()) {
            let Some(announcer) = self.announcer.as_ref().filter(|_| self.index.is_segment(bridge)) else { continue };
            if let Err(error) = announcer.tell(bridge, &moved) {
                let what = format!("guests are not told that {} moved to {}: {error}", moved.ip, moved.mac);
                self.engine.journal.say(&Message::Warning(&what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const BRIDGE: u32 = 5;

    fn mac(last: u8) -> Mac {
        Mac::from_bytes(&[0x52, 0x54, 0, 0, 0, last]).unwrap()
    }

    fn neigh(last: u8, ext_learned: bool, router: bool) -> Event {
        let (ip, mac) = ("10.1.0.60".parse().unwrap(), Some(mac(last)));
        Event::Neigh { index: BRIDGE, ip, mac, gone: false, permanent: !ext_learned, ext_learned, router }
    }

    #[test]
    fn what_moves_to_another_vteps_guest_is_told_once() {
        let (mut holders, now) = (Holders::default(), Instant::now());
        let ip = "10.1.0.60".parse().unwrap();
        let mut heard = |last, ext_learned, router| {
            holders.heard(&neigh(last, ext_learned, router));
            holders.moved(now).into_iter().map(|(bridge, moved)| (bridge, moved.ip, moved.mac, moved.router)).next()
        };
        let moved = |last, router| Some((BRIDGE, ip, mac(last), router));
        assert_eq!(heard(1, false, false), None, "nobody had it before");
        assert_eq!(heard(2, true, false), moved(2, false));
        assert_eq!(heard(2, true, false), None);
        assert_eq!(heard(2, true, true), moved(2, true), "it is a router after all");
        assert_eq!(heard(3, true, true), moved(3, true), "from one VTEP to another");
        assert_eq!(heard(1, false, false), None, "here its owner says so itself");
        assert_eq!(heard(1, true, false), None, "it moved with its guest");
        holders.heard(&Event::LinkGone { index: BRIDGE });
        holders.heard(&neigh(2, true, false));
        assert_eq!(holders.moved(now), []);
    }

    #[test]
    fn what_moved_unheard_is_told_when_all_are_read() {
        let (mut holders, now) = (Holders::default(), Instant::now());
        let read = |last| Neigh {
            ip: "10.1.0.60".parse().unwrap(),
            mac: Some(mac(last)),
            permanent: false,
            ext_learned: true,
            ours: false,
            router: false,
        };
        holders.put(BRIDGE, &[read(1)]);
        assert_eq!(holders.moved(now), []);
        holders.put(BRIDGE, &[read(2)]);
        assert_eq!(holders.moved(now).len(), 1);
    }

    #[test]
    fn what_moves_all_at_once_is_told_one_after_the_other() {
        let (mut holders, start) = (Holders::default(), Instant::now());
        for (n, last) in (0..1000_u32).flat_map(|n| [(n, 1), (n, 2)]) {
            let ip = Ipv4Addr::from_bits(0x0a01_0000 + n).into();
            let mac = Some(mac(last));
            holders.heard(&Event::Neigh {
                index: BRIDGE,
                ip,
                mac,
                gone: false,
                permanent: false,
                ext_learned: true,
                router: false,
            });
        }
        let mut told = |seconds| holders.moved(start + Duration::from_secs(seconds)).len();
        assert_eq!([0, 0, 1, 2, 3, 4].map(&mut told), [256, 0, 256, 256, 232, 0]);
        assert_eq!(holders.next(), None);
    }
}
