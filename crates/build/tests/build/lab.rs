//! A daemon's inner parts for each test: store, roots, native driver, builder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use kiln_build::{BuildPlan, Builder, BuilderConfig};
use kiln_images::ImageStore;
use kiln_metadata::{BuildRecord, ImageRecord, MetadataStore, SqliteStore, TemplateDefaults};
use kiln_registry::{RegistryClient, RegistryConfig};
use kiln_roots::{DirectoryUppers, ErofsMounts, LayerSource, Roots, UpperLimits};
use kiln_runtime::agent::ExecSpec;
use kiln_runtime::host::HostBlock;
use kiln_runtime::native::{CA_BUNDLE, CA_ENV};
use kiln_runtime::{
    BoxError, Launcher, Limits, NativeConfig, NativeRuntime, Runtime, SandboxSpec, Slot, Slots,
    Userns,
};
use kiln_testkit::{Registry, Tree};
use kiln_types::event::{BuildEvent, BuildEventKind};
use kiln_types::{Base, ImageDefinition, RunCommand, SandboxId, Step};

/// Whether builds can run here; says so when not.
pub(crate) fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP sandboxes need root");
    }
    root
}

pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) store: Arc<ImageStore>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) runtime: Arc<NativeRuntime>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) tokio: Option<tokio::runtime::Runtime>,
    block: Option<HostBlock>,
    /// Whether `dir` is a file system of its own.
    disk: bool,
}

#[derive(Debug)]
struct MetadataSlots(Arc<dyn MetadataStore>);

#[async_trait]
impl Slots for MetadataSlots {
    async fn reserve(&self) -> Result<Slot, BoxError> {
        Ok(Slot(self.0.reserve_slot(Slot::COUNT).await?))
    }

