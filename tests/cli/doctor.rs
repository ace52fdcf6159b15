//! `doctor`: nothing to say of a host as it should be, and of each fault its own name, with a mend that heals it.

use crate::common::{has_vrf, sh, skip, try_sh};
use crate::dnsmasq::Dnsmasq;
use crate::host::{BIN, CONFIG, Host, snapshot, tap};
use crate::on_a_host;
use serde_json::Value;

/// A layer-2 tenant: what every kernel can do.
const FLAT: &str = "[speaker]\nkind = 'none'\n[[network]]\nname = 'flat'\nbridge = 'flat-l2'\nvni = 20\n\
    gateway = ['10.1.0.1/24']\nmac = '00:00:00:11:11:10'\nmtu = 1450\n";

/// That network with a guest; /sys shows this host's own devices.
fn flat() -> Host {
    sh("umount -l /sys && mount -t sysfs sysfs /sys");
    off_bridge_nf();
    let host = Host::new(FLAT);
    host.run(&["network", "up", "flat"]).ok();
    tap("vnet0");
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", "52:54:00:03:82:d8", "--ip", "10.1.0.60"]);
    host
}

/// Some kernels have br_netfilter built in.
const BRIDGE_NF: &str = "/proc/sys/net/bridge";

fn off_bridge_nf() {
    sh(&format!("for file in {BRIDGE_NF}/bridge-nf-call-*; do [ ! -e $file ] || echo 0 >$file; done"));
}

fn report(host: &Host) -> Value {
    let run = host.run(&["--json", "doctor"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    assert_eq!((run.status, &*run.stderr), (if report["healthy"] == true { 0 } else { 3 }, ""), "{report:#}");
    report
}

/// What is a problem or a warning.
fn amiss(report: &Value) -> Vec<&Value> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings.filter(|f| f["severity"] == "problem" || f["severity"] == "warning").collect()
}

/// Breaks the host: the check of this name finds it, no other does, and what it says heals it.
#[track_caller]
fn finds(host: &Host, damage: &str, check: &str) {
    sh(damage);
    let (damaged, report) = (snapshot(), report(host));
    assert_eq!(snapshot(), damaged, "{damage}: a look changed something");
    let found = amiss(&report);
    let checks: Vec<&Value> = found.iter().map(|finding| &finding["check"]).collect();
    assert_eq!(checks, [check], "{damage}: {found:#?}");
    let mend = found[0]["mend"].as_str().unwrap();
    match (found[0]["safe"] == true, mend) {
        (true, _) => {
            let run = host.run(&["doctor", "--fix"]);
            assert!(run.status == 0 && run.stdout.contains(&format!("done: {check}: ")), "{damage}: {run:?}");
        }
        // What is installed is not what is tested.
        (false, mend) => drop(sh(&mend.replace("evpn-hook sync", &format!("{BIN} --config /run/config.toml sync")))),
    }
    let healed = self::report(host);
    assert_eq!(amiss(&healed), [] as [&Value; 0], "{damage}, and then {mend}");
}

on_a_host!(a_host_as_it_should_be, {
    let host = flat();
    let before = snapshot();
    let run = host.run(&["doctor"]).ok();
    assert_eq!(snapshot(), before);
    let last = run.stdout.lines().last().unwrap();
    assert!(last.starts_with("healthy: 1 network, 1 guest, ") && last.ends_with("(-v shows them)"), "{run:?}");
    assert!(
        !run.stdout.contains("hint: ") && host.run(&["-v", "doctor"]).stdout.contains("\nhint: agent: "),
        "{run:?}"
    );
    let report = report(&host);
    assert_eq!(amiss(&report), [] as [&Value; 0]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&report), ["findings", "fixed", "guests", "healthy", "networks"]);
    let of_finding = ["check", "evidence", "mend", "object", "runnable", "safe", "severity"];
    assert_eq!(keys(&report["findings"][0]), of_finding);
});

on_a_host!(each_fault_has_its_name_and_its_mend, {
    let host = flat();
    finds(&host, "bridge link set dev vxlan20 learning on", "vxlan-learning");
    finds(&host, "bridge link set dev vxlan20 neigh_suppress off", "vxlan-neigh-suppress");
    finds(&host, "bridge link set dev vxlan20 isolated on", "vxlan-isolated");
    finds(&host, "bridge link set dev vnet0 isolated on", "port-isolated");
    finds(&host, "ip link set vxlan20 down", "drift");
    finds(&host, "ip neigh del 10.1.0.60 dev flat-l2", "drift");
    finds(&host, "ip link set flat-l2 address 00:00:00:11:11:99", "bridge-mac");
    finds(&host, "ip neigh add 10.1.0.99 lladdr 52:54:00:00:00:99 dev flat-l2 nud permanent protocol 69", "ghost");
    finds(&host, "ip address del 10.0.0.1/32 dev lo", "vtep-address");
    sh("ip link add uplink type veth peer name far; ip link set far up; ip address add 192.0.2.1/24 dev uplink");
    finds(
        &host,
        "ip link set uplink mtu 1400 up; ip route add 10.0.0.2/32 via 192.0.2.2 dev uplink proto bgp",
        "underlay-mtu",
    );
    // Another VTEP, without which nobody knows whose datagrams are lost.
    sh("bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.0.2");
    for program in ["iptables", "iptables-legacy"] {
        finds(&host, &format!("{program} -I INPUT -p udp --dport 4789 -j DROP"), "firewall");
    }
    if std::path::Path::new(BRIDGE_NF).exists() {
        // Frames pass, as is tried: no more than a hint, and no command, for the setting is for others' bridges as well.
        sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1");
        let told = report(&host);
        let found = told["findings"].as_array().unwrap().iter().find(|f| f["check"] == "bridge-nf-call");
        assert!(found.is_some_and(|f| f["severity"] == "hint" && f["runnable"] == false), "{told:#}");
        assert_eq!(amiss(&told), [] as [&Value; 0]);
        off_bridge_nf();
    }
    let nft = "nft add table inet fw; nft add chain inet fw in '{ type filter hook input priority 0; }'";
    if try_sh(nft).0 {
        finds(&host, "nft add rule inet fw in udp dport 4789 counter drop", "firewall");
    }
});

