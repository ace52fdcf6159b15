//! A host with one network and one guest, and its only peer.

use crate::common::figures::{Sample, run};
use crate::common::{must, sh};
use crate::host::{Host, until};
use evpn_hook::model::Vni;
use evpn_hook::speaker::Frr;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The host's own guest.
pub const GUEST: &str = "52:54:00:03:82:d8";
pub const IP: &str = "10.1.0.60";
/// The peer's VNIs; the first is the host's as well.
const VNIS: [u32; 4] = [20, 21, 22, 23];

pub struct Fabric {
    first: Host,
    _second: Host,
    hook: PathBuf,
}

impl Fabric {
    /// In this thread's own namespaces. The peer announces so many MACs, a quarter on each VNI, and an address for each on the first.
    pub fn up(hook: &Path, macs: usize) -> Fabric {
        for dir in ["/etc/frr", "/var/log", "/var/tmp"] {
            sh(&format!("mount -t tmpfs none {dir}"));
        }
        let (mut first, mut second) = (Host::new(1), Host::new(2));
        first.cable(&second);
        first.start_frr("", &[2], false);
        fs::write(first.config(), config(&first)).unwrap();
        must(first.evpn_hook(hook).args(["network", "up", "red"]));
        sh("ip link add tap0 mtu 1450 type veth peer name far0 && ip link set tap0 up && ip link set far0 up");
        sh("ip link set far0 addrgenmode none");
        let attach = ["attach", "tap0", "--network", "red", "--guest", "web", "--mac", GUEST, "--ip", IP];
        must(first.evpn_hook(hook).args(attach));
        let mut frr = Frr::with_deadlines(&first.dir, Duration::from_secs(5), Duration::from_secs(20));
        let vni: Vni = VNIS[0].try_into().unwrap();
        // FRR 8.4 gives a VNI that comes later only as many of the routes as zebra's socket takes at once (bgp_evpn.c `install_routes_for_vni`).
        until("bgpd to know the VNI", || frr.targets(vni).is_ok_and(|targets| targets.is_some()));
        announce(&second, macs);
        second.start_frr("", &[1], false);
        let wanted = macs / VNIS.len() * 2;
        until("all routes", || {
            let peers = frr.evpn_peers().unwrap_or_default();
            peers.iter().any(|peer| peer.is_up()) && frr.entries().is_ok_and(|entries| entries >= wanted + 2)
        });
        // zebra has told the kernel when it has nothing more to tell it.
        until("the kernel's entries", || {
            sh("bridge fdb show br red-l2 | wc -l").trim().parse::<usize>().unwrap() >= wanted
        });
        Fabric { first, _second: second, hook: hook.to_owned() }
    }

    /// Routes that came, and the entries that zebra has of them.
    pub fn size(&self) -> (u32, usize) {
        let mut frr = Frr::with_deadlines(&self.first.dir, Duration::from_secs(5), Duration::from_secs(20));
        (frr.evpn_peers().unwrap().iter().map(|peer| peer.received).sum(), frr.entries().unwrap())
    }

    /// One report; what it finds wrong with this machine (3) is no matter here.
    pub fn report(&self, words: &str) -> Sample {
        let mut command = self.first.evpn_hook(&self.hook);
        command.args(words.split(' '));
        if words == "doctor" {
            let mut shell = Command::new("sh");
            shell.args(["-c", "\"$@\" || [ $? = 3 ]", "sh"]).arg(command.get_program()).args(command.get_args());
            command = shell;
        }
        run(&mut command, b"")
    }
}

/// The peer's number `n` on the host's own network.
pub fn far_mac(n: usize) -> String {
    mac(0, n)
}

pub fn far_ip(n: usize) -> String {
    ip(n).to_string()
}

fn mac(vni: usize, n: usize) -> String {
    format!("02:00:{vni:02x}:{:02x}:{:02x}:{:02x}", n >> 16, n >> 8 & 0xff, n & 0xff)
}

fn ip(n: usize) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(10, 64, 0, 0)) + u32::try_from(n).unwrap()).into()
}

fn config(host: &Host) -> String {
    format!(
        "[speaker]\nsocket_dir = '{}'\n[[network]]\nname = 'red'\nbridge = 'red-l2'\nvni = {}\nmtu = 1450\n",
        host.dir.display(),
        VNIS[0]
    )
}

/// Segments by hand, with static entries as hooks make them: zebra reads them when it starts.
fn announce(host: &Host, macs: usize) {
    for vni in VNIS {
        let vtep = host.vtep();
        host.sh(&format!(
            "ip link add b{vni} type bridge && ip link add vxlan{vni} type vxlan id {vni} local {vtep} dstport 4789 nolearning
             ip link add t{vni} type veth peer name p{vni}
             for dev in b{vni} vxlan{vni} t{vni} p{vni}; do ip link set $dev addrgenmode none; done
             ip link set vxlan{vni} master b{vni}; ip link set t{vni} master b{vni}
             for dev in b{vni} vxlan{vni} t{vni} p{vni}; do ip link set $dev up; done"
        ));
    }
    let (mut fdb, mut neighs) = (String::new(), String::new());
    for (of, vni) in VNIS.iter().enumerate() {
        for n in 0..macs / VNIS.len() {
            let mac = mac(of, n);
            let _ = writeln!(fdb, "fdb add {mac} dev t{vni} master static");
            if of == 0 {
                let _ = writeln!(neighs, "neigh add {} lladdr {mac} dev b{vni} nud permanent", ip(n));
            }
        }
    }
    for (program, lines) in [("bridge", fdb), ("ip", neighs)] {
        let file = host.dir.join(program);
        fs::write(&file, lines).unwrap();
        must(host.command(Path::new(program)).arg("-batch").arg(file));
    }
}
