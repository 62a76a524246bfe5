//! What happens at a point: decided by the seed, the number and what is there.

use std::path::Path;

use kiln_failpoint::{POINTS, Point};

use crate::arguments::Arguments;
use crate::collect::{Collection, Much, Said};
use crate::epoch::Epoch;
use crate::fault::{Area, Damage, Fault, Misdeed, Victim};
use crate::operation::Operation;
use crate::rng::Rng;
use crate::tools::Moment;

/// Points that share one data directory.
pub(crate) const EPOCH: u64 = 100;
/// Sandboxes and images beyond this are removed before more are made.
const MANY_SANDBOXES: usize = 5;
const MANY_IMAGES: usize = 7;

/// The first point of the epoch that `point` is in: from there on a run is the same again.
pub(crate) fn epoch_start(point: u64) -> u64 {
    point - point % EPOCH
}

/// The plan.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    pub(crate) operations: Vec<Operation>,
}

/// Whether an epoch has its data on a small disk.
pub(crate) fn on_small_disk(arguments: &Arguments, epoch: u64) -> bool {
    match arguments.only {
        Some(area) => area == Area::Disk,
        // Two epochs are a quick run, and have both kinds.
        None => epoch % 4 == 1,
    }
}

/// Whether an epoch's daemon mounts layers out of directories: one in five, chosen by the seed. Never the
/// first, so that a quick run has the usual way.
pub(crate) fn in_directories(arguments: &Arguments, epoch: u64) -> bool {
    epoch % 5 == 1 + Rng::new(arguments.seed, u64::MAX).below(4)
}

/// Makes the plan of a point.
pub(crate) fn plan(arguments: &Arguments, number: u64, epoch: &Epoch) -> Plan {
    let (source, small) = (&epoch.source, epoch.disk.is_some());
    let mut rng = Rng::new(arguments.seed, number);
    let area = arguments.only.unwrap_or_else(|| {
        if small && rng.chance(2, 3) {
            return Area::Disk;
        }
        match rng.below(100) {
            0..21 => Area::Kill,
            21..28 => Area::Tool,
            28..60 => Area::PointKill,
            60..76 => Area::PointError,
            76..88 => Area::Files,
            _ => Area::Registry,
        }
    });
    let fault = fault(area, arguments.seed, number, epoch, &mut rng);
    let mut operations: Vec<Operation> = Vec::new();
    let count = if rng.chance(1, 4) { 2 + rng.below(2) } else { 1 };
    for _ in 0..count {
        let wanted = if operations.is_empty() { wanted(&fault, &mut rng) } else { Kind::Any };
        let number = number * 10 + operations.len() as u64;
        let next = operation(wanted, number, &mut rng, epoch, &arguments.rootfs);
        let taken = |subject: &&str| operations.iter().any(|op| op.subjects().contains(subject));
        if !next.subjects().iter().any(taken) {
            operations.push(next);
        }
    }
    if let [Operation::Gc(collection)] = operations.as_mut_slice() {
        let may_fail = matches!(fault, Fault::Point { .. } | Fault::Disk { .. });
        collection.said = if may_fail { Said::Most } else { Said::All };
    }
    if let (Fault::Registry { misdeed, times }, Operation::Pull { name, .. }) =
        (&fault, &operations[0])
    {
        source.misbehave(name, *misdeed, *times, &mut rng);
    }
    Plan { fault, operations }
}

fn fault(area: Area, seed: u64, number: u64, epoch: &Epoch, rng: &mut Rng) -> Fault {
    match area {
        Area::Kill => {
            let victim = match rng.below(9) {
                0..5 => Victim::Daemon,
                5..7 => Victim::Launcher,
                7 => Victim::Parked,
                _ => Victim::Agent,
            };
            Fault::Kill { victim, after: rng.below(1300) }
        }
        Area::Tool => tool(epoch, rng),
        Area::PointKill => {
            // All of them in turn, so that a run misses none.
            let point = turn(seed + number, epoch, rng, |_| true);
            Fault::Point { point, nth: nth(point, rng), action: "kill" }
        }
        Area::PointError => {
            let point = turn(seed + number, epoch, rng, |point| point.can_fail);
            let action = if rng.chance(1, 2) { "enospc" } else { "error" };
            Fault::Point { point, nth: nth(point, rng), action }
        }
        Area::Files => Fault::Files(*rng.pick(&[
            Damage::Leftovers,
            Damage::TornBlob,
            Damage::IndexCut,
            Damage::IndexGrown,
            Damage::IndexGone,
            Damage::RecordCut,
            Damage::LogCut,
            Damage::OrphanBuild,
            Damage::OrphanDisk,
            Damage::OrphanBlob,
            Damage::WalGrown,
            Damage::BlobCut,
        ])),
        Area::Registry => {
            let misdeed = *rng.pick(&[
                Misdeed::Reset,
                Misdeed::Truncate,
                Misdeed::Corrupt,
                Misdeed::Lie,
                Misdeed::TooMany,
                Misdeed::Error,
                Misdeed::Stall,
                Misdeed::Endless,
            ]);
            Fault::Registry { misdeed, times: 1 + rng.below(8) as usize }
        }
        Area::Disk => {
            let free_kib = if rng.chance(1, 3) { rng.below(64) } else { rng.below(4000) };
            Fault::Disk { free_kib, restart_full: rng.chance(1, 2) }
        }
    }
}

