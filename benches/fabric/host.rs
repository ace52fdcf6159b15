//! Hosts of a small fabric: network namespaces, an underlay of static routes, and on each an FRR of its own. The first is the benchmark's own
//! namespace, so that the programs under measure start there without a detour.

use crate::common::{must, sh};
use evpn_hook::speaker::{Frr, Vty};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FRR: &str = "/usr/lib/frr";

pub struct Host {
    pub number: u8,
    /// Of FRR's sockets and files, and of evpn-hook's.
    pub dir: PathBuf,
    daemons: Vec<Child>,
}

impl Host {
    /// The benchmark's own namespace is 1; others are made.
    pub fn new(number: u8) -> Host {
        let dir = PathBuf::from(format!("/run/host{number}"));
        fs::create_dir_all(&dir).unwrap();
        if number != 1 {
            sh(&format!("ip netns add host{number} && ip -n host{number} link set lo up"));
            sh(&format!("ip -n host{number} address add {}/32 dev lo", vtep(number)));
        }
        let host = Host { number, dir, daemons: Vec::new() };
        host.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
        host
    }

    /// A command on this host.
    pub fn command(&self, program: &Path) -> Command {
        if self.number == 1 {
            return Command::new(program);
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("host{}", self.number)]).arg(program);
        command
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// The first host has its register where any host has it.
    pub fn evpn_hook(&self, program: &Path) -> Command {
        let mut command = self.command(program);
        command.arg("--config").arg(self.config());
        if self.number != 1 {
            command.arg("--state").arg(self.dir.join("state"));
        }
        command
    }

    pub fn vtep(&self) -> String {
        vtep(self.number)
    }

    pub fn sh(&self, line: &str) -> String {
        must(self.command(Path::new("sh")).args(["-c", line]))
    }

    pub fn netns(&self) -> File {
        match self.number {
            1 => File::open("/proc/self/ns/net"),
            number => File::open(format!("/run/netns/host{number}")),
        }
        .unwrap()
    }

    /// A cable to the spine, which is the way to all others; each end is named after the host at its far end.
    pub fn cable(&self, spine: &Host) {
        let (own, far) = (self.number, spine.number);
        sh(&format!("ip -n host{far} link add to{own} mtu 9000 type veth peer name to{far} mtu 9000"));
        match own {
            // This thread's: it may have namespaces of its own.
            1 => sh(&format!("ip -n host{far} link set to{far} netns {}", rustix::thread::gettid().as_raw_nonzero())),
            _ => sh(&format!("ip -n host{far} link set to{far} netns host{own}")),
        };
        spine.sh(&format!(
            "ip address add 172.16.{own}.1/24 dev to{own} && ip link set to{own} up && ip route add {} via 172.16.{own}.2",
            vtep(own)
        ));
        self.sh(&format!(
            "ip address add 172.16.{own}.2/24 dev to{far} && ip link set to{far} up && ip route add 10.0.0.0/24 via 172.16.{own}.1"
        ));
    }

    /// zebra with these lines, and a bgpd that speaks EVPN with these peers: as a VTEP, or as their route reflector.
    pub fn start_frr(&mut self, zebra: &str, peers: &[u8], reflects: bool) {
        let own = vtep(self.number);
        let mut bgpd = format!("router bgp 64512\n bgp router-id {own}\n no bgp default ipv4-unicast\n");
        for peer in peers.iter().map(|peer| vtep(*peer)) {
            bgpd += &format!(
                " neighbor {peer} remote-as internal\n neighbor {peer} update-source {own}\n neighbor {peer} timers connect 1\n"
            );
        }
        bgpd += " address-family l2vpn evpn\n";
        for peer in peers.iter().map(|peer| vtep(*peer)) {
            bgpd += &format!("  neighbor {peer} activate\n");
            if reflects {
                bgpd += &format!("  neighbor {peer} route-reflector-client\n");
            }
        }
        bgpd += if reflects { " exit-address-family\n" } else { "  advertise-all-vni\n exit-address-family\n" };
        let dir = self.dir.clone();
        sh(&format!("chown frr:frr {}", dir.display()));
        for (daemon, config) in [("zebra", zebra), ("bgpd", &bgpd)] {
            let file = dir.join(daemon).with_extension("conf");
            fs::write(&file, config).unwrap();
            let log = File::create(dir.join(daemon).with_extension("out")).unwrap();
            let mut command = self.command(&Path::new(FRR).join(daemon));
            command
                .arg("--vty_socket")
                .arg(&dir)
                .arg("-z")
                .arg(dir.join("zserv.api"))
                .args(["-P", "0", "-s", "90000000"]);
            command.arg("-i").arg(dir.join(daemon).with_extension("pid")).arg("-f").arg(file);
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            self.daemons.push(command.spawn().unwrap());
            until(&format!("{daemon} of host {}", self.number), || {
                Vty::connect(&dir, daemon, Duration::from_secs(2)).is_ok()
            });
        }
    }

    /// Has its session with one peer and none with the other.
    pub fn talks_to(&self, on: u8, off: u8) {
        let (dir, [on, off]) = (self.dir.display(), [on, off].map(vtep));
        self.sh(&format!(
            "VTYSH_HISTFILE=/dev/null vtysh --vty_socket {dir} -c 'configure terminal' -c 'router bgp 64512' \
             -c 'no neighbor {on} shutdown' -c 'neighbor {off} shutdown'"
        ));
        let mut frr = Frr::with_deadlines(&self.dir, Duration::from_secs(5), Duration::from_secs(20));
        until(&format!("host {}'s session with {on} alone", self.number), || {
            let peers = frr.evpn_peers().unwrap_or_default();
            !peers.is_empty() && peers.iter().all(|peer| (peer.name == on) == (peer.state == "Established"))
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn vtep(number: u8) -> String {
    format!("10.0.0.{number}")
}

/// For what FRR announces by no event.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}
