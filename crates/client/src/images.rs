//! Images.

use kiln_types::api::{ImageInfo, PullRequest, RemovedImage};
use reqwest::Method;

use crate::transport::item;
use crate::{Client, ClientError};

impl Client {
    /// All images, newest first.
    pub async fn images(&self) -> Result<Vec<ImageInfo>, ClientError> {
        self.all("/v1/images").await
    }

    /// One image, by name or digest.
    pub async fn image(&self, name: &str) -> Result<ImageInfo, ClientError> {
        self.get(&item("/v1/images", name)?).await
    }

    /// Removes a name, and the image with the last of them.
    pub async fn remove_image(&self, name: &str) -> Result<RemovedImage, ClientError> {
        self.json(self.request(Method::DELETE, &item("/v1/images", name)?)).await
    }

    /// Fetches an image from its registry; answers when it is there.
    pub async fn pull_image(&self, pull: &PullRequest) -> Result<ImageInfo, ClientError> {
        self.json(self.request(Method::POST, "/v1/images/pull").json(pull)).await
    }
}
