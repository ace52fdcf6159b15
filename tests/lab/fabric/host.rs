//! A node: its namespaces, and how to do things in them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use evpn_hook::kernel::Kernel;
use serde_json::Value;

use super::{Events, Monitor, netns, wait_until};

pub struct Host {
    name: String,
    /// Keeps the namespaces: they end when its stdin, our end of a pipe, closes.
    holder: Mutex<Child>,
    namespaces: [File; 3],
}

/// What a command left behind, as text.
#[derive(Debug)]
pub struct Output {
    pub command: String,
    /// The exit status, or 128 + the signal, as a shell tells it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A command under way.
pub struct Running<'a> {
    host: &'a Host,
    argv: Vec<String>,
    child: Child,
}

impl Running<'_> {
    pub fn wait(self) -> Output {
        let done = self.child.wait_with_output().expect("a child can be waited for");
        self.host.outcome(&self.argv, done)
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked for").is_some()
    }
}

impl Host {
    /// With the files of a Debian suite; if none is named, of the one that this run is about.
    pub(super) fn create(name: &str, suite: Option<&str>) -> Host {
        let (holder, namespaces) = Host::come_up(name, suite);
        Host { name: name.into(), holder: Mutex::new(holder), namespaces }
    }

    fn come_up(name: &str, suite: Option<&str>) -> (Child, [File; 3]) {
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--uts", "--"])
            .arg(project().join("tests/lab/fabric/node.sh"))
            .arg(name)
            .args(suite)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut said = String::new();
        BufReader::new(holder.stdout.take().expect("stdout is piped"))
            .read_line(&mut said)
            .expect("node.sh can be read");
        assert_eq!(said, "ready\n", "node {name} did not come up (its words are above)");
        let pid = holder.id();
        fs::create_dir_all("/run/lab").expect("/run/lab");
        fs::write(format!("/run/lab/{name}.pid"), pid.to_string()).expect("pid file");
        let namespaces = ["mnt", "net", "uts"]
            .map(|kind| File::open(format!("/proc/{pid}/ns/{kind}")).expect("namespace of the node"));
        (holder, namespaces)
    }

    /// Everything that runs there ends, and the node with it; what it has written stays. Until it is started nothing can be done there.
    pub(super) fn power_off(&self) {
        let is_ours = |pid: &u32| {
            ["net", "mnt"].iter().zip([&self.namespaces[1], &self.namespaces[0]]).any(|(kind, ours)| {
                let theirs = fs::metadata(format!("/proc/{pid}/ns/{kind}"));
                theirs.is_ok_and(|theirs| theirs.ino() == ours.metadata().expect("a namespace").ino())
            })
        };
        let running = || {
            let processes = fs::read_dir("/proc")
                .expect("/proc")
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            processes.filter(is_ours).collect::<Vec<u32>>()
        };
        // One that is killed may be making another.
        wait_until(&format!("{}'s processes to end", self.name), Duration::from_secs(20), || {
            let left = running();
            for pid in &left {
                // SAFETY: kill takes no pointer.
                unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
            }
            left.is_empty()
        });
        self.holder.lock().expect("the holder").wait().expect("a child can be waited for");
        // They end with the last descriptor: two overlays must not have the same files above them at once.
        self.enters([(); 3].map(|()| File::open("/dev/null").expect("/dev/null")));
    }

    /// It comes up with the files of this suite below what it has written. It has no cable then, and nothing runs.
    pub(super) fn power_on(&self, suite: &str) {
        let (holder, namespaces) = Host::come_up(&self.name, Some(suite));
        self.enters(namespaces);
        *self.holder.lock().expect("the holder") = holder;
    }

    /// Other namespaces in the place of its own.
    fn enters(&self, others: [File; 3]) {
        for (ours, other) in self.namespaces.iter().zip(others) {
            // SAFETY: dup2 takes no pointer, and both descriptors are open.
            assert!(unsafe { libc::dup2(other.as_raw_fd(), ours.as_raw_fd()) } >= 0, "dup2");
        }
    }

    fn pid(&self) -> u32 {
        self.holder.lock().expect("the holder").id()
    }

    /// The Debian suite whose files it has.
    pub fn suite(&self) -> String {
        let release = fs::read_to_string(self.path("/etc/os-release")).expect("os-release");
        let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        name.expect("a suite has a name").to_owned()
    }

