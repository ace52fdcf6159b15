//! A host full of guests: networks and taps as libvirt leaves them, its status files, and each guest and network registered by the code that its hook
//! runs, only not in a process of its own.

use evpn_hook::config::{Config, Network};
use evpn_hook::engine::Engine;
use evpn_hook::event::{Event, GuestPhase, NetworkPhase, Nic};
use evpn_hook::input::libvirt_network;
use evpn_hook::journal::Journal;
use evpn_hook::kernel::{Events, Kernel};
use evpn_hook::model::{Address, Guest, GuestKind, IfName, Mac, Source};
use evpn_hook::register::Register;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where it says that this host's VTEP is 10.0.0.1, and no speaker to be told of VRFs.
pub const CONFIG: &str = "/run/config.toml";
/// A bridge takes 1023 ports, of which the tunnel is one and some are for guests that come.
pub const PORTS: usize = 850;

const STATUS: &str = include_str!("../../tests/golden/status/vm1.xml");
const DOMAINS: &str = "/run/libvirt/qemu";
const NETWORKS: &str = "/run/libvirt/network";

/// Where one guest is, by its number.
#[derive(Clone)]
pub struct Placed {
    pub name: String,
    pub id: String,
    pub tap: IfName,
    pub bridge: IfName,
    pub mac: Mac,
    pub ip: Ipv4Addr,
}

impl Placed {
    /// The guest of this number, in a network's place of this number.
    pub fn new(number: usize, network: usize, place: usize) -> Placed {
        Placed {
            name: format!("vm{number}"),
            id: format!("a1aa250e-03e9-4b75-90b0-{number:012}"),
            tap: format!("tap{number}").parse().unwrap(),
            bridge: bridge(network).parse().unwrap(),
            mac: format!("52:54:00:{:02x}:{:02x}:{:02x}", number >> 16, number >> 8 & 255, number & 255)
                .parse()
                .unwrap(),
            ip: Ipv4Addr::from_bits(subnet(network).to_bits() + 10 + place as u32),
        }
    }

    /// The `ip` command's lines that make its tap, as libvirt has it before it calls `start`.
    pub fn lines(&self) -> String {
        let Placed { tap, bridge, .. } = self;
        format!("tuntap add dev {tap} mode tap\nlink set {tap} master {bridge} mtu 1450 up\n")
    }

    /// libvirt's own file of it: the golden domain with its first NIC alone.
    pub fn status(&self) -> String {
        let (head, interfaces) = STATUS.split_once("<interface type='network'>").unwrap();
        let (first, _) = interfaces.split_once("</interface>").unwrap();
        let (_, tail) = STATUS.rsplit_once("</interface>").unwrap();
        format!("{head}<interface type='network'>{first}</interface>{tail}")
            .replace("vm1", &self.name)
            .replace("a1aa250e-03e9-4b75-90b0-3fe8ffbcca9d", &self.id)
            .replace("vnet0", self.tap.as_str())
            .replace("red-l2", self.bridge.as_str())
            .replace("52:54:00:03:82:d8", &self.mac.to_string())
            .replace("10.1.0.60", &self.ip.to_string())
    }

    /// What libvirt gives to a hook.
    pub fn domain(&self) -> String {
        let status = self.status();
        let (_, domain) = status.split_once("<domain ").unwrap();
        let (domain, _) = domain.split_once("</domain>").unwrap();
        format!("<domain {domain}</domain>")
    }

    fn event(&self) -> Event {
        let nic = Nic {
            device: Some(self.tap.clone()),
            mac: Some(self.mac),
            bridge: Some(self.bridge.clone()),
            ips: vec![Address::new(self.ip.into(), Source::Metadata)],
            ..Nic::default()
        };
        let guest = Guest::new(GuestKind::Libvirt, &self.name, &self.id).unwrap();
        Event::Guest { phase: GuestPhase::Start, guest, nics: vec![nic], flaw: None, notes: Vec::new() }
    }
}

pub fn bridge(network: usize) -> String {
    format!("net{network}-l2")
}

/// Each network has a /22.
fn subnet(network: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + ((network as u32 + 1) << 10))
}

/// The host.
pub struct Crowd {
    engine: Engine,
    /// How many VRFs its networks are spread over; none on a kernel that has none.
    vrfs: usize,
    per_network: usize,
    networks: usize,
    pub guests: Vec<Placed>,
}

impl Crowd {
    /// An empty host with a way to others; networks will have so many guests each.
    pub fn new(vrfs: usize, per_network: usize) -> Crowd {
        fs::write(CONFIG, "[vtep]\naddress = '10.0.0.1'\n[speaker]\nkind = 'none'\n").unwrap();
        let uplink = "link add uplink type veth peer name fabric\nlink set fabric up\nlink set uplink up\n";
        super::batch("ip", &format!("{uplink}address add 172.31.0.1/24 dev uplink\n"));
        fs::create_dir_all(DOMAINS).unwrap();
        fs::create_dir_all(NETWORKS).unwrap();
        let register = Register::at(Path::new("/run/evpn-hook"));
        let engine = Engine::new((CONFIG.into(), true), register, Journal::new(false));
        Crowd { engine, vrfs, per_network, networks: 0, guests: Vec::new() }
    }

