//! Wrong arguments and wrong configuration: status 2, one line. Unknown names: status 1.

use crate::host::{CONFIG, Host, snapshot, tap};
use crate::on_a_host;

const MAC: &str = "52:54:00:03:82:d8";

on_a_host!(words_that_are_no_values, {
    let host = Host::flat();
    tap("vnet0");
    let before = snapshot();
    let refuses = |args: &[&str], status, parts: &[&str]| host.run(args).says(status, parts);
    let attach = |more: &[&'static str]| [&["attach", "vnet0", "--network", "flat"], more].concat();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--mac", "52:54:00"], &["--mac", "MAC '52:54:00' does not parse: write it as 52:54:00:03:82:d8"]),
        (&["--mac", "52:54:00:03:82:zz"], &["'52:54:00:03:82:zz' does not parse"]),
        (&["--mac", "52:54:00:03:82:d8:01"], &["has more than six bytes"]),
        (&["--mac", "01:00:5e:00:00:01"], &["MAC '01:00:5e:00:00:01' is multicast or zero: use a unicast one"]),
        (&["--mac", "ff:ff:ff:ff:ff:ff"], &["is multicast or zero"]),
        (&["--mac", "00:00:00:00:00:00"], &["is multicast or zero"]),
        (&["--mac", MAC, "--ip", "10.1.0.300"], &["10.1.0.300", "--ip"]),
        (&["--mac", MAC, "--ip", "10.1.0.60/24"], &["10.1.0.60/24", "--ip"]),
        (&["--mac", MAC, "--ip", ""], &["--ip"]),
        (&["--mac", MAC, "--ip", "224.0.0.1"], &["address 224.0.0.1 is multicast: use the address of one host"]),
        (&["--mac", MAC, "--ip", "0.0.0.0"], &["address 0.0.0.0 is the unspecified address"]),
        (&["--mac", MAC, "--ip", "127.0.0.1"], &["address 127.0.0.1 is a loopback address"]),
        (&["--mac", MAC, "--ip", "255.255.255.255"], &["is the broadcast address"]),
        (&["--mac", MAC, "--ip", "::ffff:10.1.0.60"], &["is an IPv4 address written as IPv6"]),
        (&[], &["--mac <MAC>", "--help"]),
        (&["--mac", MAC, "--wait=soon"], &["soon", "--wait"]),
        (&["--mac", MAC, "--netns", "1"], &["cannot be used with"]),
        (&["--mac", MAC, "--nonsense"], &["unexpected argument '--nonsense'"]),
    ];
    for (more, parts) in cases {
        refuses(&attach(more), 2, parts);
    }
    refuses(
        &["attach", "a-name-of-16-byte", "--network", "flat", "--mac", MAC],
        2,
        &["device name 'a-name-of-16-byte' has 17 bytes: the kernel takes 1 to 15"],
    );
    for name in ["../vnet0", "vnet0;reboot", "vnet 0", "vnet0\nvnet1", ".", "-"] {
        refuses(&["attach", "--network", "flat", "--mac", MAC, "--", name], 2, &["is not a letter, digit or one of"]);
    }
    for name in ["", "flat\nred", &"n".repeat(129)] {
        let parts = &["network name", "is empty, over 128 bytes, or not printable: rename it"];
        refuses(&["attach", "vnet0", "--network", name, "--mac", MAC], 2, parts);
    }
    let parts = &["guest name 'a\\nb' is empty, over 255 bytes, or not printable: rename it"];
    refuses(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--guest", "a\nb"], 2, parts);
    assert_eq!(snapshot(), before);
});

on_a_host!(words_that_are_no_commands, {
    let host = Host::flat();
    let before = snapshot();
    let refuses = |args: &[&str], status, parts: &[&str]| host.run(args).says(status, parts);
    refuses(&["atach"], 2, &["unrecognized subcommand 'atach'", "--help"]);
    refuses(&[], 2, &["--help"]);
    refuses(&["detach"], 2, &["<DEVICE|--guest <NAME>>"]);
    refuses(&["detach", "vnet0", "--guest", "vm1"], 2, &["cannot be used with"]);
    refuses(&["network"], 2, &["<up|down>"]);
    refuses(&["network", "sideways", "flat"], 2, &["network sideways: use 'network up NET|--all'"]);
    refuses(&["network", "up"], 2, &["name one network, or --all"]);
    refuses(&["network", "up", "flat", "--all"], 2, &["name one network, or --all"]);
    assert_eq!(snapshot(), before);
});

on_a_host!(names_that_nobody_knows, {
    let host = Host::flat();
    tap("vnet0");
    for mac_and_ip in [&["--mac", MAC][..], &["--mac", MAC, "--ip", "10.1.0.60"]] {
        let args = [&["attach", "vnet0", "--network", "nope"], mac_and_ip].concat();
        host.refuses(
            &args,
            1,
            &["guest vnet0: network nope of device vnet0 is not up", "'evpn-hook network up nope' first"],
        );
    }
    host.refuses(&["network", "up", "nope"], 1, &["network nope is unknown: start it with 'virsh net-start nope'"]);
    host.refuses(&["network", "down", "nope"], 1, &["network nope is not up: see 'evpn-hook status'"]);
    host.refuses(&["frr-config", "nope"], 1, &["network nope is unknown: start it, or describe it in config.toml"]);
    host.refuses(&["detach", "vnet9"], 1, &["vnet9: nothing of that name is attached: see 'evpn-hook status'"]);
    host.refuses(&["detach", "--guest", "vm9"], 1, &["vm9: nothing of that name is attached"]);
});

on_a_host!(config_toml_is_wrong, {
    let cases: &[(&str, &str, &[&str])] = &[
        ("vni = 20\n", "vni = 16777216\n", &["line 11", "VNI 16777216 is out of range: use 1 to 16777215"]),
        ("vni = 20\n", "vni = 0\n", &["line 11", "VNI 0 is out of range"]),
        ("vni = 20\n", "vni = \"twenty\"\n", &["line 11", "vni"]),
        ("vni = 20\n", "vni = 10\n", &["line 11", "10", "red"]),
        ("vni = 20\n", "vni = 21\n", &["line 18", "21", "flat"]),
        ("table = 10\n", "table = 254\n", &["line 6", "routing table 254 is one of the kernel's own"]),
        ("table = 10\n", "table = 0\n", &["line 6", "routing table 0 is no table: use 1 or more"]),
        ("table = 10\n", "table = 4294967296\n", &["line 6", "table"]),
        ("flat-l2", "a-name-of-16-byte", &["line 10", "has 17 bytes: the kernel takes 1 to 15"]),
        ("flat-l2", "../flat", &["line 10", "is not a letter, digit"]),
        ("name = \"red\"\n", "name = \"thirteen-byte\"\n", &["thirteen-byte"]),
        ("vrf = \"red\"", "vrf = \"blue\"", &["line 23", "blue"]),
        ("other-l2", "flat-l2", &["line 17", "flat-l2"]),
        ("mtu = 1450", "mtu = 10", &["mtu 10 is out of range: use 68 to 65535"]),
        ("10.1.0.1/24", "10.1.0.0/24", &["10.1.0.0/24 is its subnet's own address"]),
        ("00:00:00:11:11:10", "01:00:00:11:11:10", &["multicast"]),
        ("kind = \"none\"", "kind = \"bird\"", &["line 3", "bird"]),
        ("kind = \"none\"", "kinds = \"none\"", &["line 3", "kinds"]),
        ("[speaker]", "[[speaker", &["line 2"]),
    ];
    Host::new(CONFIG);
    let before = snapshot();
    for (good, bad, parts) in cases {
        assert!(CONFIG.contains(good), "{good}");
        let host = Host::new(&CONFIG.replacen(good, bad, 1));
        let parts = [&["/run/config.toml line "][..], parts].concat();
        let parts: Vec<&str> = parts.iter().map(|p| p.trim_start_matches("line ")).collect();
        host.run(&["network", "up", "flat"]).says(2, &parts);
        host.run(&["status"]).says(2, &parts);
    }
    assert_eq!(snapshot(), before);
    let host = Host::new(CONFIG);
    std::fs::remove_file("/run/config.toml").unwrap();
    host.refuses(&["status"], 2, &["/run/config.toml: cannot open it", "give --config a file that can be read"]);
});
