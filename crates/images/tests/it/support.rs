//! A store of its own for each test.

use std::path::Path;
use std::sync::Arc;

use kiln_images::ImageStore;
use kiln_metadata::{LayerRecord, MetadataStore, SqliteStore};
use kiln_testkit::Tree;
use kiln_types::DiffId;
use tempfile::TempDir;

pub(crate) struct Fixture {
    pub(crate) store: Arc<ImageStore>,
    pub(crate) dir: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kiln-images-").tempdir().unwrap();
        let store = open(dir.path()).await;
        Self { store, dir }
    }

    pub(crate) async fn add(&self, tree: &Tree, parents: &[DiffId]) -> LayerRecord {
        let tar = std::io::Cursor::new(tree.tar());
        self.store.import_layer(Box::new(tar), None, parents).await.unwrap()
    }

    /// The names of the index files, sorted.
    pub(crate) fn indexes(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("indexes")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Nothing is stored: no blob, no index, no row.
    pub(crate) async fn assert_empty(&self) {
        assert_eq!(self.store.blobs().list().unwrap(), []);
        assert_eq!(self.indexes(), Vec::<String>::new());
        assert_eq!(self.store.metadata().list_layers().await.unwrap(), []);
        assert_eq!(self.store.metadata().list_images(None, 10).await.unwrap(), []);
    }
}

pub(crate) async fn open(dir: &Path) -> Arc<ImageStore> {
    let metadata: Arc<dyn MetadataStore> =
        Arc::new(SqliteStore::open(dir.join("kiln.sqlite")).await.unwrap());
    ImageStore::open(dir, metadata).unwrap()
}
