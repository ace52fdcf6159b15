//! Every reader of what others wrote, as one function a kind of input: any bytes in, and an assertion where something comes out that must not.
//!
//! The fuzzers in fuzz/ feed them what no test would think of, `tests/corpora.rs` what the fuzzers have found. No program calls them, so no program has
//! them. What every one of them asserts beyond coming back at all: a refusal is one line, and what was read is within its bounds and would be taken
//! again as it is.

use crate::cli::hook_call;
use crate::config::{self, Config, Network, Vrf};
use crate::event::{Event, Nic};
use crate::guard;
use crate::hypervisor::{leases, lxc as sockets};
use crate::input::{
    self, InputError, LxcHook, LxcPhase, libvirt_network, libvirt_qemu, libvirt_status, proxmox as hookscript, redact,
};
use crate::kernel;
use crate::model::{Guest, GuestKind, IfName, NetName, host_ip, not_a_host};
use crate::record::Kept;
use crate::register::{GuestRecord, NetworkRecord, Register, Underlay, VrfRecord, file_key, guest_key};
use crate::snoop::{Said, frame, xids::Xids};
use crate::speaker::{Added, BgpLine, render, running, show, stanzas};
use crate::{door, tape};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// More bytes than any line of ours has.
const LONGEST_LINE: usize = 2500;
/// A word that must be gone.
const SECRET: &str = "sesame-open";

/// libvirt's qemu hook. The first byte chooses the operation, the rest of the first line is the domain's name; then its XML, which is also
/// taken for a status file, and for what a bug report keeps of it.
pub fn qemu(data: &[u8]) {
    const OPS: [&str; 8] = ["start", "prepare", "reconnect", "migrate", "started", "stopped", "release", "attach"];
    let (op, name, xml) = call(data, &OPS);
    hook_call(&["evpn-hook", "qemu", &name, op, "begin", "-"].map(Into::into));
    let args = [&name, op, "begin", "-"];
    let read = libvirt_qemu::read(&args, xml);
    if let Some(Event::Guest { guest, nics, .. }) = refused(&read) {
        is_guest(guest);
        assert!(nics.len() <= 256);
        nics.iter().for_each(is_nic);
    }
    if let Some(domain) = refused(&libvirt_status::read(&name, xml).map(Some)) {
        is_guest(&domain.guest);
        domain.nics.iter().for_each(is_nic);
    }
    match input::inspect::domain(xml) {
        Ok(domain) => assert!(domain.interfaces.len() <= 256),
        Err(error) => is_line(&error.to_string()),
    }
    let Ok(text) = std::str::from_utf8(xml) else { return };
    libvirt_status::life(text);
    let (kept, whole) = redact(text);
    if whole {
        assert_eq!(
            read.ok(),
            libvirt_qemu::read(&args, kept.as_bytes()).ok(),
            "read otherwise without its secrets: {kept}"
        );
    }
    if !text.contains(SECRET) {
        let text = format!("<domain>{text}<secret usage='{SECRET}'>{SECRET}</secret></domain>");
        let (kept, whole) = redact(&text);
        assert!(!whole || !kept.contains(SECRET), "{kept}");
    }
}