    /// `<network>` as libvirt has it; those with a VRF are routed.
    pub fn network_xml(&self, network: usize, root: &str) -> String {
        let vrf = match self.vrfs {
            0 => String::new(),
            vrfs => {
                let vrf = network % vrfs;
                format!("<evpn:vrf name='vrf{vrf}' table='{}' vni='{}'/>", 1000 + vrf, 1_000_000 + vrf)
            }
        };
        let ip = match self.vrfs {
            0 => String::new(),
            _ => {
                let gateway = Ipv4Addr::from_bits(subnet(network).to_bits() + 1);
                format!("<ip address='{gateway}' netmask='255.255.252.0'/>")
            }
        };
        format!(
            "<{root}><network><name>net{network}</name><uuid>0042c036-a8f5-49ca-befe-{network:012}</uuid>\
             <metadata><evpn:network xmlns:evpn='urn:evpn-hook:1' vni='{}'>{vrf}</evpn:network></metadata>\
             <bridge name='{}' stp='off' delay='0'/><mac address='52:54:00:ff:ff:01'/>{ip}</network></{root}>",
            1000 + network,
            bridge(network)
        )
    }

    /// The `ip` command's lines that make a network's bridge, as libvirt has it before it calls `started`.
    pub fn network_lines(&self, network: usize) -> String {
        let name = bridge(network);
        let mut lines = format!(
            "link add {name} address 52:54:00:ff:ff:01 type bridge stp_state 0 forward_delay 0\nlink set {name} up\n"
        );
        if self.vrfs > 0 {
            let _ = writeln!(lines, "address add {}/22 dev {name}", Ipv4Addr::from_bits(subnet(network).to_bits() + 1));
        }
        lines
    }

    /// Grows to so many networks and guests.
    pub fn grow(&mut self, networks: usize, guests: usize) {
        let new = self.networks..networks;
        super::batch("ip", &new.clone().map(|n| self.network_lines(n)).collect::<String>());
        for n in new {
            fs::write(format!("{NETWORKS}/net{n}.xml"), self.network_xml(n, "networkstatus")).unwrap();
            let network = self.network(n);
            self.engine.handle(Event::Network { phase: NetworkPhase::Started, network }).unwrap();
        }
        self.networks = networks;
        let new: Vec<Placed> = (self.guests.len()..guests)
            .map(|number| Placed::new(number, number / self.per_network, number % self.per_network))
            .collect();
        super::batch("ip", &new.iter().map(Placed::lines).collect::<String>());
        for guest in &new {
            self.engine.handle(guest.event()).unwrap();
            fs::write(format!("{DOMAINS}/{}.xml", guest.name), guest.status()).unwrap();
        }
        self.guests.extend(new);
    }

    fn network(&self, number: usize) -> Network {
        let name = format!("net{number}").parse().unwrap();
        let xml = self.network_xml(number, "networkstatus");
        libvirt_network::status(&name, xml.as_bytes(), &Config::default()).unwrap().unwrap()
    }

    pub fn networks(&self) -> usize {
        self.networks
    }

    /// Takes every entry out, as nothing of ours would.
    pub fn flush(&self) {
        let (mut neighbours, mut fdb) = (String::new(), String::new());
        for Placed { tap, bridge, mac, ip, .. } in &self.guests {
            let _ = writeln!(neighbours, "neigh del {ip} dev {bridge}");
            let _ = writeln!(fdb, "fdb del {mac} dev {tap} master");
        }
        super::batch("ip", &neighbours);
        super::batch("bridge", &fdb);
    }
}

/// Asks the kernel for guests' entries.
pub struct Look {
    kernel: Kernel,
    bridges: HashMap<IfName, u32>,
}

impl Look {
    pub fn new() -> Look {
        Look { kernel: Kernel::open().unwrap(), bridges: HashMap::new() }
    }

    /// Has it this guest's FDB entry and neighbour?
    pub fn is_there(&mut self, guest: &Placed) -> bool {
        let Look { kernel, bridges } = self;
        let index = |kernel: &mut Kernel| kernel.link(&guest.bridge).unwrap().map_or(0, |link| link.index);
        let bridge = *bridges.entry(guest.bridge.clone()).or_insert_with(|| index(kernel));
        let fdb = kernel.fdb(bridge, guest.mac).unwrap().is_some_and(|entry| !entry.ext_learned);
        fdb && kernel.neigh(bridge, guest.ip.into()).unwrap().is_some_and(|n| n.permanent)
    }
}

/// Waits by the kernel's events, opened before whatever is waited for, until it is so.
pub fn until(events: &mut Events, what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(events.wait(end).unwrap(), "{what}: not within two minutes");
        // What overflowed is an event like any other.
        while !matches!(events.next().unwrap(), None | Some(evpn_hook::kernel::Event::Lost)) {}
    }
}
