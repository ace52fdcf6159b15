//! `status --watch`: the tree anew whenever something changes, until Ctrl-C.
//!
//! The kernel's events and the register's files say when to look. FRR tells nobody what it does: it is asked once a second for a while after a
//! change, and every few seconds besides.

use super::terminal::{self, Look};
use super::{Status, gather, tree};
use crate::config::SpeakerKind;
use crate::engine::{Engine, EngineError};
use crate::kernel::Event;
use crate::senses::watch::Place;
use crate::senses::{Senses, SensesError};
use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;
use std::io::{self, IsTerminal, Write, stdout};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::exit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What comes together is shown together.
const SETTLE: Duration = Duration::from_millis(50);
/// Four times a second at most, and no more than a fifth of the time where a look takes long.
const PAUSE: Duration = Duration::from_millis(250);
const SHARE: u32 = 4;
/// FRR follows the kernel within a second or two: how often it is asked then, and for how long; and how often besides.
const SOON: Duration = Duration::from_secs(1);
const FOLLOW: Duration = Duration::from_secs(3);
const REST: Duration = Duration::from_secs(5);

/// The terminal's other screen, without a cursor and without wrapping, and back (xterm's control sequences).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Why it ended, where nobody asked for it.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no report to begin with.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nothing can be heard.
    #[error(transparent)]
    Senses(#[from] SensesError),
    /// stdout, or the process's own signals.
    #[error("cannot show the status: {0}")]
    Io(#[from] io::Error),
}

/// Runs until it is interrupted, or whoever reads stdout is gone.
pub fn run(engine: &mut Engine) -> Result<(), WatchError> {
    let mut senses = Senses::open(places(engine)?)?;
    let mut report = Ok(gather(engine)?);
    let screen = Arc::new(Mutex::new(Screen::new()));
    let redraw = obey_signals(Arc::clone(&screen))?;
    let mut pace = Pace::new(Instant::now());
    loop {
        match locked(&screen).show(&report) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            shown => shown?,
        }
        if pace.due <= Instant::now() {
            let began = Instant::now();
            report = engine.reload_config().and_then(|()| gather(engine)).map_err(|error| error.to_string());
            pace.looked(began, Instant::now());
            continue;
        }
        senses.wait([PollFd::new(&redraw, PollFlags::IN)], Some(pace.due))?;
        while rustix::io::read(&redraw, &mut [0u8; 64]).is_ok_and(|count| count > 0) {}
        let (events, signs) = senses.take()?;
        if !signs.is_empty() || events.iter().any(matters) {
            pace.heard(Instant::now());
        }
    }
}

fn places(engine: &mut Engine) -> Result<Vec<(Place, PathBuf)>, EngineError> {
    let speaker = &engine.config()?.speaker;
    let speaker = (speaker.kind == SpeakerKind::Frr).then(|| (Place::Speaker, speaker.socket_dir.clone()));
    let config = std::path::absolute(&engine.config_path.0).ok();
    let config = config.and_then(|path| Some((Place::Config, path.parent()?.to_owned())));
    let register = &engine.register;
    let own = [(Place::Networks, register.networks_dir()), (Place::Guests, register.guests_dir())];
    Ok(own.into_iter().chain(speaker).chain(config).collect())
}

/// Can it change the report? What the kernel finds out about neighbours by itself, and forgets, goes on all the time.
fn matters(event: &Event) -> bool {
    match event {
        Event::Neigh { gone, permanent, ext_learned, .. } => *gone || *permanent || *ext_learned,
        _ => true,
    }
}

/// When to look again.
#[derive(Debug)]
struct Pace {
    /// Then.
    due: Instant,
    /// Not before, whatever is heard.
    rested: Instant,
    /// Until then FRR may still follow.
    follows: Instant,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { due: now + SOON, rested: now + PAUSE, follows: now }
    }

    fn heard(&mut self, now: Instant) {
        self.follows = now + FOLLOW;
        self.due = self.due.min(self.rested.max(now + SETTLE));
    }

    fn looked(&mut self, began: Instant, now: Instant) {
        self.rested = now + PAUSE.max((now - began) * SHARE);
        self.due = self.rested.max(now + if now < self.follows { SOON } else { REST });
    }
}

/// stdout. Where it is no terminal, each report that differs from the last one is written below it.
struct Screen {
    is_terminal: bool,
    host: String,
    /// What stands there.
    shown: Option<String>,
    is_entered: bool,
}

