//! Builds and their logs.

use futures_util::Stream;
use kiln_types::api::{BuildInfo, BuildRequest};
use kiln_types::{BuildEvent, BuildId};
use reqwest::Method;

use crate::{Client, ClientError, sse};

impl Client {
    /// Starts a build; answers at once.
    pub async fn start_build(&self, build: &BuildRequest) -> Result<BuildInfo, ClientError> {
        self.json(self.request(Method::POST, "/v1/builds").json(build)).await
    }

    /// All builds, newest first.
    pub async fn builds(&self) -> Result<Vec<BuildInfo>, ClientError> {
        self.all("/v1/builds").await
    }

    /// One build.
    pub async fn build(&self, id: &BuildId) -> Result<BuildInfo, ClientError> {
        self.get(&format!("/v1/builds/{id}")).await
    }

    /// A build's log from event number `from`, followed until the build has ended.
    pub async fn build_log(
        &self,
        id: &BuildId,
        from: u64,
    ) -> Result<impl Stream<Item = Result<BuildEvent, ClientError>> + Unpin + use<>, ClientError>
    {
        let request = self
            .request(Method::GET, &format!("/v1/builds/{id}/log"))
            .query(&[("from", from.to_string())]);
        Ok(sse::events(self.send(request).await?, "a build's log"))
    }
}
