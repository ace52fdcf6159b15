//! Two VTEPs and a spine with tenant red on both VTEPs, and one guest's registration at a time.

use crate::arrivals::{Arrivals, SIGNS};
use crate::common::{must, project, sh};
use crate::host::Host;
use crate::port::Port;
use evpn_hook::kernel::Kernel;
use evpn_hook::model::{IfName, Mac};
use evpn_hook::plan::Step;
use std::fs;
use std::io::{PipeReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The guest of it.
const XML: &str = include_str!("../hook/domain.xml");
const MAC: &str = "52:54:00:03:82:d8";
const IP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 60);
const FLOOR: &str = "/run/floor";
const SPINE: u8 = 3;
const TENANT: &str = "[[vrf]]\nname = 'red'\ntable = 10\nvni = 10\n";

/// What lets the second host know of a guest of the first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Hook,
    /// A static program that adds the same entries and does nothing else (floor.c): the start of a process, and FRR.
    Floor,
    /// No program: the bridge learns the MAC, the kernel the neighbour (`arp_accept`).
    Frame,
}

/// Milliseconds from a start to each of the signs.
pub type Times = [f64; SIGNS.len()];

pub struct Fabric {
    first: Host,
    _second: Host,
    _spine: Host,
    hook: PathBuf,
    guest: Port,
    arrivals: Arrivals,
    kernel: Kernel,
}

impl Fabric {
    /// In this process's own namespaces; tenant red is in a VRF, or else in the default one.
    pub fn up(hook: &Path, in_vrf: bool) -> Fabric {
        for dir in ["/etc/frr", "/var/log", "/var/tmp"] {
            sh(&format!("mount -t tmpfs none {dir}"));
        }
        let (mut first, mut second, mut spine) = (Host::new(1), Host::new(2), Host::new(SPINE));
        for host in [&first, &second] {
            host.cable(&spine);
        }
        let zebra = if in_vrf { "" } else { "vni 10\n" };
        first.start_frr(zebra, &[2, SPINE], false);
        second.start_frr(zebra, &[1, SPINE], false);
        spine.start_frr("", &[1, 2], true);
        for host in [&first, &second] {
            if !in_vrf {
                host.sh(&default_l3vni(host));
            }
            fs::write(host.config(), config(host, in_vrf)).unwrap();
            must(host.evpn_hook(hook).args(["network", "up", "red"]));
            if !in_vrf {
                host.sh("ip address add 10.1.0.1/24 dev red-l2");
            }
        }
        // As libvirt leaves a tap, but with an end to speak from.
        sh(
            "ip link add vnet0 mtu 1450 type veth peer name guest && ip link set vnet0 master red-l2 up && ip link set guest up",
        );
        sh("sysctl -qw net.ipv4.conf.red-l2.arp_accept=1");
        must(Command::new("cc").args(["-O2", "-static", "-o", FLOOR]).arg(project().join("benches/fabric/floor.c")));
        let arrivals = Arrivals::listen(&first.netns(), &second.netns(), mac(), IP);
        let (guest, kernel) = (Port::open("guest"), Kernel::open().unwrap());
        Fabric { first, _second: second, _spine: spine, hook: hook.to_owned(), guest, arrivals, kernel }
    }

    /// Leaves one way from the first host to the second: their own session, or by the spine's FRR.
    pub fn reflect(&self, reflected: bool) {
        let (on, off) = if reflected { (SPINE, 2) } else { (2, SPINE) };
        self.first.talks_to(on, off);
    }

    /// One registration, and its end everywhere.
    pub fn once(&mut self, way: Way) -> Times {
        let mut command = match way {
            Way::Hook => self.hook(["start", "begin"]),
            _ => Command::new(FLOOR),
        };
        if way == Way::Floor {
            command.args(["vnet0", "red-l2", MAC, &IP.to_string()]);
        }
        command.stdin(domain()).stdout(Stdio::null());
        let start = Instant::now();
        let child = match way {
            Way::Frame => {
                self.guest.announce(mac(), IP);
                None
            }
            _ => Some(command.spawn().unwrap()),
        };
        let times = self.arrivals.all().map(|at| at.duration_since(start).as_secs_f64() * 1e3);
        assert!(child.is_none_or(|mut child| child.wait().unwrap().success()), "{command:?}");
        if way == Way::Hook {
            assert!(self.hook(["stopped", "end"]).stdin(domain()).status().unwrap().success());
        } else {
            let (bridge, dev): (IfName, IfName) = ("red-l2".parse().unwrap(), "vnet0".parse().unwrap());
            self.kernel.apply(&Step::DelNeigh { bridge, ip: IP.into() }).unwrap();
            self.kernel.apply(&Step::DelFdb { dev, mac: mac() }).unwrap();
        }
        self.arrivals.none();
        times
    }

    fn hook(&self, when: [&str; 2]) -> Command {
        let mut command = self.first.evpn_hook(&self.hook);
        command.args(["qemu", "vm1"]).args(when).arg("-");
        command
    }
}

fn mac() -> Mac {
    MAC.parse().unwrap()
}

/// What libvirt writes to its hooks; a pipe takes it whole.
fn domain() -> PipeReader {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let xml =
        XML.replace("net0-l2", "red-l2").replace("network='net0'", "network='red'").replace("52:54:00:03:82:00", MAC);
    writer.write_all(xml.as_bytes()).unwrap();
    reader
}

fn config(host: &Host, in_vrf: bool) -> String {
    let (vrf, of) = if in_vrf { (TENANT, "vrf = 'red'\ngateway = ['10.1.0.1/24']\n") } else { ("", "") };
    format!(
        "[speaker]\nsocket_dir = '{}'\n{vrf}[[network]]\nname = 'red'\nbridge = 'red-l2'\nvni = 20\nmac = '00:00:00:11:11:10'\n{of}",
        host.dir.display()
    )
}

/// The default VRF's L3VNI is its administrator's: evpn-hook has VRFs of its own.
fn default_l3vni(host: &Host) -> String {
    let vtep = host.vtep();
    format!(
        "ip link add red-l3 address 02:45:0a:00:00:0{} type bridge
         ip link add vxlan10 type vxlan id 10 local {vtep} dstport 4789 nolearning
         ip link set red-l3 addrgenmode none
         ip link set vxlan10 addrgenmode none master red-l3
         ip link set red-l3 up
         ip link set vxlan10 up",
        host.number
    )
}
