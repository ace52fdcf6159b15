//! libvirt domains: Debian's cloud kernel with a busybox initramfs (tests/lab/guest/init says what its command line takes).

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::host::project;
use super::{Host, Line, Transcript};

pub enum Nic<'a> {
    Network {
        mac: &'a str,
        network: &'a str,
    },
    /// `<interface type='ethernet'>`: a tap that nobody enslaves.
    Ethernet {
        mac: &'a str,
        tap: &'a str,
    },
    /// `<interface type='bridge'>`
    Bridge {
        mac: &'a str,
        bridge: &'a str,
    },
}

#[derive(Default)]
pub struct VmSpec<'a> {
    pub name: &'a str,
    pub nics: Vec<Nic<'a>>,
    /// E.g. "lab.ip0=10.1.0.60/24 lab.silent".
    pub cmdline: &'a str,
    /// What goes between `<metadata>` and `</metadata>`.
    pub metadata: &'a str,
    /// Without an operating system: it idles in its BIOS, and all that its NIC ever sends is QEMU's own.
    pub bare: bool,
}

pub struct Vm<'a> {
    pub(super) host: &'a Host,
    pub(super) name: String,
    console: Transcript,
    pub(super) keyboard: Option<UnixStream>,
    pub(super) listener: UnixListener,
}

impl<'a> Vm<'a> {
    pub fn start(host: &'a Host, spec: &VmSpec) -> Vm<'a> {
        let mut vm = Vm::define(host, spec);
        vm.boot();
        vm
    }

    pub fn define(host: &'a Host, spec: &VmSpec) -> Vm<'a> {
        let socket = console_path(spec.name);
        let listener = listen(host, spec.name);
        let file = format!("/run/{}.xml", spec.name);
        host.write(&file, &domain_xml(spec, &socket));
        host.ok(&["virsh", "--quiet", "define", &file]);
        Vm { host, name: spec.name.into(), console: Transcript::default(), keyboard: None, listener }
    }

    /// Starts the defined domain; returns when `virsh start` does.
    pub fn boot(&mut self) {
        let (host, name) = (self.host, self.name.clone());
        self.boot_by(|| {
            host.ok(&["virsh", "--quiet", "start", &name]);
        });
    }

    /// The same with the caller's own `virsh start`.
    pub fn boot_by(&mut self, start: impl FnOnce()) {
        let connection = self.await_console(&self.listener);
        start();
        self.keyboard =
            Some(connection.recv_timeout(Duration::from_secs(10)).expect("QEMU connected to the console socket"));
    }

    /// The same after its host was off, whose /run is a new one.
    pub fn boot_again_by(&mut self, start: impl FnOnce()) {
        self.listener = listen(self.host, &self.name);
        self.console = Transcript::default();
        self.boot_by(start);
    }

    /// Records what the next QEMU to connect shows; gives its end of the line.
    pub(super) fn await_console(&self, listener: &UnixListener) -> mpsc::Receiver<UnixStream> {
        let listener = listener.try_clone().expect("console socket");
        let (connected, connection) = mpsc::channel();
        let console = self.console.clone();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("QEMU connects to the console socket");
            console.record(stream.try_clone().expect("console socket"));
            let _ = connected.send(stream);
        });
        connection
    }

    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// Starts the defined domain, whose guest is not to run: what its start alone does.
    pub fn start_paused(&self) {
        let listener = self.listener.try_clone().expect("console socket");
        std::thread::spawn(move || listener.accept().map(drop));
        self.host.ok(&["virsh", "--quiet", "start", "--paused", &self.name]);
    }

    pub fn destroy(&self) {
        self.host.ok(&["virsh", "--quiet", "destroy", &self.name]);
    }

    /// Everything the guest's serial console showed, with times.
    pub fn console(&self) -> &Transcript {
        &self.console
    }

    /// Waits until the guest's init has set its static addresses and takes commands.
    pub fn wait_ready(&self) -> Line {
        self.console.wait(&["lab-guest: ready"], Duration::from_secs(120))
    }

    /// Runs a shell command in the guest; gives its exit status and output.
    pub fn exec(&mut self, command: &str) -> (i32, String) {
        let from = self.console.len();
        let keyboard = self.keyboard.as_mut().expect("the guest was started");
        writeln!(keyboard, "{{ {command}\n}}; echo lab-status=$?").expect("the guest's console takes a line");
        let (end, status) = self.console.wait_from(from, &["lab-status="], Duration::from_secs(60));
        let output: Vec<_> = self.console.lines()[from..end].iter().map(|line| line.text.clone()).collect();
        let code = status.text.rsplit('=').next().and_then(|code| code.parse().ok());
        (code.unwrap_or_else(|| panic!("no exit status in {:?} after {output:#?}", status.text)), output.join("\n"))
    }

    /// Whether the guest's shell still answers on its console.
    pub fn is_alive(&mut self, patience: Duration) -> bool {
        let from = self.console.len();
        let keyboard = self.keyboard.as_mut().expect("the guest was started");
        writeln!(keyboard, "echo lab-alive").expect("the guest's console takes a line");
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if self.console.lines()[from..].iter().any(|line| line.text.contains("lab-alive")) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Vm<'_> {
    fn drop(&mut self) {
        self.host.run(&["virsh", "--quiet", "destroy", &self.name]);
        self.host.run(&["virsh", "--quiet", "undefine", &self.name]);
    }
}

fn console_path(name: &str) -> String {
    format!("/run/{name}.console")
}

/// We listen and QEMU connects, so that not even the console's first line is lost.
pub(super) fn listen(host: &Host, name: &str) -> UnixListener {
    let path = host.path(&console_path(name));
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(path).expect("console socket")
}

fn domain_xml(spec: &VmSpec, console: &str) -> String {
    let nics: String = spec.nics.iter().map(Nic::xml).collect();
    let images = project().join("target/lab/images");
    let (memory, kernel) = match spec.bare {
        true => (16, String::new()),
        false => (
            96,
            format!(
                "<kernel>{images}/vmlinuz</kernel><initrd>{images}/initramfs.gz</initrd>
    <cmdline>console=ttyS0 earlyprintk=ttyS0 {cmdline}</cmdline>",
                images = images.display(),
                cmdline = spec.cmdline
            ),
        ),
    };
    format!(
        "<domain type='qemu'>
  <name>{name}</name>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    {kernel}
  </os>
  <features><acpi/></features>
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    {nics}
    <serial type='unix'><source mode='connect' path='{console}'/></serial>
  </devices>
</domain>
",
        name = spec.name,
        metadata = spec.metadata,
    )
}

impl Nic<'_> {
    fn xml(&self) -> String {
        let (kind, mac, inner) = match self {
            Nic::Network { mac, network } => ("network", mac, format!("<source network='{network}'/>")),
            Nic::Bridge { mac, bridge } => ("bridge", mac, format!("<source bridge='{bridge}'/>")),
            Nic::Ethernet { mac, tap } => ("ethernet", mac, format!("<target dev='{tap}'/>")),
        };
        // Without the option ROM the BIOS does not try to boot from the network first.
        format!(
            "<interface type='{kind}'><mac address='{mac}'/>{inner}<model type='virtio'/><rom enabled='no'/></interface>"
        )
    }
}
