//! Guests that move: the fabric follows a live migration the moment it happens, and not at all when it fails.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bare::{IdealScript, Port};
use crate::fabric::{
    Agent, Capture, Container, Events, Fabric, Host, Line, Migration, Monitor, Nic, Ping, Pinger, Traces, Vm, VmSpec,
    wait_until,
};
use crate::figures::{JITTER, keep, median, milliseconds, signed};
use crate::plot;
use crate::tenant::{
    Configured, Network, RED, SOON, container_on, endpoint_status, expect_advertised, knows, remembers,
};

const MAC: &str = "52:54:00:00:60:01";
const IP: &str = "10.1.0.61";
const PACE: Duration = Duration::from_millis(10);
/// For a migration, where QEMU is emulated inside an emulated kernel.
const PATIENCE: Duration = Duration::from_secs(120);

/// The event that says that the guest's memory is under way.
const MEMORY: &[&str] = &["'migration-iteration'"];

/// Tenant red on all three: as libvirt's network where VMs are, and from config.toml.
struct Red {
    comp1: &'static Host,
    comp2: &'static Host,
    comp3: &'static Host,
    spine1: &'static Host,
    _networks: [Network<'static>; 2],
    _configured: Configured<'static>,
}

impl Red {
    fn up(fabric: &'static Fabric, comp3: &'static Host) -> Red {
        Red::between(fabric, fabric.hypervisors(), comp3)
    }

    /// With other hosts in the places of comp1 and comp2.
    fn between(fabric: &'static Fabric, [comp1, comp2]: [&'static Host; 2], comp3: &'static Host) -> Red {
        let networks = [Network::shipped(comp1, "red"), Network::without_dhcp(comp2, "red")];
        let configured = Configured::up(comp3, &[RED]);
        let red = Red { comp1, comp2, comp3, spine1: fabric.spine1(), _networks: networks, _configured: configured };
        for host in red.hosts() {
            for peer in red.others(host) {
                wait_until(&format!("{} in VNI 20 of {}", peer.name(), host.name()), SOON, || {
                    host.show_text("zebra", "show evpn vni 20 json").contains(&peer.address())
                });
            }
        }
        red
    }

    fn hosts(&self) -> [&'static Host; 3] {
        [self.comp1, self.comp2, self.comp3]
    }

