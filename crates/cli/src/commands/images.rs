//! `images`, `rmi`, `pull`.

use anyhow::Result;
use kiln_client::Client;
use kiln_types::api::PullRequest;

use crate::args::{Pull, Rmi};
use crate::output;

pub(super) async fn list(client: &Client, json: bool) -> Result<()> {
    let images = client.images().await?;
    if json {
        output::json(&images)?;
        return Ok(());
    }
    let mut rows = Vec::new();
    for image in &images {
        let unnamed = ["<none>".to_owned()];
        let names: &[String] = if image.names.is_empty() { &unnamed } else { &image.names };
        for name in names {
            rows.push([
                name.clone(),
                image.digest.short(),
                image.layers.len().to_string(),
                output::size(image.size),
                output::age(image.created_at),
            ]);
        }
    }
    output::table(["NAME", "DIGEST", "LAYERS", "SIZE", "AGE"], &rows)?;
    Ok(())
}

pub(super) async fn remove(client: &Client, args: &Rmi, json: bool) -> Result<()> {
    for image in &args.images {
        let removed = client.remove_image(image).await?;
        if json {
            output::json(&removed)?;
        } else {
            output::line(&match removed.image {
                Some(digest) => format!(
                    "removed {image} ({}), {} freed",
                    digest.short(),
                    output::size(removed.bytes_freed)
                ),
                None => format!("removed the name {image}"),
            })?;
        }
    }
    Ok(())
}

pub(super) async fn pull(client: &Client, args: Pull, json: bool) -> Result<()> {
    let pull = PullRequest { reference: args.reference, name: args.name };
    let image = client.pull_image(&pull).await?;
    if json {
        output::json(&image)?;
    } else {
        let name = image.names.first().cloned().unwrap_or_else(|| image.digest.to_string());
        output::line(&name)?;
    }
    Ok(())
}
