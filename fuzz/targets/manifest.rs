//! See `kiln_adversary::Target::Manifest`.
#![no_main]

use kiln_adversary::Target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| Target::Manifest.check(bytes));
