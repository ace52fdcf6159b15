//! IPv6 inside tenants: the demo's scenario with both families and without IPv4; router advertisements and DHCPv6 from libvirt's
//! dnsmasq inside a VRF; several gateways on one bridge.

use crate::fabric::{Container, Fabric, Host, Monitor, Nic, Vm, VmSpec, wait_until};
use crate::tenant::{Network, SOON, endpoint_status, expect_advertised, joined, known, network_status, remembers};

/// A tenant of both hypervisors.
struct Tenant {
    name: &'static str,
    vxlan: &'static str,
    vni: u32,
    gateways: &'static [&'static str],
    /// The gateway's link-local address, made from its MAC: every guest's router.
    router: &'static str,
}

const DUAL: Tenant = Tenant {
    name: "dual",
    vxlan: "vxlan80",
    vni: 80,
    gateways: &["10.3.0.1", "fd00:3::1"],
    router: "fe80::200:ff:fe11:1170",
};
const V6ONLY: Tenant =
    Tenant { name: "v6only", vxlan: "vxlan100", vni: 100, gateways: &["fd00:4::1"], router: "fe80::200:ff:fe11:1190" };

/// A guest with the addresses that are known before it starts.
struct Guest {
    mac: &'static str,
    ips: &'static [&'static str],
}

impl Guest {
    /// With all of these addresses, and perhaps one of its own that a router advertisement gave it before LXC told of its start.
    fn is_advertised(&self, host: &Host) {
        wait_until(&format!("{} to advertise {}", host.name(), self.mac), SOON, || {
            let status = endpoint_status(host, self.mac);
            let told = status["addresses"].to_string();
            status["state"] == "advertised" && self.ips.iter().all(|ip| told.contains(&format!("\"{ip}\"")))
        });
        host.ok(&["evpn-hook", "status", "--check"]);
    }
}

impl Tenant {
    fn bridge(&self) -> String {
        format!("{}-l2", self.name)
    }

    /// A container's NIC on it, with static addresses or none.
    fn nic(&self, mac: &str, addresses: &str) -> String {
        format!(
            "lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf\nlxc.net.0.type = veth\nlxc.net.0.link = {}\n\
             lxc.net.0.flags = up\nlxc.net.0.name = eth0\nlxc.net.0.hwaddr = {mac}\n{addresses}",
            self.bridge()
        )
    }

    fn expect_up(&self, fabric: &Fabric) {
        joined(fabric, self.vni);
        for host in fabric.hypervisors() {
            let status = network_status(host, self.name);
            assert_eq!(status["state"], "up", "{status:#}");
            let addresses = host.ok(&["ip", "address", "show", "dev", &self.bridge()]);
            for gateway in self.gateways.iter().chain([&self.router]) {
                assert!(addresses.contains(&format!(" {gateway}/")), "{} has no {gateway}:\n{addresses}", host.name());
            }
        }
    }

    fn known(&self, host: &Host, guest: &Guest, vtep: &str) -> Result<(), String> {
        known(host, self.name, self.vxlan, guest.mac, guest.ips, vtep)
    }
}

/// Each thing that comp2's kernel is to hold of a VM on comp1 came before the VM's own first word.
fn expect_before(there: &Monitor, tenant: &Tenant, guest: &Guest, vm: &Vm) {
    let first = vm.console().wait(&[""], SOON).at;
    let (bridge, l3) = (format!("dev {}", tenant.bridge()), format!("dev {}-l3", tenant.name));
    let mut places = vec![vec![guest.mac.to_owned(), format!("dev {}", tenant.vxlan)]];
    for ip in guest.ips {
        places.push(vec![format!("{ip} "), bridge.clone(), guest.mac.to_owned()]);
        places.push(vec![format!("{ip} "), l3.clone()]);
    }
    for place in places {
        let line = there.wait(&place.iter().map(String::as_str).collect::<Vec<_>>(), SOON);
        assert!(line.at < first, "{place:?} came {:?} after the guest's first line", line.at - first);
    }
}

