//! One daemon's vty socket, as vtysh speaks it (FRR lib/vty.c `vtysh_read`, vtysh/vtysh.c `vtysh_client_run`; unchanged from 8.4 to 10).
//!
//! A command is its text and a zero byte. The answer is text up to the first zero byte, which begins the trailer `00 00 00 status`.
//! One command at a time: what arrives together with an earlier command can be lost in the daemon. vtysh itself would cost a fork, its
//! whole command tree and a connection per daemon, 25 ms and more; a question here costs 30 to 70 µs.

use super::{Frr, SpeakerError};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The largest answer we hold, in bytes: 90,000 EVPN routes with their attributes fit.
const MAX_ANSWER: usize = 64 << 20;

/// FRR's `CMD_SUCCESS` and `CMD_WARNING` (lib/command.h): the text is the answer. Some shows warn where they mean "nothing there".
const ANSWERED: [u8; 2] = [0, 1];

/// A connection to one daemon, made at the first question and made again after a failure.
#[derive(Debug)]
pub struct Vty {
    daemon: &'static str,
    path: PathBuf,
    deadline: Duration,
    /// No question is asked after this, nor waited for longer.
    last: Option<Instant>,
    max: usize,
    stream: Option<UnixStream>,
    /// Does this connection stand in ENABLE_NODE? Every new one begins in VIEW_NODE, which has no `show running-config`.
    enabled: bool,
}

impl Vty {
    /// The socket `<dir>/<daemon>.vty`; nothing is opened yet. `deadline` bounds each question as a whole, connection included.
    pub fn new(dir: &Path, daemon: &'static str, deadline: Duration) -> Vty {
        let path = dir.join(format!("{daemon}.vty"));
        Vty { daemon, path, deadline, last: None, max: MAX_ANSWER, stream: None, enabled: false }
    }

    /// Like [`Vty::new`], and tries the connection at once: tells whether the daemon is there.
    pub fn connect(dir: &Path, daemon: &'static str, deadline: Duration) -> Result<Vty, SpeakerError> {
        let mut vty = Vty::new(dir, daemon, deadline);
        vty.reach()?;
        Ok(vty)
    }

    /// One that takes `most` for a question, and no question after `last`.
    pub(super) fn for_report(self, last: Instant, most: Duration) -> Vty {
        Vty { deadline: self.deadline.min(most), last: Some(last), ..self }
    }

    /// With the limits of another daemon's.
    pub(super) fn with_limits_of(self, other: &Vty) -> Vty {
        Vty { deadline: self.deadline.min(other.deadline), last: other.last, ..self }
    }

    /// Is it there? Connects anew.
    pub(super) fn reach(&mut self) -> Result<(), SpeakerError> {
        let usual = self.deadline;
        self.deadline = self.allowed("connect", usual)?;
        let stream = self.open(Instant::now() + self.deadline, "connect");
        self.deadline = usual;
        self.stream = Some(stream?);
        Ok(())
    }

