//! The agent's loop.

use super::AgentError;
use super::arrival;
use super::asks::{Ask, Closer};
use super::claims::Claims;
use super::due::{Due, HOLD, PARTING, Patience, SOON, Task, Unsure};
use super::followers::Holders;
use super::hearing::Leases;
use super::index::{Index, Key, Look, Record, Why};
use super::metrics::{Metrics, Now};
use super::notify::Notify;
use super::scrape::Scrape;
use super::stanzas::{Busy, Heard};
use crate::config::SpeakerKind;
use crate::door::{self, Door};
use crate::engine::{Engine, EngineError, Synced, boot_micros};
use crate::guard;
use crate::hypervisor::{leases, libvirt};
use crate::input::libvirt_status::Life;
use crate::journal::Message;
use crate::kernel::{Event, Tables};
use crate::model::{Guest, NetName};
use crate::register::{GuestRecord, Lock, Stage, guest_key};
use crate::senses::Senses;
use crate::senses::watch::{Place, Sign};
use crate::snoop::{Announcer, Ears};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// libvirt writes a status file some times in a row while something happens.
const SETTLE: Duration = Duration::from_millis(20);
/// All is looked at once a second at most, and for a tenth of the time if that takes no longer wait than this: guests wait for it.
const BREATH: Duration = Duration::from_secs(1);
const BREATH_MOST: Duration = Duration::from_secs(5);
/// Between two looks at the host's rules: somebody who changes them writes some in a row.
const HOST_RESTS: Duration = Duration::from_millis(100);
/// On a network with many guests dnsmasq's list is written again and again; what is in it was most often heard before.
const LISTED: Duration = Duration::from_millis(100);
/// Some editors move the old file away before they write the new one.
const EDITED: Duration = Duration::from_millis(100);
/// FRR makes its sockets before it has read its configuration, and bgpd tells zebra to read the kernel's entries only then, 10 s later if it found no
/// zebra at first (lib/zclient.c): how long it is asked again, and how often at most.
const FRR_LIMIT: Duration = Duration::from_secs(60);
const FRR_FIRST: Duration = Duration::from_millis(100);
const FRR_MOST: Duration = Duration::from_secs(2);
/// So many guests at most are asked for one by one.
const FEW: usize = 8;
/// What it needs from then on to advertise what it read by itself; what is told again before is told for nothing.
const FRR_READS: Duration = Duration::from_millis(500);

/// An FRR that came back and has not been told all yet.
#[derive(Debug, Clone, Copy)]
struct Comeback {
    since: Instant,
    pause: Duration,
    /// It has read its configuration, and our networks' part of it was looked at.
    configured: bool,
    /// It knows our networks.
    reads: bool,
}

/// Which of a look's results are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tell {
    All,
    /// What is wrong may mend itself in a moment.
    Steps,
}

pub(super) struct Agent {
    pub(super) engine: Engine,
    senses: Senses,
    /// None where there are no packet sockets: then nothing is learned but from lists of leases.
    pub(super) ears: Option<Ears>,
    /// None where no network asks for port security.
    guards: Option<Tables>,
    /// None where another has it: there is one for the host, and it is not what an agent is for in the first place.
    door: Option<Door>,
    notify: Notify,
    pub(super) index: Index,
    pub(super) due: Due,
    pub(super) claims: Claims,
    pub(super) asks: Vec<Ask>,
    /// None until something was asked.
    pub(super) closer: Option<Closer>,
    pub(super) holders: Holders,
    /// None where there are no packet sockets.
    pub(super) announcer: Option<Announcer>,
    pub(super) leases: Leases,
    pub(super) patience: Patience,
    unsure: Unsure,
    /// What was told as wrong, so that it is not told again each time it is looked at.
    pub(super) told: HashMap<Task, Vec<String>>,
    /// Where FRR's sockets are; `None` where there is none to talk to.
    speaker: Option<PathBuf>,
    comeback: Option<Comeback>,
    pub(super) busy: Busy,
    /// When it came last, it did not take all within the time that it was given.
    speaker_lacks: bool,
    rest_until: Instant,
    host_rests: Instant,
    status: String,
    pub(super) metrics: Metrics,
    scrape: Scrape,
    _lock: Lock,
}

