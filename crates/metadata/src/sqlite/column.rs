//! Values to columns and back. `what` is always `table.column`.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};

use super::Result;
use crate::MetadataError;

/// RFC 3339 in UTC with nine fractional digits: nothing is lost, and text order is time order.
pub(super) fn from_time(time: Timestamp) -> String {
    format!("{time:.9}")
}

pub(super) fn from_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("records have a JSON form")
}

/// The one word that an enumeration's value is in JSON.
pub(super) fn from_word<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("a state is a JSON string: {other:?}"),
    }
}

pub(super) fn from_u64(what: &'static str, value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| MetadataError::OutOfRange { what, value })
}

/// What a list by id goes on before when it begins: text that no id reaches.
pub(super) fn above_all_ids() -> String {
    "~".to_owned()
}

/// The value as SQLite has it.
pub(super) fn plain<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
    row: &'r SqliteRow,
    what: &'static str,
) -> Result<T> {
    let column = what.split_once('.').map_or(what, |(_, column)| column);
    row.try_get(column)
        .map_err(|source| MetadataError::Query { action: format!("read {what}"), source })
}

/// Text of a type that parses.
pub(super) fn parsed<T: FromStr>(row: &SqliteRow, what: &'static str) -> Result<T> {
    parse(plain(row, what)?, what)
}

pub(super) fn parsed_option<T: FromStr>(row: &SqliteRow, what: &'static str) -> Result<Option<T>> {
    plain::<Option<&str>>(row, what)?.map(|text| parse(text, what)).transpose()
}

fn parse<T: FromStr>(text: &str, what: &'static str) -> Result<T> {
    text.parse().map_err(|_| corrupt(what, text))
}

pub(super) fn number<T: TryFrom<i64>>(row: &SqliteRow, what: &'static str) -> Result<T> {
    let value: i64 = plain(row, what)?;
    T::try_from(value).map_err(|_| corrupt(what, value))
}

pub(super) fn number_option<T: TryFrom<i64>>(
    row: &SqliteRow,
    what: &'static str,
) -> Result<Option<T>> {
    plain::<Option<i64>>(row, what)?
        .map(|value| T::try_from(value).map_err(|_| corrupt(what, value)))
        .transpose()
}

pub(super) fn json<T: DeserializeOwned>(row: &SqliteRow, what: &'static str) -> Result<T> {
    read_json(plain(row, what)?, what)
}

pub(super) fn json_option<T: DeserializeOwned>(
    row: &SqliteRow,
    what: &'static str,
) -> Result<Option<T>> {
    plain::<Option<&str>>(row, what)?.map(|text| read_json(text, what)).transpose()
}

fn read_json<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| corrupt(what, text))
}

pub(super) fn word<T: DeserializeOwned>(row: &SqliteRow, what: &'static str) -> Result<T> {
    let text: &str = plain(row, what)?;
    serde_json::from_value(text.into()).map_err(|_| corrupt(what, text))
}

fn corrupt(what: &'static str, value: impl Display) -> MetadataError {
    MetadataError::Corrupt { what, value: value.to_string().chars().take(120).collect() }
}