    /// Where the files that it has of its suite lie.
    pub fn files(&self) -> PathBuf {
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.pid())).expect("mounts");
        let files = mounts.split("lowerdir=").nth(1).and_then(|rest| rest.split(',').next());
        files.expect("its root is an overlay").into()
    }

    /// Where what it has written lies.
    pub fn written(&self) -> PathBuf {
        format!("/.lab-upper/nodes/{}/upper", self.name).into()
    }

    /// Joins this node to `other` by a jumbo-frame cable; each end is named after the node at its far end.
    pub(super) fn cable(&self, other: &Host) {
        let (here, there) = (self.pid().to_string(), other.pid().to_string());
        let status = Command::new("ip")
            .args(["link", "add", &other.name, "mtu", "9000", "netns", &here, "type", "veth"])
            .args(["peer", "name", &self.name, "mtu", "9000", "netns", &there])
            .status()
            .expect("ip starts");
        assert!(status.success(), "cable {} - {}", self.name, other.name);
        self.ok(&["ip", "link", "set", &other.name, "up"]);
        other.ok(&["ip", "link", "set", &self.name, "up"]);
    }

    /// As a user does it, on this node's own root: before libvirtd starts, which looks for hooks once.
    pub(super) fn install_hook(&self) {
        let project = project();
        self.ok(&[
            "make",
            "--silent",
            "-C",
            project.to_str().expect("a path in UTF-8"),
            "install-files",
            "DESTDIR=",
            "PREFIX=/usr",
        ]);
    }

    pub(super) fn start_libvirtd(&self) {
        // Libvirt takes equal host ids for one host, and refuses ids of one digit only.
        let digits: String = self.name.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(
            "/etc/libvirt/libvirtd.conf",
            &format!(
                "host_uuid = \"e0b7e9c4-5d1a-4c51-9d0e-{digits:0>12}\"\nauth_unix_rw = \"none\"\n\
                 log_outputs = \"2:file:/var/log/libvirt/libvirtd.log\"\n"
            ),
        );
        // Without the last libvirt asks QEMU of each of a CPU's 460 features (qemu_monitor_json.c `qemuMonitorJSONGetCPUData`), which QEMU reads by the
        // byte: in user-mode-linux 10 of the 11 seconds of a start, and 35 of 37 with trixie's.
        self.write(
            "/etc/libvirt/qemu.conf",
            "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = \"file\"\n\
             capability_filters = [ \"cpu-unavailable-features\" ]\n",
        );
        // The last directory is made with the first dnsmasq, and missed by a migration to a host without one.
        self.sh("rm -rf /etc/libvirt/qemu/networks; mkdir -p /var/log/libvirt /var/lib/libvirt/dnsmasq");
        self.run_libvirtd();
    }

    pub fn run_libvirtd(&self) {
        // The daemon is in the background before its drivers are up; the first answer says that they are.
        self.sh("libvirtd -d; virsh --quiet list");
    }

    /// libvirtd dies of a signal and is started again, its guests running on.
    pub fn restart_libvirtd(&self, signal: &str) {
        self.stop_libvirtd(signal);
        self.run_libvirtd();
    }

    pub fn stop_libvirtd(&self, signal: &str) {
        self.sh(&format!(
            "pid=$(cat /run/libvirtd.pid); kill -{signal} $pid; tail --pid=$pid -f /dev/null; rm -f /run/libvirtd.pid"
        ));
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its VTEP, a loopback that the underlay routes.
    pub fn address(&self) -> String {
        format!("10.0.0.{}", self.number())
    }

    /// Of comp1 it is 1.
    pub(super) fn number(&self) -> u8 {
        self.name.trim_start_matches("comp").parse().expect("a hypervisor has a number")
    }

    /// Its kernel, without a process on the node.
    pub fn kernel(&self) -> Kernel {
        Kernel::open_in(self.netns().as_fd()).expect("netlink on the node")
    }

    /// Makes something in its network namespace, where it stays.
    pub fn inside<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        netns::inside(self.netns(), make)
    }

    pub fn netns(&self) -> &File {
        &self.namespaces[1]
    }

    /// Where a path of this node is found from outside it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid()))
    }

    /// A command that will run on this node, for the callers that want its pipes.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).stdin(Stdio::null());
        let fds = self.namespaces.each_ref().map(AsRawFd::as_raw_fd);
        // SAFETY: setns and last_os_error do not allocate, and the child has one thread.
        unsafe {
            command.pre_exec(move || {
                for fd in fds {
                    if libc::setns(fd, 0) != 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        command
    }

    pub fn run(&self, argv: &[&str]) -> Output {
        let done = self.command(argv).output().unwrap_or_else(|error| panic!("{}: {argv:?}: {error}", self.name));
        self.outcome(argv, done)
    }

    /// A command with text on its stdin, which must be one that reads it to its end.
    pub fn run_with(&self, argv: &[&str], stdin: &str) -> Output {
        self.start_with(argv, stdin).wait()
    }

    /// The same without waiting, for commands that are to run at once.
    pub fn start_with(&self, argv: &[&str], stdin: &str) -> Running<'_> {
        let mut command = self.command(argv);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {argv:?}: {error}", self.name));
        // A domain's XML fits into the pipe.
        child.stdin.take().expect("stdin is piped").write_all(stdin.as_bytes()).expect("the command reads its stdin");
        Running { host: self, argv: argv.iter().map(|word| (*word).to_owned()).collect(), child }
    }

    fn outcome<A: AsRef<str>>(&self, argv: &[A], done: std::process::Output) -> Output {
        let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
        Output {
            command: format!("{}# {}", self.name, argv.join(" ")),
            code: done.status.code().unwrap_or_else(|| 128 + done.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed; gives its stdout.
    pub fn ok(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        assert!(
            output.code == 0,
            "{}\nexit status {}\n{}{}",
            output.command,
            output.code,
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// A shell script that must succeed, every line of it; gives its stdout.
    pub fn sh(&self, script: &str) -> String {
        self.ok(&["bash", "-euc", script])
    }

    pub fn json(&self, argv: &[&str]) -> Value {
        let text = self.ok(argv);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}# {}: {error} in\n{text}", self.name, argv.join(" ")))
    }

    /// The real vtysh, as a user has it.
    pub fn vtysh(&self, command: &str) -> String {
        self.ok(&["vtysh", "-c", command])
    }

    /// A `show … json` straight from a daemon's vty socket: milliseconds where vtysh takes a second, hence for polling.
    pub fn show(&self, daemon: &str, command: &str) -> Value {
        let text = self.show_text(daemon, command);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} {daemon}: {command}: {error} in\n{text}", self.name))
    }

    pub fn show_text(&self, daemon: &str, command: &str) -> String {
        self.vty(daemon, command).unwrap_or_else(|error| panic!("{} {daemon}: {command}: {error}", self.name))
    }

    pub(super) fn vty(&self, daemon: &str, command: &str) -> std::io::Result<String> {
        let mut vty = UnixStream::connect(self.path(&format!("/run/frr/{daemon}.vty")))?;
        // A new connection may not see the running configuration.
        answer(&mut vty, "enable")?;
        answer(&mut vty, command)
    }

    pub fn write(&self, path: &str, contents: &str) {
        let target = self.path(path);
        fs::create_dir_all(target.parent().expect("a file has a directory")).expect("directory");
        fs::write(&target, contents).unwrap_or_else(|error| panic!("{}:{path}: {error}", self.name));
    }

    /// Records what libvirt tells of its domains' lives from now on.
    pub fn libvirt_events(&self) -> Events {
        Events::start(self)
    }

    /// Records the kernel's FDB, neighbour, route and link messages from now on.
    pub fn monitor(&self) -> Monitor {
        Monitor::start(self)
    }
}

/// One command of FRR's vty protocol: the answer ends with three NULs and a status byte.
fn answer(vty: &mut UnixStream, command: &str) -> std::io::Result<String> {
    vty.write_all(format!("{command}\0").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 65536];
    while answer.len() < 4 || answer[answer.len() - 4..answer.len() - 1] != [0, 0, 0] {
        let count = vty.read(&mut buffer)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..count]);
    }
    answer.truncate(answer.len() - 4);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The project's directory, the same in the machine and on its nodes.
pub(super) fn project() -> PathBuf {
    PathBuf::from(std::env::var_os("EVPN_LAB_PROJECT").expect("EVPN_LAB_PROJECT is set in the lab machine"))
}
