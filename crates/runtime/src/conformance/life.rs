//! Starting, stopping, finding again.

use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::future::join_all;
use kiln_types::SandboxId;

use super::{Subject, create, ended, output, spec, with_sandbox};
use crate::runtime::{BoxError, RuntimeError, SandboxSpec, Userns};

pub(super) async fn run(subject: &dyn Subject) {
    a_command_runs(subject).await;
    a_disk_outlives_its_sandbox(subject).await;
    a_running_sandbox_is_not_started_again(subject).await;
    stopping_may_be_repeated(subject).await;
    an_end_is_announced(subject).await;
    a_failed_root_leaves_nothing(subject).await;
    a_running_sandbox_is_adopted(subject).await;
    a_frozen_sandbox_stands_still(subject).await;
    many_start_at_once(subject).await;
}

async fn a_command_runs(subject: &dyn Subject) {
    with_sandbox(subject, spec(), async |running| {
        assert_eq!(output(running, "hostname; id -u; pwd").await, "conformance\n0\n/");
        let (code, text) = super::sh(running, Some("nobody"), "id -un; exit 3").await;
        assert_eq!((code, text.as_str()), (3, "nobody"));
        running.agent.ping().await.expect("the agent answers");
    })
    .await;
}

async fn a_disk_outlives_its_sandbox(subject: &dyn Subject) {
    let (spec, disk) = (spec(), subject.disk());
    let first = create(subject, spec.clone(), &*disk).await.expect("it starts");
    output(&first, "echo kept > /root/kept; sleep 1000 >/dev/null 2>&1 &").await;
    subject.runtime().stop(spec.id, Duration::from_secs(2)).await.expect("it stops");
    let again = SandboxSpec { slot: Some(first.slot), ..spec };
    let second = create(subject, again.clone(), &*disk).await.expect("it starts again");
    assert_eq!(second.slot, first.slot, "a stopped sandbox keeps its slot");
    assert_eq!(output(&second, "cat /root/kept; stat -c %u:%g /root/kept").await, "kept\n0:0");
    let sleepers = "grep -l sleep /proc/[0-9]*/comm 2>/dev/null | wc -l";
    assert_eq!(output(&second, sleepers).await, "0");
    subject.runtime().stop(again.id, Duration::ZERO).await.expect("it stops");
}

async fn a_running_sandbox_is_not_started_again(subject: &dyn Subject) {
    let spec = spec();
    let (id, again) = (spec.id, spec.clone());
    let (disk, other) = (subject.disk(), subject.disk());
    let running = create(subject, spec, &*disk).await.expect("it starts");
    let refused = create(subject, again, &*other).await;
    assert!(matches!(refused, Err(RuntimeError::Busy { .. })), "{refused:?}");
    running.agent.ping().await.expect("the first is not disturbed");
    subject.runtime().stop(id, Duration::ZERO).await.expect("it stops");
}

async fn stopping_may_be_repeated(subject: &dyn Subject) {
    let (spec, disk) = (spec(), subject.disk());
    let id = spec.id;
    let running = create(subject, spec, &*disk).await.expect("it starts");
    let both =
        [Duration::from_secs(5), Duration::ZERO].map(|grace| subject.runtime().stop(id, grace));
    for stopped in join_all(both).await {
        stopped.expect("stopping at the same time works");
    }
    ended(&running).await;
    subject.runtime().stop(id, Duration::ZERO).await.expect("stopping again works");
    let unknown = subject.runtime().stop(SandboxId::new(), Duration::ZERO).await;
    unknown.expect("stopping what is not there works");
}

async fn an_end_is_announced(subject: &dyn Subject) {
    let (spec, disk) = (spec(), subject.disk());
    let id = spec.id;
    let running = create(subject, spec, &*disk).await.expect("it starts");
    assert_eq!(*running.exit.borrow(), None);
    running.agent.shutdown(Duration::ZERO).await.expect("it shuts down");
    let exit = ended(&running).await;
    assert!(!exit.out_of_memory, "{exit:?}");
    let frozen = subject.runtime().freeze(id).await;
    assert!(matches!(frozen, Err(RuntimeError::NotRunning { .. })), "{frozen:?}");
    subject.runtime().stop(id, Duration::ZERO).await.expect("stopping works still");
}

async fn a_failed_root_leaves_nothing(subject: &dyn Subject) {
    let (spec, disk) = (spec(), subject.disk());
    let broken = |_: Userns<'_>| -> Result<OwnedFd, BoxError> { Err("no such root".into()) };
    let failed = subject.runtime().create(spec.clone(), Box::new(broken)).await;
    assert!(matches!(failed, Err(RuntimeError::Root { .. })), "{failed:?}");
    let id = spec.id;
    create(subject, spec, &*disk).await.expect("the same sandbox starts with another root");
    subject.runtime().stop(id, Duration::ZERO).await.expect("it stops");
}

async fn a_running_sandbox_is_adopted(subject: &dyn Subject) {
    let (spec, disk) = (spec(), subject.disk());
    let running = create(subject, spec.clone(), &*disk).await.expect("it starts");
    let adopted = subject.runtime().adopt(spec.clone()).await.expect("adopting works");
    let adopted = adopted.expect("it runs");
    assert_eq!((adopted.pid, adopted.slot), (running.pid, running.slot));
    subject.runtime().sweep(&[spec.id]).await.expect("sweeping works");
    assert_eq!(output(&adopted, "echo still here").await, "still here");
    subject.runtime().stop(spec.id, Duration::ZERO).await.expect("it stops");
    let gone = subject.runtime().adopt(spec).await.expect("adopting what is gone works");
    assert!(gone.is_none(), "{gone:?}");
}

async fn a_frozen_sandbox_stands_still(subject: &dyn Subject) {
    let (spec, disk) = (spec(), subject.disk());
    let id = spec.id;
    let running = create(subject, spec, &*disk).await.expect("it starts");
    output(&running, "(while :; do echo x >> /tmp/ticks; done) >/dev/null 2>&1 &").await;
    for _ in 0..2 {
        subject.runtime().freeze(id).await.expect("it freezes");
        let ping = tokio::time::timeout(Duration::from_millis(300), running.agent.ping()).await;
        assert!(ping.is_err(), "a frozen agent answers");
        subject.runtime().thaw(id).await.expect("it thaws");
        running.agent.ping().await.expect("it answers again");
    }
    let before = output(&running, "wc -l < /tmp/ticks").await;
    super::eventually("a tick", async || output(&running, "wc -l < /tmp/ticks").await != before)
        .await;
    subject.runtime().freeze(id).await.expect("it freezes");
    subject.runtime().stop(id, Duration::from_secs(1)).await.expect("a frozen sandbox stops");
}

async fn many_start_at_once(subject: &dyn Subject) {
    const COUNT: usize = 8;
    let disks: Vec<_> = (0..COUNT).map(|_| subject.disk()).collect();
    let specs: Vec<_> = (0..COUNT).map(|_| spec()).collect();
    let starts =
        specs.iter().zip(&disks).map(|(spec, disk)| create(subject, spec.clone(), &**disk));
    let mut slots = std::collections::BTreeSet::new();
    for running in join_all(starts).await {
        let running = running.expect("it starts");
        assert_eq!(output(&running, "echo ok").await, "ok");
        assert!(slots.insert(running.slot), "{:?} is shared", running.slot);
    }
    for stopped in
        join_all(specs.iter().map(|spec| subject.runtime().stop(spec.id, Duration::ZERO))).await
    {
        stopped.expect("it stops");
    }
}
