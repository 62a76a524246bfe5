//! Terminals.

use bytes::Bytes;
use kiln_runtime::agent::ExecSpec;

use crate::guest::{Guest, exit, is_root, read_until, sh, skip};

fn on_terminal(script: &str) -> ExecSpec {
    ExecSpec { pty: Some((24, 80)), ..sh(script) }
}

#[tokio::test]
async fn a_terminal_has_its_size_and_takes_a_new_one() {
    let guest = Guest::start().await;
    let script = "stty size; trap 'stty size; exit 5' WINCH; echo ready; \
        while :; do sleep 0.05; done";
    let exec = guest.agent.exec(on_terminal(script)).await.unwrap();
    let (_input, mut output, control) = exec.into_parts();
    let seen = read_until(&mut output, "ready").await;
    assert!(seen.starts_with("24 80\r\n"), "{seen:?}");
    control.resize(50, 132).unwrap();
    read_until(&mut output, "50 132").await;
    assert_eq!(exit(&mut output).await.code, 5);
}

#[tokio::test]
async fn it_is_the_controlling_terminal() {
    let guest = Guest::start().await;
    let script = "echo to-tty > /dev/tty; tty; echo TERM=$TERM; test -t 0 && test -t 2 && echo all";
    let output = guest.run(on_terminal(script)).await;
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["to-tty\r\n", "/dev/pts/", "TERM=xterm\r\n", "all\r\n"] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(output.stderr.is_empty());
    assert_eq!(output.status.code, 0);
}

#[tokio::test]
async fn keys_work_as_at_a_terminal() {
    let guest = Guest::start().await;
    let exec = guest.agent.exec(on_terminal("echo ready; exec sleep 1000")).await.unwrap();
    let (mut input, mut output, _) = exec.into_parts();
    read_until(&mut output, "ready").await;
    input.write(Bytes::from_static(b"\x03")).await.unwrap();
    assert_eq!(exit(&mut output).await.signal, Some(2));

    let exec = guest.agent.exec(on_terminal("cat; echo after")).await.unwrap();
    let (mut input, mut output, _) = exec.into_parts();
    input.write(Bytes::from_static(b"typed\n")).await.unwrap();
    read_until(&mut output, "typed\r\ntyped\r\n").await;
    input.close().unwrap();
    read_until(&mut output, "after").await;
    assert_eq!(exit(&mut output).await.code, 0);
}

#[tokio::test]
async fn the_terminal_is_the_users() {
    if !is_root() {
        return skip("changing users needs root");
    }
    let guest = Guest::start().await;
    let script = "stat -c %u $(tty); exec 3<>$(tty) && echo opened";
    let spec = ExecSpec { user: Some("4321".into()), ..on_terminal(script) };
    let text = String::from_utf8(guest.run(spec).await.stdout).unwrap();
    assert_eq!(text, "4321\r\nopened\r\n");
}

#[tokio::test]
async fn all_output_arrives_when_the_terminal_closes() {
    let guest = Guest::start().await;
    for _ in 0..20 {
        let output = guest.run(on_terminal("seq 1 2000")).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.ends_with("1999\r\n2000\r\n"), "{:?}", &text[text.len() - 30..]);
    }
}

#[tokio::test]
async fn a_terminal_left_by_its_shell_ends_what_runs_on_it() {
    let guest = Guest::start().await;
    let script = "sleep 1000 & echo $!; sleep 1000 & echo $!";
    let text = String::from_utf8(guest.run(on_terminal(script)).await.stdout).unwrap();
    for pid in text.split_whitespace() {
        // Background jobs of a shell without job control are in its group, which is hung up.
        guest.script(&format!("while kill -0 {pid} 2>/dev/null; do sleep 0.01; done")).await;
    }
}
