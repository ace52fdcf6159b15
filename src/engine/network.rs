//! Networks: start, started, updated, stopped.

use super::look::{Clashes, around, around_with_ports, devices_of, devices_of_vrf, observe, observe_vrf};
use super::{Engine, EngineError, host};
use crate::config::{Network, Origin, PortSecurity};
use crate::event::NetworkPhase;
use crate::journal::Message;
use crate::model::{IfName, NetName};
use crate::plan::network::{OurVrf, Ours, Seen, Wanted, down, precheck, up, vrf_down};
use crate::plan::seen::{LinkKind, World};
use crate::plan::{Plan, Planned, Refusal, Step};
use crate::register::{GuestRecord, NetworkRecord, VrfRecord};
use crate::speaker::{Added, Frr, Version};
use crate::tape;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What a network's plan begins with.
struct Asked {
    seen: Seen,
    /// What the speaker lacks of the VRF; `None` where it does not say, or nobody is to ask.
    missing: Option<Added>,
    manage_speaker: bool,
    manage_host: bool,
    tenant_bgp: bool,
    port: u16,
    network_before: Option<NetworkRecord>,
    vrf_before: Option<VrfRecord>,
}

impl Asked {
    fn wanted<'a>(&self, network: &'a Network, vtep: IpAddr) -> Wanted<'a> {
        let Asked { port, manage_speaker, manage_host, tenant_bgp, .. } = *self;
        Wanted { network, vtep, port, manage_speaker, manage_host, tenant_bgp }
    }

    /// Of these devices those that we made: earlier, or with what is about to be done; a lost register is made up for by their marks.
    fn made(&self, devices: &[IfName], before: &BTreeSet<IfName>, plan: &Plan) -> BTreeSet<IfName> {
        let makes = |name: &IfName| {
            plan.iter().any(|p| match &p.step {
                Step::AddBridge { name: n, .. } | Step::AddVrf { name: n, .. } => n == name,
                Step::AddVxlan { vni, .. } => vni.device() == *name,
                _ => false,
            })
        };
        devices.iter().filter(|n| before.contains(n) || self.seen.made.contains(n) || makes(n)).cloned().collect()
    }
}

/// Why this speaker cannot announce that tunnel end; none where it can, or does not say what it is.
fn speaks_not(frr: Option<&mut Frr>, vtep: IpAddr) -> Option<String> {
    let version = frr.filter(|_| vtep.is_ipv6())?;
    let version = tape::told("FRR: version", || version.version().ok().flatten())?;
    (version < Version::IPV6_VTEP).then(|| {
        format!(
            "VTEP {vtep} is IPv6, and FRR {version} would announce routes that lead to no VTEP: give this host an IPv4 VTEP ([vtep] address in config.toml), or FRR {} or newer",
            Version::IPV6_VTEP
        )
    })
}

/// What is missing of a network on this host.
pub struct HostLacks {
    /// Its bridge is there.
    pub there: bool,
    /// What would make it whole, or what is in the way. What a silent FRR lacks is not in it.
    pub plan: Result<Plan, Refusal>,
    /// Why FRR cannot announce this host's tunnel end.
    pub speaks_not: Option<String>,
}

/// What is missing of a network on this host; nothing is locked or written.
pub fn host_lacks(
    engine: &mut Engine,
    world: &World,
    network: &Network,
    vtep: IpAddr,
) -> Result<HostLacks, EngineError> {
    let mut frr = engine.frr()?;
    let mut asked = engine.ask(world, network, frr.as_mut())?;
    // A silent FRR is a problem of its own, which the caller tells.
    asked.seen.speaker_has_vrf |= asked.missing.is_none();
    let plan = up(&asked.wanted(network, vtep), &asked.seen);
    Ok(HostLacks { there: asked.seen.bridge.is_some(), plan, speaks_not: speaks_not(frr.as_mut(), vtep) })
}

