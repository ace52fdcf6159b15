use super::*;
use crate::model::{Guest, GuestKind};
use crate::register::{Endpoint, Hook};

fn key(n: u32) -> Key {
    format!("libvirt-{n}").into()
}

fn record(stage: Stage, hook: Option<(u64, u64)>) -> GuestRecord {
    let endpoint = Endpoint {
        network: "red".parse().unwrap(),
        bridge: "red-l2".parse().unwrap(),
        device: "vnet0".parse().unwrap(),
        mac: Some("52:54:00:00:00:01".parse().unwrap()),
        ips: Vec::new(),
        enslaved: false,
        stage,
        port_security: crate::config::PortSecurity::Off,
        index: None,
        taken: Vec::new(),
        slowed: Vec::new(),
        beside: Vec::new(),
    };
    let hook = hook.map(|(began, took)| Hook { by: "qemu start".to_owned(), began, took });
    GuestRecord {
        endpoints: vec![endpoint],
        hook,
        ..GuestRecord::new(Guest::new(GuestKind::Libvirt, "x", "vm").unwrap())
    }
}

fn now(up: bool) -> Now<'static> {
    Now {
        networks: vec!["red", "blue"],
        ports: 3,
        speaker: vec![("zebra", true), ("bgpd", up)],
        speaker_has_all: true,
        ..Now::default()
    }
}

/// The value of one sample; what is not there fails.
fn value(text: &str, sample: &str) -> f64 {
    let found: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')).collect();
    assert_eq!(found.len(), 1, "{sample} in\n{text}");
    found[0].parse().unwrap()
}

#[test]
fn endpoints_are_counted_by_network_and_state() {
    let mut metrics = Metrics::new(0);
    metrics.guest(&key(1), Some(&record(Stage::Incoming, None)));
    metrics.guest(&key(2), Some(&record(Stage::Registered, None)));
    metrics.guest(&key(3), Some(&record(Stage::Registered, None)));
    metrics.guest(&key(4), Some(&record(Stage::Pending, None)));
    metrics.answered(&key(3), true, 1);
    let of = |text: &str| {
        ["incoming", "pending", "registered", "advertised"]
            .map(|state| value(text, &format!("evpn_endpoints{{network=\"red\",state=\"{state}\"}}")))
    };
    let text = metrics.text(&now(true));
    assert_eq!(of(&text), [1.0, 1.0, 1.0, 1.0]);
    assert_eq!(value(&text, "evpn_endpoints{network=\"blue\",state=\"advertised\"}"), 0.0, "an empty one is told, too");
    assert_eq!(of(&metrics.text(&now(false))), [1.0, 1.0, 2.0, 0.0], "what a dead bgpd said is worth nothing");
    let has_all = |up| value(&metrics.text(&now(up)), "evpn_speaker_has_all");
    assert_eq!((has_all(true), has_all(false)), (1.0, 0.0));
    metrics.guest(&key(3), None);
    assert_eq!(of(&metrics.text(&now(true))), [1.0, 1.0, 1.0, 0.0]);
}

#[test]
fn a_hook_is_counted_once_and_its_guest_when_it_is_advertised() {
    let mut metrics = Metrics::new(1_000_000);
    let waits = |metrics: &mut Metrics, n, stage, hook| metrics.guest(&key(n), Some(&record(stage, hook)));
    assert!(!waits(&mut metrics, 1, Stage::Registered, Some((999_999, 3000))), "before the agent's time");
    assert!(waits(&mut metrics, 2, Stage::Registered, Some((1_000_000, 3000))));
    assert!(!waits(&mut metrics, 2, Stage::Registered, Some((1_000_000, 3000))), "the same record again");
    assert!(!waits(&mut metrics, 3, Stage::Incoming, Some((1_000_001, 700))), "somewhere else still");
    metrics.answered(&key(2), false, 1_030_000);
    metrics.answered(&key(2), true, 1_080_000);
    metrics.answered(&key(2), true, 9_000_000);
    let text = metrics.text(&now(true));
    let hook =
        |le: &str| value(&text, &format!("evpn_hook_duration_seconds_bucket{{hook=\"qemu start\",le=\"{le}\"}}"));
    assert_eq!(["0.001", "0.0025", "0.005", "5", "+Inf"].map(hook), [1.0, 1.0, 2.0, 2.0, 2.0]);
    assert_eq!(value(&text, "evpn_hook_duration_seconds_sum{hook=\"qemu start\"}"), 0.0037);
    assert_eq!(value(&text, "evpn_hook_to_advertised_seconds_count"), 1.0);
    assert_eq!(value(&text, "evpn_hook_to_advertised_seconds_bucket{le=\"0.05\"}"), 0.0);
    assert_eq!(value(&text, "evpn_hook_to_advertised_seconds_bucket{le=\"0.1\"}"), 1.0);
    assert!(waits(&mut metrics, 2, Stage::Registered, Some((2_000_000, 3000))), "it started again");
    metrics.in_vain(&key(2));
    metrics.answered(&key(2), true, 600_000_000);
    let text = metrics.text(&now(true));
    assert_eq!(value(&text, "evpn_not_advertised_total"), 1.0);
    assert_eq!(value(&text, "evpn_hook_to_advertised_seconds_count"), 1.0, "what nobody watched has no time");
}

#[test]
fn kinds_of_hooks_are_bounded() {
    let mut metrics = Metrics::new(0);
    for n in 0..100 {
        let mut record = record(Stage::Registered, Some((1, 1)));
        record.hook.iter_mut().for_each(|hook| hook.by = format!("kind {n}"));
        metrics.guest(&key(n), Some(&record));
    }
    assert_eq!(metrics.hooks.len(), KINDS + 1);
    assert_eq!(value(&metrics.text(&now(true)), "evpn_hook_duration_seconds_count{hook=\"other\"}"), 84.0);
}

/// promtool's rules, as far as they can be seen in the text: https://prometheus.io/docs/instrumenting/exposition_formats/
#[test]
fn the_text_is_well_formed() {
    let mut metrics = Metrics::new(0);
    let mut odd = record(Stage::Registered, Some((1, 2500)));
    odd.hook.iter_mut().for_each(|hook| hook.by = "a\"b\\c\nd".to_owned());
    metrics.guest(&key(1), Some(&odd));
    metrics.mended("guest", 3);
    let text = metrics.text(&now(true));
    assert!(text.ends_with('\n') && !text.contains("\n\n"));
    assert!(text.contains(r#"hook="a\"b\\c\nd","#), "{text}");
    let mut known: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(!known.iter().any(|(n, _)| n == name), "{name} twice");
            known.push((name.to_owned(), kind.to_owned()));
        } else if !line.starts_with("# HELP ") {
            let (name, value) = (line.split(['{', ' ']).next().unwrap(), line.rsplit(' ').next().unwrap());
            let (family, kind) = known.last().unwrap();
            let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} below {family}"));
            assert!(
                if kind == "histogram" { ["_bucket", "_sum", "_count"].contains(&suffix) } else { suffix.is_empty() },
                "{line}"
            );
            assert!(kind != "counter" || name.ends_with("_total"), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
