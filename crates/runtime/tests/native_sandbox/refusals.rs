//! What is refused, and that nothing is left behind.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use kiln_runtime::{BoxError, Runtime as _, RuntimeError, SandboxSpec, Slot, Userns};

use super::fixture::Disk;
use super::lab::{Lab, chain, create, eventually, privileged, spec};

#[test]
fn what_cannot_be_passed_on_is_refused_by_name() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let env = |key: &str, value: &str| SandboxSpec {
        env: vec![(key.to_owned(), value.to_owned())],
        ..spec()
    };
    let host = |name: &str| SandboxSpec { hostname: name.to_owned(), ..spec() };
    let cases = [
        (host(""), "hostname"),
        (host("two words"), "two words"),
        (host(&"x".repeat(65)), "1 to 64"),
        (env("", "x"), "env"),
        (env("A=B", "x"), "A=B"),
        (env("NUL", "a\0b"), "NUL"),
        (env("HUGE", &"x".repeat(100_000)), "HUGE"),
    ];
    for (spec, wanted) in cases {
        let refused = lab.tokio.block_on(create(&lab.runtime, spec, lab.place.disk()));
        let text = chain(&refused.unwrap_err());
        assert!(text.contains(wanted), "{text}");
    }
    let large = env("LARGE", &"\"".repeat(70_000));
    lab.sandbox_of(large, lab.place.disk(), async |running| {
        running.agent.ping().await.unwrap();
        lab.slots.released.lock().unwrap().push(running.slot);
    });
    assert_clean(&lab);
}

#[test]
fn an_image_without_places_for_the_kernels_files_is_refused() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for missing in ["dev", "proc", "sys"] {
        let image = lab.place.path().join(format!("without-{missing}"));
        fs::create_dir(&image).unwrap();
        for name in ["dev", "proc", "sys"].iter().filter(|name| **name != missing) {
            fs::create_dir(image.join(name)).unwrap();
        }
        let disk = Disk::over(lab.place.path(), vec![image]);
        let refused = lab.tokio.block_on(create(&lab.runtime, spec(), disk)).unwrap_err();
        let text = chain(&refused);
        let step = format!("find the directory /{missing} in the image: No such file");
        assert!(text.contains(&step), "{text}");
    }
    assert_clean(&lab);
}

#[test]
fn a_failing_root_leaves_nothing() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let broken = |_: Userns<'_>| -> Result<OwnedFd, BoxError> { Err("the disk is gone".into()) };
    let failed = lab.tokio.block_on(lab.runtime.create(spec(), Box::new(broken)));
    let text = chain(&failed.unwrap_err());
    assert!(text.ends_with("could not mount its root: the disk is gone"), "{text}");
    let not_a_mount = |_: Userns<'_>| -> Result<OwnedFd, BoxError> {
        Ok(fs::File::open("/etc").map(OwnedFd::from)?)
    };
    let failed = lab.tokio.block_on(lab.runtime.create(spec(), Box::new(not_a_mount)));
    assert!(matches!(failed, Err(RuntimeError::Start { .. })), "{failed:?}");
    assert_clean(&lab);
}

#[test]
fn a_slot_serves_one_sandbox_at_a_time() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let at = |slot| SandboxSpec { slot: Some(Slot(slot)), ..spec() };
    lab.sandbox_of(at(9), lab.place.disk(), async |running| {
        assert_eq!(running.slot, Slot(9));
        let refused = create(&lab.runtime, at(9), lab.place.disk()).await.unwrap_err();
        assert!(matches!(refused, RuntimeError::Busy { .. }), "{}", chain(&refused));
        running.agent.ping().await.unwrap();
    });
    assert_clean(&lab);
}

#[test]
fn a_slot_that_is_used_against_the_books_is_passed_over() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let first = SandboxSpec { slot: Some(Slot(0)), ..spec() };
    lab.sandbox_of(first, lab.place.disk(), async |_| {
        let second = spec();
        let id = second.id;
        // The books know nothing of the first, and offer its slot.
        let running = create(&lab.runtime, second, lab.place.disk()).await.unwrap();
        assert_eq!(running.slot, Slot(1));
        assert_eq!(*lab.slots.released.lock().unwrap(), [Slot(0)]);
        lab.runtime.stop(id, std::time::Duration::ZERO).await.unwrap();
    });
    assert_nothing_runs(&lab);
}

#[test]
fn stopping_what_ends_at_the_same_time_is_no_error() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.tokio.block_on(async {
        for round in 0..12_u64 {
            let spec = SandboxSpec { network: false, ..spec() };
            let id = spec.id;
            let running = create(&lab.runtime, spec, lab.place.disk()).await.unwrap();
            let pid = rustix::process::Pid::from_raw(running.pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            tokio::time::sleep(std::time::Duration::from_micros(500 * round)).await;
            let stopped = lab.runtime.stop(id, std::time::Duration::from_secs(1)).await;
            assert!(stopped.is_ok(), "round {round}: {}", chain(&stopped.unwrap_err()));
        }
    });
    assert_nothing_runs(&lab);
}

#[test]
fn a_lost_launcher_is_an_error_and_no_more() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.sandbox_of(spec(), lab.place.disk(), async |running| {
        for launcher in super::crash::children_named(std::process::id(), "kiln-launcher") {
            rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
            super::crash::wait_gone(launcher);
        }
        let refused = create(&lab.runtime, spec(), lab.place.disk()).await.unwrap_err();
        let text = chain(&refused);
        assert!(text.contains("the launcher ended"), "{text}");
        running.agent.ping().await.unwrap();
    });
    assert_nothing_runs(&lab);
}

#[test]
fn an_end_says_how_it_came() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.tokio.block_on(async {
        for orderly in [true, false] {
            let spec = spec();
            let mut running = create(&lab.runtime, spec, lab.place.disk()).await.unwrap();
            if orderly {
                running.agent.shutdown(std::time::Duration::ZERO).await.unwrap();
            } else {
                let pid = rustix::process::Pid::from_raw(running.pid as i32).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
            let exit = running.exit.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            assert!(!exit.out_of_memory);
            // Older kernels do not say more.
            let (wanted, short) = ("killed by signal 9", "its first process ended");
            let reason = &*exit.reason;
            assert!(reason.ends_with(wanted) != orderly || reason == short, "{reason}");
        }
    });
    assert_nothing_runs(&lab);
}

/// As [`assert_nothing_runs`], and no slot is lost.
#[track_caller]
pub(crate) fn assert_clean(lab: &Lab) {
    assert_nothing_runs(lab);
    eventually("the return of all slots", || {
        lab.slots.outstanding() == lab.runtime.prepared() as u32
    });
}

/// Nothing of any sandbox is there.
#[track_caller]
pub(crate) fn assert_nothing_runs(lab: &Lab) {
    let state: Vec<_> = fs::read_dir(lab.place.path().join("state")).unwrap().collect();
    assert!(state.is_empty(), "{state:?}");
    let parent = lab.place.block.cgroup_parent();
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let dir: PathBuf = controller.unwrap().path().join(&parent);
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let groups = entries.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        let count = groups.count();
        // Not every hierarchy is in use.
        let right = [0, lab.runtime.prepared()].contains(&count);
        assert!(right, "{count} groups in {}", dir.display());
    }
    let prefix = lab.place.block.interface_prefix();
    // The kernel takes its time with these.
    eventually("the end of all links", || {
        let links = fs::read_dir("/sys/class/net").unwrap();
        let names = links.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(&prefix)).count() == lab.runtime.prepared()
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(lab.place.path().to_str().unwrap()), "{mounts}");
}
