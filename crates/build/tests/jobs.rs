//! Builds as jobs: their logs, equal builds at once, the end of the daemon.

#![expect(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "build/lab.rs"]
#[expect(dead_code, reason = "shared with the other tests of builds")]
mod lab;

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use kiln_build::{BuildError, CatalogSource};
use kiln_roots::UpperLimits;
use kiln_types::api::BuildStatus;
use kiln_types::event::{BuildEvent, BuildEventKind};
use kiln_types::{Base, BuildId};
use lab::{Lab, cached, infos, output, privileged, run};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn readers_follow_and_resume_and_never_hold_a_build_up() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        // The pause is long against what a reader needs to see the first output.
        let steps = vec![run("echo first; sleep 5; seq 1 20000")];
        let record = lab.builder.start(lab.plan(steps)).await.unwrap();
        assert_eq!(record.status, BuildStatus::Running);
        // One reader that never reads on, one that does.
        let mut idle = Box::pin(lab.builder.log(&record.id, 0).await.unwrap());
        assert_eq!(idle.next().await.unwrap().seq, 0);
        let mut live = Box::pin(lab.builder.log(&record.id, 0).await.unwrap());
        let seen = tokio::time::timeout(PATIENCE, async {
            loop {
                let event = live.next().await.unwrap();
                if matches!(&event.kind, BuildEventKind::Output { text, .. } if text.contains("first")) {
                    return event.seq;
                }
            }
        });
        let seen = seen.await.unwrap();
        assert!(live.next().now_or_never().is_none(), "the build still runs");
        assert_eq!(lab.builder.get(&record.id).await.unwrap().status, BuildStatus::Running);

        let ended = lab.builder.wait(&record.id).await.unwrap();
        assert_eq!(ended.status, BuildStatus::Succeeded);
        let rest: Vec<BuildEvent> = live.collect().await;
        assert_eq!(rest[0].seq, seen + 1);
        assert!(output(&rest).ends_with("19999\n20000\n"));
        let resumed: Vec<BuildEvent> =
            lab.builder.log(&record.id, seen + 1).await.unwrap().collect().await;
        assert_eq!(resumed, rest);
        let late: Vec<BuildEvent> = idle.collect().await;
        assert_eq!(late.last(), rest.last());
        let after = rest.last().unwrap().seq + 1;
        let nothing = lab.builder.log(&record.id, after).await.unwrap().collect::<Vec<_>>().await;
        assert_eq!(nothing, []);
    });
}

#[test]
fn equal_builds_at_once_run_each_step_once() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let ran = "echo ran; sleep 1; echo x > /x";
    lab.block_on(async {
        let builds = (0..4).map(|number| {
            let mut plan = lab.plan(vec![run(ran), run("echo y > /y")]);
            plan.name = Some(format!("build-{number}").parse().unwrap());
            lab.image(plan)
        });
        let results = futures_util::future::join_all(builds).await;
        let runs = results.iter().filter(|(_, _, events)| output(events).contains("ran")).count();
        assert_eq!(runs, 1);
        for (number, (image, record, events)) in results.iter().enumerate() {
            assert_eq!(image.digest, results[0].0.digest);
            assert_eq!(cached(events).len(), 2, "{events:#?}");
            assert_eq!(
                record.steps_cached as usize,
                cached(events).iter().filter(|hit| **hit).count()
            );
            let name = format!("build-{number}").parse().unwrap();
            let named = lab.metadata.resolve_name(&name).await.unwrap();
            assert_eq!(named, Some(image.digest));
        }
        lab.assert_clean();
    });
}

#[test]
fn builds_that_fail_at_once_fail_alike() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let plan = || lab.plan(vec![run("echo ran; sleep 1; exit 3")]);
        let (one, two) = tokio::join!(lab.build(plan()), lab.build(plan()));
        let waited = [&one, &two].map(|(_, events)| {
            infos(events).iter().any(|line| line.starts_with("step 1: another"))
        });
        assert_eq!(waited.iter().filter(|waited| **waited).count(), 1);
        assert_eq!(one.0.failure, two.0.failure);
        assert_eq!(one.0.failure.unwrap().exit_code, Some(3));
    });
}

#[test]
fn a_shutdown_ends_builds_and_takes_no_more() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let record = lab.builder.start(lab.plan(vec![run("echo begun; sleep 600")])).await.unwrap();
        let mut log = Box::pin(lab.builder.log(&record.id, 0).await.unwrap());
        while let Some(event) = log.next().await {
            if matches!(event.kind, BuildEventKind::Output { .. }) {
                break;
            }
        }
        tokio::time::timeout(PATIENCE, lab.builder.shutdown()).await.unwrap();
        let ended = lab.builder.get(&record.id).await.unwrap();
        assert_eq!(ended.status, BuildStatus::Failed);
        assert!(ended.failure.unwrap().message.contains("shut down"));
        let refused = lab.builder.start(lab.plan(vec![run("true")])).await;
        assert!(matches!(refused, Err(BuildError::ShuttingDown)));
        lab.assert_clean();
    });
}

