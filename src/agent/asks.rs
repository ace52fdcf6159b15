//! Guests that are asked whether they still have an address, before another gets it: some times, in a quarter of a second.

use super::daemon::Agent;
use super::due::Task;
use super::followers;
use super::index::{Key, Port};
use crate::engine::{Claimed, Learned};
use crate::journal::Message;
use crate::kernel::Event;
use crate::model::{Address, IfName, Mac, Source};
use crate::plan::whose::{Answer, Claim, Holder};
use crate::snoop::{Asked, Moved, Probe};
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// A guest answers within a millisecond, behind another VTEP within some. One that is paused, or starts, does not at all.
const TRIES: u32 = 3;
const EVERY: Duration = Duration::from_millis(80);
/// So many questions are open at once: each is a socket.
const MOST: usize = 256;
/// And so many of them for one port.
const MOST_OF_ONE: usize = 4;

/// What the answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The guest on this port claims it, and its holder is asked.
    Claimed(Claim),
    /// That was refused a while ago: the guest on this port is asked whether it has it still.
    Claims,
    /// It was taken from the guest on this port, by one behind another VTEP.
    Lost,
    /// The guest on this port asks whether it is free.
    Probed,
    /// Its server says no more that it is the guest's on this port.
    Unleased,
}

/// A question that is not answered yet.
pub struct Ask {
    probe: Probe,
    key: Key,
    device: IfName,
    address: Address,
    why: Why,
    asked: u32,
    next: Instant,
}

/// Closes the sockets of questions that are over. close(2) waits until no CPU has them in its hands any more (`packet_release`, net/packet/af_packet.c:
/// `synchronize_net`): some 15 ms, in which the agent would hear nobody.
pub struct Closer(SyncSender<Probe>);

impl Closer {
    fn start() -> Closer {
        let (sender, over) = sync_channel(MOST);
        std::thread::spawn(move || over.into_iter().for_each(drop));
        Closer(sender)
    }
}

impl Agent {
    /// Is this guest's claim being looked at, or a better one of its own?
    pub(super) fn is_claimed(&self, key: &Key, address: Address) -> bool {
        let claimed = |ask: &Ask| matches!(ask.why, Why::Claimed(_)) && ask.key == *key && ask.address.ip == address.ip;
        self.asks.iter().any(|ask| claimed(ask) && ask.address.source <= address.source)
    }

    /// Is a guest being asked on which it depends whether this one has lost an address?
    pub(super) fn may_have_lost(&self, key: &Key) -> Option<Instant> {
        self.asks.iter().filter(|ask| ask.why == Why::Lost && ask.key == *key).map(|ask| ask.next).max()
    }

    fn is_asked(&self, port: &Port, ip: IpAddr, why: Why) -> bool {
        self.asks.iter().any(|ask| ask.why == why && ask.device == port.device && ask.address.ip == ip)
    }

    /// Asks one guest about an address of this port. False where too much is asked already.
    fn put_question(&mut self, port: &Port, address: Address, why: Why, asked: Asked) -> io::Result<bool> {
        let of_it = self.asks.iter().filter(|ask| ask.device == port.device).count();
        if self.asks.len() >= MOST || of_it >= MOST_OF_ONE {
            return Ok(false);
        }
        let probe = Probe::open(asked)?;
        let (key, device) = (port.key.clone(), port.device.clone());
        self.asks.push(Ask { probe, key, device, address, why, asked: 0, next: Instant::now() });
        Ok(true)
    }

    /// Asks the guest with this MAC whether it still has the address that this port's guest claims.
    pub(super) fn ask_holder(&mut self, port: &Port, address: Address, claim: Claim, holder: Holder, mac: Mac) {
        let index = match holder {
            Holder::Vtep => self.index.tunnel_of(&port.bridge),
            _ => {
                let ports = self.index.ports_of(&port.bridge, mac);
                ports.first().and_then(|of| self.index.index_of(&of.device))
            }
        };
        // Whose port is gone answers no more; a tunnel that is gone proves nothing.
        let Some(index) = index else {
            let answer = if holder == Holder::Vtep { Answer::Yes } else { Answer::No };
            return self.judge(port, address, claim, Some((mac, answer)));
        };
        let asked = Asked { index, from: port.mac, to: mac, ip: address.ip };
        match self.put_question(port, address, Why::Claimed(claim), asked) {
            Ok(true) => {}
            Ok(false) => {
                self.metrics.refused += 1;
                self.claims.judge_again(&port.device, address, Instant::now());
                self.warn(port, "claims more at once than is looked at: the rest waits");
            }
            Err(error) if is_gone(&error) && holder != Holder::Vtep => {
                self.judge(port, address, claim, Some((mac, Answer::No)));
            }
            Err(error) => {
                self.warn(port, &format!("{mac} cannot be asked for {}: {error}", address.ip));
                self.judge(port, address, claim, Some((mac, Answer::Yes)));
            }
        }
    }

