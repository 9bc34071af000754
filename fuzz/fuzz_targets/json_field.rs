#![no_main]

#[path = "../properties/json_field.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::check(data));
