//! What is asked of the host as a whole: its tunnel end, what the underlay carries, settings that a VRF needs.

use super::sync::Synced;
use super::{Engine, EngineError, is_host_wide};
use crate::config::{Network, VtepSource};
use crate::journal::Message;
use crate::kernel::{Kernel, sysctl};
use crate::model::IfName;
use crate::plan::network::{HostSeen, no_rule_is_in_the_way};
use crate::plan::rules::Order;
use crate::plan::seen::{Address, Link, LinkKind, World};
use crate::plan::underlay::{Carriers, carriers, is_uplink};
use crate::plan::{Plan, Planned, Step};
use crate::register::{NetworkRecord, Underlay};
use crate::speaker::{Frr, Version};
use crate::tape;
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

/// What turns on the host's forwarding.
const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
/// The key under which the register remembers that the routing rules were the host's own.
const RULES: &str = "rules";
/// The same of earlier versions, which moved the rule for table local and had a rule of their own against BGP.
const LOCAL_RULE: &str = "local-rule";
const TENANT_BGP: &str = "tenant-bgp";

/// Where this host's tunnels end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelEnd {
    /// The address, or why there is none yet, with the way out.
    pub address: Result<IpAddr, String>,
    /// All that it is the first of, where it is one of several: another may be meant.
    pub among: Vec<IpAddr>,
}

impl TunnelEnd {
    /// The address, where there is one.
    pub fn known(&self) -> Option<IpAddr> {
        self.address.as_ref().ok().copied()
    }

    /// That it was chosen, where it was.
    pub fn chosen(&self) -> Option<String> {
        let (first, among) = (self.known()?, &self.among);
        let all = || among.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        (among.len() > 1).then(|| {
            format!(
                "VTEP {first} is the first of {}: if another is this host's own, set [vtep] address in config.toml",
                all()
            )
        })
    }
}

/// What a network gets of this host.
pub(super) struct Underneath {
    /// Where this host's tunnels end now.
    pub end: TunnelEnd,
    /// Where the network's do: as long as that address is away, where they did before.
    pub vtep: Option<IpAddr>,
    /// What the underlay leaves to it, in bytes, where nobody gave its MTU.
    pub mtu: u32,
    /// No route told yet by which devices the tunnels leave.
    pub unsettled: bool,
}

impl Underneath {
    /// The MTU of a network that is up: another guess is no better than the first.
    pub fn mtu_after(&self, before: &NetworkRecord) -> Option<u32> {
        if self.unsettled && before.vtep == self.vtep { before.network.mtu } else { Some(self.mtu) }
    }
}

/// Whether the devices that tunnels leave by are looked for where they are a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guess {
    /// It holds.
    Holds,
    /// Routes are asked again.
    Again,
}

/// This host's tunnel end, and the devices that tunnels leave by; all devices and routes are looked at.
pub fn tunnel_end_and_carriers(engine: &mut Engine) -> Result<(TunnelEnd, Carriers), EngineError> {
    let end = tunnel_end(engine)?;
    let (links, addresses) = (engine.kernel()?.all_links()?, engine.kernel()?.addresses(None)?);
    let carriers = look(engine, end.known(), &links, &addresses)?;
    Ok((end, carriers))
}

/// What a hook asks: all devices are looked at once, and then those alone that are known to carry the tunnels. What joins them later is found by `sync`.
pub(super) fn underneath(
    engine: &mut Engine,
    network: &Network,
    before: Option<IpAddr>,
    guess: Guess,
) -> Result<Underneath, EngineError> {
    let end = tunnel_end(engine)?;
    let vtep = end.known().or(before);
    if let Some(mtu) = network.mtu {
        return Ok(Underneath { end, vtep, mtu, unsettled: false });
    }
    if let Some(found) = known(engine, vtep, guess)? {
        return Ok(Underneath { end, vtep, mtu: found.tenants_mtu(vtep), unsettled: !found.settled });
    }
    let (links, addresses) = (engine.kernel()?.all_links()?, engine.kernel()?.addresses(None)?);
    let found = look(engine, vtep, &links, &addresses)?;
    learn_underlay(engine, vtep, &found, &links)?;
    Ok(Underneath { end, vtep, mtu: found.tenants_mtu(vtep), unsettled: !found.settled })
}

