//! One pass over libvirt's XML, bounded in size and depth, with namespaces resolved; nothing is copied but the text that is asked for.
//!
//! A visitor sees each element's place as a path of short names: libvirt's elements as they are called, ours as `evpn:…` and its dnsmasq's as
//! `dnsmasq:…` whatever prefix the document uses, and everything else as `?`, which no reader asks for. So another vendor's `<x:interface>` can never be taken for ours.

use crate::model::quoted;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::{NamespaceError, ResolveResult};
use quick_xml::reader::NsReader;
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::ControlFlow;

/// The most XML that a hook reads, in bytes. A domain with 100 devices has about 60 KiB; libvirt takes 4 MiB of whoever defines one (remote_protocol.x
/// REMOTE_STRING_MAX), so that no other vendor's metadata makes more than this.
pub const MAX_XML: usize = 5 << 20;
/// libvirt's own formats stay under 12 levels. Metadata of other vendors may go deeper (libxml2 takes 256): what is further in than this is passed over.
const MAX_DEPTH: usize = 64;
/// Our metadata's namespace.
pub(super) const NAMESPACE: &str = "urn:evpn-hook:1";
/// libvirt's own, for what it hands to dnsmasq as it is (network_conf / bridge_driver.c `DNSMASQ_NAMESPACE_HREF`).
pub(super) const DNSMASQ: &str = "http://libvirt.org/schemas/network/dnsmasq/1.0";
/// An element of ours that no reader knows.
pub(super) const UNKNOWN: &str = "evpn:?";

/// What a visitor is shown.
pub(super) enum Node<'a> {
    /// An element opens; its path includes itself.
    Open(&'a Tag<'a>),
    /// An element closes; with the text since the last tag.
    Close(&'a str),
}

/// Why a document was not read to its end.
#[derive(Debug)]
pub(super) enum Unread {
    /// Others' part of it is more than can be read: whose it is may stand in the rest.
    TooMuch(String),
    /// It is none, or breaks off, or the visitor refuses it.
    Broken(String),
}

impl From<String> for Unread {
    fn from(why: String) -> Unread {
        Unread::Broken(why)
    }
}

impl From<Unread> for String {
    fn from(unread: Unread) -> String {
        match unread {
            Unread::TooMuch(why) | Unread::Broken(why) => why,
        }
    }
}

/// Goes on, or stops with all that was wanted.
pub(super) type Flow = ControlFlow<()>;

/// An opening tag.
pub(super) struct Tag<'a>(pub(super) &'a BytesStart<'a>);

impl Tag<'_> {
    /// An attribute of ours; a broken value is an error.
    pub(super) fn attr(&self, key: &str) -> Result<Option<String>, String> {
        let Some(attr) = self.0.attributes().with_checks(false).flatten().find(|a| a.key.0 == key) else {
            return Ok(None);
        };
        match attr.normalized_value(XmlVersion::Implicit1_0) {
            Ok(value) => Ok(Some(value.into_owned())),
            Err(e) => Err(format!("{}: the attribute {} cannot be read ({e})", self.shown(), quoted(key))),
        }
    }

    /// An attribute of libvirt's; a broken value is none.
    pub(super) fn get(&self, key: &str) -> Option<String> {
        self.attr(key).ok().flatten()
    }

    /// Is it dnsmasq's option `dhcp-broadcast`, for all clients or some? The only one that is looked at.
    pub(super) fn is_dhcp_broadcast(&self) -> bool {
        self.get("value").is_some_and(|value| value.split('=').next() == Some("dhcp-broadcast"))
    }

    /// Refuses attributes that an element of ours does not have, and any that stands twice.
    pub(super) fn only(&self, keys: &[&str]) -> Result<(), String> {
        let mut seen: Vec<&str> = Vec::with_capacity(keys.len());
        for attr in self.0.attributes().with_checks(false) {
            let key = match &attr {
                Ok(attr) => attr.key.0,
                Err(e) => return Err(format!("{}: its attributes cannot be read ({e})", self.shown())),
            };
            if key == "xmlns" || key.starts_with("xmlns:") {
                continue;
            }
            let Some(known) = keys.iter().find(|k| **k == key) else {
                let takes =
                    if keys.is_empty() { "takes none".to_owned() } else { format!("takes {}", keys.join(", ")) };
                return Err(format!("{} has an unknown attribute {}: it {takes}", self.shown(), quoted(key)));
            };
            if seen.contains(known) {
                return Err(format!("{} has the attribute {} twice: keep one", self.shown(), quoted(key)));
            }
            seen.push(known);
        }
        Ok(())
    }

    /// The error for an element of ours in a place where none is known.
    pub(super) fn unknown<T>(&self, known: &str) -> Result<T, String> {
        Err(format!("{} is unknown here: our metadata takes {known}, all in the namespace {NAMESPACE}", self.shown()))
    }

    fn shown(&self) -> String {
        let name = quoted(self.0.name().0);
        format!("<{}>", name.trim_matches('\''))
    }
}

