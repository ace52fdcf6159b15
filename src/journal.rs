//! Every message a variant. stderr is what libvirt and LXC show to the one who is waiting; journald is what stays.
//!
//! stdout is never written to by a hook: libvirt takes a migrate hook's output for a domain XML.

use crate::model::{self, IfName};
use crate::plan::Step;
use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

const JOURNALD: &str = "/run/systemd/journal/socket";

/// What evpn-hook has to say.
pub enum Message<'a> {
    /// A step was taken.
    Step {
        /// Which.
        step: &'a Step,
        /// How long it took.
        took: Duration,
    },
    /// A step failed and the rest went on.
    StepFailed {
        /// Which.
        step: &'a Step,
        /// How long it took to fail.
        took: Duration,
        /// Its error.
        why: &'a dyn fmt::Display,
    },
    /// A setting of the whole host was changed.
    HostChanged {
        /// The step that did it.
        step: &'a Step,
        /// How long it took.
        took: Duration,
    },
    /// An event is done.
    Done {
        /// "registered", "withdrawn" …
        what: &'a str,
        /// The guest or network.
        object: &'a str,
        /// Details for a person.
        detail: &'a str,
    },
    /// A look at all that there is mended something.
    Mended {
        /// How many steps that took.
        steps: usize,
    },
    /// Another VTEP takes a guest's address as often as it is taken back.
    Claimed {
        /// The guest.
        guest: &'a str,
    },
    /// The speaker still does not advertise a guest, some seconds after the kernel holds all that it needs.
    NotAdvertised {
        /// The guest.
        guest: &'a str,
        /// What the speaker lacks.
        why: &'a str,
    },
    /// What of a network's description works badly, and what to do.
    Advice {
        /// The network.
        network: &'a str,
        /// Both.
        advice: &'a dyn fmt::Display,
    },
    /// The agent says what it does.
    Note(&'a dyn fmt::Display),
    /// Something is wrong that did not stop the event.
    Warning(&'a dyn fmt::Display),
    /// The event was refused or failed.
    Failed(&'a dyn fmt::Display),
}

impl Message<'_> {
    /// syslog(3) severity.
    fn priority(&self) -> u8 {
        match self {
            Message::Failed(_) => 3,
            Message::StepFailed { .. }
            | Message::Warning(_)
            | Message::Claimed { .. }
            | Message::NotAdvertised { .. } => 4,
            Message::HostChanged { .. } | Message::Mended { .. } | Message::Advice { .. } => 5,
            Message::Done { .. } | Message::Note(_) => 6,
            Message::Step { .. } => 7,
        }
    }

    /// The step that it tells of, and how long that took.
    fn step(&self) -> (Option<&Step>, Option<Duration>) {
        match self {
            Message::Step { step, took }
            | Message::StepFailed { step, took, .. }
            | Message::HostChanged { step, took } => (Some(step), Some(*took)),
            _ => (None, None),
        }
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Step { step, took } => write!(f, "{step}  [{:.0} µs]", took.as_secs_f64() * 1e6),
            Message::StepFailed { step, why, .. } => write!(f, "{step}: {why}"),
            Message::HostChanged { step, .. } => {
                write!(
                    f,
                    "host-wide setting changed: {step} ('evpn-hook uninstall' undoes it; [host] manage = false forbids it)"
                )
            }
            Message::Done { what, object, detail } => write!(f, "{object}: {what}{detail}"),
            Message::Mended { steps } => write!(f, "mended in {steps} step{}", if *steps == 1 { "" } else { "s" }),
            Message::Claimed { guest } => write!(
                f,
                "warning: {guest}: another VTEP keeps claiming its MAC or address: is there a duplicate? ('show evpn mac vni all' in vtysh); it is taken back ever more seldom"
            ),
            Message::NotAdvertised { guest, why } => {
                write!(f, "warning: {guest}: registered, but not advertised: {why}")
            }
            Message::Advice { network, advice } => write!(f, "advice: network {network}: {advice}"),
            Message::Note(text) => write!(f, "{text}"),
            Message::Warning(text) => write!(f, "warning: {text}"),
            Message::Failed(text) => write!(f, "{text}"),
        }
    }
}

