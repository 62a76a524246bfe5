//! Output: much of it, slow readers, and what stays behind after the end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_runtime::agent::ExecChunk;

use crate::guest::{Guest, LIMIT, exit, read_until, sh, until};

const MEGABYTES: usize = 100;

#[tokio::test]
async fn much_output_on_both_streams_passes_a_reader_that_does_not_read() {
    let guest = Guest::start().await;
    // Fills its window and waits, for as long as the other one runs.
    let (_input, mut stuck, _) =
        guest.agent.exec(sh("head -c 5000000 /dev/zero; echo end")).await.unwrap().into_parts();

    let script = format!(
        "head -c {MEGABYTES}M /dev/zero & head -c {MEGABYTES}M /dev/zero | tr '\\0' x >&2; wait"
    );
    let (_input, mut output, _) = guest.agent.exec(sh(&script)).await.unwrap().into_parts();
    let (mut out, mut err, mut wrong) = (0, 0, false);
    let status = loop {
        match output.next().await.unwrap().unwrap() {
            ExecChunk::Stdout(bytes) => {
                out += bytes.len();
                wrong |= bytes.iter().any(|byte| *byte != 0);
            }
            ExecChunk::Stderr(bytes) => {
                err += bytes.len();
                wrong |= bytes.iter().any(|byte| *byte != b'x');
            }
            ExecChunk::Exit(status) => break status,
        }
    };
    assert_eq!((status.code, out, err), (0, MEGABYTES << 20, MEGABYTES << 20));
    assert!(!wrong, "the streams are mixed up");

    let mut slow = 0;
    let status = loop {
        match stuck.next().await.unwrap().unwrap() {
            ExecChunk::Stdout(bytes) => slow += bytes.len(),
            ExecChunk::Stderr(_) => panic!("nothing is on standard error"),
            ExecChunk::Exit(status) => break status,
        }
    };
    assert_eq!((status.code, slow), (0, 5_000_004));
}

#[tokio::test]
async fn output_above_the_limit_is_cut_and_said_so() {
    let guest = Guest::start().await;
    let script = "head -c 300000 /dev/zero; echo short >&2";
    let output = guest.agent.run(sh(script), Bytes::new(), 1000).await.unwrap();
    assert_eq!((output.stdout.len(), output.stderr.as_slice()), (1000, b"short\n".as_slice()));
    assert!(output.truncated);
    let whole = guest.agent.run(sh("printf 12345"), Bytes::new(), 5).await.unwrap();
    assert_eq!((whole.stdout.as_slice(), whole.truncated), (b"12345".as_slice(), false));
}

#[tokio::test]
async fn what_stays_behind_does_not_hold_the_command_up() {
    let guest = Guest::start().await;
    let before = Instant::now();
    let output = guest.run(sh("sleep 1000 & echo started $!")).await;
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    let text = String::from_utf8(output.stdout).unwrap();
    let pid = text.strip_prefix("started ").unwrap().trim();
    // It lives, and is not killed by a later write to a closed pipe.
    guest.script(&format!("kill -0 {pid} && kill {pid}")).await;
}

#[tokio::test]
async fn a_background_writer_survives_the_end_of_its_command() {
    let guest = Guest::start().await;
    let file = guest.path("count");
    let script = format!(
        "(n=0; while :; do n=$((n+1)); echo line || exit; echo $n > {}; sleep 0.01; done) & echo $!",
        file.display()
    );
    let output = String::from_utf8(guest.run(sh(&script)).await.stdout).unwrap();
    let pid = output.lines().find(|line| *line != "line").unwrap();
    let count = || std::fs::read_to_string(&file).ok()?.trim().parse::<u32>().ok();
    until("it counts past the grace", async || count().filter(|count| *count > 50)).await;
    guest.script(&format!("kill {pid}")).await;
}

#[tokio::test]
async fn all_that_was_written_before_the_end_arrives_with_a_late_reader() {
    let guest = Guest::start().await;
    // More than the window, and a survivor that keeps the pipe open.
    let script = "sleep 1000 & printf %s $! >&2; head -c 310000 /dev/zero; printf end";
    let (_input, mut output, _) = guest.agent.exec(sh(script)).await.unwrap().into_parts();
    let pid = read_until(&mut output, "\0").await;
    let pid = pid.trim_end_matches('\0').to_owned();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut total = Vec::new();
    while let ExecChunk::Stdout(bytes) | ExecChunk::Stderr(bytes) =
        output.next().await.unwrap().unwrap()
    {
        total.extend_from_slice(&bytes);
    }
    assert!(total.ends_with(b"end"));
    let digits: String = pid.chars().filter(char::is_ascii_digit).collect();
    if !digits.is_empty() {
        guest.script(&format!("kill {digits}")).await;
    }
}

#[tokio::test]
async fn output_that_is_dropped_does_not_stop_the_process() {
    let guest = Guest::start().await;
    let file = guest.path("done");
    let script = format!("head -c 20000000 /dev/zero; echo end > {}", file.display());
    let (input, output, _control) = guest.agent.exec(sh(&script)).await.unwrap().into_parts();
    drop(output);
    drop(input);
    until("it ends", async || file.exists().then_some(())).await;
    guest.agent.ping().await.unwrap();
}

#[tokio::test]
async fn order_within_a_stream_is_kept_and_exit_is_last() {
    let guest = Guest::start().await;
    let script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done";
    let output = guest.agent.run(sh(script), Bytes::new(), LIMIT).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().enumerate().all(|(n, line)| line == n.to_string()));
    assert_eq!(text.lines().count(), 3000);
    let (_input, mut output, _) = guest.agent.exec(sh("echo a")).await.unwrap().into_parts();
    exit(&mut output).await;
    assert!(output.next().await.is_none());
}
