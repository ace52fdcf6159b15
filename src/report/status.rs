//! `evpn-hook status`: what is wanted, what the kernel has, what the speaker says.

use super::duplicates::{self, Claims};
use crate::config::{Network, Vrf};
use crate::engine::{Engine, EngineError, boot_seconds, host_wants, lacks};
use crate::model::{Address, Guest, IfName, Mac, NetName, Vni};
use crate::plan::seen::World;
use crate::register::{Endpoint, Stage};
use crate::speaker::{Dump, Frr, SpeakerError};
use serde::Serialize;
use std::fmt::Write;
use std::net::IpAddr;

/// The whole report; its JSON is stable: fields are added, never renamed.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Tenant networks of this host.
    pub networks: Vec<NetworkStatus>,
    /// Guests' NICs on them.
    pub endpoints: Vec<EndpointStatus>,
}

/// One network.
#[derive(Debug, Serialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: NetName,
    /// Its bridge.
    pub bridge: IfName,
    /// Its L2VNI.
    pub vni: Vni,
    /// Its routing domain.
    pub vrf: Option<Vrf>,
    /// This host's tunnel end.
    pub vtep: Option<IpAddr>,
    /// `up`, `degraded` or `down`.
    pub state: &'static str,
    /// What is missing, in words.
    pub problems: Vec<String>,
}

/// One NIC of a guest.
#[derive(Debug, Serialize)]
pub struct EndpointStatus {
    /// Whose.
    pub guest: Guest,
    /// Which network.
    pub network: NetName,
    /// The port.
    pub device: IfName,
    /// The guest's MAC.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The same with who told each.
    pub addresses: Vec<Address>,
    /// `incoming`, `registered`, `advertised` or `failed`.
    pub state: &'static str,
    /// What is missing, in words.
    pub problems: Vec<String>,
}

impl Status {
    /// Is anything not as it should be?
    pub fn has_problems(&self) -> bool {
        self.networks.iter().any(|n| !n.problems.is_empty()) || self.endpoints.iter().any(|e| !e.problems.is_empty())
    }
}

/// Gathers it.
pub fn gather(engine: &mut Engine) -> Result<Status, EngineError> {
    let mut frr = engine.frr()?;
    let world = engine.kernel()?.whole_world()?;
    let mut networks = Vec::new();
    let mut dumps: Vec<(NetName, Option<Result<Dump, SpeakerError>>)> = Vec::new();
    for record in engine.register.networks() {
        let record = record?;
        // One dump a network instead of questions per endpoint: a host may have thousands.
        let vni = record.network.vni;
        dumps.push((record.network.name.clone(), frr.as_mut().map(|frr| frr.dump(vni))));
        networks.push(network(engine, &world, &record.network, record.vtep, frr.as_mut())?);
    }
    for wanted in engine.config()?.networks.clone() {
        if !networks.iter().any(|n| n.name == wanted.name) {
            networks.push(NetworkStatus {
                problems: vec![format!("not up: 'evpn-hook network up {}'", wanted.name)],
                vtep: None,
                ..of(&wanted, "down")
            });
        }
    }
    let mut endpoints = Vec::new();
    let records = engine.register.guests().into_iter().collect::<Result<Vec<_>, _>>()?;
    let (claims, now) = (Claims::of(&records), boot_seconds());
    for record in &records {
        for e in &record.endpoints {
            let dump = dumps.iter().find(|(name, _)| *name == e.network).and_then(|(_, dump)| dump.as_ref());
            let said = dump.and_then(|dump| dump.as_ref().ok());
            let others = duplicates::of(&world, said, &claims, &record.guest, e, now);
            let mut status = endpoint(&world, &record.guest, e, dump);
            status.problems.extend(others.iter().map(|other| format!("{other}: {}", other.mend())));
            endpoints.push(status);
        }
    }
    Ok(Status { networks, endpoints })
}

fn of(network: &Network, state: &'static str) -> NetworkStatus {
    NetworkStatus {
        name: network.name.clone(),
        bridge: network.bridge.clone(),
        vni: network.vni,
        vrf: network.vrf.clone(),
        vtep: None,
        state,
        problems: Vec::new(),
    }
}

