//! The agent's loop.

use super::AgentError;
use super::arrival;
use super::due::{Due, Patience, SOON, Task, Unsure};
use super::index::{Index, Key, Look, Record, Why};
use super::notify::Notify;
use super::senses::Senses;
use super::watch::{Place, Sign};
use crate::config::SpeakerKind;
use crate::engine::{Engine, EngineError, Synced};
use crate::hypervisor::libvirt;
use crate::input::libvirt_status::Life;
use crate::journal::Message;
use crate::model::Guest;
use crate::register::{Lock, Stage, guest_key};
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// libvirt writes a status file some times in a row while something happens.
const SETTLE: Duration = Duration::from_millis(20);
/// All is looked at once a second at most, and for a tenth of the time at most.
const BREATH: Duration = Duration::from_secs(1);
/// FRR makes its sockets before it has read its configuration: how long it is asked again, and how often at most.
const FRR_LIMIT: Duration = Duration::from_secs(60);
const FRR_FIRST: Duration = Duration::from_millis(100);
const FRR_MOST: Duration = Duration::from_secs(2);

/// An FRR that came back and has not been told all yet.
#[derive(Debug, Clone, Copy)]
struct Comeback {
    since: Instant,
    pause: Duration,
}

struct Agent {
    engine: Engine,
    senses: Senses,
    notify: Notify,
    index: Index,
    due: Due,
    patience: Patience,
    unsure: Unsure,
    /// What was told as wrong, so that it is not told again each time it is looked at.
    told: HashMap<Task, Vec<String>>,
    /// Where FRR's sockets are; `None` where there is none to talk to.
    speaker: Option<PathBuf>,
    comeback: Option<Comeback>,
    rest_until: Instant,
    status: String,
    _lock: Lock,
}

/// Runs until it is killed or cannot listen any more.
pub fn run(mut engine: Engine, notify: Notify) -> Result<Infallible, AgentError> {
    let speaker = &engine.config()?.speaker;
    let speaker = (speaker.kind == SpeakerKind::Frr).then(|| speaker.socket_dir.clone());
    let Some(lock) = engine.register.lock_agent()? else { return Err(AgentError::Running) };
    let mut places = vec![
        (Place::Networks, engine.register.networks_dir()),
        (Place::Guests, engine.register.guests_dir()),
        (Place::Domains, libvirt::DOMAINS.into()),
        (Place::LibvirtNetworks, libvirt::NETWORKS.into()),
    ];
    places.extend(speaker.clone().map(|dir| (Place::Speaker, dir)));
    let mut agent = Agent {
        senses: Senses::open(places)?,
        engine,
        notify,
        index: Index::default(),
        due: Due::default(),
        patience: Patience::default(),
        unsure: Unsure::default(),
        told: HashMap::new(),
        speaker,
        comeback: None,
        rest_until: Instant::now(),
        status: String::new(),
        _lock: lock,
    };
    agent.everything();
    if agent.speaker_is_there() && !agent.speaker_is_ready() {
        agent.speaker_came_back();
    }
    agent.notify.say("READY=1");
    agent.say_status();
    agent.engine.journal.object.clear();
    agent.engine.journal.say(&Message::Note(&agent.status));
    loop {
        agent.round()?;
    }
}

impl Agent {
    fn round(&mut self) -> Result<(), AgentError> {
        let next = self.due.next().into_iter().chain(self.unsure.next()).min();
        self.senses.wait(next)?;
        let (events, signs) = self.senses.take()?;
        for sign in signs {
            self.heed(sign);
        }
        for event in &events {
            for look in self.index.react(event) {
                self.look(look);
            }
        }
        // One task a round: what comes meanwhile is not left waiting behind a thousand others.
        let now = Instant::now();
        match self.due.pop(now) {
            Some(task) => self.act(task),
            None if self.unsure.next().is_some_and(|at| at <= now) => self.verify(now),
            None => {}
        }
        self.say_status();
        Ok(())
    }

    fn look(&mut self, look: Look) {
        let now = Instant::now();
        let (task, why) = match look {
            Look::Guest(key, Why::Arrived) => return self.due.put(Task::Arrived(key), now),
            Look::Guest(key, why) => (Task::Guest(key), why),
            Look::Network(name, why) => (Task::Network(name), why),
            Look::Everything => return self.due.put(Task::Everything, self.rest_until.max(now + SOON)),
        };
        let at = self.patience.when(&task, why, now);
        self.due.put(task, at);
    }

