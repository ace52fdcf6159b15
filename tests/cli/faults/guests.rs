//! Guests: devices by hand, libvirt's domains, containers.

use super::look::delete;
use super::{Call, MAC, OnFailure, Plan, all, call, leave_guest, ok, strangers, strangers_on, tap};
use crate::common::sh;
use crate::host::{Host, repository};
use crate::on_a_host;
use crate::xml::{domain, guest, interface};
use rustix::net::{Shutdown, shutdown};
use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command};
use std::thread::JoinHandle;

const ATTACH: &str =
    "attach vnet0 --network flat --mac 52:54:00:03:82:d8 --ip 10.1.0.60 --ip 10.1.0.61 --ip fd00:1::60";
const OTHERWISE: &str = "attach vnet0 --network flat --mac 52:54:00:03:82:d9 --ip 10.1.0.61 --ip 10.1.0.62";
const STATUS: &str = "/run/libvirt/qemu/vm1.xml";
const RUNS: &str = "state='running' reason='booted'";
const ARRIVED: &str = "state='running' reason='migrated'";
const MOVES: &str = "state='paused' reason='migration'";

fn flat() -> Host {
    let host = Host::flat();
    strangers();
    strangers_on("flat-l2");
    sh("ip address add 192.0.2.129/32 dev flat-l2");
    host
}

on_a_host!(by_hand, {
    let host = &flat();
    let a_tap = |_: &Host| tap("vnet0", "down");
    let attached = |host: &Host| {
        tap("vnet0", "down");
        ok(host, &ATTACH.replace("--ip fd00:1::60", "").trim_end().replace("  ", " "));
    };
    let plan = Plan {
        name: "attach",
        before: &a_tap,
        command: &|| call(ATTACH),
        on_failure: OnFailure::Undoes(1),
        world: &|| {},
        leave: &leave_guest,
    };
    all(
        "by-hand",
        host,
        &[
            Plan { name: "attach again, otherwise", before: &attached, command: &|| call(OTHERWISE), ..plan },
            Plan {
                name: "detach",
                before: &attached,
                command: &|| call("detach vnet0"),
                on_failure: OnFailure::GoesOn,
                ..plan
            },
            plan,
        ],
    );
});

// ----- libvirt -----

/// The domain of tests/golden/status as libvirt gives it to a hook, on flat.
pub fn xml() -> String {
    let xml = domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"));
    xml.replace("11111111-2222-3333-4444-000000000001", "a1aa250e-03e9-4b75-90b0-3fe8ffbcca9d")
        .replace("a675cc40-b1e9-40b4-895b-a6790239f68e", "21241c0c-6ac7-4f4b-988a-ebcca5d073dd")
}

fn qemu(op: &'static str) -> Call {
    Call { args: vec!["qemu", "vm1", op, "begin", "-"], stdin: xml(), ..Call::default() }
}

pub fn lives(state: &str) {
    let text = repository("tests/golden/status/vm1.xml");
    let (head, interfaces) = text.split_once("<interface type='network'>").unwrap();
    let (first, _) = interfaces.split_once("</interface>").unwrap();
    let (_, tail) = text.rsplit_once("</interface>").unwrap();
    let text = format!("{head}<interface type='network'>{first}</interface>{tail}");
    fs::create_dir_all("/run/libvirt/qemu").unwrap();
    fs::write(STATUS, text.replace("red-l2", "flat-l2").replace(RUNS, state)).unwrap();
}

/// It does not run (any more), and QEMU's tap went with it.
pub fn is_gone() {
    fs::create_dir_all("/run/libvirt/qemu").unwrap();
    let _ = fs::remove_file(STATUS);
    delete(&["vnet0"]);
}

pub fn a_tap(_: &Host) {
    tap("vnet0", "master flat-l2 mtu 1400 up");
}

fn hook(host: &Host, op: &'static str) {
    host.hook(&qemu(op).args, xml()).ok();
}

