//! The manifest of an index that is for this host.

use kiln_images::oci::{Descriptor, Index, Platform};

use crate::error::{Asked, RegistryError};

/// The first manifest for this host. Entries of another kind (signatures, attestations) name no real
/// platform and are passed over.
pub(crate) fn choose<'i>(index: &'i Index, asked: &Asked) -> Result<&'i Descriptor, RegistryError> {
    let platforms =
        || index.manifests.iter().filter_map(|entry| Some((entry, entry.platform.as_ref()?)));
    if let Some((entry, _)) = platforms().find(|(_, platform)| platform.runs_here()) {
        return Ok(entry);
    }
    if let [only @ Descriptor { platform: None, .. }] = index.manifests.as_slice() {
        return Ok(only);
    }
    let known =
        platforms().map(|(_, platform)| platform).filter(|platform| platform.os != "unknown");
    Err(no_platform(asked, known.take(50)))
}

/// Whether a config is for this host; one that does not say is.
pub(crate) fn check(platform: &Platform, asked: &Asked) -> Result<(), RegistryError> {
    let silent = platform.os.is_empty() && platform.architecture.is_empty();
    if silent || platform.runs_here() {
        return Ok(());
    }
    Err(no_platform(asked, [platform].into_iter()))
}

fn no_platform<'p>(asked: &Asked, available: impl Iterator<Item = &'p Platform>) -> RegistryError {
    let mut available: Vec<String> = available.map(ToString::to_string).collect();
    if available.is_empty() {
        available.push("no platform at all".into());
    }
    RegistryError::NoPlatform {
        asked: Box::new(asked.clone()),
        host: Platform::host().to_string(),
        available,
    }
}
