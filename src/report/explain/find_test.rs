//! Who is meant, and what is said where that is nobody or more than one.

use super::*;
use crate::model::{Address, GuestKind, Source};
use crate::plan::fixture;
use crate::plan::seen::{Link, Neigh};
use crate::register::Stage;
use crate::report::explain::fixture::{IP, MAC, ip, mac, path, record};

fn guest(kind: GuestKind, name: &str, device: &str, mac: &str, ips: &[&str]) -> GuestRecord {
    let endpoint = Endpoint {
        network: "red".parse().unwrap(),
        bridge: "red-l2".parse().unwrap(),
        device: device.parse().unwrap(),
        mac: mac.parse().ok(),
        ips: ips.iter().map(|ip| Address::new(ip.parse().unwrap(), Source::Manual)).collect(),
        enslaved: false,
        stage: Stage::Registered,
        port_security: crate::config::PortSecurity::Off,
        index: None,
        taken: Vec::new(),
        slowed: Vec::new(),
        beside: Vec::new(),
    };
    GuestRecord { endpoints: vec![endpoint], ..GuestRecord::new(Guest::new(kind, name, name).unwrap()) }
}

fn devices(asked: &str, records: &[GuestRecord]) -> Result<Vec<String>, String> {
    let found = here(&Asked::of(asked), records).map_err(|e| e.to_string())?;
    Ok(found.iter().map(|(_, e)| e.device.to_string()).collect())
}

fn world() -> World {
    let link = |name: &str, index, kind| Link { master: (index == 9).then_some(7), ..fixture::link(name, index, kind) };
    let bridge = LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: false };
    let links = vec![
        link("red-l2", 7, bridge.clone()),
        link("blue-l2", 8, bridge),
        link("tap9", 9, LinkKind::Other("tun".into())),
    ];
    let neigh = |bridge, ip: &str| {
        (
            bridge,
            Neigh {
                ip: ip.parse().unwrap(),
                mac: MAC.parse().ok(),
                permanent: false,
                ext_learned: true,
                ours: false,
                router: false,
            },
        )
    };
    World::new(links, Vec::new())
        .with_entries(Vec::new(), vec![neigh(7, "10.1.0.61"), neigh(7, "10.1.0.62"), neigh(8, "10.1.0.62")])
}

fn blue() -> NetworkRecord {
    let mut blue = record();
    (blue.network.name, blue.network.bridge) = ("blue".parse().unwrap(), "blue-l2".parse().unwrap());
    blue.network.vni = 51.try_into().unwrap();
    blue
}

#[test]
fn a_guest_of_this_host_is_known_by_name_device_mac_and_address() {
    let mut two = guest(GuestKind::Lxc, "c1", "veth1", MAC, &[IP]);
    two.endpoints.push(guest(GuestKind::Lxc, "c1", "veth2", "52:54:00:00:00:02", &["fd00:1::2"]).endpoints.remove(0));
    let records = [two, guest(GuestKind::Libvirt, "vm1", "vnet0", "52:54:00:00:00:03", &[])];
    for (asked, found) in [
        ("c1", &["veth1", "veth2"][..]),
        ("veth2", &["veth2"]),
        ("52:54:00:03:82:D8", &["veth1"]),
        ("FD00:1:0::2", &["veth2"]),
        ("vm1", &["vnet0"]),
        ("c2", &[]),
    ] {
        assert_eq!(devices(asked, &records).unwrap(), found, "{asked}");
    }
}

#[test]
fn more_than_one_is_said_with_their_devices() {
    let records =
        [guest(GuestKind::Lxc, "c1", "veth1", MAC, &[IP]), guest(GuestKind::Libvirt, "c1", "vnet0", MAC, &[IP])];
    for asked in ["c1", MAC, IP] {
        let said = devices(asked, &records).unwrap_err();
        assert!(said.contains("container c1 (veth1), vm c1 (vnet0): name one by its device"), "{said}");
    }
}

#[test]
fn a_guest_of_another_host_is_known_by_what_the_kernel_and_bgp_hold() {
    let networks = [record(), blue()];
    let received = [path("10.0.0.2:2", false, Some(ip(IP)), "10.0.0.2")];
    let find = |asked: &str| {
        let found = away(&Asked::of(asked), &networks, &world(), &received, None).map_err(|e| e.to_string())?;
        Ok::<_, String>((found.record.network.name.to_string(), found.mac, found.ips))
    };
    let red = |ips: &[&str]| Ok(("red".to_owned(), Some(mac(MAC)), ips.iter().map(|i| ip(i)).collect::<Vec<_>>()));
    assert_eq!(find("10.1.0.61"), red(&["10.1.0.61"]), "a neighbour of one network");
    assert_eq!(find(IP), red(&[IP]), "both have the subnet, and one the route");
    assert_eq!(
        find("10.1.0.62").unwrap_err(),
        "10.1.0.62: it is on more than one network (red, blue): name the guest's MAC or device"
    );
    assert_eq!(
        find("10.1.0.1").unwrap_err(),
        "10.1.0.1 is the gateway of network red, and no guest's: see 'evpn-hook status'"
    );
    let nobody = "192.0.2.1: no guest of this host has it, nor any other that is known here: ask on the host where the guest runs, or see 'evpn-hook status'";
    assert_eq!(find("192.0.2.1").unwrap_err(), nobody);

    let one = [record()];
    let find = |asked: &str| away(&Asked::of(asked), &one, &world(), &received, None).unwrap();
    assert_eq!(find(IP).mac, Some(mac(MAC)), "announced");
    assert_eq!(
        (find("10.1.0.99").mac, find("10.1.0.99").ips),
        (None, vec![ip("10.1.0.99")]),
        "in the subnet, and nobody's"
    );
    assert_eq!(find(MAC).ips, ["10.1.0.60", "10.1.0.61", "10.1.0.62"].map(ip));
    assert_eq!(find("52:54:00:00:00:99").ips, [] as [IpAddr; 0], "where there is one network it is that one's");
}

#[test]
fn where_bgp_does_not_tell_nobody_is_said_to_be_nobodys() {
    let unheard = Unheard::Untold("bgpd did not answer 'show x' within 1500 ms".into());
    let said = |asked: &str, networks: &[NetworkRecord]| {
        away(&Asked::of(asked), networks, &world(), &[], Some(&unheard)).unwrap_err().to_string()
    };
    let networks = [record(), blue()];
    let told = "no guest of this host has it, and whether another has is not told: bgpd did not answer 'show x' within 1500 ms";
    assert_eq!(said("192.0.2.1", &networks), format!("192.0.2.1: {told}; name its MAC"));
    assert_eq!(said("52:54:00:00:00:99", &networks), format!("52:54:00:00:00:99: {told}"));
}

#[test]
fn a_name_that_is_nobodys_is_said_with_a_way_out() {
    let networks = [record()];
    let said = |asked: &str| away(&Asked::of(asked), &networks, &world(), &[], None).unwrap_err().to_string();
    assert!(
        said("tap9").contains("'evpn-hook attach tap9 --network red --mac MAC --ip IP' makes it one"),
        "{}",
        said("tap9")
    );
    assert!(said("red-l2").contains("no guest's"), "{}", said("red-l2"));
    assert!(said("vm\n9").contains(r"'vm\n9': no guest, device, MAC or address"), "{}", said("vm\n9"));
    let none = away(&Asked::of("10.1.0.1"), &[], &world(), &[], None).unwrap_err().to_string();
    assert!(none.contains("no network of evpn-hook's is up on this host"), "{none}");
}
