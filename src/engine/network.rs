//! Networks: start, started, updated, stopped.

use super::{Engine, EngineError, host, noting};
use crate::apply::{all, most};
use crate::config::{Network, Origin};
use crate::event::NetworkPhase;
use crate::journal::Message;
use crate::kernel::{Kernel, sysctl};
use crate::model::{IfName, NetName};
use crate::plan::network::{Ours, Seen, Wanted, down, precheck, up};
use crate::plan::seen::LinkKind;
use crate::plan::{Plan, Planned, Step};
use crate::register::{GuestRecord, NetworkRecord, VrfRecord};
use crate::speaker::{Added, Frr};
use std::net::IpAddr;

/// Asks the kernel for all that a network's plan depends on. Not on any guest's path: full lists are fine here.
pub fn observe(kernel: &mut Kernel, network: &Network) -> Result<Seen, EngineError> {
    let bridge = kernel.link(&network.bridge)?;
    let (mut bridge_addresses, mut bridge_ports) = (Vec::new(), Vec::new());
    if let Some(bridge) = &bridge {
        let ports = kernel.ports_of(bridge.index)?;
        bridge_ports = ports.into_iter().map(|l| l.name).filter(|n| *n != network.vni.device()).collect();
        let all = kernel.addresses(Some(bridge.index))?;
        bridge_addresses = all.into_iter().filter(|a| a.global).map(|a| a.net).collect();
    }
    // What a bridge that is still to be made will start with.
    let like = if bridge.is_some() { network.bridge.as_str() } else { "default" };
    let off = sysctl(&format!("net/ipv6/conf/{like}/disable_ipv6"))?;
    let mut seen = Seen {
        bridge,
        bridge_addresses,
        bridge_ports,
        bridge_ipv6_off: off.is_some_and(|v| v.trim() == "1"),
        names: kernel.all_links()?.into_iter().map(|l| (l.index, l.name)).collect(),
        vxlans: kernel.links_of_kind("vxlan")?,
        ..Seen::default()
    };
    for vni in [Some(network.vni), network.vrf.as_ref().and_then(|v| v.vni)].into_iter().flatten() {
        let stranger = kernel.link(&vni.device())?.filter(|l| !matches!(l.kind, LinkKind::Vxlan { .. }));
        seen.strangers.extend(stranger.map(|l| l.name));
    }
    let Some(vrf) = &network.vrf else { return Ok(seen) };
    seen.vrfs = kernel.links_of_kind("vrf")?;
    seen.vrf = kernel.link(&vrf.name)?;
    let l3 = vrf.name.l3_bridge().ok();
    if let (Some(l3), Some(_)) = (&l3, vrf.vni) {
        seen.l3_bridge = kernel.link(l3)?;
    }
    if let Some(vrf) = &seen.vrf {
        let ours = |name: &IfName| *name == network.bridge || l3.as_ref() == Some(name);
        let slaves = kernel.ports_of(vrf.index)?;
        seen.vrf_foreign_slaves = slaves.into_iter().map(|l| l.name).filter(|n| !ours(n)).collect();
    }
    seen.host = host::observe(kernel)?;
    Ok(seen)
}

/// Is the network's bridge there, and what is missing of it, in words (`status`).
pub fn host_wants(engine: &mut Engine, network: &Network, vtep: IpAddr) -> Result<(bool, Vec<String>), EngineError> {
    let mut frr = engine.frr()?;
    let config = engine.config()?;
    let (manage_vrfs, manage_host, port) = (config.speaker.manage_vrfs, config.manage_host, config.vtep.port);
    let mut seen = observe(engine.kernel()?, network)?;
    if let (Some(frr), Some(vrf)) = (&mut frr, &network.vrf) {
        // A silent FRR is a problem of its own, which the caller tells.
        seen.speaker_has_vrf = frr.missing(vrf).map_or(true, |m| m.is_empty());
    }
    let want = Wanted { network, vtep, port, manage_speaker: frr.is_some() && manage_vrfs, manage_host };
    let missing = match up(&want, &seen) {
        Ok(plan) => plan.iter().map(|p| format!("missing: {}", p.step)).collect(),
        Err(refusal) => vec![refusal.to_string()],
    };
    Ok((seen.bridge.is_some(), missing))
}

impl Engine {
    pub(super) fn network(&mut self, phase: NetworkPhase, network: Network) -> Result<(), EngineError> {
        self.journal.object = network.name.to_string();
        match phase {
            // libvirt has made nothing yet, so of its own bridges only what contradicts can be told now.
            NetworkPhase::Start if network.origin == Origin::Libvirt => self.check_network(network),
            NetworkPhase::Start | NetworkPhase::Started => self.network_up(network),
            NetworkPhase::Updated => self.network_updated(&network),
        }
    }

