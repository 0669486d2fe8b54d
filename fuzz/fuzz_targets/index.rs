//! The index finds what was pushed, also while it is made anew.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    tideline_fuzz::index::run(data);
});
