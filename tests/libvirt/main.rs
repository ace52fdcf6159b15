//! Every domain and network of libvirt's own test suite, read by us and by libvirt: nothing panics, and both see the same interfaces.
//!
//! libvirt's reading is real libvirt: `virsh` on its test driver, which parses any domain and network with libvirt's own parser and prints what it
//! understood; and where its test suite has the output that it expects of a file, that one. Either is read here line by line, as libvirt
//! prints it, without an XML parser; `virsh domiflist` has libvirt itself list the same once more.

// libtest captures what eprintln! prints, and a skip or a count must be seen.
#![allow(clippy::explicit_write)]

mod printed;
mod virsh;

use evpn_hook::config::Config;
use evpn_hook::event::Event;
use evpn_hook::input::{inspect, libvirt_network, libvirt_qemu, libvirt_status};
use printed::Printed;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use virsh::Virsh;

/// Kinds of what happened, with how often and one file of each.
#[derive(Default)]
struct Counts(BTreeMap<String, (usize, String)>);

impl Counts {
    fn add(&mut self, kind: impl Into<String>, file: &Path) {
        let name = || file.iter().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect::<PathBuf>();
        self.0.entry(kind.into()).or_insert_with(|| (0, name().display().to_string())).0 += 1;
    }

    fn sum(&self) -> usize {
        self.0.values().map(|(count, _)| count).sum()
    }
}

#[derive(Default)]
struct Outcome {
    files: BTreeMap<&'static str, usize>,
    panics: Counts,
    refused: Counts,
    compared: Counts,
    disagreements: Counts,
    excluded: Counts,
    unparsed: Counts,
    interfaces: usize,
}

#[test]
fn libvirts_own_data_of_bookworm_is_read_as_libvirt_reads_it() {
    read_as_libvirt_reads_it("bookworm");
}

/// The test driver is this machine's all the same: what an older libvirt does not know, it refuses or passes over.
#[test]
fn libvirts_own_data_of_trixie_is_read_as_libvirt_reads_it() {
    read_as_libvirt_reads_it("trixie");
}

fn read_as_libvirt_reads_it(suite: &str) {
    let Some(data) = fetched(suite) else { return };
    let Ok(mut virsh) = Virsh::start() else {
        return tell(&format!("SKIP {}: there is no virsh (libvirt-clients)", name(suite)));
    };
    let mut files = Vec::new();
    xml_files(&data, &mut files);
    files.sort();
    let mut outcome = Outcome::default();
    for file in &files {
        let xml = std::fs::read(file).unwrap();
        match root(&xml) {
            "domain" => domain(file, &xml, &files, &mut virsh, &mut outcome),
            "network" => network(file, &xml, &files, &mut virsh, &mut outcome),
            "domstatus" => status(file, &xml, &mut outcome),
            _ => {
                // Whatever else is in there must not hurt, either.
                *outcome.files.entry("others").or_default() += 1;
                unharmed(file, &xml, &mut outcome);
            }
        }
    }
    let text = outcome.text(data.file_name().unwrap().to_str().unwrap());
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/test/libvirt-{suite}.txt"));
    std::fs::create_dir_all(table.parent().unwrap()).unwrap();
    std::fs::write(table, &text).unwrap();
    tell(&text);
    assert!(outcome.panics.0.is_empty() && outcome.disagreements.0.is_empty(), "{text}");
    // A check that compared nothing would pass, too.
    let (domains, networks) = (outcome.files["domains"], outcome.files["networks"]);
    assert!(domains > 1000 && networks > 100 && outcome.compared.sum() > domains && outcome.interfaces > 500, "{text}");
}

/// The test's.
fn name(suite: &str) -> String {
    format!("libvirts_own_data_of_{suite}_is_read_as_libvirt_reads_it")
}

/// The directory with libvirt's tests, as that suite of Debian's has them; `None` is told.
fn fetched(suite: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libvirt/fetch");
    let output = Command::new(script).arg(suite).stdin(Stdio::null()).output().expect("bash");
    if output.status.success() {
        return Some(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()));
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let why = words.lines().find(|line| !line.is_empty()).unwrap_or("no network?");
    tell(&format!("SKIP {}: libvirt's source package cannot be fetched: {why}", name(suite)));
    None
}

