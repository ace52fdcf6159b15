//! Addresses that became known after the start: registered as soon as anybody tells of them, given up as soon as they are another's.

use super::guest::{How, by_dhcp_host, is_incoming};
use super::{Engine, EngineError};
use crate::config::Network;
use crate::journal::Message;
use crate::model::{Address, Guest, IfName, Mac, Source};
use crate::plan::learn::{Claim, other_holder, unfit, with};
use crate::register::{Endpoint, GuestRecord, Stage};
use std::net::IpAddr;

/// What came of an address that was heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// It was known, or its guest is not here.
    Known,
    /// It is registered now. Was it another's before?
    Registered {
        /// Another guest of this host, or of another VTEP, had it.
        taken: bool,
    },
    /// It is not this guest's, for this reason.
    Refused(String),
}

impl Engine {
    /// The guest behind this port has this address: registers it, and takes it from who had it before where that one only learned it, too.
    pub fn learn(
        &mut self,
        guest: &Guest,
        device: &IfName,
        address: Address,
        claim: Claim,
    ) -> Result<Learned, EngineError> {
        self.journal.object.clone_from(&guest.name);
        let lock = self.register.lock_guest(guest)?;
        let Some(before) = self.register.guest(guest)? else {
            // The lock was made for a record that is not there.
            self.register.remove_guest(guest)?;
            return Ok(Learned::Known);
        };
        let mut record = before.clone();
        let here = |e: &&mut Endpoint| e.device == *device && e.stage == Stage::Registered;
        let Some(endpoint) = record.endpoints.iter_mut().find(here) else { return Ok(Learned::Known) };
        let (Some(mac), Some(ips)) = (endpoint.mac, with(&endpoint.ips, address)) else { return Ok(Learned::Known) };
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
            return Ok(Learned::Refused(format!("{} is {why}", address.ip)));
        }
        let holder = self.holder(&bridge, address.ip, mac)?;
        if let Some((who, declared)) = &holder
            && (claim == Claim::Asks || *declared)
        {
            return Ok(Learned::Refused(format!("{} is {who}'s", address.ip)));
        }
        let record = self.change(Some(before), record, How::Mend, |e| e.device == *device)?;
        let from = holder.as_ref().map_or(String::new(), |(who, _)| format!(", before {who}'s"));
        let detail = format!(": {} ({}) on {device}{from}", address.ip, address.source);
        self.journal.say(&Message::Done { what: "learned", object: &record.guest.name, detail: &detail });
        drop(lock);
        if holder.is_some() {
            self.take_from_others(guest, &bridge, address.ip)?;
        }
        Ok(Learned::Registered { taken: holder.is_some() })
    }

    /// Who else has an address on this bridge, and was it declared to be so? Of another VTEP's nobody here knows; if it was declared there,
    /// that host takes it back.
    fn holder(&mut self, bridge: &IfName, ip: IpAddr, mac: Mac) -> Result<Option<(String, bool)>, EngineError> {
        let kernel = self.kernel()?;
        let Some(link) = kernel.link(bridge)? else { return Ok(None) };
        let neigh = kernel.neigh(link.index, ip)?;
        let of = neigh.as_ref().and_then(|n| n.mac).map(|mac| mac.to_string()).unwrap_or_default();
        match other_holder(neigh.as_ref(), mac) {
            None => Ok(None),
            Some(true) => Ok(Some((format!("{of} behind another VTEP"), false))),
            Some(false) => {
                let records: Vec<GuestRecord> = self.register.guests().into_iter().flatten().collect();
                let has = |e: &&Endpoint| e.bridge == *bridge && e.mac != Some(mac) && e.addresses().contains(&ip);
                let found = records.iter().find_map(|r| Some((&r.guest, r.endpoints.iter().find(has)?)));
                Ok(Some(match found {
                    Some((guest, e)) => (guest.to_string(), e.declared().any(|a| a.ip == ip)),
                    // Somebody else's permanent entry is the operator's own.
                    None => (of, !neigh.is_some_and(|n| n.ours)),
                }))
            }
        }
    }

    /// Their neighbour entry names the new owner by now: only their records change.
    fn take_from_others(&mut self, owner: &Guest, bridge: &IfName, ip: IpAddr) -> Result<(), EngineError> {
        let others: Vec<GuestRecord> = self.register.guests().into_iter().flatten().collect();
        for other in others.iter().filter(|o| !o.guest.is(owner)) {
            self.forget(&other.guest, "no more its own", |e, a| e.bridge == *bridge && a.ip == ip)?;
        }
        Ok(())
    }

    /// Withdraws those learned addresses of a guest that match: released, expired, another's. Returns how many.
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
        let stages: Vec<Stage> = record.endpoints.iter().map(|e| e.stage).collect();
        let record = self.change(Some(before), record, How::Mend, |_| false)?;
        debug_assert!(record.endpoints.iter().map(|e| e.stage).eq(stages));
        let detail = format!(": {}", left.join(" "));
        self.journal.say(&Message::Done { what: why, object: &record.guest.name, detail: &detail });
        Ok(left.len())
    }

    /// Another VTEP's guest has it now, says the bridge's neighbour: gives up what was only learned.
    pub fn give_up(&mut self, guest: &Guest, ip: IpAddr) -> Result<usize, EngineError> {
        let Some(record) = self.register.guest(guest)? else { return Ok(0) };
        let mut lost = Vec::new();
        for endpoint in &record.endpoints {
            let kernel = self.kernel()?;
            let (Some(mac), Some(bridge)) = (endpoint.mac, kernel.link(&endpoint.bridge)?) else { continue };
            if other_holder(kernel.neigh(bridge.index, ip)?.as_ref(), mac) == Some(true) {
                lost.push(endpoint.device.clone());
            }
        }
        self.forget(guest, "moved to another host", |e, a| a.ip == ip && lost.contains(&e.device))
    }

    /// What the fabric knows of a guest that has just come from another host and told this one nothing: the addresses that its MAC has there.
    pub(super) fn adopt(&mut self, endpoint: &mut Endpoint) -> Result<(), EngineError> {
        let Some(mac) = endpoint.mac else { return Ok(()) };
        let Some(network) = self.register.network_of_bridge(&endpoint.bridge)? else { return Ok(()) };
        let kernel = self.kernel()?;
        let Some(bridge) = kernel.link(&endpoint.bridge)? else { return Ok(()) };
        let mut found = kernel.neighs(bridge.index)?;
        found.sort_by_key(|n| n.ip);
        let its = |n: &&crate::plan::seen::Neigh| n.mac == Some(mac) && n.ext_learned;
        for neigh in found.iter().filter(its).filter(|n| unfit(&network.network, n.ip).is_none()) {
            if let Some(ips) = with(&endpoint.ips, Address::new(neigh.ip, Source::Fabric)) {
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
