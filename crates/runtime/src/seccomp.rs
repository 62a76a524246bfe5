//! The system call filter of sandboxes, in the spirit of the container engines' default one.
//!
//! A call that is not allowed fails with `EPERM`. A call that did not exist when this list was written
//! fails with `ENOSYS`, and so does `clone3`, whose flags a filter cannot see: the C libraries then fall
//! back to older calls. Programs of another architecture (32 bits) are ended.
//!
//! The program is a binary search over ranges of call numbers, some 220 instructions: every start of a
//! sandbox pays for the kernel's check of the program, which grows with its length, and every system call
//! for what is executed of it.

mod allowed;
mod assemble;
mod profile;

use assemble::{Action, Condition, Test};

pub(crate) use profile::profile;

/// A compiled filter.
#[derive(Debug)]
pub(crate) struct Filter {
    program: Vec<libc::sock_filter>,
}

/// `CLONE_NEW*` without the time namespace, which the old call cannot ask for.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// Address families with a long record of faults and no use in a sandbox.
const FAMILIES_DENIED: [u32; 2] = [libc::AF_VSOCK as u32, libc::AF_ALG as u32];
/// Linux, 32-bit and old readings of it, and the question what it is.
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

impl Filter {
    /// The default filter.
    pub(crate) fn new() -> Self {
        let mut rules: Vec<(u32, Action)> =
            allowed::calls().map(|number| (number, Action::Allow)).collect();
        rules.push((libc::SYS_clone3 as u32, Action::Fail(libc::ENOSYS)));
        rules.push((
            libc::SYS_clone as u32,
            Action::AllowIf(Condition { argument: 0, test: Test::NoneOf(CLONE_NAMESPACES) }),
        ));
        rules.push((
            libc::SYS_socket as u32,
            Action::AllowIf(Condition { argument: 0, test: Test::NotIn(&FAMILIES_DENIED) }),
        ));
        rules.push((
            libc::SYS_personality as u32,
            Action::AllowIf(Condition { argument: 0, test: Test::In(&PERSONALITIES) }),
        ));
        Self { program: assemble::assemble(rules, allowed::LAST_KNOWN) }
    }

    /// The instructions.
    pub(crate) fn program(&self) -> &[libc::sock_filter] {
        &self.program
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assemble::run::{ALLOW, errno, run};

    #[test]
    fn decides_as_documented() {
        let filter = Filter::new();
        let (eperm, enosys) = (errno(libc::EPERM), errno(libc::ENOSYS));
        let cases: [(&str, i64, u64, u32); 24] = [
            ("read", libc::SYS_read, 0, ALLOW),
            ("execveat", libc::SYS_execveat, 0, ALLOW),
            ("chroot", libc::SYS_chroot, 0, ALLOW),
            ("mount", libc::SYS_mount, 0, eperm),
            ("open_tree", libc::SYS_open_tree, 0, eperm),
            ("unshare", libc::SYS_unshare, 0, eperm),
            ("setns", libc::SYS_setns, 0, eperm),
            ("bpf", libc::SYS_bpf, 0, eperm),
            ("keyctl", libc::SYS_keyctl, 0, eperm),
            ("io_uring_setup", libc::SYS_io_uring_setup, 0, eperm),
            ("userfaultfd", libc::SYS_userfaultfd, 0, eperm),
            ("kexec_load", libc::SYS_kexec_load, 0, eperm),
            ("clone3", libc::SYS_clone3, 0, enosys),
            ("fork by clone", libc::SYS_clone, libc::SIGCHLD as u64, ALLOW),
            ("thread by clone", libc::SYS_clone, 0x003d_0f00, ALLOW),
            ("clone of a user namespace", libc::SYS_clone, libc::CLONE_NEWUSER as u64, eperm),
            ("clone of a mount namespace", libc::SYS_clone, libc::CLONE_NEWNS as u64, eperm),
            ("socket of IPv6", libc::SYS_socket, libc::AF_INET6 as u64, ALLOW),
            ("socket of vsock", libc::SYS_socket, libc::AF_VSOCK as u64, eperm),
            ("socket of alg", libc::SYS_socket, libc::AF_ALG as u64, eperm),
            ("personality, ask", libc::SYS_personality, 0xffff_ffff, ALLOW),
            ("personality, no randomisation", libc::SYS_personality, 0x004_0000, eperm),
            ("a call of the future", i64::from(allowed::LAST_KNOWN) + 1, 0, enosys),
            ("a negative number", 0xffff_ffff, 0, enosys),
        ];
        for (name, number, argument, wanted) in cases {
            let got = run(filter.program(), number as u32, argument);
            assert_eq!(got, wanted, "{name}: {got:#x}");
        }
    }

    #[test]
    fn stays_short() {
        let length = Filter::new().program().len();
        assert!(length < 400, "{length} instructions");
    }
}
