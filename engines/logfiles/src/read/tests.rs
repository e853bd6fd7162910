#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod load;
mod trouble;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use overstory_node::wake::Watch;
use overstory_swarm::batch::{self, Pairs, Refreshed};
use overstory_swarm::key::Key;
use overstory_swarm::neo::dls::GetRangeMessage;
use overstory_swarm::wire::Reader;

use super::*;
use crate::bucket::{BucketNumber, KeyRange};
use crate::disk::sim::SimDisk;
use crate::format::{Format, v2};
use crate::record::{self, Framing};

type Record = (u64, Vec<u8>);

/// A disk with a channel, and what its owner knows of it.
struct World {
    disk: SimDisk,
    buckets: RefCell<BTreeMap<BucketNumber, BucketView>>,
    /// How often views were asked for.
    asked: Cell<usize>,
}

const DIR: &str = "/data/log";

impl World {
    fn new() -> Rc<Self> {
        Rc::new(Self { disk: SimDisk::new(), buckets: RefCell::default(), asked: Cell::new(0) })
    }

    /// Writes a bucket's file, with all records in it.
    fn add(&self, format: Format, records: &[Record]) {
        let number = BucketNumber::of(records[0].0);
        let bytes = file_of(format, records);
        self.put_file(number, &bytes);
        self.know(number, Some(format), bytes.len() as u64, &[]);
    }

    fn put_file(&self, number: BucketNumber, bytes: &[u8]) {
        let path = Path::new(DIR).join(number.to_string());
        self.disk.create_dirs(path.parent().unwrap()).unwrap();
        let file = self.disk.create(&path).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }

    /// What a view says from now on.
    fn know(&self, number: BucketNumber, format: Option<Format>, length: u64, tail: &[Tail]) {
        let (channel, dir) = ("log".into(), Path::new(DIR).into());
        let view = BucketView { channel, dir, number, format, length, tail: tail.to_vec(), as_of: AsOf::default() };
        self.buckets.borrow_mut().insert(number, view);
    }
}

impl Views for World {
    fn views(&self, channel: &str, ranges: &Ranges, after: Option<After>, max: usize, out: &mut Vec<BucketView>) {
        self.asked.set(self.asked.get() + 1);
        if channel != "log" {
            return;
        }
        let buckets = self.buckets.borrow();
        let places = ranges.iter().enumerate().flat_map(|(index, range)| {
            buckets
                .range(range.first_bucket()..=range.last_bucket())
                .map(move |(number, view)| ((index, *number), view))
        });
        let left = places.filter(|(place, _)| after.is_none_or(|after| *place > after));
        out.extend(left.map(|(_, view)| view.clone()).take(max));
    }
}

fn file_of(format: Format, records: &[Record]) -> Vec<u8> {
    let mut bytes = format.header().to_vec();
    let mut plain = Vec::new();
    for (key, value) in records {
        match format {
            Format::V2 => record::put(Framing::Plain, *key, value, &mut plain),
            _ => record::put(format.framing(), *key, value, &mut bytes),
        }
    }
    if !plain.is_empty() {
        v2::encode_block(bytes.len() as u64, &plain, 3, &mut bytes).unwrap();
    }
    bytes
}

fn tail_of(framing: Framing, records: &[Record]) -> Tail {
    let mut bytes = Vec::new();
    records.iter().for_each(|(key, value)| record::put(framing, *key, value, &mut bytes));
    Tail { framing, bytes: bytes.into() }
}

fn records(keys: impl IntoIterator<Item = u64>, length: usize) -> Vec<Record> {
    keys.into_iter().map(|key| (key, format!("{key:x} ").bytes().cycle().take(length).collect())).collect()
}

fn request(ranges: Ranges, shape: Shape) -> ReadRequest {
    ReadRequest { channel: "log".into(), ranges, filter: Filter::none(), shape, compress: false }
}

fn all(shape: Shape) -> ReadRequest {
    request(Ranges::one(KeyRange::ALL), shape)
}

fn decode(shape: Shape, message: &Batch) -> Vec<Record> {
    let mut plain = Vec::new();
    match shape {
        Shape::Legacy => {
            let array = Reader::new(message).array().unwrap();
            batch::decode(array, 32 << 20, &mut plain).unwrap();
            let key = |text: &[u8]| Key::from_hex16(text).unwrap().0;
            Pairs::new(&plain).map(|pair| pair.map(|(text, value)| (key(text), value.to_vec())).unwrap()).collect()
        }
        Shape::Neo => {
            let GetRangeMessage::Records(block) = GetRangeMessage::decode(message).unwrap() else { panic!() };
            batch::decode_block(block.plain_len, block.block, 32 << 20, &mut plain).unwrap();
            Refreshed::new(&plain).map(|record| record.map(|(key, value)| (key, value.to_vec())).unwrap()).collect()
        }
    }
}

