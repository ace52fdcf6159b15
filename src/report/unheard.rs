//! An FRR that does not tell: what that is, in one wording for `status`, `explain` and `doctor`.

use crate::speaker::{Frr, SpeakerError};
use std::fmt;

/// Starts what is dead and ends what is frozen. bgpd tells a new zebra nothing of its old routes, so they go together; what evpn-hook told the old ones of
/// VRFs is not in frr.conf.
pub const RESTART: &str = "systemctl restart frr && evpn-hook sync";

/// Why nothing is known of what FRR was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unheard {
    /// A daemon that does not even say its version: it is dead or frozen, and [`RESTART`] mends that.
    Silent(String),
    /// It answers, but not this question: there is no verdict in that, and nothing to restart.
    Untold(String),
}

impl Unheard {
    /// Before all questions.
    pub fn before(frr: &mut Frr) -> Result<(), Unheard> {
        frr.answers().map_err(|error| Unheard::Silent(error.to_string()))
    }

    /// In FRR's words, or those of who asked it.
    pub fn why(&self) -> &str {
        let (Unheard::Silent(why) | Unheard::Untold(why)) = self;
        why
    }
}

/// The FRR that a report asks: nothing more once it is known to be silent.
pub struct Speaker {
    frr: Frr,
    silent: Option<Unheard>,
}

impl Speaker {
    /// Asks whether it answers at all.
    pub fn of(frr: Frr) -> Speaker {
        let mut frr = frr.for_report();
        let silent = Unheard::before(&mut frr).err();
        Speaker { frr, silent }
    }

    /// Asks it something.
    pub fn ask<T, E: Into<Unheard>>(&mut self, question: impl FnOnce(&mut Frr) -> Result<T, E>) -> Result<T, Unheard> {
        match &self.silent {
            Some(silent) => Err(silent.clone()),
            None => question(&mut self.frr).map_err(Into::into),
        }
    }
}

/// Of one that said its version before.
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
