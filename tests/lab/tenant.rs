//! Tenants on the hypervisors, each up until its value is dropped: as a libvirt network or from config.toml. And what the
//! scenarios ask of them.

use std::time::Duration;

use serde_json::Value;

use crate::fabric::{Fabric, Host, wait_until};

pub const SOON: Duration = Duration::from_secs(20);

/// A network for config.toml, on hosts without libvirt. The values are those of the shipped libvirt network.
pub const RED: &str = "[[vrf]]\nname = 'red'\ntable = 10\nvni = 10\n[[network]]\nname = 'red'\nbridge = 'red-l2'\nvni = 20\n\
    vrf = 'red'\ngateway = ['10.1.0.1/24']\nmac = '00:00:00:11:11:10'\n";
pub const GREEN: &str = "[[vrf]]\nname = 'green'\ntable = 30\nvni = 30\n[[network]]\nname = 'green'\nbridge = 'green-l2'\nvni = 40\n\
    vrf = 'green'\ngateway = ['10.2.0.1/24']\nmac = '00:00:00:11:11:30'\n";
/// A third tenant, with red's addresses.
pub const BLUE: &str = "[[vrf]]\nname = 'blue'\ntable = 50\nvni = 50\n[[network]]\nname = 'blue'\nbridge = 'blue-l2'\nvni = 51\n\
    vrf = 'blue'\ngateway = ['10.1.0.1/24']\nmac = '00:00:00:11:11:50'\n";
pub const BLUE_XML: &str = "<network><name>blue</name><metadata>
<evpn:network xmlns:evpn='urn:evpn-hook:1' vni='51'><evpn:vrf name='blue' table='50' vni='50'/></evpn:network></metadata>
<forward mode='open'/><bridge name='blue-l2' stp='off' delay='0'/><mac address='00:00:00:11:11:50'/><dns enable='no'/>
<ip address='10.1.0.1' netmask='255.255.255.0'><dhcp><range start='10.1.0.150' end='10.1.0.200'/></dhcp></ip></network>";

/// What a shipped file's comment asks for where the underlay carries more than 1500 bytes: for sed.
fn sized(mtu: u32) -> String {
    format!("s/<mtu size='1450'/<mtu size='{mtu}'/")
}

/// A libvirt network.
pub struct Network<'a> {
    host: &'a Host,
    name: &'a str,
}

impl<'a> Network<'a> {
    /// Starts one of libvirt-networks/ as it is installed, but for its MTU: this fabric's underlay carries 9000 bytes.
    pub fn shipped(host: &'a Host, name: &'a str) -> Network<'a> {
        Network::shipped_with_mtu(host, name, 8950)
    }

    pub fn shipped_with_mtu(host: &'a Host, name: &'a str, mtu: u32) -> Network<'a> {
        let xml = host.ok(&["sed", &sized(mtu), &shipped_file(name)]);
        Network::start_xml(host, name, &xml)
    }

    /// The same file without its DHCP ranges: for all hosts of a segment but one.
    pub fn without_dhcp(host: &'a Host, name: &'a str) -> Network<'a> {
        let xml = host.ok(&["sed", "-e", &sized(8950), "-e", "/^ *<dhcp>$/,/<\\/dhcp>/d", &shipped_file(name)]);
        Network::start_xml(host, name, &xml)
    }

    pub fn start_xml(host: &'a Host, name: &'a str, xml: &str) -> Network<'a> {
        let file = format!("/run/{name}-network.xml");
        host.write(&file, xml);
        host.ok(&["virsh", "--quiet", "net-define", &file]);
        Network { host, name }.started()
    }

    fn started(self) -> Network<'a> {
        self.start();
        self
    }

    pub fn start(&self) {
        self.host.ok(&["virsh", "--quiet", "net-start", self.name]);
    }

    pub fn stop(&self) {
        self.host.ok(&["virsh", "--quiet", "net-destroy", self.name]);
    }

    pub fn is_active(&self) -> bool {
        self.host.ok(&["virsh", "net-list", "--name"]).lines().any(|line| line == self.name)
    }

    /// Defined no more either; its end as an administrator removes it.
    pub fn remove(self) {}
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        for verb in ["net-destroy", "net-undefine"] {
            self.host.run(&["virsh", "--quiet", verb, self.name]);
        }
    }
}

