//! What must hold for any bytes, one function for each parser.

use std::fmt;
use std::str::FromStr;

mod definition;
mod index;
mod manifest;
mod protocol;
mod tar;
mod template;

/// A parser that reads what others write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Layer archives: the tar reader, the tree, and indexes on other layers.
    Tar,
    /// Index files, also as the parents of a layer.
    Index,
    /// Manifests, indexes and configs of OCI.
    Manifest,
    /// Templates.
    Template,
    /// Frames between host and agent.
    Protocol,
    /// Image definitions.
    Definition,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Tar, Self::Index, Self::Manifest, Self::Template, Self::Protocol, Self::Definition];

    /// Its name, as that of the fuzz target.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Index => "index",
            Self::Manifest => "manifest",
            Self::Template => "template",
            Self::Protocol => "protocol",
            Self::Definition => "definition",
        }
    }

    /// Reads `bytes` as this target does and checks all that must hold.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn check(self, bytes: &[u8]) {
        match self {
            Self::Tar => tar::check(bytes),
            Self::Index => index::check(bytes),
            Self::Manifest => manifest::check(bytes),
            Self::Template => template::check(bytes),
            Self::Protocol => protocol::check(bytes),
            Self::Definition => definition::check(bytes),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|target| target.name() == name)
            .ok_or_else(|| format!("there is no target `{name}`"))
    }
}

/// Messages go to terminals and logs: one line, nothing that moves a cursor, not endless.
fn assert_printable(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(!text.is_empty(), "an error without a word");
    assert!(!text.chars().any(char::is_control), "an error with control characters: {text:?}");
    if let Some(source) = error.source() {
        let source = source.to_string();
        assert!(!text.contains(&source) || source.len() < 3, "{text} repeats its cause");
    }
}

/// A layer with something of every kind for others to lie on.
pub(crate) fn base_tar() -> Vec<u8> {
    tar::base_tar()
}
