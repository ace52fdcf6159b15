//! Where containers of users knock. Their hooks run without CAP_NET_ADMIN, so they hand their call to the agent over a unix socket.
//!
//! One connection is one call: a line of JSON with what LXC gave to the hook, answered by `{"ok":true}` or `{"error":"…"}`. Nothing
//! in it is believed. Who asks is the kernel's word (SO_PEERCRED); what that user may do is config.toml's (`[[unprivileged]]`); that a
//! namespace is that user's is proven (`proof`); and a user's guests are kept apart from root's and each other's by their id, `1000/c1`.

mod client;
mod proof;

pub use client::{ask, may_act};

use crate::config::{ConfigError, Unprivileged, User};
use crate::engine::{Engine, EngineError};
use crate::input::{LxcHook, LxcPhase, lxc};
use crate::journal::Message;
use crate::kernel::KernelError;
use crate::model::{Guest, GuestKind, NetName, quoted, short_line};
use crate::pace::{Pace, Paced};
use crate::register::guest_key;
use serde::{Deserialize, Serialize};
use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the door is.
pub const PATH: &str = "/run/evpn-hook-agent.sock";

/// How long one caller may keep the agent from its other work: the hook writes its one line as soon as it is connected, but may lose the
/// processor in between.
const PATIENCE: Duration = Duration::from_millis(250);

/// The same for one without an entry, who can only withdraw what it has.
const LITTLE_PATIENCE: Duration = Duration::from_millis(50);

/// How long after a user was slow it is not waited for at all.
const SLOW: Duration = Duration::from_secs(10);

/// How long a user without an entry and a guest is refused without another look, as long as config.toml is the same.
const REFUSED: Duration = Duration::from_secs(1);

/// So many of a user's calls that fail are logged, and one a minute after that: users call as often as they like.
const WORDS: Pace = Pace { at_once: 16, every: Duration::from_secs(60) };

/// The most users of whom something is remembered.
const USERS: usize = 256;

/// The longest call, in bytes. LXC's longest name (255), two devices and a network stay far below.
const MAX_CALL: usize = 4096;

/// What the client sends.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    /// The `LXC_*` that [`lxc::read`] reads.
    lxc: BTreeMap<String, String>,
    /// `--network`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<NetName>,
}

/// What it gets.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Done { ok: bool },
    Refused { error: String },
}

/// The agent's end of the socket.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// config.toml's entries, and what the file was like when they were read.
    entries: Option<(Stamp, Vec<Unprivileged>)>,
    /// Who was slow, and when.
    slow: HashMap<u32, Instant>,
    /// Who was refused, when, and with which words.
    refused: HashMap<u32, (Instant, String)>,
    /// About whose calls how much was logged.
    words: Paced<u32>,
}

/// What tells one version of a file from the next.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// Why a call was not heard.
enum Unheard {
    Slow,
    Other(String),
}

impl Door {
    /// Listens at `path` for everybody (mode 0666). A socket that nobody answers any more is replaced; one with a living agent behind
    /// it is an error (`AddrInUse`), as is anything else of that name.
    pub fn bind(path: &Path) -> io::Result<Door> {
        let listener = listen(path, 0o666)?;
        let path = path.to_owned();
        Ok(Door {
            listener,
            path,
            entries: None,
            slow: HashMap::new(),
            refused: HashMap::new(),
            words: Paced::default(),
        })
    }

