//! Files.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use bytes::Bytes;
use kiln_runtime::agent::{Agent, AgentError, FileErrorKind};
use kiln_types::api::FileKind;

use crate::guest::{Guest, is_root, skip, until};

async fn put(agent: &Agent, cwd: &Path, path: &str, content: &[u8]) -> Result<(), AgentError> {
    let mut writer = agent.write_file(cwd, path, None).await?;
    writer.write(Bytes::copy_from_slice(content)).await?;
    writer.finish().await
}

async fn get(agent: &Agent, cwd: &Path, path: &str) -> Result<Vec<u8>, AgentError> {
    agent.read_file(cwd, path).await?.read_all(1 << 30).await
}

fn kind<T: std::fmt::Debug>(result: Result<T, AgentError>) -> FileErrorKind {
    match result {
        Err(AgentError::File { kind, .. }) => kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn fifty_megabytes_come_back_as_they_went() {
    let guest = Guest::start().await;
    let cwd = guest.directory.path();
    let content: Vec<u8> = (0..50_u32 << 20).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    let content = Bytes::from(content);
    let mut writer = guest.agent.write_file(cwd, "big", None).await.unwrap();
    for piece in content.chunks(1_000_003) {
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    assert!(!guest.path("big").exists(), "visible before it is whole");
    writer.finish().await.unwrap();
    assert!(std::fs::read(guest.path("big")).unwrap() == content);
    let reader = guest.agent.read_file(cwd, "big").await.unwrap();
    assert_eq!((reader.size(), reader.mode()), (50 << 20, 0o644));
    assert!(reader.read_all(1 << 30).await.unwrap() == content);
}

#[tokio::test]
async fn empty_files_and_odd_names_round_trip() {
    let guest = Guest::start().await;
    let cwd = guest.directory.path();
    put(&guest.agent, cwd, "empty", b"").await.unwrap();
    assert_eq!(get(&guest.agent, cwd, "empty").await.unwrap(), b"");
    let long = "n".repeat(255);
    let names: [&[u8]; 8] = [
        b"a b",
        b"new\nline",
        b"\"'\\",
        "grüße-火".as_bytes(),
        b"\xff\xfe",
        b"-rf",
        b"..x",
        long.as_bytes(),
    ];
    for name in names {
        let name = OsStr::from_bytes(name);
        let path = Path::new("odd").join(name);
        let mut writer = guest.agent.write_file(cwd, &path, None).await.unwrap();
        writer.write(Bytes::copy_from_slice(name.as_bytes())).await.unwrap();
        writer.finish().await.unwrap();
        let reader = guest.agent.read_file(cwd, &path).await.unwrap();
        assert_eq!(reader.read_all(1000).await.unwrap(), name.as_bytes());
        assert_eq!(guest.agent.stat(cwd, &path).await.unwrap().name, name);
    }
    let listed = guest.agent.list(cwd, "odd").await.unwrap();
    let listed: Vec<OsString> = listed.into_iter().map(|info| info.name).collect();
    let mut expected: Vec<OsString> = names.iter().map(|n| OsStr::from_bytes(n).into()).collect();
    expected.sort();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_listing_of_many_is_complete() {
    let guest = Guest::start().await;
    std::fs::create_dir(guest.path("many")).unwrap();
    for number in 0..5000 {
        std::fs::write(guest.path(&format!("many/{number:05}")), b"").unwrap();
    }
    let listed = guest.agent.list(guest.directory.path(), "many").await.unwrap();
    assert_eq!(listed.len(), 5000);
    assert!(listed.iter().enumerate().all(|(n, info)| info.name == *format!("{n:05}")));
}

#[tokio::test]
async fn files_are_described_as_they_are() {
    let guest = Guest::start().await;
    let cwd = guest.directory.path();
    std::fs::write(guest.path("file"), b"12345").unwrap();
    std::fs::set_permissions(guest.path("file"), PermissionsExt::from_mode(0o4711)).unwrap();
    symlink("no/where", guest.path("link")).unwrap();
    let file = guest.agent.stat(cwd, "file").await.unwrap();
    let truth = std::fs::metadata(guest.path("file")).unwrap();
    assert_eq!((file.kind, file.size, file.mode), (FileKind::File, 5, 0o4711));
    assert_eq!((file.uid, file.gid, file.modified), (truth.uid(), truth.gid(), truth.mtime()));
    let link = guest.agent.stat(cwd, "link").await.unwrap();
    assert_eq!((link.kind, link.target), (FileKind::Symlink, Some("no/where".into())));
    assert_eq!(guest.agent.stat("/", ".").await.unwrap().kind, FileKind::Directory);
    assert_eq!(guest.agent.stat("/dev", "null").await.unwrap().kind, FileKind::Other);
}

#[tokio::test]
async fn a_write_makes_parents_and_keeps_mode_owner_and_links() {
    let guest = Guest::start().await;
    let (agent, cwd) = (&guest.agent, guest.directory.path());
    put(agent, cwd, "a/b/c/file", b"1").await.unwrap();
    assert_eq!(std::fs::read(guest.path("a/b/c/file")).unwrap(), b"1");
    let mode = |path: &str| std::fs::metadata(guest.path(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a/b/c"), mode("a/b/c/file")), (0o755, 0o644));

    let writer = agent.write_file(cwd, "tool", Some(0o750)).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(mode("tool"), 0o750);
    put(agent, cwd, "tool", b"again").await.unwrap();
    assert_eq!(mode("tool"), 0o750, "the old mode stays");

    symlink("tool", guest.path("link")).unwrap();
    put(agent, cwd, "link", b"through").await.unwrap();
    assert_eq!(std::fs::read(guest.path("tool")).unwrap(), b"through");
    assert!(std::fs::symlink_metadata(guest.path("link")).unwrap().is_symlink());
    symlink("a/new", guest.path("dangling")).unwrap();
    put(agent, cwd, "dangling", b"made").await.unwrap();
    assert_eq!(std::fs::read(guest.path("a/new")).unwrap(), b"made");

    if !is_root() {
        return skip("owners need root");
    }
    let owner = |path: &str| {
        let metadata = std::fs::metadata(guest.path(path)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    chown(guest.path("tool"), Some(12), Some(34)).unwrap();
    put(agent, cwd, "tool", b"2").await.unwrap();
    assert_eq!(owner("tool"), (12, 34));
    chown(guest.path("a"), Some(56), Some(78)).unwrap();
    put(agent, cwd, "a/x/y", b"3").await.unwrap();
    assert_eq!((owner("a/x"), owner("a/x/y")), ((56, 78), (56, 78)));
}

#[tokio::test]
async fn a_write_that_does_not_finish_leaves_everything_as_it_was() {
    let guest = Guest::start().await;
    let cwd = guest.directory.path();
    put(&guest.agent, cwd, "dir/file", b"old").await.unwrap();
    let clean = async || {
        let names = std::fs::read_dir(guest.path("dir")).unwrap();
        let names: Vec<OsString> = names.map(|entry| entry.unwrap().file_name()).collect();
        (names == ["file"]).then_some(())
    };
    let mut writer = guest.agent.write_file(cwd, "dir/file", None).await.unwrap();
    writer.write(Bytes::from_static(b"new")).await.unwrap();
    drop(writer);
    until("the draft is gone", clean).await;
    let other = guest.reconnect().await;
    let mut writer = other.write_file(cwd, "dir/file", None).await.unwrap();
    writer.write(Bytes::from(vec![1; 600_000])).await.unwrap();
    // The connection goes without a word.
    std::mem::forget(writer);
    drop(other);
    assert_eq!(get(&guest.agent, cwd, "dir/file").await.unwrap(), b"old");
}

#[tokio::test]
async fn directories_are_made_with_parents_and_again_without_harm() {
    let guest = Guest::start().await;
    let (agent, cwd) = (&guest.agent, guest.directory.path());
    agent.mkdir(cwd, "x/y/z", Some(0o1777)).await.unwrap();
    agent.mkdir(cwd, "x/y/z", Some(0o700)).await.unwrap();
    let mode = |path: &str| std::fs::metadata(guest.path(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("x/y/z"), mode("x/y")), (0o1777, 0o755));
    std::fs::write(guest.path("file"), b"").unwrap();
    assert_eq!(kind(agent.mkdir(cwd, "file", None).await), FileErrorKind::AlreadyExists);
    assert_eq!(kind(agent.mkdir(cwd, "file/x/y", None).await), FileErrorKind::NotADirectory);
}

#[tokio::test]
async fn removing_does_not_follow_links() {
    let guest = Guest::start().await;
    let (agent, cwd) = (&guest.agent, guest.directory.path());
    std::fs::create_dir_all(guest.path("tree/sub")).unwrap();
    std::fs::create_dir(guest.path("kept")).unwrap();
    std::fs::write(guest.path("kept/file"), b"").unwrap();
    symlink(guest.path("kept"), guest.path("tree/sub/link")).unwrap();
    symlink("kept", guest.path("link")).unwrap();
    assert_eq!(kind(agent.remove(cwd, "tree", false).await), FileErrorKind::NotEmpty);
    agent.remove(cwd, "tree", true).await.unwrap();
    agent.remove(cwd, "link", true).await.unwrap();
    assert!(!guest.path("tree").exists() && guest.path("kept/file").exists());
    agent.remove(cwd, "kept/file", false).await.unwrap();
    agent.remove(cwd, "kept", false).await.unwrap();
    assert_eq!(kind(agent.remove(cwd, "kept", true).await), FileErrorKind::NotFound);
    assert_eq!(kind(agent.remove("/", "/tmp/..", true).await), FileErrorKind::InvalidArgument);
}

#[tokio::test]
async fn errors_have_their_kind_and_name_the_path() {
    let guest = Guest::start().await;
    let (agent, cwd) = (&guest.agent, guest.directory.path());
    std::fs::write(guest.path("file"), b"x").unwrap();
    std::fs::create_dir(guest.path("dir")).unwrap();
    symlink("loop", guest.path("loop")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, guest.path("fifo"), 0o600.into()).unwrap();
    let reads = [
        ("missing", FileErrorKind::NotFound),
        ("dir", FileErrorKind::IsADirectory),
        ("file/x", FileErrorKind::NotADirectory),
        ("loop", FileErrorKind::TooManyLinks),
        ("fifo", FileErrorKind::NotARegularFile),
        ("/dev/zero", FileErrorKind::NotARegularFile),
        ("", FileErrorKind::InvalidArgument),
        ("nul\0", FileErrorKind::InvalidArgument),
        ("n/", FileErrorKind::NotFound),
    ];
    for (path, expected) in reads {
        let error = agent.read_file(cwd, path).await.unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
        assert_eq!(kind::<()>(Err(error)), expected, "read {path}");
    }
    let writes = [
        ("dir", FileErrorKind::IsADirectory),
        ("dir/", FileErrorKind::IsADirectory),
        ("file/x", FileErrorKind::NotADirectory),
        ("loop", FileErrorKind::TooManyLinks),
        ("fifo", FileErrorKind::NotARegularFile),
        ("/dev/null", FileErrorKind::NotARegularFile),
        ("/proc/nothing", FileErrorKind::NotFound),
    ];
    for (path, expected) in writes {
        assert_eq!(kind(put(agent, cwd, path, b"y").await), expected, "write {path}");
    }
    let long = "n".repeat(256);
    assert_eq!(kind(agent.stat(cwd, &long).await), FileErrorKind::NameTooLong);
    assert_eq!(kind(agent.list(cwd, "file").await), FileErrorKind::NotADirectory);
    assert_eq!(kind(agent.list(cwd, "missing").await), FileErrorKind::NotFound);
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing() {
    if !is_root() {
        return skip("mounting needs root");
    }
    let guest = Guest::start().await;
    let mount = guest.path("small");
    std::fs::create_dir(&mount).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("small", &mount, "tmpfs", flags, c"size=1m").unwrap();
    let result = put(&guest.agent, &mount, "file", &vec![1; 3 << 20]).await;
    let left = std::fs::read_dir(&mount).unwrap().count();
    rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(kind(result), FileErrorKind::NoSpace);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn files_of_proc_and_a_reader_that_stops_early() {
    let guest = Guest::start().await;
    let status = get(&guest.agent, Path::new("/proc"), "self/status").await.unwrap();
    assert!(status.starts_with(b"Name:\t"));
    std::fs::write(guest.path("big"), vec![0; 5 << 20]).unwrap();
    for _ in 0..20 {
        let mut reader = guest.agent.read_file(guest.directory.path(), "big").await.unwrap();
        assert!(reader.next().await.unwrap().is_ok());
    }
    let reader = guest.agent.read_file(guest.directory.path(), "big").await.unwrap();
    assert!(matches!(reader.read_all(1000).await, Err(AgentError::TooLarge { .. })));
    guest.agent.ping().await.unwrap();
}
