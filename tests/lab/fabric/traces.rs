//! What a hypervisor holds that a tenant or guest could have left behind: taken before and after, it shows what was.

use std::time::{Duration, Instant};

use super::Host;

/// Host-wide settings are changed once and stay (host.json, the local routing rule behind the l3mdev rule); locks are empty files.
const SCRIPT: &str = r"
    for device in /sys/class/net/*; do echo link ${device##*/}; done
    ip neigh show nud permanent
    { ip rule; ip -6 rule; } | grep -v -e 'lookup local' -e l3mdev-table || true
    { ip route show table all; ip -6 route show table all; } | grep 'table ' | grep -v 'table local' || true
    [ ! -d /run/evpn-hook ] || find /run/evpn-hook ! -type d ! -name '*.lock' ! -name host.json
    virsh list --all --name | sed 's/^/domain /'
    virsh net-list --all --name | sed 's/^/network /'
    lxc-ls --active --line | sed 's/^/container /'
";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(Vec<String>);

impl Traces {
    /// Of one host: devices, permanent neighbours, rules, tenants' routes, state files, what runs, and FRR's configuration.
    pub fn of(host: &Host) -> Traces {
        let mut lines: Vec<String> = host.sh(SCRIPT).lines().map(str::to_owned).collect();
        for daemon in ["zebra", "bgpd"] {
            let config = host.vty(daemon, "show running-config").unwrap_or_else(|_| "not running".into());
            assert!(config.starts_with("frr version") || config == "not running", "{daemon}: {config}");
            lines.extend(config.lines().filter(|line| *line != "!").map(|line| format!("{daemon}: {line}")));
        }
        Traces(lines)
    }

    /// The same, and the EVPN routes that the host has from anywhere.
    fn with_routes(host: &Host) -> Traces {
        let Traces(mut lines) = Traces::of(host);
        let routes = host.vty("bgpd", "show bgp l2vpn evpn").unwrap_or_default();
        lines.extend(routes.lines().filter(|line| line.contains('[') && line.starts_with('*')).map(str::to_owned));
        Traces(lines)
    }

    /// Panics with the differences if the host is not as it was then.
    pub fn assert_unchanged(&self, host: &Host) {
        if let Some(differences) = self.differences(&Traces::of(host)) {
            panic!("{} is not as it was:\n{differences}", host.name());
        }
    }

    fn differences(&self, now: &Traces) -> Option<String> {
        let missing = |from: &Traces, of: &Traces, sign: char| -> Vec<String> {
            of.0.iter().filter(|line| !from.0.contains(line)).map(|line| format!("{sign} {line}")).collect()
        };
        let mut lines = missing(now, self, '-');
        lines.extend(missing(self, now, '+'));
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// All hypervisors before a scenario.
pub struct Before<'a>(Vec<(&'a Host, Traces)>);

impl<'a> Before<'a> {
    pub fn take(hosts: [&'a Host; 2]) -> Before<'a> {
        Before(hosts.into_iter().map(|host| (host, Traces::with_routes(host))).collect())
    }

    /// The scenario left no trace. A withdrawal takes its time to reach the other host, hence the patience.
    pub fn assert_restored(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        for (host, before) in &self.0 {
            while let Some(differences) = before.differences(&Traces::with_routes(host)) {
                assert!(Instant::now() < end, "the scenario left traces on {}:\n{differences}", host.name());
            }
        }
    }
}
