//! Buckets that become other files while they are read.

use std::sync::{Condvar, Mutex};

use overstory_node::wake::Waker;
use overstory_swarm::batch::{self, Pairs};
use overstory_swarm::key::Key as Name;
use overstory_swarm::wire::Reader;

use super::*;
use crate::disk::{File, Named, Stat};
use crate::filter::Filter;
use crate::read::{Next, ReadRequest, Reads, ReadsOptions, Scan, Shape, Told};

/// A disk on which who opens a file can be held.
#[derive(Clone)]
struct Gate {
    disk: SimDisk,
    held: Arc<(Mutex<Hold>, Condvar)>,
}

#[derive(Default)]
struct Hold {
    /// Whether the next one who opens a file is held, and if behind that.
    armed: Option<bool>,
    is_held: bool,
}

impl Gate {
    fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), held: Arc::default() }
    }

    fn arm(&self, behind: bool) {
        self.held.0.lock().unwrap().armed = Some(behind);
    }

    fn holds(&self) -> bool {
        self.held.0.lock().unwrap().is_held
    }

    fn release(&self) {
        *self.held.0.lock().unwrap() = Hold::default();
        self.held.1.notify_all();
    }

    fn pass(&self, behind: bool) {
        let mut hold = self.held.0.lock().unwrap();
        if hold.armed == Some(behind) {
            *hold = Hold { armed: None, is_held: true };
            let _passed = self.held.1.wait_while(hold, |hold| hold.is_held).unwrap();
        }
    }
}

impl Disk for Gate {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.pass(false);
        let file = self.disk.open(path);
        self.pass(true);
        file
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
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

    fn list(&self, path: &Path) -> io::Result<Vec<Named>> {
        self.disk.list(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.disk.stat(path)
    }
}

/// A reader of everything.
struct Client {
    scan: Scan,
    told: Rc<RefCell<Vec<Told>>>,
    _reads: Reads,
}

impl Client {
    fn start(storage: &Rc<Storage>, gate: &Gate, open_files: usize) -> Self {
        let options = ReadsOptions { threads: 1, ready_bytes: 1 << 20, open_files };
        let reads = Reads::new(Arc::new(gate.clone()), options).unwrap();
        let told = Rc::new(RefCell::new(Vec::new()));
        let (driven, sink) = (reads.clone(), Rc::clone(&told));
        tokio::task::spawn_local(async move { driven.drive(|told| sink.borrow_mut().push(told)).await });
        let (ranges, filter) = (Ranges::one(KeyRange::ALL), Filter::none());
        let request = ReadRequest { channel: "log".into(), ranges, filter, shape: Shape::Legacy, compress: false };
        let views: Rc<dyn Views> = Rc::<Storage>::clone(storage);
        let (waker, _watch) = Waker::watched();
        Self { scan: reads.start(views, request, waker), told, _reads: reads }
    }

