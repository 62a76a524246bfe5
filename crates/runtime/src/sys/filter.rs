//! Installing a seccomp filter.

use std::io;

use libc::sock_filter;

/// `struct sock_fprog` of the kernel.
#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const sock_filter,
}

/// Puts this thread, and whatever it executes, under `filter`.
///
/// Unlike seccompiler's own function it leaves `no_new_privs` alone, so it needs `CAP_SYS_ADMIN` in
/// the caller's user namespace where that is not set.
pub(crate) fn install(filter: &[sock_filter]) -> io::Result<()> {
    let program = Program {
        len: filter.len().try_into().map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        filter: filter.as_ptr(),
    };
    // SAFETY: `program` points to `len` instructions; the kernel copies them before it returns.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
