//! See `kiln_adversary::Target::Definition`.
#![no_main]

use kiln_adversary::Target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| Target::Definition.check(bytes));