fn expect_forgotten(host: &Host, tenant: &Tenant, guest: &Guest) {
    wait_until(&format!("{} to forget {}", host.name(), guest.mac), SOON, || !remembers(host, guest.mac));
    // bgpd takes its routes out of the VRF behind those of the VNI.
    wait_until(&format!("{} to forget its routes", host.name()), SOON, || {
        let routes = ["-4", "-6"].map(|family| host.ok(&["ip", family, "route", "show", "vrf", tenant.name])).concat();
        if guest.ips.iter().any(|ip| routes.contains(&format!("{ip} "))) { Err(routes) } else { Ok(()) }
    });
}

fn vm_reaches(vm: &mut Vm, addresses: &[&str]) {
    for address in addresses {
        let ping = if address.contains(':') { "ping6" } else { "ping" };
        let (code, output) = vm.exec(&format!("{ping} -c 2 -W 5 {address}"));
        assert_eq!(code, 0, "{address}: {output}");
    }
}

fn reaches(container: &Container, addresses: &[&str]) {
    for address in addresses {
        container.ok(&["ping", "-c", "2", "-W", "5", address]);
    }
}

/// Whether it took its default route from a router advertisement.
fn is_routed(routes: &str, tenant: &Tenant) -> bool {
    routes.lines().any(|line| line.contains(&format!("default via {} ", tenant.router)))
}

/// Another tenant's guest, that its own VRF reaches and neither of these two does.
fn expect_isolated(other: &Host, vrf: &str, address: &str, vm: &mut Vm, container: &Container) {
    // The first may come before the address has passed duplicate detection.
    other.ok(&["ping", "-c", "4", "-W", "2", "-I", vrf, address]);
    let (code, output) = vm.exec(&format!("ping6 -c 2 -W 1 {address}"));
    assert_ne!(code, 0, "{output}");
    let output = container.run(&["ping", "-c", "2", "-W", "1", address]);
    assert_ne!(output.code, 0, "{output:?}");
}

lab_test! {
    /// The demo with both families. One host answers DHCP, DHCPv6 and router solicitations, also those of the other's guests.
    fn a_dual_stack_tenant_spans_two_hosts(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let (_here, _there) = (Network::shipped(comp1, "dual"), Network::without_dhcp(comp2, "dual"));
        let _other = Network::shipped(comp1, "v6only");
        DUAL.expect_up(fabric);
        let there = comp2.monitor();
        let guest = Guest { mac: "52:54:00:07:82:d8", ips: &["10.3.0.60", "fd00:3::60"] };
        let mut vm = Vm::start(comp1, &VmSpec {
            name: "dual",
            nics: vec![Nic::Network { mac: guest.mac, network: "dual" }],
            cmdline: "lab.ip6_0=fd00:3::60/64",
            ..VmSpec::default()
        });
        expect_before(&there, &DUAL, &guest, &vm);
        expect_advertised(comp1, guest.mac, guest.ips);

        let far = Guest { mac: "00:16:3e:00:07:38", ips: &["10.3.0.138", "fd00:3::38"] };
        let nic = "lxc.net.0.ipv4.address = 10.3.0.138/24\nlxc.net.0.ipv4.gateway = 10.3.0.1\nlxc.net.0.ipv6.address = fd00:3::38/64\n";
        let container = Container::start(comp2, "c1", &DUAL.nic(far.mac, nic));
        wait_until("comp1 to know the container", SOON, || DUAL.known(comp1, &far, "10.0.0.2"));
        far.is_advertised(comp2);
        assert!(DUAL.known(comp2, &guest, "10.0.0.1").is_ok());

        let lease = vm.console().wait(&["lab-guest: lease eth0"], SOON).text;
        assert!(lease.ends_with(" 10.3.0.60"), "{lease}");
        vm.wait_ready();
        wait_until("the VM's default route", SOON, || is_routed(&vm.exec("ip -6 route").1, &DUAL));
        vm_reaches(&mut vm, &["10.3.0.138", "fd00:3::38", "10.3.0.1", "fd00:3::1"]);
        reaches(&container, &["10.3.0.60", "fd00:3::60", "10.3.0.1", "fd00:3::1"]);
        wait_until("the container's default route", SOON, || is_routed(&container.ok(&["ip", "-6", "route"]), &DUAL));

        // One that nobody knows: each protocol across the fabric, dnsmasq being on comp1 alone.
        let asking = Container::start(comp2, "c2", &DUAL.nic("00:16:3e:00:07:39", ""));
        let lease = asking.ok(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "10", "-T", "1", "-A", "1"]);
        assert!(lease.contains("lab-guest: lease eth0 10.3.0."), "{lease}");
        let address = asking.dhcpv6();
        assert!(address.starts_with("fd00:3::1"), "{address}");
        wait_until("its default route", SOON, || is_routed(&asking.ok(&["ip", "-6", "route"]), &DUAL));
        reaches(&asking, &["10.3.0.60", "fd00:3::60"]);

        let stranger = Container::start(comp1, "c3", &V6ONLY.nic("00:16:3e:00:04:38", "lxc.net.0.ipv6.address = fd00:4::38/64\n"));
        expect_isolated(comp1, "v6only", "fd00:4::38", &mut vm, &container);
        drop(stranger);

        vm.destroy();
        expect_forgotten(comp2, &DUAL, &guest);
        container.stop();
        expect_forgotten(comp1, &DUAL, &far);
    }
}