/// The readers of a world, and what they told.
struct Node {
    reads: Reads,
    told: Rc<RefCell<Vec<Told>>>,
    world: Rc<World>,
}

/// Runs a node's thread.
fn node<F: Future<Output = ()>>(world: &Rc<World>, options: ReadsOptions, test: impl FnOnce(Rc<Node>) -> F) {
    node_on(Arc::new(world.disk.clone()), world, options, test);
}

/// The same, with another way to the disk.
fn node_on<F: Future<Output = ()>>(
    disk: Arc<dyn Disk>,
    world: &Rc<World>,
    options: ReadsOptions,
    test: impl FnOnce(Rc<Node>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let reads = Reads::new(disk, options).unwrap();
    let told = Rc::new(RefCell::new(Vec::new()));
    let local = tokio::task::LocalSet::new();
    let (driven, sink) = (reads.clone(), Rc::clone(&told));
    local.spawn_local(async move { driven.drive(|told| sink.borrow_mut().push(told)).await });
    local.block_on(&runtime, test(Rc::new(Node { reads, told, world: Rc::clone(world) })));
}

const SMALL: ReadsOptions = ReadsOptions { threads: 2, ready_bytes: 1 << 20, open_files: 4 };

impl Node {
    fn start(&self, request: ReadRequest) -> Client {
        let (waker, watch) = Waker::watched();
        let shape = request.shape;
        let views: Rc<dyn Views> = Rc::<World>::clone(&self.world);
        Client { scan: self.reads.start(views, request, waker), watch, shape }
    }

    async fn read(&self, request: ReadRequest) -> Vec<Record> {
        self.start(request).rest().await.unwrap()
    }

    /// What was told of damage, `count` at least.
    async fn damages(&self, count: usize) -> Vec<(u64, u64, &'static str)> {
        self.told_times(count).await;
        let told = self.told.borrow();
        let damage = |told: &Told| match told {
            Told::Damage(damage) => (damage.offset, damage.bytes, damage.why),
            other => panic!("{other:?}"),
        };
        told.iter().map(damage).collect()
    }

    async fn told_times(&self, count: usize) {
        let begun = Instant::now();
        tokio::task::yield_now().await;
        while self.told.borrow().len() < count {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", self.told);
            tokio::task::yield_now().await;
        }
    }
}

struct Client {
    scan: Scan,
    watch: Watch,
    shape: Shape,
}

impl Client {
    /// The records of the next batch; none at the end, an error if the request failed.
    async fn next(&mut self) -> Result<Option<Vec<Record>>, ()> {
        let begun = Instant::now();
        loop {
            match self.scan.poll() {
                Next::Batch(batch) => return Ok(Some(decode(self.shape, &batch))),
                Next::End => return Ok(None),
                Next::Failed => return Err(()),
                Next::Wait => {}
            }
            while !self.watch.take() {
                assert!(begun.elapsed() < Duration::from_secs(60), "nobody woke the client");
                tokio::task::yield_now().await;
            }
        }
    }

    async fn rest(mut self) -> Result<Vec<Record>, ()> {
        let mut all = Vec::new();
        while let Some(records) = self.next().await? {
            assert!(!records.is_empty());
            all.extend(records);
        }
        Ok(all)
    }
}

/// Buckets of all formats with 20 records each, in several slots.
fn mixed(world: &World) -> Vec<Record> {
    let formats = [Format::Plain, Format::V1, Format::V2];
    let mut all = Vec::new();
    for (index, bucket) in (0..300_u64).map(|index| index * 0x5001_b000).enumerate() {
        let some = records((0..20).map(|n| (bucket & !0xfff) + 1 + (n * 409) % 4095), 10 + index % 50);
        world.add(formats[index % 3], &some);
        all.extend(some);
    }
    all
}

#[test]
fn all_records_of_all_buckets_come_in_order() {
    let world = World::new();
    let expected = mixed(&world);
    node(&world, SMALL, |node| async move {
        for compress in [false, true] {
            for shape in [Shape::Legacy, Shape::Neo] {
                assert_eq!(node.read(ReadRequest { compress, ..all(shape) }).await, expected);
            }
        }
        assert_eq!(node.damages(0).await, []);
        // Portions, not all at once, and not one by one.
        assert!((4 * 4..4 * 20).contains(&node.world.asked.get()), "{}", node.world.asked.get());
        assert_eq!(node.reads.usage(), Usage { requests: 0, ready_bytes: 0, files: 0 });
    });
}

#[test]
fn ranges_begin_and_end_within_buckets() {
    let world = World::new();
    let everything = mixed(&world);
    node(&world, SMALL, |node| async move {
        for (low, high) in [
            (0, 0),
            (everything[30].0, everything[30].0),
            (everything[5].0, everything[5990].0),
            (1000, 0x5001_b000),
            (0x5001_b400, 0x5001_b600),
            (1 << 50, u64::MAX),
        ] {
            let expected: Vec<_> = everything.iter().filter(|(key, _)| (low..=high).contains(key)).cloned().collect();
            let ranges = Ranges::one(KeyRange::new(low, high).unwrap());
            assert_eq!(node.read(request(ranges, Shape::Neo)).await, expected, "{low:x} {high:x}");
        }
    });
}

#[test]
fn timestamps_below_zero_come_first() {
    let world = World::new();
    let (below, above) = (records([u64::MAX - 0x3000, u64::MAX - 1, u64::MAX], 30), records([0, 5, 9, 0x7000], 30));
    world.add(Format::V1, &below[..1]);
    world.add(Format::V1, &below[1..]);
    world.add(Format::V2, &above[..3]);
    world.add(Format::Plain, &above[3..]);
    node(&world, SMALL, |node| async move {
        let ranges = Ranges::signed(i64::MIN, i64::MAX).unwrap();
        assert_eq!(node.read(request(ranges, Shape::Neo)).await, [&below[..], &above].concat());
        let ranges = Ranges::signed(-2, 5).unwrap();
        assert_eq!(node.read(request(ranges, Shape::Neo)).await, [&below[1..], &above[..2]].concat());
        assert_eq!(node.read(all(Shape::Legacy)).await, [&above[..], &below].concat());
    });
}

#[test]
fn what_is_in_memory_comes_behind_the_file() {
    let world = World::new();
    let some = records([0x1001, 0x1fff, 0x1000, 0x1003, 0x1004, 0x1002], 100);
    for (format, number) in [(Format::V1, 0x1000), (Format::Plain, 0x2000), (Format::V2, 0x3000)] {
        let some: Vec<_> = some.iter().map(|(key, value)| (key - 0x1000 + number, value.clone())).collect();
        let number = BucketNumber::of(number);
        world.add(format, &some[..2]);
        let length = world.buckets.borrow()[&number].length;
        let tail = [tail_of(format.framing(), &some[2..4]), tail_of(format.framing(), &some[4..])];
        world.know(number, Some(format), length, &tail);
    }
    // No file yet at all.
    let fresh = records([0x4005, 0x4001], 100);
    world.know(BucketNumber::of(0x4000), Some(Format::V1), 0, &[tail_of(Framing::V1, &fresh)]);
    node(&world, SMALL, |node| async move {
        let found = node.read(all(Shape::Legacy)).await;
        assert_eq!(found.len(), 20);
        assert_eq!(found[..6], some);
        assert_eq!(found[18..], fresh);
        let found = node.read(request(Ranges::one(KeyRange::new(0x2003, 0x4001).unwrap()), Shape::Neo)).await;
        let keys: Vec<_> = found.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [0x2fff, 0x2003, 0x2004, 0x3001, 0x3fff, 0x3000, 0x3003, 0x3004, 0x3002, 0x4001]);
        assert_eq!(node.damages(0).await, []);
    });
}