    /// Asks this port's own guest whether it has an address. The answer goes to the bridge itself, and nobody else hears of it. Is it asked?
    fn ask_itself(&mut self, port: &Port, address: Address, why: Why) -> bool {
        let Some(index) = self.index.index_of(&port.device) else { return false };
        let bridge = self.engine.kernel().and_then(|kernel| Ok(kernel.link(&port.bridge)?));
        let Some(from) = bridge.ok().flatten().and_then(|bridge| bridge.mac) else { return false };
        self.put_question(port, address, why, Asked { index, from, to: port.mac, ip: address.ip }).unwrap_or(false)
    }

    /// When the next of them is asked again, or has not answered, or is judged again.
    pub(super) fn asks_next(&self) -> Option<Instant> {
        self.asks.iter().map(|ask| ask.next).chain(self.claims.again_next()).min()
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
            } else if ask.asked == TRIES {
                Some(Answer::No)
            } else {
                // What could not be sent is a question less; who is gone will not answer the others either.
                (ask.asked, ask.next) = (ask.asked + 1, now + EVERY);
                ask.probe.ask().is_err_and(|error| is_gone(&error)).then_some(Answer::No)
            };
            match answer {
                Some(answer) => told.push((self.asks.swap_remove(at), answer)),
                None => at += 1,
            }
        }
        for (ask, answer) in told {
            self.answered(&ask, answer);
            // Where there are too many it waits here after all.
            let closer = self.closer.get_or_insert_with(Closer::start);
            drop(closer.0.try_send(ask.probe));
        }
        for (device, address) in self.claims.again(now) {
            self.claims_still(&device, address);
        }
    }

    fn answered(&mut self, ask: &Ask, answer: Answer) {
        let Some(port) = self.index.ports_on(&ask.device).into_iter().find(|port| port.key == ask.key) else { return };
        let ip = ask.address.ip;
        match (ask.why, answer) {
            (Why::Claimed(claim), _) => self.judge(&port, ask.address, claim, Some((ask.probe.of(), answer))),
            (Why::Claims, Answer::Yes) => self.judge(&port, ask.address, Claim::Uses, None),
            (Why::Claims, _) => self.claims.settled(&port.device, ip),
            (Why::Lost, Answer::Yes) => self.take_back(&port, ask.address),
            (Why::Lost, _) => {
                let by = self.index.index_of(&port.bridge).and_then(|bridge| self.holders.of(bridge, ip));
                by.into_iter().for_each(|by| self.claims.lost(&port.bridge, ip, port.mac, by.mac, Instant::now()));
                self.due.put(Task::Guest(port.key.clone()), Instant::now());
            }
            (Why::Probed, Answer::Yes) => self.say_whose(&port, ip),
            (Why::Probed, _) => {}
            (Why::Unleased, Answer::Yes) => match self.engine.unlease(&port.guest, &port.device, ip) {
                Ok(true) => self.reload_guest(&port.key),
                Ok(false) => self.end_lease(&port, ip),
                Err(error) => self.engine.journal.say(&Message::Warning(&error)),
            },
            (Why::Unleased, _) => self.end_lease(&port, ip),
        }
    }

    /// A claim that was refused a while ago: has the guest that address still?
    fn claims_still(&mut self, device: &IfName, address: Address) {
        let port = self.index.ports_on(device).into_iter().next().filter(|port| !port.has(address.ip));
        match port {
            None => self.claims.settled(device, address.ip),
            // What cannot be asked now is asked the next time.
            Some(port) if self.is_asked(&port, address.ip, Why::Claims) => {}
            Some(port) => _ = self.ask_itself(&port, address, Why::Claims),
        }
    }

    /// A guest asks whether an address is free. Where neighbours are suppressed its question reaches no other host: so one of them is asked for it.
    pub(super) fn probed(&mut self, port: &Port, ip: IpAddr) {
        if self.is_asked(port, ip, Why::Probed) {
            return;
        }
        let bridge = self.index.index_of(&port.bridge);
        let holder = bridge.and_then(|bridge| self.holders.of(bridge, ip));
        let Some(of) = holder.map(|holder| holder.mac) else { return };
        if of == port.mac
            || !self.index.ports_of(&port.bridge, of).is_empty()
            || !self.claims.may_probe(&port.device, Instant::now())
        {
            return;
        }
        let Some(index) = self.index.tunnel_of(&port.bridge) else { return };
        let address = Address::new(ip, Source::Neighbour);
        if let Err(error) = self.put_question(port, address, Why::Probed, Asked { index, from: port.mac, to: of, ip }) {
            self.warn(port, &format!("{of} cannot be asked for {ip}: {error}"));
        }
    }

    /// An ARP probe's answer went to whoever asked, by itself. A neighbour advertisement goes to all, which is suppressed (RFC 4861 §7.2.4).
    fn say_whose(&mut self, port: &Port, ip: IpAddr) {
        let (device, bridge) = (self.index.index_of(&port.device), self.index.index_of(&port.bridge));
        let (Some(device), Some(bridge), Some(announcer)) = (device, bridge, &self.announcer) else { return };
        let Some(followers::Holder { mac, router }) = self.holders.of(bridge, ip).filter(|_| ip.is_ipv6()) else {
            return;
        };
        if let Err(error) = announcer.tell(device, &Moved { ip, mac, router }) {
            self.warn(port, &format!("it is not told that {ip} is {mac}'s: {error}"));
        }
    }

    /// It was taken, and lives: it stays its own. Not for ever, where two hosts both say so.
    fn take_back(&mut self, port: &Port, address: Address) {
        let key = port.key.clone();
        if !self.claims.may_take_back(&port.bridge, address.ip, Instant::now()) {
            return self.due.put(Task::Guest(key), Instant::now());
        }
        if port.has(address.ip) {
            self.engine.stands = Some((port.mac, address.ip));
            let result = self.engine.sync_guest(&port.guest);
            self.engine.stands = None;
            self.done(&Task::Guest(key.clone()), &port.guest.name, result);
            return self.reload_guest(&key);
        }
        // A look at everything has given it up meanwhile.
        let claimed = Claimed { had_it: true, ..Claimed::new(Claim::Uses) };
        match self.learned(port, address, claimed) {
            Ok(Learned::Refused(why)) => self.warn(port, &format!("an address is lost: {why}")),
            Ok(_) => self.reload_guest(&key),
            Err(error) => self.engine.journal.say(&Message::Warning(&error)),
        }
    }

    /// Another VTEP's guest has the address of one of ours, which only learned it: does ours answer for it still? Until that is known it is not given up.
    pub(super) fn is_it_lost(&mut self, event: &Event) {
        let Event::Neigh { ip, mac: Some(by), index, gone: false, ext_learned: true, .. } = event else { return };
        let now = Instant::now();
        for port in self.index.learned_by(*index, *ip) {
            // What it had taken from that one goes back by right.
            if port.mac == *by
                || self.is_asked(&port, *ip, Why::Lost)
                || self.claims.took(&port.bridge, *ip, port.mac, *by, now)
            {
                continue;
            }
            let Some(source) = port.source_of(*ip) else { continue };
            let Some(index) = self.index.index_of(&port.device) else { continue };
            let asked = Asked { index, from: *by, to: port.mac, ip: *ip };
            match self.put_question(&port, Address::new(*ip, source), Why::Lost, asked) {
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => self.warn(&port, &format!("it cannot be asked for {ip}: {error}")),
            }
        }
    }

    /// Its server says no more that an address is this guest's. It may be that the server was told so by another.
    pub(super) fn is_it_unleased(&mut self, port: &Port, ip: IpAddr) {
        let lease = Address::new(ip, Source::Lease);
        if !self.is_asked(port, ip, Why::Unleased) && !self.ask_itself(port, lease, Why::Unleased) {
            self.end_lease(port, ip);
        }
    }
}

/// The device is not there any more, or down: who is behind it does not answer.
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NODEV | Errno::NXIO | Errno::NETDOWN))
}

impl Ask {
    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.probe)
    }
}
