//! Settings of devices below /proc/sys that rtnetlink tells nothing of (accept_ra, arp_ignore, disable_ipv6), by inotify(7): a write through the same
//! procfs as ours is a write like any other (fs/read_write.c `vfs_write`). Through another one, a container's, it is not seen.

use crate::model::IfName;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Devices whose settings are watched.
#[derive(Debug)]
pub struct Settings {
    fd: OwnedFd,
    watches: HashMap<i32, (u32, IfName)>,
}

impl Settings {
    /// Watches none yet.
    pub fn new() -> Result<Settings, Errno> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Settings { fd, watches: HashMap::new() })
    }

    /// These devices by index, and no others. One that is made anew has other files, and another index. What cannot be watched is looked at with
    /// everything else.
    pub fn watch(&mut self, devices: &HashMap<u32, IfName>) {
        let idle: Vec<i32> = self
            .watches
            .iter()
            .filter(|(_, (index, name))| devices.get(index) != Some(name))
            .map(|(wd, _)| *wd)
            .collect();
        for wd in idle {
            self.watches.remove(&wd);
            let _ = inotify::remove_watch(&self.fd, wd);
        }
        let known: BTreeSet<u32> = self.watches.values().map(|(index, _)| *index).collect();
        for (index, name) in devices.iter().filter(|(index, _)| !known.contains(index)) {
            for room in ["ipv4", "ipv6"] {
                let path = format!("/proc/sys/net/{room}/conf/{name}");
                if let Ok(wd) = inotify::add_watch(&self.fd, path, WatchFlags::MODIFY | WatchFlags::ONLYDIR) {
                    self.watches.insert(wd, (*index, name.clone()));
                }
            }
        }
    }

    /// The devices of which a setting was written since the last call; all of them where more was than is kept.
    pub fn take(&mut self) -> Result<BTreeSet<IfName>, Errno> {
        let mut written = BTreeSet::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        loop {
            let event = match reader.next() {
                Err(Errno::AGAIN) => return Ok(written),
                Err(Errno::INTR) => continue,
                event => event?,
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                written.extend(self.watches.values().map(|(_, name)| name.clone()));
            }
            written.extend(self.watches.get(&event.wd()).map(|(_, name)| name.clone()));
        }
    }
}

impl AsFd for Settings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
