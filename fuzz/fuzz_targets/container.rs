//! Any bytes as a `.gq` file. Seeds: `testdata/golden/container` and `testdata/malformed/container`.
//!
//! `cargo +nightly fuzz run container fuzz/corpus/container testdata/golden/container testdata/malformed/container`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    if let Ok(layout) = gq_container::validate(file) {
        let _ = layout.verify(file, |_, _| {});
    }
});