/// libvirt's network hook: likewise with the network's name. Read by a host without config.toml, and by one that describes `red`.
pub fn network(data: &[u8]) {
    const OPS: [&str; 8] =
        ["start", "started", "updated", "port-created", "port-deleted", "stopped", "unplugged", "start"];
    let (op, name, xml) = call(data, &OPS);
    let args = [&name, op, "begin", "-"];
    let red = "[[vrf]]\nname = 'red'\ntable = 10\nvni = 10\n[[network]]\nname = 'red'\nbridge = 'red-l2'\nvni = 20\nvrf = 'red'\n\
               gateway = ['10.1.0.1/24']\nmac = '00:00:00:11:11:10'\n";
    let red = config::parse(red, "config.toml").expect("it is good");
    if let Err(error) = input::inspect::network(xml) {
        is_line(&error.to_string());
    }
    for config in [Config::default(), red] {
        let read = libvirt_network::read(&args, xml, &config);
        match refused(&read) {
            Some(Event::Network { network, .. }) => is_network(network),
            Some(Event::NetworkStopped { name, network }) => {
                is_word(name);
                network.iter().for_each(is_network);
            }
            Some(Event::PortDeleted { owner }) => is_guest(owner),
            _ => {}
        }
        if let Ok(name) = name.parse() {
            refused(&libvirt_network::status(&name, xml, &config)).iter().for_each(|network| is_network(network));
        }
        let Ok(text) = std::str::from_utf8(xml) else { continue };
        // Where it breaks is told by the line, which comments and values take some of.
        if let ((kept, true), Ok(read)) = (redact(text), read)
            && let Ok(again) = libvirt_network::read(&args, kept.as_bytes(), &config)
        {
            assert_eq!(read, again, "read otherwise without its secrets: {kept}");
        }
    }
}

/// LXC's hooks: the first line is what `--network` gives, each further one a variable of the environment. The same bytes as a call through the
/// agent's door, and as the list of sockets in which running containers are found.
pub fn lxc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (network, rest) = text.split_once('\n').unwrap_or(("", &text));
    hook_call(&["evpn-hook", "lxc", "--network", network].map(Into::into));
    let network = network.parse::<NetName>().ok();
    let env: HashMap<&str, &str> = rest.lines().filter_map(|line| line.split_once('=')).collect();
    let read = input::lxc::read(network.as_ref(), &|key| env.get(key).map(ToString::to_string));
    refused(&read).iter().for_each(|hook| is_lxc(hook));

    match door::read_call(1000, data) {
        Ok(Some(hook)) => {
            is_lxc(&hook);
            assert!(hook.guest.id.starts_with("1000/"), "a user's container has its user's id");
        }
        Ok(None) => {}
        Err(why) => is_line(&why),
    }
    for (id, container) in sockets::identified(&text, |address| u32::try_from(address.len() % 3).ok()) {
        assert!(container.lxcpath.starts_with('/') && !id.contains('\n'), "{id:?} {container:?}");
    }
}

/// Proxmox VE's hookscript of a VM. The first byte chooses the phase, the rest of the first line is the VM's number and the node that it comes from; then
/// its configuration.
pub fn proxmox(data: &[u8]) {
    const PHASES: [&str; 4] = ["pre-start", "post-start", "post-stop", "pre-stop"];
    let (phase, words, text) = call(data, &PHASES);
    let (vmid, node) = words.split_once(' ').unwrap_or((&words, ""));
    hook_call(&["evpn-hook", vmid, phase].map(Into::into));
    let node = hookscript::node(node);
    if let Some(node) = refused(&node) {
        is_file_name(node);
    }
    let Some(said) = refused(&hookscript::call(&[vmid, phase])).copied() else { return };
    let (text, migrates) = (String::from_utf8_lossy(text), matches!(node, Ok(Some(_))));
    let kept = hookscript::kept(&text);
    let events = hookscript::read(said, migrates, &text);
    assert_eq!(events, hookscript::read(said, migrates, &kept), "read otherwise without its secrets: {kept}");
    for event in events {
        let Event::Guest { guest, nics, flaw, .. } = event else { panic!("of a VM only") };
        is_guest(&guest);
        assert_eq!((guest.kind, guest.id), (GuestKind::Proxmox, said.vmid.to_string()));
        assert!(nics.len() <= 32);
        nics.iter().for_each(is_nic);
        flaw.iter().chain(nics.iter().filter_map(|nic| nic.flaw.as_ref())).for_each(|flaw| is_line(&flaw.why));
    }
    if !text.contains(SECRET) {
        let kept = hookscript::kept(&format!("cipassword: {SECRET}\nsshkeys: {SECRET}\n{text}"));
        assert!(!kept.contains(SECRET), "{kept}");
    }
}

