//! Processes: codes, signals, input, environment, users, time-outs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_runtime::agent::{AgentError, ExecSpec, ExitStatus};

use crate::guest::{Guest, LIMIT, command, exit, is_root, read_until, sh, skip, until};

#[tokio::test]
async fn exit_codes_and_signals_arrive() {
    let guest = Guest::start().await;
    let cases = [
        ("exit 0", 0, None),
        ("exit 1", 1, None),
        ("exit 255", 255, None),
        ("kill -TERM $$", 143, Some(15)),
        ("kill -KILL $$", 137, Some(9)),
        ("kill -SEGV $$", 139, Some(11)),
    ];
    for (script, code, signal) in cases {
        let status = guest.run(sh(script)).await.status;
        assert_eq!(status, ExitStatus { code, signal, timed_out: false }, "{script}");
    }
}

#[tokio::test]
async fn input_reaches_the_process_and_its_end_too() {
    let guest = Guest::start().await;
    let input: Bytes = (0..3_000_000_u32).map(|number| number as u8).collect::<Vec<_>>().into();
    let output = guest.agent.run(command(&["cat"]), input.clone(), 4_000_000).await.unwrap();
    assert_eq!(output.status.code, 0);
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
    assert!(!output.truncated);
}

#[tokio::test]
async fn input_that_nobody_reads_holds_nothing_up() {
    let guest = Guest::start().await;
    let input = Bytes::from(vec![7; 3_000_000]);
    for script in ["true", "exec <&-; echo closed; sleep 0.1"] {
        let output = guest.agent.run(sh(script), input.clone(), LIMIT).await.unwrap();
        assert_eq!(output.status.code, 0, "{script}");
    }
}

#[tokio::test]
async fn writing_and_steering_after_the_end_says_that_it_ended() {
    let guest = Guest::start().await;
    let (mut input, mut output, control) =
        guest.agent.exec(command(&["true"])).await.unwrap().into_parts();
    exit(&mut output).await;
    assert!(output.next().await.is_none());
    assert!(matches!(input.write(Bytes::from_static(b"x")).await, Err(AgentError::Ended)));
    assert!(matches!(control.signal(15), Err(AgentError::Ended)));
    assert!(matches!(control.kill(), Err(AgentError::Ended)));
}

