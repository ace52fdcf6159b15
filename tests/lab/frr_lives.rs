//! FRR lives through a tenant that comes and goes, whatever the tenant's routes do meanwhile: freed memory of its daemons is poisoned (`fabric`),
//! so that a pointer to a device that is gone is no matter of luck.
//!
//! `make soak` does it for long. EVPN_ROUNDS says how often, EVPN_SEED repeats the moments of one run.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fabric::{Fabric, Host, OtherFrr, Running, died, revive, wait_until};
use crate::figures::keep;
use crate::tenant::{Configured, Network, RED, SOON};

/// What `make test` has time for.
const ROUNDS: u32 = 6;
const GUESTS: u32 = 3;

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().ok().unwrap_or_else(|| panic!("{name}={text}")))
}

/// Moments that can be had again: Marsaglia's xorshift64.
struct Moments(u64);

impl Moments {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn wait(&mut self, end: Duration) {
        let micros = u64::try_from(end.as_micros()).expect("a short time");
        thread::sleep(Duration::from_micros(self.below(micros)));
    }
}

/// A vtysh that comes to its work 0 to 300 ms late, on one host until this is dropped.
struct SlowVtysh<'a>(&'a Host);

impl SlowVtysh<'_> {
    fn on(host: &Host) -> SlowVtysh<'_> {
        host.write(
            "/run/slow-vtysh",
            "#!/bin/bash\nsleep $(printf 0.%03d $((RANDOM % 300)))\nexec /run/in-time/vtysh \"$@\"\n",
        );
        host.sh("chmod 755 /run/slow-vtysh; mkdir -p /run/in-time; touch /run/in-time/vtysh
             mount --bind /usr/bin/vtysh /run/in-time/vtysh; mount --bind /run/slow-vtysh /usr/bin/vtysh");
        SlowVtysh(host)
    }
}

impl Drop for SlowVtysh<'_> {
    fn drop(&mut self) {
        self.0.run(&["umount", "/usr/bin/vtysh", "/run/in-time/vtysh"]);
    }
}

/// Guests of one host that come and go: cables, told of by hand, with an address each.
struct Guests<'a> {
    host: &'a Host,
    goes_on: AtomicBool,
    /// None is wanted while the host's own network goes: `network down` wants no guests.
    rests: AtomicBool,
    /// None is there.
    resting: AtomicBool,
    came: AtomicU32,
    went: AtomicU32,
}

impl<'a> Guests<'a> {
    fn on(host: &'a Host) -> Guests<'a> {
        for guest in 1..=GUESTS {
            host.sh(&format!(
                "ip link add g{guest} type veth peer name p{guest}; ip link set g{guest} up; ip link set p{guest} up"
            ));
        }
        let [rests, resting] = [false, false].map(AtomicBool::new);
        Guests {
            host,
            goes_on: AtomicBool::new(true),
            rests,
            resting,
            came: AtomicU32::new(0),
            went: AtomicU32::new(0),
        }
    }

    /// A network that is not there at the moment takes no guest: that is no failure here.
    fn come(&self, guest: u32) {
        let number = self.host.address().rsplit_once('.').map_or("0", |(_, last)| last).to_owned();
        let (device, mac) = (format!("g{guest}"), format!("52:54:00:00:0{number}:0{guest}"));
        let ip = format!("10.1.0.{number}{guest}");
        let done = self.host.run(&["evpn-hook", "attach", &device, "--network", "red", "--mac", &mac, "--ip", &ip]);
        self.came.fetch_add(u32::from(done.code == 0), Ordering::Relaxed);
    }

    fn go(&self, guest: u32) {
        let done = self.host.run(&["evpn-hook", "detach", &format!("g{guest}")]);
        self.went.fetch_add(u32::from(done.code == 0), Ordering::Relaxed);
    }

    /// Returns when all have gone.
    fn rest(&self) {
        self.resting.store(false, Ordering::Relaxed);
        self.rests.store(true, Ordering::Relaxed);
        wait_until("the guests to go", SOON, || self.resting.load(Ordering::Relaxed));
    }

    fn churn(&self, mut moments: Moments) {
        let mut busy = false;
        while self.goes_on.load(Ordering::Relaxed) {
            if self.rests.load(Ordering::Relaxed) {
                if busy {
                    (1..=GUESTS).for_each(|guest| self.go(guest));
                }
                busy = false;
                self.resting.store(true, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            busy = true;
            self.resting.store(false, Ordering::Relaxed);
            let guest = u32::try_from(moments.below(GUESTS.into())).expect("small") + 1;
            if moments.below(2) == 0 {
                self.come(guest)
            } else {
                self.go(guest)
            }
            moments.wait(Duration::from_millis(150));
        }
        (1..=GUESTS).for_each(|guest| self.go(guest));
    }
}

impl Drop for Guests<'_> {
    fn drop(&mut self) {
        for guest in 1..=GUESTS {
            self.host.run(&["sh", "-c", &format!("evpn-hook detach g{guest}; ip link del g{guest}")]);
        }
    }
}

/// It stops the others also where this thread panics.
struct Over<'a>(&'a [&'a Guests<'a>]);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|guests| guests.goes_on.store(false, Ordering::Relaxed));
    }
}

