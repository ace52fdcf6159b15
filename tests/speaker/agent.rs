//! evpn-agent beside a real FRR that goes and comes back.

use crate::lab::{BGP, Lab, guest, vni};
use std::time::{Duration, Instant};

const HOOK: &str = env!("CARGO_BIN_EXE_evpn-hook");
const AGENT: &str = env!("CARGO_BIN_EXE_evpn-agent");

impl Lab {
    fn config(&mut self) {
        let dir = self.dir.display().to_string();
        let config = format!(
            "[speaker]\nsocket_dir = \"{dir}\"\n[[network]]\nname = \"flat\"\nbridge = \"flat-l2\"\nvni = 20\nmtu = 1450\n"
        );
        std::fs::write(self.dir.join("config.toml"), config).unwrap();
    }

    fn hook(&mut self, args: &str) {
        let config = self.dir.join("config.toml").display().to_string();
        self.must(&format!("{HOOK} --config {config} {args}"));
    }

    /// In the background, until the lab ends; what it says goes to the file `agent.out`.
    pub fn start_agent(&mut self) {
        let dir = self.dir.display().to_string();
        self.must(&format!("setsid {AGENT} --config {dir}/config.toml -v </dev/null >{dir}/agent.out 2>&1 &"));
        self.until("the agent to watch", |lab| lab.said().contains("watching 1 networks"));
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(self.dir.join("agent.out")).unwrap_or_default()
    }

    fn stop_frr(&mut self) {
        let dir = self.dir.display().to_string();
        self.must(&format!(
            "kill -9 $(cat {dir}/zebra.pid {dir}/bgpd.pid); rm {dir}/*.vty {dir}/*.pid {dir}/zserv.api"
        ));
    }

    fn start_frr(&mut self) {
        let dir = self.dir.display().to_string();
        // As FRR's own script does: a bgpd that finds no zebra tries again only after 10 s.
        for (daemon, socket) in [("zebra", "zserv.api"), ("bgpd", "bgpd.vty")] {
            self.must(&format!(
                "setsid /usr/lib/frr/{daemon} --vty_socket {dir} -z {dir}/zserv.api -i {dir}/{daemon}.pid -f /etc/frr/{daemon}.conf </dev/null >>{dir}/{daemon}.out 2>&1 &"
            ));
            self.until(socket, |lab| lab.dir.join(socket).exists());
        }
    }

    fn advertises(&self) -> bool {
        let (mac, ip) = guest();
        matches!(self.frr().bgp_route(vni(20), mac, Some(ip)), Ok(true))
    }

    #[track_caller]
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Lab) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: not within 30 s; the agent said:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn an_frr_that_comes_back_is_told_all() {
    let Some(mut lab) = Lab::start("agent", BGP) else { return };
    lab.config();
    lab.hook("network up flat");
    lab.start_agent();
    lab.stop_frr();
    let (mac, ip) = guest();
    lab.must("ip link add tap0 type veth peer name tap0p && ip link set tap0p up");
    lab.hook(&format!("attach tap0 --network flat --mac {mac} --ip {ip}"));
    lab.start_frr();
    lab.until("the guest's route", Lab::advertises);
    lab.until("the agent's word", |lab| lab.said().contains("FRR came back and has all again"));
    assert!(!lab.said().contains("warning"), "{}", lab.said());
}

/// What is told again is no more than what the guest has at that moment: it may be ending, and its neighbour would be left behind.
#[test]
fn a_guest_that_ends_is_not_told_again() {
    let Some(mut lab) = Lab::start("ends", BGP) else { return };
    let (mac, ip) = guest();
    let dir = lab.dir.display().to_string();
    lab.config();
    lab.hook("network up flat");
    lab.must("ip link add tap0 type veth peer name tap0p && ip link set tap0p up");
    lab.hook(&format!("attach tap0 --network flat --mac {mac} --ip {ip}"));
    lab.until("the guest's route", Lab::advertises);
    lab.vtysh(&["router bgp 64512", "address-family l2vpn evpn", "no advertise-all-vni"]);
    // A hook is at work on it. /proc/locks shows who waits for a lock only while its holder lives.
    lab.must(&format!("mkfifo {dir}/end; lock=$(echo /run/evpn-hook/guests/*.lock)"));
    lab.must(&format!("flock $lock sh -c 'touch {dir}/held; read _ <{dir}/end' &"));
    lab.until("the guest's lock", |lab| lab.dir.join("held").exists());
    lab.must(&format!("({HOOK} --config {dir}/config.toml sync; touch {dir}/ended) &"));
    lab.must(&format!("until [ -e {dir}/ended ] || grep -q -e '-> FLOCK' /proc/locks; do sleep 0.02; done"));
    assert!(!lab.dir.join("ended").exists(), "it was told again beside the hook that has its lock");
    lab.must(&format!(
        "ip neigh del {ip} dev flat-l2; ip link del tap0; rm ${{lock%.lock}}.json $lock; echo >{dir}/end"
    ));
    lab.until("the sync's end", |lab| lab.dir.join("ended").exists());
    let (_, left) = lab.run(&format!("ip neigh show {ip}; ls /run/evpn-hook/guests"));
    assert_eq!(left, "");
}
