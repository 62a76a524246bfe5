//! From a template to a running sandbox, the same again from the cache, and a snapshot of it.

mod daemon;
mod table;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use self::daemon::Daemon;
use self::table::Table;
use crate::{packages, process};

const TEMPLATE: &str = "examples/python-ml/template.json";
const PROGRAM: &str = "examples/python-ml/check.py";
/// How often the short operations are repeated for a median.
const REPEATS: usize = 9;

/// Runs the demo. With `check`, asserts every result and removes everything at the end.
pub(crate) fn demo(check: bool) -> Result<()> {
    ensure!(packages::is_root(), "the demo makes namespaces and mounts: run it as root");
    packages::install(packages::DEMO)?;
    process::run(process::command("cargo", &["build", "--release", "--locked", "-p", "kiln-cli"]))?;
    let daemon = Daemon::start()?;
    match tour(&daemon, check) {
        Ok(table) => {
            table.print();
            if check {
                daemon.remove()?;
                eprintln!("demo: every result is as it must be, and everything was removed");
            } else {
                daemon.leave_running();
            }
            Ok(())
        }
        Err(error) => {
            daemon.show_log();
            if check {
                daemon.remove()?;
            }
            Err(error)
        }
    }
}

fn tour(kiln: &Daemon, check: bool) -> Result<Table> {
    let mut table = Table::default();
    eprintln!("demo: layers are mounted as: {}", kiln.layers()?);

    say("the first build: base, packages, pip");
    let (build, time) = timed(|| kiln.json(&["build", TEMPLATE]))?;
    table.row("first build", &[time]);
    let image = text(&build, "image");
    ensure!(!check || build["status"] == "succeeded", "the build did not succeed: {build}");

    say("a sandbox of it runs a program that uses numpy and pandas");
    let sandbox = kiln.line(&["create", "python-ml", "--name", "demo"])?;
    let program = fs::read_to_string(crate::root().join(PROGRAM))?;
    let output = kiln.line_with_input(&["exec", "-i", "demo", "--", "python3", "-"], &program)?;
    eprintln!("{output}");
    // One line needs numpy, the other pandas; both are the same on every machine.
    for line in ["fit: slope 3.000, offset 7.0", "means: fizz 3"] {
        ensure!(!check || output.contains(line), "no {line:?} in {output}");
    }

    say("the same build again: no step runs");
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let (again, time) = timed(|| kiln.json(&["build", TEMPLATE]))?;
        times.push(time);
        ensure!(again["steps_cached"] == again["steps_total"], "a step ran again: {again}");
        ensure!(text(&again, "image") == image, "the image changed: {again}");
    }
    table.row("cached build", &times);

    say("sandboxes from the cache");
    let (mut creates, mut removals) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let (id, time) = timed(|| kiln.line(&["create", "python-ml"]))?;
        creates.push(time);
        removals.push(timed(|| kiln.line(&["rm", "-f", &id]))?.1);
    }
    table.row("create", &creates);
    let mut execs = Vec::new();
    for _ in 0..REPEATS {
        execs.push(timed(|| kiln.line(&["exec", "demo", "--", "true"]))?.1);
    }
    table.row("exec", &execs);
    table.row("remove", &removals);

    say("a change, and a snapshot of it");
    kiln.line(&["exec", "demo", "--", "sh", "-c", "echo fired > /workspace/clay; rm /etc/motd"])?;
    let (_, time) = timed(|| kiln.line(&["snapshot", "demo", "demo-snapshot"]))?;
    table.row("snapshot", &[time]);
    let copy = kiln.line(&["create", "demo-snapshot", "--name", "copy"])?;
    let clay = kiln.line(&["exec", "copy", "--", "cat", "/workspace/clay"])?;
    ensure!(!check || clay == "fired", "the snapshot lost the change: {clay:?}");
    let motd = kiln.line(&["exec", "copy", "--", "sh", "-c", "test -e /etc/motd || echo gone"])?;
    ensure!(!check || motd == "gone", "the snapshot lost the removal: {motd:?}");
    let code = kiln.code(&["run", "python-ml", "--", "sh", "-c", "exit 7"])?;
    ensure!(!check || code == Some(7), "`kiln run` lost the exit code: {code:?}");
    eprintln!("demo: sandboxes {sandbox} and {copy} run");
    Ok(table)
}

fn timed<T>(run: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    let value = run()?;
    Ok((value, start.elapsed()))
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn say(what: &str) {
    eprintln!("\ndemo: {what}");
}
