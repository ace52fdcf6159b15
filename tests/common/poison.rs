//! What memory that was freed is filled with, in FRR's daemons: a pointer to it that is used once more then fails at once, and not one time in a thousand.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Two of the bits are always set: a device's flags that were freed say UP and RUNNING, which FRR asks for before it uses more of it.
const UP_AND_RUNNING: u8 = 0x41;

/// Another value a run; EVPN_LAB_POISON repeats one.
fn poison() -> u8 {
    static VALUE: OnceLock<u8> = OnceLock::new();
    *VALUE.get_or_init(|| {
        let value = match std::env::var("EVPN_LAB_POISON") {
            Ok(text) => text.parse().ok().filter(|value| *value != 0).expect("EVPN_LAB_POISON is 1 to 255"),
            Err(_) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                u8::try_from(now.subsec_micros() % 256).expect("0 to 255") | UP_AND_RUNNING
            }
        };
        eprintln!("FRR's freed memory is filled with {value:#04x}; again with EVPN_LAB_POISON={value}");
        value
    })
}

/// glibc fills what is freed (mallopt(3), M_PERTURB), but not what its per-thread cache keeps, and that is most of it (malloc.c `_int_free`): it goes
/// without.
pub fn poisoned() -> [(&'static str, String); 2] {
    [("MALLOC_PERTURB_", poison().to_string()), ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0".to_owned())]
}
