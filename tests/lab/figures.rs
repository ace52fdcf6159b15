//! Figures that scenarios take: times, medians, tables.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Seconds from one time to another, negative where it was before.
pub fn signed(zero: Instant, at: Instant) -> f64 {
    at.saturating_duration_since(zero).as_secs_f64() - zero.saturating_duration_since(at).as_secs_f64()
}

pub fn milliseconds(seconds: f64) -> String {
    format!("{:.0}", seconds * 1e3)
}

pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a process here may have to wait for the one CPU until it can do what is due, or note a time: three scheduler ticks of
/// user-mode-linux (100 Hz).
pub const JITTER: Duration = Duration::from_millis(30);

/// Leaves a result beside the lab's logs.
pub fn keep(name: &str, contents: &str) {
    let out = PathBuf::from(std::env::var_os("EVPN_LAB_OUT").unwrap_or_else(|| "/tmp".into()));
    std::fs::write(out.join(name), contents).expect("the lab's output directory");
}
