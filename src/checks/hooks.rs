//! Whether hypervisors can call us: the links in their hook directories, what keeps them from being run, and the agent.

use super::{Facts, Finding, HostFacts, cure};
use crate::engine::Engine;
use crate::install::{BINARY, places};
use crate::model::GuestKind;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How far the two clocks that a daemon's start is made of may be apart, in seconds.
const SLACK: i64 = 10;

/// What is at a place where a hook of ours belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum There {
    Nothing,
    /// Our link, made at that time (seconds since the epoch).
    Link(i64),
    Elsewhere(PathBuf),
    File,
    /// Why it cannot be told.
    Unread(String),
}

/// The daemons of libvirt's that call hooks of ours: one for all, or, as RHEL, Fedora and Arch have them, one a driver
/// (<https://libvirt.org/daemons.html>). Each looks for hooks itself, in src/util/virhook.c.
const DAEMONS: [&str; 3] = ["libvirtd", "virtqemud", "virtnetworkd"];

/// One that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Daemon {
    name: &'static str,
    /// Seconds since the epoch; none where /proc does not tell.
    since: Option<i64>,
}

impl Daemon {
    /// Calls what is linked there.
    fn calls(&self, place: &Path) -> bool {
        let in_dir = |dir: &str| place.parent().is_some_and(|parent| parent.ends_with(dir));
        match self.name {
            "virtqemud" => in_dir("qemu.d"),
            "virtnetworkd" => in_dir("network.d"),
            _ => in_dir("qemu.d") || in_dir("network.d"),
        }
    }

    /// Has called one of its hooks, as records show.
    fn was_called(&self, seen: &HookFacts) -> bool {
        match self.name {
            "virtqemud" => seen.has_guest,
            "virtnetworkd" => seen.has_network,
            _ => seen.has_guest || seen.has_network,
        }
    }
}

pub struct HookFacts {
    places: Vec<(PathBuf, bool, There)>,
    /// The mode of what the links point to; none where it is missing.
    mode: Option<u32>,
    daemons: Vec<Daemon>,
    /// libvirt has called a guest's hook: a record of one is there.
    has_guest: bool,
    /// The same of a network's.
    has_network: bool,
    /// AppArmor confines libvirtd.
    apparmor: bool,
    /// SELinux is enforcing, and whether `virt_hooks_unconfined` is on.
    selinux: Option<bool>,
    /// systemd runs this host.
    systemd: bool,
    agent_runs: bool,
    /// The agent's unit is enabled; none where there is no unit.
    unit_enabled: Option<bool>,
}

pub fn observe(engine: &Engine, host: &HostFacts) -> HookFacts {
    let root = Path::new("/");
    let by_libvirt = |origin| matches!(origin, crate::config::Origin::Libvirt | crate::config::Origin::LibvirtBridge);
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let unit = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"]
        .iter()
        .any(|dir| Path::new(dir).join("evpn-agent.service").exists());
    let wanted = Path::new("/etc/systemd/system/multi-user.target.wants/evpn-agent.service");
    HookFacts {
        places: places(root).into_iter().map(|(path, libvirt)| (path.clone(), libvirt, there(&path))).collect(),
        mode: fs::metadata(BINARY).ok().map(|meta| meta.permissions().mode()),
        daemons: daemons(Path::new("/run")),
        has_guest: host.guests.iter().any(|record| record.guest.kind == GuestKind::Libvirt),
        has_network: host.networks.iter().any(|record| by_libvirt(record.network.origin)),
        apparmor: text("/sys/kernel/security/apparmor/profiles")
            .lines()
            .any(|line| (line.contains("libvirtd") || line.contains("virtqemud")) && line.ends_with("(enforce)")),
        selinux: (text("/sys/fs/selinux/enforce").trim() == "1")
            .then(|| text("/sys/fs/selinux/booleans/virt_hooks_unconfined").starts_with('1')),
        // sd_booted(3).
        systemd: Path::new("/run/systemd/system").is_dir(),
        agent_runs: engine.register.agent_runs(),
        unit_enabled: unit.then(|| fs::symlink_metadata(wanted).is_ok()),
    }
}

fn there(path: &Path) -> There {
    match fs::read_link(path) {
        Ok(target) if target == Path::new(BINARY) => {
            There::Link(fs::symlink_metadata(path).map_or(0, |meta| meta.ctime()))
        }
        Ok(target) => There::Elsewhere(target),
        Err(error) if error.kind() == ErrorKind::NotFound => There::Nothing,
        // readlink(2): EINVAL for what is no symlink.
        Err(error) if error.kind() == ErrorKind::InvalidInput => There::File,
        Err(error) => There::Unread(error.to_string()),
    }
}

