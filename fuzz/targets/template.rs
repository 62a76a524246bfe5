//! See `kiln_adversary::Target::Template`.
#![no_main]

use kiln_adversary::Target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| Target::Template.check(bytes));
