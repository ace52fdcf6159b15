//! LXC containers with a busybox root.

use std::fs::File;

use super::host::project;
use super::{Host, Output, netns};

/// How to ask whether an address answers.
#[derive(Clone, Copy, Debug)]
pub enum Probe {
    Ping,
    Arp,
}

pub struct Container<'a> {
    host: &'a Host,
    name: String,
}

impl<'a> Container<'a> {
    /// Starts a container. `config` holds what the test is about: its `lxc.net.*`, hooks and includes.
    pub fn start(host: &'a Host, name: &str, config: &str) -> Container<'a> {
        let container = Container::define(host, name, config);
        container.boot();
        container
    }

    /// Starts the defined container; returns when its init runs.
    pub fn boot(&self) {
        self.host.ok(&["lxc-start", "--name", &self.name]);
    }

    /// Its init, seen from the host; none while there is none.
    pub fn pid(&self) -> Option<u32> {
        self.host.run(&["lxc-info", "--no-humanize", "--pid", "--name", &self.name]).stdout.trim().parse().ok()
    }

    /// RUNNING, FROZEN, STOPPED …
    pub fn state(&self) -> String {
        self.host.ok(&["lxc-info", "--no-humanize", "--state", "--name", &self.name]).trim().to_owned()
    }

    /// The process that started it and runs its hooks.
    pub fn monitor_pid(&self) -> Option<u32> {
        let init = self.pid()?;
        let status = std::fs::read_to_string(format!("/proc/{init}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    }

    /// Its network namespace.
    pub fn netns(&self) -> File {
        let pid = self.pid().expect("the container runs");
        File::open(format!("/proc/{pid}/ns/net")).expect("the container's network namespace")
    }

    /// Makes something in its network namespace, where it stays.
    pub fn inside<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        netns::inside(&self.netns(), make)
    }

    /// Writes a container's configuration without starting it.
    pub fn define(host: &'a Host, name: &str, config: &str) -> Container<'a> {
        host.write(
            &format!("/var/lib/lxc/{name}/config"),
            &format!(
                "lxc.uts.name = {name}\nlxc.rootfs.path = dir:{}\nlxc.init.cmd = /bin/container-init\n\
                 lxc.apparmor.profile = unconfined\nlxc.mount.auto = proc:mixed sys:ro\n\
                 lxc.log.file = /var/log/lxc/{name}.log\nlxc.log.level = INFO\n{config}\n",
                Container::rootfs()
            ),
        );
        Container { host, name: name.into() }
    }

    /// The busybox root that all share.
    pub fn rootfs() -> String {
        project().join("target/lab/images/rootfs").display().to_string()
    }

    pub fn stop(&self) {
        self.host.ok(&["lxc-stop", "--kill", "--name", &self.name]);
    }

    /// The addresses of these that answer this container, asked all at once: by `ping` or, for the segment alone, `arping`.
    pub fn reaches<'b>(&self, how: Probe, addresses: &[&'b str]) -> Vec<&'b str> {
        let probe = match how {
            Probe::Ping => "ping -c 3 -W 2",
            Probe::Arp => "arping -I eth0 -c 2 -w 2",
        };
        let script =
            format!("for ip in {}; do {{ {probe} $ip >/dev/null && echo $ip; }} & done; wait", addresses.join(" "));
        let answered = self.ok(&["sh", "-c", &script]);
        addresses.iter().copied().filter(|address| answered.lines().any(|line| line == *address)).collect()
    }

    /// Asks for an IPv6 address by DHCPv6, with a DUID made from the NIC's MAC; gives the address. The client is the host's, in the container's network.
    pub fn dhcpv6(&self) -> String {
        let pid = self.pid().expect("the container runs");
        let script = project().join("tests/lab/guest/dhclient.script");
        let leases = format!("/run/{}-{pid}.leases", self.name);
        self.host.sh(&format!(
            "cd /; nsenter --target {pid} --net timeout 60 dhclient -6 -1 -q -D LL -sf {} -lf {leases} -pf {leases}.pid eth0
             kill $(cat {leases}.pid); sed -n 's/^ *iaaddr \\(.*\\) {{/\\1/p' {leases} | tail -n 1",
            script.display()
        ))
        .trim()
        .to_owned()
    }

    /// Runs a command inside; the busybox applets are there.
    pub fn run(&self, argv: &[&str]) -> Output {
        self.host.run(&self.attach(argv))
    }

    pub fn ok(&self, argv: &[&str]) -> String {
        self.host.ok(&self.attach(argv))
    }

    fn attach<'b>(&'b self, argv: &[&'b str]) -> Vec<&'b str> {
        ["lxc-attach", "--clear-env", "--name", &self.name, "--"].iter().chain(argv).copied().collect()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.host.run(&["lxc-stop", "--kill", "--name", &self.name]);
    }
}