/// A bgpd that has other things to do for up to 0.8 s: what zebra told it of the tenant's end it hears late, and its routes go late.
fn busy_bgpd<'a>(host: &'a Host, moments: &mut Moments) -> Running<'a> {
    let script =
        format!("pid=$(cat /run/frr/bgpd.pid); kill -STOP $pid; sleep 0.{:03}; kill -CONT $pid", moments.below(800));
    host.start_with(&["bash", "-euc", &script], "")
}

/// zebra has next hops of the other host in the tenant: it is now that the tenant has something to lose.
fn routed(host: &Host) {
    wait_until(&format!("{} to have the other host as next hop", host.name()), SOON, || {
        host.run(&["ip", "neigh", "show", "dev", "red-l3"]).stdout.contains("extern_learn")
    });
}

/// All of red's devices are. An FRR that was not in time (5 s for a vtysh, on a machine that is busy with other things) keeps the VRF alone, and the
/// next sync finishes. Was it so?
fn gone(host: &Host) -> bool {
    let left = || host.sh("cd /sys/class/net; ls -d red red-l3 vxlan10 vxlan20 2>/dev/null || true");
    let at_first = left();
    assert!(["", "red\n"].contains(&at_first.as_str()), "{}: red is down, and left {at_first}", host.name());
    if !at_first.is_empty() {
        wait_until(&format!("a sync to finish red's end on {}", host.name()), SOON, || {
            let sync = host.run(&["evpn-hook", "-v", "sync"]);
            eprintln!("lab: {}: {}{}", host.name(), sync.stdout, sync.stderr);
            left().is_empty()
        });
    }
    !at_first.is_empty()
}

fn alive(fabric: &Fabric, round: u32) {
    let died = died(&fabric.nodes());
    assert!(died.is_empty(), "round {round}: {died}");
}

/// Whether `virsh net-destroy` takes the bridge from under guests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Destroy {
    UnderGuests,
    /// FRR 9.1 to 10.3 may die of that, whatever the order (docs/frr.md, commit 3060afc84d).
    WithoutGuests,
}

