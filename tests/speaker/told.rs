//! FRR that was told otherwise: by frr.conf, by an operator, by an older version of either.

use crate::lab::{BGP, ID, Lab, vni, vrf};
use evpn_hook::speaker::{Added, BgpLine, SpeakerError};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a VRF's end takes out where its device is ours and nothing was missing when it came (`VrfRecord::claims`).
fn claims() -> Added {
    Added { vni: true, bgp: true, ..Added::default() }
}

/// As `evpn-hook frr-config` prints it.
const STANZA: [&str; 13] = [
    "vrf red",
    "vni 10",
    "exit-vrf",
    "router bgp 64512 vrf red",
    "bgp router-id 10.0.0.1",
    "address-family ipv4 unicast",
    "redistribute connected",
    "exit-address-family",
    "address-family ipv6 unicast",
    "redistribute connected",
    "exit-address-family",
    "address-family l2vpn evpn",
    "advertise ipv4 unicast",
];

/// hook.md 18, field F24.
#[test]
fn our_stanza_goes_with_the_network_though_it_stood_there_before() {
    let Some(mut lab) = Lab::start("typed", BGP) else { return };
    let (mut frr, red) = (lab.frr(), vrf("red", 10));
    let before = frr.running().unwrap();
    lab.vtysh(&STANZA);
    lab.vtysh(&["router bgp 64512 vrf red", "address-family l2vpn evpn", "advertise ipv6 unicast"]);
    assert_eq!(lab.read_only().configure(&red).unwrap(), Added::default());
    frr.unconfigure(&red, &claims()).unwrap();
    assert_eq!(frr.running().unwrap(), before);
    assert_eq!(frr.vrf(&red.name).unwrap(), Default::default());

    // With a line of the operator's in it, it is the operator's.
    lab.vtysh(&STANZA);
    lab.vtysh(&["router bgp 64512 vrf red", "neighbor 10.9.0.1 remote-as 65001"]);
    let typed = frr.running().unwrap();
    let added = frr.configure(&red).unwrap();
    assert_eq!(added, Added { lines: vec![BgpLine::AdvertiseIpv6], ..Added::default() });
    frr.unconfigure(&red, &Added { lines: added.lines, ..claims() }).unwrap();
    assert_eq!(frr.running().unwrap(), typed);
    assert_eq!(frr.vrf(&red.name).unwrap().vni, 0, "the L3VNI goes with our device");
}

/// hook.md 12.
#[test]
fn an_older_frr_version_in_frr_conf_makes_no_instance_the_operators() {
    for (version, lines) in [("8.1", 2), ("7.5", 3)] {
        let config = format!("frr version {version}\nfrr defaults traditional\n{BGP}");
        let Some(mut lab) = Lab::start(&format!("version{version}"), &config) else { return };
        let (mut frr, red) = (lab.frr(), vrf("red", 10));
        let before = frr.running().unwrap();
        let added = frr.configure(&red).unwrap();
        let instance = frr.running().unwrap().vrf("red").unwrap().clone();
        assert_eq!(instance.lines.len(), 5 + lines, "{instance:?}");
        frr.unconfigure(&red, &added).unwrap();
        assert_eq!(frr.running().unwrap(), before, "frr version {version}");
        // As an older evpn-hook left it. Without a router-id bgpd takes the anycast gateway's.
        frr.configure(&red).unwrap();
        lab.vtysh(&["router bgp 64512 vrf red", "no bgp router-id 10.0.0.1"]);
        let back = frr.configure(&red).unwrap();
        assert_eq!(back, Added { router_id: ID, ..Added::default() });
        frr.unconfigure(&red, &claims()).unwrap();
        assert_eq!(frr.running().unwrap(), before, "frr version {version}");
    }
}

#[test]
fn an_instance_of_ours_gets_its_router_id_back_and_the_operators_keeps_none() {
    let Some(mut lab) = Lab::start("older", BGP) else { return };
    let (mut frr, red) = (lab.frr(), vrf("red", 10));
    let before = frr.running().unwrap();
    frr.configure(&red).unwrap();
    lab.vtysh(&["router bgp 64512 vrf red", "no bgp router-id 10.0.0.1"]);
    assert_eq!(frr.configure(&red).unwrap(), Added { router_id: ID, ..Added::default() });
    frr.unconfigure(&red, &Added::whole(&red, None)).unwrap();
    assert_eq!(frr.running().unwrap(), before);

    lab.vtysh(&["router bgp 64512 vrf red", "neighbor 10.9.0.1 remote-as 65001"]);
    assert_eq!(frr.configure(&red).unwrap(), Added { vni: true, lines: BgpLine::ALL.to_vec(), ..Added::default() });
}

