//! Static checks and all tests.

use std::time::Instant;

use anyhow::Result;

use crate::{checks, deps, load, process, rows, torture};

/// Everything that needs no installation: format, lints, arrows, file sizes, tests, rows, doc tests.
pub(crate) fn ci() -> Result<()> {
    let start = Instant::now();
    process::run(process::command("cargo", &["fmt", "--all", "--check"]))?;
    checks::tree()?;
    deps::check()?;
    process::run(process::command(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
    ))?;
    eprintln!("xtask: static checks done after {} s", start.elapsed().as_secs());
    let tests =
        process::run(process::command("cargo", &["nextest", "run", "--workspace", "--locked"]));
    let report = rows::report(tests.is_ok());
    tests?;
    report?;
    in_directories()?;
    process::run(process::command("cargo", &["test", "--workspace", "--doc", "--locked"]))?;
    torture::run(&["--quick"])?;
    load::run(&["--quick"])?;
    eprintln!("xtask: checks and tests done after {} s", start.elapsed().as_secs());
    Ok(())
}

/// The end-to-end tests whose sandboxes stand on layers, on a host as one without EROFS is. Left out is
/// what takes long or has nothing to do with how a layer is mounted.
fn in_directories() -> Result<()> {
    let start = Instant::now();
    let filter = "test(build::) | test(df::) | test(environment::) | test(gc::) | test(layer) \
        | test(lifecycle::) | test(musl::) | test(pull::) | test(snapshot::)";
    let filter =
        format!("(({filter}) - test(heavy_) - test(s4_3_) - test(s0_2_)) | test(hostile_layers::)");
    let mut tests =
        process::command("cargo", &["nextest", "run", "--locked", "-p", "kiln-cli", "-E", &filter]);
    tests.env("KILN_LAYERS", "directory");
    process::run(tests)?;
    let took = start.elapsed().as_secs();
    eprintln!("xtask: the same with layers in directories done after {took} s");
    Ok(())
}
