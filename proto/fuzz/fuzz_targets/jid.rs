//! `cargo +nightly fuzz run jid` in `proto`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rookery_proto::fuzzing::jid(data));