    fn heed(&mut self, sign: Sign) {
        let now = Instant::now();
        match sign {
            Sign::Appeared(Place::Networks | Place::Guests) => self.reload_records(),
            Sign::Appeared(Place::Domains | Place::LibvirtNetworks) | Sign::Lost => self.look(Look::Everything),
            Sign::Appeared(Place::Speaker) => {
                if self.speaker_is_there() {
                    self.speaker_came_back();
                }
            }
            Sign::File(Place::Networks, key) => self.reload_network(&key),
            Sign::File(Place::Guests, key) => self.reload_guest(&key),
            Sign::File(Place::Domains, name) => {
                if let Some(key) = self.index.domain(&name)
                    && self.index.is_incoming(key)
                    && libvirt::life(&name) == Some(Life::Here)
                {
                    self.due.put(Task::Arrived(key.clone()), now);
                }
                self.due.put(Task::Domain(name), now + SETTLE);
            }
            Sign::File(Place::LibvirtNetworks, name) => {
                let ours = self.index.networks().find(|(_, ours)| ours.as_str() == name);
                if let Some(name) = ours.map(|(_, name)| name.clone()) {
                    self.look(Look::Network(name, Why::Gone));
                }
            }
            Sign::File(Place::Speaker, daemon) => {
                if daemon == "zebra" || daemon == "bgpd" {
                    self.speaker_came_back();
                }
            }
        }
    }

    fn act(&mut self, task: Task) {
        match &task {
            Task::Arrived(key) => self.arrive(key.clone()),
            Task::Everything => {
                self.everything();
            }
            Task::Speaker => self.tell_speaker(),
            Task::Network(name) => {
                let result = self.engine.sync_network(name);
                self.done(&task, name.as_str(), result);
            }
            Task::Guest(key) => {
                let Some(guest) = self.index.guest(key).cloned() else { return };
                let result = self.engine.sync_guest(&guest);
                if self.done(&task, &guest.name, result) > 0 {
                    self.doubt(key);
                }
                self.reload_guest(key);
            }
            Task::Domain(name) => {
                let result = self.engine.sync_domain(name);
                self.done(&task, name, result);
            }
        }
    }

    /// Tells what came of it, and sees to it again where it failed. Returns how many steps it took.
    fn done(&mut self, task: &Task, object: &str, result: Result<Synced, EngineError>) -> usize {
        let now = Instant::now();
        self.engine.journal.object = object.to_owned();
        let journal = &mut self.engine.journal;
        let (steps, problems) = match result {
            Ok(synced) => {
                if synced.steps > 0 {
                    journal.say(&Message::Mended { object, steps: synced.steps });
                    if self.patience.mended(task, now) {
                        journal.say(&Message::Claimed { guest: object });
                    }
                }
                (synced.steps, synced.problems)
            }
            Err(error) => {
                match self.patience.failed(task, now) {
                    Some(at) => self.due.put(task.clone(), at),
                    None => {
                        journal.say(&Message::Warning(&format_args!("{object}: given up until it changes: {error}")))
                    }
                }
                (0, vec![error.to_string()])
            }
        };
        let before = self.told.remove(task).unwrap_or_default();
        for problem in problems.iter().filter(|p| !before.contains(p)) {
            journal.say(&Message::Warning(problem));
        }
        if !problems.is_empty() {
            self.told.insert(task.clone(), problems);
        }
        steps
    }

    /// Looks at all that there is; is all well?
    fn everything(&mut self) -> bool {
        let start = Instant::now();
        let result = match self.reload() {
            Ok(()) => self.engine.sync(),
            Err(error) => Err(error),
        };
        let clean = result.as_ref().is_ok_and(|synced| synced.problems.is_empty());
        self.done(&Task::Everything, "", result);
        // What the sync changed of the records it has told by files too; but those who wait for a guest must not wait for a file.
        self.reload_records();
        let now = Instant::now();
        self.rest_until = now + BREATH.max(10 * (now - start));
        let keys: Vec<Key> = self.index.guests().cloned().collect();
        for key in keys {
            self.doubt(&key);
        }
        clean
    }

    // ----- what is known -----

    fn reload(&mut self) -> Result<(), EngineError> {
        let links = self.engine.kernel()?.all_links()?;
        self.index.put_links(links);
        self.reload_records();
        Ok(())
    }

    fn reload_records(&mut self) {
        let guests: Vec<Key> = self.index.guests().cloned().collect();
        for key in guests {
            self.reload_guest(&key);
        }
        let networks: Vec<Key> = self.index.networks().map(|(key, _)| key.clone()).collect();
        for key in networks {
            self.reload_network(&key);
        }
        // A corrupt one is told by the engine, which reads them too.
        for record in self.engine.register.guests().into_iter().flatten() {
            self.reload_guest(&guest_key(&record.guest));
        }
        for record in self.engine.register.networks().into_iter().flatten() {
            self.index.put_network(record.network.bridge.as_str(), Some(&record));
        }
    }

