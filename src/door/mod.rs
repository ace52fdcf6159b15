//! Where containers of users knock. Their hooks run without CAP_NET_ADMIN, so they hand their call to the agent over a unix socket.
//!
//! One connection is one call: a line of JSON with what LXC gave to the hook, answered by `{"ok":true}` or `{"error":"…"}`. Nothing
//! in it is believed. Who asks is the kernel's word (SO_PEERCRED); what that user may do is config.toml's (`[[unprivileged]]`); that a
//! namespace is that user's is proven (`proof`); and a user's guests are kept apart from root's and each other's by their id, `1000/c1`.

mod client;
mod proof;

pub use client::{ask, may_act};

use crate::config::{ConfigError, Unprivileged};
use crate::engine::{Engine, EngineError};
use crate::input::{LxcHook, LxcPhase, lxc};
use crate::journal::Message;
use crate::kernel::KernelError;
use crate::model::{Guest, GuestKind, NetName, one_line, quoted};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the door is.
pub const PATH: &str = "/run/evpn-hook-agent.sock";

/// How long one caller may keep the agent from its other work.
const PATIENCE: Duration = Duration::from_secs(1);

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
}

impl Door {
    /// Listens at `path` for everybody (mode 0666). A socket that nobody answers any more is replaced; one with a living agent behind
    /// it is an error (`AddrInUse`), as is anything else of that name.
    pub fn bind(path: &Path) -> io::Result<Door> {
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
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Door { listener, path: path.to_owned() })
    }

    /// Takes one connection, if one waits, and carries out its call: at most a second and some milliseconds. Whatever the caller did
    /// wrong is told to the caller. An error is the agent's own: the socket is broken, or this process is in a foreign namespace and
    /// must end ([`KernelError::Stranded`]).
    pub fn serve(&self, engine: &mut Engine) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => return Ok(()),
            Err(e) => return Err(e),
        };
        let end = Instant::now() + PATIENCE;
        let (answer, stranded) = match hear(&stream, engine, end) {
            Ok(()) => (Answer::Done { ok: true }, None),
            Err(EngineError::Kernel(error @ KernelError::Stranded { .. })) => {
                (Answer::Refused { error: error.to_string() }, Some(error))
            }
            Err(error) => (Answer::Refused { error: one_line(&error.to_string()) }, None),
        };
        // A caller that has gone has its answer.
        let _ = answer_to(stream, &answer);
        stranded.map_or(Ok(()), |error| Err(io::Error::other(error)))
    }
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
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&line)
}

fn hear(stream: &UnixStream, engine: &mut Engine, end: Instant) -> Result<(), EngineError> {
    let peer = rustix::net::sockopt::socket_peercred(stream).map_err(|e| refusal(format!("SO_PEERCRED: {e}")))?;
    let uid = peer.uid.as_raw();
    if uid == 0 {
        return Err(refusal("root's hooks need no agent: call 'evpn-hook lxc' with CAP_NET_ADMIN"));
    }
    let entry = entry_of(uid, engine);
    // Whoever has neither an entry nor a guest is sent away unheard: listening may take a second.
    let own = format!("{uid}/");
    let has_guest = || {
        engine
            .register
            .guests()
            .iter()
            .flatten()
            .any(|r| r.guest.kind == GuestKind::Lxc && r.guest.id.starts_with(&own))
    };
    if !matches!(entry, Ok(Some(_))) && !has_guest() {
        return Err(entry.map_or_else(EngineError::from, |_| no_entry(uid)));
    }
    let line = read_line(stream, end).map_err(refusal)?;
    let result = act(uid, &line, entry, engine);
    if let Err(error) = &result {
        engine.journal.say(&Message::Warning(error));
    }
    result
}

/// What config.toml has on this user, now: the agent may be older than the file's last change.
fn entry_of(uid: u32, engine: &Engine) -> Result<Option<Unprivileged>, ConfigError> {
    let config = crate::config::load(&engine.config_path.0, engine.config_path.1)?;
    Ok(config.unprivileged.into_iter().find(|entry| proof::is_called(uid, &entry.user)))
}

fn act(
    uid: u32,
    line: &[u8],
    entry: Result<Option<Unprivileged>, ConfigError>,
    engine: &mut Engine,
) -> Result<(), EngineError> {
    let call: Call = serde_json::from_slice(line).map_err(|e| refusal(format!("the call does not parse: {e}")))?;
    let read = lxc::read(call.network.as_ref(), &|key| call.lxc.get(key).cloned());
    let Some(LxcHook { guest, phase }) = read.map_err(|e| refusal(e.to_string()))? else { return Ok(()) };
    let id = format!("{uid}/{}", guest.id);
    let guest = Guest::new(GuestKind::Lxc, &id, &id).map_err(|e| refusal(e.to_string()))?;
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
        LxcPhase::Down { .. } | LxcPhase::Stop | LxcPhase::PostStop => engine.handle_lxc(LxcHook { guest, phase }),
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
fn read_line(mut stream: &UnixStream, end: Instant) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let mut buffer = [0; MAX_CALL];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let slow = || format!("no whole call within {} s", PATIENCE.as_secs());
        if left.is_zero() {
            return Err(slow());
        }
        stream.set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Err("the call ends without a newline".to_owned()),
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(slow()),
            Err(e) => return Err(e.to_string()),
        };
        let whole = buffer[..count].iter().position(|b| *b == b'\n');
        line.extend(&buffer[..whole.unwrap_or(count)]);
        if line.len() > MAX_CALL {
            return Err(format!("the call is over {MAX_CALL} bytes"));
        }
        if whole.is_some() {
            return Ok(line);
        }
    }
}
