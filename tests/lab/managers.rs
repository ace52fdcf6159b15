//! What else manages a host's network: systemd-networkd and NetworkManager start, start again, read their files anew, see a NIC come, and a tenant. What
//! is ours has to stay as it is, and nobody may notice. With and without an agent.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::fabric::{Agent, Container, Host, Pinger, wait_until};
use crate::tenant::{BLUE, BLUE_XML, Configured, GREEN, Network, Red, SOON, container_on, joined};

const PACE: Duration = Duration::from_millis(20);
/// Some pings are lost to a busy machine; a host without table local, or a tenant without its VRF, is longer without.
const LONGEST: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manager {
    Networkd,
    NetworkManager,
}

/// One that runs on a node, with a message bus and udev. A node's root is no first process' one: systemd 257's networkctl takes it for a chroot and does nothing,
/// successfully, unless told otherwise. Its NICs are called eth: Debian's rules keep NetworkManager off every other veth.
struct Running<'a> {
    host: &'a Host,
    manager: Manager,
    children: Vec<Child>,
}

impl<'a> Running<'a> {
    fn start(host: &'a Host, manager: Manager) -> Running<'a> {
        host.sh("mkdir -p /run/dbus /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/network /run/NetworkManager
            chown -R systemd-network: /run/systemd/netif
            ip link add eth0 type veth peer name eth0-far; ip link set eth0-far up");
        for nic in ["eth0", "eth1"] {
            let number = &nic[3..];
            host.write(
                &format!("/run/systemd/network/10-{nic}.network"),
                &format!("[Match]\nName={nic}\n[Network]\nAddress=192.0.2.1{number}/24\nIPv6AcceptRA=no\n[RoutingPolicyRule]\nFrom=192.0.2.1{number}\nTable=77\nPriority=300\n"),
            );
            host.write(
                &format!("/etc/NetworkManager/system-connections/{nic}.nmconnection"),
                &format!("[connection]\nid={nic}\ntype=ethernet\ninterface-name={nic}\n[ipv4]\nmethod=manual\naddresses=192.0.2.1{number}/24\nrouting-rule1=priority 300 from 192.0.2.1{number} table 77\n[ipv6]\nmethod=link-local\n"),
            );
        }
        host.write(
            "/etc/NetworkManager/NetworkManager.conf",
            "[main]\nplugins=keyfile\nno-auto-default=*\ndns=none\nhostname-mode=none\n",
        );
        host.sh("chmod 600 /etc/NetworkManager/system-connections/*");
        let bus = daemon(host, "dbus", "exec dbus-daemon --system --nofork --nopidfile");
        let mut running = Running { host, manager, children: vec![bus] };
        wait_until("the message bus", SOON, || host.run(&["test", "-S", "/run/dbus/system_bus_socket"]).code == 0);
        running.children.push(daemon(host, "udevd", "exec /usr/lib/systemd/systemd-udevd"));
        wait_until("udev", SOON, || host.run(&["test", "-S", "/run/udev/control"]).code == 0);
        // `add` would give the cables other MACs (MACAddressPolicy=persistent).
        host.sh(
            "export SYSTEMD_IGNORE_CHROOT=1; udevadm trigger --action=change --subsystem-match=net; udevadm settle",
        );
        running.launch();
        running.configured("eth0");
        running
    }

    fn launch(&mut self) {
        let line = match self.manager {
            Manager::Networkd => "exec /lib/systemd/systemd-networkd",
            Manager::NetworkManager => "exec NetworkManager --no-daemon",
        };
        self.children.push(daemon(self.host, "manager", line));
    }

    fn configured(&self, nic: &str) {
        let address = format!("192.0.2.1{}/24", &nic[3..]);
        wait_until(&format!("{:?} to configure {nic}", self.manager), SOON, || {
            self.host.run(&["ip", "-4", "address", "show", "dev", nic]).stdout.contains(&address)
                && self.host.sh("ip rule").contains("lookup 77")
        });
    }

    /// As its owner does it, or an upgrade, or `netplan apply`.
    fn restart(&mut self) {
        let mut old = self.children.pop().expect("it runs");
        self.host.sh(&format!("kill {}", old.id()));
        old.wait().expect("it ends");
        self.launch();
        // It has read the kernel's state once it answers.
        let ask = match self.manager {
            Manager::Networkd => "SYSTEMD_IGNORE_CHROOT=1 networkctl --no-pager list",
            Manager::NetworkManager => "nmcli device",
        };
        wait_until(&format!("{:?} to answer", self.manager), SOON, || {
            let answer = self.host.run(&["sh", "-c", ask]);
            answer.code == 0
                && answer
                    .stdout
                    .lines()
                    .any(|l| l.contains("eth0") && (l.contains("configured") || l.contains("connected")))
        });
        self.configured("eth0");
    }

    fn reconfigure(&self) {
        self.host.sh(match self.manager {
            Manager::Networkd => "sed -i 's/300/301/' /run/systemd/network/10-eth0.network; SYSTEMD_IGNORE_CHROOT=1 networkctl reload; SYSTEMD_IGNORE_CHROOT=1 networkctl reconfigure eth0",
            Manager::NetworkManager => "sed -i 's/300/301/' /etc/NetworkManager/system-connections/eth0.nmconnection
                nmcli general reload; nmcli connection reload; nmcli connection up eth0; nmcli device reapply eth0",
        });
        wait_until(&format!("{:?} to read its file anew", self.manager), SOON, || {
            self.host.sh("ip rule").contains("301:")
        });
        self.configured("eth0");
    }

    /// It knows these devices, and that they are not for it.
    fn lets_alone(&self, devices: &[&str]) {
        let ask = match self.manager {
            Manager::Networkd => {
                "SYSTEMD_IGNORE_CHROOT=1 networkctl --no-pager --no-legend list | awk '{print $2 \":\" $5}'"
            }
            Manager::NetworkManager => "nmcli -t -f DEVICE,STATE device",
        };
        wait_until(&format!("{:?} to let {devices:?} alone", self.manager), SOON, || {
            let told = self.host.sh(ask);
            match devices.iter().all(|dev| told.lines().any(|line| line == format!("{dev}:unmanaged"))) {
                true => Ok(()),
                false => Err(told),
            }
        });
    }

    fn a_nic_comes(&self) {
        self.host.sh("ip link add eth1 type veth peer name eth1-far; ip link set eth1-far up");
        self.configured("eth1");
    }
}

fn daemon(host: &Host, name: &str, line: &str) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(host.path(&format!("/var/log/{name}.log")))
        .expect("a log");
    let mut command = host.command(&["unshare", "--mount", "--", "sh", "-euc", line]);
    command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts")
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.host.run(&[
            "sh",
            "-c",
            "ip link del eth0; ip link del eth1; rm -rf /run/systemd /run/dbus /run/udev /run/NetworkManager /etc/NetworkManager
             while ip rule del table 77; do :; done 2>/dev/null",
        ]);
    }
}

