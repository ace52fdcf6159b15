//! Addresses that nobody declared: how soon the other hypervisor has them after they were given or taken, and when they go.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Instant;

use crate::bare::Port;
use crate::fabric::{Agent, Container, Fabric, Host, Monitor, Nic, Vm, VmSpec, Wire, wait_until};
use crate::figures::{JITTER, keep, median, milliseconds, signed};
use crate::tenant::{Configured, Network, RED, SOON, endpoint_status, joined, knows, remembers};

const MAC: &str = "00:16:3e:00:00:61";

/// Tenant dual: libvirt's dnsmasq on comp1 gives addresses to both hypervisors.
struct Dual {
    comp1: &'static Host,
    comp2: &'static Host,
    _networks: [Network<'static>; 2],
    _agents: [Agent; 2],
}

impl Dual {
    fn up(fabric: &'static Fabric) -> Dual {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let networks = [Network::shipped(comp1, "dual"), Network::without_dhcp(comp2, "dual")];
        joined(fabric, 80);
        Dual { comp1, comp2, _networks: networks, _agents: [Agent::start(comp1), Agent::start(comp2)] }
    }
}

fn on(bridge: &str) -> String {
    format!(
        "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\nlxc.net.0.link = {bridge}\n\
         lxc.net.0.flags = up\nlxc.net.0.name = eth0\nlxc.net.0.hwaddr = {MAC}\n"
    )
}

/// What FRR itself takes from a neighbour entry here to the other hypervisor's: asked just before each of what is measured against it, for what else the
/// machine does then is in both.
struct Floor<'a> {
    port: Port<'a>,
    monitor: &'a Monitor,
    taken: Vec<IpAddr>,
}

impl<'a> Floor<'a> {
    const MAC: &'static str = "52:54:00:00:62:01";

    fn new(host: &'a Host, monitor: &'a Monitor) -> Floor<'a> {
        let mut floor = Floor { port: Port::new(host, "floor", "dual-l2"), monitor, taken: Vec::new() };
        // The first has to wait for its MAC's own route.
        floor.sample();
        floor
    }

    /// In seconds.
    fn sample(&mut self) -> f64 {
        let ip: IpAddr = format!("10.3.0.{}", 200 + self.taken.len()).parse().expect("an address");
        let from = self.monitor.transcript().len();
        let begun = self.port.register(Floor::MAC.parse().expect("a MAC"), ip);
        self.taken.push(ip);
        signed(begun, known(self.monitor, from, Floor::MAC, &ip.to_string()))
    }
}

impl Drop for Floor<'_> {
    fn drop(&mut self) {
        self.taken.iter().for_each(|ip| self.port.withdraw(Floor::MAC.parse().expect("a MAC"), *ip));
    }
}

/// What was measured of one kind of address, and FRR's floor beside it; in seconds.
struct Late {
    kind: &'static str,
    took: Vec<f64>,
    floor: Vec<f64>,
}

/// When the other hypervisor's kernel had the address.
fn known(monitor: &Monitor, from: usize, mac: &str, ip: &str) -> Instant {
    monitor.transcript().wait_from(from, &[&format!("{ip} dev dual-l2"), mac, "extern_learn"], SOON).1.at
}

/// `lease of 10.3.0.38 obtained` and the like.
fn given(text: &str) -> String {
    let word = text.split_whitespace().find(|word| word.starts_with("10.3.0."));
    word.unwrap_or_else(|| panic!("a lease in {text}")).trim_end_matches(',').to_owned()
}