/// By their pid files, which they write and lock themselves (libvirt, src/util/virpidfile.c).
fn daemons(run: &Path) -> Vec<Daemon> {
    let running = |name| {
        let pid: u32 = fs::read_to_string(run.join(format!("{name}.pid"))).ok()?.trim().parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Daemon { name, since: started(&stat, &fs::read_to_string("/proc/stat").ok()?) })
    };
    DAEMONS.into_iter().filter_map(running).collect()
}

/// proc(5): field 22 of /proc/PID/stat in ticks since boot, 100 a second for user space on every architecture of today; `btime` in /proc/stat.
fn started(stat: &str, host: &str) -> Option<i64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: i64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    let boot: i64 = host.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / 100)
}

/// Makes libvirt look for hooks again; the guests run on.
fn reload(seen: &HookFacts, daemon: &Daemon) -> String {
    let name = daemon.name;
    if seen.systemd { format!("systemctl reload {name}") } else { format!("kill -HUP $(cat /run/{name}.pid)") }
}

pub fn check(facts: &Facts) -> Vec<Finding> {
    let seen = &facts.hooks;
    let mut found = links(seen);
    let is_linked = |(_, _, there): &(PathBuf, bool, There)| matches!(there, There::Link(_));
    if seen.places.iter().any(is_linked) {
        match seen.mode {
            Some(mode) if mode & 0o111 == 0 => {
                let evidence = "is not executable: hypervisors pass over the hooks without a word";
                let finding = Finding::problem("hook-not-executable", BINARY, evidence);
                found.push(finding.run(format!("chmod 755 {BINARY}")));
            }
            Some(_) => {}
            None => {
                let evidence = "the hooks point to it, and it is not there";
                let finding = Finding::problem("hook-dangling", BINARY, evidence);
                found.push(finding.by(format!("install evpn-hook to {BINARY}")));
            }
        }
    }
    for daemon in &seen.daemons {
        // The oldest: one that was there at the daemon's start and was linked anew since (an installation does) is called all the same, for libvirt
        // remembers only that there was one (src/util/virhook.c `virHookInitialize`). A second link that libvirtd never saw is so missed.
        let links =
            seen.places.iter().filter(|(path, ..)| daemon.calls(path)).filter_map(|(_, _, there)| match there {
                There::Link(since) => Some(*since),
                _ => None,
            });
        if let (Some(linked), Some(since)) = (links.min(), daemon.since)
            && since + SLACK < linked
            && !daemon.was_called(seen)
        {
            let evidence =
                "runs since before its hooks were linked, and looks for them at its start and when it is reloaded";
            found.push(Finding::warning("hook-reload", daemon.name, evidence).run(reload(seen, daemon)));
        }
    }
    if seen.selinux == Some(false) && seen.places.iter().any(|(_, libvirt, is)| *libvirt && *is != There::Nothing) {
        let evidence =
            "SELinux confines libvirt's hooks (virt_hooks_unconfined is off): they cannot change the network";
        let finding = Finding::problem("selinux", "virt_hooks_unconfined", evidence);
        found.push(finding.run("setsebool -P virt_hooks_unconfined on"));
    }
    if !seen.agent_runs {
        let evidence = "does not run: migrations, late addresses and what others delete wait for 'evpn-hook sync'";
        let finding = Finding::hint("agent", "evpn-agent", evidence);
        found.push(finding.run(cure::AGENT));
    } else if seen.unit_enabled == Some(false) {
        let finding = Finding::hint("agent", "evpn-agent.service", "runs, and will not after the next boot");
        found.push(finding.run("systemctl enable evpn-agent"));
    }
    found
}

