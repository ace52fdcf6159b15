//! A chain for people: a line a link, the broken one marked, with what mends it below.

use super::{Chain, Explanation, State};
use std::fmt::Write;

/// All chains, one after the other.
pub fn text(explanation: &Explanation) -> String {
    explanation.chains.iter().map(chain).collect::<Vec<_>>().join("\n")
}

fn chain(chain: &Chain) -> String {
    let mut out = String::new();
    let guest = chain.guest.as_ref().map_or("a guest of another host".to_owned(), ToString::to_string);
    let mac = chain.mac.map_or("MAC unknown".to_owned(), |m| m.to_string());
    let ips: String = chain.ips.iter().map(|ip| format!(" {ip}")).collect();
    let place = match (&chain.device, chain.vtep) {
        (Some(device), _) => format!(", {device}"),
        (None, Some(vtep)) => format!(", VTEP {vtep}"),
        (None, None) => String::new(),
    };
    let _ = writeln!(out, "{guest} on network {}: {mac}{ips}{place}", chain.network);
    let width = chain.links.iter().map(|l| l.object.chars().count()).max().unwrap_or(0).min(44);
    for link in &chain.links {
        let state = match link.state {
            State::Ok => "ok",
            State::Broken => "BROKEN",
            State::Unknown => "?",
        };
        let _ = writeln!(out, "  {state:<6}  {:<15}  {:<width$}  {}", link.link, link.object, link.evidence);
        if link.state == State::Broken {
            for (word, what) in [("mend", &link.mend), ("note", &link.hint)] {
                if let Some(what) = what {
                    let _ = writeln!(out, "          {word}: {what}");
                }
            }
        }
    }
    let unknown = chain.links.iter().filter(|l| l.state == State::Unknown).count();
    match chain.broken.map(|at| &chain.links[at]) {
        None if unknown == 0 => out.push_str("every link holds\n"),
        None => {
            let _ = writeln!(out, "no broken link was found, and {unknown} could not be told: ask again");
        }
        Some(link) => {
            let rest = match unknown {
                0 => String::new(),
                n => format!("; {n} behind it cannot be told before it is mended"),
            };
            let _ = writeln!(out, "first broken link: {} {}{rest}", link.link, link.object);
        }
    }
    out
}