    /// The VTEP, and the network with its MTU resolved.
    fn resolve(&mut self, mut network: Network) -> Result<(Network, IpAddr), EngineError> {
        self.config()?;
        let config = self.config.clone().unwrap_or_default();
        let (vtep, mtu) = host::vtep_and_mtu(&config, self.kernel()?)?;
        network.mtu.get_or_insert(mtu);
        Ok((network, vtep))
    }

    fn check_network(&mut self, network: Network) -> Result<(), EngineError> {
        let (network, _) = self.resolve(network)?;
        self.check_owner(&network)?;
        let seen = observe(self.kernel()?, &network)?;
        Ok(precheck(&network, &seen)?)
    }

    /// A bridge is one network's, and a name one bridge's.
    fn check_owner(&mut self, network: &Network) -> Result<(), EngineError> {
        if let Some(other) = self.register.network_of_bridge(&network.bridge)?
            && other.network.name != network.name
        {
            return EngineError::refused(format!(
                "network {}: bridge {} is network {}'s already: use another bridge name",
                network.name, network.bridge, other.network.name
            ));
        }
        if let Some(other) = self.register.network(&network.name)?
            && other.network.bridge != network.bridge
        {
            return EngineError::refused(format!(
                "network {}: it is up on bridge {}: take it down before it moves to {}",
                network.name, other.network.bridge, network.bridge
            ));
        }
        Ok(())
    }

    fn network_up(&mut self, network: Network) -> Result<(), EngineError> {
        let (network, vtep) = self.resolve(network)?;
        self.check_owner(&network)?;
        // A second VXLAN beside the first would join two segments; a VXLAN device does not change its VNI or VTEP.
        if let Some(before) = self.register.network(&network.name)?
            && (before.network.vni, before.vtep) != (network.vni, vtep)
        {
            return EngineError::refused(format!(
                "network {0}: it is up with VNI {1} and VTEP {2}, not VNI {3} and VTEP {vtep}: take it down first ('virsh net-destroy {0}' or 'evpn-hook network down {0}')",
                network.name, before.network.vni, before.vtep, network.vni
            ));
        }
        // Two networks that start at once in one VRF must agree on who makes it. Held across vtysh, but by nobody else's
        // network and by no guest.
        let _lock = match &network.vrf {
            Some(vrf) if !self.dry_run => Some(self.register.lock_vrf(&vrf.name)?),
            _ => None,
        };
        let result = self.bring_up(&network, vtep);
        // A lock that guards no record would stay for ever.
        if let (Err(_), Some(vrf), false) = (&result, &network.vrf, self.dry_run)
            && matches!(self.register.vrf(&vrf.name), Ok(None))
        {
            self.register.remove_vrf(&vrf.name)?;
        }
        result
    }

    /// observe → plan → claim → apply → settle. Call with the VRF's lock held.
    fn bring_up(&mut self, network: &Network, vtep: IpAddr) -> Result<(), EngineError> {
        let mut frr = self.frr()?;
        let (manage_vrfs, manage_host, port) = {
            let config = self.config()?;
            (config.speaker.manage_vrfs, config.manage_host, config.vtep.port)
        };
        let mut seen = observe(self.kernel()?, network)?;
        let vrf_before = match &network.vrf {
            Some(vrf) => self.register.vrf(&vrf.name)?,
            None => None,
        };
        if let (Some(before), Some(vrf)) = (&vrf_before, &network.vrf)
            && before.vrf != *vrf
        {
            return EngineError::refused(format!(
                "network {}: VRF {} is up already: make the two descriptions agree, this one says {vrf}",
                network.name, before.vrf
            ));
        }
        let mut missing = None;
        if let (Some(frr), Some(vrf)) = (&mut frr, &network.vrf) {
            missing = frr.missing(vrf).ok();
            seen.speaker_has_vrf = missing.as_ref().is_some_and(Added::is_empty);
        }
        let want = Wanted { network, vtep, port, manage_speaker: frr.is_some() && manage_vrfs, manage_host };
        let plan = up(&want, &seen)?;
        if self.dry_run {
            return self.print(&plan);
        }

        let before = self.register.network_of_bridge(&network.bridge)?;
        let makes = |name: &IfName| {
            plan.iter().any(|p| match &p.step {
                Step::AddBridge { name: n, .. } | Step::AddVrf { name: n, .. } => n == name,
                _ => false,
            })
        };
        let record = NetworkRecord {
            made_bridge: makes(&network.bridge) || before.as_ref().is_some_and(|b| b.made_bridge),
            network: network.clone(),
            vtep,
            settled: false,
        };
        let earlier = vrf_before.as_ref().and_then(|b| b.speaker.clone());
        let vrf_record = network.vrf.as_ref().map(|vrf| VrfRecord {
            made: makes(&vrf.name) || vrf_before.as_ref().is_some_and(|b| b.made),
            vrf: vrf.clone(),
            // Claimed before it is said: what a crash leaves in the speaker is known to be ours.
            speaker: match missing.filter(|_| want.manage_speaker) {
                Some(missing) => Some(missing.with(&earlier.clone().unwrap_or_default())),
                None => earlier.clone(),
            },
        });
        let touched = host::remember(self, &plan)?;
        let result = self.claim_and_apply(&plan, record, vrf_record, frr.as_mut(), earlier);
        if result.is_err() {
            match before {
                Some(before) => self.register.put_network(&before)?,
                None => self.register.remove_network(network)?,
            }
            match (vrf_before, &network.vrf) {
                (Some(before), _) => self.register.put_vrf(&before)?,
                (None, Some(vrf)) => self.register.remove_vrf(&vrf.name)?,
                (None, None) => {}
            }
            // Another VRF that has come meanwhile counts on them.
            if self.register.vrfs().is_empty() {
                host::put_back(self, &touched)?;
            }
        }
        let entered =
            |p: &Planned| matches!(&p.step, Step::SetMaster { dev, master: Some(_) } if *dev == network.bridge);
        if let (Ok(()), Some(frr), true) = (&result, &mut frr, plan.iter().any(entered)) {
            self.make_addresses_known(frr, network)?;
        }
        result
    }

