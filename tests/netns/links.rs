//! Devices: made, enslaved, set up, deleted.

use crate::*;
use evpn_hook::plan::bridge::MAX_LEARNED;
use evpn_hook::plan::seen::LinkKind;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

netns!(a_bridge_has_all_that_evpn_needs, kernel, {
    kernel.apply(&add_bridge("red-l2", Some(1400))).unwrap();
    let seen = ip_link("red-l2");
    assert_eq!(seen["address"], "00:00:00:11:11:10");
    assert_eq!(seen["mtu"], 1400);
    assert_eq!(seen["inet6_addr_gen_mode"], "none");
    let data = &seen["linkinfo"]["info_data"];
    assert_eq!((&data["stp_state"], &data["forward_delay"]), (&0.into(), &0.into()));
    if has_vlan_filtering() {
        assert_eq!(data["vlan_default_pvid"], 0);
    } else {
        skip(
            "a_bridge_has_all_that_evpn_needs",
            "this kernel has no bridge VLAN filtering, so vlan_default_pvid is not shown",
        );
    }
    let link = kernel.link(&name("red-l2")).unwrap().unwrap();
    assert_eq!(link.kind, LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: false });
    assert_eq!((link.mtu, link.up, link.addrgen_none), (1400, false, Some(true)));
    for on in [true, false] {
        kernel.apply(&Step::SetStp { bridge: name("red-l2"), on }).unwrap();
        assert_eq!(ip_link("red-l2")["linkinfo"]["info_data"]["stp_state"], u8::from(on));
        let link = kernel.link(&name("red-l2")).unwrap().unwrap();
        assert_eq!(link.kind, LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: on });
    }
    assert_eq!(link.mac, Some(mac("00:00:00:11:11:10")));
    assert_eq!(kernel.link_by_index(link.index).unwrap().unwrap(), link);

    let error = kernel.apply(&add_bridge("red-l2", None)).unwrap_err();
    assert!(error.exists(), "{error}");
    assert!(error.to_string().contains("ip link add red-l2"), "{error}");
    assert!(error.to_string().contains("File exists"), "{error}");
});

netns!(a_bridges_mtu_and_mac_survive_its_ports, kernel, {
    sh("ip link add v0 type veth peer name v1 && ip link set v0 mtu 1300 address fe:00:00:00:00:01");
    for (bridge, mtu) in [("b1400", 1400), ("b1500", 1500), ("b9000", 9000)] {
        kernel.apply(&add_bridge(bridge, Some(mtu))).unwrap();
        kernel.apply(&master("v0", Some(bridge))).unwrap();
        let seen = ip_link(bridge);
        assert_eq!((&seen["mtu"], &seen["address"]), (&mtu.into(), &"00:00:00:11:11:10".into()), "{bridge}");
    }
    kernel.apply(&add_bridge("bnone", None)).unwrap();
    assert_eq!(ip_link("bnone")["mtu"], 1500);
});

netns!(a_bridge_without_ipv6_for_its_mtu_is_made_all_the_same, kernel, {
    kernel.apply(&add_bridge("small", Some(1000))).unwrap();
    assert_eq!(ip_link("small")["mtu"], 1000);
    kernel.apply(&Step::NoAddrGen { dev: name("small") }).unwrap();
});

netns!(a_bridge_that_cannot_be_finished_is_not_left_behind, kernel, {
    let error = kernel.apply(&add_bridge("huge", Some(70_000))).unwrap_err();
    assert!(error.to_string().contains("Invalid argument (os error 22): mtu greater than device maximum"), "{error}");
    assert_eq!(kernel.link(&name("huge")).unwrap(), None);
});