/// The devices that were found when all were looked at, as they are now; none where one of them is away, or another guess is wanted.
fn known(engine: &mut Engine, vtep: Option<IpAddr>, guess: Guess) -> Result<Option<Carriers>, EngineError> {
    let known = engine.register.underlay().filter(|known| Some(known.vtep) == vtep);
    let Some(known) = known.filter(|known| known.settled || guess == Guess::Holds) else { return Ok(None) };
    let mut devices = Vec::new();
    // One alone may be the VTEP's own, of whatever kind.
    let fits = |link: &Link| known.settled || known.devices.len() == 1 || is_uplink(link);
    for device in &known.devices {
        devices.extend(engine.kernel()?.link(device)?.filter(fits));
    }
    let whole = !devices.is_empty() && devices.len() == known.devices.len();
    Ok(whole.then_some(Carriers { devices, settled: known.settled }))
}

/// What the underlay leaves to tenants by now, in bytes, where that is no guess.
pub(super) fn mtu_left(engine: &mut Engine, vtep: Option<IpAddr>) -> Result<Option<u32>, EngineError> {
    Ok(known(engine, vtep, Guess::Again)?.map(|found| found.tenants_mtu(vtep)))
}

/// Notes by which devices the tunnels leave now.
pub(super) fn look_at_underlay(engine: &mut Engine, world: &World) -> Result<(), EngineError> {
    // A VTEP that has no address yet is a problem of each network, told there.
    let Some(vtep) = tunnel_end(engine)?.known() else { return Ok(()) };
    let links: Vec<Link> = world.links().cloned().collect();
    let addresses: Vec<Address> = links.iter().flat_map(|link| world.addresses(link.index)).cloned().collect();
    let found = look(engine, Some(vtep), &links, &addresses)?;
    learn_underlay(engine, Some(vtep), &found, &links)
}

/// The VTEP as it is by now; none where there is none.
pub(super) fn vtep_now(engine: &mut Engine) -> Result<Option<IpAddr>, EngineError> {
    Ok(tunnel_end(engine)?.known())
}

/// So many other VTEPs are asked for at most: their routes are alike.
const PEERS: usize = 8;

fn look(
    engine: &mut Engine,
    vtep: Option<IpAddr>,
    links: &[Link],
    addresses: &[Address],
) -> Result<Carriers, EngineError> {
    let v6 = vtep.is_some_and(|vtep| vtep.is_ipv6());
    let kernel = engine.kernel()?;
    let mut ways = kernel.ways(v6)?;
    let found = carriers(vtep, links.iter(), addresses.iter(), &ways);
    if found.settled || !links.iter().any(|l| matches!(l.kind, LinkKind::Vxlan { .. })) {
        return Ok(found);
    }
    let peers: BTreeSet<IpAddr> = kernel.remotes()?.into_iter().map(|remote| remote.vtep).collect();
    let peers = peers.into_iter().filter(|peer| peer.is_ipv6() == v6 && Some(*peer) != vtep);
    ways.peers = kernel.leave_by(peers.take(PEERS))?;
    Ok(carriers(vtep, links.iter(), addresses.iter(), &ways))
}

/// A guess does not take the place of what routes told, as long as those devices are up: other VTEPs may be away for a while.
fn learn_underlay(
    engine: &mut Engine,
    vtep: Option<IpAddr>,
    found: &Carriers,
    links: &[Link],
) -> Result<(), EngineError> {
    let Some(vtep) = vtep.filter(|_| !engine.dry_run) else { return Ok(()) };
    let devices: BTreeSet<IfName> = found.devices.iter().map(|l| l.name.clone()).collect();
    let now = Underlay { vtep, devices, settled: found.settled };
    let is_up = |name: &IfName| links.iter().any(|l| l.name == *name && l.up);
    let holds = |known: &Underlay| {
        *known == now || known.vtep == vtep && known.settled && !now.settled && known.devices.iter().all(is_up)
    };
    if now.devices.is_empty() || engine.register.underlay().is_some_and(|known| holds(&known)) {
        return Ok(());
    }
    Ok(engine.register.put_underlay(&now)?)
}

/// Where this host's tunnels end.
pub(super) fn tunnel_end(engine: &mut Engine) -> Result<TunnelEnd, EngineError> {
    let name = match &engine.config()?.vtep.source {
        VtepSource::Address(address) => return Ok(TunnelEnd { address: Ok(*address), among: Vec::new() }),
        VtepSource::Interface(name) => name.clone(),
    };
    let kernel = engine.kernel()?;
    let addresses = match kernel.link(&name)? {
        Some(link) => kernel.addresses(Some(link.index))?,
        None => Vec::new(),
    };
    let among = candidates(&addresses);
    // Where an address of each family comes at boot, IPv6's may be first: taken for the VTEP it would stay it. An FRR that cannot use it waits for the other.
    if let Some(first) = among.first().copied().filter(IpAddr::is_ipv6)
        && let Some(mut frr) = engine.frr()?
        && let Some(why) = unspeakable(&mut frr, first)
    {
        return Ok(TunnelEnd { address: Err(why), among: Vec::new() });
    }
    let none = || {
        format!(
            "no VTEP address: {name} has no global address: 'ip address add 10.0.0.1/32 dev {name}', or set [vtep] address in config.toml"
        )
    };
    Ok(TunnelEnd { address: among.first().copied().ok_or_else(none), among })
}

