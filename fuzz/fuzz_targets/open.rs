//! Whatever happened to its files, an opened store is sound or says what is wrong.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    tideline_fuzz::open::run(data);
});
