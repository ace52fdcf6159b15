//! A config.toml that is broken, empty, or being written changes nothing that runs, and says so.

use crate::agent::{Agent, until};
use crate::common::{ip_link, sh};
use crate::host::{CONFIG, Host, fdb, finish, neighbours, snapshot, tap};
use crate::on_a_host;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, domain, guest, interface, network};

const MAC: &str = "52:54:00:03:82:d8";
const PATH: &str = "/run/config.toml";

/// config.toml has the port security of libvirt's network.
fn secured() -> String {
    "[speaker]\nkind = \"none\"\n[[network]]\nname = \"lab\"\nbridge = \"lab-l2\"\nvni = 40\nport_security = \"mac\"\n"
        .to_owned()
}

// hook.md: libvirt says `port-created` at each start of any VM on the network.
on_a_host!(nothing_that_config_toml_leaves_open_lifts_port_security, {
    let host = Host::new(&secured());
    sh(LIBVIRTS_BRIDGE);
    let xml = network("lab", "<evpn:network vni='40'/>", LAB);
    host.hook(&["network", "lab", "started", "begin", "-"], &xml).ok();
    tap("vnet0");
    sh("ip link set vnet0 master lab-l2 up");
    host.hook(&["qemu", "vm1", "start", "begin", "-"], domain(1, "", &interface(MAC, "vnet0", "lab-l2"))).ok();
    let security = || host.status()["networks"][0]["port_security"].clone();
    let held = snapshot();
    let whole = secured();
    for (text, says) in [
        (whole.replace("port_security = \"mac\"", "port_security = \"mac"), "config.toml line 7: "),
        (String::new(), "config.toml: it is empty, and was not before"),
        ("\n".to_owned(), "config.toml: it is empty, and was not before"),
        (whole[..60].to_owned(), "config.toml line "),
        // What a writer has got as far as may well be valid.
        (whole[..24].to_owned(), ""),
        (whole.replace("port_security = \"mac\"\n", ""), ""),
    ] {
        std::fs::write(PATH, &text).unwrap();
        for op in ["port-created", "updated"] {
            let run = host.hook(&["network", "lab", op, "begin", "-"], &xml);
            assert_eq!((run.status, run.stderr.lines().count()), (0, usize::from(!says.is_empty())), "{text}: {run:?}");
            assert!(run.stderr.contains(says), "{text}: {run:?}");
        }
        std::fs::write(PATH, &whole).unwrap();
        assert_eq!((security(), snapshot()), ("mac".into(), held.clone()), "{text}");
    }
    // Said in so many words it is lifted; and the XML's own word holds, but for what config.toml says otherwise, or said last.
    std::fs::write(PATH, whole.replace("\"mac\"", "\"off\"")).unwrap();
    host.hook(&["network", "lab", "updated", "begin", "-"], &xml).ok();
    assert_eq!(security(), "off");
    std::fs::write(PATH, "[").unwrap();
    let own = network("lab", "<evpn:network vni='40' port_security='mac'/>", LAB);
    let updated = || host.hook(&["network", "lab", "updated", "begin", "-"], &own);
    let run = updated();
    assert!(run.status == 0 && run.stderr.contains("disagree on port_security: mac and off"), "{run:?}");
    std::fs::write(PATH, "[speaker]\nkind = \"none\"\n").unwrap();
    assert_eq!(security(), "off");
    updated().ok();
    assert_eq!(security(), "mac");
});

// Nobody writes it: whoever opens it waits, and with a hook its hypervisor.
on_a_host!(a_pipe_is_no_config_toml, {
    let host = Host::flat();
    std::fs::remove_file(PATH).unwrap();
    sh(&format!("mkfifo {PATH}"));
    let began = std::time::Instant::now();
    host.run(&["status"]).says(2, &["config.toml: it is a pipe", "give --config a file"]);
    let xml = network("lab", "", LAB);
    assert_eq!(host.hook(&["network", "lab", "port-created", "begin", "-"], &xml).status, 0);
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
});

/// A guest on a network whose tunnels have a port of their own, which only config.toml knows.
fn with_guest() -> (Host, String) {
    let layer_2 = CONFIG.split("[[network]]\nname = \"routed\"").next().unwrap();
    let config = format!("[vtep]\nport = 8472\n{layer_2}");
    let host = Host::new(&config);
    host.run(&["network", "up", "flat"]).ok();
    tap("vnet0");
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60"]).ok();
    (host, config)
}

