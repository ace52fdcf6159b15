//! What a network is up with, against what its description says by now: libvirt's status file, or config.toml.
//!
//! What is written in a file changes nothing by itself: an operator who edits config.toml does not expect his traffic to change before he says so.
//! `status`, `doctor` and `sync` tell, and `network up` applies what a running network can take over. libvirt's own word is another matter: what it
//! tells a hook, or its status file, is what somebody has just asked of that network, so its DHCP hosts and port security are followed.

use super::host::{mtu_left, vtep_now};
use super::look::Clashes;
use super::network::Tunnelled;
use super::{Engine, EngineError};
use crate::config::{Config, Network, Origin};
use crate::hypervisor;
use crate::input::InputError;
use crate::journal::Message;
use crate::model::NetName;
use crate::register::NetworkRecord;
use std::net::IpAddr;

/// What its description says of a network that is up.
#[derive(Debug)]
pub(super) enum Told {
    /// Nobody says anything: libvirt does not run, or is about to stop it.
    Nothing,
    /// There is no description any more.
    Gone,
    /// This.
    Network(Box<Network>),
    /// It cannot be read.
    Unread(String),
}

impl Told {
    /// `listed` is what libvirt says of it.
    pub(super) fn of(network: &Network, config: &Config, listed: Option<&Result<Option<Network>, InputError>>) -> Told {
        let told = |network: &Network| Told::Network(Box::new(network.clone()));
        match (network.origin, listed) {
            (Origin::Config, _) => config.network(&network.name).map_or(Told::Gone, told),
            (_, None) => Told::Nothing,
            (_, Some(Ok(Some(network)))) => told(network),
            (_, Some(Ok(None))) => Told::Gone,
            (_, Some(Err(error))) => Told::Unread(error.to_string()),
        }
    }
}

/// The host as it is by now, against which networks that are up are held.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Where its tunnels end.
    vtep: Option<IpAddr>,
    /// The UDP port of its tunnels.
    port: u16,
    /// What its underlay leaves to tenants, in bytes.
    mtu: Option<u32>,
}

impl Now {
    /// What is not known is no difference.
    pub fn of(engine: &mut Engine) -> Result<Now, EngineError> {
        let vtep = vtep_now(engine)?;
        Ok(Now { vtep, port: engine.config()?.vtep.port, mtu: mtu_left(engine, vtep)? })
    }
}

/// Where a network that is up differs from its description, or from the host as it is by now, each in a line with the way out.
pub fn differences(engine: &mut Engine, record: &NetworkRecord, now: Now) -> Result<Vec<String>, EngineError> {
    Ok(differences_from(record, &engine.told_of(record)?, now))
}

impl Engine {
    /// What its description says of a network that is up.
    pub(super) fn told_of(&mut self, record: &NetworkRecord) -> Result<Told, EngineError> {
        let config = self.config()?;
        let listed = match record.network.origin {
            Origin::Config => None,
            _ => hypervisor::libvirt::network(&record.network.name, config).into_iter().flatten().next(),
        };
        Ok(Told::of(&record.network, config, listed.as_ref().map(|(_, said)| said)))
    }

    /// `network up NAME`: from config.toml, or again as it was recorded.
    pub fn network_by_name(&mut self, name: &NetName) -> Result<Network, EngineError> {
        // One that libvirt started stays libvirt's, with what its XML says by now, though config.toml describes it as well.
        let record = self.register.network(name)?.filter(|r| r.network.origin != Origin::Config);
        let of_libvirt = match record {
            None => None,
            Some(record) => Some(match self.told_of(&record)? {
                Told::Network(told) => told.completed(&record.wanted()),
                _ => record.wanted(),
            }),
        };
        if let Some(network) = of_libvirt.or(self.config()?.network(name).cloned()) {
            return Ok(network);
        }
        match self.register.network(name)? {
            Some(up) => EngineError::refused(format!("network {name}: {}", forgotten(&up.network))),
            None => EngineError::refused(format!(
                "network {name} is unknown: start it with 'virsh net-start {name}', or describe it in config.toml and run 'evpn-hook network up {name}'"
            )),
        }
    }

