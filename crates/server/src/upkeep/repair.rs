//! The repair of what `fsck` found: first all that is damaged is put out of use, then what a registry
//! has is fetched, then what depends on it is made again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_images::{ImageStore, Repaired};
use kiln_registry::{PullProgress, RegistryClient};
use kiln_roots::{LayerMounts, LayerSource, UpperStore};
use kiln_types::api::{Finding, FindingKind, FsckReport, Repair};
use kiln_types::{Digest, Reference};

use super::walk;
use crate::problem::chain;

/// What repairs need besides the store; what is absent is not there without a daemon.
pub(super) struct Tools {
    pub(super) images: Arc<ImageStore>,
    pub(super) data_dir: PathBuf,
    pub(super) registry: Option<RegistryClient>,
    pub(super) uppers: Option<Arc<dyn UpperStore>>,
    pub(super) mounts: Option<Arc<dyn LayerMounts>>,
}

/// A blob that is to be fetched: which finding it is of, where its damaged file went.
struct Wanted {
    finding: usize,
    digest: Digest,
    aside: Option<PathBuf>,
}

impl Tools {
    /// Repairs what the report speaks of, and writes into it what came of each.
    pub(super) async fn repair(&self, report: &mut FsckReport) {
        let mut wanted: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
        let first = |kind| {
            matches!(
                kind,
                FindingKind::BlobDamaged | FindingKind::BlobMissing | FindingKind::BlobUnreadable
            )
        };
        for (number, finding) in report.findings.iter_mut().enumerate() {
            if !first(finding.kind) {
                continue;
            }
            match self.images.repair(finding).await {
                Ok(Repaired::Done(repair)) => finding.repair = Some(repair),
                Ok(Repaired::Fetch { reference, aside, digest }) => {
                    wanted.entry(reference).or_default().push(Wanted {
                        finding: number,
                        digest,
                        aside,
                    });
                }
                Err(error) => finding.repair = Some(not(chain(&error))),
            }
        }
        for (reference, wanted) in wanted {
            let problem = self.fetch(&reference).await.err();
            for Wanted { finding, digest, aside } in wanted {
                let finding = &mut report.findings[finding];
                let settled = self
                    .images
                    .settle_repair(finding, digest, &reference, aside, problem.clone())
                    .await;
                finding.repair = Some(settled.unwrap_or_else(|error| not(chain(&error))));
            }
        }
        for finding in report.findings.iter_mut().filter(|finding| finding.repair.is_none()) {
            finding.repair = Some(self.other(finding).await);
        }
        self.forget(report).await;
        let repairs = report.findings.iter().filter_map(|finding| finding.repair.as_ref());
        report.bytes_removed = repairs.map(|repair| repair.bytes_removed).sum();
    }

    /// Pulls an image by digest; one that was not here is not here afterwards either.
    async fn fetch(&self, reference: &str) -> Result<(), String> {
        let Some(registry) = &self.registry else {
            return Err(
                "registries are only reached by the daemon; start it and repair again".into()
            );
        };
        let parsed: Reference = reference.parse().map_err(|error| chain(&error))?;
        let known = match parsed.digest() {
            Some(digest) => self.images.metadata().get_image(digest).await.ok().flatten().is_some(),
            None => false,
        };
        let progress = |event: PullProgress| tracing::debug!(%event, "pull for a repair");
        let pulled = registry.pull(&self.images, &parsed, None, &progress).await;
        let image = pulled.map_err(|error| chain(&error))?;
        if !known && let Err(error) = self.images.remove_image(&image.digest.to_string()).await {
            tracing::warn!(error = chain(&error), "an image that a repair has pulled is left");
        }
        Ok(())
    }

    async fn other(&self, finding: &Finding) -> Repair {
        match finding.kind {
            FindingKind::UpperUnreferenced => self.remove_upper(finding).await,
            FindingKind::LogUnreferenced => {
                let Some(path) = &finding.path else { return not("it has no path") };
                remove_tree(&self.data_dir.join(path)).await
            }
            FindingKind::UpperMissing => {
                not(format!("remove the sandbox with `kiln rm {}`", finding.subject))
            }
            FindingKind::UnpackedDamaged => self.unpack_again(finding).await,
            _ => match self.images.repair(finding).await {
                Ok(Repaired::Done(repair)) => repair,
                Ok(Repaired::Fetch { .. }) => not("it has to be fetched"),
                Err(error) => not(chain(&error)),
            },
        }
    }

