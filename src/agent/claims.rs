//! Who claimed what, and how often: pure, the time is an argument. Guests may say what they like as often as they like; what is told to the fabric
//! and to the log is bounded here.

use super::index::Key;
use crate::model::{Address, IfName, Mac, Source};
use crate::pace::{Pace, Paced};
use crate::plan::whose::{Answer, Claim};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A guest takes an address from others so often within [`WINDOW`], and from other VTEPs so often: FRR calls an address a duplicate after 5 moves within
/// 180 s (RFC 7432 §15.1), and whoever loses it there may take it back as often.
const TAKES: usize = 4;
const TAKES_FROM_VTEPS: usize = 2;
const WINDOW: Duration = Duration::from_secs(180);
/// Then that guest may only ask for it, each time for twice as long, up to 32 windows. Whoever it took it from is not slowed.
const LONGEST: u32 = 5;
/// Who lost an address while it was silent gets it back for so long, whoever has it and answers.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// What was refused is not looked at again for so long; where its holder has answered, which may be about to give it up, for a second.
const DEAF: Duration = Duration::from_secs(30);
const DEAF_AFTER_ANSWER: Duration = Duration::from_secs(1);
/// A port may claim so much at once (as much as a NIC may have), and one a second after that. Each claim may be a route that is announced to the whole fabric
/// and another that is withdrawn.
const CLAIMS: Pace = Pace { at_once: 64, every: Duration::from_secs(1) };
/// So many warnings in the log, and one a minute after that.
const WORDS: Pace = Pace { at_once: 8, every: Duration::from_secs(60) };
/// The same for changes of its addresses: more than a NIC has when it starts. Each is some lines, with its steps.
const CHANGES: Pace = Pace { at_once: 16, every: Duration::from_secs(60) };
/// Of so many addresses it is remembered when they were heard last: of 10,000 guests' six each.
const MOST_HEARD: usize = 65_536;
/// A claim that was refused is judged again after the first of these, then after twice as long, and so on to the longest. keepalived announces a VIP five
/// times and not again for 5 s, and the other takes it off its device a moment after the first of them.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_MOST: Duration = Duration::from_secs(64);
/// So many of one port's are kept for that.
const AGAIN_OF_ONE: usize = 8;
/// Questions of one port whether an address is free, that are carried to another host: a guest asks three times (RFC 5227 §1.1).
const PROBES: Pace = Pace { at_once: 6, every: Duration::from_secs(1) };
/// So often an address is taken back that another VTEP's guest has, too: FRR calls it a duplicate after 5 moves within 180 s, of both together.
const TAKEN_BACK: Pace = Pace { at_once: 2, every: Duration::from_secs(90) };
/// So many addresses or ports are remembered; a guest that claims more than that starts with a clean slate.
const MOST: usize = 4096;

/// What was refused or taken of late, and who may say how much.
#[derive(Debug, Default)]
pub struct Claims {
    refused: HashMap<Refused, (Instant, Duration)>,
    again: HashMap<(IfName, IpAddr), Again>,
    takes: HashMap<(Key, IfName, IpAddr), Takes>,
    had: HashMap<(IfName, IpAddr), Had>,
    heard: HashMap<(IfName, IpAddr), Instant>,
    claims: Paced<IfName>,
    probes: Paced<IfName>,
    taken_back: Paced<(IfName, IpAddr)>,
    words: Paced<IfName>,
    changes: Paced<IfName>,
}

/// Whose claim, by a server's word or its own, sure or not.
type Refused = (Key, IpAddr, bool, bool);

fn refused_key(key: &Key, address: Address, claim: Claim) -> Refused {
    (key.clone(), address.ip, address.source == Source::Lease, claim == Claim::Uses)
}

/// A refused claim.
#[derive(Debug)]
struct Again {
    address: Address,
    at: Instant,
    wait: Duration,
}

#[derive(Debug, Default)]
struct Takes {
    recent: Vec<(Instant, bool)>,
    rounds: u32,
    only_asks_until: Option<Instant>,
}

/// Who had an address before it was taken, and by whom.
#[derive(Debug)]
struct Had {
    of: Mac,
    by: Mac,
    at: Instant,
}

/// An address that a guest took from another.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    /// Who took it.
    pub key: &'a Key,
    /// On which segment.
    pub bridge: &'a IfName,
    /// Which.
    pub ip: IpAddr,
    /// Whose it was.
    pub of: Mac,
    /// Whose it is.
    pub by: Mac,
    /// Was it behind another VTEP?
    pub from_vtep: bool,
}

