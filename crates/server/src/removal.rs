//! Images and layers on their way out of the store, and with them the mounts that the daemon has kept:
//! a layer that stays mounted keeps its space on the disk.

use kiln_images::{ImageStore, ImagesError, MountableLayer, Removed};
use kiln_roots::Roots;
use kiln_types::DiffId;

/// As [`ImageStore::remove_image`].
pub(crate) async fn remove_image(
    images: &ImageStore,
    roots: &Roots,
    text: &str,
) -> Result<Removed, ImagesError> {
    let image = images.resolve(text).await?;
    let layers = mountable(images, &image.layers).await;
    let removed = images.remove_image(text).await?;
    forget_gone(roots, &layers);
    Ok(removed)
}

/// As [`ImageStore::discard_layers`].
pub(crate) async fn discard_layers(
    images: &ImageStore,
    roots: &Roots,
    chain: &[DiffId],
    added: &[DiffId],
) {
    let layers = mountable(images, chain).await;
    images.discard_layers(chain, added).await;
    forget_gone(roots, &layers);
}

/// What is damaged can be removed as well; there are no mounts of what cannot be proven.
async fn mountable(images: &ImageStore, layers: &[DiffId]) -> Vec<MountableLayer> {
    images.prove_layers(layers).await.unwrap_or_default()
}

fn forget_gone(roots: &Roots, layers: &[MountableLayer]) {
    for layer in layers.iter().filter(|layer| !layer.index.exists()) {
        if let Err(error) = roots.layer_mounts().forget(&layer.index) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what was kept of a removed layer stays until the next start"
            );
        }
    }
}
