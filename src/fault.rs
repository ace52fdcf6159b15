//! Faults for the tests: a debug build can be told to die or to fail at any point of a run; a release build has none of it.
//!
//! `EVPN_HOOK_FAULT="kill 7"` ends the process by SIGKILL at the seventh point, `"stop 7"` stops it there by SIGSTOP until somebody lets it go on,
//! `"fail 7"` makes the seventh step fail. Points are: before and after each step, amid one that is more than one message to the kernel, before and
//! after each write to the state. With `EVPN_HOOK_FAULT_LOG=FILE` each point is appended to FILE, the way to know how many there are and what they are.

#[cfg(debug_assertions)]
mod armed {
    use rustix::process::{Signal, getpid, kill_process};
    use std::fmt::Display;
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    enum Fault {
        Kill(usize),
        Stop(usize),
        Fail(usize),
    }

    static POINTS: AtomicUsize = AtomicUsize::new(0);
    static STEPS: AtomicUsize = AtomicUsize::new(0);

    fn wanted() -> Option<&'static Fault> {
        static WANTED: OnceLock<Option<Fault>> = OnceLock::new();
        let read = || {
            let text = std::env::var("EVPN_HOOK_FAULT").ok()?;
            let (word, number) = text.split_once(' ')?;
            let number = number.parse().ok()?;
            match word {
                "kill" => Some(Fault::Kill(number)),
                "stop" => Some(Fault::Stop(number)),
                "fail" => Some(Fault::Fail(number)),
                _ => None,
            }
        };
        WANTED.get_or_init(read).as_ref()
    }

    /// A point at which the process may be killed or stopped.
    pub fn point(what: impl Display) {
        let here = POINTS.fetch_add(1, Relaxed) + 1;
        if let Some(path) = std::env::var_os("EVPN_HOOK_FAULT_LOG")
            && let Ok(mut log) = std::fs::OpenOptions::new().create(true).append(true).open(path)
        {
            let _ = writeln!(log, "{what}");
        }
        let signal = match wanted() {
            Some(Fault::Kill(at)) if *at == here => Signal::KILL,
            Some(Fault::Stop(at)) if *at == here => Signal::STOP,
            _ => return,
        };
        let _ = kill_process(getpid(), signal);
    }

    /// Shall the step that begins now fail?
    pub fn fails() -> bool {
        let here = STEPS.fetch_add(1, Relaxed) + 1;
        matches!(wanted(), Some(Fault::Fail(at)) if *at == here)
    }
}

#[cfg(not(debug_assertions))]
mod armed {
    /// Nothing.
    pub fn point(_what: impl std::fmt::Display) {}

    /// Never.
    pub fn fails() -> bool {
        false
    }
}

pub use armed::{fails, point};
