//! Listings, other namespaces, privileges.

use crate::*;
use evpn_hook::kernel::{KernelError, sysctl};
use evpn_hook::plan::seen::LinkKind;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use std::process::{Child, Command, Stdio};

/// Ends the child when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn batch(lines: impl Iterator<Item = String>) -> Running {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let text: String = lines.map(|line| line + "\n").collect();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    Running(child)
}

netns!(three_hundred_links_are_listed_whole, kernel, {
    assert!(batch((0..300).map(|n| format!("link add dev b{n} type bridge"))).0.wait().unwrap().success());
    sh("ip link add vxlan20 type vxlan id 20 local 10.0.0.1 dstport 4789 && ip link set vxlan20 master b7");
    let links = kernel.all_links().unwrap();
    assert_eq!(links.iter().filter(|link| matches!(link.kind, LinkKind::Bridge { .. })).count(), 300);
    assert_eq!(links.len(), json("ip -j link").as_array().unwrap().len());
    let bridge = links.iter().find(|link| link.name == name("b299")).unwrap();
    assert_eq!(Some(bridge), kernel.link(&bridge.name).unwrap().as_ref());

    let vxlans = kernel.links_of_kind("vxlan").unwrap();
    assert_eq!(vxlans.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["vxlan20"]);
    assert_eq!(kernel.links_of_kind("bridge").unwrap().len(), 300);
    assert_eq!(kernel.links_of_kind("no-such-kind").unwrap(), vec![]);
    let b7 = index(kernel, "b7");
    assert_eq!(kernel.ports_of(b7).unwrap(), vxlans);
    assert_eq!(kernel.ports_of(999_999).unwrap(), vec![]);
});

netns!(a_listing_is_whole_while_others_come_and_go, kernel, {
    assert!(batch((0..150).map(|n| format!("link add dev b{n} type bridge"))).0.wait().unwrap().success());
    let churn = (0..40).flat_map(|n| [format!("link add dev x{n} type bridge"), format!("link del dev x{n}")]);
    let mut churn = batch(churn);
    let (mut rounds, mut interrupted) = (0, 0);
    while churn.0.try_wait().unwrap().is_none() || rounds == 0 {
        rounds += 1;
        match kernel.all_links() {
            Ok(links) => assert_eq!(links.iter().filter(|link| link.name.as_str().starts_with('b')).count(), 150),
            Err(KernelError::Read { cause: evpn_hook::kernel::NetlinkError::Interrupted(_), .. }) => interrupted += 1,
            Err(error) => panic!("{error}"),
        }
    }
    println!("{rounds} listings, {interrupted} given up as inconsistent");
});

netns!(a_link_that_is_not_there_is_none, kernel, {
    assert_eq!(kernel.link(&name("nope")).unwrap(), None);
    assert_eq!(kernel.link_by_index(424_242).unwrap(), None);
    assert_eq!(kernel.addresses(Some(424_242)).unwrap(), vec![]);
    assert_eq!(kernel.neigh(424_242, "10.0.0.1".parse().unwrap()).unwrap(), None);
    assert_eq!(kernel.fdb(424_242, mac("52:54:00:00:00:01")).unwrap(), None);
    assert_eq!(kernel.fdbs(Some(424_242)).unwrap(), vec![]);
    assert_eq!(kernel.neighs(424_242).unwrap(), vec![]);
    let lo = kernel.link(&name("lo")).unwrap().unwrap();
    assert_eq!((lo.index, lo.mac, lo.up, lo.kind), (1, None, false, LinkKind::Other(String::new())));
});

netns!(a_name_that_no_configuration_can_have_is_left_out, kernel, {
    sh("ip link add 'a#b' type bridge");
    assert_eq!(kernel.all_links().unwrap().len(), 1);
});