    fn claim_and_apply(
        &mut self,
        plan: &Plan,
        mut record: NetworkRecord,
        mut vrf_record: Option<VrfRecord>,
        frr: Option<&mut Frr>,
        earlier: Option<Added>,
    ) -> Result<(), EngineError> {
        self.register.put_network(&record)?;
        if let Some(vrf_record) = &vrf_record {
            self.register.put_vrf(vrf_record)?;
        }
        let (mut hands, journal) = self.hands(frr, earlier)?;
        all(plan, &mut hands, &mut noting(journal))?;
        let added = hands.added.take();
        record.settled = true;
        self.register.put_network(&record)?;
        if let Some(vrf_record) = &mut vrf_record {
            vrf_record.speaker = added;
            self.register.put_vrf(vrf_record)?;
        }
        let network = &record.network;
        let detail = format!(" (VNI {}, VTEP {}, {} steps)", network.vni, record.vtep, plan.len());
        self.journal.say(&Message::Done { what: "up", object: network.name.as_str(), detail: &detail });
        Ok(())
    }

    /// Takes over what may change in a running network: its DHCP hosts.
    fn network_updated(&mut self, network: &Network) -> Result<(), EngineError> {
        let Some(mut record) = self.register.network_of_bridge(&network.bridge)? else { return Ok(()) };
        if record.network.name == network.name && record.network.hosts != network.hosts {
            record.network.hosts.clone_from(&network.hosts);
            self.register.put_network(&record)?;
        }
        Ok(())
    }

    /// libvirt says it of every network; one that `network up` brought up from config.toml is not libvirt's to stop.
    pub(super) fn network_stopped(&mut self, name: &NetName) -> Result<(), EngineError> {
        match self.register.network(name)? {
            Some(record) if record.network.origin == Origin::LibvirtBridge => {
                // libvirt leaves guests on a bridge that it did not make: what carries them stays, or they would lose their routes, and
                // outside its VRF the bridge's addresses would be the host's own.
                let ports = observe(self.kernel()?, &record.network)?.bridge_ports;
                if ports.is_empty() {
                    return self.network_down(name);
                }
                let what = format!(
                    "network {name} is left up, for {}: 'evpn-hook network down {name}' once they are gone",
                    names(&ports)
                );
                self.journal.say(&Message::Warning(&what));
                Ok(())
            }
            Some(record) if record.network.origin == Origin::Libvirt => self.network_down(name),
            _ => Ok(()),
        }
    }

