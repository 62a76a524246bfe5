//! What happens at a point: decided by the seed, the number and what is there.

use std::path::Path;

use kiln_failpoint::{POINTS, Point};

use crate::arguments::Arguments;
use crate::fault::{Area, Damage, Fault, Misdeed, Victim};
use crate::operation::Operation;
use crate::registry::Source;
use crate::rng::Rng;
use crate::world::World;

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

/// Makes the plan of a point.
pub(crate) fn plan(
    arguments: &Arguments,
    number: u64,
    small: bool,
    world: &World,
    source: &Source,
) -> Plan {
    let mut rng = Rng::new(arguments.seed, number);
    let area = arguments.only.unwrap_or_else(|| {
        if small && rng.chance(2, 3) {
            return Area::Disk;
        }
        match rng.below(100) {
            0..28 => Area::Kill,
            28..60 => Area::PointKill,
            60..76 => Area::PointError,
            76..88 => Area::Files,
            _ => Area::Registry,
        }
    });
    let fault = fault(area, arguments.seed, number, &mut rng);
    let mut operations: Vec<Operation> = Vec::new();
    let count = if rng.chance(1, 4) { 2 + rng.below(2) } else { 1 };
    for _ in 0..count {
        let wanted = if operations.is_empty() { wanted(&fault, &mut rng) } else { Kind::Any };
        let number = number * 10 + operations.len() as u64;
        let next = operation(wanted, number, &mut rng, world, source, &arguments.rootfs);
        let taken = |subject: &&str| operations.iter().any(|op| op.subjects().contains(subject));
        if !next.subjects().iter().any(taken) {
            operations.push(next);
        }
    }
    if let (Fault::Registry { misdeed, times }, Operation::Pull { name, .. }) =
        (&fault, &operations[0])
    {
        source.misbehave(name, *misdeed, *times, &mut rng);
    }
    Plan { fault, operations }
}

fn fault(area: Area, seed: u64, number: u64, rng: &mut Rng) -> Fault {
    match area {
        Area::Kill => {
            let victim = match rng.below(10) {
                0..5 => Victim::Daemon,
                5..7 => Victim::Launcher,
                7 => Victim::Parked,
                8 => Victim::Tool,
                _ => Victim::Agent,
            };
            Fault::Kill { victim, after: rng.below(1300) }
        }
        Area::PointKill => {
            // All of them in turn, so that a run misses none.
            let point = &POINTS[((seed + number) % POINTS.len() as u64) as usize];
            Fault::Point { point, nth: nth(point, rng), action: "kill" }
        }
        Area::PointError => {
            let points: Vec<&'static Point> =
                POINTS.iter().filter(|point| point.can_fail).collect();
            let point = points[((seed + number) % points.len() as u64) as usize];
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

/// Points that are passed often are let pass a few times.
fn nth(point: &Point, rng: &mut Rng) -> u64 {
    match point.area {
        "database" => 1 + rng.below(6),
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
}

/// The operation in which the fault has something to hit.
fn wanted(fault: &Fault, rng: &mut Rng) -> Kind {
    let making = [Kind::Pull, Kind::Build, Kind::Snapshot];
    match fault {
        Fault::Registry { .. } => Kind::Pull,
        Fault::Point { point, .. } => match (point.name, point.area) {
            (
                "blob.remove" | "index.remove" | "layer.unrecorded" | "image.remove"
                | "image.unrecorded",
                _,
            ) => *rng.pick(&[Kind::RemoveImage, Kind::RemoveSnapshot]),
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

fn operation(
    wanted: Kind,
    number: u64,
    rng: &mut Rng,
    world: &World,
    source: &Source,
    rootfs: &Path,
) -> Operation {
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
    let create = |rng: &mut Rng| {
        let from: Vec<String> = images.iter().chain(&snapshots).cloned().collect();
        (!from.is_empty()).then(|| Operation::Create {
            name: format!("s{number}"),
            image: rng.pick(&from).clone(),
        })
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
        Kind::Stop => of(&running, rng, |sandbox| Operation::Stop { sandbox }),
        Kind::Start => of(&stopped, rng, |sandbox| Operation::Start { sandbox }),
        Kind::Remove => of(&all, rng, remove),
        Kind::RemoveImage => of(&images, rng, |name| Operation::RemoveImage { name }),
        Kind::RemoveSnapshot => of(&snapshots, rng, |name| Operation::RemoveSnapshot { name }),
        Kind::Snapshot => (!all.is_empty()).then(|| Operation::Snapshot {
            name: format!("n{number}"),
            sandbox: rng.pick(&all).clone(),
        }),
        Kind::Any => match rng.below(20) {
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
            _ => of(&snapshots, rng, |name| Operation::RemoveSnapshot { name }),
        },
    };
    // Where there is nothing to do it to, something to do it to is made.
    chosen.or_else(|| create(rng)).unwrap_or_else(|| build(rng))
}