#[test]
fn bytes_that_are_being_written_behind_a_view_do_not_count() {
    let world = World::new();
    let some = records([0x1001, 0x1002], 100);
    world.add(Format::V1, &some);
    let mut bytes = file_of(Format::V1, &some);
    bytes.extend_from_slice(&[1; 50]);
    world.put_file(BucketNumber::of(0x1000), &bytes);
    node(&world, SMALL, |node| async move {
        assert_eq!(node.read(all(Shape::Neo)).await, some);
        assert_eq!(node.damages(0).await, []);
    });
}

#[test]
fn a_format_that_nobody_looked_at_yet_is_found_out() {
    let world = World::new();
    let expected = mixed(&world);
    for view in world.buckets.borrow_mut().values_mut() {
        view.format = None;
    }
    node(&world, SMALL, |node| async move { assert_eq!(node.read(all(Shape::Neo)).await, expected) });
}

#[test]
fn large_records_and_buckets_of_many_windows_are_whole() {
    let world = World::new();
    let lengths = [0, 70_000, 3, 300_000, 8 << 20, 65_504, 65_505, 99_999, 1 << 20];
    let mut expected = Vec::new();
    for (format, first) in [(Format::V1, 0x1001), (Format::Plain, 0x2001), (Format::V2, 0x3001)] {
        let some: Vec<_> = (first..).zip(lengths).flat_map(|(key, length)| records([key], length)).collect();
        world.add(format, &some);
        expected.extend(some);
        let many = records((0..20_000).map(|n| 0x10_0000 + (first << 12) + n % 4096), 60);
        world.add(format, &many);
        expected.extend(many);
    }
    expected.sort_by_key(|(key, _)| key >> 12);
    node(&world, SMALL, |node| async move {
        for shape in [Shape::Legacy, Shape::Neo] {
            let found = node.read(all(shape)).await;
            assert!(found == expected, "{shape:?}: {} of {}", found.len(), expected.len());
        }
        assert_eq!(node.damages(0).await, []);
    });
}

