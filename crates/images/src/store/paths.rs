//! Where the index files are.

use std::path::PathBuf;
use std::sync::Arc;

use super::ImageStore;
use crate::ImagesError;
use crate::blocking::blocking;

impl ImageStore {
    /// The paths of all index files there are.
    pub async fn index_paths(&self) -> Result<Vec<PathBuf>, ImagesError> {
        let indexes = Arc::clone(&self.indexes);
        blocking(move || Ok(indexes.list()?.iter().map(|key| indexes.path(key)).collect())).await
    }
}
