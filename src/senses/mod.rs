//! What wakes those who wait for a change, the agent and `status --watch`: the kernel's events and the files' signs, so that nothing falls
//! between them. [`watch`] is the files' part, [`settings`] that of /proc/sys.

pub mod settings;
pub mod watch;

use crate::kernel::{Event, Events, KernelError};
use crate::model::IfName;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use settings::Settings;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;
use watch::{Place, Sign, Watch};

/// So many events are taken at once; the rest waits in the kernel for the next round.
const BATCH: usize = 4096;

/// Why nothing can be heard.
#[derive(Debug, thiserror::Error)]
pub enum SensesError {
    /// The kernel cannot be listened to.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// inotify(7) or poll(2).
    #[error("cannot watch files: {0}: is fs.inotify.max_user_instances or max_user_watches used up?")]
    Watch(#[from] Errno),
}

/// All that wakes.
pub struct Senses {
    events: Events,
    watch: Watch,
    settings: Settings,
}

impl Senses {
    /// Listens from now on: look at the present state after this, never before.
    pub fn open(places: Vec<(Place, PathBuf)>) -> Result<Senses, SensesError> {
        Ok(Senses { events: Events::open()?, watch: Watch::new(places)?, settings: Settings::new()? })
    }

    /// Watches the settings of these devices by index, and of no others.
    pub fn watch_settings(&mut self, devices: &HashMap<u32, IfName>) {
        self.settings.watch(devices);
    }

    /// The devices of which a setting was written since the last call.
    pub fn written(&mut self) -> Result<BTreeSet<IfName>, SensesError> {
        Ok(self.settings.take()?)
    }

    /// Sleeps until something comes, here or to one of these, or until then.
    pub fn wait<'a>(
        &'a self,
        others: impl IntoIterator<Item = PollFd<'a>>,
        until: Option<Instant>,
    ) -> Result<(), SensesError> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.events.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.watch.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.settings.as_fd(), PollFlags::IN),
        ];
        fds.extend(others);
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What has come. Events are taken before the signs and must be weighed after them: a record is written before the first step that
    /// belongs to it, so whatever event is here, its record has been told of.
    pub fn take(&mut self) -> Result<(Vec<Event>, BTreeSet<Sign>), SensesError> {
        let mut events = Vec::new();
        while events.len() < BATCH {
            match self.events.next()? {
                Some(event) => events.push(event),
                None => break,
            }
        }
        Ok((events, self.watch.take()?))
    }
}
