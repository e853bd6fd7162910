//! What is damaged, gone or in the way.

use std::io;

use super::*;
use crate::disk::sim::Call;

const NUMBER: BucketNumber = BucketNumber::of(0x2000);

/// Three buckets with 50 records each.
fn three(world: &World) -> Vec<Record> {
    let mut all = Vec::new();
    for first in [0x1000, 0x2000, 0x3000] {
        let some = records(first..first + 50, 100);
        world.add(Format::V1, &some);
        all.extend(some);
    }
    all
}

#[test]
fn damage_is_told_once_and_the_rest_comes() {
    let world = World::new();
    let expected = three(&world);
    let mut bytes = file_of(Format::V1, &expected[50..100]);
    bytes[16 + 10 * 117 + 3] ^= 0xff;
    world.put_file(NUMBER, &bytes);
    node(&world, SMALL, |node| async move {
        let found = node.read(all(Shape::Neo)).await;
        assert_eq!(found, [&expected[..60], &expected[61..]].concat());
        let damages = node.damages(1).await;
        assert_eq!(damages.iter().map(|(offset, bytes, _)| (*offset, *bytes)).collect::<Vec<_>>(), [(16 + 1170, 117)]);
        let Told::Damage(damage) = node.told.borrow()[0].clone() else { panic!() };
        assert_eq!((&*damage.channel, damage.number), ("log", NUMBER));
    });
}

#[test]
fn a_bucket_that_was_removed_meanwhile_is_empty() {
    let world = World::new();
    let expected = three(&world);
    node(&world, SMALL, |node| async move {
        // The views are taken at the start.
        let client = node.start(all(Shape::Neo));
        node.world.buckets.borrow_mut().remove(&NUMBER);
        node.world.disk.remove(&Path::new(DIR).join(NUMBER.to_string())).unwrap();
        let found = client.rest().await.unwrap();
        // Its file may have been opened before.
        let without = [&expected[..50], &expected[100..]].concat();
        assert!(found == without || found == expected);
        assert_eq!(node.read(all(Shape::Neo)).await, without);
        assert_eq!(node.damages(0).await, []);
    });
}

#[test]
fn a_file_that_is_missing_is_damage_and_what_is_in_memory_comes() {
    let world = World::new();
    let mut expected = three(&world);
    let length = world.buckets.borrow()[&NUMBER].length;
    let tail = records([0x2999], 10);
    world.know(NUMBER, Some(Format::V1), length, &[tail_of(Framing::V1, &tail)]);
    world.disk.remove(&Path::new(DIR).join(NUMBER.to_string())).unwrap();
    node(&world, SMALL, |node| async move {
        expected.splice(50..100, tail);
        assert_eq!(node.read(all(Shape::Legacy)).await, expected);
        assert_eq!(node.damages(1).await, [(0, length, "the file is missing")]);
    });
}

#[test]
fn a_file_that_cannot_be_read_is_damage_and_the_next_comes() {
    let world = World::new();
    let expected = three(&world);
    let length = world.buckets.borrow()[&NUMBER].length;
    for (call, why) in [(Call::Open, "the file may not be read"), (Call::Read, "reading the file fails")] {
        world.disk.heal();
        let kind = if call == Call::Open { io::ErrorKind::PermissionDenied } else { io::ErrorKind::Other };
        world.disk.fail(call, 1, 1, kind);
        let expected = [&expected[..50], &expected[100..]].concat();
        let one = ReadsOptions { threads: 1, ..SMALL };
        node(&world, one, |node| async move {
            assert_eq!(node.read(all(Shape::Legacy)).await, expected);
            assert_eq!(node.damages(1).await, [(0, length, why)]);
        });
    }
}

#[test]
fn a_file_that_is_shorter_than_it_should_be_is_read_as_far_as_it_goes() {
    let world = World::new();
    let expected = three(&world);
    let bytes = file_of(Format::V1, &expected[50..70]);
    world.put_file(NUMBER, &bytes);
    let (expected, end) = (&expected, bytes.len() as u64);
    node(&world, SMALL, |node| async move {
        assert_eq!(node.read(all(Shape::Legacy)).await, [&expected[..70], &expected[100..]].concat());
        // The owner was asked again, and said the same.
        assert!(node.world.asked.get() >= 2);
        assert_eq!(node.damages(1).await, [(end, 30 * 117, "the file is shorter than it was")]);
    });
    // Emptied.
    world.put_file(NUMBER, b"");
    node(&world, SMALL, |node| async move {
        assert_eq!(node.read(all(Shape::Neo)).await, [&expected[..50], &expected[100..]].concat());
        assert_eq!(node.damages(1).await, [(0, 16 + 50 * 117, "the file is shorter than it was")]);
    });
}