/// Walks the document until its root closes or the visitor stops.
pub(super) fn walk(
    xml: &[u8],
    mut visit: impl FnMut(&[&'static str], Node<'_>) -> Result<Flow, String>,
) -> Result<(), Unread> {
    let (text, cut) = readable(xml);
    let mut reader = NsReader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut path: Vec<&'static str> = Vec::with_capacity(16);
    let mut open: Vec<String> = Vec::new();
    let mut content = String::new();
    let mut deeper = 0_usize;
    loop {
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(e) => {
                let line = line_at(text, reader.error_position());
                let inside = open.last().map_or(String::new(), |tag| format!(" inside <{tag}>"));
                let broken = |what: &dyn Display| format!("the XML breaks at line {line}{inside}: {what}");
                return Err(match (cut, e) {
                    (Some(cut), _) => cut,
                    (None, quick_xml::Error::Namespace(NamespaceError::TooManyBindings(most))) => {
                        Unread::TooMuch(broken(&format_args!("it declares more than {most} namespaces, remove some")))
                    }
                    (None, e) => Unread::Broken(broken(&e)),
                });
            }
        };
        match event {
            Event::Start(start) => {
                content.clear();
                if path.len() == MAX_DEPTH {
                    deeper += 1;
                    continue;
                }
                let (namespace, local) = reader.resolver().resolve_element(start.name());
                let ours = path.last().is_some_and(|p| p.starts_with("evpn:"));
                path.push(match namespace {
                    // A forgotten prefix inside our metadata is a mistake to point at, not an element to skip.
                    ResolveResult::Unbound if ours => UNKNOWN,
                    ResolveResult::Unbound => libvirts(local.as_ref()),
                    ResolveResult::Bound(ns) if ns.0 == NAMESPACE => own(local.as_ref()),
                    ResolveResult::Bound(ns) if ns.0 == DNSMASQ => dnsmasqs(local.as_ref()),
                    // Another version of us, or a slip of the pen: silence would leave a guest off its network.
                    ResolveResult::Bound(ns) if ns.0.starts_with("urn:evpn-hook") => UNKNOWN,
                    _ => "?",
                });
                let name = start.name().0;
                let plain = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b":_-".contains(&b));
                open.push(if plain { name.to_owned() } else { quoted(name).trim_matches('\'').to_owned() });
                if visit(&path, Node::Open(&Tag(&start)))?.is_break() {
                    return Ok(());
                }
            }
            Event::End(_) if deeper > 0 => deeper -= 1,
            Event::End(_) => {
                if visit(&path, Node::Close(&content))?.is_break() {
                    return Ok(());
                }
                content.clear();
                path.pop();
                open.pop();
                if path.is_empty() {
                    return Ok(());
                }
            }
            Event::Text(text) => content.push_str(&text),
            Event::CData(data) => content.push_str(&data),
            Event::GeneralRef(entity) => match resolved(&entity) {
                Some(text) => content.push_str(&text),
                None => {
                    let why = format!("the XML has the entity {}: use the five of XML, or &#…;", quoted(&entity));
                    return Err(why.into());
                }
            },
            Event::DocType(_) => {
                return Err("the XML has a DOCTYPE: libvirt's never does, remove it".to_owned().into());
            }
            Event::Eof => {
                return Err(cut.unwrap_or_else(|| {
                    Unread::Broken(match open.last() {
                    Some(tag) => format!("the XML on stdin is cut off: after {} bytes </{tag}> is missing", xml.len()),
                    None => {
                        "there is no XML on stdin: libvirt gives it; by hand, pipe `virsh dumpxml` or `net-dumpxml` in"
                            .to_owned()
                    }
                })
                }));
            }
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => (),
        }
    }
}

/// What `&…;` stands for; none where a document of its own would have to say.
pub(super) fn resolved(entity: &BytesRef) -> Option<Cow<'static, str>> {
    match entity.resolve_char_ref() {
        Ok(Some(c)) => Some(c.to_string().into()),
        _ => resolve_predefined_entity(entity).map(Into::into),
    }
}

/// The part of the input that can be read as text, and why it stops there.
fn readable(xml: &[u8]) -> (&str, Option<Unread>) {
    let long = xml.len() > MAX_XML;
    let bounded = xml.get(..MAX_XML).unwrap_or(xml);
    match std::str::from_utf8(bounded) {
        Ok(text) => (text, long.then(too_long)),
        Err(e) => {
            let valid = std::str::from_utf8(&bounded[..e.valid_up_to()]).unwrap_or_default();
            // The bound itself may fall into a character.
            let why = if long && e.error_len().is_none() {
                too_long()
            } else {
                Unread::Broken(format!("the XML is not UTF-8 at byte {}: libvirt's always is", valid.len()))
            };
            (valid, Some(why))
        }
    }
}