/// Red comes and goes on both hosts, by libvirt and by hand, and what each has of the other's guests with it.
fn comes_and_goes(fabric: &'static Fabric, name: &str, destroy: Destroy) {
    let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
    let rounds = setting("EVPN_ROUNDS").unwrap_or(ROUNDS);
    let seed = setting("EVPN_SEED").unwrap_or_else(|| {
        u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("this age")
    });
    let version = comp1.show_text("bgpd", "show version").lines().next().unwrap_or_default().to_owned();
    eprintln!("lab: {version}: red goes up and down {rounds} times on each of two hosts, EVPN_SEED={seed}");
    let (begun, mut downs, mut late, mut moments) = (Instant::now(), Vec::new(), 0, Moments(seed | 1));
    let _slow = fabric.hypervisors().map(SlowVtysh::on);
    let by_libvirt = Network::shipped(comp1, "red");
    let _by_hand = Configured::up(comp2, &[RED]);
    let (at1, at2) = (Guests::on(comp1), Guests::on(comp2));
    thread::scope(|scope| {
        let all = [&at1, &at2];
        let _over = Over(&all);
        for guests in all {
            let moments = Moments(moments.below(u64::MAX) | 1);
            scope.spawn(move || guests.churn(moments));
        }
        for round in 1..=rounds {
            at2.rests.store(false, Ordering::Relaxed);
            routed(comp1);
            if destroy == Destroy::WithoutGuests {
                at1.rest();
            }
            moments.wait(Duration::from_millis(200));
            eprintln!("lab: round {round}");
            let busy = busy_bgpd(comp1, &mut moments);
            downs.push(timed(|| by_libvirt.stop()));
            busy.wait();
            alive(fabric, round);
            late += u32::from(gone(comp1));
            by_libvirt.start();
            at1.rests.store(false, Ordering::Relaxed);
            routed(comp2);
            // `network down` wants no guest there: those of the other host come and go on.
            at2.rests.store(true, Ordering::Relaxed);
            moments.wait(Duration::from_millis(200));
            let busy = busy_bgpd(comp2, &mut moments);
            downs.push(timed(|| until_down(comp2)));
            busy.wait();
            alive(fabric, round);
            late += u32::from(gone(comp2));
            comp2.ok(&["evpn-hook", "network", "up", "red"]);
        }
    });
    let mut text = String::new();
    let sum = |one: &AtomicU32, two: &AtomicU32| one.load(Ordering::Relaxed) + two.load(Ordering::Relaxed);
    let longest = downs.iter().max().expect("rounds");
    let _ = writeln!(
        text,
        "{version}: up and down {rounds} times on each of two hosts in {} s, vtysh 0 to 300 ms slow, bgpd 0 to 800 ms; guests came {} and went {} times; \
         no daemon died; a down took {} ms at most; {late} times FRR was not in time, and sync finished",
        begun.elapsed().as_secs(),
        sum(&at1.came, &at2.came),
        sum(&at1.went, &at2.went),
        longest.as_millis(),
    );
    eprintln!("lab: {text}");
    keep(&format!("{name}.txt"), &text);
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Its guests have been told to go, and go one after the other.
fn until_down(host: &Host) {
    wait_until(&format!("red to be down on {}", host.name()), SOON, || {
        let output = host.run(&["evpn-hook", "network", "down", "red"]);
        if output.code == 0 && !output.stderr.is_empty() {
            eprintln!("lab: {}: {}", host.name(), output.stderr);
        }
        assert!(output.code == 0 || output.stderr.contains("still has"), "{output:?}");
        output.code == 0
    });
}

lab_test! {
    fn frr_lives_through_a_tenant_that_comes_and_goes(fabric) {
        comes_and_goes(fabric, "frr-lives", Destroy::UnderGuests);
    }
}

lab_test! {
    fn frr_of_trixie_lives_through_it(fabric) {
        let _frr = OtherFrr::of(fabric, "trixie");
        comes_and_goes(fabric, "frr-lives-trixie", Destroy::WithoutGuests);
    }
}

lab_test! {
    fn frr_of_sid_lives_through_it(fabric) {
        let _frr = OtherFrr::of(fabric, "sid");
        comes_and_goes(fabric, "frr-lives-sid", Destroy::UnderGuests);
    }
}

lab_test! {
    /// The lab's own promise, on which the others rest.
    fn a_daemon_that_dies_is_noticed_and_started_again(fabric) {
        let comp2 = fabric.comp2();
        comp2.sh("pid=$(cat /run/frr/zebra.pid); kill -SEGV $pid; tail --pid=$pid -f /dev/null");
        let words = died(&fabric.nodes());
        assert!(words.contains("comp2: zebra (") && words.contains("eceived signal 11"), "{words}");
        revive(fabric);
        assert_eq!(died(&fabric.nodes()), "");
    }
}
