//! The opening of a connection. These messages outlive versions: unknown members are ignored.

use serde::{Deserialize, Serialize};

/// The oldest version that this build speaks.
pub const MIN_VERSION: u32 = 1;
/// The newest version that this build speaks.
pub const MAX_VERSION: u32 = 1;

/// The host's first frame: the versions it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest.
    pub min_version: u32,
    /// The newest.
    pub max_version: u32,
}

impl Default for Hello {
    fn default() -> Self {
        Self { min_version: MIN_VERSION, max_version: MAX_VERSION }
    }
}

/// The agent's answer: the version of everything that follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The newest version that both sides speak.
    pub version: u32,
    /// The agent's own release, for people.
    pub agent: String,
}

/// The agent's answer when it cannot serve the connection; it closes afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// One sentence for people.
    pub message: String,
}

/// Two sides without a version that both speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no common protocol version: the host speaks {host_min} to {host_max}, \
     the agent {MIN_VERSION} to {MAX_VERSION}"
)]
pub struct NoCommonVersion {
    /// The host's oldest.
    pub host_min: u32,
    /// The host's newest.
    pub host_max: u32,
}

/// The newest version that `hello` and this build share.
pub fn negotiate(hello: &Hello) -> Result<u32, NoCommonVersion> {
    let version = hello.max_version.min(MAX_VERSION);
    if hello.min_version > hello.max_version || version < hello.min_version.max(MIN_VERSION) {
        return Err(NoCommonVersion { host_min: hello.min_version, host_max: hello.max_version });
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_shared_version_is_chosen() {
        let cases = [
            (1, 1, Some(1)),
            (1, 9, Some(1)),
            (0, 1, Some(1)),
            (2, 9, None),
            (0, 0, None),
            (9, 1, None),
        ];
        for (min_version, max_version, expected) in cases {
            let hello = Hello { min_version, max_version };
            assert_eq!(negotiate(&hello).ok(), expected, "{hello:?}");
        }
    }

    #[test]
    fn a_hello_from_the_future_is_understood() {
        let hello: Hello =
            serde_json::from_str(r#"{"min_version":1,"max_version":7,"colour":"red"}"#).unwrap();
        assert_eq!(negotiate(&hello), Ok(1));
    }
}
