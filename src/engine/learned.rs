//! Addresses that became known after the start: registered as soon as anybody tells of them. That one is another's by now is seen when its guest is
//! looked at (`carry_out`).

use super::guest::{How, boot_seconds, by_dhcp_host, is_incoming};
use super::{Engine, EngineError};
use crate::config::{Network, PortSecurity};
use crate::journal::Message;
use crate::model::{Address, Guest, IfName, Mac, Source};
use crate::plan::guard::is_granted;
use crate::plan::learn::{other_holder, unfit, with};
use crate::plan::whose::{Answer, Case, Claim, Holder, Verdict, judge};
use crate::register::{Endpoint, GuestRecord, Slowed, Stage};
use std::net::IpAddr;

/// What came of an address that was heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// It was known, or its guest is not here.
    Known,
    /// It is registered now. Was it another's before?
    Registered {
        /// Who had it.
        taken: Option<(Holder, Mac)>,
    },
    /// It is the guest's with this MAC, if that one answers for it.
    Ask {
        /// Where it is.
        holder: Holder,
        /// Whom to ask.
        mac: Mac,
    },
    /// It is another's, for this reason.
    Refused(String),
    /// It can be no guest's of this network, for this reason.
    Unfit(String),
}

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

impl Claimed {
    /// Nobody of this host is known to have it, and nobody was asked.
    pub fn new(claim: Claim) -> Claimed {
        Claimed { claim, had_it: false, here: None, asked: None, heard: Vec::new() }
    }
}

impl Engine {
    /// The guest behind this port has this address: registers it, if it is its ([`judge`]).
    pub fn learn(
        &mut self,
        guest: &Guest,
        device: &IfName,
        address: Address,
        claimed: Claimed,
    ) -> Result<Learned, EngineError> {
        self.journal.object.clone_from(&guest.name);
        let _lock = self.register.lock_guest(guest)?;
        let Some(before) = self.register.guest(guest)? else {
            // The lock was made for a record that is not there.
            self.register.remove_guest(guest)?;
            return Ok(Learned::Known);
        };
        let mut record = before.clone();
        let here = |e: &&mut Endpoint| e.device == *device && e.stage == Stage::Registered;
        let Some(endpoint) = record.endpoints.iter_mut().find(here) else { return Ok(Learned::Known) };
        let Some(mac) = endpoint.mac else { return Ok(Learned::Known) };
        let Some(ips) = with(&endpoint.ips, address, mac, &claimed.heard) else { return Ok(Learned::Known) };
        let new = !endpoint.ips.iter().any(|a| a.ip == address.ip);
        endpoint.ips = ips;
        if !new {
            // Only who told it, or for how long.
            self.register.put_guest(&record)?;
            return Ok(Learned::Known);
        }
        let bridge = endpoint.bridge.clone();
        let Some(network) = self.register.network_of_bridge(&bridge)? else { return Ok(Learned::Known) };
        if let Some(why) = unfit(&network.network, address.ip) {
            return Ok(Learned::Unfit(format!("{} is {why}", address.ip)));
        }
        if network.network.security() == PortSecurity::MacIp && !is_granted(&address, mac) {
            let why =
                "not given to it, which port_security = \"mac-ip\" asks for: declare it, or let a DHCP server give it";
            return Ok(Learned::Unfit(format!("{} is {why}", address.ip)));
        }
        let kernel = self.kernel()?;
        let Some(link) = kernel.link(&bridge)? else { return Ok(Learned::Known) };
        if kernel.addresses(Some(link.index))?.iter().any(|own| own.net.addr() == address.ip) {
            return Ok(Learned::Unfit(format!("{} is the gateway's", address.ip)));
        }
        let neigh = kernel.neigh(link.index, address.ip)?;
        let by_entry = other_holder(neigh.as_ref(), mac).zip(neigh.and_then(|n| n.mac));
        let Claimed { claim, had_it, here, asked, .. } = claimed;
        let taken = here.as_ref().map(|(holder, mac, _)| (*holder, *mac)).or(by_entry);
        let holder = taken.map_or(Holder::Nobody, |(holder, _)| holder);
        // By now it may be a third one's, which nobody has asked.
        let answer = asked.filter(|(of, _)| taken.is_some_and(|(_, mac)| mac == *of)).map_or(Answer::NotAsked, |a| a.1);
        let whose = taken.map_or(String::new(), |(holder, of)| match holder {
            Holder::Nobody => String::new(),
            Holder::Itself => "its own on another NIC".to_owned(),
            Holder::Here(_) => here.map_or(format!("{of}'s on this host"), |(_, _, guest)| format!("{guest}'s")),
            Holder::Vtep => format!("{of}'s behind another VTEP"),
            Holder::Operator => format!("{of}'s by an entry that is not evpn-hook's"),
        });
        match (judge(&Case { source: address.source, claim, had_it, holder, answer }), taken) {
            (Verdict::Its, _) => {}
            (Verdict::Ask, Some((holder, mac))) => return Ok(Learned::Ask { holder, mac }),
            _ => return Ok(Learned::Refused(format!("{} is {whose}", address.ip))),
        }
        let record = self.change(Some(before), record, How::Mend, |e| e.device == *device)?;
        let from = taken.map_or(String::new(), |_| format!(", before {whose}"));
        // From whom it was taken is always told.
        self.journal.hushed &= taken.is_none();
        let detail = format!(": {} ({}) on {device}{from}", address.ip, address.source);
        self.journal.say(&Message::Done { what: "learned", object: &record.guest.name, detail: &detail });
        Ok(Learned::Registered { taken })
    }