/// Runs until it is killed or cannot listen any more.
pub fn run(mut engine: Engine, notify: Notify) -> Result<Infallible, AgentError> {
    if let Some(error) = engine.config_that_holds()? {
        engine.journal.say(&Message::Warning(&error));
    }
    let speaker = &engine.config()?.speaker;
    let (speaker, vtysh) = match speaker.kind {
        SpeakerKind::Frr => (Some(speaker.socket_dir.clone()), Some(speaker.vtysh.clone())),
        SpeakerKind::None => (None, None),
    };
    let Some(lock) = engine.register.lock_agent()? else { return Err(AgentError::Running) };
    let mut places = vec![
        (Place::Networks, engine.register.networks_dir()),
        (Place::Guests, engine.register.guests_dir()),
        (Place::Domains, libvirt::DOMAINS.into()),
        (Place::LibvirtNetworks, libvirt::NETWORKS.into()),
        (Place::Leases, leases::LEASES.into()),
    ];
    // A watch needs a directory that is there whatever the current one is.
    let config = std::path::absolute(&engine.config_path.0).ok();
    places.extend(config.and_then(|path| Some((Place::Config, path.parent()?.to_owned()))));
    places.extend(speaker.clone().map(|dir| (Place::Speaker, dir)));
    places.extend(vtysh.map(|program| (Place::Vtysh, program)));
    let mut agent = Agent {
        senses: Senses::open(places)?,
        ears: open_ears(&mut engine),
        guards: None,
        door: open_door(&mut engine),
        engine,
        notify,
        index: Index::default(),
        due: Due::default(),
        claims: Claims::default(),
        asks: Vec::new(),
        closer: None,
        holders: Holders::default(),
        // Where there are none, that is told with the ears.
        announcer: Announcer::open().ok(),
        leases: Leases::default(),
        patience: Patience::default(),
        unsure: Unsure::default(),
        told: HashMap::new(),
        speaker,
        comeback: None,
        busy: Busy::default(),
        speaker_lacks: false,
        rest_until: Instant::now(),
        host_rests: Instant::now(),
        status: String::new(),
        metrics: Metrics::new(boot_micros()),
        scrape: Scrape::default(),
        _lock: lock,
    };
    agent.open_scrape();
    // From now on nothing is missed. The first look may take as long as FRR makes it wait, and systemd waits for no more than that it runs.
    agent.notify.say("READY=1");
    if let Err(error) = agent.engine.forget_all_ends() {
        agent.engine.journal.say(&Message::Warning(&error));
    }
    // Before a look that may take long: what moves meanwhile is told.
    match agent.reload() {
        Ok(()) => agent.read_holders(),
        Err(error) => agent.engine.journal.say(&Message::Warning(&error)),
    }
    agent.everything(Tell::All);
    if agent.speaker_is_there() && !(agent.speaker_is_configured() && agent.speaker_reads()) {
        agent.speaker_came_back();
    }
    agent.say_status();
    agent.engine.journal.object.clear();
    agent.engine.journal.say(&Message::Note(&agent.status));
    loop {
        agent.round()?;
    }
}

fn open_ears(engine: &mut Engine) -> Option<Ears> {
    let ears = Ears::open();
    ears.map_err(|error| {
        engine.journal.say(&Message::Warning(&format!("no addresses are learned from guests: {error}")))
    })
    .ok()
}

fn open_door(engine: &mut Engine) -> Option<Door> {
    let door = Door::bind(Path::new(door::PATH));
    door.map_err(|error| {
        let what = format!("no containers of users: cannot listen on {}: {error}", door::PATH);
        engine.journal.say(&Message::Warning(&what));
    })
    .ok()
}

