//! What was typed, and what it means. Flags do nothing here.
//!
//! libvirt, LXC and Proxmox VE call with fixed words; these are told apart by hand, because building the whole command line's grammar
//! costs a third of a hook's own work.

use crate::model::{IfName, Mac, NetName};
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where config.toml is, unless `--config` says otherwise.
pub const CONFIG: &str = "/etc/evpn-hook/config.toml";
/// Where the state is, unless `--state` says otherwise.
pub const STATE: &str = "/run/evpn-hook";

/// Puts guests on their EVPN tenant network and makes the whole fabric know them before their first instruction.
#[derive(Debug, Parser)]
#[command(name = "evpn-hook", version, max_term_width = 100)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// The configuration file [default: /etc/evpn-hook/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The state directory [default: /run/evpn-hook]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Say each step on stderr
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Keep a hook's call in this directory, for 'replay' [default: record in the state directory, if it is there]
    #[arg(long, global = true, value_name = "DIR")]
    pub record: Option<PathBuf>,
}

/// Keeps what evpn-hook set up as it should be, while the host runs; in the foreground, until it is killed.
#[derive(Debug, Parser)]
#[command(name = "evpn-agent", version, max_term_width = 100)]
pub struct AgentCli {
    /// The configuration file [default: /etc/evpn-hook/config.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The state directory [default: /run/evpn-hook]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Say each step on stderr
    #[arg(short, long)]
    verbose: bool,
}

impl AgentCli {
    /// The same as options of evpn-hook.
    pub fn common(self) -> Common {
        Common { config: self.config, state: self.state, verbose: self.verbose, ..Common::default() }
    }
}

/// clap explains over many lines; ours is one. What stands before its usage is what is wrong.
pub fn one_sentence(program: &str, explained: &str) -> String {
    let what = explained.split("\n\nUsage:").next().unwrap_or_default();
    let lines = what.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("For more information"));
    let what = lines.collect::<Vec<_>>().join(" ");
    format!("{}: see '{program} --help'", what.trim_start_matches("error: ").trim_end_matches(['.', ':']))
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a device on a network by hand and register its guest
    Attach(Attach),
    /// Withdraw what was attached
    Detach(Detach),
    /// Show networks and endpoints: what is wanted, what the kernel has, what the speaker says
    Status(Status),
    /// Look for the host's traps: kernel, underlay, bridges, speaker, hooks; each found one with its mend
    Doctor {
        /// Mend what is safe to mend: what sync would, and settings of our own devices
        #[arg(long)]
        fix: bool,
    },
    /// Show the chain from a guest to the fabric link by link, and mark the first broken one with what mends it
    Explain {
        /// A guest's name, its device, its MAC or its address; of a guest of another host the MAC or address
        #[arg(value_name = "GUEST|DEV|MAC|IP")]
        what: String,
    },
    /// Make the kernel and the speaker what they should be: repairs drift, ghosts, half-done work and a lost state
    Sync {
        /// Print the steps and take none
        #[arg(long)]
        dry_run: bool,
    },
    /// Bring networks up or down, on hosts without libvirt
    Network(NetworkArgs),
    /// Print the FRR stanzas for frr.conf
    FrrConfig {
        /// One network [default: all]
        network: Option<NetName>,
    },
    /// Link evpn-hook into libvirt's and LXC's hook directories
    Install(Install),
    /// Take the links out, and put host-wide settings back
    Uninstall(Install),
    /// What libvirt's qemu hook calls: NAME OPERATION SUBOPERATION EXTRA, the domain's XML on stdin
    Qemu {
        /// NAME OPERATION SUBOPERATION EXTRA
        #[arg(num_args = 2.., value_names = ["NAME", "OP"])]
        args: Vec<String>,
    },
    /// Print as JSON what a hook reads of a domain's or network's XML on stdin; asks and changes nothing
    Inspect {
        /// Which of libvirt's two: a domain, a network
        #[arg(value_name = "qemu|network", value_parser = ["qemu", "network"])]
        what: String,
    },
    /// Show what recorded calls of hooks would do, on any machine and without root
    Replay {
        /// A directory that --record wrote, or one file of it
        path: PathBuf,
    },
    /// What a migration's target leaves behind where no agent runs: waits for the guest to arrive
    #[command(hide = true)]
    Arrive {
        /// libvirt's UUID of the domain, the number of a VM of Proxmox VE
        #[arg(long, value_name = "ID")]
        guest_id: String,
        /// Who runs it
        #[arg(long, value_name = "KIND", default_value = "libvirt", value_parser = ["libvirt", "proxmox"])]
        guest_kind: String,
    },
    /// What Proxmox VE's hookscript of a VM is called with: VMID PHASE; also without this word
    Proxmox {
        /// VMID PHASE
        #[arg(num_args = 2.., value_names = ["VMID", "PHASE"])]
        args: Vec<String>,
    },
    /// What LXC's hooks call, with LXC_* in the environment
    Lxc {
        /// The network for a veth without lxc.net.N.link
        #[arg(long)]
        network: Option<NetName>,
        /// What LXC adds; ignored, because its version 0 shifts the words
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        rest: Vec<OsString>,
    },
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// Exit with 3 if anything is wrong
    #[arg(long)]
    pub check: bool,
    /// Show it anew whenever something changes, until Ctrl-C
    #[arg(long, conflicts_with = "check")]
    pub watch: bool,
    /// Draw it into this file, as a picture for a wiki page; - is stdout
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub svg: Option<PathBuf>,
}