/// Where messages go.
#[derive(Debug)]
pub struct Journal {
    /// Steps and results too on stderr (`-v`).
    pub verbose: bool,
    /// Steps and results are not told at all: what brings them about is somebody's who does it as often as they like.
    pub hushed: bool,
    program: &'static str,
    /// The guest or network, as a field of each entry.
    pub object: String,
    /// What brought it about: `qemu start`, `agent`.
    pub event: String,
    /// When that began, where somebody waits for its end.
    pub began: Option<Instant>,
    /// Which network a device belongs to, of those that are being worked on for `about`.
    networks: Vec<(IfName, String)>,
    about: String,
    /// Steps that are not sent yet. journald takes many entries in one datagram, so a step costs no system call of its own on the path of a guest.
    steps: Vec<u8>,
    /// Connected at the first message; a host without journald has none.
    socket: Option<Option<UnixDatagram>>,
}

/// Steps are sent before they are more than this: a datagram must fit into the socket's buffer (net.core.wmem_default, 212,992 bytes).
const MOST_STEPS: usize = 64 << 10;

impl Journal {
    /// A journal for one run of evpn-hook.
    pub fn new(verbose: bool) -> Journal {
        Journal::of("evpn-hook", verbose)
    }

    /// The same for another program.
    pub fn of(program: &'static str, verbose: bool) -> Journal {
        Journal {
            verbose,
            hushed: false,
            program,
            object: String::new(),
            event: String::new(),
            began: None,
            networks: Vec::new(),
            about: String::new(),
            steps: Vec::new(),
            socket: None,
        }
    }

    /// One that nobody keeps: what it tells happened elsewhere.
    pub fn quiet() -> Journal {
        let mut journal = Journal::new(false);
        journal.socket = Some(None);
        journal
    }

    /// What is done to this device for the present object is done for that network.
    pub fn is_on(&mut self, device: &IfName, network: &str) {
        if self.about != self.object {
            self.about.clone_from(&self.object);
            self.networks.clear();
        }
        match self.networks.iter_mut().find(|(known, _)| known == device) {
            Some((_, known)) => network.clone_into(known),
            None => self.networks.push((device.clone(), network.to_owned())),
        }
    }

    /// Says it. What cannot be said is dropped: a full journal must not stop a guest.
    pub fn say(&mut self, message: &Message) {
        let priority = message.priority();
        if self.hushed && priority > 5 {
            return;
        }
        let program = self.program;
        if (priority <= 4 || self.verbose) && !(priority < 7 && is_the_journal(std::io::stderr())) {
            let _ = writeln!(std::io::stderr(), "{program}: {}", one_line(&message.to_string()));
        }
        let mut entry = std::mem::take(&mut self.steps);
        self.entry(message, &mut entry);
        self.steps = entry;
        // A step waits for what comes of it.
        if priority < 7 || self.steps.len() > MOST_STEPS {
            self.flush();
        }
    }

    /// Sends what has waited.
    pub fn flush(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        let socket = self.socket.get_or_insert_with(|| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            socket.connect(JOURNALD).ok()?;
            Some(socket)
        });
        if let Some(socket) = socket {
            let _ = socket.send(&self.steps);
        }
        self.steps.clear();
    }

    /// One entry, and an empty line before it if it is not the first.
    fn entry(&self, message: &Message, out: &mut Vec<u8>) {
        if !out.is_empty() {
            out.push(b'\n');
        }
        field(out, "MESSAGE", &one_line(&message.to_string()));
        field(out, "PRIORITY", &message.priority().to_string());
        field(out, "SYSLOG_IDENTIFIER", self.program);
        field(out, "GUEST", &self.object);
        field(out, "EVENT", &self.event);
        let (step, took) = message.step();
        let device = step.and_then(Step::device);
        field(out, "STEP", step.map_or("", Step::word));
        field(out, "DEVICE", device.as_ref().map_or("", |device| device.as_str()));
        // Of a step its own, of what came of it all.
        let own = |of: &IfName| device.as_ref().is_none_or(|device| device == of);
        let known = self.networks.iter().filter(|(of, _)| self.about == self.object && own(of));
        let mut networks: Vec<&str> = known.map(|(_, network)| network.as_str()).collect();
        networks.sort_unstable();
        networks.dedup();
        networks.into_iter().for_each(|network| field(out, "NETWORK", network));
        let whole = matches!(message, Message::Done { .. } | Message::Failed(_));
        let took = took.or(self.began.filter(|_| whole).map(|began| began.elapsed()));
        field(out, "DURATION_USEC", &took.map_or(String::new(), |took| took.as_micros().to_string()));
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.flush();
    }
}

