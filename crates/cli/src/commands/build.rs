//! `build`, `builds`, `logs`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use futures_util::{Stream, StreamExt as _};
use kiln_client::{Client, ClientError};
use kiln_types::api::{BuildInfo, BuildRequest, BuildSource, BuildStatus};
use kiln_types::event::BuildFailure;
use kiln_types::{Base, BuildEvent, BuildId};

use crate::args::{Build, Logs};
use crate::output;
use crate::progress::BuildProgress;

pub(super) async fn build(client: &Client, args: &Build, json: bool) -> Result<u8> {
    let source = read_source(&args.file)?;
    let request = BuildRequest {
        source,
        name: args.name.clone(),
        pull: args.pull,
        no_cache: args.no_cache,
        literal: args.literal,
    };
    let build = client.start_build(&request).await?;
    let events = client.build_log(&build.id, 0).await?;
    follow(events, (!args.quiet).then(BuildProgress::new)).await?;
    let build = client.build(&build.id).await?;
    if json {
        output::json(&build)?;
    }
    finish(&build, json)
}

fn finish(build: &BuildInfo, json: bool) -> Result<u8> {
    match build.status {
        BuildStatus::Succeeded => {
            if !json {
                let digest = build.image.map(|image| image.to_string()).unwrap_or_default();
                output::line(build.name.as_deref().unwrap_or(&digest))?;
            }
            Ok(0)
        }
        BuildStatus::Failed => {
            let what =
                build.failure.as_ref().map_or_else(|| "the build failed".to_owned(), describe);
            bail!("{what} (log: `kiln logs {}`)", build.id)
        }
        BuildStatus::Running => bail!("the log ended, but build {} still runs", build.id),
    }
}

/// Step, command and reason in one line.
fn describe(failure: &BuildFailure) -> String {
    match (failure.step, &failure.command) {
        (Some(step), Some(command)) => format!("step {step}, `{command}`: {}", failure.message),
        (Some(step), None) => format!("step {step}: {}", failure.message),
        _ => failure.message.clone(),
    }
}

async fn follow(
    mut events: impl Stream<Item = Result<BuildEvent, ClientError>> + Unpin,
    mut progress: Option<BuildProgress>,
) -> Result<()> {
    while let Some(event) = events.next().await {
        let event = event?;
        if let Some(progress) = &mut progress {
            progress.show(&event);
        }
    }
    Ok(())
}

pub(super) async fn logs(client: &Client, args: &Logs, json: bool) -> Result<u8> {
    let id: BuildId = args.build.parse()?;
    let mut events = client.build_log(&id, args.from).await?;
    let mut progress = BuildProgress::plain();
    while let Some(event) = events.next().await {
        let event = event?;
        if json { output::json(&event)? } else { progress.show(&event) }
    }
    Ok(0)
}

pub(super) async fn list(client: &Client, json: bool) -> Result<()> {
    let builds = client.builds().await?;
    if json {
        output::json(&builds)?;
        return Ok(());
    }
    let rows: Vec<_> = builds
        .iter()
        .map(|build| {
            let status = match build.status {
                BuildStatus::Running => "running",
                BuildStatus::Succeeded => "succeeded",
                BuildStatus::Failed => "failed",
            };
            [
                build.id.to_string(),
                build.name.clone().unwrap_or_default(),
                status.to_owned(),
                format!("{}/{}", build.steps_cached, build.steps_total),
                output::age(build.created_at),
            ]
        })
        .collect();
    output::table(["BUILD", "NAME", "STATUS", "CACHED", "AGE"], &rows)?;
    Ok(())
}

/// The largest template or definition that the daemon takes, in bytes.
const LARGEST: u64 = 64 << 20;

/// Reads a template or a definition; a base that is a relative path starts at the file's directory.
fn read_source(file: &Path) -> Result<BuildSource> {
    let (text, directory) = if file == Path::new("-") {
        let mut text = Vec::new();
        let mut input = std::io::stdin().take(LARGEST + 1);
        input.read_to_end(&mut text).context("could not read standard input")?;
        (text, PathBuf::from("."))
    } else {
        let text = std::fs::File::open(file)
            .and_then(|file| {
                let mut text = Vec::new();
                file.take(LARGEST + 1).read_to_end(&mut text).map(|_| text)
            })
            .with_context(|| format!("could not read {}", file.display()))?;
        (text, file.parent().unwrap_or(Path::new(".")).to_owned())
    };
    let shown = file.display();
    if text.len() as u64 > LARGEST {
        bail!("{shown} is larger than the {} MiB that the daemon takes", LARGEST >> 20);
    }
    let value: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("{shown} is not JSON"))?;
    if value.get("base").is_some() {
        let mut definition: kiln_types::ImageDefinition = kiln_types::json::from_slice(&text)
            .with_context(|| format!("{shown} is not a valid image definition"))?;
        if let Base::Rootfs(path) = &mut definition.base {
            *path = absolute(&directory, path)?;
        }
        return Ok(BuildSource::Definition(definition));
    }
    if value.get("base_image").is_none() {
        bail!(
            "{shown} is neither a template (it has no `base_image`) nor an image definition (it \
            has no `base`)"
        );
    }
    let mut template: kiln_types::TemplateSpec = kiln_types::json::from_slice(&text)
        .with_context(|| format!("{shown} is not a valid template"))?;
    if template.base_image.starts_with(['.', '/']) {
        template.base_image = absolute(&directory, &template.base_image)?;
    }
    Ok(BuildSource::Template(template))
}

fn absolute(directory: &Path, path: &str) -> Result<String> {
    let path = directory.join(path);
    let path = path.canonicalize().with_context(|| format!("no base at {}", path.display()))?;
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("the base's path {} is not UTF-8", path.display()))
}
