//! Any bytes as the recipe of a conversion, as files and journals keep it.
//!
//! `cargo +nightly fuzz run recipe fuzz/corpus/recipe`
#![no_main]

use gq_convert::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = serde_json::from_slice::<Policy>(bytes) {
        let again = serde_json::to_vec(&policy).expect("a recipe is JSON");
        assert_eq!(serde_json::from_slice::<Policy>(&again).expect("its own JSON"), policy);
    }
});
