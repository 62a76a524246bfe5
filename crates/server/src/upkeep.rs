//! Looking after what is stored: damage, what nothing needs, and what takes how much room.

mod fsck;
mod gc;
mod leftover;
mod offline;
mod repair;
mod usage;
mod walk;

pub(crate) use fsck::fsck;
pub(crate) use gc::gc;
pub use offline::fsck_offline;
pub(crate) use offline::open_database;
pub(crate) use usage::usage;
