//! Which containers run: each has an abstract socket `@LXCPATH/NAME/command` as long as its monitor lives (liblxc's af_unix.c
//! `lxc_abstract_unix_open`). What only the monitor knows is asked there, as liblxc and `lxc-info` do it (commands.c `lxc_cmd`; the same from LXC 2.0 to
//! 7.0): a host of Incus has no `lxc-info`.

use crate::input::lxc::id;
use crate::model::Guest;
use rustix::net::sockopt::{set_socket_passcred, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// For one answer. It takes less than a millisecond where the monitor listens, and for ever while it is in a hook: then a later look asks again.
const DEADLINE: Duration = Duration::from_millis(500);

/// The longest answer, in bytes: liblxc's own bound (commands.h `LXC_CMD_DATA_MAX`).
const MAX_ANSWER: usize = 8192;

/// liblxc's commands.h: `LXC_CMD_GET_INIT_PID`.
const GET_INIT_PID: i32 = 4;

/// And `LXC_CMD_GET_CONFIG_ITEM`.
const GET_CONFIG_ITEM: i32 = 7;

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
    Some(socket_peercred(connected(address)?).ok()?.uid.as_raw())
}

fn connected(address: &str) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(address.as_bytes()).ok()?).ok()?;
    Some(socket)
}

/// The container's first process, seen from here; `None` while its monitor does not say.
pub fn pid(lxcpath: &str, name: &str) -> Option<u32> {
    let (pid, _) = ask(lxcpath, name, GET_INIT_PID, b"")?;
    u32::try_from(pid).ok().filter(|pid| *pid > 0)
}

/// Does the container call us when it starts and stops?
pub fn has_our_hooks(lxcpath: &str, name: &str) -> bool {
    [&b"lxc.hook.start-host\0"[..], b"lxc.net.0.script.up\0"].iter().any(|key| {
        let value = ask(lxcpath, name, GET_CONFIG_ITEM, key);
        value.is_some_and(|(_, value)| String::from_utf8_lossy(&value).contains("evpn-hook"))
    })
}

/// One question to a monitor of ours: a `struct lxc_cmd_req` and its data; the answer is a `struct lxc_cmd_rsp`, whose pointer may be a number, and its
/// data.
fn ask(lxcpath: &str, name: &str, command: i32, data: &[u8]) -> Option<(usize, Vec<u8>)> {
    let until = Instant::now() + DEADLINE;
    let socket = connected(&format!("{lxcpath}/{name}/command"))?;
    // Who had the address when the list was read may be gone, and then it is anybody's.
    if socket_peercred(&socket).ok()?.uid != geteuid() {
        return None;
    }
    // A question that comes without credentials, as one does between the monitor's accept(2) and its SO_PASSCRED, is refused.
    set_socket_passcred(&socket, true).ok()?;
    let mut monitor = UnixStream::from(socket);
    let length = i32::try_from(data.len()).ok()?;
    let question = [&command.to_ne_bytes()[..], &length.to_ne_bytes(), &0usize.to_ne_bytes(), data].concat();
    monitor.write_all(&question).ok()?;
    monitor.set_nonblocking(false).ok()?;
    let result = i32::from_ne_bytes(read(&mut monitor, until)?);
    let length = usize::try_from(i32::from_ne_bytes(read(&mut monitor, until)?)).ok()?;
    let number = usize::from_ne_bytes(read(&mut monitor, until)?);
    if result < 0 || length > MAX_ANSWER {
        return None;
    }
    let mut data = vec![0; length];
    fill(&mut data, &mut monitor, until)?;
    Some((number, data))
}

fn read<const N: usize>(from: &mut UnixStream, until: Instant) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes, from, until)?;
    Some(bytes)
}

fn fill(mut bytes: &mut [u8], from: &mut UnixStream, until: Instant) -> Option<()> {
    while !bytes.is_empty() {
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        from.set_read_timeout(Some(left)).ok()?;
        match from.read(bytes) {
            Ok(0) => return None,
            Ok(count) => bytes = &mut bytes[count..],
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(())
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
        // Started from a configuration in another directory.
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

    /// What is asked, and what is answered: where there is nothing to say the connection stays open.
    type Asked = (Vec<u8>, Option<Vec<u8>>);

    /// A monitor that is asked these, in this order.
    fn monitor(name: &str, asked: Vec<Asked>) -> std::thread::JoinHandle<()> {
        use std::os::linux::net::SocketAddrExt;
        let address = format!("/evpn-hook/{name}/command");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(address).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        std::thread::spawn(move || {
            for (question, answer) in asked {
                let (mut stream, _) = listener.accept().unwrap();
                let mut heard = vec![0; question.len()];
                stream.read_exact(&mut heard).unwrap();
                assert_eq!(heard, question);
                match answer {
                    Some(answer) => stream.write_all(&answer).unwrap(),
                    // Until who asks has had enough.
                    None => assert_eq!(stream.read(&mut [0]).unwrap(), 0),
                }
            }
        })
    }

    /// As liblxc lays out both of its structures.
    fn message(first: i32, length: i32, number: usize, data: &[u8]) -> Vec<u8> {
        [&first.to_ne_bytes()[..], &length.to_ne_bytes(), &number.to_ne_bytes(), data].concat()
    }

    #[test]
    fn a_monitor_is_asked_in_liblxcs_words() {
        let name = format!("asked{}", std::process::id());
        let pid_of = || message(4, 0, 0, b"");
        let start_host = || message(7, 20, 0, b"lxc.hook.start-host\0");
        let script = || message(7, 20, 0, b"lxc.net.0.script.up\0");
        let hooks = b"/opt/incus/bin/incusd forkcoresched 1\n/usr/bin/evpn-hook lxc\n\0";
        let monitor = monitor(
            &name,
            vec![
                (pid_of(), Some(message(0, 0, 4711, b""))),
                (start_host(), Some(message(0, hooks.len() as i32, 0x7f00_0000, hooks))),
                // None of the two.
                (start_host(), Some(message(0, 4, 0, b"x\ny\0"))),
                (script(), Some(message(-1, 0, 0, b""))),
                // No process yet; more than liblxc ever says; less than was announced.
                (pid_of(), Some(message(0, 0, usize::MAX, b""))),
                (pid_of(), Some(message(0, 8193, 4711, &[b'x'; 8193]))),
                (pid_of(), Some(message(0, -1, 4711, b""))),
                (pid_of(), Some(message(0, 5, 4711, b"four"))),
            ],
        );
        assert_eq!(pid("/evpn-hook", &name), Some(4711));
        assert!(has_our_hooks("/evpn-hook", &name));
        assert!(!has_our_hooks("/evpn-hook", &name));
        for _ in 0..4 {
            assert_eq!(pid("/evpn-hook", &name), None);
        }
        monitor.join().unwrap();
        assert_eq!(pid("/evpn-hook", &name), None, "it has ended");
    }

    #[test]
    fn a_monitor_that_does_not_answer_is_not_waited_for() {
        let name = format!("mute{}", std::process::id());
        let monitor = monitor(&name, vec![(message(4, 0, 0, b""), None)]);
        let begun = Instant::now();
        assert_eq!(pid("/evpn-hook", &name), None);
        assert!(begun.elapsed() >= DEADLINE);
        monitor.join().unwrap();
    }
}
