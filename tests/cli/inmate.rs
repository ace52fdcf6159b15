//! A guest with a kernel of its own to answer for it: a namespace behind a veth.

use crate::common::sh;
use crate::guests::Sleeper;
use crate::host::{Host, neighbours};
use crate::inside;
use std::fs::File;

pub struct Inmate {
    pub sleeper: Sleeper,
    pub mac: String,
}

impl Inmate {
    /// On network flat; the device is its name as well.
    pub fn attach(host: &Host, name: &str, mac: &str) -> Inmate {
        let inmate = Inmate { sleeper: Sleeper::start(), mac: mac.to_owned() };
        let pid = inmate.sleeper.0.id();
        sh(&format!("ip link add {name} type veth peer name eth0 address {mac} netns {pid} && ip link set {name} up"));
        // Nothing but what a test has it say.
        inmate.sh("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip link set eth0 up");
        host.run(&["attach", name, "--network", "flat", "--mac", mac, "--guest", name]).ok();
        inmate
    }

    pub fn sh(&self, line: &str) -> String {
        sh(&format!("nsenter -t {} -n sh -c '{line}'", self.sleeper.0.id()))
    }

    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside::inside(&File::open(format!("/proc/{}/ns/net", self.sleeper.0.id())).unwrap(), work)
    }

    pub fn has(&self, ip: &str) {
        self.sh(&format!("ip address replace {ip}/24 dev eth0"));
    }

    pub fn has_no_more(&self, ip: &str) {
        self.sh(&format!("ip address del {ip}/24 dev eth0"));
    }

    /// Asks for the gateway as who has that address, and so says that it has it.
    pub fn speaks(&self, ip: &str) {
        self.sh(&format!("ip neigh flush dev eth0; ping -c 1 -W 1 -I {ip} 10.1.0.1 >/dev/null || true"));
    }

    pub fn owns(&self, ip: &str) -> bool {
        neighbours().contains(&format!("neigh {ip} {} ", self.mac))
    }
}