/// One field as journald's native protocol has it (https://systemd.io/JOURNAL_NATIVE_PROTOCOL): `KEY=value`, and with its length in front where the
/// value has a newline in it, which would otherwise end it and begin a field of the value's choice. An empty one is left out.
fn field(out: &mut Vec<u8>, key: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    out.extend(key.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend((value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend(value.as_bytes());
    out.push(b'\n');
}

/// Is this stream journald's own, as a service's stderr is? Then each line would be told twice. systemd names it by device and inode in
/// JOURNAL_STREAM (systemd.exec(5)).
fn is_the_journal(stream: impl std::os::fd::AsFd) -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(stream).is_ok_and(|stat| named.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

/// Lines of others' words stay readable; what else a terminal would obey becomes escapes.
fn one_line(text: &str) -> String {
    model::one_line(&text.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one datagram holds, read back as journald does (journald-native.c, `server_process_entry`).
    fn read(mut datagram: &[u8]) -> Vec<Vec<(String, String)>> {
        let mut entries = vec![Vec::new()];
        while !datagram.is_empty() {
            let end = datagram.iter().position(|b| *b == b'\n').expect("a newline");
            let (line, rest) = (&datagram[..end], &datagram[end + 1..]);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let fields = entries.last_mut().unwrap();
            datagram = match line.iter().position(|b| *b == b'=') {
                _ if line.is_empty() => {
                    entries.push(Vec::new());
                    rest
                }
                Some(at) => {
                    fields.push((text(&line[..at]), text(&line[at + 1..])));
                    rest
                }
                None => {
                    let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
                    fields.push((text(line), text(&rest[8..8 + length])));
                    &rest[8 + length + 1..]
                }
            };
        }
        entries
    }

    fn step() -> Step {
        Step::AddFdb { dev: "vnet0".parse().unwrap(), mac: "52:54:00:00:00:01".parse().unwrap() }
    }

    #[test]
    fn steps_and_their_end_are_entries_of_one_datagram() {
        let mut journal = Journal::new(false);
        journal.object = "vm1".to_owned();
        journal.event = "qemu start".to_owned();
        journal.is_on(&"vnet0".parse().unwrap(), "red");
        let mut out = Vec::new();
        journal.entry(&Message::Step { step: &step(), took: Duration::from_micros(17) }, &mut out);
        journal.entry(&Message::Done { what: "registered", object: "vm1", detail: "" }, &mut out);
        let entries = read(&out);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            entries[0],
            [
                pair("MESSAGE", "bridge fdb replace 52:54:00:00:00:01 dev vnet0 master static  [17 µs]"),
                pair("PRIORITY", "7"),
                pair("SYSLOG_IDENTIFIER", "evpn-hook"),
                pair("GUEST", "vm1"),
                pair("EVENT", "qemu start"),
                pair("STEP", "add-fdb"),
                pair("DEVICE", "vnet0"),
                pair("NETWORK", "red"),
                pair("DURATION_USEC", "17"),
            ]
        );
        assert_eq!(entries.len(), 2);
        assert!(entries[1].contains(&pair("MESSAGE", "vm1: registered")), "{entries:?}");
        assert!(entries[1].contains(&pair("NETWORK", "red")), "{entries:?}");
        assert!(!entries[1].iter().any(|(key, _)| key == "DURATION_USEC"), "nobody said when it began");
        journal.object = "vm2".to_owned();
        out.clear();
        journal.entry(&Message::Done { what: "registered", object: "vm2", detail: "" }, &mut out);
        assert!(!read(&out)[0].iter().any(|(key, _)| key == "NETWORK"), "vm1's is not vm2's");
    }

    #[test]
    fn no_value_can_forge_a_field() {
        let mut journal = Journal::new(false);
        journal.object = "vm\nPRIORITY=0\n\nMESSAGE=forged".to_owned();
        let mut out = Vec::new();
        journal.entry(&Message::Failed(&"a\nSTEP=b"), &mut out);
        journal.entry(&Message::Note(&"next"), &mut out);
        let entries = read(&out);
        assert_eq!(entries.len(), 2, "{entries:?}");
        let of = |key: &str| entries[0].iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!(of("GUEST"), [journal.object.as_str()]);
        assert_eq!((of("PRIORITY"), of("MESSAGE"), of("STEP")), (vec!["3"], vec!["a STEP=b"], vec![]));
    }
}