/// Why this FRR cannot be trusted with an IPv6 tunnel end that nobody asked for.
fn unspeakable(frr: &mut Frr, vtep: IpAddr) -> Option<String> {
    match tape::told("FRR: version", || frr.version().ok().flatten()) {
        Some(version) if version >= Version::IPV6_VTEP => None,
        Some(version) => Some(speaks_no_ipv6(vtep, version)),
        None => Some(format!(
            "no VTEP address: {vtep} is IPv6, which FRR {} or newer speaks, and FRR does not say what it is: start FRR, or give this host an IPv4 VTEP ([vtep] address in config.toml)",
            Version::IPV6_VTEP
        )),
    }
}

/// What an FRR that is too old makes of an IPv6 tunnel end.
pub(super) fn speaks_no_ipv6(vtep: IpAddr, version: Version) -> String {
    format!(
        "VTEP {vtep} is IPv6, and FRR {version} would announce routes that lead to no VTEP: give this host an IPv4 VTEP ([vtep] address in config.toml), or FRR {} or newer",
        Version::IPV6_VTEP
    )
}

/// IPv4 before IPv6: the underlay of the reference fabric, and 20 bytes cheaper a packet.
fn candidates(addresses: &[Address]) -> Vec<IpAddr> {
    let global = addresses.iter().filter(|a| a.global && !a.net.addr().is_loopback()).map(|a| a.net.addr());
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = global.partition(IpAddr::is_ipv4);
    if v4.is_empty() { v6 } else { v4 }
}

/// Host-wide settings as they are; which devices take router advertisements only for who is about to turn on IPv6 forwarding.
pub(super) fn observe(kernel: &mut Kernel, wants6: bool) -> Result<HostSeen, EngineError> {
    let on = |path: &str| -> Result<_, EngineError> { Ok(sysctl(path)?.map(|v| v.trim() == "1")) };
    let forward6 = on("net/ipv6/conf/all/forwarding")?;
    let mut accepts_ra = Vec::new();
    if wants6 && forward6 == Some(false) {
        // Once a boot: a narrow look has not seen them all.
        for link in &kernel.all_links()? {
            if is_way_out(kernel, link)? && on(&format!("net/ipv6/conf/{}/accept_ra", link.name))? == Some(true) {
                accepts_ra.push(link.name.clone());
            }
        }
        accepts_ra.sort();
    }
    let rules = kernel.rules()?;
    Ok(HostSeen { forward4: on("net/ipv4/ip_forward")? == Some(true), forward6, rules, accepts_ra })
}

/// May the host live on what routers advertise there? A bridge is a network of guests or containers, who must not configure the host, unless a default route
/// of the host's leaves by it.
fn is_way_out(kernel: &mut Kernel, link: &Link) -> Result<bool, EngineError> {
    if link.index == 1 || !link.up || link.master.is_some() {
        return Ok(false);
    }
    match &link.kind {
        LinkKind::Other(kind) => Ok(kind != "tun"),
        LinkKind::Bridge { .. } => Ok(kernel.has_default_route(link.index)?),
        LinkKind::Vxlan { .. } | LinkKind::Vrf { .. } => Ok(false),
    }
}

impl Engine {
    /// What VRFs need of the host as a whole, and nothing else: routing rules and IP forwarding. Asks no speaker.
    pub fn sync_host(&mut self) -> Result<Synced, EngineError> {
        let (mut out, before) = (Synced::default(), self.walked);
        let (manage_host, bgp_closed) = {
            let config = self.config()?;
            (config.manage_host, !config.tenant_bgp)
        };
        let mut routed = self.register.networks();
        routed.retain(|record| record.as_ref().is_ok_and(|record| record.network.vrf.is_some()));
        let networks: Vec<Network> = routed.into_iter().flatten().map(|record| record.network).collect();
        let Some(first) = networks.first().filter(|_| manage_host) else { return Ok(out) };
        let wants6 = networks.iter().flat_map(|network| &network.gateway).any(|gateway| gateway.addr().is_ipv6());
        let seen = observe(self.kernel()?, wants6)?;
        let mut plan = Plan::new();
        crate::plan::network::host(wants6, bgp_closed, &seen, &mut plan);
        if !plan.is_empty() {
            remember(self, &plan)?;
            self.walk(&plan, None, None)?;
        }
        // What stands in the way is told; what can be done beside it, is.
        let now = HostSeen { rules: self.kernel()?.rules()?, ..HostSeen::default() };
        out.problems.extend(no_rule_is_in_the_way(first, &now, bgp_closed).err().map(|why| why.to_string()));
        out.steps = self.walked - before;
        Ok(out)
    }
}

