//! What each of the two hosts tells of one duplicate, by what its own kernel holds.

use super::*;
use crate::model::{Address, GuestKind, Source};
use crate::plan::fixture::link;
use crate::plan::seen::{Fdb, Neigh};

const OWN: &str = "52:54:00:00:00:01";
const OTHER: &str = "52:54:00:00:00:02";
const IP: &str = "10.1.0.60";

/// A host with a bridge (7), a VXLAN device (8) and a tap (9).
fn world(fdb: &[(&str, u32)], neighs: &[(&str, &str)]) -> World {
    let links = vec![
        link("red-l2", 7, LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: false }),
        link("vxlan20", 8, LinkKind::Vxlan { vni: 20.try_into().ok(), local: None, port: 4789, learning: false }),
        link("vnet0", 9, LinkKind::Other("tun".into())),
    ];
    let fdb = fdb.iter().map(|(mac, port)| {
        (7, Fdb { mac: mac.parse().unwrap(), port: *port, is_static: *port == 9, ext_learned: *port == 8 })
    });
    let neighs = neighs.iter().map(|(ip, mac)| {
        let own = *mac == OWN;
        let mac = mac.parse().ok();
        (7, Neigh { ip: ip.parse().unwrap(), mac, permanent: own, ext_learned: !own, ours: own, router: false })
    });
    World::new(links, Vec::new()).with_entries(fdb.collect(), neighs.collect())
}

fn guest(name: &str, mac: &str, taken: Vec<Taken>) -> GuestRecord {
    let endpoint = Endpoint {
        network: "red".parse().unwrap(),
        bridge: "red-l2".parse().unwrap(),
        device: "vnet0".parse().unwrap(),
        mac: mac.parse().ok(),
        ips: vec![Address::new(IP.parse().unwrap(), Source::Metadata)],
        enslaved: false,
        stage: Stage::Registered,
        port_security: crate::config::PortSecurity::Off,
        index: None,
        taken,
        slowed: Vec::new(),
        beside: Vec::new(),
    };
    let guest = Guest::new(GuestKind::Manual, name, name).unwrap();
    GuestRecord { endpoints: vec![endpoint], ..GuestRecord::new(guest) }
}

fn taken(ip: Option<&str>, mac: &str) -> Vec<Taken> {
    let ip = ip.map(|ip| ip.parse().unwrap());
    vec![Taken { ip, mac: mac.parse().unwrap(), vtep: "10.0.0.2".parse().ok(), since: 1000 }]
}

/// What is told of the first of these at 1030 s.
fn told(world: &World, tunnel: Option<(&str, &str)>, records: &[GuestRecord]) -> Vec<String> {
    let (guest, endpoint) = (&records[0].guest, &records[0].endpoints[0]);
    let vtep_of = |mac: Mac| tunnel.filter(|(its, _)| its.parse() == Ok(mac)).and_then(|(_, vtep)| vtep.parse().ok());
    of(world, vtep_of, &Claims::of(records), guest, endpoint, 1030).iter().map(ToString::to_string).collect()
}

const NAMED: &str = "10.1.0.60 is also 52:54:00:00:00:02's at VTEP 10.0.0.2";

#[test]
fn the_loser_sees_the_winners_entry() {
    let world = world(&[(OWN, 9), (OTHER, 8)], &[(IP, OTHER)]);
    let records = [guest("a", OWN, vec![])];
    assert_eq!(told(&world, None, &records), ["10.1.0.60 is also 52:54:00:00:00:02's at another VTEP"]);
    assert_eq!(told(&world, Some((OTHER, "10.0.0.2")), &records), [NAMED]);
}

#[test]
fn the_winner_goes_by_what_it_took() {
    let records = [guest("a", OWN, taken(Some(IP), OTHER))];
    assert_eq!(told(&world(&[(OWN, 9), (OTHER, 8)], &[(IP, OWN)]), None, &records), [NAMED]);
    assert_eq!(told(&world(&[(OWN, 9), (OTHER, 8)], &[]), None, &records), [NAMED], "neither has it for now");
    assert_eq!(told(&world(&[(OWN, 9)], &[(IP, OWN)]), None, &records), [""; 0], "the other has gone");
    let moved = world(&[(OWN, 9), (OTHER, 8)], &[(IP, OWN), ("10.1.0.61", OTHER)]);
    assert_eq!(told(&moved, None, &records), [""; 0], "the other has got another address");
    let six = world(&[(OWN, 9), (OTHER, 8)], &[(IP, OWN), ("fd00:1::61", OTHER)]);
    assert_eq!(told(&six, None, &records), [NAMED]);
}

#[test]
fn a_mac_that_was_taken_is_told_of_for_a_while() {
    let whole = world(&[(OWN, 9)], &[(IP, OWN)]);
    let mut records = [guest("a", OWN, taken(None, OWN))];
    assert_eq!(told(&whole, None, &records), ["52:54:00:00:00:01 is also at VTEP 10.0.0.2"]);
    records[0].endpoints[0].taken[0].since = 900;
    assert_eq!(told(&whole, None, &records), [""; 0]);
    let lost = world(&[(OWN, 8)], &[(IP, OWN)]);
    assert_eq!(told(&lost, None, &records), ["52:54:00:00:00:01 is also at another VTEP"]);
}

#[test]
fn two_guests_of_one_host_are_told_by_their_records() {
    let whole = world(&[(OWN, 9), (OTHER, 9)], &[(IP, OWN)]);
    let mut records = [guest("a", OWN, vec![]), guest("b", OTHER, vec![])];
    let text = ["10.1.0.60 is also guest b's (52:54:00:00:00:02) on this host"];
    assert_eq!(told(&whole, None, &records), text);
    records[1].endpoints[0].stage = Stage::Incoming;
    assert_eq!(told(&whole, None, &records), [""; 0]);
}
