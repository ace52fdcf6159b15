//! The agent's figures, asked for as Prometheus asks, and by callers who ask badly or not at all.

use crate::agent::{Agent, until};
use crate::common::sh;
use crate::host::{CONFIG, Host, neighbours, tap};
use crate::on_a_host;
use crate::xml::{domain, guest, interface};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const MAC: &str = "52:54:00:03:82:d8";
const PORT: &str = "127.0.0.1:9471";
const SOCKET: &str = "/run/metrics.sock";

fn config(at: &str) -> String {
    format!("{CONFIG}[agent]\nmetrics = \"{at}\"\n")
}

fn exchange(mut stream: impl Read + Write, question: &[u8]) -> (String, String) {
    stream.write_all(question).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.to_owned(), body.to_owned())
}

fn ask(question: &[u8]) -> (String, String) {
    let stream = TcpStream::connect(PORT).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    exchange(stream, question)
}

/// As Prometheus does.
const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9471\r\nUser-Agent: Prometheus/2.42.0\r\nAccept: text/plain;version=0.0.4\r\n\r\n";

fn scrape() -> String {
    let (head, body) = ask(GET);
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body
}

#[track_caller]
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in\n{text}")).parse().unwrap()
}

fn endpoints(text: &str, state: &str) -> f64 {
    value(text, &format!("evpn_endpoints{{network=\"flat\",state=\"{state}\"}}"))
}

fn host(at: &str) -> Host {
    let host = Host::new(&config(at));
    host.run(&["network", "up", "flat"]).ok();
    host
}

on_a_host!(figures_follow_guests_as_they_come_and_go, {
    let host = host(PORT);
    tap("vnet0");
    sh("ip link set vnet0 master flat-l2");
    let agent = Agent::start();
    let before = scrape();
    assert_eq!((value(&before, "evpn_networks"), value(&before, "evpn_guests")), (1.0, 0.0));
    assert_eq!(endpoints(&before, "registered"), 0.0);
    assert!(!before.contains("evpn_speaker_up"), "kind none is nobody to ask: {before}");

    let xml = domain(1, &guest(MAC, None, &["10.1.0.60"]), &interface(MAC, "vnet0", "flat-l2"));
    let start = Instant::now();
    host.hook(&["qemu", "vm1", "start", "begin", "-"], &xml).ok();
    let took = start.elapsed().as_secs_f64();
    assert_eq!(agent.hears(), "STATUS=watching 1 networks, 1 guests");
    until("the hook's time", || scrape().contains("evpn_hook_duration_seconds_count{hook=\"qemu start\"} 1\n"));
    let text = scrape();
    assert_eq!((endpoints(&text, "registered"), endpoints(&text, "advertised")), (1.0, 0.0));
    let sum = value(&text, "evpn_hook_duration_seconds_sum{hook=\"qemu start\"}");
    assert!(sum > 0.0 && sum <= took, "{sum} of {took} s");
    assert_eq!(value(&text, "evpn_hook_duration_seconds_bucket{hook=\"qemu start\",le=\"+Inf\"}"), 1.0);

    let repairs = |text: &str| value(text, "evpn_repairs_total{of=\"guest\"}");
    assert_eq!(repairs(&text), 0.0);
    sh("ip neigh del 10.1.0.60 dev flat-l2");
    until("the repair", || neighbours().contains("neigh 10.1.0.60 ") && repairs(&scrape()) == 1.0);
    assert_eq!(value(&scrape(), "evpn_repair_steps_total{of=\"guest\"}"), 1.0);

    host.hook(&["qemu", "vm1", "stopped", "end", "-"], &xml).ok();
    assert_eq!(agent.hears(), "STATUS=watching 1 networks, 0 guests");
    let after = scrape();
    assert_eq!((value(&after, "evpn_guests"), endpoints(&after, "registered")), (0.0, 0.0));
    assert_eq!(value(&after, "evpn_hook_duration_seconds_count{hook=\"qemu start\"}"), 1.0, "a count stays");
});

on_a_host!(who_asks_badly_is_told_so, {
    let _host = host(PORT);
    let _agent = Agent::start();
    for (question, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404 Not Found"),
        (b"GET /metrics\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\n\n", "400 Bad Request"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed"),
        (&[b'x'; 9000], "431 Request Header Fields Too Large"),
    ] {
        let (head, body) = ask(question);
        assert!(head.starts_with(&format!("HTTP/1.0 {status}\r\n")) && !body.contains("evpn_"), "{head}");
    }
    let (head, body) = ask(b"HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && body.is_empty(), "{head}");
    // In pieces, as a slow network would.
    let mut slow = TcpStream::connect(PORT).unwrap();
    slow.set_nodelay(true).unwrap();
    for piece in GET.chunks(7) {
        slow.write_all(piece).unwrap();
    }
    assert!(exchange(slow, b"").1.contains("evpn_networks 1\n"));
});

on_a_host!(who_is_silent_costs_nothing, {
    let host = host(PORT);
    tap("tap0");
    let agent = Agent::start();
    let _known = scrape();
    assert!(agent.sleeps(), "it waits for callers without waking up");
    // More than are served at the same time; and one who asks and never reads.
    let silent: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(PORT).unwrap()).collect();
    let mut deaf = TcpStream::connect(PORT).unwrap();
    deaf.write_all(GET).unwrap();
    let naps = agent.naps();
    let start = Instant::now();
    host.run(&["attach", "tap0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60"]);
    assert_eq!(agent.hears(), "STATUS=watching 1 networks, 1 guests");
    sh("ip neigh del 10.1.0.60 dev flat-l2");
    until("the neighbour", || neighbours().contains("neigh 10.1.0.60 "));
    assert!(start.elapsed() < Duration::from_secs(4), "they hold up nobody");
    // Queued behind them; they are dropped after 5 s each, all at the same time.
    assert_eq!(value(&scrape(), "evpn_guests"), 1.0);
    assert!(agent.naps() - naps < 1000, "{} times awake", agent.naps() - naps);
    for mut gone in silent.into_iter().take(8) {
        gone.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(gone.read(&mut [0; 16]).unwrap(), 0, "it was dropped");
    }
});

on_a_host!(the_place_is_config_tomls_and_changes_with_it, {
    let _host = host(PORT);
    let agent = Agent::start();
    let _there = scrape();
    std::fs::write("/run/config.toml", config(SOCKET)).unwrap();
    until("the socket", || UnixStream::connect(SOCKET).is_ok());
    assert!(TcpStream::connect(PORT).is_err(), "and no more at the port");
    let mode = std::fs::metadata(SOCKET).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    assert!(exchange(UnixStream::connect(SOCKET).unwrap(), GET).1.contains("evpn_networks 1\n"));
    drop(agent);
    assert!(
        UnixStream::connect(SOCKET).is_err() && std::fs::metadata(SOCKET).is_ok(),
        "a killed one leaves its socket"
    );
    let agent = Agent::start();
    assert!(exchange(UnixStream::connect(SOCKET).unwrap(), GET).1.contains("evpn_networks 1\n"));
    std::fs::write("/run/config.toml", CONFIG).unwrap();
    until("no socket", || std::fs::metadata(SOCKET).is_err());
    drop(agent);
    // What is no socket of ours stays, and the agent does its work without.
    std::fs::write(SOCKET, "precious").unwrap();
    std::fs::write("/run/config.toml", config(SOCKET)).unwrap();
    let _agent = Agent::start();
    assert_eq!(std::fs::read_to_string(SOCKET).unwrap(), "precious");
});
