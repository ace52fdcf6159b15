//! Whose a VRF's instance is: told by what stands in it, not by who came first. Pure.
//!
//! Our lines come to stand in frr.conf by `write memory`, by hand from `evpn-hook frr-config`, or by a tool that collects configurations; after the
//! next start of FRR they are there before us. What is only ours is ours all the same, and one line of another's makes the instance another's.

use super::render::{self, BgpLine};
use super::running::{Instance, Running};
use std::net::Ipv4Addr;

/// What bgpd prints in an instance by itself where frr.conf begins with an older `frr version`, or the `frr defaults` changed: it makes an instance
/// with the defaults of those and prints what differs from its own (bgpd/bgp_vty.c `FRR_CFG_DEFAULT_BOOL` and `bgp_config_write`, the same in
/// 8.4.4, 10.3 and 10.7; lib/defaults.c). Each of them may have a `no` before it.
const DEFAULTS: [&str; 14] = [
    "bgp network import-check",
    "bgp ebgp-requires-policy",
    "bgp suppress-duplicates",
    "bgp graceful-restart notification",
    "bgp hard-administrative-reset",
    "bgp enforce-first-as",
    "bgp log-neighbor-changes",
    "bgp deterministic-med",
    "bgp default show-hostname",
    "bgp default show-nexthop-hostname",
    "bgp default software-version-capability",
    "bgp default software-version-capability latest-encoding",
    "bgp default link-local-capability",
    "bgp default dynamic-capability",
];

/// Is there nothing in this instance but our lines and what bgpd prints by itself? Ours are the host's AS and router-ids of `ids`. What bgpd prints by itself it prints in
/// the EVPN instance of the host, too; what stands in this one alone somebody put there.
pub(super) fn is_ours(instance: &Instance, running: &Running, ids: &[Ipv4Addr]) -> bool {
    let of_host = running.evpn().is_none_or(|evpn| evpn.asn == instance.asn);
    of_host
        && instance.lines.iter().all(|(family, line)| match family.as_str() {
            "" => ids.iter().any(|id| *line == render::router_id_line(*id)) || is_default(line, running),
            family => BgpLine::ALL.iter().any(|ours| ours.text() == (family, line)),
        })
}

fn is_default(line: &str, running: &Running) -> bool {
    let known = DEFAULTS.contains(&line.strip_prefix("no ").unwrap_or(line));
    known && running.evpn().is_some_and(|evpn| evpn.lines.iter().any(|(f, l)| f.is_empty() && l == line))
}

/// Does this line of ours stand there as we write it? One that the operator made longer is the operator's.
pub(super) fn contains(instance: &Instance, line: BgpLine) -> bool {
    let (family, text) = line.text();
    instance.lines.iter().any(|(f, l)| f == family && l == text)
}

/// Has this instance exactly this router-id configured?
pub(super) fn identified(instance: &Instance, id: Ipv4Addr) -> bool {
    let line = render::router_id_line(id);
    instance.lines.iter().any(|(f, l)| f.is_empty() && *l == line)
}

#[cfg(test)]
#[path = "whose_test.rs"]
mod test;
