//! Named snapshots: a sandbox's disk, saved as an image.

use std::sync::Arc;

use jiff::Timestamp;
use kiln_images::{ImageStore, ImagesError, NewImage};
use kiln_metadata::{ImageRecord, MetadataError, MetadataStore, SnapshotRecord, TemplateDefaults};
use kiln_roots::Roots;
use kiln_types::api::{CreateSnapshot, Page, SnapshotInfo, SnapshotStatus};
use kiln_types::{DiffId, ErrorCode, ImageName, SnapshotId};

use crate::extract::shorten;
use crate::page::{PageQuery, page};
use crate::problem::ApiError;
use crate::removal;
use crate::sandboxes::Sandboxes;

const ROWS_AT_ONCE: u32 = 500;

/// All snapshots of this daemon.
#[derive(Debug)]
pub(crate) struct Snapshots {
    images: Arc<ImageStore>,
    roots: Arc<Roots>,
    sandboxes: Arc<Sandboxes>,
}

impl Snapshots {
    pub(crate) fn new(
        images: Arc<ImageStore>,
        roots: Arc<Roots>,
        sandboxes: Arc<Sandboxes>,
    ) -> Arc<Self> {
        Arc::new(Self { images, roots, sandboxes })
    }

    /// Saves a sandbox's disk. After a failure nothing of it is left, and the sandbox is as before.
    pub(crate) async fn create(
        self: &Arc<Self>,
        request: CreateSnapshot,
    ) -> Result<SnapshotInfo, ApiError> {
        let name: ImageName = request
            .name
            .parse()
            .map_err(|error| ApiError::of(ErrorCode::InvalidReference, &error))?;
        let this = Arc::clone(self);
        let work = async move { this.create_now(request, name).await };
        self.sandboxes.detached(work).await
    }

    async fn create_now(
        &self,
        request: CreateSnapshot,
        name: ImageName,
    ) -> Result<SnapshotInfo, ApiError> {
        self.check_name(&request.name, &name).await?;
        let disk = self.sandboxes.seal(&request.sandbox).await?;
        kiln_failpoint::pass("snapshot.sealed");
        // Sandboxes of the snapshot get what its source had.
        let limits = disk.sandbox.limits;
        let defaults = TemplateDefaults { vcpu: limits.vcpu, memory_mib: limits.memory_mib };
        let mut record = SnapshotRecord {
            id: SnapshotId::new(),
            name: request.name,
            status: SnapshotStatus::Ready,
            image: disk.image.digest,
            sandbox: disk.sandbox.id,
            layer_size: 0,
            skipped_sockets: disk.sealed.skipped_sockets,
            created_at: Timestamp::now(),
        };
        // A sandbox that has changed nothing is its image.
        let Some(sealed) = &disk.sealed.layer else {
            self.enter(&record, &name, defaults).await?;
            return Ok(info(record));
        };
        record.layer_size = sealed.record.size;
        let mut layers = disk.image.layers.clone();
        layers.push(sealed.record.diff_id);
        let kept = self.keep(&disk.image, layers.clone(), &name, defaults, &mut record).await;
        let added = sealed.record.diff_id;
        drop(disk);
        if let Err(error) = kept {
            removal::discard_layers(&self.images, &self.roots, &layers, &[added]).await;
            return Err(error);
        }
        kiln_build::make_ready(&self.images, &self.roots, &layers).await;
        tracing::info!(snapshot = %record.id, sandbox = %record.sandbox, "snapshot taken");
        Ok(info(record))
    }

    /// Makes the image, then the row.
    async fn keep(
        &self,
        base: &ImageRecord,
        layers: Vec<DiffId>,
        name: &ImageName,
        defaults: TemplateDefaults,
        record: &mut SnapshotRecord,
    ) -> Result<(), ApiError> {
        let mut created_by = vec![String::new(); base.layers.len()];
        created_by.push(format!("kiln snapshot of {}", record.sandbox));
        let image = self
            .images
            .commit_image(NewImage {
                config: self.images.config(base).await?,
                layers,
                name: None,
                definition_key: None,
                defaults,
                created_by,
            })
            .await?;
        record.image = image.digest;
        kiln_failpoint::pass("snapshot.image-made");
        if let Err(error) = self.enter(record, name, defaults).await {
            self.remove_unneeded(&image).await;
            return Err(error);
        }
        Ok(())
    }

    /// Writes the row, and the defaults that go with its name; both or nothing.
    async fn enter(
        &self,
        record: &SnapshotRecord,
        name: &ImageName,
        defaults: TemplateDefaults,
    ) -> Result<(), ApiError> {
        self.metadata().insert_snapshot(record).await?;
        kiln_failpoint::pass("snapshot.recorded");
        if let Err(error) = self.images.put_template(name, &record.image, defaults).await {
            self.metadata().remove_snapshot(&record.name).await?;
            return Err(error.into());
        }
        Ok(())
    }