netns!(another_namespace_is_read_and_left_again, kernel, {
    sh("ip link add here type bridge");
    // `read` holds the namespace until its stdin closes; the line says that it is ready.
    let mut other = Command::new("unshare")
        .args([
            "-n",
            "sh",
            "-c",
            "ip link add there type bridge; ip address add 10.5.0.9/24 dev there; echo ready; read x",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(other.0.stdout.take().unwrap()), &mut ready).unwrap();
    let netns = File::open(format!("/proc/{}/ns/net", other.0.id())).unwrap();
    let mut inside = Kernel::open_in(netns.as_fd()).unwrap();
    let there = inside.link(&name("there")).unwrap().unwrap();
    assert_eq!(inside.link(&name("here")).unwrap(), None);
    let addresses = inside.addresses(Some(there.index)).unwrap();
    assert_eq!(addresses.iter().map(|a| a.net.to_string()).collect::<Vec<_>>(), ["10.5.0.9/24"]);
    assert!(kernel.link(&name("here")).unwrap().is_some());
    let mut fresh = Kernel::open().unwrap();
    assert!(fresh.link(&name("here")).unwrap().is_some() && fresh.link(&name("there")).unwrap().is_none());

    let step = Step::Sysctl { path: "net/ipv4/ip_forward".into(), value: "1".into() };
    assert!(matches!(inside.apply(&step), Err(KernelError::NotOurs { .. })));
    let wrong = File::open("/dev/null").unwrap();
    let error = Kernel::open_in(wrong.as_fd()).err().unwrap();
    assert_eq!(error.to_string(), "enter the network namespace: Invalid argument (os error 22)");
    assert!(kernel.link(&name("here")).unwrap().is_some());
});

#[test]
fn without_privilege_the_error_says_so() {
    let test = "reading::without_privilege_the_error_says_so";
    if std::env::var("EVPN_UNPRIVILEGED").is_err() {
        return isolated(test, |_| {
            sh("ip link add br0 type bridge && ip link add v0 type veth peer name v1");
            let mut command = again(test, &["setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
            let output = command.env("EVPN_UNPRIVILEGED", "1").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{text}");
        });
    }
    let mut kernel = Kernel::open().unwrap();
    assert!(kernel.link(&name("v0")).unwrap().is_some(), "reading needs no privilege");
    let error = kernel.apply(&master("v0", Some("br0"))).unwrap_err();
    assert_eq!(error.to_string(), "ip link set v0 master br0: Operation not permitted (os error 1): run as root");
    assert_eq!(error.errno(), Some(1));
    let error = kernel.apply(&add_bridge("br1", None)).unwrap_err();
    assert!(error.to_string().ends_with(": Operation not permitted (os error 1): run as root"), "{error}");
    let netns = File::open("/proc/self/ns/net").unwrap();
    let error = Kernel::open_in(netns.as_fd()).err().unwrap();
    assert_eq!(error.to_string(), "enter the network namespace: Operation not permitted (os error 1): run as root");
}

netns!(a_sysctl_is_written_and_read, kernel, {
    let path = "net/ipv4/ip_forward".to_owned();
    for value in ["1", "1", "0"] {
        kernel.apply(&Step::Sysctl { path: path.clone(), value: value.into() }).unwrap();
        assert_eq!(sysctl(&path).unwrap().as_deref(), Some(value));
        assert_eq!(sh("sysctl -n net.ipv4.ip_forward").trim(), value);
    }
    assert_eq!(sysctl("net/ipv4/conf/nope/rp_filter").unwrap(), None);
    let step = Step::Sysctl { path: "net/ipv4/conf/nope/rp_filter".into(), value: "0".into() };
    let error = kernel.apply(&step).unwrap_err();
    assert_eq!(error.to_string(), "sysctl -w net.ipv4.conf.nope.rp_filter=0: No such file or directory (os error 2)");
    assert!(error.gone());
    let step = Step::Sysctl { path: "../../tmp/x".into(), value: "0".into() };
    assert!(kernel.apply(&step).unwrap_err().to_string().contains("Invalid argument"));
    let step = Step::Sysctl { path, value: "many".into() };
    assert!(kernel.apply(&step).unwrap_err().to_string().contains("Invalid argument (os error 22)"));
});

netns!(the_speakers_steps_are_not_ours, kernel, {
    let vrf = evpn_hook::config::Vrf { name: name("red"), table: 10.try_into().unwrap(), vni: 10.try_into().ok() };
    for step in [Step::SpeakerAddVrf { vrf: vrf.clone() }, Step::SpeakerDelVrf { vrf }] {
        let error = kernel.apply(&step).unwrap_err();
        assert!(matches!(error, KernelError::NotOurs { .. }) && error.errno().is_none(), "{error}");
    }
});
