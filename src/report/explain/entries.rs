//! Which of the kernel's entries a chain needs. A bridge holds those of the whole fabric: where these are many, only what is meant is asked for.

use super::find::Asked;
use crate::checks::unheard::Speaker;
use crate::engine::{Engine, EngineError, Entries};
use crate::model::Guest;
use crate::plan::seen::World;
use crate::register::{Endpoint, NetworkRecord};
use crate::speaker::{Frr, SpeakerError};

/// From so many MACs and addresses of the fabric on, those that matter are asked for one by one: the kernel's lists of so many take some ms.
pub(in crate::report) const MANY: usize = 2000;

/// The host, with all entries or those that a chain needs.
pub(super) fn world(
    engine: &mut Engine,
    speaker: Option<&mut Speaker>,
    asked: &Asked,
    here: &[(&Guest, &Endpoint)],
    networks: &[NetworkRecord],
) -> Result<World, EngineError> {
    // What was taken from others is told by what else these have. And where FRR does not tell how many there are, all are read.
    let taken = here.iter().any(|(_, endpoint)| !endpoint.taken.is_empty());
    let Some(speaker) = speaker.filter(|_| !taken) else { return engine.whole_world() };
    let wanted = speaker.ask(|frr| match frr.entries()? {
        0..MANY => Ok::<_, SpeakerError>(None),
        _ if here.is_empty() => of_another_host(frr, asked, networks).map(Some),
        _ => of_this_host(frr, here, networks).map(Some),
    });
    let Ok(Some(mut wanted)) = wanted else { return engine.whole_world() };
    // The kernel may have the address with another MAC than zebra.
    if let (Asked::Ip(ip), []) = (asked, here) {
        for entries in &mut wanted {
            let kernel = engine.kernel()?;
            if let Some(bridge) = kernel.link(&entries.bridge)? {
                entries.macs.extend(kernel.neigh(bridge.index, *ip)?.and_then(|neigh| neigh.mac));
            }
        }
    }
    engine.world_with(&wanted)
}

/// Its entries, and what it says of itself: zebra has the kernel's neighbours by their MAC.
fn of_this_host(
    frr: &mut Frr,
    here: &[(&Guest, &Endpoint)],
    networks: &[NetworkRecord],
) -> Result<Vec<Entries>, SpeakerError> {
    let mut wanted = Vec::new();
    for (_, endpoint) in here {
        let (mut ips, bridge) = (endpoint.addresses(), endpoint.bridge.clone());
        let network = networks.iter().find(|record| record.network.bridge == bridge);
        if let (Some(mac), Some(record)) = (endpoint.mac, network) {
            ips.extend(frr.mac_with_addresses(record.network.vni, mac)?.1);
        }
        ips.sort();
        ips.dedup();
        wanted.push(Entries { bridge, macs: Vec::from_iter(endpoint.mac), ips });
    }
    Ok(wanted)
}

/// The MAC and its addresses, or the address and its MAC, on each network: it is not known yet on which it is.
fn of_another_host(frr: &mut Frr, asked: &Asked, networks: &[NetworkRecord]) -> Result<Vec<Entries>, SpeakerError> {
    let mut wanted = Vec::new();
    for NetworkRecord { network, .. } in networks {
        let (macs, ips) = match asked {
            Asked::Name(_) => (Vec::new(), Vec::new()),
            Asked::Mac(mac) => (vec![*mac], frr.mac_with_addresses(network.vni, *mac)?.1),
            Asked::Ip(ip) => (Vec::from_iter(frr.arp(network.vni, *ip)?.mac()), vec![*ip]),
        };
        wanted.push(Entries { bridge: network.bridge.clone(), macs, ips });
    }
    Ok(wanted)
}
