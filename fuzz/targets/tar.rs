//! See `kiln_adversary::Target::Tar`.
#![no_main]

use kiln_adversary::Target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| Target::Tar.check(bytes));
