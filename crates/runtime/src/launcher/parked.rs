//! A parked process: everything about a sandbox that does not depend on which sandbox it becomes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    Gid, LinkNameSpaceType, Uid, move_into_link_name_space, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::channel::Channel;
use super::init::{self, Start};
use super::message::{self, Launch, Report};
use super::mounts::{clone_file, copy, directory};
use super::namespaces::{self, Namespaces};
use super::step::{Failure, Step};
use super::tree::{self, Sources};
use super::{devices, kernel_files, skeleton};
use crate::seccomp::Filter;
use crate::sys;

/// What errors call this process.
pub(super) const NAME: &str = "the parked process of the sandbox";

/// What a process is parked with.
pub(super) struct Order<'a> {
    pub(super) id_base: u32,
    pub(super) filter: &'a Filter,
}

/// Runs until the sandbox is started or the daemon closes its end of `control`. Returns the exit code.
pub(super) fn run(control: &Channel, order: &Order<'_>) -> u8 {
    match park(control, order).and_then(|namespaces| wait(control, order, &namespaces)) {
        Ok(()) => 0,
        Err(failure) => {
            // The daemon may be gone; then there is nobody to tell.
            drop(control.send(&Report::Failed(failure), &[]));
            1
        }
    }
}

fn park(control: &Channel, order: &Order<'_>) -> Result<Namespaces, Failure> {
    rustix::thread::set_name(c"kiln-parked").step("name the process")?;
    rustix::process::setsid().step("make a session")?;
    sys::default_signals().step("reset the signals")?;
    stand_in_line()?;
    sys::unshare_mounts().step("make a mount namespace")?;
    let namespaces = namespaces::make(order.id_base)?;
    move_into_link_name_space(namespaces.net.as_fd(), Some(LinkNameSpaceType::Network))
        .step("enter the network namespace")?;
    kernel_files::mount_sys()?;
    devices::make(order.id_base)?;
    let pid = rustix::process::getpid().as_raw_nonzero().get() as u32;
    let fds = [namespaces.user.as_fd(), namespaces.net.as_fd()];
    control.send(&Report::Parked { pid }, &fds).step("report to the daemon")?;
    Ok(namespaces)
}

/// A daemon that the kernel spares when memory runs out does not pass that on. A daemon that goes first
/// does: to be spared more takes a privilege that root may lack.
fn stand_in_line() -> Result<(), Failure> {
    const ADJUSTMENT: &str = "/proc/self/oom_score_adj";
    let inherited = namespaces::read(ADJUSTMENT)?;
    if inherited.starts_with('-') {
        namespaces::write(ADJUSTMENT, "0")?;
    }
    Ok(())
}

fn wait(control: &Channel, order: &Order<'_>, namespaces: &Namespaces) -> Result<(), Failure> {
    let step = "read the launch request";
    let Some((request, fds)) = control.receive::<message::Order>().step(step)? else {
        return Ok(());
    };
    let mut fds = fds.into_iter();
    let root = fds.next().ok_or_else(|| Failure::new(step, libc::EBADF))?;
    match request {
        message::Order::Launch(launch) => {
            let listener = fds.next().ok_or_else(|| Failure::new(step, libc::EBADF))?;
            begin(control, order, namespaces, &launch, &root, &listener)
        }
        message::Order::Assemble { launch, sys } => {
            let link = fds.next();
            let link = link.as_ref().map(AsFd::as_fd);
            let (_agent, skipped) = build(order, namespaces, &launch, &root, sys, link)?;
            let place = directory(skeleton::ROOT).step("open the root")?;
            let tree = copy(place.as_fd(), "", true).step("copy the root's mounts")?;
            control.send(&Report::Assembled { skipped }, &[tree.as_fd()]).step("report the root")
        }
    }
}

/// Puts the root together. Gives the agent's program, and the files that were left out.
fn build(
    order: &Order<'_>,
    namespaces: &Namespaces,
    launch: &Launch,
    root: &OwnedFd,
    sys: bool,
    link: Option<BorrowedFd<'_>>,
) -> Result<(OwnedFd, Vec<String>), Failure> {
    let share = |name: &str| {
        clone_file(skeleton::shared(name)?.as_fd(), namespaces.user.as_fd())
            .step(&format!("share {name}"))
    };
    let agent = share(skeleton::PROGRAM)?;
    let ca_bundle: Option<OwnedFd> = launch.ca_bundle.as_deref().map(share).transpose()?;
    let sources = Sources {
        root: root.as_fd(),
        agent: agent.as_fd(),
        ca_bundle: ca_bundle.as_ref().map(AsFd::as_fd),
        sys,
        link,
    };
    let skipped = tree::build(launch, &sources, order.id_base)?;
    Ok((agent, skipped))
}

/// Starts the sandbox.
fn begin(
    control: &Channel,
    order: &Order<'_>,
    namespaces: &Namespaces,
    launch: &Launch,
    root: &OwnedFd,
    listener: &OwnedFd,
) -> Result<(), Failure> {
    let (agent, skipped) = build(order, namespaces, launch, root, true, None)?;
    enter_user_namespace(namespaces)?;
    let start =
        Start { launch, agent: agent.as_fd(), listener: listener.as_fd(), filter: order.filter };
    let wanted = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWCGROUP;
    let init = sys::spawn(wanted, None, || init::run(control, &start))
        .step("make the sandbox's first process")?;
    let pid = init.pid.as_raw_nonzero().get() as u32;
    control.send(&Report::Started { pid, skipped }, &[init.pidfd.as_fd()]).step("report the start")
}

/// Becomes root of the sandbox's user namespace.
fn enter_user_namespace(namespaces: &Namespaces) -> Result<(), Failure> {
    move_into_link_name_space(namespaces.user.as_fd(), Some(LinkNameSpaceType::User))
        .step("enter the user namespace")?;
    // Entering leaves the ids as they are, and the host's root has no id in there.
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    set_thread_res_gid(gid, gid, gid).step("become root of the sandbox")?;
    set_thread_groups(&[]).step("leave all groups")?;
    set_thread_res_uid(uid, uid, uid).step("become root of the sandbox")?;
    // Else /proc/self of PID 1 would belong to the host's root, who is nobody in there.
    set_dumpable_behavior(DumpableBehavior::Dumpable).step("become visible to the sandbox")
}
