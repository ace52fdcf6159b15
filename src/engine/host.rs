//! What is asked of the host as a whole: its tunnel end, what the underlay carries, settings that a VRF needs.

use super::{Engine, EngineError, is_host_wide};
use crate::config::{Config, VtepSource};
use crate::kernel::{Kernel, sysctl};
use crate::model::IfName;
use crate::plan::network::HostSeen;
use crate::plan::seen::{Address, Link, LinkKind, World};
use crate::plan::{Plan, Planned, Step};
use std::net::IpAddr;

/// The key under which the register remembers the local routing rule's place.
const LOCAL_RULE: &str = "local-rule";

/// The largest tunnel header in bytes, by the VTEP's family: outer IP, UDP, VXLAN, inner Ethernet (RFC 7348 §5).
fn overhead(vtep: IpAddr) -> u32 {
    if vtep.is_ipv4() { 50 } else { 70 }
}

/// This host's VTEP address, and the MTU in bytes that its underlay leaves to tenants.
pub fn vtep_and_mtu(config: &Config, kernel: &mut Kernel) -> Result<(IpAddr, u32), EngineError> {
    let links = kernel.all_links()?;
    let addresses = kernel.addresses(None)?;
    let vtep = match &config.vtep.source {
        VtepSource::Address(address) => *address,
        VtepSource::Interface(name) => {
            let index = links.iter().find(|l| l.name == *name).map(|l| l.index);
            match first_global(index, &addresses) {
                Some(address) => address,
                None => {
                    return EngineError::refused(format!(
                        "no VTEP address: {name} has no global address: 'ip address add 10.0.0.1/32 dev {name}', or set [vtep] address in config.toml"
                    ));
                }
            }
        }
    };
    Ok((vtep, underlay_mtu(vtep, &links, &addresses).saturating_sub(overhead(vtep))))
}

/// IPv4 before IPv6: the underlay of the reference fabric, and 20 bytes cheaper a packet.
fn first_global(index: Option<u32>, addresses: &[Address]) -> Option<IpAddr> {
    let of_device = || addresses.iter().filter(|a| Some(a.index) == index && a.global && !a.net.addr().is_loopback());
    let v4 = of_device().find(|a| a.net.addr().is_ipv4());
    v4.or_else(|| of_device().next()).map(|a| a.net.addr())
}

/// The smallest MTU among the devices that tunnelled packets can leave by: the VTEP's own, or if that is a loopback, every
/// device that is up, has an address and is nobody's port, bridge or tap. 1500 where there is none yet.
fn underlay_mtu(vtep: IpAddr, links: &[Link], addresses: &[Address]) -> u32 {
    let has_address = |l: &Link| addresses.iter().any(|a| a.index == l.index);
    let owner = addresses.iter().find(|a| a.net.addr() == vtep).map(|a| a.index);
    let uplink = |l: &&Link| {
        let kind = match &l.kind {
            LinkKind::Other(kind) => !matches!(kind.as_str(), "tun" | "dummy" | "ifb" | "macvtap" | "macvlan"),
            _ => false,
        };
        kind && l.index != 1 && l.up && l.master.is_none() && has_address(l)
    };
    match links
        .iter()
        .find(|l| Some(l.index) == owner)
        .filter(|l| l.index != 1 && l.kind != LinkKind::Other("dummy".into()))
    {
        Some(device) => device.mtu,
        None => links.iter().filter(uplink).map(|l| l.mtu).min().unwrap_or(1500),
    }
}

/// Host-wide settings as they are.
pub(super) fn observe(kernel: &mut Kernel, world: &World) -> Result<HostSeen, EngineError> {
    let on = |path: &str| -> Result<_, EngineError> { Ok(sysctl(path)?.map(|v| v.trim() == "1")) };
    let forward6 = on("net/ipv6/conf/all/forwarding")?;
    let mut accepts_ra = Vec::new();
    if forward6 == Some(false) {
        for link in world.links() {
            if uplink_kind(link) && on(&format!("net/ipv6/conf/{}/accept_ra", link.name))? == Some(true) {
                accepts_ra.push(link.name.clone());
            }
        }
        accepts_ra.sort();
    }
    Ok(HostSeen {
        forward4: on("net/ipv4/ip_forward")? == Some(true),
        forward6,
        local_rule_last: kernel.local_rule_last()?,
        accepts_ra,
    })
}

fn uplink_kind(link: &Link) -> bool {
    link.index != 1 && link.up && link.master.is_none() && matches!(&link.kind, LinkKind::Other(k) if k != "tun")
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
            _ if engine.register.remember_host(LOCAL_RULE, "first")? => new.push(LOCAL_RULE.to_owned()),
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
    restore(engine, |key| keys.iter().any(|k| k == key))?;
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
    put_back(engine, &keys)
}

fn restore(engine: &mut Engine, wanted: impl Fn(&str) -> bool) -> Result<(), EngineError> {
    let mut plan = Plan::new();
    for (key, was) in engine.register.host()?.into_iter().filter(|(key, _)| wanted(key)) {
        let step = match key.as_str() {
            LOCAL_RULE => Step::LocalRuleLast { last: false },
            path if path.split('/').all(|part| part == "all" || part == "conf" || part.parse::<IfName>().is_ok()) => {
                Step::Sysctl { path: key, value: was }
            }
            _ => continue,
        };
        plan.push(Planned { step, undo: Vec::new() });
    }
    engine.walk(&plan, None, None).map(drop)
}