on_a_host!(a_bridge_of_others_without_a_mac, {
    sh("umount -l /sys && mount -t sysfs sysfs /sys; ip link add flat-l2 type bridge");
    off_bridge_nf();
    // Without a gateway, whose MAC would be missed as well.
    let host = Host::new(&FLAT.replace("mac = '00:00:00:11:11:10'\n", "").replace("gateway = ['10.1.0.1/24']\n", ""));
    host.run(&["network", "up", "flat"]).ok();
    finds(&host, ":", "bridge-mac");
});

// libvirt 10.7 and newer deletes it when the network's start fails.
on_a_host!(a_bridge_that_libvirt_takes_for_its_own, {
    let host = flat();
    sh("mount -t tmpfs none /etc && mkdir -p /etc/libvirt/qemu/networks");
    let define = |forward: &str| {
        let xml = format!("<!-- by libvirt --><network><name>lan</name>{forward}<bridge name='flat-l2'/></network>");
        std::fs::write("/etc/libvirt/qemu/networks/lan.xml", xml).unwrap();
    };
    define("<forward mode='bridge'/>");
    assert_eq!(amiss(&report(&host)), [] as [&Value; 0]);
    for forward in ["", "<forward/>", "<forward mode='open'/>"] {
        define(forward);
        let report = report(&host);
        let found = amiss(&report);
        assert!(found.len() == 1 && found[0]["check"] == "bridge-at-risk", "{forward}: {report:#}");
    }
});

on_a_host!(a_kernel_without_vrf, {
    let host = Host::new(CONFIG);
    let report = report(&host);
    let checks: Vec<&Value> = amiss(&report).iter().map(|finding| &finding["check"]).collect();
    match has_vrf() {
        true => assert_eq!(checks, [] as [&Value; 0]),
        false => assert_eq!(checks, ["kernel-feature"]),
    }
});

on_a_host!(a_speaker_that_is_not_there, {
    let host = flat();
    std::fs::write("/run/config.toml", FLAT.replace("kind = 'none'", "socket_dir = '/run/nothing'")).unwrap();
    let report = report(&host);
    let found = amiss(&report);
    assert!(found.len() == 1 && found[0]["check"] == "speaker-down", "{report:#}");
    assert_eq!(found[0]["mend"], "systemctl restart frr && evpn-hook sync");
});

on_a_host!(what_cannot_be_looked_at_is_said, {
    let host = flat();
    let run = host.run(&["doctor"]).ok();
    assert!(run.stdout.contains("not checked: speaker: "), "{run:?}");
    let wrong = host.run(&["doctor", "--everything"]);
    assert_eq!(wrong.status, 2, "{wrong:?}");
});

// The same XML on two hosts.
on_a_host!(two_hosts_that_lease_one_range, {
    if !try_sh("command -v dnsmasq").0 {
        return skip("doctor::two_hosts_that_lease_one_range", "no dnsmasq");
    }
    let host = flat();
    sh("mount -t tmpfs none /var/lib && mkdir -p /var/lib/libvirt/dnsmasq
        ip netns add far; ip link add uplink type veth peer name eth0 netns far; ip link set uplink up; ip -n far link set eth0 up
        ip address add 192.0.2.1/24 dev uplink; ip -n far address add 192.0.2.2/24 dev eth0; ip -n far address add 10.0.0.2/32 dev lo
        ip route add 10.0.0.2/32 via 192.0.2.2; ip -n far route add 10.0.0.1/32 via 192.0.2.1; ip -n far link set lo up
        ip -n far link add br0 address 00:00:00:11:11:10 type bridge
        ip -n far link add vxlan20 type vxlan id 20 local 10.0.0.2 dstport 4789 nolearning; ip -n far link set vxlan20 master br0 up
        ip -n far link set br0 up; ip -n far address add 10.1.0.1/24 dev br0; ip netns exec far bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.0.1
        bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.0.2");
    let conf = "/var/lib/libvirt/dnsmasq/flat.conf";
    let range = "##WARNING: by libvirt\ninterface=flat-l2\ndhcp-range=10.1.0.100,10.1.0.200,255.255.255.0\ndhcp-authoritative\n";
    std::fs::write(conf, range).unwrap();
    let told = || {
        let report = report(&host);
        report["findings"].as_array().unwrap().iter().any(|finding| finding["check"] == "dhcp-server")
    };
    assert!(!told(), "there is one server");
    let files = ["--dhcp-leasefile=/run/leases", "--log-facility=/run/dnsmasq.log"];
    let _other = Dnsmasq::start(&["ip", "netns", "exec", "far"], "br0", "10.1.0.100,10.1.0.200", &files);
    let log = || std::fs::read_to_string("/run/dnsmasq.log").unwrap_or_default();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !told() {
        assert!(std::time::Instant::now() < end, "in vain: {}", log());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(std::fs::read_to_string("/run/leases").unwrap_or_default(), "", "the other server keeps nothing");
    std::fs::write(conf, range.replace(",255.255.255.0", ",static")).unwrap();
    assert!(!told(), "what is given out by name is the same on both");
    std::fs::remove_file(conf).unwrap();
    assert!(!told(), "this host has no server");
});
