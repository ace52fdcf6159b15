//! The hook's side of the door.

use super::{Answer, Call, PATH};
use crate::input::{LxcHook, LxcPhase};
use crate::model::{NetName, one_line, quoted};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::thread::{CapabilitySet, capabilities};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long the container's start waits for the agent.
const PATIENCE: Duration = Duration::from_secs(2);

/// What [`lxc::read`](crate::input::lxc::read) reads.
const KEYS: [&str; 8] = [
    "LXC_NAME",
    "LXC_HOOK_VERSION",
    "LXC_HOOK_SECTION",
    "LXC_HOOK_TYPE",
    "LXC_NET_TYPE",
    "LXC_NET_PEER",
    "LXC_NET_PARENT",
    "LXC_PID",
];

/// Can this process change the host's network itself (CAP_NET_ADMIN)?
pub fn may_act() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Lets the agent carry out a hook's call; the error is one line for the user.
pub fn ask(hook: &LxcHook, network: Option<&NetName>, env: &impl Fn(&str) -> Option<String>) -> Result<(), String> {
    // Nothing would be done for it.
    if matches!(hook.phase, LxcPhase::Up { network: None, .. }) {
        return Ok(());
    }
    let lxc = KEYS.iter().filter_map(|key| Some(((*key).to_owned(), env(key)?))).collect();
    let answer = exchange(&Call { lxc, network: network.cloned() }).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock => "has no answer yet".to_owned(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "is not there".to_owned(),
            _ => error.to_string(),
        };
        format!(
            "unprivileged {}: no evpn-agent answers on {PATH} ({why}): start it, or start the container as root",
            hook.guest
        )
    })?;
    match answer {
        Answer::Done { .. } => Ok(()),
        Answer::Refused { error } => Err(one_line(&error)),
    }
}

fn exchange(call: &Call) -> io::Result<Answer> {
    let mut line = serde_json::to_vec(call)?;
    line.push(b'\n');
    let end = Instant::now() + PATIENCE;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The first bounds the wait for a place in the queue, too (net/unix/af_unix.c `unix_stream_connect`).
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    connect(&socket, &SocketAddrUnix::new(PATH)?)?;
    let mut stream = UnixStream::from(socket);
    // At once, and in one write: the agent waits for no more than that. One that is sent away unheard finds the door shut and its answer in the letter box.
    let _ = stream.write_all(&line);
    let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    let mut answer = String::new();
    BufReader::new(stream.take(1 << 16)).read_line(&mut answer)?;
    serde_json::from_str(&answer)
        .map_err(|_| io::Error::other(format!("its answer {} does not parse", quoted(&answer))))
}
