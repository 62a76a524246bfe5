//! Named snapshots.

use kiln_types::api::{CreateSnapshot, SnapshotInfo};
use reqwest::Method;

use crate::transport::item;
use crate::{Client, ClientError};

impl Client {
    /// Saves a sandbox's disk under a name; answers when it is usable.
    pub async fn create_snapshot(
        &self,
        create: &CreateSnapshot,
    ) -> Result<SnapshotInfo, ClientError> {
        self.json(self.request(Method::POST, "/v1/snapshots").json(create)).await
    }

    /// All snapshots, newest first.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ClientError> {
        self.all("/v1/snapshots").await
    }

    /// One snapshot.
    pub async fn snapshot(&self, name: &str) -> Result<SnapshotInfo, ClientError> {
        self.get(&item("/v1/snapshots", name)?).await
    }

    /// Removes a snapshot; sandboxes made from it are not affected.
    pub async fn remove_snapshot(&self, name: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, &item("/v1/snapshots", name)?)).await.map(drop)
    }
}
