//! An FRR that does not tell: what that is, in one wording for `status`, `explain` and `doctor`.
//!
//! Only a daemon that is not there is a fault with a mend. One that does not answer in time may be busy: bgpd and zebra have one thread, and answer nobody
//! while they list a fabric's routes for somebody or converge. From outside that looks like one that is frozen, and a restart would cost the busy one all its
//! routes. watchfrr tells the two apart by its patience, and restarts what is frozen (<https://docs.frrouting.org/en/latest/watchfrr.html>).

use crate::speaker::{Frr, SpeakerError};
use std::fmt;

/// Why nothing is known of what FRR was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unheard {
    /// A daemon that is not there: [`super::cure::RESTART`] mends that.
    Silent(String),
    /// It is there and did not answer: there is no verdict in that, and nothing to restart.
    Untold(String),
}

impl Unheard {
    /// Before all questions.
    pub fn before(frr: &mut Frr) -> Result<(), Unheard> {
        frr.answers().map_err(|error| match error {
            SpeakerError::Timeout { .. } => {
                Unheard::Untold(format!("{error}; it is busy or frozen, and where it is frozen watchfrr restarts it"))
            }
            error => error.into(),
        })
    }

    /// In FRR's words, or those of who asked it.
    pub fn why(&self) -> &str {
        let (Unheard::Silent(why) | Unheard::Untold(why)) = self;
        why
    }
}

/// The FRR that a report asks: nothing more once it is known not to answer.
pub struct Speaker {
    frr: Frr,
    unheard: Option<Unheard>,
}

impl Speaker {
    /// Asks whether it answers at all.
    pub fn of(mut frr: Frr) -> Speaker {
        let unheard = Unheard::before(&mut frr).err();
        Speaker { frr, unheard }
    }

    /// Asks it something.
    pub fn ask<T, E: Into<Unheard>>(&mut self, question: impl FnOnce(&mut Frr) -> Result<T, E>) -> Result<T, Unheard> {
        match &self.unheard {
            Some(unheard) => Err(unheard.clone()),
            None => question(&mut self.frr).map_err(Into::into),
        }
    }
}

impl From<SpeakerError> for Unheard {
    fn from(error: SpeakerError) -> Unheard {
        match error {
            SpeakerError::NotRunning { .. } => Unheard::Silent(error.to_string()),
            _ => Unheard::Untold(error.to_string()),
        }
    }
}

impl fmt::Display for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unheard::Silent(why) => f.write_str(why),
            Unheard::Untold(why) => write!(f, "not told: {why}"),
        }
    }
}