fn too_long() -> Unread {
    Unread::Broken(format!("the XML is over {} MiB: remove some of its metadata", MAX_XML >> 20))
}

fn line_at(text: &str, position: u64) -> usize {
    let end = usize::try_from(position).unwrap_or(usize::MAX).min(text.len());
    1 + text.as_bytes()[..end].iter().filter(|b| **b == b'\n').count()
}

macro_rules! known {
    ($text:expr, $prefix:literal, $other:expr, $($name:literal)+) => {
        match $text { $($name => concat!($prefix, $name),)+ _ => $other }
    };
}

/// libvirt's elements that a reader asks for.
fn libvirts(local: &str) -> &'static str {
    known!(local, "", "?", "domain" "name" "uuid" "metadata" "devices" "interface" "mac" "source" "target" "filterref" "parameter"
        "domstatus" "actual" "vlan" "networkstatus" "hookData" "network" "networkport" "owner" "forward" "bridge" "mtu" "ip" "dhcp" "host" "dns"
        "range" "tftp" "portgroup")
}

/// libvirt's elements of that other namespace.
fn dnsmasqs(local: &str) -> &'static str {
    known!(local, "dnsmasq:", "?", "options" "option")
}

/// Our own elements.
fn own(local: &str) -> &'static str {
    known!(local, "evpn:", UNKNOWN, "guest" "interface" "ip" "network" "vrf")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(xml: &str) -> Result<Vec<String>, String> {
        let mut seen = Vec::new();
        walk(xml.as_bytes(), |path, node| {
            if let Node::Close(text) = node {
                seen.push(format!("{}={text}", path.join("/")));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(seen)
    }

    #[test]
    fn what_is_too_deep_is_passed_over_and_the_rest_is_read() {
        let deep = |levels: usize| format!("{}<name>x</name>{}", "<x>".repeat(levels), "</x>".repeat(levels));
        let seen = paths(&format!("<domain><metadata>{}</metadata><name>vm1</name></domain>", deep(60_000))).unwrap();
        assert_eq!(seen.last().unwrap(), "domain=");
        assert_eq!(seen[seen.len() - 2], "domain/name=vm1");
        assert!(!seen.iter().any(|line| line.ends_with("name=x")), "what is that far in is not read");
        assert!(paths(&deep(3)).unwrap()[0].ends_with("name=x"));
    }

    #[test]
    fn a_namespace_counts_and_a_prefix_does_not() {
        let xml =
            "<domain><metadata><a:guest xmlns:a='urn:evpn-hook:1'/><evpn:guest xmlns:evpn='urn:x'><name/></evpn:guest>
            <b:guest/></metadata></domain>";
        let seen = paths(xml).unwrap();
        assert_eq!(seen[0], "domain/metadata/evpn:guest=");
        assert_eq!(seen[1], "domain/metadata/?/name=");
        assert_eq!(seen[2], "domain/metadata/?=");
        assert_eq!(seen[3], "domain/metadata/?=", "a prefix that nobody declared is nobody's");
    }

    #[test]
    fn text_comes_with_its_references_resolved() {
        assert_eq!(paths("<name>a&amp;b&#x21;<![CDATA[<c>]]></name>").unwrap(), ["name=a&b!<c>"]);
    }

    #[test]
    fn what_follows_the_root_is_not_read() {
        assert_eq!(paths("<?xml version='1.0'?><!-- -- --><name/>").unwrap(), ["name="]);
        assert_eq!(paths("<name/><!DOCTYPE a><<<").unwrap(), ["name="]);
    }

    #[test]
    fn the_size_is_bounded() {
        let text = "ä".repeat(MAX_XML / 2 - 3);
        let fits = format!("<a>{text}</a>");
        assert_eq!(fits.len(), MAX_XML + 1);
        let error = "the XML is over 5 MiB: remove some of its metadata";
        assert_eq!(paths(&fits).unwrap_err(), error);
        assert_eq!(paths(&format!("<ab>{text}</ab>")).unwrap_err(), error, "the bound falls into a character");
        assert!(paths(&fits.replacen("ä", "", 1)).is_ok());
    }

    #[test]
    fn many_attributes_cost_no_square() {
        let attrs: String = (0..200_000).map(|i| format!(" a{i}=''")).collect();
        let started = std::time::Instant::now();
        walk(format!("<domain{attrs}/>").as_bytes(), |_, node| {
            if let Node::Open(tag) = node {
                assert_eq!(tag.get("type"), None);
                assert!(tag.only(&["type"]).is_err());
            }
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert!(started.elapsed().as_secs() < 5);
    }
}
