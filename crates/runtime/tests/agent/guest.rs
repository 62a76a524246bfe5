//! Agents to test with.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_runtime::agent::{Agent, ExecChunk, ExecOutput, ExecOutputStream, ExecSpec, binary};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const LIMIT: usize = 1 << 20;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running agent, killed at the end of the test.
pub(crate) struct Guest {
    pub(crate) agent: Agent,
    pub(crate) directory: TempDir,
    pub(crate) socket: PathBuf,
    process: Child,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut left = Vec::new();
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            descendants(self.process.id(), &mut left);
        }
        let _ended_already = self.process.kill();
        let _reaped_already = self.process.wait();
        for pid in left.into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
            let _ended_already = kill_process(pid, Signal::KILL);
        }
    }
}

impl Guest {
    /// The agent as an ordinary process.
    pub(crate) async fn start() -> Self {
        let directory = directory();
        let socket = directory.path().join("agent.sock");
        let mut command = Command::new(agent_file());
        command.arg("--listen").arg(&socket);
        Self::spawn(command, directory, socket).await
    }

    /// The agent as an ordinary process, through a program that sets it up: `setpriv …`.
    pub(crate) async fn through(wrapper: &[&str]) -> Self {
        let directory = directory();
        let anybody = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), anybody).unwrap();
        let socket = directory.path().join("agent.sock");
        let mut command = Command::new(wrapper[0]);
        let agent = directory.path().join("agent");
        copy_agent(&agent);
        command.args(&wrapper[1..]).arg(&agent).arg("--listen").arg(&socket);
        Self::spawn(command, directory, socket).await
    }

    /// The agent with a listening socket that it inherits.
    pub(crate) async fn inheriting() -> Self {
        let directory = directory();
        let socket = directory.path().join("agent.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let inherited = rustix::io::dup(&listener).unwrap();
        let mut command = Command::new(agent_file());
        command.arg("--listen-fd").arg(inherited.as_raw_fd().to_string());
        Self::spawn(command, directory, socket).await
    }

    /// The agent as PID 1 of its own PID namespace, on the host's root.
    pub(crate) async fn pid_one() -> Option<Self> {
        if !can_unshare() {
            return None;
        }
        let directory = directory();
        let socket = directory.path().join("agent.sock");
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(agent_file());
        command.arg("--listen").arg(&socket);
        Some(Self::spawn(command, directory, socket).await)
    }

    /// The agent as PID 1 in a root that has busybox and nothing else.
    pub(crate) async fn busybox() -> Option<Self> {
        if !can_unshare() || !Path::new("/bin/busybox").exists() {
            skip("no static busybox, or not root");
            return None;
        }
        let directory = directory();
        let root = directory.path().join("root");
        for name in ["bin", "proc", "run"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        copy_agent(&root.join("agent"));
        for applet in ["sh", "cat", "id", "env", "sleep", "true", "echo", "ls"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let socket = root.join("run/agent.sock");
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]);
        command.arg(format!("--mount-proc={}", root.join("proc").display()));
        command.arg("chroot").arg(&root).args(["/agent", "--listen", "/run/agent.sock"]);
        Some(Self::spawn(command, directory, socket).await)
    }

    async fn spawn(mut command: Command, directory: TempDir, socket: PathBuf) -> Self {
        let process = command.stdin(Stdio::null()).spawn().expect("the agent starts");
        let agent = Agent::connect(&socket, DEADLINE).await.expect("the agent answers");
        Self { agent, directory, socket, process }
    }

    /// The process that was started: the agent itself unless it is PID 1 somewhere.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) async fn reconnect(&self) -> Agent {
        Agent::connect(&self.socket, DEADLINE).await.expect("the agent answers again")
    }

    /// Runs a command that must start.
    pub(crate) async fn run(&self, spec: ExecSpec) -> ExecOutput {
        self.agent.run(spec, Bytes::new(), LIMIT).await.expect("the command runs")
    }

    /// Runs a shell script and gives its standard output; it must end well.
    pub(crate) async fn script(&self, script: &str) -> String {
        let output = self.run(sh(script)).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code, 0, "{script}: {stderr}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Waits until the process that was started has ended.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        until("the agent ends", async || self.process.try_wait().unwrap()).await
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A shell script, with a usual environment.
pub(crate) fn sh(script: &str) -> ExecSpec {
    command(&["sh", "-c", script])
}

/// A command, with a usual environment.
pub(crate) fn command(argv: &[&str]) -> ExecSpec {
    ExecSpec {
        argv: argv.iter().map(|&text| text.to_owned()).collect(),
        env: vec![("PATH".to_owned(), PATH.to_owned())],
        ..ExecSpec::default()
    }
}

/// Reads output until `needle` has been seen; gives all that was read.
pub(crate) async fn read_until(output: &mut ExecOutputStream, needle: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(needle) {
            match output.next().await {
                Some(Ok(ExecChunk::Stdout(bytes) | ExecChunk::Stderr(bytes))) => {
                    seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                other => panic!("{needle:?} did not come before {other:?}"),
            }
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, reading).await.is_ok();
    assert!(in_time, "{needle:?} did not come; this did: {seen:?}");
    seen
}

/// Reads until the exit, dropping output.
pub(crate) async fn exit(output: &mut ExecOutputStream) -> kiln_runtime::agent::ExitStatus {
    let reading = async {
        loop {
            match output.next().await {
                Some(Ok(ExecChunk::Exit(status))) => return status,
                Some(Ok(_)) => {}
                other => panic!("no exit but {other:?}"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("it ends in time")
}

/// Polls `probe` until it gives something.
pub(crate) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn skip(reason: &str) {
    eprintln!("SKIP {reason}");
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn can_unshare() -> bool {
    if !is_root() {
        skip("a PID namespace needs root");
    }
    is_root()
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("kiln-agent-").tempdir().unwrap()
}

/// The agent as a file, kept for all tests of this build: written under another name and renamed,
/// so that no test finds it half there or open for writing.
fn agent_file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = directory.join(format!("kiln-agent-{}", binary::digest().short()));
        if !path.exists() {
            let draft = directory.join(format!("kiln-agent-{}.draft", std::process::id()));
            std::fs::write(&draft, binary::AGENT).unwrap();
            let everybody = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&draft, everybody).unwrap();
            std::fs::rename(&draft, &path).unwrap();
        }
        path
    })
}

/// A copy of the agent for somebody who may not see the directory of the build. Copied by another
/// process: a descriptor open for writing here could be inherited by a child of another thread.
fn copy_agent(to: &Path) {
    let copied = Command::new("install").args(["-m", "755"]).arg(agent_file()).arg(to).status();
    assert!(copied.unwrap().success());
}

/// Everything below a process.
fn descendants(pid: u32, found: &mut Vec<u32>) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        let child = child.parse().unwrap();
        found.push(child);
        descendants(child, found);
    }
}
