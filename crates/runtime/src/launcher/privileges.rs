//! Giving up what a sandbox is not to have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::step::{Failure, Step};
use crate::seccomp::Filter;
use crate::sys;

/// What root may do in a sandbox: the container engines' default set without `CAP_MKNOD`, which
/// grants nothing in a user namespace. `CAP_SYS_ADMIN` is not in it: mounts stay as they are.
pub(crate) const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Open files: soft limit. Programs exist that close every descriptor up to it one by one.
pub(crate) const OPEN_FILES: u64 = 65_536;
/// Stack: soft limit.
pub(crate) const STACK: u64 = 8 << 20;

/// Drops capabilities and puts the process under the seccomp filter.
///
/// The order matters: to install a filter without `no_new_privs` takes `CAP_SYS_ADMIN`, which goes last,
/// and the bounding set is emptied by a call that the filter need not allow.
pub(super) fn drop_all(filter: &Filter, no_new_privs: bool) -> Result<(), Failure> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(one) {
            continue;
        }
        match capability_is_in_bounding_set(one) {
            Ok(true) => remove_capability_from_bounding_set(one).step("drop capabilities")?,
            Ok(false) => {}
            // The kernel has no capability of this number, and none above.
            Err(_) => break,
        }
    }
    if no_new_privs {
        set_no_new_privs(true).step("forbid new privileges")?;
    }
    sys::install_filter(filter.program()).step("install the seccomp filter")?;
    let sets =
        CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).step("drop capabilities")
}

/// Sets resource limits, never above the hard limits that this process has: to raise those takes a
/// privilege of the host.
pub(super) fn limit_resources() -> Result<(), Failure> {
    let at_most = |value: u64, hard: Option<u64>| Some(hard.map_or(value, |hard| value.min(hard)));
    let files = getrlimit(Resource::Nofile).maximum;
    let stack = getrlimit(Resource::Stack).maximum;
    let limits = [
        // A crash would run the host's handler, or fill the disk.
        (Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }),
        (Resource::Nofile, Rlimit { current: at_most(OPEN_FILES, files), maximum: files }),
        (Resource::Stack, Rlimit { current: at_most(STACK, stack), maximum: stack }),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, limit).step("limit resources")?;
    }
    Ok(())
}
