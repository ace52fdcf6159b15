//! What journald is told: one entry a step and one of what came of it, in its native protocol, read at a socket in its place.

use crate::common::sh;
use crate::host::{CONFIG, Host, tap};
use crate::on_a_host;
use crate::xml::{domain, guest, interface};
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;

const MAC: &str = "52:54:00:03:82:d8";

pub type Entry = BTreeMap<String, Vec<String>>;

/// journald, as far as its socket goes.
pub struct Journald(UnixDatagram);

impl Journald {
    pub fn listens() -> Journald {
        sh("mkdir -p /run/systemd/journal");
        let socket = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
        socket.set_nonblocking(true).unwrap();
        Journald(socket)
    }

    /// The datagrams that came, each with its entries. Who sent them has ended.
    pub fn heard(&self) -> Vec<Vec<Entry>> {
        let mut buffer = vec![0; 1 << 18];
        std::iter::from_fn(|| self.0.recv(&mut buffer).ok().map(|length| read(&buffer[..length]))).collect()
    }
}

/// Entries as journald takes them out of one datagram (journald-native.c): `KEY=value`, or KEY, the value's length in 8 bytes and the value; an empty
/// line between two.
fn read(mut rest: &[u8]) -> Vec<Entry> {
    let mut entries = vec![Entry::new()];
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == b'\n').expect("each field ends");
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        rest = &rest[end + 1..];
        let (key, value) = match line.split_once('=') {
            _ if line.is_empty() => {
                entries.push(Entry::new());
                continue;
            }
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => {
                let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
                let value = String::from_utf8(rest[8..8 + length].to_vec()).unwrap();
                rest = &rest[8 + length + 1..];
                (line.to_owned(), value)
            }
        };
        assert!(key.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{key}");
        entries.last_mut().unwrap().entry(key).or_default().push(value);
    }
    entries
}

pub fn of<'a>(entry: &'a Entry, key: &str) -> &'a str {
    entry.get(key).map_or("", |values| values[0].as_str())
}

on_a_host!(each_step_of_a_guest_is_an_entry_and_the_call_is_one_datagram, {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2");
    let journald = Journald::listens();
    let xml = domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"));
    host.hook(&["qemu", "vm1", "start", "begin", "-"], &xml).ok();
    let datagrams = journald.heard();
    assert_eq!(datagrams.len(), 1, "steps cost no system call of their own: {datagrams:?}");
    let (done, steps) = datagrams[0].split_last().unwrap();
    let words: Vec<[&str; 3]> = steps.iter().map(|s| [of(s, "STEP"), of(s, "DEVICE"), of(s, "NETWORK")]).collect();
    assert_eq!(
        words,
        [
            ["set-mtu", "vnet0", "flat"],
            ["set-up", "vnet0", "flat"],
            ["add-fdb", "vnet0", "flat"],
            ["add-neighbour", "flat-l2", "flat"],
        ]
    );
    for step in steps {
        assert_eq!(
            [of(step, "GUEST"), of(step, "EVENT"), of(step, "PRIORITY")],
            ["vm1", "qemu start", "7"],
            "{step:?}"
        );
        assert_eq!(of(step, "SYSLOG_IDENTIFIER"), "evpn-hook");
        assert!(of(step, "DURATION_USEC").parse::<u64>().unwrap() < 5_000_000, "{step:?}");
    }
    assert!(of(&steps[3], "MESSAGE").starts_with("ip neigh replace 10.1.0.60 lladdr "), "{steps:?}");
    assert_eq!(
        [of(done, "GUEST"), of(done, "NETWORK"), of(done, "EVENT"), of(done, "PRIORITY")],
        ["vm1", "flat", "qemu start", "6"]
    );
    assert!(of(done, "MESSAGE").starts_with("vm1: registered, vnet0 on flat "), "{done:?}");
    let all: u64 = steps.iter().map(|s| of(s, "DURATION_USEC").parse::<u64>().unwrap()).sum();
    assert!(of(done, "DURATION_USEC").parse::<u64>().unwrap() >= all, "the whole call: {done:?}");

    host.hook(&["qemu", "vm1", "stopped", "end", "-"], &xml).ok();
    let datagrams = journald.heard();
    let entries = datagrams.concat();
    assert!(
        entries.iter().any(|e| of(e, "STEP") == "del-neighbour" && of(e, "EVENT") == "qemu stopped"),
        "{entries:?}"
    );
    assert!(of(entries.last().unwrap(), "MESSAGE").starts_with("vm1: withdrawn"), "{entries:?}");
});

on_a_host!(a_network_and_a_refusal_are_told_with_their_fields, {
    let host = Host::new(CONFIG);
    let journald = Journald::listens();
    host.run(&["network", "up", "flat"]).ok();
    let entries = journald.heard().concat();
    assert!(
        entries.iter().any(|e| [of(e, "STEP"), of(e, "DEVICE"), of(e, "NETWORK")] == ["add-vxlan", "vxlan20", "flat"]),
        "{entries:?}"
    );
    let last = entries.last().unwrap();
    assert!(of(last, "MESSAGE").starts_with("flat: up") && of(last, "NETWORK") == "flat", "{last:?}");
    // A name that would be fields of its own, were it believed.
    let name = "vm1\nPRIORITY=0\n\nMESSAGE=forged";
    let run = host.hook(&["qemu", name, "start", "begin", "-"], "<domain><name>x</name></domain>");
    assert_eq!(run.status, 1, "{run:?}");
    let datagrams = journald.heard();
    assert_eq!((datagrams.len(), datagrams[0].len()), (1, 1), "{datagrams:?}");
    let entry = &datagrams[0][0];
    assert_eq!((of(entry, "PRIORITY"), of(entry, "EVENT")), ("3", "qemu start"));
    assert!(
        entry["PRIORITY"].len() == 1 && entry["MESSAGE"].len() == 1 && of(entry, "MESSAGE") != "forged",
        "{entry:?}"
    );
});

on_a_host!(a_journal_that_takes_nothing_stops_no_guest, {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2");
    // Bound and never read: its queue is full in the end (net.unix.max_dgram_qlen).
    let _journald = Journald::listens();
    let xml = domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"));
    for _ in 0..600 {
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        if socket.send_to(b"MESSAGE=x\n", "/run/systemd/journal/socket").is_err() {
            break;
        }
    }
    host.hook(&["qemu", "vm1", "start", "begin", "-"], &xml).ok();
    assert_eq!(host.status()["endpoints"][0]["state"], "registered");
});