impl Claims {
    /// Is this claim known to be in vain?
    pub fn is_refused(&self, key: &Key, address: Address, claim: Claim, now: Instant) -> bool {
        let refused = self.refused.get(&refused_key(key, address, claim));
        refused.is_some_and(|(at, deaf)| now.saturating_duration_since(*at) < *deaf)
    }

    /// It was refused, after its holder had answered or not. Is that news?
    pub fn refused(&mut self, key: &Key, address: Address, claim: Claim, answer: Answer, now: Instant) -> bool {
        if self.refused.len() >= MOST {
            self.refused.clear();
        }
        let deaf = if answer == Answer::Yes { DEAF_AFTER_ANSWER } else { DEAF };
        let before = self.refused.insert(refused_key(key, address, claim), (now, deaf));
        before.is_none_or(|(at, _)| now.saturating_duration_since(at) > WINDOW)
    }

    /// Keeps a port's refused claim: nobody may ask its guest to say it again.
    pub fn judge_again(&mut self, port: &IfName, address: Address, now: Instant) {
        let of_it = self.again.keys().filter(|(of, _)| of == port).count();
        if let Some(again) = self.again.get_mut(&(port.clone(), address.ip)) {
            again.address = address;
        } else if of_it < AGAIN_OF_ONE && self.again.len() < MOST {
            let again = Again { address, at: now + AGAIN, wait: AGAIN };
            self.again.insert((port.clone(), address.ip), again);
        }
    }

    /// When the first of them is looked at again.
    pub fn again_next(&self) -> Option<Instant> {
        self.again.values().map(|again| again.at).min()
    }

    /// Those that are looked at again now, each the next time after twice as long.
    pub fn again(&mut self, now: Instant) -> Vec<(IfName, Address)> {
        let due = self.again.iter_mut().filter(|(_, again)| again.at <= now);
        due.map(|((port, _), again)| {
            again.wait = (again.wait * 2).min(AGAIN_MOST);
            again.at = now + again.wait;
            (port.clone(), again.address)
        })
        .collect()
    }

    /// The port has that address now, or claims it no more.
    pub fn settled(&mut self, port: &IfName, ip: IpAddr) {
        self.again.remove(&(port.clone(), ip));
    }

    /// May this port's question whether an address is free be carried to another host?
    pub fn may_probe(&mut self, port: &IfName, now: Instant) -> bool {
        self.probes.take(port, PROBES, now).is_some()
    }

    /// May an address be taken back from another VTEP's guest?
    pub fn may_take_back(&mut self, bridge: &IfName, ip: IpAddr, now: Instant) -> bool {
        self.taken_back.take(&(bridge.clone(), ip), TAKEN_BACK, now).is_some()
    }

    /// May this port claim one address more just now?
    pub fn may_claim(&mut self, port: &IfName, now: Instant) -> bool {
        self.claims.take(port, CLAIMS, now).is_some()
    }

    /// May one warning more be written about this port? Then how many were not since the last.
    pub fn may_tell(&mut self, port: &IfName, now: Instant) -> Option<u64> {
        self.words.take(port, WORDS, now)
    }

    /// May it be written that this port's addresses change?
    pub fn may_note(&self, port: &IfName, now: Instant) -> bool {
        self.changes.may(port, CHANGES, now)
    }

    /// They changed. Was that written? Then how many changes before it were not.
    pub fn noted(&mut self, port: &IfName, now: Instant) -> Option<u64> {
        self.changes.take(port, CHANGES, now)
    }

    /// It was heard on this port just now.
    pub fn heard(&mut self, port: &IfName, ip: IpAddr, now: Instant) {
        if self.heard.len() >= MOST_HEARD {
            self.heard.clear();
        }
        self.heard.insert((port.clone(), ip), now);
    }

    /// Those of a port's addresses that were heard, the latest last.
    pub fn by_last_heard(&self, port: &IfName, ips: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
        let mut heard: Vec<_> = ips.filter_map(|ip| Some((*self.heard.get(&(port.clone(), ip))?, ip))).collect();
        heard.sort();
        heard.into_iter().map(|(_, ip)| ip).collect()
    }

    /// How strong a guest's claim on an address still is: who has taken it too often lately may only ask.
    pub fn weigh(&self, key: &Key, bridge: &IfName, ip: IpAddr, claim: Claim, now: Instant) -> Claim {
        let until = self.takes.get(&(key.clone(), bridge.clone(), ip)).and_then(|takes| takes.only_asks_until);
        if until.is_some_and(|until| now < until) { Claim::Asks } else { claim }
    }