/// Field F24: after a restart of FRR, with another L3VNI, or the same for another VRF.
#[test]
fn what_a_network_left_in_frr_conf_is_found_and_what_the_operator_wrote_is_not() {
    let Some(mut lab) = Lab::start("left", BGP) else { return };
    let mut frr = lab.frr();
    let before = frr.running().unwrap();
    for wanted in [vrf("red", 11), vrf("blue", 10)] {
        lab.vtysh(&STANZA);
        assert_eq!(frr.whole().unwrap().in_the_way(&wanted), None, "a line is missing");
        lab.vtysh(&["router bgp 64512 vrf red", "address-family l2vpn evpn", "advertise ipv6 unicast"]);
        assert!(matches!(frr.configure(&wanted), Err(SpeakerError::Conflict { .. })));
        let left = frr.whole().unwrap().in_the_way(&wanted).unwrap();
        assert_eq!((left.name.as_str(), left.vni), ("red", Some(vni(10))));
        frr.unconfigure(&left, &claims()).unwrap();
        assert_eq!(frr.running().unwrap(), before);
        let added = frr.configure(&wanted).unwrap();
        frr.unconfigure(&wanted, &added).unwrap();
        assert_eq!(frr.whole().unwrap().in_the_way(&wanted), None);
    }
}

/// hook.md, smaller: `/usr/bin/vtysh` is fixed. And an FRR that nobody can configure is not one that is gone.
#[test]
fn without_vtysh_the_message_names_the_key() {
    let Some(lab) = Lab::start("novtysh", BGP) else { return };
    let error = lab.frr().with_vtysh(Path::new("/nonexistent/vtysh")).configure(&vrf("red", 10)).unwrap_err();
    assert!(matches!(error, SpeakerError::NoVtysh { .. }) && error.is_absence(), "{error}");
    assert!(error.to_string().contains("[speaker] vtysh in config.toml"), "{error}");
}

// ----- the whole program beside a real FRR: kernels with VRFs only -----

const HOOK: &str = env!("CARGO_BIN_EXE_evpn-hook");
/// Made by libvirt on a host; its bridge is there before `started`.
const XML: &str = "<network><name>red</name><metadata><evpn:network xmlns:evpn=\"urn:evpn-hook:1\" vni=\"20\"><evpn:vrf name=\"red\" table=\"10\" vni=\"10\"/></evpn:network></metadata><forward mode=\"open\"/><bridge name=\"red-l2\" stp=\"off\" delay=\"0\"/><mtu size=\"1450\"/><mac address=\"00:00:00:11:11:10\"/><ip address=\"10.1.0.1\" netmask=\"255.255.255.0\"/></network>";

impl Lab {
    fn write_config(&self, more: &str) {
        let config = format!("[speaker]\nsocket_dir = \"{}\"\n{more}", self.dir.display());
        std::fs::write(self.dir.join("config.toml"), config).unwrap();
    }

    fn line(&self, args: &str) -> String {
        format!("{HOOK} --config {}/config.toml {args}", self.dir.display())
    }

    fn start_red(&mut self) {
        self.start_network(XML);
    }

    /// libvirt's network red, started.
    fn start_network(&mut self, xml: &str) {
        std::fs::write(self.dir.join("red.xml"), format!("<hookData>{xml}</hookData>")).unwrap();
        self.hook_red("start begin");
        self.must("ip link add red-l2 type bridge && ip link set red-l2 up && ip address add 10.1.0.1/24 dev red-l2");
        self.hook_red("started begin");
    }

    fn hook_red(&mut self, phase: &str) {
        let line = self.line(&format!("network red {phase} - <{}/red.xml", self.dir.display()));
        self.must(&line);
    }

    fn has_link(&mut self, name: &str) -> bool {
        self.run(&format!("ip link show dev {name}")).0 == 0
    }
}

