//! What a guest can put in the agent's way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_runtime::agent::{AgentError, ExecSpec, FileErrorKind, StartErrorKind};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, mkfifoat, openat};

use crate::guest::{DEADLINE, Guest, command, sh};

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what} does not end"))
}

#[tokio::test]
async fn a_fifo_or_a_device_in_place_of_the_users_holds_nothing_up() {
    let Some(guest) = Guest::busybox().await else { return };
    let etc = guest.path("root/etc");
    fs::create_dir(&etc).unwrap();
    for fifo in [true, false] {
        for name in ["passwd", "group"] {
            let path = etc.join(name);
            let _not_there_at_first = fs::remove_file(&path);
            if fifo {
                mkfifoat(CWD, &path, Mode::RUSR).unwrap();
            } else {
                // Endless, were it read.
                fs::create_dir_all(guest.path("root/dev")).unwrap();
                let node = guest.path("root/dev/zero");
                let kind = rustix::fs::FileType::CharacterDevice;
                let mode = Mode::RUSR;
                let _made_before =
                    rustix::fs::mknodat(CWD, &node, kind, mode, rustix::fs::makedev(1, 5));
                symlink("/dev/zero", &path).unwrap();
            }
        }
        let output = in_time("a command of root", guest.run(command(&["true"]))).await;
        assert_eq!(output.status.code, 0);
        let named = ExecSpec { user: Some("ada".into()), ..command(&["true"]) };
        let error = in_time("a command of ada", guest.agent.exec(named)).await.unwrap_err();
        let unknown = StartErrorKind::UnknownUser;
        assert!(matches!(&error, AgentError::Start { kind, .. } if *kind == unknown), "{error:?}");
    }
    let sparse = fs::File::create(etc.join("new")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    fs::rename(etc.join("new"), etc.join("passwd")).unwrap();
    in_time("a command beside a huge file", guest.run(command(&["true"]))).await;
}

#[tokio::test]
async fn paths_of_many_components_are_made() {
    let guest = Guest::start().await;
    let deep = "d/".repeat(1900);
    let path = guest.directory.path().join(&deep);
    in_time("a deep path", guest.agent.mkdir("/", &path, None)).await.unwrap();
    assert!(path.is_dir());
    let deeper = "d/".repeat(40_000);
    let error = in_time("a path too long", guest.agent.mkdir("/", &deeper, None)).await;
    let kind = FileErrorKind::NameTooLong;
    assert!(matches!(&error, Err(AgentError::File { kind: found, .. }) if *found == kind));
    let made = guest.directory.path().join("d");
    in_time("a deep removal", guest.agent.remove("/", &made, true)).await.unwrap();
    assert!(!made.exists());
    guest.agent.ping().await.unwrap();
}

/// Makes a chain of directories, deeper than any path is long.
fn chain(top: &Path, depth: usize) {
    fs::create_dir(top).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = rustix::fs::open(top, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        for name in ["before", "down", "zero"] {
            mkdirat(&here, name, Mode::RWXU).unwrap();
        }
        here = openat(&here, "down", flags, Mode::empty()).unwrap();
    }
    drop(openat(&here, "file", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR).unwrap());
}

#[tokio::test]
async fn trees_of_any_depth_are_removed() {
    let guest = Guest::start().await;
    let top = guest.path("deep");
    chain(&top, 5000);
    fs::create_dir(guest.path("kept")).unwrap();
    symlink(guest.path("kept"), top.join("down/link")).unwrap();
    in_time("the removal", guest.agent.remove("/", &top, true)).await.unwrap();
    assert!(!top.exists() && guest.path("kept").exists());
    guest.agent.ping().await.unwrap();
}

#[tokio::test]
async fn a_directory_of_a_hundred_thousand_is_listed() {
    let guest = Guest::start().await;
    let many = guest.path("many");
    fs::create_dir(&many).unwrap();
    for number in 0..100_000 {
        // Hard links cost no inode each; a file takes some ten thousands on any file system.
        if number % 20_000 == 0 {
            fs::write(many.join(format!("{number:06}")), b"").unwrap();
        } else {
            let first = many.join(format!("{:06}", number - number % 20_000));
            fs::hard_link(first, many.join(format!("{number:06}"))).unwrap();
        }
    }
    let listed = in_time("the listing", guest.agent.list("/", &many)).await.unwrap();
    assert_eq!(listed.len(), 100_000);
    assert!(listed.iter().enumerate().all(|(n, info)| info.name == *format!("{n:06}")));
}

#[tokio::test]
async fn a_command_ends_while_what_it_left_writes_without_a_pause() {
    let guest = Guest::start().await;
    for redirect in ["", ">&2"] {
        let before = Instant::now();
        // The writer ends by itself, should the test fail.
        let script = format!("timeout 60 yes {redirect} & echo $! > pid; exit 3");
        let spec =
            ExecSpec { cwd: guest.directory.path().to_str().map(String::from), ..sh(&script) };
        let output = in_time("the command", guest.run(spec)).await;
        assert_eq!(output.status.code, 3);
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        let pid = fs::read_to_string(guest.path("pid")).unwrap();
        guest.script(&format!("kill {}", pid.trim())).await;
    }
}
