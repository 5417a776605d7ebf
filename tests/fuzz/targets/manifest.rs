#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pvmigrate::copy::agent::fuzzed::manifest(bytes));
