//! Whatever arrives, cut anywhere or with any byte wrong: an answer, one line long, and a withdraw as soon as the UUID has come.

use evpn_hook::config::Config;
use evpn_hook::event::Event;
use evpn_hook::input::{InputError, libvirt_network, libvirt_qemu};
use std::path::Path;

fn golden(case: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/input");
    std::fs::read(folder.join(case).join("stdin.xml")).expect("the case has XML")
}

fn one_line(result: Result<Option<Event>, InputError>) -> Option<Event> {
    result.unwrap_or_else(|e| {
        let text = e.to_string();
        assert!(!text.chars().any(char::is_control) && text.len() < 600, "{text}");
        None
    })
}

#[test]
fn a_domain_cut_anywhere() {
    for case in ["sample-qemu-start", "qemu-two-nics"] {
        let xml = golden(case);
        let known = xml.windows(7).position(|w| w == b"</uuid>").expect("a UUID") + 7;
        for end in 0..xml.len() - 10 {
            let part = &xml[..end];
            assert_eq!(one_line(libvirt_qemu::read(&["vm", "start", "begin", "-"], part)), None, "{case} {end}");
            for op in ["stopped", "release", "migrate", "started"] {
                let event = one_line(libvirt_qemu::read(&["vm", op, "end", "-"], part));
                assert_eq!(event.is_some(), end >= known, "{case} {op} {end}");
            }
        }
    }
}

#[test]
fn a_domain_with_any_byte_wrong() {
    let xml = golden("qemu-two-nics");
    for at in 0..xml.len() {
        for byte in [b'<', b'>', b'&', b'\'', b' ', b'\n', 0, 0xff] {
            let mut noisy = xml.clone();
            noisy[at] = byte;
            for op in ["prepare", "reconnect", "stopped"] {
                one_line(libvirt_qemu::read(&["vm", op, "begin", "-"], &noisy));
            }
        }
    }
}

#[test]
fn a_network_cut_anywhere_still_stops() {
    let config = Config::default();
    let xml = golden("network-dual-stack");
    for end in 0..xml.len() {
        for op in ["start", "started", "updated", "port-created", "port-deleted"] {
            one_line(libvirt_network::read(&["red", op, "begin", "-"], &xml[..end], &config));
        }
        let stopped = libvirt_network::read(&["red", "stopped", "end", "-"], &xml[..end], &config);
        assert!(matches!(one_line(stopped), Some(Event::NetworkStopped { .. })), "{end}");
    }
}

#[test]
fn a_usual_domain_takes_no_time() {
    let xml = golden("sample-qemu-start");
    let started = std::time::Instant::now();
    for _ in 0..100 {
        one_line(libvirt_qemu::read(&["vm", "start", "begin", "-"], &xml));
    }
    // About 0.1 ms each without optimisation; the bound only catches a change of kind.
    assert!(started.elapsed().as_millis() < 2000, "{:?}", started.elapsed());
    eprintln!("{:?} a domain", started.elapsed() / 100);
}
