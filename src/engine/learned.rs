//! Addresses that became known after the start: registered as soon as anybody tells of them. That
//! one is another's by now is seen when its guest is looked at (`plan::transition`).

use super::guest::{boot_seconds, by_dhcp_host};
use super::{Engine, EngineError};
use crate::config::{Network, PortSecurity};
use crate::journal::Message;
use crate::model::{Address, Guest, IfName, Mac, Source};
use crate::plan::Plan;
use crate::plan::transition::{Change, Claimed, Ground, Heard, Mode, learns};
use crate::plan::whose::Holder;
use crate::register::{Endpoint, GuestRecord, Slowed, Stage};
use std::net::IpAddr;

/// What came of an address that was heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Learned {
    /// It was known, or its guest is not here.
    #[default]
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

impl Engine {
    /// The guest behind this port has this address: registers it, if it is its.
    pub fn learn(
        &mut self,
        guest: &Guest,
        device: &IfName,
        address: Address,
        claimed: Claimed,
    ) -> Result<Learned, EngineError> {
        self.journal.object.clone_from(&guest.name);
        self.with_guest(guest, |engine, before| engine.learn_by(&before, device, address, &claimed))
    }

    fn learn_by(
        &mut self,
        before: &GuestRecord,
        device: &IfName,
        address: Address,
        claimed: &Claimed,
    ) -> Result<Learned, EngineError> {
        let ground = |bridge: &IfName| self.ground(bridge, address.ip);
        let (change, taken, whose) = match learns(before, device, address, claimed, ground)? {
            Heard::Known => return Ok(Learned::Known),
            Heard::Noted(record) => {
                self.register.put_guest(&record)?;
                return Ok(Learned::Known);
            }
            Heard::Ask { holder, mac } => return Ok(Learned::Ask { holder, mac }),
            Heard::Refused(why) => return Ok(Learned::Refused(why)),
            Heard::Unfit(why) => return Ok(Learned::Unfit(why)),
            Heard::Its { change, taken, whose } => (change, taken, whose),
        };
        let (record, _) = self.change(&change)?;
        let from = taken.map_or(String::new(), |_| format!(", before {whose}"));
        // From whom it was taken is always told.
        self.journal.hushed &= taken.is_none();
        let detail = format!(": {} ({}) on {device}{from}", address.ip, address.source);
        self.journal.say(&Message::Done { what: "learned", object: &record.guest.name, detail: &detail });
        Ok(Learned::Registered { taken })
    }

    /// The segment of this bridge, as far as it matters to this address.
    fn ground(&mut self, bridge: &IfName, ip: IpAddr) -> Result<Option<Ground>, EngineError> {
        let Some(record) = self.register.network_of_bridge(bridge)? else { return Ok(None) };
        let kernel = self.kernel()?;
        let Some(link) = kernel.link(bridge)? else { return Ok(None) };
        let is_gateways = kernel.addresses(Some(link.index))?.iter().any(|own| own.net.addr() == ip);
        Ok(Some(Ground { network: record.network, is_gateways, neigh: kernel.neigh(link.index, ip)? }))
    }

    /// The guest behind this port has shown to route IPv6 by this address, which is its own: others are told so. False where they were already.
    pub fn routes(&mut self, guest: &Guest, device: &IfName, ip: IpAddr) -> Result<bool, EngineError> {
        self.journal.object.clone_from(&guest.name);
        self.with_guest(guest, |engine, before| {
            let mut record = before.clone();
            let here = |e: &&mut Endpoint| e.device == *device && e.stage == Stage::Registered;
            let mut its = record.endpoints.iter_mut().filter(here).flat_map(|e| &mut e.ips);
            let Some(address) = its.find(|a| a.ip == ip && !a.router) else { return Ok(false) };
            address.router = true;
            let change = Change::new(Some(&before), record, Mode::Mend, |e| e.device == *device);
            let (record, _) = engine.change(&change)?;
            let (what, detail) = ("is an IPv6 router", format!(": {ip} on {device}"));
            engine.journal.say(&Message::Done { what, object: &record.guest.name, detail: &detail });
            Ok(true)
        })
    }

    /// The guest behind this port may not take this address from others until then (seconds since boot): `status` tells it.
    pub fn slow(&mut self, guest: &Guest, device: &IfName, ip: IpAddr, until: u64) -> Result<(), EngineError> {
        self.with_guest(guest, |engine, mut record| {
            let now = boot_seconds();
            for endpoint in record.endpoints.iter_mut().filter(|e| e.device == *device) {
                endpoint.slowed.retain(|slowed| slowed.ip != ip && slowed.until > now);
                endpoint.slowed.push(Slowed { ip, until });
            }
            Ok(engine.register.put_guest(&record)?)
        })
    }

