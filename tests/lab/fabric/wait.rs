use std::time::{Duration, Instant};

/// For state that announces itself by no event: asks again until it is so, and panics after `timeout`.
pub fn wait_until(what: &str, timeout: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        if is_so() {
            return;
        }
        assert!(start.elapsed() < timeout, "waited {timeout:?} in vain for {what}");
        // What is waited for, and the labs beside this one, get as much of the processor as the question did.
        std::thread::sleep(asked.elapsed().max(Duration::from_millis(20)));
    }
}
