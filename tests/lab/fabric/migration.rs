//! Live migration of a VM from one node's libvirt to another's.

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::host::Running;
use super::{Host, Line, Output, Transcript, Vm, vm};

/// A migration under way. The VM is the source's until [`Migration::wait`] says otherwise.
pub struct Migration<'v, 'a> {
    vm: &'v mut Vm<'a>,
    target: &'a Host,
    command: Running<'a>,
    listener: UnixListener,
    console: Receiver<UnixStream>,
}

impl<'a> Vm<'a> {
    /// Moves the running guest, definition and all; it is the target's afterwards. Gives QEMU's downtime: for how long neither
    /// host ran it.
    pub fn migrate(&mut self, target: &'a Host) -> Duration {
        let output = self.start_migration(target, &[]).wait();
        assert!(output.code == 0, "{}\n{}{}", output.command, output.stdout, output.stderr);
        self.last_downtime()
    }

    /// The same in the background, with more of `virsh migrate`'s options.
    pub fn start_migration(&mut self, target: &'a Host, options: &[&str]) -> Migration<'_, 'a> {
        // The target's QEMU connects to a console of its own.
        let listener = vm::listen(target, &self.name);
        let console = self.await_console(&listener);
        let libvirt = format!("qemu+unix:///system?socket={}", target.path("/run/libvirt/libvirt-sock").display());
        let data = format!("tcp://{}", target.address());
        let fixed = ["virsh", "--quiet", "migrate", "--live", "--persistent", "--undefinesource"];
        let argv: Vec<&str> = fixed.iter().chain(options).copied().chain([&*self.name, &*libvirt, &*data]).collect();
        let command = self.host.start_with(&argv, "");
        Migration { vm: self, target, command, listener, console }
    }

    /// Of the migration that brought it here.
    fn last_downtime(&self) -> Duration {
        let info = self.host.ok(&["virsh", "domjobinfo", "--completed", &self.name]);
        let value = info.lines().find_map(|line| line.strip_prefix("Total downtime:"));
        let milliseconds = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
        Duration::from_millis(milliseconds.unwrap_or_else(|| panic!("no downtime in\n{info}")))
    }
}

impl Migration<'_, '_> {
    /// Cancels it, as `virsh domjobabort` does.
    pub fn abort(&self) {
        self.vm.host.ok(&["virsh", "--quiet", "domjobabort", &self.vm.name]);
    }

    /// Lets the guest run on the target from now on, with what memory is there; needs `--postcopy`.
    pub fn switch_to_postcopy(&self) {
        self.vm.host.ok(&["virsh", "--quiet", "migrate-postcopy", &self.vm.name]);
    }

    /// Kills the target's QEMU, whose memory is not complete yet.
    pub fn kill_target(&self) {
        self.target.sh(&format!("kill -9 $(cat /run/libvirt/qemu/{}.pid)", self.vm.name));
    }

    pub fn is_over(&mut self) -> bool {
        self.command.is_over()
    }

    /// Waits for its end. If it succeeded, the VM is the target's.
    pub fn wait(self) -> Output {
        let output = self.command.wait();
        if output.code == 0 {
            self.vm.host = self.target;
            self.vm.listener = self.listener;
            let keyboard = self.console.recv_timeout(Duration::from_secs(10));
            self.vm.keyboard = Some(keyboard.expect("the target's QEMU connected to its console"));
        }
        output
    }
}

/// libvirt's lifecycle and migration events.
pub struct Events {
    transcript: Transcript,
    command: Child,
}

impl Events {
    pub(super) fn start(host: &Host) -> Events {
        let transcript = Transcript::default();
        // Line by line also into a pipe.
        let argv = ["stdbuf", "-oL", "virsh", "event", "--all", "--loop"];
        let mut command = host.command(&argv).stdout(Stdio::piped()).spawn().expect("virsh starts");
        transcript.record(command.stdout.take().expect("stdout is piped"));
        Events { transcript, command }
    }

    /// The next event that holds all of `parts`, e.g. `["'lifecycle'", "'vm1'", "Resumed Migrated"]`.
    pub fn wait(&self, parts: &[&str], timeout: Duration) -> Line {
        self.transcript.wait(parts, timeout)
    }

    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}
