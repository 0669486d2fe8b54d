//! URI parameters are read as far as they go, and refused where they should be.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    tideline_fuzz::parameters::run(data);
});
