//! What zebra and bgpd say about VNIs, MACs, neighbours and routes: FRR's JSON in, small values out. Pure.
//!
//! Field names differ between list and detail forms and between versions (`vxlanIf`, `vxlanIntf`, `vxlanInterface`), so each is looked up by
//! all its names, and what we do not need is not looked at. Shapes as FRR 8.4.4 prints them are in tests/golden/speaker/.

use super::Received;
use crate::model::{Mac, Vni, quoted};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Layer 2 or layer 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VniKind {
    /// A segment's VNI.
    L2,
    /// A VRF's VNI for symmetric routing.
    L3,
}

/// A VNI as zebra knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VniInfo {
    /// Which kind.
    pub kind: VniKind,
    /// The VRF that zebra counts it to; `default` for a pure layer-2 tenant.
    pub vrf: String,
    /// Its VXLAN device.
    pub vxlan: Option<String>,
    /// Its bridge (FRR's SVI). An L2VNI without one cannot carry MAC+IP routes.
    pub svi: Option<String>,
    /// An L3VNI's state; none for an L2VNI, which has no such field.
    pub up: Option<bool>,
    /// How many MACs and addresses zebra has in it, this host's and others'.
    pub entries: usize,
    /// The other VTEPs that zebra floods to.
    pub vteps: BTreeSet<IpAddr>,
}

/// A MAC as zebra knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MacState {
    /// Here, and told to bgpd.
    Local {
        /// The port it is behind.
        port: String,
        /// MAC mobility sequence of our own route.
        seq: u32,
        /// `sticky` in the kernel: breaks migration (issue 21473).
        sticky: bool,
        /// Duplicate address detection counted too many moves.
        duplicate: bool,
    },
    /// Here but aged (NUD_STALE): not told to bgpd.
    Inactive {
        /// The port it is behind.
        port: String,
    },
    /// Behind another VTEP; none for an Ethernet segment.
    Remote {
        /// That VTEP.
        vtep: Option<IpAddr>,
    },
    /// Only a neighbour entry mentions it: the FDB entry is missing, or zebra missed it.
    Auto,
    /// Not known.
    Absent,
}

/// A neighbour entry as zebra knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArpState {
    /// Here, and told to bgpd.
    Active {
        /// Its MAC.
        mac: Mac,
    },
    /// Here, but not told to bgpd, because its MAC is not local.
    Inactive {
        /// Its MAC.
        mac: Mac,
    },
    /// Behind another VTEP.
    Remote {
        /// Its MAC.
        mac: Mac,
        /// That VTEP.
        vtep: Option<IpAddr>,
    },
    /// Not known.
    Absent,
}

impl ArpState {
    /// Its MAC, where the address is known.
    pub fn mac(&self) -> Option<Mac> {
        match self {
            ArpState::Active { mac } | ArpState::Inactive { mac } | ArpState::Remote { mac, .. } => Some(*mac),
            ArpState::Absent => None,
        }
    }
}

/// A VRF as zebra (`show vrf vni json`) and bgpd (`show bgp vrfs json`) know it now; for what is configured see `Running`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VrfInfo {
    /// `vni N` below `vrf NAME` in zebra; 0 is none.
    pub vni: u32,
    /// Its VXLAN device and bridge exist and are up.
    pub up: bool,
    /// bgpd has an instance for it, configured or made by itself.
    pub bgp: bool,
    /// The L3VNI that bgpd holds for it; 0 is none. bgpd refuses to remove the instance while this is not 0.
    pub bgp_vni: u32,
}

