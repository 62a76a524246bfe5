//! What was asked for on the command line.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::fault::Area;

/// A full run.
const FULL: u64 = 2000;
/// A quick run.
const QUICK: u64 = 200;

/// What `--help` says.
pub(crate) const HELP: &str = "\
kiln-torture --kiln PROGRAM [options]

  --quick           200 points instead of 2000
  --points N        so many points
  --seed N          decides operations, faults, sizes and delays (1)
  --from N          begins with the hundred that point N is in
  --only AREA       kill, tool, point-kill, point-error, files, registry or disk
  --verbose         one line a point
  --kiln PROGRAM    the daemon, built with the feature `failpoints`; `cargo xtask torture` gives it
  --rootfs TAR      the sandboxes' root; without it, one is made of busybox
  --directory DIR   where everything is kept; a new one below the temporary directory
";

/// The options.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    /// The program under test, built with fail points.
    pub(crate) kiln: PathBuf,
    /// Decides everything that is random.
    pub(crate) seed: u64,
    /// How many points.
    pub(crate) points: u64,
    /// The first one.
    pub(crate) from: u64,
    /// Only faults of this area.
    pub(crate) only: Option<Area>,
    /// The root file system of the sandboxes: a tar with busybox.
    pub(crate) rootfs: PathBuf,
    /// Where everything is kept.
    pub(crate) directory: PathBuf,
    /// One line for each point.
    pub(crate) verbose: bool,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (mut kiln, mut rootfs, mut directory) = (None, None, None);
        let (mut seed, mut points, mut from) = (1, None, 0);
        let (mut only, mut quick, mut verbose) = (None, false, false);
        while let Some(word) = words.next() {
            let mut value =
                || words.next().with_context(|| format!("{word} needs a value behind it"));
            match word.as_str() {
                "--kiln" => kiln = Some(PathBuf::from(value()?)),
                "--rootfs" => rootfs = Some(PathBuf::from(value()?)),
                "--directory" => directory = Some(PathBuf::from(value()?)),
                "--seed" => seed = number(&word, &value()?)?,
                "--points" => points = Some(number(&word, &value()?)?),
                "--from" => from = number(&word, &value()?)?,
                "--only" => only = Some(Area::parse(&value()?)?),
                "--quick" => quick = true,
                "--verbose" => verbose = true,
                other => bail!("`{other}` is no option of the torture harness"),
            }
        }
        let directory = directory.map_or_else(
            || std::env::temp_dir().join(format!("kiln-torture-{}", std::process::id())),
            PathBuf::from,
        );
        Ok(Self {
            kiln: kiln.context("--kiln PROGRAM is missing; `cargo xtask torture` gives it")?,
            rootfs: match rootfs {
                Some(rootfs) => rootfs,
                None => crate::fixture::busybox(&directory)?,
            },
            directory,
            seed,
            points: points.unwrap_or(if quick { QUICK } else { FULL }),
            from,
            only,
            verbose,
        })
    }
}

fn number(option: &str, text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("{option} {text}: not a number"))
}
