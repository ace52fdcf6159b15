//! How a network that is up differs from what its description says by now.

use super::{Network, Origin, PortSecurity, Vrf};
use ipnet::IpNet;
use std::fmt::Display;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `vni 30, and it is up with 20`
    pub what: String,
    /// A network that is up does not take it over: it has to go down and come up again.
    pub anew: bool,
}

impl Network {
    /// Where the description `told` says something else than this network is up with. What it leaves open is no difference; DHCP hosts are not
    /// looked at, for they are always followed.
    pub fn changes(&self, told: &Network) -> Vec<Change> {
        let mut found = Vec::new();
        let mut differ = |field: &str, up: String, now: String, anew| {
            if up != now {
                found.push(Change { what: format!("{field} {now}, and it is up with {up}"), anew });
            }
        };
        let (up, now) = (self, told.completed(self));
        let vrf = |n: &Network| n.vrf.as_ref().map_or("none".to_owned(), Vrf::to_string);
        differ("bridge", up.bridge.to_string(), now.bridge.to_string(), true);
        differ("vni", up.vni.to_string(), now.vni.to_string(), true);
        differ("vrf", vrf(up), vrf(&now), true);
        if now.vlan_aware && !up.vlan_aware {
            differ("macTableManager", "none".to_owned(), "libvirt".to_owned(), true);
        }
        differ("gateway", listed(&up.gateway), listed(&now.gateway), false);
        differ("mac", or_none(up.mac), or_none(now.mac), false);
        // What is left open was taken from the underlay.
        differ("mtu", or_none(up.mtu), or_none(now.mtu.or(up.mtu)), false);
        // config.toml has no word for it: what a libvirt network has is libvirt's XML's.
        differ("stp", on(up.stp), on(now.stp), false);
        differ("port_security", up.security().to_string(), now.security().to_string(), false);
        found
    }

    /// libvirt's description with what it leaves open as it is up. config.toml describes a network alone, so what it leaves out is out.
    pub fn completed(&self, up: &Network) -> Network {
        let mut whole = self.clone();
        if self.origin != Origin::Config {
            whole.mac = self.mac.or(up.mac);
            whole.port_security = self.port_security.or(up.port_security);
            // With mode='bridge' the gateway is config.toml's, if anybody's.
            if self.origin == Origin::LibvirtBridge && self.gateway.is_empty() {
                whole.gateway.clone_from(&up.gateway);
            }
        }
        whole
    }

    /// The port security that this description asks for in so many words, where it is not that of the network that is up.
    pub fn asks_to_hold(&self, up: &Network) -> Option<PortSecurity> {
        self.port_security.filter(|wanted| *wanted != up.security())
    }
}

fn on(it: bool) -> String {
    if it { "on" } else { "off" }.to_owned()
}

fn or_none<T: Display>(value: Option<T>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}

fn listed(gateways: &[IpNet]) -> String {
    let mut all: Vec<String> = gateways.iter().map(IpNet::to_string).collect();
    all.sort();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
#[path = "change_test.rs"]
mod tests;