    /// Takes down what we set up for this network; one that is not ours is none of our business.
    pub fn network_down(&mut self, name: &NetName) -> Result<(), EngineError> {
        self.journal.object = name.to_string();
        let Some(record) = self.register.network(name)? else { return Ok(()) };
        let network = &record.network;
        let _lock = match &network.vrf {
            Some(vrf) if !self.dry_run => Some(self.register.lock_vrf(&vrf.name)?),
            _ => None,
        };
        let vrf_record = match &network.vrf {
            Some(vrf) => self.register.vrf(&vrf.name)?,
            None => None,
        };
        let sibling = |other: &NetworkRecord| {
            other.network.name != *name
                && other.network.vrf.as_ref().map(|v| &v.name) == network.vrf.as_ref().map(|v| &v.name)
        };
        let last_in_vrf = network.vrf.is_some() && !self.register.networks().iter().flatten().any(sibling);
        // Taking down must not fail for a config.toml that was broken since.
        let mut frr = self.frr().ok().flatten();
        let seen = observe(self.kernel()?, network)?;
        let added = vrf_record.as_ref().and_then(|r| r.speaker.clone());
        let ours = Ours {
            network,
            made_bridge: record.made_bridge,
            last_in_vrf,
            made_vrf: vrf_record.as_ref().is_some_and(|r| r.made),
            speaker_has_ours: added.is_some(),
        };
        let mut plan = self.neighbours_down(network)?;
        plan.extend(down(&ours, &seen));
        if self.dry_run {
            return self.print(&plan);
        }
        let (mut hands, journal) = self.hands(frr.as_mut(), added)?;
        most(&plan, &mut hands, &mut noting(journal));
        let left = hands.added.take();
        self.register.remove_network(network)?;
        match (&network.vrf, vrf_record) {
            // What a silent speaker still has of ours is remembered for the next one who asks it.
            (Some(_), Some(record)) if last_in_vrf && left.is_some() => {
                self.register.put_vrf(&VrfRecord { speaker: left, ..record })?;
            }
            (Some(vrf), _) if last_in_vrf => self.register.remove_vrf(&vrf.name)?,
            _ => {}
        }
        self.journal.say(&Message::Done { what: "down", object: name.as_str(), detail: "" });
        Ok(())
    }

    /// Our neighbours on a bridge that stays: they go before the VXLAN does, or zebra keeps ghosts.
    fn neighbours_down(&mut self, network: &Network) -> Result<Plan, EngineError> {
        let kernel = self.kernel()?;
        let Some(bridge) = kernel.link(&network.bridge)? else { return Ok(Plan::new()) };
        if !matches!(bridge.kind, LinkKind::Bridge { .. }) {
            return Ok(Plan::new());
        }
        let ours = kernel.neighs(bridge.index)?.into_iter().filter(|n| n.ours && !n.ext_learned);
        let del = |ip| Step::DelNeigh { bridge: network.bridge.clone(), ip };
        Ok(ours.map(|n| crate::plan::Planned { step: del(n.ip), undo: Vec::new() }).collect())
    }

    /// `network up NAME`: from config.toml, or again as it was recorded.
    pub fn network_by_name(&mut self, name: &NetName) -> Result<Network, EngineError> {
        // One that libvirt started stays libvirt's, with what its XML says, though config.toml describes it as well.
        let record = self.register.network(name)?.filter(|r| r.network.origin != Origin::Config);
        match record.map(|r| r.network).or(self.config()?.network(name).cloned()) {
            Some(network) => Ok(network),
            None => EngineError::refused(format!(
                "network {name} is unknown: start it with 'virsh net-start {name}', or describe it in config.toml and run 'evpn-hook network up {name}'"
            )),
        }
    }

    /// `network up`
    pub fn network_up_by_name(&mut self, name: &NetName) -> Result<(), EngineError> {
        self.journal.object = name.to_string();
        let network = self.network_by_name(name)?;
        self.network_up(network)
    }

    /// `network down`: unlike libvirt's `stopped`, refused while guests are on it.
    pub fn network_down_by_name(&mut self, name: &NetName) -> Result<(), EngineError> {
        self.journal.object = name.to_string();
        let Some(record) = self.register.network(name)? else {
            return EngineError::refused(format!("network {name} is not up: see 'evpn-hook status'"));
        };
        let on_it = |r: &GuestRecord| r.endpoints.iter().any(|e| e.network == *name);
        let guests: Vec<String> =
            self.register.guests().into_iter().flatten().filter(on_it).map(|r| r.guest.to_string()).collect();
        if !guests.is_empty() {
            return EngineError::refused(format!(
                "network {name} still has {}: stop or detach first",
                guests.join(", ")
            ));
        }
        let ports = observe(self.kernel()?, &record.network)?.bridge_ports;
        if !ports.is_empty() {
            return EngineError::refused(format!(
                "network {name}: bridge {} still has ports: take {} off it first",
                record.network.bridge,
                names(&ports)
            ));
        }
        self.network_down(name)
    }

    fn print(&mut self, plan: &Plan) -> Result<(), EngineError> {
        crate::report::plan(plan);
        Ok(())
    }
}

fn names(devices: &[IfName]) -> String {
    devices.iter().map(IfName::as_str).collect::<Vec<_>>().join(", ")
}
