//! The only room that knows FRR: what it should be told ([`stanzas`], [`Frr::configure`]), and what it says ([`Frr::advertised`], …).
//!
//! Nothing has to be told per guest: zebra reads the kernel's entries. It is told of VRFs, once per VRF, and asked whether it has what we installed.
//! Questions go over the daemons' vty sockets, configuration through vtysh. Everything has a deadline: a frozen FRR costs a hook time, never a guest.
//!
//! Laws of order between a VRF's configuration and its devices, each tried on FRR 8.4.4 and Linux 6.1:
//!
//! 1. **Up: any order works; the configuration before the VXLAN devices is best.** Configured before the VRF device exists, between, or after
//!    everything: the L3VNI comes up, type-5 and MAC+IP with both labels are advertised, also for endpoints that were there before. With the
//!    configuration first bgpd never makes an instance by itself (BGP_VRF_AUTO), which later blocks `no router bgp` (FRR issue 17903).
//!    The crash of FRR issue 22851 is another matter: a VXLAN device that appears while *no* instance has `advertise-all-vni` can kill bgpd
//!    (`bgp_evpn_local_vni_add`; reported for 10.6, not seen with 8.4.4). That line is the operator's, in the default instance: [`Frr::evpn`] tells whether it is there.
//! 2. **Down: the configuration out first, and only then the VRF device.** zebra tells bgpd of the L3VNI's end by the VRF's id. If the device goes
//!    first, bgpd forgets the id before the message comes (9 of 12 tries; FRR PR 16059 saw 1 of 5) and holds the L3VNI for ever: `no router bgp
//!    AS vrf X` is refused with "Please unconfigure l3vni N", and without an instance of our own a ghost named "Unknown" stays that even blocks
//!    `no router bgp AS`. The VRF device must outlive [`Frr::unconfigure`], and so must the L3VNI's bridge and VXLAN: zebra keeps pointers to both, and
//!    lets go of the bridge's only when it goes down while the VXLAN is up and a port of it, or with the L3VNI (zebra_vxlan.c
//!    `zebra_vxlan_svi_down`, `zebra_vxlan_process_vrf_vni_cmd`; 8.4.4 to 10.7.0). The VXLAN is off its bridge by then, or zebra makes an
//!    L2VNI of it.
//! 3. **`no vni` before `no router bgp`**, with time for zebra's message to reach bgpd: 1 of 12 was refused when asked at once. See `release`.
//! 4. **`no vrf X` only after the device is gone** ("Only inactive VRFs can be deleted"). We leave it: no configuration line is left, only a name in
//!    `show vrf`, and the next network of that name finds it again.
//! 5. **`bgp router-id` stands in the instance from the start.** Without it bgpd takes one of the VRF's own addresses: the anycast gateway, the same
//!    on every host. The type-5 routes' route distinguisher is made of it, and of two hosts' routes that share one a route reflector passes on
//!    only one (RFC 7432 §7.9 wants it unique per VTEP). So it gets that of the host's EVPN instance.

mod advertised;
mod conf;
mod configure;
mod error;
mod fabric;
pub(crate) mod render;
pub(crate) mod running;
pub(crate) mod show;
mod vty;
mod vtysh;
mod whole;
mod whose;

pub use advertised::{Address, Advertised, Dump};
pub use conf::{Stanza, stanzas_in};
pub use error::SpeakerError;
pub use fabric::Received;
pub use render::{Added, BgpLine, stanzas};
pub use running::{Instance, Running};
pub use show::{Announced, ArpState, MacState, Path as RoutePath, Peer, Targets, Version, VniInfo, VniKind, VrfInfo};
pub use vty::Vty;
pub use whole::Whole;

use crate::model::{IfName, Mac, Vni};
use ipnet::IpNet;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The running FRR. Connects at the first question to each daemon and keeps the connections.
#[derive(Debug)]
pub struct Frr {
    dir: PathBuf,
    vtysh: PathBuf,
    config_deadline: Duration,
    zebra: Vty,
    bgpd: Vty,
    /// What is left for lists, where there is a limit.
    lists: Option<Duration>,
    /// Single questions for endpoints up to now; see [`Frr::advertised_all`].
    singles: usize,
}

/// A daemon that is asked.
#[derive(Debug, Clone, Copy)]
enum Daemon {
    Zebra,
    Bgpd,
}

