//! The store as a whole.

use kiln_types::api::{FsckReport, FsckRequest, GcReport, GcRequest, StoreUsage};
use reqwest::Method;

use crate::{Client, ClientError};

impl Client {
    /// Looks at all that is stored; answers when everything was read.
    pub async fn fsck(&self, request: &FsckRequest) -> Result<FsckReport, ClientError> {
        self.json(self.request(Method::POST, "/v1/store/fsck").json(request)).await
    }

    /// Removes what nothing needs, or says what that is.
    pub async fn gc(&self, request: &GcRequest) -> Result<GcReport, ClientError> {
        self.json(self.request(Method::POST, "/v1/store/gc").json(request)).await
    }

    /// What takes how much room.
    pub async fn usage(&self) -> Result<StoreUsage, ClientError> {
        self.get("/v1/store/usage").await
    }
}
