//! What can be wrong with a host, each found with its evidence and its cure. `doctor`, `explain` and `status` are views of it.
//!
//! Facts are gathered once. A check is a function of them that makes findings; it asks nothing and changes nothing. A file has the checks of one subject, and
//! beside them what it asks of the host for them (`observe`; every question is bounded). A fault is to be named once, by the check that it is: what follows
//! from it is left out as far as that can be known.
//!
//! - `host`: kernel, routing rules, settings, the neighbour table's limits
//! - `firewall`: what the host's rules do to VXLAN and to tenants' packets
//! - `underlay`: the VTEP's address, and whether the tenants' packets fit between VTEPs
//! - `described`: what the networks' descriptions say that works badly, from [`crate::advice`]'s table
//! - `bridges`: what `sync` would put right, ghosts, what a bridge and its VXLAN port must be
//! - `speaker`: whether FRR answers, what its configuration must have, what it has of networks and VRFs
//! - `fabric`: what the rest of the fabric sends; `defects`: what FRR's version is known for
//! - `frr_files`: FRR's own files
//! - `hooks`: libvirt's and LXC's links, what keeps them from running, the agent
//! - `duplicates`: what two live guests have
//! - `unheard`: an FRR that does not tell
//! - `cure`: the commands that findings name

pub(crate) mod bridges;
pub(crate) mod cure;
mod defects;
mod described;
pub(crate) mod duplicates;
pub(crate) mod fabric;
mod firewall;
mod frr_files;
mod hooks;
mod host;
pub(crate) mod speaker;
pub(crate) mod underlay;
pub(crate) mod unheard;

use crate::config::Config;
use crate::engine::{Engine, EngineError};
use crate::model::one_line;
use crate::plan::Step;
use crate::plan::seen::World;
use crate::register::{GuestRecord, NetworkRecord};
use serde::{Serialize, Serializer};
use speaker::SpeakerFacts;
use std::fmt;
use unheard::Unheard;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Traffic is or will be lost.
    Problem,
    /// It may be, or something is not as it should be.
    Warning,
    /// Nobody could look.
    NotChecked,
    /// Good to know; shown with `-v`.
    Hint,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Problem => "problem",
            Severity::Warning => "warning",
            Severity::NotChecked => "not checked",
            Severity::Hint => "hint",
        })
    }
}

/// What `--fix` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// What `sync` does.
    Sync,
    /// Write one file below /proc/sys.
    Sysctl {
        /// `net/ipv4/conf/red-l2/forwarding`
        path: String,
        /// The value.
        value: String,
    },
}

/// One trap that the host is in. Its JSON is stable: fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which trap; a name for programs.
    pub check: &'static str,
    /// How bad.
    pub severity: Severity,
    /// On what: a device, a network, a file, a daemon.
    pub object: String,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub mend: String,
    /// `mend` is a command line.
    pub runnable: bool,
    /// What else to know of that.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The link of `explain`'s chain that it breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<&'static str>,
    /// What `--fix` does for it, if it is safe.
    #[serde(rename = "safe", serialize_with = "is_some")]
    pub fix: Option<Fix>,
}

fn is_some<S: Serializer>(fix: &Option<Fix>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(fix.is_some())
}

impl Finding {
    pub(crate) fn new(
        severity: Severity,
        check: &'static str,
        object: impl fmt::Display,
        evidence: impl Into<String>,
    ) -> Finding {
        let (object, evidence) = (one_line(&object.to_string()), one_line(&evidence.into()));
        let (mend, note) = (String::new(), String::new());
        Finding { check, severity, object, evidence, mend, runnable: false, note, link: None, fix: None }
    }

    pub(crate) fn problem(check: &'static str, object: impl fmt::Display, evidence: impl Into<String>) -> Finding {
        Finding::new(Severity::Problem, check, object, evidence)
    }

    pub(crate) fn warning(check: &'static str, object: impl fmt::Display, evidence: impl Into<String>) -> Finding {
        Finding::new(Severity::Warning, check, object, evidence)
    }

    pub(crate) fn not_checked(check: &'static str, object: impl fmt::Display, evidence: impl Into<String>) -> Finding {
        Finding::new(Severity::NotChecked, check, object, evidence)
    }

    pub(crate) fn hint(check: &'static str, object: impl fmt::Display, evidence: impl Into<String>) -> Finding {
        Finding::new(Severity::Hint, check, object, evidence)
    }

    /// As `status` has it.
    pub(crate) fn line(&self) -> String {
        format!("{} {}: {}", self.object, self.evidence, self.mend)
    }

    /// What is wrong with a link of one guest's chain: `explain` says with which.
    pub(crate) fn of_link(evidence: impl Into<String>) -> Finding {
        Finding::problem("", "", evidence)
    }

    /// Of the link that it breaks.
    pub(crate) fn at(self, link: &'static str) -> Finding {
        Finding { link: Some(link), ..self }
    }

    /// What else to know.
    pub(crate) fn note(self, words: impl Into<String>) -> Finding {
        Finding { note: one_line(&words.into()), ..self }
    }