netns!(a_vxlan_device_does_not_learn_and_has_no_remote, kernel, {
    kernel.apply(&add_vxlan(20, "10.0.0.1")).unwrap();
    let seen = ip_link("vxlan20");
    assert_eq!(seen["inet6_addr_gen_mode"], "none");
    assert_eq!(seen["mtu"], 1500);
    let data = &seen["linkinfo"]["info_data"];
    assert_eq!((&data["id"], &data["port"]), (&20.into(), &4789.into()));
    assert_eq!((&data["local"], &data["learning"]), (&"10.0.0.1".into(), &false.into()));
    assert!(data["remote"].is_null() && data["group"].is_null(), "{data}");
    let link = kernel.link(&name("vxlan20")).unwrap().unwrap();
    let (vni, local) = (20.try_into().ok(), "10.0.0.1".parse().ok());
    assert_eq!(link.kind, LinkKind::Vxlan { vni, local, port: 4789, learning: false });

    let step =
        Step::AddVxlan { vni: 21.try_into().unwrap(), local: "fd00::1".parse().unwrap(), port: 4790, mtu: Some(1450) };
    kernel.apply(&step).unwrap();
    let seen = ip_link("vxlan21");
    assert_eq!((&seen["mtu"], &seen["linkinfo"]["info_data"]["local6"]), (&1450.into(), &"fd00::1".into()));
    let link = kernel.link(&name("vxlan21")).unwrap().unwrap();
    let (vni, local) = (21.try_into().ok(), "fd00::1".parse().ok());
    assert_eq!(link.kind, LinkKind::Vxlan { vni, local, port: 4790, learning: false });
});

netns!(the_kernels_own_words_are_in_the_error, kernel, {
    sh("ip link add other type vxlan id 20 local 10.0.0.1 dstport 4789");
    let error = kernel.apply(&add_vxlan(20, "10.0.0.1")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("ip link add vxlan20 type vxlan id 20 local 10.0.0.1 dstport 4789 nolearning: "),
        "{text}"
    );
    assert!(text.contains("File exists (os error 17): A VXLAN device with the specified VNI already exists"), "{text}");
    assert!(!text.contains('\n') && error.exists(), "{text}");
});

