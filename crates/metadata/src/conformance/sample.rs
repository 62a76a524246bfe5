//! Records to fill a store with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kiln_types::api::{BuildStatus, ResourceLimits, SandboxStatus, SnapshotStatus};
use kiln_types::{
    Base, BuildId, DiffId, Digest, ImageDefinition, ImageName, RunCommand, SandboxId, SnapshotId,
    Step,
};

use crate::{
    BuildRecord, ImageRecord, LayerRecord, MetadataStore, SandboxRecord, SnapshotRecord,
    TemplateDefaults,
};

/// A time with all nine fractional digits, `second` seconds after others.
///
/// # Panics
/// When `second` is beyond the year 9999.
pub fn time(second: i64) -> Timestamp {
    Timestamp::new(1_790_000_000 + second, 123_456_789).expect("a time of this century")
}

/// The diffID of a layer by any name.
pub fn diff_id(name: &str) -> DiffId {
    DiffId(Digest::of(format!("layer {name}")))
}

/// A layer.
pub fn layer(name: &str) -> LayerRecord {
    LayerRecord {
        diff_id: diff_id(name),
        size: 1 << 33,
        needs_parents: name.len().is_multiple_of(2),
    }
}

/// An image with these layers.
pub fn image(name: &str, layers: &[&str]) -> ImageRecord {
    ImageRecord {
        digest: Digest::of(format!("image {name}")),
        manifest_size: 700,
        config_digest: Digest::of(format!("config {name}")),
        config_size: 1500,
        layers: layers.iter().map(|layer| diff_id(layer)).collect(),
        definition_key: None,
        defaults: TemplateDefaults::default(),
        created_at: time(0),
    }
}

/// Stores an image with one layer and gives its digest.
///
/// # Panics
/// When the store fails.
pub async fn stored_image(store: &dyn MetadataStore, name: &str) -> Digest {
    store.put_layer(&layer(name)).await.expect("put layer");
    let image = image(name, &[name]);
    store.put_image(&image, None).await.expect("put image");
    image.digest
}

/// The name of an image.
///
/// # Panics
/// When it is none.
pub fn name(text: &str) -> ImageName {
    text.parse().expect("a name")
}

/// A running build.
pub fn build() -> BuildRecord {
    BuildRecord {
        id: BuildId::new(),
        status: BuildStatus::Running,
        name: None,
        definition: ImageDefinition {
            base: Base::Catalog("debian-12".into()),
            steps: vec![Step::Run { command: RunCommand::Shell("printf 'a\nb' > /c".into()) }],
        },
        definition_key: None,
        image: None,
        steps_cached: 0,
        failure: None,
        created_at: time(1),
        finished_at: None,
    }
}

/// A sandbox without name and slot.
pub fn sandbox(image: &Digest) -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::new(),
        name: None,
        status: SandboxStatus::Starting,
        image: "debian-12".into(),
        image_digest: *image,
        env: BTreeMap::new(),
        limits: ResourceLimits {
            vcpu: Some(1),
            memory_mib: Some(512),
            pids: Some(1024),
            disk_mib: None,
        },
        slot: None,
        address: None,
        reason: None,
        driver: "native".into(),
        created_at: time(2),
    }
}

/// A snapshot that is ready.
pub fn snapshot(name: &str, image: &Digest) -> SnapshotRecord {
    SnapshotRecord {
        id: SnapshotId::new(),
        name: name.into(),
        status: SnapshotStatus::Ready,
        image: *image,
        sandbox: SandboxId::new(),
        layer_size: 12_345_678_901,
        skipped_sockets: 2,
        created_at: time(3),
    }
}
