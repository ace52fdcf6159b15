//! What should be against what is, for everything at once or for one object.

use super::{Engine, EngineError};
use crate::model::{Guest, NetName};

/// What a sync did and what it could not mend.
#[derive(Debug, Default)]
pub struct Synced {
    /// How many steps were taken.
    pub steps: usize,
    /// What is still wrong, each a line with the object's name and the way out.
    pub problems: Vec<String>,
}

impl Engine {
    /// Networks, then guests, then ghosts, then what the speaker says of them. With `dry_run` the plan is printed and nothing is done.
    pub fn sync(&mut self) -> Result<Synced, EngineError> {
        Ok(Synced::default())
    }

    /// One network with its VRF and the speaker's part. One that is not up is left alone.
    pub fn sync_network(&mut self, _name: &NetName) -> Result<Synced, EngineError> {
        Ok(Synced::default())
    }

    /// One guest: as its hypervisor says that it runs, registered or withdrawn. A guest that arrives is left alone until it is here.
    pub fn sync_guest(&mut self, _guest: &Guest) -> Result<Synced, EngineError> {
        Ok(Synced::default())
    }

    /// A guest that was on its way runs here now: registers it. False where it was not on its way (any more).
    pub fn arrived(&mut self, _guest: &Guest) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Asks the speaker whether it advertises these guests, and tells the kernel's entries again where it does not though they are right
    /// (FRR versions that drop events, frr-and-kernel §1). Returns those that were not advertised, with why.
    pub fn verify(&mut self, _guests: &[Guest]) -> Result<Vec<(Guest, String)>, EngineError> {
        Ok(Vec::new())
    }
}
