//! The host as a picture for a wiki page: tenants, bridges, guests on the left; the other VTEPs on the right. Pure.
//!
//! Plain SVG 1.1 without scripts, links or fonts of its own. Colours stand at each element, for a page's filter may take style sheets out;
//! the sheet that is there gives the dark ones. No renderer says how wide its letters are, so widths are those of DejaVu's, which are wide.

use super::{EndpointStatus, Mood, NetworkStatus, Remote, Status, Tenant, count, harmless, macs};
use std::fmt::Write;
use unicode_width::UnicodeWidthChar;

/// So many guests of a network are drawn, so many of them as large cards; and so many other VTEPs.
const GUESTS: usize = 60;
const CARDS: usize = 8;
const VTEPS: usize = 8;
/// So many problems of a network are drawn.
const PROBLEMS: usize = 3;

/// Pixels between things, and inside of boxes.
const GAP: usize = 20;
const CARD: usize = 380;
const ROW: usize = 26;

/// What a text is written in.
#[derive(Clone, Copy)]
enum Font {
    Title,
    Name,
    Text,
    Mono,
}

impl Font {
    /// What a letter needs at most, in hundredths of a pixel: DejaVu's metrics, in hundredths of the size.
    fn advance(self, c: char) -> usize {
        let (size, [heavy, upper, lower]) = match self {
            Font::Title => (18, [111, 87, 73]),
            Font::Name => (13, [111, 87, 73]),
            Font::Text => (12, [101, 80, 65]),
            Font::Mono => (12, [60; 3]),
        };
        let most = match c {
            'W' | 'M' | 'm' | 'w' | '@' | '%' | '…' => heavy,
            c if c.is_ascii_uppercase() => upper,
            c if c.is_ascii() => lower,
            c => heavy * c.width().unwrap_or(0).max(1),
        };
        size * most
    }

    fn wide(self, text: &str) -> usize {
        text.chars().map(|c| self.advance(c)).sum::<usize>().div_ceil(100)
    }

    /// The text, or what of it has room, with an ellipsis.
    fn fit(self, text: &str, pixels: usize) -> String {
        if self.wide(text) <= pixels {
            return text.to_owned();
        }
        let mut left = (100 * pixels).saturating_sub(self.advance('…'));
        let fits = |c: &char| {
            let rest = left.checked_sub(self.advance(*c));
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        text.chars().take_while(fits).chain(['…']).collect()
    }

    fn attributes(self) -> &'static str {
        match self {
            Font::Title => r#"font-size="18" font-weight="bold""#,
            Font::Name => r#"font-size="13" font-weight="bold""#,
            Font::Text => r#"font-size="12""#,
            Font::Mono => r#"font-size="11.5" font-family="'DejaVu Sans Mono', Menlo, Consolas, monospace""#,
        }
    }
}

/// What a thing is drawn as: its name in the sheet and its colours, light and dark.
#[derive(Clone, Copy)]
enum Ink {
    Page,
    Host,
    Tenant,
    Box,
    Text,
    Faint,
    Wire,
    Tunnel,
    Chip,
    Mood(Mood),
}

const INKS: [Ink; 13] = [
    Ink::Page,
    Ink::Host,
    Ink::Tenant,
    Ink::Box,
    Ink::Text,
    Ink::Faint,
    Ink::Wire,
    Ink::Tunnel,
    Ink::Chip,
    Ink::Mood(Mood::Good),
    Ink::Mood(Mood::Moving),
    Ink::Mood(Mood::Doubtful),
    Ink::Mood(Mood::Bad),
];

