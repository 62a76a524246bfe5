//! Table `row_sums`: a checksum of every row, so that no flipped bit of the file passes for data.
//!
//! SQLite verifies the structure of its pages, not what the rows in them say. So each transaction that
//! writes also writes the checksums of the rows that it changed: triggers of the writing connection
//! note which those are (rows that go with others, by foreign keys, among them), and the commit reads
//! them back. Whoever edits the database by other means makes rows that [`verify`] reports.

mod table;

use std::collections::HashMap;
use std::sync::OnceLock;

use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Row, query};

use self::table::{Table, tables};
use super::{Query, Result, SqliteStore, Write, column};
use crate::{Damage, DamageKind, MetadataError, Verified};

/// Where the marker is kept that says which schema the checksums were made for.
const MARKER: (&str, &str) = ("", "schema");
/// How many complaints of SQLite's own check are listed.
const COMPLAINTS: usize = 100;

/// The tables of a database that is open, once its schema is the current one.
#[derive(Debug, Default)]
pub(super) struct Summed {
    tables: OnceLock<Vec<Table>>,
}

/// Rows whose checksums were wrong before the schema was changed; they stay wrong.
pub(super) type Suspects = Vec<(String, String)>;

impl Summed {
    fn tables(&self) -> &[Table] {
        self.tables.get().map_or(&[], Vec::as_slice)
    }

    /// Makes the connection note which rows are written. For every connection that writes.
    pub(super) async fn watch(
        &self,
        connection: &mut SqliteConnection,
    ) -> std::result::Result<(), sqlx::Error> {
        if self.tables().is_empty() {
            return Ok(());
        }
        let mut sql = "PRAGMA temp_store = MEMORY;
            CREATE TEMP TABLE IF NOT EXISTS touched (tbl TEXT NOT NULL, key TEXT NOT NULL);"
            .to_owned();
        for table in self.tables() {
            sql.push_str(&table.triggers());
        }
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
        Ok(())
    }
}

/// What has to be known before the schema is changed: the rows that do not have their checksums.
pub(super) async fn suspects(writer: &SqlitePool) -> std::result::Result<Suspects, sqlx::Error> {
    let mut connection = writer.acquire().await?;
    let summed: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'row_sums')")
            .fetch_one(&mut *connection)
            .await?;
    if !summed {
        return Ok(Vec::new());
    }
    let tables = tables(&mut connection).await?;
    let (_, wrong) = compare(&mut connection, &tables).await?;
    Ok(wrong.into_iter().map(|(table, key, _)| (table, key)).collect())
}

/// Begins to watch, after making the checksums anew if they are those of another schema.
pub(super) async fn begin(
    writer: &SqlitePool,
    summed: &Summed,
    suspects: &Suspects,
) -> std::result::Result<(), sqlx::Error> {
    let mut connection = writer.acquire().await?;
    let tables = tables(&mut connection).await?;
    let marker = marker(&mut connection).await?;
    let found: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT sum FROM row_sums WHERE tbl = ?1 AND key = ?2")
            .bind(MARKER.0)
            .bind(MARKER.1)
            .fetch_optional(&mut *connection)
            .await?;
    if found.as_deref() != Some(&marker) {
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let made = remake(&mut connection, &tables, &marker, suspects).await;
        let end = if made.is_ok() { "COMMIT" } else { "ROLLBACK" };
        sqlx::raw_sql(end).execute(&mut *connection).await?;
        made?;
    }
    // Set once: a store is opened once.
    let _ = summed.tables.set(tables);
    summed.watch(&mut connection).await
}

