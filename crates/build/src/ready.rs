//! Images made ready for their first sandbox.

use std::sync::Arc;

use kiln_images::ImageStore;
use kiln_roots::{LayerSource, Roots};
use kiln_types::DiffId;

use crate::error::chain;

/// Does what would make the first mount of `layers` (base first) slower than any later one. Whoever
/// makes an image calls it at the end. A failure is only said in the log: the image is as good, and
/// whoever uses it first gets the error if it is still there.
pub async fn make_ready(store: &ImageStore, roots: &Arc<Roots>, layers: &[DiffId]) {
    let sources: Vec<LayerSource> = match store.prove_layers(layers).await {
        Ok(layers) => layers
            .into_iter()
            .map(|layer| LayerSource { index: layer.index, devices: layer.devices })
            .collect(),
        Err(error) => {
            tracing::warn!(error = chain(&error), "an image is not made ready");
            return;
        }
    };
    let roots = Arc::clone(roots);
    match tokio::task::spawn_blocking(move || roots.prepare(&sources)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "the layers of an image are not made ready");
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "the layers of an image are not made ready");
        }
    }
}
