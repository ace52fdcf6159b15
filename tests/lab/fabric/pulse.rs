//! Does FRR live? A daemon that died in a scenario that did not kill it is that scenario's failure, and nobody else's.

use std::time::Duration;

use super::{Fabric, Host, frr, wait_until};

/// Those that were started, have not been stopped as `stop` does it, and run no more: each with its pid. A program is known by its
/// command line, as its number may be another's by now.
const DEAD: &str = r#"
    for file in /run/frr/*.pid /run/frr/*/*.pid; do
        [ -s "$file" ] || continue
        name=${file#/run/frr/} pid=$(cat "$file"); name=${name%.pid}
        tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "/${name##*/} " || echo "$name $pid"
    done
"#;

/// FRR's own words at its end: the crash log of that process, or what its log says from the signal on.
const LAST_WORDS: &str = r#"
    name=${1##*/}
    cat /var/tmp/frr/"$name.$2"/crashlog 2>/dev/null ||
        grep -hEi -A 40 'received signal|assertion|terminating' /var/log/frr/*.log | tail -n 60
"#;

fn dead(host: &Host) -> Vec<(String, String)> {
    let pairs = |line: &str| line.split_once(' ').map(|(name, pid)| (name.to_owned(), pid.to_owned()));
    host.run(&["bash", "-uc", DEAD]).stdout.lines().filter_map(pairs).collect()
}

/// Which daemons died and did not come back, each with its backtrace; empty where all live.
pub fn died(hosts: &[&Host]) -> String {
    let mut words = String::new();
    for host in hosts {
        for (name, pid) in dead(host) {
            let last = host.run(&["bash", "-uc", LAST_WORDS, "sh", &name, &pid]);
            words += &format!("{}: {name} ({pid}) died:\n{}{}", host.name(), last.stdout, last.stderr);
        }
    }
    words
}

/// What a scenario leaves that fails half-way: guests of every kind, networks, config.toml. One host has no libvirtd.
const LEFT: &str = r#"
    shopt -s nullglob
    for domain in $(virsh list --name 2>/dev/null); do virsh destroy "$domain"; done
    for container in $(lxc-ls --active); do lxc-stop --kill --name "$container"; done
    for network in $(virsh net-list --name 2>/dev/null); do virsh net-destroy "$network"; done
    for record in /run/evpn-hook/networks/*.json; do
        for port in /sys/class/net/"$(basename "$record" .json)"/brif/*; do
            port=${port##*/}
            case $port in vxlan*) ;; *) evpn-hook detach "$port"; ip link set "$port" nomaster ;; esac
        done
    done
    for network in /run/evpn-hook/names/*; do evpn-hook network down "${network##*/}"; done
    rm -f /etc/evpn-hook/config.toml
"#;

/// Takes away what a scenario that failed left on the hypervisors: it is nobody else's fault.
pub fn tidy(fabric: &Fabric) {
    for host in fabric.nodes().split_off(1) {
        let done = host.run(&["bash", "-uc", LEFT]);
        eprintln!("lab: {} after a failure: {}{}", host.name(), done.stdout, done.stderr);
    }
}

/// Starts FRR again where one of its daemons died: all of that host's, as watchfrr does it (watchfrr.c `phase_check`).
pub fn revive(fabric: &Fabric) {
    let mut revived = false;
    for host in fabric.nodes() {
        if dead(host).is_empty() {
            continue;
        }
        eprintln!("lab: FRR of {} is started again", host.name());
        let is_spine = host.name() == fabric.spine1().name();
        frr::stop(host, is_spine);
        frr::start_daemons(host, &["zebra", "bgpd"]);
        if is_spine {
            frr::run_reflector(host);
        }
        revived = true;
    }
    if revived {
        for host in fabric.nodes().split_off(1) {
            wait_until(&format!("{}'s EVPN session", host.name()), Duration::from_secs(60), || {
                frr::evpn_established(host)
            });
        }
    }
}
