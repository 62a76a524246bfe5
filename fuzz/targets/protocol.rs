//! See `kiln_adversary::Target::Protocol`.
#![no_main]

use kiln_adversary::Target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| Target::Protocol.check(bytes));
