//! Commands in sandboxes, through the command line.

use std::process::Stdio;

use serde_json::json;

use crate::daemon::{Daemon, eventually, signal};
use crate::fixture::{busybox, template};

fn daemon_with_box() -> Daemon {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "b"]);
    kiln
}

#[test]
fn exit_codes_and_streams_are_the_commands() {
    let kiln = daemon_with_box();
    for (script, code) in [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -9 $$", 137)] {
        assert_eq!(kiln.run(&["exec", "b", "--", "sh", "-c", script]).code, Some(code), "{script}");
    }
    let outcome = kiln.run(&["exec", "b", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("out\n", "err\n"));
    let missing = kiln.run(&["exec", "b", "--", "no-such-program"]);
    assert_eq!(missing.code, Some(127), "{missing}");
    assert!(missing.stderr.contains("no-such-program"), "{missing}");
    let unknown = kiln.run(&["exec", "nobody", "--", "true"]);
    assert_eq!(unknown.code, Some(125), "{unknown}");
}

#[test]
fn large_input_and_output_pass_whole() {
    let kiln = daemon_with_box();
    let input: Vec<u8> = (0..8_000_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
    let outcome = kiln.run_with_input(&["exec", "-i", "b", "--", "cat"], &input);
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stdout.as_bytes() == input, "{} bytes came back", outcome.stdout.len());
}

#[test]
fn json_gives_the_whole_result() {
    let kiln = daemon_with_box();
    let result = kiln.json(&["exec", "b", "--", "sh", "-c", "echo out; echo err >&2; exit 0"]);
    assert_eq!(result["stdout"], "out\n");
    assert_eq!(result["stderr"], "err\n");
    assert_eq!(result["exit_code"], 0);
}

#[test]
fn users_and_directories() {
    let kiln = daemon_with_box();
    assert_eq!(kiln.ok(&["exec", "b", "--", "sh", "-c", "id -u; pwd"]), "0\n/workspace");
    let options = ["exec", "-u", "ada", "-w", "/tmp", "b", "--", "sh", "-c"];
    let script = "id -un; id -Gn; pwd; echo $HOME";
    let output = kiln.ok(&[&options[..], &[script]].concat());
    assert_eq!(output, "ada\nada kiln\n/tmp\n/tmp");
    // Programs of other users can open their own streams by name, too.
    let script = "echo to stdout > /dev/stdout; echo to stderr > /dev/stderr";
    let outcome = kiln.run(&["exec", "-u", "ada", "b", "--", "sh", "-c", script]);
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("to stdout\n", "to stderr\n"), "{outcome}");
    let unknown = kiln.run(&["exec", "-u", "nobody-here", "b", "--", "true"]);
    assert_eq!(unknown.code, Some(127), "{unknown}");
    assert!(unknown.stderr.contains("nobody-here"), "{unknown}");
}

#[test]
fn a_timeout_ends_the_whole_group() {
    let kiln = daemon_with_box();
    let script = "sleep 4242 & sleep 4242; echo never";
    let outcome = kiln.run(&["exec", "--timeout", "300ms", "b", "--", "sh", "-c", script]);
    assert_eq!(outcome.code, Some(137), "{outcome}");
    assert!(!outcome.stdout.contains("never"), "{outcome}");
    eventually("the sleeps are gone", || {
        let processes = kiln.ok(&["exec", "b", "--", "ps", "-o", "args"]);
        (!processes.contains("sleep 4242")).then_some(())
    });
}

#[test]
fn an_interrupt_reaches_the_command() {
    let kiln = daemon_with_box();
    let script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = kiln
        .command(&["exec", "b", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut output).unwrap();
    assert_eq!(output, "ready\n");
    signal(child.id(), "INT");
    std::io::Read::read_to_string(&mut stdout, &mut output).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*output), (Some(9), "ready\ninterrupted\n"));
}

#[test]
fn run_removes_its_sandbox_whatever_happens() {
    let kiln = daemon_with_box();
    assert_eq!(kiln.run(&["run", "box", "--", "sh", "-c", "exit 3"]).code, Some(3));
    assert_eq!(kiln.run(&["run", "box", "--", "no-such-program"]).code, Some(127));
    let nothing = kiln.run(&["run", "box"]);
    assert_eq!(nothing.code, Some(125), "{nothing}");
    assert!(nothing.stderr.contains("-- COMMAND"), "{nothing}");
    assert_eq!(kiln.json(&["ps"]).as_array().unwrap().len(), 1);
}

/// The argv of the source's own example cannot mean what its author wants.
#[test]
fn s0_5_bare_shell_operators_are_refused_with_the_working_form() {
    let kiln = daemon_with_box();
    for operator in ["&&", "||", "|", ";", ">", ">>", "<", "&"] {
        let outcome = kiln.run(&["exec", "b", "--", "echo", "a", operator, "echo", "b"]);
        assert_eq!(outcome.code, Some(125), "{outcome}");
        assert!(outcome.stderr.contains(operator), "{outcome}");
        assert!(outcome.stderr.contains("sh") && outcome.stderr.contains("-c"), "{outcome}");
    }
    let literal = kiln.ok(&["exec", "--literal", "b", "--", "echo", "a", "&&", "b"]);
    assert_eq!(literal, "a && b");
    let inside = kiln.ok(&["exec", "b", "--", "sh", "-c", "echo a && echo b | cat; echo 'x > y'"]);
    assert_eq!(inside, "a\nb\nx > y");
    let definition = json!({
        "base": { "rootfs": busybox() },
        "steps": [{ "type": "run", "command": { "argv": ["echo", "a", ">", "/x"] } }],
    });
    let file = kiln.path("operator.json");
    std::fs::write(&file, definition.to_string()).unwrap();
    let outcome = kiln.run(&["build", file.to_str().unwrap(), "--name", "operator"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stderr.contains('>') && outcome.stderr.contains("-c"), "{outcome}");
}