fn sources(host: &Host) -> Vec<(String, String)> {
    let status = endpoint_status(host, MAC);
    let addresses = status["addresses"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    addresses.iter().map(|address| (text(&address["ip"]), text(&address["source"]))).collect()
}

/// An address of each kind, several times: from the acknowledgement or the probe to the other hypervisor's entry.
fn learned(host: &Host, other: &Host) -> [Late; 3] {
    let monitor = other.monitor();
    let mut floor = Floor::new(host, &monitor);
    let container = Container::start(host, "late", &on("dual-l2"));
    let port = endpoint_status(host, MAC)["device"].as_str().expect("a device").to_owned();
    let wire = Wire::tap(host, &port, "port 67 or port 68 or port 546 or port 547 or icmp6");
    let before = sources(host);
    assert!(before.iter().all(|(ip, _)| ip.starts_with("fe80::")), "an address before it has one: {before:?}");
    let mut late = ["DHCP", "DHCPv6", "DAD"].map(|kind| Late { kind, took: Vec::new(), floor: Vec::new() });
    let mut had = Vec::new();
    wait_until("the container's link-local address", SOON, || {
        let addresses = container.ok(&["ip", "-6", "address", "show", "dev", "eth0"]);
        addresses.lines().any(|line| line.contains("inet6 fe80::") && !line.contains("tentative"))
    });
    for round in 0..3 {
        late[1].floor.push(floor.sample());
        let (from, heard) = (monitor.transcript().len(), wire.transcript().len());
        let netns = format!("--net=/proc/{}/ns/net", container.pid().expect("the container runs"));
        // Another identifier is given another address; dhclient's own is made of the clock's seconds.
        let (leases, pid) = (format!("/run/dhclient6-{}-{round}", host.name()), format!("/run/dhclient6-{round}.pid"));
        host.write(&leases, &format!("default-duid \"\\000\\003\\000\\001\\002\\000\\000\\000\\000\\00{round}\";\n"));
        host.ok(&[
            "nsenter",
            &netns,
            "dhclient",
            "-v",
            "-6",
            "-1",
            "-cf",
            "/dev/null",
            "-lf",
            &leases,
            "-pf",
            &pid,
            "-sf",
            "/bin/true",
            "eth0",
        ]);
        let lease = host.ok(&["cat", &leases]);
        let ip = lease.split_whitespace().skip_while(|word| *word != "iaaddr").nth(1).expect("an address").to_owned();
        let at = known(&monitor, from, MAC, &ip);
        late[1].took.push(signed(wire.last(heard, &["dhcp6 reply"]), at));
        host.run(&["sh", "-c", &format!("kill $(cat {pid})")]);
        had.push((ip, "lease"));
    }
    for round in 0..5 {
        late[2].floor.push(floor.sample());
        let (from, heard) = (monitor.transcript().len(), wire.transcript().len());
        let ip = format!("fd00:3::a{round}");
        container.ok(&["ip", "-6", "address", "add", &format!("{ip}/64"), "dev", "eth0"]);
        let at = known(&monitor, from, MAC, &ip);
        late[2].took.push(signed(wire.last(heard, &["neighbor solicitation", &format!("who has {ip}")]), at));
        had.push((ip, "neighbour"));
    }
    // Last, for its script takes the others off.
    for round in 0..3 {
        late[0].floor.push(floor.sample());
        let (from, heard) = (monitor.transcript().len(), wire.transcript().len());
        // Another client identifier is given another address.
        let id = format!("0x3d:000{round}");
        let lease = container.ok(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "1", "-x", &id]);
        let ip = given(&lease);
        let at = known(&monitor, from, MAC, &ip);
        late[0].took.push(signed(wire.last(heard, &["BOOTP/DHCP, Reply"]), at));
        had.push((ip, "lease"));
    }
    let now = sources(host);
    for (ip, source) in &had {
        assert!(now.contains(&(ip.clone(), (*source).to_owned())), "{ip} by {source} in {now:?}");
    }
    // Without SLAAC's prefix there is still the link-local address.
    assert!(now.iter().any(|(ip, source)| ip.starts_with("fe80::") && source == "neighbour"), "{now:?}");
    wait_until("all of it in FRR", SOON, || endpoint_status(host, MAC)["state"] == "advertised");
    drop(container);
    wait_until("the other hypervisor to forget", SOON, || !remembers(other, MAC));
    late
}

lab_test! {
    /// Given by a server on its own host, and by one across the fabric.
    fn an_address_that_is_given_late_is_everywhere_as_fast_as_frr_can(fabric) {
        let dual = Dual::up(fabric);
        let mut table = format!("{:<36}{:>8}{:>8}{:>8}  each, and FRR's floor\n", "ms to the other's neighbour entry", "median", "floor", "ratio");
        let mut slow = Vec::new();
        for (host, other, whose) in [(dual.comp1, dual.comp2, "server on its own host"), (dual.comp2, dual.comp1, "server across the fabric")] {
            for Late { kind, took, floor } in learned(host, other) {
                let what = format!("{kind}, {whose}");
                let each = [&took, &floor].map(|samples| samples.iter().map(|sample| milliseconds(*sample)).collect::<Vec<_>>().join(" "));
                let (typical, bare) = (median(&took), median(&floor));
                let _ = writeln!(table, "{what:<36}{:>8}{:>8}{:>8.2}  {}", milliseconds(typical), milliseconds(bare), typical / bare, each.join(", "));
                if typical > 1.5 * bare + JITTER.as_secs_f64() {
                    slow.push(what);
                }
            }
        }
        eprintln!("{table}");
        keep("late.txt", &table);
        assert!(slow.is_empty(), "slower than 1.5 times FRR's floor and {JITTER:?}: {slow:?}");
    }
}