/// The fail point whose turn it is, of those that can be met.
fn turn(
    number: u64,
    epoch: &Epoch,
    rng: &mut Rng,
    suits: impl Fn(&Point) -> bool,
) -> &'static Point {
    // There are four times as many epochs without directories as with.
    let more = epoch.directories && rng.chance(1, 4);
    let can_be_met = |point: &&'static Point| match point.area {
        "directories" => epoch.directories,
        // Only once in each epoch, at its first start.
        "database" => point.name != "db.created" && !more,
        _ => !more,
    };
    let points: Vec<&'static Point> =
        POINTS.iter().filter(can_be_met).filter(|point| suits(point)).collect();
    points[(number % points.len() as u64) as usize]
}

/// A program of the host is hit.
fn tool(epoch: &Epoch, rng: &mut Rng) -> Fault {
    let program = *rng.pick(epoch.tools.installed());
    let moment = match rng.below(3) {
        0 => Moment::Before,
        1 => Moment::During(rng.below(if program == "mke2fs" { 8_000 } else { 80_000 })),
        _ => Moment::After,
    };
    Fault::Tool { program, moment, daemon: rng.chance(1, 3) }
}

/// Points that are passed often are let pass a few times.
fn nth(point: &Point, rng: &mut Rng) -> u64 {
    match point.area {
        "database" if matches!(point.name, "db.locked" | "db.migrated") => 1,
        "database" => 1 + rng.below(6),
        "garbage" if point.name == "gc.layer-unrecorded" => 1 + rng.below(3),
        "blobs" | "indexes" | "layers" | "slots" => 1 + rng.below(3),
        _ => 1,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Pull,
    Build,
    Create,
    Snapshot,
    Stop,
    Start,
    Remove,
    RemoveImage,
    RemoveSnapshot,
    Gc,
    /// With a disk of a size that there is none of.
    NewSize,
    /// By this driver.
    Runtime(&'static str),
    Debian,
}

/// The operation in which the fault has something to hit.
fn wanted(fault: &Fault, rng: &mut Rng) -> Kind {
    let making = [Kind::Pull, Kind::Build, Kind::Snapshot];
    match fault {
        Fault::Registry { .. } => Kind::Pull,
        Fault::Tool { program: "mke2fs", .. } => Kind::NewSize,
        Fault::Tool { program: "mmdebstrap" | "apt-get", .. } => Kind::Debian,
        Fault::Tool { program, .. } => Kind::Runtime(program),
        Fault::Point { point, .. } => match (point.name, point.area) {
            (
                "blob.remove" | "index.remove" | "layer.unrecorded" | "image.remove"
                | "image.unrecorded" | "layer.doomed",
                _,
            ) => {
                let gc = matches!(point.name, "blob.remove" | "index.remove" | "layer.doomed");
                let removing = [Kind::RemoveImage, Kind::RemoveSnapshot, Kind::Gc];
                *rng.pick(if gc { &removing } else { &removing[..2] })
            }
            (_, "garbage") => Kind::Gc,
            (_, "directories") => Kind::Build,
            (_, "blobs" | "indexes" | "layers" | "images") => *rng.pick(&making),
            ("upper.doomed", _) => Kind::Remove,
            (_, "disks" | "slots") => *rng.pick(&[Kind::Create, Kind::Build]),
            ("sandbox.restarted", _) => Kind::Start,
            ("sandbox.halted", _) => Kind::Stop,
            (
                "sandbox.killed"
                | "sandbox.doomed"
                | "sandbox.ended"
                | "sandbox.disk-removed"
                | "sandbox.unrecorded",
                _,
            ) => Kind::Remove,
            (_, "sandboxes") => Kind::Create,
            ("snapshot.unrecorded", _) => Kind::RemoveSnapshot,
            (_, "snapshots") => Kind::Snapshot,
            (_, "builds") => Kind::Build,
            (_, "pulls") => Kind::Pull,
            _ => Kind::Any,
        },
        Fault::Kill { victim: Victim::Launcher | Victim::Parked, .. } => {
            *rng.pick(&[Kind::Create, Kind::Build, Kind::Any])
        }
        _ => Kind::Any,
    }
}

fn operation(wanted: Kind, number: u64, rng: &mut Rng, epoch: &Epoch, rootfs: &Path) -> Operation {
    let (world, source) = (&epoch.world, &epoch.source);
    let (running, stopped) = (world.sandboxes(Some(true)), world.sandboxes(Some(false)));
    let (all, images) = (world.sandboxes(None), world.images(false));
    let snapshots = world.images(true);
    let pull = |rng: &mut Rng| {
        let name = format!("p{number}");
        Operation::Pull { reference: source.offer(&name, rng), name }
    };
    let build = |rng: &mut Rng| Operation::Build {
        name: format!("b{number}"),
        rootfs: rootfs.display().to_string(),
        prefix: number / 200 * 10 + rng.below(2),
    };
    let create_by = |rng: &mut Rng, disk_mib: Option<u32>, driver: Option<&'static str>| {
        let from: Vec<String> = images.iter().chain(&snapshots).cloned().collect();
        (!from.is_empty()).then(|| Operation::Create {
            name: format!("s{number}"),
            image: rng.pick(&from).clone(),
            disk_mib,
            driver,
        })
    };
    // Hardly ever twice in an epoch.
    let new_size = |rng: &mut Rng| Some(64 + rng.below(100_000) as u32);
    let create = |rng: &mut Rng| {
        let runtimes = epoch.tools.runtimes();
        let disk_mib = if rng.chance(1, 4) { new_size(rng) } else { None };
        let driver = !runtimes.is_empty() && rng.chance(1, 4);
        let driver = driver.then(|| *rng.pick(&runtimes));
        create_by(rng, disk_mib, driver)
    };
    let debian = || Operation::Debian { name: format!("d{number}") };
    let gc = |rng: &mut Rng| {
        let much = match rng.below(8) {
            // Nothing of an hour is old: only builds go, and what is to be hit may not be met.
            0 if wanted == Kind::Any => Much::Old,
            0..4 => Much::Unused,
            _ => Much::All,
        };
        Operation::Gc(Collection { much, said: Said::Nothing })
    };
    let of = |names: &[String], rng: &mut Rng, make: fn(String) -> Operation| {
        (!names.is_empty()).then(|| make(rng.pick(names).clone()))
    };
    let kind = match wanted {
        Kind::Any if all.len() > MANY_SANDBOXES => Kind::Remove,
        Kind::Any if images.len() > MANY_IMAGES => Kind::RemoveImage,
        Kind::Any if snapshots.len() > MANY_IMAGES => Kind::RemoveSnapshot,
        other => other,
    };
    let remove = |sandbox| Operation::Remove { sandbox };
    let chosen = match kind {
        Kind::Pull => Some(pull(rng)),
        Kind::Build => Some(build(rng)),
        Kind::Create => create(rng),
        Kind::NewSize => {
            let disk_mib = new_size(rng);
            create_by(rng, disk_mib, None)
        }
        Kind::Runtime(driver) => create_by(rng, None, Some(driver)),
        Kind::Debian => Some(debian()),
        Kind::Gc => Some(gc(rng)),
        Kind::Stop => of(&running, rng, |sandbox| Operation::Stop { sandbox }),
        Kind::Start => of(&stopped, rng, |sandbox| Operation::Start { sandbox }),
        Kind::Remove => of(&all, rng, remove),
        Kind::RemoveImage => of(&images, rng, |name| Operation::RemoveImage { name }),
        Kind::RemoveSnapshot => of(&snapshots, rng, |name| Operation::RemoveSnapshot { name }),
        Kind::Snapshot => {
            // One that has changed nothing gives no layer, and no image of its own.
            let written = |name: &&String| {
                epoch.world.sandboxes[*name].files.keys().any(|path| path.starts_with("/root/"))
            };
            let changed: Vec<String> = all.iter().filter(written).cloned().collect();
            let from = if changed.is_empty() { &all } else { &changed };
            (!from.is_empty()).then(|| Operation::Snapshot {
                name: format!("n{number}"),
                sandbox: rng.pick(from).clone(),
            })
        }
        Kind::Any => match rng.below(22) {
            0..3 => Some(pull(rng)),
            3..6 => Some(build(rng)),
            6..9 => create(rng),
            9..12 => (!running.is_empty()).then(|| Operation::Exec {
                sandbox: rng.pick(&running).clone(),
                path: format!("/root/f{}", rng.below(4)),
                content: format!("w{number}"),
            }),
            12..14 => (!all.is_empty()).then(|| Operation::Snapshot {
                name: format!("n{number}"),
                sandbox: rng.pick(&all).clone(),
            }),
            14 => of(&running, rng, |sandbox| Operation::Stop { sandbox }),
            15 => of(&stopped, rng, |sandbox| Operation::Start { sandbox }),
            16..18 => of(&all, rng, remove),
            18 => of(&images, rng, |name| Operation::RemoveImage { name }),
            19 => of(&snapshots, rng, |name| Operation::RemoveSnapshot { name }),
            20 => Some(gc(rng)),
            _ => Some(debian()),
        },
    };
    // Where there is nothing to do it to, something to do it to is made.
    chosen.or_else(|| create(rng)).unwrap_or_else(|| build(rng))
}
