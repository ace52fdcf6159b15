//! What is kept of a scenario that failed.

use std::cell::Cell;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use super::{Fabric, Host};

const COMMANDS: &[&str] = &[
    "ip -d link",
    "ip address",
    "bridge fdb",
    "ip neigh",
    "ip rule; ip -6 rule",
    "ip route show table all",
    "ip -6 route show table all",
    "ps ax",
    "tail -n 100 /var/log/frr/*.log",
    "vtysh -c 'show running-config'",
];

const HYPERVISOR_COMMANDS: &[&str] = &[
    "virsh list --all; virsh net-list --all",
    "lxc-ls --fancy",
    "tail -n 200 /var/log/evpn-agent.log; grep -rs . /run/evpn-hook",
    "tail -n 100 /var/log/libvirt/libvirtd.log /var/log/libvirt/qemu/*.log /var/log/lxc/*.log /var/log/incus/*.log /var/log/incus/*/lxc.log",
    "tail -n 500 /var/log/manager.log /var/log/udevd.log",
];

const SHOWS: &[(&str, &str)] = &[
    ("zebra", "show evpn vni"),
    ("zebra", "show evpn mac vni all"),
    ("zebra", "show evpn arp-cache vni all"),
    ("zebra", "show ip route vrf all"),
    ("bgpd", "show bgp summary"),
    ("bgpd", "show bgp l2vpn evpn"),
    ("reflector/bgpd", "show bgp summary"),
    ("reflector/bgpd", "show bgp l2vpn evpn"),
];

thread_local! {
    /// Where this thread's panic is to be dumped: the fabric, the test's name.
    static WATCHED: Cell<Option<(&'static Fabric, String)>> = const { Cell::new(None) };
}

/// Runs `work`; at a panic, saves the nodes' state. It is done in the panic hook, before unwinding clears up what the test made.
pub fn on_panic(fabric: &'static Fabric, name: &str, work: impl FnOnce()) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            print(panic);
            if let Some((fabric, name)) = WATCHED.take() {
                save(fabric, &name);
            }
        }));
    });
    WATCHED.set(Some((fabric, name.to_owned())));
    work();
    WATCHED.set(None);
}

fn save(fabric: &Fabric, test: &str) {
    let out = std::env::var_os("EVPN_LAB_OUT").unwrap_or_else(|| "/tmp".into());
    let directory = PathBuf::from(out).join(test);
    let _ = fs::create_dir_all(&directory);
    for host in fabric.nodes() {
        let commands = if host.name() == fabric.spine1().name() { &[] } else { HYPERVISOR_COMMANDS };
        if let Err(error) = fs::write(directory.join(host.name()), report(host, commands)) {
            eprintln!("lab: {}: {error}", directory.display());
        }
    }
    eprintln!("lab: what every node knew at this moment is in {}", directory.display());
}

fn report(host: &Host, more: &[&str]) -> String {
    let mut text = String::new();
    for command in COMMANDS.iter().chain(more) {
        let output = host.run(&["sh", "-c", command]);
        let _ = writeln!(text, "{}# {command}\n{}{}", host.name(), output.stdout, output.stderr);
    }
    for (daemon, command) in SHOWS {
        if let Ok(answer) = host.vty(daemon, command) {
            let _ = writeln!(text, "{} {daemon}> {command}\n{answer}", host.name());
        }
    }
    text
}
