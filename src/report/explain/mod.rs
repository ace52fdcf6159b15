//! `evpn-hook explain`: why a guest can, or cannot, be reached. One causal chain from the guest to the BGP peers, or for a guest of another
//! host from the peers to the kernel's entries. The first link that does not hold is broken, with what mends it; what depends on it is unknown.
//!
//! - `find`: which guest is meant
//! - `entries`: which of the kernel's entries are read for it
//! - `gather`: asks kernel, register and speaker
//! - `segment`, `here`, `away`: what was gathered → links; pure
//! - `text`: for people
//!
//! It has no opinion of its own on what should be: a link of the kernel's holds where the engine would plan no step there.

mod away;
mod entries;
mod facts;
mod find;
mod gather;
mod here;
mod segment;
mod text;

pub(super) use entries::MANY;
pub use gather::explain;
pub use text::text;

use crate::checks::{Finding, Severity, Verdict, cure};
use crate::model::{Guest, IfName, Mac, NetName, one_line};
use serde::Serialize;
use std::net::IpAddr;

/// The whole answer; its JSON is stable: fields are added, never renamed.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// What was asked for.
    pub asked: String,
    /// Every link of every chain holds. Not so where one is broken, nor where one is not told.
    pub healthy: bool,
    /// One for each NIC that is meant.
    pub chains: Vec<Chain>,
}

/// One NIC of a guest, or one guest of another host.
#[derive(Debug, Serialize)]
pub struct Chain {
    /// `here`, or `away`: behind another VTEP.
    pub place: &'static str,
    /// Whose it is, where that is known: guests of other hosts have no name here.
    pub guest: Option<Guest>,
    /// The network.
    pub network: NetName,
    /// The port.
    pub device: Option<IfName>,
    /// The guest's MAC.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The VTEP that has it.
    pub vtep: Option<IpAddr>,
    /// The number of the first broken link, from 0; null where none is.
    pub broken: Option<usize>,
    /// The links in order of cause and effect.
    pub links: Vec<Link>,
}

impl Chain {
    fn holds(&self) -> bool {
        self.links.iter().all(|link| link.state == State::Ok)
    }
}

/// One thing that has to be so for the next to be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What kind: `guest`, `device`, `port`, `bridge`, `vxlan`, `vtep`, `vrf`, `l3vni`, `fdb`, `neighbour`, `frr`, `zebra-vni`, `zebra-mac`,
    /// `zebra-neighbour`, `bgp-route`, `peer`, `import`, `vrf-route`, `underlay`.
    pub link: &'static str,
    /// Which one.
    pub object: String,
    /// Does it hold?
    pub state: State,
    /// What was looked at, and what it said.
    pub evidence: String,
    /// The command that mends it, where one does.
    pub mend: Option<String>,
    /// What else there is to do or to know.
    pub hint: Option<String>,
}

/// Does a link hold?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Ok,
    /// It does not, though all before it do.
    Broken,
    /// It does not, or does not say, and an earlier one is broken: mend that first. Or nobody told.
    Unknown,
}

/// What only one guest's chain shows.
impl Verdict {
    fn broken(evidence: impl Into<String>, command: Option<String>) -> Verdict {
        Finding::of_link(evidence).cured(command).into()
    }

    fn advice(evidence: impl Into<String>, words: impl Into<String>) -> Verdict {
        Finding::of_link(evidence).by(words).into()
    }

    /// Who was asked did not tell.
    fn untold(evidence: impl Into<String>) -> Verdict {
        Finding { severity: Severity::NotChecked, ..Finding::of_link(evidence) }.into()
    }
}

/// Whatever the kernel or FRR lacks of what evpn-hook put there.
fn sync() -> Option<String> {
    Some(cure::SYNC.to_owned())
}

/// Links as they are found: only the first that does not hold is broken.
#[derive(Default)]
struct Links {
    links: Vec<Link>,
    broken: Option<usize>,
}

impl Links {
    fn add(&mut self, link: &'static str, object: impl ToString, verdict: impl Into<Verdict>) {
        let object = object.to_string();
        let (state, evidence, mend, hint) = match verdict.into() {
            Verdict::Holds(evidence) => (State::Ok, evidence, None, None),
            Verdict::Fails(found) if self.broken.is_some() || found.severity == Severity::NotChecked => {
                (State::Unknown, found.evidence, None, None)
            }
            Verdict::Fails(Finding { evidence, mend, runnable, note, .. }) => {
                self.broken = Some(self.links.len());
                let (mend, hint) = if runnable { (mend, note) } else { (String::new(), mend) };
                (State::Broken, evidence, Some(mend).filter(|m| !m.is_empty()), Some(hint).filter(|h| !h.is_empty()))
            }
        };
        // Kernel and FRR hand through names that others chose.
        let (object, evidence) = (one_line(&object), one_line(&evidence));
        self.links.push(Link { link, object, state, evidence, mend, hint });
    }
}

#[cfg(test)]
mod fixture;
