//! Whose is an address that one guest has and another claims? Decided here and nowhere else, from who says so of each, and from whether the one who has
//! it still answers for it.
//!
//! A server's word counts more than a guest's, and what is declared more than either. Between two that say the same of themselves, and where only
//! another host knows what told it of its guest's address, whoever has it keeps it for as long as it answers: a VIP that fails over is not answered for
//! any more (keepalived takes it off its device first), a neighbour's address is.

use crate::model::Source;
use std::fmt;

/// How sure a guest's word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It uses the address, or a server gave it: whoever had it before has it no more.
    Uses,
    /// It asks whether it is free (RFC 5227 §2.1.1, RFC 4862 §5.4): its own only where nobody else has it.
    Asks,
}

/// Who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody else.
    Nobody,
    /// The same guest, on another of its NICs.
    Itself,
    /// Another guest of this host; this told of it.
    Here(Source),
    /// A guest behind another VTEP. What told of it only its own host knows.
    Vtep,
    /// Nobody that we know: the operator has made an entry for it.
    Operator,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Holder::Nobody => "nobody",
            Holder::Itself => "itself",
            Holder::Here(_) => "a guest of this host",
            Holder::Vtep => "a guest behind another VTEP",
            Holder::Operator => "an entry of the operator's",
        })
    }
}

/// Does its holder answer for it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nobody has asked it.
    NotAsked,
    /// It does.
    Yes,
    /// It was asked some times, and did not.
    No,
}

/// One who claims an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What tells of the claim.
    pub source: Source,
    /// How sure that is.
    pub claim: Claim,
    /// Had it the address before its holder, who took it while it was silent?
    pub had_it: bool,
    /// Who has it.
    pub holder: Holder,
    /// Whether that one answers.
    pub answer: Answer,
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Of whoever claims it.
    Its,
    /// Of its holder.
    Stays,
    /// Of its holder if that one answers: ask it.
    Ask,
}

/// Who tells most surely, least first.
fn rank(source: Source) -> u8 {
    match source {
        Source::Manual | Source::Metadata | Source::Nwfilter | Source::Container | Source::DhcpHost => 2,
        Source::Lease => 1,
        // What another host knew of a guest that came from there may have been no more than the guest's word.
        Source::Neighbour | Source::Fabric => 0,
    }
}

/// Whose is it?
pub fn judge(case: &Case) -> Verdict {
    let by_answer = || match case.answer {
        _ if case.had_it => Verdict::Its,
        Answer::NotAsked => Verdict::Ask,
        Answer::Yes => Verdict::Stays,
        Answer::No => Verdict::Its,
    };
    match case.holder {
        Holder::Nobody => Verdict::Its,
        Holder::Operator => Verdict::Stays,
        _ if case.claim == Claim::Asks => Verdict::Stays,
        // With Linux's own settings a guest answers on each NIC for the addresses of all (arp_ignore 0, ip-sysctl.rst).
        Holder::Itself if case.source == Source::Lease => Verdict::Its,
        Holder::Itself => Verdict::Stays,
        Holder::Here(source) => match rank(case.source).cmp(&rank(source)) {
            std::cmp::Ordering::Less => Verdict::Stays,
            std::cmp::Ordering::Greater => Verdict::Its,
            std::cmp::Ordering::Equal => by_answer(),
        },
        Holder::Vtep => by_answer(),
    }
}

#[cfg(test)]
#[path = "whose_test.rs"]
mod test;
