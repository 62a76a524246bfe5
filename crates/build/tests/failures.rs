//! Builds that fail, and what they leave: nothing but the steps that were done.

#![expect(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "build/lab.rs"]
#[expect(dead_code, reason = "shared with the other tests of builds")]
mod lab;

use std::time::Duration;

use kiln_types::api::BuildStatus;
use kiln_types::event::BuildFailure;
use kiln_types::{Base, Digest, FileStep, RunCommand, Step};
use lab::{Lab, cached, privileged, run};

#[test]
fn a_failure_names_step_command_code_and_last_lines() {
    if !privileged() {
        return;
    }
    let lab = Lab::with(|config| config.step_timeout = Duration::from_secs(5));
    let argv = |words: &[&str]| Step::Run {
        command: RunCommand::Argv(words.iter().map(ToString::to_string).collect()),
    };
    let lines: Vec<String> = (11..=30).map(|number| number.to_string()).collect();
    let none = Vec::new();
    /// Step, command, exit code, last lines, part of the message.
    type Case = (Step, &'static str, Option<i32>, Vec<String>, &'static str);
    let cases: Vec<Case> = vec![
        (run("seq 1 30; exit 7"), "seq 1 30; exit 7", Some(7), lines, "exit code 7"),
        (
            run("echo bad >&2; kill -9 $$"),
            "echo bad >&2; kill -9 $$",
            Some(137),
            vec!["bad".into()],
            "signal 9",
        ),
        (
            argv(&["no-such-program", "a b"]),
            "no-such-program 'a b'",
            None,
            none.clone(),
            "no-such-program",
        ),
        (
            run("echo begun; sleep 600"),
            "echo begun; sleep 600",
            Some(137),
            vec!["begun".into()],
            "longer than 5 s",
        ),
        (Step::User { user: "nobody-here".into() }, "", None, none.clone(), ""),
    ];
    lab.block_on(async {
        for (step, command, code, last_lines, message) in cases {
            let mut steps = vec![run("echo fine > /fine"), step.clone()];
            let mut failed_step = 2;
            if matches!(step, Step::User { .. }) {
                steps.push(run("true"));
                failed_step = 3;
            }
            let (record, _) = lab.build(lab.plan(steps)).await;
            assert_eq!((record.status, record.image), (BuildStatus::Failed, None), "{step:?}");
            let failure = record.failure.unwrap();
            assert_eq!(failure.step, Some(failed_step), "{failure:?}");
            if failed_step == 2 {
                assert_eq!(failure.command.as_deref(), Some(command));
                assert_eq!(
                    (failure.exit_code, &failure.last_lines),
                    (code, &last_lines),
                    "{failure:?}"
                );
                assert!(failure.message.contains(message), "{failure:?}");
            } else {
                assert!(failure.message.contains("nobody-here"), "{failure:?}");
            }
            lab.assert_clean();
        }
        assert_eq!(lab.metadata.list_images(None, 100).await.unwrap().len(), 1, "only the base");
        assert!(lab.metadata.resolve_name(&"test:v1".parse().unwrap()).await.unwrap().is_none());

        // What was done before the failure is kept.
        let (_, _, events) = lab.image(lab.plan(vec![run("echo fine > /fine")])).await;
        assert_eq!(cached(&events), [true]);
    });
}

#[test]
fn a_file_that_cannot_be_written_fails_its_step() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let file =
        FileStep { path: "/bin/busybox/x".into(), content_base64: String::new(), mode: 0o644 };
    lab.block_on(async {
        let (record, _) = lab.build(lab.plan(vec![Step::File(file)])).await;
        let failure = record.failure.unwrap();
        assert_eq!(failure.step, Some(1));
        assert!(failure.message.contains("/bin/busybox/x"), "{failure:?}");
        lab.assert_clean();
    });
}

#[test]
fn a_step_that_takes_too_much_memory_fails_and_says_so() {
    if !privileged() {
        return;
    }
    let lab = Lab::with(|config| config.limits.memory = 64 << 20);
    lab.block_on(async {
        // A line without an end is all kept in memory.
        let (record, _) =
            lab.build(lab.plan(vec![run("head -c 300000000 /dev/zero | sort")])).await;
        let failure = record.failure.unwrap();
        assert_eq!((failure.step, failure.exit_code), (Some(1), Some(137)), "{failure:?}");
        assert!(
            failure.message.contains("memory") && failure.message.contains("64 MiB"),
            "{failure:?}"
        );
        lab.assert_clean();
    });
}

