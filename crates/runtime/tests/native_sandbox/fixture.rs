//! A root file system to run in: Debian, made once for all test runs on this machine.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_runtime::{BoxError, Userns};
use rustix::fs::{Gid, Mode, OFlags, Uid, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};

/// The directory with the unpacked image.
pub(crate) fn base() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let fixtures = target.join("test-fixtures");
    fs::create_dir_all(&fixtures).unwrap();
    let lock = File::create(fixtures.join("native.lock")).unwrap();
    lock.lock().unwrap();
    let tar = fixtures.join("bookworm-minbase.tar");
    if !tar.exists() {
        let draft = fixtures.join(format!("bookworm-minbase.{}.tar", std::process::id()));
        let mut command = Command::new("mmdebstrap");
        command.env("SOURCE_DATE_EPOCH", "1700000000").args(["--variant=minbase", "bookworm"]);
        let output = command.arg(&draft).output().expect("mmdebstrap is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&draft, &tar).unwrap();
    }
    let tree = fixtures.join("native-bookworm");
    if !tree.exists() {
        let draft = fixtures.join("native-bookworm.new");
        if draft.exists() {
            fs::remove_dir_all(&draft).unwrap();
        }
        fs::create_dir(&draft).unwrap();
        let mut unpack = Command::new("tar");
        unpack.args(["--numeric-owner", "--xattrs", "-xpf"]).arg(&tar).arg("-C").arg(&draft);
        assert!(unpack.status().unwrap().success());
        fs::rename(&draft, &tree).unwrap();
    }
    tree
}

/// One sandbox's disk: an overlay over `lowers`, the topmost first.
#[derive(Clone)]
pub(crate) struct Disk {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
}

impl Disk {
    /// An empty upper in `dir` over the image, with the places for the runtime's files at the bottom.
    pub(crate) fn new(dir: &Path) -> Self {
        let skeleton = dir.join("skeleton");
        if !skeleton.exists() {
            make_skeleton(&skeleton);
        }
        Self::over(dir, vec![base(), skeleton])
    }

    /// An empty upper in `dir` over `lowers`.
    pub(crate) fn over(dir: &Path, lowers: Vec<PathBuf>) -> Self {
        let upper = dir.join(format!("upper-{}", fastrand()));
        for path in [upper.clone(), upper.join("u"), upper.join("w")] {
            fs::DirBuilder::new().mode(0o755).create(path).unwrap();
        }
        Self { lowers, upper }
    }

    /// Puts another layer on top of the lower ones.
    pub(crate) fn with_layer(mut self, layer: &Path) -> Self {
        self.lowers.insert(0, layer.to_owned());
        self
    }

    /// Where changes are.
    pub(crate) fn changes(&self) -> PathBuf {
        self.upper.join("u")
    }

    /// As a `RootSource`.
    pub(crate) fn source(
        &self,
    ) -> impl FnOnce(Userns<'_>) -> Result<OwnedFd, BoxError> + Send + use<> {
        let disk = self.clone();
        move |userns: Userns<'_>| disk.mount(userns).map_err(BoxError::from)
    }

    fn mount(&self, userns: Userns<'_>) -> Result<OwnedFd, Errno> {
        let lowers: Vec<OwnedFd> =
            self.lowers.iter().map(|path| mapped(path, userns.fd)).collect::<Result<_, _>>()?;
        let upper = mapped(&self.upper, userns.fd)?;
        let part = |name| openat(&upper, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let (upper, work) = (part("u")?, part("w")?);
        let base = userns.base;
        // Ids belong to threads: this one is thrown away.
        std::thread::scope(|scope| {
            let mount = scope.spawn(|| {
                become_base(base)?;
                let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
                for lower in &lowers {
                    fsconfig_set_fd(context.as_fd(), "lowerdir+", lower)?;
                }
                fsconfig_set_fd(context.as_fd(), "upperdir", &upper)?;
                fsconfig_set_fd(context.as_fd(), "workdir", &work)?;
                for (key, value) in
                    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")]
                {
                    fsconfig_set_string(context.as_fd(), key, value)?;
                }
                fsconfig_create(context.as_fd())?;
                let flags = MountAttrFlags::MOUNT_ATTR_NODEV;
                fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
            });
            mount.join().unwrap()
        })
    }
}

fn become_base(base: u32) -> Result<(), Errno> {
    let before = capabilities(None)?;
    rustix::thread::set_thread_res_gid(None, Gid::from_raw(base), None)?;
    rustix::thread::set_thread_res_uid(None, Uid::from_raw(base), None)?;
    set_capabilities(None, CapabilitySets { effective: before.permitted, ..before })
}

/// A detached mount of a directory whose owner 0 is the namespace's.
fn mapped(path: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(rustix::fs::CWD, path, flags)?;
    super::idmap::map_owners(mount.as_fd(), userns)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(mount)
}

/// What the runtime binds on.
pub(crate) fn make_skeleton(dir: &Path) {
    let directories = [
        "dev",
        "proc",
        "sys",
        "run",
        "run/kiln",
        "tmp",
        "workspace",
        "etc",
        "sbin",
        "usr",
        "usr/sbin",
    ];
    let files = [
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        "run/kiln/ca.crt",
        "sbin/agent",
        "usr/sbin/agent",
    ];
    fs::create_dir(dir).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for name in directories {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    for name in files {
        fs::write(dir.join(name), "").unwrap();
    }
}

fn fastrand() -> String {
    kiln_types::SandboxId::new().to_string()
}
