//! The nouns: newtypes that refuse a bad value once, so that nothing behind them has to ask again.
//!
//! Everything that reaches a kernel object, an FRR command or a file name is one of these.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Why a word was not taken for what it should have been. The text names the word and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(String);

impl BadValue {
    pub(crate) fn new(text: String) -> BadValue {
        BadValue(text)
    }
}

fn bad<T>(text: String) -> Result<T, BadValue> {
    Err(BadValue(text))
}

/// Shortens and escapes foreign text for a one-line message: control characters cannot reach a log or a terminal.
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        short.push('…');
    }
    format!("'{short}'")
}

/// Makes one line of a message that may carry foreign text: what a terminal would obey becomes escapes.
pub fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        match c {
            c if hides(c) => line.extend(c.escape_debug()),
            c => line.push(c),
        }
        line
    })
}

/// The most of a line about something that was not understood, in characters: a parser's words may quote all of it.
const LONGEST_LINE: usize = 600;

/// The same cut where nobody reads on.
pub fn short_line(text: &str) -> String {
    let line = one_line(text);
    match line.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The first character of a name that a path, a shell, FRR or a terminal would take for more than a name. evpn-hook itself is safe from them: every
/// name is checked or escaped where it becomes part of something. Others' scripts and a person's clipboard are not, so what has one does not start.
pub fn hazard(name: &str) -> Option<char> {
    name.chars().find(|c| hides(*c) || "/\\;|<>`$".contains(*c))
}

/// What a terminal obeys instead of showing it: control characters, and those that turn the direction of the rest (Unicode Bidi_Control).
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// An address that one guest or host can own: not multicast, unspecified, loopback, broadcast, nor an IPv4 address dressed as IPv6
/// (the kernel and BGP would take `::ffff:10.1.0.60` for another host than 10.1.0.60).
pub fn host_ip(text: &str) -> Result<IpAddr, BadValue> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        return bad(format!(
            "address {} does not parse: write one IPv4 or IPv6 address without a prefix length",
            quoted(text)
        ));
    };
    match not_a_host(ip) {
        Some(what) => bad(format!("address {ip} is {what}: use the address of one host")),
        None => Ok(ip),
    }
}

/// Why no single host can own this address; `None` where one can.
pub fn not_a_host(ip: IpAddr) -> Option<&'static str> {
    match ip {
        _ if ip.is_multicast() => Some("multicast"),
        _ if ip.is_unspecified() => Some("the unspecified address"),
        _ if ip.is_loopback() => Some("a loopback address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 address written as IPv6"),
        _ => None,
    }
}

/// Who told a guest's address, in order of precedence: what is declared counts as it is, what was learned comes on top of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The operator, by `attach`.
    Manual,
    /// The guest's description: a domain's metadata, Proxmox' `ipconfigN`.
    Metadata,
    /// An nwfilter parameter.
    Nwfilter,
    /// The container's own network namespace, at its start.
    Container,
    /// The libvirt network's `<dhcp><host>`.
    DhcpHost,
    /// A DHCP server: its acknowledgement, or dnsmasq's list of leases.
    Lease,
    /// The guest itself, by ARP or neighbour discovery.
    Neighbour,
    /// The host that it came from by a migration.
    Fabric,
}

impl Source {
    /// Was it told by what the guest or the fabric did, and not by who set the guest up?
    pub fn is_learned(self) -> bool {
        self >= Source::Lease
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Source::Manual => "manual",
            Source::Metadata => "metadata",
            Source::Nwfilter => "nwfilter",
            Source::Container => "container",
            Source::DhcpHost => "dhcp-host",
            Source::Lease => "lease",
            Source::Neighbour => "neighbour",
            Source::Fabric => "fabric",
        })
    }
}

/// A guest's address and who told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Who told it.
    pub source: Source,
    /// When a lease ends, in seconds since boot (CLOCK_BOOTTIME); `None` where it does not, or is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The guest has shown to route IPv6 by it: others are told so with it (RFC 4861 §4.4, the R flag).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub router: bool,
}

