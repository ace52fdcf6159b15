//! Networks: as libvirt, config.toml and the register say that they are up.

use super::{GRACE, Synced};
use crate::config::{Network, Origin};
use crate::engine::change::{Now, Told, differences_from};
use crate::engine::host::tunnel_end;
use crate::engine::look::{Clashes, around};
use crate::engine::{Engine, EngineError};
use crate::hypervisor;
use crate::input::InputError;
use crate::model::NetName;
use crate::plan::seen::World;
use crate::register::NetworkRecord;
use crate::speaker::Frr;
use std::collections::{BTreeMap, HashSet};

impl Engine {
    /// All networks, or one: `records` is what the register says of them.
    pub(super) fn sync_networks(
        &mut self,
        only: Option<&NetName>,
        records: &[NetworkRecord],
        world: &World,
        out: &mut Synced,
    ) -> Result<(), EngineError> {
        let config = self.config()?.clone();
        let now = Now::of(self)?;
        let mut frr = self.frr()?;
        let wanted = |name: &NetName| only.is_none_or(|only| only == name);
        // Asked once, and not for each network; what is done to one is checked by asking again.
        let routed = records.iter().any(|r| r.network.vrf.as_ref().is_some_and(|v| v.vni.is_some()));
        let whole = frr.as_mut().filter(|_| routed).map(|frr| match &self.speaker_silent {
            Some(why) => Err(why.clone()),
            None => frr.whole().map_err(|error| error.to_string()),
        });
        let whole = whole.transpose().unwrap_or_else(|why| {
            out.problems.push(why);
            frr = None;
            None
        });
        let listed = || match only {
            Some(only) => hypervisor::libvirt::network(only, &config),
            None => hypervisor::libvirt::networks(&config),
        };
        let told = listed().map(by_name);
        for record in records.iter().filter(|r| wanted(&r.network.name)) {
            let network = &record.network;
            if self.is_gone(record, is_listed(told.as_ref(), &network.name), world) {
                // The loop may have spent seconds with FRR since the look.
                let (now, listed) = (around(self.kernel()?, network, Clashes::Known)?, listed().map(by_name));
                if self.is_gone(record, is_listed(listed.as_ref(), &network.name), &now) {
                    let down = self.network_stopped(&network.name);
                    out.keep(down);
                }
                continue;
            }
            let wants = Told::of(network, &config, told.as_ref().and_then(|told| told.get(&network.name)));
            let mut record = record.clone();
            if let (Told::Network(told), false) = (&wants, self.dry_run || network.origin == Origin::Config) {
                let updated = self.network_follows(told);
                out.keep(updated);
                record = self.register.network_of_bridge(&network.bridge)?.unwrap_or(record);
            }
            let (record, network) = (&record, &record.network);
            let differences = differences_from(record, &wants, now).into_iter();
            out.problems.extend(differences.map(|difference| format!("network {}: {difference}", network.name)));
            let lacks = self.network_lacks(world, record, whole.as_ref());
            if out.keep(lacks) == Some(true) {
                let up = self.network_again(record);
                if out.keep(up).is_some() && !self.dry_run {
                    self.speaker_problem(network, frr.as_mut(), out);
                }
            }
        }
        // With `dry_run` as well: it is no step that would mend it.
        for record in records.iter().filter(|r| wanted(&r.network.name) && r.vtep.is_none()) {
            self.tell_waiting(&record.network.name, out);
        }
        let known: HashSet<&NetName> = records.iter().map(|r| &r.network.name).collect();
        let unknown = |name: &NetName| wanted(name) && !known.contains(name);
        for (name, network) in told.into_iter().flatten().filter(|(name, _)| unknown(name)) {
            match network {
                Ok(Some(network)) => {
                    let up = self.network_up(network);
                    out.keep(up);
                    self.tell_waiting(&name, out);
                }
                Ok(None) => {}
                Err(error) => out.problems.push(format!("network {name}: {error}")),
            }
        }
        // One of config.toml's that was taken down stays down; one whose bridge carries our mark was up when the register was lost.
        for network in config.networks.iter().filter(|n| unknown(&n.name)) {
            if world.link(&network.bridge).is_some_and(|l| l.ours) {
                let up = self.network_up(network.clone());
                out.keep(up);
                self.tell_waiting(&network.name, out);
            }
        }
        Ok(())
    }

    /// One that is up without its tunnels is not what it should be, and nothing here can mend it.
    fn tell_waiting(&mut self, name: &NetName, out: &mut Synced) {
        let record = self.register.network(name).ok().flatten();
        if record.is_some_and(|record| record.vtep.is_none())
            && let Ok(end) = tunnel_end(self)
            && let Err(why) = end.address
        {
            out.clear.push(format!("network {name}: {why}: it is up without its tunnels until then"));
        }
    }

    /// A silent speaker stops no network; here it is a problem all the same.
    fn speaker_problem(&mut self, network: &Network, frr: Option<&mut Frr>, out: &mut Synced) {
        let managed = self.config().is_ok_and(|c| c.speaker.manage_vrfs);
        let (Some(frr), Some(vrf), true) = (frr, &network.vrf, managed) else { return };
        match frr.missing(vrf) {
            Ok(missing) if missing.is_empty() => {}
            Ok(_) => out.problems.push(format!("network {}: FRR did not take VRF {}", network.name, vrf.name)),
            Err(error) => out.problems.push(format!("network {}: {error}", network.name)),
        }
    }

    /// Is this network of libvirt's down, though no hook told us? `listed` is whether libvirt says that it is up; `None` where it says nothing.
    fn is_gone(&self, record: &NetworkRecord, listed: Option<bool>, world: &World) -> bool {
        let network = &record.network;
        let old = self.register.network_age(network).is_some_and(|age| age > GRACE);
        match network.origin {
            Origin::Config => false,
            Origin::Libvirt => listed == Some(false) && (old || world.link(&network.bridge).is_none()),
            Origin::LibvirtBridge => listed == Some(false) && old,
        }
    }
}

/// What libvirt says is up.
type Listed = BTreeMap<NetName, Result<Option<Network>, InputError>>;

fn by_name(listed: Vec<hypervisor::libvirt::Listed>) -> Listed {
    listed.into_iter().collect()
}

/// Does libvirt say that this network is up? `None` where it says nothing.
fn is_listed(listed: Option<&Listed>, name: &NetName) -> Option<bool> {
    listed.map(|listed| listed.contains_key(name))
}
