//! Whatever is behind the journal's end, recovery finds the entries that count.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    tideline_fuzz::recover::run(data);
});