impl Screen {
    fn new() -> Screen {
        let is_terminal = stdout().is_terminal() && terminal::size().is_some();
        Screen { is_terminal, host: terminal::host(), shown: None, is_entered: false }
    }

    fn show(&mut self, report: &Result<Status, String>) -> io::Result<()> {
        let look = Look::of_stdout();
        let mut lines = match report {
            Ok(status) => tree::lines(status, look),
            Err(error) => vec![format!("evpn-hook: {error}\n")],
        };
        if self.is_terminal {
            let (_, rows) = terminal::size().unwrap_or((80, 24));
            let head = format!("evpn-hook status on {}, as it changes; Ctrl-C ends it\n", self.host);
            lines.splice(0..0, [head, "\n".to_owned()]);
            if lines.len() > rows {
                let more = lines.len() - (rows - 1);
                lines.truncate(rows - 1);
                lines.push(format!("and {more} more lines: evpn-hook status | less\n"));
            }
        }
        let text = lines.concat();
        if self.shown.as_ref() == Some(&text) {
            return Ok(());
        }
        let mut out = stdout().lock();
        if self.is_terminal {
            let lines: Vec<String> = text.lines().map(|line| format!("{line}\x1b[K")).collect();
            let enter = if self.is_entered { "" } else { ENTER };
            self.is_entered = true;
            write!(out, "{enter}\x1b[H{}\x1b[J", lines.join("\r\n"))?;
        } else {
            write!(out, "{}{text}", if self.shown.is_some() { "\n" } else { "" })?;
        }
        self.shown = Some(text);
        out.flush()
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.is_entered) {
            let mut out = stdout().lock();
            // A terminal that is gone needs nothing back.
            let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
        }
        self.shown = None;
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

fn locked(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process when it is told to, also while FRR is waited for: it only reads, and the terminal is as it was. What is returned
/// can be read when the screen must be drawn anew.
fn obey_signals(screen: Arc<Mutex<Screen>>) -> io::Result<OwnedFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP, Signal::SIGWINCH] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        loop {
            match signals.wait() {
                Ok(Signal::SIGWINCH) => {}
                Ok(Signal::SIGTSTP) => {
                    let mut screen = locked(&screen);
                    screen.leave();
                    // As Ctrl-Z does it; goes on here at SIGCONT.
                    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
                }
                // Whoever reads the pipe may have stopped reading, and then the screen is never free.
                _ if !stdout().is_terminal() => exit(0),
                _ => {
                    // Held to the end: nothing is drawn any more. A terminal that was stopped goes on at Ctrl-C.
                    let mut screen = locked(&screen);
                    screen.leave();
                    exit(0);
                }
            }
            // A full pipe says it as well.
            let _ = rustix::io::write(&writer, &[0]);
        }
    })?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn looks_are_soon_but_never_many() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.looked(start, start);
        assert_eq!(pace.due - start, REST, "nothing happened");

        let mut now = start + 1000 * MS;
        pace.heard(now);
        assert_eq!(pace.due - now, SETTLE);
        // Somebody makes a thousand guests.
        let mut looks = 0;
        while now < start + 2000 * MS {
            pace.heard(now);
            if pace.due <= now {
                pace.looked(now, now + 2 * MS);
                looks += 1;
            }
            now += MS;
        }
        assert!((3..=4).contains(&looks), "{looks} looks a second");

        // A look that takes long is followed by a rest that is longer.
        pace.looked(now, now + 1000 * MS);
        now += 1000 * MS;
        pace.heard(now);
        assert_eq!(pace.due - now, 4000 * MS);
    }

    #[test]
    fn after_a_change_frr_is_asked_again_soon_for_a_while() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.heard(start);
        let mut looks = Vec::new();
        while looks.len() < 6 {
            let now = pace.due;
            pace.looked(now, now);
            looks.push((now - start).as_millis());
        }
        assert_eq!(looks, [250, 1250, 2250, 3250, 8250, 13250]);
    }

    #[test]
    fn a_neighbour_that_the_kernel_looks_after_is_no_news() {
        let neighbour = |gone, permanent, ext_learned| {
            let ip = "10.1.0.60".parse().unwrap();
            matters(&Event::Neigh { ip, mac: None, index: 7, gone, permanent, ext_learned, router: false })
        };
        assert!(!neighbour(false, false, false));
        assert!(neighbour(true, false, false) && neighbour(false, true, false) && neighbour(false, false, true));
        assert!(matters(&Event::Lost));
    }
}
