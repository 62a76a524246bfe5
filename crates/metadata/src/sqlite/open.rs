//! Opening the file and bringing it to the current schema.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection as _};

use super::sums::{self, Summed};
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
        Self::open_with(path.as_ref(), false).await
    }

    /// The same, of a database that has been used before: `Empty` when it has no tables, and nothing is
    /// changed then.
    pub async fn open_existing(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path.as_ref(), true).await
    }

    async fn open_with(path: &Path, existing: bool) -> Result<Self> {
        let shown = path.display().to_string();
        let failed = |source| MetadataError::Open { path: shown.clone(), source };
        // Absolute, so that no name can be taken for a URI.
        let path = std::path::absolute(path).map_err(|error| failed(error.into()))?;
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
        let summed = Arc::new(Summed::default());
        let watch = Arc::clone(&summed);
        let writer = pool(1)
            .after_connect(move |connection, _| {
                let watch = Arc::clone(&watch);
                Box::pin(async move { watch.watch(connection).await })
            })
            // SQLite itself ends a transaction that finds the disk full; sqlx then still counts it, and
            // would begin none on this connection ever again.
            .before_acquire(|connection, _| {
                let lost = connection.is_in_transaction();
                if lost {
                    tracing::warn!("replacing a database connection whose transaction was lost");
                }
                Box::pin(async move { Ok(!lost) })
            })
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        let migrated = migrate(&writer, &shown, &summed, existing).await;
        if let Err(error) = migrated {
            writer.close().await;
            return Err(error);
        }
        kiln_failpoint::pass("db.migrated");
        drop(lock);
        let readers =
            pool(READERS).connect_with(options.pragma("query_only", "ON")).await.map_err(failed)?;
        Ok(Self { readers, writer, summed })
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
            kiln_failpoint::reach("db.created")?;
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
    kiln_failpoint::reach("db.locked")?;
    Ok(lock)
}

async fn migrate(writer: &SqlitePool, path: &str, summed: &Summed, existing: bool) -> Result<()> {
    let failed = |source| MetadataError::Open { path: path.to_owned(), source };
    let migrated: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')",
    )
    .fetch_one(writer)
    .await
    .map_err(failed)?;
    if existing && !migrated {
        return Err(MetadataError::Empty { path: path.to_owned() });
    }
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
    let suspects = if is_current(writer).await.map_err(failed)? {
        Vec::new()
    } else {
        sums::suspects(writer).await.map_err(failed)?
    };
    MIGRATOR
        .run(writer)
        .await
        .map_err(|source| MetadataError::Migrate { path: path.to_owned(), source })?;
    sums::begin(writer, summed, &suspects).await.map_err(failed)
}

/// Whether no migration is to be applied.
async fn is_current(writer: &SqlitePool) -> std::result::Result<bool, sqlx::Error> {
    let has_any: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')",
    )
    .fetch_one(writer)
    .await?;
    if !has_any {
        return Ok(false);
    }
    let applied: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations").fetch_all(writer).await?;
    Ok(MIGRATOR.iter().all(|migration| applied.contains(&migration.version)))
}
