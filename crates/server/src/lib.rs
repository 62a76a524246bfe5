//! The daemon: the HTTP API, and the services behind it that no crate below has.
//!
//! Owns: the routes and their description, authentication, the form of errors, the configuration, the
//! life of sandboxes and named snapshots, and the start and the end of the daemon. Refuses: to build,
//! pull, mount or run anything itself; to print (the binary does); and to start in a data directory
//! that another daemon uses.
#![forbid(unsafe_code)]

mod app;
mod auth;
mod builds;
mod config;
mod contract;
mod doctor;
mod error;
mod extract;
mod limits;
mod lock;
mod openapi;
mod page;
mod problem;
mod removal;
mod request_id;
mod reserve;
mod routes;
mod sandboxes;
mod server;
mod snapshots;
mod upkeep;

pub use config::{Config, ConfigError, Defaults, LogFormat, OciRuntimeEntry};
pub use error::ServerError;
pub use kiln_images::FsckProgress;
pub use openapi::openapi;
pub use server::{Ready, Server};
pub use upkeep::fsck_offline;

/// What the host offers to a daemon with this configuration, and what is missing. Changes nothing.
pub fn doctor(config: &Config) -> kiln_types::api::DoctorReport {
    doctor::report(config)
}