    /// Adds the records of the next batch. None: there are no more; an error: the request failed.
    async fn next(&mut self, out: &mut Records) -> Option<Result<(), ()>> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            match self.scan.poll() {
                Next::Batch(message) => {
                    let mut plain = Vec::new();
                    batch::decode(Reader::new(&message).array().unwrap(), 32 << 20, &mut plain).unwrap();
                    let key = |text: &[u8]| Name::from_hex16(text).unwrap().0;
                    out.extend(
                        Pairs::new(&plain).map(|pair| pair.map(|(text, value)| (key(text), value.to_vec())).unwrap()),
                    );
                    return Some(Ok(()));
                }
                Next::End => return None,
                Next::Failed => return Some(Err(())),
                Next::Wait => {
                    assert!(tokio::time::Instant::now() < deadline, "the reader has come to a stop");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    fn damage(&self) -> Option<Told> {
        self.told.borrow().iter().find(|told| matches!(told, Told::Damage(_))).cloned()
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    TakeFront,
    Repack,
    RemovedAndPutAgain,
    ChannelRemovedAndPutAgain,
}

const CHANGES: [Change; 4] =
    [Change::TakeFront, Change::Repack, Change::RemovedAndPutAgain, Change::ChannelRemovedAndPutAgain];
const FIRST: u64 = 0x1000;
const NUMBER: BucketNumber = BucketNumber::of(FIRST);

fn value(key: u64, size: usize) -> Vec<u8> {
    // Hardly to be compressed.
    let mut state = key | 1;
    let next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(size).collect()
}

fn put(storage: &Storage, keys: std::ops::Range<u64>, size: usize) {
    keys.for_each(|key| storage.put("log", key, &value(key, size)).unwrap());
}

/// Puts another file in place of a bucket's, that is not shorter in the end.
async fn change(storage: &Storage, disk: &SimDisk, change: Change, number: BucketNumber, front: &(BucketView, Entry)) {
    let first = number.first_key();
    match change {
        Change::TakeFront => storage.take_front(&front.0, &front.1).await.unwrap(),
        Change::Repack => {
            let (view, _) = storage.file_view("log", number).await.unwrap().unwrap();
            let (file, entry) = super::races::compressed(disk, &view, 19);
            assert!(storage.replace("log", number, &view.as_of, view.length, file, entry).await.unwrap());
        }
        Change::RemovedAndPutAgain => assert!(storage.remove_bucket("log", number).await.unwrap()),
        Change::ChannelRemovedAndPutAgain => assert!(storage.remove_channel("log").await.unwrap()),
    }
    put(storage, first + 0x400..first + 0x800, 333);
    storage.flush().await.unwrap();
}

fn in_format(format_v2: bool) -> StorageOptions {
    StorageOptions { format_v2: [(String::new(), format_v2)].into_iter().collect(), ..options() }
}

#[test]
fn a_bucket_that_becomes_another_file_around_its_opening_is_read_as_what_it_became() {
    for (at, format_v2) in [(0, false), (1, true), (2, false), (3, true), (4, true), (5, false), (6, true), (7, false)]
    {
        let (what, behind) = (CHANGES[at / 2], at % 2 == 1);
        let disk = SimDisk::new();
        with_storage(&disk, in_format(format_v2), async |storage, _| {
            put(&storage, FIRST..FIRST + 0x100, 77);
            let front = storage.file_view("log", NUMBER).await.unwrap().unwrap();
            put(&storage, FIRST + 0x100..FIRST + 0x400, 55);
            storage.flush().await.unwrap();
            let gate = Gate::new(&disk);
            gate.arm(behind);
            let mut client = Client::start(&storage, &gate, 16);
            until("a reader opens the file", || {
                let _nothing = client.scan.poll();
                gate.holds()
            })
            .await;
            let length = front.0.length;
            change(&storage, &disk, what, NUMBER, &front).await;
            assert!(storage.entry("log", NUMBER).unwrap().length > length);
            gate.release();
            let mut records = Records::new();
            while let Some(next) = client.next(&mut records).await {
                next.unwrap();
            }
            assert_eq!(client.damage(), None, "{what:?} {behind}");
            assert!(records == read(&storage, &disk, "log"), "{what:?} {behind}: {} records", records.len());
        });
    }
}

#[test]
fn a_rewrite_at_any_point_of_an_answer_costs_no_record_that_stays_and_damages_none() {
    const BUCKETS: u64 = 6;
    let first = |bucket: u64| (bucket + 1) << 12;
    let mut failed = 0;
    for (what, open_files) in
        [(Change::TakeFront, 16), (Change::Repack, 16), (Change::TakeFront, 0), (Change::Repack, 0)]
    {
        for point in 0..7 {
            let disk = SimDisk::new();
            with_storage(&disk, in_format(point % 2 == 0), async |storage, _| {
                let mut fronts = Vec::new();
                for bucket in 0..BUCKETS {
                    put(&storage, first(bucket)..first(bucket) + 0x100, 800);
                }
                for bucket in 0..BUCKETS {
                    let number = BucketNumber::of(first(bucket));
                    fronts.push(storage.file_view("log", number).await.unwrap().unwrap());
                    put(&storage, first(bucket) + 0x100..first(bucket) + 0x300, 700);
                }
                storage.flush().await.unwrap();
                let before = read(&storage, &disk, "log");
                let mut client = Client::start(&storage, &Gate::new(&disk), open_files);
                let mut records = Records::new();
                for _ in 0..point {
                    client.next(&mut records).await.unwrap().unwrap();
                }
                for (bucket, front) in (0..BUCKETS).zip(&fronts) {
                    change(&storage, &disk, what, BucketNumber::of(first(bucket)), front).await;
                }
                let mut whole = true;
                while let Some(next) = client.next(&mut records).await {
                    whole = next.is_ok();
                    if !whole {
                        failed += 1;
                        break;
                    }
                }
                assert!(whole || open_files == 0, "what is open is read to its end");
                assert_eq!(client.damage(), None, "{what:?} at {point}");
                let after = read(&storage, &disk, "log");
                assert!(records.is_sorted_by_key(|(key, _)| key) && records.windows(2).all(|two| two[0].0 < two[1].0));
                assert!(records.iter().all(|record| before.contains(record) || after.contains(record)));
                let stays = before.iter().filter(|record| after.contains(record));
                assert!(!whole || stays.into_iter().all(|record| records.binary_search(record).is_ok()));
            });
        }
    }
    assert!(failed > 0, "a file that was closed within is not gone on with when it is another one");
}

#[test]
fn what_was_sent_away_is_taken_from_no_other_file_than_it_was_read_from() {
    let disk = SimDisk::new();
    with_storage(&disk, options(), async |storage, _| {
        put(&storage, FIRST..FIRST + 0x100, 100);
        let front = storage.file_view("log", NUMBER).await.unwrap().unwrap();
        // Compressed meanwhile, it is shorter than the front was, with a record behind it.
        let (file, entry) = super::races::compressed(&disk, &front.0, 19);
        assert!(entry.length < front.0.length);
        assert!(storage.replace("log", NUMBER, &front.0.as_of, front.0.length, file.clone(), entry).await.unwrap());
        put(&storage, FIRST + 0x200..FIRST + 0x201, 100);
        storage.take_front(&front.0, &front.1).await.unwrap_err();
        assert_eq!(read(&storage, &disk, "log").len(), 0x101);
        // Nor is it replaced by what was made of another one.
        let (view, _) = storage.file_view("log", NUMBER).await.unwrap().unwrap();
        let (file, entry) = super::races::compressed(&disk, &view, 19);
        assert!(!storage.replace("log", NUMBER, &front.0.as_of, view.length, file, entry).await.unwrap());
        assert_eq!(read(&storage, &disk, "log").len(), 0x101);
    });
}
