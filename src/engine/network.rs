//! Networks: start, started, updated, stopped.

use super::change::way_down;
use super::host::{self, Guess};
use super::look::{Clashes, around, around_with_ports, devices_of, devices_of_vrf, observe, observe_vrf};
use super::{Engine, EngineError};
use crate::advice::{self, Advice};
use crate::config::{Before, Network, Origin, PortSecurity, Vrf};
use crate::event::NetworkPhase;
use crate::journal::Message;
use crate::model::{IfName, NetName, Vni};
use crate::plan::bridge::{Found, given_back, remember};
use crate::plan::network::{OurVrf, Ours, Seen, Wanted, ahead, down, no_rule_is_in_the_way, precheck, up, vrf_down};
use crate::plan::seen::{LinkKind, World};
use crate::plan::{Plan, Planned, Refusal, Step};
use crate::register::{GuestRecord, NetworkRecord, VrfRecord};
use crate::speaker::{Added, Frr, Version, Whole};
use crate::tape;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Is a network completed that is up already, or brought up?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Brought up, or what changed of it applied.
    No,
    /// Completed: nothing is decided anew that holds.
    Yes,
}

/// How a network is tunnelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tunnelled {
    /// Where its tunnels end; none while it has none.
    pub vtep: Option<IpAddr>,
    /// Its MTU is a guess.
    pub unsettled: bool,
}

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
    fn wanted<'a>(&self, network: &'a Network, vtep: Option<IpAddr>) -> Wanted<'a> {
        let Asked { port, manage_speaker, manage_host, tenant_bgp, .. } = *self;
        let l3_mtu = match &self.vrf_before {
            Some(vrf) => vrf.l3_mtu(&network.bridge, network.mtu),
            None => network.mtu,
        };
        Wanted { network, vtep, port, l3_mtu, manage_speaker, manage_host, tenant_bgp }
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

/// Who tells what the speaker lacks of a VRF.
enum Tells<'a> {
    /// It is not asked.
    Nobody,
    /// It is asked for this VRF.
    Frr(&'a mut Frr),
    /// It was asked for all of them.
    Whole(&'a Whole),
}

impl Tells<'_> {
    /// `None` where it does not say.
    fn missing(&mut self, vrf: &Vrf) -> Option<Added> {
        match self {
            Tells::Nobody => None,
            Tells::Frr(frr) => frr.missing(vrf).ok(),
            Tells::Whole(whole) => whole.missing(vrf).ok(),
        }
    }
}

/// Why this speaker cannot announce that tunnel end; none where it can, or does not say what it is.
fn speaks_not(frr: Option<&mut Frr>, vtep: Option<IpAddr>) -> Option<String> {
    let vtep = vtep.filter(IpAddr::is_ipv6)?;
    let version = frr?;
    let version = tape::told("FRR: version", || version.version().ok().flatten())?;
    (version < Version::IPV6_VTEP).then(|| host::speaks_no_ipv6(vtep, version))
}

/// What is missing of a network on this host.
pub struct HostLacks {
    /// Its bridge is there.
    pub there: bool,
    /// What would make it whole, or what is in the way. What a silent FRR lacks is not in it.
    pub plan: Result<Plan, Refusal>,
    /// Why FRR cannot announce this host's tunnel end.
    pub speaks_not: Option<String>,
    /// Why it has no tunnels: this host has no tunnel end yet.
    pub no_tunnel: Option<String>,
}

/// What is missing of a network on this host, by what FRR has of all VRFs; nothing is locked or written.
pub fn host_lacks(
    engine: &mut Engine,
    world: &World,
    record: &NetworkRecord,
    speaker: Option<&Whole>,
) -> Result<HostLacks, EngineError> {
    let (network, vtep) = engine.as_it_waits(record)?;
    let mut asked = engine.ask(world, &network, speaker.map_or(Tells::Nobody, Tells::Whole))?;
    // A silent FRR is a problem of its own, which the caller tells.
    asked.seen.speaker_has_vrf |= asked.missing.is_none();
    let plan = up(&asked.wanted(&network, vtep), &asked.seen);
    let no_tunnel = match vtep {
        Some(_) => None,
        None => host::tunnel_end(engine)?.address.err().map(|why| format!("{why}: until then it has no tunnels")),
    };
    let speaks_not = speaks_not(engine.frr()?.as_mut(), vtep);
    Ok(HostLacks { there: asked.seen.bridge.is_some(), plan, speaks_not, no_tunnel })
}

