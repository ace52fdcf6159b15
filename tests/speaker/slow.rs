//! An FRR that is slow with its lists: what `status`, `explain` and `doctor` say then is what they say of the same FRR when it is quick, and beside
//! it what was not told. A proxy stands before the sockets of a real FRR, which has a second one as its peer.

use crate::lab::{Lab, vni};
use evpn_hook::model::Mac;
use evpn_hook::speaker::Vty;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
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
ip -n two link add flat-l2 type bridge; ip -n two link add vxlan20 type vxlan id 20 local 10.0.0.2 dstport 4789 nolearning
ip -n two link set flat-l2 addrgenmode none; ip -n two link set flat-l2 address 02:00:00:00:00:02; ip -n two link set vxlan20 addrgenmode none master flat-l2
ip -n two link set flat-l2 up; ip -n two link set vxlan20 up
ip -n two link add tap9 type veth peer name far9 address 52:54:00:00:00:99; ip -n two link set far9 addrgenmode none; ip -n two link set tap9 addrgenmode none master flat-l2; ip -n two link set tap9 up
ip -n two link set far9 up
for daemon in zebra bgpd; do
    config=/etc/frr/zebra.conf; [ $daemon = bgpd ] && config=/etc/frr/two.conf
    setsid ip netns exec two /usr/lib/frr/$daemon -P 0 --vty_socket $dir/two -z $dir/two/zserv.api -i $dir/two/$daemon.pid -f $config </dev/null >$dir/two/$daemon.out 2>&1 &
    until [ -S $dir/two/$daemon.vty ]; do sleep 0.02; done
done
ip netns exec two bridge fdb add 52:54:00:00:00:99 dev tap9 master static
ip -n two neigh add 10.1.0.99 lladdr 52:54:00:00:00:99 dev flat-l2 nud permanent
"#;

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

fn pass(mut client: UnixStream, mut real: UnixStream, lists: Lists, busy: &Busy) -> Option<()> {
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
        real.write_all(question.as_bytes()).ok()?;
        let text = until_zero(&mut real)?;
        let mut trailer = [0; 3];
        real.read_exact(&mut trailer).ok()?;
        client.write_all(text.as_bytes()).ok()?;
        client.write_all(&trailer).ok()?;
    }
}

