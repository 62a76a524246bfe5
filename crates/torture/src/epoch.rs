//! An epoch: points that share one data directory, so that what one leaves, the next one meets.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::arguments::Arguments;
use crate::daemon::Daemon;
use crate::disk::SmallDisk;
use crate::operation::{DEBIAN, Operation, Outcome};
use crate::plan;
use crate::registry::Source;
use crate::report::Report;
use crate::rng::Rng;
use crate::tools::Tools;
use crate::world::World;
use crate::{checks, host, point};

/// What the points of an epoch share. The order of the fields is that of their end.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) daemon: Daemon,
    pub(crate) tools: Tools,
    pub(crate) source: Source,
    pub(crate) world: World,
    /// Layers are mounted out of directories, as on a host without EROFS.
    pub(crate) directories: bool,
    pub(crate) disk: Option<SmallDisk>,
    pub(crate) directory: PathBuf,
}

/// Runs the points of `numbers`.
pub(crate) async fn run(
    arguments: &Arguments,
    numbers: Range<u64>,
    report: &mut Report,
) -> Result<()> {
    let mut epoch = begin(arguments, numbers.start / plan::EPOCH, report).await?;
    for number in numbers {
        let done = point::run(arguments, &mut epoch, number, report).await;
        done.with_context(|| {
            format!(
                "seed {}, point {number} failed; everything is kept in {}; again with --seed {} --from {number}",
                arguments.seed,
                epoch.directory.display(),
                arguments.seed
            )
        })?;
    }
    end(epoch).await
}

async fn begin(arguments: &Arguments, number: u64, report: &mut Report) -> Result<Epoch> {
    let directory = arguments.directory.join(format!("epoch-{number}"));
    ensure!(
        !directory.exists(),
        "{} is of another run: remove it, or choose another --directory",
        directory.display()
    );
    fs::create_dir_all(&directory)?;
    // A name of its own, by which its processes are known, and that no compiler writes to.
    let program = arguments.directory.join("kiln");
    if !program.exists() {
        fs::copy(&arguments.kiln, &program)
            .with_context(|| format!("could not copy {}", arguments.kiln.display()))?;
    }
    let disk = plan::on_small_disk(arguments, number).then(|| SmallDisk::make(&directory));
    let disk = disk.transpose()?;
    let data = disk.as_ref().map_or(directory.as_path(), SmallDisk::path).join("data");
    let source = Source::start(&arguments.rootfs).await?;
    let host = source.host();
    let config = format!(
        "pool_size = {}\nstop_grace_ms = 500\ndrain_ms = 2000\n[gc]\nkeep_builds = 4\n\
         [catalog]\n{DEBIAN:?} = [{{ debian_archive = {{ suite = \"bookworm\" }} }}]\n[registries]\nplain_http = [{host:?}]\nattempts = 3\n\
         backoff_ms = 5\nread_timeout_ms = 300\nmax_retry_after_ms = 50\n",
        checks::POOL
    );
    let tools = Tools::start(&directory.join("tools"), &arguments.rootfs)?;
    let mut environment = tools.environment();
    let directories = plan::in_directories(arguments, number);
    if directories {
        environment.push(("KILN_LAYERS".to_owned(), "directory".to_owned()));
    }
    report.epoch(number, disk.is_some(), directories);
    let mut daemon = Daemon::new(&program, &directory, &data, config, environment)?;
    first_start(arguments, &mut daemon, number, report)?;
    report.restart(daemon.start()?);
    let world = World::default();
    let mut epoch = Epoch { daemon, tools, source, world, directories, disk, directory };
    furnish(arguments, &mut epoch, number).await?;
    Ok(epoch)
}

/// A start on nothing is cut off, or fails, when the database's file was just made.
fn first_start(
    arguments: &Arguments,
    daemon: &mut Daemon,
    number: u64,
    report: &mut Report,
) -> Result<()> {
    const NAME: &str = "db.created";
    let action = ["kill", "enospc", "error"][((arguments.seed + number) % 3) as usize];
    fs::write(daemon.plan_file(), format!("{NAME}={action}"))?;
    let started = daemon.start();
    let fired = daemon.plan_file().with_extension("fired");
    ensure!(started.is_err() && fired.exists(), "a first start does not pass {NAME}");
    fs::remove_file(fired)?;
    report.first_start(NAME, action);
    Ok(fs::write(daemon.plan_file(), "")?)
}

/// Makes what the first points work with, and learns how long operations take.
async fn furnish(arguments: &Arguments, epoch: &mut Epoch, number: u64) -> Result<()> {
    let rootfs = arguments.rootfs.display().to_string();
    let mut rng = Rng::new(arguments.seed, u64::MAX - number);
    let reference = epoch.source.offer("p-first", &mut rng);
    let sandbox = |name: &str| name.to_owned();
    let create = |name: &str, image: &str| Operation::Create {
        name: name.to_owned(),
        image: image.to_owned(),
        disk_mib: None,
        driver: None,
    };
    let operations = [
        Operation::Build { name: "b-first".into(), rootfs, prefix: 1 },
        Operation::Pull { name: "p-first".into(), reference },
        create("s-first", "b-first"),
        create("s-second", "p-first"),
        Operation::Exec {
            sandbox: sandbox("s-first"),
            path: "/root/f0".into(),
            content: "first".into(),
        },
        Operation::Snapshot { name: "n-first".into(), sandbox: sandbox("s-first") },
        Operation::Snapshot { name: "n-second".into(), sandbox: sandbox("s-first") },
        Operation::Stop { sandbox: sandbox("s-second") },
        Operation::Start { sandbox: sandbox("s-second") },
        Operation::RemoveSnapshot { name: "n-second".into() },
        create("s-third", "n-first"),
        Operation::Remove { sandbox: sandbox("s-third") },
        Operation::Build {
            name: "b-second".into(),
            rootfs: arguments.rootfs.display().to_string(),
            prefix: 2,
        },
        Operation::RemoveImage { name: "b-second".into() },
    ];
    for operation in operations {
        operation.begin(&mut epoch.world);
        let (outcome, time) = operation.ask(epoch.daemon.client()).await;
        ensure!(matches!(outcome, Outcome::Done), "{operation:?}: {outcome:?}");
        operation.end(&mut epoch.world, &outcome);
        epoch.world.took(operation.kind(), time);
    }
    Ok(())
}

/// Looks at everything once more, then removes it in order and looks whether anything is left.
async fn end(mut epoch: Epoch) -> Result<()> {
    let all = epoch.world.images.keys().chain(epoch.world.sandboxes.keys()).cloned().collect();
    checks::journal(&epoch.daemon, &mut epoch.world, &all).await.context("at the epoch's end")?;
    let block = host::block(epoch.daemon.data())?.context("the daemon has a share of the host")?;
    for name in epoch.world.sandboxes(None) {
        epoch.daemon.client().remove_sandbox(&name, true).await?;
    }
    for name in epoch.world.images(true) {
        epoch.daemon.client().remove_snapshot(&name).await?;
    }
    for name in epoch.world.images(false) {
        epoch.daemon.client().remove_image(&name).await?;
    }
    epoch.daemon.terminate()?;
    checks::gone(epoch.daemon.program(), epoch.daemon.data(), block).await?;
    let Epoch { daemon, tools, disk, directory, .. } = epoch;
    drop((daemon, tools, disk));
    fs::remove_dir_all(&directory)
        .with_context(|| format!("could not remove {}", directory.display()))
}