/// Is the network's bridge there, and what is missing of it, in words (`status`).
pub fn host_wants(
    engine: &mut Engine,
    world: &World,
    record: &NetworkRecord,
    speaker: Option<&Whole>,
) -> Result<(bool, Vec<String>), EngineError> {
    let lacks = host_lacks(engine, world, record, speaker)?;
    let mut missing: Vec<String> = match lacks.plan {
        Ok(plan) => {
            let steps = plan.iter().map(|p| &p.step).filter(|step| !matches!(step, Step::AwaitVrf { .. }));
            steps.map(|step| format!("missing: {step}")).collect()
        }
        Err(refusal) => vec![refusal.to_string()],
    };
    missing.extend(lacks.speaks_not);
    missing.extend(lacks.no_tunnel);
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
                self.network_up_with_advice(network, Clashes::Known)
            }
            NetworkPhase::Started => self.network_up_with_advice(network, Clashes::Sought),
            NetworkPhase::Updated => self.network_updated(&network),
        }
    }

    fn check_network(&mut self, mut network: Network) -> Result<(), EngineError> {
        let found = host::underneath(self, &network, None, Guess::Holds)?;
        network.mtu.get_or_insert(found.mtu);
        self.check_owner(&network)?;
        self.check_vtep(&network, found.end.known())?;
        let world = around(self.kernel()?, &network, Clashes::Sought)?;
        let mut seen = observe(self.kernel()?, &world, &network)?;
        // One that is up and has lost its device may have routes left.
        if let Some(vrf) = &network.vrf
            && self.register.vrf(&vrf.name)?.is_some()
        {
            seen.table_has = None;
        }
        let config = self.config()?;
        if config.manage_host && network.vrf.is_some() {
            no_rule_is_in_the_way(&network, &seen.host, !config.tenant_bgp)?;
        }
        precheck(&network, &seen)?;
        let plan = ahead(&network, self.config()?.manage_host, &seen.host);
        if self.dry_run {
            self.planned.extend(plan);
            return Ok(());
        }
        self.register.mark_coming(&network.bridge)?;
        host::remember(self, &plan)?;
        self.walk(&plan, None, None).map(drop)
    }

    /// Routes that lead nowhere are worse than none: other hosts would send this network's traffic to them.
    fn check_vtep(&mut self, network: &Network, vtep: Option<IpAddr>) -> Result<(), EngineError> {
        let mut frr = if vtep.is_some_and(|vtep| vtep.is_ipv6()) { self.frr()? } else { None };
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
                "network {}: bridge {} is network {}'s already: use another bridge name, or take that network down first: {}",
                network.name,
                network.bridge,
                other.network.name,
                way_down(&other.network.name)
            ));
        }
        if let Some(other) = self.register.network(&network.name)?
            && other.network.bridge != network.bridge
        {
            return EngineError::refused(format!(
                "network {0}: it is up on bridge {1}: take it down before it moves to {2}: {3}",
                network.name,
                other.network.bridge,
                network.bridge,
                way_down(&network.name)
            ));
        }
        Ok(())
    }

    /// All of a VRF's networks end their tunnels at one place, as its L3VNI does: moved with the first of them, that would have the router MAC of the
    /// place where it was, and the others would want it back.
    fn check_vrfs_end(&mut self, want: &Wanted, seen: &Seen) -> Result<(), EngineError> {
        let Some(vrf) = &want.network.vrf else { return Ok(()) };
        let Some(dev) = vrf.vni.map(Vni::device) else { return Ok(()) };
        let Some(&LinkKind::Vxlan { local: Some(local), port, .. }) =
            seen.vxlans.iter().find(|l| l.name == dev).map(|l| &l.kind)
        else {
            return Ok(());
        };
        let Some(vtep) = want.vtep.filter(|vtep| (*vtep, want.port) != (local, port)) else { return Ok(()) };
        let is_there = |r: &NetworkRecord| {
            let its = r.network.name != want.network.name && r.network.vrf.as_ref().is_some_and(|v| v.name == vrf.name);
            its && r.vtep == Some(local) && r.port.is_none_or(|its| its == port)
        };
        let mut others = self.register.networks().into_iter().flatten().filter(is_there);
        let Some(other) = others.next().map(|r| r.network.name) else { return Ok(()) };
        EngineError::refused(format!(
            "network {}: VRF {} is up with VTEP {local} and port {port}, not {vtep} and {}: take its other networks down first ({other}: {})",
            want.network.name,
            vrf.name,
            want.port,
            way_down(&other)
        ))
    }

    /// Brings a network up, or completes one that is half up.
    pub(super) fn network_up(&mut self, network: Network) -> Result<(), EngineError> {
        self.network_up_if(network, Clashes::Sought, Again::No).map(drop)
    }

    /// The same where a person hears of it: who starts a network is told what will work badly.
    fn network_up_with_advice(&mut self, network: Network, clashes: Clashes) -> Result<(), EngineError> {
        let name = network.name.to_string();
        for advice in self.network_up_if(network, clashes, Again::No)? {
            self.journal.say(&Message::Advice { network: &name, advice: &advice });
        }
        Ok(())
    }

    /// Completes one that is up, as it is recorded by then, unless it was taken down meanwhile.
    pub(super) fn network_again(&mut self, record: &NetworkRecord) -> Result<(), EngineError> {
        self.network_up_if(record.wanted(), Clashes::Sought, Again::Yes).map(drop)
    }

    /// A network as it is recorded, and its VTEP, with what it waited for where that is there by now.
    fn as_it_waits(&mut self, record: &NetworkRecord) -> Result<(Network, Option<IpAddr>), EngineError> {
        if !record.waits() {
            return Ok((record.network.clone(), record.vtep));
        }
        let mut network = record.wanted();
        let found = host::underneath(self, &network, record.vtep, Guess::Again)?;
        network.mtu = network.mtu.or(found.mtu_after(record));
        Ok((network, record.vtep.or(found.vtep)))
    }

    fn network_up_if(&mut self, network: Network, clashes: Clashes, again: Again) -> Result<Vec<Advice>, EngineError> {
        let guess = if again == Again::Yes { Guess::Again } else { Guess::Holds };
        self.check_owner(&network)?;
        let before = self.register.network(&network.name)?;
        let found = host::underneath(self, &network, before.as_ref().and_then(|b| b.vtep), guess)?;
        // What is completed is completed as it is up, whatever the host's address is by now.
        let vtep = before.as_ref().filter(|_| again == Again::Yes).and_then(|b| b.vtep).or(found.vtep);
        self.check_vtep(&network, vtep)?;
        self.check_up(&network, vtep)?;
        if again == Again::No {
            self.check_port(&network)?;
        }
        let host = Tunnelled { vtep, unsettled: found.unsettled };
        // Held across vtysh, but by nobody else's network and by no guest.
        let _lock = if self.dry_run { None } else { Some(self.register.lock_network(&network)?) };
        let vrf = network.vrf.clone();
        let still = |r: &NetworkRecord| r.network.vrf == vrf;
        let wanted = match again {
            Again::No => Some(network.clone()),
            Again::Yes => self.register.network(&network.name)?.filter(still).map(|record| record.wanted()),
        };
        let result = match wanted {
            Some(mut wanted) => {
                let mtu = before.as_ref().filter(|_| again == Again::Yes).and_then(|before| found.mtu_after(before));
                wanted.mtu = wanted.mtu.or(mtu).or(Some(found.mtu));
                self.bring_up(&wanted, host, clashes)
            }
            None => Ok(Vec::new()),
        };
        if let (Ok(_), false) = (&result, self.dry_run) {
            let waits = found.end.address.as_ref().err().filter(|_| vtep.is_none());
            let waits = waits.map(|why| format!("{why}: it is up without its tunnels until then"));
            // Said once: it stays as it is.
            let chosen = found.end.chosen().filter(|_| before.is_none());
            for what in waits.into_iter().chain(chosen) {
                self.journal.say(&Message::Warning(&format!("network {}: {what}", network.name)));
            }
        }
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

    /// What somebody else's bridge is to the host. Its ports are a look at all devices, so only who is about to take one over asks.
    fn found(&mut self, bridge: u32) -> Result<Found, EngineError> {
        let kernel = self.kernel()?;
        let ports = kernel.ports_of(bridge)?;
        let has_default_route = kernel.has_default_route(bridge)?;
        Ok(Found { ports, has_default_route })
    }

    /// Observes, the speaker and the register included.
    fn ask(&mut self, world: &World, network: &Network, mut speaker: Tells) -> Result<Asked, EngineError> {
        let (manage_vrfs, manage_host, tenant_bgp, port) = {
            let config = self.config()?;
            (config.speaker.manage_vrfs, config.manage_host, config.tenant_bgp, config.vtep.port)
        };
        let mut seen = observe(self.kernel()?, world, network)?;
        let network_before = self.register.network_of_bridge(&network.bridge)?;
        // Another would be another device: as with the VTEP's address, it is taken over by a network that comes up anew.
        let port = network_before.as_ref().and_then(|before| before.port).unwrap_or(port);
        let vrf_before = match &network.vrf {
            Some(vrf) => self.register.vrf(&vrf.name)?,
            None => None,
        };
        seen.made.extend(network_before.iter().flat_map(|b| b.made.clone()));
        seen.made.extend(vrf_before.iter().flat_map(|b| b.made.clone()));
        let devices = devices_of(network).into_iter().chain(network.vrf.iter().flat_map(devices_of_vrf));
        seen.made.extend(devices.filter(|dev| world.link(dev).is_some_and(|l| l.ours)));
        // One that is up and has lost its device may have routes left.
        seen.table_has = seen.table_has.filter(|_| vrf_before.is_none());
        seen.before = network_before.as_ref().map(|record| record.before(vrf_before.as_ref()));
        if let (None, Some(bridge)) = (&seen.before, &seen.bridge)
            && network.origin != Origin::Libvirt
            && !seen.made.contains(&network.bridge)
        {
            seen.found = Some(self.found(bridge.index)?);
        }
        let manage_speaker = !matches!(speaker, Tells::Nobody) && manage_vrfs;
        let missing = match (&mut speaker, &network.vrf) {
            (Tells::Nobody, _) | (_, None) => None,
            (_, Some(vrf)) => {
                if let Tells::Frr(frr) = &mut speaker
                    && (seen.vrf.is_none() || !seen.unreachable)
                {
                    let version = tape::told("FRR: version", || frr.version().ok().flatten());
                    seen.vrf_before_routes = version.is_some_and(Version::mistakes_tables);
                }
                tape::told(format_args!("FRR: what it lacks of VRF {}", vrf.name), || speaker.missing(vrf))
            }
        };
        seen.speaker_has_vrf = missing.as_ref().is_some_and(Added::is_empty);
        Ok(Asked { seen, missing, manage_speaker, manage_host, tenant_bgp, port, network_before, vrf_before })
    }

    /// Would bringing it up change anything? Nothing is locked or written.
    pub(super) fn network_lacks(
        &mut self,
        world: &World,
        record: &NetworkRecord,
        speaker: Option<&Whole>,
    ) -> Result<bool, EngineError> {
        let mut asked = self.ask(world, &record.network, speaker.map_or(Tells::Nobody, Tells::Whole))?;
        // A silent speaker lacks nothing that it could be given now.
        asked.seen.speaker_has_vrf |= asked.missing.is_none();
        let (network, vtep) = self.as_it_waits(record)?;
        let plan = up(&asked.wanted(&network, vtep), &asked.seen)?;
        // What carries our mark goes with the network, and the record has to say so.
        let forgotten = |dev: &IfName| asked.seen.made.contains(dev) && !record.made.contains(dev);
        let forgets = devices_of(&record.network).iter().any(forgotten) || record.settled() != *record;
        let settled = record.vtep != vtep || record.network.mtu != network.mtu;
        Ok(!plan.is_empty() || forgets || settled || record.network.vrf.is_some() && asked.vrf_before.is_none())
    }

    /// Why a network cannot be, seen with everything that is there; none where nothing is in its way.
    fn in_the_way(&mut self, network: &Network, vtep: Option<IpAddr>) -> Option<EngineError> {
        let world = self.kernel().and_then(|kernel| Ok(kernel.world()?)).ok()?;
        let asked = self.ask(&world, network, Tells::Nobody).ok()?;
        up(&asked.wanted(network, vtep), &asked.seen).err().map(EngineError::from)
    }

    /// observe → plan → claim → apply → journal, and what is to be said of it. Call with the VRF's lock held.
    pub(super) fn bring_up(
        &mut self,
        network: &Network,
        host: Tunnelled,
        clashes: Clashes,
    ) -> Result<Vec<Advice>, EngineError> {
        let mut frr = self.frr()?;
        let world = around(self.kernel()?, network, clashes)?;
        let mut asked = self.ask(&world, network, frr.as_mut().map_or(Tells::Nobody, Tells::Frr))?;
        if let (Some(before), Some(vrf)) = (&asked.vrf_before, &network.vrf)
            && before.vrf != *vrf
        {
            return EngineError::refused(format!(
                "network {}: VRF {} is up already: make the two descriptions agree, this one says {vrf}",
                network.name, before.vrf
            ));
        }
        let want = asked.wanted(network, host.vtep);
        self.check_vrfs_end(&want, &asked.seen)?;
        let plan = up(&want, &asked.seen)?;
        if self.dry_run {
            self.planned.extend(plan);
            return Ok(Vec::new());
        }
        let advice = advice::of(network, asked.seen.bridge.as_ref(), &asked.seen.made);
        let made_before = asked.network_before.as_ref().map(|b| b.made.clone()).unwrap_or_default();
        let record = NetworkRecord {
            made: asked.made(&devices_of(network), &made_before, &plan),
            network: network.clone(),
            vtep: host.vtep,
            port: Some(want.port),
            unsettled: host.unsettled,
            before: Some(remember(&want, &asked.seen, &plan)),
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
        let puts = |p: &Planned| matches!(p.step, Step::AddUnreachable { .. });
        let lay_open = match &network.vrf {
            // One of the two the operator may have put there.
            Some(vrf) if asked.seen.vrf.is_some() && !asked.seen.made.contains(&vrf.name) => {
                plan.iter().any(puts) && !self.kernel()?.half_unreachable(vrf.table)?
            }
            _ => false,
        };
        let vrf_record = network.vrf.as_ref().map(|vrf| {
            let made_before = asked.vrf_before.as_ref().map(|b| b.made.clone()).unwrap_or_default();
            let mut mtus = asked.vrf_before.as_ref().map(|b| b.mtus.clone()).unwrap_or_default();
            mtus.extend(network.mtu.map(|mtu| (network.bridge.clone(), mtu)));
            VrfRecord {
                mtus,
                unreachable: asked.vrf_before.as_ref().is_some_and(|b| b.unreachable) || lay_open,
                made: asked.made(&devices_of_vrf(vrf), &made_before, &plan),
                vrf: vrf.clone(),
                // Claimed before it is said: what a crash leaves in the speaker is known to be ours.
                speaker: match asked.missing.take().filter(|_| asked.manage_speaker) {
                    Some(missing) => Some(missing.with(&earlier.clone().unwrap_or_default())),
                    None => earlier.clone(),
                },
                socket_dir: match frr.as_ref().filter(|_| asked.manage_speaker) {
                    Some(frr) => Some(frr.dir().to_owned()),
                    None => asked.vrf_before.as_ref().and_then(|before| before.socket_dir.clone()),
                },
            }
        });
        if plan.is_empty() && asked.network_before.as_ref() == Some(&record.settled()) && asked.vrf_before == vrf_record
        {
            return Ok(advice);
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
        if result.is_ok() {
            self.note_config();
        }
        let (bridge, vxlan) = (&network.bridge, network.vni.device());
        let entered = |p: &Planned| matches!(&p.step, Step::SetMaster { dev, master: Some(_) } if dev == bridge);
        let anew = |p: &Planned| match &p.step {
            Step::SetMaster { dev, master: Some(_) } => [bridge, &vxlan].contains(&dev),
            Step::SetMac { dev, .. } | Step::SetMtu { dev, .. } | Step::DelAddress { dev, .. } => dev == bridge,
            _ => false,
        };
        if result.is_ok() && holds_anew {
            self.ports_again(network)?;
        }
        let is_up = result.is_ok() || asked.network_before.is_some();
        if is_up && (plan.iter().any(anew) || holds_anew) && self.register.is_used(bridge) {
            // The kernel flushed the bridge's neighbours (or may have, with its last address), or it is another bridge than the one that its
            // guests were on, or their ports' MTU is not its own any more: they must not wait for what follows.
            self.guests_again(bridge);
        }
        if let (Ok(()), Some(frr), true) = (&result, &mut frr, plan.iter().any(entered)) {
            self.make_addresses_known(frr, network)?;
        }
        result.map(|()| advice)
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
        let settled = record.settled();
        if settled != record
            && let Err(error) = self.register.put_network(&settled)
        {
            self.journal.say(&Message::Warning(&error));
        }
        // What was claimed and is not there is no harm to whoever takes it out. An FRR that lacked nothing was not asked for anything.
        let was_asked = plan.iter().any(|p| matches!(p.step, Step::SpeakerAddVrf { .. }));
        if let Some(vrf_record) = vrf_record
            && was_asked
            && vrf_record.speaker != added
            && let Err(error) = self.register.put_vrf(&VrfRecord { speaker: added, ..vrf_record })
        {
            self.journal.say(&Message::Warning(&error));
        }
        let network = &record.network;
        let vtep = record.vtep.map_or("no VTEP yet".to_owned(), |vtep| format!("VTEP {vtep}"));
        let detail = format!(" (VNI {}, {vtep}, {} steps)", network.vni, plan.len());
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
        let mut frr = vrf_record.as_ref().and_then(|record| self.frr_with(record));
        let last_in_vrf = network.vrf.is_some() && !self.register.any_network(sibling);
        // libvirt's own bridge is libvirt's to delete.
        let bridge = Some(&network.bridge).filter(|_| network.origin != Origin::Libvirt);
        let vrf = network.vrf.as_ref().filter(|_| last_in_vrf).map(|vrf| &vrf.name);
        let ports_of: Vec<&IfName> = bridge.into_iter().chain(vrf).collect();
        let world = around_with_ports(self.kernel()?, network, &ports_of)?;
        let seen = observe(self.kernel()?, &world, network)?;
        let added = vrf_record.as_ref().and_then(VrfRecord::claims);
        let last_in = match (&network.vrf, &vrf_record) {
            (Some(_), Some(record)) if last_in_vrf => Some(our_vrf(record, frr.as_mut())),
            _ => None,
        };
        let before = record.before(vrf_record.as_ref());
        let l3_mtu = vrf_record.as_ref().filter(|_| !last_in_vrf).and_then(|r| r.l3_mtu(&network.bridge, None));
        let ours = Ours { network, made: &record.made, before: &before, last_in, l3_mtu };
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
        if !whole && !self.is_given_back(&record, &before)? {
            return EngineError::refused(format!(
                "network {name}: bridge {} could not be given back as it was before, so it is not forgotten: the log says why; 'evpn-hook network down {name}' again",
                network.bridge
            ));
        }
        // Before its own record goes: a run that is killed in between is one that comes up again.
        if let Some(mut vrf) = vrf_record.clone().filter(|_| !last_in_vrf)
            && vrf.mtus.remove(&network.bridge).is_some()
            && let Err(error) = self.register.put_vrf(&vrf)
        {
            self.journal.say(&Message::Warning(&error));
        }
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

    /// Is somebody else's bridge as it was before its network came up?
    fn is_given_back(&mut self, record: &NetworkRecord, before: &Before) -> Result<bool, EngineError> {
        let network = &record.network;
        if record.made.contains(&network.bridge) {
            return Ok(true);
        }
        let world = around(self.kernel()?, network, Clashes::Known)?;
        let seen = observe(self.kernel()?, &world, network)?;
        Ok(given_back(network, before, &seen).is_empty())
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

    /// `network up`
    pub fn network_up_by_name(&mut self, name: &NetName) -> Result<(), EngineError> {
        self.journal.object = name.to_string();
        let network = self.network_by_name(name)?;
        self.network_up_with_advice(network, Clashes::Sought)
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
        let mut frr = self.frr_with(record);
        let vxlans = world.links().filter(|l| matches!(l.kind, LinkKind::Vxlan { .. })).cloned().collect();
        let mut seen = Seen { vxlans, ..Seen::default() };
        observe_vrf(self.kernel()?, world, &record.vrf, None, &mut seen)?;
        let added = record.claims();
        let plan = vrf_down(&our_vrf(record, frr.as_mut()), &seen);
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

/// What of a VRF is ours, and whether zebra hears of its VXLAN's end.
fn our_vrf<'a>(record: &'a VrfRecord, frr: Option<&mut Frr>) -> OurVrf<'a> {
    let speaker_has_ours = record.claims().is_some();
    let deaf = speaker_has_ours && frr.is_some_and(Frr::is_deaf);
    let VrfRecord { vrf, made, unreachable, .. } = record;
    OurVrf { vrf, made, speaker_has_ours, deaf, unreachable: *unreachable }
}

fn names(devices: &[IfName]) -> String {
    devices.iter().map(IfName::as_str).collect::<Vec<_>>().join(", ")
}