    /// The guest behind this port has shown to route IPv6 by this address, which is its own: others are told so. False where they were already.
    pub fn routes(&mut self, guest: &Guest, device: &IfName, ip: IpAddr) -> Result<bool, EngineError> {
        self.journal.object.clone_from(&guest.name);
        let _lock = self.register.lock_guest(guest)?;
        let Some(before) = self.register.guest(guest)? else {
            self.register.remove_guest(guest)?;
            return Ok(false);
        };
        let mut record = before.clone();
        let here = |e: &&mut Endpoint| e.device == *device && e.stage == Stage::Registered;
        let mut its = record.endpoints.iter_mut().filter(here).flat_map(|e| &mut e.ips);
        let Some(address) = its.find(|a| a.ip == ip && !a.router) else { return Ok(false) };
        address.router = true;
        let record = self.change(Some(before), record, How::Mend, |e| e.device == *device)?;
        let detail = format!(": {ip} on {device}");
        self.journal.say(&Message::Done { what: "is an IPv6 router", object: &record.guest.name, detail: &detail });
        Ok(true)
    }

    /// The guest behind this port may not take this address from others until then (seconds since boot): `status` tells it.
    pub fn slow(&mut self, guest: &Guest, device: &IfName, ip: IpAddr, until: u64) -> Result<(), EngineError> {
        let _lock = self.register.lock_guest(guest)?;
        let Some(mut record) = self.register.guest(guest)? else {
            return Ok(self.register.remove_guest(guest)?);
        };
        let now = boot_seconds();
        for endpoint in record.endpoints.iter_mut().filter(|e| e.device == *device) {
            endpoint.slowed.retain(|slowed| slowed.ip != ip && slowed.until > now);
            endpoint.slowed.push(Slowed { ip, until });
        }
        Ok(self.register.put_guest(&record)?)
    }

    /// Withdraws those learned addresses of a guest that match: released or expired. Returns how many.
    pub fn forget(
        &mut self,
        guest: &Guest,
        why: &str,
        gone: impl Fn(&Endpoint, &Address) -> bool,
    ) -> Result<usize, EngineError> {
        let matches = |e: &Endpoint| e.ips.iter().any(|a| a.source.is_learned() && gone(e, a));
        if !self.register.guest(guest)?.is_some_and(|r| r.endpoints.iter().any(matches)) {
            return Ok(0);
        }
        self.journal.object.clone_from(&guest.name);
        let _lock = self.register.lock_guest(guest)?;
        let Some(before) = self.register.guest(guest)? else {
            self.register.remove_guest(guest)?;
            return Ok(0);
        };
        let mut record = before.clone();
        let mut left = Vec::new();
        for endpoint in &mut record.endpoints {
            let goes = |a: &Address| a.source.is_learned() && gone(endpoint, a);
            let (go, stay): (Vec<Address>, Vec<Address>) = endpoint.ips.iter().partition(|a| goes(a));
            left.extend(go.iter().map(|a| a.ip.to_string()));
            endpoint.ips = stay;
        }
        if left.is_empty() {
            return Ok(0);
        }
        // No endpoint is looked at: what is not the guest's any more goes, nothing else.
        let record = self.change(Some(before), record, How::Mend, |_| false)?;
        let detail = format!(": {}", left.join(" "));
        self.journal.say(&Message::Done { what: why, object: &record.guest.name, detail: &detail });
        Ok(left.len())
    }

    /// Nobody listened for a while, and a lease may have been renewed meanwhile: when these end is not known any more. Such an address stays until
    /// it is released, or another shows to have it.
    pub fn forget_all_ends(&mut self) -> Result<(), EngineError> {
        let records: Vec<GuestRecord> = self.register.guests().into_iter().flatten().collect();
        records.iter().try_for_each(|record| self.forget_ends(&record.guest, None))
    }

