//! A DHCP server as libvirt starts it.

use std::process::{Child, Command, Stdio};

/// It ends with this.
pub struct Dnsmasq(Child);

impl Dnsmasq {
    /// On this bridge, with this range and what else it is told. Started behind a prefix, such as `ip netns exec far`.
    pub fn start(prefix: &[&str], bridge: &str, range: &str, more: &[&str]) -> Dnsmasq {
        let argv = [prefix, &["dnsmasq"]].concat();
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).args([&format!("--interface={bridge}"), &format!("--dhcp-range={range}")]);
        command.args(["--keep-in-foreground", "--bind-interfaces", "--dhcp-authoritative", "--no-ping", "--port=0"]);
        command.args(["--conf-file=/dev/null", "--user=root", "--pid-file="]).args(more);
        Dnsmasq(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
