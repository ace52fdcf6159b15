//! Ports on a network's bridge that belong to nobody: no hook told of them, and no record names them. What they are is not ours to judge, but where the
//! network has port security nothing may come in through them.

use super::seen::World;
use super::{Plan, Step, with_undo};
use crate::config::Network;
use crate::model::{IfName, quoted};

/// Such a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its name as it can be shown.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Nothing comes in through it.
    pub held: bool,
}

impl Foreign {
    /// The way out.
    pub fn mend(&self, network: &Network) -> String {
        format!(
            "'evpn-hook attach {0} --network {1} --mac MAC' makes it one's, 'ip link set {0} nomaster' takes it off",
            self.name, network.name
        )
    }
}

/// A network's, by name; `is_known` says whose devices are somebody's.
pub fn foreign(world: &World, network: &Network, is_known: impl Fn(&IfName) -> bool) -> Vec<Foreign> {
    let Some(bridge) = world.link(&network.bridge) else { return Vec::new() };
    let vxlan = network.vni.device();
    let links = world.slaves(bridge.index).filter(|link| link.name != vxlan && !link.ours && !is_known(&link.name));
    let links = links.map(|link| (link.name.to_string(), link.index, link.port));
    let odds = world.odd_slaves(bridge.index).map(|odd| (quoted(&odd.shown), odd.index, odd.port));
    let mut found: Vec<Foreign> =
        links.chain(odds).map(|(name, index, port)| Foreign { name, index, held: port.is_held() }).collect();
    found.sort_by(|a, b| (&a.name, a.index).cmp(&(&b.name, b.index)));
    found
}

/// Holds those that are not held, or lets go of those that are.
pub fn hold(ports: &[Foreign], held: bool) -> Plan {
    let step = |port: &Foreign, held| Step::HoldPort { name: port.name.clone(), index: port.index, held };
    let wrong = ports.iter().filter(|port| port.held != held);
    wrong.map(|port| with_undo(step(port, held), step(port, !held))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::seen::{Link, LinkKind, Odd, PortFlags};

    #[test]
    fn what_no_record_names_is_nobodys() {
        let link = |name: &str, index: u32, ours: bool, locked: bool| Link {
            name: name.parse().unwrap(),
            index,
            master: (index != 1).then_some(1),
            link: None,
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            kind: LinkKind::Other("tun".to_owned()),
            addrgen_none: None,
            ours,
            port: PortFlags { locked: Some(locked), learning: Some(!locked), ..PortFlags::default() },
            max_learned: None,
        };
        let links = [
            link("red-l2", 1, true, false),
            link("vxlan20", 2, false, false),
            link("vnet0", 3, false, true),
            link("t1", 4, false, true),
            link("t0", 5, false, false),
            link("later", 6, true, false),
        ];
        let odd = |master| Odd {
            shown: "t~0".to_owned(),
            index: 7,
            master,
            link: None,
            port: PortFlags { locked: Some(false), learning: Some(true), ..PortFlags::default() },
        };
        let network = crate::plan::fixture::red(crate::config::Origin::Config);
        let world = World::new(links.to_vec(), Vec::new()).with_odds(vec![odd(Some(1)), Odd { index: 8, ..odd(None) }]);
        let found = foreign(&world, &network, |name| name.as_str() == "vnet0");
        let shown: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.index, f.held)).collect();
        assert_eq!(shown, [("'t~0'", 7, false), ("t0", 5, false), ("t1", 4, true)]);
        let steps: Vec<_> = hold(&found, true).iter().map(|p| p.step.to_string()).collect();
        assert_eq!(
            steps,
            ["bridge link set dev 't~0' locked on learning off", "bridge link set dev t0 locked on learning off"]
        );
        assert_eq!(hold(&found, false).len(), 1);
    }
}
