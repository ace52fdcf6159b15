//! Commands that mend, as they are typed into a shell. Names from outside are quoted, or the command is left out.

use crate::model::{IfName, Vni};
use crate::speaker::Instance;
use std::net::IpAddr;

/// Whatever the kernel or FRR lacks of what evpn-hook put there.
pub const SYNC: &str = "evpn-hook sync";

/// Starts the FRR that is dead. bgpd tells a new zebra nothing of its old routes, so they go together; what evpn-hook told the old ones of
/// VRFs is not in frr.conf.
pub const RESTART: &str = "systemctl restart frr && evpn-hook sync";

/// What makes zebra and bgpd look at a VNI anew: they act on the device's going and coming.
pub fn read_again(vni: Vni) -> String {
    let vxlan = vni.device();
    format!("ip link set {vxlan} down && ip link set {vxlan} up")
}

/// Gives this host the address at which its tunnels end.
pub fn add_vtep(ip: IpAddr, dev: &IfName) -> String {
    format!("ip address add {ip}/{} dev {dev}", if ip.is_ipv4() { 32 } else { 128 })
}

/// Starts the agent, now and at each boot.
pub const AGENT: &str = "systemctl enable --now evpn-agent";

/// Lets in again what bgpd takes by itself, in place of the route targets that are configured for a VNI, or with `None` for the instance's VRF.
pub fn unimport(instance: &Instance, vni: Option<Vni>) -> Option<String> {
    let block = vni.map(|vni| format!("vni {vni}"));
    // Each by itself: vtysh stops at the first that is refused.
    let command = |target: &&str| {
        let lines: Vec<String> = block.iter().cloned().chain([format!("no route-target import {target}")]).collect();
        evpn(instance, &lines)
    };
    let targets = instance.imports(vni.map(Vni::get));
    Some(targets.iter().map(command).collect::<Option<Vec<_>>>()?.join("; ")).filter(|commands| !commands.is_empty())
}

/// sysctl(8) takes slashes as well, which a device's name with a dot needs.
pub fn sysctl(path: &str, value: &str) -> String {
    let name = if path.contains('.') { path.to_owned() } else { path.replace('/', ".") };
    format!("sysctl -w {name}={value}")
}

/// One word for a shell.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Configuration lines for the running FRR, down from its top; none where a name in them is not one of FRR's.
pub fn configure(lines: &[String]) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@%+*, ".contains(c);
    if !lines.iter().all(|line| line.chars().all(plain)) {
        return None;
    }
    let words: String = lines.iter().map(|line| format!(" -c '{line}'")).collect();
    Some(format!("vtysh -c 'configure terminal'{words}"))
}

/// The same below an instance of bgpd.
pub fn bgp(instance: &Instance, lines: &[String]) -> Option<String> {
    configure(&[&[instance.line()], lines].concat())
}

/// The same below its EVPN address family.
pub fn evpn(instance: &Instance, lines: &[String]) -> Option<String> {
    bgp(instance, &[&["address-family l2vpn evpn".to_owned()], lines].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_becomes_a_command() {
        assert_eq!(word("vm1"), "vm1");
        assert_eq!(word("it's; rm -rf /"), r"'it'\''s; rm -rf /'");
        assert_eq!(word(""), "''");
        assert_eq!(configure(&["neighbor x' -c 'y shutdown".into()]), None);
        assert!(configure(&["no route-target import *:20".into()]).is_some());
        assert_eq!(
            configure(&["vrf red".into(), "vni 10".into()]).as_deref(),
            Some("vtysh -c 'configure terminal' -c 'vrf red' -c 'vni 10'")
        );
    }

    #[test]
    fn a_setting_of_a_device_with_a_dot_is_named_by_slashes() {
        assert_eq!(sysctl("net/ipv4/conf/red-l2/forwarding", "1"), "sysctl -w net.ipv4.conf.red-l2.forwarding=1");
        assert_eq!(sysctl("net/ipv4/conf/br.1/forwarding", "1"), "sysctl -w net/ipv4/conf/br.1/forwarding=1");
    }
}
