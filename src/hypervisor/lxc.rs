//! Which containers run: each has an abstract socket `@LXCPATH/NAME/command` as long as its monitor lives (liblxc's af_unix.c
//! `lxc_abstract_unix_open`). What only the monitor knows is asked with `lxc-info`, which hangs while the container is in a hook: it has a deadline.

use crate::exec;
use crate::input::lxc::id;
use crate::model::Guest;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

/// For one lxc-info. It takes some 10 ms where the monitor listens, and for ever while it is in a hook: then a later look asks again.
const DEADLINE: Duration = Duration::from_millis(500);

/// The most that is read of the kernel's list of sockets, in bytes: a line has some 80.
const MAX_LIST: u64 = 16 << 20;

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its directory is `LXCPATH/NAME`.
    pub lxcpath: String,
    /// Its monitor is root's. Where not, neither its configuration nor its monitor is to be believed.
    pub roots: bool,
}

/// The containers that run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Containers {
    /// By the id that they are registered by: [`id`], and `UID/NAME` if their monitor is a user's.
    pub by_id: BTreeMap<String, Running>,
    /// There are some that nobody can name: liblxc hashes an address that is too long (`@lxc/HASH/command`, commands_utils.c
    /// `lxc_make_abstract_socket_name`).
    pub nameless: bool,
}

impl Containers {
    /// The container that this guest is, with its id: the one that has the guest's, else the one with its name that is no other record's (`is_known`, by
    /// id): a hook that cannot tell its container's directory has the name alone.
    pub fn find(&self, guest: &Guest, is_known: impl Fn(&str) -> bool) -> Option<(&str, &Running)> {
        let exact = self.by_id.get_key_value(&guest.id);
        let named =
            || self.by_id.iter().find(|(id, running)| running.roots && running.name == guest.name && !is_known(id));
        exact.or_else(named).map(|(id, running)| (id.as_str(), running))
    }
}

/// The containers that run; `None` where that cannot be read. Anybody can listen at any such address, hence each is asked for its owner.
pub fn running() -> Option<Containers> {
    // Abstract names are any bytes, and any user's.
    let text = listed(File::open("/proc/net/unix").ok()?)?;
    let text = String::from_utf8_lossy(&text);
    let nameless = sockets(&text).iter().any(|(lxcpath, name)| lxcpath == "/lxc" && is_hash(name));
    Some(Containers { by_id: identified(&text, owner), nameless })
}

/// Any user may make sockets: of a list without end nothing is believed, not even who is missing in it.
fn listed(file: impl Read) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    file.take(MAX_LIST + 1).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= MAX_LIST).then_some(text)
}

fn is_hash(name: &str) -> bool {
    !name.is_empty() && name.len() <= 16 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(crate) fn identified(text: &str, owner: impl Fn(&str) -> Option<u32>) -> BTreeMap<String, Running> {
    let mut found = BTreeMap::new();
    for (lxcpath, name) in sockets(text) {
        // Who does not say, as with a full queue, may be anybody: enough to withdraw nothing, not to be believed.
        let (id, roots) = match owner(&format!("{lxcpath}/{name}/command")) {
            Some(0) => (id(&lxcpath, &name), true),
            Some(uid) => (format!("{uid}/{name}"), false),
            None => (id(&lxcpath, &name), false),
        };
        let running = Running { name, lxcpath, roots };
        let known: &mut Running = found.entry(id).or_insert(running.clone());
        if roots && !known.roots {
            *known = running;
        }
    }
    found
}

/// LXCPATH and name of all that looks like a container's command socket.
fn sockets(text: &str) -> BTreeSet<(String, String)> {
    let container = |line: &str| {
        let path = line.split_once(" @")?.1.strip_suffix("/command")?;
        let (lxcpath, name) = path.rsplit_once('/')?;
        Some((format!("/{}", lxcpath.trim_start_matches('/')), name.to_owned()))
    };
    text.lines().filter_map(container).collect()
}

/// Who listens at an abstract address: a connection's SO_PEERCRED is who called listen(2). Never waits, and says nothing to the monitor.
fn owner(address: &str) -> Option<u32> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(address.as_bytes()).ok()?).ok()?;
    Some(socket_peercred(&socket).ok()?.uid.as_raw())
}

