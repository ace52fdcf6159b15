//! One event through the house: observe → plan → claim → apply → settle → journal.
//!
//! Nothing is decided here that the plan can decide; here is only what has to be asked, and in which order.

mod addresses;
mod change;
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

pub use change::{Now, differences};
pub use foreign::Known;
pub use guest::{attach, boot_micros, boot_seconds, by_hand, detach, lacks, mends};
pub use host::{TunnelEnd, tunnel_end_and_carriers, undo_host};
pub use learned::{Claimed, Learned};
pub use look::{devices_of, devices_of_vrf};
pub use lxc::{Inner, Large, inside};
pub use network::{HostLacks, host_lacks, host_wants};
pub use sync::Synced;

use crate::apply::{ApplyError, Done, Hands, all, most};
use crate::config::{self, Config, ConfigError, PortSecurity, SpeakerKind};
use crate::event::Event;
use crate::guard::{self, GuardError};
use crate::hypervisor;
use crate::input::LxcHook;
use crate::journal::{Journal, Message};
use crate::kernel::{Kernel, KernelError};
use crate::model::{Guest, IfName, Mac};
use crate::plan::seen::World;
use crate::plan::{Plan, Refusal, Step};
use crate::register::{Register, RegisterError, VrfRecord};
use crate::speaker::{Added, Frr};
use crate::tape::Untold;
use std::net::IpAddr;
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
    /// The guest with this MAC answers for this address: it is not given up, though another VTEP has it.
    pub stands: Option<(Mac, IpAddr)>,
    /// Until when a report asks FRR.
    report_until: Option<Instant>,
    /// Why FRR does not answer, where who looks for drift knows: it is not asked for VRFs.
    speaker_silent: Option<String>,
    /// A duplicate may be waited for: nobody else waits for this process.
    may_wait: bool,
    /// This very call has announced that its guest comes from another host; a replay, which writes nothing, would not know it.
    announced: bool,
    /// When the call began that somebody waits for, in µs since boot; none in the agent.
    began: Option<u64>,
    /// How many steps were taken.
    walked: usize,
    kernel: Option<Kernel>,
    config: Option<Config>,
    /// What was read of config.toml, where it was; none in it where there is no such file.
    config_text: Option<Option<String>>,
}

/// Entries of one bridge that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// The bridge.
    pub bridge: IfName,
    /// Of its FDB.
    pub macs: Vec<Mac>,
    /// Of its neighbours.
    pub ips: Vec<IpAddr>,
}