/// One of libvirt-networks/ as it is installed.
pub fn shipped_xml(host: &Host, name: &str) -> String {
    host.ok(&["cat", &shipped_file(name)])
}

fn shipped_file(name: &str) -> String {
    format!("/usr/share/evpn-hook/libvirt-networks/{name}.xml")
}

/// All networks of a config.toml.
pub struct Configured<'a>(&'a Host);

impl<'a> Configured<'a> {
    /// What stands in config.toml; nothing is up yet.
    pub fn of(host: &'a Host, config: &[&str]) -> Configured<'a> {
        host.write("/etc/evpn-hook/config.toml", &config.concat());
        Configured(host)
    }

    pub fn up(host: &'a Host, config: &[&str]) -> Configured<'a> {
        let configured = Configured::of(host, config);
        host.ok(&["evpn-hook", "network", "up", "--all"]);
        configured
    }
}

impl Drop for Configured<'_> {
    fn drop(&mut self) {
        self.0.run(&["sh", "-c", "evpn-hook network down --all; rm /etc/evpn-hook/config.toml"]);
    }
}

/// Guests on this host may choose their networks, as long as this lives.
pub struct Choosing<'a>(&'a Host);

impl Choosing<'_> {
    pub fn on(host: &Host) -> Choosing<'_> {
        host.write("/etc/evpn-hook/config.toml", "allow_guest_networks = [\"red\"]\n");
        Choosing(host)
    }
}

impl Drop for Choosing<'_> {
    fn drop(&mut self) {
        self.0.run(&["rm", "-f", "/etc/evpn-hook/config.toml"]);
    }
}

/// Tenant red across the fabric: libvirt's on comp1, which answers DHCP, and from config.toml on comp2.
pub struct Red {
    pub comp1: &'static Host,
    pub comp2: &'static Host,
    _network: Network<'static>,
    _configured: Configured<'static>,
}

impl Red {
    pub fn up(fabric: &'static Fabric) -> Red {
        Red::and(fabric, &[])
    }

    /// Red, and on comp2 more of the same configuration.
    pub fn and(fabric: &'static Fabric, more: &[&str]) -> Red {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let red = Red {
            comp1,
            comp2,
            _network: Network::shipped(comp1, "red"),
            _configured: Configured::up(comp2, &[&[RED], more].concat()),
        };
        joined(fabric, 20);
        red
    }
}

/// Waits until each hypervisor floods the segment to the other.
pub fn joined(fabric: &Fabric, vni: u32) {
    for (host, peer) in [(fabric.comp1(), "10.0.0.2"), (fabric.comp2(), "10.0.0.1")] {
        wait_until(&format!("{peer} in VNI {vni} of {}", host.name()), SOON, || {
            host.show_text("zebra", &format!("show evpn vni {vni} json")).contains(peer)
        });
    }
}

/// A container's configuration as its user writes it: an include, and what is its own.
pub fn container_on(tenant: &str, mac: &str, address: Option<&str>) -> String {
    let address = address.map(|ip| format!("lxc.net.0.ipv4.address = {ip}/24\nlxc.net.0.ipv4.gateway = auto\n"));
    format!(
        "lxc.include = /usr/share/evpn-hook/lxc/{tenant}.conf\nlxc.net.0.hwaddr = {mac}\n{}",
        address.unwrap_or_default()
    )
}

/// `show evpn vni`: type and tenant VRF of a VNI.
pub fn vni(host: &Host, vni: &str) -> Option<(String, String)> {
    host.show_text("zebra", "show evpn vni").lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.first() == Some(&vni)).then(|| (words[1].to_owned(), words[words.len() - 1].to_owned()))
    })
}

/// zebra hears of a bridge's VRF from the kernel, in its own time.
pub fn expect_vni(host: &Host, number: &str, kind: &str, vrf: &str) {
    wait_until(&format!("VNI {number} as {kind} in VRF {vrf} on {}", host.name()), SOON, || {
        vni(host, number) == Some((kind.into(), vrf.into()))
    });
}

