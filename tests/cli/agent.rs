//! evpn-agent as systemd would run it, on a host of its own: what it says, and what it puts right when somebody else takes it away.

use crate::common::{has_vrf, sh, skip};
use crate::host::{BIN, CONFIG, Host, Run, fdb, finish, neighbours, tap};
use crate::on_a_host;
use crate::xml::{domain, guest, interface};
use evpn_hook::agent::is_running;
use evpn_hook::kernel::Events;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_evpn-agent");
const STATE: &str = "/run/evpn-hook";
const MAC: &str = "52:54:00:03:82:d8";
const PATIENCE: Duration = Duration::from_secs(10);

/// A running agent; killed without warning at the end, as it may be at any time.
pub struct Agent {
    child: Child,
    notify: UnixDatagram,
    /// What it watched when it had looked at everything.
    first: String,
}

impl Agent {
    /// Starts it on the host's configuration, and returns when it has looked at everything.
    pub fn start() -> Agent {
        let _ = std::fs::remove_file("/run/notify");
        let notify = UnixDatagram::bind("/run/notify").unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = agent(&[]).env("NOTIFY_SOCKET", "/run/notify").spawn().unwrap();
        let mut agent = Agent { child, notify, first: String::new() };
        assert_eq!(agent.hears(), "READY=1");
        agent.first = agent.hears();
        agent
    }

    /// The next word to systemd.
    pub fn hears(&self) -> String {
        let mut word = [0; 256];
        let length = self.notify.recv(&mut word).unwrap();
        String::from_utf8(word[..length].to_vec()).unwrap()
    }

    /// Returns when it hears what so many guests say: it tells of them when it listens.
    pub fn listens_to(&self, guests: usize) {
        let word = format!("STATUS=watching 1 networks, {guests} guests");
        while self.hears() != word {}
    }

    /// Does it sleep for a whole second, some time soon? Fresh veths speak IPv6 of their own for some seconds.
    pub fn sleeps(&self) -> bool {
        let quiet_second = || {
            let before = self.naps();
            std::thread::sleep(Duration::from_secs(1));
            self.naps() == before
        };
        (0..20).any(|_| quiet_second())
    }

    /// As kill(1) sends it.
    pub fn signal(&self, name: &str) {
        sh(&format!("kill -{name} {}", self.child.id()));
    }

    /// How often it gave up the processor of its own will.
    pub fn naps(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(AGENT);
    command.args(["--config", "/run/config.toml"]).args(args);
    command
}

/// Returns when it is so: looks again whenever the kernel says that something changed.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let mut events = Events::open().unwrap();
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}\n{}{}{}", fdb(), neighbours(), sh("ip link"));
        let mut fds = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).unwrap();
        while events.next().unwrap().is_some() {}
    }
}

fn has_neighbour() -> bool {
    neighbours().contains("neigh 10.1.0.60 ")
}

fn has_fdb(dev: &str) -> bool {
    fdb().contains(&format!("fdb {MAC} dev {dev}\n"))
}

fn is_up(dev: &str) -> bool {
    crate::common::ip_link(dev)["flags"].as_array().unwrap().contains(&"UP".into())
}

/// One guest on network `flat`, attached by hand to `tap0`.
fn with_guest() -> Host {
    let host = Host::flat();
    tap("tap0");
    host.run(&["attach", "tap0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60"]).status_is(0);
    host
}

