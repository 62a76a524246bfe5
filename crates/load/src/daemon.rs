//! The daemon under load.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use kiln_client::{Client, Endpoint};
use kiln_testkit::{Compression, ImageBuilder, Registry};
use kiln_types::TemplateSpec;
use kiln_types::api::{BuildRequest, BuildSource, BuildStatus};

/// The image that sandboxes are made from.
pub(crate) const IMAGE: &str = "load";

/// A running daemon with a data directory of its own, and a registry to pull from.
pub(crate) struct Daemon {
    pub(crate) client: Client,
    pub(crate) registry: Registry,
    directory: tempfile::TempDir,
    child: Mutex<Child>,
    pid: u32,
}

impl Daemon {
    /// Starts one and builds [`IMAGE`].
    pub(crate) async fn start(kiln: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("kiln-load-").tempdir()?;
        let registry = Registry::start().await;
        let config = format!("[registries]\nplain_http = [{:?}]\n", registry.host());
        fs::write(directory.path().join("kiln.toml"), config)?;
        let log = File::create(directory.path().join("daemon.log"))?;
        let data = directory.path().join("data");
        let child = Command::new(kiln)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(directory.path().join("kiln.toml"))
            .arg("--data-dir")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("could not start {}", kiln.display()))?;
        let client = Client::new(Endpoint::Unix(data.join("kiln.sock")))?;
        let (pid, child) = (child.id(), Mutex::new(child));
        let daemon = Self { client, registry, directory, child, pid };
        daemon.wait().await?;
        daemon.build(IMAGE, &[]).await?;
        let layer = daemon.tar()?;
        let image = ImageBuilder::new().layer_bytes(layer, Compression::Gzip).build();
        daemon.registry.put("app", "v1", &image);
        Ok(daemon)
    }

    async fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.client.health().await.is_err() {
            if Instant::now() > deadline || self.has_ended() {
                self.show_log();
                bail!("the daemon does not answer");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        let mut child = self.child.lock().expect("nobody panics with the lock");
        !matches!(child.try_wait(), Ok(None))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A root with nothing but a static busybox, made at the first call.
    fn root(&self) -> Result<PathBuf> {
        let root = self.directory.path().join("root");
        if !root.exists() {
            for name in ["bin", "etc", "tmp", "root"] {
                fs::create_dir_all(root.join(name))?;
            }
            fs::copy("/bin/busybox", root.join("bin/busybox"))
                .context("a static /bin/busybox is needed (Debian: busybox-static)")?;
            for applet in ["sh", "true", "cat", "echo", "sleep", "dd"] {
                symlink("busybox", root.join("bin").join(applet))?;
            }
            fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
            fs::write(root.join("etc/group"), "root:x:0:\n")?;
        }
        Ok(root)
    }

    fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(self.root()?).args(["--owner=0", "--group=0", "-cf", "-", "."]);
        let output = tar.output().context("could not start tar")?;
        ensure!(output.status.success(), "tar: {}", output.status);
        Ok(output.stdout)
    }

    /// Builds an image of the busybox root, with these variables.
    pub(crate) async fn build(&self, name: &str, env: &[(&str, &str)]) -> Result<()> {
        let base_image = self.root()?.to_string_lossy().into_owned();
        let template = TemplateSpec {
            name: name.to_owned(),
            base_image,
            apt_packages: Vec::new(),
            setup_commands: Vec::new(),
            env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            vcpu: None,
            memory_mib: None,
        };
        let source = BuildSource::Template(template);
        let request =
            BuildRequest { source, name: None, pull: false, no_cache: false, literal: false };
        let build = self.client.start_build(&request).await?;
        let mut log = self.client.build_log(&build.id, 0).await?;
        while let Some(event) = log.next().await {
            event?;
        }
        let build = self.client.build(&build.id).await?;
        ensure!(build.status == BuildStatus::Succeeded, "build {}: {:?}", build.id, build.failure);
        Ok(())
    }

    /// Shows the end of its log.
    pub(crate) fn show_log(&self) {
        let log = fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let bad = lines.iter().filter(|line| line.contains("ERROR") || line.contains("WARN"));
        eprintln!("the daemon's last errors and warnings:");
        for line in bad.rev().take(40) {
            eprintln!("  {line}");
        }
    }

    /// Ends it in order; whatever sandboxes are left are removed first.
    pub(crate) async fn end(self) -> Result<()> {
        for sandbox in self.client.sandboxes().await.unwrap_or_default() {
            let _also_gone = self.client.remove_sandbox(&sandbox.id.to_string(), true).await;
        }
        Command::new("kill").arg(self.pid.to_string()).status()?;
        let mut child = self.child.into_inner().expect("nobody panics with the lock");
        let status = tokio::task::spawn_blocking(move || child.wait()).await??;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}
