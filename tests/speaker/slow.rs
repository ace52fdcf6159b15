//! An FRR that is slow with its lists: what `status`, `explain` and `doctor` say then is what they say of the same FRR when it is quick, and beside
//! it what was not told. A proxy stands before the sockets of a real FRR, which has a second one as its peer.
//!
//! What was asked and what was said is in tests/golden/slow, as of Debian bookworm's FRR.

use crate::golden;
use crate::lab::{Lab, vni};
use evpn_hook::model::Mac;
use evpn_hook::speaker::Vty;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const HOOK: &str = env!("CARGO_BIN_EXE_evpn-hook");

/// No report takes longer than this.
const MOST: Duration = Duration::from_secs(3);
/// Guests of the network `crowd`: so many that a list of all its entries is cheaper than a question for each.
const CROWD: usize = 30;

const BGP: &str = "router bgp 64512\n bgp router-id 10.0.0.1\n no bgp default ipv4-unicast\n neighbor 10.0.0.2 remote-as 64512\n \
    neighbor 10.0.0.2 update-source 10.0.0.1\n neighbor 10.0.0.2 timers connect 1\n address-family l2vpn evpn\n  neighbor 10.0.0.2 activate\n  \
    advertise-all-vni\n exit-address-family\n";

/// The second host, with a guest on the first one's network.
const OTHER: &str = r#"
ip netns add two; ip -n two link set lo up; ip -n two address add 10.0.0.2/32 dev lo
ip link add to2 type veth peer name to1 netns two; ip link set to2 up; ip -n two link set to1 up
ip address add 10.9.0.1/30 dev to2; ip -n two address add 10.9.0.2/30 dev to1
ip route add 10.0.0.2 via 10.9.0.2; ip -n two route add 10.0.0.1 via 10.9.0.1
mkdir $dir/two; chown frr:frr $dir/two
sed -e 's/10.0.0.2/10.0.0.x/g; s/10.0.0.1/10.0.0.2/g; s/10.0.0.x/10.0.0.1/g' /etc/frr/bgpd.conf >/etc/frr/two.conf; chmod 644 /etc/frr/two.conf
for daemon in zebra bgpd; do
    config=/etc/frr/zebra.conf; [ $daemon = bgpd ] && config=/etc/frr/two.conf
    setsid ip netns exec two /usr/lib/frr/$daemon -P 0 --vty_socket $dir/two -z $dir/two/zserv.api -i $dir/two/$daemon.pid -f $config </dev/null >$dir/two/$daemon.out 2>&1 &
    until [ -S $dir/two/$daemon.vty ]; do sleep 0.02; done
done
two="ip netns exec two $hook --config $dir/two.toml --state /run/two"
$two network up flat
ip -n two link add tap9 type veth peer name far9 address 52:54:00:00:00:99; ip -n two link set far9 addrgenmode none
ip -n two link set tap9 up; ip -n two link set far9 up
$two attach tap9 --network flat --mac 52:54:00:00:00:99 --ip 10.1.0.99 --guest g99
"#;

/// So that doctor says nothing of the machine that the test runs on.
const ANY_MACHINE: &str = "for dir in /etc/libvirt /usr/share/lxc; do [ ! -d $dir ] || mount -t tmpfs none $dir; done; \
    for calls in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $calls ] || echo 0 >$calls; done";

/// What the proxy does with a list.
#[derive(Clone, Copy)]
enum Lists {
    After(Duration),
    Never,
}

/// Does this question's answer grow with the fabric?
fn is_list(question: &str) -> bool {
    let lists = ["show bgp l2vpn evpn route ", "show bgp vni ", "show evpn mac ", "show evpn arp-cache "];
    let words: Vec<&str> = question.split(' ').collect();
    let is_one = |pair: &[&str]| match pair {
        ["mac", mac] => mac.parse::<Mac>().is_ok(),
        ["ip", ip] => ip.parse::<IpAddr>().is_ok(),
        _ => false,
    };
    lists.iter().any(|list| question.starts_with(list)) && !words.windows(2).any(is_one)
}

