//! Guests that are asked whether they still have an address, before another gets it: some times, in a quarter of a second.

use super::daemon::Agent;
use super::index::{Key, Port};
use crate::engine::{Claimed, Learned};
use crate::journal::Message;
use crate::kernel::Event;
use crate::model::{Address, IfName, Mac, Source};
use crate::plan::whose::{Answer, Claim, Holder};
use crate::snoop::{Asked, Moved, Probe};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A guest answers within a millisecond, behind another VTEP within some. One that is paused, or starts, does not at all.
const TRIES: u32 = 3;
const EVERY: Duration = Duration::from_millis(80);
/// So many are asked at once: each is a socket.
const MOST: usize = 64;

/// What the answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Another guest claims it.
    Claimed(Claim),
    /// It was taken from the guest itself, by one behind another VTEP.
    Lost,
    /// The guest on this port asks whether it is free.
    Probed,
}

/// A question that is not answered yet.
pub struct Ask {
    probe: Probe,
    key: Key,
    bridge: IfName,
    device: IfName,
    address: Address,
    why: Why,
    asked: u32,
    next: Instant,
}

impl Agent {
    /// Is a guest being asked for this address?
    pub(super) fn is_asked(&self, bridge: &IfName, ip: IpAddr) -> bool {
        self.asks.iter().any(|ask| ask.bridge == *bridge && ask.address.ip == ip)
    }

    /// Asks the guest with this MAC whether it still has the address that this port's guest claims.
    pub(super) fn ask(&mut self, port: &Port, address: Address, why: Why, holder: Holder, mac: Mac) {
        if self.asks.len() >= MOST {
            return;
        }
        let index = match holder {
            Holder::Vtep => self.index.tunnel_of(&port.bridge),
            _ => {
                let ports = self.index.ports_of(&port.bridge, mac);
                ports.first().and_then(|of| self.index.index_of(&of.device))
            }
        };
        let asked = index.map(|index| Probe::open(Asked { index, from: port.mac, to: mac, ip: address.ip }));
        let probe = match (asked, why) {
            (Some(Ok(probe)), _) => probe,
            // Whose port is gone answers no more.
            (_, Why::Claimed(claim)) => return self.judge(port, address, claim, Answer::No),
            (_, Why::Lost | Why::Probed) => return,
        };
        let (key, bridge, device) = (port.key.clone(), port.bridge.clone(), port.device.clone());
        self.asks.push(Ask { probe, key, bridge, device, address, why, asked: 0, next: Instant::now() });
    }

    /// When the next of them is asked again, or has not answered.
    pub(super) fn asks_next(&self) -> Option<Instant> {
        self.asks.iter().map(|ask| ask.next).min()
    }

    /// Hears who answers, and asks those that have not.
    pub(super) fn hear_answers(&mut self) {
        let now = Instant::now();
        let mut told = Vec::new();
        let mut at = 0;
        while let Some(ask) = self.asks.get_mut(at) {
            let answer = if ask.probe.is_answered() {
                Some(Answer::Yes)
            } else if now < ask.next {
                None
            } else if ask.asked == TRIES || ask.probe.ask().is_err() {
                Some(Answer::No)
            } else {
                (ask.asked, ask.next) = (ask.asked + 1, now + EVERY);
                None
            };
            match answer {
                Some(answer) => told.push((self.asks.swap_remove(at), answer)),
                None => at += 1,
            }
        }
        for (ask, answer) in told {
            self.answered(&ask, answer);
        }
    }

    fn answered(&mut self, ask: &Ask, answer: Answer) {
        let Some(port) = self.index.ports_on(&ask.device).into_iter().find(|port| port.key == ask.key) else { return };
        match (ask.why, answer) {
            (Why::Claimed(claim), _) => self.judge(&port, ask.address, claim, answer),
            (Why::Lost, Answer::Yes) => self.take_back(&port, ask.address),
            (Why::Probed, Answer::Yes) => self.say_whose(&port, ask.address.ip),
            (Why::Lost | Why::Probed, _) => {}
        }
    }

    /// A guest asks whether an address is free. Where neighbours are suppressed its question reaches no other host: so one of them is asked for it.
    pub(super) fn probed(&mut self, port: &Port, ip: IpAddr) {
        let bridge = self.index.index_of(&port.bridge);
        let Some(of) = bridge.and_then(|bridge| self.holders.of(bridge, ip)) else { return };
        if of != port.mac && self.index.ports_of(&port.bridge, of).is_empty() && !self.is_asked(&port.bridge, ip) {
            self.ask(port, Address::new(ip, Source::Neighbour), Why::Probed, Holder::Vtep, of);
        }
    }

    /// An ARP probe's answer went to whoever asked, by itself. A neighbour advertisement goes to all, which is suppressed (RFC 4861 §7.2.4).
    fn say_whose(&mut self, port: &Port, ip: IpAddr) {
        let (device, bridge) = (self.index.index_of(&port.device), self.index.index_of(&port.bridge));
        let (Some(device), Some(bridge), Some(announcer)) = (device, bridge, &self.announcer) else { return };
        let Some(mac) = self.holders.of(bridge, ip).filter(|_| ip.is_ipv6()) else { return };
        let entry = self.engine.kernel().and_then(|kernel| Ok(kernel.neigh(bridge, ip)?));
        let router = entry.ok().flatten().is_some_and(|neigh| neigh.router);
        if let Err(error) = announcer.tell(device, &Moved { ip, mac, router }) {
            self.warn(port, &format!("it is not told that {ip} is {mac}'s: {error}"));
        }
    }

    /// It was silent for a moment, and lives.
    fn take_back(&mut self, port: &Port, address: Address) {
        let claimed = Claimed { had_it: true, ..Claimed::new(Claim::Uses) };
        match self.learned(port, address, claimed) {
            Ok(Learned::Refused(why)) => self.warn(port, &format!("an address is lost: {why}")),
            Ok(_) => self.reload_guest(&port.key),
            Err(error) => self.engine.journal.say(&Message::Warning(&error)),
        }
    }

    /// Another VTEP's guest has the address of one of ours, which only learned it: does ours answer for it still?
    pub(super) fn is_it_lost(&mut self, event: &Event) {
        let Event::Neigh { ip, mac: Some(by), index, gone: false, ext_learned: true, .. } = event else { return };
        let now = Instant::now();
        for port in self.index.learned_by(*index, *ip) {
            // What it had taken from that one goes back by right.
            if port.mac == *by
                || self.is_asked(&port.bridge, *ip)
                || self.claims.took(&port.bridge, *ip, port.mac, *by, now)
            {
                continue;
            }
            let record = self.engine.register.guest(&port.guest).ok().flatten();
            let endpoints = record.iter().flat_map(|r| &r.endpoints).filter(|e| e.device == port.device);
            let Some(address) = endpoints.flat_map(|e| &e.ips).find(|a| a.ip == *ip).copied() else { continue };
            let (own, index) = (port.mac, self.index.index_of(&port.device));
            let Some(index) = index else { continue };
            let Ok(probe) = Probe::open(Asked { index, from: *by, to: own, ip: *ip }) else { continue };
            let (key, bridge, device) = (port.key, port.bridge, port.device);
            self.asks.push(Ask { probe, key, bridge, device, address, why: Why::Lost, asked: 0, next: now });
        }
    }
}

impl Ask {
    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.probe)
    }
}
