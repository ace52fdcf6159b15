//! Pictures of figures: bars beside each other, and curves.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const COLOURS: [&str; 6] = ["#284", "#06c", "#c60", "#a3a", "#888", "#0aa"];

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='12'>
<rect width='{WIDTH}' height='{height}' fill='white'/>
<text x='12' y='20' font-weight='bold'>{title}</text>\n"
    )
}

/// A bar for each value, from above to below, each with its number and this unit.
pub fn bars(title: &str, unit: &str, values: &[(String, f64)]) -> String {
    const LEFT: f64 = 240.0;
    const STEP: f64 = 26.0;
    let top = values.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let mut out = open(40.0 + STEP * values.len() as f64, title);
    for (number, (word, value)) in values.iter().enumerate() {
        let (y, length) = (32.0 + STEP * number as f64, value / top * (WIDTH - LEFT - 90.0));
        let _ = writeln!(
            out,
            "<text x='{:.0}' y='{1:.0}' text-anchor='end'>{word}</text>\
             <rect x='{LEFT}' y='{y:.0}' width='{length:.1}' height='18' fill='{2}'/>\
             <text x='{3:.1}' y='{1:.0}'>{4} {unit}</text>",
            LEFT - 8.0,
            y + 13.0,
            COLOURS[0],
            LEFT + length + 6.0,
            short(*value)
        );
    }
    out + "</svg>\n"
}

/// A curve.
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Curves over one pair of axes that begin at nothing; the words say what they count.
pub fn curves(title: &str, across: &str, upwards: &str, curves: &[Curve]) -> String {
    const HEIGHT: f64 = 340.0;
    const LEFT: f64 = 70.0;
    let (right, ceiling, base) = (WIDTH - 20.0, 50.0, HEIGHT - 44.0);
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let last = all().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
    let top = all().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let x = |value: f64| LEFT + value / last * (right - LEFT);
    let y = |value: f64| base - value / top * (base - ceiling);
    let mut out = open(HEIGHT, title);
    for part in 0..=4 {
        let (across, upwards) = (last * f64::from(part) / 4.0, top * f64::from(part) / 4.0);
        let _ = writeln!(
            out,
            "<line x1='{LEFT}' x2='{right}' y1='{0:.1}' y2='{0:.1}' stroke='#ddd'/>\
             <text x='{1:.1}' y='{2:.1}' text-anchor='end'>{3}</text>\
             <text x='{4:.1}' y='{5:.1}' text-anchor='middle'>{6}</text>",
            y(upwards),
            LEFT - 6.0,
            y(upwards) + 4.0,
            short(upwards),
            x(across),
            base + 16.0,
            short(across)
        );
    }
    let _ = writeln!(
        out,
        "<text x='{right}' y='{:.0}' text-anchor='end'>{across}</text><text x='12' y='40'>{upwards}</text>",
        HEIGHT - 8.0
    );
    // A letter is some 7 wide.
    let mut legend = LEFT + 7.0 * upwards.chars().count() as f64;
    for (number, curve) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = curve.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        let _ = writeln!(
            out,
            "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2'/>\
             <text x='{legend:.0}' y='40' fill='{colour}'>{}</text>",
            points.join(" "),
            curve.name
        );
        legend += 7.0 * curve.name.chars().count() as f64 + 18.0;
    }
    out + "</svg>\n"
}

/// A number as a person reads it.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == v.trunc() => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
