//! A hypervisor for a hook to work on: networks as libvirt leaves them when they run, a tap on each, a container, and the calls that come.

use crate::common::figures::{self, Sample};
use crate::common::{batch, count, must, project, sh};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// As many as the largest guest has NICs; each of those is on a network of its own.
pub const NETWORKS: usize = 16;
/// The one that the measured `network … started` is about: its bridge is there, and nothing else of it.
pub const FRESH: usize = NETWORKS;
/// The container's host end and its MAC.
pub const VETH: &str = "vethc1";
pub const CONTAINER: &str = "00:16:3e:00:00:39";

const DOMAIN: &str = include_str!("domain.xml");
const NETWORK: &str = include_str!("network.xml");
/// What libvirt and LXC give a hook is little more than this.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// One process to be run, with its input.
pub struct Call {
    pub command: Command,
    pub input: Vec<u8>,
}

impl Call {
    pub fn new(program: impl AsRef<Path>, words: &[&str], input: impl Into<Vec<u8>>) -> Call {
        let mut command = Command::new(program.as_ref());
        command.args(words).env_clear().env("PATH", PATH).env("LC_ALL", "C");
        Call { command, input: input.into() }
    }

    pub fn run(&mut self) -> Sample {
        figures::run(&mut self.command, &self.input)
    }
}

pub struct Scene {
    /// The hook and the no-op, as an installation has them: copied to a disk's file system, which caches what is written to it in large pieces.
    installed: PathBuf,
    /// The hook on a tmpfs, which caches in single pages: as a disk's file is that was read by page faults alone, after a boot.
    in_pages: PathBuf,
    container: Child,
}

