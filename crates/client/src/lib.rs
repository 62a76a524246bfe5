//! An async client of the Kiln API.
//!
//! Owns: the transport (Unix socket or HTTP with a key), one typed call per route, and streams for
//! build logs, files and running commands. Refuses: policy. It neither retries nor prints.
#![forbid(unsafe_code)]

mod builds;
mod error;
mod exec;
mod files;
mod images;
mod sandboxes;
mod snapshots;
mod sse;
mod store;
mod transport;

pub use error::ClientError;
pub use exec::{ExecInput, ExecOutput, ExecReader, ExecSession};
pub use files::FileBody;
pub use transport::{Client, Endpoint};