#[test]
fn a_list_is_known_from_a_question_about_one() {
    for list in [
        "show bgp l2vpn evpn route vni 20 json",
        "show bgp l2vpn evpn route type macip json",
        "show bgp vni 20 type 2 mac json",
        "show evpn mac vni 20 json",
        "show evpn arp-cache vni 20 duplicate json",
    ] {
        assert!(is_list(list), "{list}");
    }
    for one in [
        "show version",
        "show bgp l2vpn evpn route vni 20 mac 52:54:00:00:00:99 json",
        "show bgp l2vpn evpn route rd all mac 52:54:00:00:00:99 ip 10.1.0.99 json",
        "show evpn mac vni 20 mac 52:54:00:00:00:99 json",
        "show evpn arp-cache vni 20 ip 10.1.0.99 json",
        "show evpn vni 20 json",
    ] {
        assert!(!is_list(one), "{one}");
    }
}

/// Held while a daemon answers: it has one thread, and whoever asks on another connection waits.
type Busy = Arc<Mutex<()>>;

/// Sockets in `<dir>/slow`, for as long as the test's process lives; zebra and bgpd.
fn proxy(dir: &Path, lists: Lists) -> [Busy; 2] {
    let slow = dir.join("slow");
    std::fs::create_dir_all(&slow).unwrap();
    ["zebra.vty", "bgpd.vty"].map(|daemon| {
        let (socket, real) = (slow.join(daemon), dir.join(daemon));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        let busy = Busy::default();
        let its = busy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let real = UnixStream::connect(&real).unwrap();
                let busy = its.clone();
                // Ends with either side.
                std::thread::spawn(move || pass(client, real, lists, &busy));
            }
        });
        busy
    })
}

fn pass(client: UnixStream, real: UnixStream, lists: Lists, busy: &Busy) -> Option<()> {
    let (mut client, mut real) = (BufReader::new(client), BufReader::new(real));
    loop {
        let question = until_zero(&mut client)?;
        let _alone = busy.lock().unwrap_or_else(PoisonError::into_inner);
        if is_list(question.trim_end_matches('\0')) {
            match lists {
                Lists::After(time) => std::thread::sleep(time),
                // Until the other side has had enough.
                Lists::Never => return until_zero(&mut client).map(drop),
            }
        }
        real.get_mut().write_all(question.as_bytes()).ok()?;
        let text = until_zero(&mut real)?;
        let mut trailer = [0; 3];
        real.read_exact(&mut trailer).ok()?;
        client.get_mut().write_all(text.as_bytes()).ok()?;
        client.get_mut().write_all(&trailer).ok()?;
    }
}

/// With the zero byte.
fn until_zero(stream: &mut BufReader<UnixStream>) -> Option<String> {
    let mut text = Vec::new();
    stream.read_until(0, &mut text).ok()?;
    String::from_utf8(text).ok().filter(|text| text.ends_with('\0'))
}

/// Two networks, of their own or of one tenant.
fn networks(is_tenant: bool) -> String {
    let vrf = "[[vrf]]\nname = \"red\"\ntable = 10\nvni = 10\n";
    let network = |name: &str, vni: u32, subnet: u32| {
        let gateway = format!("vrf = \"red\"\ngateway = [\"10.{subnet}.0.1/24\", \"fd00:{subnet}::1/64\"]\n");
        let routed = if is_tenant { &*gateway } else { "" };
        format!("[[network]]\nname = \"{name}\"\nbridge = \"{name}-l2\"\nvni = {vni}\nmtu = 1450\n{routed}")
    };
    format!("{}{}{}", if is_tenant { vrf } else { "" }, network("flat", 20, 1), network("crowd", 30, 2))
}

