//! When it is looked at: at once, after a hold, or after what patience demands. Pure: the time is an argument.

use super::index::{Key, Why};
use crate::model::{IfName, NetName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A loss seldom comes alone (FDB entry, neighbours, device): what comes within this is one look.
pub const SOON: Duration = Duration::from_millis(10);
/// The same for a network's devices: its hook makes them one by one in some 10 ms, and who looks in between would make the rest as well.
pub const BUILDING: Duration = Duration::from_millis(50);
/// How long another VTEP's claim stands before it is questioned. A guest that moved away leaves its tap some 1 s after the target announced
/// it, and the source must not take its routes back in between.
pub const HOLD: Duration = Duration::from_secs(1);
/// How long whoever deleted a network's device has to tell us that the network goes: libvirt's `stopped` hook follows within some 100 ms.
pub const PARTING: Duration = Duration::from_millis(500);
/// After an arrival FRR may still be busy with the source's routes, and delete or overwrite what we put (FRR issue 21472).
pub const FRESH: Duration = Duration::from_secs(5);
/// An arrival stays fresh with each loss, but not for longer than this: two hosts must not fight for ever.
pub const FRESH_MOST: Duration = Duration::from_secs(30);
/// The longest wait between two repairs of what another VTEP takes. FRR calls a MAC a duplicate after 5 moves within 180 s (RFC 7432 15.1), and
/// there are two of us to move it.
const LONGEST: Duration = Duration::from_secs(180);
/// The same for what somebody on this host breaks again and again: no other host hears of that.
const LONGEST_HERE: Duration = Duration::from_secs(60);
/// What was quiet for so many of its longest waits is trusted again. The other side waits as long as we do before it takes its turn: with one wait
/// or two both would forget, and begin anew with a burst.
const QUIET: u32 = 3;
/// So many repairs in a row of what another VTEP takes are told to the operator.
const DUPLICATE: u32 = 3;
/// What fails is tried again so often: 1 + 2 + 4 + … 32 s are a minute.
const TRIES: u32 = 6;
/// So long after its last try a failure is history.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// A look at one guest costs some ms where the host has 1,000, a look at all of them 100: from so many on the latter.
const CROWD: usize = 32;

/// Something to do; what is first here comes first of those that are due.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// See to the host's routing rules and IP forwarding: without table local it knows none of its own addresses.
    Host,
    /// Register a guest that runs here now.
    Arrived(Key),
    /// Hold a port of nobody's.
    Port(u32),
    /// Look at all that there is.
    Everything,
    /// See whether FRR is ready, and tell it all.
    Speaker,
    /// See whether FRR still has the networks' part of its configuration.
    Stanzas,
    /// Read config.toml anew.
    Config,
    /// Look at all that may have waited for this network.
    NewNetwork(NetName),
    /// Look at one network.
    Network(NetName),
    /// Look at one guest.
    Guest(Key),
    /// Look at what libvirt says of one domain.
    Domain(String),
    /// Give up what was leased and has ended.
    EndOfLease(Key),
    /// Read what dnsmasq gave on this bridge.
    Leases(IfName),
}

/// What is to be done, each once, with its time.
#[derive(Debug, Default)]
pub struct Due {
    at: BTreeMap<Task, Instant>,
    order: BTreeSet<(Instant, Task)>,
}

impl Due {
    /// Puts it in; if it is in already the earlier time stands.
    pub fn put(&mut self, task: Task, at: Instant) {
        match self.at.get(&task) {
            Some(before) if *before <= at => return,
            Some(before) => drop(self.order.remove(&(*before, task.clone()))),
            None => {}
        }
        self.at.insert(task.clone(), at);
        self.order.insert((at, task));
    }

    /// Puts it in for this time, though it may have been due before.
    pub fn postpone(&mut self, task: Task, at: Instant) {
        self.drop(&task);
        self.put(task, at);
    }