    async fn remove_upper(&self, finding: &Finding) -> Repair {
        let Some(uppers) = self.uppers.clone() else {
            return not("the daemon removes it when it starts");
        };
        let id = finding.subject.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let bytes = uppers.usage(&id).map_or(0, |usage| usage.bytes);
            uppers.remove(&id).map(|_| bytes)
        });
        match removed.await {
            Ok(Ok(bytes)) => yes("removed", bytes),
            Ok(Err(error)) => not(chain(&error)),
            Err(error) => not(chain(&error)),
        }
    }

    async fn unpack_again(&self, finding: &Finding) -> Repair {
        let Some(mounts) = self.mounts.clone() else { return not("no daemon runs") };
        if !finding.affects.sandboxes.is_empty() {
            return not("stop the sandboxes that use it, and repair again");
        }
        let Some(path) = &finding.path else { return not("it has no path") };
        let index = self.data_dir.join(path);
        let forgotten = tokio::task::spawn_blocking(move || {
            let bytes = mounts.bytes(&index).unwrap_or_default();
            mounts.forget(&index).map(|()| bytes)
        });
        match forgotten.await {
            Ok(Ok(bytes)) => yes("removed; it is laid out again when it is needed", bytes),
            Ok(Err(error)) => not(chain(&error)),
            Err(error) => not(chain(&error)),
        }
    }

    /// Lets go of mounts of files that are others now.
    async fn forget(&self, report: &FsckReport) {
        let Some(mounts) = self.mounts.as_ref().filter(|mounts| mounts.mode() == "erofs") else {
            return;
        };
        let replaced = |finding: &&Finding| {
            finding.repair.as_ref().is_some_and(|repair| repair.repaired)
                && !matches!(finding.kind, FindingKind::FileForeign | FindingKind::FileTemporary)
        };
        for finding in report.findings.iter().filter(replaced) {
            for image in &finding.affects.images {
                for layer in self.sources(image).await {
                    let mounts = Arc::clone(mounts);
                    let forgotten =
                        tokio::task::spawn_blocking(move || mounts.forget(&layer.index)).await;
                    if let Ok(Err(error)) = forgotten {
                        tracing::warn!(
                            error = chain(&error),
                            "a mount of a repaired layer is kept"
                        );
                    }
                }
            }
        }
    }

    async fn sources(&self, image: &str) -> Vec<LayerSource> {
        sources(&self.images, image).await
    }
}

/// The layers of an image as they are mounted; none if they are not whole.
pub(super) async fn sources(images: &ImageStore, image: &str) -> Vec<LayerSource> {
    let Ok(digest) = image.parse::<Digest>() else { return Vec::new() };
    let Ok(Some(record)) = images.metadata().get_image(&digest).await else { return Vec::new() };
    let layers = images.prove_layers(&record.layers).await.unwrap_or_default();
    layers
        .into_iter()
        .map(|layer| LayerSource { index: layer.index, devices: layer.devices })
        .collect()
}

async fn remove_tree(path: &Path) -> Repair {
    let path = path.to_owned();
    let removed = tokio::task::spawn_blocking(move || {
        let bytes = walk::bytes(&path);
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map(|()| bytes)
    });
    match removed.await {
        Ok(Ok(bytes)) => yes("removed", bytes),
        Ok(Err(error)) => not(chain(&error)),
        Err(error) => not(chain(&error)),
    }
}

fn yes(detail: impl Into<String>, bytes_removed: u64) -> Repair {
    Repair { repaired: true, detail: detail.into(), bytes_removed }
}

fn not(detail: impl Into<String>) -> Repair {
    Repair { repaired: false, detail: detail.into(), bytes_removed: 0 }
}