lab_test! {
    /// IPv6 alone, by router advertisements: the guest makes its own address.
    fn an_address_that_a_guest_makes_is_learned_by_its_probe(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _networks = [comp1, comp2].map(|host| Network::shipped(host, "v6only"));
        joined(fabric, 100);
        let _agents = [comp1, comp2].map(Agent::start);
        // Up once it has started: else an advertisement that comes sooner makes it an address that LXC's hook reads.
        let container = Container::start(comp1, "slaac", &on("v6only-l2").replace("lxc.net.0.flags = up\n", ""));
        container.ok(&["ip", "link", "set", "eth0", "up"]);
        let own = "fd00:4::216:3eff:fe00:61";
        wait_until("the container's own address on comp2", SOON, || {
            comp2.ok(&["ip", "-6", "neigh", "show", "dev", "v6only-l2"]).lines().any(|line| line.starts_with(&format!("{own} ")) && line.contains("extern_learn"))
        });
        assert!(sources(comp1).contains(&(own.to_owned(), "neighbour".to_owned())), "{:?}", sources(comp1));
        // bgpd puts it there behind the neighbour.
        wait_until("the route", SOON, || comp2.ok(&["ip", "-6", "route", "show", "vrf", "v6only"]).contains(own));
        drop(container);
        wait_until("comp2 to forget it", SOON, || !remembers(comp2, MAC));
    }
}

lab_test! {
    /// No agent: the hook itself follows the network's list.
    fn a_reservation_that_comes_later_reaches_a_running_guest(fabric) {
        const VM: &str = "52:54:00:00:00:77";
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _red = Network::shipped(comp1, "red");
        let _configured = Configured::up(comp2, &[RED]);
        joined(fabric, 20);
        let nics = vec![Nic::Network { mac: VM, network: "red" }];
        let _vm = Vm::start(comp1, &VmSpec { name: "later", nics, bare: true, ..VmSpec::default() });
        assert_eq!(endpoint_status(comp1, VM)["ips"], serde_json::json!([]));
        let update = |verb: &str, ip: &str| {
            let host = format!("<host mac='{VM}' ip='{ip}'/>");
            comp1.ok(&["virsh", "--quiet", "net-update", "red", verb, "ip-dhcp-host", &host, "--live"]);
        };
        let there = |ip: &str| comp2.ok(&["ip", "neigh", "show", "dev", "red-l2"]).contains(&format!("{ip} lladdr {VM} extern_learn"));
        update("add-last", "10.1.0.77");
        wait_until("10.1.0.77 on comp2", SOON, || there("10.1.0.77"));
        let addresses = endpoint_status(comp1, VM)["addresses"].clone();
        assert_eq!(addresses, serde_json::json!([{ "ip": "10.1.0.77", "source": "dhcp-host" }]));
        update("modify", "10.1.0.78");
        wait_until("10.1.0.78 on comp2, and no more 10.1.0.77", SOON, || there("10.1.0.78") && !there("10.1.0.77"));
        update("delete", "10.1.0.78");
        wait_until("no address on comp2", SOON, || !there("10.1.0.78"));
        assert_eq!(endpoint_status(comp1, VM)["state"], "advertised");
    }
}

lab_test! {
    /// Nobody tells the target what the guest learned on the source: the fabric does.
    fn a_learned_address_moves_with_its_guest(fabric) {
        const VM: &str = "52:54:00:00:00:78";
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let _networks = [Network::shipped(comp1, "red"), Network::without_dhcp(comp2, "red")];
        joined(fabric, 20);
        let _agents = [comp1, comp2].map(Agent::start);
        let nics = vec![Nic::Network { mac: VM, network: "red" }];
        let mut vm = Vm::start(comp1, &VmSpec { name: "leased", nics, cmdline: "lab.broadcast", ..VmSpec::default() });
        vm.wait_ready();
        let leased = |host: &Host| {
            let status = endpoint_status(host, VM);
            let addresses = status["addresses"].as_array().cloned().unwrap_or_default();
            let v4 = addresses.iter().find(|a| a["ip"].as_str().is_some_and(|ip| ip.starts_with("10.1.0.")));
            v4.map(|a| (a["ip"].as_str().unwrap_or_default().to_owned(), a["source"].as_str().unwrap_or_default().to_owned()))
        };
        wait_until("a lease", SOON, || leased(comp1).is_some());
        let (ip, source) = leased(comp1).expect("a lease");
        assert_eq!(source, "lease");
        vm.migrate(comp2);
        wait_until("the lease on the target", SOON, || leased(comp2) == Some((ip.clone(), "fabric".to_owned())));
        wait_until("the source to follow", SOON, || knows(comp1, "red", "vxlan20", VM, &[&ip], "10.0.0.2"));
        wait_until("FRR to have all of it", SOON, || endpoint_status(comp2, VM)["state"] == "advertised");
    }
}
