//! What can go wrong between us and the kernel: one line each, with the object, the kernel's own words, and what to do.

use crate::model::IfName;
use crate::plan::Step;
use crate::tape::Untold;
use rustix::io::Errno;
use std::fmt;
use std::io;

/// Why one request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel said no: its errno, and its sentence where it has one (NLMSGERR_ATTR_MSG, the extended ACK).
    #[error("{}{}", io::Error::from_raw_os_error(*errno), Words(text))]
    Kernel {
        /// A positive errno(3).
        errno: i32,
        /// The extended ACK's text.
        text: Option<String>,
    },
    /// The socket failed: no memory, no permission to open one.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// An answer that does not parse.
    #[error("the kernel's answer does not parse: {0}")]
    Decode(String),
    /// NLM_F_DUMP_INTR on each try: the listing may lack entries, so it is not used.
    #[error("what the kernel lists changed while it was read, each of {0} times: try again")]
    Interrupted(u32),
    /// Nothing came, though rtnetlink answers before `send` returns.
    #[error("the kernel gave no answer")]
    NoAnswer,
    /// One message longer than any buffer that we would take.
    #[error("the kernel's answer of {0} bytes is too long")]
    TooLong(usize),
}

impl NetlinkError {
    /// The kernel's errno(3), positive.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Kernel { errno, .. } => Some(*errno),
            NetlinkError::Socket(error) => error.raw_os_error(),
            _ => None,
        }
    }

    /// Is it this errno?
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno.raw_os_error())
    }
}

/// What the kernel room could not read or do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket.
    #[error("open a netlink socket: {0}")]
    Open(NetlinkError),
    /// The other network namespace could not be entered.
    #[error("enter the network namespace: {cause}{}", Hint(hint_for(cause.raw_os_error(), None)))]
    Namespace {
        /// From setns(2), or from opening /proc/thread-self/ns/net.
        cause: io::Error,
    },
    /// The way back failed: this process now acts in somebody else's namespace and must stop.
    #[error("come back to our own network namespace: {cause}: the process must end now")]
    Stranded {
        /// From setns(2).
        cause: io::Error,
    },
    /// Something could not be read.
    #[error("read {what}: {cause}{}", Hint(hint_for(cause.errno(), None)))]
    Read {
        /// `link tap0`
        what: String,
        /// The kernel's answer.
        cause: NetlinkError,
    },
    /// What a tape says, or has not.
    #[error(transparent)]
    Tape(#[from] Untold),
    /// A step was refused.
    #[error("{step}: {cause}{}", Hint(*hint))]
    Step {
        /// The step as a command.
        step: String,
        /// The kernel's answer.
        cause: NetlinkError,
        /// What to do about it, where that is known.
        hint: Option<&'static str>,
    },
    /// A step names a device that is not there.
    #[error("{step}: there is no device {dev}")]
    NoDevice {
        /// The step as a command.
        step: String,
        /// The missing device.
        dev: IfName,
    },
    /// The kernel acknowledged a step and did not do it, as it does with attributes that it does not know.
    #[error("{step}: the kernel took it, but {missing} is not set afterwards: this kernel is too old")]
    Ignored {
        /// The step as a command.
        step: String,
        /// The attribute.
        missing: &'static str,
    },
    /// A file below /proc/sys could not be read or written.
    #[error("{what}: {cause}{}", Hint(hint_for(cause.raw_os_error(), None)))]
    Sysctl {
        /// `sysctl -w net.ipv4.ip_forward=1`
        what: String,
        /// From open(2), read(2) or write(2).
        cause: io::Error,
    },
    /// A step that the kernel room cannot do: the speaker's, or a sysctl in another namespace.
    #[error("{step}: not a step for this kernel handle")]
    NotOurs {
        /// The step as a command.
        step: String,
    },
}

impl KernelError {
    pub(super) fn step(step: &Step, cause: NetlinkError) -> KernelError {
        KernelError::Step { step: step.to_string(), hint: hint_for(cause.errno(), Some(step)), cause }
    }

    pub(super) fn no_device(step: &Step, dev: &IfName) -> KernelError {
        KernelError::NoDevice { step: step.to_string(), dev: dev.clone() }
    }

    /// The kernel's errno(3), positive, where it gave one; ENODEV for a device that we did not find.
    pub fn errno(&self) -> Option<i32> {
        match self {
            KernelError::Open(cause) | KernelError::Read { cause, .. } | KernelError::Step { cause, .. } => {
                cause.errno()
            }
            KernelError::Namespace { cause } | KernelError::Stranded { cause } | KernelError::Sysctl { cause, .. } => {
                cause.raw_os_error()
            }
            KernelError::NoDevice { .. } => Some(Errno::NODEV.raw_os_error()),
            KernelError::Ignored { .. } | KernelError::NotOurs { .. } | KernelError::Tape(_) => None,
        }
    }

    /// What was to be there already is (EEXIST): observe and plan again.
    pub fn exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST.raw_os_error())
    }

    /// What was to be changed is gone: observe and plan again.
    pub fn gone(&self) -> bool {
        self.errno().is_some_and(is_gone)
    }
}

/// The errnos that say "there is no such thing" for links, addresses, neighbours, FDB entries, rules and routes.
pub(super) fn is_gone(errno: i32) -> bool {
    [Errno::NOENT, Errno::NODEV, Errno::SRCH, Errno::ADDRNOTAVAIL].iter().any(|e| e.raw_os_error() == errno)
}

/// Had the kernel no memory for the request or its answer (netlink(7))?
pub(super) fn is_shortage(error: &NetlinkError) -> bool {
    error.is(Errno::NOBUFS) || error.is(Errno::NOMEM)
}

/// The errnos of a kernel or namespace without the protocol.
pub(super) fn is_unsupported(cause: &NetlinkError) -> bool {
    cause.is(Errno::AFNOSUPPORT) || cause.is(Errno::OPNOTSUPP)
}

fn hint_for(errno: Option<i32>, step: Option<&Step>) -> Option<&'static str> {
    match (Errno::from_raw_os_error(errno?), step) {
        (Errno::PERM, _) => Some("run as root"),
        (Errno::ACCESS, None) => Some("run as root"),
        (Errno::ADDRINUSE, Some(Step::SetUp { .. })) => {
            Some("another program has the tunnels' UDP port: end it (ss -ulpn), or set another [vtep] port")
        }
        // One that is in sight was refused before, with its name.
        (Errno::EXIST, Some(Step::AddVxlan { .. })) => Some(
            "a device with this VNI and port may be in another network namespace (Docker's overlays are in some): take another VNI, or end what has it",
        ),
        (Errno::OPNOTSUPP, Some(Step::AddVrf { .. })) => Some("this kernel has no VRF (CONFIG_NET_VRF, module vrf)"),
        (Errno::OPNOTSUPP, Some(Step::AddVxlan { .. })) => {
            Some("this kernel has no VXLAN (CONFIG_VXLAN, module vxlan)")
        }
        (Errno::OPNOTSUPP, Some(Step::AddBridge { .. })) => {
            Some("this kernel has no bridge (CONFIG_BRIDGE, module bridge)")
        }
        (Errno::OPNOTSUPP | Errno::INVAL, Some(Step::AddFdb { .. } | Step::SetVxlanPort { .. })) => {
            Some("is the device a port of a bridge?")
        }
        (Errno::ACCESS | Errno::INVAL, Some(Step::AddAddress { .. } | Step::AddNeigh { .. })) => {
            Some("is IPv6 disabled on this device (net.ipv6.conf.*.disable_ipv6)?")
        }
        _ => None,
    }
}

struct Words<'a>(&'a Option<String>);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}