    /// When the next is due; `None` means that there is nothing to wait for.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out what is due now: the host, an arrival and a port to be held before all else, then what waits longest.
    pub fn pop(&mut self, now: Instant) -> Option<Task> {
        let is_urgent = |task: &Task| matches!(task, Task::Host | Task::Port(_) | Task::Arrived(_));
        let urgent = self.at.iter().take_while(|(task, _)| is_urgent(task)).find(|(_, at)| **at <= now);
        let (at, task) = match urgent {
            Some((task, at)) => (*at, task.clone()),
            None => self.order.first().filter(|(at, _)| *at <= now)?.clone(),
        };
        self.order.remove(&(at, task.clone()));
        self.at.remove(&task);
        Some(task)
    }

    /// Are so many guests due at once that one look at all is cheaper? Then they are taken out.
    pub fn crowd(&mut self, now: Instant) -> bool {
        let guests =
            self.order.iter().take_while(|(at, _)| *at <= now).filter(|(_, task)| matches!(task, Task::Guest(_)));
        if guests.count() < CROWD {
            return false;
        }
        let due = |at: &Instant, task: &Task| *at <= now && matches!(task, Task::Guest(_));
        self.at.retain(|task, at| !due(at, task));
        self.order.retain(|(at, task)| !due(at, task));
        true
    }

    /// How many there are.
    pub fn waiting(&self) -> usize {
        self.at.len()
    }

    /// It need not be done any more.
    pub fn drop(&mut self, task: &Task) {
        if let Some(at) = self.at.remove(task) {
            self.order.remove(&(at, task.clone()));
        }
    }
}

#[derive(Debug)]
struct Trouble {
    seen: Instant,
    repaired: Instant,
    repairs: u32,
    taken: bool,
}

impl Trouble {
    fn longest(&self) -> Duration {
        if self.taken { LONGEST } else { LONGEST_HERE }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) > QUIET * self.longest()
    }

    fn next(&self) -> Instant {
        self.repaired + pause(self.repairs).min(self.longest())
    }
}

/// What could not be done: how often, and when it is tried again.
#[derive(Debug)]
struct Failure {
    tries: u32,
    next: Instant,
}

/// Who was mended how often of late, and who has only just arrived.
#[derive(Debug, Default)]
pub struct Patience {
    troubles: HashMap<Task, Trouble>,
    failures: HashMap<Task, Failure>,
    fresh: HashMap<Key, (Instant, Instant)>,
}

impl Patience {
    /// When a task is to be done that something happened to just now.
    pub fn when(&mut self, task: &Task, why: Why, now: Instant) -> Instant {
        if let Task::Guest(key) = task
            && why != Why::Moved
            && self.freshen(key, now)
        {
            return now + SOON;
        }
        let hold = match why {
            Why::Arrived => Duration::ZERO,
            Why::Lost if matches!(task, Task::Network(_)) => BUILDING,
            Why::Lost => SOON,
            Why::Gone => PARTING,
            Why::Taken | Why::Moved => HOLD,
        };
        // What a failed try has undone is an event, too.
        let at = self.failures.get(task).map_or(now, |failure| failure.next).max(now + hold);
        let Some(trouble) = self.troubles.get_mut(task) else { return at };
        if trouble.is_over(now) {
            self.troubles.remove(task);
            return at;
        }
        trouble.seen = now;
        trouble.taken |= why == Why::Taken;
        at.max(trouble.next())
    }

    /// It had to be mended. Is this the moment to say that another VTEP keeps taking it?
    pub fn mended(&mut self, task: &Task, now: Instant) -> bool {
        // What has just arrived is mended at once and not counted.
        if matches!(task, Task::Guest(key) if self.fresh.contains_key(key)) {
            return false;
        }
        self.troubles.retain(|_, trouble| !trouble.is_over(now));
        let new = Trouble { seen: now, repaired: now, repairs: 0, taken: false };
        let trouble = self.troubles.entry(task.clone()).or_insert(new);
        trouble.repaired = now;
        trouble.repairs += 1;
        trouble.taken && trouble.repairs == DUPLICATE
    }

