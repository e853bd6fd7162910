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
    let (expected, length) = (&expected, world.buckets.borrow()[&NUMBER].length);
    world.disk.fail(Call::Open, 1, 1, io::ErrorKind::PermissionDenied);
    let one = ReadsOptions { threads: 1, ..SMALL };
    node(&world, one, |node| async move {
        let expected = [&expected[..50], &expected[100..]].concat();
        assert_eq!(node.read(all(Shape::Legacy)).await, expected);
        assert_eq!(node.damages(1).await, [(0, length, "the file may not be read")]);
    });
}

/// A disk with pages of one file that it cannot read.
struct BadPages {
    disk: SimDisk,
    path: std::path::PathBuf,
    pages: Vec<std::ops::Range<u64>>,
}

struct BadFile {
    file: Arc<dyn crate::disk::File>,
    pages: Vec<std::ops::Range<u64>>,
}

impl crate::disk::File for BadFile {
    /// As a system does it: what is in front of a bad page is read, then nothing.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let next = self.pages.iter().filter(|pages| pages.end > offset).map(|pages| pages.start).min();
        let good = next.map_or(usize::MAX, |next| usize::try_from(next.saturating_sub(offset)).unwrap());
        if good == 0 {
            return Err(io::Error::from_raw_os_error(5));
        }
        let length = buffer.len().min(good);
        self.file.read_at(&mut buffer[..length], offset)
    }
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for BadPages {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn crate::disk::File>> {
        let file = self.disk.open(path)?;
        Ok(if path == self.path { Arc::new(BadFile { file, pages: self.pages.clone() }) } else { file })
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn crate::disk::File>> {
        self.disk.create(path)
    }
    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dirs(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<crate::disk::Named>> {
        self.disk.list(path)
    }
    fn stat(&self, path: &Path) -> io::Result<crate::disk::Stat> {
        self.disk.stat(path)
    }
}

#[test]
fn a_page_that_the_disk_cannot_read_costs_the_records_in_it() {
    const PAGES: [&[(u64, u64)]; 4] =
        [&[(0, 4096)], &[(8192, 12_288)], &[(4096, 20_480), (400_000, 404_096)], &[(1_150_000, 1_200_016)]];
    for format in [Format::Plain, Format::V1, Format::V2] {
        let world = World::new();
        let before = records(0x1000..0x1010, 100);
        world.add(format, &before);
        // 10,000 records of 117 bytes, and blocks of ten of them.
        let some = records((0..10_000).map(|n| 0x2000 + n % 4096), 100);
        let mut bytes = format.header().to_vec();
        let parts: Vec<_> = some.chunks(10).collect();
        let mut starts = Vec::new();
        for part in &parts {
            starts.push(bytes.len() as u64);
            let mut plain = Vec::new();
            let framing = format.framing();
            part.iter().for_each(|(key, value)| record::put(framing, *key, value, &mut plain));
            match format {
                Format::V2 => drop(v2::encode_block(bytes.len() as u64, &plain, 0, &mut bytes).unwrap()),
                _ => bytes.extend_from_slice(&plain),
            }
        }
        world.put_file(NUMBER, &bytes);
        world.know(NUMBER, Some(format), bytes.len() as u64, &[]);
        let after = records(0x3000..0x3010, 100);
        world.add(format, &after);
        for pages in PAGES {
            let pages: Vec<_> = pages.iter().map(|(from, to)| *from..*to).collect();
            let path = Path::new(DIR).join(NUMBER.to_string());
            let disk = BadPages { disk: world.disk.clone(), path, pages: pages.clone() };
            let (all_parts, starts, bytes) = (&parts, &starts, &bytes);
            let (before, after, pages) = (&before, &after, &pages);
            node_on(Arc::new(disk), &world, SMALL, |node| async move {
                let found = node.read(all(Shape::Neo)).await;
                assert!(found.starts_with(before) && found.ends_with(after), "{format} {pages:?}");
                let found = &found[before.len()..found.len() - after.len()];
                // Parts that are away from what is bad come whole: the one in front may be its first record short, and what
                // cannot be read is passed over in steps that get larger.
                let mut rest = found;
                for (index, part) in all_parts.iter().enumerate() {
                    let start = starts[index];
                    let end = starts.get(index + 1).copied().unwrap_or(bytes.len() as u64);
                    let near = |pages: &std::ops::Range<u64>| {
                        let length = pages.end - pages.start;
                        start < pages.end + length + 8192 && pages.start < end + 2000
                    };
                    if pages.iter().any(near) {
                        while rest.first().is_some_and(|record| part.contains(record)) {
                            rest = &rest[1..];
                        }
                    } else {
                        assert!(rest.starts_with(part), "{format} {pages:?}: part {index}");
                        rest = &rest[part.len()..];
                    }
                }
                assert_eq!(rest, []);
                let damages = node.damages(1).await;
                for pages in pages.iter() {
                    let of = |(offset, bytes, _): &(u64, u64, &str)| {
                        *offset <= pages.start && pages.end.min(offset + bytes) > pages.start
                    };
                    assert!(damages.iter().any(of), "{format} {pages:?}: {damages:?}");
                }
            });
        }
    }
}

#[test]
fn a_disk_that_cannot_read_anything_is_given_up() {
    let world = World::new();
    let bytes = file_of(Format::V1, &records((0..100_000).map(|n| 0x2000 + n % 4096), 1000));
    let length = bytes.len() as u64;
    world.put_file(NUMBER, &bytes);
    world.know(NUMBER, Some(Format::V1), length, &[]);
    // One page in two: each is asked for.
    let pages = (0..length / 8192).map(|page| page * 8192..page * 8192 + 4096).collect();
    let disk = BadPages { disk: world.disk.clone(), path: Path::new(DIR).join(NUMBER.to_string()), pages };
    node_on(Arc::new(disk), &world, SMALL, |node| async move {
        node.read(all(Shape::Neo)).await;
        let damages = node.damages(1).await;
        let (offset, bytes, why) = damages[damages.len() - 1];
        assert_eq!((offset + bytes, why), (length, "reading the file fails"));
        assert!(damages.len() < 400, "{}", damages.len());
    });
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
