//! Addresses that nobody declared: heard on the guests' own ports, and read in dnsmasq's list of leases.

use super::daemon::Agent;
use super::due::Task;
use super::index::{Key, Port};
use crate::engine::{EngineError, Learned, boot_seconds};
use crate::hypervisor::leases;
use crate::journal::Message;
use crate::kernel::Event;
use crate::model::{Address, IfName, Mac, Source};
use crate::plan::learn::Claim;
use crate::register::GuestRecord;
use crate::snoop::{Said, SnoopError};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

/// A lease that ended this long ago was not renewed: its server gives it to somebody else by now.
const LATE: Duration = Duration::from_secs(5);

/// What dnsmasq gave on each bridge when it was looked at last.
pub type Leases = BTreeMap<IfName, BTreeMap<IpAddr, Mac>>;

impl Agent {
    /// Listens on the ports of all guests that are here, and on no others.
    pub(super) fn tune(&mut self) {
        let (Some(ears), Some(ports)) = (&mut self.ears, self.index.take_ports()) else { return };
        let gone: Vec<u32> = ears.ports().filter(|port| !ports.contains(port)).collect();
        gone.into_iter().for_each(|port| ears.forget(port));
        let known: HashSet<u32> = ears.ports().collect();
        for port in ports.difference(&known) {
            match ears.listen(*port) {
                Ok(()) | Err(SnoopError::Gone(_)) => {}
                Err(error) => self.engine.journal.say(&Message::Warning(&error)),
            }
        }
    }

    /// A device that is gone is not listened on, though another may come under its number at once.
    pub(super) fn unhear(&mut self, event: &Event) {
        if let (Event::LinkGone { index }, Some(ears)) = (event, &mut self.ears) {
            ears.forget(*index);
            self.index.ports_changed();
        }
    }

    /// What the guests said since the last time.
    pub(super) fn listen(&mut self) {
        let Some(ears) = &mut self.ears else { return };
        let heard = ears.hear();
        for index in ears.too_loud() {
            if let Some(port) = self.index.port(index) {
                let what = format!(
                    "{}: too many ARP, ND or DHCP frames on {}: not heard for a while",
                    port.guest, port.device
                );
                self.engine.journal.object.clone_from(&port.guest.name);
                self.engine.journal.say(&Message::Warning(&what));
            }
        }
        for one in heard {
            let Some(port) = self.index.port(one.index).filter(|port| port.mac == one.said.mac()) else { continue };
            match one.said {
                Said::Has { ip, .. } if port.has(ip) => {}
                Said::Has { ip, .. } => self.learn(&port, Address::new(ip, Source::Neighbour), Claim::Uses),
                Said::Wants { ip, .. } if port.has(ip) => {}
                Said::Wants { ip, .. } => self.learn(&port, Address::new(ip, Source::Neighbour), Claim::Asks),
                Said::Leased { ip, lifetime, .. } => {
                    let until = lifetime.map(|lifetime| boot_seconds().saturating_add(lifetime.as_secs()));
                    self.learn(&port, Address { until, ..Address::new(ip, Source::Lease) }, Claim::Uses);
                }
                Said::Released { ip, .. } => {
                    let gone =
                        self.engine.forget(&port.guest, "released", |e, a| e.device == port.device && a.ip == ip);
                    self.forgotten(&port.key, gone);
                }
            }
        }
    }

