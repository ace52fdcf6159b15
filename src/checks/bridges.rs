//! Bridges and their VXLAN ports: what differs from what `sync` would make of them, and what `sync` leaves alone. Ghosts. The anycast gateway's other owners.

use super::{Facts, Finding, HostFacts, Severity};
use crate::config::{Network, PortSecurity};
use crate::engine::{Known, bridges_at_risk};
use crate::model::{IfName, Mac, NetName, Vni};
use crate::plan::foreign::Foreign;
use crate::plan::network::router_mac;
use crate::plan::seen::{Link, LinkKind, World};
use crate::plan::{Hears, Step};
use crate::register::NetworkRecord;
use crate::snoop::{Question, Whom, who_has};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// So long answers to the gateway's probe may take; a VTEP is some milliseconds away.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many gateways are asked for, all at once.
const GATEWAYS: usize = 64;
/// So many of one kind are told one by one.
const LINES: usize = 10;

/// Where libvirt has what its dnsmasq runs with (its src/network/bridge_driver.c).
const DNSMASQ: &str = "/var/lib/libvirt/dnsmasq";

/// Another owner of a gateway's address, or another DHCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    network: NetName,
    whom: Whom,
    mac: Mac,
}

pub struct BridgeFacts {
    /// Bridges whose MAC was set by somebody (`addr_assign_type` 3, NET_ADDR_SET), or goes with the ports.
    fixed: BTreeMap<IfName, bool>,
    /// Who answered for the gateways, and as DHCP server beside ours; why they could not be asked for.
    owners: Result<Vec<Owner>, String>,
    /// Bridges that are there by the name of a bridge that a network of libvirt's would make.
    at_risk: Vec<(String, IfName)>,
}

pub fn observe(host: &HostFacts) -> BridgeFacts {
    let of_networks = host.networks.iter().map(|record| &record.network);
    let bridges = of_networks.clone().flat_map(|n| [Some(n.bridge.clone()), l3_bridge(n)]).flatten();
    let links: BTreeSet<IfName> = bridges.collect();
    let fixed = links.iter().filter_map(|name| {
        let text = attribute(host.world.link(name)?, "addr_assign_type")?;
        Some((name.clone(), text == "3"))
    });
    BridgeFacts { fixed: fixed.collect(), owners: owners(host), at_risk: bridges_at_risk(&host.world) }
}

fn l3_bridge(network: &Network) -> Option<IfName> {
    network.vrf.as_ref()?.l3_bridge().ok()?
}

/// What sysfs says of a device; nothing where it shows another network namespace's.
fn attribute(link: &Link, name: &str) -> Option<String> {
    let dir = Path::new("/sys/class/net").join(link.name.as_str());
    let read = |name: &str| Some(std::fs::read_to_string(dir.join(name)).ok()?.trim().to_owned());
    (read("ifindex")? == link.index.to_string()).then(|| read(name)).flatten()
}

fn owners(host: &HostFacts) -> Result<Vec<Owner>, String> {
    let mut asked = Vec::new();
    for record in &host.networks {
        let network = &record.network;
        let Some(vxlan) = host.world.link(&network.vni.device()).filter(|l| l.up && l.master.is_some()) else {
            continue;
        };
        let v4 = network.gateway.iter().filter_map(|g| match g.addr() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let Some(vtep) = record.vtep else { continue };
        let whom = v4.map(Whom::Owner).chain(leases(&network.name).then_some(Whom::DhcpServer));
        asked.extend(whom.map(|whom| (&network.name, Question { index: vxlan.index, from: router_mac(vtep), whom })));
    }
    asked.truncate(GATEWAYS);
    let questions: Vec<Question> = asked.iter().map(|(_, question)| *question).collect();
    let answers = who_has(&questions, PATIENCE).map_err(|error| error.to_string())?;
    let owner = |(at, mac): (usize, Mac)| Owner { network: asked[at].0.clone(), whom: asked[at].1.whom, mac };
    Ok(answers.into_iter().map(owner).collect())
}

/// Does libvirt's dnsmasq give out IPv4 addresses here as it likes? Those of `<host>` alone are the same wherever they are given.
fn leases(network: &NetName) -> bool {
    ranges(network).iter().any(|range| !range.contains(':') && !range.contains(",static"))
}

/// Of which libvirt's dnsmasq gives out addresses on this network: `10.1.0.100,10.1.0.199,255.255.255.0`, `10.1.0.0,static`. One that only advertises a prefix
/// (`fd00:1::1,ra-only`) gives out none.
pub fn ranges(network: &NetName) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{DNSMASQ}/{network}.conf")).unwrap_or_default();
    let ranges = text.lines().filter_map(|line| line.strip_prefix("dhcp-range="));
    ranges.filter(|range| !range.contains(",ra-only")).map(str::to_owned).collect()
}

