//! What the program shows to a stranger: its help, held against committed texts (`KILN_BLESS=1` writes
//! them anew), its lists as JSON, its colours, its completions.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::daemon::{Daemon, KILN};
use crate::fixture::{busybox, template};
use crate::terminal::pty::Pty;

/// Each command, and what its help has to say at least.
const COMMANDS: [(&str, &[&str]); 23] = [
    ("serve", &["--config", "--data-dir", "--listen", "127.0.0.1:7070", "KILN_"]),
    ("build", &["<FILE>", "--name", "--no-cache", "--pull", "standard input"]),
    ("run", &["<IMAGE>", "`--`", "--env", "--timeout", "--memory", "125", "127"]),
    ("create", &["<IMAGE>", "--name", "--env", "--vcpu", "--pids"]),
    ("exec", &["<SANDBOX>", "--interactive", "--tty", "--user", "--workdir", "125", "127"]),
    ("shell", &["<SANDBOX>", "--user"]),
    ("ps", &["List sandboxes"]),
    ("stop", &["<SANDBOXES>...", "disks are kept"]),
    ("start", &["<SANDBOXES>..."]),
    ("rm", &["<SANDBOXES>...", "--force"]),
    ("images", &["List images"]),
    ("rmi", &["<IMAGES>..."]),
    ("pull", &["<REFERENCE>", "docker.io/library/", "--name"]),
    ("snapshot", &["<SANDBOX>", "<NAME>"]),
    ("snapshots", &["rm"]),
    ("snapshots rm", &["<NAME>"]),
    ("logs", &["<BUILD>", "--from"]),
    ("builds", &["List builds"]),
    ("df", &["room"]),
    ("gc", &["--dry-run", "--all", "--keep", "7d"]),
    ("fsck", &["--repair", "--data-dir", "exit code", "125"]),
    ("doctor", &["host"]),
    ("completions", &["<SHELL>", "bash", "zsh", "fish"]),
];