    /// What a network that is up cannot take over: it has to come up anew.
    pub(super) fn check_up(&mut self, network: &Network, vtep: Option<IpAddr>) -> Result<(), EngineError> {
        let Some(before) = self.register.network(&network.name)? else { return Ok(()) };
        let (name, down) = (&network.name, way_down(&network.name));
        // A second VXLAN beside the first would join two segments; a VXLAN device does not change its VNI or VTEP.
        if before.network.vni != network.vni || before.vtep.is_some() && before.vtep != vtep {
            let end = |vtep: Option<IpAddr>| vtep.map_or("no VTEP yet".to_owned(), |vtep| format!("VTEP {vtep}"));
            return EngineError::refused(format!(
                "network {name}: it is up with VNI {} and {}, not VNI {} and {}: take it down first ({down})",
                before.network.vni,
                end(before.vtep),
                network.vni,
                end(vtep)
            ));
        }
        // Its guests' routes, and those of the VRF's other networks, would be in two tables.
        let how = match (&before.network.vrf, &network.vrf) {
            (was, now) if was == now => return Ok(()),
            (Some(was), Some(now)) => format!("in VRF {was}, not in {now}"),
            (Some(was), None) => format!("in VRF {was}, not without one"),
            (None, Some(now)) => format!("without a VRF, not in {now}"),
            (None, None) => return Ok(()),
        };
        let vrf = before.network.vrf.as_ref().map(|vrf| &vrf.name);
        let stays = vrf.is_some() && vrf == network.vrf.as_ref().map(|vrf| &vrf.name);
        let others = self.register.networks().into_iter().flatten().map(|r| r.network);
        let others: Vec<String> = others
            .filter(|n| stays && n.name != *name && n.vrf.as_ref().map(|vrf| &vrf.name) == vrf)
            .map(|n| n.name.to_string())
            .collect();
        let all = if others.is_empty() {
            String::new()
        } else {
            format!(" and what else is in that VRF ({})", others.join(", "))
        };
        EngineError::refused(format!("network {name}: it is up {how}: take it{all} down first ({down})"))
    }

    /// A VXLAN device does not change its UDP port either.
    pub(super) fn check_port(&mut self, network: &Network) -> Result<(), EngineError> {
        let port = self.config()?.vtep.port;
        let up = self.register.network(&network.name)?.and_then(|before| before.port).filter(|up| *up != port);
        let Some(up) = up else { return Ok(()) };
        EngineError::refused(format!(
            "network {}: it is up with UDP port {up}, not {port}: take it down first ({})",
            network.name,
            way_down(&network.name)
        ))
    }

    /// libvirt says that a network has changed, or that a guest is about to join it.
    pub(super) fn network_updated(&mut self, network: &Network) -> Result<(), EngineError> {
        let up = self.network_follows(network)?.filter(|up| up.origin != Origin::Config);
        let Some(up) = up else { return Ok(()) };
        for difference in changed(&up, network) {
            self.journal.say(&Message::Warning(&format_args!("network {}: {difference}", up.name)));
        }
        Ok(())
    }

