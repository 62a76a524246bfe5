//! Processes that outlive the program which started them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};

/// What a run starts and what those start, as the kernel shortens their names.
const PROGRAMS: [&str; 14] = [
    "kiln",
    "kiln-bench",
    "docker-registry",
    "podman",
    "buildah",
    "conmon",
    "netavark",
    "aardvark-dns",
    "runc",
    "crun",
    "runsc",
    "umoci",
    "skopeo",
    "mmdebstrap",
];

/// How long a process that was killed may take to be gone.
const DEADLINE: Duration = Duration::from_secs(10);

/// Kills those of a run's programs that have `path` in an argument or a variable, and waits until they
/// are gone.
pub(crate) fn end(path: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut left = false;
        for pid in processes()? {
            let name = read(pid, "comm");
            let name = name.trim();
            let knows = |file: &&str| read(pid, file).contains(path);
            if PROGRAMS.contains(&name) && wanted(name) && ["cmdline", "environ"].iter().any(knows)
            {
                left = true;
                let _gone = kill_process(pid, Signal::KILL);
                if Instant::now() > deadline {}
            }
        }
        if !left || Instant::now() > deadline {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn processes() -> Result<Vec<Pid>> {
    let own = std::process::id().cast_signed();
    let names =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers = names.filter_map(|name| name.parse().ok()).filter(|&number: &i32| number != own);
    Ok(numbers.filter_map(Pid::from_raw).collect())
}

/// Empty for a process that is gone, and for the rest of one that has ended.
fn read(pid: Pid, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
