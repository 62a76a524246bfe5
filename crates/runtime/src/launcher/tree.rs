//! Putting a sandbox's root together, while it still belongs to the host.
//!
//! All of this happens in a mount namespace of the host's, so that the kernel locks the flags of these
//! mounts (`nodev`, read-only) when the sandbox gets its copy. Every target is looked up inside of the
//! root: a link in an image never leads to a path of the host.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::mount::MountAttrFlags;

use super::devices::write_file;
use super::message::Launch;
use super::mounts::{PLAIN, attach, copy, directory, directory_in, entry_in, restrict};
use super::skeleton::{DEV, ROOT, SYS};
use super::step::{Failure, Step};

/// Where the agent is shown.
pub(crate) const AGENT: &str = "/sbin/agent";
/// Where a directory is shown through which the host reaches the agent, for drivers that cannot hand the
/// agent a socket. On the sandbox's own `/dev`, so that no image has to have a place for it.
pub(crate) const LINK: &str = "/dev/kiln";
/// Where the agent is shown besides, together with [`LINK`].
pub(crate) const AGENT_SOURCE: &str = "/dev/agent";
/// Where the CA bundle is shown.
pub(crate) const CA_BUNDLE: &str = "/run/kiln/ca.crt";

/// Mounts that the root is put together from.
pub(super) struct Sources<'a> {
    pub(super) root: BorrowedFd<'a>,
    /// The agent's program.
    pub(super) agent: BorrowedFd<'a>,
    pub(super) ca_bundle: Option<BorrowedFd<'a>>,
    /// Whether the root gets a `/sys`.
    pub(super) sys: bool,
    /// What is shown as [`LINK`]: a detached mount of a directory.
    pub(super) link: Option<BorrowedFd<'a>>,
}

/// Attaches the root and all that the host puts into it. Gives the files that were left out because
/// the image has no place for them.
pub(super) fn build(
    launch: &Launch,
    sources: &Sources<'_>,
    owner: u32,
) -> Result<Vec<String>, Failure> {
    restrict(sources.root, MountAttrFlags::MOUNT_ATTR_NODEV).step("forbid devices on the root")?;
    let place = directory(ROOT).step("find the place of the root")?;
    attach(sources.root, place.as_fd()).step("attach the root")?;
    let root = directory(ROOT).step("open the root")?;
    for path in [DEV, SYS] {
        if path == SYS && !sources.sys {
            continue;
        }
        let target = directory_in(root.as_fd(), path)
            .step(&format!("find the directory {path} in the image"))?;
        let ours = directory(path).step(&format!("find the sandbox's {path}"))?;
        attach(ours.as_fd(), target.as_fd()).step(&format!("attach {path}"))?;
    }
    if let Some(link) = sources.link {
        let name = LINK.rsplit('/').next().expect("splitting gives at least one part");
        let dev = directory_in(root.as_fd(), DEV).step("find the sandbox's /dev")?;
        mkdirat(&dev, name, Mode::from_raw_mode(0o755)).step(&format!("make {LINK}"))?;
        let target = directory_in(root.as_fd(), LINK).step(&format!("find {LINK}"))?;
        restrict(link, PLAIN).step(&format!("share {LINK}"))?;
        attach(link, target.as_fd()).step(&format!("attach {LINK}"))?;
        // Once more at a place that no link of the image leads to, as a source for who mounts it itself.
        let name = AGENT_SOURCE.rsplit('/').next().expect("splitting gives at least one part");
        let step = format!("show {AGENT_SOURCE}");
        let mode = Mode::from_raw_mode(0o755);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let place = openat(&dev, name, flags, mode).step(&step)?;
        let agent = copy(sources.agent, "", false).step(&step)?;
        attach(agent.as_fd(), place.as_fd()).step(&step)?;
    }
    let files = [
        ("/etc/hostname", format!("{}\n", launch.hostname)),
        ("/etc/hosts", launch.hosts.clone()),
        ("/etc/resolv.conf", launch.resolv_conf.clone()),
    ];
    let mut skipped = Vec::new();
    let mut show = |path: &str, mount: BorrowedFd<'_>| {
        let step = format!("show {path}");
        match entry_in(root.as_fd(), path).step(&step)? {
            Some(target) => attach(mount, target.as_fd()).step(&step),
            None => {
                skipped.push(path.to_owned());
                Ok(())
            }
        }
    };
    for (path, content) in files {
        let name = path.rsplit('/').next().expect("splitting gives at least one part");
        let file = write_file(name, &content, owner)?;
        let mount: OwnedFd = copy(file.as_fd(), "", false).step(&format!("share {path}"))?;
        restrict(mount.as_fd(), PLAIN).step(&format!("share {path}"))?;
        show(path, mount.as_fd())?;
    }
    show(AGENT, sources.agent)?;
    if let Some(bundle) = sources.ca_bundle {
        show(CA_BUNDLE, bundle)?;
    }
    Ok(skipped)
}
