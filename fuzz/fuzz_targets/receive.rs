//! Whatever is received, a replica stays a sound database.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    tideline_fuzz::receive::run(data);
});
