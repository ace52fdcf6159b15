//! What the agent counts, and how it tells it: Prometheus' text format 0.0.4
//! (https://prometheus.io/docs/instrumenting/exposition_formats/). Pure: the time is an argument, and the text a value.
//!
//! No guest's name is in it: a tenant's networks are few and live long, guests come and go, and each label value is a series for ever.

use super::index::Key;
use crate::register::{GuestRecord, Stage};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Duration;

/// Seconds. A hook takes some 2 ms, and 5 s where vtysh does not answer.
const HOOK: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Seconds. FRR needs 60 ms at least; what is between the agent's questions nobody knows.
const ADVERTISED: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// So many kinds of hooks are told apart: libvirt's and LXC's are fewer, and what stands in a record is bounded here.
const KINDS: usize = 16;

/// Observations in buckets.
#[derive(Debug, Clone, PartialEq)]
struct Histogram {
    bounds: &'static [f64],
    /// Each observation once, in the first bucket that it fits into; the last is what is above all bounds.
    counts: Vec<u64>,
    /// In µs: a sum of fractions would gather their errors.
    sum: u128,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    fn put(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.counts[self.bounds.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += took.as_micros();
    }

    fn write(&self, out: &mut String, name: &str, labels: &[(&str, &str)]) {
        let mut below = 0;
        let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.counts) {
            below += count;
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            sample(out, &format!("{name}_bucket"), &labels, below);
        }
        sample(out, &format!("{name}_sum"), labels, self.sum as f64 / 1e6);
        sample(out, &format!("{name}_count"), labels, below);
    }
}

/// A guest as it was counted last.
#[derive(Debug, Default)]
struct Counted {
    endpoints: Vec<(String, Stage)>,
    /// The speaker said so when it was asked last.
    advertised: bool,
    /// When the hook began that was counted last, in µs since boot.
    hook: u64,
    /// That hook's guest is not known to be advertised yet.
    waits: bool,
}

/// What happened since the agent started. Each count only grows, as Prometheus wants it.
#[derive(Debug)]
pub struct Metrics {
    /// µs since boot: hooks that began before are history.
    since: u64,
    guests: HashMap<Key, Counted>,
    hooks: BTreeMap<String, Histogram>,
    advertised: Histogram,
    not_advertised: u64,
    mended: BTreeMap<&'static str, (u64, u64)>,
    /// Looks that failed.
    pub failed: u64,
    /// Addresses that were learned.
    pub learned: u64,
    /// Claims on addresses that were refused: another's, or too many.
    pub refused: u64,
    /// How often a guest was forbidden to take an address from others for a while.
    pub slowed: u64,
    /// How often FRR came back.
    pub comebacks: u64,
    /// How often events were lost, and all was looked at.
    pub lost: u64,
    /// How often this was asked for.
    pub scrapes: u64,
}

/// What is so at this moment, for which nothing is kept.
#[derive(Debug, Default)]
pub struct Now<'a> {
    /// The networks that are up.
    pub networks: Vec<&'a str>,
    /// Ports on which guests are listened to.
    pub ports: usize,
    /// Which of the speaker's daemons answer; none where there is no speaker.
    pub speaker: Vec<(&'a str, bool)>,
    /// The speaker was told all since it came, and took it.
    pub speaker_has_all: bool,
    /// Tasks that wait for their time.
    pub tasks: usize,
}

impl Now<'_> {
    fn speaks(&self) -> bool {
        !self.speaker.is_empty() && self.speaker.iter().all(|(_, up)| *up)
    }
}

impl Metrics {
    /// From now on: `since` is now, in µs since boot.
    pub fn new(since: u64) -> Metrics {
        Metrics {
            since,
            guests: HashMap::new(),
            hooks: BTreeMap::new(),
            advertised: Histogram::new(ADVERTISED),
            not_advertised: 0,
            mended: ["guest", "network", "everything"].map(|what| (what, (0, 0))).into(),
            failed: 0,
            learned: 0,
            refused: 0,
            slowed: 0,
            comebacks: 0,
            lost: 0,
            scrapes: 0,
        }
    }

    /// A guest's record, or that there is none any more. Has a hook registered it since it was seen last?
    pub fn guest(&mut self, key: &Key, record: Option<&GuestRecord>) -> bool {
        let Some(record) = record else {
            self.guests.remove(key);
            return false;
        };
        let counted = self.guests.entry(key.clone()).or_default();
        counted.endpoints = record.endpoints.iter().map(|e| (e.network.to_string(), e.stage)).collect();
        let Some(hook) = record.hook.as_ref().filter(|hook| hook.began > counted.hook) else { return false };
        counted.hook = hook.began;
        if hook.began < self.since {
            return false;
        }
        counted.advertised = false;
        // One that waits for a migration is advertised when it arrives, which is not the hook's doing.
        counted.waits = !record.endpoints.is_empty() && record.endpoints.iter().all(|e| e.stage == Stage::Registered);
        let waits = counted.waits;
        let known = self.hooks.len() < KINDS || self.hooks.contains_key(&hook.by);
        let by = if known { hook.by.as_str() } else { "other" };
        let histogram = self.hooks.entry(by.to_owned()).or_insert_with(|| Histogram::new(HOOK));
        histogram.put(Duration::from_micros(hook.took));
        waits
    }