    fn others(&self, host: &Host) -> impl Iterator<Item = &'static Host> {
        self.hosts().into_iter().filter(move |other| other.name() != host.name())
    }

    /// Where the VM can go.
    fn target(&self, vm: &Vm) -> &'static Host {
        if vm.host().name() == self.comp1.name() { self.comp2 } else { self.comp1 }
    }

    /// The guest where it can move from: no libvirt promises to take one from a newer libvirt.
    fn ready(&self, vm: Vm<'static>) -> Vm<'static> {
        if self.comp1.suite() == self.comp2.suite() || vm.host().name() == self.comp1.name() {
            return vm;
        }
        drop(vm);
        self.vm()
    }

    /// A running guest on comp1, known to all.
    fn vm(&self) -> Vm<'static> {
        let vm = Vm::start(
            self.comp1,
            &VmSpec {
                name: "mover",
                nics: vec![Nic::Network { mac: MAC, network: "red" }],
                cmdline: "lab.ip0=10.1.0.61/24 lab.gw0=10.1.0.1 lab.silent",
                metadata: &metadata(MAC, IP),
                ..VmSpec::default()
            },
        );
        vm.wait_ready();
        self.expect_on(self.comp1, MAC, IP);
        vm
    }

    /// Waits until the guest is advertised from `host` alone, and until every host has it there.
    fn expect_on(&self, host: &Host, mac: &str, ip: &str) {
        let at = host.address();
        let mac_route = format!("[2]:[0]:[48]:[{mac}]");
        let ip_route = format!("{mac_route}:[32]:[{ip}]");
        let wanted = [(mac_route, at.clone()), (ip_route, at.clone())];
        wait_until(&format!("{mac} and {ip} advertised by {} alone", host.name()), SOON, || {
            self.advertised(mac) == wanted
        });
        self.expect_known(host, mac, ip);
        for other in self.others(host) {
            assert_eq!(endpoint_status(other, mac), Value::Null, "{mac} is on {} alone", host.name());
        }
        let (entry, neighbour) = zebra(host, mac, ip);
        assert_eq!((&entry["type"], &neighbour["type"]), (&"local".into(), &"local".into()), "{entry:#} {neighbour:#}");
        assert_eq!((&entry["isDuplicate"], &neighbour["state"]), (&false.into(), &"active".into()));
        expect_advertised(host, mac, &[ip]);
    }

    /// Waits until the others have it there.
    fn expect_known(&self, host: &Host, mac: &str, ip: &str) {
        let at = host.address();
        for other in self.others(host) {
            wait_until(&format!("{mac} at {} in zebra of {}", host.name(), other.name()), SOON, || {
                let (mac, neighbour) = zebra(other, mac, ip);
                [&mac, &neighbour].iter().all(|entry| entry["type"] == "remote" && entry["remoteVtep"] == *at)
                    && mac["isDuplicate"] == false
            });
            wait_until(&format!("{mac} at {} in the kernel of {}", host.name(), other.name()), SOON, || {
                knows(other, "red", "vxlan20", mac, &[ip], &at)
            });
        }
    }

    /// The route reflector's routes of this MAC, each with its next hop, in order.
    fn advertised(&self, mac: &str) -> Vec<(String, String)> {
        let all = self.spine1.show("reflector/bgpd", "show bgp l2vpn evpn route type macip json");
        let of_hosts = all.as_object().expect("an object").values().filter_map(Value::as_object);
        let mut routes: Vec<_> = of_hosts
            .flatten()
            .filter(|(prefix, _)| prefix.contains(mac))
            .map(|(prefix, route)| {
                let hop = route.pointer("/paths/0/0/nexthops/0/ip").and_then(Value::as_str);
                (prefix.clone(), hop.unwrap_or_default().to_owned())
            })
            .collect();
        routes.sort();
        routes
    }
}

/// What tells a migration's target the guest's addresses.
fn metadata(mac: &str, ip: &str) -> String {
    format!(
        "<evpn:guest xmlns:evpn='urn:evpn-hook:1'><evpn:interface mac='{mac}'><evpn:ip address='{ip}'/></evpn:interface></evpn:guest>"
    )
}

/// zebra's entries of a MAC and of an address in VNI 20; null where it has none.
fn zebra(host: &Host, mac: &str, ip: &str) -> (Value, Value) {
    let ask =
        |command: String| -> Value { serde_json::from_str(&host.show_text("zebra", &command)).unwrap_or_default() };
    let entry = ask(format!("show evpn mac vni 20 mac {mac} json"))[mac].take();
    (entry, ask(format!("show evpn arp-cache vni 20 ip {ip} json")))
}

