//! The guests: two VMs on comp1, whose addresses libvirt's DHCP knows beforehand, and two containers on comp2, which ask that
//! DHCP across the fabric.

use std::time::{Duration, Instant};

use super::fabric::{Agent, Container, Line, Nic, Transcript, Vm, VmSpec, wait_until};
use super::story::Story;
use super::timeline::{Mark, SOON, Timeline, span};
use super::{GREEN, Guest, RED, Stage};

pub struct RunningVm {
    pub guest: Guest,
    pub vm: Vm<'static>,
    pub start: Timeline,
    /// `virsh start` did.
    pub returned: Instant,
    pub first_line: Line,
}

pub struct RunningContainer {
    pub guest: Guest,
    pub container: Container<'static>,
}

fn vms() -> [Guest; 2] {
    [(&RED, "alpine-red", "52:54:00:03:82:d8", "10.1.0.60"), (&GREEN, "alpine-green", "52:54:00:32:2a:a7", "10.2.0.80")]
        .map(|(tenant, name, mac, ip)| Guest { label: name, name, tenant, mac, ip: ip.into(), is_vm: true })
}

/// Their addresses are what the DHCP server will give.
fn containers() -> [Guest; 2] {
    [(&RED, "red", "LXC red"), (&GREEN, "green", "LXC green")].map(|(tenant, name, label)| Guest {
        label,
        name,
        tenant,
        mac: "00:16:3e:00:00:10",
        ip: String::new(),
        is_vm: false,
    })
}

pub fn start_vms(stage: &mut Stage) -> Vec<RunningVm> {
    stage.story.chapter("Two VMs on comp1");
    stage.story.say(
        "Plain domains: <interface type='network'><source network='red'/>. Their addresses are <dhcp><host> entries of\n\
         the networks, so evpn-hook knows MAC and IP before they run. (Debian's kernel with a busybox initramfs.)\n",
    );
    let mut running: Vec<RunningVm> = vms().into_iter().map(|guest| start_vm(stage, guest)).collect();
    for RunningVm { guest, vm, .. } in &mut running {
        patiently(&stage.story, || has_line(vm.console(), "lab-guest: lease eth0 "));
        let lease = vm.console().wait(&["lab-guest: lease eth0"], SOON);
        stage.story.say(&format!("{} says on its console: {}", guest.name, lease.text));
        stage.story.check(lease.text.ends_with(&format!(" {}", guest.ip)), || {
            format!("{} got another address than {}", guest.name, guest.ip)
        });
        vm.wait_ready();
    }
    running
}

fn has_line(transcript: &Transcript, part: &str) -> bool {
    transcript.lines().iter().any(|line| line.text.contains(part))
}

/// Waits, and says so from time to time.
fn patiently(story: &Story, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut said = 0;
    wait_until("a guest's console", Duration::from_secs(120), || {
        let now = start.elapsed().as_secs() / 5 * 5;
        if now > said {
            said = now;
            story.say(&format!("  ({said} s so far)"));
        }
        is_so()
    });
}

fn start_vm(stage: &mut Stage, guest: Guest) -> RunningVm {
    let host = stage.fabric.comp1();
    let network = guest.tenant.name;
    let spec = VmSpec { name: guest.name, nics: vec![Nic::Network { mac: guest.mac, network }], ..VmSpec::default() };
    let mut vm = Vm::define(host, &spec);
    stage.story.run(host, &format!("virsh domiflist {}", guest.name));
    let mark = Mark::now(stage);
    let mut start = None;
    vm.boot_by(|| {
        let running = stage.story.begin(host, &format!("virsh start {}", guest.name));
        start = Some(mark.appears(stage, &guest));
        patiently(&stage.story, || running.is_finished());
        stage.story.end(running);
    });
    let (start, returned) = (start.expect("it was started"), Instant::now());
    patiently(&stage.story, || !vm.console().is_empty());
    let first_line = vm.console().wait(&[""], SOON);
    stage.story.say(&format!(
        "Its console's first line, {} after comp2's route: {:.50}\n",
        span(start.last(), first_line.at),
        first_line.text
    ));
    stage
        .story
        .check(start.last() < first_line.at, || format!("{}'s first line came before the fabric knew it", guest.name));
    RunningVm { guest, vm, start, returned, first_line }
}

pub fn start_containers(stage: &mut Stage) -> Vec<RunningContainer> {
    stage.story.chapter("Two containers on comp2");
    stage.story.say(
        "One lxc.include puts a container on a tenant's network. (A fixed MAC gives the same lease at every run; that\n\
         both tenants have the same one is on purpose.) Nobody knows their addresses beforehand: evpn-agent, which systemd\n\
         starts on a real host, listens on their ports.",
    );
    stage.agents = stage.fabric.hypervisors().map(Agent::start).into();
    containers().into_iter().map(|guest| start_container(stage, guest)).collect()
}

fn start_container(stage: &mut Stage, mut guest: Guest) -> RunningContainer {
    let (comp1, comp2) = (stage.fabric.comp1(), stage.fabric.comp2());
    let (name, mac, tenant) = (guest.name, guest.mac, guest.tenant);
    let config = format!("lxc.include = /usr/share/evpn-hook/lxc/{name}.conf\nlxc.net.0.hwaddr = {mac}");
    let container = Container::define(comp2, name, &config);
    let story = &mut stage.story;
    story.say("");
    story.run(comp2, &format!("grep -e include -e hwaddr /var/lib/lxc/{name}/config"));
    story.run(comp2, &format!("lxc-start --name {name}"));
    // The MAC is out before the container asks for anything.
    wait_until("the container's MAC on comp1", SOON, || {
        comp1.ok(&["bridge", "fdb", "show", "dev", &format!("vxlan{}", tenant.vni)]).contains(mac)
    });
    story.run(comp1, &format!("bridge fdb show dev vxlan{} | grep {mac}", tenant.vni));
    story.say(
        "Its MAC is known to comp1; no address is known to anyone yet. It asks for one, and comp1's dnsmasq answers:",
    );
    let lease = story.run(comp2, &format!("lxc-attach --clear-env --name {name} -- udhcpc -i eth0 -n -q"));
    let ip = lease.lines().find_map(|line| line.strip_prefix("lab-guest: lease eth0 ")).unwrap_or_default().trim();
    story.check(ip.starts_with(tenant.gateway.trim_end_matches('1')), || {
        format!("container {name} got no lease: {lease}")
    });
    guest.ip = ip.to_owned();
    wait_until("comp1's route to the container", SOON, || {
        let routes = comp1.ok(&["ip", "route", "show", "vrf", tenant.name]);
        routes.lines().any(|line| line.starts_with(&format!("{ip} ")))
    });
    story.say("comp2's agent heard the answer, and registered the address before the container has talked to anyone:");
    story.run(comp1, &format!("ip route show vrf {} | grep {ip}", tenant.name));
    RunningContainer { guest, container }
}
