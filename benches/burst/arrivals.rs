//! When the last of many MACs has come to another host's bridges, or gone from them: by its kernel's own events.

use evpn_hook::kernel::{Event, Events, Kernel};
use evpn_hook::model::Mac;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Far beyond what FRR takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A thread that listens.
pub struct Arrivals(JoinHandle<(Instant, usize)>);

impl Arrivals {
    /// In that network namespace, for these to be there or to be gone; returns once it hears everything.
    pub fn listen(netns: &File, macs: &[Mac], there: bool) -> Arrivals {
        let (netns, macs) = (netns.try_clone().unwrap(), macs.iter().copied().collect());
        let (ready, hears) = channel();
        let thread = thread::spawn(move || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let mut listener = Listener { events: Events::open().unwrap(), macs, there, outstanding: HashSet::new() };
            listener.look();
            ready.send(()).unwrap();
            listener.all()
        });
        hears.recv().unwrap();
        Arrivals(thread)
    }

    /// When the last was there (or gone), and how many never were.
    pub fn all(self) -> (Instant, usize) {
        self.0.join().unwrap()
    }
}

struct Listener {
    events: Events,
    macs: HashSet<Mac>,
    there: bool,
    outstanding: HashSet<Mac>,
}

impl Listener {
    fn all(&mut self) -> (Instant, usize) {
        let end = Instant::now() + PATIENCE;
        let mut last = Instant::now();
        while !self.outstanding.is_empty() && self.events.wait(end).unwrap() {
            while let Some(event) = self.events.next().unwrap() {
                match event {
                    Event::Fdb { mac, gone, ext_learned, .. } if ext_learned && self.macs.contains(&mac) => {
                        match gone == self.there {
                            true => self.outstanding.insert(mac),
                            false => self.outstanding.remove(&mac),
                        };
                    }
                    Event::Lost => self.look(),
                    _ => {}
                }
            }
            last = Instant::now();
        }
        // Events tell when; what is there the kernel itself tells.
        self.look();
        (last, self.outstanding.len())
    }

    fn look(&mut self) {
        let found = Kernel::open().unwrap().fdbs(None).unwrap();
        let found: HashSet<Mac> =
            found.iter().filter(|(_, entry)| entry.ext_learned).map(|(_, entry)| entry.mac).collect();
        self.outstanding = self.macs.iter().copied().filter(|mac| found.contains(mac) != self.there).collect();
    }
}
