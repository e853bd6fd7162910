//! Many requests, slow clients, little memory.

use super::*;

/// About 3 MB in buckets of all formats.
fn three_megabytes(world: &World) -> Vec<Record> {
    let mut all = Vec::new();
    for (format, first) in [(Format::V1, 0x1000), (Format::V2, 0x2000), (Format::Plain, 0x3000), (Format::V2, 0x4000)] {
        let some = records((0..8000).map(|n| first + n % 4096), 80);
        world.add(format, &some);
        all.extend(some);
    }
    all
}

#[test]
fn a_thousand_slow_clients_take_bounded_memory_and_files() {
    let world = World::new();
    let expected = three_megabytes(&world);
    node(&world, SMALL, |node| async move {
        let mut clients: Vec<_> =
            (0..1000).map(|n| node.start(all(if n % 2 == 0 { Shape::Neo } else { Shape::Legacy }))).collect();
        let mut found = vec![0; clients.len()];
        // Each takes a batch now and then.
        for round in 0..3 {
            for (client, found) in clients.iter_mut().zip(&mut found) {
                let records = client.next().await.unwrap().unwrap();
                assert_eq!(records, expected[*found..*found + records.len()]);
                *found += records.len();
                let usage = node.reads.usage();
                // The limit, and what was made by requests that had the last of it at the same time.
                assert!(usage.ready_bytes <= (1 << 20) + 2 * 300_000, "{round}: {usage:?}");
                assert!(usage.files <= 4 + 2 * 2, "{round}: {usage:?}");
            }
        }
        clients.truncate(10);
        for (client, found) in clients.into_iter().zip(found) {
            assert!(client.rest().await.unwrap() == expected[found..]);
        }
        assert_eq!(node.damages(0).await, []);
        assert_eq!(node.reads.usage().requests, 0);
    });
}

/// A request whose time is over before it has a batch goes to the end of the queue: with many of them each kept its files.
#[test]
fn requests_in_the_queue_keep_few_files_open() {
    let world = World::new();
    let expected = three_megabytes(&world);
    node(&world, SMALL, |node| async move {
        let nothing = || ReadRequest { filter: Filter::substring(b"not in any of them").unwrap(), ..all(Shape::Neo) };
        let waiting: Vec<_> = (0..300).map(|_| node.start(nothing())).collect();
        let mut most = 0;
        for client in waiting {
            let mut rest = std::pin::pin!(client.rest());
            let found = std::future::poll_fn(|cx| {
                most = most.max(node.reads.usage().files);
                rest.as_mut().poll(cx)
            });
            assert_eq!(found.await.unwrap(), []);
        }
        assert!(most <= 4 + 2 * 2, "{most}");
        assert_eq!(node.read(all(Shape::Neo)).await, expected);
    });
}

/// Views with copies of write buffers, as the storage makes them, of which it is counted how many are still there.
struct Copies {
    buckets: u64,
    given: RefCell<Vec<std::sync::Weak<[u8]>>>,
}

impl Copies {
    fn bytes(&self) -> usize {
        self.given.borrow().iter().filter_map(std::sync::Weak::upgrade).map(|bytes| bytes.len()).sum()
    }
}

impl Views for Copies {
    fn views(&self, _: &str, _: &Ranges, after: Option<After>, max: usize, out: &mut Vec<BucketView>) {
        let first = after.map_or(0, |(_, number)| u64::from(number) + 1);
        for bucket in (first..self.buckets).take(max) {
            let tail = tail_of(Framing::V1, &records((0..640).map(|n| bucket * 0x1000 + n), 85));
            self.given.borrow_mut().push(Arc::downgrade(&tail.bytes));
            let number = BucketNumber::of(bucket * 0x1000);
            let (channel, dir, tail) = ("log".into(), Path::new(DIR).into(), vec![tail]);
            out.push(BucketView { channel, dir, number, format: None, length: 0, tail, as_of: AsOf::default() });
        }
    }
}

