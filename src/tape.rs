//! What a call asks of its surroundings, and what it is told: kept for a bug report, or played to a call that happens again elsewhere.
//!
//! The rooms that look outside (kernel, register, config.toml, hypervisor, speaker) ask through here. Off, which it is but for `--record` and
//! `replay`, each question is one look at a thread's own byte. While a tape plays nothing outside is asked, and nothing may be done.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Questions with their answers, as each was answered first: a plan is made before its steps change anything.
pub type Tape = BTreeMap<String, Value>;

/// Why a tape has no answer: it was not asked then, or it failed then.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Untold(pub String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    Records,
    Plays,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Off) };
    static TAPE: RefCell<Tape> = const { RefCell::new(Tape::new()) };
}

/// From now on questions and answers are kept.
pub fn record() {
    TAPE.set(Tape::new());
    MODE.set(Mode::Records);
}

/// From now on these are the answers.
pub fn play(tape: Tape) {
    TAPE.set(tape);
    MODE.set(Mode::Plays);
}

/// Ends either; what was kept or played.
pub fn stop() -> Tape {
    MODE.set(Mode::Off);
    TAPE.take()
}

/// Does what happened elsewhere happen again? Then nothing may be done.
pub fn plays() -> bool {
    MODE.get() == Mode::Plays
}

/// A question that is asked of the outside, or of the tape.
pub fn asked<T, E>(question: impl Display, ask: impl FnOnce() -> Result<T, E>) -> Result<T, E>
where
    T: Serialize + DeserializeOwned,
    E: Display + From<Untold>,
{
    match MODE.get() {
        Mode::Off => ask(),
        Mode::Records => {
            let answer = ask();
            keep(question.to_string(), &answer);
            answer
        }
        Mode::Plays => answer(&question.to_string()).map_err(E::from),
    }
}

/// Through text, as the register's records go: a hook's program has the code for that already, and would have twice as much with another way.
#[cold]
#[inline(never)]
fn keep<T: Serialize, E: Display>(question: String, answer: &Result<T, E>) {
    let kept = match answer {
        Ok(value) => serde_json::to_vec(value).and_then(|text| serde_json::from_slice(&text)).map(|v: Value| ("is", v)),
        Err(error) => Ok(("failed", error.to_string().into())),
    };
    let Ok((word, value)) = kept else { return };
    TAPE.with_borrow_mut(|tape| {
        tape.entry(question).or_insert(json!({ word: value }));
    });
}

#[cold]
#[inline(never)]
fn answer<T: DeserializeOwned>(question: &str) -> Result<T, Untold> {
    let kept = TAPE.with_borrow(|tape| tape.get(question).cloned());
    let Some(kept) = kept else { return Err(Untold(format!("not recorded: {question}"))) };
    if let Some(words) = kept["failed"].as_str() {
        return Err(Untold(words.to_owned()));
    }
    let value = serde_json::to_vec(&kept["is"]).and_then(|text| serde_json::from_slice(&text));
    value.map_err(|error| Untold(format!("recorded by another version: {question}: {error}")))
}

/// The same where there is an answer or none.
pub fn told<T: Serialize + DeserializeOwned>(question: impl Display, ask: impl FnOnce() -> Option<T>) -> Option<T> {
    asked(question, || Ok::<_, Untold>(ask())).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(question: &str, answer: Result<u32, &str>) -> Result<u32, String> {
        asked(question, || answer.map_err(|words| Untold(words.to_owned()))).map_err(|Untold(words)| words)
    }

    #[test]
    fn what_was_told_first_is_told_again() {
        assert_eq!(ask("a", Ok(1)), Ok(1), "off");
        record();
        assert_eq!(ask("a", Ok(2)), Ok(2));
        assert_eq!(ask("a", Ok(3)), Ok(3));
        assert_eq!(ask("b", Err("no")), Err("no".to_owned()));
        assert_eq!(told("c", || Some("x".to_owned())), Some("x".to_owned()));
        let mut tape = stop();
        assert_eq!(tape.len(), 3);
        tape.insert("d".to_owned(), json!({ "is": "a word" }));
        // As it is in a file.
        play(serde_json::from_str(&serde_json::to_string(&tape).unwrap()).unwrap());
        assert!(plays());
        assert_eq!(ask("a", Ok(9)), Ok(2));
        assert_eq!(ask("b", Ok(9)), Err("no".to_owned()));
        assert_eq!(told("c", || None), Some("x".to_owned()));
        assert_eq!(ask("never", Ok(9)), Err("not recorded: never".to_owned()));
        assert!(ask("d", Ok(9)).unwrap_err().starts_with("recorded by another version: d: "));
        stop();
        assert!(!plays());
        assert_eq!(ask("a", Ok(4)), Ok(4));
    }
}
