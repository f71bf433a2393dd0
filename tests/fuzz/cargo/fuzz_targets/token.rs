//! `cargo fuzz run token`
#![no_main]

#[path = "../../targets.rs"]
#[allow(dead_code, missing_docs)]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::fuzz_token(data));
