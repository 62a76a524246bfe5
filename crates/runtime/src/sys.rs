//! The system calls that have no safe wrapper elsewhere. The only unsafe code of this crate.
//!
//! Most of these are for the launcher and its children alone: processes of one thread, in which a
//! fork copies everything that runs.

mod clone;
mod command;
mod exec;
mod exit;
mod filter;
mod mount;
mod poll;
mod process;

pub(crate) use clone::{fork, spawn};
pub(crate) use command::{Surroundings, surround};
pub(crate) use exec::execute;
pub(crate) use exit::wait_status;
pub(crate) use filter::install as install_filter;
pub(crate) use mount::{set_mount_flags, set_mount_idmap};
pub(crate) use poll::readable;
pub(crate) use process::{
    close_all_but, default_signals, duplicate_to, ignore_child_signals, mark_close_on_exec,
    unshare_mounts,
};