impl Ink {
    /// Class; fill and stroke, light, then dark.
    fn colours(self) -> (&'static str, [&'static str; 2], [&'static str; 2]) {
        match self {
            Ink::Page => ("page", ["#f6f8fa", "none"], ["#0d1117", "none"]),
            Ink::Host => ("host", ["#ffffff", "#8c959f"], ["#161b22", "#6e7681"]),
            Ink::Tenant => ("tenant", ["#eef2f8", "#c5cedb"], ["#1c2430", "#39424e"]),
            Ink::Box => ("box", ["#ffffff", "#8c959f"], ["#0d1117", "#59636e"]),
            Ink::Text => ("text", ["#1f2328", "none"], ["#e6edf3", "none"]),
            Ink::Faint => ("faint", ["#57606a", "none"], ["#9da7b1", "none"]),
            Ink::Wire => ("wire", ["none", "#8c959f"], ["none", "#6e7681"]),
            Ink::Tunnel => ("tunnel", ["none", "#0550ae"], ["none", "#58a6ff"]),
            Ink::Chip => ("chip", ["#ddf0ff", "#0550ae"], ["#0c2d4d", "#58a6ff"]),
            Ink::Mood(Mood::Good) => ("good", ["#1a7f37", "none"], ["#3fb950", "none"]),
            Ink::Mood(Mood::Moving) => ("moving", ["#0550ae", "none"], ["#58a6ff", "none"]),
            Ink::Mood(Mood::Doubtful) => ("doubtful", ["#8a5a00", "none"], ["#e3a52f", "none"]),
            Ink::Mood(Mood::Bad) => ("bad", ["#cf222e", "none"], ["#ff7b72", "none"]),
        }
    }

