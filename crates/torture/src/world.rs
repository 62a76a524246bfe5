//! What the harness knows: what was answered with success has to be there, what was refused has not.

use std::collections::BTreeMap;
use std::time::Duration;

/// Whether something has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum There {
    /// It was acknowledged.
    Yes,
    /// The answer to its making or removal was never seen, or the removal was refused half-way.
    Perhaps,
}

/// An image or a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) there: There,
    /// Files that its sandboxes have.
    pub(crate) files: BTreeMap<String, String>,
    /// Whether it can be made again by the very operation that made it.
    pub(crate) snapshot: bool,
}

/// A sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) there: There,
    /// Whether it runs; `None` when nobody can know.
    pub(crate) runs: Option<bool>,
    /// Files that were written and synced with success.
    pub(crate) files: BTreeMap<String, String>,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) images: BTreeMap<String, Image>,
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    /// How long operations take when nothing goes wrong.
    pub(crate) usual: BTreeMap<&'static str, Duration>,
}

impl World {
    /// Names of sandboxes that are there for sure.
    pub(crate) fn sandboxes(&self, runs: Option<bool>) -> Vec<String> {
        let sure = self.sandboxes.iter().filter(|(_, sandbox)| {
            sandbox.there == There::Yes && (runs.is_none() || sandbox.runs == runs)
        });
        sure.map(|(name, _)| name.clone()).collect()
    }

    /// Names of images that are there for sure.
    pub(crate) fn images(&self, snapshots: bool) -> Vec<String> {
        let sure = self
            .images
            .iter()
            .filter(|(_, image)| image.there == There::Yes && image.snapshot == snapshots);
        sure.map(|(name, _)| name.clone()).collect()
    }

    /// Learns how long an operation takes.
    pub(crate) fn took(&mut self, kind: &'static str, time: Duration) {
        let usual = self.usual.entry(kind).or_insert(time);
        *usual = (*usual * 3 + time) / 4;
    }
}
