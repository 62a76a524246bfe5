//! Files of a running sandbox.

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use kiln_types::api::{FileEntry, FileList, FileQuery};
use reqwest::{Body, Method};

use crate::sandboxes::path;
use crate::{Client, ClientError};

/// What is written into a file: bytes, or a stream of them.
pub type FileBody = Body;

impl Client {
    /// The content of a file.
    pub async fn read_file(
        &self,
        sandbox: &str,
        query: &FileQuery,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + use<>, ClientError> {
        let request = self.request(Method::GET, &path(sandbox, "/files")?).query(query);
        Ok(self
            .send(request)
            .await?
            .bytes_stream()
            .map_err(|source| ClientError::Broken { action: "sent a file", source: source.into() }))
    }

    /// Writes a file, whole or not at all.
    pub async fn write_file(
        &self,
        sandbox: &str,
        query: &FileQuery,
        body: impl Into<FileBody>,
    ) -> Result<(), ClientError> {
        let request = self.request(Method::PUT, &path(sandbox, "/files")?).query(query);
        self.send(request.body(body)).await.map(drop)
    }

    /// Removes a file, or a directory with `recursive`.
    pub async fn remove_file(&self, sandbox: &str, query: &FileQuery) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, &path(sandbox, "/files")?).query(query);
        self.send(request).await.map(drop)
    }

    /// The entries of a directory.
    pub async fn list_files(
        &self,
        sandbox: &str,
        query: &FileQuery,
    ) -> Result<FileList, ClientError> {
        self.json(self.request(Method::GET, &path(sandbox, "/files/list")?).query(query)).await
    }

    /// Describes a file.
    pub async fn stat_file(
        &self,
        sandbox: &str,
        query: &FileQuery,
    ) -> Result<FileEntry, ClientError> {
        self.json(self.request(Method::GET, &path(sandbox, "/files/stat")?).query(query)).await
    }

    /// Makes a directory and those above it.
    pub async fn make_directory(
        &self,
        sandbox: &str,
        query: &FileQuery,
    ) -> Result<(), ClientError> {
        let request = self.request(Method::POST, &path(sandbox, "/files/mkdir")?).query(query);
        self.send(request).await.map(drop)
    }
}
