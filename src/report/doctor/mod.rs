//! `evpn-hook doctor`: the traps that a host can be in, each one found with its evidence and its mend.
//!
//! A file is a room of traps: what it asks of the host (`observe`; every question is bounded and changes nothing) and what it makes of the answers (`judge`;
//! pure). A fault is to be named once, by the trap that it is: what follows from it is left out as far as that can be known.
//!
//! - `host`: kernel, routing rules, settings, the neighbour table's limits
//! - `firewall`: what the host's rules do to VXLAN and to tenants' packets
//! - `underlay`: the VTEP's address, and whether the tenants' packets fit between VTEPs
//! - `described`: what the networks' descriptions say that works badly, from [`crate::advice`]'s table
//! - `bridges`: what `sync` would put right, ghosts, what a bridge and its VXLAN port must be
//! - `speaker`: FRR, its configuration, and what the fabric sends
//! - `frr_files`: FRR's own files
//! - `hooks`: libvirt's and LXC's links, what keeps them from running, the agent

mod bridges;
mod defects;
mod described;
mod firewall;
mod frr_files;
mod hooks;
mod host;
mod speaker;
mod underlay;

use crate::config::Config;
use crate::engine::{Engine, EngineError};
use crate::journal::Message;
use crate::model::one_line;
use crate::plan::Step;
use crate::plan::seen::World;
use crate::register::{GuestRecord, NetworkRecord};
use crate::report::settled::{Object, settled};
use crate::report::unheard::Unheard;
use serde::{Serialize, Serializer};
use std::fmt::{self, Write};
use std::time::Instant;

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
    /// What `--fix` does for it, if it is safe.
    #[serde(rename = "safe", serialize_with = "is_some")]
    pub fix: Option<Fix>,
}

fn is_some<S: Serializer>(fix: &Option<Fix>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(fix.is_some())
}

impl Finding {
    fn new(severity: Severity, check: &'static str, object: impl fmt::Display, evidence: impl Into<String>) -> Finding {
        let (object, evidence) = (one_line(&object.to_string()), one_line(&evidence.into()));
        Finding { check, severity, object, evidence, mend: String::new(), runnable: false, fix: None }
    }

    fn problem(check: &'static str, object: impl fmt::Display, evidence: impl Into<String>) -> Finding {
        Finding::new(Severity::Problem, check, object, evidence)
    }

    fn warning(check: &'static str, object: impl fmt::Display, evidence: impl Into<String>) -> Finding {
        Finding::new(Severity::Warning, check, object, evidence)
    }

    fn not_checked(check: &'static str, object: impl fmt::Display, evidence: impl Into<String>) -> Finding {
        Finding::new(Severity::NotChecked, check, object, evidence)
    }

    fn hint(check: &'static str, object: impl fmt::Display, evidence: impl Into<String>) -> Finding {
        Finding::new(Severity::Hint, check, object, evidence)
    }

    /// Mended by a command.
    fn run(self, command: impl Into<String>) -> Finding {
        Finding { mend: one_line(&command.into()), runnable: true, ..self }
    }

    /// Mended by a person.
    fn by(self, words: impl Into<String>) -> Finding {
        Finding { mend: one_line(&words.into()), ..self }
    }

    /// Mended by `sync`, and so by `--fix`.
    fn sync(self) -> Finding {
        Finding { fix: Some(Fix::Sync), ..self.run("evpn-hook sync") }
    }

    /// Mended by a setting that is safe to change.
    fn setting(self, path: &str, value: &str) -> Finding {
        let fix = Fix::Sysctl { path: path.to_owned(), value: value.to_owned() };
        Finding { fix: Some(fix), ..self.run(sysctl_command(path, value)) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.severity, self.check, self.object, self.evidence)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "; mend: {}", self.mend) }
    }
}

/// sysctl(8) takes slashes as well, which a device's name with a dot needs.
fn sysctl_command(path: &str, value: &str) -> String {
    let name = if path.contains('.') { path.to_owned() } else { path.replace('/', ".") };
    format!("sysctl -w {name}={value}")
}

