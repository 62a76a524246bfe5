//! The HTTP API over TCP with its key: every route, every refusal, streams, pages. Each answer is held
//! against the committed OpenAPI document by the caller itself.

mod build_log;
mod caller;
mod document;
mod events;
mod files;
mod pages;
mod post_exec;
mod refusals;
mod routes;
mod socket;
