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
/// L3VNI, and frr-reload.py then tries what is left of the line without its last words. So long after a vtysh has ended, or the kernel has told.
const QUIET: Duration = Duration::from_secs(1);
/// So long after one was started: it is at work, unless somebody sits in front of it. On a host that is busy it needs more than a second.
const AT_WORK: Duration = Duration::from_secs(3);
/// Something may run a vtysh every second for ever.
const QUIET_MOST: Duration = Duration::from_secs(15);
/// How often it is looked at where nothing is heard.
const UNHEARD: Duration = Duration::from_secs(60);

/// What is heard of those who may tell FRR something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A vtysh was started.
    Started,
    /// One has ended.
    Ended,
    /// Entries of zebra's are gone.
    Lost,
}

/// Since when somebody is at it, and until when to let them.
#[derive(Debug, Default)]
pub struct Busy(Option<(Instant, Instant)>);

impl Busy {
    /// When to look, unless more is heard until then.
    fn heard(&mut self, heard: Heard, now: Instant) -> Instant {
        let (since, until) = self.0.unwrap_or((now, now));
        let until = match heard {
            Heard::Started => now + AT_WORK,
            Heard::Ended => now + QUIET,
            Heard::Lost => until.max(now + QUIET),
        };
        let until = until.min(since + QUIET_MOST).max(now);
        self.0 = Some((since, until));
        until
    }
}

impl Agent {
    /// Somebody may have told FRR something else.
    pub(super) fn speaker_was_told(&mut self, heard: Heard) {
        let at = self.busy.heard(heard, Instant::now());
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
        // One that came back is told all anyway, when it has read its own.
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
        // As frr-reload.py: a vtysh that takes long, what it took out, its end, and the next.
        let mut busy = Busy::default();
        assert_eq!(busy.heard(Heard::Started, start), start + AT_WORK);
        assert_eq!(busy.heard(Heard::Lost, start + ms(1200)), start + AT_WORK);
        assert_eq!(busy.heard(Heard::Ended, start + ms(1700)), start + ms(1700) + QUIET);
        assert_eq!(busy.heard(Heard::Started, start + ms(2000)), start + ms(2000) + AT_WORK);
        // Somebody sits in front of one.
        let mut busy = Busy::default();
        assert_eq!(busy.heard(Heard::Lost, start), start + QUIET);
        // It never ends.
        let at = |n: u32| Busy(Some((start, start))).heard(Heard::Ended, start + ms(900) * n);
        assert_eq!((at(1), at(16)), (start + ms(900) + QUIET, start + QUIET_MOST));
        assert_eq!(at(99), start + ms(900) * 99, "from then on at once");
    }
}
