//! What a report may cost, and what an answer that is cut says: against daemons that are slow, or break off.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

/// All that FRR may cost a report, and something for a machine that is busy.
const MOST: Duration = Duration::from_millis(2300);
const WELL: &[u8] = b"\0\0\0\0";

/// A zebra and a bgpd in a directory of their own.
struct Fake(PathBuf);

impl Fake {
    /// `answer` gives an answer with its trailer.
    fn new(name: &str, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Fake {
        let dir = std::env::temp_dir().join(format!("evpn-hook-report-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let answer = Arc::new(answer);
        for daemon in ["zebra.vty", "bgpd.vty"] {
            let (listener, answer) = (UnixListener::bind(dir.join(daemon)).unwrap(), answer.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let answer = answer.clone();
                    std::thread::spawn(move || serve(stream, &*answer));
                }
            });
        }
        Fake(dir)
    }

    fn frr(&self) -> Frr {
        Frr::new(&self.0).for_report(Instant::now() + Frr::REPORT)
    }
}

fn serve(mut stream: UnixStream, answer: &dyn Fn(&str) -> Vec<u8>) -> std::io::Result<()> {
    loop {
        let (mut text, mut byte) = (Vec::new(), [0]);
        loop {
            stream.read_exact(&mut byte)?;
            match byte[0] {
                0 => break,
                letter => text.push(letter),
            }
        }
        stream.write_all(&answer(&String::from_utf8_lossy(&text)))?;
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn well(text: &str) -> Vec<u8> {
    [text.as_bytes(), WELL].concat()
}

fn of_number(number: u32) -> Vni {
    number.try_into().unwrap()
}

#[test]
fn many_lists_that_are_short_are_long_together() {
    let fake = Fake::new("lists", |_| {
        std::thread::sleep(Duration::from_millis(90));
        well("{}")
    });
    let (mut frr, began) = (fake.frr(), Instant::now());
    let answers: Vec<_> = (1..=40).map(|number| frr.duplicates(of_number(number))).collect();
    assert!(began.elapsed() < MOST, "{:?}", began.elapsed());
    assert!(answers[0].is_ok(), "{:?}", answers[0]);
    let error = answers[39].as_ref().unwrap_err();
    assert!(matches!(error, SpeakerError::NotAsked { daemon: "zebra", .. }), "{error}");
}

#[test]
fn many_single_questions_are_long_together() {
    // So large a segment that each guest of it is asked for by itself.
    let fake = Fake::new("questions", |question| {
        std::thread::sleep(Duration::from_millis(1));
        let is_size = question == "show evpn vni 20 json";
        well(if is_size { r#"{"type":"L2","numMacs":100000,"numArpNd":0}"# } else { "{}" })
    });
    let mac = |n: u32| format!("52:54:00:00:{:02x}:{:02x}", n >> 8, n & 0xff).parse::<Mac>().unwrap();
    let wanted: Vec<_> = (0..2000).map(|n| (mac(n), vec![IpAddr::from([10, 1, 0, 1])])).collect();
    let (mut frr, began) = (fake.frr(), Instant::now());
    let error = frr.advertised_all(of_number(20), &wanted).unwrap_err();
    assert!(began.elapsed() < MOST, "{:?}", began.elapsed());
    assert!(
        matches!(error, SpeakerError::NotAsked { .. } | SpeakerError::Timeout { .. }),
        "what was not asked is no verdict: {error}"
    );
}

/// A host with many segments of few guests: single questions alone would take all the time.
#[test]
fn small_segments_are_listed_where_they_are_many() {
    let lists = Arc::new(Mutex::new(Vec::new()));
    let asked = lists.clone();
    let fake = Fake::new("segments", move |question| {
        if let Some(vni) =
            question.strip_prefix("show bgp l2vpn evpn route vni ").and_then(|of| of.strip_suffix(" json"))
            && let Ok(vni) = vni.parse::<u32>()
        {
            asked.lock().unwrap().push(vni);
        }
        let is_size = question.starts_with("show evpn vni ");
        well(if is_size { r#"{"type":"L2","numMacs":1,"numArpNd":1}"# } else { "{}" })
    });
    // Four questions, and a list of two entries.
    let guest = [("52:54:00:00:00:01".parse().unwrap(), vec![IpAddr::from([10, 1, 0, 1])])];
    let mut frr = Frr::new(&fake.0);
    for number in 1..=600 {
        frr.advertised_all(of_number(number), &guest).unwrap();
    }
    let lists = lists.lock().unwrap();
    assert_eq!((lists.first(), lists.len()), (Some(&502), 99), "2,000 questions are asked first");
}

#[test]
fn one_deadline_for_whatever_is_asked() {
    let fake = Fake::new("never", |_| {
        loop {
            std::thread::park();
        }
    });
    let (mut frr, began) = (fake.frr(), Instant::now());
    assert!(matches!(frr.answers(), Err(SpeakerError::Timeout { daemon: "bgpd", .. })));
    // What is left of it, and then nothing.
    assert!(matches!(frr.running(), Err(SpeakerError::Timeout { daemon: "bgpd", .. })));
    for _ in 0..3 {
        let error = frr.running().unwrap_err();
        assert!(matches!(error, SpeakerError::NotAsked { daemon: "bgpd", within: Frr::REPORT, .. }), "{error}");
    }
    assert!(matches!(frr.mgmtd(), Err(SpeakerError::NotAsked { daemon: "mgmtd", .. })));
    assert!(frr.vni(of_number(20)).is_err());
    assert!(began.elapsed() < MOST, "{:?}", began.elapsed());
}

/// Nothing is what FRR says in words, not what is left of an answer: else a peer's routes, cut off, are a peer that has none.
#[test]
fn an_answer_that_is_cut_is_not_nothing() {
    let peers = |name: &str, answer: Vec<u8>| {
        let fake = Fake::new(name, move |_| answer.clone());
        fake.frr().evpn_peers()
    };
    for (n, nothing) in ["", "{}", "{}\n{\n}\n", "% No BGP neighbors found", "No such thing"].into_iter().enumerate() {
        assert_eq!(peers(&format!("nothing{n}"), well(nothing)).unwrap(), [], "{nothing}");
    }
    let refused = [b"% Unknown command".as_slice(), b"\0\0\0\x02"].concat();
    assert_eq!(peers("refused", refused).unwrap(), [], "a question that this version does not know");
    let summary = r#"{"peers":{"10.0.0.2":{"state":"Established","pfxRcd":4,"pfxSnt":5}}}"#;
    assert_eq!(peers("whole", well(summary)).unwrap().len(), 1);
    for (n, cut) in
        [well(&summary[..30]), well("% a warning\n{\"peers\":{"), [summary.as_bytes(), b"\0\0\x07\0"].concat()]
            .into_iter()
            .enumerate()
    {
        let said = peers(&format!("cut{n}"), cut);
        assert!(matches!(said, Err(SpeakerError::Garbage { .. })), "{said:?}");
    }
}
