//! LXC's hooks: everything is in the environment. `lxc.hook.version = 1` is required, because version 0 gives only words on the command line, of
//! which an empty one vanishes and shifts the rest (liblxc's utils.c `run_script_argv` builds one shell line); version 1 still passes them, so
//! they are never read.

use super::{InputError, label};
use crate::event::Flaw;
use crate::model::{Guest, GuestKind, IfName, NetName, quoted};
use std::path::{Component, Path};

/// One call of a hook. What is inside the container (MAC and addresses at start-host) is for the caller to read from the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LxcHook {
    /// The container.
    pub guest: Guest,
    /// What happens to it.
    pub phase: LxcPhase,
    /// What is wrong with it.
    pub flaw: Option<Flaw>,
}

/// The life of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LxcPhase {
    /// `lxc.net.N.script.up`: the host's end of one veth exists, on its link if it has one; the container's end has neither its name nor its MAC yet.
    Up {
        /// The host's end.
        device: IfName,
        /// `lxc.net.N.link`: LXC has enslaved it already. `None`: we do.
        bridge: Option<IfName>,
        /// `--network` on the script's line.
        network: Option<NetName>,
    },
    /// `lxc.hook.start-host`: MACs and static addresses are final in `/proc/PID/ns/net`; init has not run.
    StartHost {
        /// The container's first process.
        pid: u32,
    },
    /// `lxc.net.N.script.down`: both ends of one veth are still there.
    Down {
        /// The host's end.
        device: IfName,
    },
    /// `lxc.hook.stop`: the veths are gone.
    Stop,
    /// `lxc.hook.post-stop`: all is gone; also after a start that failed half-way, for which no `down` comes.
    PostStop,
}

impl LxcPhase {
    /// May a failure stop the start? Later it only spoils a reboot: post-stop's status turns one into a stop.
    pub fn may_refuse(&self) -> bool {
        matches!(self, LxcPhase::Up { .. } | LxcPhase::StartHost { .. })
    }
}

/// Reads one call; `None` for hooks and kinds of devices that have no meaning for us. `network` is what `--network` gave.
pub fn read(network: Option<&NetName>, env: &impl Fn(&str) -> Option<String>) -> Result<Option<LxcHook>, InputError> {
    let get = |key: &str| env(key).filter(|value| !value.is_empty());
    let Some(name) = get("LXC_NAME") else {
        return Err(InputError::new(
            "LXC_NAME is not set: this command is for LXC's hooks; by hand, use `evpn-hook attach`",
            true,
        ));
    };
    let failed = |why: &str, may_refuse| InputError::new(&format!("container {}: {why}", label(&name)), may_refuse);
    let version = get("LXC_HOOK_VERSION").unwrap_or_else(|| "0".to_owned());
    if version != "1" {
        return Err(failed(&format!("lxc.hook.version is {}: set lxc.hook.version = 1", quoted(&version)), true));
    }
    let section = get("LXC_HOOK_SECTION").unwrap_or_default();
    let hook = get("LXC_HOOK_TYPE").unwrap_or_default();
    // The order matters: in hooks of section lxc, LXC_NET_* are left-overs of the last NIC's.
    let (phase, may_refuse) = match (section.as_str(), hook.as_str()) {
        ("net", "up") => (up(network, &get), true),
        ("net", "down") => (down(&get), false),
        ("lxc", "start-host") => (pid(get("LXC_PID")).map(|pid| Some(LxcPhase::StartHost { pid })), true),
        ("lxc", "stop") => (Ok(Some(LxcPhase::Stop)), false),
        ("lxc", "post-stop") => (Ok(Some(LxcPhase::PostStop)), false),
        _ => return Ok(None),
    };
    let (config, rootfs) = (get("LXC_CONFIG_FILE"), get("LXC_ROOTFS_PATH"));
    // Incus writes a configuration into /run/incus/NAME/lxc.conf.
    let own = config.clone().filter(|path| path.ends_with("/config"));
    let lxcpath = [own, rootfs, config].into_iter().flatten().find_map(|path| lxcpath(&path, &name));
    let id = lxcpath.map_or(name.clone(), |lxcpath| id(&lxcpath, &name));
    let (guest, unnamed) = Guest::shown(GuestKind::Lxc, &name, &id);
    let flaw = unnamed.map(|why| Flaw { why: why.to_string(), in_metadata: false });
    let phase = phase.map_err(|why| failed(&why, may_refuse))?;
    Ok(phase.map(|phase| LxcHook { guest, phase, flaw }))
}

/// Where LXC keeps containers if nobody says otherwise (`lxc.lxcpath`).
const LXCPATH: &str = "/var/lib/lxc";

/// What a container of root's is known by: names are given once a directory (`lxc-start -P`), and in LXC's own the name says it all.
pub fn id(lxcpath: &str, name: &str) -> String {
    if lxcpath == LXCPATH { name.to_owned() } else { format!("{lxcpath}/{name}") }
}

