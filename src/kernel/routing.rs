//! Routing rules, routes and /proc/sys: what is the host's or the VRF's, not a device's.

use super::apply::{Done, forgive};
use super::error::{KernelError, NetlinkError, is_unsupported};
use super::observe::family;
use super::{Kernel, PROTOCOL};
use crate::fault;
use crate::model::TableId;
use crate::plan::Step;
use crate::plan::seen::Route;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::IpProtocol;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType, RouteVia};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// `RT_TABLE_LOCAL`, include/uapi/linux/rtnetlink.h.
const LOCAL: u8 = 255;
/// Where the kernel puts table local's rule.
const FIRST: u32 = 0;
/// Behind the l3mdev rule (1000), before table main (32766): what VRFs need (Documentation/networking/vrf.rst).
const LAST: u32 = 32765;
/// Before the l3mdev rule: what is not to be routed in a VRF at all.
const BEFORE_VRFS: u32 = 999;
/// BGP, RFC 4271.
const BGP: u16 = 179;
/// What the kernel says where there is no way to an address.
const NO_WAY: [Errno; 4] = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];
/// The metric that vrf.rst gives the unreachable default, so that every real one wins.
const UNREACHABLE_METRIC: u32 = 4_278_198_272;

/// See [`Kernel::vrf_rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrfRules {
    /// Table local is asked only after the VRFs (behind an l3mdev rule, or at preference 32765). Otherwise an address of the host that is also a
    /// tenant's would draw the tenant's packets to the host.
    pub local_last: bool,
    /// There is the rule of [`Step::TenantBgp`].
    pub bgp_closed: bool,
}