    /// It failed: when to try again; `None` where that was tried for a minute. The next failure after that begins anew: somebody has changed it.
    pub fn failed(&mut self, task: &Task, now: Instant) -> Option<Instant> {
        self.failures.retain(|_, failure| now.saturating_duration_since(failure.next) <= FORGOTTEN);
        let failure = self.failures.entry(task.clone()).or_insert(Failure { tries: 0, next: now });
        if failure.tries > TRIES {
            failure.tries = 0;
        } else if now < failure.next {
            // It was looked at out of turn: libvirt writes its files some times in a row, and that must not use up the tries.
            return Some(failure.next);
        }
        failure.tries += 1;
        failure.next = now + pause(failure.tries);
        (failure.tries <= TRIES).then_some(failure.next)
    }

    /// It did not fail.
    pub fn worked(&mut self, task: &Task) {
        self.failures.remove(task);
    }

    /// It arrived here just now.
    pub fn arrived(&mut self, key: &Key, now: Instant) {
        self.fresh.insert(key.clone(), (now, now + FRESH));
    }

    fn freshen(&mut self, key: &Key, now: Instant) -> bool {
        self.fresh.retain(|_, (_, until)| now < *until);
        let Some((since, until)) = self.fresh.get_mut(key) else { return false };
        *until = (now + FRESH).min(*since + FRESH_MOST);
        true
    }
}

/// 1, 2, 4 … 256 s.
fn pause(times: u32) -> Duration {
    match times {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 1).min(8)),
    }
}

/// After a guest was registered the speaker is asked, so many milliseconds later, until it has it. The first [`EARLY`] only where somebody wants to
/// know how soon that is: they tell FRR nothing again, which needs 60 ms at least.
const QUESTIONS: [u64; 9] = [25, 60, 120, 250, 500, 1000, 2000, 4000, 8000];
const EARLY: usize = 4;
/// Guests whose questions are this near are asked for in one.
const TOGETHER: Duration = Duration::from_millis(100);

/// Who is not known to be advertised yet.
#[derive(Debug, Default)]
pub struct Unsure {
    since: BTreeMap<Key, (Instant, usize)>,
}

impl Unsure {
    /// It was registered or mended just now.
    pub fn put(&mut self, key: &Key, now: Instant) {
        self.since.insert(key.clone(), (now, EARLY));
    }

    /// The same, and how soon it is advertised is wanted.
    pub fn put_early(&mut self, key: &Key, now: Instant) {
        self.since.insert(key.clone(), (now, 0));
    }

    /// How soon cannot be known: it is asked for with the others.
    pub fn not_early(&mut self, key: &Key) {
        if let Some((_, asked)) = self.since.get_mut(key) {
            *asked = (*asked).max(EARLY);
        }
    }

    /// Is it asked for only to know how soon?
    pub fn is_early(&self, key: &Key) -> bool {
        self.since.get(key).is_some_and(|(_, asked)| *asked < EARLY)
    }

    /// It is gone, or nobody can be asked.
    pub fn drop(&mut self, key: &str) {
        self.since.remove(key);
    }

    /// Nobody can be asked.
    pub fn clear(&mut self) {
        self.since.clear();
    }

    /// When to ask next.
    pub fn next(&self) -> Option<Instant> {
        self.since.values().map(at).min()
    }

    /// Whom to ask for now.
    pub fn due(&self, now: Instant) -> Vec<Key> {
        self.since.iter().filter(|(_, entry)| at(entry) <= now + TOGETHER).map(|(key, _)| key.clone()).collect()
    }

    /// The answer. Was it the last question, and in vain?
    pub fn answered(&mut self, key: &Key, advertised: bool) -> bool {
        let Some((_, asked)) = self.since.get_mut(key) else { return false };
        *asked += 1;
        let last = *asked == QUESTIONS.len();
        if advertised || last {
            self.since.remove(key);
        }
        last && !advertised
    }
}

fn at((since, asked): &(Instant, usize)) -> Instant {
    *since + Duration::from_millis(QUESTIONS.get(*asked).copied().unwrap_or_default())
}

#[cfg(test)]
#[path = "due_test.rs"]
mod test;
