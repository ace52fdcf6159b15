//! Addresses, FDB entries, neighbours.

use crate::*;
use evpn_hook::plan::seen::{Address, Fdb, Neigh, Remote};
use std::net::IpAddr;

const GUEST: &str = "52:54:00:03:82:d8";

fn segment(kernel: &mut Kernel) -> u32 {
    kernel.apply(&add_bridge("br0", None)).unwrap();
    sh("ip link add v0 type veth peer name v1 && ip link add w0 type veth peer name w1");
    for dev in ["v0", "w0"] {
        kernel.apply(&master(dev, Some("br0"))).unwrap();
    }
    // Carriers first: when a bridge that is up loses its last one, the kernel flushes all neighbours but the permanent.
    sh("for d in v1 w1 v0 w0 br0; do ip link set $d up; done");
    index(kernel, "br0")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn add_fdb(dev: &str) -> Step {
    Step::AddFdb { dev: name(dev), mac: mac(GUEST) }
}

fn del_fdb(dev: &str) -> Step {
    Step::DelFdb { dev: name(dev), mac: mac(GUEST) }
}

netns!(addresses_are_put_without_duplicate_detection, kernel, {
    kernel.apply(&add_bridge("br0", None)).unwrap();
    for _ in 0..2 {
        for address in ["10.1.0.1/24", "fd00:1::1/64"] {
            kernel.apply(&Step::AddAddress { dev: name("br0"), address: address.parse().unwrap() }).unwrap();
        }
    }
    let seen = json("ip -j address show dev br0");
    let list = seen[0]["addr_info"].as_array().unwrap();
    assert_eq!(list.len(), 2, "{seen}");
    assert_eq!((&list[0]["local"], &list[0]["prefixlen"]), (&"10.1.0.1".into(), &24.into()));
    assert_eq!((&list[1]["local"], &list[1]["nodad"]), (&"fd00:1::1".into(), &true.into()));

    sh("ip address add 169.254.7.7/16 dev br0 scope link && ip address add 10.7.0.1 peer 10.7.0.2/32 dev br0");
    let index = index(kernel, "br0");
    let mut addresses = kernel.addresses(Some(index)).unwrap();
    addresses.sort_by_key(|address| address.net);
    let want = |net: &str, global| Address { index, net: net.parse().unwrap(), global, lent: false };
    let wanted = [("10.1.0.1/24", true), ("10.7.0.1/32", true), ("169.254.7.7/16", false), ("fd00:1::1/64", true)];
    assert_eq!(addresses, wanted.map(|(net, global)| want(net, global)));
    sh("ip address add 10.8.0.1/24 dev br0 valid_lft 3600 preferred_lft 3600");
    let lent = kernel.addresses(Some(index)).unwrap().into_iter().filter(|address| address.lent);
    assert_eq!(lent.map(|address| address.net.to_string()).collect::<Vec<_>>(), ["10.8.0.1/24"]);
    sh("ip link set lo up");
    let all = kernel.addresses(None).unwrap();
    assert_eq!(all.len(), 7, "{all:?}"); // and lo's two
    assert_eq!(kernel.addresses(Some(1)).unwrap().len(), 2);
});

netns!(an_ipv6_address_on_a_device_without_ipv6_says_so, kernel, {
    kernel.apply(&add_bridge("br0", None)).unwrap();
    sh("sysctl -qw net.ipv6.conf.br0.disable_ipv6=1");
    let step = Step::AddAddress { dev: name("br0"), address: "fd00:1::1/64".parse().unwrap() };
    let text = kernel.apply(&step).unwrap_err().to_string();
    assert!(text.contains("Permission denied (os error 13)") && text.ends_with("disable_ipv6)?"), "{text}");
    let step = Step::AddAddress { dev: name("gone"), address: "10.1.0.1/24".parse().unwrap() };
    assert!(kernel.apply(&step).unwrap_err().to_string().ends_with("there is no device gone"));
});

netns!(a_guests_mac_is_put_on_its_port, kernel, {
    let bridge = segment(kernel);
    assert_eq!(kernel.fdb(bridge, mac(GUEST)).unwrap(), None);
    for _ in 0..2 {
        kernel.apply(&add_fdb("v0")).unwrap();
    }
    let seen = json(&format!("bridge -j fdb get {GUEST} br br0"));
    assert_eq!((&seen[0]["ifname"], &seen[0]["state"]), (&"v0".into(), &"static".into()), "{seen}");
    assert_eq!(
        sh(&format!("bridge fdb show | grep -c {GUEST}")).trim(),
        "1",
        "no copy in VLAN 1, none of the port's own"
    );
    let port = index(kernel, "v0");
    let want = Fdb { mac: mac(GUEST), port, is_static: true, ext_learned: false };
    assert_eq!(kernel.fdb(bridge, mac(GUEST)).unwrap(), Some(want.clone()));
    assert!(kernel.fdbs(Some(bridge)).unwrap().contains(&(bridge, want.clone())));

    // The guest moved within the host: the old port's withdrawal must not hit the new entry.
    kernel.apply(&add_fdb("w0")).unwrap();
    kernel.apply(&del_fdb("v0")).unwrap();
    let port = index(kernel, "w0");
    assert_eq!(kernel.fdb(bridge, mac(GUEST)).unwrap(), Some(Fdb { port, ..want }));
    for _ in 0..2 {
        kernel.apply(&del_fdb("w0")).unwrap();
        assert_eq!(kernel.fdb(bridge, mac(GUEST)).unwrap(), None);
    }
    sh("ip link set w0 nomaster");
    kernel.apply(&del_fdb("w0")).unwrap();
    kernel.apply(&del_fdb("gone")).unwrap();
    assert!(kernel.apply(&add_fdb("gone")).unwrap_err().gone());
    let text = kernel.apply(&add_fdb("w0")).unwrap_err().to_string();
    assert!(text.ends_with("is the device a port of a bridge?"), "{text}");
});

netns!(others_fdb_entries_read_as_they_are, kernel, {
    let bridge = segment(kernel);
    sh("bridge fdb add 52:54:00:00:00:01 dev v0 master extern_learn");
    sh("bridge fdb add 52:54:00:00:00:02 dev v0 master static sticky");
    // Refused until the port forwards, which it does once its carrier has been noticed (net/bridge/br_fdb.c fdb_add_entry).
    sh("timeout 5 sh -c 'until bridge link show dev w0 | grep -q \"state forwarding\"; do :; done'");
    sh("bridge fdb add 52:54:00:00:00:03 dev w0 master dynamic");
    sh("bridge fdb add 52:54:00:00:00:04 dev w0 self");
    sh("ip link add br9 type bridge && ip link add x0 type veth peer name x1 && ip link set x0 master br9");
    sh("bridge fdb add 52:54:00:00:00:05 dev x0 master static");
    let (v0, w0) = (index(kernel, "v0"), index(kernel, "w0"));
    let want = |m, port, is_static, ext_learned| Fdb { mac: mac(m), port, is_static, ext_learned };
    let wanted = [
        want("52:54:00:00:00:01", v0, false, true),
        want("52:54:00:00:00:02", v0, true, false),
        want("52:54:00:00:00:03", w0, false, false),
    ];
    let mut entries: Vec<_> = kernel.fdbs(Some(bridge)).unwrap().into_iter().map(|(_, entry)| entry).collect();
    assert!(entries.iter().any(|entry| entry.mac == mac("00:00:00:11:11:10")), "the bridge's own: {entries:?}");
    entries.retain(|entry| entry.mac.octets().starts_with(&[0x52, 0x54]));
    assert_eq!(entries, wanted);
    for entry in wanted {
        assert_eq!(kernel.fdb(bridge, entry.mac).unwrap(), Some(entry));
    }
    assert_eq!(kernel.fdb(bridge, mac("52:54:00:00:00:04")).unwrap(), None);
    assert_eq!(kernel.fdb(bridge, mac("52:54:00:00:00:05")).unwrap(), None);
});

netns!(a_vlan_copy_is_not_a_second_entry, kernel, {
    if !has_vlan_filtering() {
        return skip("a_vlan_copy_is_not_a_second_entry", "this kernel has no bridge VLAN filtering");
    }
    sh(
        "ip link add br0 type bridge vlan_filtering 1 && ip link add v0 type veth peer name v1 && ip link set v0 master br0",
    );
    sh(&format!(
        "bridge fdb add {GUEST} dev v0 master static && bridge fdb add 52:54:00:00:00:01 dev v0 master static vlan 1"
    ));
    assert_eq!(sh(&format!("bridge fdb show br br0 | grep -c {GUEST}")).trim(), "2");
    let bridge = index(kernel, "br0");
    let entries: Vec<_> = kernel.fdbs(Some(bridge)).unwrap().into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(entries.iter().filter(|entry| entry.mac == mac(GUEST)).count(), 1);
    assert_eq!(entries.iter().filter(|entry| entry.mac == mac("52:54:00:00:00:01")).count(), 1);
    kernel.apply(&del_fdb("v0")).unwrap();
    assert!(!sh("bridge fdb show br br0").contains(GUEST), "the copies go with it");
});

netns!(a_guests_addresses_are_permanent_neighbours_of_ours, kernel, {
    let bridge = segment(kernel);
    for address in ["10.1.0.60", "fd00:1::60"] {
        assert_eq!(kernel.neigh(bridge, ip(address)).unwrap(), None);
        let step = Step::AddNeigh { bridge: name("br0"), ip: ip(address), mac: mac(GUEST), router: false };
        for _ in 0..2 {
            kernel.apply(&step).unwrap();
        }
        let seen = json(&format!("ip -j neigh show {address} dev br0"));
        assert_eq!((&seen[0]["lladdr"], &seen[0]["state"][0]), (&GUEST.into(), &"PERMANENT".into()), "{seen}");
        assert!(sh(&format!("ip neigh show {address} dev br0")).contains("proto 69"));
        let want = Neigh {
            ip: ip(address),
            mac: Some(mac(GUEST)),
            permanent: true,
            ext_learned: false,
            ours: true,
            router: false,
        };
        assert_eq!(kernel.neigh(bridge, ip(address)).unwrap(), Some(want.clone()));
        assert!(kernel.neighs(bridge).unwrap().contains(&want));
    }
    let own = kernel.neighs(bridge).unwrap();
    assert_eq!(own.len(), 2, "none of the kernel's multicast ones: {own:?}");
    for address in ["10.1.0.60", "fd00:1::60"] {
        for _ in 0..2 {
            kernel.apply(&Step::DelNeigh { bridge: name("br0"), ip: ip(address) }).unwrap();
            assert_eq!(kernel.neigh(bridge, ip(address)).unwrap(), None);
        }
    }
    kernel.apply(&Step::DelNeigh { bridge: name("gone"), ip: ip("10.1.0.60") }).unwrap();
    let step = Step::AddNeigh { bridge: name("gone"), ip: ip("10.1.0.60"), mac: mac(GUEST), router: false };
    assert!(kernel.apply(&step).unwrap_err().gone());
});

netns!(the_end_of_a_mac_leaves_nothing_and_what_another_vtep_has, kernel, {
    segment(kernel);
    let entries = || sh(&format!("bridge fdb show | grep {GUEST} || true"));
    for (vxlan, id, own, other) in [("vxlan20", 20, "192.0.2.1", "192.0.2.9"), ("vxlan30", 30, "fd00::1", "fd00::9")] {
        sh(&format!(
            "ip link add {vxlan} master br0 type vxlan id {id} local {own} dstport 4789 nolearning && ip link set {vxlan} up"
        ));
        let before = entries();
        assert!(!before.contains(vxlan), "{before}");
        let step = Step::EndFdb { vxlan: name(vxlan), mac: mac(GUEST), vtep: ip(own) };
        kernel.apply(&step).unwrap();
        assert_eq!(entries(), before);
        // zebra leaves that of the VTEP from which a guest came, and takes it from the bridge alone.
        sh(&format!("bridge fdb add {GUEST} dev {vxlan} dst {other} self extern_learn"));
        kernel.apply(&step).unwrap();
        assert_eq!(entries(), before);
        sh(&format!(
            "bridge fdb add {GUEST} dev {vxlan} dst {other} self; bridge fdb replace {GUEST} dev {vxlan} master dynamic"
        ));
        let before = entries();
        kernel.apply(&step).unwrap();
        assert_eq!(entries(), before);
    }
    kernel.apply(&Step::EndFdb { vxlan: name("gone"), mac: mac(GUEST), vtep: ip("192.0.2.1") }).unwrap();
});

netns!(a_router_is_marked_as_one, kernel, {
    let bridge = segment(kernel);
    for router in [false, true, false] {
        let (ip, mac) = (ip("fd00:1::60"), mac(GUEST));
        kernel.apply(&Step::AddNeigh { bridge: name("br0"), ip, mac, router }).unwrap();
        let shown = sh("ip neigh show fd00:1::60 dev br0");
        assert_eq!(shown.contains(" router "), router, "{shown}");
        assert_eq!(kernel.neigh(bridge, ip).unwrap().unwrap().router, router);
        kernel.apply(&Step::TellNeigh { bridge: name("br0"), ip, mac, router }).unwrap();
        assert_eq!(sh("ip neigh show fd00:1::60 dev br0"), shown);
    }
});

netns!(the_speakers_neighbour_is_told_from_ours_and_taken_over, kernel, {
    let bridge = segment(kernel);
    let other = "52:54:00:aa:aa:aa";
    sh(&format!("ip neigh add 10.1.0.60 lladdr {other} dev br0 nud noarp extern_learn proto zebra"));
    sh(&format!("ip neigh add fd00:1::61 lladdr {other} dev br0 nud permanent"));
    sh(&format!("ip neigh add 10.1.0.62 lladdr {other} dev v0 nud permanent")); // another device's
    let remote = Neigh {
        ip: ip("10.1.0.60"),
        mac: Some(mac(other)),
        permanent: false,
        ext_learned: true,
        ours: false,
        router: false,
    };
    assert_eq!(kernel.neigh(bridge, remote.ip).unwrap(), Some(remote.clone()));
    let mut seen = kernel.neighs(bridge).unwrap();
    seen.sort_by_key(|neigh| neigh.ip);
    let admins = Neigh {
        ip: ip("fd00:1::61"),
        mac: Some(mac(other)),
        permanent: true,
        ext_learned: false,
        ours: false,
        router: false,
    };
    assert_eq!(seen, vec![remote.clone(), admins]);

    kernel.apply(&Step::AddNeigh { bridge: name("br0"), ip: remote.ip, mac: mac(GUEST), router: false }).unwrap();
    let taken = Neigh { mac: Some(mac(GUEST)), permanent: true, ext_learned: false, ours: true, ..remote };
    assert_eq!(kernel.neigh(bridge, taken.ip).unwrap(), Some(taken));
});

netns!(an_ipv6_neighbour_without_ipv6_says_so, kernel, {
    segment(kernel);
    sh("sysctl -qw net.ipv6.conf.br0.disable_ipv6=1");
    let step = Step::AddNeigh { bridge: name("br0"), ip: ip("fd00:1::60"), mac: mac(GUEST), router: false };
    let text = kernel.apply(&step).unwrap_err().to_string();
    assert!(text.ends_with("disable_ipv6)?"), "{text}");
});

netns!(what_vxlan_devices_send_where, kernel, {
    segment(kernel);
    sh("ip link add vxlan20 type vxlan id 20 local 10.0.0.1 dstport 4789 nolearning && ip link set vxlan20 master br0");
    sh("ip link add vxlan21 type vxlan id 21 local fd00::1 dstport 4790 nolearning");
    assert_eq!(kernel.remotes().unwrap(), vec![]);
    sh(
        "bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.0.2 self && bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.0.3 self",
    );
    sh(&format!(
        "bridge fdb add {GUEST} dev vxlan20 dst 10.0.0.2 self extern_learn && bridge fdb add {GUEST} dev vxlan21 dst fd00::2 self"
    ));
    // A bridge's own entry, a group, a multicast MAC: none of them is a guest behind a VTEP.
    sh(
        "bridge fdb add 52:54:00:00:00:01 dev v0 master static && bridge fdb append 00:00:00:00:00:00 dev vxlan21 dst ff05::1 self",
    );
    sh("bridge fdb add 01:00:5e:00:00:05 dev vxlan20 dst 10.0.0.4 self");
    let (first, second) = (index(kernel, "vxlan20"), index(kernel, "vxlan21"));
    let mut remotes = kernel.remotes().unwrap();
    remotes.sort_by_key(|remote| (remote.port, remote.mac, remote.vtep));
    let remote = |port, mac, vtep: &str| Remote { port, mac, vtep: ip(vtep) };
    let guest = Some(mac(GUEST));
    assert_eq!(
        remotes,
        [
            remote(first, None, "10.0.0.2"),
            remote(first, None, "10.0.0.3"),
            remote(first, guest, "10.0.0.2"),
            remote(second, guest, "fd00::2"),
        ]
    );
});
