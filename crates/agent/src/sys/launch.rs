//! From the agent to another program: fork, become somebody else, exec.
//!
//! Everything the child needs is made before the fork; between fork and exec it allocates nothing
//! and calls the kernel directly where the C library would talk to other threads (ids).

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::pipe::{PipeFlags, pipe_with};

use super::DescriptorLimit;

/// The highest signal number of Linux.
const LAST_SIGNAL: c_int = 64;
/// Size of the kernel's signal set in bytes.
const KERNEL_SIGSET: usize = 8;
/// Size of a report: stage and error number.
const REPORT: usize = 5;

/// How much sooner than the agent a program is ended when memory runs out, in thousandths of the limit.
const SPARED_LESS: &[u8] = b"100";

/// A program to start.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Paths to try in this order, as a search in `PATH` does.
    pub(crate) candidates: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: &'a CStr,
    /// Uid, gid and groups to take; `None` keeps those of the agent.
    pub(crate) ids: Option<(u32, u32, Vec<u32>)>,
    pub(crate) stdio: Stdio<'a>,
    pub(crate) limit: DescriptorLimit,
}

/// What a program has as descriptors 0, 1 and 2.
#[derive(Debug)]
pub(crate) enum Stdio<'a> {
    Pipes { stdin: BorrowedFd<'a>, stdout: BorrowedFd<'a>, stderr: BorrowedFd<'a> },
    Terminal(BorrowedFd<'a>),
}

/// A child that is on its way to its program.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: i32,
    /// Ends empty when the program runs; else has a report.
    pub(crate) report: OwnedFd,
}

/// The step that failed in the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Session = 1,
    Stdio,
    Ids,
    Cwd,
    Exec,
}

/// Why the child did not reach its program.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) stage: Stage,
    pub(crate) error: io::Error,
}

/// Understands what was read from [`Launched::report`].
pub(crate) fn read_report(bytes: &[u8]) -> Option<Report> {
    let (stage, number) = bytes.split_first()?;
    let stage = match stage {
        1 => Stage::Session,
        2 => Stage::Stdio,
        3 => Stage::Ids,
        4 => Stage::Cwd,
        _ => Stage::Exec,
    };
    let number = number.first_chunk::<4>().map_or(libc::EIO, |bytes| i32::from_ne_bytes(*bytes));
    Some(Report { stage, error: io::Error::from_raw_os_error(number) })
}

impl Launch<'_> {
    /// Forks. Where the child goes from there is told by [`Launched::report`].
    pub(crate) fn start(&self) -> io::Result<Launched> {
        let argv = pointers(&self.argv);
        let env = pointers(&self.env);
        let (report, sender) = pipe_with(PipeFlags::CLOEXEC)?;
        let all = Mask::block_all();
        // SAFETY: the child runs `become_program` only, which allocates nothing, takes no lock and
        // does not return; signals are blocked, so no handler of the agent runs in it.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let child = Child { launch: self, argv: &argv, env: &env, report: sender.as_raw_fd() };
            child.become_program();
        }
        let forked = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
        drop(all);
        Ok(Launched { pid: forked?, report })
    }
}

/// Every signal blocked, as long as this lives.
struct Mask(libc::sigset_t);

impl Mask {
    fn block_all() -> Self {
        // SAFETY: sigset_t is plain data that sigfillset and pthread_sigmask fill in.
        unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by pthread_sigmask.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut());
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// The child, after fork. No allocation, no lock, no return.
struct Child<'a> {
    launch: &'a Launch<'a>,
    argv: &'a [*const c_char],
    env: &'a [*const c_char],
    report: RawFd,
}

