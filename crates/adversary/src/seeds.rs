//! What fuzzing and the replay test start from: small, legal or just beside it, and the same every time.

mod documents;
mod layers;

use crate::properties::Target;

/// The seeds of a target, each with a name.
pub fn seeds(target: Target) -> Vec<(String, Vec<u8>)> {
    let named = match target {
        Target::Tar => layers::tars(),
        Target::Index => layers::indexes(),
        Target::Manifest => documents::manifests(),
        Target::Template => documents::templates(),
        Target::Protocol => documents::frames(),
        Target::Definition => documents::definitions(),
    };
    named.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}
