//! What every driver must do, as a suite that panics where it does not. What does not apply to a driver
//! is said, as a line that begins with `SKIP`.

#![expect(clippy::print_stdout, reason = "a suite of tests says what it skips")]

mod escape;
mod isolation;
mod life;
mod limits;

use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_types::SandboxId;

use crate::agent::{AgentError, ExecSpec};
use crate::runtime::{Limits, RootSource, Running, Runtime, RuntimeError, SandboxSpec};

/// A driver under test.
pub trait Subject: Sync {
    /// The driver.
    fn runtime(&self) -> &dyn Runtime;

    /// A new disk over an image that has a POSIX shell, coreutils, and the user `nobody`.
    fn disk(&self) -> Box<dyn Disk>;

    /// Whether sandboxes have a kernel of their own: what root does to that one is nobody's loss.
    fn own_kernel(&self) -> bool {
        false
    }

    /// Whether a sandbox that is out of memory or processes loses some of those, and no more. Where it has
    /// a kernel of its own, that may be what the host ends, and the whole sandbox with it.
    fn outlives_exhaustion(&self) -> bool {
        true
    }
}

/// The disk of one sandbox, which outlives it.
pub trait Disk: Send + Sync {
    /// Its root, to be mounted once for each start.
    fn root(&self) -> Box<dyn RootSource>;
}

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs the whole suite.
pub async fn run(subject: &dyn Subject) {
    life::run(subject).await;
    limits::run(subject).await;
    isolation::run(subject).await;
    escape::run(subject).await;
}

/// A sandbox with small limits.
fn spec() -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new(),
        hostname: "conformance".to_owned(),
        env: Vec::new(),
        limits: Limits { vcpu: 1, memory: 256 << 20, pids: 64 },
        slot: None,
        network: false,
        driver: None,
    }
}

async fn create(
    subject: &dyn Subject,
    spec: SandboxSpec,
    disk: &dyn Disk,
) -> Result<Running, RuntimeError> {
    subject.runtime().create(spec, disk.root()).await
}

/// Runs `test` in a new sandbox, which is removed afterwards.
async fn with_sandbox(subject: &dyn Subject, spec: SandboxSpec, test: impl AsyncFnOnce(&Running)) {
    let (id, disk) = (spec.id, subject.disk());
    let running = create(subject, spec, &*disk).await.expect("a sandbox starts");
    test(&running).await;
    subject.runtime().stop(id, Duration::ZERO).await.expect("a sandbox stops");
}

/// The exit code and the output of a shell command.
async fn sh(running: &Running, user: Option<&str>, script: &str) -> (i32, String) {
    try_sh(running, user, script).await.expect("a command runs")
}

/// As [`sh`], where the sandbox may end meanwhile.
async fn try_sh(
    running: &Running,
    user: Option<&str>,
    script: &str,
) -> Result<(i32, String), AgentError> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let spec = ExecSpec {
        argv: ["/bin/sh", "-c", script].map(String::from).to_vec(),
        env: vec![("PATH".to_owned(), path.to_owned())],
        cwd: Some("/".to_owned()),
        user: user.map(str::to_owned),
        pty: None,
        timeout: Some(PATIENCE),
    };
    let output = running.agent.run(spec, Bytes::new(), 1 << 20).await?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code, text.trim_end().to_owned()))
}

/// The output of a command that must work.
async fn output(running: &Running, script: &str) -> String {
    let (code, text) = sh(running, None, script).await;
    assert_eq!(code, 0, "`{script}` ended with {code}: {text}");
    text
}

/// Waits until the end of a sandbox is announced.
async fn ended(running: &Running) -> crate::runtime::Exit {
    let mut exit = running.exit.clone();
    let waited = tokio::time::timeout(PATIENCE, exit.wait_for(Option::is_some)).await;
    let seen = waited.expect("the end is announced in time").expect("the end is announced");
    seen.clone().expect("it was waited for")
}

/// Asks until `condition` holds.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
