//! The ordering laws. `network` and `guest` emit steps as these say; the tests here hold every plan against them.
//!
//! | law | why |
//! |---|---|
//! | a bridge enters its VRF before its VXLAN port exists | entering cycles the device down and up and flushes neighbours and dynamic FDB entries (drivers/net/vrf.c `cycle_netdev`); a VXLAN that is there sees it all |
//! | devices are made down, then set up: VRF, bridge, VXLAN | zebra's L3VNI and SVI creation race, <https://github.com/FRRouting/frr/issues/17342> |
//! | FRR knows `vrf X / vni N` before the L3VNI's VXLAN appears | else bgpd is told of a VNI, told again as L3, and has crashed over it, <https://github.com/FRRouting/frr/issues/22851> |
//! | FDB entry before neighbour | zebra advertises MAC+IP when the MAC is local; the other way works and costs a step (zebra_evpn_neigh.c) |
//! | neighbour is deleted before FDB entry, port, bridge | zebra ignores the kernel's own DELNEIGH of a permanent entry: a ghost MAC+IP stays (zebra_neigh.c) |
//! | IPv6 addresses are put back after entering or leaving a VRF | the kernel flushes them (net/ipv6/addrconf.c NETDEV_CHANGEUPPER) |

use super::{Plan, Step};

/// The first law that this plan breaks, in words; `None` for a lawful one.
pub fn broken_law(plan: &Plan) -> Option<&'static str> {
    let at = |pred: &dyn Fn(&Step) -> bool| plan.iter().position(|p| pred(&p.step));
    let last = |pred: &dyn Fn(&Step) -> bool| plan.iter().rposition(|p| pred(&p.step));
    let vxlan = |s: &Step| matches!(s, Step::AddVxlan { .. });
    let enters = |s: &Step| {
        matches!((s, plan.iter().find(|p| matches!(p.step, Step::AddVrf { .. })).map(|p| &p.step)),
            (Step::SetMaster { master: Some(m), .. }, Some(Step::AddVrf { name, .. })) if m == name)
    };
    let speaks = |s: &Step| matches!(s, Step::SpeakerAddVrf { .. });
    let fdb = |s: &Step| matches!(s, Step::AddFdb { .. });
    let neigh = |s: &Step| matches!(s, Step::AddNeigh { .. });
    let del_neigh = |s: &Step| matches!(s, Step::DelNeigh { .. });
    let takes =
        |s: &Step| matches!(s, Step::DelFdb { .. } | Step::DelLink { .. } | Step::SetMaster { master: None, .. });
    let before = |a: Option<usize>, b: Option<usize>| a.zip(b).is_none_or(|(a, b)| a < b);

    if !before(at(&speaks), at(&vxlan)) {
        return Some("FRR knows the VRF's VNI before its VXLAN appears");
    }
    for (i, planned) in plan.iter().enumerate() {
        let Step::AddVxlan { vni, .. } = &planned.step else { continue };
        let port = vni.device();
        let Some(bridge) = plan.iter().find_map(|p| match &p.step {
            Step::SetMaster { dev, master: Some(bridge) } if *dev == port => Some(bridge),
            _ => None,
        }) else {
            continue;
        };
        let late = plan
            .iter()
            .skip(i)
            .any(|p| enters(&p.step) && matches!(&p.step, Step::SetMaster { dev, .. } if dev == bridge));
        if late {
            return Some("a bridge enters its VRF before its VXLAN port exists");
        }
    }
    if !before(last(&fdb), at(&neigh)) {
        return Some("FDB entry before neighbour");
    }
    if !before(last(&del_neigh), at(&takes)) {
        return Some("neighbour is deleted before FDB entry, port and bridge");
    }
    None
}
