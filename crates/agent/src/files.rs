//! Files of the guest, for the host.
//!
//! The agent is inside the root it serves, so a path cannot lead out of it: symbolic links are
//! followed as the guest would. System calls run on threads of their own, since disks block.

mod change;
mod failure;
mod look;
mod read;
mod tree;
mod write;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kiln_protocol::{Failure, FileErrorKind, Reply, Request, Text};

use crate::stream::{Inbound, Stream};
use failure::FileError;

/// Serves a file request. Gives the final reply.
pub(crate) async fn run(stream: &Rc<Stream>, inbound: Inbound, request: Request) -> Reply {
    let result = match request {
        Request::Read { cwd, path } => match resolve(&cwd, &path) {
            Ok(path) => read::run(stream, path).await,
            Err(error) => Err(error),
        },
        Request::Write { cwd, path, mode } => match resolve(&cwd, &path) {
            Ok(path) => write::run(stream, inbound, path, mode).await,
            Err(error) => Err(error),
        },
        Request::List { cwd, path } => match resolve(&cwd, &path) {
            Ok(path) => look::list(stream, path).await,
            Err(error) => Err(error),
        },
        Request::Stat { cwd, path } => {
            blocking(move || {
                let entry = look::describe(&resolve(&cwd, &path)?)?;
                Ok(Reply::Entry { entry })
            })
            .await
        }
        Request::Mkdir { cwd, path, mode } => {
            blocking(move || change::mkdir(&resolve(&cwd, &path)?, mode)).await.map(|()| done())
        }
        Request::Remove { cwd, path, recursive } => {
            blocking(move || change::remove(&resolve(&cwd, &path)?, recursive))
                .await
                .map(|()| done())
        }
        Request::Exec(_) | Request::Sync {} | Request::Shutdown { .. } => {
            Err(FileError::new(FileErrorKind::InvalidArgument, "this is no file request"))
        }
    };
    result.unwrap_or_else(|FileError { kind, message }| Reply::Failed {
        failure: Failure::File { kind, message },
    })
}

fn done() -> Reply {
    Reply::Done {}
}

/// Runs what may block on a thread of its own.
async fn blocking<T, F>(work: F) -> Result<T, FileError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, FileError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(FileError::new(FileErrorKind::Other, error.to_string())),
    }
}

/// The path to work on: `path`, below `cwd` when it is relative, below `/` when both are.
fn resolve(cwd: &Text, path: &Text) -> Result<PathBuf, FileError> {
    let invalid = |message: &str| FileError::new(FileErrorKind::InvalidArgument, message);
    if path.as_bytes().is_empty() {
        return Err(invalid("the path is empty"));
    }
    if path.as_bytes().contains(&0) || cwd.as_bytes().contains(&0) {
        return Err(invalid("the path has a NUL byte"));
    }
    let path = OsStr::from_bytes(path.as_bytes());
    Ok(Path::new("/").join(cwd.as_os_str()).join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_cwd() {
        let cases = [
            ("/w", "a/b", "/w/a/b"),
            ("/w", "/a", "/a"),
            ("", "a", "/a"),
            ("w", "a", "/w/a"),
            ("/w", ".", "/w/."),
        ];
        for (cwd, path, expected) in cases {
            assert_eq!(resolve(&cwd.into(), &path.into()).unwrap(), Path::new(expected));
        }
        for path in ["", "a\0b"] {
            let error = resolve(&"/".into(), &path.into()).unwrap_err();
            assert_eq!(error.kind, FileErrorKind::InvalidArgument);
        }
    }
}
