//! `cargo +nightly fuzz run stanza` in `proto`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rookery_proto::fuzzing::stanza(data));
