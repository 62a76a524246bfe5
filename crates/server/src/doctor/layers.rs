//! How layers are mounted, and why.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use kiln_roots::ErofsMounts;
use kiln_types::api::Check;

use super::{degraded, missing, ok};
use crate::config::Layers;
use crate::problem::chain;

const NAME: &str = "layers";
/// How long the kernel may take to mount a file of a few kilobytes.
const DEADLINE: Duration = Duration::from_secs(5);
const NEWER: &str = "install Linux 6.12 or newer, built with CONFIG_EROFS_FS and \
    CONFIG_EROFS_FS_BACKED_BY_FILE, and keep the data on a local file system (ext4, XFS, Btrfs)";

/// What a daemon does with its data in a directory of the file system of `dir`.
pub(super) fn mounts(dir: &Path, wanted: Layers) -> Check {
    finding(wanted, probe(dir))
}

fn finding(wanted: Layers, probed: Result<(), String>) -> Check {
    match (wanted, probed) {
        (Layers::Auto | Layers::Erofs, Ok(())) => {
            ok(NAME, "EROFS, mounted from files with blocks of 512 bytes")
        }
        (Layers::Directory, Ok(())) => {
            ok(NAME, "plain directories, as the configuration says; EROFS works here too")
        }
        (Layers::Directory, Err(error)) => {
            ok(NAME, format!("plain directories, as the configuration says; no EROFS: {error}"))
        }
        (Layers::Auto, Err(error)) => degraded(
            NAME,
            format!(
                "plain directories, which take more disk and make the first use of a layer slower; no EROFS: {error}"
            ),
            NEWER,
        ),
        (Layers::Erofs, Err(error)) => {
            missing(NAME, error, format!("set `layers` to `auto` or `directory`, or {NEWER}"))
        }
    }
}

/// On a thread that is not waited for: a mount that hangs in the kernel must not hang the report.
fn probe(dir: &Path) -> Result<(), String> {
    let (tell, told) = channel();
    let dir = dir.to_owned();
    std::thread::spawn(move || drop(tell.send(ErofsMounts::probe(&dir))));
    match told.recv_timeout(DEADLINE) {
        Ok(result) => result.map_err(|error| chain(&error)),
        Err(_) => Err(format!("the kernel gave no answer within {DEADLINE:?}")),
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::api::CheckStatus;

    use super::*;

    #[test]
    fn findings() {
        let no = || Err("no such file system".to_owned());
        for (wanted, probed, status, detail) in [
            (Layers::Auto, Ok(()), CheckStatus::Ok, "EROFS, mounted"),
            (Layers::Auto, no(), CheckStatus::Degraded, "no EROFS: no such file system"),
            (Layers::Erofs, Ok(()), CheckStatus::Ok, "EROFS, mounted"),
            (Layers::Erofs, no(), CheckStatus::Missing, "no such file system"),
            (Layers::Directory, Ok(()), CheckStatus::Ok, "as the configuration says"),
            (Layers::Directory, no(), CheckStatus::Ok, "no such file system"),
        ] {
            let check = finding(wanted, probed);
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.detail.contains(detail), "{check:?}");
            assert_eq!(check.hint.is_none(), status == CheckStatus::Ok, "{check:?}");
        }
    }
}