/// `attach`
#[derive(Debug, Args)]
pub struct Attach {
    /// The host's end: tap or veth
    pub device: IfName,
    /// The network to join
    #[arg(long, value_name = "NET")]
    pub network: NetName,
    /// The guest's MAC
    #[arg(long, required_unless_present = "netns")]
    pub mac: Option<Mac>,
    /// An address of the guest; may be given more than once
    #[arg(long = "ip", value_name = "IP")]
    pub ips: Vec<IpAddr>,
    /// What the guest is called [default: the device's name]
    #[arg(long, value_name = "NAME")]
    pub guest: Option<String>,
    /// Read MAC and addresses in the namespace of this process, or at this path
    #[arg(long, value_name = "PID|PATH", conflicts_with_all = ["mac", "ips"])]
    pub netns: Option<String>,
    /// The device's name there [default: the peer of DEVICE]
    #[arg(long, value_name = "NAME", requires = "netns")]
    pub ifname: Option<IfName>,
    /// Wait until the speaker advertises it, at most so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "10")]
    pub wait: Option<f64>,
    /// Print what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `detach`
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Detach {
    /// One device
    pub device: Option<IfName>,
    /// All devices of a guest: its name, or as 'lxc/web' where several are called so
    #[arg(long, value_name = "NAME")]
    pub guest: Option<String>,
}

/// `network` by hand: `network up|down NET|--all`. libvirt's hook calls the same word with NAME OP SUBOP EXTRA.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// up NET, down NET; or libvirt's NAME OPERATION SUBOPERATION EXTRA
    #[arg(num_args = 1.., required = true, value_names = ["up|down"])]
    pub args: Vec<String>,
    /// Every network of config.toml; `up` also those that are up already
    #[arg(long)]
    pub all: bool,
    /// Print what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `install`, `uninstall`
#[derive(Debug, Clone, Args)]
pub struct Install {
    /// libvirt's hooks [default: both]
    #[arg(long)]
    pub libvirt: bool,
    /// LXC's hooks
    #[arg(long)]
    pub lxc: bool,
    /// Below this directory instead of /
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// Which hook is calling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookCall {
    /// libvirt's qemu hook.
    Qemu(Vec<String>),
    /// libvirt's network hook.
    Network(Vec<String>),
    /// Proxmox VE's hookscript of a VM.
    Proxmox(Vec<String>),
    /// One of LXC's.
    Lxc(Option<NetName>),
}

impl HookCall {
    /// What happened, in the hypervisor's words: `qemu start`, `network started`, `lxc start-host`.
    pub fn event(&self) -> String {
        let (who, what) = match self {
            HookCall::Qemu(args) => ("qemu", args.get(1).cloned()),
            HookCall::Network(args) => ("network", args.get(1).cloned()),
            HookCall::Proxmox(args) => ("proxmox", args.get(1).cloned()),
            HookCall::Lxc(_) => ("lxc", std::env::var("LXC_HOOK_TYPE").ok()),
        };
        format!("{who} {}", what.unwrap_or_default())
    }

