//! What a hypervisor holds that a tenant or guest could have left behind: taken before and after, it shows what was.

use std::time::{Duration, Instant};

use super::Host;

/// With as few processes as can be: it runs four times a scenario.
const SCRIPT: &str = r"
    cd /sys/class/net; for device in *; do echo link $device; done
    for path in /run/libvirt/qemu/*.xml /run/libvirt/network/*.xml; do [ ! -e $path ] || echo libvirt $path; done
    printf 'neigh show nud permanent\nrule\nroute show table all\n' | ip -batch -
    printf 'rule\nroute show table all\n' | ip -6 -batch -
    [ ! -d /run/evpn-hook ] || find /run/evpn-hook ! -type d ! -path '*/hints/*'
";

/// Not left behind by anyone: the underlay's routes, and what is changed once for the whole host and stays.
fn is_the_hosts(line: &str) -> bool {
    let word = |word: &str| line.split_whitespace().any(|other| other == word);
    let is_route = word("proto") || word("dev") && !line.contains("lladdr");
    let of_a_tenant = word("table") && !line.contains("table local");
    line.contains("lookup local")
        || line.contains("l3mdev-table")
        || line.ends_with(".lock")
        || line.ends_with("/host.json")
        || is_route && !of_a_tenant
}

/// FRR 10 keeps a VRF that is gone, with nothing in it (docs/frr.md).
fn without_empty_vrfs(config: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = Vec::new();
    for line in config.lines().filter(|line| *line != "!") {
        match lines.last() {
            Some(last) if line == "exit-vrf" && last.starts_with("vrf ") => drop(lines.pop()),
            _ => lines.push(line),
        }
    }
    lines
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(Vec<String>);

impl Traces {
    /// Of one host: devices, permanent neighbours, rules, tenants' routes, state files, what runs, and FRR's configuration.
    pub fn of(host: &Host) -> Traces {
        let mut lines: Vec<String> =
            host.sh(SCRIPT).lines().filter(|line| !is_the_hosts(line)).map(str::to_owned).collect();
        for daemon in ["zebra", "bgpd"] {
            let config = host.vty(daemon, "show running-config").unwrap_or_else(|_| "not running".into());
            assert!(config.starts_with("frr version") || config == "not running", "{daemon}: {config}");
            lines.extend(without_empty_vrfs(&config).into_iter().map(|line| format!("{daemon}: {line}")));
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

    /// Panics with the differences if the host is not as it was then, nor is soon: a bridge has its multicast route once it has its carrier, of which
    /// the kernel tells up to a second late (net/core/link_watch.c, `linkwatch_schedule_work`).
    pub fn assert_unchanged(&self, host: &Host) {
        self.assert_soon(&format!("{} is not as it was", host.name()), || Traces::of(host));
    }

    fn assert_soon(&self, what: &str, now: impl Fn() -> Traces) {
        let end = Instant::now() + Duration::from_secs(10);
        let mut asked = Instant::now();
        while let Some(differences) = self.differences(&now()) {
            assert!(Instant::now() < end, "{what}:\n{differences}");
            std::thread::sleep(asked.elapsed());
            asked = Instant::now();
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
    pub fn take(hosts: Vec<&'a Host>) -> Before<'a> {
        Before(hosts.into_iter().map(|host| (host, Traces::with_routes(host))).collect())
    }

    /// The scenario left no trace. A withdrawal takes its time to reach the other host, hence the patience.
    pub fn assert_restored(&self) {
        for (host, before) in &self.0 {
            before.assert_soon(&format!("the scenario left traces on {}", host.name()), || Traces::with_routes(host));
        }
    }
}
