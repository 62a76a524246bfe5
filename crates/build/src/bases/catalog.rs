//! The catalog: names with ordered sources. The first source that answers is taken and pinned.

use std::collections::BTreeMap;

use kiln_metadata::ImageRecord;
use kiln_types::{ErrorCode, ImageName, Reference};
use serde::{Deserialize, Serialize};

use super::{BaseError, Say, archive, pin, pinned};
use crate::builder::Builder;
use crate::error::{chain, code_of};

/// A place where a base of the catalog can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CatalogSource {
    /// An image of a registry.
    Registry {
        /// The OCI reference.
        reference: String,
    },
    /// A minimal system made by `mmdebstrap` from a Debian archive.
    DebianArchive {
        /// The suite: `bookworm`.
        suite: String,
        /// Lines of apt's `sources.list`, or addresses of mirrors; when empty, those that this host
        /// itself uses for the suite.
        #[serde(default)]
        mirrors: Vec<String>,
    },
}

impl CatalogSource {
    /// The built-in catalog.
    pub fn default_catalog() -> BTreeMap<String, Vec<Self>> {
        BTreeMap::from([(
            "debian-12".to_owned(),
            vec![
                Self::Registry { reference: "docker.io/library/debian:bookworm-slim".to_owned() },
                Self::DebianArchive { suite: "bookworm".to_owned(), mirrors: Vec::new() },
            ],
        )])
    }

    /// The source in a few words.
    fn describe(&self) -> String {
        match self {
            Self::Registry { reference } => format!("registry image {reference}"),
            Self::DebianArchive { suite, .. } => format!("Debian archive, suite {suite}"),
        }
    }
}

impl Builder {
    pub(super) async fn catalog_base(
        &self,
        name: &str,
        key: &str,
        pull: bool,
        say: Say<'_>,
    ) -> Result<ImageRecord, BaseError> {
        if !pull && let Some((image, pin)) = pinned(&self.store, key).await? {
            say(format!(
                "base {name}: {} from {}, as of {}",
                image.digest, pin.source, pin.resolved_at
            ));
            return Ok(image);
        }
        let Some(sources) = self.config.catalog.get(name) else {
            let known = self.config.catalog.keys().cloned().collect();
            return Err(BaseError::NotInCatalog { name: name.to_owned(), known });
        };
        let mut attempts = Vec::new();
        for source in sources {
            let described = source.describe();
            say(format!("base {name}: trying {described}"));
            match self.catalog_source(name, source, say).await {
                Ok(image) => {
                    say(format!("base {name}: taken from {described}, {}", image.digest));
                    pin(&self.store, key, &image, &described).await?;
                    return Ok(image);
                }
                // No other source has more room.
                Err(error) if code_of(&error) == ErrorCode::StorageFull => return Err(error),
                Err(error) => {
                    let reason = chain(&error);
                    say(format!("base {name}: not from {described}: {reason}"));
                    attempts.push(format!("{described}: {reason}"));
                }
            }
        }
        Err(BaseError::NoSource { name: name.to_owned(), attempts })
    }

    async fn catalog_source(
        &self,
        name: &str,
        source: &CatalogSource,
        say: Say<'_>,
    ) -> Result<ImageRecord, BaseError> {
        // The image is called by the name that it was asked for, not by where it came from.
        let image_name: Option<ImageName> = name.parse().ok();
        match source {
            CatalogSource::Registry { reference } => {
                let reference: Reference = reference.parse().map_err(BaseError::Reference)?;
                // A closed network is found out soon; a slow one has all the time it needs.
                let timeout = self.config.catalog_timeout;
                let resolved = self.registry.resolve(&reference);
                match tokio::time::timeout(timeout, resolved).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(source)) => return Err(BaseError::Pull { reference, source }),
                    Err(_) => {
                        let seconds = timeout.as_secs();
                        return Err(BaseError::TimedOut { reference, seconds });
                    }
                }
                let image = self.pull(&reference, say).await?;
                if let Some(name) = image_name {
                    let named = self.store.put_name(&name, &image.digest).await;
                    named.map_err(BaseError::Store)?;
                }
                Ok(image)
            }
            CatalogSource::DebianArchive { suite, mirrors } => {
                archive::import(&self.store, suite, mirrors, image_name, say).await
            }
        }
    }
}