impl Run {
    #[track_caller]
    fn status_is(self, status: i32) -> Run {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

on_a_host!(it_says_that_it_is_ready_and_what_it_watches, {
    let host = Host::flat();
    let agent = Agent::start();
    assert_eq!(agent.first, "STATUS=watching 1 networks, 0 guests");
    tap("tap0");
    host.run(&["attach", "tap0", "--network", "flat", "--mac", MAC]).status_is(0);
    assert_eq!(agent.hears(), "STATUS=watching 1 networks, 1 guests");
    host.run(&["detach", "tap0"]).ok();
    assert_eq!(agent.hears(), "STATUS=watching 1 networks, 0 guests");
    host.run(&["network", "down", "flat"]).ok();
    assert_eq!(agent.hears(), "STATUS=watching 0 networks, 0 guests");
});

on_a_host!(there_is_one_agent_a_host, {
    Host::flat();
    assert!(!is_running(Path::new(STATE)));
    let first = Agent::start();
    assert!(is_running(Path::new(STATE)));
    let second = finish(agent(&[]), b"");
    assert_eq!((second.status, second.stdout.as_str()), (1, ""));
    assert_eq!(
        second.stderr,
        "evpn-agent: an agent runs already on this state directory: 'systemctl status evpn-agent'\n"
    );
    let _elsewhere = finish(agent(&["--nonsense"]), b"").status_is(2);
    drop(first);
    assert!(!is_running(Path::new(STATE)), "a killed one is none");
    let _next = Agent::start();
});

on_a_host!(it_refuses_a_broken_configuration_and_starts_on_an_empty_host, {
    Host::new("[speaker]\nkind = \"gossip\"\n");
    let run = finish(agent(&[]), b"").status_is(2);
    assert!(run.stderr.starts_with("evpn-agent: /run/config.toml") && run.stderr.lines().count() == 1, "{run:?}");
    std::fs::write("/run/config.toml", "[speaker]\nkind = \"none\"\n").unwrap();
    let agent = Agent::start();
    assert_eq!(agent.first, "STATUS=watching 0 networks, 0 guests");
    std::fs::write("/run/config.toml", CONFIG).unwrap();
    Host.run(&["network", "up", "flat"]).ok();
    assert_eq!(agent.hears(), "STATUS=watching 1 networks, 0 guests");
});

on_a_host!(an_idle_agent_sleeps, {
    with_guest();
    let agent = Agent::start();
    assert!(agent.sleeps(), "it wakes up though nothing happens");
});

on_a_host!(what_is_deleted_by_hand_comes_back, {
    with_guest();
    let _agent = Agent::start();
    sh("ip neigh del 10.1.0.60 dev flat-l2");
    until("the neighbour", has_neighbour);
    sh(&format!("bridge fdb del {MAC} dev tap0 master"));
    until("the FDB entry", || has_fdb("tap0"));
    sh("ip link set tap0 nomaster");
    until("the tap on its bridge", || has_fdb("tap0") && has_neighbour());
    sh("ip link set vxlan20 down");
    until("the VXLAN device", || is_up("vxlan20"));
    sh("ip address del 10.1.0.1/24 dev flat-l2");
    until("the gateway", || sh("ip -4 address show dev flat-l2").contains("10.1.0.1/24"));
});

/// What keeps tenants apart is never away for longer.
#[track_caller]
fn is_back_soon(damage: &str, broken: Instant) {
    let took = broken.elapsed();
    eprintln!("{damage}: back after {took:?}");
    assert!(took < Duration::from_secs(5), "{damage}: {took:?}");
}

// agent.md 5: it is put up once, and was never watched.
on_a_host!(what_keeps_a_layer_2_tenant_apart_comes_back, {
    let host = Host::new(CONFIG);
    host.run(&["network", "up", "other"]).ok();
    let whole = || host.run(&["network", "up", "other", "--dry-run"]).stdout == "nothing to do\n";
    for damage in [
        "tc qdisc del dev other-l2 clsact",
        "tc filter del dev other-l2 ingress prio 69",
        "sysctl -qw net.ipv4.conf.other-l2.arp_ignore=0",
        "sysctl -qw net.ipv6.conf.other-l2.accept_ra=1",
        "sysctl -qw net.ipv6.conf.all.accept_ra=1 net.ipv6.conf.other-l2.accept_ra=1 net.ipv4.conf.other-l2.arp_ignore=0",
    ] {
        let lacks = host.run(&["network", "up", "other", "--dry-run"]).stdout;
        assert_eq!(lacks, "nothing to do\n", "before {damage}");
        // Each time anew: it waits longer with each repair.
        let _agent = Agent::start();
        sh(damage);
        let broken = Instant::now();
        until(damage, whole);
        is_back_soon(damage, broken);
    }
    // Made anew it has other files below /proc/sys.
    let agent = Agent::start();
    sh("ip link del other-l2");
    until("the bridge", whole);
    sh("sysctl -qw net.ipv4.conf.other-l2.arp_ignore=0");
    until("a new bridge's setting", whole);
    assert!(agent.sleeps(), "it wakes up though nothing happens");
});

// agent.md 3 and 5, hook.md 1, field F01.
on_a_host!(what_keeps_a_routed_tenant_apart_comes_back, {
    if !has_vrf() {
        return skip("what_keeps_a_routed_tenant_apart_comes_back", "this kernel has no VRF");
    }
    let host = Host::new(CONFIG);
    assert_eq!(host.run(&["network", "up", "routed"]).status, 0);
    let mut agent = Agent::start();
    let rules = sh("ip -d rule; ip -6 -d rule");
    let whole = || {
        host.run(&["network", "up", "routed", "--dry-run"]).stdout == "nothing to do\n"
            && sh("ip -d rule; ip -6 -d rule") == rules
    };
    for damage in [
        "ip rule del pref 0 table local",
        "ip rule del pref 0 table local; ip -6 rule del pref 0 table local",
        "ip rule del pref 0 l3mdev; ip rule del pref 0 l3mdev",
        "ip -6 rule del pref 0 l3mdev",
        "ip route del unreachable default metric 4278198272 table 10",
        "ip -6 route del unreachable default metric 4278198272 table 10",
        "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
        "sysctl -qw net.ipv4.conf.red-l3.rp_filter=0",
        "tc qdisc del dev red-l2 clsact",
    ] {
        until(&format!("all, before {damage}"), whole);
        // Again and again: no patience where the host's own addresses are gone. With a network's there is, which grows with each repair.
        let is_hosts = damage.contains("rule") || damage.contains("forward");
        if !is_hosts {
            drop(agent);
            agent = Agent::start();
        }
        for _ in 0..if is_hosts { 3 } else { 1 } {
            sh(damage);
            let broken = Instant::now();
            until(damage, whole);
            is_back_soon(damage, broken);
        }
    }
    assert!(agent.sleeps(), "it wakes up though nothing happens");
    // A million routes of others wake nobody.
    let naps = agent.naps();
    sh("ip link add up0 type dummy && ip link set up0 up");
    sh(
        "for a in 1 2 3 4; do for n in $(seq 250); do echo route add 198.18.$a.$n/32 dev up0 proto bgp; done; done | ip -batch -",
    );
    sh("ip route flush root 198.18.0.0/16");
    assert!(agent.naps() - naps < 50, "{}", agent.naps() - naps);
});

// libvirt moves the tap first and says so last.
on_a_host!(a_tap_on_another_bridge_is_given_a_second, {
    with_guest();
    sh("ip link add other type bridge && ip link set other up");
    let _agent = Agent::start();
    sh("ip link set tap0 master other");
    let moved = Instant::now();
    until("the tap on its bridge", || has_fdb("tap0"));
    assert!(moved.elapsed() > Duration::from_millis(900), "{:?}", moved.elapsed());
});

on_a_host!(config_toml_is_read_anew_and_a_broken_one_is_not_believed, {
    let host = Host::flat();
    let _agent = Agent::start();
    let port = |port: u32| sh("ip -d link show vxlan20").contains(&format!("dstport {port} "));
    assert!(port(4789));
    let was = std::fs::read_to_string("/run/config.toml").unwrap();
    std::fs::write("/run/config.toml", "nonsense").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    sh("ip link set vxlan20 down");
    until("the VXLAN device", || is_up("vxlan20"));
    std::fs::write("/run/config.new", format!("{was}[vtep]\nport = 8472\n")).unwrap();
    std::fs::rename("/run/config.new", "/run/config.toml").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    host.run(&["network", "down", "flat"]).ok();
    host.run(&["network", "up", "flat"]).ok();
    sh("ip link set vxlan20 down");
    until("the VXLAN device", || is_up("vxlan20"));
    std::thread::sleep(Duration::from_secs(2));
    assert!(port(8472));
});

on_a_host!(what_is_broken_before_it_starts_is_mended_when_it_says_what_it_watches, {
    with_guest();
    sh("ip neigh del 10.1.0.60 dev flat-l2; ip link set vxlan20 down");
    let _agent = Agent::start();
    assert!(has_neighbour() && is_up("vxlan20"));
});

on_a_host!(a_tap_that_goes_takes_its_neighbours_with_it, {
    with_guest();
    let agent = Agent::start();
    assert_eq!(agent.first, "STATUS=watching 1 networks, 1 guests");
    sh("ip link del tap0");
    until("no neighbour", || !has_neighbour());
    assert_eq!(agent.hears(), "STATUS=watching 1 networks, 0 guests");
    assert!(!Path::new("/run/evpn-hook/guests/manual-tap0.json").exists());
});

on_a_host!(anothers_claim_stands_a_second_and_is_answered_then, {
    with_guest();
    let _agent = Agent::start();
    let claim = || {
        // As FRR does it when another VTEP advertises the guest.
        sh(&format!("bridge fdb replace {MAC} dev vxlan20 master extern_learn"));
        sh(&format!("ip neigh replace 10.1.0.60 lladdr {MAC} dev flat-l2 nud noarp extern_learn proto zebra"));
        Instant::now()
    };
    let claimed = claim();
    until("the guest's own entries", || has_fdb("tap0") && has_neighbour());
    assert!(claimed.elapsed() > Duration::from_millis(900), "{:?}", claimed.elapsed());
});

/// What libvirt writes of a domain.
fn status_file(number: u32, state: &str, domain: &str) {
    std::fs::create_dir_all("/run/libvirt/qemu").unwrap();
    let path = format!("/run/libvirt/qemu/vm{number}.xml");
    std::fs::write(format!("{path}.new"), format!("<domstatus {state} pid='1'>\n{domain}</domstatus>\n")).unwrap();
    std::fs::rename(format!("{path}.new"), path).unwrap();
}

const MOVING: &str = "state='paused' reason='migration'";
const RUNNING: &str = "state='running' reason='migrated'";

/// All that becomes of the bridges' FDBs.
struct FdbMonitor(Child);

impl FdbMonitor {
    const FILE: &str = "/run/fdb-monitor";

    fn start() -> FdbMonitor {
        let file = std::fs::File::create(Self::FILE).unwrap();
        FdbMonitor(Command::new("bridge").args(["monitor", "fdb"]).stdout(file).spawn().unwrap())
    }

    fn said() -> String {
        std::fs::read_to_string(Self::FILE).unwrap()
    }
}

impl Drop for FdbMonitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guest whose memory is still on its way here: what the hooks do on a migration's target.
fn incoming() -> (Host, String) {
    let host = Host::flat();
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 up");
    let xml = domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"));
    for op in ["migrate", "start"] {
        host.hook(&["qemu", "vm1", op, "begin", "-"], &xml).ok();
    }
    assert!(!has_fdb("vnet0") && !has_neighbour());
    (host, xml)
}

on_a_host!(an_arrival_is_registered_when_libvirt_says_so, {
    let (host, xml) = incoming();
    let _agent = Agent::start();
    status_file(1, MOVING, &xml);
    status_file(1, RUNNING, &xml);
    until("the guest's entries", || has_fdb("vnet0") && has_neighbour());
    // FRR is late with the source's routes: taken back at once.
    sh(&format!("bridge fdb replace {MAC} dev vxlan20 master extern_learn"));
    let taken = Instant::now();
    until("the entry again", || has_fdb("vnet0"));
    assert!(taken.elapsed() < Duration::from_millis(900), "{:?}", taken.elapsed());
    std::fs::remove_file("/run/libvirt/qemu/vm1.xml").unwrap();
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], &xml).ok();
    assert!(!has_fdb("vnet0") && !has_neighbour());
});