// field.md F27: Docker's overlay moves its VXLAN into a namespace of its own, where nobody here sees it; the kernel's table of VNIs is where it was made.
netns!(a_vni_that_is_taken_in_another_namespace_is_told_of, kernel, {
    // It ends with this test, whose end of the pipe closes.
    let mut there = Command::new("unshare")
        .args(["-n", "sh", "-c", "echo there; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(there.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let pid = there.id();
    sh(&format!("ip link add other type vxlan id 20 local 10.0.0.1 dstport 4789 && ip link set other netns {pid}"));
    let error = kernel.apply(&add_vxlan(20, "10.0.0.1")).unwrap_err();
    assert!(kernel.link(&name("other")).unwrap().is_none());
    let text = error.to_string();
    assert!(text.contains("A VXLAN device with the specified VNI already exists"), "{text}");
    let hint = "in another network namespace (Docker's overlays are in some): take another VNI, or end what has it";
    assert!(text.ends_with(hint), "{text}");
    drop(there.stdin.take());
    there.wait().unwrap();
});

netns!(foreign_vxlans_read_as_they_are, kernel, {
    sh("ip link add learns type vxlan id 30 remote 10.9.9.9 local 10.0.0.2 dstport 4789");
    sh("ip link add meta type vxlan external dstport 4800");
    let link = kernel.link(&name("learns")).unwrap().unwrap();
    let (vni, local) = (30.try_into().ok(), "10.0.0.2".parse().ok());
    assert_eq!(link.kind, LinkKind::Vxlan { vni, local, port: 4789, learning: true });
    let link = kernel.link(&name("meta")).unwrap().unwrap();
    assert!(matches!(link.kind, LinkKind::Vxlan { vni: None, local: None, port: 4800, .. }), "{link:?}");
});

netns!(a_device_is_enslaved_set_up_resized_and_released, kernel, {
    kernel.apply(&add_bridge("br0", None)).unwrap();
    sh("ip link add v0 type veth peer name v1");
    kernel.apply(&master("v0", Some("br0"))).unwrap();
    kernel.apply(&master("v0", Some("br0"))).unwrap();
    assert_eq!(ip_link("v0")["master"], "br0");
    for dev in ["v0", "v1", "br0"] {
        kernel.apply(&Step::SetUp { dev: name(dev), up: true }).unwrap();
    }
    kernel.apply(&Step::SetMtu { dev: name("v0"), mtu: 1420 }).unwrap();
    let bridge = index(kernel, "br0");
    let link = kernel.link(&name("v0")).unwrap().unwrap();
    assert_eq!((link.master, link.mtu, link.up, link.carrier), (Some(bridge), 1420, true, true));
    assert_eq!(link.link, Some(index(kernel, "v1")));
    assert_eq!(link.kind, LinkKind::Other("veth".into()));
    assert_eq!(kernel.ports_of(bridge).unwrap(), vec![link]);

    kernel.apply(&Step::SetUp { dev: name("v0"), up: false }).unwrap();
    kernel.apply(&master("v0", None)).unwrap();
    let link = kernel.link(&name("v0")).unwrap().unwrap();
    assert_eq!((link.master, link.up), (None, false));
    assert!(ip_link("v0")["master"].is_null());
    assert_eq!(kernel.ports_of(bridge).unwrap(), vec![]);
});

netns!(what_is_missing_is_named, kernel, {
    sh("ip link add v0 type veth peer name v1");
    let text = kernel.apply(&master("v0", Some("gone"))).unwrap_err().to_string();
    assert_eq!(text, "ip link set v0 master gone: there is no device gone");
    let error = kernel.apply(&Step::SetUp { dev: name("gone"), up: true }).unwrap_err();
    assert!(error.gone(), "{error}");
    assert_eq!(error.errno(), Some(19));
    assert_eq!(error.to_string(), "ip link set gone up: No such device (os error 19)");
    let error = kernel.apply(&Step::ClearDefaultPvid { bridge: name("gone") }).unwrap_err();
    assert!(error.gone(), "{error}");
});

netns!(deleting_what_is_gone_is_fine, kernel, {
    kernel.apply(&add_bridge("br0", None)).unwrap();
    for _ in 0..2 {
        kernel.apply(&Step::DelLink { name: name("br0") }).unwrap();
        assert_eq!(kernel.link(&name("br0")).unwrap(), None);
    }
    kernel.apply(&master("br0", None)).unwrap();
});

netns!(a_vxlan_port_suppresses_and_does_not_learn, kernel, {
    kernel.apply(&add_bridge("br0", None)).unwrap();
    kernel.apply(&add_vxlan(20, "10.0.0.1")).unwrap();
    let error = kernel.apply(&Step::SetVxlanPort { dev: name("vxlan20") }).unwrap_err();
    assert!(error.to_string().contains("is the device a port of a bridge?"), "{error}");

    kernel.apply(&master("vxlan20", Some("br0"))).unwrap();
    let before = kernel.link(&name("vxlan20")).unwrap().unwrap().port;
    assert_eq!((before.learning, before.neigh_suppress), (Some(true), Some(false)));
    kernel.apply(&Step::SetVxlanPort { dev: name("vxlan20") }).unwrap();
    let seen = json("bridge -j -d link show dev vxlan20");
    assert_eq!((&seen[0]["learning"], &seen[0]["neigh_suppress"]), (&false.into(), &true.into()), "{seen}");
    let after = kernel.link(&name("vxlan20")).unwrap().unwrap().port;
    assert_eq!((after.learning, after.neigh_suppress), (Some(false), Some(true)));
    assert_eq!(kernel.link(&name("lo")).unwrap().unwrap().port, Default::default());
});

netns!(the_default_pvid_of_a_bridge_that_others_made_is_cleared, kernel, {
    sh("ip link add virbr9 type bridge && ip link add v0 type veth peer name v1 && ip link set v0 master virbr9");
    kernel.apply(&Step::ClearDefaultPvid { bridge: name("virbr9") }).unwrap();
    let link = kernel.link(&name("virbr9")).unwrap().unwrap();
    assert_eq!(link.kind, LinkKind::Bridge { vlan_filtering: false, default_pvid: 0, stp: false });
    if !has_vlan_filtering() {
        skip("the_default_pvid_of_a_bridge_that_others_made_is_cleared", "this kernel has no bridge VLAN filtering");
        return;
    }
    assert_eq!(ip_link("virbr9")["linkinfo"]["info_data"]["vlan_default_pvid"], 0);
    sh("bridge fdb add 52:54:00:00:00:01 dev v0 master static");
    assert_eq!(sh("bridge fdb show br virbr9 | grep -c 52:54:00:00:00:01").trim(), "1");
    sh("ip link add aware type bridge vlan_filtering 1 vlan_default_pvid 7");
    let link = kernel.link(&name("aware")).unwrap().unwrap();
    assert_eq!(link.kind, LinkKind::Bridge { vlan_filtering: true, default_pvid: 7, stp: false });
    kernel.apply(&Step::SetDefaultPvid { bridge: name("virbr9"), pvid: 1 }).unwrap();
    assert_eq!(ip_link("virbr9")["linkinfo"]["info_data"]["vlan_default_pvid"], 1);
});

// Who sends from ever new MACs fills no memory, and keeps no guest from being registered.
netns!(a_bridge_learns_so_many_macs_and_no_more, kernel, {
    kernel.apply(&add_bridge("red-l2", None)).unwrap();
    let most = |kernel: &mut Kernel| kernel.link(&name("red-l2")).unwrap().unwrap().max_learned;
    if most(kernel).is_none() {
        return skip("a_bridge_learns_so_many_macs_and_no_more", "this kernel has no fdb_max_learned (Linux 6.7)");
    }
    assert_eq!(most(kernel), Some(MAX_LEARNED));
    for dev in ["v", "w"] {
        sh(&format!("ip link add {dev}0 type veth peer name {dev}1 && ip link set {dev}0 master red-l2 up"));
        // Not a word of its own.
        sh(&format!("sysctl -qw net.ipv6.conf.{dev}1.disable_ipv6=1 && ip link set {dev}1 up"));
    }
    kernel.apply(&Step::SetUp { dev: name("red-l2"), up: true }).unwrap();
    let learned = || {
        sh("bridge fdb show br red-l2 | grep -c '^02:66:.* dev v0 master red-l2 $' || true")
            .trim()
            .parse::<u32>()
            .unwrap()
    };
    let sent = MAX_LEARNED + 1000;
    let sender = snoop::Sender::new("v1");
    // A busy host's backlog loses frames: once more, then.
    let flood = |wanted: u32| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for n in 0..sent {
                let [_, a, b, c] = n.to_be_bytes();
                sender.send(&[&[0xff; 6][..], &[2, 0x66, 0, a, b, c], &[0x88, 0xb5], &[0; 46]].concat());
            }
            let now = learned();
            if now >= wanted || Instant::now() > deadline {
                break now;
            }
        }
    };
    assert_eq!(flood(MAX_LEARNED), MAX_LEARNED, "of {sent}");
    assert_eq!(flood(MAX_LEARNED), MAX_LEARNED, "of {sent}");
    // A guest here, and one behind another VTEP.
    kernel.apply(&Step::AddFdb { dev: name("w0"), mac: mac("52:54:00:00:00:01") }).unwrap();
    sh("bridge fdb add 52:54:00:00:00:02 dev w0 master extern_learn");
    let fdb = sh("bridge fdb show br red-l2");
    for entry in
        ["52:54:00:00:00:01 dev w0 master red-l2 static", "52:54:00:00:00:02 dev w0 extern_learn master red-l2"]
    {
        assert!(fdb.contains(entry), "{entry}: {}", fdb.lines().filter(|l| l.contains("52:54")).collect::<String>());
    }
    kernel.apply(&Step::SetMaxLearned { bridge: name("red-l2"), most: 0 }).unwrap();
    assert_eq!(most(kernel), Some(0));
    assert_eq!(flood(sent), sent);
});

