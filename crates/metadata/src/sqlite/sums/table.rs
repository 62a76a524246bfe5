//! A table whose rows have checksums: how a row is found, and what is summed of it.

use std::fmt::Write as _;

use kiln_types::Digest;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Column, Row, TypeInfo, Value, ValueRef, query};

/// Bytes of a checksum: the first of SHA-256.
const LENGTH: usize = 16;
/// The column with a row's key in the statements of [`Table`].
const KEY: &str = "sum_key";

/// A table, or what SQLite keeps like one.
#[derive(Clone, Debug)]
pub(super) struct Table {
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// One of ours, with the columns of its primary key and whether that is a number.
    Ours { key: Vec<String>, number: bool },
    /// Written when it is made and by migrations only.
    Fixed { key: &'static str, columns: &'static str },
    /// The counters of the tables that number their rows.
    Counters { of: Vec<String> },
}

/// The tables of a database.
pub(super) async fn tables(connection: &mut SqliteConnection) -> Result<Vec<Table>, sqlx::Error> {
    check_schema(connection).await?;
    let mut tables = Vec::new();
    let mut numbered = Vec::new();
    let found = query(
        "SELECT name, sql LIKE '%AUTOINCREMENT%' AS numbered FROM sqlite_schema
         WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND name NOT IN ('row_sums', '_sqlx_migrations') ORDER BY name",
    );
    for row in found.fetch_all(&mut *connection).await? {
        let name: String = row.try_get("name")?;
        if row.try_get("numbered")? {
            numbered.push(name.clone());
        }
        let columns =
            query("SELECT name, type FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")
                .bind(name.clone());
        let (mut key, mut number) = (Vec::new(), true);
        for column in columns.fetch_all(&mut *connection).await? {
            key.push(column.try_get("name")?);
            number &= column.try_get::<String, _>("type")? == "INTEGER";
        }
        // A row's number says nothing to anybody; numbered tables have something better.
        if numbered.contains(&name) {
            let unique = query(
                "SELECT of.name FROM pragma_index_list(?1) AS list, pragma_index_info(list.name) AS of
                 WHERE list.origin = 'u'",
            );
            let unique = unique.bind(name.clone()).fetch_all(&mut *connection).await?;
            if let [column] = unique.as_slice() {
                (key, number) = (vec![column.try_get("name")?], false);
            }
        }
        tables.push(Table { name, kind: Kind::Ours { key, number } });
    }
    let fixed = |name: &str, key, columns| Table {
        name: name.to_owned(),
        kind: Kind::Fixed { key, columns },
    };
    // The root pages are left out: SQLite may move them, and finds wrong ones itself.
    tables.push(fixed("sqlite_schema", "type || ' ' || name", "type, name, tbl_name, sql"));
    tables.push(fixed("_sqlx_migrations", "CAST(version AS TEXT)", "*"));
    tables
        .push(Table { name: "sqlite_sequence".to_owned(), kind: Kind::Counters { of: numbered } });
    Ok(tables)
}

/// Refuses a schema that is not text: the driver takes it for granted that names are.
async fn check_schema(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let texts =
        query("SELECT CAST(name AS BLOB), CAST(IFNULL(sql, '') AS BLOB) FROM sqlite_schema");
    for row in texts.fetch_all(connection).await? {
        for column in 0..2 {
            let text: Vec<u8> = row.try_get(column)?;
            if std::str::from_utf8(&text).is_err() {
                let text = String::from_utf8_lossy(&text).chars().take(200).collect::<String>();
                return Err(sqlx::Error::Protocol(format!("the schema is damaged: {text}")));
            }
        }
    }
    Ok(())
}

impl Table {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The tables whose rows this one numbers.
    pub(super) fn numbers(&self) -> Option<&[String]> {
        match &self.kind {
            Kind::Counters { of } => Some(of),
            _ => None,
        }
    }

    /// The statement that reads all rows.
    pub(super) fn all(&self) -> String {
        let (name, key) = (&self.name, self.key(""));
        let columns = match &self.kind {
            Kind::Fixed { columns, .. } => columns,
            _ => "*",
        };
        format!("SELECT {key} AS {KEY}, {columns} FROM main.{name}")
    }

