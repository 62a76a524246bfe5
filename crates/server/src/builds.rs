//! Between the messages of the API and the builder's records.

use kiln_metadata::BuildRecord;
use kiln_types::api::BuildInfo;

/// What clients see of a build.
pub(crate) fn info(record: BuildRecord) -> BuildInfo {
    BuildInfo {
        id: record.id,
        status: record.status,
        name: record.name,
        image: record.image,
        definition_key: record.definition_key,
        steps_total: record.definition.steps.len() as u32,
        steps_cached: record.steps_cached,
        failure: record.failure,
        created_at: record.created_at,
        finished_at: record.finished_at,
    }
}
