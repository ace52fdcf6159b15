//! Hooks that are fed rubbish: refused with one line where a start may be refused, told with status 0 where nothing may be.

use crate::common::sh;
use crate::host::{CONFIG, Host, snapshot, tap};
use crate::on_a_host;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, domain, guest, interface, network};

const MAC: &str = "52:54:00:03:82:d8";

/// A domain that would start, on a host where it could.
fn good() -> (Host, String) {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 up");
    (host, domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2")))
}

/// Every text that is no domain of ours, each with what is said of it.
fn rubbish(good: &str) -> Vec<(Vec<u8>, &'static str)> {
    let entities = "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>";
    let cut = good.find("<uuid>").unwrap() + 20;
    vec![
        (b"".to_vec(), ""),
        (b"not xml".to_vec(), ""),
        (b"\0\xff\xfe<domain>".to_vec(), ""),
        (good.as_bytes()[..cut].to_vec(), ""),
        (format!("<!DOCTYPE domain SYSTEM 'file:///etc/passwd'>{good}").into_bytes(), "DOCTYPE"),
        (format!("{entities}{}", good.replace("vm1", "&b;")).into_bytes(), "DOCTYPE"),
        (good.replace("11111111-2222", "../../../etc").into_bytes(), "is no UUID"),
        ("<a>".repeat(100_000).into_bytes(), "deep"),
        (vec![b' '; 64 << 20], "MiB"),
    ]
}

on_a_host!(a_start_with_rubbish_is_refused, {
    let (host, good) = good();
    for (xml, words) in rubbish(&good) {
        host.hook_refuses(&["qemu", "vm1", "start", "begin", "-"], &xml, 1, &["vm vm1: ", words]);
    }
    let half = &good[..good.find("</devices>").unwrap()];
    host.hook_refuses(&["qemu", "vm1", "start", "begin", "-"], half, 1, &["vm vm1: "]);
});

on_a_host!(what_must_never_fail_does_not, {
    let (host, good) = good();
    host.hook(&["qemu", "vm1", "start", "begin", "-"], &good).ok();
    let before = snapshot();
    assert!(before.contains("neigh 10.1.0.60"));
    for (xml, words) in rubbish(&good) {
        for op in ["reconnect", "stopped", "release", "migrate", "started"] {
            host.hook(&["qemu", "vm1", op, "begin", "-"], &xml).says(0, &["vm vm1: ", words]);
        }
    }
    for words in [&["qemu", "vm1", "restore", "begin", "-"][..], &["qemu", "vm1", "attach", "begin", "-"]] {
        host.hook(words, "rubbish").ok();
    }
    for op in ["stopped", "updated", "port-deleted", "port-created"] {
        let run = host.hook(&["network", "lab", op, "end", "-"], "<hookData><netwo");
        assert!(run.status == 0 && run.stderr.lines().count() <= 1, "{op}: {run:?}");
    }
    assert_eq!(snapshot(), before);
    // What stands behind name and UUID may be broken: the guest is withdrawn all the same.
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], &good[..good.find("<devices>").unwrap()]).ok();
    assert!(!snapshot().contains("neigh"), "{}", snapshot());
});

on_a_host!(a_reconnect_never_fails, {
    let (host, good) = good();
    let reconnect = ["qemu", "vm1", "reconnect", "begin", "-"];
    host.hook(&reconnect, &good).ok();
    assert!(snapshot().contains("neigh 10.1.0.60"));
    sh("ip link set vnet0 nomaster");
    host.hook(&reconnect, &good).ok();
    assert!(snapshot().contains("link \"vnet0\" master \"flat-l2\""));
    sh("ip link del vnet0");
    host.hook(&reconnect, &good).says(0, &["vm vm1: device vnet0 is not there"]);
    std::fs::write("/run/evpn-hook/networks/flat-l2.json", "{").unwrap();
    host.hook(&reconnect, &good).says(0, &["flat-l2.json is corrupt ("]);
    std::fs::write("/run/config.toml", "[").unwrap();
    host.hook(&reconnect, &good).says(0, &["flat-l2.json is corrupt ("]);
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], &good).ok();
});