/// Past libtest's capture.
fn tell(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

fn xml_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            xml_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "xml") && path.exists() {
            found.push(path);
        }
    }
}

/// The root element's name.
fn root(xml: &[u8]) -> &str {
    let text = std::str::from_utf8(xml).unwrap_or_default();
    let mut rest = text;
    while let Some((_, tag)) = rest.split_once('<') {
        rest = match tag {
            tag if tag.starts_with("!--") => tag.split_once("-->").map_or("", |(_, rest)| rest),
            tag if tag.starts_with(['!', '?']) => tag.split_once('>').map_or("", |(_, rest)| rest),
            tag => return tag.split(|c: char| c.is_whitespace() || c == '>' || c == '/').next().unwrap_or_default(),
        };
    }
    ""
}

/// All readers of libvirt's XML; a panic is counted.
fn unharmed(file: &Path, xml: &[u8], outcome: &mut Outcome) {
    let read = || {
        for op in ["prepare", "start", "started", "reconnect", "stopped", "release", "migrate"] {
            one_line(libvirt_qemu::read(&["x", op, "begin", "-"], xml));
        }
        for op in ["start", "started", "updated", "port-created", "port-deleted", "stopped"] {
            one_line(libvirt_network::read(&["x", op, "begin", "-"], xml, &Config::default()));
        }
        one_line(libvirt_status::read("x", xml));
        one_line(inspect::domain(xml));
        one_line(inspect::network(xml));
    };
    if catch_unwind(read).is_err() {
        outcome.panics.add("panic", file);
    }
}

fn one_line<T>(read: Result<T, impl std::fmt::Display>) -> Option<T> {
    read.inspect_err(|e| assert!(!e.to_string().contains('\n'), "{e}")).ok()
}

fn domain(file: &Path, xml: &[u8], files: &[PathBuf], virsh: &mut Virsh, outcome: &mut Outcome) {
    *outcome.files.entry("domains").or_default() += 1;
    unharmed(file, xml, outcome);
    let ours = match inspect::domain(xml) {
        Ok(ours) => ours,
        Err(why) => return outcome.unparsed.add(why.to_string(), file),
    };
    // What a hook takes are the interfaces that may be on a bridge, and only those.
    if ours.uuid.is_some() {
        let usable = ours.interfaces.iter().filter(|i| ["network", "bridge", "ethernet"].contains(&i.kind.as_str()));
        match libvirt_qemu::read(&["x", "start", "begin", "-"], xml) {
            Ok(Some(Event::Guest { nics, .. })) if nics.len() == usable.count() => {}
            other => outcome.disagreements.add(format!("the hook reads {other:?}"), file),
        }
    }
    for expected in expected(file, files) {
        let printed = Printed::domain(&std::fs::read_to_string(&expected).unwrap());
        compare(&ours, &printed, &expected, "with the output that libvirt's tests expect", outcome);
        same(&printed, &expected, &std::fs::read(&expected).unwrap(), outcome);
    }
    match virsh.domain(file) {
        Ok((text, listed)) => {
            let printed = Printed::domain(&text);
            compare(&ours, &printed, file, "with libvirt's own reading (test driver)", outcome);
            same(&printed, file, text.as_bytes(), outcome);
            let short: Vec<_> = printed.interfaces.iter().map(Printed::listed).collect();
            if short != listed {
                outcome.disagreements.add(format!("virsh domiflist lists {listed:?}, its dumpxml has {short:?}"), file);
            }
        }
        Err(why) => outcome.refused.add(why, file),
    }
}

/// What libvirt printed itself is read exactly as it is.
fn same(printed: &Printed, file: &Path, xml: &[u8], outcome: &mut Outcome) {
    outcome.compared.add("libvirt's output, read again: every field of every interface", file);
    match inspect::domain(xml) {
        Ok(ours) if ours.interfaces == printed.interfaces && ours.name == printed.name && ours.uuid == printed.uuid => {
        }
        other => outcome.disagreements.add(format!("libvirt's output {printed:?} is read as {other:?}"), file),
    }
}

