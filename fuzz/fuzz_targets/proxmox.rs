#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evpn_hook::untrusted::proxmox(data));
