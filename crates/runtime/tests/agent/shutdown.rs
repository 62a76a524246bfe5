//! The orderly end.

use std::time::{Duration, Instant};

use kiln_runtime::agent::{AgentError, StartErrorKind};
use rustix::process::{Pid, Signal, kill_process};

use crate::guest::{Guest, command, read_until, sh, until};

/// As PID 1 and, where that is not possible or to show the difference, as an ordinary process.
async fn guests() -> Vec<Guest> {
    let mut guests = vec![Guest::start().await];
    guests.extend(Guest::pid_one().await);
    guests
}

#[tokio::test]
async fn what_listens_to_sigterm_ends_in_order() {
    for mut guest in guests().await {
        let file = guest.path("said-goodbye");
        let script = format!(
            "trap 'echo bye > {}; exit 0' TERM; echo ready; while :; do sleep 0.02; done",
            file.display()
        );
        let exec = guest.agent.exec(sh(&script)).await.unwrap();
        let (_input, mut output, _) = exec.into_parts();
        read_until(&mut output, "ready").await;
        // A daemon of its own session, which only PID 1's duty reaches.
        guest.script("setsid sleep 1000 >/dev/null 2>&1 </dev/null & sleep 0.05").await;
        let before = Instant::now();
        guest.agent.shutdown(Duration::from_secs(30)).await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        assert!(guest.wait().await.success());
        assert_eq!(std::fs::read(&file).unwrap(), b"bye\n");
    }
}

#[tokio::test]
async fn what_does_not_listen_is_killed_after_the_grace() {
    for mut guest in guests().await {
        let deaf = "trap '' TERM HUP; echo ready; while :; do sleep 0.05; done";
        let exec = guest.agent.exec(sh(deaf)).await.unwrap();
        let (_input, mut output, _) = exec.into_parts();
        read_until(&mut output, "ready").await;
        let before = Instant::now();
        guest.agent.shutdown(Duration::from_millis(200)).await.unwrap();
        let took = before.elapsed();
        assert!((Duration::from_millis(200)..Duration::from_secs(10)).contains(&took), "{took:?}");
        assert!(guest.wait().await.success());
    }
}

#[tokio::test]
async fn an_idle_sandbox_ends_at_once() {
    for mut guest in guests().await {
        let before = Instant::now();
        guest.agent.shutdown(Duration::from_secs(30)).await.unwrap();
        assert!(guest.wait().await.success());
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
        assert!(matches!(guest.agent.ping().await, Err(AgentError::Lost { .. })));
    }
}

#[tokio::test]
async fn an_interactive_shell_does_not_hold_the_end_up() {
    for mut guest in guests().await {
        let mut spec = command(&["bash", "--norc", "-i"]);
        spec.pty = Some((24, 80));
        let exec = guest.agent.exec(spec).await.unwrap();
        let (mut input, mut output, _) = exec.into_parts();
        input.write(bytes::Bytes::from_static(b"echo $((40+2))\n")).await.unwrap();
        read_until(&mut output, "42").await;
        let before = Instant::now();
        guest.agent.shutdown(Duration::from_secs(30)).await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        assert!(guest.wait().await.success());
    }
}

#[tokio::test]
async fn nothing_starts_during_the_shutdown() {
    let guest = Guest::start().await;
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let (_input, mut output, control) = guest.agent.exec(sh(deaf)).await.unwrap().into_parts();
    read_until(&mut output, "ready").await;
    let stopping = guest.reconnect().await;
    let stopping = tokio::spawn(async move { stopping.shutdown(Duration::from_mins(1)).await });
    let start = async || guest.agent.exec(command(&["true"])).await.err();
    let refused = until("it refuses", start).await;
    assert!(
        matches!(&refused, AgentError::Start { kind: StartErrorKind::ShuttingDown, .. }),
        "{refused:?}"
    );
    control.kill().unwrap();
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn sigterm_is_a_shutdown() {
    let mut guest = Guest::start().await;
    let exec = guest.agent.exec(command(&["sleep", "1000"])).await.unwrap();
    kill_process(Pid::from_raw(guest.pid() as i32).unwrap(), Signal::TERM).unwrap();
    assert!(guest.wait().await.success());
    let left = Pid::from_raw(exec.pid() as i32).unwrap();
    assert!(rustix::process::test_kill_process(left).is_err(), "a child has been left");
}