/// hook.md 13.
#[test]
fn a_network_ends_in_order_though_config_toml_was_broken_since() {
    for (name, broken) in [("broken", "[speaker\n"), ("unmanaged", "[speaker]\nkind = \"none\"\n")] {
        let Some(mut lab) = Lab::start(name, BGP) else { return };
        if !lab.has_vrf_devices() {
            return;
        }
        let mut frr = lab.frr();
        let before = frr.running().unwrap();
        lab.write_config("");
        lab.start_red();
        assert_eq!(frr.vrf(&"red".parse().unwrap()).unwrap().vni, 10);
        std::fs::write(lab.dir.join("config.toml"), broken).unwrap();
        lab.hook_red("stopped end");
        assert_eq!(frr.running().unwrap(), before, "{name}");
        assert_eq!(frr.vrf(&"red".parse().unwrap()).unwrap(), Default::default(), "{name}");
        assert!(!lab.has_link("red"), "{name}");
    }
}

/// An FRR that answers and that nobody can configure holds the VRF: its device waits.
#[test]
fn a_vrf_waits_for_a_vtysh_that_is_gone() {
    let Some(mut lab) = Lab::start("waits", BGP) else { return };
    if !lab.has_vrf_devices() {
        return;
    }
    let mut frr = lab.frr();
    let before = frr.running().unwrap();
    lab.write_config("");
    lab.start_red();
    lab.write_config("vtysh = \"/nonexistent/vtysh\"\n");
    lab.hook_red("stopped end");
    assert!(lab.has_link("red"));
    lab.write_config("");
    let sync = lab.line("sync");
    lab.must(&sync);
    assert!(!lab.has_link("red"));
    assert_eq!(frr.running().unwrap(), before);
}

/// hook.md, smaller: the undo of a second network's start.
#[test]
fn a_second_network_that_fails_leaves_the_first_ones_lines() {
    let Some(mut lab) = Lab::start("second", BGP) else { return };
    if !lab.has_vrf_devices() {
        return;
    }
    let vrf = "[[vrf]]\nname = \"red\"\ntable = 10\nvni = 10\n";
    let network = |name: &str, vni: u32| {
        format!("[[network]]\nname = \"{name}\"\nbridge = \"{name}-l2\"\nvni = {vni}\nvrf = \"red\"\nmtu = 1450\n")
    };
    lab.write_config(&format!("{vrf}{}{}", network("red", 20), network("far", 21)));
    let (up, second) = (lab.line("network up red"), lab.line("network up far"));
    lab.must(&up);
    let mut frr = lab.frr();
    let whole = frr.running().unwrap();
    let mut failed = 0;
    for step in 1.. {
        lab.vtysh(&["router bgp 64512 vrf red", "address-family l2vpn evpn", "no advertise ipv6 unicast"]);
        let (status, said) = lab.run(&format!("EVPN_HOOK_FAULT='fail {step}' {second}"));
        if status == 0 {
            break;
        }
        failed += 1;
        assert!(said.contains("injected fault"), "{said}");
        assert_eq!(frr.vrf(&"red".parse().unwrap()).unwrap().vni, 10, "step {step}");
        let running = frr.running().unwrap();
        let lines = &running.vrf("red").expect("red's instance").lines;
        assert!(lines.len() >= 4, "step {step}: {lines:?}");
        let (status, said) = lab.run(&up);
        assert_eq!(status, 0, "{said}");
        assert_eq!(frr.running().unwrap(), whole, "step {step}");
    }
    assert!(failed > 5, "only {failed} steps");
    assert_eq!(frr.running().unwrap(), whole);
}

/// hook.md 18: nothing was missing, because FRR had read all of it from frr.conf.
#[test]
fn a_stanza_from_frr_conf_goes_with_our_device() {
    let Some(mut lab) = Lab::start("fromconf", BGP) else { return };
    if !lab.has_vrf_devices() {
        return;
    }
    let mut frr = lab.frr();
    let before = frr.running().unwrap();
    lab.vtysh(&STANZA);
    lab.vtysh(&["router bgp 64512 vrf red", "address-family l2vpn evpn", "advertise ipv6 unicast"]);
    lab.write_config("");
    lab.start_red();
    lab.hook_red("stopped end");
    assert_eq!(frr.running().unwrap(), before);
    assert_eq!(frr.vrf(&"red".parse().unwrap()).unwrap(), Default::default());
    assert!(!lab.has_link("red"));

    // Field F24: with another L3VNI, which frr.conf's would be in the way of.
    lab.vtysh(&STANZA);
    lab.vtysh(&["router bgp 64512 vrf red", "address-family l2vpn evpn", "advertise ipv6 unicast"]);
    lab.must("ip link del red-l2");
    lab.start_network(&XML.replace("vni=\"10\"", "vni=\"11\""));
    assert_eq!(frr.vrf(&"red".parse().unwrap()).unwrap().vni, 11);
    lab.hook_red("stopped end");
    assert_eq!(frr.running().unwrap(), before);

    // Who keeps FRR's configuration keeps it.
    lab.write_config("manage_vrfs = false\n");
    lab.vtysh(&STANZA);
    let typed = frr.running().unwrap();
    lab.must("ip link del red-l2 || true");
    lab.start_red();
    lab.hook_red("stopped end");
    assert_eq!(frr.running().unwrap(), typed);
}

