//! Typed, prefixed, time-ordered identifiers: `sbx_0192…`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::printable::Printable;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{}` is not a {kind} id; expected `{prefix}_` and 32 hex digits", Printable(value))]
pub struct ParseIdError {
    value: String,
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// The text before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id, later in order than every id made before it (UUID version 7).
            #[allow(clippy::new_without_default, reason = "an id is never a default value")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(value: &str) -> Result<Self, Self::Err> {
                value
                    .strip_prefix(concat!($prefix, "_"))
                    .filter(|digits| digits.len() == 32)
                    .and_then(|digits| Uuid::try_parse(digits).ok())
                    .map(Self)
                    .ok_or_else(|| ParseIdError {
                        value: value.chars().take(80).collect(),
                        kind: $kind,
                        prefix: $prefix,
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// A sandbox.
    SandboxId, "sbx", "sandbox"
}
id! {
    /// A build job.
    BuildId, "bld", "build"
}
id! {
    /// A named snapshot.
    SnapshotId, "snp", "snapshot"
}
id! {
    /// An API key (the public part that names it, never the secret).
    KeyId, "key", "API key"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_order() {
        let first = SandboxId::new();
        let second = SandboxId::new();
        assert!(first < second && first.to_string() < second.to_string());
        assert_eq!(first.to_string().parse::<SandboxId>().unwrap(), first);
        assert!(first.to_string().starts_with("sbx_"));
    }

    #[test]
    fn refuse_other_kinds() {
        let build = BuildId::new().to_string();
        let error = build.parse::<SandboxId>().unwrap_err().to_string();
        assert!(error.contains("is not a sandbox id"), "{error}");
        assert!("sbx_12".parse::<SandboxId>().is_err());
    }
}
