//! Limits hold.

use std::time::Duration;

use super::{Subject, create, ended, output, sh, spec, try_sh, with_sandbox};
use crate::runtime::{Limits, SandboxSpec};

pub(super) async fn run(subject: &dyn Subject) {
    processes_are_counted(subject).await;
    memory_is_bounded(subject).await;
}

async fn processes_are_counted(subject: &dyn Subject) {
    let limits = Limits { pids: 24, ..spec().limits };
    with_sandbox(subject, SandboxSpec { limits, ..spec() }, async |running| {
        let fork = "for i in $(seq 100); do sleep 20 >/dev/null 2>&1 & done; exit 0";
        let (code, text) = sh(running, None, fork).await;
        assert!(code != 0 || text.contains("fork"), "100 processes were made: {code} {text}");
        running.agent.ping().await.expect("the agent is not affected");
    })
    .await;
}

async fn memory_is_bounded(subject: &dyn Subject) {
    let (disk, limits) = (subject.disk(), Limits { memory: 64 << 20, ..spec().limits });
    let spec = SandboxSpec { limits, ..spec() };
    let id = spec.id;
    let running = create(subject, spec, &*disk).await.expect("it starts");
    // tail has to remember a line that never ends.
    let greedy = "head -c 300m /dev/zero | tail -n 1 > /dev/null";
    if subject.outlives_exhaustion() {
        let (code, _) = sh(&running, None, greedy).await;
        assert_ne!(code, 0, "a process had more memory than the sandbox may have");
        assert_eq!(output(&running, "echo alive").await, "alive");
    } else {
        println!("SKIP a sandbox outlives one of its processes: this driver ends it as a whole");
        if let Ok(code) = try_sh(&running, None, greedy).await.map(|(code, _)| code) {
            assert_ne!(code, 0, "a process had more memory than the sandbox may have");
        }
        ended(&running).await;
    }
    subject.runtime().stop(id, Duration::ZERO).await.expect("it stops");
    let exit = ended(&running).await;
    assert!(exit.out_of_memory, "{exit:?}");
}
