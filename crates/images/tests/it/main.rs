//! The image store, on a real database and real files.

mod commit;
mod layers;
mod remove;
mod support;
mod sweep;
