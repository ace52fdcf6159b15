//! FRR's configuration on each kind of node, and its start. The tenants' part (VRFs, VNIs) is the hook's work, not the fabric's.

use std::time::Duration;

use super::host::project;
use super::poison::poisoned;
use super::{Fabric, Host, pulse, wait_until};

pub const SPINE_LOOPBACKS: &[&str; 2] = &["10.255.255.201/32", "c0d1:ffff::201/128"];
const HYPERVISOR_AS: u32 = 64512;

const COMMON: &str = "frr defaults traditional
log file /var/log/frr/frr.log informational
service integrated-vtysh-config
";

pub fn hypervisor_loopbacks(number: u8) -> [String; 2] {
    [format!("10.0.0.{number}/32"), format!("c0d1::{number}/128")]
}

/// All hypervisors share an AS, so each must accept its own number in the routes that come through the spine.
pub fn hypervisor_config(number: u8) -> String {
    format!(
        "{COMMON}!
router bgp {HYPERVISOR_AS}
 bgp router-id 10.0.0.{number}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp 3 9
 neighbor spine1 interface remote-as external
 neighbor spine1 timers connect 1
 neighbor c0d1:ffff::201 remote-as internal
 neighbor c0d1:ffff::201 update-source c0d1::{number}
 neighbor c0d1:ffff::201 timers connect 1
 address-family ipv4 unicast
  network 10.0.0.{number}/32
  neighbor spine1 activate
  neighbor spine1 allowas-in
 exit-address-family
 address-family ipv6 unicast
  network c0d1::{number}/128
  neighbor spine1 activate
  neighbor spine1 allowas-in
 exit-address-family
 address-family l2vpn evpn
  neighbor c0d1:ffff::201 activate
  advertise-all-vni
 exit-address-family
"
    )
}

/// The underlay's AS 65201.
pub fn spine_config(hypervisors: &[&str]) -> String {
    let mut config = format!(
        "{COMMON}!
router bgp 65201
 bgp router-id 10.255.255.201
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp 3 9
"
    );
    for name in hypervisors {
        config += &format!(" neighbor {name} interface remote-as external\n neighbor {name} timers connect 1\n");
    }
    for (family, network) in [("ipv4", SPINE_LOOPBACKS[0]), ("ipv6", SPINE_LOOPBACKS[1])] {
        config += &format!(" address-family {family} unicast\n  network {network}\n");
        for name in hypervisors {
            config += &format!("  neighbor {name} activate\n");
        }
        config += " exit-address-family\n";
    }
    config
}

/// The route reflector is inside the hypervisors' AS.
fn reflector_config(hypervisors: u8) -> String {
    let mut config = format!(
        "frr defaults traditional
log file /var/log/frr/reflector.log informational
router bgp {HYPERVISOR_AS}
 bgp router-id 10.255.255.201
 no bgp default ipv4-unicast
 timers bgp 3 9
 neighbor evpn peer-group
 neighbor evpn remote-as internal
 neighbor evpn update-source c0d1:ffff::201
 neighbor evpn timers connect 1
"
    );
    for number in 1..=hypervisors {
        config += &format!(" neighbor c0d1::{number} peer-group evpn\n");
    }
    config
        + " address-family l2vpn evpn\n  neighbor evpn activate\n  neighbor evpn route-reflector-client\n exit-address-family\n"
}

/// Starts the route reflector: a second bgpd on the spine's zebra, because FRR 8.4 takes no `local-as` that equals the peer's AS.
/// It does not listen (the underlay's bgpd has the port) but calls the hypervisors. `vtysh -N reflector` talks to it.
pub fn start_reflector(host: &Host, hypervisors: u8) {
    host.write("/etc/frr/reflector/bgpd.conf", &reflector_config(hypervisors));
    run_reflector(host);
}

pub(super) fn run_reflector(host: &Host) {
    host.sh(&format!(
        "install -d -o frr -g frr /run/frr/reflector; chown -R frr:frr /etc/frr/reflector
         {} /usr/lib/frr/bgpd -d -N reflector -f /etc/frr/reflector/bgpd.conf -z /run/frr/zserv.api -I 1 -p 0 -P 0 \
         >>/var/log/frr/start.log 2>&1",
        in_front()
    ));
}

/// Tells the running spine of one more hypervisor, as underlay neighbour and as client of the route reflector, and to know it after a restart.
pub fn accept(spine: &Host, name: &str, number: u8) {
    let underlay = format!(
        "router bgp 65201
 neighbor {name} interface remote-as external
 neighbor {name} timers connect 1
 address-family ipv4 unicast
  neighbor {name} activate
 exit-address-family
 address-family ipv6 unicast
  neighbor {name} activate
"
    );
    let reflector = format!("router bgp {HYPERVISOR_AS}\n neighbor c0d1::{number} peer-group evpn\n");
    for (instance, config) in [("", underlay), ("-N reflector", reflector)] {
        spine.write("/run/accept.conf", &config);
        spine.sh(&format!("vtysh {instance} -f /run/accept.conf; vtysh {instance} -c 'write memory'"));
    }
}

