//! Hostile input: how it is made, and what must hold whatever it is.
//!
//! Owns: a tar builder that can lie about every field, one property function for each parser that reads
//! what others write, the seeds that fuzzing starts from, and the comparison of the layer reader with
//! other tar tools. Refuses: to be a dependency of anything but tests, fuzz targets and tasks.
//!
//! A property function takes any bytes, returns nothing, and panics when the product breaks a promise. The
//! fuzz targets, the replay test and the differential test all call the same functions.
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_precision_loss,
    reason = "times are compared to a hundred thousandth of a second"
)]

mod archive;
pub mod differential;
pub mod properties;
mod random;
mod repair;
mod seeds;

pub use archive::{Archive, Header, Magic, pax_records};
pub use properties::Target;
pub use random::Random;
pub use repair::{tar_checksums, tar_headers};
pub use seeds::seeds;
