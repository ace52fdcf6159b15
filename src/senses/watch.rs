//! Files that tell what happened, by inotify(7): libvirt's status files, FRR's sockets and its vtysh, our own records.
//!
//! A directory may not be there yet, or may go and come again: then its nearest parent is watched until it is.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a directory's files are, or what a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Our records of networks.
    Networks,
    /// Our records of guests.
    Guests,
    /// libvirt's status files of running domains: rewritten by rename at every change of state, of devices, of definition.
    Domains,
    /// libvirt's status files of active networks.
    LibvirtNetworks,
    /// What libvirt's dnsmasq gave.
    Leases,
    /// FRR's sockets.
    Speaker,
    /// The program that configures FRR: the one place that is a file.
    Vtysh,
    /// What lies beside config.toml; its files are told by their whole names.
    Config,
}

/// Something in a watched directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// The directory is there, perhaps with files that nobody told of.
    Appeared(Place),
    /// A file was written or is gone; its name without its ending.
    File(Place, String),
    /// A program was started: the kernel opens its file.
    Started(Place),
    /// It has ended: the kernel closes it.
    Ended(Place),
    /// More happened than was kept: all must be looked at again.
    Lost,
}

/// Directories being watched.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
    places: Vec<(Place, PathBuf)>,
    watches: HashMap<i32, PathBuf>,
}

const PARENT: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

impl Place {
    /// Writers make a file beside it and rename it, or write in place; a socket is only made.
    fn mask(self) -> WatchFlags {
        let own = match self {
            // What is installed anew has a new inode; the old one's links are told as an attribute.
            Place::Vtysh => {
                return WatchFlags::OPEN | WatchFlags::CLOSE_NOWRITE | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF;
            }
            Place::Speaker => WatchFlags::CREATE,
            _ => WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO | WatchFlags::DELETE,
        };
        own | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR
    }

    fn ending(self) -> &'static str {
        match self {
            Place::Networks | Place::Guests => ".json",
            Place::Domains | Place::LibvirtNetworks => ".xml",
            Place::Leases => ".status",
            Place::Speaker => ".vty",
            Place::Config | Place::Vtysh => "",
        }
    }
}

impl Watch {
    /// Watches these directories from now on: look at what is in them after this, never before.
    pub fn new(places: Vec<(Place, PathBuf)>) -> Result<Watch, Errno> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut watch = Watch { fd, places, watches: HashMap::new() };
        watch.arm()?;
        Ok(watch)
    }

    /// What has come since the last call, each thing once; nothing if nothing has.
    pub fn take(&mut self) -> Result<BTreeSet<Sign>, Errno> {
        let mut signs = BTreeSet::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut again = false;
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        loop {
            let event = match reader.next() {
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                event => event?,
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                signs.insert(Sign::Lost);
                again = true;
            }
            if event.events().intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF) {
                again |= self.watches.remove(&event.wd()).is_some();
            }
            if event.events().contains(ReadFlags::ATTRIB) && self.watches.remove(&event.wd()).is_some() {
                let _ = inotify::remove_watch(&self.fd, event.wd());
                again = true;
            }
            if let Some(program) = self.watches.get(&event.wd())
                && self.places.iter().any(|(place, target)| *place == Place::Vtysh && target == program)
            {
                // A start after an end is told as a start.
                if event.events().contains(ReadFlags::OPEN) {
                    signs.remove(&Sign::Ended(Place::Vtysh));
                    signs.insert(Sign::Started(Place::Vtysh));
                } else if event.events().contains(ReadFlags::CLOSE_NOWRITE) {
                    signs.insert(Sign::Ended(Place::Vtysh));
                }
            }
            let (Some(dir), Some(name)) = (self.watches.get(&event.wd()), event.file_name()) else { continue };
            let name = name.to_string_lossy();
            let path = dir.join(&*name);
            for (place, target) in &self.places {
                if target == dir {
                    let stem = name.strip_suffix(place.ending());
                    signs.extend(stem.map(|stem| Sign::File(*place, stem.to_owned())));
                }
                again |= target.starts_with(&path);
            }
        }
        if again {
            signs.extend(self.arm()?.into_iter().map(Sign::Appeared));
        }
        Ok(signs)
    }

    /// Sets a watch on each directory, or on its nearest parent; returns those that were not there before.
    fn arm(&mut self) -> Result<Vec<Place>, Errno> {
        let mut needed = BTreeSet::new();
        let mut new = Vec::new();
        for (place, target) in self.places.clone() {
            let (path, wd) = self.nearest(&target, place.mask())?;
            needed.insert(path.clone());
            let known = self.watches.insert(wd, path.clone()).is_some();
            if path == target && !known {
                new.push(place);
            }
        }
        let idle: Vec<i32> =
            self.watches.iter().filter(|(_, path)| !needed.contains(*path)).map(|(wd, _)| *wd).collect();
        for wd in idle {
            self.watches.remove(&wd);
            let _ = inotify::remove_watch(&self.fd, wd);
        }
        Ok(new)
    }

    fn nearest(&self, target: &Path, mask: WatchFlags) -> Result<(PathBuf, i32), Errno> {
        // MASK_ADD: a directory can be one place and another's parent.
        let add = |path: &Path, mask: WatchFlags| inotify::add_watch(&self.fd, path, mask | WatchFlags::MASK_ADD);
        let mut found = None;
        for path in target.ancestors() {
            match add(path, if path == target { mask } else { PARENT }) {
                Ok(wd) => {
                    found = Some((path.to_owned(), wd));
                    break;
                }
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error),
            }
        }
        let (mut path, mut wd) = found.ok_or(Errno::NOENT)?;
        // What was made below between the two looks told nobody.
        while path != target {
            let below = target.ancestors().take_while(|a| *a != path).last().unwrap_or(target);
            match add(below, if below == target { mask } else { PARENT }) {
                Ok(next) => (path, wd) = (below.to_owned(), next),
                Err(Errno::NOENT | Errno::NOTDIR) => break,
                Err(error) => return Err(error),
            }
        }
        Ok((path, wd))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod test;
