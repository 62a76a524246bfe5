//! A base made from a Debian archive.

use std::io::Read;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use kiln_images::{ImageStore, NewImage};
use kiln_metadata::ImageRecord;
use kiln_types::{ErrorCode, ImageConfig, ImageName};
use tokio::process::Command;

use super::scratch::Scratch;
use super::{BaseError, Say};
use crate::error::{chain, code_of};
use crate::program::{self, ProgramError};

/// How long the archive may take.
const DEADLINE: Duration = Duration::from_mins(30);
/// How long apt may take to say what it is configured with.
const APT_DEADLINE: Duration = Duration::from_secs(30);
/// The time that files made on the way get: the same archive then gives the same bytes.
const EPOCH: &str = "1700000000";
const WAY_OUT: &str = "install it with `apt-get install mmdebstrap`";

/// Makes a minimal system of `suite` and takes it in as an image of one layer.
pub(super) async fn import(
    store: &Arc<ImageStore>,
    suite: &str,
    mirrors: &[String],
    name: Option<ImageName>,
    say: Say<'_>,
) -> Result<ImageRecord, BaseError> {
    if !program::is_installed("mmdebstrap") {
        let program = "mmdebstrap".to_owned();
        return Err(BaseError::archive(suite, ProgramError::Missing { program, way_out: WAY_OUT }));
    }
    let scratch = Scratch::new().map_err(|error| BaseError::archive(suite, error))?;
    let mirrors = if mirrors.is_empty() { of_this_host(suite).await } else { mirrors.to_vec() };
    // Whatever it mounts and starts is seen by itself alone, and is gone when it is, however it ends;
    // and it ends with the daemon, however that ends.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", "mmdebstrap"])
        .args(["--variant=minbase", "--format=tar", "--skip=output/dev"])
        // The tool copies these from this host for its own use; every sandbox gets its own.
        .arg("--customize-hook=rm -f \"$1/etc/resolv.conf\" \"$1/etc/hostname\"")
        .arg(suite)
        .arg("-")
        .args(&mirrors)
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env("TMPDIR", scratch.path())
        .env("LC_ALL", "C.UTF-8");
    let into = Arc::clone(store);
    let line = |line: &str| {
        // Its own remarks ("I: …") are progress; the rest is chatter of the tools that it runs.
        if let Some(remark) = line.strip_prefix("I: ") {
            say(format!("mmdebstrap: {remark}"));
        }
    };
    let consume = move |output| into.ingest(Box::new(output) as Box<dyn Read + Send>, None);
    let (made, pending) = program::run(command, WAY_OUT, DEADLINE, line, consume)
        .await
        .map_err(|error| BaseError::archive(suite, error))?;
    drop(scratch);
    let pending = match (made, pending) {
        (Ok(()), Ok(pending)) => pending,
        (Ok(()), Err(error)) => return Err(BaseError::archive(suite, error)),
        // The program then only failed because nobody read on.
        (Err(_), Err(error)) if code_of(&error) == ErrorCode::StorageFull => {
            return Err(BaseError::archive(suite, error));
        }
        (Err(made), _) => return Err(BaseError::archive(suite, made)),
    };
    for dropped in pending.dropped() {
        tracing::warn!(suite, path = dropped.path, reason = dropped.reason, "left out of the base");
    }
    let layer =
        store.finish_layer(pending, &[]).await.map_err(|error| BaseError::archive(suite, error))?;
    let image = NewImage {
        config: ImageConfig { cmd: vec!["bash".to_owned()], ..ImageConfig::default() },
        layers: vec![layer.diff_id],
        name,
        created_by: vec![format!("mmdebstrap --variant=minbase {suite}")],
        ..NewImage::default()
    };
    store.commit_image(image).await.map_err(|error| BaseError::archive(suite, error))
}

/// The `sources.list` lines by which this host gets `suite` itself; none when it does not, and the
/// tool's own defaults are right.
async fn of_this_host(suite: &str) -> Vec<String> {
    let mut command = Command::new("apt-get");
    command
        .args(["indextargets", "--no-release-info", "--format"])
        .args(["$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8");
    let read = |mut output: std::fs::File| {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    };
    let text = match program::run(command, "", APT_DEADLINE, |_| (), read).await {
        Ok((Ok(()), Ok(text))) => text,
        Ok((Err(error), _)) | Err(error) => {
            tracing::debug!(error = chain(&error), "apt's own sources are not known");
            return Vec::new();
        }
        Ok((Ok(()), Err(error))) => {
            tracing::debug!(%error, "apt's own sources are not known");
            return Vec::new();
        }
    };
    source_lines(&text, suite)
}

fn source_lines(targets: &str, suite: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for target in targets.lines() {
        let [site, release, component] = target.split(' ').collect::<Vec<_>>()[..] else {
            continue;
        };
        let part_of_suite = release == suite
            || release
                .strip_prefix(suite)
                .is_some_and(|rest| matches!(rest, "-updates" | "-security" | "/updates"));
        let line = format!("deb {site} {release} {component}");
        if part_of_suite && component == "main" && !lines.contains(&line) {
            lines.push(line);
        }
    }
    // Updates alone are no system.
    if lines.iter().any(|line| line.split(' ').nth(2) == Some(suite)) { lines } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_the_host() {
        let targets = "http://a.example/debian bookworm main\n\
            http://a.example/debian bookworm main\n\
            http://a.example/debian bookworm contrib\n\
            http://a.example/debian bookworm-updates main\n\
            http://a.example/debian bookworm-backports main\n\
            http://b.example/debian-security bookworm-security main\n\
            http://c.example/other nodistro main\n\
            broken\n";
        assert_eq!(
            source_lines(targets, "bookworm"),
            [
                "deb http://a.example/debian bookworm main",
                "deb http://a.example/debian bookworm-updates main",
                "deb http://b.example/debian-security bookworm-security main",
            ]
        );
        assert_eq!(source_lines(targets, "trixie"), Vec::<String>::new());
        let updates = "http://b.example/debian-security bookworm-security main\n";
        assert_eq!(source_lines(updates, "bookworm"), Vec::<String>::new());
    }
}
