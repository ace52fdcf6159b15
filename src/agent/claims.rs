//! Who claimed what, and how often: pure, the time is an argument. Guests may say what they like as often as they like; what is told to the fabric
//! and to the log is bounded here.

use super::index::Key;
use crate::model::IfName;
use crate::plan::learn::Claim;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// An address is taken from another so often within [`WINDOW`]. FRR calls an address a duplicate after 5 moves within 180 s (RFC 7432 §15.1), and
/// whoever loses it has a say as well.
const TAKES: usize = 4;
const WINDOW: Duration = Duration::from_secs(180);
/// What was refused is not looked at again for so long.
const DEAF: Duration = Duration::from_secs(30);
/// So many addresses are remembered; a guest that claims more than that starts with a clean slate.
const MOST: usize = 4096;

/// What was refused or taken of late.
#[derive(Debug, Default)]
pub struct Claims {
    refused: HashMap<(Key, IpAddr, bool), Instant>,
    takes: HashMap<(IfName, IpAddr), Vec<Instant>>,
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

    /// How strong a claim on an address still is: who has taken it too often lately may only ask.
    pub fn weigh(&mut self, bridge: &IfName, ip: IpAddr, claim: Claim, now: Instant) -> Claim {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        let takes =
            self.takes.get(&(bridge.clone(), ip)).map_or(0, |takes| takes.iter().filter(|at| recent(at)).count());
        if takes >= TAKES { Claim::Asks } else { claim }
    }

    /// It was taken from another. Is this the last time for a while?
    pub fn taken(&mut self, bridge: &IfName, ip: IpAddr, now: Instant) -> bool {
        if self.takes.len() >= MOST {
            self.takes.clear();
        }
        let takes = self.takes.entry((bridge.clone(), ip)).or_default();
        takes.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        takes.push(now);
        takes.len() == TAKES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_address_that_goes_back_and_forth_is_followed_four_times_in_three_minutes() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        let (bridge, ip): (IfName, IpAddr) = ("red-l2".parse().unwrap(), "10.1.0.99".parse().unwrap());
        let last = [0, 10, 20, 30].map(|s| {
            assert_eq!(claims.weigh(&bridge, ip, Claim::Uses, at(start, s)), Claim::Uses);
            claims.taken(&bridge, ip, at(start, s))
        });
        assert_eq!(last, [false, false, false, true], "told once");
        assert_eq!(claims.weigh(&bridge, ip, Claim::Uses, at(start, 40)), Claim::Asks);
        let other: IfName = "green-l2".parse().unwrap();
        assert_eq!(claims.weigh(&other, ip, Claim::Uses, at(start, 40)), Claim::Uses, "another tenant's own");
        assert_eq!(claims.weigh(&bridge, ip, Claim::Uses, at(start, 181)), Claim::Uses, "the first is forgotten");
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
                start,
            );
        }
        assert!(claims.refused.len() <= MOST && claims.takes.len() <= MOST);
    }
}
