//! A hostile root inside tries what it can; the host, the agent and other sandboxes are as before.

mod bombs;
mod descriptors;
mod settings;

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;

use super::{PATIENCE, Subject, output, spec, with_sandbox};
use crate::agent::{Agent, ExecSpec};
use settings::Settings;

/// The program that tries one system call after the other.
const ATTEMPTS: &str = include_str!("escape/attempts.c");
/// How many of them there are: one that is lost on the way is noticed.
const COUNT: usize = 81;

/// What must be refused by a driver whose sandboxes have a kernel of their own too: it is the host's.
/// All else may work there, since it changes only that kernel.
const OF_THE_HOST: [&str; 5] = [
    "write_the_agent",
    "write_the_agent_through_proc",
    "leave_by_chroot",
    "read_memory_device",
    "read_kernel_memory",
];

pub(super) async fn run(subject: &dyn Subject) {
    let before = Settings::read();
    let program = compile();
    attempts_are_refused(subject, &program).await;
    descriptors::run(subject).await;
    bombs::run(subject, &program).await;
    before.assert_unchanged();
}

async fn attempts_are_refused(subject: &dyn Subject, program: &[u8]) {
    with_sandbox(subject, spec(), async |running| {
        install(&running.agent, program, "/tmp/attempts").await;
        let report = output(running, "/tmp/attempts").await;
        let lines: Vec<(&str, &str)> =
            report.lines().filter_map(|line| line.split_once('\t')).collect();
        assert_eq!(lines.len(), COUNT, "{report}");
        let wrong: Vec<&(&str, &str)> = lines
            .iter()
            .filter(|(name, end)| {
                let must_fail = !subject.own_kernel() || OF_THE_HOST.contains(name);
                must_fail && !end.starts_with("refused ")
            })
            .collect();
        assert!(wrong.is_empty(), "not refused: {wrong:?}\nall of it:\n{report}");
        running.agent.ping().await.expect("the agent answers afterwards");
    })
    .await;
}

/// The program as a static executable.
fn compile() -> Vec<u8> {
    let place = tempfile::tempdir().expect("a directory can be made");
    let (source, program) = (place.path().join("attempts.c"), place.path().join("attempts"));
    let mut file = std::fs::File::create(&source).expect("the source can be written");
    file.write_all(ATTEMPTS.as_bytes()).expect("the source can be written");
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O1", "-Wall", "-Werror", "-o"]).arg(&program).arg(&source);
    let compiled = compiler.output().expect("a C compiler is installed");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    std::fs::read(&program).expect("the program can be read")
}

/// Puts a program into a sandbox.
async fn install(agent: &Agent, program: &[u8], path: &str) {
    let script = format!("cat > {path} && chmod 755 {path}");
    let spec = ExecSpec {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: Some("/".to_owned()),
        user: None,
        pty: None,
        timeout: Some(PATIENCE),
    };
    let written =
        agent.run(spec, Bytes::copy_from_slice(program), 1 << 16).await.expect("a command runs");
    assert_eq!(written.status.code, 0, "{:?}", written.stderr);
}

/// Runs `script` in the background of a sandbox until `limit` is over, whatever becomes of it.
async fn let_loose(agent: &Agent, script: &str, limit: Duration) {
    let spec = ExecSpec {
        argv: ["/bin/sh", "-c", script].map(String::from).to_vec(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: Some("/".to_owned()),
        user: None,
        pty: None,
        timeout: Some(limit),
    };
    // It may be killed, run out of something, or never be started: that is what it is for.
    drop(agent.run(spec, Bytes::new(), 1 << 16).await);
}