impl Frr {
    /// For one question. A healthy daemon answers in 30 to 70 µs; a list takes as long as it is.
    pub const DEADLINE: Duration = Duration::from_secs(2);
    /// For what zebra hears from the kernel.
    pub const HEARD: Duration = Duration::from_millis(500);
    /// For one vtysh.
    pub const CONFIG_DEADLINE: Duration = Duration::from_secs(5);
    /// For all questions of one report: who asked for it waits. What was not asked by then is not told.
    pub const REPORT: Duration = Duration::from_millis(1800);
    /// For one of them.
    pub const OF_REPORT: Duration = Duration::from_millis(1500);
    /// For all lists among them: bgpd does nothing else while it makes one.
    pub const LISTS: Duration = Duration::from_millis(1200);

    /// The FRR whose sockets are in this directory (`[speaker] socket_dir`).
    pub fn new(dir: &Path) -> Frr {
        Frr::with_deadlines(dir, Frr::DEADLINE, Frr::CONFIG_DEADLINE)
    }

    /// The same with other deadlines: for one question, and for one vtysh.
    pub fn with_deadlines(dir: &Path, deadline: Duration, config_deadline: Duration) -> Frr {
        Frr {
            dir: dir.to_owned(),
            vtysh: PathBuf::from("/usr/bin/vtysh"),
            config_deadline,
            zebra: Vty::new(dir, "zebra", deadline),
            bgpd: Vty::new(dir, "bgpd", deadline),
            lists: None,
            singles: 0,
        }
    }

    /// For a report that asks no more from then on; its lists get [`Frr::LISTS`] of that.
    pub fn for_report(self, last: Instant) -> Frr {
        let until = |vty: Vty| vty.for_report(last, Frr::OF_REPORT);
        Frr { zebra: until(self.zebra), bgpd: until(self.bgpd), lists: Some(Frr::LISTS), ..self }
    }

    /// With a vtysh that is not /usr/bin/vtysh.
    pub fn with_vtysh(self, program: &Path) -> Frr {
        Frr { vtysh: program.to_owned(), ..self }
    }

    /// Where its sockets are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// bgpd's version; none where it calls itself something else.
    pub fn version(&mut self) -> Result<Option<Version>, SpeakerError> {
        self.bgpd.show("show version").map(|text| show::version(&text))
    }

