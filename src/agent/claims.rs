//! Who claimed what, and how often: pure, the time is an argument. Guests may say what they like as often as they like; what is told to the fabric
//! and to the log is bounded here.

use super::index::Key;
use crate::model::IfName;
use crate::plan::learn::Claim;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// An address is taken from others so often within [`WINDOW`], and from other VTEPs so often: FRR calls an address a duplicate after 5 moves within
/// 180 s (RFC 7432 §15.1), and whoever loses it there may take it back as often.
const TAKES: usize = 4;
const TAKES_FROM_VTEPS: usize = 2;
const WINDOW: Duration = Duration::from_secs(180);
/// Then it may only be asked for, each time for twice as long, up to 32 windows: who takes what another host declares would otherwise have it
/// nearly always, since that host takes its time to take it back.
const LONGEST: u32 = 5;
/// What was refused is not looked at again for so long.
const DEAF: Duration = Duration::from_secs(30);
/// A port may claim so much at once (as much as a NIC may have), and one a second after that. Each claim may be a route that is announced to the whole fabric
/// and another that is withdrawn.
const CLAIMS: Pace = Pace { at_once: 64, every: Duration::from_secs(1) };
/// So many lines in the log, and one a minute after that.
const WORDS: Pace = Pace { at_once: 8, every: Duration::from_secs(60) };
/// So many addresses or ports are remembered; a guest that claims more than that starts with a clean slate.
const MOST: usize = 4096;

/// What was refused or taken of late, and who may say how much.
#[derive(Debug, Default)]
pub struct Claims {
    refused: HashMap<(Key, IpAddr, bool), Instant>,
    takes: HashMap<(IfName, IpAddr), Takes>,
    claims: Paced,
    words: Paced,
}

#[derive(Debug, Default)]
struct Takes {
    recent: Vec<(Instant, bool)>,
    rounds: u32,
    only_asks_until: Option<Instant>,
}

impl Claims {
    /// Is this claim known to be in vain?
    pub fn is_refused(&self, key: &Key, ip: IpAddr, claim: Claim, now: Instant) -> bool {
        let refused = self.refused.get(&(key.clone(), ip, claim == Claim::Uses));
        refused.is_some_and(|at| now.saturating_duration_since(*at) < DEAF)
    }

    /// It was refused. Is that news?
    pub fn refused(&mut self, key: &Key, ip: IpAddr, claim: Claim, now: Instant) -> bool {
        if self.refused.len() >= MOST {
            self.refused.clear();
        }
        let before = self.refused.insert((key.clone(), ip, claim == Claim::Uses), now);
        before.is_none_or(|at| now.saturating_duration_since(at) > WINDOW)
    }

    /// May this port claim one address more just now?
    pub fn may_claim(&mut self, port: &IfName, now: Instant) -> bool {
        self.claims.take(port, CLAIMS, now)
    }

    /// May one line more be written about this port?
    pub fn may_tell(&mut self, port: &IfName, now: Instant) -> bool {
        self.words.take(port, WORDS, now)
    }

    /// How strong a claim on an address still is: who has taken it too often lately may only ask.
    pub fn weigh(&self, bridge: &IfName, ip: IpAddr, claim: Claim, now: Instant) -> Claim {
        let until = self.takes.get(&(bridge.clone(), ip)).and_then(|takes| takes.only_asks_until);
        if until.is_some_and(|until| now < until) { Claim::Asks } else { claim }
    }

