use std::time::{Duration, Instant};

/// For state that announces itself by no event: asks again until it is so, and panics after `timeout`.
pub fn wait_until(what: &str, timeout: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < timeout, "waited {timeout:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
