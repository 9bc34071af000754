#![no_main]

#[path = "../properties/dsn.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::check(data));