    /// The statement that reads those of the rows that were touched that are there.
    pub(super) fn touched(&self) -> String {
        let (all, name) = (self.all(), &self.name);
        match &self.kind {
            Kind::Ours { key, number } => {
                let touched = match (key.as_slice(), number) {
                    ([_], true) => "CAST(key AS INTEGER)".to_owned(),
                    ([_], false) => "key".to_owned(),
                    (several, _) => (0..several.len())
                        .map(|at| format!("key ->> {at}"))
                        .collect::<Vec<_>>()
                        .join(", "),
                };
                let columns = key.join(", ");
                format!(
                    "{all} WHERE ({columns}) IN
                     (SELECT {touched} FROM temp.touched WHERE tbl = '{name}')"
                )
            }
            _ => all,
        }
    }

    /// Whether it is a table of Kiln's own.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Ours { .. })
    }

    /// The statement that removes the row with a key.
    pub(super) fn removal(&self) -> String {
        format!("DELETE FROM main.{} WHERE {} = ?1", self.name, self.key(""))
    }

    /// The triggers that note what is written.
    pub(super) fn triggers(&self) -> String {
        if !matches!(self.kind, Kind::Ours { .. }) {
            return String::new();
        }
        let name = &self.name;
        let mut sql = String::new();
        for (event, rows) in
            [("INSERT", &["NEW"][..]), ("UPDATE", &["OLD", "NEW"]), ("DELETE", &["OLD"])]
        {
            let _ = write!(
                sql,
                "CREATE TEMP TRIGGER IF NOT EXISTS sum_{name}_{event} AFTER {event} ON main.{name} BEGIN "
            );
            for row in rows {
                let key = self.key(&format!("{row}."));
                let _ = write!(sql, "INSERT INTO touched (tbl, key) VALUES ('{name}', {key}); ");
            }
            sql.push_str("END;\n");
        }
        sql
    }

    /// The expression for a row's key; `of` is what stands before the columns.
    fn key(&self, of: &str) -> String {
        match &self.kind {
            Kind::Ours { key, .. } => match key.as_slice() {
                [column] => format!("CAST({of}{column} AS TEXT)"),
                columns => {
                    let columns: Vec<_> =
                        columns.iter().map(|column| format!("{of}{column}")).collect();
                    format!("json_array({})", columns.join(", "))
                }
            },
            Kind::Fixed { key, .. } => (*key).to_owned(),
            Kind::Counters { .. } => "name".to_owned(),
        }
    }

    /// The key of a row of these statements, and its checksum. Columns without a value do not count, so
    /// that a column that is added later changes nothing.
    pub(super) fn sum(&self, row: &SqliteRow) -> Result<(String, Vec<u8>), sqlx::Error> {
        let mut text = self.name.clone().into_bytes();
        for column in row.columns().iter().skip(1) {
            let value = row.try_get_raw(column.ordinal())?;
            if value.is_null() {
                continue;
            }
            let value = value.to_owned();
            let kind = value.type_info().name().to_owned();
            let bytes = match kind.as_str() {
                "INTEGER" | "BOOLEAN" => {
                    value.try_decode_unchecked::<i64>()?.to_le_bytes().to_vec()
                }
                "REAL" => value.try_decode_unchecked::<f64>()?.to_bits().to_le_bytes().to_vec(),
                _ => value.try_decode_unchecked::<Vec<u8>>()?,
            };
            for part in [column.name().as_bytes(), kind.as_bytes(), &bytes] {
                text.extend((part.len() as u64).to_le_bytes());
                text.extend(part);
            }
        }
        // What is not text (any more) is damaged, and its key is its own.
        let key: Vec<u8> = row.try_get_unchecked(KEY)?;
        Ok((String::from_utf8_lossy(&key).into_owned(), digest(&text)))
    }
}

pub(super) fn digest(bytes: &[u8]) -> Vec<u8> {
    Digest::of(bytes).as_bytes()[..LENGTH].to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
