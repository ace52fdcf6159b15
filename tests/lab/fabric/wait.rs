use std::time::{Duration, Instant};

/// What a question says: it is so, or not, or what is missing.
pub trait Verdict {
    fn missing(self) -> Option<String>;
}

impl Verdict for bool {
    fn missing(self) -> Option<String> {
        (!self).then(String::new)
    }
}

impl Verdict for Result<(), String> {
    fn missing(self) -> Option<String> {
        self.err()
    }
}

/// For state that announces itself by no event: asks again until it is so, and panics after `timeout`.
pub fn wait_until<V: Verdict>(what: &str, timeout: Duration, mut is_so: impl FnMut() -> V) {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        let Some(missing) = is_so().missing() else { return };
        assert!(start.elapsed() < timeout, "waited {timeout:?} in vain for {what}\n{missing}");
        // What is waited for, and the labs beside this one, get as much of the processor as the question did.
        std::thread::sleep(asked.elapsed().max(Duration::from_millis(20)));
    }
}
