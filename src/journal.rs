//! Every message a variant. stderr is what libvirt and LXC show to the one who is waiting; journald is what stays.
//!
//! stdout is never written to by a hook: libvirt takes a migrate hook's output for a domain XML.

use crate::plan::Step;
use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

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
        /// Its error.
        why: &'a dyn fmt::Display,
    },
    /// A setting of the whole host was changed.
    HostChanged {
        /// The step that did it.
        step: &'a Step,
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
    /// What the agent found missing is there again.
    Mended {
        /// The guest or network; empty for the host.
        object: &'a str,
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
            Message::HostChanged { .. } | Message::Mended { .. } => 5,
            Message::Done { .. } | Message::Note(_) => 6,
            Message::Step { .. } => 7,
        }
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Step { step, took } => write!(f, "{step}  [{:.0} µs]", took.as_secs_f64() * 1e6),
            Message::StepFailed { step, why } => write!(f, "{step}: {why}"),
            Message::HostChanged { step } => {
                write!(
                    f,
                    "host-wide setting changed: {step} ('evpn-hook uninstall' undoes it; [host] manage = false forbids it)"
                )
            }
            Message::Done { what, object, detail } => write!(f, "{object}: {what}{detail}"),
            Message::Mended { object, steps } => {
                let (colon, s) = (if object.is_empty() { "" } else { ": " }, if *steps == 1 { "" } else { "s" });
                write!(f, "{object}{colon}mended in {steps} step{s}")
            }
            Message::Claimed { guest } => write!(
                f,
                "warning: {guest}: another VTEP keeps claiming its MAC or address: is there a duplicate? ('show evpn mac vni all' in vtysh); it is taken back ever more seldom"
            ),
            Message::NotAdvertised { guest, why } => {
                write!(f, "warning: {guest}: registered, but not advertised: {why}")
            }
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
    program: &'static str,
    /// The guest or network, as a field of each entry.
    pub object: String,
    /// Connected at the first message; a host without journald has none.
    socket: Option<Option<UnixDatagram>>,
}

impl Journal {
    /// A journal for one run of evpn-hook.
    pub fn new(verbose: bool) -> Journal {
        Journal::of("evpn-hook", verbose)
    }

    /// The same for another program.
    pub fn of(program: &'static str, verbose: bool) -> Journal {
        Journal { verbose, program, object: String::new(), socket: None }
    }

    /// Says it. What cannot be said is dropped: a full journal must not stop a guest.
    pub fn say(&mut self, message: &Message) {
        let priority = message.priority();
        let program = self.program;
        if (priority <= 4 || self.verbose) && !(priority < 7 && is_the_journal(std::io::stderr())) {
            let _ = writeln!(std::io::stderr(), "{program}: {message}");
        }
        // Steps are for -v alone: a line a step would be a system call a step on the path of every guest.
        if priority == 7 {
            return;
        }
        let socket = self.socket.get_or_insert_with(|| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            socket.connect(JOURNALD).ok()?;
            Some(socket)
        });
        if let Some(socket) = socket {
            // https://systemd.io/JOURNAL_NATIVE_PROTOCOL: KEY=value lines; our messages have no newline in them.
            let text = format!(
                "MESSAGE={}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER={program}\nGUEST={}\n",
                one_line(&message.to_string()),
                one_line(&self.object)
            );
            let _ = socket.send(text.as_bytes());
        }
    }
}

/// Is this stream journald's own, as a service's stderr is? Then each line would be told twice. systemd names it by device and inode in
/// JOURNAL_STREAM (systemd.exec(5)).
fn is_the_journal(stream: impl std::os::fd::AsFd) -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(stream).is_ok_and(|stat| named.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
