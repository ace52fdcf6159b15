//! Is an address or MAC that a guest is to have another's already? What the kernel holds of the fabric tells it; FRR is not asked.
//!
//! FRR gives an address or MAC to whoever took it last: zebra overwrites the first one's entries and withdraws its routes (seen on 8.4.4). So who
//! starts second is the only one who can say no.

use super::guest::{Seen, Wanted};
use super::seen::Neigh;
use crate::model::Mac;
use std::fmt;
use std::net::IpAddr;

/// What another guest has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// The address; none where it is the MAC itself.
    pub ip: Option<IpAddr>,
    /// The other's MAC.
    pub mac: Mac,
    /// Where the other is.
    pub holder: Holder,
}

/// Where the other guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Behind another VTEP, where it is known which.
    Vtep(Option<IpAddr>),
    /// On this host.
    Here(String),
}

/// An entry that may be another guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// The address; none where it is the MAC itself.
    pub ip: Option<IpAddr>,
    /// The MAC that the entry has.
    pub mac: Mac,
    /// What speaks for it.
    pub by: By,
}

/// What speaks for another's claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A neighbour that the speaker put there: it is behind another VTEP.
    Neighbour,
    /// An FDB entry with NTF_EXT_LEARNED: the speaker put it there, if it is behind the tunnel. The flag stays where somebody here took the MAC.
    Fdb,
    /// An entry of this host.
    Host,
}

/// What in the way of these entries is seen. What the kernel learned by itself is no claim: it may be minutes old. Nor is an address that the guest
/// was heard to have taken over: that moves by right (`learn`).
pub fn suspects(want: &Wanted, seen: &Seen) -> Vec<Suspect> {
    let Some(own) = want.mac else { return Vec::new() };
    let port = seen.device.as_ref().map(|d| d.index);
    let neighs = || seen.neighs.iter().filter(|n| want.ips.iter().any(|a| a.ip == n.ip));
    // A container's first frames come before its hook, and the bridge then has the MAC on its port already: hence the neighbours.
    let twin = neighs().any(|n| n.ext_learned && n.mac == Some(own)).then_some(By::Neighbour);
    let fdb = seen.fdb.iter().filter(|f| Some(f.port) != port && (f.ext_learned || f.is_static));
    let by = twin.or(fdb.map(|f| if f.ext_learned { By::Fdb } else { By::Host }).next());
    let learned = |n: &Neigh| want.ips.iter().any(|a| a.ip == n.ip && a.source.is_learned());
    let ips = neighs().filter(|n| !learned(n)).filter_map(|n| {
        let by = match n.ext_learned {
            true => By::Neighbour,
            false if n.permanent || n.ours => By::Host,
            false => return None,
        };
        Some(Suspect { ip: Some(n.ip), mac: n.mac.filter(|mac| *mac != own)?, by })
    });
    by.map(|by| Suspect { ip: None, mac: own, by }).into_iter().chain(ips).collect()
}

/// Is it another guest's? `tunnel`: the FDB has its MAC behind the VXLAN device; `vtep`: to which end that sends it; `owner`: the guest of this
/// host that is registered with it. An entry on this host that is nobody's is a leftover.
pub fn judge(suspect: Suspect, tunnel: bool, vtep: Option<IpAddr>, owner: Option<String>) -> Option<Duplicate> {
    let Suspect { ip, mac, by } = suspect;
    let holder = match by {
        By::Neighbour => Holder::Vtep(vtep),
        By::Fdb if tunnel => Holder::Vtep(vtep),
        By::Fdb | By::Host => Holder::Here(owner?),
    };
    Some(Duplicate { ip, mac, holder })
}

impl Duplicate {
    /// May it go by itself in a moment? Another host may have stopped its guest just now, or be dead.
    pub fn may_go(&self) -> bool {
        matches!(self.holder, Holder::Vtep(_))
    }

    /// The way out.
    pub fn mend(&self) -> &'static str {
        match (&self.ip, &self.holder) {
            (Some(_), _) => "give one of the two another address",
            (None, Holder::Vtep(_)) => {
                "give one of the two another MAC, unless it is the same guest and has ended there"
            }
            (None, Holder::Here(_)) => "give one of the two another MAC",
        }
    }
}

impl fmt::Display for Duplicate {
    /// `10.1.0.60 is also 52:54:00:03:82:d8's at VTEP 10.0.0.1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.ip, &self.holder) {
            (Some(ip), Holder::Here(guest)) => return write!(f, "{ip} is also {guest}'s ({}) on this host", self.mac),
            (None, Holder::Here(guest)) => return write!(f, "{} is also {guest}'s on this host", self.mac),
            (Some(ip), _) => write!(f, "{ip} is also {}'s at ", self.mac)?,
            (None, _) => write!(f, "{} is also at ", self.mac)?,
        }
        match &self.holder {
            Holder::Vtep(Some(vtep)) => write!(f, "VTEP {vtep}"),
            _ => f.write_str("another VTEP"),
        }
    }
}

#[cfg(test)]
#[path = "duplicate_test.rs"]
mod tests;
