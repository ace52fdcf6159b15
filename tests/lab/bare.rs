//! Entries moved by a bare netlink program: what FRR itself costs, without a hook in between.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use evpn_hook::model::{IfName, Mac};
use evpn_hook::plan::Step;

use crate::fabric::{FdbEvents, Host};

/// A port that stands for a guest's: a veth whose far end is in no bridge, up while the value lives.
pub struct Port<'a> {
    host: &'a Host,
    name: &'static str,
    bridge: &'static str,
}

impl<'a> Port<'a> {
    pub fn new(host: &'a Host, name: &'static str, bridge: &'static str) -> Port<'a> {
        // Without IPv6: FRR 10.3 dies of two neighbouring devices with the same neighbours, all routers for instance, when one of them goes (docs/frr.md).
        host.sh(&format!(
            "ip link add {name} type veth peer name {name}-far
             sysctl --quiet --write net.ipv6.conf.{name}.disable_ipv6=1 net.ipv6.conf.{name}-far.disable_ipv6=1
             ip link set {name} master {bridge} up; ip link set {name}-far up"
        ));
        Port { host, name, bridge }
    }

    /// As a hook would; gives the time just before the first message.
    pub fn register(&self, mac: Mac, ip: IpAddr) -> Instant {
        register(self.host, self.name, self.bridge, mac, ip)
    }

    pub fn withdraw(&self, mac: Mac, ip: IpAddr) {
        withdraw(self.host, self.name, self.bridge, mac, ip);
    }
}

impl Drop for Port<'_> {
    fn drop(&mut self) {
        self.host.run(&["ip", "link", "del", self.name]);
    }
}

fn name(text: &str) -> IfName {
    text.parse().expect("an interface name")
}

fn register(host: &Host, port: &str, bridge: &str, mac: Mac, ip: IpAddr) -> Instant {
    let mut kernel = host.kernel();
    let begun = Instant::now();
    for step in [Step::AddFdb { dev: name(port), mac }, Step::AddNeigh { bridge: name(bridge), ip, mac, router: false }]
    {
        kernel.apply(&step).expect("an entry");
    }
    begun
}

/// An entry that zebra has taken over by then is its own to delete.
fn withdraw(host: &Host, port: &str, bridge: &str, mac: Mac, ip: IpAddr) {
    let mut kernel = host.kernel();
    for step in [Step::DelNeigh { bridge: name(bridge), ip }, Step::DelFdb { dev: name(port), mac }] {
        kernel.apply(&step).expect("an entry gone");
    }
}

/// What a script would do that knows the guest, and waits on the target for nothing but the guest's first frame.
pub struct IdealScript<'a> {
    host: &'a Host,
    mac: Mac,
    ip: IpAddr,
    events: FdbEvents,
}

impl<'a> IdealScript<'a> {
    pub fn prepare(host: &'a Host, mac: &str, ip: &str) -> IdealScript<'a> {
        let (mac, ip) = (mac.parse().expect("a MAC"), ip.parse().expect("an address"));
        IdealScript { host, mac, ip, events: FdbEvents::listen(host) }
    }

    /// Registers the guest when it arrives.
    pub fn run(self, timeout: Duration) {
        let tap = self.events.wait(self.mac, "vnet", timeout);
        register(self.host, &tap, "red-l2", self.mac, self.ip);
    }
}
