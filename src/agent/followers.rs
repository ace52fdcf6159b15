//! What the guests of this host have to be told: that an address has moved to another MAC behind another VTEP, of which they hear nothing themselves.

use super::daemon::Agent;
use crate::journal::Message;
use crate::kernel::Event;
use crate::model::Mac;
use crate::plan::seen::Neigh;
use crate::snoop::Moved;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many addresses are remembered, of 16 bytes each and their table; beyond that it begins anew, and one move is not told.
const MOST: usize = 262_144;
/// What moves again and again is told so often a second, over all segments.
const TOLD: u32 = 256;

/// Who has each address, by what the kernel told last.
#[derive(Debug, Default)]
pub struct Holders {
    of: HashMap<(u32, IpAddr), Mac>,
    since: Option<Instant>,
    told: u32,
}

impl Holders {
    /// Notes who has it. Has it moved to another VTEP's guest, on the bridge with the index that comes with it?
    pub fn heard(&mut self, event: &Event, now: Instant) -> Option<(u32, Moved)> {
        let Event::Neigh { index, ip, mac: Some(mac), gone: false, permanent, ext_learned, router } = *event else {
            return None;
        };
        if !permanent && !ext_learned {
            return None;
        }
        if self.of.len() >= MOST {
            self.of.clear();
        }
        let before = self.of.insert((index, ip), mac)?;
        (ext_learned && before != mac && self.may_tell(now)).then_some((index, Moved { ip, mac, router }))
    }

    /// Who has it there.
    pub fn of(&self, bridge: u32, ip: IpAddr) -> Option<Mac> {
        self.of.get(&(bridge, ip)).copied()
    }

    /// All who have an address on this bridge.
    pub fn put(&mut self, index: u32, neighs: &[Neigh]) {
        let held = neighs.iter().filter(|n| n.permanent || n.ext_learned);
        self.of.extend(held.filter_map(|n| Some(((index, n.ip), n.mac?))).take(MOST));
    }

    /// The bridge with this index is gone.
    pub fn forget(&mut self, index: u32) {
        self.of.retain(|(bridge, _), _| *bridge != index);
    }

    fn may_tell(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.told) = (Some(now), 0);
        }
        self.told += 1;
        self.told <= TOLD
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
    pub(super) fn announce(&mut self, event: &Event) {
        match event {
            Event::LinkGone { index } => self.holders.forget(*index),
            Event::Lost => self.read_holders(),
            _ => {}
        }
        let Some((bridge, moved)) = self.holders.heard(event, Instant::now()) else { return };
        let Some(announcer) = self.announcer.as_ref().filter(|_| self.index.is_segment(bridge)) else { return };
        if let Err(error) = announcer.tell(bridge, &moved) {
            let what = format!("guests are not told that {} moved to {}: {error}", moved.ip, moved.mac);
            self.engine.journal.say(&Message::Warning(&what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: u32 = 5;

    fn mac(last: u8) -> Mac {
        Mac::from_bytes(&[0x52, 0x54, 0, 0, 0, last]).unwrap()
    }

    fn neigh(last: u8, ext_learned: bool) -> Event {
        let (ip, mac) = ("10.1.0.60".parse().unwrap(), Some(mac(last)));
        Event::Neigh { index: BRIDGE, ip, mac, gone: false, permanent: !ext_learned, ext_learned, router: false }
    }

    #[test]
    fn what_moves_to_another_vteps_guest_is_told_once() {
        let (mut holders, now) = (Holders::default(), Instant::now());
        let moved = |last| Some((BRIDGE, Moved { ip: "10.1.0.60".parse().unwrap(), mac: mac(last), router: false }));
        assert_eq!(holders.heard(&neigh(1, false), now), None, "nobody had it before");
        assert_eq!(holders.heard(&neigh(2, true), now), moved(2));
        assert_eq!(holders.heard(&neigh(2, true), now), None);
        assert_eq!(holders.heard(&neigh(3, true), now), moved(3), "from one VTEP to another");
        assert_eq!(holders.heard(&neigh(1, false), now), None, "here its owner says so itself");
        assert_eq!(holders.heard(&neigh(1, true), now), None, "it moved with its guest");
        holders.forget(BRIDGE);
        assert_eq!(holders.heard(&neigh(2, true), now), None);
    }

    #[test]
    fn what_moves_all_the_time_is_told_so_often() {
        let (mut holders, start) = (Holders::default(), Instant::now());
        holders.heard(&neigh(0, true), start);
        let mut told =
            |now| (0..1000_u32).filter(|n| holders.heard(&neigh(1 + (n % 2) as u8, true), now).is_some()).count();
        assert_eq!((told(start), told(start + Duration::from_secs(1))), (256, 256));
    }
}
