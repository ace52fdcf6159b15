//! The packages as a stranger meets them: docs/quickstart.md from its first command to its last, on hosts that never had
//! evpn-hook; between its guests and its end a VM, an upgrade and a removal that must not happen.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Instant;
use std::{fs, io};

use crate::containers::Alice;
use crate::fabric::{Container, Host, Nic, Stranger, Vm, VmSpec, wait_until};
use crate::tenant::{
    Configured, GREEN, Network, RED, SOON, container_on, endpoint_status, expect_advertised, known, knows,
    network_status, remembers,
};

const PAGE: &str = include_str!("../../docs/quickstart.md");

const WEB: [&str; 2] = ["52:54:00:03:82:d8", "10.1.0.60"];
const VM: [&str; 2] = ["52:54:00:00:00:61", "10.1.0.61"];

/// Its addresses nobody knows: it comes with its MAC alone.
const PLUGGED: &str = "52:54:00:0a:00:01";
const HELD: &str = "52:54:00:0a:00:02";
const SECURED: &str = "[[network]]\nname = 'held'\nbridge = 'held'\nvni = 60\nport_security = 'mac-ip'\n";
const USERS: [&str; 2] = ["00:16:3e:00:00:10", "10.1.0.38"];

/// Where the page's commands are typed: the packages have been copied there.
const DIRECTORY: &str = "/tmp";

/// The commands below one heading of the page, each with the host whose prompt it has.
fn section(title: &str) -> Vec<(&'static str, &'static str)> {
    let mut sections = PAGE.split("\n## ");
    let text = sections.find(|text| text.lines().next() == Some(title));
    let lines = text.unwrap_or_else(|| panic!("the page has no section {title:?}")).lines();
    let commands = lines.filter_map(|line| line.strip_prefix("    ")?.split_once("# "));
    commands.filter(|(prompt, _)| ["build", "both", "host1", "host2"].contains(prompt)).collect()
}

/// Types what a section says, and nothing else.
fn follow(hosts: &[Stranger; 2], title: &str) {
    let commands = section(title);
    assert!(!commands.is_empty(), "{title:?} has no commands");
    for (prompt, command) in commands {
        let on: &[Stranger] = match prompt {
            // Done before the lab started: there is no cargo inside.
            "build" if command == "make deb" => &[],
            "both" => hosts,
            "host1" => &hosts[..1],
            "host2" => &hosts[1..],
            _ => panic!("{prompt}# {command}: only 'make deb' is run there"),
        };
        for host in on {
            eprintln!("{}# {command}", host.host().name());
            eprint!("{}", host.sh(&format!("cd {DIRECTORY}; {command}")));
        }
    }
}

/// The packages' files as `make deb` left them.
fn packages(host: &Host) -> String {
    let project = std::env::var("EVPN_LAB_PROJECT").expect("EVPN_LAB_PROJECT is set in the lab machine");
    host.sh(&format!("cp {project}/target/deb/*.deb {DIRECTORY}; cd {DIRECTORY}; ls evpn-*.deb"))
}

/// The same packages with a higher version.
fn newer(host: &Host) -> String {
    host.sh(&format!(
        "cd {DIRECTORY}
         for package in evpn-hook evpn-agent; do
             dpkg-deb --raw-extract $package\\_*.deb next
             version=$(sed -n 's/^Version: //p' next/DEBIAN/control)
             sed -i \"s/$version/$version+next/\" next/DEBIAN/control
             dpkg-deb --root-owner-group -Zgzip -z1 --build next $package-next.deb >&2
             rm -r next
         done
         ls -d $PWD/evpn-*-next.deb | xargs"
    ))
    .trim()
    .to_owned()
}

fn versions(host: &Host) -> String {
    host.sh("dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' 'evpn-*' 2>/dev/null || true")
}

/// What installing may have left on a host: files that the machine below does not have, and such of its files as are gone;
/// settings of the whole host.
#[derive(PartialEq, Eq, Debug)]
struct Holds(BTreeSet<String>);