lab_test! {
    /// Each migration counts as a move of its MAC, and zebra calls the fifth within three minutes a duplicate: hence five guests
    /// of four moves each, so that it says nothing about evpn-hook how fast this machine is.
    fn twenty_migrations_in_a_row_leave_each_guest_in_one_place(fabric, comp3) {
        const GUESTS: usize = 5;
        const ROUNDS: usize = 4;
        let red = Red::up(fabric, comp3);
        // comp2 has none: there the hook's own watch sees them arrive.
        let _agent = Agent::start(red.comp1);
        let address = |number: usize| (format!("52:54:00:00:61:{number:02x}"), format!("10.1.0.{}", 110 + number));
        let mut guests: Vec<_> = (0..GUESTS)
            .map(|number| {
                let (mac, ip) = address(number);
                Vm::start(red.comp1, &VmSpec {
                    name: &format!("mover{number}"),
                    nics: vec![Nic::Network { mac: &mac, network: "red" }],
                    metadata: &metadata(&mac, &ip),
                    bare: true,
                    ..VmSpec::default()
                })
            })
            .collect();
        for round in 0..ROUNDS {
            let target = [red.comp2, red.comp1][round % 2];
            for (number, guest) in guests.iter_mut().enumerate() {
                let (mac, ip) = address(number);
                let begun = Instant::now();
                let downtime = guest.migrate(target);
                let moved = Instant::now();
                red.expect_on(target, &mac, &ip);
                eprintln!("lab: migration {} to {} took {:.1} s, down for {} ms, found right {:.1} s later", round * GUESTS + number + 1,
                    target.name(), (moved - begun).as_secs_f64(), downtime.as_millis(), moved.elapsed().as_secs_f64());
            }
        }
        for host in red.hosts() {
            let log = host.sh("cat /var/log/frr/frr.log");
            let complaints: Vec<_> = log
                .lines()
                .filter(|line| line.contains("52:54:00:00:61:") && line.to_lowercase().contains("duplicate"))
                .collect();
            assert!(complaints.is_empty(), "{}: {complaints:#?}", host.name());
        }
    }
}

/// Refuses one operation of every domain, while the value lives.
struct RefusingHook<'a>(&'a Host);

const REFUSING: &str = "/etc/libvirt/hooks/qemu.d/90-refuse";

impl<'a> RefusingHook<'a> {
    fn at(host: &'a Host, operation: &str) -> RefusingHook<'a> {
        host.write(REFUSING, &format!("#!/bin/sh\n[ \"$2\" != {operation} ]\n"));
        host.ok(&["chmod", "755", REFUSING]);
        RefusingHook(host)
    }
}

impl Drop for RefusingHook<'_> {
    fn drop(&mut self) {
        self.0.run(&["rm", REFUSING]);
    }
}

lab_test! {
    fn a_migration_that_fails_or_is_cancelled_changes_nothing(fabric, comp3) {
        let red = Red::up(fabric, comp3);
        let _agents = [red.comp1, red.comp2].map(Agent::start);
        let mut vm = red.vm();
        let before = Traces::of(red.comp2);
        let monitor = comp3.monitor();
        let mut fails = |what: &str, end: &dyn Fn(&Migration, &Events)| {
            let events = red.comp1.libvirt_events();
            // Slow enough that its memory is under way for half a minute.
            let migration = vm.start_migration(red.comp2, &["--bandwidth", "2"]);
            end(&migration, &events);
            let output = migration.wait();
            assert_ne!(output.code, 0, "{what}: {output:?}");
            wait_until(&format!("comp2 to be as it was ({what})"), SOON, || Traces::of(red.comp2) == before);
            red.expect_on(red.comp1, MAC, IP);
            let touched: Vec<_> = monitor.transcript().lines().into_iter().filter(|line| is_about(&line.text, MAC, IP)).collect();
            assert!(touched.is_empty(), "{what}: comp3's kernel said\n{touched:#?}");
        };
        {
            let _hook = RefusingHook::at(red.comp2, "started");
            fails("refused by the target", &|_, _| {});
        }
        fails("cancelled", &|migration, events| { events.wait(MEMORY, PATIENCE); migration.abort() });
        fails("the target's QEMU killed", &|migration, events| { events.wait(MEMORY, PATIENCE); migration.kill_target() });
        assert_eq!(vm.exec("true").0, 0, "the guest never stopped");
    }
}