/// The container's first process, seen from here; `None` while its monitor does not say.
pub fn pid(lxcpath: &str, name: &str) -> Option<u32> {
    info(lxcpath, name, &["--pid"])?.trim().parse().ok()
}

/// Does the container call us when it starts and stops?
pub fn has_our_hooks(lxcpath: &str, name: &str) -> bool {
    ["lxc.hook.start-host", "lxc.net.0.script.up"]
        .iter()
        .any(|key| info(lxcpath, name, &["--config", key]).is_some_and(|value| value.contains("evpn-hook")))
}

fn info(lxcpath: &str, name: &str, what: &[&str]) -> Option<String> {
    let mut command = Command::new("lxc-info");
    command.args(["--lxcpath", lxcpath, "--name", name, "--no-humanize"]).args(what);
    let ended = exec::run(command, Instant::now() + DEADLINE).ok()??;
    ended.status.success().then_some(ended.output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GuestKind;

    #[test]
    fn a_command_socket_is_a_container() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 21 @/var/lib/lxc/c1/command\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 22 /run/frr/zebra.vty\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23 @/home/a b/lxc/c2/command\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 24\n";
        let expected = [("/home/a b/lxc", "c2"), ("/var/lib/lxc", "c1")];
        assert_eq!(sockets(text), expected.map(|(path, name)| (path.into(), name.into())).into());
    }

    fn containers() -> Containers {
        let line = |path: &str| format!("0: 2 0 10000 1 01 21 @{path}/command\n");
        let text = ["/a/c1", "/var/lib/lxc/c1", "/home/u/c1", "/z/c1", "/z/c2"].map(line).concat();
        let owner = |address: &str| match &address[..3] {
            "/va" | "/a/" => Some(0),
            "/ho" => Some(1000),
            _ => None,
        };
        Containers { by_id: identified(&text, owner), nameless: false }
    }

    #[test]
    fn a_container_is_its_directory_and_its_name_and_a_users_its_users() {
        let expected = [
            ("/a/c1", "/a", true),
            ("/z/c1", "/z", false),
            ("/z/c2", "/z", false),
            ("1000/c1", "/home/u", false),
            ("c1", "/var/lib/lxc", true),
        ];
        let expected = expected.map(|(id, path, roots)| {
            let name = id.rsplit('/').next().unwrap().to_owned();
            (id.into(), Running { name, lxcpath: path.into(), roots })
        });
        assert_eq!(containers().by_id, expected.into());
    }

    #[test]
    fn a_guest_of_which_the_name_alone_is_known_is_who_is_nobody_elses() {
        let containers = containers();
        let guest = |name: &str, id: &str| Guest::new(GuestKind::Lxc, name, id).unwrap();
        let find = |guest, known: &[&str]| containers.find(&guest, |id| known.contains(&id)).map(|(id, _)| id);
        assert_eq!(find(guest("c1", "c1"), &[]), Some("c1"));
        assert_eq!(find(guest("c1", "/a/c1"), &[]), Some("/a/c1"));
        // Incus starts it from a configuration in another directory.
        assert_eq!(find(guest("c1", "/run/incus/c1"), &["c1"]), Some("/a/c1"));
        assert_eq!(find(guest("c1", "/run/incus/c1"), &["c1", "/a/c1"]), None);
        assert_eq!(find(guest("c2", "c2"), &[]), None, "who does not say whose it is, is not believed");
        assert_eq!(find(guest("1000/c2", "1000/c2"), &[]), None);
    }

    #[test]
    fn a_list_without_end_is_none() {
        assert!(listed(std::io::repeat(b'\n')).is_none());
        assert_eq!(listed(&b"a\n"[..]).unwrap(), b"a\n");
    }

    #[test]
    fn a_listener_is_its_owners() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("/evpn-hook/test{}/command", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        assert_eq!(owner(&name), None);
        let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        // Another user's, with a name that is no text, hides nobody.
        let evil = [format!("/evil{}", std::process::id()).as_bytes(), b"\xff"].concat();
        let evil = std::os::unix::net::SocketAddr::from_abstract_name(evil).unwrap();
        let _evil = std::os::unix::net::UnixListener::bind_addr(&evil).unwrap();
        assert_eq!(owner(&name), Some(rustix::process::geteuid().as_raw()));
        assert!(running().unwrap().by_id.values().any(|r| r.lxcpath == "/evpn-hook"));
    }
}