    /// Takes over what libvirt may change in a running network: its DHCP hosts, and what its guests may send. What is left out of the XML is no
    /// wish to lift it. Returns what it is up with then, where it is up.
    pub(super) fn network_follows(&mut self, network: &Network) -> Result<Option<Network>, EngineError> {
        let follows = |record: &NetworkRecord| {
            record.network.hosts != network.hosts || network.asks_to_hold(&record.network).is_some()
        };
        let up = |record: &NetworkRecord| record.network.name == network.name;
        // libvirt says it at every guest's start, which must not wait for a network that is busy with FRR.
        let Some(record) = self.register.network_of_bridge(&network.bridge)?.filter(up) else { return Ok(None) };
        if !follows(&record) {
            return Ok(Some(record.network));
        }
        let _lock = self.register.lock_network(&record.network)?;
        // Whoever had the lock may have changed it, or taken it down.
        let still = |now: &NetworkRecord| up(now) && now.network.vrf == record.network.vrf;
        let Some(mut now) = self.register.network_of_bridge(&network.bridge)?.filter(still) else { return Ok(None) };
        if let Some(security) = network.asks_to_hold(&now.network) {
            now.network.port_security = Some(security);
            // With the rules that it needs, and for the guests that are there.
            self.bring_up(&now.network, Tunnelled { vtep: now.vtep, unsettled: now.unsettled }, Clashes::Known)?;
            now = self.register.network_of_bridge(&network.bridge)?.unwrap_or(now);
        }
        if now.network.hosts != network.hosts {
            now.network.hosts.clone_from(&network.hosts);
            self.register.put_network(&now)?;
            self.hosts_changed(&now.network);
        }
        Ok(Some(now.network))
    }
}

/// The same from what was told of it.
pub(super) fn differences_from(record: &NetworkRecord, told: &Told, now: Now) -> Vec<String> {
    let network = &record.network;
    let mut found = match told {
        Told::Nothing => Vec::new(),
        // The reader names the network, as who asks does.
        Told::Unread(error) => {
            let named = format!("network {}: ", network.name);
            vec![error.strip_prefix(&named).unwrap_or(error).to_owned()]
        }
        Told::Gone => vec![forgotten(network)],
        Told::Network(told) => changed(network, told),
    };
    // Who gave no MTU wants what the underlay leaves. One that still waits for routes gets it by itself.
    if let (Told::Network(told), Some(left), Some(up)) = (told, now.mtu, network.mtu)
        && told.mtu.is_none()
        && !record.waits()
        && left != up
    {
        let most = if left < up { "no more than " } else { "" };
        let apply = format!("'evpn-hook network up {}' applies it", network.name);
        found.push(format!("the underlay leaves {most}mtu {left}, and it is up with {up}: {apply}"));
    }
    // One that has none yet takes this one as it is.
    if let (Some(now), Some(was)) = (now.vtep, record.vtep)
        && now != was
    {
        found.push(format!("this host's VTEP is {now}, and it is up with {was}: {}", down_and_up(network)));
    }
    if let Some(was) = record.port.filter(|was| *was != now.port) {
        let (port, anew) = (now.port, down_and_up(network));
        found.push(format!("config.toml says [vtep] port {port}, and it is up with {was}: {anew}"));
    }
    found
}

/// Each field that differs.
fn changed(network: &Network, told: &Network) -> Vec<String> {
    let who = if network.origin == Origin::Config { "config.toml" } else { "libvirt" };
    let line = |change: crate::config::Change| match change.anew {
        true => format!("{who} says {}: {}", change.what, down_and_up(network)),
        false => format!("{who} says {}: 'evpn-hook network up {}' applies it", change.what, network.name),
    };
    network.changes(told).into_iter().map(line).collect()
}

fn forgotten(network: &Network) -> String {
    let name = &network.name;
    match network.origin {
        Origin::Config => format!(
            "config.toml does not describe it any more: describe it there again, or 'evpn-hook network down {name}'"
        ),
        _ => format!(
            "neither libvirt's XML nor config.toml makes it evpn-hook's any more: put its <evpn:network> back, or 'virsh net-destroy {name}' and 'virsh net-start {name}'"
        ),
    }
}

fn down_and_up(network: &Network) -> String {
    let name = &network.name;
    match network.origin {
        Origin::Config => {
            format!(
                "it takes that over when it comes up anew: 'evpn-hook network down {name}' and 'evpn-hook network up {name}'"
            )
        }
        _ => format!("it takes that over when it starts anew: 'virsh net-destroy {name}' and 'virsh net-start {name}'"),
    }
}

/// What takes a network down, whoever brought it up.
pub(super) fn way_down(name: &NetName) -> String {
    format!("'virsh net-destroy {name}' or 'evpn-hook network down {name}'")
}