on_a_host!(domains, {
    let host = &flat();
    let running = |host: &Host| {
        a_tap(host);
        hook(host, "start");
        lives(RUNS);
    };
    let damaged = |host: &Host| {
        running(host);
        sh("ip link set vnet0 nomaster && ip neigh del 10.1.0.60 dev flat-l2");
    };
    let announced = |host: &Host| {
        hook(host, "migrate");
        a_tap(host);
    };
    let arrived = |host: &Host| {
        announced(host);
        hook(host, "start");
        lives(ARRIVED);
    };
    let plan = Plan {
        name: "qemu start",
        before: &a_tap,
        command: &|| qemu("start"),
        on_failure: OnFailure::Undoes(1),
        world: &|| lives(RUNS),
        leave: &leave_guest,
    };
    all(
        "domains",
        host,
        &[
            Plan { name: "qemu start, libvirt gives up", world: &is_gone, ..plan },
            Plan { name: "qemu migrate", before: &|_| {}, command: &|| qemu("migrate"), world: &|| {}, ..plan },
            Plan {
                name: "qemu migrate, libvirt gives up",
                before: &|_| {},
                command: &|| qemu("migrate"),
                world: &is_gone,
                ..plan
            },
            Plan { name: "qemu start of an arriving guest", before: &announced, world: &|| lives(MOVES), ..plan },
            Plan {
                name: "sync when it has arrived",
                before: &arrived,
                command: &|| call("sync"),
                world: &|| {},
                ..plan
            },
            Plan {
                name: "qemu reconnect",
                before: &damaged,
                command: &|| qemu("reconnect"),
                on_failure: OnFailure::Undoes(0),
                ..plan
            },
            Plan {
                name: "qemu stopped",
                before: &running,
                command: &|| qemu("stopped"),
                on_failure: OnFailure::GoesOn,
                world: &is_gone,
                ..plan
            },
            plan,
        ],
    );
});

// ----- LXC -----

/// LXC's monitor of c1, without LXC: says which process is its first, and that it has our hooks.
struct Monitor(UnixListener, Option<JoinHandle<()>>);

impl Monitor {
    fn start(pid: u32) -> Monitor {
        let address = SocketAddr::from_abstract_name("/var/lib/lxc/c1/command").unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let heard = listener.try_clone().unwrap();
        let answers = std::thread::spawn(move || {
            while let Ok((mut asker, _)) = heard.accept() {
                // liblxc's commands.h: a number, a length, a pointer. Who only looks whose the socket is asks nothing.
                let mut question = [0; 16];
                if asker.read_exact(&mut question).is_ok() {
                    let words: &[u8] = if question[0] == 4 { b"" } else { b"/usr/bin/evpn-hook lxc\0" };
                    let length = u32::try_from(words.len()).unwrap();
                    let head = [0u32.to_ne_bytes(), length.to_ne_bytes()].concat();
                    let _ = asker.write_all(&[&head, &u64::from(pid).to_ne_bytes()[..], words].concat());
                }
            }
        });
        Monitor(listener, Some(answers))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        shutdown(&self.0, Shutdown::Both).unwrap();
        let _ = self.1.take().map(JoinHandle::join);
    }
}

/// A container's first process.
struct Inside(Child);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

on_a_host!(containers, {
    let host = &flat();
    let inside = Inside(Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap());
    let pid = inside.0.id().to_string();
    while fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == fs::read_link("/proc/self/ns/net").unwrap() {
        std::thread::yield_now();
    }
    let command = |hook: &'static str, section: &str| {
        let env = [
            ("LXC_NAME", "c1"),
            ("LXC_HOOK_VERSION", "1"),
            ("LXC_HOOK_SECTION", section),
            ("LXC_HOOK_TYPE", hook),
            ("LXC_PID", &pid),
        ];
        let env = env.map(|(key, value)| (key, value.to_owned())).to_vec();
        Call { args: vec!["lxc", "c1", section.to_owned().leak(), hook], env, ..Call::default() }
    };
    let hook = |host: &Host, hook| {
        let Call { args, env, .. } = command(hook, "lxc");
        assert!(host.command(&args).envs(env).status().unwrap().success());
    };
    let monitor = std::cell::RefCell::new(None);
    let runs = || {
        monitor.borrow_mut().get_or_insert_with(|| Monitor::start(inside.0.id()));
    };
    let ended = || {
        delete(&["vethc1"]);
        drop(monitor.take());
    };
    let created = |_: &Host| {
        sh(&format!(
            "ip link add vethc1 address 02:00:00:00:00:01 type veth peer name eth0 address {MAC} netns {pid}
            ip link set vethc1 master flat-l2 up
            nsenter -t {pid} -n sh -c 'ip address add 10.1.0.60/24 dev eth0 && ip link set eth0 up'"
        ));
        runs();
    };
    let running = |host: &Host| {
        created(host);
        hook(host, "start-host");
    };
    let leave = |host: &Host| {
        hook(host, "post-stop");
        ended();
        leave_guest(host);
    };
    let plan = Plan {
        name: "lxc start-host",
        before: &created,
        command: &|| command("start-host", "lxc"),
        on_failure: OnFailure::Undoes(1),
        world: &runs,
        leave: &leave,
    };
    all(
        "containers",
        host,
        &[
            Plan { name: "lxc start-host, LXC gives up", world: &ended, ..plan },
            Plan {
                name: "lxc post-stop",
                before: &running,
                command: &|| command("post-stop", "lxc"),
                on_failure: OnFailure::GoesOn,
                world: &ended,
                ..plan
            },
            plan,
        ],
    );
});
