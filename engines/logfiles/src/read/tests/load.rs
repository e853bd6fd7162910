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
