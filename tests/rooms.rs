//! Who may import whom: data flows one way, and this keeps it so. docs/architecture.md shows the picture.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may know.
const RULES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("config", &["model", "tape"]),
    ("event", &["config", "model"]),
    ("input", &["config", "event", "model", "tape"]),
    ("plan", &["config", "model"]),
    ("advice", &["config", "model", "plan"]),
    ("kernel", &["fault", "model", "plan", "tape"]),
    ("exec", &[]),
    ("pace", &[]),
    ("tape", &[]),
    ("record", &["cli", "input", "tape"]),
    ("fault", &[]),
    ("hypervisor", &["config", "event", "input", "model"]),
    ("speaker", &["config", "exec", "model"]),
    ("register", &["config", "fault", "model", "speaker", "tape"]),
    ("guard", &["config", "exec", "model", "plan", "tape"]),
    ("journal", &["model", "plan"]),
    ("apply", &["config", "fault", "guard", "kernel", "plan", "speaker", "tape"]),
    ("install", &[]),
    (
        "engine",
        &[
            "advice",
            "apply",
            "config",
            "event",
            "guard",
            "hypervisor",
            "input",
            "journal",
            "kernel",
            "model",
            "plan",
            "register",
            "speaker",
            "tape",
        ],
    ),
    ("senses", &["kernel", "model"]),
    ("snoop", &["model"]),
    (
        "agent",
        &[
            "config",
            "door",
            "engine",
            "guard",
            "hypervisor",
            "input",
            "journal",
            "kernel",
            "model",
            "pace",
            "plan",
            "register",
            "senses",
            "snoop",
        ],
    ),
    ("door", &["config", "engine", "input", "journal", "kernel", "model", "pace", "plan", "register"]),
    (
        "checks",
        &["advice", "config", "engine", "exec", "install", "kernel", "model", "plan", "register", "snoop", "speaker"],
    ),
    (
        "report",
        &[
            "advice", "checks", "config", "engine", "journal", "kernel", "model", "plan", "register", "senses",
            "speaker",
        ],
    ),
    ("cli", &["model"]),
    (
        "untrusted",
        &[
            "cli",
            "config",
            "door",
            "event",
            "guard",
            "hypervisor",
            "input",
            "kernel",
            "model",
            "record",
            "register",
            "snoop",
            "speaker",
            "tape",
        ],
    ),
];

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The first path segment after each `crate::`, in grouped imports too.
fn imports(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines: Vec<&str> = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    lines.join("\n").split("crate::").skip(1).map(word).filter(|w| !w.is_empty()).collect()
}

#[test]
fn every_room_imports_only_what_it_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut rooms = BTreeSet::new();
    let mut broken = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if matches!(room.as_str(), "lib" | "main" | "bin") {
            continue;
        }
        let Some((_, allowed)) = RULES.iter().find(|(name, _)| *name == room) else {
            panic!("room {room} is new: say in tests/rooms.rs and docs/architecture.md what it may import");
        };
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            if import != room && !allowed.contains(&import.as_str()) {
                broken.push(format!("{} imports {import}", inside.display()));
            }
        }
        rooms.insert(room);
    }
    assert!(broken.is_empty(), "{broken:#?}");
    let ruled: BTreeSet<String> = RULES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(ruled, rooms, "rules without a room, or rooms without a rule");
}

#[test]
fn an_import_is_seen_in_every_spelling() {
    let seen = imports(
        "use crate::kernel::Kernel;\nlet x = crate::plan::Step;\n// crate::cli\n#[cfg(test)] use crate::report;",
    );
    assert_eq!(seen, ["kernel", "plan"].map(str::to_owned).into());
}

/// netlink belongs to the kernel room alone, FRR's sockets and vtysh to the speaker's, clap to the command line's.
#[test]
fn foreign_words_stay_in_their_rooms() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    for file in files {
        let inside = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        for (word, homes) in [
            ("netlink_packet_route", &["kernel/"][..]),
            ("netlink_sys", &["kernel/"]),
            ("\"vtysh\"", &["speaker/"]),
            ("\"nft\"", &["guard/", "checks/firewall/"]),
            ("quick_xml", &["input/"]),
            ("use clap", &["cli.rs", "main.rs", "bin/"]),
            ("socket2", &["snoop/", "kernel/events.rs"]),
            ("use nix", &["report/status/watch.rs", "checks/firewall/sandbox.rs"]),
            ("libc::", &["snoop/packet.rs"]),
        ] {
            let home = homes.iter().any(|h| inside.starts_with(h));
            assert!(home || !text.contains(word), "{inside} knows {word}, which is {homes:?}'s");
        }
    }
}

/// The crate denies unsafe code. The one file that is allowed some has it in one function, and says of each block why it is sound.
#[test]
fn unsafe_code_is_one_function() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let count = |word: &str| text.matches(word).count();
        let (allowed, blocks) = if file.ends_with("snoop/packet.rs") { (1, 2) } else { (0, 0) };
        let found = (count("allow(unsafe_code"), count("unsafe {") + count("unsafe fn") + count("unsafe impl"));
        assert_eq!(found, (allowed, blocks), "unsafe code in {}", file.display());
        assert_eq!(count("// SAFETY: "), blocks, "{}", file.display());
    }
    let manifest = fs::read_to_string(src.with_file_name("Cargo.toml")).unwrap();
    assert!(manifest.contains("[lints.rust]\nunsafe_code = \"deny\""), "Cargo.toml denies it in all that is built");
    for (file, lint) in [("lib.rs", "deny"), ("main.rs", "forbid"), ("bin/evpn-agent.rs", "forbid")] {
        assert!(fs::read_to_string(src.join(file)).unwrap().contains(&format!("#![{lint}(unsafe_code)]")), "{file}");
    }
}
