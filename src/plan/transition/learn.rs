//! An address was heard of: whose is it, and what does its guest's record say then?

use super::{Change, Mode};
use crate::config::{Network, PortSecurity};
use crate::model::{Address, Guest, IfName, Mac};
use crate::plan::guard::is_granted;
use crate::plan::learn::{other_holder, unfit, with};
use crate::plan::record::{Endpoint, GuestRecord, Stage};
use crate::plan::seen::Neigh;
use crate::plan::whose::{Answer, Case, Claim, Holder, Verdict, judge};
use std::net::IpAddr;

/// What else is known of a claim ([`Case`]).
#[derive(Debug, Clone)]
pub struct Claimed {
    /// How sure it is.
    pub claim: Claim,
    /// Had it the address before?
    pub had_it: bool,
    /// Who else of this host has it, by the records.
    pub here: Option<(Holder, Mac, Guest)>,
    /// Who was asked whether it has it, and whether it answered.
    pub asked: Option<(Mac, Answer)>,
    /// The guest's addresses that were heard of late, the latest last.
    pub heard: Vec<IpAddr>,
}

/// The segment that it was heard on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The network.
    pub network: Network,
    /// The bridge has this very address.
    pub is_gateways: bool,
    /// The bridge's entry for it.
    pub neigh: Option<Neigh>,
}

/// What comes of it.
#[derive(Debug, Clone)]
pub enum Heard<'a> {
    /// It was known, or its guest is not here.
    Known,
    /// It was known; who told it, or for how long, was not.
    Noted(GuestRecord),
    /// It is the guest's.
    Its {
        /// What is to become of the guest.
        change: Change<'a>,
        /// Who had it.
        taken: Option<(Holder, Mac)>,
        /// The same in words, empty where nobody did.
        whose: String,
    },
    /// It is the guest's with this MAC, if that one answers for it.
    Ask {
        /// Where that one is.
        holder: Holder,
        /// Whom to ask.
        mac: Mac,
    },
    /// It is another's, for this reason.
    Refused(String),
    /// It can be no guest's of this network, for this reason.
    Unfit(String),
}

impl Claimed {
    /// Nobody of this host is known to have it, and nobody was asked.
    pub fn new(claim: Claim) -> Claimed {
        Claimed { claim, had_it: false, here: None, asked: None, heard: Vec::new() }
    }
}

/// The guest behind this port has this address. `ground` looks at the segment of that bridge; it is
/// asked only where the address is new.
pub fn learns<'a, E>(
    before: &'a GuestRecord,
    device: &IfName,
    address: Address,
    claimed: &Claimed,
    ground: impl FnOnce(&IfName) -> Result<Option<Ground>, E>,
) -> Result<Heard<'a>, E> {
    let mut record = before.clone();
    let here = |e: &&mut Endpoint| e.device == *device && e.stage == Stage::Registered;
    let Some(endpoint) = record.endpoints.iter_mut().find(here) else { return Ok(Heard::Known) };
    let Some(mac) = endpoint.mac else { return Ok(Heard::Known) };
    let Some(ips) = with(&endpoint.ips, address, mac, &claimed.heard) else { return Ok(Heard::Known) };
    let new = !endpoint.ips.iter().any(|a| a.ip == address.ip);
    endpoint.ips = ips;
    if !new {
        return Ok(Heard::Noted(record));
    }
    let Some(ground) = ground(&endpoint.bridge)? else { return Ok(Heard::Known) };
    let is = |why: &dyn std::fmt::Display| format!("{} is {why}", address.ip);
    if let Some(why) = unfit(&ground.network, address.ip) {
        return Ok(Heard::Unfit(is(&why)));
    }
    if ground.network.security() == PortSecurity::MacIp && !is_granted(&address, mac) {
        let why =
            "not given to it, which port_security = \"mac-ip\" asks for: declare it, or let a DHCP server give it";
        return Ok(Heard::Unfit(is(&why)));
    }
    if ground.is_gateways {
        return Ok(Heard::Unfit(is(&"the gateway's")));
    }
    let by_entry = other_holder(ground.neigh.as_ref(), mac).zip(ground.neigh.as_ref().and_then(|n| n.mac));
    let taken = claimed.here.as_ref().map(|(holder, mac, _)| (*holder, *mac)).or(by_entry);
    let holder = taken.map_or(Holder::Nobody, |(holder, _)| holder);
    // By now it may be a third one's, which nobody has asked.
    let asked = claimed.asked.filter(|(of, _)| taken.is_some_and(|(_, mac)| mac == *of));
    let answer = asked.map_or(Answer::NotAsked, |(_, answer)| answer);
    let whose = taken.map_or(String::new(), |(holder, of)| match holder {
        Holder::Nobody => String::new(),
        Holder::Itself => "its own on another NIC".to_owned(),
        Holder::Here(_) => match &claimed.here {
            Some((_, _, guest)) => format!("{guest}'s"),
            None => format!("{of}'s on this host"),
        },
        Holder::Vtep => format!("{of}'s behind another VTEP"),
        Holder::Operator => format!("{of}'s by an entry that is not evpn-hook's"),
    });
    let Claimed { claim, had_it, .. } = *claimed;
    match (judge(&Case { source: address.source, claim, had_it, holder, answer }), taken) {
        (Verdict::Its, _) => {
            let change = Change::new(Some(before), record, Mode::Mend, |e| e.device == *device);
            Ok(Heard::Its { change, taken, whose })
        }
        (Verdict::Ask, Some((holder, mac))) => Ok(Heard::Ask { holder, mac }),
        _ => Ok(Heard::Refused(is(&whose))),
    }
}