    /// Takes one connection, if one waits, and carries out its call: a caller is waited for a quarter of a second at most. Whatever it did
    /// wrong is told to the caller. An error is the agent's own: the socket is broken, or this process is in a foreign namespace and
    /// must end ([`KernelError::Stranded`]).
    pub fn serve(&mut self, engine: &mut Engine) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => return Ok(()),
            Err(e) => return Err(e),
        };
        let (answer, stranded) = match self.hear(&stream, engine) {
            Ok(()) => (Answer::Done { ok: true }, None),
            Err(EngineError::Kernel(error @ KernelError::Stranded { .. })) => {
                (Answer::Refused { error: error.to_string() }, Some(error))
            }
            Err(error) => (Answer::Refused { error: short_line(&error.to_string()) }, None),
        };
        // A caller that has gone has its answer.
        let _ = answer_to(stream, &answer);
        stranded.map_or(Ok(()), |error| Err(io::Error::other(error)))
    }

    fn hear(&mut self, stream: &UnixStream, engine: &mut Engine) -> Result<(), EngineError> {
        let peer = rustix::net::sockopt::socket_peercred(stream).map_err(|e| refusal(format!("SO_PEERCRED: {e}")))?;
        let uid = peer.uid.as_raw();
        if uid == 0 {
            return Err(refusal("root's hooks need no agent: call 'evpn-hook lxc' with CAP_NET_ADMIN"));
        }
        let now = Instant::now();
        self.slow.retain(|_, since| now.duration_since(*since) < SLOW);
        self.refused.retain(|_, (since, _)| now.duration_since(*since) < REFUSED);
        if self.slow.contains_key(&uid) {
            let what = format!("user {uid} sent no whole call lately: try again in {} s", SLOW.as_secs());
            return Err(refusal(what));
        }
        let entry = self.entry_of(uid, engine);
        if let Some((_, words)) = self.refused.get(&uid) {
            return Err(refusal(words.clone()));
        }
        let may_join = matches!(entry, Ok(Some(_)));
        // Whoever has neither an entry nor a guest is sent away unheard: listening takes time.
        if !may_join && !has_guest(uid, engine) {
            let error = entry.map_or_else(EngineError::from, |_| no_entry(uid));
            if self.refused.len() < USERS {
                self.refused.insert(uid, (now, error.to_string()));
            }
            return Err(error);
        }
        let patience = if may_join && self.slow.len() < USERS { PATIENCE } else { LITTLE_PATIENCE };
        let line = read_line(stream, now + patience).map_err(|why| match why {
            Unheard::Slow => {
                self.slow.insert(uid, Instant::now());
                refusal(format!("no whole call within {} ms", patience.as_millis()))
            }
            Unheard::Other(why) => refusal(why),
        })?;
        let result = act(uid, &line, entry, engine);
        if let Err(error) = &result
            && let Some(unsaid) = self.words.take(&uid, WORDS, now)
        {
            let more =
                if unsaid > 0 { format!(" ({unsaid} of user {uid}'s before were not logged)") } else { String::new() };
            engine.journal.say(&Message::Warning(&format!("{error}{more}")));
        }
        result
    }

    /// What config.toml has on this user, now: the agent may be older than the file's last change. It is parsed once a change.
    fn entry_of(&mut self, uid: u32, engine: &Engine) -> Result<Option<Unprivileged>, ConfigError> {
        let (path, must_exist) = &engine.config_path;
        let stamp = std::fs::metadata(path).ok().map(|f| (f.dev(), f.ino(), f.mtime(), f.mtime_nsec(), f.size()));
        if self.entries.as_ref().is_none_or(|(before, _)| *before != stamp) {
            self.refused.clear();
            self.entries = None;
            let config = crate::config::load(path, *must_exist)?;
            self.entries = Some((stamp, config.unprivileged));
        }
        let entries = self.entries.iter().flat_map(|(_, entries)| entries);
        // /etc/passwd is read where somebody is called by name, and once for all of them.
        let names = LazyCell::new(|| proof::names(uid));
        let is_it = |user: &User| match user {
            User::Id(id) => *id == uid,
            User::Name(name) => names.contains(name),
        };
        Ok(entries.into_iter().find(|entry| is_it(&entry.user)).cloned())
    }
}

