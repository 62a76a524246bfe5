//! A daemon of its own for each test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_runtime::agent::ExecSpec;
use kiln_runtime::host::HostBlock;
use kiln_runtime::{
    BoxError, Launcher, Limits, NativeConfig, NativeRuntime, RootSource, Running, Runtime as _,
    RuntimeError, SandboxSpec, Slot, Slots,
};
use kiln_types::SandboxId;

use super::fixture::Disk;

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the test can run; says so when it cannot.
pub(crate) fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP sandboxes need root");
    }
    root
}

/// Slots by count, and the ones that came back.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    next: AtomicU32,
    pub(crate) released: Mutex<Vec<Slot>>,
}

#[async_trait]
impl Slots for Counter {
    async fn reserve(&self) -> Result<Slot, BoxError> {
        if let Some(slot) = self.released.lock().unwrap().pop() {
            return Ok(slot);
        }
        Ok(Slot(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    async fn release(&self, slot: Slot) -> Result<(), BoxError> {
        self.released.lock().unwrap().push(slot);
        Ok(())
    }
}

impl Counter {
    pub(crate) fn outstanding(&self) -> u32 {
        self.next.load(Ordering::Relaxed) - self.released.lock().unwrap().len() as u32
    }
}

/// A directory that is removed with the test, and the host block that goes with it.
pub(crate) struct Place {
    path: PathBuf,
    /// Absent when the directory is another process's.
    _dir: Option<tempfile::TempDir>,
    pub(crate) block: HostBlock,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kiln-native-").tempdir().unwrap();
        let place = Self::at(dir.path().to_owned());
        Self { _dir: Some(dir), ..place }
    }

    /// The directory of another process, which removes it.
    pub(crate) fn at(path: PathBuf) -> Self {
        let block = HostBlock::claim(Path::new("/run/kiln"), &path).unwrap();
        Self { path, _dir: None, block }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config(&self) -> NativeConfig {
        NativeConfig::new(self.path().join("state"), self.block.clone())
    }

    pub(crate) fn disk(&self) -> Disk {
        Disk::new(self.path())
    }
}

/// A daemon: launcher, driver, event loop.
pub(crate) struct Lab {
    pub(crate) place: Place,
    pub(crate) slots: Arc<Counter>,
    pub(crate) runtime: Arc<NativeRuntime>,
    pub(crate) tokio: tokio::runtime::Runtime,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut NativeConfig)) -> Self {
        Self::at(Place::new(), change)
    }

    pub(crate) fn at(place: Place, change: impl FnOnce(&mut NativeConfig)) -> Self {
        let launcher = Launcher::start().unwrap_or_else(|error| panic!("{}", chain(&error)));
        let mut config = place.config();
        config.pool = 0;
        change(&mut config);
        let slots = Arc::new(Counter::default());
        let tokio = tokio::runtime::Runtime::new().unwrap();
        let runtime = tokio
            .block_on(NativeRuntime::new(config, launcher, slots.clone()))
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        Self { place, slots, runtime, tokio }
    }

    /// Runs `test` with a sandbox.
    pub(crate) fn sandbox<T>(&self, test: impl AsyncFnOnce(&Running) -> T) -> T {
        self.sandbox_of(spec(), self.place.disk(), test)
    }

    pub(crate) fn sandbox_of<T>(
        &self,
        spec: SandboxSpec,
        disk: Disk,
        test: impl AsyncFnOnce(&Running) -> T,
    ) -> T {
        self.tokio.block_on(async {
            let id = spec.id;
            let running = create(&self.runtime, spec, disk).await.unwrap();
            let result = test(&running).await;
            self.runtime.stop(id, Duration::ZERO).await.unwrap();
            result
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let removed = self.tokio.block_on(self.runtime.teardown());
        removed.unwrap_or_else(|error| eprintln!("{}", chain(&error)));
        let released = self.place.block.clone().release();
        released.unwrap_or_else(|error| eprintln!("{}", chain(&error)));
    }
}

/// A sandbox with small limits.
pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new(),
        hostname: "workbench".to_owned(),
        env: vec![("KILN_TEST".to_owned(), "1".to_owned())],
        limits: Limits { vcpu: 2, memory: 512 << 20, pids: 512 },
        slot: None,
        network: true,
        driver: None,
    }
}

pub(crate) async fn create(
    runtime: &NativeRuntime,
    spec: SandboxSpec,
    disk: Disk,
) -> Result<Running, RuntimeError> {
    let root: Box<dyn RootSource> = Box::new(disk.source());
    let created = runtime.create(spec, root).await;
    if let Err(error) = &created {
        println!("create: {}", chain(error));
    }
    created
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    /// The output of a command that worked.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

/// Runs a shell command as root.
pub(crate) async fn sh(running: &Running, script: &str) -> Outcome {
    sh_as(running, None, script).await
}

/// Runs a shell command as a user.
pub(crate) async fn sh_as(running: &Running, user: Option<&str>, script: &str) -> Outcome {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let spec = ExecSpec {
        argv: ["/bin/sh", "-c", script].map(String::from).to_vec(),
        env: [("PATH", path), ("HOME", "/root"), ("DEBIAN_FRONTEND", "noninteractive")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        cwd: Some("/".to_owned()),
        user: user.map(str::to_owned),
        pty: None,
        timeout: Some(Duration::from_mins(10)),
    };
    let output = running.agent.run(spec, Bytes::new(), 1 << 20).await.unwrap();
    Outcome {
        code: output.status.code,
        out: String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
        err: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The state directory of a sandbox.
pub(crate) fn state_of(place: &Place, id: SandboxId) -> PathBuf {
    place.path().join("state").join(id.to_string())
}
