//! A daemon and raw requests to it. Each answer is checked against the OpenAPI document.

use std::cell::RefCell;
use std::collections::BTreeSet;

use kiln_client::{Client, Endpoint};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Body, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::document::Document;
use super::events::Events;
use crate::daemon::Daemon;
use crate::fixture::{busybox, template};

/// A daemon, spoken to over TCP with its key.
pub(crate) struct Api {
    pub(crate) kiln: Daemon,
    /// The typed client, over TCP as well.
    pub(crate) client: Client,
    pub(crate) document: Document,
    pub(crate) key: String,
    http: reqwest::Client,
    exercised: RefCell<BTreeSet<String>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The request, for messages.
    pub(crate) asked: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Api {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    pub(crate) fn start_with(config: &str) -> Self {
        let kiln = Daemon::start_with(config);
        let key = kiln.api_key();
        Self {
            client: client(&kiln),
            kiln,
            key,
            document: Document::committed(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            exercised: RefCell::default(),
        }
    }

    /// With an image `box` and a running sandbox `b` of it.
    pub(crate) fn with_box() -> Self {
        let api = Self::start();
        api.kiln.build("box", &template("box", &busybox(), &[]));
        api.kiln.ok(&["create", "box", "--name", "b"]);
        api
    }

    /// Ends the daemon in order and starts it again, on another port.
    pub(crate) fn restart(&mut self) {
        self.kiln.terminate();
        self.kiln.serve();
        self.client = client(&self.kiln);
    }

    /// A request with the key. `path` is sent as it stands.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.request_without_key(method, path).bearer_auth(&self.key)
    }

    pub(crate) fn request_without_key(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        self.http.request(method, format!("{}{path}", self.kiln.url()))
    }

    /// Sends a request without a body.
    pub(crate) async fn ask(&self, method: &str, path: &str) -> Answer {
        self.send(self.request(method, path)).await
    }

    /// Sends JSON, which need not be well-formed.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = self.request("POST", path).header(CONTENT_TYPE, "application/json");
        self.send(request.body(body)).await
    }

    /// Runs a command in sandbox `b` and gives its standard output.
    pub(crate) async fn shell(&self, script: &str) -> String {
        let body = json!({ "argv": ["sh", "-c", script] }).to_string();
        let result = self.post("/v1/sandboxes/b/exec", body).await.json();
        assert_eq!(result["exit_code"], 0, "{script}: {result}");
        result["stdout"].as_str().unwrap().to_owned()
    }

    /// Sends a request, reads the answer and holds it against the document.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let (response, method, path) = self.begin(request).await;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body =
            if status == 101 { Vec::new() } else { response.bytes().await.unwrap().to_vec() };
        let answer = Answer { asked: format!("{method} {path}"), status, headers, body };
        assert!(answer.headers.contains_key("x-request-id"), "{answer}");
        let Some(operation) = self.document.operation(&method, &path) else {
            assert!(status >= 400, "an undocumented route: {answer}");
            return answer;
        };
        let checked = self.document.check(&operation, status, &answer.media_type(), &answer.body);
        if let Err(error) = checked {
            panic!("{error}\n{answer}");
        }
        if status < 400 {
            self.exercised.borrow_mut().insert(operation.title());
        }
        answer
    }

    /// Sends a request whose answer must be a stream of events.
    pub(crate) async fn events(&self, request: RequestBuilder) -> Events {
        let request = request.header(ACCEPT, "text/event-stream");
        let (response, method, path) = self.begin(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        assert_eq!(status, 200, "{method} {path}: {:?}", response.text().await);
        assert_eq!(headers[CONTENT_TYPE], "text/event-stream");
        self.exercised
            .borrow_mut()
            .insert(self.document.operation(&method, &path).unwrap().title());
        Events::new(response)
    }

    async fn begin(&self, request: RequestBuilder) -> (Response, String, String) {
        let request = request.build().unwrap();
        let (method, path) = (request.method().to_string(), request.url().path().to_owned());
        let response = self.http.execute(request).await;
        (response.unwrap_or_else(|error| panic!("{method} {path}: {error:?}")), method, path)
    }

    /// The operations that were answered with success.
    pub(crate) fn exercised(&self) -> BTreeSet<String> {
        self.exercised.borrow().clone()
    }

    /// All that there is: the rows, and the names and sizes of the store's files.
    pub(crate) async fn state(&self) -> Value {
        let mut state = json!({});
        for list in ["sandboxes", "images", "snapshots", "builds"] {
            let answer = self.ask("GET", &format!("/v1/{list}?limit=1000")).await.is(200);
            state[list] = answer.json()["items"].clone();
        }
        for directory in ["blobs", "indexes", "uppers"] {
            state[directory] = json!(files(&self.kiln.data().join(directory), 3));
        }
        state
    }

    /// Starts the build of a template with these commands; gives its id.
    pub(crate) async fn start_build(&self, name: &str, commands: &[&str]) -> String {
        let source = json!({ "template": template(name, &busybox(), commands) });
        let answer = self.post("/v1/builds", json!({ "source": source }).to_string()).await;
        assert_eq!(answer.status, 202, "{answer}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

/// Names and sizes of what is in a directory, down to so many levels: what is below the root of a
/// sandbox's disk is the sandbox's own.
fn files(directory: &std::path::Path, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(about) = entry.metadata() else { continue };
        let size = if about.is_file() { about.len() } else { 0 };
        found.push(format!("{} {size}", path.display()));
        if about.is_dir() && depth > 1 {
            found.extend(files(&path, depth - 1));
        }
    }
    found.sort();
    found
}

fn client(kiln: &Daemon) -> Client {
    let endpoint = Endpoint::Http { url: kiln.url().to_owned(), key: Some(kiln.api_key()) };
    Client::new(endpoint).unwrap()
}

impl Answer {
    pub(crate) fn media_type(&self) -> String {
        let value = self.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().split(';').next().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Succeeds with this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// Is a problem with this status and code, and `named` is in what people read of it.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: &str, named: &str) {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.media_type(), "application/problem+json", "{self}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(named), "no {named:?} in the detail: {self}");
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(2000)]);
        write!(f, "{}: {} {:?} {text}", self.asked, self.status, self.media_type())
    }
}