impl Address {
    /// One that does not end.
    pub fn new(ip: IpAddr, source: Source) -> Address {
        Address { ip, source, until: None, router: false }
    }
}

/// As it stands in a record; before addresses had sources it was the address alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Plain(IpAddr),
    Full {
        ip: IpAddr,
        source: Source,
        until: Option<u64>,
        #[serde(default)]
        router: bool,
    },
}

impl From<Written> for Address {
    fn from(written: Written) -> Address {
        match written {
            Written::Plain(ip) => Address::new(ip, Source::Metadata),
            Written::Full { ip, source, until, router } => Address { ip, source, until, router },
        }
    }
}

macro_rules! text_serde {
    ($($t:ty),+) => {$(
        impl TryFrom<String> for $t {
            type Error = BadValue;
            fn try_from(text: String) -> Result<Self, BadValue> { text.parse() }
        }
        impl From<$t> for String {
            fn from(value: $t) -> String { value.to_string() }
        }
    )+};
}

// ===== Vni =====

/// A VXLAN network identifier, 1 to 16777215 (RFC 7348 §5; zero is refused because FRR and the kernel give it other meanings).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The number on the wire.
    pub fn get(self) -> u32 {
        self.0
    }
    /// The name of this VNI's VXLAN device, `vxlan<VNI>`: at most 13 bytes, so always a valid [`IfName`].
    pub fn device(self) -> IfName {
        IfName(format!("vxlan{}", self.0))
    }
}

impl TryFrom<u32> for Vni {
    type Error = BadValue;
    fn try_from(value: u32) -> Result<Self, BadValue> {
        match value {
            1..=0xff_ffff => Ok(Vni(value)),
            _ => bad(format!("VNI {value} is out of range: use 1 to 16777215")),
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl FromStr for Vni {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.parse::<u32>() {
            Ok(value) => value.try_into(),
            Err(_) => bad(format!("VNI {} is not a number from 1 to 16777215", quoted(text))),
        }
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// ===== TableId =====

/// A kernel routing table for a VRF: 1 to 4294967295 without 253, 254, 255 (default, main and local in rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct TableId(u32);

impl TableId {
    /// The number the kernel knows.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for TableId {
    type Error = BadValue;
    fn try_from(value: u32) -> Result<Self, BadValue> {
        match value {
            0 => bad("routing table 0 is no table: use 1 or more".into()),
            253..=255 => bad(format!(
                "routing table {value} is one of the kernel's own (253 default, 254 main, 255 local): use another"
            )),
            _ => Ok(TableId(value)),
        }
    }
}

impl From<TableId> for u32 {
    fn from(table: TableId) -> u32 {
        table.0
    }
}

impl FromStr for TableId {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.parse::<u32>() {
            Ok(value) => value.try_into(),
            Err(_) => bad(format!("routing table {} is not a number from 1 to 4294967295", quoted(text))),
        }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// ===== Mac =====

/// A unicast Ethernet address that can belong to one guest: not multicast, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// The six bytes in wire order.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
    /// The link-local address that an interface makes of it (RFC 4291 §2.5.1 and appendix A, "modified EUI-64").
    pub fn link_local(self) -> Ipv6Addr {
        self.in_prefix([0xfe, 0x80, 0, 0, 0, 0, 0, 0])
    }
    /// The address that stateless autoconfiguration makes of it in a prefix of 64 bits (RFC 4862 §5.5.3).
    pub fn in_prefix(self, prefix: [u8; 8]) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&prefix);
        octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        octets.into()
    }
    /// A MAC from bytes that the kernel gave; `None` where no guest could have it.
    pub fn from_bytes(bytes: &[u8]) -> Option<Mac> {
        let octets: [u8; 6] = bytes.try_into().ok()?;
        (octets[0] & 1 == 0 && octets != [0; 6]).then_some(Mac(octets))
    }
}

impl FromStr for Mac {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        let mut octets = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|p| matches!(p.len(), 1 | 2) && p.bytes().all(|b| b.is_ascii_hexdigit()));
            match part.map(|p| u8::from_str_radix(p, 16)) {
                Some(Ok(value)) => *octet = value,
                _ => return bad(format!("MAC {} does not parse: write it as 52:54:00:03:82:d8", quoted(text))),
            }
        }
        if parts.next().is_some() {
            return bad(format!("MAC {} has more than six bytes", quoted(text)));
        }
        Mac::from_bytes(&octets).ok_or_else(|| {
            BadValue(format!("MAC {} is multicast or zero: use a unicast one, as 52:54:00:03:82:d8", quoted(text)))
        })
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// ===== IfName =====

/// A network device's name as the kernel takes it (net/core/dev.c `dev_valid_name`): 1 to 15 bytes, no `/`, `:` or space, not `.` or `..`;
/// here also printable ASCII without shell, FRR and XML metacharacters, so that it may stand in a file name or a vtysh line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// The longest name in bytes (IFNAMSIZ less the final zero).
    pub const MAX: usize = 15;
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The name of this VRF's L3VNI bridge, `<vrf>-l3`; an error where that would be over 15 bytes.
    pub fn l3_bridge(&self) -> Result<IfName, BadValue> {
        format!("{}-l3", self.0).parse().map_err(|_| {
            BadValue(format!("VRF name '{self}' is too long for its L3VNI bridge '{self}-l3': use at most 12 bytes"))
        })
    }
}

