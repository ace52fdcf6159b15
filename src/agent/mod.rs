//! What comes after the start: keeps what the hooks set up as it should be, while the host runs.
//!
//! ```text
//! users: Door ─────┐                            ┌─▶ engine, for a user's container: at once
//! kernel: Events ──┤                            ├─▶ engine.sync_guest, sync_network, sync_domain
//! inotify: Watch ──┼─▶ Index.react ─▶ Due ──────┼─▶ engine.arrived        (a migration's guest runs here now)
//! records ─────────┘   what it means   when     ├─▶ engine.verify         (does the speaker advertise it?)
//! guests: Ears ───── claims ────────────────────┴─▶ engine.learn, forget   (an address that nobody declared)
//! ```
//! One thread, one poll(2), no timer while nothing is due. What is right and what to do about it only the engine knows; here is decided what to
//! look at, and when:
//!
//! - [`index`]: pure, event → guests and networks to look at.
//! - [`due`]: pure, when: at once, after a hold, ever more seldom.
//! - `hearing`: addresses that nobody declared: what guests say on their ports, what dnsmasq gave. [`claims`]: pure, how often who is believed.
//! - `asks`: whether whoever has an address answers for it, before another gets it. `followers`: what this host's guests are told of those elsewhere.
//! - [`crate::senses`]: the kernel's events and files that tell what happened, in the order in which nothing is missed. libvirt's status files say what
//!   its events say, sooner, and also while libvirtd is down.
//! - [`daemon`]: the loop. [`arrival`]: the same for one guest, where no agent runs.
//! - [`notify`]: a word to systemd. [`metrics`]: what it counts, as Prometheus reads it; `scrape`: where that is asked for.
//!
//! It may be killed at any moment: it keeps nothing that is not in the register or the kernel, and each step is crash-safe.

pub mod arrival;
mod asks;
pub mod claims;
pub mod daemon;
pub mod due;
mod followers;
mod hearing;
pub mod index;
pub mod metrics;
pub mod notify;
mod scrape;
mod stanzas;

use crate::engine::EngineError;
use crate::kernel::KernelError;
use crate::register::{Register, RegisterError};
use crate::senses::SensesError;
use std::path::Path;

/// Why the agent ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is one already.
    #[error("an agent runs already on this state directory: 'systemctl status evpn-agent'")]
    Running,
    /// The configuration or the state cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The kernel cannot be listened to.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The state directory.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The socket for users' containers.
    #[error("the socket for users' containers: {0}")]
    Door(std::io::Error),
    /// Neither the kernel nor files can be listened to.
    #[error(transparent)]
    Senses(#[from] SensesError),
}

/// Does an agent run that keeps this state? Never waits.
pub fn is_running(state_dir: &Path) -> bool {
    Register::at(state_dir).agent_runs()
}
