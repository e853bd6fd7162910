use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::*;
use crate::disk::RecoveredQueue;

fn wire(records: &[&str]) -> Vec<u8> {
    let one = |record: &&str| [&(record.len() as u64).to_le_bytes(), record.as_bytes()].concat();
    records.iter().flat_map(one).collect()
}

fn consume(store: &mut Store, channel: &str, subscriber: &str) -> Vec<Vec<u8>> {
    let queue = store.subscribe(channel, subscriber).unwrap();
    let consumer = store.join(queue, Waker::noop());
    let mut out = Vec::new();
    while let Some(taken) = store.take(queue, consumer, 1000, &mut out) {
        store.accept(taken);
    }
    store.leave(queue, consumer);
    records(&out)
}

#[test]
fn the_order_is_kept_over_memory_and_disk() {
    // Published nodes put a record into memory whenever it fits, before older ones on disk (protocol §3.2).
    let disk = TestDisk::new(false);
    let mut store = store(40, false, Some(&disk));
    let names: Vec<_> = (0..50).map(|number| format!("{number:02}")).collect();
    let mut popped = Vec::new();
    for (at, name) in names.iter().enumerate() {
        store.push("chan", name.as_bytes()).unwrap();
        if at % 3 == 0 {
            popped.extend(pop(&mut store, "chan"));
        }
    }
    popped.extend(drain(&mut store, "chan"));
    assert_eq!(popped, names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
    assert!(disk.state().queues[&1].kept().is_empty());
}

#[test]
fn the_first_subscriber_takes_the_records_over_and_others_begin_empty() {
    let mut store = store(1000, false, None);
    store.push("chan", b"one").unwrap();
    assert_eq!(pop(&mut store, "missing"), None);
    assert_eq!((store.channel_count(), store.channel_totals("missing")), (1, None));
    let first = store.subscribe("chan", "b").unwrap();
    assert_eq!(store.subscribe("chan", "b").unwrap(), first);
    store.subscribe("chan", "a").unwrap();
    store.push("chan", b"two").unwrap();
    assert_eq!(store.pop("chan", &mut |_| ()), Popped::Subscribed);
    let totals = ChannelTotals { records: 3, bytes: 33, queues: 2, subscribed: true };
    assert_eq!(store.channel_totals("chan"), Some(totals));
    assert_eq!(consume(&mut store, "chan", "b"), [b"one", b"two"]);
    assert_eq!(consume(&mut store, "chan", "a"), [b"two"]);
}

#[test]
fn a_refused_push_to_many_leaves_no_trace() {
    let mut store = store(30, false, None);
    store.push("full", &[1; 20]).unwrap();
    let result = store.push_all(&["new", "full"], &[1; 20]);
    assert!(matches!(result, Err(PushError::Full { queue: 1 })), "{result:?}");
    let result = store.push_all(&["new", "large", "new"], &[1; 20]);
    assert!(matches!(result, Err(PushError::Full { .. })), "twice into the same one: {result:?}");
    let result = store.push("new", &[1; 23]);
    assert!(matches!(result, Err(PushError::TooLarge)), "{result:?}");
    assert_eq!((store.channel_count(), store.totals().records_memory), (1, 1));
    assert_eq!(store.push_all(&[], &[1; 20]).unwrap(), 0);
    assert_eq!(store.push_all(&["new", "large"], &[1; 20]).unwrap(), 2);
}

#[test]
fn a_full_disk_refuses_and_what_is_there_stays() {
    let disk = TestDisk::new(false);
    let mut store = store(30, false, Some(&disk));
    store.push("chan", b"one").unwrap();
    disk.state().full = true;
    store.push("chan", b"two").unwrap();
    for channels in [&["chan"][..], &["new", "chan"]] {
        let result = store.push_all(channels, b"three and more");
        assert!(matches!(result, Err(PushError::Disk(DiskError::Full(_)))), "{result:?}");
    }
    assert_eq!(disk.state().queues.len(), 1);
    disk.state().full = false;
    store.push("chan", &[b'x'; 100]).unwrap();
    assert_eq!(drain(&mut store, "chan"), [&b"one"[..], b"two", &[b'x'; 100]]);
}

#[test]
fn files_come_before_the_disk_and_the_journal_before_files() {
    for (keeps_all, expected) in [(false, ["a", "b", "c", "d", "e"]), (true, ["c", "d", "a", "b", "e"])] {
        let disk = TestDisk::new(keeps_all);
        disk.put(7, "chan", &["c", "d"]);
        let mut store = store(20, false, Some(&disk));
        store.recover(disk.reopen()).unwrap();
        store.load("chan", &wire(&["a"])).unwrap();
        store.load("chan", &wire(&["b"])).unwrap();
        store.push("chan", b"e").unwrap();
        assert_eq!(drain(&mut store, "chan"), expected.map(|name| name.as_bytes().to_vec()));
        assert!(disk.state().queues[&7].kept().is_empty());
        store.push("new", b"record").unwrap();
        assert!(disk.state().queues.contains_key(&8), "numbers go on");
        assert!(matches!(store.load("a@b@c", &[]), Err(ImportError::BadName)));
    }
}

#[test]
fn what_was_there_before_subscribers_belongs_to_the_first_one() {
    let disk = TestDisk::new(false);
    disk.put(3, "chan", &["1", "2"]);
    disk.put(4, "sub@chan", &["3"]);
    disk.put(9, "b@d name", &["kept"]);
    let mut store = store(10, false, Some(&disk));
    store.recover(disk.reopen()).unwrap();
    assert_eq!(disk.state().queues.keys().copied().collect::<Vec<_>>(), [3, 9]);
    store.load("chan", &wire(&["0"])).unwrap();
    assert_eq!(consume(&mut store, "chan", "sub"), [b"0", b"1", b"2", b"3"]);
    store.settle().unwrap();
}

#[test]
fn without_a_disk_what_is_moved_from_elsewhere_finds_room() {
    let mut store = store(20, false, None);
    for number in 0..10_u8 {
        store.import("sub@chan", &[number; 10]).unwrap();
    }
    let totals = store.totals();
    assert_eq!((totals.records_memory, totals.percent()), (10, 900));
    assert!(matches!(store.push("chan", b"more"), Err(PushError::Full { .. })));
    assert_eq!(consume(&mut store, "chan", "sub").len(), 10);
    store.push("chan", b"more").unwrap();
}

#[test]
fn a_number_at_the_end_of_its_range_is_followed_by_a_free_one() {
    let disk = TestDisk::new(false);
    disk.put(u32::MAX, "last", &[]);
    disk.put(1, "first", &[]);
    let mut store = store(100, false, Some(&disk));
    let found = vec![
        RecoveredQueue { queue: 1, name: "first".to_owned(), records: 0, bytes: 0 },
        RecoveredQueue { queue: u32::MAX, name: "last".to_owned(), records: 0, bytes: 0 },
    ];
    store.recover(found).unwrap();
    assert_eq!(store.subscribe("new", "").unwrap(), 2);
}

#[test]
fn batches_that_were_given_back_come_first_and_in_order() {
    let mut store = store(1000, true, None);
    let queue = store.subscribe("chan", "").unwrap();
    for number in 0..9_u8 {
        store.push("chan", &[number]).unwrap();
    }
    let consumer = store.join(queue, Waker::noop());
    let mut batches: Vec<_> = std::iter::repeat_with(|| {
        let mut out = Vec::new();
        (store.take(queue, consumer, 18, &mut out).unwrap(), out)
    })
    .take(3)
    .collect();
    for at in [1, 1, 0] {
        let (taken, out) = batches.remove(at);
        store.give_back(taken, &out);
    }
    assert_eq!(consume(&mut store, "chan", "").concat(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(store.totals().bytes_memory, 0);
}

#[test]
fn waiting_since_the_last_record_was_taken() {
    let mut store = store(1000, false, None);
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let since = |store: &Store| store.totals().waiting_since;
    store.push("chan", b"one").unwrap();
    store.push("chan", b"two").unwrap();
    assert_eq!(since(&store), None);
    for second in 1..4 {
        store.observe(at(second));
        assert_eq!(since(&store), Some(at(1)));
    }
    pop(&mut store, "chan").unwrap();
    store.observe(at(5));
    assert_eq!(since(&store), Some(at(5)));
    pop(&mut store, "chan").unwrap();
    store.observe(at(6));
    assert_eq!(since(&store), None);
}

#[test]
fn ten_thousand_channels_take_little_memory() {
    let mut store = store(1 << 20, false, None);
    for number in 0..10_000 {
        store.push(&format!("channel-{number:05}"), b"one small record").unwrap();
    }
    let each = store.memory() / 10_000;
    assert!(each <= 1200, "{each} bytes for a channel with one record");
    let (mut seen, mut after) = (0, None);
    while seen < 10_000 {
        let mut last = None;
        store.channels(after.as_deref(), &mut |name, totals| {
            assert_eq!((totals.records, totals.bytes), (1, 24));
            seen += 1;
            last = Some(name.to_owned());
            if seen % 999 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(last > after);
        after = last;
    }
}