/// FRR's version: major, minor. Releases order by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first with IPv6 VTEPs. Older ones take such a VXLAN device, and advertise its routes with an IPv4 address of the host
    /// as next hop (<https://github.com/FRRouting/frr/issues/5885>; the release notes of 10.6.0, "BGP IPv6 VTEP support").
    pub const IPV6_VTEP: Version = Version(10, 6);

    /// The first whose mgmtd takes `vrf X / vni N` (zebra/zebra_cli.c).
    pub const MGMTD: Version = Version(10, 0);

    /// Dies of a route in a VRF's table that it hears of before the VRF: from 9.1 on, which reads devices and routes in two threads (605df8d44f), to
    /// before 10.4 (<https://github.com/FRRouting/frr/pull/16614>).
    pub fn mistakes_tables(self) -> bool {
        (Version(9, 1)..Version(10, 4)).contains(&self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// `show version`: "FRRouting 8.4.4 (comp1) on Linux(6.1.0).", "FRRouting 10.7-dev (…"; none where it is not said so.
pub(crate) fn version(text: &str) -> Option<Version> {
    let word = text.lines().find_map(|line| line.strip_prefix("FRRouting "))?.split_whitespace().next()?;
    let mut numbers = word.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some(Version(numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `show vrf`: "vrf red id 5 table 10"; one without a device is "vrf red inactive (configured)".
pub(crate) fn has_vrf(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        line.strip_prefix("vrf ").and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with(" id "))
    })
}

/// Parses an answer. Some commands answer nothing, or a sentence, where others answer `{}`: all of it is `Null` here.
pub(crate) fn json(text: &str) -> Result<Value, String> {
    let text = text.trim();
    match text.as_bytes().first() {
        None => Ok(Value::Null),
        Some(b'{' | b'[') => serde_json::from_str(text).map_err(|error| format!("JSON that does not parse ({error})")),
        // "% VNI 20 doesn't exist", "% BGP instance not found", "No BGP process is configured"
        Some(_) if ["exist", "not found", "No BGP"].iter().any(|words| text.contains(words)) => Ok(Value::Null),
        Some(_) => Err(format!("no JSON but {}", quoted(text))),
    }
}

/// Words, or empty objects, one or more behind one another: of what was asked there is nothing.
pub(crate) fn is_nothing(text: &str) -> bool {
    let bare: String = text.split_whitespace().collect();
    !bare.starts_with('[') && !bare.replace("{}", "").contains('{')
}

/// The addresses of `show interface X` ("  inet 10.1.0.1/24" and "  inet6 fd00:1::1/64", perhaps with more words behind), none where it is
/// not in this VRF ("  vrf: red"): zebra forgets them again when it hears of the move.
pub(crate) fn interface(text: &str, vrf: &str) -> Vec<IpNet> {
    if !text.lines().any(|line| line.trim().strip_prefix("vrf: ").is_some_and(|name| name.trim() == vrf)) {
        return Vec::new();
    }
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter_map(|words| match words[..] {
            ["inet" | "inet6", net, ..] => net.parse().ok(),
            _ => None,
        })
        .collect()
}

fn text<'a>(value: &'a Value, names: &[&str]) -> Option<&'a str> {
    let found = names.iter().find_map(|name| value.get(name)?.as_str())?;
    // zebra's words for nothing there.
    (!matches!(found, "" | "None" | "unknown" | "Unknown" | "n/a")).then_some(found)
}