/// What somebody wrote, against what libvirt made of it.
fn compare(ours: &inspect::Domain, libvirts: &Printed, file: &Path, how: &str, outcome: &mut Outcome) {
    outcome.compared.add(format!("domains, {how}"), file);
    outcome.interfaces += libvirts.interfaces.len();
    let mut wrong = |what: String| outcome.disagreements.add(what, file);
    if ours.name != libvirts.name {
        wrong(format!("name: {:?} and {:?}", ours.name, libvirts.name));
    }
    if ours.uuid.is_some() && ours.uuid.as_ref().map(|u| u.to_ascii_lowercase()) != libvirts.uuid {
        wrong(format!("uuid: {:?} and {:?}", ours.uuid, libvirts.uuid));
    }
    if ours.interfaces.len() != libvirts.interfaces.len() {
        return wrong(format!("{} interfaces and {}", ours.interfaces.len(), libvirts.interfaces.len()));
    }
    for (ours, libvirts) in ours.interfaces.iter().zip(&libvirts.interfaces) {
        let generated = |name: &str| ["vnet", "macvtap", "macvlan"].iter().any(|prefix| name.starts_with(prefix));
        let fields = [
            ("type", Some(&ours.kind), Some(&libvirts.kind)),
            ("mac", ours.mac.as_ref(), libvirts.mac.as_ref()),
            ("network", ours.network.as_ref(), libvirts.network.as_ref()),
            ("bridge", ours.bridge.as_ref(), libvirts.bridge.as_ref()),
            ("portgroup", ours.portgroup.as_ref(), libvirts.portgroup.as_ref()),
            ("target", ours.target.as_ref(), libvirts.target.as_ref()),
        ];
        for (field, ours, libvirts) in fields {
            match (field, ours, libvirts) {
                (_, ours, libvirts) if ours == libvirts => {}
                ("mac", Some(ours), Some(libvirts)) if ours.eq_ignore_ascii_case(libvirts) => {}
                ("mac", Some(zeros), Some(_)) if zeros == "00:00:00:00:00:00" => {
                    outcome.excluded.add("mac: the file has zeros, and newer libvirt makes one for that, too", file);
                }
                ("mac", None, Some(_)) => outcome.excluded.add("mac: the file has none, libvirt made one", file),
                ("target", None, Some(name)) if name.starts_with("testnet") => {
                    outcome.excluded.add("target: the file has none, the test driver made one", file);
                }
                ("target", Some(name), None) if generated(name) => {
                    outcome
                        .excluded
                        .add("target: a name that libvirt makes up for each start, not in what it keeps", file);
                }
                (field, ours, libvirts) => {
                    outcome.disagreements.add(format!("{field}: {ours:?} and {libvirts:?} ({how})"), file);
                }
            }
        }
    }
}

fn network(file: &Path, xml: &[u8], files: &[PathBuf], virsh: &mut Virsh, outcome: &mut Outcome) {
    *outcome.files.entry("networks").or_default() += 1;
    unharmed(file, xml, outcome);
    let ours = match inspect::network(xml) {
        Ok(ours) => ours,
        Err(why) => return outcome.unparsed.add(why.to_string(), file),
    };
    // None of them is ours, so none of them is to be refused.
    if !matches!(libvirt_network::read(&["x", "start", "begin", "-"], xml, &Config::default()), Ok(None)) {
        outcome.disagreements.add("a network without our metadata is not passed by", file);
    }
    let mut texts: Vec<_> = expected(file, files)
        .into_iter()
        .map(|path| (std::fs::read_to_string(path).unwrap(), "with the output that libvirt's tests expect"))
        .collect();
    match virsh.network(file) {
        Ok(text) => texts.push((text, "with libvirt's own reading (test driver)")),
        Err(why) => outcome.refused.add(why, file),
    }
    for (text, how) in texts {
        outcome.compared.add(format!("networks, {how}"), file);
        let libvirts = Printed::network(&text);
        let mut wrong = |what: String| outcome.disagreements.add(what, file);
        let uuid = ours.uuid.as_ref().map(|u| u.to_ascii_lowercase());
        if ours.name != libvirts.name || uuid.is_some() && uuid != libvirts.uuid {
            wrong(format!("{:?} {uuid:?} and {libvirts:?}", ours.name));
        }
        if (ours.forward.as_ref(), &ours.interfaces) != (libvirts.forward.as_ref(), &libvirts.interfaces) {
            wrong(format!("forward: {:?} {:?} and {libvirts:?}", ours.forward, ours.interfaces));
        }
        match (&ours.bridge, &libvirts.bridge) {
            (ours, libvirts) if ours == libvirts => {}
            (None, Some(_)) => outcome.excluded.add("bridge: the file has none, libvirt made a name", file),
            both => outcome.disagreements.add(format!("bridge: {both:?}"), file),
        }
        match (&ours.mac, &libvirts.mac) {
            (Some(ours), Some(libvirts)) if ours.eq_ignore_ascii_case(libvirts) => {}
            (None, None) => {}
            (None, Some(_)) => outcome.excluded.add("mac: the file has none, libvirt made one", file),
            both => outcome.disagreements.add(format!("mac: {both:?}"), file),
        }
        // And what libvirt printed, exactly.
        let again = inspect::network(text.as_bytes());
        let told = again.as_ref().ok().map(|n| (&n.name, &n.uuid, &n.forward, &n.interfaces, &n.bridge, &n.mac));
        let printed = &libvirts;
        if told
            != Some((
                &printed.name,
                &printed.uuid,
                &printed.forward,
                &printed.interfaces,
                &printed.bridge,
                &printed.mac,
            ))
        {
            outcome.disagreements.add(format!("libvirt's output {libvirts:?} is read as {again:?}"), file);
        }
    }
}

