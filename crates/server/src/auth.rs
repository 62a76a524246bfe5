//! API keys: made at the first start, stored as a hash, compared in constant time.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use jiff::Timestamp;
use kiln_metadata::{ApiKeyRecord, MetadataStore};
use kiln_types::{Digest, ErrorCode, KeyId};
use rustix::rand::GetRandomFlags;

use crate::error::ServerError;
use crate::problem::ApiError;

const PREFIX: &str = "kiln_";

/// The hashes of the keys that open the API. Keys are made at start only, so they are held in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(Vec<Digest>);

impl Keys {
    /// Reads the keys; the first start makes one and writes it to `file` (mode 0600).
    pub(crate) async fn load(
        metadata: &dyn MetadataStore,
        file: &Path,
    ) -> Result<Self, ServerError> {
        let failed = |source| ServerError::ApiKey { path: file.to_owned(), source };
        let mut records = metadata.list_api_keys().await?;
        if records.is_empty() {
            let secret = new_secret().map_err(failed)?;
            write_private(file, &secret).map_err(failed)?;
            let record = ApiKeyRecord {
                id: KeyId::new(),
                secret_hash: Digest::of(&secret),
                label: "made at the first start".to_owned(),
                created_at: Timestamp::now(),
            };
            metadata.put_api_key(&record).await?;
            tracing::info!(key = %record.id, file = %file.display(), "made the first API key");
            records.push(record);
        }
        Ok(Self(records.into_iter().map(|record| record.secret_hash).collect()))
    }

    /// Keys with the given secrets, for tests.
    #[cfg(test)]
    pub(crate) fn of(secrets: &[&str]) -> Self {
        Self(secrets.iter().map(Digest::of).collect())
    }

    /// Whether `secret` is one of the keys. Takes the same time wherever the hashes differ.
    pub(crate) fn accept(&self, secret: &str) -> bool {
        let given = Digest::of(secret);
        let found = self.0.iter().fold(0, |found, known| {
            let difference = known
                .as_bytes()
                .iter()
                .zip(given.as_bytes())
                .fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
            found | u8::from(difference == 0)
        });
        found != 0
    }
}

/// Lets a request pass that carries a key.
pub(crate) async fn require_key(
    State(keys): State<Keys>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let refused = |detail: &str| {
        ApiError::new(ErrorCode::Unauthorized, detail)
            .hint("send `Authorization: Bearer kiln_…`; the first key is in the file `api-key` of the data directory")
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"kiln\""))
    };
    let Some(value) = request.headers().get(header::AUTHORIZATION) else {
        return Err(refused("the request has no `Authorization` header"));
    };
    let secret = value.to_str().ok().and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    match secret {
        None => Err(refused("the `Authorization` header is not `Bearer` and a key")),
        Some(secret) if keys.accept(secret) => Ok(next.run(request).await),
        Some(_) => Err(refused("the API key is not known here")),
    }
}

fn new_secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(format!("{PREFIX}{}", hex::encode(bytes)))
}

/// Replaces `file` by one that only its owner can read, whole or not at all.
fn write_private(file: &Path, text: &str) -> io::Result<()> {
    let temporary = file.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    new.write_all(text.as_bytes())?;
    new.write_all(b"\n")?;
    new.sync_all()?;
    fs::rename(&temporary, file)?;
    match file.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_differ_and_are_long() {
        let [first, second] = [new_secret().unwrap(), new_secret().unwrap()];
        assert_ne!(first, second);
        assert!(first.starts_with("kiln_") && first.len() == 5 + 64, "{first}");
    }

    #[test]
    fn only_whole_keys_are_accepted() {
        let keys = Keys::of(&["kiln_one", "kiln_two"]);
        for (given, accepted) in [
            ("kiln_one", true),
            ("kiln_two", true),
            ("kiln_", false),
            ("", false),
            ("kiln_onekiln_two", false),
        ] {
            assert_eq!(keys.accept(given), accepted, "{given}");
        }
        assert!(!Keys::default().accept(""));
    }

    #[test]
    fn the_key_file_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("api-key");
        write_private(&file, "kiln_old").unwrap();
        write_private(&file, "kiln_new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "kiln_new\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