/// What `--fix` did for one finding.
#[derive(Debug, Serialize)]
pub struct Fixed {
    /// Which trap.
    pub check: &'static str,
    /// On what.
    pub object: String,
    /// What was done.
    pub mend: String,
    /// Why it was not, if it was not.
    pub failed: Option<String>,
}

/// The whole report; its JSON is stable: fields are added, never renamed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// No problem was found, or none is left.
    pub healthy: bool,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What `--fix` did before this look.
    pub fixed: Vec<Fixed>,
    /// Networks that are up here.
    pub networks: usize,
    /// Guests that are known here.
    pub guests: usize,
}

/// What every room judges by.
struct Base {
    config: Config,
    networks: Vec<NetworkRecord>,
    guests: Vec<GuestRecord>,
    world: World,
    /// Why nothing is known of FRR.
    unheard: Option<Unheard>,
    /// The steps that a `sync` would take.
    drift: Vec<Step>,
    /// What a `sync` could not mend, in words.
    troubles: Vec<String>,
}

impl Base {
    fn observe(engine: &mut Engine) -> Result<Base, EngineError> {
        engine.begin_report();
        let config = engine.config()?.clone();
        let unheard = engine.frr()?.and_then(|mut frr| Unheard::before(&mut frr).err());
        let (plan, troubles) = engine.drift(unheard.as_ref().map(|unheard| unheard.why().to_owned()))?;
        Ok(Base {
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

    /// Whose a step that a `sync` would take may be.
    fn amiss(&self) -> Vec<Object> {
        if self.drift.is_empty() {
            return Vec::new();
        }
        let networks = self.networks.iter().map(|record| Object::Network(record.network.name.clone()));
        networks.chain(self.guests.iter().map(|record| Object::Guest(record.guest.clone()))).collect()
    }

    /// Does any network route, here or as soon as it is up?
    fn routes(&self) -> bool {
        let configured = self.config.networks.iter();
        self.networks.iter().map(|record| &record.network).chain(configured).any(|network| network.vrf.is_some())
    }
}

/// Looks for all of it. Nothing is changed; no look takes longer than some seconds.
pub fn examine(engine: &mut Engine) -> Result<Report, EngineError> {
    let base = settled(engine, Base::observe, Base::amiss)?;
    let files = frr_files::observe(&base);
    let said = speaker::observe(engine, &base, &files)?;
    let under = underlay::observe(engine, &base, &said.vteps())?;
    let of_host = host::observe(engine, &base)?;
    let rules = firewall::observe(engine, &base, &said.vteps(), under.carriers())?;
    let of_bridges = bridges::observe(&base);
    let of_hooks = hooks::observe(engine, &base);
    let mut findings = underlay::judge(&base, &under);
    findings.extend(host::judge(&base, &of_host));
    findings.extend(firewall::judge(&base, &rules));
    findings.extend(described::judge(&base));
    findings.extend(bridges::judge(&base, &of_bridges, &said.silence()));
    findings.extend(speaker::judge(&base, &said));
    findings.extend(frr_files::judge(&base, &files));
    findings.extend(hooks::judge(&of_hooks));
    Ok(report(&base, findings))
}

fn report(base: &Base, mut findings: Vec<Finding>) -> Report {
    findings.sort_by_key(|finding| finding.severity);
    findings.dedup();
    Report {
        healthy: !findings.iter().any(|finding| finding.severity == Severity::Problem),
        findings,
        fixed: Vec::new(),
        networks: base.networks.len(),
        guests: base.guests.len(),
    }
}

/// Does what is safe of it, and looks again.
pub fn mend(engine: &mut Engine, found: Report) -> Result<Report, EngineError> {
    engine.end_report();
    let mut fixed: Vec<Fixed> = Vec::new();
    let mut synced = None;
    for finding in found.findings {
        let failed = match &finding.fix {
            None => continue,
            // One is for all of them.
            Some(Fix::Sync) => match &synced {
                Some(result) => Option::clone(result),
                None => synced.insert(sync(engine)).clone(),
            },
            Some(Fix::Sysctl { path, value }) => set(engine, path, value).err().map(|error| error.to_string()),
        };
        fixed.push(Fixed { check: finding.check, object: finding.object, mend: finding.mend, failed });
    }
    Ok(Report { fixed, ..examine(engine)? })
}

/// Why it mended not all, if it did not.
fn sync(engine: &mut Engine) -> Option<String> {
    match engine.sync() {
        Ok(synced) if synced.problems.is_empty() => None,
        Ok(synced) => Some(synced.problems.join("; ")),
        Err(error) => Some(error.to_string()),
    }
}

fn set(engine: &mut Engine, path: &str, value: &str) -> Result<(), EngineError> {
    let step = Step::Sysctl { path: path.to_owned(), value: value.to_owned() };
    let start = Instant::now();
    engine.kernel()?.apply(&step)?;
    engine.journal.say(&Message::HostChanged { step: &step, took: start.elapsed() });
    Ok(())
}

/// What `--fix` is about to do, said before it is done.
pub fn announced(found: &Report) -> String {
    let mut out = String::new();
    for finding in &found.findings {
        let _ = match finding.fix {
            Some(_) => writeln!(out, "{finding}: doing it"),
            None if finding.severity <= Severity::Warning => writeln!(out, "{finding}: left to you"),
            None => Ok(()),
        };
    }
    out
}

/// For people: a line a finding, and one for all.
pub fn text(report: &Report, verbose: bool) -> String {
    let mut out = String::new();
    for fixed in &report.fixed {
        let _ = match &fixed.failed {
            None => writeln!(out, "done: {}: {}: {}", fixed.check, fixed.object, fixed.mend),
            Some(why) => writeln!(out, "failed: {}: {}: {}: {why}", fixed.check, fixed.object, fixed.mend),
        };
    }
    for finding in report.findings.iter().filter(|finding| verbose || finding.severity < Severity::Hint) {
        let _ = writeln!(out, "{finding}");
    }
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let counted = |severity, one: &str, more: &str| match count(severity) {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {more}")),
    };
    let counts = [
        counted(Severity::Problem, "problem", "problems"),
        counted(Severity::Warning, "warning", "warnings"),
        counted(Severity::NotChecked, "not checked", "not checked"),
        counted(Severity::Hint, "hint (-v shows it)", "hints (-v shows them)"),
    ];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    let (networks, guests) = (report.networks, report.guests);
    let word = if report.healthy { "healthy" } else { "not healthy" };
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let _ = write!(out, "{word}: {networks} network{}, {guests} guest{}", plural(networks), plural(guests));
    out + &counts.iter().fold(String::new(), |text, count| format!("{text}, {count}")) + "\n"
}

#[cfg(test)]
mod fixture;

#[cfg(test)]
mod tests {
    use super::fixture::base;
    use super::*;

    #[test]
    fn a_healthy_host_is_one_line() {
        let report = report(&base(), vec![Finding::hint("agent", "evpn-agent", "it does not run")]);
        assert_eq!(text(&report, false), "healthy: 1 network, 1 guest, 1 hint (-v shows it)\n");
        assert!(text(&report, true).starts_with("hint: agent: evpn-agent: it does not run\nhealthy"));
    }

    #[test]
    fn the_worst_is_first_and_told_once() {
        let warning = Finding::warning("b", "y", "odd").by("look");
        let problem = Finding::problem("a", "x", "bad").sync();
        let report = report(&base(), vec![warning, problem.clone(), problem]);
        let told = "problem: a: x: bad; mend: evpn-hook sync\nwarning: b: y: odd; mend: look\n";
        assert_eq!(text(&report, false), format!("{told}not healthy: 1 network, 1 guest, 1 problem, 1 warning\n"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["healthy"], false);
        let first = serde_json::json!({"check": "a", "severity": "problem", "object": "x", "evidence": "bad",
            "mend": "evpn-hook sync", "runnable": true, "safe": true});
        assert_eq!(json["findings"][0], first);
        assert_eq!(json["findings"][1]["severity"], "warning");
    }

    #[test]
    fn a_setting_of_a_device_with_a_dot_is_named_by_slashes() {
        assert_eq!(
            sysctl_command("net/ipv4/conf/red-l2/forwarding", "1"),
            "sysctl -w net.ipv4.conf.red-l2.forwarding=1"
        );
        assert_eq!(sysctl_command("net/ipv4/conf/br.1/forwarding", "1"), "sysctl -w net/ipv4/conf/br.1/forwarding=1");
    }
}