fn number(value: &Value, name: &str) -> u32 {
    value.get(name).and_then(Value::as_u64).and_then(|n| n.try_into().ok()).unwrap_or(0)
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// `show evpn vni N json`
pub(crate) fn vni(value: &Value) -> Option<VniInfo> {
    let kind = match text(value, &["type"])? {
        "L2" => VniKind::L2,
        "L3" => VniKind::L3,
        _ => return None,
    };
    Some(VniInfo {
        kind,
        vrf: text(value, &["tenantVrf", "vrf"]).unwrap_or("default").to_owned(),
        vxlan: text(value, &["vxlanInterface", "vxlanIntf", "vxlanIf"]).map(str::to_owned),
        svi: text(value, &["sviInterface", "sviIntf"]).map(str::to_owned),
        up: text(value, &["state"]).map(|state| state == "Up"),
        entries: entries(value),
        vteps: vteps(value),
    })
}

/// How many MACs and addresses one VNI has, in either of its forms.
fn entries(value: &Value) -> usize {
    ["numMacs", "numArpNd"].into_iter().map(|name| number(value, name) as usize).sum()
}

/// `show evpn vni json`: those of all VNIs.
pub(crate) fn all_entries(value: &Value) -> usize {
    value.as_object().into_iter().flatten().map(|(_, vni)| entries(vni)).sum()
}

/// One MAC's object, as in `show evpn mac vni N mac M json` below its MAC and in the lists.
fn mac_state(value: &Value) -> MacState {
    let port = || text(value, &["intf"]).unwrap_or_default().to_owned();
    match text(value, &["type"]) {
        Some("local") if flag(value, "localInactive") => MacState::Inactive { port: port() },
        Some("local") => MacState::Local {
            port: port(),
            seq: number(value, "localSequence"),
            sticky: flag(value, "stickyMac") || flag(value, "sticky"),
            duplicate: flag(value, "isDuplicate"),
        },
        Some("remote") => MacState::Remote { vtep: vtep(value) },
        Some("auto") => MacState::Auto,
        _ => MacState::Absent,
    }
}

fn vtep(value: &Value) -> Option<IpAddr> {
    text(value, &["remoteVtep"])?.parse().ok()
}

/// `show evpn mac vni N mac M json`
pub(crate) fn mac(value: &Value, mac: Mac) -> MacState {
    value.get(mac.to_string()).map_or(MacState::Absent, mac_state)
}

/// `show evpn mac vni N mac M json`: the addresses of its neighbour entries (zebra_evpn_mac.c `zebra_evpn_print_mac`); "none" where it has none.
pub(crate) fn addresses_of(value: &Value, mac: Mac) -> Vec<IpAddr> {
    let neighbours = value.get(mac.to_string()).and_then(|value| value.get("neighbors"));
    let lists = ["active", "inactive"].iter().filter_map(|list| neighbours?.get(list)?.as_array()).flatten();
    lists.filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

/// `show evpn mac vni N json`. AUTO MACs are not in it.
pub(crate) fn macs(value: &Value) -> BTreeMap<Mac, MacState> {
    let list = value.get("macs").and_then(Value::as_object).into_iter().flatten();
    list.filter_map(|(mac, value)| Some((mac.parse().ok()?, mac_state(value)))).collect()
}

/// `show evpn arp-cache vni N ip IP json`, and one entry of the list.
pub(crate) fn arp(value: &Value) -> ArpState {
    let Some(mac) = text(value, &["mac"]).and_then(|mac| mac.parse().ok()) else {
        return ArpState::Absent;
    };
    match (text(value, &["type"]), text(value, &["state"])) {
        (Some("local"), Some("active")) => ArpState::Active { mac },
        (Some("local"), _) => ArpState::Inactive { mac },
        (Some("remote"), _) => ArpState::Remote { mac, vtep: vtep(value) },
        _ => ArpState::Absent,
    }
}

/// `show evpn arp-cache vni N json`: the addresses stand beside `numArpNd`.
pub(crate) fn arps(value: &Value) -> BTreeMap<IpAddr, ArpState> {
    let list = value.as_object().into_iter().flatten();
    list.filter_map(|(ip, value)| Some((ip.parse().ok()?, arp(value)))).collect()
}

/// Is one of these paths our own and the best? The detail form says `"local":true` and `"bestpath":{"overall":true}`, the list form
/// `"bestpath":true` and, for our own, `"peerId":"(unspec)"`. A remote path that is best here is another VTEP's MAC.
fn own_best(paths: &Value) -> Option<&Value> {
    match paths {
        Value::Array(list) => list.iter().find_map(own_best),
        path => {
            let best = match path.get("bestpath") {
                Some(Value::Bool(best)) => *best,
                Some(detail) => flag(detail, "overall"),
                None => false,
            };
            let own = flag(path, "local") || path.get("peerId").and_then(Value::as_str) == Some("(unspec)");
            (best && own).then_some(path)
        }
    }
}

/// `show bgp l2vpn evpn route vni N mac M [ip IP] json`
pub(crate) fn route(value: &Value) -> bool {
    value.get("paths").and_then(own_best).is_some()
}

/// `show bgp l2vpn evpn route vni N json`: the type-2 routes of our own that are best.
pub(crate) fn routes(value: &Value) -> BTreeSet<(Mac, Option<IpAddr>)> {
    let own = |(key, value): (&String, &Value)| {
        // [2]:[0]:[48]:[52:54:00:03:82:d8]:[32]:[10.1.0.60], as RFC 7432 §7.2 counts it
        let mut parts = key.strip_prefix("[2]:[")?.strip_suffix(']')?.split("]:[").skip(2);
        let path = own_best(value.get("paths")?)?;
        // FRR 10 keeps addresses in a table of their own, by address alone: 00:00:00:00:00:00 stands there, and the MAC in the path.
        let mac = parts.next()?.parse().ok().or_else(|| text(path, &["mac"])?.parse().ok())?;
        let ip = parts.nth(1).map(|ip| ip.parse().ok());
        let ip = match ip {
            Some(None) => return None,
            Some(ip) => ip,
            None => None,
        };
        Some((mac, ip))
    };
    value.as_object().into_iter().flatten().filter_map(own).collect()
}

/// `show vrf vni json` of zebra and `show bgp vrfs json` of bgpd, for one VRF.
pub(crate) fn vrf(zebra: &Value, bgpd: &Value, name: &str) -> VrfInfo {
    let entry = zebra_vrfs(zebra).find(|vrf| vrf.get("vrf").and_then(Value::as_str) == Some(name));
    let instance = bgpd.get("vrfs").and_then(|vrfs| vrfs.get(name));
    VrfInfo {
        vni: entry.map_or(0, |vrf| number(vrf, "vni")),
        up: entry.and_then(|vrf| text(vrf, &["state"])) == Some("Up"),
        bgp: instance.is_some(),
        bgp_vni: instance.map_or(0, |vrf| number(vrf, "l3vni")),
    }
}

/// The route distinguisher of a VNI, in bgpd's `show bgp l2vpn evpn vni N json`: two numbers or an address and a number.
pub(crate) fn distinguisher(value: &Value) -> Option<&str> {
    text(value, &["rd"]).filter(|rd| rd.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ':'))
}

/// Does a list of all of a VNI's routes lack those of MACs? FRR 10 has them in a table of their own.
pub(crate) fn lacks_macs(value: &Value) -> bool {
    let mut keys = value.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| key.starts_with("[2]:"));
    keys.all(|key| key.contains("[00:00:00:00:00:00]"))
}