/// The program without anything of this environment that could show.
fn kiln(arguments: &[&str]) -> Command {
    let mut command = Command::new(KILN);
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> String {
    let output = kiln(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `text` is that of `golden/name.txt`.
#[track_caller]
fn is_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/e2e/golden")
        .join(format!("{name}.txt"));
    if std::env::var_os("KILN_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; KILN_BLESS=1 writes it", path.display()));
    assert_eq!(text, expected, "{name}: if this is meant, KILN_BLESS=1 writes it anew");
}

#[test]
fn help_tells_a_stranger_what_there_is() {
    let overview = output(&["help"]);
    is_golden("kiln", &overview);
    assert_eq!(overview, output(&["--help"]));
    for part in ["Usage: kiln", "kiln serve", "kiln build", "kiln run", "KILN_HOST", "--json"] {
        assert!(overview.contains(part), "no {part:?} in {overview}");
    }
    let listed: Vec<&str> = overview
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|name| *name != "help")
        .collect();
    let known: Vec<&str> =
        COMMANDS.iter().map(|(name, _)| *name).filter(|name| !name.contains(' ')).collect();
    assert_eq!(listed, known);
    for (command, parts) in COMMANDS {
        let words: Vec<&str> = command.split(' ').collect();
        let text = output(&[&["help"], &words[..]].concat());
        is_golden(&command.replace(' ', "-"), &text);
        assert_eq!(text, output(&[&words[..], &["--help"]].concat()));
        assert!(text.lines().next().is_some_and(|line| line.len() > 10), "{text}");
        assert!(text.contains(&format!("Usage: kiln {command}")), "{text}");
        for part in parts {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
    let version = output(&["--version"]);
    assert_eq!(version, format!("kiln {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_are_answered_with_the_way_out() {
    for (arguments, named) in [
        (&["biuld"][..], "build"),
        (&["build"], "<FILE>"),
        (&["ps", "--jsno"], "--json"),
        (&["run", "box", "--timeout", "3d", "--", "true"], "use ms, s, m or h"),
        (&["exec", "b", "-e", "A", "--", "true"], "NAME=VALUE"),
        (&["exec", "b", "ls"], "--"),
        (&["create", "box", "--vcpu", "two"], "two"),
        (&["completions", "cmd"], "powershell"),
        (&[], "Usage: kiln"),
    ] {
        let output = kiln(arguments).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(named), "{arguments:?}: no {named:?} in {errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_list_is_json_on_request() {
    let kiln = Daemon::start();
    let lists = ["ps", "images", "builds", "snapshots"];
    for list in lists {
        assert_eq!(kiln.json(&[list]), Value::Array(Vec::new()), "{list}");
    }
    let build = kiln.build("box", &template("box", &busybox(), &["echo said"]));
    kiln.ok(&["create", "box", "--name", "b"]);
    kiln.ok(&["snapshot", "b", "saved"]);
    for (list, header, shown) in [
        ("ps", "SANDBOX", "running"),
        ("images", "NAME", "box:latest"),
        ("builds", "BUILD", "succeeded"),
        ("snapshots", "SNAPSHOT", "saved"),
    ] {
        let items = kiln.json(&[list]);
        let rows = items.as_array().unwrap();
        assert!(!rows.is_empty() && rows.iter().all(Value::is_object), "{list}: {items}");
        let table = kiln.ok(&[list]);
        assert!(table.starts_with(header) && table.contains(shown), "{table}");
        assert!(table.lines().count() > rows.len(), "{list} shows less than there is: {table}");
        assert!(!table.contains('\u{1b}'), "{table:?}");
    }
    let log = kiln.ok(&["logs", build["id"].as_str().unwrap(), "--json"]);
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().zip(0..).all(|(event, number)| event["seq"] == number), "{log}");
    assert_eq!(kiln.json(&["doctor"])["usable"], true);
    assert!(serde_json::from_str::<Value>(&output(&["openapi"])).unwrap()["paths"].is_object());
    // Errors are for people, on the other stream.
    let failed = kiln.run(&["images", "--json", "--host", "/nowhere.sock"]);
    assert!(failed.stdout.is_empty() && failed.stderr.contains("/nowhere.sock"), "{failed}");
    for one in [
        &["stop", "b"][..],
        &["start", "b"],
        &["rm", "-f", "b"],
        &["snapshots", "rm", "saved"],
        &["rmi", "box"],
    ] {
        assert!(kiln.json(one).is_object(), "{one:?}");
    }
}

/// A colour, or another look of characters.
fn has_colour(text: &str) -> bool {
    text.split("\u{1b}[").skip(1).any(|rest| {
        let end = rest.find(|c: char| c.is_ascii_alphabetic());
        end.is_some_and(|end| rest[end..].starts_with('m'))
    })
}

#[test]
fn no_colour_where_none_is_wanted() {
    let daemon = Daemon::start();
    let file = daemon.path("t.json");
    fs::write(&file, template("t", &busybox(), &["echo said"]).to_string()).unwrap();
    let file = file.to_str().unwrap();
    let on_terminal = |arguments: &[&str], variable: (&str, &str)| {
        let mut command = daemon.command(arguments);
        command.env_remove("NO_COLOR").env(variable.0, variable.1);
        let mut session = Pty::open(24, 80).run(command);
        session.wait();
        session.rest()
    };
    for arguments in [&["help"][..], &["biuld"], &["build", file], &["doctor"], &["rmi", "no"]] {
        let plain = on_terminal(arguments, ("NO_COLOR", "1"));
        assert!(plain.len() > 10 && !has_colour(&plain), "{arguments:?}: {plain:?}");
    }
    // That a terminal gets colours at all is what makes the above mean something.
    assert!(has_colour(&on_terminal(&["help"], ("CLICOLOR", "1"))));
    // And where there is no terminal, there is none anyway.
    assert!(!output(&["help"]).contains('\u{1b}'));
    let outcome = daemon.run(&["build", file]);
    assert!(!outcome.stderr.contains('\u{1b}'), "{:?}", outcome.stderr);
}

#[test]
fn completions_are_scripts_of_their_shell() {
    let script = output(&["completions", "bash"]);
    let words = COMMANDS.iter().flat_map(|(command, _)| command.split(' '));
    for word in words.chain(["--json", "--no-cache"]) {
        assert!(script.contains(word), "no {word}");
    }
    // Bash takes it, and completes with it.
    let test = "source /dev/stdin; COMP_WORDS=(kiln bui); COMP_CWORD=1; _kiln kiln bui kiln; \
                echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash")
        .args(["--norc", "-c", test])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let completed = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "build builds");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(output(&["completions", shell]).contains("no-cache"), "{shell}");
    }
}
