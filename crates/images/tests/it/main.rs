//! The image store, on a real database and real files.

mod commit;
mod fsck;
mod gc;
mod layers;
mod model;
mod remove;
mod support;
mod sweep;
