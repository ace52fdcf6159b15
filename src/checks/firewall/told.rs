//! What is made of what the packets did; pure.

use super::stage::{DHCP, What};
use super::tried::{BLANK, Verdict, Why};
use super::{BRIDGE_NF, NETWORKS};
use crate::checks::{Facts, Finding, HostFacts, Severity, cure};

/// So many of the rules that name something are shown.
pub const RULES: usize = 4;
const HOW: &str = "tried in a copy of this host's rules";

pub fn check(facts: &Facts) -> Vec<Finding> {
    let (host, seen) = (&facts.host, &facts.firewall);
    let mut found = Vec::new();
    if !seen.untold.is_empty() {
        let evidence = format!("not all of its rules are known, and those were not tried: {}", seen.untold.join("; "));
        found.push(Finding::not_checked("firewall", "the host", evidence));
    }
    let not_tried =
        |why: &str| Finding::not_checked("firewall", "the host", format!("its rules could not be tried: {why}"));
    let mut pass = seen.untold.is_empty();
    match &seen.tried {
        Err(why) => {
            pass = false;
            found.push(not_tried(why));
        }
        Ok(tried) => {
            for (what, why) in &tried.untried {
                let (object, question) = asked(what);
                let whom = if matches!(what, What::Tunnel { .. }) { " other VTEPs" } else { "" };
                let evidence = format!("whether the rules drop {question}{whom} could not be tried: {why}");
                found.push(Finding::not_checked("firewall", object, evidence));
            }
            if let Some(why) = &tried.queues {
                found.push(not_tried(&format!("those that leave packets to a program: {why}")));
            }
            found.extend(tried.verdicts.iter().map(told));
            for (end, n, all) in &tried.sampled {
                let evidence = format!("{n} of {all} other VTEPs were tried");
                found.push(Finding::hint("firewall", format!("UDP {}", end.port()), evidence));
            }
            let is_bridged = |what: &What| matches!(what, What::Bridged { .. });
            if tried.verdicts.iter().any(|verdict| is_bridged(&verdict.what)) {
                // It is told there.
                return and_networks(host, found);
            }
            pass &= tried.queues.is_none() && !tried.untried.iter().any(|(what, _)| is_bridged(what));
        }
    }
    if !seen.bridge_nf.is_empty() && !host.networks.is_empty() {
        found.push(bridge_nf(&seen.bridge_nf, pass));
    }
    and_networks(host, found)
}

fn and_networks(host: &HostFacts, mut found: Vec<Finding>) -> Vec<Finding> {
    if host.networks.len() > NETWORKS {
        let evidence = format!("{NETWORKS} of {} networks were tried", host.networks.len());
        found.push(Finding::hint("firewall", "the host", evidence));
    }
    found
}

/// The settings are for all bridges of the host, and others may count on them: no command is told.
fn bridge_nf(on: &[&'static str], pass: bool) -> Finding {
    let names: Vec<&str> = on.iter().map(|path| path.rsplit('/').next().unwrap_or_default()).collect();
    let evidence =
        format!("{} on: frames between guests of one bridge go through the host's firewall", names.join(", "));
    let settings: Vec<String> = on.iter().map(|path| cure::sysctl(path, "0")).collect();
    let words = format!(
        "judge yourself: Docker, Kubernetes and libvirt's filters count on it, on all bridges of the host; where nobody does: {}",
        settings.join("; ")
    );
    if pass {
        return Finding::hint("bridge-nf-call", "br_netfilter", format!("{evidence}, which lets them through ({HOW})"));
    }
    Finding::warning("bridge-nf-call", "br_netfilter", evidence).by(words)
}

/// On what, and what is asked.
fn asked(what: &What) -> (String, String) {
    match what {
        What::Tunnel { own, out } => {
            (format!("UDP {}", own.port()), format!("VXLAN {}", if *out { "to" } else { "from" }))
        }
        What::Bridged { network, .. } => (network.clone(), "the frames between its guests".into()),
        What::Routed { network, vrf, out, .. } => (network.clone(), format!("what VRF {vrf} forwards to {out}")),
        What::Dhcp { network, v6, .. } => {
            let (name, port) = (if *v6 { "DHCPv6" } else { "DHCP" }, DHCP[usize::from(*v6)].0);
            (network.clone(), format!("its guests' {name} requests before they reach this host's UDP {port}"))
        }
    }
}

/// A few of them, or how many.
fn few(all: &[String], kind: &str) -> String {
    match all {
        many if many.len() > 4 => format!("{} {kind}, {} among them", many.len(), many[0]),
        few => few.join(", "),
    }
}

fn told(verdict: &Verdict) -> Finding {
    let (object, question) = asked(&verdict.what);
    let some = verdict.lost.len() < verdict.of;
    let whose = match &verdict.what {
        _ if !some => String::new(),
        What::Tunnel { .. } => ", and not that of others".into(),
        What::Bridged { .. } | What::Dhcp { .. } => format!(" at {}, and not at others", few(&verdict.lost, "ports")),
        What::Routed { .. } => format!(" for {}, and not for others", few(&verdict.lost, "guests")),
    };
    let more = match &verdict.what {
        What::Tunnel { .. } => {
            let whom = match &verdict.lost[..] {
                [first, ..] if !verdict.known => format!("other VTEPs (none is known yet: as if {first} were one)"),
                all => few(all, "VTEPs"),
            };
            format!(" {whom}{whose} ({HOW})")
        }
        What::Bridged { v6, .. } => {
            let setting = BRIDGE_NF[usize::from(*v6)].rsplit('/').next().unwrap_or_default();
            format!("{whose}: {setting} shows them to the firewall ({HOW}: TCP and UDP)")
        }
        What::Routed { .. } => format!("{whose} ({HOW}: TCP and UDP)"),
        What::Dhcp { .. } => format!("{whose} ({HOW})"),
    };
    let unsure = match verdict.why {
        Why::Vrf => "; the rules ask for what a copy does not have, where a device plays the VRF",
        Why::Queue => "; a rule leaves packets to a program, which may let them through",
        _ => "",
    };
    let certain = verdict.known && !matches!(verdict.why, Why::Some | Why::Vrf | Why::Queue);
    let severity = if certain { Severity::Problem } else { Severity::Warning };
    let finding = Finding::new(severity, "firewall", object, format!("drops {question}{more}{unsure}"));
    let zone = match &verdict.what {
        What::Dhcp { device, .. } => format!(
            "firewalld lets a service in by the zone, and that of {device} is others', too: give {device} one of its own that has the service"
        ),
        _ => String::new(),
    };
    let reason = match verdict.why {
        Why::Tried => "no change that was tried lets it through",
        Why::Hurried => "there was no time to try a change",
        Why::Some => "a rule for all guests would open the others, too",
        Why::Named => "a rule for all guests would open those that have rules of their own",
        Why::Zone => &zone,
        Why::Vrf => "nothing was tried",
        Why::Queue => "ask the program",
    };
    match (&verdict.mend, verdict.naming.as_deref()) {
        (Some(mend), _) if verdict.blank => finding.by(format!("with the other VTEPs' addresses for {BLANK}: {mend}")),
        (Some(mend), _) => finding.run(mend),
        (None, None) => {
            finding.by(format!("judge yourself: {reason}, and no time was left to look which rules name it"))
        }
        (None, Some([])) => finding.by(format!("judge yourself: no rule names it, and {reason}")),
        (None, Some(naming)) => {
            let shown = naming[..naming.len().min(RULES)].join(" | ");
            finding.by(format!("judge yourself: {reason}; these of {} rules name it: {shown}", naming.len()))
        }
    }
}
