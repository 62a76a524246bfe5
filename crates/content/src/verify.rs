//! Reading a blob to its end to know whether it is what was stored.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use kiln_types::Digest;
use sha2::{Digest as _, Sha256};

use crate::ContentError;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Reads `file` from its start and compares its digest; gives its size.
pub(crate) fn verify(
    mut file: &File,
    path: &Path,
    digest: &Digest,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, ContentError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&buffer[..count]);
                size += count as u64;
                progress(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(ContentError::Io { action: "read", path: path.to_owned(), source });
            }
        }
    }
    let found = Digest::from_sha256(hash.finalize().into());
    if found == *digest { Ok(size) } else { Err(ContentError::Corrupt { digest: *digest, found }) }
}
