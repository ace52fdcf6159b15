//! The hooks' links below another root.

use crate::common::sh;
use crate::host::Host;
use crate::on_a_host;

const LINKS: [&str; 3] = [
    "/run/root/etc/libvirt/hooks/network.d/50-evpn-hook",
    "/run/root/etc/libvirt/hooks/qemu.d/50-evpn-hook",
    "/run/root/usr/share/lxc/hooks/evpn-hook",
];

fn links() -> Vec<String> {
    sh("mkdir -p /run/root; find /run/root ! -type d | sort").lines().map(str::to_owned).collect()
}

on_a_host!(links_are_made_once_and_taken_out, {
    let host = Host::new("");
    let run = |args: &[&str]| host.run(&[args, &["--root", "/run/root"]].concat());
    let made = run(&["install"]).ok().stdout;
    for link in LINKS {
        assert!(made.contains(&format!("linked {link}\n")), "{made}");
        assert_eq!(std::fs::read_link(link).unwrap().to_str(), Some("/usr/bin/evpn-hook"));
    }
    assert_eq!(links(), LINKS);
    assert_eq!(run(&["install"]).ok().stdout, "", "a second time is nothing");
    run(&["uninstall", "--lxc"]).ok();
    assert_eq!(links(), LINKS[..2]);
    run(&["uninstall"]).ok();
    assert_eq!(run(&["uninstall"]).ok().stdout, "");
    assert_eq!(links(), [""; 0]);
    run(&["install", "--libvirt"]).ok();
    assert_eq!(links(), LINKS[..2]);
});

// hooks/ in the repository shows what is installed.
on_a_host!(what_the_repository_shows, {
    let host = Host::new("");
    host.run(&["install", "--root", "/run/root"]).ok();
    let target = |path: &str| std::fs::read_link(path).unwrap();
    for (shown, installed) in ["network.d/50-evpn-hook", "qemu.d/50-evpn-hook", "lxc/evpn-hook"].iter().zip(LINKS) {
        assert_eq!(target(&format!("{}/hooks/{shown}", env!("CARGO_MANIFEST_DIR"))), target(installed), "{shown}");
    }
    let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/hooks");
    assert_eq!(sh(&format!("find {hooks} ! -type d")).lines().count(), LINKS.len(), "each of hooks/ is installed");
});

on_a_host!(what_is_somebody_elses_stays, {
    let host = Host::new("");
    sh("mkdir -p /run/root/etc/libvirt/hooks/qemu.d");
    std::fs::write(LINKS[1], "#!/bin/sh\n").unwrap();
    let parts = &[LINKS[1], "a file that is not evpn-hook's is there: remove it first"];
    host.run(&["install", "--root", "/run/root"]).says(1, parts);
    assert_eq!(links(), [LINKS[1]], "all or nothing");
    host.run(&["uninstall", "--root", "/run/root"]).ok();
    assert_eq!(std::fs::read_to_string(LINKS[1]).unwrap(), "#!/bin/sh\n");
    std::fs::remove_file(LINKS[1]).unwrap();
    std::os::unix::fs::symlink("/opt/other", LINKS[1]).unwrap();
    host.run(&["install", "--root", "/run/root"]).says(1, &[LINKS[1], "it points to /opt/other: remove it first"]);
    assert_eq!(std::fs::read_link(LINKS[1]).unwrap().to_str(), Some("/opt/other"));
    sh("rm -r /run/root; touch /run/root");
    host.run(&["install", "--root", "/run/root"]).says(1, &["/run/root/etc/libvirt/hooks/", "Not a directory"]);
});