#[test]
fn what_is_missing_fails_before_any_step() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let missing = lab.dir.path().join("missing.tar").display().to_string();
    let garbage = lab.dir.path().join("garbage.tar");
    std::fs::write(&garbage, vec![7; 10_000]).unwrap();
    let garbage = garbage.display().to_string();
    let digest = Digest::of("nothing").to_string();
    lab.block_on(async {
        for (base, message) in [
            (Base::Rootfs(missing.clone()), missing.as_str()),
            (Base::Rootfs(garbage.clone()), "not"),
            (Base::Rootfs("/".into()), "root of this host"),
            (Base::Rootfs("/dev/null".into()), "neither"),
            (Base::Image("no-such-image".into()), "no-such-image"),
            (Base::Image(digest.clone()), digest.as_str()),
            (Base::Reference("127.0.0.1:9/none:1".into()), "127.0.0.1:9/none:1"),
        ] {
            let (record, events) = lab.build(lab.plan_on(base.clone(), vec![run("true")])).await;
            let failure = record.failure.unwrap();
            let BuildFailure { step, message: said, .. } = &failure;
            assert_eq!(*step, None, "{failure:?}");
            assert!(said.contains(message), "{base:?}: {said}");
            assert!(cached(&events).is_empty());
        }
        assert!(lab.metadata.list_images(None, 100).await.unwrap().is_empty());
        assert!(lab.store.blobs().list().unwrap().is_empty(), "no bytes of what failed are kept");
        lab.assert_clean();
    });
}

#[test]
fn a_full_disk_fails_the_build_and_leaves_the_room_free() {
    if !privileged() {
        return;
    }
    let lab = Lab::on_small_disk(24);
    lab.block_on(async {
        let (_, record, _) = lab.image(lab.plan(vec![run("echo small > /small")])).await;
        assert_eq!(record.steps_cached, 0);
        let (blobs, free) = (lab.store.blobs().list().unwrap().len(), free(lab.dir.path()));
        for (script, part) in [
            // Full while the step writes, and while its layer is saved.
            ("head -c 60000000 /dev/zero > /big", "the disk is full"),
            ("head -c 11000000 /dev/zero > /big", "No space left on device"),
        ] {
            let (record, _) = lab.build(lab.plan(vec![run(script)])).await;
            let row = lab.metadata.get_build(&record.id).await.unwrap().unwrap();
            assert_eq!(row, record, "its end is recorded");
            let failure = record.failure.unwrap();
            assert_eq!((record.status, failure.step), (BuildStatus::Failed, Some(1)));
            let said = format!("{}\n{}", failure.message, failure.last_lines.join("\n"));
            assert!(said.contains(part), "{said}");
            lab.assert_clean();
            assert_eq!(lab.store.blobs().list().unwrap().len(), blobs);
        }
        // A base that is too large.
        let large = tempfile::NamedTempFile::new().unwrap();
        let tree = kiln_testkit::Tree::root().file("large", vec![7; 40 << 20]);
        std::fs::write(large.path(), tree.tar()).unwrap();
        let base = Base::Rootfs(large.path().display().to_string());
        let (record, _) = lab.build(lab.plan_on(base.clone(), vec![run("true")])).await;
        let failure = record.failure.unwrap();
        assert!(failure.message.contains("No space left on device"), "{failure:?}");
        let error = lab.builder.resolve_base(&base, false, &|_| ()).await.unwrap_err();
        assert_eq!(error.code(), kiln_types::ErrorCode::StorageFull);
        assert_eq!(lab.store.blobs().list().unwrap().len(), blobs);
        // What is left are rows and logs.
        let now = self::free(lab.dir.path());
        assert!(now + (2 << 20) > free, "{now} of {free} bytes are free");
        lab.image(lab.plan(vec![run("echo again > /again")])).await;
    });
}

/// Free bytes of the file system of `path`.
fn free(path: &std::path::Path) -> u64 {
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_bavail * found.f_frsize
}

#[test]
fn what_an_image_lacks_for_a_step_is_said() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let packages = || vec!["jq".to_owned()];
    lab.block_on(async {
        for (step, hint) in [
            (Step::Apt { packages: packages() }, "base with apt-get"),
            (Step::Pip { packages: packages() }, "`python3-pip`"),
            (Step::Npm { packages: packages() }, "`npm`"),
        ] {
            let (record, _) = lab.build(lab.plan(vec![step])).await;
            let failure = record.failure.unwrap();
            assert!(failure.message.contains(hint), "{failure:?}");
            assert!(failure.command.is_some(), "{failure:?}");
        }
    });
}

/// apt itself takes an archive that cannot be reached for a warning.
#[test]
fn package_lists_that_cannot_be_had_fail_the_step() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    // It does as it is told to: without the mode, a failed fetch is passed over.
    let script =
        "#!/bin/sh\ncase \"$*\" in *Error-Mode=any*) echo E: not reached >&2; exit 100;; esac\n";
    let apt = FileStep {
        path: "/usr/bin/apt-get".into(),
        content_base64: base64_of(script),
        mode: 0o755,
    };
    lab.block_on(async {
        let steps = vec![Step::File(apt), Step::Apt { packages: vec!["jq".into()] }];
        let (record, _) = lab.build(lab.plan(steps)).await;
        let failure = record.failure.unwrap();
        assert_eq!((failure.step, failure.exit_code), (Some(2), Some(100)), "{failure:?}");
        assert_eq!(failure.last_lines, ["E: not reached"]);
    });
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}