/// With the zero byte.
fn until_zero(stream: &mut UnixStream) -> Option<String> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while text.last() != Some(&0) {
        stream.read_exact(&mut byte).ok()?;
        text.push(byte[0]);
    }
    String::from_utf8(text).ok()
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

    fn json(&mut self, speed: &str, words: &str) -> (i32, Value) {
        let (status, text) = self.report(speed, &format!("--json {words}"));
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// Two networks, one with a guest here and one there, one with so many guests here.
    fn furnish(&mut self, crowd: usize) {
        let dir = self.dir.clone();
        for (name, sockets) in [("quick", dir.clone()), ("slow", dir.join("slow"))] {
            let networks = [("flat", 20), ("crowd", 30)].map(|(name, vni)| {
                format!("[[network]]\nname = \"{name}\"\nbridge = \"{name}-l2\"\nvni = {vni}\nmtu = 1450\n")
            });
            let config = format!("[speaker]\nsocket_dir = \"{}\"\n{}", sockets.display(), networks.concat());
            std::fs::write(dir.join(name).with_extension("toml"), config).unwrap();
        }
        std::fs::write(dir.join("other.sh"), OTHER).unwrap();
        let dir = dir.display();
        self.must(&format!("dir={dir} sh -e {dir}/other.sh"));
        self.must(&format!("{HOOK} --config {dir}/quick.toml network up --all"));
        let guests = (1..=crowd).map(|n| ("crowd", n)).chain([("flat", 0)]);
        for (network, n) in guests {
            self.must(&format!(
                "ip link add tap{n} type veth peer name far{n} address 52:54:00:00:00:{n:02x} && ip link set far{n} addrgenmode none && \
                 ip link set tap{n} up && ip link set far{n} up && {HOOK} --config {dir}/quick.toml attach tap{n} \
                 --network {network} --mac 52:54:00:00:00:{n:02x} --ip 10.1.0.{n} --ip fd00:1::{n:x} --guest g{n}"
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
        let json = "show bgp l2vpn evpn summary json";
        let sent = format!("\"pfxSnt\":{}", 3 * (crowd + 1) + 2);
        self.until("all to be sent", |lab| {
            Vty::connect(&lab.dir, "bgpd", Duration::from_secs(5)).unwrap().show(json).unwrap().contains(&sent)
        });
    }
}

/// In the words of who was asked to no avail.
const NOT_TOLD: [&str; 2] = [
    "not told: bgpd did not answer 'show bgp l2vpn evpn route vni 30 json' within 1200 ms: look at its log and at 'systemctl status frr'",
    "not told: zebra did not answer 'show evpn mac vni 30 duplicate json' within 1200 ms: look at its log and at 'systemctl status frr'",
];

fn told_no_untruth(name: &str, lists: Lists) {
    let Some(mut lab) = Lab::start(name, BGP) else { return };
    lab.furnish(CROWD);
    let daemons = proxy(&lab.dir.clone(), lists);
    // Until nobody's list holds them up, as one that the last report gave up does.
    let idle = || daemons.iter().for_each(|busy| drop(busy.lock().unwrap_or_else(PoisonError::into_inner)));

    // Of few guests single questions tell all; of a crowd it is said that it was not told.
    let (status, mut wanted) = lab.json("quick", "status --check");
    assert_eq!(status, 0, "{wanted:#}");
    for network in wanted["networks"].as_array_mut().unwrap().iter_mut().filter(|n| n["name"] == "crowd") {
        network["state"] = "degraded".into();
        network["problems"] = [NOT_TOLD[0]].into_iter().collect();
    }
    for endpoint in wanted["endpoints"].as_array_mut().unwrap() {
        assert_eq!(endpoint["state"], "advertised");
        if endpoint["network"] == "crowd" {
            endpoint["state"] = "registered".into();
        }
    }
    let (status, said) = lab.json("slow", "status --check");
    assert_eq!(said, wanted);
    assert_eq!(status, 3);
    let (_, quick) = lab.report("quick", "status");
    idle();
    let (_, slow) = lab.report("slow", "status");
    let told: Vec<&str> =
        slow.lines().filter(|line| !quick.contains(line)).filter(|line| !line.contains("registered")).collect();
    assert_eq!(told.len(), 2, "{slow}");
    assert!(told[0].ends_with("crowd: degraded, bridge crowd-l2, VNI 30, VTEP 10.0.0.1"), "{slow}");
    assert!(told[1].ends_with(&format!("! {}", NOT_TOLD[0])), "{slow}");

    // One guest is asked for by itself, wherever it runs.
    idle();
    for what in ["g0", "tap0", "g7", "52:54:00:00:00:99", "10.1.0.99"] {
        let (status, wanted) = lab.report("quick", &format!("explain {what}"));
        assert!(status == 0 && wanted.ends_with("every link holds\n"), "{wanted}");
        assert_eq!(lab.report("slow", &format!("explain {what}")), (0, wanted), "{what}");
    }
    // Whose MAC nobody knows bgpd can only be asked for by a list.
    let nobody = "10.1.0.77: no guest of this host has it, nor any other that is known here: ask on the host where the guest runs, or see 'evpn-hook status'";
    assert_eq!(lab.report("quick", "explain 10.1.0.77"), (1, format!("evpn-hook: {nobody}\n")));
    let untold = "10.1.0.77: no guest of this host has it, and whether another has is not told: bgpd did not answer \
        'show bgp l2vpn evpn route type macip json' within 1200 ms: look at its log and at 'systemctl status frr'; name its MAC";
    assert_eq!(lab.report("slow", "explain 10.1.0.77"), (1, format!("evpn-hook: {untold}\n")));

    let (status, quick) = lab.report("quick", "doctor -v");
    idle();
    let (slow_status, slow) = lab.report("slow", "doctor -v");
    assert_eq!(slow_status, status, "{slow}");
    let without_sum = |text: &str| text.lines().rev().skip(1).map(str::to_owned).collect::<BTreeSet<_>>();
    let (quick_lines, slow_lines) = (without_sum(&quick), without_sum(&slow));
    let told: Vec<&String> = slow_lines.difference(&quick_lines).collect();
    assert_eq!(told, [&format!("not checked: duplicate-freeze: crowd (and 1 more): {}", NOT_TOLD[1])], "{slow}");
    assert!(quick_lines.is_subset(&slow_lines), "{slow}");
}

#[test]
fn lists_that_come_late_are_not_told() {
    told_no_untruth("late", Lists::After(Duration::from_millis(1500)));
}

#[test]
fn a_vtep_that_answers_no_ping_is_waited_for_once() {
    let Some(mut lab) = Lab::start("ping", BGP) else { return };
    lab.furnish(1);
    lab.must("ip netns exec two sh -c 'echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all'");
    let (_, said) = lab.report("quick", "doctor -v");
    assert!(said.contains("not checked: path-mtu: 10.0.0.2: this VTEP answers no ping from ours\n"), "{said}");
}

#[test]
fn lists_that_never_come_are_not_told() {
    told_no_untruth("never", Lists::Never);
}

/// Beside so many entries neither FRR's lists nor the kernel's are read: each thing is asked for by itself, and what is wrong with it is seen.
#[test]
fn one_guest_of_a_large_segment_is_asked_for_by_itself() {
    const MANY: usize = 2200;
    let Some(mut lab) = Lab::start("large", BGP) else { return };
    lab.furnish(1);
    let dir = lab.dir.clone();
    let entry = |n: usize| format!("fdb add 02:00:00:01:{:02x}:{:02x} dev tap9 master static\n", n >> 8, n & 0xff);
    std::fs::write(dir.join("entries"), (0..MANY).map(entry).collect::<String>()).unwrap();
    lab.must(&format!("ip netns exec two bridge -batch {}/entries", dir.display()));
    lab.until("the other host's MACs", |lab| lab.frr().entries().unwrap() > MANY);
    proxy(&dir, Lists::Never);

    let network =
        |said: &Value| said["networks"].as_array().unwrap().iter().find(|n| n["name"] == "flat").cloned().unwrap();
    let endpoint =
        |said: &Value| said["endpoints"].as_array().unwrap().iter().find(|e| e["network"] == "flat").cloned().unwrap();
    let (_, said) = lab.json("slow", "status");
    let flat = network(&said);
    assert_eq!((&flat["state"], &flat["problems"]), (&"up".into(), &Value::Array(vec![])), "{said:#}");
    assert_eq!(flat["remotes"], serde_json::json!([{"vtep": "10.0.0.2", "macs": null}]));
    assert_eq!(endpoint(&said)["state"], "advertised");
    for what in ["g0", "tap0", "52:54:00:00:00:99", "10.1.0.99", "02:00:00:01:00:07"] {
        let (status, said) = lab.report("slow", &format!("explain {what}"));
        assert!(status == 0 && said.ends_with("every link holds\n"), "{said}");
    }

    lab.must("bridge fdb del 52:54:00:00:00:00 dev tap0 master; ip neigh replace 10.1.0.99 lladdr 52:54:00:00:00:98 dev flat-l2 nud permanent");
    let (_, said) = lab.json("slow", "status");
    let missing = "missing: bridge fdb replace 52:54:00:00:00:00 dev tap0 master static";
    assert_eq!(endpoint(&said)["problems"], serde_json::json!([missing]));
    let (status, said) = lab.report("slow", "explain g0");
    assert!(status == 3 && said.contains("BROKEN  fdb "), "{said}");
    let (status, said) = lab.report("slow", "explain 10.1.0.99");
    assert!(
        status == 3 && said.contains("BROKEN  neighbour ") && said.contains("ip neigh del 10.1.0.99 dev flat-l2"),
        "{said}"
    );
}

/// Somebody's list of 200,000 routes, or a fabric that converges: such a daemon does not even say its version, and a restart would only make it worse.
#[test]
fn a_busy_daemon_is_not_told_and_not_restarted() {
    let Some(mut lab) = Lab::start("busy", BGP) else { return };
    lab.furnish(1);
    let daemons = proxy(&lab.dir.clone(), Lists::Never);
    for (daemon, busy) in ["zebra", "bgpd"].into_iter().zip(daemons) {
        let list = busy.lock().unwrap();
        let why = format!(
            "not told: {daemon} did not answer 'show version' within 1500 ms: look at its log and at 'systemctl status frr'; it is busy or frozen, \
             and where it is frozen watchfrr restarts it"
        );
        let (status, said) = lab.json("slow", "status --check");
        assert_eq!(status, 3, "{said:#}");
        for network in said["networks"].as_array().unwrap() {
            assert_eq!(network["problems"], serde_json::json!([why]), "{said:#}");
        }
        let (status, said) = lab.report("slow", "explain g0");
        assert!(
            status == 3 && said.contains(&format!("  ?       frr              zebra, bgpd        {why}\n")),
            "{said}"
        );
        assert!(said.ends_with("\nno broken link was found, and 5 could not be told: ask again\n"), "{said}");
        let (status, said) = lab.json("slow", "doctor");
        let mut of_frr = said["findings"].as_array().unwrap().iter().filter(|f| f["object"] == "FRR");
        let (one, none) = (of_frr.next().unwrap(), of_frr.next());
        assert_eq!((status, none), (3, None), "{said:#}");
        assert_eq!(
            (&one["check"], &one["evidence"], &one["mend"]),
            (&"speaker-untold".into(), &why.into(), &"ask again".into())
        );
        drop(list);
        assert_eq!(lab.report("slow", "status --check").0, 0, "{daemon} is not busy any more");
    }
    // One that is not there is another matter.
    lab.must(&format!("kill -KILL $(cat {}/bgpd.pid)", lab.dir.display()));
    let (status, said) = lab.report("quick", "explain g0");
    assert!(status == 3 && said.contains("mend: systemctl restart frr && evpn-hook sync\n"), "{said}");
}

/// bgpd knows no route of the kernel's MAC, and its list of all, which alone could tell with which other the address is announced, does not come.
#[test]
fn an_address_whose_list_is_not_told_is_not_left_over() {
    let Some(mut lab) = Lab::start("list", BGP) else { return };
    lab.furnish(1);
    proxy(&lab.dir.clone(), Lists::Never);
    lab.must("ip neigh replace 10.1.0.88 lladdr 52:54:00:00:00:88 dev flat-l2 nud noarp extern_learn");
    lab.must("ip neigh replace 10.1.0.77 lladdr 52:54:00:00:00:99 dev flat-l2 nud noarp extern_learn");
    let (status, said) = lab.report("quick", "explain 10.1.0.88");
    assert!(
        status == 3 && said.contains("a killed FRR left them\n          mend: ip neigh del 10.1.0.88 dev flat-l2\n"),
        "{said}"
    );
    // Of a MAC that another host announces without it, and of one that nobody does.
    for ip in ["10.1.0.77", "10.1.0.88"] {
        let (status, said) = lab.report("slow", &format!("explain {ip}"));
        let untold = said.lines().find(|line| line.contains("?       bgp-route")).unwrap_or_else(|| panic!("{said}"));
        assert!(
            untold.contains(ip)
                && untold.contains("not told: bgpd did not answer 'show bgp l2vpn evpn route type macip json' within "),
            "{said}"
        );
        assert!(status == 3 && !said.contains("left them") && !said.contains("mend"), "{said}");
    }
}
