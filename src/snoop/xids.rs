//! What a port has asked DHCP servers for of late: an answer counts only if its own guest asked, once, and soon after. Requests are broadcast, so whoever is on
//! the segment knows the transaction.

use crate::model::Mac;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// A guest asks one thing at a time; several behind one port (macvlan, nested guests) may ask at once.
const KEPT: usize = 8;
/// A client sends its request again after 4, 8, 16, 32 and 64 s (RFC 2131 §4.1).
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// A transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xid {
    /// RFC 2131 §2.
    V4(u32),
    /// RFC 8415 §8, 24 bits.
    V6(u32),
}

impl Xid {
    /// As it is in the message.
    pub fn number(self) -> u32 {
        match self {
            Xid::V4(number) | Xid::V6(number) => number,
        }
    }
}

/// What was asked in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// This address alone (DHCPREQUEST).
    For(Ipv4Addr),
    /// Any, if it is given at once (rapid commit, RFC 4039 and RFC 8415 §18.2.1).
    AtOnce,
    /// Whatever the server gives (DHCPv6: its answer may hold others than were asked for, §18.3).
    Any,
}

/// The last few.
#[derive(Debug, Default)]
pub struct Xids {
    now: Option<Instant>,
    kept: VecDeque<(Xid, Mac, Asked, Option<Instant>)>,
}

impl Xids {
    /// The same at this time.
    pub fn at(&mut self, now: Instant) -> &mut Xids {
        self.now = Some(now);
        let old = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) > ANSWERED_WITHIN);
        self.kept.retain(|(_, _, _, at)| !old(*at));
        self
    }

    /// This MAC asks; the same transaction asked again is replaced.
    pub fn ask(&mut self, xid: Xid, mac: Mac, asked: Asked) {
        self.answered(xid, mac);
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((xid, mac, asked, self.now));
    }

    /// Those that wait for an answer.
    pub fn open(&self) -> Vec<Xid> {
        self.kept.iter().map(|(xid, ..)| *xid).collect()
    }

    /// What this MAC asked in this transaction.
    pub fn asked(&self, xid: Xid, mac: Mac) -> Option<Asked> {
        self.kept.iter().find(|(known, who, ..)| (*known, *who) == (xid, mac)).map(|(_, _, asked, _)| *asked)
    }

    /// It was told: whoever answers after that is not heard.
    pub fn answered(&mut self, xid: Xid, mac: Mac) {
        self.kept.retain(|(known, who, ..)| (*known, *who) != (xid, mac));
    }
}
