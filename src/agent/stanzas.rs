//! Does FRR still have the networks' part of its configuration? A reload from frr.conf takes it out, and so may an operator.
//!
//! FRR tells nobody. What is heard instead is that a vtysh runs, for nothing else configures FRR (frr-reload.py runs one for each line that it takes out);
//! that the L3VNI's bridge loses what zebra keeps on it for other VTEPs, also where somebody's vtysh is still open, or is another file
//! because FRR is in a container; and that a minute has passed.

use super::daemon::Agent;
use super::due::Task;
use super::index::Why;
use std::time::{Duration, Instant};

/// Who takes lines out one by one must not find one that was put back in between: bgpd refuses `no router bgp AS vrf X` while it holds the VRF's
/// L3VNI, and frr-reload.py then tries what is left of the line without its last words.
const QUIET: Duration = Duration::from_secs(1);
/// Something may run a vtysh every second for ever.
const QUIET_MOST: Duration = Duration::from_secs(15);
/// How often it is looked at where nothing is heard.
const UNHEARD: Duration = Duration::from_secs(60);

/// Since when somebody may be at it.
#[derive(Debug, Default)]
pub struct Busy(Option<Instant>);

impl Busy {
    /// Something was heard: when to look, unless more is heard until then.
    fn heard(&mut self, now: Instant) -> Instant {
        let since = *self.0.get_or_insert(now);
        (now + QUIET).min(since + QUIET_MOST).max(now)
    }
}

impl Agent {
    /// Somebody may have told FRR something else.
    pub(super) fn speaker_was_told(&mut self) {
        let at = self.busy.heard(Instant::now());
        self.due.postpone(Task::Stanzas, at);
    }

    /// A network may be new.
    pub(super) fn await_stanzas(&mut self) {
        if self.has_speaker() {
            self.due.put(Task::Stanzas, Instant::now() + UNHEARD);
        }
    }

    /// Three questions, however many networks there are.
    pub(super) fn look_at_stanzas(&mut self) {
        self.busy = Busy::default();
        let now = Instant::now();
        // One that came back is told all anyway, when it can take it.
        let lacking = if self.is_coming_back() { Some(Vec::new()) } else { self.engine.lacks_stanzas() };
        let Some(lacking) = lacking else { return };
        for task in lacking.into_iter().map(Task::Network) {
            // Where FRR refuses it, our own vtysh is what is heard next. Who takes it out again and again is answered each time: the tenants have
            // their routes most of the time then.
            let refused = self.told.contains_key(&task);
            let at = if refused { self.patience.when(&task, Why::Lost, now) } else { now };
            self.due.put(task, at);
        }
        self.due.put(Task::Stanzas, now + UNHEARD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_at_when_all_is_said_and_not_never() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut busy = Busy::default();
        assert_eq!(busy.heard(start), start + QUIET);
        assert_eq!(busy.heard(start + ms(900)), start + ms(900) + QUIET);
        let last = (2..100).map(|n| busy.heard(start + ms(900 * n))).max();
        assert_eq!(last, Some(start + ms(900 * 99)), "from then on at once");
        assert!((2..16).all(|n| busy.heard(start + ms(900 * n)) <= start + QUIET_MOST));
        assert_eq!(Busy::default().heard(start + QUIET_MOST), start + QUIET_MOST + QUIET);
    }
}