/// config.toml.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse(text, "config.toml") {
        Ok(config) => {
            config.networks.iter().for_each(is_network);
            let bridges: HashMap<_, _> = config.networks.iter().map(|n| (n.bridge.as_str(), n.vni)).collect();
            assert_eq!(bridges.len(), config.networks.len(), "a bridge is one network's");
        }
        Err(error) => is_line(&error.to_string()),
    }
}

/// What lies on disk, and what nft lists. The first byte chooses: a record of ours, dnsmasq's list of leases, nft's JSON, a recorded call.
pub fn state(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    match choice % 8 {
        0 => same_again::<NetworkRecord>(text).iter().for_each(|record| {
            for name in [&record.network.bridge].into_iter().chain(&record.made) {
                is_device(name);
            }
            is_file_name(&file_key(record.network.name.as_str()));
        }),
        1 => same_again::<GuestRecord>(text).iter().for_each(|record| {
            is_guest(&record.guest);
            record.held().for_each(|endpoint| [&endpoint.bridge, &endpoint.device].into_iter().for_each(is_device));
        }),
        2 => same_again::<VrfRecord>(text).iter().for_each(|record| {
            is_vrf(&record.vrf);
            if let Some(added) = &record.speaker {
                are_vtysh_lines(&record.vrf, added);
            }
        }),
        3 => drop(same_again::<BTreeMap<String, String>>(text)),
        4 => drop(same_again::<Underlay>(text)),
        5 => {
            for lease in leases::parse(text).unwrap_or_default() {
                assert_eq!(not_a_host(lease.ip), None);
                assert!(text.len() > 30, "{lease:?} of nothing");
            }
        }
        6 => match guard::listing(&String::from_utf8_lossy(text)) {
            Ok(list) => {
                let elements = guard::guards(&list, |name| u32::try_from(name.as_str().len()).ok());
                for (port, lets) in elements.iter().flat_map(|(port, guard)| guard.iter().map(move |lets| (port, lets)))
                {
                    let words = guard::command("delete", *port, *lets);
                    assert!(!words.contains([';', '"', '#', '\\']) && words.lines().count() <= 2, "{words}");
                }
            }
            Err(error) => is_line(&error.to_string()),
        },
        _ => {
            let Ok(kept) = serde_json::from_slice::<Kept>(text) else { return };
            // What a replay asks of it first.
            tape::play(kept.observed);
            let register = Register::at(Path::new("/nonexistent"));
            let told = (register.guests(), register.networks(), register.vrfs(), register.host());
            tape::stop();
            for guest in told.0.into_iter().flatten() {
                is_guest(&guest.guest);
            }
        }
    }
}

/// What FRR's daemons print, taken for the answer to every question that we ask.
pub fn frr(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    show::version(&text);
    assert!(show::interface(&text, "red").len() <= text.len() / 6);
    let running = running::parse(&text);
    for instance in &running.instances {
        assert!(
            instance
                .lines
                .iter()
                .all(|(family, line)| !line.is_empty() && !family.contains('\n') && !line.contains('\n'))
        );
        for vni in [None, Some(20)] {
            assert!(instance.imports(vni).iter().all(|target| text.contains(target)));
        }
        if let Some(vrf) = instance.vrf.as_deref() {
            assert_eq!(running.vrf(vrf).and_then(|i| i.vrf.as_deref()), Some(vrf));
        }
    }
    running.advertises_all_vni();
    let value = match show::json(&text) {
        Ok(value) => value,
        Err(why) => return assert!(why.len() < LONGEST_LINE && !why.contains('\n'), "{why}"),
    };
    let mac = "52:54:00:03:82:d8".parse().expect("a MAC");
    let vni = 20.try_into().expect("a VNI");
    show::vni(&value);
    show::mac(&value, mac);
    show::arp(&value);
    show::route(&value);
    show::vrf(&value, &value, "red");
    show::vrf_of(&value, vni);
    show::lacks_macs(&value);
    show::peers(&value);
    let read = (show::macs(&value).len(), show::arps(&value).len(), show::routes(&value).len());
    let dump = read.0
        + read.1
        + read.2
        + show::addresses_of(&value, mac).len()
        + show::duplicate_macs(&value).len()
        + show::duplicate_ips(&value).len();
    assert!(dump + show::vteps(&value).len() + show::received_targets(&value).len() <= 8 * text.len());
    // These two come back to FRR, in a question and in a line of its configuration.
    if let Some(rd) = show::distinguisher(&value) {
        assert!(rd.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b':'), "{rd}");
        assert_eq!(show::targets(&value).and_then(|targets| targets.rd).as_deref(), Some(rd));
        show::announced(&value, rd);
    }
    let vrf = Vrf { name: "red".parse().expect("a name"), table: 10.try_into().expect("a table"), vni: Some(vni) };
    for of in [None, Some("red")] {
        are_vtysh_lines(&vrf, &Added::whole(&vrf, show::router_id(&value, of)));
    }
    show::received(&value, |_, ip| ip.is_none_or(|ip| not_a_host(ip).is_none()));
}

