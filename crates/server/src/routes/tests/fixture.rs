//! A daemon's services on a driver for tests, and questions to their router.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use jiff::Timestamp;
use kiln_build::BuilderConfig;
use kiln_images::{ImageStore, NewImage};
use kiln_metadata::{MetadataStore, SandboxRecord, SqliteStore};
use kiln_registry::{RegistryClient, RegistryConfig};
use kiln_roots::{DirectoryUppers, ErofsMounts, Roots};
use kiln_runtime::Runtime;
use kiln_types::api::{ResourceLimits, SandboxStatus};
use kiln_types::{Digest, SandboxId};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::super::router;
use super::driver::Driver;
use crate::app::App;
use crate::auth::Keys;
use crate::config::Config;

/// The key that opens the closed router.
const KEY: &str = "kiln_0123";

pub(super) struct Fixture {
    pub(super) app: Arc<App>,
    pub(super) driver: Arc<Driver>,
    pub(super) closed: Router,
    pub(super) open: Router,
    pub(super) data: tempfile::TempDir,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let metadata: Arc<dyn MetadataStore> =
            Arc::new(SqliteStore::open(data.path().join("kiln.sqlite")).await.unwrap());
        let images = ImageStore::open(data.path(), metadata).unwrap();
        let uppers = DirectoryUppers::open(&data.path().join("uppers")).unwrap();
        let roots = Roots::new(data.path(), Arc::new(ErofsMounts::new()), Arc::new(uppers));
        let roots = Arc::new(roots.unwrap());
        let driver = Driver::new();
        let runtime: Arc<dyn Runtime> = Arc::clone(&driver) as Arc<dyn Runtime>;
        let registry = RegistryClient::new(RegistryConfig::default()).unwrap();
        let mut builder = BuilderConfig::new(data.path());
        builder.catalog.clear();
        let config =
            Config { data_dir: data.path().to_owned(), stop_grace_ms: 0, ..Config::default() };
        let app = App::new(config, images, roots, runtime, registry, builder);
        let closed = router(Arc::clone(&app), Some(Keys::of(&[KEY])));
        let open = router(Arc::clone(&app), None);
        Self { app, driver, closed, open, data }
    }

    /// Asks as one who opened the Unix socket.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        let body = match body {
            None => Body::empty(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
        };
        answer(&self.open, request.body(body).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    /// An image without layers.
    pub(super) async fn image(&self, name: &str) -> Digest {
        let new = NewImage { name: Some(name.parse().unwrap()), ..NewImage::default() };
        self.app.images.commit_image(new).await.unwrap().digest
    }

    /// A stopped sandbox that never ran.
    pub(super) async fn sandbox(&self, image: Digest, name: Option<&str>) -> SandboxId {
        let record = SandboxRecord {
            id: SandboxId::new(),
            name: name.map(str::to_owned),
            status: SandboxStatus::Stopped,
            image: "x".to_owned(),
            image_digest: image,
            env: std::collections::BTreeMap::new(),
            limits: ResourceLimits {
                vcpu: Some(1),
                memory_mib: Some(64),
                pids: Some(64),
                disk_mib: None,
            },
            slot: None,
            address: None,
            reason: None,
            driver: "test".to_owned(),
            created_at: Timestamp::now(),
        };
        self.app.images.metadata().insert_sandbox(&record).await.unwrap();
        record.id
    }
}

/// Asks `router`.
pub(super) async fn answer(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, body }
}

impl Answer {
    /// Holds the answer against what every problem has to be.
    pub(super) fn is_problem(&self, status: u16, code: &str, text: &str) {
        let body = &self.body;
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)), "{body}");
        let said = format!("{} {}", body["detail"], body["hint"]);
        assert!(said.contains(text), "`{text}` is not in {said}");
        assert!(self.headers.contains_key("x-request-id"));
    }
}