/// Where EVPN is off zebra hears nothing of a VXLAN's end, but keeps one of which it makes an L2VNI when it is told to forget the L3VNI.
#[test]
fn frr_lives_through_a_tenant_that_comes_and_goes_while_evpn_is_off() {
    let Some(mut lab) = Lab::start("off", "router bgp 64512\n bgp router-id 10.0.0.1\n") else { return };
    if !lab.has_vrf_devices() {
        return;
    }
    lab.write_config("");
    let before = lab.frr().running().unwrap();
    for _ in 0..3 {
        lab.start_red();
        assert_eq!(lab.frr().vrf(&"red".parse().unwrap()).unwrap().vni, 10);
        lab.hook_red("stopped end");
        assert_eq!(lab.frr().running().unwrap(), before);
        lab.must("ip link del red-l2 || true");
    }
    lab.vtysh(&["router bgp 64512", "address-family l2vpn evpn", "advertise-all-vni"]);
    lab.until("EVPN", |lab| !lab.zebra("show evpn").is_empty());
    assert!(!lab.zebra("show evpn vni").contains("vxlan10"), "{}", lab.zebra("show evpn vni"));
    lab.start_red();
    lab.until("the L3VNI", |lab| lab.zebra("show evpn vni 10").contains("State: Up"));
    lab.hook_red("stopped end");
}

/// hook.md 2: heard on a host that is alone, where the kernel tells of nothing. And an FRR that refuses is not asked all the time: what runs then is our own vtysh.
#[test]
fn the_agent_hears_of_a_vtysh_and_is_patient_with_one_that_fails() {
    let Some(mut lab) = Lab::start("heard", BGP) else { return };
    if !lab.has_vrf_devices() {
        return;
    }
    let dir = lab.dir.display().to_string();
    let [program, calls, new] = ["vtysh", "calls", "new"].map(|name| lab.dir.join(name));
    let script = |end: &str| {
        let text = format!("#!/bin/sh\necho call >>{dir}/calls\n{end}\n");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &program).unwrap();
    };
    script("exec /usr/bin/vtysh \"$@\"");
    lab.write_config(&format!("vtysh = \"{}\"\n", program.display()));
    lab.start_red();
    lab.start_agent();
    let mut frr = lab.frr();
    let whole = frr.running().unwrap();
    let takes_out = format!(
        "{} --vty_socket {dir} -c 'configure terminal' -c 'router bgp 64512 vrf red' -c 'address-family l2vpn evpn' -c 'no advertise ipv4 unicast'",
        program.display()
    );
    lab.must(&takes_out);
    assert_ne!(frr.running().unwrap(), whole);
    // Unheard it would be seen within a minute, as below: `until` waits for half of that.
    lab.until("our line to be back", |lab| lab.frr().running().unwrap() == whole);

    lab.must(&takes_out);
    script("exit 1");
    let called = |_: &Lab| std::fs::read_to_string(&calls).unwrap_or_default().lines().count();
    let before = called(&lab);
    lab.until("a second try", |lab| called(lab) >= before + 2);
    // It waits twice as long each time: a slow machine makes fewer tries of that, not more.
    let before = called(&lab);
    std::thread::sleep(Duration::from_secs(10));
    let tries = called(&lab) - before;
    assert!(tries <= 4, "{tries} tries in 10 s");

    // Another vtysh, as of an FRR in a container: nothing tells of it, and it is seen all the same.
    script("exec /usr/bin/vtysh \"$@\"");
    lab.until("our line to be back", |lab| lab.frr().running().unwrap() == whole);
    // The agent's own vtysh is heard, too, and has it look once more.
    std::thread::sleep(Duration::from_secs(5));
    lab.vtysh(&["router bgp 64512 vrf red", "address-family l2vpn evpn", "no advertise ipv4 unicast"]);
    let since = Instant::now();
    while frr.running().unwrap() != whole {
        assert!(since.elapsed() < Duration::from_secs(65), "not seen within a minute; the agent said:\n{}", lab.said());
        std::thread::sleep(Duration::from_millis(100));
    }
}
