//! The rows of the table.

mod build;
mod burst;
mod create;
mod depth;
mod drivers;
mod exec;
mod ingest;
mod memory;
mod pull;
mod snapshot;
mod start;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::record::Recorder;
use crate::rig::Rig;
use crate::{Args, earlier, interrupt, machine};

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name, for `--only` and in the file.
    pub name: &'static str,
    /// What it is called in the table.
    pub title: &'static str,
    /// The unit of its values.
    pub unit: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// What Kiln's median has to keep, in the unit.
    pub budget: Option<f64>,
    /// What Kiln's tail has to keep, in the unit.
    pub tail_budget: Option<f64>,
}

impl Row {
    const fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title, unit: "ms", higher_is_better: false, budget: None, tail_budget: None }
    }

    const fn budget(self, budget: f64) -> Self {
        Self { budget: Some(budget), ..self }
    }

    const fn tail_budget(self, budget: f64) -> Self {
        Self { tail_budget: Some(budget), ..self }
    }

    const fn rate(self) -> Self {
        Self { unit: "MB/s", higher_is_better: true, ..self }
    }

    const fn mebibytes(self) -> Self {
        Self { unit: "MiB", ..self }
    }
}

/// All rows, in the order of the table.
pub(crate) const ROWS: [Row; 24] = [
    Row::new("create-api", "create + first exec, API").budget(10.0).tail_budget(25.0),
    Row::new("create-drivers", "create + first exec by Kiln's drivers, API"),
    Row::new("create-cli", "create, run `true`, remove, CLI"),
    Row::new("burst-20", "20 creates at once, each answering an exec: until the last answered"),
    Row::new("burst-100", "100 creates at once, each answering an exec: until the last answered"),
    Row::new("burst-100-each", "100 creates at once: the time of each"),
    Row::new("exec-api", "exec in a running sandbox, API").budget(2.0),
    Row::new("exec-cli", "exec in a running sandbox, CLI"),
    Row::new("cached-5", "cached build of 5 steps, CLI"),
    Row::new("cached-50", "cached build of 50 steps, CLI"),
    Row::new("cached-5-api", "cached build of 5 steps, API").budget(5.0),
    Row::new("cached-50-api", "cached build of 50 steps, API").budget(20.0),
    Row::new("uncached-5", "uncached build of 5 steps, CLI"),
    Row::new("uncached-5-engine", "uncached build of 5 steps, without the commands' own time")
        .budget(150.0),
    Row::new("pull", "base image from a loopback registry until it can be mounted"),
    Row::new("pull-exec", "base image from a loopback registry to the first exec"),
    Row::new("ingest", "a layer's tar into the store").rate(),
    Row::new("snapshot", "snapshot of what a sandbox changed").rate().budget(300.0),
    Row::new("memory", "memory of an idle sandbox").mebibytes().budget(2.0),
    Row::new("layers-1", "create + first exec on 1 layer, API"),
    Row::new("layers-10", "create + first exec on 10 layers, API"),
    Row::new("layers-50", "create + first exec on 50 layers, API"),
    Row::new("start", "daemon start with 10 000 images and 1000 stopped sandboxes").budget(2000.0),
    Row::new("pause", "pause and resume"),
];

/// A measurement, and the rows that it fills.
type Group = (&'static [&'static str], fn(&mut Recorder, &Rig) -> Result<()>);

const GROUPS: &[Group] = &[
    (&["create-api"], create::api),
    (&["create-drivers"], create::by_drivers),
    (&["create-cli"], create::cli),
    (&["exec-api"], exec::api),
    (&["exec-cli"], exec::cli),
    (&["cached-5", "cached-50"], build::cached_cli),
    (&["cached-5-api", "cached-50-api"], build::cached_api),
    (&["uncached-5", "uncached-5-engine"], build::uncached),
    (&["layers-1", "layers-10", "layers-50"], depth::layers),
    (&["pull", "pull-exec"], pull::pull),
    (&["ingest"], ingest::ingest),
    (&["snapshot"], snapshot::snapshot),
    (&["memory"], memory::memory),
    (&["burst-20", "burst-100", "burst-100-each"], burst::burst),
    (&["start"], start::start),
    (&["pause"], pause),
];

/// Measures the rows that are asked for, into a file.
pub(crate) fn run(args: &Args, file: &Path) -> Result<()> {
    let wanted =
        |name: &str| args.only.is_empty() || args.only.iter().any(|only| name.contains(only));
    let groups: Vec<&Group> =
        GROUPS.iter().filter(|(rows, _)| rows.iter().any(|row| wanted(row))).collect();
    ensure!(!groups.is_empty(), "no row is called so; `--list` names them");
    let runs = if args.quick { 3 } else { args.runs };
    interrupt::catch()?;
    earlier::sweep(&args.kiln)?;
    let rig = Rig::new(&args.kiln, &args.cache)?;
    let facts = machine::facts(rig.program(), runs, args.seed);
    let mut recorder = Recorder::create(file, facts, runs, args.seed)?;
    let measured = groups.into_iter().try_for_each(|group| measure(&mut recorder, &rig, group));
    interrupt::tidy();
    drop(rig);
    match measured {
        Ok(()) => recorder.finish(),
        Err(error) => Err(recorder.abandon(interrupt::check().err().unwrap_or(error))),
    }
}

fn measure(recorder: &mut Recorder, rig: &Rig, (rows, measure): &Group) -> Result<()> {
    let start = Instant::now();
    interrupt::check()?;
    measure(recorder, rig).with_context(|| rows.join(", "))?;
    eprintln!("bench: {}: {:.0} s", rows.join(", "), start.elapsed().as_secs_f64());
    Ok(())
}

fn pause(recorder: &mut Recorder, _: &Rig) -> Result<()> {
    recorder.note("pause", "not measured: the API has no pause")
}
