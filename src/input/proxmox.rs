//! Proxmox VE's hookscript of a VM: `VMID PHASE`, and the VM's configuration, which it does not pass on (pve-guest-common's GuestHelpers.pm
//! `exec_hookscript`, qemu-server's QemuServer.pm `vm_start_nolock`, `vm_stop_cleanup`, `parse_vm_config`).
//!
//! The taps `tap<VMID>i<N>` are made, and put on their bridges, by QEMU's own script (qemu-server's pve-bridge) between pre-start and post-start; so
//! only pre-start can keep a VM from starting, and only post-start has something to register.

use super::InputError;
use crate::event::{Event, Flaw, GuestPhase, Nic};
use crate::model::{Address, Guest, GuestKind, IfName, Mac, Source, host_ip, quoted};
use std::collections::BTreeMap;

/// net0 to net31 (QemuServer.pm `$MAX_NETS`).
const MAX_NETS: u8 = 32;
/// JSONSchema.pm `pve-vmid`.
const MAX_VMID: u32 = 999_999_999;
/// The lock that both ends of a migration hold (QemuMigrate.pm `prepare`, API2/Qemu.pm `mtunnel`).
const MIGRATES: &str = "migrate";

/// What Proxmox VE said on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The VM.
    pub vmid: u32,
    /// What happens to it.
    pub phase: Phase,
}

/// The life of a VM, as far as it means something for us. What there is of it at `pre-stop` stays: a guest that shuts down by itself has no such phase,
/// and one that does not shut down in time runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing exists yet; a failure stops the start, or the migration to here.
    PreStart,
    /// QEMU runs, its taps are on their bridges; a failure is shown and stops nothing.
    PostStart,
    /// QEMU is gone, and its taps.
    PostStop,
}

/// Reads the hook's words; `None` for phases without a meaning for us.
pub fn call<S: AsRef<str>>(args: &[S]) -> Result<Option<Call>, InputError> {
    let [vmid, phase, ..] = args else {
        return Err(InputError::new("the hookscript was called without VMID and PHASE: Proxmox VE gives both", false));
    };
    let phase = match phase.as_ref() {
        "pre-start" => Phase::PreStart,
        "post-start" => Phase::PostStart,
        "post-stop" => Phase::PostStop,
        _ => return Ok(None),
    };
    match vmid.as_ref().parse() {
        Ok(vmid @ 1..=MAX_VMID) => Ok(Some(Call { vmid, phase })),
        _ => {
            let what =
                format!("VMID {} is not 1 to {MAX_VMID}: Proxmox VE gives the VM's number", quoted(vmid.as_ref()));
            Err(InputError::new(&what, false))
        }
    }
}

/// The node that a migration comes from, whose configuration of the VM holds until it is here (pve-bridge reads it there, too). An unset variable is an
/// empty one in Perl.
pub fn node(text: &str) -> Result<Option<&str>, InputError> {
    let plain = text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match plain {
        true => Ok(Some(text).filter(|text| !text.is_empty())),
        false => {
            let what = format!("PVE_MIGRATED_FROM {} is no node: Proxmox VE gives the source's name", quoted(text));
            Err(InputError::new(&what, false))
        }
    }
}

/// A line that counts.
enum Line<'a> {
    Name(&'a str),
    Lock(&'a str),
    Net(u8, &'a str),
    Addresses(u8, &'a str),
}

fn line(text: &str) -> Option<Line<'_>> {
    let (key, value) = text.split_once(':')?;
    let value = value.trim();
    let number = |text: &str| (0..MAX_NETS).find(|n| n.to_string() == text);
    match key {
        _ if value.is_empty() => None,
        "name" => Some(Line::Name(value)),
        "lock" => Some(Line::Lock(value)),
        _ => match (key.strip_prefix("net"), key.strip_prefix("ipconfig")) {
            (Some(n), _) => Some(Line::Net(number(n)?, value)),
            (_, Some(n)) => Some(Line::Addresses(number(n)?, value)),
            _ => None,
        },
    }
}

/// `[PENDING]`, `[special:cloudinit]` or a snapshot's name: what follows is not how the VM runs now.
fn is_section(line: &str) -> bool {
    let inner = line.trim_end().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| !inner.contains(']'))
}

/// Those lines of a configuration that count, for whoever keeps it: passwords stand in the same file.
pub fn kept(text: &str) -> String {
    let now = text.lines().take_while(|line| !is_section(line));
    now.filter(|text| line(text).is_some()).flat_map(|line| [line, "\n"]).collect()
}

/// What a configuration says of the VM as it runs now.
#[derive(Default)]
struct Vm<'a> {
    name: Option<&'a str>,
    lock: Option<&'a str>,
    nets: BTreeMap<u8, &'a str>,
    addresses: BTreeMap<u8, &'a str>,
}