/// Remembers each host-wide setting that this plan is about to change, as it is now. Returns which were not remembered before.
pub(super) fn remember(engine: &mut Engine, plan: &Plan) -> Result<Vec<String>, EngineError> {
    let mut new = Vec::new();
    for step in plan.iter().map(|p| &p.step).filter(|s| is_host_wide(s)) {
        match step {
            Step::Sysctl { path, .. } => {
                if let Some(was) = sysctl(path)?
                    && engine.register.remember_host(path, was.trim())?
                {
                    new.push(path.clone());
                }
            }
            _ if engine.register.remember_host(RULES, "plain")? => new.push(RULES.to_owned()),
            _ => {}
        }
    }
    Ok(new)
}

/// Puts back what a network changed for itself before it failed.
pub(super) fn put_back(engine: &mut Engine, keys: &[String]) -> Result<(), EngineError> {
    if keys.is_empty() {
        return Ok(());
    }
    restore(engine, None, |key| keys.iter().any(|k| k == key))?;
    Ok(engine.register.forget_host(keys)?)
}

/// Puts host-wide settings back to what they were before we changed them (`uninstall`).
pub fn undo_host(engine: &mut Engine) -> Result<(), EngineError> {
    let up: Vec<String> = engine.register.networks().iter().flatten().map(|r| r.network.name.to_string()).collect();
    if !up.is_empty() {
        return EngineError::refused(format!(
            "nothing is uninstalled while networks are up, which nobody would take down then: take down {} and run it again",
            up.join(", ")
        ));
    }
    let keys: Vec<String> = engine.register.host()?.into_keys().collect();
    if keys.is_empty() {
        return Ok(());
    }
    let user = forwards_for_others(engine.kernel()?)?;
    restore(engine, user.as_ref(), |_| true)?;
    Ok(engine.register.forget_host(&keys)?)
}

/// Does somebody else count on this host's forwarding by now? It was off when the first VRF came, but docker, libvirt's own networks, a kubelet and VPNs
/// turn it on themselves and say so to nobody. Any bridge, tunnel or VRF with an address says that the host routes.
fn forwards_for_others(kernel: &mut Kernel) -> Result<Option<IfName>, EngineError> {
    let addressed: HashSet<u32> = kernel.addresses(None)?.iter().filter(|a| a.global).map(|a| a.index).collect();
    let routes = |link: &Link| match &link.kind {
        LinkKind::Bridge { .. } | LinkKind::Vrf { .. } | LinkKind::Vxlan { .. } => true,
        LinkKind::Other(kind) => matches!(kind.as_str(), "wireguard" | "tun" | "gre" | "ipip" | "veth"),
    };
    Ok(kernel.all_links()?.into_iter().find(|l| l.up && addressed.contains(&l.index) && routes(l)).map(|l| l.name))
}

/// With `user` forwarding stays on, and uplinks take router advertisements all the same.
fn restore(engine: &mut Engine, user: Option<&IfName>, wanted: impl Fn(&str) -> bool) -> Result<(), EngineError> {
    let mut plan = Plan::new();
    let stays = |path: &str| user.is_some() && (FORWARDING.contains(&path) || path.ends_with("/accept_ra"));
    for (key, was) in engine.register.host()?.into_iter().filter(|(key, _)| wanted(key)) {
        let step = match key.as_str() {
            RULES => Step::Rules { order: Order::Plain { moved: false } },
            LOCAL_RULE | TENANT_BGP => Step::Rules { order: Order::Plain { moved: true } },
            path if stays(path) => {
                if let Some(user) = user.filter(|_| FORWARDING.contains(&path)) {
                    let setting = path.replace('/', ".");
                    let what = format!(
                        "{setting} is left on, for {user}: 'sysctl -w {setting}={was}' where nothing else routes"
                    );
                    engine.journal.say(&Message::Warning(&what));
                }
                continue;
            }
            path if path.split('/').all(|part| part == "all" || part == "conf" || part.parse::<IfName>().is_ok()) => {
                Step::Sysctl { path: key, value: was }
            }
            _ => continue,
        };
        plan.push(Planned { step, undo: Vec::new() });
    }
    engine.walk(&plan, None, None).map(drop)
}
