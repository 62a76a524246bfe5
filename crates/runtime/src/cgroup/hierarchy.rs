//! The host's hierarchies: which controller is where, and the ground for groups.

use std::fs;
use std::path::{Path, PathBuf};

use super::CgroupError;
use super::control::{directories, failed, is_missing, read, read_pids, write};
use super::mounts::{Mount, parse};

/// The controllers without which limits are not limits.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// Where the processes of a container go that hold its root group (see [`Hierarchy::delegate`]).
const INHABITANTS: &str = "kiln-init";

/// How this host's control groups are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The version 1 mounts that groups are made in.
    pub(super) v1: Vec<V1>,
    /// The version 2 mount.
    pub(super) v2: Option<PathBuf>,
    /// The version 1 mounts that no groups are made in, but runtimes may make some.
    pub(super) others: Vec<PathBuf>,
    /// The needed controllers that are in version 2.
    in_v2: Vec<&'static str>,
}

/// A directory of a version 1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct V1 {
    /// The directory.
    pub(super) path: PathBuf,
    /// The controllers that are used there.
    pub(super) controllers: Vec<&'static str>,
}

/// The kind of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Version 1 for limits, version 2 for killing and freezing.
    Hybrid,
    /// Version 1 only.
    V1,
    /// Version 2 only.
    V2,
}

impl Hierarchy {
    /// Reads what is mounted at or below `root` out of a `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// When one of the controllers `cpu`, `memory` and `pids` is nowhere.
    pub fn detect(root: &Path, mountinfo: &str) -> Result<Hierarchy, CgroupError> {
        let mut hierarchy =
            Hierarchy { v1: Vec::new(), v2: None, others: Vec::new(), in_v2: Vec::new() };
        for mount in parse(root, mountinfo) {
            match mount {
                Mount::V1 { path, controllers } => {
                    let used = NEEDED.iter().chain(&["devices", "freezer"]);
                    // The same hierarchy may be mounted twice.
                    let here = |used: &&&'static str| {
                        controllers.iter().any(|c| c == **used) && !hierarchy.v1_with(used)
                    };
                    let controllers: Vec<_> = used.filter(here).copied().collect();
                    if controllers.is_empty() {
                        hierarchy.others.push(path);
                    } else {
                        hierarchy.v1.push(V1 { path, controllers });
                    }
                }
                Mount::V2 { path } => hierarchy.v2 = hierarchy.v2.or(Some(path)),
            }
        }
        let available = match &hierarchy.v2 {
            Some(path) => read(&path.join("cgroup.controllers"))?,
            None => String::new(),
        };
        for controller in NEEDED {
            if hierarchy.v1_with(controller) {
                continue;
            }
            if !available.split_whitespace().any(|other| other == controller) {
                return Err(CgroupError::Controller { controller, root: root.into() });
            }
            hierarchy.in_v2.push(controller);
        }
        Ok(hierarchy)
    }

    /// The kind of this hierarchy.
    pub fn mode(&self) -> Mode {
        match (&self.v2, self.in_v2.len() == NEEDED.len()) {
            (None, _) => Mode::V1,
            (Some(_), true) => Mode::V2,
            (Some(_), false) => Mode::Hybrid,
        }
    }

    /// Where version 2 is mounted.
    pub(crate) fn v2_root(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// The names of the groups below `parent` in any hierarchy, in order; none when `parent` is not
    /// there.
    pub fn list(&self, parent: &str) -> Result<Vec<String>, CgroupError> {
        plain(parent)?;
        let mut names = Vec::new();
        for mount in self.mounts() {
            names.extend(directories(&mount.join(parent))?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Removes `parent` itself, which must have no more groups.
    pub fn remove_parent(&self, parent: &str) -> Result<(), CgroupError> {
        plain(parent)?;
        for mount in self.mounts().chain(self.others.iter().map(PathBuf::as_path)) {
            let path = mount.join(parent);
            match fs::remove_dir(&path) {
                Err(error) if !is_missing(&error) => return Err(failed("remove", &path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes `parent` in every hierarchy, with the controllers that its groups need.
    pub(super) fn prepare(&self, parent: &str) -> Result<(), CgroupError> {
        plain(parent)?;
        for mount in self.mounts() {
            let path = mount.join(parent);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(failed("make", &path)(error));
                }
                _ => {}
            }
        }
        if let Some(mount) = &self.v2 {
            self.delegate(mount)?;
            self.enable(&mount.join(parent))?;
        }
        Ok(())
    }

    fn mounts(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|v1| v1.path.as_path()).chain(self.v2.as_deref())
    }

    fn v1_with(&self, controller: &str) -> bool {
        self.v1.iter().any(|v1| v1.controllers.contains(&controller))
    }

    /// Enables the controllers at the top. Only in a container can the top hold processes and so be
    /// refused (EBUSY, "no internal processes"): they then move into a group of their own, and with
    /// them, if it is one, this process.
    fn delegate(&self, mount: &Path) -> Result<(), CgroupError> {
        let busy = |error: &CgroupError| {
            matches!(error, CgroupError::File { source, .. }
                if source.raw_os_error() == Some(libc::EBUSY))
        };
        // Processes may be started there while others are being moved.
        for _ in 0..10 {
            match self.enable(mount) {
                Err(error) if busy(&error) => {}
                other => return other,
            }
            let inhabitants = mount.join(INHABITANTS);
            let made = fs::create_dir(&inhabitants);
            made.or_else(|error| if inhabitants.is_dir() { Ok(()) } else { Err(error) })
                .map_err(failed("make", &inhabitants))?;
            for pid in read_pids(&mount.join("cgroup.procs"))? {
                // One that has ended meanwhile is out of the way as well.
                let moved = write(&inhabitants.join("cgroup.procs"), &pid.to_string());
                tracing::info!(pid, ok = moved.is_ok(), "moved a process out of the top cgroup");
            }
        }
        self.enable(mount)
    }

    /// Lets the groups below `path` have the controllers that version 2 has to provide.
    fn enable(&self, path: &Path) -> Result<(), CgroupError> {
        if self.in_v2.is_empty() {
            return Ok(());
        }
        let file = path.join("cgroup.subtree_control");
        let enabled = read(&file)?;
        let missing: Vec<_> = self
            .in_v2
            .iter()
            .filter(|wanted| !enabled.split_whitespace().any(|other| other == **wanted))
            .map(|wanted| format!("+{wanted}"))
            .collect();
        if missing.is_empty() { Ok(()) } else { write(&file, &missing.join(" ")) }
    }
}

/// Refuses names that would lead elsewhere.
pub(super) fn plain(name: &str) -> Result<(), CgroupError> {
    let good = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0', '\n']);
    if good { Ok(()) } else { Err(CgroupError::Name { name: name.into() }) }
}
