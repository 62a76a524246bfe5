//! See `kiln_adversary::Target::Index`.
#![no_main]

use kiln_adversary::Target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| Target::Index.check(bytes));