on_a_host!(metadata_is_taken_strictly, {
    let (host, _) = good();
    let before = snapshot();
    let nic = interface(MAC, "vnet0", "flat-l2");
    let start = ["qemu", "vm1", "start", "begin", "-"];
    let ours = |ip: &str| domain(1, &guest(MAC, None, &[ip]), &nic);
    for (xml, words) in [
        (ours("10.1.0.300"), "address '10.1.0.300' does not parse"),
        (ours("10.1.0.60/24"), "without a prefix length"),
        (ours("224.0.0.1"), "address 224.0.0.1 is multicast"),
        (ours("10.1.0.1"), "address 10.1.0.1 of device vnet0 is network flat's gateway"),
        (ours("10.1.0.60;reboot"), "address '10.1.0.60;reboot' does not parse"),
        (domain(1, &guest("52:54:00", None, &[]), &nic), "MAC '52:54:00' does not parse"),
        (domain(1, &guest("01:00:5e:00:00:01", None, &[]), &nic), "is multicast or zero"),
        (
            domain(1, &guest("52:54:00:03:82:d9", None, &[]), &nic),
            "52:54:00:03:82:d9, which none of its interfaces has",
        ),
        (domain(1, &guest(MAC, Some("y"), &[]), &nic), "on network 'y', its interface on 'x'"),
        (ours("10.1.0.60").replace("evpn:ip", "evpn:ipv4"), "evpn:ipv4"),
    ] {
        host.hook(&start, xml).says(1, &["vm vm1: ", words]);
    }
    assert_eq!(snapshot(), before);
    let gateways = interface("00:00:00:11:11:10", "vnet0", "flat-l2");
    host.hook_refuses(
        &start,
        domain(1, "", &gateways),
        1,
        &["vm vm1: MAC 00:00:00:11:11:10 is the gateway's on flat-l2"],
    );
});

on_a_host!(names_cannot_leave_their_place, {
    let (host, good) = good();
    for name in ["../../../tmp/x", "a;reboot", "$(reboot)", "a b", "%s%n"] {
        let xml = good.replace("vm1", name);
        host.hook(&["qemu", name, "start", "begin", "-"], &xml).ok();
        assert_eq!(host.status()["endpoints"][0]["guest"]["name"], name);
        let files = sh("find /run/evpn-hook/guests -type f | sort");
        assert_eq!(files.lines().count(), 2, "one record, one lock: {files}");
        host.hook(&["qemu", name, "stopped", "end", "-"], &xml).ok();
    }
    let parts = &["vm 'a\\nb': ", "guest name 'a\\nb' is empty, over 255 bytes, or not printable: rename it"];
    host.hook_refuses(&["qemu", "a\nb", "start", "begin", "-"], good.replace("vm1", "a\nb"), 1, parts);
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--guest", "../../x"]);
    assert_eq!(sh("find /run -name '*x.json'"), "/run/evpn-hook/guests/manual-%2e%2e%2f%2e%2e%2fx.json\n");
});

