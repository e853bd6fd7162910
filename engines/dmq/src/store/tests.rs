#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

mod disk;
mod model;
mod places;
mod turns;

use super::*;
use disk::TestDisk;

/// A store whose queues hold `size` bytes each.
fn store(size: u64, redeliver: bool, disk: Option<&TestDisk>) -> Store {
    let sizes = Sizes { default: size, by_prefix: vec![("large".to_owned(), 10 * size)] };
    Store::new(Options { sizes, redeliver }, disk.map(|disk| Box::new(disk.clone()) as Box<dyn Disk>))
}

fn pop(store: &mut Store, channel: &str) -> Option<Vec<u8>> {
    let mut popped = None;
    let result = store.pop(channel, &mut |record| popped = Some(record.to_vec()));
    assert_eq!(result == Popped::Taken, popped.is_some(), "{result:?}");
    popped
}

fn drain(store: &mut Store, channel: &str) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| pop(store, channel)).collect()
}

fn records(out: &[u8]) -> Vec<Vec<u8>> {
    crate::ring::records(out).map(<[u8]>::to_vec).collect()
}