/// A status file is libvirt's own output already, with the domain one step further in.
fn status(file: &Path, xml: &[u8], outcome: &mut Outcome) {
    *outcome.files.entry("status files").or_default() += 1;
    unharmed(file, xml, outcome);
    let text = String::from_utf8_lossy(xml);
    let inner: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    let printed = Printed::domain(&inner.join("\n"));
    outcome.compared.add("status files: every field of every interface", file);
    match inspect::domain(xml) {
        Ok(ours) if ours.interfaces == printed.interfaces && ours.name == printed.name && ours.uuid == printed.uuid => {
        }
        other => outcome.disagreements.add(format!("{printed:?} is read as {other:?}"), file),
    }
}

/// The outputs that libvirt's tests expect of this file: same name, in the directory beside that ends in `out` or `outdata`; since libvirt 10.0 QEMU's
/// beside it, with the architecture and version behind the name (`net-mtu.x86_64-latest.xml`).
fn expected(file: &Path, files: &[PathBuf]) -> Vec<PathBuf> {
    let (dir, stem) = (file.parent().unwrap(), file.file_stem().unwrap().to_str().unwrap());
    let dir_name = dir.file_name().unwrap().to_str().unwrap();
    let outs: &[&str] = match dir_name {
        "qemuxml2argvdata" => &["qemuxml2xmloutdata"],
        "qemuxmlconfdata" => &["qemuxmlconfdata"],
        "genericxml2xmlindata" => &["genericxml2xmloutdata"],
        "bhyvexml2argvdata" => &["bhyvexml2xmloutdata"],
        "lxcxml2xmldata" => &["lxcxml2xmloutdata"],
        "networkxml2xmlin" => &["networkxml2xmlout"],
        _ => return Vec::new(),
    };
    let is_out = |path: &&PathBuf| {
        let out_dir = path.parent().and_then(Path::file_name).and_then(|d| d.to_str()).unwrap_or_default();
        let rest = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.strip_prefix(stem));
        path.as_path() != file
            && outs.contains(&out_dir)
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    files.iter().filter(is_out).cloned().collect()
}

impl Outcome {
    fn text(&self, version: &str) -> String {
        let files: Vec<_> = self.files.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let mut text = format!(
            "libvirt {version}'s test data: {} read; {} panics, {} comparisons of {} interfaces, {} disagreements\n",
            files.join(", "),
            self.panics.sum(),
            self.compared.sum(),
            self.interfaces,
            self.disagreements.sum()
        );
        for (title, counts) in [
            ("panics", &self.panics),
            ("disagreements", &self.disagreements),
            ("compared", &self.compared),
            ("not compared, a field at a time", &self.excluded),
            ("we refuse the file", &self.unparsed),
            ("libvirt's test driver refuses the file", &self.refused),
        ] {
            let _ = writeln!(text, "  {title}: {}", counts.sum());
            for (kind, (count, file)) in &counts.0 {
                let _ = writeln!(text, "    {count:5}  {kind}  (as {file})");
            }
        }
        text
    }
}