/// Listens at `path`, open to those whom the mode lets in, without ever waiting. A socket that nobody answers any more is replaced.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => match UnixStream::connect(path) {
            // A file that is no socket refuses, too.
            Err(stale) if stale.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            _ => return Err(e),
        },
        bound => bound?,
    };
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// By the names of the records alone: there may be a thousand of them.
fn has_guest(uid: u32, engine: &Engine) -> bool {
    let Ok(any) = Guest::new(GuestKind::Lxc, &format!("{uid}/x"), "x") else { return false };
    let key = guest_key(&any);
    let Some(prefix) = key.strip_suffix('x') else { return false };
    let files = std::fs::read_dir(engine.register.guests_dir()).into_iter().flatten().flatten();
    files.map(|file| file.file_name()).any(|name| name.to_string_lossy().starts_with(prefix))
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn answer_to(mut stream: UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    // It fits into what the socket holds.
    stream.set_nonblocking(true)?;
    stream.write_all(&line)
}

/// What a user's hook asks for, its container named as that user's; `None` where there is nothing to do.
pub(crate) fn read_call(uid: u32, line: &[u8]) -> Result<Option<LxcHook>, String> {
    let call: Call =
        serde_json::from_slice(line).map_err(|e| format!("the call does not parse: {}", short_line(&e.to_string())))?;
    let read = lxc::read(call.network.as_ref(), &|key| call.lxc.get(key).cloned());
    let Some(LxcHook { guest, phase, flaw }) = read.map_err(|e| e.to_string())? else { return Ok(None) };
    // Where a user keeps them is the user's word, and not asked.
    let id = format!("{uid}/{}", guest.name);
    let guest = Guest::new(GuestKind::Lxc, &id, &id).map_err(|e| e.to_string())?;
    Ok(Some(LxcHook { guest, phase, flaw }))
}

fn act(
    uid: u32,
    line: &[u8],
    entry: Result<Option<Unprivileged>, ConfigError>,
    engine: &mut Engine,
) -> Result<(), EngineError> {
    let Some(LxcHook { guest, phase, flaw }) = read_call(uid, line).map_err(refusal)? else { return Ok(()) };
    if let Some(flaw) = flaw.as_ref().filter(|_| phase.may_refuse()) {
        return Err(refusal(format!("{guest}: {}", flaw.why)));
    }
    match phase {
        // The veth is not in the container yet: there is no way to tell whose it is.
        LxcPhase::Up { network: Some(network), .. } => Err(refusal(format!(
            "{guest}: script.up --network {network} is for root's containers: set lxc.net.N.link to the network's bridge instead"
        ))),
        LxcPhase::Up { .. } => Ok(()),
        LxcPhase::StartHost { pid } => {
            let entry = entry?.ok_or_else(|| no_entry(uid))?;
            let netns = proof::namespace(uid, pid).map_err(|why| refusal(format!("{guest}: {why}")))?;
            engine.start_of_user(guest, &netns, &entry.networks)
        }
        // Withdrawing one's own needs no entry: it may be gone by now.
        LxcPhase::Down { .. } | LxcPhase::Stop | LxcPhase::PostStop => {
            engine.handle_lxc(LxcHook { guest, phase, flaw })
        }
    }
}

fn no_entry(uid: u32) -> EngineError {
    let user = proof::names(uid).into_iter().next();
    let user = user.map_or(uid.to_string(), |name| quoted(&name).replace('\'', "\""));
    refusal(format!(
        "no entry for user {user} in config.toml: add the lines '[[unprivileged]]', 'user = {user}' and 'networks = [\"…\"]'"
    ))
}

fn refusal(text: impl Into<String>) -> EngineError {
    EngineError::Refused(crate::plan::Refusal(text.into()))
}

/// One line without its end; whoever takes longer, sends more or hangs up early is told so.
fn read_line(mut stream: &UnixStream, end: Instant) -> Result<Vec<u8>, Unheard> {
    let other = |error: io::Error| Unheard::Other(error.to_string());
    let mut line = Vec::new();
    let mut buffer = [0; MAX_CALL];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Unheard::Slow);
        }
        stream.set_read_timeout(Some(left)).map_err(other)?;
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Err(Unheard::Other("the call ends without a newline".to_owned())),
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(Unheard::Slow),
            Err(e) => return Err(other(e)),
        };
        let whole = buffer[..count].iter().position(|b| *b == b'\n');
        line.extend(&buffer[..whole.unwrap_or(count)]);
        if line.len() > MAX_CALL {
            return Err(Unheard::Other(format!("the call is over {MAX_CALL} bytes")));
        }
        if whole.is_some() {
            return Ok(line);
        }
    }
}
