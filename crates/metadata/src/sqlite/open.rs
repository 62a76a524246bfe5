//! Opening the file and bringing it to the current schema.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::{Result, SqliteStore};
use crate::MetadataError;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a writer waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;

impl SqliteStore {
    /// Opens the database in the file `path`, making it when it is not there (its directory must be),
    /// and applies the migrations that it lacks. `NewerSchema` when it has some that are not known
    /// here; nothing is changed then.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let shown = path.as_ref().display().to_string();
        let failed = |source| MetadataError::Open { path: shown.clone(), source };
        // Absolute, so that no name can be taken for a URI.
        let path = std::path::absolute(path.as_ref()).map_err(|error| failed(error.into()))?;
        let prepared = path.clone();
        let lock = tokio::task::spawn_blocking(move || prepare(&prepared))
            .await
            .map_err(|error| failed(io::Error::other(error).into()))?
            .map_err(|error| failed(error.into()))?;

        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        let migrated = migrate(&writer, &shown).await;
        if let Err(error) = migrated {
            writer.close().await;
            return Err(error);
        }
        drop(lock);
        let readers =
            pool(READERS).connect_with(options.pragma("query_only", "ON")).await.map_err(failed)?;
        Ok(Self { readers, writer })
    }
}

/// Connections are local and live as long as the store: none is probed, replaced or closed.
fn pool(size: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(size)
        .min_connections(1)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// Makes the file, for this user alone, and takes the lock under which the schema is changed.
fn prepare(path: &Path) -> io::Result<File> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    // The database itself is never locked or even opened here: closing it would end SQLite's locks.
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(PathBuf::from(lock_path))?;
    lock.lock()?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {
            if let Some(directory) = path.parent() {
                File::open(directory)?.sync_all()?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::metadata(path)?.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
        }
        Err(error) => return Err(error),
    }
    Ok(lock)
}

async fn migrate(writer: &SqlitePool, path: &str) -> Result<()> {
    let failed = |source| MetadataError::Open { path: path.to_owned(), source };
    let migrated: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')",
    )
    .fetch_one(writer)
    .await
    .map_err(failed)?;
    if migrated {
        let found: i64 = sqlx::query_scalar("SELECT IFNULL(MAX(version), 0) FROM _sqlx_migrations")
            .fetch_one(writer)
            .await
            .map_err(failed)?;
        let known = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
        if found > known {
            return Err(MetadataError::NewerSchema { path: path.to_owned(), found, known });
        }
    }
    MIGRATOR
        .run(writer)
        .await
        .map_err(|source| MetadataError::Migrate { path: path.to_owned(), source })
}