    /// Do zebra and bgpd answer at all? What says not even its version is dead, frozen or busy with what somebody else asked.
    pub fn answers(&mut self) -> Result<(), SpeakerError> {
        // bgpd first: where it is gone zebra forgets the VNIs, and that would be told as zebra's fault.
        for vty in [&mut self.bgpd, &mut self.zebra] {
            match vty.show("show version") {
                Err(error) if error.is_absence() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Does mgmtd run? From [`Version::MGMTD`] on it has to.
    pub fn mgmtd(&self) -> Result<(), SpeakerError> {
        Vty::new(&self.dir, "mgmtd", Frr::DEADLINE).with_limits_of(&self.bgpd).reach()
    }

    /// bgpd's running configuration.
    pub fn running(&mut self) -> Result<Running, SpeakerError> {
        self.bgpd.show_enabled("show running-config").map(|text| running::parse(&text))
    }

    /// The AS of the instance that speaks EVPN for this host; none where bgpd has no `router bgp`.
    pub fn local_as(&mut self) -> Result<Option<u32>, SpeakerError> {
        Ok(self.running()?.evpn().map(|instance| instance.asn))
    }

    /// The router-id of that instance; none where it has none.
    pub fn router_id(&mut self) -> Result<Option<Ipv4Addr>, SpeakerError> {
        let running = self.running()?;
        let bgpd = ask(&mut self.bgpd, BGP_VRFS)?;
        Ok(running.evpn().and_then(|instance| show::router_id(&bgpd, instance.vrf.as_deref())))
    }

    /// Does bgpd advertise the host's VNIs (`advertise-all-vni`)? Without it nothing that we install leaves the host.
    pub fn evpn(&mut self) -> Result<bool, SpeakerError> {
        Ok(self.running()?.advertises_all_vni())
    }

    /// What zebra knows of a VNI; none where it does not know it (device missing or down, or no `advertise-all-vni`).
    pub fn vni(&mut self, vni: Vni) -> Result<Option<VniInfo>, SpeakerError> {
        Ok(show::vni(&ask(&mut self.zebra, &format!("show evpn vni {vni} json"))?))
    }

    /// How many MACs and addresses zebra has in all VNIs of the host, its own and others': about as many entries has the kernel. The answer grows with
    /// the VNIs, not with the fabric.
    pub fn entries(&mut self) -> Result<usize, SpeakerError> {
        Ok(show::all_entries(&ask(&mut self.zebra, "show evpn vni json")?))
    }

    /// What zebra and bgpd know of a VRF now.
    pub fn vrf(&mut self, name: &IfName) -> Result<VrfInfo, SpeakerError> {
        let VrfLists { zebra, bgpd } = self.vrf_lists()?;
        Ok(show::vrf(&zebra, &bgpd, name.as_str()))
    }

    /// Returns once zebra knows this VRF's device; a zebra that does not run will read it before any route.
    pub fn await_vrf(&mut self, name: &IfName) -> Result<(), SpeakerError> {
        self.await_of_zebra("show vrf", &format!("with VRF {name}"), |text| show::has_vrf(text, name.as_str()))
    }

    /// Returns once zebra has this device on this bridge.
    pub fn await_port(&mut self, device: &IfName, bridge: &IfName) -> Result<(), SpeakerError> {
        let master = format!("Master interface: {bridge}");
        let is_so = |text: &str| text.lines().any(|line| line.trim() == master);
        self.await_of_zebra(&format!("show interface {device}"), &format!("a port of {bridge}"), is_so)
    }

    /// Is EVPN off in zebra, since bgpd does not run or has no `advertise-all-vni`? Then zebra shows nothing of it (`zebra_vxlan_print_evpn`), and does not
    /// hear of VXLANs that come and go. False where zebra does not answer.
    pub fn is_deaf(&mut self) -> bool {
        matches!(self.zebra.show("show evpn"), Ok(text) if text.trim().is_empty())
    }

    /// Returns once zebra knows that this device is gone.
    pub fn await_gone(&mut self, device: &IfName) -> Result<(), SpeakerError> {
        let (command, there) = (format!("show interface {device}"), format!("Interface {device} is"));
        self.await_of_zebra(&command, "gone", |text| !text.contains(&there))
    }

    /// Asks zebra until its answer is so; one that does not run is not waited for.
    fn await_of_zebra(&mut self, command: &str, what: &str, is_so: impl Fn(&str) -> bool) -> Result<(), SpeakerError> {
        let until = Instant::now() + Frr::HEARD;
        loop {
            match self.zebra.show(command) {
                Err(SpeakerError::NotRunning { .. }) => return Ok(()),
                // It knows no such device.
                Err(SpeakerError::Refused { .. }) if is_so("") => return Ok(()),
                Ok(text) if is_so(&text) => return Ok(()),
                Ok(_) | Err(SpeakerError::Refused { .. }) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1))
                }
                Err(error) => return Err(error),
                Ok(_) => {
                    let command = format!("{command} ({what})");
                    return Err(SpeakerError::Timeout { daemon: "zebra", command, within: Frr::HEARD });
                }
            }
        }
    }

    /// What both daemons say of all VRFs. A bgpd that does not run has no instance.
    fn vrf_lists(&mut self) -> Result<VrfLists, SpeakerError> {
        let zebra = ask(&mut self.zebra, "show vrf vni json")?;
        let bgpd = match ask(&mut self.bgpd, BGP_VRFS) {
            Err(SpeakerError::NotRunning { .. }) => Value::Null,
            answer => answer?,
        };
        Ok(VrfLists { zebra, bgpd })
    }

    /// The addresses that zebra knows of an interface in this VRF; none of one that it does not know there.
    pub fn addresses(&mut self, device: &IfName, vrf: &IfName) -> Result<Vec<IpNet>, SpeakerError> {
        self.zebra.show(&format!("show interface {device}")).map(|text| show::interface(&text, vrf.as_str()))
    }

    /// What zebra knows of a MAC.
    pub fn mac(&mut self, vni: Vni, mac: Mac) -> Result<MacState, SpeakerError> {
        Ok(show::mac(&ask(&mut self.zebra, &format!("show evpn mac vni {vni} mac {mac} json"))?, mac))
    }

    /// The same, and the addresses that zebra knows with it, this host's or another's.
    pub fn mac_with_addresses(&mut self, vni: Vni, mac: Mac) -> Result<(MacState, Vec<IpAddr>), SpeakerError> {
        let answer = ask(&mut self.zebra, &format!("show evpn mac vni {vni} mac {mac} json"))?;
        Ok((show::mac(&answer, mac), show::addresses_of(&answer, mac)))
    }

