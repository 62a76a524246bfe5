//! Work inside a network namespace, on a thread of its own, and the kernel settings of one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use super::NetworkError;

/// Runs `work` on a fresh thread. It may enter a namespace and never leave it: the thread ends.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("kiln-netns".into())
        .spawn(move || drop(sender.send(work())))
        .map_err(|source| NetworkError::Thread { source })?;
    let lost = |_| NetworkError::Thread { source: io::Error::other("it panicked") };
    receiver.await.map_err(lost)?
}

/// The calling thread's namespace.
pub(super) fn current() -> Result<OwnedFd, NetworkError> {
    let file = fs::File::open("/proc/thread-self/ns/net");
    file.map(OwnedFd::from).map_err(|source| NetworkError::Enter { source })
}

/// Moves the calling thread.
pub(super) fn enter(netns: impl AsFd) -> Result<(), NetworkError> {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| NetworkError::Enter { source: errno.into() })
}

/// Keeps a namespace beyond the borrow.
pub(super) fn keep(netns: BorrowedFd<'_>) -> Result<OwnedFd, NetworkError> {
    netns.try_clone_to_owned().map_err(|source| NetworkError::Enter { source })
}

/// Writes a setting of the calling thread's namespace (`/proc/sys/net` shows each reader its own).
pub(super) fn set(setting: &str, value: &str) -> Result<(), NetworkError> {
    let path = path_of(setting);
    fs::write(&path, value).map_err(|source| NetworkError::Setting {
        path,
        value: value.into(),
        source,
    })
}

/// As [`set`], for settings of a protocol that the kernel may be built without.
pub(super) fn set_if_there(setting: &str, value: &str) -> Result<(), NetworkError> {
    match set(setting, value) {
        Err(NetworkError::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

/// Reads a setting of the calling thread's namespace.
pub(super) fn get(setting: &str) -> Result<String, NetworkError> {
    let path = path_of(setting);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim_end().into()),
        Err(source) => Err(NetworkError::Setting { path, value: String::new(), source }),
    }
}

fn path_of(setting: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(setting)
}
