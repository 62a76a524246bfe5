//! Builds: what a definition becomes, and what is not done twice.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;

use crate::daemon::{Daemon, eventually};
use crate::fixture::{busybox, debian, template};

/// The shape of S4.3 on a real Debian, without the large packages.
#[test]
fn s4_3_template_spec_becomes_an_image() {
    let kiln = Daemon::start();
    let build = kiln.build(
        "tools",
        &json!({
            "name": "tools",
            "base_image": debian(),
            "apt_packages": ["jq", "curl"],
            "setup_commands": ["jq --version > /opt/jq-version"],
            "env": { "GREETING": "hello" },
            "vcpu": 1,
            "memory_mib": 512,
        }),
    );
    assert_eq!(build["status"], "succeeded");
    assert_eq!(kiln.ok(&["run", "tools", "--", "sh", "-c", "cat /opt/jq-version"]), "jq-1.6");
    assert_eq!(
        kiln.ok(&["run", "tools", "--", "sh", "-c", "echo $GREETING; pwd"]),
        "hello\n/workspace"
    );
    let id = kiln.ok(&["create", "tools", "--name", "t"]);
    let sandbox = &kiln.json(&["ps"])[0];
    assert_eq!((sandbox["id"].as_str(), sandbox["limits"]["vcpu"].as_u64()), (Some(&*id), Some(1)));
    assert_eq!(sandbox["limits"]["memory_mib"], 512);
    // The package lists that apt fetched are not part of the image.
    let lists = kiln.ok(&["exec", "t", "--", "sh", "-c", "ls /var/lib/apt/lists | wc -l"]);
    assert_eq!(lists, "0");
}

#[test]
fn s4_7_equal_specs_are_one_image_and_a_rebuild_is_free() {
    let kiln = Daemon::start();
    let spec = template("first", &busybox(), &["date +%N%s > /stamp", "echo two > /two"]);
    let first = kiln.build("first", &spec);
    let stamp = kiln.ok(&["run", "first", "--", "cat", "/stamp"]);
    // Another name, other whitespace, another order of keys: the same content.
    let file = kiln.path("second.json");
    let text = serde_json::to_string_pretty(&spec).unwrap().replace("\"first\"", "\"second\"");
    fs::write(&file, text).unwrap();
    let second = kiln.json(&["build", file.to_str().unwrap()]);
    assert_eq!(first["image"], second["image"]);
    assert_eq!(first["definition_key"], second["definition_key"]);
    assert_eq!(second["steps_cached"], second["steps_total"]);
    assert_eq!(kiln.ok(&["run", "second", "--", "cat", "/stamp"]), stamp);
}

#[test]
fn s1_3_identical_definition_is_a_cache_hit() {
    let kiln = Daemon::start();
    let definition = json!({
        "base": { "rootfs": busybox() },
        "steps": [
            { "type": "run", "command": { "shell": "date +%N%s > /stamp" } },
            { "type": "file", "path": "/etc/app.conf", "content_base64": "YT0xCg==" },
        ],
    });
    let first = kiln.build("one", &definition);
    let again = kiln.build("one", &definition);
    assert_eq!((&first["image"], &first["steps_cached"]), (&again["image"], &json!(0)));
    assert_eq!(again["steps_cached"], json!(2));
    // A shared prefix is not run again either; what differs is.
    let mut longer = definition.clone();
    longer["steps"][1]["content_base64"] = json!("YT0yCg==");
    let longer = kiln.build("longer", &longer);
    assert_eq!(longer["steps_cached"], json!(1));
    let both = ["one", "longer"]
        .map(|image| kiln.ok(&["run", image, "--", "cat", "/stamp", "/etc/app.conf"]));
    let lines = both.each_ref().map(|text| text.lines().collect::<Vec<_>>());
    assert_eq!(lines[0][0], lines[1][0]);
    assert_eq!((lines[0][1], lines[1][1]), ("a=1", "a=2"));
    // A hit proves its blobs: with the layer gone, the step runs again.
    let fresh = kiln.build("fresh", &definition);
    assert_eq!(fresh["image"], first["image"]);
}