/// A lost neighbour, a ghost, and a tunnel that is down.
fn break_it() {
    sh("ip neigh del 10.1.0.60 dev flat-l2; ip link set vxlan20 down");
    sh("ip neigh add 10.1.0.99 lladdr 52:54:00:00:00:99 dev flat-l2 nud permanent proto 69");
}

on_a_host!(sync_mends_guests_ghosts_and_networks_whatever_config_toml_says, {
    let (host, config) = with_guest();
    let whole = (fdb(), neighbours());
    for (text, says) in [
        ("[[network", "config.toml line 1: "),
        ("", "config.toml: it is empty"),
        (&config[..13], "config.toml line 2: "),
    ] {
        break_it();
        std::fs::write(PATH, text).unwrap();
        let run = host.run(&["sync"]);
        assert_eq!((run.status, run.stderr.lines().count()), (2, 1), "{run:?}");
        assert!(run.stderr.contains(says) && run.stderr.contains("what it said before still holds"), "{run:?}");
        assert_eq!((fdb(), neighbours()), whole, "{text:?}");
        let vxlan = ip_link("vxlan20");
        assert_eq!(vxlan["linkinfo"]["info_data"]["port"], 8472, "{text:?}");
        assert!(vxlan["flags"].as_array().unwrap().contains(&"UP".into()), "{text:?}");
        let run = host.run(&["network", "up", "--all"]);
        assert!(run.status == 0 && run.stderr.contains(says), "{run:?}");
        assert_eq!((fdb(), neighbours()), whole, "{text:?}");
    }
    // Where nobody has read it before, networks wait for it, and guests do not.
    break_it();
    sh("rm /run/evpn-hook/hints/config.json");
    let run = host.run(&["sync"]);
    assert_eq!((run.status, run.stderr.lines().count()), (2, 1), "{run:?}");
    assert!(neighbours().contains("neigh 10.1.0.60 ") && !neighbours().contains("10.1.0.99"), "{}", neighbours());
    assert_eq!(ip_link("vxlan20")["linkinfo"]["info_data"]["port"], 8472);
    std::fs::write(PATH, &config).unwrap();
    host.run(&["sync"]).ok();
    assert_eq!((fdb(), neighbours()), whole);
});

on_a_host!(a_config_toml_that_was_removed_is_meant, {
    with_guest();
    std::fs::remove_file(PATH).unwrap();
    let mut command = std::process::Command::new(crate::host::BIN);
    command.args(["network", "up", "flat"]); // without --config
    let run = finish(command, b"");
    assert!(
        run.status == 1 && run.stderr.contains("network flat: config.toml does not describe it any more"),
        "{run:?}"
    );
});

on_a_host!(the_agent_starts_on_what_config_toml_said_last, {
    let (host, config) = with_guest();
    std::fs::write(PATH, "").unwrap();
    break_it();
    let agent = Agent::start();
    assert!(neighbours().contains("neigh 10.1.0.60 ") && !neighbours().contains("10.1.0.99"), "{}", neighbours());
    assert_eq!(ip_link("vxlan20")["linkinfo"]["info_data"]["port"], 8472);
    std::fs::write(PATH, &config).unwrap();
    // Emptied under a running agent.
    std::fs::write(PATH, "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    sh("ip link set vxlan20 down");
    until("the tunnel", || ip_link("vxlan20")["flags"].as_array().unwrap().contains(&"UP".into()));
    assert_eq!(ip_link("vxlan20")["linkinfo"]["info_data"]["port"], 8472);
    drop((host, agent));
});

on_a_host!(a_running_guest_is_applied_again_though_nobody_can_read_who_may_choose, {
    let host = Host::new(&format!("allow_guest_networks = [\"flat\"]\n{CONFIG}"));
    host.run(&["network", "up", "flat"]).ok();
    tap("tap7");
    let nic = format!("<interface type='ethernet'><mac address='{MAC}'/><target dev='tap7'/></interface>");
    let xml = domain(1, &guest(MAC, Some("flat"), &["10.1.0.60"]), &nic);
    host.hook(&["qemu", "vm1", "start", "begin", "-"], &xml).ok();
    let whole = neighbours();
    sh("ip neigh del 10.1.0.60 dev flat-l2");
    std::fs::write(PATH, "[").unwrap();
    assert_eq!(host.hook(&["qemu", "vm1", "reconnect", "begin", "-"], &xml).status, 0);
    assert_eq!(neighbours(), whole);
});
