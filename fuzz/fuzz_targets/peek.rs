//! Feeds `check_peek` with what the engine makes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| roomcast_protocol::fuzz::check_peek(bytes));