fn links(seen: &HookFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let is_there =
        |wanted: bool| seen.places.iter().any(|(_, libvirt, there)| *libvirt == wanted && *there != There::Nothing);
    for (path, libvirt, there) in &seen.places {
        let shown = path.display();
        let remove = format!("rm {shown}");
        let install = format!("evpn-hook install {}", if *libvirt { "--libvirt" } else { "--lxc" });
        match there {
            There::Link(_) => {}
            // One of two, or with libvirt running: it is wanted. Else this host may do without.
            There::Nothing if *libvirt && (is_there(true) || !seen.daemons.is_empty()) => {
                let evidence = "is missing: libvirt does not call evpn-hook";
                // A daemon that does not run looks at its start.
                let calls = seen.daemons.iter().filter(|daemon| daemon.calls(path));
                let again: String = calls.map(|daemon| format!("; {}", reload(seen, daemon))).collect();
                found.push(Finding::problem("hook-missing", shown, evidence).run(install + &again));
            }
            There::Nothing => {
                let evidence = if *libvirt {
                    "is not linked, and libvirtd does not run"
                } else {
                    "is not linked: no container's configuration can name it"
                };
                found.push(Finding::hint("hook-missing", shown, evidence).run(install));
            }
            There::Elsewhere(target) => {
                let evidence = format!("points to {} and not to {BINARY}", target.display());
                found.push(Finding::problem("hook-elsewhere", shown, evidence).run(format!("{remove}; {install}")));
            }
            There::File => {
                let confined = match (libvirt, seen.apparmor) {
                    (true, true) => ", and AppArmor, which confines libvirtd here, refuses it netlink",
                    (true, false) => ", and where AppArmor confines libvirtd, it refuses it netlink",
                    (false, _) => "",
                };
                let evidence = format!("is a file and not a link to {BINARY}: it is not updated with it{confined}");
                found.push(Finding::problem("hook-copied", shown, evidence).run(format!("{remove}; {install}")));
            }
            There::Unread(why) => found.push(Finding::not_checked("hook-missing", shown, why.clone())),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::fixture::{facts, only};
    use super::*;

    const QEMU: &str = "/etc/libvirt/hooks/qemu.d/50-evpn-hook";

    impl HookFacts {
        pub(in crate::checks) fn healthy() -> HookFacts {
            HookFacts {
                places: places(Path::new("/"))
                    .into_iter()
                    .map(|(path, libvirt)| (path, libvirt, There::Link(100)))
                    .collect(),
                mode: Some(0o100_755),
                daemons: vec![Daemon { name: "libvirtd", since: Some(200) }],
                has_guest: false,
                has_network: false,
                apparmor: false,
                selinux: None,
                systemd: true,
                agent_runs: true,
                unit_enabled: Some(true),
            }
        }
    }

    #[track_caller]
    fn finds(change: impl FnOnce(&mut HookFacts)) -> Vec<Finding> {
        let mut facts = facts();
        change(&mut facts.hooks);
        check(&facts)
    }

    fn qemu(seen: &mut HookFacts, there: There) {
        seen.places.iter_mut().find(|(path, ..)| path == Path::new(QEMU)).unwrap().2 = there;
    }

    #[test]
    fn hooks_as_they_should_be() {
        assert_eq!(finds(|_| {}), []);
        assert_eq!(HookFacts::healthy().places.len(), 3);
    }

    #[test]
    fn a_hook_that_is_missing() {
        let one = finds(|seen| qemu(seen, There::Nothing));
        assert_eq!(
            only(&one),
            ("hook-missing", Severity::Problem, "evpn-hook install --libvirt; systemctl reload libvirtd")
        );
        let without = finds(|seen| {
            qemu(seen, There::Nothing);
            seen.systemd = false;
        });
        assert_eq!(only(&without).2, "evpn-hook install --libvirt; kill -HUP $(cat /run/libvirtd.pid)");
        let both =
            finds(|seen| seen.places.iter_mut().filter(|(_, libvirt, _)| *libvirt).for_each(|p| p.2 = There::Nothing));
        assert_eq!((both.len(), both[0].mend.as_str()), (2, "evpn-hook install --libvirt; systemctl reload libvirtd"));
        let unused = finds(|seen| {
            seen.places.iter_mut().for_each(|p| p.2 = There::Nothing);
            seen.daemons.clear();
        });
        assert!(unused.iter().all(|finding| finding.severity == Severity::Hint), "{unused:?}");
    }

    #[test]
    fn a_hook_that_is_something_else() {
        let mend = format!("rm {QEMU}; evpn-hook install --libvirt");
        assert_eq!(only(&finds(|seen| qemu(seen, There::File))), ("hook-copied", Severity::Problem, mend.as_str()));
        let confined = finds(|seen| {
            qemu(seen, There::File);
            seen.apparmor = true;
        });
        assert!(confined[0].evidence.contains("which confines libvirtd here"), "{confined:?}");
        let elsewhere = finds(|seen| qemu(seen, There::Elsewhere("/opt/evpn-hook".into())));
        assert_eq!(only(&elsewhere).0, "hook-elsewhere");
        assert_eq!(only(&finds(|seen| qemu(seen, There::Unread("Permission denied".into())))).1, Severity::NotChecked);
    }

    #[test]
    fn a_binary_that_cannot_be_run() {
        let found = finds(|seen| seen.mode = Some(0o100_644));
        assert_eq!(only(&found), ("hook-not-executable", Severity::Problem, "chmod 755 /usr/bin/evpn-hook"));
        assert_eq!(only(&finds(|seen| seen.mode = None)).0, "hook-dangling");
    }

    #[test]
    fn a_libvirtd_that_has_not_looked() {
        let late = |seen: &mut HookFacts| seen.daemons[0].since = Some(50);
        let anew = |seen: &mut HookFacts| {
            late(seen);
            seen.places.iter_mut().for_each(|place| place.2 = There::Link(40));
            qemu(seen, There::Link(100));
        };
        assert_eq!(finds(anew), [], "linked anew, may be: the other was there at its start");
        assert_eq!(only(&finds(late)), ("hook-reload", Severity::Warning, "systemctl reload libvirtd"));
        for called in [|seen: &mut HookFacts| seen.has_guest = true, |seen: &mut HookFacts| seen.has_network = true] {
            let since = finds(|seen| {
                late(seen);
                called(seen);
            });
            assert_eq!(since, [], "it has called since");
        }
    }

    /// virtqemud calls the guests' hooks, virtnetworkd the networks'.
    #[test]
    fn a_daemon_a_driver() {
        let modular = |qemu: i64, network: i64| {
            move |seen: &mut HookFacts| {
                let daemon = |name, since| Daemon { name, since: Some(since) };
                seen.daemons = vec![daemon("virtqemud", qemu), daemon("virtnetworkd", network)];
            }
        };
        let told = |change: &dyn Fn(&mut HookFacts)| {
            finds(change).into_iter().map(|f| format!("{} {}: {}", f.check, f.object, f.mend)).collect::<Vec<_>>()
        };
        assert_eq!(finds(modular(200, 200)), []);
        let network = ["hook-reload virtnetworkd: systemctl reload virtnetworkd"];
        assert_eq!(told(&modular(200, 50)), network);
        assert_eq!(told(&modular(50, 200)), ["hook-reload virtqemud: systemctl reload virtqemud"]);
        assert_eq!(told(&modular(50, 50)).len(), 2);
        let guests = |seen: &mut HookFacts| {
            modular(50, 50)(seen);
            seen.has_guest = true;
        };
        assert_eq!(told(&guests), network, "that virtqemud has called says nothing of the other");
        let networks = |seen: &mut HookFacts| {
            modular(200, 50)(seen);
            seen.has_network = true;
        };
        assert_eq!(finds(networks), []);
        let linked_later = |seen: &mut HookFacts| {
            modular(50, 50)(seen);
            seen.places.iter_mut().for_each(|place| place.2 = There::Link(40));
            qemu(seen, There::Link(100));
        };
        assert_eq!(told(&linked_later), ["hook-reload virtqemud: systemctl reload virtqemud"]);
    }

    #[test]
    fn a_missing_hook_is_the_daemons_that_calls_it() {
        let mends = |names: &[&'static str]| {
            let found = finds(|seen| {
                seen.daemons = names.iter().map(|name| Daemon { name, since: Some(200) }).collect();
                seen.places.iter_mut().filter(|(_, libvirt, _)| *libvirt).for_each(|p| p.2 = There::Nothing);
            });
            assert!(found.iter().all(|finding| finding.severity == Severity::Problem), "{found:?}");
            found.into_iter().map(|finding| finding.mend).collect::<Vec<_>>()
        };
        let install = "evpn-hook install --libvirt";
        let both =
            [format!("{install}; systemctl reload virtqemud"), format!("{install}; systemctl reload virtnetworkd")];
        assert_eq!(mends(&["virtqemud", "virtnetworkd"]), both);
        assert_eq!(mends(&["virtqemud"]), [both[0].as_str(), install], "virtnetworkd will look when it starts");
    }

    #[test]
    fn all_daemons_that_run_are_seen() {
        let run = std::env::temp_dir().join(format!("evpn-doctor-daemons-{}", std::process::id()));
        fs::create_dir_all(&run).unwrap();
        let names = || daemons(&run).into_iter().map(|daemon| daemon.name).collect::<Vec<_>>();
        assert_eq!(names(), [] as [&str; 0]);
        for name in ["virtqemud", "virtnetworkd"] {
            fs::write(run.join(format!("{name}.pid")), format!("{}\n", std::process::id())).unwrap();
        }
        assert_eq!(names(), ["virtqemud", "virtnetworkd"]);
        assert!(daemons(&run).iter().all(|daemon| daemon.since.is_some()));
        fs::remove_dir_all(&run).unwrap();
    }

    #[test]
    fn selinux() {
        assert_eq!(only(&finds(|seen| seen.selinux = Some(false))).0, "selinux");
        assert_eq!(finds(|seen| seen.selinux = Some(true)), []);
    }

    #[test]
    fn the_agent_is_a_hint() {
        assert_eq!(only(&finds(|seen| seen.agent_runs = false)).1, Severity::Hint);
        assert_eq!(only(&finds(|seen| seen.unit_enabled = Some(false))).2, "systemctl enable evpn-agent");
        assert_eq!(finds(|seen| seen.unit_enabled = None), []);
    }

    #[test]
    fn when_a_process_began() {
        let stat = "123 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4200 20 21";
        assert_eq!(started(stat, "cpu 1\nbtime 1000\n"), Some(1042));
        assert_eq!(started("123 (x) S", "btime 1000\n"), None);
    }
}
