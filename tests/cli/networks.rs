//! Networks that work: up, seen, up again, down.

use crate::at_work::{stopped_at, until_it_waits};
use crate::common::{ip_link, json, sh};
use crate::host::{CONFIG, Host, snapshot};
use crate::on_a_host;
use crate::trouble::races::points_of;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, network};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json as value;
use std::fs::File;

on_a_host!(a_network_of_config_toml_up_and_down, {
    let host = Host::new(CONFIG);
    let before = snapshot();
    let plan = host.run(&["network", "up", "flat", "--dry-run"]).ok().stdout;
    assert_eq!(snapshot(), before, "a dry run changes nothing");
    assert_eq!(
        plan,
        "ip link add flat-l2 address 00:00:00:11:11:10 type bridge stp_state 0 vlan_default_pvid 0
sysctl -w net.ipv6.conf.flat-l2.accept_ra=0
sysctl -w net.ipv4.conf.flat-l2.arp_ignore=1
ip address replace 10.1.0.1/24 dev flat-l2 nodad
ip link add vxlan20 type vxlan id 20 local 10.0.0.1 dstport 4789 nolearning
ip link set vxlan20 master flat-l2
bridge link set dev vxlan20 learning off neigh_suppress on
ip link set flat-l2 up
ip link set vxlan20 up
"
    );
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(
        host.status(),
        value!({"endpoints": [], "networks": [
            {"name": "flat", "bridge": "flat-l2", "vni": 20, "vrf": null, "vtep": "10.0.0.1", "state": "up", "problems": [],
                "remotes": [], "port_security": "off", "advice": []},
            {"name": "other", "bridge": "other-l2", "vni": 21, "vrf": null, "vtep": null, "state": "down",
                "problems": ["not up: 'evpn-hook network up other'"], "remotes": [], "port_security": "off", "advice": []},
            {"name": "routed", "bridge": "red-l2", "vni": 30, "vrf": {"name": "red", "table": 10, "vni": 10},
                "vtep": null, "state": "down", "problems": ["not up: 'evpn-hook network up routed'"],
                "remotes": [], "port_security": "off", "advice": []},
        ]})
    );
    let (bridge, vxlan) = (ip_link("flat-l2"), ip_link("vxlan20"));
    assert_eq!((&bridge["address"], &bridge["mtu"]), (&"00:00:00:11:11:10".into(), &1450.into()));
    assert_eq!((&vxlan["master"], &vxlan["mtu"]), (&"flat-l2".into(), &1450.into()));
    assert_eq!(vxlan["linkinfo"]["info_data"]["local"], "10.0.0.1");
    let up = snapshot();
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(snapshot(), up, "up again is nothing");
    host.run(&["network", "down", "flat", "--dry-run"]).ok();
    assert_eq!(snapshot(), up, "a dry run changes nothing");
    host.run(&["network", "down", "flat"]).ok();
    assert_eq!(snapshot(), before, "and down is as before");
});