impl Vm<'_> {
    /// Of what stands twice Proxmox takes the last.
    fn of(text: &str) -> Vm<'_> {
        let mut vm = Vm::default();
        for line in text.lines().take_while(|line| !is_section(line)).filter_map(line) {
            match line {
                Line::Name(name) => vm.name = Some(name),
                Line::Lock(lock) => vm.lock = Some(lock),
                Line::Net(n, net) => drop(vm.nets.insert(n, net)),
                Line::Addresses(n, ips) => drop(vm.addresses.insert(n, ips)),
            }
        }
        vm
    }

    fn nics(&self, vmid: u32) -> Vec<Nic> {
        let nic = |(n, net): (&u8, &&str)| nic(vmid, *n, net, self.addresses.get(n).copied().unwrap_or_default());
        self.nets.iter().filter_map(nic).collect()
    }
}

/// `virtio=BC:24:11:00:00:01,bridge=red-l2,firewall=1`
fn properties(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter_map(|property| property.trim().split_once('='))
}

/// None where it has no bridge: that is QEMU's own NAT.
fn nic(vmid: u32, n: u8, net: &str, addresses: &str) -> Option<Nic> {
    let get = |key: &str| properties(net).find(|(k, _)| *k == key).map(|(_, value)| value);
    let bridge = get("bridge")?;
    // It stands behind the model of the card, of which there are many, or behind macaddr=; nothing else looks like one.
    let mac: Option<Mac> = properties(net).find_map(|(_, value)| value.parse().ok());
    // JSONSchema.pm `parse_boolean`.
    let is_on = |value: &str| ["1", "on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word));
    let vlan = ["tag", "trunks"].into_iter().find(|key| get(key).is_some());
    let flaw = if mac.is_none() {
        Some(format!("its net{n} has no MAC that one guest could have (multicast, zero, or not one): give it another"))
    } else if let Some(key) = vlan {
        Some(format!(
            "its net{n} asks for a VLAN ({key}=), which a network of evpn-hook's does not have: use a network of its own for it, or remove {key}="
        ))
    } else if get("firewall").is_some_and(is_on) {
        Some(format!(
            "its net{n} has firewall=1, for which Proxmox puts a bridge of its own, fwbr{vmid}i{n}, between the VM and the network's: set firewall=0"
        ))
    } else {
        None
    };
    // dhcp, auto and manual are no addresses: what the guest is given then it is heard to have.
    let ip = |(key, value): (&str, &str)| {
        let ip = matches!(key, "ip" | "ip6").then(|| value.split('/').next().and_then(|ip| host_ip(ip).ok()));
        Some(Address::new(ip??, Source::Metadata))
    };
    let mut ips: Vec<Address> = Vec::new();
    for ip in properties(addresses).filter_map(ip) {
        if !ips.iter().any(|known| known.ip == ip.ip) && ips.len() < 2 {
            ips.push(ip);
        }
    }
    Some(Nic {
        device: format!("tap{vmid}i{n}").parse::<IfName>().ok(),
        mac,
        bridge: bridge.parse().ok(),
        ips,
        flaw: flaw.map(|why| Flaw { why, in_metadata: false }),
        ..Nic::default()
    })
}

/// What one call means, with the VM's configuration (for `post-stop` none is needed) and whether it comes from another node. What libvirt tells in
/// several calls Proxmox tells in one, so there may be several events.
pub fn read(call: Call, migrates: bool, configuration: &str) -> Vec<Event> {
    let Call { vmid, phase } = call;
    let vm = Vm::of(configuration);
    let id = vmid.to_string();
    let (guest, unnamed) = Guest::shown(GuestKind::Proxmox, vm.name.unwrap_or(&id), &id);
    let flaw = unnamed.map(|why| Flaw { why: why.to_string(), in_metadata: false });
    // Between two clusters the variable is not set.
    let migrates = migrates || vm.lock == Some(MIGRATES);
    let bare = |phase| Event::Guest { phase, guest: guest.clone(), nics: Vec::new(), flaw: None, notes: Vec::new() };
    let with_nics = |phase| {
        let (nics, flaw) = (vm.nics(vmid), flaw.clone());
        Event::Guest { phase, guest: guest.clone(), nics, flaw, notes: Vec::new() }
    };
    let started = GuestPhase::Started { running: Some(!migrates) };
    match phase {
        // What an earlier run left goes: Proxmox does not tell the source of a migration, nor of a host's loss of power, that a VM is gone.
        Phase::PreStart => vec![with_nics(GuestPhase::Prepare), bare(GuestPhase::Stopped)],
        Phase::PostStart if migrates => {
            vec![bare(GuestPhase::Incoming), with_nics(GuestPhase::Start), bare(started)]
        }
        Phase::PostStart => vec![with_nics(GuestPhase::Start), bare(started)],
        Phase::PostStop => vec![bare(GuestPhase::Stopped)],
    }
}

/// Does its configuration say that the VM is on its way, from or to this host?
pub fn migrates(configuration: &str) -> bool {
    Vm::of(configuration).lock == Some(MIGRATES)
}

/// What is left to say where a VM that runs could not be registered: Proxmox only shows it.
pub fn unregistered(vmid: u32, why: &str) -> InputError {
    InputError::new(&format!("{why}; VM {vmid} runs, but is not registered before 'evpn-hook {vmid} post-start'"), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `qm` writes it (qm.conf(5)): with a description, cloud-init, a change that waits for the next start, and a snapshot.
    const CONFIGURATION: &str = "#a description%3A\n#net0: virtio=02:00:00:00:00:01,bridge=evil-l2\nagent: 1
boot: order=scsi0;ide2;net0
cipassword: $5$SqZmGq8U$ohnesalz
ciuser: debian
cores: 2
cpu: x86-64-v2-AES
hookscript: local:snippets/evpn-hook
ide2: local-lvm:vm-100-cloudinit,media=cdrom
ipconfig0: ip=10.1.0.60/24,gw=10.1.0.1,ip6=fd00:1::60/64,gw6=fd00:1::1
ipconfig1: ip=dhcp,ip6=auto
memory: 2048
meta: creation-qemu=10.0.2,ctime=1764500000
name: web
net0: virtio=BC:24:11:2A:3B:4C,bridge=red-l2
net1: e1000=BC:24:11:2A:3B:4D,bridge=vmbr0,firewall=1,tag=20
net2: virtio=BC:24:11:2A:3B:4E
scsi0: local-lvm:vm-100-disk-0,iothread=1,size=32G
smbios1: uuid=2b1ce1b2-7a58-4a3a-9d5f-3a6c1f9f0c10

[PENDING]
net0: virtio=BC:24:11:2A:3B:4C,bridge=green-l2

[before-upgrade]
lock: migrate
name: old
net0: virtio=BC:24:11:2A:3B:4C,bridge=blue-l2
net3: virtio=BC:24:11:2A:3B:4F,bridge=red-l2
";

    fn said(phase: &str) -> Call {
        call(&["100", phase]).unwrap().unwrap()
    }

    fn phases(phase: &str, migrates: bool, configuration: &str) -> Vec<(GuestPhase, usize)> {
        let events = read(said(phase), migrates, configuration).into_iter();
        let each = |event| match event {
            Event::Guest { phase, guest, nics, .. } => {
                assert_eq!((guest.kind, guest.id.as_str()), (GuestKind::Proxmox, "100"));
                (phase, nics.len())
            }
            other => panic!("{other:?}"),
        };
        events.map(each).collect()
    }

    fn nics(configuration: &str) -> Vec<Nic> {
        Vm::of(configuration).nics(100)
    }

    fn flaw(net: &str) -> Option<String> {
        let [nic] = <[Nic; 1]>::try_from(nics(&format!("net0: {net}\n"))).unwrap();
        nic.flaw.map(|flaw| flaw.why)
    }

    #[test]
    fn what_libvirt_tells_in_several_calls_is_told_in_one() {
        use GuestPhase::{Incoming, Prepare, Start, Started, Stopped};
        assert_eq!(phases("pre-start", false, CONFIGURATION), [(Prepare, 2), (Stopped, 0)]);
        let here = [(Start, 2), (Started { running: Some(true) }, 0)];
        assert_eq!(phases("post-start", false, CONFIGURATION), here);
        let elsewhere = [(Incoming, 0), (Start, 2), (Started { running: Some(false) }, 0)];
        assert_eq!(phases("post-start", true, CONFIGURATION), elsewhere);
        let locked = format!("lock: migrate\n{CONFIGURATION}");
        assert_eq!(phases("post-start", false, &locked), elsewhere, "from another cluster");
        assert_eq!(phases("post-stop", false, ""), [(Stopped, 0)]);
        assert_eq!(call(&["100", "pre-stop"]), Ok(None));
        assert_eq!(call(&["100", "post-migrate"]), Ok(None));
    }

    #[test]
    fn the_vm_is_as_it_runs_now() {
        let nics = nics(CONFIGURATION);
        let told: Vec<_> = nics.iter().map(|nic| (nic.device.as_ref().unwrap().as_str(), nic.mac.unwrap())).collect();
        let macs = ["bc:24:11:2a:3b:4c", "bc:24:11:2a:3b:4d"].map(|mac| mac.parse().unwrap());
        assert_eq!(told, [("tap100i0", macs[0]), ("tap100i1", macs[1])]);
        assert_eq!(nics[0].bridge.as_ref().unwrap().as_str(), "red-l2");
        let ips: Vec<String> = nics[0].ips.iter().map(|a| a.ip.to_string()).collect();
        assert_eq!(ips, ["10.1.0.60", "fd00:1::60"]);
        assert_eq!((&nics[0].flaw, nics[0].enslave, &nics[1].ips), (&None, false, &Vec::new()));
        let Event::Guest { guest, .. } = &read(said("post-start"), false, CONFIGURATION)[0] else { panic!() };
        assert_eq!(guest.to_string(), "vm web");
        let Event::Guest { guest, .. } = &read(said("post-stop"), false, "")[0] else { panic!() };
        assert_eq!(guest.to_string(), "vm 100");
    }

    #[test]
    fn what_stands_between_a_nic_and_its_network_is_told_with_a_mend() {
        let net = "virtio=BC:24:11:2A:3B:4C,bridge=red-l2";
        assert_eq!(flaw(net), None);
        assert_eq!(flaw(&format!("{net},firewall=0,link_down=1,mtu=1,queues=2,rate=3.5")), None);
        for on in ["1", "on", "Yes", "true"] {
            assert!(
                flaw(&format!("{net},firewall={on}"))
                    .unwrap()
                    .ends_with("fwbr100i0, between the VM and the network's: set firewall=0")
            );
        }
        assert!(flaw(&format!("{net},tag=20")).unwrap().starts_with("its net0 asks for a VLAN (tag=)"));
        assert!(flaw(&format!("{net},trunks=2;4-9")).unwrap().ends_with("or remove trunks="));
        for none in ["virtio,bridge=red-l2", "virtio=01:00:5E:00:00:01,bridge=red-l2", "model=virtio,bridge=red-l2"] {
            assert!(flaw(none).unwrap().starts_with("its net0 has no MAC"), "{none}");
        }
        assert_eq!(flaw("model=virtio,macaddr=BC:24:11:2A:3B:4C,bridge=red-l2"), None);
        let Event::Guest { flaw, .. } = &read(said("pre-start"), false, "name: a\tb\n")[0] else { panic!() };
        assert!(flaw.as_ref().unwrap().why.contains("not printable"));
    }

    #[test]
    fn what_no_vm_has_is_passed_over() {
        let odd = "net0: virtio=02:00:00:00:00:01,bridge=a\nnet0: virtio=02:00:00:00:00:02,bridge=a/../b\nnet00: virtio=02:00:00:00:00:03,bridge=c
net32: virtio=02:00:00:00:00:04,bridge=d\nnet1: ,,=,bridge\nipconfig0: ip=10.1.0.60,ip=10.1.0.60,ip6=ff02::1,ip6=0.0.0.0,gw=10.1.0.1,ip=x/y\n";
        let [nic] = <[Nic; 1]>::try_from(nics(odd)).unwrap();
        assert_eq!((nic.mac, &nic.bridge), ("02:00:00:00:00:02".parse().ok(), &None), "the last counts");
        assert_eq!(nic.ips.len(), 1);
        let many: String = (0..200).map(|n| format!("net{n}: virtio=02:00:00:00:00:01,bridge=a\n")).collect();
        assert_eq!(nics(&many).len(), 32);
    }

    #[test]
    fn what_is_kept_is_read_the_same_and_has_no_secrets() {
        let kept = kept(CONFIGURATION);
        assert!(!kept.contains("cipassword") && kept.lines().count() == 6, "{kept}");
        for phase in ["pre-start", "post-start"] {
            assert_eq!(read(said(phase), false, &kept), read(said(phase), false, CONFIGURATION));
        }
    }

    #[test]
    fn words_are_no_paths() {
        for vmid in ["0", "1000000000", "4294967396", "../100", "", "-1", "1e3", "100/x"] {
            let line = call(&[vmid, "post-start"]).unwrap_err().to_string();
            assert!(line.ends_with("is not 1 to 999999999: Proxmox VE gives the VM's number"), "{line}");
        }
        assert_eq!(call(&["0100", "post-stop"]).unwrap().unwrap().vmid, 100);
        assert_eq!((node(""), node("pve-1")), (Ok(None), Ok(Some("pve-1"))));
        for odd in ["..", "a/b", "a b", "pve1.example.com", &"n".repeat(64)] {
            assert!(node(odd).is_err(), "{odd}");
        }
        assert!(call(&["100"]).is_err());
    }
}