impl Lab {
    /// What a report says, by FRR's own sockets (`quick`) or the proxy's (`slow`), and its exit status.
    fn report(&mut self, speed: &str, words: &str) -> (i32, String) {
        let config = self.dir.join(speed).with_extension("toml");
        let began = Instant::now();
        let said = self.run(&format!("{HOOK} --config {} {words}", config.display()));
        eprintln!("{speed} {words}: {:?}", began.elapsed());
        assert!(began.elapsed() < MOST, "{speed} {words} took {:?}: {}", began.elapsed(), said.1);
        said
    }

    /// The same, into what was told before.
    fn tell(&mut self, told: &mut String, speed: &str, words: &str) {
        let (status, said) = self.report(speed, words);
        let said = without_times(&said);
        writeln!(told, "$ evpn-hook --config {speed}.toml {words}\n{said}exit status {status}\n").unwrap();
    }

    /// Two networks, one with a guest here and one there, one with so many guests here.
    fn furnish(&mut self, crowd: usize, is_tenant: bool) {
        let dir = self.dir.clone();
        for (name, sockets) in [("quick", dir.clone()), ("slow", dir.join("slow")), ("two", dir.join("two"))] {
            let config = format!("[speaker]\nsocket_dir = \"{}\"\n{}", sockets.display(), networks(is_tenant));
            std::fs::write(dir.join(name).with_extension("toml"), config).unwrap();
        }
        std::fs::write(dir.join("other.sh"), OTHER).unwrap();
        let dir = dir.display();
        self.must(ANY_MACHINE);
        self.must(&format!("dir={dir} hook={HOOK} sh -e {dir}/other.sh"));
        self.must(&format!("{HOOK} --config {dir}/quick.toml network up --all"));
        let guests = (1..=crowd).map(|n| ("crowd", 2, n)).chain([("flat", 1, 0)]);
        for (network, subnet, n) in guests {
            let last = 100 + n;
            self.must(&format!(
                "ip link add tap{n} type veth peer name far{n} address 52:54:00:00:00:{n:02x} && ip link set far{n} addrgenmode none && \
                 ip link set tap{n} up && ip link set far{n} up && {HOOK} --config {dir}/quick.toml attach tap{n} --network {network} \
                 --mac 52:54:00:00:00:{n:02x} --ip 10.{subnet}.0.{last} --ip fd00:{subnet}::{last} --guest g{n}"
            ));
        }
        let macs = (1..=crowd).map(|n| format!("52:54:00:00:00:{n:02x}").parse().unwrap());
        let mut here: Vec<(u32, Mac)> = macs.map(|mac| (30, mac)).collect();
        here.push((20, "52:54:00:00:00:00".parse().unwrap()));
        self.until("the guests' routes", |lab| {
            let mut frr = lab.frr();
            here.iter().all(|(of, mac)| matches!(frr.bgp_route(vni(*of), *mac, None), Ok(true)))
        });
        self.until("the other host's guest", |lab| {
            lab.zebra("show evpn arp-cache vni 20 ip 10.1.0.99").contains("remote")
        });
        if is_tenant {
            self.until("the way to it", |lab| {
                lab.zebra("show ip route vrf red 10.1.0.99/32").contains("* 10.0.0.2, via red-l3")
            });
        }
        // Of each guest its MAC alone and with each address; each network's VTEP; of a tenant's networks both subnets.
        let (sent, received) = (3 * (crowd + 1) + 2, 3);
        let (sent, received) = if is_tenant { (sent + 4, received + 2) } else { (sent, received) };
        let counts = [format!("\"pfxRcd\":{received},"), format!("\"pfxSnt\":{sent},")];
        self.until("all routes to be told", |lab| {
            let mut bgpd = Vty::connect(&lab.dir, "bgpd", Duration::from_secs(5)).unwrap();
            let summary = bgpd.show("show bgp l2vpn evpn summary json").unwrap();
            // bgpd counts a route before it has chosen it.
            let mac = bgpd.show("show bgp l2vpn evpn route rd all mac 52:54:00:00:00:99 json").unwrap();
            counts.iter().all(|count| summary.contains(count)) && mac.contains("\"bestpath\"")
        });
    }
}