/// The router-id of a VRF's instance, none for the default one's, in bgpd's `show bgp vrfs json`. 0.0.0.0 is none.
pub(crate) fn router_id(bgpd: &Value, vrf: Option<&str>) -> Option<Ipv4Addr> {
    let instance = bgpd.get("vrfs")?.get(vrf.unwrap_or("default"))?;
    text(instance, &["routerId"])?.parse().ok().filter(|id: &Ipv4Addr| !id.is_unspecified())
}

/// An EVPN session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address, or the interface of an unnumbered one.
    pub name: String,
    /// bgpd's word: `Established`, `Active`, `Idle (Admin)` …
    pub state: String,
    /// Routes of this family that came from it, and that went to it.
    pub received: u32,
    /// See `received`.
    pub sent: u32,
}

impl Peer {
    /// Do routes flow?
    pub fn is_up(&self) -> bool {
        self.state == "Established"
    }

    /// `neighbor X shutdown`
    pub fn is_shut(&self) -> bool {
        self.state == "Idle (Admin)"
    }
}

/// What bgpd puts on a VNI's routes, and what it takes from others'.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Route distinguisher.
    pub rd: Option<String>,
    /// Route targets that it takes.
    pub import: Vec<String>,
    /// Route targets that it gives.
    pub export: Vec<String>,
}

/// A path of a type-2 route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Who announced it: unique per VTEP and VNI.
    pub rd: String,
    /// The MAC.
    pub mac: Mac,
    /// The address, of a MAC+IP route.
    pub ip: Option<IpAddr>,
    /// This host's own.
    pub own: bool,
    /// The one in use.
    pub best: bool,
    /// The next hop: the VTEP that has the guest.
    pub vtep: Option<IpAddr>,
    /// Its route targets.
    pub targets: Vec<String>,
    /// MAC mobility sequence.
    pub seq: u32,
    /// The peer that it came from.
    pub from: String,
    /// With the router's MAC: VTEPs may route to it through the L3VNI, and not only bridge (RFC 9135 §5.1).
    pub routed: bool,
}

