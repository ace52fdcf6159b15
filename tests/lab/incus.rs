//! Containers of Incus: the real daemon of trixie, with the profile as it is installed. tests/lab/other.sh has unpacked it; trixie's hosts run it.

use crate::fabric::{Host, Output, wait_until};
use crate::tenant::{Red, SOON, endpoint_status, expect_advertised, known, remembers};

/// red.xml gives its address to the first; the second has a static one.
const LISTED: (&str, &str) = ("52:54:00:03:82:d8", "10.1.0.60");
const STATIC: (&str, &str) = ("00:16:3e:00:00:70", "10.1.0.70");

/// What `evpn-hook status` knows the container c1 by.
const ID: &str = "/var/lib/incus/containers/c1";

/// The image's /sbin/init: does nothing at all until somebody writes into a pipe in its root.
const INIT: &str = "#!/bin/sh\nread -r word </go\nexec /bin/container-init\n";

/// Incus on one host: a pool, an image, tenant red's profile.
struct Incus<'a>(&'a Host);

impl<'a> Incus<'a> {
    /// None where the hosts' files are another suite's: its programs want trixie's libc.
    fn on(host: &'a Host, test: &str) -> Option<Incus<'a>> {
        let suite = host.sh(". /etc/os-release; echo $VERSION_CODENAME");
        if suite.trim() != "trixie" {
            println!("SKIP incus::{test}: Incus is trixie's here, and these hosts are {suite}");
            return None;
        }
        let incus = Incus(host);
        host.write("/tmp/init", INIT);
        // No iptables in its PATH: sid's kernel has no tables for them, and Incus asks for 20 s at each stop.
        incus.sh("for ids in /etc/subuid /etc/subgid; do echo root:1000000:65536 >>$ids; done
            mkdir -p /var/lib/incus /var/log/incus
            incusd --logfile /var/log/incus/incus.log >/var/log/incus/daemon.log 2>&1 </dev/null &
            incusd waitready --timeout=60
            incus storage create default dir
            incus profile device add default root disk path=/ pool=default
            incus profile create red < /usr/share/evpn-hook/incus/red.yaml
            mkdir /tmp/image; cd /tmp/image
            cp -a $EVPN_LAB_PROJECT/target/lab/images/rootfs .
            rm rootfs/bin/init; install --mode=755 /tmp/init rootfs/bin/init
            mkfifo rootfs/go
            printf 'architecture: x86_64\\ncreation_date: 1\\n' >metadata.yaml
            tar -czf ../image.tar.gz metadata.yaml rootfs
            incus image import ../image.tar.gz --alias busybox
            cd /; rm -r /tmp/image /tmp/image.tar.gz /tmp/init");
        Some(incus)
    }

    fn script(&self, script: &str) -> Output {
        let root = "$EVPN_LAB_PROJECT/target/lab/incus-base-trixie/root/usr";
        let script = format!(
            "cd /; export LD_LIBRARY_PATH={root}/lib/x86_64-linux-gnu PATH={root}/libexec/incus:{root}/bin:/usr/bin\n{script}"
        );
        self.0.run(&["bash", "-euc", &script])
    }

    fn sh(&self, script: &str) -> String {
        let output = self.script(script);
        assert!(output.code == 0, "{script}\n{}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// The first process of c1, seen from the host, while there is one.
    fn running(&self) -> Option<u32> {
        self.sh("incus list --format csv --columns p c1").trim().parse().ok().filter(|pid| *pid != 0)
    }

    fn pid(&self) -> u32 {
        self.running().expect("c1 runs")
    }

    /// Its first process may act.
    fn go(&self) {
        self.sh(&format!("echo go >{ID}/rootfs/go"));
    }

    /// Its first process has not acted yet: it waits for a word.
    fn waits(&self) -> bool {
        let command = self.0.sh(&format!("tr '\\0' ' ' </proc/{}/cmdline", self.pid()));
        command.contains("/sbin/init")
    }
}

impl Drop for Incus<'_> {
    fn drop(&mut self) {
        self.script("set +e; incus delete --force c1; incus admin shutdown; sed -i /^root/d /etc/subuid /etc/subgid; rm -r /var/lib/incus");
    }
}

fn expect_known(red: &Red, (mac, ip): (&str, &str)) {
    wait_until(&format!("comp2 to know {ip}"), SOON, || known(red.comp2, "red", "vxlan20", mac, &[ip], "10.0.0.1"));
    expect_advertised(red.comp1, mac, &[ip]);
    assert_eq!(endpoint_status(red.comp1, mac)["guest"]["id"], ID);
    let status = red.comp1.ok(&["evpn-hook", "status"]);
    assert!(status.lines().any(|line| line.contains("container c1") && line.contains(ip)), "{status}");
}

fn expect_forgotten(red: &Red, (mac, _): (&str, &str)) {
    assert!(!remembers(red.comp1, mac), "{mac} is still on comp1");
    wait_until(&format!("comp2 to forget {mac}"), SOON, || !remembers(red.comp2, mac));
}

lab_test! {
    /// As a user does it: the profile alone, and an address from the network's own list.
    fn a_container_of_incus_is_known_before_its_first_process_acts(fabric) {
        let red = Red::up(fabric);
        let Some(incus) = Incus::on(red.comp1, "a_container_of_incus_is_known_before_its_first_process_acts") else { return };
        incus.sh(&format!("incus launch busybox c1 --profile default --profile red --device eth0,hwaddr={}", LISTED.0));
        expect_known(&red, LISTED);
        assert!(incus.waits(), "its first process acts already");

        incus.go();
        incus.sh("incus exec c1 -- udhcpc -i eth0 -n -q -t 5");
        let inside = incus.sh("incus exec c1 -- ip address show eth0");
        assert!(inside.contains(&format!("{}/24 ", LISTED.1)), "{inside}");
        incus.sh("incus exec c1 -- ping -c 1 -W 5 10.1.0.1");

        // Restarted by Incus; then from inside, which Incus makes a start of its own.
        let first = incus.pid();
        incus.sh("incus restart --force c1");
        expect_known(&red, LISTED);
        assert!(incus.waits(), "its first process acts already");
        let second = incus.pid();
        incus.go();
        incus.script("incus exec c1 -- reboot -f");
        wait_until("another first process", SOON, || ![Some(first), Some(second), None].contains(&incus.running()));
        expect_known(&red, LISTED);

        incus.sh("incus stop --force c1");
        expect_forgotten(&red, LISTED);
    }
}

lab_test! {
    /// Its id is the same, be it from its hook or from its monitor: what `sync` has registered its own stop withdraws.
    fn a_container_of_incus_is_found_where_the_state_was_lost(fabric) {
        let red = Red::up(fabric);
        let Some(incus) = Incus::on(red.comp1, "a_container_of_incus_is_found_where_the_state_was_lost") else { return };
        let (mac, ip) = STATIC;
        incus.sh(&format!(
            "incus init busybox c1 --profile default --profile red --device eth0,hwaddr={mac}
            incus config set c1 raw.lxc='lxc.include = /usr/share/evpn-hook/lxc/evpn-hook.conf
            lxc.net.0.ipv4.address = {ip}/24
            lxc.net.0.ipv4.gateway = 10.1.0.1'
            incus start c1"
        ));
        expect_known(&red, STATIC);
        assert!(incus.waits(), "its first process acts already");

        red.comp1.sh(&format!("rm -r /run/evpn-hook; ip neigh del {ip} dev red-l2"));
        wait_until("comp2 to forget its address", SOON, || known(red.comp2, "red", "vxlan20", mac, &[ip], "10.0.0.1").is_err());
        red.comp1.ok(&["evpn-hook", "sync"]);
        expect_known(&red, STATIC);

        incus.sh("incus stop --force c1");
        expect_forgotten(&red, STATIC);
        assert_eq!(red.comp1.sh("find /run/evpn-hook/guests ! -type d ! -name '*.lock'"), "");
    }
}