    async fn release(&self, slot: Slot) -> Result<(), BoxError> {
        Ok(self.0.release_slot(slot.0).await?)
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut BuilderConfig)) -> Self {
        let launcher = Launcher::start().unwrap();
        let tokio = tokio::runtime::Runtime::new().unwrap();
        Self::assemble(None, launcher, tokio, RegistryConfig::default(), change)
    }

    /// With a disk of so many MiB.
    pub(crate) fn on_small_disk(mib: u32) -> Self {
        let launcher = Launcher::start().unwrap();
        let tokio = tokio::runtime::Runtime::new().unwrap();
        Self::assemble(Some(mib), launcher, tokio, RegistryConfig::default(), |_| ())
    }

    /// With a registry of our own, as the only source of the catalog's `debian-12`.
    pub(crate) fn with_registry(
        change: impl FnOnce(&Registry, &mut BuilderConfig),
    ) -> (Self, Registry) {
        let launcher = Launcher::start().unwrap();
        let tokio = tokio::runtime::Runtime::new().unwrap();
        let registry = tokio.block_on(Registry::start());
        let config = RegistryConfig {
            plain_http: vec![registry.host()],
            attempts: 2,
            backoff_ms: 10,
            ..RegistryConfig::default()
        };
        let lab = Self::assemble(None, launcher, tokio, config, |config| change(&registry, config));
        (lab, registry)
    }

    fn assemble(
        disk: Option<u32>,
        launcher: Launcher,
        tokio: tokio::runtime::Runtime,
        registry: RegistryConfig,
        change: impl FnOnce(&mut BuilderConfig),
    ) -> Self {
        let dir = tempfile::Builder::new().prefix("kiln-build-").tempdir().unwrap();
        if let Some(mib) = disk {
            mount_disk(mib, dir.path());
        }
        let block = HostBlock::claim(Path::new("/run/kiln"), dir.path()).unwrap();
        let (metadata, store, roots, runtime, builder) = tokio.block_on(async {
            let data = dir.path();
            let metadata: Arc<dyn MetadataStore> =
                Arc::new(SqliteStore::open(&data.join("kiln.sqlite")).await.unwrap());
            let store = ImageStore::open(data, metadata.clone()).unwrap();
            let uppers = DirectoryUppers::open(&data.join("uppers")).unwrap();
            let roots = Roots::new(data, Arc::new(ErofsMounts::new()), Arc::new(uppers)).unwrap();
            let roots = Arc::new(roots);
            let bundle = PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
            let ca_bundle = bundle.exists().then_some(bundle);
            let native = NativeConfig {
                pool: 0,
                ca_bundle: ca_bundle.clone(),
                ..NativeConfig::new(data.join("run"), block.clone())
            };
            let slots = Arc::new(MetadataSlots(metadata.clone()));
            let runtime = NativeRuntime::new(native, launcher, slots).await.unwrap();
            let mut config = BuilderConfig::new(data);
            config.limits = Limits { vcpu: 2, memory: 2 << 30, pids: 2048 };
            config.catalog_timeout = Duration::from_secs(5);
            if ca_bundle.is_some() {
                config.step_env =
                    CA_ENV.map(|name| (name.to_owned(), CA_BUNDLE.to_owned())).to_vec();
            }
            change(&mut config);
            let builder = Builder::new(
                config,
                store.clone(),
                roots.clone(),
                runtime.clone(),
                RegistryClient::new(registry).unwrap(),
            );
            (metadata, store, roots, runtime, builder)
        });
        Self {
            dir,
            metadata,
            store,
            roots,
            runtime,
            builder,
            tokio: Some(tokio),
            block: Some(block),
            disk: disk.is_some(),
        }
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.tokio.as_ref().unwrap().block_on(future)
    }

    /// A small base: busybox, statically linked, and the accounts that steps use.
    pub(crate) fn base(&self) -> Base {
        let path = self.dir.path().join("base.tar");
        if !path.exists() {
            fs::write(&path, busybox().tar()).unwrap();
        }
        Base::Rootfs(path.display().to_string())
    }

    pub(crate) fn plan(&self, steps: Vec<Step>) -> BuildPlan {
        self.plan_on(self.base(), steps)
    }

    #[expect(clippy::unused_self, reason = "it reads as its sibling does")]
    pub(crate) fn plan_on(&self, base: Base, steps: Vec<Step>) -> BuildPlan {
        let definition = ImageDefinition { base, steps };
        kiln_frontend::definition::validate(&definition, false).unwrap();
        BuildPlan {
            definition,
            name: Some("test:v1".parse().unwrap()),
            defaults: TemplateDefaults::default(),
            pull: false,
            no_cache: false,
        }
    }

    /// Builds to the end, and gives the whole log.
    pub(crate) async fn build(&self, plan: BuildPlan) -> (BuildRecord, Vec<BuildEvent>) {
        let started = self.builder.start(plan).await.unwrap();
        let record = self.builder.wait(&started.id).await.unwrap();
        let events: Vec<BuildEvent> =
            self.builder.log(&record.id, 0).await.unwrap().collect().await;
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event.seq, number as u64, "numbers have no gaps");
        }
        let ended =
            events.iter().filter(|event| matches!(event.kind, BuildEventKind::Finished { .. }));
        assert_eq!(ended.count(), 1);
        assert!(matches!(events.last().unwrap().kind, BuildEventKind::Finished { .. }));
        (record, events)
    }

    /// Builds, which has to succeed.
    pub(crate) async fn image(
        &self,
        plan: BuildPlan,
    ) -> (ImageRecord, BuildRecord, Vec<BuildEvent>) {
        let (record, events) = self.build(plan).await;
        assert_eq!(record.failure, None, "{events:#?}");
        let image = self.metadata.get_image(&record.image.unwrap()).await.unwrap().unwrap();
        (image, record, events)
    }

    /// Runs a shell command in a fresh sandbox of an image, with the image's environment.
    pub(crate) async fn run(&self, image: &ImageRecord, script: &str) -> String {
        let sources: Vec<LayerSource> = self
            .store
            .prove_layers(&image.layers)
            .await
            .unwrap()
            .into_iter()
            .map(|layer| LayerSource { index: layer.index, devices: layer.devices })
            .collect();
        let config = self.store.config(image).await.unwrap();
        let id = SandboxId::new();
        let upper = id.to_string();
        self.roots.uppers().create(&upper, UpperLimits::default()).unwrap();
        let roots = self.roots.clone();
        let root = move |userns: Userns<'_>| {
            roots
                .mount(&sources, &upper, userns.fd, userns.base, false)
                .map_err(|error| Box::new(error) as BoxError)
        };
        let spec = SandboxSpec {
            id,
            hostname: "run".into(),
            env: Vec::new(),
            limits: Limits { vcpu: 1, memory: 1 << 30, pids: 256 },
            slot: None,
            network: false,
            driver: None,
        };
        let running = self.runtime.create(spec, Box::new(root)).await.unwrap();
        let mut env: BTreeMap<String, String> =
            [("PATH".to_owned(), kiln_types::definition::DEFAULT_PATH.to_owned())].into();
        env.extend(config.env.clone());
        let spec = ExecSpec {
            argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
            env: env.into_iter().collect(),
            cwd: Some(config.workdir.clone().unwrap_or_else(|| "/workspace".into())),
            user: config.user.clone(),
            timeout: Some(Duration::from_mins(1)),
            pty: None,
        };
        let output = running.agent.run(spec, bytes::Bytes::new(), 1 << 20).await.unwrap();
        self.runtime.stop(id, Duration::ZERO).await.unwrap();
        self.metadata.release_slot(running.slot.0).await.unwrap();
        self.roots.uppers().remove(&id.to_string()).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {:?} {stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Nothing of any build is left but what the store keeps.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.roots.uppers().list().unwrap(), Vec::<String>::new());
        let leftovers: Vec<PathBuf> = fs::read_dir(self.dir.path().join("uppers"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(leftovers.is_empty(), "{leftovers:?}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&format!("{}/", self.dir.path().display())), "{mounts}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(tokio) = self.tokio.take() {
            tokio.block_on(async {
                self.builder.shutdown().await;
                let swept = self.runtime.sweep(&[]).await;
                self.runtime.shutdown().await;
                if !std::thread::panicking() {
                    swept.unwrap();
                }
            });
        }
        if let Some(block) = self.block.take()
            && let Err(error) = block.release()
        {
            println!("the share of the host was not given back: {error}");
        }
        if self.disk {
            let status = Command::new("umount").arg("-l").arg(self.dir.path()).status();
            assert!(status.unwrap().success());
        }
    }
}

/// Mounts a file system of so many MiB. (The kernel takes no layer from a tmpfs.)
fn mount_disk(mib: u32, at: &Path) {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(u64::from(mib) << 20).unwrap();
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-m", "0", "-O", "^has_journal"]).arg(image.path());
    assert!(make.status().unwrap().success());
    let mut mount = Command::new("mount");
    assert!(mount.args(["-o", "loop"]).arg(image.path()).arg(at).status().unwrap().success());
}

/// A step that runs a shell command.
pub(crate) fn run(script: &str) -> Step {
    Step::Run { command: RunCommand::Shell(script.to_owned()) }
}

/// The events' texts of one kind, for assertions.
pub(crate) fn output(events: &[BuildEvent]) -> String {
    events
        .iter()
        .filter_map(|event| match &event.kind {
            BuildEventKind::Output { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

pub(crate) fn infos(events: &[BuildEvent]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match &event.kind {
            BuildEventKind::Info { message } => Some(message.as_str()),
            _ => None,
        })
        .collect()
}

/// For each step: whether it was answered from the cache.
pub(crate) fn cached(events: &[BuildEvent]) -> Vec<bool> {
    events
        .iter()
        .filter_map(|event| match &event.kind {
            BuildEventKind::StepStarted { cached, .. } => Some(*cached),
            _ => None,
        })
        .collect()
}

/// A root file system with busybox and the accounts that steps use.
pub(crate) fn busybox() -> Tree {
    let program = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|path| fs::read(path).ok())
        .expect("Debian's busybox-static is installed");
    let tree = Tree::new().dir("bin").dir("etc").dir("home").dir("var");
    let tree = tree.file("bin/busybox", program).mode(0o755);
    let applets = [
        "cat", "chmod", "chown", "echo", "env", "false", "head", "id", "kill", "ln", "ls", "mkdir",
        "mkfifo", "mv", "printf", "pwd", "rm", "rmdir", "seq", "sh", "sleep", "sort", "stat",
        "test", "touch", "true", "wc", "yes",
    ];
    applets
        .iter()
        .fold(tree, |tree, applet| tree.symlink(format!("bin/{applet}"), "busybox"))
        .file("etc/passwd", "root:x:0:0::/:/bin/sh\ndev:x:1000:1000::/home:/bin/sh\n")
        .file("etc/group", "root:x:0:\ndev:x:1000:\n")
}