#[test]
fn clients_that_do_not_read_keep_no_write_buffers() {
    let world = World::new();
    let copies = Rc::new(Copies { buckets: 100, given: RefCell::default() });
    let expected = records((0..100).flat_map(|bucket| (0..640).map(move |n| bucket * 0x1000 + n)), 85);
    node(&world, SMALL, |node| async move {
        let start = || {
            let (waker, watch) = Waker::watched();
            let views: Rc<dyn Views> = Rc::<Copies>::clone(&copies);
            Client { scan: node.reads.start(views, all(Shape::Neo), waker), watch, shape: Shape::Neo }
        };
        let mut clients: Vec<_> = (0..50).map(|_| start()).collect();
        let mut found = vec![0; clients.len()];
        for (client, found) in clients.iter_mut().zip(&mut found) {
            *found = client.next().await.unwrap().unwrap().len();
        }
        let begun = Instant::now();
        // The limit, what each has of the bucket that it is in, and what two threads do just now.
        while copies.bytes() > (1 << 20) + 50 * (64 << 10) + (2 << 20) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{} bytes, {:?}", copies.bytes(), node.reads.usage());
            tokio::task::yield_now().await;
        }
        // They are fetched again for those who go on.
        for (client, found) in clients.into_iter().zip(found).take(5) {
            assert!(client.rest().await.unwrap() == expected[found..]);
        }
        assert_eq!((node.reads.usage().ready_bytes, copies.bytes()), (0, 0));
    });
}

#[test]
fn large_records_of_blocks_are_counted() {
    let world = World::new();
    // They are small in the file, and take 2 MiB each where they are read.
    for bucket in 1..5_u64 {
        let mut bytes = Format::V2.header().to_vec();
        for n in 0..4 {
            let mut plain = Vec::new();
            record::put(Framing::Plain, bucket * 0x1000 + n, &vec![b'x'; 2 << 20], &mut plain);
            v2::encode_block(bytes.len() as u64, &plain, 3, &mut bytes).unwrap();
        }
        world.put_file(BucketNumber::of(bucket * 0x1000), &bytes);
        world.know(BucketNumber::of(bucket * 0x1000), Some(Format::V2), bytes.len() as u64, &[]);
    }
    node(&world, ReadsOptions { ready_bytes: 64 << 20, ..SMALL }, |node| async move {
        let mut client = node.start(all(Shape::Neo));
        client.next().await.unwrap();
        let begun = Instant::now();
        // Two batches, and the block of the third.
        while node.reads.usage().ready_bytes < 3 * (2 << 20) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", node.reads.usage());
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_small_request_does_not_wait_for_large_ones() {
    let world = World::new();
    for bucket in 0..200 {
        world.add(Format::V1, &records((0..4000).map(|n| bucket * 0x1000 + n), 80));
    }
    let last = records([0xff_ffff], 10);
    world.add(Format::V1, &last);
    let options = ReadsOptions { threads: 1, ready_bytes: 64 << 20, ..SMALL };
    node(&world, options, |node| async move {
        // These find nothing and never stop by themselves.
        let nothing = || ReadRequest { filter: Filter::pcre(b"(x|y)+z", false).unwrap(), ..all(Shape::Neo) };
        let mut large: Vec<_> = (0..8).map(|_| node.start(nothing())).collect();
        assert!(large.iter_mut().all(|client| matches!(client.scan.poll(), Next::Wait)));
        let ranges = Ranges::one(KeyRange::new(0xff_f000, 0xff_ffff).unwrap());
        assert_eq!(node.read(request(ranges, Shape::Legacy)).await, last);
        let over = |client: &mut Client| matches!(client.scan.poll(), Next::End);
        assert!(!large.iter_mut().any(over));
    });
}

#[test]
fn one_request_does_not_run_ahead_of_its_client() {
    let world = World::new();
    three_megabytes(&world);
    node(&world, ReadsOptions { ready_bytes: 64 << 20, ..SMALL }, |node| async move {
        let mut client = node.start(all(Shape::Legacy));
        client.next().await.unwrap();
        let begun = Instant::now();
        // Two batches and a window, and there it stays.
        let mut last = (node.reads.usage(), Instant::now());
        while last.1.elapsed() < Duration::from_millis(200) {
            assert!(begun.elapsed() < Duration::from_secs(30));
            let usage = node.reads.usage();
            if usage != last.0 {
                last = (usage, Instant::now());
            }
            tokio::task::yield_now().await;
        }
        assert!(last.0.ready_bytes <= 2 * 200_000 + (256 << 10), "{last:?}");
    });
}

#[test]
fn threads_end_with_the_node() {
    let world = World::new();
    three_megabytes(&world);
    for _ in 0..20 {
        node(&world, SMALL, |node| async move {
            let _given_up = node.start(all(Shape::Neo));
        });
    }
}