impl Kernel {
    /// What of the host's routing rules VRFs depend on, in IPv4 and, where there is IPv6, in IPv6.
    pub fn vrf_rules(&mut self) -> Result<VrfRules, KernelError> {
        self.told("rules for VRFs", |kernel| {
            let mut found = VrfRules { local_last: true, bgp_closed: true };
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                let rules = match kernel.rules(family) {
                    Err(cause) if family == AddressFamily::Inet6 && is_unsupported(&cause) => continue,
                    rules => rules.map_err(|cause| KernelError::Read { what: "routing rules".into(), cause })?,
                };
                let l3mdev = rules.iter().filter(|rule| is_l3mdev(rule)).map(preference).min().unwrap_or(LAST - 1);
                let local = rules.iter().filter(|rule| is_local(rule)).map(preference).min();
                found.local_last &= local.is_some_and(|local| local > l3mdev);
                found.bgp_closed &= rules.iter().any(is_bgp_rule);
            }
            Ok(found)
        })
    }

    /// How a packet to this address would leave, out of a VRF where one is named; `None` where it would not.
    pub fn route_to(&mut self, ip: IpAddr, vrf: Option<u32>) -> Result<Option<Route>, KernelError> {
        let mut question = RouteMessage::default();
        question.header.address_family = family(ip);
        question.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
        question.attributes.push(RouteAttribute::Destination(ip.into()));
        question.attributes.extend(vrf.map(RouteAttribute::Oif));
        let answer = match self.socket.ask(RouteNetlinkMessage::GetRoute(question), 0) {
            // No route; or one that is unreachable, prohibit or blackhole (net/ipv4/fib_semantics.c `fib_props`).
            Err(cause) if NO_WAY.iter().any(|errno| cause.is(*errno)) => return Ok(None),
            Err(cause) if is_unsupported(&cause) => return Ok(None),
            answer => answer.map_err(|cause| KernelError::Read { what: format!("route to {ip}"), cause })?,
        };
        Ok(answer.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => leaves_by(&route),
            _ => None,
        }))
    }

    /// Does a default route of this host's leave by this device? Asked by addresses that nobody has and no route is for alone: one of class E
    /// (RFC 1112 §4), and one of 3ffe::/16, which was given back (RFC 3701).
    pub fn has_default_route(&mut self, device: u32) -> Result<bool, KernelError> {
        self.told(format_args!("default route by index {device}"), |kernel| {
            for ip in [IpAddr::from([240, 0, 0, 1]), IpAddr::from([0x3ffe, 0, 0, 0, 0, 0, 0, 1])] {
                if kernel.route_to(ip, None)?.is_some_and(|route| route.device == device) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Has this table the unreachable default routes of [`Step::AddUnreachable`], IPv4 and, where there is IPv6, IPv6?
    pub fn unreachable(&mut self, table: TableId) -> Result<bool, KernelError> {
        self.told(format_args!("unreachable defaults of table {table}"), |kernel| {
            Ok(kernel.unreachable_of(AddressFamily::Inet, table)?
                && kernel.unreachable_of(AddressFamily::Inet6, table)?)
        })
    }

    fn unreachable_of(&mut self, family: AddressFamily, table: TableId) -> Result<bool, KernelError> {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        filter.header.kind = RouteType::Unreachable;
        filter.attributes.push(RouteAttribute::Table(table.get()));
        let routes = match self.socket.ask(RouteNetlinkMessage::GetRoute(filter), NLM_F_DUMP) {
            Err(cause) if cause.is(Errno::NOENT) => return Ok(false), // no such table yet
            Err(cause) if family == AddressFamily::Inet6 && is_unsupported(&cause) => return Ok(true),
            routes => routes.map_err(|cause| KernelError::Read { what: format!("routes of table {table}"), cause })?,
        };
        Ok(routes.iter().any(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => {
                route.header.kind == RouteType::Unreachable
                    && route.header.destination_prefix_length == 0
                    && route.attributes.contains(&RouteAttribute::Table(table.get()))
            }
            _ => false,
        }))
    }

    /// Puts the unreachable defaults of a table there, or takes them out.
    pub(super) fn unreachable_routes(&mut self, table: TableId, there: bool) -> Done {
        self.unreachable_route(AddressFamily::Inet, table, there)?;
        fault::point(format_args!("amid the unreachable routes of table {table}"));
        match self.unreachable_route(AddressFamily::Inet6, table, there) {
            Err(cause) if is_unsupported(&cause) => Ok(()),
            done => done,
        }
    }

    fn unreachable_route(&mut self, family: AddressFamily, table: TableId, there: bool) -> Done {
        let mut route = RouteMessage::default();
        route.header.address_family = family;
        route.header.kind = RouteType::Unreachable;
        route.attributes = vec![RouteAttribute::Table(table.get()), RouteAttribute::Priority(UNREACHABLE_METRIC)];
        if there {
            // systemd-networkd takes out routes that it does not know when it starts or reconfigures, but none that calls itself the kernel's
            // (networkd-route.c `link_mark_routes`); zebra passes over those up to 10.1 (rt_netlink.c `netlink_route_change_read_unicast`).
            route.header.protocol = RouteProtocol::Kernel;
            again(self.change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL))
        } else {
            // Without a protocol it is any (net/ipv4/fib_trie.c `fib_table_delete`, net/ipv6/route.c `ip6_route_del`): earlier versions of ours had
            // their own, 69.
            route.header.protocol = RouteProtocol::Unspec;
            forgive(self.change(RouteNetlinkMessage::DelRoute(route), 0))
        }
    }

    pub(super) fn local_rule(&mut self, last: bool) -> Done {
        let (from, to) = if last { (FIRST, LAST) } else { (LAST, FIRST) };
        self.move_local_rule(AddressFamily::Inet, from, to)?;
        fault::point("amid the local rule's move, IPv4 done");
        match self.move_local_rule(AddressFamily::Inet6, from, to) {
            Err(cause) if is_unsupported(&cause) => Ok(()),
            done => done,
        }
    }

    pub(super) fn tenant_bgp(&mut self, closed: bool) -> Done {
        let mut set = |family| match closed {
            true => again(self.change(RouteNetlinkMessage::NewRule(bgp_rule(family)), NLM_F_CREATE | NLM_F_EXCL)),
            false => forgive(self.change(RouteNetlinkMessage::DelRule(bgp_rule(family)), 0)),
        };
        set(AddressFamily::Inet)?;
        fault::point("amid the BGP rules, IPv4 done");
        match set(AddressFamily::Inet6) {
            Err(cause) if is_unsupported(&cause) => Ok(()),
            done => done,
        }
    }

    /// Adds before it deletes: without any rule for table local the host does not know its own addresses.
    fn move_local_rule(&mut self, family: AddressFamily, from: u32, to: u32) -> Done {
        let present: Vec<u32> = self.rules(family)?.iter().filter(|rule| is_local(rule)).map(preference).collect();
        if !present.contains(&to) {
            let rule = local_rule_at(family, to);
            again(self.change(RouteNetlinkMessage::NewRule(rule), NLM_F_CREATE | NLM_F_EXCL))?;
        }
        for _ in present.iter().filter(|preference| **preference == from) {
            forgive(self.change(RouteNetlinkMessage::DelRule(local_rule_at(family, from)), 0))?;
        }
        Ok(())
    }

    fn rules(&mut self, family: AddressFamily) -> Result<Vec<RuleMessage>, NetlinkError> {
        let mut filter = RuleMessage::default();
        filter.header.family = family;
        let found = self.socket.ask(RouteNetlinkMessage::GetRule(filter), NLM_F_DUMP)?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewRule(rule) => Some(rule),
                _ => None,
            })
            .collect())
    }

    pub(super) fn write_sysctl(&mut self, step: &Step, path: &str, value: &str) -> Result<(), KernelError> {
        if self.elsewhere {
            return Err(KernelError::NotOurs { step: step.to_string() });
        }
        // Opened without O_CREAT or O_TRUNC: a missing file is ENOENT, and one write is one change.
        sysctl_file(path)
            .and_then(|file| OpenOptions::new().write(true).open(file))
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|cause| KernelError::Sysctl { what: step.to_string(), cause })
    }
}