/// The directory that a container is in, by the path of what it has there: `LXCPATH/NAME/config`, `LXCPATH/NAME/rootfs`. LXC says it nowhere else, and
/// `lxc-start -f` names a configuration that may be anywhere.
fn lxcpath(path: &str, name: &str) -> Option<String> {
    // A storage driver's words may stand around it (`overlay:/var/lib/lxc/c1/rootfs:…`).
    let path = Path::new(path.split(':').find(|part| part.starts_with('/'))?).parent()?;
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let lxcpath = path.parent().filter(|_| plain && path.file_name().is_some_and(|dir| dir == name))?;
    let parts: Vec<&str> = lxcpath.components().filter_map(|part| part.as_os_str().to_str()).collect();
    match &parts[1..] {
        // Incus keeps the root in a pool (`VAR/storage-pools/POOL/containers/NAME/rootfs`), and VAR/containers is what it calls LXC's path.
        [var @ .., "storage-pools", _, "containers"] => Some(format!("/{}/containers", var.join("/"))),
        plain => Some(format!("/{}", plain.join("/"))),
    }
}

/// Has this NIC an end on the host that could be a bridge's port?
fn veth(get: &impl Fn(&str) -> Option<String>) -> bool {
    get("LXC_NET_TYPE").as_deref() == Some("veth")
}

fn device(get: &impl Fn(&str) -> Option<String>) -> Result<Option<IfName>, String> {
    get("LXC_NET_PEER").map(|text| text.parse::<IfName>().map_err(|e| format!("LXC_NET_PEER: {e}"))).transpose()
}

fn down(get: &impl Fn(&str) -> Option<String>) -> Result<Option<LxcPhase>, String> {
    let device = if veth(get) { device(get)? } else { None };
    Ok(device.map(|device| LxcPhase::Down { device }))
}

fn up(network: Option<&NetName>, get: &impl Fn(&str) -> Option<String>) -> Result<Option<LxcPhase>, String> {
    if !veth(get) {
        let kind = get("LXC_NET_TYPE").unwrap_or_default();
        return network.map_or(Ok(None), |network| {
            Err(format!(
                "lxc.net type {} has no end that could join network {}: set lxc.net.N.type = veth",
                quoted(&kind),
                quoted(network.as_str())
            ))
        });
    }
    // Whether one that cannot be used is on a bridge of ours `start-host` finds out.
    let device = match (device(get), network) {
        (Err(_), None) => return Ok(None),
        (device, _) => device?,
    };
    let Some(device) = device else {
        return Err("LXC_NET_PEER is not set: LXC gives the host's end of a veth there; is this script.up?".to_owned());
    };
    let bridge = match get("LXC_NET_PARENT").map(|text| text.parse::<IfName>()) {
        None => None,
        Some(Ok(bridge)) => Some(bridge),
        Some(Err(e)) if network.is_some() => return Err(format!("lxc.net.N.link: {e}")),
        // A link that no bridge of ours can be called.
        Some(Err(_)) => return Ok(None),
    };
    Ok(Some(LxcPhase::Up { device, bridge, network: network.cloned() }))
}

/// Not the host's own init either: its namespace is the host's.
fn pid(text: Option<String>) -> Result<u32, String> {
    let text = text.unwrap_or_default();
    match text.parse::<i32>() {
        Ok(pid @ 2..) => Ok(pid.unsigned_abs()),
        _ => Err(format!("LXC_PID {} is no process id: LXC sets it from version 3.0 on", quoted(&text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(env: &[(&str, &str)]) -> (String, String) {
        let env: Vec<_> =
            [("LXC_NAME", "web"), ("LXC_HOOK_VERSION", "1"), ("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", "stop")]
                .into_iter()
                .chain(env.iter().copied())
                .collect();
        let get = |key: &str| env.iter().rev().find(|(k, _)| *k == key).map(|(_, value)| (*value).to_owned());
        let LxcHook { guest, .. } = read(None, &get).unwrap().unwrap();
        (guest.name, guest.id)
    }

    #[test]
    fn a_container_is_its_directory_and_its_name() {
        let id = |config: &str, rootfs: &str| {
            let (name, id) = guest(&[("LXC_CONFIG_FILE", config), ("LXC_ROOTFS_PATH", rootfs)]);
            assert_eq!(name, "web");
            id
        };
        assert_eq!(id("/var/lib/lxc/web/config", "/var/lib/lxc/web/rootfs"), "web");
        assert_eq!(id("/var/lib/lxc//web/other.conf", ""), "web");
        assert_eq!(id("/srv/lxc/web/config", "/var/lib/lxc/web/rootfs"), "/srv/lxc/web");
        assert_eq!(id("/etc/web.conf", "overlay:/srv/lxc/web/rootfs:/tmp/delta"), "/srv/lxc/web");
        assert_eq!(id("/web/config", ""), "//web");
        let pool = "dir:/var/lib/incus/storage-pools/default/containers/web/rootfs";
        assert_eq!(id("/run/incus/web/lxc.conf", pool), "/var/lib/incus/containers/web");
        assert_eq!(id("/srv/lxc/web/other.conf", "/images/7"), "/srv/lxc/web");
        for elsewhere in ["", "web/config", "/etc/lxc/special.conf", "/srv/../web/config", "config", "/"] {
            assert_eq!(id(elsewhere, "/images/7"), "web", "{elsewhere}");
        }
        assert_eq!(guest(&[]).1, "web");
    }

    #[test]
    fn a_name_that_is_none_is_shown_and_told() {
        let (name, id) = guest(&[("LXC_NAME", "a\tb")]);
        assert_eq!((name.as_str(), id.as_str()), ("a\\tb", "a\\tb"));
    }
}
