//! Files of a sandbox, through the typed client and, where it refuses to be wrong, by raw requests.

use futures_util::TryStreamExt as _;
use kiln_client::ClientError;
use kiln_types::ErrorCode;
use kiln_types::api::{FileKind, FileQuery};

use super::caller::Api;

fn at(path: &str) -> FileQuery {
    FileQuery { path: path.to_owned(), mode: None, recursive: false }
}

fn with_mode(path: &str, mode: &str) -> FileQuery {
    FileQuery { mode: Some(mode.to_owned()), ..at(path) }
}

impl Api {
    async fn read(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        let pieces = self.client.read_file("b", &at(path)).await?;
        pieces.try_fold(Vec::new(), async |all, piece| Ok([all, piece.to_vec()].concat())).await
    }

    async fn write(&self, path: &str, content: impl Into<kiln_client::FileBody>) {
        let written = self.client.write_file("b", &at(path), content).await;
        written.unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }
}

/// The code of a refusal whose sentence names `named`.
#[track_caller]
fn refused<T>(result: Result<T, ClientError>, code: ErrorCode, named: &str) {
    match result.err() {
        Some(ClientError::Problem(problem)) => {
            assert_eq!(problem.code, code, "{problem}");
            assert!(problem.detail.contains(named), "no {named:?} in {problem}");
        }
        other => panic!("{code:?} is expected, not {other:?}"),
    }
}

