//! A network namespace of one's own, in which a copy of the host's rules is tried with packets.
//!
//! Nothing of the host is touched: devices, rules and packets are in the namespace alone, and the kernel takes it down with the thread that made it,
//! however that ends. A namespace has rules, sets, connections and /proc/sys/net of its own (network_namespaces(7); br_netfilter's settings since Linux 5.3,
//! net/bridge/br_netfilter_hooks.c `struct brnf_net`); udev hears nothing of its devices.

use super::frames::{self, fence};
use super::ruleset::Ruleset;
use super::stage::{Case, From, SERVERS, Shot, Stage, To, far_mac, near_mac};
use crate::exec;
use crate::kernel::Kernel;
use crate::snoop::{Packet, everything};
use nix::sched::{CloneFlags, unshare};
use std::collections::{BTreeSet, HashMap};
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

/// As much of a program's words as is kept, in bytes.
const LONG: usize = 64 << 10;
/// For a fence to come through, which takes microseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// After the fence: what a queue of another CPU may still hold.
const GRACE: Duration = Duration::from_millis(30);
/// A frame with everything above.
const FRAME: usize = 2048;

/// One that is set up; lives in the thread of [`inside`].
pub struct Sandbox {
    /// By the number of the device: its own end, and the other.
    near: Vec<Packet>,
    far: Vec<Packet>,
    listening: Vec<UdpSocket>,
    until: Instant,
}

/// Does something in a new network namespace, which ends with it.
pub fn inside<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|error| format!("a network namespace cannot be made: {error}"))?;
            work()
        });
        thread.join().map_err(|_| "the thread that tries the rules died".to_owned())?
    })
}

impl Sandbox {
    /// Makes the stage's devices, addresses and routes. Whether all of it came about the packets tell, which are sent before there is any rule.
    pub fn set(stage: &Stage, until: Instant) -> Result<Sandbox, String> {
        for (path, value) in &stage.first {
            set(path, value);
        }
        let mut command = Command::new("ip");
        command.args(["-force", "-batch", "-"]);
        run(command, &stage.script, until, "ip").map(drop).or_else(only_words)?;
        for (path, value) in &stage.then {
            set(path, value);
        }
        let mut kernel = Kernel::open().map_err(|error| error.to_string())?;
        let mut open = |name: &str| -> Result<Packet, String> {
            let name = name.parse().map_err(|error| format!("{name}: {error}"))?;
            let link = kernel.link(&name).map_err(|error| error.to_string())?;
            let link = link.ok_or_else(|| format!("device {name} could not be made"))?;
            Packet::open(link.index, &everything()).map_err(|error| format!("a packet socket: {error}"))
        };
        let near = stage.devices.iter().map(|name| open(name)).collect::<Result<_, _>>()?;
        let far = (0..stage.devices.len()).map(|n| open(&Stage::far(n))).collect::<Result<_, _>>()?;
        let listen = |to: &std::net::SocketAddr| {
            let socket = UdpSocket::bind(to).and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
            // Without its address nothing arrives, which the first packets tell.
            socket.ok()
        };
        let listening: Vec<UdpSocket> = stage.listen.iter().filter_map(listen).collect();
        for name in &stage.groups {
            let name = name.parse().map_err(|error| format!("{name}: {error}"))?;
            let index = kernel.link(&name).map_err(|error| error.to_string())?.map(|link| link.index);
            let join = |socket: &UdpSocket| index.is_some_and(|n| socket.join_multicast_v6(&SERVERS, n).is_ok());
            // Where none could, nothing arrives either.
            let _ = listening.iter().any(join);
        }
        Ok(Sandbox { near, far, listening, until })
    }

    /// Puts a copy of the host's rules in.
    pub fn load(&self, rules: &Ruleset) -> Result<(), String> {
        if let Some(sets) = &rules.sets {
            let mut command = Command::new("ipset");
            command.arg("restore");
            run(command, sets, self.until, "ipset restore")?;
        }
        for saved in rules.saved.iter().filter(|saved| !saved.is_empty()) {
            let program = format!("{}-restore", saved.program);
            run(Command::new(&program), &saved.text, self.until, &program)?;
        }
        if !rules.nft.is_empty() {
            let mut command = Command::new("nft");
            command.args(["-f", "-"]);
            run(command, &rules.nft, self.until, "nft")?;
        }
        Ok(())
    }

