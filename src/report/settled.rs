//! A look beside hooks that are at work. A hook claims first and then does, so between the two a look finds missing what is about to be there. That is
//! no failure: what is amiss with an object that somebody works on, or has worked on since the look began, is looked at again once he is done.

use crate::engine::{Engine, EngineError};
use crate::model::{Guest, NetName};
use crate::register::Register;
use std::time::{Duration, Instant, SystemTime};

/// How long a hook is waited for: longer than FRR may keep one ([`crate::speaker::Frr::CONFIG_DEADLINE`]).
const PATIENCE: Duration = Duration::from_secs(6);
const POLL: Duration = Duration::from_millis(20);
/// A file's time is the last tick of the clock, which may be as far behind as this.
const TICK: Duration = Duration::from_millis(20);

/// What hooks work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A guest.
    Guest(Guest),
    /// A network.
    Network(NetName),
}

impl Object {
    fn is_locked(&self, register: &Register) -> bool {
        match self {
            Object::Guest(guest) => register.guest_is_locked(guest),
            Object::Network(name) => {
                register.network(name).ok().flatten().is_some_and(|r| register.network_is_locked(&r.network))
            }
        }
    }

    /// `None` where it has no record: it may have been taken down meanwhile, or was never up.
    fn has_changed(&self, register: &Register, since: SystemTime) -> Option<bool> {
        let written = match self {
            Object::Guest(guest) => register.guest_written(guest),
            Object::Network(name) => register.network_written(name),
        };
        Some(written? + TICK >= since)
    }
}

/// Looks until nothing is amiss but with objects that nobody is working on, or until patience ends.
pub fn settled<T>(
    engine: &mut Engine,
    look: impl Fn(&mut Engine) -> Result<T, EngineError>,
    amiss: impl Fn(&T) -> Vec<Object>,
) -> Result<T, EngineError> {
    let until = Instant::now() + PATIENCE;
    let mut first = true;
    loop {
        let began = SystemTime::now();
        let found = look(engine)?;
        let at_work: Vec<Object> = {
            let register = &engine.register;
            let works = |o: &Object| o.is_locked(register) || o.has_changed(register, began).unwrap_or(first);
            amiss(&found).into_iter().filter(works).collect()
        };
        if at_work.is_empty() || Instant::now() >= until {
            return Ok(found);
        }
        while at_work.iter().any(|o| o.is_locked(&engine.register)) && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        first = false;
    }
}
