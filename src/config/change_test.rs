//! Which field of a description differs, and whether a network that is up takes it over.

use super::*;

fn up() -> Network {
    let text = "[[vrf]]\nname = \"red\"\ntable = 10\nvni = 10\n[[network]]\nname = \"red\"\nbridge = \"red-l2\"\nvni = 20\nvrf = \"red\"
gateway = [\"10.1.0.1/24\", \"fd00:1::1/64\"]\nmac = \"00:00:00:11:11:10\"\nmtu = 1450\nport_security = \"mac-ip\"\n";
    super::super::parse(text, "config.toml").unwrap().networks.remove(0)
}

fn changes(change: impl FnOnce(&mut Network)) -> Vec<(String, bool)> {
    let mut told = up();
    change(&mut told);
    up().changes(&told).into_iter().map(|c| (c.what, c.anew)).collect()
}

#[test]
fn each_field_of_config_toml() {
    let one = |what: &str, anew| vec![(what.to_owned(), anew)];
    assert_eq!(changes(|_| {}), []);
    assert_eq!(changes(|n| n.hosts.extend([("52:54:00:00:00:01".parse().unwrap(), vec![])])), []);
    assert_eq!(changes(|n| n.mtu = None), [], "what the underlay leaves");
    assert_eq!(changes(|n| n.gateway.reverse()), []);
    assert_eq!(changes(|n| n.bridge = "x".parse().unwrap()), one("bridge x, and it is up with red-l2", true));
    assert_eq!(changes(|n| n.vni = 30.try_into().unwrap()), one("vni 30, and it is up with 20", true));
    let up_with = "and it is up with red (table 10, vni 10)";
    assert_eq!(changes(|n| n.vrf = None), one(&format!("vrf none, {up_with}"), true));
    let other = |n: &mut Network| n.vrf.as_mut().unwrap().vni = None;
    assert_eq!(changes(other), one(&format!("vrf red (table 10, no vni), {up_with}"), true));
    let up_with = "and it is up with 10.1.0.1/24, fd00:1::1/64";
    assert_eq!(changes(|n| n.gateway.clear()), one(&format!("gateway none, {up_with}"), false));
    assert_eq!(changes(|n| n.gateway.truncate(1)), one(&format!("gateway 10.1.0.1/24, {up_with}"), false));
    assert_eq!(changes(|n| n.mac = None), one("mac none, and it is up with 00:00:00:11:11:10", false));
    assert_eq!(changes(|n| n.mtu = Some(9000)), one("mtu 9000, and it is up with 1450", false));
    assert_eq!(changes(|n| n.port_security = None), one("port_security off, and it is up with mac-ip", false));
    assert_eq!(changes(|n| n.stp = true), one("stp on, and it is up with off", false));
    assert_eq!(changes(|n| n.vlan_aware = true), one("macTableManager libvirt, and it is up with none", true));
}

#[test]
fn what_libvirts_xml_leaves_open_is_as_it_is_up() {
    for origin in [Origin::Libvirt, Origin::LibvirtBridge] {
        let up = Network { origin, ..up() };
        let silent = Network { mac: None, mtu: None, port_security: None, ..up.clone() };
        assert_eq!(up.changes(&silent), []);
        assert_eq!(silent.asks_to_hold(&up), None, "no wish to lift it");
        let off = Network { port_security: Some(PortSecurity::Off), ..silent.clone() };
        assert_eq!(off.asks_to_hold(&up), Some(PortSecurity::Off));
        let without = Network { gateway: vec![], ..silent };
        assert_eq!(up.changes(&without).len(), usize::from(origin == Origin::Libvirt), "{origin:?}");
    }
}
