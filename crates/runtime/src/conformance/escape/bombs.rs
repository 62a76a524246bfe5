//! Sandboxes that take all they can get: they get what they were promised, and others keep theirs.

use std::time::Duration;

use super::super::{Subject, create, ended, output, sh, spec};
use super::{install, let_loose};

/// How long each may go on.
const TIME: Duration = Duration::from_secs(3);

/// What each does. A bomb may end in any way.
const BOMBS: [(&str, &str); 8] = [
    ("processes", "b() { b | b & }; b; sleep 2"),
    (
        "processes that ignore signals",
        "trap '' TERM HUP INT; for i in $(seq 300); do (trap '' TERM; sleep 60) & done; wait",
    ),
    ("memory", "while :; do head -c 64m /dev/zero | tail -n 1 > /dev/null & sleep 0.05; done"),
    ("shared memory", "i=0; while head -c 32m /dev/zero > /dev/shm/$i; do i=$((i+1)); done"),
    ("descriptors", "for p in $(seq 16); do /tmp/attempts open /dev/null 2 & done; wait"),
    ("directories", "cd /tmp; while mkdir d 2>/dev/null && cd d; do :; done"),
    ("names", "cd /dev/shm; i=0; while : > f$i; do i=$((i+1)); done 2>/dev/null"),
    ("output", "exec yes"),
];

pub(super) async fn run(subject: &dyn Subject, program: &[u8]) {
    let neighbour = spec();
    let disk = subject.disk();
    let bystander = create(subject, neighbour.clone(), &*disk).await.expect("a neighbour starts");
    for (name, script) in BOMBS {
        let spec = spec();
        let (id, disk) = (spec.id, subject.disk());
        let running = create(subject, spec, &*disk).await.expect("a sandbox starts");
        install(&running.agent, program, "/tmp/attempts").await;
        let_loose(&running.agent, script, TIME).await;
        assert_eq!(output(&bystander, "echo alive").await, "alive", "{name}: the neighbour");
        match running.agent.ping().await {
            Err(_) if !subject.outlives_exhaustion() => {
                println!(
                    "SKIP {name}: its agent answers: this driver ended the sandbox as a whole"
                );
                ended(&running).await;
            }
            answer => answer.unwrap_or_else(|error| panic!("{name}: its agent: {error}")),
        }
        subject.runtime().stop(id, Duration::ZERO).await.expect("it stops, whatever it did");
    }
    terminals(subject, program).await;
    assert_eq!(sh(&bystander, None, "echo alive").await, (0, "alive".to_owned()));
    subject.runtime().stop(neighbour.id, Duration::ZERO).await.expect("it stops");
}

/// Terminals are counted by the kernel for all sandboxes together; none may take them all.
async fn terminals(subject: &dyn Subject, program: &[u8]) {
    if subject.own_kernel() {
        println!("SKIP terminals: they are those of the sandbox's own kernel");
        return;
    }
    let (spec, disk) = (spec(), subject.disk());
    let id = spec.id;
    let running = create(subject, spec, &*disk).await.expect("a sandbox starts");
    install(&running.agent, program, "/tmp/attempts").await;
    let count = output(&running, "/tmp/attempts open /dev/ptmx").await;
    let count: u32 = count.parse().expect("a number");
    assert!((4..1000).contains(&count), "{count} terminals in one sandbox");
    subject.runtime().stop(id, Duration::ZERO).await.expect("it stops");
}
