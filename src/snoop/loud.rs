//! How much a port may say: one that floods is not listened to for a while, and costs next to nothing meanwhile.

use std::time::{Duration, Instant};

/// A guest that boots says a dozen things, one that looks for its whole /24 by ARP 250.
const MOST: u32 = 256;
const WITHIN: Duration = Duration::from_secs(1);
/// So long a port that said more is ignored.
const PAUSE: Duration = Duration::from_secs(5);

/// What a port said in the last second, or until when it is ignored.
#[derive(Debug)]
pub enum Loudness {
    Heard { since: Instant, frames: u32 },
    Ignored { until: Instant },
}

impl Loudness {
    pub fn new(now: Instant) -> Loudness {
        Loudness::Heard { since: now, frames: 0 }
    }

    /// So many frames more; true where it is too loud from now on.
    pub fn add(&mut self, more: u32, now: Instant) -> bool {
        let Loudness::Heard { since, frames } = self else { return false };
        if now.saturating_duration_since(*since) >= WITHIN {
            (*since, *frames) = (now, 0);
        }
        *frames += more;
        let too_loud = *frames > MOST;
        if too_loud {
            *self = Loudness::Ignored { until: now + PAUSE };
        }
        too_loud
    }

    /// Until when it is ignored, if it is.
    pub fn until(&self) -> Option<Instant> {
        match self {
            Loudness::Heard { .. } => None,
            Loudness::Ignored { until } => Some(*until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_say_so_much_within_a_second() {
        let start = Instant::now();
        let mut port = Loudness::new(start);
        for second in 0..10 {
            assert!(!port.add(MOST, start + Duration::from_secs(second)));
        }
        assert!(!port.add(MOST, start + Duration::from_millis(10_000)) && port.until().is_none());
        let now = start + Duration::from_millis(10_999);
        assert!(port.add(1, now));
        assert_eq!(port.until(), Some(now + PAUSE));
        assert!(!port.add(1, now), "told once");
    }
}