    /// One page of all snapshots, newest first.
    pub(crate) async fn list(&self, query: &PageQuery) -> Result<Page<SnapshotInfo>, ApiError> {
        let (limit, cursor) = (query.limit()?, query.cursor::<SnapshotId>()?);
        let cursor = cursor.map(|id| id.to_string());
        let rows = self.metadata().list_snapshots(cursor.as_deref(), limit + 1).await?;
        let rows = page(rows, limit, |row| row.id.to_string());
        Ok(Page { items: rows.items.into_iter().map(info).collect(), next: rows.next })
    }

    /// One snapshot by id or name.
    pub(crate) async fn get(&self, snapshot: &str) -> Result<SnapshotInfo, ApiError> {
        self.find(snapshot).await.map(info)
    }

    /// Removes a snapshot, and its image when nothing else needs it.
    pub(crate) async fn remove(self: &Arc<Self>, snapshot: &str) -> Result<(), ApiError> {
        let record = self.find(snapshot).await?;
        let this = Arc::clone(self);
        let work = async move {
            if !this.metadata().remove_snapshot(&record.name).await? {
                return Err(not_found(&record.name));
            }
            kiln_failpoint::pass("snapshot.unrecorded");
            if let Some(image) = this.metadata().get_image(&record.image).await? {
                this.remove_unneeded(&image).await;
            }
            tracing::info!(snapshot = %record.id, "snapshot removed");
            Ok(())
        };
        self.sandboxes.detached(work).await
    }

    async fn find(&self, snapshot: &str) -> Result<SnapshotRecord, ApiError> {
        let Ok(id) = snapshot.parse::<SnapshotId>() else {
            let row = self.metadata().find_snapshot(snapshot).await?;
            return row.ok_or_else(|| not_found(snapshot));
        };
        let mut cursor: Option<String> = None;
        loop {
            let rows = self.metadata().list_snapshots(cursor.as_deref(), ROWS_AT_ONCE).await?;
            if let Some(row) = rows.iter().find(|row| row.id == id) {
                return Ok(row.clone());
            }
            // Ids are ordered by time and so is the list: what is older comes later.
            match rows.last().filter(|row| row.id > id) {
                Some(row) => cursor = Some(row.id.to_string()),
                None => return Err(not_found(snapshot)),
            }
        }
    }

    /// A snapshot's name is an image's name too, and takes it from nobody.
    async fn check_name(&self, text: &str, name: &ImageName) -> Result<(), ApiError> {
        if text.starts_with("snp_") {
            let detail = format!(
                "`{text}` cannot be a snapshot's name: names that begin with `snp_` are ids"
            );
            return Err(
                ApiError::new(ErrorCode::InvalidReference, detail).hint("choose another name")
            );
        }
        let metadata = self.metadata();
        let hint = "choose another name, or remove what has it";
        if metadata.find_snapshot(text).await?.is_some() {
            let error = MetadataError::NameInUse { what: "a snapshot", name: text.to_owned() };
            return Err(ApiError::from(error).hint(hint));
        }
        if metadata.resolve_name(name).await?.is_some() {
            let error = MetadataError::NameInUse { what: "an image", name: text.to_owned() };
            return Err(ApiError::from(error).hint(hint));
        }
        Ok(())
    }

    /// Removes an image that has no name and no user; what cannot be removed now does no harm.
    async fn remove_unneeded(&self, image: &ImageRecord) {
        let digest = image.digest;
        match self.metadata().names_of(&digest).await {
            Ok(names) if names.is_empty() => {}
            _ => return,
        }
        match removal::remove_image(&self.images, &self.roots, &digest.to_string()).await {
            Ok(_) | Err(ImagesError::InUse { .. }) => {}
            Err(error) => {
                tracing::warn!(%digest, error = %crate::problem::chain(&error), "an image that nothing needs is left");
            }
        }
    }

    fn metadata(&self) -> &Arc<dyn MetadataStore> {
        self.images.metadata()
    }
}

fn info(record: SnapshotRecord) -> SnapshotInfo {
    SnapshotInfo {
        id: record.id,
        name: record.name,
        status: record.status,
        image: record.image,
        sandbox: record.sandbox,
        layer_size: record.layer_size,
        skipped_sockets: record.skipped_sockets,
        created_at: record.created_at,
    }
}

fn not_found(snapshot: &str) -> ApiError {
    ApiError::new(
        ErrorCode::SnapshotNotFound,
        format!("no snapshot is called `{}`", shorten(snapshot)),
    )
    .hint("`kiln snapshots` lists the snapshots there are")
}
