//! Names of sandboxes: what they may be, and whose they are.

use std::sync::{Arc, PoisonError};

use kiln_metadata::{MetadataError, SandboxRecord};
use kiln_types::ErrorCode;

use super::Sandboxes;
use crate::extract::shorten;
use crate::problem::ApiError;

const MAX_NAME: usize = 63;

impl Sandboxes {
    /// Reserves a name until the guard is dropped; the row then holds it.
    pub(super) async fn claim_name(
        self: &Arc<Self>,
        name: Option<&str>,
    ) -> Result<Option<NameClaim>, ApiError> {
        let Some(name) = name else { return Ok(None) };
        let in_use = || MetadataError::NameInUse { what: "a sandbox", name: name.to_owned() };
        if !self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            return Err(in_use().into());
        }
        let claim = NameClaim { sandboxes: Arc::clone(self), name: name.to_owned() };
        if self.parts.metadata.find_sandbox(name).await?.is_some() {
            return Err(ApiError::from(in_use())
                .hint(format!("choose another name, or remove that one: `kiln rm {name}`")));
        }
        Ok(Some(claim))
    }
}

/// A name that is being given to a sandbox.
#[derive(Debug)]
pub(super) struct NameClaim {
    sandboxes: Arc<Sandboxes>,
    name: String,
}

impl Drop for NameClaim {
    fn drop(&mut self) {
        let mut names = self.sandboxes.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(&self.name);
    }
}

/// Refuses what cannot be a sandbox's name.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME {
        "it is longer than 63 bytes"
    } else if !name.bytes().all(fine) {
        "it has characters other than letters, digits, `-`, `_` and `.`"
    } else if !name.as_bytes()[0].is_ascii_alphanumeric() {
        "it does not begin with a letter or digit"
    } else if name.starts_with("sbx_") {
        "names that begin with `sbx_` are ids"
    } else {
        return Ok(());
    };
    let name = shorten(name);
    Err(ApiError::new(
        ErrorCode::InvalidRequest,
        format!("`name` is `{}`, which no sandbox can have: {reason}", name.escape_debug()),
    ))
}

/// A valid host name (RFC 1123, one label): the sandbox's own name as far as it is one, else its id.
pub(super) fn hostname(record: &SandboxRecord) -> String {
    let text = record.name.clone().unwrap_or_else(|| record.id.to_string());
    let label: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    label.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["a", "my-box", "Box_1.2"] {
            check_name(name).unwrap();
        }
        let long = "x".repeat(64);
        for name in ["", "-a", "a b", "a/b", "sbx_1", "ä", long.as_str(), "a\n"] {
            let error = check_name(name).unwrap_err().problem;
            assert!(error.detail.starts_with("`name` is"), "{}", error.detail);
        }
    }
}