netns!(a_bridge_that_is_up_gets_another_mac, kernel, {
    sh("ip link add br0 address 02:00:00:00:00:01 type bridge && ip link set br0 up");
    sh("ip neigh add 10.1.0.60 lladdr 52:54:00:00:00:01 dev br0 nud permanent");
    kernel.apply(&Step::SetMac { dev: name("br0"), mac: "02:00:00:00:00:02".parse().unwrap() }).unwrap();
    assert_eq!(ip_link("br0")["address"], "02:00:00:00:00:02");
    assert_eq!(sh("ip neigh show dev br0 nud permanent"), "", "permanent neighbours are flushed with it");
});

netns!(address_generation_is_switched_off, kernel, {
    sh("ip link add v0 type veth peer name v1");
    assert_eq!(kernel.link(&name("v0")).unwrap().unwrap().addrgen_none, Some(false));
    kernel.apply(&Step::NoAddrGen { dev: name("v0") }).unwrap();
    assert_eq!(kernel.link(&name("v0")).unwrap().unwrap().addrgen_none, Some(true));
    assert_eq!(ip_link("v0")["inet6_addr_gen_mode"], "none");
    kernel.apply(&Step::AddrGen { dev: name("v0") }).unwrap();
    assert_eq!(ip_link("v0")["inet6_addr_gen_mode"], "eui64");
});