#[test]
fn what_a_crash_left_is_ended_and_removed() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let (_, mut record, events) = lab.image(lab.plan(vec![run("echo x > /x")])).await;
        // As if the daemon had been killed in the middle: the row says running, the log stops within
        // a line, the upper of a step is there.
        record.status = BuildStatus::Running;
        record.image = None;
        record.finished_at = None;
        lab.metadata.put_build(&record).await.unwrap();
        let path = lab.dir.path().join("builds").join(record.id.to_string()).join("log.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let cut = format!("{}\n{}", lines[..lines.len() - 1].join("\n"), &lines[0][..20]);
        std::fs::write(&path, cut).unwrap();
        lab.roots
            .uppers()
            .create(&format!("build-{}", kiln_types::SandboxId::new()), UpperLimits::default())
            .unwrap();
        lab.roots.uppers().create("sbx_other", UpperLimits::default()).unwrap();

        lab.builder.recover().await.unwrap();
        assert_eq!(lab.roots.uppers().list().unwrap(), ["sbx_other"]);
        let ended = lab.builder.wait(&record.id).await.unwrap();
        assert_eq!(ended.status, BuildStatus::Failed);
        let after: Vec<BuildEvent> = lab.builder.log(&record.id, 0).await.unwrap().collect().await;
        assert_eq!(after.len(), events.len());
        assert_eq!(after[..after.len() - 1], events[..events.len() - 1]);
        let last = after.last().unwrap();
        assert_eq!(last.seq, after.len() as u64 - 1);
        let BuildEventKind::Finished { status, failure, .. } = &last.kind else {
            panic!("{last:?}")
        };
        assert_eq!(*status, BuildStatus::Failed);
        assert!(failure.as_ref().unwrap().message.contains("daemon ended"));
        lab.builder.recover().await.unwrap();
    });
}

#[test]
fn a_log_that_was_lost_still_ends() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let (_, record, events) = lab.image(lab.plan(vec![run("true")])).await;
        let path = lab.dir.path().join("builds").join(record.id.to_string()).join("log.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        for (kept, count) in [(format!("{first}\n"), 2), (String::new(), 1)] {
            std::fs::write(&path, kept).unwrap();
            let log: Vec<BuildEvent> =
                lab.builder.log(&record.id, 0).await.unwrap().collect().await;
            assert_eq!(log.len(), count);
            assert_eq!(log.last().unwrap().kind, events.last().unwrap().kind);
        }
        let unknown = lab.builder.log(&BuildId::new(), 0).await;
        assert!(matches!(unknown.err(), Some(BuildError::NotFound { .. })));
    });
}

/// As on a full disk: the database takes no more, and neither does the log.
#[test]
fn a_build_whose_end_is_not_recorded_ends_all_the_same() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        use sqlx::{Connection as _, Executor as _};
        let file = lab.dir.path().join("kiln.sqlite");
        let mut database =
            sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let refuse =
            "CREATE TRIGGER full BEFORE UPDATE ON builds BEGIN SELECT RAISE(ABORT, 'full'); END";
        database.execute(refuse).await.unwrap();
        let (record, events) = lab.build(lab.plan(vec![run("exit 3")])).await;
        assert_eq!(record.status, BuildStatus::Failed);
        let row = lab.metadata.get_build(&record.id).await.unwrap().unwrap();
        assert_eq!(row.status, BuildStatus::Running, "the row could not be changed");
        assert_eq!(lab.builder.known(row), record);
        let log = lab.dir.path().join("builds").join(record.id.to_string()).join("log.jsonl");
        std::fs::write(log, "").unwrap();
        let log: Vec<BuildEvent> = lab.builder.log(&record.id, 0).await.unwrap().collect().await;
        let [last] = &log[..] else { panic!("{log:?}") };
        assert_eq!(last.kind, events.last().unwrap().kind);
    });
}

/// A base that takes long does not hold up the end of the daemon, and leaves nothing.
#[test]
fn a_shutdown_ends_what_makes_a_base() {
    if !privileged() {
        return;
    }
    let lab = Lab::with(|config| {
        let sources =
            vec![CatalogSource::DebianArchive { suite: "bookworm".into(), mirrors: vec![] }];
        config.catalog.insert("debian-12".to_owned(), sources);
    });
    let scratch = || {
        std::fs::read_dir(std::env::temp_dir())
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("kiln-base-"))
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = scratch();
    lab.block_on(async {
        let base = Base::Catalog("debian-12".into());
        let record = lab.builder.start(lab.plan_on(base, vec![run("true")])).await.unwrap();
        let mut log = Box::pin(lab.builder.log(&record.id, 0).await.unwrap());
        while let Some(event) = log.next().await {
            if infos(&[event]).iter().any(|line| line.contains("mmdebstrap: ")) {
                break;
            }
        }
        assert!(scratch().difference(&before).count() > 0);
        tokio::time::timeout(PATIENCE, lab.builder.shutdown()).await.unwrap();
        let ended = lab.builder.get(&record.id).await.unwrap();
        assert!(ended.failure.unwrap().message.contains("shut down"));
        assert!(lab.store.blobs().list().unwrap().is_empty());
        let deadline = std::time::Instant::now() + PATIENCE;
        while scratch().difference(&before).count() > 0 {
            assert!(std::time::Instant::now() < deadline, "{:?}", scratch());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}
