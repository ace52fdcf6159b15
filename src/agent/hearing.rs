//! Addresses that nobody declared: heard on the guests' own ports, and read in dnsmasq's list of leases.

use super::claims::Take;
use super::daemon::Agent;
use super::due::Task;
use super::index::{Key, Port};
use crate::engine::{Claimed, Engine, EngineError, Learned, boot_seconds};
use crate::hypervisor::leases::{self, Lease};
use crate::journal::Message;
use crate::kernel::Event;
use crate::model::{Address, IfName, Mac, Source};
use crate::plan::whose::{Answer, Claim, Holder};
use crate::register::{Endpoint, GuestRecord};
use crate::snoop::{Said, SnoopError};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

/// A lease that ended this long ago was not renewed: its server gives it to somebody else by now.
const LATE: Duration = Duration::from_secs(5);
/// What could not be given up is tried again so much later.
const AGAIN: Duration = Duration::from_secs(60);

/// What dnsmasq gave on each bridge when it was looked at last.
pub type Leases = BTreeMap<IfName, BTreeMap<IpAddr, Lease>>;

impl Agent {
    /// Listens on the ports of all guests that are here, and on no others.
    pub(super) fn tune(&mut self) {
        let (Some(ears), Some(ports)) = (&mut self.ears, self.index.take_ports()) else { return };
        let gone: Vec<u32> =
            ears.ports().filter(|(port, mac)| ports.get(port) != Some(mac)).map(|(port, _)| port).collect();
        gone.into_iter().for_each(|port| ears.forget(port));
        let known: HashSet<u32> = ears.ports().map(|(port, _)| port).collect();
        for (port, mac) in ports.into_iter().filter(|(port, _)| !known.contains(port)) {
            match ears.listen(port, mac) {
                Ok(()) | Err(SnoopError::Gone(_)) => {}
                Err(error) => {
                    let device = self.index.port(port).map(|port| port.device);
                    if device.is_some_and(|device| self.claims.may_tell(&device, Instant::now()).is_some()) {
                        self.engine.journal.say(&Message::Warning(&error));
                    }
                }
            }
        }
    }