    /// Mended by a command, where there is one that may be printed.
    pub(crate) fn cured(self, command: Option<String>) -> Finding {
        match command {
            Some(command) => self.run(command),
            None => self,
        }
    }

    /// Mended by a command.
    pub(crate) fn run(self, command: impl Into<String>) -> Finding {
        Finding { mend: one_line(&command.into()), runnable: true, ..self }
    }

    /// Mended by a person.
    pub(crate) fn by(self, words: impl Into<String>) -> Finding {
        Finding { mend: one_line(&words.into()), ..self }
    }

    /// Mended by `sync`, and so by `--fix`.
    pub(crate) fn sync(self) -> Finding {
        Finding { fix: Some(Fix::Sync), ..self.run(cure::SYNC) }
    }

    /// Mended by a setting that is safe to change.
    pub(crate) fn setting(self, path: &str, value: &str) -> Finding {
        let fix = Fix::Sysctl { path: path.to_owned(), value: value.to_owned() };
        Finding { fix: Some(fix), ..self.run(cure::sysctl(path, value)) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.severity, self.check, self.object, self.evidence)?;
        for (word, what) in [("mend", &self.mend), ("note", &self.note)].iter().filter(|(_, what)| !what.is_empty()) {
            write!(f, "; {word}: {what}")?;
        }
        Ok(())
    }
}

/// What a check says of one object.
pub(crate) enum Verdict {
    /// It is as it should be: what was seen.
    Holds(String),
    Fails(Finding),
}

impl Verdict {
    pub(crate) fn found(self) -> Option<Finding> {
        match self {
            Verdict::Holds(_) => None,
            Verdict::Fails(finding) => Some(finding),
        }
    }
}

impl From<Finding> for Verdict {
    fn from(finding: Finding) -> Verdict {
        Verdict::Fails(finding)
    }
}

/// All that the checks of a whole host go by.
pub(crate) struct Facts {
    pub(crate) host: HostFacts,
    kernel: host::KernelFacts,
    underlay: underlay::UnderlayFacts,
    firewall: firewall::FirewallFacts,
    bridges: bridges::BridgeFacts,
    /// None where no speaker is configured.
    speaker: Option<SpeakerFacts>,
    fabric: fabric::FabricFacts,
    files: frr_files::FrrFiles,
    hooks: hooks::HookFacts,
}

/// Each makes findings of its subject.
const CHECKS: [fn(&Facts) -> Vec<Finding>; 9] = [
    underlay::check,
    host::check,
    firewall::check,
    described::check,
    bridges::check,
    speaker::check,
    fabric::check,
    frr_files::check,
    hooks::check,
];

impl Facts {
    /// Nothing is changed; no look takes longer than some seconds.
    pub(crate) fn gather(engine: &mut Engine, host: HostFacts) -> Result<Facts, EngineError> {
        let (speaker, fabric) = fabric::observe(engine, &host)?;
        let vteps = speaker.iter().flat_map(SpeakerFacts::vteps).collect();
        let underlay = underlay::observe(engine, &host, &vteps)?;
        Ok(Facts {
            files: frr_files::observe(&host),
            kernel: host::observe(engine, &host)?,
            firewall: firewall::observe(engine, &host, &vteps, underlay.carriers())?,
            bridges: bridges::observe(&host),
            hooks: hooks::observe(engine, &host),
            speaker,
            fabric,
            underlay,
            host,
        })
    }

    /// What all checks find.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        CHECKS.iter().flat_map(|check| check(self)).collect()
    }
}

/// What every check may know of the host: what is wanted of it, what it has, what a `sync` would do.
pub(crate) struct HostFacts {
    pub(crate) config: Config,
    pub(crate) networks: Vec<NetworkRecord>,
    pub(crate) guests: Vec<GuestRecord>,
    pub(crate) world: World,
    /// Why nothing is known of FRR.
    pub(crate) unheard: Option<Unheard>,
    /// The steps that a `sync` would take.
    pub(crate) drift: Vec<Step>,
    /// What a `sync` could not mend, in words.
    pub(crate) troubles: Vec<String>,
}

impl HostFacts {
    pub(crate) fn observe(engine: &mut Engine) -> Result<HostFacts, EngineError> {
        engine.begin_report();
        let config = engine.config()?.clone();
        let unheard = engine.frr()?.and_then(|mut frr| Unheard::before(&mut frr).err());
        let (plan, troubles) = engine.drift(unheard.as_ref().map(|unheard| unheard.why().to_owned()))?;
        Ok(HostFacts {
            config,
            unheard,
            drift: plan.into_iter().map(|planned| planned.step).collect(),
            troubles,
            // What cannot be read is among the troubles.
            networks: engine.register.networks().into_iter().flatten().collect(),
            guests: engine.register.guests().into_iter().flatten().collect(),
            world: engine.whole_world()?,
        })
    }

    /// Does any network route, here or as soon as it is up?
    fn routes(&self) -> bool {
        let configured = self.config.networks.iter();
        self.networks.iter().map(|record| &record.network).chain(configured).any(|network| network.vrf.is_some())
    }
}

#[cfg(test)]
pub(crate) mod fixture;
