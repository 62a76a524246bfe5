//! A store and a client of its own for each test.

use std::sync::{Arc, Mutex};

use kiln_images::ImageStore;
use kiln_metadata::{ImageRecord, MetadataStore, SqliteStore};
use kiln_registry::{PullProgress, RegistryClient, RegistryConfig, RegistryError};
use kiln_testkit::{Compression, ImageBuilder, Registry, TestImage, Tree};
use tempfile::TempDir;

pub(crate) struct Fixture {
    pub(crate) store: Arc<ImageStore>,
    pub(crate) dir: TempDir,
    pub(crate) progress: Mutex<Vec<PullProgress>>,
}

/// A configuration that speaks plain HTTP to these hosts and does not wait long.
pub(crate) fn config(hosts: &[&str]) -> RegistryConfig {
    RegistryConfig {
        plain_http: hosts.iter().map(ToString::to_string).collect(),
        backoff_ms: 1,
        read_timeout_ms: 5000,
        ..RegistryConfig::default()
    }
}

/// An image of a few small layers.
pub(crate) fn image() -> TestImage {
    ImageBuilder::new()
        .layer(&Tree::root(), Compression::Gzip)
        .layer(&Tree::new().file("etc/motd", "hello"), Compression::Zstd)
        .layer(&Tree::noise(7, 3, 70_000), Compression::Gzip)
        .build()
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kiln-registry-").tempdir().unwrap();
        let metadata: Arc<dyn MetadataStore> =
            Arc::new(SqliteStore::open(dir.path().join("kiln.sqlite")).await.unwrap());
        let store = ImageStore::open(dir.path(), metadata).unwrap();
        Self { store, dir, progress: Mutex::default() }
    }

    pub(crate) async fn pull_with(
        &self,
        config: RegistryConfig,
        reference: &str,
    ) -> Result<ImageRecord, RegistryError> {
        let client = RegistryClient::new(config).unwrap();
        self.pull_by(&client, reference).await
    }

    pub(crate) async fn pull_by(
        &self,
        client: &RegistryClient,
        reference: &str,
    ) -> Result<ImageRecord, RegistryError> {
        let name = "pulled".parse().unwrap();
        let note = |event| self.progress.lock().unwrap().push(event);
        client.pull(&self.store, &reference.parse().unwrap(), Some(&name), &note).await
    }

    /// Pulls `app:v1` of a registry.
    pub(crate) async fn pull(&self, registry: &Registry) -> Result<ImageRecord, RegistryError> {
        let host = registry.host();
        self.pull_with(config(&[&host]), &format!("{host}/app:v1")).await
    }

    /// The image is in the store, whole and as the registry has it.
    pub(crate) async fn assert_has(&self, record: &ImageRecord, image: &TestImage) {
        assert_eq!(record.digest, image.digest);
        assert_eq!(record.layers, image.diff_ids);
        assert_eq!(self.store.resolve("pulled").await.unwrap(), *record);
        self.store.check(record).await.unwrap();
        assert_eq!(self.store.blobs().read(&record.digest).unwrap(), image.manifest);
        for layer in &record.layers {
            self.store.blobs().read(&layer.0).unwrap();
        }
    }

    /// Nothing of any image is in the store: no blob, no half blob, no index, no row.
    pub(crate) async fn assert_empty(&self) {
        assert_eq!(self.store.blobs().list().unwrap(), []);
        let mut files = Vec::new();
        for part in ["blobs", "indexes"] {
            collect(&self.dir.path().join(part), &mut files);
        }
        files.retain(|path| path.file_name().is_some_and(|name| name != "lock"));
        assert_eq!(files, Vec::<std::path::PathBuf>::new());
        let metadata = self.store.metadata();
        assert_eq!(metadata.list_layers().await.unwrap(), []);
        assert_eq!(metadata.list_images(None, 10).await.unwrap(), []);
    }

    pub(crate) fn events(&self) -> Vec<PullProgress> {
        self.progress.lock().unwrap().clone()
    }
}

fn collect(dir: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

/// The error and its causes.
pub(crate) fn text(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
