//! The quick form of `cargo xtask differential`.
#![allow(clippy::print_stdout, reason = "the report of a test")]

use kiln_adversary::differential::{Options, compare};

#[test]
fn heavy_other_tools_read_archives_as_we_do() {
    let scratch = tempfile::Builder::new().prefix("kiln-differential-").tempdir().unwrap();
    let summary = compare(Options { seed: 7, count: 400 }, scratch.path());
    println!("{}", summary.report());
    assert!(summary.alike > 150, "too few archives are legal: {}", summary.report());
    if !summary.unknown.is_empty() {
        let kept = scratch.keep();
        panic!("{}\nthe archives are in {}", summary.unknown.join("\n"), kept.display());
    }
}
