//! Content digests as the OCI image specification defines them. Only `sha256` is an identity here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::printable::Printable;

/// A `sha256:<64 lower-case hex>` content digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{}` is not a digest: {reason}; expected `sha256:` and 64 lower-case hex digits",
    Printable(value)
)]
pub struct ParseDigestError {
    value: String,
    reason: &'static str,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes.as_ref()).into())
    }

    /// Wraps a finished SHA-256.
    pub const fn from_sha256(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The raw hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first twelve hex digits: for people, never for look-ups by machines.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ParseDigestError { value: value.chars().take(120).collect(), reason };
        let Some(digits) = value.strip_prefix("sha256:") else {
            return Err(fail("the algorithm is not sha256"));
        };
        if digits.len() != 64 {
            return Err(fail("the length is wrong"));
        }
        if digits.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(fail("a character is not a lower-case hex digit"));
        }
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).map_err(|_| fail("it is not hex"))?;
        Ok(Self(hash))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The 64 hex digits, without the algorithm.
            pub fn hex(&self) -> String {
                self.0.hex()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(value: &str) -> Result<Self, Self::Err> {
                value.parse().map(Self)
            }
        }
    };
}

digest_newtype! {
    /// The digest of a layer's *uncompressed* tar (OCI image specification, "Layer DiffID").
    DiffId
}

digest_newtype! {
    /// The digest of a layer applied on all layers below it (OCI image specification, "Layer ChainID").
    ChainId
}

impl ChainId {
    /// The chain of `layers`, base first; `None` when there is none.
    ///
    /// `chain(L0) = L0`, `chain(L0..Ln) = sha256(chain(L0..Ln-1) + " " + Ln)`.
    pub fn of(layers: &[DiffId]) -> Option<Self> {
        let (first, rest) = layers.split_first()?;
        Some(rest.iter().fold(Self(first.0), |chain, layer| chain.with(layer)))
    }

    /// The chain that has `layer` on top of this one.
    #[must_use]
    pub fn with(&self, layer: &DiffId) -> Self {
        Self(Digest::of(format!("{self} {layer}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_print() {
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of("").to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), Digest::of(""));
        assert_eq!(serde_json::to_string(&Digest::of("")).unwrap(), format!("\"{text}\""));
    }

    #[test]
    fn refuse_what_is_not_a_digest() {
        for (value, reason) in [
            ("", "the algorithm is not sha256"),
            ("sha512:00", "the algorithm is not sha256"),
            ("sha256:00", "the length is wrong"),
            (
                "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
                "a character is not a lower-case hex digit",
            ),
        ] {
            assert_eq!(value.parse::<Digest>().unwrap_err().reason, reason, "{value}");
        }
    }

    #[test]
    fn chain_follows_the_oci_rule() {
        let [a, b] = ["a", "b"].map(|text| DiffId(Digest::of(text)));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&[a]), Some(ChainId(a.0)));
        assert_eq!(ChainId::of(&[a, b]), Some(ChainId(Digest::of(format!("{a} {b}")))));
    }
}