impl Scene {
    pub fn new(hook: &Path) -> Scene {
        // The namespace's own devices; and no configuration of this host's, if it has any.
        sh("mount -t sysfs sysfs /sys && { [ ! -d /etc/evpn-hook ] || mount -t tmpfs tmpfs /etc/evpn-hook; }");
        let in_pages = PathBuf::from("/run/hooks/evpn-hook");
        let installed = project().join("target/bench/bin");
        for (program, copy) in
            [(hook, in_pages.clone()), (hook, installed.join("evpn-hook")), (&count::noop(), installed.join("noop"))]
        {
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            must(Command::new("install").arg(program).arg(copy));
        }
        let mut links = String::new();
        for n in 0..=FRESH {
            let _ = writeln!(links, "link add net{n}-l2 address 00:00:00:11:11:{n:02x} type bridge");
            let _ = writeln!(links, "address add 10.1.{n}.1/24 dev net{n}-l2\nlink set net{n}-l2 up");
        }
        for n in 0..NETWORKS {
            let _ = writeln!(links, "tuntap add vnet{n} mode tap\nlink set vnet{n} master net{n}-l2 mtu 1450 up");
        }
        batch("ip", &links);
        // It lives as long as its input does: not longer than the benchmark, however that ends.
        let mut container = Command::new("unshare");
        container.args(["-n", "sh", "-c", "echo; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut container = container.spawn().unwrap();
        container.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = container.id();
        sh(&format!(
            "ip link add {VETH} type veth peer name eth0 address {CONTAINER} netns {pid} &&
             ip link set {VETH} master net0-l2 up && nsenter -t {pid} -n ip link set eth0 up &&
             nsenter -t {pid} -n ip address add 10.1.0.39/24 dev eth0"
        ));
        let scene = Scene { installed, in_pages, container };
        for n in 0..NETWORKS {
            scene.network(n, "started").run();
        }
        scene
    }

    pub fn noop(&self) -> Call {
        Call::new(self.installed.join("noop"), &[], "")
    }

    fn hook(&self) -> PathBuf {
        self.installed.join("evpn-hook")
    }

    /// The same call of the program that is cached in single pages. Where it is does not hang on where this project is, so it is counted as well.
    pub fn in_pages(&self, call: Call) -> Call {
        let mut same = Command::new(&self.in_pages);
        same.args(call.command.get_args()).env_clear();
        same.envs(call.command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        Call { command: same, input: call.input }
    }

    /// `vm1` with so many NICs.
    pub fn qemu(&self, nics: usize, operation: &str) -> Call {
        let sub = if matches!(operation, "stopped" | "release") { "end" } else { "begin" };
        Call::new(self.hook(), &["qemu", "vm1", operation, sub, "-"], domain(nics))
    }

    pub fn network(&self, n: usize, operation: &str) -> Call {
        let sub = if operation == "stopped" { "end" } else { "begin" };
        Call::new(self.hook(), &["network", &format!("net{n}"), operation, sub, "-"], network(n))
    }

    pub fn lxc(&self, hook: &str) -> Call {
        self.as_lxc(Call::new(self.hook(), &["lxc", "c1", "lxc", hook], ""), hook)
    }

    /// One of the scripts beside this file.
    pub fn script(&self, name: &str, words: &[&str], input: impl Into<Vec<u8>>) -> Call {
        Call::new(project().join("benches/hook").join(name), words, input)
    }

    /// With the environment of LXC's hooks.
    pub fn as_lxc(&self, mut call: Call, hook: &str) -> Call {
        call.command.envs([("LXC_NAME", "c1"), ("LXC_HOOK_VERSION", "1"), ("LXC_HOOK_SECTION", "lxc")]);
        call.command.envs([("LXC_HOOK_TYPE", hook), ("LXC_NET_TYPE", "veth"), ("LXC_NET_PEER", VETH)]);
        call.command.env("LXC_NET_PARENT", "net0-l2").env("LXC_PID", self.container.id().to_string());
        call
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.container.stdin.take());
        let _ = self.container.wait();
    }
}

/// MAC and address of vm1's NIC on this network; its tap is `vnetN`.
pub fn nic(n: usize) -> (String, String) {
    (format!("52:54:00:03:82:{n:02x}"), format!("10.1.{n}.60"))
}

/// The domain's XML as libvirt gives it to `start`: domain.xml, whose one NIC and its metadata stand for each.
pub fn domain(nics: usize) -> String {
    let each = |text: &str, from: &str, to: &str| {
        let (head, rest) = text.split_once(from).unwrap();
        let (one, tail) = rest.split_once(to).unwrap();
        let of = |n: usize| {
            let (mac, ip) = nic(n);
            format!("{from}{one}{to}")
                .replace("52:54:00:03:82:00", &mac)
                .replace("10.1.0.60", &ip)
                .replace("'net0'", &format!("'net{n}'"))
                .replace("net0-l2", &format!("net{n}-l2"))
                .replace("vnet0", &format!("vnet{n}"))
                .replace("slot='0x10'", &format!("slot='0x{:02x}'", 0x10 + n))
        };
        format!("{head}{}{tail}", (0..nics).map(of).collect::<Vec<_>>().join("\n    "))
    };
    let metadata = each(DOMAIN, "<evpn:interface ", "</evpn:interface>");
    each(&metadata, "<interface ", "</interface>")
}

/// What libvirt gives to a network's hook.
pub fn network(n: usize) -> String {
    NETWORK
        .replace("net0", &format!("net{n}"))
        .replace("vni='100'", &format!("vni='{}'", 100 + n))
        .replace("11:11:00", &format!("11:11:{n:02x}"))
        .replace("10.1.0.1", &format!("10.1.{n}.1"))
        .replace("9de00", &format!("9de{n:02x}"))
}

/// A batch for iproute2, as a call that undoes what a script did.
pub fn undo(program: &str, lines: &str) -> Call {
    Call::new(program, &["-batch", "-"], lines)
}

/// Is this what the scene is when nothing of a guest's is registered?
pub fn is_clean() -> bool {
    let entries = must(Command::new("bridge").args(["fdb", "show"]));
    let neighbours = must(Command::new("ip").args(["neigh", "show", "nud", "permanent"]));
    !entries.lines().any(|line| line.contains("static")) && neighbours.is_empty()
}
