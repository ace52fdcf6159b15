//! What a figure was measured on and when: without it, it says nothing.

use super::sh;
use std::fs;

/// One line: processor, how many, memory, kernel, day.
pub fn words() -> String {
    let field = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':').map(|(_, value)| value.trim()));
        line.map(str::to_owned)
    };
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unnamed processor".to_owned());
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let kib = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{model}, {count} processor{}, {:.0} GiB; Linux {}; {}",
        if count == 1 { "" } else { "s" },
        kib.unwrap_or_default() / 1024.0 / 1024.0,
        kernel.trim(),
        sh("date -u +%F").trim()
    )
}