#[test]
fn a_bucket_that_is_rewritten_meanwhile_is_read_once() {
    let world = World::new();
    let expected = three(&world);
    let old = world.buckets.borrow()[&NUMBER].clone();
    // As the request sees it: some of the records are in memory yet.
    let short = file_of(Format::V1, &expected[50..70]).len() as u64;
    world.know(NUMBER, old.format, short, &[tail_of(Framing::V1, &expected[70..100])]);
    node(&world, SMALL, |node| async move {
        let client = node.start(all(Shape::Neo));
        let bytes = file_of(Format::V2, &expected[50..100]);
        node.world.put_file(NUMBER, &bytes);
        node.world.know(NUMBER, Some(Format::V2), bytes.len() as u64, &[]);
        let found = client.rest().await.unwrap();
        assert_eq!(found, expected);
        assert_eq!(node.damages(0).await, []);
    });
}

#[test]
fn a_wrong_format_in_the_view_is_not_asked_for_for_ever() {
    let world = World::new();
    let expected = three(&world);
    let length = world.buckets.borrow()[&NUMBER].length;
    world.know(NUMBER, Some(Format::V2), length, &[]);
    node(&world, SMALL, |node| async move {
        let found = node.read(all(Shape::Neo)).await;
        assert_eq!((&found[..50], &found[found.len() - 50..]), (&expected[..50], &expected[100..]));
        assert!(!node.damages(1).await.is_empty());
    });
}

#[test]
fn a_request_without_files_left_fails_and_says_so() {
    let world = World::new();
    three(&world);
    node(&world, SMALL, |node| async move {
        // A kind of error that is the node's own, as no more open files is.
        node.world.disk.fail(Call::Read, 0, 1, io::ErrorKind::StaleNetworkFileHandle);
        assert_eq!(node.start(all(Shape::Neo)).rest().await, Err(()));
        node.told_times(1).await;
        assert!(matches!(&node.told.borrow()[..], [Told::Failed { channel, .. }] if &**channel == "log"));
        assert_eq!(node.read(all(Shape::Neo)).await.len(), 150);
    });
}

#[test]
fn records_that_a_pattern_is_too_much_for_are_counted() {
    let world = World::new();
    let mut some = records(0x1000..0x1064, 50);
    some[7].1 = [vec![b'a'; 2000], vec![b'!']].concat();
    some[60].1 = some[7].1.clone();
    world.add(Format::V1, &some);
    node(&world, SMALL, |node| async move {
        let filter = Filter::pcre(b"(a+)+$|^1", false).unwrap();
        let mut expected = some.clone();
        expected.remove(60);
        expected.remove(7);
        assert_eq!(node.read(ReadRequest { filter, ..all(Shape::Neo) }).await, expected);
        node.told_times(1).await;
        assert_eq!(*node.told.borrow(), [Told::Undecided { channel: "log".into(), records: 2 }]);
    });
}

#[test]
fn a_request_can_be_given_up_at_any_time() {
    let world = World::new();
    mixed(&world);
    node(&world, SMALL, |node| async move {
        for round in 0..200 {
            let mut client = node.start(all(if round % 2 == 0 { Shape::Neo } else { Shape::Legacy }));
            for _ in 0..round % 5 {
                client.next().await.unwrap();
            }
            for _ in 0..round % 7 {
                tokio::task::yield_now().await;
            }
        }
        let begun = Instant::now();
        while node.reads.usage() != (Usage { requests: 0, ready_bytes: 0, files: 0 }) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", node.reads.usage());
            tokio::task::yield_now().await;
        }
    });
}

/// Matches nothing and panics: there is no such thing in the filters, so a disk does it.
#[derive(Debug)]
struct Panicking;

impl Disk for Panicking {
    fn open(&self, _: &Path) -> io::Result<Arc<dyn crate::disk::File>> {
        panic!("a test of panics");
    }
    fn create(&self, _: &Path) -> io::Result<Arc<dyn crate::disk::File>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn create_dirs(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<crate::disk::Named>> {
        Ok(Vec::new())
    }
    fn stat(&self, _: &Path) -> io::Result<crate::disk::Stat> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[test]
fn a_panic_is_the_failure_of_its_request() {
    let world = World::new();
    three(&world);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reads = Reads::new(Arc::new(Panicking), ReadsOptions { threads: 1, ..SMALL }).unwrap();
    let told = Rc::new(RefCell::new(Vec::new()));
    let local = tokio::task::LocalSet::new();
    let (driven, sink) = (reads.clone(), Rc::clone(&told));
    local.spawn_local(async move { driven.drive(|told| sink.borrow_mut().push(told)).await });
    local.block_on(&runtime, async {
        let node = Node { reads, told, world };
        // The thread goes on.
        for _ in 0..3 {
            assert_eq!(node.start(all(Shape::Neo)).rest().await, Err(()));
        }
        node.told_times(3).await;
    });
}
