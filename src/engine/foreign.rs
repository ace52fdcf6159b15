//! Ports that no hook told of: held where their network has port security, until they are a guest's.

use super::{Engine, EngineError};
use crate::config::{Network, PortSecurity};
use crate::model::IfName;
use crate::plan::foreign::{Foreign, foreign, hold};
use crate::plan::seen::World;
use crate::plan::{Step, plain};
use crate::register::GuestRecord;
use std::collections::HashSet;

/// The devices that guests' records name: a port of none of them is nobody's.
pub struct Known<'a>(HashSet<&'a IfName>);

impl<'a> Known<'a> {
    /// By these records.
    pub fn of(guests: &'a [GuestRecord]) -> Known<'a> {
        Known(guests.iter().flat_map(|record| record.held()).map(|e| &e.device).collect())
    }

    /// The network's ports that belong to nobody.
    pub fn foreign(&self, world: &World, network: &Network) -> Vec<Foreign> {
        foreign(world, network, |name| self.0.contains(name))
    }
}

impl Engine {
    /// Holds what belongs to nobody on these networks.
    pub(super) fn hold_ports<'a>(
        &mut self,
        world: &World,
        networks: impl Iterator<Item = &'a Network>,
    ) -> Result<(), EngineError> {
        let secured: Vec<&Network> = networks.filter(|n| n.security() != PortSecurity::Off).collect();
        let nobody = Known::of(&[]);
        let open = |port: &Foreign| !port.held;
        if !secured.iter().any(|network| nobody.foreign(world, network).iter().any(open)) {
            return Ok(());
        }
        // Read after the ports were: a guest is recorded before its port is let go.
        let guests: Vec<GuestRecord> = self.register.guests().into_iter().flatten().collect();
        let known = Known::of(&guests);
        let plan = secured.iter().flat_map(|network| hold(&known.foreign(world, network), true)).collect();
        self.do_most(plan);
        Ok(())
    }

    /// The same of one network, whose ports are asked for: it has just started.
    pub(super) fn hold_ports_of(&mut self, network: &Network) -> Result<(), EngineError> {
        let Some(world) = self.with_ports(network)? else { return Ok(()) };
        self.hold_ports(&world, std::iter::once(network))
    }

    /// What its guests may send was changed: so is what may come in through the ports of nobody.
    pub(super) fn ports_again(&mut self, network: &Network) -> Result<(), EngineError> {
        let on = network.security() != PortSecurity::Off;
        let step = Step::GuardBridge { bridge: network.bridge.clone(), on };
        let mut plan = vec![plain(step)];
        if let Some(world) = self.with_ports(network)? {
            let guests: Vec<GuestRecord> = self.register.guests().into_iter().flatten().collect();
            plan.extend(hold(&Known::of(&guests).foreign(&world, network), on));
        }
        self.do_most(plan);
        Ok(())
    }

    fn with_ports(&mut self, network: &Network) -> Result<Option<World>, EngineError> {
        let Some(bridge) = self.kernel()?.link(&network.bridge)? else { return Ok(None) };
        let (mut links, odds) = self.kernel()?.all_ports_of(bridge.index)?;
        links.push(bridge);
        Ok(Some(World::new(links, Vec::new()).with_odds(odds)))
    }

    /// A device has come to a bridge, and no record names it: held where the bridge's network has port security. How many steps that took.
    pub fn hold_port(&mut self, index: u32) -> Result<usize, EngineError> {
        let before = self.walked;
        let (link, odd) = match self.kernel()?.link_by_index(index)? {
            Some(link) => (Some(link), None),
            None => (None, self.kernel()?.odd_by_index(index)?),
        };
        let Some(master) = link.as_ref().and_then(|l| l.master).or(odd.as_ref().and_then(|o| o.master)) else {
            return Ok(0);
        };
        let Some(bridge) = self.kernel()?.link_by_index(master)? else { return Ok(0) };
        let record = self.register.network_of_bridge(&bridge.name)?;
        let Some(record) = record.filter(|r| r.network.security() != PortSecurity::Off) else { return Ok(0) };
        let world = World::new(link.into_iter().chain([bridge]).collect(), Vec::new());
        let plan = hold(&Known::of(&[]).foreign(&world.with_odds(odd.into_iter().collect()), &record.network), true);
        self.do_most(plan);
        Ok(self.walked - before)
    }
}
