//! Another network namespace, for one piece of work.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;

/// Runs `work` in this network namespace, in a thread that ends with it: a socket that is made there stays there, wherever it is used.
pub fn inside<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).expect("to enter the namespace");
            work()
        });
        thread.join().expect("what is done in the namespace")
    })
}