/// A route of this host in bgpd's own table, with who got it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced {
    /// Our own path, if it is there.
    pub path: Option<Path>,
    /// The peers that it went to.
    pub to: Vec<String>,
}

/// `show bgp l2vpn evpn summary json`, `show bgp ipv4 unicast summary json`
pub(crate) fn peers(value: &Value) -> Vec<Peer> {
    let list = value.get("peers").and_then(Value::as_object).into_iter().flatten();
    list.map(|(name, peer)| Peer {
        name: name.clone(),
        state: text(peer, &["state"]).unwrap_or("no state").to_owned(),
        received: number(peer, "pfxRcd"),
        sent: number(peer, "pfxSnt"),
    })
    .collect()
}

/// `show bgp l2vpn evpn vni N json`; none of a VNI that bgpd does not have.
pub(crate) fn targets(value: &Value) -> Option<Targets> {
    let list = |name: &str| -> Vec<String> {
        let list = value.get(name).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|target| target.as_str().map(str::to_owned)).collect()
    };
    let rd = distinguisher(value).map(str::to_owned);
    (rd.is_some()).then(|| Targets { rd, import: list("importRts"), export: list("exportRts") })
}

/// A path's extended communities, as bgpd writes them in one line: `RT:64512:20 ET:8 MM:1`.
fn communities(path: &Value) -> &str {
    path.get("extendedCommunity").and_then(|c| text(c, &["string"])).unwrap_or_default()
}

fn route_targets(path: &Value) -> impl Iterator<Item = String> {
    communities(path).split_whitespace().filter_map(|word| word.strip_prefix("RT:")).map(str::to_owned)
}

/// One path, in the list's form or the detailed one; `known` is what stands above it.
fn path(value: &Value, rd: &str, known: (Option<Mac>, Option<IpAddr>)) -> Option<Path> {
    let community = communities(value);
    let nexthop = value.get("nexthops").and_then(Value::as_array).and_then(|hops| text(hops.first()?, &["ip"]));
    let best = match value.get("bestpath") {
        Some(Value::Bool(best)) => *best,
        Some(detail) => flag(detail, "overall"),
        None => false,
    };
    let peer = value.get("peer").and_then(|peer| text(peer, &["peerId"]));
    let from = peer.or_else(|| text(value, &["peerId"])).unwrap_or_default();
    Some(Path {
        rd: rd.to_owned(),
        mac: text(value, &["mac"]).and_then(|mac| mac.parse().ok()).or(known.0)?,
        ip: text(value, &["ip"]).and_then(|ip| ip.parse().ok()).or(known.1),
        own: flag(value, "local") || matches!(from, "(unspec)" | "0.0.0.0" | "::"),
        best,
        vtep: nexthop.and_then(|ip| ip.parse().ok()),
        targets: route_targets(value).collect(),
        seq: community.split_whitespace().find_map(|c| c.strip_prefix("MM:")?.parse().ok()).unwrap_or(0),
        from: from.to_owned(),
        routed: community.split_whitespace().any(|c| c.starts_with("Rmac:")),
    })
}

fn paths_in<'a>(paths: &'a Value, found: &mut Vec<&'a Value>) {
    match paths {
        Value::Array(list) => list.iter().for_each(|inner| paths_in(inner, found)),
        path => found.push(path),
    }
}

/// The paths of one route: `show bgp l2vpn evpn route rd RD mac M [ip IP] json`, with the peers that it went to.
pub(crate) fn announced(value: &Value, rd: &str) -> Announced {
    let known =
        (text(value, &["mac"]).and_then(|mac| mac.parse().ok()), text(value, &["ip"]).and_then(|ip| ip.parse().ok()));
    // The paths stand below the route's own name here: "[2]:[0]:[48]:[52:54:00:03:82:d8]".
    let routes = value.as_object().into_iter().flatten();
    let mut found = Vec::new();
    routes
        .filter(|(key, _)| key.starts_with("[2]:") || *key == "paths")
        .for_each(|(_, paths)| paths_in(paths, &mut found));
    let paths = found.into_iter().filter_map(|value| path(value, rd, known));
    let to = value.get("advertisedTo").and_then(Value::as_object).into_iter().flatten();
    Announced { path: paths.into_iter().find(|p| p.own), to: to.map(|(name, _)| name.clone()).collect() }
}

