//! Sandboxes.

use kiln_types::api::{CreateSandbox, ExecRequest, ExecResult, SandboxInfo};
use reqwest::Method;

use crate::transport::item;
use crate::{Client, ClientError};

impl Client {
    /// Makes and starts a sandbox; answers when it runs.
    pub async fn create_sandbox(&self, create: &CreateSandbox) -> Result<SandboxInfo, ClientError> {
        self.json(self.request(Method::POST, "/v1/sandboxes").json(create)).await
    }

    /// All sandboxes, newest first.
    pub async fn sandboxes(&self) -> Result<Vec<SandboxInfo>, ClientError> {
        self.all("/v1/sandboxes").await
    }

    /// One sandbox, by id or name.
    pub async fn sandbox(&self, sandbox: &str) -> Result<SandboxInfo, ClientError> {
        self.get(&path(sandbox, "")?).await
    }

    /// Starts a stopped sandbox.
    pub async fn start_sandbox(&self, sandbox: &str) -> Result<SandboxInfo, ClientError> {
        self.json(self.request(Method::POST, &path(sandbox, "/start")?)).await
    }

    /// Stops a running sandbox; its disk is kept.
    pub async fn stop_sandbox(&self, sandbox: &str) -> Result<SandboxInfo, ClientError> {
        self.json(self.request(Method::POST, &path(sandbox, "/stop")?)).await
    }

    /// Removes a sandbox and its disk; a running one only with `force`.
    pub async fn remove_sandbox(&self, sandbox: &str, force: bool) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, &path(sandbox, "")?);
        self.send(request.query(&[("force", force.to_string())])).await.map(drop)
    }

    /// Runs a command to its end.
    pub async fn exec(
        &self,
        sandbox: &str,
        request: &ExecRequest,
    ) -> Result<ExecResult, ClientError> {
        self.json(self.request(Method::POST, &path(sandbox, "/exec")?).json(request)).await
    }
}

pub(crate) fn path(sandbox: &str, rest: &str) -> Result<String, ClientError> {
    item("/v1/sandboxes", sandbox).map(|path| path + rest)
}