#[test]
fn s1_4_a_miss_runs_each_step_and_keeps_the_result() {
    let kiln = Daemon::start();
    let spec =
        template("steps", &busybox(), &["echo 1 >> /log", "echo 2 >> /log", "echo 3 >> /log"]);
    let file = kiln.path("steps.json");
    fs::write(&file, spec.to_string()).unwrap();
    let outcome = kiln.run(&["build", file.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    for step in ["echo 1 >> /log", "echo 2 >> /log", "echo 3 >> /log"] {
        assert!(outcome.stderr.contains(step), "{outcome}");
    }
    assert_eq!(kiln.ok(&["run", "steps", "--", "cat", "/log"]), "1\n2\n3");
    let build = &kiln.json(&["builds"])[0];
    let log = kiln.ok(&["logs", build["id"].as_str().unwrap()]);
    assert!(log.contains("echo 3 >> /log"), "{log}");
}

#[test]
fn a_failed_step_is_explained_and_leaves_nothing() {
    let kiln = Daemon::start();
    let spec = template(
        "broken",
        &busybox(),
        &["echo fine > /fine", "echo before; echo the reason >&2; exit 42", "echo never"],
    );
    let file = kiln.path("broken.json");
    fs::write(&file, spec.to_string()).unwrap();
    let outcome = kiln.run(&["build", file.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    for part in ["echo before; echo the reason", "42", "the reason", "before"] {
        assert!(outcome.stderr.contains(part), "no {part:?} in {outcome}");
    }
    assert!(!outcome.stderr.contains("#4"), "{outcome}");
    let build = &kiln.json(&["builds"])[0];
    assert_eq!(build["status"], "failed");
    assert_eq!(build["failure"]["exit_code"], 42);
    assert!(kiln.json(&["images"]).as_array().unwrap().iter().all(|image| {
        image["names"].as_array().unwrap().iter().all(|name| name != "broken:latest")
    }));
    assert_eq!(kiln.json(&["ps"]), json!([]));
    let uppers = fs::read_dir(kiln.data().join("uppers")).map_or(0, Iterator::count);
    assert_eq!(uppers, 0, "an upper was left");
    // What came before the failure is kept for the next try.
    let fixed =
        kiln.build("broken", &template("broken", &busybox(), &["echo fine > /fine", "true"]));
    assert!(fixed["steps_cached"].as_u64().unwrap() >= 1, "{fixed}");
}

#[test]
fn equal_builds_at_the_same_time_run_once() {
    let kiln = Daemon::start();
    let spec = template("twin", &busybox(), &["date +%N%s > /stamp; sleep 1"]);
    let file = kiln.path("twin.json");
    fs::write(&file, spec.to_string()).unwrap();
    let builds: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            kiln.command(&["build", file.to_str().unwrap(), "--name", name, "--json"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .into_iter()
        .map(|child| serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap())
        .collect::<Vec<serde_json::Value>>();
    assert!(builds.iter().all(|build| build["image"] == builds[0]["image"]), "{builds:?}");
}

/// A host that loses its daemon in the middle of a step loses that step and nothing else.
#[test]
fn a_killed_daemon_leaves_nothing_of_a_build() {
    let mut kiln = Daemon::start();
    let steps = |last: &str| template("cut", &busybox(), &["echo kept > /kept", last]);
    let file = kiln.path("cut.json");
    fs::write(&file, steps("echo half > /half; echo begun; sleep 600.25").to_string()).unwrap();
    let mut client = kiln
        .command(&["build", file.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = eventually("the build is listed", || {
        let id = kiln.json(&["builds"])[0]["id"].as_str().map(str::to_owned);
        id.filter(|id| {
            let log = kiln.data().join("builds").join(id).join("log.jsonl");
            fs::read_to_string(log).is_ok_and(|log| log.contains(r#""text":"begun"#))
        })
    });
    let upper = fs::read_dir(kiln.data().join("uppers")).unwrap().next().unwrap().unwrap();
    let upper = upper.file_name().into_string().unwrap();
    let sandbox = upper.strip_prefix("build-").unwrap_or_else(|| panic!("{upper}")).to_owned();
    let process = process("sleep\x00600.25\x00").expect("the step runs");
    let groups = groups(process);
    assert!(!groups.is_empty(), "the sandbox has its control group");
    // A blob that was stored and an index that was written, but no row: a crash in between.
    let orphan = format!("{:064x}", 7);
    let blob = kiln.data().join("blobs/sha256/00").join(&orphan);
    let index = kiln.data().join("indexes").join(format!("{orphan}.erofs"));
    for path in [&blob, &index] {
        fs::write(path, "orphan").unwrap();
    }

    kiln.kill();
    let _ = client.wait();
    kiln.serve();

    let build = kiln.json(&["builds"])[0].clone();
    assert_eq!((build["id"].as_str(), &build["status"]), (Some(&*id), &json!("failed")), "{build}");
    let message = build["failure"]["message"].as_str().unwrap();
    assert!(message.contains("daemon ended"), "{build}");
    assert!(kiln.ok(&["logs", &id]).contains("begun"), "the log is kept");
    let data = kiln.data().display().to_string();
    for directory in ["uppers", "run"] {
        let left: Vec<_> = fs::read_dir(kiln.data().join(directory))
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.contains(&sandbox))
            .collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    assert_eq!(self::process("sleep\x00600.25\x00"), None, "the step runs on");
    let left: Vec<_> =
        groups.iter().filter(|(path, inode)| inode_of(path) == Some(*inode)).collect();
    assert!(left.is_empty(), "control groups: {left:?}");
    for process in fs::read_dir("/proc").unwrap() {
        let mounts = process.unwrap().path().join("mountinfo");
        let mounts = fs::read_to_string(mounts).unwrap_or_default();
        assert!(!mounts.contains(&format!("{data}/uppers/{upper}")), "{mounts}");
    }
    assert_eq!(kiln.json(&["ps"]), json!([]));
    assert!(!blob.exists() && !index.exists(), "what no row knows is removed");

    let fixed = kiln.build("cut", &steps("cat /kept > /fine; test ! -e /half"));
    assert_eq!(fixed["status"], "succeeded", "{fixed}");
    assert_eq!(fixed["steps_cached"], 1, "what was done is kept: {fixed}");
}

/// The process with this command line.
fn process(command: &str) -> Option<u32> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let found = fs::read(entry.path().join("cmdline")).ok()?;
        (found == command.as_bytes()).then_some(pid)
    })
}

/// The control groups of a process below the roots of their hierarchies, with their inodes.
fn groups(process: u32) -> Vec<(PathBuf, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
    let paths = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (hierarchy, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let below = Path::new("/sys/fs/cgroup").join(hierarchy).join(path);
        path.contains("kiln").then_some(below)
    });
    paths.filter_map(|path| Some((path.clone(), inode_of(&path)?))).collect()
}

fn inode_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|found| found.ino())
}

#[test]
fn each_name_has_its_own_resources() {
    let kiln = Daemon::start();
    let spec = |name: &str, memory: u32| {
        let mut spec = template(name, &busybox(), &["echo same > /same"]);
        spec["memory_mib"] = json!(memory);
        spec
    };
    let small = kiln.build("small", &spec("small", 128));
    let large = kiln.build("large", &spec("large", 512));
    assert_eq!(small["image"], large["image"]);
    for (name, memory) in [("small", 128), ("large", 512)] {
        kiln.ok(&["create", name, "--name", name]);
        let sandboxes = kiln.json(&["ps"]);
        let found = sandboxes.as_array().unwrap().iter().find(|sandbox| sandbox["name"] == name);
        assert_eq!(found.unwrap()["limits"]["memory_mib"], memory, "{sandboxes}");
    }
}