#[tokio::test]
async fn environments_arrive_whatever_is_in_them() {
    let guest = Guest::start().await;
    let values = ["", "=", "a=b", "two\nlines\n", "'\"`$(x)\\", "grüße 火", " ", "\t\u{1}\u{7f}"];
    let mut spec = command(&["env", "-0"]);
    spec.env = values.iter().enumerate().map(|(n, v)| (format!("V_{n}"), (*v).into())).collect();
    spec.env.push(("HOME".into(), "/chosen".into()));
    spec.env.push(("ODD NAME.ü".into(), "x".into()));
    let expected = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    let mut expected: Vec<String> = expected.collect();
    expected.extend(["USER=root".to_owned(), "LOGNAME=root".to_owned()]);
    let output = guest.run(spec).await.stdout;
    let got = String::from_utf8(output).unwrap();
    let got: Vec<&str> = got.split_terminator('\0').collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn arguments_arrive_whatever_is_in_them() {
    let guest = Guest::start().await;
    let long = "x".repeat(100_000);
    let arguments = ["", " ", "a b", "\n", "'", "\"", "$HOME", "*", "火", "--", &long];
    let mut argv = vec!["printf", "%s\\0"];
    argv.extend(arguments);
    let output = guest.run(command(&argv)).await.stdout;
    let got = String::from_utf8(output).unwrap();
    assert_eq!(got.split_terminator('\0').collect::<Vec<_>>(), arguments);
}

#[tokio::test]
async fn processes_start_clean() {
    let guest = Guest::start().await;
    let status = guest.script("cat /proc/self/status; ls /proc/self/fd | wc -l; umask").await;
    for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
    // 0, 1, 2 and the directory that `ls` reads.
    assert!(status.ends_with("\n4\n0022\n"), "{status}");
    let own_session = guest.script("cut -d' ' -f1,5,6 /proc/self/stat; echo $$").await;
    let lines: Vec<&str> = own_session.lines().collect();
    let [_, group, session] = lines[0].split(' ').collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((group, session), (lines[1], lines[1]));
}

#[tokio::test]
async fn users_groups_and_homes_are_the_guests() {
    if !is_root() {
        return skip("changing users needs root");
    }
    let guest = Guest::start().await;
    let script = "id -u; id -g; id -G; echo $HOME:$USER:$LOGNAME";
    let cases = [
        (None, "0\n0\n0\n/root:root:root\n"),
        (Some("daemon"), "1\n1\n1\n/usr/sbin:daemon:daemon\n"),
        (Some("1"), "1\n1\n1\n/usr/sbin:daemon:daemon\n"),
        (Some("daemon:audio"), "1\n29\n29\n/usr/sbin:daemon:daemon\n"),
        (Some("4321:8765"), "4321\n8765\n8765\n/::\n"),
        (Some("4321"), "4321\n0\n0\n/::\n"),
    ];
    for (user, expected) in cases {
        let spec = ExecSpec { user: user.map(Into::into), ..sh(script) };
        let output = guest.run(spec).await.stdout;
        assert_eq!(String::from_utf8(output).unwrap(), expected, "{user:?}");
    }
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let guest = Guest::start().await;
    let script = "sleep 1000 & child=$!; trap 'echo caught; wait $child; exit 3' USR1; echo ready; \
        while :; do sleep 0.02; done";
    let (_input, mut output, control) = guest.agent.exec(sh(script)).await.unwrap().into_parts();
    read_until(&mut output, "ready").await;
    control.signal(10).unwrap();
    read_until(&mut output, "caught").await;
    assert_eq!(exit(&mut output).await.code, 3);
}

#[tokio::test]
async fn a_time_out_kills_group_session_and_descendants() {
    let guest = Guest::start().await;
    // A group member, a member of the session in a group of its own, a session of its own below.
    let script = "sleep 1111 & (set -m; sleep 1111 &) ; setsid sh -c 'sleep 1111; :' & \
        echo $$; sleep 1111";
    let timeout = Some(Duration::from_millis(300));
    let before = Instant::now();
    let output = guest.run(ExecSpec { timeout, ..sh(script) }).await;
    let expected = ExitStatus { code: 137, signal: Some(9), timed_out: true };
    assert_eq!(output.status, expected);
    let took = before.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&took), "{took:?}");
    let below = format!("ps -eo ppid,args | grep -c '^ *{} .*[s]leep 1111' || true", guest.pid());
    until("nothing of it is left", async || {
        (guest.script(&below).await.trim() == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_process_faster_than_its_time_out_is_not_timed_out() {
    let guest = Guest::start().await;
    let spec = ExecSpec { timeout: Some(Duration::from_secs(30)), ..sh("exit 4") };
    assert_eq!(
        guest.run(spec).await.status,
        ExitStatus { code: 4, signal: None, timed_out: false }
    );
}

#[tokio::test]
async fn kill_ends_what_ignores_signals() {
    let guest = Guest::start().await;
    let script = "trap '' TERM INT HUP; echo ready; while :; do sleep 0.05; done";
    let (_input, mut output, control) = guest.agent.exec(sh(script)).await.unwrap().into_parts();
    read_until(&mut output, "ready").await;
    control.signal(15).unwrap();
    control.kill().unwrap();
    assert_eq!(exit(&mut output).await.signal, Some(9));
}

#[tokio::test]
async fn a_run_that_is_given_up_is_killed() {
    let guest = Guest::start().await;
    let file = guest.path("pid");
    let script =
        format!("echo $$ > {}; trap '' TERM; while :; do sleep 0.02; done", file.display());
    let giving_up = tokio::time::timeout(
        Duration::from_millis(300),
        guest.agent.run(sh(&script), Bytes::new(), LIMIT),
    );
    assert!(giving_up.await.is_err());
    // Given up before the agent has even answered.
    let starting = guest.agent.exec(sh(&format!("echo $$ >> {}; cat", file.display())));
    assert!(tokio::time::timeout(Duration::ZERO, starting).await.is_err());
    let alive = format!("for p in $(cat {}); do kill -0 $p && echo $p; done; true", file.display());
    until("both are gone", async || guest.script(&alive).await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn fifty_at_once_all_answer() {
    let guest = Guest::start().await;
    let runs = (0..50).map(|number| {
        let agent = guest.agent.clone();
        tokio::spawn(async move {
            let script = format!("head -c 300000 /dev/zero; cat; exit {number}");
            let input = Bytes::from(vec![number as u8; 100_000]);
            let output = agent.run(sh(&script), input, LIMIT).await.unwrap();
            assert_eq!(output.status.code, number);
            assert_eq!(output.stdout.len(), 400_000);
            assert!(output.stdout[300_000..].iter().all(|byte| *byte == number as u8));
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
}
