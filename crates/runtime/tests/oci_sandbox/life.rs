//! From the start of a sandbox to its end, and what is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_runtime::oci::{Flavour, OciConfig, ProbeError, probe};
use kiln_runtime::{OciRuntime, RootSource, Runtime as _, RuntimeError, SandboxSpec};

use super::lab::{Lab, Place, chain, eventually, privileged, sh, spec, state_of};

/// The driver for a runtime, if this machine has it; says so if not.
pub(crate) fn driver(lab: &Lab, flavour: Flavour) -> Option<Arc<OciRuntime>> {
    let config = OciConfig::new(flavour);
    match probe(&config) {
        Err(ProbeError::Missing { .. }) => {
            println!("SKIP {} is not installed", flavour.name());
            return None;
        }
        Err(error) => panic!("{}", chain(&error)),
        Ok(found) => println!("{} {}", found.path.display(), found.version),
    }
    Some(OciRuntime::new(config, &lab.runtime).unwrap())
}

/// The directories of control groups of this block, in all hierarchies.
fn groups(place: &Place) -> Vec<PathBuf> {
    let parent = place.block.cgroup_parent();
    let mounts = std::fs::read_dir("/sys/fs/cgroup").unwrap();
    let mounts = mounts.map(|entry| entry.unwrap().path()).chain(["/sys/fs/cgroup".into()]);
    let below = |mount: PathBuf| std::fs::read_dir(mount.join(&parent)).into_iter().flatten();
    let entries = mounts.flat_map(below).map(|entry| entry.unwrap());
    entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect()
}

/// Nothing of any sandbox is on this host.
fn nothing_is_left(lab: &Lab) {
    eventually("an empty directory", || {
        std::fs::read_dir(lab.place.path().join("state")).unwrap().count() == 0
    });
    eventually("the end of all groups", || groups(&lab.place).is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = lab.place.path().display().to_string();
    assert!(!mounts.contains(&ours) && !mounts.contains(" /run/kiln/root "), "{mounts}");
    let empty = std::fs::read_dir("/run/kiln/root").unwrap().count();
    assert_eq!(empty, 0, "something is where roots are attached");
}

async fn create(
    lab: &Lab,
    runtime: &OciRuntime,
    spec: &SandboxSpec,
) -> Result<kiln_runtime::Running, RuntimeError> {
    let root: Box<dyn RootSource> = Box::new(lab.place.disk().source());
    runtime.create(spec.clone(), root).await
}

fn with(flavour: Flavour, test: impl AsyncFnOnce(&Lab, &OciRuntime)) {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let Some(runtime) = driver(&lab, flavour) else { return };
    lab.tokio.block_on(test(&lab, &runtime));
    nothing_is_left(&lab);
}

#[test]
fn nothing_of_the_host_is_shown() {
    for flavour in Flavour::ALL {
        with(flavour, async |lab, runtime| {
            let spec = spec();
            let running = create(lab, runtime, &spec).await.unwrap();
            let shown = sh(&running, "cat /proc/self/mountinfo; ls -l /proc/1/fd").await.out;
            let place = lab.place.path().display().to_string();
            for secret in [place.as_str(), "native-bookworm", "/run/kiln/root", "runc", "memfd"] {
                assert!(!shown.contains(secret), "{secret}: {shown}");
            }
            let link = "touch /dev/kiln/x; ls -A /dev/kiln 2>/dev/null | wc -l; ls /dev/agent";
            let outcome = sh(&running, link).await;
            assert!(!outcome.out.contains("agent"), "{outcome:?}");
            let directory = state_of(&lab.place, spec.id).join("link");
            if directory.exists() {
                let left = std::fs::read_dir(&directory).unwrap().count();
                assert_eq!(left, 0, "a sandbox writes to the host's directory");
            }
            runtime.stop(spec.id, Duration::ZERO).await.unwrap();
        });
    }
}

#[test]
fn a_runtime_that_fails_is_quoted_and_leaves_nothing() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let fake = |name: &str, script: &str| {
        let path = lab.place.path().join(name);
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && echo runc version 1.0 && exit\n{script}\n"
        );
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    };
    // The fourth argument is that of `--log`.
    let cases = [
        (fake("fails", "echo no such cgroup > $4; exit 1"), "no such cgroup"),
        (fake("silent", "exit 3"), "exit status: 3"),
        (fake("lies", "exit 0"), "could not read"),
    ];
    for (path, expected) in cases {
        let config = OciConfig { path: path.clone(), ..OciConfig::new(Flavour::Runc) };
        let runtime = OciRuntime::new(config, &lab.runtime).unwrap();
        let failed = lab.tokio.block_on(create(&lab, &runtime, &spec()));
        let error = chain(&failed.unwrap_err());
        assert!(error.contains(expected), "{}: {error}", path.display());
        nothing_is_left(&lab);
    }
    eventually("the slots", || lab.slots.outstanding() == 0);
    let missing = OciConfig { path: Path::new("/no/such").into(), ..OciConfig::new(Flavour::Crun) };
    let runtime = OciRuntime::new(missing, &lab.runtime).unwrap();
    let refused = lab.tokio.block_on(create(&lab, &runtime, &spec()));
    assert!(matches!(refused, Err(RuntimeError::Driver { .. })), "{refused:?}");
}

#[test]
fn a_sandbox_that_is_killed_from_outside_is_noticed() {
    for flavour in Flavour::ALL {
        with(flavour, async |lab, runtime| {
            let spec = spec();
            let running = create(lab, runtime, &spec).await.unwrap();
            let pid = rustix::process::Pid::from_raw(running.pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            let mut exit = running.exit.clone();
            let ended =
                tokio::time::timeout(Duration::from_mins(1), exit.wait_for(Option::is_some));
            let ended = ended.await.expect("it is noticed").unwrap().clone().unwrap();
            assert!(!ended.out_of_memory, "{ended:?}");
        });
    }
}

/// Prints what a start and a command take; run it by its name, with `--no-capture`.
#[test]
fn measure() {
    const ROUNDS: usize = 11;
    for flavour in Flavour::ALL {
        with(flavour, async |lab, runtime| {
            let (mut starts, mut commands, mut ends) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let spec = spec();
                let began = Instant::now();
                let running = create(lab, runtime, &spec).await.unwrap();
                starts.push(began.elapsed());
                for _ in 0..ROUNDS {
                    let began = Instant::now();
                    sh(&running, "true").await.ok();
                    commands.push(began.elapsed());
                }
                let began = Instant::now();
                runtime.stop(spec.id, Duration::ZERO).await.unwrap();
                ends.push(began.elapsed());
            }
            for times in [&mut starts, &mut commands, &mut ends] {
                times.sort_unstable();
            }
            let median = |times: &[Duration]| times[times.len() / 2];
            let (start, command, end) = (median(&starts), median(&commands), median(&ends));
            println!("{}: create {start:?}, exec {command:?}, stop {end:?}", flavour.name());
            assert!(command < start, "a command in a running sandbox is the cheaper thing");
        });
    }
}
