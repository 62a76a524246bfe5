//! The two ways in: a TCP address, and a Unix socket that only its owner can open.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::error::ServerError;

pub(super) async fn tcp(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}

/// Listens at `path`, replacing the socket of an earlier life of the daemon (the data directory's
/// lock says that there is no other one). It appears under its name with mode 0600.
pub(super) fn unix(path: &Path) -> Result<UnixListener, ServerError> {
    let failed = |source| ServerError::Socket { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(found) => {
            use std::os::unix::fs::FileTypeExt;
            if !found.file_type().is_socket() {
                return Err(failed(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "something that is no socket has this name",
                )));
            }
        }
    }
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary).map_err(failed)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)?;
    Ok(listener)
}

/// Writes down which address was bound, for those who let the system choose the port.
pub(super) fn write_address(file: &Path, address: SocketAddr) -> Result<(), ServerError> {
    let temporary = file.with_extension("new");
    fs::write(&temporary, format!("{address}\n"))
        .and_then(|()| fs::rename(&temporary, file))
        .map_err(|source| ServerError::DataDir { action: "write", path: file.to_owned(), source })
}

pub(super) async fn serve_tcp(listener: TcpListener, router: Router, closing: CancellationToken) {
    // Answers are small and awaited: none of them must wait for another packet.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
    });
    let served = axum::serve(listener, router).with_graceful_shutdown(closing.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the TCP listener failed");
    }
}

pub(super) async fn serve_unix(listener: UnixListener, router: Router, closing: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(closing.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the Unix listener failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kiln.sock");
        drop(unix(&path).unwrap());
        let _listener = unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        tokio::net::UnixStream::connect(&path).await.unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kiln.sock");
        fs::write(&path, "precious").unwrap();
        let error = unix(&path).unwrap_err().to_string();
        assert!(error.contains("kiln.sock"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