/// What package managers, hypervisors and FRR keep of what once was. FRR 10's mgmtd has the last ten changes of the configuration, whoever made them
/// (mgmt_history.c), vtysh an empty history for whoever calls it.
const OTHERS: [&str; 9] = [
    "var/lib/dpkg",
    "var/log",
    "var/cache",
    "var/lib/apt",
    "var/lib/libvirt",
    "etc/libvirt/qemu",
    "tmp",
    "var/lib/frr",
    "root/.history_frr",
];

impl Holds {
    fn of(host: &Host) -> Holds {
        let mut found = BTreeSet::new();
        walk(host, Path::new(""), &mut found).expect("the node's own files");
        found.retain(|path| !OTHERS.iter().any(|other| path.starts_with(other)));
        let settings = host.sh(
            "(ip rule; ip -6 rule) | grep -v 'l3mdev-table. *$'; sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding; ls -d /run/evpn-hook 2>/dev/null || true",
        );
        found.extend(settings.lines().map(str::to_owned));
        Holds(found)
    }

    fn differences(&self, now: &Holds) -> Vec<String> {
        let gone = self.0.difference(&now.0).map(|line| format!("- {line}"));
        gone.chain(now.0.difference(&self.0).map(|line| format!("+ {line}"))).collect()
    }
}

/// The overlay's own part: what is new there, and the marks of what is gone (overlayfs: a character device 0/0).
fn walk(host: &Host, path: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(host.written().join(path))? {
        let entry = entry?;
        let (path, kind) = (path.join(entry.file_name()), entry.file_type()?);
        if kind.is_char_device() || fs::symlink_metadata(host.files().join(&path)).is_err() {
            found.insert(format!("{}{}", path.display(), if kind.is_char_device() { " (gone)" } else { "" }));
        }
        if kind.is_dir() {
            walk(host, &path, found)?;
        }
    }
    Ok(())
}

/// systemd's own word: of a unit that is enabled and has said that it is ready.
fn agent_pid(host: &Stranger) -> String {
    host.sh("systemctl is-enabled evpn-agent >&2; systemctl is-active evpn-agent >&2; systemctl show --value --property MainPID evpn-agent")
}

fn links(host: &Host) -> String {
    host.sh("cd /; for link in etc/libvirt/hooks/*.d/50-evpn-hook usr/share/lxc/hooks/evpn-hook; do readlink $link || true; done")
}