    /// It was taken, from another VTEP's guest or from one of this host. For how long is it left alone from now on?
    pub fn taken(&mut self, bridge: &IfName, ip: IpAddr, from_vtep: bool, now: Instant) -> Option<Duration> {
        if self.takes.len() >= MOST {
            self.takes.clear();
        }
        let takes = self.takes.entry((bridge.clone(), ip)).or_default();
        if takes.only_asks_until.is_some_and(|until| now.saturating_duration_since(until) > WINDOW * (1 << LONGEST)) {
            takes.rounds = 0;
        }
        takes.recent.retain(|(at, _)| now.saturating_duration_since(*at) < WINDOW);
        takes.recent.push((now, from_vtep));
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

/// So much at once, and one more in each of these times after that.
#[derive(Debug, Clone, Copy)]
struct Pace {
    at_once: u32,
    every: Duration,
}

/// When each port will have paid for what it has done.
#[derive(Debug, Default)]
struct Paced(HashMap<IfName, Instant>);

impl Paced {
    fn take(&mut self, port: &IfName, pace: Pace, now: Instant) -> bool {
        if self.0.len() >= MOST {
            self.0.retain(|_, paid| *paid > now);
        }
        let paid = self.0.entry(port.clone()).or_insert(now);
        let next = (*paid).max(now) + pace.every;
        let may = next <= now + pace.every * pace.at_once;
        if may {
            *paid = next;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_address_that_goes_back_and_forth_is_followed_so_often_and_then_left_for_longer_and_longer() {
        let (bridge, ip): (IfName, IpAddr) = ("red-l2".parse().unwrap(), "10.1.0.99".parse().unwrap());
        let other: IfName = "green-l2".parse().unwrap();
        for (from_vtep, times) in [(false, TAKES), (true, TAKES_FROM_VTEPS)] {
            let (mut claims, mut now) = (Claims::default(), Instant::now());
            for pause in [1, 2, 4, 8, 16, 32, 32].map(|n| n * WINDOW) {
                for n in 1..=times {
                    assert_eq!(claims.weigh(&bridge, ip, Claim::Uses, now), Claim::Uses);
                    let left = claims.taken(&bridge, ip, from_vtep, now);
                    assert_eq!(left, (n == times).then_some(pause), "told once");
                }
                assert_eq!(claims.weigh(&bridge, ip, Claim::Uses, now), Claim::Asks);
                assert_eq!(claims.weigh(&other, ip, Claim::Uses, now), Claim::Uses, "another tenant's own");
                now += pause;
            }
            now += WINDOW * 33;
            let left: Vec<_> = (0..times).filter_map(|_| claims.taken(&bridge, ip, from_vtep, now)).collect();
            assert_eq!(left, [WINDOW], "quiet for long, it begins anew");
        }
        let (mut claims, start) = (Claims::default(), Instant::now());
        for n in 0..20 {
            assert_eq!(claims.taken(&bridge, ip, true, at(start, n * 180)), None, "now and then is no quarrel");
        }
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
        assert_eq!((0..100).filter(|_| claims.may_tell(&port, start)).count(), 8);
    }

    #[test]
    fn what_was_refused_is_told_once_and_asked_again_after_a_while() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        let (key, ip): (Key, IpAddr) = ("libvirt-x".into(), "10.1.0.1".parse().unwrap());
        assert!(!claims.is_refused(&key, ip, Claim::Uses, start));
        assert!(claims.refused(&key, ip, Claim::Uses, start));
        assert!(claims.is_refused(&key, ip, Claim::Uses, at(start, 29)));
        assert!(!claims.is_refused(&key, ip, Claim::Asks, at(start, 29)), "a probe is another thing");
        assert!(!claims.is_refused(&key, ip, Claim::Uses, at(start, 30)));
        assert!(!claims.refused(&key, ip, Claim::Uses, at(start, 31)), "no news");
    }

    #[test]
    fn memory_is_bounded() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        for n in 0..3 * MOST {
            let ip = IpAddr::from([10, 1, (n >> 8) as u8, n as u8]);
            claims.refused(&format!("libvirt-{n}").as_str().into(), ip, Claim::Uses, start);
            claims.taken(
                &"red-l2".parse().unwrap(),
                IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8]),
                false,
                start,
            );
            claims.may_claim(&format!("vnet{n}").parse().unwrap(), at(start, n as u64));
        }
        assert!(claims.refused.len() <= MOST && claims.takes.len() <= MOST && claims.claims.0.len() <= MOST);
    }
}
