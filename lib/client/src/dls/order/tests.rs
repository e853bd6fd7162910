#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::stream::StreamControl;

type Record = (i64, Vec<u8>);

/// A node that has records, sorted by buckets alone.
struct Fake {
    port: u16,
    records: Vec<Record>,
    asked: usize,
    sent: usize,
    range: (i64, i64),
    in_order: bool,
}

impl Fake {
    fn new(port: u16, mut records: Vec<Record>) -> Self {
        records.sort_by_key(|(timestamp, _)| bucket(RANKS.of(*timestamp)));
        Self { port, records, asked: 0, sent: 0, range: (0, 0), in_order: true }
    }
}

impl Batches for Fake {
    fn node(&self) -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, 1].into(), self.port)
    }

    fn begin(&mut self, low: i64, high: i64) {
        (self.range, self.sent) = ((low, high), 0);
        self.asked += 1;
    }

    async fn next(&mut self) -> Result<Option<Batch>, Error> {
        let (low, high) = self.range;
        let wanted = self.records.iter().filter(|(timestamp, _)| (low..=high).contains(timestamp));
        let mut batch = Batch::sorted(None, 0);
        wanted.skip(self.sent).take(3).for_each(|(timestamp, value)| batch.push(*timestamp, value));
        self.sent += batch.len();
        Ok(Some(batch).filter(|batch| !batch.is_empty()))
    }

    fn in_order(&self) -> bool {
        self.in_order
    }
}

/// Reads all of some nodes, each with a window of `limit` bytes; gives how often each was asked as well.
async fn merged(nodes: Vec<Vec<Record>>, limit: usize) -> (Vec<Record>, Vec<usize>) {
    let (_control, want) = StreamControl::new(false);
    let mut lanes = Vec::new();
    let mut tasks = Vec::new();
    for (port, records) in (1..).zip(nodes) {
        let (tx, batches) = mpsc::channel(1);
        let mut want = want.clone();
        lanes.push(batches);
        tasks.push(tokio::spawn(async move {
            let mut fake = Fake::new(port, records);
            sort(&mut fake, (i64::MIN, i64::MAX), limit, &tx, &mut want).await.unwrap();
            fake.asked
        }));
    }
    let mut merge = Merge::new(lanes);
    let mut got = Vec::new();
    while let Some(batch) = merge.next().await {
        let batch = batch.unwrap();
        assert!(!batch.is_empty() && batch.len() == batch.records().count());
        got.extend(batch.records().map(|(timestamp, value)| (timestamp, value.to_vec())));
    }
    let mut asked = Vec::new();
    for task in tasks {
        asked.push(task.await.unwrap());
    }
    (got, asked)
}

/// The same as it has to be: by timestamp, node after node, in the order of writing.
fn sorted(nodes: &[Vec<Record>]) -> Vec<Record> {
    let mut all: Vec<Record> = nodes.concat();
    all.sort_by_key(|(timestamp, _)| *timestamp);
    all
}

fn records(numbers: impl IntoIterator<Item = i64>) -> Vec<Record> {
    numbers.into_iter().enumerate().map(|(index, timestamp)| (timestamp, index.to_string().into_bytes())).collect()
}

#[tokio::test]
async fn buckets_are_sorted_and_nodes_merged() {
    let nodes = vec![records([5, 3, 3, 9000, -1, -5000, 4]), records([3, 8999, 9001, -1]), records([])];
    let (got, asked) = merged(nodes.clone(), WINDOW).await;
    assert_eq!(got, sorted(&nodes));
    assert_eq!(asked, [1, 1, 1]);
}

#[tokio::test]
async fn a_bucket_that_does_not_fit_is_asked_for_in_parts() {
    // 1,000 records of some 30 bytes each, in a window of 3,000: 20 times at least, and not much more.
    let nodes = vec![records((0..1000).map(|number| number * 7919 % 4096))];
    let (got, asked) = merged(nodes.clone(), 3000).await;
    assert_eq!(got, sorted(&nodes));
    assert!((8..60).contains(&asked[0]), "{asked:?}");
}

#[tokio::test]
async fn one_timestamp_with_more_records_than_fit_needs_no_sorting() {
    let nodes = vec![records((0..1000).map(|number| if number % 100 == 50 { number } else { 2000 }))];
    let (got, asked) = merged(nodes.clone(), 1000).await;
    assert_eq!(got, sorted(&nodes));
    assert!(asked[0] < 10, "{asked:?}");
}

#[tokio::test]
async fn a_node_that_does_not_keep_to_the_order_of_buckets_is_told_of() {
    let (_control, mut want) = StreamControl::new(false);
    let (tx, _batches) = mpsc::channel(1);
    let mut fake = Fake { in_order: false, ..Fake::new(1, records([1])) };
    let error = sort(&mut fake, (0, 9), WINDOW, &tx, &mut want).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_node_that_fails_ends_alone() {
    let (left, first) = mpsc::channel(1);
    let (right, second) = mpsc::channel(1);
    let mut merge = Merge::new(vec![first, second]);
    let node = SocketAddrV4::new([127, 0, 0, 1].into(), 1);
    left.send(Err((node, Error::Node { node }))).await.unwrap();
    let mut batch = Batch::sorted(None, 0);
    batch.push(7, b"v");
    right.send(Ok(batch)).await.unwrap();
    drop((left, right));
    assert!(matches!(merge.next().await, Some(Err((of, Error::Node { .. }))) if of == node));
    assert_eq!(merge.next().await.unwrap().unwrap().len(), 1);
    assert!(merge.next().await.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_window_is_all_records_come_once_and_in_order(
        nodes in prop::collection::vec(prop::collection::vec(-9000i64..9000, 0..120), 1..4),
        narrow in 0i64..3,
        limit in 1usize..2000,
    ) {
        // Many of the same time, or few.
        let nodes: Vec<_> = nodes.into_iter().map(|times| records(times.into_iter().map(|time| match narrow {
            0 => time,
            1 => time / 100,
            _ => time / 4000,
        }))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (got, _) = runtime.block_on(merged(nodes.clone(), limit));
        prop_assert_eq!(got, sorted(&nodes));
    }
}
