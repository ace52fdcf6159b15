//! Hooks that are fed rubbish: refused with one line where a start may be refused, told with status 0 where nothing may be.

use crate::common::sh;
use crate::host::{CONFIG, Host, snapshot, tap};
use crate::on_a_host;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, domain, guest, interface, network};
use std::fmt::Write;
use std::time::Duration;

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

/// What a tenant may try who writes a guest's XML, a network's metadata, or a container's configuration: argv, stdin, environment, and what is said.
type Case = (&'static str, Vec<String>, Vec<u8>, Vec<(&'static str, String)>, &'static str);

fn tries() -> Vec<Case> {
    let nic = |mac: &str| interface(mac, "vnet0", "flat-l2");
    let mut cases: Vec<Case> = Vec::new();
    let mut qemu = |what, name: &str, xml: String, said| {
        let args = ["qemu", name, "start", "begin", "-"].map(str::to_owned).to_vec();
        cases.push((what, args, xml.into_bytes(), Vec::new(), said));
    };
    let named = |name: &str| domain(1, "", &nic(MAC)).replace("vm1", name);
    qemu("VM name with ../", "../../../etc/cron.d/x", named("../../../etc/cron.d/x"), "its name has '/'");
    qemu("VM name with ;", "a;reboot", named("a;reboot"), "its name has ';'");
    qemu("VM name with $()", "$(reboot)", named("$(reboot)"), "its name has '$'");
    qemu("VM name with a newline", "a\nb", named("a\nb"), "not printable");
    qemu("VM name with an escaped newline", "vm1", named("a&#10;vni 1"), "not printable");
    qemu("VM name with ESC", "vm1", named("a&#27;[2J"), "ill-formed|not printable");
    qemu("VM name that turns the line round", "vm1", named("a\u{202e}b"), "its name has");
    qemu("VM name of 1 MiB", "vm1", named(&"x".repeat(1 << 20)), "over 255 bytes");
    qemu("uuid with ../", "vm1", named("vm1").replace("11111111-2222", "../../../../.."), "is no UUID");
    let two = |mac: &str, network: &str| domain(1, &guest(mac, Some(network), &[]), &nic(MAC));
    qemu("network ../x in metadata", "vm1", two(MAC, "../x"), "puts MAC 52:54:00:03:82:d8 on network '../x'");
    qemu("network a;b in metadata", "vm1", two(MAC, "a;b"), "on network 'a;b'");
    qemu("network with a newline in metadata", "vm1", two(MAC, "a&#10;b"), "not printable");
    let tap = "<interface type='ethernet'><mac address='52:54:00:03:82:d8'/><target dev='vnet0'/></interface>";
    qemu(
        "unknown network ../flat of an ethernet NIC",
        "vm1",
        domain(1, &guest(MAC, Some("../flat"), &[]), tap),
        "its metadata chooses network ../flat",
    );
    qemu(
        "another's network for an ethernet NIC",
        "vm1",
        domain(1, &guest(MAC, Some("flat"), &[]), tap),
        "its metadata chooses network flat for MAC 52:54:00:03:82:d8, which config.toml does not allow",
    );
    qemu(
        "another's network for a NIC on this one",
        "vm1",
        two(MAC, "other"),
        "on network 'other', its interface on 'x'",
    );
    let bridged = nic(MAC).replace("network='x' ", "");
    qemu(
        "another's network for a NIC on a bridge",
        "vm1",
        domain(1, &guest(MAC, Some("other"), &[]), &bridged),
        "on network other, its bridge flat-l2 is network flat's",
    );
    qemu("64 MiB of blanks", "vm1", " ".repeat(64 << 20), "over 5 MiB");
    qemu(
        "64 MiB in a comment",
        "vm1",
        named("vm1").replace("<devices>", &format!("<!--{}--><devices>", "x".repeat(64 << 20))),
        "over 5 MiB",
    );
    qemu(
        "64 MiB in an attribute",
        "vm1",
        named("vm1").replace("id='1'", &format!("id='{}'", "1".repeat(64 << 20))),
        "over 5 MiB",
    );
    qemu(
        "64 MiB of elements",
        "vm1",
        named("vm1").replace("<devices>", &format!("<devices>{}", "<a/>".repeat(16 << 20))),
        "over 5 MiB",
    );
    qemu("100,000 levels", "vm1", format!("<domain>{}", "<a>".repeat(100_000)), "nests elements deeper");
    let laughs: String = (1..10).map(|n| format!("<!ENTITY l{n} '{}'>", format!("&l{};", n - 1).repeat(10))).collect();
    let laughs = format!("<!DOCTYPE domain [<!ENTITY l0 'lol'>{laughs}]>{}", named("&l9;"));
    qemu("billion laughs", "vm1", laughs, "DOCTYPE");
    let file = format!("<!DOCTYPE domain [<!ENTITY f SYSTEM 'file:///etc/shadow'>]>{}", named("&f;"));
    qemu("external entity", "vm1", file, "DOCTYPE");
    qemu("undeclared entity", "vm1", named("&f;"), "the XML has the entity 'f'");
    let thousands = |n: usize| {
        (0..n).map(|i| interface(&format!("52:54:00:00:{:02x}:{:02x}", i >> 8, i & 255), &format!("t{i}"), "flat-l2"))
    };
    qemu("10,000 interfaces", "vm1", domain(1, "", &thousands(10_000).collect::<String>()), "more than 256 interfaces");
    let hints: String =
        (0..40_000).map(|i| format!("<e:interface mac='52:54:0:{:x}:{:x}:1'/>", i >> 8, i & 255)).collect();
    let hints = format!("<e:guest xmlns:e='urn:evpn-hook:1'>{hints}</e:guest>");
    qemu("40,000 interfaces in metadata", "vm1", domain(1, &hints, &nic(MAC)), "more than 256 <evpn:interface>");
    let ips: Vec<String> = (0..60_000).map(|i| format!("10.1.{}.{}", i >> 8, i & 255)).collect();
    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
    qemu(
        "60,000 addresses in metadata",
        "vm1",
        domain(1, &guest(MAC, None, &ips), &nic(MAC)),
        "more than 1024 addresses",
    );
    qemu("MAC multicast", "vm1", domain(1, "", &nic("01:00:5e:00:00:01")), "no MAC that one guest could have");
    qemu("MAC broadcast", "vm1", domain(1, "", &nic("ff:ff:ff:ff:ff:ff")), "no MAC that one guest could have");
    qemu("MAC zero", "vm1", domain(1, "", &nic("00:00:00:00:00:00")), "no MAC that one guest could have");
    qemu(
        "MAC multicast in metadata",
        "vm1",
        domain(1, &guest("01:00:5e:00:00:01", None, &[]), &nic(MAC)),
        "multicast or zero",
    );
    qemu("MAC of the gateway", "vm1", domain(1, "", &nic("00:00:00:11:11:10")), "is the gateway's on flat-l2");
    qemu(
        "IP of the gateway",
        "vm1",
        domain(1, &guest(MAC, None, &["10.1.0.1"]), &nic(MAC)),
        "is network flat's gateway",
    );
    let filter = "<filterref filter='x'><parameter name='IP' value='10.1.0.1'/></filterref></interface>";
    qemu(
        "IP of the gateway by nwfilter",
        "vm1",
        domain(1, "", &nic(MAC).replace("</interface>", filter)),
        "is network flat's gateway",
    );
    qemu(
        "IP of another guest",
        "vm1",
        domain(1, &guest(MAC, None, &["10.1.0.70"]), &nic(MAC)),
        "10.1.0.70 is also vm vm2's",
    );
    qemu("MAC of another guest", "vm1", domain(1, "", &nic(OTHERS)), "52:54:00:aa:00:02 is also vm vm2's");
    qemu("device with ../", "vm1", domain(1, "", &tap.replace("vnet0", "../../x")) + " ", "");
    cases.pop(); // on no network of ours: nothing to refuse
    let mut network = |what, name: &str, xml: String, said| {
        let args = ["network", name, "started", "begin", "-"].map(str::to_owned).to_vec();
        cases.push((what, args, xml.into_bytes(), Vec::new(), said));
    };
    let ours = "<evpn:network vni='40'/>";
    let called = |name: &str| self::network(name, ours, LAB);
    network("network name with ../", "../../x", called("../../x"), "its name has '/'");
    network("network name with ;", "lab;x", called("lab;x"), "its name has ';'");
    network("network name with a newline", "lab\nvni 1", called("lab"), "not printable");
    let vrf =
        |name: &str| format!("<evpn:network vni='40'><evpn:vrf name='{name}' table='10' vni='41'/></evpn:network>");
    network("VRF name with ../", "lab", self::network("lab", &vrf("../x"), LAB), "device name '../x'");
    network("VRF name with ;", "lab", self::network("lab", &vrf("a;b"), LAB), "device name 'a;b'");
    network(
        "VRF name with a newline",
        "lab",
        self::network("lab", &vrf("a&#10; vni 1"), LAB),
        "device name 'a\\n vni 1'",
    );
    network(
        "bridge with ../",
        "lab",
        self::network("lab", ours, &LAB.replace("lab-l2", "../l2")),
        "device name '../l2'",
    );
    network(
        "10,000 gateways",
        "lab",
        self::network("lab", ours, &format!("{LAB}{}", "<ip address='10.9.0.1'/>".repeat(10_000))),
        "more than 1024 <ip>",
    );
    network(
        "network of 64 MiB",
        "lab",
        self::network("lab", ours, &format!("{LAB}{}", " ".repeat(64 << 20))),
        "over 5 MiB",
    );
    network(
        "billion laughs in a network",
        "lab",
        format!("<!DOCTYPE n [<!ENTITY a 'b'>]>{}", called("&a;")),
        "DOCTYPE",
    );
    let mut lxc = |what, network: Option<&str>, env: &[(&'static str, &str)], said| {
        let mut all =
            vec![("LXC_NAME", "c1"), ("LXC_HOOK_VERSION", "1"), ("LXC_HOOK_SECTION", "net"), ("LXC_HOOK_TYPE", "up")];
        all.extend([("LXC_NET_TYPE", "veth"), ("LXC_NET_PEER", "vethc1")]);
        all.extend(env);
        let args = std::iter::once("lxc").chain(network.iter().flat_map(|n| ["--network", *n]));
        let env = all.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
        cases.push((what, args.map(str::to_owned).collect(), Vec::new(), env, said));
    };
    lxc("container name with ../", Some("flat"), &[("LXC_NAME", "../../etc/x")], "its name has '/'");
    lxc("container name with ;", Some("flat"), &[("LXC_NAME", "a;reboot")], "its name has ';'");
    lxc("container name with a newline", Some("flat"), &[("LXC_NAME", "a\nb")], "not printable");
    lxc("container name of 100,000 bytes", Some("flat"), &[("LXC_NAME", &"x".repeat(100_000))], "over 255 bytes");
    lxc("container's veth ../../x", Some("flat"), &[("LXC_NET_PEER", "../../x")], "device name '../../x'");
    lxc("container's link a;b", Some("flat"), &[("LXC_NET_PARENT", "a;b")], "device name 'a;b'");
    lxc("container's network ../flat", Some("../flat"), &[], "network ../flat of device vethc1 is not up");
    let start = [("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", "start-host")];
    lxc("container's process 1;reboot", None, &[&start[..], &[("LXC_PID", "1;reboot")]].concat(), "is no process id");
    lxc("container's process ../1", None, &[&start[..], &[("LXC_PID", "../1")]].concat(), "is no process id");
    cases
}

const OTHERS: &str = "52:54:00:aa:00:02";
/// Of one call: a debug build on a busy machine. 64 MiB go through a pipe first, and 4 of them are read.
const LONGEST: Duration = Duration::from_secs(15);
/// Address space, of which the program without input has some 10 MiB.
const LARGEST_MIB: u64 = 96;

on_a_host!(whatever_a_hostile_tenant_tries_is_refused_in_a_line, {
    let (host, _) = good();
    std::fs::write("/run/config.toml", format!("on_duplicate = 'refuse'\n{CONFIG}")).unwrap();
    tap("vnet1");
    tap("vethc1");
    sh("ip link set vnet1 master flat-l2 up");
    sh(LIBVIRTS_BRIDGE);
    let others = domain(2, &guest(OTHERS, None, &["10.1.0.70"]), &interface(OTHERS, "vnet1", "flat-l2"));
    host.hook(&["qemu", "vm2", "start", "begin", "-"], others).ok();
    let mut table = format!("{:46} {:>4} {:>6} {:>6}  {}\n", "what is tried", "exit", "ms", "MB", "what is said");
    let before = everything();
    for (what, args, stdin, env, said) in tries() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (run, took, peak) = host.bounded(&args, &env, &stdin, LARGEST_MIB);
        let line = run.stderr.trim_end();
        writeln!(table, "{what:46} {:4} {:6} {peak:6.1}  {line}", run.status, took.as_millis()).unwrap();
        let fits = run.status == 1 && run.stdout.is_empty() && run.stderr.lines().count() == 1 && line.len() < 700;
        let told = line.starts_with("evpn-hook: ") && said.split('|').any(|said| line.contains(said));
        assert!(fits && told && took < LONGEST, "{what}: {took:?} {run:?}\n{table}");
        assert!(!line.chars().any(char::is_control), "{what}: {line:?}");
        let after = everything();
        let other = |a: &str, b: &str| a.lines().filter(|line| !b.contains(line)).collect::<Vec<_>>().join("\n");
        assert!(
            after == before,
            "{what} left something:\n{}\ninstead of\n{}",
            other(&after, &before),
            other(&before, &after)
        );
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test/hostile.txt");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, &table).unwrap();
    // The other guest is there as it was, and who behaves starts.
    let good = domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"));
    host.hook(&["qemu", "vm1", "start", "begin", "-"], good).ok();
    assert!(["neigh 10.1.0.60", "neigh 10.1.0.70"].iter().all(|neigh| snapshot().contains(neigh)));
});

/// All that could be changed on a host: [`snapshot`], and what is no part of it because it changes by itself in other tests.
fn everything() -> String {
    let more = sh("ip -4 route show table all; ip -6 route show table all | grep -v -e fe80 -e ff00 || true
        bridge fdb show | grep -e static -e permanent -e extern_learn -e self | grep -v -e ^33:33 -e ^01:00:5e | sort; nft list ruleset 2>&1 || true; find /run /etc/evpn-hook -newermt @0 2>/dev/null | sort");
    snapshot() + &more
}

on_a_host!(names_cannot_leave_their_place, {
    let (host, good) = good();
    // What is no path, shell or terminal's word is a name; what is one would be harmless, too, but starts nothing.
    for name in ["a b", "%s%n", "..", "{a,b}"] {
        let xml = good.replace("vm1", name);
        host.hook(&["qemu", name, "start", "begin", "-"], &xml).ok();
        assert_eq!(host.status()["endpoints"][0]["guest"]["name"], name);
        let files = sh("find /run/evpn-hook/guests -type f | sort");
        assert_eq!(files.lines().count(), 2, "one record, one lock: {files}");
        host.hook(&["qemu", name, "stopped", "end", "-"], &xml).ok();
    }
    let parts = &["vm a\\nb: ", "guest name 'a\\nb' is empty, over 255 bytes, or not printable: rename it"];
    host.hook_refuses(&["qemu", "a\nb", "start", "begin", "-"], good.replace("vm1", "a\nb"), 1, parts);
    // One that runs already, registered by an earlier version: kept, seen to and withdrawn, in a file of its own.
    let known =
        r#"{"guest":{"kind":"libvirt","name":"../../x","id":"11111111-2222-3333-4444-000000000001"},"endpoints":[]}"#;
    std::fs::write("/run/evpn-hook/guests/libvirt-11111111-2222-3333-4444-000000000001.json", known).unwrap();
    let running = good.replace("vm1", "../../x");
    host.hook(&["qemu", "../../x", "reconnect", "begin", "-"], &running).ok();
    assert!(snapshot().contains("neigh 10.1.0.60"));
    host.hook(&["qemu", "../../x", "stopped", "end", "-"], &running).ok();
    assert!(!snapshot().contains("neigh"));
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