/// Is the network's bridge there, and what is missing of it, in words (`status`).
pub fn host_wants(
    engine: &mut Engine,
    world: &World,
    network: &Network,
    vtep: IpAddr,
) -> Result<(bool, Vec<String>), EngineError> {
    let lacks = host_lacks(engine, world, network, vtep)?;
    let mut missing: Vec<String> = match lacks.plan {
        Ok(plan) => plan.iter().map(|p| format!("missing: {}", p.step)).collect(),
        Err(refusal) => vec![refusal.to_string()],
    };
    missing.extend(lacks.speaks_not);
    Ok((lacks.there, missing))
}

impl Engine {
    pub(super) fn network(&mut self, phase: NetworkPhase, network: Network) -> Result<(), EngineError> {
        self.journal.object = network.name.to_string();
        match phase {
            // libvirt has made nothing yet, so of its own bridges only what contradicts can be told now.
            NetworkPhase::Start if network.origin == Origin::Libvirt => self.check_network(network),
            NetworkPhase::Start => self.network_up(network),
            // Its `start` has sought what else has its VNIs and its table.
            NetworkPhase::Started if network.origin == Origin::Libvirt => {
                self.network_up_if(network, Clashes::Known, |_| true)
            }
            NetworkPhase::Started => self.network_up(network),
            NetworkPhase::Updated => self.network_updated(&network),
        }
    }

    /// The VTEP, and the network with its MTU resolved.
    fn resolve(&mut self, mut network: Network) -> Result<(Network, IpAddr), EngineError> {
        let (vtep, mtu) = host::vtep_and_known_mtu(self, &network)?;
        network.mtu.get_or_insert(mtu);
        Ok((network, vtep))
    }

    fn check_network(&mut self, network: Network) -> Result<(), EngineError> {
        let (network, vtep) = self.resolve(network)?;
        self.check_owner(&network)?;
        self.check_vtep(&network, vtep)?;
        let world = around(self.kernel()?, &network, Clashes::Sought)?;
        let seen = observe(self.kernel()?, &world, &network)?;
        Ok(precheck(&network, &seen)?)
    }