lab_test! {
    /// The guest runs on the target before all of its memory is there, and the fabric need not wait for the rest.
    fn a_post_copy_migration_arrives_when_the_guest_runs(fabric, comp3) {
        let red = Red::up(fabric, comp3);
        let _agents = [red.comp1, red.comp2].map(Agent::start);
        let mut vm = red.vm();
        let (events, monitor) = ([red.comp1.libvirt_events(), red.comp2.libvirt_events()], comp3.monitor());
        let migration = vm.start_migration(red.comp2, &["--postcopy", "--bandwidth", "2"]);
        events[0].wait(MEMORY, PATIENCE);
        migration.switch_to_postcopy();
        let resumed = events[1].wait(&["'lifecycle'", "Resumed Post-copy"], PATIENCE).at;
        let output = migration.wait();
        assert_eq!(output.code, 0, "{output:?}");
        red.expect_on(red.comp2, MAC, IP);
        for (place, at) in moved(&monitor, 0, MAC, IP, red.comp2) {
            eprintln!("lab: {place} moved {} ms after libvirt's word of the resume", milliseconds(signed(resumed, at)));
        }
        vm.destroy();
        for host in [red.comp1, red.comp3] {
            wait_until(&format!("{} to forget the guest", host.name()), SOON, || !remembers(host, MAC));
        }
        // zebra leaves its entry in the VXLAN device's own table when a MAC becomes local; the bridge sends nothing there any more.
        wait_until("comp2 to forget the guest but for that", SOON, || {
            let fdb = red.comp2.ok(&["bridge", "fdb", "show"]);
            fdb.lines().filter(|line| line.contains(MAC)).all(|line| line.contains("dev vxlan20 dst 10.0.0.1 self"))
                && !red.comp2.ok(&["ip", "neigh"]).contains(MAC)
        });
    }
}

fn is_about(line: &str, mac: &str, ip: &str) -> bool {
    line.contains(mac) || line.contains(&format!("{ip} "))
}

/// Where another host's kernel holds the place of a guest, and the words of its messages. A neighbour names no host: it stays as
/// it is, and only zebra's word of it has the VTEP.
fn places<'a>(mac: &'a str, ip: &'a str, at: &'a str) -> [(&'static str, Vec<&'a str>); 2] {
    [("FDB entry", vec![mac, "dev vxlan20 dst", at]), ("VRF route", vec![ip, "via", at, "dev red-l3"])]
}

/// When each of them pointed to `host`, from a line of the monitor on.
fn moved(monitor: &Monitor, from: usize, mac: &str, ip: &str, host: &Host) -> Vec<(&'static str, Instant)> {
    let (ip, at) = (format!("{ip} "), format!("{} ", host.address()));
    let first = |parts: &[&str]| {
        let mut next = from;
        loop {
            let (index, line) = monitor.transcript().wait_from(next, parts, SOON);
            if !line.text.starts_with("Deleted") {
                return line.at;
            }
            next = index + 1;
        }
    };
    places(mac, &ip, &at).into_iter().map(|(place, parts)| (place, first(&parts))).collect()
}

