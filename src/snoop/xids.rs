//! What a port has asked DHCP servers for of late: an answer counts only if its own guest asked.

use crate::model::Mac;
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// A guest asks one thing at a time; several behind one port (macvlan, nested guests) may ask at once.
const KEPT: usize = 8;

/// A transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xid {
    /// RFC 2131 §2.
    V4(u32),
    /// RFC 8415 §8, 24 bits.
    V6(u32),
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
pub struct Xids(VecDeque<(Xid, Mac, Asked)>);

impl Xids {
    /// This MAC asks; the same transaction asked again is replaced.
    pub fn ask(&mut self, xid: Xid, mac: Mac, asked: Asked) {
        self.0.retain(|(known, who, _)| (*known, *who) != (xid, mac));
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((xid, mac, asked));
    }

    /// What this MAC asked in this transaction.
    pub fn asked(&self, xid: Xid, mac: Mac) -> Option<Asked> {
        self.0.iter().find(|(known, who, _)| (*known, *who) == (xid, mac)).map(|(_, _, asked)| *asked)
    }
}
