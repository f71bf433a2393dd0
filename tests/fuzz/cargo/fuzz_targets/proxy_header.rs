//! `cargo fuzz run proxy_header`
#![no_main]

#[path = "../../targets.rs"]
#[allow(dead_code, missing_docs)]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::fuzz_proxy_header(data));