impl FromStr for IfName {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text.is_empty() || text.len() > Self::MAX {
            return bad(format!(
                "device name {} has {} bytes: the kernel takes 1 to {}",
                quoted(text),
                text.len(),
                Self::MAX
            ));
        }
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b'+');
        if !text.bytes().all(fine) || text.starts_with(['.', '-']) {
            return bad(format!(
                "device name {} has a character that is not a letter, digit or one of -_.@+ (or begins with - or .)",
                quoted(text)
            ));
        }
        Ok(IfName(text.to_owned()))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

// ===== NetName =====

/// The name of a network: what `virsh net-list` shows and `--network` takes. 1 to 128 bytes of anything printable;
/// it never becomes a path as it is (see `register::file_key`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetName(String);

impl NetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetName {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
            return bad(format!("network name {} is empty, over 128 bytes, or not printable: rename it", quoted(text)));
        }
        Ok(NetName(text.to_owned()))
    }
}

impl fmt::Display for NetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

text_serde!(Mac, IfName, NetName);

// ===== Guest =====

/// Who runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A libvirt domain; the id is its UUID.
    Libvirt,
    /// An LXC container; the id is its name.
    Lxc,
    /// `evpn-hook attach` by hand; the id is the name given, or the device's.
    Manual,
    /// A VM of Proxmox VE; the id is its number.
    Proxmox,
}

/// A VM or container. Two guests are the same if kind and id are; the name is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenGuest")]
pub struct Guest {
    /// Who runs it.
    pub kind: GuestKind,
    /// What people call it; may change (`virsh domrename`).
    pub name: String,
    /// What it is known by for life; bounded and printable, but not safe as a path.
    pub id: String,
}

/// As it stands in a record, which anything may have written.
#[derive(Deserialize)]
struct WrittenGuest {
    kind: GuestKind,
    name: String,
    id: String,
}

impl TryFrom<WrittenGuest> for Guest {
    type Error = BadValue;
    fn try_from(written: WrittenGuest) -> Result<Guest, BadValue> {
        Guest::new(written.kind, &written.name, &written.id)
    }
}