impl Agent {
    fn round(&mut self) -> Result<(), AgentError> {
        self.tune();
        self.watch_settings();
        let wakes = self.ears.as_ref().and_then(Ears::wakes);
        let next = self.due.next().into_iter().chain(self.unsure.next()).chain(wakes).min();
        let next = next.into_iter().chain(self.scrape.next()).chain(self.asks_next()).chain(self.holders.next()).min();
        let others = self.door.iter().map(AsFd::as_fd).chain(self.ears.iter().map(AsFd::as_fd));
        let others = others.chain(self.guards.iter().map(AsFd::as_fd)).chain(self.asks.iter().map(Ask::fd));
        let others = others.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        self.senses.wait(others.chain(self.scrape.fds()), next)?;
        self.tell_figures();
        if let Some(door) = &mut self.door {
            door.serve(&mut self.engine).map_err(AgentError::Door)?;
        }
        if let Some(guards) = &mut self.guards
            && guards.lost(guard::TABLE).map_err(AgentError::Kernel)?
        {
            self.look(Look::Everything);
        }
        let (events, signs) = self.senses.take()?;
        for sign in signs {
            self.heed(sign);
        }
        for device in self.senses.written()? {
            for look in self.index.written(&device) {
                self.look(look);
            }
        }
        for event in &events {
            self.unhear(event);
            self.is_it_lost(event);
            self.holders.heard(event);
            if matches!(event, Event::Lost) {
                self.read_holders();
            }
            for look in self.index.react(event) {
                self.look(look);
            }
        }
        self.announce();
        // After the records: a guest is known before its first frame.
        self.tune();
        self.listen();
        self.hear_answers();
        // One task a round: what comes meanwhile is not left waiting behind a thousand others.
        let now = Instant::now();
        if self.due.crowd(now) {
            self.look(Look::Everything);
        }
        match self.due.pop(now) {
            Some(task) => self.act(task),
            None if self.unsure.next().is_some_and(|at| at <= now) => self.verify(now),
            None => {}
        }
        self.say_status();
        self.engine.journal.flush();
        Ok(())
    }

    fn look(&mut self, look: Look) {
        let now = Instant::now();
        let (task, why) = match look {
            Look::Guest(key, Why::Arrived) => return self.due.put(Task::Arrived(key), now),
            Look::Port(index) => return self.due.put(Task::Port(index), now),
            Look::Guest(key, why) => (Task::Guest(key), why),
            Look::Network(name, why) => (Task::Network(name), why),
            Look::Stanzas => return self.speaker_was_told(Heard::Lost),
            // No patience: whoever takes away the host's own addresses may do it as often as it likes.
            Look::Host => return self.due.put(Task::Host, self.host_rests.max(now + SOON)),
            Look::Everything => return self.due.put(Task::Everything, self.rest_until.max(now + SOON)),
        };
        let at = self.patience.when(&task, why, now);
        // The entries that it lost on its way told of a loss just before.
        if why == Why::Moved { self.due.postpone(task, at) } else { self.due.put(task, at) }
    }