pub fn start<A: AsRef<str>>(host: &Host, config: &str, loopbacks: &[A]) {
    host.write("/etc/frr/frr.conf", config);
    boot(host, loopbacks);
}

/// With the configuration that is there.
pub fn boot<A: AsRef<str>>(host: &Host, loopbacks: &[A]) {
    let addresses: String =
        loopbacks.iter().map(|address| format!("ip address add {} dev lo; ", address.as_ref())).collect();
    host.sh(&format!("{addresses} chown -R frr:frr /etc/frr /var/log/frr"));
    start_daemons(host, &["zebra", "bgpd"]);
}

/// As watchfrr does it: the daemons, then the integrated configuration.
pub(super) fn start_daemons(host: &Host, daemons: &[&str]) {
    host.write(START, &start_script());
    host.sh(&format!("sh {START} {}", daemons.join(" ")));
}

/// The environment of all of FRR's daemons, as a shell takes it in front of a command.
fn in_front() -> String {
    poisoned().map(|(name, value)| format!("{name}={value}")).join(" ")
}

/// On each node: starts the daemons that it is given.
pub const START: &str = "/run/frr-start";

/// FRR 10's daemons keep their standard error, which nobody would see the end of. Where there is a mgmtd it runs, and first: without it no VRF is taken.
fn start_script() -> String {
    format!(
        "mgmtd=/usr/lib/frr/mgmtd; pid=/run/frr/mgmtd.pid\n\
         [ ! -s $mgmtd ] || kill -0 $(cat $pid 2>/dev/null || echo -) 2>/dev/null || set -- mgmtd \"$@\"\n\
         for daemon; do {} /usr/lib/frr/$daemon -d -A 127.0.0.1 -s 90000000 >>/var/log/frr/start.log 2>&1; done\nvtysh -b\n",
        in_front()
    )
}

impl Host {
    /// As `systemctl stop frr`: returns when both daemons are gone. They come back when the value is dropped.
    pub fn without_frr(&self) -> FrrStopped<'_> {
        self.without_daemons("TERM", &["zebra", "bgpd"])
    }

    /// These daemons die of a signal; as [`Host::without_frr`].
    pub fn without_daemons(&self, signal: &str, daemons: &'static [&'static str]) -> FrrStopped<'_> {
        self.stop_daemons(signal, daemons);
        FrrStopped(self, daemons)
    }

    /// The configuration of all of its daemons, without a vtysh. From FRR 10 on `vrf X / vni N` is mgmtd's.
    pub fn running_config(&self) -> String {
        ["mgmtd", "zebra", "bgpd"].iter().filter_map(|daemon| self.vty(daemon, "show running-config").ok()).collect()
    }

    /// A VRF's L3VNI and BGP instance, taken out as an operator does it. bgpd refuses the second as long as it holds the first: zebra's word of `no vni`
    /// takes a way of its own, and FRR 10.3 and 10.4 put the L3VNI's end off by 20 ms and say "retry the command" (bgp_vty.c `no_router_bgp`).
    pub fn take_out_vrf(&self, vrf: &str, vni: u32) {
        self.sh(&format!("vtysh -c 'configure terminal' -c 'vrf {vrf}' -c 'no vni {vni}'"));
        let instance = format!("no router bgp {HYPERVISOR_AS} vrf {vrf}");
        wait_until(&instance, Duration::from_secs(10), || {
            let told = self.run(&["vtysh", "-c", "configure terminal", "-c", &instance]);
            let words = (told.stdout + &told.stderr).to_lowercase();
            assert!(told.code == 0 || words.contains(&format!("l3vni {vni}")), "{words}");
            told.code == 0
        });
    }

    fn stop_daemons(&self, signal: &str, daemons: &[&str]) {
        let files: Vec<String> = daemons.iter().map(|daemon| format!("/run/frr/{daemon}.pid")).collect();
        self.sh(&format!(
            "pids=$(cat {}); kill -{signal} $pids; for pid in $pids; do tail --pid=$pid -f /dev/null; done",
            files.join(" ")
        ));
    }
}

/// A host whose FRR is down, or some of its daemons.
pub struct FrrStopped<'a>(&'a Host, &'static [&'static str]);

impl FrrStopped<'_> {
    /// As `systemctl start frr`, and back in the fabric.
    pub fn start(self) {}
}

