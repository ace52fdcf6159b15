//! Reading config.toml: TOML → [`Config`], with the line of whatever is wrong. The only part of this room that touches a file.

use super::once::{Fault, Taken};
use super::*;
use crate::model::{host_ip, quoted, short_line};
use crate::tape::{self, Untold};
use rustix::fs::OFlags;
use serde::Deserialize;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use toml::Spanned;

/// The most that is read; a network takes about 200 bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why config.toml was not taken: one line with the file, the line, the key, and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl From<Untold> for ConfigError {
    fn from(untold: Untold) -> ConfigError {
        ConfigError(untold.0)
    }
}

/// Reads the file. One that is not there is the default, unless somebody asked for it by name.
pub fn load(path: &Path, must_exist: bool) -> Result<Config, ConfigError> {
    let text = text(path, must_exist)?;
    parse_all(text.as_deref(), path)
}

/// What the file says; `None` where it is not there, and may be so.
pub fn text(path: &Path, must_exist: bool) -> Result<Option<String>, ConfigError> {
    tape::asked("config.toml", || read(path, &path.display().to_string(), must_exist))
}

/// What a text is when read; `path` is for messages alone.
pub fn parse_all(text: Option<&str>, path: &Path) -> Result<Config, ConfigError> {
    text.map_or(Ok(Config::default()), |text| parse(text, &path.display().to_string()))
}

/// Says a file nothing at all, not even in a comment? So it is while somebody writes it anew (`>config.toml`, open(2) with O_TRUNC).
pub fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Why an empty file is not believed.
pub fn emptied(path: &Path) -> ConfigError {
    ConfigError(short_line(&format!(
        "{}: it is empty, and was not before: it is taken for one that is being written; where nothing is meant, remove it",
        path.display()
    )))
}

fn read(path: &Path, shown: &str, must_exist: bool) -> Result<Option<String>, ConfigError> {
    let fail = |why: &str| ConfigError(short_line(&format!("{shown}: {why}")));
    // Whoever opens a pipe waits for its other end, and a hypervisor for us.
    let mut open = OpenOptions::new();
    let file = match open.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(e) => return Err(fail(&format!("cannot open it ({e}): give --config a file that can be read"))),
    };
    if file.metadata().is_ok_and(|is| is.file_type().is_fifo()) {
        return Err(fail("it is a pipe, and is read more than once: give --config a file"));
    }
    let mut bytes = Vec::new();
    if let Err(e) = file.take(MAX_FILE + 1).read_to_end(&mut bytes) {
        return Err(fail(&format!("cannot read it ({e}): give --config a file")));
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(fail(&format!("it is over {} MiB: is this config.toml?", MAX_FILE >> 20)));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| fail("it is not UTF-8: is this config.toml?"))
}

/// Parses the text; `path` is for messages alone.
pub fn parse(text: &str, path: &str) -> Result<Config, ConfigError> {
    let raw = toml::from_str::<RawConfig>(text)
        .map_err(|e| Fault { at: e.span().map_or(0, |span| span.start), text: words(text, &e) });
    raw.and_then(RawConfig::check)
        .map_err(|fault| ConfigError(short_line(&format!("{path} line {}: {}", line_at(text, fault.at), fault.text))))
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// toml's words for an error; with the key in front where they name only the value.
fn words(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim();
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("{field} is missing: add it");
    }
    let at = error.span().map_or(0, |span| span.start);
    let line = text.lines().nth(line_at(text, at) - 1).unwrap_or_default();
    match line.split_once('=').map(|(key, _)| key.trim()) {
        Some(key) if !message.contains(&format!("`{key}`")) => format!("{}: {message}", quoted(key).trim_matches('\'')),
        _ => message.to_owned(),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    on_duplicate: OnDuplicate,
    allow_guest_networks: RawGuestNetworks,
    vtep: RawVtep,
    speaker: RawSpeaker,
    host: RawHost,
    agent: RawAgent,
    vrf: Vec<RawVrf>,
    network: Vec<RawNetwork>,
    unprivileged: Vec<RawUnprivileged>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "write true, false or a list of networks' names")]
enum RawGuestNetworks {
    Any(bool),
    Named(Vec<NetName>),
}

impl Default for RawGuestNetworks {
    fn default() -> RawGuestNetworks {
        RawGuestNetworks::Any(false)
    }
}

