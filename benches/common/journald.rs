//! A journald of the benchmark's own: takes what a hook sends, as a host's does, and can be asked for it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

const SOCKET: &str = "/run/systemd/journal/socket";
const MARK: &[u8] = b"that is all\n";

/// One entry's fields; of one that comes twice the last.
pub type Entry = BTreeMap<String, String>;

/// Listens in this mount namespace's /run for as long as the benchmark runs.
pub struct Journald {
    datagrams: Receiver<Vec<u8>>,
}

impl Journald {
    pub fn start() -> Journald {
        fs::create_dir_all(Path::new(SOCKET).parent().unwrap()).unwrap();
        let socket = UnixDatagram::bind(SOCKET).unwrap();
        let (sender, datagrams) = channel();
        thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(length) = socket.recv(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Journald { datagrams }
    }

    /// Nobody will ask for what was sent so far: up to a word of our own, which comes last.
    pub fn forget(&self) {
        UnixDatagram::unbound().unwrap().send_to(MARK, SOCKET).unwrap();
        while self.datagrams.recv().expect("the listener lives") != MARK {}
    }

    /// The entries of one call, to the one that tells how long the whole took; waits for it.
    pub fn call(&self, event: &str) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            let datagram = self.datagrams.recv().expect("the listener lives");
            let text = String::from_utf8(datagram).unwrap();
            for entry in text.split("\n\n").map(fields).filter(|entry| entry.get("EVENT").is_some_and(|of| of == event))
            {
                let last = !entry.contains_key("STEP") && entry.contains_key("DURATION_USEC");
                entries.push(entry);
                if last {
                    return entries;
                }
            }
        }
    }
}

/// No value of a hook that goes well has a newline in it, so each field is a line.
fn fields(entry: &str) -> Entry {
    entry.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}