    fn reload_network(&mut self, key: &str) {
        let record = key.parse().ok().and_then(|bridge| self.engine.register.network_of_bridge(&bridge).ok().flatten());
        self.index.put_network(key, record.as_ref());
    }

    fn reload_guest(&mut self, key: &str) {
        let record = self.engine.register.guest_of_key(key).ok().flatten();
        let changed = self.index.put_guest(key, record.as_ref()) == Record::Changed;
        match record {
            None => {
                self.unsure.drop(key);
                self.due.drop(&Task::Guest(key.into()));
            }
            Some(record) if changed => {
                if self.index.is_incoming(key) && arrival::is_here(&mut self.engine, &record) {
                    self.due.put(Task::Arrived(key.into()), Instant::now());
                }
                if record.endpoints.iter().any(|e| e.stage != Stage::Incoming) {
                    self.doubt(&key.into());
                }
            }
            Some(_) => {}
        }
    }

    fn say_status(&mut self) {
        let (networks, guests) = (self.index.networks().count(), self.index.guests().count());
        let status = format!("watching {networks} networks, {guests} guests");
        if status != self.status {
            self.notify.say(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    // ----- arrivals -----

    fn arrive(&mut self, key: Key) {
        let Some(guest) = self.index.guest(&key).cloned() else { return };
        match self.engine.arrived(&guest) {
            Ok(arrived) => {
                // At once: what FRR takes back from now on is a loss.
                self.reload_guest(&key);
                if arrived {
                    self.patience.arrived(&key, Instant::now());
                    self.doubt(&key);
                }
            }
            Err(error) => {
                self.done(&Task::Arrived(key), &guest.name, Err(error));
            }
        }
    }

    // ----- the speaker -----

    fn speaker_is_there(&self) -> bool {
        self.speaker
            .as_ref()
            .is_some_and(|dir| ["zebra.vty", "bgpd.vty"].iter().all(|socket| dir.join(socket).exists()))
    }

    /// Does it speak EVPN, which is to say: has it read its configuration?
    fn speaker_is_ready(&mut self) -> bool {
        self.engine.frr().ok().flatten().is_some_and(|mut frr| matches!(frr.evpn(), Ok(true)))
    }

    fn speaker_came_back(&mut self) {
        let now = Instant::now();
        self.comeback = Some(Comeback { since: now, pause: FRR_FIRST });
        self.due.put(Task::Speaker, now + FRR_FIRST);
    }

    fn tell_speaker(&mut self) {
        let Some(mut comeback) = self.comeback.take() else { return };
        if self.speaker_is_ready() && self.everything() {
            self.engine.journal.object.clear();
            return self.engine.journal.say(&Message::Note(&"FRR came back and has all again"));
        }
        let now = Instant::now();
        if now - comeback.since > FRR_LIMIT {
            let what = "FRR came back, but does not take all that it should: see 'evpn-hook status', and 'advertise-all-vni' in 'vtysh -c \"show running-config\"'";
            self.engine.journal.object.clear();
            return self.engine.journal.say(&Message::Warning(&what));
        }
        comeback.pause = (2 * comeback.pause).min(FRR_MOST);
        self.comeback = Some(comeback);
        self.due.put(Task::Speaker, now + comeback.pause);
    }

    fn doubt(&mut self, key: &Key) {
        if self.speaker.is_some() && !self.index.is_incoming(key) {
            self.unsure.put(key, Instant::now());
        }
    }

    /// Asks for all those at once whose time has come.
    fn verify(&mut self, now: Instant) {
        let keys = self.unsure.due(now);
        let known = |key: &Key| Some((key.clone(), self.index.guest(key)?.clone()));
        let (keys, guests): (Vec<Key>, Vec<Guest>) = keys.iter().filter_map(known).unzip();
        let missing = match self.engine.verify(&guests) {
            Ok(missing) => missing,
            Err(error) => {
                // An FRR that is gone is no news; it is told all when it comes back.
                if self.speaker_is_there() {
                    self.engine.journal.say(&Message::Warning(&error));
                }
                return self.unsure.clear();
            }
        };
        for (key, guest) in keys.iter().zip(&guests) {
            let why = missing.iter().find(|(who, _)| guest_key(who) == **key).map(|(_, why)| why);
            if let (true, Some(why)) = (self.unsure.answered(key, why.is_none()), why) {
                self.engine.journal.object.clone_from(&guest.name);
                self.engine.journal.say(&Message::NotAdvertised { guest: &guest.name, why });
            }
        }
    }
}