impl Guest {
    /// A guest with a bounded, printable name and id.
    pub fn new(kind: GuestKind, name: &str, id: &str) -> Result<Guest, BadValue> {
        for text in [name, id] {
            if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
                return bad(format!(
                    "guest name {} is empty, over 255 bytes, or not printable: rename it",
                    quoted(text)
                ));
            }
        }
        Ok(Guest { kind, name: name.to_owned(), id: id.to_owned() })
    }
    /// The same of any words: what cannot be a name is shown as one (escaped, cut), with why it is none. Who is on no network of ours may be called
    /// whatever the hypervisor takes.
    pub fn shown(kind: GuestKind, name: &str, id: &str) -> (Guest, Option<BadValue>) {
        let shown = |text: &str| {
            let line = one_line(if text.is_empty() { "?" } else { text });
            line.char_indices().take_while(|(at, c)| at + c.len_utf8() <= 255).map(|(_, c)| c).collect()
        };
        match Guest::new(kind, name, id) {
            Ok(guest) => (guest, None),
            Err(why) => (Guest { kind, name: shown(name), id: shown(id) }, Some(why)),
        }
    }
    /// The same guest, whatever it is called by now.
    pub fn is(&self, other: &Guest) -> bool {
        (self.kind, &self.id) == (other.kind, &other.id)
    }
}

impl GuestKind {
    /// As JSON and the command line say it.
    pub fn word(self) -> &'static str {
        match self {
            GuestKind::Libvirt => "libvirt",
            GuestKind::Lxc => "lxc",
            GuestKind::Manual => "manual",
            GuestKind::Proxmox => "proxmox",
        }
    }
}

impl Guest {
    /// What no other guest is called: `lxc/web`; a domain's is its name as well, for libvirt gives one once.
    pub fn full_name(&self) -> String {
        let what = if self.kind == GuestKind::Libvirt { &self.name } else { &self.id };
        format!("{}/{what}", self.kind.word())
    }

    /// Can a person mean it by this: its name, its id, or either behind its kind?
    pub fn is_called(&self, text: &str) -> bool {
        let bare = text.strip_prefix(self.kind.word()).and_then(|rest| rest.strip_prefix('/'));
        // In full only one is meant, whoever else has its name.
        let full = |bare: &str| bare == self.id || self.kind == GuestKind::Libvirt && bare == self.name;
        self.name == text || self.id == text || bare.is_some_and(full)
    }

    /// [`hazard`] in its name; the number of the user in front of a user's container's name is ours.
    pub fn hazard(&self) -> Option<char> {
        let name = match self.name.split_once('/') {
            Some((uid, name)) if self.kind == GuestKind::Lxc && uid.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &self.name,
        };
        hazard(name)
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            GuestKind::Libvirt | GuestKind::Proxmox => "vm",
            GuestKind::Lxc => "container",
            GuestKind::Manual => "guest",
        };
        write!(f, "{kind} {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_a_name_is_told() {
        for name in [
            "vm1",
            "Windows 10 (copy)",
            "web.example-1_a",
            "größe",
            "a,b@c+d=e",
            "..",
            "~",
            "%s",
            "{x}",
            "[1]",
            "R&D",
            "Bob's",
        ] {
            assert_eq!(hazard(name), None, "{name}");
        }
        for name in ["../x", "a;b", "$(x)", "`x`", "a|b", "a>b", "a\\b", "a\nb", "a\u{202e}b", "\u{7f}"] {
            assert!(hazard(name).is_some(), "{name:?}");
        }
        let of = |kind, name: &str| Guest::new(kind, name, name).unwrap().hazard();
        assert_eq!(of(GuestKind::Lxc, "1000/c1"), None);
        assert_eq!(of(GuestKind::Lxc, "1000/../c1"), Some('/'));
        assert_eq!(of(GuestKind::Lxc, "c1/x"), Some('/'));
        assert_eq!(of(GuestKind::Libvirt, "1000/c1"), Some('/'));
    }

    #[test]
    fn a_line_is_a_line_on_a_terminal_too() {
        assert_eq!(one_line("a\nb\u{1b}[2J\u{202e}c"), "a\\nb\\u{1b}[2J\\u{202e}c");
        assert_eq!(short_line(&"ä".repeat(601)).chars().count(), 601);
        assert_eq!(short_line("ä"), "ä");
    }
}
