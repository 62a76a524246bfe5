//! The layers of one pull: a few at a time, each once, none visible before all are right.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use kiln_images::oci::Descriptor;
use kiln_images::{ImageStore, ImagesError, PendingLayer};
use kiln_types::{DiffId, Reference};
use tokio_util::sync::CancellationToken;

use crate::blob::Fed;
use crate::client::{Inner, Report};
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::feed::feed;
use crate::progress::PullProgress;

/// Layers that are fetched at the same time.
const PARALLEL: usize = 3;

/// A layer as manifest and config describe it.
#[derive(Clone, Debug)]
pub(crate) struct LayerSpec {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: DiffId,
}

/// The layers that a pull brought into the store, also when it failed.
pub(crate) struct Added {
    pub(crate) layers: Vec<DiffId>,
    pub(crate) result: Result<(), RegistryError>,
}

impl LayerSpec {
    /// Refuses media types that are not those of a layer, and those that may not be distributed.
    pub(super) fn new(
        endpoint: &Endpoint,
        blob: Descriptor,
        diff_id: DiffId,
    ) -> Result<Self, RegistryError> {
        let media_type = blob.media_type.clone();
        let refuse = |problem: &str| {
            let media_type: String = media_type.chars().take(120).collect();
            Err(RegistryError::Unsupported {
                asked: endpoint.asked(format!("layer {}", blob.digest)),
                problem: format!("its media type is `{}`{problem}", media_type.escape_debug()),
            })
        };
        let plain = match media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => true,
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => false,
            other if other.contains("nondistributable") || other.contains("foreign") => {
                return refuse(
                    ", whose content the registry does not have; it must be got from its vendor",
                );
            }
            _ => return refuse(", which is not that of a layer"),
        };
        if plain && blob.digest != diff_id.0 {
            return refuse(", but the config says that it unpacks to something else");
        }
        Ok(Self { blob, diff_id })
    }
}

impl Inner {
    /// Fetches what the store does not have, then makes it visible, base first.
    pub(crate) async fn pull_layers(
        &self,
        store: &Arc<ImageStore>,
        sources: &[&Endpoint],
        layers: &[LayerSpec],
        reference: &Reference,
        report: Report<'_>,
    ) -> Added {
        let mut added = Added { layers: Vec::new(), result: Ok(()) };
        let stored = |source| RegistryError::store(reference, source);
        let mut pending = match self.fetch(store, sources, layers, &stored, report).await {
            Ok(pending) => pending,
            Err(error) => return Added { result: Err(error), ..added },
        };
        kiln_failpoint::pass("pull.fetched");
        let mut below = Vec::with_capacity(layers.len());
        for layer in layers {
            if let Some(pending) = pending.remove(&layer.diff_id) {
                added.layers.push(layer.diff_id);
                if let Err(error) = store.finish_layer(pending, &below).await {
                    return Added { result: Err(stored(error)), ..added };
                }
                kiln_failpoint::pass("pull.layer-made");
                if let Err(error) = store.remember_blob(&layer.blob.digest, &layer.diff_id).await {
                    return Added { result: Err(stored(error)), ..added };
                }
            }
            below.push(layer.diff_id);
        }
        added
    }

    async fn fetch(
        &self,
        store: &Arc<ImageStore>,
        sources: &[&Endpoint],
        layers: &[LayerSpec],
        stored: &(dyn Fn(ImagesError) -> RegistryError + Send + Sync),
        report: Report<'_>,
    ) -> Result<HashMap<DiffId, PendingLayer>, RegistryError> {
        let mut missing: Vec<&LayerSpec> = Vec::new();
        for layer in layers {
            let known = store.known_blob(&layer.blob.digest).await.map_err(stored)?;
            if known.is_some_and(|known| known != layer.diff_id) {
                return Err(stored(ImagesError::WrongDiffId {
                    expected: layer.diff_id,
                    found: known.unwrap_or(layer.diff_id),
                }));
            }
            if store.has_layer(&layer.diff_id).await.map_err(stored)? {
                report(PullProgress::LayerPresent { layer: layer.blob.digest });
            } else if !missing.iter().any(|other| other.diff_id == layer.diff_id) {
                missing.push(layer);
            }
        }
        let cancel = CancellationToken::new();
        // A list, since with a closure that is called later a caller's task could not change threads.
        let mut fetches = Vec::with_capacity(missing.len());
        for layer in missing {
            let cancel = &cancel;
            fetches.push(async move {
                let result = self.fetch_layer(store, sources, layer, stored, cancel, report).await;
                if result.is_err() {
                    cancel.cancel();
                }
                result.map(|pending| (layer.diff_id, pending))
            });
        }
        // All are waited for, also after a failure: then nothing is written any more.
        let results: Vec<_> = stream::iter(fetches).buffer_unordered(PARALLEL).collect().await;
        let (pending, mut errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let first = errors.iter().position(|error| !matches!(error, Err(RegistryError::Cancelled)));
        if let Some(Err(error)) = first.map(|first| errors.swap_remove(first)) {
            return Err(error);
        }
        Ok(pending.into_iter().flatten().collect())
    }

    /// One layer, from the first source that has the right bytes.
    async fn fetch_layer(
        &self,
        store: &Arc<ImageStore>,
        sources: &[&Endpoint],
        layer: &LayerSpec,
        stored: &(dyn Fn(ImagesError) -> RegistryError + Send + Sync),
        cancel: &CancellationToken,
        report: Report<'_>,
    ) -> Result<PendingLayer, RegistryError> {
        let mut sources = sources;
        loop {
            let error = match self.fetch_once(store, sources, layer, stored, cancel, report).await {
                Ok(pending) => {
                    report(PullProgress::LayerDone { layer: layer.blob.digest });
                    return Ok(pending);
                }
                Err(error) => error,
            };
            // Sources that do not answer are passed over on the way; this is one that lied.
            let lied = matches!(
                error,
                RegistryError::WrongDigest { .. }
                    | RegistryError::TooLarge { .. }
                    | RegistryError::Store { .. }
            );
            match sources {
                [first, rest @ ..] if !rest.is_empty() && lied && error.blames_source() => {
                    let source = first.key.clone();
                    report(PullProgress::SourceFailed { source, reason: error.one_line() });
                    sources = rest;
                }
                _ => return Err(error),
            }
        }
    }

    async fn fetch_once(
        &self,
        store: &Arc<ImageStore>,
        sources: &[&Endpoint],
        layer: &LayerSpec,
        stored: &(dyn Fn(ImagesError) -> RegistryError + Send + Sync),
        cancel: &CancellationToken,
        report: Report<'_>,
    ) -> Result<PendingLayer, RegistryError> {
        if cancel.is_cancelled() {
            return Err(RegistryError::Cancelled);
        }
        let (sender, reader) = feed();
        let (target, expected) = (Arc::clone(store), layer.diff_id);
        let ingest =
            tokio::task::spawn_blocking(move || target.ingest(Box::new(reader), Some(expected)));
        let fed = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(RegistryError::Cancelled),
            fed = self.feed_blob(sources, &layer.blob, &sender, report) => fed,
        };
        drop(sender);
        let ingested = match ingest.await {
            Ok(result) => result.map_err(stored),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(stored(ImagesError::ShuttingDown)),
            },
        };
        match fed? {
            Fed::Whole => ingested,
            // The archive was refused before its end.
            Fed::Refused => match ingested {
                Err(error) => Err(error),
                Ok(_) => Err(RegistryError::Cancelled),
            },
        }
    }
}