pub fn check(facts: &Facts) -> Vec<Finding> {
    let (host, seen) = (&facts.host, &facts.bridges);
    let mut found = Vec::new();
    for record in &host.networks {
        let network = &record.network;
        let Some(bridge) = host.world.link(&network.bridge) else { continue };
        found.extend(vlan_aware(bridge));
        found.extend(Known::of(&host.guests).foreign(&host.world, network).iter().map(|port| foreign(network, port)));
        let macs = bridge_macs(host, seen, record, bridge);
        found.extend(other_owners(seen, network, bridge.mac.filter(|_| macs.is_empty())));
        found.extend(macs);
    }
    if let Err(why) = &seen.owners {
        found.push(Finding::not_checked("gateway-mac", "the gateways", why.clone()));
    }
    found.extend(seen.at_risk.iter().map(at_risk));
    found.extend(isolated(host));
    let of = |check: &str| found.iter().filter(|f| f.check == check).map(|f| f.object.clone()).collect::<Vec<_>>();
    let (with_other_mac, vlan_aware) = (of("bridge-mac"), of("vlan-aware"));
    found.extend(drift(host, &with_other_mac));
    found.extend(troubles(facts, &vlan_aware));
    found
}

fn vlan_aware(bridge: &Link) -> Option<Finding> {
    let is_aware = matches!(bridge.kind, LinkKind::Bridge { vlan_filtering: true, .. });
    let evidence = "is VLAN-aware: entries without a VLAN are not what it forwards by";
    let finding = Finding::problem("vlan-aware", &bridge.name, evidence);
    is_aware.then(|| finding.run(format!("ip link set {} type bridge vlan_filtering 0", bridge.name)))
}

/// A port that no hook told of. It is a problem where nobody may send what is not the sender's own.
pub(crate) fn foreign(network: &Network, port: &Foreign) -> Finding {
    let (severity, held) = match (network.security(), port.held) {
        (PortSecurity::Off, _) => (Severity::Hint, ": no hook told of it"),
        (_, true) => (Severity::Problem, ": port security holds it"),
        (_, false) => (Severity::Problem, ", and is not held yet ('evpn-hook sync' does that)"),
    };
    let evidence = format!("is on bridge {} and no guest's{held}", network.bridge);
    Finding::new(severity, "foreign-port", &port.name, evidence).by(port.mend(network))
}

/// Who else answers for what is this network's own; for its gateway only where the bridge's MAC is right.
fn other_owners(seen: &BridgeFacts, network: &Network, mac: Option<Mac>) -> Vec<Finding> {
    let owners = seen.owners.iter().flatten().filter(|owner| owner.network == network.name);
    let finding = |owner: &Owner| match owner.whom {
        Whom::DhcpServer => {
            let evidence = "this host's dnsmasq gives out addresses of a range, and so does a DHCP server of another host on the same segment: two guests may get one address";
            let words = "keep <dhcp><range> on one host of the network, which serves all of them, or give each host a range of its own ('virsh net-edit')";
            Some(Finding::warning("dhcp-server", &network.name, evidence).by(words))
        }
        Whom::Owner(ip) => {
            let here = mac.filter(|mac| *mac != owner.mac)?;
            let evidence =
                format!("somebody else answers for the gateway {ip} with MAC {}, which is {here} here", owner.mac);
            let words = "give the network the same MAC on every host (<mac address='…'/> in its XML, mac in config.toml), and no guest its address";
            Some(Finding::problem("gateway-mac", &network.name, evidence).by(words))
        }
    };
    owners.filter_map(finding).collect()
}

fn at_risk((network, bridge): &(String, IfName)) -> Finding {
    let evidence = format!(
        "libvirt's network {network} is down and names it as the bridge that it makes: where 'virsh net-start {network}' fails, for whatever reason, libvirt 10.7 and newer deletes the bridge of that name"
    );
    Finding::problem("bridge-at-risk", bridge, evidence).by(format!(
        "give network {network} another <bridge name=>, or <forward mode='bridge'/> if it is to use that one ('virsh net-edit {network}')"
    ))
}

