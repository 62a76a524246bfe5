//! SQLite.
//!
//! One connection writes (`BEGIN IMMEDIATE`), a few read; the journal is a write-ahead log that is
//! synced at every commit. Each table is read and written by one module.

mod builds;
mod column;
mod images;
mod interface;
mod keys;
mod layers;
mod names;
mod open;
mod sandboxes;
mod slots;
mod snapshots;
mod steps;
mod sums;
mod whole;

use std::sync::Arc;

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Sqlite, Transaction};

use crate::MetadataError;

type Result<T> = std::result::Result<T, MetadataError>;
type Query = sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments>;

/// A store in one SQLite file. Clones share the connections.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    writer: SqlitePool,
    summed: Arc<sums::Summed>,
}

impl SqliteStore {
    /// Closes all connections, after the calls under way. Later calls fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Begins a transaction that is durable when its commit returns. `action` as in
    /// [`MetadataError::Query`].
    async fn begin(&self, action: impl FnOnce() -> String) -> Result<Write> {
        // Said each time: the transaction before may have asked for less.
        self.begin_with("PRAGMA synchronous = FULL; BEGIN IMMEDIATE", action()).await
    }

    /// Begins a transaction whose commit survives this process but not yet a power failure; the next
    /// durable commit makes it durable too.
    async fn begin_relaxed(&self, action: impl FnOnce() -> String) -> Result<Write> {
        self.begin_with("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE", action()).await
    }

    async fn begin_with(&self, statement: &'static str, action: String) -> Result<Write> {
        let begun = self.writer.begin_with(statement).await;
        let begun = begun.and_then(|transaction| {
            kiln_failpoint::reach("db.begun").map_err(sqlx::Error::Io).map(|()| transaction)
        });
        match begun {
            Ok(transaction) => Ok(Write { transaction, action, summed: Arc::clone(&self.summed) }),
            Err(source) => Err(MetadataError::Query { action, source }),
        }
    }

    /// One durable statement; answers how many rows it changed.
    async fn execute(&self, query: Query, action: impl FnOnce() -> String) -> Result<u64> {
        let mut write = self.begin(action).await?;
        let changed = write.execute(query).await?;
        write.commit().await?;
        Ok(changed)
    }

    async fn row(
        &self,
        query: Query,
        action: impl FnOnce() -> String,
    ) -> Result<Option<SqliteRow>> {
        query
            .fetch_optional(&self.readers)
            .await
            .map_err(|source| MetadataError::Query { action: action(), source })
    }

    async fn rows(&self, query: Query, action: impl FnOnce() -> String) -> Result<Vec<SqliteRow>> {
        query
            .fetch_all(&self.readers)
            .await
            .map_err(|source| MetadataError::Query { action: action(), source })
    }
}

/// A write transaction, rolled back when dropped.
struct Write {
    transaction: Transaction<'static, Sqlite>,
    action: String,
    summed: Arc<sums::Summed>,
}

impl Write {
    async fn execute(&mut self, query: Query) -> Result<u64> {
        match query.execute(&mut *self.transaction).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(source) => Err(self.failed(source)),
        }
    }

    async fn row(&mut self, query: Query) -> Result<Option<SqliteRow>> {
        match query.fetch_optional(&mut *self.transaction).await {
            Ok(row) => Ok(row),
            Err(source) => Err(self.failed(source)),
        }
    }

    async fn rows(&mut self, query: Query) -> Result<Vec<SqliteRow>> {
        match query.fetch_all(&mut *self.transaction).await {
            Ok(rows) => Ok(rows),
            Err(source) => Err(self.failed(source)),
        }
    }

    async fn commit(mut self) -> Result<()> {
        let summed = Arc::clone(&self.summed);
        sums::write(&summed, &mut self).await?;
        let Self { transaction, action, .. } = self;
        let committed = match kiln_failpoint::reach("db.commit") {
            Ok(()) => transaction.commit().await,
            Err(error) => Err(sqlx::Error::Io(error)),
        };
        committed.map_err(|source| MetadataError::Query { action, source })?;
        kiln_failpoint::pass("db.committed");
        Ok(())
    }

    fn failed(&self, source: sqlx::Error) -> MetadataError {
        MetadataError::Query { action: self.action.clone(), source }
    }
}

/// Whether a statement failed because the row that a column refers to is not there, or is needed.
fn is_foreign_key_violation(error: &MetadataError) -> bool {
    matches!(error, MetadataError::Query { source: sqlx::Error::Database(error), .. }
        if error.is_foreign_key_violation())
}

fn is_unique_violation(error: &MetadataError) -> bool {
    matches!(error, MetadataError::Query { source: sqlx::Error::Database(error), .. }
        if error.is_unique_violation())
}
