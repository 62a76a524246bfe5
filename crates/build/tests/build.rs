//! Builds on the native driver.

#![expect(clippy::print_stdout, reason = "a test says what it skips and how long things take")]

#[path = "build/lab.rs"]
#[expect(dead_code, reason = "shared with the other tests of builds")]
mod lab;

use std::collections::BTreeMap;
use std::time::Instant;

use kiln_types::api::BuildStatus;
use kiln_types::{FileStep, RunCommand, Step};
use lab::{Lab, cached, infos, output, privileged, run};

#[test]
fn steps_become_layers_and_a_second_build_runs_none() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let vars = BTreeMap::from([("GREETING".to_owned(), "it's \"$HOME\"\nand `more`".to_owned())]);
    let steps = vec![
        Step::Env { vars },
        run("printf '%s' \"$GREETING\" > /greeting; pwd; id -u"),
        Step::Workdir { path: "/srv/app".into() },
        Step::File(FileStep {
            path: "/srv/app/deep/tool".into(),
            content_base64: "IyEvYmluL3NoCmVjaG8gdG9vbAo=".into(),
            mode: 0o755,
        }),
        Step::Run { command: RunCommand::Argv(vec!["rm".into(), "/bin/yes".into()]) },
        Step::User { user: "dev".into() },
        run("id -un > /tmp/who; pwd"),
        Step::Cmd { argv: vec!["sh".into()] },
    ];
    lab.block_on(async {
        let (image, record, events) = lab.image(lab.plan(steps.clone())).await;
        assert_eq!(record.status, BuildStatus::Succeeded);
        assert_eq!(cached(&events), [false; 8]);
        assert_eq!(output(&events), "/workspace\n0\n/srv/app\n");
        // The base, and one for each step that changed something on disk.
        assert_eq!(image.layers.len(), 6);
        let script = "cat /greeting; echo; deep/tool; test -e /bin/yes || echo gone; cat /tmp/who; id -un; printf '%s' \"$GREETING\"";
        let text = lab.run(&image, script).await;
        let greeting = "it's \"$HOME\"\nand `more`";
        assert_eq!(text, format!("{greeting}\ntool\ngone\ndev\ndev\n{greeting}"));

        let started = Instant::now();
        let (again, record, events) = lab.image(lab.plan(steps)).await;
        println!("a build that is fully cached: {:?}", started.elapsed());
        assert_eq!(again.digest, image.digest);
        assert_eq!((record.steps_cached, cached(&events)), (8, vec![true; 8]));
        assert_eq!(output(&events), "");
        lab.assert_clean();
    });
}

#[test]
fn builds_share_the_steps_that_they_begin_with() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let common = || vec![run("echo ran >&2; echo a > /a"), run("true"), run("echo b > /b")];
        let with = |last: &str| common().into_iter().chain([run(last)]).collect::<Vec<_>>();
        let (one, ..) = lab.image(lab.plan(with("echo one > /c"))).await;
        let (two, record, events) = lab.image(lab.plan(with("echo two > /c"))).await;
        assert_eq!((record.steps_cached, cached(&events)), (3, vec![true, true, true, false]));
        // `true` made no layer.
        assert_eq!(one.layers[..3], two.layers[..3]);
        assert_eq!((one.layers.len(), two.layers.len()), (4, 4));
        assert_eq!(lab.run(&two, "cat /a /b /c").await, "a\nb\ntwo\n");

        // Another order is another prefix.
        let swapped = vec![run("true"), run("echo ran >&2; echo a > /a")];
        let (_, _, events) = lab.image(lab.plan(swapped)).await;
        assert_eq!(cached(&events), [false, false]);
    });
}

#[test]
fn without_the_cache_every_step_runs() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let plan = lab.plan(vec![run("echo ran; cat /proc/sys/kernel/random/uuid > /id")]);
        let (first, ..) = lab.image(plan.clone()).await;
        let mut anew = plan.clone();
        anew.no_cache = true;
        let (second, record, events) = lab.image(anew).await;
        assert_eq!((record.steps_cached, output(&events).as_str()), (0, "ran\n"));
        assert_ne!(first.layers[1], second.layers[1]);
        // The newer result replaced the older one.
        let (third, _, events) = lab.image(plan).await;
        assert_eq!((third.digest, cached(&events)), (second.digest, vec![true]));
    });
}

#[test]
fn a_damaged_result_is_made_again() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let plan = || lab.plan(vec![run("echo ran; echo a > /a"), run("echo ran; echo b > /b")]);
        let (image, ..) = lab.image(plan()).await;
        std::fs::remove_file(lab.store.blobs().path(&image.layers[2].0)).unwrap();
        let (again, record, events) = lab.image(plan()).await;
        assert_eq!(cached(&events), [true, false], "{events:#?}");
        assert_eq!((record.steps_cached, output(&events).as_str()), (1, "ran\n"));
        assert!(infos(&events).iter().any(|line| line.contains("not whole")), "{events:#?}");
        assert_eq!(lab.run(&again, "cat /a /b").await, "a\nb\n");
    });
}

#[test]
fn a_removed_image_is_built_again() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let plan = || lab.plan(vec![run("echo ran; echo a > /a")]);
        let (image, ..) = lab.image(plan()).await;
        lab.store.remove_image(&image.digest.to_string()).await.unwrap();
        let (again, _, events) = lab.image(plan()).await;
        assert_eq!((cached(&events), output(&events).as_str()), (vec![false], "ran\n"));
        assert_eq!(lab.run(&again, "cat /a").await, "a\n");
    });
}

#[test]
fn defaults_are_no_part_of_what_is_built() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let mut plan = lab.plan(vec![run("echo a > /a")]);
        let (image, ..) = lab.image(plan.clone()).await;
        plan.defaults.memory_mib = Some(512);
        plan.name = Some("other".parse().unwrap());
        let (again, _, events) = lab.image(plan).await;
        assert_eq!((again.digest, cached(&events)), (image.digest, vec![true]));
        // Each name has its own, whichever was built last.
        for (name, memory) in [("other", Some(512)), ("test:v1", None)] {
            assert_eq!(
                lab.store.resolve(name).await.unwrap().defaults.memory_mib,
                memory,
                "{name}"
            );
        }
    });
}

#[test]
fn special_files_and_attributes_survive() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let script = "mkdir -m 1777 /d; touch /d/a; ln /d/a /d/b; ln -s a /d/l; mkfifo /d/f; chmod 4755 /d/a; chown 1000:1000 /d/a; touch '/d/new
line'; rm -rf /var; mkdir /var; printf '%s' x > /d/ä";
    lab.block_on(async {
        let (image, ..) = lab.image(lab.plan(vec![run(script)])).await;
        let text = lab
            .run(&image, "stat -c '%A %h %u:%g %n' /d /d/a /d/b /d/f /d/l; ls -A /d | wc -l; ls -A /var | wc -l; cat /d/ä; test -e '/d/new\nline'")
            .await;
        assert_eq!(
            text,
            "drwxrwxrwt 2 0:0 /d\n-rwxr-xr-x 2 1000:1000 /d/a\n-rwxr-xr-x 2 1000:1000 /d/b\nprw-r--r-- 1 0:0 /d/f\nlrwxrwxrwx 1 0:0 /d/l\n6\n0\nx"
        );
    });
}