/// What a `sync` could not mend, but for what has a check of its own.
fn troubles(facts: &Facts, vlan_aware: &[String]) -> Vec<Finding> {
    let silent = facts.speaker.as_ref().and_then(|said| said.unheard.as_ref());
    let of_aware = |text: &str| {
        let networks = facts.host.networks.iter().map(|record| &record.network);
        let mut aware = networks.filter(|network| vlan_aware.iter().any(|name| name == network.bridge.as_str()));
        aware.any(|network| text.starts_with(&format!("network {}: ", network.name)))
    };
    // `vtep-address` and `underlay-mtu` have these.
    let others = ["no VTEP address", ": this host's VTEP is ", ": the underlay leaves no more than "];
    let is_told = |text: &String| {
        silent.is_some_and(|unheard| text.contains(unheard.why()))
            || of_aware(text)
            || others.iter().any(|other| text.contains(other))
    };
    let words = "what the line says; 'evpn-hook sync' tells whether it is done";
    let rest = facts.host.troubles.iter().filter(|text| !is_told(text));
    rest.map(|text| Finding::problem("sync", "this host", text.as_str()).by(words)).collect()
}

/// Ports that pass nothing to each other. It is a flag of each bridge's own, and a VXLAN port stands for all guests of all other hosts: where a guest's port is
/// isolated that is to be, too, and else nobody has asked for it.
fn isolated(host: &HostFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let is_isolated = |link: &&Link| link.port.isolated == Some(true);
    for network in host.networks.iter().map(|record| &record.network) {
        let asked = host.world.link(&network.bridge).is_some_and(|bridge| {
            let mut ports = host.world.slaves(bridge.index).filter(is_isolated);
            ports.any(|link| !matches!(link.kind, LinkKind::Vxlan { .. }))
        });
        let segment = (!asked).then_some(network.vni);
        let vnis = segment.into_iter().chain(network.vrf.as_ref().and_then(|vrf| vrf.vni));
        for dev in vnis.map(Vni::device).filter(|dev| host.world.link(dev).as_ref().is_some_and(is_isolated)) {
            let evidence = "the VXLAN port is isolated, and no guest's port is";
            let finding = Finding::problem("vxlan-isolated", &dev, evidence);
            found.push(finding.run(format!("bridge link set dev {dev} isolated off")));
        }
    }
    found.sort_by(|a, b| a.object.cmp(&b.object));
    found.dedup_by(|a, b| a.object == b.object);
    found
}

fn bridge_macs(host: &HostFacts, seen: &BridgeFacts, record: &NetworkRecord, bridge: &Link) -> Vec<Finding> {
    let (network, vtep) = (&record.network, record.vtep);
    let mut found = Vec::new();
    let mut check = |link: &Link, wanted: Option<Mac>, whose: &str| {
        let Some(mac) = wanted.or(link.mac) else { return };
        let evidence = match link.mac {
            Some(other) if other != mac => format!("has MAC {other}, and {whose} is {mac}"),
            _ if seen.fixed.get(&link.name) == Some(&false) => {
                "has no MAC of its own: it takes the lowest of its ports', and changes it as they come and go"
                    .to_owned()
            }
            _ => return,
        };
        let finding = Finding::problem("bridge-mac", &link.name, evidence);
        found.push(finding.run(format!("ip link set {} address {mac}; evpn-hook sync", link.name)));
    };
    check(bridge, network.mac, "the network's");
    // Of foreign make it may have any, if only it keeps it.
    if let Some(l3) = l3_bridge(network).and_then(|name| host.world.link(&name)) {
        check(l3, l3.mac.filter(|_| l3.ours).and(vtep).map(router_mac), "this VTEP's router MAC");
    }
    found
}

const LEARNS: &str =
    "learns MACs from the tunnel (learning on): a frame that comes late moves a guest away from its own host";
const FLOODS: &str = "floods every ARP and ND question to all VTEPs (neigh_suppress off)";
const ISOLATED: &str = "a guest's port is isolated, and the VXLAN port is not: guests of other hosts reach it";
const PVID: &str =
    "gives its ports a VLAN (vlan_default_pvid): each entry gets a copy there, and FRR withdraws the MAC with the copy";
const STP: &str =
    "runs STP: each new port is deaf for 4 s or more, and guests and other hosts may have a part in the tree";
const HEARS: &str = "hands its guests' packets to this host: a pure layer-2 tenant reaches the host's services, and the underlay through it";
const LINK_LOCAL: &str =
    "lets guests connect to services of this host by its link-local address: FRR's bgpd listens in each VRF";
const STRICT: &str =
    "rp_filter is not 2 (loose): what comes back by another way than it went is dropped where it is strict";