    /// What zebra knows of an address.
    pub fn arp(&mut self, vni: Vni, ip: IpAddr) -> Result<ArpState, SpeakerError> {
        Ok(show::arp(&ask(&mut self.zebra, &format!("show evpn arp-cache vni {vni} ip {ip} json"))?))
    }

    /// Has bgpd a type-2 route of our own for this MAC, or MAC and address, as its best?
    pub fn bgp_route(&mut self, vni: Vni, mac: Mac, ip: Option<IpAddr>) -> Result<bool, SpeakerError> {
        let of = ip.map_or_else(String::new, |ip| format!(" ip {ip}"));
        let found =
            show::route(&ask(&mut self.bgpd, &format!("show bgp l2vpn evpn route vni {vni} mac {mac}{of} json"))?);
        if found || ip.is_some() {
            return Ok(found);
        }
        // FRR 10 finds no route of a MAC that way (10.7.1 says {}), but does where bgpd announces it from: below the VNI's distinguisher.
        let of_vni = self.ask_more(&format!("show bgp l2vpn evpn vni {vni} json"))?;
        let Some(rd) = show::distinguisher(&of_vni) else { return Ok(false) };
        Ok(show::route(&self.ask_more(&format!("show bgp l2vpn evpn route rd {rd} mac {mac} json"))?))
    }

    /// A question of bgpd whose answer, where there is nothing, is any words of some version ("% Network not in table"; 8.4.4 says `{}` twice
    /// of a VNI that it does not know).
    fn ask_more(&mut self, command: &str) -> Result<Value, SpeakerError> {
        let answer = self.bgpd.show(command);
        or_nothing(&self.bgpd, command, answer)
    }
}

impl Frr {
    /// A question whose answer grows with the fabric.
    fn list(&mut self, daemon: Daemon, command: &str) -> Result<Value, SpeakerError> {
        let text = self.list_text(daemon, command)?;
        parsed(self.vty(daemon), command, &text)
    }

    /// The same of bgpd, where words for nothing may come; see [`Frr::ask_more`].
    fn list_more(&mut self, command: &str) -> Result<Value, SpeakerError> {
        let answer = self.list_text(Daemon::Bgpd, command);
        or_nothing(&self.bgpd, command, answer)
    }

    fn vty(&mut self, daemon: Daemon) -> &mut Vty {
        match daemon {
            Daemon::Zebra => &mut self.zebra,
            Daemon::Bgpd => &mut self.bgpd,
        }
    }

    fn list_text(&mut self, daemon: Daemon, command: &str) -> Result<String, SpeakerError> {
        let Some(mut left) = self.lists else { return self.vty(daemon).show(command) };
        let vty = self.vty(daemon);
        if left.is_zero() {
            return Err(vty.not_asked(command, Frr::LISTS));
        }
        let began = Instant::now();
        let answer = vty.show_within(command, left);
        left = match &answer {
            Err(SpeakerError::Timeout { .. }) => Duration::ZERO,
            _ => left.saturating_sub(began.elapsed()),
        };
        self.lists = Some(left);
        answer
    }
}

const BGP_VRFS: &str = "show bgp vrfs json";

#[derive(Debug)]
struct VrfLists {
    zebra: Value,
    bgpd: Value,
}

/// FRR's words in place of JSON say that there is nothing, or that this version has no such question. What is left of a JSON that was cut says nothing at all.
fn or_nothing(vty: &Vty, command: &str, answer: Result<String, SpeakerError>) -> Result<Value, SpeakerError> {
    match answer {
        Err(SpeakerError::Refused { words, .. }) if show::is_nothing(&words) => Ok(Value::Null),
        Ok(text) if show::is_nothing(&text) => Ok(Value::Null),
        answer => parsed(vty, command, &answer?),
    }
}

fn ask(vty: &mut Vty, command: &str) -> Result<Value, SpeakerError> {
    let text = vty.show(command)?;
    parsed(vty, command, &text)
}

fn parsed(vty: &Vty, command: &str, text: &str) -> Result<Value, SpeakerError> {
    show::json(text).map_err(|what| vty.garbage(command, what))
}

#[cfg(test)]
#[path = "report_test.rs"]
mod report_test;