    /// The same for one guest, and where one is named for one of its devices.
    pub fn forget_ends(&mut self, guest: &Guest, device: Option<&IfName>) -> Result<(), EngineError> {
        let is_meant = |e: &Endpoint| device.is_none_or(|device| e.device == *device);
        let ends = |e: &Endpoint| is_meant(e) && e.ips.iter().any(|a| a.until.is_some());
        if !self.register.guest(guest)?.is_some_and(|record| record.endpoints.iter().any(ends)) {
            return Ok(());
        }
        let _lock = self.register.lock_guest(guest)?;
        let Some(mut record) = self.register.guest(guest)? else {
            return Ok(self.register.remove_guest(guest)?);
        };
        let endpoints = record.endpoints.iter_mut().filter(|e| is_meant(e));
        endpoints.flat_map(|e| &mut e.ips).for_each(|a| a.until = None);
        Ok(self.register.put_guest(&record)?)
    }

    /// Its server says no more that an address is this guest's, which still answers for it: from now on it has it by its own word. False where that
    /// does not count.
    pub fn unlease(&mut self, guest: &Guest, device: &IfName, ip: IpAddr) -> Result<bool, EngineError> {
        let _lock = self.register.lock_guest(guest)?;
        let Some(mut record) = self.register.guest(guest)? else {
            self.register.remove_guest(guest)?;
            return Ok(true);
        };
        for endpoint in record.endpoints.iter_mut().filter(|e| e.device == *device) {
            if endpoint.port_security == PortSecurity::MacIp {
                return Ok(false);
            }
            for address in endpoint.ips.iter_mut().filter(|a| a.ip == ip && a.source == Source::Lease) {
                *address = Address { source: Source::Neighbour, until: None, ..*address };
            }
        }
        self.register.put_guest(&record)?;
        Ok(true)
    }

    /// What the fabric knows of a guest that comes from another host and has told this one nothing: the addresses that its MAC has there.
    pub(super) fn adopt(&mut self, endpoint: &mut Endpoint) -> Result<(), EngineError> {
        let Some(mac) = endpoint.mac else { return Ok(()) };
        let Some(network) = self.register.network_of_bridge(&endpoint.bridge)? else { return Ok(()) };
        let kernel = self.kernel()?;
        let Some(bridge) = kernel.link(&endpoint.bridge)? else { return Ok(()) };
        let mut found = kernel.neighs(bridge.index)?;
        found.sort_by_key(|n| n.ip);
        let its = |n: &&crate::plan::seen::Neigh| n.mac == Some(mac) && n.ext_learned;
        for neigh in found.iter().filter(its).filter(|n| unfit(&network.network, n.ip).is_none()) {
            let address = Address { router: neigh.router, ..Address::new(neigh.ip, Source::Fabric) };
            if let Some(ips) = with(&endpoint.ips, address, mac, &[]) {
                endpoint.ips = ips;
            }
        }
        Ok(())
    }

    /// The network's `<dhcp><host>` list changed under running guests (`virsh net-update`).
    pub(super) fn hosts_changed(&mut self, network: &Network) {
        for record in self.register.guests().into_iter().flatten() {
            if let Err(error) = self.follow_hosts(&record.guest, network) {
                self.journal.say(&Message::Warning(&error));
            }
        }
    }

    fn follow_hosts(&mut self, guest: &Guest, network: &Network) -> Result<(), EngineError> {
        let followed = |record: &GuestRecord| {
            let mut record = record.clone();
            for endpoint in record.endpoints.iter_mut().filter(|e| e.bridge == network.bridge) {
                let Some(mac) = endpoint.mac else { continue };
                if endpoint.declared().all(|a| a.source == Source::DhcpHost) {
                    let mut ips = by_dhcp_host(network, mac);
                    let learned = endpoint.ips.iter().filter(|a| a.source.is_learned());
                    let learned: Vec<Address> =
                        learned.filter(|a| !ips.iter().any(|b| b.ip == a.ip)).copied().collect();
                    ips.extend(learned);
                    endpoint.ips = ips;
                }
            }
            record
        };
        if self.register.guest(guest)?.is_none_or(|record| followed(&record) == record) {
            return Ok(());
        }
        let _lock = self.register.lock_guest(guest)?;
        let Some(before) = self.register.guest(guest)? else {
            return Ok(self.register.remove_guest(guest)?);
        };
        let record = followed(&before);
        let how = if is_incoming(&before) { How::Incoming } else { How::Mend };
        let changed: Vec<IfName> = before
            .endpoints
            .iter()
            .zip(&record.endpoints)
            .filter(|(old, new)| old != new)
            .map(|(old, _)| old.device.clone())
            .collect();
        self.journal.object.clone_from(&guest.name);
        let record = self.change(Some(before), record, how, |e| changed.contains(&e.device))?;
        self.tell("follows its network's <dhcp><host>", &record);
        Ok(())
    }
}
