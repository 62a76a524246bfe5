//! What this host can do, and how a test says that it cannot run here.

use std::env;
use std::fs;

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether the kernel knows a file system (`overlay`, `erofs`) and this process may mount one. A file
/// system that is a module is loaded by the question.
pub fn has_filesystem(name: &str) -> bool {
    let known = || {
        fs::read_to_string("/proc/filesystems")
            .is_ok_and(|list| list.lines().any(|line| line.split_whitespace().last() == Some(name)))
    };
    let context = rustix::mount::fsopen(name, rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC);
    context.is_ok() && known()
}

/// Whether a program is in `PATH`.
pub fn has_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Says in the test's output that it did not run here, and why.
pub fn skip(reason: impl std::fmt::Display) {
    eprintln!("SKIP {reason}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found() {
        assert!(has_program("sh"));
        assert!(!has_program("no-such-program-anywhere"));
        assert!(!has_filesystem("no-such-filesystem"));
    }
}
