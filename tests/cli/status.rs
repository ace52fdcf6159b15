//! `status` as people read it: a tree, a picture, and both as things change.

use crate::common::sh;
use crate::host::{BIN, CONFIG, Host, tap};
use crate::on_a_host;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const MAC: &str = "52:54:00:03:82:d8";
const OTHER: &str = "52:54:00:00:00:77";
const PATIENCE: Duration = Duration::from_secs(20);

/// A program and what it has written so far.
struct Showing {
    child: Child,
    pieces: Receiver<Vec<u8>>,
    text: String,
}

impl Showing {
    fn of(mut command: Command) -> Showing {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                let _ = sender.send(buffer[..count].to_vec());
            }
        });
        Showing { child, pieces, text: String::new() }
    }

    /// Waits until it has written this since the last time, and takes it; returns how long that took.
    #[track_caller]
    fn until(&mut self, part: &str) -> Duration {
        let began = Instant::now();
        loop {
            if let Some(at) = self.text.find(part) {
                self.text.drain(..at + part.len());
                return began.elapsed();
            }
            match self.pieces.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(piece) => self.text += &String::from_utf8(piece).unwrap(),
                Err(error) => panic!("{part:?} did not come ({error}) after {:?}", self.text),
            }
        }
    }

    /// All that is still to come.
    fn rest(&mut self) -> String {
        while let Ok(piece) = self.pieces.recv_timeout(PATIENCE) {
            self.text += &String::from_utf8(piece).unwrap();
        }
        assert!(matches!(self.pieces.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected)));
        std::mem::take(&mut self.text)
    }
}

on_a_host!(the_tree_of_a_host, {
    let host = Host::new(CONFIG);
    host.run(&["network", "up", "flat"]).ok();
    tap("vnet0");
    tap("vnet10");
    let attach = |dev: &str, mac: &str, more: &[&str]| {
        host.run(&[&["attach", dev, "--network", "flat", "--mac", mac][..], more].concat()).ok();
    };
    attach("vnet0", MAC, &["--ip", "10.1.0.60", "--ip", "fd00:1::60", "--guest", "web"]);
    attach("vnet10", "52:54:00:00:00:10", &[]);
    // As FRR puts them: a MAC behind one VTEP, another VTEP to flood to, and one of which the bridge has another opinion.
    sh(&format!("bridge fdb add {OTHER} dev vxlan20 dst 10.0.0.2 self extern_learn"));
    sh(&format!("bridge fdb add {OTHER} dev vxlan20 master extern_learn"));
    sh("bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.0.3 self");
    sh(&format!("bridge fdb add {MAC} dev vxlan20 dst 10.0.0.4 self extern_learn"));
    let tree = "VRF red, table 10, L3VNI 10
`- routed: down, bridge red-l2, VNI 30
      ! not up: 'evpn-hook network up routed'
layer 2 only
|- flat: up, bridge flat-l2, VNI 20, VTEP 10.0.0.1
|  |- guest vnet10  vnet10  52:54:00:00:00:10  registered
|  |- guest web     vnet0   52:54:00:03:82:d8  registered  10.1.0.60 (manual)  fd00:1::60 (manual)
|  `- elsewhere: 1 MAC at VTEP 10.0.0.2, none at VTEP 10.0.0.3
`- other: down, bridge other-l2, VNI 21
      ! not up: 'evpn-hook network up other'
";
    assert_eq!(host.run(&["status"]).ok().stdout, tree);
    let remotes = serde_json::json!([{ "vtep": "10.0.0.2", "macs": 1 }, { "vtep": "10.0.0.3", "macs": 0 }]);
    assert_eq!(host.status()["networks"][0]["remotes"], remotes);
    let boxes =
        Command::new(BIN).args(["--config", "/run/config.toml", "status"]).env("LC_ALL", "C.UTF-8").output().unwrap();
    let boxes = String::from_utf8(boxes.stdout).unwrap();
    assert_eq!(boxes.replace("├─", "|-").replace("└─", "`-").replace('│', "|"), tree);
});

