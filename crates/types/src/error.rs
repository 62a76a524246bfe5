//! The errors that users and clients see: a stable code, a sentence, and the way out.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident => $status:literal,)*) => {
        /// A stable, machine-readable error code. Codes are never renamed or reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// The HTTP status that goes with the code.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

codes! {
    /// The request's body, a parameter or a header is not well-formed or out of its range.
    InvalidRequest => 400,
    /// An image definition or template is not valid.
    InvalidDefinition => 400,
    /// An image reference or name is not well-formed.
    InvalidReference => 400,
    /// An argv has a bare shell operator as element.
    ShellOperatorInArgv => 400,
    /// No API key was given, or it is unknown.
    Unauthorized => 401,
    /// The route does not exist.
    RouteNotFound => 404,
    /// The route exists, but not with this method.
    MethodNotAllowed => 405,
    /// No image with this name or digest.
    ImageNotFound => 404,
    /// No sandbox with this id or name.
    SandboxNotFound => 404,
    /// No build with this id.
    BuildNotFound => 404,
    /// No snapshot with this name or id.
    SnapshotNotFound => 404,
    /// No such file or directory in the sandbox.
    FileNotFound => 404,
    /// The file operation failed inside the sandbox.
    FileOperationFailed => 422,
    /// The name is taken.
    NameInUse => 409,
    /// The image is in use and cannot be removed.
    ImageInUse => 409,
    /// The sandbox's state does not allow this.
    SandboxNotRunning => 409,
    /// The sandbox's state does not allow this.
    SandboxNotStopped => 409,
    /// The body is larger than allowed.
    PayloadTooLarge => 413,
    /// The body's media type is not one that the route takes.
    UnsupportedMediaType => 415,
    /// The command could not be started inside the sandbox.
    ExecFailed => 422,
    /// A build ran and failed.
    BuildFailed => 422,
    /// The base image could not be obtained from any source.
    BaseUnavailable => 502,
    /// The registry refused or failed.
    RegistryError => 502,
    /// The driver that was asked for is unknown, or cannot be used on the daemon's host.
    DriverUnavailable => 422,
    /// The sandbox's agent does not answer.
    AgentUnavailable => 503,
    /// No disk space is left for this.
    StorageFull => 507,
    /// All that the daemon can hand out of something, such as sandboxes' slots, is in use. Not 503: to
    /// ask again does not help, something has to be removed first.
    CapacityExhausted => 507,
    /// A stored blob is missing or has the wrong size or content.
    StoreCorrupt => 500,
    /// A fault of Kiln itself.
    Internal => 500,
}

/// An RFC 9457 problem document (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The HTTP status, repeated.
    pub status: u16,
    /// The stable code.
    pub code: ErrorCode,
    /// One sentence that names the field, the value and what is wrong with it.
    pub detail: String,
    /// The way out, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { status: code.status(), code, detail: detail.into(), hint: None }
    }

    /// The same problem with the way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
