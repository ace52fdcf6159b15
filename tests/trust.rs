//! What a review asks of a program that runs as root, and that can be told without a network: what is linked in, under which licences, from where, what
//! of it runs code when it is built; and how far the agent's unit lets it reach. SECURITY.md says the same in words.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Licences that need no more than their text beside the program (packaging/deb puts the list of crates there).
const LICENCES: [&str; 5] = ["Apache-2.0", "BSD-2-Clause", "MIT", "Unicode-3.0", "Zlib"];
/// Two versions of one crate are two places for one defect.
const TWICE: [(&str, &str); 1] =
    [("syn", "3 by clap_derive, serde_derive and thiserror-impl, 2 by zerocopy-derive; neither is in the program")];
/// These run code when evpn-hook is built: macros, and build scripts that ask the compiler what it can.
const MACROS: [&str; 4] = ["clap_derive", "serde_derive", "thiserror-impl", "zerocopy-derive"];
const BUILD_SCRIPTS: [&str; 12] = [
    "libc",
    "memoffset",
    "nix",
    "proc-macro2",
    "quote",
    "rustix",
    "serde",
    "serde_core",
    "serde_json",
    "thiserror",
    "zerocopy",
    "zmij",
];
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The packages of the release binaries, and what builds them; of the tests' own none.
fn linked() -> Vec<Value> {
    let host = Command::new("rustc").arg("-vV").output().expect("rustc");
    let host = String::from_utf8(host.stdout).expect("text");
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("its target").to_owned();
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", &host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let metadata: Value = serde_json::from_slice(&cargo.stdout).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
    let (mut found, mut next) = (BTreeSet::new(), vec![text(&metadata["resolve"]["root"])]);
    while let Some(id) = next.pop() {
        if found.insert(id.clone()) {
            let used = |dep: &Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
            next.extend(list(&nodes[&id]["deps"]).iter().filter(|dep| used(dep)).map(|dep| text(&dep["pkg"])));
        }
    }
    let packages: Vec<Value> =
        list(&metadata["packages"]).into_iter().filter(|package| found.contains(&text(&package["id"]))).collect();
    // A list that were empty would pass every test below.
    for expected in ["evpn-hook", "clap", "serde", "netlink-packet-route", "quick-xml"] {
        assert!(packages.iter().any(|package| package["name"] == expected), "{expected} is not among what is linked");
    }
    assert!(packages.iter().all(|package| package["name"] != "clap_mangen"), "the tests' own is not linked");
    packages
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text, not {value}")).to_owned()
}

fn called(package: &Value) -> String {
    format!("{} {}", text(&package["name"]), text(&package["version"]))
}

/// Does this SPDX expression leave a choice that needs none but these licences? An exception (`WITH`) only gives more leave.
fn allowed(expression: &str, licences: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let granted = any(&mut words, licences);
    granted && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words, licences: &[&str]) -> bool {
    let mut granted = all(words, licences);
    while words.next_if_eq(&"OR").is_some() {
        granted |= all(words, licences);
    }
    granted
}

fn all(words: &mut Words, licences: &[&str]) -> bool {
    let mut granted = one(words, licences);
    while words.next_if_eq(&"AND").is_some() {
        granted &= one(words, licences);
    }
    granted
}

fn one(words: &mut Words, licences: &[&str]) -> bool {
    let granted = match words.next() {
        Some("(") => {
            let granted = any(words, licences);
            words.next() == Some(")") && granted
        }
        Some(word) => licences.contains(&word),
        None => false,
    };
    if words.next_if_eq(&"WITH").is_some() {
        words.next();
    }
    granted
}

#[test]
fn spdx_expressions() {
    let by = |expression: &str| allowed(expression, &["MIT", "Apache-2.0", "Unicode-3.0"]);
    for fine in [
        "MIT",
        "MIT OR GPL-3.0-only",
        "GPL-3.0-only OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        "GPL-3.0-only AND BSD-3-Clause OR MIT",
    ] {
        assert!(by(fine), "{fine}");
    }
    for not in [
        "",
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "(MIT OR Apache-2.0) AND OpenSSL",
        "MIT/Apache-2.0",
        "MIT)",
        "(MIT",
        "MIT MIT",
    ] {
        assert!(!by(not), "{not}");
    }
}

#[test]
fn every_crate_has_a_licence_that_we_may_link() {
    let packages = linked();
    let bad: Vec<String> = packages
        .iter()
        .filter(|package| !allowed(package["license"].as_str().unwrap_or_default(), &LICENCES))
        .map(|package| format!("{}: {}", called(package), package["license"]))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// From crates.io by the checksum in Cargo.lock: nothing by git, no other registry, no patched copy.
#[test]
fn every_crate_comes_from_crates_io() {
    for package in linked().iter().filter(|package| package["name"] != "evpn-hook") {
        assert_eq!(package["source"], CRATES_IO, "{}", called(package));
    }
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).expect("Cargo.lock");
    for package in lock.split("[[package]]").skip(1).filter(|package| !package.contains("name = \"evpn-hook\"")) {
        assert!(
            package.contains(&format!("source = \"{CRATES_IO}\"")) && package.contains("\nchecksum = \""),
            "{package}"
        );
    }
}

#[test]
fn no_crate_is_there_twice() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked() {
        versions.entry(text(&package["name"])).or_default().push(text(&package["version"]));
    }
    let twice: Vec<&str> = versions.iter().filter(|(_, all)| all.len() > 1).map(|(name, _)| name.as_str()).collect();
    assert_eq!(twice, TWICE.map(|(name, _)| name), "{versions:#?}");
}

#[test]
fn no_other_crate_runs_code_when_it_is_built() {
    let packages = linked();
    let with = |kind: &str| -> Vec<String> {
        let has = |package: &&Value| {
            let targets = package["targets"].as_array().expect("targets");
            targets.iter().any(|target| target["kind"].as_array().expect("kinds").iter().any(|one| one == kind))
        };
        packages.iter().filter(has).map(|package| text(&package["name"])).collect::<BTreeSet<_>>().into_iter().collect()
    };
    assert_eq!(with("proc-macro"), MACROS);
    assert_eq!(with("custom-build"), BUILD_SCRIPTS);
}

/// systemd's own figure, 0 to 10: below 3 there is little left that the agent could do without.
#[test]
fn the_agents_unit_is_confined() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/evpn-agent.service");
    let Ok(told) = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager", unit]).output()
    else {
        println!("\nSKIP the_agents_unit_is_confined: there is no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&told.stdout);
    let figure = said.lines().find_map(|line| line.split("Overall exposure level for evpn-agent.service:").nth(1));
    let words = figure.unwrap_or_else(|| panic!("no figure: {said}{}", String::from_utf8_lossy(&told.stderr)));
    // In colour, where it likes.
    let exposure = words.split(|c: char| !c.is_ascii_digit() && c != '.').find(|word| word.contains('.'));
    let exposure: f64 = exposure.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no figure in {words:?}"));
    println!("\nexposure: {exposure}");
    assert!(exposure > 0.0 && exposure < 3.0, "{said}");
}