/// What comes from the kernel and from guests. The first byte chooses: an answer to a listing, to one question, to a change; or frames on a
/// guest's port, each behind its length in two bytes.
pub fn wire(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    const DUMP: u16 = 0x300;
    const ACK: u16 = 4;
    match choice % 4 {
        0 => is_netlink(bytes, DUMP),
        1 => is_netlink(bytes, 0),
        2 => is_netlink(bytes, ACK),
        _ => {
            let (mut xids, mut rest, mut now) = (Xids::default(), bytes, Instant::now());
            while let Some((length, more)) = rest.split_first_chunk() {
                let length = usize::from(u16::from_be_bytes(*length)).min(more.len());
                now += Duration::from_secs(length as u64 % 4);
                let said = frame::read(&more[..length], xids.at(now));
                assert!(said.len() <= 16, "{said:?}");
                for said in said {
                    is_word(&said.mac());
                    assert_eq!(not_a_host(said.ip()), None);
                    assert!(!matches!(said, Said::Leased { lifetime: Some(Duration::ZERO), .. }), "{said:?}");
                }
                rest = &more[length..];
            }
        }
    }
}

fn is_netlink(datagram: &[u8], flags: u16) {
    let read = kernel::untrusted::read(datagram, flags);
    read.errors.iter().for_each(|error| is_line(error));
    read.links.iter().for_each(|link| is_device(&link.name));
    let entries = read.neighs.len() + read.fdb.len() + read.remotes.len() + read.addresses.len() + read.routes.len();
    assert!(
        entries + read.events.len() + read.vteps.len() + read.rules.len() + read.filters <= datagram.len(),
        "more than was there"
    );
    assert!(!read.lost || !datagram.is_empty());
    assert!(read.remotes.iter().all(|remote| !remote.vtep.is_multicast()));
    assert!(read.addresses.iter().all(|address| address.net.prefix_len() <= address.net.max_prefix_len()));
    assert!(read.fdb.iter().all(|(_, entry, _)| entry.mac.octets()[0] & 1 == 0));
}

// ===== what must hold =====

/// The call's operation, its object's name, and the rest.
fn call<'a, 'o>(data: &'a [u8], ops: &[&'o str]) -> (&'o str, String, &'a [u8]) {
    let end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (line, rest) = data.split_at(end);
    let (choice, name) = line.split_first().unwrap_or((&0, &[]));
    let op = ops[usize::from(*choice) % ops.len()];
    (op, String::from_utf8_lossy(name).into_owned(), rest.get(1..).unwrap_or_default())
}

/// What was read, if anything; an error must be one line.
fn refused<T>(read: &Result<Option<T>, InputError>) -> Option<&T> {
    match read {
        Ok(read) => read.as_ref(),
        Err(error) => {
            is_line(&error.to_string());
            None
        }
    }
}

fn is_line(text: &str) {
    assert!(!text.is_empty() && text.len() < LONGEST_LINE && !text.chars().any(char::is_control), "{text:?}");
}

/// A newtype is what its own text would be.
fn is_word<T: FromStr + Display + PartialEq + Debug>(word: &T) {
    assert_eq!(word.to_string().parse().ok().as_ref(), Some(word));
}