    /// Something may have been said on this port that nobody heard.
    fn was_deaf(&mut self, port: &Port) {
        if let Err(error) = self.engine.forget_ends(&port.guest, Some(&port.device)) {
            self.engine.journal.say(&Message::Warning(&error));
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
        let told_too_much = ears.told_too_much();
        for index in ears.too_loud() {
            if let Some(port) = self.index.port(index) {
                self.was_deaf(&port);
                self.warn(&port, "too many ARP, ND or DHCP frames: not heard for a while");
            }
        }
        for index in told_too_much {
            let Some(port) = self.index.port(index) else { continue };
            self.was_deaf(&port);
            self.warn(&port, "too many DHCP answers come to it: somebody on its segment may pretend to be a server");
        }
        let routers: HashSet<(u32, IpAddr)> = heard.iter().filter_map(|one| one.routes()).collect();
        for one in heard {
            let Some(port) = self.index.port(one.index).filter(|port| port.mac == one.said.mac()) else { continue };
            match one.said {
                Said::Has { ip: ip @ IpAddr::V6(_), .. } if port.has(ip) => {
                    self.claims.heard(&port.device, ip, Instant::now());
                }
                Said::Has { ip, .. } if port.has(ip) => {}
                // A router that takes another's address is told as one at once: hosts use one no more that is told otherwise (RFC 4861 §7.2.5).
                Said::Has { ip, .. } => {
                    let router = routers.contains(&(one.index, ip));
                    self.learn(&port, Address { router, ..Address::new(ip, Source::Neighbour) }, Claim::Uses);
                }
                Said::Routes { ip, .. } if port.is_no_router_by(ip) => {
                    let changes = |done: &Result<bool, _>| matches!(done, Ok(true));
                    let done = self.paced(&port, changes, |engine| engine.routes(&port.guest, &port.device, ip));
                    self.changed(&port.key, done.map(usize::from));
                }
                // Not its own, or not yet.
                Said::Routes { .. } => {}
                Said::Wants { ip, .. } if port.has(ip) => {}
                Said::Wants { ip, .. } => {
                    self.learn(&port, Address::new(ip, Source::Neighbour), Claim::Asks);
                    self.probed(&port, ip);
                }
                Said::Probes { ip, .. } => self.probed(&port, ip),
                Said::Leased { ip, lifetime, .. } => {
                    let until = lifetime.map(|lifetime| boot_seconds().saturating_add(lifetime.as_secs()));
                    self.learn(&port, Address { until, ..Address::new(ip, Source::Lease) }, Claim::Uses);
                }
                Said::Released { ip, .. } if !port.has(ip) => {}
                Said::Released { ip, .. } => {
                    self.give_up(&port, "released", |a| a.ip == ip);
                }
            }
        }
    }

    fn learn(&mut self, port: &Port, address: Address, claim: Claim) {
        let now = Instant::now();
        if self.claims.is_refused(&port.key, address, claim, now) || self.is_claimed(&port.key, address) {
            return;
        }
        if !self.claims.may_claim(&port.device, now) {
            self.metrics.refused += 1;
            return self.warn(port, "claims too many addresses: one a second is looked at");
        }
        self.judge(port, address, claim, None);
    }

    /// Whose is it, as far as is known by now?
    pub(super) fn judge(&mut self, port: &Port, address: Address, claim: Claim, asked: Option<(Mac, Answer)>) {
        let (now, ip) = (Instant::now(), address.ip);
        let by_right = self.claims.had(&port.bridge, ip, port.mac, now);
        let weighed = if by_right { claim } else { self.claims.weigh(&port.key, &port.bridge, ip, claim, now) };
        let here = self.index.holder(port, ip).map(|(holder, of)| (holder, of.mac, of.guest));
        let known = here.as_ref().map(|(holder, ..)| *holder);
        let heard = self.claims.by_last_heard(&port.device, port.addresses());
        let claimed = Claimed { claim: weighed, had_it: by_right, here, asked, heard };
        let what = match self.learned(port, address, claimed) {
            Ok(Learned::Known) => {
                self.claims.settled(&port.device, ip);
                return self.reload_guest(&port.key);
            }
            Ok(Learned::Ask { holder, mac }) => return self.ask_holder(port, address, claim, holder, mac),
            Ok(Learned::Registered { taken }) => {
                self.claims.settled(&port.device, ip);
                return self.registered(port, ip, by_right, taken);
            }
            // Its holder may be about to give it up, and nobody asks this guest to say so again.
            Ok(Learned::Refused(why)) => {
                if claim == Claim::Uses && known != Some(Holder::Itself) {
                    self.claims.judge_again(&port.device, address, now);
                }
                self.metrics.refused += 1;
                format!("an address is not learned: {why}")
            }
            Ok(Learned::Unfit(why)) => {
                self.metrics.refused += 1;
                format!("an address is not learned: {why}")
            }
            Err(error) => format!("{ip} cannot be registered: {error}"),
        };
        let answer = asked.map_or(Answer::NotAsked, |(_, answer)| answer);
        // A guest may well ask whether an address is free that is not, and answer on each NIC for all that it has.
        let news = self.claims.refused(&port.key, address, claim, answer, now);
        if news && claim == Claim::Uses && known != Some(Holder::Itself) {
            self.warn(port, &what);
        }
    }

    /// It is its own now. Was it taken from another, and too often?
    fn registered(&mut self, port: &Port, ip: IpAddr, by_right: bool, taken: Option<(Holder, Mac)>) {
        let now = Instant::now();
        self.metrics.learned += 1;
        self.reload_guest(&port.key);
        let Some((from, of)) = taken else { return };
        if by_right {
            return self.claims.is_back(&port.bridge, ip);
        }
        let from_vtep = from == Holder::Vtep;
        let take = Take { key: &port.key, bridge: &port.bridge, ip, of, by: port.mac, from_vtep };
        let Some(pause) = self.claims.taken(take, now) else { return };
        let until = boot_seconds().saturating_add(pause.as_secs());
        if let Err(error) = self.engine.slow(&port.guest, &port.device, ip, until) {
            self.engine.journal.say(&Message::Warning(&error));
        }
        self.metrics.slowed += 1;
        let (of, pause) = (from.to_string(), pause.as_secs() / 60);
        let what = format!("takes {ip} from {of} again and again: may not for {pause} minutes");
        self.warn(port, &what);
    }

    /// Has the engine learn it.
    pub(super) fn learned(&mut self, port: &Port, address: Address, claimed: Claimed) -> Result<Learned, EngineError> {
        let changes = |learned: &Result<Learned, _>| matches!(learned, Ok(Learned::Registered { .. }));
        self.paced(port, changes, |engine| engine.learn(&port.guest, &port.device, address, claimed))
    }

    /// Guests choose how often their addresses change: so it is not logged as often as they like.
    fn paced<T>(&mut self, port: &Port, changes: impl Fn(&T) -> bool, work: impl FnOnce(&mut Engine) -> T) -> T {
        let now = Instant::now();
        self.engine.journal.hushed = !self.claims.may_note(&port.device, now);
        let done = work(&mut self.engine);
        self.engine.journal.hushed = false;
        if changes(&done)
            && let Some(unsaid @ 1..) = self.claims.noted(&port.device, now)
        {
            let what =
                format!("{}: {}: {unsaid} changes of its addresses before were not logged", port.guest, port.device);
            self.engine.journal.say(&Message::Note(&what));
        }
        done
    }

    /// Guests choose when this is said: so it is not said as often as they like.
    pub(super) fn warn(&mut self, port: &Port, what: &str) {
        let Some(unsaid) = self.claims.may_tell(&port.device, Instant::now()) else { return };
        let more =
            if unsaid > 0 { format!(" ({unsaid} warnings about it before were not logged)") } else { String::new() };
        self.engine.journal.object.clone_from(&port.guest.name);
        self.engine.journal.say(&Message::Warning(&format!("{}: {}: {what}{more}", port.guest, port.device)));
    }

    /// The guest's record says something else now.
    fn changed(&mut self, key: &Key, gone: Result<usize, EngineError>) {
        match gone {
            Ok(0) => {}
            Ok(_) => self.reload_guest(key),
            Err(error) => self.engine.journal.say(&Message::Warning(&error)),
        }
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
        let has_ended = |a: &Address| a.until.is_some_and(|until| until < now);
        // It is a server's word how long a lease is, and a guest may play the server.
        let port = self.index.ports_of_guest(key).into_iter().find(|port| port.has_a_lease());
        let forget = |engine: &mut Engine| engine.forget(&guest, "lease ended", |_, a| has_ended(a));
        let gone = match port {
            Some(port) => self.paced(&port, |gone| matches!(gone, Ok(1..)), forget),
            None => forget(&mut self.engine),
        };
        if gone.is_err() {
            self.due.put(Task::EndOfLease(key.clone()), Instant::now() + AGAIN);
        }
        self.changed(key, gone);
    }

    /// Its server gave it to this guest no longer.
    pub(super) fn end_lease(&mut self, port: &Port, ip: IpAddr) {
        self.give_up(port, "lease ended", |a| a.ip == ip && a.source == Source::Lease);
    }

    /// Withdraws those of a port's learned addresses.
    fn give_up(&mut self, port: &Port, why: &str, its: impl Fn(&Address) -> bool) {
        let of_port = |e: &Endpoint, a: &Address| e.device == port.device && its(a);
        let changes = |gone: &Result<usize, _>| matches!(gone, Ok(1..));
        let gone = self.paced(port, changes, |engine| engine.forget(&port.guest, why, of_port));
        self.changed(&port.key, gone);
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
        let now: BTreeMap<IpAddr, Lease> = now.into_iter().map(|lease| (lease.ip, lease)).collect();
        let before = self.leases.insert(bridge.clone(), now.clone());
        // The file of a network whose <dhcp> was taken out stays and is not looked after any more; and at the first look nobody knows since when
        // a lease is in it, so that another may have the address by now.
        let claim = if before.is_some() { Claim::Uses } else { Claim::Asks };
        let before = before.unwrap_or_default();
        let ended = |lease: &Lease| lease.until.is_some_and(|until| until <= unix_seconds());
        for lease in now.values().filter(|lease| before.get(&lease.ip) != Some(lease) && !ended(lease)) {
            for port in self.index.ports_of(bridge, lease.mac) {
                let until = lease.until.map(boot_time_of);
                self.learn(&port, Address { until, ..Address::new(lease.ip, Source::Lease) }, claim);
            }
        }
        let has_still = |was: &Lease| now.get(&was.ip).is_some_and(|lease| lease.mac == was.mac);
        for Lease { ip, mac, .. } in before.into_values().filter(|was| !has_still(was)) {
            for port in self.index.ports_of(bridge, mac) {
                if port.source_of(ip) == Some(Source::Lease) {
                    self.is_it_unleased(&port, ip);
                }
            }
        }
    }
}

/// The clock on the wall may be set at any time; what a guest was promised is a duration.
fn boot_time_of(unix: u64) -> u64 {
    boot_seconds().saturating_add(unix.saturating_sub(unix_seconds()))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
