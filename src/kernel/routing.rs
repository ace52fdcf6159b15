//! Routes and /proc/sys: what is the host's or the VRF's, not a device's.

use super::Kernel;
use super::apply::{Done, forgive};
use super::error::{KernelError, is_unsupported};
use super::observe::family;
use crate::fault;
use crate::model::TableId;
use crate::plan::Step;
use crate::plan::seen::Route;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What the kernel says where there is no way to an address.
const NO_WAY: [Errno; 4] = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];
/// The metric that vrf.rst gives the unreachable default, so that every real one wins.
const UNREACHABLE_METRIC: u32 = 4_278_198_272;

impl Kernel {
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

    /// Has it one of the two?
    pub fn half_unreachable(&mut self, table: TableId) -> Result<bool, KernelError> {
        self.told(format_args!("an unreachable default of table {table}"), |kernel| {
            Ok(kernel.unreachable_of(AddressFamily::Inet, table)?
                || kernel.unreachable_of(AddressFamily::Inet6, table)?)
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

    /// A route of this table that is not one of [`Step::AddUnreachable`], in `ip route`'s words: somebody uses the table.
    pub fn route_of_others(&mut self, table: TableId) -> Result<Option<String>, KernelError> {
        self.told(format_args!("others' routes of table {table}"), |kernel| {
            let mut found = None;
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                let mut filter = RouteMessage::default();
                filter.header.address_family = family;
                filter.attributes.push(RouteAttribute::Table(table.get()));
                let theirs = |message| match message {
                    RouteNetlinkMessage::NewRoute(route) => {
                        let attributes = &route.attributes;
                        let ours = route.header.kind == RouteType::Unreachable
                            && attributes.contains(&RouteAttribute::Priority(UNREACHABLE_METRIC));
                        (attributes.contains(&RouteAttribute::Table(table.get())) && !ours).then_some(route)
                    }
                    _ => None,
                };
                let routes = match kernel.socket.list(RouteNetlinkMessage::GetRoute(filter), theirs) {
                    Err(cause) if cause.is(Errno::NOENT) => continue, // no such table yet
                    Err(cause) if family == AddressFamily::Inet6 && is_unsupported(&cause) => continue,
                    routes => {
                        routes.map_err(|cause| KernelError::Read { what: format!("routes of table {table}"), cause })?
                    }
                };
                found = found.or(routes.into_iter().next());
            }
            let Some(route) = found else { return Ok(None) };
            let way = leaves_by(&route);
            let device = match &way {
                Some(way) => kernel.link_by_index(way.device)?.map(|link| format!(" dev {}", link.name)),
                None => None,
            };
            Ok(Some(words(&route, way.and_then(|way| way.via), &device.unwrap_or_default())))
        })
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

fn words(route: &RouteMessage, via: Option<IpAddr>, device: &str) -> String {
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let to = to.map_or("default".to_owned(), |to| format!("{to}/{}", route.header.destination_prefix_length));
    let kind = match route.header.kind {
        RouteType::Unicast => String::new(),
        other => format!("{other:?} ").to_lowercase(),
    };
    format!("{kind}{to}{}{device}", via.map(|via| format!(" via {via}")).unwrap_or_default())
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
