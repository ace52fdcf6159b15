//! The vty client against daemons that freeze, babble and lie.

use super::*;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

const SHORT: Duration = Duration::from_millis(200);

/// A fake zebra in a directory of its own, which serves each connection with `serve` and goes when dropped.
struct Fake(PathBuf);

impl Fake {
    fn new(name: &str) -> (Fake, UnixListener) {
        let dir = std::env::temp_dir().join(format!("evpn-hook-vty-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let listener = UnixListener::bind(dir.join("zebra.vty")).unwrap();
        (Fake(dir), listener)
    }

    fn serving(name: &str, mut serve: impl FnMut(UnixStream) + Send + 'static) -> (Fake, JoinHandle<()>) {
        let (fake, listener) = Fake::new(name);
        let worker = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(stream);
            }
        });
        (fake, worker)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reads one command, without its zero byte.
fn command(stream: &mut UnixStream) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0u8];
    loop {
        match stream.read(&mut byte) {
            Ok(1) if byte[0] == 0 => return Some(String::from_utf8(text).unwrap()),
            Ok(1) => text.push(byte[0]),
            _ => return None,
        }
    }
}

fn ask(fake: &Fake) -> (Result<String, SpeakerError>, Duration) {
    let begun = Instant::now();
    let answer = Vty::new(&fake.0, "zebra", SHORT).show("show evpn json");
    (answer, begun.elapsed())
}

#[test]
fn answers_come_back_in_any_pieces() {
    let (fake, _worker) = Fake::serving("pieces", |mut stream| {
        while let Some(text) = command(&mut stream) {
            let answer = [format!("you said {text}\n").as_bytes(), b"\0\0\0\0"].concat();
            for byte in answer {
                stream.write_all(&[byte]).unwrap();
            }
        }
    });
    let mut vty = Vty::connect(&fake.0, "zebra", SHORT).unwrap();
    assert_eq!(vty.show("one").unwrap(), "you said one\n");
    assert_eq!(vty.show("two").unwrap(), "you said two\n");
}

#[test]
fn a_status_that_is_no_success_is_a_refusal_with_the_words() {
    let (fake, _worker) = Fake::serving("refuse", |mut stream| {
        while command(&mut stream).is_some() {
            stream.write_all(b"% [ZEBRA] Unknown command: x\n\0\0\0\x02").unwrap();
        }
    });
    let (answer, _) = ask(&fake);
    let Err(SpeakerError::Refused { words, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(words, "% [ZEBRA] Unknown command: x (status 2)");
}

#[test]
fn silence_ends_at_the_deadline() {
    let (fake, _worker) = Fake::serving("silent", |mut stream| {
        let _ = command(&mut stream);
        std::thread::sleep(Duration::from_secs(5));
    });
    let (answer, took) = ask(&fake);
    assert!(matches!(answer, Err(SpeakerError::Timeout { daemon: "zebra", .. })), "{answer:?}");
    assert!(took < SHORT * 4, "{took:?}");
}

#[test]
fn an_answer_that_trickles_for_ever_ends_at_the_deadline() {
    let (fake, _worker) = Fake::serving("trickle", |mut stream| {
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let (answer, took) = ask(&fake);
    assert!(matches!(answer, Err(SpeakerError::Timeout { .. })), "{answer:?}");
    assert!(took < SHORT * 4, "{took:?}");
}

#[test]
fn an_answer_without_end_is_bounded() {
    let (fake, _worker) = Fake::serving("endless", |mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    let mut vty = Vty::new(&fake.0, "zebra", Duration::from_secs(10));
    vty.max = 1 << 20;
    let answer = vty.show("show evpn json");
    assert!(matches!(answer, Err(SpeakerError::TooLarge { .. })), "{answer:?}");
}

#[test]
fn a_broken_trailer_is_garbage() {
    let (fake, _worker) = Fake::serving("trailer", |mut stream| {
        let _ = command(&mut stream);
        stream.write_all(b"text\0\0\x07\0").unwrap();
    });
    assert!(matches!(ask(&fake).0, Err(SpeakerError::Garbage { .. })));
}

#[test]
fn bytes_after_the_trailer_are_garbage() {
    let (fake, _worker) = Fake::serving("after", |mut stream| {
        let _ = command(&mut stream);
        stream.write_all(b"text\0\0\0\0more").unwrap();
    });
    assert!(matches!(ask(&fake).0, Err(SpeakerError::Garbage { .. })));
}

#[test]
fn a_daemon_that_dies_in_its_answer_is_not_running() {
    let (fake, _worker) = Fake::serving("dies", |mut stream| {
        let _ = command(&mut stream);
        stream.write_all(b"half an ans").unwrap();
    });
    assert!(matches!(ask(&fake).0, Err(SpeakerError::NotRunning { .. })));
}

#[test]
fn a_restarted_daemon_is_found_again_and_enabled_again() {
    // Each connection answers one question in ENABLE_NODE and closes, like a daemon that restarts in between.
    let (fake, _worker) = Fake::serving("restart", |mut stream| {
        let mut enabled = false;
        while let Some(text) = command(&mut stream) {
            let status = u8::from(text != "enable" && !enabled) * 2;
            stream.write_all(&[text.as_bytes(), &[0, 0, 0, status]].concat()).unwrap();
            if text != "enable" {
                return;
            }
            enabled = true;
        }
    });
    let mut vty = Vty::new(&fake.0, "zebra", SHORT);
    for _ in 0..3 {
        assert_eq!(vty.show_enabled("show running-config").unwrap(), "show running-config");
    }
}

#[test]
fn a_full_backlog_is_a_timeout_and_not_a_hang() {
    let (fake, listener) = Fake::new("backlog");
    rustix::net::listen(&listener, 0).unwrap();
    let mut held = Vec::new();
    let begun = Instant::now();
    let refused = loop {
        match Vty::connect(&fake.0, "zebra", SHORT) {
            Ok(vty) => held.push(vty),
            Err(error) => break error,
        }
        assert!(held.len() < 10_000);
    };
    assert!(matches!(refused, SpeakerError::Timeout { .. }), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn nobody_there_is_not_running_and_names_the_socket() {
    let error = Vty::connect(Path::new("/nonexistent"), "bgpd", SHORT).unwrap_err();
    assert!(matches!(&error, SpeakerError::NotRunning { daemon: "bgpd", .. }));
    assert!(error.to_string().contains("/nonexistent/bgpd.vty"), "{error}");
    assert!(error.is_absence());
}

#[test]
fn control_characters_never_reach_a_daemon() {
    let (fake, _worker) = Fake::serving("control", |mut stream| {
        let _ = command(&mut stream);
        let _ = stream.write_all(b"\0\0\0\0");
    });
    let answer = Vty::new(&fake.0, "zebra", SHORT).show("show evpn\0configure terminal");
    assert!(matches!(answer, Err(SpeakerError::Garbage { .. })));
}