/// `status --json` of one network.
pub fn network_status(host: &Host, name: &str) -> Value {
    let status = host.json(&["evpn-hook", "--json", "status"]);
    let networks = status["networks"].as_array().expect("networks");
    networks.iter().find(|network| network["name"] == name).cloned().unwrap_or(Value::Null)
}

/// `status --json` of the endpoint with this MAC.
pub fn endpoint_status(host: &Host, mac: &str) -> Value {
    let status = host.json(&["evpn-hook", "--json", "status"]);
    let endpoints = status["endpoints"].as_array().expect("endpoints");
    endpoints.iter().find(|endpoint| endpoint["mac"] == mac).cloned().unwrap_or(Value::Null)
}

/// Waits until `status` calls the endpoint advertised with exactly these addresses, and `--check` finds nothing wrong. The guest's own
/// link-local address is learned once it speaks, whenever that is.
pub fn expect_advertised(host: &Host, mac: &str, ips: &[&str]) {
    let mut last = Value::Null;
    wait_until(&format!("{mac} to be advertised by {}", host.name()), SOON, || {
        last = endpoint_status(host, mac);
        last["state"] == "advertised"
    });
    let addresses = last["addresses"].as_array().expect("addresses").iter();
    // After a migration it is the fabric that told of it.
    let overheard = |address: &&Value| address["source"] == "neighbour" || address["source"] == "fabric";
    let told = addresses.filter(|address| !overheard(address) || !is_link_local(&address["ip"]));
    assert_eq!(told.map(|address| &address["ip"]).collect::<Vec<_>>(), ips, "{last:#}");
    host.ok(&["evpn-hook", "status", "--check"]);
}

fn is_link_local(ip: &Value) -> bool {
    ip.as_str().is_some_and(|ip| ip.starts_with("fe80:"))
}

/// Whether the host holds this guest of the other one: its MAC in the FDB, each address as neighbour and as VRF route.
pub fn knows(host: &Host, tenant: &str, vxlan: &str, mac: &str, ips: &[&str], vtep: &str) -> bool {
    known(host, tenant, vxlan, mac, ips, vtep).is_ok()
}

/// The same, with what it lacks.
pub fn known(host: &Host, tenant: &str, vxlan: &str, mac: &str, ips: &[&str], vtep: &str) -> Result<(), String> {
    let fdb = host.ok(&["bridge", "fdb", "show", "dev", vxlan]);
    let neighbours = host.ok(&["ip", "neigh", "show", "dev", &format!("{tenant}-l2")]);
    let routes = ["-4", "-6"].map(|family| host.ok(&["ip", family, "route", "show", "vrf", tenant])).concat();
    let find = |text: &str, parts: &[&str]| match text.lines().any(|line| parts.iter().all(|part| line.contains(part)))
    {
        true => Ok(()),
        false => Err(format!("{} has no {parts:?} in\n{text}", host.name())),
    };
    find(&fdb, &[mac, "extern_learn", &format!("dst {vtep}")])?;
    ips.iter().try_for_each(|ip| {
        let ip = &format!("{ip} ");
        find(&neighbours, &[ip, mac, "extern_learn"])?;
        find(&routes, &[ip, &format!("dev {tenant}-l3")])
    })
}

/// Whether it holds anything of that guest that is advertised, or was learned by EVPN. What the bridge overheard of a guest
/// (its link-local address) ages by itself and is in no route once the MAC is gone.
pub fn remembers(host: &Host, mac: &str) -> bool {
    !remembered(host, mac).is_empty()
}

/// The same, as the lines in which it stands.
pub fn remembered(host: &Host, mac: &str) -> Vec<String> {
    let of_guest =
        |text: String| -> Vec<String> { text.lines().filter(|line| line.contains(mac)).map(str::to_owned).collect() };
    let mut lines = of_guest(host.ok(&["ip", "neigh"]));
    lines.retain(|line| line.contains("PERMANENT") || line.contains("extern_learn"));
    lines.extend(of_guest(host.ok(&["bridge", "fdb", "show"])));
    lines
}
