//! What memory that was freed is filled with, in FRR's daemons: a pointer to it that is used once more then fails at once, and not one time in a thousand.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// glibc's `MALLOC_PERTURB_` (mallopt(3), M_PERTURB), another value a run; EVPN_LAB_POISON repeats one.
pub fn poison() -> u8 {
    static VALUE: OnceLock<u8> = OnceLock::new();
    *VALUE.get_or_init(|| {
        let value = match std::env::var("EVPN_LAB_POISON") {
            Ok(text) => text.parse().ok().filter(|value| *value != 0).expect("EVPN_LAB_POISON is 1 to 255"),
            Err(_) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                u8::try_from(now.subsec_nanos() % 255 + 1).expect("1 to 255")
            }
        };
        eprintln!("FRR's freed memory is filled with {value:#04x}; again with EVPN_LAB_POISON={value}");
        value
    })
}
