//! Containers of users: a second user for real, with namespaces of its own, and the agent's end of the socket in a thread.

use crate::agent::{Agent, until};
use crate::common::{has_vrf, ip_link, sh, skip};
use crate::host::{BIN, CONFIG, Host, Run, fdb, neighbours, snapshot};
use crate::journal::{Journald, of};
use crate::on_a_host;
use evpn_hook::door::{self, Door};
use evpn_hook::engine::Engine;
use evpn_hook::journal::Journal;
use evpn_hook::register::Register;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const ALICE: u32 = 4201;
const BOB: u32 = 4202;
const MAC: &str = "00:16:3e:00:00:39";
const IP: &str = "10.1.0.39";

/// A host with network flat up, which alice may join and bob may not, and a door that is open as long as the test runs.
fn host() -> Host {
    let entries = format!(
        "[[unprivileged]]\nuser = {ALICE}\nnetworks = ['flat']\n[[unprivileged]]\nuser = {BOB}\nnetworks = ['other']\n"
    );
    let host = Host::new(&format!("{CONFIG}{entries}"));
    host.run(&["network", "up", "flat"]).ok();
    // A user may not be able to enter the directory that the program was built in.
    sh(&format!("cp {BIN} /run/evpn-hook-copy && chmod 755 /run/evpn-hook-copy"));
    host
}

fn open() {
    let mut door = Door::bind(Path::new(door::PATH)).unwrap();
    std::thread::spawn(move || {
        let config = ("/run/config.toml".into(), true);
        let mut engine = Engine::new(config, Register::at(Path::new("/run/evpn-hook")), Journal::new(false));
        loop {
            poll(&mut [PollFd::new(&door, PollFlags::IN)], None).unwrap();
            door.serve(&mut engine).unwrap();
        }
    });
}

fn as_user(uid: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups", "--"]);
    command
}

/// A container of a user: a shell that stands for the monitor, and below it a process in namespaces of the user's own.
struct Container {
    monitor: Child,
    pid: u32,
}

impl Container {
    /// With nothing in it. The network namespace comes after the mapping, as with LXC.
    fn empty(uid: u32) -> Container {
        Container::made(as_user(uid).args([
            "sh",
            "-c",
            "unshare -U --map-root-user unshare -n sh -c 'cat /proc/self/stat; exec sleep 60' & wait",
        ]))
    }

