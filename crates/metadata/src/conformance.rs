//! What every [`MetadataStore`] must do, as one suite that its tests run.

mod images;
mod jobs;
mod paging;
pub mod sample;
mod sandboxes;
mod slots;
mod snapshots;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::MetadataStore;

/// Makes the stores that the suite runs on.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A new, empty database.
    async fn fresh(&self) -> Arc<dyn MetadataStore>;
    /// The database of the last [`fresh`](Self::fresh) again, as the next daemon opens it.
    async fn reopen(&self) -> Arc<dyn MetadataStore>;
}

type Check = for<'a> fn(&'a dyn Fixture) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

macro_rules! checks {
    ($($module:ident::$name:ident,)*) => {
        [$((stringify!($module::$name), (|fixture| Box::pin($module::$name(fixture))) as Check),)*]
    };
}

/// Runs the whole suite. Needs a tokio runtime; one with several threads finds more.
///
/// # Panics
/// With what the store did wrong.
pub async fn run(fixture: &dyn Fixture) {
    for (name, check) in checks![
        images::layers_and_blobs,
        images::images_come_back_whole,
        images::names_move,
        images::defaults_belong_to_names,
        images::what_is_referred_to_must_be_there,
        images::removal_takes_names_and_pins,
        images::what_is_used_is_not_removed,
        images::the_newest_image_of_a_definition,
        jobs::steps_and_pins,
        jobs::builds_come_back_whole,
        jobs::running_builds_are_listed_after_reopen,
        jobs::keys,
        sandboxes::sandboxes_come_back_whole,
        sandboxes::any_text_survives,
        sandboxes::a_name_is_used_once,
        sandboxes::updates_reach_only_what_is_there,
        sandboxes::all_is_there_after_reopen,
        slots::slots_run_out_and_come_back,
        slots::a_slot_is_bound_with_its_sandbox,
        slots::tasks_get_distinct_slots,
        slots::unused_slots_are_released_at_start,
        snapshots::a_snapshot_names_its_image,
        snapshots::names_of_snapshots_are_kept,
        paging::sandboxes,
        paging::builds,
        paging::images,
        paging::snapshots,
        paging::a_page_has_its_limit,
    ] {
        tracing::info!(name, "conformance");
        check(fixture).await;
    }
}
