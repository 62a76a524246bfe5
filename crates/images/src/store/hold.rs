//! Layers that must stay although no image needs them yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_types::DiffId;

use super::ImageStore;
use crate::ImagesError;

/// How often each layer is held.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<HashMap<DiffId, usize>>);

impl Holds {
    pub(super) fn has(&self, layer: &DiffId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(layer)
    }
}

/// Keeps layers from being removed until it is dropped. It does not make them exist.
#[derive(Debug)]
#[must_use = "the layers are held only as long as this value lives"]
pub struct LayerHold {
    holds: Arc<Holds>,
    layers: Vec<DiffId>,
}

impl Drop for LayerHold {
    fn drop(&mut self) {
        let mut counts = self.holds.0.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in &self.layers {
            if let Some(count) = counts.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(layer);
                }
            }
        }
    }
}

impl ImageStore {
    /// Frees those of `layers` that no image has and no step made: who would have done it may have been
    /// kept from it by a hold.
    pub(super) async fn release_unneeded(&self, layers: &[DiffId]) -> Result<u64, ImagesError> {
        let _changes = self.changes.lock().await;
        let unused = self.metadata.list_unused_layers().await.map_err(|source| {
            ImagesError::Metadata { action: "list layers that nothing needs", source }
        })?;
        let mut bytes = 0;
        for layer in unused.iter().filter(|layer| layers.contains(&layer.diff_id)) {
            bytes += self.free_layer(layer.diff_id).await?;
        }
        Ok(bytes)
    }

    /// Holds `layers`, whether they are there yet or not. A removal that is under way ends first, so
    /// whoever looks for a layer after this call finds it whole or not at all.
    pub async fn hold(&self, layers: &[DiffId]) -> LayerHold {
        let _changes = self.changes.lock().await;
        let mut counts = self.holds.0.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            *counts.entry(*layer).or_default() += 1;
        }
        LayerHold { holds: Arc::clone(&self.holds), layers: layers.to_vec() }
    }
}