    fn learn(&mut self, port: &Port, address: Address, claim: Claim) {
        let (now, ip) = (Instant::now(), address.ip);
        if self.claims.is_refused(&port.key, ip, claim, now) {
            return;
        }
        let weighed = self.claims.weigh(&port.bridge, ip, claim, now);
        let learned = self.engine.learn(&port.guest, &port.device, address, weighed);
        let what = match learned {
            Ok(Learned::Known) => return self.reload_guest(&port.key),
            Ok(Learned::Registered { taken }) => {
                self.reload_guest(&port.key);
                if taken {
                    self.index.holders(&port.bridge, ip).iter().for_each(|key| self.reload_guest(key));
                }
                if !(taken && self.claims.taken(&port.bridge, ip, now)) {
                    return;
                }
                format!(
                    "{}: {ip} goes back and forth between two guests: it stays here unless it is claimed in 3 minutes",
                    port.guest
                )
            }
            Ok(Learned::Refused(why)) => format!("{}: an address on {} is not learned: {why}", port.guest, port.device),
            Err(error) => format!("{}: {ip} on {} cannot be registered: {error}", port.guest, port.device),
        };
        // A guest may well ask whether an address is free that is not.
        if self.claims.refused(&port.key, ip, claim, now) && claim == Claim::Uses {
            self.engine.journal.object.clone_from(&port.guest.name);
            self.engine.journal.say(&Message::Warning(&what));
        }
    }

    /// The guest's record says less now.
    fn forgotten(&mut self, key: &Key, gone: Result<usize, EngineError>) {
        match gone {
            Ok(0) => {}
            Ok(_) => self.reload_guest(key),
            Err(error) => self.engine.journal.say(&Message::Warning(&error)),
        }
    }

    /// Another VTEP's guest has an address of this one.
    pub(super) fn give_up(&mut self, key: &Key, ip: IpAddr) {
        let Some(guest) = self.index.guest(key).cloned() else { return };
        let gone = self.engine.give_up(&guest, ip);
        self.forgotten(key, gone);
    }

    // ----- leases -----

    /// When the first of a guest's leases ends, it is looked at again.
    pub(super) fn await_end_of_lease(&mut self, key: &Key, record: Option<&GuestRecord>) {
        let ends = record.into_iter().flat_map(|r| &r.endpoints).flat_map(|e| &e.ips).filter_map(|a| a.until).min();
        match ends {
            Some(until) => {
                let left = Duration::from_secs(until.saturating_sub(boot_seconds()));
                self.due.postpone(Task::EndOfLease(key.clone()), Instant::now() + left + LATE);
            }
            None => self.due.drop(&Task::EndOfLease(key.clone())),
        }
    }

    pub(super) fn end_leases(&mut self, key: &Key) {
        let Some(guest) = self.index.guest(key).cloned() else { return };
        let now = boot_seconds();
        let gone = self.engine.forget(&guest, "lease ended", |_, a| a.until.is_some_and(|until| until < now));
        self.forgotten(key, gone);
    }

    /// dnsmasq's lists, of all networks.
    pub(super) fn read_all_leases(&mut self) {
        let bridges: Vec<IfName> = self.index.networks().filter_map(|(key, _)| key.parse().ok()).collect();
        bridges.iter().for_each(|bridge| self.read_leases(bridge));
    }

    /// dnsmasq's list of one bridge: what is in it is its guest's, and what is in it no more is not.
    pub(super) fn read_leases(&mut self, bridge: &IfName) {
        if self.index.network(bridge.as_str()).is_none() {
            self.leases.remove(bridge);
            return;
        }
        let Some(now) = leases::of(bridge) else { return };
        let listed: BTreeMap<IpAddr, Mac> = now.iter().map(|lease| (lease.ip, lease.mac)).collect();
        let before = self.leases.insert(bridge.clone(), listed.clone()).unwrap_or_default();
        for lease in &now {
            for port in self.index.ports_of(bridge, lease.mac) {
                let until = lease.until.map(boot_time_of);
                self.learn(&port, Address { until, ..Address::new(lease.ip, Source::Lease) }, Claim::Uses);
            }
        }
        for (ip, mac) in before.into_iter().filter(|(ip, mac)| listed.get(ip) != Some(mac)) {
            for port in self.index.ports_of(bridge, mac) {
                let lost = |e: &crate::register::Endpoint, a: &Address| {
                    e.device == port.device && a.ip == ip && a.source == Source::Lease
                };
                let gone = self.engine.forget(&port.guest, "lease ended", lost);
                self.forgotten(&port.key, gone);
            }
        }
    }
}

/// The clock on the wall may be set at any time; what a guest was promised is a duration.
fn boot_time_of(unix: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    boot_seconds().saturating_add(unix.saturating_sub(now))
}
