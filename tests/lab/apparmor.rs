//! libvirtd as Debian confines it: with the package's own AppArmor profile, enforced.

use crate::fabric::{Host, Nic, Vm, VmSpec, wait_until};
use crate::tenant::{Network, SOON, expect_advertised, network_status};

const MAC: &str = "52:54:00:03:82:d8";
const HOOKS: &str = "/etc/libvirt/hooks";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// libvirtd under its profile, until the value is dropped.
struct Confined<'a> {
    host: &'a Host,
    files: String,
}

impl<'a> Confined<'a> {
    fn on(host: &'a Host) -> Confined<'a> {
        let project = std::env::var("EVPN_LAB_PROJECT").expect("EVPN_LAB_PROJECT is set in the lab machine");
        let confined = Confined { host, files: format!("{project}/target/lab/apparmor-{}", host.suite()) };
        host.sh("mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security");
        confined.parser("--replace");
        confined.restart();
        confined
    }

    fn parser(&self, what: &str) {
        let Confined { host, files } = self;
        host.sh(&format!(
            "{files}/sbin/apparmor_parser {what} --skip-cache --policy-features {files}/features --base {files}/etc/apparmor.d {files}/etc/apparmor.d/usr.sbin.libvirtd"
        ));
    }

    /// It looks for hooks when it starts.
    fn restart(&self) {
        self.host.restart_libvirtd("TERM");
    }

    /// The profile's name and mode, as the kernel tells them of the running libvirtd.
    fn label(&self) -> String {
        self.host.sh("cat /proc/$(cat /run/libvirtd.pid)/attr/current").trim().to_owned()
    }
}

impl Drop for Confined<'_> {
    fn drop(&mut self) {
        let back = || {
            self.host.sh(&format!("rm -f {HOOKS}/network.d/50-evpn-hook; evpn-hook install --libvirt"));
            self.parser("--remove");
            self.restart();
            self.host.sh("umount /sys/kernel/security");
        };
        // A second panic, in the clearing up after the first, would end all the other tests as well.
        match std::thread::panicking() {
            true => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(back))),
            false => back(),
        }
    }
}

lab_test! {
    fn hooks_work_under_libvirts_own_apparmor_profile(fabric) {
        let comp1 = fabric.comp1();
        if !comp1.sh("cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo N").starts_with('Y') {
            println!("SKIP hooks_work_under_libvirts_own_apparmor_profile: this kernel has no AppArmor");
            return;
        }
        let confined = Confined::on(comp1);
        assert_eq!(confined.label(), "libvirtd (enforce)");
        assert!(comp1.sh(&format!("cat {PROFILES}")).contains("libvirtd (enforce)"));

        // The links, as `evpn-hook install` makes them.
        for driver in ["qemu", "network"] {
            let link = comp1.sh(&format!("readlink {HOOKS}/{driver}.d/50-evpn-hook"));
            assert_eq!(link, "/usr/bin/evpn-hook\n");
        }
        let network = Network::shipped(comp1, "red");
        assert_eq!(network_status(comp1, "red")["state"], "up");
        let spec = VmSpec { name: "confined", nics: vec![Nic::Network { mac: MAC, network: "red" }], bare: true, ..VmSpec::default() };
        let vm = Vm::start(comp1, &spec);
        expect_advertised(comp1, MAC, &["10.1.0.60"]);
        vm.destroy();
        wait_until("the guest to be gone", SOON, || comp1.run(&["evpn-hook", "status"]).stdout.contains(MAC).eq(&false));
        drop(vm);
        network.stop();

        // A copy is confined as libvirtd is, and gets no netlink socket.
        let hook = format!("{HOOKS}/network.d/50-evpn-hook");
        comp1.sh(&format!("rm {hook}; cp /usr/bin/evpn-hook {hook}"));
        confined.restart();
        assert_eq!(confined.label(), "libvirtd (enforce)");
        let refused = comp1.run(&["virsh", "--quiet", "net-start", "red"]);
        eprintln!("{}", refused.stderr);
        assert!(refused.code != 0 && refused.stderr.contains("Permission denied"), "{refused:?}");
        assert!(!network.is_active());
        let doctor = comp1.run(&["evpn-hook", "doctor"]).stdout;
        let told: Vec<&str> = doctor.lines().filter(|line| line.contains("hook-copied")).collect();
        eprintln!("{}", told.join("\n"));
        assert!(matches!(told[..], [one] if one.contains(&hook)), "{doctor}");
        assert!(doctor.contains("AppArmor, which confines libvirtd here, refuses it netlink"), "{doctor}");

        // And its mend.
        comp1.sh(&format!("rm {hook}"));
        comp1.ok(&["evpn-hook", "install", "--libvirt"]);
        confined.restart();
        network.start();
        assert_eq!(network_status(comp1, "red")["state"], "up");
    }
}