    /// Withdraws those learned addresses of a guest that match: released or expired. Returns how many.
    pub fn forget(
        &mut self,
        guest: &Guest,
        why: &str,
        gone: impl Fn(&Endpoint, &Address) -> bool,
    ) -> Result<usize, EngineError> {
        self.journal.object.clone_from(&guest.name);
        self.with_guest(guest, |engine, before| {
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
            let (record, _) = engine.change(&Change::new(Some(&before), record, Mode::Mend, |_| false))?;
            let detail = format!(": {}", left.join(" "));
            engine.journal.say(&Message::Done { what: why, object: &record.guest.name, detail: &detail });
            Ok(left.len())
        })
    }

    /// Nobody listened for a while, and a lease may have been renewed meanwhile: when these end is not known any more. Such an address stays until
    /// it is released, or another shows to have it.
    pub fn forget_all_ends(&mut self) -> Result<(), EngineError> {
        let ends = |record: &GuestRecord| record.endpoints.iter().flat_map(|e| &e.ips).any(|a| a.until.is_some());
        let mut records = self.register.guests().into_iter().flatten().filter(ends);
        records.try_for_each(|record| self.forget_ends(&record.guest, None))
    }

    /// The same for one guest, and where one is named for one of its devices.
    pub fn forget_ends(&mut self, guest: &Guest, device: Option<&IfName>) -> Result<(), EngineError> {
        self.with_guest(guest, |engine, mut record| {
            let endpoints = record.endpoints.iter_mut().filter(|e| device.is_none_or(|device| e.device == *device));
            let mut ends = endpoints.flat_map(|e| &mut e.ips).filter(|a| a.until.is_some()).peekable();
            if ends.peek().is_none() {
                return Ok(());
            }
            ends.for_each(|a| a.until = None);
            Ok(engine.register.put_guest(&record)?)
        })
    }

    /// Its server says no more that an address is this guest's, which still answers for it: from now on it has it by its own word. False where that
    /// does not count.
    pub fn unlease(&mut self, guest: &Guest, device: &IfName, ip: IpAddr) -> Result<bool, EngineError> {
        self.with_guest(guest, |engine, mut record| {
            for endpoint in record.endpoints.iter_mut().filter(|e| e.device == *device) {
                if endpoint.port_security == PortSecurity::MacIp {
                    return Ok(false);
                }
                for address in endpoint.ips.iter_mut().filter(|a| a.ip == ip && a.source == Source::Lease) {
                    *address = Address { source: Source::Neighbour, until: None, ..*address };
                }
            }
            engine.register.put_guest(&record)?;
            Ok(true)
        })
    }

    /// The network's `<dhcp><host>` list changed under running guests (`virsh net-update`).
    pub(super) fn hosts_changed(&mut self, network: &Network) -> Plan {
        let mut done = Plan::new();
        let guests = self.register.guests().into_iter().flatten();
        for record in guests.filter(|record| followed(record, network) != *record) {
            match self.follow_hosts(&record.guest, network) {
                Ok(plan) => done.extend(plan),
                Err(error) => self.journal.say(&Message::Warning(&error)),
            }
        }
        done
    }

    fn follow_hosts(&mut self, guest: &Guest, network: &Network) -> Result<Plan, EngineError> {
        self.journal.object.clone_from(&guest.name);
        self.with_guest(guest, |engine, before| {
            let record = followed(&before, network);
            if record == before {
                return Ok(Plan::new());
            }
            let mode = if before.is_incoming() { Mode::Incoming } else { Mode::Mend };
            let change = Change::new(Some(&before), record, mode, |new| !before.endpoints.contains(new));
            let (record, plan) = engine.change(&change)?;
            engine.tell("follows its network's <dhcp><host>", &record);
            Ok(plan)
        })
    }
}

/// A guest's record with what its network's `<dhcp><host>` says of it by now, and what was learned.
fn followed(record: &GuestRecord, network: &Network) -> GuestRecord {
    let mut record = record.clone();
    for endpoint in record.endpoints.iter_mut().filter(|e| e.bridge == network.bridge) {
        let Some(mac) = endpoint.mac.filter(|_| endpoint.declared().all(|a| a.source == Source::DhcpHost)) else {
            continue;
        };
        let mut ips = by_dhcp_host(network, mac);
        let learned = endpoint.ips.iter().filter(|a| a.source.is_learned() && !ips.iter().any(|b| b.ip == a.ip));
        let learned: Vec<Address> = learned.copied().collect();
        ips.extend(learned);
        endpoint.ips = ips;
    }
    record
}
