//! Failures of an agent, as the API tells them.

use kiln_runtime::agent::{AgentError, FileErrorKind, StartErrorKind};
use kiln_types::ErrorCode;

use super::Live;
use crate::problem::{ApiError, chain};

/// The API's error for a failed call to the agent of `live`.
pub(crate) fn agent_error(live: &Live, error: &AgentError) -> ApiError {
    let id = live.id;
    match error {
        AgentError::Start { kind, .. } => {
            let api = ApiError::of(ErrorCode::ExecFailed, error);
            match start_hint(*kind) {
                Some(hint) => api.hint(hint),
                None => api,
            }
        }
        AgentError::File { kind, .. } => {
            let code = match kind {
                FileErrorKind::NotFound => ErrorCode::FileNotFound,
                FileErrorKind::NoSpace => ErrorCode::StorageFull,
                _ => ErrorCode::FileOperationFailed,
            };
            let api = ApiError::of(code, error);
            match file_hint(*kind) {
                Some(hint) => api.hint(hint),
                None => api,
            }
        }
        AgentError::TooLarge { .. } => ApiError::of(ErrorCode::PayloadTooLarge, error),
        AgentError::Request { .. } => ApiError::of(ErrorCode::ExecFailed, error),
        _ => match live.exit.borrow().as_ref() {
            Some(exit) => ApiError::new(
                ErrorCode::SandboxNotRunning,
                format!("sandbox {id} has ended: {}", exit.reason),
            )
            .hint(format!("start it again with `kiln start {id}`")),
            None => ApiError::new(
                ErrorCode::AgentUnavailable,
                format!("the agent of sandbox {id} does not answer: {}", chain(error)),
            )
            .hint(format!(
                "if this lasts, stop and start the sandbox: `kiln stop {id}`, `kiln start {id}`"
            )),
        },
    }
}

fn start_hint(kind: StartErrorKind) -> Option<&'static str> {
    Some(match kind {
        StartErrorKind::NotFound => {
            "give the program's full path, or install it; a shell's own commands need `sh -c`"
        }
        StartErrorKind::CwdNotFound => "make the directory first, or choose another `cwd`",
        StartErrorKind::UnknownUser | StartErrorKind::UnknownGroup => {
            "use a name of the sandbox's own /etc/passwd and /etc/group, or numbers"
        }
        StartErrorKind::ResourceLimit => {
            "end processes in the sandbox, or make one with higher limits"
        }
        StartErrorKind::TooBig => "write long input to a file or to standard input",
        _ => return None,
    })
}

fn file_hint(kind: FileErrorKind) -> Option<&'static str> {
    Some(match kind {
        FileErrorKind::NotEmpty => "set `recursive=true` to remove all that is in it",
        FileErrorKind::IsADirectory => "use `files/list` for a directory",
        FileErrorKind::NoSpace => {
            "free space in the data directory, for instance by removing images and sandboxes"
        }
        _ => return None,
    })
}
