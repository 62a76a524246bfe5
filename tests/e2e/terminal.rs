//! `kiln shell` and `kiln exec -t` on a real terminal.

pub(crate) mod pty;

use rustix::termios::LocalModes;

use crate::daemon::{Daemon, eventually, signal};
use crate::fixture::{busybox, template};
use pty::Pty;

fn daemon_with_box() -> Daemon {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "b"]);
    kiln
}

/// How often `command` runs in the sandbox.
fn running(kiln: &Daemon, command: &str) -> usize {
    let processes = kiln.ok(&["exec", "b", "--", "ps", "-o", "args"]);
    processes.lines().filter(|line| *line == command).count()
}

#[test]
fn a_shell_prompts_echoes_and_ends_with_its_code() {
    let kiln = daemon_with_box();
    let mut shell = Pty::open(24, 80).run(kiln.command(&["shell", "b"]));
    shell.expect("# ");
    let raw = shell.modes();
    assert!(!raw.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{raw:?}");
    shell.send("echo $((40 + 2)); pwd; id -un\r");
    // The echo is the sandbox's own, and comes once.
    let seen = shell.expect("# ");
    assert_eq!(seen.matches("echo $((40 + 2))").count(), 1, "{seen:?}");
    assert!(seen.contains("\r\n42\r\n/workspace\r\nroot\r\n"), "{seen:?}");
    shell.send("exit 3\r");
    assert_eq!(shell.wait(), Some(3));
}

#[test]
fn the_size_is_passed_and_followed() {
    let kiln = daemon_with_box();
    let mut shell = Pty::open(37, 111).run(kiln.command(&["shell", "b"]));
    shell.expect("# ");
    shell.send("stty size\r");
    shell.expect("\r\n37 111\r\n");
    for (rows, cols) in [(50, 132), (10, 20)] {
        shell.resize(rows, cols);
        // The new size takes its way beside the input.
        eventually("the new size is there", || {
            shell.send("stty size; echo do''ne\r");
            shell.expect("\r\ndone\r\n").contains(&format!("\r\n{rows} {cols}\r\n")).then_some(())
        });
    }
    shell.send("exit\r");
    assert_eq!(shell.wait(), Some(0));
}

#[test]
fn an_interrupt_ends_the_command_and_not_the_shell() {
    let kiln = daemon_with_box();
    let mut shell = Pty::open(24, 80).run(kiln.command(&["shell", "b"]));
    shell.expect("# ");
    shell.send("sleep 4646\r");
    eventually("it sleeps", || (running(&kiln, "sleep 4646") == 1).then_some(()));
    shell.send("\x03");
    shell.expect("# ");
    shell.send("echo code $?\r");
    shell.expect("code 130");
    assert_eq!(running(&kiln, "sleep 4646"), 0);
    // Job control: a stopped command is not an ended one.
    shell.send("sleep 4647\r");
    eventually("it sleeps", || (running(&kiln, "sleep 4647") == 1).then_some(()));
    shell.send("\x1a");
    shell.expect("# ");
    shell.send("kill %1; fg\r");
    shell.expect("# ");
    // The end of input ends the shell.
    shell.send("\x04");
    assert!(shell.wait().is_some());
}

#[test]
fn the_terminals_modes_come_back_however_it_ends() {
    let kiln = daemon_with_box();
    let codes = |arguments: &[&str], end: &dyn Fn(&mut pty::Session)| {
        let pty = Pty::open(24, 80);
        let before = pty.all_modes();
        let mut session = pty.run(kiln.command(arguments));
        end(&mut session);
        let code = session.wait();
        assert_eq!(session.all_modes(), before, "{arguments:?}");
        code
    };
    let shell = ["shell", "b"];
    let exit = codes(&shell, &|session| {
        session.expect("# ");
        session.send("exit 4\r");
    });
    assert_eq!(exit, Some(4));
    assert_eq!(codes(&["exec", "-it", "b", "--", "sh", "-c", "exit 5"], &|_| {}), Some(5));
    assert_eq!(codes(&["exec", "-it", "b", "--", "no-such"], &|_| {}), Some(127));
    assert_eq!(codes(&["shell", "nobody"], &|session| drop(session.expect("nobody"))), Some(125));
    let timeout = ["exec", "-it", "--timeout", "200ms", "b", "--", "sleep", "1000"];
    assert_eq!(codes(&timeout, &|session| drop(session.expect("time-out"))), Some(137));
    let script = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done";
    let terminated = codes(&["exec", "-it", "b", "--", "sh", "-c", script], &|session| {
        session.expect("ready");
        signal(session.pid(), "TERM");
    });
    assert_eq!(terminated, Some(6));
    let stopped = codes(&shell, &|session| {
        session.expect("# ");
        kiln.ok(&["stop", "b"]);
    });
    assert!(stopped.is_some_and(|code| code != 0), "{stopped:?}");
}

#[test]
fn closing_the_terminal_ends_what_ran_on_it() {
    let kiln = daemon_with_box();
    let mut shell = Pty::open(24, 80).run(kiln.command(&["shell", "b"]));
    shell.expect("# ");
    shell.send("sleep 4848\r");
    eventually("it sleeps", || (running(&kiln, "sleep 4848") == 1).then_some(()));
    shell.hang_up();
    eventually("nothing of it is left", || (running(&kiln, "sleep 4848") == 0).then_some(()));
}

/// Neither way waits for the other, and what waits can be given up.
#[test]
fn more_than_all_buffers_passes_both_ways() {
    const SIZE: usize = 48 << 20;
    let kiln = daemon_with_box();
    let outcome = kiln.run_with_input(&["exec", "-i", "b", "--", "cat"], &vec![b'x'; SIZE]);
    assert_eq!((outcome.code, outcome.stdout.len()), (Some(0), SIZE), "{}", outcome.stderr);
    let script = "trap '' INT; echo ready; sleep 4949";
    let mut child = kiln
        .command(&["exec", "-i", "b", "--", "sh", "-c", script])
        .stdin(std::fs::File::open("/dev/zero").unwrap())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it sleeps", || (running(&kiln, "sleep 4949") == 1).then_some(()));
    let status = eventually("the second interrupt ends it", || {
        signal(child.id(), "INT");
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(125));
}

#[test]
fn exec_on_a_terminal_and_without_one() {
    let kiln = daemon_with_box();
    let run = |options: &[&str], script: &str| {
        let arguments = [&["exec"], options, &["b", "--", "sh", "-c", script]].concat();
        let mut session = Pty::open(24, 80).run(kiln.command(&arguments));
        let code = session.wait();
        (session.rest(), code)
    };
    // `-t` is a terminal on all three; `-i` alone is none, even if the user has one.
    let (seen, code) = run(&["-t"], "tty; test -t 0 && test -t 1 && test -t 2 && echo $TERM");
    assert_eq!(code, Some(0), "{seen:?}");
    assert!(seen.starts_with("/dev/pts/") && seen.ends_with("\r\nkiln-test\r\n"), "{seen:?}");
    let (seen, _) = run(&[], "test -t 0 || test -t 1 || echo none");
    assert_eq!(seen, "none\r\n");
    let mut cat = Pty::open(24, 80).run(kiln.command(&["exec", "-i", "b", "--", "cat"]));
    cat.send("line\n");
    // Once from the user's own terminal, which is not raw, and once from `cat`.
    cat.expect("line\r\nline\r\n");
    cat.send("\x04");
    assert_eq!(cat.wait(), Some(0));
    // A shell takes commands from a pipe as well, and ends with them.
    let outcome = kiln.run_with_input(&["shell", "b"], b"echo a''b; pwd; exit 8\n");
    assert_eq!((outcome.code, &*outcome.stdout), (Some(8), "ab\n/workspace\n"), "{outcome}");
    assert_eq!(kiln.run(&["shell", "b"]).code, Some(0));
    // Asked for where the user has none, a terminal has a size of its own.
    assert_eq!(kiln.ok(&["exec", "-t", "b", "--", "stty", "size"]).trim(), "24 80");
    let outcome = kiln.run_with_input(&["exec", "-it", "b", "--", "sh"], b"echo a''b; exit 7\n");
    assert_eq!(outcome.code, Some(7), "{outcome}");
    assert!(outcome.stdout.contains("\r\nab\r\n"), "{outcome}");
}
