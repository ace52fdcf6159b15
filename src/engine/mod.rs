//! One event through the house: observe → plan → claim → apply → settle → journal.
//!
//! Nothing is decided here that the plan can decide; here is only what has to be asked, and in which order.

mod addresses;
mod duplicates;
mod flaws;
mod foreign;
mod guest;
mod host;
mod learned;
mod look;
mod lxc;
mod network;
mod sync;

pub use foreign::Known;
pub use guest::{attach, boot_micros, boot_seconds, by_hand, detach, lacks, mends};
pub use host::{undo_host, vtep_and_mtu};
pub use learned::Learned;
pub use lxc::{Inner, inside};
pub use network::{HostLacks, host_lacks, host_wants};
pub use sync::Synced;

use crate::apply::{ApplyError, Done, Hands, all, most};
use crate::config::{Config, ConfigError, PortSecurity, SpeakerKind};
use crate::event::Event;
use crate::guard::{self, GuardError};
use crate::input::LxcHook;
use crate::journal::{Journal, Message};
use crate::kernel::{Kernel, KernelError};
use crate::model::Guest;
use crate::plan::seen::World;
use crate::plan::{Plan, Refusal, Step};
use crate::register::{Register, RegisterError};
use crate::speaker::{Added, Frr};
use crate::tape::Untold;
use std::path::PathBuf;
use std::time::Instant;

/// Why an event was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Bad configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What is there contradicts what is wanted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel could not be asked.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// nft could not be asked.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A step failed; what was done is undone.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The state directory.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// What a tape says, or has not.
    #[error(transparent)]
    Tape(#[from] Untold),
}

impl EngineError {
    pub(crate) fn refused<T>(text: impl Into<String>) -> Result<T, EngineError> {
        Err(EngineError::Refused(Refusal(text.into())))
    }
}

/// What one run has at hand. Everything in it is opened when it is first needed: most hooks need little.
pub struct Engine {
    /// Where config.toml is, and whether it must exist.
    pub config_path: (PathBuf, bool),
    /// The state.
    pub register: Register,
    /// The log.
    pub journal: Journal,
    /// Plans are not applied but kept in `planned`.
    pub dry_run: bool,
    /// What a dry run would have done.
    pub planned: Plan,
    /// A guest that this event left on its way to here: somebody has to see it arrive.
    pub awaited: Option<Guest>,
    /// A duplicate may be waited for: nobody else waits for this process.
    may_wait: bool,
    /// When the call began that somebody waits for, in µs since boot; none in the agent.
    began: Option<u64>,
    /// How many steps were taken.
    walked: usize,
    kernel: Option<Kernel>,
    config: Option<Config>,
}

impl Engine {
    /// An engine that has touched nothing yet.
    pub fn new(config_path: (PathBuf, bool), register: Register, journal: Journal) -> Engine {
        Engine {
            config_path,
            register,
            journal,
            dry_run: false,
            planned: Plan::new(),
            awaited: None,
            may_wait: true,
            began: None,
            walked: 0,
            kernel: None,
            config: None,
        }
    }

    /// This run is for one call, which somebody waits for from now on.
    pub fn is_called(&mut self, event: String) {
        self.journal.event = event;
        self.journal.began = Some(Instant::now());
        self.began = Some(boot_micros());
    }

    /// config.toml, read once.
    pub fn config(&mut self) -> Result<&Config, EngineError> {
        if self.config.is_none() {
            self.reload_config()?;
        }
        Ok(self.config.get_or_insert_default())
    }

    /// Reads config.toml anew; where that cannot be, what it said before still holds.
    pub fn reload_config(&mut self) -> Result<(), EngineError> {
        self.config = Some(crate::config::load(&self.config_path.0, self.config_path.1)?);
        Ok(())
    }

    /// This host's kernel, opened once.
    pub fn kernel(&mut self) -> Result<&mut Kernel, EngineError> {
        match &mut self.kernel {
            Some(kernel) => Ok(kernel),
            closed => Ok(closed.insert(Kernel::open()?)),
        }
    }