    /// The speaker was asked for this guest; `now` in µs since boot.
    pub fn answered(&mut self, key: &Key, advertised: bool, now: u64) {
        let Some(counted) = self.guests.get_mut(key) else { return };
        counted.advertised = advertised;
        if advertised && std::mem::take(&mut counted.waits) {
            self.advertised.put(Duration::from_micros(now.saturating_sub(counted.hook)));
        }
    }

    /// The speaker was asked for the last time, and in vain.
    pub fn in_vain(&mut self, key: &Key) {
        self.not_advertised += 1;
        if let Some(counted) = self.guests.get_mut(key) {
            counted.waits = false;
        }
    }

    /// A look mended something, in so many steps.
    pub fn mended(&mut self, what: &'static str, steps: usize) {
        let (looks, all) = self.mended.entry(what).or_default();
        *looks += 1;
        *all += steps as u64;
    }

    /// All of it, as Prometheus reads it.
    pub fn text(&self, now: &Now) -> String {
        let mut out = String::with_capacity(4096);
        let o = &mut out;
        head(o, "evpn_agent_info", "gauge", "The agent that tells this.");
        sample(o, "evpn_agent_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.write_endpoints(o, now);
        head(o, "evpn_networks", "gauge", "Networks that are up on this host.");
        sample(o, "evpn_networks", &[], now.networks.len());
        head(o, "evpn_guests", "gauge", "Guests that are registered, or on their way to here.");
        sample(o, "evpn_guests", &[], self.guests.len());
        head(
            o,
            "evpn_hook_duration_seconds",
            "histogram",
            "How long the hooks took that registered guests, since the agent started.",
        );
        for (by, histogram) in &self.hooks {
            histogram.write(o, "evpn_hook_duration_seconds", &[("hook", by)]);
        }
        head(
            o,
            "evpn_hook_to_advertised_seconds",
            "histogram",
            "From a hook's start until the speaker was seen to advertise its guest.",
        );
        self.advertised.write(o, "evpn_hook_to_advertised_seconds", &[]);
        head(
            o,
            "evpn_not_advertised_total",
            "counter",
            "Guests that the speaker still did not advertise when it was asked for the last time.",
        );
        sample(o, "evpn_not_advertised_total", &[], self.not_advertised);
        head(o, "evpn_repairs_total", "counter", "Looks that found something missing and mended it.");
        for (what, (looks, _)) in &self.mended {
            sample(o, "evpn_repairs_total", &[("of", what)], *looks);
        }
        head(o, "evpn_repair_steps_total", "counter", "Steps that these took.");
        for (what, (_, steps)) in &self.mended {
            sample(o, "evpn_repair_steps_total", &[("of", what)], *steps);
        }
        if !now.speaker.is_empty() {
            head(o, "evpn_speaker_up", "gauge", "Does this daemon of the speaker take connections?");
            for (daemon, up) in &now.speaker {
                sample(o, "evpn_speaker_up", &[("daemon", daemon)], u8::from(*up));
            }
            head(
                o,
                "evpn_speaker_has_all",
                "gauge",
                "Is the speaker there, was it told all since it came, and did it take it?",
            );
            let all = now.speaker_has_all && now.speaks();
            sample(o, "evpn_speaker_has_all", &[], u8::from(all));
        }
        for (name, help, count) in [
            ("evpn_speaker_comebacks_total", "How often the speaker came back.", self.comebacks),
            ("evpn_agent_failures_total", "Looks that failed.", self.failed),
            ("evpn_agent_learned_total", "Addresses learned from guests and leases.", self.learned),
            ("evpn_agent_refused_claims_total", "Claims of guests on addresses that were refused.", self.refused),
            (
                "evpn_agent_slowed_guests_total",
                "How often a guest took an address again and again and may not for a while.",
                self.slowed,
            ),
            (
                "evpn_agent_events_lost_total",
                "How often kernel or file events were lost, and all was looked at.",
                self.lost,
            ),
            ("evpn_agent_scrapes_total", "How often this text was asked for.", self.scrapes),
        ] {
            head(o, name, "counter", help);
            sample(o, name, &[], count);
        }
        head(o, "evpn_agent_ports", "gauge", "Guests' ports that are listened on for addresses.");
        sample(o, "evpn_agent_ports", &[], now.ports);
        head(o, "evpn_agent_tasks", "gauge", "Things to look at that wait for their time.");
        sample(o, "evpn_agent_tasks", &[], now.tasks);
        out
    }

    fn write_endpoints(&self, out: &mut String, now: &Now) {
        let mut of: BTreeMap<&str, [usize; 4]> = now.networks.iter().map(|name| (*name, [0; 4])).collect();
        // What a speaker said that is gone does not hold any more.
        let speaks = now.speaks();
        for counted in self.guests.values() {
            for (network, stage) in &counted.endpoints {
                let state = match stage {
                    Stage::Incoming => 0,
                    Stage::Pending => 1,
                    Stage::Registered => 2 + usize::from(counted.advertised && speaks),
                };
                of.entry(network).or_default()[state] += 1;
            }
        }
        head(out, "evpn_endpoints", "gauge", "Guests' NICs by network and state.");
        for (network, counts) in of {
            for (state, count) in ["incoming", "pending", "registered", "advertised"].iter().zip(counts) {
                sample(out, "evpn_endpoints", &[("network", network), ("state", state)], count);
            }
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    out.push_str(name);
    for (n, (key, value)) in labels.iter().enumerate() {
        let _ = write!(out, "{}{key}=\"", if n == 0 { '{' } else { ',' });
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod test;
