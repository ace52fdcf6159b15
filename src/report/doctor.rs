//! `evpn-hook doctor`: what the checks find of the whole host, the worst first.

use crate::checks::{Facts, Finding, Fix, HostFacts, Severity};
use crate::engine::{Engine, EngineError};
use crate::journal::Message;
use crate::plan::Step;
use crate::report::settled::{Object, settled};
use serde::Serialize;
use std::fmt::Write;
use std::time::Instant;

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

/// Looks for all of it. Nothing is changed; no look takes longer than some seconds.
pub fn examine(engine: &mut Engine) -> Result<Report, EngineError> {
    let host = settled(engine, HostFacts::observe, amiss)?;
    let facts = Facts::gather(engine, host)?;
    Ok(report(&facts.host, facts.findings()))
}

/// Whose a step that a `sync` would take may be.
fn amiss(host: &HostFacts) -> Vec<Object> {
    if host.drift.is_empty() {
        return Vec::new();
    }
    let networks = host.networks.iter().map(|record| Object::Network(record.network.name.clone()));
    networks.chain(host.guests.iter().map(|record| Object::Guest(record.guest.clone()))).collect()
}

fn report(host: &HostFacts, mut findings: Vec<Finding>) -> Report {
    findings.sort_by_key(|finding| finding.severity);
    findings.dedup();
    Report {
        healthy: !findings.iter().any(|finding| finding.severity == Severity::Problem),
        findings,
        fixed: Vec::new(),
        networks: host.networks.len(),
        guests: host.guests.len(),
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
    let (networks, guests) = (report.networks, report.guests);
    let word = if report.healthy { "healthy" } else { "not healthy" };
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let _ = write!(out, "{word}: {networks} network{}, {guests} guest{}", plural(networks), plural(guests));
    for (severity, one, more) in [
        (Severity::Problem, "problem", "problems"),
        (Severity::Warning, "warning", "warnings"),
        (Severity::NotChecked, "not checked", "not checked"),
        (Severity::Hint, "hint (-v shows it)", "hints (-v shows them)"),
    ] {
        let count = report.findings.iter().filter(|finding| finding.severity == severity).count();
        if count > 0 {
            let _ = write!(out, ", {count} {}", if count == 1 { one } else { more });
        }
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::fixture::host;

    #[test]
    fn a_healthy_host_is_one_line() {
        let report = report(&host(), vec![Finding::hint("agent", "evpn-agent", "it does not run")]);
        assert_eq!(text(&report, false), "healthy: 1 network, 1 guest, 1 hint (-v shows it)\n");
        assert!(text(&report, true).starts_with("hint: agent: evpn-agent: it does not run\nhealthy"));
    }

    #[test]
    fn the_worst_is_first_and_told_once() {
        let warning = Finding::warning("b", "y", "odd").by("look");
        let problem = Finding::problem("a", "x", "bad").sync();
        let report = report(&host(), vec![warning, problem.clone(), problem]);
        let told = "problem: a: x: bad; mend: evpn-hook sync\nwarning: b: y: odd; mend: look\n";
        assert_eq!(text(&report, false), format!("{told}not healthy: 1 network, 1 guest, 1 problem, 1 warning\n"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["healthy"], false);
        let first = serde_json::json!({"check": "a", "severity": "problem", "object": "x", "evidence": "bad",
            "mend": "evpn-hook sync", "runnable": true, "safe": true});
        assert_eq!(json["findings"][0], first);
        assert_eq!(json["findings"][1]["severity"], "warning");
    }
}
