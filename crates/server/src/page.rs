//! Pagination by cursor: a cursor is the key of the last item that was seen.

use kiln_types::ErrorCode;
use kiln_types::api::Page;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::extract::shorten;
use crate::problem::ApiError;

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;

/// The query of every list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    /// `next` of the page before; absent for the first page.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// How many items at most.
    #[serde(default)]
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub(crate) limit: Option<u32>,
}

impl PageQuery {
    /// The page's size. One more is read from the store, to know whether another page follows.
    pub(crate) fn limit(&self) -> Result<u32, ApiError> {
        match self.limit {
            None => Ok(DEFAULT_LIMIT),
            Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
            Some(limit) => Err(ApiError::new(
                ErrorCode::InvalidRequest,
                format!("`limit` is {limit}; it must be between 1 and {MAX_LIMIT}"),
            )),
        }
    }

    /// The cursor as the list's key type.
    pub(crate) fn cursor<T: std::str::FromStr>(&self) -> Result<Option<T>, ApiError> {
        self.cursor.as_deref().map(str::parse).transpose().map_err(|_| {
            let given = shorten(self.cursor.as_deref().unwrap_or_default());
            ApiError::new(
                ErrorCode::InvalidRequest,
                format!("`cursor` is `{given}`, which is no cursor of this list"),
            )
            .hint("pass `next` of the page before, unchanged")
        })
    }
}

/// Makes a page of up to `limit` + 1 rows.
pub(crate) fn page<T>(mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(key);
    Page { items, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_has_no_cursor() {
        for (rows, limit, items, next) in [(0, 2, 0, None), (2, 2, 2, None), (3, 2, 2, Some("1"))] {
            let page = page((0..rows).collect(), limit, |item: &u32| item.to_string());
            assert_eq!((page.items.len(), page.next.as_deref()), (items, next), "{rows} rows");
        }
    }

    #[test]
    fn limits_and_cursors_are_checked() {
        let query =
            |cursor: Option<&str>, limit| PageQuery { cursor: cursor.map(str::to_owned), limit };
        assert_eq!(query(None, None).limit().unwrap(), 100);
        assert_eq!(query(None, Some(7)).limit().unwrap(), 7);
        assert!(query(None, Some(0)).limit().unwrap_err().problem.detail.contains("`limit` is 0"));
        assert!(query(None, Some(1001)).limit().is_err());
        let error = query(Some("nonsense"), None).cursor::<kiln_types::SandboxId>().unwrap_err();
        assert!(error.problem.detail.contains("nonsense"), "{}", error.problem.detail);
    }
}
