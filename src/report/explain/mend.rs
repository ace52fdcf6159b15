//! Commands that mend, as they are typed into a shell. Names from outside are quoted, or the command is left out.

use crate::speaker::Running;

/// Whatever the kernel or FRR lacks of what evpn-hook put there.
pub(super) fn sync() -> Option<String> {
    Some("evpn-hook sync".to_owned())
}

/// One word for a shell.
pub(super) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Configuration lines for the running FRR, down from its top; none where a name in them is not one of FRR's.
pub(super) fn configure(lines: &[String]) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@%+, ".contains(c);
    if !lines.iter().all(|line| line.chars().all(plain)) {
        return None;
    }
    let words: String = lines.iter().map(|line| format!(" -c '{line}'")).collect();
    Some(format!("vtysh -c 'configure terminal'{words}"))
}

/// The same below the instance that speaks EVPN.
pub(super) fn bgp(running: &Running, lines: &[String]) -> Option<String> {
    let instance = running.evpn()?;
    let vrf = instance.vrf.as_ref().map_or(String::new(), |vrf| format!(" vrf {vrf}"));
    configure(&[&[format!("router bgp {}{vrf}", instance.asn)], lines].concat())
}

/// The same below its EVPN address family.
pub(super) fn evpn(running: &Running, lines: &[String]) -> Option<String> {
    bgp(running, &[&["address-family l2vpn evpn".to_owned()], lines].concat())
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
        assert_eq!(
            configure(&["vrf red".into(), "vni 10".into()]).as_deref(),
            Some("vtysh -c 'configure terminal' -c 'vrf red' -c 'vni 10'")
        );
    }
}