/// What is left of a report's time for a question depends on what else the machine does.
fn without_times(said: &str) -> String {
    let mut parts = said.split(" within ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |before, part| before + " within N" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// Is it what the golden file says?
#[track_caller]
fn is_golden(name: &str, told: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/slow");
    if let Some(got) = golden::differs(&folder.join(name).with_extension("txt"), told) {
        panic!("{got}");
    }
}

/// One guest is asked for by itself, wherever it runs, and of few guests single questions tell all. Of a crowd it is said that it was not told; and
/// whose address it is whose MAC nobody knows, bgpd can only be asked by a list.
const REPORTS: [&str; 8] = [
    "status --check",
    "explain g0",
    "explain tap0",
    "explain g7",
    "explain 52:54:00:00:00:99",
    "explain 10.1.0.99",
    "explain 10.3.0.77",
    "doctor -v",
];

fn told_no_untruth(mut lab: Lab, lists: Lists, is_tenant: bool) {
    lab.furnish(CROWD, is_tenant);
    let daemons = proxy(&lab.dir.clone(), lists);
    let mut told = String::new();
    for speed in ["quick", "slow"] {
        for words in REPORTS {
            // Until nobody's list holds them up, as one that the last report gave up does.
            daemons.iter().for_each(|busy| drop(busy.lock().unwrap_or_else(PoisonError::into_inner)));
            lab.tell(&mut told, speed, words);
        }
    }
    is_golden(if is_tenant { "lists-tenant" } else { "lists" }, &told);
}

const LATE: Lists = Lists::After(Duration::from_millis(1500));

#[test]
fn lists_that_come_late_are_not_told() {
    let Some(lab) = Lab::start("late", BGP) else { return };
    told_no_untruth(lab, LATE, false);
}

#[test]
fn a_vtep_that_answers_no_ping_is_waited_for_once() {
    let Some(mut lab) = Lab::start("ping", BGP) else { return };
    lab.furnish(1, false);
    lab.must("ip netns exec two sh -c 'echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all'");
    let (_, said) = lab.report("quick", "doctor -v");
    assert!(said.contains("not checked: path-mtu: 10.0.0.2: this VTEP answers no ping from ours\n"), "{said}");
}

#[test]
fn lists_that_never_come_are_not_told() {
    let Some(lab) = Lab::start("never", BGP) else { return };
    told_no_untruth(lab, Lists::Never, false);
}

/// Beside so many entries neither FRR's lists nor the kernel's are read: each thing is asked for by itself, and what is wrong with it is seen.
#[test]
fn one_guest_of_a_large_segment_is_asked_for_by_itself() {
    const MANY: usize = 2200;
    let Some(mut lab) = Lab::start("large", BGP) else { return };
    lab.furnish(1, false);
    let dir = lab.dir.clone();
    let entry = |n: usize| format!("fdb add 02:00:00:01:{:02x}:{:02x} dev tap9 master static\n", n >> 8, n & 0xff);
    std::fs::write(dir.join("entries"), (0..MANY).map(entry).collect::<String>()).unwrap();
    lab.must(&format!("ip netns exec two bridge -batch {}/entries", dir.display()));
    lab.until("the other host's MACs", |lab| lab.frr().entries().unwrap() > MANY);
    proxy(&dir, Lists::Never);

    let mut told = String::new();
    let (_, said) = lab.report("slow", "--json status");
    let said: Value = serde_json::from_str(&said).unwrap();
    let flat = said["networks"].as_array().unwrap().iter().find(|n| n["name"] == "flat").unwrap();
    assert_eq!(flat["remotes"], serde_json::json!([{"vtep": "10.0.0.2", "macs": null}]));
    for words in [
        "status",
        "explain g0",
        "explain tap0",
        "explain 52:54:00:00:00:99",
        "explain 10.1.0.99",
        "explain 02:00:00:01:00:07",
    ] {
        lab.tell(&mut told, "slow", words);
    }
    lab.must("bridge fdb del 52:54:00:00:00:00 dev tap0 master; ip neigh replace 10.1.0.99 lladdr 52:54:00:00:00:98 dev flat-l2 nud permanent");
    let gone = "52:54:00:00:00:00".parse().unwrap();
    lab.until("FRR to hear of it", |lab| lab.frr().received(gone, &[]).unwrap().is_empty());
    for words in ["status", "explain g0", "explain 10.1.0.99"] {
        lab.tell(&mut told, "slow", words);
    }
    is_golden("large", &told);
}

/// Somebody's list of 200,000 routes, or a fabric that converges: such a daemon does not even say its version, and a restart would only make it worse.
fn a_busy_daemon_is_not_told(lab: &mut Lab, is_tenant: bool) {
    lab.furnish(1, is_tenant);
    let daemons = proxy(&lab.dir.clone(), Lists::Never);
    let mut told = String::new();
    for (daemon, busy) in ["zebra", "bgpd"].into_iter().zip(daemons) {
        let list = busy.lock().unwrap();
        for words in ["status --check", "explain g0", "explain 10.1.0.99", "doctor -v"] {
            lab.tell(&mut told, "slow", words);
        }
        drop(list);
        assert_eq!(lab.report("slow", "status --check").0, 0, "{daemon} is not busy any more");
    }
    is_golden(if is_tenant { "busy-tenant" } else { "busy" }, &told);
}

#[test]
fn a_busy_daemon_is_not_told_and_not_restarted() {
    let Some(mut lab) = Lab::start("busy", BGP) else { return };
    a_busy_daemon_is_not_told(&mut lab, false);
    // One that is not there is another matter.
    lab.must(&format!("kill -KILL $(cat {}/bgpd.pid)", lab.dir.display()));
    let (status, said) = lab.report("quick", "explain g0");
    assert!(status == 3 && said.contains("mend: systemctl restart frr && evpn-hook sync\n"), "{said}");
}

/// bgpd knows no route of the kernel's MAC, and its list of all, which alone could tell with which other the address is announced, does not come.
#[test]
fn an_address_whose_list_is_not_told_is_not_left_over() {
    let Some(mut lab) = Lab::start("list", BGP) else { return };
    lab.furnish(1, false);
    proxy(&lab.dir.clone(), Lists::Never);
    lab.must("ip neigh replace 10.1.0.88 lladdr 52:54:00:00:00:88 dev flat-l2 nud noarp extern_learn");
    lab.must("ip neigh replace 10.1.0.77 lladdr 52:54:00:00:00:99 dev flat-l2 nud noarp extern_learn");
    let mut told = String::new();
    lab.tell(&mut told, "quick", "explain 10.1.0.88");
    // Of a MAC that another host announces without it, and of one that nobody does.
    for ip in ["10.1.0.77", "10.1.0.88"] {
        lab.tell(&mut told, "slow", &format!("explain {ip}"));
    }
    is_golden("unlisted", &told);
}

/// A tenant with a VRF: its reports ask FRR more.
fn tenant(name: &str) -> Option<Lab> {
    Lab::start(name, BGP).and_then(|mut lab| lab.has_vrf_devices().then_some(lab))
}

#[test]
fn of_a_tenant_lists_that_come_late_are_not_told() {
    let Some(lab) = tenant("late-tenant") else { return };
    told_no_untruth(lab, LATE, true);
}

#[test]
fn of_a_tenant_lists_that_never_come_are_not_told() {
    let Some(lab) = tenant("never-tenant") else { return };
    told_no_untruth(lab, Lists::Never, true);
}

#[test]
fn of_a_tenant_a_busy_daemon_is_not_told() {
    let Some(mut lab) = tenant("busy-tenant") else { return };
    a_busy_daemon_is_not_told(&mut lab, true);
}
