//! An OCI registry in this process, with failures on request.

mod access;
mod fault;
mod routes;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use kiln_types::Digest;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::TestImage;

pub use access::Access;
pub use fault::{Action, Fault};
pub use state::Seen;

use state::State;

/// A registry on a free port of the loopback interface, and a token server on another one. Dropping it
/// ends both.
#[derive(Debug)]
pub struct Registry {
    state: Arc<State>,
    address: SocketAddr,
    token_address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Registry {
    /// Starts one that everybody may use.
    pub async fn start() -> Self {
        Self::start_with(Access::Open).await
    }

    /// Starts one with access control.
    pub async fn start_with(access: Access) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let tokens = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let token_address = tokens.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State::new(access, token_address));
        let serve = |listener: TcpListener, router: Router| {
            tokio::spawn(async move {
                axum::serve(listener, router).await.expect("the server runs until it is dropped");
            })
        };
        let tasks = [
            serve(listener, routes::registry(Arc::clone(&state))),
            serve(tokens, routes::tokens(Arc::clone(&state))),
        ];
        Self { state, address, token_address, tasks }
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `127.0.0.1:<port>` of the token server.
    pub fn token_host(&self) -> String {
        self.token_address.to_string()
    }

    /// Stores an image (an index with all its children) under `repository:tag`.
    pub fn put(&self, repository: &str, tag: &str, image: &TestImage) {
        for child in &image.children {
            self.put(repository, &child.digest.to_string(), child);
        }
        for (digest, blob) in &image.blobs {
            self.state.put_blob(repository, *digest, blob.clone());
        }
        let manifest = image.manifest.clone();
        self.state.put_manifest(repository, tag, &image.media_type, manifest);
    }

    /// Stores bytes under a digest that need not be theirs.
    pub fn put_blob(&self, repository: &str, digest: Digest, bytes: Vec<u8>) {
        self.state.put_blob(repository, digest, bytes);
    }

    /// Removes a blob.
    pub fn remove_blob(&self, repository: &str, digest: &Digest) {
        self.state.remove_blob(repository, digest);
    }

    /// Plans a failure. Plans are carried out in their order.
    pub fn fault(&self, fault: Fault) {
        self.state.add_fault(fault);
    }

    /// Makes every token that was issued worthless.
    pub fn expire_tokens(&self) {
        self.state.expire_tokens();
    }

    /// The requests so far, those to the token server included.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.requests()
    }

    /// How many requests for this blob there were.
    pub fn blob_requests(&self, digest: &Digest) -> usize {
        let end = format!("/blobs/{digest}");
        self.requests().iter().filter(|seen| seen.path.ends_with(&end)).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