    fn attributes(self) -> String {
        let (class, [fill, stroke], _) = self.colours();
        format!(r#"class="{class}" fill="{fill}" stroke="{stroke}""#)
    }

    fn sheet() -> String {
        let rule = |ink: Ink| {
            let (class, _, [fill, stroke]) = ink.colours();
            format!(".{class}{{fill:{fill};stroke:{stroke}}}")
        };
        format!("@media (prefers-color-scheme:dark){{{}}}", INKS.map(rule).concat())
    }
}

/// Text as XML may carry it.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in harmless(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[derive(Default)]
struct Canvas(String);

impl Canvas {
    fn rect(&mut self, ink: Ink, (x, y, wide, high): (usize, usize, usize, usize), round: usize) {
        let ink = ink.attributes();
        let _ = writeln!(self.0, r#"<rect {ink} x="{x}" y="{y}" width="{wide}" height="{high}" rx="{round}"/>"#);
    }

    fn text(&mut self, ink: Ink, font: Font, (x, y): (usize, usize), text: &str) {
        self.anchored("start", ink, font, (x, y), text);
    }

    fn anchored(&mut self, anchor: &str, ink: Ink, font: Font, (x, y): (usize, usize), text: &str) {
        let (ink, font, text) = (ink.attributes(), font.attributes(), escaped(text));
        let _ = writeln!(self.0, r#"<text {ink} {font} x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>"#);
    }

    /// Through these points.
    fn wire(&mut self, points: &[(usize, usize)]) {
        let _ = writeln!(self.0, r#"<polyline {} points="{}"/>"#, Ink::Wire.attributes(), joined(points));
    }

    fn tunnel(&mut self, points: &[(usize, usize)]) {
        let ink = Ink::Tunnel.attributes();
        let _ = writeln!(self.0, r#"<polyline {ink} stroke-dasharray="5 4" points="{}"/>"#, joined(points));
    }

    fn dot(&mut self, mood: Mood, (x, y): (usize, usize)) {
        let _ = writeln!(self.0, r#"<circle {} cx="{x}" cy="{y}" r="4.5"/>"#, Ink::Mood(mood).attributes());
    }

    /// What is drawn within has this as its tooltip, whole.
    fn group(&mut self, title: &str, draw: impl FnOnce(&mut Canvas)) {
        let _ = writeln!(self.0, "<g><title>{}</title>", escaped(title));
        draw(self);
        self.0.push_str("</g>\n");
    }
}

fn joined(points: &[(usize, usize)]) -> String {
    points.iter().map(|(x, y)| format!("{x},{y}")).collect::<Vec<_>>().join(" ")
}

/// Where things stand from left to right, by what the widest of them needs.
struct Columns {
    guests: usize,
    bus: usize,
    bridge: usize,
    bridge_wide: usize,
    /// The right edge of the host, on which its own VTEP sits.
    edge: usize,
    chip_wide: usize,
    remote: usize,
    remote_wide: usize,
    wide: usize,
}

impl Columns {
    fn of(status: &Status, host: &str) -> Columns {
        let networks = &status.networks;
        let widest = |of: &dyn Fn(&NetworkStatus) -> usize| networks.iter().map(of).max().unwrap_or(0);
        let bridge_wide = widest(&|n| {
            let name = Font::Name.wide(&harmless(n.name.as_str())) + Font::Text.wide(n.state) + 4 * GAP;
            name.max(Font::Mono.wide(&format!("bridge {}", n.bridge)) + 2 * GAP)
        });
        let bridge_wide = bridge_wide.clamp(170, 300);
        let chip_wide = widest(&|n| n.vtep.map_or(0, |v| Font::Mono.wide(&format!("VTEP {v}")))) + GAP;
        let remote_wide =
            widest(&|n| n.remotes.iter().map(|r| Font::Mono.wide(&format!("VTEP {}", r.vtep))).max().unwrap_or(0));
        let has_remotes = networks.iter().any(|n| !n.remotes.is_empty());
        let guests = 3 * GAP;
        let bus = guests + CARD + GAP;
        let bridge = bus + GAP;
        let band = bridge + bridge_wide + GAP;
        let edge =
            (band + 3 * GAP + chip_wide / 2).max(5 * GAP + Font::Title.wide(host) + Font::Text.wide(&about(status)));
        let remote = edge + chip_wide / 2 + 4 * GAP;
        let remote_wide = remote_wide.max(Font::Text.wide("12 VTEPs more")) + GAP + 4;
        let wide = if has_remotes { remote + remote_wide } else { edge + chip_wide / 2 } + GAP;
        Columns { guests, bus, bridge, bridge_wide, edge, chip_wide, remote, remote_wide, wide }
    }

    /// Where a tenant's frame ends.
    fn band(&self) -> usize {
        self.bridge + self.bridge_wide + GAP
    }
}

/// Draws it; `host` is what the host is called.
pub fn draw(status: &Status, host: &str) -> String {
    let host = &Font::Title.fit(&harmless(host), 500);
    let columns = Columns::of(status, host);
    let mut canvas = Canvas::default();
    let mut y = GAP + 62;
    for tenant in status.tenants() {
        y = draw_tenant(&mut canvas, &columns, status, &tenant, y) + GAP;
    }
    for name in status.gone() {
        let lost = status.endpoints_of(name).len();
        let text = format!("{}: the network is gone, {} left", harmless(name.as_str()), count(lost, "endpoint"));
        let text = Font::Text.fit(&text, columns.band() - 2 * GAP);
        canvas.text(Ink::Mood(Mood::Bad), Font::Text, (2 * GAP, y + 14), &text);
        y += ROW;
    }
    if status.networks.is_empty() && status.endpoints.is_empty() {
        canvas.text(Ink::Faint, Font::Text, (2 * GAP, y), "no networks of evpn-hook's are up");
        y += GAP;
    }
    let high = y + 2 * GAP + 10;
    let mut page = Canvas::default();
    let name = escaped(host);
    let _ = write!(
        page.0,
        r#"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" font-family="'DejaVu Sans', Verdana, 'Segoe UI', Helvetica, Arial, sans-serif" text-rendering="optimizeLegibility">
<title>EVPN on {name}</title>
<desc>{about}</desc>
<style type="text/css">{sheet}</style>
<g stroke-width="1.2">
"#,
        wide = columns.wide,
        sheet = Ink::sheet(),
        about = escaped(&about(status)),
    );
    page.rect(Ink::Page, (0, 0, columns.wide, high), 0);
    page.rect(Ink::Host, (GAP, GAP, columns.edge - GAP, y - GAP), 12);
    page.text(Ink::Text, Font::Title, (2 * GAP, GAP + 36), host);
    page.anchored("end", Ink::Faint, Font::Text, (columns.edge - GAP, GAP + 35), &about(status));
    page.0.push_str(&canvas.0);
    legend(&mut page, y + GAP + 6);
    page.0.push_str("</g>\n</svg>\n");
    page.0
}

/// In numbers.
fn about(status: &Status) -> String {
    let advertised = status.endpoints.iter().filter(|e| e.state == "advertised").count();
    format!(
        "{}, {}, {advertised} advertised",
        count(status.networks.len(), "network"),
        count(status.endpoints.len(), "endpoint")
    )
}

fn legend(page: &mut Canvas, y: usize) {
    let mut x = 2 * GAP;
    let moods = [
        (Mood::Good, "up, advertised"),
        (Mood::Moving, "registered, incoming"),
        (Mood::Doubtful, "with a problem"),
        (Mood::Bad, "down, failed"),
    ];
    for (mood, words) in moods {
        page.dot(mood, (x, y));
        page.text(Ink::Faint, Font::Text, (x + 10, y + 4), words);
        x += Font::Text.wide(words) + 3 * GAP / 2;
    }
}

/// Returns where it ends.
fn draw_tenant(canvas: &mut Canvas, columns: &Columns, status: &Status, tenant: &Tenant, top: usize) -> usize {
    let mut inside = Canvas::default();
    match tenant.vrf {
        Some(vrf) => {
            let name = format!("VRF {}", vrf.name);
            inside.text(Ink::Text, Font::Name, (columns.guests, top + 24), &name);
            let about = match vrf.vni {
                Some(vni) => format!("table {}, L3VNI {vni}", vrf.table),
                None => format!("table {}", vrf.table),
            };
            inside.text(Ink::Faint, Font::Text, (columns.guests + Font::Name.wide(&name) + 12, top + 24), &about);
        }
        None => inside.text(Ink::Faint, Font::Text, (columns.guests, top + 24), "layer 2 only"),
    }
    let mut y = top + 40;
    for network in &tenant.networks {
        y = draw_network(&mut inside, columns, network, &status.endpoints_of(&network.name), y) + GAP;
    }
    let left = 2 * GAP;
    canvas.rect(Ink::Tenant, (left, top, columns.band() - left, y - top), 8);
    canvas.0.push_str(&inside.0);
    y
}

/// How many pixels a stack of so many things needs.
fn stack(number: usize, high: usize, gap: usize) -> usize {
    (number * (high + gap)).saturating_sub(gap)
}

fn draw_network(
    canvas: &mut Canvas,
    columns: &Columns,
    network: &NetworkStatus,
    endpoints: &[&EndpointStatus],
    top: usize,
) -> usize {
    let shown = &endpoints[..endpoints.len().min(GUESTS)];
    let more = endpoints.len() - shown.len();
    let gap = if shown.len() > CARDS { 5 } else { 10 };
    let heights: Vec<usize> = shown.iter().map(|e| card_height(e, shown.len())).collect();
    let guests_high = heights.iter().map(|high| high + gap).sum::<usize>() + if more > 0 { ROW + gap } else { 0 };
    let guests_high = guests_high.saturating_sub(gap);
    let remotes = network.remotes.len().min(VTEPS) + usize::from(network.remotes.len() > VTEPS);
    let bridge_high = 70;
    let high = guests_high.max(stack(remotes, 42, 10)).max(bridge_high);
    let middle = top + high / 2;

    // Wires first, so that boxes lie on them.
    let mut y = middle - guests_high / 2;
    let mut ends = Vec::new();
    for card in &heights {
        ends.push(y + card / 2);
        y += card + gap;
    }
    if more > 0 {
        ends.push(y + ROW / 2);
    }
    for end in &ends {
        canvas.wire(&[
            (columns.guests + CARD, *end),
            (columns.bus, *end),
            (columns.bus, middle),
            (columns.bridge, middle),
        ]);
    }
    draw_tunnels(canvas, columns, network, middle);

    let mut y = middle - guests_high / 2;
    for (endpoint, card) in shown.iter().zip(&heights) {
        let place = (columns.guests, y, CARD, *card);
        canvas.group(&told(endpoint), |canvas| {
            canvas.rect(Ink::Box, place, 6);
            if shown.len() > CARDS { draw_row(canvas, endpoint, place) } else { draw_card(canvas, endpoint, place) }
        });
        y += card + gap;
    }
    if more > 0 {
        canvas.text(
            Ink::Faint,
            Font::Text,
            (columns.guests + 12, y + 17),
            &format!("and {}", count(more, "more endpoint")),
        );
    }
    if endpoints.is_empty() {
        canvas.text(Ink::Faint, Font::Text, (columns.guests, middle + 4), "no guests");
    }
    draw_bridge(canvas, columns, network, middle - bridge_high / 2, bridge_high);
    problems(canvas, columns, network, top + high)
}

fn card_height(endpoint: &EndpointStatus, of: usize) -> usize {
    match endpoint.problems.is_empty() {
        _ if of > CARDS => ROW,
        true => 64,
        false => 80,
    }
}

/// All of an endpoint, as a tooltip.
fn told(endpoint: &EndpointStatus) -> String {
    let mut parts = vec![format!("{}: {}", endpoint.guest, endpoint.state), endpoint.device.to_string()];
    parts.extend(endpoint.mac.map(|mac| mac.to_string()));
    parts.extend(endpoint.addresses.iter().map(|a| format!("{} ({})", a.ip, a.source)));
    parts.extend(endpoint.problems.iter().map(|problem| format!("! {problem}")));
    parts.join(" · ")
}

fn addresses(endpoint: &EndpointStatus) -> String {
    if endpoint.ips.is_empty() {
        return "no address known".into();
    }
    endpoint.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The name, and the state at the other end.
fn draw_head(canvas: &mut Canvas, endpoint: &EndpointStatus, (x, y): (usize, usize), name: &str, room: usize) {
    let mood = Mood::of(endpoint.state, &endpoint.problems);
    canvas.dot(mood, (x + 14, y - 4));
    canvas.anchored("end", Ink::Mood(mood), Font::Text, (x + CARD - 10, y), endpoint.state);
    canvas.text(Ink::Text, Font::Name, (x + 26, y), &Font::Name.fit(&harmless(name), room));
}

fn draw_card(canvas: &mut Canvas, endpoint: &EndpointStatus, (x, y, wide, _): (usize, usize, usize, usize)) {
    draw_head(canvas, endpoint, (x, y + 20), &endpoint.guest.to_string(), wide - 120);
    let mac = endpoint.mac.map_or("MAC unknown".to_owned(), |mac| mac.to_string());
    canvas.text(Ink::Faint, Font::Mono, (x + 26, y + 37), &format!("{}, {mac}", endpoint.device));
    let text = Font::Mono.fit(&addresses(endpoint), wide - 36);
    canvas.text(Ink::Text, Font::Mono, (x + 26, y + 54), &text);
    if let Some(problem) = endpoint.problems.first() {
        let mood = Mood::of(endpoint.state, &endpoint.problems);
        let text = Font::Text.fit(&format!("! {}", harmless(problem)), wide - 36);
        canvas.text(Ink::Mood(mood), Font::Text, (x + 26, y + 71), &text);
    }
}

/// One line, where there are many.
fn draw_row(canvas: &mut Canvas, endpoint: &EndpointStatus, (x, y, wide, _): (usize, usize, usize, usize)) {
    draw_head(canvas, endpoint, (x, y + 17), &endpoint.guest.name, 146);
    let text = Font::Mono.fit(&addresses(endpoint), wide - 176 - 90);
    canvas.text(Ink::Text, Font::Mono, (x + 178, y + 17), &text);
}

fn draw_bridge(canvas: &mut Canvas, columns: &Columns, network: &NetworkStatus, y: usize, high: usize) {
    let (x, wide) = (columns.bridge, columns.bridge_wide);
    let mood = Mood::of(network.state, &network.problems);
    canvas.rect(Ink::Box, (x, y, wide, high), 6);
    canvas.dot(mood, (x + 14, y + 18));
    canvas.anchored("end", Ink::Mood(mood), Font::Text, (x + wide - 10, y + 22), network.state);
    let room = wide - 50 - Font::Text.wide(network.state);
    canvas.text(Ink::Text, Font::Name, (x + 26, y + 22), &Font::Name.fit(&harmless(network.name.as_str()), room));
    canvas.text(Ink::Faint, Font::Mono, (x + 26, y + 41), &format!("bridge {}", network.bridge));
    canvas.text(Ink::Faint, Font::Mono, (x + 26, y + 58), &format!("VNI {}", network.vni));
}

/// From the bridge over the host's own VTEP to the others.
fn draw_tunnels(canvas: &mut Canvas, columns: &Columns, network: &NetworkStatus, middle: usize) {
    let Some(vtep) = network.vtep else { return };
    let (chip, chip_wide) = (columns.edge - columns.chip_wide / 2, columns.chip_wide);
    let bridge_end = columns.bridge + columns.bridge_wide;
    canvas.tunnel(&[(bridge_end, middle), (chip, middle)]);
    let shown = &network.remotes[..network.remotes.len().min(VTEPS)];
    let rest = &network.remotes[shown.len()..];
    let mut boxes: Vec<[String; 2]> =
        shown.iter().map(|r| [format!("VTEP {}", r.vtep), macs(r.macs, "no MAC")]).collect();
    if !rest.is_empty() {
        let sum = rest.iter().map(|r: &Remote| r.macs).sum();
        boxes.push([format!("{} more", count(rest.len(), "VTEP")), macs(sum, "no MAC")]);
    }
    let bus = chip + chip_wide + 2 * GAP;
    let first = middle - stack(boxes.len(), 42, 10) / 2;
    for number in 0..boxes.len() {
        let y = first + number * 52 + 21;
        canvas.tunnel(&[(chip + chip_wide, middle), (bus, middle), (bus, y), (columns.remote, y)]);
    }
    for (number, [name, macs]) in boxes.iter().enumerate() {
        let y = first + number * 52;
        canvas.rect(Ink::Chip, (columns.remote, y, columns.remote_wide, 42), 8);
        canvas.text(Ink::Text, Font::Mono, (columns.remote + 12, y + 18), name);
        canvas.text(Ink::Faint, Font::Text, (columns.remote + 12, y + 34), macs);
    }
    canvas.rect(Ink::Chip, (chip, middle - 14, chip_wide, 28), 8);
    canvas.anchored("middle", Ink::Text, Font::Mono, (columns.edge, middle + 4), &format!("VTEP {vtep}"));
}

/// Returns where they end.
fn problems(canvas: &mut Canvas, columns: &Columns, network: &NetworkStatus, mut y: usize) -> usize {
    let mood = Mood::of(network.state, &network.problems);
    for problem in network.problems.iter().take(PROBLEMS) {
        y += 18;
        let text = Font::Text.fit(&format!("! {}", harmless(problem)), columns.band() - columns.guests - GAP);
        canvas.text(Ink::Mood(mood), Font::Text, (columns.guests, y), &text);
    }
    if network.problems.len() > PROBLEMS {
        y += 18;
        let more = format!("and {}", count(network.problems.len() - PROBLEMS, "more problem"));
        canvas.text(Ink::Mood(mood), Font::Text, (columns.guests, y), &more);
    }
    y
}
