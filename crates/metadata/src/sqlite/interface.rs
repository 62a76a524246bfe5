//! The interface, each call handed to the module of its table.

use async_trait::async_trait;
use jiff::Timestamp;
use kiln_types::{BuildId, DiffId, Digest, ImageName, SandboxId, StepKey};

use super::{
    Result, SqliteStore, builds, images, keys, layers, names, sandboxes, slots, snapshots, steps,
    sums, whole,
};
use crate::{
    ApiKeyRecord, BasePin, BuildRecord, ImageRecord, LayerRecord, MetadataStore, SandboxRecord,
    SnapshotRecord, StepRecord, StepUse, TemplateDefaults, Verified,
};

#[async_trait]
impl MetadataStore for SqliteStore {
    async fn put_layer(&self, layer: &LayerRecord) -> Result<()> {
        layers::put(self, layer).await
    }

    async fn get_layer(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>> {
        layers::get(self, diff_id).await
    }

    async fn get_layers(&self, diff_ids: &[DiffId]) -> Result<Vec<LayerRecord>> {
        layers::get_all(self, diff_ids).await
    }

    async fn remove_layer(&self, diff_id: &DiffId) -> Result<bool> {
        layers::remove(self, diff_id).await
    }

    async fn list_layers(&self) -> Result<Vec<LayerRecord>> {
        layers::list(self).await
    }

    async fn list_unused_layers(&self) -> Result<Vec<LayerRecord>> {
        layers::list_unused(self).await
    }

    async fn put_blob_diff_id(&self, compressed: &Digest, diff_id: &DiffId) -> Result<()> {
        layers::put_blob_diff_id(self, compressed, diff_id).await
    }

    async fn get_blob_diff_id(&self, compressed: &Digest) -> Result<Option<DiffId>> {
        layers::get_blob_diff_id(self, compressed).await
    }

    async fn put_image(&self, image: &ImageRecord, name: Option<&ImageName>) -> Result<()> {
        images::put(self, image, name).await
    }

    async fn get_image(&self, digest: &Digest) -> Result<Option<ImageRecord>> {
        images::get(self, digest).await
    }

    async fn find_image_by_definition(&self, key: &Digest) -> Result<Option<ImageRecord>> {
        images::find_by_definition(self, key).await
    }

    async fn resolve_name(&self, name: &ImageName) -> Result<Option<Digest>> {
        Ok(names::resolve(self, name).await?.map(|(image, _)| image))
    }

    async fn put_name(&self, name: &ImageName, image: &Digest) -> Result<()> {
        names::put(self, name, image, TemplateDefaults::default()).await
    }

    async fn resolve_template(
        &self,
        name: &ImageName,
    ) -> Result<Option<(Digest, TemplateDefaults)>> {
        names::resolve(self, name).await
    }

    async fn put_template(
        &self,
        name: &ImageName,
        image: &Digest,
        defaults: TemplateDefaults,
    ) -> Result<()> {
        names::put(self, name, image, defaults).await
    }

    async fn remove_name(&self, name: &ImageName) -> Result<bool> {
        names::remove(self, name).await
    }

    async fn names_of(&self, image: &Digest) -> Result<Vec<ImageName>> {
        names::of_image(self, image).await
    }

    async fn list_images(&self, cursor: Option<&Digest>, limit: u32) -> Result<Vec<ImageRecord>> {
        images::list(self, cursor, limit).await
    }

    async fn list_images_below(
        &self,
        place: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, ImageRecord)>> {
        images::list_below(self, place, limit).await
    }

    async fn remove_image(&self, digest: &Digest) -> Result<bool> {
        images::remove(self, digest).await
    }

    async fn users_of_image(&self, digest: &Digest) -> Result<Vec<String>> {
        images::users(self, digest).await
    }

    async fn put_step(&self, step: &StepRecord) -> Result<()> {
        steps::put(self, step).await
    }

    async fn get_step(&self, key: &StepKey) -> Result<Option<StepRecord>> {
        steps::get(self, key).await
    }

    async fn remove_steps_of_layer(&self, layer: &DiffId) -> Result<u64> {
        steps::remove_of_layer(self, layer).await
    }

    async fn put_base_pin(&self, pin: &BasePin) -> Result<()> {
        steps::put_base_pin(self, pin).await
    }

    async fn get_base_pin(&self, base: &str) -> Result<Option<BasePin>> {
        steps::get_base_pin(self, base).await
    }

    async fn put_build(&self, build: &BuildRecord) -> Result<()> {
        builds::put(self, build).await
    }

    async fn get_build(&self, id: &BuildId) -> Result<Option<BuildRecord>> {
        builds::get(self, id).await
    }

    async fn list_builds(&self, cursor: Option<&BuildId>, limit: u32) -> Result<Vec<BuildRecord>> {
        builds::list(self, cursor, limit).await
    }

    async fn list_running_builds(&self) -> Result<Vec<BuildRecord>> {
        builds::list_running(self).await
    }

    async fn insert_sandbox(&self, sandbox: &SandboxRecord) -> Result<()> {
        sandboxes::insert(self, sandbox).await
    }

    async fn update_sandbox(&self, sandbox: &SandboxRecord) -> Result<()> {
        sandboxes::update(self, sandbox).await
    }

    async fn get_sandbox(&self, id: &SandboxId) -> Result<Option<SandboxRecord>> {
        sandboxes::get(self, id).await
    }

    async fn find_sandbox(&self, name: &str) -> Result<Option<SandboxRecord>> {
        sandboxes::find(self, name).await
    }

    async fn list_sandboxes(
        &self,
        cursor: Option<&SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxRecord>> {
        sandboxes::list(self, cursor, limit).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<bool> {
        sandboxes::remove(self, id).await
    }

    async fn reserve_slot(&self, count: u32) -> Result<u32> {
        slots::reserve(self, count).await
    }

    async fn release_slot(&self, slot: u32) -> Result<()> {
        slots::release(self, slot).await
    }

    async fn release_unused_slots(&self) -> Result<u32> {
        slots::release_unused(self).await
    }

    async fn insert_snapshot(&self, snapshot: &SnapshotRecord) -> Result<()> {
        snapshots::insert(self, snapshot).await
    }

    async fn find_snapshot(&self, name: &str) -> Result<Option<SnapshotRecord>> {
        snapshots::find(self, name).await
    }

    async fn list_snapshots(
        &self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Vec<SnapshotRecord>> {
        snapshots::list(self, cursor, limit).await
    }

    async fn remove_snapshot(&self, name: &str) -> Result<bool> {
        snapshots::remove(self, name).await
    }

    async fn list_names(&self) -> Result<Vec<(ImageName, Digest)>> {
        whole::names(self).await
    }

    async fn list_steps(&self) -> Result<Vec<StepUse>> {
        whole::steps(self).await
    }

    async fn list_base_pins(&self) -> Result<Vec<(BasePin, Option<Timestamp>)>> {
        whole::pins(self).await
    }

    async fn touch_steps(&self, keys: &[StepKey]) -> Result<()> {
        whole::touch_steps(self, keys).await
    }

    async fn touch_base_pin(&self, base: &str) -> Result<()> {
        whole::touch_pin(self, base).await
    }

    async fn remove_steps(&self, keys: &[StepKey]) -> Result<u64> {
        whole::remove_steps(self, keys).await
    }

    async fn remove_build(&self, id: &BuildId) -> Result<bool> {
        whole::remove_build(self, id).await
    }

    async fn put_source(&self, image: &Digest, layers: &[DiffId], reference: &str) -> Result<()> {
        whole::put_source(self, image, layers, reference).await
    }

    async fn get_image_source(&self, image: &Digest) -> Result<Option<String>> {
        whole::image_source(self, image).await
    }

    async fn get_layer_source(&self, layer: &DiffId) -> Result<Option<String>> {
        whole::layer_source(self, layer).await
    }

    async fn rebuild_indexes(&self) -> Result<()> {
        sums::rebuild_indexes(self).await
    }

    async fn drop_row(&self, table: &str, key: &str) -> Result<()> {
        sums::drop_row(self, table, key).await
    }

    async fn verify(&self) -> Result<Verified> {
        sums::verify(self).await
    }

    async fn put_api_key(&self, key: &ApiKeyRecord) -> Result<()> {
        keys::put(self, key).await
    }

    async fn list_api_keys(&self) -> Result<Vec<ApiKeyRecord>> {
        keys::list(self).await
    }
}
