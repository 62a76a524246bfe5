//! A registry on loopback.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::http::Connection;
use crate::program;

/// A running `docker-registry` that holds the base image.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    /// Starts one with its blobs in `data` and its configuration in `dir`, and pushes the base image
    /// unless it is there.
    pub(crate) fn start(data: &Path, dir: &Path, layout: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:{port}', secret: bench}}\n",
            data.display()
        );
        fs::write(&config, text)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A terminal's signals are for the program that ends this one in order.
            .process_group(0)
            .spawn()
            .context("could not start docker-registry")?;
        let registry = Self { child, port };
        let mut connection = registry.wait()?;
        let known = connection.request("GET", "/v2/bench/base/tags/list", None);
        drop(connection);
        if !known.is_ok_and(|answer| answer.status == 200) {
            program::succeed(Command::new("skopeo").args([
                "copy",
                "--insecure-policy",
                "--dest-tls-verify=false",
                &format!("oci:{}:base", layout.display()),
                &format!("docker://{}", registry.reference()),
            ]))?;
        }
        Ok(registry)
    }

    /// `127.0.0.1:<port>`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The reference of the base image.
    pub(crate) fn reference(&self) -> String {
        format!("{}/bench/base:1", self.host())
    }

    fn wait(&self) -> Result<Connection> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Ok(mut connection) = Connection::tcp(self.host().parse()?, "")
                && connection.request("GET", "/v2/", None).is_ok()
            {
                return Ok(connection);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("docker-registry does not answer")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The gzip layer of a layout with one image of one layer.
pub(crate) fn largest_blob(layout: &Path) -> Result<PathBuf> {
    let mut largest = (0, PathBuf::new());
    for entry in fs::read_dir(layout.join("blobs/sha256"))? {
        let entry = entry?;
        largest = largest.max((entry.metadata()?.len(), entry.path()));
    }
    Ok(largest.1)
}
