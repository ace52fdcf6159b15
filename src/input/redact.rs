//! libvirt's XML without what nobody else needs to see, for a bug report.
//!
//! What a hook reads is known; what may be secret is not (VNC and SPICE passwords, `<secret>`, disks' `<auth>`, `qemu:commandline`, other vendors'
//! metadata, and whatever libvirt adds next). So it is kept by name: elements stay where they are, but values only where the readers look.

use super::xml::{DNSMASQ, MAX_XML, NAMESPACE, Tag, resolved};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;
use std::fmt::Write;

/// In place of a value.
const HIDDEN: &str = "***";

/// The same document with all other values hidden and comments left out, and whether that was all of it: what comes after the place where it
/// cannot be read, nobody can judge.
pub fn redact(xml: &str) -> (String, bool) {
    let mut end = xml.len().min(MAX_XML);
    while !xml.is_char_boundary(end) {
        end -= 1;
    }
    let mut reader = NsReader::from_str(&xml[..end]);
    let mut out = String::with_capacity(end);
    // Is what stands in these elements kept?
    let mut open: Vec<bool> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    loop {
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(_) => return (out, false),
        };
        match event {
            Event::Start(ref start) | Event::Empty(ref start) => {
                let (namespace, local) = reader.resolver().resolve_element(start.name());
                let ours = matches!(namespace, ResolveResult::Bound(ns) if ns.0.starts_with(NAMESPACE));
                let plain = matches!(namespace, ResolveResult::Unbound);
                let option = matches!(namespace, ResolveResult::Bound(ns) if ns.0 == DNSMASQ);
                path.push(if plain || ours { local.as_ref().to_owned() } else { "?".to_owned() });
                let parent = open.last().copied().unwrap_or(false);
                let kept =
                    if plain { parent || is_read(&path) } else { ours || option && Tag(start).is_dhcp_broadcast() };
                if !tag(&mut out, start, kept || path.len() == 1) {
                    return (out, false);
                }
                if matches!(event, Event::Empty(_)) {
                    out.push_str("/>");
                    path.pop();
                } else {
                    out.push('>');
                    open.push(kept);
                }
            }
            Event::End(tag) => {
                let _ = write!(out, "</{}>", tag.name().0);
                open.pop();
                path.pop();
            }
            Event::Text(text) => value(&mut out, &text, open.last()),
            Event::CData(data) => value(&mut out, &format!("<![CDATA[{}]]>", &*data), open.last()),
            // The readers stop here, and would not where it is hidden.
            Event::GeneralRef(entity) if resolved(&entity).is_none() => return (out, false),
            Event::GeneralRef(entity) => value(&mut out, &format!("&{};", &*entity), open.last()),
            Event::Eof => return (out, open.is_empty() && end == xml.len()),
            // The readers refuse it.
            Event::DocType(_) => out.push_str("<!DOCTYPE hidden>"),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => (),
        }
    }
}

/// What the readers of this room look at, and all below it.
fn is_read(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let path = path.strip_prefix(&["domstatus"]).or(path.strip_prefix(&["networkstatus"])).unwrap_or(&path);
    matches!(
        path,
        ["domain", "name"]
            | ["domain", "uuid"]
            | ["domain", "devices", "interface"]
            | ["hookData", "network" | "networkport"]
            | ["network"]
    )
}

/// False where its attributes cannot be told from each other; none of it is written then.
fn tag(out: &mut String, start: &BytesStart, kept: bool) -> bool {
    let plain = |key: &str| !key.contains(|c: char| c.is_whitespace() || c.is_control() || "'\"<>=&/".contains(c));
    if start.attributes().with_checks(false).any(|attr| !attr.is_ok_and(|attr| plain(attr.key.0))) {
        return false;
    }
    let _ = write!(out, "<{}", start.name().0);
    for attr in start.attributes().with_checks(false).flatten() {
        let key = attr.key.0;
        // The document must mean the same.
        let shown = kept || key == "xmlns" || key.starts_with("xmlns:");
        let text: &str = if shown { &attr.value } else { HIDDEN };
        let quote = if text.contains('\'') { '"' } else { '\'' };
        let _ = write!(out, " {key}={quote}{text}{quote}");
    }
    true
}

