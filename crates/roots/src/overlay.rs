//! The overlay itself, mounted by descriptors on a thread that acts as the sandbox's root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat, statat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::attached::{Places, placeless_mounts_are_whole};
use crate::inherit::inherit;
use crate::{RootsError, sys};

/// What one overlay is made of.
pub(crate) struct Parts<'a> {
    /// The upper's id, for messages.
    pub(crate) upper: &'a str,
    /// Detached mounts without an id mapping, base first.
    pub(crate) lowers: Vec<OwnedFd>,
    /// The directory that holds `u` and `w`.
    pub(crate) upper_dir: BorrowedFd<'a>,
    /// The sandbox's user namespace.
    pub(crate) userns: BorrowedFd<'a>,
    /// The host id that is 0 inside.
    pub(crate) base: u32,
    /// Skip every sync; the upper can then be mounted only once.
    pub(crate) volatile: bool,
}

/// A foreign layer could carry redirects and metadata-only copies; neither is followed.
const OPTIONS: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

impl Parts<'_> {
    /// Mounts, and proves that the mount can be written to.
    pub(crate) fn mount(self) -> Result<OwnedFd, RootsError> {
        if let Some(top) = self.lowers.last() {
            inherit(top, self.upper_dir)
                .map_err(self.explain("inherit the root's attributes", None))?;
        }
        // Where the kernel copies only mounts with a place, one without is the caller's alone.
        let upper = match clone_directory(self.upper_dir, "", "the upper") {
            Err(_) if !placeless_mounts_are_whole() => {
                let own = self.upper_dir.try_clone_to_owned();
                own.map_err(|source| RootsError::Idmap {
                    what: "the upper".to_owned(),
                    step: "dup",
                    source,
                })?
            }
            upper => upper?,
        };
        for mount in self.lowers.iter().chain([&upper]) {
            sys::idmap(mount.as_fd(), self.userns).map_err(|source| RootsError::Idmap {
                what: format!("upper `{}` and its layers", self.upper),
                step: "mount_setattr",
                source,
            })?;
        }
        // The file owner and the capabilities of a thread are its own, so they are changed on one
        // that does nothing else.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("kiln-mount".to_owned())
                .spawn_scoped(scope, || self.mount_as_owner(&upper))
                .map_err(|source| self.thread(source))?;
            thread.join().map_err(|_| self.thread(io::Error::other("it panicked")))?
        })
    }

    fn thread(&self, source: io::Error) -> RootsError {
        RootsError::Thread { upper: self.upper.to_owned(), source }
    }

    fn mount_as_owner(&self, upper: &OwnedFd) -> Result<OwnedFd, RootsError> {
        let places = if placeless_mounts_are_whole() {
            None
        } else {
            let places = Places::make(&self.lowers, upper);
            Some(places.map_err(|(step, error)| self.explain(step, None)(error))?)
        };
        sys::become_file_owner(self.base).map_err(|source| RootsError::Idmap {
            what: format!("the mounter of upper `{}`", self.upper),
            step: "setfsuid",
            source,
        })?;
        // The upper and the work directory must be reached through one mount.
        let [content, work] = ["u", "w"].map(|name| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(upper, name, flags, Mode::empty())
        });
        let content = content.map_err(self.explain("openat(u)", None))?;
        let work = work.map_err(self.explain("openat(w)", None))?;
        match statat(&work, "work/incompat/volatile", rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Err(RootsError::VolatileUpper { id: self.upper.to_owned() }),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(self.explain("fstatat(w/work/incompat)", None)(error)),
        }

        let mount = match places {
            Some(places) => places
                .mount(&self.options())
                .map_err(|(step, error)| self.explain(step, None)(error))?,
            None => self.mount_placeless(&content, &work)?,
        };
        self.prove_writable(&mount)?;
        Ok(mount)
    }

    /// The overlay of mounts that have no place.
    fn mount_placeless(&self, content: &OwnedFd, work: &OwnedFd) -> Result<OwnedFd, RootsError> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(self.explain("fsopen(overlay)", None))?;
        let fs = Some(context.as_fd());
        for lower in self.lowers.iter().rev() {
            fsconfig_set_fd(&context, "lowerdir+", lower)
                .map_err(self.explain("fsconfig(lowerdir+)", fs))?;
        }
        fsconfig_set_fd(&context, "upperdir", content)
            .map_err(self.explain("fsconfig(upperdir)", fs))?;
        fsconfig_set_fd(&context, "workdir", work)
            .map_err(self.explain("fsconfig(workdir)", fs))?;
        for (option, value) in OPTIONS {
            fsconfig_set_string(&context, option, value).map_err(self.explain(option, fs))?;
        }
        if self.volatile {
            fsconfig_set_flag(&context, "volatile")
                .map_err(self.explain("fsconfig(volatile)", fs))?;
        }
        fsconfig_create(&context).map_err(self.explain("fsconfig(create)", fs))?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
            .map_err(self.explain("fsmount", fs))
    }

    /// The options besides the layers, each behind a comma.
    fn options(&self) -> String {
        let mut options = String::new();
        for (option, value) in OPTIONS {
            options += &format!(",{option}={value}");
        }
        if self.volatile {
            options += ",volatile";
        }
        options
    }

    /// The kernel mounts an overlay read-only, without an error, when it cannot use the work directory.
    fn prove_writable(&self, mount: &OwnedFd) -> Result<(), RootsError> {
        let state = fstatvfs(mount).map_err(self.explain("fstatvfs", None))?;
        if state.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(RootsError::ReadOnly { upper: self.upper.to_owned() });
        }
        // A file without a name leaves no trace in the upper.
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(mount, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(_) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(error) => {
                Err(RootsError::Probe { upper: self.upper.to_owned(), source: error.into() })
            }
        }
    }

    fn explain(
        &self,
        step: &'static str,
        context: Option<BorrowedFd<'_>>,
    ) -> impl FnOnce(rustix::io::Errno) -> RootsError {
        move |error| RootsError::Overlay {
            upper: self.upper.to_owned(),
            step,
            kernel: context.map(kernel_messages).unwrap_or_default(),
            source: error.into(),
        }
    }
}

/// A detached clone of the mount that `directory` (or `path` below it) is in, with that as its root.
pub(crate) fn clone_directory(
    directory: impl AsFd,
    path: &str,
    what: &str,
) -> Result<OwnedFd, RootsError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(directory, path, flags).map_err(|error| RootsError::Idmap {
        what: what.to_owned(),
        step: "open_tree",
        source: error.into(),
    })
}

/// A detached clone of a directory of the host.
pub(crate) fn clone_path(path: &Path) -> Result<OwnedFd, RootsError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).map_err(|error| RootsError::Idmap {
        what: path.display().to_string(),
        step: "open_tree",
        source: error.into(),
    })
}

/// What the kernel has to say about a failed mount, on one line.
pub(crate) fn kernel_messages(context: BorrowedFd<'_>) -> String {
    let mut messages = Vec::new();
    let mut buffer = [0_u8; 1024];
    // Each read gives one message (`e overlay: …`); none left is an error.
    while messages.len() < 8 {
        match rustix::io::read(context, &mut buffer) {
            Ok(length) if length > 0 => {
                let message = String::from_utf8_lossy(&buffer[..length]);
                let message = message.trim();
                // The first letter says how grave it is: error, warning, information.
                let text = message.split_once(' ').map_or(message, |(_, text)| text);
                messages.push(text.to_owned());
            }
            _ => break,
        }
    }
    messages.join("; ")
}
