//! Pings around a migration as a picture: seconds around the resume to the right, round-trip time upwards, the lost ones as red
//! ticks on the baseline. One panel a run, one above the other, on one scale.

use std::fmt::Write;

/// Times are seconds after the resume.
pub struct Run {
    pub title: String,
    /// When it was sent, and its round-trip time in milliseconds unless it was lost.
    pub pings: Vec<(f64, Option<f64>)>,
    /// Vertical lines, each with its word.
    pub marks: Vec<(f64, String)>,
}

const WIDTH: f64 = 960.0;
const PANEL: f64 = 260.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
/// Above a panel's curve: its title and the marks' words.
const HEAD: f64 = 34.0;
const FOOT: f64 = 28.0;

/// The picture of all pings sent between `from` and `to`.
pub fn svg(runs: &[Run], from: f64, to: f64) -> String {
    let within = |at: f64| (from..=to).contains(&at);
    let rtts = runs.iter().flat_map(|run| &run.pings).filter(|(at, _)| within(*at)).filter_map(|(_, rtt)| *rtt);
    let top = rtts.fold(1.0, f64::max) * 1.05;
    let x = |at: f64| LEFT + (at - from) / (to - from) * (WIDTH - LEFT - RIGHT);
    let height = PANEL * runs.len() as f64;
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='11'>
<rect width='{WIDTH}' height='{height}' fill='white'/>\n"
    );
    for (number, run) in runs.iter().enumerate() {
        let head = PANEL * number as f64;
        let (ceiling, base) = (head + HEAD, head + PANEL - FOOT);
        let y = |rtt: f64| base - rtt / top * (base - ceiling);
        let _ = writeln!(out, "<text x='{LEFT}' y='{:.1}' font-weight='bold'>{}</text>", head + 14.0, run.title);
        for part in 0..=4 {
            let rtt = top * f64::from(part) / 4.0;
            let _ = writeln!(
                out,
                "<line x1='{LEFT}' x2='{:.1}' y1='{1:.1}' y2='{1:.1}' stroke='#ddd'/>\
                 <text x='{2:.1}' y='{3:.1}' text-anchor='end'>{rtt:.0} ms</text>",
                WIDTH - RIGHT,
                y(rtt),
                LEFT - 6.0,
                y(rtt) + 4.0
            );
        }
        let mut second = from.ceil();
        while second <= to {
            let _ = writeln!(
                out,
                "<line x1='{0:.1}' x2='{0:.1}' y1='{base:.1}' y2='{1:.1}' stroke='#888'/>\
                 <text x='{0:.1}' y='{2:.1}' text-anchor='middle'>{second} s</text>",
                x(second),
                base + 4.0,
                base + 18.0
            );
            second += 1.0;
        }
        // Words beside each other take turns in height.
        for (turn, (at, word)) in run.marks.iter().filter(|(at, _)| within(*at)).enumerate() {
            let _ = writeln!(
                out,
                "<line x1='{0:.1}' x2='{0:.1}' y1='{ceiling:.1}' y2='{base:.1}' stroke='#06c' stroke-dasharray='4 3'/>\
                 <text x='{1:.1}' y='{2:.1}' fill='#06c'>{word}</text>",
                x(*at),
                x(*at) + 3.0,
                ceiling + 10.0 + 13.0 * (turn % 6) as f64
            );
        }
        for (at, rtt) in run.pings.iter().filter(|(at, _)| within(*at)) {
            let _ = match rtt {
                Some(rtt) => writeln!(out, "<circle cx='{:.1}' cy='{:.1}' r='1.5' fill='#284'/>", x(*at), y(*rtt)),
                None => writeln!(
                    out,
                    "<line x1='{0:.1}' x2='{0:.1}' y1='{base:.1}' y2='{1:.1}' stroke='#d00' stroke-width='1.5'/>",
                    x(*at),
                    base - 12.0
                ),
            };
        }
    }
    out + "</svg>\n"
}
