//! Servers that break HTTP itself, or keep a client busy: an error in time, and nothing is left.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_registry::{Credential, RegistryConfig};
use kiln_types::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Fixture, config, text};

/// A server that answers each request with bytes of its own.
struct Raw {
    host: String,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What comes after the bytes.
#[derive(Clone, Copy, Debug)]
enum Then {
    Close,
    Reset,
    Silence,
    Endless,
}

async fn raw(answer: impl Fn(&str) -> (Vec<u8>, Then) + Send + Sync + 'static) -> Raw {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (seen, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
    let task = {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(async move { serve(stream, &seen, answer.as_ref()).await });
            }
        })
    };
    Raw { host, seen, task }
}

async fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    answer: &(dyn Fn(&str) -> (Vec<u8>, Then) + Send + Sync),
) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let (bytes, then) = answer(&request);
    seen.lock().unwrap().push(request);
    if stream.write_all(&bytes).await.is_err() {
        return;
    }
    match then {
        Then::Close => {}
        Then::Reset => stream.set_zero_linger().unwrap(),
        Then::Silence => tokio::time::sleep(Duration::from_mins(1)).await,
        Then::Endless => while stream.write_all(&[b' '; 1 << 12]).await.is_ok() {},
    }
}

fn short(hosts: &[&str]) -> RegistryConfig {
    RegistryConfig { attempts: 2, read_timeout_ms: 1000, ..config(hosts) }
}

