//! `snapshot`, `snapshots`.

use anyhow::Result;
use kiln_client::Client;
use kiln_types::api::CreateSnapshot;

use crate::args::{Snapshot, Snapshots, SnapshotsCommand};
use crate::output;

pub(super) async fn create(client: &Client, args: Snapshot, json: bool) -> Result<()> {
    let create = CreateSnapshot { sandbox: args.sandbox, name: args.name };
    let snapshot = client.create_snapshot(&create).await?;
    if json {
        output::json(&snapshot)?;
    } else {
        output::line(&snapshot.name)?;
        if snapshot.skipped_sockets > 0 {
            eprintln!(
                "note: {} socket(s) were left out; a layer cannot hold them",
                snapshot.skipped_sockets
            );
        }
    }
    Ok(())
}

pub(super) async fn list_or_remove(client: &Client, args: Snapshots, json: bool) -> Result<()> {
    if let Some(SnapshotsCommand::Rm { name }) = args.command {
        client.remove_snapshot(&name).await?;
        if json {
            output::json(&serde_json::json!({ "removed": name }))?;
        } else {
            output::line(&name)?;
        }
        return Ok(());
    }
    let snapshots = client.snapshots().await?;
    if json {
        output::json(&snapshots)?;
        return Ok(());
    }
    let rows: Vec<_> = snapshots
        .iter()
        .map(|snapshot| {
            [
                snapshot.name.clone(),
                snapshot.image.short(),
                output::size(snapshot.layer_size),
                snapshot.sandbox.to_string(),
                output::age(snapshot.created_at),
            ]
        })
        .collect();
    output::table(["SNAPSHOT", "IMAGE", "CHANGE", "SANDBOX", "AGE"], &rows)?;
    Ok(())
}
