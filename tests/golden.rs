//! Golden folders: each directory under tests/golden/<room>/ is one call, its `expected` file what comes out, word for word.
//! `UPDATE=1 cargo test --test golden` writes the files anew; read the difference before you commit it.
//!
//! tree, svg: `look`, a host of golden/hosts.rs and how it is shown.
//! input: `args` (one a line; `\n` stands for a newline), `stdin.xml` (a hook's, or one of libvirt's status files) or `env`, and perhaps `config.toml`.
//! config: `config.toml`.

use evpn_hook::config::{self, Config};
use evpn_hook::input::{libvirt_network, libvirt_qemu, libvirt_status, lxc};
use evpn_hook::report::status::{self, terminal::Look};
use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::path::Path;

#[path = "common/golden.rs"]
mod golden;
#[path = "golden/hosts.rs"]
mod hosts;

#[test]
fn input() {
    run("input", |case| {
        let text = read(case, "args").expect("every case has args");
        let args: Vec<String> = text.lines().map(|line| line.replace("\\n", "\n")).collect();
        let stdin = std::fs::read(case.join("stdin.xml")).unwrap_or_default();
        let (driver, rest) = args.split_first().expect("the first word is the driver");
        let refusal = |e: &evpn_hook::input::InputError| if e.may_refuse() { "refused: " } else { "reported: " };
        let shown = |result: Result<String, evpn_hook::input::InputError>| {
            result.unwrap_or_else(|e| format!("{}{e}\n", refusal(&e)))
        };
        match driver.as_str() {
            "qemu" => shown(libvirt_qemu::read(rest, &stdin).map(pretty)),
            "network" => shown(libvirt_network::read(rest, &stdin, &config_of(case)).map(pretty)),
            "network-status" => {
                let name = rest[0].parse().expect("the second word is a network");
                shown(libvirt_network::status(&name, &stdin, &config_of(case)).map(pretty))
            }
            "qemu-status" => shown(libvirt_status::read(&rest[0], &stdin).map(pretty)),
            "lxc" => {
                let env = read(case, "env").expect("an lxc case has env");
                let env: HashMap<&str, &str> = env.lines().filter_map(|line| line.split_once('=')).collect();
                let network = rest.first().map(|name| name.parse().unwrap());
                shown(lxc::read(network.as_ref(), &|key| env.get(key).map(ToString::to_string)).map(pretty))
            }
            other => panic!("{other} is no driver"),
        }
    });
}

#[test]
fn config() {
    run("config", |case| {
        let text = read(case, "config.toml").expect("every case has config.toml");
        config::parse(&text, "config.toml").map_or_else(line, pretty)
    });
}

#[test]
fn tree() {
    run("tree", |case| {
        let look = read(case, "look").expect("every case has a look");
        let (host, look) = look.trim().split_once(' ').expect("the first word is the host");
        let look = Look {
            width: look.split(' ').find_map(|word| word.parse().ok()),
            utf8: look.contains("utf8"),
            colour: look.contains("colour"),
        };
        status::tree::text(&hosts::named(host), look)
    });
}

#[test]
fn svg() {
    run("svg", |case| {
        let look = read(case, "look").expect("every case has a look");
        let (host, name) = look.trim_end_matches('\n').split_once(' ').expect("the host, and what it is called");
        status::svg::draw(&hosts::named(host), name)
    });
}

fn config_of(case: &Path) -> Config {
    read(case, "config.toml")
        .map_or_else(Config::default, |text| config::parse(&text, "config.toml").expect("its config is good"))
}

fn pretty(value: impl Debug) -> String {
    format!("{value:#?}\n")
}

fn line(error: impl Display) -> String {
    format!("{error}\n")
}

fn read(case: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(case.join(file)).ok()
}

fn run(room: &str, outcome: impl Fn(&Path) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(room);
    let mut cases: Vec<_> = std::fs::read_dir(&folder)
        .expect("the room has a folder")
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    let mut wrong = Vec::new();
    for case in cases {
        wrong.extend(golden::differs(&case.join("expected"), &outcome(&case)));
    }
    assert!(wrong.is_empty(), "{} of the cases differ:\n{}", wrong.len(), wrong.join("\n"));
}
