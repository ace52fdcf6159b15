//! What is asked of the host as a whole: its tunnel end, what the underlay carries, settings that a VRF needs.

use super::sync::Synced;
use super::{Engine, EngineError, is_host_wide};
use crate::config::{Config, Network, VtepSource};
use crate::journal::Message;
use crate::kernel::{Kernel, sysctl};
use crate::model::IfName;
use crate::plan::network::{HostSeen, no_rule_is_in_the_way};
use crate::plan::rules::Order;
use crate::plan::seen::{Address, Link, LinkKind, World};
use crate::plan::{Plan, Planned, Step};
use crate::register::Underlay;
use std::collections::HashSet;
use std::net::IpAddr;

/// What turns on the host's forwarding.
const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
/// The key under which the register remembers that the routing rules were the host's own.
const RULES: &str = "rules";
/// The same of earlier versions, which moved the rule for table local and had a rule of their own against BGP.
const LOCAL_RULE: &str = "local-rule";
const TENANT_BGP: &str = "tenant-bgp";

/// The largest tunnel header in bytes, by the VTEP's family: outer IP, UDP, VXLAN, inner Ethernet (RFC 7348 §5).
fn overhead(vtep: IpAddr) -> u32 {
    if vtep.is_ipv4() { 50 } else { 70 }
}

/// This host's VTEP address, and the MTU in bytes that its underlay leaves to tenants; all devices are looked at.
pub fn vtep_and_mtu(config: &Config, kernel: &mut Kernel) -> Result<(IpAddr, u32), EngineError> {
    let vtep = vtep(config, kernel)?;
    let (links, addresses) = (kernel.all_links()?, kernel.addresses(None)?);
    Ok((vtep, tenants_mtu(vtep, &underlay(vtep, links.iter(), addresses.iter()))))
}

/// The same of a hook: all devices are looked at once, and then those alone that are known to carry the tunnels. What joins them later is found by
/// `sync`.
pub(super) fn vtep_and_known_mtu(engine: &mut Engine, network: &Network) -> Result<(IpAddr, u32), EngineError> {
    engine.config()?;
    let config = engine.config.clone().unwrap_or_default();
    let vtep = vtep(&config, engine.kernel()?)?;
    if let Some(mtu) = network.mtu {
        return Ok((vtep, mtu));
    }
    if let Some(known) = engine.register.underlay().filter(|known| known.vtep == vtep) {
        let mut links = Vec::new();
        // One alone may be the VTEP's own, of whatever kind.
        let fits = |link: &Link| known.devices.len() == 1 || is_uplink(link);
        for device in &known.devices {
            links.extend(engine.kernel()?.link(device)?.filter(fits));
        }
        if !links.is_empty() && links.len() == known.devices.len() {
            return Ok((vtep, tenants_mtu(vtep, &links)));
        }
    }
    let (links, addresses) = (engine.kernel()?.all_links()?, engine.kernel()?.addresses(None)?);
    let found = underlay(vtep, links.iter(), addresses.iter());
    learn_underlay(engine, vtep, &found)?;
    Ok((vtep, tenants_mtu(vtep, &found)))
}

/// Notes by which devices the tunnels leave now.
pub(super) fn look_at_underlay(engine: &mut Engine, world: &World) -> Result<(), EngineError> {
    engine.config()?;
    let config = engine.config.clone().unwrap_or_default();
    // A VTEP that has no address yet is a problem of each network, told there.
    let Ok(vtep) = vtep(&config, engine.kernel()?) else { return Ok(()) };
    let addresses = world.links().flat_map(|link| world.addresses(link.index));
    learn_underlay(engine, vtep, &underlay(vtep, world.links(), addresses))
}

/// The VTEP as it is by now; none where there is none.
pub fn vtep_now(engine: &mut Engine) -> Result<Option<IpAddr>, EngineError> {
    let config = engine.config()?.clone();
    Ok(vtep(&config, engine.kernel()?).ok())
}