    /// The call's words, for a person and for the name of a file.
    pub fn title(&self) -> String {
        match self {
            HookCall::Qemu(args) => format!("qemu {}", args.join(" ")),
            HookCall::Network(args) => format!("network {}", args.join(" ")),
            HookCall::Proxmox(args) => format!("proxmox {}", args.join(" ")),
            HookCall::Lxc(None) => "lxc".to_owned(),
            HookCall::Lxc(Some(network)) => format!("lxc --network {network}"),
        }
    }
}

/// Tells a hypervisor's call from a person's, without clap: by the name or directory that the program was called by, or by
/// the first word. `None` is a person's.
pub fn hook_call(argv: &[OsString]) -> Option<HookCall> {
    let words: Vec<String> = argv.iter().map(|w| w.to_string_lossy().into_owned()).collect();
    let (zero, rest) = words.split_first()?;
    let path = Path::new(zero);
    let named = |name: &str| {
        let base = path.file_name().is_some_and(|f| f == name);
        let dir = path.parent().and_then(Path::file_name).and_then(|d| d.to_str());
        base || dir.and_then(|d| d.strip_suffix(".d")) == Some(name)
    };
    if named("qemu") {
        return Some(HookCall::Qemu(rest.to_vec()));
    }
    if named("network") {
        return Some(HookCall::Network(rest.to_vec()));
    }
    if zero.ends_with("/lxc/hooks/evpn-hook") {
        return lxc_call(rest);
    }
    // NAME OPERATION SUBOPERATION EXTRA; `network up red -v --dry-run` is a person's. Proxmox VE has no word of its own: VMID PHASE.
    let hypervisors = |args: &[String]| matches!(args, [_, _, sub, _] if sub == "begin" || sub == "end");
    match rest.split_first()? {
        (word, args) if word == "qemu" && hypervisors(args) => Some(HookCall::Qemu(args.to_vec())),
        (word, args) if word == "network" && hypervisors(args) => Some(HookCall::Network(args.to_vec())),
        (word, args) if word == "lxc" => lxc_call(args),
        (vmid, [_, ..]) if !vmid.is_empty() && vmid.bytes().all(|b| b.is_ascii_digit()) => {
            Some(HookCall::Proxmox(rest.to_vec()))
        }
        _ => None,
    }
}

/// LXC puts what stands in the container's configuration first and its own words behind.
fn lxc_call(args: &[String]) -> Option<HookCall> {
    match args {
        [flag, network, ..] if flag == "--network" => Some(HookCall::Lxc(Some(network.parse().ok()?))),
        [first, ..] if first.starts_with('-') => None,
        _ => Some(HookCall::Lxc(None)),
    }
}

impl Common {
    /// config.toml's path, and whether it must be there.
    pub fn config_path(&self) -> (PathBuf, bool) {
        match &self.config {
            Some(path) => (path.clone(), true),
            None => (PathBuf::from(CONFIG), false),
        }
    }
    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| PathBuf::from(STATE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn call(words: &[&str]) -> Option<HookCall> {
        hook_call(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
        AgentCli::command().debug_assert();
    }

    #[test]
    fn every_option_has_help() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some() || arg.is_hide_set(), "{} {}", command.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn a_hook_is_known_by_its_name_directory_or_word() {
        let args = || ["vm1", "start", "begin", "-"].map(str::to_owned).to_vec();
        let all = ["vm1", "start", "begin", "-"];
        for zero in ["/etc/libvirt/hooks/qemu", "/etc/libvirt/hooks/qemu.d/50-evpn-hook"] {
            assert_eq!(call(&[&[zero], &all[..]].concat()), Some(HookCall::Qemu(args())));
        }
        assert_eq!(call(&[&["evpn-hook", "qemu"], &all[..]].concat()), Some(HookCall::Qemu(args())));
        assert_eq!(call(&[&["/x/network.d/e"], &all[..]].concat()), Some(HookCall::Network(args())));
        assert_eq!(call(&["evpn-hook", "network", "up", "red"]), None);
        assert_eq!(call(&["evpn-hook", "network", "up", "red", "-v", "--dry-run"]), None);
        assert_eq!(
            call(&["evpn-hook", "lxc", "--network", "red", "c1", "net"]),
            Some(HookCall::Lxc(Some("red".parse().unwrap())))
        );
        assert_eq!(call(&["evpn-hook", "lxc"]), Some(HookCall::Lxc(None)));
        let args = || ["100", "pre-start"].map(str::to_owned).to_vec();
        assert_eq!(call(&["/var/lib/vz/snippets/vm.pl", "100", "pre-start"]), Some(HookCall::Proxmox(args())));
        for persons in [&["evpn-hook", "100"][..], &["evpn-hook", "", "pre-start"], &["evpn-hook", "-1", "pre-start"]] {
            assert_eq!(call(persons), None, "{persons:?}");
        }
        assert_eq!(call(&["evpn-hook", "status"]), None);
    }
}