#[tokio::test]
async fn large_files_and_odd_names_round_trip() {
    let api = Api::with_box();
    let content: Vec<u8> =
        (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    api.write("large", content.clone()).await;
    let back = api.read("large").await.unwrap();
    assert!(back == content, "{} of {} bytes came back", back.len(), content.len());
    let sum = api.shell("sha256sum large | cut -d ' ' -f 1").await;
    assert_eq!(sum.trim(), kiln_types::Digest::of(&content).to_string().replace("sha256:", ""));
    let names = [
        "a b  c",
        " ",
        "new\nline",
        "ünïcödé 漢字 🦀",
        "q?a=b&c#d%2Fe+f%",
        "'\"$(touch x)`\\",
        "-rf",
        "...",
        "\u{1b}[31m",
    ];
    for name in names {
        let path = format!("odd/{name}");
        api.write(&path, name.to_owned()).await;
        assert_eq!(api.read(&path).await.unwrap(), name.as_bytes(), "{name:?}");
        let entry = api.client.stat_file("b", &at(&path)).await.unwrap();
        assert_eq!((&*entry.name, entry.size), (name, name.len() as u64));
    }
    let list = api.client.list_files("b", &at("odd")).await.unwrap();
    let mut expected = names.map(str::to_owned);
    expected.sort();
    let listed: Vec<String> = list.entries.into_iter().map(|entry| entry.name).collect();
    assert_eq!(listed, expected);
    for name in names {
        api.client.remove_file("b", &at(&format!("odd/{name}"))).await.unwrap();
    }
    assert_eq!(api.client.list_files("b", &at("odd")).await.unwrap().entries, []);
    // A name that is not UTF-8 is shown with a replacement, and asking for it so does not find another.
    api.shell(r"touch odd/$(printf 'x\377')").await;
    let list = api.client.list_files("b", &at("odd")).await.unwrap();
    assert_eq!(list.entries[0].name, "x\u{fffd}");
    let answer = api.ask("GET", "/v1/sandboxes/b/files?path=odd/x%FF").await;
    answer.refuses(400, "invalid_request", "UTF-8");
}

#[tokio::test]
async fn modes_owners_and_relative_paths() {
    let api = Api::with_box();
    for (query, mode) in [
        (at("plain"), 0o644),
        (with_mode("script", "755"), 0o755),
        (with_mode("s", "4711"), 0o4711),
    ] {
        api.client.write_file("b", &query, "x").await.unwrap();
        let entry = api.client.stat_file("b", &query_of(&query)).await.unwrap();
        assert_eq!((entry.kind, entry.mode, entry.uid), (FileKind::File, mode, 0), "{query:?}");
    }
    // Written anew, a file keeps its mode unless another is given.
    api.write("script", "#!/bin/sh\necho run\n").await;
    assert_eq!(api.shell("./script; pwd").await, "run\n/workspace\n");
    // Relative paths start at the working directory; parents are made.
    api.write("deep/er/file", "deep").await;
    assert_eq!(api.shell("cat /workspace/deep/er/file").await, "deep");
    assert_eq!(api.read("../workspace/./deep/er/file").await.unwrap(), b"deep");
    assert_eq!(api.read("/workspace/deep/er/file").await.unwrap(), b"deep");
    api.client.make_directory("b", &with_mode("made/below", "700")).await.unwrap();
    api.client.make_directory("b", &at("made/below")).await.unwrap();
    assert_eq!(api.shell("stat -c %a made made/below").await, "755\n700\n");
    let made = api.client.stat_file("b", &at("made")).await.unwrap();
    assert_eq!((made.kind, made.mode, made.target), (FileKind::Directory, 0o755, None));
    // What is made in a user's directory is the user's.
    api.shell("mkdir /home; mkdir /home/ada; chown 1000:1000 /home/ada").await;
    api.write("/home/ada/notes", "x").await;
    assert_eq!(api.shell("stat -c %u:%g /home/ada/notes").await, "1000:1000\n");
    // A file of no bytes is a file.
    api.write("empty", "").await;
    assert_eq!(api.read("empty").await.unwrap(), b"");
    assert_eq!(api.client.stat_file("b", &at("empty")).await.unwrap().size, 0);
}

/// The same path without what only writing takes.
fn query_of(query: &FileQuery) -> FileQuery {
    at(&query.path)
}

#[tokio::test]
async fn what_cannot_be_done_is_named() {
    let api = Api::with_box();
    api.shell("mkdir -p d/sub; echo x > f; mkfifo pipe; ln -s loop loop").await;
    use ErrorCode::{FileNotFound as Missing, FileOperationFailed as Failed};
    for (path, code) in
        [("none", Missing), ("none/deep", Missing), ("f/below", Failed), ("d", Failed)]
    {
        refused(api.read(path).await, code, path);
    }
    for (path, named) in [("pipe", "pipe"), ("/dev/null", "/dev/null"), ("loop", "loop")] {
        refused(api.read(path).await, Failed, named);
    }
    for path in ["d", "f/below", "pipe", "loop", "new/", "/"] {
        refused(api.client.write_file("b", &at(path), "x").await, Failed, path);
    }
    for (path, code) in [("none", Missing), ("f", Failed)] {
        refused(api.client.list_files("b", &at(path)).await, code, path);
    }
    refused(api.client.stat_file("b", &at("none")).await, Missing, "none");
    refused(api.client.make_directory("b", &at("f")).await, Failed, "f");
    refused(api.client.make_directory("b", &at("f/below")).await, Failed, "f");
    refused(api.client.remove_file("b", &at("none")).await, Missing, "none");
    refused(api.client.remove_file("b", &at("d")).await, Failed, "d");
    let all = |path: &str| FileQuery { recursive: true, ..at(path) };
    for path in ["/", "/..", "///", "/workspace/.."] {
        refused(api.client.remove_file("b", &all(path)).await, Failed, path);
    }
    let long = "n".repeat(300);
    refused(api.client.write_file("b", &at(&long), "x").await, Failed, "nnn");
    refused(api.client.read_file("nobody", &at("f")).await, ErrorCode::SandboxNotFound, "nobody");
    // Nothing of it left a trace.
    assert_eq!(api.shell("ls -A . d; cat f").await, ".:\nd\nf\nloop\npipe\n\nd:\nsub\nx\n");
    api.client.remove_file("b", &all("d")).await.unwrap();
    api.client.remove_file("b", &at("loop")).await.unwrap();
    assert_eq!(api.shell("ls -A").await, "f\npipe\n");
    api.client.stop_sandbox("b").await.unwrap();
    refused(api.read("f").await, ErrorCode::SandboxNotRunning, "sbx_");
}

/// Links are followed inside the sandbox's root, so none leads to the host.
#[tokio::test]
async fn symbolic_links_stay_inside() {
    let api = Api::with_box();
    let secret = api.kiln.path("host-file");
    std::fs::write(&secret, "of the host").unwrap();
    let host = secret.to_str().unwrap();
    api.shell(&format!(
        "ln -s {host} absolute; ln -s ../../../../../..{host} relative; ln -s / root; mkdir r; \
         ln -s /workspace/r/target chain2; ln -s chain2 chain"
    ))
    .await;
    for link in ["absolute", "relative", &format!("root{host}")] {
        refused(api.read(link).await, ErrorCode::FileNotFound, link);
        api.write(link, "of the sandbox").await;
        assert_eq!(api.read(link).await.unwrap(), b"of the sandbox");
        assert_eq!(api.shell(&format!("cat {host}")).await, "of the sandbox");
        assert_eq!(std::fs::read(&secret).unwrap(), b"of the host", "{link} led out");
        api.client.remove_file("b", &at(host)).await.unwrap();
    }
    assert!(secret.exists());
    // Writing goes through links to what they name; removing takes the link itself.
    api.write("chain", "x").await;
    assert_eq!(api.shell("readlink chain; cat r/target").await, "chain2\nx");
    let link = api.client.stat_file("b", &at("chain")).await.unwrap();
    assert_eq!((link.kind, link.target.as_deref()), (FileKind::Symlink, Some("chain2")));
    api.shell("ln -s r gone").await;
    let all = FileQuery { recursive: true, ..at("gone") };
    api.client.remove_file("b", &all).await.unwrap();
    assert_eq!(api.shell("cat r/target; test -L gone || echo gone").await, "xgone\n");
}

/// A request that breaks off changes nothing and leaves nothing.
#[tokio::test]
async fn a_broken_upload_leaves_the_old_file() {
    use std::io::{Read as _, Write as _};

    let api = Api::with_box();
    api.write("file", "old").await;
    let address = api.kiln.url().strip_prefix("http://").unwrap().to_owned();
    let mut raw = std::net::TcpStream::connect(&address).unwrap();
    write!(
        raw,
        "PUT /v1/sandboxes/b/files?path=file HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 1000000\r\n\r\n{}",
        api.key,
        "new".repeat(1000)
    )
    .unwrap();
    // The new content is on its way when the old one is beside a temporary file.
    crate::daemon::eventually("the upload began", || {
        let list = api.kiln.ok(&["exec", "b", "--", "ls", "-A", "/workspace"]);
        (list.lines().count() == 2).then_some(())
    });
    raw.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    // Whether an answer comes at all is up to the server.
    let _answer = raw.read_to_end(&mut rest);
    drop(raw);
    crate::daemon::eventually("the temporary file is gone", || {
        let list = api.kiln.ok(&["exec", "b", "--", "ls", "-A", "/workspace"]);
        (list == "file").then_some(())
    });
    assert_eq!(api.read("file").await.unwrap(), b"old");
}