impl From<RawGuestNetworks> for GuestNetworks {
    fn from(raw: RawGuestNetworks) -> GuestNetworks {
        match raw {
            RawGuestNetworks::Any(false) => GuestNetworks::None,
            RawGuestNetworks::Any(true) => GuestNetworks::All,
            RawGuestNetworks::Named(names) => GuestNetworks::Named(names),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawVtep {
    address: Option<Spanned<String>>,
    interface: Option<Spanned<IfName>>,
    port: Option<Spanned<u16>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawSpeaker {
    kind: Option<SpeakerKind>,
    manage_vrfs: Option<bool>,
    socket_dir: Option<Spanned<PathBuf>>,
    vtysh: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawHost {
    manage: Option<bool>,
    tenant_bgp: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawAgent {
    metrics: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVrf {
    name: Spanned<IfName>,
    table: Spanned<TableId>,
    vni: Option<Spanned<Vni>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    name: Spanned<NetName>,
    bridge: Spanned<IfName>,
    vni: Spanned<Vni>,
    vrf: Option<Spanned<IfName>>,
    #[serde(default)]
    gateway: Vec<Spanned<String>>,
    mac: Option<Mac>,
    mtu: Option<u32>,
    port_security: Option<PortSecurity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUnprivileged {
    user: Spanned<User>,
    networks: Vec<NetName>,
}

impl RawConfig {
    fn check(self) -> Result<Config, Fault> {
        let allow_guest_networks = self.allow_guest_networks.into();
        let mut config = Config { on_duplicate: self.on_duplicate, allow_guest_networks, ..Config::default() };
        self.vtep.check(&mut config.vtep)?;
        self.speaker.check(&mut config.speaker)?;
        config.manage_host = self.host.manage.unwrap_or(config.manage_host);
        config.tenant_bgp = self.host.tenant_bgp;
        config.metrics = self.agent.metrics.map(metrics_at).transpose()?;
        let mut taken = Taken::default();
        let vrfs = self.vrf.into_iter().map(|vrf| vrf.check(&mut taken)).collect::<Result<Vec<_>, _>>()?;
        config.networks =
            self.network.into_iter().map(|network| network.check(&vrfs, &mut taken)).collect::<Result<_, _>>()?;
        for entry in self.unprivileged {
            let entry = entry.check(&config.unprivileged)?;
            config.unprivileged.push(entry);
        }
        Ok(config)
    }
}

impl RawUnprivileged {
    fn check(self, before: &[Unprivileged]) -> Result<Unprivileged, Fault> {
        let user = match self.user.get_ref() {
            User::Name(name) if name == "root" => User::Id(0),
            User::Name(name) if name.is_empty() || name.contains(|c: char| c == ':' || c.is_control()) => {
                return Err(Fault::new(&self.user, format!("user {} is no user's name or number", quoted(name))));
            }
            User::Name(name) => name.parse().map_or_else(|_| User::Name(name.clone()), User::Id),
            User::Id(id) => User::Id(*id),
        };
        if user == User::Id(0) {
            return Err(Fault::new(&self.user, "user root needs no [[unprivileged]]: remove it"));
        }
        if before.iter().any(|b| b.user == user) {
            return Err(Fault::new(&self.user, format!("user {user} is there twice: list all networks in one place")));
        }
        Ok(Unprivileged { user, networks: self.networks })
    }
}

/// The longest path of a unix socket, in bytes: sun_path without its end (unix(7)).
const MAX_SOCKET: usize = 107;

fn metrics_at(at: Spanned<String>) -> Result<MetricsAt, Fault> {
    let text = at.get_ref();
    let wrong = |why: &str| {
        let what = format!(
            "[agent] metrics {}: {why}: write it as \"127.0.0.1:9471\" or \"/run/evpn-metrics.sock\"",
            quoted(text)
        );
        Err(Fault::new(&at, what))
    };
    if text.starts_with('/') {
        return match text.len() {
            ..=MAX_SOCKET if !text.contains('\0') => Ok(MetricsAt::Socket(text.into())),
            _ => wrong("a socket's path has 107 bytes at most"),
        };
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_loopback() => {
            wrong("it is for this host alone, and that is no loopback address")
        }
        Ok(address) if address.port() == 0 => wrong("port 0 is none"),
        Ok(address) => Ok(MetricsAt::Tcp(address)),
        Err(_) => wrong("it is no address with a port, and no absolute path"),
    }
}

impl RawVtep {
    fn check(self, vtep: &mut VtepConfig) -> Result<(), Fault> {
        match (self.address, self.interface) {
            (Some(address), Some(_)) => {
                return Err(Fault::new(&address, "[vtep] has both address and interface: keep one"));
            }
            (Some(address), None) => {
                let ip =
                    host_ip(address.get_ref()).map_err(|e| Fault::new(&address, format!("[vtep] address: {e}")))?;
                vtep.source = VtepSource::Address(ip);
            }
            (None, Some(interface)) => vtep.source = VtepSource::Interface(interface.into_inner()),
            (None, None) => (),
        }
        if let Some(port) = self.port {
            vtep.port = match *port.get_ref() {
                0 => return Err(Fault::new(&port, "[vtep] port 0 is none: use 4789, or the fabric's")),
                number => number,
            };
        }
        Ok(())
    }
}

impl RawSpeaker {
    fn check(self, speaker: &mut SpeakerConfig) -> Result<(), Fault> {
        speaker.kind = self.kind.unwrap_or(speaker.kind);
        speaker.manage_vrfs = self.manage_vrfs.unwrap_or(speaker.manage_vrfs);
        if let Some(dir) = self.socket_dir {
            if !dir.get_ref().is_absolute() {
                return Err(Fault::new(&dir, "[speaker] socket_dir is no absolute path: FRR's is /run/frr"));
            }
            speaker.socket_dir = dir.into_inner();
        }
        if let Some(vtysh) = self.vtysh {
            if !vtysh.get_ref().is_absolute() {
                return Err(Fault::new(&vtysh, "[speaker] vtysh is no absolute path: FRR's is /usr/bin/vtysh"));
            }
            speaker.vtysh = vtysh.into_inner();
        }
        Ok(())
    }
}

impl RawVrf {
    fn check(self, taken: &mut Taken) -> Result<Vrf, Fault> {
        let vrf = Vrf {
            name: self.name.get_ref().clone(),
            table: *self.table.get_ref(),
            vni: self.vni.as_ref().map(|vni| *vni.get_ref()),
        };
        let owner = format!("vrf {}", vrf.name);
        taken.device(&self.name, vrf.name.clone(), owner.clone())?;
        if let Some(l3) = vrf.l3_bridge().map_err(|e| Fault::new(&self.name, e.to_string()))? {
            taken.device(&self.name, l3, format!("the L3VNI bridge of {owner}"))?;
        }
        taken.table(&self.table, &owner)?;
        if let Some(vni) = &self.vni {
            taken.vni(vni, &owner)?;
        }
        Ok(vrf)
    }
}

impl RawNetwork {
    fn check(self, vrfs: &[Vrf], taken: &mut Taken) -> Result<Network, Fault> {
        let name = self.name.get_ref().clone();
        let owner = format!("network {name}");
        taken.network(&self.name, &owner)?;
        taken.device(&self.bridge, self.bridge.get_ref().clone(), format!("the bridge of {owner}"))?;
        taken.vni(&self.vni, &owner)?;
        let vrf = match &self.vrf {
            None => None,
            Some(wanted) => match vrfs.iter().find(|vrf| vrf.name == *wanted.get_ref()) {
                Some(vrf) => Some(vrf.clone()),
                None => {
                    let text = format!("{owner}: there is no [[vrf]] with name = \"{}\": add one", wanted.get_ref());
                    return Err(Fault::new(wanted, text));
                }
            },
        };
        let gateway = |text: &Spanned<String>| {
            text.get_ref().parse::<IpNet>().map_err(|_| {
                let shown = quoted(text.get_ref());
                Fault::new(text, format!("{owner}: gateway {shown} does not parse: write it as 10.1.0.1/24"))
            })
        };
        let network = Network {
            origin: Origin::Config,
            bridge: self.bridge.get_ref().clone(),
            vni: *self.vni.get_ref(),
            vrf,
            gateway: self.gateway.iter().map(gateway).collect::<Result<_, _>>()?,
            mac: self.mac,
            mtu: self.mtu,
            port_security: self.port_security,
            vlan_aware: false,
            stp: false,
            hosts: BTreeMap::new(),
            described: Some(Described {
                own_mac: self.mac.is_none(),
                mtu_told: self.mtu.is_some(),
                ..Described::default()
            }),
            name,
        };
        match network.problem() {
            Some(problem) => Err(Fault::new(&self.name, format!("{owner}: {problem}"))),
            None => Ok(network),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_the_default_unless_it_was_asked_for() {
        let path = Path::new("/nonexistent/config.toml");
        assert_eq!(load(path, false).unwrap(), Config::default());
        let error = load(path, true).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/config.toml: cannot open it (No such file"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn errors_name_the_file() {
        let dir = std::env::temp_dir().join(format!("evpn-hook-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("config.toml");
        let shown = path.display();
        let load_text = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            load(&path, false).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
        };
        assert_eq!(load_text(b"[vtep]\nport = 4789\n"), "");
        assert_eq!(
            load_text(b"\nvtap = 1\n"),
            format!(
                "{shown} line 2: unknown field `vtap`, expected one of `on_duplicate`, `allow_guest_networks`, `vtep`, `speaker`, `host`, `agent`, `vrf`, `network`, `unprivileged`"
            )
        );
        assert_eq!(load_text(b"[agent]\nmetrics = \"127.0.0.1:9471\"\n"), "");
        for (value, why) in [
            ("10.0.0.1:9471", "no loopback address"),
            ("0.0.0.0:9471", "no loopback address"),
            ("[::1]:0", "port 0 is none"),
            ("9471", "no address with a port"),
            ("run/metrics.sock", "no absolute path"),
            (&format!("/{}", "x".repeat(107)), "107 bytes"),
        ] {
            let error = load_text(format!("[agent]\nmetrics = \"{value}\"\n").as_bytes());
            assert!(error.starts_with(&format!("{shown} line 2: [agent] metrics '")) && error.contains(why), "{error}");
        }
        assert!(load_text(b"[agent]\nmetric = 1\n").contains("line 2: unknown field `metric`, expected `metrics`"));
        assert_eq!(load_text(b"# \xff\n"), format!("{shown}: it is not UTF-8: is this config.toml?"));
        assert_eq!(load_text(&vec![b'\n'; (1 << 20) + 1]), format!("{shown}: it is over 1 MiB: is this config.toml?"));
        assert!(load(&dir, true).unwrap_err().to_string().contains("cannot read it"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
