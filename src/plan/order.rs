//! The ordering laws. `network` and `guest` emit steps as these say, and each hands its plan through [`lawful`].
//!
//! | law | why |
//! |---|---|
//! | a bridge enters its VRF before its VXLAN port exists | entering cycles the device down and up and flushes neighbours and dynamic FDB entries (drivers/net/vrf.c `cycle_netdev`); a VXLAN that is there sees it all |
//! | devices are made down, get their master, then are set up: VRF, bridge, VXLAN | zebra's L3VNI and SVI creation race, <https://github.com/FRRouting/frr/issues/17342> |
//! | FRR knows `vrf X / vni N` before the L3VNI's VXLAN appears | else bgpd makes an instance of its own for the L3VNI, which later blocks `no router bgp`, <https://github.com/FRRouting/frr/issues/17903> |
//! | an L3VNI's bridge goes down while its VXLAN is up and a port of it, before either is deleted | zebra finds the L3VNI of an SVI by its VXLAN (zebra_vxlan.c `zl3vni_from_svi`) and lets go of `zl3vni->svi_if` only so (`zebra_vxlan_svi_down`); else it uses a freed interface with the next route that goes (`zl3vni_nh_uninstall`): 8.4.4 to 10.7.0, FRR PR 22858 |
//! | FRR forgets an L3VNI before its VXLAN and bridge are deleted | the same, whatever else was done to them by hand; and 10.3.0 uses `zl3vni->vxlan_if` without a look (`zl3vni_rmac_install`) |
//! | but where EVPN is off in zebra (bgpd away, no `advertise-all-vni`) its VXLAN is deleted first, and zebra knows that | zebra would make an L2VNI of it that it never lets go, and die when it is told of the VNI again (zebra_vxlan.c `zebra_vxlan_handle_vni_transition`, `zebra_vxlan_if_del`): 8.4.4, and by their sources 10.3 and 10.7.0 |
//! | FDB entry before neighbour | zebra advertises MAC+IP when the MAC is local; the other way works and costs a step (zebra_evpn_neigh.c) |
//! | neighbour is deleted before FDB entry, port, bridge | zebra ignores the kernel's own DELNEIGH of a permanent entry: a ghost MAC+IP stays (zebra_neigh.c) |
//! | a guest's port is held to its addresses before it joins its bridge | what it must not send would get through in between |
//! | a port is locked after its MAC's FDB entry is there | it would drop the guest's own frames until then (net/bridge/br_input.c) |
//! | addresses are told after their bridge has moved | the kernel flushes IPv6 addresses then (net/ipv6/addrconf.c NETDEV_CHANGEUPPER) |

use super::{Plan, Step};
use crate::model::IfName;

/// Passes a plan on; a debug build, and so every test of the planners and of the whole program, stops where one breaks a law: a broken law
/// is a lost route much later. A release pays nothing for it.
pub(super) fn lawful(plan: Plan) -> Plan {
    debug_assert_eq!(broken_law(&plan), None, "{}", super::shown(&plan));
    plan
}

/// The first law that this plan breaks, in words; `None` for a lawful one.
fn broken_law(plan: &Plan) -> Option<&'static str> {
    let steps: Vec<&Step> = plan.iter().map(|p| &p.step).collect();
    // What an undo is made of, from the end: an L3VNI goes there as it goes in a plan.
    let undo: Vec<&Step> = plan.iter().rev().flat_map(|p| &p.undo).collect();
    let late = |steps: &[&Step]| (0..steps.len()).any(|i| parted_late(steps[i], &steps[..i]));
    if late(&steps) || late(&undo) {
        return Some("an L3VNI's bridge goes down while its VXLAN is up and a port of it");
    }
    steps
        .iter()
        .enumerate()
        .find_map(|(i, first)| steps[i + 1..].iter().find_map(|then| wrong_pair(first, then, &steps)))
}

/// Does an L3VNI's bridge go down only after what zebra finds it by?
fn parted_late(step: &Step, before: &[&Step]) -> bool {
    let Step::PartSvi { bridge, vni } = step else { return false };
    before.iter().any(|step| match step {
        Step::DelLink { name } => name == bridge || *name == vni.device(),
        Step::SetMaster { dev, master: None } | Step::SetUp { dev, up: false } => *dev == vni.device(),
        _ => false,
    })
}

/// Every law is about two steps: `then` must not come after `first`.
fn wrong_pair(first: &Step, then: &Step, plan: &[&Step]) -> Option<&'static str> {
    match (first, then) {
        (Step::SetMaster { master: Some(bridge), .. }, Step::SetMaster { dev, .. }) if dev == bridge => {
            Some("a bridge enters its VRF before its VXLAN port exists")
        }
        (Step::SetUp { dev, up: true }, Step::SetMaster { dev: port, .. }) if dev == port => {
            Some("a device has its master before it is set up")
        }
        (Step::SetUp { dev: port, up: true }, Step::SetUp { dev: master, up: true }) if enters(plan, port, master) => {
            Some("a master is set up before its port")
        }
        (Step::AddVxlan { .. }, Step::SpeakerAddVrf { .. }) => Some("FRR knows the VRF's VNI before its VXLAN appears"),
        (Step::DelLink { name }, Step::SpeakerDelVrf { vrf })
            if vrf.vni.is_some_and(|vni| *name == vni.device() && !is_awaited(plan, first, then))
                || vrf.l3_bridge().ok().flatten().as_ref() == Some(name) =>
        {
            Some("FRR forgets an L3VNI before its VXLAN and bridge are deleted")
        }
        (Step::AddNeigh { mac, .. }, Step::AddFdb { mac: same, .. }) if mac == same => {
            Some("FDB entry before neighbour")
        }
        (Step::DelFdb { .. } | Step::DelLink { .. } | Step::SetMaster { master: None, .. }, Step::DelNeigh { .. }) => {
            Some("neighbour is deleted before FDB entry, port and bridge")
        }
        (Step::AddAddress { dev, .. }, Step::SetMaster { dev: bridge, .. }) if dev == bridge => {
            Some("addresses are told after their bridge has moved")
        }
        (Step::SetMaster { dev, master: Some(_) }, Step::Guard { dev: same, more, .. })
            if dev == same && !more.is_empty() =>
        {
            Some("a port is held before it joins its bridge")
        }
        (Step::LockPort { dev, locked: true }, Step::AddFdb { dev: same, .. }) if dev == same => {
            Some("a port is locked after its MAC's FDB entry is there")
        }
        _ => None,
    }
}

/// Where EVPN is off the VXLAN goes first, and zebra knows it before it is told.
fn is_awaited(plan: &[&Step], gone: &Step, told: &Step) -> bool {
    let Step::DelLink { name } = gone else { return false };
    let at = |step: &Step| plan.iter().position(|s| std::ptr::eq(*s, step));
    let awaited = plan.iter().position(|step| matches!(step, Step::AwaitGone { dev } if dev == name));
    awaited.is_some_and(|awaited| at(gone) < Some(awaited) && Some(awaited) < at(told))
}

fn enters(plan: &[&Step], port: &IfName, master: &IfName) -> bool {
    plan.iter().any(|s| matches!(s, Step::SetMaster { dev, master: Some(m) } if dev == port && m == master))
}

#[cfg(test)]
#[path = "order_test.rs"]
mod tests;
