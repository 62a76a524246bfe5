//! What a client of the mixed load does: each operation whole, with its answer looked at.

use anyhow::{Result, ensure};
use kiln_types::api::{
    CreateSandbox, CreateSnapshot, ExecRequest, FileQuery, PullRequest, SandboxStatus,
};

use crate::daemon::{Daemon, IMAGE};

/// The operations by name.
pub(crate) const OPERATIONS: [&str; 9] =
    ["cycle", "exec", "stream", "files", "restart", "snapshot", "build", "pull", "lists"];

/// One client: a sandbox of its own that stays, and names that nobody else uses.
pub(crate) struct Worker<'d> {
    daemon: &'d Daemon,
    number: usize,
    random: u64,
    count: usize,
    sandbox: Option<String>,
}

impl<'d> Worker<'d> {
    pub(crate) fn new(daemon: &'d Daemon, number: usize, seed: u64) -> Self {
        // An odd factor spreads neighbouring numbers over all bits.
        let random = ((seed << 8) | (number as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { daemon, number, random, count: 0, sandbox: None }
    }

    /// The next operation (xorshift64).
    pub(crate) fn choose(&mut self) -> &'static str {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        OPERATIONS[(self.random >> 33) as usize % OPERATIONS.len()]
    }

    pub(crate) async fn run(&mut self, name: &str) -> Result<()> {
        self.count += 1;
        match name {
            "cycle" => self.cycle().await,
            "exec" => self.exec().await,
            "stream" => self.stream().await,
            "files" => self.files().await,
            "restart" => self.restart().await,
            "snapshot" => self.snapshot().await,
            "build" => self.build().await,
            "pull" => self.pull().await,
            _ => self.lists().await,
        }
    }

    /// Removes what stays over operations.
    pub(crate) async fn end(&mut self) -> Result<()> {
        if let Some(sandbox) = self.sandbox.take() {
            self.daemon.client.remove_sandbox(&sandbox, true).await?;
        }
        Ok(())
    }

    fn name(&self, what: &str) -> String {
        format!("{what}-{}-{}", self.number, self.count)
    }

    async fn make(&self, image: &str) -> Result<String> {
        let create = CreateSandbox { image: image.to_owned(), ..CreateSandbox::default() };
        Ok(self.daemon.client.create_sandbox(&create).await?.id.to_string())
    }

    async fn own(&mut self) -> Result<String> {
        if self.sandbox.is_none() {
            self.sandbox = Some(self.make(IMAGE).await?);
        }
        Ok(self.sandbox.clone().unwrap_or_default())
    }

    async fn echo(&self, sandbox: &str, text: &str) -> Result<()> {
        let argv = ["sh", "-c", "echo \"$0\"; echo wrong >&2", text].map(str::to_owned).to_vec();
        let request = ExecRequest { argv, ..ExecRequest::default() };
        let result = self.daemon.client.exec(sandbox, &request).await?;
        ensure!(result.stdout == format!("{text}\n") && result.stderr == "wrong\n", "{result:?}");
        Ok(())
    }

    async fn cycle(&self) -> Result<()> {
        let sandbox = self.make(IMAGE).await?;
        self.echo(&sandbox, &self.name("cycle")).await?;
        self.daemon.client.remove_sandbox(&sandbox, true).await?;
        Ok(())
    }

    async fn exec(&mut self) -> Result<()> {
        let sandbox = self.own().await?;
        self.echo(&sandbox, &self.name("exec")).await
    }

    /// A command over a WebSocket, with input.
    async fn stream(&mut self) -> Result<()> {
        use kiln_client::ExecOutput;
        let sandbox = self.own().await?;
        let request = ExecRequest { argv: vec!["cat".to_owned()], ..ExecRequest::default() };
        let mut session = self.daemon.client.exec_stream(&sandbox, request).await?;
        let text = self.name("stream");
        session.input.write(text.as_bytes()).await?;
        session.input.close().await?;
        let mut seen = Vec::new();
        loop {
            match session.output.next().await? {
                ExecOutput::Stdout(bytes) => seen.extend_from_slice(&bytes),
                ExecOutput::Stderr(_) => {}
                ExecOutput::Exit { code, .. } => {
                    ensure!(code == 0 && seen == text.as_bytes(), "{code} {seen:?}");
                    return Ok(());
                }
            }
        }
    }

    async fn files(&mut self) -> Result<()> {
        let sandbox = self.own().await?;
        let client = &self.daemon.client;
        let query =
            |path: &str, recursive| FileQuery { path: path.to_owned(), mode: None, recursive };
        client.make_directory(&sandbox, &query("/d/e", false)).await?;
        let content = self.name("content").repeat(100);
        client.write_file(&sandbox, &query("/d/e/f", false), content.clone()).await?;
        let entry = client.stat_file(&sandbox, &query("/d/e/f", false)).await?;
        ensure!(entry.size == content.len() as u64, "{entry:?}");
        let list = client.list_files(&sandbox, &query("/d/e", false)).await?;
        ensure!(list.entries.len() == 1, "{list:?}");
        client.remove_file(&sandbox, &query("/d", true)).await?;
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        let sandbox = self.own().await?;
        let stopped = self.daemon.client.stop_sandbox(&sandbox).await?;
        ensure!(stopped.status == SandboxStatus::Stopped, "{stopped:?}");
        let started = self.daemon.client.start_sandbox(&sandbox).await?;
        ensure!(started.status == SandboxStatus::Running, "{started:?}");
        self.echo(&sandbox, "back").await
    }

    /// A snapshot, a sandbox of it, and both removed.
    async fn snapshot(&mut self) -> Result<()> {
        let sandbox = self.own().await?;
        let name = self.name("snapshot");
        let client = &self.daemon.client;
        let create = CreateSnapshot { sandbox, name: name.clone() };
        client.create_snapshot(&create).await?;
        let copy = self.make(&name).await?;
        self.echo(&copy, &name).await?;
        client.remove_sandbox(&copy, true).await?;
        client.remove_snapshot(&name).await?;
        Ok(())
    }

    /// A build that the cache answers in part, and its image removed.
    async fn build(&self) -> Result<()> {
        let name = self.name("build");
        self.daemon.build(&name, &[("WHO", &name)]).await?;
        let image = self.daemon.client.image(&name).await?;
        ensure!(image.config.env.get("WHO") == Some(&name), "{image:?}");
        self.daemon.client.remove_image(&name).await?;
        Ok(())
    }

    async fn pull(&self) -> Result<()> {
        let name = self.name("pull");
        let reference = format!("{}/app:v1", self.daemon.registry.host());
        let pull = PullRequest { reference, name: Some(name.clone()) };
        self.daemon.client.pull_image(&pull).await?;
        self.daemon.client.remove_image(&name).await?;
        Ok(())
    }

    async fn lists(&self) -> Result<()> {
        let client = &self.daemon.client;
        let images = client.images().await?;
        ensure!(images.iter().any(|image| image.names.iter().any(|name| name.starts_with(IMAGE))));
        client.sandboxes().await?;
        client.snapshots().await?;
        client.builds().await?;
        client.health().await?;
        Ok(())
    }
}