const ARP: &str = "arp_ignore is neither 1 nor 2: it answers ARP also for addresses of other networks";

/// What is wrong where a `sync` would take this step; nothing where that is no fault of its own.
pub(crate) fn of_step(world: &World, step: &Step) -> Vec<Finding> {
    let one = |check, object: &dyn Display, evidence| vec![Finding::problem(check, object, evidence)];
    match step {
        Step::SetVxlanPort { dev } => {
            let flags = world.link(dev).map(|link| link.port).unwrap_or_default();
            let learns = (flags.learning == Some(true)).then(|| Finding::problem("vxlan-learning", dev, LEARNS));
            let floods = flags.neigh_suppress == Some(false);
            let floods = floods.then(|| Finding::problem("vxlan-neigh-suppress", dev, FLOODS));
            learns.into_iter().chain(floods).collect()
        }
        Step::IsolateTunnel { dev } => one("port-isolated", dev, ISOLATED),
        Step::ClearDefaultPvid { bridge } => one("default-pvid", bridge, PVID),
        Step::SetStp { bridge, on: false } => one("stp", bridge, STP),
        Step::Hear { dev, hears: Hears::Nothing } => one("layer-2-host", dev, HEARS),
        Step::Hear { dev, hears: Hears::NoLinkLocalService } => one("tenant-bgp", dev, LINK_LOCAL),
        Step::Sysctl { path, .. } => match path.rsplit('/').collect::<Vec<_>>()[..] {
            ["rp_filter", ref dev, ..] => one("rp-filter", dev, STRICT),
            ["arp_ignore", ref dev, ..] => one("arp-ignore", dev, ARP),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// What a `sync` would do, by the trap that it is; the host's and the speaker's part are told there.
/// A bridge that gets another MAC loses its neighbours, permanent ones as well (net/core/neighbour.c `neigh_changeaddr`): that is the MAC's fault and mended with it.
fn drift(host: &HostFacts, with_other_mac: &[String]) -> Vec<Finding> {
    let (mut found, mut ghosts, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for step in &host.drift {
        match step {
            Step::SetMac { dev, .. } if with_other_mac.iter().any(|name| name == dev.as_str()) => {}
            Step::AddNeigh { bridge, .. } if with_other_mac.iter().any(|name| name == bridge.as_str()) => {}
            Step::DelNeigh { bridge, ip } => ghosts.push((bridge, ip)),
            Step::Rules { .. } | Step::AwaitVrf { .. } | Step::AwaitPort { .. } | Step::SpeakerAddVrf { .. } => {}
            Step::Sysctl { path, .. } if path == "net/ipv4/ip_forward" || path == "net/ipv6/conf/all/forwarding" => {}
            step => {
                let faults = of_step(&host.world, step);
                rest.extend(faults.is_empty().then_some(step));
                found.extend(faults.into_iter().map(Finding::sync));
            }
        }
    }
    for (bridge, ip) in ghosts.iter().take(LINES) {
        let evidence = format!(
            "neighbour {ip} is evpn-hook's and no guest's: the fabric is told of it as soon as its MAC is here"
        );
        found.push(Finding::problem("ghost", bridge, evidence).sync());
    }
    if ghosts.len() > LINES {
        let evidence = format!("{} more such neighbours", ghosts.len() - LINES);
        found.push(Finding::problem("ghost", "this host", evidence).sync());
    }
    if !rest.is_empty() {
        let mut words: Vec<String> = rest.iter().take(LINES).map(|step| step.to_string()).collect();
        if rest.len() > LINES {
            words.push(format!("{} more", rest.len() - LINES));
        }
        found.push(Finding::problem("drift", "this host", format!("missing: {}", words.join("; "))).sync());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Fix;
    use super::super::fixture::{GATEWAY, facts, links, world};
    use super::super::speaker::SpeakerFacts;
    use super::super::unheard::Unheard;
    use super::*;
    use crate::plan::seen::PortFlags;

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    impl BridgeFacts {
        pub(in crate::checks) fn healthy() -> BridgeFacts {
            let fixed = [(name("red-l2"), true), (name("red-l3"), true)].into();
            BridgeFacts { fixed, owners: Ok(Vec::new()), at_risk: Vec::new() }
        }
    }

    #[track_caller]
    fn finds(change: impl FnOnce(&mut HostFacts, &mut BridgeFacts)) -> Vec<Finding> {
        let mut facts = facts();
        change(&mut facts.host, &mut facts.bridges);
        check(&facts)
    }

    /// Changes one device of the fixture.
    fn with(host: &mut HostFacts, dev: &str, change: impl FnOnce(&mut Link)) {
        let mut links = links();
        change(links.iter_mut().find(|link| link.name.as_str() == dev).unwrap());
        host.world = world(links);
    }

    #[track_caller]
    fn only(found: &[Finding]) -> (&'static str, &str, &str) {
        assert_eq!(found.len(), 1, "{found:#?}");
        (found[0].check, &found[0].object, &found[0].mend)
    }

    #[test]
    fn a_bridge_that_libvirt_may_delete() {
        let at_risk = finds(|_, seen| seen.at_risk = vec![("lan".to_owned(), name("br0"))]);
        let mend = "give network lan another <bridge name=>, or <forward mode='bridge'/> if it is to use that one ('virsh net-edit lan')";
        assert_eq!(only(&at_risk), ("bridge-at-risk", "br0", mend));
    }

    #[test]
    fn a_bridges_mac_is_told_once() {
        let other = finds(|host, _| {
            with(host, "red-l2", |red| red.mac = "00:00:00:11:11:99".parse().ok());
            host.drift = vec![Step::SetMac { dev: name("red-l2"), mac: GATEWAY.parse().unwrap() }];
        });
        assert_eq!(only(&other).0, "bridge-mac");
    }

    #[test]
    fn bridges_as_they_should_be() {
        assert_eq!(finds(|_, _| {}), []);
        assert_eq!(finds(|_, seen| seen.fixed.clear()), [], "nobody says whether it is fixed");
    }

    #[test]
    fn a_bridges_mac() {
        let right = "ip link set red-l2 address 00:00:00:11:11:10; evpn-hook sync";
        let other = finds(|host, _| with(host, "red-l2", |link| link.mac = "00:00:00:11:11:99".parse().ok()));
        assert_eq!(only(&other), ("bridge-mac", "red-l2", right));
        let flushed = finds(|host, _| {
            with(host, "red-l2", |link| link.mac = "00:00:00:11:11:99".parse().ok());
            let (bridge, mac) = (name("red-l2"), "52:54:00:03:82:d8".parse().unwrap());
            host.drift.push(Step::AddNeigh { bridge, ip: "10.1.0.60".parse().unwrap(), mac, router: false });
        });
        assert_eq!(only(&flushed).0, "bridge-mac", "the kernel has flushed the neighbours");
        let loose = finds(|_, seen| _ = seen.fixed.insert(name("red-l2"), false));
        assert_eq!(only(&loose), ("bridge-mac", "red-l2", right));
        let router = finds(|host, _| with(host, "red-l3", |link| link.mac = "00:00:00:11:11:99".parse().ok()));
        assert_eq!(
            only(&router),
            ("bridge-mac", "red-l3", "ip link set red-l3 address 02:45:0a:00:00:01; evpn-hook sync")
        );
        let foreign = finds(|host, _| {
            with(host, "red-l3", |link| (link.mac, link.ours) = ("00:00:00:11:11:99".parse().ok(), false))
        });
        assert_eq!(foreign, []);
    }

    #[test]
    fn a_vlan_aware_bridge_is_told_once() {
        let found = finds(|host, _| {
            with(host, "red-l2", |link| {
                link.kind = LinkKind::Bridge { vlan_filtering: true, default_pvid: 0, stp: false }
            });
            host.troubles.push("network red: bridge red-l2 is VLAN-aware: take …".into());
        });
        assert_eq!(only(&found), ("vlan-aware", "red-l2", "ip link set red-l2 type bridge vlan_filtering 0"));
    }

    #[test]
    fn the_vxlan_ports_flags() {
        let flags = |learning, suppress| {
            finds(|host, _| {
                host.drift.push(Step::SetVxlanPort { dev: name("vxlan20") });
                let port =
                    PortFlags { learning: Some(learning), neigh_suppress: Some(suppress), ..PortFlags::default() };
                with(host, "vxlan20", |link| link.port = port);
            })
        };
        assert_eq!(only(&flags(true, true)), ("vxlan-learning", "vxlan20", "evpn-hook sync"));
        assert_eq!(only(&flags(false, false)), ("vxlan-neigh-suppress", "vxlan20", "evpn-hook sync"));
        let isolated = |dev: &str| finds(|host, _| with(host, dev, |link| link.port.isolated = Some(true)));
        let off = "bridge link set dev vxlan20 isolated off";
        assert_eq!(only(&isolated("vxlan20")), ("vxlan-isolated", "vxlan20", off));
        assert_eq!(only(&isolated("vxlan10")).0, "vxlan-isolated", "the L3VNI's");
        let half = finds(|host, _| host.drift.push(Step::IsolateTunnel { dev: name("vxlan20") }));
        assert_eq!(only(&half), ("port-isolated", "vxlan20", "evpn-hook sync"));
        let both = finds(|host, _| {
            let mut links = links();
            let meant = |link: &&mut Link| ["tap0", "vxlan20"].contains(&link.name.as_str());
            links.iter_mut().filter(meant).for_each(|link| link.port.isolated = Some(true));
            host.world = world(links);
        });
        assert_eq!(both, [], "as it is to be");
        assert_eq!(isolated("uplink"), [], "no port of ours");
    }

    #[test]
    fn what_sync_would_do_has_its_name() {
        let step = |step: Step| finds(|host, _| host.drift.push(step));
        let sysctl = |path: &str| Step::Sysctl { path: path.into(), value: "2".into() };
        assert_eq!(only(&step(sysctl("net/ipv4/conf/red-l2/rp_filter"))), ("rp-filter", "red-l2", "evpn-hook sync"));
        assert_eq!(only(&step(sysctl("net/ipv4/conf/red-l2/arp_ignore"))), ("arp-ignore", "red-l2", "evpn-hook sync"));
        let hears = step(Step::Hear { dev: name("flat-l2"), hears: Hears::Nothing });
        assert_eq!(only(&hears), ("layer-2-host", "flat-l2", "evpn-hook sync"));
        assert_eq!(only(&step(Step::ClearDefaultPvid { bridge: name("red-l2") })).0, "default-pvid");
        assert_eq!(only(&step(Step::SetStp { bridge: name("red-l2"), on: false })).0, "stp");
        let ghost = Step::DelNeigh { bridge: name("red-l2"), ip: "10.1.0.99".parse().unwrap() };
        let found = step(ghost.clone());
        assert_eq!((only(&found).0, &found[0].fix), ("ghost", &Some(Fix::Sync)));
        assert_eq!(only(&step(Step::SetUp { dev: name("vxlan20"), up: true })).0, "drift");
        // Told by host and speaker.
        assert_eq!(step(sysctl("net/ipv4/ip_forward")), []);
        assert_eq!(step(Step::Rules { order: crate::plan::rules::Order::VrfsFirst { bgp_closed: true } }), []);
        let many = finds(|host, _| host.drift = vec![ghost; 25]);
        assert_eq!((many.len(), many[10].evidence.as_str()), (11, "15 more such neighbours"));
    }

    #[test]
    fn what_sync_cannot_mend() {
        let found = finds(|host, _| host.troubles.push("network red: VNI 20 is already used".into()));
        assert_eq!(only(&found).0, "sync");
        let unheard = Some(Unheard::Silent("bgpd is not running".into()));
        let mut facts = Facts { speaker: Some(SpeakerFacts { unheard, ..SpeakerFacts::default() }), ..facts() };
        facts.host.troubles.push("bgpd is not running (/run/frr/bgpd.vty: …)".into());
        assert_eq!(check(&facts), [], "the speaker's part tells it");
    }

    #[test]
    fn another_owner_of_the_gateway() {
        let owned = |mac: &str| {
            let mac: Mac = mac.parse().unwrap();
            finds(|_, seen| {
                seen.owners =
                    Ok(vec![Owner { network: "red".parse().unwrap(), whom: Whom::Owner([10, 1, 0, 1].into()), mac }])
            })
        };
        assert_eq!(owned(GATEWAY), [], "it is an anycast gateway");
        let found = owned("00:00:00:11:11:99");
        assert_eq!(only(&found).0, "gateway-mac");
        assert!(found[0].evidence.contains("10.1.0.1 with MAC 00:00:00:11:11:99, which is 00:00:00:11:11:10 here"));
        let mine = finds(|host, seen| {
            with(host, "red-l2", |link| link.mac = "00:00:00:11:11:99".parse().ok());
            seen.owners = Ok(vec![Owner {
                network: "red".parse().unwrap(),
                whom: Whom::Owner([10, 1, 0, 1].into()),
                mac: GATEWAY.parse().unwrap(),
            }]);
        });
        assert_eq!(only(&mine).0, "bridge-mac", "it is this host that differs");
        assert_eq!(finds(|_, seen| seen.owners = Err("no packet sockets".into()))[0].check, "gateway-mac");
    }
}
