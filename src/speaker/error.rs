//! What can go wrong between us and FRR, in one line each.

use crate::model::{IfName, quoted};
use std::path::PathBuf;
use std::time::Duration;

/// Why FRR did not answer or did not obey. A guest or a network starts all the same: the kernel's entries are there when FRR comes back.
#[derive(Debug, thiserror::Error)]
pub enum SpeakerError {
    /// No daemon behind the socket.
    #[error(
        "{daemon} is not running ({path}: {cause}): start FRR (systemctl start frr){}, or set [speaker] kind = \"none\"",
        enabled(daemon)
    )]
    NotRunning {
        /// `zebra` or `bgpd`.
        daemon: &'static str,
        /// The socket that was tried.
        path: PathBuf,
        /// The kernel's own words.
        cause: std::io::Error,
    },
    /// FRR is there, and nothing to configure it with.
    #[error(
        "cannot run vtysh ({path}: {cause}): install FRR's vtysh, or say where it is: [speaker] vtysh in config.toml"
    )]
    NoVtysh {
        /// The program that was tried.
        path: PathBuf,
        /// The kernel's own words.
        cause: std::io::Error,
    },
    /// bgpd runs without a `router bgp`: there is no AS to put a VRF under.
    #[error(
        "bgpd has no 'router bgp': put 'router bgp AS' with 'address-family l2vpn evpn / advertise-all-vni' into frr.conf"
    )]
    NoBgp,
    /// The daemon is there and did not finish in time; the connection is given up.
    #[error("{daemon} did not answer '{command}' within {} ms: look at its log and at 'systemctl status frr'", within.as_millis())]
    Timeout {
        /// `zebra`, `bgpd` or `vtysh`.
        daemon: &'static str,
        /// What was asked.
        command: String,
        /// How long we waited.
        within: Duration,
    },
    /// FRR understood and said no.
    #[error("FRR refused '{command}': {}: try it in vtysh", quoted(words))]
    Refused {
        /// What was asked; several configuration lines are joined by ` / `.
        command: String,
        /// FRR's own words.
        words: String,
    },
    /// FRR took the configuration without a word, and the running configuration does not show it.
    #[error(
        "FRR took '{command}' but its running configuration shows no change: look at 'vtysh -c \"show running-config\"'"
    )]
    NoEffect {
        /// The configuration lines, joined by ` / `.
        command: String,
    },
    /// The running FRR has something else where our lines belong.
    #[error(
        "FRR's running configuration disagrees: {found}, wanted {wanted}: change one of the two (what 'write memory' left of a network that is gone: take it out in vtysh and in frr.conf)"
    )]
    Conflict {
        /// What FRR has.
        found: String,
        /// What we would have put there.
        wanted: String,
    },
    /// bgpd holds an L3VNI that zebra no longer has, because the VRF's device went before the configuration did.
    #[error(
        "bgpd still holds L3VNI {vni} for vrf {vrf} and will not let the instance go: make the VRF again, then take it down"
    )]
    Stale {
        /// The VRF.
        vrf: IfName,
        /// The L3VNI.
        vni: u32,
    },
    /// The daemon has more to say than is read at once: nothing is known of what was asked.
    #[error("{daemon} answered '{command}' with more than {} MiB, which is more than is read at once", most >> 20)]
    TooLarge {
        /// `zebra` or `bgpd`.
        daemon: &'static str,
        /// What was asked.
        command: String,
        /// The largest answer that is read, in bytes.
        most: usize,
    },
    /// The questions before this one took all the time that a report has for them, or the lists before this list.
    #[error(
        "{daemon} was not asked '{command}': what was asked before took the {} ms that there are for all of it: look at its log and at 'systemctl status frr'",
        within.as_millis()
    )]
    NotAsked {
        /// `zebra` or `bgpd`.
        daemon: &'static str,
        /// What was not asked.
        command: String,
        /// The time for all together.
        within: Duration,
    },
    /// The answer is not what this command answers: truncated, or not JSON.
    #[error("{daemon} answered '{command}' with {what}: FRR 8.4 or newer is needed")]
    Garbage {
        /// `zebra` or `bgpd`.
        daemon: &'static str,
        /// What was asked.
        command: String,
        /// What is wrong with the answer.
        what: String,
    },
}

impl SpeakerError {
    /// True where FRR is absent or does not tell, rather than in disagreement: nothing is wrong with what we asked for.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            SpeakerError::NotRunning { .. }
                | SpeakerError::NoVtysh { .. }
                | SpeakerError::NoBgp
                | SpeakerError::Timeout { .. }
                | SpeakerError::TooLarge { .. }
                | SpeakerError::NotAsked { .. }
        )
    }
}

/// Debian's FRR starts zebra always, and of the others those that this file names.
fn enabled(daemon: &str) -> &'static str {
    if daemon == "bgpd" { " with bgpd=yes in /etc/frr/daemons" } else { "" }
}
