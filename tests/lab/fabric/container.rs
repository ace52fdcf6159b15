//! LXC containers with a busybox root.

use super::host::project;
use super::{Host, Output};

pub struct Container<'a> {
    host: &'a Host,
    name: String,
}

impl<'a> Container<'a> {
    /// Starts a container. `config` holds what the test is about: its `lxc.net.*`, hooks and includes.
    pub fn start(host: &'a Host, name: &str, config: &str) -> Container<'a> {
        let container = Container::define(host, name, config);
        host.ok(&["lxc-start", "--name", name]);
        container
    }

    /// Writes a container's configuration without starting it.
    pub fn define(host: &'a Host, name: &str, config: &str) -> Container<'a> {
        host.write(
            &format!("/var/lib/lxc/{name}/config"),
            &format!(
                "lxc.uts.name = {name}\nlxc.rootfs.path = dir:{}\nlxc.init.cmd = /bin/container-init\n\
                 lxc.apparmor.profile = unconfined\nlxc.mount.auto = proc:mixed sys:ro\n\
                 lxc.log.file = /var/log/lxc/{name}.log\nlxc.log.level = INFO\n{config}\n",
                project().join("target/lab/images/rootfs").display()
            ),
        );
        Container { host, name: name.into() }
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
