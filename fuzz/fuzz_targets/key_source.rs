#![no_main]

#[path = "../properties/key_source.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::check(data));