/// `show bgp l2vpn evpn route type macip json`, `… route rd all mac M [ip I] json`: the paths of all VTEPs to this MAC or address, by route distinguisher.
pub(crate) fn received(value: &Value, wanted: impl Fn(Mac, Option<IpAddr>) -> bool) -> Vec<Path> {
    let mut found = Vec::new();
    for (rd, routes) in value.as_object().into_iter().flatten() {
        for (key, route) in routes.as_object().into_iter().flatten() {
            // [2]:[0]:[48]:[52:54:00:03:82:d8]:[32]:[10.1.0.60]
            let Some(parts) = key.strip_prefix("[2]:[").and_then(|k| k.strip_suffix(']')) else { continue };
            let mut parts = parts.split("]:[").skip(2);
            let known = (parts.next().and_then(|mac| mac.parse().ok()), parts.nth(1).and_then(|ip| ip.parse().ok()));
            let mut list = Vec::new();
            paths_in(route.get("paths").unwrap_or(&Value::Null), &mut list);
            let paths = list.into_iter().filter_map(|value| path(value, rd, known));
            found.extend(paths.filter(|p| wanted(p.mac, p.ip)));
        }
    }
    found
}

fn zebra_vrfs(zebra: &Value) -> impl Iterator<Item = &Value> {
    zebra.get("vrfs").and_then(Value::as_array).into_iter().flatten()
}

/// The name of the VRF that zebra has this L3VNI for.
pub(crate) fn vrf_of(zebra: &Value, vni: Vni) -> Option<String> {
    let entry = zebra_vrfs(zebra).find(|vrf| number(vrf, "vni") == vni.get())?;
    Some(text(entry, &["vrf"])?.to_owned())
}

/// `show evpn vni N json`: the other VTEPs, `numRemoteVteps` up to FRR 8 (a list in spite of its name), `remoteVteps` with objects later.
pub(crate) fn vteps(value: &Value) -> BTreeSet<IpAddr> {
    let lists = ["remoteVteps", "numRemoteVteps"].iter().filter_map(|name| value.get(name)?.as_array()).flatten();
    lists.filter_map(|vtep| vtep.as_str().or_else(|| text(vtep, &["ip"]))?.parse().ok()).collect()
}

/// `show bgp l2vpn evpn route type T json`: below each distinguisher the routes, and of each the paths that came from a peer.
pub(crate) fn received_targets(value: &Value) -> BTreeSet<Received> {
    let routes = value.as_object().into_iter().flatten().filter_map(|(_, of_rd)| of_rd.as_object()).flatten();
    let mut paths = Vec::new();
    routes.filter_map(|(_, route)| route.get("paths")).for_each(|value| paths_in(value, &mut paths));
    paths.retain(|path| path.get("peerId").and_then(Value::as_str) != Some("(unspec)"));
    let received = |path: &&Value| {
        let targets: BTreeSet<String> = route_targets(path).collect();
        let hops = path.get("nexthops").and_then(Value::as_array).into_iter().flatten();
        let vteps = hops.filter_map(|hop| text(hop, &["ip"])?.parse().ok());
        vteps.map(|vtep| Received { vtep, targets: targets.clone() }).collect::<Vec<_>>()
    };
    paths.iter().flat_map(received).collect()
}

/// `show evpn mac vni N duplicate json`: those that moved too often.
pub(crate) fn duplicate_macs(value: &Value) -> Vec<Mac> {
    let list = value.get("macs").and_then(Value::as_object).into_iter().flatten();
    list.filter(|(_, value)| flag(value, "isDuplicate")).filter_map(|(mac, _)| mac.parse().ok()).collect()
}

/// `show evpn arp-cache vni N duplicate json`: likewise.
pub(crate) fn duplicate_ips(value: &Value) -> Vec<IpAddr> {
    let list = value.as_object().into_iter().flatten();
    list.filter(|(_, value)| flag(value, "isDuplicate")).filter_map(|(ip, _)| ip.parse().ok()).collect()
}

#[cfg(test)]
#[path = "show_test.rs"]
mod test;
