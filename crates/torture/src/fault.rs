//! What can go wrong, by area.

use anyhow::{Result, bail};
use kiln_failpoint::Point;

use crate::tools::Moment;

/// Where faults come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Area {
    /// A process is killed at a random moment.
    Kill,
    /// A program of the host is hit at a chosen place of its work, or the daemon meanwhile.
    Tool,
    /// The daemon dies at a fail point.
    PointKill,
    /// The operation fails at a fail point.
    PointError,
    /// Files are damaged, or left over, while the daemon is down.
    Files,
    /// The registry misbehaves.
    Registry,
    /// The disk is full.
    Disk,
}

impl Area {
    pub(crate) const ALL: [Self; 7] = [
        Self::Kill,
        Self::Tool,
        Self::PointKill,
        Self::PointError,
        Self::Files,
        Self::Registry,
        Self::Disk,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Tool => "tool",
            Self::PointKill => "point-kill",
            Self::PointError => "point-error",
            Self::Files => "files",
            Self::Registry => "registry",
            Self::Disk => "disk",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|area| area.name() == text) {
            Some(area) => Ok(area),
            None => bail!(
                "--only {text}: not an area; there are {}",
                Self::ALL.map(Self::name).join(", ")
            ),
        }
    }
}

/// Which process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Daemon,
    Launcher,
    Parked,
    Agent,
}

/// What the registry does instead of its duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    Reset,
    Truncate,
    Corrupt,
    Lie,
    TooMany,
    Error,
    Stall,
    Endless,
}

/// What happens to files while the daemon is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Files with the names of temporary ones.
    Leftovers,
    /// A temporary blob of a daemon that is gone, cut off.
    TornBlob,
    /// An index is cut off.
    IndexCut,
    /// An index is longer than it was.
    IndexGrown,
    /// An index is gone.
    IndexGone,
    /// A running sandbox's record is cut off.
    RecordCut,
    /// The log of a build ends in the middle of an event.
    LogCut,
    /// A build's directory without a row.
    OrphanBuild,
    /// A disk without a row.
    OrphanDisk,
    /// A blob and an index without a row.
    OrphanBlob,
    /// Bytes behind the end of the database's log.
    WalGrown,
    /// A layer's tar is cut off.
    BlobCut,
}

/// A fault of one point.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// After this share (in thousandths) of the operation's usual time.
    Kill {
        victim: Victim,
        after: u64,
    },
    /// At the nth passing of a fail point.
    Point {
        point: &'static Point,
        nth: u64,
        action: &'static str,
    },
    /// A program of the host is killed, or the daemon while it runs.
    Tool {
        program: &'static str,
        moment: Moment,
        daemon: bool,
    },
    Files(Damage),
    Registry {
        misdeed: Misdeed,
        times: usize,
    },
    /// So many KiB are free when the operation begins.
    Disk {
        free_kib: u64,
        restart_full: bool,
    },
}

impl Fault {
    /// What tables call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Kill { victim, .. } => format!("{victim:?}").to_lowercase(),
            Self::Tool { program, moment, daemon } => {
                let moment = match moment {
                    Moment::Before => "before",
                    Moment::During(_) => "during",
                    Moment::After => "after",
                };
                let victim = if *daemon { "daemon" } else { program };
                format!("{victim}, {moment} the work of {program}")
            }
            Self::Point { point, action, .. } => format!("{action} in {}", point.area),
            Self::Files(damage) => format!("{damage:?}"),
            Self::Registry { misdeed, .. } => format!("{misdeed:?}").to_lowercase(),
            Self::Disk { restart_full: false, .. } => "full".into(),
            Self::Disk { restart_full: true, .. } => "full, restart on it".into(),
        }
    }

    /// Whether it can strike while operations are under way; otherwise it does at the next start.
    pub(crate) fn while_running(&self) -> bool {
        match self {
            Self::Point { point, .. } => {
                point.area != "start"
                    && !matches!(point.name, "db.created" | "db.locked" | "db.migrated")
            }
            _ => true,
        }
    }

    /// Whether the daemon dies of it.
    pub(crate) fn ends_the_daemon(&self) -> bool {
        matches!(
            self,
            Self::Kill { victim: Victim::Daemon, .. }
                | Self::Tool { daemon: true, .. }
                | Self::Point { action: "kill", .. }
        )
    }

    pub(crate) fn area(&self) -> Area {
        match self {
            Self::Kill { .. } => Area::Kill,
            Self::Tool { .. } => Area::Tool,
            Self::Point { action: "kill", .. } => Area::PointKill,
            Self::Point { .. } => Area::PointError,
            Self::Files(_) => Area::Files,
            Self::Registry { .. } => Area::Registry,
            Self::Disk { .. } => Area::Disk,
        }
    }
}