fn network(
    engine: &mut Engine,
    world: &World,
    network: &Network,
    vtep: IpAddr,
    frr: Option<&mut Frr>,
) -> Result<NetworkStatus, EngineError> {
    let (there, mut problems) = host_wants(engine, world, network, vtep)?;
    match frr.map(|f| f.vni(network.vni)) {
        Some(Ok(Some(_))) | None => {}
        Some(Ok(None)) => problems.push(format!(
            "FRR does not know VNI {}: is advertise-all-vni in 'address-family l2vpn evpn'?",
            network.vni
        )),
        Some(Err(error)) => problems.push(error.to_string()),
    }
    let state = match (there, problems.is_empty()) {
        (false, _) => "down",
        (true, false) => "degraded",
        (true, true) => "up",
    };
    Ok(NetworkStatus { vtep: Some(vtep), problems, ..of(network, state) })
}

fn endpoint(
    world: &World,
    guest: &Guest,
    endpoint: &Endpoint,
    dump: Option<&Result<Dump, SpeakerError>>,
) -> EndpointStatus {
    let mut problems = Vec::new();
    let held = match lacks(world, &guest.to_string(), endpoint) {
        Ok(missing) => {
            problems.extend(missing.iter().map(|p| format!("missing: {}", p.step)));
            missing.is_empty()
        }
        Err(refusal) => {
            problems.push(refusal.to_string());
            false
        }
    };
    let state = match (endpoint.stage, endpoint.mac, dump) {
        (Stage::Incoming, ..) => "incoming",
        _ if !held => "failed",
        // What a silent speaker is about stands at the network already.
        (_, Some(mac), Some(Ok(dump))) => match dump.advertised(mac, &endpoint.addresses()).problem() {
            None => "advertised",
            Some(problem) => {
                problems.push(problem);
                "registered"
            }
        },
        _ => "registered",
    };
    EndpointStatus {
        guest: guest.clone(),
        network: endpoint.network.clone(),
        device: endpoint.device.clone(),
        mac: endpoint.mac,
        ips: endpoint.addresses(),
        addresses: endpoint.ips.clone(),
        state,
        problems,
    }
}

/// For people: networks with their endpoints below them, problems below each.
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    for network in &status.networks {
        let vrf = network.vrf.as_ref().map_or("layer 2 only".to_owned(), |v| {
            format!("VRF {} (table {}{})", v.name, v.table, v.vni.map_or(String::new(), |n| format!(", L3VNI {n}")))
        });
        let vtep = network.vtep.map_or(String::new(), |v| format!(", VTEP {v}"));
        let _ = writeln!(
            out,
            "{}: {}, bridge {}, VNI {}, {vrf}{vtep}",
            network.name, network.state, network.bridge, network.vni
        );
        for problem in &network.problems {
            let _ = writeln!(out, "  ! {problem}");
        }
        for endpoint in status.endpoints.iter().filter(|e| e.network == network.name) {
            endpoint_text(&mut out, endpoint);
        }
    }
    let lost = |e: &&EndpointStatus| !status.networks.iter().any(|n| n.name == e.network);
    for endpoint in status.endpoints.iter().filter(lost) {
        let _ = writeln!(out, "{}: gone", endpoint.network);
        endpoint_text(&mut out, endpoint);
    }
    if out.is_empty() {
        out.push_str("no networks of evpn-hook's are up: 'virsh net-start NAME' or 'evpn-hook network up NAME'\n");
    }
    out
}

fn endpoint_text(out: &mut String, endpoint: &EndpointStatus) {
    let mac = endpoint.mac.map_or("MAC unknown".to_owned(), |m| m.to_string());
    let ips: Vec<String> = endpoint.addresses.iter().map(|a| format!("{} ({})", a.ip, a.source)).collect();
    let _ = writeln!(
        out,
        "  {:<24} {:<15} {mac}  {:<10} {}",
        endpoint.guest.to_string(),
        endpoint.device,
        endpoint.state,
        ips.join(" ")
    );
    for problem in &endpoint.problems {
        let _ = writeln!(out, "    ! {problem}");
    }
}