fn learn_underlay(engine: &mut Engine, vtep: IpAddr, found: &[Link]) -> Result<(), EngineError> {
    let now = Underlay { vtep, devices: found.iter().map(|l| l.name.clone()).collect() };
    if engine.dry_run || now.devices.is_empty() || engine.register.underlay().as_ref() == Some(&now) {
        return Ok(());
    }
    Ok(engine.register.put_underlay(&now)?)
}

fn vtep(config: &Config, kernel: &mut Kernel) -> Result<IpAddr, EngineError> {
    let name = match &config.vtep.source {
        VtepSource::Address(address) => return Ok(*address),
        VtepSource::Interface(name) => name,
    };
    let addresses = match kernel.link(name)? {
        Some(link) => kernel.addresses(Some(link.index))?,
        None => Vec::new(),
    };
    match first_global(&addresses) {
        Some(address) => Ok(address),
        None => EngineError::refused(format!(
            "no VTEP address: {name} has no global address: 'ip address add 10.0.0.1/32 dev {name}', or set [vtep] address in config.toml"
        )),
    }
}

/// IPv4 before IPv6: the underlay of the reference fabric, and 20 bytes cheaper a packet.
fn first_global(addresses: &[Address]) -> Option<IpAddr> {
    let global = || addresses.iter().filter(|a| a.global && !a.net.addr().is_loopback());
    let v4 = global().find(|a| a.net.addr().is_ipv4());
    v4.or_else(|| global().next()).map(|a| a.net.addr())
}

/// The MTU in bytes where no device says another.
const FIRST_MTU: u32 = 1500;

/// What the devices that tunnelled packets leave by leave to tenants, in bytes.
fn tenants_mtu(vtep: IpAddr, underlay: &[Link]) -> u32 {
    underlay.iter().map(|l| l.mtu).min().unwrap_or(FIRST_MTU).saturating_sub(overhead(vtep))
}

/// The devices that tunnelled packets can leave by: the VTEP's own, or if that is a loopback, every device that is up, has an address and is
/// nobody's port, bridge or tap.
fn underlay<'a>(
    vtep: IpAddr,
    links: impl Iterator<Item = &'a Link> + Clone,
    addresses: impl Iterator<Item = &'a Address> + Clone,
) -> Vec<Link> {
    let owner = addresses.clone().filter(|a| a.net.addr() == vtep).map(|a| a.index).min();
    let own = links.clone().find(|l| Some(l.index) == owner);
    match own.filter(|l| l.index != 1 && l.kind != LinkKind::Other("dummy".into())) {
        Some(device) => vec![device.clone()],
        None => {
            let addressed: HashSet<u32> = addresses.map(|a| a.index).collect();
            links.filter(|l| is_uplink(l) && addressed.contains(&l.index)).cloned().collect()
        }
    }
}

fn is_uplink(link: &Link) -> bool {
    let kind = match &link.kind {
        LinkKind::Other(kind) => !matches!(kind.as_str(), "tun" | "dummy" | "ifb" | "macvtap" | "macvlan"),
        _ => false,
    };
    kind && link.index != 1 && link.up && link.master.is_none()
}

/// Host-wide settings as they are; which devices take router advertisements only for who is about to turn on IPv6 forwarding.
pub(super) fn observe(kernel: &mut Kernel, wants6: bool) -> Result<HostSeen, EngineError> {
    let on = |path: &str| -> Result<_, EngineError> { Ok(sysctl(path)?.map(|v| v.trim() == "1")) };
    let forward6 = on("net/ipv6/conf/all/forwarding")?;
    let mut accepts_ra = Vec::new();
    if wants6 && forward6 == Some(false) {
        // Once a boot: a narrow look has not seen them all.
        for link in &kernel.all_links()? {
            if uplink_kind(link) && on(&format!("net/ipv6/conf/{}/accept_ra", link.name))? == Some(true) {
                accepts_ra.push(link.name.clone());
            }
        }
        accepts_ra.sort();
    }
    let rules = kernel.rules()?;
    Ok(HostSeen { forward4: on("net/ipv4/ip_forward")? == Some(true), forward6, rules, accepts_ra })
}

fn uplink_kind(link: &Link) -> bool {
    link.index != 1 && link.up && link.master.is_none() && matches!(&link.kind, LinkKind::Other(k) if k != "tun")
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
