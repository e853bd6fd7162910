#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Mutex;

use async_trait::async_trait;
use overstory_model::archive::Message;
use proptest::prelude::*;

use super::*;
use crate::archive::{Each, Trouble};

const DAY: i64 = 1_795_219_200;
const TIME: Duration = Duration::from_secs(30);

#[derive(Default)]
struct FakeArchive {
    records: Mutex<Vec<(String, i64, Vec<u8>)>>,
    /// Nodes that do not answer.
    away: Mutex<Vec<Missing>>,
    /// Nodes that break off.
    broken: Mutex<Vec<Missing>>,
    /// From this second on reading takes for ever.
    stuck_from: Mutex<Option<i64>>,
    /// What ends before this second takes for ever.
    stuck_below: Mutex<Option<i64>>,
    reads: Mutex<Vec<(i64, i64)>>,
}

#[async_trait]
impl EventArchive for FakeArchive {
    async fn away(&self) -> Vec<Missing> {
        self.away.lock().unwrap().clone()
    }

    async fn read(&self, part: Part<'_>, without: &[SocketAddrV4], each: Each<'_>) -> Vec<Missing> {
        self.reads.lock().unwrap().push((part.low, part.high));
        let stuck = self.stuck_from.lock().unwrap().is_some_and(|from| part.high >= from);
        if stuck || self.stuck_below.lock().unwrap().is_some_and(|below| part.high < below) {
            std::future::pending::<()>().await;
        }
        for (channel, second, record) in self.records.lock().unwrap().iter() {
            let holds = record.windows(part.needle.len().max(1)).any(|window| window == part.needle.as_bytes());
            let inside = (part.low..=part.high).contains(second) && channel == part.channel;
            if inside && (part.needle.is_empty() || holds) {
                each(*second, record);
            }
        }
        let mut broken = self.broken.lock().unwrap().clone();
        broken.retain(|missing| !without.contains(&missing.node));
        broken
    }
}

fn missing() -> Missing {
    Missing { node: "127.0.0.1:23100".parse().unwrap(), trouble: Trouble::Away, why: "not connected".to_owned() }
}

struct Put {
    second: i64,
    received: i64,
    id: Option<String>,
    redelivered: bool,
    output: String,
}

fn put(second: i64, number: i64) -> Put {
    let id = Some(format!("id-{number}"));
    Put { second, received: second * 1_000_000 + number, id, redelivered: false, output: number.to_string() }
}

impl FakeArchive {
    fn put(&self, put: &Put) {
        let body = format!(
            r#"{{"connector":"a","connector_name":"b","component":"host1","timestamp":{},"output":"{}"}}"#,
            put.second, put.output
        );
        let headers = std::collections::BTreeMap::new();
        let message = Message {
            body: body.as_bytes(),
            routing_key: "k",
            message_id: put.id.as_deref(),
            content_type: None,
            headers: &headers,
            redelivered: put.redelivered,
            received: put.received,
        };
        let (at, archived) = Archived::of(&message, 366 * 86_400);
        assert_eq!(at.0, put.second);
        self.records.lock().unwrap().push((channel(at), at.0, archived.encode()));
    }
}

fn query(from: i64, to: i64, limit: usize) -> Query {
    Query { from, to, after: None, limit, filters: Filters::default(), partial: false }
}

fn outputs(page: &Page) -> Vec<String> {
    let output = |found: &Found| {
        let body: serde_json::Value = serde_json::from_str(found.event.body.stored()).unwrap();
        body["output"].as_str().unwrap().to_owned()
    };
    page.events.iter().map(output).collect()
}

/// All pages, one after another, with something done between each two.
async fn all(archive: &FakeArchive, mut query: Query, mut between: impl FnMut(&FakeArchive)) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..10_000 {
        let page = search(archive, &query, TIME).await.unwrap();
        assert!(page.events.len() <= query.limit);
        told.extend(outputs(&page));
        if page.next.is_none() {
            return told;
        }
        assert!(page.next > query.after, "it goes on");
        query.after = page.next;
        between(archive);
    }
    panic!("there is no end");
}

#[tokio::test]
async fn pages_join_without_gap_or_repetition_also_within_a_second_and_over_days() {
    let archive = FakeArchive::default();
    // Written in no order: of two nodes, late, and all in one second.
    for number in (0..50).rev() {
        archive.put(&put(DAY + 86_390 + number / 7 * 3, number));
    }
    for number in [55, 52, 58, 50, 51, 53, 54, 57, 56] {
        archive.put(&put(DAY + 86_500, number));
    }
    let expected: Vec<_> = (0..59).map(|number: i32| number.to_string()).collect();
    for limit in [1, 2, 3, 7, 10, 58, 59, 60, 1000] {
        assert_eq!(all(&archive, query(DAY, DAY + 2 * 86_400, limit), |_| ()).await, expected, "{limit}");
    }
    assert_eq!(all(&archive, query(DAY + 86_390, DAY + 86_393, 3), |_| ()).await, expected[..7]);
}

