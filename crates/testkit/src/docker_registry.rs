//! The registry of the distribution project, as Debian packages it, on loopback.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Certificate, Client};
use tempfile::TempDir;

use crate::push::push_by;
use crate::{TestImage, has_program};

/// How long the program may take to answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running `docker-registry` with its data in a directory of its own. Dropping it ends it.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    port: u16,
    client: Client,
    authority: Option<PathBuf>,
    _dir: TempDir,
}

/// What makes a registry different from an open one.
#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Open,
    Private(&'a str, &'a str),
    Tls,
}

impl DockerRegistry {
    /// Starts one that everybody may use; `None` when it is not installed.
    pub async fn start() -> Result<Option<Self>> {
        Self::start_as(Kind::Open).await
    }

    /// Starts one that wants Basic authentication; `None` when it or `htpasswd` is not installed.
    pub async fn start_private(user: &str, password: &str) -> Result<Option<Self>> {
        Self::start_as(Kind::Private(user, password)).await
    }

    /// Starts one that speaks TLS only, with a certificate of its own authority; `None` when it or
    /// `openssl` is not installed.
    pub async fn start_tls() -> Result<Option<Self>> {
        Self::start_as(Kind::Tls).await
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate of the authority, if it speaks TLS.
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// Pushes an image, by TLS if that is what the registry speaks.
    pub async fn push(&self, repository: &str, tag: &str, image: &TestImage) -> Result<()> {
        push_by(&self.client, &self.address(), repository, tag, image, None).await
    }

    async fn start_as(kind: Kind<'_>) -> Result<Option<Self>> {
        let needed = match kind {
            Kind::Open => None,
            Kind::Private(..) => Some("htpasswd"),
            Kind::Tls => Some("openssl"),
        };
        if !has_program("docker-registry") || needed.is_some_and(|program| !has_program(program)) {
            return Ok(None);
        }
        // The port is free now and may be taken a moment later; then there is another one.
        let mut last = None;
        for _ in 0..5 {
            let mut started = Self::spawn(kind)?;
            match started.wait().await {
                Ok(()) => return Ok(Some(started)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there was an attempt"))
    }

    fn spawn(kind: Kind<'_>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("kiln-docker-registry-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at = |name: &str| dir.path().join(name);
        let mut http = format!("addr: '127.0.0.1:{port}', secret: test");
        let mut auth = String::new();
        let mut client = Client::builder().no_proxy();
        let mut authority = None;
        match kind {
            Kind::Open => {}
            Kind::Private(user, password) => {
                let output = Command::new("htpasswd").args(["-Bbn", user, password]).output()?;
                ensure!(output.status.success(), "htpasswd failed: {}", output.status);
                fs::write(at("htpasswd"), output.stdout)?;
                let path = at("htpasswd");
                auth = format!("auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n", path.display());
            }
            Kind::Tls => {
                certificates(dir.path())?;
                let pem = fs::read(at("ca.pem"))?;
                client = client.tls_certs_only([Certificate::from_pem(&pem)?]);
                authority = Some(at("ca.pem"));
                let (certificate, key) = (at("cert.pem"), at("key.pem"));
                http += &format!(
                    ", tls: {{certificate: '{}', key: '{}'}}",
                    certificate.display(),
                    key.display()
                );
            }
        }
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n\
             http: {{{http}}}\n{auth}",
            at("data").display()
        );
        fs::write(at("config.yml"), config)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("docker-registry did not start")?;
        Ok(Self { child, port, client: client.build()?, authority, _dir: dir })
    }

    fn address(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.host())
    }

    /// Waits until it answers.
    async fn wait(&mut self) -> Result<()> {
        let url = format!("{}/v2/", self.address());
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("docker-registry ended with {status}");
            }
            match self.client.get(&url).send().await {
                Ok(answer) if matches!(answer.status().as_u16(), 200 | 401) => return Ok(()),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        bail!("docker-registry did not answer within {} s", DEADLINE.as_secs())
    }
}

/// An authority (`ca.pem`) and its certificate for the loopback address (`cert.pem`, `key.pem`).
fn certificates(dir: &Path) -> Result<()> {
    let extensions = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    fs::write(dir.join("extensions"), extensions)?;
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=Test authority"];
    let authority = [&authority[..], &curve, &["-keyout", "ca.key", "-out", "ca.pem"]].concat();
    let request = ["req", "-subj", "/CN=127.0.0.1"];
    let request = [&request[..], &curve, &["-keyout", "key.pem", "-out", "cert.csr"]].concat();
    let sign =
        ["x509", "-req", "-days", "2", "-in", "cert.csr", "-CA", "ca.pem", "-CAkey", "ca.key"];
    let rest = ["-CAcreateserial", "-extfile", "extensions", "-out", "cert.pem"];
    let sign = [&sign[..], &rest].concat();
    for arguments in [authority, request, sign] {
        let output = Command::new("openssl").args(&arguments).current_dir(dir).output()?;
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl {}: {problem}", arguments[0]);
    }
    Ok(())
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
