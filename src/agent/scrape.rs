//! Where Prometheus asks: a port on loopback or a unix socket, HTTP/1.0, one question a connection.
//!
//! It is served from the agent's one thread, so nothing here ever waits: what does not come or go at once is asked of poll(2), and dropped after
//! [`PATIENCE`]. A caller that is silent or slow costs a descriptor for that long, and no more than [`CALLERS`] have one; the rest waits in
//! the kernel's queue.

use crate::config::MetricsAt;
use crate::door;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long one caller may take for all of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many are served at the same time.
const CALLERS: usize = 8;
/// The longest question, in bytes; Prometheus' own has some 300.
const LONGEST: usize = 8 << 10;
/// After a connection that could not be taken (no descriptor left) it is not tried again for so long.
const REST: Duration = Duration::from_secs(1);
/// For a socket: its owner's and its directory's group, which a setgid directory makes the scraper's.
const MODE: u32 = 0o660;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

struct Caller {
    stream: OwnedFd,
    heard: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
    until: Instant,
}

/// The listener with its callers; nothing where config.toml names no place.
#[derive(Default)]
pub struct Scrape {
    at: Option<MetricsAt>,
    listener: Option<Listener>,
    callers: Vec<Caller>,
    rests_until: Option<Instant>,
}

impl Scrape {
    /// Listens there from now on, and nowhere else. What it cannot is tried again when the place changes.
    pub fn listen(&mut self, at: Option<&MetricsAt>) -> io::Result<()> {
        if self.at.as_ref() == at {
            return Ok(());
        }
        *self = Scrape { at: at.cloned(), ..Scrape::default() };
        self.listener = match at {
            None => None,
            Some(MetricsAt::Tcp(address)) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Some(Listener::Tcp(listener))
            }
            Some(MetricsAt::Socket(path)) => Some(Listener::Unix(door::listen(path, MODE)?, path.clone())),
        };
        Ok(())
    }

    /// Does somebody want to know?
    pub fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    /// What to wait for.
    pub fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let more = self.callers.len() < CALLERS && self.rests_until.is_none();
        let listener =
            self.listener.iter().filter(move |_| more).map(|l| PollFd::from_borrowed_fd(l.as_fd(), PollFlags::IN));
        listener.chain(self.callers.iter().map(|caller| {
            let flags = if caller.answer.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            PollFd::from_borrowed_fd(caller.stream.as_fd(), flags)
        }))
    }

    /// And for how long at most: nothing while nobody calls.
    pub fn next(&self) -> Option<Instant> {
        self.callers.iter().map(|caller| caller.until).chain(self.rests_until).min()
    }

    /// Goes on with all callers as far as it goes without waiting. `text` is made where somebody asks for it.
    pub fn serve(&mut self, text: &mut dyn FnMut() -> String) {
        if self.listener.is_none() {
            return;
        }
        let now = Instant::now();
        self.rests_until = self.rests_until.filter(|until| now < *until);
        while self.rests_until.is_none() && self.callers.len() < CALLERS {
            match self.accept() {
                Ok(stream) => {
                    let until = now + PATIENCE;
                    self.callers.push(Caller { stream, heard: Vec::new(), answer: Vec::new(), sent: 0, until });
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                // It stays readable: who asked poll(2) again at once would never sleep.
                Err(_) => self.rests_until = Some(now + REST),
            }
        }
        self.callers.retain_mut(|caller| now < caller.until && caller.goes_on(text));
    }

    fn accept(&self) -> io::Result<OwnedFd> {
        let stream = match &self.listener {
            Some(Listener::Tcp(listener)) => OwnedFd::from(listener.accept()?.0),
            Some(Listener::Unix(listener, _)) => OwnedFd::from(listener.accept()?.0),
            None => return Err(io::ErrorKind::WouldBlock.into()),
        };
        rustix::io::ioctl_fionbio(&stream, true)?;
        Ok(stream)
    }
}