#[tokio::test]
async fn what_arrives_between_two_pages_in_the_same_second_is_told_too() {
    let archive = FakeArchive::default();
    (0..4).for_each(|number| archive.put(&put(DAY, number)));
    let mut next = 4;
    let told = all(&archive, query(DAY, DAY + 1, 2), |archive| {
        if next < 6 {
            archive.put(&put(DAY, next));
            next += 1;
        }
    })
    .await;
    assert_eq!(told, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_message_that_was_archived_twice_is_told_once_wherever_the_page_ends() {
    let archive = FakeArchive::default();
    archive.put(&put(DAY, 0));
    archive.put(&put(DAY, 1));
    // Stored twice over by the same process.
    archive.put(&put(DAY, 1));
    // Delivered again, by its name and without one.
    archive.put(&Put { received: DAY * 1_000_000 + 500, redelivered: true, ..put(DAY, 0) });
    let unnamed =
        |received: i64, redelivered| Put { id: None, received, redelivered, output: "2".to_owned(), ..put(DAY, 2) };
    archive.put(&unnamed(DAY * 1_000_000 + 600, false));
    archive.put(&unnamed(DAY * 1_000_000 + 601, true));
    archive.put(&unnamed(DAY * 1_000_000 + 602, false));
    for limit in 1..8 {
        let told = all(&archive, query(DAY, DAY + 10, limit), |_| ()).await;
        assert_eq!(told, ["0", "1", "2", "2"], "{limit}: two that nobody named and that came anew are two");
    }
}

/// A record of the message `name` without a time of its own, filed at its arrival.
fn timeless(archive: &FakeArchive, second: i64, name: Option<&str>, redelivered: bool, output: &str) {
    let body = format!(r#"{{"connector":"a","connector_name":"b","component":"host1","output":"{output}"}}"#);
    let headers = std::collections::BTreeMap::new();
    let message = Message {
        body: body.as_bytes(),
        routing_key: "k",
        message_id: name,
        content_type: None,
        headers: &headers,
        redelivered,
        received: second * 1_000_000,
    };
    let (at, archived) = Archived::of(&message, 366 * 86_400);
    assert_eq!(at.0, second);
    archive.records.lock().unwrap().push((channel(at), second, archived.encode()));
}

/// Copies of an event without a timestamp are filed under different seconds, so they could be on two pages, and each page
/// told its one.
#[tokio::test]
async fn copies_under_different_seconds_are_told_once_wherever_the_page_ends() {
    let archive = FakeArchive::default();
    let middle = DAY + 86_390;
    timeless(&archive, middle, Some("a"), false, "0");
    timeless(&archive, middle + 1, None, false, "1");
    timeless(&archive, middle + 5, Some("a"), true, "0");
    // Over the end of the day.
    timeless(&archive, middle + 3_000, None, true, "1");
    timeless(&archive, middle + 3_001, Some("b"), false, "2");
    timeless(&archive, middle + 3_030, Some("b"), false, "2");
    // Too far away to be the same, whatever page it is on.
    timeless(&archive, middle + 3_100, Some("b"), false, "2 again");
    timeless(&archive, middle + 6_000, None, true, "1");
    timeless(&archive, middle + 6_010, None, false, "1");
    timeless(&archive, middle + 9_999, None, true, "1");
    timeless(&archive, middle + 20_000, None, true, "1");
    for limit in 1..12 {
        let told = all(&archive, query(DAY, DAY + 2 * 86_400, limit), |_| ()).await;
        assert_eq!(told, ["0", "1", "2", "2 again", "1", "1", "1"], "{limit}");
    }
    let told = all(&archive, query(middle + 2, DAY + 2 * 86_400, 1), |_| ()).await;
    assert_eq!(told[..2], ["0", "1"], "the first ones that are asked for are told");
}

#[tokio::test]
async fn what_was_not_looked_for_in_time_is_left_for_the_next_page() {
    let archive = FakeArchive::default();
    timeless(&archive, DAY, Some("a"), false, "a");
    (0..4).for_each(|number| archive.put(&put(DAY + number, number + 1)));
    timeless(&archive, DAY + 3, Some("a"), true, "a");
    let mut query = query(DAY, DAY + 100, 3);
    let page = search(&archive, &query, TIME).await.unwrap();
    assert_eq!(outputs(&page), ["a", "1", "2"]);
    query.after = page.next;
    *archive.stuck_below.lock().unwrap() = Some(DAY + 3);
    let short = Duration::from_millis(200);
    let page = search(&archive, &query, short).await.unwrap();
    assert_eq!(outputs(&page), ["3"], "whether the next one repeats another is not known");
    query.after = page.next;
    assert_eq!(search(&archive, &query, short).await.unwrap_err(), SearchError::TooSlow);
    *archive.stuck_below.lock().unwrap() = None;
    let page = search(&archive, &query, short).await.unwrap();
    assert_eq!((outputs(&page), page.next), (vec!["4".to_owned()], None));
}

/// The first window of a page is 64 s wide: a page that begins where more lies in it than can be read in time had to be
/// asked for in vain for ever.
#[tokio::test]
async fn a_first_window_that_takes_too_long_is_tried_narrower() {
    let archive = FakeArchive::default();
    (0..64).for_each(|number| archive.put(&put(DAY + number, number)));
    *archive.stuck_from.lock().unwrap() = Some(DAY + 10);
    let page = search(&archive, &query(DAY, DAY + 86_400, 100), Duration::from_secs(1)).await.unwrap();
    assert_eq!(outputs(&page)[..4], ["0", "1", "2", "3"]);
    assert!(page.next.unwrap().second > DAY);
}

#[tokio::test]
async fn an_empty_range_of_a_year_is_read_in_few_windows() {
    let archive = FakeArchive::default();
    let page = search(&archive, &query(DAY - 365 * 86_400, DAY, 100), TIME).await.unwrap();
    assert!(page.events.is_empty() && page.next.is_none());
    assert!(archive.reads.lock().unwrap().len() < 365 + 10);
}

#[tokio::test]
async fn a_page_holds_so_many_bytes_and_one_event_at_least() {
    let archive = FakeArchive::default();
    let large = "x".repeat(5 << 20);
    for number in 0..4 {
        archive.put(&Put { output: format!("{number}{large}"), ..put(DAY, number) });
    }
    let mut query = query(DAY, DAY + 100, 100);
    let page = search(&archive, &query, TIME).await.unwrap();
    assert_eq!(page.events.len(), 1);
    query.after = page.next;
    let told: Vec<_> = all(&archive, query, |_| ()).await.iter().map(|output| output[..1].to_owned()).collect();
    assert_eq!(told, ["1", "2", "3"]);
}

#[tokio::test]
async fn what_cannot_be_read_in_time_is_left_for_the_next_page() {
    let archive = FakeArchive::default();
    archive.put(&put(DAY, 0));
    *archive.stuck_from.lock().unwrap() = Some(DAY + 5000);
    let short = Duration::from_millis(200);
    let page = search(&archive, &query(DAY, DAY + 86_400, 100), short).await.unwrap();
    assert_eq!(outputs(&page), ["0"]);
    let next = page.next.unwrap();
    assert!(next.second > DAY && next.second < DAY + 5000, "{next}");
    *archive.stuck_from.lock().unwrap() = Some(0);
    assert_eq!(search(&archive, &query(DAY, DAY + 9, 1), short).await.unwrap_err(), SearchError::TooSlow);
}

#[tokio::test]
async fn nodes_that_are_missing_are_told_and_never_passed_over() {
    let archive = FakeArchive::default();
    archive.put(&put(DAY, 0));
    let whole = query(DAY, DAY + 86_400, 100);
    let partial = Query { partial: true, ..whole.clone() };
    for which in [&archive.away, &archive.broken] {
        *which.lock().unwrap() = vec![missing()];
        assert_eq!(search(&archive, &whole, TIME).await.unwrap_err(), SearchError::Missing(vec![missing()]));
        let page = search(&archive, &partial, TIME).await.unwrap();
        assert_eq!((outputs(&page), page.missing), (vec!["0".to_owned()], vec![missing()]));
        which.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn records_that_are_not_the_archives_are_left_out() {
    let archive = FakeArchive::default();
    archive.records.lock().unwrap().push((channel(Timestamp(DAY)), DAY, b"nonsense".to_vec()));
    archive.put(&put(DAY, 0));
    assert_eq!(all(&archive, query(DAY, DAY + 10, 1), |_| ()).await, ["0"]);
}

#[test]
fn positions_are_written_and_read_and_nonsense_is_not() {
    for position in [Position { second: DAY, received: DAY * 1_000_000, hash: u64::MAX }, Position::before(0)] {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
    for text in ["", "1", "1-2", "1-2-3-4", "x-1-1", "ffffffffffffffff-1-1", "-1-1-1"] {
        assert_eq!(text.parse::<Position>(), Err(()), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Pages of any size together are the whole, in order.
    #[test]
    fn pages_together_are_the_whole(
        seconds in proptest::collection::vec(0_i64..40_000, 0..60), limit in 1_usize..20
    ) {
        let archive = FakeArchive::default();
        let mut expected = Vec::new();
        for (number, second) in seconds.iter().enumerate() {
            let number = i64::try_from(number).unwrap();
            archive.put(&put(DAY + 70_000 + second, number));
            expected.push((*second, number));
        }
        expected.sort_unstable();
        let expected: Vec<_> = expected.iter().map(|(_, number)| number.to_string()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(all(&archive, query(DAY, DAY + 2 * 86_400, limit), |_| ()));
        prop_assert_eq!(told, expected);
    }
}
