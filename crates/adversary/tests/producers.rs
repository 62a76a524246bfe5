//! Archives that other tools write.
#![allow(clippy::print_stdout, reason = "the report of a test")]

use kiln_adversary::differential::Options;
use kiln_adversary::differential::producers::produce;

#[test]
fn heavy_what_other_tools_pack_is_what_is_read() {
    let scratch = tempfile::Builder::new().prefix("kiln-producers-").tempdir().unwrap();
    let produced = produce(Options { seed: 11, count: 6 }, scratch.path());
    println!("{:?}, {} names, xattrs: {}", produced.archives, produced.names, produced.xattrs);
    assert!(produced.names > 400, "the trees are too small: {} names", produced.names);
    if !produced.faults.is_empty() {
        let kept = scratch.keep();
        panic!("{}\nthe archives are in {}", produced.faults.join("\n"), kept.display());
    }
}
