//! Canonical JSON (RFC 8785) and the keys that are made from it. The rules are in `docs/cache-keys.md`.

use std::fmt;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::definition::{ImageConfig, Step};
use crate::digest::{ChainId, Digest};

/// The version of the key rules. It changes whenever the same inputs must no longer give the same key.
pub const KEY_VERSION: &str = "kiln-key-v1";

/// The RFC 8785 form of `value`.
///
/// # Panics
/// If `value` cannot be JSON at all (a map whose keys are not strings); the types of this crate can.
pub fn canonical_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).expect("the types of this crate have a JSON form")
}

/// What a prefix of a definition's steps is known by in the cache: the base, and every step up to here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepKey(Digest);

impl StepKey {
    /// The key before the first step: the base's layers and the parts of its config that steps see.
    pub fn base(chain: Option<&ChainId>, config: &ImageConfig) -> Self {
        let chain = chain.map_or_else(String::new, ToString::to_string);
        Self(keyed("base", &[chain.as_bytes(), &canonical_json(config)]))
    }

    /// The key after `step`. `inputs` are digests of content the step names but does not contain.
    #[must_use]
    pub fn then(&self, step: &Step, inputs: &[Digest]) -> Self {
        let mut parts = vec![self.0.as_bytes().to_vec(), canonical_json(step)];
        parts.extend(inputs.iter().map(|input| input.as_bytes().to_vec()));
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Self(keyed("step", &parts))
    }

    /// The key as a digest.
    pub const fn digest(&self) -> Digest {
        self.0
    }
}

impl From<Digest> for StepKey {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// SHA-256 over the key version, a domain and `parts`, each with its length before it, so that no two
/// different lists of parts give the same input.
pub(crate) fn keyed(domain: &str, parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in [KEY_VERSION.as_bytes(), domain.as_bytes()].iter().chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Digest::from_sha256(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form_follows_rfc_8785() {
        let value: serde_json::Value =
            serde_json::from_str(r#"{ "b": [1, true, null], "a": "\u20ac\n", "\u00f6": "x" }"#)
                .unwrap();
        let canonical = String::from_utf8(canonical_json(&value)).unwrap();
        assert_eq!(canonical, "{\"a\":\"€\\n\",\"b\":[1,true,null],\"ö\":\"x\"}");
    }

    #[test]
    fn boundaries_between_parts_count() {
        assert_ne!(keyed("step", &[b"ab", b"c"]), keyed("step", &[b"a", b"bc"]));
        assert_ne!(keyed("step", &[b"ab"]), keyed("base", &[b"ab"]));
    }
}
