//! What every store has to do, checked on each implementation.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod contract {
    pub(crate) mod accounts;
    pub(crate) mod alarms;
    pub(crate) mod commits;
    pub(crate) mod entities;
    pub(crate) mod fixture;
    pub(crate) mod metrics;
    pub(crate) mod model;
    pub(crate) mod runs;
}

/// Runs each check on each implementation.
macro_rules! contract {
    ($($module:ident::$check:ident,)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $check() {
                super::contract::$module::$check(&super::contract::fixture::Fixture::embedded().await).await;
            })*
        }
        mod mongodb {
            $(#[tokio::test]
            async fn $check() {
                super::contract::$module::$check(&super::contract::fixture::Fixture::mongodb().await).await;
            })*
        }
    };
}

contract! {
    commits::everything_of_a_commit_is_there_afterwards,
    commits::a_conflict_leaves_nothing_behind,
    commits::a_process_that_was_taken_over_writes_nothing,
    commits::units_are_fenced_apart,
    commits::a_second_open_alarm_of_an_entity_is_refused,
    commits::an_alarm_that_is_not_new_must_exist,
    commits::messages_are_known_once_committed,
    commits::the_other_process_knows_the_messages_too,
    commits::old_messages_beyond_the_window_are_forgotten,
    commits::the_outbox_keeps_its_order_until_done,
    commits::outbox_numbers_are_not_given_twice,
    commits::an_empty_commit_is_still_fenced,
    alarms::open_alarms_are_found_by_entity,
    alarms::settled_alarms_come_oldest_first,
    alarms::steps_are_numbered_on_and_paged,
    alarms::steps_beyond_the_limit_are_kept_only_if_they_end_something,
    alarms::lists_tell_open_from_ended,
    alarms::lists_are_searched_and_filtered,
    alarms::lists_are_sorted_by_each_key,
    alarms::lists_come_in_pages,
    entities::entities_are_found_by_id,
    entities::hearing_of_an_entity_never_goes_back,
    entities::lists_are_filtered_sorted_and_paged,
    metrics::a_series_is_described_by_its_latest_words,
    metrics::a_point_at_the_same_time_is_replaced,
    metrics::each_aggregate_is_right,
    metrics::late_points_of_packed_buckets_count,
    metrics::old_points_become_roll_ups_and_go,
    metrics::maintenance_is_done_in_bounded_pieces,
    metrics::series_are_listed_and_searched,
    metrics::random_histories_match_the_naive_model,
    runs::the_latest_report_of_each_engine_is_listed,
    accounts::accounts_are_made_once_and_changed_in_turn,
    accounts::roles_are_replaced,
    accounts::keys_are_kept_by_their_hash,
    accounts::sessions_end,
}
