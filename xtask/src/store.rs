//! The full forms of the tests of what is stored: damage at every place, collection beside everything.

use anyhow::Result;

use crate::process;

/// A flipped byte in every 512-byte block of everything that is stored, and every cut.
pub(crate) fn fsck_matrix() -> Result<()> {
    run("KILN_TEST_MATRIX", &["-p", "kiln-metadata"], "binary(damage)")?;
    run("KILN_TEST_MATRIX", &["-p", "kiln-images"], "test(/^fsck::/)")
}

/// Garbage collection beside 10^5 operations of eight tasks.
pub(crate) fn gc_model() -> Result<()> {
    run("KILN_TEST_MODEL", &["-p", "kiln-images"], "test(heavy_gc_beside)")
}

fn run(variable: &str, packages: &[&str], filter: &str) -> Result<()> {
    let mut arguments = vec!["nextest", "run", "--locked", "--success-output", "immediate"];
    arguments.extend(packages);
    arguments.extend(["-E", filter]);
    let mut command = process::command("cargo", &arguments);
    command.env(variable, "full");
    process::run(command)
}