#[test]
fn a_part_of_a_large_bucket_is_found_by_its_index() {
    let world = World::new();
    let value = |key: u64| {
        let mut state = key | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[2]
        };
        (0..20_000).map(|_| next()).collect::<Vec<_>>()
    };
    let some: Vec<Record> = (0x1000..0x1200).map(|key| (key, value(key))).collect();
    let mut bytes = file_of(Format::V2, &some);
    let end = bytes.len() as u64;
    assert!(end > 4 << 20, "{end}");
    let mut index = v2::Index::default();
    index.add(16, &bytes[16..]);
    index.write(end, &mut bytes);
    let indexed = bytes.len() as u64;
    // Blocks that came behind the index.
    let more: Vec<Record> = (0x1100..0x1102).map(|key| (key, value(key + 7))).collect();
    let mut plain = Vec::new();
    more.iter().for_each(|(key, value)| record::put(Framing::Plain, *key, value, &mut plain));
    v2::encode_block(bytes.len() as u64, &plain, 3, &mut bytes).unwrap();
    let number = BucketNumber::of(0x1000);
    for length in [end, indexed, bytes.len() as u64] {
        world.put_file(number, &bytes);
        world.know(number, Some(Format::V2), length, &[]);
        let (some, behind) = (&some, if length > indexed { &more[..] } else { &[] });
        node(&world, SMALL, |node| async move {
            let ranges = Ranges::one(KeyRange::new(0x1100, 0x1101).unwrap());
            let expected = [&some[0x100..0x102], behind].concat();
            assert!(node.read(request(ranges, Shape::Neo)).await == expected);
            assert!(node.read(all(Shape::Legacy)).await == [&some[..], behind].concat());
            assert_eq!(node.damages(0).await, []);
        });
    }
}

#[test]
fn a_filter_leaves_out_what_does_not_match() {
    let world = World::new();
    let everything = mixed(&world);
    node(&world, SMALL, |node| async move {
        let filters = [
            Filter::substring(b"5001").unwrap(),
            Filter::pcre(b"^[0-9a-f]*500[0-9]", false).unwrap(),
            Filter::pcre(b"F0F", true).unwrap(),
        ];
        let wanted: [fn(&[u8]) -> bool; 3] = [
            |value| value.windows(4).any(|part| part == b"5001"),
            |value| {
                let front: Vec<_> = value.split(|byte| *byte == b' ').next().unwrap().to_vec();
                front.windows(4).any(|part| part[..3] == *b"500" && part[3].is_ascii_digit())
            },
            |value| value.windows(3).any(|part| part == b"f0f"),
        ];
        for (filter, wanted) in filters.into_iter().zip(wanted) {
            let expected: Vec<_> = everything.iter().filter(|(_, value)| wanted(value)).cloned().collect();
            assert!(!expected.is_empty());
            assert_eq!(node.read(ReadRequest { filter, ..all(Shape::Legacy) }).await, expected);
        }
        let filter = Filter::substring(b"nowhere").unwrap();
        assert_eq!(node.read(ReadRequest { filter, ..all(Shape::Neo) }).await, []);
    });
}

#[test]
fn nothing_is_an_answer_too() {
    let world = World::new();
    node(&world, SMALL, |node| async move {
        assert_eq!(node.read(all(Shape::Legacy)).await, []);
        assert_eq!(node.read(ReadRequest { channel: "missing".into(), ..all(Shape::Neo) }).await, []);
    });
}