on_a_host!(all_of_config_toml, {
    let host = Host::new(CONFIG.split("[[network]]\nname = \"routed\"").next().unwrap());
    host.run(&["network", "up", "--all"]).ok();
    host.run(&["status", "--check"]).ok();
    let text = host.run(&["status"]).ok().stdout;
    assert_eq!(
        text,
        "layer 2 only
|- flat: up, bridge flat-l2, VNI 20, VTEP 10.0.0.1
`- other: up, bridge other-l2, VNI 21, VTEP 10.0.0.1
      ~ advice: mtu-not-told ('evpn-hook doctor -v')
"
    );
    host.run(&["network", "down", "--all"]).ok();
    assert!(!snapshot().contains("-l2"), "{}", snapshot());
    assert_eq!(host.run(&["status", "--check"]).status, 3);
});

on_a_host!(a_network_that_is_up_does_not_change_its_vni, {
    let host = Host::flat();
    std::fs::write("/run/config.toml", CONFIG.replace("vni = 20", "vni = 25")).unwrap();
    let parts = &["network flat: it is up with VNI 20 and VTEP 10.0.0.1, not VNI 25", "take it down first"];
    host.refuses(&["network", "up", "flat"], 1, parts);
    host.run(&["network", "down", "flat"]).ok();
    host.run(&["network", "up", "flat"]).ok();
    assert_eq!(host.status()["networks"][0]["vni"], 25);
});

on_a_host!(what_libvirt_started_stays_libvirts, {
    let host = Host::new(&format!("{CONFIG}\n[[network]]\nname = \"lab\"\nbridge = \"lab-l2\"\nvni = 40\n"));
    sh(LIBVIRTS_BRIDGE);
    let xml = network("lab", "<evpn:network vni='40'/>", LAB);
    host.hook(&["network", "lab", "started", "begin", "-"], &xml).ok();
    let started = snapshot();
    host.run(&["network", "up", "lab"]).ok();
    assert_eq!(snapshot(), started, "nor its DHCP hosts are forgotten");
    sh("ip link del lab-l2");
    host.hook(&["network", "lab", "stopped", "end", "-"], &xml).ok();
    assert!(!snapshot().contains("vxlan40"), "{}", snapshot());
});

on_a_host!(a_status_of_nothing, {
    let host = Host::new("[speaker]\nkind = \"none\"\n");
    assert_eq!(host.status(), value!({"networks": [], "endpoints": []}));
    assert!(
        host.run(&["status", "--check"]).ok().stdout.starts_with("no networks of evpn-hook's are up: 'virsh net-start")
    );
    host.run(&["network", "up", "--all"]).ok();
});

// The VTEP's MTU decides where nothing else does.
on_a_host!(the_mtu_that_the_underlay_leaves, {
    let host = Host::new(CONFIG);
    sh(
        "ip link add eth0 mtu 9000 type veth peer name fabric && ip address add 192.0.2.1/31 dev eth0 && ip link set eth0 up",
    );
    host.run(&["network", "up", "other"]).ok();
    assert_eq!((&ip_link("other-l2")["mtu"], &ip_link("vxlan21")["mtu"]), (&8950.into(), &8950.into()));
    let anew = || {
        host.run(&["network", "down", "other"]).ok();
        host.run(&["network", "up", "other"]).ok();
        ip_link("vxlan21")["mtu"].clone()
    };
    // By which devices the tunnels leave is remembered, what they carry is not.
    sh("ip link set eth0 mtu 8000");
    assert_eq!(anew(), 7950);
    sh(
        "ip link add eth1 mtu 4000 type veth peer name fabric1 && ip address add 192.0.2.3/31 dev eth1 && ip link set eth1 up",
    );
    host.run(&["sync"]).ok();
    assert_eq!(anew(), 3950, "one that joined them, after a sync");
    sh("ip link del eth1");
    assert_eq!(anew(), 7950, "one that left them, at once");
    sh("echo garbage >/run/evpn-hook/hints/underlay.json");
    assert_eq!(anew(), 7950, "a hint that cannot be read is none");
});

on_a_host!(a_network_of_libvirts, {
    // The hook as libvirt calls it: by its link's name, with nothing but libvirt's words; config.toml is not there.
    let host = Host::new(CONFIG);
    let hooks = "/run/hooks/network.d";
    std::fs::create_dir_all(hooks).unwrap();
    std::os::unix::fs::symlink(crate::host::BIN, format!("{hooks}/50-evpn-hook")).unwrap();
    let call = |op: &str, xml: &str| {
        std::fs::write("/run/stdin", xml).unwrap();
        sh(&format!("exec 2>&1; {hooks}/50-evpn-hook lab {op} begin - </run/stdin"))
    };
    let xml = network("lab", "<evpn:network vni='40'/>", LAB);
    let nothing = snapshot();
    assert_eq!(call("start", &xml), "");
    assert_eq!(snapshot(), nothing, "start only looks");
    sh(LIBVIRTS_BRIDGE);
    assert_eq!(call("started", &xml), "");
    let up = snapshot();
    assert!(
        up.contains("link \"vxlan40\" master \"lab-l2\"") && up.contains("address \"lab-l2\" \"10.1.0.1\" 24"),
        "{up}"
    );
    assert_eq!(call("started", &xml), "");
    assert_eq!(snapshot(), up);
    // A changed DHCP host is taken over by `updated`, and used for a guest without addresses of its own.
    assert_eq!(call("updated", &xml.replace("10.1.0.60", "10.1.0.61")), "");
    crate::host::tap("vnet0");
    sh("ip link set vnet0 master lab-l2 up");
    let domain = crate::xml::domain(1, "", &crate::xml::interface("52:54:00:03:82:d8", "vnet0", "lab-l2"));
    host.hook(&["qemu", "vm1", "start", "begin", "-"], domain).ok();
    assert_eq!(crate::host::neighbours(), "neigh 10.1.0.61 52:54:00:03:82:d8 dev lab-l2\n");
    // libvirt's `stopped` is never refused, guest or no guest; no neighbour may outlive the network.
    assert_eq!(call("stopped", &xml), "");
    assert_eq!(crate::host::neighbours(), "");
    assert!(json("ip -j link").as_array().unwrap().iter().all(|l| l["ifname"] != "vxlan40"));
    // libvirt has deleted the bridge and makes it anew; its taps it does not put back.
    sh("ip link del lab-l2");
    sh(LIBVIRTS_BRIDGE);
    assert_eq!(call("started", &xml), "");
    assert_eq!(crate::host::neighbours(), "neigh 10.1.0.61 52:54:00:03:82:d8 dev lab-l2\n", "the guest waited for it");
    assert_eq!(ip_link("vnet0")["master"], "lab-l2");
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], crate::xml::domain(1, "", "")).ok();
    assert_eq!(call("stopped", &xml), "");
    assert!(!std::path::Path::new("/run/evpn-hook/hints/lab-l2.used").exists(), "nobody is on it any more");
});

// hook.md, smaller: what libvirt says of a change is written under the network's lock.
on_a_host!(a_network_that_goes_while_a_change_is_taken_over_is_gone, {
    let host = Host::new("[speaker]\nkind = \"none\"\n");
    let xml = network("lab", "<evpn:network vni='40'/>", LAB);
    host.hook(&["network", "lab", "start", "begin", "-"], &xml).ok();
    sh(LIBVIRTS_BRIDGE);
    host.hook(&["network", "lab", "started", "begin", "-"], &xml).ok();
    let with = |op: &str, xml: &str| {
        let file = format!("/run/{op}.xml");
        std::fs::write(&file, xml).unwrap();
        let mut command = host.command(&["network", "lab", op, "begin", "-"]);
        command.stdin(File::open(&file).unwrap());
        command
    };
    let changed = |last: u8| xml.replace("10.1.0.60", &format!("10.1.0.{last}"));
    let points = points_of(with("updated", &changed(61)));
    let at = points.iter().position(|point| point.contains("before writing networks/")).unwrap();
    let mut updated = stopped_at(at + 1, with("updated", &changed(62)));
    let mut stopped = with("stopped", &xml).spawn().unwrap();
    until_it_waits(&stopped);
    kill_process(Pid::from_child(&updated), Signal::CONT).unwrap();
    assert!(updated.wait().unwrap().success() && stopped.wait().unwrap().success());
    assert_eq!(host.status()["networks"], value!([]));
});

on_a_host!(networks_that_are_not_ours, {
    let host = Host::new(CONFIG);
    sh("ip link add virbr0 type bridge");
    let before = snapshot();
    let foreign =
        network("default", "", "<bridge name='virbr0'/><ip address='192.168.122.1' netmask='255.255.255.0'/>");
    for op in ["start", "started", "updated", "port-created", "stopped"] {
        host.hook(&["network", "default", op, "begin", "-"], &foreign).ok();
    }
    assert_eq!(snapshot(), before);
});

// NetworkManager asks udev once for each device, when it is there (packaging/85-evpn-hook.rules).
on_a_host!(udev_can_tell_a_bridge_of_libvirts_before_it_is_there, {
    let host = Host::new("[speaker]\nkind = \"none\"\n");
    let xml = network("lab", "<evpn:network vni='40'/>", LAB);
    let libvirt = |op: &str| host.hook(&["network", "lab", op, "begin", "-"], &xml).ok();
    let told = || std::fs::exists("/run/evpn-hook/hints/lab-l2.coming").unwrap();
    for it_comes in [true, false] {
        libvirt("start");
        assert!(told());
        if it_comes {
            sh(LIBVIRTS_BRIDGE);
            libvirt("started");
            sh("ip link del lab-l2");
        }
        libvirt("stopped");
        assert!(!told(), "it came: {it_comes}");
    }
});