/// IPv6 answers with the refusing route itself (net/ipv6/route.c `inet6_rtm_getroute`).
pub(super) fn leaves_by(route: &RouteMessage) -> Option<Route> {
    let refuses = matches!(route.header.kind, RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit);
    let device = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let via = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(v4)) | RouteAttribute::Via(RouteVia::Inet(v4)) => {
            Some(IpAddr::V4(*v4))
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(v6)) | RouteAttribute::Via(RouteVia::Inet6(v6)) => {
            Some(IpAddr::V6(*v6))
        }
        _ => None,
    });
    (!refuses).then_some(Route { device, via, local: route.header.kind == RouteType::Local })
}

/// The file behind a path relative to /proc/sys; EINVAL for one that would lead out of it.
pub(super) fn sysctl_file(path: &str) -> Result<PathBuf, io::Error> {
    let fine = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if !path.split('/').all(fine) {
        return Err(Errno::INVAL.into());
    }
    Ok(Path::new("/proc/sys").join(path))
}

fn local_rule_at(family: AddressFamily, preference: u32) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.table = LOCAL;
    rule.header.action = RuleAction::ToTable;
    rule.attributes.push(RuleAttribute::Priority(preference));
    rule
}

/// Only on what leaves the host itself (`iif lo`): of what it forwards the kernel need not look at ports (include/net/fib_rules.h,
/// `fib_rule_requires_fldissect`).
fn bgp_rule(family: AddressFamily) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::Prohibit;
    rule.attributes = vec![
        RuleAttribute::Priority(BEFORE_VRFS),
        RuleAttribute::L3MDev(true),
        RuleAttribute::Iifname("lo".to_owned()),
        RuleAttribute::IpProtocol(IpProtocol::Tcp),
        RuleAttribute::SourcePortRange(RulePortRange { start: BGP, end: BGP }),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    rule
}

fn is_bgp_rule(rule: &RuleMessage) -> bool {
    let ours = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
    rule.header.action == RuleAction::Prohibit && preference(rule) == BEFORE_VRFS && rule.attributes.contains(&ours)
}

/// Preference 0 is shown by leaving it out (net/core/fib_rules.c, `fib_nl_fill_rule`).
pub(super) fn preference(rule: &RuleMessage) -> u32 {
    let found = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(preference) => Some(*preference),
        _ => None,
    });
    found.unwrap_or(0)
}

fn is_l3mdev(rule: &RuleMessage) -> bool {
    rule.header.action == RuleAction::ToTable && rule.attributes.contains(&RuleAttribute::L3MDev(true))
}

/// A rule that sends everything to table local; not one that an admin bound to a mark, an address or a device.
pub(super) fn is_local(rule: &RuleMessage) -> bool {
    let header = &rule.header;
    header.action == RuleAction::ToTable
        && header.table == LOCAL
        && (header.dst_len, header.src_len, header.tos) == (0, 0, 0)
        && rule.attributes.iter().all(|attribute| {
            matches!(
                attribute,
                RuleAttribute::Priority(_)
                    | RuleAttribute::Table(_)
                    | RuleAttribute::Protocol(_)
                    | RuleAttribute::SuppressPrefixLen(_)
                    | RuleAttribute::L3MDev(false)
            )
        })
}

/// Done before is done.
fn again(done: Done) -> Done {
    match done {
        Err(cause) if cause.is(Errno::EXIST) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_path_stays_below_proc_sys() {
        assert_eq!(sysctl_file("net/ipv4/ip_forward").unwrap(), Path::new("/proc/sys/net/ipv4/ip_forward"));
        assert!(sysctl_file("net/ipv4/conf/eth0.100/rp_filter").is_ok());
        for path in ["", "/etc/passwd", "net/../../../etc/passwd", "net//ipv4", "net/./ipv4", "net/ipv4/", "a\0b"] {
            assert!(sysctl_file(path).is_err(), "{path:?}");
        }
    }
}
