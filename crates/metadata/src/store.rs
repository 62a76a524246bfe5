//! The interface of a metadata store.

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use kiln_types::{BuildId, DiffId, Digest, ImageName, SandboxId, StepKey};

use crate::{
    ApiKeyRecord, BasePin, BuildRecord, ImageRecord, LayerRecord, MetadataError, SandboxRecord,
    SnapshotRecord, StepRecord, StepUse, TemplateDefaults, Verified,
};

type Result<T> = std::result::Result<T, MetadataError>;

/// All that Kiln must remember. Each call is one transaction; a write that returned is durable.
///
/// `put_*` inserts or replaces by primary key; `get_*` answers `None` for what is not there; `list_*`
/// is newest first, `remove_*` of what is not there is no error and answers whether it was.
///
/// Order: sandboxes, builds and snapshots by id, which is by time; layers, images and keys in the order
/// in which they were first put, which replacing them does not change. A cursor is the last item of the
/// page before. Rows that are inserted or removed between pages make no other row appear twice or not
/// at all. Where a cursor's own row must be there still (an image's digest, a snapshot's name) and is
/// not, the answer is `UnknownCursor`.
///
/// References: an image's layers, and the image of a name, pin, sandbox or snapshot, must have rows
/// (`LayerMissing`, `ImageMissing`), and cannot be removed while they are needed (`LayerInUse`,
/// `ImageInUse`). Checks and changes are one transaction, so a race between the two ends in an error.
#[async_trait]
pub trait MetadataStore: Send + Sync + fmt::Debug {
    /// Inserts or replaces a layer.
    async fn put_layer(&self, layer: &LayerRecord) -> Result<()>;
    /// One layer.
    async fn get_layer(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>>;
    /// Several layers, in the order in which they are asked for; those that are not there are left out.
    async fn get_layers(&self, diff_ids: &[DiffId]) -> Result<Vec<LayerRecord>>;
    /// Removes a layer and the step results that name it; `LayerInUse` when an image has it.
    async fn remove_layer(&self, diff_id: &DiffId) -> Result<bool>;
    /// All layers.
    async fn list_layers(&self) -> Result<Vec<LayerRecord>>;
    /// The layers that no image has and no step made.
    async fn list_unused_layers(&self) -> Result<Vec<LayerRecord>>;
    /// Remembers which diffID a compressed layer blob of a registry inflates to.
    async fn put_blob_diff_id(&self, compressed: &Digest, diff_id: &DiffId) -> Result<()>;
    /// The diffID of a compressed layer blob, if it was ever pulled.
    async fn get_blob_diff_id(&self, compressed: &Digest) -> Result<Option<DiffId>>;

    /// Inserts or replaces an image and, in the same transaction, points `name` at it with the image's
    /// defaults; `NameInUse` when the name is a snapshot's, which is for good, `LayerMissing` when one
    /// of its layers has no row.
    async fn put_image(&self, image: &ImageRecord, name: Option<&ImageName>) -> Result<()>;
    /// One image by digest.
    async fn get_image(&self, digest: &Digest) -> Result<Option<ImageRecord>>;
    /// The newest image that a build with this definition key made.
    async fn find_image_by_definition(&self, key: &Digest) -> Result<Option<ImageRecord>>;
    /// What a name points to.
    async fn resolve_name(&self, name: &ImageName) -> Result<Option<Digest>>;
    /// What a name points to, and the resource defaults that go with the name.
    async fn resolve_template(
        &self,
        name: &ImageName,
    ) -> Result<Option<(Digest, TemplateDefaults)>>;
    /// [`put_name`](Self::put_name), with the resource defaults that go with the name from now on.
    async fn put_template(
        &self,
        name: &ImageName,
        image: &Digest,
        defaults: TemplateDefaults,
    ) -> Result<()>;
    /// Points a name, without defaults, at an image; `NameInUse` when the name is a snapshot's of
    /// another image.
    async fn put_name(&self, name: &ImageName, image: &Digest) -> Result<()>;
    /// Removes a name.
    async fn remove_name(&self, name: &ImageName) -> Result<bool>;
    /// The names of an image, sorted.
    async fn names_of(&self, image: &Digest) -> Result<Vec<ImageName>>;
    /// Images, newest first, after `cursor` (a digest of the page before).
    async fn list_images(&self, cursor: Option<&Digest>, limit: u32) -> Result<Vec<ImageRecord>>;
    /// Images with their places in that list, newest first: those below `place`. A place is an image's
    /// own for as long as it is there, so a list by places goes on whatever was removed meanwhile.
    async fn list_images_below(
        &self,
        place: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, ImageRecord)>>;
    /// Removes an image and all its names, and base pins that lead to it; `ImageInUse` when
    /// [`users_of_image`](Self::users_of_image) has any.
    async fn remove_image(&self, digest: &Digest) -> Result<bool>;
    /// Ids of the sandboxes (in any state) and names of the snapshots that need an image, sorted.
    /// Images that stand on the same layers are not users: layers are shared, and each image holds
    /// its own.
    async fn users_of_image(&self, digest: &Digest) -> Result<Vec<String>>;

    /// Inserts or replaces a step's result; `LayerMissing` when its layer has no row.
    async fn put_step(&self, step: &StepRecord) -> Result<()>;
    /// A step's result.
    async fn get_step(&self, key: &StepKey) -> Result<Option<StepRecord>>;
    /// Removes the results that name a layer (because it is gone).
    async fn remove_steps_of_layer(&self, layer: &DiffId) -> Result<u64>;
    /// Pins a base.
    async fn put_base_pin(&self, pin: &BasePin) -> Result<()>;
    /// What a base is pinned to.
    async fn get_base_pin(&self, base: &str) -> Result<Option<BasePin>>;

    /// Inserts or replaces a build.
    async fn put_build(&self, build: &BuildRecord) -> Result<()>;
    /// One build.
    async fn get_build(&self, id: &BuildId) -> Result<Option<BuildRecord>>;
    /// Builds, newest first, after `cursor`.
    async fn list_builds(&self, cursor: Option<&BuildId>, limit: u32) -> Result<Vec<BuildRecord>>;
    /// Builds that are `running` by their row (after a crash: that were).
    async fn list_running_builds(&self) -> Result<Vec<BuildRecord>>;

    /// Inserts a sandbox and makes its slot its own, in one transaction; `NameInUse` when its name is
    /// taken, `ImageMissing` when its image was removed, `SlotInUse` when its slot is another's.
    async fn insert_sandbox(&self, sandbox: &SandboxRecord) -> Result<()>;
    /// Replaces a sandbox's row; `SandboxMissing` when it was removed (so that who updates and who
    /// removes cannot both believe they were last). A slot that it no longer names is free again.
    async fn update_sandbox(&self, sandbox: &SandboxRecord) -> Result<()>;
    /// One sandbox.
    async fn get_sandbox(&self, id: &SandboxId) -> Result<Option<SandboxRecord>>;
    /// One sandbox by name.
    async fn find_sandbox(&self, name: &str) -> Result<Option<SandboxRecord>>;
    /// Sandboxes, newest first, after `cursor`.
    async fn list_sandboxes(
        &self,
        cursor: Option<&SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxRecord>>;
    /// Removes a sandbox and frees its slot, in one transaction.
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<bool>;

    /// Reserves a free slot below `count` and gives its number. It stays reserved until it is
    /// released, or until the sandbox whose row has it is removed. The lowest free one is taken.
    ///
    /// A reservation alone outlives the daemon but not a power failure, after which nothing that used
    /// it is left either; once a sandbox's row has the slot, that is durable.
    async fn reserve_slot(&self, count: u32) -> Result<u32>;
    /// Frees a reserved slot, unless a sandbox has it.
    async fn release_slot(&self, slot: u32) -> Result<()>;
    /// Frees every slot that no sandbox has (at daemon start).
    async fn release_unused_slots(&self) -> Result<u32>;

    /// Inserts a snapshot and points its name (an [`ImageName`]) at its image, with the defaults of the
    /// image; `NameInUse` when a
    /// snapshot has the name or it is another image's, `InvalidName` when an image cannot have it.
    async fn insert_snapshot(&self, snapshot: &SnapshotRecord) -> Result<()>;
    /// One snapshot by name; `dev` and `dev:latest` are the same.
    async fn find_snapshot(&self, name: &str) -> Result<Option<SnapshotRecord>>;
    /// Snapshots, newest first, after `cursor` (a snapshot's name).
    async fn list_snapshots(&self, cursor: Option<&str>, limit: u32)
    -> Result<Vec<SnapshotRecord>>;
    /// Removes a snapshot and its image name, not the image.
    async fn remove_snapshot(&self, name: &str) -> Result<bool>;

    /// All names of images and what they point to, by name.
    async fn list_names(&self) -> Result<Vec<(ImageName, Digest)>>;
    /// All results of steps.
    async fn list_steps(&self) -> Result<Vec<StepUse>>;
    /// All pins of bases, and when each was last of use.
    async fn list_base_pins(&self) -> Result<Vec<(BasePin, Option<Timestamp>)>>;
    /// Notes that results were of use just now. Not durable by itself, and to about an hour.
    async fn touch_steps(&self, keys: &[StepKey]) -> Result<()>;
    /// The same of a pin.
    async fn touch_base_pin(&self, base: &str) -> Result<()>;
    /// Removes results of steps; answers how many there were.
    async fn remove_steps(&self, keys: &[StepKey]) -> Result<u64>;
    /// Removes a build that does not run.
    async fn remove_build(&self, id: &BuildId) -> Result<bool>;
    /// Remembers that an image and its layers came from `reference`, which has the digest of a manifest.
    /// What has no row (any more) is passed over.
    async fn put_source(&self, image: &Digest, layers: &[DiffId], reference: &str) -> Result<()>;
    /// Where an image was pulled from.
    async fn get_image_source(&self, image: &Digest) -> Result<Option<String>>;
    /// Where a layer was pulled from: a reference of an image that has it.
    async fn get_layer_source(&self, layer: &DiffId) -> Result<Option<String>>;
    /// Makes anew what the database only keeps to find rows by. Repairs nothing else.
    async fn rebuild_indexes(&self) -> Result<()>;
    /// Removes one row of a table whose rows are only there to save work, or its traces if it is gone.
    /// Table and key are those of [`Damage::subject`](crate::Damage).
    async fn drop_row(&self, table: &str, key: &str) -> Result<()>;
    /// Reads everything there is and holds it against what was written.
    async fn verify(&self) -> Result<Verified>;

    /// Inserts an API key.
    async fn put_api_key(&self, key: &ApiKeyRecord) -> Result<()>;
    /// All API keys.
    async fn list_api_keys(&self) -> Result<Vec<ApiKeyRecord>>;
}
