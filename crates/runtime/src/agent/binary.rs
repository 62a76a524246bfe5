//! The agent's program, carried inside this one.

use std::sync::OnceLock;

use kiln_types::Digest;

/// The static executable that is PID 1 of every sandbox.
pub static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kiln-agent"));

/// The digest of [`AGENT`]: names the file that a host keeps of it.
pub fn digest() -> Digest {
    static DIGEST: OnceLock<Digest> = OnceLock::new();
    *DIGEST.get_or_init(|| Digest::of(AGENT))
}
