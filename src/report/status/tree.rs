//! The report for people: VRF → network → guest, as lines of styled pieces. Pure.

use super::terminal::Look;
use super::{EndpointStatus, Mood, NetworkStatus, Remote, Status, Tenant, count, harmless, macs};
use crate::config::PortSecurity;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A column that one long name would make wider than this is not: that name's row alone is out of line.
const WIDEST: usize = 40;
/// So many other VTEPs are named; a fabric may have hundreds.
const VTEPS: usize = 8;

/// How a piece of a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Strong,
    Faint,
    Mood(Mood),
}

impl Style {
    /// Its SGR parameters (ECMA-48 §8.3.117): of the first eight colours, which every theme keeps readable.
    fn code(self) -> Option<&'static str> {
        match self {
            Style::Plain => None,
            Style::Strong => Some("1"),
            Style::Faint => Some("2"),
            Style::Mood(Mood::Good) => Some("32"),
            Style::Mood(Mood::Moving) => Some("36"),
            Style::Mood(Mood::Doubtful) => Some("33"),
            Style::Mood(Mood::Bad) => Some("31"),
        }
    }
}

/// Some text of one look. What is broken into lines is never broken within one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span(Style, String);

type Piece = Vec<Span>;

fn width(piece: &[Span]) -> usize {
    piece.iter().map(|Span(_, text)| text.width()).sum()
}

/// The signs that the tree is made of.
struct Marks {
    fork: &'static str,
    last: &'static str,
    bar: &'static str,
    more: &'static str,
}

const BOX: Marks = Marks { fork: "├─ ", last: "└─ ", bar: "│  ", more: "…" };
const ASCII: Marks = Marks { fork: "|- ", last: "`- ", bar: "|  ", more: "..." };
const NOTHING: &str = "   ";

/// The whole report, each line ended.
pub fn text(status: &Status, look: Look) -> String {
    lines(status, look).concat()
}

/// The same line by line.
pub fn lines(status: &Status, look: Look) -> Vec<String> {
    let mut tree = Tree::new(status, look);
    for tenant in status.tenants() {
        tree.tenant(&tenant);
    }
    for name in status.gone() {
        let head = vec![tree.span(Style::Strong, name.as_str()), Span(Style::Plain, ": ".into())];
        tree.flow(["", ""], vec![[head, vec![Span(Style::Mood(Mood::Bad), "gone".into())]].concat()], 0);
        tree.guests("", &status.endpoints_of(name), &[]);
    }
    if tree.out.is_empty() {
        let nothing = "no networks of evpn-hook's are up: 'virsh net-start NAME' or 'evpn-hook network up NAME'";
        tree.words(["", ""], Style::Plain, nothing);
    }
    tree.out
}

/// How wide the columns of guests' rows are.
struct Columns {
    guest: usize,
    device: usize,
    mac: usize,
    state: usize,
    /// The widest address.
    address: usize,
}

struct Tree<'a> {
    status: &'a Status,
    look: Look,
    marks: &'static Marks,
    columns: Columns,
    out: Vec<String>,
}