netns!(a_vrf_takes_bridges_and_shows_its_table, kernel, {
    let step = Step::AddVrf { name: name("red"), table: 10.try_into().unwrap() };
    if !has_vrf() {
        let text = kernel.apply(&step).unwrap_err().to_string();
        assert!(
            text.contains("Operation not supported (os error 95): Unknown device type: this kernel has no VRF"),
            "{text}"
        );
        skip("a_vrf_takes_bridges_and_shows_its_table", "this kernel has no VRF");
        return;
    }
    kernel.apply(&step).unwrap();
    let seen = ip_link("red");
    assert_eq!((&seen["linkinfo"]["info_kind"], &seen["linkinfo"]["info_data"]["table"]), (&"vrf".into(), &10.into()));
    let vrf = kernel.link(&name("red")).unwrap().unwrap();
    assert_eq!((&vrf.kind, vrf.up), (&LinkKind::Vrf { table: 10.try_into().unwrap() }, false));
    assert_eq!(kernel.links_of_kind("vrf").unwrap(), vec![vrf.clone()]);
    kernel.apply(&add_bridge("red-l2", None)).unwrap();
    kernel.apply(&master("red-l2", Some("red"))).unwrap();
    let ports = kernel.ports_of(vrf.index).unwrap();
    assert_eq!(ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["red-l2"]);
    assert!(kernel.apply(&step).unwrap_err().exists());
    let taken = Step::AddVrf { name: name("blue"), table: 10.try_into().unwrap() };
    kernel.apply(&taken).unwrap(); // the kernel lets two VRFs share a table: the planner must not
});

/// A neighbour's network namespace, which ends with the value.
struct Neighbour(std::process::Child);

impl Neighbour {
    fn new() -> Neighbour {
        let netns = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net"));
        let child = std::process::Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap();
        while netns(&child.id().to_string()).is_ok_and(|now| now == netns("self").unwrap()) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Neighbour(child)
    }

