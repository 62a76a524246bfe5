//! Images with hostile configs, pulled by the program from a registry and run: what is refused is named
//! and leaves nothing, what is taken stays within the sandbox and off the terminal.

use kiln_testkit::{Compression, ImageBuilder, Registry};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::daemon::Daemon;
use crate::fixture::busybox;

struct Lab {
    kiln: Daemon,
    registry: Registry,
    // Last: the registry's tasks run on it.
    _runtime: Runtime,
}

impl Lab {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let registry = runtime.block_on(Registry::start());
        let host = registry.host();
        let config = format!("[registries]\nplain_http = [{host:?}]\nattempts = 1\n");
        Self { kiln: Daemon::start_with(&config), registry, _runtime: runtime }
    }

    /// Puts a busybox image with this config there, and gives its reference.
    fn put(&self, tag: &str, config: Value) -> String {
        let layer = std::fs::read(busybox()).unwrap();
        let image = ImageBuilder::new().layer_bytes(layer, Compression::Gzip).config(config);
        self.registry.put("app", tag, &image.build());
        format!("{}/app:{tag}", self.registry.host())
    }

    fn blobs(&self) -> Vec<std::path::PathBuf> {
        let mut all = Vec::new();
        let mut next = vec![self.kiln.data().join("blobs")];
        while let Some(directory) = next.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { next.push(path) } else { all.push(path) }
            }
        }
        all.sort();
        all
    }
}

#[test]
fn refused_configs_leave_nothing() {
    let lab = Lab::new();
    let before = lab.blobs();
    for (number, (config, named)) in [
        (json!({ "WorkingDir": "../.." }), "config.WorkingDir"),
        (json!({ "WorkingDir": "/a\0b" }), "config.WorkingDir"),
        (json!({ "User": "a\nb" }), "config.User"),
        (json!({ "Env": ["NO_VALUE"] }), "config.Env"),
        (json!({ "Env": vec!["A=1"; 5000] }), "config.Env"),
        (json!({ "Cmd": "sh -c x" }), "config.Cmd"),
        (json!({ "Labels": { "a": [] } }), "config.Labels"),
        (json!(["sh"]), "config"),
    ]
    .into_iter()
    .enumerate()
    {
        let reference = lab.put(&format!("v{number}"), config);
        let outcome = lab.kiln.run(&["pull", &reference]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.stdout.is_empty() && outcome.stderr.contains(named), "{named}: {outcome}");
        assert!(outcome.stderr.contains(&lab.registry.host()), "{outcome}");
    }
    assert_eq!(lab.kiln.json(&["images"]), json!([]));
    assert_eq!(lab.blobs(), before, "a refused image left blobs");
    // The legal neighbour.
    let reference = lab.put("good", json!({ "WorkingDir": "/tmp", "Env": ["A=1"] }));
    lab.kiln.ok(&["pull", &reference, "--name", "good"]);
    let said = lab.kiln.ok(&["run", "good", "--", "/bin/sh", "-c", "pwd; echo $A"]);
    assert_eq!(said, "/tmp\n1");
}

#[test]
fn working_directories_stay_inside() {
    let lab = Lab::new();
    for (number, (directory, expected)) in [
        ("/../../etc", Some("/etc")),
        ("/proc/1/root/etc", None),
        ("/proc/self/root/../../etc", None),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("w{number}");
        let reference = lab.put(&name, json!({ "WorkingDir": directory, "Env": ["PATH=/bin"] }));
        lab.kiln.ok(&["pull", &reference, "--name", &name]);
        // Wherever it leads, it is the sandbox's own: its passwd names `ada`, the host's does not.
        let outcome = lab.kiln.run(&["run", &name, "--", "sh", "-c", "pwd; cat passwd /etc/group"]);
        match expected {
            Some(path) => {
                assert_eq!(outcome.code, Some(0), "{directory}: {outcome}");
                assert!(outcome.stdout.starts_with(path), "{directory}: {outcome}");
                assert!(outcome.stdout.contains("ada:x:1000"), "{directory}: {outcome}");
            }
            None => assert!(
                outcome.code == Some(127) || outcome.stdout.contains("ada:x:1000"),
                "{directory}: {outcome}"
            ),
        }
    }
    assert_eq!(lab.kiln.json(&["ps"]), json!([]));
}

#[test]
fn users_are_looked_up_and_never_run() {
    let lab = Lab::new();
    let canary = lab.kiln.path("canary");
    let touch = format!("$(touch {})", canary.display());
    for (number, (user, expected)) in [
        ("ada", Some("1000")),
        ("0:0", Some("0")),
        ("1234:5678", Some("1234")),
        ("nobody-here", None),
        ("4294967295", None),
        ("99999999999999999999", None),
        ("-1", None),
        ("ada:no-such-group", None),
        (touch.as_str(), None),
        ("../../root", None),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("u{number}");
        let reference = lab.put(&name, json!({ "User": user, "Env": ["PATH=/bin"] }));
        lab.kiln.ok(&["pull", &reference, "--name", &name]);
        let outcome = lab.kiln.run(&["run", &name, "--", "id", "-u"]);
        match expected {
            Some(uid) => assert_eq!(outcome.stdout.trim(), uid, "{user}: {outcome}"),
            None => {
                assert!(matches!(outcome.code, Some(125 | 127)), "{user}: {outcome}");
                assert!(outcome.stdout.is_empty(), "{user}: {outcome}");
                let shown = user.get(..12).unwrap_or(user);
                assert!(outcome.stderr.contains(shown), "{user}: {outcome}");
            }
        }
    }
    assert!(!canary.exists(), "a user's name was run by a shell of the host");
    assert_eq!(lab.kiln.json(&["ps"]), json!([]));
}

#[test]
fn nothing_of_an_image_reaches_the_terminal_raw() {
    let lab = Lab::new();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m";
    let config = json!({
        "Labels": { evil: evil, "b": "\r\n" }, "Env": [format!("A={evil}"), "PATH=/bin".to_owned()],
        "Volumes": { "/../../etc": {} }, "Cmd": ["echo", evil],
    });
    let reference = lab.put("evil", config);
    for arguments in
        [&["pull", &reference, "--name", "evil"][..], &["images"], &["images", "--json"], &["ps"]]
    {
        let outcome = lab.kiln.run(arguments);
        assert_eq!(outcome.code, Some(0), "{outcome}");
        for text in [&outcome.stdout, &outcome.stderr] {
            let raw = text.chars().find(|c| c.is_ascii_control() && !matches!(c, '\n' | '\t'));
            assert_eq!(raw, None, "{arguments:?}: {text:?}");
        }
    }
    // Errors that repeat what was given do not either.
    let outcome = lab.kiln.run(&["create", "evil", "--name", "a\u{1b}[2Jb"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(!outcome.stderr.contains('\u{1b}'), "{:?}", outcome.stderr);
}
