//! The REST API of podman's service (libpod).

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Network;
use crate::http::Connection;

/// Creates and starts a container that sleeps; its id.
pub(super) fn create(connection: &mut Connection, image: &str, network: Network) -> Result<String> {
    let body = json!({
        "image": image,
        "command": ["sleep", "infinity"],
        "netns": {"nsmode": network.name()},
        // Its own defaults are more than a host without CAP_SYS_RESOURCE may grant.
        "r_limits": [
            {"type": "nofile", "soft": 1024, "hard": 4096},
            {"type": "nproc", "soft": 4096, "hard": 4096},
        ],
    });
    let made = connection.request("POST", "/v4.0.0/libpod/containers/create", Some(&body))?;
    let id = made.json()?["Id"].as_str().context("the container has no id")?.to_owned();
    let path = format!("/v4.0.0/libpod/containers/{id}/start");
    connection.request("POST", &path, None)?.success()?;
    Ok(id)
}

/// Runs a command in a container; what came from it. The output takes a connection of its own, since the
/// service closes that at its end.
pub(super) fn exec(
    connection: &mut Connection,
    connect: impl Fn() -> Result<Connection>,
    container: &str,
    argv: &[&str],
) -> Result<String> {
    let body = json!({"Cmd": argv, "AttachStdout": true, "AttachStderr": true});
    let path = format!("/v4.0.0/libpod/containers/{container}/exec");
    let made = connection.request("POST", &path, Some(&body))?.json()?;
    let id = made["Id"].as_str().context("the exec has no id")?;
    let path = format!("/v4.0.0/libpod/exec/{id}/start");
    let output = connect()?.request("POST", &path, Some(&json!({"Detach": false})))?;
    output.success()?;
    let done =
        connection.request("GET", &format!("/v4.0.0/libpod/exec/{id}/json"), None)?.json()?;
    ensure!(done["ExitCode"] == 0 && done["Running"] == false, "{argv:?} failed: {done}");
    // Each piece of output has a head of eight bytes.
    Ok(String::from_utf8_lossy(output.body.get(8..).unwrap_or_default()).into_owned())
}

/// Kills and removes a container.
pub(super) fn remove(connection: &mut Connection, container: &str) -> Result<()> {
    let path = format!("/v4.0.0/libpod/containers/{container}?force=true&timeout=0");
    connection.request("DELETE", &path, None)?.success()
}