lab_test! {
    /// The demo without IPv4. Each host's dnsmasq is a router and a DHCPv6 server of its own; all say the same.
    fn a_tenant_without_ipv4_spans_two_hosts(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let (here, _there) = (Network::shipped(comp1, "v6only"), Network::shipped(comp2, "v6only"));
        let _other = Network::shipped(comp1, "dual");
        V6ONLY.expect_up(fabric);
        let there = comp2.monitor();
        // It makes its address itself (RFC 4291, appendix A): to be told beforehand, as any static one.
        let guest = Guest { mac: "52:54:00:04:82:d9", ips: &["fd00:4::5054:ff:fe04:82d9"] };
        let mut vm = Vm::start(comp1, &VmSpec {
            name: "v6only",
            nics: vec![Nic::Network { mac: guest.mac, network: "v6only" }],
            cmdline: "lab.noipv4",
            metadata: "<evpn:guest xmlns:evpn='urn:evpn-hook:1'><evpn:interface mac='52:54:00:04:82:d9'>
                <evpn:ip address='fd00:4::5054:ff:fe04:82d9'/></evpn:interface></evpn:guest>",
            ..VmSpec::default()
        });
        expect_before(&there, &V6ONLY, &guest, &vm);
        expect_advertised(comp1, guest.mac, guest.ips);

        // Its address is libvirt's <host id=>, known before DHCPv6 gives it.
        let far = Guest { mac: "52:54:00:04:82:d8", ips: &["fd00:4::60"] };
        let container = Container::start(comp2, "c1", &V6ONLY.nic(far.mac, ""));
        wait_until("comp1 to know the container", SOON, || V6ONLY.known(comp1, &far, "10.0.0.2"));
        far.is_advertised(comp2);
        let addresses = container.ok(&["ip", "-6", "address", "show", "dev", "eth0"]);
        assert!(!addresses.contains("fd00:4::60"), "it had its address before it asked: {addresses}");
        assert_eq!(container.dhcpv6(), "fd00:4::60");
        wait_until("its default route and its own address", SOON, || {
            is_routed(&container.ok(&["ip", "-6", "route"]), &V6ONLY)
                && container.ok(&["ip", "-6", "address"]).contains("fd00:4::5054:ff:fe04:82d8/64")
        });

        vm.wait_ready();
        wait_until("the VM's default route and address", SOON, || {
            let (_, text) = vm.exec("ip -6 route; ip -6 address");
            is_routed(&text, &V6ONLY) && text.contains("fd00:4::5054:ff:fe04:82d9/64") && !text.contains("tentative")
        });
        vm_reaches(&mut vm, &["fd00:4::60", "fd00:4::1"]);
        reaches(&container, &[guest.ips[0], "fd00:4::1"]);

        let stranger = Container::start(comp1, "c3", &DUAL.nic("00:16:3e:00:07:40", "lxc.net.0.ipv6.address = fd00:3::40/64\n"));
        expect_isolated(comp1, "dual", "fd00:3::40", &mut vm, &container);
        drop(stranger);

        vm.destroy();
        expect_forgotten(comp2, &V6ONLY, &guest);
        // The other host's router is enough.
        here.remove();
        container.ok(&["sh", "-c", "ip link set eth0 down; ip link set eth0 up"]);
        wait_until("a default route from comp2 alone", SOON, || is_routed(&container.ok(&["ip", "-6", "route"]), &V6ONLY));
        container.stop();
        wait_until("comp2 to withdraw it", SOON, || !remembers(comp2, far.mac));
    }
}