    /// Was this address taken from that MAC of late, while it was silent?
    pub fn had(&self, bridge: &IfName, ip: IpAddr, of: Mac, now: Instant) -> bool {
        let had = self.had.get(&(bridge.clone(), ip));
        had.is_some_and(|had| had.of == of && now.saturating_duration_since(had.at) < REMEMBERED)
    }

    /// Was it taken by the one from the other? Then the other has it back by right.
    pub fn took(&self, bridge: &IfName, ip: IpAddr, by: Mac, of: Mac, now: Instant) -> bool {
        self.had(bridge, ip, of, now) && self.had.get(&(bridge.clone(), ip)).is_some_and(|had| had.by == by)
    }

    /// Whoever it was taken from has it again.
    pub fn is_back(&mut self, bridge: &IfName, ip: IpAddr) {
        self.had.remove(&(bridge.clone(), ip));
    }

    /// One that was silent has lost it to another.
    pub fn lost(&mut self, bridge: &IfName, ip: IpAddr, of: Mac, by: Mac, now: Instant) {
        if self.had.len() >= MOST {
            self.had.clear();
        }
        self.had.insert((bridge.clone(), ip), Had { of, by, at: now });
    }

    /// It was taken. For how long may whoever took it only ask for it from now on?
    pub fn taken(&mut self, take: Take<'_>, now: Instant) -> Option<Duration> {
        if self.takes.len() >= MOST {
            self.takes.clear();
        }
        self.lost(take.bridge, take.ip, take.of, take.by, now);
        let takes = self.takes.entry((take.key.clone(), take.bridge.clone(), take.ip)).or_default();
        if takes.only_asks_until.is_some_and(|until| now.saturating_duration_since(until) > WINDOW * (1 << LONGEST)) {
            takes.rounds = 0;
        }
        takes.recent.retain(|(at, _)| now.saturating_duration_since(*at) < WINDOW);
        takes.recent.push((now, take.from_vtep));
        let from_vteps = takes.recent.iter().filter(|(_, from_vtep)| *from_vtep).count();
        if takes.recent.len() < TAKES && from_vteps < TAKES_FROM_VTEPS {
            return None;
        }
        let pause = WINDOW * (1 << takes.rounds);
        takes.rounds = (takes.rounds + 1).min(LONGEST);
        takes.recent.clear();
        takes.only_asks_until = Some(now + pause);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn mac(last: u8) -> Mac {
        Mac::from_bytes(&[0x52, 0x54, 0, 0, 0, last]).unwrap()
    }

    #[test]
    fn who_takes_an_address_too_often_may_only_ask_for_it_for_longer_and_longer() {
        let (bridge, ip): (IfName, IpAddr) = ("red-l2".parse().unwrap(), "10.1.0.99".parse().unwrap());
        let (key, other): (Key, Key) = ("libvirt-taker".into(), "libvirt-owner".into());
        let take = |from_vtep| Take { key: &key, bridge: &bridge, ip, of: mac(1), by: mac(2), from_vtep };
        for (from_vtep, times) in [(false, TAKES), (true, TAKES_FROM_VTEPS)] {
            let (mut claims, mut now) = (Claims::default(), Instant::now());
            for pause in [1, 2, 4, 8, 16, 32, 32].map(|n| n * WINDOW) {
                for n in 1..=times {
                    assert_eq!(claims.weigh(&key, &bridge, ip, Claim::Uses, now), Claim::Uses);
                    let left = claims.taken(take(from_vtep), now);
                    assert_eq!(left, (n == times).then_some(pause), "told once");
                }
                assert_eq!(claims.weigh(&key, &bridge, ip, Claim::Uses, now), Claim::Asks);
                assert_eq!(
                    claims.weigh(&other, &bridge, ip, Claim::Uses, now),
                    Claim::Uses,
                    "whoever it is taken from"
                );
                now += pause;
            }
            now += WINDOW * 33;
            let left: Vec<_> = (0..times).filter_map(|_| claims.taken(take(from_vtep), now)).collect();
            assert_eq!(left, [WINDOW], "quiet for long, it begins anew");
        }
        let (mut claims, start) = (Claims::default(), Instant::now());
        for n in 0..20 {
            assert_eq!(claims.taken(take(true), at(start, n * 180)), None, "now and then is no quarrel");
        }
    }

    #[test]
    fn whose_it_was_is_known_for_an_hour() {
        let (bridge, ip): (IfName, IpAddr) = ("red-l2".parse().unwrap(), "10.1.0.99".parse().unwrap());
        let (mut claims, start, key) = (Claims::default(), Instant::now(), "libvirt-taker".into());
        claims.taken(Take { key: &key, bridge: &bridge, ip, of: mac(1), by: mac(2), from_vtep: false }, start);
        assert!(claims.had(&bridge, ip, mac(1), start) && !claims.had(&bridge, ip, mac(2), start));
        assert!(claims.took(&bridge, ip, mac(2), mac(1), start) && !claims.took(&bridge, ip, mac(3), mac(1), start));
        assert!(claims.had(&bridge, ip, mac(1), at(start, 3599)) && !claims.had(&bridge, ip, mac(1), at(start, 3600)));
        claims.is_back(&bridge, ip);
        assert!(!claims.had(&bridge, ip, mac(1), start));
    }

    #[test]
    fn what_was_refused_is_judged_again_ever_more_seldom_until_it_is_settled() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        let port: IfName = "vnet0".parse().unwrap();
        let address = |last| Address::new(IpAddr::from([10, 1, 0, last]), Source::Neighbour);
        claims.judge_again(&port, address(1), start);
        let mut waits = Vec::new();
        let mut now = start;
        while now < at(start, 300) {
            let next = claims.again_next().unwrap();
            assert_eq!(claims.again(next), [(port.clone(), address(1))]);
            assert_eq!(claims.again(next), []);
            claims.judge_again(&port, address(1), next);
            waits.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(waits[..11], [250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 64_000, 64_000]);
        claims.settled(&port, address(1).ip);
        assert_eq!(claims.again_next(), None);
        (0..100).for_each(|last| claims.judge_again(&port, address(last), start));
        assert_eq!(claims.again(at(start, 1)).len(), AGAIN_OF_ONE);
    }

    #[test]
    fn an_address_is_taken_back_as_often_as_frr_bears() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        let (bridge, ip): (IfName, IpAddr) = ("red-l2".parse().unwrap(), "10.1.0.99".parse().unwrap());
        let mut back = |seconds| (0..10).filter(|_| claims.may_take_back(&bridge, ip, at(start, seconds))).count();
        assert_eq!((back(0), back(89), back(90), back(360)), (2, 0, 1, 2));
    }