impl Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Caller {
    /// False where it is done, or has gone.
    fn goes_on(&mut self, text: &mut dyn FnMut() -> String) -> bool {
        let mut buffer = [0; 2048];
        while self.answer.is_empty() {
            match rustix::io::read(&self.stream, &mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.heard.extend(&buffer[..count]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
            if let Some(asked) = asked(&self.heard) {
                self.answer = answer(asked, text);
            }
        }
        while self.sent < self.answer.len() {
            match rustix::io::write(&self.stream, &self.answer[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

/// What a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Metrics,
    /// The same without the text.
    Head,
    /// What it cannot have: a status.
    Not(&'static str),
}

/// `None` as long as the question is not whole (RFC 1945 §5: a request line, headers, an empty line).
fn asked(heard: &[u8]) -> Option<Asked> {
    let whole = heard.windows(4).any(|w| w == b"\r\n\r\n") || heard.windows(2).any(|w| w == b"\n\n");
    if !whole {
        return (heard.len() > LONGEST).then_some(Asked::Not("431 Request Header Fields Too Large"));
    }
    let line = heard.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default();
    let words: Vec<&str> = line.trim_end_matches('\r').split(' ').collect();
    let [method, target, version] = words[..] else { return Some(Asked::Not("400 Bad Request")) };
    Some(match (method, target.split('?').next().unwrap_or_default()) {
        _ if !version.starts_with("HTTP/1.") => Asked::Not("400 Bad Request"),
        ("GET", "/metrics") => Asked::Metrics,
        ("HEAD", "/metrics") => Asked::Head,
        ("GET" | "HEAD", _) => Asked::Not("404 Not Found"),
        _ => Asked::Not("405 Method Not Allowed"),
    })
}

fn answer(asked: Asked, text: &mut dyn FnMut() -> String) -> Vec<u8> {
    let (status, body) = match asked {
        Asked::Metrics | Asked::Head => ("200 OK", text()),
        Asked::Not(status) => (status, format!("{status}: GET /metrics\n")),
    };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let mut answer = format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    if asked != Asked::Head {
        answer.push_str(&body);
    }
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_whole_or_waited_for_and_then_right_or_not() {
        for (heard, wants) in [
            ("", None),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n", None),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Some(Asked::Metrics)),
            ("GET /metrics?name[]=x HTTP/1.0\n\n", Some(Asked::Metrics)),
            ("HEAD /metrics HTTP/1.0\r\n\r\n", Some(Asked::Head)),
            ("GET / HTTP/1.0\r\n\r\n", Some(Asked::Not("404 Not Found"))),
            ("GET /metrics/../x HTTP/1.0\r\n\r\n", Some(Asked::Not("404 Not Found"))),
            ("POST /metrics HTTP/1.1\r\n\r\n", Some(Asked::Not("405 Method Not Allowed"))),
            ("GET /metrics\r\n\r\n", Some(Asked::Not("400 Bad Request"))),
            ("GET /metrics HTTP/2.0\r\n\r\n", Some(Asked::Not("400 Bad Request"))),
            ("\r\n\r\n", Some(Asked::Not("400 Bad Request"))),
        ] {
            assert_eq!(asked(heard.as_bytes()), wants, "{heard:?}");
        }
        assert_eq!(asked(b"\xff\xff\n\n"), Some(Asked::Not("400 Bad Request")));
        assert_eq!(asked(&[b'x'; LONGEST]), None);
        assert_eq!(asked(&[b'x'; LONGEST + 1]), Some(Asked::Not("431 Request Header Fields Too Large")));
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let text = String::from_utf8(answer(Asked::Metrics, &mut || "evpn_up 1\n".to_owned())).unwrap();
        assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("\r\n\r\nevpn_up 1\n"), "{text}");
        assert!(text.contains("\r\nContent-Length: 10\r\n"), "{text}");
        let head = String::from_utf8(answer(Asked::Head, &mut || "evpn_up 1\n".to_owned())).unwrap();
        assert!(head.contains("Content-Length: 10") && head.ends_with("\r\n\r\n"), "{head}");
        let mut asked_for = false;
        let no = answer(Asked::Not("405 Method Not Allowed"), &mut || {
            asked_for = true;
            String::new()
        });
        assert!(String::from_utf8(no).unwrap().contains("Allow: GET") && !asked_for);
    }
}