/// Three gateways on one bridge.
const SEVERAL: &str = "<network><name>several</name><metadata>
<evpn:network xmlns:evpn='urn:evpn-hook:1' vni='121'><evpn:vrf name='several' table='120' vni='120'/></evpn:network></metadata>
<forward mode='open'/><bridge name='several-l2' stp='off' delay='0'/><mac address='00:00:00:11:11:b0'/><dns enable='no'/>
<ip address='10.5.0.1' netmask='255.255.255.0'/><ip address='10.6.0.1' netmask='255.255.255.0'/>
<ip family='ipv6' address='fd00:5::1' prefix='64'/></network>";

lab_test! {
    fn one_bridge_has_several_gateways(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        let several = Tenant {
            name: "several", vxlan: "vxlan121", vni: 121, gateways: &["10.5.0.1", "10.6.0.1", "fd00:5::1"], router: "fe80::200:ff:fe11:11b0",
        };
        let (_here, _there) = (Network::start_xml(comp1, "several", SEVERAL), Network::start_xml(comp2, "several", SEVERAL));
        several.expect_up(fabric);
        for prefix in ["[24]:[10.5.0.0]", "[24]:[10.6.0.0]", "[64]:[fd00:5::]"] {
            wait_until(&format!("comp1's {prefix} on comp2"), SOON, || {
                let routes = comp2.show("bgpd", "show bgp l2vpn evpn route type prefix json");
                routes.as_object().into_iter().flatten().any(|(rd, routes)| {
                    rd.starts_with("10.0.0.1:") && routes.get(format!("[5]:[0]:{prefix}")).is_some()
                })
            });
        }
        let guests = [
            Guest { mac: "52:54:00:05:00:60", ips: &["10.5.0.60", "fd00:5::5:60"] },
            Guest { mac: "52:54:00:06:00:60", ips: &["10.6.0.60", "fd00:5::6:60"] },
        ];
        let mut vms: Vec<Vm> = guests.iter().zip([5, 6]).map(|(guest, subnet)| {
            let [v4, v6] = [guest.ips[0], guest.ips[1]];
            Vm::start(comp1, &VmSpec {
                name: &format!("subnet{subnet}"),
                nics: vec![Nic::Network { mac: guest.mac, network: "several" }],
                cmdline: &format!("lab.ip0={v4}/24 lab.gw0=10.{subnet}.0.1 lab.ip6_0={v6}/64 lab.gw6_0=fd00:5::1"),
                metadata: &format!("<evpn:guest xmlns:evpn='urn:evpn-hook:1'><evpn:interface mac='{}'>
                    <evpn:ip address='{v4}'/><evpn:ip address='{v6}'/></evpn:interface></evpn:guest>", guest.mac),
                ..VmSpec::default()
            })
        }).collect();
        for guest in &guests {
            wait_until("comp2 to know a VM", SOON, || several.known(comp2, guest, "10.0.0.1"));
            expect_advertised(comp1, guest.mac, guest.ips);
        }
        // One container in each subnet, on the other host.
        let containers = [5, 6].map(|subnet| {
            let nic = format!("lxc.net.0.ipv4.address = 10.{subnet}.0.38/24\nlxc.net.0.ipv4.gateway = 10.{subnet}.0.1\n\
                lxc.net.0.ipv6.address = fd00:5::{subnet}:38/64\n");
            Container::start(comp2, &format!("c{subnet}"), &several.nic(&format!("00:16:3e:00:0{subnet}:38"), &nic))
        });
        for vm in &mut vms {
            vm.wait_ready();
            vm_reaches(vm, &["10.5.0.1", "10.6.0.1", "fd00:5::1", "10.5.0.38", "10.6.0.38", "fd00:5::5:38", "fd00:5::6:38"]);
        }
        for container in &containers {
            reaches(container, &["10.5.0.1", "10.6.0.1", "10.5.0.60", "10.6.0.60", "fd00:5::5:60", "fd00:5::6:60"]);
        }
        drop(vms);
        for guest in &guests {
            expect_forgotten(comp2, &several, guest);
        }
    }
}
