//! How often somebody may do what costs others: so much at once, and one more in each of some time after that. Pure, the time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A token bucket.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// So much at once.
    pub at_once: u32,
    /// And one more in each of these.
    pub every: Duration,
}

/// So many are remembered; whoever has nothing to pay is forgotten.
const MOST: usize = 4096;

/// What each has done of late.
#[derive(Debug)]
pub struct Paced<K>(HashMap<K, Done>);

#[derive(Debug, Clone, Copy)]
struct Done {
    /// When it will have paid for it.
    paid: Instant,
    /// How often it was not allowed since it last was.
    refused: u64,
}

impl<K> Default for Paced<K> {
    fn default() -> Paced<K> {
        Paced(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Paced<K> {
    /// May it, once more?
    pub fn may(&self, who: &K, pace: Pace, now: Instant) -> bool {
        self.0.get(who).is_none_or(|done| done.paid.max(now) + pace.every <= now + pace.every * pace.at_once)
    }

    /// It does, if it may. Then how often it was not allowed since it last was; else `None`.
    pub fn take(&mut self, who: &K, pace: Pace, now: Instant) -> Option<u64> {
        if self.0.len() >= MOST {
            self.0.retain(|_, done| done.paid > now);
        }
        let done = self.0.entry(who.clone()).or_insert(Done { paid: now, refused: 0 });
        let next = done.paid.max(now) + pace.every;
        if next > now + pace.every * pace.at_once {
            done.refused += 1;
            return None;
        }
        done.paid = next;
        Some(std::mem::take(&mut done.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { at_once: 8, every: Duration::from_secs(60) };

    #[test]
    fn so_much_at_once_and_one_in_each_time_after_that() {
        let (mut paced, start) = (Paced::default(), Instant::now());
        let mut taken = |who, seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..100).filter_map(|_| paced.take(&who, PACE, now)).collect::<Vec<_>>()
        };
        assert_eq!(taken("a", 0), [0; 8]);
        assert_eq!(taken("b", 0).len(), 8, "each for itself");
        assert_eq!(taken("a", 59), [0; 0]);
        assert_eq!(taken("a", 60), [92 + 100], "and how many were not");
        assert_eq!(taken("a", 10_000).len(), 8);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(
            !paced.may(&"a", PACE, at(10_059)) && paced.may(&"a", PACE, at(10_060)) && paced.may(&"c", PACE, start)
        );
    }

    #[test]
    fn memory_is_bounded() {
        let (mut paced, start) = (Paced::default(), Instant::now());
        for n in 0..3 * MOST {
            paced.take(&n, PACE, start + Duration::from_secs(n as u64));
        }
        assert!(paced.0.len() <= MOST);
    }
}
