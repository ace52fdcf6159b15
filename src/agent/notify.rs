//! A word to systemd, sd_notify(3), without its library: a datagram to the socket that the environment names.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the service manager listens; does nothing where there is none.
#[derive(Debug)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// From the value of NOTIFY_SOCKET: a path, or `@` and an abstract name.
    pub fn new(socket: Option<&OsStr>) -> Notify {
        let to = socket.and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
                _ => SocketAddr::from_pathname(name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        });
        Notify { to }
    }

    /// Says `READY=1` or `STATUS=…`; what cannot be said is dropped.
    pub fn say(&self, words: &str) {
        if let Some((socket, address)) = &self.to {
            let _ = socket.send_to_addr(words.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_hear() {
        let abstract_name = format!("evpn-notify-{}", std::process::id());
        let listener =
            SocketAddr::from_abstract_name(&abstract_name).and_then(|a| UnixDatagram::bind_addr(&a)).unwrap();
        let path = std::env::temp_dir().join(&abstract_name);
        let file = UnixDatagram::bind(&path).unwrap();
        for (name, listener) in [(format!("@{abstract_name}"), listener), (path.display().to_string(), file)] {
            Notify::new(Some(OsStr::new(&name))).say("READY=1");
            let mut heard = [0; 16];
            let length = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1");
        }
        std::fs::remove_file(path).unwrap();
        Notify::new(None).say("READY=1");
        Notify::new(Some(OsStr::new("/nowhere/at/all"))).say("READY=1");
    }
}