    /// As much of this deadline as is left.
    fn allowed(&self, command: &str, deadline: Duration) -> Result<Duration, SpeakerError> {
        let Some(last) = self.last else { return Ok(deadline) };
        match last.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(self.not_asked(command, Frr::REPORT)),
            left => Ok(left.min(deadline)),
        }
    }

    /// The daemon behind this socket.
    pub fn daemon(&self) -> &'static str {
        self.daemon
    }

    /// Asks and returns the daemon's text. After any error but [`SpeakerError::Refused`] the connection is dropped, since what follows
    /// on it could be the rest of an old answer; the next question opens another.
    pub fn show(&mut self, command: &str) -> Result<String, SpeakerError> {
        self.show_within(command, self.deadline)
    }

    /// Like [`Vty::show`], with another deadline for this one question.
    pub fn show_within(&mut self, command: &str, deadline: Duration) -> Result<String, SpeakerError> {
        let deadline = self.allowed(command, deadline)?;
        let usual = std::mem::replace(&mut self.deadline, deadline);
        let until = Instant::now() + deadline;
        let kept = self.stream.is_some();
        let answer = match self.run(command, until) {
            // A daemon that was restarted since the last question: the old connection is dead, the new daemon answers.
            Err(SpeakerError::NotRunning { .. }) if kept => self.run(command, until),
            answer => answer,
        };
        self.deadline = usual;
        answer
    }

    /// Like [`Vty::show`], for commands of the ENABLE_NODE such as `show running-config`. Needs no password on this socket.
    pub fn show_enabled(&mut self, command: &str) -> Result<String, SpeakerError> {
        if !self.enabled {
            self.show("enable")?;
            self.enabled = self.stream.is_some();
        }
        self.show(command)
    }

    fn run(&mut self, command: &str, until: Instant) -> Result<String, SpeakerError> {
        let (mut stream, enable) = match self.stream.take() {
            Some(stream) => (stream, false),
            // Reconnected in the middle of an enabled conversation.
            None => (self.open(until, command)?, std::mem::take(&mut self.enabled)),
        };
        if enable {
            self.exchange(&mut stream, "enable", until)?;
        }
        let (text, status) = self.exchange(&mut stream, command, until)?;
        self.enabled |= enable;
        self.stream = Some(stream);
        if ANSWERED.contains(&status) {
            return Ok(text);
        }
        Err(SpeakerError::Refused { command: command.to_owned(), words: format!("{} (status {status})", text.trim()) })
    }

    /// Connects without ever blocking for good: a Unix `connect` waits while the listener's backlog is full, which is what a frozen
    /// daemon's is (FRR: 20) after a few hooks. Non-blocking, it says EAGAIN instead (unix(7)), and we try until the deadline.
    fn open(&self, until: Instant, command: &str) -> Result<UnixStream, SpeakerError> {
        let gone = |cause: rustix::io::Errno| SpeakerError::NotRunning {
            daemon: self.daemon,
            path: self.path.clone(),
            cause: cause.into(),
        };
        let address = SocketAddrUnix::new(&self.path).map_err(gone)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(gone)?;
        loop {
            match rustix::net::connect(&socket, &address) {
                Ok(()) => break,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(rustix::io::Errno::AGAIN) => return Err(self.timeout(command)),
                Err(cause) => return Err(gone(cause)),
            }
        }
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false).map_err(|cause| self.broken(cause, command))?;
        Ok(stream)
    }

    fn exchange(&self, stream: &mut UnixStream, command: &str, until: Instant) -> Result<(String, u8), SpeakerError> {
        if command.bytes().any(|b| b.is_ascii_control()) {
            return Err(self.garbage(command, "nothing: the command itself has a control character".into()));
        }
        let failed = |cause| self.broken(cause, command);
        stream.set_write_timeout(Some(left(until))).map_err(failed)?;
        stream.write_all(format!("{command}\0").as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        let mut chunk = [0u8; 16 << 10];
        let mut seen = 0;
        loop {
            if Instant::now() >= until {
                return Err(self.timeout(command));
            }
            stream.set_read_timeout(Some(left(until))).map_err(failed)?;
            let got = match stream.read(&mut chunk) {
                Ok(0) => return Err(failed(ErrorKind::UnexpectedEof.into())),
                Ok(got) => got,
                Err(cause) if cause.kind() == ErrorKind::Interrupted => continue,
                Err(cause) => return Err(failed(cause)),
            };
            answer.extend_from_slice(&chunk[..got]);
            let zero = answer[seen..].iter().position(|b| *b == 0).map(|at| seen + at);
            seen = zero.unwrap_or(answer.len());
            match zero.map(|at| &answer[at..]) {
                Some([0, 0, 0, status]) => {
                    let status = *status;
                    answer.truncate(seen);
                    return Ok((String::from_utf8_lossy(&answer).into_owned(), status));
                }
                Some(tail) if tail.len() >= 4 => return Err(self.garbage(command, "a broken trailer".into())),
                _ if answer.len() > self.max => {
                    let command = command.to_owned();
                    return Err(SpeakerError::TooLarge { daemon: self.daemon, command, most: self.max });
                }
                _ => {}
            }
        }
    }

    fn timeout(&self, command: &str) -> SpeakerError {
        SpeakerError::Timeout { daemon: self.daemon, command: command.to_owned(), within: self.deadline }
    }

    /// What was asked before took all of this time.
    pub(super) fn not_asked(&self, command: &str, within: Duration) -> SpeakerError {
        SpeakerError::NotAsked { daemon: self.daemon, command: command.to_owned(), within }
    }

    pub(super) fn garbage(&self, command: &str, what: String) -> SpeakerError {
        SpeakerError::Garbage { daemon: self.daemon, command: command.to_owned(), what }
    }

    /// What a failed read or write means: the time is up, or the daemon is going away.
    fn broken(&self, cause: std::io::Error, command: &str) -> SpeakerError {
        match cause.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.timeout(command),
            _ => SpeakerError::NotRunning { daemon: self.daemon, path: self.path.clone(), cause },
        }
    }
}

/// What is left, never zero: a zero socket timeout would mean for ever.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

#[cfg(test)]
#[path = "vty_test.rs"]
mod test;