async fn remake(
    connection: &mut SqliteConnection,
    tables: &[Table],
    marker: &[u8],
    suspects: &Suspects,
) -> std::result::Result<(), sqlx::Error> {
    sqlx::raw_sql("DELETE FROM row_sums").execute(&mut *connection).await?;
    let mut sums = vec![(MARKER.0.to_owned(), MARKER.1.to_owned(), marker.to_vec())];
    for table in tables {
        for row in query(AssertSqlSafe(table.all())).fetch_all(&mut *connection).await? {
            let (key, sum) = table.sum(&row)?;
            sums.push((table.name().to_owned(), key, sum));
        }
    }
    for (table, key) in suspects {
        for sum in sums.iter_mut().filter(|sum| (&sum.0, &sum.1) == (table, key)) {
            sum.2.clear();
        }
    }
    for sums in sums.chunks(500) {
        put(sums).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Which migrations the database has had.
async fn marker(connection: &mut SqliteConnection) -> std::result::Result<Vec<u8>, sqlx::Error> {
    let versions: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .await?;
    Ok(table::digest(format!("checksums 1 {versions:?}").as_bytes()))
}

fn put(sums: &[(String, String, Vec<u8>)]) -> Query {
    let sums: Vec<[String; 3]> = sums
        .iter()
        .map(|(table, key, sum)| [table.clone(), key.clone(), table::hex(sum)])
        .collect();
    query(
        "INSERT INTO row_sums (tbl, key, sum)
         SELECT value ->> 0, value ->> 1, unhex(value ->> 2) FROM json_each(?1) WHERE true
         ON CONFLICT (tbl, key) DO UPDATE SET sum = excluded.sum",
    )
    .bind(column::from_json(&sums))
}

/// Writes the checksums of all rows that a transaction has touched.
pub(super) async fn write(store: &Summed, write: &mut Write) -> Result<()> {
    if store.tables().is_empty() {
        return Ok(());
    }
    let touched = write.rows(query("SELECT DISTINCT tbl, key FROM temp.touched")).await?;
    if touched.is_empty() {
        return Ok(());
    }
    let mut gone: HashMap<String, Vec<String>> = HashMap::new();
    for row in &touched {
        let (table, key): (String, String) =
            (column::plain(row, "touched.tbl")?, column::plain(row, "touched.key")?);
        gone.entry(table).or_default().push(key);
    }
    let mut sums = Vec::new();
    for table in store.tables() {
        let keys = gone.get_mut(table.name());
        let numbered = table.numbers().is_some_and(|numbered| gone_or(&touched, numbered));
        if keys.is_none() && !numbered {
            continue;
        }
        for row in write.rows(query(AssertSqlSafe(table.touched()))).await? {
            let (key, sum) = table.sum(&row).map_err(|source| write.failed(source))?;
            sums.push((table.name().to_owned(), key, sum));
        }
    }
    for (table, key, _) in &sums {
        if let Some(keys) = gone.get_mut(table) {
            keys.retain(|gone| gone != key);
        }
    }
    write.execute(put(&sums)).await?;
    let gone: Vec<[String; 2]> = gone
        .into_iter()
        .flat_map(|(table, keys)| keys.into_iter().map(move |key| [table.clone(), key]))
        .collect();
    if !gone.is_empty() {
        let statement = query(
            "DELETE FROM row_sums WHERE (tbl, key) IN
             (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
        );
        write.execute(statement.bind(column::from_json(&gone))).await?;
    }
    write.execute(query("DELETE FROM temp.touched")).await?;
    Ok(())
}

fn gone_or(touched: &[SqliteRow], tables: &[String]) -> bool {
    touched.iter().any(|row| {
        row.try_get::<&str, _>("tbl").is_ok_and(|name| tables.iter().any(|table| table == name))
    })
}

/// Everything that is wrong with the database.
pub(super) async fn verify(store: &SqliteStore) -> Result<Verified> {
    let failed = |source| MetadataError::Query { action: "verify itself".to_owned(), source };
    let mut connection = store.readers.acquire().await.map_err(failed)?;
    // One moment for all that is read.
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await.map_err(failed)?;
    let mut verified = Verified::default();
    let broken = |source: &sqlx::Error| Damage {
        kind: DamageKind::File,
        subject: "database".to_owned(),
        problem: source.to_string(),
    };
    match structure(&mut connection).await {
        Ok(damage) => verified.damage.extend(damage),
        Err(error) => verified.damage.push(broken(&error)),
    }
    match compare(&mut connection, store.summed.tables()).await {
        Ok((rows, wrong)) => {
            verified.rows = rows;
            verified.damage.extend(wrong.into_iter().map(|(table, key, problem)| Damage {
                kind: DamageKind::Row,
                subject: format!("{table} {key}"),
                problem,
            }));
        }
        Err(error) => verified.damage.push(broken(&error)),
    }
    if sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.is_err() {
        // Whatever is wrong with it, nobody else gets this connection.
        drop(connection.detach());
    }
    Ok(verified)
}

async fn structure(
    connection: &mut SqliteConnection,
) -> std::result::Result<Vec<Damage>, sqlx::Error> {
    let mut damage = Vec::new();
    let complaints: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut *connection).await?;
    for complaint in complaints.into_iter().filter(|line| line != "ok").take(COMPLAINTS) {
        damage.push(Damage {
            kind: DamageKind::File,
            subject: "database".to_owned(),
            problem: complaint.lines().collect::<Vec<_>>().join("; "),
        });
    }
    for row in query("PRAGMA foreign_key_check").fetch_all(&mut *connection).await? {
        let (table, parent): (String, String) = (row.try_get("table")?, row.try_get("parent")?);
        damage.push(Damage {
            kind: DamageKind::Reference,
            subject: table,
            problem: format!("a row names a row of `{parent}` that is not there"),
        });
    }
    Ok(damage)
}

type Wrong = Vec<(String, String, String)>;

/// Holds every row against its checksum.
async fn compare(
    connection: &mut SqliteConnection,
    tables: &[Table],
) -> std::result::Result<(u64, Wrong), sqlx::Error> {
    let mut sums: HashMap<(String, String), Vec<u8>> = HashMap::new();
    for row in query("SELECT tbl, key, sum FROM row_sums").fetch_all(&mut *connection).await? {
        sums.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    sums.remove(&(MARKER.0.to_owned(), MARKER.1.to_owned()));
    let (mut rows, mut wrong) = (0, Vec::new());
    for table in tables {
        for row in query(AssertSqlSafe(table.all())).fetch_all(&mut *connection).await? {
            rows += 1;
            let (key, found) = table.sum(&row)?;
            let problem = match sums.remove(&(table.name().to_owned(), key.clone())) {
                Some(sum) if sum == found => continue,
                Some(_) => "the row is not as Kiln wrote it",
                None => "the row was not written by Kiln",
            };
            wrong.push((table.name().to_owned(), key, problem.to_owned()));
        }
    }
    let gone = sums
        .into_keys()
        .map(|(table, key)| (table, key, "the row is gone, and Kiln did not remove it".to_owned()));
    let mut gone: Vec<_> = gone.collect();
    gone.sort();
    wrong.extend(gone);
    Ok((rows, wrong))
}

/// Makes the indexes of all tables anew.
pub(super) async fn rebuild_indexes(store: &SqliteStore) -> Result<()> {
    store.execute(query("REINDEX"), || "make its indexes anew".to_owned()).await?;
    Ok(())
}

/// Removes a row with its checksum, wherever only one of the two is there.
pub(super) async fn drop_row(store: &SqliteStore, table: &str, key: &str) -> Result<()> {
    let action = || format!("remove the row {key} of {table}");
    let found = store.summed.tables().iter().find(|found| found.name() == table);
    let mut write = store.begin(action).await?;
    if let Some(found) = found.filter(|found| found.is_ours()) {
        write.execute(query(AssertSqlSafe(found.removal())).bind(key.to_owned())).await?;
    }
    let sum = query("DELETE FROM row_sums WHERE tbl = ?1 AND key = ?2");
    write.execute(sum.bind(table.to_owned()).bind(key.to_owned())).await?;
    write.commit().await
}