    /// All that the kernel shows of devices and entries, and what guests' ports let in where a network asks for port security.
    pub fn whole_world(&mut self) -> Result<World, EngineError> {
        let world = self.kernel()?.whole_world()?;
        if !self.register.any_network(|r| r.network.security() != PortSecurity::Off) {
            return Ok(world);
        }
        // Unknown is as good as missing: what would mend it says why it cannot.
        let guards = guard::all(|port| world.link(port).map(|l| l.index));
        let (guards, secured) = guards.ok().flatten().unzip();
        Ok(world.with_guards(guards).with_secured(secured.unwrap_or_default()))
    }

    /// Walks a plan, all or nothing; returns what the speaker has of ours then, `added` being what it had before.
    fn walk(&mut self, plan: &Plan, frr: Option<&mut Frr>, added: Option<Added>) -> Result<Option<Added>, EngineError> {
        self.kernel()?;
        let Engine { kernel: Some(kernel), journal, walked, .. } = self else { return Ok(added) };
        let mut hands = Hands { kernel, frr, added };
        let done = all(plan, &mut hands, &mut noting(journal));
        hands.kernel.forget();
        done?;
        *walked += plan.len();
        Ok(hands.added)
    }

    /// Walks as much of a plan as can be, for taking down; returns what the speaker still has of ours, and whether all was done.
    fn walk_on(&mut self, plan: &Plan, frr: Option<&mut Frr>, added: Option<Added>) -> (Option<Added>, bool) {
        let Engine { kernel: Some(kernel), journal, walked, .. } = self else { return (added, plan.is_empty()) };
        let mut hands = Hands { kernel, frr, added };
        let whole = most(plan, &mut hands, &mut noting(journal));
        hands.kernel.forget();
        *walked += plan.len();
        (hands.added, whole)
    }

    /// FRR, where the configuration names it.
    pub fn frr(&mut self) -> Result<Option<Frr>, EngineError> {
        let speaker = &self.config()?.speaker;
        Ok((speaker.kind == SpeakerKind::Frr).then(|| Frr::new(&speaker.socket_dir)))
    }

    /// Carries out what happened.
    pub fn handle(&mut self, event: Event) -> Result<(), EngineError> {
        match event {
            Event::Network { phase, network } => self.network(phase, network),
            Event::NetworkStopped { name, .. } => self.network_stopped(&name),
            Event::PortDeleted { owner, port } => self.port_deleted(&owner, &port),
            Event::Guest { phase, guest, nics, flaw, notes } => {
                self.journal.object.clone_from(&guest.name);
                self.weigh(&phase, &guest, &nics, flaw.as_ref(), &notes)?;
                self.guest(phase, guest, nics)
            }
        }
    }

    /// Carries out what LXC said.
    pub fn handle_lxc(&mut self, hook: LxcHook) -> Result<(), EngineError> {
        self.lxc(hook)
    }
}

/// Logs a step as it is done.
fn noting(journal: &mut Journal) -> impl FnMut(Done) + '_ {
    |done: Done| match &done.failed {
        Some(why) => journal.say(&Message::StepFailed { step: done.step, took: done.took, why }),
        None if is_host_wide(done.step) => journal.say(&Message::HostChanged { step: done.step, took: done.took }),
        None => journal.say(&Message::Step { step: done.step, took: done.took }),
    }
}

/// Does a step change more than our own devices? Sysctls of one device do not, but for an uplink's accept_ra.
fn is_host_wide(step: &Step) -> bool {
    match step {
        Step::LocalRuleLast { .. } | Step::TenantBgp { .. } => true,
        Step::Sysctl { path, value } => {
            path == "net/ipv4/ip_forward"
                || path == "net/ipv6/conf/all/forwarding"
                || (path.ends_with("/accept_ra") && value == "2")
        }
        _ => false,
    }
}