impl Child<'_> {
    fn become_program(&self) -> ! {
        let (stage, number) = match self.prepare() {
            Ok(()) => (Stage::Exec, self.exec()),
            Err(failed) => failed,
        };
        let mut bytes = [stage as u8; REPORT];
        bytes[1..].copy_from_slice(&number.to_ne_bytes());
        // SAFETY: writes a local array to a pipe that the parent reads, then leaves without
        // running anything of the parent's.
        unsafe {
            libc::write(self.report, bytes.as_ptr().cast(), REPORT);
            libc::_exit(127)
        }
    }

    fn prepare(&self) -> Result<(), (Stage, c_int)> {
        // SAFETY: system calls on values and on memory that lives in `launch`; see each stage.
        unsafe {
            check(Stage::Session, libc::setsid().into())?;
            let (sources, terminal) = match &self.launch.stdio {
                Stdio::Pipes { stdin, stdout, stderr } => {
                    ([stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()], false)
                }
                Stdio::Terminal(slave) => ([slave.as_raw_fd(); 3], true),
            };
            if terminal {
                check(Stage::Session, libc::ioctl(sources[0], libc::TIOCSCTTY, 0).into())?;
            }
            // The agent's own 0, 1 and 2 are open, so no source is one of the targets.
            for (target, source) in (0..).zip(sources) {
                check(Stage::Stdio, libc::dup2(source, target).into())?;
            }
            // Everything the agent opens is close-on-exec; this covers what it inherited.
            libc::syscall(libc::SYS_close_range, 3, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC);
            self.restore_defaults();
            if let Some((uid, gid, groups)) = &self.launch.ids {
                // The kernel's calls: the C library's would try to reach the agent's other threads.
                let count = groups.len();
                check(Stage::Ids, libc::syscall(libc::SYS_setgroups, count, groups.as_ptr()))?;
                check(Stage::Ids, libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid))?;
                check(Stage::Ids, libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid))?;
            }
            // As the user: the directory must be one that the user may enter.
            check(Stage::Cwd, libc::chdir(self.launch.cwd.as_ptr()).into())?;
            Ok(())
        }
    }

    /// Signals, umask and limits as a fresh process has them.
    unsafe fn restore_defaults(&self) {
        // SAFETY: plain system calls on local memory of the sizes that they expect; SIGKILL and
        // SIGSTOP cannot be set and are default always.
        unsafe {
            // The kernel's call: the C library's refuses the two signals that it keeps for itself,
            // and those may be inherited as ignored too. All zero is SIG_DFL without flags.
            let default = [0_u64; 4];
            for signal in 1..=LAST_SIGNAL {
                let old = ptr::null_mut::<u64>();
                libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, KERNEL_SIGSET);
            }
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
            libc::umask(0o022);
            let limit =
                libc::rlimit { rlim_cur: self.launch.limit.soft, rlim_max: self.launch.limit.hard };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
        Self::go_first_without_memory();
    }

    /// When memory runs out, the kernel is to end what the user started before the agent, whose end is
    /// that of the sandbox. Where the file is missing, it decides by size alone.
    fn go_first_without_memory() {
        // SAFETY: the path ends with NUL, the bytes are static, and the descriptor is this call's own.
        unsafe {
            let flags = libc::O_WRONLY | libc::O_CLOEXEC;
            let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), flags);
            if file >= 0 {
                libc::write(file, SPARED_LESS.as_ptr().cast(), SPARED_LESS.len());
                libc::close(file);
            }
        }
    }

    /// Tries the candidates as `execvp` does, without its detour over a shell. Gives the error.
    fn exec(&self) -> c_int {
        let mut result = libc::ENOENT;
        for candidate in &self.launch.candidates {
            // SAFETY: all strings end with NUL, both arrays with a null pointer.
            unsafe {
                libc::execve(candidate.as_ptr(), self.argv.as_ptr(), self.env.as_ptr());
            }
            match errno() {
                libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG => {}
                libc::EACCES => result = libc::EACCES,
                other => return other,
            }
        }
        result
    }
}

fn check(stage: Stage, result: c_long) -> Result<(), (Stage, c_int)> {
    if result == -1 { Err((stage, errno())) } else { Ok(()) }
}

fn errno() -> c_int {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}