fn value(out: &mut String, text: &str, kept: Option<&bool>) {
    if kept == Some(&true) || text.trim().is_empty() {
        out.push_str(text);
    } else if !out.ends_with(HIDDEN) {
        out.push_str(HIDDEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event as Happened;
    use crate::input::{libvirt_network, libvirt_qemu};

    const SECRETS: &str = "<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>vm1</name>
  <uuid>11111111-2222-3333-4444-555555555501</uuid>
  <description>root's password is sesame0</description><!-- sesame1 -->
  <metadata>
    <evpn:guest xmlns:evpn='urn:evpn-hook:1'><evpn:interface mac='52:54:00:00:00:01'><evpn:ip address='10.1.0.60'/></evpn:interface></evpn:guest>
    <nova:owner xmlns:nova='http://openstack.org/nova'><nova:key>sesame2</nova:key><interface><mac address='sesame3'/></interface></nova:owner>
  </metadata>
  <devices>
    <disk type='network'><auth username='sesame4'><secret type='ceph' uuid='sesame5'/></auth><source><cookies><cookie name='a'>sesame6</cookie></cookies></source></disk>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='red-l2'/><target dev='vnet0'/><model type='virtio'/></interface>
    <graphics type='vnc' port='5900' passwd='sesame7' passwdValidTo='2030-01-01T00:00:00'/>
    <graphics type='spice' passwd=\"sesame'8\"/>
    <tpm><backend type='emulator'><encryption secret='sesame9'/></backend></tpm>
  </devices>
  <secret>sesame10 <![CDATA[sesame11]]> &lt;sesame12</secret>
  <qemu:commandline><qemu:arg value='sesame13'/><qemu:env name='TOKEN' value='sesame14'/></qemu:commandline>
</domain>";

    #[test]
    fn no_secret_is_left_and_nothing_that_is_read_is_lost() {
        let (text, whole) = redact(SECRETS);
        assert!(whole && !text.contains("sesame"), "{text}");
        assert!(
            text.contains("<graphics type='***' port='***' passwd='***'"),
            "what there was can still be seen: {text}"
        );
        let args = ["vm1", "start", "begin", "-"];
        let read = |xml: &str| libvirt_qemu::read(&args, xml.as_bytes()).unwrap();
        assert_eq!(read(&text), read(SECRETS));
        assert!(matches!(read(&text), Some(Happened::Guest { nics, .. }) if nics.len() == 1));
    }

    #[test]
    fn every_sample_is_read_as_before() {
        let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/input");
        let mut read = 0;
        for case in std::fs::read_dir(samples).unwrap() {
            let case = case.unwrap().path();
            let Ok(xml) = std::fs::read_to_string(case.join("stdin.xml")) else { continue };
            let (text, whole) = redact(&xml);
            if !whole {
                continue;
            }
            let name = case.file_name().unwrap().to_str().unwrap().to_owned();
            let config = crate::config::Config::default();
            for op in ["start", "started", "port-created", "stopped", "migrate", "reconnect"] {
                let args = ["red", op, "begin", "-"];
                let network = |xml: &str| libvirt_network::read(&args, xml.as_bytes(), &config);
                let qemu = |xml: &str| libvirt_qemu::read(&args, xml.as_bytes());
                // Where it breaks is told by the line, which comments and values take some of.
                if let (Ok(before), Ok(after)) = (network(&xml), network(&text)) {
                    assert_eq!(before, after, "{name} {op}: {text}");
                }
                assert_eq!(qemu(&xml).ok(), qemu(&text).ok(), "{name} {op}: {text}");
                read += 1;
            }
        }
        assert!(read > 100, "{read}");
    }

    #[test]
    fn what_cannot_be_read_is_not_kept() {
        for broken in [
            "<domain><name>vm1</name></devices><secret>sesame</secret>",
            "<domain><secret a='sesame",
            "sesame",
            "<a>&sesame",
            "<domain><a b='sesame' c><name/></a></domain>",
            "<domain><a b='c'd=sesame/></domain>",
            "<domain xmlns:a='u<interface type='sesame' rn:80'/>",
        ] {
            let (text, whole) = redact(broken);
            assert!(!text.contains("sesame"), "{text}");
            assert!(!whole || text == HIDDEN, "{text}");
        }
    }
}