#[tokio::test]
async fn broken_answers_end_in_an_error_in_time() {
    let manifest = r#"{"schemaVersion":2,"config":{"#;
    for (answer, then, part) in [
        ("", Then::Close, "could not get"),
        ("", Then::Reset, "could not get"),
        ("", Then::Silence, "could not get"),
        ("nonsense\r\n\r\n", Then::Close, "could not get"),
        ("HTTP/1.1 200", Then::Close, "could not get"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", Then::Close, "could not get"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", Then::Reset, "could not get"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", Then::Silence, "could not get"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}", Then::Close, "could not get"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
            Then::Close,
            "could not get",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            Then::Close,
            "could not get",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff0\r\n",
            Then::Close,
            "could not get",
        ),
        // Shorter than it is: what is behind it is no part of it.
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}{}", Then::Close, "not valid JSON"),
        ("HTTP/1.1 200 OK\r\n\r\n", Then::Endless, "larger than 4194304"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", Then::Endless, "larger than"),
        ("HTTP/1.1 204 No Content\r\n\r\n", Then::Close, "not valid JSON"),
        ("HTTP/1.1 302 Found\r\n\r\n", Then::Close, "does not say where to"),
        ("HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\n\r\n", Then::Close, "file://"),
        ("HTTP/1.1 302 Found\r\nlocation: gopher://x/\r\n\r\n", Then::Close, "gopher://"),
        ("HTTP/1.1 302 Found\r\nlocation: http://[::\r\n\r\n", Then::Close, "where to"),
        ("HTTP/1.1 999 Odd\r\n\r\n", Then::Close, "999"),
        ("HTTP/1.1 401 No\r\n\r\n", Then::Close, "neither Basic nor Bearer"),
        ("HTTP/1.1 401 No\r\nwww-authenticate: Digest x\r\n\r\n", Then::Close, "neither"),
        (
            "HTTP/1.1 401 No\r\nwww-authenticate: Bearer realm=\"nowhere\"\r\n\r\n",
            Then::Close,
            "its address is not one",
        ),
        (
            "HTTP/1.1 401 No\r\nwww-authenticate: Bearer realm=\"http://169.254.169.254/\"\r\n\r\n",
            Then::Close,
            "169.254.169.254",
        ),
    ] {
        let server = raw(move |_| (answer.as_bytes().to_vec(), then)).await;
        let fixture = Fixture::new().await;
        let begun = Instant::now();
        let reference = format!("{}/app:v1", server.host);
        let error = fixture.pull_with(short(&[&server.host]), &reference).await.unwrap_err();
        let said = text(&error);
        assert!(said.contains(part), "{answer:?} {then:?}: {said}");
        assert!(!said.contains(manifest) && !said.chars().any(char::is_control), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{answer:?}: {:?}", begun.elapsed());
        assert!(server.seen.lock().unwrap().len() <= 4, "{answer:?}");
        fixture.assert_empty().await;
    }
}

/// Headers in their thousands, and single ones of megabytes.
#[tokio::test]
async fn huge_headers_are_an_error() {
    let many = (0..5000).map(|n| format!("x-{n}: y")).collect::<Vec<_>>().join("\r\n") + "\r\n";
    let long = format!("x: {}\r\n", "y".repeat(4 << 20));
    for headers in [many, long] {
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\n{{}}");
        let server = raw(move |_| (answer.clone().into_bytes(), Then::Close)).await;
        let fixture = Fixture::new().await;
        let reference = format!("{}/app:v1", server.host);
        let error = fixture.pull_with(short(&[&server.host]), &reference).await.unwrap_err();
        assert!(text(&error).contains("manifest v1"), "{}", text(&error));
        fixture.assert_empty().await;
    }
}

fn private(server: &Raw, trusted: &[&str]) -> RegistryConfig {
    let mut config = short(&[&server.host]);
    config.plain_http.extend(trusted.iter().map(ToString::to_string));
    let credential = Credential {
        username: "alice".into(),
        password: "s3cret".into(),
        token_hosts: trusted.iter().map(ToString::to_string).collect(),
    };
    config.credentials.insert(server.host.clone(), credential);
    config
}

/// A registry that never has enough is left after one try with the credentials.
#[tokio::test]
async fn a_registry_that_always_wants_more() {
    for challenge in ["Basic realm=\"x\"", "Basic realm=\"x\", Basic realm=\"y\""] {
        let answer = format!(
            "HTTP/1.1 401 No\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\r\n"
        );
        let server = raw(move |_| (answer.clone().into_bytes(), Then::Close)).await;
        let fixture = Fixture::new().await;
        let reference = format!("{}/app:v1", server.host);
        let error = fixture.pull_with(private(&server, &[]), &reference).await.unwrap_err();
        assert!(text(&error).contains("user `alice`"), "{}", text(&error));
        assert!(!text(&error).contains("s3cret"));
        assert!(server.seen.lock().unwrap().len() <= 3);
        fixture.assert_empty().await;
    }
}

/// Token servers that answer something else than a token.
#[tokio::test]
async fn lies_of_a_token_server() {
    let huge = format!("{{\"token\":\"{}\"}}", "x".repeat(2 << 20));
    for (body, part) in [
        ("", "no token"),
        ("{}", "no token"),
        ("[\"t\"]", "no token"),
        ("{\"token\":7}", "no token"),
        ("{\"token\":\"\"}", "no token"),
        ("{\"token\":\"a\",\"token\":\"b\"}", "no token"),
        ("{\"token\":\"a\\r\\nx-evil: 1\"}", "characters"),
        ("{\"token\":\"a\\u0000\"}", "characters"),
        (huge.as_str(), "too large"),
        ("<html>login</html>", "no token"),
    ] {
        let body = body.to_owned();
        let tokens = raw(move |_| {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            (answer.into_bytes(), Then::Close)
        })
        .await;
        let realm = format!("http://{}/token", tokens.host);
        let server = raw(move |_| {
            let answer = format!(
                "HTTP/1.1 401 No\r\nwww-authenticate: Bearer realm=\"{realm}\"\r\ncontent-length: 0\r\n\r\n"
            );
            (answer.into_bytes(), Then::Close)
        })
        .await;
        let fixture = Fixture::new().await;
        let reference = format!("{}/app:v1", server.host);
        let config = private(&server, &[&tokens.host]);
        let error = fixture.pull_with(config, &reference).await.unwrap_err();
        let said = text(&error);
        assert!(said.contains(part) && said.contains(&tokens.host), "{part}: {said}");
        assert!(!said.contains("s3cret") && said.len() < 2000, "{said}");
        fixture.assert_empty().await;
    }
}

/// A redirect to a service of the host or of its cloud takes no secret along.
#[tokio::test]
async fn secrets_stay_where_they_belong() {
    let inner =
        raw(|_| (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".to_vec(), Then::Close)).await;
    let to = inner.host.clone();
    let server = raw(move |request| {
        let answer = if request.to_lowercase().contains("authorization: basic ") {
            format!("HTTP/1.1 307 On\r\nlocation: http://{to}/latest/meta-data\r\ncontent-length: 0\r\n\r\n")
        } else {
            "HTTP/1.1 401 No\r\nwww-authenticate: Basic realm=\"x\"\r\ncontent-length: 0\r\n\r\n".to_owned()
        };
        (answer.into_bytes(), Then::Close)
    })
    .await;
    let reference = format!("{}/app:v1", server.host);
    // Not followed at all, as the other host is not one to be spoken to without TLS.
    let fixture = Fixture::new().await;
    let error = fixture.pull_with(private(&server, &[]), &reference).await.unwrap_err();
    assert!(text(&error).contains("not followed"), "{}", text(&error));
    assert!(inner.seen.lock().unwrap().is_empty());
    // Followed where it may be, and without the secret.
    let mut config = private(&server, &[]);
    config.plain_http.push(inner.host.clone());
    fixture.pull_with(config, &reference).await.unwrap_err();
    let seen = inner.seen.lock().unwrap().clone();
    assert!(!seen.is_empty());
    for request in seen {
        assert!(!request.to_lowercase().contains("authorization"), "{request}");
    }
    fixture.assert_empty().await;
}

/// A tag whose content is not what the registry itself says that it is.
#[tokio::test]
async fn a_stated_digest_must_be_true() {
    let stated = Digest::of("other");
    let server = raw(move |_| {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ndocker-content-digest: {stated}\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        (answer.into_bytes(), Then::Close)
    })
    .await;
    let fixture = Fixture::new().await;
    let reference = format!("{}/app:v1", server.host);
    let error = fixture.pull_with(short(&[&server.host]), &reference).await.unwrap_err();
    assert!(text(&error).contains("came with digest"), "{}", text(&error));
    fixture.assert_empty().await;
}