    fn made(command: &mut Command) -> Container {
        let mut monitor = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(monitor.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        // Fields of proc_pid_stat(5): the fourth is cat's parent, which then becomes sleep.
        let pid = line.split_whitespace().nth(3).unwrap().parse().unwrap();
        Container { monitor, pid }
    }

    /// With a veth whose host end is on this bridge.
    fn on(uid: u32, bridge: &str, veth: &str, ip: &str) -> Container {
        let container = Container::empty(uid);
        container.nic(bridge, veth, "eth0", MAC, ip);
        container
    }

    fn nic(&self, bridge: &str, veth: &str, inner: &str, mac: &str, ip: &str) {
        let pid = self.pid;
        sh(&format!(
            "ip link add {veth} type veth peer name {inner} netns {pid} && ip link set {veth} master {bridge} up &&
             nsenter -t {pid} -n sh -c 'ip link set {inner} address {mac} up && ip address add {ip}/24 dev {inner}'"
        ));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = rustix::process::Pid::from_raw(self.pid.cast_signed())
            .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        self.monitor.kill().unwrap();
        self.monitor.wait().unwrap();
    }
}

/// The hook as LXC calls it for this user's container c1.
fn call(uid: u32, network: Option<&str>, hook: &[(&str, &str)]) -> Run {
    let mut command = as_user(uid);
    command.args(["/run/evpn-hook-copy", "lxc"]).args(network.iter().flat_map(|n| ["--network", n]));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs([("LXC_NAME", "c1"), ("LXC_HOOK_VERSION", "1")]).envs(hook.iter().copied());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { status: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn start(uid: u32, pid: u32) -> Run {
    call(uid, None, &[("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", "start-host"), ("LXC_PID", &pid.to_string())])
}

fn stop(uid: u32) -> Run {
    call(uid, None, &[("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", "post-stop")])
}

fn known(veth: &str) -> (String, String) {
    (format!("fdb {MAC} dev {veth}\n"), format!("neigh {IP} {MAC} dev flat-l2\n"))
}

fn unknown() -> (String, String) {
    Default::default()
}

/// What a user's own program gets that sends these bytes, in pieces, and listens.
fn says(uid: u32, pieces: &[&[u8]]) -> String {
    std::thread::scope(|scope| {
        let knock = scope.spawn(|| {
            // Of this thread alone.
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            let mut stream = UnixStream::connect(door::PATH).unwrap();
            for piece in pieces {
                let _ = stream.write_all(piece);
            }
            let mut answer = String::new();
            // To the line's end only: what was not heard is a reset behind it.
            BufReader::new(stream).read_line(&mut answer).unwrap();
            answer
        });
        knock.join().unwrap()
    })
}

/// A user's listener at an abstract address.
fn listening(uid: u32, address: &str) -> UnixListener {
    let address = SocketAddr::from_abstract_name(address).unwrap();
    let listen = move || {
        let uid = rustix::process::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        UnixListener::bind_addr(&address).unwrap()
    };
    std::thread::spawn(listen).join().unwrap()
}

fn start_line(name: &str, pid: u32) -> String {
    let lxc = serde_json::json!({"LXC_NAME": name, "LXC_HOOK_VERSION": "1", "LXC_HOOK_SECTION": "lxc",
        "LXC_HOOK_TYPE": "start-host", "LXC_PID": pid.to_string()});
    format!("{}\n", serde_json::json!({ "lxc": lxc }))
}

on_a_host!(a_users_container_is_registered_and_withdrawn, {
    let host = host();
    open();
    let container = Container::on(ALICE, "flat-l2", "vetha", IP);
    start(ALICE, container.pid).ok();
    assert_eq!((fdb(), neighbours()), known("vetha"));
    assert_eq!(host.status()["endpoints"][0]["guest"]["id"], format!("{ALICE}/c1"));
    // Not root's c1, nor bob's.
    host.command(&["lxc"])
        .env("LXC_NAME", "c1")
        .env("LXC_HOOK_VERSION", "1")
        .env("LXC_HOOK_SECTION", "lxc")
        .env("LXC_HOOK_TYPE", "post-stop")
        .status()
        .unwrap();
    stop(BOB).ok();
    assert_eq!((fdb(), neighbours()), known("vetha"));
    // Its entry may go; its guest is still alice's.
    std::fs::write("/run/config.toml", CONFIG).unwrap();
    stop(ALICE).ok();
    assert_eq!((fdb(), neighbours()), unknown());
});

on_a_host!(sync_keeps_a_users_container_as_long_as_its_monitor_lives, {
    let host = host();
    open();
    let container = Container::on(ALICE, "flat-l2", "vetha", IP);
    start(ALICE, container.pid).ok();
    // What a monitor listens at; and one of a container that does not exist, whose configuration root is not to read.
    let monitor = listening(ALICE, "/home/alice/lxc/c1/command");
    let _lure = listening(ALICE, "/home/alice/lxc/c9/command");
    host.run(&["sync"]).ok();
    assert_eq!((fdb(), neighbours()), known("vetha"));
    sh("bridge fdb del 00:16:3e:00:00:39 dev vetha master");
    host.run(&["sync"]).ok();
    assert_eq!((fdb(), neighbours()), known("vetha"));
    drop(monitor);
    host.run(&["sync"]).ok();
    assert_eq!((fdb(), neighbours()), unknown());
    assert!(host.status()["endpoints"].as_array().unwrap().is_empty());
});

on_a_host!(a_user_joins_no_network_but_its_own, {
    let _host = host();
    open();
    let before = snapshot();
    {
        let container = Container::on(BOB, "flat-l2", "vetha", IP);
        let there = snapshot();
        start(BOB, container.pid)
            .says(1, &[&format!("container {BOB}/c1: its user may not join network flat: add it to 'networks'")]);
        start(4203, container.pid)
            .says(1, &["no entry for user 4203 in config.toml: add the lines '[[unprivileged]]', 'user = 4203'"]);
        assert_eq!(snapshot(), there);
        sh("ip link del vetha");
    }
    // One NIC that may and one that may not: none of them.
    let both = Container::on(ALICE, "flat-l2", "vetha", IP);
    sh("ip link add other-l2 type bridge && ip link set other-l2 up");
    both.nic("flat-l2", "vethb", "eth1", "00:16:3e:00:00:40", IP);
    sh("cp -a /run/config.toml /run/c && sed -i \"s/networks = \\['flat'\\]/networks = []/\" /run/config.toml");
    start(ALICE, both.pid).says(1, &["may not join network flat"]);
    sh("mv /run/c /run/config.toml && ip link del vetha && ip link del vethb && ip link del other-l2");
    assert_eq!(snapshot(), before);
});

on_a_host!(a_user_is_known_by_name, {
    let _host = host();
    open();
    sh(&format!(
        "(cat /etc/passwd; echo alice:x:{ALICE}:{ALICE}::/:/bin/sh; echo carol:x:4203:4203::/:/bin/sh) >/run/passwd"
    ));
    sh("mount --bind /run/passwd /etc/passwd");
    sh(&format!("sed -i 's/user = {ALICE}/user = \"alice\"/' /run/config.toml"));
    let container = Container::on(ALICE, "flat-l2", "vetha", IP);
    start(4203, container.pid).says(1, &["no entry for user \"carol\" in config.toml", "'user = \"carol\"'"]);
    start(ALICE, container.pid).ok();
    assert_eq!((fdb(), neighbours()), known("vetha"));
});

on_a_host!(a_process_that_is_not_of_a_users_container_is_refused, {
    let _host = host();
    open();
    let refused = |pid, why: &str| {
        let before = snapshot();
        start(ALICE, pid).says(1, &[&format!("container {ALICE}/c1: "), why]);
        assert_eq!(snapshot(), before);
    };
    let not_hers = format!("is not the first of a container that user {ALICE} started");
    refused(4_194_999, "there is no process 4194999");
    refused(std::process::id(), &not_hers);
    let bobs = Container::on(BOB, "flat-l2", "vethb", IP);
    refused(bobs.pid, &not_hers);
    // Root's, in which her ids are: LXC with lxc.idmap.
    let roots = Container::made(as_user(ALICE).args([
        "unshare",
        "-U",
        "--map-root-user",
        "unshare",
        "-n",
        "sh",
        "-c",
        "cat /proc/self/stat; exec sleep 60",
    ]));
    refused(roots.pid, &not_hers);
    // Root put her into root's namespace; and one that she has no name for: the host's.
    let put = Container::made(Command::new("unshare").args([
        "-n",
        "setpriv",
        "--reuid",
        &ALICE.to_string(),
        "sh",
        "-c",
        "sh -c 'cat /proc/self/stat; exec sleep 60' & wait",
    ]));
    refused(put.pid, "is user 0's, who is none of");
    let host = Container::made(as_user(ALICE).args(["sh", "-c", "sh -c 'cat /proc/self/stat; exec sleep 60' & wait"]));
    refused(host.pid, "is user 0's, who is none of");
    let own = Container::made(as_user(ALICE).args([
        "sh",
        "-c",
        "unshare -U --map-root-user sh -c 'cat /proc/self/stat; exec sleep 60' & wait",
    ]));
    refused(own.pid, "is user 0's, who is none of");
    for pid in ["0", "1", "-1", "self"] {
        call(ALICE, None, &[("LXC_HOOK_SECTION", "lxc"), ("LXC_HOOK_TYPE", "start-host"), ("LXC_PID", pid)])
            .says(1, &["is no process id"]);
    }
});

on_a_host!(what_another_guest_has_is_not_taken, {
    let host = host();
    open();
    let roots = Container::made(Command::new("unshare").args(["-n", "sh", "-c", "cat /proc/self/stat; exec sleep 60"]));
    roots.nic("flat-l2", "vethroot", "eth0", MAC, IP);
    let mut hook = host.command(&["lxc"]);
    hook.envs([
        ("LXC_NAME", "c1"),
        ("LXC_HOOK_VERSION", "1"),
        ("LXC_HOOK_SECTION", "lxc"),
        ("LXC_HOOK_TYPE", "start-host"),
    ]);
    assert!(hook.env("LXC_PID", roots.pid.to_string()).status().unwrap().success());
    assert_eq!((fdb(), neighbours()), known("vethroot"));
    // The same MAC, the same address; down, for a frame from it would move root's entry, as bridges do.
    for (mac, ip) in [(MAC, "10.1.0.40"), ("00:16:3e:00:00:40", IP)] {
        let hers = Container::empty(ALICE);
        sh(&format!(
            "ip link add vetha type veth peer name eth0 address {mac} netns {0} && ip link set vetha master flat-l2 up &&
             nsenter -t {0} -n ip address add {ip}/24 dev eth0",
            hers.pid
        ));
        start(ALICE, hers.pid)
            .says(1, &["the MAC or an address of vetha is container c1's: give the container its own"]);
        sh("ip link del vetha");
    }
    // A veth of hers whose indexes say that it is the other end of root's.
    let hers = Container::empty(ALICE);
    let root = ip_link("vethroot");
    let (index, peer) = (&root["ifindex"], &root["link_index"]);
    sh(&format!(
        "nsenter -t {} -n sh -c 'ip link add eth0 index {peer} address 00:16:3e:00:00:66 type veth peer name x index {index} && ip link set eth0 up'",
        hers.pid
    ));
    start(ALICE, hers.pid).ok();
    assert_eq!((fdb(), neighbours()), known("vethroot"));
    assert_eq!(host.status()["endpoints"].as_array().unwrap().len(), 1);
    // More addresses than a person needs.
    let many = Container::empty(ALICE);
    many.nic("flat-l2", "vetha", "eth0", "00:16:3e:00:00:40", "10.1.0.40");
    sh(&format!(
        "nsenter -t {} -n sh -c 'for i in $(seq 64); do ip address add 10.1.1.$i/32 dev eth0; done'",
        many.pid
    ));
    start(ALICE, many.pid).says(1, &["device vetha has 65 addresses: a user's may have 64"]);
});

on_a_host!(in_a_vrf_a_user_has_the_addresses_of_its_network_only, {
    let host = host();
    if !has_vrf() {
        return skip("door::in_a_vrf_a_user_has_the_addresses_of_its_network_only", "this kernel has no VRF");
    }
    sh("sed -i \"s/'flat'/'routed'/\" /run/config.toml");
    host.run(&["network", "up", "routed"]).ok();
    open();
    let container = Container::on(ALICE, "red-l2", "vetha", "10.3.0.5");
    start(ALICE, container.pid).ok();
    sh(&format!("nsenter -t {} -n ip address add 10.1.0.5/32 dev eth0", container.pid));
    start(ALICE, container.pid)
        .says(1, &["address 10.1.0.5 of device vetha is in none of the network's subnets", "network routed"]);
});

on_a_host!(a_veth_that_is_nowhere_yet_is_not_joined, {
    let _host = host();
    let up =
        [("LXC_HOOK_SECTION", "net"), ("LXC_HOOK_TYPE", "up"), ("LXC_NET_TYPE", "veth"), ("LXC_NET_PEER", "vetha")];
    // Nothing to ask the agent for.
    call(ALICE, None, &up).ok();
    open();
    sh("ip link add vetha type veth peer name vethb");
    let before = snapshot();
    call(ALICE, Some("flat"), &up).says(1, &["script.up --network flat is for root's containers: set lxc.net.N.link"]);
    assert_eq!(snapshot(), before);
});

on_a_host!(without_an_agent_only_what_has_not_run_is_refused, {
    let _host = host();
    let words = format!(
        "unprivileged container c1: no evpn-agent answers on {} (is not there): start it, or start the container as root",
        door::PATH
    );
    start(ALICE, 12345).says(1, &[&words]);
    stop(ALICE).says(0, &[&words]);
    // One that takes the call and is silent.
    let silent = UnixListener::bind(door::PATH).unwrap();
    sh(&format!("chmod 666 {}", door::PATH));
    let begun = Instant::now();
    start(ALICE, 12345).says(1, &["(has no answer yet)"]);
    assert!((1..4).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    drop(silent);
});

on_a_host!(nonsense_is_answered_at_once, {
    let _host = host();
    open();
    let before = snapshot();
    let long = [b'x'; 5000];
    for (pieces, words) in [
        (&[&b"{}\n"[..]][..], "the call does not parse: missing field `lxc`"),
        (&[b"\xff\xfe\n"], "the call does not parse"),
        (&[b"{\"lxc\":{},\"more\":1}\n"], "unknown field `more`"),
        (&[b"{\"lxc\":{}}\n"], "LXC_NAME is not set"),
        (&[b"{\"lxc\":{},\"network\":\"\"}\n"], "network name '' is empty"),
        (&[&long], "the call is over 4096 bytes"),
        (&[&[b' '; 4000], &long, b"\n"], "the call is over 4096 bytes"),
    ] {
        let begun = Instant::now();
        let answer: serde_json::Value = serde_json::from_str(&says(ALICE, pieces)).unwrap();
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
        assert!(begun.elapsed().as_millis() < 900, "{words}: {:?}", begun.elapsed());
    }
    // Who may do nothing is not even waited for.
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(says(4203, &[b"{"]).contains("no entry for user 4203"));
    }
    assert!(begun.elapsed().as_millis() < 900, "{:?}", begun.elapsed());
    assert!(says(0, &[b"{}\n"]).contains("root's hooks need no agent"));
    // Names that would be paths or lines are refused; what is left of them is a name.
    let container = Container::on(ALICE, "flat-l2", "vetha", IP);
    assert!(says(ALICE, &[start_line("a\nb", container.pid).as_bytes()]).contains("not printable"));
    for name in ["../../x", "a;reboot", "4200/x"] {
        assert!(says(ALICE, &[start_line(name, container.pid).as_bytes()]).contains("its name has '"), "{name}");
    }
    assert_eq!(says(ALICE, &[start_line("..", container.pid).as_bytes()]), "{\"ok\":true}\n");
    assert_eq!(sh("ls /run/evpn-hook/guests/*.json"), format!("/run/evpn-hook/guests/lxc-{ALICE}%2f%2e%2e.json\n"));
    sh("rm /run/evpn-hook/guests/* && ip link del vetha && ip neigh flush dev flat-l2 nud permanent");
    drop(container);
    assert_eq!(snapshot().replace("/run/evpn-hook/guests\n", ""), before);
});

// agent.md 18: how much is logged is not a user's choice.
on_a_host!(a_user_that_calls_wrongly_all_the_time_fills_no_log, {
    let _host = host();
    let journald = Journald::listens();
    let since = Instant::now();
    let _agent = Agent::start();
    // Its socket holds ten.
    let logged = || {
        let entries = journald.heard().concat();
        entries.iter().filter(|entry| of(entry, "MESSAGE").contains("the call does not parse")).count()
    };
    let call = |uid| assert!(says(uid, &[b"{}\n"]).contains("the call does not parse"));
    let mut all = 0;
    for _ in 0..300 {
        call(ALICE);
        all += logged();
    }
    let at_most = 16 + since.elapsed().as_secs() as usize / 60;
    assert!((15..=at_most).contains(&all), "{all}");
    // Nobody else pays for it.
    call(BOB);
    until("bob's own", || logged() > 0);
});

// Neither by silence nor by half a call.
on_a_host!(a_slow_user_costs_a_quarter_of_a_second_and_is_not_waited_for_again, {
    let _host = host();
    open();
    let begun = Instant::now();
    assert!(says(ALICE, &[b"{\"lxc\":", b"{}"]).contains("no whole call within 250 ms"));
    assert!((250..900).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(says(ALICE, &[]).contains("user 4201 sent no whole call lately: try again in 10 s"));
    }
    assert!(begun.elapsed().as_millis() < 900, "{:?}", begun.elapsed());
    // Nobody else pays for it.
    let container = Container::on(BOB, "flat-l2", "vethb", IP);
    sh("sed -i \"s/\\['other'\\]/['flat']/\" /run/config.toml");
    start(BOB, container.pid).ok();
    assert_eq!((fdb(), neighbours()), known("vethb"));
});

on_a_host!(an_entry_counts_as_soon_as_it_is_written, {
    let _host = host();
    open();
    let container = Container::on(4203, "flat-l2", "vethc", IP);
    start(4203, container.pid).says(1, &["no entry for user 4203"]);
    sh("printf \"[[unprivileged]]\\nuser = 4203\\nnetworks = ['flat']\\n\" >>/run/config.toml");
    start(4203, container.pid).ok();
    sh("echo nonsense >>/run/config.toml");
    // Whoever has a guest may withdraw it all the same.
    stop(4203).ok();
    assert_eq!((fdb(), neighbours()), unknown());
    start(4203, container.pid).says(1, &["/run/config.toml"]);
});

on_a_host!(a_dead_agents_socket_is_replaced_and_a_living_ones_not, {
    let path = Path::new(door::PATH);
    drop(UnixListener::bind(path).unwrap());
    let door = Door::bind(path).unwrap();
    assert_eq!(sh(&format!("stat -c %a:%F {}", door::PATH)), "666:socket\n");
    assert_eq!(Door::bind(path).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(door);
    assert!(!path.exists());
    std::fs::write(path, "").unwrap();
    assert!(Door::bind(path).is_err() && path.exists());
});