// libvirt tells the target's QEMU to end, and says `shutdown` of it until it has.
on_a_host!(a_guest_whose_migration_fails_is_never_registered, {
    let (host, xml) = incoming();
    let _monitor = FdbMonitor::start();
    let _agent = Agent::start();
    status_file(1, MOVING, &xml);
    status_file(1, "state='shutdown' reason='unknown'", &xml);
    host.run(&["sync"]).ok();
    // What comes behind it has been dealt with: so has that.
    let other = "52:54:00:00:00:77";
    tap("vnet1");
    sh("ip link set vnet1 master flat-l2 up");
    status_file(2, RUNNING, &domain(2, &guest(other, None, &["10.1.0.77"]), &interface(other, "vnet1", "flat-l2")));
    until("another guest", || FdbMonitor::said().contains(other));
    assert!(!FdbMonitor::said().contains(MAC), "{}", FdbMonitor::said());
});

on_a_host!(an_arrival_is_registered_when_its_tap_hears_it, {
    let (_, xml) = incoming();
    status_file(1, MOVING, &xml);
    let _agent = Agent::start();
    assert!(!has_fdb("vnet0"), "not before it is here");
    sh(&format!("bridge fdb add {MAC} dev vnet0 master dynamic"));
    until("the guest's entries", || has_fdb("vnet0") && has_neighbour());
});