impl Drop for FrrStopped<'_> {
    fn drop(&mut self) {
        // bgpd does not tell a new zebra its old routes: when zebra dies, watchfrr restarts them all (watchfrr.c `phase_check`).
        if self.1 == ["zebra"] {
            self.0.stop_daemons("TERM", &["bgpd"]);
            start_daemons(self.0, &["zebra", "bgpd"]);
        } else {
            start_daemons(self.0, self.1);
        }
        wait_until("the EVPN session after FRR's restart", Duration::from_secs(60), || evpn_established(self.0));
    }
}

/// Whether every EVPN session of the node is up.
pub fn evpn_established(host: &Host) -> bool {
    let Ok(summary) = host.vty("bgpd", "show bgp l2vpn evpn summary json") else { return false };
    let Ok(summary) = serde_json::from_str::<serde_json::Value>(&summary) else { return false };
    let Some(peers) = summary["peers"].as_object() else { return false };
    !peers.is_empty() && peers.values().all(|peer| peer["state"] == "Established")
}

const YANG: &str = "/usr/share/yang";
const PROGRAMS: &[&str] = &["/usr/lib/frr/mgmtd", "/usr/lib/frr/zebra", "/usr/lib/frr/bgpd", "/usr/bin/vtysh"];

/// The whole fabric runs FRR of another Debian suite, in the place of its own, until the value is dropped.
pub struct OtherFrr<'a>(&'a Fabric);

impl<'a> OtherFrr<'a> {
    /// Of one that other.sh has unpacked; FRR 10 or newer, where mgmtd runs, and first.
    pub fn of(fabric: &'a Fabric, suite: &str) -> OtherFrr<'a> {
        let root = project().join(format!("target/lab/frr-{suite}/root"));
        assert!(root.exists(), "FRR of {suite} is not there: tests/lab/other.sh {suite} frr");
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        // Its own loader and libraries, of a newer libc than the host's. A program is known by the name that it is called by.
        let wrapper = format!(
            "#!/bin/sh\ncase $0 in */vtysh) path=usr/bin ;; *) path=usr/lib/frr ;; esac\n\
             exec {0}/usr/lib64/ld-linux-x86-64.so.2 --library-path {1}:{1}/frr {0}/$path/\"${{0##*/}}\" \"$@\"\n",
            root.display(),
            libraries.display()
        );
        // From here on its end puts back what was there.
        let other = OtherFrr(fabric);
        for node in fabric.nodes() {
            stop(node, node.name() == fabric.spine1().name());
            node.write("/run/frr-other", &wrapper);
            let mounts: String = PROGRAMS
                .iter()
                .map(|path| format!("[ -e {path} ] || touch {path}; mount --bind /run/frr-other {path}; "))
                .collect();
            // libyang finds its own modules nowhere else.
            let yang = format!("mkdir -p {YANG}; mount --bind {}{YANG} {YANG}", root.display());
            node.sh(&format!("chmod 755 /run/frr-other; {mounts}{yang}"));
        }
        other.start();
        other
    }

    fn start(&self) {
        for node in self.0.nodes() {
            start_daemons(node, &["zebra", "bgpd"]);
        }
        start_reflector(self.0.spine1(), self.0.nodes()[1..].iter().map(|host| host.number()).max().unwrap_or(0));
        for node in self.0.nodes().split_off(1) {
            wait_until(&format!("{}'s EVPN session", node.name()), Duration::from_secs(60), || evpn_established(node));
        }
    }
}

/// Every daemon of a node, the route reflector on the spine as well.
pub(super) fn stop(node: &Host, is_spine: bool) {
    let reflector = if is_spine { " /run/frr/reflector/bgpd.pid" } else { "" };
    node.sh(&format!(
        "for file in /run/frr/*.pid{reflector}; do [ -e $file ] || continue; pid=$(cat $file); ! kill $pid || tail --pid=$pid -f /dev/null; rm -f $file; done"
    ));
}

impl Drop for OtherFrr<'_> {
    fn drop(&mut self) {
        let back = || {
            // Its daemons end with it; one that ended before it did is this scenario's.
            let died = pulse::died(&self.0.nodes());
            for node in self.0.nodes() {
                stop(node, node.name() == self.0.spine1().name());
                let paths = PROGRAMS.join(" ");
                node.sh(&format!("for path in {YANG} {paths}; do ! mountpoint -q $path || umount $path; done"));
            }
            self.start();
            assert!(died.is_empty(), "{died}");
        };
        // A second panic, in the clearing up after the first, would end all the other tests as well.
        match std::thread::panicking() {
            true => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(back))),
            false => back(),
        }
    }
}
