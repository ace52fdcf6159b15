//! What the fuzzers have found so far, fed to the same functions again: fuzz/corpora has a file a target, each input behind its length.

// libtest captures what eprintln! prints, and how many there were is part of the answer.
#![allow(clippy::explicit_write)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 8] = [
    ("config", evpn_hook::untrusted::config),
    ("frr", evpn_hook::untrusted::frr),
    ("lxc", evpn_hook::untrusted::lxc),
    ("network", evpn_hook::untrusted::network),
    ("proxmox", evpn_hook::untrusted::proxmox),
    ("qemu", evpn_hook::untrusted::qemu),
    ("state", evpn_hook::untrusted::state),
    ("wire", evpn_hook::untrusted::wire),
];
/// For one input, in a build without optimisation on a busy machine; each takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// A corpus has hundreds; fewer than this means that it was lost.
const FEWEST: usize = 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// `LENGTH:BYTES,` and a newline, again and again.
fn inputs(mut corpus: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !corpus.is_empty() {
        let colon = corpus.iter().position(|b| *b == b':').expect("a length");
        let length: usize = std::str::from_utf8(&corpus[..colon]).unwrap().parse().expect("a number");
        let (input, rest) = corpus[colon + 1..].split_at(length);
        found.push(input);
        corpus = rest.strip_prefix(b",\n").expect("the end of an input");
    }
    found
}

#[test]
fn what_the_fuzzers_found_is_read_again() {
    let told: Vec<String> = TARGETS
        .map(|(name, target)| {
            std::thread::spawn(move || {
                let corpus = std::fs::read(fuzz().join("corpora").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
                let inputs = inputs(&corpus);
                assert!(inputs.len() >= FEWEST, "{name}: only {} inputs", inputs.len());
                let mut longest = Duration::ZERO;
                for (number, input) in inputs.iter().enumerate() {
                    let began = Instant::now();
                    if std::panic::catch_unwind(|| target(input)).is_err() {
                        panic!("{name}: input {number}: {}", input.escape_ascii());
                    }
                    longest = longest.max(began.elapsed());
                    assert!(longest < PATIENCE, "{name}: input {number} took {longest:?}: {}", input.escape_ascii());
                }
                format!("{name} {} (longest {} ms)", inputs.len(), longest.as_millis())
            })
        })
        .map(|thread| thread.join().unwrap_or_else(|why| std::panic::resume_unwind(why)))
        .into();
    writeln!(std::io::stderr(), "corpora replayed: {}", told.join(", ")).unwrap();
}

/// Whoever adds a target adds it here, or it is fuzzed and never replayed.
#[test]
fn every_target_is_replayed() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let mut files: Vec<String> = std::fs::read_dir(fuzz().join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert_eq!(files, TARGETS.map(|(name, _)| name));
    for name in files {
        let source = std::fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("evpn_hook::untrusted::{name}(data)")), "{source}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not built");
    }
}

#[test]
fn a_corpus_is_cut_into_its_inputs() {
    assert_eq!(inputs(b"3:a,\n,\n0:,\n2:4:,\n"), [&b"a,\n"[..], b"", b"4:"]);
}
