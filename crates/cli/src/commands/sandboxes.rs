//! `create`, `ps`, `stop`, `start`, `rm`.

use anyhow::Result;
use kiln_client::Client;
use kiln_types::api::{CreateSandbox, ResourceLimits, SandboxInfo, SandboxStatus};

use crate::args::{Create, Resources, Rm, Sandboxes};
use crate::output;

pub(super) async fn create(client: &Client, args: Create, json: bool) -> Result<()> {
    let sandbox = client
        .create_sandbox(&CreateSandbox {
            image: args.image,
            name: args.name,
            env: args.env.into_iter().collect(),
            limits: limits(&args.resources),
            driver: args.driver.driver,
        })
        .await?;
    if json {
        output::json(&sandbox)?;
    } else {
        output::line(&sandbox.id.to_string())?;
    }
    Ok(())
}

pub(super) async fn list(client: &Client, json: bool) -> Result<()> {
    let sandboxes = client.sandboxes().await?;
    if json {
        output::json(&sandboxes)?;
        return Ok(());
    }
    let rows: Vec<_> = sandboxes.iter().map(row).collect();
    output::table(["SANDBOX", "NAME", "STATUS", "IMAGE", "ADDRESS", "AGE"], &rows)?;
    Ok(())
}

fn row(sandbox: &SandboxInfo) -> [String; 6] {
    let status = match (sandbox.status, &sandbox.reason) {
        (SandboxStatus::Starting, _) => "starting".to_owned(),
        (SandboxStatus::Running, _) => "running".to_owned(),
        (SandboxStatus::Stopped, None) => "stopped".to_owned(),
        (SandboxStatus::Stopped, Some(reason)) => format!("stopped ({reason})"),
        (SandboxStatus::Removing, _) => "removing".to_owned(),
    };
    [
        sandbox.id.to_string(),
        sandbox.name.clone().unwrap_or_default(),
        status,
        sandbox.image.clone(),
        sandbox.address.clone().unwrap_or_default(),
        output::age(sandbox.created_at),
    ]
}

pub(super) async fn stop(client: &Client, args: &Sandboxes, json: bool) -> Result<()> {
    for sandbox in &args.sandboxes {
        let info = client.stop_sandbox(sandbox).await?;
        done(&info, sandbox, json)?;
    }
    Ok(())
}

pub(super) async fn start(client: &Client, args: &Sandboxes, json: bool) -> Result<()> {
    for sandbox in &args.sandboxes {
        let info = client.start_sandbox(sandbox).await?;
        done(&info, sandbox, json)?;
    }
    Ok(())
}

fn done(info: &SandboxInfo, asked: &str, json: bool) -> Result<()> {
    if json {
        output::json(info)?;
    } else {
        output::line(asked)?;
    }
    Ok(())
}

pub(super) async fn remove(client: &Client, args: &Rm, json: bool) -> Result<()> {
    for sandbox in &args.sandboxes {
        client.remove_sandbox(sandbox, args.force).await?;
        if json {
            output::json(&serde_json::json!({ "removed": sandbox }))?;
        } else {
            output::line(sandbox)?;
        }
    }
    Ok(())
}

pub(super) const fn limits(resources: &Resources) -> ResourceLimits {
    ResourceLimits {
        vcpu: resources.vcpu,
        memory_mib: resources.memory,
        pids: resources.pids,
        disk_mib: resources.disk,
    }
}
