//! One sandbox's groups: making, opening, filling and removing them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::control::{Patience, directories, failed, is_missing, read_pids, write};
use super::hierarchy::{V1, plain};
use super::{CgroupError, Hierarchy};

/// How many processes an error names.
const NAMED: usize = 8;

/// The control groups of one sandbox, in all hierarchies.
#[derive(Debug)]
pub struct Group {
    pub(super) v1: Vec<V1>,
    pub(super) v2: Option<PathBuf>,
    /// Where a runtime may have made groups of the same name. Nothing is only in those.
    pub(super) others: Vec<PathBuf>,
    pub(super) killed: AtomicBool,
}

impl Group {
    /// Makes the group. An empty one of that name, of an earlier life, is removed first: a version 2
    /// group that was once killed kills whatever is later started in it.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] when the earlier one still has processes; otherwise the step that failed,
    /// after which nothing of the group is left.
    pub fn create(hierarchy: &Hierarchy, parent: &str, name: &str) -> Result<Group, CgroupError> {
        if let Some(earlier) = Group::open(hierarchy, parent, name)? {
            let pids = earlier.pids()?;
            if !pids.is_empty() {
                return Err(earlier.busy(pids));
            }
            earlier.remove(Duration::from_secs(1))?;
        }
        hierarchy.prepare(parent)?;
        let mut group = Group::at(hierarchy, parent, name)?;
        let made = group.make();
        if made.is_err() {
            // The first error is the one to report.
            let _ = group.remove(Duration::ZERO);
        }
        made.map(|()| group)
    }

    /// An existing group, `None` when nothing of it is there.
    pub fn open(
        hierarchy: &Hierarchy,
        parent: &str,
        name: &str,
    ) -> Result<Option<Group>, CgroupError> {
        let mut group = Group::at(hierarchy, parent, name)?;
        group.v1.retain(|v1| v1.path.is_dir());
        group.v2 = group.v2.filter(|path| path.is_dir());
        Ok((!group.v1.is_empty() || group.v2.is_some()).then_some(group))
    }

    /// Moves a process (with all its threads) into the group; what it starts later is there as well.
    ///
    /// Moving is slow in version 1 (some ms): better start processes from one that is in the group, or
    /// with `CLONE_INTO_CGROUP`.
    pub fn add_process(&self, pid: u32) -> Result<(), CgroupError> {
        self.alive()?;
        for path in self.directories() {
            write(&path.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// The version 2 directory, for `CLONE_INTO_CGROUP`. Version 1 groups have to be entered besides.
    pub fn v2_dir(&self) -> Result<Option<OwnedFd>, CgroupError> {
        self.alive()?;
        let open = |path: &PathBuf| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
                .map_err(|errno| failed("open", path)(errno.into()))
        };
        self.v2.as_ref().map(open).transpose()
    }

    /// The version 2 directory on a host whose limits are all in version 1. What only knows the one kind or
    /// the other leaves it as it is.
    pub(crate) fn v2_without_limits(&self) -> Option<&Path> {
        let limits = ["cpu", "memory", "pids"];
        self.v2.as_deref().filter(|_| limits.iter().any(|name| self.v1_of(name).is_some()))
    }

    /// The processes in the group, in any hierarchy, in order.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        for path in self.directories() {
            match read_pids(&path.join("cgroup.procs")) {
                Err(CgroupError::File { source, .. }) if is_missing(&source) => {}
                other => pids.extend(other?),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes the group and all groups in it, retrying until the deadline while the kernel says that
    /// it is busy. What is not there is not missed.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] when something still runs in it.
    pub fn remove(&self, deadline: Duration) -> Result<(), CgroupError> {
        let patience = Patience::new(deadline);
        for path in self.others.iter().map(PathBuf::as_path).chain(self.directories()) {
            loop {
                match remove_tree(path) {
                    Ok(()) => break,
                    Err(CgroupError::File { source, .. })
                        if source.raw_os_error() == Some(libc::EBUSY) => {}
                    Err(other) => return Err(other),
                }
                let Some(step) = patience.step() else { return Err(self.busy(self.pids()?)) };
                std::thread::sleep(step);
            }
        }
        Ok(())
    }

    /// Where a controller is.
    pub(super) fn v1_of(&self, controller: &str) -> Option<&Path> {
        let found = self.v1.iter().find(|v1| v1.controllers.contains(&controller));
        found.map(|v1| v1.path.as_path())
    }

    /// The directories in all hierarchies.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.v2.as_deref().into_iter().chain(self.v1.iter().map(|v1| v1.path.as_path()))
    }

    /// The directory that stands for the group in errors.
    pub(super) fn path(&self) -> PathBuf {
        self.directories().next().map(PathBuf::from).unwrap_or_default()
    }

    fn at(hierarchy: &Hierarchy, parent: &str, name: &str) -> Result<Group, CgroupError> {
        plain(parent)?;
        plain(name)?;
        let below = |path: &PathBuf| path.join(parent).join(name);
        let v1 = hierarchy.v1.iter().map(|v1| V1 { path: below(&v1.path), ..v1.clone() });
        Ok(Group {
            v1: v1.collect(),
            v2: hierarchy.v2.as_ref().map(below),
            others: hierarchy.others.iter().map(below).collect(),
            killed: AtomicBool::new(false),
        })
    }

    fn make(&mut self) -> Result<(), CgroupError> {
        let make = |path: &Path| fs::create_dir(path).map_err(failed("make", path));
        if let Some(path) = &self.v2 {
            make(path)?;
            if path.join("cgroup.freeze").exists() {
                // The older freezer would only be one more group to enter.
                self.v1.retain(|v1| v1.controllers != ["freezer"]);
            }
        }
        self.v1.iter().try_for_each(|v1| make(&v1.path))?;
        self.restrict_devices()
    }

    fn alive(&self) -> Result<(), CgroupError> {
        if self.killed.load(Ordering::Acquire) {
            return Err(CgroupError::Killed { path: self.path() });
        }
        Ok(())
    }

    fn busy(&self, mut pids: Vec<u32>) -> CgroupError {
        pids.truncate(NAMED);
        CgroupError::Busy { path: self.path(), pids }
    }
}

/// Removes a directory and the directories in it; the control files go with them.
fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    match remove(path) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            for name in directories(path)? {
                remove_tree(&path.join(name))?;
            }
            remove(path).map_err(failed("remove", path))
        }
        other => other.map_err(failed("remove", path)),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}