    fn try_sh(&self, line: &str) -> bool {
        try_sh(&format!("nsenter --net=/proc/{}/ns/net -- bash -c '{line}'", self.0.id())).0
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// What a bridge hands up: nothing, all but services at link-local addresses, or all. Asked by a neighbour on a port of it.
netns!(what_the_host_hears_of_a_bridge, kernel, {
    kernel.apply(&add_bridge("tenant", None)).unwrap();
    let guest = Neighbour::new();
    sh("sysctl -qw net.ipv6.conf.tenant.accept_dad=0 && ip link set tenant addrgenmode eui64 && ip link set tenant up");
    sh("ip addr add 10.9.0.1/24 dev tenant && ip addr add fd00:9::1/64 dev tenant nodad");
    sh(&format!(
        "ip link add port type veth peer name eth netns {} && ip link set port master tenant up",
        guest.0.id()
    ));
    assert!(guest.try_sh("sysctl -qw net.ipv6.conf.eth.accept_dad=0; ip link set eth up; ip addr add 10.9.0.2/24 dev eth; ip addr add fd00:9::2/64 dev eth nodad"));
    let fe80 =
        sh("ip -6 -o addr show dev tenant scope link | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1").trim().to_owned();
    let listeners: Vec<std::net::TcpListener> =
        ["0.0.0.0:40001", "[::]:40002"].iter().map(|at| std::net::TcpListener::bind(at).unwrap()).collect();
    let scoped = format!("{fe80}%eth");
    let pings = |ip: &str| guest.try_sh(&format!("ping -c 1 -W 0.5 {ip}"));
    let connects = |ip: &str, port: u16| guest.try_sh(&format!("timeout 0.5 bash -c \"exec 3<>/dev/tcp/{ip}/{port}\""));
    let bridge = index(kernel, "tenant");
    let heard = |kernel: &mut Kernel, hears| {
        kernel.apply(&Step::Hear { dev: name("tenant"), hears }).unwrap();
        assert_eq!(kernel.hears(bridge).unwrap(), hears);
        assert!(guest.try_sh("ip neigh flush all"));
        [
            pings("10.9.0.1"),
            pings("fd00:9::1"),
            pings(&scoped),
            connects("10.9.0.1", 40001),
            connects("fd00:9::1", 40002),
            connects(&scoped, 40002),
        ]
    };
    assert_eq!(kernel.hears(bridge).unwrap(), Hears::All);
    assert_eq!(heard(kernel, Hears::NoLinkLocalService), [true, true, true, true, true, false]);
    assert_eq!(heard(kernel, Hears::Nothing), [false; 6]);
    // Again, and from one to the other.
    for hears in [Hears::Nothing, Hears::NoLinkLocalService, Hears::NoLinkLocalService, Hears::Nothing] {
        kernel.apply(&Step::Hear { dev: name("tenant"), hears }).unwrap();
        assert_eq!(kernel.hears(bridge).unwrap(), hears);
    }
    assert_eq!(heard(kernel, Hears::All), [true; 6]);
    kernel.apply(&Step::Hear { dev: name("tenant"), hears: Hears::All }).unwrap();
    // An administrator's own filter is neither ours nor in the way.
    sh("tc filter add dev tenant ingress prio 5 bpf da bytecode '1,6 0 0 4294967295'");
    assert_eq!(kernel.hears(bridge).unwrap(), Hears::All);
    assert_eq!(heard(kernel, Hears::Nothing), [false; 6]);
    kernel.apply(&Step::Hear { dev: name("tenant"), hears: Hears::All }).unwrap();
    assert!(sh("tc filter show dev tenant ingress").contains("pref 5"));
    // One with our preference and another program is no filter of ours: it is replaced.
    sh("tc filter add dev tenant ingress prio 69 bpf da bytecode '1,6 0 0 0'");
    assert_eq!(kernel.hears(bridge).unwrap(), Hears::All);
    kernel.apply(&Step::Hear { dev: name("tenant"), hears: Hears::Nothing }).unwrap();
    assert_eq!(kernel.hears(bridge).unwrap(), Hears::Nothing);
    drop(listeners);
});
