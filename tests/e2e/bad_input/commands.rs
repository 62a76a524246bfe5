//! Every command with wrong arguments: the exit code is the documented one, standard output is empty,
//! the message names what is wrong, and nothing panics.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;

use serde_json::json;

use crate::daemon::{Daemon, KILN};
use crate::fixture::{busybox, template};

/// The commands of the program, as its help names them.
fn commands() -> Vec<String> {
    let output = std::process::Command::new(KILN).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let list = text.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

/// What is wrong with a command whatever it is: usage, which is exit code 2.
#[test]
fn usage_is_checked_by_every_command() {
    let names = commands();
    assert!(names.len() >= 20, "{names:?}");
    for name in names.iter().filter(|name| *name != "help") {
        for wrong in ["--no-such-option", "--json=yes", "-\u{1b}"] {
            let output = std::process::Command::new(KILN).args([name, wrong]).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{name} {wrong}: {errors}");
            assert!(output.stdout.is_empty(), "{name} {wrong}");
            assert!(!errors.contains("panicked") && errors.contains("error:"), "{name}: {errors}");
        }
        // Bytes that are no text.
        let bytes = OsString::from_vec(b"\xff\xfe".to_vec());
        let output = std::process::Command::new(KILN)
            .arg(name)
            .arg(&bytes)
            .env("KILN_HOST", "/nowhere.sock")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2 | 125)), "{name}: {errors}");
        assert!(output.stdout.is_empty() && !errors.contains("panicked"), "{name}: {errors}");
    }
    for (arguments, named) in [
        (&["shell", "b", "--json"][..], "--json"),
        (&["exec", "b", "--json", "--tty", "--", "sh"], "--tty"),
        (&["run", "box", "--json", "-t", "--", "sh"], "--tty"),
        (&["serve", "--json"], "--json"),
        (&["completions", "bash", "--json"], "--json"),
        (&["run", "box", "--memory", "-1"], "-1"),
        (&["create", "box", "--pids", "99999999999"], "99999999999"),
        (&["logs", "x", "--from", "-1"], "-1"),
        (&["create", "box", "-e", "=x"], "NAME=VALUE"),
        (&["exec", "b", "--timeout", "0s", "--", "true"], "0s"),
    ] {
        let output = std::process::Command::new(KILN).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(named) && output.stdout.is_empty(), "{arguments:?}: {errors}");
    }
}

/// What only the daemon, or the file that is named, can know to be wrong.
#[test]
fn values_are_checked_by_every_command() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "b"]);
    let before = (kiln.json(&["ps"]), kiln.json(&["images"]), kiln.json(&["builds"]));
    let long = "x".repeat(100_000);
    for (arguments, code, named) in [
        (&["create", ""][..], 1, "image"),
        (&["create", "box", "--name", ""], 1, "name"),
        (&["create", "box", "--name", "b"], 1, "b"),
        (&["create", "box", "--name", &long], 1, "name"),
        (&["create", &long], 1, "xxx"),
        (&["create", "box", "--vcpu", "0"], 1, "limits.vcpu"),
        (&["create", "box", "--memory", "1"], 1, "limits.memory_mib"),
        (&["run", "box", "--pids", "1", "--", "true"], 125, "limits.pids"),
        (&["run", "nothing", "--", "true"], 125, "nothing"),
        (&["run", "box", "--", "no-such-program"], 127, "no-such-program"),
        (&["exec", "nothing", "--", "true"], 125, "nothing"),
        (&["exec", "", "--", "true"], 125, "``"),
        (&["exec", "..", "--", "true"], 125, "`..`"),
        (&["exec", "b", "--", ""], 125, "argv"),
        (&["exec", "b", "--", "a", "&&", "b"], 125, "&&"),
        (&["exec", "b", "-w", "/nowhere", "--", "true"], 127, "/nowhere"),
        (&["exec", "b", "-u", "nobody-here", "--", "true"], 127, "nobody-here"),
        (&["exec", "b", "--json", "--", "no-such-program"], 127, "no-such-program"),
        (&["shell", "nothing"], 125, "nothing"),
        (&["start", "nothing"], 1, "nothing"),
        (&["stop", "b/c"], 1, "b/c"),
        (&["rm", "b"], 1, "--force"),
        (&["rmi", "box"], 1, "in use by sbx_"),
        (&["rmi", "No Name"], 1, "No Name"),
        (&["pull", "a b"], 1, "a b"),
        (&["pull", "127.0.0.1:1/x", "--name", "No"], 1, "No"),
        (&["snapshot", "b", "box"], 1, "box"),
        (&["snapshot", "b", "No Name"], 1, "No Name"),
        (&["snapshots", "rm", "nothing"], 1, "nothing"),
        (&["logs", "sbx_1"], 1, "sbx_1"),
        (&["build", "/no/such/file"], 1, "/no/such/file"),
        (&["build", "/"], 1, "/"),
    ] {
        let outcome = kiln.run(arguments);
        let shown = arguments.iter().map(|word| &word[..word.len().min(40)]);
        let shown: Vec<&str> = shown.collect();
        assert_eq!(outcome.code, Some(code), "{shown:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(named), "{shown:?}: {}", outcome.stderr);
        assert!(outcome.stdout.is_empty(), "{shown:?}: {}", outcome.stdout);
        assert!(!outcome.stderr.contains("panicked") && outcome.stderr.len() < 5000, "{shown:?}");
    }
    let after = (kiln.json(&["ps"]), kiln.json(&["images"]), kiln.json(&["builds"]));
    assert_eq!(after, before, "a refusal left something");
}

/// Files of templates and definitions, and standard input.
#[test]
fn files_are_read_strictly() {
    let kiln = Daemon::start();
    let base = json!(busybox());
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, named) in [
        (b"".to_vec(), "not JSON"),
        (b"\xff\xfe{}".to_vec(), "not JSON"),
        (b"{\"name\": \"x\"".to_vec(), "not JSON"),
        (b"[]".to_vec(), "neither a template"),
        (deep.into_bytes(), "not JSON"),
        (format!(r#"{{"name":"x","base_image":{base},"name":"y"}}"#).into(), "`name`"),
        (
            format!(r#"{{"name":"x","base_image":{base},"env":{{"A":"1","A":"2"}}}}"#).into(),
            "`env.A` is there twice",
        ),
        (
            format!(r#"{{"base":{{"rootfs":{base}}},"steps":[["user","root"]]}}"#).into(),
            "`steps[0]` is an array",
        ),
        (format!(r#"{{"name":"x","base_image":{base},"vcpu":1.5}}"#).into(), "`vcpu`"),
        (
            format!(r#"{{"name":"x","base_image":{base},"apt_packages":{{}}}}"#).into(),
            "apt_packages",
        ),
        (format!(r#"{{"name":"x","base_image":{base}}} tail"#).into(), "not JSON"),
        (vec![b' '; (64 << 20) + 1], "64 MiB"),
    ] {
        let file = kiln.path("wrong.json");
        std::fs::write(&file, &text).unwrap();
        for (argument, input) in [(file.to_str().unwrap(), &b""[..]), ("-", &text)] {
            let outcome = kiln.run_with_input(&["build", argument], input);
            assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
            assert!(outcome.stderr.contains(named), "{named}: {}", outcome.stderr);
            assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
        }
    }
    assert_eq!((kiln.json(&["images"]), kiln.json(&["builds"])), (json!([]), json!([])));
}