/// Seconds from `zero` to `at`, below zero if it came before.
/// What FRR itself takes: entries moved from comp1 to comp2 by a bare netlink program, from its first message to each of
/// comp3's, in seconds. Each time another MAC, for the same one moving so often would be a duplicate.
fn floor(red: &Red, monitor: &Monitor) -> Vec<(&'static str, Vec<f64>)> {
    const SAMPLES: u8 = 9;
    let ports = [red.comp1, red.comp2].map(|host| Port::new(host, "floor", "red-l2"));
    let mut floor: Vec<(&'static str, Vec<f64>)> = Vec::new();
    for number in 1..=SAMPLES {
        let (mac, ip) = (format!("52:54:00:00:62:{number:02x}"), format!("10.1.0.{}", 200 + number));
        let (parsed_mac, parsed_ip) = (mac.parse().expect("a MAC"), ip.parse().expect("an address"));
        let from = monitor.transcript().len();
        ports[0].register(parsed_mac, parsed_ip);
        red.expect_known(red.comp1, &mac, &ip);
        let begun = ports[1].register(parsed_mac, parsed_ip);
        let moves = moved(monitor, from, &mac, &ip, red.comp2);
        red.expect_known(red.comp2, &mac, &ip);
        ports[1].withdraw(parsed_mac, parsed_ip);
        floor.resize_with(moves.len(), || ("", Vec::new()));
        for ((place, samples), (name, at)) in floor.iter_mut().zip(moves) {
            *place = name;
            samples.push(signed(begun, at));
        }
    }
    floor
}

/// Does the guest's NIC hear nothing, while QEMU is handed a second's worth of pings? Then the fabric has done its part.
fn is_deaf(vm: &mut Vm, capture: &Capture) -> bool {
    let heard = |vm: &mut Vm| {
        vm.exec("cat /sys/class/net/eth0/statistics/rx_packets; grep virtio /proc/interrupts; ip -s link show eth0").1
    };
    let (handed, before) = (capture.sent_to_guest().len(), heard(vm));
    wait_until("a second's worth of pings at the guest's tap", SOON, || capture.sent_to_guest().len() > handed + 100);
    let after = heard(vm);
    eprintln!(
        "lab: no answers; while {} frames came out of its tap the guest had\n{before}\nand then\n{after}",
        capture.sent_to_guest().len() - handed
    );
    before.lines().next() == after.lines().next()
}

/// One migration under pings.
struct Run {
    title: &'static str,
    paused: Instant,
    /// When the guest ran on the target: its first frame there, or libvirt's word of it.
    resumed: Instant,
    downtime: Duration,
    moved: Vec<(&'static str, Instant)>,
    /// All that comp3's kernel said of the guest.
    said: Vec<Line>,
    pings: Vec<Ping>,
}

impl Run {
    /// None if the guest answers on its console as little as on the network, or its NIC is deaf. Under TCG some guests that move while busy spin on
    /// the target for ever, or get no more interrupts, all tables being right; why is not known.
    fn of(
        title: &'static str,
        red: &Red,
        vm: &mut Vm<'static>,
        target: &'static Host,
        pinger: &Pinger,
        monitor: &Monitor,
        script: Option<IdealScript>,
    ) -> Option<Run> {
        let from = monitor.transcript().len();
        let capture = Capture::start(target, MAC);
        let (leaves, arrives) = (vm.host().libvirt_events(), target.libvirt_events());
        let downtime = std::thread::scope(|scope| {
            script.map(|script| scope.spawn(|| script.run(PATIENCE)));
            vm.migrate(target)
        });
        let paused = leaves.wait(&["'lifecycle'", "Suspended Migrated"], SOON).at;
        let word = arrives.wait(&["'lifecycle'", "Resumed Migrated"], SOON).at;
        let frame = capture.first_by_guest(SOON);
        let resumed = word.min(frame.at);
        let early: Vec<_> = capture.sent_to_guest().into_iter().filter(|frame| frame.at < resumed).collect();
        assert!(early.is_empty(), "{title}: before the guest ran there its tap got {early:#?}");
        let moved = moved(monitor, from, MAC, IP, target);
        red.expect_known(target, MAC, IP);
        if !vm.is_alive(SOON) {
            let words: Vec<_> = vm.console().lines().into_iter().map(|line| line.text).collect();
            let tail = words[words.len().saturating_sub(10)..].join("\n");
            eprintln!("lab: {title}: the guest is dead on {}; its last words:\n{tail}", target.name());
            return None;
        }
        let (answered, seconds, began) = (pinger.answered(), 2, Instant::now());
        let mut deaf = None;
        wait_until("two seconds' worth of answers", PATIENCE, || {
            if deaf.is_none() && began.elapsed() > SOON {
                deaf = Some(is_deaf(vm, &capture));
            }
            deaf == Some(true) || pinger.answered() > answered + seconds * 100
        });
        if deaf == Some(true) {
            eprintln!("lab: {title}: the guest is deaf on {}", target.name());
            return None;
        }
        let window = paused - Duration::from_secs(1)..resumed + Duration::from_secs(3);
        let said = monitor.transcript().lines().split_off(from);
        let said = said.into_iter().filter(|line| is_about(&line.text, MAC, IP)).collect();
        let pings = pinger.pings().into_iter().filter(|ping| window.contains(&ping.sent)).collect();
        Some(Run { title, paused, resumed, downtime, moved, said, pings })
    }

    /// Seconds from the resume until this place at comp3 pointed to the target.
    fn took(&self, place: usize) -> f64 {
        signed(self.resumed, self.moved[place].1)
    }

    /// What comp3's kernel said of its neighbour entry, which names no host.
    fn neighbour(&self) -> Vec<&Line> {
        self.said.iter().filter(|line| line.text.contains(IP) && line.text.contains("dev red-l2")).collect()
    }

    fn lost(&self) -> usize {
        self.pings.iter().filter(|ping| ping.rtt.is_none()).count()
    }

    /// Lost pings times their pace, and how much of that is not QEMU's downtime; seconds.
    fn silence(&self) -> (f64, f64) {
        let (first, last) = (self.pings[0].sent, self.pings[self.pings.len() - 1].sent);
        let pace = signed(first, last) / (self.pings.len() - 1) as f64;
        let silence = pace * self.lost() as f64;
        (silence, silence - self.downtime.as_secs_f64())
    }

    fn plot(&self) -> plot::Run {
        let at = |at: Instant| signed(self.resumed, at);
        let rtt = |ping: &Ping| ping.rtt.map(|rtt| rtt.as_secs_f64() * 1e3);
        let mut marks = vec![(at(self.paused), "paused".to_owned()), (0.0, "runs on the target".to_owned())];
        marks.extend(self.moved.iter().map(|(place, when)| (at(*when), format!("comp3's {place}"))));
        let title =
            format!("{}: {} pings lost, QEMU's downtime {} ms", self.title, self.lost(), self.downtime.as_millis());
        plot::Run { title, pings: self.pings.iter().map(|ping| (at(ping.sent), rtt(ping))).collect(), marks }
    }
}

/// A host's qemu hook gone, until the value is dropped.
struct WithoutHook<'a>(&'a Host);

impl<'a> WithoutHook<'a> {
    fn on(host: &'a Host) -> WithoutHook<'a> {
        host.ok(&["mv", "/etc/libvirt/hooks/qemu.d/50-evpn-hook", "/run/50-evpn-hook"]);
        WithoutHook(host)
    }
}

impl Drop for WithoutHook<'_> {
    fn drop(&mut self) {
        self.0.run(&["mv", "/run/50-evpn-hook", "/etc/libvirt/hooks/qemu.d/50-evpn-hook"]);
    }
}

/// Entries at a third host move as fast as FRR moves them at all, and no more pings are lost than with QEMU's pause and FRR's floor. The figures are kept
/// under this name.
fn expect_followed(red: &Red, name: &str) {
    let container = Container::start(red.comp3, "c1", &container_on("red", "00:16:3e:00:00:38", Some("10.1.0.38")));
    let mut vm = red.vm();
    let monitor = red.comp3.monitor();
    let pinger = Pinger::start(&container, IP.parse().expect("an address"), PACE);
    let floor = floor(red, &monitor);
    let bound = |place: usize| 1.2 * median(&floor[place].1) + JITTER.as_secs_f64();
    let is_slow = |run: &Run| (0..floor.len()).any(|place| run.took(place) > bound(place));
    // Pings within the segment go where the FDB says.
    let loses = |run: &Run| run.silence().1 > bound(0);
    let (mut runs, mut ideal) = (Vec::new(), None);
    // Another program on the one CPU makes a run late, and nothing makes one early. Where the target is so late that the source has withdrawn the guest
    // before, comp3 forgets it in between.
    for _ in 0..5 {
        vm = red.ready(vm);
        let target = red.target(&vm);
        match Run::of("evpn-hook", red, &mut vm, target, &pinger, &monitor, None) {
            Some(run) => {
                red.expect_on(target, MAC, IP);
                runs.push(run);
                let run = &runs[runs.len() - 1];
                if !is_slow(run) && !loses(run) && run.neighbour().is_empty() {
                    break;
                }
            }
            None => {
                drop(vm);
                vm = red.vm();
            }
        }
    }
    for _ in 0..5 {
        vm = red.ready(vm);
        let target = red.target(&vm);
        {
            let _without = WithoutHook::on(target);
            let script = IdealScript::prepare(target, MAC, IP);
            ideal = Run::of("ideal script", red, &mut vm, target, &pinger, &monitor, Some(script));
            vm.destroy();
            target.ok(&["ip", "neigh", "del", IP, "dev", "red-l2"]);
        }
        if ideal.is_some() {
            break;
        }
        drop(vm);
        vm = red.vm();
    }
    drop(pinger);
    let (hook, late) = runs.split_last().expect("a guest that lives on");
    let ideal = ideal.expect("a guest that lives on");

    let mut table = format!(
        "{:<14}{:>22}{:>22}{:>22}{:>8}\n",
        "ms after", "FRR's floor (median)", "evpn-hook", "ideal script", "ratio"
    );
    for (number, (place, samples)) in floor.iter().enumerate() {
        let (bare, with_hook, with_script) = (median(samples), hook.took(number), ideal.took(number));
        let _ = writeln!(
            table,
            "{place:<14}{:>22}{:>22}{:>22}{:>8.2}",
            milliseconds(bare),
            milliseconds(with_hook),
            milliseconds(with_script),
            with_hook / bare
        );
    }
    for (place, samples) in &floor {
        let all: Vec<_> = samples.iter().map(|sample| milliseconds(*sample)).collect();
        let _ = writeln!(table, "floor, {place}: {}", all.join(" "));
    }
    for run in late {
        let all: Vec<_> = (0..floor.len()).map(|place| milliseconds(run.took(place))).collect();
        let part = milliseconds(run.silence().1);
        let _ = writeln!(
            table,
            "evpn-hook, one of {} late runs: {}, the fabric's part {part} ms",
            late.len(),
            all.join(" ")
        );
    }
    for run in [hook, &ideal] {
        let (silence, excess) = run.silence();
        let _ = writeln!(
            table,
            "{}: {} of {} pings lost = {} ms, QEMU's downtime {} ms, the fabric's part {} ms, paused {} ms before the resume",
            run.title,
            run.lost(),
            run.pings.len(),
            milliseconds(silence),
            run.downtime.as_millis(),
            milliseconds(excess),
            milliseconds(signed(run.paused, run.resumed))
        );
    }
    for run in [hook, &ideal] {
        let _ = writeln!(table, "\n{}: what comp3's kernel said, in ms after the resume", run.title);
        for line in &run.said {
            let _ = writeln!(table, "{:>6} {}", milliseconds(signed(run.resumed, line.at)), line.text);
        }
    }
    eprintln!("{table}");
    keep(&format!("{name}.txt"), &table);
    keep(&format!("{name}.svg"), &plot::svg(&[hook.plot(), ideal.plot()], -1.0, 2.0));
    // It names no host, so it is right all the time if nobody touches it.
    assert!(hook.neighbour().is_empty(), "comp3's neighbour entry: {:#?}", hook.neighbour());
    assert!(!is_slow(hook), "slower than 1.2 times FRR's floor and {JITTER:?}");
    assert!(!loses(hook), "more pings lost than in QEMU's pause, 1.2 times FRR's floor and {JITTER:?}");
}

lab_test! {
    fn the_fabric_follows_a_migration_as_fast_as_frr_can(fabric, comp3) {
        expect_followed(&Red::up(fabric, comp3), "migration");
    }
}

lab_test! {
    /// From libvirt 9.0 and QEMU 7.2 to libvirt 11.3 and QEMU 10, with each one's FRR, as hosts are upgraded one after the other.
    fn the_fabric_follows_a_migration_from_bookworm_to_trixie(fabric, comp3) {
        let hosts = ["bookworm", "trixie"].map(|suite| fabric.of(suite));
        for host in hosts {
            eprint!("lab: {} has {}", host.name(), host.sh("dpkg-query -W -f '${Package} ${Version}, ' frr libvirt-daemon qemu-system-x86; echo"));
        }
        expect_followed(&Red::between(fabric, hosts, comp3), "migration-bookworm-trixie");
    }
}
