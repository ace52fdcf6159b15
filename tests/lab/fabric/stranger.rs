//! A hypervisor as its owner has it: systemd runs it, and it never had evpn-hook.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::host::project;
use super::{Host, wait_until};

pub struct Stranger<'a> {
    host: &'a Host,
    /// unshare, with which systemd dies, and everything that runs below it.
    holder: Child,
    systemd: String,
    off: bool,
}

impl<'a> Stranger<'a> {
    /// Of a node of the fabric, until the value is dropped. libvirtd starts anew, and finds no hooks.
    pub fn on(host: &'a Host) -> Stranger<'a> {
        let project = project();
        let source = project.to_str().expect("a path in UTF-8");
        host.ok(&["make", "--silent", "-C", source, "uninstall", "DESTDIR=", "PREFIX=/usr"]);
        // policy-rc.d: where this machine is a container's image, its packages may start nothing.
        // What takes long here and is not asked for: apt's lists of all of Debian, man-db's index of the whole machine.
        host.sh("rm -rf /usr/sbin/policy-rc.d /var/lib/man-db/auto-update /var/lib/apt/lists; rmdir /etc/libvirt/hooks/*.d /etc/libvirt/hooks; rm -rf /run/evpn-hook /etc/evpn-hook");
        // libvirt's own doing with its first network that has an address, and left by it (bridge_driver.c `networkEnableIPForwarding`).
        host.ok(&["sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1"]);
        host.stop_libvirtd("TERM");
        let stranger = Stranger::booted(host);
        stranger.sh("libvirtd -d; virsh --quiet list");
        stranger
    }

    /// Of a node on which no libvirtd runs, nor is started.
    pub fn booted(host: &'a Host) -> Stranger<'a> {
        let project = project();
        let source = project.to_str().expect("a path in UTF-8");
        let mut start = host.command(&[&format!("{source}/tests/lab/fabric/systemd.sh"), host.name()]);
        let log = fs::File::create(host.path("/var/log/systemd.log")).expect("systemd's log");
        let holder = start.stdout(Stdio::null()).stderr(log).spawn().expect("systemd.sh starts");
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let mut stranger = Stranger { host, holder, systemd: String::new(), off: false };
        wait_until("systemd's first process", Duration::from_secs(20), || {
            // The script has other children before.
            stranger.systemd = fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
            fs::read_to_string(format!("/proc/{}/comm", stranger.systemd)).is_ok_and(|name| name == "systemd\n")
        });
        wait_until("systemd", Duration::from_secs(60), || {
            host.run(&stranger.below("systemctl is-system-running")).stdout == "running\n"
        });
        stranger
    }

    /// systemd ends and all that runs below it. The packages stay, and nothing comes in their place.
    pub fn power_off(mut self) {
        self.off = true;
    }

    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// As [`Host::sh`], below its systemd, which talks to nobody outside its PID namespace.
    pub fn sh(&self, script: &str) -> String {
        self.host.ok(&self.below(script))
    }

    fn below<'b>(&'b self, script: &'b str) -> [&'b str; 10] {
        let [mount, pid, cgroup] = ["--mount", "--pid", "--cgroup"];
        ["nsenter", "--target", &self.systemd, mount, pid, cgroup, "--", "bash", "-euc", script]
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        if self.off {
            return;
        }
        let back = || {
            // Where a scenario failed half-way, packages may be there still.
            self.host.run(&["dpkg", "--purge", "--force-all", "evpn-agent", "evpn-hook"]);
            self.host.sh("rm -rf /run/systemd /run/libvirtd.pid");
            self.host.install_hook();
            self.host.run_libvirtd();
        };
        // A second panic, in the clearing up after the first, would end all the other tests as well.
        match std::thread::panicking() {
            true => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(back))),
            false => back(),
        }
    }
}