    /// Changes the copy; the program's words.
    pub fn change(&self, words: &[String]) -> Result<String, String> {
        let (program, args) = words.split_first().ok_or("no program")?;
        let mut command = Command::new(program);
        command.args(args);
        run(command, "", self.until, program)
    }

    /// Was it set?
    pub fn setting(&self, path: &str, value: &str) -> bool {
        std::fs::write(format!("/proc/sys/{path}"), value).is_ok()
    }

    /// Sends all packets of these cases; the numbers of those that arrived.
    pub fn fire<'a>(&self, cases: impl Iterator<Item = &'a Case> + Clone) -> Result<BTreeSet<u32>, String> {
        let shots = || cases.clone().flat_map(|case| &case.shots);
        let places: HashMap<u32, &To> = shots().map(|shot| (shot.id, &shot.to)).collect();
        // Who sends by a device hears itself there, too.
        let collect = |place: &To| {
            let mut numbers = self.collect(place);
            numbers.retain(|number| places.get(number) == Some(&place));
            numbers
        };
        // What was late the last time.
        shots().for_each(|shot| drop(self.collect(&shot.to)));
        let mut arrived = BTreeSet::new();
        for shot in shots() {
            self.send(shot)?;
            arrived.extend(collect(&shot.to));
        }
        let entries: BTreeSet<usize> = shots()
            .filter_map(|shot| match shot.from {
                From::Far(n) => Some(n),
                From::Socket { .. } => None,
            })
            .collect();
        entries.iter().try_for_each(|n| self.wait_for_fence(*n))?;
        let grace = Instant::now() + GRACE;
        loop {
            shots().for_each(|shot| arrived.extend(collect(&shot.to)));
            if shots().all(|shot| arrived.contains(&shot.id)) || Instant::now() >= grace {
                return Ok(arrived);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn send(&self, shot: &Shot) -> Result<(), String> {
        match &shot.from {
            From::Far(n) => self.far[*n].send(&shot.frame).map_err(|error| format!("a packet cannot be sent: {error}")),
            From::Socket { from, to } => {
                // A rule that drops what leaves tells it by EPERM (net/netfilter/core.c `nf_hook_slow`): then it does not arrive.
                let _ = UdpSocket::bind((*from, 0)).and_then(|socket| socket.send_to(&shot.frame, to));
                Ok(())
            }
        }
    }

    /// The numbers of what waits there.
    fn collect(&self, place: &To) -> Vec<u32> {
        let mut buffer = [0; FRAME];
        let mut numbers = Vec::new();
        match place {
            To::Far(n) => {
                while let Ok(frame) = self.far[*n].recv(&mut buffer) {
                    numbers.extend(frames::found(frame));
                }
            }
            To::Socket => {
                for socket in &self.listening {
                    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
                        numbers.extend(frames::said(&buffer[..length]));
                    }
                }
            }
        }
        numbers
    }

    /// A device's queue keeps its order (net/core/dev.c `enqueue_to_backlog`): what was sent before the fence has gone its way when the fence is heard.
    fn wait_for_fence(&self, n: usize) -> Result<(), String> {
        let id = u32::MAX - n as u32;
        let sent = self.far[n].send(&fence(near_mac(n), far_mac(n), id));
        sent.map_err(|error| format!("a packet cannot be sent: {error}"))?;
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; FRAME];
        while Instant::now() < end {
            match self.near[n].recv(&mut buffer) {
                Ok(frame) if frames::found(frame) == Some(id) => return Ok(()),
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Err("packets did not come through a device of this host within 1 s: it is overloaded".into())
    }
}

/// What `ip` could not do is told by the packets; that there is no `ip` is not.
fn only_words(words: String) -> Result<(), String> {
    if words.contains("cannot be run") || words.contains("did not end") { Err(words) } else { Ok(()) }
}

/// One that this kernel does not have is none that its packets meet.
fn set(path: &str, value: &str) {
    let _ = std::fs::write(format!("/proc/sys/{path}"), value);
}

fn run(mut command: Command, words: &str, until: Instant, name: &str) -> Result<String, String> {
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    match exec::run_fed(words, LONG, command, until) {
        Ok(Some(ended)) if ended.status.success() => Ok(ended.output),
        Ok(Some(ended)) => Err(format!("{name}: {}", ended.output.lines().next().unwrap_or("failed"))),
        Ok(None) => Err(format!("{name} did not end in time")),
        Err(error) => Err(format!("{name} cannot be run: {error}")),
    }
}