/// What of the agent's work its unit might forbid, each done by the agent that systemd runs. (That it heard a container's address on its port, the
/// page has shown.)
fn under_its_unit(stranger: &Stranger) {
    let host = stranger.host();
    let unit = stranger.sh("systemctl show evpn-agent --property NoNewPrivileges,ProtectSystem,ProtectKernelTunables,ProtectProc,MemoryDenyWriteExecute");
    assert_eq!(
        unit.matches("=yes").count() + unit.matches("=strict").count() + unit.matches("=invisible").count(),
        5,
        "{unit}"
    );
    let pid = agent_pid(stranger);
    let status = stranger.sh(&format!("cat /proc/{}/status", pid.trim()));
    // NET_ADMIN, NET_RAW, SYS_ADMIN, SYS_PTRACE, DAC_OVERRIDE; and a filter on its system calls.
    for line in ["CapBnd:\t0000000000283002", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} in {status}");
    }

    // Figures on loopback.
    host.write(
        "/etc/evpn-hook/config.toml",
        "[agent]\nmetrics = \"127.0.0.1:9471\"\n[[unprivileged]]\nuser = \"alice\"\nnetworks = [\"red\"]\n",
    );
    stranger.sh("systemctl restart evpn-agent");
    let figures =
        stranger.sh("exec 3<>/dev/tcp/127.0.0.1/9471; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    assert!(figures.contains("\nevpn_"), "{figures}");

    // A network's own: a setting below /proc/sys, an address, and its part of FRR by vtysh.
    host.take_out_vrf("red", 10);
    host.sh("sysctl -qw net.ipv4.conf.red-l2.rp_filter=0; ip address del 10.1.0.1/24 dev red-l2");
    let whole = || {
        let kernel = host.sh("ip -o address show dev red-l2; sysctl -n net.ipv4.conf.red-l2.rp_filter");
        kernel.contains("10.1.0.1/24")
            && kernel.ends_with("2\n")
            && host.vtysh("show running-config").contains("router bgp 64512 vrf red")
    };
    wait_until("the agent to mend the network", SOON, whole);
    wait_until("FRR to have all again", SOON, || host.run(&["evpn-hook", "status", "--check"]).code == 0);

    // A network of config.toml at boot, by its own unit; nothing is taken down with it.
    let config = host.sh("cat /etc/evpn-hook/config.toml");
    host.write("/etc/evpn-hook/config.toml", &format!("{config}{SECURED}"));
    stranger.sh(
        "systemctl is-enabled evpn-networks >&2; systemctl start evpn-networks; systemctl is-active evpn-networks >&2",
    );
    let before = stranger.sh("systemctl show --property Before evpn-networks");
    assert!(before.contains("lxc.service") && before.contains("libvirtd.service"), "{before}");
    stranger.sh("systemctl stop evpn-networks");

    // The rules of port security, by nft.
    host.sh(&format!(
        "ip link add h1 type veth peer name h1-far; evpn-hook attach h1 --network held --mac {HELD}; nft flush ruleset"
    ));
    wait_until("the agent to lay the rules anew", SOON, || {
        host.run(&["nft", "list", "set", "bridge", "evpn-hook", "macs"]).stdout.contains(HELD)
    });
    host.sh("evpn-hook detach h1; ip link del h1; evpn-hook network down held");
    host.write("/etc/evpn-hook/config.toml", &config);

    // A hot-plugged NIC, by libvirt's status file.
    let plug = [
        "virsh",
        "--quiet",
        "attach-interface",
        "vm1",
        "network",
        "red",
        "--mac",
        PLUGGED,
        "--model",
        "virtio",
        "--live",
    ];
    host.ok(&plug);
    expect_advertised(host, PLUGGED, &[]);
    host.ok(&["virsh", "--quiet", "detach-interface", "vm1", "network", PLUGGED, "--live"]);
    wait_until("the NIC to go", SOON, || endpoint_status(host, PLUGGED).is_null());

    // A user's container, whose namespaces it looks into.
    stranger.sh(&Alice::made());
    host.write("/home/alice/.local/share/lxc/c1/config", &Alice::container(USERS[0], USERS[1]));
    stranger.sh(&Alice::says("lxc-start --name c1 --logfile /home/alice/log"));
    expect_advertised(host, USERS[0], &[USERS[1]]);
    assert_eq!(endpoint_status(host, USERS[0])["guest"]["id"], "4201/c1");
    stranger.sh(&Alice::says("lxc-stop --kill --name c1"));
    wait_until("the user's container to go", SOON, || endpoint_status(host, USERS[0]).is_null());
    stranger.sh(Alice::gone());
    host.sh("rm /etc/evpn-hook/config.toml");
    stranger.sh("systemctl restart evpn-agent");
}