    fn heed(&mut self, sign: Sign) {
        let now = Instant::now();
        match sign {
            Sign::Appeared(Place::Networks | Place::Guests) => {
                let known: HashSet<Key> = self.index.networks().map(|(key, _)| key.clone()).collect();
                self.reload_records();
                let new = self.index.networks().filter(|(key, _)| !known.contains(*key));
                let new: Vec<NetName> = new.map(|(_, name)| name.clone()).collect();
                new.into_iter().for_each(|name| self.expect(name));
            }
            Sign::Appeared(Place::Leases) => self.read_all_leases(),
            Sign::Appeared(Place::Config) => self.due.put(Task::Config, now + EDITED),
            Sign::Appeared(Place::Domains | Place::LibvirtNetworks) => self.look(Look::Everything),
            Sign::Lost => {
                self.metrics.lost += 1;
                self.due.put(Task::Config, now);
                self.look(Look::Everything);
            }
            Sign::Started(_) => self.speaker_was_told(Heard::Started),
            Sign::Ended(_) | Sign::Appeared(Place::Vtysh) => self.speaker_was_told(Heard::Ended),
            Sign::File(Place::Vtysh, _) => {}
            Sign::Appeared(Place::Speaker) => {
                if self.speaker_is_there() {
                    self.speaker_came_back();
                }
            }
            Sign::File(Place::Networks, key) => {
                let before = self.index.network(&key).cloned();
                self.reload_network(&key);
                match (before, self.index.network(&key).cloned()) {
                    (None, Some(name)) => self.expect(name),
                    (Some(name), None) => self.due.drop(&Task::NewNetwork(name)),
                    _ => {}
                }
            }
            Sign::File(Place::Config, name) => {
                if self.engine.config_path.0.file_name().is_some_and(|file| *file == *name) {
                    self.due.postpone(Task::Config, now + EDITED);
                }
            }
            Sign::File(Place::Guests, key) => self.reload_guest(&key),
            Sign::File(Place::Leases, bridge) => {
                if let Ok(bridge) = bridge.parse() {
                    self.due.put(Task::Leases(bridge), now + LISTED);
                }
            }
            Sign::File(Place::Domains, name) => {
                if let Some(key) = self.index.domain(&name)
                    && self.index.is_incoming(key)
                    && libvirt::life(&name) == Some(Life::Here)
                {
                    self.due.put(Task::Arrived(key.clone()), now);
                }
                self.due.put(Task::Domain(name), now + SETTLE);
            }
            // One that no hook told us of may be ours, too.
            Sign::File(Place::LibvirtNetworks, name) => {
                if let Ok(name) = name.parse() {
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
            Task::Host => {
                let result = self.engine.sync_host();
                self.done(&task, "the host", result);
                self.host_rests = Instant::now() + HOST_RESTS;
            }
            Task::Arrived(key) => self.arrive(key.clone()),
            // Meanwhile its guest's hook may have come.
            Task::Port(index) if self.index.is_known(*index) => {}
            Task::Port(index) => {
                if let Err(error) = self.engine.hold_port(*index) {
                    self.engine.journal.say(&Message::Warning(&error));
                }
            }
            Task::Everything => {
                self.everything(Tell::All);
            }
            Task::Speaker => self.tell_speaker(),
            Task::Stanzas => self.look_at_stanzas(),
            Task::Config => self.read_config(),
            // Its hook is at work, perhaps in FRR for seconds: neither wait for it nor undo it.
            Task::Network(name) | Task::NewNetwork(name) if self.is_at_work(name) => {
                self.due.put(task.clone(), Instant::now() + PARTING)
            }
            Task::NewNetwork(_) => self.look(Look::Everything),
            Task::Network(name) => {
                let result = self.engine.sync_network(name);
                self.done(&task, name.as_str(), result);
            }
            Task::Guest(key) if let Some(at) = self.may_have_lost(key) => self.due.put(task, at),
            Task::Guest(key) => {
                let Some(guest) = self.index.guest(key).cloned() else { return };
                let result = self.engine.sync_guest(&guest);
                if self.done(&task, &guest.name, result) > 0 {
                    self.doubt(key);
                }
                self.reload_guest(key);
            }
            Task::EndOfLease(key) => self.end_leases(key),
            Task::Leases(bridge) => self.read_leases(bridge),
            Task::Domain(name) => {
                let result = self.engine.sync_domain(name);
                self.done(&task, name, result);
            }
        }
    }

    /// A network is new: guests that have run without it want to be on it. After its hook, and not at all if it goes again.
    fn expect(&mut self, name: NetName) {
        self.due.postpone(Task::NewNetwork(name), Instant::now() + HOLD);
    }

    /// The hooks read it anew each time; what they make by it must not be undone by what it said before.
    fn read_config(&mut self) {
        let read = self.engine.reload_config();
        self.engine.journal.object.clear();
        match read {
            Ok(()) => {
                self.told.remove(&Task::Config);
                self.open_scrape();
                // It may say now where tunnels end.
                self.index.without_tunnels().into_iter().for_each(|look| self.look(look));
            }
            Err(error) => {
                let what = format!("{error}; what it said before still holds");
                let told = self.told.entry(Task::Config).or_default();
                if !told.contains(&what) {
                    self.engine.journal.say(&Message::Warning(&what));
                    told.push(what);
                }
            }
        }
    }

    fn is_at_work(&self, network: &NetName) -> bool {
        let register = &self.engine.register;
        let record = register.network(network).ok().flatten();
        record.is_some_and(|record| register.network_is_locked(&record.network))
    }

    /// Tells what came of it, and sees to it again where it failed. Returns how many steps it took.
    pub(super) fn done(&mut self, task: &Task, object: &str, result: Result<Synced, EngineError>) -> usize {
        let now = Instant::now();
        self.engine.journal.object = object.to_owned();
        let journal = &mut self.engine.journal;
        let mut failed = false;
        let (steps, mut problems) = match result {
            Ok(synced) => {
                // Of a guest or a network the engine tells itself.
                if synced.steps > 0 && *task == Task::Everything {
                    journal.say(&Message::Mended { steps: synced.steps });
                }
                if synced.steps > 0 {
                    self.metrics.mended(kind(task), synced.steps);
                }
                if synced.steps > 0 && self.patience.mended(task, now) {
                    journal.say(&Message::Claimed { guest: object });
                }
                (synced.steps, synced.problems)
            }
            Err(error) => {
                failed = true;
                (0, vec![error.to_string()])
            }
        };
        // Of one guest the engine tells as a problem what it could not do; nobody else looks at it again.
        failed |= !problems.is_empty() && matches!(task, Task::Guest(_) | Task::Domain(_));
        self.metrics.failed += u64::from(failed);
        if !failed {
            self.patience.worked(task);
        } else if let Some(at) = self.patience.failed(task, now) {
            self.due.put(task.clone(), at);
        } else {
            let who = if object.is_empty() { "the look at everything" } else { object };
            problems.push(format!("{who}: given up until it changes"));
        }
        let before = self.told.remove(task).unwrap_or_default();
        for problem in problems.iter().filter(|p| !before.contains(p)) {
            journal.say(&Message::Warning(problem));
        }
        if !problems.is_empty() {
            self.told.insert(task.clone(), problems);
        }
        steps
    }

    /// Looks at all that there is; returns what is wrong.
    fn everything(&mut self, tell: Tell) -> Vec<String> {
        let start = Instant::now();
        let mut result = match self.reload() {
            Ok(()) => self.engine.sync(),
            Err(error) => Err(error),
        };
        let problems = match &mut result {
            Ok(synced) if tell == Tell::Steps => std::mem::take(&mut synced.problems),
            Ok(synced) => synced.problems.clone(),
            Err(error) => vec![error.to_string()],
        };
        self.done(&Task::Everything, "", result);
        // What the sync changed of the records it has told by files too; but those who wait for a guest must not wait for a file.
        self.reload_records();
        self.read_all_leases();
        self.await_stanzas();
        let now = Instant::now();
        self.rest_until = now + (10 * (now - start)).clamp(BREATH, BREATH_MOST);
        let keys: Vec<Key> = self.index.guests().cloned().collect();
        for key in keys {
            self.doubt(&key);
        }
        problems
    }

    // ----- what is known -----

    fn reload(&mut self) -> Result<(), EngineError> {
        let links = self.engine.kernel()?.all_links()?;
        self.index.put_links(links);
        self.reload_records();
        // Before they are looked at: what is written after the look is told.
        self.watch_settings();
        Ok(())
    }

    fn reload_records(&mut self) {
        // A corrupt one is told by the engine, which reads them too.
        let records: Vec<_> = self.engine.register.guests().into_iter().flatten().collect();
        let keys: HashSet<Key> = records.iter().map(|record| guest_key(&record.guest).into()).collect();
        let gone: Vec<Key> = self.index.guests().filter(|key| !keys.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.take_guest(key, None));
        for record in records {
            self.take_guest(&guest_key(&record.guest), Some(record));
        }
        let networks: Vec<Key> = self.index.networks().map(|(key, _)| key.clone()).collect();
        networks.iter().for_each(|key| self.index.put_network(key, None));
        for record in self.engine.register.networks().into_iter().flatten() {
            self.index.put_network(record.network.bridge.as_str(), Some(&record));
        }
        self.watch_guards();
    }

    fn reload_network(&mut self, key: &str) {
        let record = key.parse().ok().and_then(|bridge| self.engine.register.network_of_bridge(&bridge).ok().flatten());
        self.index.put_network(key, record.as_ref());
        self.watch_guards();
    }

    /// Hears what is written to the settings of the networks' devices, from now on.
    fn watch_settings(&mut self) {
        if let Some(devices) = self.index.take_devices() {
            self.senses.watch_settings(&devices);
        }
    }

    /// Listens to nftables as long as a network asks for port security.
    fn watch_guards(&mut self) {
        if !self.index.is_guarded() {
            self.guards = None;
        } else if self.guards.is_none() {
            let opened = Tables::open();
            let warned =
                |error| self.engine.journal.say(&Message::Warning(&format!("port security is not watched: {error}")));
            self.guards = opened.map_err(warned).ok();
        }
    }

    pub(super) fn reload_guest(&mut self, key: &str) {
        let record = self.engine.register.guest_of_key(key).ok().flatten();
        self.take_guest(key, record);
    }

    fn take_guest(&mut self, key: &str, record: Option<GuestRecord>) {
        let became = self.index.put_guest(key, record.as_ref());
        let hooked = self.metrics.guest(&key.into(), record.as_ref());
        self.await_end_of_lease(&key.into(), record.as_ref());
        if became == Record::Arrived {
            self.patience.arrived(&key.into(), Instant::now());
        }
        match record {
            None => {
                self.unsure.drop(key);
                self.due.drop(&Task::Guest(key.into()));
            }
            Some(record) if became != Record::Same => {
                if self.index.is_incoming(key) && arrival::is_here(&mut self.engine, &record) {
                    self.due.put(Task::Arrived(key.into()), Instant::now());
                }
                if record.endpoints.iter().any(|e| e.stage != Stage::Incoming) {
                    self.doubt(&key.into());
                }
                self.time(&key.into(), hooked);
            }
            Some(_) => self.time(&key.into(), hooked),
        }
    }

    fn say_status(&mut self) {
        let (networks, guests) = self.index.sizes();
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
            // At once: what FRR takes back from now on is a loss.
            Ok(_) => {
                self.reload_guest(&key);
                self.patience.worked(&Task::Arrived(key));
            }
            Err(error) => {
                self.done(&Task::Arrived(key), &guest.name, Err(error));
            }
        }
    }

    // ----- the speaker -----

    pub(super) fn has_speaker(&self) -> bool {
        self.speaker.is_some()
    }

    /// It has new sockets and has not read its own configuration yet.
    pub(super) fn is_coming_back(&self) -> bool {
        self.comeback.is_some_and(|comeback| !comeback.configured)
    }

    fn speaker_is_there(&self) -> bool {
        self.speaker
            .as_ref()
            .is_some_and(|dir| ["zebra.vty", "bgpd.vty"].iter().all(|socket| dir.join(socket).exists()))
    }

    /// Has it read its configuration, so that it speaks EVPN?
    fn speaker_is_configured(&mut self) -> bool {
        self.engine.frr().ok().flatten().is_some_and(|mut frr| matches!(frr.evpn(), Ok(true)))
    }

    /// Does it know a network of ours? Then it has read the kernel's entries, too.
    fn speaker_reads(&mut self) -> bool {
        let Ok(Some(mut frr)) = self.engine.frr() else { return false };
        let networks: Vec<_> = self.engine.register.networks().into_iter().flatten().collect();
        networks.is_empty() || networks.iter().any(|record| matches!(frr.vni(record.network.vni), Ok(Some(_))))
    }

    fn speaker_came_back(&mut self) {
        let now = Instant::now();
        // Each of its daemons makes a socket.
        self.metrics.comebacks += u64::from(self.comeback.is_none());
        self.speaker_lacks = false;
        self.comeback = Some(Comeback { since: now, pause: FRR_FIRST, configured: false, reads: false });
        self.due.put(Task::Speaker, now + FRR_FIRST);
    }

    /// One step further: its configuration, its reading, and then a look at all.
    fn tell_speaker(&mut self) {
        let Some(mut comeback) = self.comeback.take() else { return };
        let now = Instant::now();
        if !comeback.configured && self.speaker_is_configured() {
            comeback.configured = true;
            let networks = self.index.networks().map(|(_, name)| Task::Network(name.clone()));
            networks.for_each(|task| self.due.put(task, now));
        }
        let mut problems = Vec::new();
        if comeback.reads {
            problems = self.everything(Tell::Steps);
            if problems.is_empty() {
                self.engine.journal.object.clear();
                return self.engine.journal.say(&Message::Note(&"FRR came back and has all again"));
            }
        } else if comeback.configured && self.speaker_reads() {
            comeback.reads = true;
            comeback.pause = FRR_READS / 2;
        }
        let now = Instant::now();
        if now - comeback.since > FRR_LIMIT {
            let why = problems.first().map_or("it does not know our VNIs: is 'advertise-all-vni' set?", String::as_str);
            let what = format!("FRR came back, but does not take all that it should: {why}");
            self.speaker_lacks = true;
            self.engine.journal.object.clear();
            return self.engine.journal.say(&Message::Warning(&what));
        }
        comeback.pause = (2 * comeback.pause).min(FRR_MOST);
        self.comeback = Some(comeback);
        self.due.put(Task::Speaker, now + comeback.pause);
    }

    /// A hook has registered it just now: how soon is it advertised?
    fn time(&mut self, key: &Key, hooked: bool) {
        if hooked && self.speaker.is_some() && self.scrape.is_open() {
            self.unsure.put_early(key, Instant::now());
        }
    }

    fn doubt(&mut self, key: &Key) {
        if self.speaker.is_some() && !self.index.is_incoming(key) {
            self.unsure.put(key, Instant::now());
        }
    }

    /// Asks for all those at once whose time has come.
    fn verify(&mut self, now: Instant) {
        let (early, keys): (Vec<Key>, Vec<Key>) =
            self.unsure.due(now).into_iter().partition(|key| self.unsure.is_early(key));
        self.ask_early(&early);
        if keys.is_empty() {
            return;
        }
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
        let answered = missing.is_some();
        let missing = missing.unwrap_or_default();
        for (key, guest) in keys.iter().zip(&guests) {
            let why = missing.iter().find(|(who, _)| guest_key(who) == **key).map(|(_, why)| why);
            if answered {
                self.metrics.answered(key, why.is_none(), boot_micros());
            }
            if let (true, Some(why)) = (self.unsure.answered(key, why.is_none()), why) {
                self.metrics.in_vain(key);
                self.engine.journal.object.clone_from(&guest.name);
                self.engine.journal.say(&Message::NotAdvertised { guest: &guest.name, why });
            }
        }
    }

    /// How soon is what the hooks registered just now advertised? A crowd is not asked for one by one, nor is a silent FRR asked again: the later
    /// questions are for all at once.
    fn ask_early(&mut self, keys: &[Key]) {
        let mut speaks = keys.len() <= FEW;
        for key in keys {
            let guest = self.index.guest(key).filter(|_| speaks).cloned();
            match guest.and_then(|guest| self.engine.is_advertised(&guest).ok().flatten()) {
                Some(advertised) => {
                    self.metrics.answered(key, advertised, boot_micros());
                    self.unsure.answered(key, advertised);
                }
                None => {
                    speaks = false;
                    self.unsure.not_early(key);
                }
            }
        }
    }

    // ----- figures -----

    /// Where config.toml says, and not where it does not.
    fn open_scrape(&mut self) {
        let at = self.engine.config().ok().and_then(|config| config.metrics.clone());
        if let Err(error) = self.scrape.listen(at.as_ref()) {
            let what = format!("no metrics: cannot listen at [agent] metrics: {error}");
            self.engine.journal.say(&Message::Warning(&what));
        }
    }

    fn tell_figures(&mut self) {
        let Agent { scrape, metrics, index, ears, speaker, comeback, speaker_lacks, due, .. } = self;
        scrape.serve(&mut || {
            metrics.scrapes += 1;
            let daemons = ["zebra", "bgpd"];
            let up =
                |dir: &PathBuf| daemons.map(|daemon| (daemon, answers(&dir.join(format!("{daemon}.vty"))))).to_vec();
            metrics.text(&Now {
                networks: index.networks().map(|(_, name)| name.as_str()).collect(),
                ports: ears.as_ref().map_or(0, |ears| ears.ports().count()),
                speaker: speaker.as_ref().map(up).unwrap_or_default(),
                speaker_has_all: comeback.is_none() && !*speaker_lacks,
                tasks: due.waiting(),
            })
        });
    }
}

/// What was looked at, for the figures.
fn kind(task: &Task) -> &'static str {
    match task {
        Task::Everything | Task::Speaker | Task::Stanzas | Task::Config | Task::NewNetwork(_) => "everything",
        Task::Network(_) => "network",
        Task::Host => "host",
        Task::Port(_) => "guest",
        Task::Guest(_) | Task::Arrived(_) | Task::Domain(_) | Task::EndOfLease(_) | Task::Leases(_) => "guest",
    }
}

/// Does somebody take connections at this socket? Never waits: one with a full queue is there, too.
fn answers(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (Ok(address), Ok(socket)) =
        (SocketAddrUnix::new(path), socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None))
    else {
        return false;
    };
    matches!(connect(&socket, &address), Ok(()) | Err(rustix::io::Errno::AGAIN))
}