    /// Routes that lead nowhere are worse than none: other hosts would send this network's traffic to them.
    fn check_vtep(&mut self, network: &Network, vtep: IpAddr) -> Result<(), EngineError> {
        let mut frr = if vtep.is_ipv6() { self.frr()? } else { None };
        match speaks_not(frr.as_mut(), vtep) {
            Some(why) => EngineError::refused(format!("network {}: {why}", network.name)),
            None => Ok(()),
        }
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

    /// Brings a network up, or completes one that is half up.
    pub(super) fn network_up(&mut self, network: Network) -> Result<(), EngineError> {
        self.network_up_if(network, Clashes::Sought, |_| true)
    }

    /// Completes one that is up, unless it was taken down meanwhile.
    pub(super) fn network_again(&mut self, network: Network) -> Result<(), EngineError> {
        self.network_up_if(network, Clashes::Sought, |before| before.is_some())
    }

    fn network_up_if(
        &mut self,
        network: Network,
        clashes: Clashes,
        wanted: impl Fn(Option<&NetworkRecord>) -> bool,
    ) -> Result<(), EngineError> {
        let (network, vtep) = self.resolve(network)?;
        self.check_owner(&network)?;
        self.check_vtep(&network, vtep)?;
        // A second VXLAN beside the first would join two segments; a VXLAN device does not change its VNI or VTEP.
        if let Some(before) = self.register.network(&network.name)?
            && (before.network.vni, before.vtep) != (network.vni, vtep)
        {
            return EngineError::refused(format!(
                "network {0}: it is up with VNI {1} and VTEP {2}, not VNI {3} and VTEP {vtep}: take it down first ('virsh net-destroy {0}' or 'evpn-hook network down {0}')",
                network.name, before.network.vni, before.vtep, network.vni
            ));
        }
        // Held across vtysh, but by nobody else's network and by no guest.
        let _lock = if self.dry_run { None } else { Some(self.register.lock_network(&network)?) };
        let result = match wanted(self.register.network(&network.name)?.as_ref()) {
            true => self.bring_up(&network, vtep, clashes),
            false => Ok(()),
        };
        let result = match result {
            // What the kernel refuses is another's, often: who that is shows a look at everything.
            Err(EngineError::Apply(error)) => Err(self.in_the_way(&network, vtep).unwrap_or(EngineError::Apply(error))),
            result => result,
        };
        if result.is_ok() && !self.dry_run && network.security() != PortSecurity::Off {
            self.hold_ports_of(&network)?;
        }
        if !self.dry_run && matches!(self.register.network_of_bridge(&network.bridge), Ok(None)) {
            self.register.remove_network(&network)?;
        }
        // A lock that guards no record would stay for ever.
        if let (Err(_), Some(vrf), false) = (&result, &network.vrf, self.dry_run)
            && matches!(self.register.vrf(&vrf.name), Ok(None))
        {
            self.register.remove_vrf(&vrf.name)?;
        }
        result
    }

    /// Observes, the speaker and the register included.
    fn ask(&mut self, world: &World, network: &Network, frr: Option<&mut Frr>) -> Result<Asked, EngineError> {
        let (manage_vrfs, manage_host, tenant_bgp, port) = {
            let config = self.config()?;
            (config.speaker.manage_vrfs, config.manage_host, config.tenant_bgp, config.vtep.port)
        };
        let mut seen = observe(self.kernel()?, world, network)?;
        let network_before = self.register.network_of_bridge(&network.bridge)?;
        let vrf_before = match &network.vrf {
            Some(vrf) => self.register.vrf(&vrf.name)?,
            None => None,
        };
        seen.made.extend(network_before.iter().flat_map(|b| b.made.clone()));
        seen.made.extend(vrf_before.iter().flat_map(|b| b.made.clone()));
        let devices = devices_of(network).into_iter().chain(network.vrf.iter().flat_map(devices_of_vrf));
        seen.made.extend(devices.filter(|dev| world.link(dev).is_some_and(|l| l.ours)));
        let manage_speaker = frr.is_some() && manage_vrfs;
        let missing = match (frr, &network.vrf) {
            (Some(frr), Some(vrf)) => {
                tape::told(format_args!("FRR: what it lacks of VRF {}", vrf.name), || frr.missing(vrf).ok())
            }
            _ => None,
        };
        seen.speaker_has_vrf = missing.as_ref().is_some_and(Added::is_empty);
        Ok(Asked { seen, missing, manage_speaker, manage_host, tenant_bgp, port, network_before, vrf_before })
    }

    /// Would bringing it up change anything? Nothing is locked or written.
    pub(super) fn network_lacks(
        &mut self,
        world: &World,
        record: &NetworkRecord,
        frr: Option<&mut Frr>,
    ) -> Result<bool, EngineError> {
        let mut asked = self.ask(world, &record.network, frr)?;
        // A silent speaker lacks nothing that it could be given now.
        asked.seen.speaker_has_vrf |= asked.missing.is_none();
        let plan = up(&asked.wanted(&record.network, record.vtep), &asked.seen)?;
        // What carries our mark goes with the network, and the record has to say so.
        let forgotten = |dev: &IfName| asked.seen.made.contains(dev) && !record.made.contains(dev);
        let forgets = devices_of(&record.network).iter().any(forgotten);
        Ok(!plan.is_empty() || forgets || record.network.vrf.is_some() && asked.vrf_before.is_none())
    }

    /// Why a network cannot be, seen with everything that is there; none where nothing is in its way.
    fn in_the_way(&mut self, network: &Network, vtep: IpAddr) -> Option<EngineError> {
        let world = self.kernel().and_then(|kernel| Ok(kernel.world()?)).ok()?;
        let asked = self.ask(&world, network, None).ok()?;
        up(&asked.wanted(network, vtep), &asked.seen).err().map(EngineError::from)
    }

    /// observe → plan → claim → apply → journal. Call with the VRF's lock held.
    fn bring_up(&mut self, network: &Network, vtep: IpAddr, clashes: Clashes) -> Result<(), EngineError> {
        let mut frr = self.frr()?;
        let world = around(self.kernel()?, network, clashes)?;
        let mut asked = self.ask(&world, network, frr.as_mut())?;
        if let (Some(before), Some(vrf)) = (&asked.vrf_before, &network.vrf)
            && before.vrf != *vrf
        {
            return EngineError::refused(format!(
                "network {}: VRF {} is up already: make the two descriptions agree, this one says {vrf}",
                network.name, before.vrf
            ));
        }
        let want = asked.wanted(network, vtep);
        let plan = up(&want, &asked.seen)?;
        if self.dry_run {
            self.planned.extend(plan);
            return Ok(());
        }
        let made_before = asked.network_before.as_ref().map(|b| b.made.clone()).unwrap_or_default();
        let record = NetworkRecord {
            made: asked.made(&devices_of(network), &made_before, &plan),
            network: network.clone(),
            vtep,
        };
        let earlier = match (&asked.vrf_before, &network.vrf) {
            (Some(before), _) => before.speaker.clone(),
            // The register was lost. The VRF carries our mark, so what the speaker has of it came from us, too.
            (None, Some(vrf)) if asked.manage_speaker && asked.seen.made.contains(&vrf.name) => {
                let router_id = frr.as_mut().and_then(|frr| frr.router_id().ok().flatten());
                Some(Added::whole(vrf, router_id))
            }
            (None, _) => None,
        };
        let vrf_record = network.vrf.as_ref().map(|vrf| {
            let made_before = asked.vrf_before.as_ref().map(|b| b.made.clone()).unwrap_or_default();
            VrfRecord {
                made: asked.made(&devices_of_vrf(vrf), &made_before, &plan),
                vrf: vrf.clone(),
                // Claimed before it is said: what a crash leaves in the speaker is known to be ours.
                speaker: match asked.missing.take().filter(|_| asked.manage_speaker) {
                    Some(missing) => Some(missing.with(&earlier.clone().unwrap_or_default())),
                    None => earlier.clone(),
                },
            }
        });
        if plan.is_empty() && asked.network_before.as_ref() == Some(&record) && asked.vrf_before == vrf_record {
            return Ok(());
        }
        let holds_anew = asked.network_before.as_ref().is_some_and(|b| b.network.security() != network.security());
        let touched = host::remember(self, &plan)?;
        let result = self.claim_and_apply(&plan, record, vrf_record, frr.as_mut(), earlier);
        if let Err(error) = &result {
            let restored = [
                match &asked.network_before {
                    Some(before) => self.register.put_network(before),
                    None => self.register.remove_network(network),
                },
                match (&asked.vrf_before, &network.vrf) {
                    (Some(before), _) => self.register.put_vrf(before),
                    (None, Some(vrf)) => self.register.remove_vrf(&vrf.name),
                    (None, None) => Ok(()),
                },
            ];
            // Where nothing can be written, nothing was: that is told already.
            for why in restored.into_iter().filter_map(Result::err) {
                if !matches!(error, EngineError::Register(_)) {
                    self.journal.say(&Message::Warning(&why));
                }
            }
            // Another VRF that has come meanwhile counts on them.
            if self.register.vrfs().is_empty() {
                host::put_back(self, &touched)?;
            }
        }
        let (bridge, vxlan) = (&network.bridge, network.vni.device());
        let entered = |p: &Planned| matches!(&p.step, Step::SetMaster { dev, master: Some(_) } if dev == bridge);
        let anew = |p: &Planned| matches!(&p.step, Step::SetMaster { dev, master: Some(_) } if [bridge, &vxlan].contains(&dev));
        if result.is_ok() && holds_anew {
            self.ports_again(network)?;
        }
        if result.is_ok() && (plan.iter().any(anew) || holds_anew) && self.register.is_used(bridge) {
            // The kernel flushed the bridge's neighbours, or it is another bridge than the one that its guests were on: they must not wait
            // for what follows.
            self.guests_again(bridge);
        }
        if let (Ok(()), Some(frr), true) = (&result, &mut frr, plan.iter().any(entered)) {
            self.make_addresses_known(frr, network)?;
        }
        result
    }

    fn claim_and_apply(
        &mut self,
        plan: &Plan,
        record: NetworkRecord,
        vrf_record: Option<VrfRecord>,
        frr: Option<&mut Frr>,
        earlier: Option<Added>,
    ) -> Result<(), EngineError> {
        self.name_devices(&record.network);
        self.register.put_network(&record)?;
        if let Some(vrf_record) = &vrf_record {
            self.register.put_vrf(vrf_record)?;
        }
        let added = self.walk(plan, frr, earlier)?;
        // What was claimed and is not there is no harm to whoever takes it out.
        if let Some(vrf_record) = vrf_record
            && vrf_record.speaker != added
            && let Err(error) = self.register.put_vrf(&VrfRecord { speaker: added, ..vrf_record })
        {
            self.journal.say(&Message::Warning(&error));
        }
        let network = &record.network;
        let detail = format!(" (VNI {}, VTEP {}, {} steps)", network.vni, record.vtep, plan.len());
        self.journal.say(&Message::Done { what: "up", object: network.name.as_str(), detail: &detail });
        Ok(())
    }

    /// For the log: whose steps these are.
    fn name_devices(&mut self, network: &Network) {
        for device in devices_of(network).iter().chain(&network.vrf.iter().flat_map(devices_of_vrf).collect::<Vec<_>>())
        {
            self.journal.is_on(device, network.name.as_str());
        }
    }

    /// Takes over what may change in a running network: its DHCP hosts, and what its guests may send.
    pub(super) fn network_updated(&mut self, network: &Network) -> Result<(), EngineError> {
        let Some(mut record) = self.register.network_of_bridge(&network.bridge)? else { return Ok(()) };
        if record.network.name != network.name {
            return Ok(());
        }
        if record.network.port_security != network.port_security {
            record.network.port_security = network.port_security;
            self.register.put_network(&record)?;
            self.guests_again(&network.bridge);
            self.ports_again(&record.network)?;
        }
        if record.network.hosts != network.hosts {
            record.network.hosts.clone_from(&network.hosts);
            self.register.put_network(&record)?;
            self.hosts_changed(&record.network);
        }
        Ok(())
    }

    /// libvirt says it of every network; one that `network up` brought up from config.toml is not libvirt's to stop.
    pub(super) fn network_stopped(&mut self, name: &NetName) -> Result<(), EngineError> {
        match self.register.network(name)? {
            Some(record) if record.network.origin == Origin::LibvirtBridge => {
                // libvirt leaves guests on a bridge that it did not make: what carries them stays, or they would lose their routes, and
                // outside its VRF the bridge's addresses would be the host's own.
                let world = around_with_ports(self.kernel()?, &record.network, &[&record.network.bridge])?;
                let ports = observe(self.kernel()?, &world, &record.network)?.bridge_ports;
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
        let _lock = if self.dry_run { None } else { Some(self.register.lock_network(&record.network)?) };
        // Whoever had the lock may have taken it down already.
        let Some(record) = self.register.network(name)? else { return Ok(()) };
        let network = &record.network;
        let vrf_record = match &network.vrf {
            Some(vrf) => self.register.vrf(&vrf.name)?,
            None => None,
        };
        let sibling = |other: &NetworkRecord| {
            other.network.name != *name
                && other.network.vrf.as_ref().map(|v| &v.name) == network.vrf.as_ref().map(|v| &v.name)
        };
        // Taking down must not fail for a config.toml that was broken since.
        let mut frr = self.frr().ok().flatten();
        let last_in_vrf = network.vrf.is_some() && !self.register.any_network(sibling);
        // libvirt's own bridge is libvirt's to delete.
        let bridge = Some(&network.bridge).filter(|_| network.origin != Origin::Libvirt);
        let vrf = network.vrf.as_ref().filter(|_| last_in_vrf).map(|vrf| &vrf.name);
        let ports_of: Vec<&IfName> = bridge.into_iter().chain(vrf).collect();
        let world = around_with_ports(self.kernel()?, network, &ports_of)?;
        let seen = observe(self.kernel()?, &world, network)?;
        let added = vrf_record.as_ref().and_then(|r| r.speaker.clone());
        let last_in = match (&network.vrf, &vrf_record) {
            (Some(vrf), Some(r)) if last_in_vrf => {
                Some(OurVrf { vrf, made: &r.made, speaker_has_ours: added.is_some() })
            }
            _ => None,
        };
        let ours = Ours { network, made: &record.made, last_in };
        let mut plan = self.neighbours_down(network)?;
        plan.extend(down(&ours, &seen));
        let is_held = |n: &Network| n.security() != PortSecurity::Off;
        if is_held(network) {
            let others = self.register.any_network(|n| n.network.name != *name && is_held(&n.network));
            let guard = Step::GuardBridge { bridge: network.bridge.clone(), on: false };
            plan.push(Planned { step: if others { guard } else { Step::LiftGuards }, undo: Vec::new() });
        }
        if self.dry_run {
            self.planned.extend(plan);
            return Ok(());
        }
        self.name_devices(network);
        let (left, whole) = self.walk_on(&plan, frr.as_mut(), added);
        self.register.remove_network(network)?;
        let on_it = |r: &GuestRecord| r.held().any(|e| e.bridge == network.bridge);
        if self.register.is_used(&network.bridge) && !self.register.guests().iter().flatten().any(on_it) {
            self.register.mark_unused(&network.bridge)?;
        }
        match (&network.vrf, vrf_record) {
            // What a silent speaker still has of ours, or what was refused, is remembered for the next one who tries.
            (Some(_), Some(record)) if last_in_vrf && (left.is_some() || !whole) => {
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
        self.register.writable()?;
        let on_it = |r: &GuestRecord| r.endpoints.iter().any(|e| e.network == *name);
        let guests: Vec<String> =
            self.register.guests().into_iter().flatten().filter(on_it).map(|r| r.guest.to_string()).collect();
        if !guests.is_empty() {
            return EngineError::refused(format!(
                "network {name} still has {}: stop or detach first",
                guests.join(", ")
            ));
        }
        let world = around_with_ports(self.kernel()?, &record.network, &[&record.network.bridge])?;
        let ports = observe(self.kernel()?, &world, &record.network)?.bridge_ports;
        if !ports.is_empty() {
            return EngineError::refused(format!(
                "network {name}: bridge {} still has ports: take {} off it first",
                record.network.bridge,
                names(&ports)
            ));
        }
        self.network_down(name)
    }

    /// Takes a VRF down that no network of ours is in any more: what a killed `down` left, or a lost register.
    pub(super) fn vrf_down(&mut self, world: &World, record: &VrfRecord) -> Result<(), EngineError> {
        self.journal.object = record.vrf.name.to_string();
        let mut frr = self.frr().ok().flatten();
        let vxlans = world.links().filter(|l| matches!(l.kind, LinkKind::Vxlan { .. })).cloned().collect();
        let mut seen = Seen { vxlans, ..Seen::default() };
        observe_vrf(self.kernel()?, world, &record.vrf, None, &mut seen)?;
        let added = record.speaker.clone();
        let ours = OurVrf { vrf: &record.vrf, made: &record.made, speaker_has_ours: added.is_some() };
        let plan = vrf_down(&ours, &seen);
        if self.dry_run {
            self.planned.extend(plan);
            return Ok(());
        }
        match self.walk_on(&plan, frr.as_mut(), added) {
            (None, true) => Ok(self.register.remove_vrf(&record.vrf.name)?),
            (speaker, _) => Ok(self.register.put_vrf(&VrfRecord { speaker, ..record.clone() })?),
        }
    }
}

fn names(devices: &[IfName]) -> String {
    devices.iter().map(IfName::as_str).collect::<Vec<_>>().join(", ")
}
