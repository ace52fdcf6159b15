//! Which entries are another guest's, and how that is told.

use super::*;
use crate::model::{Address, Source};
use crate::plan::fixture::{bridge, link, mac, name};
use crate::plan::seen::{Fdb, LinkKind, Neigh};

const OWN: &str = "52:54:00:00:00:01";
const OTHER: &str = "52:54:00:00:00:02";
const IP: &str = "10.1.0.60";

/// A port with index 12 on a bridge with index 7.
fn suspected(fdb: Option<Fdb>, neighs: Vec<Neigh>) -> Vec<Suspect> {
    let (device, on) = (name("vnet0"), name("red-l2"));
    let ips = [Address::new(IP.parse().unwrap(), Source::Metadata)];
    let port = link("vnet0", 12, LinkKind::Other("tun".into()));
    let seen = Seen { device: Some(port), bridge: Some(bridge("red-l2", 7)), fdb, neighs, ..Seen::default() };
    let want = Wanted {
        guest: "guest vm1",
        device: &device,
        bridge: &on,
        network: "red",
        mac: Some(mac(OWN)),
        ips: &ips,
        beside: &[],
        guard: crate::plan::guard::Guard::new(),
        index: None,
        enslave: false,
        mend: false,
    };
    suspects(&want, &seen)
}

fn fdb(port: u32, is_static: bool, ext_learned: bool) -> Option<Fdb> {
    Some(Fdb { mac: mac(OWN), port, is_static, ext_learned })
}

fn neigh(lladdr: &str, permanent: bool, ext_learned: bool) -> Neigh {
    Neigh { ip: IP.parse().unwrap(), mac: Some(mac(lladdr)), permanent, ext_learned, ours: false, router: false }
}

#[test]
fn what_is_its_own_or_merely_learned_is_no_claim() {
    assert_eq!(suspected(None, vec![]), []);
    assert_eq!(suspected(fdb(12, true, true), vec![neigh(OWN, true, false)]), [], "its own, attached again");
    assert_eq!(suspected(fdb(13, false, false), vec![neigh(OTHER, false, false)]), [], "learned by the kernel");
    let other_address = Neigh { ip: "10.1.0.61".parse().unwrap(), ..neigh(OTHER, true, false) };
    assert_eq!(suspected(None, vec![other_address]), []);
}

#[test]
fn what_others_hold_is_suspect() {
    let ip = |by| Suspect { ip: IP.parse().ok(), mac: mac(OTHER), by };
    let own = |by| Suspect { ip: None, mac: mac(OWN), by };
    assert_eq!(suspected(None, vec![neigh(OTHER, false, true)]), [ip(By::Neighbour)]);
    assert_eq!(suspected(None, vec![neigh(OTHER, true, false)]), [ip(By::Host)]);
    let turned = Neigh { ours: true, ..neigh(OTHER, false, false) };
    assert_eq!(suspected(None, vec![turned]), [ip(By::Host)], "dnsmasq made a permanent one of ours a learned one");
    assert_eq!(suspected(fdb(9, false, true), vec![]), [own(By::Fdb)]);
    let twin = vec![neigh(OWN, false, true)];
    assert_eq!(suspected(fdb(12, false, false), twin), [own(By::Neighbour)], "its first frames came before its hook");
    assert_eq!(suspected(fdb(13, true, false), vec![neigh(OTHER, false, true)]), [own(By::Host), ip(By::Neighbour)]);
}

#[test]
fn where_the_other_is() {
    let (vtep, ip) = ("10.0.0.1".parse().ok(), IP.parse().ok());
    let told = |suspect, tunnel, vtep, owner: Option<&str>| {
        judge(suspect, tunnel, vtep, owner.map(str::to_owned)).map(|d| format!("{d}: {}", d.mend()))
    };
    let address = Suspect { ip, mac: mac(OTHER), by: By::Neighbour };
    let text = "10.1.0.60 is also 52:54:00:00:00:02's at VTEP 10.0.0.1: give one of the two another address";
    assert_eq!(told(address, true, vtep, None).as_deref(), Some(text));
    let text = "10.1.0.60 is also 52:54:00:00:00:02's at another VTEP: give one of the two another address";
    assert_eq!(told(address, false, None, None).as_deref(), Some(text), "its FDB entry is missing");
    let own = Suspect { ip: None, mac: mac(OWN), by: By::Fdb };
    let text = "52:54:00:00:00:01 is also at VTEP 10.0.0.1: give one of the two another MAC, unless it is the same guest and has ended there";
    assert_eq!(told(own, true, vtep, None).as_deref(), Some(text));
    let text = "52:54:00:00:00:01 is also guest vm2's on this host: give one of the two another MAC";
    assert_eq!(
        told(own, false, None, Some("guest vm2")).as_deref(),
        Some(text),
        "it was taken back from the fabric once"
    );
    let here = Suspect { by: By::Host, ..address };
    let text = "10.1.0.60 is also guest vm2's (52:54:00:00:00:02) on this host: give one of the two another address";
    assert_eq!(told(here, false, None, Some("guest vm2")).as_deref(), Some(text));
    assert_eq!(told(here, false, None, None), None, "a leftover, or an operator's own entry");
    assert!(judge(address, true, vtep, None).unwrap().may_go());
    assert!(!judge(here, false, None, Some("vm2".to_owned())).unwrap().may_go());
}
