//! Whatever a function is called with, it answers or says what is wrong, and the database stays sound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    tideline_fuzz::functions::run(data);
});