// As `virsh update-device` does it.
on_a_host!(a_guest_that_libvirt_puts_on_another_bridge_stays_there, {
    let host = Host::flat();
    sh("ip link add blue type bridge && ip link set blue up");
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 up");
    let on = |bridge| domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", bridge));
    status_file(1, RUNNING, &on("flat-l2"));
    host.hook(&["qemu", "vm1", "started", "begin", "-"], on("flat-l2")).ok();
    let _agent = Agent::start();
    until("the guest's entries", || has_fdb("vnet0") && has_neighbour());
    sh("ip link set vnet0 master blue");
    std::thread::sleep(Duration::from_millis(300));
    status_file(1, RUNNING, &on("blue"));
    until("no neighbour", || !has_neighbour());
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(crate::common::ip_link("vnet0")["master"], "blue");
});

on_a_host!(a_guest_that_ran_without_its_network_is_registered_when_it_comes, {
    let host = Host::flat();
    host.run(&["network", "down", "flat"]).ok();
    sh("ip link add flat-l2 type bridge && ip link set flat-l2 up");
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2 up");
    let xml = domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"));
    status_file(1, RUNNING, &xml);
    let agent = Agent::start();
    assert_eq!(agent.first, "STATUS=watching 0 networks, 0 guests");
    host.run(&["network", "up", "flat"]).ok();
    until("the guest's entries", || has_fdb("vnet0") && has_neighbour());
});

