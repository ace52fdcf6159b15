//! Pure: what was observed and what is wanted → steps in order, each with its undo.
//!
//! - `order`: the ordering laws, each with its reason; the other two obey them, and a debug build sees to it
//! - `network`: a tenant segment up and down; `bridge`: its bridge, made or taken over, and given back
//! - `guest`: an endpoint wired, registered, withdrawn
//! - `guard`: what a guest may send on its own port
//! - `duplicate`: what of an endpoint another guest has already
//! - `learn`: an address that a guest shows to have, and whose it is
//! - `rules`: the order of the host's routing rules
//! - `underlay`: by which devices tunnels leave
//! - `step`, `seen`: the vocabulary of what goes out and what comes in

pub mod bridge;
pub mod duplicate;
#[cfg(test)]
pub(crate) mod fixture;
pub mod foreign;
pub mod guard;
pub mod guest;
pub mod learn;
pub mod network;
mod order;
pub mod rules;
pub mod seen;
mod step;
pub mod underlay;
pub mod whose;

pub use step::{Hears, Step};

/// A step and what takes it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The effect.
    pub step: Step,
    /// What restores what was there before, in order; empty where nothing has to be undone.
    pub undo: Vec<Step>,
}

/// Steps in order. Empty means: what is observed is what is wanted.
pub type Plan = Vec<Planned>;

/// Why nothing was planned: what was observed contradicts what is wanted. One line with the object and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// A plan as the commands that a person would type, one a line.
pub fn shown(plan: &Plan) -> String {
    plan.iter().map(|planned| format!("{}\n", planned.step)).collect()
}

/// A step that needs no undo, because what it touched goes with an earlier step's undo, or is harmless.
pub fn plain(step: Step) -> Planned {
    Planned { step, undo: Vec::new() }
}

/// A step with its undo.
fn with_undo(step: Step, undo: Step) -> Planned {
    Planned { step, undo: vec![undo] }
}