on_a_host!(a_networks_metadata_is_taken_strictly, {
    let host = Host::new(CONFIG);
    sh(LIBVIRTS_BRIDGE);
    let before = snapshot();
    let l2 = "<evpn:network vni='40'/>";
    let vrf = |words: &str| format!("<evpn:network vni='40'><evpn:vrf {words}/></evpn:network>");
    for (metadata, words) in [
        (l2.replace("40", "16777216"), "VNI 16777216 is out of range: use 1 to 16777215"),
        (l2.replace("40", "0"), "VNI 0 is out of range"),
        (l2.replace("40", "x"), "VNI 'x' is not a number from 1 to 16777215"),
        (l2.replace("vni='40'", ""), "<evpn:network> has no vni=: add vni='20'"),
        (l2.replace("vni", "vnid"), "vnid"),
        (vrf("name='lab' table='255' vni='41'"), "routing table 255 is one of the kernel's own"),
        (vrf("name='lab' table='x' vni='41'"), "routing table 'x' is not a number"),
        (vrf("name='lab' vni='41'"), "<evpn:vrf> has no table=: add table='10'"),
        (vrf("name='lab' table='10' vni='40'"), "vni 40 is both the network's and its VRF's: give the VRF another"),
        (vrf("name='thirteen-byte' table='10' vni='41'"), "VRF name 'thirteen-byte' is too long for its L3VNI bridge"),
        (vrf("name='sixteen-byte-nam' table='10'"), "has 16 bytes: the kernel takes 1 to 15"),
        (vrf("name='../lab' table='10' vni='41'"), "device name '../lab' has a character that is not"),
        (vrf("name='lab;x' table='10' vni='41'"), "device name 'lab;x' has a character that is not"),
    ] {
        for op in ["start", "started"] {
            let xml = network("lab", &metadata, LAB);
            host.hook(&["network", "lab", op, "begin", "-"], xml).says(1, &["network lab: ", words]);
        }
    }
    assert_eq!(snapshot(), before);
    let aware = network("lab", l2, &LAB.replace("stp='off'", "macTableManager='libvirt'"));
    host.hook_refuses(
        &["network", "lab", "start", "begin", "-"],
        aware,
        1,
        &["network lab: bridge lab-l2 is VLAN-aware"],
    );
    let same = network("flat", "<evpn:network vni='99'/>", &LAB.replace("lab-l2", "flat-l2"));
    let parts =
        &["network flat: libvirt's metadata and config.toml disagree on vni: 99 and 20: make them say the same"];
    host.hook_refuses(&["network", "flat", "start", "begin", "-"], same, 1, parts);
    let same = network("flat", "<evpn:network vni='20'/>", LAB);
    let parts = &["network flat: libvirt's XML and config.toml disagree on bridge: lab-l2 and flat-l2"];
    host.hook_refuses(&["network", "flat", "started", "begin", "-"], same, 1, parts);
});

on_a_host!(a_network_whose_bridge_libvirt_has_not_made, {
    let host = Host::new(CONFIG);
    let xml = network("lab", "<evpn:network vni='40'/>", LAB);
    let parts = &["network lab: bridge lab-l2 is not there: start the network with 'virsh net-start lab'"];
    host.hook_refuses(&["network", "lab", "started", "begin", "-"], &xml, 1, parts);
});

on_a_host!(a_broken_config_keeps_nothing_from_stopping, {
    let host = Host::new(CONFIG);
    sh(LIBVIRTS_BRIDGE);
    let before = snapshot();
    let xml = network("lab", "<evpn:network vni='40'/>", LAB);
    host.hook(&["network", "lab", "started", "begin", "-"], &xml).ok();
    std::fs::write("/run/config.toml", "[[network").unwrap();
    host.hook_refuses(&["network", "lab", "start", "begin", "-"], &xml, 1, &["/run/config.toml line 1: "]);
    // One without our metadata is not ours to stop: it starts, and the log says why it may not be on the fabric.
    let foreign = network("default", "", LAB);
    host.hook(&["network", "default", "start", "begin", "-"], &foreign).says(0, &["/run/config.toml line 1: "]);
    host.hook(&["network", "lab", "stopped", "end", "-"], &xml).ok();
    let after = snapshot();
    // libvirt deletes its bridge next; the MTU that it had is not put back for that moment.
    assert!(!after.contains("vxlan") && !after.contains("\"vni\""), "{after}");
    assert!(before.contains("lab-l2") && after.contains("address \"lab-l2\" \"10.1.0.1\" 24"), "{after}");
});
