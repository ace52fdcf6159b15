//! What a network is up with, against what its description says by now: libvirt's status file, or config.toml.
//!
//! What is written in a file changes nothing by itself: an operator who edits config.toml does not expect his traffic to change before he says so.
//! `status`, `doctor` and `sync` tell, and `network up` applies what a running network can take over. libvirt's own word is another matter: what it
//! tells a hook, or its status file, is what somebody has just asked of that network, so its DHCP hosts and port security are followed.

use super::{Engine, EngineError};
use crate::config::{Config, Network, Origin};
use crate::hypervisor;
use crate::input::InputError;
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

/// Where a network that is up differs from its description, or from the host's VTEP as it is by now, each in a line with the way out.
pub fn differences(
    engine: &mut Engine,
    record: &NetworkRecord,
    vtep: Option<IpAddr>,
) -> Result<Vec<String>, EngineError> {
    Ok(differences_from(record, &engine.told_of(record)?, vtep))
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
}

/// The same from what was told of it.
pub(super) fn differences_from(record: &NetworkRecord, told: &Told, vtep: Option<IpAddr>) -> Vec<String> {
    let network = &record.network;
    let mut found = match told {
        Told::Nothing => Vec::new(),
        Told::Unread(error) => vec![error.clone()],
        Told::Gone => vec![forgotten(network)],
        Told::Network(told) => changed(network, told),
    };
    found.extend(vtep.filter(|vtep| *vtep != record.vtep).map(|vtep| {
        format!("this host's VTEP is {vtep}, and it is up with {}: {}", record.vtep, down_and_up(network))
    }));
    found
}

pub(super) fn changed(network: &Network, told: &Network) -> Vec<String> {
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
            "libvirt's XML has no <evpn:network> any more: put it back, or 'virsh net-destroy {name}' and 'virsh net-start {name}'"
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