/// What is ours of the host, and what tenants have: red and green, and blue while it is there.
fn ours(host: &Host) -> String {
    host.sh("for ip in 'ip -4' 'ip -6'; do $ip -d rule | grep -v 'lookup 77'
                for table in 10 30 50; do $ip route show table $table | sed 's/ nhid [0-9]*//; s/ *$//' | grep -v fe80 | sort; done; done
             for dev in red-l2 red-l3 green-l2 vxlan20 vxlan10 red green blue-l2 blue-l3 vxlan50 blue; do
                [ -e /sys/class/net/$dev ] || continue
                ip -d -o link show dev $dev | grep -o 'master [^ ]*\\|state UP' | sed \"s/^/$dev /\"
                ip -4 -br address show dev $dev; ip -6 -br address show dev $dev
                (cd /proc/sys/net; grep . ipv4/conf/$dev/{forwarding,arp_ignore,rp_filter} ipv6/conf/$dev/{forwarding,accept_ra,disable_ipv6}); done
             ip address show dev lo | grep -o '10[^ ]*'; sysctl net.ipv4.ip_forward")
}

/// What differs.
fn same(now: &str, before: &str, what: &str) {
    let lines = |text: &'_ str, other: &str, sign: char| -> String {
        text.lines().filter(|line| !other.lines().any(|o| o == *line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    assert!(now == before, "{what}\n{}{}", lines(before, now, '-'), lines(now, before, '+'));
}

/// The longest time without an answer.
fn longest(answered: impl IntoIterator<Item = Instant>, until: Instant) -> Duration {
    let times: Vec<Instant> = answered.into_iter().chain([until]).collect();
    times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or_default()
}

/// The host asks itself whether it has its own address, as long as this lives.
struct Itself<'a> {
    host: &'a Host,
    child: Child,
}

impl<'a> Itself<'a> {
    fn start(host: &'a Host) -> Itself<'a> {
        host.sh("rm -f /run/itself");
        let line = format!("exec ping -D -i 0.02 -I {0} {0} >/run/itself 2>&1", host.address());
        let child = host.command(&["sh", "-c", &line]).spawn().expect("ping starts");
        Itself { host, child }
    }

    /// Seconds between two answers, at most.
    fn longest(&self) -> f64 {
        let text = self.host.sh("date +[%s.%N] >>/run/itself; cat /run/itself");
        let times = text
            .lines()
            .filter(|line| !line.contains("Unreachable"))
            .filter_map(|line| line.strip_prefix('[')?.split_once(']')?.0.parse::<f64>().ok());
        let times: Vec<f64> = times.collect();
        assert!(times.len() > 20, "{text}");
        times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }
}

impl Drop for Itself<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Blue, in one of its forms, is let alone from the beginning.
fn a_tenant_comes<T>(running: &Running, up: impl FnOnce() -> T) -> T {
    let tenant = up();
    let before = ours(running.host);
    assert!(before.contains("local 10.1.0.1 dev blue-l2"), "{before}");
    running.lets_alone(&["blue", "blue-l2", "blue-l3", "vxlan50", "vxlan51"]);
    same(&ours(running.host), &before, &format!("{:?}, a tenant that comes", running.manager));
    tenant
}

fn stays(red: &Red, guests: &[(Container, &str)], manager: Manager, agent: bool) {
    let host = red.comp1;
    let before = ours(host);
    let _agent = agent.then(|| Agent::start(host));
    let mut running = Running::start(host, manager);
    same(&ours(host), &before, &format!("{manager:?}, its first start, agent {agent}"));
    let pingers: Vec<Pinger> =
        guests.iter().map(|(from, to)| Pinger::start(from, to.parse().expect("an address"), PACE)).collect();
    let itself = Itself::start(host);
    for pinger in &pingers {
        wait_until("the first answers", SOON, || pinger.answered() > 20);
    }
    let began = Instant::now();
    a_tenant_comes(&running, || Configured::up(host, &[BLUE]));
    let _blue = a_tenant_comes(&running, || Network::start_xml(host, "blue", BLUE_XML));
    let before = ours(host);
    type Act = fn(&mut Running);
    let acts: [(&str, Act); 4] = [
        ("restart", |running| running.restart()),
        ("reconfiguration", |running| running.reconfigure()),
        ("a NIC that comes", |running| running.a_nic_comes()),
        ("restart with it", |running| running.restart()),
    ];
    for (what, act) in acts {
        act(&mut running);
        same(&ours(host), &before, &format!("{manager:?}, {what}, agent {agent}"));
    }
    // What was sent last has its answer.
    let counts: Vec<usize> = pingers.iter().map(Pinger::answered).collect();
    for (pinger, count) in pingers.iter().zip(counts) {
        wait_until("answers at the end", SOON, || pinger.answered() > count + 5);
    }
    let until = Instant::now();
    let tenants: Vec<Duration> = pingers
        .iter()
        .map(|pinger| {
            let answered = pinger.pings().into_iter().filter(|ping| ping.rtt.is_some() && ping.sent >= began);
            longest(answered.map(|ping| ping.sent), until)
        })
        .collect();
    let own = itself.longest();
    println!(
        "{manager:?}, agent {agent}: longest without an answer: the host's own address {own:.3} s, tenants {tenants:.3?}"
    );
    assert!(own < LONGEST.as_secs_f64() && tenants.iter().all(|time| *time < LONGEST), "{own} {tenants:?}");
}

lab_test! {
    /// hook.md 1, agent.md 3, field F01, F41.
    fn network_managers_leave_what_is_ours(fabric) {
        let red = Red::and(fabric, &[GREEN]);
        let _green = Network::shipped(red.comp1, "green");
        joined(fabric, 40);
        let guest = |host, name, tenant, number: u8, ip| {
            Container::start(host, name, &container_on(tenant, &format!("00:16:3e:02:00:{number:02x}"), Some(ip)))
        };
        let (_r2, _g2) = (guest(red.comp2, "r2", "red", 2, "10.1.0.12"), guest(red.comp2, "g2", "green", 4, "10.2.0.22"));
        let guests = [
            (guest(red.comp1, "r1", "red", 1, "10.1.0.11"), "10.1.0.12"),
            (guest(red.comp1, "g1", "green", 3, "10.2.0.21"), "10.2.0.22"),
        ];
        for manager in [Manager::NetworkManager, Manager::Networkd] {
            for agent in [false, true] {
                stays(&red, &guests, manager, agent);
            }
        }
    }
}

lab_test! {
    /// Where udev has no rule for it, what `doctor` says mends it.
    fn doctor_tells_what_networkmanager_runs(fabric) {
        const RULES: &str = "/usr/lib/udev/rules.d/85-evpn-hook.rules";
        let red = Red::up(fabric);
        let host = red.comp2;
        let before = ours(host);
        host.sh(&format!("mv {RULES} /run/rules"));
        let running = Running::start(host, Manager::NetworkManager);
        // 1.52 takes them for what it is to manage as well, but does nothing to them.
        if host.sh("NetworkManager --version").starts_with("1.42.") {
            wait_until("a gateway to be lost", SOON, || !ours(host).contains("local 10.1.0.1"));
        }
        let mut mend = None;
        wait_until("doctor to tell", SOON, || {
            mend = mend_of(host);
            mend.is_some()
        });
        let mend = mend.expect("doctor tells");
        let [section, line, reload, sync] = mend.split('\'').skip(1).step_by(2).collect::<Vec<_>>()[..] else {
            panic!("{mend}")
        };
        host.write("/etc/NetworkManager/conf.d/evpn-hook.conf", &format!("{section}\n{line}\n"));
        host.sh(reload);
        running.lets_alone(&["red", "red-l2", "red-l3", "vxlan10", "vxlan20"]);
        host.sh(sync);
        // Link-local addresses, which it let the kernel make, are not told from anybody's.
        let but_link_local = |text: &str| text.lines().filter(|line| !line.contains(" fe80")).collect::<Vec<_>>().join("\n");
        same(&but_link_local(&ours(host)), &but_link_local(&before), "mended");
        assert_eq!(mend_of(host), None);
        host.sh(&format!("mv /run/rules {RULES}"));
    }
}

fn mend_of(host: &Host) -> Option<String> {
    let told = host.run(&["evpn-hook", "--json", "doctor"]).stdout;
    let report: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let found = report["findings"].as_array()?.iter().find(|found| found["check"] == "networkmanager")?.clone();
    Some(found["mend"].as_str()?.to_owned())
}