fn arrive() -> Child {
    let id = "11111111-2222-3333-4444-000000000001";
    let mut command = Command::new(BIN);
    command.args(["--config", "/run/config.toml", "arrive", "--guest-id", id]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// It has said nothing and ended well.
fn ended(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

on_a_host!(without_an_agent_one_guest_is_waited_for, {
    let (_, xml) = incoming();
    status_file(1, MOVING, &xml);
    let waiting = arrive();
    // Whichever comes first, its look or this: both are seen.
    sh(&format!("bridge fdb add {MAC} dev vnet0 master dynamic"));
    until("the guest's entries", || has_fdb("vnet0") && has_neighbour());
    status_file(1, RUNNING, &xml);
    sh("ip neigh del 10.1.0.60 dev flat-l2");
    until("the neighbour", has_neighbour);
    let since = Instant::now();
    ended(waiting);
    assert!(since.elapsed() > Duration::from_secs(4), "it stays for a while: {:?}", since.elapsed());
});

on_a_host!(who_waits_for_a_guest_that_does_not_come_goes, {
    let (host, xml) = incoming();
    status_file(1, MOVING, &xml);
    let waiting = arrive();
    host.hook(&["qemu", "vm1", "stopped", "end", "-"], &xml).ok();
    ended(waiting);
    ended(arrive());

    for op in ["migrate", "start"] {
        host.hook(&["qemu", "vm1", op, "begin", "-"], &xml).ok();
    }
    let waiting = arrive();
    sh("ip link del vnet0");
    ended(waiting);
});

// A look in between would make what the hook is about to make, or put back what it has just taken away.
on_a_host!(networks_and_guests_come_and_go_under_its_eyes, {
    let host = Host::new(CONFIG);
    tap("tap0");
    let agent = Agent::start();
    let before = crate::host::snapshot();
    for _ in 0..10 {
        host.run(&["network", "up", "flat"]).ok();
        host.run(&["attach", "tap0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60"]).status_is(0);
        host.run(&["detach", "tap0"]).ok();
        host.run(&["network", "down", "flat"]).ok();
    }
    // What it still wanted to look at it has looked at by then.
    assert!(agent.sleeps());
    let left = |text: String| text.lines().filter(|l| !l.contains("tap0")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(left(crate::host::snapshot()), left(before));
});