    #[test]
    fn a_port_claims_at_most_one_address_a_second_after_its_first_64() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        let (port, other): (IfName, IfName) = ("vnet0".parse().unwrap(), "vnet1".parse().unwrap());
        let may = |claims: &mut Claims, now| (0..100).filter(|_| claims.may_claim(&port, now)).count();
        assert_eq!(may(&mut claims, start), 64);
        assert!(claims.may_claim(&other, start));
        assert_eq!(may(&mut claims, at(start, 10)), 10);
        assert_eq!(may(&mut claims, at(start, 1000)), 64);
        assert_eq!((0..100).filter_map(|_| claims.may_tell(&port, start)).count(), 8);
        assert_eq!((0..100).filter_map(|_| claims.noted(&port, start)).count(), 16);
    }

    #[test]
    fn what_was_refused_is_told_once_and_asked_again_after_a_while() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        let (key, ip): (Key, IpAddr) = ("libvirt-x".into(), "10.1.0.1".parse().unwrap());
        let word = Address::new(ip, Source::Neighbour);
        assert!(!claims.is_refused(&key, word, Claim::Uses, start));
        assert!(claims.refused(&key, word, Claim::Uses, Answer::NotAsked, start));
        assert!(claims.is_refused(&key, word, Claim::Uses, at(start, 29)));
        assert!(!claims.is_refused(&key, word, Claim::Asks, at(start, 29)), "a probe is another thing");
        let lease = Address::new(ip, Source::Lease);
        assert!(!claims.is_refused(&key, lease, Claim::Uses, at(start, 29)), "and so is a server's word");
        assert!(!claims.is_refused(&key, word, Claim::Uses, at(start, 30)));
        assert!(!claims.refused(&key, word, Claim::Uses, Answer::NotAsked, at(start, 31)), "no news");
    }

    #[test]
    fn memory_is_bounded() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        for n in 0..3 * MOST {
            let ip = IpAddr::from([10, 1, (n >> 8) as u8, n as u8]);
            let word = Address::new(ip, Source::Neighbour);
            claims.refused(&format!("libvirt-{n}").as_str().into(), word, Claim::Uses, Answer::NotAsked, start);
            claims.judge_again(&format!("vnet{n}").parse().unwrap(), word, start);
            let (key, bridge) = (&format!("libvirt-{n}").as_str().into(), &"red-l2".parse().unwrap());
            claims.taken(Take { key, bridge, ip, of: mac(1), by: mac(2), from_vtep: false }, start);
        }
        assert!(claims.refused.len() <= MOST && claims.takes.len() <= MOST);
        assert!(claims.had.len() <= MOST && claims.again.len() <= MOST);
    }
}