lab_test! {
    fn a_stranger_installs_starts_guests_upgrades_and_purges(fabric) {
        let hosts = fabric.hypervisors();
        let [comp1, comp2] = hosts;
        let strangers = hosts.map(Stranger::on);
        let before = hosts.map(Holds::of);
        for host in hosts {
            assert_eq!(packages(host).lines().count(), 2);
        }

        follow(&strangers, "What is there already");
        follow(&strangers, "Install");
        for host in hosts {
            assert_eq!(links(host), "/usr/bin/evpn-hook\n".repeat(3));
        }
        let complete = comp1.sh(". /usr/share/bash-completion/completions/evpn-hook
            function=$(complete -p evpn-hook | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            COMP_WORDS=(evpn-hook st) COMP_CWORD=1; $function evpn-hook st evpn-hook; echo ${COMPREPLY[*]}");
        assert_eq!(complete, "status\n");
        follow(&strangers, "A tenant network");
        follow(&strangers, "Two guests");
        assert!(knows(comp2, "red", "vxlan20", WEB[0], &[WEB[1]], "10.0.0.1"));

        // A VM needs no other step either.
        let mut vm = Vm::start(comp1, &VmSpec {
            name: "vm1",
            nics: vec![Nic::Network { mac: VM[0], network: "red" }],
            cmdline: "lab.ip0=10.1.0.61/24 lab.gw0=10.1.0.1",
            metadata: "<evpn:guest xmlns:evpn='urn:evpn-hook:1'><evpn:interface mac='52:54:00:00:00:61'>\
                <evpn:ip address='10.1.0.61'/></evpn:interface></evpn:guest>",
            ..VmSpec::default()
        });
        wait_until("comp2 to know the VM", SOON, || known(comp2, "red", "vxlan20", VM[0], &[VM[1]], "10.0.0.1"));
        vm.wait_ready();

        under_its_unit(&strangers[0]);
        let there = comp2.monitor();
        let qemu = comp1.sh("cat /run/libvirt/qemu/vm1.pid");
        let next = newer(comp1);
        let agent = agent_pid(&strangers[0]);
        eprint!("{}", strangers[0].sh(&format!("dpkg --install {next}")));
        assert!(versions(comp1).lines().all(|line| line.ends_with("+next installed")), "{}", versions(comp1));
        assert_ne!(agent_pid(&strangers[0]), agent, "the agent is the old one");

        // Removal while the network is up would leave it to nobody.
        let refused = strangers[0].sh("! dpkg --remove evpn-hook evpn-agent 2>&1");
        assert!(refused.contains("take down red and run it again"), "{refused}");
        eprint!("{refused}");
        assert_eq!(links(comp1), "/usr/bin/evpn-hook\n".repeat(3));
        // That took the agent away; and it comes back.
        strangers[0].sh(&format!("dpkg --install {next}"));
        agent_pid(&strangers[0]);

        // Whatever was withdrawn would be there before this one, by the new program.
        comp1.sh("ip link add last type veth peer name last-far; ip link set last-far up");
        comp1.ok(&["evpn-hook", "attach", "last", "--network", "red", "--mac", "00:16:3e:00:00:99"]);
        there.wait(&["00:16:3e:00:00:99"], SOON);
        let lost: Vec<String> = there.transcript().lines().into_iter().map(|line| line.text)
            .filter(|line| line.contains("Deleted") && [WEB, VM].concat().iter().any(|part| line.contains(&format!("{part} "))))
            .collect();
        assert!(lost.is_empty(), "{lost:#?}");
        assert_eq!(comp1.sh("cat /run/libvirt/qemu/vm1.pid"), qemu);
        expect_advertised(comp1, VM[0], &[VM[1]]);
        let (code, said) = vm.exec("ping -c 2 -W 5 10.1.0.60");
        assert_eq!(code, 0, "{said}");
        comp1.sh("evpn-hook detach last; ip link del last");
        vm.destroy();
        // And what is withdrawn is heard there.
        there.wait(&["Deleted", VM[0]], SOON);
        there.wait(&["Deleted", VM[1]], SOON);
        drop(vm);

        // An administrator's own file is the package's by its place.
        comp1.write("/etc/evpn-hook/config.toml", "on_duplicate = \"warn\"\n");
        follow(&strangers, "Take it all away");
        for (host, before) in hosts.iter().zip(&before) {
            let left = before.differences(&Holds::of(host));
            assert!(left.is_empty(), "{}:\n{}", host.name(), left.join("\n"));
            assert_eq!(versions(host), "");
        }
    }
}

/// What the host has of its suite.
fn userland(host: &Host) -> String {
    host.sh("dpkg-query -W -f '${Package} ${Version}, ' frr libvirt-daemon qemu-system-x86 systemd; echo")
}

lab_test! {
    /// One host after the other gets trixie: the first is upgraded and started again with the package that it has, while the other is still bookworm's.
    fn a_host_upgraded_to_trixie_has_its_tenants_and_its_guest_again(fabric) {
        let (far, host) = (fabric.of("bookworm"), fabric.newcomer("bookworm"));
        let _far = Configured::up(far, &[RED, GREEN]);
        let _container = Container::start(far, "c1", &container_on("red", USERS[0], Some(USERS[1])));
        let old = Stranger::on(host);
        packages(host);
        old.sh(&format!("cd {DIRECTORY}; apt install --yes ./evpn-hook_*.deb ./evpn-agent_*.deb"));
        host.write("/etc/evpn-hook/config.toml", GREEN);
        old.sh("systemctl start evpn-networks");
        let red = Network::shipped(host, "red");
        host.ok(&["virsh", "--quiet", "net-autostart", "red"]);
        let mut vm = Vm::start(host, &VmSpec {
            name: "vm1",
            nics: vec![Nic::Network { mac: WEB[0], network: "red" }],
            cmdline: "lab.ip0=10.1.0.60/24 lab.gw0=10.1.0.1",
            ..VmSpec::default()
        });
        host.ok(&["virsh", "--quiet", "autostart", "vm1"]);
        let reached = |vm: &mut Vm| {
            for name in ["red", "green"] {
                wait_until(&format!("{name} to be up"), SOON, || network_status(host, name)["state"] == "up");
            }
            expect_advertised(host, WEB[0], &[WEB[1]]);
            let (at, its) = (far.address(), host.address());
            wait_until("the other host to know the VM", SOON, || known(far, "red", "vxlan20", WEB[0], &[WEB[1]], &its));
            wait_until("the host to know the container", SOON, || known(host, "red", "vxlan20", USERS[0], &[USERS[1]], &at));
            vm.wait_ready();
            let (code, said) = vm.exec(&format!("ping -c 2 -W 5 {}", USERS[1]));
            assert_eq!(code, 0, "{said}");
        };
        reached(&mut vm);
        let (had, installed, status) = (userland(host), versions(host), host.ok(&["dpkg", "--status", "evpn-hook", "evpn-agent"]));

        // As a machine is shut down: its guests, its daemons. The network stays as it is until the kernel goes.
        vm.destroy();
        old.sh("systemctl stop evpn-agent evpn-networks; pid=$(cat /run/libvirtd.pid); kill $pid; tail --pid=$pid -f /dev/null");
        old.power_off();
        let since = Instant::now();
        fabric.upgrade(host, "trixie");
        wait_until("the other host to forget the VM", SOON, || !remembers(far, WEB[0]));
        // evpn-hook is not in Debian: apt leaves it as it is.
        let list = host.sh("cat /var/lib/dpkg/status");
        host.write("/var/lib/dpkg/status", &format!("{list}{status}\n"));
        assert_eq!(versions(host), installed);
        assert_eq!(host.ok(&["dpkg", "--verify", "evpn-hook", "evpn-agent"]), "");
        assert_eq!(links(host), "/usr/bin/evpn-hook\n".repeat(3));

        // What is enabled starts, in the units' order.
        let new = Stranger::booted(host);
        new.sh("systemctl is-enabled evpn-networks >&2; systemctl start evpn-networks");
        vm.boot_again_by(|| drop(new.sh("libvirtd -d; virsh --quiet list")));
        new.sh("systemctl start evpn-agent");
        agent_pid(&new);
        let (has, back) = (userland(host), since.elapsed());
        assert!(host.suite() == "trixie" && has != had, "{has}");
        reached(&mut vm);
        eprintln!("lab: {} had {had}lab: and has {has}lab: off and on again, with libvirtd and the agent, in {:.1} s", host.name(), back.as_secs_f64());

        vm.destroy();
        drop(vm);
        red.remove();
        wait_until("the other host to forget the VM", SOON, || !remembers(far, WEB[0]));
        host.sh("evpn-hook network down --all; rm /etc/evpn-hook/config.toml");
        new.sh("dpkg --purge evpn-agent evpn-hook");
        assert_eq!((versions(host), links(host)), (String::new(), String::new()));
    }
}