/// Part of a path as it stands.
fn is_device(name: &IfName) {
    is_word(name);
    is_file_name(name.as_str());
}

/// One component of a path, with room for what is put behind it (`.tmp4194304`).
fn is_file_name(name: &str) {
    assert!(
        !name.is_empty() && name.len() <= 240 && !name.contains(['/', '\0', '\n']) && name != "." && name != "..",
        "{name:?}"
    );
}

fn is_guest(guest: &Guest) {
    assert_eq!(Guest::new(guest.kind, &guest.name, &guest.id).as_ref(), Ok(guest));
    let key = guest_key(guest);
    is_file_name(&key);
    assert!(!key.contains('.'), "{key}");
}

fn is_nic(nic: &Nic) {
    nic.device.iter().chain(&nic.bridge).for_each(is_device);
    nic.mac.iter().for_each(is_word);
    nic.network.iter().for_each(is_word);
    for address in &nic.ips {
        assert_eq!(host_ip(&address.ip.to_string()), Ok(address.ip));
    }
}

fn is_lxc(hook: &LxcHook) {
    is_guest(&hook.guest);
    assert_eq!(hook.guest.kind, GuestKind::Lxc);
    match &hook.phase {
        LxcPhase::Up { device, bridge, network } => {
            [device].into_iter().chain(bridge).for_each(is_device);
            network.iter().for_each(is_word);
        }
        LxcPhase::StartHost { pid } => assert!((2..=i32::MAX.unsigned_abs()).contains(pid), "{pid}"),
        LxcPhase::Down { device } => is_device(device),
        LxcPhase::Stop | LxcPhase::PostStop => {}
    }
}

fn is_network(network: &Network) {
    is_word(&network.name);
    is_file_name(&file_key(network.name.as_str()));
    is_device(&network.bridge);
    assert_eq!(network.problem(), None);
    network.vrf.iter().for_each(is_vrf);
    for ips in network.hosts.values() {
        assert!(ips.iter().all(|ip| not_a_host(*ip).is_none()));
    }
    let text = serde_json::to_vec(network).expect("a network can be written");
    assert_eq!(serde_json::from_slice::<Network>(&text).ok().as_ref(), Some(network), "as it stands in its record");
}

fn is_vrf(vrf: &Vrf) {
    is_device(&vrf.name);
    for id in [None, Some([10, 0, 0, 1].into())] {
        let text = stanzas(vrf, Some(64512), id);
        assert!(text.lines().all(|line| line.starts_with('!') || is_frrs(line, vrf)), "{text}");
        are_vtysh_lines(vrf, &Added::whole(vrf, id));
        are_vtysh_lines(vrf, &Added { vni: true, bgp: false, router_id: id, lines: BgpLine::ALL.to_vec() });
    }
}

/// Each is one argument of vtysh's: FRR would take a second line for a second command.
fn are_vtysh_lines(vrf: &Vrf, added: &Added) {
    for line in render::add(vrf, 64512, added).iter().chain(&render::remove(vrf, 64512, added)) {
        assert!(is_frrs(line, vrf), "{line:?}");
    }
}

/// Nothing but FRR's own words, the VRF's name, numbers and addresses.
fn is_frrs(line: &str, vrf: &Vrf) -> bool {
    const WORDS: &str = "vrf vni exit-vrf router bgp router-id exit no ! address-family exit-address-family ipv4 ipv6 unicast l2vpn evpn \
        redistribute connected advertise";
    !line.chars().any(char::is_control)
        && line.split(' ').all(|word| {
            word.is_empty()
                || word == vrf.name.as_str()
                || WORDS.split_whitespace().any(|known| known == word)
                || word.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        })
}

/// A record, which must be the same when it is written and read again.
fn same_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &[u8]) -> Option<T> {
    let record = serde_json::from_slice::<T>(text).ok()?;
    let text = serde_json::to_vec(&record).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&text).ok().as_ref(), Some(&record));
    Some(record)
}