impl Engine {
    /// An engine that has touched nothing yet.
    pub fn new(config_path: (PathBuf, bool), register: Register, journal: Journal) -> Engine {
        Engine {
            config_path,
            register,
            journal,
            dry_run: false,
            stands: None,
            report_until: None,
            speaker_silent: None,
            planned: Plan::new(),
            awaited: None,
            may_wait: true,
            announced: false,
            began: None,
            walked: 0,
            kernel: None,
            config: None,
            config_text: None,
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
        let (path, must_exist) = &self.config_path;
        let text = config::text(path, *must_exist)?;
        let read = config::parse_all(text.as_deref(), path)?;
        let said = |text: &String| !config::is_blank(text);
        if text.as_ref().is_some_and(|text| !said(text)) && self.register.config().as_ref().is_some_and(said) {
            return Err(config::emptied(path).into());
        }
        (self.config, self.config_text) = (Some(read), Some(text));
        Ok(())
    }

    /// The same for who must go on whatever is in that file: while it is broken, or being written, what it said last holds. Returns what is wrong with it; an
    /// error where nobody has read it before.
    pub fn config_that_holds(&mut self) -> Result<Option<ConfigError>, EngineError> {
        let error = match self.config() {
            Ok(_) => return Ok(None),
            Err(EngineError::Config(error)) => error,
            Err(error) => return Err(error),
        };
        let last = self.register.config().and_then(|text| config::parse_all(Some(&text), &self.config_path.0).ok());
        match last {
            Some(last) => {
                self.config = Some(last);
                Ok(Some(ConfigError(format!("{error}; what it said before still holds"))))
            }
            None => Err(error.into()),
        }
    }

    /// Keeps what was read, for who finds the file broken later.
    fn note_config(&mut self) {
        let Some(text) = self.config_text.as_ref().filter(|_| !self.dry_run) else { return };
        if let Err(error) = self.register.put_config(text.as_deref()) {
            self.journal.say(&Message::Warning(&error));
        }
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
        self.guarded(world)
    }

    /// The same, but of FDB entries and neighbours those alone that are asked for, each by itself: a bridge holds those of the whole fabric.
    pub fn world_with(&mut self, wanted: &[Entries]) -> Result<World, EngineError> {
        let kernel = self.kernel()?;
        let world = kernel.world()?;
        let (mut fdb, mut neighs) = (Vec::new(), Vec::new());
        for Entries { bridge, macs, ips } in wanted {
            let Some(bridge) = world.link(bridge).map(|link| link.index) else { continue };
            for mac in macs {
                fdb.extend(kernel.fdb(bridge, *mac)?.map(|entry| (bridge, entry)));
            }
            for ip in ips {
                neighs.extend(kernel.neigh(bridge, *ip)?.map(|entry| (bridge, entry)));
            }
        }
        self.guarded(world.with_entries(fdb, neighs))
    }

    fn guarded(&mut self, world: World) -> Result<World, EngineError> {
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
        let arranges = plan.iter().any(|planned| matches!(planned.step, Step::Rules { .. }));
        // Two that delete the same spare rule for table local would delete both. Held no longer than that: FRR comes behind it.
        let mut lock = if arranges { Some(self.register.lock_host()?) } else { None };
        let Engine { kernel: Some(kernel), journal, walked, .. } = self else { return Ok(added) };
        let mut hands = Hands { kernel, frr, added };
        let mut note = noting(journal);
        let done = all(plan, &mut hands, &mut |done| {
            if matches!(done.step, Step::Rules { .. }) {
                lock = None;
            }
            note(done);
        });
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
        if speaker.kind != SpeakerKind::Frr {
            return Ok(None);
        }
        let frr = Frr::new(&speaker.socket_dir).with_vtysh(&speaker.vtysh);
        Ok(Some(self.in_time(frr)))
    }

    /// With the deadline of the report, in one.
    fn in_time(&self, frr: Frr) -> Frr {
        match self.report_until {
            Some(until) => frr.for_report(until),
            None => frr,
        }
    }

    /// A report begins: who asked for it waits, so all questions to FRR have one deadline until it ends.
    pub fn begin_report(&mut self) {
        self.report_until = Some(Instant::now() + Frr::REPORT);
    }

    /// A report has ended: what follows waits for FRR as any event does.
    pub fn end_report(&mut self) {
        self.report_until = None;
    }

    /// The FRR that has a VRF's part, to take it out again: whatever config.toml says of it by now, and also where it cannot be read.
    fn frr_with(&mut self, record: &VrfRecord) -> Option<Frr> {
        record.speaker.as_ref()?;
        let speaker = self.config().map(|config| config.speaker.clone()).unwrap_or_default();
        let dir = record.socket_dir.as_ref().unwrap_or(&speaker.socket_dir);
        Some(self.in_time(Frr::new(dir).with_vtysh(&speaker.vtysh)))
    }

    /// Carries out what happened.
    pub fn handle(&mut self, event: Event) -> Result<(), EngineError> {
        match event {
            Event::Network { phase, network } => self.network(phase, network),
            Event::NetworkStopped { name, network } => {
                self.network_stopped(&name)?;
                // Also where its start failed, before there was a record.
                network.map_or(Ok(()), |network| Ok(self.register.mark_gone(&network.bridge)?))
            }
            Event::PortDeleted { owner } => self.port_deleted(&owner),
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

/// Bridges that are there by the name of one that a network of libvirt's would make, which is defined and down: the network, and the bridge. libvirt
/// takes a bridge of that name for its own when its start fails (bridge_driver.c 10.7 `networkStartNetwork`, which then shuts it down whole).
pub fn bridges_at_risk(world: &World) -> Vec<(String, IfName)> {
    hypervisor::libvirt::bridges_to_make().into_iter().filter(|(_, bridge)| world.link(bridge).is_some()).collect()
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
        Step::Rules { .. } => true,
        Step::Sysctl { path, value } => {
            path == "net/ipv4/ip_forward"
                || path == "net/ipv6/conf/all/forwarding"
                || (path.ends_with("/accept_ra") && value == "2")
        }
        _ => false,
    }
}
