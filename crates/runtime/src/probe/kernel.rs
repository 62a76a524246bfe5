//! The other interfaces of the kernel.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use kiln_types::api::CheckStatus;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
    fsmount, fsopen, open_tree,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::{CapabilitySet, capabilities};

use super::{Finding, Lack};
use crate::cgroup::{Hierarchy, Mode as GroupMode};
use crate::sys;

const NEWER_KERNEL: &str = "install a newer kernel: Linux 6.1 has all that is needed";

pub(super) fn privileges(_: &Path) -> Finding {
    let hint = "start the daemon as root, in the host's own user namespace";
    let lack =
        |detail: &str| Lack { status: CheckStatus::Missing, detail: detail.to_owned(), hint };
    if !rustix::process::geteuid().is_root() {
        return Err(lack("not running as root"));
    }
    let held = capabilities(None).map_err(|error| Lack::fatal(&error, hint))?.effective;
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::MKNOD
        | CapabilitySet::CHOWN;
    let missing = needed - held;
    if !missing.is_empty() {
        return Err(lack(&format!("root without the capabilities {missing:?}")));
    }
    Ok("root with the capabilities that are needed".to_owned())
}

pub(super) fn user_namespaces(_: &Path) -> Finding {
    let hint = "set `user.max_user_namespaces` by sysctl to a number above 0, or use a kernel \
        built with CONFIG_USER_NS";
    let made = user_namespace().map_err(|error| Lack::fatal(&error, hint))?;
    drop(made);
    Ok("can be made".to_owned())
}

/// A user namespace that maps something.
fn user_namespace() -> io::Result<OwnedFd> {
    let holder = sys::spawn(libc::CLONE_NEWUSER, None, || {
        loop {
            rustix::event::pause();
        }
    })?;
    let process = format!("/proc/{}", holder.pid);
    let made = fs::write(format!("{process}/uid_map"), "0 100000 65536")
        .and_then(|()| fs::write(format!("{process}/gid_map"), "0 100000 65536"))
        .and_then(|()| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(openat(CWD, format!("{process}/ns/user"), flags, Mode::empty())?)
        });
    pidfd_send_signal(&holder.pidfd, Signal::KILL)?;
    let ended = rustix::process::WaitIdOptions::EXITED;
    rustix::process::waitid(rustix::process::WaitId::PidFd(holder.pidfd.as_fd()), ended)?;
    made
}

/// The interface by descriptors: layers have no path. Linux before 6.15 wants one, and is given it.
pub(super) fn overlayfs(dir: &Path) -> Finding {
    let hint = "load the module (`modprobe overlay`)";
    let look = || -> io::Result<&'static str> {
        let lower = openat(CWD, dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let empty = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(empty.as_fd())?;
        let none = MountAttrFlags::empty();
        let empty = fsmount(empty.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, none)?;
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let copy = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        if matches!(open_tree(&empty, "", copy), Err(rustix::io::Errno::INVAL)) {
            return Ok("mounted from layers with a path, in a mount namespace for each mount");
        }
        for layer in [&lower, &empty] {
            fsconfig_set_fd(context.as_fd(), "lowerdir+", layer)?;
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, none)?;
        Ok("mounted from layers without a path")
    };
    look().map(str::to_owned).map_err(|error| Lack::fatal(&error, hint))
}

pub(super) fn idmapped_mounts(dir: &Path) -> Finding {
    let hint = "keep the daemon's data on a file system that has them (ext4, xfs, btrfs)";
    let look = || -> io::Result<()> {
        let userns = user_namespace()?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(CWD, dir, flags)?;
        sys::set_mount_idmap(mount.as_fd(), userns.as_fd())
    };
    look().map_err(|error| Lack::fatal(&error, hint))?;
    Ok(format!("work for {}", dir.display()))
}

pub(super) fn control_groups(_: &Path) -> Finding {
    let hint = "mount cgroup2 at /sys/fs/cgroup with the controllers cpu, memory and pids";
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Lack::fatal(&error, "mount proc at /proc"))?;
    let hierarchy = Hierarchy::detect(Path::new("/sys/fs/cgroup"), &mounts)
        .map_err(|error| Lack::fatal(&error, hint))?;
    let detail = match hierarchy.mode() {
        GroupMode::V2 => "version 2",
        GroupMode::Hybrid => "version 1 for limits, version 2 to kill",
        GroupMode::V1 => "version 1",
    };
    Ok(detail.to_owned())
}

/// Asks for the generation of the rules (`NFT_MSG_GETGEN`), which changes nothing.
pub(super) fn nftables(_: &Path) -> Finding {
    let hint = "load the module (`modprobe nf_tables`); without it sandboxes have no network";
    let look = || -> io::Result<()> {
        const SUBSYSTEM: u16 = 10;
        const GET_GENERATION: u16 = 16;
        const REQUEST: u16 = 1;
        const ERROR: u16 = 2;
        let protocol = rustix::net::netlink::NETFILTER;
        let kind = SocketType::RAW;
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            kind,
            SocketFlags::CLOEXEC,
            Some(protocol),
        )?;
        let mut request = Vec::new();
        request.extend(20u32.to_ne_bytes());
        request.extend((SUBSYSTEM << 8 | GET_GENERATION).to_ne_bytes());
        request.extend(REQUEST.to_ne_bytes());
        // Sequence, port, and an empty header of the netfilter subsystem.
        request.extend([0; 12]);
        rustix::net::send(&socket, &request, SendFlags::empty())?;
        let mut answer = [0; 256];
        let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
        let answer = &answer[..length];
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let kind = answer.get(4..6).ok_or_else(short)?;
        if kind != ERROR.to_ne_bytes() {
            return Ok(());
        }
        let code = answer.get(16..20).ok_or_else(short)?;
        let code = i32::from_ne_bytes(code.try_into().map_err(|_| short())?);
        Err(io::Error::from_raw_os_error(-code))
    };
    look().map_err(|error| Lack::fatal(&error, hint))?;
    Ok("answers".to_owned())
}

pub(super) fn seccomp(_: &Path) -> Finding {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let actions = fs::read_to_string(path).map_err(|error| Lack::fatal(&error, NEWER_KERNEL))?;
    if actions.split_whitespace().any(|action| action == "errno") {
        Ok("filters".to_owned())
    } else {
        Err(Lack {
            status: CheckStatus::Missing,
            detail: format!("the kernel offers `{}`, not `errno`", actions.trim_end()),
            hint: "use a kernel built with CONFIG_SECCOMP_FILTER",
        })
    }
}

/// For other drivers; the native one needs neither.
#[expect(
    clippy::unnecessary_wraps,
    reason = "one of a list of probes, the others of which can fail"
)]
pub(super) fn devices(_: &Path) -> Finding {
    let state = |path: &str| if Path::new(path).exists() { "exists" } else { "is not there" };
    Ok(format!(
        "/dev/kvm {}, /dev/fuse {}; neither is needed",
        state("/dev/kvm"),
        state("/dev/fuse")
    ))
}