on_a_host!(a_picture_of_the_host, {
    let host = Host::flat();
    host.run(&["status", "--svg", "/run/status.svg"]).ok();
    let picture = std::fs::read_to_string("/run/status.svg").unwrap();
    assert!(picture.starts_with("<?xml") && picture.ends_with("</svg>\n") && picture.contains(">bridge flat-l2<"));
    assert_eq!(std::fs::metadata("/run/status.svg").unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(host.run(&["status", "--svg", "-"]).ok().stdout, picture);
    // Something is wrong (two networks are not up): drawn all the same.
    std::fs::write("/run/status.svg", "").unwrap();
    assert_eq!(host.run(&["status", "--check", "--svg", "/run/status.svg"]).status, 3);
    assert_eq!(std::fs::read_to_string("/run/status.svg").unwrap(), picture);

    let refuses = |file: &str, parts: &[&str]| host.refuses(&["status", "--svg", file], 1, parts);
    refuses("/run", &["cannot write /run: it is a directory: name a regular file"]);
    refuses("/dev/null", &["cannot write /dev/null: it is a device"]);
    refuses(
        "/run/none/x.svg",
        &["cannot write /run/none/x.svg: No such file or directory", "name a file in a directory"],
    );
    sh(
        "mkdir /run/full && mount -t tmpfs -o size=4k full /run/full && (head -c 8192 /dev/zero >/run/full/x || true) 2>&-",
    );
    refuses("/run/full/status.svg", &["cannot write /run/full/status.svg: No space left on device", "not full"]);
    assert_eq!(sh("ls -A /run/full"), "x\n");
    host.refuses(&["--json", "status", "--svg", "/run/x.svg"], 2, &["--json cannot be used with"]);
    host.refuses(&["status", "--watch", "--json"], 2, &["--json cannot be used with"]);
    host.refuses(&["status", "--watch", "--check"], 2, &["--watch", "cannot be used with"]);
});

on_a_host!(what_changes_is_shown_as_it_changes, {
    let host = Host::flat();
    tap("vnet0");
    let mut watch = Showing::of(host.command(&["status", "--watch"]));
    watch.until("flat: up, ");
    // Each comes right after a look, and what looks by the clock does so a second later at the earliest.
    let mut fastest = PATIENCE;
    for (word, state) in [("down", "degraded"), ("up", "up"), ("down", "degraded"), ("up", "up")] {
        sh(&format!("ip link set vxlan20 {word}"));
        fastest = fastest.min(watch.until(&format!("flat: {state}, ")));
    }
    assert!(fastest < Duration::from_millis(700), "{fastest:?}");
    // The register's file and the kernel's entries.
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60"]).ok();
    watch.until("registered  10.1.0.60 (manual)\n");
    sh("ip neigh del 10.1.0.60 dev flat-l2");
    watch.until("failed  ");
    // The configuration, while it is broken and after.
    std::fs::write("/run/config.toml", "vtap = 1").unwrap();
    watch.until("evpn-hook: /run/config.toml line 1: ");
    std::fs::write("/run/config.toml", CONFIG).unwrap();
    watch.until("flat: up, ");
    kill_process(Pid::from_child(&watch.child), Signal::INT).unwrap();
    assert!(watch.child.wait().unwrap().success());
    assert!(!watch.rest().contains('\x1b'), "no terminal's signs in a pipe");

    // Whoever reads it goes away.
    let mut command = host.command(&["status", "--watch"]);
    let mut reader = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0];
    reader.stdout.take().unwrap().read_exact(&mut first).unwrap();
    sh("ip link set vxlan20 down");
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
});

on_a_host!(a_terminal_is_left_as_it_was, {
    let _host = Host::flat();
    let begin = |ctrl: &[u8], words: &str| {
        // script(1) gives it a terminal of its own; what is typed there is what is written here.
        let line = format!(
            "trap : INT; stty cols 100 rows 8; {BIN} --config /run/config.toml status{words}; echo ended with $?"
        );
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        let mut terminal = Showing::of(command);
        if words.is_empty() {
            return terminal.rest();
        }
        terminal.until("\x1b[?1049h\x1b[?25l\x1b[?7l");
        terminal.until("evpn-hook status on ");
        terminal.until("\x1b[1mflat\x1b[0m: \x1b[32mup\x1b[0m, bridge flat-l2");
        // Eight rows: what does not fit is counted.
        terminal.until(" more lines: evpn-hook status | less\x1b[K\x1b[J");
        terminal.child.stdin.as_mut().unwrap().write_all(ctrl).unwrap();
        terminal.until("\x1b[?7h\x1b[?25h\x1b[?1049l");
        let rest = terminal.rest();
        assert!(terminal.child.wait().unwrap().success());
        rest
    };
    assert!(begin(b"\x03", " --watch").contains("ended with 0"));
    let plain = begin(b"", "");
    assert!(plain.contains("├─ \x1b[0m\x1b[1mflat\x1b[0m: \x1b[32mup") && plain.contains("\x1b[31mdown"), "{plain:?}");
    assert!(!plain.contains("\x1b[?"), "{plain:?}");
});
