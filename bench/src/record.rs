//! Samples as JSON lines: the first line describes the machine, every other one is a sample or a note.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Line {
    /// Where and with what the run was made.
    Machine {
        /// Names and values.
        facts: Value,
    },
    /// One measurement.
    Sample {
        /// Name of the row.
        row: String,
        /// Name of the contestant.
        who: String,
        /// In the row's unit.
        value: f64,
        /// Seconds since the start of the run.
        at: f64,
        /// Load average of the last minute.
        load: f64,
    },
    /// Something that was left out, or that a reader of the row has to know.
    Note {
        /// Name of the row.
        row: String,
        /// The note.
        text: String,
    },
}

/// Writes the lines, and carries what all rows need to decide alike.
#[derive(Debug)]
pub(crate) struct Recorder {
    out: BufWriter<File>,
    path: PathBuf,
    part: PathBuf,
    start: Instant,
    samples: u32,
    runs: u32,
    random: fastrand::Rng,
}

impl Recorder {
    /// Begins a file; it appears under its name when the run has come to its end.
    pub(crate) fn create(path: &Path, facts: Value, runs: u32, seed: u64) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("could not make {}", parent.display()))?;
        }
        let part = path.with_extension("jsonl.part");
        let file =
            File::create(&part).with_context(|| format!("could not make {}", part.display()))?;
        let mut recorder = Self {
            out: BufWriter::new(file),
            path: path.to_owned(),
            part,
            start: Instant::now(),
            samples: 0,
            runs,
            random: fastrand::Rng::with_seed(seed),
        };
        recorder.line(&Line::Machine { facts })?;
        Ok(recorder)
    }

    /// How often the quickest operations are repeated.
    pub(crate) const fn runs(&self) -> u32 {
        self.runs
    }

    /// The source of all order.
    pub(crate) const fn random(&mut self) -> &mut fastrand::Rng {
        &mut self.random
    }

    /// Writes a measurement.
    pub(crate) fn sample(&mut self, row: &str, who: &str, value: f64) -> Result<()> {
        // Micro-units are finer than anything that is measured, and keep the file small.
        let value = (value * 1000.0).round() / 1000.0;
        let at = (self.start.elapsed().as_secs_f64() * 100.0).round() / 100.0;
        let (row, who) = (row.to_owned(), who.to_owned());
        self.samples += 1;
        self.line(&Line::Sample { row, who, value, at, load: load() })
    }

    /// Writes a note, and shows it.
    pub(crate) fn note(&mut self, row: &str, text: &str) -> Result<()> {
        eprintln!("bench: {row}: {text}");
        self.line(&Line::Note { row: row.to_owned(), text: text.to_owned() })
    }

    /// Ends the file.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.out.flush()?;
        fs::rename(&self.part, &self.path)
            .with_context(|| format!("could not rename {}", self.part.display()))
    }

    /// Gives up a run that `error` ended: its samples stay under another name, which the error tells, and
    /// the file of an earlier run is not touched.
    pub(crate) fn abandon(self, error: Error) -> Error {
        if self.samples == 0 {
            let _gone = fs::remove_file(&self.part);
            return error;
        }
        let (part, count) = (self.part.display(), self.samples);
        error.context(format!("the run is not complete; its {count} samples are in {part}"))
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")?;
        self.out.flush().with_context(|| format!("could not write {}", self.part.display()))
    }
}

/// The lines of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("could not read {}; run the benchmarks first", path.display()))?;
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{}, line {}", path.display(), index + 1))
        })
        .collect()
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}