impl<'a> Tree<'a> {
    fn new(status: &'a Status, look: Look) -> Tree<'a> {
        let marks = if look.utf8 { &BOX } else { &ASCII };
        let none = Columns { guest: 0, device: 0, mac: 0, state: 0, address: 0 };
        let mut tree = Tree { status, look, marks, columns: none, out: Vec::new() };
        let rows: Vec<Row> = status.endpoints.iter().map(|e| tree.row(e)).collect();
        let widest = |of: &dyn Fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
        tree.columns = Columns {
            guest: widest(&|r| width(&r.guest)).min(WIDEST),
            device: widest(&|r| width(&r.device)),
            mac: widest(&|r| width(&r.mac)),
            state: widest(&|r| width(&r.state)),
            address: widest(&|r| r.addresses.iter().map(|a| width(a)).max().unwrap_or(0)),
        };
        tree
    }

    /// Foreign text as it may be shown.
    fn span(&self, style: Style, text: &str) -> Span {
        let text = harmless(text);
        Span(
            style,
            if self.look.utf8 { text } else { text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect() },
        )
    }

    fn tenant(&mut self, tenant: &Tenant) {
        let mut pieces = Vec::new();
        match tenant.vrf {
            None => pieces.push(vec![Span(Style::Plain, "layer 2 only".into())]),
            Some(vrf) => {
                let comma = |more: bool| Span(Style::Plain, if more { ",".into() } else { String::new() });
                let name = self.span(Style::Strong, vrf.name.as_str());
                pieces.push(vec![Span(Style::Plain, "VRF ".into()), name, comma(true)]);
                pieces.push(vec![Span(Style::Plain, format!("table {}", vrf.table)), comma(vrf.vni.is_some())]);
                pieces.extend(vrf.vni.map(|vni| vec![Span(Style::Plain, format!("L3VNI {vni}"))]));
            }
        }
        self.flow(["", ""], pieces, 1);
        for (number, network) in tenant.networks.iter().enumerate() {
            let prefix = if number + 1 == tenant.networks.len() {
                [self.marks.last, NOTHING]
            } else {
                [self.marks.fork, self.marks.bar]
            };
            self.network(prefix, network);
        }
    }

    fn network(&mut self, prefix: [&str; 2], network: &NetworkStatus) {
        let mood = Mood::of(network.state, &network.problems);
        let room = self.look.width.map_or(usize::MAX, |columns| columns.saturating_sub(20).max(8));
        let mut head = self.cut(vec![self.span(Style::Strong, network.name.as_str())], room);
        head.push(Span(Style::Plain, ": ".into()));
        head.push(Span(Style::Mood(mood), network.state.into()));
        head.push(Span(Style::Plain, ",".into()));
        let mut words = vec![format!("bridge {}", network.bridge), format!("VNI {}", network.vni)];
        words.extend(network.vtep.map(|vtep| format!("VTEP {vtep}")));
        let held = network.port_security != PortSecurity::Off;
        words.extend(held.then(|| format!("port security {}", network.port_security)));
        let last = words.len() - 1;
        let plain =
            |(number, word): (usize, String)| vec![Span(Style::Plain, if number == last { word } else { word + "," })];
        let mut pieces = vec![head];
        pieces.extend(words.into_iter().enumerate().map(plain));
        let endpoints = self.status.endpoints_of(&network.name);
        let below = !endpoints.is_empty() || !network.remotes.is_empty();
        let rest = format!("{}{}", prefix[1], if below { self.marks.bar } else { NOTHING });
        self.flow([prefix[0], &rest], pieces, 1);
        self.problems(&rest, mood, &network.problems);
        if !network.advice.is_empty() {
            let checks: Vec<&str> = network.advice.iter().map(|advice| advice.check).collect();
            let words = format!("advice: {} ('evpn-hook doctor -v')", checks.join(", "));
            self.words([&format!("{rest}~ "), &format!("{rest}  ")], Style::Faint, &words);
        }
        // Where they are a problem they stand among those.
        if !held && !network.foreign_ports.is_empty() {
            let ports: Vec<&str> = network.foreign_ports.iter().map(|port| port.device.as_str()).collect();
            let what = format!("no guest's: {}", ports.join(", "));
            self.words([&format!("{rest}  "), &format!("{rest}  ")], Style::Faint, &what);
        }
        self.guests(prefix[1], &endpoints, &network.remotes);
    }

    fn guests(&mut self, prefix: &str, endpoints: &[&EndpointStatus], remotes: &[Remote]) {
        for (number, endpoint) in endpoints.iter().enumerate() {
            let last = number + 1 == endpoints.len() && remotes.is_empty();
            let own = if last { [self.marks.last, NOTHING] } else { [self.marks.fork, self.marks.bar] };
            self.guest(own.map(|mark| format!("{prefix}{mark}")), endpoint);
        }
        if !remotes.is_empty() {
            let prefix = [self.marks.last, NOTHING].map(|mark| format!("{prefix}{mark}"));
            let mut shown: Vec<String> = remotes
                .iter()
                .take(VTEPS)
                .map(|remote| format!("{} at VTEP {}", macs(remote.macs, "none"), remote.vtep))
                .collect();
            if let Some(more) = remotes.get(VTEPS..).filter(|more| !more.is_empty()) {
                let sum = macs(more.iter().map(|remote| remote.macs).sum(), "0 MACs");
                shown.push(format!("{sum} at {} more", count(more.len(), "VTEP")));
            }
            let last = shown.len() - 1;
            let piece = |(number, text): (usize, String)| {
                vec![Span(Style::Faint, if number == last { text } else { text + "," })]
            };
            let label = vec![Span(Style::Faint, "elsewhere:".into())];
            let pieces = [label].into_iter().chain(shown.into_iter().enumerate().map(piece)).collect();
            self.flow([&prefix[0], &prefix[1]], pieces, 1);
        }
    }

    fn guest(&mut self, prefix: [String; 2], endpoint: &EndpointStatus) {
        let Row { guest, device, mac, state, addresses } = self.row(endpoint);
        let Columns { guest: a, device: b, mac: c, state: d, .. } = self.columns;
        let indent = prefix[0].width();
        let address_column = indent + a + b + c + d + 8;
        let [first, rest] = [prefix[0].as_str(), prefix[1].as_str()];
        let fits = self.look.width.is_none_or(|columns| address_column + self.columns.address <= columns);
        if fits {
            let guest = if self.look.width.is_some() { self.cut(guest, a) } else { guest };
            let mut row = vec![Span(Style::Faint, first.to_owned())];
            for (cell, wide) in [(guest, a), (device, b), (mac, c), (state, d)] {
                let padding = (wide + 2).saturating_sub(width(&cell)).max(2);
                row.extend(cell);
                row.push(Span(Style::Plain, " ".repeat(padding)));
            }
            let hanging = vec![
                Span(Style::Faint, rest.to_owned()),
                Span(Style::Plain, " ".repeat(address_column - rest.width())),
            ];
            self.fill(row, hanging, addresses, 2);
        } else {
            // A narrow terminal: one thing below the other.
            let room = self.look.width.unwrap_or(0).saturating_sub(indent + d + 2).max(8);
            let mut head = vec![Span(Style::Faint, first.to_owned())];
            head.extend(self.cut(guest, room));
            head.push(Span(Style::Plain, "  ".into()));
            head.extend(state);
            self.push(head);
            let hanging = format!("{rest}  ");
            self.flow([&hanging, &hanging], vec![device, mac], 2);
            self.flow([&hanging, &hanging], addresses, 2);
        }
        self.problems(rest, Mood::of(endpoint.state, &endpoint.problems), &endpoint.problems);
    }

    fn row(&self, endpoint: &EndpointStatus) -> Row {
        let shown = endpoint.guest.to_string();
        let kind = shown.strip_suffix(endpoint.guest.name.as_str()).unwrap_or_default();
        let source = |a: &crate::model::Address| {
            vec![Span(Style::Plain, a.ip.to_string()), Span(Style::Faint, format!(" ({})", a.source))]
        };
        let mood = Mood::of(endpoint.state, &endpoint.problems);
        Row {
            guest: vec![Span(Style::Plain, kind.to_owned()), self.span(Style::Strong, &endpoint.guest.name)],
            device: vec![self.span(Style::Plain, endpoint.device.as_str())],
            mac: vec![Span(Style::Plain, endpoint.mac.map_or("MAC unknown".to_owned(), |mac| mac.to_string()))],
            state: vec![Span(Style::Mood(mood), endpoint.state.to_owned())],
            addresses: endpoint.addresses.iter().map(source).collect(),
        }
    }

    fn problems(&mut self, prefix: &str, mood: Mood, problems: &[String]) {
        for problem in problems {
            self.words([&format!("{prefix}! "), &format!("{prefix}  ")], Style::Mood(mood), problem);
        }
    }

    fn words(&mut self, prefix: [&str; 2], style: Style, text: &str) {
        let words = text.split(' ').map(|word| vec![self.span(style, word)]).collect();
        self.flow(prefix, words, 1);
    }

    /// Pieces one after the other, and on new lines as the width asks; nothing where there are none.
    fn flow(&mut self, prefix: [&str; 2], pieces: Vec<Piece>, gap: usize) {
        let [first, rest] = prefix.map(|prefix| vec![Span(Style::Faint, prefix.to_owned())]);
        if !pieces.is_empty() {
            self.fill(first, rest, pieces, gap);
        }
    }

    fn fill(&mut self, first: Piece, rest: Piece, pieces: Vec<Piece>, gap: usize) {
        let (mut line, mut used, mut is_empty) = (first.clone(), width(&first), true);
        for piece in pieces {
            let wide = width(&piece);
            if !is_empty && self.look.width.is_some_and(|columns| used + gap + wide > columns) {
                self.push(std::mem::replace(&mut line, rest.clone()));
                (used, is_empty) = (width(&rest), true);
            }
            if !is_empty {
                line.push(Span(Style::Plain, " ".repeat(gap)));
                used += gap;
            }
            line.extend(piece);
            (used, is_empty) = (used + wide, false);
        }
        self.push(line);
    }

    /// At most so many columns of it.
    fn cut(&self, piece: Piece, room: usize) -> Piece {
        if width(&piece) <= room {
            return piece;
        }
        let mut left = room.saturating_sub(self.marks.more.width());
        let mut kept = Vec::new();
        for Span(style, text) in piece {
            let short = head(&text, left);
            left -= short.width();
            let whole = short.len() == text.len();
            kept.push(Span(style, if whole { text } else { format!("{short}{}", self.marks.more) }));
            if !whole {
                break;
            }
        }
        kept
    }

    fn push(&mut self, mut line: Vec<Span>) {
        while let Some(Span(_, text)) = line.last_mut() {
            text.truncate(text.trim_end().len());
            if !text.is_empty() {
                break;
            }
            line.pop();
        }
        let mut text = String::new();
        for Span(style, piece) in line {
            match style.code().filter(|_| self.look.colour && !piece.is_empty()) {
                Some(code) => text.extend(["\x1b[", code, "m", &piece, "\x1b[0m"]),
                None => text.push_str(&piece),
            }
        }
        self.out.push(text + "\n");
    }
}

struct Row {
    guest: Piece,
    device: Piece,
    mac: Piece,
    state: Piece,
    addresses: Vec<Piece>,
}

/// As much of the beginning as has room in so many columns.
fn head(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}
